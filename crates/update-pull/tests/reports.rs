//! The real binary with a GitHub App: what GitHub shows, what commands do, and what the chat hears.

#![allow(clippy::unwrap_used)]

mod site;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use insta::assert_snapshot;
use site::Site;
use testkit::github::{FakeGithub, FakeGithubOptions};

const KEY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../pullre-http/tests/keys/pkcs1.pem");

/// A site whose controller is an App that may do all this.
fn as_app(permissions: &[&str], more: &str) -> Site {
    let mut site = Site::new();
    // What is asked for in comments is only done while it is fresh.
    let options = FakeGithubOptions { real_time: true, ..FakeGithubOptions::default() };
    site.github = FakeGithub::start_with(options).unwrap();
    site.github.change(|world| world.install_app(7, 70, permissions));
    let key = site.path("app.pem");
    std::fs::copy(KEY, &key).unwrap();
    mode(&key, 0o600);
    site.write_ini(&format!(
        "owner = acme\nrepo = shop\ngithub_api_url = {}\ngithub_app_id = 7\n\
         github_app_installation_id = 70\ngithub_private_key = {}\n{more}",
        site.github.url(),
        key.display()
    ));
    site
}

fn mode(file: &Path, mode: u32) {
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(mode)).unwrap();
}

const ALL: [&str; 5] = ["checks", "issues", "pull_requests", "deployments", "metadata"];

/// The client of stg1 has deployed what was offered, and the app answers.
fn deployed(site: &Site) {
    site.by_hand(
        "UPDATE deployments SET outcome = 'succeeded', started_at = offered_at,
             finished_at = offered_at + 65000 WHERE outcome = 'offered';
         UPDATE server_facts SET agent_seen_at = (SELECT MAX(offered_at) FROM deployments),
             agent_version = 'x', app_pull = 1,
             app_sha = (SELECT sha FROM deployments ORDER BY id DESC LIMIT 1)",
    );
}

fn checks(site: &Site) -> String {
    site.github.change(|world| {
        let runs = world.told().checks.values().map(|run| {
            let text = |key: &str| run.body[key].as_str().unwrap_or("-").to_owned();
            let title = run.body["output"]["title"].as_str().unwrap();
            format!("{} {} {}: {title}", text("name"), text("status"), text("conclusion"))
        });
        runs.collect::<Vec<_>>().join("\n")
    })
}

fn comments(site: &Site) -> Vec<String> {
    site.github.change(|world| {
        let told = world.told().comments.values();
        told.filter(|c| c.app.is_some()).map(|c| c.body.clone()).collect()
    })
}

#[test]
fn an_app_without_a_token_is_enough_and_a_life_is_told() {
    let site = as_app(&ALL, "deployments = yes\ncheck_name = staging\n");
    site.open_pull("alice");
    site.run("");
    assert_snapshot!(checks(&site), @"staging in_progress -: Deploying to stg1");
    deployed(&site);
    assert_snapshot!(site.run(""), @"
    exit 0
    said   #1 check: success, Ready on stg1
    said   #1 comment: success
    said   #1 deployment: success, pr-1
    ");
    assert_snapshot!(checks(&site), @"staging completed success: Ready on stg1");
    assert_eq!(comments(&site).len(), 1);
    assert!(comments(&site)[0].contains("**Staging: ready** <http://127.0.0.1:8001/>"));
    site.run("");
    site.github.take_requests();
    assert_snapshot!(site.run(""), @"exit 0");
    let asked = site.github.take_requests();
    assert_eq!(asked.len(), 1, "an idle tick: {asked:?}");
    assert!(asked[0].conditional && asked[0].status == 304, "and it costs nothing: {asked:?}");

    site.github.change(|world| world.close(1));
    site.run("");
    assert_snapshot!(checks(&site), @"staging completed success: Ready on stg1");
    let deployments = site.github.change(|world| {
        let told = world.told().deployments.values();
        told.map(|d| d.statuses.iter().map(|s| s["state"].clone()).collect::<Vec<_>>())
            .map(|states| format!("{states:?}"))
            .collect::<String>()
    });
    assert_snapshot!(deployments, @r#"[String("in_progress"), String("in_progress"), String("success"), String("inactive")]"#);
    assert!(comments(&site)[0].contains("closed"), "{:?}", comments(&site));
}

#[test]
fn a_command_in_a_comment_is_obeyed_and_answered() {
    let site = as_app(&ALL, "");
    site.open_pull("alice");
    site.run("");
    deployed(&site);
    site.run("");
    // GitHub's stamps have whole seconds: what happens in one second looks the same.
    std::thread::sleep(Duration::from_millis(1100));
    let id = site.github.change(|world| {
        world.permit("carol", "write");
        world.comment(1, "mallory", "/pullre stop");
        world.comment(1, "carol", "/pullre redeploy")
    });
    site.run("");
    let reactions = site.github.change(|world| world.told().reactions.clone());
    assert!(reactions.contains(&(id, "+1".into(), "pullre[bot]".into())), "{reactions:?}");
    assert!(reactions.contains(&(id - 1, "-1".into(), "pullre[bot]".into())), "{reactions:?}");
    assert!(comments(&site)[0].contains("`/pullre redeploy` of `carol`"), "{:?}", comments(&site));
    assert!(site.run("explain 1").contains("carol"), "{}", site.run("explain 1"));
}

#[test]
fn doctor_names_the_permissions_that_an_app_lacks() {
    let site = as_app(&["pull_requests"], "deployments = yes\n");
    let told = site.run("doctor");
    let told: Vec<_> = told.lines().filter(|line| line.contains("  GitHub  ")).collect();
    assert_snapshot!(told.join("\n"), @"
    ok       GitHub        acme/shop (private) and its pull requests can be read, by a GitHub App
    MISSING  GitHub        the App lacks checks: write (GitHub Apps only), deployments: write: give it that in its settings, then accept it where it is installed
    ");
}

#[test]
fn doctor_names_an_alert_that_reaches_nobody_and_a_key_that_anybody_reads() {
    let site = as_app(&ALL, "alerts = yes\n");
    let doubts = || {
        let told = site.run("doctor");
        let ours = |line: &&str| line.contains("  alerts  ") || line.contains("App's key");
        told.lines().filter(ours).collect::<Vec<_>>().join("\n")
    };
    let key = site.path("app.pem");
    mode(&key, 0o640);
    assert_snapshot!(doubts(), @"
    warn     GitHub        other users of this machine can read the App's key: chmod 600 DIR/app.pem
    warn     alerts        `alerts = yes`, and there is no chat to tell: set `slack_url` or `google_chat_url`
    ");
    mode(&key, 0o600);
    let ini = std::fs::read_to_string(site.path("app.ini")).unwrap();
    site.write_ini(&format!("{ini}slack_url = http://127.0.0.1:9/x\n"));
    assert_eq!(doubts(), "");
}

#[test]
fn a_forge_that_takes_nothing_fails_no_tick_and_is_named_once() {
    let site = as_app(&ALL, "");
    site.open_pull("alice");
    site.run("plan");
    // The list is read, then everything that is written fails.
    site.github.change(|world| {
        for interface in ["check-runs", "comments", "statuses"] {
            world.forbid(interface);
        }
    });
    let first = site.run("");
    assert!(first.starts_with("exit 0") && first.contains("done   #1 deploy"), "{first}");
    assert_eq!(first.matches("WARN").count(), 3, "{first}");
    let second = site.run("");
    assert_eq!(second, "exit 0\n", "said once");
}

#[test]
fn an_app_that_may_not_read_comments_is_warned_of_once() {
    let site = as_app(&["checks"], "");
    site.open_pull("alice");
    let warned = |told: &str| told.matches("commands in comments are not heard").count();
    assert_eq!(warned(&site.run("")), 1);
    // GitHub's stamps have whole seconds: what happens in one second looks the same.
    std::thread::sleep(Duration::from_millis(1100));
    site.github.change(|world| world.comment(1, "carol", "/pullre hold"));
    site.github.take_requests();
    assert_eq!(warned(&site.run("")), 0);
    let asked = site.github.take_requests();
    let asked = asked.iter().filter(|r| r.path.contains("/issues/comments") && r.status == 403);
    assert_eq!(asked.count(), 1, "though it was asked again");
}

#[test]
fn report_no_only_reads() {
    let site = as_app(&ALL, "report = no\n");
    site.open_pull("alice");
    site.run("");
    let writes = site.github.take_requests().into_iter().filter(|r| r.method != "GET");
    assert_eq!(writes.map(|r| r.path).collect::<Vec<_>>(), ["/app/installations/70/access_tokens"]);
}

/// A chat that hears.
fn chat() -> (String, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/services/T0/secret", listener.local_addr().unwrap());
    let (heard, hears) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            let mut request = Vec::new();
            let mut buffer = [0; 4096];
            while let Ok(n) = stream.read(&mut buffer) {
                request.extend_from_slice(&buffer[..n]);
                if n == 0 || request.ends_with(b"}") {
                    break;
                }
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
            let text = String::from_utf8(request).unwrap();
            let body = text.split("\r\n\r\n").nth(1).unwrap_or_default().to_owned();
            if heard.send(body).is_err() {
                return;
            }
        }
    });
    (url, hears)
}

#[test]
fn the_chat_hears_of_a_failure_once_and_of_its_end_once() {
    let (url, hears) = chat();
    let site = as_app(&ALL, &format!("alerts = yes\nslack_url = {url}\n"));
    site.open_pull("alice");
    site.run("");
    site.by_hand(
        "UPDATE deployments SET outcome = 'failed', started_at = offered_at, failed_step = 'migrate',
             reason = 'exit status 1 <&> at hunter2', finished_at = offered_at + 65000;
         UPDATE servers SET check_url = 'http://tester:hunter2@127.0.0.1:8001/'",
    );
    site.run("");
    site.run("");
    deployed(&site);
    site.by_hand("UPDATE deployments SET outcome = 'succeeded', failed_step = NULL");
    site.by_hand("UPDATE server_facts SET app_pull = 1, app_sha = (SELECT sha FROM deployments)");
    site.run("");
    site.run("");
    let told: Vec<_> = hears.try_iter().map(|line| site.timeless(&line)).collect();
    assert_snapshot!(told.join("\n"), @r#"
    {"text":"acme/shop: the environment of #1 failed: its deployment failed (try 1): migrate: exit status 1 &lt;&amp;&gt; at ***"}
    {"text":"acme/shop: over: the environment of #1 failed: its deployment failed (try 1): migrate: exit status 1 &lt;&amp;&gt; at ***"}
    "#);
}

#[test]
fn a_chat_that_is_away_is_warned_of_once_and_hears_of_it_when_it_is_back() {
    let (url, hears) = chat();
    let site = as_app(&ALL, "alerts = yes\nslack_url = http://127.0.0.1:9/x\n");
    for author in ["alice", "bob"] {
        site.open_pull(author);
    }
    site.run("");
    site.by_hand(
        "UPDATE deployments SET outcome = 'failed', started_at = offered_at, failed_step = 'migrate',
             reason = 'exit status 1', finished_at = offered_at + 65000",
    );
    let warned = |told: &str| told.matches("WARN the chat could not be told").count();
    assert_eq!(warned(&site.run("")), 1);
    assert_eq!(warned(&site.run("")), 0);
    let ini = std::fs::read_to_string(site.path("app.ini")).unwrap();
    site.write_ini(&ini.replace("http://127.0.0.1:9/x", &url));
    site.run("");
    let mut told: Vec<_> = hears.try_iter().map(|line| site.timeless(&line)).collect();
    told.sort();
    assert_snapshot!(told.join("\n"), @r#"{"text":"acme/shop: the environment of #1 failed: its deployment failed (try 1): migrate: exit status 1"}"#);
    site.run("");
    assert_eq!(hears.try_iter().count(), 0, "once");
    site.by_hand("DELETE FROM alerts WHERE name <> 'chat'");
    site.write_ini(&ini);
    assert_eq!(warned(&site.run("")), 1, "news again");
}

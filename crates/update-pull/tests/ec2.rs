//! The pool on EC2, as an operator meets it; EC2 is moto's.

#![cfg(feature = "ec2")]
#![allow(clippy::unwrap_used)]

use std::fs;
use std::process::Command;

use testkit::moto::Moto;

struct Site {
    folder: tempfile::TempDir,
}

impl Site {
    fn new(region: &str, endpoint: &str) -> Site {
        let site = Site { folder: tempfile::tempdir().unwrap() };
        let ini = format!(
            "owner = acme\nrepo = shop\ntoken = t0ken\ncompute = ec2\naws_region = {region}\n\
             aws_endpoint_url = {endpoint}\nAWS_ACCESS_KEY_ID = AKIAKEYID\n\
             AWS_SECRET_KEY = s3cr3t\n"
        );
        fs::write(site.folder.path().join("app.ini"), ini).unwrap();
        site.run("init");
        site
    }

    /// The exit status, stdout and stderr.
    fn run(&self, words: &str) -> (i32, String, String) {
        self.run_with(words, &[])
    }

    fn run_with(&self, words: &str, env: &[(&str, &str)]) -> (i32, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_update-pull"));
        command.current_dir(&self.folder).args(words.split_whitespace());
        // Nothing of this machine's own credentials.
        command
            .env_clear()
            .env("HOME", self.folder.path())
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .envs(env.iter().copied());
        let output = command.output().unwrap();
        let [stdout, stderr] =
            [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        assert!(!format!("{stdout}{stderr}").contains("s3cr3t"));
        (output.status.code().unwrap(), stdout, stderr)
    }
}

#[test]
fn an_instance_is_registered_under_its_name_and_address() {
    let (moto, region) = (Moto::shared(), "ap-northeast-1");
    let named = moto.run_instances(region, 1, Some("web")).remove(0);
    let twin = moto.run_instances(region, 1, Some("web")).remove(0);
    let site = Site::new(region, &moto.url());

    let (status, listed, _) = site.run("server list");
    assert_eq!(status, 0);
    assert!(listed.contains(&format!("not registered; update-pull server register {named}")));

    let (status, said, stderr) = site.run(&format!("server register {named}"));
    assert_eq!((status, stderr.as_str()), (0, ""));
    assert!(said.starts_with("registered web; next: update-pull server set web "), "{said}");
    // Two of one name cannot both be called so.
    let (_, said, _) = site.run(&format!("server register {twin}"));
    assert!(said.starts_with(&format!("registered {twin}; ")), "{said}");

    let (_, json, _) = site.run("server list --json");
    let servers: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(servers.as_array().unwrap().len(), 2);
    assert_eq!(servers[0]["name"], "web");
    assert_eq!(servers[0]["instance_id"], named.0);
    assert_eq!(servers[0]["state"], "running");
    assert_eq!(servers[0]["registered"], true);
    let database = rusqlite::Connection::open(site.folder.path().join("pullre.db")).unwrap();
    let ip: String = database
        .query_row("SELECT private_ip FROM servers WHERE name = 'web'", [], |row| row.get(0))
        .unwrap();
    assert!(ip.parse::<std::net::Ipv4Addr>().is_ok(), "{ip}");

    assert_eq!(site.run("server stop web").0, 0);
    let stopped = moto.ask(region, &format!("Action=DescribeInstances&InstanceId.1={named}"));
    assert!(stopped.unwrap().contains("<name>stopped</name>"));
}

#[test]
fn hidden_and_terminated_instances_are_left_out_of_the_list() {
    let (moto, region) = (Moto::shared(), "eu-west-1");
    let ids = moto.run_instances(region, 3, None);
    moto.ask(region, &format!("Action=TerminateInstances&InstanceId.1={}", ids[0])).unwrap();
    let site = Site::new(region, &moto.url());
    site.run(&format!("server hide {}", ids[1]));
    let shown = |words: &str| {
        let listed = site.run(words).1;
        ids.iter().map(|id| listed.contains(&id.0)).collect::<Vec<_>>()
    };
    assert_eq!(shown("server list"), [false, false, true]);
    assert_eq!(shown("server list --all"), [false, true, true]);
    let (status, _, stderr) = site.run(&format!("server register {}", ids[0]));
    assert_eq!(status, 1);
    assert!(stderr.contains("is terminated"), "{stderr}");
}

#[test]
fn what_is_not_there_is_not_registered() {
    let site = Site::new("us-east-1", &Moto::shared().url());
    for wrong in ["i-0fffffffffffffff0", "*", "web"] {
        let (status, _, stderr) = site.run(&format!("server register {wrong}"));
        assert_eq!(status, 1);
        assert!(stderr.contains(&format!("there is no instance {wrong}")), "{stderr}");
    }
}

#[test]
fn without_any_credentials_the_remedy_is_said() {
    let site = Site::new("us-east-2", &Moto::shared().url());
    let ini = site.folder.path().join("app.ini");
    let text = fs::read_to_string(&ini).unwrap();
    let text: Vec<_> = text.lines().filter(|line| !line.starts_with("AWS_")).collect();
    fs::write(ini, text.join("\n")).unwrap();
    let (status, _, stderr) = site.run("server list");
    assert_eq!(status, 1);
    assert!(stderr.contains("there are no usable AWS credentials"), "{stderr}");
    assert!(stderr.contains("give this machine an instance role"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "the SDK says nothing by itself: {stderr}");
}

#[test]
fn the_registered_servers_are_listed_while_ec2_cannot_be_reached() {
    let moto = Moto::shared();
    let id = moto.run_instances("us-west-2", 1, Some("web")).remove(0);
    let site = Site::new("us-west-2", &moto.url());
    site.run(&format!("server register {id}"));
    let ini = site.folder.path().join("app.ini");
    let away = fs::read_to_string(&ini).unwrap().replace(&moto.url(), "http://127.0.0.1:1");
    fs::write(ini, away).unwrap();
    let (status, listed, stderr) = site.run("server list");
    assert_eq!(status, 1);
    assert!(listed.contains("web"), "{listed}");
    assert!(stderr.contains("only registered servers are listed"), "{stderr}");
}

#[test]
fn ec2_is_asked_through_the_proxy_that_the_environment_names() {
    let moto = Moto::shared();
    let id = moto.run_instances("ap-south-1", 1, None).remove(0);
    // Only the proxy knows the way: there is no such host.
    let site = Site::new("ap-south-1", "http://ec2.ap-south-1.invalid");
    let listed = |proxy: &[(&str, &str)]| site.run_with("server list", proxy).1;
    assert!(!listed(&[]).contains(&id.0));
    assert!(listed(&[("http_proxy", &moto.url())]).contains(&id.0));
    assert!(!listed(&[("http_proxy", &moto.url()), ("no_proxy", ".invalid")]).contains(&id.0));
}

#[test]
fn doctor_rehearses_switching_and_names_a_role_that_pull_requests_could_use() {
    let moto = Moto::shared();
    let plain = moto.run_instances("sa-east-1", 1, None).remove(0);
    let risky = moto.run_instance_with_role("sa-east-1", "builder");
    let site = Site::new("sa-east-1", &moto.url());
    for id in [&plain, &risky] {
        site.run(&format!("server register {id}"));
    }
    let (_, told, _) = site.run("doctor");
    assert!(told.contains("ok       machines      may be started and stopped"), "{told}");
    let roles: Vec<_> = told.lines().filter(|line| line.contains(" has the role ")).collect();
    assert_eq!(roles.len(), 1, "{told}");
    assert!(roles[0].contains(&risky.0) && roles[0].contains("instance-profile/builder"), "{told}");
    assert_eq!(moto.states("sa-east-1")[&plain], "running");
}

//! What the pages show.

use jiff::{SignedDuration, Timestamp};
use pullre::domain::ServerId;
use pullre::facts::Pulse;
use testkit::world::World;

use crate::served::{Served, hidden, with_users, world};

#[test]
fn every_open_pull_request_is_shown_with_where_it_stands() {
    let served = Served::busy();
    let page = served.olga().get("/pull/list");
    page.says("2 ready, 0 on their way, 0 failed, 1 queued; 2 of 2 servers in use");
    page.says("#1 Feature 1").says("#3 Feature 3").says("1 of 1 in the queue");
    served.olga().get("/pull/list?q=feature+3").says("#3 Feature 3");
    assert!(!served.olga().get("/pull/list?q=feature+3").text().contains("Feature 1"));
    served.olga().get("/pull/list?q=%3Cscript%3E").says("Nothing here holds “&lt;script&gt;”");
}

#[test]
fn one_environment_shows_its_deployments_steps_and_what_happened() {
    let served = Served::busy();
    let mut store = served.world.store();
    let id = store.deployments_of(served.number(1), 1).unwrap()[0].id;
    let now = served.world.now;
    let step = store.step_started(id, "migrate", now).unwrap();
    let output = "ok\n\u{1b}[31mred</pre><script>alert(1)</script>\n";
    store.step_finished(step, Some(3), output, now + SignedDuration::from_secs(4)).unwrap();
    let page = served.olga().get("/pull/1");
    page.says("migrate 4.0 s, exit status 3")
        .says("ok red")
        .says("got a server")
        .says("Deploy again");
    assert!(!page.body.contains("<script>alert"));
    assert_eq!(served.olga().get("/pull/99").status, 404);
    assert_eq!(served.olga().get("/pull/x").status, 404);
}

#[test]
fn what_strangers_wrote_is_shown_and_does_nothing() {
    let world = world(1);
    let mut store = world.store();
    world.hub.open("dev1", false, world.now);
    world.tick();
    let evil = "\"><img src=x onerror=alert(1)><script>alert(2)</script>\u{202e}'";
    world.by_hand(&format!(
        "UPDATE pull_requests SET title = '{}', ref = '{0}'",
        evil.replace('\'', "''")
    ));
    world.by_hand(
        "UPDATE servers SET check_url = 'javascript://x/%0aalert(3)', name = '<b>stg</b>'",
    );
    store.event(world.now, evil, Some(pullre::domain::PullNumber(1)), None, evil).unwrap();
    let served = Served::with(world, |_| {});
    for path in [
        "/pull/list",
        "/pull/1",
        "/server/list",
        "/master/pull_requests",
        "/master/servers/1",
        "/master/pull_requests/1/update",
    ] {
        let page = served.olga().get(path);
        assert_eq!(page.status, 200, "{path}");
        for harm in ["<img", "<script>alert", "<b>stg", "href=\"javascript", "\u{202e}"] {
            let raw_text = path.ends_with("update") && harm == "\u{202e}";
            assert!(raw_text || !page.body.contains(harm), "{harm} on {path}");
        }
    }
}

#[test]
fn a_long_list_of_servers_carries_one_token_for_all_of_its_buttons() {
    let served = Served::with(world(40), |_| {});
    let page = served.olga().get("/server/list");
    let token = hidden(&page.body, "token").unwrap();
    // The form that registers a server has one too.
    assert_eq!(page.body.matches(&token).count(), 2);
    assert_eq!(page.body.matches("formaction=\"/server/hide\"").count(), 40);
    assert!(page.body.contains("name=\"server\" value=\"stg7\" aria-label=\"Hide stg7\">Hide<"));
    served
        .olga()
        .submit("/server/start", &[("InstanceId", "nope")])
        .says("There is no server nope; there are stg1, stg2")
        .says("stg10 and 30 more; update-pull server list shows them.");
    let readers = served.rita().get("/server/list");
    assert!(!readers.body.contains("formaction") && !readers.body.contains("row-buttons"));
}

#[test]
fn a_page_does_not_wait_for_a_provider_that_hangs() {
    use pullre::domain::{Instance, InstanceId};
    use pullre::ports::{Compute, ComputeError};
    #[derive(Debug)]
    struct Hangs;
    impl Compute for Hangs {
        fn describe(&self, _: &[InstanceId]) -> Result<Vec<Instance>, ComputeError> {
            self.list()
        }
        fn list(&self) -> Result<Vec<Instance>, ComputeError> {
            // Longer than any test: whoever waits for this never answers.
            loop {
                std::thread::park();
            }
        }
        fn start(&self, _: &InstanceId) -> Result<(), ComputeError> {
            Ok(())
        }
        fn stop(&self, _: &InstanceId) -> Result<(), ComputeError> {
            Ok(())
        }
    }
    let served = Served::with(world(1), |site| site.compute = std::sync::Arc::new(Hangs));
    for _ in 0..3 {
        served.olga().get("/server/list").says("They are being read now").says("stg1");
    }
}

#[test]
fn machines_that_are_not_registered_appear_with_their_age() {
    let served = Served::new();
    served.add_machine("i-0abc");
    let mut olga = served.olga();
    let has_come = |page: &str| page.contains("As they were");
    testkit::until("they have come", || has_come(&olga.get("/server/list").text()));
    olga.get("/server/list").says("i-0abc").says("stg1");
    served.world.fleet.set_unreachable(true);
    // What is known stays as long as it is young.
    olga.get("/server/list").says("i-0abc");
}

#[test]
fn the_pool_says_how_long_people_waited() {
    let mut served = Served::busy();
    let mut store = served.world.store();
    for minutes in 0..30 {
        let tick = pullre::store::TickRow {
            began_at: Timestamp::now() - SignedDuration::from_mins(minutes * 10),
            took: std::time::Duration::from_millis(40),
            pool: 2,
            busy: 1,
            queued: 1,
            acted: 0,
            failed: 0,
        };
        store.tick_ended(&tick).unwrap();
    }
    for span in ["", "?span=24h", "?span=7d", "?span=30d", "?span=nonsense"] {
        let page = served.olga().get(&format!("/pool{span}"));
        page.says("On average 1.0 of 2.0 servers were in use, and 1.0 pull requests waited.");
        page.says("24 hours").says("Push to ready, median");
    }
    let page = served.olga().get("/pool");
    assert!(page.body.contains("<rect class=\"busy\""));
    served.stop();
}

#[test]
fn a_name_breaks_no_line_of_the_metrics() {
    let served = Served::new();
    served.world.by_hand("UPDATE servers SET name = 'a\"b\\c' WHERE id = 1");
    let pulse = Pulse { free_bytes: 1, total_bytes: 2, load_percent: 150 };
    served.world.store().measured(ServerId(1), &pulse).unwrap();
    let metrics = served.olga().get("/metrics").body;
    let line = r#"pullre_server_load{server="a\"b\\c"} 1.5"#;
    assert!(metrics.lines().any(|l| l == line), "{metrics}");
}

#[test]
fn metrics_are_prometheus_text() {
    let served = Served::busy();
    let reply = served.olga().get("/metrics");
    assert!(reply.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"));
    assert!(reply.body.contains("pullre_environments{stage=\"ready\"} 2\n"), "{}", reply.body);
    assert!(reply.body.contains("pullre_queue 1\n"));
    for line in reply.body.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(name.starts_with("pullre_"), "{line}");
        value.parse::<f64>().unwrap_or_else(|_| panic!("{line}"));
    }
}

#[test]
fn health_says_whether_the_database_answers() {
    let served = Served::new();
    assert_eq!(served.visitor().get("/healthz").body, "ok\n");
    served.world.by_hand("DROP TABLE ticks");
    assert_eq!(served.visitor().get("/healthz").status, 503);
    let page = served.olga().get("/pool");
    assert_eq!(page.status, 503);
    page.says("update-pull init");
}

#[test]
fn messages_for_the_next_release_are_listed() {
    let served = Served::new();
    served.olga().get("/release/next/list").says("Nothing is noted for the next release");
    served.world.by_hand(
        "INSERT INTO next_release_messages (created_at, updated_at, hash, content)
         VALUES ('2026-11-22 21:23:49', '2026-11-22 21:23:49', 'h', 'run <the> job')",
    );
    served.olga().get("/release/next/list").says("run &lt;the&gt; job").says("1 message");
    // Whoever goes on where there is no more is at the end.
    served.olga().get("/release/next/list?page=7").says("run &lt;the&gt; job");
    served.olga().get("/master/servers?page=4294967295").says("stg1");
    served.olga().get("/master/servers?page=3&q=nothing").says("No row holds “nothing”");
}

#[test]
fn an_installation_without_anything_says_what_to_do_next() {
    let served = Served::with(world(0), |_| {});
    served.olga().get("/pull/list").says("No pull request is open");
    served.olga().get("/server/list").says("No server is registered");
    served.olga().get("/pool").says("No tick was recorded");
    served.olga().get("/master/issues").says("There is no row yet");
}

#[test]
fn every_page_and_form_works_on_mariadb_too() {
    let mut world = with_users(World::on_mariadb(2));
    for author in ["dev1", "dev2", "dev1"] {
        world.hub.open(author, false, world.now);
    }
    world.minutes(4);
    let tick = pullre::store::TickRow {
        began_at: Timestamp::now(),
        took: std::time::Duration::from_millis(40),
        pool: 2,
        busy: 2,
        queued: 1,
        acted: 0,
        failed: 0,
    };
    world.store().tick_ended(&tick).unwrap();
    let served = Served::with(world, |_| {});
    let mut olga = served.olga();
    for path in [
        "/healthz",
        "/metrics",
        "/pull/list",
        "/pull/1",
        "/pull/3",
        "/server/list",
        "/pool",
        "/release/next/list",
        "/master",
        "/master/servers",
        "/master/pull_requests?q=Feature+2",
        "/master/servers/1",
        "/master/servers/1/update",
        "/master/servers/1/delete",
        "/master/git_hub_users/1/delete",
    ] {
        assert_eq!(olga.get(path).status, 200, "{path}");
    }
    olga.get("/pool")
        .says("On average 2.0 of 2.0 servers were in use, and 1.0 pull requests waited.");
    olga.get("/master/pull_requests?q=feature+2").says("Feature 2");
    olga.submit("/pull/1/redeploy", &[]).says("deployed again as soon as");
    let version = hidden(&olga.get("/master/git_hub_users/1/update").body, "version").unwrap();
    let fields = [("version", version.as_str()), ("db_schema", "dév ü")];
    olga.submit("/master/git_hub_users/1/update", &fields).says("dév ü");
    let late =
        olga.submit("/master/git_hub_users/1/update", &[("version", &version), ("db_schema", "x")]);
    assert_eq!(late.status, 409);
}

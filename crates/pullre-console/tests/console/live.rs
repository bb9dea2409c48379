//! Pages that change while somebody looks.

use std::io::{BufRead, BufReader, Read, Write};
use std::time::Duration;

use jiff::Timestamp;
use pullre::domain::ServerId;
use pullre::facts::Pulse;
use pullre_console::Rhythm;
use serde_json::{Value, json};
use testkit::fuse::Fuse;

use crate::http::{base64, connect};
use crate::served::{OLGA, RITA, Served};

/// Where a page says that it hears of changes.
fn address_of(page: &str) -> String {
    let start = "data-live=\"";
    let at = page.find(start).unwrap() + start.len();
    page[at..].split('"').next().unwrap().replace("&amp;", "&")
}

fn listen(served: &Served, path: &str) -> BufReader<std::net::TcpStream> {
    listen_as(OLGA, served, path)
}

fn listen_as(
    (name, password): (&str, &str),
    served: &Served,
    path: &str,
) -> BufReader<std::net::TcpStream> {
    let mut stream = connect(served.address);
    let authorization = base64(&format!("{name}:{password}"));
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {authorization}\r\n\r\n"
    )
    .unwrap();
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(reader.read_line(&mut head).unwrap() > 0, "{head}");
    }
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("text/event-stream"), "{head}");
    // Else nginx would keep the news until there are many.
    assert!(head.contains("x-accel-buffering: no\r\n"), "{head}");
    reader
}

fn next_event(reader: &mut BufReader<std::net::TcpStream>) -> String {
    let mut line = String::new();
    while !line.starts_with("event:") {
        line.clear();
        assert!(reader.read_line(&mut line).unwrap() > 0, "the stream ended");
    }
    line.trim().to_owned()
}

#[test]
fn a_page_hears_that_a_step_began_and_that_it_ended() {
    let served = Served::busy();
    let mut store = served.world.store();
    let page = served.olga().get("/pull/1");
    let mut events = listen(&served, &address_of(&page.body));
    let id = store.deployments_of(served.number(1), 1).unwrap()[0].id;
    let step = store.step_started(id, "migrate", served.world.now).unwrap();
    assert_eq!(next_event(&mut events), "event: changed");
    store.step_finished(step, Some(0), "done\n", served.world.now).unwrap();
    assert_eq!(next_event(&mut events), "event: changed");
    // What is loaded then is up to date: its address says so at once, or nothing at all.
    let fresh = served.olga().get("/pull/1");
    assert_ne!(address_of(&fresh.body), address_of(&page.body));
}

/// The next event, which is about a log.
fn next_of_log(reader: &mut BufReader<std::net::TcpStream>) -> Value {
    assert_eq!(next_event(reader), "event: log");
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    serde_json::from_str(line.strip_prefix("data: ").unwrap()).unwrap()
}

/// A step at work that has printed something, and is looked after often.
fn printing(first: &str) -> (Served, i64, String) {
    let served = Served::with(crate::served::busy(), |site| {
        site.rhythm.look = Duration::from_millis(20);
        // News that never come end the stream.
        site.rhythm.longest = Duration::from_secs(20);
    });
    let mut store = served.world.store();
    let id = store.deployments_of(served.number(1), 1).unwrap()[0].id;
    let step = store.step_started(id, "migrate", served.world.now).unwrap();
    store.step_output(step, first).unwrap();
    let index = store.steps_of(id).unwrap().len() - 1;
    (served, step, format!("{id}-{index}"))
}

#[test]
fn pages_hear_once_what_a_log_has_more_and_are_not_old() {
    let (served, step, log) = printing("one\n");
    let mut store = served.world.store();
    let page = served.olga().get("/pull/1");
    assert!(page.body.contains(&format!("data-log=\"{log}\">one\n</pre>")), "{}", page.body);
    let address = address_of(&page.body);
    let mut listeners = [listen(&served, &address), listen_as(RITA, &served, &address)];
    store.step_output(step, "one\ntwo\n").unwrap();
    // Whether a look saw the log before decides how the page is told, not what it shows then.
    for events in &mut listeners {
        let told = next_of_log(events);
        let added = json!({ "log": log, "add": "two\n" });
        assert!(told == added || told == json!({ "log": log, "all": "one\ntwo\n" }), "{told}");
    }
    let more = "one\ntwo\n\u{1b}[1m<b>&amp;\u{202e}\r\n\nhalf";
    store.step_output(step, more).unwrap();
    for events in &mut listeners {
        // As the page itself writes it, but for the escapes of HTML.
        let added = json!({ "log": log, "add": "<b>&amp;?\n\nhalf\n" });
        assert_eq!(next_of_log(events), added);
    }
    // Who comes with an older page, or comes again, shows the same then.
    let all = json!({ "log": log, "all": "one\ntwo\n<b>&amp;?\n\nhalf\n" });
    assert_eq!(next_of_log(&mut listen(&served, &address)), all);
    let fresh = address_of(&served.olga().get("/pull/1").body);
    let mut events = listen(&served, &fresh);
    store.step_output(step, &more.replace("half", "whole\n")).unwrap();
    let whole = json!({ "log": log, "all": "one\ntwo\n<b>&amp;?\n\nwhole\n" });
    for events in listeners.iter_mut().chain([&mut events]) {
        assert_eq!(next_of_log(events), whole, "what was shown is no more its beginning");
    }
    assert_eq!(served.visitor().get(&fresh).status, 401);
    store.step_finished(step, Some(0), "one\n", served.world.now).unwrap();
    for events in &mut listeners {
        assert_eq!(next_event(events), "event: changed");
    }
}

#[test]
fn the_end_of_a_long_log_is_heard_of_although_it_is_as_long_as_before() {
    let (served, step, log) = printing("line 1\nline 2\n");
    let mut store = served.world.store();
    let mut events = listen(&served, &address_of(&served.olga().get("/pull/1").body));
    // The second time a look has certainly seen the log before.
    for all in ["line 2\nline 3\n", "line 3\nline 4\n"] {
        store.step_output(step, all).unwrap();
        assert_eq!(next_of_log(&mut events), json!({ "log": log, "all": all }));
    }
}

#[test]
fn the_first_line_of_a_step_makes_its_page_old_and_so_does_the_next_step() {
    let (served, step, _) = printing("one\n");
    let mut store = served.world.store();
    let id = store.deployments_of(served.number(1), 1).unwrap()[0].id;
    let hears = |change: &mut dyn FnMut()| {
        let mut events = listen(&served, &address_of(&served.olga().get("/pull/1").body));
        change();
        assert_eq!(next_event(&mut events), "event: changed");
    };
    hears(&mut || store.step_finished(step, Some(0), "one\n", served.world.now).unwrap());
    let mut next = 0;
    hears(&mut || next = store.step_started(id, "start", served.world.now).unwrap());
    hears(&mut || store.step_output(next, "starts\n").unwrap());
}

#[test]
fn a_page_that_is_old_when_it_begins_to_listen_hears_it_at_once() {
    let served = Served::busy();
    for path in
        ["/live/environments?seen=old", "/live/servers?seen=old", "/live/environment/1?seen=old"]
    {
        assert_eq!(next_event(&mut listen(&served, path)), "event: changed", "{path}");
    }
}

#[test]
fn the_lists_hear_of_changes_too() {
    let served = Served::busy();
    let mut lists: Vec<_> = ["/pull/list", "/server/list"]
        .iter()
        .map(|path| listen(&served, &address_of(&served.olga().get(path).body)))
        .collect();
    let mut store = served.world.store();
    let mut operator = served.world.operator(&mut store);
    operator.server_hold("stg1", "a look", None).unwrap();
    for events in &mut lists {
        assert_eq!(next_event(events), "event: changed");
    }
}

/// Two environments and a server that is free; nothing comes from a provider, and news that never
/// come end the stream.
fn calm() -> Served {
    let mut world = crate::served::world(3);
    world.hub.open("dev1", false, world.now);
    world.hub.open("dev2", false, world.now);
    world.minutes(6);
    world.now = Timestamp::now();
    // Their clients live.
    world.client_ticks(&Fuse::never(), |_| true);
    Served::with(world, |site| {
        site.local = true;
        site.rhythm.look = Duration::from_millis(20);
        site.rhythm.longest = Duration::from_secs(20);
    })
}

fn hears(served: &Served, path: &str, change: impl FnOnce()) -> bool {
    let page = served.olga().get(path);
    let mut events = listen(served, &address_of(&page.body));
    change();
    let mut line = String::new();
    while !line.starts_with("event:") {
        line.clear();
        match events.read_line(&mut line).unwrap() {
            0 => return false,
            _ if line == "0\r\n" => return false,
            _ => {}
        }
    }
    true
}

/// The page hears of each of these changes.
#[track_caller]
fn assert_hears(path: &str, changes: &[&str]) {
    let served = calm();
    let unheard = |change: &&&str| !hears(&served, path, || served.world.by_hand(change));
    let unheard: Vec<_> = changes.iter().filter(unheard).collect();
    assert!(unheard.is_empty(), "{path} does not hear of {unheard:#?}");
}

#[test]
fn the_list_of_servers_hears_of_all_that_it_shows() {
    assert_hears(
        "/server/list",
        &[
            "UPDATE servers SET auto_start_at = '08:30:00' WHERE id = 1",
            "INSERT INTO server_switches (server_id, weekdays) VALUES (1, 'mon')",
            "UPDATE server_switches SET weekdays = 'someday'",
            "UPDATE server_switches SET weekdays = 'any day'",
            "INSERT INTO agent_troubles (server_id, message) VALUES (2, 'no git')",
            "UPDATE servers SET name = 'stage' WHERE id = 1",
            "UPDATE servers SET instance_id = 'i-3' WHERE id = 3",
            "UPDATE servers SET check_url = 'http://stg1/' WHERE id = 1",
            "UPDATE servers SET db_schema = 'other' WHERE id = 3",
            "UPDATE server_facts SET state = 'pending' WHERE server_id = 1",
            "UPDATE server_facts SET held_at = 0 WHERE server_id = 2",
            "UPDATE server_facts SET held_at = NULL, agent_version = '9' WHERE server_id = 2",
            "UPDATE server_facts SET agent_version = '10' WHERE server_id = 2",
            "UPDATE servers SET is_staging = 0 WHERE id = 3",
            "DELETE FROM assignments WHERE server_id = 2",
            "INSERT INTO hide_servers (created_at, updated_at, name) VALUES ('x', 'x', 'stage')",
            "DELETE FROM hide_servers",
        ],
    );
}

#[test]
fn the_list_of_environments_hears_of_all_that_it_shows() {
    assert_hears(
        "/pull/list",
        &[
            "UPDATE pull_requests SET title = 'Another' WHERE number = 1",
            "UPDATE servers SET is_staging = 0 WHERE id = 3",
            "UPDATE servers SET name = 'stage' WHERE id = 1",
            "UPDATE servers SET check_url = 'http://stg1/' WHERE id = 1",
            "UPDATE assignments SET assigned_at = assigned_at - 60000 WHERE server_id = 1",
            "UPDATE deployments SET finished_at = finished_at + 60000",
            "UPDATE clones SET finished_at = finished_at - 60000",
            "UPDATE servers SET auto_stop_at = NULL, is_staging = 'x' WHERE id = 3",
            "INSERT INTO settings (name, content) VALUES ('refused', 'much')",
            "INSERT INTO settings (name, content) VALUES ('paused', 'by olga')",
        ],
    );
}

#[test]
fn the_page_of_an_environment_hears_of_all_that_it_shows() {
    assert_hears(
        "/pull/1",
        &[
            "UPDATE pull_requests SET title = 'Another' WHERE number = 1",
            "UPDATE pull_requests SET ref = 'another' WHERE number = 1",
            "UPDATE servers SET name = 'stage' WHERE id = 1",
            "UPDATE servers SET check_url = 'http://stg1/' WHERE id = 1",
            "UPDATE clones SET finished_at = finished_at - 60000",
            "UPDATE clone_contents SET kept = 1",
            "INSERT INTO settings (name, content) VALUES ('refused', 'much')",
            "INSERT INTO settings (name, content) VALUES ('paused', 'by olga')",
            "INSERT INTO pull_stops (number, stopped_at, stopped_by) VALUES (1, 0, 'olga')",
            "INSERT INTO pull_wishes (number, held_at) VALUES (1, 0)",
            "INSERT INTO events (at, actor, pull_number, message) VALUES (0, 'olga', 1, 'looked')",
        ],
    );
}

#[test]
fn the_list_of_servers_hears_that_the_other_machines_cannot_be_read() {
    let world = crate::served::world(1);
    world.fleet.set_unreachable(true);
    let served = Served::with(world, |site| site.rhythm.longest = Duration::from_secs(20));
    assert!(hears(&served, "/server/list", || {}));
    served.olga().get("/server/list").says("They could not be read");
}

#[test]
fn open_pages_do_not_hold_up_the_end() {
    let mut served = Served::busy();
    let mut events: Vec<_> =
        (0..20).map(|_| listen(&served, &address_of(&served.olga().get("/pull/1").body))).collect();
    served.begin_to_stop();
    for events in &mut events {
        let mut rest = Vec::new();
        // The end of the stream, not of our patience.
        events.read_to_end(&mut rest).unwrap();
        assert!(rest.ends_with(b"0\r\n\r\n"), "{}", String::from_utf8_lossy(&rest));
    }
    served.stop();
}

/// Looks follow each other far faster than `rhythm`'s two pauses, and see nothing new.
fn quiet(sign_of_life: Duration, longest: Duration) -> Served {
    let look = Duration::from_millis(10);
    Served::with(crate::served::world(2), |site| {
        site.rhythm = Rhythm { look, sign_of_life, longest };
    })
}

const NEVER: Duration = Duration::from_secs(3600);

#[test]
fn signs_of_life_come_although_looks_come_more_often_and_see_nothing_new() {
    let served = quiet(Duration::from_millis(300), NEVER);
    let page = served.olga().get("/pull/list");
    let mut events = listen(&served, &address_of(&page.body));
    for _ in 0..2 {
        let mut line = String::new();
        while !line.starts_with(": alive") {
            assert!(!line.starts_with("event:"), "nothing has changed");
            line.clear();
            assert!(events.read_line(&mut line).unwrap() > 0, "the stream ended");
        }
    }
}

#[test]
fn a_page_that_listens_for_long_comes_again_and_shows_its_password_again() {
    let served = quiet(NEVER, Duration::from_millis(300));
    let page = served.olga().get("/pull/list");
    let mut events = listen(&served, &address_of(&page.body));
    let mut line = String::new();
    // The end of what is sent in pieces; the connection itself may go on.
    while line != "0\r\n" {
        line.clear();
        assert!(events.read_line(&mut line).unwrap() > 0, "cut off");
    }
}

#[test]
fn measured_values_alone_do_not_make_the_list_of_servers_fetch_itself() {
    let served = Served::new();
    let mut store = served.world.store();
    // The other machines of the account come a moment later, once.
    let list = || served.olga().get("/server/list").text();
    testkit::until("they have come", || !list().contains("being read now"));
    let mut address_after = |free_bytes, load_percent| {
        let pulse = Pulse { free_bytes, total_bytes: 40_000_000_000, load_percent };
        store.measured(ServerId(1), &pulse).unwrap();
        address_of(&served.olga().get("/server/list").body)
    };
    let first = address_after(30_000_000_000, 20);
    assert_eq!(address_after(29_000_000_000, 150), first);
    served.olga().get("/server/list").says("disk 29.0 GB of 40.0 GB free").says("load 1.50");
    let metrics = served.olga().get("/metrics").body;
    assert!(metrics.contains("\npullre_server_load{server=\"stg1\"} 1.5\n"), "{metrics}");
    assert!(metrics.contains("\npullre_server_disk_free_bytes{server=\"stg1\"} 29000000000\n"));
    assert_ne!(address_after(1_000, 150), first, "that a disk is nearly full is shown at once");
}

#[test]
fn there_is_an_end_to_the_pages_that_listen() {
    // All of them come through one proxy.
    let served = Served::with(crate::served::busy(), |site| {
        site.config.trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
    });
    let open: Vec<_> = (0..300).map(|_| listen(&served, "/live/environment/1?seen=x")).collect();
    let refused = served.olga().get("/live/environment/1?seen=x");
    assert_eq!(refused.status, 429);
    assert_eq!(served.olga().get("/pull/1").status, 200);
    drop(open);
}

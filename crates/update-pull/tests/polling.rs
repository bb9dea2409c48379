//! With `poll_seconds` one run of the controller looks again and again, and one at a time.

#![allow(clippy::unwrap_used)]

mod site;

use std::process::{Child, Stdio};
use std::time::Duration;

use site::Site;
use testkit::until;

fn spawn(site: &Site) -> Child {
    site.command("").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn assigned(site: &Site) -> i64 {
    let database = rusqlite::Connection::open(site.path("pullre.db")).unwrap();
    database.query_row("SELECT COUNT(*) FROM assignments", [], |row| row.get(0)).unwrap()
}

fn end(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn what_happens_within_the_minute_is_seen_and_the_next_run_takes_over() {
    let site = Site::new();
    site.run("server register stg2");
    site.run("server set stg2 db_schema=stg2");
    site.write_ini_more("poll_seconds = 1\n");
    let first = spawn(&site);
    until("it polls", || site.path(".pullre/locks/polling.lock").exists());
    let second = spawn(&site);
    site.open_pull("alice");
    until("the pull request has a server", || assigned(&site) == 1);
    end(first);
    site.open_pull("alice");
    until("the other run has seen the next one", || assigned(&site) == 2);
    end(second);
}

#[test]
fn a_run_leaves_polling_to_the_one_that_does_it() {
    let site = Site::new();
    site.write_ini_more("poll_seconds = 1\n");
    std::fs::create_dir_all(site.path(".pullre/locks")).unwrap();
    let lock = std::fs::File::create(site.path(".pullre/locks/polling.lock")).unwrap();
    lock.lock().unwrap();
    let run = spawn(&site);
    // Its own first look.
    until("it has looked", || !site.github.take_requests().is_empty());
    std::thread::sleep(Duration::from_secs(1));
    site.github.take_requests();
    site.open_pull("alice");
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!((site.github.take_requests().len(), assigned(&site)), (0, 0));
    drop(lock);
    until("it takes over", || assigned(&site) == 1);
    end(run);
}

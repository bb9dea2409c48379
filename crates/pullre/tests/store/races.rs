//! Two processes that write the same row at once: the last one counts, and both go on.

use pullre::domain::{Login, PullNumber};
use pullre::facts::Hold;
use pullre::report::Kind;
use pullre::store::{Store, StoreError};

use crate::db::{Db, at, mariadb, sha};
use crate::troubled;

/// Between its two statements `last` is overtaken by `first`. On SQLite one waits for the other from
/// the beginning.
fn both(
    change: &'static str,
    first: impl FnOnce(&mut Store) -> Result<(), StoreError> + Send + 'static,
    last: impl FnOnce(&mut Store) -> Result<(), StoreError>,
) -> Db {
    let db = mariadb();
    troubled::both(&db, change, |store| first(store).unwrap(), |store| last(store).unwrap());
    db
}

#[test]
fn a_hold_and_an_approval_of_one_pull_request_are_both_kept() {
    let hold = Hold { since: at(1), until: None, reason: "shown".into() };
    let by_first = hold.clone();
    let mut db = both(
        "UPDATE pull_wishes",
        move |s| s.hold_pull(PullNumber(1), Some(&by_first)),
        |s| s.approve(PullNumber(1), &sha(1)),
    );
    db.open_pull(1);
    let pull = db.pull(PullNumber(1)).unwrap().unwrap();
    assert_eq!((pull.hold, pull.approved), (Some(hold), Some(sha(1))));
}

#[test]
fn two_people_stop_one_pull_request() {
    let mut db = both(
        "UPDATE pull_stops",
        |s| s.stop_pull(PullNumber(1), Some(("alice", at(1)))),
        |s| s.stop_pull(PullNumber(1), Some(("bob", at(2)))),
    );
    db.open_pull(1);
    assert_eq!(db.pull(PullNumber(1)).unwrap().unwrap().stopped.unwrap().by, "bob");
}

#[test]
fn two_people_set_one_user() {
    let mut db = both(
        "UPDATE git_hub_users",
        |s| s.set_user(&Login("dev1".into()), &"db_a".parse().unwrap(), at(1)),
        |s| s.set_user(&Login("Dev1".into()), &"db_b".parse().unwrap(), at(2)),
    );
    let users = db.users().unwrap();
    assert_eq!(users.len(), 1);
    assert_eq!(users[0].schema.as_ref().unwrap().as_str(), "db_b");
}

#[test]
fn two_ticks_hear_that_their_credentials_may_not() {
    let mut db = both(
        "UPDATE report_refusals",
        |s| s.report_refused(Kind::Check, "token", "no App", at(1)).map(drop),
        |s| s.report_refused(Kind::Check, "token", "not granted", at(2)).map(drop),
    );
    let refusals = db.read("SELECT credential, why FROM report_refusals");
    assert_eq!(refusals, [["token".into(), "not granted".into()]]);
}

#[test]
fn two_people_set_the_clock_of_one_server() {
    let mut db = mariadb();
    let server = db.server("stg1");
    let switched = |at| move |store: &mut Store| store.switched(server, at).unwrap();
    troubled::both(&db, "UPDATE server_switches", switched(at(1)), switched(at(2)));
    assert_eq!(db.facts_of(server).switching.unwrap().done, Some(at(2)));
}

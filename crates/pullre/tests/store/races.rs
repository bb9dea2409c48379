//! Two processes that write the same row at once: the last one counts, and both go on.

use pullre::domain::{Login, PullNumber, SchemaName};
use pullre::facts::Hold;
use pullre::report::Kind;
use pullre::store::backend::{Backend, Row, Value};
use pullre::store::{Engine, Store, StoreError};

use crate::db::{Db, at, mariadb, sha};

/// A connection that is overtaken by another process right before it makes a row.
struct Overtaken {
    inner: Box<dyn Backend>,
    meanwhile: Option<Box<dyn FnOnce() + Send>>,
}

impl Backend for Overtaken {
    fn engine(&self) -> Engine {
        self.inner.engine()
    }
    fn query(&mut self, sql: &str, params: &[Value]) -> Result<Vec<Row>, StoreError> {
        self.inner.query(sql, params)
    }
    fn execute(&mut self, sql: &str, params: &[Value]) -> Result<u64, StoreError> {
        if sql.starts_with("INSERT")
            && let Some(meanwhile) = self.meanwhile.take()
        {
            meanwhile();
        }
        self.inner.execute(sql, params)
    }
    fn last_insert_id(&mut self) -> Result<i64, StoreError> {
        self.inner.last_insert_id()
    }
    fn own_schema(&self) -> Option<SchemaName> {
        self.inner.own_schema()
    }
    fn begin(&mut self) -> Result<(), StoreError> {
        self.inner.begin()
    }
    fn commit(&mut self) -> Result<(), StoreError> {
        self.inner.commit()
    }
    fn rollback(&mut self) -> Result<(), StoreError> {
        self.inner.rollback()
    }
}

/// `first` is done in the middle of `last`. On SQLite one waits for the other from the beginning.
fn both(
    first: impl FnOnce(&mut Store) -> Result<(), StoreError> + Send + 'static,
    last: impl FnOnce(&mut Store) -> Result<(), StoreError>,
) -> Db {
    let db = mariadb();
    let mut other = db.another();
    let meanwhile = Box::new(move || first(&mut other).unwrap());
    let mut store =
        Store::new(Box::new(Overtaken { inner: db.connection(), meanwhile: Some(meanwhile) }));
    last(&mut store).unwrap();
    db
}

#[test]
fn two_pauses_are_one() {
    let mut db = both(|s| s.set_paused(Some("a".into())), |s| s.set_paused(Some("b".into())));
    assert_eq!(db.facts().unwrap().paused.as_deref(), Some("b"));
}

#[test]
fn a_hold_and_an_approval_of_one_pull_request_are_both_kept() {
    let hold = Hold { since: at(1), until: None, reason: "shown".into() };
    let by_first = hold.clone();
    let mut db = both(
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
        |s| s.stop_pull(PullNumber(1), Some(("alice", at(1)))),
        |s| s.stop_pull(PullNumber(1), Some(("bob", at(2)))),
    );
    db.open_pull(1);
    assert_eq!(db.pull(PullNumber(1)).unwrap().unwrap().stopped.unwrap().by, "bob");
}

#[test]
fn two_people_set_one_user() {
    let mut db = both(
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
    let mut other = db.another();
    let meanwhile = Box::new(move || other.switched(server, at(1)).unwrap());
    let overtaken = Overtaken { inner: db.connection(), meanwhile: Some(meanwhile) };
    Store::new(Box::new(overtaken)).switched(server, at(2)).unwrap();
    assert_eq!(db.facts_of(server).switching.unwrap().done, Some(at(2)));
}

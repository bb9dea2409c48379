use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pullre::domain::{PullNumber, SchemaName};
use pullre::reconcile::plan::Record;
use pullre::store::backend::{Backend, Row, Value};
use pullre::store::{Engine, Store, StoreError};

use crate::db::{Db, at, command, mariadb, request};

on_each_engine!(
    what_fails_halfway_leaves_nothing,
    after_a_failure_the_connection_still_works,
    a_commit_that_fails_leaves_no_transaction_open,
    what_lost_against_others_is_done_again_and_only_once,
    two_ticks_that_write_a_setting_both_go_on,
);

/// The second record cannot be written.
fn fails_halfway(db: &mut Db) -> StoreError {
    db.write("DROP TABLE pull_facts");
    db.record(&[Record::Pull(Box::new(request(1)))], at(1)).unwrap_err()
}

fn what_fails_halfway_leaves_nothing(db: &mut Db) {
    let error = fails_halfway(db);
    assert!(matches!(error, StoreError::NotInitialized), "{error}");
    assert!(db.read("SELECT number FROM pull_requests").is_empty());
    assert!(db.read("SELECT id FROM events").is_empty());
}

fn after_a_failure_the_connection_still_works(db: &mut Db) {
    fails_halfway(db);
    db.event(at(1), "tester", Some(PullNumber(1)), None, "alone").unwrap();
    let server = db.server("stg1");
    db.set_server(server, &[("name", "renamed".into())], at(1)).unwrap();
    assert_eq!(db.another().duties_of("renamed").unwrap().len(), 1);
}

type Work = Box<dyn FnOnce() + Send>;

/// A connection to which something happens.
struct Troubled {
    inner: Box<dyn Backend>,
    /// How its first commits fail, the last one first.
    commits: Vec<StoreError>,
    /// What another tick does right after this was asked.
    meanwhile: Option<(&'static str, Work)>,
}

impl Troubled {
    fn asked(&mut self, sql: &str) {
        if let Some((_, work)) = self.meanwhile.take_if(|(asked, _)| sql.contains(*asked)) {
            work();
        }
    }
}

impl Backend for Troubled {
    fn own_schema(&self) -> Option<SchemaName> {
        self.inner.own_schema()
    }
    fn engine(&self) -> Engine {
        self.inner.engine()
    }
    fn query(&mut self, sql: &str, params: &[Value]) -> Result<Vec<Row>, StoreError> {
        let rows = self.inner.query(sql, params);
        self.asked(sql);
        rows
    }
    fn execute(&mut self, sql: &str, params: &[Value]) -> Result<u64, StoreError> {
        let count = self.inner.execute(sql, params);
        self.asked(sql);
        count
    }
    fn last_insert_id(&mut self) -> Result<i64, StoreError> {
        self.inner.last_insert_id()
    }
    fn begin(&mut self) -> Result<(), StoreError> {
        self.inner.begin()
    }
    fn commit(&mut self) -> Result<(), StoreError> {
        match self.commits.pop() {
            Some(e) => Err(e),
            None => self.inner.commit(),
        }
    }
    fn rollback(&mut self) -> Result<(), StoreError> {
        self.inner.rollback()
    }
}

/// A connection whose first commits fail in this way.
fn failing(db: &Db, commits: Vec<StoreError>) -> Store {
    Store::new(Box::new(Troubled { inner: db.connection(), commits, meanwhile: None }))
}

fn a_commit_that_fails_leaves_no_transaction_open(db: &mut Db) {
    let full = vec![StoreError::Unavailable("the disk is full".into())];
    let mut store = failing(db, full);
    let record = [Record::Pull(Box::new(request(1)))];
    store.record(&record, at(1)).unwrap_err();
    assert_eq!(db.pull(PullNumber(1)).unwrap(), None);
    store.record(&record, at(2)).unwrap();
    assert!(db.pull(PullNumber(1)).unwrap().is_some());
}

fn what_lost_against_others_is_done_again_and_only_once(db: &mut Db) {
    let lost = (0..3).map(|_| StoreError::Deadlock("two waited for each other".into())).collect();
    let mut store = failing(db, lost);
    store.record(&[Record::Pull(Box::new(request(1)))], at(1)).unwrap();
    assert_eq!(db.read("SELECT number FROM pull_requests").len(), 1);
    assert_eq!(db.read("SELECT id FROM events").len(), 1);
}

/// Two ticks do the same at once: the other one right after this one has asked for `asked`.
fn both(db: &Db, asked: &'static str, work: fn(&mut Store)) {
    let mut other = db.another();
    let overtaken = Arc::new(AtomicBool::new(false));
    let overtakes = overtaken.clone();
    let meanwhile: Work = Box::new(move || {
        work(&mut other);
        overtakes.store(true, Ordering::SeqCst);
    });
    let (inner, meanwhile) = (db.connection(), Some((asked, meanwhile)));
    work(&mut Store::new(Box::new(Troubled { inner, commits: Vec::new(), meanwhile })));
    assert!(overtaken.load(Ordering::SeqCst), "nothing was asked for `{asked}`");
}

fn two_ticks_that_write_a_setting_both_go_on(db: &mut Db) {
    both(db, "UPDATE settings", |store| store.set_paused(Some("by one".into())).unwrap());
    assert_eq!(db.facts().unwrap().paused.as_deref(), Some("by one"));
}

// On SQLite one transaction waits for the other from its beginning.

#[test]
fn two_ticks_that_see_the_same_push_both_go_on() {
    let mut db = mariadb();
    both(&db, "FROM heads", |store| {
        store.record(&[Record::Pull(Box::new(request(1)))], at(1)).unwrap();
    });
    assert_eq!(db.read("SELECT number FROM pull_requests").len(), 1);
    assert_eq!(db.read("SELECT number FROM heads").len(), 1);
}

#[test]
fn two_ticks_that_read_the_same_command_both_go_on() {
    let mut db = mariadb();
    both(&db, "FROM comment_commands", |store| {
        store.comments_read(&[command(5)], at(3), "mark").unwrap();
    });
    assert_eq!(db.open_commands().unwrap().len(), 1);
    assert_eq!(db.read("SELECT content FROM settings WHERE name = 'comments_read'").len(), 1);
}

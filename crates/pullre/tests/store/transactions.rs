use pullre::domain::PullNumber;
use pullre::reconcile::plan::Record;
use pullre::store::backend::{Backend, Row, Value};
use pullre::store::{CommandState, Engine, Store, StoreError, StoredCommand};

use crate::db::{Db, at, mariadb, request};

on_each_engine!(
    what_fails_halfway_leaves_nothing,
    after_a_failure_the_connection_still_works,
    a_commit_that_fails_leaves_no_transaction_open,
    what_lost_against_others_is_done_again_and_only_once,
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

/// A connection whose first commits fail in this way.
struct Failing(Box<dyn Backend>, Vec<StoreError>);

impl Backend for Failing {
    fn engine(&self) -> Engine {
        self.0.engine()
    }
    fn query(&mut self, sql: &str, params: &[Value]) -> Result<Vec<Row>, StoreError> {
        self.0.query(sql, params)
    }
    fn execute(&mut self, sql: &str, params: &[Value]) -> Result<u64, StoreError> {
        self.0.execute(sql, params)
    }
    fn last_insert_id(&mut self) -> Result<i64, StoreError> {
        self.0.last_insert_id()
    }
    fn begin(&mut self) -> Result<(), StoreError> {
        self.0.begin()
    }
    fn commit(&mut self) -> Result<(), StoreError> {
        match self.1.pop() {
            Some(e) => Err(e),
            None => self.0.commit(),
        }
    }
    fn rollback(&mut self) -> Result<(), StoreError> {
        self.0.rollback()
    }
}

fn a_commit_that_fails_leaves_no_transaction_open(db: &mut Db) {
    let full = vec![StoreError::Unavailable("the disk is full".into())];
    let mut store = Store::new(Box::new(Failing(db.connection(), full)));
    let record = [Record::Pull(Box::new(request(1)))];
    store.record(&record, at(1)).unwrap_err();
    assert_eq!(db.pull(PullNumber(1)).unwrap(), None);
    store.record(&record, at(2)).unwrap();
    assert!(db.pull(PullNumber(1)).unwrap().is_some());
}

fn what_lost_against_others_is_done_again_and_only_once(db: &mut Db) {
    let lost = (0..3).map(|_| StoreError::Deadlock("two waited for each other".into())).collect();
    let mut store = Store::new(Box::new(Failing(db.connection(), lost)));
    store.record(&[Record::Pull(Box::new(request(1)))], at(1)).unwrap();
    assert_eq!(db.read("SELECT number FROM pull_requests").len(), 1);
    assert_eq!(db.read("SELECT id FROM events").len(), 1);
}

/// A connection that is overtaken by another tick right after it has asked a question.
struct Overtaken {
    inner: Box<dyn Backend>,
    asked: &'static str,
    meanwhile: Option<Box<dyn FnOnce() + Send>>,
}

impl Backend for Overtaken {
    fn engine(&self) -> Engine {
        self.inner.engine()
    }
    fn query(&mut self, sql: &str, params: &[Value]) -> Result<Vec<Row>, StoreError> {
        let rows = self.inner.query(sql, params)?;
        if sql.contains(self.asked)
            && let Some(meanwhile) = self.meanwhile.take()
        {
            meanwhile();
        }
        Ok(rows)
    }
    fn execute(&mut self, sql: &str, params: &[Value]) -> Result<u64, StoreError> {
        self.inner.execute(sql, params)
    }
    fn last_insert_id(&mut self) -> Result<i64, StoreError> {
        self.inner.last_insert_id()
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

/// Two ticks do the same at once. On SQLite one waits for the other from the beginning.
fn both(db: &Db, asked: &'static str, work: fn(&mut Store)) {
    let mut other = db.another();
    let meanwhile: Option<Box<dyn FnOnce() + Send>> = Some(Box::new(move || work(&mut other)));
    let inner = db.connection();
    let mut store = Store::new(Box::new(Overtaken { inner, asked, meanwhile }));
    work(&mut store);
}

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
        let command = StoredCommand {
            comment: 5,
            number: PullNumber(7),
            login: "alice".into(),
            verb: "redeploy".into(),
            state: CommandState::New,
            changed_at: at(0),
            reaction: None,
        };
        store.comments_read(&[command], at(3), "mark").unwrap();
    });
    assert_eq!(db.open_commands().unwrap().len(), 1);
    assert_eq!(db.read("SELECT content FROM settings WHERE name = 'comments_read'").len(), 1);
}

use pullre::domain::PullNumber;
use pullre::reconcile::plan::Record;
use pullre::store::backend::{Backend, Row, Value};
use pullre::store::{Engine, Store, StoreError};

use crate::db::{Db, at, request};

on_each_engine!(
    what_fails_halfway_leaves_nothing,
    after_a_failure_the_connection_still_works,
    a_commit_that_fails_leaves_no_transaction_open,
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

/// A connection whose first commit fails, as on a full disk.
struct FullDisk(Box<dyn Backend>, bool);

impl Backend for FullDisk {
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
        if std::mem::replace(&mut self.1, true) {
            return self.0.commit();
        }
        Err(StoreError::Unavailable("the disk is full".into()))
    }
    fn rollback(&mut self) -> Result<(), StoreError> {
        self.0.rollback()
    }
}

fn a_commit_that_fails_leaves_no_transaction_open(db: &mut Db) {
    let mut store = Store::new(Box::new(FullDisk(db.connection(), false)));
    let record = [Record::Pull(Box::new(request(1)))];
    store.record(&record, at(1)).unwrap_err();
    assert_eq!(db.pull(PullNumber(1)).unwrap(), None);
    store.record(&record, at(2)).unwrap();
    assert!(db.pull(PullNumber(1)).unwrap().is_some());
}

//! Connections to which something happens.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pullre::domain::SchemaName;
use pullre::store::backend::{Backend, Row, Value};
use pullre::store::{Engine, Store, StoreError};

use crate::db::Db;

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
    fn control_schema(&self) -> Option<SchemaName> {
        self.inner.control_schema()
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
pub fn failing(db: &Db, commits: Vec<StoreError>) -> Store {
    Store::new(Box::new(Troubled { inner: db.connection(), commits, meanwhile: None }))
}

/// Two processes at once: `first` is done right after `last` has asked for `asked`.
pub fn both(
    db: &Db,
    asked: &'static str,
    first: impl FnOnce(&mut Store) + Send + 'static,
    last: impl FnOnce(&mut Store),
) {
    let mut other = db.another();
    let overtaken = Arc::new(AtomicBool::new(false));
    let overtakes = overtaken.clone();
    let meanwhile: Work = Box::new(move || {
        first(&mut other);
        overtakes.store(true, Ordering::SeqCst);
    });
    let (inner, meanwhile) = (db.connection(), Some((asked, meanwhile)));
    last(&mut Store::new(Box::new(Troubled { inner, commits: Vec::new(), meanwhile })));
    assert!(overtaken.load(Ordering::SeqCst), "nothing was asked for `{asked}`");
}

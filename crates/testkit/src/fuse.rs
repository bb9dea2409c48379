//! A process that dies: after a number of operations everything that it does fails, so that what
//! it leaves behind is what `kill -9` at that point would leave.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use pullre::domain::SchemaName;
use pullre::store::backend::{Backend, Engine, Row, StoreError, Value};

/// Counts the operations that are left. Clones share the count.
#[derive(Debug, Clone)]
pub struct Fuse {
    left: Arc<AtomicI64>,
    read: Arc<AtomicUsize>,
}

impl Fuse {
    fn with(left: i64) -> Fuse {
        Fuse { left: Arc::new(AtomicI64::new(left)), read: Arc::default() }
    }

    /// Burns after this many operations.
    pub fn after(operations: u32) -> Fuse {
        Fuse::with(operations.into())
    }

    pub fn never() -> Fuse {
        Fuse::with(i64::MAX)
    }

    /// Whether the process still lives; costs one operation.
    pub fn spend(&self) -> bool {
        self.left.fetch_sub(1, Ordering::SeqCst) > 0
    }

    pub fn has_burnt(&self) -> bool {
        self.left.load(Ordering::SeqCst) < 0
    }

    /// Whether the last operation was the one at which the process died.
    pub fn burns(&self) -> bool {
        self.left.load(Ordering::SeqCst) == -1
    }

    /// How many bytes of text the process has read of its database.
    pub fn bytes_read(&self) -> usize {
        self.read.load(Ordering::SeqCst)
    }
}

/// A connection of a process that may die.
#[allow(missing_debug_implementations)]
pub struct FusedBackend {
    inner: Box<dyn Backend>,
    fuse: Fuse,
}

impl FusedBackend {
    pub fn new(inner: Box<dyn Backend>, fuse: Fuse) -> FusedBackend {
        FusedBackend { inner, fuse }
    }

    fn alive(&mut self) -> Result<&mut dyn Backend, StoreError> {
        if self.fuse.spend() {
            Ok(self.inner.as_mut())
        } else {
            Err(StoreError::Unavailable("this process was killed".into()))
        }
    }
}

impl Backend for FusedBackend {
    fn control_schema(&self) -> Option<SchemaName> {
        self.inner.control_schema()
    }
    fn engine(&self) -> Engine {
        self.inner.engine()
    }
    fn query(&mut self, sql: &str, params: &[Value]) -> Result<Vec<Row>, StoreError> {
        let rows = self.alive()?.query(sql, params)?;
        let texts = rows.iter().flat_map(|row| &row.values).map(|value| match value {
            Value::Text(text) => text.len(),
            _ => 0,
        });
        self.fuse.read.fetch_add(texts.sum(), Ordering::SeqCst);
        Ok(rows)
    }
    fn execute(&mut self, sql: &str, params: &[Value]) -> Result<u64, StoreError> {
        self.alive()?.execute(sql, params)
    }
    fn last_insert_id(&mut self) -> Result<i64, StoreError> {
        self.alive()?.last_insert_id()
    }
    fn begin(&mut self) -> Result<(), StoreError> {
        self.alive()?.begin()
    }
    fn commit(&mut self) -> Result<(), StoreError> {
        self.alive()?.commit()
    }
    /// Also a killed process's transaction ends: its connection is cut.
    fn rollback(&mut self) -> Result<(), StoreError> {
        self.inner.rollback()
    }
}

//! The control database: one [`Store`] is one connection. The queries are in the submodules, by
//! who asks; each stands once, for every engine.

mod adopt;
mod agent;
pub mod backend;
mod clones;
mod comments;
mod console;
mod doctor;
mod effects;
mod facts;
mod history;
pub mod master;
mod migrations;
pub mod mysql;
mod operator;
mod reports;
pub mod sqlite;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;

use crate::config::DatabaseConfig;
pub use agent::{Duty, Task};
use backend::{Backend, Row, Value};
pub use backend::{Engine, StoreError};
pub use comments::{COMMENTS_OVERLAP, CommandState, StoredCommand};
pub use console::{Busy, ConsoleUser, EnvironmentPulse, GrowingLog, Role, TickRow};
pub use doctor::Mirrored;
pub use effects::Won;
pub use history::{Event, Step};
pub use migrations::{all_migrations, all_tables};
pub use operator::{AUTO_WEEKDAYS, SERVER_COLUMNS};
pub use reports::StoredAlert;

type Result<T, E = StoreError> = std::result::Result<T, E>;

/// One connection to the control database.
pub struct Store {
    backend: Box<dyn Backend>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("engine", &self.backend.engine()).finish()
    }
}

/// Opens connections: chains that run side by side have one each.
#[derive(Clone)]
pub struct Database {
    open: Arc<dyn Fn() -> Result<Box<dyn Backend>> + Send + Sync>,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Database")
    }
}

impl Database {
    pub fn sqlite(path: &Path) -> Database {
        let path = path.to_owned();
        Database::with(move || Ok(Box::new(sqlite::Sqlite::open(&path, false)?)))
    }

    /// Connects to nothing yet. What of `mysql_additional` is not understood is warned of.
    pub fn mysql(config: &DatabaseConfig) -> Result<Database> {
        let (access, warnings) = mysql::MysqlAccess::new(config)?;
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        Ok(Database::with(move || Ok(Box::new(mysql::Mysql::open(&access)?))))
    }

    /// Any other way to connect.
    pub fn with(open: impl Fn() -> Result<Box<dyn Backend>> + Send + Sync + 'static) -> Database {
        Database { open: Arc::new(open) }
    }

    pub fn open(&self) -> Result<Store> {
        (self.open)().map(Store::new)
    }
}

/// How often a transaction is begun that loses against others each time.
const DEADLOCKS: usize = 5;

impl Store {
    pub fn new(backend: Box<dyn Backend>) -> Store {
        Store { backend }
    }

    /// Opens an embedded control database, making the file where there is none.
    pub fn create_sqlite(path: &Path) -> Result<Store> {
        Ok(Store::new(Box::new(sqlite::Sqlite::open(path, true)?)))
    }

    fn query(&mut self, sql: &str, params: &[Value]) -> Result<Vec<Row>> {
        self.backend.query(sql, params)
    }

    fn query_one(&mut self, sql: &str, params: &[Value]) -> Result<Option<Row>> {
        Ok(self.backend.query(sql, params)?.into_iter().next())
    }

    fn execute(&mut self, sql: &str, params: &[Value]) -> Result<u64> {
        self.backend.execute(sql, params)
    }

    /// All or nothing. Short: no effect on the outside happens inside, and `work` may be done again
    /// from its beginning, where the server took it back for the sake of somebody else's.
    fn transaction<T>(&mut self, mut work: impl FnMut(&mut Store) -> Result<T>) -> Result<T> {
        for _ in 1..DEADLOCKS {
            match self.try_transaction(&mut work) {
                Err(StoreError::Deadlock(_)) => {}
                done => return done,
            }
        }
        self.try_transaction(&mut work)
    }

    fn try_transaction<T>(&mut self, work: &mut impl FnMut(&mut Store) -> Result<T>) -> Result<T> {
        self.backend.begin()?;
        let result = work(self).and_then(|value| self.backend.commit().map(|()| value));
        if let Err(e) = &result {
            // Also where the commit failed: an open transaction would swallow all that follows.
            // The first error is the one to report; a connection that cannot roll back is closed
            // by its owner, which rolls back too.
            if let Err(second) = self.backend.rollback() {
                tracing::warn!("rollback after `{e}` failed too: {second}");
            }
        }
        result
    }

    fn set_setting(&mut self, name: &str, content: Option<String>) -> Result<()> {
        let Some(content) = content else {
            self.execute("DELETE FROM settings WHERE name = ?", &[name.into()])?;
            return Ok(());
        };
        self.upsert(
            "UPDATE settings SET content = ? WHERE name = ?",
            "INSERT INTO settings (content, name) VALUES (?, ?)",
            &[content.into(), name.into()],
        )
    }

    /// Changes a row, or makes it; both statements take the same values. Where somebody else makes
    /// it in between, the last one counts, as where both find it.
    fn upsert(&mut self, update: &str, insert: &str, values: &[Value]) -> Result<()> {
        if self.execute(update, values)? == 0 {
            match self.execute(insert, values) {
                Err(StoreError::Conflict(_)) => self.execute(update, values)?,
                done => done?,
            };
        }
        Ok(())
    }
}

/// Somebody else was faster, and what is there now is as good.
fn harmless_twice<T>(done: Result<T>) -> Result<()> {
    match done {
        Ok(_) | Err(StoreError::Conflict(_)) => Ok(()),
        Err(e) => Err(e),
    }
}

/// A moment as pullre-kun's tables hold it, in UTC.
fn datetime(t: Timestamp) -> Value {
    Value::Text(t.strftime("%Y-%m-%d %H:%M:%S").to_string())
}

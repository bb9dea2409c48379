//! The embedded control database: one SQLite file.

use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::backend::{Backend, Columns, Engine, Row, StoreError, Value};
use crate::domain::SchemaName;

/// How long a writer waits for another one. Transactions are short: no effect runs inside one.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub struct Sqlite {
    connection: Connection,
}

impl Sqlite {
    /// Opens the file; `create` makes it where there is none.
    pub fn open(path: &Path, create: bool) -> Result<Sqlite, StoreError> {
        if !create && !path.exists() {
            return Err(StoreError::NotInitialized);
        }
        let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        if create {
            flags |= OpenFlags::SQLITE_OPEN_CREATE;
        }
        let open = || -> rusqlite::Result<Connection> {
            let connection = Connection::open_with_flags(path, flags)?;
            connection.busy_timeout(BUSY_TIMEOUT)?;
            // Readers never wait for a writer. NORMAL keeps the file whole after a power cut; what
            // the last moments lose of the records is seen again by the next tick.
            connection.pragma_update(None, "journal_mode", "WAL")?;
            connection.pragma_update(None, "synchronous", "NORMAL")?;
            connection.pragma_update(None, "foreign_keys", "ON")?;
            connection.set_prepared_statement_cache_capacity(64);
            Ok(connection)
        };
        let connection = open().map_err(|e| match store_error(e) {
            StoreError::Unavailable(why) | StoreError::Other(why) => {
                StoreError::Unavailable(format!("{}: {why}", path.display()))
            }
            other => other,
        })?;
        Ok(Sqlite { connection })
    }
}

impl rusqlite::ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Value::Null => ToSqlOutput::Borrowed(ValueRef::Null),
            Value::Int(n) => ToSqlOutput::Borrowed(ValueRef::Integer(*n)),
            Value::Text(s) => ToSqlOutput::Borrowed(ValueRef::Text(s.as_bytes())),
        })
    }
}

impl Backend for Sqlite {
    fn control_schema(&self) -> Option<SchemaName> {
        // app.ini names no folder of schemas in which it would be one.
        None
    }

    fn engine(&self) -> Engine {
        Engine::Sqlite
    }

    fn query(&mut self, sql: &str, params: &[Value]) -> Result<Vec<Row>, StoreError> {
        let run = || -> rusqlite::Result<Vec<Row>> {
            let mut statement = self.connection.prepare_cached(sql)?;
            let count = statement.column_count();
            let columns: Rc<Columns> =
                Rc::new(statement.column_names().map(str::to_owned).collect());
            let mut rows = statement.query(rusqlite::params_from_iter(params))?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                // A thousand rows of forty columns: none of them grows bit by bit.
                let mut values = Vec::with_capacity(count);
                for at in 0..count {
                    values.push(value_of(row.get_ref(at)?));
                }
                found.push(Row { columns: columns.clone(), values });
            }
            Ok(found)
        };
        run().map_err(store_error)
    }

    fn execute(&mut self, sql: &str, params: &[Value]) -> Result<u64, StoreError> {
        let run = || {
            let mut statement = self.connection.prepare_cached(sql)?;
            statement.execute(rusqlite::params_from_iter(params))
        };
        run().map(|n| n as u64).map_err(store_error)
    }

    fn last_insert_id(&mut self) -> Result<i64, StoreError> {
        Ok(self.connection.last_insert_rowid())
    }

    fn begin(&mut self) -> Result<(), StoreError> {
        // IMMEDIATE: a reader that turns writer would fail at once instead of waiting its turn.
        self.execute("BEGIN IMMEDIATE", &[]).map(drop)
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        self.execute("COMMIT", &[]).map(drop)
    }

    fn rollback(&mut self) -> Result<(), StoreError> {
        // SQLite rolls back by itself on some errors, such as a full disk.
        if self.connection.is_autocommit() {
            return Ok(());
        }
        self.execute("ROLLBACK", &[]).map(drop)
    }
}

fn value_of(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(n) => Value::Int(n),
        ValueRef::Real(x) => Value::Text(x.to_string()),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => {
            Value::Text(String::from_utf8_lossy(bytes).into_owned())
        }
    }
}

fn store_error(error: rusqlite::Error) -> StoreError {
    let text = error.to_string();
    match error.sqlite_error_code() {
        // What SQLite says where it cannot make its side files, too.
        Some(ErrorCode::DiskFull | ErrorCode::SystemIoFailure) => {
            StoreError::Unavailable(format!("{text}; look whether its disk is full"))
        }
        Some(ErrorCode::ConstraintViolation) => StoreError::Conflict(text),
        Some(
            ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::CannotOpen
            | ErrorCode::ReadOnly
            | ErrorCode::PermissionDenied
            | ErrorCode::NotADatabase
            | ErrorCode::DatabaseCorrupt,
        ) => StoreError::Unavailable(text),
        _ if text.contains("no such table") => StoreError::NotInitialized,
        _ => StoreError::Other(text),
    }
}

//! The control database on a MySQL server: MySQL 5.7 and later, MariaDB 10.6 and later, Aurora.

mod access;
mod holding;

use std::error::Error;
use std::fmt;
use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use mysql::prelude::Queryable;
use mysql::{Conn, DriverError, Params};

use super::backend::{Backend, Columns, Engine, Row, StoreError, Value};
use crate::domain::SchemaName;
pub use access::MysqlAccess;
pub use holding::Holding;

/// A connection that was silent for longer than this is tried before it is used: firewalls forget
/// silent connections, and a write cannot be repeated.
const SILENCE: Duration = Duration::from_secs(10);

/// One connection, made again where it was lost and nothing hangs on it.
pub struct Mysql {
    access: MysqlAccess,
    /// None after it was lost.
    connection: Option<Conn>,
    in_transaction: bool,
    used: Instant,
    last_insert_id: u64,
}

impl fmt::Debug for Mysql {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mysql").field("access", &self.access).finish_non_exhaustive()
    }
}

impl Mysql {
    pub fn open(access: &MysqlAccess) -> Result<Mysql, StoreError> {
        Ok(Mysql {
            connection: Some(access.connect()?),
            access: access.clone(),
            in_transaction: false,
            used: Instant::now(),
            last_insert_id: 0,
        })
    }

    fn connection(&mut self) -> Result<&mut Conn, StoreError> {
        if self.in_transaction {
            let lost =
                || StoreError::Unavailable("the connection was lost in a transaction".into());
            return self.connection.as_mut().ok_or_else(lost);
        }
        let silent = self.used.elapsed() > SILENCE;
        if let Some(connection) = &mut self.connection
            && silent
            && connection.ping().is_err()
        {
            self.connection = None;
        }
        match &mut self.connection {
            Some(connection) => Ok(connection),
            none => Ok(none.insert(self.access.connect()?)),
        }
    }

    /// A connection that breaks is not used again. What may be repeated is, once, on a new one.
    fn run<T>(
        &mut self,
        repeatable: bool,
        work: impl Fn(&mut Conn) -> mysql::Result<T>,
    ) -> Result<T, StoreError> {
        let mut again = repeatable && !self.in_transaction;
        loop {
            let result = work(self.connection()?);
            self.used = Instant::now();
            let Err(error) = result else { return result.map_err(store_error) };
            if !is_lost(&error) {
                return Err(self.access.error(error));
            }
            self.connection = None;
            if !std::mem::take(&mut again) {
                return Err(self.access.error(error));
            }
        }
    }
}

impl Backend for Mysql {
    fn control_schema(&self) -> Option<SchemaName> {
        Some(self.access.control_schema().clone())
    }

    fn engine(&self) -> Engine {
        Engine::Mysql
    }

    fn query(&mut self, sql: &str, params: &[Value]) -> Result<Vec<Row>, StoreError> {
        self.run(true, |connection| {
            let mut answer = connection.exec_iter(sql, driver_params(params))?;
            let columns = answer.columns();
            let names = columns.as_ref().iter().map(|c| c.name_str().into_owned());
            let columns: Rc<Columns> = Rc::new(names.collect());
            let mut found = Vec::new();
            for row in answer.by_ref() {
                let values = row?.unwrap().into_iter().map(value_of).collect();
                found.push(Row { columns: columns.clone(), values });
            }
            Ok(found)
        })
    }

    fn execute(&mut self, sql: &str, params: &[Value]) -> Result<u64, StoreError> {
        let (matched, id) = self.run(false, |connection| {
            if params.is_empty() {
                // Older servers prepare not every statement.
                connection.query_drop(sql)?;
            } else {
                connection.exec_drop(sql, driver_params(params))?;
            }
            Ok((connection.affected_rows(), connection.last_insert_id()))
        })?;
        self.last_insert_id = id;
        Ok(matched)
    }

    fn last_insert_id(&mut self) -> Result<i64, StoreError> {
        i64::try_from(self.last_insert_id)
            .map_err(|_| StoreError::Row(format!("{} is too large a key", self.last_insert_id)))
    }

    fn begin(&mut self) -> Result<(), StoreError> {
        self.run(true, |connection| connection.query_drop("START TRANSACTION"))?;
        self.in_transaction = true;
        Ok(())
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        self.run(false, |connection| connection.query_drop("COMMIT"))?;
        self.in_transaction = false;
        Ok(())
    }

    fn rollback(&mut self) -> Result<(), StoreError> {
        // A server rolls back what a lost connection left.
        if self.connection.is_some() {
            let done = self.run(false, |connection| connection.query_drop("ROLLBACK"));
            if done.is_err() {
                self.connection = None;
            }
        }
        self.in_transaction = false;
        Ok(())
    }
}

fn driver_params(params: &[Value]) -> Params {
    if params.is_empty() {
        return Params::Empty;
    }
    let value = |value: &Value| match value {
        Value::Null => mysql::Value::NULL,
        Value::Int(n) => mysql::Value::Int(*n),
        Value::Text(s) => mysql::Value::Bytes(s.clone().into_bytes()),
    };
    Params::Positional(params.iter().map(value).collect())
}

fn value_of(value: mysql::Value) -> Value {
    match value {
        mysql::Value::NULL => Value::Null,
        mysql::Value::Bytes(bytes) => Value::Text(
            String::from_utf8(bytes)
                .unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()),
        ),
        mysql::Value::Int(n) => Value::Int(n),
        mysql::Value::UInt(n) => i64::try_from(n).map_or_else(|_| n.to_string().into(), Value::Int),
        mysql::Value::Float(x) => Value::Text(x.to_string()),
        mysql::Value::Double(x) => Value::Text(x.to_string()),
        mysql::Value::Date(year, month, day, hour, minute, second, _) => {
            Value::Text(format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}"))
        }
        mysql::Value::Time(negative, days, hours, minutes, seconds, _) => {
            let sign = if negative { "-" } else { "" };
            let hours = days * 24 + u32::from(hours);
            Value::Text(format!("{sign}{hours:02}:{minutes:02}:{seconds:02}"))
        }
    }
}

/// Whether the connection is of no use any more.
fn is_lost(error: &mysql::Error) -> bool {
    match error {
        // Shut down, killed, silent for too long, network trouble seen by the server.
        mysql::Error::MySqlError(e) => matches!(e.code, 1053 | 1927 | 4031 | 1158..=1161),
        // After any fault of the protocol nobody knows what the next answer belongs to.
        _ => true,
    }
}

/// What the network said, if it was the network.
fn io_error(error: &mysql::Error) -> Option<&io::Error> {
    match error {
        mysql::Error::IoError(io) => Some(io),
        mysql::Error::CodecError(codec) => codec.source()?.downcast_ref(),
        _ => None,
    }
}

fn store_error(error: mysql::Error) -> StoreError {
    let e = match error {
        mysql::Error::MySqlError(e) => e,
        // The driver's and the network's words; a password is in none of them.
        mysql::Error::DriverError(DriverError::CouldNotConnect(Some((_, why, _)))) => {
            return StoreError::Unavailable(why);
        }
        mysql::Error::DriverError(DriverError::ConnectTimeout) => {
            return StoreError::Unavailable("no connection in time".into());
        }
        other => {
            return StoreError::Unavailable(match io_error(&other) {
                Some(io) if matches!(io.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    "no answer in time".into()
                }
                Some(io) => io.to_string(),
                None => other.to_string(),
            });
        }
    };
    let text = format!("{} (error {})", e.message, e.code);
    match e.code {
        // A row of this key, or an index of this name, is there already.
        1062 | 1061 | 1022 | 1557 | 1586 => StoreError::Conflict(text),
        1146 => StoreError::NotInitialized,
        1213 => StoreError::Deadlock(text),
        // Not ours to wait for any longer; somebody else's transaction goes first.
        1205 | 3572 => StoreError::Unavailable(format!("{text}; try again")),
        1044 | 1142 | 1143 | 1227 | 1370 => StoreError::Setup(format!(
            "the MySQL login may not do this: {text}. `update-pull grants` prints what it needs"
        )),
        1665 => StoreError::Setup(format!(
            "{text}. pullre works at READ COMMITTED, which the server cannot log by statement: set \
             binlog_format = ROW there"
        )),
        1366 | 1406 | 1264 => StoreError::Other(format!(
            "{text}. Where a column is too small or of an old character set, `update-pull init` \
             widens it"
        )),
        // Too many connections, disk full, read-only, shutting down, network, packet too large for
        // a moment's settings.
        1021 | 1040 | 1041 | 1114 | 1203 | 1226 | 1290 | 1792 | 1836 | 2002 | 2003 | 2006
        | 2013 => StoreError::Unavailable(text),
        1053 | 1927 | 4031 | 1158..=1161 => StoreError::Unavailable(text),
        _ => StoreError::Other(text),
    }
}

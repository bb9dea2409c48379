//! The narrow seam between our queries and a database engine. One SQL text serves every engine:
//! `?` placeholders, no upserts, nothing that only one engine knows.

use std::cell::Cell;
use std::rc::Rc;
use std::str::FromStr;

use jiff::Timestamp;

use crate::domain::{Invalid, SchemaName};

/// One connection to the control database.
pub trait Backend: Send {
    fn engine(&self) -> Engine;

    /// The schema that the control database itself is, where schemas are its neighbours.
    fn control_schema(&self) -> Option<SchemaName>;

    fn query(&mut self, sql: &str, params: &[Value]) -> Result<Vec<Row>, StoreError>;

    /// Returns the number of rows that the condition matched, also where they kept their values:
    /// compare-and-set depends on it.
    fn execute(&mut self, sql: &str, params: &[Value]) -> Result<u64, StoreError>;

    /// The key that the last INSERT of this connection was given.
    fn last_insert_id(&mut self) -> Result<i64, StoreError>;

    /// Begins a transaction that is sure to be able to write.
    fn begin(&mut self) -> Result<(), StoreError>;
    fn commit(&mut self) -> Result<(), StoreError>;
    fn rollback(&mut self) -> Result<(), StoreError>;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    Sqlite,
    Mysql,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Null,
    Int(i64),
    Text(String),
}

impl From<i64> for Value {
    fn from(n: i64) -> Self {
        Value::Int(n)
    }
}

impl From<u32> for Value {
    fn from(n: u32) -> Self {
        Value::Int(n.into())
    }
}

impl From<bool> for Value {
    fn from(b: bool) -> Self {
        Value::Int(b.into())
    }
}

impl From<&str> for Value {
    fn from(s: &str) -> Self {
        Value::Text(s.to_owned())
    }
}

impl From<String> for Value {
    fn from(s: String) -> Self {
        Value::Text(s)
    }
}

/// Milliseconds since 1970 in UTC: no time zone of a server or a session can change it.
impl From<Timestamp> for Value {
    fn from(t: Timestamp) -> Self {
        Value::Int(t.as_millisecond())
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Value::Null, Into::into)
    }
}

/// What the columns of an answer are called.
#[derive(Debug)]
pub struct Columns {
    names: Vec<String>,
    /// Where the last one stood. Each row is read in the same order, and mostly in that of the
    /// columns: the next one is found at once.
    last: Cell<usize>,
}

impl Columns {
    fn position(&self, column: &str) -> Option<usize> {
        // Some servers answer in capitals.
        let is_it = |at: &usize| self.names[*at].eq_ignore_ascii_case(column);
        let last = self.last.get().min(self.names.len());
        let found = (last..self.names.len()).chain(0..last).find(is_it)?;
        self.last.set(found);
        Some(found)
    }
}

impl FromIterator<String> for Columns {
    fn from_iter<I: IntoIterator<Item = String>>(names: I) -> Columns {
        let names: Vec<String> = names.into_iter().collect();
        debug_assert!(
            (1..names.len()).all(|at| !names[..at].contains(&names[at])),
            "which of two is meant? {names:?}"
        );
        Columns { names, last: Cell::new(0) }
    }
}

/// One row of an answer, read by column name.
#[derive(Debug, Clone)]
pub struct Row {
    pub columns: Rc<Columns>,
    pub values: Vec<Value>,
}

impl Row {
    fn value(&self, column: &str) -> Result<&Value, StoreError> {
        self.columns
            .position(column)
            .map(|at| &self.values[at])
            .ok_or_else(|| StoreError::Row(format!("the answer has no column {column}")))
    }

    fn wrong(&self, column: &str, value: &Value, expected: &str) -> StoreError {
        StoreError::Row(format!("{column} is {value:?} and not {expected}"))
    }

    pub fn is_null(&self, column: &str) -> Result<bool, StoreError> {
        Ok(*self.value(column)? == Value::Null)
    }

    pub fn opt_int(&self, column: &str) -> Result<Option<i64>, StoreError> {
        match self.value(column)? {
            Value::Null => Ok(None),
            Value::Int(n) => Ok(Some(*n)),
            other => Err(self.wrong(column, other, "a number")),
        }
    }

    pub fn int(&self, column: &str) -> Result<i64, StoreError> {
        self.opt_int(column)?.ok_or_else(|| self.wrong(column, &Value::Null, "a number"))
    }

    pub fn opt_text(&self, column: &str) -> Result<Option<String>, StoreError> {
        match self.value(column)? {
            Value::Null => Ok(None),
            Value::Text(s) => Ok(Some(s.clone())),
            Value::Int(n) => Ok(Some(n.to_string())),
        }
    }

    pub fn text(&self, column: &str) -> Result<String, StoreError> {
        self.opt_text(column)?.ok_or_else(|| self.wrong(column, &Value::Null, "a text"))
    }

    pub fn opt_u32(&self, column: &str) -> Result<Option<u32>, StoreError> {
        self.opt_int(column)?
            .map(|n| {
                u32::try_from(n).map_err(|_| self.wrong(column, &Value::Int(n), "a small number"))
            })
            .transpose()
    }

    pub fn u32(&self, column: &str) -> Result<u32, StoreError> {
        self.opt_u32(column)?.ok_or_else(|| self.wrong(column, &Value::Null, "a number"))
    }

    pub fn opt_time(&self, column: &str) -> Result<Option<Timestamp>, StoreError> {
        self.opt_int(column)?
            .map(|n| {
                Timestamp::from_millisecond(n)
                    .map_err(|_| self.wrong(column, &Value::Int(n), "a moment in milliseconds"))
            })
            .transpose()
    }

    pub fn time(&self, column: &str) -> Result<Timestamp, StoreError> {
        self.opt_time(column)?.ok_or_else(|| self.wrong(column, &Value::Null, "a moment"))
    }

    /// A text that a domain type accepts. NULL is None.
    pub fn opt_parsed<T: FromStr<Err = Invalid>>(
        &self,
        column: &str,
    ) -> Result<Option<T>, StoreError> {
        self.opt_text(column)?
            .map(|s| s.parse().map_err(|e: Invalid| StoreError::Row(format!("{column}: {e}"))))
            .transpose()
    }

    pub fn parsed<T: FromStr<Err = Invalid>>(&self, column: &str) -> Result<T, StoreError> {
        self.opt_parsed(column)?.ok_or_else(|| self.wrong(column, &Value::Null, "set"))
    }
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Not reachable, locked for too long, disk full: the next tick tries again.
    #[error("the control database is not usable now: {0}")]
    Unavailable(String),
    /// Two transactions waited for each other, and this one was taken back whole.
    #[error("the control database is too busy now: {0}; try again")]
    Deadlock(String),
    /// app.ini, a login or its rights do not fit the server; the text says what to change.
    #[error("{0}")]
    Setup(String),
    /// A row that would break a key: somebody else was faster.
    #[error("the control database refuses a second row: {0}")]
    Conflict(String),
    /// A row that makes no sense, written by another hand.
    #[error("{0}")]
    Row(String),
    #[error("the control database has no tables of pullre: run `update-pull init`")]
    NotInitialized,
    #[error("the control database was made by a newer pullre (it has {0}): install that version")]
    Newer(String),
    #[error("the control database cannot do this: {0}")]
    Other(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_is_found_by_its_name_in_any_order_and_as_often_as_it_is_asked_for() {
        let columns: Columns = ["id", "NAME", "sha"].map(str::to_owned).into_iter().collect();
        let row = Row {
            columns: Rc::new(columns),
            values: vec![7_i64.into(), "stg1".into(), Value::Null],
        };
        for _ in 0..2 {
            assert_eq!(row.int("id").unwrap(), 7);
            assert_eq!(row.text("name").unwrap(), "stg1");
            assert_eq!(row.opt_text("sha").unwrap(), None);
        }
        assert_eq!(row.text("name").unwrap(), "stg1");
        assert!(row.is_null("sha").unwrap() && row.is_null("sha").unwrap());
        assert_eq!(row.text("ref").unwrap_err().to_string(), "the answer has no column ref");
        assert_eq!(row.int("id").unwrap(), 7);
    }
}

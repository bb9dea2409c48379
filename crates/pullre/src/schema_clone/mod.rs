//! Fills a server's schema from the author's. A clone is made beside its destination, verified,
//! then put in place at once: whoever looks finds the old content or the new one, whole.

pub mod mysql;
pub mod sqlite;

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::domain::SchemaName;

/// What a clone did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CloneOutcome {
    /// Ordinary tables; virtual ones and the tables behind them are copied but not counted.
    pub tables: u64,
    /// In those tables.
    pub rows: u64,
    /// The size of the new schema.
    pub bytes: u64,
    pub elapsed: Duration,
    pub consistency: Consistency,
    /// What a person should know although the clone succeeded.
    pub notes: Vec<String>,
}

/// All of a clone is of one moment of its source. How that came about:
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Consistency {
    /// Writers of the source went on.
    Snapshot,
    /// Writers of the source waited while the rows were copied.
    Locked,
}

/// How far the copying is. Verifying and putting in place come after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    pub copied_bytes: u64,
    pub total_bytes: u64,
}

/// Why there is no clone. What the destination held before is still there, whole, unless the text
/// says otherwise. `place` is the file, or the server, that holds the schema.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CloneError {
    #[error(
        "`{schema}` ({place}) would be cloned onto itself: give the server a schema of its own"
    )]
    SameSchema { schema: SchemaName, place: String },
    #[error(
        "the source schema `{schema}` does not exist ({place}): create it, or register another schema for its user"
    )]
    SourceMissing { schema: SchemaName, place: String },
    #[error(
        "the source schema `{schema}` is no SQLite database ({place}): put one there, or register another schema for its user"
    )]
    SourceNotADatabase { schema: SchemaName, place: String },
    #[error(
        "the source schema `{schema}` is damaged ({place}): {message}. Repair it or restore a copy"
    )]
    SourceDamaged { schema: SchemaName, place: String, message: String },
    #[error(
        "the source schema `{schema}` ({place}) was left by a program that died while writing: open it once with its program, which repairs it"
    )]
    SourceUnfinished { schema: SchemaName, place: String },
    #[error(
        "the schema `{schema}` is in use and cannot be replaced ({place}): stop the programs that have it open, or let another clone into it finish"
    )]
    DestinationBusy { schema: SchemaName, place: String },
    #[error(
        "the schema `{schema}` is not a plain file ({place}), so it is not ours to replace: move it away"
    )]
    DestinationNotAFile { schema: SchemaName, place: String },
    #[error(
        "no room for the schema `{schema}` ({place}), which needs about {bytes} bytes: free some space"
    )]
    NoSpace { schema: SchemaName, place: String, bytes: u64 },
    #[error(
        "cloning the schema `{schema}` was given up after {} s while {doing} ({place}): see what holds it up, or raise `clone_timeout`",
        .timeout.as_secs()
    )]
    TimedOut { schema: SchemaName, place: String, timeout: Duration, doing: &'static str },
    #[error(
        "the schema `{schema}` ({place}): {doing} is not allowed: {message}. Grant the MySQL login what `update-pull grants` prints"
    )]
    Forbidden { schema: SchemaName, place: String, doing: &'static str, message: String },
    #[error(
        "the source schema `{schema}` ({place}) was altered again and again while it was copied ({message}): try when its migration is done"
    )]
    SourceAltered { schema: SchemaName, place: String, message: String },
    #[error(
        "`{name}` on {place} is not ours, and the clone into `{schema}` needs that name: rename or drop it"
    )]
    InTheWay { schema: SchemaName, place: String, name: String },
    #[error(
        "the source schema `{schema}` ({place}) has {bytes} bytes, and `clone_max_bytes` allows {limit}: raise it, or make the schema smaller"
    )]
    TooLarge { schema: SchemaName, place: String, bytes: u64, limit: u64 },
    #[error("the schema `{schema}` ({place}): {doing} failed: {message}. {remedy}")]
    Other {
        schema: SchemaName,
        place: String,
        doing: &'static str,
        message: String,
        remedy: &'static str,
    },
}

/// Where the schemas live.
#[derive(Debug, Clone)]
pub enum Schemas {
    /// Files of one folder.
    Sqlite { folder: PathBuf },
    /// Schemas of one server.
    Mysql(mysql::Server),
}

impl Schemas {
    /// Copies `source` to `destination`, which is either left as it was or replaced as a whole.
    pub fn clone(
        &self,
        source: &SchemaName,
        destination: &SchemaName,
        timeout: Duration,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<CloneOutcome, CloneError> {
        match self {
            Schemas::Sqlite { folder } => {
                sqlite::clone(folder, source, destination, timeout, progress)
            }
            Schemas::Mysql(server) => server.clone_schema(source, destination, timeout, progress),
        }
    }

    /// Whether the schema exists and is not empty.
    pub fn holds_something(&self, schema: &SchemaName) -> Result<bool, CloneError> {
        match self {
            Schemas::Sqlite { folder } => sqlite::exists_nonempty(folder, schema),
            Schemas::Mysql(server) => server.holds_something(schema),
        }
    }
}

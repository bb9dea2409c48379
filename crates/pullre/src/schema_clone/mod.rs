//! Fills a server's schema from the author's. A clone is made beside its destination, verified,
//! then put in place at once: whoever looks finds the old content or the new one, whole.

pub mod mask;
pub mod mysql;
pub mod sqlite;

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use self::mask::{Mask, NO_MASK};
use crate::domain::SchemaName;

/// How clones are made, from app.ini.
#[derive(Debug, Clone)]
pub struct Cloning {
    /// How long one may take.
    pub timeout: Duration,
    pub mask: Mask,
    /// The clone that is replaced stays for one more generation.
    pub keep_previous: bool,
}

impl Default for Cloning {
    fn default() -> Self {
        let timeout = Duration::from_secs(3600);
        Cloning { timeout, mask: Mask::default(), keep_previous: false }
    }
}

/// One clone that is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    pub source: &'a SchemaName,
    pub destination: &'a SchemaName,
    pub timeout: Duration,
    pub mask: &'a Mask,
    /// What the destination holds is kept beside it, in place of what was kept before. Else what
    /// was kept before goes too: it would be older than anybody thinks.
    pub keep_previous: bool,
    /// Tells one wish for a clone from others, and from undoings: asked for again after a kill or a
    /// failure, what it once kept is kept, and what it had put in place is not kept in its stead.
    pub wish: Option<i64>,
}

impl<'a> Request<'a> {
    /// Everything is copied, and nothing kept.
    pub fn new(
        source: &'a SchemaName,
        destination: &'a SchemaName,
        timeout: Duration,
    ) -> Request<'a> {
        Request { source, destination, timeout, mask: &NO_MASK, keep_previous: false, wish: None }
    }
}

/// FNV-1a: the same in every version.
fn stable_hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

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
    /// What the destination held before is kept beside it.
    pub kept_previous: bool,
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

/// What a clone is at, in this order. Not every clone has each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Comparing,
    Waiting,
    Creating,
    Copying,
    Linking,
    Verifying,
    Swapping,
}

impl Phase {
    /// In words that go on from "now".
    pub fn word(self) -> &'static str {
        match self {
            Phase::Comparing => "comparing with what is there",
            Phase::Waiting => "waiting for a busy server",
            Phase::Creating => "creating tables",
            Phase::Copying => "copying",
            Phase::Linking => "adding foreign keys, views, routines, triggers and events",
            Phase::Verifying => "verifying",
            Phase::Swapping => "putting the clone in place",
        }
    }
}

/// How far a clone is. Bytes are estimates of the source's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    pub phase: Phase,
    pub copied_bytes: u64,
    pub total_bytes: u64,
    pub tables: u64,
    pub total_tables: u64,
    pub rows: u64,
}

impl Progress {
    fn at(phase: Phase) -> Progress {
        let (copied_bytes, total_bytes, tables, total_tables, rows) = (0, 0, 0, 0, 0);
        Progress { phase, copied_bytes, total_bytes, tables, total_tables, rows }
    }
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
        "no room for the schema `{schema}` ({place}){}: free some space",
        room(*.bytes, *.free)
    )]
    NoSpace { schema: SchemaName, place: String, bytes: u64, free: Option<u64> },
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
    #[error(
        "`mask_file`, {wrong} (schema `{schema}`, {place}). Nothing was copied: correct the rule"
    )]
    Mask { schema: SchemaName, place: String, wrong: mask::Wrong },
    #[error("no previous clone of the schema `{schema}` is kept ({place})")]
    NoPrevious { schema: SchemaName, place: String },
    #[error("the schema `{schema}` ({place}): {doing} failed: {message}. {remedy}")]
    Other {
        schema: SchemaName,
        place: String,
        doing: &'static str,
        message: String,
        remedy: &'static str,
    },
}

fn room(bytes: u64, free: Option<u64>) -> String {
    match (bytes, free) {
        // The disk is so full that it was not even seen how large it is.
        (0, _) => String::new(),
        (_, None) => format!(", which needs about {bytes} bytes"),
        (_, Some(free)) => format!(", which needs about {bytes} bytes where {free} are free"),
    }
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
    /// Copies the source to the destination, which is either left as it was or replaced as a whole.
    /// The caller holds the lock of the destination schema.
    pub fn clone_schema(
        &self,
        request: &Request<'_>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<CloneOutcome, CloneError> {
        match self {
            Schemas::Sqlite { folder } => sqlite::clone(folder, request, progress),
            Schemas::Mysql(server) => server.clone_schema(request, progress),
        }
    }

    /// Puts the previous clone in the place of the one that replaced it, which is kept in turn.
    /// `wish` tells this undoing from others: asked for again after it was done, it does nothing.
    /// The caller holds the lock of the schema.
    pub fn undo(
        &self,
        schema: &SchemaName,
        wish: i64,
        timeout: Duration,
    ) -> Result<(), CloneError> {
        match self {
            Schemas::Sqlite { folder } => sqlite::undo(folder, schema, wish),
            Schemas::Mysql(server) => server.undo(schema, wish, timeout),
        }
    }

    /// Whether every rule fits the source, and the engine understands every expression, as of now.
    /// Nothing is copied.
    pub fn try_mask(
        &self,
        source: &SchemaName,
        mask: &mask::Mask,
        timeout: Duration,
    ) -> Result<(), CloneError> {
        let request = Request { mask, ..Request::new(source, source, timeout) };
        match self {
            Schemas::Sqlite { folder } => sqlite::try_mask(folder, &request),
            Schemas::Mysql(server) => server.try_mask(&request),
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

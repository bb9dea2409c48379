//! What is told of a failure.

use std::fs;
use std::io;
use std::path::Path;

use rusqlite::{Error as SqlError, ErrorCode};

use super::Job;
use crate::domain::SchemaName;
use crate::schema_clone::CloneError;

const UNCHANGED: &str = "The schema is as it was; the clone can be tried again";

impl Job<'_> {
    pub(super) fn timed_out(&self, doing: &'static str) -> CloneError {
        CloneError::TimedOut {
            schema: self.source.clone(),
            place: place(&self.source_file),
            timeout: self.timeout,
            doing,
        }
    }

    pub(super) fn busy(&self) -> CloneError {
        CloneError::DestinationBusy {
            schema: self.destination.clone(),
            place: place(&self.destination_file),
        }
    }

    pub(super) fn not_a_database(&self) -> CloneError {
        CloneError::SourceNotADatabase {
            schema: self.source.clone(),
            place: place(&self.source_file),
        }
    }

    pub(super) fn damaged(&self, message: String) -> CloneError {
        CloneError::SourceDamaged {
            schema: self.source.clone(),
            place: place(&self.source_file),
            message,
        }
    }

    pub(super) fn no_space(&self) -> CloneError {
        // Only for a person to read; 0 where the source has gone meanwhile.
        let bytes = fs::metadata(&self.source_file).map_or(0, |source| source.len());
        CloneError::NoSpace {
            schema: self.destination.clone(),
            place: place(&self.destination_file),
            bytes,
            free: None,
        }
    }

    pub(super) fn source_error(&self, doing: &'static str, e: SqlError) -> CloneError {
        match e.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => self.not_a_database(),
            Some(ErrorCode::DatabaseCorrupt) => self.damaged(e.to_string()),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                self.timed_out("waiting for another program's write transaction")
            }
            Some(ErrorCode::ReadOnly) if needs_repair(&e) => CloneError::SourceUnfinished {
                schema: self.source.clone(),
                place: place(&self.source_file),
            },
            Some(ErrorCode::DiskFull) => self.no_space(),
            _ => self.source_other(doing, e),
        }
    }

    /// Of an error in the copy, which may be the fault of either side.
    pub(super) fn copy_error(&self, doing: &'static str, e: SqlError) -> CloneError {
        match e.sqlite_error_code() {
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
                self.damaged(e.to_string())
            }
            Some(ErrorCode::DiskFull) => self.no_space(),
            _ => self.destination_other(doing, e),
        }
    }

    pub(super) fn io_error(&self, doing: &'static str, e: io::Error) -> CloneError {
        match e.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => self.no_space(),
            _ => self.destination_other(doing, e),
        }
    }

    pub(super) fn source_other(&self, doing: &'static str, e: impl ToString) -> CloneError {
        let remedy = "Check that this user may read it and write in its folder";
        other(self.source, &self.source_file, doing, e, remedy)
    }

    pub(super) fn destination_other(&self, doing: &'static str, e: impl ToString) -> CloneError {
        other(self.destination, &self.destination_file, doing, e, UNCHANGED)
    }
}

pub(super) fn other(
    schema: &SchemaName,
    file: &Path,
    doing: &'static str,
    e: impl ToString,
    remedy: &'static str,
) -> CloneError {
    CloneError::Other {
        schema: schema.clone(),
        place: place(file),
        doing,
        message: e.to_string(),
        remedy,
    }
}

/// What was left unfinished by a crash would have to be rolled back, but we only read.
fn needs_repair(e: &SqlError) -> bool {
    const REPAIR: [i32; 2] =
        [rusqlite::ffi::SQLITE_READONLY_ROLLBACK, rusqlite::ffi::SQLITE_READONLY_RECOVERY];
    e.sqlite_error().is_some_and(|e| REPAIR.contains(&e.extended_code))
}

pub(super) fn place(file: &Path) -> String {
    file.display().to_string()
}

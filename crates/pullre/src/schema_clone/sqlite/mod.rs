//! Cloning where each schema is one SQLite file in one folder.
//!
//! What a kill leaves behind: up to the rename the old destination, whole (perhaps moved from WAL
//! to rollback mode, which changes no content), and `.<schema>.building` with its side files,
//! which the next clone into that schema replaces; after the rename the new one.

mod destination;
mod fault;
mod masked;
mod previous;

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, Error as SqlError, ErrorCode, OpenFlags, TransactionState};

use self::fault::{other, place};
pub use self::previous::undo;
use super::mask::Mask;
use super::{CloneError, CloneOutcome, Consistency, Phase, Progress, Request};
use crate::domain::SchemaName;

/// How much is copied between two looks at the clock, some 30 ms. Since the read transaction stays
/// open between steps, their size costs nothing: 100 pages a step take as long as all in one.
const STEP_BYTES: u64 = 8 << 20;

/// How long a transaction of another process on the old destination is waited for.
const DESTINATION_WAIT: Duration = Duration::from_secs(5);

/// The file of `schema`.
pub fn path(schema_dir: &Path, schema: &SchemaName) -> PathBuf {
    schema_dir.join(format!("{schema}.db"))
}

/// Whether there is something that a clone would overwrite: a database with at least one object,
/// or anything that is not a database. A file of zero bytes is empty.
///
/// Fails when the file cannot be read, or when another process keeps it locked.
pub fn exists_nonempty(schema_dir: &Path, schema: &SchemaName) -> Result<bool, CloneError> {
    let file = path(schema_dir, schema);
    match fs::symlink_metadata(&file) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(e) => {
            return Err(other(schema, &file, "looking at it", e, "Check the folder's mode"));
        }
        Ok(found) if !found.is_file() => return Ok(true),
        Ok(found) if found.len() == 0 => return Ok(false),
        Ok(_) => {}
    }
    let objects = || -> Result<i64, SqlError> {
        let db = Connection::open_with_flags(&file, flags(OpenFlags::SQLITE_OPEN_READ_ONLY))?;
        db.busy_timeout(DESTINATION_WAIT)?;
        db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
    };
    match objects() {
        Ok(count) => Ok(count > 0),
        Err(e) => match e.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                Err(CloneError::DestinationBusy { schema: schema.clone(), place: place(&file) })
            }
            // Bytes that nobody can read as a database, or an unfinished transaction in one:
            // something that was somebody's.
            Some(
                ErrorCode::NotADatabase
                | ErrorCode::DatabaseCorrupt
                | ErrorCode::ReadOnly
                | ErrorCode::Unknown,
            ) => Ok(true),
            _ => Err(other(schema, &file, "reading it", e, "Check its owner and mode")),
        },
    }
}

/// Makes `destination` a copy of `source` as it is at one moment. The caller holds the lock of
/// the destination schema.
///
/// The source is read in one read transaction: a writer can neither tear the copy nor make it
/// start again. A writer of a source in WAL mode does not notice; in rollback mode its commits
/// wait while the pages are copied (two seconds for 500 MB), as with any long reader. Steps without
/// a transaction would let it commit, and start again from the first page each time that it does.
///
/// Of the old destination's users those are found that have it open in WAL mode or are inside a
/// transaction. An idle connection in rollback mode is not: it keeps the old file, and SQLite
/// refuses its next write ("database moved").
///
/// Gives up `timeout` after the call, but never once the new file is being put in place.
pub fn clone(
    schema_dir: &Path,
    request: &Request<'_>,
    progress: &mut dyn FnMut(Progress),
) -> Result<CloneOutcome, CloneError> {
    let started = Instant::now();
    let job = Job::new(schema_dir, request);
    let Request { source, mask, .. } = *request;
    let mut notes = Vec::new();

    let found = job.check_files()?;
    job.settle_previous()?;
    let reading = job.read_source()?;
    let masked = if mask.is_empty() { None } else { Some(job.fit(&reading)?) };
    // Known to be busy now, and not only after minutes of copying.
    if found.old.is_some() {
        drop(job.take_over()?);
    }
    let mut building = job.start_building(schema_dir)?;
    match &masked {
        Some(masked) => {
            job.copy_masked(&reading, masked, &building.path, &mut notes, progress)?;
        }
        None => job.copy(&reading, &building.path, progress)?,
    }
    let Reading { db, objects, wal, .. } = reading;
    // Writers of the source wait no longer.
    drop(db);
    if wal {
        notes.push("the source is in WAL mode; the clone starts in rollback mode".to_owned());
    }
    progress(Progress::at(Phase::Verifying));
    let (tables, rows) = job.verify(&building.path, &objects, &mut notes)?;
    if objects.is_empty() {
        notes.push(format!("the source schema `{source}` holds no tables"));
    }
    let bytes = job.finish_file(&building, &found, &mut notes)?;
    progress(Progress::at(Phase::Swapping));
    let kept_previous = job.put_in_place(schema_dir, &mut building, &mut notes)?;

    let consistency = if wal { Consistency::Snapshot } else { Consistency::Locked };
    let elapsed = started.elapsed();
    Ok(CloneOutcome { tables, rows, bytes, elapsed, consistency, kept_previous, notes })
}

/// See [`crate::schema_clone::Schemas::try_mask`].
pub(super) fn try_mask(schema_dir: &Path, request: &Request<'_>) -> Result<(), CloneError> {
    let job = Job::new(schema_dir, request);
    job.fit(&job.read_source()?).map(drop)
}

struct Job<'a> {
    source: &'a SchemaName,
    destination: &'a SchemaName,
    source_file: PathBuf,
    destination_file: PathBuf,
    mask: &'a Mask,
    keep_previous: bool,
    wish: Option<i64>,
    timeout: Duration,
    /// None: further away than the clock can count.
    deadline: Option<Instant>,
}

/// The two files before the clone.
struct Found {
    source: fs::Metadata,
    old: Option<fs::Metadata>,
}

/// A source with its read transaction open.
struct Reading {
    db: Connection,
    objects: Vec<Object>,
    page_size: u64,
    wal: bool,
}

/// Type, name, table and SQL of a row of `sqlite_schema`, as bytes.
type Object = [Option<Vec<u8>>; 4];

impl<'a> Job<'a> {
    fn new(schema_dir: &Path, request: &Request<'a>) -> Job<'a> {
        let Request { source, destination, timeout, mask, keep_previous, wish } = *request;
        Job {
            source,
            destination,
            source_file: path(schema_dir, source),
            destination_file: path(schema_dir, destination),
            mask,
            keep_previous,
            wish,
            timeout,
            deadline: Instant::now().checked_add(timeout),
        }
    }
}

impl Job<'_> {
    fn check_files(&self) -> Result<Found, CloneError> {
        let same = || CloneError::SameSchema {
            schema: self.source.clone(),
            place: place(&self.source_file),
        };
        if self.source.collides(self.destination) {
            return Err(same());
        }
        let source = fs::metadata(&self.source_file).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => CloneError::SourceMissing {
                schema: self.source.clone(),
                place: place(&self.source_file),
            },
            _ => self.source_other("looking at it", e),
        })?;
        if !source.is_file() {
            return Err(self.not_a_database());
        }
        let old = self.find_old()?;
        let identity = |file: &fs::Metadata| (file.dev(), file.ino());
        if old.as_ref().map(identity) == Some(identity(&source)) {
            return Err(same());
        }
        Ok(Found { source, old })
    }

    /// Opens the source, never creating it, and begins the read transaction. Of a source in WAL
    /// mode that nobody has open this leaves `-wal` and `-shm` files, which hold nothing.
    fn read_source(&self) -> Result<Reading, CloneError> {
        let read = || -> Result<Reading, SqlError> {
            let db = Connection::open_with_flags(
                &self.source_file,
                flags(OpenFlags::SQLITE_OPEN_READ_ONLY),
            )?;
            db.busy_timeout(self.remaining())?;
            db.execute_batch("BEGIN")?;

            let objects = objects(&db)?;
            debug_assert!(db.transaction_state(Some("main")).ok() == Some(TransactionState::Read));
            let page_size = number(&db, "PRAGMA page_size")?;
            let mode: String = db.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
            Ok(Reading { db, objects, page_size, wal: mode == "wal" })
        };
        read().map_err(|e| self.source_error("opening it", e))
    }

    /// Copies all pages.
    fn copy(
        &self,
        source: &Reading,
        to: &Path,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), CloneError> {
        let failed = |e| self.copy_error("copying its pages", e);
        let mut db = Connection::open_with_flags(to, flags(OpenFlags::SQLITE_OPEN_READ_WRITE))
            .map_err(failed)?;
        // Nothing to roll back to: a half-built file is thrown away. It is synced as a whole.
        db.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF").map_err(failed)?;
        // A page has 512 bytes to 64 KiB.
        let step = i32::try_from(STEP_BYTES / source.page_size.max(512)).unwrap_or(i32::MAX);
        {
            let total = number(&source.db, "PRAGMA page_count").map_err(failed)? * source.page_size;
            progress(Progress { total_bytes: total, ..Progress::at(Phase::Copying) });
            let backup = Backup::new(&source.db, &mut db).map_err(failed)?;
            loop {
                let result = backup.step(step).map_err(failed)?;
                let now = backup.progress();
                let size = |pages: i32| u64::try_from(pages).unwrap_or(0) * source.page_size;
                progress(Progress {
                    copied_bytes: size(now.pagecount - now.remaining),
                    total_bytes: size(now.pagecount),
                    ..Progress::at(Phase::Copying)
                });
                match result {
                    StepResult::Done => break,
                    StepResult::More => {}
                    // Somebody looks into the building file, say a backup program.
                    _ => thread::sleep(Duration::from_millis(10)),
                }
                self.check_time("copying its pages")?;
            }
        }
        drop(db);

        // WAL mode came along in the first page. In rollback mode the file is all there is.
        let db = Connection::open_with_flags(to, flags(OpenFlags::SQLITE_OPEN_READ_WRITE))
            .map_err(failed)?;
        set_rollback_mode(&db).map_err(failed)?;
        db.close().map_err(|(_, e)| failed(e))
    }

    /// Checks the copy and counts its tables and their rows.
    fn verify(
        &self,
        file: &Path,
        expected: &[Object],
        notes: &mut Vec<String>,
    ) -> Result<(u64, u64), CloneError> {
        const DOING: &str = "verifying the copy";
        let failed = |e: SqlError| match e.sqlite_error_code() {
            Some(ErrorCode::OperationInterrupted) => self.timed_out(DOING),
            _ => self.copy_error(DOING, e),
        };
        let mut db = Connection::open_with_flags(file, flags(OpenFlags::SQLITE_OPEN_READ_ONLY))
            .map_err(failed)?;
        let deadline = self.deadline;
        let late = move || deadline.is_some_and(|end| Instant::now() >= end);
        db.progress_handler(10_000, Some(late)).map_err(failed)?;

        let check: Result<String, SqlError> =
            db.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0));
        match check {
            Ok(answer) if answer == "ok" => {}
            Ok(message) => return Err(self.damaged(message)),
            // The plain error: the schema uses a collation or function that only its program has.
            Err(e) if e.sqlite_error_code() == Some(ErrorCode::Unknown) => {
                notes.push(format!("the content could not be checked: {e}"));
            }
            Err(e) => return Err(failed(e)),
        }
        let made = objects(&db).map_err(failed)?;
        let same = match self.mask.is_empty() {
            true => made == expected,
            false => masked::same_objects(&made, expected),
        };
        if !same {
            let message = "the copy holds other tables than the source".to_owned();
            return Err(self.damaged(message));
        }
        self.check_time(DOING)?;
        count(&db).map_err(failed)
    }

    fn remaining(&self) -> Duration {
        // A day at most: SQLite counts milliseconds in 32 bits.
        const MOST: Duration = Duration::from_secs(24 * 60 * 60);
        self.deadline.map_or(MOST, |end| end.saturating_duration_since(Instant::now()).min(MOST))
    }

    fn check_time(&self, doing: &'static str) -> Result<(), CloneError> {
        if self.remaining().is_zero() {
            return Err(self.timed_out(doing));
        }
        Ok(())
    }
}

/// Neither creating files nor reading a path as a URI.
fn flags(access: OpenFlags) -> OpenFlags {
    access | OpenFlags::SQLITE_OPEN_NO_MUTEX
}

/// Fails with `DatabaseBusy` while another connection has the database open in WAL mode.
fn set_rollback_mode(db: &Connection) -> Result<(), SqlError> {
    let mode: String = db.query_row("PRAGMA journal_mode = DELETE", [], |row| row.get(0))?;
    if mode == "delete" {
        return Ok(());
    }
    let busy = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY);
    Err(SqlError::SqliteFailure(busy, Some(format!("journal mode stays {mode}"))))
}

fn number(db: &Connection, sql: &str) -> Result<u64, SqlError> {
    let number: i64 = db.query_row(sql, [], |row| row.get(0))?;
    Ok(u64::try_from(number).unwrap_or(0))
}

fn objects(db: &Connection) -> Result<Vec<Object>, SqlError> {
    // As bytes: the text of a foreign program need not be UTF-8.
    const SQL: &str = "SELECT CAST(type AS BLOB), CAST(name AS BLOB), CAST(tbl_name AS BLOB),
         CAST(sql AS BLOB) FROM sqlite_schema ORDER BY rowid";
    let mut rows = db.prepare(SQL)?;
    rows.query_map([], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?]))?.collect()
}

/// Ordinary tables and the rows in them.
fn count(db: &Connection) -> Result<(u64, u64), SqlError> {
    const SQL: &str = "SELECT name FROM pragma_table_list
         WHERE schema = 'main' AND type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'";
    let names: Vec<String> =
        db.prepare(SQL)?.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let mut rows = 0;
    for name in &names {
        let sql = format!("SELECT count(*) FROM \"{}\"", name.replace('"', "\"\""));
        rows += number(db, &sql)?;
    }
    Ok((names.len() as u64, rows))
}

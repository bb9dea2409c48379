//! Cloning where each schema is one SQLite file in one folder.
//!
//! What a kill leaves behind: up to the rename the old destination, whole (perhaps moved from WAL
//! to rollback mode, which changes no content), and `.<schema>.building` with its side files,
//! which the next clone into that schema replaces; after the rename the new one.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, Error as SqlError, ErrorCode, OpenFlags, TransactionState};

use super::{CloneError, CloneOutcome, Progress};
use crate::domain::SchemaName;

/// What SQLite keeps beside a database under its name.
const SIDE_FILES: [&str; 3] = ["-journal", "-wal", "-shm"];

/// How much is copied between two looks at the clock: about 10 ms on an SSD.
const STEP_BYTES: u64 = 8 << 20;

/// How long a transaction of another process on the old destination is waited for.
const DESTINATION_WAIT: Duration = Duration::from_secs(5);

const UNCHANGED: &str = "The schema is as it was; the clone can be tried again";

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
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt | ErrorCode::ReadOnly) => {
                Ok(true)
            }
            _ => Err(other(schema, &file, "reading it", e, "Check its owner and mode")),
        },
    }
}

/// Makes `destination` a copy of `source` as it is at one moment. The caller holds the lock of
/// the destination schema.
///
/// The source is read in one read transaction: a writer can neither tear the copy nor make it
/// start again. A writer of a source in WAL mode does not notice; in rollback mode its commits
/// wait while the pages are copied (about a second for 500 MB), as with any long reader.
///
/// Of the old destination's users those are found that have it open in WAL mode or are inside a
/// transaction. An idle connection in rollback mode is not: it keeps the old file, and SQLite
/// refuses its next write ("database moved").
///
/// Gives up `timeout` after the call, but never once the new file is being put in place.
pub fn clone(
    schema_dir: &Path,
    source: &SchemaName,
    destination: &SchemaName,
    timeout: Duration,
    progress: &mut dyn FnMut(Progress),
) -> Result<CloneOutcome, CloneError> {
    let started = Instant::now();
    let job = Job {
        source,
        destination,
        source_file: path(schema_dir, source),
        destination_file: path(schema_dir, destination),
        timeout,
        deadline: started.checked_add(timeout),
    };
    let mut notes = Vec::new();

    let found = job.check_files()?;
    let reading = job.read_source()?;
    // Known to be busy now, and not only after minutes of copying.
    drop(job.take_over(found.old.is_some())?);
    let mut building = job.start_building(schema_dir)?;
    job.copy(&reading, &building.path, progress)?;
    let Reading { db, objects, wal, .. } = reading;
    // Writers of the source wait no longer.
    drop(db);
    if wal {
        notes.push("the source is in WAL mode; the clone starts in rollback mode".to_owned());
    }
    let (tables, rows) = job.verify(&building.path, &objects, &mut notes)?;
    if objects.is_empty() {
        notes.push(format!("the source schema `{source}` holds no tables"));
    }
    let bytes = job.finish_file(&building, &found, &mut notes)?;
    job.put_in_place(schema_dir, &mut building, found.old.is_some(), &mut notes)?;

    Ok(CloneOutcome { tables, rows, bytes, elapsed: started.elapsed(), notes })
}

struct Job<'a> {
    source: &'a SchemaName,
    destination: &'a SchemaName,
    source_file: PathBuf,
    destination_file: PathBuf,
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

/// The file that becomes the destination, locked against a second clone into the same schema.
/// Removed when dropped before the rename.
struct Building {
    path: PathBuf,
    file: File,
    in_place: bool,
}

impl Drop for Building {
    fn drop(&mut self) {
        if !self.in_place {
            // What cannot be removed now is replaced by the next clone.
            let _ = fs::remove_file(&self.path);
            let _ = remove_side_files(&self.path);
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
        let old = match fs::symlink_metadata(&self.destination_file) {
            Ok(old) => Some(old),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(self.destination_other("looking at it", e)),
        };
        if let Some(old) = &old {
            // A link, maybe to the source: a clone never makes one, so a person meant something
            // by it, and SQLite would work on what it points to.
            if !old.is_file() {
                return Err(CloneError::DestinationNotAFile {
                    schema: self.destination.clone(),
                    place: place(&self.destination_file),
                });
            }
            if (old.dev(), old.ino()) == (source.dev(), source.ino()) {
                return Err(same());
            }
        }
        Ok(Found { source, old })
    }

    /// Opens the source, never creating it, and begins the read transaction.
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

    /// Makes sure that nobody works on the old destination and that nothing of it is left in side
    /// files, which SQLite would replay into the new file of the same name. The connection that
    /// is given back keeps others out until it is dropped; None where there is no old destination
    /// or it is damaged, which must not keep a new one away.
    fn take_over(&self, exists: bool) -> Result<Option<Connection>, CloneError> {
        if !exists {
            return Ok(None);
        }
        let file = &self.destination_file;
        OpenOptions::new()
            .write(true)
            .open(file)
            .map_err(|e| self.destination_other("opening the old file", e))?;
        let settle = || -> Result<Connection, SqlError> {
            let db = Connection::open_with_flags(file, flags(OpenFlags::SQLITE_OPEN_READ_WRITE))?;
            db.busy_timeout(DESTINATION_WAIT.min(self.remaining()))?;
            // Out of WAL mode: only possible while nobody else has it open.
            set_rollback_mode(&db)?;
            db.execute_batch("BEGIN EXCLUSIVE")?;
            Ok(db)
        };
        match settle() {
            Ok(db) => Ok(Some(db)),
            Err(e) => match e.sqlite_error_code() {
                Some(
                    ErrorCode::DatabaseBusy
                    | ErrorCode::DatabaseLocked
                    | ErrorCode::FileLockingProtocolFailed,
                ) => Err(self.busy()),
                Some(ErrorCode::DiskFull) => Err(self.no_space()),
                // We may write the file, so a refusal comes from what is in it or beside it.
                Some(
                    ErrorCode::NotADatabase
                    | ErrorCode::DatabaseCorrupt
                    | ErrorCode::CannotOpen
                    | ErrorCode::ReadOnly
                    | ErrorCode::Unknown,
                ) => Ok(None),
                _ => Err(self.destination_other("closing the old file", e)),
            },
        }
    }

    /// An empty file of ours beside the destination, in place of what a killed run left.
    fn start_building(&self, schema_dir: &Path) -> Result<Building, CloneError> {
        let path = schema_dir.join(format!(".{}.building", self.destination));
        let failed = |e| self.io_error("creating the new file", e);
        loop {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)
                .map_err(failed)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(self.busy()),
                Err(TryLockError::Error(e)) => return Err(failed(e)),
            }
            // Another clone may have renamed or removed it while we opened it: then the lock is
            // on a file that is not the one to build in, perhaps on a finished destination.
            let ours = file.metadata().map_err(failed)?;
            match fs::symlink_metadata(&path) {
                Ok(named) if (named.dev(), named.ino()) == (ours.dev(), ours.ino()) => {}
                Ok(_) => continue,
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(failed(e)),
            }
            remove_side_files(&path).map_err(failed)?;
            file.set_len(0).map_err(failed)?;
            return Ok(Building { path, file, in_place: false });
        }
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
            let backup = Backup::new(&source.db, &mut db).map_err(failed)?;
            loop {
                let result = backup.step(step).map_err(failed)?;
                let now = backup.progress();
                let size = |pages: i32| u64::try_from(pages).unwrap_or(0) * source.page_size;
                progress(Progress {
                    copied_bytes: size(now.pagecount - now.remaining),
                    total_bytes: size(now.pagecount),
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
        if objects(&db).map_err(failed)? != expected {
            let message = "the copy holds other tables than the source".to_owned();
            return Err(self.damaged(message));
        }
        self.check_time(DOING)?;
        count(&db).map_err(failed)
    }

    /// Gives the new file the old one's mode and owner, and puts it on the disk. Returns its size.
    fn finish_file(
        &self,
        building: &Building,
        found: &Found,
        notes: &mut Vec<String>,
    ) -> Result<u64, CloneError> {
        const DOING: &str = "writing the new file to disk";
        let failed = |e| self.io_error(DOING, e);
        let (like, mode) = match &found.old {
            Some(old) => (old, old.mode()),
            // A source may be write-protected; the app has to write its clone.
            None => (&found.source, found.source.mode() | 0o200),
        };
        let ours = building.file.metadata().map_err(failed)?;
        if (ours.uid(), ours.gid()) != (like.uid(), like.gid()) {
            // Only root can give files away.
            if let Err(e) = fchown(&building.file, Some(like.uid()), Some(like.gid())) {
                notes.push(format!(
                    "the clone belongs to user {} and group {}, not to {} and {}: {e}",
                    ours.uid(),
                    ours.gid(),
                    like.uid(),
                    like.gid()
                ));
            }
        }
        // After the change of owner, which may clear bits.
        building.file.set_permissions(Permissions::from_mode(mode & 0o777)).map_err(failed)?;
        building.file.sync_all().map_err(failed)?;
        self.check_time(DOING)?;
        Ok(building.file.metadata().map_err(failed)?.len())
    }

    fn put_in_place(
        &self,
        schema_dir: &Path,
        building: &mut Building,
        exists: bool,
        notes: &mut Vec<String>,
    ) -> Result<(), CloneError> {
        let old = self.take_over(exists)?;
        if exists && old.is_none() {
            notes.push("the old clone was damaged and is replaced".to_owned());
        }
        // Those of a settled database are empty, those of a damaged or removed one would be
        // replayed into the new file.
        let failed = |e| self.destination_other("putting the new file in place", e);
        remove_side_files(&self.destination_file).map_err(failed)?;
        fs::rename(&building.path, &self.destination_file).map_err(failed)?;
        building.in_place = true;
        // Whoever waited for the old file is let go; it has no name any more.
        drop(old);
        let synced = File::open(schema_dir).and_then(|folder| folder.sync_all());
        synced.map_err(|e| {
            other(
                self.destination,
                &self.destination_file,
                "writing the folder to disk",
                e,
                "The new clone is in place, but a power failure may bring the old one back",
            )
        })
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

    fn timed_out(&self, doing: &'static str) -> CloneError {
        CloneError::TimedOut {
            schema: self.source.clone(),
            place: place(&self.source_file),
            timeout: self.timeout,
            doing,
        }
    }

    fn busy(&self) -> CloneError {
        CloneError::DestinationBusy {
            schema: self.destination.clone(),
            place: place(&self.destination_file),
        }
    }

    fn not_a_database(&self) -> CloneError {
        CloneError::SourceNotADatabase {
            schema: self.source.clone(),
            place: place(&self.source_file),
        }
    }

    fn damaged(&self, message: String) -> CloneError {
        CloneError::SourceDamaged {
            schema: self.source.clone(),
            place: place(&self.source_file),
            message,
        }
    }

    fn no_space(&self) -> CloneError {
        // Only for a person to read; 0 where the source has gone meanwhile.
        let bytes = fs::metadata(&self.source_file).map_or(0, |source| source.len());
        CloneError::NoSpace {
            schema: self.destination.clone(),
            place: place(&self.destination_file),
            bytes,
        }
    }

    fn source_error(&self, doing: &'static str, e: SqlError) -> CloneError {
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
    fn copy_error(&self, doing: &'static str, e: SqlError) -> CloneError {
        match e.sqlite_error_code() {
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
                self.damaged(e.to_string())
            }
            Some(ErrorCode::DiskFull) => self.no_space(),
            _ => self.destination_other(doing, e),
        }
    }

    fn io_error(&self, doing: &'static str, e: io::Error) -> CloneError {
        match e.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => self.no_space(),
            _ => self.destination_other(doing, e),
        }
    }

    fn source_other(&self, doing: &'static str, e: impl ToString) -> CloneError {
        let remedy = "Check that this user may read it and write in its folder";
        other(self.source, &self.source_file, doing, e, remedy)
    }

    fn destination_other(&self, doing: &'static str, e: impl ToString) -> CloneError {
        other(self.destination, &self.destination_file, doing, e, UNCHANGED)
    }
}

fn other(
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

fn place(file: &Path) -> String {
    file.display().to_string()
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

fn remove_side_files(of: &Path) -> io::Result<()> {
    for suffix in SIDE_FILES {
        let mut name = OsString::from(of);
        name.push(suffix);
        match fs::remove_file(PathBuf::from(name)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    Ok(())
}

//! The file that is built, and the one that it replaces.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, Error as SqlError, ErrorCode, MAIN_DB, OpenFlags};

use super::fault::{other, place};
use super::{DESTINATION_WAIT, Found, Job, flags, set_rollback_mode};
use crate::schema_clone::CloneError;

/// What SQLite keeps beside a database under its name.
const SIDE_FILES: [&str; 3] = ["-journal", "-wal", "-shm"];

/// The file that becomes the destination, locked against a second clone into the same schema.
/// Removed when dropped before the rename.
pub(super) struct Building {
    pub path: PathBuf,
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
    /// The destination as it is, if it exists.
    pub(super) fn find_old(&self) -> Result<Option<fs::Metadata>, CloneError> {
        match fs::symlink_metadata(&self.destination_file) {
            Ok(old) if old.is_file() => Ok(Some(old)),
            // A link, maybe to the source: a clone never makes one, so a person meant something
            // by it, and SQLite would work on what it points to.
            Ok(_) => Err(CloneError::DestinationNotAFile {
                schema: self.destination.clone(),
                place: place(&self.destination_file),
            }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(self.destination_other("looking at it", e)),
        }
    }

    /// Makes sure that nobody works on the old destination and that nothing of it is left in side
    /// files, which SQLite would replay into the new file of the same name. The connection that
    /// is given back keeps others out until it is dropped; None where the old destination is
    /// damaged, which must not keep a new one away.
    pub(super) fn take_over(&self) -> Result<Option<Connection>, CloneError> {
        const DOING: &str = "closing the old file";
        let failed = |e| self.destination_other(DOING, e);
        let access = flags(OpenFlags::SQLITE_OPEN_READ_WRITE);
        let db = Connection::open_with_flags(&self.destination_file, access).map_err(failed)?;
        // What SQLite falls back to.
        if db.is_readonly(MAIN_DB).map_err(failed)? {
            return Err(self.destination_other(DOING, "we may not write it"));
        }
        let settle = || -> Result<(), SqlError> {
            db.busy_timeout(DESTINATION_WAIT.min(self.remaining()))?;
            // Out of WAL mode: only possible while nobody else has it open.
            set_rollback_mode(&db)?;
            db.execute_batch("BEGIN EXCLUSIVE")
        };
        match settle() {
            Ok(()) => Ok(Some(db)),
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
                _ => Err(failed(e)),
            },
        }
    }

    /// An empty file of ours beside the destination, in place of what a killed run left.
    pub(super) fn start_building(&self, schema_dir: &Path) -> Result<Building, CloneError> {
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

    /// Gives the new file the old one's mode and owner, and puts it on the disk. Returns its size.
    pub(super) fn finish_file(
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

    /// Returns whether the old clone is kept.
    pub(super) fn put_in_place(
        &self,
        schema_dir: &Path,
        building: &mut Building,
        notes: &mut Vec<String>,
    ) -> Result<bool, CloneError> {
        // Looked for again: a program may have made one meanwhile.
        let old = match self.find_old()? {
            Some(_) => {
                let old = self.take_over()?;
                if old.is_none() {
                    notes.push("the old clone was damaged and is replaced".to_owned());
                }
                old
            }
            None => None,
        };
        // Those of a settled database are empty, those of a damaged or removed one would be
        // replayed into the new file.
        let failed = |e| self.io_error("putting the new file in place", e);
        let kept_already = self.kept_already()?;
        let keeps = self.keep_previous && old.is_some() && !kept_already;
        if keeps {
            self.write_down_kept()?;
            self.leave()?;
        }
        remove_side_files(&self.destination_file).map_err(failed)?;
        fs::rename(&building.path, &self.destination_file).map_err(failed)?;
        building.in_place = true;
        // Whoever waited for the old file is let go; it has no name any more.
        drop(old);
        if keeps {
            self.settle_previous()?
        } else if !kept_already {
            self.forget_previous()?
        }
        let synced = File::open(schema_dir).and_then(|folder| folder.sync_all());
        synced.map_err(|e| {
            other(
                self.destination,
                &self.destination_file,
                "writing the folder to disk",
                e,
                "The new clone is in place, but a power failure may bring the old one back",
            )
        })?;
        Ok(keeps || kept_already)
    }
}

pub(super) fn remove_side_files(of: &Path) -> io::Result<()> {
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

//! The clone that was replaced, kept for one more generation as `.<schema>.previous`.
//!
//! What a kill leaves behind: `.<schema>.leaving`, a second name of the file that is about to be
//! replaced. Where it is still the destination itself, nothing happened yet; else it is the
//! previous clone, on its way to its name. An undoing writes down first which file it brings back
//! (`.<schema>.undo`), so that it is known whether it was done; a clone, which file it keeps
//! (`.<schema>.kept`).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::destination::remove_side_files;
use super::fault::place;
use super::{DESTINATION_WAIT, Job};
use crate::domain::SchemaName;
use crate::schema_clone::{CloneError, Request};

const KEEPING: &str = "keeping the previous clone";
const UNDOING: &str = "bringing the previous clone back";

/// Which file it is, whatever its name.
fn identity(file: &Path) -> io::Result<Option<(u64, u64)>> {
    match fs::symlink_metadata(file) {
        Ok(found) => Ok(Some((found.dev(), found.ino()))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

fn remove(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

impl Job<'_> {
    fn beside(&self, word: &str) -> PathBuf {
        self.destination_file.with_file_name(format!(".{}.{word}", self.destination))
    }

    /// Finishes what a killed run left.
    pub(super) fn settle_previous(&self) -> Result<(), CloneError> {
        let settle = || -> io::Result<()> {
            let leaving = self.beside("leaving");
            let Some(left) = identity(&leaving)? else { return Ok(()) };
            if identity(&self.destination_file)? == Some(left) {
                return remove(&leaving);
            }
            fs::rename(&leaving, self.beside("previous"))
        };
        settle().map_err(|e| self.io_error(KEEPING, e))
    }

    /// Gives the destination a second name, under which it stays when it is replaced.
    pub(super) fn leave(&self) -> Result<(), CloneError> {
        let link = || fs::hard_link(&self.destination_file, self.beside("leaving"));
        link().map_err(|e| self.io_error(KEEPING, e))
    }

    /// After the destination was replaced: what was kept before goes.
    pub(super) fn forget_previous(&self) -> Result<(), CloneError> {
        remove(&self.beside("previous")).map_err(|e| self.io_error(KEEPING, e))
    }

    /// The file that was written down under this word for this wish.
    fn written(&self, word: &str, wish: i64) -> io::Result<Option<(u64, u64)>> {
        let known = match fs::read_to_string(self.beside(word)) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
            Err(e) => return Err(e),
        };
        let words: Vec<&str> = known.split_whitespace().collect();
        if let [of, device, inode] = words[..]
            && of == wish.to_string()
            && let (Ok(device), Ok(inode)) = (device.parse(), inode.parse())
        {
            return Ok(Some((device, inode)));
        }
        Ok(None)
    }

    fn write(&self, word: &str, wish: i64, (device, inode): (u64, u64)) -> io::Result<()> {
        let new = self.beside(&format!("{word}-new"));
        remove(&new)?;
        let mut intent = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        intent.write_all(format!("{wish} {device} {inode}\n").as_bytes())?;
        intent.sync_all()?;
        fs::rename(&new, self.beside(word))
    }

    /// Writes down which file is brought back for this wish; says which, and never another one.
    fn undo_target(&self, wish: i64) -> Result<Option<(u64, u64)>, CloneError> {
        let target = || -> io::Result<Option<(u64, u64)>> {
            if let Some(target) = self.written("undo", wish)? {
                return Ok(Some(target));
            }
            let Some(target) = identity(&self.beside("previous"))? else { return Ok(None) };
            self.write("undo", wish, target)?;
            Ok(Some(target))
        };
        target().map_err(|e| self.io_error(UNDOING, e))
    }

    /// What was there when this clone was first asked for is kept already: a run that was killed
    /// after it had come so far, and what is there now is that run's.
    pub(super) fn kept_already(&self) -> Result<bool, CloneError> {
        let Some(wish) = self.wish.filter(|_| self.keep_previous) else { return Ok(false) };
        let kept = || -> io::Result<bool> {
            let file = self.written("kept", wish)?;
            Ok(file.is_some() && identity(&self.beside("previous"))? == file)
        };
        kept().map_err(|e| self.io_error(KEEPING, e))
    }

    /// Before the destination leaves.
    pub(super) fn write_down_kept(&self) -> Result<(), CloneError> {
        let write = || match (self.wish, identity(&self.destination_file)?) {
            (Some(wish), Some(file)) => self.write("kept", wish, file),
            _ => Ok(()),
        };
        write().map_err(|e| self.io_error(KEEPING, e))
    }
}

/// See [`crate::schema_clone::Schemas::undo`].
pub fn undo(schema_dir: &Path, schema: &SchemaName, wish: i64) -> Result<(), CloneError> {
    let job = Job::new(schema_dir, &Request::new(schema, schema, DESTINATION_WAIT));
    job.settle_previous()?;
    let none =
        || CloneError::NoPrevious { schema: schema.clone(), place: place(&job.destination_file) };
    let target = job.undo_target(wish)?.ok_or_else(none)?;
    let failed = |e| job.io_error(UNDOING, e);
    if identity(&job.destination_file).map_err(failed)? == Some(target) {
        return Ok(());
    }
    if identity(&job.beside("previous")).map_err(failed)? != Some(target) {
        return Err(none());
    }
    // Kept out until the end of it.
    let guard = match job.find_old()? {
        Some(_) => {
            let guard = job.take_over()?;
            job.leave()?;
            guard
        }
        None => None,
    };
    remove_side_files(&job.destination_file).map_err(failed)?;
    fs::rename(job.beside("previous"), &job.destination_file).map_err(failed)?;
    drop(guard);
    job.settle_previous()?;
    File::open(schema_dir).and_then(|folder| folder.sync_all()).map_err(failed)
}

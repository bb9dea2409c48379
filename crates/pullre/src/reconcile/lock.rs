//! Locks against other ticks, on this machine or another. A lock is held as long as its proof
//! lives, and dies with its process.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;

use crate::domain::{PullNumber, SchemaName, ServerId};

/// What can be locked; always in this order: environment, server, schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LockName {
    Environment(PullNumber),
    Server(ServerId),
    Schema(SchemaName),
}

impl LockName {
    fn text(&self) -> String {
        match self {
            LockName::Environment(number) => format!("environment-{}", number.0),
            LockName::Server(id) => format!("server-{}", id.0),
            // Names that may be one schema on some server share a lock.
            LockName::Schema(name) => format!("schema-{}", name.as_str().to_lowercase()),
        }
    }
}

/// Proof that a lock is held. Functions that act demand it.
#[derive(Debug)]
#[must_use]
pub struct Held {
    // Closing the file lets go of the lock, also when the process is killed.
    _file: File,
}

/// Where the locks are.
#[derive(Debug, Clone)]
pub enum Locks {
    /// Files of this machine, never removed: removing one that somebody waits for would give the
    /// lock twice.
    Files(PathBuf),
}

impl Locks {
    /// None where somebody else holds it. Never waits.
    pub fn try_lock(&self, name: &LockName) -> io::Result<Option<Held>> {
        let Locks::Files(folder) = self;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let path = folder.join(format!("{}.lock", name.text()));
        let file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Held { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(e)) => Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_lock_is_given_once_and_again_after_its_holder_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let locks = Locks::Files(folder.path().join("locks"));
        let stg1 = LockName::Schema("stg1".parse().unwrap());
        let same = LockName::Schema("STG1".parse().unwrap());
        let held = locks.try_lock(&stg1).unwrap();
        assert!(held.is_some());
        assert!(locks.try_lock(&same).unwrap().is_none());
        assert!(locks.try_lock(&LockName::Server(ServerId(1))).unwrap().is_some());
        drop(held);
        assert!(locks.try_lock(&same).unwrap().is_some());
    }
}

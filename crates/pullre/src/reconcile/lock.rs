//! Locks against other ticks, on this machine or another. A lock is held as long as its proof
//! lives, and dies with its process.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::domain::{PullNumber, SchemaName, ServerId};
use crate::store::mysql::{Holding, MysqlAccess};

/// What can be locked; always in this order: environment, server, schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LockName {
    Environment(PullNumber),
    Server(ServerId),
    Schema(SchemaName),
    /// Alone, and before all others: one run among those that look again and again.
    Polling,
    /// What is said on GitHub of one pull request. Not its environment's lock: a clone that takes
    /// minutes does not keep anybody from saying so.
    Reports(PullNumber),
    /// What the chat is told.
    Alerts,
}

impl LockName {
    fn text(&self) -> String {
        match self {
            LockName::Environment(number) => format!("environment-{}", number.0),
            LockName::Reports(number) => format!("reports-{}", number.0),
            LockName::Alerts => "alerts".to_owned(),
            LockName::Server(id) => format!("server-{}", id.0),
            LockName::Polling => "polling".to_owned(),
            // Names that may be one schema on some server share a lock.
            LockName::Schema(name) => format!("schema-{}", name.as_str().to_lowercase()),
        }
    }
}

/// Proof that a lock is held. Functions that act demand it.
#[derive(Debug)]
#[must_use]
pub struct Held(Kept);

#[derive(Debug)]
enum Kept {
    /// Closing the file lets go of the lock, also when the process is killed.
    File { _file: File },
    /// The server lets go of the lock when the connection ends.
    Mysql(Holding),
}

impl Held {
    /// Asks whether the lock is still held: a connection may break while one acts for long. Whoever
    /// takes several steps under a lock asks before each.
    pub fn is_held(&self) -> bool {
        match &self.0 {
            Kept::File { .. } => true,
            Kept::Mysql(holding) => holding.is_held(),
        }
    }
}

/// Where the locks are.
#[derive(Debug, Clone)]
pub enum Locks {
    /// Files of this machine, never removed: removing one that somebody waits for would give the
    /// lock twice.
    Files(PathBuf),
    /// Named locks of the MySQL server that holds the control database: they bind every machine
    /// whose controller names the same server and database. They live on one server: behind a
    /// proxy or a cluster all controllers must reach the same (writing) node.
    Mysql(MysqlAccess),
}

impl Locks {
    /// None where somebody else holds it. Never waits.
    pub fn try_lock(&self, name: &LockName) -> io::Result<Option<Held>> {
        let kept = match self {
            Locks::Files(folder) => {
                lock_file(folder, &name.text())?.map(|_file| Kept::File { _file })
            }
            Locks::Mysql(access) => access
                .hold(&server_wide(access.database(), &name.text()))
                .map_err(io::Error::other)?
                .map(Kept::Mysql),
        };
        Ok(kept.map(Held))
    }
}

fn lock_file(folder: &Path, name: &str) -> io::Result<Option<File>> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let path = folder.join(format!("{name}.lock"));
    let open =
        fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = open.map_err(|e| match e.kind() {
        io::ErrorKind::PermissionDenied => io::Error::other(format!(
            "{} belongs to another user, who ran pullre here once: give {} back with chown -R",
            path.display(),
            folder.display()
        )),
        _ => e,
    })?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(e)) => Err(e),
    }
}

/// MySQL takes 64 characters and knows no databases here: the name carries ours. One that is too
/// long, or not plain, keeps its hash; two that share it would only wait for each other.
fn server_wide(database: &str, name: &str) -> String {
    let whole = format!("pullre/{database}/{name}");
    if whole.len() <= 64 && whole.is_ascii() {
        return whole;
    }
    // FNV-1a: the same in every version of every controller, unlike the standard library's.
    let hash = whole.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let kind = name.split('-').next().unwrap_or_default();
    format!("pullre/{kind}/{hash:016x}")
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
    #[test]
    fn names_fit_the_server_and_carry_their_database() {
        assert_eq!(server_wide("pullre", "server-7"), "pullre/pullre/server-7");
        let long = "x".repeat(64);
        let names = [
            server_wide(&long, &format!("schema-{long}")),
            server_wide(&format!("{}y", &long[1..]), &format!("schema-{long}")),
            server_wide(&long, "environment-4294967295"),
            server_wide("db", "schema-機能"),
        ];
        for (index, name) in names.iter().enumerate() {
            assert!(name.len() <= 64 && name.is_ascii(), "{name}");
            assert!(!names[..index].contains(name), "{name}");
        }
        assert_eq!(names[0], "pullre/schema/2b12e776f2127dfd");
    }
}

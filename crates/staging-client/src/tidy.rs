//! What is in a work tree that no commit has. `git clean` looks at every folder for it; here only
//! those are looked at that changed since the last look, which their times of change tell: unlike
//! others, no program can set these.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use git2::{ObjectType, Repository, TreeWalkMode, TreeWalkResult};
use serde::{Deserialize, Serialize};

use crate::worktree::commit;

/// A change in so short a time may leave the time of change as it was.
const BLINK: i64 = 2_000_000_000;

/// Found to hold nothing untracked, but for ignored files: the folders of one commit, with the
/// nanoseconds of their last change. 0: too fresh to tell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scan {
    pub tree: PathBuf,
    pub sha: String,
    excludes: i64,
    folders: BTreeMap<String, i64>,
}

/// Nanoseconds since 1970, by the clock of the file system.
pub fn now() -> i64 {
    jiff::Timestamp::now().as_nanosecond().try_into().unwrap_or(i64::MAX)
}

/// After everything untracked was removed, which began then. None where a name is no text.
pub fn scan(repository: &Repository, tree: &Path, sha: &str, began: i64) -> Option<Scan> {
    let commit = commit(repository, sha)?;
    let mut folders = BTreeMap::from([(String::new(), 0)]);
    let mut is_text = true;
    let walked = commit.tree().ok()?.walk(TreeWalkMode::PreOrder, |above, entry| {
        if entry.kind() == Some(ObjectType::Tree) {
            match entry.name() {
                Ok(name) => {
                    folders.insert(format!("{above}{name}"), 0);
                }
                _ => is_text = false,
            }
        }
        TreeWalkResult::Ok
    });
    walked.ok().filter(|()| is_text)?;
    for (folder, changed) in &mut folders {
        *changed = settled(changed_at(&tree.join(folder)).ok()??, began);
    }
    let excludes = excludes(repository)?;
    Some(Scan { tree: tree.to_owned(), sha: sha.to_owned(), excludes, folders })
}

/// After a checkout of `sha` over what was scanned: the scan of now, or None where something may
/// be there that has to be removed.
pub fn scan_again(repository: &Repository, mut scan: Scan, sha: &str) -> Option<Scan> {
    let began = now();
    let top = scan.tree.clone();
    if excludes(repository)? != scan.excludes {
        return None;
    }
    let old = commit(repository, &scan.sha)?.tree().ok()?;
    let new = commit(repository, sha)?.tree().ok()?;
    let diff = repository.diff_tree_to_tree(Some(&old), Some(&new), None).ok()?;
    let mut touched = BTreeSet::new();
    for delta in diff.deltas() {
        for path in [delta.old_file().path(), delta.new_file().path()].into_iter().flatten() {
            // What was ignored need not be any more.
            if path.file_name().is_some_and(|name| name == ".gitignore") {
                return None;
            }
            for folder in path.ancestors().skip(1) {
                touched.insert(folder.to_str()?.to_owned());
            }
        }
    }
    for folder in touched {
        scan.folders.insert(folder, 0);
    }
    let mut gone = Vec::new();
    for (folder, known) in &mut scan.folders {
        let path = top.join(folder);
        let Some(changed) = changed_at(&path).ok()? else {
            gone.push(folder.clone());
            continue;
        };
        if changed == *known {
            continue;
        }
        let entries = match folder.is_empty() {
            true => new.clone(),
            // A folder that the commit has not: something ignored or untracked keeps it.
            false => {
                let entry = new.get_path(Path::new(folder)).ok()?;
                entry.to_object(repository).ok()?.into_tree().ok()?
            }
        };
        for entry in fs::read_dir(&path).ok()? {
            let entry = entry.ok()?;
            let name = entry.file_name();
            let name = name.to_str()?;
            if entries.get_name(name).is_some() || folder.is_empty() && name == ".git" {
                continue;
            }
            let slash = if entry.file_type().ok()?.is_dir() { "/" } else { "" };
            let inside = Path::new(folder).join(format!("{name}{slash}"));
            if !repository.is_path_ignored(inside).ok()? {
                return None;
            }
        }
        *known = settled(changed, began);
    }
    for folder in &gone {
        scan.folders.remove(folder);
    }
    scan.sha = sha.to_owned();
    Some(scan)
}

fn settled(changed: i64, began: i64) -> i64 {
    if changed > began.saturating_sub(BLINK) { 0 } else { changed }
}

/// None where it is gone; an error where it is no folder.
fn changed_at(folder: &Path) -> io::Result<Option<i64>> {
    match fs::symlink_metadata(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
        Ok(found) if !found.is_dir() => Err(io::ErrorKind::NotADirectory.into()),
        Ok(found) => Ok(Some(found.ctime() * 1_000_000_000 + found.ctime_nsec())),
    }
}

/// When the rules that stand in no commit were changed; 0 where there are none.
fn excludes(repository: &Repository) -> Option<i64> {
    match fs::symlink_metadata(repository.path().join("info/exclude")) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Some(0),
        Err(_) => None,
        Ok(found) => Some(found.ctime() * 1_000_000_000 + found.ctime_nsec()),
    }
}

//! What is in a work tree that no commit has. `git clean` looks at every folder for it; here only
//! those are looked at that changed since the last look, which their times of change tell: unlike
//! others, no program can set these.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use git2::{ObjectType, Oid, Repository, TreeWalkMode, TreeWalkResult};
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
    for folder in differing(repository, old.id(), new.id())? {
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

/// The folders in which two trees differ. None where rules of what is ignored do, since what was
/// ignored need not be any more, and where a name is no text or there twice. Folders that are the
/// same are not looked into; with 100,000 files libgit2's own comparison took tens of milliseconds.
fn differing(repository: &Repository, old: Oid, new: Oid) -> Option<Vec<String>> {
    let mut differing = Vec::new();
    let mut folders = vec![(String::new(), [Some(old), Some(new)])];
    while let Some((folder, sides)) = folders.pop() {
        let mut entries: BTreeMap<Vec<u8>, [Option<(Oid, i32)>; 2]> = BTreeMap::new();
        for (side, id) in sides.into_iter().enumerate() {
            let Some(id) = id else { continue };
            for entry in repository.find_tree(id).ok()?.iter() {
                let of_name = entries.entry(entry.name_bytes().to_owned()).or_default();
                if of_name[side].replace((entry.id(), entry.filemode_raw())).is_some() {
                    return None;
                }
            }
        }
        let slash = if folder.is_empty() { "" } else { "/" };
        for (name, found) in entries.into_iter().filter(|(_, [old, new])| old != new) {
            if found.iter().flatten().any(|(_, mode)| !is_folder(*mode)) && name == b".gitignore" {
                return None;
            }
            let inside = found.map(|side| side.filter(|(_, mode)| is_folder(*mode)));
            if inside.iter().any(Option::is_some) {
                let name = String::from_utf8(name).ok()?;
                folders.push((
                    format!("{folder}{slash}{name}"),
                    inside.map(|side| side.map(|(id, _)| id)),
                ));
            }
        }
        differing.push(folder);
    }
    Some(differing)
}

/// By its kind only: what else is set in the mode of a folder is nothing to git.
fn is_folder(mode: i32) -> bool {
    mode & 0o170_000 == 0o040_000
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn tree(repository: &Repository, files: &[(&str, &str)]) -> Oid {
        let mut index = git2::Index::new().unwrap();
        for (path, text) in files {
            let entry = git2::IndexEntry {
                ctime: git2::IndexTime::new(0, 0),
                mtime: git2::IndexTime::new(0, 0),
                dev: 0,
                ino: 0,
                mode: 0o100_644,
                uid: 0,
                gid: 0,
                file_size: 0,
                id: repository.blob(text.as_bytes()).unwrap(),
                flags: 0,
                flags_extended: 0,
                path: path.as_bytes().to_vec(),
            };
            index.add(&entry).unwrap();
        }
        index.write_tree_to(repository).unwrap()
    }

    #[test]
    fn folders_differ_with_those_above_and_not_with_those_beside() {
        let folder = tempfile::tempdir().unwrap();
        let repository = Repository::init_bare(folder.path()).unwrap();
        let old = [("a/b/one", "1"), ("a/c/two", "2"), ("d/e/three", "3"), ("f", "file")];
        let between = |new: &[(&str, &str)]| {
            let (old, new) = (tree(&repository, &old), tree(&repository, new));
            let mut found = differing(&repository, old, new)?;
            found.sort();
            Some(found.join(" "))
        };
        let with = |more: (&'static str, &'static str)| {
            let kept = old.into_iter().filter(|(path, _)| *path != more.0);
            kept.chain([more]).collect::<Vec<_>>()
        };
        assert_eq!(between(&with(("a/b/one", "other"))).unwrap(), " a a/b");
        assert_eq!(between(&with(("a/b/new", "1"))).unwrap(), " a a/b");
        assert_eq!(between(&with(("x/y/new", "1"))).unwrap(), " x x/y");
        // A whole folder is gone, and a file takes a folder's place or the other way round.
        assert_eq!(between(&[old[0], old[1], old[3]]).unwrap(), " d d/e");
        assert_eq!(between(&[old[0], old[1], ("d", "1"), old[3]]).unwrap(), " d d/e");
        assert_eq!(between(&[old[0], old[1], old[2], ("f/g", "1")]).unwrap(), " f");
        assert_eq!(between(&with(("a/c/.gitignore", "*"))), None);
    }
}

//! The index of a work tree tells git which files are unchanged, and the code of every pull request
//! that ran there could write it: flags (`skip-worktree`), or times and sizes that are no file's.
//! So only the index that our own checkout left is believed; any other is made anew, from which
//! git takes all files for changed.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What changes with every change of the file; no program can set its time of change. None where
/// there is no such file, or no ordinary one.
pub fn sign_of(index: &Path) -> Option<String> {
    let found = fs::symlink_metadata(index).ok().filter(fs::Metadata::is_file)?;
    Some(format!(
        "{}:{} {} {}.{:09}",
        found.dev(),
        found.ino(),
        found.size(),
        found.ctime(),
        found.ctime_nsec()
    ))
}

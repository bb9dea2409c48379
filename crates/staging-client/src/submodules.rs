//! The submodules of a commit, where `git_submodules = yes`. Their URLs are strangers' words.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::git::{Git, reason};
use crate::state_dir::trouble;
use crate::worktree::{Transport, WorkTree};

/// Submodules in submodules.
const DEEPEST: usize = 10;
const NOT_TAKEN: &str = "a submodule is not taken";

/// Brings every submodule to the commit that its parent names, and cleans it. Level by level, so
/// that each `.gitmodules` is looked at before git takes a URL of it.
pub fn update(git: &mut Git<'_, '_>, tree: &WorkTree) -> Result<()> {
    // Only by the network, but for a repository that itself comes from this machine: the path of
    // a file would let a commit read what the user of git may read.
    let file = match tree.transport() {
        Transport::File => "protocol.file.allow=always",
        _ => "protocol.file.allow=never",
    };
    let http = match tree.transport() {
        Transport::Http => "protocol.http.allow=always",
        _ => "protocol.http.allow=never",
    };
    let settings = [
        "-c",
        "protocol.allow=never",
        "-c",
        "protocol.https.allow=always",
        "-c",
        "protocol.ssh.allow=always",
        "-c",
        file,
        "-c",
        http,
    ];
    let is_shallow = tree.is_shallow()?;
    let mut folders = vec![(PathBuf::from("."), 0)];
    while let Some((folder, depth)) = folders.pop() {
        if !check(git, &tree.path, &folder)? {
            continue;
        }
        if depth == DEEPEST {
            let shown = folder.display();
            bail!("{NOT_TAKEN}: {shown} is in {DEEPEST} others, and has some of its own");
        }
        let at = |args: &[&'static str]| {
            let front = settings.into_iter().chain(["-C"]).map(OsStr::new).chain([folder.as_ref()]);
            let args = ["submodule", "--quiet"].iter().chain(args).copied().map(OsStr::new);
            front.chain(args).collect::<Vec<_>>()
        };
        let mut run = |args: &[&'static str], what: &str| -> Result<()> {
            let (ended, output) = git.run(&tree.path, &at(args))?;
            if !ended.success() {
                // It tries twice, and ends with less than it began with.
                let first = output.lines().find(|line| line.starts_with("fatal: "));
                bail!(reason(what, ended, first.unwrap_or(&output)));
            }
            Ok(())
        };
        run(&["sync"], "git submodule sync")?;
        // The index of each may tell lies about its files, as that of the work tree may.
        run(&["foreach", "git read-tree HEAD || git read-tree --empty"], "git read-tree")?;
        // Whatever way of updating is configured, a command among them.
        let update = ["update", "--init", "--force", "--checkout"];
        let depth_wanted: &[&str] = if is_shallow { &["--depth=1"] } else { &[] };
        run(&[&update, depth_wanted].concat(), "git submodule update")?;
        let each = "git clean -q -f -f -d >&2 && printf '%s\\0' \"$sm_path\"";
        let answer = git.ask(&tree.path, &at(&["foreach", each])).context(NOT_TAKEN)?;
        if !answer.ended.success() {
            bail!(reason("git submodule foreach", answer.ended, &answer.said));
        }
        let inside = answer.stdout.split(|byte| *byte == 0).filter(|path| !path.is_empty());
        folders.extend(inside.map(|path| (folder.join(OsStr::from_bytes(path)), depth + 1)));
    }
    Ok(())
}

/// Looks at the `.gitmodules` of a folder as git reads it. False where there is none.
fn check(git: &mut Git<'_, '_>, top: &Path, folder: &Path) -> Result<bool> {
    let file = top.join(folder).join(".gitmodules");
    let shown = folder.display();
    match fs::symlink_metadata(&file) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        // Whatever else is wrong, a checkout without what belongs to it is no checkout.
        Err(e) => return Err(trouble("look at", &file, e)).context(NOT_TAKEN),
        Ok(found) if found.is_file() => {}
        Ok(_) => bail!("{NOT_TAKEN}: {shown}/.gitmodules is no file"),
    }
    let list = ["config", "--file=.gitmodules", "--null", "--list"];
    let args =
        [OsStr::new("-C"), folder.as_os_str()].into_iter().chain(list.iter().map(OsStr::new));
    let answer = git.ask(top, &args.collect::<Vec<_>>()).context(NOT_TAKEN)?;
    if !answer.ended.success() {
        bail!(reason(&format!("{NOT_TAKEN}: git config"), answer.ended, &answer.said));
    }
    if let Some(setting) = refused(&answer.stdout) {
        let setting = pullre::words::plain(&setting);
        bail!("{NOT_TAKEN}: `{setting}` in .gitmodules of {shown}");
    }
    Ok(true)
}

/// A setting of .gitmodules that is no plain URL or path, of what `git config --null --list`
/// prints. Git refuses the known ones of these by itself since 2018; it may be older, and the next
/// one is not known.
fn refused(list: &[u8]) -> Option<String> {
    list.split(|byte| *byte == 0).find_map(|setting| {
        // Only for the look: no byte that is looked for gets lost or comes of others.
        let setting = String::from_utf8_lossy(setting);
        let (key, value) = setting.split_once('\n')?;
        let last = key.rsplit_once('.').map_or(key, |(_, last)| last);
        let bad = match last {
            "url" => {
                value.starts_with('-')
                    || value.contains("::")
                    || value.contains(|c: char| c.is_control() || c == '\\')
            }
            "path" => {
                value.starts_with(['-', '/'])
                    || value.contains(char::is_control)
                    || value
                        .split('/')
                        .any(|part| matches!(part, ".." | ".") || part.eq_ignore_ascii_case(".git"))
            }
            "update" => value.starts_with('!'),
            _ => false,
        };
        bad.then(|| format!("{last} = {value}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_plain_url_or_path_is_refused() {
        for good in [
            "submodule.a.path\nlib/a\0submodule.a.url\nhttps://github.com/acme/a.git\0",
            "submodule.a.url\n../a.git\0",
            "submodule.a.url\ngit@github.com:acme/a.git\0",
            "submodule.a.path\na.b\0",
            "submodule.a.update\nrebase\0",
            "submodule.a.shallow\0",
            "",
        ] {
            assert_eq!(refused(good.as_bytes()), None, "{good}");
        }
        for bad in [
            "submodule.a.url\n-u./payload\0",
            "submodule.a.b.url\n--upload-pack=touch x\0",
            "submodule.a.path\nlib\0submodule.a.url\next::sh -c touch% /tmp/x\0",
            "submodule.a.url\nhttps://host/a\\r\0",
            "submodule.a.url\nhttps://host/a\nb\0",
            "submodule.a.path\n../../outside\0",
            "submodule.a.path\na/../../b\0",
            "submodule.a.path\n/etc\0",
            "submodule.a.path\n.git/modules\0",
            "submodule.a.path\na/.GIT/hooks\0",
            "submodule.a.path\n-rf\0",
            "submodule.a.update\n!touch x\0",
        ] {
            assert!(refused(bad.as_bytes()).is_some(), "{bad}");
        }
    }
}

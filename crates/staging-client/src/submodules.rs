//! The submodules of a commit, where `git_submodules = yes`. Their URLs are strangers' words.

use std::fs;
use std::path::Path;

use anyhow::{Result, bail};

use crate::git::{Git, reason};
use crate::state_dir::KEPT_OUTPUT;
use crate::worktree::{Transport, WorkTree};

/// Submodules in submodules.
const DEEPEST: usize = 10;

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
    let mut folders = vec![(String::from("."), 0)];
    while let Some((folder, depth)) = folders.pop() {
        if !check(git, &tree.path, &folder)? {
            continue;
        }
        if depth == DEEPEST {
            bail!("a submodule is not taken: {folder} is in more than {DEEPEST} others");
        }
        let at = [&settings[..], &["-C", &folder, "submodule", "--quiet"]].concat();
        let mut run = |args: &[&str], what: &str| -> Result<()> {
            let (ended, output) = git.run(&tree.path, &[&at, args].concat())?;
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
        run(&["foreach", "git clean -q -f -f -d"], "git submodule foreach")?;
        let list = ["foreach", "printf '%s\\0' \"$sm_path\""];
        let (ended, output) = git.ask(&tree.path, &[&at, &list[..]].concat())?;
        if !ended.success() {
            bail!(reason("git submodule foreach", ended, &output));
        }
        whole(&output, &folder)?;
        let inside = output.split('\0').filter(|path| !path.is_empty());
        folders.extend(inside.map(|path| (format!("{folder}/{path}"), depth + 1)));
    }
    Ok(())
}

/// Looks at the `.gitmodules` of a folder as git reads it. False where there is none.
fn check(git: &mut Git<'_, '_>, top: &Path, folder: &str) -> Result<bool> {
    let file = top.join(folder).join(".gitmodules");
    match fs::symlink_metadata(&file) {
        Err(_) => return Ok(false),
        Ok(found) if found.is_file() => {}
        Ok(_) => bail!("a submodule is not taken: {folder}/.gitmodules is no file"),
    }
    let list = ["-C", folder, "config", "--file=.gitmodules", "--null", "--list"];
    let (ended, output) = git.ask(top, &list)?;
    if !ended.success() {
        bail!(reason("a submodule is not taken: git config", ended, &output));
    }
    whole(&output, folder)?;
    if let Some(setting) = refused(&output) {
        let shown = pullre::words::plain(&setting);
        bail!("a submodule is not taken: `{shown}` in .gitmodules of {folder}");
    }
    Ok(true)
}

/// Only the end of a long output is kept.
fn whole(output: &str, folder: &str) -> Result<()> {
    if output.len() > KEPT_OUTPUT / 2 {
        bail!("a submodule is not taken: there are too many in {folder}");
    }
    Ok(())
}

/// A setting of .gitmodules that is no plain URL or path, of what `git config --null --list`
/// prints. Git refuses the known ones of these by itself since 2018; it may be older, and the next
/// one is not known.
fn refused(list: &str) -> Option<String> {
    list.split('\0').find_map(|setting| {
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
            assert_eq!(refused(good), None, "{good}");
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
            assert!(refused(bad).is_some(), "{bad}");
        }
    }
}

//! The submodules of a commit, where `git_submodules = yes`. Their URLs are strangers' words.

use anyhow::{Result, bail};

use crate::git::{Git, reason};
use crate::worktree::{Transport, WorkTree};

/// Brings every submodule to the commit that its parent names, and cleans it.
pub fn update(git: &mut Git<'_, '_>, tree: &WorkTree, sha: &str) -> Result<()> {
    let Some(text) = tree.text_of(sha, ".gitmodules") else { return Ok(()) };
    if let Some(line) = refused(&text) {
        bail!("a submodule is not taken: `{}` in .gitmodules", pullre::words::plain(&line));
    }
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
    let run = |git: &mut Git<'_, '_>, args: &[&str], what: &str| -> Result<()> {
        let (ended, output) = git.run(&tree.path, &[&settings, args].concat())?;
        if !ended.success() {
            // It tries twice, and ends with less than it began with.
            let first = output.lines().find(|line| line.starts_with("fatal: "));
            bail!(reason(what, ended, first.unwrap_or(&output)));
        }
        Ok(())
    };
    run(git, &["submodule", "--quiet", "sync", "--recursive"], "git submodule sync")?;
    let mut args = vec!["submodule", "--quiet", "update", "--init", "--recursive", "--force"];
    // Whatever way of updating is configured, a command among them.
    args.push("--checkout");
    if tree.is_shallow() {
        args.push("--depth=1");
    }
    run(git, &args, "git submodule update")?;
    let clean = ["submodule", "--quiet", "foreach", "--recursive", "git clean -q -f -f -d"];
    run(git, &clean, "git submodule foreach")
}

/// A line of .gitmodules that is no plain URL or path. Git refuses the known ones of these by
/// itself since 2018; it may be older, and the next one is not known.
fn refused(text: &str) -> Option<String> {
    let unquoted = |value: &str| value.trim().trim_matches('"').to_owned();
    text.lines().map(str::trim).find_map(|line| {
        let (key, value) = line.split_once('=')?;
        let (key, value) = (key.trim().to_ascii_lowercase(), unquoted(value));
        let bad = match key.as_str() {
            "url" => {
                value.starts_with('-')
                    || value.contains("::")
                    || value.contains(|c: char| c.is_control() || c == '\\')
            }
            "path" => {
                value.starts_with(['-', '/'])
                    || value
                        .split('/')
                        .any(|part| matches!(part, ".." | ".") || part.eq_ignore_ascii_case(".git"))
            }
            "update" => value.starts_with('!'),
            _ => false,
        };
        bad.then(|| line.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_plain_url_or_path_is_refused() {
        for good in [
            "[submodule \"a\"]\n\tpath = lib/a\n\turl = https://github.com/acme/a.git",
            "url = ../a.git",
            "url = git@github.com:acme/a.git",
            "path = a.b",
            "update = rebase",
            "",
        ] {
            assert_eq!(refused(good), None, "{good}");
        }
        for bad in [
            "url = -u./payload",
            "url = \"--upload-pack=touch x\"",
            "URL=ext::sh -c touch% /tmp/x",
            "url = https://host/a\\r",
            "path = ../../outside",
            "path = a/../../b",
            "path = /etc",
            "path = .git/modules",
            "path = a/.GIT/hooks",
            "path = -rf",
            "update = !touch x",
        ] {
            assert!(refused(bad).is_some(), "{bad}");
        }
    }
}

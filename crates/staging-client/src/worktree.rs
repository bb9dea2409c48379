//! Whether `target_dir` is what we may reset and clean: the top level of a work tree of the
//! configured repository. Whatever else it is, nothing in it is touched.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, bail};
use git2::{ErrorCode, Oid, Repository};
use pullre::domain::Sha;
use pullre_http::probe::without_credentials;

use crate::state_dir::trouble;

/// Proof that the folder may be changed by git.
pub struct WorkTree {
    repository: Repository,
    pub path: PathBuf,
}

/// Looks at `target_dir`. None where there is nothing yet, or an empty folder.
pub fn inspect(target: &Path, owner: &str, repo: &str) -> Result<Option<WorkTree>> {
    let shown = target.display();
    match fs::read_dir(target) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) if e.kind() == io::ErrorKind::NotADirectory => {
            bail!("target_dir {shown} is no folder: correct it in app.ini")
        }
        Err(e) => return Err(trouble("read target_dir", target, e)),
        Ok(mut entries) => {
            if entries.next().is_none() {
                return Ok(None);
            }
        }
    }
    // `open` does not look into the folders above.
    let repository = Repository::open(target).map_err(|e| match e.code() {
        ErrorCode::NotFound => outside(target),
        ErrorCode::Owner => anyhow!(
            "target_dir {shown} belongs to another user than the one who runs staging-client: \
             change its owner, or run `git config --global --add safe.directory {shown}`"
        ),
        _ => anyhow!("target_dir {shown} cannot be opened as a git repository: {}", e.message()),
    })?;
    let path = target.canonicalize().map_err(|e| trouble("find target_dir", target, e))?;
    let Some(top) = repository.workdir() else {
        bail!(
            "target_dir {shown} is a bare git repository: set it to a work tree of {owner}/{repo}"
        );
    };
    let top = top.canonicalize().map_err(|e| trouble("find the work tree", top, e))?;
    if top != path {
        bail!(
            "target_dir {shown} is not the top level of its work tree, which is {}: nothing is \
             done there; set target_dir to a folder of its own",
            top.display()
        );
    }
    let origin = repository.find_remote("origin").map_err(|e| {
        anyhow!("target_dir {shown} has no usable remote `origin` ({}): add one", e.message())
    })?;
    let url = String::from_utf8_lossy(origin.url_bytes()).into_owned();
    check_remote(&url, owner, repo)
        .map_err(|e| anyhow!("target_dir {shown}: nothing is done there, its origin {e}"))?;
    drop(origin);
    Ok(Some(WorkTree { repository, path }))
}

fn outside(target: &Path) -> anyhow::Error {
    let shown = target.display();
    match surrounding(target) {
        Some(top) => anyhow!(
            "target_dir {shown} is a folder inside the work tree {}: nothing is done there; set \
             target_dir to a folder of its own",
            top.display()
        ),
        None => anyhow!(
            "target_dir {shown} is not empty and no git work tree: nothing is done there; clone \
             the repository to it, or set target_dir to another folder"
        ),
    }
}

/// The work tree that a folder, or the place for one, lies in.
pub fn surrounding(folder: &Path) -> Option<PathBuf> {
    let existing = folder.ancestors().find(|path| path.is_dir())?;
    let repository = Repository::discover(existing).ok()?;
    Some(repository.workdir().unwrap_or(repository.path()).to_owned())
}

/// A remote with a host must be the configured repository; a path on this machine may be any.
/// The error goes on after "origin" or "git_url".
pub fn check_remote(url: &str, owner: &str, repo: &str) -> Result<()> {
    let Some(path) = path_on_host(url)? else { return Ok(()) };
    let path = path.trim_end_matches('/');
    let path = path.strip_suffix(".git").unwrap_or(path);
    let mut parts = path.rsplit('/');
    let fits = parts.next().is_some_and(|part| part.eq_ignore_ascii_case(repo))
        && parts.next().is_some_and(|part| part.eq_ignore_ascii_case(owner));
    if !fits {
        bail!(
            "is {}, which is not the repository {owner}/{repo} of app.ini: correct `owner` and \
             `repo`, or the remote",
            without_credentials(url)
        );
    }
    Ok(())
}

/// What follows the host, as git reads it. None for a path on this machine.
fn path_on_host(url: &str) -> Result<Option<&str>> {
    if let Some((scheme, rest)) = url.split_once("://") {
        return match scheme.to_ascii_lowercase().as_str() {
            "file" => Ok(None),
            "https" | "http" | "ssh" | "git" | "git+ssh" | "ssh+git" => {
                Ok(Some(rest.split_once('/').map_or("", |(_, path)| path)))
            }
            _ => bail!("has the scheme {scheme}, which is not accepted: use https or ssh"),
        };
    }
    match url.split_once(':') {
        // A colon after a slash belongs to a file's name.
        Some((host, path)) if !host.contains('/') => {
            if path.starts_with(':') {
                bail!("names a transport helper, which is not accepted: use https or ssh");
            }
            Ok(Some(path))
        }
        _ => Ok(None),
    }
}

impl WorkTree {
    pub fn has(&self, sha: &Sha) -> bool {
        Oid::from_str(sha.as_str()).is_ok_and(|oid| self.repository.find_commit(oid).is_ok())
    }

    /// The commit that is checked out.
    pub fn head(&self) -> Option<String> {
        let commit = self.repository.head().ok()?.peel_to_commit().ok()?;
        Some(commit.id().to_string())
    }

    /// What a killed git leaves in the way of the next one.
    pub fn remove_stale_locks(&self) -> Result<Vec<String>> {
        let mut removed = Vec::new();
        for name in ["index.lock", "HEAD.lock", "shallow.lock"] {
            let path = self.repository.path().join(name);
            match fs::remove_file(&path) {
                Ok(()) => removed.push(format!("removed a stale {name}")),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(trouble("remove", &path, e)),
            }
        }
        Ok(removed)
    }
}

/// Whether a branch's name can be asked for by its whole name and nothing else.
pub fn branch_refspec(head_ref: &str) -> Option<String> {
    let name = format!("refs/heads/{head_ref}");
    git2::Reference::is_valid_name(&name).then_some(name)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_remote_with_a_host_must_be_the_repository() {
        for good in [
            "https://github.com/acme/shop",
            "https://github.com/Acme/Shop.git/",
            "https://user:pw@ghe.example.com:8443/git/acme/shop.git",
            "git@github.com:acme/shop.git",
            "github.com:acme/shop",
            "ssh://git@github.com:22/acme/shop.git",
            "/srv/git/anything.git",
            "../relative",
            "./with:colon",
            "file:///srv/git/anything.git",
        ] {
            check_remote(good, "acme", "shop").unwrap_or_else(|e| panic!("{good}: {e}"));
        }
        for bad in [
            "https://github.com/acme/shop2",
            "https://github.com/evilacme/shop",
            "https://github.com/shop",
            "https://acme/shop",
            "git@github.com:shop.git",
            "ssh://acme/shop",
            "git@github.com:acme/shop/../other",
            "ext::sh -c touch% /tmp/x acme/shop",
            "fd::17/acme/shop",
            "evil://host/acme/shop",
        ] {
            check_remote(bad, "acme", "shop").expect_err(bad);
        }
    }

    #[test]
    fn a_branch_is_only_ever_one_whole_name() {
        assert_eq!(branch_refspec("--upload-pack=x").unwrap(), "refs/heads/--upload-pack=x");
        assert_eq!(branch_refspec("$(touch x)"), None);
        for bad in ["a:refs/heads/main", "*", "a b", "../x", "a\nb", ""] {
            assert_eq!(branch_refspec(bad), None, "{bad}");
        }
    }
}

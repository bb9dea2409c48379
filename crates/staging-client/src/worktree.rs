//! Whether `target_dir` is what we may reset and clean: the top level of a work tree of the
//! configured repository. Whatever else it is, nothing in it is touched.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, bail};
use git2::{Commit, ErrorCode, Oid, Repository};
use pullre::domain::Sha;
use pullre_http::probe::without_credentials;

use crate::apart::{Apart, Look};
use crate::state_dir::trouble;
use crate::tidy::{self, Scan};
use crate::user::AppUser;

const LOCKS: [&str; 5] =
    ["index.lock", "HEAD.lock", "shallow.lock", "config.lock", "packed-refs.lock"];

/// Proof that the folder may be changed by git.
#[derive(Debug)]
pub struct WorkTree {
    repository: Apart,
    pub path: PathBuf,
    pub index: PathBuf,
    transport: Transport,
}

/// Looks at `target_dir`. None where there is nothing yet, or an empty folder. It must belong to
/// the user who looks, where that is not the one who runs this program.
pub fn inspect(target: &Path, owner: &str, repo: &str, look: &Look) -> Result<Option<WorkTree>> {
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
    let (place, user) = (target.to_owned(), look.user.clone());
    let repository = look.open(target, move || match &user {
        None => open(&place),
        Some(user) => open_of(&place, user),
    })?;
    let path = target.canonicalize().map_err(|e| trouble("find target_dir", target, e))?;
    let facts = repository.ask(|repository| {
        let origin = repository.find_remote("origin").map_err(|e| e.message().to_owned());
        let url = origin.map(|origin| String::from_utf8_lossy(origin.url_bytes()).into_owned());
        (repository.workdir().map(Path::to_owned), repository.path().join("index"), url)
    })?;
    let (Some(top), index, url) = facts else {
        bail!(
            "target_dir {shown} is a bare git repository: set it to a work tree of {owner}/{repo}"
        );
    };
    let top = top.canonicalize().map_err(|e| trouble("find the work tree", &top, e))?;
    if top != path {
        bail!(
            "target_dir {shown} is not the top level of its work tree, which is {}: nothing is \
             done there; set target_dir to a folder of its own",
            top.display()
        );
    }
    let url = url.map_err(|why| {
        anyhow!("target_dir {shown} has no usable remote `origin` ({why}): add one")
    })?;
    check_remote(&url, owner, repo)
        .map_err(|e| anyhow!("target_dir {shown}: nothing is done there, its origin {e}"))?;
    let transport = Transport::of(&url);
    Ok(Some(WorkTree { repository, path, index, transport }))
}

fn open(target: &Path) -> Result<Repository> {
    let shown = target.display();
    // It does not look into the folders above.
    Repository::open(target).map_err(|e| match e.code() {
        ErrorCode::NotFound => outside(target),
        ErrorCode::Owner => anyhow!(
            "target_dir {shown} belongs to another user than the one who runs staging-client: \
             change its owner, or run `git config --global --add safe.directory {shown}`"
        ),
        _ => anyhow!("target_dir {shown} cannot be opened as a git repository: {}", e.message()),
    })
}

/// The work tree of `exec_user`, whose commands may have changed whatever is in it: only an
/// ordinary one is looked at, and all that is done to it is done with that user's rights.
fn open_of(target: &Path, user: &AppUser) -> Result<Repository> {
    let shown = target.display();
    let inner = target.join(".git");
    for folder in [target, &inner] {
        let found = match fs::symlink_metadata(folder) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(outside(target)),
            found => found.map_err(|e| trouble("look at", folder, e))?,
        };
        if !found.is_dir() {
            bail!("target_dir: {} is no folder: nothing is done there", folder.display());
        }
        if found.uid() != user.uid() {
            let name = user.name();
            bail!(
                "target_dir: {} does not belong to exec_user {name}: `chown -R {name}: {shown}`",
                folder.display()
            );
        }
    }
    for name in ["HEAD", "config"] {
        let file = inner.join(name);
        let found = fs::symlink_metadata(&file).map_err(|e| trouble("look at", &file, e))?;
        if !found.is_file() {
            bail!("target_dir: {} is no file: nothing is done there", file.display());
        }
    }
    let strange = |e: git2::Error| {
        anyhow!("target_dir {shown} cannot be opened as a git repository: {}", e.message())
    };
    let repository = Repository::open_bare(&inner).map_err(strange)?;
    let config = repository.config().and_then(|mut config| config.snapshot()).map_err(strange)?;
    if config.get_bytes("core.worktree").is_ok() {
        bail!(
            "target_dir {shown} is not the top level of its work tree (core.worktree): nothing is \
             done there; set target_dir to a folder of its own"
        );
    }
    repository.set_workdir(target, false).map_err(strange)?;
    Ok(repository)
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
    // Not opened: it may be another user's.
    let found = Repository::discover_path(existing, [] as [&Path; 0]).ok()?;
    let is_inside = found.file_name().is_some_and(|name| name == ".git");
    Some(found.parent().filter(|_| is_inside).unwrap_or(&found).to_owned())
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

/// Whether git takes it for a path on this machine.
pub fn is_path(url: &str) -> bool {
    !url.contains("://") && path_on_host(url).is_ok_and(|path| path.is_none())
}

/// How a repository comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// From this machine.
    File,
    /// Not encrypted.
    Http,
    Https,
    /// By ssh, or in a way that only git knows.
    Ssh,
}

impl Transport {
    fn of(url: &str) -> Transport {
        match url {
            url if is_path(url) || url.starts_with("file://") => Transport::File,
            url if url.starts_with("http://") => Transport::Http,
            url if url.starts_with("https://") => Transport::Https,
            _ => Transport::Ssh,
        }
    }
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
    /// Everything about the repository: any of it may lead to what strangers have put there.
    fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Repository) -> T + Send + 'static,
    ) -> Result<T> {
        self.repository.ask(question)
    }

    pub fn scan(&self, sha: &str, began: i64) -> Result<Option<Scan>> {
        let (top, sha) = (self.path.clone(), sha.to_owned());
        self.repository.ask_long(move |repository| tidy::scan(repository, &top, &sha, began))
    }

    pub fn scan_again(&self, scan: Scan, sha: &str) -> Result<Option<Scan>> {
        let sha = sha.to_owned();
        self.repository.ask_long(move |repository| tidy::scan_again(repository, scan, &sha))
    }

    pub fn has(&self, sha: &Sha) -> Result<bool> {
        let sha = sha.as_str().to_owned();
        self.ask(move |repository| commit(repository, &sha).is_some())
    }

    /// The commit that is checked out; None where nothing ever was.
    pub fn head(&self) -> Result<Option<String>> {
        self.ask(|repository| {
            let commit = repository.head().ok()?.peel_to_commit().ok()?;
            Some(commit.id().to_string())
        })
    }

    pub fn is_shallow(&self) -> Result<bool> {
        self.ask(Repository::is_shallow)
    }

    pub fn uses_lfs(&self, sha: &str) -> Result<bool> {
        let sha = sha.to_owned();
        let text = self.ask(move |repository| text_of(repository, &sha, ".gitattributes"))?;
        Ok(text.is_some_and(|text| text.contains("filter=lfs")))
    }

    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// What a killed git leaves in the way of the next one, in its submodules too. With the rights
    /// of the user whose they are: a link that takes a folder's place meanwhile leads to nothing
    /// that the code there could not remove by itself.
    pub fn remove_stale_locks(&self) -> Result<Vec<String>> {
        self.ask(|repository| remove_locks(repository.path()))?
    }
}

pub fn commit<'r>(repository: &'r Repository, sha: &str) -> Option<Commit<'r>> {
    repository.find_commit(Oid::from_str(sha).ok()?).ok()
}

/// A file at the top of a commit.
fn text_of(repository: &Repository, sha: &str, name: &str) -> Option<String> {
    let tree = commit(repository, sha)?.tree().ok()?;
    let blob = repository.find_blob(tree.get_name(name)?.id()).ok()?;
    Some(String::from_utf8_lossy(blob.content()).into_owned())
}

fn remove_locks(inner: &Path) -> Result<Vec<String>> {
    const DEEPEST: usize = 8;
    let mut removed = Vec::new();
    let mut folders = vec![(inner.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        for name in LOCKS {
            let path = folder.join(name);
            match fs::remove_file(&path) {
                Ok(()) => removed.push(format!("removed a stale {}", path.display())),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(trouble("remove", &path, e)),
            }
        }
        let modules = if depth == 0 { folder.join("modules") } else { folder };
        // A link would lead elsewhere.
        if !fs::symlink_metadata(&modules).is_ok_and(|found| found.is_dir()) {
            continue;
        }
        // Most have none. A module's name may be a path.
        for entry in fs::read_dir(modules).into_iter().flatten().flatten() {
            let is_git = entry.file_name() == "objects" || entry.file_name() == "refs";
            if depth < DEEPEST && !is_git && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push((entry.path(), depth + 1));
            }
        }
    }
    Ok(removed)
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

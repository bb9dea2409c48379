//! The steps `fetch` and `checkout`: the git program for the network and the work tree.

use std::fs;
use std::os::unix::fs::{MetadataExt, lchown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use pullre::store::Task;

use crate::command::{Ended, Report};
use crate::git::{self, Git, reason};
use crate::index;
use crate::processes::Processes;
use crate::pulse::Pulse;
use crate::site::{Site, Work};
use crate::state_dir::trouble;
use crate::submodules;
use crate::tidy;
use crate::worktree::{self, Transport, WorkTree};

/// What was fetched last. git tells the remote what it has by names only: without one, each fetch
/// would bring the whole history again.
const LAST: &str = "refs/pullre/last";

/// Brings the exact commit here, and nothing else about: not in the branches for a fork's.
pub fn fetch(site: &Site<'_>, task: &Task, pulse: &mut Pulse<'_>) -> Report {
    match Git::new(site, Some(Work::from(task)), "fetch", pulse) {
        Ok(mut git) => {
            let result = fetch_commit(&mut git, task);
            git.done(result)
        }
        Err(e) => Report::failed(format!("{e:#}")),
    }
}

fn fetch_commit(git: &mut Git<'_, '_>, task: &Task) -> Result<()> {
    let tree = work_tree(git)?;
    let sha = &task.deployment.sha;
    if tree.has(sha)? {
        git.say(&format!("{sha} is here already"));
        return Ok(());
    }
    clear_locks(git, &tree)?;
    if tree.transport() == Transport::Ssh {
        git.find_ssh(&tree.path)?;
    }
    // What is shallow stays so, and what is whole stays whole.
    let wanted = git.site.config.git.depth;
    let depth = match (tree.is_shallow()?, tree.head()?.is_none()) {
        (true, _) => Some(wanted.unwrap_or(1)),
        (false, true) => wanted,
        (false, false) => None,
    };
    let depth = depth.map(|depth| format!("--depth={depth}"));
    let pull = format!("refs/pull/{}/head", task.deployment.pull.0);
    let branch = worktree::branch_refspec(&task.head_ref);
    // A server may refuse to give a commit by its id; the two others are where it should be.
    let mut why = None;
    for refspec in
        [Some(sha.as_str()), Some(pull.as_str()), branch.as_deref()].into_iter().flatten()
    {
        let mut args = vec!["fetch", "--no-tags", "--no-recurse-submodules"];
        args.extend(depth.as_deref());
        let refspec = format!("+{refspec}:{LAST}");
        args.extend(["--", "origin", &refspec]);
        let (ended, output) = git.run(&tree.path, &args)?;
        if ended.success() && tree.has(sha)? {
            return Ok(());
        }
        if let Ended::TimedOut(_) = ended {
            bail!(
                "{}; check the line to origin, or raise `step_timeout`",
                reason("git fetch", ended, &output)
            );
        }
        if !ended.success() {
            why.get_or_insert(reason("git fetch", ended, &output));
        }
    }
    let who = git.site.user()?.map_or("the user who runs staging-client", |user| user.name());
    let remedy = format!("try `git -C {} fetch origin {sha}` as {who}", tree.path.display());
    match why {
        Some(why) => bail!("commit {} cannot be fetched: {why}; {remedy}", sha.short()),
        None => bail!(
            "origin has commit {} neither by its id nor in {pull} nor in its branch: it may have \
             been pushed over; {remedy}",
            sha.short()
        ),
    }
}

/// The checked work tree; made first where there is none and `git_url` says from where.
fn work_tree(git: &mut Git<'_, '_>) -> Result<WorkTree> {
    let target = git.site.target()?;
    let config = git.site.config;
    let (owner, repo) = (&config.owner, &config.repo);
    let look = git.site.eyes()?;
    if let Some(tree) = worktree::inspect(&target, owner, repo, &look)? {
        return Ok(tree);
    }
    let shown = target.display();
    let Some(url) = &config.git_url else {
        bail!(
            "target_dir {shown} is missing or empty: clone {owner}/{repo} to it, or set `git_url` \
             so that staging-client does"
        );
    };
    worktree::check_remote(url, owner, repo).map_err(|e| anyhow!("git_url {e}"))?;
    let place = target.clone();
    if let Some(top) = look.at(&target, move || worktree::surrounding(&place))? {
        bail!(
            "target_dir {shown} lies inside the work tree {}: nothing is cloned there; set \
             target_dir to a folder of its own",
            top.display()
        );
    }
    make(git, url, &target)?;
    worktree::inspect(&target, owner, repo, &look)?
        .ok_or_else(|| anyhow!("target_dir {shown} is still empty after git init"))
}

/// An empty repository with its origin: what is needed of it is fetched as ever. Beside and
/// renamed: a kill leaves none in `target_dir`, only one beside it that the next try replaces.
fn make(git: &mut Git<'_, '_>, url: &str, target: &Path) -> Result<()> {
    let (Some(folder), Some(name)) = (target.parent(), target.file_name()) else {
        bail!("target_dir {} has no folder around it: correct it in app.ini", target.display());
    };
    make_folder(git, folder)?;
    let beside = folder.join(format!(".{}.pullre-clone", name.to_string_lossy()));
    let text = |path: &Path| -> Result<String> {
        let text = path.to_str().ok_or_else(|| anyhow!("target_dir is not UTF-8: rename it"))?;
        Ok(text.to_owned())
    };
    let (to, at) = (text(&beside)?, text(target)?);
    // As git does with the path of a clone.
    let url = match worktree::is_path(url) {
        true => text(
            &folder
                .join(url)
                .canonicalize()
                .map_err(|e| trouble("find git_url", Path::new(url), e))?,
        )?,
        false => url.to_owned(),
    };
    // By programs, so that they are those of the user whose folder it is.
    git.must_program(folder, &["rm", "-rf", "--", &to], "rm")?;
    git.must(folder, &["init", "--quiet", "--template=", "--", &to], "git init")?;
    git.must(&beside, &["remote", "add", "--", "origin", &url], "git remote add")?;
    git.must_program(folder, &["mv", "-T", "--", &to, &at], "mv")
}

/// The first missing folder is made by us, and is the user's, who makes the rest: nothing is
/// made or given away by root in a folder that others can change meanwhile.
fn make_folder(git: &mut Git<'_, '_>, folder: &Path) -> Result<()> {
    let Some(user) = git.site.user()? else {
        return fs::create_dir_all(folder).map_err(|e| trouble("make the folder", folder, e));
    };
    let there = |path: &&Path| path.is_dir();
    let Some(base) = folder.ancestors().find(there).map(Path::to_owned) else { return Ok(()) };
    let missing = folder.strip_prefix(&base).ok().and_then(|rest| rest.iter().next());
    let owner = fs::metadata(&base).map_err(|e| trouble("look at", &base, e))?.uid();
    if let Some(first) = missing
        && owner != user.uid()
    {
        let first = base.join(first);
        fs::create_dir(&first)
            .and_then(|()| lchown(&first, Some(user.uid()), Some(user.gid())))
            .map_err(|e| trouble("make the folder", &first, e))?;
    }
    let text = folder.to_string_lossy().into_owned();
    git.must_program(Path::new("/"), &["mkdir", "-p", "--", &text], "mkdir")
}

/// What a killed client left was ended before; anybody else's git is left alone.
fn clear_locks(git: &mut Git<'_, '_>, tree: &WorkTree) -> Result<()> {
    let processes = Processes::read().map_err(|e| trouble("read", Path::new("/proc"), e))?;
    if let Some(other) = processes.git_in(&tree.path) {
        bail!("{other} works in target_dir {}: let it end", tree.path.display());
    }
    for line in tree.remove_stale_locks()? {
        git.say(&line);
    }
    Ok(())
}

/// Makes the work tree exactly the commit. Ignored files stay, as they did with pullre-kun.
pub fn checkout(site: &Site<'_>, task: &Task, pulse: &mut Pulse<'_>) -> Report {
    match Git::new(site, Some(Work::from(task)), "checkout", pulse) {
        Ok(mut git) => {
            let result = checkout_commit(&mut git, task);
            git.done(result)
        }
        Err(e) => Report::failed(format!("{e:#}")),
    }
}

fn checkout_commit(git: &mut Git<'_, '_>, task: &Task) -> Result<()> {
    let sha = task.deployment.sha.as_str();
    // Looked at again: what was right before a fetch of minutes need not be now.
    let tree = work_tree(git)?;
    clear_locks(git, &tree)?;
    let folder = tree.path.clone();
    let (with_submodules, server) = (git.site.config.git.submodules, git.site.duty.server);
    // Submodules may come by it, and files of LFS do where origin does.
    if with_submodules || tree.transport() == Transport::Ssh {
        git.find_ssh(&folder)?;
    }
    let head = tree.head()?;
    let known = git.site.state.scan(server).filter(|scan| {
        // Nothing where somebody else checked out another commit.
        head.as_deref() == Some(scan.sha.as_str()) && scan.tree == folder
    });
    if index::sign_of(&tree.index) != git.site.state.index(server) {
        // From the commit that is there, so that its files go where the next one has them not;
        // where that cannot be read from nothing, and then ignored ones of it stay.
        let (ended, _) = match head {
            Some(_) => git.run(&folder, &["read-tree", "HEAD"])?,
            None => git.run(&folder, &["read-tree", "--empty"])?,
        };
        if !ended.success() {
            git.must(&folder, &["read-tree", "--empty"], "git read-tree")?;
        }
    }
    let args = ["checkout", "--quiet", "--force", "--detach", sha, "--"];
    despite_modes(git, &folder, &args, "git checkout")?;
    // A kill before this makes the index anew once more.
    git.site.state.keep_index(server, index::sign_of(&tree.index).as_deref())?;
    // A scan of the whole tree takes as long as the checkout itself: only where it is needed.
    let scanned = match known {
        Some(scan) => tree.scan_again(scan, sha)?,
        None => None,
    };
    let scan = match scanned {
        Some(scan) => {
            git.say("nothing untracked is in the folders that changed");
            Some(scan)
        }
        None => {
            let began = tidy::now();
            // Two -f: also what is left of a submodule that the commit has no more.
            let more: &[&str] = if with_submodules { &["-f"] } else { &[] };
            despite_modes(git, &folder, &[&["clean", "-f", "-d"], more].concat(), "git clean")?;
            tree.scan(sha, began)?
        }
    };
    // Without it the next checkout scans again.
    git.site.state.keep_scan(server, scan.as_ref())?;
    if !git::has_lfs() && tree.uses_lfs(sha)? {
        git.say(
            "note: the commit keeps files in LFS and git-lfs is not installed: they are only \
             pointers here",
        );
    }
    if with_submodules {
        submodules::update(git, &tree)?;
    }
    match tree.head()? {
        Some(head) if head == sha => Ok(()),
        head => bail!(
            "after the checkout {} has {} checked out: somebody else works there",
            folder.display(),
            head.as_deref().unwrap_or("nothing")
        ),
    }
}

/// Folders that an app has made read-only keep git from its work: once, they are made writable.
fn despite_modes(git: &mut Git<'_, '_>, folder: &Path, args: &[&str], what: &str) -> Result<()> {
    let (ended, output) = git.run(folder, args)?;
    if ended.success() {
        return Ok(());
    }
    if !output.contains("Permission denied") {
        bail!(reason(what, ended, &output));
    }
    git.program(
        folder,
        &[
            "find", ".", "-path", "./.git", "-prune", "-o", "-type", "d", "!", "-perm", "-700",
            "-exec", "chmod", "u+rwx", "{}", ";",
        ],
    )?;
    git.must(folder, args, what)
}

/// Whether the work tree has the task's commit checked out.
pub fn is_checked_out(site: &Site<'_>, task: &Task) -> Result<bool> {
    let Some(tree) = inspect(site)? else { return Ok(false) };
    Ok(tree.head()?.as_deref() == Some(task.deployment.sha.as_str()))
}

pub fn inspect(site: &Site<'_>) -> Result<Option<WorkTree>> {
    worktree::inspect(&site.target()?, &site.config.owner, &site.config.repo, &site.eyes()?)
}

/// Collects what no commit needs any more, if there is much of it. Given up for a newer wish.
pub fn collect(site: &Site<'_>, deployment: i64, pulse: &mut Pulse<'_>) -> Result<()> {
    const PATIENCE: Duration = Duration::from_secs(1800);
    let Some(tree) = inspect(site)? else { return Ok(()) };
    let mut git = Git::new(site, None, "collect", pulse)?.within(PATIENCE);
    clear_locks(&mut git, &tree)?;
    git.watched = Some(deployment);
    let args = ["-c", "gc.auto=6700", "gc", "--auto", "--quiet", "--no-detach"];
    match git.run(&tree.path, &args)? {
        (Ended::Unwanted, _) => Ok(()),
        (ended, _) if ended.success() => Ok(()),
        (ended, output) => bail!(reason("git gc", ended, &output)),
    }
}

/// Whether the remote answers, without a question to anybody.
pub fn ask_remote(site: &Site<'_>, pulse: &mut Pulse<'_>) -> Result<String> {
    const PATIENCE: Duration = Duration::from_secs(60);
    let (folder, remote): (PathBuf, String) = match (inspect(site)?, &site.config.git_url) {
        (Some(tree), _) => (tree.path, "origin".into()),
        (None, Some(url)) => (PathBuf::from("/"), url.clone()),
        (None, None) => bail!("there is no work tree and no git_url"),
    };
    let mut git = Git::beside(site, "doctor", pulse)?.within(PATIENCE);
    git.find_ssh(&folder)?;
    match git.run(&folder, &["ls-remote", "--quiet", "--", &remote, "HEAD"])? {
        (ended, _) if ended.success() => Ok(remote),
        (ended, output) => bail!(reason("git ls-remote", ended, &output)),
    }
}

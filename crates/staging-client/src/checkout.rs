//! The steps `fetch` and `checkout`: the git program for the network and the work tree.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Result, anyhow, bail};
use pullre::store::Task;

use crate::command::{self, Ended, Report};
use crate::processes::Processes;
use crate::pulse::Pulse;
use crate::site::{Site, Work};
use crate::state_dir::{Log, trouble};
use crate::worktree::{self, WorkTree};

/// No code of the repository runs, nothing asks for a password, nothing hangs on a dead line.
const SAFE: [&str; 9] = [
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "protocol.ext.allow=never",
    "submodule.recurse=false",
    "fetch.recurseSubmodules=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "http.lowSpeedLimit=1000",
    "http.lowSpeedTime=60",
];

/// One step's git programs, in one log, within one time.
struct Git<'a, 'p> {
    site: &'a Site<'a>,
    work: Work<'a>,
    step: &'a str,
    log: Log,
    began: Instant,
    pulse: &'a mut Pulse<'p>,
    report: Report,
}

impl<'a, 'p> Git<'a, 'p> {
    fn new(
        site: &'a Site<'a>,
        task: &'a Task,
        step: &'a str,
        pulse: &'a mut Pulse<'p>,
    ) -> Result<Git<'a, 'p>> {
        let log = site.state.step_log(site.duty.server)?;
        let work = Work::from(task);
        Ok(Git { site, work, step, log, began: Instant::now(), pulse, report: Report::default() })
    }

    fn run(&mut self, folder: &Path, args: &[&str]) -> Result<(Ended, String)> {
        let mut command = Command::new("git");
        for setting in SAFE {
            command.args(["-c", setting]);
        }
        command.args(args).current_dir(folder);
        self.site.tell(&mut command, Some(self.work), Some(self.step));
        command.env("GIT_TERMINAL_PROMPT", "0").env("GIT_ASKPASS", "false").env("LC_ALL", "C");
        if !ssh_is_configured() {
            command.env("GIT_SSH_COMMAND", "ssh -oBatchMode=yes -oConnectTimeout=20");
        }
        let timeout = self.site.config.step_timeout.saturating_sub(self.began.elapsed());
        let mark = self.site.mark();
        let limits = self.site.limits(&self.log, timeout, &mark, self.work.deployment);
        let (ended, output) = command::run(command, &limits, self.pulse)?;
        let ended = match ended {
            Ended::TimedOut(_) => Ended::TimedOut(self.site.config.step_timeout),
            ended => ended,
        };
        self.say(&format!("$ git {}\n{output}", args.join(" ")));
        self.report.exit_status = ended.exit_status();
        Ok((ended, output))
    }

    fn say(&mut self, text: &str) {
        self.report.output.push_str(&crate::state_dir::masked(text.as_bytes(), self.site.secrets));
        if !self.report.output.ends_with('\n') {
            self.report.output.push('\n');
        }
    }

    fn must(&mut self, folder: &Path, args: &[&str], what: &str) -> Result<()> {
        match self.run(folder, args)? {
            (ended, _) if ended.success() => Ok(()),
            (ended, output) => bail!(command::reason(what, ended, &output)),
        }
    }

    fn done(mut self, result: Result<()>) -> Report {
        self.report.failure = result.err().map(|e| format!("{e:#}"));
        self.report
    }
}

/// The operator has said how ssh is to be called: nothing of that is replaced.
fn ssh_is_configured() -> bool {
    ["GIT_SSH", "GIT_SSH_COMMAND"].iter().any(|name| std::env::var_os(name).is_some())
        || git2::Config::open_default().is_ok_and(|c| c.get_entry("core.sshCommand").is_ok())
}

/// Brings the exact commit here, and nothing else about: not in the branches for a fork's.
pub fn fetch(site: &Site<'_>, task: &Task, pulse: &mut Pulse<'_>) -> Report {
    match Git::new(site, task, "fetch", pulse) {
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
    if tree.has(sha) {
        git.say(&format!("{sha} is here already"));
        return Ok(());
    }
    clear_locks(git, &tree)?;
    let pull = format!("+refs/pull/{}/head", task.deployment.pull.0);
    let branch = worktree::branch_refspec(&task.head_ref);
    // A server may refuse to give a commit by its id; the two others are where it should be.
    let mut why = None;
    for refspec in
        [Some(sha.as_str()), Some(pull.as_str()), branch.as_deref()].into_iter().flatten()
    {
        let args = ["fetch", "--no-tags", "--no-recurse-submodules", "--", "origin", refspec];
        let (ended, output) = git.run(&tree.path, &args)?;
        if ended.success() && tree.has(sha) {
            return Ok(());
        }
        if let Ended::TimedOut(_) = ended {
            bail!(
                "{}; check the line to origin, or raise `step_timeout`",
                command::reason("git fetch", ended, &output)
            );
        }
        if !ended.success() {
            why.get_or_insert(command::reason("git fetch", ended, &output));
        }
    }
    let remedy = format!(
        "try `git -C {} fetch origin {sha}` as the user who runs staging-client",
        tree.path.display()
    );
    match why {
        Some(why) => bail!("commit {} cannot be fetched: {why}; {remedy}", sha.short()),
        None => bail!(
            "origin has commit {} neither by its id nor in {pull} nor in its branch: it may have \
             been pushed over; {remedy}",
            sha.short()
        ),
    }
}

/// The checked work tree; cloned first where there is none and `git_url` says from where.
fn work_tree(git: &mut Git<'_, '_>) -> Result<WorkTree> {
    let target = git.site.target()?;
    let config = git.site.config;
    let (owner, repo) = (&config.owner, &config.repo);
    if let Some(tree) = worktree::inspect(&target, owner, repo)? {
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
    if let Some(top) = worktree::surrounding(&target) {
        bail!(
            "target_dir {shown} lies inside the work tree {}: nothing is cloned there; set \
             target_dir to a folder of its own",
            top.display()
        );
    }
    clone(git, url, &target)?;
    worktree::inspect(&target, owner, repo)?
        .ok_or_else(|| anyhow!("target_dir {shown} is still empty after git clone"))
}

/// Beside and renamed: a kill leaves no half repository in `target_dir`, only one beside it that
/// the next try replaces.
fn clone(git: &mut Git<'_, '_>, url: &str, target: &Path) -> Result<()> {
    let (Some(folder), Some(name)) = (target.parent(), target.file_name()) else {
        bail!("target_dir {} has no folder around it: correct it in app.ini", target.display());
    };
    fs::create_dir_all(folder).map_err(|e| trouble("make the folder", folder, e))?;
    let beside = folder.join(format!(".{}.pullre-clone", name.to_string_lossy()));
    match fs::remove_dir_all(&beside) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(trouble("remove", &beside, e)),
        _ => {}
    }
    let to = beside.to_str().ok_or_else(|| anyhow!("target_dir is not UTF-8: rename it"))?;
    let args = ["clone", "--no-checkout", "--origin", "origin", "--", url, to];
    git.must(folder, &args, "git clone")?;
    fs::rename(&beside, target).map_err(|e| trouble("put the clone to", target, e))
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
    match Git::new(site, task, "checkout", pulse) {
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
    git.must(&folder, &["checkout", "--quiet", "--force", "--detach", sha, "--"], "git checkout")?;
    git.must(&folder, &["clean", "-f", "-d"], "git clean")?;
    match tree.head() {
        Some(head) if head == sha => Ok(()),
        head => bail!(
            "after the checkout {} has {} checked out: somebody else works there",
            folder.display(),
            head.as_deref().unwrap_or("nothing")
        ),
    }
}

/// Whether the work tree has the task's commit checked out.
pub fn is_checked_out(site: &Site<'_>, task: &Task) -> Result<bool> {
    let target = site.target()?;
    let tree = worktree::inspect(&target, &site.config.owner, &site.config.repo)?;
    Ok(tree.and_then(|tree| tree.head()).as_deref() == Some(task.deployment.sha.as_str()))
}

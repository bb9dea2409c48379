//! The git program, as it is called for a work tree that strangers' commits are brought to.

use std::env;
use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::command::{self, Answer, Ended, Limits, Report};
use crate::groups::Group;
use crate::processes::Mark;
use crate::pulse::Pulse;
use crate::site::{Site, Work};
use crate::state_dir::Log;

/// No code of the repository runs, nothing asks for a password, nothing hangs on a dead line.
const SAFE: [&str; 16] = [
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "safe.bareRepository=explicit",
    // A file that was changed is seen to be, and no part of the tree is left out.
    "core.sparseCheckout=false",
    "core.splitIndex=false",
    "core.untrackedCache=false",
    "core.ignoreStat=false",
    "core.trustCtime=true",
    "core.checkStat=default",
    "protocol.ext.allow=never",
    "submodule.recurse=false",
    "fetch.recurseSubmodules=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "http.lowSpeedLimit=1000",
    "http.lowSpeedTime=60",
];

/// The filter of LFS, whether or not somebody has set it up for this user.
const LFS: [&str; 4] = [
    "filter.lfs.process=git-lfs filter-process",
    "filter.lfs.smudge=git-lfs smudge -- %f",
    "filter.lfs.clean=git-lfs clean -- %f",
    "filter.lfs.required=true",
];
/// Without its program a checkout would fail where somebody has set it up.
const NO_LFS: [&str; 4] =
    ["filter.lfs.process=", "filter.lfs.smudge=", "filter.lfs.clean=", "filter.lfs.required=false"];

/// Whether a program of this name would be found.
pub fn is_installed(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

pub fn has_lfs() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| is_installed("git-lfs"))
}

/// One step's git programs, in one log, within one time.
pub struct Git<'a, 'p> {
    pub site: &'a Site<'a>,
    work: Option<Work<'a>>,
    step: &'a str,
    /// What its programs are marked with, and found by.
    deployment: i64,
    log: Log,
    began: Instant,
    timeout: Duration,
    pulse: &'a mut Pulse<'p>,
    /// How ssh is called, where nobody else has said it.
    ssh: Option<&'static str>,
    pub report: Report,
    /// Ends a program whose deployment nobody waits for any more.
    pub watched: Option<i64>,
}

impl<'a, 'p> Git<'a, 'p> {
    pub fn new(
        site: &'a Site<'a>,
        work: Option<Work<'a>>,
        step: &'a str,
        pulse: &'a mut Pulse<'p>,
    ) -> Result<Git<'a, 'p>> {
        let log = site.state.step_log(site.duty.server)?;
        Ok(Git::with(site, work, step, work.map_or(0, |work| work.deployment), log, pulse))
    }

    /// Beside whatever is at work on the server: neither its log nor its processes are touched.
    pub fn beside(site: &'a Site<'a>, name: &'a str, pulse: &'a mut Pulse<'p>) -> Result<Self> {
        let own = -i64::from(std::process::id());
        let log = site.state.nameless_log(site.duty.server)?;
        Ok(Git::with(site, None, name, own, log, pulse))
    }

    fn with(
        site: &'a Site<'a>,
        work: Option<Work<'a>>,
        step: &'a str,
        deployment: i64,
        log: Log,
        pulse: &'a mut Pulse<'p>,
    ) -> Git<'a, 'p> {
        let (began, timeout) = (Instant::now(), site.config.step_timeout);
        let (report, ssh, watched) = (Report::default(), None, None);
        Git { site, work, step, deployment, log, began, timeout, pulse, ssh, report, watched }
    }

    /// The same for what shall not take long.
    pub fn within(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    pub fn run(&mut self, folder: &Path, args: &[impl AsRef<OsStr>]) -> Result<(Ended, String)> {
        let words = words_of_git(args);
        let (ended, output) = self.call(folder, &words, command::run)?;
        self.say(&format!("$ git {}\n{output}", shown(args)));
        Ok((self.note(ended), output))
    }

    /// For an answer that is for us and not for people.
    pub fn ask(&mut self, folder: &Path, args: &[impl AsRef<OsStr>]) -> Result<Answer> {
        // A file and not a pipe, as for every output.
        let stdout = self.site.state.nameless_log(self.site.duty.server)?;
        let words = words_of_git(args);
        let mut answer = self.call(folder, &words, |command, limits, pulse| {
            command::ask(command, &stdout, limits, pulse)
        })?;
        answer.ended = self.note(answer.ended);
        if !answer.said.is_empty() {
            self.say(&format!("$ git {}\n{}", shown(args), answer.said));
        }
        Ok(answer)
    }

    /// Any other program that the step needs.
    pub fn program(&mut self, folder: &Path, words: &[&str]) -> Result<(Ended, String)> {
        let (ended, output) = self.call(folder, words, command::run)?;
        self.say(&format!("$ {}\n{output}", words.join(" ")));
        Ok((self.note(ended), output))
    }

    /// Its end as the step's: a program has only what the ones before it left of the time.
    fn note(&mut self, ended: Ended) -> Ended {
        self.report.exit_status = ended.exit_status();
        match ended {
            Ended::TimedOut(_) => Ended::TimedOut(self.timeout),
            ended => ended,
        }
    }

    /// Once, before a program may call ssh: it shall not hang or ask, but where somebody has said how
    /// it is called nothing of that is replaced. Git itself is asked, as the user whom it will run
    /// as and where it will run: the setting may be the repository's own.
    pub fn find_ssh(&mut self, folder: &Path) -> Result<()> {
        if ["GIT_SSH", "GIT_SSH_COMMAND"].iter().any(|name| env::var_os(name).is_some()) {
            return Ok(());
        }
        let answer = self.ask(folder, &["config", "--get", "core.sshCommand"])?;
        match answer.ended.exit_status() {
            Some(0) => Ok(()),
            Some(1) => {
                self.report.exit_status = None;
                self.ssh = Some("ssh -oBatchMode=yes -oConnectTimeout=20");
                Ok(())
            }
            _ => bail!(reason("git config", answer.ended, &answer.said)),
        }
    }

    fn call<T>(
        &mut self,
        folder: &Path,
        args: &[impl AsRef<OsStr>],
        run: impl FnOnce(Command, &Limits<'_>, &mut Pulse<'_>) -> Result<T>,
    ) -> Result<T> {
        if let Some(program) = args.first().and_then(|program| program.as_ref().to_str())
            && !is_installed(program)
        {
            bail!("the program `{program}` is not installed: install it");
        }
        let mark = Mark { deployment: self.deployment, step: true };
        let (words, group) = self.site.enclosed(mark)?;
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).args(args).current_dir(folder);
        self.site.tell(&mut command, self.work, self.deployment, Some(self.step));
        command
            .env("LC_ALL", "C")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ASKPASS", "false")
            .env("SSH_ASKPASS", "false")
            .env("GCM_INTERACTIVE", "never")
            // Nothing that an earlier commit's code left stands for the commit that is asked for.
            .env("GIT_NO_REPLACE_OBJECTS", "1");
        if !has_lfs() {
            command.env("GIT_LFS_SKIP_SMUDGE", "1");
        }
        if let Some(ssh) = self.ssh {
            command.env("GIT_SSH_COMMAND", ssh);
        }
        let timeout = self.timeout.saturating_sub(self.began.elapsed());
        let sign = self.site.sign();
        let mut limits = self.site.limits(&self.log, timeout, &sign, self.deployment);
        limits.watched = self.watched;
        let ran = run(command, &limits, self.pulse);
        // What a filter left in the background stays in it, and is ended by the next deployment.
        group.inspect(Group::remove_if_empty);
        ran
    }

    pub fn say(&mut self, text: &str) {
        self.report.output.push_str(&self.site.masked(text.as_bytes()));
        if !self.report.output.ends_with('\n') {
            self.report.output.push('\n');
        }
    }

    pub fn must(&mut self, folder: &Path, args: &[impl AsRef<OsStr>], what: &str) -> Result<()> {
        match self.run(folder, args)? {
            (ended, _) if ended.success() => Ok(()),
            (ended, output) => bail!(reason(what, ended, &output)),
        }
    }

    pub fn must_program(&mut self, folder: &Path, words: &[&str], what: &str) -> Result<()> {
        match self.program(folder, words)? {
            (ended, _) if ended.success() => Ok(()),
            (ended, output) => bail!(command::reason(what, ended, &output)),
        }
    }

    pub fn done(mut self, result: Result<()>) -> Report {
        self.report.failure = result.err().map(|e| format!("{e:#}"));
        self.report
    }
}

/// git with what holds for each call of it.
fn words_of_git(args: &[impl AsRef<OsStr>]) -> Vec<&OsStr> {
    let lfs = if has_lfs() { LFS } else { NO_LFS };
    let settings = SAFE.into_iter().chain(lfs).flat_map(|setting| ["-c", setting]);
    let front = ["git"].into_iter().chain(settings).map(OsStr::new);
    front.chain(args.iter().map(AsRef::as_ref)).collect()
}

fn shown(args: &[impl AsRef<OsStr>]) -> String {
    let words: Vec<_> = args.iter().map(|word| word.as_ref().to_string_lossy()).collect();
    words.join(" ")
}

/// Why git failed; where it wanted a password, what gives it one.
pub fn reason(what: &str, ended: Ended, output: &str) -> String {
    let reason = command::reason(what, ended, output);
    let asked = ["could not read Username", "could not read Password", "Authentication failed"];
    let refused = ["Permission denied (publickey", "Host key verification failed"];
    if asked.iter().any(|words| output.contains(words)) {
        return format!(
            "{reason} (the remote asks for a password: give the user who runs git a credential \
             helper or a deploy key; nothing is ever asked here)"
        );
    }
    if refused.iter().any(|words| output.contains(words)) {
        return format!(
            "{reason} (ssh was refused: the user who runs git needs a key that the remote knows, \
             and its host key in ~/.ssh/known_hosts)"
        );
    }
    reason
}

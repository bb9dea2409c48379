//! Runs one command of a step to its end, with what it may know of us and within its time.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use crate::processes::{self, ProcessId, Processes, Sign};
use crate::pulse::Pulse;
use crate::state_dir::{Log, masked, trouble};

/// What would make a git program work on another repository than the one of its folder.
const GIT_PLACES: [&str; 16] = [
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_CEILING_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_CONFIG",
    "GIT_CONFIG_COUNT",
    "GIT_CONFIG_PARAMETERS",
    "GIT_DIR",
    "GIT_GRAFT_FILE",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_NAMESPACE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_REPLACE_REF_BASE",
    "GIT_SHALLOW_FILE",
    "GIT_WORK_TREE",
];

/// Takes out of a command's environment what is not for strangers' code: our settings, AWS
/// credentials, and any variable that holds one of our secrets.
pub fn without_secrets(command: &mut Command, secrets: &[&str]) {
    for (name, value) in std::env::vars_os() {
        let ours = name.as_bytes().starts_with(b"PULLRE_") || name.as_bytes().starts_with(b"AWS_");
        let place = GIT_PLACES.iter().any(|place| name == *place);
        if ours || place || secrets.iter().any(|secret| holds(&value, secret)) {
            command.env_remove(name);
        }
    }
}

/// The secret alone, or as the password of a URL. A looser look would take `PATH` away from
/// whoever has a password like `local`.
fn holds(value: &OsStr, secret: &str) -> bool {
    let in_url = format!(":{secret}@");
    value == secret || value.as_bytes().windows(in_url.len()).any(|part| part == in_url.as_bytes())
}

/// What came of one step. `failure` is a reason that a person can act upon.
#[derive(Debug, Default)]
pub struct Report {
    pub exit_status: Option<i32>,
    pub output: String,
    pub failure: Option<String>,
    /// Another deployment is wanted by now.
    pub superseded: bool,
}

impl Report {
    pub fn failed(reason: impl Into<String>) -> Report {
        Report { failure: Some(reason.into()), ..Report::default() }
    }
}

/// How a command ended.
#[derive(Debug, Clone, Copy)]
pub enum Ended {
    Exited(ExitStatus),
    TimedOut(Duration),
    /// Something newer was wanted before it ended, and it was killed.
    Unwanted,
}

impl Ended {
    pub fn success(self) -> bool {
        matches!(self, Ended::Exited(status) if status.success())
    }

    /// As a shell gives it: 128 and the number for a signal.
    pub fn exit_status(self) -> Option<i32> {
        match self {
            Ended::Exited(status) => status.code().or(status.signal().map(|s| 128 + s)),
            Ended::TimedOut(_) | Ended::Unwanted => None,
        }
    }
}

/// `what` ended, with the last line that it printed.
pub fn reason(what: &str, ended: Ended, output: &str) -> String {
    let how = match ended {
        Ended::TimedOut(after) => format!("timed out after {} s and was killed", after.as_secs()),
        Ended::Unwanted => "was killed for something newer".to_owned(),
        Ended::Exited(status) => match (status.code(), status.signal()) {
            (Some(code), _) => format!("exited with status {code}"),
            (None, Some(signal)) => format!("was ended by signal {signal}"),
            (None, None) => "ended".to_owned(),
        },
    };
    match last_line(output) {
        Some(line) => format!("{what} {how}: {line}"),
        None => format!("{what} {how} and printed nothing"),
    }
}

/// The last line that says anything, fit for one line of a log.
pub fn last_line(output: &str) -> Option<String> {
    let line = output.lines().rev().map(str::trim).find(|line| !line.is_empty())?;
    let mut chars = line.chars();
    let mut short: String = chars.by_ref().take(300).collect();
    if chars.next().is_some() {
        short.push('…');
    }
    Some(pullre::words::plain(&short))
}

/// How a command is run.
#[derive(Debug)]
pub struct Limits<'a> {
    pub log: &'a Log,
    pub timeout: Duration,
    /// What is masked in its output.
    pub secrets: Vec<&'a str>,
    /// How what it leaves behind is found.
    pub sign: &'a Sign,
    pub deployment: i64,
    /// Killed once this deployment is not wanted any more.
    pub watched: Option<i64>,
}

/// Runs a command that leads a session of its own (`Site::enclosed`). When it fails or its time is up, all that the
/// deployment's steps started is killed; after a success what stays in the background goes on.
pub fn run(
    command: Command,
    limits: &Limits<'_>,
    pulse: &mut Pulse<'_>,
) -> Result<(Ended, String)> {
    let from = limits.log.len()?;
    let ended = to_its_end(command, limits.log, limits, from, pulse)?;
    Ok((ended, masked(&limits.log.end(from)?, &limits.secrets)))
}

/// What a program answered to us.
#[derive(Debug)]
pub struct Answer {
    pub ended: Ended,
    /// As it is: neither masked nor mixed with what the program says to people.
    pub stdout: Vec<u8>,
    /// The rest, fit to be kept.
    pub said: String,
}

/// The same for what is read by us and not by people; `stdout` is empty and nobody else's.
pub fn ask(
    command: Command,
    stdout: &Log,
    limits: &Limits<'_>,
    pulse: &mut Pulse<'_>,
) -> Result<Answer> {
    let from = limits.log.len()?;
    let ended = to_its_end(command, stdout, limits, from, pulse)?;
    let said = masked(&limits.log.end(from)?, &limits.secrets);
    Ok(Answer { ended, stdout: stdout.all()?, said })
}

fn to_its_end(
    mut command: Command,
    stdout: &Log,
    limits: &Limits<'_>,
    from: u64,
    pulse: &mut Pulse<'_>,
) -> Result<Ended> {
    let program = command.get_program().to_string_lossy().into_owned();
    let folder = command.get_current_dir().map(ToOwned::to_owned);
    command.stdin(Stdio::null()).stdout(stdout.writer()?).stderr(limits.log.writer()?);
    let mut child = command.spawn().map_err(|e| match (e.kind(), &folder) {
        // The same error stands for a missing program and a missing folder.
        (_, Some(folder)) if !folder.is_dir() => trouble("enter", folder, e),
        (std::io::ErrorKind::NotFound, _) => {
            anyhow::anyhow!("the program `{program}` is not installed: install it")
        }
        _ => anyhow::anyhow!("`{program}` cannot be started: {e}"),
    })?;
    wait(&mut child, limits, from, pulse)
}

/// What was printed since `from`, in whole lines: half of a secret would not be masked.
fn printed(limits: &Limits<'_>, from: u64) -> String {
    let mut bytes = limits.log.end(from).unwrap_or_default();
    bytes.truncate(bytes.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1));
    masked(&bytes, &limits.secrets)
}

fn wait(child: &mut Child, limits: &Limits<'_>, from: u64, pulse: &mut Pulse<'_>) -> Result<Ended> {
    /// How often the limits are looked at.
    const PAUSE: Duration = Duration::from_millis(20);
    let began = Instant::now();
    // A child that was not waited for keeps its number.
    let leader = ProcessId::of(child.id());
    let ended = told_of_end(child);
    loop {
        let end = |leader| {
            let all = |all: &Processes| all.step(leader, limits.sign, limits.deployment);
            let kill = || {
                limits.sign.groups.kill(|mark| mark.step && mark.deployment == limits.deployment);
            };
            processes::end(all, kill, Duration::ZERO, || ())
        };
        if let Some(status) = child.try_wait().context("waiting for a command")? {
            if !status.success() {
                end(None)?;
            }
            return Ok(Ended::Exited(status));
        }
        if began.elapsed() >= limits.timeout {
            end(leader)?;
            child.wait().context("waiting for a command that was killed")?;
            return Ok(Ended::TimedOut(limits.timeout));
        }
        if let Some(watched) = limits.watched
            && pulse.superseded(watched).unwrap_or(false)
        {
            end(leader)?;
            child.wait().context("waiting for a command that was killed")?;
            return Ok(Ended::Unwanted);
        }
        if let Err(e) = limits.log.bound() {
            end(leader)?;
            return Err(e);
        }
        pulse.beat();
        pulse.show(|| printed(limits, from));
        // Where nobody can tell any more it is looked at as often.
        if ended.recv_timeout(PAUSE) == Err(RecvTimeoutError::Disconnected) {
            thread::sleep(PAUSE);
        }
    }
}

/// Hears of the child's end in the moment that it comes: most of git's work takes less than a
/// second, and each pause counts there. The child is left to be waited for. Where no thread can be
/// made nobody tells (`Disconnected`): the child is there already, and must not be left alone.
fn told_of_end(child: &Child) -> Receiver<()> {
    let (tell, ended) = mpsc::channel();
    let Ok(pid) = i32::try_from(child.id()).map(Pid::from_raw) else { return ended };
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
    let wait = move || {
        while let Err(Errno::EINTR) = waitid(Id::Pid(pid), flags) {}
        // Nobody may listen any more.
        let _ = tell.send(());
    };
    if let Err(e) = thread::Builder::new().name("wait".into()).spawn(wait) {
        tracing::debug!("no thread can be made ({e}): the command is looked at in pauses");
    }
    ended
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_end_is_told_when_it_comes_and_the_child_is_left_to_be_waited_for() {
        let mut child = Command::new("sh")
            .args(["-c", "read x; exit 3"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let ended = told_of_end(&child);
        assert_eq!(ended.try_recv(), Err(mpsc::TryRecvError::Empty));
        drop(child.stdin.take());
        assert_eq!(ended.recv_timeout(Duration::from_secs(60)), Ok(()));
        assert_eq!(child.wait().unwrap().code(), Some(3));
    }

    #[test]
    fn where_no_thread_can_be_made_nobody_tells_and_nothing_fails() {
        const NAME: &str =
            "command::tests::where_no_thread_can_be_made_nobody_tells_and_nothing_fails";
        const SIZE: &str = "RUST_MIN_STACK";
        // Larger than any machine's memory can be.
        let size = (1_u64 << 50).to_string();
        if std::env::var(SIZE).is_ok_and(|found| found == size) {
            let mut child = Command::new("true").spawn().unwrap();
            assert_eq!(told_of_end(&child).recv(), Err(mpsc::RecvError));
            assert!(child.wait().unwrap().success());
            return;
        }
        // With one thread a test has that of the program.
        let mut again = Command::new(std::env::current_exe().unwrap());
        again.args(["--exact", NAME, "--test-threads=1"]).env(SIZE, &size);
        let out = again.output().unwrap();
        let said = String::from_utf8_lossy(&out.stdout);
        assert!(out.status.success() && said.contains("1 passed"), "{out:?}");
    }

    #[test]
    fn a_secret_is_seen_alone_and_in_a_url_but_not_in_any_word() {
        assert!(holds(OsStr::new("hunter2"), "hunter2"));
        assert!(holds(OsStr::new("mysql://root:hunter2@db/x"), "hunter2"));
        assert!(!holds(OsStr::new("/usr/local/bin"), "local"));
    }

    #[test]
    fn a_reason_has_the_last_line_without_escapes() {
        let ended = Ended::Exited(ExitStatus::from_raw(3 << 8));
        assert_eq!(
            reason("migrate_command", ended, "one\n\u{1b}[31mtwo \n\n"),
            "migrate_command exited with status 3: two"
        );
    }
}

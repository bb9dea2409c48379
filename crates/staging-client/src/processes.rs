//! Finding and ending what runs on this machine, read from `/proc`.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::groups::Groups;

/// In the environment of everything that a deployment starts: `STATE_DIR:SERVER:DEPLOYMENT`. The
/// state folder is in it since two installations on one machine may both have a server 1.
pub const MARK: &str = "PULLRE_DEPLOYMENT";
/// The name of the step; absent in the app itself.
pub const STEP: &str = "PULLRE_STEP";

/// How long a killed process may take to vanish.
const KILL_PATIENCE: Duration = Duration::from_secs(5);

/// One process for all time: a number that is used again has another start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProcessId {
    pub pid: i32,
    /// Clock ticks between the machine's boot and the start of the process.
    pub start: u64,
}

impl ProcessId {
    /// None where there is no such process (any more).
    pub fn of(pid: u32) -> Option<ProcessId> {
        let pid = i32::try_from(pid).ok()?;
        read_stat(pid).map(|process| process.id)
    }

    pub fn is_alive(self) -> bool {
        read_stat(self.pid).is_some_and(|found| found.id == self && !found.zombie)
    }
}

#[derive(Debug, Clone)]
pub struct Process {
    pub id: ProcessId,
    parent: i32,
    session: i32,
    zombie: bool,
    name: String,
}

impl std::fmt::Display for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "process {} ({})", self.id.pid, pullre::words::plain(&self.name))
    }
}

/// What a process was started for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    pub deployment: i64,
    /// By one of its steps; else it is the app.
    pub step: bool,
}

/// How all that was started for one server is recognized.
#[derive(Debug, Clone, Default)]
pub struct Sign {
    /// What marks in the environment begin with: `STATE_DIR:SERVER:`
    pub mark: String,
    pub groups: Groups,
}

/// How everything that an app consists of is recognized.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    pub sign: Sign,
    /// The shell that was started. While it lives, all in its session are the app's.
    pub leader: Option<ProcessId>,
    /// Seen as the app's while that could still be told.
    pub seen: Vec<ProcessId>,
    /// `exec_command_grep`
    pub pattern: Option<String>,
}

/// All processes of one moment.
#[derive(Debug)]
pub struct Processes {
    all: Vec<Process>,
    /// This process and those that it descends from: never to be ended by it.
    ours: HashSet<i32>,
}

impl Processes {
    pub fn read() -> io::Result<Processes> {
        let mut all = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let pid = entry?.file_name().to_str().and_then(|name| name.parse().ok());
            // One that ended since the folder was read is none.
            all.extend(pid.and_then(read_stat));
        }
        let mut ours = HashSet::new();
        let mut at = i32::try_from(std::process::id()).unwrap_or_default();
        while at > 0 && ours.insert(at) {
            at = all.iter().find(|p| p.id.pid == at).map_or(0, |p| p.parent);
        }
        Ok(Processes { all, ours })
    }

    /// The app, without what its deployment's steps left behind.
    pub fn app(&self, trace: &Trace) -> Vec<Process> {
        self.family(trace, |mark| !mark.step)
    }

    /// Everything that was started for the server, but for the steps of deployment `except`.
    pub fn everything(&self, trace: &Trace, except: Option<i64>) -> Vec<Process> {
        self.family(trace, |mark| !mark.step || Some(mark.deployment) != except)
    }

    /// What steps left behind, but for those of deployment `except`.
    pub fn steps(&self, sign: &Sign, except: Option<i64>) -> Vec<Process> {
        let trace = Trace { sign: sign.clone(), ..Trace::default() };
        self.family(&trace, |mark| mark.step && Some(mark.deployment) != except)
    }

    /// One command of a step, which leads a session and was not waited for yet, all in the session,
    /// and all that the deployment's steps started.
    pub fn step(&self, leader: Option<ProcessId>, sign: &Sign, deployment: i64) -> Vec<Process> {
        let grouped = sign.groups.members();
        self.with_descendants(&grouped, |p| {
            leader.is_some_and(|leader| p.id == leader || p.session == leader.pid)
                || mark_of(p, &grouped, &environ(p), &sign.mark)
                    .is_some_and(|mark| mark.step && mark.deployment == deployment)
        })
    }

    fn family(&self, trace: &Trace, fits: impl Fn(&Mark) -> bool) -> Vec<Process> {
        let leader = trace.leader.filter(|id| self.all.iter().any(|p| p.id == *id));
        let grouped = trace.sign.groups.members();
        self.with_descendants(&grouped, |p| {
            if trace.seen.contains(&p.id) || leader.is_some_and(|l| l.pid == p.session) {
                return true;
            }
            let environ = environ(p);
            match mark_of(p, &grouped, &environ, &trace.sign.mark) {
                Some(mark) => fits(&mark),
                None => {
                    trace.pattern.as_deref().is_some_and(|pattern| matches(p, pattern, &environ))
                }
            }
        })
    }

    /// `grouped` may know of processes that were started since all were read.
    fn with_descendants(
        &self,
        grouped: &HashMap<i32, Mark>,
        belongs: impl Fn(&Process) -> bool,
    ) -> Vec<Process> {
        let is_new = |pid: &&i32| !self.all.iter().any(|p| p.id.pid == **pid);
        let newer: Vec<Process> =
            grouped.keys().filter(is_new).filter_map(|pid| read_stat(*pid)).collect();
        let all = || self.all.iter().chain(&newer);
        let ours = |p: &Process| self.ours.contains(&p.id.pid);
        let mut pids: HashSet<i32> =
            all().filter(|p| !ours(p) && belongs(p)).map(|p| p.id.pid).collect();
        loop {
            let children = all().filter(|p| pids.contains(&p.parent) && !ours(p));
            let more: Vec<i32> =
                children.map(|p| p.id.pid).filter(|pid| !pids.contains(pid)).collect();
            if more.is_empty() {
                break;
            }
            pids.extend(more);
        }
        all().filter(|p| pids.contains(&p.id.pid) && !p.zombie).cloned().collect()
    }

    /// A git program that works in the folder, whoever started it.
    pub fn git_in(&self, folder: &Path) -> Option<&Process> {
        self.all.iter().find(|p| {
            p.name == "git"
                && !p.zombie
                && fs::read_link(format!("/proc/{}/cwd", p.id.pid))
                    .is_ok_and(|cwd| cwd.starts_with(folder))
        })
    }

    /// Who listens on a TCP port of this machine, in words; None where nobody does.
    pub fn listener(&self, port: u16) -> Option<String> {
        let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
        let sockets: Vec<String> = tables
            .iter()
            .filter_map(|table| fs::read_to_string(table).ok())
            .flat_map(|table| {
                table.lines().filter_map(|line| listening(line, port)).collect::<Vec<_>>()
            })
            .collect();
        if sockets.is_empty() {
            return None;
        }
        let found = self.all.iter().find(|p| {
            let Ok(files) = fs::read_dir(format!("/proc/{}/fd", p.id.pid)) else { return false };
            files.flatten().any(|file| {
                fs::read_link(file.path())
                    .is_ok_and(|to| to.to_str().is_some_and(|to| sockets.iter().any(|s| s == to)))
            })
        });
        Some(found.map_or("a process of another user".into(), Process::to_string))
    }
}

/// Only readable for processes of the same user; of others we could end none either.
fn environ(process: &Process) -> Vec<u8> {
    fs::read(format!("/proc/{}/environ", process.id.pid)).unwrap_or_default()
}

/// `socket:[INODE]` of a line of `/proc/net/tcp` that listens on the port.
fn listening(line: &str, port: u16) -> Option<String> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
    let found = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
    (found == port && *state == "0A").then(|| format!("socket:[{inode}]"))
}

/// None where it is gone.
fn read_stat(pid: i32) -> Option<Process> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let stat = String::from_utf8_lossy(&stat);
    // The name is in brackets and may hold brackets and blanks itself.
    let (front, rest) = stat.rsplit_once(')')?;
    let name = front.split_once('(')?.1.to_owned();
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |at: usize| fields.get(at).and_then(|text| text.parse().ok());
    Some(Process {
        id: ProcessId { pid, start: fields.get(19)?.parse().ok()? },
        parent: number(1)?,
        session: number(3)?,
        zombie: matches!(fields.first(), Some(&("Z" | "X"))),
        name,
    })
}

fn variables<'a>(environ: &'a [u8], name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    environ
        .split(|byte| *byte == 0)
        .filter_map(move |v| v.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

fn read_mark(environ: &[u8], ours: &str) -> Option<Mark> {
    let value = variables(environ, MARK).find_map(|value| value.strip_prefix(ours.as_bytes()))?;
    let deployment = std::str::from_utf8(value).ok()?.parse().ok()?;
    Some(Mark { deployment, step: variables(environ, STEP).next().is_some() })
}

/// The group is what no process can change by itself.
fn mark_of(
    process: &Process,
    grouped: &HashMap<i32, Mark>,
    environ: &[u8],
    ours: &str,
) -> Option<Mark> {
    grouped.get(&process.id.pid).copied().or_else(|| read_mark(environ, ours))
}

/// Whether `exec_command_grep` means this process: never a client, nor another server's app.
fn matches(process: &Process, pattern: &str, environ: &[u8]) -> bool {
    if process.name == "staging-client" || variables(environ, MARK).next().is_some() {
        return false;
    }
    let line = fs::read(format!("/proc/{}/cmdline", process.id.pid)).unwrap_or_default();
    let words: Vec<_> = line.split(|b| *b == 0).map(String::from_utf8_lossy).collect();
    words.join(" ").contains(pattern)
}

/// Ends all that `find` finds, until it finds nothing: asks first, kills after `grace`, first by
/// `kill_groups`. Says what was done; an error names what does not go.
pub fn end(
    find: impl Fn(&Processes) -> Vec<Process>,
    kill_groups: impl Fn(),
    grace: Duration,
    mut meanwhile: impl FnMut(),
) -> anyhow::Result<Vec<String>> {
    let began = Instant::now();
    let mut said = Vec::new();
    let mut asked = HashSet::new();
    let mut killed = HashSet::new();
    let mut pause = Duration::from_millis(5);
    loop {
        let living = find(&Processes::read()?);
        if living.is_empty() {
            return Ok(said);
        }
        let kills = began.elapsed() >= grace;
        if began.elapsed() >= grace + KILL_PATIENCE {
            let names: Vec<String> = living.iter().map(Process::to_string).collect();
            anyhow::bail!("does not end, even by SIGKILL: {}", names.join(", "));
        }
        if kills {
            kill_groups();
        }
        for process in &living {
            let (list, signal) = match kills {
                true => (&mut killed, Signal::SIGKILL),
                false => (&mut asked, Signal::SIGTERM),
            };
            if !list.insert(process.id) {
                continue;
            }
            if !process.id.is_alive() {
                // Its group's end has reached it.
                said.extend(kills.then(|| format!("{signal} to {process}")));
                continue;
            }
            match kill(Pid::from_raw(process.id.pid), signal) {
                Ok(()) => said.push(format!("{signal} to {process}")),
                Err(Errno::ESRCH) => {}
                Err(Errno::EPERM) => anyhow::bail!(
                    "{process} belongs to another user and cannot be ended: set `stop_command` to \
                     what stops it"
                ),
                Err(e) => anyhow::bail!("{process} cannot be sent {signal}: {e}"),
            }
        }
        meanwhile();
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

/// Names the time since the machine was started; None where the kernel does not tell.
pub fn boot_id() -> Option<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_mark_of_another_server_or_installation_is_not_ours() {
        let environ = b"A=1\0PULLRE_DEPLOYMENT=/srv/a:12:7\0B=2\0";
        assert_eq!(read_mark(environ, "/srv/a:12:"), Some(Mark { deployment: 7, step: false }));
        assert_eq!(read_mark(environ, "/srv/a:1:"), None);
        assert_eq!(read_mark(environ, "/srv/b:12:"), None);
        assert_eq!(read_mark(b"XPULLRE_DEPLOYMENT=/srv/a:12:7\0", "/srv/a:12:"), None);
    }

    #[test]
    fn this_process_is_never_among_those_to_be_ended() {
        let me = ProcessId::of(std::process::id()).unwrap();
        let trace = Trace { seen: vec![me], pattern: Some(String::new()), ..Trace::default() };
        let processes = Processes::read().unwrap();
        assert!(me.is_alive());
        assert!(processes.everything(&trace, None).iter().all(|p| p.id != me));
    }

    #[test]
    fn a_child_in_a_session_of_its_own_and_without_a_mark_belongs_to_its_parent() {
        let mut shell = std::process::Command::new("setsid")
            .args(["sh", "-c", "env -i setsid sleep 1000 & wait"])
            .spawn()
            .unwrap();
        let leader = ProcessId::of(shell.id()).unwrap();
        let began = Instant::now();
        let child = loop {
            let all = Processes::read().unwrap().all;
            let apart = |p: &&Process| p.parent == leader.pid && p.session == p.id.pid;
            if let Some(child) = all.iter().find(apart) {
                break child.id;
            }
            assert!(began.elapsed() < Duration::from_secs(60));
            std::thread::sleep(Duration::from_millis(5));
        };
        let sign = Sign { mark: "nobody's".into(), ..Sign::default() };
        let trace = Trace { sign, leader: Some(leader), ..Trace::default() };
        let said = end(|all| all.app(&trace), || (), Duration::from_secs(60), || ()).unwrap();
        shell.wait().unwrap();
        assert!(!child.is_alive(), "{said:?}");
    }
}

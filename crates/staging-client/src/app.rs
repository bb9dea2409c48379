//! The app of one server: starting it, telling whether it lives, stopping all of it.

use std::io;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use jiff::Timestamp;
use pullre::domain::{PullNumber, ServerId, Sha};
use pullre::store::{Duty, Task};
use pullre_http::probe::without_credentials;
use serde::{Deserialize, Serialize};

use crate::command::{self, Report};
use crate::groups::Group;
use crate::processes::{self, ProcessId, Processes, boot_id};
use crate::pulse::Pulse;
use crate::site::{Site, Work, explicit_port};
use crate::state_dir::{Log, trouble};

/// For one look at a URL.
pub const LOOK: Duration = Duration::from_secs(5);

/// What was started on a server. Written before the start, so that a kill in the middle leaves
/// the knowledge that something may run; completed after it; gone when the app was seen to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppRecord {
    pub server: ServerId,
    pub name: String,
    pub deployment: i64,
    pub pull: PullNumber,
    pub sha: Sha,
    pub head_ref: String,
    pub boot: Option<String>,
    pub started_at: Timestamp,
    /// The shell that runs `exec_command`. None until it is started, or where the start failed.
    pub leader: Option<ProcessId>,
    /// All that the app consisted of when it was proved to run.
    pub seen: Vec<ProcessId>,
    /// Proved to run with no process of ours: a service manager has it.
    pub managed: bool,
    /// How often it was started again since it was deployed or last ran for long.
    pub restarts: u32,
}

impl AppRecord {
    /// Of an app that is about to be started.
    pub fn of(duty: &Duty, task: &Task, restarts: u32) -> AppRecord {
        AppRecord {
            server: duty.server,
            name: duty.name.clone(),
            deployment: task.deployment.id,
            pull: task.deployment.pull,
            sha: task.deployment.sha.clone(),
            head_ref: task.head_ref.clone(),
            boot: boot_id(),
            started_at: Timestamp::now(),
            leader: None,
            seen: Vec::new(),
            managed: false,
            restarts,
        }
    }
}

/// What can be told of a server's app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// Nothing was started here as far as we know.
    Nothing,
    Alive(AppRecord),
    Gone(AppRecord),
    /// The machine was started again since; nothing of it can live.
    Rebooted(AppRecord),
    /// Something answers at `check_url` that we have no record of: our record was lost, or the
    /// app was started before this program came.
    Stranger,
}

/// Looks whether the app lives. `expected`: it should, so that it is worth a look at its URL.
pub fn look(site: &Site<'_>, expected: bool) -> Result<Seen> {
    let Some(record) = site.state.app(site.duty.server)? else {
        if !expected {
            return Ok(Seen::Nothing);
        }
        let sha = site.duty.task.as_ref().map(|task| task.deployment.sha.clone());
        let alive = !Processes::read()?.app(&site.trace(None)).is_empty()
            || sha.is_some_and(|sha| answers(site, &sha));
        return Ok(if alive { Seen::Stranger } else { Seen::Nothing });
    };
    if record.boot != boot_id() {
        let answers = record.managed && answers(site, &record.sha);
        return Ok(if answers { Seen::Alive(record) } else { Seen::Rebooted(record) });
    }
    // The quick answer first: a whole look through /proc costs some milliseconds.
    let known = record.leader.iter().chain(&record.seen).any(|id| id.is_alive());
    let alive = known
        || !Processes::read()?.app(&site.trace(Some(&record))).is_empty()
        || record.managed && (site.duty.check_url.is_none() || answers(site, &record.sha));
    Ok(if alive { Seen::Alive(record) } else { Seen::Gone(record) })
}

fn answers(site: &Site<'_>, sha: &Sha) -> bool {
    site.duty.check_url.as_deref().is_some_and(|url| {
        site.prober.probe(url, LOOK).is_ok_and(|answer| {
            is_success(answer.status) && missing_text(site, sha, &answer.body).is_none()
        })
    })
}

/// What `check_body` asks for and this answer has not.
pub fn missing_text(site: &Site<'_>, sha: &Sha, body: &str) -> Option<String> {
    let text = site.config.app.check_body.as_ref()?.replace("{sha}", sha.as_str());
    (!body.contains(&text)).then_some(text)
}

pub fn is_success(status: u16) -> bool {
    (200..400).contains(&status)
}

/// An app that was just started.
#[derive(Debug)]
pub struct Started {
    pub child: Child,
    pub record: AppRecord,
    pub log: Log,
    /// Where its output begins in the log.
    pub from: u64,
}

pub fn start(site: &Site<'_>, task: &Task, restarts: u32) -> Result<Started> {
    let duty = &site.duty;
    let log = Log::open(site.state.app_log(duty.server))?;
    log.rotate()?;
    log.give(site.user()?)?;
    let from = log.len()?;
    let mut record = AppRecord::of(duty, task, restarts);
    site.state.keep_app(&record)?;
    let target = site.target()?;
    let (mut command, group) =
        site.shell(&site.config.exec_command, Some(Work::from(task)), None)?;
    command.current_dir(&target);
    command.stdin(Stdio::null()).stdout(log.writer()?).stderr(log.writer()?);
    let child = command.spawn().map_err(|e| match e.kind() {
        _ if !target.is_dir() => trouble("enter target_dir", &target, e),
        io::ErrorKind::NotFound => {
            anyhow!("the programs `sh` and `setsid` are needed: install util-linux")
        }
        _ => anyhow!("exec_command cannot be started: {e}"),
    })?;
    record.leader = ProcessId::of(child.id());
    site.watch_entrance(group, child.id());
    site.state.keep_app(&record)?;
    Ok(Started { child, record, log, from })
}

/// What a stop came to.
#[derive(Debug)]
pub struct Stopped {
    pub report: Report,
    /// Nothing that was started here lives any more.
    pub gone: bool,
}

/// Stops all that was started for the server, but for what the steps of deployment `except` left
/// running: `stop_command`, then signals. Fails where `check_url` is answered even then, unless
/// that is plainly none of ours.
pub fn stop(site: &Site<'_>, work: Option<Work<'_>>, pulse: &mut Pulse<'_>) -> Stopped {
    let mut report = Report::default();
    let gone = match end_all(site, work, pulse, &mut report) {
        Ok(()) => true,
        Err(e) => {
            report.failure = Some(format!("{e:#}"));
            false
        }
    };
    Stopped { report, gone }
}

fn end_all(
    site: &Site<'_>,
    work: Option<Work<'_>>,
    pulse: &mut Pulse<'_>,
    report: &mut Report,
) -> Result<()> {
    let record = site.state.app(site.duty.server)?;
    if let Some(stop_command) = &site.config.stop_command {
        let told = work.or(record.as_ref().map(Work::from));
        let (exit_status, output) = run_stop_command(site, stop_command, told, pulse)?;
        report.exit_status = exit_status;
        report.output.push_str(&output);
    }
    let trace = site.trace(record.as_ref());
    let except = work.map(|work| work.deployment);
    let kill = || trace.sign.groups.kill(|mark| !mark.step || Some(mark.deployment) != except);
    let ended = processes::end(
        |all| all.everything(&trace, except),
        kill,
        site.config.stop_timeout,
        || pulse.beat(),
    )?;
    for line in ended {
        report.output.push_str(&line);
        report.output.push('\n');
    }
    trace.sign.groups.remove_empty();
    site.state.forget_app(site.duty.server)
}

/// What it says of itself is only noted: many such commands fail where nothing runs. What counts
/// is whether the app is gone.
fn run_stop_command(
    site: &Site<'_>,
    stop_command: &str,
    work: Option<Work<'_>>,
    pulse: &mut Pulse<'_>,
) -> Result<(Option<i32>, String)> {
    let log = site.state.step_log(site.duty.server)?;
    log.give(site.user()?)?;
    let target = site.target()?;
    let (mut command, group) = site.shell(stop_command, work, Some("stop"))?;
    // The app is to be stopped also where its folder is gone.
    let place = if target.is_dir() { &target } else { Path::new("/") };
    command.current_dir(place);
    let sign = site.sign();
    let deployment = work.map_or(0, |work| work.deployment);
    let limits = site.limits(&log, site.config.step_timeout, &sign, deployment);
    let ran = command::run(command, &limits, pulse);
    group.inspect(Group::remove_if_empty);
    let (ended, mut output) = ran?;
    if !ended.success() {
        output.push_str(&format!("\n{}\n", command::reason("stop_command", ended, &output)));
    }
    Ok((ended.exit_status(), output))
}

/// Why the next probe would lie: something still answers at `check_url`.
pub fn survivor(site: &Site<'_>, pulse: &mut Pulse<'_>) -> Option<String> {
    let url = site.duty.check_url.as_deref()?;
    let began = Instant::now();
    loop {
        let status = match site.prober.probe(url, LOOK) {
            Ok(answer) if is_success(answer.status) => answer.status,
            _ => return None,
        };
        // A service manager may take its time.
        if began.elapsed() >= site.config.stop_timeout {
            let shown = without_credentials(url);
            let usual = if url.starts_with("https") { 443 } else { 80 };
            let port = site.config.app.port.or_else(|| explicit_port(url)).unwrap_or(usual);
            let processes = Processes::read().ok();
            let who = processes
                .and_then(|processes| processes.listener(port))
                .map(|who| format!(" ({who} listens on port {port})"));
            return Some(format!(
                "the app is stopped, but something else answers at {shown} with status \
                 {status}{}: stop it, or set `stop_command` to what stops the app",
                who.unwrap_or_default()
            ));
        }
        pulse.beat();
        std::thread::sleep(Duration::from_millis(200));
    }
}

//! The step `probe`: proves that the app that was just started runs.

use std::time::{Duration, Instant};

use anyhow::Result;
use pullre::store::StoreError;

use crate::app::{LOOK, Started, is_success, missing_text};
use crate::command::{self, Ended, Report};
use crate::processes::{Process, ProcessId, Processes};
use crate::pulse::Pulse;
use crate::site::Site;

/// Without `check_url`: what has lived for so long is taken to run.
const LIVES: Duration = Duration::from_secs(5);

/// Waits until the app answers or has failed. On success the record says what it consists of.
/// `deployment` is looked after: one that is not wanted any more is not waited for.
pub fn prove(
    site: &Site<'_>,
    started: &mut Started,
    deployment: Option<i64>,
    pulse: &mut Pulse<'_>,
) -> Report {
    let mut report = Report::default();
    match watch(site, started, deployment, pulse, &mut report) {
        Ok(Verdict::Runs) => {}
        Ok(Verdict::Superseded) => report.superseded = true,
        Ok(Verdict::Failed(reason)) => report.failure = Some(reason),
        Err(e) => report.failure = Some(format!("{e:#}")),
    }
    match started.log.end(started.from) {
        Ok(output) => report.output = site.masked(&output),
        Err(e) => report.output = format!("{e:#}"),
    }
    report
}

enum Verdict {
    Runs,
    Failed(String),
    Superseded,
}

fn watch(
    site: &Site<'_>,
    started: &mut Started,
    deployment: Option<i64>,
    pulse: &mut Pulse<'_>,
    report: &mut Report,
) -> Result<Verdict> {
    let config = site.config;
    let began = Instant::now();
    let mut pause = Duration::from_millis(20);
    let mut last = "nothing was heard".to_owned();
    // Such an app need not have a process that we could see.
    let managed = config.stop_command.is_some();
    loop {
        let left = config.check_timeout.saturating_sub(began.elapsed());
        let answered = match &site.duty.check_url {
            None => false,
            Some(url) => {
                match site.prober.probe(url, left.clamp(Duration::from_millis(100), LOOK)) {
                    Ok(answer) if is_success(answer.status) => {
                        let missing = missing_text(site, &started.record.sha, &answer.body);
                        if let Some(text) = &missing {
                            last = format!(
                                "its last answer, with status {}, does not hold {text:?} \
                                 (check_body)",
                                answer.status
                            );
                        }
                        missing.is_none()
                    }
                    Ok(answer) => {
                        last = format!("its last answer had status {}", answer.status);
                        false
                    }
                    Err(e) => {
                        last = e.to_string();
                        false
                    }
                }
            }
        };
        let exited = started.child.try_wait()?;
        if let Some(status) = exited {
            let ended = Ended::Exited(status);
            report.exit_status = ended.exit_status();
            if !status.success() {
                let output = site.masked(&started.log.end(started.from)?);
                return Ok(Verdict::Failed(command::reason("exec_command", ended, &output)));
            }
        }
        let living = Processes::read()?.app(&site.trace(Some(&started.record)));
        // What is seen now is found again when its ties to the shell are cut.
        started.record.seen = living.iter().map(|process| process.id).collect();
        let ended = exited.is_some() && living.is_empty();
        let runs = match site.duty.check_url {
            Some(_) => answered && (!ended || managed),
            None => ended || began.elapsed() >= LIVES,
        };
        if runs {
            started.record.managed = ended;
            site.state.keep_app(&started.record)?;
            return Ok(Verdict::Runs);
        }
        if ended && !managed {
            let output = site.masked(&started.log.end(started.from)?);
            let said = command::last_line(&output).unwrap_or_else(|| "it printed nothing".into());
            return Ok(Verdict::Failed(format!(
                "exec_command ended with status 0 and nothing that it started is alive: {said} \
                 (where a service manager runs the app, set `stop_command`)"
            )));
        }
        if left.is_zero() {
            return Ok(Verdict::Failed(format!(
                "the app did not answer within {} s: {last}{}",
                config.check_timeout.as_secs(),
                what_lives(&living, started.record.leader)
            )));
        }
        if let Some(deployment) = deployment
            && superseded(deployment, pulse)
        {
            return Ok(Verdict::Superseded);
        }
        pulse.beat();
        std::thread::sleep(pause.min(left));
        pause = (pause * 2).min(Duration::from_millis(250));
    }
}

fn superseded(deployment: i64, pulse: &mut Pulse<'_>) -> bool {
    pulse.superseded(deployment).unwrap_or_else(|e: StoreError| {
        // It is asked again before anything is done.
        tracing::warn!("deployment {deployment}: {e}");
        false
    })
}

fn what_lives(living: &[Process], leader: Option<ProcessId>) -> String {
    match living.iter().find(|process| Some(process.id) != leader).or(living.first()) {
        Some(process) => format!(" ({process} is alive)"),
        None => String::new(),
    }
}

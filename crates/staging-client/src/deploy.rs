//! Brings one commit to one server, step by step. The running app is stopped only once the new
//! commit is checked out and migrated: a broken push leaves the old one serving.

use std::time::Duration;

use jiff::Timestamp;
use pullre::facts::{App, AppDeath};
use pullre::store::{Store, StoreError, Task, Won};
use pullre::words;

use crate::app::{self, AppRecord, Started};
use crate::checkout;
use crate::command::{self, Report};
use crate::groups::Group;
use crate::plan;
use crate::processes;
use crate::prove::prove;
use crate::pulse::Pulse;
use crate::site::{Site, Work};
use crate::state_dir::{Log, masked};

/// How a deployment ended for this client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    Succeeded,
    Failed {
        step: &'static str,
        reason: String,
    },
    /// Something else is wanted by now; nothing was said about this one.
    Superseded,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Fetch,
    Checkout,
    Migrate,
    Stop,
    Start,
    Probe,
}

impl Step {
    fn name(self) -> &'static str {
        match self {
            Step::Fetch => "fetch",
            Step::Checkout => "checkout",
            Step::Migrate => "migrate",
            Step::Stop => "stop",
            Step::Start => "start",
            Step::Probe => "probe",
        }
    }
}

/// A kill in any step leaves the deployment `running`, so that the next run begins it again: each
/// step can be done twice, and `stop` finds whatever the killed run had started.
pub fn deploy(site: &Site<'_>, store: &mut Store, task: &Task) -> Result<Ending, StoreError> {
    let deployment = &task.deployment;
    if store.begin_deployment(deployment.id, Timestamp::now())? == Won::No {
        return Ok(Ending::Superseded);
    }
    let mut run = Run { site, task, pulse: Pulse::new(store, site.duty.server), started: None };
    let steps = [Step::Fetch, Step::Checkout, Step::Migrate, Step::Stop, Step::Start, Step::Probe];
    for step in steps {
        if step == Step::Migrate && site.config.migrate_command.is_none() {
            continue;
        }
        if !run.pulse.store.is_wanted(deployment.id)? {
            return Ok(Ending::Superseded);
        }
        let report = run.recorded(step, 0, Some(deployment.id))?;
        if report.superseded {
            return Ok(Ending::Superseded);
        }
        if let Some(reason) = report.failure {
            if matches!(step, Step::Start | Step::Probe) {
                run.clear()?;
            }
            return run.failed(step, reason);
        }
    }
    Ok(match store.deployment_succeeded(deployment, Timestamp::now())? {
        Won::Yes => Ending::Succeeded,
        Won::No => Ending::Superseded,
    })
}

/// Starts the app of a deployment that had succeeded: the machine was restarted, or it died.
/// Its steps are recorded with that deployment.
pub fn start_again(
    site: &Site<'_>,
    store: &mut Store,
    task: &Task,
    restarts: u32,
) -> Result<Ending, StoreError> {
    if restarts > 0 {
        store.app_died(site.duty.server, &death(site, task, restarts, Timestamp::now()))?;
    }
    let mut run = Run { site, task, pulse: Pulse::new(store, site.duty.server), started: None };
    // Usually it is: then a restart needs neither the network nor git.
    let steps: &[Step] = match checkout::is_checked_out(site, task) {
        Ok(true) => &[Step::Stop, Step::Start, Step::Probe],
        _ => &[Step::Fetch, Step::Checkout, Step::Stop, Step::Start, Step::Probe],
    };
    let mut ending = Ending::Succeeded;
    for step in steps {
        let report = run.recorded(*step, restarts, None)?;
        if report.superseded {
            return Ok(Ending::Superseded);
        }
        if let Some(reason) = report.failure {
            if matches!(step, Step::Start | Step::Probe) {
                run.clear()?;
            }
            ending = Ending::Failed { step: step.name(), reason };
            break;
        }
    }
    match &ending {
        Ending::Failed { step, reason } => {
            run.remember_restart(restarts);
            let (now, times) = (Timestamp::now(), restarts.max(1));
            let again_at = plan::again_at(now, restarts.max(1));
            let reason = format!("step {step}: {reason}");
            let of = task.deployment.id;
            let death = AppDeath { deployment: of, times, at: now, again_at, reason };
            store.app_died(site.duty.server, &death)?;
        }
        _ => store.app_lives(site.duty.server)?,
    }
    let said = match &ending {
        Ending::Failed { step, reason } => {
            format!("the app was gone and cannot be started again (step {step}): {reason}")
        }
        _ => "the app was gone and was started again".to_owned(),
    };
    let deployment = &task.deployment;
    let (pull, server) = (Some(deployment.pull), Some(deployment.server));
    store.event(Timestamp::now(), "client", pull, server, &said)?;
    Ok(ending)
}

/// Says that the app is gone and when it is started again; then that nothing is served.
pub fn wait(
    site: &Site<'_>,
    store: &mut Store,
    task: &Task,
    times: u32,
    again_at: Timestamp,
) -> Result<(), StoreError> {
    store.app_died(site.duty.server, &death(site, task, times, again_at))?;
    store.app_is(site.duty.server, None)
}

fn death(site: &Site<'_>, task: &Task, times: u32, again_at: Timestamp) -> AppDeath {
    let log = Log::open(site.state.app_log(site.duty.server)).and_then(|log| log.end(0));
    let last = log.map(|end| command::last_line(&site.masked(&end)));
    let reason = match last {
        Ok(Some(line)) => format!("its last words: {line}"),
        Ok(None) => "it printed nothing".to_owned(),
        Err(e) => format!("{e:#}"),
    };
    AppDeath { deployment: task.deployment.id, times, at: Timestamp::now(), again_at, reason }
}

/// Ends a deployment whose client died in it too often, so that nobody waits for it for ever.
pub fn give_up(
    site: &Site<'_>,
    store: &mut Store,
    task: &Task,
    times: u32,
) -> Result<Ending, StoreError> {
    let last = store.steps_of(task.deployment.id)?.pop();
    let step = [Step::Checkout, Step::Migrate, Step::Stop, Step::Start, Step::Probe]
        .into_iter()
        .find(|step| last.as_ref().is_some_and(|last| last.name == step.name()))
        .unwrap_or(Step::Fetch);
    let mut run = Run { site, task, pulse: Pulse::new(store, site.duty.server), started: None };
    if matches!(step, Step::Stop | Step::Start | Step::Probe) {
        run.clear()?;
    } else if let Err(e) = run.end_leftovers() {
        tracing::warn!("{}: {e:#}", site.duty.name);
    }
    let reason = format!(
        "staging-client ended {times} times without a result in the middle of this deployment, the \
         last time in step {}: look in its log for what ends it (a kill, a lost database), then \
         redeploy",
        step.name()
    );
    run.failed(step, reason)
}

/// Stops all that was started for the server; the store is told once it is gone.
pub fn stop_app(site: &Site<'_>, store: &mut Store) -> Result<Report, StoreError> {
    let managed = matches!(site.state.app(site.duty.server), Ok(Some(record)) if record.managed);
    let stopped = app::stop(site, None, &mut Pulse::new(store, site.duty.server));
    let mut report = stopped.report;
    if !stopped.gone {
        return Ok(report);
    }
    if let Some(survivor) = app::survivor(site, &mut Pulse::new(store, site.duty.server)) {
        if managed {
            // That is the app itself: its data must not be cloned over.
            report.failure = Some(survivor);
            return Ok(report);
        }
        tracing::warn!("{}: {survivor}", site.duty.name);
    }
    store.app_is(site.duty.server, None)?;
    Ok(report)
}

struct Run<'a, 's> {
    site: &'a Site<'a>,
    task: &'a Task,
    pulse: Pulse<'s>,
    started: Option<Started>,
}

impl Run<'_, '_> {
    /// Does one step, with its row in the store around it: a kill leaves the row without an end.
    fn recorded(
        &mut self,
        step: Step,
        restarts: u32,
        watched: Option<i64>,
    ) -> Result<Report, StoreError> {
        let began = Timestamp::now();
        let id = self.pulse.store.step_started(self.task.deployment.id, step.name(), began)?;
        self.pulse.begin_step(id);
        let mut report = self.act(step, restarts, watched)?;
        if let Some(failure) = &mut report.failure {
            *failure = self.site.masked(failure.as_bytes());
            if !report.output.is_empty() && !report.output.ends_with('\n') {
                report.output.push('\n');
            }
            report.output.push_str(failure);
        }
        let output = masked(report.output.as_bytes(), &[]);
        let now = Timestamp::now();
        self.pulse.store.step_finished(id, report.exit_status, &output, now)?;
        let took = words::duration(words::between(began, now));
        tracing::info!(step = step.name(), "{}: {} took {took}", self.site.duty.name, step.name());
        Ok(report)
    }

    fn act(
        &mut self,
        step: Step,
        restarts: u32,
        watched: Option<i64>,
    ) -> Result<Report, StoreError> {
        let (site, task) = (self.site, self.task);
        Ok(match step {
            Step::Fetch => match site.user().and_then(|_| self.end_leftovers()) {
                Ok(()) => checkout::fetch(site, task, &mut self.pulse),
                Err(e) => Report::failed(format!("{e:#}")),
            },
            Step::Checkout => checkout::checkout(site, task, &mut self.pulse),
            Step::Migrate => self.migrate_alone()?,
            Step::Stop => self.stop()?,
            Step::Start => self.start(restarts)?,
            Step::Probe => match &mut self.started {
                Some(started) => prove(site, started, watched, &mut self.pulse),
                None => Report::failed("nothing was started"),
            },
        })
    }

    /// A killed client leaves the command of its step running. What the serving app's deployment
    /// left in the background on purpose stays until the app is stopped.
    fn end_leftovers(&self) -> anyhow::Result<()> {
        let serving = self.site.state.app(self.site.duty.server)?.map(|record| record.deployment);
        let sign = self.site.sign();
        let kill = || {
            sign.groups.kill(|mark| mark.step && Some(mark.deployment) != serving);
        };
        processes::end(|all| all.steps(&sign, serving), kill, Duration::ZERO, || ()).map(drop)
    }

    /// Says that this commit is at the schema, then asks whether it still shall be. The controller
    /// does it the other way round, first withdrawing and then looking who is at the schema: one
    /// of the two sees the other, and nothing is cloned beside a migration or an app.
    fn claim(&mut self) -> Result<bool, StoreError> {
        let deployment = &self.task.deployment;
        let app = App { pull: deployment.pull, sha: deployment.sha.clone() };
        self.pulse.store.app_is(self.site.duty.server, Some(&app))?;
        self.pulse.store.is_wanted(deployment.id)
    }

    fn migrate_alone(&mut self) -> Result<Report, StoreError> {
        // An app that serves stands for the schema already, and goes on doing so.
        let unclaimed = self.site.duty.app.is_none();
        if unclaimed && !self.claim()? {
            return Ok(Report { superseded: true, ..Report::default() });
        }
        let report = self.migrate();
        if unclaimed && report.failure.is_some() {
            self.pulse.store.app_is(self.site.duty.server, None)?;
        }
        Ok(report)
    }

    fn migrate(&mut self) -> Report {
        let Some(migrate_command) = &self.site.config.migrate_command else {
            return Report::default();
        };
        let site = self.site;
        let mut ran = || -> anyhow::Result<Report> {
            let log = site.state.step_log(site.duty.server)?;
            log.give(site.user()?)?;
            let work = Work::from(self.task);
            let (mut command, group) = site.shell(migrate_command, Some(work), Some("migrate"))?;
            command.current_dir(site.target()?);
            let (sign, id) = (site.sign(), self.task.deployment.id);
            let limits = site.limits(&log, site.config.step_timeout, &sign, id);
            let ran = command::run(command, &limits, &mut self.pulse);
            group.inspect(Group::remove_if_empty);
            let (ended, output) = ran?;
            let failure = (!ended.success()).then(|| {
                let mut reason = command::reason("migrate_command", ended, &output);
                if let Some(app) = &site.duty.app {
                    reason.push_str(&format!(
                        "; {} of {} keeps serving, on a database that may be half migrated",
                        app.sha.short(),
                        app.pull
                    ));
                }
                reason
            });
            let exit_status = ended.exit_status();
            Ok(Report { exit_status, output, failure, superseded: false })
        };
        ran().unwrap_or_else(|e| Report::failed(format!("{e:#}")))
    }

    fn stop(&mut self) -> Result<Report, StoreError> {
        let stopped = app::stop(self.site, Some(Work::from(self.task)), &mut self.pulse);
        let mut report = stopped.report;
        if stopped.gone {
            self.pulse.store.app_is(self.site.duty.server, None)?;
            report.failure = app::survivor(self.site, &mut self.pulse);
        }
        Ok(report)
    }

    fn start(&mut self, restarts: u32) -> Result<Report, StoreError> {
        if !self.claim()? {
            return Ok(Report { superseded: true, ..Report::default() });
        }
        Ok(match app::start(self.site, self.task, restarts) {
            Ok(started) => {
                let output = format!("started as process {}", started.child.id());
                self.started = Some(started);
                Report { output, ..Report::default() }
            }
            Err(e) => Report::failed(format!("{e:#}")),
        })
    }

    /// Leaves no half-dead app behind a failed start: it would hold the port and the data.
    fn clear(&mut self) -> Result<(), StoreError> {
        let stopped = app::stop(self.site, None, &mut self.pulse);
        if stopped.gone {
            return self.pulse.store.app_is(self.site.duty.server, None);
        }
        // The store goes on saying that it may run, and the next stop tries again.
        let why = stopped.report.failure.unwrap_or_default();
        tracing::error!("{}: the failed app cannot be stopped: {why}", self.site.duty.name);
        Ok(())
    }

    /// So that the next try waits: the clearing after a failure took the record away.
    fn remember_restart(&self, restarts: u32) {
        let record = AppRecord::of(&self.site.duty, self.task, restarts);
        if let Err(e) = self.site.state.keep_app(&record) {
            tracing::error!("{}: {e:#}", self.site.duty.name);
        }
    }

    fn failed(&mut self, step: Step, reason: String) -> Result<Ending, StoreError> {
        let now = Timestamp::now();
        let won =
            self.pulse.store.deployment_failed(&self.task.deployment, step.name(), &reason, now)?;
        Ok(match won {
            Won::Yes => Ending::Failed { step: step.name(), reason },
            Won::No => Ending::Superseded,
        })
    }
}

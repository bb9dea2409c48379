//! What a client has to do on one server: a value, made from what was observed, and nothing else.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use pullre::domain::InstanceState;
use pullre::facts::{App, Deployment, Outcome};
use pullre::store::{Duty, Task};
use pullre::words;

use crate::app::{AppRecord, Seen};

/// A client that dies in a deployment so often is not let at it again.
const MOST_KILLS: u32 = 3;
/// An app that died is started again at once, then after 1, 2, 4 ... minutes, at most this.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// What is true of one server at one moment.
#[derive(Debug)]
pub struct Observed {
    pub duty: Duty,
    /// The state of this slot; None on a machine that is no slot: it runs, since we do.
    pub slot: Option<InstanceState>,
    pub app: Seen,
    /// It is time to look after what grows: old objects, old logs.
    pub collection_due: bool,
    pub now: Timestamp,
}

impl Observed {
    pub fn is_on(&self) -> bool {
        self.slot.is_none_or(|state| state == InstanceState::Running)
    }
}

#[derive(Debug, Clone)]
pub enum ClientPlan {
    Nothing {
        why: String,
    },
    StopApp {
        why: String,
    },
    Deploy(Task),
    StartAgain {
        task: Task,
        restarts: u32,
    },
    /// What runs is not what was reported.
    Report {
        app: App,
        why: String,
    },
    /// The app died and is not started again yet.
    Wait {
        task: Task,
        times: u32,
        again_at: Timestamp,
    },
    /// All is well, and has been for a while.
    Collect {
        deployment: i64,
    },
    /// The client was killed so many times in the middle of this deployment.
    GiveUp {
        task: Task,
        times: u32,
    },
}

impl fmt::Display for ClientPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = |d: &Deployment| format!("{} of {}", d.sha.short(), d.pull);
        match self {
            ClientPlan::Nothing { why } => write!(f, "nothing to do: {why}"),
            ClientPlan::StopApp { why } => write!(f, "stop the app: {why}"),
            ClientPlan::Report { app, why } => {
                write!(f, "report that {} of {} is served: {why}", app.sha.short(), app.pull)
            }
            ClientPlan::Wait { task, times, again_at } => write!(
                f,
                "report that {} died {times} times; it is started again at {}",
                what(&task.deployment),
                words::moment(*again_at)
            ),
            ClientPlan::Collect { .. } => write!(f, "collect what no commit and nobody needs"),
            ClientPlan::Deploy(task) => {
                write!(f, "deploy {}", what(&task.deployment))?;
                match task.deployment.outcome {
                    Outcome::Running => write!(f, " again, since the last client died in it"),
                    _ => Ok(()),
                }
            }
            ClientPlan::StartAgain { task, .. } => {
                write!(f, "start {} again, since it does not run", what(&task.deployment))
            }
            ClientPlan::GiveUp { task, times } => write!(
                f,
                "give up {}: the client was killed {times} times in it",
                what(&task.deployment)
            ),
        }
    }
}

pub fn plan(observed: &Observed) -> ClientPlan {
    let nothing = |why: &str| ClientPlan::Nothing { why: why.to_owned() };
    let stop = |why: &str| ClientPlan::StopApp { why: why.to_owned() };
    let duty = &observed.duty;
    if duty.paused {
        return nothing("all effects are paused (`update-pull resume` ends that)");
    }
    if let Some(hold) = duty.holds.iter().find(|hold| hold.holds_at(observed.now)) {
        return nothing(&hold.to_string());
    }
    // A record stands for processes that may live, until a stop has proved that none does.
    let something = duty.app.is_some() || observed.app != Seen::Nothing;
    if !observed.is_on() {
        return match something {
            true => stop("its machine is off"),
            false => nothing("its machine is off"),
        };
    }
    let Some(task) = &duty.task else {
        return match something {
            true => stop("no commit shall run here"),
            false => nothing("no commit shall run here"),
        };
    };
    let deployment = &task.deployment;
    match deployment.outcome {
        Outcome::Offered => ClientPlan::Deploy(task.clone()),
        // We hold the lock, so nobody is at it.
        Outcome::Running => match deployment.interruptions + 1 {
            times if times >= MOST_KILLS => ClientPlan::GiveUp { task: task.clone(), times },
            _ => ClientPlan::Deploy(task.clone()),
        },
        Outcome::Succeeded => match &observed.app {
            Seen::Alive(record) if record.deployment == deployment.id => {
                let app = App { pull: deployment.pull, sha: deployment.sha.clone() };
                if duty.died == Some(deployment.id) {
                    // The client that started it again was killed before it had proved it.
                    let restarts = record.restarts;
                    return ClientPlan::StartAgain { task: task.clone(), restarts };
                }
                if duty.app.as_ref() != Some(&app) {
                    // Its machine was thought to be off for a moment.
                    return ClientPlan::Report { app, why: "it runs".into() };
                }
                if observed.collection_due {
                    return ClientPlan::Collect { deployment: deployment.id };
                }
                nothing(&format!("{} of {} runs", deployment.sha.short(), deployment.pull))
            }
            Seen::Stranger => nothing("it runs, though this client did not start it"),
            Seen::Gone(record) if record.deployment == deployment.id => {
                again(task, record, duty.app.is_some(), observed.now)
            }
            Seen::Alive(_) | Seen::Gone(_) | Seen::Rebooted(_) | Seen::Nothing => {
                ClientPlan::StartAgain { task: task.clone(), restarts: 0 }
            }
        },
        // The controller decides about another try. What served before goes on serving.
        Outcome::Failed | Outcome::Superseded => match &observed.app {
            Seen::Alive(record) if record.deployment == deployment.id => {
                stop("its deployment failed")
            }
            Seen::Alive(record) => nothing(&format!(
                "the deployment of {} failed; {} of {} keeps serving",
                deployment.sha.short(),
                record.sha.short(),
                record.pull
            )),
            _ if something => stop("it is gone already, and its deployment failed"),
            _ => nothing("the deployment failed; the controller decides about another try"),
        },
    }
}

/// When an app that was started then, for the so-many-th time, and died is started again.
pub fn again_at(started_at: Timestamp, restarts: u32) -> Timestamp {
    let pause = match restarts {
        0 => Duration::ZERO,
        n => Duration::from_secs(60).saturating_mul(1 << (n - 1).min(10)).min(LONGEST_PAUSE),
    };
    started_at.saturating_add(pause).unwrap_or(started_at)
}

fn again(task: &Task, record: &AppRecord, reported: bool, now: Timestamp) -> ClientPlan {
    let since = words::between(record.started_at, now);
    let again_at = again_at(record.started_at, record.restarts);
    if now < again_at && now >= record.started_at {
        let times = record.restarts + 1;
        // Until then nothing is served, and nobody shall be told that something is.
        if reported {
            return ClientPlan::Wait { task: task.clone(), times, again_at };
        }
        let at = words::moment(again_at);
        let why = format!("the app died {times} times; it is started again at {at}");
        return ClientPlan::Nothing { why };
    }
    // Whoever ran twice as long as the longest pause is no crash-looper.
    let restarts = if since > 2 * LONGEST_PAUSE { 1 } else { record.restarts + 1 };
    ClientPlan::StartAgain { task: task.clone(), restarts }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use pullre::domain::{PullNumber, ServerId};

    fn now() -> Timestamp {
        "2026-11-22T12:00:00Z".parse().unwrap()
    }

    fn task(outcome: Outcome) -> Task {
        let deployment = Deployment {
            id: 5,
            pull: PullNumber(7),
            server: ServerId(1),
            sha: "a".repeat(40).parse().unwrap(),
            attempt: 1,
            outcome,
            offered_at: now(),
            started_at: None,
            finished_at: None,
            interruptions: 0,
            failed_step: None,
            reason: None,
        };
        Task { deployment, head_ref: "topic".into() }
    }

    fn idle() -> Observed {
        let duty = Duty {
            server: ServerId(1),
            name: "stg1".into(),
            instance: None,
            schema: "stg1".into(),
            check_url: None,
            app: None,
            died: None,
            task: None,
            paused: false,
            holds: Vec::new(),
        };
        let (slot, app) = (Some(InstanceState::Running), Seen::Nothing);
        Observed { duty, slot, app, collection_due: false, now: now() }
    }

    fn with(outcome: Outcome, app: Seen) -> Observed {
        let mut observed = idle();
        observed.duty.task = Some(task(outcome));
        if let Seen::Alive(record) | Seen::Gone(record) = &app {
            observed.duty.app = Some(App { pull: record.pull, sha: record.sha.clone() });
        }
        Observed { app, ..observed }
    }

    fn record(deployment: i64) -> AppRecord {
        let mut task = task(Outcome::Succeeded);
        task.deployment.id = deployment;
        let started_at = now() - jiff::SignedDuration::from_secs(30);
        AppRecord { started_at, ..AppRecord::of(&idle().duty, &task, 0) }
    }

    fn said(observed: &Observed) -> String {
        plan(observed).to_string()
    }

    #[test]
    fn what_runs_as_it_shall_is_left_alone() {
        insta::assert_snapshot!(said(&with(Outcome::Succeeded, Seen::Alive(record(5)))), @"nothing to do: aaaaaaa of #7 runs");
        insta::assert_snapshot!(said(&idle()), @"nothing to do: no commit shall run here");
    }

    #[test]
    fn an_offered_commit_is_deployed_whatever_runs() {
        for app in [Seen::Nothing, Seen::Stranger, Seen::Alive(record(4)), Seen::Gone(record(4))] {
            let observed = with(Outcome::Offered, app);
            insta::allow_duplicates! {
                insta::assert_snapshot!(said(&observed), @"deploy aaaaaaa of #7");
            }
        }
    }

    #[test]
    fn a_pause_stops_everything() {
        for outcome in [Outcome::Offered, Outcome::Running, Outcome::Succeeded, Outcome::Failed] {
            let mut observed = with(outcome, Seen::Gone(record(5)));
            observed.duty.paused = true;
            observed.slot = Some(InstanceState::Stopped);
            insta::allow_duplicates! {
                insta::assert_snapshot!(said(&observed), @"nothing to do: all effects are paused (`update-pull resume` ends that)");
            }
        }
    }

    #[test]
    fn without_a_task_or_a_machine_the_app_is_stopped_until_it_is_gone_and_said_so() {
        let mut observed = idle();
        observed.app = Seen::Gone(record(4));
        insta::assert_snapshot!(said(&observed), @"stop the app: no commit shall run here");
        observed.app = Seen::Nothing;
        observed.duty.app = Some(App { pull: PullNumber(7), sha: "b".repeat(40).parse().unwrap() });
        insta::assert_snapshot!(said(&observed), @"stop the app: no commit shall run here");

        let mut off = with(Outcome::Offered, Seen::Alive(record(4)));
        off.slot = Some(InstanceState::Stopped);
        insta::assert_snapshot!(said(&off), @"stop the app: its machine is off");
        off.duty.app = None;
        off.app = Seen::Nothing;
        insta::assert_snapshot!(said(&off), @"nothing to do: its machine is off");
    }

    #[test]
    fn a_deployment_whose_client_died_is_begun_again_three_times_at_most() {
        let mut observed = with(Outcome::Running, Seen::Nothing);
        insta::assert_snapshot!(said(&observed), @"deploy aaaaaaa of #7 again, since the last client died in it");
        observed.duty.task.as_mut().unwrap().deployment.interruptions = 2;
        insta::assert_snapshot!(said(&observed), @"give up aaaaaaa of #7: the client was killed 3 times in it");
    }

    #[test]
    fn an_app_that_died_is_started_again_with_growing_pauses() {
        let mut story = Vec::new();
        for restarts in [0, 1, 2, 3, 40] {
            let mut gone = record(5);
            gone.restarts = restarts;
            let mut observed = with(Outcome::Succeeded, Seen::Gone(gone));
            let first = said(&observed);
            observed.now = now() + jiff::SignedDuration::from_hours(1);
            assert!(matches!(
                plan(&observed),
                ClientPlan::StartAgain { restarts: n, .. } if n == restarts + 1
            ));
            story.push(first);
        }
        insta::assert_snapshot!(story.join("\n"), @"
        start aaaaaaa of #7 again, since it does not run
        report that aaaaaaa of #7 died 2 times; it is started again at 2026-11-22 12:00 UTC
        report that aaaaaaa of #7 died 3 times; it is started again at 2026-11-22 12:01 UTC
        report that aaaaaaa of #7 died 4 times; it is started again at 2026-11-22 12:03 UTC
        report that aaaaaaa of #7 died 41 times; it is started again at 2026-11-22 12:59 UTC
        ");
    }

    #[test]
    fn after_a_restart_of_the_machine_the_app_is_started_and_nothing_counts_as_its_death() {
        let mut old = record(5);
        old.restarts = 4;
        let observed = with(Outcome::Succeeded, Seen::Rebooted(old));
        assert!(matches!(plan(&observed), ClientPlan::StartAgain { restarts: 0, .. }));
    }

    #[test]
    fn a_restart_that_nobody_proved_is_done_again() {
        let mut observed = with(Outcome::Succeeded, Seen::Alive(record(5)));
        observed.duty.died = Some(4);
        insta::assert_snapshot!(said(&observed), @"nothing to do: aaaaaaa of #7 runs");
        observed.duty.died = Some(5);
        insta::assert_snapshot!(said(&observed), @"start aaaaaaa of #7 again, since it does not run");
    }

    #[test]
    fn what_grows_is_looked_after_only_while_all_is_well() {
        for outcome in [Outcome::Offered, Outcome::Running, Outcome::Succeeded, Outcome::Failed] {
            let mut observed = with(outcome, Seen::Alive(record(5)));
            observed.collection_due = true;
            let collects = matches!(plan(&observed), ClientPlan::Collect { deployment: 5 });
            assert_eq!(collects, outcome == Outcome::Succeeded);
        }
    }

    #[test]
    fn a_clock_that_was_set_back_does_not_keep_an_app_down() {
        let mut gone = record(5);
        gone.restarts = 5;
        let mut observed = with(Outcome::Succeeded, Seen::Gone(gone));
        observed.now = now() - jiff::SignedDuration::from_hours(48);
        insta::assert_snapshot!(said(&observed), @"start aaaaaaa of #7 again, since it does not run");
    }

    #[test]
    fn an_app_that_ran_for_long_begins_its_pauses_anew() {
        let mut gone = record(5);
        gone.restarts = 9;
        let mut observed = with(Outcome::Succeeded, Seen::Gone(gone));
        observed.now = now() + jiff::SignedDuration::from_hours(48);
        assert!(matches!(plan(&observed), ClientPlan::StartAgain { restarts: 1, .. }));
    }

    #[test]
    fn after_a_failure_the_old_app_keeps_serving_and_the_failed_one_does_not() {
        insta::assert_snapshot!(said(&with(Outcome::Failed, Seen::Alive(record(4)))), @"nothing to do: the deployment of aaaaaaa failed; aaaaaaa of #7 keeps serving");
        insta::assert_snapshot!(said(&with(Outcome::Failed, Seen::Alive(record(5)))), @"stop the app: its deployment failed");
        insta::assert_snapshot!(said(&with(Outcome::Failed, Seen::Gone(record(4)))), @"stop the app: it is gone already, and its deployment failed");
        insta::assert_snapshot!(said(&with(Outcome::Failed, Seen::Nothing)), @"nothing to do: the deployment failed; the controller decides about another try");
    }

    #[test]
    fn what_another_hand_started_is_left_where_its_commit_counts_as_served() {
        insta::assert_snapshot!(said(&with(Outcome::Succeeded, Seen::Stranger)), @"nothing to do: it runs, though this client did not start it");
        insta::assert_snapshot!(said(&with(Outcome::Succeeded, Seen::Nothing)), @"start aaaaaaa of #7 again, since it does not run");
        insta::assert_snapshot!(said(&with(Outcome::Succeeded, Seen::Alive(record(4)))), @"start aaaaaaa of #7 again, since it does not run");
    }
}

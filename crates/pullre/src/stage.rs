//! What a person is told about an environment: its stage, why, and what comes next. Pure, and
//! from the same condition that the planner acts upon.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::Timestamp;
use serde::Serialize;

use crate::condition::{self, Condition, Data, Policy, Power, Retry, Serving};
use crate::domain::{PullNumber, PullState};
use crate::facts::{Assignment, Facts, Pull};
use crate::roster::Roster;
use crate::words;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    Ineligible,
    Queued,
    Starting,
    Cloning,
    Deploying,
    Ready,
    Failed,
    Held,
    Stopping,
    Closed,
}

impl Stage {
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Ineligible => "ineligible",
            Stage::Queued => "queued",
            Stage::Starting => "starting",
            Stage::Cloning => "cloning",
            Stage::Deploying => "deploying",
            Stage::Ready => "ready",
            Stage::Failed => "failed",
            Stage::Held => "held",
            Stage::Stopping => "stopping",
            Stage::Closed => "closed",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Where an environment stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Standing {
    pub stage: Stage,
    /// One sentence without a full stop.
    pub why: String,
    /// What happens next by itself, or what a person can do.
    pub next: Option<String>,
}

impl Standing {
    fn new(stage: Stage, why: impl Into<String>) -> Standing {
        Standing { stage, why: why.into(), next: None }
    }

    fn then(mut self, next: impl Into<String>) -> Standing {
        self.next = Some(next.into());
        self
    }

    fn retried(why: &str, retry: &Retry, number: PullNumber) -> Standing {
        let next = format!(
            "tried again after {}; at once with `update-pull pull redeploy {}`",
            words::moment(retry.at),
            number.0
        );
        Standing::new(Stage::Failed, format!("{why} (try {}): {}", retry.attempts, retry.error))
            .then(next)
    }
}

/// Where the environment of this pull request stands.
pub fn standing(pull: &Pull, facts: &Facts, policy: &Policy, now: Timestamp) -> Standing {
    Standings::new(facts, policy, now).of(pull)
}

/// Where environments stand. What all that wait have in common is found out once.
#[derive(Debug)]
pub struct Standings<'f> {
    pub facts: &'f Facts,
    pub(crate) policy: &'f Policy,
    pub(crate) now: Timestamp,
    roster: OnceCell<Roster>,
    line: OnceCell<Line>,
}

/// Those that wait.
#[derive(Debug)]
struct Line {
    places: BTreeMap<PullNumber, usize>,
    free: usize,
    /// What they wait for where none is free.
    why: String,
}

impl<'f> Standings<'f> {
    pub fn new(facts: &'f Facts, policy: &'f Policy, now: Timestamp) -> Standings<'f> {
        Standings { facts, policy, now, roster: OnceCell::new(), line: OnceCell::new() }
    }

    pub fn of(&self, pull: &Pull) -> Standing {
        of(pull, self)
    }

    /// Of all servers.
    pub fn roster(&self) -> &Roster {
        self.roster.get_or_init(|| Roster::of(self.facts))
    }

    /// The place in the queue of a pull request that waits.
    pub fn place(&self, pull: &Pull) -> Option<usize> {
        self.line().places.get(&pull.request.number).copied()
    }

    fn line(&self) -> &Line {
        self.line.get_or_init(|| {
            let queue = condition::queue(self.facts, self.policy, self.now);
            let numbers = queue.iter().map(|pull| pull.request.number);
            Line {
                places: numbers.zip(1..).collect(),
                free: self.roster().free(self.facts, self.now).len(),
                why: self.roster().none_free(self.facts, &BTreeSet::new(), self.now),
            }
        })
    }

    /// What whoever has this place in the queue waits for.
    pub(crate) fn waits_for(&self, place: usize) -> &str {
        let line = self.line();
        if line.free >= place { "the next tick gives it a server" } else { &line.why }
    }

    fn queued(&self, pull: &Pull) -> Standing {
        let line = self.line();
        let count = line.places.len();
        let place = self.place(pull).unwrap_or(count);
        let why = self.waits_for(place);
        Standing::new(Stage::Queued, format!("{place} of {count} in the queue; {why}"))
    }
}

fn of(pull: &Pull, standings: &Standings<'_>) -> Standing {
    let Standings { facts, policy, now, .. } = *standings;
    let number = pull.request.number;
    let assignment = facts.assignments.get(&number);
    let server = assignment.and_then(|a| facts.servers.get(&a.server));
    let closed = pull.request.state == PullState::Closed;
    if let Some((why, ends)) =
        condition::held(pull, server, now).filter(|_| !closed || assignment.is_some())
    {
        return Standing::new(Stage::Held, why)
            .then(format!("nothing is done for it until then, or `{ends}`"));
    }
    match (closed, assignment) {
        (true, Some(a)) => {
            let name = facts.server_name(a.server);
            return Standing::new(Stage::Stopping, format!("closed; {name} is being released"));
        }
        (true, None) => return Standing::new(Stage::Closed, "it is closed"),
        (false, _) => {}
    }
    let target = match condition::eligibility(pull, facts, policy) {
        Err(why) => return ineligible(pull, assignment, &why, policy),
        Ok(target) => target,
    };
    let Some(assignment) = assignment else { return standings.queued(pull) };
    let condition = condition::assess(assignment, &target, facts, policy, now);
    of_condition(assignment, &condition, facts, policy)
}

fn ineligible(
    pull: &Pull,
    assignment: Option<&Assignment>,
    why: &condition::Ineligible,
    policy: &Policy,
) -> Standing {
    let standing = Standing::new(Stage::Ineligible, why.to_string());
    if assignment.is_some() && pull.stopped.is_some() {
        return standing.then("its server goes back to the pool");
    }
    match (assignment.and_then(|a| a.deployment.as_ref()), pull.ineligible_since) {
        (Some(deployment), Some(since)) => standing.then(format!(
            "its server keeps {} until {}",
            deployment.sha.short(),
            words::moment(since.saturating_add(policy.grace).unwrap_or(since))
        )),
        _ => standing,
    }
}

fn of_condition(
    assignment: &Assignment,
    condition: &Condition,
    facts: &Facts,
    policy: &Policy,
) -> Standing {
    let number = assignment.pull;
    let name = facts.server_name(condition.server);
    let look_at_client = format!(
        "look at cron and the log of staging-client on {name}; it goes on by itself when the client does"
    );
    let silent = |why: &str| {
        Standing::new(Stage::Failed, format!("{name} does not deploy it: {why}"))
            .then(look_at_client.as_str())
    };
    // What failed comes first: the other parts may still be on their way.
    match &condition.power {
        Power::Lost(why) => {
            return Standing::new(Stage::Queued, format!("its server {name} is lost: {why}"))
                .then("the next tick gives it another one");
        }
        Power::Unreadable => {
            return Standing::new(Stage::Failed, "the row of its server makes no sense").then(
                "nothing is done for it until the row is mended; `update-pull status` names it",
            );
        }
        Power::Fell(retry) => {
            return Standing::retried(&format!("{name} does not start"), retry, number);
        }
        Power::ComingUp { since: Some(since), overdue: true } => {
            return Standing::new(
                Stage::Failed,
                format!(
                    "{name} was started {} and is not running after {}",
                    words::moment(*since),
                    words::duration(policy.start_timeout)
                ),
            )
            .then(
                "it goes on by itself when the instance runs; look at it in the provider's console",
            );
        }
        _ => {}
    }
    match &condition.data {
        Data::Failed(retry) => {
            return Standing::retried("its database was not cloned", retry, number);
        }
        Data::Refused(why) => {
            return Standing::new(Stage::Failed, format!("its database cannot be cloned: {why}"))
                .then("it goes on by itself once that is changed");
        }
        Data::AppInTheWay { silent: Some(why), .. } => return silent(why),
        _ => {}
    }
    match &condition.power {
        Power::Up => {}
        Power::GoingDown => {
            return Standing::new(Stage::Starting, format!("{name} is still stopping"))
                .then("it is started as soon as it has stopped");
        }
        Power::ComingUp { since: None, .. } => {
            return Standing::new(Stage::Starting, format!("{name} comes up"));
        }
        Power::ComingUp { since: Some(since), .. } => {
            let since = words::moment(*since);
            return Standing::new(Stage::Starting, format!("{name} comes up since {since}"));
        }
        _ => return Standing::new(Stage::Starting, format!("{name} is about to be started")),
    }
    match &condition.data {
        Data::AppInTheWay { of, .. } => {
            return Standing::new(
                Stage::Cloning,
                format!("{name} must stop the app of {of} first"),
            )
            .then("its staging client does it");
        }
        Data::Missing => {
            return Standing::new(Stage::Cloning, "its database is about to be cloned");
        }
        Data::PreviousWanted => {
            return Standing::new(
                Stage::Cloning,
                "its previous database is about to be brought back",
            );
        }
        Data::Building { since } => {
            let since = since.map_or(String::new(), |t| format!(" since {}", words::moment(t)));
            return Standing::new(Stage::Cloning, format!("its database is being cloned{since}"));
        }
        _ => {}
    }
    match &condition.serving {
        Serving::NotOffered => {
            Standing::new(Stage::Deploying, format!("{name} is about to be told its commit"))
        }
        Serving::Waiting { silent: Some(why), .. }
        | Serving::Deploying { silent: Some(why), .. } => silent(why),
        Serving::Waiting { since, .. } => Standing::new(
            Stage::Deploying,
            format!("waits for the staging client of {name} since {}", words::moment(*since)),
        ),
        Serving::Deploying { since, .. } => Standing::new(
            Stage::Deploying,
            format!("{name} deploys it since {}", words::moment(*since)),
        ),
        Serving::Served { silent: Some(why) } => {
            Standing::new(Stage::Failed, format!("whether {name} still serves it is not known: {why}"))
                .then(look_at_client)
        }
        Serving::Served { silent: None } => {
            let sha = assignment.deployment.as_ref().map_or("", |d| d.sha.short());
            Standing::new(Stage::Ready, format!("{name} serves {sha}"))
        }
        Serving::Gone(Some(death)) => {
            let times = match death.times {
                1 => String::new(),
                n => format!(" {n} times, the last time"),
            };
            let (died, again) = (words::moment(death.at), words::moment(death.again_at));
            let why = format!("the app on {name} died{times} at {died}: {}", death.reason);
            Standing::new(Stage::Failed, why).then(format!(
                "its staging client starts it again at {again}; `staging-client logs` on {name} \
                 shows its end"
            ))
        }
        Serving::Gone(None) => Standing::new(Stage::Failed, format!("the app on {name} died")).then(
            format!("its staging client starts it again, with growing pauses; `staging-client logs` on {name} shows its end"),
        ),
        Serving::Failed(retry) => Standing::retried("its deployment failed", retry, number),
    }
}

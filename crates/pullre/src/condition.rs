//! What is true of one environment: the one place that both the planner and the words for people
//! start from. Pure.

use std::fmt;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::admission::{Admission, Excluded};
use crate::domain::{InstanceState, Login, PullNumber, PullState, SchemaName, ServerId, Sha};
use crate::facts::{
    Agent, App, AppDeath, Assignment, CloneState, Deployment, Facts, Hold, Outcome, Pull,
    SchemaClone, Server,
};
use crate::ownership;
use crate::schema_clone::Cloning;
use crate::words;

/// How long things may take, and what may have an environment. From app.ini.
#[derive(Debug, Clone)]
pub struct Policy {
    /// For an instance to come up.
    pub start_timeout: Duration,
    /// For a staging client to give a sign of life.
    pub agent_timeout: Duration,
    /// How long an environment that became ineligible keeps its server.
    pub grace: Duration,
    /// More environments than this are never stopped or cloned over in one tick unconfirmed.
    pub max_changes: usize,
    /// How long history is kept.
    pub keep: Duration,
    /// How clones are made.
    pub cloning: Cloning,
    /// The operator's rules.
    pub admission: Admission,
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            start_timeout: Duration::from_secs(600),
            agent_timeout: Duration::from_secs(600),
            grace: Duration::from_secs(3600),
            max_changes: 10,
            keep: Duration::from_secs(90 * 86_400),
            cloning: Cloning::default(),
            admission: Admission::default(),
        }
    }
}

/// What an eligible pull request is to get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub sha: Sha,
    pub source: SchemaName,
}

/// Why a pull request may have no environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ineligible {
    Excluded(Excluded),
    /// A person gave its server back until further notice.
    Stopped {
        number: PullNumber,
        by: String,
        since: Timestamp,
    },
    ForkNotApproved {
        number: PullNumber,
        head: Sha,
    },
    ForkMovedOn {
        number: PullNumber,
        head: Sha,
        approved: Sha,
    },
    NoSchema {
        author: Option<Login>,
    },
    BadSchema {
        login: Login,
        problem: String,
    },
    NotDescribed,
}

impl fmt::Display for Ineligible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ineligible::Excluded(rule) => write!(f, "{rule}"),
            Ineligible::Stopped { number, by, since } => write!(
                f,
                "it was stopped by {by} {}; `update-pull pull release {}` brings it back",
                words::moment(*since),
                number.0
            ),
            Ineligible::ForkNotApproved { number, head } => write!(
                f,
                "it comes from a fork; `update-pull pull approve {} {head}` lets exactly this commit run",
                number.0
            ),
            Ineligible::ForkMovedOn { number, head, approved } => write!(
                f,
                "its fork has a new head {} while {} is approved; `update-pull pull approve {} {head}` lets it run",
                head.short(),
                approved.short(),
                number.0
            ),
            Ineligible::NoSchema { author } => {
                let (who, set) = match author {
                    Some(login) => (format!("its author {login} has"), login.0.as_str()),
                    None => ("its author's account is gone and there is".into(), Login::DEFAULT),
                };
                write!(
                    f,
                    "{who} no schema to clone; `update-pull user set {set} SCHEMA` gives one \
                     (the login `default` is for everybody else)"
                )
            }
            Ineligible::BadSchema { login, problem } => {
                write!(f, "the schema of user {login} cannot be used: {problem}")
            }
            Ineligible::NotDescribed => {
                write!(
                    f,
                    "GitHub has not described it to us yet; the next tick that reads GitHub decides"
                )
            }
        }
    }
}

/// Whether `pull` may have an environment, and of what.
pub fn eligibility(pull: &Pull, facts: &Facts, policy: &Policy) -> Result<Target, Ineligible> {
    if !pull.described {
        return Err(Ineligible::NotDescribed);
    }
    match policy.admission.excludes(&pull.request) {
        Some(rule) => Err(Ineligible::Excluded(rule)),
        None => target(pull, facts),
    }
}

/// That a person has stopped it, whatever else is true of it.
pub fn stopped(pull: &Pull) -> Option<Ineligible> {
    let stop = pull.stopped.as_ref()?;
    let number = pull.request.number;
    Some(Ineligible::Stopped { number, by: stop.by.clone(), since: stop.since })
}

/// What `pull` is to get if no rule of the operator's keeps it out.
pub fn target(pull: &Pull, facts: &Facts) -> Result<Target, Ineligible> {
    if !pull.described {
        return Err(Ineligible::NotDescribed);
    }
    if let Some(why) = stopped(pull) {
        return Err(why);
    }
    let request = &pull.request;
    let (number, head) = (request.number, request.head.clone());
    if request.is_fork {
        match &pull.approved {
            None => return Err(Ineligible::ForkNotApproved { number, head }),
            Some(approved) if *approved != head => {
                let approved = approved.clone();
                return Err(Ineligible::ForkMovedOn { number, head, approved });
            }
            Some(_) => {}
        }
    }
    let registered = |login: &Login| facts.users.iter().find(|user| user.login == *login);
    let user = request
        .author
        .as_ref()
        .and_then(registered)
        .or_else(|| registered(&Login(Login::DEFAULT.into())));
    match user {
        None => Err(Ineligible::NoSchema { author: request.author.clone() }),
        Some(user) => match &user.schema {
            Ok(schema) => Ok(Target { sha: head, source: schema.clone() }),
            Err(problem) => Err(Ineligible::BadSchema {
                login: user.login.clone(),
                problem: problem.to_string(),
            }),
        },
    }
}

/// Why a server can serve nobody any more, if so.
pub(crate) fn lost(server: &Server) -> Option<String> {
    if !server.is_staging {
        return Some("it is not in the pool (is_staging is 0)".into());
    }
    if server.instance.is_none() {
        return Some("it names no instance".into());
    }
    match server.state {
        Some(InstanceState::Terminated) => Some("its instance is terminated".into()),
        None => Some("its instance does not exist, or no tick has seen it yet".into()),
        Some(_) => None,
    }
}

/// Why a server cannot be given to anybody, if so; whether it is free is another question.
pub fn unusable(server: &Server, facts: &Facts) -> Option<String> {
    lost(server)
        .or_else(|| {
            let twin = twin(server, facts)?;
            Some(format!("server {} names the same instance; remove one of them", twin.name))
        })
        .or_else(|| schema_problem(server, facts))
}

/// Another row that names the same machine.
pub fn twin<'f>(server: &Server, facts: &'f Facts) -> Option<&'f Server> {
    let same = |other: &&Server| other.id != server.id && other.instance == server.instance;
    server.instance.as_ref()?;
    facts.servers.values().find(same)
}

fn schema_problem(server: &Server, facts: &Facts) -> Option<String> {
    match &server.schema {
        Err(problem) => Some(format!("its db_schema cannot be used: {problem}")),
        Ok(schema) => ownership::schema_refused(schema, server.id, facts),
    }
}

/// How long to wait after the given number of failed tries: 1, 2, 4, ... minutes, an hour at most.
pub fn pause_after(attempts: u32) -> SignedDuration {
    let minutes = 1_i64 << attempts.saturating_sub(1).min(6);
    SignedDuration::from_mins(minutes.min(60))
}

/// A thing that failed and is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    pub attempts: u32,
    pub at: Timestamp,
    pub error: String,
}

/// The machine of an environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Power {
    Up,
    /// Asked for, or on its way; `overdue` is true after the deadline.
    ComingUp {
        since: Option<Timestamp>,
        overdue: bool,
    },
    /// A stop must end before a start is possible.
    GoingDown,
    /// To be started now.
    Down,
    /// Its start was refused, or it fell back; waiting for the next try.
    Fell(Retry),
    /// The row of the server makes no sense: nothing is known, and nothing done.
    Unreadable,
    /// This server can serve nobody any more.
    Lost(String),
}

/// The schema clone of an environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    Ready,
    /// To be cloned now.
    Missing,
    /// A person asked for the previous clone, which is to be brought back now.
    PreviousWanted,
    /// A tick copies it, or died copying: only its lock tells.
    Building {
        since: Option<Timestamp>,
    },
    /// The app that works on the schema must be stopped by the server's client first.
    AppInTheWay {
        of: PullNumber,
        silent: Option<String>,
    },
    Failed(Retry),
    /// The row of the server forbids it; nothing is tried before a person changes it.
    Refused(String),
}

/// The app of an environment, as its server's client reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Serving {
    /// Nothing is offered, or something else than the wanted commit.
    NotOffered,
    Waiting {
        since: Timestamp,
        silent: Option<String>,
    },
    Deploying {
        since: Timestamp,
        silent: Option<String>,
    },
    /// `silent`: whether it still is, nobody knows.
    Served {
        silent: Option<String>,
    },
    /// It was served, and its app is gone since; the client starts it again, with pauses, and
    /// says how it went where it was more than a restart of the machine.
    Gone(Option<AppDeath>),
    Failed(Retry),
}

/// What is true of an environment that has a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    pub server: ServerId,
    pub power: Power,
    pub data: Data,
    pub serving: Serving,
}

/// Assesses an environment with a server, for the commit that it should serve.
pub fn assess(
    assignment: &Assignment,
    target: &Target,
    facts: &Facts,
    policy: &Policy,
    now: Timestamp,
) -> Condition {
    let server = facts.servers.get(&assignment.server);
    let (power, data) = match server {
        None if facts.unreadable_servers.contains(&assignment.server) => {
            (Power::Unreadable, Data::Missing)
        }
        None => (Power::Lost("its row is gone".into()), Data::Missing),
        Some(server) => match lost(server) {
            Some(why) => (Power::Lost(why), Data::Missing),
            None => {
                let power = power(server, policy, now);
                let since = assignment.assigned_at;
                let data = data(server, assignment.pull, since, facts, policy, now);
                (power, data)
            }
        },
    };
    let serving = serving(assignment, target, server, policy, now);
    Condition { server: assignment.server, power, data, serving }
}

fn power(server: &Server, policy: &Policy, now: Timestamp) -> Power {
    let start = &server.start;
    let overdue =
        |since: Option<Timestamp>| since.is_some_and(|t| past(t, policy.start_timeout, now));
    match server.state {
        Some(InstanceState::Running) => Power::Up,
        Some(InstanceState::Pending) => {
            let since = start.requested_at;
            Power::ComingUp { since, overdue: overdue(since) }
        }
        Some(InstanceState::Stopping) => Power::GoingDown,
        // Asked for a moment ago and still shown as stopped: providers answer late. Only after the
        // pause does it count as fallen back, and is tried again.
        _ => match start.requested_at {
            None => Power::Down,
            Some(at) => {
                let next = at + pause_after(start.attempts);
                if now >= next {
                    Power::Down
                } else if start.attempts > 1 || start.error.is_some() {
                    let error = start.error.clone().unwrap_or_else(|| {
                        format!("started {} times, and it falls back to stopped", start.attempts)
                    });
                    Power::Fell(Retry { attempts: start.attempts, at: next, error })
                } else {
                    Power::ComingUp { since: Some(at), overdue: false }
                }
            }
        },
    }
}

/// How far the data of `pull` on this server is, which it has `since` then.
pub fn data(
    server: &Server,
    pull: PullNumber,
    since: Timestamp,
    facts: &Facts,
    policy: &Policy,
    now: Timestamp,
) -> Data {
    let clone = server.schema.as_ref().ok().and_then(|schema| facts.clones.get(schema));
    if let Some(clone) = clone
        && clone.pull == Some(pull)
        && clone.server == server.id
    {
        let failed_undo = clone.state == CloneState::Undo && clone.error.is_some();
        match clone.state {
            // One that was made under other masking rules may hold what nobody shall see.
            CloneState::Ready if is_masked_right(clone, policy) => return Data::Ready,
            _ if failed_undo || matches!(clone.state, CloneState::Failed | CloneState::Refused) => {
                let at = clone.finished_at.map(|t| t + pause_after(clone.attempts));
                if let Some(at) = at.filter(|at| now < *at) {
                    return Data::Failed(Retry {
                        attempts: clone.attempts,
                        at,
                        error: clone.error.clone().unwrap_or_default(),
                    });
                }
            }
            _ => {}
        }
    }
    if let Some(why) = schema_problem(server, facts) {
        return Data::Refused(why);
    }
    match (&server.app, clone) {
        (Some(app), _) => {
            // A client that was never seen is not waited for longer than one that fell silent.
            let silent = silent(server.agent.as_ref(), Some(since), policy, now)
                .or_else(|| server.trouble.clone());
            Data::AppInTheWay { of: app.pull, silent }
        }
        (None, Some(clone)) if clone.state == CloneState::Building && clone.pull == Some(pull) => {
            Data::Building { since: clone.started_at }
        }
        (None, Some(clone))
            if clone.state == CloneState::Undo
                && clone.pull == Some(pull)
                && clone.server == server.id
                && is_masked_right(clone, policy) =>
        {
            Data::PreviousWanted
        }
        (None, _) => Data::Missing,
    }
}

fn is_masked_right(clone: &SchemaClone, policy: &Policy) -> bool {
    clone.contents.mask.as_deref() == policy.cloning.mask.digest()
}

fn serving(
    assignment: &Assignment,
    target: &Target,
    server: Option<&Server>,
    policy: &Policy,
    now: Timestamp,
) -> Serving {
    let Some(deployment) = &assignment.deployment else {
        return Serving::NotOffered;
    };
    if deployment.sha != target.sha {
        return Serving::NotOffered;
    }
    let agent = server.and_then(|server| server.agent.as_ref());
    let silent_since = |since| silent(agent, Some(since), policy, now);
    match deployment.outcome {
        Outcome::Succeeded => {
            let reported = server.and_then(|server| server.app.as_ref());
            let serves = |app: &App| app.pull == assignment.pull && app.sha == deployment.sha;
            // Until the client has proved that it runs again: it says that an app is at the schema
            // before it starts it.
            let death = server.and_then(|server| server.death.clone());
            match death.filter(|death| death.deployment == deployment.id) {
                None if reported.is_some_and(serves) => {
                    let since = deployment.finished_at.unwrap_or(deployment.offered_at);
                    // Where there never was a client of ours, pullre-kun brought it up.
                    let silent = agent.and_then(|_| silent_since(since));
                    Serving::Served { silent }
                }
                death => Serving::Gone(death),
            }
        }
        Outcome::Superseded => Serving::NotOffered,
        Outcome::Offered => {
            let since = deployment.offered_at;
            let ignored = past(since, policy.agent_timeout, now);
            let silent = silent_since(since).or_else(|| {
                ignored
                    .then(|| "its staging client lives but does not take up the deployment".into())
            });
            Serving::Waiting { since, silent }
        }
        Outcome::Running => {
            let since = deployment.started_at.unwrap_or(deployment.offered_at);
            Serving::Deploying { since, silent: silent_since(since) }
        }
        Outcome::Failed => Serving::Failed(retry_of(deployment)),
    }
}

/// Says so if the client has been silent for too long, counted from `since` at the earliest.
pub fn silent(
    agent: Option<&Agent>,
    since: Option<Timestamp>,
    policy: &Policy,
    now: Timestamp,
) -> Option<String> {
    let seen = agent.map(|agent| agent.seen_at);
    let last = seen.max(since)?;
    past(last, policy.agent_timeout, now).then(|| match seen {
        None => "its staging client has never given a sign of life".to_owned(),
        Some(at) => format!("its staging client is silent since {}", words::moment(at)),
    })
}

fn retry_of(deployment: &Deployment) -> Retry {
    let ended = deployment.finished_at.unwrap_or(deployment.offered_at);
    let step = deployment.failed_step.as_deref().unwrap_or("deployment");
    let reason = deployment.reason.as_deref().unwrap_or("no reason recorded");
    Retry {
        attempts: deployment.attempt,
        at: ended + pause_after(deployment.attempt),
        error: format!("{step}: {reason}"),
    }
}

fn past(since: Timestamp, limit: Duration, now: Timestamp) -> bool {
    words::between(since, now) > limit
}

/// The hold that keeps all automatic hands off this pull request or its server, if any.
pub fn hold<'f>(pull: &'f Pull, server: Option<&'f Server>, now: Timestamp) -> Option<&'f Hold> {
    let of_server = server.and_then(|server| server.hold.as_ref());
    pull.hold
        .as_ref()
        .filter(|hold| hold.holds_at(now))
        .or_else(|| of_server.filter(|hold| hold.holds_at(now)))
}

/// The same for people: what is held, since when and why, and the command that ends it.
pub fn held(pull: &Pull, server: Option<&Server>, now: Timestamp) -> Option<(String, String)> {
    let hold = hold(pull, server, now)?;
    match server {
        Some(server) if pull.hold.as_ref() != Some(hold) => {
            let name = &server.name;
            let ends = format!("update-pull server release {name}");
            Some((format!("its server {name} is {hold}"), ends))
        }
        _ => {
            let ends = format!("update-pull pull release {}", pull.request.number.0);
            Some((format!("it is {hold}"), ends))
        }
    }
}

/// Open, eligible and without a server, in the order in which they get one: by when they became
/// eligible, then by number.
pub fn queue<'f>(facts: &'f Facts, policy: &Policy, now: Timestamp) -> Vec<&'f Pull> {
    let mut waiting: Vec<&Pull> = facts
        .pulls
        .values()
        .filter(|pull| {
            pull.request.state == PullState::Open
                && !facts.assignments.contains_key(&pull.request.number)
                && hold(pull, None, now).is_none()
                && eligibility(pull, facts, policy).is_ok()
        })
        .collect();
    waiting.sort_by_key(|pull| (pull.eligible_since.unwrap_or(now), pull.request.number));
    waiting
}

/// How long a server whose start was refused for lack of machines is the last choice.
const CAPACITY_PAUSE: Duration = Duration::from_secs(1800);

/// Whether the provider lately had no machine for this server.
pub fn lacks_capacity(server: &Server, now: Timestamp) -> bool {
    server.no_capacity_at.is_some_and(|at| words::between(at, now) < CAPACITY_PAUSE)
}

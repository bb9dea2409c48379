//! What follows from what was observed. Pure: every decision of a tick is made here, and the
//! result is a value that an operator can read.

mod display;
mod record;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::condition::{self, Condition, Data, Policy, Power, Serving, Target};
use crate::domain::{
    Instance, InstanceId, InstanceState, PullNumber, PullState, SchemaName, ServerId, Sha,
};
use crate::facts::{Assignment, Facts, Pull, Server};
use crate::ports::PullReading;
use crate::report::plan::Saying;
use crate::roster::Roster;
use crate::words;

pub use display::ActionOn;
pub use record::Record;

/// What people entered in a copy is worth a few tries, before the environment moves to another
/// server and gets a fresh one.
const TRIES_BEFORE_MOVING_DATA: u32 = 3;

/// What a source said, if it did. `Unknown` never counts as "empty".
#[derive(Debug, Clone)]
pub enum Reading<T> {
    Known(T),
    /// Asked, and failed: why.
    Unknown(String),
}

impl<T> Reading<T> {
    pub fn known(&self) -> Option<&T> {
        match self {
            Reading::Known(value) => Some(value),
            Reading::Unknown(_) => None,
        }
    }

    pub fn unknown(&self) -> Option<&str> {
        match self {
            Reading::Known(_) => None,
            Reading::Unknown(why) => Some(why),
        }
    }
}

/// Everything that [`plan`] looks at.
#[derive(Debug, Clone)]
pub struct Observed {
    pub now: Timestamp,
    pub facts: Facts,
    pub forge: Reading<PullReading>,
    pub instances: Reading<BTreeMap<InstanceId, Instance>>,
    pub policy: Policy,
    /// A person has confirmed that many environments may change at once.
    pub confirmed: bool,
}

/// What a tick does, in this order: it records what it saw, then works on the chains side by side.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    pub records: Vec<Record>,
    pub chains: Vec<Chain>,
    /// Chains that are only done once a person has confirmed them.
    pub refused: Vec<Chain>,
    pub limit: usize,
    pub queue: Vec<Waiting>,
    pub notes: Vec<String>,
    /// What is said on GitHub once all of this is recorded; more may follow from what is done.
    pub sayings: Vec<Saying>,
}

impl Plan {
    /// Nothing to record and nothing to do.
    pub fn is_idle(&self) -> bool {
        self.records.is_empty() && self.chains.is_empty() && self.refused.is_empty()
    }

    pub(super) fn refusal(&self) -> String {
        format!(
            "{} environments would be stopped or cloned over at once, and max_changes is {}; if that \
             is right: update-pull tick --confirm",
            self.refused.len(),
            self.limit
        )
    }

    /// There is something that a log should hold. Who waits, and why, has been said when it began.
    pub fn has_news(&self) -> bool {
        let seen = self.records.iter().any(|record| !record.is_bookkeeping());
        seen || !self.chains.is_empty() || !self.refused.is_empty()
    }

    pub fn chain(&self, subject: Subject) -> Option<&Chain> {
        self.chains.iter().find(|chain| chain.subject == subject)
    }
}

/// A place in the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    pub pull: PullNumber,
    /// From 1.
    pub place: usize,
    pub why: String,
}

/// Whom a chain works for; at most one chain each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    Environment(PullNumber),
    Server(ServerId),
}

/// Actions in order; if one fails, the rest is left for a later tick.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    pub subject: Subject,
    pub server: ServerId,
    pub server_name: String,
    pub why: String,
    pub actions: Vec<Action>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// The server becomes this environment's, by compare-and-set.
    Assign {
        source: SchemaName,
    },
    /// The server's client shall stop the app: its machine or its data is about to change.
    Withdraw,
    Start {
        instance: InstanceId,
    },
    Clone {
        source: SchemaName,
        destination: SchemaName,
    },
    /// The previous clone takes the place of the one that replaced it.
    Undo {
        schema: SchemaName,
    },
    /// The client may deploy this commit.
    Offer {
        sha: Sha,
        attempt: u32,
    },
    /// The server is nobody's any more, and a stop is owed.
    Release,
    Stop {
        instance: InstanceId,
    },
}

impl Action {
    /// Takes something away from an environment that had it.
    fn disrupts(&self) -> bool {
        matches!(self, Action::Release | Action::Withdraw)
    }
}

/// Plans one tick.
pub fn plan(observed: &Observed) -> Plan {
    let mut facts = observed.facts.clone();
    let records = record::records(observed, &mut facts);
    let mut plan = Plan {
        records,
        limit: observed.policy.max_changes,
        notes: notes(observed),
        ..Plan::default()
    };
    if facts.paused.is_some() {
        return plan;
    }
    // Without the instances' states there is nothing to decide about machines; offers and releases
    // wait with them, since each ends in one.
    if observed.instances.known().is_none() {
        return plan;
    }
    let roster = Roster::of(&facts);
    let mut free = roster.free(&facts, observed.now);
    let queue = condition::queue(&facts, &observed.policy, observed.now);
    // What could be given to an environment whose own server has no machine: what is free, less
    // what those in the queue are about to get.
    let spare = free.iter().filter(|free| !free.lacks_capacity).count().saturating_sub(queue.len());
    let mut chains = assigned(observed, &facts, spare);
    let mut taken = BTreeSet::new();
    let mut why = None;
    for (index, pull) in queue.into_iter().enumerate() {
        let best = (0..free.len()).min_by_key(|&at| free[at].rank(pull));
        match best {
            Some(best) => {
                let server = free.swap_remove(best).server;
                taken.insert(server.id);
                chains.extend(bring_up(pull, server, &facts, observed));
            }
            None => plan.queue.push(Waiting {
                pull: pull.request.number,
                place: index + 1 - taken.len(),
                // The same for all of them; a thousand may wait.
                why: why
                    .get_or_insert_with(|| roster.none_free(&facts, &taken, observed.now))
                    .clone(),
            }),
        }
    }
    chains.extend(owed_stops(&facts, &taken, observed));

    let disrupts = |chain: &Chain| chain.actions.iter().any(Action::disrupts);
    let disrupted = chains.iter().filter(|chain| disrupts(chain)).count();
    if disrupted > observed.policy.max_changes && !observed.confirmed {
        (plan.refused, plan.chains) = chains.into_iter().partition(disrupts);
    } else {
        plan.chains = chains;
    }
    let refused = (!plan.refused.is_empty()).then(|| plan.refusal());
    if refused != facts.refused {
        plan.records.push(Record::Refused(refused));
    }
    plan
}

/// The chains of the environments that have a server. `spare`: so many of them can have another.
fn assigned(observed: &Observed, facts: &Facts, mut spare: usize) -> Vec<Chain> {
    let now = observed.now;
    let mut chains = Vec::new();
    for assignment in facts.assignments.values() {
        let Some(pull) = facts.pulls.get(&assignment.pull) else {
            continue; // An unreadable row, named in the notes: never acted upon.
        };
        let server = facts.servers.get(&assignment.server);
        if condition::hold(pull, server, now).is_some() {
            continue;
        }
        let why = released(pull, &observed.policy, facts, now);
        // What GitHub does not say now may have changed: nothing is taken away on it. A person's
        // stop is no word of GitHub's.
        if why.is_some() && observed.forge.known().is_none() && pull.stopped.is_none() {
            continue;
        }
        chains.extend(match why {
            Some(why) => Some(chain(assignment, facts, why, vec![Action::Release])),
            None => condition::eligibility(pull, facts, &observed.policy).ok().and_then(|target| {
                let condition =
                    condition::assess(assignment, &target, facts, &observed.policy, now);
                if spare > 0 && server.is_some_and(|server| should_move(server, &condition, now)) {
                    spare -= 1;
                    let why = "the provider has no machine for it, and another server is free";
                    return Some(chain(assignment, facts, why.into(), vec![Action::Release]));
                }
                advance(assignment, server, &condition, &target, facts, now)
            }),
        });
    }
    chains
}

/// Whether an environment is better off with another server, since the provider has no machine
/// for the one that it has.
fn should_move(server: &Server, condition: &Condition, now: Timestamp) -> bool {
    matches!(condition.power, Power::Fell(_) | Power::Down)
        && condition::lacks_capacity(server, now)
        && (condition.data != Data::Ready || server.start.attempts >= TRIES_BEFORE_MOVING_DATA)
}

/// Why an environment has to give its server back, if so.
fn released(pull: &Pull, policy: &Policy, facts: &Facts, now: Timestamp) -> Option<String> {
    if pull.request.state == PullState::Closed {
        return Some("closed".into());
    }
    // Whoever stops it wants the server back now, whatever else keeps it from having one.
    if let Some(why) = condition::stopped(pull) {
        return Some(format!("ineligible: {why}"));
    }
    let since = pull.ineligible_since?;
    let why = condition::eligibility(pull, facts, policy).err()?;
    (words::between(since, now) > policy.grace).then(|| format!("ineligible: {why}"))
}

/// The next actions of an environment that shall live.
fn advance(
    assignment: &Assignment,
    server: Option<&Server>,
    condition: &Condition,
    target: &Target,
    facts: &Facts,
    now: Timestamp,
) -> Option<Chain> {
    if let Power::Lost(why) = &condition.power {
        return Some(chain(assignment, facts, why.clone(), vec![Action::Release]));
    }
    let server = server?; // Unreadable: left alone.
    let (Some(instance), Ok(destination)) = (&server.instance, &server.schema) else {
        return None; // Lost, as above.
    };
    let mut actions = Vec::new();
    let mut why = String::new();
    let offered = assignment.deployment.is_some();
    if condition.power == Power::Down {
        why = "its instance is stopped".into();
        actions.extend(offered.then_some(Action::Withdraw));
        actions.push(Action::Start { instance: instance.clone() });
    }
    let refill = refill(&condition.data, &target.source, destination);
    match &condition.data {
        Data::Missing | Data::Building { .. } | Data::PreviousWanted => {
            if why.is_empty() {
                why = match condition.data {
                    Data::PreviousWanted => "asked for by a person".into(),
                    _ => "it needs its data".into(),
                };
            }
            // Never both at once: only after the withdrawal it is sure who is at the schema.
            if !offered {
                actions.extend(refill);
            } else if actions.is_empty() {
                actions.push(Action::Withdraw);
            }
        }
        Data::AppInTheWay { .. } if offered && actions.is_empty() => {
            why = "its data is to be replaced".into();
            actions.push(Action::Withdraw);
        }
        Data::Ready | Data::AppInTheWay { .. } | Data::Failed(_) | Data::Refused(_) => {}
    }
    if condition.power == Power::Up && condition.data == Data::Ready {
        let offer = |attempt| Action::Offer { sha: target.sha.clone(), attempt };
        match &condition.serving {
            Serving::NotOffered => {
                why = if offered { "new head" } else { "ready to deploy" }.into();
                actions.push(offer(1));
            }
            Serving::Failed(retry) if now >= retry.at => {
                why = format!("try again after {}", retry.error);
                actions.push(offer(retry.attempts + 1));
            }
            _ => {}
        }
    }
    (!actions.is_empty()).then(|| chain(assignment, facts, why, actions))
}

/// What brings its data into the schema, where that is to be done now.
fn refill(data: &Data, source: &SchemaName, schema: &SchemaName) -> Option<Action> {
    match data {
        Data::Missing | Data::Building { .. } => {
            Some(Action::Clone { source: source.clone(), destination: schema.clone() })
        }
        Data::PreviousWanted => Some(Action::Undo { schema: schema.clone() }),
        Data::Ready | Data::AppInTheWay { .. } | Data::Failed(_) | Data::Refused(_) => None,
    }
}

fn chain(assignment: &Assignment, facts: &Facts, why: String, actions: Vec<Action>) -> Chain {
    Chain {
        subject: Subject::Environment(assignment.pull),
        server: assignment.server,
        server_name: facts.server_name(assignment.server),
        why,
        actions,
    }
}

/// A free server for a pull request that waits. Start and clone go on at the same time: a start
/// is only asked for, and the machine boots while the data is copied.
fn bring_up(pull: &Pull, server: &Server, facts: &Facts, observed: &Observed) -> Option<Chain> {
    let target = condition::eligibility(pull, facts, &observed.policy).ok()?;
    let (Some(instance), Ok(destination)) = (&server.instance, &server.schema) else {
        return None;
    };
    let mut actions = vec![Action::Assign { source: target.source.clone() }];
    if server.state == Some(InstanceState::Stopped) {
        actions.push(Action::Start { instance: instance.clone() });
    }
    let number = pull.request.number;
    let data = condition::data(server, number, observed.now, facts, &observed.policy, observed.now);
    actions.extend(refill(&data, &target.source, destination));
    Some(Chain {
        subject: Subject::Environment(number),
        server: server.id,
        server_name: server.name.clone(),
        why: if pull.last_server == Some(server.id) {
            "the server that it had before".into()
        } else {
            "next in the queue".into()
        },
        actions,
    })
}

/// Machines that ran for an environment which is gone, and that nobody got since. While GitHub
/// says nothing, only those that a person's stop has freed.
fn owed_stops(facts: &Facts, taken: &BTreeSet<ServerId>, observed: &Observed) -> Vec<Chain> {
    let stopped = facts.pulls.values().filter(|pull| pull.stopped.is_some());
    let freed: BTreeSet<ServerId> = stopped.filter_map(|pull| pull.last_server).collect();
    let is_sure = |server: &Server| observed.forge.known().is_some() || freed.contains(&server.id);
    let held =
        |server: &Server| server.hold.as_ref().is_some_and(|hold| hold.holds_at(observed.now));
    facts
        .servers
        .values()
        .filter(|server| server.stop_owed && !taken.contains(&server.id) && !held(server))
        .filter(|server| is_sure(server))
        // Two rows of one machine: somebody may be served through the other one.
        .filter(|server| condition::twin(server, facts).is_none())
        .filter_map(|server| {
            Some(Chain {
                subject: Subject::Server(server.id),
                server: server.id,
                server_name: server.name.clone(),
                why: "no environment needs it".into(),
                actions: vec![Action::Stop { instance: server.instance.clone()? }],
            })
        })
        .collect()
}

fn notes(observed: &Observed) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(who) = &observed.facts.paused {
        notes.push(format!("paused {who}; nothing is done until `update-pull resume`"));
    }
    if let Reading::Unknown(why) = &observed.forge {
        notes.push(format!("what GitHub said before still counts: {why}"));
    }
    if let Reading::Unknown(why) = &observed.instances {
        notes.push(format!("no instance is touched: {why}"));
    }
    notes.extend(observed.facts.unreadable.iter().cloned());
    notes
}

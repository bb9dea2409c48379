//! What follows from what was observed. Pure: every decision of a tick is made here, and the
//! result is a value that an operator can read.

mod display;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;

use crate::condition::{self, Condition, Data, Ineligible, Policy, Power, Serving, Target};
use crate::domain::{
    Instance, InstanceId, InstanceState, PullNumber, PullRequest, PullState, SchemaName, ServerId,
    Sha,
};
use crate::facts::{Assignment, Facts, Hold, Pull, Server};
use crate::ports::{PullReading, ReadingMark};
use crate::report::plan::Saying;
use crate::roster::Roster;
use crate::words;

pub use display::ActionOn;

/// How often old history is looked for.
const FORGET_EVERY: Duration = Duration::from_secs(86_400);

/// A machine that is stopped so long after its start was accepted has fallen back.
const FALLS_AFTER: Duration = Duration::from_secs(20);

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

/// Something seen that is written into our own database. No effect on the outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    Pull(Box<PullRequest>),
    /// Only its time of change is another, as after a comment.
    Touched {
        pull: PullNumber,
        at: Timestamp,
    },
    /// The forge knows this pull request no more.
    Gone(PullNumber),
    Eligible(PullNumber),
    Ineligible(PullNumber),
    /// None: the provider knows no such instance.
    Instance {
        server: ServerId,
        name: String,
        state: Option<InstanceState>,
    },
    /// A start that was accepted ended in `stopped` again.
    FellBack {
        server: ServerId,
        name: String,
        why: String,
        no_capacity: bool,
    },
    /// The stop that we owed has been accepted, or is not ours to do any more.
    StopSettled {
        server: ServerId,
        name: String,
    },
    /// What waits for a person's confirmation, for `status` and `explain`; None: nothing any more.
    Refused(Option<String>),
    /// History that ended before this moment is removed.
    Forget {
        before: Timestamp,
    },
    /// Last of all, so that a crash before it costs only a second reading.
    Mark(ReadingMark),
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
    let records = records(observed, &mut facts);
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
    let mut chains = assigned(observed, &facts);
    let mut taken = BTreeSet::new();
    let roster = Roster::of(&facts);
    let mut free = roster.free(&facts, observed.now);
    let mut why = None;
    let queue = condition::queue(&facts, &observed.policy, observed.now);
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
                    .get_or_insert_with(|| no_server_free(&facts, &roster, &taken, observed.now))
                    .clone(),
            }),
        }
    }
    if observed.forge.known().is_some() {
        chains.extend(owed_stops(&facts, &taken, observed.now));
    }

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

/// What is to be written down, already applied to `facts`.
fn records(observed: &Observed, facts: &mut Facts) -> Vec<Record> {
    let mut records = Vec::new();
    if let Reading::Known(reading) = &observed.forge {
        for request in &reading.pulls {
            let known = facts.pulls.get(&request.number);
            if let Some(pull) = known.filter(|pull| pull.described && pull.request != *request) {
                let touched =
                    PullRequest { updated_at: request.updated_at, ..pull.request.clone() };
                if touched == *request {
                    let (pull, at) = (request.number, request.updated_at);
                    records.push(Record::Touched { pull, at });
                    continue;
                }
            }
            let news = match known {
                Some(pull) => !pull.described || pull.request != *request,
                // A closed one that was never open with us is history, not work.
                None => request.state == PullState::Open,
            };
            if news {
                records.push(Record::Pull(Box::new(request.clone())));
            }
        }
        records.extend(reading.gone.iter().copied().map(Record::Gone));
    }
    if let Reading::Known(instances) = &observed.instances {
        for server in facts.servers.values() {
            let seen = server.instance.as_ref().and_then(|id| instances.get(id));
            let state = seen.map(|instance| instance.state);
            if state != server.state {
                let name = server.name.clone();
                records.push(Record::Instance { server: server.id, name, state });
            }
        }
    }
    for record in &records {
        record.apply_to(facts, observed.now);
    }
    if let Reading::Known(instances) = &observed.instances {
        let fallen: Vec<_> = facts
            .servers
            .values()
            .filter_map(|server| fell_back(server, instances, observed.now))
            .collect();
        fallen.iter().for_each(|record| record.apply_to(facts, observed.now));
        records.extend(fallen);
    }
    if let Reading::Known(_) = &observed.instances {
        let settled: Vec<_> = facts
            .servers
            .values()
            .filter(|server| server.stop_owed && stop_is_settled(server, facts))
            .map(|server| Record::StopSettled { server: server.id, name: server.name.clone() })
            .collect();
        settled.iter().for_each(|record| record.apply_to(facts, observed.now));
        records.extend(settled);
    }
    let changed: Vec<_> = facts
        .pulls
        .values()
        .filter_map(|pull| eligibility_change(pull, facts, &observed.policy))
        .collect();
    changed.iter().for_each(|record| record.apply_to(facts, observed.now));
    records.extend(changed);
    records.extend(forget(observed));
    if let Reading::Known(PullReading { mark: Some(mark), .. }) = &observed.forge {
        records.push(Record::Mark(mark.clone()));
    }
    records
}

/// What the provider says of a machine that does not stay up. Its words count for this start only
/// after a moment: providers answer late, and may still give the reason of the last stop.
fn fell_back(
    server: &Server,
    instances: &BTreeMap<InstanceId, Instance>,
    now: Timestamp,
) -> Option<Record> {
    let asked = server.start.requested_at.filter(|_| server.start.error.is_none())?;
    let seen = instances.get(server.instance.as_ref()?)?;
    let reason = seen.reason.as_ref().filter(|reason| {
        // A person stopped it, here or inside of it: that says nothing about the start.
        !reason.contains("UserInitiatedShutdown")
            && !reason.contains("InstanceInitiatedShutdown")
            && !reason.starts_with("User initiated")
    })?;
    let late = words::between(asked, now) >= FALLS_AFTER;
    (seen.state == InstanceState::Stopped && late).then(|| Record::FellBack {
        server: server.id,
        name: server.name.clone(),
        why: format!("it fell back to stopped: {}", words::plain(reason)),
        no_capacity: reason.contains("InsufficientInstanceCapacity"),
    })
}

/// Once a day.
fn forget(observed: &Observed) -> Option<Record> {
    let done_lately = observed
        .facts
        .forgot_at
        .is_some_and(|at| words::between(at, observed.now) < FORGET_EVERY && at <= observed.now);
    let before = observed.now.checked_sub(observed.policy.keep).ok()?;
    (!done_lately).then_some(Record::Forget { before })
}

fn stop_is_settled(server: &Server, facts: &Facts) -> bool {
    let down = !matches!(server.state, Some(InstanceState::Running | InstanceState::Pending));
    // Taken out of the pool by a person: no longer ours to stop.
    down || !server.is_staging || facts.assignment_of_server(server.id).is_some()
}

fn eligibility_change(pull: &Pull, facts: &Facts, policy: &Policy) -> Option<Record> {
    if !pull.described || pull.request.state == PullState::Closed {
        return None;
    }
    let number = pull.request.number;
    match condition::eligibility(pull, facts, policy) {
        Ok(_) if pull.eligible_since.is_none() => Some(Record::Eligible(number)),
        Err(_) if pull.ineligible_since.is_none() => Some(Record::Ineligible(number)),
        _ => None,
    }
}

impl Record {
    /// Of no interest to a person.
    fn is_bookkeeping(&self) -> bool {
        matches!(
            self,
            Record::Mark(_) | Record::Forget { .. } | Record::Refused(_) | Record::Touched { .. }
        )
    }

    /// The same change on facts in memory as the store makes in its tables.
    pub fn apply_to(&self, facts: &mut Facts, now: Timestamp) {
        match self {
            Record::Pull(request) => {
                let pull = facts.pulls.entry(request.number).or_insert_with(|| Pull {
                    request: (**request).clone(),
                    described: true,
                    eligible_since: None,
                    ineligible_since: None,
                    approved: None,
                    hold: None,
                    stopped: None,
                    last_server: None,
                });
                pull.request = (**request).clone();
                pull.described = true;
                if request.state == PullState::Closed {
                    pull.eligible_since = None;
                    pull.ineligible_since = None;
                }
            }
            Record::Touched { pull, at } => {
                if let Some(pull) = facts.pulls.get_mut(pull) {
                    pull.request.updated_at = *at;
                }
            }
            Record::Gone(number) => {
                if let Some(pull) = facts.pulls.get_mut(number) {
                    pull.request.state = PullState::Closed;
                    pull.eligible_since = None;
                    pull.ineligible_since = None;
                }
            }
            Record::Eligible(number) | Record::Ineligible(number) => {
                if let Some(pull) = facts.pulls.get_mut(number) {
                    let eligible = matches!(self, Record::Eligible(_));
                    pull.eligible_since = eligible.then_some(now);
                    pull.ineligible_since = (!eligible).then_some(now);
                }
            }
            Record::Instance { server, state, .. } => {
                if let Some(server) = facts.servers.get_mut(server) {
                    server.state = *state;
                    match state {
                        Some(InstanceState::Running) => {
                            server.start = Default::default();
                            server.no_capacity_at = None;
                        }
                        Some(InstanceState::Pending | InstanceState::Stopping) => {}
                        // The machine is off: whatever ran on it runs no more.
                        Some(InstanceState::Stopped | InstanceState::Terminated) | None => {
                            server.app = None;
                        }
                    }
                }
            }
            Record::FellBack { server, why, no_capacity, .. } => {
                if let Some(server) = facts.servers.get_mut(server) {
                    server.start.error = Some(why.clone());
                    server.no_capacity_at = no_capacity.then_some(now).or(server.no_capacity_at);
                }
            }
            Record::StopSettled { server, .. } => {
                if let Some(server) = facts.servers.get_mut(server) {
                    server.stop_owed = false;
                }
            }
            Record::Refused(what) => facts.refused = what.clone(),
            Record::Forget { .. } => facts.forgot_at = Some(now),
            Record::Mark(mark) => facts.watermark = Some(mark.watermark),
        }
    }
}

/// The chains of the environments that have a server.
fn assigned(observed: &Observed, facts: &Facts) -> Vec<Chain> {
    let now = observed.now;
    let mut chains = Vec::new();
    // Counted only when it matters: that compares all servers with each other.
    let mut spare = None;
    for assignment in facts.assignments.values() {
        let Some(pull) = facts.pulls.get(&assignment.pull) else {
            continue; // An unreadable row, named in the notes: never acted upon.
        };
        let server = facts.servers.get(&assignment.server);
        if condition::hold(pull, server, now).is_some() {
            continue;
        }
        // What GitHub does not say now may have changed: nothing is taken away on it.
        let why = released(pull, &observed.policy, facts, now);
        if why.is_some() && observed.forge.known().is_none() {
            continue;
        }
        chains.extend(match why {
            Some(why) => Some(chain(assignment, facts, why, vec![Action::Release])),
            None => condition::eligibility(pull, facts, &observed.policy).ok().and_then(|target| {
                let condition =
                    condition::assess(assignment, &target, facts, &observed.policy, now);
                if server.is_some_and(|server| should_move(server, &condition, now)) {
                    let spare = spare.get_or_insert_with(|| {
                        condition::spare_servers(facts, &observed.policy, now)
                    });
                    if *spare > 0 {
                        *spare -= 1;
                        let why = "the provider has no machine for it, and another server is free";
                        return Some(chain(assignment, facts, why.into(), vec![Action::Release]));
                    }
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
    let since = pull.ineligible_since?;
    let why = condition::eligibility(pull, facts, policy).err()?;
    // Whoever stops it wants the server back now.
    let at_once = matches!(why, Ineligible::Stopped { .. });
    (at_once || words::between(since, now) > policy.grace).then(|| format!("ineligible: {why}"))
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

/// Machines that ran for an environment which is gone, and that nobody got since.
fn owed_stops(facts: &Facts, taken: &BTreeSet<ServerId>, now: Timestamp) -> Vec<Chain> {
    let held = |server: &Server| server.hold.as_ref().is_some_and(|hold| hold.holds_at(now));
    facts
        .servers
        .values()
        .filter(|server| server.stop_owed && !taken.contains(&server.id) && !held(server))
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

/// What a waiting pull request waits for; `taken` are servers that others are about to get.
pub fn no_server_free(
    facts: &Facts,
    roster: &Roster,
    taken: &BTreeSet<ServerId>,
    now: Timestamp,
) -> String {
    let pool: Vec<_> = facts.servers.values().filter(|server| server.is_staging).collect();
    if pool.is_empty() {
        return "there is no server in the pool; `update-pull server register` adds one".into();
    }
    let (used, rest): (Vec<&Server>, Vec<&Server>) = pool
        .iter()
        .partition(|server| roster.pull(server.id).is_some() || taken.contains(&server.id));
    let rest: Vec<_> = rest
        .into_iter()
        .filter_map(|server| {
            let held = server.hold.as_ref().filter(|hold| hold.holds_at(now)).map(Hold::to_string);
            let why = held.or_else(|| roster.unusable(server.id).cloned())?;
            Some(format!("{}: {why}", server.name))
        })
        .collect();
    let mut text = format!("no server is free: {} of {} in use", used.len(), pool.len());
    for why in rest {
        text.push_str("; ");
        text.push_str(&why);
    }
    text
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

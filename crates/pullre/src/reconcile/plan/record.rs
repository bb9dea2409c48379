//! What a tick writes down of what it saw. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::{Observed, Reading};
use crate::condition::{self, Policy};
use crate::domain::{
    Instance, InstanceId, InstanceState, PullNumber, PullRequest, PullState, ServerId,
};
use crate::facts::{Facts, Pull, Server};
use crate::ports::{PullReading, ReadingMark};
use crate::words;

/// How often old history is looked for.
const FORGET_EVERY: Duration = Duration::from_secs(86_400);

/// A machine that is stopped so long after its start was accepted has fallen back.
const FALLS_AFTER: Duration = Duration::from_secs(20);

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

/// What is to be written down, already applied to `facts`.
pub(super) fn records(observed: &Observed, facts: &mut Facts) -> Vec<Record> {
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
    pub(super) fn is_bookkeeping(&self) -> bool {
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

//! What a team's chat is told: once when it begins, and once when it is over.
//!
//! Told at least once: a crash right after the chat has taken it tells it again.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use crate::condition::{self, Policy};
use crate::domain::{InstanceState, PullState};
use crate::facts::{Assignment, Facts, Outcome, Server};
use crate::reconcile::lock::{LockName, Locks};
use crate::roster::Roster;
use crate::stage::{Stage, standing};
use crate::store::{Store, StoreError};
use crate::words;

/// What may be over in a moment is told only after this.
const PATIENCE: Duration = Duration::from_secs(300);

/// A chat that fails so often is left alone until the next tick.
const MOST_FAILURES: usize = 3;

/// The alert that nobody can be told: that the chat itself is away. It keeps the warning from
/// being given at each tick, and goes with the next message that the chat takes.
const CHAT: &str = "chat";

/// Something that a person should see to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// The same for the same thing in each tick.
    pub name: String,
    pub message: String,
    pub patience: Duration,
    /// Not so now, and not known to be over: nobody is told that it begins or ends.
    pub goes_on: bool,
}

/// All that is wrong now. `forge`: why GitHub could not be read. Pure.
pub fn alerts(
    facts: &Facts,
    policy: &Policy,
    forge: Option<&str>,
    page: Option<&str>,
    now: Timestamp,
) -> Vec<Alert> {
    let mut alerts = Vec::new();
    let mut add = |name: String, message: String, patience, goes_on| {
        let message = words::plain(&message);
        alerts.push(Alert { name, message, patience, goes_on });
    };
    if let Some(why) = forge {
        add("github".into(), format!("no news of pull requests: {why}"), PATIENCE, false);
    }
    for pull in facts.pulls.values().filter(|pull| pull.request.state == PullState::Open) {
        let number = pull.request.number;
        let Some(assignment) = facts.assignments.get(&number) else { continue };
        let standing = standing(pull, facts, policy, now);
        // That its server is silent is told below.
        let told = assignment.deployment.as_ref().is_some_and(|deployment| {
            let server = facts.servers.get(&assignment.server);
            deployment.outcome != Outcome::Failed
                && server.is_some_and(|server| is_silent(server, assignment, policy, now))
        });
        if standing.stage != Stage::Ready {
            let page = page.map_or(String::new(), |page| format!(" {page}"));
            let text = format!("the environment of {number} failed: {}{page}", standing.why);
            // That it is tried again is not its end.
            let goes_on = standing.stage != Stage::Failed || told;
            add(format!("failed {}", number.0), text, Duration::ZERO, goes_on);
        }
    }
    for server in facts.servers.values() {
        let Some(assignment) = facts.assignment_of_server(server.id) else { continue };
        let held = server.hold.as_ref().is_some_and(|hold| hold.holds_at(now));
        let last = last_sign(server, assignment);
        if is_silent(server, assignment, policy, now) {
            let text = format!(
                "server {} is silent since {}; it serves {}",
                server.name,
                words::moment(last),
                assignment.pull
            );
            add(format!("silent {}", server.id.0), text, Duration::ZERO, held);
        }
    }
    let queue = condition::queue(facts, policy, now);
    if !queue.is_empty() && Roster::of(facts).free(facts, now).is_empty() {
        let count = queue.len();
        let (s, waits) = if count == 1 { ("", "waits") } else { ("s", "wait") };
        let text = format!("no server is free, and {count} pull request{s} {waits}");
        add("pool".into(), text, PATIENCE, false);
    }
    alerts
}

/// Its client's last sign of life; before the first one, when it was given away.
fn last_sign(server: &Server, assignment: &Assignment) -> Timestamp {
    let seen = server.agent.as_ref().map(|agent| agent.seen_at);
    seen.unwrap_or(assignment.assigned_at).max(assignment.assigned_at)
}

fn is_silent(server: &Server, assignment: &Assignment, policy: &Policy, now: Timestamp) -> bool {
    server.state == Some(InstanceState::Running)
        && words::between(last_sign(server, assignment), now) > policy.agent_timeout
}

/// Tells the chat what is new, and what is over. `send` says why it could not.
pub fn tell(
    wanted: &[Alert],
    store: &mut Store,
    locks: &Locks,
    now: Timestamp,
    send: &dyn Fn(&str) -> Result<(), String>,
) -> Result<(), StoreError> {
    let known = store.alerts()?;
    let wanted: BTreeMap<&str, &Alert> = wanted.iter().map(|a| (a.name.as_str(), a)).collect();
    if known.is_empty() && wanted.values().all(|alert| alert.goes_on) {
        return Ok(());
    }
    // Another tick is at it: the next one looks again.
    let Ok(Some(_held)) = locks.try_lock(&LockName::Alerts) else { return Ok(()) };
    let known = store.alerts()?;
    let mut chat = Chat { send, failed: 0, was_away: known.contains_key(CHAT) };
    for (name, alert) in turned(wanted.iter().filter(|(_, alert)| !alert.goes_on), now) {
        let since = match known.get(*name) {
            None => {
                store.alert_began(name, &alert.message, now)?;
                now
            }
            Some(known) if known.told_at.is_none() => known.since,
            Some(_) => continue,
        };
        if words::between(since, now) < alert.patience {
            continue;
        }
        if chat.hears(&alert.message, store, now)? {
            store.alert_told(name, now)?;
        } else if chat.failed == MOST_FAILURES {
            return Ok(());
        }
    }
    let over = known
        .iter()
        .filter(|(name, _)| !wanted.contains_key(name.as_str()) && name.as_str() != CHAT);
    for (name, alert) in turned(over, now) {
        let end = format!("over: {}", alert.message);
        if alert.told_at.is_none() || chat.hears(&end, store, now)? {
            store.alert_over(name)?;
        } else if chat.failed == MOST_FAILURES {
            return Ok(());
        }
    }
    Ok(())
}

struct Chat<'a> {
    send: &'a dyn Fn(&str) -> Result<(), String>,
    failed: usize,
    /// It was warned of.
    was_away: bool,
}

impl Chat<'_> {
    /// Whether it took the message.
    fn hears(&mut self, text: &str, store: &mut Store, now: Timestamp) -> Result<bool, StoreError> {
        match (self.send)(text) {
            Ok(()) => {
                if self.was_away {
                    store.alert_over(CHAT)?;
                    self.was_away = false;
                }
                Ok(true)
            }
            Err(why) => {
                if !self.was_away {
                    tracing::warn!("the chat could not be told: {why}; later ticks try again");
                    store.alert_began(CHAT, &why, now)?;
                    self.was_away = true;
                }
                self.failed += 1;
                Ok(false)
            }
        }
    }
}

/// Begins elsewhere each minute, so that what the chat does not take keeps nothing else from it.
fn turned<T>(all: impl Iterator<Item = T>, now: Timestamp) -> Vec<T> {
    let mut all: Vec<T> = all.collect();
    let minute = usize::try_from(now.as_second() / 60).unwrap_or(0);
    let first = minute.checked_rem(all.len()).unwrap_or(0);
    all.rotate_left(first);
    all
}

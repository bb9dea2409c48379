//! What a team's chat is told: once when it begins, and once when it is over.
//!
//! Told at least once: a crash right after the chat has taken it tells it again.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

use crate::condition::{self, Policy};
use crate::domain::{InstanceState, PullState};
use crate::facts::{Assignment, Outcome, Server};
use crate::reconcile::lock::{LockName, Locks};
use crate::report::Settings;
use crate::stage::{Stage, Standing, Standings};
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
}

/// All that is wrong now, as far as that can be told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Alerts {
    pub wrong: Vec<Alert>,
    /// Names of what is not wrong now and not known to be over: nobody is told that it begins or
    /// ends.
    pub undecided: BTreeSet<String>,
}

impl Alerts {
    fn add(&mut self, name: String, message: &str, patience: Duration) {
        self.wrong.push(Alert { name, message: words::plain(message), patience });
    }
}

/// What a person should see to. `forge`: why GitHub could not be read. Pure.
pub fn alerts(standings: &Standings<'_>, settings: &Settings, forge: Option<&str>) -> Alerts {
    let Standings { facts, policy, now, .. } = *standings;
    let mut alerts = Alerts::default();
    if let Some(why) = forge {
        alerts.add("github".into(), &format!("no news of pull requests: {why}"), PATIENCE);
    }
    for pull in facts.pulls.values().filter(|pull| pull.request.state == PullState::Open) {
        let number = pull.request.number;
        let name = format!("failed {}", number.0);
        let Some(assignment) = facts.assignments.get(&number) else {
            // It waits for another server: whether it fails there as well is not known.
            if condition::eligibility(pull, facts, policy).is_ok() {
                alerts.undecided.insert(name);
            }
            continue;
        };
        // That its server is silent is told below.
        let told = assignment.deployment.as_ref().is_some_and(|deployment| {
            let server = facts.servers.get(&assignment.server);
            deployment.outcome != Outcome::Failed
                && server.is_some_and(|server| is_silent(server, assignment, policy, now))
        });
        let Standing { stage, why, .. } = standings.of(pull);
        match stage {
            Stage::Ready => {}
            Stage::Failed if !told => {
                let page = settings.page(number).map_or(String::new(), |page| format!(" {page}"));
                let text = format!("the environment of {number} failed: {why}{page}");
                alerts.add(name, &text, Duration::ZERO);
            }
            // That it is tried again is not its end.
            _ => drop(alerts.undecided.insert(name)),
        }
    }
    for server in facts.servers.values() {
        let Some(number) = standings.roster().pull(server.id) else { continue };
        let Some(assignment) = facts.assignments.get(&number) else { continue };
        if !is_silent(server, assignment, policy, now) {
            continue;
        }
        let name = format!("silent {}", server.id.0);
        if server.hold.as_ref().is_some_and(|hold| hold.holds_at(now)) {
            alerts.undecided.insert(name);
            continue;
        }
        let since = words::moment(last_sign(server, assignment));
        let text = format!("server {} is silent since {since}; it serves {number}", server.name);
        alerts.add(name, &text, Duration::ZERO);
    }
    let queue = condition::queue(facts, policy, now);
    if !queue.is_empty() && standings.roster().free(facts, now).is_empty() {
        let count = queue.len();
        let (s, waits) = if count == 1 { ("", "waits") } else { ("s", "wait") };
        let text = format!("no server is free, and {count} pull request{s} {waits}");
        alerts.add("pool".into(), &text, PATIENCE);
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
    alerts: &Alerts,
    store: &mut Store,
    locks: &Locks,
    now: Timestamp,
    send: &dyn Fn(&str) -> Result<(), String>,
) -> Result<(), StoreError> {
    let known = store.alerts()?;
    if known.is_empty() && alerts.wrong.is_empty() {
        return Ok(());
    }
    // Another tick is at it: the next one looks again.
    let Ok(Some(_held)) = locks.try_lock(&LockName::Alerts) else { return Ok(()) };
    let known = store.alerts()?;
    let mut chat = Chat { send, failed: 0, was_away: known.contains_key(CHAT) };
    for alert in turned(alerts.wrong.iter(), now) {
        let name = alert.name.as_str();
        let since = match known.get(name) {
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
    let wrong: BTreeSet<&str> = alerts.wrong.iter().map(|alert| alert.name.as_str()).collect();
    let over = known.iter().filter(|(name, _)| {
        !wrong.contains(name.as_str()) && !alerts.undecided.contains(*name) && *name != CHAT
    });
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

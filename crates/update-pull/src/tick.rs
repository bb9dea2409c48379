//! The tick as cron calls it; with `poll_seconds` one after the other, within the minute.

use std::collections::BTreeSet;
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use pullre::polling::next_look;
use pullre::reconcile::lock::{Held, LockName};
use pullre::reconcile::plan::ActionOn;
use pullre::reconcile::{Report, Said};
use pullre::stage::Standings;
use pullre::store::{Store, TickRow};
use pullre::{alerts, words};

use crate::commands::{Failure, Result};
use crate::installation::Installation;

/// Proof that no other run polls. Let go of while a tick acts, which may take long.
type Polling = Mutex<Option<Held>>;

pub fn run(installation: &Installation, now: Timestamp, confirm: bool) -> Result {
    let began = Instant::now();
    let every = installation.config.poll_seconds;
    let mut store = installation.store()?;
    let polling = Polling::default();
    // The first tick is every run's own: the run before this one may be at work for long.
    let first = once(installation, &mut store, &polling, now, confirm);
    if every == 0 {
        return first;
    }
    let mut said = BTreeSet::new();
    note(first, &mut said)?;
    while let Some(next) = next_look(began.elapsed(), every) {
        std::thread::sleep(next.saturating_sub(began.elapsed()));
        if !polls(installation, &polling)? {
            continue;
        }
        note(once(installation, &mut store, &polling, Timestamp::now(), false), &mut said)?;
    }
    match said.len() {
        0 => Ok(()),
        n => Err(Failure::Failed(format!("{n} failures in this run, said above"))),
    }
}

/// A failure that stays is said once in a run.
fn note(done: Result, said: &mut BTreeSet<String>) -> Result {
    match done {
        Err(Failure::Failed(why)) => {
            if said.insert(why.clone()) {
                eprintln!("update-pull: {why}");
            }
            Ok(())
        }
        other => other,
    }
}

/// Whether this run is the one that polls, from now on or still.
fn polls(installation: &Installation, polling: &Polling) -> Result<bool> {
    let mut held = polling.lock().unwrap_or_else(PoisonError::into_inner);
    if held.as_ref().is_none_or(|held| !held.is_held()) {
        // A connection that broke is let go of first.
        drop(held.take());
        *held = installation.locks.try_lock(&LockName::Polling).unwrap_or_else(|e| {
            tracing::warn!("whether another run polls cannot be told: {e}");
            None
        });
    }
    Ok(held.is_some())
}

/// One tick of a process that goes on, on a connection of its own.
pub fn single(installation: &Installation, now: Timestamp) -> Result {
    once(installation, &mut installation.store()?, &Polling::default(), now, false)
}

fn once(
    installation: &Installation,
    store: &mut Store,
    polling: &Polling,
    now: Timestamp,
    confirm: bool,
) -> Result {
    let watched = io::stdout().is_terminal();
    let told = |said: Said<'_>| {
        if let Said::Plan(plan) = &said
            && !plan.chains.is_empty()
        {
            drop(polling.lock().unwrap_or_else(PoisonError::into_inner).take());
        }
        let line = match &said {
            // Cron's log holds what was done; a person also wants to see that nothing is to do.
            Said::Plan(plan) if !plan.has_news() && !watched => return,
            Said::Plan(plan) => plan.to_string(),
            Said::Done { chain, action, took, detail } => {
                let detail = detail.as_ref().map_or(String::new(), |d| format!(" ({d})"));
                let (action, took) = (ActionOn(action, &chain.server_name), words::duration(*took));
                format!("done   {} {action} in {took}{detail}\n", chain.subject)
            }
            Said::Failed { chain, action, why } => {
                let action = ActionOn(action, &chain.server_name);
                format!("FAILED {} {action}: {why}\n", chain.subject)
            }
            Said::Left { chain, why } => {
                format!("left   {} on {}: {why}\n", chain.subject, chain.server_name)
            }
            Said::Told(saying) => format!("said   {saying}\n"),
        };
        // Whoever closed our stdout wants no more lines; the tick goes on all the same.
        let _ = io::stdout().lock().write_all(line.as_bytes());
    };
    let began = Instant::now();
    let mut report = installation.controller().tick_on(store, now, confirm, &told)?;
    if let Err(e) = alert(installation, store, &report) {
        report.failures.push(format!("the chat was not told: {e}"));
    }
    if let Err(e) = store.tick_ended(&measures(&report, now, began.elapsed())) {
        // The tick was done; only its measures are missing.
        tracing::warn!("this tick is not in the measures: {e}");
    }
    if report.failures.is_empty() {
        return Ok(());
    }
    Err(Failure::Failed(report.failures.join("\nupdate-pull: ")))
}

/// Tells the chat what a person should see to.
fn alert(installation: &Installation, store: &mut Store, report: &Report) -> Result {
    if !installation.config.report.alerts {
        return Ok(());
    }
    let standings = Standings::new(&report.facts, &installation.policy, report.known_at);
    let alerts = alerts::alerts(&standings, &installation.report, report.forge.as_deref());
    let send = |text: &str| installation.tell_chat(text, &report.facts);
    Ok(alerts::tell(&alerts, store, &installation.locks, report.known_at, &send)?)
}

/// How the tick went and how busy the pool is.
fn measures(report: &Report, began_at: Timestamp, took: Duration) -> TickRow {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    TickRow {
        began_at,
        took,
        pool: count(report.pool),
        busy: count(report.busy),
        queued: count(report.last.queue.len()),
        acted: count(report.acted),
        failed: count(report.failures.len()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_failure_that_stays_is_said_once_and_bad_usage_ends_the_run() {
        let mut said = BTreeSet::new();
        for why in ["GitHub is away", "GitHub is away", "the disk is full"] {
            note(Err(Failure::Failed(why.into())), &mut said).unwrap();
        }
        note(Ok(()), &mut said).unwrap();
        assert_eq!(said.len(), 2);
        note(Err(Failure::Usage("wrong".into())), &mut said).unwrap_err();
    }
}

//! `update-pull switch-servers`: servers outside the pool, by the clock.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use pullre::switches::{self, Outcome};

use crate::commands::{Failure, Result, say};
use crate::installation::Installation;

const ASK: &str = "set `auto_timezone` in app.ini to the time zone that they are meant in";

pub fn run(installation: &Installation, now: Timestamp) -> Result {
    let mut store = installation.store()?;
    let facts = store.facts()?;
    let mut outside = facts.servers.values().filter(|server| !server.is_staging);
    let zone = match &installation.config.auto_timezone {
        Some(zone) => zone.clone(),
        None => {
            if outside.any(|server| server.switching.as_ref().is_ok_and(|s| s.is_set())) {
                tracing::warn!("the times of servers are read as UTC: {ASK}");
            }
            TimeZone::UTC
        }
    };
    let mut failures = Vec::new();
    for server in facts.servers.values().filter(|server| !server.is_staging) {
        if let Err(e) = &server.switching {
            failures.push(format!("{} is not switched: {e}", server.name));
        }
    }
    let mut written = Ok(());
    switches::apply(
        &mut store,
        installation.compute(),
        &installation.locks,
        &zone,
        now,
        &mut |switch, outcome| {
            let line = match outcome {
                Outcome::Done => format!("done   {switch}"),
                Outcome::Left => format!("left   {switch}: another command is at work on it"),
                Outcome::Failed(why) => {
                    failures.push(format!("{switch}: {why}"));
                    format!("FAILED {switch}: {why}")
                }
            };
            if written.is_ok() {
                written = say(&line);
            }
        },
    )?;
    written?;
    match failures.is_empty() {
        true => Ok(()),
        false => Err(Failure::Failed(failures.join("\nupdate-pull: "))),
    }
}

/// Part of `init`: what pullre-kun's times mean depends on the time zone.
pub fn ask_for_time_zone(installation: &Installation) -> Result {
    if installation.config.auto_timezone.is_some() {
        return Ok(());
    }
    let facts = installation.store()?.facts()?;
    let told = switches::both_readings(&facts, Timestamp::now(), &TimeZone::system());
    if told.is_empty() {
        return Ok(());
    }
    told.iter().try_for_each(|line| say(line))?;
    say(&format!("{ASK}; without it they are read as UTC"))
}

//! What is wrong with an installation, as far as the control database tells. Pure; what must be
//! tried is tried by the binary.

use std::fmt;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::condition::{self, Policy};
use crate::domain::InstanceState;
use crate::facts::{Facts, Server};
use crate::report::plan::is_refused;
use crate::report::{Kind, Told};
use crate::status;
use crate::store::Mirrored;
use crate::words;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mark {
    Ok,
    /// Works, but somebody should know.
    Warn,
    /// Something does not work before it is mended.
    Missing,
}

/// One line of the report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub mark: Mark,
    pub what: String,
    /// What was found, and what to do where it is not well.
    pub text: String,
}

impl Line {
    pub fn new(mark: Mark, what: impl Into<String>, text: impl Into<String>) -> Line {
        Line { mark, what: what.into(), text: text.into() }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.mark {
            Mark::Ok => "ok",
            Mark::Warn => "warn",
            Mark::Missing => "MISSING",
        };
        write!(f, "{mark:<7}  {:<12}  {}", words::plain(&self.what), words::plain(&self.text))
    }
}

/// What the records say of servers, users and the controller itself.
pub fn records(facts: &Facts, policy: &Policy, has_zone: bool, now: Timestamp) -> Vec<Line> {
    let mut lines = Vec::new();
    if let Some(who) = &facts.paused {
        let text = format!("{who}: nothing is done before `update-pull resume`");
        lines.push(Line::new(Mark::Warn, "paused", text));
    }
    for why in &facts.unreadable {
        let text = format!("{why}; correct the row");
        lines.push(Line::new(Mark::Missing, "row", text));
    }
    if facts.users.is_empty() {
        let text = "nobody is registered, so no pull request gets an environment: `update-pull user \
                    set LOGIN SCHEMA`";
        lines.push(Line::new(Mark::Missing, "users", text));
    }
    if !facts.servers.values().any(|server| server.is_staging) {
        let text = "no server is in the pool: `update-pull server register INSTANCE_ID`";
        lines.push(Line::new(Mark::Missing, "servers", text));
    }
    for server in facts.servers.values() {
        lines.extend(of_server(server, facts, policy, has_zone, now));
    }
    lines
}

fn of_server(
    server: &Server,
    facts: &Facts,
    policy: &Policy,
    has_zone: bool,
    now: Timestamp,
) -> Vec<Line> {
    let name = &server.name;
    let mut lines = Vec::new();
    let mut line = |mark, text: String| lines.push(Line::new(mark, name.as_str(), text));
    if server.is_staging {
        match condition::unusable(server, facts) {
            Some(why) => line(
                Mark::Missing,
                format!("it can serve nobody: {why}; `update-pull server set {name} KEY=VALUE`"),
            ),
            None if server.check_url.is_none() => line(
                Mark::Warn,
                format!(
                    "it has no check_url, so nothing proves that its app answers: `update-pull \
                     server set {name} check_url=URL`"
                ),
            ),
            None => {}
        }
    }
    if let Some(hold) = server.hold.as_ref().filter(|hold| hold.holds_at(now)) {
        line(Mark::Warn, format!("{hold}; `update-pull server release {name}` ends it"));
    }
    let works = facts.assignment_of_server(server.id);
    let works = works.filter(|_| server.state == Some(InstanceState::Running));
    let seen = server.agent.as_ref().map(|agent| agent.seen_at);
    if let Some(assignment) = works
        && words::between(assignment.assigned_at, now) > policy.agent_timeout
        && seen.is_none_or(|at| words::between(at, now) > policy.agent_timeout)
    {
        let since = match seen {
            Some(at) => format!("is silent since {}", words::moment(at)),
            None => "has never given a sign of life".to_owned(),
        };
        line(
            Mark::Missing,
            format!(
                "its staging client {since}: look at its cron, and at `staging-client status` there"
            ),
        );
    }
    if let Some(low) = status::disk_note(server) {
        line(Mark::Warn, format!("{low}: free some, or give it a larger one"));
    }
    if let Some(why) = &server.trouble {
        line(Mark::Missing, format!("its staging client cannot do its duty: {why}"));
    }
    match &server.switching {
        Err(why) => line(
            Mark::Missing,
            format!(
                "it is not switched by the clock: {why}; `update-pull server set {name}` mends it"
            ),
        ),
        Ok(times) if !times.is_set() => {}
        Ok(_) if server.is_staging => line(
            Mark::Warn,
            "it is in the pool, so its auto_start_at and auto_stop_at do nothing; clear them"
                .into(),
        ),
        Ok(times) if times.start == times.stop => {
            line(Mark::Warn, "auto_start_at and auto_stop_at are the same: neither counts".into());
        }
        Ok(times) if !has_zone => line(
            Mark::Warn,
            format!(
                "{times} in UTC: set `auto_timezone` in app.ini to the time zone that is meant"
            ),
        ),
        Ok(_) => {}
    }
    lines
}

/// What GitHub did not permit to these credentials, when it was last tried.
pub fn refusals(told: &Told, credential: &str, now: Timestamp) -> Vec<Line> {
    let refused = told.refusals.iter().filter(|(_, r)| is_refused(Some(r), credential, now));
    // Of a token nothing else is to be expected.
    let by_token = credential.starts_with("token ");
    refused
        .filter(|(kind, _)| !(by_token && **kind == Kind::Check))
        .map(|(kind, refusal)| {
            let (at, needed) = (words::moment(refusal.at), kind.permission());
            let mark = match kind {
                Kind::Check => Mark::Warn,
                // Only what an older installation has left is corrected by it.
                Kind::Status if !told.refusals.contains_key(&Kind::Check) => Mark::Warn,
                _ => Mark::Missing,
            };
            let instead = match kind {
                Kind::Check => "; commit statuses take their place",
                _ => "",
            };
            let text = format!(
                "did not permit a {kind} at {at} ({}): it needs {needed}{instead}. Tried again hourly",
                refusal.why
            );
            Line::new(mark, "GitHub", text)
        })
        .collect()
}

/// Clocks differ by this much, and readings are this late, without anybody else at work.
const SLACK: Duration = Duration::from_secs(300);
/// The open pull requests are read as a whole each hour, and written down.
const LATE: SignedDuration = SignedDuration::from_mins(65);

/// Signs that pullre-kun still writes into its tables. `last_event`: when we last wrote of anything.
pub fn foreign_writes(
    rows: &[Mirrored],
    facts: &Facts,
    last_event: Option<Timestamp>,
    now: Timestamp,
) -> Vec<Line> {
    let Some(whole) = facts.whole_read_at else { return Vec::new() };
    let ours = last_event.map_or(whole, |at| at.max(whole));
    let name = |id| facts.server_name(id);
    let signs = rows.iter().filter_map(|row| {
        let number = row.number;
        let sign = match (row.server, row.assigned) {
            (Some(theirs), Some(own)) if theirs != own => {
                format!("{number} is on {}, and its row says {}", name(own), name(theirs))
            }
            (None, Some(own)) => format!("{number} is on {}, and its row says none", name(own)),
            (Some(theirs), None) if row.described => {
                format!("{number} has no server, and its row says {}", name(theirs))
            }
            _ if !row.described => format!("the row of {number} is not from us"),
            _ => {
                let at = row.updated_at?;
                let ahead = words::between(now, at) > SLACK;
                let late = at.duration_since(ours) > LATE;
                if !ahead && !late {
                    return None;
                }
                format!("the row of {number} was changed at {}", words::moment(at))
            }
        };
        Some(Line::new(
            Mark::Warn,
            "pullre-kun",
            format!(
                "{sign}: pullre-kun seems to be at work. Take update_pull.py out of cron and stop its web \
                 app, whose /pull/list and webhook run it too"
            ),
        ))
    });
    signs.collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use insta::assert_snapshot;

    use super::*;
    use crate::report::Refusal;

    fn refused(kinds: &[Kind], credential: &str, after: i64) -> String {
        let at: Timestamp = "2026-11-23T09:00:00Z".parse().unwrap();
        let refusal =
            || Refusal { credential: credential.into(), at, why: "not accessible".into() };
        let refusals: BTreeMap<_, _> = kinds.iter().map(|kind| (*kind, refusal())).collect();
        let told = Told { refusals, ..Told::default() };
        let lines = super::refusals(&told, credential, at + SignedDuration::from_mins(after));
        lines.iter().map(|line| format!("{line}\n")).collect()
    }

    #[test]
    fn a_refusal_counts_for_as_much_as_what_takes_its_place_leaves_unsaid() {
        let app = "app 7";
        assert_snapshot!(refused(&[Kind::Check], app, 10), @"warn     GitHub        did not permit a check at 2026-11-23 09:00 UTC (not accessible): it needs checks: write (GitHub Apps only); commit statuses take their place. Tried again hourly");
        assert_snapshot!(refused(&[Kind::Status], app, 10), @"warn     GitHub        did not permit a status at 2026-11-23 09:00 UTC (not accessible): it needs commit statuses: write. Tried again hourly");
        assert_snapshot!(refused(&[Kind::Check, Kind::Status], app, 10), @"
        warn     GitHub        did not permit a check at 2026-11-23 09:00 UTC (not accessible): it needs checks: write (GitHub Apps only); commit statuses take their place. Tried again hourly
        MISSING  GitHub        did not permit a status at 2026-11-23 09:00 UTC (not accessible): it needs commit statuses: write. Tried again hourly
        ");
        assert_snapshot!(refused(&[Kind::Comment, Kind::Deployment], app, 10), @"
        MISSING  GitHub        did not permit a comment at 2026-11-23 09:00 UTC (not accessible): it needs issues: write and pull requests: write. Tried again hourly
        MISSING  GitHub        did not permit a deployment at 2026-11-23 09:00 UTC (not accessible): it needs deployments: write. Tried again hourly
        ");
        // A token makes no check runs, and nobody expects any.
        assert_snapshot!(refused(&[Kind::Check, Kind::Status], "token 1234", 10), @"MISSING  GitHub        did not permit a status at 2026-11-23 09:00 UTC (not accessible): it needs commit statuses: write. Tried again hourly");
        assert_eq!(refused(&[Kind::Check], app, 70), "", "it is tried again by now");
    }
}

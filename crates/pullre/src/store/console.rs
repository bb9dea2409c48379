//! What the console asks and keeps: its users, how ticks went, how busy the pool was, how long
//! people waited.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::effects::Won;
use super::history::event;
use super::{Event, Result, Store, StoreError, harmless_twice};
use crate::domain::{Invalid, PullNumber};
use crate::words;

/// Where the newest deployment of a pull request stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvironmentPulse {
    /// Another text as soon as the deployment, one of its steps or an event is new or goes on, and
    /// when the step at work prints for the first time; but not when it prints more.
    pub rest: String,
    /// Of the step at work.
    pub log: Option<GrowingLog>,
}

/// What a step has printed that may print more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrowingLog {
    pub deployment: i64,
    /// The place of the step among those of its deployment.
    pub index: usize,
    pub output: String,
}

impl GrowingLog {
    /// Nobody is shown an empty log.
    pub fn is_shown(&self) -> bool {
        !self.output.trim().is_empty()
    }
}

/// What a user of the console may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    ReadOnly,
    Operator,
}

impl Role {
    pub fn as_str(self) -> &'static str {
        match self {
            Role::ReadOnly => "read-only",
            Role::Operator => "operator",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Role {
    type Err = Invalid;
    fn from_str(s: &str) -> Result<Self, Invalid> {
        match s {
            "read-only" => Ok(Role::ReadOnly),
            "operator" => Ok(Role::Operator),
            _ => Err(Invalid::new(s, "a role (read-only, operator)")),
        }
    }
}

#[derive(Clone, PartialEq, Eq)]
pub struct ConsoleUser {
    pub name: String,
    /// A hash.
    pub password: String,
    pub role: Role,
}

impl fmt::Debug for ConsoleUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsoleUser")
            .field("name", &self.name)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

/// One tick, as it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TickRow {
    pub began_at: Timestamp,
    pub took: Duration,
    /// Servers of the pool, how many of them have an environment, and how many environments wait.
    pub pool: u32,
    pub busy: u32,
    pub queued: u32,
    pub acted: u32,
    pub failed: u32,
}

/// How busy the pool was during one piece of time: means of its ticks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Busy {
    pub from: Timestamp,
    pub pool: f64,
    pub busy: f64,
    pub queued: f64,
}

fn millis(from: i64, to: i64) -> Duration {
    Duration::from_millis(u64::try_from(to.saturating_sub(from)).unwrap_or(0))
}

impl Store {
    pub fn console_users(&mut self) -> Result<Vec<ConsoleUser>> {
        let rows =
            self.query("SELECT name, password, role FROM console_users ORDER BY name", &[])?;
        rows.iter()
            .map(|row| {
                Ok(ConsoleUser {
                    name: row.text("name")?,
                    password: row.text("password")?,
                    // Who wrote nonsense there gave no right.
                    role: row.text("role")?.parse().unwrap_or(Role::ReadOnly),
                })
            })
            .collect()
    }

    /// Adds a user, or gives one another password and role.
    pub fn set_console_user(&mut self, user: &ConsoleUser, now: Timestamp) -> Result<()> {
        self.transaction(|store| {
            let params =
                [user.password.as_str().into(), user.role.as_str().into(), user.name.as_str().into()];
            let update = "UPDATE console_users SET password = ?, role = ? WHERE name = ?";
            if store.execute(update, &params)? == 0 {
                let [password, role, name] = params;
                store.execute(
                    "INSERT INTO console_users (password, role, name, created_at) VALUES (?, ?, ?, ?)",
                    &[password, role, name, now.into()],
                )?;
            }
            Ok(())
        })
    }

    pub fn remove_console_user(&mut self, name: &str) -> Result<Won> {
        Ok(self.execute("DELETE FROM console_users WHERE name = ?", &[name.into()])?.into())
    }

    /// Two ticks that began in the same millisecond count once.
    pub fn tick_ended(&mut self, tick: &TickRow) -> Result<()> {
        let took = i64::try_from(tick.took.as_millis()).unwrap_or(i64::MAX);
        harmless_twice(self.execute(
            "INSERT INTO ticks (began_at, millis, pool, busy, queued, acted, failed)
             VALUES (?, ?, ?, ?, ?, ?, ?)",
            &[
                tick.began_at.into(),
                took.into(),
                tick.pool.into(),
                tick.busy.into(),
                tick.queued.into(),
                tick.acted.into(),
                tick.failed.into(),
            ],
        ))
    }

    pub fn last_tick(&mut self) -> Result<Option<TickRow>> {
        let row = self.query_one("SELECT * FROM ticks ORDER BY began_at DESC LIMIT 1", &[])?;
        row.map(|row| {
            Ok(TickRow {
                began_at: row.time("began_at")?,
                took: millis(0, row.int("millis")?),
                pool: row.u32("pool")?,
                busy: row.u32("busy")?,
                queued: row.u32("queued")?,
                acted: row.u32("acted")?,
                failed: row.u32("failed")?,
            })
        })
        .transpose()
    }

    /// Since `since`, in pieces of `piece`, the oldest first. Pieces without a tick are missing.
    pub fn busy_since(&mut self, since: Timestamp, piece: Duration) -> Result<Vec<Busy>> {
        let piece = i64::try_from(piece.as_millis()).unwrap_or(i64::MAX).max(1);
        // In thousandths: both engines give whole numbers back.
        let rows = self.query(
            "SELECT began_at - began_at % ? AS piece, COUNT(*) AS n, SUM(pool) AS pool,
                 SUM(busy) AS busy, SUM(queued) AS queued
             FROM ticks WHERE began_at >= ? GROUP BY piece ORDER BY piece",
            &[piece.into(), since.into()],
        )?;
        rows.iter()
            .map(|row| {
                let n = row.int("n")?.max(1) as f64;
                Ok(Busy {
                    from: row.time("piece")?,
                    pool: whole(row, "pool")? as f64 / n,
                    busy: whole(row, "busy")? as f64 / n,
                    queued: whole(row, "queued")? as f64 / n,
                })
            })
            .collect()
    }

    /// How long it took from a push to an environment that served it, for the pushes since `since`
    /// whose environment came to serve them.
    pub fn push_to_ready_since(&mut self, since: Timestamp) -> Result<Vec<(Timestamp, Duration)>> {
        let rows = self.query(
            "SELECT h.pushed_at AS pushed_at, MIN(d.finished_at) AS ready_at
             FROM heads h JOIN deployments d ON d.pull_number = h.number AND d.sha = h.sha
             WHERE h.pushed_at >= ? AND d.outcome = 'succeeded' AND d.finished_at IS NOT NULL
             GROUP BY h.number, h.sha, h.pushed_at",
            &[since.into()],
        )?;
        rows.iter()
            .map(|row| {
                let at = row.time("pushed_at")?;
                Ok((at, words::between(at, row.time("ready_at")?)))
            })
            .collect()
    }

    /// How long environments waited for a server, by when they got it.
    pub fn waits_since(&mut self, since: Timestamp) -> Result<Vec<(Timestamp, Duration)>> {
        let rows = self.query(
            "SELECT assigned_at, millis FROM waits WHERE assigned_at >= ?",
            &[since.into()],
        )?;
        rows.iter()
            .map(|row| Ok((row.time("assigned_at")?, millis(0, row.int("millis")?))))
            .collect()
    }

    /// Deployments that ended since `since`: whether they succeeded, in which step they failed, and
    /// how long they took.
    pub fn deployments_since(
        &mut self,
        since: Timestamp,
    ) -> Result<Vec<(bool, Option<String>, Duration)>> {
        let rows = self.query(
            "SELECT outcome, failed_step, started_at, finished_at FROM deployments
             WHERE finished_at >= ? AND started_at IS NOT NULL AND outcome IN ('succeeded', 'failed')",
            &[since.into()],
        )?;
        rows.iter()
            .map(|row| {
                let took = words::between(row.time("started_at")?, row.time("finished_at")?);
                Ok((row.text("outcome")? == "succeeded", row.opt_text("failed_step")?, took))
            })
            .collect()
    }

    /// Of everybody, the newest first.
    pub fn recent_events(&mut self, most: u32) -> Result<Vec<Event>> {
        let rows = self.query(
            "SELECT at, actor, pull_number, server_id, message FROM events ORDER BY id DESC LIMIT ?",
            &[most.into()],
        )?;
        rows.iter().map(event).collect()
    }

    /// What an open page of this environment compares. Cheap: it is asked for as long as somebody
    /// looks.
    pub fn pulse_of(&mut self, pull: PullNumber) -> Result<EnvironmentPulse> {
        let steps = self.query(
            "SELECT d.id AS id, d.outcome AS outcome, s.id AS step, s.finished_at AS finished_at,
                 COALESCE(LENGTH(s.output), 0) AS size
             FROM deployments d LEFT JOIN deployment_steps s ON s.deployment_id = d.id
             WHERE d.id = (SELECT MAX(id) FROM deployments WHERE pull_number = ?) ORDER BY s.id",
            &[pull.0.into()],
        )?;
        let event = self.query_one(
            "SELECT MAX(id) AS id FROM events WHERE pull_number = ?",
            &[pull.0.into()],
        )?;
        let mut rest = event.map_or(Ok(None), |row| row.opt_text("id"))?.unwrap_or_default();
        let Some(last) = steps.last() else { return Ok(EnvironmentPulse { rest, log: None }) };
        let log = match last.opt_int("step")? {
            Some(step) if last.is_null("finished_at")? => {
                // Not its length: the end of a long log may be as long as the end before it.
                let output = self.query_one(
                    "SELECT output FROM deployment_steps WHERE id = ?",
                    &[step.into()],
                )?;
                let output = output.map_or(Ok(String::new()), |row| row.text("output"))?;
                Some(GrowingLog { deployment: last.int("id")?, index: steps.len() - 1, output })
            }
            _ => None,
        };
        let (mut begun, mut ended, mut size) = (0, 0, 0);
        for (index, step) in steps.iter().enumerate() {
            begun += i64::from(!step.is_null("step")?);
            ended += i64::from(!step.is_null("finished_at")?);
            if log.as_ref().is_none_or(|log| log.index != index) {
                size += step.int("size")?;
            }
        }
        let printed = log.as_ref().is_some_and(GrowingLog::is_shown);
        let (id, outcome) = (last.int("id")?, last.text("outcome")?);
        rest.push_str(&format!(" {id} {outcome} {begun} {ended} {size} {printed}"));
        Ok(EnvironmentPulse { rest, log })
    }

    /// A head was seen for the first time; when, at the best of our knowledge, it was pushed.
    pub(super) fn head_seen(
        &mut self,
        number: PullNumber,
        sha: &str,
        pushed_at: Timestamp,
    ) -> Result<()> {
        let known = self.query_one(
            "SELECT number FROM heads WHERE number = ? AND sha = ?",
            &[number.0.into(), sha.into()],
        )?;
        if known.is_some() {
            return Ok(());
        }
        // Another tick may have seen it in the meantime.
        harmless_twice(self.execute(
            "INSERT INTO heads (number, sha, pushed_at) VALUES (?, ?, ?)",
            &[number.0.into(), sha.into(), pushed_at.into()],
        ))
    }

    /// An environment got a server. Only the first one since it became eligible ended a waiting.
    pub(super) fn waited(&mut self, number: PullNumber, now: Timestamp) -> Result<()> {
        let row = self.query_one(
            "SELECT eligible_since FROM pull_facts WHERE number = ? AND eligible_since IS NOT NULL
               AND NOT EXISTS (SELECT 1 FROM waits w
                               WHERE w.number = pull_facts.number AND w.assigned_at >= eligible_since)",
            &[number.0.into()],
        )?;
        let Some(row) = row else { return Ok(()) };
        let took = words::between(row.time("eligible_since")?, now).as_millis();
        self.execute(
            "INSERT INTO waits (number, assigned_at, millis) VALUES (?, ?, ?)",
            &[number.0.into(), now.into(), i64::try_from(took).unwrap_or(i64::MAX).into()],
        )
        .map(drop)
    }

    pub(super) fn forget_measures(&mut self, limit: Timestamp) -> Result<()> {
        for statement in [
            "DELETE FROM ticks WHERE began_at < ?",
            "DELETE FROM waits WHERE assigned_at < ?",
            "DELETE FROM heads WHERE pushed_at < ?",
        ] {
            self.execute(statement, &[limit.into()])?;
        }
        Ok(())
    }
}

/// MySQL adds numbers up to a decimal, which arrives as a text.
fn whole(row: &super::backend::Row, column: &str) -> Result<i64> {
    let text = row.text(column)?;
    text.parse().map_err(|_| StoreError::Row(format!("{column} is {text:?} and not a number")))
}

//! What was said on GitHub, and what the chat was told.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::backend::{Row, Value};
use super::{Result, Store, StoreError};
use crate::domain::{PullNumber, PullState};
use crate::facts::{Assignment, Facts, Outcome};
use crate::report::plan::Saying;
use crate::report::{Answer, Key, Kind, LastSaid, Refusal, State, Told, Tried};
use crate::store::Step;

/// What was begun after what `reports r` says.
const BEGUN: &str = "LEFT JOIN report_beginnings b
    ON b.pull_number = r.pull_number AND b.kind = r.kind AND b.sha = r.sha";

/// A credential's fingerprint, or another short word, that fits its column.
fn short(text: &str) -> Value {
    text.chars().take(80).collect::<String>().into()
}

impl Store {
    /// Everything that reports are planned from, beside the facts.
    pub fn told(&mut self, facts: &Facts) -> Result<Told> {
        let mut rows = self.query(
            &format!("SELECT r.*, b.begun_at FROM reports r {BEGUN} WHERE r.settled = 0"),
            &[],
        )?;
        rows.extend(self.query(
            &format!(
                "SELECT r.*, b.begun_at FROM pull_requests p
                 JOIN reports r ON r.pull_number = p.number {BEGUN}
                 WHERE p.state = 'open' AND r.settled <> 0"
            ),
            &[],
        )?);
        let mut told = self.told_by(&rows, facts)?;
        self.steps_for_reports(facts, &mut told, None)?;
        self.answers(&mut told, None)?;
        Ok(told)
    }

    /// The same, of one pull request alone.
    pub fn told_of(&mut self, number: PullNumber, facts: &Facts) -> Result<Told> {
        let sql = format!("SELECT r.*, b.begun_at FROM reports r {BEGUN} WHERE r.pull_number = ?");
        let rows = self.query(&sql, &[number.0.into()])?;
        let mut told = self.told_by(&rows, facts)?;
        self.steps_for_reports(facts, &mut told, Some(number))?;
        self.answers(&mut told, Some(number))?;
        Ok(told)
    }

    fn told_by(&mut self, rows: &[Row], facts: &Facts) -> Result<Told> {
        let mut told = Told::default();
        for row in rows {
            if let Some((key, said)) = readable(said(row))? {
                told.said.insert(key, said);
            }
        }
        for row in self.query("SELECT * FROM report_refusals", &[])? {
            if let Some((kind, refusal)) = readable(refusal(&row))? {
                told.refusals.insert(kind, refusal);
            }
        }
        let unknown: BTreeSet<_> =
            told.said.iter().filter(|(_, said)| !said.settled).map(|(key, _)| key.number).collect();
        let unknown: Vec<_> =
            unknown.into_iter().filter(|number| !facts.pulls.contains_key(number)).collect();
        for pull in self.pulls(&unknown)? {
            if pull.request.state == PullState::Closed {
                told.closed.insert(pull.request.number, pull);
            }
        }
        Ok(told)
    }

    fn steps_for_reports(
        &mut self,
        facts: &Facts,
        told: &mut Told,
        only: Option<PullNumber>,
    ) -> Result<()> {
        let wanted = |a: &&Assignment| only.is_none_or(|only| a.pull == only);
        let interesting = facts.assignments.values().filter(wanted).any(|a| {
            a.deployment
                .as_ref()
                .is_some_and(|d| matches!(d.outcome, Outcome::Running | Outcome::Failed))
        });
        if !interesting {
            return Ok(());
        }
        let (of_one, params) = one(only, "a.pull_number");
        let sql = format!(
            // Only the output of the step that failed is shown, and it may be long.
            "SELECT s.deployment_id, s.name, s.started_at, s.finished_at, s.exit_status,
                 CASE WHEN d.outcome = 'failed' AND s.name = d.failed_step THEN s.output ELSE '' END
                     AS output
             FROM deployment_steps s
             JOIN assignments a ON a.deployment_id = s.deployment_id
             JOIN deployments d ON d.id = a.deployment_id
             WHERE d.outcome IN ('running', 'failed'){of_one} ORDER BY s.id"
        );
        for row in &self.query(&sql, &params)? {
            let step = Step {
                name: row.text("name")?,
                started_at: row.time("started_at")?,
                finished_at: row.opt_time("finished_at")?,
                exit_status: row.opt_int("exit_status")?,
                output: row.text("output")?,
            };
            told.steps.entry(row.int("deployment_id")?).or_default().push(step);
        }
        Ok(())
    }

    fn answers(&mut self, told: &mut Told, only: Option<PullNumber>) -> Result<()> {
        let (of_one, params) = one(only, "c.pull_number");
        let sql = format!(
            "SELECT c.pull_number, c.login, c.verb, c.changed_at, c.answer FROM comment_commands c
             JOIN pull_requests p ON p.number = c.pull_number AND p.state = 'open'
             WHERE c.answer IS NOT NULL{of_one} ORDER BY c.comment_id"
        );
        for row in &self.query(&sql, &params)? {
            if let Some((number, answer)) = readable(answer(row))? {
                told.answers.entry(number).or_default().push(answer);
            }
        }
        Ok(())
    }

    /// GitHub has taken it.
    pub fn report_said(
        &mut self,
        saying: &Saying,
        id: i64,
        credential: &str,
        now: Timestamp,
    ) -> Result<()> {
        self.transaction(|store| {
            store.report_row(&saying.key)?;
            store.forget_beginning(&saying.key)?;
            let [number, kind, sha] = key_values(&saying.key);
            store.execute(
                "UPDATE reports SET remote_id = ?, credential = ?, state = ?, digest = ?, said_at = ?,
                     settled = ?, tried_digest = NULL, tried_at = NULL, attempts = 0
                 WHERE pull_number = ? AND kind = ? AND sha = ?",
                &[
                    id.into(),
                    short(credential),
                    saying.state.as_str().into(),
                    saying.digest.as_str().into(),
                    now.into(),
                    saying.settles.into(),
                    number.clone(),
                    kind,
                    sha.clone(),
                ],
            )?;
            if saying.key.kind == Kind::Check {
                // pullre-kun, should it come back, goes on with the check run of the head.
                store.execute(
                    "UPDATE pull_requests SET check_run_id = ? WHERE number = ? AND sha = ?",
                    &[id.into(), number, sha],
                )?;
            }
            Ok(())
        })
    }

    /// GitHub did not take it; how often that was now.
    pub fn report_tried(&mut self, saying: &Saying, now: Timestamp) -> Result<u32> {
        self.transaction(|store| {
            store.report_row(&saying.key)?;
            let [number, kind, sha] = key_values(&saying.key);
            let of_row = "WHERE pull_number = ? AND kind = ? AND sha = ?";
            store.execute(
                // The digest last: MySQL shows later assignments what earlier ones set.
                &format!(
                    "UPDATE reports SET attempts = CASE WHEN tried_digest = ? THEN attempts + 1 ELSE 1 END,
                         tried_at = ?, tried_digest = ? {of_row}"
                ),
                &[
                    saying.digest.as_str().into(),
                    now.into(),
                    saying.digest.as_str().into(),
                    number.clone(),
                    kind.clone(),
                    sha.clone(),
                ],
            )?;
            let row = store
                .query_one(&format!("SELECT attempts FROM reports {of_row}"), &[number, kind, sha])?;
            row.map_or(Ok(1), |row| row.u32("attempts"))
        })
    }

    /// What pullre-kun said of a commit that it brought up.
    pub(super) fn adopt_report(
        &mut self,
        pull: PullNumber,
        sha: &str,
        check_run: Option<i64>,
        now: Timestamp,
    ) -> Result<()> {
        for (kind, sha, id) in [
            (Kind::Check, sha, check_run),
            (Kind::Status, sha, None),
            (Kind::Comment, "", None),
            (Kind::Deployment, sha, None),
        ] {
            let key = Key { number: pull, kind, sha: sha.to_owned() };
            self.report_row(&key)?;
            let [number, kind, sha] = key_values(&key);
            self.execute(
                "UPDATE reports SET remote_id = ?, state = ?, digest = ?, said_at = ?
                 WHERE pull_number = ? AND kind = ? AND sha = ?",
                &[
                    id.into(),
                    State::Success.as_str().into(),
                    crate::report::ADOPTED.into(),
                    now.into(),
                    number,
                    kind,
                    sha,
                ],
            )?;
        }
        Ok(())
    }

    /// Something is about to be made, and may be there although nothing more is recorded of it.
    /// What was said before it stays known: it may be all that is there.
    pub fn report_begun(&mut self, key: &Key, now: Timestamp) -> Result<()> {
        self.transaction(|store| {
            store.report_row(key)?;
            let [number, kind, sha] = key_values(key);
            store.execute(
                "UPDATE reports SET settled = 0 WHERE pull_number = ? AND kind = ? AND sha = ?",
                &[number.clone(), kind.clone(), sha.clone()],
            )?;
            store.forget_beginning(key)?;
            store
                .execute(
                    "INSERT INTO report_beginnings (pull_number, kind, sha, begun_at)
                     VALUES (?, ?, ?, ?)",
                    &[number, kind, sha, now.into()],
                )
                .map(drop)
        })
    }

    /// GitHub has answered that it did not make it.
    pub fn report_not_made(&mut self, key: &Key) -> Result<()> {
        self.forget_beginning(key)
    }

    fn forget_beginning(&mut self, key: &Key) -> Result<()> {
        self.execute(
            "DELETE FROM report_beginnings WHERE pull_number = ? AND kind = ? AND sha = ?",
            &key_values(key),
        )
        .map(drop)
    }

    fn report_row(&mut self, key: &Key) -> Result<()> {
        let values = key_values(key);
        let row = self.query_one(
            "SELECT kind FROM reports WHERE pull_number = ? AND kind = ? AND sha = ?",
            &values,
        )?;
        if row.is_some() {
            return Ok(());
        }
        self.execute(
            "INSERT INTO reports (pull_number, kind, sha, settled, attempts) VALUES (?, ?, ?, 0, 0)",
            &values,
        )
        .map(drop)
    }

    /// Nothing more is to be said of it. Under the lock of its pull request's reports: what was said
    /// anew is not settled by what was known before.
    pub fn settle_report(&mut self, key: &Key) -> Result<()> {
        self.forget_beginning(key)?;
        self.execute(
            "UPDATE reports SET settled = 1 WHERE pull_number = ? AND kind = ? AND sha = ?",
            &key_values(key),
        )
        .map(drop)
    }

    /// These credentials may not. True where that is news.
    pub fn report_refused(
        &mut self,
        kind: Kind,
        credential: &str,
        why: &str,
        now: Timestamp,
    ) -> Result<bool> {
        self.transaction(|store| {
            let kind = Value::from(kind.as_str());
            let known = store.query_one(
                "SELECT kind FROM report_refusals WHERE kind = ? AND credential = ?",
                &[kind.clone(), short(credential)],
            )?;
            store.upsert(
                "UPDATE report_refusals SET credential = ?, refused_at = ?, why = ? WHERE kind = ?",
                "INSERT INTO report_refusals (credential, refused_at, why, kind) VALUES (?, ?, ?, ?)",
                &[short(credential), now.into(), why.into(), kind],
            )?;
            Ok(known.is_none())
        })
    }

    /// Why nothing can be said; None: it can. True where that is news.
    pub fn report_trouble(&mut self, why: Option<&str>) -> Result<bool> {
        self.trouble("report_trouble", why)
    }

    /// The same of commands in comments.
    pub fn commands_trouble(&mut self, why: Option<&str>) -> Result<bool> {
        self.trouble("commands_trouble", why)
    }

    fn trouble(&mut self, name: &'static str, why: Option<&str>) -> Result<bool> {
        let row = self.query_one("SELECT content FROM settings WHERE name = ?", &[name.into()])?;
        let known = row.map(|row| row.text("content")).transpose()?;
        if known.as_deref() == why {
            return Ok(false);
        }
        self.set_setting(name, why.map(str::to_owned))?;
        Ok(known.is_none())
    }

    /// Counts one write, if it fits into what may be written in a minute and in an hour. Shared by
    /// all controllers.
    pub fn reserve_write(&mut self, now: Timestamp, a_minute: u32, an_hour: u32) -> Result<bool> {
        let minute = now.as_second().div_euclid(60);
        let hour_ago = minute - 59;
        let rows = self.query(
            "SELECT writes FROM report_writes WHERE minute >= ? AND minute <= ?",
            &[hour_ago.into(), minute.into()],
        )?;
        let used = rows.iter().map(|row| row.int("writes")).sum::<Result<i64>>()?;
        if used >= i64::from(an_hour) {
            return Ok(false);
        }
        // Another tick may make the row of the minute between the two.
        for _ in 0..2 {
            let counted = self.execute(
                "UPDATE report_writes SET writes = writes + 1 WHERE minute = ? AND writes < ?",
                &[minute.into(), a_minute.into()],
            )?;
            if counted > 0 {
                return Ok(true);
            }
            let made = self.execute(
                "INSERT INTO report_writes (minute, writes) VALUES (?, 1)",
                &[minute.into()],
            );
            match made {
                Ok(_) => {
                    self.execute("DELETE FROM report_writes WHERE minute < ?", &[hour_ago.into()])?;
                    return Ok(true);
                }
                Err(StoreError::Conflict(_)) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(false)
    }
}

/// The end of a condition, and its values.
fn one(only: Option<PullNumber>, column: &str) -> (String, Vec<Value>) {
    match only {
        Some(number) => (format!(" AND {column} = ?"), vec![number.0.into()]),
        None => (String::new(), Vec::new()),
    }
}

fn key_values(key: &Key) -> [Value; 3] {
    [key.number.0.into(), key.kind.as_str().into(), key.sha.as_str().into()]
}

/// None for what was damaged by hand: it concerns nobody else.
pub(super) fn readable<T>(read: Result<T>) -> Result<Option<T>> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(StoreError::Row(why)) => {
            tracing::debug!("a row of reports makes no sense: {why}");
            Ok(None)
        }
        Err(e) => Err(e),
    }
}

fn refusal(row: &Row) -> Result<(Kind, Refusal)> {
    let refusal = Refusal {
        credential: row.text("credential")?,
        at: row.time("refused_at")?,
        why: row.text("why")?,
    };
    Ok((row.parsed("kind")?, refusal))
}

fn answer(row: &Row) -> Result<(PullNumber, Answer)> {
    let answer = Answer {
        login: row.text("login")?,
        verb: row.text("verb")?,
        at: row.time("changed_at")?,
        text: row.text("answer")?,
    };
    Ok((PullNumber(row.u32("pull_number")?), answer))
}

fn alert(row: &Row) -> Result<(String, StoredAlert)> {
    let alert = StoredAlert {
        message: row.text("message")?,
        since: row.time("since")?,
        told_at: row.opt_time("told_at")?,
    };
    Ok((row.text("name")?, alert))
}

fn said(row: &Row) -> Result<(Key, LastSaid)> {
    let key = Key {
        number: PullNumber(row.u32("pull_number")?),
        kind: row.parsed("kind")?,
        sha: row.text("sha")?,
    };
    let tried = match (row.opt_text("tried_digest")?, row.opt_time("tried_at")?) {
        (Some(digest), Some(at)) => Some(Tried { digest, at, attempts: row.u32("attempts")? }),
        _ => None,
    };
    let said = LastSaid {
        id: row.opt_int("remote_id")?,
        credential: row.opt_text("credential")?,
        state: row.opt_parsed("state")?,
        digest: row.opt_text("digest")?,
        said_at: row.opt_time("said_at")?,
        begun_at: row.opt_time("begun_at")?,
        settled: row.opt_int("settled")? == Some(1),
        tried,
    };
    Ok((key, said))
}

/// Something that the chat shall know, or knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredAlert {
    pub message: String,
    pub since: Timestamp,
    pub told_at: Option<Timestamp>,
}

impl Store {
    pub fn alerts(&mut self) -> Result<BTreeMap<String, StoredAlert>> {
        let rows = self.query("SELECT * FROM alerts", &[])?;
        rows.iter().filter_map(|row| readable(alert(row)).transpose()).collect()
    }

    pub fn alert_began(&mut self, name: &str, message: &str, now: Timestamp) -> Result<()> {
        self.execute(
            "INSERT INTO alerts (name, message, since) VALUES (?, ?, ?)",
            &[name.into(), message.into(), now.into()],
        )
        .map(drop)
    }

    pub fn alert_told(&mut self, name: &str, now: Timestamp) -> Result<()> {
        self.execute("UPDATE alerts SET told_at = ? WHERE name = ?", &[now.into(), name.into()])
            .map(drop)
    }

    pub fn alert_over(&mut self, name: &str) -> Result<()> {
        self.execute("DELETE FROM alerts WHERE name = ?", &[name.into()]).map(drop)
    }
}

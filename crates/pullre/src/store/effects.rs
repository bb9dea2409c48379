//! What a tick writes: what it saw, and before and after each effect what it is about to do and
//! what came of it. Every change of an assignment is a compare-and-set.

use jiff::{SignedDuration, Timestamp};

use super::backend::Value;
use super::{Result, Store, StoreError, datetime, harmless_twice};
use crate::domain::{InstanceState, PullNumber, PullRequest, PullState, SchemaName, ServerId, Sha};
use crate::facts::Outcome;
use crate::reconcile::plan::Record;

/// Somebody else changed the same thing since it was read; the next tick decides anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Won {
    Yes,
    No,
}

impl From<u64> for Won {
    fn from(matched: u64) -> Won {
        if matched == 0 { Won::No } else { Won::Yes }
    }
}

impl Store {
    /// Writes down what a tick saw. One transaction: the mark of what was read is kept only
    /// together with what was read.
    pub fn record(&mut self, records: &[Record], now: Timestamp) -> Result<()> {
        self.transaction(|store| {
            records.iter().try_for_each(|record| store.record_one(record, now))
        })
    }

    fn record_one(&mut self, record: &Record, now: Timestamp) -> Result<()> {
        match record {
            Record::Pull(request) => self.record_pull(request, now),
            Record::Touched { pull, at } => {
                let params = [(*at).into(), pull.0.into()];
                self.execute("UPDATE pull_facts SET changed_at = ? WHERE number = ?", &params)
                    .map(drop)
            }
            Record::Gone(number) => {
                self.execute(
                    "UPDATE pull_requests SET state = 'closed', updated_at = ? WHERE number = ?",
                    &[datetime(now), number.0.into()],
                )?;
                self.forget_eligibility(*number)?;
                self.event(now, "controller", Some(*number), None, "gone from GitHub")
            }
            Record::Eligible(number) | Record::Ineligible(number) => {
                let eligible = matches!(record, Record::Eligible(_)).then_some(now);
                let ineligible = matches!(record, Record::Ineligible(_)).then_some(now);
                self.execute(
                    "UPDATE pull_facts SET eligible_since = ?, ineligible_since = ? WHERE number = ?",
                    &[eligible.into(), ineligible.into(), number.0.into()],
                )?;
                Ok(())
            }
            Record::Instance { server, state, .. } => self.record_instance(*server, *state),
            Record::FellBack { server, why, no_capacity, .. } => {
                self.start_refused(*server, why, no_capacity.then_some(now))
            }
            Record::StopSettled { server, .. } => self.stop_settled(*server),
            Record::Refused(what) => self.set_setting("refused", what.clone()),
            Record::Forget { before } => {
                let (deployments, events) = self.forget_before(*before)?;
                if deployments + events > 0 {
                    tracing::info!("removed {deployments} old deployments and {events} old events");
                }
                self.set_setting("forgot_at", Some(now.to_string()))
            }
            Record::Mark(mark) => {
                self.set_setting("watermark", Some(mark.watermark.to_string()))?;
                // A crash before comments are read must not lose what they ask for.
                self.set_setting("comments_due", Some(now.to_string()))?;
                if self
                    .query_one("SELECT name FROM settings WHERE name = 'comments_read'", &[])?
                    .is_none()
                {
                    self.set_setting("comments_read", Some(mark.watermark.to_string()))?;
                }
                if mark.whole {
                    self.set_setting("whole_read_at", Some(now.to_string()))?;
                }
                Ok(())
            }
        }
    }

    fn forget_eligibility(&mut self, number: PullNumber) -> Result<()> {
        self.execute(
            "UPDATE pull_facts SET eligible_since = NULL, ineligible_since = NULL WHERE number = ?",
            &[number.0.into()],
        )
        .map(drop)
    }

    fn record_pull(&mut self, pull: &PullRequest, now: Timestamp) -> Result<()> {
        let number = Value::from(pull.number.0);
        let before = self.query_one(
            "SELECT state, sha FROM pull_requests WHERE number = ?",
            std::slice::from_ref(&number),
        )?;
        let message = match &before {
            None => Some(format!("{} at {}", pull.state.as_str(), pull.head.short())),
            Some(row) if row.opt_text("state")?.as_deref() != Some(pull.state.as_str()) => {
                Some(match pull.state {
                    PullState::Open => "reopened".to_owned(),
                    PullState::Closed => "closed".to_owned(),
                })
            }
            Some(row) if row.opt_text("sha")?.as_deref() != Some(pull.head.as_str()) => {
                Some(format!("new head {}", pull.head.short()))
            }
            Some(_) => None,
        };
        let known = before.as_ref().map(|row| row.opt_text("sha")).transpose()?.flatten();
        if pull.state == PullState::Open && known.as_deref() != Some(pull.head.as_str()) {
            // A long-known pull request may be seen for the first time.
            let soon = now.saturating_sub(SignedDuration::from_mins(10)).unwrap_or(now);
            self.head_seen(pull.number, pull.head.as_str(), pull.updated_at.clamp(soon, now))?;
        }
        let row = [
            pull.head.as_str().into(),
            pull.state.as_str().into(),
            pull.head.as_str().into(),
            pull.title.as_str().into(),
            pull.body.as_str().into(),
            pull.head_ref.as_str().into(),
            datetime(now),
            number.clone(),
        ];
        let matched = self.execute(
            // `is_launched` speaks of `sha`: a new head is not launched. It comes first, since MySQL
            // shows later assignments what earlier ones set.
            "UPDATE pull_requests SET is_launched = CASE WHEN sha = ? THEN is_launched ELSE NULL END,
                 state = ?, sha = ?, title = ?, body = ?, ref = ?, updated_at = ?
             WHERE number = ?",
            &row,
        )?;
        if matched == 0 {
            // `is_launched` stays NULL until there is something to launch.
            self.execute(
                "INSERT INTO pull_requests (state, sha, title, body, ref, updated_at, number, created_at)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                &[&row[1..], &[datetime(now)]].concat(),
            )?;
        }
        let facts = [
            pull.author.as_ref().map(|login| login.0.as_str()).into(),
            pull.head_repo.as_deref().into(),
            pull.is_fork.into(),
            pull.is_draft.into(),
            serde_json::to_string(&pull.labels)
                .map_err(|e| StoreError::Other(e.to_string()))?
                .into(),
            pull.base_ref.as_str().into(),
            pull.created_at.into(),
            pull.updated_at.into(),
            pull.closed_at.into(),
            number,
        ];
        let matched = self.execute(
            "UPDATE pull_facts SET author = ?, head_repo = ?, is_fork = ?, is_draft = ?, labels = ?,
                 base_ref = ?, opened_at = ?, changed_at = ?, closed_at = ? WHERE number = ?",
            &facts,
        )?;
        if matched == 0 {
            self.execute(
                "INSERT INTO pull_facts (author, head_repo, is_fork, is_draft, labels, base_ref,
                     opened_at, changed_at, closed_at, number) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                &facts,
            )?;
        }
        if pull.state == PullState::Closed {
            self.forget_eligibility(pull.number)?;
        }
        match message {
            Some(message) => self.event(now, "github", Some(pull.number), None, &message),
            None => Ok(()),
        }
    }

    fn record_instance(&mut self, server: ServerId, state: Option<InstanceState>) -> Result<()> {
        self.server_facts(server)?;
        self.execute(
            "UPDATE server_facts SET state = ? WHERE server_id = ?",
            &[state.map(InstanceState::as_str).into(), server.0.into()],
        )?;
        let also = match state {
            Some(InstanceState::Running) => {
                "start_requested_at = NULL, start_attempts = 0, start_error = NULL,
                 no_capacity_at = NULL"
            }
            Some(InstanceState::Pending | InstanceState::Stopping) => return Ok(()),
            Some(InstanceState::Stopped | InstanceState::Terminated) | None => {
                "app_pull = NULL, app_sha = NULL"
            }
        };
        self.execute(
            &format!("UPDATE server_facts SET {also} WHERE server_id = ?"),
            &[server.0.into()],
        )
        .map(drop)
    }

    /// Makes the row of facts of a server where there is none yet.
    pub(super) fn server_facts(&mut self, server: ServerId) -> Result<()> {
        let row = self.query_one(
            "SELECT server_id FROM server_facts WHERE server_id = ?",
            &[server.0.into()],
        )?;
        if row.is_some() {
            return Ok(());
        }
        harmless_twice(self.execute(
            "INSERT INTO server_facts (server_id, start_attempts, stop_owed) VALUES (?, 0, 0)",
            &[server.0.into()],
        ))
    }

    /// Gives a free server to an environment without one. `No` where either got another partner
    /// in the meantime.
    pub fn assign(
        &mut self,
        pull: PullNumber,
        server: ServerId,
        source: &SchemaName,
        now: Timestamp,
    ) -> Result<Won> {
        let given = self.transaction(|store| {
            store.execute(
                "INSERT INTO assignments (server_id, pull_number, assigned_at) VALUES (?, ?, ?)",
                &[server.0.into(), pull.0.into(), now.into()],
            )?;
            store.server_facts(server)?;
            store.execute(
                "UPDATE server_facts SET start_requested_at = NULL, start_attempts = 0,
                     start_error = NULL, stop_owed = 0 WHERE server_id = ?",
                &[server.0.into()],
            )?;
            store.execute(
                "UPDATE pull_facts SET last_server_id = ? WHERE number = ?",
                &[server.0.into(), pull.0.into()],
            )?;
            store.execute(
                "UPDATE pull_requests SET server_id = ?, db_schema = ?, is_launched = NULL
                 WHERE number = ?",
                &[server.0.into(), source.as_str().into(), pull.0.into()],
            )?;
            store.waited(pull, now)?;
            store.event(now, "controller", Some(pull), Some(server), "got a server")
        });
        match given {
            Ok(()) => Ok(Won::Yes),
            Err(StoreError::Conflict(_)) => Ok(Won::No),
            Err(e) => Err(e),
        }
    }

    /// The server's client shall run no app. A deployment that has not ended is superseded.
    pub fn withdraw(&mut self, pull: PullNumber, server: ServerId, now: Timestamp) -> Result<Won> {
        self.transaction(|store| {
            if store.point_at(pull, server, None)? == Won::No {
                return Ok(Won::No);
            }
            store.supersede(server, now)?;
            store.execute(
                "UPDATE pull_requests SET is_launched = NULL WHERE number = ?",
                &[pull.0.into()],
            )?;
            Ok(Won::Yes)
        })
    }

    /// Changes what an assignment points at. First of all in a transaction it also is its lock:
    /// nobody else gives the server away before the end of it.
    fn point_at(
        &mut self,
        pull: PullNumber,
        server: ServerId,
        deployment: Option<i64>,
    ) -> Result<Won> {
        let matched = self.execute(
            "UPDATE assignments SET deployment_id = ? WHERE server_id = ? AND pull_number = ?",
            &[deployment.into(), server.0.into(), pull.0.into()],
        )?;
        Ok(matched.into())
    }

    fn supersede(&mut self, server: ServerId, now: Timestamp) -> Result<()> {
        self.execute(
            "UPDATE deployments SET outcome = 'superseded', finished_at = ?
             WHERE server_id = ? AND outcome IN ('offered', 'running')",
            &[now.into(), server.0.into()],
        )
        .map(drop)
    }

    /// Lets the server's client deploy this commit. `No` where the server is another's by now.
    pub fn offer(
        &mut self,
        pull: PullNumber,
        server: ServerId,
        sha: &Sha,
        attempt: u32,
        now: Timestamp,
    ) -> Result<Won> {
        self.transaction(|store| {
            if store.point_at(pull, server, None)? == Won::No {
                return Ok(Won::No);
            }
            store.supersede(server, now)?;
            store.execute(
                "INSERT INTO deployments
                     (pull_number, server_id, sha, attempt, outcome, offered_at, interruptions)
                 VALUES (?, ?, ?, ?, ?, ?, 0)",
                &[
                    pull.0.into(),
                    server.0.into(),
                    sha.as_str().into(),
                    attempt.into(),
                    Outcome::Offered.as_str().into(),
                    now.into(),
                ],
            )?;
            let id = store.backend.last_insert_id()?;
            let won = store.point_at(pull, server, Some(id))?;
            // A client of pullre-kun looks for 0 and launches `sha`: it is told only where that is
            // the commit we mean.
            store.execute(
                "UPDATE pull_requests SET is_launched = CASE WHEN sha = ? THEN 0 ELSE NULL END
                 WHERE number = ?",
                &[sha.as_str().into(), pull.0.into()],
            )?;
            Ok(won)
        })
    }

    /// The server is nobody's any more. That its machine is to be stopped is part of the same
    /// change: a crash right after it leaves no machine running for nobody.
    pub fn release(
        &mut self,
        pull: PullNumber,
        server: ServerId,
        why: &str,
        now: Timestamp,
    ) -> Result<Won> {
        self.transaction(|store| {
            let matched = store.execute(
                "DELETE FROM assignments WHERE server_id = ? AND pull_number = ?",
                &[server.0.into(), pull.0.into()],
            )?;
            if matched == 0 {
                return Ok(Won::No);
            }
            store.supersede(server, now)?;
            store.server_facts(server)?;
            store.execute(
                "UPDATE server_facts SET stop_owed = 1 WHERE server_id = ?",
                &[server.0.into()],
            )?;
            store.execute(
                "UPDATE pull_requests SET server_id = NULL, is_launched = NULL WHERE number = ?",
                &[pull.0.into()],
            )?;
            let message = format!("gave its server back: {why}");
            store.event(now, "controller", Some(pull), Some(server), &message)?;
            Ok(Won::Yes)
        })
    }

    /// Written before a start is asked for: a crash in between costs one pause, never a second
    /// machine.
    pub fn start_requested(&mut self, server: ServerId, now: Timestamp) -> Result<()> {
        self.server_facts(server)?;
        self.execute(
            "UPDATE server_facts SET start_requested_at = ?, start_attempts = start_attempts + 1,
                 start_error = NULL WHERE server_id = ?",
            &[now.into(), server.0.into()],
        )
        .map(drop)
    }

    /// `no_capacity_at`: when the provider had no machine for it, if that is why.
    pub fn start_refused(
        &mut self,
        server: ServerId,
        error: &str,
        no_capacity_at: Option<Timestamp>,
    ) -> Result<()> {
        self.execute(
            "UPDATE server_facts SET start_error = ?,
                 no_capacity_at = COALESCE(?, no_capacity_at) WHERE server_id = ?",
            &[error.into(), no_capacity_at.into(), server.0.into()],
        )
        .map(drop)
    }

    pub fn stop_settled(&mut self, server: ServerId) -> Result<()> {
        self.execute(
            "UPDATE server_facts SET stop_owed = 0 WHERE server_id = ?",
            &[server.0.into()],
        )
        .map(drop)
    }
}

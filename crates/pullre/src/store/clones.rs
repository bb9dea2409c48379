//! What is written down about clones before and after each is made, or undone.

use jiff::Timestamp;

use super::backend::{Row, Value};
use super::{Result, Store, StoreError, Won};
use crate::domain::{PullNumber, SchemaName, ServerId};
use crate::facts::CloneState;
use crate::schema_clone::CloneOutcome;

impl Store {
    /// Takes the schema as ours and says that it is being filled. Written before the copy.
    /// `No` where it is another server's.
    pub fn clone_started(
        &mut self,
        schema: &SchemaName,
        server: ServerId,
        source: &SchemaName,
        pull: Option<PullNumber>,
        mask: Option<&str>,
        now: Timestamp,
    ) -> Result<Won> {
        self.transaction(|store| {
            let held = store.query_one(
                "SELECT server_id FROM clones WHERE schema_name = ?",
                &[schema.as_str().into()],
            )?;
            match held {
                Some(row) if row.int("server_id")? != server.0 => return Ok(Won::No),
                Some(_) => {}
                None => store.own(schema, server)?,
            }
            store.wish_for_clone(schema, source, pull, mask, now)?;
            // Another environment's failures are not this one's.
            store.execute(
                "UPDATE clones SET attempts = CASE WHEN state IN ('failed', 'building') AND pull_number = ?
                     THEN attempts ELSE 0 END WHERE schema_name = ?",
                &[pull.map(|n| n.0).into(), schema.as_str().into()],
            )?;
            store.execute(
                "UPDATE clones SET state = ?, source = ?, pull_number = ?, attempts = attempts + 1,
                     started_at = ?, finished_at = NULL, error = NULL WHERE schema_name = ?",
                &[
                    CloneState::Building.as_str().into(),
                    source.as_str().into(),
                    pull.map(|n| n.0).into(),
                    now.into(),
                    schema.as_str().into(),
                ],
            )?;
            store.contents(schema)?;
            // From here on nobody knows which of the two is in it, unless both are of one kind.
            let rows = store.query_one(
                "SELECT pull_number, source, mask FROM clone_contents WHERE schema_name = ?",
                &[schema.as_str().into()],
            )?;
            let alike = rows.map_or(Ok(true), |row| is_of(&row, "mask", source, pull, mask))?;
            if !alike {
                store.execute(
                    "UPDATE clone_contents SET pull_number = NULL, source = NULL, mask = NULL
                     WHERE schema_name = ?",
                    &[schema.as_str().into()],
                )?;
            }
            store.execute(
                "UPDATE clone_contents SET building_mask = ?, undo_wish = NULL WHERE schema_name = ?",
                &[mask.into(), schema.as_str().into()],
            )?;
            Ok(Won::Yes)
        })
    }

    /// The clone that is made is wished for anew, unless it is still the one that was begun.
    fn wish_for_clone(
        &mut self,
        schema: &SchemaName,
        source: &SchemaName,
        pull: Option<PullNumber>,
        mask: Option<&str>,
        now: Timestamp,
    ) -> Result<()> {
        let name = Value::from(schema.as_str());
        let was = self.query_one(
            "SELECT c.source, c.pull_number, x.building_mask FROM clones c
             LEFT JOIN clone_contents x ON x.schema_name = c.schema_name WHERE c.schema_name = ?",
            std::slice::from_ref(&name),
        )?;
        let same = was.map_or(Ok(false), |row| is_of(&row, "building_mask", source, pull, mask))?;
        let last = self.query_one(
            "SELECT wish, done FROM clone_wishes WHERE schema_name = ?",
            std::slice::from_ref(&name),
        )?;
        // Below zero, where no undoing's are, and never the same again.
        let fresh = |last: i64| (-now.as_millisecond()).min(last - 1);
        match last {
            Some(row) if same && row.int("done")? == 0 => Ok(()),
            Some(row) => self
                .execute(
                    "UPDATE clone_wishes SET wish = ?, done = 0 WHERE schema_name = ?",
                    &[fresh(row.int("wish")?).into(), name],
                )
                .map(drop),
            None => self
                .execute(
                    "INSERT INTO clone_wishes (schema_name, wish, done) VALUES (?, ?, 0)",
                    &[name, fresh(0).into()],
                )
                .map(drop),
        }
    }

    /// What tells the clone that is being made from others, as long as it is not finished.
    pub fn clone_wish(&mut self, schema: &SchemaName) -> Result<Option<i64>> {
        let row = self.query_one(
            "SELECT wish FROM clone_wishes WHERE schema_name = ? AND done = 0",
            &[schema.as_str().into()],
        )?;
        row.map(|row| row.int("wish")).transpose()
    }

    /// Makes the row of what is in a schema where there is none yet.
    fn contents(&mut self, schema: &SchemaName) -> Result<()> {
        let name = [schema.as_str().into()];
        let row = self.query_one("SELECT 1 FROM clone_contents WHERE schema_name = ?", &name)?;
        if row.is_none() {
            self.execute("INSERT INTO clone_contents (schema_name, kept) VALUES (?, 0)", &name)?;
        }
        Ok(())
    }

    pub(super) fn own(&mut self, schema: &SchemaName, server: ServerId) -> Result<()> {
        self.execute(
            "INSERT INTO clones (schema_name, server_id, state, attempts) VALUES (?, ?, ?, 0)",
            &[schema.as_str().into(), server.0.into(), CloneState::Owned.as_str().into()],
        )
        .map(drop)
    }

    /// The schema holds something that we did not make: nothing is written to it. The record of
    /// another server is left as it is.
    pub fn clone_refused(
        &mut self,
        schema: &SchemaName,
        server: ServerId,
        pull: Option<PullNumber>,
        why: &str,
        now: Timestamp,
    ) -> Result<()> {
        self.transaction(|store| {
            let name = Value::from(schema.as_str());
            let held = store.query_one(
                "SELECT 1 FROM clones WHERE schema_name = ?",
                std::slice::from_ref(&name),
            )?;
            if held.is_none() {
                store.own(schema, server)?;
            }
            let pull = Value::from(pull.map(|n| n.0));
            store
                .execute(
                    "UPDATE clones SET attempts = CASE WHEN state = 'refused' AND pull_number = ?
                     THEN attempts + 1 ELSE 1 END,
                     state = ?, pull_number = ?, finished_at = ?, error = ?
                 WHERE schema_name = ? AND server_id = ?",
                    &[
                        pull.clone(),
                        CloneState::Refused.as_str().into(),
                        pull,
                        now.into(),
                        why.into(),
                        name,
                        server.0.into(),
                    ],
                )
                .map(drop)
        })
    }

    pub fn clone_finished(
        &mut self,
        schema: &SchemaName,
        server: ServerId,
        outcome: &CloneOutcome,
        now: Timestamp,
    ) -> Result<()> {
        let millis = i64::try_from(outcome.elapsed.as_millis()).unwrap_or(i64::MAX);
        let bytes = i64::try_from(outcome.bytes).unwrap_or(i64::MAX);
        let name = Value::from(schema.as_str());
        self.transaction(|store| {
            let matched = store.execute(
                "UPDATE clones SET state = ?, attempts = 0, finished_at = ?, error = NULL, bytes = ?,
                     millis = ? WHERE schema_name = ? AND server_id = ? AND state = 'building'",
                &[
                    CloneState::Ready.as_str().into(),
                    now.into(),
                    bytes.into(),
                    millis.into(),
                    schema.as_str().into(),
                    server.0.into(),
                ],
            )?;
            if matched == 0 {
                return Ok(());
            }
            store.execute(
                "UPDATE clone_wishes SET done = 1 WHERE schema_name = ?",
                std::slice::from_ref(&name),
            )?;
            store
                .execute(
                    "UPDATE clone_contents SET mask = building_mask, kept = ?,
                         pull_number = (SELECT pull_number FROM clones WHERE schema_name = ?),
                         source = (SELECT source FROM clones WHERE schema_name = ?)
                     WHERE schema_name = ?",
                    &[outcome.kept_previous.into(), name.clone(), name.clone(), name.clone()],
                )
                .map(drop)
        })
    }

    pub fn clone_failed(
        &mut self,
        schema: &SchemaName,
        server: ServerId,
        error: &str,
        now: Timestamp,
    ) -> Result<()> {
        self.execute(
            "UPDATE clones SET state = ?, finished_at = ?, error = ?
             WHERE schema_name = ? AND server_id = ? AND state = 'building'",
            &[
                CloneState::Failed.as_str().into(),
                now.into(),
                error.into(),
                schema.as_str().into(),
                server.0.into(),
            ],
        )
        .map(drop)
    }

    /// A person wants the previous clone of this environment back. `No` where the clone that is
    /// there is not ready, or no other one is kept.
    pub fn undo_wanted(
        &mut self,
        schema: &SchemaName,
        pull: PullNumber,
        now: Timestamp,
    ) -> Result<Won> {
        self.transaction(|store| {
            let matched = store.execute(
                "UPDATE clones SET state = ?, attempts = 0, error = NULL
                 WHERE schema_name = ? AND pull_number = ? AND state = 'ready'",
                &[CloneState::Undo.as_str().into(), schema.as_str().into(), pull.0.into()],
            )?;
            if matched == 0 {
                return Ok(Won::No);
            }
            let matched = store.execute(
                "UPDATE clone_contents SET undo_wish = ? WHERE schema_name = ? AND kept <> 0",
                &[now.as_millisecond().into(), schema.as_str().into()],
            )?;
            if matched == 0 {
                return Err(StoreError::Other(format!(
                    "no previous clone of {schema} is recorded"
                )));
            }
            Ok(Won::Yes)
        })
    }

    /// What was replaced is in place again, and what replaced it is kept. `kept`: false where there
    /// was nothing to bring back after all.
    pub fn undo_finished(
        &mut self,
        schema: &SchemaName,
        server: ServerId,
        kept: bool,
        now: Timestamp,
    ) -> Result<()> {
        self.transaction(|store| {
            store.execute(
                "UPDATE clones SET state = ?, attempts = 0, finished_at = ?, error = NULL
                 WHERE schema_name = ? AND server_id = ? AND state = 'undo'",
                &[
                    CloneState::Ready.as_str().into(),
                    now.into(),
                    schema.as_str().into(),
                    server.0.into(),
                ],
            )?;
            store
                .execute(
                    "UPDATE clone_contents SET undo_wish = NULL, kept = ? WHERE schema_name = ?",
                    &[kept.into(), schema.as_str().into()],
                )
                .map(drop)
        })
    }

    /// It is tried again, after a pause.
    pub fn undo_failed(
        &mut self,
        schema: &SchemaName,
        server: ServerId,
        error: &str,
        now: Timestamp,
    ) -> Result<()> {
        self.execute(
            "UPDATE clones SET attempts = attempts + 1, finished_at = ?, error = ?
             WHERE schema_name = ? AND server_id = ? AND state = 'undo'",
            &[now.into(), error.into(), schema.as_str().into(), server.0.into()],
        )
        .map(drop)
    }
}

/// Whether a row is about a copy of this source for this environment, under this mask.
fn is_of(
    row: &Row,
    mask_column: &str,
    source: &SchemaName,
    pull: Option<PullNumber>,
    mask: Option<&str>,
) -> Result<bool> {
    Ok(row.opt_text("source")?.as_deref() == Some(source.as_str())
        && row.opt_int("pull_number")? == pull.map(|n| i64::from(n.0))
        && row.opt_text(mask_column)?.as_deref() == mask)
}

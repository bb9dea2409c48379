//! What a person changes. Whether it may be changed is decided in [`crate::ops`].

use jiff::Timestamp;

use super::backend::Value;
use super::effects::Won;
use super::{Result, Store, datetime};
use crate::domain::{InstanceId, Login, PullNumber, SchemaName, ServerId, Sha};
use crate::facts::Hold;

/// What a person sets of a server: columns of `servers` by their names, and [`AUTO_WEEKDAYS`].
pub const SERVER_COLUMNS: [&str; 9] = [
    "instance_id",
    "name",
    "private_ip",
    "db_schema",
    "check_url",
    "is_staging",
    "auto_start_at",
    "auto_stop_at",
    AUTO_WEEKDAYS,
];

/// Stands in a table of ours: a table of pullre-kun never gains a column.
pub const AUTO_WEEKDAYS: &str = "auto_weekdays";

impl Store {
    pub fn set_paused(&mut self, who: Option<String>) -> Result<()> {
        self.set_setting("paused", who)
    }

    pub fn add_server(
        &mut self,
        instance: &InstanceId,
        name: &str,
        now: Timestamp,
    ) -> Result<ServerId> {
        self.execute(
            "INSERT INTO servers (created_at, updated_at, instance_id, name, is_staging)
             VALUES (?, ?, ?, ?, 1)",
            &[datetime(now), datetime(now), instance.0.as_str().into(), name.into()],
        )?;
        Ok(ServerId(self.backend.last_insert_id()?))
    }

    /// Sets columns of [`SERVER_COLUMNS`], all or none.
    pub fn set_server(
        &mut self,
        server: ServerId,
        columns: &[(&'static str, Value)],
        now: Timestamp,
    ) -> Result<()> {
        self.transaction(|store| {
            for (column, value) in columns {
                debug_assert!(SERVER_COLUMNS.contains(column));
                if *column == AUTO_WEEKDAYS {
                    store.set_switches(server, "weekdays", value.clone())?;
                    continue;
                }
                store.execute(
                    &format!("UPDATE servers SET {column} = ?, updated_at = ? WHERE id = ?"),
                    &[value.clone(), datetime(now), server.0.into()],
                )?;
            }
            Ok(())
        })
    }

    /// The newest switch of this server that was done, or needs doing no more.
    pub fn switched(&mut self, server: ServerId, due: Timestamp) -> Result<()> {
        self.set_switches(server, "done_at", due.into())
    }

    pub(super) fn set_switches(
        &mut self,
        server: ServerId,
        column: &str,
        value: Value,
    ) -> Result<()> {
        self.upsert(
            &format!("UPDATE server_switches SET {column} = ? WHERE server_id = ?"),
            &format!("INSERT INTO server_switches ({column}, server_id) VALUES (?, ?)"),
            &[value, server.0.into()],
        )
    }

    /// Removes a server that serves nobody, and what is recorded of it. `No` where it serves
    /// somebody by now.
    pub fn remove_server(&mut self, server: ServerId) -> Result<Won> {
        self.transaction(|store| {
            let id = [Value::from(server.0)];
            let used = store.query_one("SELECT 1 FROM assignments WHERE server_id = ?", &id)?;
            if used.is_some() {
                return Ok(Won::No);
            }
            // Closed pull requests that pullre-kun left may still name it.
            store.execute("UPDATE pull_requests SET server_id = NULL WHERE server_id = ?", &id)?;
            store.execute("UPDATE pull_facts SET last_server_id = NULL WHERE last_server_id = ?", &id)?;
            store.execute(
                "DELETE FROM clone_contents
                 WHERE schema_name IN (SELECT schema_name FROM clones WHERE server_id = ?)",
                &id,
            )?;
            store.execute(
                "UPDATE clone_wishes SET done = 1
                 WHERE schema_name IN (SELECT schema_name FROM clones WHERE server_id = ?)",
                &id,
            )?;
            store.execute("DELETE FROM clones WHERE server_id = ?", &id)?;
            store.execute("DELETE FROM server_facts WHERE server_id = ?", &id)?;
            store.execute("DELETE FROM server_switches WHERE server_id = ?", &id)?;
            store.execute("DELETE FROM server_pulses WHERE server_id = ?", &id)?;
            store.execute("DELETE FROM app_deaths WHERE server_id = ?", &id)?;
            store.execute("DELETE FROM agent_troubles WHERE server_id = ?", &id)?;
            store.execute(
                "DELETE FROM local_slots WHERE name = (SELECT instance_id FROM servers WHERE id = ?)",
                &id,
            )?;
            store.execute("DELETE FROM servers WHERE id = ?", &id)?;
            Ok(Won::Yes)
        })
    }

    pub fn hold_server(&mut self, server: ServerId, hold: Option<&Hold>) -> Result<()> {
        self.server_facts(server)?;
        let [at, until, reason] = hold_values(hold);
        self.execute(
            "UPDATE server_facts SET held_at = ?, held_until = ?, held_reason = ? WHERE server_id = ?",
            &[at, until, reason, server.0.into()],
        )
        .map(drop)
    }

    pub fn hold_pull(&mut self, pull: PullNumber, hold: Option<&Hold>) -> Result<()> {
        let [at, until, reason] = hold_values(hold);
        self.upsert(
            "UPDATE pull_wishes SET held_at = ?, held_until = ?, held_reason = ? WHERE number = ?",
            "INSERT INTO pull_wishes (held_at, held_until, held_reason, number) VALUES (?, ?, ?, ?)",
            &[at, until, reason, pull.0.into()],
        )
    }

    pub fn stop_pull(&mut self, pull: PullNumber, stop: Option<(&str, Timestamp)>) -> Result<()> {
        let Some((by, at)) = stop else {
            self.execute("DELETE FROM pull_stops WHERE number = ?", &[pull.0.into()])?;
            return Ok(());
        };
        let by: String = by.chars().take(128).collect();
        self.upsert(
            "UPDATE pull_stops SET stopped_at = ?, stopped_by = ? WHERE number = ?",
            "INSERT INTO pull_stops (stopped_at, stopped_by, number) VALUES (?, ?, ?)",
            &[at.into(), by.into(), pull.0.into()],
        )
    }

    pub fn approve(&mut self, pull: PullNumber, sha: &Sha) -> Result<()> {
        self.upsert(
            "UPDATE pull_wishes SET approved_sha = ? WHERE number = ?",
            "INSERT INTO pull_wishes (approved_sha, number) VALUES (?, ?)",
            &[sha.as_str().into(), pull.0.into()],
        )
    }

    /// Fresh data for an environment: what it works on stays until the copy is done. `No` where
    /// it has no clone, or one that is not ours.
    pub fn clone_stale(&mut self, schema: &SchemaName, pull: PullNumber) -> Result<Won> {
        let matched = self.execute(
            "UPDATE clones SET state = 'stale', attempts = 0
             WHERE schema_name = ? AND pull_number = ? AND state <> 'refused'",
            &[schema.as_str().into(), pull.0.into()],
        )?;
        Ok(matched.into())
    }

    /// A person wants another try at once: pauses after failures no longer count.
    pub fn forget_failures(&mut self, pull: PullNumber, server: ServerId) -> Result<()> {
        self.transaction(|store| {
            store.execute(
                "UPDATE server_facts SET start_requested_at = NULL, start_attempts = 0,
                     start_error = NULL
                 WHERE server_id = ? AND (start_error IS NOT NULL OR start_attempts > 1)",
                &[server.0.into()],
            )?;
            store.execute(
                "UPDATE clones SET state = 'stale', attempts = 0
                 WHERE server_id = ? AND pull_number = ? AND state = 'failed'",
                &[server.0.into(), pull.0.into()],
            )?;
            // Still not ours: it is only looked at again.
            store.execute(
                "UPDATE clones SET finished_at = NULL, attempts = 0
                 WHERE server_id = ? AND pull_number = ? AND state = 'refused'",
                &[server.0.into(), pull.0.into()],
            )?;
            Ok(())
        })
    }

    /// Makes an existing schema this server's to overwrite.
    pub fn take_over(&mut self, schema: &SchemaName, server: ServerId) -> Result<()> {
        self.transaction(|store| {
            let moved = store.execute(
                "UPDATE clones SET server_id = ?, state = 'owned', pull_number = NULL, attempts = 0
                 WHERE schema_name = ?",
                &[server.0.into(), schema.as_str().into()],
            )?;
            if moved == 0 {
                store.own(schema, server)?;
            }
            store.execute(
                "DELETE FROM clone_contents WHERE schema_name = ?",
                &[schema.as_str().into()],
            )?;
            store.execute(
                "UPDATE clone_wishes SET done = 1 WHERE schema_name = ?",
                &[schema.as_str().into()],
            )?;
            Ok(())
        })
    }

    pub fn set_user(&mut self, login: &Login, schema: &SchemaName, now: Timestamp) -> Result<()> {
        // GitHub's logins have no case; an older row may have been written in another one. It keeps
        // the moment at which it was made.
        self.upsert(
            "UPDATE git_hub_users SET db_schema = ?, updated_at = ?,
                 created_at = COALESCE(created_at, ?) WHERE LOWER(login) = LOWER(?)",
            "INSERT INTO git_hub_users (db_schema, updated_at, created_at, login)
             VALUES (?, ?, ?, ?)",
            &[schema.as_str().into(), datetime(now), datetime(now), login.0.as_str().into()],
        )
    }

    pub fn remove_user(&mut self, login: &Login) -> Result<Won> {
        let matched = self.execute(
            "DELETE FROM git_hub_users WHERE LOWER(login) = LOWER(?)",
            &[login.0.as_str().into()],
        )?;
        Ok(matched.into())
    }

    pub fn hidden_servers(&mut self) -> Result<Vec<String>> {
        let rows = self.query("SELECT name FROM hide_servers ORDER BY name", &[])?;
        Ok(rows
            .iter()
            .map(|row| row.opt_text("name"))
            .collect::<Result<Vec<_>>>()?
            .into_iter()
            .flatten()
            .collect())
    }

    pub fn set_hidden(&mut self, name: &str, hidden: bool, now: Timestamp) -> Result<()> {
        self.transaction(|store| {
            for row in store.query("SELECT id, name FROM hide_servers", &[])? {
                // MySQL compares without case.
                if row.opt_text("name")?.as_deref() == Some(name) {
                    store.execute(
                        "DELETE FROM hide_servers WHERE id = ?",
                        &[row.int("id")?.into()],
                    )?;
                }
            }
            if hidden {
                store.execute(
                    "INSERT INTO hide_servers (created_at, updated_at, name) VALUES (?, ?, ?)",
                    &[datetime(now), datetime(now), name.into()],
                )?;
            }
            Ok(())
        })
    }
}

fn hold_values(hold: Option<&Hold>) -> [Value; 3] {
    match hold {
        None => [Value::Null, Value::Null, Value::Null],
        Some(hold) => [hold.since.into(), hold.until.into(), hold.reason.as_str().into()],
    }
}

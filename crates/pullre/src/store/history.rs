//! What happened: deployments with their steps, and events. Kept for `keep_days`.

use jiff::Timestamp;
use serde::Serialize;

use super::backend::Row;
use super::facts::deployment;
use super::{Result, Store};
use crate::domain::{PullNumber, ServerId};
use crate::facts::Deployment;

/// One step of a deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    pub name: String,
    pub started_at: Timestamp,
    /// None while it runs, or where its client died in it.
    pub finished_at: Option<Timestamp>,
    pub exit_status: Option<i64>,
    /// The end of what it printed, secrets masked.
    pub output: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Event {
    pub at: Timestamp,
    pub actor: String,
    pub pull: Option<PullNumber>,
    pub server: Option<ServerId>,
    pub message: String,
}

pub(super) fn event(row: &Row) -> Result<Event> {
    Ok(Event {
        at: row.time("at")?,
        actor: row.text("actor")?,
        pull: row.opt_u32("pull_number")?.map(PullNumber),
        server: row.opt_int("server_id")?.map(ServerId),
        message: row.text("message")?,
    })
}

impl Store {
    /// Of an actor's name the first 128 characters are kept.
    pub fn event(
        &mut self,
        at: Timestamp,
        actor: &str,
        pull: Option<PullNumber>,
        server: Option<ServerId>,
        message: &str,
    ) -> Result<()> {
        self.execute(
            "INSERT INTO events (at, actor, pull_number, server_id, message) VALUES (?, ?, ?, ?, ?)",
            &[
                at.into(),
                actor.chars().take(128).collect::<String>().into(),
                pull.map(|n| n.0).into(),
                server.map(|s| s.0).into(),
                message.into(),
            ],
        )
        .map(drop)
    }

    /// The newest first.
    pub fn events_of(&mut self, pull: PullNumber, most: u32) -> Result<Vec<Event>> {
        let rows = self.query(
            "SELECT at, actor, pull_number, server_id, message FROM events WHERE pull_number = ?
             ORDER BY id DESC LIMIT ?",
            &[pull.0.into(), most.into()],
        )?;
        rows.iter().map(event).collect()
    }

    /// The newest first.
    pub fn deployments_of(&mut self, pull: PullNumber, most: u32) -> Result<Vec<Deployment>> {
        let rows = self.query(
            "SELECT * FROM deployments WHERE pull_number = ? ORDER BY id DESC LIMIT ?",
            &[pull.0.into(), most.into()],
        )?;
        rows.iter().map(deployment).collect()
    }

    pub fn deployment_on(&mut self, server: ServerId) -> Result<Option<Deployment>> {
        let row = self.query_one(
            "SELECT * FROM deployments WHERE server_id = ? AND started_at IS NOT NULL
             ORDER BY id DESC LIMIT 1",
            &[server.0.into()],
        )?;
        row.as_ref().map(deployment).transpose()
    }

    pub fn steps_of(&mut self, deployment: i64) -> Result<Vec<Step>> {
        let rows = self.query(
            "SELECT name, started_at, finished_at, exit_status, output FROM deployment_steps
             WHERE deployment_id = ? ORDER BY id",
            &[deployment.into()],
        )?;
        rows.iter()
            .map(|row| {
                Ok(Step {
                    name: row.text("name")?,
                    started_at: row.time("started_at")?,
                    finished_at: row.opt_time("finished_at")?,
                    exit_status: row.opt_int("exit_status")?,
                    output: row.text("output")?,
                })
            })
            .collect()
    }

    /// Removes what ended before `limit`; never what an assignment still points at. Returns the
    /// number of deployments and events that went.
    pub(super) fn forget_before(&mut self, limit: Timestamp) -> Result<(u64, u64)> {
        let old = "finished_at < ? AND NOT EXISTS
                (SELECT 1 FROM assignments a WHERE a.deployment_id = deployments.id)";
        self.execute(
            &format!(
                "DELETE FROM deployment_steps WHERE deployment_id IN
                         (SELECT id FROM deployments WHERE {old})"
            ),
            &[limit.into()],
        )?;
        let deployments =
            self.execute(&format!("DELETE FROM deployments WHERE {old}"), &[limit.into()])?;
        let events = self.execute("DELETE FROM events WHERE at < ?", &[limit.into()])?;
        let over = "NOT EXISTS (SELECT 1 FROM pull_requests p
                WHERE p.number = pull_number AND p.state = 'open')";
        self.execute(
            &format!(
                "DELETE FROM reports WHERE settled = 1 AND COALESCE(said_at, 0) < ? AND {over}"
            ),
            &[limit.into()],
        )?;
        self.execute(
            &format!(
                "DELETE FROM comment_commands WHERE state = 'done' AND changed_at < ? AND {over}"
            ),
            &[limit.into()],
        )?;
        self.forget_measures(limit)?;
        Ok((deployments, events))
    }
}

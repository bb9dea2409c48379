//! What a staging client reads and writes: its duty, the deployment that it works on, its signs
//! of life.

use jiff::Timestamp;

use super::backend::Value;
use super::effects::Won;
use super::facts::deployment;
use super::{Result, Store, StoreError};
use crate::domain::{InstanceId, InstanceState, PullNumber, ServerId};
use crate::facts::{App, Deployment};

/// What one server has to do, read in one query.
#[derive(Debug, Clone)]
pub struct Duty {
    pub server: ServerId,
    pub name: String,
    pub instance: Option<InstanceId>,
    /// As the row has it; only meaningful where the app needs it.
    pub schema: String,
    pub check_url: Option<String>,
    /// The app that this client reported last.
    pub app: Option<App>,
    /// None: no app shall run here.
    pub task: Option<Task>,
    /// All effects are paused.
    pub paused: bool,
}

#[derive(Debug, Clone)]
pub struct Task {
    pub deployment: Deployment,
    /// The branch of the pull request. Written by a stranger.
    pub head_ref: String,
}

const DUTIES: &str = "
    SELECT s.id AS on_server, s.name, s.instance_id, s.db_schema, s.check_url, f.app_pull, f.app_sha,
        p.ref, d.*, (SELECT COUNT(*) FROM settings WHERE settings.name = 'paused') AS paused
    FROM servers s
    LEFT JOIN server_facts f ON f.server_id = s.id
    LEFT JOIN assignments a ON a.server_id = s.id
    LEFT JOIN deployments d ON d.id = a.deployment_id
    LEFT JOIN pull_requests p ON p.number = a.pull_number ";

impl Store {
    /// The duties of the servers whose name or instance is `name`.
    pub fn duties_of(&mut self, name: &str) -> Result<Vec<Duty>> {
        let sql = format!("{DUTIES} WHERE s.name = ? OR s.instance_id = ? ORDER BY s.id");
        let mut duties = Vec::new();
        for row in self.query(&sql, &[name.into(), name.into()])? {
            // MySQL compares without case.
            let is_it = |column: &str| Ok(row.opt_text(column)?.as_deref() == Some(name));
            if is_it("name")? || is_it("instance_id")? {
                duties.push(duty(&row)?);
            }
        }
        Ok(duties)
    }

    /// The name and the instance of every server, for people.
    pub fn server_names(&mut self) -> Result<Vec<(Option<String>, Option<String>)>> {
        let rows = self.query("SELECT name, instance_id FROM servers ORDER BY id", &[])?;
        rows.iter().map(|row| Ok((row.opt_text("name")?, row.opt_text("instance_id")?))).collect()
    }

    /// The duties of every slot of this machine; one that left the pool still has to stop its app.
    /// A slot whose rows make no sense is left alone, with a warning.
    pub fn local_duties(&mut self) -> Result<Vec<Duty>> {
        let sql = format!(
            "{DUTIES} WHERE EXISTS (SELECT 1 FROM local_slots l WHERE l.name = s.instance_id)
             ORDER BY s.id"
        );
        let mut duties = Vec::new();
        for row in self.query(&sql, &[])? {
            match duty(&row) {
                Ok(duty) => duties.push(duty),
                Err(StoreError::Row(why)) => {
                    let server = row.int("on_server")?;
                    tracing::warn!(server, "server {server} is left alone: {why}");
                }
                Err(e) => return Err(e),
            }
        }
        Ok(duties)
    }

    /// Takes a deployment up, or up again after this client died in the middle of it. `No` where
    /// it is not wanted any more.
    pub fn begin_deployment(&mut self, id: i64, now: Timestamp) -> Result<Won> {
        let matched = self.execute(
            "UPDATE deployments SET
                 interruptions = interruptions + CASE WHEN outcome = 'running' THEN 1 ELSE 0 END,
                 outcome = 'running', started_at = ?
             WHERE id = ? AND outcome IN ('offered', 'running')
               AND EXISTS (SELECT 1 FROM assignments a WHERE a.deployment_id = deployments.id)",
            &[now.into(), id.into()],
        )?;
        Ok(matched.into())
    }

    /// Whether the deployment is still the one that its server shall do.
    pub fn is_wanted(&mut self, id: i64) -> Result<bool> {
        let row = self.query_one(
            "SELECT 1 FROM assignments a JOIN deployments d ON d.id = a.deployment_id
             WHERE d.id = ? AND d.outcome = 'running'",
            &[id.into()],
        )?;
        Ok(row.is_some())
    }

    pub fn step_started(&mut self, deployment: i64, name: &str, now: Timestamp) -> Result<i64> {
        self.execute(
            "INSERT INTO deployment_steps (deployment_id, name, started_at, output) VALUES (?, ?, ?, '')",
            &[deployment.into(), name.into(), now.into()],
        )?;
        self.backend.last_insert_id()
    }

    pub fn step_finished(
        &mut self,
        step: i64,
        exit_status: Option<i32>,
        output: &str,
        now: Timestamp,
    ) -> Result<()> {
        self.execute(
            "UPDATE deployment_steps SET finished_at = ?, exit_status = ?, output = ? WHERE id = ?",
            &[now.into(), exit_status.map(i64::from).into(), output.into(), step.into()],
        )
        .map(drop)
    }

    /// The last act of a deployment: says that its commit is the one that runs. `No` where the
    /// server shall serve another commit by now.
    pub fn deployment_succeeded(&mut self, deployment: &Deployment, now: Timestamp) -> Result<Won> {
        self.transaction(|store| {
            let matched = store.execute(
                "UPDATE deployments SET outcome = 'succeeded', finished_at = ?
                 WHERE id = ? AND outcome = 'running'
                   AND EXISTS (SELECT 1 FROM assignments a WHERE a.deployment_id = deployments.id)",
                &[now.into(), deployment.id.into()],
            )?;
            if matched == 0 {
                return Ok(Won::No);
            }
            store.execute(
                "UPDATE pull_requests SET is_launched = 1 WHERE number = ? AND sha = ?",
                &[deployment.pull.0.into(), deployment.sha.as_str().into()],
            )?;
            let message = format!("serves {}", deployment.sha.short());
            store.event(now, "client", Some(deployment.pull), Some(deployment.server), &message)?;
            Ok(Won::Yes)
        })
    }

    /// Ends a deployment with the step that failed and why. `No` where it was superseded.
    pub fn deployment_failed(
        &mut self,
        deployment: &Deployment,
        step: &str,
        reason: &str,
        now: Timestamp,
    ) -> Result<Won> {
        self.transaction(|store| {
            let matched = store.execute(
                "UPDATE deployments SET outcome = 'failed', failed_step = ?, reason = ?, finished_at = ?
                 WHERE id = ? AND outcome = 'running'",
                &[step.into(), reason.into(), now.into(), deployment.id.into()],
            )?;
            if matched == 0 {
                return Ok(Won::No);
            }
            let message = format!("{} failed in step {step}: {reason}", deployment.sha.short());
            store.event(now, "client", Some(deployment.pull), Some(deployment.server), &message)?;
            Ok(Won::Yes)
        })
    }

    /// What runs on the server. Written before an app is started and after it is seen to be gone,
    /// so that nobody clones over the data of an app that lives.
    pub fn app_is(&mut self, server: ServerId, app: Option<&App>) -> Result<()> {
        self.server_facts(server)?;
        let (pull, sha): (Value, Value) = match app {
            Some(app) => (app.pull.0.into(), app.sha.as_str().into()),
            None => (Value::Null, Value::Null),
        };
        self.execute(
            "UPDATE server_facts SET app_pull = ?, app_sha = ? WHERE server_id = ?",
            &[pull, sha, server.0.into()],
        )
        .map(drop)
    }

    /// A sign of life of a staging client.
    pub fn agent_seen(&mut self, server: ServerId, version: &str, now: Timestamp) -> Result<()> {
        let params = [now.into(), version.into(), server.0.into()];
        let sql =
            "UPDATE server_facts SET agent_seen_at = ?, agent_version = ? WHERE server_id = ?";
        if self.execute(sql, &params)? == 0 {
            self.server_facts(server)?;
            self.execute(sql, &params)?;
        }
        Ok(())
    }

    /// The slots of this machine and what they do.
    pub fn local_slots(&mut self) -> Result<Vec<(InstanceId, InstanceState)>> {
        let rows = self.query("SELECT name, state FROM local_slots ORDER BY name", &[])?;
        rows.iter().map(|row| Ok((InstanceId(row.text("name")?), row.parsed("state")?))).collect()
    }

    /// `No` where there is no such slot.
    pub fn set_local_slot(&mut self, id: &InstanceId, state: InstanceState) -> Result<Won> {
        let matched = self.execute(
            "UPDATE local_slots SET state = ? WHERE name = ?",
            &[state.as_str().into(), id.0.as_str().into()],
        )?;
        Ok(matched.into())
    }

    pub fn add_local_slot(&mut self, id: &InstanceId) -> Result<()> {
        let made = self.execute(
            "INSERT INTO local_slots (name, state) VALUES (?, ?)",
            &[id.0.as_str().into(), InstanceState::Stopped.as_str().into()],
        );
        match made {
            Ok(_) | Err(StoreError::Conflict(_)) => Ok(()),
            Err(e) => Err(e),
        }
    }
}

fn duty(row: &super::backend::Row) -> Result<Duty> {
    let app = match (row.opt_u32("app_pull")?, row.opt_parsed("app_sha")?) {
        (Some(pull), Some(sha)) => Some(App { pull: PullNumber(pull), sha }),
        _ => None,
    };
    let task = if row.is_null("id")? {
        None
    } else {
        let head_ref = row.opt_text("ref")?.unwrap_or_default();
        Some(Task { deployment: deployment(row)?, head_ref })
    };
    let server = ServerId(row.int("on_server")?);
    let instance = row.opt_text("instance_id")?.map(InstanceId);
    Ok(Duty {
        server,
        name: row
            .opt_text("name")?
            .or_else(|| instance.as_ref().map(|id| id.0.clone()))
            .unwrap_or_else(|| format!("server {}", server.0)),
        instance,
        schema: row.opt_text("db_schema")?.unwrap_or_default(),
        check_url: row.opt_text("check_url")?.filter(|url| !url.is_empty()),
        app,
        task,
        paused: row.int("paused")? > 0,
    })
}

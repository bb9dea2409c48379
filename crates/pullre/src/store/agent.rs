//! What a staging client reads and writes: its duty, the deployment that it works on, its signs
//! of life.

use std::fmt;

use jiff::Timestamp;

use super::backend::Value;
use super::effects::Won;
use super::facts::{deployment, hold, server_name};
use super::{Result, Store, StoreError, harmless_twice};
use crate::domain::{InstanceId, InstanceState, PullNumber, ServerId};
use crate::facts::{App, AppDeath, Deployment, Hold, Pulse};

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
    /// The deployment whose app died and was not proved to run again yet.
    pub died: Option<i64>,
    /// None: no app shall run here.
    pub task: Option<Task>,
    /// All effects are paused.
    pub paused: bool,
    /// A person took the server, or its environment, out of automatic hands.
    pub holds: Vec<Hold>,
}

#[derive(Debug, Clone)]
pub struct Task {
    pub deployment: Deployment,
    /// The branch of the pull request. Written by a stranger.
    pub head_ref: String,
}

const DUTIES: &str = "
    SELECT s.id AS on_server, s.name, s.instance_id, s.db_schema, s.check_url, f.app_pull, f.app_sha,
        p.ref, d.*, (SELECT COUNT(*) FROM settings WHERE settings.name = 'paused') AS paused,
        f.held_at, f.held_until, f.held_reason, w.held_at AS pull_held_at,
        w.held_until AS pull_held_until, w.held_reason AS pull_held_reason,
        x.deployment_id AS died_of
    FROM servers s
    LEFT JOIN server_facts f ON f.server_id = s.id
    LEFT JOIN assignments a ON a.server_id = s.id
    LEFT JOIN deployments d ON d.id = a.deployment_id
    LEFT JOIN pull_requests p ON p.number = a.pull_number
    LEFT JOIN pull_wishes w ON w.number = a.pull_number
    LEFT JOIN app_deaths x ON x.server_id = s.id AND x.times > 0 ";

/// What a server is called, and where it is.
#[derive(Debug, Clone)]
pub struct ServerName {
    pub name: String,
    pub instance: Option<InstanceId>,
    pub private_ip: Option<String>,
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.instance {
            Some(id) if id.0 != self.name => write!(f, "{} ({id})", self.name),
            _ => write!(f, "{}", self.name),
        }
    }
}

impl Store {
    /// All servers, in the pool or not.
    pub fn server_names(&mut self) -> Result<Vec<ServerName>> {
        let sql = "SELECT id, name, instance_id, private_ip FROM servers ORDER BY id";
        let rows = self.query(sql, &[])?;
        rows.iter()
            .map(|row| {
                let instance = row.opt_text("instance_id")?.filter(|id| !id.is_empty());
                let instance = instance.map(InstanceId);
                let id = ServerId(row.int("id")?);
                Ok(ServerName {
                    name: server_name(row.opt_text("name")?, instance.as_ref(), id),
                    instance,
                    private_ip: row.opt_text("private_ip")?,
                })
            })
            .collect()
    }

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

    /// Whether the deployment is still the one that its server shall do, or serve.
    pub fn is_wanted(&mut self, id: i64) -> Result<bool> {
        let row = self.query_one(
            "SELECT 1 FROM assignments a JOIN deployments d ON d.id = a.deployment_id
             WHERE d.id = ? AND d.outcome IN ('running', 'succeeded')",
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

    /// What a step that still runs has printed so far.
    pub fn step_output(&mut self, step: i64, output: &str) -> Result<()> {
        self.execute(
            "UPDATE deployment_steps SET output = ? WHERE id = ? AND finished_at IS NULL",
            &[output.into(), step.into()],
        )
        .map(drop)
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

    /// Who is at the server's schema. Written before a commit migrates it or its app is started, and
    /// after that is seen to be gone, so that nobody clones over data that is in use.
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

    /// What keeps a staging client from doing its duty, for `explain`; None: nothing any more.
    pub fn agent_trouble(&mut self, server: ServerId, trouble: Option<&str>) -> Result<()> {
        let update = "UPDATE agent_troubles SET message = ? WHERE server_id = ?";
        let matched = self.execute(update, &[trouble.into(), server.0.into()])?;
        if matched == 0 && trouble.is_some() {
            self.execute(
                "INSERT INTO agent_troubles (message, server_id) VALUES (?, ?)",
                &[trouble.into(), server.0.into()],
            )?;
        }
        Ok(())
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

    /// What the machine of a staging client is like.
    pub fn measured(&mut self, server: ServerId, pulse: &Pulse) -> Result<()> {
        let size = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX).into();
        let params = [
            size(pulse.free_bytes),
            size(pulse.total_bytes),
            pulse.load_percent.into(),
            server.0.into(),
        ];
        let matched = self.execute(
            "UPDATE server_pulses SET free_bytes = ?, total_bytes = ?, load_percent = ?
             WHERE server_id = ?",
            &params,
        )?;
        if matched == 0 {
            self.execute(
                "INSERT INTO server_pulses (free_bytes, total_bytes, load_percent, server_id)
                 VALUES (?, ?, ?, ?)",
                &params,
            )?;
        }
        Ok(())
    }

    /// The app of a deployment that had succeeded is gone.
    pub fn app_died(&mut self, server: ServerId, death: &AppDeath) -> Result<()> {
        let params = [
            death.deployment.into(),
            death.times.into(),
            death.at.into(),
            death.again_at.into(),
            death.reason.as_str().into(),
            server.0.into(),
        ];
        let matched = self.execute(
            "UPDATE app_deaths SET deployment_id = ?, times = ?, died_at = ?, again_at = ?, reason = ?
             WHERE server_id = ?",
            &params,
        )?;
        if matched == 0 {
            self.execute(
                "INSERT INTO app_deaths
                     (deployment_id, times, died_at, again_at, reason, server_id)
                 VALUES (?, ?, ?, ?, ?, ?)",
                &params,
            )?;
        }
        Ok(())
    }

    /// The app that had died runs again.
    pub fn app_lives(&mut self, server: ServerId) -> Result<()> {
        let sql = "UPDATE app_deaths SET times = 0 WHERE server_id = ?";
        self.execute(sql, &[server.0.into()]).map(drop)
    }

    /// The slots of this machine and what they do.
    pub fn local_slots(&mut self) -> Result<Vec<(InstanceId, InstanceState)>> {
        let rows = self.query("SELECT name, state FROM local_slots ORDER BY name", &[])?;
        rows.iter().map(|row| Ok((InstanceId(row.text("name")?), row.parsed("state")?))).collect()
    }

    /// Slots whose client has not said yet that nothing is at their schema.
    pub fn slots_with_apps(&mut self) -> Result<Vec<InstanceId>> {
        let rows = self.query(
            "SELECT s.instance_id FROM servers s JOIN server_facts f ON f.server_id = s.id
             WHERE f.app_pull IS NOT NULL AND s.instance_id IS NOT NULL",
            &[],
        )?;
        rows.iter().map(|row| Ok(InstanceId(row.text("instance_id")?))).collect()
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
        harmless_twice(self.execute(
            "INSERT INTO local_slots (name, state) VALUES (?, ?)",
            &[id.0.as_str().into(), InstanceState::Stopped.as_str().into()],
        ))
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
    let instance = row.opt_text("instance_id")?.filter(|id| !id.is_empty()).map(InstanceId);
    Ok(Duty {
        server,
        name: server_name(row.opt_text("name")?, instance.as_ref(), server),
        instance,
        schema: row.opt_text("db_schema")?.unwrap_or_default(),
        check_url: row.opt_text("check_url")?.filter(|url| !url.is_empty()),
        app,
        died: row.opt_int("died_of")?,
        task,
        paused: row.int("paused")? > 0,
        holds: [
            hold(row, ["held_at", "held_until", "held_reason"])?,
            hold(row, ["pull_held_at", "pull_held_until", "pull_held_reason"])?,
        ]
        .into_iter()
        .flatten()
        .collect(),
    })
}

//! Reads everything that a tick decides upon, in a fixed number of queries.

use std::str::FromStr;

use jiff::Timestamp;

use super::backend::Row;
use super::{Result, Store, StoreError};
use crate::domain::{InstanceId, Invalid, Login, PullNumber, PullRequest, PullState, ServerId};
use crate::facts::{
    Agent, App, AppDeath, Assignment, Contents, Deployment, Facts, Hold, Pull, Pulse, SchemaClone,
    Server, StartTries, Stopped, User,
};
use crate::switches::{self, Switching, Weekdays};

const PULLS: &str = "
    SELECT p.number, p.state, p.sha, p.title, p.body, p.ref, f.author, f.head_repo, f.is_fork,
        f.is_draft, f.labels, f.base_ref, f.opened_at, f.changed_at, f.closed_at, f.eligible_since,
        f.ineligible_since, f.last_server_id, w.approved_sha, w.held_at, w.held_until, w.held_reason,
        s.stopped_at, s.stopped_by
    FROM pull_requests p
    LEFT JOIN pull_facts f ON f.number = p.number
    LEFT JOIN pull_wishes w ON w.number = p.number
    LEFT JOIN pull_stops s ON s.number = p.number ";

const SERVERS: &str = "
    SELECT s.id, s.instance_id, s.name, s.private_ip, s.db_schema, s.check_url, s.is_staging,
        f.held_at, f.held_until, f.held_reason, f.start_requested_at, f.start_attempts,
        f.start_error, f.no_capacity_at, f.stop_owed, f.state, f.agent_seen_at, f.agent_version,
        f.app_pull, f.app_sha,
        s.auto_start_at, s.auto_stop_at, w.weekdays, w.done_at, t.message AS trouble,
        u.free_bytes, u.total_bytes, u.load_percent, x.deployment_id AS died_of, x.times, x.died_at,
        x.again_at, x.reason
    FROM servers s
    LEFT JOIN server_facts f ON f.server_id = s.id
    LEFT JOIN server_switches w ON w.server_id = s.id
    LEFT JOIN agent_troubles t ON t.server_id = s.id
    LEFT JOIN server_pulses u ON u.server_id = s.id
    LEFT JOIN app_deaths x ON x.server_id = s.id AND x.times > 0
    ORDER BY s.id";

const ASSIGNMENTS: &str = "
    SELECT a.server_id AS on_server, a.pull_number AS for_pull, a.assigned_at, d.*
    FROM assignments a LEFT JOIN deployments d ON d.id = a.deployment_id";

impl Store {
    pub fn facts(&mut self) -> Result<Facts> {
        self.facts_by(PULLS)
    }

    /// Without what people wrote about their pull requests: the most of it by far, and to be told
    /// what stands nobody needs it.
    pub fn facts_without_bodies(&mut self) -> Result<Facts> {
        self.facts_by(&PULLS.replace("p.body", "'' AS body"))
    }

    fn facts_by(&mut self, pulls: &str) -> Result<Facts> {
        let mut facts = Facts { control_schema: self.backend.control_schema(), ..Facts::default() };
        let live = "WHERE p.state = 'open'
            OR EXISTS (SELECT 1 FROM assignments a WHERE a.pull_number = p.number)";
        let unreadable = &mut facts.unreadable;
        for row in self.query(&format!("{pulls}{live}"), &[])? {
            if let Some(pull) = readable(pull(&row), &row, "pull_requests", "number", unreadable)? {
                facts.pulls.insert(pull.request.number, pull);
            }
        }
        for row in self.query(SERVERS, &[])? {
            match readable(server(&row), &row, "servers", "id", unreadable)? {
                Some(mut server) => {
                    // Nonsense about a death keeps no server from serving; its client says it anew.
                    let died = readable(death(&row), &row, "app_deaths", "id", unreadable)?;
                    server.death = died.flatten();
                    facts.servers.insert(server.id, server);
                }
                None => drop(facts.unreadable_servers.insert(ServerId(row.int("id")?))),
            }
        }
        for row in self.query(ASSIGNMENTS, &[])? {
            let read = readable(assignment(&row), &row, "assignments", "on_server", unreadable)?;
            let Some(mut assignment) = read else {
                // It is somebody's, whoever that is: nobody else gets it.
                facts.servers.remove(&ServerId(row.int("on_server")?));
                continue;
            };
            if !row.is_null("id")? {
                // One that makes no sense is none, and is offered anew.
                assignment.deployment =
                    readable(deployment(&row), &row, "deployments", "id", unreadable)?;
            }
            facts.assignments.insert(assignment.pull, assignment);
        }
        const CLONES: &str = "SELECT c.*, x.pull_number AS holds_pull, x.source AS holds_source, x.mask, x.building_mask, x.kept,
                 x.undo_wish
             FROM clones c LEFT JOIN clone_contents x ON x.schema_name = c.schema_name";
        for row in self.query(CLONES, &[])? {
            if let Some(clone) = readable(clone(&row), &row, "clones", "schema_name", unreadable)? {
                facts.clones.insert(clone.schema.clone(), clone);
            }
        }
        facts.users = self.users()?;
        for row in self.query("SELECT name, content FROM settings", &[])? {
            let content = row.text("content")?;
            match row.text("name")?.as_str() {
                "paused" => facts.paused = Some(content),
                "refused" => facts.refused = Some(content),
                "watermark" => facts.watermark = moment(&content),
                "forgot_at" => facts.forgot_at = moment(&content),
                "report_trouble" => facts.report_trouble = Some(content),
                "commands_trouble" => facts.commands_trouble = Some(content),
                "comments_read" => facts.comments_read = moment(&content),
                "comments_due" => facts.comments_due = Some(content),
                "whole_read_at" => facts.whole_read_at = moment(&content),
                _ => {}
            }
        }
        Ok(facts)
    }

    /// One pull request, also a closed one.
    pub fn pull(&mut self, number: PullNumber) -> Result<Option<Pull>> {
        let row = self.query_one(&format!("{PULLS} WHERE p.number = ?"), &[number.0.into()])?;
        row.map(|row| pull(&row)).transpose()
    }

    /// Those of `numbers` that are stored, open or closed.
    pub fn pulls(&mut self, numbers: &[PullNumber]) -> Result<Vec<Pull>> {
        let mut found = Vec::new();
        // Engines limit the placeholders of one statement.
        for some in numbers.chunks(500) {
            let marks = vec!["?"; some.len()].join(", ");
            let params: Vec<_> = some.iter().map(|number| number.0.into()).collect();
            for row in self.query(&format!("{PULLS} WHERE p.number IN ({marks})"), &params)? {
                match pull(&row) {
                    Ok(pull) => found.push(pull),
                    // Nonsense counts as not stored: what GitHub says takes its place.
                    Err(StoreError::Row(_)) => {}
                    Err(e) => return Err(e),
                }
            }
        }
        Ok(found)
    }

    pub fn users(&mut self) -> Result<Vec<User>> {
        let rows = self.query("SELECT login, db_schema FROM git_hub_users ORDER BY login", &[])?;
        rows.iter()
            .map(|row| {
                let schema = row.opt_text("db_schema")?.unwrap_or_default();
                Ok(User { login: Login(row.text("login")?), schema: schema.parse() })
            })
            .collect()
    }
}

/// Settings are ours; one that was damaged by hand counts as never set, and is read anew.
fn moment(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

/// What a row says; None, and a note, where it makes no sense: one bad row concerns nobody else.
fn readable<T>(
    parsed: Result<T>,
    row: &Row,
    table: &str,
    key: &str,
    unreadable: &mut Vec<String>,
) -> Result<Option<T>> {
    match parsed {
        Ok(value) => Ok(Some(value)),
        Err(StoreError::Row(why)) => {
            let key = row.opt_text(key)?.unwrap_or_default();
            unreadable
                .push(format!("row {key} of {table} makes no sense and is left alone: {why}"));
            Ok(None)
        }
        Err(e) => Err(e),
    }
}

const HELD: [&str; 3] = ["held_at", "held_until", "held_reason"];

pub(super) fn hold(row: &Row, [at, until, reason]: [&str; 3]) -> Result<Option<Hold>> {
    let Some(since) = row.opt_time(at)? else { return Ok(None) };
    let until = row.opt_time(until)?;
    let reason = row.opt_text(reason)?.unwrap_or_default();
    Ok(Some(Hold { since, until, reason }))
}

fn pull(row: &Row) -> Result<Pull> {
    let number = PullNumber(row.u32("number")?);
    let described = !row.is_null("is_fork")?;
    let labels = row.opt_text("labels")?.unwrap_or_else(|| "[]".into());
    let request = PullRequest {
        number,
        state: row.opt_text("state")?.map_or(Ok(PullState::Closed), |s| {
            PullState::from_str(&s).map_err(|e| StoreError::Row(e.to_string()))
        })?,
        head: row.parsed("sha")?,
        head_ref: row.opt_text("ref")?.unwrap_or_default(),
        base_ref: row.opt_text("base_ref")?.unwrap_or_default(),
        title: row.opt_text("title")?.unwrap_or_default(),
        body: row.opt_text("body")?.unwrap_or_default(),
        author: row.opt_text("author")?.map(Login),
        head_repo: row.opt_text("head_repo")?,
        is_fork: row.opt_int("is_fork")? == Some(1),
        is_draft: row.opt_int("is_draft")? == Some(1),
        labels: serde_json::from_str(&labels)
            .map_err(|e| StoreError::Row(format!("labels: {e}")))?,
        created_at: row.opt_time("opened_at")?.unwrap_or_default(),
        updated_at: row.opt_time("changed_at")?.unwrap_or_default(),
        closed_at: row.opt_time("closed_at")?,
    };
    let stopped = match row.opt_time("stopped_at")? {
        None => None,
        Some(since) => {
            let by = row.opt_text("stopped_by")?.unwrap_or_default();
            Some(Stopped { since, by })
        }
    };
    Ok(Pull {
        request,
        described,
        eligible_since: row.opt_time("eligible_since")?,
        ineligible_since: row.opt_time("ineligible_since")?,
        approved: row.opt_parsed("approved_sha")?,
        hold: hold(row, HELD)?,
        stopped,
        last_server: row.opt_int("last_server_id")?.map(ServerId),
    })
}

/// What a server is called: by its row, else by its machine.
pub(super) fn server_name(
    name: Option<String>,
    instance: Option<&InstanceId>,
    id: ServerId,
) -> String {
    name.filter(|name| !name.is_empty())
        .or_else(|| instance.map(|instance| instance.0.clone()))
        .unwrap_or_else(|| format!("server {}", id.0))
}

fn server(row: &Row) -> Result<Server> {
    let id = ServerId(row.int("id")?);
    let instance = row.opt_text("instance_id")?.filter(|s| !s.is_empty()).map(InstanceId);
    let agent = match row.opt_time("agent_seen_at")? {
        None => None,
        Some(seen_at) => {
            let version = row.opt_text("agent_version")?.unwrap_or_default();
            Some(Agent { seen_at, version })
        }
    };
    let app = match (row.opt_u32("app_pull")?, row.opt_parsed("app_sha")?) {
        (Some(pull), Some(sha)) => Some(App { pull: PullNumber(pull), sha }),
        _ => None,
    };
    Ok(Server {
        id,
        name: server_name(row.opt_text("name")?, instance.as_ref(), id),
        instance,
        private_ip: row.opt_text("private_ip")?,
        schema: row.opt_text("db_schema")?.unwrap_or_default().parse(),
        check_url: row.opt_text("check_url")?.filter(|url| !url.is_empty()),
        is_staging: row.opt_int("is_staging")? == Some(1),
        hold: hold(row, HELD)?,
        start: StartTries {
            requested_at: row.opt_time("start_requested_at")?,
            attempts: row.opt_u32("start_attempts")?.unwrap_or(0),
            error: row.opt_text("start_error")?,
        },
        no_capacity_at: row.opt_time("no_capacity_at")?,
        stop_owed: row.opt_int("stop_owed")? == Some(1),
        state: row.opt_parsed("state")?,
        agent,
        app,
        trouble: row.opt_text("trouble")?,
        pulse: pulse(row)?,
        death: None,
        switching: switching(row)?,
    })
}

/// A number that cannot be is none: it is only shown.
fn pulse(row: &Row) -> Result<Option<Pulse>> {
    let size = |column: &str| Ok(row.opt_int(column)?.and_then(|n| u64::try_from(n).ok()));
    Ok(match (size("free_bytes")?, size("total_bytes")?) {
        (Some(free_bytes), Some(total_bytes)) => {
            let load_percent = row.opt_u32("load_percent")?.unwrap_or(0);
            Some(Pulse { free_bytes, total_bytes, load_percent })
        }
        _ => None,
    })
}

fn death(row: &Row) -> Result<Option<AppDeath>> {
    let Some(deployment) = row.opt_int("died_of")? else { return Ok(None) };
    Ok(Some(AppDeath {
        deployment,
        times: row.u32("times")?,
        at: row.time("died_at")?,
        again_at: row.time("again_at")?,
        reason: row.opt_text("reason")?.unwrap_or_default(),
    }))
}

/// Nonsense in here keeps no server from serving.
fn switching(row: &Row) -> Result<std::result::Result<Switching, Invalid>> {
    let time =
        |column: &str| Ok(row.opt_text(column)?.as_deref().map(switches::time_of_day).transpose());
    let (start, stop): (std::result::Result<_, _>, std::result::Result<_, _>) =
        (time("auto_start_at")?, time("auto_stop_at")?);
    let weekdays = row.opt_text("weekdays")?.map_or(Ok(Weekdays::default()), |text| text.parse());
    let done = row.opt_time("done_at")?;
    Ok(start.and_then(|start| Ok(Switching { start, stop: stop?, weekdays: weekdays?, done })))
}

/// Without its deployment, whose columns stand in the same row.
fn assignment(row: &Row) -> Result<Assignment> {
    Ok(Assignment {
        server: ServerId(row.int("on_server")?),
        pull: PullNumber(row.u32("for_pull")?),
        assigned_at: row.time("assigned_at")?,
        deployment: None,
    })
}

pub(super) fn deployment(row: &Row) -> Result<Deployment> {
    Ok(Deployment {
        id: row.int("id")?,
        pull: PullNumber(row.u32("pull_number")?),
        server: ServerId(row.int("server_id")?),
        sha: row.parsed("sha")?,
        attempt: row.u32("attempt")?,
        outcome: row.parsed("outcome")?,
        offered_at: row.time("offered_at")?,
        started_at: row.opt_time("started_at")?,
        finished_at: row.opt_time("finished_at")?,
        interruptions: row.u32("interruptions")?,
        failed_step: row.opt_text("failed_step")?,
        reason: row.opt_text("reason")?,
    })
}

fn clone(row: &Row) -> Result<SchemaClone> {
    Ok(SchemaClone {
        schema: row.parsed("schema_name")?,
        server: ServerId(row.int("server_id")?),
        state: row.parsed("state")?,
        source: row.opt_parsed("source")?,
        pull: row.opt_u32("pull_number")?.map(PullNumber),
        attempts: row.u32("attempts")?,
        started_at: row.opt_time("started_at")?,
        finished_at: row.opt_time("finished_at")?,
        error: row.opt_text("error")?,
        bytes: row.opt_int("bytes")?,
        millis: row.opt_int("millis")?,
        contents: Contents {
            pull: row.opt_u32("holds_pull")?.map(PullNumber),
            source: row.opt_parsed("holds_source")?,
            mask: row.opt_text("mask")?,
            building_mask: row.opt_text("building_mask")?,
            kept: row.opt_int("kept")?.is_some_and(|kept| kept != 0),
            undo: row.opt_int("undo_wish")?,
        },
    })
}

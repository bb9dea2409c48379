//! The whole picture for people and scripts: environments, pool, and one environment explained.
//! Pure; the CLI prints it and the console draws it.

use std::collections::BTreeSet;
use std::fmt;

use jiff::Timestamp;
use serde::Serialize;

use crate::condition::{self, Policy};
use crate::domain::{Instance, InstanceId, InstanceState, PullNumber, PullState};
use crate::facts::{CloneState, Deployment, Facts, Pull, Pulse, Server};
use crate::stage::{Stage, Standing, Standings};
use crate::store::{Event, Step};
use crate::words;

#[derive(Debug, Serialize)]
pub struct Status {
    pub paused: Option<String>,
    /// What waits for `tick --confirm`.
    pub refused: Option<String>,
    pub environments: Vec<Environment>,
    pub servers: Vec<ServerLine>,
    /// Rows that make no sense.
    pub unreadable: Vec<String>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Environment {
    pub number: PullNumber,
    pub title: String,
    pub author: Option<String>,
    pub stage: Stage,
    pub why: String,
    pub next: Option<String>,
    pub head: String,
    pub server: Option<String>,
    /// What is the matter with its server, if anything.
    pub server_note: Option<String>,
    /// Where to look at it, once it is ready.
    pub url: Option<String>,
    pub schema: Option<String>,
    pub source: Option<String>,
    pub cloned_at: Option<Timestamp>,
}

#[derive(Debug, Clone, Serialize)]
pub struct ServerLine {
    pub name: String,
    pub instance_id: Option<String>,
    pub state: Option<InstanceState>,
    pub pull: Option<PullNumber>,
    pub schema: Option<String>,
    pub url: Option<String>,
    pub in_pool: bool,
    /// False for a machine of the account that is no server of ours.
    pub registered: bool,
    pub agent_seen_at: Option<Timestamp>,
    pub agent_version: Option<String>,
    pub pulse: Option<Pulse>,
    /// Why it can serve nobody, that it is held, or what its staging client has trouble with.
    pub note: Option<String>,
}

pub fn status(facts: &Facts, policy: &Policy, now: Timestamp) -> Status {
    let standings = Standings::new(facts, policy, now);
    Status {
        paused: facts.paused.clone(),
        refused: facts.refused.clone(),
        environments: environments(&standings),
        servers: servers(&standings),
        unreadable: facts.unreadable.clone(),
    }
}

/// Those that wait come last, in the order of the queue.
pub fn environments(standings: &Standings<'_>) -> Vec<Environment> {
    let mut pulls: Vec<&Pull> = standings.facts.pulls.values().collect();
    pulls.sort_by_key(|pull| (standings.place(pull), pull.request.number));
    pulls.into_iter().map(|pull| environment(pull, standings)).collect()
}

/// All that are registered.
pub fn servers(standings: &Standings<'_>) -> Vec<ServerLine> {
    standings.facts.servers.values().map(|server| server_line(server, standings)).collect()
}

pub fn environment(pull: &Pull, standings: &Standings<'_>) -> Environment {
    let facts = standings.facts;
    let Standing { stage, why, next } = standings.of(pull);
    let request = &pull.request;
    let assignment = facts.assignments.get(&request.number);
    let server = assignment.and_then(|a| facts.servers.get(&a.server));
    let schema = server.and_then(|server| server.schema.as_ref().ok());
    let clone = schema
        .and_then(|schema| facts.clones.get(schema))
        .filter(|clone| clone.pull == Some(request.number))
        .filter(|clone| matches!(clone.state, CloneState::Ready | CloneState::Stale));
    Environment {
        number: request.number,
        title: words::plain(&request.title),
        author: request.author.as_ref().map(|login| words::plain(&login.0)),
        stage,
        why,
        next,
        head: request.head.to_string(),
        server: server.map(|server| server.name.clone()),
        server_note: server.and_then(|server| note(server, standings)),
        url: server.and_then(shown_url).filter(|_| stage == Stage::Ready),
        schema: schema.map(ToString::to_string),
        source: clone.and_then(|clone| clone.source.as_ref()).map(ToString::to_string),
        cloned_at: clone.and_then(|clone| clone.finished_at),
    }
}

/// Without name and password.
pub(crate) fn shown_url(server: &Server) -> Option<String> {
    let url = server.check_url.as_deref().filter(|url| url.contains("://"))?;
    Some(words::plain(&words::without_logins(url)))
}

/// What is the matter with a server; None where all is well.
fn note(server: &Server, standings: &Standings<'_>) -> Option<String> {
    let Standings { policy, now, .. } = *standings;
    let roster = standings.roster();
    let mut notes = Vec::new();
    notes.extend(server.hold.as_ref().filter(|hold| hold.holds_at(now)).map(ToString::to_string));
    if server.is_staging {
        notes.extend(roster.unusable(server.id).cloned());
    }
    let works = roster
        .pull(server.id)
        .and_then(|pull| standings.facts.assignments.get(&pull))
        .filter(|_| server.state == Some(InstanceState::Running));
    notes.extend(works.and_then(|assignment| {
        condition::silent(server.agent.as_ref(), Some(assignment.assigned_at), policy, now)
    }));
    notes.extend(disk_note(server));
    (!notes.is_empty()).then(|| notes.join("; "))
}

/// That the disk of a server is nearly full.
pub fn disk_note(server: &Server) -> Option<String> {
    let pulse = server.pulse.filter(Pulse::is_disk_low)?;
    let (free, total) = (words::bytes(pulse.free_bytes), words::bytes(pulse.total_bytes));
    Some(format!("its disk is nearly full: {free} of {total} are free"))
}

fn server_line(server: &Server, standings: &Standings<'_>) -> ServerLine {
    ServerLine {
        name: server.name.clone(),
        instance_id: server.instance.as_ref().map(|id| id.0.clone()),
        state: server.state,
        pull: standings.roster().pull(server.id),
        schema: server.schema.as_ref().ok().map(ToString::to_string),
        url: shown_url(server),
        in_pool: server.is_staging,
        registered: true,
        agent_seen_at: server.agent.as_ref().map(|agent| agent.seen_at),
        agent_version: server.agent.as_ref().map(|agent| words::plain(&agent.version)),
        pulse: server.pulse,
        note: note(server, standings),
    }
}

/// The provider's machines that are no servers of ours, by name. What is terminated is gone.
pub fn unregistered(facts: &Facts, machines: &[Instance]) -> Vec<ServerLine> {
    let registered: BTreeSet<&InstanceId> =
        facts.servers.values().filter_map(|server| server.instance.as_ref()).collect();
    let mut lines: Vec<_> = machines
        .iter()
        .filter(|machine| {
            machine.state != InstanceState::Terminated && !registered.contains(&machine.id)
        })
        .map(|machine| ServerLine {
            name: words::plain(machine.name.as_ref().unwrap_or(&machine.id.0)),
            instance_id: Some(machine.id.0.clone()),
            state: Some(machine.state),
            pull: None,
            schema: None,
            url: None,
            in_pool: false,
            registered: false,
            agent_seen_at: None,
            agent_version: None,
            pulse: None,
            note: Some(format!("not registered; update-pull server register {}", machine.id)),
        })
        .collect();
    lines.sort_by(|a, b| (&a.name, &a.instance_id).cmp(&(&b.name, &b.instance_id)));
    lines
}

/// Why a pull request has or lacks an environment.
#[derive(Debug, Serialize)]
pub struct Explanation {
    #[serde(flatten)]
    pub environment: Environment,
    pub state: PullState,
    /// All effects are paused: nothing of `next` happens before they go on.
    pub paused: Option<String>,
    /// The last tick refused to do what many environments wait for, perhaps this one.
    pub refused: Option<String>,
    /// The newest first.
    pub deployments: Vec<Told>,
    pub events: Vec<Event>,
}

/// A deployment with its steps.
#[derive(Debug, Serialize)]
pub struct Told {
    #[serde(flatten)]
    pub deployment: Deployment,
    pub steps: Vec<Step>,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let e = &self.environment;
        let author = e.author.as_deref().unwrap_or("nobody");
        writeln!(f, "{} {} ({author})", e.number, e.title)?;
        writeln!(f, "  stage   {}", e.stage)?;
        writeln!(f, "  why     {}", words::plain(&e.why))?;
        if let Some(next) = &e.next {
            writeln!(f, "  next    {}", words::plain(next))?;
        }
        if let Some(who) = &self.paused {
            writeln!(f, "  paused  {who}: nothing is done before `update-pull resume`")?;
        }
        if let Some(what) = &self.refused {
            writeln!(f, "  refused {what}")?;
        }
        if let Some(url) = &e.url {
            writeln!(f, "  url     {url}")?;
        }
        writeln!(f, "  head    {}", e.head)?;
        if let Some(server) = &e.server {
            let note = e.server_note.as_ref().map(|note| format!(" ({})", words::plain(note)));
            writeln!(f, "  server  {server}{}", note.unwrap_or_default())?;
        }
        if let (Some(schema), Some(source)) = (&e.schema, &e.source) {
            let at = e.cloned_at.map_or(String::new(), |t| format!(", {}", words::moment(t)));
            writeln!(f, "  data    {schema}, a clone of {source}{at}")?;
        }
        if let Some(Told { deployment, steps }) = self.deployments.first() {
            writeln!(
                f,
                "  last deployment: {} of {}, try {}",
                deployment.outcome.as_str(),
                deployment.sha.short(),
                deployment.attempt
            )?;
            for step in steps {
                writeln!(f, "    {:<9} {}", step.name, step_words(step))?;
            }
            let failed =
                steps.iter().rfind(|step| deployment.failed_step.as_ref() == Some(&step.name));
            for line in failed.map_or(Vec::new(), |step| last_lines(&step.output, 10)) {
                writeln!(f, "    | {}", words::plain(line))?;
            }
        }
        if !self.events.is_empty() {
            writeln!(f, "  events")?;
        }
        for event in &self.events {
            writeln!(
                f,
                "    {}  {:<10} {}",
                words::moment(event.at),
                words::plain(&event.actor),
                words::plain(&event.message)
            )?;
        }
        Ok(())
    }
}

fn step_words(step: &Step) -> String {
    match step.finished_at {
        None => "has not ended".to_owned(),
        Some(end) => {
            let took = words::duration(words::between(step.started_at, end));
            match step.exit_status {
                Some(status) if status != 0 => format!("{took}, exit status {status}"),
                _ => took,
            }
        }
    }
}

fn last_lines(text: &str, most: usize) -> Vec<&str> {
    let mut lines: Vec<_> = text.lines().rev().take(most).collect();
    lines.reverse();
    lines
}

//! `status` and `logs`: what a person is told. Nothing here changes anything.

use anyhow::Result;
use jiff::Timestamp;
use pullre::config::ClientConfig;
use pullre::domain::{InstanceState, PullNumber, Sha};
use pullre::facts::{Deployment, Outcome};
use pullre::store::{Duty, Store};
use pullre::words;
use pullre_http::probe::{Prober, without_credentials};
use serde::Serialize;

use crate::app::{Seen, look};
use crate::follow;
use crate::identity::{self, Identity};
use crate::observe::Slots;
use crate::site::{Site, hidden};
use crate::state_dir::{Log, StateDir, masked, trouble};
use crate::tick::{Failed, NO_SERVER};
use crate::user::AppUser;

/// How much of an app's log is shown.
const TAIL: usize = 50;

#[derive(Debug, Serialize)]
struct Status {
    server: String,
    instance: Option<String>,
    machine: &'static str,
    paused: bool,
    /// What shall run here, or has failed to.
    deployment: Option<Deployment>,
    app: AppStatus,
    url: Option<String>,
    log: String,
}

#[derive(Debug, Serialize)]
#[serde(tag = "state", rename_all = "lowercase")]
enum AppStatus {
    None,
    /// Runs, though it was not started by this client.
    Foreign,
    Alive(AppFacts),
    /// Was started and does not run.
    Dead(AppFacts),
}

#[derive(Debug, Serialize)]
struct AppFacts {
    pull: PullNumber,
    sha: Sha,
    /// Of the shell that runs `exec_command`, or of what it started.
    pid: Option<i32>,
    started_at: Timestamp,
    restarts: u32,
}

struct Reader {
    state: StateDir,
    store: Store,
    identity: Identity,
}

impl Reader {
    fn new(config: &ClientConfig, server: Option<&str>) -> Result<Reader> {
        let identity = Identity::find(config, server);
        let store = identity::database(config)?.open()?;
        Ok(Reader { state: StateDir::open(&config.state_dir)?, store, identity })
    }
}

pub fn status(config: &ClientConfig, server: Option<&str>, json: bool) -> Result<Vec<String>> {
    let mut reader = Reader::new(config, server)?;
    let now = Timestamp::now();
    let slots: Slots = reader.store.local_slots()?.into_iter().collect();
    let (prober, secrets) = (Prober::new(), config.secrets());
    let user = AppUser::find(config.app.user.as_deref()).map_err(|e| e.to_string());
    let mut all = Vec::new();
    for duty in reader.identity.duties(&mut reader.store)? {
        let deployment = duty.task.as_ref().map(|task| task.deployment.clone());
        let serves = deployment.as_ref().is_some_and(|d| d.outcome == Outcome::Succeeded);
        let slot = duty.instance.as_ref().and_then(|id| slots.get(id)).copied();
        let on = slot.is_none_or(|state| state == InstanceState::Running);
        let server = duty.server;
        let (state, prober, secrets, user) = (&reader.state, &prober, &secrets, &user);
        let site = Site { config, state, prober, secrets, user, duty };
        let seen = look(&site, serves)?;
        all.push(Status {
            machine: if on { "on" } else { "off" },
            deployment,
            app: app_status(seen),
            url: site.duty.check_url.as_deref().map(without_credentials),
            log: reader.state.app_log(server).display().to_string(),
            server: site.duty.name,
            instance: site.duty.instance.map(|id| id.0),
            paused: site.duty.paused,
        });
    }
    if json {
        return Ok(vec![serde_json::to_string_pretty(&all)?]);
    }
    if all.is_empty() {
        return Ok(vec![NO_SERVER.to_owned()]);
    }
    Ok(all.iter().flat_map(|one| describe(one, now)).collect())
}

fn app_status(seen: Seen) -> AppStatus {
    let facts = |record: crate::app::AppRecord| AppFacts {
        pull: record.pull,
        sha: record.sha,
        pid: record.leader.iter().chain(&record.seen).find(|id| id.is_alive()).map(|id| id.pid),
        started_at: record.started_at,
        restarts: record.restarts,
    };
    match seen {
        Seen::Nothing => AppStatus::None,
        Seen::Stranger => AppStatus::Foreign,
        Seen::Alive(record) => AppStatus::Alive(facts(record)),
        Seen::Gone(record) | Seen::Rebooted(record) => AppStatus::Dead(facts(record)),
    }
}

fn describe(status: &Status, now: Timestamp) -> Vec<String> {
    let machine = if status.paused { "paused" } else { status.machine };
    let mut lines = vec![format!("{} ({machine})", words::plain(&status.server))];
    let mut line = |key: &str, text: &str| lines.push(format!("  {key:12}{text}"));
    match &status.deployment {
        None => line("deployment", "none: no commit shall run here"),
        Some(d) => {
            let outcome = match d.outcome {
                Outcome::Offered => "waits for this client",
                Outcome::Running => "is under way",
                Outcome::Succeeded => "succeeded",
                Outcome::Failed => "failed",
                Outcome::Superseded => "superseded",
            };
            let since = ago(d.finished_at.or(d.started_at).unwrap_or(d.offered_at), now);
            line("deployment", &format!("{} of {} {outcome}, {since}", d.sha.short(), d.pull));
            if let Some(reason) = &d.reason {
                let step = d.failed_step.as_deref().unwrap_or("deployment");
                line("reason", &format!("step {step}: {}", words::plain(reason)));
            }
        }
    }
    let app = |facts: &AppFacts| {
        let pid = facts.pid.map(|pid| format!(", process {pid}")).unwrap_or_default();
        let restarts = match facts.restarts {
            0 => String::new(),
            n => format!(", started again {n} times"),
        };
        let since = ago(facts.started_at, now);
        format!("{} of {}{pid}, started {since}{restarts}", facts.sha.short(), facts.pull)
    };
    match &status.app {
        AppStatus::None => line("app", "none"),
        AppStatus::Foreign => line("app", "runs, not started by this client"),
        AppStatus::Alive(facts) => line("app", &format!("runs: {}", app(facts))),
        AppStatus::Dead(facts) => line("app", &format!("does not run: {}", app(facts))),
    }
    if let Some(url) = &status.url {
        line("url", &words::plain(url));
    }
    lines
}

fn ago(then: Timestamp, now: Timestamp) -> String {
    format!("{} ago ({})", words::duration(words::between(then, now)), words::moment(then))
}

pub fn logs(
    config: &ClientConfig,
    server: Option<&str>,
    deployment: bool,
    app: bool,
) -> Result<Vec<String>> {
    let mut reader = Reader::new(config, server)?;
    let secrets = config.secrets();
    let mut lines = Vec::new();
    for duty in reader.identity.duties(&mut reader.store)? {
        if deployment {
            lines.extend(deployment_log(&mut reader.store, &duty)?);
        }
        if app {
            let hidden = hidden(&secrets, duty.check_url.as_deref());
            lines.extend(app_log(&reader.state, &duty, &hidden)?);
        }
    }
    Ok(lines)
}

/// What is printed from now on. Ends only with an error.
pub fn follow(
    config: &ClientConfig,
    server: Option<&str>,
    deployment: bool,
    app: bool,
) -> Result<Failed> {
    let mut reader = Reader::new(config, server)?;
    let duties = reader.identity.duties(&mut reader.store)?;
    // No connection is kept for it.
    drop(reader.store);
    follow::follow(config, &reader.state, &duties, deployment, app)?;
    Ok(Failed(false))
}

fn deployment_log(store: &mut Store, duty: &Duty) -> Result<Vec<String>> {
    let name = words::plain(&duty.name);
    let Some(last) = store.deployment_on(duty.server)? else {
        return Ok(vec![format!("{name}: nothing was deployed here yet")]);
    };
    let begun = last.started_at.map_or("never".into(), words::moment);
    let (sha, pull, outcome) = (last.sha.short(), last.pull, last.outcome.as_str());
    let mut lines = vec![format!("{name}: {sha} of {pull}, {outcome}, begun {begun}")];
    for step in store.steps_of(last.id)? {
        let took = match step.finished_at {
            Some(end) => words::duration(words::between(step.started_at, end)),
            None => "no end: the client died in it or is at it".to_owned(),
        };
        let status = match step.exit_status {
            None | Some(0) => String::new(),
            Some(status) => format!(", exit status {status}"),
        };
        lines.push(format!("{} ({took}{status})", step.name));
        lines.extend(step.output.lines().map(indented));
    }
    if let Some(reason) = &last.reason {
        lines.push(format!("reason: {}", words::plain(reason)));
    }
    Ok(lines)
}

fn app_log(state: &StateDir, duty: &Duty, secrets: &[&str]) -> Result<Vec<String>> {
    let name = words::plain(&duty.name);
    let path = state.app_log(duty.server);
    if !std::fs::exists(&path).map_err(|e| trouble("look at", &path, e))? {
        return Ok(vec![format!("{name}: no app was started here yet")]);
    }
    let mut lines = vec![format!("{name}: the end of {}", path.display())];
    let text = masked(&Log::open(path)?.end(0)?, secrets);
    let end: Vec<&str> = text.lines().collect();
    lines.extend(end[end.len().saturating_sub(TAIL)..].iter().map(|line| indented(line)));
    Ok(lines)
}

/// Written by strangers' programs.
fn indented(line: &str) -> String {
    format!("  {}", words::plain(line))
}

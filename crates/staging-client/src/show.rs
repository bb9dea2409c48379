//! `status` and `logs`: what a person is told. Nothing here changes anything.

use anyhow::Result;
use jiff::Timestamp;
use pullre::config::ClientConfig;
use pullre::domain::InstanceState;
use pullre::facts::{Deployment, Outcome};
use pullre::store::{Step, Store};
use pullre::words;
use pullre_http::probe::{Prober, without_credentials};
use serde::Serialize;

use crate::app::{Seen, look};
use crate::identity::{self, Identity};
use crate::observe::Slots;
use crate::site::Site;
use crate::state_dir::{StateDir, masked, trouble};

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
    pull: u32,
    sha: String,
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
        let identity = Identity::find(config, server)?;
        let store = identity::database(config)?.open()?;
        Ok(Reader { state: StateDir::open(&config.state_dir)?, store, identity })
    }
}

pub fn status(config: &ClientConfig, server: Option<&str>, json: bool) -> Result<()> {
    let mut reader = Reader::new(config, server)?;
    let now = Timestamp::now();
    let slots: Slots = reader.store.local_slots()?.into_iter().collect();
    let (prober, secrets) = (Prober::new(), config.secrets());
    let mut all = Vec::new();
    for duty in reader.identity.duties(&mut reader.store)? {
        let deployment = duty.task.as_ref().map(|task| task.deployment.clone());
        let serves = deployment.as_ref().is_some_and(|d| d.outcome == Outcome::Succeeded);
        let slot = duty.instance.as_ref().and_then(|id| slots.get(id)).copied();
        let on = slot.is_none_or(|state| state == InstanceState::Running);
        let server = duty.server;
        let site = Site { config, state: &reader.state, prober: &prober, secrets: &secrets, duty };
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
        println!("{}", serde_json::to_string_pretty(&all)?);
        return Ok(());
    }
    if all.is_empty() {
        println!(
            "no server of this machine is in the pool: `update-pull server register NAME` adds one"
        );
    }
    for one in &all {
        print(one, now);
    }
    Ok(())
}

fn app_status(seen: Seen) -> AppStatus {
    let facts = |record: crate::app::AppRecord| AppFacts {
        pull: record.pull.0,
        sha: record.sha.as_str().to_owned(),
        pid: record.leader.iter().chain(&record.seen).find(|id| id.is_alive()).map(|id| id.pid),
        started_at: record.started_at,
        restarts: record.restarts,
    };
    match seen {
        Seen::Nothing => AppStatus::None,
        Seen::Stranger => AppStatus::Foreign,
        Seen::Alive(record) => AppStatus::Alive(facts(record)),
        Seen::Gone(record) => AppStatus::Dead(facts(record)),
    }
}

fn print(status: &Status, now: Timestamp) {
    let machine = if status.paused { "paused" } else { status.machine };
    println!("{} ({machine})", words::plain(&status.server));
    match &status.deployment {
        None => println!("  deployment  none: no commit shall run here"),
        Some(d) => {
            let outcome = match d.outcome {
                Outcome::Offered => "waits for this client",
                Outcome::Running => "is under way",
                Outcome::Succeeded => "succeeded",
                Outcome::Failed => "failed",
                Outcome::Superseded => "superseded",
            };
            let since = d.finished_at.or(d.started_at).unwrap_or(d.offered_at);
            println!(
                "  deployment  {} of {} {outcome}, {}",
                d.sha.short(),
                d.pull,
                ago(since, now)
            );
            if let Some(reason) = &d.reason {
                let step = d.failed_step.as_deref().unwrap_or("deployment");
                println!("  reason      step {step}: {}", words::plain(reason));
            }
        }
    }
    let app = |facts: &AppFacts| {
        let short = &facts.sha[..7];
        let pid = facts.pid.map(|pid| format!(", process {pid}")).unwrap_or_default();
        let restarts = match facts.restarts {
            0 => String::new(),
            n => format!(", started again {n} times"),
        };
        let since = ago(facts.started_at, now);
        format!("{short} of #{}{pid}, started {since}{restarts}", facts.pull)
    };
    match &status.app {
        AppStatus::None => println!("  app         none"),
        AppStatus::Foreign => println!("  app         runs, not started by this client"),
        AppStatus::Alive(facts) => println!("  app         runs: {}", app(facts)),
        AppStatus::Dead(facts) => println!("  app         does not run: {}", app(facts)),
    }
    if let Some(url) = &status.url {
        println!("  url         {}", words::plain(url));
    }
}

fn ago(then: Timestamp, now: Timestamp) -> String {
    format!("{} ago ({})", words::duration(words::between(then, now)), words::moment(then))
}

pub fn logs(
    config: &ClientConfig,
    server: Option<&str>,
    deployment: bool,
    app: bool,
) -> Result<()> {
    let mut reader = Reader::new(config, server)?;
    let secrets = config.secrets();
    for duty in reader.identity.duties(&mut reader.store)? {
        let name = words::plain(&duty.name);
        if deployment {
            match reader.store.deployment_on(duty.server)? {
                None => println!("{name}: nothing was deployed here yet"),
                Some(last) => {
                    println!(
                        "{name}: {} of {}, {}, begun {}",
                        last.sha.short(),
                        last.pull,
                        last.outcome.as_str(),
                        last.started_at.map_or("never".into(), words::moment)
                    );
                    for step in reader.store.steps_of(last.id)? {
                        print_step(&step);
                    }
                    if let Some(reason) = &last.reason {
                        println!("reason: {}", words::plain(reason));
                    }
                }
            }
        }
        if app {
            let path = reader.state.app_log(duty.server);
            match std::fs::exists(&path).map_err(|e| trouble("look at", &path, e))? {
                false => println!("{name}: no app was started here yet"),
                true => {
                    println!("{name}: the end of {}", path.display());
                    let end = crate::state_dir::Log::open(path)?.end(0)?;
                    let text = masked(&end, &secrets);
                    let lines: Vec<&str> = text.lines().collect();
                    print_lines(&lines[lines.len().saturating_sub(TAIL)..]);
                }
            }
        }
    }
    Ok(())
}

fn print_step(step: &Step) {
    let took = match step.finished_at {
        Some(end) => words::duration(words::between(step.started_at, end)),
        None => "no end: the client died in it or is at it".to_owned(),
    };
    let status = match step.exit_status {
        None | Some(0) => String::new(),
        Some(status) => format!(", exit status {status}"),
    };
    println!("{} ({took}{status})", step.name);
    print_lines(&step.output.lines().collect::<Vec<_>>());
}

/// Written by strangers' programs.
fn print_lines(lines: &[&str]) {
    for line in lines {
        println!("  {}", words::plain(line));
    }
}

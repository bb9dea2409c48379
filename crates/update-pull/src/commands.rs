//! Runs the commands: each opens what it needs, calls one function of the library, prints.

use std::fmt;
use std::io::{self, Write};
use std::time::Duration;

use jiff::Timestamp;
use pullre::config::ComputeKind;
use pullre::ops::{self, Operator, OpsError};
use pullre::schema_clone::{Progress, Schemas};
use pullre::store::{Store, StoreError};
use pullre::{status, words};

use crate::cli::{Command, HoldArgs, PullCommand, ServerCommand, UserCommand};
use crate::installation::Installation;
use crate::print;
use crate::progress::ProgressLine;
use crate::switch_servers;
use crate::{console_user, grants, tick};

/// Why a command did not do it; decides the exit status.
#[derive(Debug)]
pub enum Failure {
    Usage(String),
    Failed(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Usage(why) | Failure::Failed(why) => f.write_str(why),
        }
    }
}

impl From<OpsError> for Failure {
    fn from(e: OpsError) -> Failure {
        match e {
            OpsError::Usage(why) => Failure::Usage(why),
            other => Failure::Failed(other.to_string()),
        }
    }
}

impl From<StoreError> for Failure {
    fn from(e: StoreError) -> Failure {
        Failure::Failed(e.to_string())
    }
}

impl From<anyhow::Error> for Failure {
    fn from(e: anyhow::Error) -> Failure {
        Failure::Failed(format!("{e:#}"))
    }
}

pub type Result<T = ()> = std::result::Result<T, Failure>;

pub fn run(command: Option<Command>, installation: &Installation) -> Result {
    let now = Timestamp::now();
    match command.unwrap_or(Command::Tick { confirm: false }) {
        Command::Tick { confirm } => tick::run(installation, now, confirm),
        Command::Plan => plan(installation, now),
        Command::Init { dry_run } => init(installation, dry_run),
        Command::Status(listing) => {
            let facts = installation.store()?.facts()?;
            let status = status::status(&facts, &installation.policy, now);
            print::status(&status, now, listing.json)
        }
        Command::Explain { number, listing } => {
            let mut store = installation.store()?;
            let explanation = operator(&mut store, now).explain(number, &installation.policy)?;
            print::explanation(&explanation, listing.json)
        }
        Command::Server(command) => server(command, installation, now),
        Command::User(command) => user(command, installation, now),
        Command::Pull(command) => pull(command, installation, now),
        Command::Pause => {
            operator(&mut installation.store()?, now).pause()?;
            say("paused: nothing is done until `update-pull resume`")
        }
        Command::Resume => {
            operator(&mut installation.store()?, now).resume()?;
            say("the next tick goes on")
        }
        Command::Grants => grants::run(&installation.config),
        Command::ConsoleUser(command) => console_user::run(command, installation, now),
        // Answered before it comes to this.
        Command::Doctor | Command::HashToken | Command::Serve => Ok(()),
        Command::SwitchServers => switch_servers::run(installation, now),
        Command::CloneSchema { source, destination, workers, listing } => {
            let mut schemas = installation.schemas.clone();
            match (&mut schemas, workers) {
                (_, None) => {}
                (Schemas::Mysql(server), Some(workers)) => server.workers = usize::from(workers),
                (Schemas::Sqlite { .. }, Some(_)) => {
                    let why = "--workers is for MySQL: a SQLite file is copied in one piece";
                    return Err(Failure::Usage(why.to_owned()));
                }
            }
            let mut store = installation.store()?;
            let mut bar = ProgressLine::new(listing.json);
            let outcome = operator(&mut store, now).clone_schema(
                &source,
                &destination,
                &schemas,
                &installation.locks,
                &installation.policy.cloning,
                &mut |progress: Progress| bar.show(progress),
            );
            bar.end();
            print::clone_outcome(&outcome?, &source, &destination, listing.json)
        }
    }
}

/// Who is at the keyboard, for the events.
pub fn operator(store: &mut Store, now: Timestamp) -> Operator<'_> {
    // Only ever shown: a wrong name gives no right.
    static WHO: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| {
        let name =
            ["SUDO_USER", "USER", "LOGNAME"].into_iter().find_map(|key| std::env::var(key).ok());
        words::plain(&name.unwrap_or_else(|| "operator".into()))
    });
    Operator { store, who: &WHO, now }
}

/// One line to stdout. A reader that went away (`| head`) is no failure of ours.
pub fn say(line: &str) -> Result {
    print::ignore_broken_pipe(writeln!(io::stdout(), "{line}"))
}

fn plan(installation: &Installation, now: Timestamp) -> Result {
    installation.store()?;
    let (observed, plan) = installation.controller().plan(now)?;
    print::ignore_broken_pipe(write!(io::stdout(), "{plan}"))?;
    let unknown = observed.unknown();
    if unknown.is_empty() { Ok(()) } else { Err(Failure::Failed(unknown.join("\nupdate-pull: "))) }
}

fn init(installation: &Installation, dry_run: bool) -> Result {
    let steps = installation.init(dry_run)?;
    if steps.is_empty() {
        say("the control tables are complete; nothing to do")?;
        return if dry_run { Ok(()) } else { switch_servers::ask_for_time_zone(installation) };
    }
    let what = if dry_run { "would create" } else { "created" };
    for step in &steps {
        say(&format!("{what} {step}"))?;
    }
    if !dry_run {
        switch_servers::ask_for_time_zone(installation)?;
        say("next: update-pull user set LOGIN SCHEMA, update-pull server register NAME")?;
    }
    Ok(())
}

fn span(hold: &HoldArgs) -> Result<Option<Duration>> {
    Ok(hold.span.as_deref().map(ops::parse_span).transpose()?)
}

fn server(command: ServerCommand, installation: &Installation, now: Timestamp) -> Result {
    let mut store = installation.store()?;
    let locks = &installation.locks;
    let compute = installation.compute();
    match command {
        ServerCommand::List { listing, all } => {
            let hidden = if all { Vec::new() } else { store.hidden_servers()? };
            let facts = store.facts()?;
            let mut servers = status::status(&facts, &installation.policy, now).servers;
            // Those of this machine are all registered.
            let unknown = if installation.config.compute == ComputeKind::Ec2 {
                let listed = compute.list();
                servers.extend(status::unregistered(&facts, listed.as_deref().unwrap_or_default()));
                listed.err()
            } else {
                None
            };
            let is_hidden = |name: &str| hidden.iter().any(|hidden| hidden == name);
            servers.retain(|server| {
                !is_hidden(&server.name) && !server.instance_id.as_deref().is_some_and(is_hidden)
            });
            print::servers(&servers, now, listing.json)?;
            unknown.map_or(Ok(()), |e| {
                Err(Failure::Failed(format!("only registered servers are listed: {e}")))
            })
        }
        ServerCommand::Register { instance } => {
            let mut operator = operator(&mut store, now);
            let name = match installation.config.compute {
                ComputeKind::Local => {
                    operator.server_register(&instance, true)?;
                    instance
                }
                ComputeKind::Ec2 => operator.server_register_machine(&instance, compute)?,
            };
            say(&format!(
                "registered {name}; next: update-pull server set {name} db_schema=SCHEMA check_url=URL"
            ))
        }
        ServerCommand::Set { server, settings } => {
            operator(&mut store, now).server_set(&server, &settings)?;
            say(&format!("{server}: set"))
        }
        ServerCommand::TakeOver { server } => {
            let schema = operator(&mut store, now).server_take_over(&server, locks)?;
            say(&format!("{server}: schema {schema} is overwritten from now on"))
        }
        ServerCommand::Hold { server, hold } => {
            let span = span(&hold)?;
            operator(&mut store, now).server_hold(&server, &hold.reason, span)?;
            say(&format!("{server}: held"))
        }
        ServerCommand::Release { server } => {
            operator(&mut store, now).server_release(&server)?;
            say(&format!("{server}: in automatic hands again"))
        }
        ServerCommand::Start { server } => {
            operator(&mut store, now).server_start(&server, compute, locks)?;
            say(&format!("{server}: start asked for"))
        }
        ServerCommand::Stop { server } => {
            operator(&mut store, now).server_stop(&server, compute, locks)?;
            say(&format!("{server}: stop asked for"))
        }
        ServerCommand::Remove { server } => {
            operator(&mut store, now).server_remove(&server, locks)?;
            say(&format!("{server}: removed"))
        }
        ServerCommand::Hide { server, show } => {
            operator(&mut store, now).server_hide(&server, show)?;
            say(&format!("{server}: {}", if show { "shown" } else { "hidden" }))
        }
    }
}

fn user(command: UserCommand, installation: &Installation, now: Timestamp) -> Result {
    let mut store = installation.store()?;
    match command {
        UserCommand::List(listing) => print::users(&store.users()?, listing.json),
        UserCommand::Set { login, schema } => {
            operator(&mut store, now).user_set(&login, &schema)?;
            say(&format!("{login}: {schema}"))
        }
        UserCommand::Remove { login } => {
            operator(&mut store, now).user_remove(&login)?;
            say(&format!("{login}: removed"))
        }
    }
}

fn pull(command: PullCommand, installation: &Installation, now: Timestamp) -> Result {
    let mut store = installation.store()?;
    let (policy, locks) = (&installation.policy, &installation.locks);
    match command {
        PullCommand::List(listing) => {
            let facts = store.facts()?;
            let environments = status::status(&facts, policy, now).environments;
            print::environments(&environments, listing.json)
        }
        PullCommand::Redeploy { number } => {
            let next = operator(&mut store, now).redeploy(number, policy, locks)?;
            say(&format!("{number}: {next}"))
        }
        PullCommand::ResetDb { number, undo: true } => {
            operator(&mut store, now).undo_reset(number, policy, locks)?;
            say(&format!(
                "{number}: the next ticks stop its app, bring its previous data back and start it again"
            ))
        }
        PullCommand::ResetDb { number, undo: false } => {
            operator(&mut store, now).reset_db(number, locks)?;
            say(&format!(
                "{number}: the next ticks stop its app, clone its data and start it again"
            ))
        }
        PullCommand::Hold { number, hold } => {
            let span = span(&hold)?;
            operator(&mut store, now).pull_hold(number, &hold.reason, span)?;
            say(&format!("{number}: held"))
        }
        PullCommand::Stop { number } => {
            operator(&mut store, now).pull_stop(number)?;
            say(&format!(
                "{number}: its server goes back to the pool until `update-pull pull release {}`",
                number.0
            ))
        }
        PullCommand::Release { number } => {
            operator(&mut store, now).pull_release(number)?;
            say(&format!("{number}: in automatic hands again"))
        }
        PullCommand::Approve { number, sha } => {
            operator(&mut store, now).approve(number, &sha)?;
            say(&format!("{number}: {} may run", sha.short()))
        }
    }
}

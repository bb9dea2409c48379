//! The staging server's side of pullre. See `--help`.

mod apart;
mod app;
mod checkout;
mod command;
mod deploy;
mod doctor;
mod follow;
mod git;
mod groups;
mod identity;
mod index;
mod measure;
mod notices;
mod observe;
mod plan;
mod processes;
mod prove;
mod pulse;
mod show;
mod site;
mod state_dir;
mod submodules;
mod tick;
mod tidy;
mod user;
mod worktree;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use pullre::config::{ClientConfig, RawConfig};
use tracing::Level;

use crate::tick::{Client, Failed};
use crate::user::AppUser;

/// Serves pull requests on this machine: checks out the commit that the controller assigned,
/// migrates its database, restarts the app, proves that it answers, and reports.
///
/// Run it from cron each minute. Without a command it does `tick`.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Exit status: 0 done or nothing to do, 1 something failed (said \
    on stderr), 2 bad usage or configuration."
)]
struct Cli {
    /// The configuration, a copy of app.ini.default
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "PULLRE_CONFIG",
        default_value = "app.ini"
    )]
    config: PathBuf,
    /// Serve only this server, called by its name or instance id
    ///
    /// Without it: the server that `instance_id` in app.ini names, else every local server of
    /// this machine.
    #[arg(long, global = true, value_name = "NAME")]
    server: Option<String>,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Do what is to be done now, then end (with `poll_seconds`, look again for 55 seconds)
    Tick,
    /// What shall run here, what does, and how its deployment went
    Status {
        /// For scripts
        #[arg(long)]
        json: bool,
    },
    /// The steps of the last deployment with their output, and the end of the app's log
    Logs(Logs),
    /// Tries everything that a deployment needs here and says what is missing, with the remedy
    Doctor,
}

#[derive(Debug, Args)]
struct Logs {
    /// Then go on with what is printed from now on, until it is interrupted
    #[arg(short, long)]
    follow: bool,
    /// Only the deployment
    #[arg(long, conflicts_with = "app")]
    deployment: bool,
    /// Only the app's log
    #[arg(long)]
    app: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let config = match read_config(&cli) {
        Ok(config) => config,
        Err(e) => {
            eprintln!("staging-client: {e}");
            return ExitCode::from(2);
        }
    };
    let server = cli.server.as_deref();
    let done = match cli.verb {
        None | Some(Verb::Tick) => Client::new(&config, server).and_then(|mut client| client.run()),
        Some(Verb::Status { json }) => show::status(&config, server, json).map(say_all),
        Some(Verb::Doctor) => doctor::run(&config, server),
        Some(Verb::Logs(logs)) => {
            let (deployment, app) = (!logs.app, !logs.deployment);
            let shown = show::logs(&config, server, deployment, app).map(say_all);
            match logs.follow {
                true => shown.and_then(|_| show::follow(&config, server, deployment, app)),
                false => shown,
            }
        }
    };
    match done {
        Ok(Failed(false)) => ExitCode::SUCCESS,
        Ok(Failed(true)) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("staging-client: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn say_all(lines: Vec<String>) -> Failed {
    lines.iter().for_each(|line| tick::say(line));
    Failed(false)
}

fn read_config(cli: &Cli) -> Result<ClientConfig, String> {
    let read = || {
        let raw = RawConfig::load(&cli.config, std::env::vars_os())?;
        ClientConfig::from_raw(&raw).map(|config| (raw, config))
    };
    let (raw, config) = read().map_err(|e| e.to_string())?;
    // Why there is no such user is said by every step that needs one.
    if let Ok(Some(user)) = AppUser::find(config.app.user.as_deref()) {
        user.come_home().map_err(|e| format!("{e:#}"))?;
    }
    log_to_stderr(config.logging_level);
    for warning in raw.warnings() {
        tracing::warn!("{warning}");
    }
    Ok(config)
}

fn log_to_stderr(level: Level) {
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
}

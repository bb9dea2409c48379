//! The controller's binary: one tick for cron, and everything an operator types.

mod cli;
mod commands;
mod console_user;
mod doctor;
mod grants;
mod installation;
mod print;
mod progress;
mod serve;
mod switch_servers;
mod tick;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};
use installation::Installation;

/// Something failed, and said so.
const FAILED: u8 = 1;
/// The caller or the configuration is at fault.
const BAD_USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Some(Command::Doctor) = cli.command {
        return exit(doctor::run(&cli.config));
    }
    if let Some(Command::HashToken) = cli.command {
        return exit(console_user::hash_token());
    }
    let (config, warnings) = installation::read_config(&cli.config);
    for warning in warnings {
        eprintln!("update-pull: warning: {warning}");
    }
    let config = match config {
        Ok(config) => config,
        Err(e) => {
            eprintln!("update-pull: {e}");
            return ExitCode::from(BAD_USAGE);
        }
    };
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(config.logging_level)
        .with_target(false)
        .with_ansi(false)
        .init();
    if let Some(Command::Grants) = cli.command {
        return exit(grants::run(&config));
    }
    let installation = match Installation::new(config) {
        Ok(installation) => installation,
        Err(e) => {
            eprintln!("update-pull: {e:#}");
            return ExitCode::from(BAD_USAGE);
        }
    };
    if let Some(Command::Serve) = cli.command {
        return exit(serve::run(installation));
    }
    exit(commands::run(cli.command, &installation))
}

fn exit(result: commands::Result) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("update-pull: {failure}");
            ExitCode::from(match failure {
                commands::Failure::Usage(_) => BAD_USAGE,
                commands::Failure::Failed(_) => FAILED,
            })
        }
    }
}

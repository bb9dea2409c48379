//! `scripts/demo`: a team's app, a GitHub, and both binaries called as cron would call them. Tells
//! what happens, and fails if any of it did not.

mod app;
mod bench;
mod bench_clone;
mod bench_console;
mod bench_controller;
mod bench_deploy;
mod http;
mod installation;
mod remote;
mod story;

use std::path::PathBuf;
use std::process::ExitCode;

use bench_deploy::Size;
use clap::{Parser, Subcommand, ValueEnum};

#[derive(Debug, Parser)]
#[command(name = "scripts/demo", about = "One life of a pull request on this machine")]
struct Cli {
    /// Where everything is made
    #[arg(long, hide = true, default_value = ".")]
    folder: PathBuf,
    /// End after one whole life of a pull request, and clean up
    #[arg(long)]
    once: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Opens a pull request in the demo that runs in another terminal
    Open {
        #[arg(default_value = "Another idea")]
        title: String,
        /// Whose development database it gets: alice or bob
        #[arg(long, default_value = "bob")]
        author: String,
    },
    /// Pushes a commit to a pull request; with --broken one whose migration fails
    Push {
        number: u32,
        #[arg(long)]
        broken: bool,
    },
    /// Closes a pull request
    Close { number: u32 },
    /// Opens a closed pull request again
    Reopen { number: u32 },
    /// Stops what a demo that was killed left running
    #[command(hide = true)]
    Stop,
    /// What scripts/bench runs
    #[command(hide = true)]
    Bench {
        what: Option<Bench>,
        #[arg(long, default_value_t = 20)]
        pushes: usize,
        #[arg(long, default_value_t = 50)]
        megabytes: usize,
        #[arg(long, default_value_t = 100_000)]
        files: usize,
        /// Of the schemas that `clone` measures this one
        #[arg(long, value_parser = bench_clone::SCHEMAS)]
        only: Option<String>,
    },
    #[command(hide = true)]
    Measure {
        runs: usize,
        #[arg(last = true)]
        words: Vec<String>,
    },
}

/// What can be measured besides the embedded default.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Bench {
    /// Ticks with MySQL and EC2
    Controller,
    /// MySQL clones
    Clone,
    /// The web console
    Console,
    /// From a push to the first answer of the new commit
    Push,
    /// One changed file in a large repository
    Tree,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match &cli.command {
        None => story::tell(&cli.folder, cli.once),
        Some(Command::Bench { what, pushes, megabytes, files, only }) => {
            let size = Size { pushes: *pushes, megabytes: *megabytes, files: *files };
            match what {
                None => bench::run(&cli.folder),
                Some(Bench::Controller) => bench_controller::run(&cli.folder),
                Some(Bench::Clone) => bench_clone::run(&cli.folder, only.as_deref()),
                Some(Bench::Console) => bench_console::run(&cli.folder),
                Some(Bench::Push) => bench_deploy::pushes(&cli.folder, size),
                Some(Bench::Tree) => bench_deploy::tree(&cli.folder, size),
            }
        }
        Some(Command::Measure { runs, words }) => bench::measure(*runs, words),
        Some(Command::Stop) => installation::stop(&cli.folder),
        Some(Command::Open { title, author }) => remote::open(&cli.folder, title, author),
        Some(Command::Push { number, broken }) => remote::push(&cli.folder, *number, *broken),
        Some(Command::Close { number }) => remote::set_state(&cli.folder, *number, "close"),
        Some(Command::Reopen { number }) => remote::set_state(&cli.folder, *number, "reopen"),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("demo: {e:#}");
            ExitCode::FAILURE
        }
    }
}

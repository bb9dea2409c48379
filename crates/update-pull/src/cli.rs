//! The commands and their help.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use pullre::domain::{PullNumber, SchemaName, Sha};
use pullre::store::Role;

/// The controller of pullre: gives every pull request its own staging server with its own copy of
/// its author's development database.
///
/// Without a command it does one tick; that is what cron calls each minute.
#[derive(Debug, Parser)]
#[command(version, name = "update-pull", after_help = FIRST_STEPS)]
pub struct Cli {
    /// The configuration; relative paths in it are relative to its folder
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "PULLRE_CONFIG",
        default_value = "app.ini"
    )]
    pub config: PathBuf,

    #[command(subcommand)]
    pub command: Option<Command>,
}

const FIRST_STEPS: &str = "First steps:
  cp app.ini.default app.ini       and fill in what it asks for
  update-pull init                 creates the control tables
  update-pull user set LOGIN SCHEMA
                                   whose database is cloned for whose pull requests
  update-pull server register NAME
  update-pull server set NAME db_schema=NAME check_url=http://127.0.0.1:8001/
  update-pull                      one tick; then staging-client on the server
Exit status: 0 done or nothing to do, 1 something failed, 2 bad usage or configuration.";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// One tick: reads GitHub, the machines and the control database, and does what follows
    Tick {
        /// Go on although more environments than max_changes would be stopped or cloned over
        #[arg(long)]
        confirm: bool,
    },
    /// Shows what the next tick would do and why; changes nothing
    Plan,
    /// Stops all effects of both binaries until `resume`
    Pause,
    /// Lets the effects go on
    Resume,
    /// Creates or upgrades the control tables; safe to run again
    Init {
        /// Only show what would be done
        #[arg(long)]
        dry_run: bool,
    },
    /// Shows the environments with stage and URL, the queue and the pool
    Status(Listing),
    /// Says why a pull request has or lacks an environment
    Explain {
        /// The number of the pull request
        number: PullNumber,
        #[command(flatten)]
        listing: Listing,
    },
    /// The pool of servers
    #[command(subcommand)]
    Server(ServerCommand),
    /// Whose schema is cloned for whom
    #[command(subcommand)]
    User(UserCommand),
    /// One environment
    #[command(subcommand)]
    Pull(PullCommand),
    /// Copies a schema into the schema of a registered server that serves nobody
    CloneSchema {
        source: SchemaName,
        destination: SchemaName,
        /// Connections that copy side by side, MySQL only; without it clone_workers
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=32))]
        workers: Option<u8>,
        #[command(flatten)]
        listing: Listing,
    },
    /// Starts and stops servers outside the pool by their auto_start_at and auto_stop_at
    SwitchServers,
    /// Prints the SQL for the logins of controller and staging clients, with only what each needs
    Grants,
    /// Serves the web console and the webhook, and ticks each `tick_seconds`, until it is stopped
    Serve,
    /// Who may use the console, beside `basic_user` of app.ini
    #[command(subcommand)]
    ConsoleUser(ConsoleUserCommand),
    /// Asks for a password (or reads one line from a pipe) and prints the value for basic_password
    HashToken,
    /// Tries everything that a tick needs and says what is missing, with the remedy
    Doctor,
}

#[derive(Debug, Args)]
pub struct Listing {
    /// Print JSON for scripts
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub enum ServerCommand {
    /// Lists the servers; on EC2 also the account's other instances
    List {
        #[command(flatten)]
        listing: Listing,
        /// Also those that are hidden
        #[arg(long)]
        all: bool,
    },
    /// Adds a machine to the pool; with `compute = local` it makes a slot of this machine
    Register {
        /// The EC2 instance id, or a name for a local slot
        #[arg(value_name = "INSTANCE_ID")]
        instance: String,
    },
    /// Changes a server; an empty value clears
    #[command(after_help = "Keys: instance_id name private_ip db_schema check_url is_staging \
                            auto_start_at auto_stop_at auto_weekdays")]
    Set {
        server: String,
        #[arg(required = true, value_name = "KEY=VALUE")]
        settings: Vec<String>,
    },
    /// Lets the server's schema be overwritten from now on although pullre did not make it
    TakeOver { server: String },
    /// Keeps all automatic hands off a server
    Hold {
        server: String,
        #[command(flatten)]
        hold: HoldArgs,
    },
    /// Gives a held server back to the automatic hands
    Release { server: String },
    /// Starts a server's machine by hand
    Start { server: String },
    /// Stops a server's machine by hand
    Stop { server: String },
    /// Forgets a server that serves nobody; its machine and its schema stay
    Remove { server: String },
    /// Leaves a machine out of `server list`
    Hide {
        server: String,
        /// Show it again
        #[arg(long)]
        show: bool,
    },
}

#[derive(Debug, Args)]
pub struct HoldArgs {
    /// Why, for everybody who asks
    #[arg(long, default_value = "", hide_default_value = true)]
    pub reason: String,
    /// For how long, such as 90m, 12h or 2d; without it until released
    #[arg(long = "for", value_name = "SPAN")]
    pub span: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// Lists the users and their schemas
    List(Listing),
    /// Registers the development schema of a GitHub login; `default` is for everybody else
    Set { login: String, schema: String },
    /// Forgets a user; their schema stays
    Remove { login: String },
}

#[derive(Debug, Subcommand)]
pub enum ConsoleUserCommand {
    /// Lists the users of the console
    List(Listing),
    /// Adds a user, or sets another password and role; the password is asked for, or read from a pipe
    Add {
        name: String,
        /// operator, or read-only
        #[arg(long, default_value = "operator")]
        role: Role,
    },
    /// Removes a user
    Remove { name: String },
}

#[derive(Debug, Subcommand)]
pub enum PullCommand {
    /// Lists the open pull requests and where they stand
    List(Listing),
    /// Deploys again at once, tries again at once what waits for its next try, and ends a stop
    Redeploy { number: PullNumber },
    /// Clones the author's database anew: what was changed in the copy is lost, but for
    /// `keep_previous = yes`
    ResetDb {
        number: PullNumber,
        /// Bring back what the last reset replaced; again, and the two change places again
        #[arg(long)]
        undo: bool,
    },
    /// Keeps all automatic hands off an environment, also when the pull request is closed
    Hold {
        number: PullNumber,
        #[command(flatten)]
        hold: HoldArgs,
    },
    /// Gives its server back to the pool and keeps it from getting one, until `release` or
    /// `redeploy`
    Stop { number: PullNumber },
    /// Gives a held or stopped environment back to the automatic hands
    Release { number: PullNumber },
    /// Lets exactly this head of a fork's pull request run on your servers
    Approve {
        number: PullNumber,
        /// The whole commit id that you have looked at
        sha: Sha,
    },
}

//! What an operator can do: one function for each verb, called by the command line and the
//! console alike. Each checks that it may be done, does it, and records who did it.

pub mod master;
mod pulls;
mod servers;

use std::time::Duration;

use jiff::Timestamp;

use crate::domain::{Login, PullNumber, ServerId};
use crate::facts::Hold;
use crate::ports::ComputeError;
use crate::reconcile::lock::{Held, LockName, Locks};
use crate::schema_clone::CloneError;
use crate::store::{ConsoleUser, Store, StoreError, Won};
use crate::words;

pub use servers::find_server;

#[derive(Debug, thiserror::Error)]
pub enum OpsError {
    /// The words of the caller make no sense.
    #[error("{0}")]
    Usage(String),
    /// It makes sense, but may not be done now; says why and what to do.
    #[error("{0}")]
    Refused(String),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Compute(#[from] ComputeError),
    #[error(transparent)]
    Clone(#[from] CloneError),
}

type Result<T, E = OpsError> = std::result::Result<T, E>;

fn refused<T>(why: impl Into<String>) -> Result<T> {
    Err(OpsError::Refused(why.into()))
}

fn usage<T>(why: impl Into<String>) -> Result<T> {
    Err(OpsError::Usage(why.into()))
}

/// One person at work.
#[derive(Debug)]
pub struct Operator<'a> {
    pub store: &'a mut Store,
    /// Who it is, for the events.
    pub who: &'a str,
    pub now: Timestamp,
}

/// How long a word such as `90m`, `12h` or `2d` says.
pub fn parse_span(text: &str) -> Result<Duration> {
    let bad = || OpsError::Usage(format!("{text:?} is no time span; write 30m, 12h or 2d"));
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[number.len()..] {
        "m" | "min" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(bad()),
    };
    let n: u64 = number.parse().map_err(|_| bad())?;
    match n.checked_mul(unit) {
        Some(seconds) if (1..=366 * 86_400).contains(&seconds) => Ok(Duration::from_secs(seconds)),
        _ => Err(bad()),
    }
}

impl Operator<'_> {
    fn note(
        &mut self,
        pull: Option<PullNumber>,
        server: Option<ServerId>,
        what: &str,
    ) -> Result<()> {
        Ok(self.store.event(self.now, self.who, pull, server, what)?)
    }

    fn hold_of(&self, reason: &str, span: Option<Duration>) -> Hold {
        let until = span.and_then(|span| self.now.checked_add(span).ok());
        Hold { since: self.now, until, reason: words::plain(reason) }
    }

    /// Stops all effects of both binaries until [`Operator::resume`].
    pub fn pause(&mut self) -> Result<()> {
        let who = format!("by {} since {}", self.who, words::moment(self.now));
        self.store.set_paused(Some(who))?;
        self.note(None, None, "paused")
    }

    pub fn resume(&mut self) -> Result<()> {
        self.store.set_paused(None)?;
        self.note(None, None, "resumed")
    }

    pub fn user_set(&mut self, login: &str, schema: &str) -> Result<()> {
        let login = login_of(login)?;
        let facts = self.store.facts()?;
        let schema = self.developers_schema(schema, &facts)?;
        self.store.set_user(&login, &schema, self.now)?;
        self.note(None, None, &format!("user {login} has schema {schema}"))
    }

    pub fn user_remove(&mut self, login: &str) -> Result<()> {
        let login = login_of(login)?;
        match self.store.remove_user(&login)? {
            Won::Yes => self.note(None, None, &format!("removed user {login}")),
            Won::No => {
                usage(format!("there is no user {login}; `update-pull user list` shows all"))
            }
        }
    }

    /// A user of the console: a new one, or another password and role.
    pub fn console_user_set(&mut self, user: &ConsoleUser) -> Result<()> {
        self.store.set_console_user(user, self.now)?;
        self.note(
            None,
            None,
            &format!("console user {} is {}", words::plain(&user.name), user.role),
        )
    }

    pub fn console_user_remove(&mut self, name: &str) -> Result<()> {
        match self.store.remove_console_user(name)? {
            Won::Yes => {
                self.note(None, None, &format!("removed console user {}", words::plain(name)))
            }
            Won::No => usage(format!(
                "there is no console user {name:?}; `update-pull console-user list` shows all"
            )),
        }
    }
}

fn lock(locks: &Locks, name: LockName, of: &str) -> Result<Held> {
    match locks.try_lock(&name) {
        Ok(Some(held)) => Ok(held),
        Ok(None) => refused(format!("a tick is at work on {of}; try again when it is done")),
        Err(e) => refused(format!("cannot lock: {e}")),
    }
}

fn login_of(text: &str) -> Result<Login> {
    let good = !text.is_empty()
        && text.len() <= 100
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_[]".contains(&b));
    if good { Ok(Login(text.to_owned())) } else { usage(format!("{text:?} is not a GitHub login")) }
}

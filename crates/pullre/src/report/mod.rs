//! What people are told on GitHub: one check run for each head commit, one comment for each pull
//! request, and deployments where they are wanted.
//!
//! Level-triggered like everything else: [`show`] derives what a reviewer shall see now, [`plan`]
//! compares it with what was last said, [`apply`] says what differs. What could not be said is
//! said by a later tick; nothing of it ever holds an environment back.

pub mod apply;
pub mod commands;
pub mod markdown;
pub mod plan;
pub mod show;

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::str::FromStr;

use jiff::Timestamp;

use crate::config::Secret;
use crate::domain::{Invalid, PullNumber};
use crate::facts::Pull;
use crate::ports::CheckState;
use crate::store::Step;

/// What is said, by app.ini.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// False: GitHub is only read.
    pub report: bool,
    pub check_name: String,
    pub comment: bool,
    pub deployments: bool,
    /// Where the console is, as `https://host`.
    pub console: Option<String>,
    /// Never shown, wherever they come from.
    pub secrets: Vec<Secret>,
}

impl Settings {
    /// The console's page of one.
    pub fn page(&self, number: PullNumber) -> Option<String> {
        Some(format!("{}/pull/{}", self.console.as_ref()?, number.0))
    }
}

/// A way to say something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Check,
    /// Where check runs are not permitted.
    Status,
    Comment,
    Deployment,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Check => "check",
            Kind::Status => "status",
            Kind::Comment => "comment",
            Kind::Deployment => "deployment",
        }
    }

    /// What a credential lacks that may not.
    pub fn permission(self) -> &'static str {
        match self {
            Kind::Check => "checks: write (GitHub Apps only)",
            Kind::Status => "commit statuses: write",
            Kind::Comment => "issues: write and pull requests: write",
            Kind::Deployment => "deployments: write",
        }
    }
}

impl FromStr for Kind {
    type Err = Invalid;
    fn from_str(s: &str) -> Result<Self, Invalid> {
        Ok(match s {
            "check" => Kind::Check,
            "status" => Kind::Status,
            "comment" => Kind::Comment,
            "deployment" => Kind::Deployment,
            _ => return Err(Invalid::new(s, "a kind of report")),
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How it stands with what is reported on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Queued,
    Held,
    InProgress,
    Success,
    Failure,
    Neutral,
    Cancelled,
}

impl State {
    pub fn as_str(self) -> &'static str {
        match self {
            State::Queued => "queued",
            State::Held => "held",
            State::InProgress => "in progress",
            State::Success => "success",
            State::Failure => "failure",
            State::Neutral => "neutral",
            State::Cancelled => "cancelled",
        }
    }

    /// Whether a commit that says this may be made to say `new`. What is completed stays, but for
    /// a failure that is tried again, a success that fails later or whose server is `lost`, and
    /// what was never tried.
    fn gives_way_to(self, new: State, lost: bool) -> bool {
        use State::*;
        match self {
            Queued | Held | InProgress => true,
            Success => match new {
                Success | Failure => true,
                Queued | InProgress => lost,
                Held | Neutral | Cancelled => false,
            },
            Failure => matches!(new, Success | Failure | InProgress | Queued),
            Neutral | Cancelled => !matches!(new, Held | Cancelled),
        }
    }

    /// In the words of a check run.
    fn of_check(self) -> CheckState {
        match self {
            State::Queued | State::Held => CheckState::Queued,
            State::InProgress => CheckState::InProgress,
            State::Success => CheckState::Success,
            State::Failure => CheckState::Failure,
            State::Neutral => CheckState::Neutral,
            State::Cancelled => CheckState::Cancelled,
        }
    }

    /// In the words of a commit status.
    fn of_status(self) -> &'static str {
        match self {
            // There is no neutral: green would say that it was looked at, red that it is bad.
            State::Queued | State::Held | State::InProgress | State::Neutral => "pending",
            State::Success => "success",
            State::Failure => "failure",
            State::Cancelled => "error",
        }
    }

    fn has_ended(self) -> bool {
        !matches!(self, State::Queued | State::Held | State::InProgress)
    }
}

impl FromStr for State {
    type Err = Invalid;
    fn from_str(s: &str) -> Result<Self, Invalid> {
        use State::*;
        [Queued, Held, InProgress, Success, Failure, Neutral, Cancelled]
            .into_iter()
            .find(|state| state.as_str() == s)
            .ok_or_else(|| Invalid::new(s, "the state of a report"))
    }
}

/// What a report is about. A comment is about no commit: its `sha` is empty.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub number: PullNumber,
    pub kind: Kind,
    pub sha: String,
}

/// What stands in [`LastSaid::digest`] for what pullre-kun said: it counts as said as long as it is
/// true, whatever its words.
pub const ADOPTED: &str = "adopted";

/// What was last said of something.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LastSaid {
    /// What GitHub calls it.
    pub id: Option<i64>,
    /// Who made it; None where nobody knows.
    pub credential: Option<String>,
    /// None: nothing was said yet.
    pub state: Option<State>,
    pub digest: Option<String>,
    pub said_at: Option<Timestamp>,
    /// When something else was begun to be made in its stead, of which nobody knows whether it is
    /// there: it has to be looked for.
    pub begun_at: Option<Timestamp>,
    /// Nothing more is to be said.
    pub settled: bool,
    pub tried: Option<Tried>,
}

/// GitHub did not take it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    pub digest: String,
    pub at: Timestamp,
    pub attempts: u32,
}

/// A credential may not use an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub credential: String,
    pub at: Timestamp,
    pub why: String,
}

/// What became of somebody's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub login: String,
    pub verb: String,
    pub at: Timestamp,
    pub text: String,
}

/// Everything that the records know of reports.
#[derive(Debug, Clone, Default)]
pub struct Told {
    /// Of open pull requests, and what is not settled yet.
    pub said: BTreeMap<Key, LastSaid>,
    pub refusals: BTreeMap<Kind, Refusal>,
    /// Of deployments that run or failed, while their environment has them.
    pub steps: BTreeMap<i64, Vec<Step>>,
    /// The newest last.
    pub answers: BTreeMap<PullNumber, Vec<Answer>>,
    /// Closed pull requests without a server, of which something is still to be said.
    pub closed: BTreeMap<PullNumber, Pull>,
}

/// By which it is known that something was said already. Another version may count otherwise: then
/// everything is said once more.
fn digest(what: &impl Hash) -> String {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

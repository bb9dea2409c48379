//! The two seams to the outside: where pull requests come from, and where machines run.
//! Both are synchronous and object-safe.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;

use crate::domain::{Instance, InstanceId, Invalid, Login, PullNumber, PullRequest, Sha};

/// Where pull requests come from: GitHub.
pub trait Forge: Send + Sync {
    /// What has changed since `known`. Nothing counts as seen before [`Forge::remember`].
    fn read_pulls(&self, known: &KnownPulls) -> Result<PullReading, ForgeError>;

    /// Everything in the reading that `mark` came from is stored: later readings may leave it out.
    /// A crash before this call only costs a second reading.
    fn remember(&self, mark: &ReadingMark) -> Result<(), ForgeError>;

    /// Tells one credential from another without showing it: what one has made, another may not
    /// change.
    fn credential(&self) -> String;

    /// What is already there, of our own making: the newest, where there are several.
    fn find(&self, find: &Find) -> Result<Option<Found>, PostError>;

    /// Writes it; never a second time when it is not known whether the first one arrived. Returns
    /// its id. A check run that goes on to say something else than this is [`PostError::Gone`].
    fn post(&self, post: &Post) -> Result<i64, PostError>;

    /// Comments on anything that changed since then, oldest change first.
    fn read_comments(&self, since: Timestamp) -> Result<Vec<Comment>, ForgeError>;

    /// Whether this account may write to the repository.
    fn may_write(&self, login: &Login) -> Result<bool, PostError>;
}

/// What the store already holds of the forge.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KnownPulls {
    /// The newest `updated_at` of the last whole reading; None before the first one.
    pub watermark: Option<Timestamp>,
    /// Pull requests that are open in the store. Those that are missing from a whole reading of
    /// the open ones are asked for one by one.
    pub open: BTreeSet<PullNumber>,
    /// The list of open ones is due to be read as a whole again.
    pub whole: bool,
}

/// One whole answer of the forge.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PullReading {
    /// New or changed ones, and with a whole reading every open one. Unchanged ones may be among them.
    pub pulls: Vec<PullRequest>,
    /// Open in the store, but the forge knows no such pull request any more.
    pub gone: Vec<PullNumber>,
    /// What to remember once all this is stored. None when nothing changed.
    pub mark: Option<ReadingMark>,
}

/// How far a reading came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadingMark {
    /// The newest `updated_at` seen, or the former watermark.
    pub watermark: Timestamp,
    /// The open list was read as a whole.
    pub whole: bool,
    /// The validator of the page that an idle tick asks for.
    pub etag: Option<String>,
}

/// What the forge's rate limit still allows, by its own word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLeft {
    pub limit: u32,
    pub remaining: u32,
    /// When `remaining` is `limit` again.
    pub resets_at: Timestamp,
}

/// Why the forge could not be read. Each text names the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ForgeError {
    #[error("GitHub refuses the credentials (401): renew `token` in app.ini")]
    Unauthorized,
    #[error("the GitHub App cannot sign in: {0}")]
    App(String),
    #[error(
        "GitHub forbids it (403): {0}. The token needs read access to pull requests and contents"
    )]
    Forbidden(String),
    #[error(
        "GitHub knows no repository {0} for this token (404): check `owner`, `repo` and what the token may see"
    )]
    NoRepository(String),
    #[error(
        "GitHub's rate limit is used up until {}; nothing is asked before",
        until.strftime("%Y-%m-%d %H:%M:%S UTC")
    )]
    RateLimited { until: Timestamp },
    #[error("GitHub cannot be read now: {0}; the next tick tries again")]
    Unavailable(String),
    /// This question, and perhaps no other.
    #[error("GitHub does not take the question: {0}")]
    Rejected(String),
    #[error("GitHub's answer makes no sense: {0}")]
    Malformed(String),
    #[error("cannot keep what was read of GitHub: {0}")]
    Local(String),
}

/// Something to look for before it is made: a crash, or another controller, may have made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Find {
    CheckRun {
        head: Sha,
        name: String,
        external_id: String,
    },
    /// By its hidden mark, and only among our own.
    Comment {
        number: PullNumber,
        mark: String,
    },
    Deployment {
        head: Sha,
        environment: String,
    },
}

/// What is there already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub id: i64,
    /// What a check run was completed with: it says nothing else any more.
    pub conclusion: Option<String>,
}

impl Found {
    /// Whether it can be changed to say this.
    pub fn may_say(&self, state: CheckState) -> bool {
        self.conclusion.is_none() || self.conclusion.as_deref() == state.words().1
    }
}

impl From<i64> for Found {
    fn from(id: i64) -> Found {
        Found { id, conclusion: None }
    }
}

/// One thing that is written on the forge. With an id it changes what is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Post {
    CheckRun { id: Option<i64>, run: CheckRun },
    Status { head: Sha, status: CommitStatus },
    Comment { id: Option<i64>, number: PullNumber, body: String },
    Deployment { head: Sha, environment: String, description: String },
    DeploymentStatus { id: i64, status: DeploymentStatus },
    Reaction { comment: i64, reaction: Reaction },
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CheckRun {
    pub name: String,
    pub head: Sha,
    /// By which it is found again.
    pub external_id: String,
    pub state: CheckState,
    /// Plain text; the others are Markdown.
    pub title: String,
    pub summary: String,
    pub text: Option<String>,
    pub details_url: Option<String>,
    pub started_at: Option<Timestamp>,
    pub completed_at: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CheckState {
    Queued,
    InProgress,
    Success,
    Failure,
    Neutral,
    Cancelled,
}

impl CheckState {
    /// The forge's words: status, and what it was completed with.
    pub fn words(self) -> (&'static str, Option<&'static str>) {
        match self {
            CheckState::Queued => ("queued", None),
            CheckState::InProgress => ("in_progress", None),
            CheckState::Success => ("completed", Some("success")),
            CheckState::Failure => ("completed", Some("failure")),
            CheckState::Neutral => ("completed", Some("neutral")),
            CheckState::Cancelled => ("completed", Some("cancelled")),
        }
    }
}

/// What a commit says of itself where check runs are not permitted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CommitStatus {
    pub context: String,
    /// `pending`, `success`, `failure` or `error`.
    pub state: &'static str,
    /// At most 140 characters.
    pub description: String,
    pub target_url: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DeploymentStatus {
    /// `queued`, `in_progress`, `success`, `failure` or `inactive`.
    pub state: &'static str,
    pub description: String,
    pub environment_url: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reaction {
    Done,
    NotUnderstood,
    Refused,
}

impl Reaction {
    pub fn as_str(self) -> &'static str {
        match self {
            Reaction::Done => "+1",
            Reaction::NotUnderstood => "confused",
            Reaction::Refused => "-1",
        }
    }
}

impl FromStr for Reaction {
    type Err = Invalid;
    fn from_str(s: &str) -> Result<Self, Invalid> {
        [Reaction::Done, Reaction::NotUnderstood, Reaction::Refused]
            .into_iter()
            .find(|reaction| reaction.as_str() == s)
            .ok_or_else(|| Invalid::new(s, "a reaction to a comment"))
    }
}

/// A comment on an issue or a pull request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comment {
    pub id: i64,
    pub number: PullNumber,
    /// None when the account is gone.
    pub author: Option<Login>,
    pub body: String,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// Why something was not written, or not found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PostError {
    /// These credentials may not, whatever is asked of this interface.
    #[error("GitHub does not permit it: {0}")]
    Forbidden(String),
    /// What was to be changed is not there, or not ours.
    #[error("it is not there any more, or not ours to change: {0}")]
    Gone(String),
    /// This one is refused; another may not be.
    #[error("GitHub does not take it: {0}")]
    Rejected(String),
    /// Nothing can be said at all for now.
    #[error(transparent)]
    Forge(#[from] ForgeError),
}

/// Where machines run: EC2, or slots of this machine.
pub trait Compute: fmt::Debug + Send + Sync {
    /// The machines among `ids` that exist. One that is missing from the answer has vanished.
    fn describe(&self, ids: &[InstanceId]) -> Result<Vec<Instance>, ComputeError>;

    /// Every machine of the account, registered with us or not.
    fn list(&self) -> Result<Vec<Instance>, ComputeError>;

    /// Asks for a start. Accepted does not mean running: only `describe` tells. Starting what
    /// runs already is no error.
    fn start(&self, id: &InstanceId) -> Result<(), ComputeError>;

    /// Asks for a stop; likewise.
    fn stop(&self, id: &InstanceId) -> Result<(), ComputeError>;

    /// Whether a start and a stop would be permitted. Does neither.
    fn may_switch(&self, _id: &InstanceId) -> Result<(), ComputeError> {
        Ok(())
    }
}

/// Why the compute provider did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ComputeError {
    #[error("there is no instance {0}: register the server again with the instance it has now")]
    NoInstance(InstanceId),
    /// In a state from which this cannot be done now; the next tick looks again.
    #[error("instance {id} cannot do that now: {detail}; the next tick tries again")]
    WrongState { id: InstanceId, detail: String },
    /// The provider has no machine of this kind free.
    #[error("no capacity for instance {id}: {detail}")]
    NoCapacity { id: InstanceId, detail: String },
    #[error("not permitted: {0}")]
    Denied(String),
    /// For a reason that only a person can change.
    #[error("the compute provider refuses it: {0}")]
    Refused(String),
    #[error("the compute provider cannot be reached now: {0}; the next tick tries again")]
    Unavailable(String),
}

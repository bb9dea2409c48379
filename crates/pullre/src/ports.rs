//! The two seams to the outside: where pull requests come from, and where machines run.
//! Both are synchronous and object-safe.

use std::collections::BTreeSet;
use std::fmt;

use jiff::Timestamp;

use crate::domain::{Instance, InstanceId, PullNumber, PullRequest};

/// Where pull requests come from: GitHub.
pub trait Forge: Send + Sync {
    /// What has changed since `known`. Nothing counts as seen before [`Forge::remember`].
    fn read_pulls(&self, known: &KnownPulls) -> Result<PullReading, ForgeError>;

    /// Everything in the reading that `mark` came from is stored: later readings may leave it out.
    /// A crash before this call only costs a second reading.
    fn remember(&self, mark: &ReadingMark) -> Result<(), ForgeError>;
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

/// Why the forge could not be read. Each text names the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ForgeError {
    #[error("GitHub refuses the credentials (401): renew `token` in app.ini")]
    Unauthorized,
    #[error(
        "GitHub forbids it (403): {0}. The token needs read access to pull requests and contents"
    )]
    Forbidden(String),
    #[error(
        "GitHub knows no repository {0} for this token (404): check `owner`, `repo` and what the token may see"
    )]
    NoRepository(String),
    #[error("GitHub's rate limit is used up until {until}; nothing is asked before")]
    RateLimited { until: Timestamp },
    #[error("GitHub cannot be read now: {0}; the next tick tries again")]
    Unavailable(String),
    #[error("GitHub's answer makes no sense: {0}")]
    Malformed(String),
    #[error("cannot keep what was read of GitHub: {0}")]
    Local(String),
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

//! What the control database knows, as typed facts. Nothing in here is derived: what follows
//! from the facts is worked out in [`crate::condition`], and never stored.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::Timestamp;
use serde::Serialize;

use crate::domain::{
    InstanceId, InstanceState, Invalid, Login, PullNumber, PullRequest, SchemaName, ServerId, Sha,
};
use crate::switches::Switching;

/// Everything that a tick decides upon, read in a fixed number of queries.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The schema that the control database itself is, where it has neighbours.
    pub control_schema: Option<SchemaName>,
    /// Open ones, and closed ones that still have a server.
    pub pulls: BTreeMap<PullNumber, Pull>,
    pub servers: BTreeMap<ServerId, Server>,
    pub users: Vec<User>,
    pub assignments: BTreeMap<PullNumber, Assignment>,
    pub clones: BTreeMap<SchemaName, SchemaClone>,
    /// Who paused all effects, and since when.
    pub paused: Option<String>,
    /// What the last tick refused to do without a person.
    pub refused: Option<String>,
    /// The newest change of a pull request that was read and stored.
    pub watermark: Option<Timestamp>,
    /// When the whole list of open pull requests was last read.
    pub whole_read_at: Option<Timestamp>,
    /// Comments on pull requests are read up to here.
    pub comments_read: Option<Timestamp>,
    /// The list of pull requests changed since comments were read; tells this change from a later
    /// one.
    pub comments_due: Option<String>,
    /// Why not everything could be said on GitHub lately.
    pub report_trouble: Option<String>,
    /// Why commands in comments are not heard, if so.
    pub commands_trouble: Option<String>,
    /// When old history was last removed.
    pub forgot_at: Option<Timestamp>,
    /// Rows that make no sense, each a sentence; they concern nobody else.
    pub unreadable: Vec<String>,
    /// Servers among them: not known, which is not the same as gone.
    pub unreadable_servers: BTreeSet<ServerId>,
}

impl Facts {
    pub fn assignment_of_server(&self, server: ServerId) -> Option<&Assignment> {
        self.assignments.values().find(|a| a.server == server)
    }

    /// The name of a server for people, also where its row is gone.
    pub fn server_name(&self, id: ServerId) -> String {
        match self.servers.get(&id) {
            Some(server) => server.name.clone(),
            None => format!("server {}", id.0),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pull {
    pub request: PullRequest,
    /// False for a row that pullre-kun left and GitHub has not described to us yet: nothing is
    /// decided about it before.
    pub described: bool,
    /// Since when it may have an environment; gives its place in the queue.
    pub eligible_since: Option<Timestamp>,
    /// Since when it may not, if so.
    pub ineligible_since: Option<Timestamp>,
    /// The only head of a fork that an operator allowed to run.
    pub approved: Option<Sha>,
    pub hold: Option<Hold>,
    /// A person gave its server back, and it gets none until its release.
    pub stopped: Option<Stopped>,
    /// The server that it had last; preferred when it needs one again.
    pub last_server: Option<ServerId>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stopped {
    pub since: Timestamp,
    pub by: String,
}

/// A person took a server or an environment out of automatic hands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hold {
    pub since: Timestamp,
    pub until: Option<Timestamp>,
    pub reason: String,
}

impl Hold {
    pub fn holds_at(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = crate::words::moment(self.since);
        write!(f, "held since {since}")?;
        if let Some(until) = self.until {
            write!(f, " until {}", crate::words::moment(until))?;
        }
        if !self.reason.is_empty() {
            write!(f, ": {}", self.reason)?;
        }
        Ok(())
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    pub id: ServerId,
    pub name: String,
    pub instance: Option<InstanceId>,
    pub private_ip: Option<String>,
    /// The schema that it works on; why there is none where the row names none or nonsense.
    pub schema: Result<SchemaName, Invalid>,
    pub check_url: Option<String>,
    /// In the pool.
    pub is_staging: bool,
    pub hold: Option<Hold>,
    pub start: StartTries,
    /// When the provider last had no machine for it, if it has not run since.
    pub no_capacity_at: Option<Timestamp>,
    /// We started it, or released it while it ran, and its stop has not been accepted yet. Kept
    /// in the row, so that a crash between release and stop leaves no instance running for nobody.
    pub stop_owed: bool,
    /// As the last tick saw it; None before the first one.
    pub state: Option<InstanceState>,
    pub agent: Option<Agent>,
    /// Who its staging client says is at its schema: a migration, or the app that runs.
    pub app: Option<App>,
    /// What keeps its staging client from doing its duty.
    pub trouble: Option<String>,
    /// What its staging client last measured.
    pub pulse: Option<Pulse>,
    /// The app that its staging client cannot keep alive.
    pub death: Option<AppDeath>,
    /// When it is started and stopped by itself, as long as it is not in the pool; why that cannot
    /// be told where the row holds nonsense.
    pub switching: Result<Switching, Invalid>,
}

/// How often the start of an instance was asked for since it last ran.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StartTries {
    pub requested_at: Option<Timestamp>,
    pub attempts: u32,
    /// What the provider said to the last try, if it refused.
    pub error: Option<String>,
}

/// The last sign of life of a staging client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Agent {
    pub seen_at: Timestamp,
    pub version: String,
}

/// What a staging client measures on its machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Pulse {
    /// Of the fuller one of the disks with its work trees and its state.
    pub free_bytes: u64,
    pub total_bytes: u64,
    /// Programs that wanted to run in the last minute, in hundredths.
    pub load_percent: u32,
}

impl Pulse {
    /// Whether the disk is nearly full: time for somebody to free space before deployments fail.
    pub fn is_disk_low(&self) -> bool {
        const GIB: u64 = 1 << 30;
        self.free_bytes < GIB
            || self.free_bytes < 10 * GIB && self.free_bytes < self.total_bytes / 10
    }
}

/// The app of a deployment that had succeeded is gone; its staging client starts it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AppDeath {
    pub deployment: i64,
    /// Since it was deployed, or last ran for long.
    pub times: u32,
    pub at: Timestamp,
    /// When it is started again.
    pub again_at: Timestamp,
    /// What it said last.
    pub reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct App {
    pub pull: PullNumber,
    pub sha: Sha,
}

/// Whose schema is cloned for whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub login: Login,
    pub schema: Result<SchemaName, Invalid>,
}

/// Which server an environment has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    pub server: ServerId,
    pub pull: PullNumber,
    pub assigned_at: Timestamp,
    /// What the server's client shall deploy, or has deployed. None: it shall run no app.
    pub deployment: Option<Deployment>,
}

/// One try to bring one commit to one server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Deployment {
    pub id: i64,
    pub pull: PullNumber,
    pub server: ServerId,
    pub sha: Sha,
    /// Counts from 1 for each new commit and each wish of a person.
    pub attempt: u32,
    pub outcome: Outcome,
    pub offered_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    /// How often the client died in the middle and began again.
    pub interruptions: u32,
    pub failed_step: Option<String>,
    pub reason: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The controller wants it; the client has not begun. A crash of either changes nothing.
    Offered,
    /// The client is at it. After a crash of the client its next tick begins it again.
    Running,
    /// The app answered with this commit, and the client said so as its last act.
    Succeeded,
    Failed,
    /// Another deployment took its place before it ended, or it was withdrawn.
    Superseded,
}

impl Outcome {
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Offered => "offered",
            Outcome::Running => "running",
            Outcome::Succeeded => "succeeded",
            Outcome::Failed => "failed",
            Outcome::Superseded => "superseded",
        }
    }
}

impl std::str::FromStr for Outcome {
    type Err = Invalid;
    fn from_str(s: &str) -> Result<Self, Invalid> {
        Ok(match s {
            "offered" => Outcome::Offered,
            "running" => Outcome::Running,
            "succeeded" => Outcome::Succeeded,
            "failed" => Outcome::Failed,
            "superseded" => Outcome::Superseded,
            _ => return Err(Invalid::new(s, "the outcome of a deployment")),
        })
    }
}

/// What we own: a schema that we made, or were allowed to overwrite, for one server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SchemaClone {
    pub schema: SchemaName,
    pub server: ServerId,
    pub state: CloneState,
    pub source: Option<SchemaName>,
    /// The environment whose data it holds, or shall hold.
    pub pull: Option<PullNumber>,
    /// Tries since it was last ready.
    pub attempts: u32,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    pub error: Option<String>,
    pub bytes: Option<i64>,
    pub millis: Option<i64>,
    pub contents: Contents,
}

/// What a schema holds, as far as a clone into it was finished.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Contents {
    /// The environment that it was made for.
    pub pull: Option<PullNumber>,
    /// Whose copy it is.
    pub source: Option<SchemaName>,
    /// The digest of the mask that it was made under.
    pub mask: Option<String>,
    /// The same of the clone that is being made, or was when its tick died.
    pub building_mask: Option<String>,
    /// The clone that it replaced, of the same source, environment and mask, is kept beside it.
    pub kept: bool,
    /// A person's wish to have that one back; tells one wish from another.
    pub undo: Option<i64>,
}

impl SchemaClone {
    /// Whether what is in the schema is a copy of this source, made for this environment and under
    /// this mask: only then it is worth keeping when it is replaced, and may come back.
    pub fn holds(&self, source: &SchemaName, pull: PullNumber, mask: Option<&str>) -> bool {
        let contents = &self.contents;
        let finished = contents.pull == Some(pull)
            && contents.source.as_ref() == Some(source)
            && contents.mask.as_deref() == mask;
        match self.state {
            CloneState::Ready | CloneState::Stale | CloneState::Undo | CloneState::Failed => {
                finished
            }
            // Its tick may have died before the new one was put in place, or after it.
            CloneState::Building => {
                finished
                    && self.pull == Some(pull)
                    && self.source.as_ref() == Some(source)
                    && contents.building_mask.as_deref() == mask
            }
            CloneState::Owned | CloneState::Refused => false,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CloneState {
    /// Ours to overwrite, holding nobody's data that counts.
    Owned,
    /// A tick is copying, or died copying: what the server worked on before is still whole.
    Building,
    Ready,
    Failed,
    /// A person asked for fresh data; what is there stays until the copy is done.
    Stale,
    /// A person asked for the previous clone back; what is there stays until it is. A tick that died
    /// at it is finished by the next.
    Undo,
    /// Not ours: the schema holds something that we did not make.
    Refused,
}

impl CloneState {
    pub fn as_str(self) -> &'static str {
        match self {
            CloneState::Owned => "owned",
            CloneState::Building => "building",
            CloneState::Ready => "ready",
            CloneState::Failed => "failed",
            CloneState::Stale => "stale",
            CloneState::Undo => "undo",
            CloneState::Refused => "refused",
        }
    }
}

impl std::str::FromStr for CloneState {
    type Err = Invalid;
    fn from_str(s: &str) -> Result<Self, Invalid> {
        Ok(match s {
            "owned" => CloneState::Owned,
            "building" => CloneState::Building,
            "ready" => CloneState::Ready,
            "failed" => CloneState::Failed,
            "stale" => CloneState::Stale,
            "undo" => CloneState::Undo,
            "refused" => CloneState::Refused,
            _ => return Err(Invalid::new(s, "the state of a clone")),
        })
    }
}

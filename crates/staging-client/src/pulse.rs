//! Signs of life during what takes long.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use pullre::domain::ServerId;
use pullre::store::{Store, StoreError};

pub const EVERY: Duration = Duration::from_secs(20);
/// How long a push may wait until a probe that it makes pointless is given up.
const LOOK_EVERY: Duration = Duration::from_secs(1);

pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The store during a step.
#[derive(Debug)]
pub struct Pulse<'a> {
    pub store: &'a mut Store,
    server: ServerId,
    last: Instant,
    looked: Instant,
}

impl<'a> Pulse<'a> {
    /// The server has just given a sign of life.
    pub fn new(store: &'a mut Store, server: ServerId) -> Pulse<'a> {
        Pulse { store, server, last: Instant::now(), looked: Instant::now() }
    }

    /// To be called often. That the store cannot be reached for a while ends no step.
    pub fn beat(&mut self) {
        if self.last.elapsed() < EVERY {
            return;
        }
        self.last = Instant::now();
        if let Err(e) = self.store.agent_seen(self.server, VERSION, Timestamp::now()) {
            tracing::warn!(server = self.server.0, "no sign of life could be given: {e}");
        }
    }

    /// Whether a newer wish was stored; looks at most once a second.
    pub fn superseded(&mut self, deployment: i64) -> Result<bool, StoreError> {
        if self.looked.elapsed() < LOOK_EVERY {
            return Ok(false);
        }
        self.looked = Instant::now();
        self.store.is_wanted(deployment).map(|wanted| !wanted)
    }
}

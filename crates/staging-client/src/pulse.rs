//! Signs of life during what takes long.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use pullre::domain::ServerId;
use pullre::store::{Store, StoreError};

pub const EVERY: Duration = Duration::from_secs(20);
/// How often what a step prints is shown while it runs.
const SHOW_EVERY: Duration = Duration::from_secs(2);
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
    /// The step that is at work, and what it is known to have printed.
    step: Option<(i64, String)>,
    shown: Instant,
}

impl<'a> Pulse<'a> {
    /// The server has just given a sign of life.
    pub fn new(store: &'a mut Store, server: ServerId) -> Pulse<'a> {
        let now = Instant::now();
        Pulse { store, server, last: now, looked: now, step: None, shown: now }
    }

    /// From now on what is printed is this step's.
    pub fn begin_step(&mut self, step: i64) {
        self.step = Some((step, String::new()));
        self.shown = Instant::now();
    }

    /// To be called often. People see a step's output grow; that they do not for a while ends no
    /// step, since all of it is stored at its end.
    pub fn show(&mut self, printed: impl FnOnce() -> String) {
        let Some((step, known)) = &mut self.step else { return };
        if self.shown.elapsed() < SHOW_EVERY {
            return;
        }
        self.shown = Instant::now();
        let output = printed();
        if output == *known {
            return;
        }
        match self.store.step_output(*step, &output) {
            Ok(()) => *known = output,
            Err(e) => tracing::debug!("the output of a step that runs is not shown: {e}"),
        }
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

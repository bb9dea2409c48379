//! The machines of the account that are no servers of ours. They are fetched in the background,
//! and only while somebody looks: no page waits for the provider.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use pullre::domain::Instance;
use pullre::ports::Compute;

/// The provider is asked this often at the most.
const FRESH: Duration = Duration::from_secs(60);

#[derive(Debug, Clone)]
pub struct Machines(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    compute: Arc<dyn Compute>,
    /// Those of this machine are all registered.
    local: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    asked: Option<Instant>,
    asking: bool,
    known: Known,
}

/// What is known at this moment.
#[derive(Debug, Clone, Default)]
pub struct Known {
    pub machines: Arc<Vec<Instance>>,
    pub fetched_at: Option<Timestamp>,
    /// Why the last try failed.
    pub error: Option<String>,
}

impl Machines {
    pub fn new(compute: Arc<dyn Compute>, local: bool) -> Machines {
        Machines(Arc::new(Inner { compute, local, state: Mutex::default() }))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub fn are_listed(&self) -> bool {
        !self.0.local
    }

    /// What is known, at once; what is old is asked for meanwhile.
    pub fn look(&self) -> Known {
        let mut state = self.state();
        let old = state.asked.is_none_or(|asked| asked.elapsed() >= FRESH);
        if !self.0.local && old && !state.asking {
            state.asking = true;
            state.asked = Some(Instant::now());
            let machines = self.clone();
            // A provider that hangs keeps one thread, never two.
            tokio::task::spawn_blocking(move || machines.fetch());
        }
        state.known.clone()
    }

    fn fetch(&self) {
        let listed = self.0.compute.list();
        let mut state = self.state();
        state.asking = false;
        match listed {
            Ok(machines) => {
                state.known = Known {
                    machines: Arc::new(machines),
                    fetched_at: Some(Timestamp::now()),
                    error: None,
                };
            }
            Err(e) => state.known.error = Some(e.to_string()),
        }
    }

    /// A machine was started, stopped or registered: what is known is old.
    pub fn changed(&self) {
        self.state().asked = None;
    }
}

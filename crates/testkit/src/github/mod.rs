//! A GitHub with one repository, served over HTTP on 127.0.0.1: what GitHub's REST documentation
//! says about pull requests, paging, conditional requests and rate limits, and faults on demand.
//!
//! A test changes the world through [`FakeGithub::change`]; another terminal through the paths
//! under `/_control/`.

mod control;
mod faults;
mod serve;
mod told;
mod world;

use std::collections::VecDeque;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

use anyhow::Context;
use jiff::Timestamp;
use tokio::sync::oneshot;

pub use faults::Fault;
pub use told::{FakeCheckRun, FakeComment, FakeDeployment, FakeStatus, Told};
pub use world::{PullSpec, World};

/// How the fake is set up.
#[derive(Debug, Clone)]
pub struct FakeGithubOptions {
    pub owner: String,
    pub repo: String,
    /// The only token that it takes.
    pub token: String,
    /// Path before everything, as `/api/v3` of GitHub Enterprise; empty for the public API.
    pub prefix: String,
    /// 0: any free one.
    pub port: u16,
    /// Stamps follow the real clock instead of one that stands still, as a demo wants it.
    pub real_time: bool,
}

impl Default for FakeGithubOptions {
    fn default() -> Self {
        FakeGithubOptions {
            owner: "acme".to_owned(),
            repo: "shop".to_owned(),
            token: "ghp_test0123456789".to_owned(),
            prefix: String::new(),
            port: 0,
            real_time: false,
        }
    }
}

/// One request as it came in, for assertions on what was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedRequest {
    pub method: String,
    /// With its query, without the prefix.
    pub path: String,
    pub conditional: bool,
    pub status: u16,
    /// What was sent along; Null where nothing was.
    pub body: serde_json::Value,
}

impl fmt::Display for LoggedRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let conditional = if self.conditional { " if-none-match" } else { "" };
        let LoggedRequest { method, path, status, .. } = self;
        write!(f, "{method} {path}{conditional} -> {status}")
    }
}

type Change = Box<dyn FnOnce(&mut World) + Send>;

/// Everything behind the server, under one lock.
pub(crate) struct Shared {
    world: World,
    options: FakeGithubOptions,
    url: String,
    log: Vec<LoggedRequest>,
    next_faults: VecDeque<Fault>,
    lasting_fault: Option<Fault>,
    /// Run once so many more requests were answered.
    pending: Vec<(usize, Change)>,
    rate_remaining: u32,
    rate_reset: Timestamp,
}

/// A running fake; stops when dropped.
pub struct FakeGithub {
    shared: Arc<Mutex<Shared>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for FakeGithub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeGithub").finish_non_exhaustive()
    }
}

impl FakeGithub {
    /// `acme/shop` on any free port, with a clock that stands still.
    pub fn start() -> FakeGithub {
        FakeGithub::start_with(FakeGithubOptions::default()).expect("a free port on 127.0.0.1")
    }

    /// For people: on this port, with the real clock.
    pub fn start_on(port: u16) -> anyhow::Result<FakeGithub> {
        FakeGithub::start_with(FakeGithubOptions {
            port,
            real_time: true,
            ..FakeGithubOptions::default()
        })
    }

    pub fn start_with(options: FakeGithubOptions) -> anyhow::Result<FakeGithub> {
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, options.port));
        let listener = TcpListener::bind(at).with_context(|| format!("cannot listen on {at}"))?;
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let clock = if options.real_time {
            world::Clock::Real
        } else {
            world::Clock::Virtual("2026-01-05T09:00:00Z".parse()?)
        };
        let shared = Arc::new(Mutex::new(Shared {
            world: World::new(&options.owner, &options.repo, clock),
            url: format!("http://{}{}", listener.local_addr()?, options.prefix),
            options,
            log: Vec::new(),
            next_faults: VecDeque::new(),
            lasting_fault: None,
            pending: Vec::new(),
            rate_remaining: 5000,
            rate_reset: Timestamp::now() + jiff::SignedDuration::from_hours(1),
        }));
        let app = serve::router(Arc::clone(&shared));
        let (stop, stopped) = oneshot::channel::<()>();
        let thread =
            std::thread::Builder::new().name("fake-github".to_owned()).spawn(move || {
                runtime.block_on(async move {
                    let listener = tokio::net::TcpListener::from_std(listener)
                        .expect("the runtime was built with I/O");
                    tokio::select! {
                        served = axum::serve(listener, app).into_future() => {
                            served.expect("axum::serve does not end by itself");
                        }
                        // A dropped sender means stop as well.
                        _ = stopped => {}
                    }
                });
            })?;
        Ok(FakeGithub { shared, stop: Some(stop), thread: Some(thread) })
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        lock(&self.shared)
    }

    /// The base URL of the API, with the prefix.
    pub fn url(&self) -> String {
        self.lock().url.clone()
    }

    pub fn token(&self) -> String {
        self.lock().options.token.clone()
    }

    /// From now on only this token is taken.
    pub fn set_token(&self, token: &str) {
        self.lock().options.token = token.to_owned();
    }

    /// Changes the world at once.
    pub fn change<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        change(&mut self.lock().world)
    }

    /// Changes the world right after `requests` more requests were answered: in the middle of
    /// what a client reads.
    pub fn change_after(&self, requests: usize, change: impl FnOnce(&mut World) + Send + 'static) {
        self.lock().pending.push((requests, Box::new(change)));
    }

    /// The next request fails like this; further calls queue up.
    pub fn fail_next(&self, fault: Fault) {
        self.lock().next_faults.push_back(fault);
    }

    /// The next `count` requests fail like this.
    pub fn fail_times(&self, count: usize, fault: Fault) {
        let faults = std::iter::repeat_n(fault, count);
        self.lock().next_faults.extend(faults);
    }

    /// Every request fails like this until [`FakeGithub::heal`].
    pub fn fail_always(&self, fault: Fault) {
        self.lock().lasting_fault = Some(fault);
    }

    pub fn heal(&self) {
        let mut shared = self.lock();
        shared.lasting_fault = None;
        shared.next_faults.clear();
    }

    /// How many requests the token has left; at 0 GitHub refuses until the reset.
    pub fn rate_remaining(&self) -> u32 {
        self.lock().rate_remaining
    }

    pub fn set_rate_remaining(&self, remaining: u32) {
        self.lock().rate_remaining = remaining;
    }

    /// What was asked since the last call, oldest first.
    pub fn take_requests(&self) -> Vec<LoggedRequest> {
        std::mem::take(&mut self.lock().log)
    }
}

impl Drop for FakeGithub {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the fake GitHub's thread panicked");
        }
    }
}

/// A test that panics inside of a change has failed already; the world stays readable.
pub(crate) fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

//! A store that does with readings what the controller does, and a client for the fake GitHub.
#![allow(dead_code)] // each test file uses its part

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use pullre::config::{GithubLogin, Secret};
use pullre::domain::{PullNumber, PullRequest, PullState};
use pullre::ports::{Forge, ForgeError, KnownPulls, PullReading};
use pullre_http::github::{GitHub, GitHubAccess, Timings};
use tempfile::TempDir;
use testkit::github::{FakeGithub, FakeGithubOptions, LoggedRequest, PullSpec};

pub struct Setup {
    pub fake: FakeGithub,
    pub dir: TempDir,
    pub store: Store,
}

#[derive(Default)]
pub struct Store {
    pub pulls: BTreeMap<PullNumber, PullRequest>,
    pub watermark: Option<Timestamp>,
}

impl Store {
    pub fn known(&self, whole: bool) -> KnownPulls {
        let open = self.pulls.values().filter(|p| p.state == PullState::Open);
        KnownPulls { watermark: self.watermark, open: open.map(|p| p.number).collect(), whole }
    }

    pub fn keep(&mut self, reading: &PullReading) {
        for pull in &reading.pulls {
            self.pulls.insert(pull.number, pull.clone());
        }
        for number in &reading.gone {
            self.pulls.remove(number);
        }
        if let Some(mark) = &reading.mark {
            self.watermark = Some(mark.watermark);
        }
    }

    pub fn head(&self, number: u32) -> &str {
        self.pulls[&PullNumber(number)].head.as_str()
    }

    pub fn is_open(&self, number: u32) -> bool {
        self.pulls.get(&PullNumber(number)).is_some_and(|pull| pull.state == PullState::Open)
    }
}

impl Setup {
    pub fn new() -> Setup {
        Setup::with(FakeGithub::start())
    }

    pub fn with_options(options: FakeGithubOptions) -> Setup {
        Setup::with(FakeGithub::start_with(options).unwrap())
    }

    fn with(fake: FakeGithub) -> Setup {
        Setup { fake, dir: tempfile::tempdir().unwrap(), store: Store::default() }
    }

    /// `count` plain pull requests, a minute apart.
    pub fn open_many(&self, count: u32) {
        self.fake.change(|world| {
            for _ in 0..count {
                world.open(PullSpec::default());
                world.advance(60);
            }
        });
    }

    pub fn access(&self) -> GitHubAccess {
        GitHubAccess {
            api_url: self.fake.url(),
            owner: "acme".to_owned(),
            repo: "shop".to_owned(),
            login: GithubLogin::Token(Secret::new(self.fake.token())),
            state_dir: self.dir.path().join("state"),
            timings: Timings {
                request: Duration::from_secs(10),
                pauses: vec![Duration::from_millis(1); 2],
                ..Timings::default()
            },
        }
    }

    /// A fresh client, as each process has.
    pub fn github(&self) -> GitHub {
        GitHub::new(self.access()).unwrap()
    }

    pub fn read(&self, whole: bool) -> Result<PullReading, ForgeError> {
        self.github().read_pulls(&self.store.known(whole))
    }

    /// Reads, stores and remembers, as a tick does.
    pub fn tick(&mut self) -> PullReading {
        self.tick_with(false)
    }

    pub fn whole_tick(&mut self) -> PullReading {
        self.tick_with(true)
    }

    fn tick_with(&mut self, whole: bool) -> PullReading {
        let reading = self.read(whole).unwrap();
        self.store.keep(&reading);
        if let Some(mark) = &reading.mark {
            self.github().remember(mark).unwrap();
        }
        reading
    }

    /// What was asked since the last look, each as `/path 200` or `/path if-none-match 304`, paths
    /// shortened to what differs.
    pub fn asked(&self) -> Vec<String> {
        let short = |request: LoggedRequest| {
            request
                .to_string()
                .replace("GET /repos/acme/shop/", "")
                .replace("GET /repositories/1300192/", "")
                .replace("state=all&sort=updated&direction=desc&per_page=100", "updates")
                .replace("state=open&sort=created&direction=asc&per_page=100", "open")
        };
        self.fake.take_requests().into_iter().map(short).collect()
    }
}

pub fn numbers(reading: &PullReading) -> Vec<u32> {
    reading.pulls.iter().map(|pull| pull.number.0).collect()
}

//! One repository with its pull requests, as GitHub would hold them. Nothing in here knows HTTP.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::told::Told;

/// What a new pull request looks like. `PullSpec::default()` is a plain one from the repository itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullSpec {
    pub title: String,
    pub body: Option<String>,
    pub author: String,
    /// None: a made-up one, different for each pull request.
    pub sha: Option<String>,
    /// None: `feature-N`.
    pub head_ref: Option<String>,
    pub base: String,
    pub draft: bool,
    pub labels: Vec<String>,
    /// `owner/name` of another repository that holds the branch.
    pub fork: Option<String>,
}

impl Default for PullSpec {
    fn default() -> Self {
        PullSpec {
            title: "A change".to_owned(),
            body: None,
            author: "alice".to_owned(),
            sha: None,
            head_ref: None,
            base: "main".to_owned(),
            draft: false,
            labels: Vec::new(),
            fork: None,
        }
    }
}

impl PullSpec {
    pub fn titled(title: &str) -> Self {
        PullSpec { title: title.to_owned(), ..PullSpec::default() }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Pull {
    pub number: u32,
    pub open: bool,
    pub merged: bool,
    pub title: String,
    pub body: Option<String>,
    pub author: Option<String>,
    pub sha: String,
    /// Commits that it had before: GitHub keeps them.
    pub former: Vec<String>,
    pub head_ref: String,
    /// None when the repository that held the branch is gone.
    pub head_repo: Option<HeadRepo>,
    pub base: String,
    pub draft: bool,
    pub labels: Vec<String>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub closed_at: Option<Timestamp>,
}

#[derive(Debug, Clone)]
pub(crate) enum HeadRepo {
    /// Follows the repository when it is renamed.
    Ours,
    Fork(String),
}

/// The time of the world. GitHub's stamps have whole seconds.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Clock {
    /// Stands still until it is told to move.
    Virtual(Timestamp),
    Real,
}

#[derive(Debug)]
pub struct World {
    pub(crate) owner: String,
    pub(crate) repo: String,
    /// Names that the repository had before; requests for them are redirected.
    pub(crate) former_names: Vec<String>,
    /// False: the token does not see the repository, which looks as if there were none.
    pub(crate) visible: bool,
    /// What a classic token may do; other tokens do not say.
    pub(crate) scopes: Option<String>,
    pub(crate) pulls: BTreeMap<u32, Pull>,
    pub(crate) clock: Clock,
    pub(crate) told: Told,
    last_number: u32,
    last_sha: u64,
}

pub(crate) const REPO_ID: u64 = 1_300_192;

impl World {
    pub(crate) fn new(owner: &str, repo: &str, clock: Clock) -> Self {
        World {
            owner: owner.to_owned(),
            repo: repo.to_owned(),
            former_names: Vec::new(),
            visible: true,
            scopes: None,
            pulls: BTreeMap::new(),
            clock,
            told: Told::default(),
            last_number: 0,
            last_sha: 0,
        }
    }

    pub fn now(&self) -> Timestamp {
        let now = match self.clock {
            Clock::Virtual(at) => at,
            Clock::Real => Timestamp::now(),
        };
        Timestamp::from_second(now.as_second()).expect("a whole second of a valid time is valid")
    }

    /// Moves the virtual clock on; a real one goes by itself.
    pub fn advance(&mut self, seconds: i64) {
        if let Clock::Virtual(at) = &mut self.clock {
            *at += SignedDuration::from_secs(seconds);
        }
    }

    /// Opens a pull request and returns its number.
    pub fn open(&mut self, spec: PullSpec) -> u32 {
        self.last_number += 1;
        let number = self.last_number;
        let now = self.now();
        let sha = spec.sha.unwrap_or_else(|| self.fresh_sha());
        let pull = Pull {
            number,
            open: true,
            merged: false,
            title: spec.title,
            body: spec.body,
            author: Some(spec.author),
            sha,
            former: Vec::new(),
            head_ref: spec.head_ref.unwrap_or(format!("feature-{number}")),
            head_repo: Some(spec.fork.map_or(HeadRepo::Ours, HeadRepo::Fork)),
            base: spec.base,
            draft: spec.draft,
            labels: spec.labels,
            created_at: now,
            updated_at: now,
            closed_at: None,
        };
        self.pulls.insert(number, pull);
        number
    }

    /// A commit id that was not given out before.
    pub fn fresh_sha(&mut self) -> String {
        self.last_sha += 1;
        let mut sha = String::new();
        let mut word = self.last_sha;
        while sha.len() < 40 {
            // SplitMix64: well spread, and the same in every run.
            word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = word;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            write!(sha, "{:016x}", mixed ^ (mixed >> 31)).expect("a String takes everything");
        }
        sha.truncate(40);
        sha
    }

    pub fn push(&mut self, number: u32, sha: &str) {
        self.touch(number, |pull, _| {
            let former = std::mem::replace(&mut pull.sha, sha.to_owned());
            pull.former.push(former);
        });
    }

    /// A push that becomes visible so many seconds after its own stamp, as with a replica that
    /// lags behind.
    pub fn push_late(&mut self, number: u32, sha: &str, seconds: i64) {
        let stamp = self.now() - SignedDuration::from_secs(seconds);
        let pull = self.pull_mut(number);
        pull.sha = sha.to_owned();
        pull.updated_at = stamp;
    }

    pub fn close(&mut self, number: u32) {
        self.touch(number, |pull, now| {
            pull.open = false;
            pull.closed_at = Some(now);
        });
    }

    pub fn reopen(&mut self, number: u32) {
        self.touch(number, |pull, _| {
            pull.open = true;
            pull.closed_at = None;
        });
    }

    pub fn merge(&mut self, number: u32) {
        self.touch(number, |pull, now| {
            pull.open = false;
            pull.merged = true;
            pull.closed_at = Some(now);
        });
    }

    pub fn retarget(&mut self, number: u32, base: &str) {
        self.touch(number, |pull, _| pull.base = base.to_owned());
    }

    pub fn retitle(&mut self, number: u32, title: &str) {
        self.touch(number, |pull, _| pull.title = title.to_owned());
    }

    pub fn set_body(&mut self, number: u32, body: Option<&str>) {
        self.touch(number, |pull, _| pull.body = body.map(str::to_owned));
    }

    pub fn set_draft(&mut self, number: u32, draft: bool) {
        self.touch(number, |pull, _| pull.draft = draft);
    }

    pub fn label(&mut self, number: u32, label: &str) {
        self.touch(number, |pull, _| pull.labels.push(label.to_owned()));
    }

    /// The author's account goes. GitHub does not count that as an update.
    pub fn delete_author(&mut self, number: u32) {
        self.pull_mut(number).author = None;
    }

    /// The repository that held the branch goes. No update either.
    pub fn delete_head_repo(&mut self, number: u32) {
        self.pull_mut(number).head_repo = None;
    }

    /// The pull request itself goes, as if it had never been.
    pub fn delete(&mut self, number: u32) {
        self.pulls.remove(&number);
    }

    /// The repository gets another name; its former one is redirected.
    pub fn rename_repo(&mut self, repo: &str) {
        let former = std::mem::replace(&mut self.repo, repo.to_owned());
        self.former_names.push(former);
    }

    pub fn set_scopes(&mut self, scopes: &str) {
        self.scopes = Some(scopes.to_owned());
    }

    pub fn set_visible(&mut self, visible: bool) {
        self.visible = visible;
    }

    pub fn contains(&self, number: u32) -> bool {
        self.pulls.contains_key(&number)
    }

    fn pull_mut(&mut self, number: u32) -> &mut Pull {
        self.pulls
            .get_mut(&number)
            .unwrap_or_else(|| panic!("the fake world has no pull request {number}"))
    }

    pub(super) fn touched(&mut self, number: u32) {
        self.touch(number, |_, _| {});
    }

    fn touch(&mut self, number: u32, change: impl FnOnce(&mut Pull, Timestamp)) {
        let now = self.now();
        let pull = self.pull_mut(number);
        change(pull, now);
        pull.updated_at = now;
    }

    pub(crate) fn full_name(&self) -> String {
        format!("{}/{}", self.owner, self.repo)
    }

    pub(crate) fn repo_json(&self, full_name: &str, fork: bool) -> Value {
        let (owner, name) = full_name.split_once('/').unwrap_or(("ghost", full_name));
        let id = if fork { 77_000_000 } else { REPO_ID };
        json!({
            "id": id, "name": name, "full_name": full_name, "private": !fork, "fork": fork,
            "owner": user_json(owner), "default_branch": "main",
            "permissions": { "admin": false, "push": true, "pull": true },
        })
    }

    pub(crate) fn pull_json(&self, pull: &Pull, url: &str) -> Value {
        let head_repo = pull.head_repo.as_ref().map(|repo| match repo {
            HeadRepo::Ours => self.repo_json(&self.full_name(), false),
            HeadRepo::Fork(full_name) => self.repo_json(full_name, true),
        });
        let head_owner = match &pull.head_repo {
            Some(HeadRepo::Fork(full_name)) => full_name.split('/').next().unwrap_or("ghost"),
            _ => &self.owner,
        };
        json!({
            "url": format!("{url}/repos/{}/pulls/{}", self.full_name(), pull.number),
            "id": 5_000_000 + u64::from(pull.number),
            "number": pull.number,
            "state": if pull.open { "open" } else { "closed" },
            "locked": false,
            "title": pull.title,
            "body": pull.body,
            "user": pull.author.as_deref().map(user_json),
            "labels": pull.labels.iter().enumerate().map(|(id, name)| json!({
                "id": id, "name": name, "color": "ededed", "default": false, "description": null,
            })).collect::<Vec<_>>(),
            "created_at": pull.created_at,
            "updated_at": pull.updated_at,
            "closed_at": pull.closed_at,
            "merged_at": pull.closed_at.filter(|_| pull.merged),
            "draft": pull.draft,
            "head": {
                "label": format!("{head_owner}:{}", pull.head_ref),
                "ref": pull.head_ref, "sha": pull.sha,
                "user": pull.head_repo.is_some().then(|| user_json(head_owner)),
                "repo": head_repo,
            },
            "base": {
                "label": format!("{}:{}", self.owner, pull.base),
                "ref": pull.base, "sha": "0".repeat(40),
                "user": user_json(&self.owner),
                "repo": self.repo_json(&self.full_name(), false),
            },
            "author_association": "CONTRIBUTOR",
        })
    }
}

fn user_json(login: &str) -> Value {
    json!({ "login": login, "id": login.len(), "type": "User", "site_admin": false })
}

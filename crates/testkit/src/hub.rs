//! The forge without HTTP: pull requests that tests change, read through the port.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use jiff::Timestamp;
use pullre::domain::{Login, PullNumber, PullRequest, PullState, Sha};
use pullre::ports::{Forge, ForgeError, KnownPulls, PullReading, ReadingMark};

use crate::fuse::Fuse;

#[derive(Debug, Default)]
struct Inner {
    pulls: BTreeMap<PullNumber, PullRequest>,
    pushes: u32,
    unreachable: bool,
}

/// The forge's side of the world. Clones are the same hub.
#[derive(Debug, Clone, Default)]
pub struct Hub(Arc<Mutex<Inner>>);

impl Hub {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Opens the next pull request.
    pub fn open(&self, author: &str, fork: bool, now: Timestamp) -> PullNumber {
        let mut inner = self.inner();
        let number = PullNumber(inner.pulls.len() as u32 + 1);
        let head = fresh_sha(&mut inner);
        let pull = PullRequest {
            number,
            state: PullState::Open,
            head,
            head_ref: format!("feature-{}", number.0),
            base_ref: "main".into(),
            title: format!("Feature {}", number.0),
            body: String::new(),
            author: Some(Login(author.into())),
            head_repo: Some(if fork { "stranger/app" } else { "octo/app" }.into()),
            is_fork: fork,
            is_draft: false,
            labels: Vec::new(),
            created_at: now,
            updated_at: now,
            closed_at: None,
        };
        inner.pulls.insert(number, pull);
        number
    }

    /// Changes a pull request, if it exists.
    fn change(
        &self,
        number: PullNumber,
        now: Timestamp,
        change: impl FnOnce(&mut PullRequest, Sha),
    ) {
        let mut inner = self.inner();
        let sha = fresh_sha(&mut inner);
        if let Some(pull) = inner.pulls.get_mut(&number) {
            change(pull, sha);
            pull.updated_at = now;
        }
    }

    pub fn push(&self, number: PullNumber, now: Timestamp) {
        self.change(number, now, |pull, sha| pull.head = sha);
    }

    pub fn close(&self, number: PullNumber, now: Timestamp) {
        self.change(number, now, |pull, _| {
            pull.state = PullState::Closed;
            pull.closed_at = Some(now);
        });
    }

    pub fn reopen(&self, number: PullNumber, now: Timestamp) {
        self.change(number, now, |pull, _| {
            pull.state = PullState::Open;
            pull.closed_at = None;
        });
    }

    pub fn set_unreachable(&self, unreachable: bool) {
        self.inner().unreachable = unreachable;
    }

    pub fn pulls(&self) -> Vec<PullRequest> {
        self.inner().pulls.values().cloned().collect()
    }

    pub fn seen_by(&self, fuse: Fuse) -> HubClient {
        HubClient { hub: self.clone(), fuse }
    }
}

fn fresh_sha(inner: &mut Inner) -> Sha {
    inner.pushes += 1;
    // Spread over the first digits too, since people are shown those.
    let digits = format!("{:08x}{:032x}", 0x9e37_79b9_u32.wrapping_mul(inner.pushes), inner.pushes);
    digits.parse().expect("40 hexadecimal digits")
}

/// The hub as one process sees it, which may die.
#[derive(Debug, Clone)]
pub struct HubClient {
    hub: Hub,
    fuse: Fuse,
}

impl Forge for HubClient {
    fn read_pulls(&self, known: &KnownPulls) -> Result<PullReading, ForgeError> {
        let inner = self.hub.inner();
        if !self.fuse.spend() || inner.unreachable {
            return Err(ForgeError::Unavailable("no route to the forge".into()));
        }
        let newest = inner.pulls.values().map(|pull| pull.updated_at).max();
        let changed = |pull: &&PullRequest| {
            pull.state == PullState::Open
                || known.open.contains(&pull.number)
                || known.watermark.is_some_and(|mark| pull.updated_at >= mark)
        };
        let mark = newest.filter(|newest| known.whole || known.watermark != Some(*newest));
        Ok(PullReading {
            pulls: inner.pulls.values().filter(changed).cloned().collect(),
            gone: known.open.iter().filter(|n| !inner.pulls.contains_key(n)).copied().collect(),
            mark: mark.map(|watermark| ReadingMark { watermark, whole: known.whole, etag: None }),
        })
    }

    fn remember(&self, _mark: &ReadingMark) -> Result<(), ForgeError> {
        Ok(())
    }
}

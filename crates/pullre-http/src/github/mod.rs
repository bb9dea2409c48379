//! Reading pull requests from GitHub's REST API, github.com or Enterprise.
//!
//! Two lists are read. The *updates* are all pull requests by time of change, newest first, down to
//! the watermark; the first page of them is all that an idle tick asks for, and usually a 304. The
//! *open list* is what a whole reading adds. Why nothing gets lost:
//!
//! - **Updates.** A pull request that changes while pages are read jumps to the front, where we have
//!   been already. So the watermark is the newest time on the *first* page: whatever jumped later
//!   has that time or a newer one, and the next reading goes below it by [`OVERLAP`], which also
//!   covers several changes in one second and replicas that lag behind.
//! - **Open list.** When one is closed, the later ones move up, and the first of the next page slips
//!   onto a page that was read. So a whole reading looks at the updates before and after. Unchanged
//!   (a free 304) proves that the list stood still. Otherwise what changed is taken from the
//!   updates, and if one was closed meanwhile, the open list is read again. Should that never end,
//!   the reading is handed out as one that is not whole, and is due again.
//! - **Missing ones.** Whatever is open in the store but absent from the open list is asked for by
//!   itself. As the updates are read after that, a repository that has become invisible is an
//!   error, not a repository whose pull requests are all gone.
//! - **304.** The validator is that of the first page, so it is kept only where the next reading
//!   would need no second one. It belongs to one watermark: see [`memory`].

mod ask;
mod auth;
mod look;
mod memory;
mod parse;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use pullre::config::GithubLogin;
use pullre::domain::{Invalid, Login, PullNumber, PullRequest, PullState};
use pullre::ports::{
    Comment, Find, Forge, ForgeError, Found, KnownPulls, Post, PostError, PullReading, RateLeft,
    ReadingMark,
};
use reqwest::Url;

use crate::probe::without_credentials;
use ask::{Answer, Asker, Page};
use auth::Credentials;
pub use look::Look;
use memory::Memory;
use parse::malformed;

/// How far below the watermark the updates are read again.
const OVERLAP: SignedDuration = SignedDuration::from_mins(1);
/// How often the open list is read again because it moved.
const MOST_PASSES: usize = 3;
/// 100,000 pull requests. More pages are a server that turns us in circles.
const MOST_PAGES: usize = 1000;

/// Where GitHub is and who asks.
#[derive(Debug, Clone)]
pub struct GitHubAccess {
    /// `https://api.github.com`, or `https://HOST/api/v3` for Enterprise.
    pub api_url: String,
    pub owner: String,
    pub repo: String,
    pub login: GithubLogin,
    /// Where ETags and rate limits are kept between processes.
    pub state_dir: PathBuf,
    pub timings: Timings,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timings {
    pub connect: Duration,
    /// From the first byte sent to the last one received.
    pub request: Duration,
    /// Before the second try, the third, ...
    pub pauses: Vec<Duration>,
}

impl Default for Timings {
    fn default() -> Timings {
        Timings {
            connect: Duration::from_secs(5),
            request: Duration::from_secs(20),
            pauses: vec![Duration::from_millis(500), Duration::from_secs(2)],
        }
    }
}

#[derive(Debug)]
pub struct GitHub {
    /// `owner/repo` as configured.
    full_name: String,
    repo_url: Url,
    pulls_url: Url,
    updates_url: Url,
    open_url: Url,
    asker: Asker,
    memory: Memory,
}

/// What was read so far; what was read later wins, unless it is older.
#[derive(Default)]
struct Seen(BTreeMap<PullNumber, PullRequest>);

impl Seen {
    fn add(&mut self, pulls: impl IntoIterator<Item = PullRequest>) {
        for pull in pulls {
            match self.0.get(&pull.number) {
                Some(older) if older.updated_at > pull.updated_at => {}
                _ => drop(self.0.insert(pull.number, pull)),
            }
        }
    }
}

/// One list, page by page.
struct Pages {
    pages: Vec<Vec<PullRequest>>,
    /// There is more than one page, read or not.
    several: bool,
    /// The first page's validator.
    etag: Option<String>,
}

/// The updates since some time.
struct Updates {
    pulls: Vec<PullRequest>,
    /// The newest time on the first page.
    newest: Option<Timestamp>,
    /// The oldest one there, if there is a second page.
    reaches: Option<Timestamp>,
    etag: Option<String>,
}

impl Updates {
    fn mark(&self, watermark: Timestamp) -> ReadingMark {
        let one_page_will_do = self.reaches.is_none_or(|oldest| oldest < below(watermark));
        ReadingMark {
            watermark,
            whole: false,
            etag: self.etag.clone().filter(|_| one_page_will_do),
        }
    }
}

fn below(watermark: Timestamp) -> Timestamp {
    watermark.checked_sub(OVERLAP).unwrap_or(Timestamp::MIN)
}

impl GitHub {
    /// Checks what it is given; asks nothing yet.
    pub fn new(access: GitHubAccess) -> Result<GitHub, Invalid> {
        const API_URL: &str = "the base URL of GitHub's API (http or https, no password, no query)";
        let bad_url = || Invalid::new(&without_credentials(&access.api_url), API_URL);
        let base = Url::parse(access.api_url.trim_end_matches('/')).map_err(|_| bad_url())?;
        let plain = base.username().is_empty()
            && base.password().is_none()
            && base.query().is_none()
            && base.fragment().is_none();
        if !plain || !matches!(base.scheme(), "http" | "https") || base.host().is_none() {
            return Err(bad_url());
        }
        for name in [&access.owner, &access.repo] {
            let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            let dots = matches!(name.as_str(), "" | "." | "..");
            if dots || !name.chars().all(good) {
                return Err(Invalid::new(name, "a name of an owner or a repository"));
            }
        }
        let credentials = Credentials::new(&access.login)?;

        let full_name = format!("{}/{}", access.owner, access.repo);
        let at = |query: &str| {
            let base = base.as_str().trim_end_matches('/');
            Url::parse(&format!("{base}/repos/{full_name}{query}")).map_err(|_| bad_url())
        };
        let updates_url = at("/pulls?state=all&sort=updated&direction=desc&per_page=100")?;
        Ok(GitHub {
            repo_url: at("")?,
            pulls_url: at("/pulls")?,
            // Oldest first: new ones go to the end and move nothing.
            open_url: at("/pulls?state=open&sort=created&direction=asc&per_page=100")?,
            memory: Memory::new(&access.state_dir, updates_url.as_str(), &credentials.name()),
            updates_url,
            asker: Asker::new(base, credentials, access.timings),
            full_name,
        })
    }

    /// Until when GitHub wants to be left alone, as far as any tick has heard.
    pub fn limited_until(&self, now: Timestamp) -> Option<Timestamp> {
        self.memory.limited_until(now)
    }

    /// What its rate limit still allows, as far as any tick has heard.
    pub fn rate_left(&self, now: Timestamp) -> Option<RateLeft> {
        self.memory.rate_left(now)
    }

    fn page(&self, url: &Url, etag: Option<&str>) -> Result<Option<Page>, ForgeError> {
        match self.asker.get(url, etag, &self.memory)? {
            Answer::Page(page) => Ok(Some(page)),
            Answer::NotModified => Ok(None),
            Answer::Absent => Err(ForgeError::NoRepository(self.full_name.clone())),
        }
    }

    /// Every page from `first` on, until `enough` says so of a page. None: the first one is not
    /// modified.
    fn pages(
        &self,
        first: &Url,
        etag: Option<&str>,
        mut enough: impl FnMut(&[PullRequest]) -> bool,
    ) -> Result<Option<Pages>, ForgeError> {
        let Some(page) = self.page(first, etag)? else {
            return Ok(None);
        };
        let mut read =
            Pages { pages: Vec::new(), several: page.next.is_some(), etag: page.etag.clone() };
        let mut at = page;
        loop {
            let pulls = parse::pulls(&at.body, &self.full_name)?;
            let done = enough(&pulls);
            read.pages.push(pulls);
            let Some(next) = at.next.filter(|_| !done) else {
                return Ok(Some(read));
            };
            if read.pages.len() == MOST_PAGES {
                return Err(malformed("more than 1000 pages of pull requests"));
            }
            at = self.page(&next, None)?.ok_or_else(|| malformed("an unasked 304"))?;
        }
    }

    /// What changed since `watermark`, or, without one, since just before the newest change.
    fn updates(
        &self,
        watermark: Option<Timestamp>,
        etag: Option<&str>,
        known: &KnownPulls,
    ) -> Result<Option<Updates>, ForgeError> {
        let enough = |pulls: &[PullRequest]| match watermark.map(below) {
            Some(floor) => pulls.iter().any(|pull| pull.updated_at < floor),
            None => true,
        };
        let Some(read) = self.pages(&self.updates_url, etag, enough)? else {
            return Ok(None);
        };
        let times = || read.pages.iter().take(1).flatten().map(|pull| pull.updated_at);
        let newest = times().max();
        let reaches = times().min().filter(|_| read.several);
        let floor = watermark.or(newest).map_or(Timestamp::MIN, below);
        let pulls = read.pages.into_iter().flatten().filter(|pull| {
            // Some changes leave `updated_at` alone, as when an account goes: what the page shows
            // anyway of older ones that matter is taken too.
            let matters = pull.state == PullState::Open || known.open.contains(&pull.number);
            pull.updated_at >= floor || matters
        });
        Ok(Some(Updates { pulls: pulls.collect(), newest, reaches, etag: read.etag }))
    }

    fn read_updates(
        &self,
        watermark: Timestamp,
        known: &KnownPulls,
    ) -> Result<PullReading, ForgeError> {
        let etag = self.memory.etag(watermark);
        let Some(updates) = self.updates(Some(watermark), etag.as_deref(), known)? else {
            return Ok(PullReading::default());
        };
        let mark = updates.mark(updates.newest.map_or(watermark, |new| new.max(watermark)));
        let mut seen = Seen::default();
        seen.add(updates.pulls);
        Ok(PullReading {
            pulls: seen.0.into_values().collect(),
            gone: Vec::new(),
            mark: Some(mark),
        })
    }

    fn read_whole(&self, known: &KnownPulls) -> Result<PullReading, ForgeError> {
        let unasked = || malformed("an unasked 304");
        let mut seen = Seen::default();
        let mut gone = BTreeSet::new();
        let before = self.updates(known.watermark, None, known)?.ok_or_else(unasked)?;
        // Not the greater one of both: a watermark that lies in the future is put right here.
        // An empty repository has nothing before the epoch, so the next reading starts there.
        let watermark = before.newest.or(known.watermark);
        let mut mark = before.mark(watermark.unwrap_or(Timestamp::UNIX_EPOCH));
        let mut closed = closed_ones(&before.pulls);
        seen.add(before.pulls);

        for _ in 0..MOST_PASSES {
            let open = self.pages(&self.open_url, None, |_| false)?.ok_or_else(unasked)?;
            seen.add(open.pages.into_iter().flatten());
            for number in &known.open {
                if !seen.0.contains_key(number) && !gone.contains(number) {
                    match self.single(*number)? {
                        Some(pull) => seen.add([pull]),
                        None => drop(gone.insert(*number)),
                    }
                }
            }

            let since = mark.watermark;
            let mut moved = false;
            if let Some(after) = self.updates(Some(since), mark.etag.as_deref(), known)? {
                let closed_now = closed_ones(&after.pulls);
                let newly = |one| !closed.contains(one) && one.1 >= Some(below(since));
                moved = open.several && closed_now.iter().any(newly);
                closed = closed_now;
                mark = after.mark(after.newest.map_or(since, |new| new.max(since)));
                seen.add(after.pulls);
            }
            mark.whole = !moved;
            if !moved {
                break;
            }
        }
        gone.retain(|number| !seen.0.contains_key(number));
        Ok(PullReading {
            pulls: seen.0.into_values().collect(),
            gone: gone.into_iter().collect(),
            mark: Some(mark),
        })
    }

    /// None: there is no such pull request (any more).
    fn single(&self, number: PullNumber) -> Result<Option<PullRequest>, ForgeError> {
        let mut url = self.pulls_url.clone();
        url.set_path(&format!("{}/{}", url.path(), number.0));
        match self.asker.get(&url, None, &self.memory)? {
            Answer::Page(page) => parse::pull(&page.body, number, &self.full_name).map(Some),
            Answer::Absent => Ok(None),
            Answer::NotModified => Err(malformed("an unasked 304")),
        }
    }
}

fn closed_ones(pulls: &[PullRequest]) -> BTreeSet<(PullNumber, Option<Timestamp>)> {
    let closed = pulls.iter().filter(|pull| pull.state == PullState::Closed);
    closed.map(|pull| (pull.number, pull.closed_at)).collect()
}

impl Forge for GitHub {
    fn read_pulls(&self, known: &KnownPulls) -> Result<PullReading, ForgeError> {
        if let Some(until) = self.memory.limited_until(Timestamp::now()) {
            return Err(ForgeError::RateLimited { until });
        }
        match known.watermark {
            Some(watermark) if !known.whole => self.read_updates(watermark, known),
            _ => self.read_whole(known),
        }
    }

    fn remember(&self, mark: &ReadingMark) -> Result<(), ForgeError> {
        self.memory.keep_etag(mark).map_err(|err| ForgeError::Local(err.to_string()))
    }

    fn credential(&self) -> String {
        self.asker.credentials.name()
    }

    fn find(&self, find: &Find) -> Result<Option<Found>, PostError> {
        self.search(find)
    }

    fn post(&self, post: &Post) -> Result<i64, PostError> {
        self.write(post)
    }

    fn read_comments(&self, since: Timestamp) -> Result<Vec<Comment>, ForgeError> {
        self.comments(since)
    }

    fn may_write(&self, login: &Login) -> Result<bool, PostError> {
        self.permits(login)
    }
}

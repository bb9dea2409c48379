//! Pages that change while somebody looks. One task asks the database for all of them together,
//! and only as long as somebody looks; each page is told that it is old, and fetches itself. Where
//! only a log has grown, it is told what to add.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hasher};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Response, StatusCode};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use jiff::Timestamp;
use pullre::condition::Policy;
use pullre::domain::PullNumber;
use pullre::facts::{Facts, Pull};
use pullre::ops::OpsError;
use pullre::stage::Standings;
use pullre::status::{self, Environment, ServerLine};
use pullre::store::{EnvironmentPulse, Store};
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use crate::log::Log;
use crate::machines::Known;
use crate::pages::{environment, environments};
use crate::serve::ended;
use crate::{Console, answer};

const STREAMS: usize = 300;

/// How often live pages are looked after.
#[derive(Debug, Clone, Copy)]
pub struct Rhythm {
    /// Between two looks at the database.
    pub look: Duration,
    /// So that proxies keep the connection, and that we see who went away.
    pub sign_of_life: Duration,
    /// Of one connection. The browser comes again by itself, and shows its password again.
    pub longest: Duration,
}

impl Default for Rhythm {
    fn default() -> Rhythm {
        Rhythm {
            look: Duration::from_secs(2),
            sign_of_life: Duration::from_secs(20),
            longest: Duration::from_secs(15 * 60),
        }
    }
}

/// A page that somebody looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    Environments,
    Servers,
    Environment(PullNumber),
}

/// A page as the last look saw it.
#[derive(Debug, Clone)]
struct Seen {
    /// Of all but the log.
    digest: String,
    log: Option<Arc<Log>>,
}

type All = BTreeMap<Subject, Seen>;

#[derive(Debug)]
pub struct Live {
    watched: Mutex<BTreeMap<Subject, usize>>,
    seen: watch::Sender<Arc<All>>,
    looking: Mutex<bool>,
}

impl Default for Live {
    fn default() -> Live {
        Live {
            watched: Mutex::default(),
            seen: watch::Sender::new(Arc::default()),
            looking: Mutex::default(),
        }
    }
}

/// Feeds a digest what is written to it.
struct Digest(DefaultHasher);

impl std::io::Write for Digest {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn digest(shown: &impl Serialize) -> String {
    let mut digest = Digest(DefaultHasher::new());
    // What cannot be written as JSON has no digest, and counts as never changed.
    let _ = serde_json::to_writer(&mut digest, shown);
    format!("{:016x}", digest.0.finish())
}

/// All that the list of environments shows.
pub fn environments_digest(standings: &Standings<'_>, all: &[Environment]) -> String {
    let facts = standings.facts;
    let times: Vec<_> = all.iter().map(|e| environments::times(e, facts)).collect();
    let pool = environments::pool(standings);
    digest(&(&facts.paused, &facts.refused, all, times, pool, &facts.unreadable))
}

/// All that the list of servers shows but the signs of life and the measured values that come with
/// them: a page that fetched itself for each of those would do nothing else. That a disk is nearly
/// full is in the note.
pub fn servers_digest(
    facts: &Facts,
    lines: &[ServerLine],
    hidden: &[String],
    known: &Known,
) -> String {
    let lines: Vec<_> = facts
        .servers
        .values()
        .zip(lines)
        .map(|(server, l)| {
            let switching = server.switching.as_ref().map_err(ToString::to_string);
            let switching =
                switching.map(|s| s.is_set().then(|| (s.start, s.stop, s.weekdays.to_string())));
            let named = (&l.name, &l.instance_id, l.state, l.pull, &l.schema, &l.url, l.in_pool);
            (named, &l.agent_version, &l.note, &server.trouble, server.hold.is_some(), switching)
        })
        .collect();
    digest(&(lines, hidden, known.fetched_at, &known.error))
}

/// All that one environment's page shows but the log of the step at work.
pub fn environment_digest(
    environment: &Environment,
    pull: &Pull,
    facts: &Facts,
    pulse: &EnvironmentPulse,
) -> String {
    // Its deployments and what happened to it may name any of them.
    let servers: Vec<_> =
        facts.servers.values().map(|server| (server.id.0, &server.name)).collect();
    let branch = (&pull.request.head_ref, pull.request.is_fork);
    let buttons =
        (pull.hold.is_some(), &pull.stopped, environment::keeps_previous(environment, facts));
    let all = (&facts.paused, &facts.refused);
    digest(&(environment, branch, buttons, all, servers, &pulse.rest))
}

/// Somebody looks, as long as this lives.
struct Look {
    console: Arc<Console>,
    subject: Subject,
}

impl Drop for Look {
    fn drop(&mut self) {
        let mut watched = self.console.live.watched();
        if let Some(count) = watched.get_mut(&self.subject) {
            *count -= 1;
            if *count == 0 {
                watched.remove(&self.subject);
            }
        }
    }
}

impl Live {
    fn watched(&self) -> std::sync::MutexGuard<'_, BTreeMap<Subject, usize>> {
        self.watched.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn looking(&self) -> std::sync::MutexGuard<'_, bool> {
        self.looking.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// Looks on behalf of all pages, until nobody watches any more.
async fn look(console: Arc<Console>) {
    loop {
        let subjects: BTreeSet<Subject> = console.live.watched().keys().copied().collect();
        if subjects.is_empty() {
            let mut looking = console.live.looking();
            // Somebody may just have come: they see that nobody is looking, or we see them.
            if console.live.watched().is_empty() {
                *looking = false;
                console.live.seen.send_replace(Arc::default());
                return;
            }
            continue;
        }
        let policy = console.site.policy.clone();
        let known = subjects.contains(&Subject::Servers).then(|| console.machines.look());
        let before = console.live.seen.borrow().clone();
        let read = console
            .store(move |store| see(store, &subjects, &before, &policy, &known.unwrap_or_default()))
            .await;
        match read {
            Ok(seen) => drop(console.live.seen.send_replace(Arc::new(seen))),
            // The pages say it when they are loaded again.
            Err(e) => tracing::debug!("live pages wait: {e}"),
        }
        sleep(console.site.rhythm.look).await;
    }
}

fn see(
    store: &mut Store,
    subjects: &BTreeSet<Subject>,
    before: &All,
    policy: &Policy,
    known: &Known,
) -> Result<All, OpsError> {
    let (facts, now) = (store.facts_without_bodies()?, Timestamp::now());
    let standings = Standings::new(&facts, policy, now);
    let mut all = All::new();
    for subject in subjects {
        let mut log = None;
        let digest = match subject {
            Subject::Environments => {
                environments_digest(&standings, &status::environments(&standings))
            }
            Subject::Servers => {
                let hidden = store.hidden_servers()?;
                servers_digest(&facts, &status::servers(&standings), &hidden, known)
            }
            Subject::Environment(number) => {
                let closed;
                let pull = match facts.pulls.get(number) {
                    Some(pull) => pull,
                    None => {
                        let Some(pull) = store.pull(*number)? else { continue };
                        closed = pull;
                        &closed
                    }
                };
                let environment = status::environment(pull, &standings);
                let pulse = store.pulse_of(*number)?;
                let known = before.get(subject).and_then(|seen| seen.log.as_ref());
                log = pulse.log.as_ref().filter(|log| log.is_shown()).map(|log| match known {
                    Some(known) if known.shows(log) => known.clone(),
                    _ => Arc::new(Log::new(log, known.map(AsRef::as_ref))),
                });
                environment_digest(&environment, pull, &facts, &pulse)
            }
        };
        all.insert(*subject, Seen { digest, log });
    }
    Ok(all)
}

/// What a page shows, as its address of news says.
pub struct Shows {
    pub digest: String,
    /// The version of the log that may grow; empty where there is none.
    pub log: String,
}

/// Server-sent events: `changed` as soon as the page is not what it was when `shows` was made, and
/// `log` with what to add where that alone is new.
pub fn stream(
    console: Arc<Console>,
    subject: Subject,
    shows: Shows,
    stopped: watch::Receiver<bool>,
) -> Response<Body> {
    {
        let mut watched = console.live.watched();
        if watched.values().sum::<usize>() >= STREAMS {
            return answer::text(StatusCode::TOO_MANY_REQUESTS, "too many live pages are open\n");
        }
        *watched.entry(subject).or_default() += 1;
    }
    let look_at = Look { console: console.clone(), subject };
    let mut seen = console.live.seen.subscribe();
    // What was sent before is of others, or old.
    seen.mark_unchanged();
    let mut looking = console.live.looking();
    if !*looking {
        *looking = true;
        tokio::spawn(look(console.clone()));
    }
    drop(looking);
    let rhythm = console.site.rhythm;
    let page = Page {
        look: look_at,
        seen,
        stopped,
        shows,
        end: Instant::now() + rhythm.longest,
        next_sign: Instant::now() + rhythm.sign_of_life,
        sign_of_life: rhythm.sign_of_life,
    };
    let hello = async { Ok::<_, std::io::Error>(Bytes::from_static(b"retry: 5000\n\n")) };
    let events = stream::unfold(page, |mut page| async move {
        let piece = page.next().await?;
        Some((Ok(piece), page))
    });
    let events = stream::once(hello).chain(events);
    let mut response =
        answer::typed(StatusCode::OK, "text/event-stream", Body::from_stream(events));
    // nginx keeps what is small else, until much has come together.
    let unbuffered = HeaderValue::from_static("no");
    response.headers_mut().insert(HeaderName::from_static("x-accel-buffering"), unbuffered);
    response
}

/// A page that listens.
struct Page {
    look: Look,
    seen: watch::Receiver<Arc<All>>,
    stopped: watch::Receiver<bool>,
    shows: Shows,
    /// Moments, not pauses: the looks come more often than either, and must not put them off.
    end: Instant,
    next_sign: Instant,
    sign_of_life: Duration,
}

impl Page {
    /// What it is told next; None at its end.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            tokio::select! {
                biased;
                () = ended(&mut self.stopped) => return None,
                () = sleep_until(self.end) => return None,
                () = sleep_until(self.next_sign) => {
                    self.next_sign = Instant::now() + self.sign_of_life;
                    return Some(Bytes::from_static(b": alive\n\n"));
                }
                // Comes with each look, changed or not: whoever began to listen just now may be old.
                changed = self.seen.changed() => {
                    changed.ok()?;
                    let now = self.seen.borrow_and_update().get(&self.look.subject).cloned();
                    if let Some(news) = now.and_then(|now| self.shows.news(now)) {
                        return Some(news);
                    }
                }
            }
        }
    }
}

impl Shows {
    /// What a page is told that shows this; it shows what was seen from then on.
    fn news(&mut self, seen: Seen) -> Option<Bytes> {
        if seen.digest != self.digest {
            let event = format!("event: changed\ndata: {}\n\n", seen.digest);
            self.digest = seen.digest;
            self.log = seen.log.map(|log| log.version.clone()).unwrap_or_default();
            return Some(Bytes::from(event));
        }
        let log = seen.log.filter(|log| log.version != self.log)?;
        let news = log.since(&self.log);
        self.log.clone_from(&log.version);
        Some(news)
    }
}

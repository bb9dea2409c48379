//! What is to be said now: what shall be seen, less what was said. Pure.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;

use super::show::{Shown, View, mark, show};
use super::{ADOPTED, Key, Kind, LastSaid, Refusal, State, digest, markdown};
use crate::condition::{hold, pause_after};
use crate::domain::{PullNumber, PullState, Sha};
use crate::facts::Pull;
use crate::ports::{CheckRun, CheckState, CommitStatus, DeploymentStatus};
use crate::words;

/// What was refused is asked again after this: whoever has permitted it meanwhile waits no longer.
const REFUSED_FOR: Duration = Duration::from_secs(3600);

/// One thing to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saying {
    pub key: Key,
    pub state: State,
    pub what: What,
    pub digest: String,
    /// After it nothing more is to be said.
    pub settles: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum What {
    Check(Box<CheckRun>),
    Status {
        head: Sha,
        status: CommitStatus,
    },
    Comment(String),
    Deployment {
        head: Sha,
        environment: String,
        status: DeploymentStatus,
    },
    /// Nothing: only the record is closed.
    Settle,
}

impl fmt::Display for Saying {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Key { number, kind, .. } = &self.key;
        write!(f, "{number} {kind}: {}", self.state.as_str())?;
        match &self.what {
            What::Check(run) => write!(f, ", {}", run.title),
            What::Status { status, .. } => write!(f, ", {}", status.description),
            What::Deployment { environment, .. } => write!(f, ", {environment}"),
            What::Comment(_) | What::Settle => Ok(()),
        }
    }
}

impl Saying {
    /// Whether a merge may wait for it.
    pub(super) fn is_urgent(&self) -> bool {
        self.rank().0 <= 1
    }

    /// The smaller, the sooner: what a merge may wait for goes first.
    fn rank(&self) -> (u8, PullNumber) {
        let class = match (self.key.kind, self.state) {
            (Kind::Check | Kind::Status, State::Success | State::Failure) => 0,
            (Kind::Check | Kind::Status, State::Neutral | State::Cancelled) => 1,
            (Kind::Check | Kind::Status, State::InProgress) => 2,
            (Kind::Check | Kind::Status, State::Queued | State::Held) => 3,
            (Kind::Comment, _) => 4,
            (Kind::Deployment, _) => 5,
        };
        (class, self.key.number)
    }
}

/// Whether an interface is left alone for now.
pub fn is_refused(refusal: Option<&Refusal>, credential: &str, now: Timestamp) -> bool {
    refusal.is_some_and(|refusal| {
        refusal.credential == credential && words::between(refusal.at, now) < REFUSED_FOR
    })
}

/// Everything that is to be said now, the most important first.
pub fn plan(view: &View<'_>, credential: &str) -> Vec<Saying> {
    planned(view, credential, None)
}

/// The same of one pull request alone.
pub fn plan_one(view: &View<'_>, credential: &str, number: PullNumber) -> Vec<Saying> {
    planned(view, credential, Some(number))
}

fn planned(view: &View<'_>, credential: &str, only: Option<PullNumber>) -> Vec<Saying> {
    let planner = Planner { view, credential, only, sayings: Vec::new() };
    let mut sayings = planner.all();
    sayings.sort_by_key(Saying::rank);
    sayings
}

struct Planner<'a> {
    view: &'a View<'a>,
    credential: &'a str,
    only: Option<PullNumber>,
    sayings: Vec<Saying>,
}

impl Planner<'_> {
    fn all(mut self) -> Vec<Saying> {
        let view = self.view;
        for pull in view.facts.pulls.values().filter(|p| p.request.state == PullState::Open) {
            if self.is_left_out(pull.request.number) {
                continue;
            }
            if let Some(shown) = show(pull, view) {
                self.of_open(pull, &shown);
            }
        }
        self.what_is_over();
        self.sayings
    }

    fn is_left_out(&self, number: PullNumber) -> bool {
        self.only.is_some_and(|only| only != number)
    }

    fn refuses(&self, kind: Kind) -> bool {
        is_refused(self.view.told.refusals.get(&kind), self.credential, self.view.now)
    }

    fn of_open(&mut self, pull: &Pull, shown: &Shown) {
        let (number, head) = (pull.request.number, &pull.request.head);
        let key = |kind, sha: &str| Key { number, kind, sha: sha.to_owned() };
        let settings = self.view.settings;
        if !self.refuses(Kind::Check) {
            let run = self.check(number, head, shown);
            let what = What::Check(Box::new(run));
            self.propose(key(Kind::Check, head.as_str()), shown.state, what);
        } else if !self.refuses(Kind::Status) {
            let status = self.status(number, head, shown);
            let what = What::Status { head: head.clone(), status };
            self.propose(key(Kind::Status, head.as_str()), shown.state, what);
        }
        // Said before check runs were permitted: it stands beside the check run, and must not lie.
        let status = key(Kind::Status, head.as_str());
        let posted = self.view.told.said.get(&status).and_then(|said| said.state);
        let stands = posted.is_some_and(|state| {
            is_open_status(state) || state.of_status() != shown.state.of_status()
        });
        if stands && !self.refuses(Kind::Check) && !self.refuses(Kind::Status) {
            let words = self.status(number, head, shown);
            let what = What::Status { head: head.clone(), status: words };
            self.propose(status, shown.state, what);
        }
        let comment = key(Kind::Comment, "");
        let may_comment = settings.comment && !self.refuses(Kind::Comment);
        let is_there = self.view.told.said.get(&comment).is_some_and(|said| said.id.is_some());
        if may_comment && (shown.comments || is_there) {
            self.propose(comment, shown.state, What::Comment(shown.comment.clone()));
        }
        if settings.deployments && !self.refuses(Kind::Deployment) {
            self.deployment(key(Kind::Deployment, head.as_str()), head, shown);
        }
    }

    fn check(&self, number: PullNumber, head: &Sha, shown: &Shown) -> CheckRun {
        let settings = self.view.settings;
        let key = Key { number, kind: Kind::Check, sha: head.to_string() };
        let said = self.view.told.said.get(&key);
        let concluded = said.filter(|said| said.state.is_some_and(State::has_ended));
        let concluded = concluded.and_then(|said| said.said_at);
        // What was begun may be there, and completed.
        let last = concluded.max(said.and_then(|said| said.begun_at));
        // GitHub goes by the moment of completion: what became true again after something else was
        // said is not as old as its deployment. Where none is sent, GitHub takes its own.
        let dated = |at: &Timestamp| last < Some(*at);
        let ended = shown.ended.filter(dated);
        CheckRun {
            name: settings.check_name.clone(),
            head: head.clone(),
            external_id: external_id(number, head.as_str()),
            state: shown.state.of_check(),
            title: shown.title.clone(),
            summary: shown.summary.clone(),
            text: shown.text.clone(),
            details_url: shown.url.clone().or_else(|| settings.page(number)),
            started_at: shown.began.filter(|_| ended.is_some()),
            completed_at: ended,
        }
    }

    fn status(&self, number: PullNumber, head: &Sha, shown: &Shown) -> CommitStatus {
        let name = &self.view.settings.check_name;
        // A commit has one status of a name: where it is the head of several, each has its own.
        let context = match self.view.first_of(head) {
            Some(first) if first != number => format!("{name} ({number})"),
            _ => name.clone(),
        };
        let url = shown.url.clone().or_else(|| self.view.settings.page(number));
        self.status_of(context, shown.state, &shown.title, url)
    }

    fn status_of(
        &self,
        context: String,
        state: State,
        title: &str,
        target_url: Option<String>,
    ) -> CommitStatus {
        CommitStatus {
            context,
            state: state.of_status(),
            description: markdown::shortened(title, 140),
            target_url,
        }
    }

    fn deployment(&mut self, key: Key, head: &Sha, shown: &Shown) {
        let before = self.view.told.said.get(&key).and_then(|said| said.state);
        let state = match shown.state {
            State::InProgress | State::Success | State::Failure if shown.deploys => shown.state,
            // What a person holds is as it was, and so is what keeps its server for the grace.
            State::Held => return,
            State::Neutral if shown.deploys => return,
            _ if before.is_some_and(|state| state != State::Cancelled) => State::Cancelled,
            _ => return,
        };
        let what = deployment(key.number, head, state, &shown.title, shown.url.clone());
        self.propose(key, state, what);
    }

    /// What is still open of former heads, and of pull requests that are closed.
    fn what_is_over(&mut self) {
        let (facts, told) = (self.view.facts, self.view.told);
        for (key, said) in told.said.iter().filter(|(_, said)| !said.settled) {
            let pull = facts.pulls.get(&key.number);
            let open = pull.filter(|pull| pull.request.state == PullState::Open);
            // A row that GitHub has not described yet, or one of nonsense: nothing is known of it.
            let unknown = match pull {
                Some(pull) => !pull.described,
                None => !told.closed.contains_key(&key.number),
            };
            if unknown
                || self.is_left_out(key.number)
                || open.is_some_and(|pull| key.sha == pull.request.head.as_str())
            {
                continue;
            }
            match key.kind {
                Kind::Deployment if self.is_served(key) => {}
                Kind::Comment if open.is_none() => self.last_comment(key, said),
                Kind::Comment => {}
                Kind::Check | Kind::Status | Kind::Deployment => self.last_word(key, said, open),
            }
        }
    }

    /// Whether this commit goes on being served: by a server that is held, or until a newer one can
    /// be deployed.
    fn is_served(&self, key: &Key) -> bool {
        let facts = self.view.facts;
        let Some(pull) = facts.pulls.get(&key.number) else { return false };
        let server = facts.assignments.get(&key.number);
        let Some(server) = server.and_then(|a| facts.servers.get(&a.server)) else { return false };
        let stays = pull.request.state == PullState::Open
            || hold(pull, Some(server), self.view.now).is_some();
        let app = server.app.as_ref();
        stays && app.is_some_and(|app| app.pull == key.number && app.sha.as_str() == key.sha)
    }

    fn last_comment(&mut self, key: &Key, said: &LastSaid) {
        let (facts, told) = (self.view.facts, self.view.told);
        let pull = facts.pulls.get(&key.number).or_else(|| told.closed.get(&key.number));
        let shown = pull.and_then(|pull| show(pull, self.view));
        // One of which nothing is recorded may be there.
        let is_there = said.id.is_some() || said.begun_at.is_some() || said.state.is_none();
        match shown {
            Some(_) if is_there && self.view.settings.comment && self.refuses(key.kind) => {
                self.wait(key, said);
            }
            Some(shown) if is_there && self.view.settings.comment => {
                if !shown.is_over {
                    return self.propose(key.clone(), State::Held, What::Comment(shown.comment));
                }
                self.propose_last(key.clone(), State::Cancelled, What::Comment(shown.comment));
            }
            _ => self.settle(key),
        }
    }

    /// What is there says its last word when it is permitted again.
    fn wait(&mut self, key: &Key, said: &LastSaid) {
        if !is_known(said) {
            self.settle(key);
        }
    }

    fn last_word(&mut self, key: &Key, said: &LastSaid, open: Option<&Pull>) {
        let Ok(head) = key.sha.parse::<Sha>() else { return self.settle(key) };
        let over = match key.kind {
            Kind::Deployment => said.state != Some(State::Cancelled),
            Kind::Status => said.state.is_none_or(is_open_status),
            _ => said.state.is_none_or(|state| !state.has_ended()),
        };
        if !over && said.begun_at.is_none() {
            return self.settle(key);
        }
        if self.refuses(key.kind) {
            return self.wait(key, said);
        }
        let (title, why) = match open {
            Some(pull) => {
                let newer = pull.request.head.short();
                let why = format!("{} has a new head commit, {newer}.", key.number);
                (format!("Superseded by {newer}"), why)
            }
            None => {
                ("Closed".to_owned(), format!("{} was closed before it was ready.", key.number))
            }
        };
        let what = match key.kind {
            Kind::Status => {
                // It is what another pull request says of the same commit now.
                if self.view.first_of(&head).is_some() {
                    return self.settle(key);
                }
                let settings = self.view.settings;
                let (name, page) = (settings.check_name.clone(), settings.page(key.number));
                let status = self.status_of(name, State::Cancelled, &title, page);
                What::Status { head, status }
            }
            Kind::Deployment => deployment(key.number, &head, State::Cancelled, &title, None),
            _ => What::Check(Box::new(CheckRun {
                name: self.view.settings.check_name.clone(),
                external_id: external_id(key.number, head.as_str()),
                head,
                state: CheckState::Cancelled,
                title,
                summary: why,
                text: None,
                details_url: self.view.settings.page(key.number),
                started_at: None,
                completed_at: None,
            })),
        };
        self.propose_last(key.clone(), State::Cancelled, what);
    }

    /// Whether the server that something was said of is the environment's no more.
    fn is_lost(&self, number: PullNumber, said: &LastSaid) -> bool {
        match self.view.facts.assignments.get(&number) {
            None => true,
            Some(assignment) => said.said_at.is_some_and(|at| at < assignment.assigned_at),
        }
    }

    fn settle(&mut self, key: &Key) {
        let state = State::Cancelled;
        let (what, digest) = (What::Settle, String::new());
        self.sayings.push(Saying { key: key.clone(), state, what, digest, settles: true });
    }

    fn propose(&mut self, key: Key, state: State, what: What) {
        self.propose_it(key, state, what, false);
    }

    fn propose_last(&mut self, key: Key, state: State, what: What) {
        self.propose_it(key, state, what, true);
    }

    fn propose_it(&mut self, key: Key, state: State, what: What, settles: bool) {
        let digest = digest_of(&what);
        let saying = Saying { key, state, what, digest, settles };
        if let Some(said) = self.view.told.said.get(&saying.key) {
            let is_all = said.begun_at.is_none();
            if is_all && said.digest.as_ref() == Some(&saying.digest) {
                if settles {
                    self.settle(&saying.key);
                }
                return;
            }
            let is_commit = matches!(saying.key.kind, Kind::Check | Kind::Status);
            if let Some(before) = said.state {
                let adopted = said.digest.as_deref() == Some(ADOPTED) && before == state;
                let lost = self.is_lost(saying.key.number, said);
                // A status can be made to say anything; only a check run is completed for good.
                let stays = match (saying.key.kind, before) {
                    (Kind::Status, State::Neutral | State::Cancelled) => false,
                    _ => is_commit && !settles && !before.gives_way_to(state, lost),
                };
                if (adopted && is_all) || stays {
                    return;
                }
            }
            let waits = said.tried.as_ref().is_some_and(|tried| {
                tried.digest == saying.digest
                    && self.view.now < tried.at + pause_after(tried.attempts)
            });
            if waits {
                return;
            }
        }
        self.sayings.push(saying);
    }
}

/// What is compared with what was said: a moment alone is no news.
fn digest_of(what: &What) -> String {
    let What::Check(run) = what else { return digest(what) };
    let CheckRun {
        name,
        head,
        external_id,
        state,
        title,
        summary,
        text,
        details_url,
        started_at: _,
        completed_at: _,
    } = &**run;
    digest(&(name, head, external_id, state, title, summary, text, details_url))
}

/// Whether something of it is on GitHub, or may be, by what is recorded.
fn is_known(said: &LastSaid) -> bool {
    said.id.is_some() || said.state.is_some() || said.begun_at.is_some()
}

/// Whether what is posted for it is no last word.
fn is_open_status(state: State) -> bool {
    state.of_status() == "pending"
}

fn external_id(number: PullNumber, sha: &str) -> String {
    format!("{}:{sha}", number.0)
}

fn deployment(
    number: PullNumber,
    head: &Sha,
    state: State,
    title: &str,
    url: Option<String>,
) -> What {
    let status = DeploymentStatus {
        state: match state {
            State::Success => "success",
            State::Failure => "failure",
            State::Cancelled | State::Neutral => "inactive",
            State::Queued | State::Held => "queued",
            State::InProgress => "in_progress",
        },
        description: markdown::shortened(title, 140),
        environment_url: url,
    };
    What::Deployment { head: head.clone(), environment: format!("pr-{}", number.0), status }
}

/// The mark by which the comment of this saying is found.
pub fn mark_of(saying: &Saying) -> String {
    mark(saying.key.number)
}

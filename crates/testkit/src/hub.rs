//! The forge without HTTP: pull requests that tests change, read through the port.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard};

use jiff::Timestamp;
use pullre::domain::{Login, PullNumber, PullRequest, PullState, Sha};
use pullre::ports::{
    CheckRun, Comment, CommitStatus, DeploymentStatus, Find, Forge, ForgeError, Found, KnownPulls,
    Post, PostError, PullReading, Reaction, ReadingMark,
};

use crate::fuse::Fuse;

#[derive(Debug, Default)]
struct Inner {
    pulls: BTreeMap<PullNumber, PullRequest>,
    pushes: u32,
    unreachable: bool,
    told: Told,
    /// The next posts fail like this, whether or not they arrive.
    next: VecDeque<(PostError, bool)>,
    /// The next post tells here that it is under way, and waits there before it arrives.
    halt: Option<(Sender<()>, Receiver<()>)>,
    /// Whether what a process makes as it dies is still under way, and that.
    is_slow: bool,
    late: Vec<Post>,
    /// Interfaces that are forbidden, by their names in [`interface`].
    forbidden: BTreeSet<&'static str>,
    writers: BTreeSet<String>,
    /// Logins that nobody can be asked about.
    unknown: BTreeSet<String>,
    /// Who looks for a check run of this commit is answered like this.
    odd: Option<(Sha, PostError)>,
    /// Who speaks; what another one has made cannot be changed.
    credential: String,
    last_id: i64,
}

/// What the forge was told, as people see it there.
#[derive(Debug, Clone, Default)]
pub struct Told {
    /// With the credential that made each.
    pub checks: BTreeMap<i64, (String, CheckRun)>,
    pub statuses: Vec<(Sha, CommitStatus)>,
    pub comments: BTreeMap<i64, (String, Comment)>,
    pub deployments: BTreeMap<i64, (Sha, String, Vec<DeploymentStatus>)>,
    pub reactions: Vec<(i64, Reaction)>,
    /// Check runs that were made though the newest one of the same could say it.
    pub needless: Vec<String>,
    /// How often a completed check run was asked to say something else.
    pub in_vain: usize,
    /// Every write that arrived.
    pub writes: usize,
    /// Every write that was forbidden.
    pub refused: usize,
    /// How often the comments of all were asked for.
    pub comments_read: usize,
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

    /// A person writes a comment.
    pub fn comment(&self, number: PullNumber, login: &str, body: &str, now: Timestamp) -> i64 {
        self.change(number, now, |_, _| {});
        let mut inner = self.inner();
        let id = inner.next_id();
        let author = Some(Login(login.into()));
        let (created_at, updated_at) = (now, now);
        let comment = Comment { id, number, author, body: body.into(), created_at, updated_at };
        inner.told.comments.insert(id, (login.into(), comment));
        id
    }

    /// Its author edits it, which changes the pull request too.
    pub fn edit_comment(&self, id: i64, body: &str, now: Timestamp) {
        let mut inner = self.inner();
        let (_, comment) = inner.told.comments.get_mut(&id).expect("a comment that was made");
        comment.body = body.into();
        comment.updated_at = now;
        let number = comment.number;
        drop(inner);
        self.change(number, now, |_, _| {});
    }

    /// May write to the repository from now on.
    pub fn let_write(&self, login: &str) {
        self.inner().writers.insert(login.to_lowercase());
    }

    /// From now on it cannot be told whether this account may write.
    pub fn never_know(&self, login: &str) {
        self.inner().unknown.insert(login.to_lowercase());
    }

    /// Who looks for a check run of this commit is answered like this; None: no more.
    pub fn never_take(&self, head: &Sha, error: Option<PostError>) {
        self.inner().odd = error.map(|error| (head.clone(), error));
    }

    /// As if no check run had ever been made.
    pub fn forget_checks(&self) {
        self.inner().told.checks.clear();
    }

    /// Somebody deletes every deployment.
    pub fn delete_deployments(&self) {
        self.inner().told.deployments.clear();
    }

    /// Every pull request turns out to be a fork's.
    pub fn forks_of_all(&self, now: Timestamp) {
        for pull in self.inner().pulls.values_mut() {
            pull.is_fork = true;
            pull.updated_at = now;
        }
    }

    /// `check`, `status`, `comment`, `deployment`, `reaction`, or reading the `comments of all`.
    pub fn forbid(&self, interface: &'static str) {
        self.inner().forbidden.insert(interface);
    }

    pub fn permit(&self, interface: &'static str) {
        self.inner().forbidden.remove(interface);
    }

    pub fn set_credential(&self, credential: &str) {
        self.inner().credential = credential.into();
    }

    /// The next post fails; `arrives`: only its answer is lost.
    pub fn fail_next_post(&self, error: PostError, arrives: bool) {
        self.inner().next.push_back((error, arrives));
    }

    /// Holds the next post back: tells when it is under way, and lets it arrive when told so.
    pub fn halt_next_post(&self) -> (Receiver<()>, Sender<()>) {
        let ((tell, told), (release, released)) = (channel(), channel());
        self.inner().halt = Some((tell, released));
        (told, release)
    }

    /// From now on what a process makes as it dies is under way until it [arrives](Self::arrive).
    pub fn slow_down(&self) {
        self.inner().is_slow = true;
    }

    /// Returns how much was on its way.
    pub fn arrive(&self) -> usize {
        let mut inner = self.inner();
        let late = std::mem::take(&mut inner.late);
        for post in &late {
            // Nobody is left to hear the answer.
            let _ = inner.take(post);
        }
        late.len()
    }

    pub fn told(&self) -> Told {
        self.inner().told.clone()
    }

    pub fn edit(&self, number: PullNumber, now: Timestamp, edit: impl FnOnce(&mut PullRequest)) {
        self.change(number, now, |pull, _| edit(pull));
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

impl Inner {
    fn next_id(&mut self) -> i64 {
        self.last_id += 1;
        1000 + self.last_id
    }

    fn take(&mut self, post: &Post) -> Result<i64, PostError> {
        if self.forbidden.contains(interface(post)) {
            self.told.refused += 1;
            return Err(PostError::Forbidden("Resource not accessible".into()));
        }
        self.told.writes += 1;
        let credential = self.credential.clone();
        let fresh = self.next_id();
        let not_ours = |who: &String| match *who == credential {
            true => Ok(()),
            false => Err(PostError::Gone("made by another hand".into())),
        };
        Ok(match post {
            Post::CheckRun { id: Some(id), run } => {
                let known = self.told.checks.get_mut(id);
                let known = known.ok_or_else(|| PostError::Gone("Not Found".into()))?;
                not_ours(&known.0)?;
                // What is completed stays so.
                if known.1.state.words().1.is_some() && known.1.state != run.state {
                    self.told.in_vain += 1;
                    return Err(PostError::Gone("it is completed".into()));
                }
                known.1 = run.clone();
                *id
            }
            Post::CheckRun { id: None, run } => {
                let same = |(who, known): &&(String, CheckRun)| {
                    *who == credential && known.external_id == run.external_id
                };
                if let Some((_, known)) = self.told.checks.values().rfind(same)
                    && (known.state.words().1.is_none() || known.state == run.state)
                {
                    let (was, is) = (known.state, run.state);
                    self.told.needless.push(format!("{}: {was:?}, {is:?}", run.external_id));
                }
                self.told.checks.insert(fresh, (credential, run.clone()));
                fresh
            }
            Post::Status { head, status } => {
                self.told.statuses.push((head.clone(), status.clone()));
                fresh
            }
            Post::Comment { id: Some(id), body, .. } => {
                let known = self.told.comments.get_mut(id);
                let known = known.ok_or_else(|| PostError::Gone("Not Found".into()))?;
                known.1.body = body.clone();
                *id
            }
            Post::Comment { id: None, number, body } => {
                let comment = Comment {
                    id: fresh,
                    number: *number,
                    author: Some(Login(credential.clone())),
                    body: body.clone(),
                    created_at: Timestamp::UNIX_EPOCH,
                    updated_at: Timestamp::UNIX_EPOCH,
                };
                self.told.comments.insert(fresh, (credential, comment));
                fresh
            }
            Post::Deployment { head, environment, .. } => {
                let made = (head.clone(), environment.clone(), Vec::new());
                self.told.deployments.insert(fresh, made);
                fresh
            }
            Post::DeploymentStatus { id, status } => {
                let known = self.told.deployments.get_mut(id);
                let known = known.ok_or_else(|| PostError::Gone("Not Found".into()))?;
                known.2.push(status.clone());
                fresh
            }
            Post::Reaction { comment, reaction } => {
                if !self.told.reactions.contains(&(*comment, *reaction)) {
                    self.told.reactions.push((*comment, *reaction));
                }
                fresh
            }
        })
    }
}

fn interface(post: &Post) -> &'static str {
    match post {
        Post::CheckRun { .. } => "check",
        Post::Status { .. } => "status",
        Post::Comment { .. } => "comment",
        Post::Deployment { .. } | Post::DeploymentStatus { .. } => "deployment",
        Post::Reaction { .. } => "reaction",
    }
}

/// Whether it is something new, and no change of what is there.
fn makes(post: &Post) -> bool {
    matches!(
        post,
        Post::CheckRun { id: None, .. } | Post::Comment { id: None, .. } | Post::Deployment { .. }
    )
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

fn no_route() -> ForgeError {
    ForgeError::Unavailable("no route to the forge".into())
}

fn unreachable() -> PostError {
    PostError::Forge(no_route())
}

impl HubClient {
    fn reach(&self) -> Result<MutexGuard<'_, Inner>, PostError> {
        let inner = self.hub.inner();
        if self.fuse.spend() && !inner.unreachable { Ok(inner) } else { Err(unreachable()) }
    }
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

    fn credential(&self) -> String {
        self.hub.inner().credential.clone()
    }

    fn find(&self, find: &Find) -> Result<Option<Found>, PostError> {
        let inner = self.reach()?;
        if let (Find::CheckRun { head, .. }, Some((odd, error))) = (find, &inner.odd)
            && head == odd
        {
            return Err(error.clone());
        }
        let told = &inner.told;
        let ours = |who: &String| *who == inner.credential;
        Ok(match find {
            Find::CheckRun { head, name, external_id } => told
                .checks
                .iter()
                .rfind(|(_, (who, run))| {
                    ours(who)
                        && run.head == *head
                        && run.name == *name
                        && run.external_id == *external_id
                })
                .map(|(id, (_, run))| Found {
                    id: *id,
                    conclusion: run.state.words().1.map(str::to_owned),
                }),
            Find::Comment { number, mark } => told
                .comments
                .iter()
                .find(|(_, (who, c))| ours(who) && c.number == *number && c.body.starts_with(mark))
                .map(|(id, _)| Found::from(*id)),
            Find::Deployment { head, environment } => told
                .deployments
                .iter()
                .find(|(_, (sha, name, _))| sha == head && name == environment)
                .map(|(id, _)| Found::from(*id)),
        })
    }

    fn post(&self, post: &Post) -> Result<i64, PostError> {
        let halt = self.hub.inner().halt.take();
        if let Some((tell, released)) = halt {
            // Whoever does not listen does not wait.
            let _ = tell.send(()).map(|()| released.recv());
        }
        let reached = self.reach();
        if reached.is_err() && self.fuse.burns() {
            let mut inner = self.hub.inner();
            if inner.is_slow && makes(post) {
                inner.late.push(post.clone());
            }
        }
        let mut inner = reached?;
        if let Some((error, arrives)) = inner.next.pop_front() {
            if arrives {
                inner.take(post)?;
            }
            return Err(error);
        }
        let id = inner.take(post)?;
        // The forge has it; whether the process lives to hear so is another question.
        if self.fuse.spend() { Ok(id) } else { Err(unreachable()) }
    }

    fn read_comments(&self, since: Timestamp) -> Result<Vec<Comment>, ForgeError> {
        let mut inner = self.reach().map_err(|_| no_route())?;
        inner.told.comments_read += 1;
        if inner.forbidden.contains("comments of all") {
            return Err(ForgeError::Forbidden("Resource not accessible".into()));
        }
        let comments = inner.told.comments.values().map(|(_, comment)| comment);
        Ok(comments.filter(|comment| comment.updated_at >= since).cloned().collect())
    }

    fn may_write(&self, login: &Login) -> Result<bool, PostError> {
        let inner = self.reach()?;
        let login = login.0.to_lowercase();
        match inner.unknown.contains(&login) {
            true => Err(ForgeError::Unavailable("it answers 502".into()).into()),
            false => Ok(inner.writers.contains(&login)),
        }
    }
}

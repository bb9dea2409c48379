//! Says it. Under the lock of the pull request's reports, after a second look at what was said: of
//! two controllers one speaks, and what a killed one has made is found before another is made.
//!
//! The record is written after GitHub has taken it. A crash in between leaves something that the
//! record does not know: the next tick looks for it by `external_id`, mark or commit, and changes
//! that.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

use super::plan::{Saying, What, mark_of, plan, plan_one};
use super::show::View;
use super::{Kind, LastSaid, Told};
use crate::facts::{Assignment, Facts};
use crate::ports::{CheckState, Find, ForgeError, Found, Post, PostError};
use crate::reconcile::lock::LockName;
use crate::reconcile::plan::{Action, Chain, Subject};
use crate::reconcile::{Clock, Controller};
use crate::store::{Store, StoreError};
use crate::words;

/// GitHub allows about 80 writes a minute and 500 an hour; others may use the same credential.
const WRITES_A_MINUTE: u32 = 60;
const WRITES_AN_HOUR: u32 = 450;
/// What nobody's merge waits for uses so many percent of it, and leaves some to the rest.
const SHARE_OF_THE_REST: u32 = 70;
/// As many things that GitHub does not answer well are one thing with GitHub.
const MOST_ODD: usize = 3;

/// What GitHub did not answer well in this tick.
#[derive(Default)]
pub(crate) struct Odd(usize);

impl Odd {
    /// One more. It comes back where it is no matter of this thing alone.
    pub(crate) fn add(&mut self, e: ForgeError) -> Result<(), ForgeError> {
        self.0 += 1;
        if !is_of_one(&e) || self.0 >= MOST_ODD { Err(e) } else { Ok(()) }
    }
}
/// A request may be on its way for so long after whoever sent it was killed.
const IN_FLIGHT: Duration = Duration::from_secs(30);

/// Why no more is said in this tick.
enum Stop {
    /// All of it waits for a later tick.
    Forge(ForgeError),
    Store(StoreError),
    Budget,
}

impl From<StoreError> for Stop {
    fn from(e: StoreError) -> Stop {
        Stop::Store(e)
    }
}

/// What came of one saying.
enum Done {
    Said,
    /// Somebody else said it, or is about to.
    Left,
    /// These credentials may not; there may be another way.
    Refused,
    /// GitHub did not answer, or not so that it can be understood. It may be this alone.
    Odd(ForgeError),
}

/// The facts, with what these chains are about to give to whom: said at the beginning of a tick
/// that copies for minutes.
fn facts_with(store: &mut Store, chains: &[Chain], now: Timestamp) -> Result<Facts, StoreError> {
    let mut facts = store.facts_without_bodies()?;
    anticipate(&mut facts, chains, now);
    Ok(facts)
}

pub(crate) fn anticipate(facts: &mut Facts, chains: &[Chain], now: Timestamp) {
    for chain in chains {
        let (Subject::Environment(pull), Some(Action::Assign { .. })) =
            (chain.subject, chain.actions.first())
        else {
            continue;
        };
        let taken = facts.assignment_of_server(chain.server).is_some();
        if !taken && facts.pulls.contains_key(&pull) && !facts.assignments.contains_key(&pull) {
            let server = chain.server;
            let assignment = Assignment { server, pull, assigned_at: now, deployment: None };
            facts.assignments.insert(pull, assignment);
        }
    }
}

/// Says what is to be said, as far as GitHub and the budget allow. Trouble with GitHub is no error:
/// it is warned of once, and a later tick goes on.
pub(crate) fn speak(
    controller: &Controller<'_>,
    store: &mut Store,
    facts: &Facts,
    chains: &[Chain],
    clock: Clock,
    say: &dyn Fn(&Saying),
) -> Result<(), StoreError> {
    if !controller.report.report || facts.paused.is_some() {
        return Ok(());
    }
    let speaker = Speaker { controller, chains, clock, say };
    match speaker.all(store, facts) {
        Ok(()) if facts.report_trouble.is_none() => Ok(()),
        Ok(()) => store.report_trouble(None).map(drop),
        Err(Stop::Budget) => {
            let why = "the writes of this minute or hour are used up; the rest is said later";
            trouble(store, why)
        }
        Err(Stop::Forge(e)) => trouble(store, &e.to_string()),
        Err(Stop::Store(e)) => Err(e),
    }
}

/// Warns of it once, until all can be said again.
fn trouble(store: &mut Store, why: &str) -> Result<(), StoreError> {
    if store.report_trouble(Some(why))? {
        tracing::warn!("not everything can be said on GitHub: {why}");
    }
    Ok(())
}

struct Speaker<'a> {
    controller: &'a Controller<'a>,
    chains: &'a [Chain],
    /// All that is said may take many minutes.
    clock: Clock,
    say: &'a dyn Fn(&Saying),
}

impl Speaker<'_> {
    fn plan(&self, facts: &Facts, told: &Told) -> Vec<Saying> {
        let Controller { report, policy, forge, .. } = self.controller;
        let view = View::new(facts, told, report, policy, self.clock.now());
        plan(&view, &forge.credential())
    }

    fn all(&self, store: &mut Store, facts: &Facts) -> Result<(), Stop> {
        let told = store.told(facts)?;
        let mut sayings = self.plan(facts, &told);
        // Where check runs turn out to be refused, statuses are planned; once is enough.
        let mut odd = Odd::default();
        for _ in 0..2 {
            let mut refused = BTreeSet::new();
            for saying in &sayings {
                if refused.contains(&saying.key.kind) {
                    continue;
                }
                match self.one(saying, store)? {
                    Done::Said | Done::Left => {}
                    Done::Refused => drop(refused.insert(saying.key.kind)),
                    Done::Odd(e) => odd.add(e)?,
                }
            }
            if refused.is_empty() {
                break;
            }
            let facts = facts_with(store, self.chains, self.clock.now())?;
            let told = store.told(&facts)?;
            sayings = self.plan(&facts, &told);
        }
        Ok(())
    }

    fn one(&self, announced: &Saying, store: &mut Store) -> Result<Done, Stop> {
        let lock = LockName::Reports(announced.key.number);
        let held = match self.controller.locks.try_lock(&lock) {
            Ok(Some(held)) => held,
            Ok(None) => return Ok(Done::Left),
            Err(e) => return Err(ForgeError::Local(format!("cannot lock: {e}")).into()),
        };
        // Again, from what is true under the lock.
        let now = self.clock.now();
        let facts = facts_with(store, self.chains, now)?;
        let told = store.told_of(announced.key.number, &facts)?;
        let Controller { report, policy, forge, .. } = self.controller;
        let view = View::new(&facts, &told, report, policy, now);
        let again = plan_one(&view, &forge.credential(), announced.key.number);
        let again = again.into_iter().find(|saying| saying.key == announced.key);
        let Some(saying) = again.filter(|_| held.is_held()) else { return Ok(Done::Left) };
        let mut said = told.said.get(&saying.key).cloned().unwrap_or_default();
        if said.begun_at.is_some() {
            // It may be there, and is newer: that is looked for.
            said.id = None;
        }
        let kind = saying.key.kind;
        let mut odd = None;
        let why = match self.say(&saying, &said, store) {
            Ok(None) => {
                store.settle_report(&saying.key)?;
                return Ok(Done::Left);
            }
            Ok(Some(id)) => {
                let credential = self.controller.forge.credential();
                store.report_said(&saying, id, &credential, self.clock.now())?;
                (self.say)(&saying);
                return Ok(Done::Said);
            }
            Err(Trouble::Stop(stop)) => return Err(stop),
            Err(Trouble::InFlight) => return Ok(Done::Left),
            Err(Trouble::Post(PostError::Forge(e))) if !is_of_one(&e) => {
                return Err(Stop::Forge(e));
            }
            Err(Trouble::Post(PostError::Forge(e))) => odd.insert(e).to_string(),
            Err(Trouble::Post(PostError::Forbidden(why))) => {
                let credential = self.controller.forge.credential();
                if store.report_refused(kind, &credential, &why, self.clock.now())? {
                    let needed = kind.permission();
                    let instead = match kind {
                        Kind::Check => "; commit statuses take its place",
                        _ => "",
                    };
                    tracing::warn!(
                        "GitHub does not permit a {kind}: {why}. It needs {needed}{instead}"
                    );
                }
                return Ok(Done::Refused);
            }
            Err(Trouble::Post(e @ (PostError::Gone(_) | PostError::Rejected(_)))) => e.to_string(),
        };
        // What may be a moment's trouble with GitHub is no news about this one.
        let news = if odd.is_some() { 3 } else { 1 };
        if store.report_tried(&saying, self.clock.now())? == news {
            tracing::warn!("{} {kind}: {why}; tried again with growing pauses", saying.key.number);
        }
        Ok(odd.map_or(Done::Left, Done::Odd))
    }

    /// Returns the id of what says it now; None where it is the last word on something that is not
    /// there.
    fn say(
        &self,
        saying: &Saying,
        said: &LastSaid,
        store: &mut Store,
    ) -> Result<Option<i64>, Trouble> {
        let credential = self.controller.forge.credential();
        let same_hand = said.credential.as_ref().is_none_or(|other| *other == credential);
        match &saying.what {
            What::Check(run) => {
                let find = Find::CheckRun {
                    head: run.head.clone(),
                    name: run.name.clone(),
                    external_id: run.external_id.clone(),
                };
                let post = |id| Post::CheckRun { id, run: (**run).clone() };
                // Nothing makes a completed one say something else: a later truth is a new one.
                let stays = said
                    .state
                    .is_some_and(|before| before.has_ended() && before.of_check() != run.state);
                let id = said.id.filter(|_| same_hand && !stays);
                let ours = LastSaid { id, ..said.clone() };
                self.change_or_make(saying, &ours, &find, Some(run.state), post, store)
            }
            What::Status { head, status } => {
                let post = Post::Status { head: head.clone(), status: status.clone() };
                self.post(saying, &post, store).map(Some)
            }
            What::Comment(body) => {
                let number = saying.key.number;
                let comment = |id| Post::Comment { id, number, body: body.clone() };
                let find = Find::Comment { number, mark: mark_of(saying) };
                // Whoever may write to the repository may also edit what another hand wrote.
                self.change_or_make(saying, said, &find, None, comment, store)
            }
            What::Deployment { head, environment, status } => {
                let (head, environment) = (head.clone(), environment.clone());
                let known = said.id.filter(|_| same_hand);
                let find =
                    Find::Deployment { head: head.clone(), environment: environment.clone() };
                let state = |id| Post::DeploymentStatus { id, status: status.clone() };
                if let Some(id) = known {
                    match self.post(saying, &state(id), store) {
                        Err(Trouble::Post(PostError::Gone(_))) => {}
                        other => return other.map(|_| Some(id)),
                    }
                }
                let found = self.find(&find)?.map(|found| found.id);
                let there = found.filter(|id| Some(*id) != known);
                let id = match there {
                    Some(id) => id,
                    None if self.is_in_flight(said) => return Err(Trouble::InFlight),
                    None if saying.settles => return Ok(None),
                    None => {
                        let description = format!("Staging of {}", saying.key.number);
                        let made = Post::Deployment { head, environment, description };
                        self.make(saying, &made, store)?
                    }
                };
                self.post(saying, &state(id), store)?;
                Ok(Some(id))
            }
            What::Settle => Ok(None),
        }
    }

    /// Changes what is known to be there, else what is found and can be made to say this, else
    /// makes it.
    fn change_or_make(
        &self,
        saying: &Saying,
        said: &LastSaid,
        find: &Find,
        check: Option<CheckState>,
        post: impl Fn(Option<i64>) -> Post,
        store: &mut Store,
    ) -> Result<Option<i64>, Trouble> {
        let known = said.id;
        let mut forbidden = None;
        if let Some(id) = known {
            match self.post(saying, &post(Some(id)), store) {
                Err(Trouble::Post(PostError::Gone(_))) => {}
                // Perhaps only because another hand has made it.
                Err(Trouble::Post(PostError::Forbidden(why))) => forbidden = Some(why),
                other => return other.map(Some),
            }
        }
        let can = |found: &Found| check.is_none_or(|state| found.may_say(state));
        let found = self.find(find)?.filter(|found| Some(found.id) != known && can(found));
        match found {
            Some(found) => self.post(saying, &post(Some(found.id)), store).map(Some),
            None if self.is_in_flight(said) => Err(Trouble::InFlight),
            // Nothing is made only to say that it is over.
            None if saying.settles => match forbidden.filter(|_| self.has_made(said)) {
                Some(why) => Err(PostError::Forbidden(why).into()),
                None => Ok(None),
            },
            None => self.make(saying, &post(None), store).map(Some),
        }
    }

    /// Whether this is known to be what these credentials have made.
    fn has_made(&self, said: &LastSaid) -> bool {
        said.credential.as_deref() == Some(&self.controller.forge.credential())
    }

    /// Whether somebody began to make it a moment ago and did not record it: whoever was killed
    /// then may have a request on its way that GitHub shows only later.
    fn is_in_flight(&self, said: &LastSaid) -> bool {
        let now = self.clock.now();
        // In both directions: a clock that was put back holds nothing up for long.
        said.begun_at
            .is_some_and(|at| words::between(at, now).max(words::between(now, at)) < IN_FLIGHT)
    }

    fn find(&self, find: &Find) -> Result<Option<Found>, Trouble> {
        Ok(self.controller.forge.find(find)?)
    }

    fn reserve(&self, saying: &Saying, store: &mut Store) -> Result<(), Stop> {
        match may_write(store, saying.is_urgent(), self.clock.now())? {
            true => Ok(()),
            false => Err(Stop::Budget),
        }
    }

    fn post(&self, saying: &Saying, post: &Post, store: &mut Store) -> Result<i64, Trouble> {
        self.reserve(saying, store)?;
        Ok(self.controller.forge.post(post)?)
    }

    /// Posts what is not there yet. Should this process die before the record, another one knows
    /// that it has to look.
    fn make(&self, saying: &Saying, post: &Post, store: &mut Store) -> Result<i64, Trouble> {
        self.reserve(saying, store)?;
        store.report_begun(&saying.key, self.clock.now()).map_err(Stop::Store)?;
        let made = self.controller.forge.post(post);
        if made.as_ref().is_err_and(is_answered) {
            store.report_not_made(&saying.key).map_err(Stop::Store)?;
        }
        Ok(made?)
    }
}

enum Trouble {
    /// It is left to a later tick.
    InFlight,
    Stop(Stop),
    Post(PostError),
}

impl From<Stop> for Trouble {
    fn from(stop: Stop) -> Trouble {
        Trouble::Stop(stop)
    }
}

impl From<PostError> for Trouble {
    fn from(e: PostError) -> Trouble {
        Trouble::Post(e)
    }
}

impl From<ForgeError> for Stop {
    fn from(e: ForgeError) -> Stop {
        Stop::Forge(e)
    }
}

/// Whether GitHub has said no: what was posted is not there, and not on its way.
fn is_answered(e: &PostError) -> bool {
    use PostError::{Forbidden, Gone, Rejected};
    match e {
        Forbidden(_) | Gone(_) | Rejected(_) => true,
        PostError::Forge(e) => {
            matches!(e, ForgeError::RateLimited { .. } | ForgeError::Unauthorized)
        }
    }
}

/// Whether this may be about the one thing that was asked, and nothing else.
fn is_of_one(e: &ForgeError) -> bool {
    matches!(e, ForgeError::Unavailable(_) | ForgeError::Malformed(_) | ForgeError::Rejected(_))
}

/// Whether one more write fits into the budget of this minute and hour; it is used up then.
pub(crate) fn may_write(
    store: &mut Store,
    urgent: bool,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let share = if urgent { 100 } else { SHARE_OF_THE_REST };
    let of = |writes: u32| writes * share / 100;
    store.reserve_write(now, of(WRITES_A_MINUTE), of(WRITES_AN_HOUR))
}

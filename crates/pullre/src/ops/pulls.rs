//! What can be done to a pull request's environment.

use std::time::Duration;

use super::{Operator, Result, lock, refused, usage};
use crate::condition::{self, Data, Policy, Power, Target};
use crate::domain::{PullNumber, PullState, Sha};
use crate::facts::{Assignment, CloneState, Facts, Pull};
use crate::reconcile::lock::{Held, LockName, Locks};
use crate::stage::Standings;
use crate::status::{self, Explanation, Told};
use crate::store::Won;
use crate::words;

impl Operator<'_> {
    fn pull(&mut self, number: PullNumber) -> Result<Pull> {
        match self.store.pull(number)? {
            Some(pull) => Ok(pull),
            None => usage(format!(
                "there is no pull request {number} here; `update-pull pull list` shows the open ones"
            )),
        }
    }

    /// An environment that a person may change now, with its lock and the facts under it.
    fn changeable(&mut self, number: PullNumber, locks: &Locks) -> Result<Changeable> {
        let held = lock(locks, LockName::Environment(number), &number.to_string())?;
        let pull = self.pull(number)?;
        let facts = self.store.facts()?;
        not_paused(&facts)?;
        let Some(assignment) = facts.assignments.get(&number).cloned() else {
            return refused(format!(
                "{number} has no server; `update-pull explain {}` says why",
                number.0
            ));
        };
        self.in_automatic_hands(&pull, &facts)?;
        if pull.request.state == PullState::Closed {
            return refused(format!("{number} is closed"));
        }
        match condition::target(&pull, &facts) {
            Ok(_) if pull.ineligible_since.is_some() => refused(format!(
                "{number} may have no environment; `update-pull explain {}` says why",
                number.0
            )),
            Ok(target) => Ok(Changeable { facts, assignment, target, _held: held }),
            Err(why) => refused(format!("{number} may have no environment: {why}")),
        }
    }

    fn in_automatic_hands(&self, pull: &Pull, facts: &Facts) -> Result<()> {
        let number = pull.request.number;
        let assignment = facts.assignments.get(&number);
        let server = assignment.and_then(|assignment| facts.servers.get(&assignment.server));
        match condition::held(pull, server, self.now) {
            Some((why, ends)) => {
                refused(format!("{number} is out of automatic hands: {why}; `{ends}` ends that"))
            }
            None => Ok(()),
        }
    }

    /// Tries again at once: whatever waits for its next try waits no longer, what is deployed is
    /// deployed anew, and what was stopped is stopped no more. Returns what happens next.
    pub fn redeploy(
        &mut self,
        number: PullNumber,
        policy: &Policy,
        locks: &Locks,
    ) -> Result<&'static str> {
        let pull = self.pull(number)?;
        if pull.stopped.is_some() {
            return self.redeploy_stopped(pull, policy);
        }
        let Changeable { facts, assignment, target, _held } = self.changeable(number, locks)?;
        let condition = condition::assess(&assignment, &target, &facts, policy, self.now);
        if let Data::Refused(why) = &condition.data {
            return refused(format!("{number} has no database to be deployed on: {why}"));
        }
        self.store.forget_failures(number, assignment.server)?;
        self.note(Some(number), Some(assignment.server), "redeploy asked for")?;
        if condition.power != Power::Up || condition.data != Data::Ready {
            return Ok("tried again by the next tick");
        }
        match self.store.offer(number, assignment.server, &target.sha, 1, self.now)? {
            Won::Yes => Ok("deployed again as soon as its staging client looks"),
            Won::No => refused(format!("{number} just lost its server; try again")),
        }
    }

    /// The stop stays where nothing would come of its end.
    fn redeploy_stopped(&mut self, pull: Pull, policy: &Policy) -> Result<&'static str> {
        let number = pull.request.number;
        let facts = self.store.facts_without_bodies()?;
        if pull.request.state == PullState::Closed {
            return refused(format!("{number} is closed"));
        }
        not_paused(&facts)?;
        self.in_automatic_hands(&pull, &facts)?;
        let pull = Pull { stopped: None, ..pull };
        if let Err(why) = condition::eligibility(&pull, &facts, policy) {
            return refused(format!("{number} may have no environment: {why}"));
        }
        self.store.stop_pull(number, None)?;
        self.note(Some(number), None, "released by a redeployment")?;
        Ok("it is stopped no more, and gets a server")
    }

    /// Fresh data from the author's schema: the app is stopped, the schema cloned anew, the app
    /// deployed.
    pub fn reset_db(&mut self, number: PullNumber, locks: &Locks) -> Result<()> {
        let Changeable { facts, assignment, _held, .. } = self.changeable(number, locks)?;
        let schema = facts.servers.get(&assignment.server).and_then(|s| s.schema.as_ref().ok());
        let clone = schema
            .and_then(|schema| facts.clones.get(schema))
            .filter(|clone| clone.pull == Some(number) && clone.state != CloneState::Refused);
        let none = || {
            refused(format!(
                "{number} has no database of its own yet; `update-pull explain {}` says why",
                number.0
            ))
        };
        let Some(clone) = clone else { return none() };
        match self.store.clone_stale(&clone.schema, number)? {
            Won::Yes => self.note(Some(number), Some(clone.server), "fresh data asked for"),
            Won::No => none(),
        }
    }

    /// The data that the last reset replaced: the app is stopped, both change places, the app is
    /// deployed again.
    pub fn undo_reset(&mut self, number: PullNumber, policy: &Policy, locks: &Locks) -> Result<()> {
        let Changeable { facts, assignment, _held, .. } = self.changeable(number, locks)?;
        let schema = facts.servers.get(&assignment.server).and_then(|s| s.schema.as_ref().ok());
        let clone = schema
            .and_then(|schema| facts.clones.get(schema))
            .filter(|clone| clone.pull == Some(number));
        let Some(clone) = clone.filter(|clone| clone.contents.kept) else {
            return refused(format!(
                "no previous database of {number} is kept; with `keep_previous = yes` the next reset-db \
                 keeps one"
            ));
        };
        if clone.state == CloneState::Undo {
            return Ok(());
        }
        let mask = policy.cloning.mask.digest();
        let same = clone.source.as_ref().is_some_and(|source| clone.holds(source, number, mask));
        if clone.state != CloneState::Ready || !same {
            return refused(format!(
                "the database of {number} is about to be replaced; `update-pull explain {}` says why",
                number.0
            ));
        }
        match self.store.undo_wanted(&clone.schema, number, self.now)? {
            Won::Yes => self.note(Some(number), Some(clone.server), "the previous data asked for"),
            Won::No => refused(format!("the database of {number} was just changed; try again")),
        }
    }

    pub fn pull_hold(
        &mut self,
        number: PullNumber,
        reason: &str,
        span: Option<Duration>,
    ) -> Result<()> {
        self.pull(number)?;
        let hold = self.hold_of(reason, span);
        self.store.hold_pull(number, Some(&hold))?;
        self.note(Some(number), None, &hold.to_string())
    }

    /// Gives its server back to the pool, and keeps it from getting one until its release.
    pub fn pull_stop(&mut self, number: PullNumber) -> Result<()> {
        let pull = self.pull(number)?;
        if pull.request.state == PullState::Closed {
            return refused(format!("{number} is closed"));
        }
        if let Some(stop) = &pull.stopped {
            let since = words::moment(stop.since);
            return refused(format!("{number} is stopped already, by {} {since}", stop.by));
        }
        let facts = self.store.facts_without_bodies()?;
        self.in_automatic_hands(&pull, &facts)?;
        self.store.stop_pull(number, Some((self.who, self.now)))?;
        self.note(Some(number), None, "stopped")
    }

    /// Ends a hold and a stop.
    pub fn pull_release(&mut self, number: PullNumber) -> Result<()> {
        let pull = self.pull(number)?;
        if pull.hold.is_none() && pull.stopped.is_none() {
            return refused(format!("{number} is neither held nor stopped"));
        }
        self.store.hold_pull(number, None)?;
        self.store.stop_pull(number, None)?;
        self.note(Some(number), None, "released")
    }

    /// Lets exactly this head of a fork's pull request run.
    pub fn approve(&mut self, number: PullNumber, sha: &Sha) -> Result<()> {
        let pull = self.pull(number)?;
        if pull.described && !pull.request.is_fork {
            return refused(format!(
                "{number} comes from the repository itself and needs no approval"
            ));
        }
        if pull.request.head != *sha {
            return refused(format!(
                "the head of {number} is {}, not {sha}: look at that commit, then approve it",
                pull.request.head
            ));
        }
        if pull.request.state == PullState::Closed {
            return refused(format!("{number} is closed"));
        }
        self.store.approve(number, sha)?;
        self.note(Some(number), None, &format!("approved {sha}"))
    }

    pub fn explain(&mut self, number: PullNumber, policy: &Policy) -> Result<Explanation> {
        let facts = self.store.facts()?;
        self.explain_by(number, &facts, policy)
    }

    /// Likewise, by facts that were just read.
    pub fn explain_by(
        &mut self,
        number: PullNumber,
        facts: &Facts,
        policy: &Policy,
    ) -> Result<Explanation> {
        let pull = self.pull(number)?;
        let mut deployments = Vec::new();
        for deployment in self.store.deployments_of(number, 5)? {
            let steps = self.store.steps_of(deployment.id)?;
            deployments.push(Told { deployment, steps });
        }
        Ok(Explanation {
            environment: status::environment(&pull, &Standings::new(facts, policy, self.now)),
            state: pull.request.state,
            paused: facts.paused.clone(),
            refused: facts.refused.clone(),
            deployments,
            events: self.store.events_of(number, 10)?,
        })
    }
}

fn not_paused(facts: &Facts) -> Result<()> {
    match &facts.paused {
        Some(who) => {
            refused(format!("all effects are paused {who}; `update-pull resume` ends that"))
        }
        None => Ok(()),
    }
}

/// What [`Operator::redeploy`] and [`Operator::reset_db`] start from.
struct Changeable {
    facts: Facts,
    assignment: Assignment,
    target: Target,
    _held: Held,
}

//! One tick: observe what is true, plan what follows, apply it.

mod apply;
pub mod lock;
pub mod observe;
pub mod plan;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::condition::Policy;
use crate::facts::Facts;
use crate::ports::{Compute, Forge};
use crate::report::plan::{Saying, What};
use crate::report::show::View;
use crate::report::{self, apply as voice, commands};
use crate::schema_clone::Schemas;
use crate::store::{Database, Store, StoreError};
use lock::Locks;
use plan::{Action, Chain, Observed, Plan, Record, Subject, plan};

/// A plan may free what another environment waits for, so a tick looks again; this often at most.
const ROUNDS: usize = 4;

/// Chains that are worked on at the same time.
const WORKERS: usize = 8;

/// Everything that a tick works with.
#[derive(Clone, Copy)]
pub struct Controller<'a> {
    pub database: &'a Database,
    pub forge: &'a dyn Forge,
    pub compute: &'a dyn Compute,
    pub schemas: &'a Schemas,
    pub locks: &'a Locks,
    pub policy: &'a Policy,
    /// What is said on GitHub.
    pub report: &'a report::Settings,
}

impl std::fmt::Debug for Controller<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Controller").field("policy", self.policy).finish_non_exhaustive()
    }
}

/// What a tick tells while it works; a clone may take minutes.
#[derive(Debug)]
pub enum Said<'a> {
    /// What will be done now.
    Plan(&'a Plan),
    Done {
        chain: &'a Chain,
        action: &'a Action,
        took: Duration,
        detail: Option<String>,
    },
    Failed {
        chain: &'a Chain,
        action: &'a Action,
        why: &'a str,
    },
    /// Somebody else is at it, or was faster: the next tick looks again.
    Left {
        chain: &'a Chain,
        why: &'a str,
    },
    /// GitHub was told.
    Told(&'a Saying),
}

/// What came of a tick.
#[derive(Debug, Default)]
pub struct Report {
    /// Each a sentence that names its subject. Empty: all is well.
    pub failures: Vec<String>,
    /// Actions that were done.
    pub acted: usize,
    /// The last plan: what still waits.
    pub last: Plan,
    /// Servers in the pool, and how many of them are somebody's.
    pub pool: usize,
    pub busy: usize,
    /// Why GitHub could not be read, if so.
    pub forge: Option<String>,
    /// What is known at the end, perhaps without the bodies of pull requests.
    pub facts: Facts,
    /// When that was read.
    pub known_at: Timestamp,
}

/// `now`, going on from the moment at which the tick began. Virtual time of tests stays virtual.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    began: Timestamp,
    since: Instant,
}

impl Clock {
    pub(crate) fn now(&self) -> Timestamp {
        let passed = jiff::SignedDuration::try_from(self.since.elapsed()).unwrap_or_default();
        self.began.saturating_add(passed).unwrap_or(self.began)
    }
}

impl Controller<'_> {
    /// What the next tick would do. Changes nothing.
    pub fn plan(&self, now: Timestamp) -> Result<(Observed, Plan), StoreError> {
        let mut store = self.database.open()?;
        let observed = observe::observe(&mut store, self.forge, self.compute, self.policy, now)?;
        let mut plan = plan(&observed);
        plan.sayings = self.sayings(&mut store, &observed, &plan)?;
        Ok((observed, plan))
    }

    /// One tick. An error means that the control database could not be used; everything else that
    /// went wrong is in the report, and stopped only its own chain.
    pub fn tick(
        &self,
        now: Timestamp,
        confirmed: bool,
        say: &(dyn Fn(Said<'_>) + Sync),
    ) -> Result<Report, StoreError> {
        self.tick_on(&mut self.database.open()?, now, confirmed, say)
    }

    /// The same on a connection that is open already, for ticks that follow each other.
    pub fn tick_on(
        &self,
        store: &mut Store,
        now: Timestamp,
        confirmed: bool,
        say: &(dyn Fn(Said<'_>) + Sync),
    ) -> Result<Report, StoreError> {
        let clock = Clock { began: now, since: Instant::now() };
        let mut report = Report::default();
        let mut ended: BTreeSet<Subject> = BTreeSet::new();
        let mut observed = observe::observe(store, self.forge, self.compute, self.policy, now)?;
        observed.confirmed = confirmed;
        report.failures.extend(observed.unknown());
        report.forge = observed.forge.unknown().map(str::to_owned);
        for round in 0..ROUNDS {
            let mut plan = plan(&observed);
            plan.chains.retain(|chain| !ended.contains(&chain.subject));
            if round == 0 || plan.has_news() {
                say(Said::Plan(&plan));
            }
            if !plan.records.is_empty() {
                store.record(&plan.records, observed.now)?;
                self.remember(&plan.records, &mut report);
            }
            report.last = plan;
            let due = observed.facts.comments_due.is_some()
                || report.last.records.iter().any(|record| matches!(record, Record::Mark(_)));
            let asked = round == 0 && observed.forge.known().is_some();
            let obeyed = asked
                && self.obey(store, due, clock).unwrap_or_else(|e| {
                    report.failures.push(format!("commands in comments wait: {e}"));
                    false
                });
            if obeyed {
                // What people asked for changes the plan.
                observed = observe::observe_again(store, self.compute, observed.now, &observed)?;
                continue;
            }
            if report.last.chains.is_empty() {
                break;
            }
            // A copy may take minutes; nobody shall wait for the news until then.
            let copies = |chain: &Chain| {
                chain.actions.iter().any(|action| matches!(action, Action::Clone { .. }))
            };
            if report.last.chains.iter().any(copies) {
                let chains = &report.last.chains;
                let mut facts = store.facts_without_bodies()?;
                voice::anticipate(&mut facts, chains, clock.now());
                if let Err(e) = self.speak(store, &observed, &facts, chains, clock, say) {
                    report.failures.push(not_told(&e));
                }
            }
            let outcomes = apply::side_by_side(self, &report.last.chains, &observed, clock, say);
            for outcome in outcomes {
                report.acted += outcome.acted;
                report.failures.extend(outcome.failure);
                // What failed or is locked is left to the next tick, not tried again at once.
                if !outcome.finished {
                    ended.insert(outcome.subject);
                }
            }
            observed = observe::observe_again(store, self.compute, clock.now(), &observed)?;
            if let Some(why) = observed.instances.unknown() {
                report.failures.push(why.to_owned());
                break;
            }
        }
        if !report.last.records.is_empty() {
            observed.facts = store.facts_without_bodies()?;
        }
        let Observed { facts, now: known_at, .. } = &observed;
        if let Err(e) = self.speak(store, &observed, facts, &[], clock, say) {
            report.failures.push(not_told(&e));
        }
        if !report.last.refused.is_empty() {
            report.failures.push(report.last.refusal());
        }
        let used: BTreeSet<_> = facts.assignments.values().map(|a| a.server).collect();
        let pool = || facts.servers.values().filter(|server| server.is_staging);
        report.pool = pool().count();
        report.busy = pool().filter(|server| used.contains(&server.id)).count();
        report.known_at = *known_at;
        report.facts = observed.facts;
        Ok(report)
    }

    /// What a tick would say once this plan's records are written.
    fn sayings(
        &self,
        store: &mut Store,
        observed: &Observed,
        plan: &Plan,
    ) -> Result<Vec<Saying>, StoreError> {
        if !self.report.report
            || observed.facts.paused.is_some()
            || observed.forge.known().is_none()
        {
            return Ok(Vec::new());
        }
        let mut facts = observed.facts.clone();
        plan.records.iter().for_each(|record| record.apply_to(&mut facts, observed.now));
        voice::anticipate(&mut facts, &plan.chains, observed.now);
        let told = store.told(&facts)?;
        let view = View::new(&facts, &told, self.report, self.policy, observed.now);
        let mut sayings = report::plan::plan(&view, &self.forge.credential());
        sayings.retain(|saying| saying.what != What::Settle);
        Ok(sayings)
    }

    /// Says on GitHub what is true now. While GitHub cannot be read, nobody knows what that is.
    fn speak(
        &self,
        store: &mut Store,
        observed: &Observed,
        facts: &Facts,
        chains: &[Chain],
        clock: Clock,
        say: &(dyn Fn(Said<'_>) + Sync),
    ) -> Result<(), StoreError> {
        if observed.forge.known().is_none() {
            return Ok(());
        }
        voice::speak(self, store, facts, chains, clock, &|saying| say(Said::Told(saying)))
    }

    /// Whether people asked for something in comments, and it was done.
    fn obey(&self, store: &mut Store, due: bool, clock: Clock) -> Result<bool, StoreError> {
        if !due && store.open_commands()?.is_empty() {
            return Ok(false);
        }
        let facts = store.facts_without_bodies()?;
        Ok(commands::obey(self, store, &facts, clock)? > 0)
    }

    fn remember(&self, records: &[Record], report: &mut Report) {
        for record in records {
            if let Record::Mark(mark) = record
                && let Err(e) = self.forge.remember(mark)
            {
                // Costs only a second reading; but it should not stay unseen.
                report.failures.push(e.to_string());
            }
        }
    }
}

/// Whatever is wrong with what is said holds no environment back.
fn not_told(e: &StoreError) -> String {
    format!("GitHub was not told everything: {e}")
}

impl Observed {
    /// The sources that said nothing, each a sentence.
    pub fn unknown(&self) -> Vec<String> {
        let sentence = |reading: Option<&str>| reading.map(str::to_owned);
        [sentence(self.forge.unknown()), sentence(self.instances.unknown())]
            .into_iter()
            .flatten()
            .collect()
    }
}

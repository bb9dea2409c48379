//! Carries chains out. Each works under the locks of its environment and its server, and plans
//! again from the facts that it reads under them: between the plan of the tick and the lock,
//! another tick may have done the same, or the opposite.

use std::io;
use std::sync::Mutex;
use std::time::Instant;

use super::lock::{Held, LockName};
use super::plan::{Action, Chain, Observed, Reading, Subject, plan};
use super::{Clock, Controller, Said, WORKERS, observe};
use crate::domain::{InstanceId, PullNumber, SchemaName};
use crate::facts::CloneState;
use crate::ports::ComputeError;
use crate::schema_clone::{CloneError, Cloning, Request};
use crate::store::{Store, StoreError, Won};
use crate::words;

/// An environment goes from one state to the next within one tick; this often at most.
const ADVANCES: usize = 4;

/// What came of one chain.
#[derive(Debug)]
pub(super) struct Outcome {
    pub subject: Subject,
    pub acted: usize,
    pub failure: Option<String>,
    /// All that its plan wanted was done.
    pub finished: bool,
}

/// Why a chain stopped.
#[derive(Debug, thiserror::Error)]
enum Stop {
    /// Somebody else is at it, or was faster.
    #[error("{0}")]
    Left(String),
    #[error("{0}")]
    Failed(String),
}

impl From<StoreError> for Stop {
    fn from(e: StoreError) -> Stop {
        Stop::Failed(e.to_string())
    }
}

pub(super) fn side_by_side(
    controller: &Controller<'_>,
    chains: &[Chain],
    observed: &Observed,
    clock: Clock,
    say: &(dyn Fn(Said<'_>) + Sync),
) -> Vec<Outcome> {
    let next = Mutex::new(chains.iter());
    let outcomes = Mutex::new(Vec::new());
    let work = || {
        loop {
            // A poisoned lock only says that another chain panicked; the iterator is still whole.
            let chain = next.lock().unwrap_or_else(|e| e.into_inner()).next();
            let Some(chain) = chain else { return };
            let worker = Worker { controller, clock, say };
            let outcome = worker.work(chain, observed);
            outcomes.lock().unwrap_or_else(|e| e.into_inner()).push(outcome);
        }
    };
    if chains.len() == 1 {
        work();
    } else {
        std::thread::scope(|scope| {
            for _ in 0..WORKERS.min(chains.len()) {
                scope.spawn(work);
            }
        });
    }
    outcomes.into_inner().unwrap_or_else(|e| e.into_inner())
}

/// Proof that nobody else works for this chain's environment and on its server.
struct Locked {
    environment: Option<Held>,
    server: Held,
}

impl Locked {
    /// A lock of a server may be lost while one acts for long; then another tick may be at work.
    fn check(&self) -> Result<(), Stop> {
        let held = self.server.is_held() && self.environment.as_ref().is_none_or(Held::is_held);
        if held { Ok(()) } else { Err(Stop::Left("its lock was lost".into())) }
    }
}

struct Worker<'a> {
    controller: &'a Controller<'a>,
    clock: Clock,
    say: &'a (dyn Fn(Said<'_>) + Sync),
}

impl Worker<'_> {
    fn work(&self, chain: &Chain, observed: &Observed) -> Outcome {
        let mut acted = 0;
        let result = self.lock(chain).and_then(|locked| {
            let mut store = self.controller.database.open()?;
            self.advance(chain, observed, &mut store, &locked, &mut acted)
        });
        let failure = match &result {
            Ok(()) => None,
            Err(Stop::Left(why)) => {
                (self.say)(Said::Left { chain, why });
                None
            }
            Err(Stop::Failed(why)) => Some(format!("{}: {why}", chain.subject_on_server())),
        };
        Outcome { subject: chain.subject, acted, failure, finished: result.is_ok() }
    }

    fn lock(&self, chain: &Chain) -> Result<Locked, Stop> {
        let environment = match chain.subject {
            Subject::Environment(number) => Some(self.hold(LockName::Environment(number))?),
            Subject::Server(_) => None,
        };
        Ok(Locked { environment, server: self.hold(LockName::Server(chain.server))? })
    }

    fn hold(&self, name: LockName) -> Result<Held, Stop> {
        let denied = |e: io::Error| Stop::Failed(format!("cannot lock: {e}"));
        self.controller
            .locks
            .try_lock(&name)
            .map_err(denied)?
            .ok_or_else(|| Stop::Left("another tick is at work on it".into()))
    }

    /// Plans under the lock and does it, until this subject needs nothing more at this moment.
    fn advance(
        &self,
        announced: &Chain,
        observed: &Observed,
        store: &mut Store,
        locked: &Locked,
        acted: &mut usize,
    ) -> Result<(), Stop> {
        let mut looked_again = false;
        for _ in 0..ADVANCES {
            let now = self.clock.now();
            let again = observe::observe_again(store, self.controller.compute, now, observed)?;
            if let Reading::Unknown(why) = &again.instances {
                return Err(Stop::Failed(why.clone()));
            }
            let plan = plan(&again);
            let Some(chain) = plan.chain(announced.subject) else { return Ok(()) };
            // The machines are read after the facts: one that another chain has just started stands
            // for a server that looks free, and better than ours. It does not the next time.
            if chain.server != announced.server {
                if looked_again || *acted > 0 {
                    return Err(Stop::Left("another server is to be its by now".into()));
                }
                looked_again = true;
                continue;
            }
            for action in &chain.actions {
                let began = Instant::now();
                let done = self.act(action, chain, &again, store, locked);
                let took = began.elapsed();
                match done {
                    Ok(detail) => {
                        *acted += 1;
                        (self.say)(Said::Done { chain, action, took, detail });
                    }
                    Err(stop) => {
                        if let Stop::Failed(why) = &stop {
                            (self.say)(Said::Failed { chain, action, why });
                        }
                        return Err(stop);
                    }
                }
            }
        }
        Ok(())
    }

    /// One action: what is about to happen is written down first, what came of it after.
    fn act(
        &self,
        action: &Action,
        chain: &Chain,
        observed: &Observed,
        store: &mut Store,
        locked: &Locked,
    ) -> Result<Option<String>, Stop> {
        locked.check()?;
        let now = self.clock.now();
        let server = chain.server;
        let pull = match chain.subject {
            Subject::Environment(number) => Some(number),
            Subject::Server(_) => None,
        };
        match (action, pull) {
            (Action::Assign { source }, Some(pull)) => {
                won(store.assign(pull, server, source, now)?).map(|()| None)
            }
            (Action::Withdraw, Some(pull)) => {
                won(store.withdraw(pull, server, now)?).map(|()| None)
            }
            (Action::Offer { sha, attempt }, Some(pull)) => {
                won(store.offer(pull, server, sha, *attempt, now)?).map(|()| None)
            }
            (Action::Release, Some(pull)) => {
                won(store.release(pull, server, &chain.why, now)?).map(|()| None)
            }
            (Action::Start { instance }, _) => self.start(instance, chain, store).map(|()| None),
            (Action::Stop { instance }, _) => {
                let stopped = self.controller.compute.stop(instance);
                stopped.map_err(|e| Stop::Failed(e.to_string()))?;
                store.stop_settled(server)?;
                Ok(None)
            }
            (Action::Clone { source, destination }, pull) => {
                self.clone(source, destination, pull, chain, observed, store).map(Some)
            }
            (Action::Undo { schema }, _) => {
                self.undo(schema, chain, observed, store).map(|()| None)
            }
            (action, None) => Err(Stop::Failed(format!(
                "{action:?} was planned for no environment; this is a fault of pullre"
            ))),
        }
    }

    fn start(&self, instance: &InstanceId, chain: &Chain, store: &mut Store) -> Result<(), Stop> {
        store.start_requested(chain.server, self.clock.now())?;
        self.controller.compute.start(instance).or_else(|e| {
            let now = self.clock.now();
            let no_capacity = matches!(e, ComputeError::NoCapacity { .. }).then_some(now);
            store.start_refused(chain.server, &e.to_string(), no_capacity)?;
            Err(Stop::Failed(e.to_string()))
        })
    }

    fn clone(
        &self,
        source: &SchemaName,
        destination: &SchemaName,
        pull: Option<PullNumber>,
        chain: &Chain,
        observed: &Observed,
        store: &mut Store,
    ) -> Result<String, Stop> {
        let _schema = self.hold(LockName::Schema(destination.clone()))?;
        let server = chain.server;
        let schemas = self.controller.schemas;
        let owned = observed
            .facts
            .clones
            .get(destination)
            .is_some_and(|clone| clone.server == server && clone.state != CloneState::Refused);
        let exists = |e: CloneError| Stop::Failed(e.to_string());
        if !owned && schemas.holds_something(destination).map_err(exists)? {
            let why = format!(
                "schema {destination} holds something that pullre did not make; empty it, or let it \
                 be overwritten with `update-pull server take-over {}`",
                chain.server_name
            );
            store.clone_refused(destination, server, pull, &why, self.clock.now())?;
            return Err(Stop::Failed(why));
        }
        let Cloning { timeout, mask, keep_previous } = &self.controller.policy.cloning;
        let worth_keeping =
            observed.facts.clones.get(destination).zip(pull).is_some_and(|(clone, pull)| {
                clone.server == server && clone.holds(source, pull, mask.digest())
            });
        let now = self.clock.now();
        won(store.clone_started(destination, server, source, pull, mask.digest(), now)?)?;
        let request = Request {
            source,
            destination,
            timeout: *timeout,
            mask,
            keep_previous: *keep_previous && worth_keeping,
            wish: store.clone_wish(destination)?,
        };
        match schemas.clone_schema(&request, &mut |_| {}) {
            Ok(outcome) => {
                store.clone_finished(destination, server, &outcome, self.clock.now())?;
                Ok(format!("{} tables, {}", outcome.tables, words::bytes(outcome.bytes)))
            }
            Err(e) => {
                let why = e.to_string();
                store.clone_failed(destination, server, &why, self.clock.now())?;
                Err(Stop::Failed(why))
            }
        }
    }
}

impl Worker<'_> {
    fn undo(
        &self,
        schema: &SchemaName,
        chain: &Chain,
        observed: &Observed,
        store: &mut Store,
    ) -> Result<(), Stop> {
        let _schema = self.hold(LockName::Schema(schema.clone()))?;
        let server = chain.server;
        let wish = observed
            .facts
            .clones
            .get(schema)
            .filter(|clone| clone.server == server && clone.state == CloneState::Undo)
            .and_then(|clone| clone.contents.undo);
        // Written down when a person asked for it: a tick that dies after the effect and before its
        // result does nothing the next time.
        let Some(wish) = wish else {
            return Err(Stop::Left("nobody asks for its previous data any more".into()));
        };
        let timeout = self.controller.policy.cloning.timeout;
        match self.controller.schemas.undo(schema, wish, timeout) {
            Ok(()) => Ok(store.undo_finished(schema, server, true, self.clock.now())?),
            Err(e) => {
                let (why, now) = (e.to_string(), self.clock.now());
                match e {
                    // What is there is all there is, and stays.
                    CloneError::NoPrevious { .. } => {
                        store.undo_finished(schema, server, false, now)?;
                    }
                    _ => store.undo_failed(schema, server, &why, now)?,
                }
                Err(Stop::Failed(why))
            }
        }
    }
}

fn won(won: Won) -> Result<(), Stop> {
    match won {
        Won::Yes => Ok(()),
        Won::No => Err(Stop::Left("another tick was faster".into())),
    }
}

//! Machines that take their time, refuse, and remember who did what to them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use pullre::domain::{Instance, InstanceId, InstanceState};
use pullre::ports::{Compute, ComputeError};

use crate::fuse::Fuse;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    Start,
    Stop,
}

#[derive(Debug, Default)]
struct Inner {
    states: BTreeMap<InstanceId, InstanceState>,
    /// Every accepted request, in order.
    effects: Vec<(InstanceId, Effect)>,
    refuses_starts: bool,
    /// The provider has no machine for these.
    without_capacity: BTreeSet<InstanceId>,
    /// Why a machine is in its state.
    reasons: BTreeMap<InstanceId, String>,
    unreachable: bool,
}

/// The provider's side of the world. Clones are the same fleet.
#[derive(Debug, Clone, Default)]
pub struct Fleet(Arc<Mutex<Inner>>);

impl Fleet {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub fn add(&self, id: &str, state: InstanceState) {
        self.inner().states.insert(InstanceId(id.into()), state);
    }

    pub fn state(&self, id: &str) -> Option<InstanceState> {
        self.inner().states.get(&InstanceId(id.into())).copied()
    }

    /// Somebody else changes a machine, or it vanishes.
    pub fn force(&self, id: &str, state: Option<InstanceState>) {
        match state {
            Some(state) => self.add(id, state),
            None => drop(self.inner().states.remove(&InstanceId(id.into()))),
        }
    }

    pub fn refuse_starts(&self, refuse: bool) {
        self.inner().refuses_starts = refuse;
    }

    /// The provider has, or has not, a machine for this one.
    pub fn set_capacity(&self, id: &str, there: bool) {
        let id = InstanceId(id.into());
        let without = &mut self.inner().without_capacity;
        if there {
            without.remove(&id)
        } else {
            without.insert(id)
        };
    }

    /// A start that was accepted comes to nothing.
    pub fn fall_back(&self, id: &str, reason: &str) {
        self.force(id, Some(InstanceState::Stopped));
        self.inner().reasons.insert(InstanceId(id.into()), reason.into());
    }

    pub fn set_unreachable(&self, unreachable: bool) {
        self.inner().unreachable = unreachable;
    }

    /// What is on its way arrives.
    pub fn settle(&self) {
        for state in self.inner().states.values_mut() {
            *state = match *state {
                InstanceState::Pending => InstanceState::Running,
                InstanceState::Stopping => InstanceState::Stopped,
                other => other,
            };
        }
    }

    pub fn effects(&self) -> Vec<(InstanceId, Effect)> {
        self.inner().effects.clone()
    }

    /// The fleet as one process sees it, which may die.
    pub fn seen_by(&self, fuse: Fuse) -> FleetClient {
        FleetClient { fleet: self.clone(), fuse }
    }
}

#[derive(Debug, Clone)]
pub struct FleetClient {
    fleet: Fleet,
    fuse: Fuse,
}

impl FleetClient {
    fn reach(&self) -> Result<MutexGuard<'_, Inner>, ComputeError> {
        let inner = self.fleet.inner();
        if !self.fuse.spend() {
            return Err(ComputeError::Unavailable("this process was killed".into()));
        }
        if inner.unreachable {
            return Err(ComputeError::Unavailable("no route to the provider".into()));
        }
        Ok(inner)
    }
}

impl Compute for FleetClient {
    fn describe(&self, ids: &[InstanceId]) -> Result<Vec<Instance>, ComputeError> {
        let mut all = self.list()?;
        all.retain(|instance| ids.contains(&instance.id));
        Ok(all)
    }

    fn list(&self) -> Result<Vec<Instance>, ComputeError> {
        let inner = self.reach()?;
        let describe = |(id, state): (&InstanceId, &InstanceState)| Instance {
            id: id.clone(),
            state: *state,
            name: None,
            private_ip: None,
            reason: inner.reasons.get(id).cloned(),
            role: None,
        };
        Ok(inner.states.iter().map(describe).collect())
    }

    fn start(&self, id: &InstanceId) -> Result<(), ComputeError> {
        let mut inner = self.reach()?;
        if inner.refuses_starts || inner.without_capacity.contains(id) {
            let detail = "the zone is full".into();
            return Err(ComputeError::NoCapacity { id: id.clone(), detail });
        }
        match inner.states.get_mut(id) {
            None => return Err(ComputeError::NoInstance(id.clone())),
            Some(state @ InstanceState::Stopped) => *state = InstanceState::Pending,
            Some(InstanceState::Running | InstanceState::Pending) => {}
            Some(state) => {
                let detail = format!("it is {state}");
                return Err(ComputeError::WrongState { id: id.clone(), detail });
            }
        }
        inner.effects.push((id.clone(), Effect::Start));
        Ok(())
    }

    fn stop(&self, id: &InstanceId) -> Result<(), ComputeError> {
        let mut inner = self.reach()?;
        match inner.states.get_mut(id) {
            None => return Err(ComputeError::NoInstance(id.clone())),
            Some(state @ (InstanceState::Running | InstanceState::Pending)) => {
                *state = InstanceState::Stopping;
            }
            Some(_) => {}
        }
        inner.effects.push((id.clone(), Effect::Stop));
        Ok(())
    }
}

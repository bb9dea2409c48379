//! Servers that are slots of this machine. A slot is a row with a state; what "off" means is up
//! to its staging client, which stops the app of a slot that does not run.

use crate::domain::{Instance, InstanceId, InstanceState};
use crate::ports::{Compute, ComputeError};
use crate::store::{Database, Store, StoreError, Won};

#[derive(Debug, Clone)]
pub struct LocalCompute {
    database: Database,
}

impl LocalCompute {
    pub fn new(database: Database) -> LocalCompute {
        LocalCompute { database }
    }

    fn store(&self) -> Result<Store, ComputeError> {
        self.database.open().map_err(unavailable)
    }

    fn set(&self, id: &InstanceId, state: InstanceState) -> Result<(), ComputeError> {
        match self.store()?.set_local_slot(id, state).map_err(unavailable)? {
            Won::Yes => Ok(()),
            Won::No => Err(ComputeError::NoInstance(id.clone())),
        }
    }
}

fn unavailable(error: StoreError) -> ComputeError {
    ComputeError::Unavailable(error.to_string())
}

impl Compute for LocalCompute {
    fn describe(&self, ids: &[InstanceId]) -> Result<Vec<Instance>, ComputeError> {
        let mut instances = self.list()?;
        instances.retain(|instance| ids.contains(&instance.id));
        Ok(instances)
    }

    fn list(&self) -> Result<Vec<Instance>, ComputeError> {
        let mut store = self.store()?;
        let slots = store.local_slots().map_err(unavailable)?;
        let busy = store.slots_with_apps().map_err(unavailable)?;
        let describe = |(id, state): (InstanceId, InstanceState)| Instance {
            // Switching a slot off stops nothing by itself: it takes until its client has.
            state: match state {
                InstanceState::Stopped if busy.contains(&id) => InstanceState::Stopping,
                state => state,
            },
            name: Some(id.0.clone()),
            id,
            private_ip: None,
            reason: None,
            role: None,
        };
        Ok(slots.into_iter().map(describe).collect())
    }

    fn start(&self, id: &InstanceId) -> Result<(), ComputeError> {
        self.set(id, InstanceState::Running)
    }

    fn stop(&self, id: &InstanceId) -> Result<(), ComputeError> {
        self.set(id, InstanceState::Stopped)
    }
}

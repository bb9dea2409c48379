//! Gathers what [`crate::plan`] decides upon.

use std::collections::HashMap;

use anyhow::Result;
use jiff::Timestamp;
use pullre::domain::{InstanceId, InstanceState};
use pullre::facts::Outcome;

use crate::app;
use crate::plan::Observed;
use crate::site::Site;

/// The states of this machine's slots; empty where it has none.
pub type Slots = HashMap<InstanceId, InstanceState>;

pub fn observe(site: &Site<'_>, slots: &Slots) -> Result<Observed> {
    let duty = site.duty.clone();
    let slot = duty.instance.as_ref().and_then(|id| slots.get(id)).copied();
    let serves =
        duty.task.as_ref().is_some_and(|task| task.deployment.outcome == Outcome::Succeeded);
    let app = app::look(site, serves)?;
    let collection_due = site.state.is_collection_due(duty.server)?;
    Ok(Observed { app, duty, slot, collection_due, now: Timestamp::now() })
}

//! What is true of every server, found out once: to compare each with each would be slow where
//! there are many. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::Timestamp;

use crate::condition;
use crate::domain::{InstanceId, InstanceState, PullNumber, SchemaName, ServerId};
use crate::facts::{Facts, Hold, Pull, Server};
use crate::schema_clone::mysql::looks_beside;

#[derive(Debug)]
pub struct Roster {
    assigned: HashMap<ServerId, PullNumber>,
    unusable: BTreeMap<ServerId, String>,
}

impl Roster {
    pub fn of(facts: &Facts) -> Roster {
        let mut assigned = HashMap::new();
        for assignment in facts.assignments.values() {
            assigned.entry(assignment.server).or_insert(assignment.pull);
        }
        Roster { assigned, unusable: all_unusable(facts) }
    }

    /// Whose environment this server is.
    pub fn pull(&self, server: ServerId) -> Option<PullNumber> {
        self.assigned.get(&server).copied()
    }

    /// As [`condition::unusable`].
    pub fn unusable(&self, server: ServerId) -> Option<&String> {
        self.unusable.get(&server)
    }

    /// Those that could be given to whoever waits.
    pub fn free<'f>(&self, facts: &'f Facts, now: Timestamp) -> Vec<Free<'f>> {
        let idle = facts.servers.values().filter(|server| {
            self.pull(server.id).is_none()
                && self.unusable(server.id).is_none()
                && server.hold.as_ref().is_none_or(|hold| !hold.holds_at(now))
        });
        idle.filter_map(|server| Free::of(server, now)).collect()
    }

    /// What a waiting pull request waits for; `taken` are servers that others are about to get.
    pub fn none_free(&self, facts: &Facts, taken: &BTreeSet<ServerId>, now: Timestamp) -> String {
        let pool: Vec<_> = facts.servers.values().filter(|server| server.is_staging).collect();
        if pool.is_empty() {
            return "there is no server in the pool; `update-pull server register` adds one".into();
        }
        let (used, rest): (Vec<&Server>, Vec<&Server>) = pool
            .iter()
            .partition(|server| self.pull(server.id).is_some() || taken.contains(&server.id));
        let rest: Vec<_> = rest
            .into_iter()
            .filter_map(|server| {
                let held =
                    server.hold.as_ref().filter(|hold| hold.holds_at(now)).map(Hold::to_string);
                let why = held.or_else(|| self.unusable(server.id).cloned())?;
                Some(format!("{}: {why}", server.name))
            })
            .collect();
        let mut text = format!("no server is free: {} of {} in use", used.len(), pool.len());
        for why in rest {
            text.push_str("; ");
            text.push_str(&why);
        }
        text
    }
}

/// What [`condition::unusable`] says of each server.
fn all_unusable(facts: &Facts) -> BTreeMap<ServerId, String> {
    let mut machines: HashMap<&InstanceId, u32> = HashMap::new();
    let mut schemas: HashMap<String, Vec<Option<ServerId>>> = HashMap::new();
    // One is enough to ask of all: that is rare, and not worth an index of its own.
    let mut is_odd = false;
    let mut used = |schema: &SchemaName, by: Option<ServerId>| {
        is_odd |= looks_beside(schema);
        schemas.entry(schema.as_str().to_lowercase()).or_default().push(by);
    };
    for server in facts.servers.values() {
        if let Some(instance) = &server.instance {
            *machines.entry(instance).or_default() += 1;
        }
        if let Ok(schema) = &server.schema {
            used(schema, Some(server.id));
        }
    }
    for schema in facts.users.iter().filter_map(|user| user.schema.as_ref().ok()) {
        used(schema, None);
    }
    for clone in facts.clones.values() {
        used(&clone.schema, Some(clone.server));
    }
    let alone = |server: &Server| {
        let machine =
            server.instance.as_ref().and_then(|id| machines.get(id)).is_none_or(|n| *n == 1);
        let schema = server.schema.as_ref().is_ok_and(|schema| {
            let by = schemas.get(&schema.as_str().to_lowercase());
            by.is_none_or(|by| by.iter().all(|by| *by == Some(server.id)))
        });
        machine && schema && !is_odd
    };
    let servers = facts.servers.values();
    let reasons = servers.filter_map(|server| {
        let why = match alone(server) {
            true => condition::lost(server),
            false => condition::unusable(server, facts),
        };
        Some((server.id, why?))
    });
    reasons.collect()
}

/// A server that could be given to whoever waits.
#[derive(Debug, Clone, Copy)]
pub struct Free<'f> {
    pub server: &'f Server,
    /// The provider lately had no machine for it.
    pub lacks_capacity: bool,
    /// How far its machine is from running.
    distance: u8,
}

impl<'f> Free<'f> {
    fn of(server: &'f Server, now: Timestamp) -> Option<Free<'f>> {
        let distance = match server.state? {
            InstanceState::Running => 0,
            InstanceState::Pending => 1,
            InstanceState::Stopped => 2,
            InstanceState::Stopping => 3,
            InstanceState::Terminated => return None,
        };
        let lacks_capacity = condition::lacks_capacity(server, now);
        Some(Free { server, lacks_capacity, distance })
    }

    /// How well it suits a pull request; the smaller, the better.
    pub fn rank(&self, pull: &Pull) -> (bool, bool, u8, ServerId) {
        let other = pull.last_server != Some(self.server.id);
        (self.lacks_capacity, other, self.distance, self.server.id)
    }
}

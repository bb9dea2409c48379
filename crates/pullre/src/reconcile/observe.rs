//! Everything a tick looks at, read at once.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::plan::{Observed, Reading};
use crate::condition::Policy;
use crate::domain::{Instance, InstanceId, PullState};
use crate::facts::Facts;
use crate::ports::{Compute, Forge, KnownPulls, PullReading};
use crate::store::{Store, StoreError};
use crate::words;

/// How often the open pull requests are read as a whole although nothing says that one changed.
const WHOLE_EVERY: Duration = Duration::from_secs(3600);

/// Asks the forge and the compute provider side by side. A source that fails becomes `Unknown`.
/// An error means that the control database cannot be read.
pub fn observe(
    store: &mut Store,
    forge: &dyn Forge,
    compute: &dyn Compute,
    policy: &Policy,
    now: Timestamp,
) -> Result<Observed, StoreError> {
    let mut facts = store.facts()?;
    let known = known_pulls(&facts, now);
    let (forge, instances) = std::thread::scope(|scope| {
        let forge = scope.spawn(|| forge.read_pulls(&known));
        let instances = instances(&facts, compute);
        let forge = match forge.join() {
            Ok(Ok(reading)) => Reading::Known(reading),
            Ok(Err(e)) => Reading::Unknown(e.to_string()),
            Err(panic) => std::panic::resume_unwind(panic),
        };
        (forge, instances)
    });
    if let Reading::Known(reading) = &forge {
        // Closed ones are no facts of a tick, but what is known of them tells news from old.
        let unknown = reading.pulls.iter().map(|pull| pull.number);
        let unknown: Vec<_> = unknown.filter(|n| !facts.pulls.contains_key(n)).collect();
        facts.pulls.extend(store.pulls(&unknown)?.into_iter().map(|p| (p.request.number, p)));
    }
    Ok(Observed { now, facts, forge, instances, policy: policy.clone(), confirmed: false })
}

/// The facts and the instances again, a moment later. The forge is not asked twice, so the bodies of
/// pull requests are compared with nothing, and not read.
pub fn observe_again(
    store: &mut Store,
    compute: &dyn Compute,
    now: Timestamp,
    earlier: &Observed,
) -> Result<Observed, StoreError> {
    let facts = store.facts_without_bodies()?;
    let instances = instances(&facts, compute);
    // Nothing new; but a forge that said nothing at the beginning has still said nothing.
    let forge = match &earlier.forge {
        Reading::Known(_) => Reading::Known(PullReading::default()),
        Reading::Unknown(why) => Reading::Unknown(why.clone()),
    };
    let (policy, confirmed) = (earlier.policy.clone(), earlier.confirmed);
    Ok(Observed { now, facts, forge, instances, policy, confirmed })
}

fn known_pulls(facts: &Facts, now: Timestamp) -> KnownPulls {
    let read_lately =
        facts.whole_read_at.is_some_and(|at| at <= now && words::between(at, now) < WHOLE_EVERY);
    KnownPulls {
        watermark: facts.watermark,
        whole: !read_lately,
        open: facts
            .pulls
            .values()
            .filter(|pull| pull.request.state == PullState::Open)
            .map(|pull| pull.request.number)
            .collect(),
    }
}

fn instances(facts: &Facts, compute: &dyn Compute) -> Reading<BTreeMap<InstanceId, Instance>> {
    let ids: Vec<_> = facts.servers.values().filter_map(|server| server.instance.clone()).collect();
    if ids.is_empty() {
        return Reading::Known(BTreeMap::new());
    }
    match compute.describe(&ids) {
        Ok(found) => Reading::Known(found.into_iter().map(|i| (i.id.clone(), i)).collect()),
        Err(e) => Reading::Unknown(e.to_string()),
    }
}

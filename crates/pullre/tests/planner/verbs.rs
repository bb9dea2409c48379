//! What operators' verbs do to environments that the planner has in its hands.

use insta::assert_snapshot;
use pullre::condition::Policy;
use pullre::domain::{InstanceState, PullNumber};
use pullre::ops::OpsError;
use testkit::world::World;

use crate::{plan, served, settled, stage};

/// Its label keeps it out, and it keeps its server for an hour.
fn in_its_grace() -> (World, PullNumber) {
    let (mut world, one) = served(1);
    world.policy.admission.skip_labels = vec!["no-staging".into()];
    world.hub.edit(one, world.now, |pull| pull.labels = vec!["no-staging".into()]);
    world.minutes(2);
    assert_eq!(world.apps.len(), 1, "its grace is not over");
    (world, one)
}

#[test]
fn a_stop_is_obeyed_at_once_also_where_a_rule_keeps_the_pull_request_out() {
    let (mut world, one) = in_its_grace();
    world.operator(&mut world.store()).pull_stop(one).unwrap();
    assert_snapshot!(stage(&world, one), @"ineligible: its label keeps it from one (`skip_labels`): no-staging; its server goes back to the pool");
    assert_snapshot!(plan(&world), @"#1    release stg1 (ineligible: it was stopped by tester 2026-11-22 12:06 UTC; `update-pull pull release 1` brings it back)");
    world.minutes(1);
    assert!(world.facts().assignments.is_empty());
    assert_eq!(world.fleet.state("stg1"), Some(InstanceState::Stopped));
}

#[test]
fn a_stop_that_would_do_nothing_is_refused() {
    let (mut world, one) = served(1);
    let stop = |world: &World| world.operator(&mut world.store()).pull_stop(one);
    world.operator(&mut world.store()).server_hold("stg1", "new disk", None).unwrap();
    assert_snapshot!(stop(&world).unwrap_err(), @"#1 is out of automatic hands: its server stg1 is held since 2026-11-22 12:04 UTC: new disk; `update-pull server release stg1` ends that");
    assert_eq!(world.store().pull(one).unwrap().unwrap().stopped, None);
    world.operator(&mut world.store()).server_release("stg1").unwrap();
    stop(&world).unwrap();
    world.minutes(1);
    assert!(world.apps.is_empty());
}

fn redeploy(world: &World, number: PullNumber) -> Result<&'static str, OpsError> {
    world.operator(&mut world.store()).redeploy(number, &world.policy, &world.locks())
}

#[test]
fn a_redeployment_ends_a_stop() {
    let (mut world, one) = served(1);
    world.operator(&mut world.store()).pull_stop(one).unwrap();
    world.minutes(2);
    assert!(world.apps.is_empty());
    assert_snapshot!(redeploy(&world, one).unwrap(), @"it is stopped no more, and gets a server");
    world.minutes(3);
    assert_snapshot!(stage(&world, one), @"ready: stg1 serves 9e3779b");
}

#[test]
fn a_stop_stays_where_a_redeployment_could_do_nothing() {
    let (mut world, one) = in_its_grace();
    world.operator(&mut world.store()).pull_stop(one).unwrap();
    assert_snapshot!(redeploy(&world, one).unwrap_err(), @"#1 may have no environment: its label keeps it from one (`skip_labels`): no-staging");
    world.policy = Policy::default();
    world.operator(&mut world.store()).pause().unwrap();
    assert_snapshot!(redeploy(&world, one).unwrap_err(), @"all effects are paused by tester since 2026-11-22 12:06 UTC; `update-pull resume` ends that");
    world.operator(&mut world.store()).resume().unwrap();
    world.operator(&mut world.store()).pull_hold(one, "", None).unwrap();
    assert_snapshot!(redeploy(&world, one).unwrap_err(), @"#1 is out of automatic hands: it is held since 2026-11-22 12:06 UTC; `update-pull pull release 1` ends that");
    world.hub.close(one, world.now);
    world.tick();
    assert_snapshot!(redeploy(&world, one).unwrap_err(), @"#1 is closed");
    assert!(world.store().pull(one).unwrap().unwrap().stopped.is_some());
}

#[test]
fn a_clone_by_hand_is_recorded_as_what_became_of_it() {
    let world = settled(1);
    let clone = |source: &str| {
        let (source, destination) = (source.parse().unwrap(), "stg1".parse().unwrap());
        let (schemas, cloning) = (world.schemas(), &world.policy.cloning);
        world.operator(&mut world.store()).clone_schema(
            &source,
            &destination,
            &schemas,
            &world.locks(),
            cloning,
            &mut |_| {},
        )
    };
    clone("nobody").unwrap_err();
    clone("dev1").unwrap();
    let by_hand = |what: &String| what.ends_with("by hand");
    let said: Vec<_> = world.events().into_iter().filter(by_hand).collect();
    assert_snapshot!(said.join("\n"), @"
    could not clone nobody to stg1 by hand
    cloned dev1 to stg1 by hand
    ");
}

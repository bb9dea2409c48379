//! What becomes of an environment whose machine does not do what it shall, and which servers are
//! given to nobody.

use std::sync::atomic::{AtomicUsize, Ordering};

use insta::assert_snapshot;
use pullre::domain::{Instance, InstanceId, InstanceState, ServerId};
use pullre::ports::{Compute, ComputeError};
use pullre::reconcile::Controller;
use pullre::store::Won;
use testkit::fuse::Fuse;
use testkit::world::World;

use crate::{plan, served, settled, stage};

#[test]
fn a_machine_that_is_refused_is_tried_again_and_explained() {
    let mut world = settled(1);
    world.fleet.refuse_starts(true);
    let one = world.hub.open("dev1", false, world.now);
    let report = world.tick();
    assert_snapshot!(report.failures.join("\n"), @"#1 on stg1: no capacity for instance stg1: the zone is full");
    assert_snapshot!(stage(&world, one), @"failed: stg1 does not start (try 1): no capacity for instance stg1: the zone is full; tried again after 2026-11-22 12:02 UTC; at once with `update-pull pull redeploy 1`");
    world.fleet.refuse_starts(false);
    world.advance(60);
    world.minutes(3);
    assert_snapshot!(stage(&world, one), @"ready: stg1 serves 9e3779b");
}

#[test]
fn a_machine_that_never_comes_up_is_failed_after_the_deadline_and_recovers() {
    let mut world = settled(1);
    let one = world.hub.open("dev1", false, world.now);
    for _ in 0..12 {
        world.tick();
        world.advance(60);
    }
    assert_snapshot!(stage(&world, one), @"failed: stg1 was started 2026-11-22 12:01 UTC and is not running after 10 min; it goes on by itself when the instance runs; look at it in the provider's console");
    world.minutes(2);
    assert_snapshot!(stage(&world, one), @"ready: stg1 serves 9e3779b");
}

#[test]
fn a_machine_that_somebody_stopped_is_started_and_deployed_again() {
    let (mut world, one) = served(1);
    world.fleet.force("stg1", Some(InstanceState::Stopped));
    world.settle_machines();
    assert_snapshot!(plan(&world), @"
    seen   stg1 is stopped
    #1    let the app on stg1 be stopped, start stg1 (its instance is stopped)
    ");
    world.minutes(3);
    assert_snapshot!(stage(&world, one), @"ready: stg1 serves 9e3779b");
    assert_eq!(world.apps.len(), 1);
}

#[test]
fn a_vanished_machine_is_replaced_by_another() {
    let (mut world, one) = served(2);
    world.fleet.force("stg1", None);
    assert_snapshot!(plan(&world), @"
    seen   stg1 has no instance
    #1    release stg1 (its instance does not exist, or no tick has seen it yet)
    ");
    world.minutes(4);
    assert_snapshot!(stage(&world, one), @"ready: stg2 serves 9e3779b");
}

#[test]
fn a_server_without_capacity_is_left_for_another_free_one() {
    let mut world = settled(2);
    world.fleet.set_capacity("stg1", false);
    let one = world.hub.open("dev1", false, world.now);
    world.tick();
    assert_snapshot!(plan(&world), @"#1    release stg1 (the provider has no machine for it, and another server is free)");
    world.advance(60);
    world.tick();
    assert_snapshot!(plan(&world), @"#1    assign stg2, start stg2, clone dev1 to stg2 (next in the queue)");
    world.minutes(3);
    assert_snapshot!(stage(&world, one), @"ready: stg2 serves 9e3779b");
    assert_eq!(world.fleet.state("stg1"), Some(InstanceState::Stopped));
}

#[test]
fn without_capacity_for_any_server_the_environment_stays_and_tries_again() {
    let mut world = settled(2);
    world.fleet.refuse_starts(true);
    let one = world.hub.open("dev1", false, world.now);
    world.minutes(5);
    let assigned = world.facts().assignments[&one].server;
    world.minutes(10);
    assert_eq!(world.facts().assignments[&one].server, assigned, "it does not wander about");
    world.fleet.refuse_starts(false);
    world.advance(3600);
    world.minutes(4);
    assert_eq!(stage(&world, one), "ready: stg2 serves 9e3779b");
}

#[test]
fn two_environments_without_capacity_do_not_fight_for_the_only_free_server() {
    let world = settled(3);
    world.fleet.set_capacity("stg1", false);
    world.fleet.set_capacity("stg2", false);
    world.hub.open("dev1", false, world.now);
    world.hub.open("dev2", false, world.now);
    world.tick();
    assert_snapshot!(plan(&world), @"
    #1    release stg1 (the provider has no machine for it, and another server is free)
    #2    clone dev2 to stg2 (it needs its data)
    ");
}

#[test]
fn data_that_is_there_is_not_left_at_the_first_refusal() {
    let (mut world, one) = served(2);
    world.fleet.set_capacity("stg1", false);
    world.fleet.force("stg1", Some(InstanceState::Stopped));
    world.settle_machines();
    world.minutes(2);
    assert_eq!(world.facts().assignments[&one].server.0, 1);
    world.minutes(10);
    assert_eq!(stage(&world, one), "ready: stg2 serves 9e3779b");
}

#[test]
fn a_start_that_falls_back_is_told_in_the_providers_words() {
    let mut world = settled(1);
    let one = world.hub.open("dev1", false, world.now);
    world.tick();
    world.fleet.fall_back("stg1", "Client.InternalError: the key of the volume is gone");
    world.advance(30);
    assert_snapshot!(plan(&world), @"
    seen   stg1 is stopped
    seen   stg1 does not start: it fell back to stopped: Client.InternalError: the key of the volume is gone
    ");
    world.tick();
    assert_snapshot!(stage(&world, one), @"failed: stg1 does not start (try 1): it fell back to stopped: Client.InternalError: the key of the volume is gone; tried again after 2026-11-22 12:02 UTC; at once with `update-pull pull redeploy 1`");
}

#[test]
fn a_held_server_is_given_to_nobody() {
    let mut world = settled(1);
    world.operator(&mut world.store()).server_hold("stg1", "new disk", None).unwrap();
    let one = world.hub.open("dev1", false, world.now);
    world.minutes(2);
    assert_snapshot!(stage(&world, one), @"queued: 1 of 1 in the queue; no server is free: 0 of 1 in use; stg1: held since 2026-11-22 12:01 UTC: new disk");
    assert!(world.fleet.effects().is_empty());
}

/// What a pull request waits for where the rows of servers were changed so, and no machine is touched.
fn waits_for(servers: usize, change: &str) -> (World, String) {
    let mut world = settled(servers);
    world.by_hand(change);
    let one = world.hub.open("dev1", false, world.now);
    world.minutes(2);
    assert!(world.fleet.effects().is_empty());
    let stage = stage(&world, one);
    (world, stage)
}

#[test]
fn two_rows_of_one_machine_are_given_to_nobody() {
    let (_, why) = waits_for(2, "UPDATE servers SET instance_id = 'stg1'");
    assert_snapshot!(why, @"queued: 1 of 1 in the queue; no server is free: 0 of 2 in use; stg1: server stg2 names the same instance; remove one of them; stg2: server stg1 names the same instance; remove one of them");
}

#[test]
fn two_servers_never_share_a_schema() {
    let (_, why) = waits_for(2, "UPDATE servers SET db_schema = 'STG1' WHERE name = 'stg2'");
    assert_snapshot!(why, @"queued: 1 of 1 in the queue; no server is free: 0 of 2 in use; stg1: server stg2 names the same schema stg1; give each its own; stg2: server stg1 names the same schema STG1; give each its own");
}

#[test]
fn a_schema_whose_name_clones_need_is_given_to_nobody() {
    let (_, why) = waits_for(2, "UPDATE servers SET db_schema = 'STG1~old' WHERE name = 'stg2'");
    assert_snapshot!(why, @"queued: 1 of 1 in the queue; no server is free: 0 of 2 in use; stg1: clones into its schema stg1 need the name STG1~old, which is another schema's; rename one of them; stg2: its schema STG1~old has a name that clones for server stg1 need; give it another");
    let (_, why) =
        waits_for(1, "UPDATE git_hub_users SET db_schema = 'stg1~new' WHERE login = 'dev1'");
    assert_snapshot!(why, @"queued: 1 of 1 in the queue; no server is free: 0 of 1 in use; stg1: clones into its schema stg1 need the name stg1~new, which is another schema's; rename one of them");
}

#[test]
fn a_developers_schema_is_never_a_servers() {
    let (world, why) = waits_for(1, "UPDATE servers SET db_schema = 'dev2'");
    assert_snapshot!(why, @"queued: 1 of 1 in the queue; no server is free: 0 of 1 in use; stg1: its schema dev2 is the development schema of user dev2, which is never overwritten");
    assert!(world.holds_data_of("dev2", "dev2"));
}

#[test]
fn a_machine_started_by_hand_is_left_running() {
    let mut world = settled(2);
    world.fleet.force("stg2", Some(InstanceState::Running));
    world.minutes(3);
    assert!(world.fleet.effects().is_empty());
}

/// A provider; right before its n-th answer something happens elsewhere.
struct Overtaken<'a> {
    inner: &'a dyn Compute,
    asked: AtomicUsize,
    nth: usize,
    meanwhile: &'a (dyn Fn() + Sync),
}

impl std::fmt::Debug for Overtaken<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Overtaken")
    }
}

impl Compute for Overtaken<'_> {
    fn describe(&self, ids: &[InstanceId]) -> Result<Vec<Instance>, ComputeError> {
        if self.asked.fetch_add(1, Ordering::SeqCst) + 1 == self.nth {
            (self.meanwhile)();
        }
        self.inner.describe(ids)
    }
    fn list(&self) -> Result<Vec<Instance>, ComputeError> {
        self.inner.list()
    }
    fn start(&self, id: &InstanceId) -> Result<(), ComputeError> {
        self.inner.start(id)
    }
    fn stop(&self, id: &InstanceId) -> Result<(), ComputeError> {
        self.inner.stop(id)
    }
}

#[test]
fn a_server_that_another_one_gets_between_two_looks_costs_nobody_a_tick() {
    let mut world = settled(2);
    let two = world.hub.open("dev2", false, world.now);
    world.operator(&mut world.store()).pause().unwrap();
    world.minutes(1);
    world.operator(&mut world.store()).resume().unwrap();
    world.operator(&mut world.store()).pull_hold(two, "", None).unwrap();
    let one = world.hub.open("dev1", false, world.now);
    // The facts that a chain has read show stg2 without a pull request, the machines show it on.
    let meanwhile = || {
        let source = "dev2".parse().unwrap();
        let won = world.store().assign(two, ServerId(2), &source, world.now).unwrap();
        assert_eq!(won, Won::Yes);
        world.fleet.force("stg2", Some(InstanceState::Running));
    };
    world.with_controller(&Fuse::never(), |controller| {
        let (inner, meanwhile) = (controller.compute, &meanwhile);
        let compute = Overtaken { inner, asked: AtomicUsize::new(0), nth: 2, meanwhile };
        Controller { compute: &compute, ..controller }.tick(world.now, false, &|_| {}).unwrap();
    });
    assert_eq!(world.facts().assignments[&one].server, ServerId(1));
}

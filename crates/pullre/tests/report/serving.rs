//! A server that goes on with another commit than the head, or with one that shall not be served
//! for long: nobody is told that it is gone.

use insta::assert_snapshot;
use pullre::domain::InstanceState;
use pullre::facts::AppDeath;
use testkit::fuse::Fuse;
use testkit::world::World;

use super::{ONE, comment, deployments, ready};

/// A ready environment whose deployment GitHub shows.
fn shown() -> World {
    let mut world = ready();
    world.report.deployments = true;
    world.tick();
    world
}

/// The lines of the comment that say what is served.
fn served(world: &World) -> String {
    let comment = comment(world, ONE);
    let lines = comment.lines().filter(|line| line.contains("erves") || line.contains("URL"));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn what_is_held_keeps_its_address_and_its_deployment() {
    let mut world = shown();
    world.operator(&mut world.store()).pull_hold(ONE, "shown to a customer", None).unwrap();
    world.tick();
    assert_snapshot!(served(&world), @"- Still serves: `9e3779b` at <http://stg1.example:8000/health?x=1>");
    world.hub.push(ONE, world.now);
    world.minutes(2);
    assert_snapshot!(served(&world), @"- Still serves: `9e3779b` at <http://stg1.example:8000/health?x=1>");
    assert_snapshot!(deployments(&world), @"[deployment pr-1 of 9e3779b] success http://stg1.example:8000/health?x=1");
    world.operator(&mut world.store()).pull_release(ONE).unwrap();
    world.minutes(3);
    assert_snapshot!(deployments(&world), @"
    [deployment pr-1 of 9e3779b] success, inactive -
    [deployment pr-1 of 3c6ef37] in_progress, success http://stg1.example:8000/health?x=1
    ");
}

#[test]
fn a_push_that_fails_leaves_the_old_commit_serving_and_says_so() {
    let mut world = shown();
    world.hub.push(ONE, world.now);
    world.tick();
    world.client_ticks(&Fuse::never(), |_| false);
    world.tick();
    assert_snapshot!(served(&world), @"- Still serves: `9e3779b` at <http://stg1.example:8000/health?x=1>");
    assert_snapshot!(deployments(&world), @"
    [deployment pr-1 of 9e3779b] success http://stg1.example:8000/health?x=1
    [deployment pr-1 of 3c6ef37] in_progress, failure -
    ");
    world.operator(&mut world.store()).pull_hold(ONE, "", None).unwrap();
    world.tick();
    assert_snapshot!(served(&world), @"- Still serves: `9e3779b` at <http://stg1.example:8000/health?x=1>");
    world.operator(&mut world.store()).pull_release(ONE).unwrap();
    world.advance(70);
    world.minutes(3);
    assert_snapshot!(deployments(&world), @"
    [deployment pr-1 of 9e3779b] success, inactive -
    [deployment pr-1 of 3c6ef37] in_progress, failure, in_progress, success http://stg1.example:8000/health?x=1
    ");
}

#[test]
fn in_its_grace_an_environment_keeps_its_address_and_its_deployment() {
    let mut world = shown();
    world.policy.admission.skip_drafts = true;
    world.hub.edit(ONE, world.now, |pull| pull.is_draft = true);
    world.minutes(2);
    assert_snapshot!(served(&world), @"- Still serves: `9e3779b` at <http://stg1.example:8000/health?x=1>");
    assert_snapshot!(deployments(&world), @"[deployment pr-1 of 9e3779b] success http://stg1.example:8000/health?x=1");
    world.advance(3700);
    world.minutes(2);
    assert_snapshot!(served(&world), @"");
    assert_snapshot!(deployments(&world), @"[deployment pr-1 of 9e3779b] success, inactive -");
}

#[test]
fn what_is_not_known_to_run_is_not_said_to_be_served() {
    let mut world = shown();
    world.operator(&mut world.store()).pull_hold(ONE, "shown to a customer", None).unwrap();
    world.advance(700);
    world.tick();
    assert_snapshot!(served(&world), @"");
}

#[test]
fn what_does_not_run_is_not_said_to_be_served() {
    let world = shown();
    world.operator(&mut world.store()).pull_hold(ONE, "shown to a customer", None).unwrap();
    let said_after = |world: &World| {
        world.tick();
        served(world)
    };
    assert!(said_after(&world).contains("Still serves"));

    let assignment = world.facts().assignments[&ONE].clone();
    let death = AppDeath {
        deployment: assignment.deployment.unwrap().id,
        times: 1,
        at: world.now,
        again_at: world.now,
        reason: "out of memory".into(),
    };
    world.store().app_died(assignment.server, &death).unwrap();
    assert_eq!(said_after(&world), "");
    world.store().app_lives(assignment.server).unwrap();
    assert!(said_after(&world).contains("Still serves"));

    world.by_hand("UPDATE server_facts SET app_pull = 2");
    assert_eq!(said_after(&world), "", "it is another one's app");
    world.by_hand("UPDATE server_facts SET app_pull = 1");
    assert!(said_after(&world).contains("Still serves"));

    world.fleet.force("stg1", Some(InstanceState::Stopping));
    assert_eq!(said_after(&world), "");
}

#[test]
fn closed_while_it_is_held_it_keeps_its_server_and_says_so() {
    let mut world = shown();
    world.operator(&mut world.store()).pull_hold(ONE, "shown to a customer", None).unwrap();
    world.hub.close(ONE, world.now);
    world.minutes(2);
    assert_snapshot!(comment(&world, ONE), @"
    <!-- pullre:1 -->
    **Staging: closed, and held**

    It is held since 2026-11-22 12:04 UTC: shown to a customer.

    Nothing is done for it until then, or `/pullre release` in a comment.

    - Still serves: `9e3779b` at <http://stg1.example:8000/health?x=1>
    ");
    assert_snapshot!(deployments(&world), @"[deployment pr-1 of 9e3779b] success http://stg1.example:8000/health?x=1");
    world.hub.let_write("alice");
    world.hub.comment(ONE, "alice", "/pullre release", world.now);
    world.minutes(2);
    assert_snapshot!(comment(&world, ONE), @"
    <!-- pullre:1 -->
    **Staging: closed**

    Its server goes back to the pool.
    ");
    assert_snapshot!(deployments(&world), @"[deployment pr-1 of 9e3779b] success, inactive -");
    let writes = world.hub.told().writes;
    world.minutes(2);
    assert_eq!(world.hub.told().writes, writes, "all is said");
}

//! What fails on a server: how it is tried again, and what a person is told.

use insta::assert_snapshot;
use pullre::facts::{AppDeath, Pulse};
use pullre::ops::Operator;
use pullre::status;
use testkit::fuse::Fuse;
use testkit::world::World;

use crate::{plan, served, settled, stage};

#[test]
fn a_failed_deployment_is_tried_again_with_growing_pauses() {
    let mut world = settled(1);
    let one = world.hub.open("dev1", false, world.now);
    world.minutes(1);
    let mut tries = Vec::new();
    for minute in 0..20 {
        world.tick();
        world.client_ticks(&Fuse::never(), |_| false);
        let attempt = world.facts().assignments[&one].deployment.as_ref().unwrap().attempt;
        if tries.last().is_none_or(|(_, last)| *last != attempt) {
            tries.push((minute, attempt));
        }
        world.advance(60);
    }
    assert_eq!(tries, [(0, 1), (1, 2), (3, 3), (7, 4), (15, 5)]);
    assert_snapshot!(stage(&world, one), @"failed: its deployment failed (try 5): migrate: exit status 1; tried again after 2026-11-22 12:33 UTC; at once with `update-pull pull redeploy 1`");

    // A new head is tried at once, and counts from one again.
    world.hub.push(one, world.now);
    world.minutes(1);
    assert_snapshot!(stage(&world, one), @"ready: stg1 serves 3c6ef37");
}

#[test]
fn a_person_can_have_it_tried_at_once() {
    let mut world = settled(1);
    let one = world.hub.open("dev1", false, world.now);
    world.minutes(1);
    for _ in 0..4 {
        world.tick();
        world.client_ticks(&Fuse::never(), |_| false);
        world.advance(60);
    }
    world.operator(&mut world.store()).redeploy(one, &world.policy, &world.locks()).unwrap();
    world.client_ticks(&Fuse::never(), |_| true);
    assert_snapshot!(stage(&world, one), @"ready: stg1 serves 9e3779b");
}

#[test]
fn a_silent_client_is_failed_after_the_deadline_and_recovers() {
    let mut world = settled(1);
    let one = world.hub.open("dev1", false, world.now);
    for _ in 0..14 {
        world.tick();
        world.settle_machines();
        world.advance(60);
    }
    assert_snapshot!(stage(&world, one), @"failed: stg1 does not deploy it: its staging client has never given a sign of life; look at cron and the log of staging-client on stg1; it goes on by itself when the client does");
    world.minutes(1);
    assert_snapshot!(stage(&world, one), @"ready: stg1 serves 9e3779b");
}

#[test]
fn an_app_that_dies_again_and_again_is_failed_with_its_last_words_until_it_is_proved_to_run() {
    let (world, one) = served(1);
    let assignment = world.facts().assignments[&one].clone();
    let (server, deployment) = (assignment.server, assignment.deployment.unwrap().id);
    let death = |deployment, times| AppDeath {
        deployment,
        times,
        at: world.now,
        again_at: world.now + jiff::SignedDuration::from_mins(2),
        reason: "out of memory".into(),
    };
    // The client says that an app is at the schema before it starts it.
    world.store().app_died(server, &death(deployment, 2)).unwrap();
    assert_snapshot!(stage(&world, one), @"failed: the app on stg1 died 2 times, the last time at 2026-11-22 12:04 UTC: out of memory; its staging client starts it again at 2026-11-22 12:06 UTC; `staging-client logs` on stg1 shows its end");
    world.store().app_lives(server).unwrap();
    assert_snapshot!(stage(&world, one), @"ready: stg1 serves 9e3779b");
    // Of a deployment that is over.
    world.store().app_died(server, &death(deployment - 1, 1)).unwrap();
    assert_snapshot!(stage(&world, one), @"ready: stg1 serves 9e3779b");
}

#[test]
fn a_full_disk_and_a_silent_client_are_seen_at_the_server_and_in_the_explanation() {
    let (mut world, one) = served(1);
    let server = world.facts().assignments[&one].server;
    let pulse = |free_bytes| Pulse { free_bytes, total_bytes: 40_000_000_000, load_percent: 20 };
    let notes = |world: &World| {
        let facts = world.facts();
        let picture = status::status(&facts, &world.policy, world.now);
        assert_eq!(picture.servers[0].note, picture.environments[0].server_note);
        picture.servers[0].note.clone().unwrap_or_default()
    };
    world.store().measured(server, &pulse(20_000_000_000)).unwrap();
    assert_snapshot!(notes(&world), @"");
    world.store().measured(server, &pulse(3_900_000_000)).unwrap();
    assert_snapshot!(notes(&world), @"its disk is nearly full: 3.9 GB of 40.0 GB are free");
    world.advance(3600);
    assert_snapshot!(notes(&world), @"its staging client is silent since 2026-11-22 12:03 UTC; its disk is nearly full: 3.9 GB of 40.0 GB are free");
    let mut store = world.store();
    let operator = &mut Operator { store: &mut store, who: "olga", now: world.now };
    let told = operator.explain(one, &world.policy).unwrap().to_string();
    assert!(told.contains("server  stg1 (its staging client is silent"), "{told}");
}

#[test]
fn an_app_that_died_is_not_called_ready() {
    let (world, one) = served(1);
    let server = world.facts().assignments[&one].server;
    world.store().app_is(server, None).unwrap();
    assert_snapshot!(stage(&world, one), @"failed: the app on stg1 died; its staging client starts it again, with growing pauses; `staging-client logs` on stg1 shows its end");
    assert_snapshot!(plan(&world), @"nothing to do");
}

#[test]
fn an_app_that_cannot_be_stopped_is_named() {
    let (mut world, one) = served(1);
    let server = world.facts().assignments[&one].server;
    world.operator(&mut world.store()).reset_db(one, &world.locks()).unwrap();
    world.tick();
    let trouble = Some("it cannot stop the app: it is another user's");
    world.store().agent_trouble(server, trouble).unwrap();
    assert_snapshot!(stage(&world, one), @"failed: stg1 does not deploy it: it cannot stop the app: it is another user's; look at cron and the log of staging-client on stg1; it goes on by itself when the client does");
    world.store().agent_trouble(server, None).unwrap();
    world.minutes(3);
    assert_snapshot!(stage(&world, one), @"ready: stg1 serves 9e3779b");
}

//! What a plan looks like in the situations that an operator meets.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use insta::assert_snapshot;
use jiff::SignedDuration;
use pullre::domain::{InstanceState, PullNumber};
use pullre::facts::{AppDeath, Pulse};
use pullre::ops::Operator;
use pullre::reconcile::Said;
use pullre::stage::{Stage, standing};
use pullre::status;
use testkit::fleet::Effect;
use testkit::fuse::Fuse;
use testkit::world::World;

pub fn plan(world: &World) -> String {
    world.plan().1.to_string()
}

pub fn stage(world: &World, number: PullNumber) -> String {
    let mut store = world.store();
    let pull = store.pull(number).unwrap().unwrap();
    let standing = standing(&pull, &world.facts(), &world.policy, world.now);
    let next = standing.next.map_or(String::new(), |next| format!("; {next}"));
    format!("{}: {}{next}", standing.stage, standing.why)
}

/// An installation whose first tick is done, so that plans show only what the story adds.
pub fn settled(servers: usize) -> World {
    let mut world = World::new(servers);
    world.minutes(1);
    world
}

#[test]
fn nothing_follows_from_nothing() {
    assert_snapshot!(plan(&settled(2)), @"nothing to do");
}

#[test]
fn a_new_pull_request_gets_a_server_and_its_authors_data() {
    let world = settled(2);
    world.hub.open("dev1", false, world.now);
    assert_snapshot!(plan(&world), @"
    seen   #1 open at 9e3779b by dev1: Feature 1
    seen   #1 may have an environment
    #1    assign stg1, start stg1, clone dev1 to stg1 (next in the queue)
    ");
}

#[test]
fn a_life_from_open_to_closed() {
    let mut world = settled(1);
    let one = world.hub.open("dev1", false, world.now);

    world.tick();
    assert_eq!(world.fleet.state("stg1"), Some(InstanceState::Pending));
    assert!(world.holds_data_of("stg1", "dev1"), "the clone does not wait for the machine");
    assert_snapshot!(stage(&world, one), @"starting: stg1 comes up since 2026-11-22 12:01 UTC");
    assert_snapshot!(plan(&world), @"nothing to do");

    world.settle_machines();
    assert_snapshot!(plan(&world), @"
    seen   stg1 is running
    #1    deploy 9e3779b on stg1 (ready to deploy)
    ");
    world.tick();
    assert_snapshot!(stage(&world, one), @"deploying: waits for the staging client of stg1 since 2026-11-22 12:01 UTC");
    world.client_ticks(&Fuse::never(), |_| true);
    assert_snapshot!(stage(&world, one), @"ready: stg1 serves 9e3779b");
    assert_snapshot!(plan(&world), @"nothing to do");

    world.advance(60);
    world.hub.push(one, world.now);
    assert_snapshot!(plan(&world), @"
    seen   #1 open at 3c6ef37 by dev1: Feature 1
    #1    deploy 3c6ef37 on stg1 (new head)
    ");
    world.minutes(1);
    assert_snapshot!(stage(&world, one), @"ready: stg1 serves 3c6ef37");

    world.hub.close(one, world.now);
    assert_snapshot!(plan(&world), @"
    seen   #1 closed at 3c6ef37 by dev1: Feature 1
    #1    release stg1 (closed)
    ");
    world.minutes(2);
    assert_eq!(world.fleet.state("stg1"), Some(InstanceState::Stopped));
    assert_snapshot!(stage(&world, one), @"closed: it is closed");
    assert_snapshot!(plan(&world), @"nothing to do");
}

#[test]
fn a_full_pool_makes_a_queue_and_the_oldest_goes_first() {
    let mut world = settled(1);
    let one = world.hub.open("dev1", false, world.now);
    world.minutes(3);
    let two = world.hub.open("dev2", false, world.now);
    world.minutes(1);
    let three = world.hub.open("dev1", false, world.now);
    world.minutes(1);
    assert_snapshot!(plan(&world), @"
    #2    waits, place 1: no server is free: 1 of 1 in use
    #3    waits, place 2: no server is free: 1 of 1 in use
    ");
    assert_snapshot!(stage(&world, three), @"queued: 2 of 2 in the queue; no server is free: 1 of 1 in use");

    world.hub.close(one, world.now);
    world.minutes(1);
    assert!(world.facts().assignments.contains_key(&two), "freed and given on in one tick");
    assert!(!world.facts().assignments.contains_key(&three));
    world.minutes(3);
    assert!(world.holds_data_of("stg1", "dev2"));
    assert_eq!(world.fleet.effects().len(), 1, "the machine was never stopped in between");
}

#[test]
fn a_reopened_pull_request_gets_the_server_that_it_had() {
    let mut world = settled(3);
    let one = world.hub.open("dev1", false, world.now);
    let two = world.hub.open("dev2", false, world.now);
    world.minutes(3);
    assert_eq!(world.facts().assignments[&two].server.0, 2);
    world.hub.close(one, world.now);
    world.hub.close(two, world.now);
    world.minutes(2);
    world.hub.reopen(two, world.now);
    assert_snapshot!(plan(&world), @"
    seen   #2 open at 3c6ef37 by dev2: Feature 2
    seen   #2 may have an environment
    #2    assign stg2, start stg2 (the server that it had before)
    ");
}

#[test]
fn a_fork_waits_for_the_approval_of_exactly_its_head() {
    let mut world = settled(1);
    let one = world.hub.open("dev1", true, world.now);
    world.minutes(1);
    let head = world.hub.pulls()[0].head.clone();
    assert_snapshot!(stage(&world, one), @"ineligible: it comes from a fork; `update-pull pull approve 1 9e3779b900000000000000000000000000000001` lets exactly this commit run");
    assert_snapshot!(plan(&world), @"nothing to do");

    let mut store = world.store();
    let other = "1".repeat(40).parse().unwrap();
    assert_snapshot!(world.operator(&mut store).approve(one, &other).unwrap_err(), @"the head of #1 is 9e3779b900000000000000000000000000000001, not 1111111111111111111111111111111111111111: look at that commit, then approve it");
    world.operator(&mut store).approve(one, &head).unwrap();
    world.minutes(3);
    assert_snapshot!(stage(&world, one), @"ready: stg1 serves 9e3779b");

    // A new head is not covered by the approval; the approved one keeps serving for a while.
    world.hub.push(one, world.now);
    world.minutes(2);
    assert_snapshot!(stage(&world, one), @"ineligible: its fork has a new head 3c6ef37 while 9e3779b is approved; `update-pull pull approve 1 3c6ef37200000000000000000000000000000002` lets it run; its server keeps 9e3779b until 2026-11-22 13:05 UTC");
    assert_eq!(world.apps.values().next().unwrap().sha, head);
    world.minutes(65);
    assert!(world.apps.is_empty(), "the grace is over");
}

#[test]
fn an_author_without_a_schema_is_told_so_and_default_serves_everybody() {
    let mut world = settled(1);
    let one = world.hub.open("stranger", false, world.now);
    world.minutes(1);
    assert_snapshot!(stage(&world, one), @"ineligible: its author stranger has no schema to clone; `update-pull user set stranger SCHEMA` gives one (the login `default` is for everybody else)");
    world.write_schema("common");
    world.operator(&mut world.store()).user_set("default", "common").unwrap();
    world.minutes(3);
    assert!(world.holds_data_of("stg1", "common"));
}

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
fn a_machine_that_is_refused_or_falls_back_is_tried_again_and_explained() {
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
    let mut world = settled(1);
    let one = world.hub.open("dev1", false, world.now);
    world.minutes(3);
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
    let mut world = settled(1);
    let one = world.hub.open("dev1", false, world.now);
    world.minutes(3);
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
    let mut world = settled(1);
    let one = world.hub.open("dev1", false, world.now);
    world.minutes(3);
    let server = world.facts().assignments[&one].server;
    world.store().app_is(server, None).unwrap();
    assert_snapshot!(stage(&world, one), @"failed: the app on stg1 died; its staging client starts it again, with growing pauses; `staging-client logs` on stg1 shows its end");
    assert_snapshot!(plan(&world), @"nothing to do");
}

#[test]
fn a_machine_that_somebody_stopped_is_started_and_deployed_again() {
    let mut world = settled(1);
    let one = world.hub.open("dev1", false, world.now);
    world.minutes(3);
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
    let mut world = settled(2);
    let one = world.hub.open("dev1", false, world.now);
    world.minutes(3);
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
    let mut world = settled(2);
    let one = world.hub.open("dev1", false, world.now);
    world.minutes(3);
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
fn paused_is_paused_for_controller_and_client() {
    let mut world = settled(1);
    let one = world.hub.open("dev1", false, world.now);
    world.minutes(3);
    world.operator(&mut world.store()).pause().unwrap();
    world.hub.push(one, world.now);
    let apps = world.apps.clone();
    world.minutes(3);
    assert_eq!(world.apps, apps);
    assert_snapshot!(plan(&world), @"note   paused by tester since 2026-11-22 12:04 UTC; nothing is done until `update-pull resume`");
    world.operator(&mut world.store()).resume().unwrap();
    world.minutes(2);
    assert_ne!(world.apps, apps);
}

#[test]
fn a_held_environment_is_left_alone_until_its_hold_ends() {
    let mut world = settled(1);
    let one = world.hub.open("dev1", false, world.now);
    world.minutes(3);
    let two_hours = Some(Duration::from_secs(7200));
    world.operator(&mut world.store()).pull_hold(one, "shown to a customer", two_hours).unwrap();
    let apps = world.apps.clone();
    world.hub.close(one, world.now);
    world.minutes(119);
    assert_eq!(world.apps, apps);
    assert_snapshot!(stage(&world, one), @"held: it is held since 2026-11-22 12:04 UTC until 2026-11-22 14:04 UTC: shown to a customer; nothing is done for it until then, or `update-pull pull release 1`");
    world.minutes(4);
    assert!(world.apps.is_empty());
    assert_snapshot!(stage(&world, one), @"closed: it is closed");
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

#[test]
fn fresh_data_is_cloned_only_once_the_app_has_stopped() {
    let mut world = settled(1);
    let one = world.hub.open("dev1", false, world.now);
    world.minutes(3);
    world.operator(&mut world.store()).reset_db(one, &world.locks()).unwrap();
    assert_snapshot!(plan(&world), @"#1    let the app on stg1 be stopped (its data is to be replaced)");
    world.tick();
    assert_snapshot!(stage(&world, one), @"cloning: stg1 must stop the app of #1 first; its staging client does it");
    assert_snapshot!(plan(&world), @"nothing to do");
    world.client_ticks(&Fuse::never(), |_| true);
    assert!(world.apps.is_empty());
    assert_snapshot!(plan(&world), @"#1    clone dev1 to stg1 (it needs its data)");
    world.minutes(2);
    assert_snapshot!(stage(&world, one), @"ready: stg1 serves 9e3779b");
}

#[test]
fn many_environments_never_end_at_once_without_a_person() {
    let mut world = settled(3);
    world.policy.max_changes = 2;
    let pulls: Vec<_> = (0..3).map(|_| world.hub.open("dev1", false, world.now)).collect();
    world.minutes(3);
    pulls.iter().for_each(|number| world.hub.close(*number, world.now));
    assert_snapshot!(plan(&world), @"
    seen   #1 closed at 9e3779b by dev1: Feature 1
    seen   #2 closed at 3c6ef37 by dev1: Feature 2
    seen   #3 closed at daa66d2 by dev1: Feature 3
    refused: 3 environments would be stopped or cloned over at once, and max_changes is 2; if that is right: update-pull tick --confirm
      not  #1    release stg1 (closed)
      not  #2    release stg2 (closed)
      not  #3    release stg3 (closed)
    ");
    assert_snapshot!(world.tick().failures.join("\n"), @"3 environments would be stopped or cloned over at once, and max_changes is 2; if that is right: update-pull tick --confirm");
    world.minutes(3);
    assert_eq!(world.apps.len(), 3);
    let report = world.with_controller(&Fuse::never(), |c| c.tick(world.now, true, &|_| {}));
    assert!(report.unwrap().failures.is_empty());
    world.minutes(2);
    assert!(world.apps.is_empty());
}

#[test]
fn a_schema_that_pullre_did_not_make_is_never_overwritten() {
    let mut world = settled(1);
    world.write_schema("stg1");
    let one = world.hub.open("dev1", false, world.now);
    let report = world.tick();
    assert_snapshot!(report.failures.join("\n"), @"#1 on stg1: schema stg1 holds something that pullre did not make; empty it, or let it be overwritten with `update-pull server take-over stg1`");
    world.minutes(30);
    assert!(world.holds_data_of("stg1", "stg1"));
    assert_snapshot!(stage(&world, one), @"failed: its database was not cloned (try 5): schema stg1 holds something that pullre did not make; empty it, or let it be overwritten with `update-pull server take-over stg1`; tried again after 2026-11-22 12:36 UTC; at once with `update-pull pull redeploy 1`");
    let locks = world.locks();
    world.operator(&mut world.store()).server_take_over("stg1", &locks).unwrap();
    world.minutes(3);
    assert!(world.holds_data_of("stg1", "dev1"));
}

#[test]
fn a_reset_makes_no_schema_ours() {
    let world = settled(1);
    world.write_schema("stg1");
    let one = world.hub.open("dev1", false, world.now);
    world.tick();
    let refused = world.operator(&mut world.store()).reset_db(one, &world.locks()).unwrap_err();
    assert_snapshot!(refused, @"#1 has no database of its own yet; `update-pull explain 1` says why");
    world.operator(&mut world.store()).redeploy(one, &world.policy, &world.locks()).unwrap();
    world.tick();
    assert!(world.holds_data_of("stg1", "stg1"));
}

#[test]
fn nothing_is_taken_away_while_github_says_nothing() {
    let mut world = settled(1);
    let one = world.hub.open("dev1", true, world.now);
    world.minutes(1);
    let head = world.hub.pulls()[0].head.clone();
    world.operator(&mut world.store()).approve(one, &head).unwrap();
    world.minutes(3);
    world.hub.push(one, world.now);
    world.minutes(1);
    world.hub.set_unreachable(true);
    world.minutes(90);
    assert_eq!(world.apps.len(), 1, "its grace is over, but it may be approved by now");
    world.hub.set_unreachable(false);
    world.minutes(3);
    assert!(world.apps.is_empty());
}

#[test]
fn two_rows_of_one_machine_are_given_to_nobody() {
    let mut world = settled(2);
    world.by_hand("UPDATE servers SET instance_id = 'stg1'");
    let one = world.hub.open("dev1", false, world.now);
    world.minutes(2);
    assert_snapshot!(stage(&world, one), @"queued: 1 of 1 in the queue; no server is free: 0 of 2 in use; stg1: server stg2 names the same instance; remove one of them; stg2: server stg1 names the same instance; remove one of them");
    assert!(world.fleet.effects().is_empty());
}

#[test]
fn an_app_that_cannot_be_stopped_is_named() {
    let mut world = settled(1);
    let one = world.hub.open("dev1", false, world.now);
    world.minutes(3);
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

#[test]
fn two_servers_never_share_a_schema() {
    let mut world = settled(2);
    let sql = "UPDATE servers SET db_schema = 'STG1' WHERE name = 'stg2'";
    world.by_hand(sql);
    let one = world.hub.open("dev1", false, world.now);
    world.minutes(2);
    assert_snapshot!(stage(&world, one), @"queued: 1 of 1 in the queue; no server is free: 0 of 2 in use; stg1: server stg2 names the same schema stg1; give each its own; stg2: server stg1 names the same schema STG1; give each its own");
    assert!(world.fleet.effects().is_empty());
}

#[test]
fn a_developers_schema_is_never_a_servers() {
    let mut world = settled(1);
    world.by_hand("UPDATE servers SET db_schema = 'dev2'");
    let one = world.hub.open("dev1", false, world.now);
    world.minutes(2);
    assert_snapshot!(stage(&world, one), @"queued: 1 of 1 in the queue; no server is free: 0 of 1 in use; stg1: its schema dev2 is the development schema of user dev2, which is never overwritten");
    assert!(world.holds_data_of("dev2", "dev2"));
}

#[test]
fn a_row_of_nonsense_concerns_nobody_else() {
    let mut world = settled(2);
    world.by_hand("UPDATE servers SET db_schema = NULL, is_staging = NULL WHERE name = 'stg1'");
    world.by_hand(
        "INSERT INTO pull_requests (created_at, updated_at, number, state, sha)
                   VALUES ('x', 'y', 77, 'open', 'not a sha')",
    );
    world.by_hand("INSERT INTO assignments VALUES (99, 78, 0, NULL)");
    let one = world.hub.open("dev1", false, world.now);
    world.minutes(3);
    assert_snapshot!(stage(&world, one), @"ready: stg2 serves 9e3779b");
    assert_snapshot!(plan(&world), @r#"note   row 77 of pull_requests makes no sense and is left alone: sha: "not a sha" is not a whole commit id (40 or 64 hexadecimal digits)"#);
}

#[test]
fn a_server_whose_row_is_nonsense_keeps_its_environment() {
    let mut world = settled(2);
    let one = world.hub.open("dev1", false, world.now);
    world.minutes(3);
    world.by_hand("UPDATE server_facts SET held_at = 'x', state = 'melted' WHERE server_id = 1");
    assert_snapshot!(plan(&world), @r#"note   row 1 of servers makes no sense and is left alone: held_at is Text("x") and not a number"#);
    assert_snapshot!(stage(&world, one), @"failed: the row of its server makes no sense; nothing is done for it until the row is mended; `update-pull status` names it");
    let apps = world.apps.clone();
    world.tick();
    assert!(world.facts().assignments.contains_key(&one));
    assert_eq!(world.apps, apps);
}

#[test]
fn a_machine_started_by_hand_is_left_running() {
    let mut world = settled(2);
    world.fleet.force("stg2", Some(InstanceState::Running));
    world.minutes(3);
    assert!(world.fleet.effects().is_empty());
}

#[test]
fn a_tick_beside_another_skips_what_is_locked_and_acts_once() {
    let mut world = settled(2);
    world.hub.open("dev1", false, world.now);
    world.hub.open("dev2", false, world.now);
    let nested = AtomicBool::new(false);
    world.tick_beside(&|said| {
        // A whole second tick, while the first one holds the locks of what it works on.
        if matches!(said, Said::Done { .. }) && !nested.swap(true, Ordering::SeqCst) {
            world.tick();
        }
    });
    assert!(nested.into_inner());
    let starts = world.fleet.effects();
    assert_eq!(starts.len(), 2, "{starts:?}");
    assert!(starts.iter().all(|(_, effect)| *effect == Effect::Start));
    world.minutes(3);
    assert_eq!(world.apps.len(), 2);
}

#[test]
fn history_goes_after_its_time_and_what_serves_stays() {
    let mut world = settled(2);
    let one = world.hub.open("dev1", false, world.now);
    let two = world.hub.open("dev1", false, world.now);
    world.minutes(3);
    world.hub.close(two, world.now);
    world.minutes(2);
    world.now += SignedDuration::from_hours(24 * 91);
    world.minutes(1);
    let mut store = world.store();
    assert_eq!(store.deployments_of(two, 10).unwrap(), []);
    assert_eq!(store.events_of(two, 10).unwrap(), []);
    assert_eq!(store.deployments_of(one, 10).unwrap().len(), 1);
    let pull = store.pull(one).unwrap().unwrap();
    assert_eq!(standing(&pull, &world.facts(), &world.policy, world.now).stage, Stage::Ready);
}

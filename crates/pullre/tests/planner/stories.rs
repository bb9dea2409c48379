//! What a plan looks like in the situations that an operator meets.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use insta::assert_snapshot;
use jiff::SignedDuration;
use pullre::domain::InstanceState;
use pullre::reconcile::Said;
use pullre::stage::{Stage, standing};
use testkit::fleet::Effect;
use testkit::fuse::Fuse;

use crate::{plan, served, settled, stage};

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
    let (mut world, one) = served(1);
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
fn paused_is_paused_for_controller_and_client() {
    let (mut world, one) = served(1);
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
    let (mut world, one) = served(1);
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

#[test]
fn a_tick_reads_once_what_people_wrote_however_much_it_does() {
    const LONG: usize = 100_000;
    let world = settled(0);
    for _ in 0..5 {
        let number = world.hub.open("dev1", false, world.now);
        world.hub.edit(number, world.now, |pull| pull.body = "b".repeat(LONG));
    }
    world.tick();
    (0..3).for_each(|_| drop(world.add_server()));
    let fuse = Fuse::never();
    let report = world.try_tick(&fuse).unwrap();
    assert!(report.acted > 3, "{report:?}");
    assert!(fuse.bytes_read() < 2 * 5 * LONG, "{} bytes", fuse.bytes_read());
}

//! A process that dies after any number of operations, and two at once: never two check runs of a
//! commit, never two comments, and the truth at the end.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use insta::assert_snapshot;
use pullre::domain::InstanceState;
use pullre::facts::Outcome;
use pullre::ports::CheckState;
use pullre::reconcile::Said;
use testkit::fuse::Fuse;
use testkit::world::World;

use super::{ONE, checks, failed, offered, opened, ready};

/// As many as there shall be, and none that was asked to say what it cannot.
fn nothing_twice(world: &World, what: &str) {
    let told = world.hub.told();
    assert_eq!(told.in_vain, 0, "{what}: a completed check run was asked to say something else");
    assert_eq!(told.needless, [] as [String; 0], "{what}: a check run that nobody needs");
    let comments = told.comments.values().filter(|(_, c)| c.body.contains("<!-- pullre:1 -->"));
    assert!(comments.count() <= 1, "{what}: two comments");
    let deployments: Vec<_> = told.deployments.values().map(|(sha, env, _)| (sha, env)).collect();
    let distinct: BTreeSet<_> = deployments.iter().collect();
    assert_eq!(distinct.len(), deployments.len(), "{what}: two deployments of one commit");
}

fn killed_anywhere(prepare: impl Fn() -> World, end: &str) {
    for operations in 0.. {
        let mut world = prepare();
        world.report.deployments = true;
        let fuse = Fuse::after(operations);
        // An error is what a killed process looks like from outside.
        let _ = world.try_tick(&fuse);
        let killed = fuse.has_burnt();
        nothing_twice(&world, &format!("right after the kill at {operations}"));
        ends_well(&mut world, operations, end);
        if !killed {
            assert!(operations > 20, "the tick had hardly anything to do");
            return;
        }
    }
}

/// A tick that dies after so many operations, a second ago; what it was sending arrives when the
/// world lets it.
fn killed_while_sending(operations: u32) -> (World, Fuse) {
    let mut world = opened(2);
    world.report.deployments = true;
    world.hub.slow_down();
    let fuse = Fuse::after(operations);
    let _ = world.try_tick(&fuse);
    world.advance(1);
    (world, fuse)
}

/// Whatever was lost in the kill, in the end this is what GitHub shows of the head.
fn ends_well(world: &mut World, operations: u32, end: &str) {
    world.settle_machines();
    world.client_ticks(&Fuse::never(), |_| true);
    world.advance(60);
    world.minutes(5);
    nothing_twice(world, &format!("killed after {operations} operations"));
    let (_, plan) = world.plan();
    assert!(plan.sayings.is_empty(), "killed after {operations}, still to say:\n{plan}");
    let head = &world.hub.pulls()[0].head;
    let told = world.hub.told();
    for (_, run) in told.checks.values() {
        let ended = run.state.words().1.is_some();
        assert!(ended, "killed after {operations}, {} never ends", run.external_id);
    }
    let run = told.checks.values().rfind(|(_, run)| run.head == *head).map(|(_, run)| run);
    let said = run.map_or("nothing", |run| run.title.as_str());
    assert_eq!(said, end, "killed after {operations} operations");
}

#[test]
fn while_a_pull_request_is_opened() {
    let prepare = || opened(2);
    killed_anywhere(prepare, "Ready on stg1");
}

#[test]
fn while_a_push_supersedes_what_was_in_progress() {
    let prepare = || {
        let mut world = opened(2);
        world.tick();
        world.advance(60);
        world.hub.push(ONE, world.now);
        world
    };
    killed_anywhere(prepare, "Ready on stg1");
}

#[test]
fn while_a_success_is_said() {
    let prepare = || {
        let mut world = offered(2);
        world.client_ticks(&Fuse::never(), |_| true);
        world
    };
    killed_anywhere(prepare, "Ready on stg1");
}

#[test]
fn while_a_failure_is_tried_again() {
    let prepare = || {
        let mut world = failed(2);
        world.tick();
        world.advance(70);
        world
    };
    killed_anywhere(prepare, "Ready on stg1");
}

#[test]
fn while_a_failure_is_tried_again_that_fails_again() {
    for operations in 0.. {
        let mut world = World::new(1).speaks();
        world.report.comment = false;
        world.hub.open("dev1", false, world.now);
        world.tick();
        world.settle_machines();
        world.tick();
        world.client_ticks(&Fuse::never(), |_| false);
        world.tick();
        world.advance(70);
        let fuse = Fuse::after(operations);
        let _ = world.try_tick(&fuse);
        world.client_ticks(&Fuse::never(), |_| false);
        world.advance(1);
        world.tick();
        let told = world.hub.told();
        assert_eq!(told.needless, [] as [String; 0], "killed after {operations}");
        for (_, run) in told.checks.values().take(told.checks.len() - 1) {
            let ended = run.state.words().1.is_some();
            assert!(ended, "killed after {operations}: an older one never ends");
        }
        let newest = told.checks.values().last().unwrap().1.state;
        let offered = world.facts().assignments[&ONE].deployment.clone().unwrap().outcome;
        if offered == Outcome::Failed {
            assert_eq!(newest, CheckState::Failure, "killed after {operations}");
        }
        if !fuse.has_burnt() {
            assert_eq!(offered, Outcome::Failed);
            assert!(operations > 20, "the tick had hardly anything to do");
            return;
        }
    }
}

#[test]
fn while_a_success_turns_out_to_be_none_any_more() {
    let prepare = || {
        let world = ready();
        world.fleet.force("stg1", Some(InstanceState::Terminated));
        world
    };
    killed_anywhere(prepare, "Ready on stg2");
}

#[test]
fn while_a_pull_request_is_closed() {
    let prepare = || {
        let mut world = opened(2);
        world.tick();
        world.advance(60);
        world.hub.close(ONE, world.now);
        world
    };
    killed_anywhere(prepare, "Closed");
}

#[test]
fn while_a_pull_request_is_opened_that_is_closed_before_anybody_looks_again() {
    let mut late = 0;
    for operations in 0.. {
        let (mut world, fuse) = killed_while_sending(operations);
        world.hub.close(ONE, world.now);
        world.tick();
        late += world.hub.arrive();
        world.advance(60);
        world.minutes(2);
        for (_, run) in world.hub.told().checks.values() {
            let said = (run.title.as_str(), run.state.words().1);
            assert_eq!(said, ("Closed", Some("cancelled")), "killed after {operations}");
        }
        for (_, comment) in world.hub.told().comments.values() {
            assert!(comment.body.contains("closed"), "killed after {operations}");
        }
        for (_, _, statuses) in world.hub.told().deployments.values() {
            let last = statuses.last().map(|status| status.state);
            assert_eq!(last, Some("inactive"), "killed after {operations}");
        }
        if !fuse.has_burnt() {
            assert!(late > 0 && operations > 20, "{late} late of {operations}");
            return;
        }
    }
}

#[test]
fn two_controllers_speak_once() {
    let world = opened(2);
    // A whole tick of another controller at each thing that this one does.
    world.tick_beside(&|_| drop(world.tick()));
    nothing_twice(&world, "two at once");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| world.tick());
        }
    });
    nothing_twice(&world, "four at once");
    assert_eq!(world.hub.told().checks.len(), 1);
    assert_eq!(world.hub.told().comments.len(), 1);
}

#[test]
fn while_its_request_is_on_its_way_and_arrives_after_another_one_has_looked() {
    let mut late = 0;
    for operations in 0.. {
        let (mut world, fuse) = killed_while_sending(operations);
        world.tick();
        late += world.hub.arrive();
        let killed = fuse.has_burnt();
        ends_well(&mut world, operations, "Ready on stg1");
        if !killed {
            assert!(late > 0 && operations > 20, "{late} late of {operations}");
            return;
        }
    }
}

#[test]
fn what_is_reopened_while_another_one_speaks_of_its_end_is_not_closed_for_good() {
    let mut world = World::new(2).speaks();
    world.report.comment = false;
    world.hub.open("dev1", false, world.now);
    let two = world.hub.open("dev1", false, world.now);
    world.minutes(3);
    // One has only its record to be closed, and the other one is told first.
    world.by_hand(&format!("UPDATE server_facts SET app_pull = NULL WHERE app_pull = {}", two.0));
    world.hub.close(ONE, world.now);
    let reopened = AtomicBool::new(false);
    world.tick_beside(&|said| {
        if matches!(said, Said::Told(saying) if saying.key.number == two)
            && !reopened.swap(true, Ordering::SeqCst)
        {
            world.hub.reopen(ONE, world.now);
            world.tick();
        }
    });
    assert!(reopened.into_inner());
    let of_one = |world: &World| {
        let all = checks(world);
        all.into_iter().filter(|check| check.starts_with("1:")).collect::<Vec<_>>().join("\n")
    };
    assert_snapshot!(of_one(&world), @"
    1:9e3779b success: Ready on stg1
    1:9e3779b in_progress: Starting stg1
    ");
    world.advance(60);
    world.hub.close(ONE, world.now);
    world.minutes(2);
    assert_snapshot!(of_one(&world), @"
    1:9e3779b success: Ready on stg1
    1:9e3779b cancelled: Closed
    ");
}

#[test]
fn what_is_begun_late_in_a_long_talk_is_not_as_old_as_the_talk() {
    let world = opened(0);
    let (under_way, go_on) = world.hub.halt_next_post();
    std::thread::scope(|scope| {
        let talk = scope.spawn(|| world.tick());
        under_way.recv().unwrap();
        let (second_under_way, second_goes_on) = world.hub.halt_next_post();
        let pause = Duration::from_millis(50);
        std::thread::sleep(pause);
        go_on.send(()).unwrap();
        second_under_way.recv().unwrap();
        let said = world.store().told(&world.facts()).unwrap().said;
        let begun: Vec<_> = said.values().filter_map(|said| said.begun_at).collect();
        assert_eq!(begun.len(), 1, "{said:?}");
        assert!(begun[0] >= world.now + pause, "{}", begun[0]);
        second_goes_on.send(()).unwrap();
        talk.join().unwrap();
    });
}

#[test]
fn while_one_controller_speaks_another_is_silent_about_the_same() {
    let world = opened(0);
    let (under_way, go_on) = world.hub.halt_next_post();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| world.tick());
        under_way.recv().unwrap();
        // The check run is on its way, and nothing of it is known yet.
        world.tick();
        go_on.send(()).unwrap();
        first.join().unwrap();
    });
    nothing_twice(&world, "one in the middle");
    assert_eq!(world.hub.told().checks.len(), 1);
    assert_eq!(world.hub.told().comments.len(), 1);
}

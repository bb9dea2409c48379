//! A process that dies after any number of operations, and two at once: never two check runs of a
//! commit, never two comments, and the truth at the end.

use std::collections::BTreeSet;

use pullre::domain::InstanceState;
use pullre::facts::Outcome;
use pullre::ports::CheckState;
use testkit::fuse::Fuse;
use testkit::world::World;

use super::{ONE, failed, offered, opened, ready};

/// As many as there shall be, and all of them true.
fn once_and_true(world: &World, what: &str) {
    let told = world.hub.told();
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
        once_and_true(&world, &format!("right after the kill at {operations}"));
        world.settle_machines();
        world.client_ticks(&Fuse::never(), |_| true);
        world.advance(60);
        world.minutes(5);
        once_and_true(&world, &format!("killed after {operations} operations"));
        let (_, plan) = world.plan();
        assert!(plan.sayings.is_empty(), "killed after {operations}, still to say:\n{plan}");
        let head = &world.hub.pulls()[0].head;
        for (_, run) in world.hub.told().checks.values() {
            let ended = run.state.words().1.is_some();
            assert!(ended, "killed after {operations}, {} never ends", run.external_id);
        }
        let told = world.hub.told();
        let run = told.checks.values().rfind(|(_, run)| run.head == *head).map(|(_, run)| run);
        let said = run.map_or("nothing", |run| run.title.as_str());
        assert_eq!(said, end, "killed after {operations} operations");
        if !killed {
            assert!(operations > 20, "the tick had hardly anything to do");
            return;
        }
    }
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
    for operations in 0.. {
        let mut world = opened(2);
        let fuse = Fuse::after(operations);
        let _ = world.try_tick(&fuse);
        world.advance(60);
        world.hub.close(ONE, world.now);
        world.minutes(2);
        for (_, run) in world.hub.told().checks.values() {
            let said = (run.title.as_str(), run.state.words().1);
            assert_eq!(said, ("Closed", Some("cancelled")), "killed after {operations}");
        }
        for (_, comment) in world.hub.told().comments.values() {
            assert!(comment.body.contains("closed"), "killed after {operations}");
        }
        if !fuse.has_burnt() {
            return;
        }
    }
}

#[test]
fn two_controllers_speak_once() {
    let world = opened(2);
    // A whole tick of another controller at each thing that this one does.
    world.tick_beside(&|_| drop(world.tick()));
    once_and_true(&world, "two at once");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| world.tick());
        }
    });
    once_and_true(&world, "four at once");
    assert_eq!(world.hub.told().checks.len(), 1);
    assert_eq!(world.hub.told().comments.len(), 1);
}

#[test]
fn while_its_request_is_on_its_way_and_arrives_after_another_one_has_looked() {
    for operations in 0.. {
        let mut world = opened(2);
        world.report.deployments = true;
        world.hub.slow_down();
        let fuse = Fuse::after(operations);
        let _ = world.try_tick(&fuse);
        world.advance(1);
        world.tick();
        world.hub.arrive();
        world.settle_machines();
        world.client_ticks(&Fuse::never(), |_| true);
        world.advance(60);
        world.minutes(5);
        once_and_true(&world, &format!("killed after {operations} operations"));
        let (_, plan) = world.plan();
        assert!(plan.sayings.is_empty(), "killed after {operations}, still to say:\n{plan}");
        if !fuse.has_burnt() {
            return;
        }
    }
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
    once_and_true(&world, "one in the middle");
    assert_eq!(world.hub.told().checks.len(), 1);
    assert_eq!(world.hub.told().comments.len(), 1);
}

#[test]
fn an_older_view_never_overwrites_a_newer_one() {
    let mut world = ready();
    world.fleet.force("stg1", Some(InstanceState::Stopped));
    world.settle_machines();
    let (_, plan) = world.plan();
    assert!(!plan.sayings.is_empty() || !plan.chains.is_empty());
    world.minutes(4);
    once_and_true(&world, "in the end");
}

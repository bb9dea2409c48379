//! A tick that dies after any number of operations leaves a state from which the next ticks come
//! to the same end.

use pullre::domain::{InstanceState, PullNumber};
use pullre::facts::Facts;
use pullre::stage::{Stage, standing};
use testkit::fleet::Effect;
use testkit::fuse::Fuse;
use testkit::world::World;

/// Prepares a world, kills one tick and one client tick in it after every possible number of
/// operations, lets the survivors work, and looks at the end.
fn killed_anywhere(prepare: impl Fn() -> World, end: impl Fn(&mut World)) {
    for operations in 0.. {
        let mut world = prepare();
        let fuse = Fuse::after(operations);
        // An error is what a killed process looks like from outside.
        let _ = world.try_tick(&fuse);
        world.settle_machines();
        world.client_ticks(&fuse, |_| true);
        let killed = fuse.has_burnt();
        world.advance(60);
        world.minutes(4);
        let (_, plan) = world.plan();
        assert!(plan.is_idle(), "killed after {operations} operations, still to do:\n{plan}");
        end(&mut world);
        if !killed {
            assert!(operations > 20, "the tick had hardly anything to do");
            return;
        }
    }
}

fn stage(world: &World, number: PullNumber) -> Stage {
    let facts: Facts = world.facts();
    let pull = world.store().pull(number).unwrap().unwrap();
    standing(&pull, &facts, &world.policy, world.now).stage
}

const ONE: PullNumber = PullNumber(1);

fn ready() -> World {
    let mut world = World::new(2);
    world.hub.open("dev1", false, world.now);
    world.minutes(3);
    assert_eq!(stage(&world, ONE), Stage::Ready);
    world
}

fn serves_the_head(world: &World) {
    assert_eq!(stage(world, ONE), Stage::Ready);
    let apps: Vec<_> = world.apps.values().collect();
    assert_eq!(apps.len(), 1);
    assert_eq!(apps[0].sha, world.hub.pulls()[0].head);
    assert!(world.holds_data_of("stg1", "dev1"));
}

#[test]
fn while_a_pull_request_is_opened() {
    let prepare = || {
        let world = World::new(2);
        world.hub.open("dev1", false, world.now);
        world
    };
    killed_anywhere(prepare, |world| {
        serves_the_head(world);
        let starts: Vec<_> = world.fleet.effects();
        assert_eq!(starts.len(), 1, "one machine, started once: {starts:?}");
    });
}

#[test]
fn while_a_push_is_deployed() {
    let prepare = || {
        let world = ready();
        world.hub.push(ONE, world.now);
        world
    };
    killed_anywhere(prepare, |world| serves_the_head(world));
}

#[test]
fn while_a_pull_request_is_closed() {
    let prepare = || {
        let world = ready();
        world.hub.close(ONE, world.now);
        world
    };
    killed_anywhere(prepare, |world| {
        assert_eq!(stage(world, ONE), Stage::Closed);
        assert!(world.facts().assignments.is_empty());
        assert_eq!(world.fleet.state("stg1"), Some(InstanceState::Stopped), "nobody needs it");
    });
}

#[test]
fn while_data_is_reset() {
    let prepare = || {
        let world = ready();
        world.operator(&mut world.store()).reset_db(ONE, &world.locks()).unwrap();
        world
    };
    killed_anywhere(prepare, |world| serves_the_head(world));
}

/// #1 with a database that was reset after somebody had entered something.
fn reset() -> World {
    let mut world = ready();
    world.policy.cloning.keep_previous = true;
    world.enter("stg1", "entered by hand");
    world.operator(&mut world.store()).reset_db(ONE, &world.locks()).unwrap();
    world.minutes(4);
    serves_the_head(&world);
    world
}

#[test]
fn while_the_previous_data_is_brought_back() {
    let prepare = || {
        let mut world = reset();
        let mut store = world.store();
        world.operator(&mut store).undo_reset(ONE, &world.policy, &world.locks()).unwrap();
        drop(store);
        // Its app is stopped first; what follows is the tick that may die.
        world.minutes(1);
        world
    };
    killed_anywhere(prepare, |world| {
        assert_eq!(stage(world, ONE), Stage::Ready);
        assert_eq!(world.read_schema("stg1").as_deref(), Some("entered by hand"));
        let clones = world.facts().clones;
        let contents = &clones.values().next().unwrap().contents;
        assert!(contents.kept && contents.undo.is_none(), "{contents:?}");
    });
}

#[test]
fn while_data_is_reset_and_kept() {
    let prepare = || {
        let mut world = ready();
        world.policy.cloning.keep_previous = true;
        world.enter("stg1", "entered by hand");
        world.operator(&mut world.store()).reset_db(ONE, &world.locks()).unwrap();
        world.minutes(1);
        world
    };
    killed_anywhere(prepare, |world| {
        serves_the_head(world);
        // Whatever happened: what it held before the reset was asked for is what comes back.
        let mut store = world.store();
        world.operator(&mut store).undo_reset(ONE, &world.policy, &world.locks()).unwrap();
        drop(store);
        world.minutes(4);
        assert_eq!(world.read_schema("stg1").as_deref(), Some("entered by hand"));
    });
}

#[test]
fn while_a_stopped_machine_is_brought_back() {
    let prepare = || {
        let mut world = ready();
        world.fleet.force("stg1", Some(InstanceState::Stopped));
        world.settle_machines();
        world
    };
    killed_anywhere(prepare, |world| {
        serves_the_head(world);
        let starts = world.fleet.effects();
        assert!(starts.iter().all(|(_, effect)| *effect == Effect::Start), "{starts:?}");
        assert_eq!(starts.len(), 2, "started once more: {starts:?}");
    });
}

#[test]
fn while_a_server_goes_from_one_pull_request_to_the_next() {
    let prepare = || {
        let mut world = World::new(1);
        world.hub.open("dev1", false, world.now);
        world.minutes(3);
        world.hub.open("dev2", false, world.now);
        world.minutes(1);
        world.hub.close(ONE, world.now);
        world
    };
    killed_anywhere(prepare, |world| {
        assert_eq!(stage(world, PullNumber(2)), Stage::Ready);
        assert!(world.holds_data_of("stg1", "dev2"));
    });
}

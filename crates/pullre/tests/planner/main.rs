//! The planner against the fake world: stories with the plans that an operator would read, and
//! the rules that hold whatever happens.

#![allow(clippy::unwrap_used)]

mod crashes;
mod data;
mod failures;
mod machines;
mod rules;
mod stories;
mod unreadable;
mod verbs;

use pullre::domain::PullNumber;
use pullre::stage::standing;
use testkit::world::World;

/// What an operator reads of the next tick.
fn plan(world: &World) -> String {
    world.plan().1.to_string()
}

/// What a person is told about a pull request.
fn stage(world: &World, number: PullNumber) -> String {
    let mut store = world.store();
    let pull = store.pull(number).unwrap().unwrap();
    let standing = standing(&pull, &world.facts(), &world.policy, world.now);
    let next = standing.next.map_or(String::new(), |next| format!("; {next}"));
    format!("{}: {}{next}", standing.stage, standing.why)
}

/// An installation whose first tick is done, so that plans show only what a story adds.
fn settled(servers: usize) -> World {
    let mut world = World::new(servers);
    world.minutes(1);
    world
}

/// The same, with an environment that is ready.
fn served(servers: usize) -> (World, PullNumber) {
    let mut world = settled(servers);
    let one = world.hub.open("dev1", false, world.now);
    world.minutes(3);
    (world, one)
}

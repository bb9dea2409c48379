//! What happens while GitHub or the provider cannot be read.

use insta::assert_snapshot;
use pullre::domain::InstanceState;

use crate::stories::{plan, settled};

#[test]
fn what_cannot_be_read_changes_nothing() {
    let mut world = settled(2);
    let one = world.hub.open("dev1", false, world.now);
    world.minutes(3);
    let before = world.fleet.effects();

    world.hub.close(one, world.now);
    world.hub.set_unreachable(true);
    assert_snapshot!(plan(&world), @"note   what GitHub said before still counts: GitHub cannot be read now: no route to the forge; the next tick tries again");
    let report = world.tick();
    assert_snapshot!(report.failures.join("\n"), @"GitHub cannot be read now: no route to the forge; the next tick tries again");

    world.hub.set_unreachable(false);
    world.fleet.set_unreachable(true);
    assert_snapshot!(plan(&world), @"
    note   no instance is touched: the compute provider cannot be reached now: no route to the provider; the next tick tries again
    seen   #1 closed at 9e3779b by dev1: Feature 1
    ");
    world.tick();
    assert_eq!(world.fleet.effects(), before);
    assert!(world.facts().assignments.contains_key(&one));

    world.fleet.set_unreachable(false);
    world.minutes(2);
    assert!(world.facts().assignments.is_empty());
}

#[test]
fn a_person_stops_an_environment_also_while_github_cannot_be_read() {
    let mut world = settled(2);
    let one = world.hub.open("dev1", false, world.now);
    let two = world.hub.open("dev1", false, world.now);
    world.minutes(3);
    // A tick died between release and stop.
    world.hub.close(two, world.now);
    world.tick();
    world.fleet.force("stg2", Some(InstanceState::Running));
    world.by_hand("UPDATE server_facts SET stop_owed = 1 WHERE server_id = 2");

    world.hub.set_unreachable(true);
    world.operator(&mut world.store()).pull_stop(one).unwrap();
    world.minutes(2);
    assert!(world.facts().assignments.is_empty());
    assert_eq!(world.fleet.state("stg1"), Some(InstanceState::Stopped));
    assert_eq!(
        world.fleet.state("stg2"),
        Some(InstanceState::Running),
        "GitHub's word counts for it"
    );
    world.hub.set_unreachable(false);
    world.minutes(2);
    assert_eq!(world.fleet.state("stg2"), Some(InstanceState::Stopped));
}

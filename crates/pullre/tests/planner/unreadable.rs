//! What happens while GitHub, the provider or a row cannot be read.

use insta::assert_snapshot;
use pullre::domain::InstanceState;

use crate::{plan, served, settled, stage};

#[test]
fn what_cannot_be_read_changes_nothing() {
    let (mut world, one) = served(2);
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
    let (world, one) = served(2);
    world.by_hand("UPDATE server_facts SET held_at = 'x', state = 'melted' WHERE server_id = 1");
    assert_snapshot!(plan(&world), @r#"note   row 1 of servers makes no sense and is left alone: held_at is Text("x") and not a number"#);
    assert_snapshot!(stage(&world, one), @"failed: the row of its server makes no sense; nothing is done for it until the row is mended; `update-pull status` names it");
    let apps = world.apps.clone();
    world.tick();
    assert!(world.facts().assignments.contains_key(&one));
    assert_eq!(world.apps, apps);
}

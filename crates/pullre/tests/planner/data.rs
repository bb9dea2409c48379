//! What becomes of the data that is replaced.

use insta::assert_snapshot;
use pullre::schema_clone::mask::{Dialect, Mask};
use testkit::fuse::Fuse;
use testkit::world::World;

use crate::stories::{plan, settled, stage};

#[test]
fn what_a_reset_replaced_comes_back_once_the_app_has_stopped() {
    let mut world = settled(1);
    let one = world.hub.open("dev1", false, world.now);
    world.minutes(3);
    let undo = |world: &World| {
        let mut store = world.store();
        world.operator(&mut store).undo_reset(one, &world.policy, &world.locks())
    };
    let reset = |world: &World| {
        world.operator(&mut world.store()).reset_db(one, &world.locks()).unwrap();
    };
    world.enter("stg1", "first");
    reset(&world);
    world.minutes(3);
    assert_snapshot!(undo(&world).unwrap_err(), @"no previous database of #1 is kept; with `keep_previous = yes` the next reset-db keeps one");
    world.policy.cloning.keep_previous = true;
    world.enter("stg1", "second");
    reset(&world);
    assert_snapshot!(undo(&world).unwrap_err(), @"no previous database of #1 is kept; with `keep_previous = yes` the next reset-db keeps one");
    world.minutes(3);
    assert!(world.holds_data_of("stg1", "dev1"));

    undo(&world).unwrap();
    assert_snapshot!(plan(&world), @"#1    let the app on stg1 be stopped (its data is to be replaced)");
    world.tick();
    assert_snapshot!(plan(&world), @"nothing to do");
    world.client_ticks(&Fuse::never(), |_| true);
    assert_snapshot!(plan(&world), @"#1    bring the previous data of stg1 back (asked for by a person)");
    assert_snapshot!(stage(&world, one), @"cloning: its previous database is about to be brought back");
    world.minutes(2);
    assert_snapshot!(stage(&world, one), @"ready: stg1 serves 9e3779b");
    assert_eq!(world.read_schema("stg1").as_deref(), Some("second"));

    // And back again; a reset after that forgets what was there before.
    undo(&world).unwrap();
    world.minutes(3);
    assert!(world.holds_data_of("stg1", "dev1"));
    world.policy.cloning.keep_previous = false;
    reset(&world);
    world.minutes(3);
    assert_snapshot!(undo(&world).unwrap_err(), @"no previous database of #1 is kept; with `keep_previous = yes` the next reset-db keeps one");
}

#[test]
fn the_data_of_another_pull_request_never_comes_back() {
    let mut world = settled(1);
    world.policy.cloning.keep_previous = true;
    let one = world.hub.open("dev1", false, world.now);
    world.minutes(3);
    world.enter("stg1", "of the first");
    world.hub.close(one, world.now);
    let two = world.hub.open("dev2", false, world.now);
    world.minutes(4);
    assert!(world.holds_data_of("stg1", "dev2"));
    let mut store = world.store();
    let refused = world.operator(&mut store).undo_reset(two, &world.policy, &world.locks());
    assert_snapshot!(refused.unwrap_err(), @"no previous database of #2 is kept; with `keep_previous = yes` the next reset-db keeps one");
}

#[test]
fn data_that_other_masking_rules_made_is_cloned_anew() {
    let mut world = settled(1);
    world.policy.cloning.keep_previous = true;
    let one = world.hub.open("dev1", false, world.now);
    world.minutes(3);
    assert!(world.holds_data_of("stg1", "dev1"));
    world.policy.cloning.mask = Mask::parse("notes.text = 'hidden'", Dialect::Sqlite).unwrap();
    assert_snapshot!(plan(&world), @"#1    let the app on stg1 be stopped (its data is to be replaced)");
    world.minutes(4);
    assert_snapshot!(stage(&world, one), @"ready: stg1 serves 9e3779b");
    assert_eq!(world.read_schema("stg1").as_deref(), Some("hidden"));
    assert_snapshot!(plan(&world), @"nothing to do");
    // What was there before holds what nobody shall see.
    let mut store = world.store();
    let refused = world.operator(&mut store).undo_reset(one, &world.policy, &world.locks());
    assert_snapshot!(refused.unwrap_err(), @"no previous database of #1 is kept; with `keep_previous = yes` the next reset-db keeps one");
    // Only what is said counts, not how.
    world.policy.cloning.mask = Mask::parse("# x\nnotes.text='hidden'", Dialect::Sqlite).unwrap();
    assert_snapshot!(plan(&world), @"nothing to do");
}

#[test]
fn an_undoing_that_finds_nothing_leaves_what_is_there() {
    let mut world = settled(1);
    world.policy.cloning.keep_previous = true;
    let one = world.hub.open("dev1", false, world.now);
    world.minutes(3);
    world.operator(&mut world.store()).reset_db(one, &world.locks()).unwrap();
    world.minutes(3);
    std::fs::remove_file(world.schema_dir().join(".stg1.previous")).unwrap();
    let mut store = world.store();
    world.operator(&mut store).undo_reset(one, &world.policy, &world.locks()).unwrap();
    world.minutes(4);
    assert_snapshot!(stage(&world, one), @"ready: stg1 serves 9e3779b");
    assert!(world.holds_data_of("stg1", "dev1"));
    let refused = world.operator(&mut store).undo_reset(one, &world.policy, &world.locks());
    assert_snapshot!(refused.unwrap_err(), @"no previous database of #1 is kept; with `keep_previous = yes` the next reset-db keeps one");
}

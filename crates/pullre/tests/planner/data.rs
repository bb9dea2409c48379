//! What becomes of the data that is replaced.

use insta::assert_snapshot;
use pullre::schema_clone::mask::{Dialect, Mask};
use testkit::fuse::Fuse;
use testkit::world::World;

use crate::{plan, served, settled, stage};

#[test]
fn fresh_data_is_cloned_only_once_the_app_has_stopped() {
    let (mut world, one) = served(1);
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
fn what_a_reset_replaced_comes_back_once_the_app_has_stopped() {
    let (mut world, one) = served(1);
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
    let (mut world, one) = served(1);
    world.policy.cloning.keep_previous = true;
    world.enter("stg1", "of the first");
    world.hub.close(one, world.now);
    let two = world.hub.open("dev1", false, world.now);
    world.minutes(4);
    assert!(world.holds_data_of("stg1", "dev1"));
    let mut store = world.store();
    let refused = world.operator(&mut store).undo_reset(two, &world.policy, &world.locks());
    assert_snapshot!(refused.unwrap_err(), @"no previous database of #2 is kept; with `keep_previous = yes` the next reset-db keeps one");
}

#[test]
fn data_that_other_masking_rules_made_is_cloned_anew() {
    let (mut world, one) = served(1);
    world.policy.cloning.keep_previous = true;
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
    let (mut world, one) = served(1);
    world.policy.cloning.keep_previous = true;
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

//! Servers outside the pool, switched by the clock: what is due, and that it is done once.
#![allow(clippy::unwrap_used)]

use insta::assert_snapshot;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use pullre::domain::InstanceState;
use pullre::store::StoreError;
use pullre::switches::{self, Outcome, Weekdays, both_readings, switches};
use testkit::fleet::Effect;
use testkit::fuse::Fuse;
use testkit::world::World;

/// A server `stg1` outside the pool, which is off, with these settings.
fn world(settings: &str) -> World {
    let world = World::new(1);
    set(&world, "is_staging=0");
    set(&world, settings);
    world
}

fn set(world: &World, settings: &str) {
    let settings: Vec<_> = settings.split_whitespace().map(str::to_owned).collect();
    world.operator(&mut world.store()).server_set("stg1", &settings).unwrap();
}

fn zone(name: &str) -> TimeZone {
    TimeZone::get(name).unwrap()
}

/// What is due at each of these moments, told in the zone's own time.
fn due(world: &World, in_zone: &str, moments: &[&str]) -> String {
    let zone = zone(in_zone);
    let mut told = String::new();
    for moment in moments {
        let now: Timestamp = moment.parse().unwrap();
        let all: Vec<_> =
            switches(&world.facts(), now, &zone).iter().map(ToString::to_string).collect();
        let shown = now.to_zoned(zone.clone()).strftime("%a %H:%M %Z").to_string();
        told.push_str(&format!("{shown}: {}\n", all.join("; ")));
    }
    told
}

/// A run at this moment, as cron does it.
fn run(world: &mut World, moment: &str) -> String {
    world.now = moment.parse().unwrap();
    try_run(world, &Fuse::never()).unwrap()
}

fn try_run(world: &World, fuse: &Fuse) -> Result<String, StoreError> {
    let mut told = String::new();
    let mut store = world.database(fuse.clone()).open()?;
    let compute = world.fleet.seen_by(fuse.clone());
    let tokyo = zone("Asia/Tokyo");
    switches::apply(
        &mut store,
        &compute,
        &world.locks(),
        &tokyo,
        world.now,
        &mut |switch, done| {
            told.push_str(&match done {
                Outcome::Done => format!("{switch}\n"),
                Outcome::Failed(why) => format!("FAILED {switch}: {why}\n"),
                Outcome::Left => format!("left {switch}\n"),
            });
        },
    )?;
    Ok(told)
}

#[test]
fn without_times_nothing_is_due() {
    let world = world("auto_weekdays=mon-fri");
    assert!(switches(&world.facts(), world.now, &TimeZone::UTC).is_empty());
}

#[test]
fn the_newest_switch_of_the_last_day_is_due() {
    let world = world("auto_start_at=08:30 auto_stop_at=19:00");
    let moments = [
        "2026-11-22T23:29:59Z",
        "2026-11-22T23:30:00Z",
        "2026-11-23T09:59:00Z",
        "2026-11-23T10:00:00Z",
        "2026-11-23T23:29:00Z",
    ];
    assert_snapshot!(due(&world, "Asia/Tokyo", &moments), @"
    Mon 08:29 JST: stop stg1, due Sun 2026-11-22 19:00 JST
    Mon 08:30 JST: start stg1, due Mon 2026-11-23 08:30 JST
    Mon 18:59 JST: start stg1, due Mon 2026-11-23 08:30 JST
    Mon 19:00 JST: stop stg1, due Mon 2026-11-23 19:00 JST
    Tue 08:29 JST: stop stg1, due Mon 2026-11-23 19:00 JST
    ");
}

#[test]
fn a_switch_is_made_good_for_a_day_and_then_forgotten() {
    let world = world("auto_start_at=08:30 auto_weekdays=mon");
    let moments = ["2026-11-23T08:30:00Z", "2026-11-24T08:29:00Z", "2026-11-24T08:30:00Z"];
    assert_snapshot!(due(&world, "UTC", &moments), @"
    Mon 08:30 UTC: start stg1, due Mon 2026-11-23 08:30 UTC
    Tue 08:29 UTC: start stg1, due Mon 2026-11-23 08:30 UTC
    Tue 08:30 UTC:
    ");
}

#[test]
fn each_switch_counts_by_the_weekday_that_it_falls_on() {
    let world = world("auto_start_at=20:00 auto_stop_at=06:00 auto_weekdays=fri-mon");
    let moments = [
        "2026-11-20T12:00:00Z",
        "2026-11-20T21:00:00Z",
        "2026-11-23T21:00:00Z",
        "2026-11-24T12:00:00Z",
    ];
    assert_snapshot!(due(&world, "UTC", &moments), @"
    Fri 12:00 UTC: stop stg1, due Fri 2026-11-20 06:00 UTC
    Fri 21:00 UTC: start stg1, due Fri 2026-11-20 20:00 UTC
    Mon 21:00 UTC: start stg1, due Mon 2026-11-23 20:00 UTC
    Tue 12:00 UTC: start stg1, due Mon 2026-11-23 20:00 UTC
    ");
}

#[test]
fn a_time_that_the_clock_leaves_out_comes_later_and_one_that_it_repeats_comes_once() {
    let world = world("auto_start_at=02:30");
    let gap = ["2026-03-29T00:59:00Z", "2026-03-29T01:29:00Z", "2026-03-29T01:30:00Z"];
    assert_snapshot!(due(&world, "Europe/Berlin", &gap), @"
    Sun 01:59 CET: start stg1, due Sat 2026-03-28 02:30 CET
    Sun 03:29 CEST: start stg1, due Sat 2026-03-28 02:30 CET
    Sun 03:30 CEST: start stg1, due Sun 2026-03-29 03:30 CEST
    ");
    let overlap = ["2026-10-25T00:29:00Z", "2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"];
    assert_snapshot!(due(&world, "Europe/Berlin", &overlap), @"
    Sun 02:29 CEST: start stg1, due Sat 2026-10-24 02:30 CEST
    Sun 02:30 CEST: start stg1, due Sun 2026-10-25 02:30 CEST
    Sun 02:30 CET: start stg1, due Sun 2026-10-25 02:30 CEST
    ");
}

#[test]
fn a_start_and_a_stop_at_the_same_time_say_nothing() {
    let world = world("auto_start_at=08:30 auto_stop_at=08:30");
    assert!(switches(&world.facts(), world.now, &TimeZone::UTC).is_empty());
}

#[test]
fn what_is_in_other_hands_is_not_switched() {
    let mut world = world("auto_start_at=08:30");
    assert_eq!(switches(&world.facts(), world.now, &TimeZone::UTC).len(), 1);
    let mut store = world.store();
    let none_is_due = |world: &World, why: &str| {
        assert!(switches(&world.facts(), world.now, &TimeZone::UTC).is_empty(), "{why}");
    };
    world.operator(&mut store).server_hold("stg1", "", None).unwrap();
    none_is_due(&world, "held");
    world.operator(&mut store).server_release("stg1").unwrap();
    world.operator(&mut store).pause().unwrap();
    none_is_due(&world, "paused");
    world.operator(&mut store).resume().unwrap();
    set(&world, "is_staging=1");
    none_is_due(&world, "in the pool");
    world.hub.open("dev1", false, world.now);
    world.minutes(2);
    set(&world, "is_staging=0");
    none_is_due(&world, "serves #1 until the next tick");
    assert!(world.facts().assignments.len() == 1);
}

#[test]
fn a_missed_switch_is_made_good_once_and_a_persons_hand_is_left_alone() {
    let mut world = world("auto_start_at=08:30 auto_stop_at=19:00");
    // 09:10 in Tokyo; cron was down at 08:30.
    assert_snapshot!(run(&mut world, "2026-11-23T00:10:00Z"), @"start stg1, due Mon 2026-11-23 08:30 JST");
    world.fleet.settle();
    assert_eq!(run(&mut world, "2026-11-23T00:11:00Z"), "");
    world.fleet.force("stg1", Some(InstanceState::Stopped));
    assert_eq!(run(&mut world, "2026-11-23T00:12:00Z"), "");
    assert_eq!(world.fleet.state("stg1"), Some(InstanceState::Stopped));
    // The evening's comes all the same.
    assert_snapshot!(run(&mut world, "2026-11-23T10:00:00Z"), @"stop stg1, due Mon 2026-11-23 19:00 JST");
    // Times that are changed afterwards count from then on.
    set(&world, "auto_stop_at=18:00");
    assert_eq!(run(&mut world, "2026-11-23T10:01:00Z"), "");
}

#[test]
fn a_switch_that_fails_is_tried_again() {
    let mut world = world("auto_start_at=08:30");
    world.fleet.refuse_starts(true);
    assert_snapshot!(run(&mut world, "2026-11-22T23:30:00Z"), @"FAILED start stg1, due Mon 2026-11-23 08:30 JST: no capacity for instance stg1: the zone is full");
    world.fleet.refuse_starts(false);
    assert_snapshot!(run(&mut world, "2026-11-22T23:31:00Z"), @"start stg1, due Mon 2026-11-23 08:30 JST");
}

#[test]
fn a_run_that_is_killed_anywhere_leaves_it_to_the_next() {
    for operations in 0..30 {
        let mut world = world("auto_start_at=08:30");
        world.now = "2026-11-22T23:30:00Z".parse().unwrap();
        let fuse = Fuse::after(operations);
        // It dies: that is the point.
        let _ = try_run(&world, &fuse);
        run(&mut world, "2026-11-22T23:31:00Z");
        assert_eq!(world.fleet.state("stg1"), Some(InstanceState::Pending), "{operations}");
        assert_eq!(run(&mut world, "2026-11-22T23:32:00Z"), "", "{operations}");
        assert!(world.fleet.effects().iter().all(|(_, effect)| *effect == Effect::Start));
    }
}

#[test]
fn nonsense_in_the_times_keeps_no_server_from_serving() {
    let world = world("auto_start_at=08:30");
    world.by_hand("UPDATE servers SET auto_start_at = 'early', is_staging = 1");
    let facts = world.facts();
    assert!(facts.unreadable.is_empty());
    let server = facts.servers.values().next().unwrap();
    assert_snapshot!(server.switching.as_ref().unwrap_err(), @r#""early" is not a time of day such as 08:30"#);
}

#[test]
fn both_readings_of_the_ancestors_times_are_told() {
    let world = world("auto_start_at=08:30 auto_stop_at=19:00 auto_weekdays=mon-fri");
    let told = both_readings(&world.facts(), world.now, &zone("Asia/Tokyo"));
    assert_snapshot!(told.join("\n"), @"stg1: the next switch is start at Mon 2026-11-23 08:30 UTC (read as UTC), or start at Mon 2026-11-23 08:30 JST (read in this machine's time zone)");
    set(&world, "is_staging=1");
    assert!(both_readings(&world.facts(), world.now, &zone("Asia/Tokyo")).is_empty());
}

#[test]
fn weekdays_are_written_as_people_do() {
    let said = |text: &str| text.parse::<Weekdays>().map(|days| days.to_string());
    let all: Vec<_> =
        ["mon-fri", "Sun, mon", "sat-tue", "wed", "mon-sun", "fri,sat,sun", "mon-mon"]
            .into_iter()
            .map(|text| said(text).unwrap())
            .collect();
    assert_snapshot!(all.join("; "), @"mon-fri; mon,sun; mon,tue,sat,sun; wed; mon-sun; fri-sun; mon");
    for bad in ["", "monday", "mon-", "mon,,tue", "1-5"] {
        said(bad).unwrap_err();
    }
}

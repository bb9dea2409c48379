use pullre::domain::{PullNumber, SchemaName, ServerId};
use pullre::facts::CloneState;
use pullre::store::Won;

use crate::db::{Db, at, outcome};

on_each_engine!(
    a_clone_is_recorded_before_and_after_the_copy,
    a_schema_is_one_servers_only,
    failures_are_counted_for_one_environment,
    another_environment_does_not_inherit_failures,
    a_tick_that_died_copying_counts_as_a_try,
    a_refused_schema_is_left_alone_and_says_why,
    refusals_are_counted_for_one_environment,
    a_refusal_never_takes_the_record_of_another_server,
    late_news_of_a_copy_change_nothing,
    fresh_data_can_be_asked_for_by_its_environment_only,
    taking_over_moves_a_schema_and_forgets_whose_data_it_holds,
    schemas_are_told_apart_by_case,
    a_new_try_by_hand_forgets_failures,
    a_clone_is_wished_for_until_it_is_done,
    what_a_schema_holds_is_not_known_while_another_copy_is_made,
);

fn name(schema: &str) -> SchemaName {
    schema.parse().unwrap()
}

fn start(db: &mut Db, server: ServerId, pull: u32, seconds: i64) -> Won {
    let pull = Some(PullNumber(pull));
    db.clone_started(&name("stg"), server, &name("db_dev1"), pull, None, at(seconds)).unwrap()
}

fn a_clone_is_recorded_before_and_after_the_copy(db: &mut Db) {
    let server = db.server("stg");
    assert_eq!(start(db, server, 1, 5), Won::Yes);
    let clone = db.clone_of("stg").unwrap();
    assert_eq!((clone.state, clone.server, clone.attempts), (CloneState::Building, server, 1));
    assert_eq!((clone.pull, clone.source), (Some(PullNumber(1)), Some(name("db_dev1"))));
    assert_eq!((clone.started_at, clone.finished_at), (Some(at(5)), None));
    db.clone_finished(&name("stg"), server, &outcome(), at(9)).unwrap();
    let clone = db.clone_of("stg").unwrap();
    assert_eq!((clone.state, clone.attempts, clone.error), (CloneState::Ready, 0, None));
    assert_eq!(
        (clone.finished_at, clone.bytes, clone.millis),
        (Some(at(9)), Some(4096), Some(1500))
    );
}

fn a_schema_is_one_servers_only(db: &mut Db) {
    let (one, two) = (db.server("stg"), db.server("other"));
    assert_eq!(start(db, one, 1, 5), Won::Yes);
    let before = db.clone_of("stg");
    assert_eq!(start(db, two, 2, 6), Won::No);
    assert_eq!(db.clone_of("stg"), before);
}

fn failures_are_counted_for_one_environment(db: &mut Db) {
    let server = db.server("stg");
    for attempt in 1..=3 {
        assert_eq!(start(db, server, 1, 5), Won::Yes);
        db.clone_failed(&name("stg"), server, "no room", at(6)).unwrap();
        let clone = db.clone_of("stg").unwrap();
        assert_eq!((clone.state, clone.attempts), (CloneState::Failed, attempt));
        assert_eq!((clone.error.as_deref(), clone.finished_at), (Some("no room"), Some(at(6))));
    }
    assert_eq!(start(db, server, 1, 7), Won::Yes);
    db.clone_finished(&name("stg"), server, &outcome(), at(9)).unwrap();
    assert_eq!(db.clone_of("stg").unwrap().attempts, 0);
}

fn another_environment_does_not_inherit_failures(db: &mut Db) {
    let server = db.server("stg");
    for _ in 0..3 {
        assert_eq!(start(db, server, 1, 5), Won::Yes);
        db.clone_failed(&name("stg"), server, "no room", at(6)).unwrap();
    }
    assert_eq!(start(db, server, 2, 7), Won::Yes);
    let clone = db.clone_of("stg").unwrap();
    assert_eq!((clone.pull, clone.attempts, clone.error), (Some(PullNumber(2)), 1, None));
}

fn a_tick_that_died_copying_counts_as_a_try(db: &mut Db) {
    let server = db.server("stg");
    assert_eq!(start(db, server, 1, 5), Won::Yes);
    assert_eq!(start(db, server, 1, 6), Won::Yes);
    assert_eq!(db.clone_of("stg").unwrap().attempts, 2);
}

fn a_refused_schema_is_left_alone_and_says_why(db: &mut Db) {
    let server = db.server("stg");
    let pull = Some(PullNumber(1));
    db.clone_refused(&name("stg"), server, pull, "not ours", at(5)).unwrap();
    let clone = db.clone_of("stg").unwrap();
    assert_eq!((clone.state, clone.server, clone.pull), (CloneState::Refused, server, pull));
    assert_eq!((clone.error.as_deref(), clone.attempts), (Some("not ours"), 1));
    assert_eq!(clone.finished_at, Some(at(5)));
}

fn refusals_are_counted_for_one_environment(db: &mut Db) {
    let server = db.server("stg");
    for (pull, attempts) in [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2)] {
        let pull = Some(PullNumber(pull));
        db.clone_refused(&name("stg"), server, pull, "not ours", at(5)).unwrap();
        assert_eq!(db.clone_of("stg").unwrap().attempts, attempts);
    }
}

fn a_refusal_never_takes_the_record_of_another_server(db: &mut Db) {
    let (one, two) = (db.server("stg"), db.server("other"));
    assert_eq!(start(db, one, 1, 5), Won::Yes);
    let before = db.clone_of("stg");
    db.clone_refused(&name("stg"), two, Some(PullNumber(2)), "not ours", at(6)).unwrap();
    assert_eq!(db.clone_of("stg"), before);
}

fn late_news_of_a_copy_change_nothing(db: &mut Db) {
    let (one, two) = (db.server("stg"), db.server("other"));
    assert_eq!(start(db, one, 1, 5), Won::Yes);
    db.take_over(&name("stg"), two).unwrap();
    db.clone_finished(&name("stg"), one, &outcome(), at(9)).unwrap();
    db.clone_failed(&name("stg"), one, "no room", at(9)).unwrap();
    let clone = db.clone_of("stg").unwrap();
    assert_eq!((clone.state, clone.server, clone.error), (CloneState::Owned, two, None));
}

fn fresh_data_can_be_asked_for_by_its_environment_only(db: &mut Db) {
    let server = db.server("stg");
    assert_eq!(start(db, server, 1, 5), Won::Yes);
    db.clone_finished(&name("stg"), server, &outcome(), at(6)).unwrap();
    assert_eq!(db.clone_stale(&name("stg"), PullNumber(2)).unwrap(), Won::No);
    assert_eq!(db.clone_of("stg").unwrap().state, CloneState::Ready);
    assert_eq!(db.clone_stale(&name("stg"), PullNumber(1)).unwrap(), Won::Yes);
    assert_eq!(db.clone_of("stg").unwrap().state, CloneState::Stale);
    assert_eq!(db.clone_stale(&name("nothing"), PullNumber(1)).unwrap(), Won::No);
}

fn taking_over_moves_a_schema_and_forgets_whose_data_it_holds(db: &mut Db) {
    let (one, two) = (db.server("stg"), db.server("other"));
    db.take_over(&name("fresh"), one).unwrap();
    let fresh = db.clone_of("fresh").unwrap();
    assert_eq!((fresh.state, fresh.server, fresh.attempts), (CloneState::Owned, one, 0));
    assert_eq!(start(db, one, 1, 5), Won::Yes);
    db.take_over(&name("stg"), two).unwrap();
    let clone = db.clone_of("stg").unwrap();
    assert_eq!((clone.state, clone.server, clone.pull), (CloneState::Owned, two, None));
}

/// That two names may be one schema is the planner's to see; the records stay apart.
fn schemas_are_told_apart_by_case(db: &mut Db) {
    let (one, two) = (db.server("stg"), db.server("STG"));
    db.take_over(&name("stg"), one).unwrap();
    db.take_over(&name("STG"), two).unwrap();
    db.take_over(&name("stg é"), two).unwrap();
    db.take_over(&name("stg e"), one).unwrap();
    let clones = db.facts().unwrap().clones;
    let owners: Vec<_> = clones.values().map(|c| (c.schema.as_str(), c.server)).collect();
    assert_eq!(owners, [("STG", two), ("stg", one), ("stg e", one), ("stg é", two)]);
}

fn a_new_try_by_hand_forgets_failures(db: &mut Db) {
    let server = db.server("stg");
    assert_eq!(start(db, server, 1, 5), Won::Yes);
    db.clone_failed(&name("stg"), server, "no room", at(6)).unwrap();
    db.start_requested(server, at(5)).unwrap();
    db.forget_failures(PullNumber(2), server).unwrap();
    assert_eq!(db.clone_of("stg").unwrap().state, CloneState::Failed);
    // A start that is on its way is no failure.
    assert_eq!(db.facts_of(server).start.attempts, 1);
    db.start_refused(server, "the zone is full", None).unwrap();
    db.forget_failures(PullNumber(1), server).unwrap();
    let clone = db.clone_of("stg").unwrap();
    assert_eq!((clone.state, clone.attempts), (CloneState::Stale, 0));
    assert_eq!(db.facts_of(server).start, Default::default());
}

fn a_clone_is_wished_for_until_it_is_done(db: &mut Db) {
    let (stg, server) = (name("stg"), db.server("stg"));
    assert_eq!(db.clone_wish(&stg).unwrap(), None);
    let wish = |db: &mut Db, pull: u32| {
        // Its clock stands still.
        assert_eq!(start(db, server, pull, 5), Won::Yes);
        db.clone_wish(&stg).unwrap().unwrap()
    };
    let first = wish(db, 1);
    assert!(first < 0);
    // Killed, failed, or wanted afresh before it was done.
    assert_eq!(wish(db, 1), first);
    db.clone_failed(&name("stg"), server, "no room", at(6)).unwrap();
    assert_eq!(wish(db, 1), first);
    assert_eq!(db.clone_stale(&name("stg"), PullNumber(1)).unwrap(), Won::Yes);
    assert_eq!(wish(db, 1), first);
    let second = wish(db, 2);
    assert_ne!(second, first);
    db.clone_finished(&name("stg"), server, &outcome(), at(9)).unwrap();
    assert_eq!(db.clone_wish(&name("stg")).unwrap(), None);
    let third = wish(db, 2);
    db.take_over(&name("stg"), server).unwrap();
    assert_eq!(db.clone_wish(&name("stg")).unwrap(), None);
    let fourth = wish(db, 2);
    assert!(![first, second].contains(&third) && ![first, second, third].contains(&fourth));
    assert_eq!(db.remove_server(server).unwrap(), Won::Yes);
    assert_eq!(db.clone_wish(&stg).unwrap(), None);
}

fn what_a_schema_holds_is_not_known_while_another_copy_is_made(db: &mut Db) {
    let server = db.server("stg");
    assert_eq!(start(db, server, 1, 5), Won::Yes);
    db.clone_finished(&name("stg"), server, &outcome(), at(6)).unwrap();
    let holds = |db: &mut Db, pull: u32| {
        db.clone_of("stg").unwrap().holds(&name("db_dev1"), PullNumber(pull), None)
    };
    // The same again: whichever it is, it is of one kind.
    assert_eq!(start(db, server, 1, 7), Won::Yes);
    db.clone_failed(&name("stg"), server, "the last step failed", at(8)).unwrap();
    assert!(holds(db, 1));
    // Another one may be in place although it failed.
    assert_eq!(start(db, server, 2, 9), Won::Yes);
    db.clone_failed(&name("stg"), server, "the last step failed", at(10)).unwrap();
    assert!(!holds(db, 1) && !holds(db, 2));
    assert_eq!(start(db, server, 1, 11), Won::Yes);
    assert!(!holds(db, 1));
    db.clone_finished(&name("stg"), server, &outcome(), at(12)).unwrap();
    assert!(holds(db, 1));
}

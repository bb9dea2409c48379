use pullre::domain::PullNumber;
use pullre::reconcile::plan::Record;
use pullre::store::{Store, StoreError};

use crate::db::{Db, at, command, mariadb, request};
use crate::troubled::{both, failing};

on_each_engine!(
    what_fails_halfway_leaves_nothing,
    after_a_failure_the_connection_still_works,
    a_commit_that_fails_leaves_no_transaction_open,
    what_lost_against_others_is_done_again_and_only_once,
    two_ticks_that_write_a_setting_both_go_on,
);

/// The second record cannot be written.
fn fails_halfway(db: &mut Db) -> StoreError {
    db.write("DROP TABLE pull_facts");
    db.record(&[Record::Pull(Box::new(request(1)))], at(1)).unwrap_err()
}

fn what_fails_halfway_leaves_nothing(db: &mut Db) {
    let error = fails_halfway(db);
    assert!(matches!(error, StoreError::NotInitialized), "{error}");
    assert!(db.read("SELECT number FROM pull_requests").is_empty());
    assert!(db.read("SELECT id FROM events").is_empty());
}

fn after_a_failure_the_connection_still_works(db: &mut Db) {
    fails_halfway(db);
    db.event(at(1), "tester", Some(PullNumber(1)), None, "alone").unwrap();
    let server = db.server("stg1");
    db.set_server(server, &[("name", "renamed".into())], at(1)).unwrap();
    assert_eq!(db.another().duties_of("renamed").unwrap().len(), 1);
}

fn a_commit_that_fails_leaves_no_transaction_open(db: &mut Db) {
    let full = vec![StoreError::Unavailable("the disk is full".into())];
    let mut store = failing(db, full);
    let record = [Record::Pull(Box::new(request(1)))];
    store.record(&record, at(1)).unwrap_err();
    assert_eq!(db.pull(PullNumber(1)).unwrap(), None);
    store.record(&record, at(2)).unwrap();
    assert!(db.pull(PullNumber(1)).unwrap().is_some());
}

fn what_lost_against_others_is_done_again_and_only_once(db: &mut Db) {
    let lost = (0..3).map(|_| StoreError::Deadlock("two waited for each other".into())).collect();
    let mut store = failing(db, lost);
    store.record(&[Record::Pull(Box::new(request(1)))], at(1)).unwrap();
    assert_eq!(db.read("SELECT number FROM pull_requests").len(), 1);
    assert_eq!(db.read("SELECT id FROM events").len(), 1);
}

fn two_ticks_that_write_a_setting_both_go_on(db: &mut Db) {
    let by =
        |who: &'static str| move |store: &mut Store| store.set_paused(Some(who.into())).unwrap();
    both(db, "UPDATE settings", by("one"), by("another"));
    assert_eq!(db.facts().unwrap().paused.as_deref(), Some("another"));
}

// On SQLite one transaction waits for the other from its beginning.

#[test]
fn two_ticks_that_see_the_same_push_both_go_on() {
    let mut db = mariadb();
    let record = |store: &mut Store| {
        store.record(&[Record::Pull(Box::new(request(1)))], at(1)).unwrap();
    };
    both(&db, "FROM heads", record, record);
    assert_eq!(db.read("SELECT number FROM pull_requests").len(), 1);
    assert_eq!(db.read("SELECT number FROM heads").len(), 1);
}

#[test]
fn two_ticks_that_read_the_same_command_both_go_on() {
    let mut db = mariadb();
    let read = |store: &mut Store| store.comments_read(&[command(5)], at(3), "mark").unwrap();
    both(&db, "FROM comment_commands", read, read);
    assert_eq!(db.open_commands().unwrap().len(), 1);
    assert_eq!(db.read("SELECT content FROM settings WHERE name = 'comments_read'").len(), 1);
}

use pullre::domain::{Login, PullNumber, PullState};
use pullre::ports::ReadingMark;
use pullre::reconcile::plan::Record;
use pullre::store::backend::Value;

use crate::db::{Db, at, request, sha};

on_each_engine!(
    a_pull_request_is_kept_as_it_was_described,
    what_is_missing_stays_missing,
    opening_pushing_closing_and_reopening_are_events,
    reading_the_same_again_is_no_event,
    one_that_vanished_from_the_forge_counts_as_closed,
    eligibility_begins_and_ends_at_a_moment,
    closing_ends_eligibility_and_its_place_in_the_queue,
    closed_ones_are_facts_only_while_they_have_a_server,
    what_a_person_wished_outlives_every_reading,
    a_wish_may_come_before_the_forge_describes_it,
    rows_of_the_ancestor_are_not_described_yet,
    the_mark_of_a_reading_is_kept,
    a_damaged_mark_counts_as_none,
);

fn a_pull_request_is_kept_as_it_was_described(db: &mut Db) {
    let mut described = request(7);
    described.is_fork = true;
    described.is_draft = true;
    described.head_repo = Some("stranger/app".into());
    described.state = PullState::Closed;
    described.closed_at = Some(at(-1));
    db.record(&[Record::Pull(Box::new(described.clone()))], at(1)).unwrap();
    let pull = db.pull(PullNumber(7)).unwrap().unwrap();
    assert!(pull.described);
    assert_eq!(pull.request, described);
}

fn what_is_missing_stays_missing(db: &mut Db) {
    let number = db.pull_request(1, |request| {
        request.author = None;
        request.head_repo = None;
        request.labels.clear();
        request.body.clear();
    });
    let request = db.pull(number).unwrap().unwrap().request;
    assert_eq!((request.author, request.head_repo, request.labels), (None, None, vec![]));
    assert_eq!(db.pull(PullNumber(2)).unwrap(), None);
}

fn opening_pushing_closing_and_reopening_are_events(db: &mut Db) {
    let number = db.open_pull(1);
    db.pull_request(1, |request| request.head = sha(0x2222_2222));
    db.pull_request(1, |request| {
        request.head = sha(3);
        request.state = PullState::Closed;
    });
    db.pull_request(1, |request| request.head = sha(3));
    let first_seen_closed = db.pull_request(2, |request| request.state = PullState::Closed);
    assert_eq!(db.events(number), ["open at 0000000", "new head 0000000", "closed", "reopened"]);
    assert_eq!(db.events(first_seen_closed), ["closed at 0000000"]);
}

fn reading_the_same_again_is_no_event(db: &mut Db) {
    let number = db.open_pull(1);
    db.pull_request(1, |request| request.title = "Another title".into());
    assert_eq!(db.events(number), ["open at 0000000"]);
    assert_eq!(db.pull(number).unwrap().unwrap().request.title, "Another title");
}

fn one_that_vanished_from_the_forge_counts_as_closed(db: &mut Db) {
    let number = db.open_pull(1);
    db.record(&[Record::Eligible(number), Record::Gone(number)], at(5)).unwrap();
    let pull = db.pull(number).unwrap().unwrap();
    assert_eq!((pull.request.state, pull.eligible_since), (PullState::Closed, None));
    assert_eq!(db.events(number).last().unwrap(), "gone from GitHub");
}

fn eligibility_begins_and_ends_at_a_moment(db: &mut Db) {
    let number = db.open_pull(1);
    let since = |db: &mut Db| {
        let pull = db.pull(number).unwrap().unwrap();
        (pull.eligible_since, pull.ineligible_since)
    };
    assert_eq!(since(db), (None, None));
    db.record(&[Record::Eligible(number)], at(5)).unwrap();
    assert_eq!(since(db), (Some(at(5)), None));
    db.record(&[Record::Ineligible(number)], at(6)).unwrap();
    assert_eq!(since(db), (None, Some(at(6))));
    // A push keeps its place.
    db.pull_request(1, |request| request.head = sha(2));
    assert_eq!(since(db), (None, Some(at(6))));
}

fn closing_ends_eligibility_and_its_place_in_the_queue(db: &mut Db) {
    let number = db.open_pull(1);
    db.record(&[Record::Eligible(number)], at(5)).unwrap();
    db.pull_request(1, |request| request.state = PullState::Closed);
    assert_eq!(db.pull(number).unwrap().unwrap().eligible_since, None);
}

fn closed_ones_are_facts_only_while_they_have_a_server(db: &mut Db) {
    let (with, server) = db.environment(1);
    for number in [1, 2] {
        db.pull_request(number, |request| request.state = PullState::Closed);
    }
    db.open_pull(3);
    let numbers =
        |db: &mut Db| db.facts().unwrap().pulls.into_keys().map(|n| n.0).collect::<Vec<_>>();
    assert_eq!(numbers(db), [1, 3]);
    let _ = db.release(with, server, "closed", at(5)).unwrap();
    assert_eq!(numbers(db), [3]);
}

fn what_a_person_wished_outlives_every_reading(db: &mut Db) {
    let number = db.open_pull(1);
    db.approve(number, &sha(1)).unwrap();
    db.pull_request(1, |request| request.head = sha(2));
    assert_eq!(db.pull(number).unwrap().unwrap().approved, Some(sha(1)));
}

fn a_wish_may_come_before_the_forge_describes_it(db: &mut Db) {
    db.approve(PullNumber(1), &sha(1)).unwrap();
    db.approve(PullNumber(1), &sha(2)).unwrap();
    let number = db.open_pull(1);
    assert_eq!(db.pull(number).unwrap().unwrap().approved, Some(sha(2)));
}

fn rows_of_the_ancestor_are_not_described_yet(db: &mut Db) {
    db.write(
        "INSERT INTO pull_requests (created_at, updated_at, number, state, sha, title, ref)
         VALUES ('2026-11-22 21:23:48', '2026-11-22 21:23:48', 2, 'open',
         '5477f64340bbea341a7bc5cf1305891bf8af3f6c', '機能 2 🍣', 'feat2')",
    );
    let pull = db.facts().unwrap().pulls.remove(&PullNumber(2)).unwrap();
    assert!(!pull.described);
    assert_eq!(pull.request.title, "機能 2 🍣");
    db.pull_request(2, |request| request.author = Some(Login("Dev2".into())));
    let pull = db.pull(PullNumber(2)).unwrap().unwrap();
    assert!(pull.described);
    // Its own row was updated, not doubled.
    assert_eq!(db.read("SELECT number FROM pull_requests"), [[Value::Int(2)]]);
    assert_eq!(
        db.read_one("SELECT created_at FROM pull_requests"),
        Value::Text("2026-11-22 21:23:48".into())
    );
}

fn the_mark_of_a_reading_is_kept(db: &mut Db) {
    let mark = |whole| Record::Mark(ReadingMark { watermark: at(3), whole, etag: None });
    db.record(&[mark(false)], at(5)).unwrap();
    let facts = db.facts().unwrap();
    assert_eq!((facts.watermark, facts.whole_read_at), (Some(at(3)), None));
    db.record(&[mark(true)], at(6)).unwrap();
    assert_eq!(db.facts().unwrap().whole_read_at, Some(at(6)));
}

fn a_damaged_mark_counts_as_none(db: &mut Db) {
    db.write("INSERT INTO settings (name, content) VALUES ('watermark', 'yesterday')");
    assert_eq!(db.facts().unwrap().watermark, None);
}

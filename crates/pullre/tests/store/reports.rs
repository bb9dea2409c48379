//! What was said on GitHub, and what it may cost.

use pullre::domain::PullNumber;
use pullre::ports::Reaction;
use pullre::reconcile::plan::Record;
use pullre::report::plan::{Saying, What};
use pullre::report::{Key, Kind, LastSaid, State};
use pullre::store::backend::Value;
use pullre::store::{CommandState, Won};

use crate::db::{Db, at, command};

on_each_engine!(
    what_was_said_is_remembered_until_it_is_settled,
    tries_are_counted_by_what_was_tried,
    a_refusal_is_news_once_for_each_credential,
    trouble_is_news_once_until_it_is_over,
    writes_fit_into_a_minute_and_an_hour,
    a_command_is_kept_once_and_taken_once,
    a_stop_lasts_until_its_release,
    an_alert_is_kept_from_its_beginning_to_its_end,
    rows_of_nonsense_concern_nobody_else,
    what_is_known_of_one_is_what_is_known_of_it_among_all,
    what_is_begun_stands_beside_what_was_said_until_it_is_known,
    what_is_over_is_forgotten_and_what_is_open_is_not,
    of_all_outputs_only_that_of_the_failed_step_is_read,
);

fn saying(number: u32, kind: Kind, sha: &str, digest: &str) -> Saying {
    Saying {
        key: Key { number: PullNumber(number), kind, sha: sha.to_owned() },
        state: State::Success,
        what: What::Settle,
        digest: digest.to_owned(),
        settles: false,
    }
}

fn what_was_said_is_remembered_until_it_is_settled(db: &mut Db) {
    let check = saying(7, Kind::Check, "abc", "one");
    db.report_said(&check, 11, "token", at(0)).unwrap();
    db.report_said(&Saying { digest: "two".into(), ..check.clone() }, 12, "token", at(1)).unwrap();
    let facts = db.facts().unwrap();
    let told = db.told(&facts).unwrap();
    let said = &told.said[&check.key];
    assert_eq!((said.id, said.digest.as_deref()), (Some(12), Some("two")));
    assert_eq!((said.state, said.settled), (Some(State::Success), false));
    db.settle_report(&check.key).unwrap();
    assert!(db.told(&facts).unwrap().said.is_empty(), "not open, and all is said");
    db.open_pull(7);
    let facts = db.facts().unwrap();
    assert_eq!(db.told(&facts).unwrap().said.len(), 1, "open: what was said counts");
}

fn tries_are_counted_by_what_was_tried(db: &mut Db) {
    let comment = saying(7, Kind::Comment, "", "one");
    assert_eq!(db.report_tried(&comment, at(0)).unwrap(), 1);
    assert_eq!(db.report_tried(&comment, at(60)).unwrap(), 2);
    let other = Saying { digest: "two".into(), ..comment.clone() };
    assert_eq!(db.report_tried(&other, at(120)).unwrap(), 1);
    let facts = db.facts().unwrap();
    let said = db.told(&facts).unwrap().said.remove(&comment.key).unwrap();
    let tried = said.tried.unwrap();
    assert_eq!((tried.digest.as_str(), tried.at, tried.attempts), ("two", at(120), 1));
    assert_eq!(said.state, None, "nothing was said");
}

fn a_refusal_is_news_once_for_each_credential(db: &mut Db) {
    assert!(db.report_refused(Kind::Check, "token", "no App", at(0)).unwrap());
    assert!(!db.report_refused(Kind::Check, "token", "no App", at(90)).unwrap());
    assert!(db.report_refused(Kind::Check, "app", "not granted", at(99)).unwrap());
    let facts = db.facts().unwrap();
    let refusal = db.told(&facts).unwrap().refusals.remove(&Kind::Check).unwrap();
    assert_eq!((refusal.credential.as_str(), refusal.at), ("app", at(99)));
}

fn trouble_is_news_once_until_it_is_over(db: &mut Db) {
    assert!(db.report_trouble(Some("away")).unwrap());
    assert!(!db.report_trouble(Some("away")).unwrap());
    assert!(!db.report_trouble(Some("still away")).unwrap());
    assert_eq!(db.facts().unwrap().report_trouble.as_deref(), Some("still away"));
    let _ = db.report_trouble(None).unwrap();
    assert!(db.report_trouble(Some("away")).unwrap());
}

fn writes_fit_into_a_minute_and_an_hour(db: &mut Db) {
    let mut reserve = |second| db.reserve_write(at(second), 3, 5).unwrap();
    assert_eq!([0, 1, 2, 3].map(&mut reserve), [true, true, true, false]);
    assert_eq!([60, 61, 62].map(&mut reserve), [true, true, false], "the hour has five");
    assert!(!reserve(3500));
    assert!(reserve(3605), "the first minute is an hour ago");
    assert!(reserve(-7200), "a clock that was put back does not stop us");
}

fn a_command_is_kept_once_and_taken_once(db: &mut Db) {
    let command = command(5);
    for _ in 0..2 {
        db.comments_read(std::slice::from_ref(&command), at(3), "mark").unwrap();
    }
    assert_eq!(db.open_commands().unwrap(), std::slice::from_ref(&command));
    assert_eq!(db.facts().unwrap().comments_read, Some(at(3)));
    let taken = |db: &mut Db| db.command_is(&command, CommandState::Taken, None, at(4)).unwrap();
    assert_eq!([taken(db), taken(db)], [Won::Yes, Won::No]);
    let mut taken = db.open_commands().unwrap().remove(0);
    let answer = Some((Reaction::Done, Some("it is done")));
    assert_eq!(db.command_is(&taken, CommandState::Answered, answer, at(5)).unwrap(), Won::Yes);
    taken.state = CommandState::Answered;
    taken.reaction = Some(Reaction::Done);
    assert_eq!(db.command_is(&taken, CommandState::Done, None, at(6)).unwrap(), Won::Yes);
    assert!(db.open_commands().unwrap().is_empty());
    db.open_pull(7);
    let facts = db.facts().unwrap();
    let answers = db.told(&facts).unwrap().answers;
    assert_eq!(answers[&PullNumber(7)][0].text, "it is done", "the last step keeps it");
}

fn a_stop_lasts_until_its_release(db: &mut Db) {
    db.open_pull(7);
    let seven = PullNumber(7);
    db.stop_pull(seven, Some(("alice", at(1)))).unwrap();
    db.stop_pull(seven, Some(("bob", at(2)))).unwrap();
    let stopped = db.pull(seven).unwrap().unwrap().stopped.unwrap();
    assert_eq!((stopped.by.as_str(), stopped.since), ("bob", at(2)));
    db.stop_pull(seven, None).unwrap();
    assert_eq!(db.pull(seven).unwrap().unwrap().stopped, None);
}

fn an_alert_is_kept_from_its_beginning_to_its_end(db: &mut Db) {
    db.alert_began("pool", "no server is free", at(0)).unwrap();
    db.alert_told("pool", at(9)).unwrap();
    let alert = db.alerts().unwrap().remove("pool").unwrap();
    assert_eq!((alert.since, alert.told_at), (at(0), Some(at(9))));
    db.alert_over("pool").unwrap();
    assert!(db.alerts().unwrap().is_empty());
}

fn what_is_over_is_forgotten_and_what_is_open_is_not(db: &mut Db) {
    for number in [7, 8] {
        let check = saying(number, Kind::Check, "abc", "one");
        db.report_said(&Saying { settles: true, ..check }, 11, "token", at(0)).unwrap();
    }
    db.open_pull(8);
    // What was tried and given up was never said.
    let tried = saying(7, Kind::Comment, "", "one");
    db.report_tried(&tried, at(1)).unwrap();
    db.settle_report(&tried.key).unwrap();
    db.record(&[Record::Forget { before: at(100) }], at(200)).unwrap();
    let left = db.read("SELECT pull_number FROM reports");
    assert_eq!(left, [[Value::Int(8)]]);
}

fn what_is_begun_stands_beside_what_was_said_until_it_is_known(db: &mut Db) {
    let check = saying(7, Kind::Check, "abc", "one");
    db.report_said(&check, 11, "token", at(0)).unwrap();
    let facts = db.facts().unwrap();
    let one = |db: &mut Db| db.told(&facts).unwrap().said.remove(&check.key).unwrap();
    let before = one(db);
    for second in [1, 2] {
        db.report_begun(&check.key, at(second)).unwrap();
    }
    let said = one(db);
    let was = LastSaid { begun_at: None, ..said.clone() };
    assert_eq!(said.begun_at, Some(at(2)));
    assert_eq!(was, before, "it may be all that is there");
    db.report_not_made(&check.key).unwrap();
    assert_eq!(one(db), before);
    db.report_begun(&check.key, at(3)).unwrap();
    db.report_said(&check, 12, "token", at(4)).unwrap();
    assert_eq!((one(db).id, one(db).begun_at), (Some(12), None));
    // What was settled and is begun again is looked at until it is settled again.
    db.settle_report(&check.key).unwrap();
    assert!(db.told(&facts).unwrap().said.is_empty());
    db.report_begun(&check.key, at(5)).unwrap();
    assert_eq!((one(db).id, one(db).begun_at), (Some(12), Some(at(5))));
    db.settle_report(&check.key).unwrap();
    assert!(db.read("SELECT * FROM report_beginnings").is_empty());
}

fn what_is_known_of_one_is_what_is_known_of_it_among_all(db: &mut Db) {
    for number in [1, 2] {
        let (_, _, deployment) = db.running(number);
        db.step_started(deployment.id, "migrate", at(5)).unwrap();
        db.report_said(&saying(number, Kind::Check, "abc", "one"), 11, "token", at(6)).unwrap();
        db.write(&format!(
            "INSERT INTO comment_commands VALUES ({number}, {number}, 'alice', 'hold', 'done', 0, '+1', 'held')"
        ));
    }
    let facts = db.facts_without_bodies().unwrap();
    assert_eq!(facts.pulls[&PullNumber(1)].request.body, "");
    let all = db.told(&facts).unwrap();
    let one = db.told_of(PullNumber(2), &facts).unwrap();
    assert_eq!((all.said.len(), all.steps.len(), all.answers.len()), (2, 2, 2));
    assert_eq!((one.said.len(), one.steps.len(), one.answers.len()), (1, 1, 1));
    let (key, said) = one.said.first_key_value().unwrap();
    assert_eq!((key.number, said), (PullNumber(2), &all.said[key]));
    assert_eq!(one.answers[&PullNumber(2)], all.answers[&PullNumber(2)]);
}

fn of_all_outputs_only_that_of_the_failed_step_is_read(db: &mut Db) {
    for number in [1, 2] {
        let (_, _, deployment) = db.running(number);
        for name in ["checkout", "migrate"] {
            let step = db.step_started(deployment.id, name, at(5)).unwrap();
            db.step_finished(step, Some(1), &format!("{name} of {number}"), at(6)).unwrap();
        }
        if number == 2 {
            let failed = db.deployment_failed(&deployment, "migrate", "exit status 1", at(7));
            assert_eq!(failed.unwrap(), Won::Yes);
        }
    }
    let facts = db.facts_without_bodies().unwrap();
    let steps = db.told(&facts).unwrap().steps.into_values();
    let outputs: Vec<_> = steps.flatten().map(|step| step.output).collect();
    assert_eq!(outputs, ["", "", "", "migrate of 2"]);
}

fn rows_of_nonsense_concern_nobody_else(db: &mut Db) {
    db.open_pull(7);
    db.report_said(&saying(7, Kind::Comment, "", "one"), 11, "token", at(0)).unwrap();
    for sql in [
        "INSERT INTO reports (pull_number, kind, sha, settled, attempts) VALUES (-1, 'song', '', 0, 0)",
        "INSERT INTO reports (pull_number, kind, sha, state, settled, attempts)
             VALUES (7, 'check', '`', 'x', 0, 0)",
        "INSERT INTO report_refusals VALUES ('song', 'token', -1, '')",
        "INSERT INTO comment_commands VALUES (1, -1, '', '', 'x', 0, NULL, 'an answer')",
        "INSERT INTO alerts VALUES ('pool', 'no server', 9223372036854775807, NULL)",
        "INSERT INTO alerts VALUES ('github', 'away', 0, NULL)",
        "INSERT INTO comment_commands VALUES (2, 7, 'alice', 'hold', 'new', 0, NULL, NULL)",
    ] {
        db.write(sql);
    }
    let facts = db.facts().unwrap();
    assert_eq!(db.told(&facts).unwrap().said.len(), 1);
    let commands = db.open_commands().unwrap();
    assert_eq!(commands.iter().map(|c| c.comment).collect::<Vec<_>>(), [2]);
    assert_eq!(db.alerts().unwrap().into_keys().collect::<Vec<_>>(), ["github"]);
}

use pullre::domain::{Login, PullNumber};

use crate::db::{Db, at, request};

on_each_engine!(
    a_long_body_is_stored_whole,
    the_longest_body_that_github_takes_is_stored_whole,
    hostile_texts_come_back_as_they_were,
    moments_are_exact_to_the_millisecond,
);

fn a_long_body_is_stored_whole(db: &mut Db) {
    let body = "バグ🍣".repeat(8_200);
    assert!(body.len() > 80_000);
    let number = db.pull_request(1, |request| request.body = body.clone());
    assert!(db.pull(number).unwrap().unwrap().request.body == body);
}

/// 65,536 characters, all of four bytes.
fn the_longest_body_that_github_takes_is_stored_whole(db: &mut Db) {
    let body = "🍣".repeat(65_536);
    let number = db.pull_request(1, |request| request.body = body.clone());
    assert!(db.facts().unwrap().pulls[&number].request.body == body);
}

fn hostile_texts_come_back_as_they_were(db: &mut Db) {
    for text in [
        "'; DROP TABLE pull_requests; --",
        "\\' OR 1=1 /* ? */ `x` \"y\" %s :name ${x} \\",
        "\u{1b}[2J\u{202e}\r\n\t\u{1} trailing space ",
        "𝒳🍣\u{10ffff}\u{feff}",
        "?",
        "",
        "NULL",
    ] {
        let mut described = request(1);
        described.title = text.into();
        described.body = text.into();
        described.head_ref = text.into();
        described.base_ref = text.into();
        described.head_repo = Some(text.into());
        described.author = Some(Login(text.into()));
        described.labels = vec![text.into(), text.into()];
        let number = db.pull_request(1, |request| *request = described.clone());
        assert_eq!(db.pull(number).unwrap().unwrap().request, described);
        db.event(at(1), text, Some(number), None, text).unwrap();
        let event = db.events_of(number, 1).unwrap().remove(0);
        assert_eq!((event.actor.as_str(), event.message.as_str()), (text, text));
    }
    let long = "x".repeat(500);
    db.event(at(1), &long, Some(PullNumber(1)), None, "a long name").unwrap();
    let event = db.events_of(PullNumber(1), 1).unwrap().remove(0);
    assert!(long.starts_with(&event.actor) && event.actor.len() > 100);
}

fn moments_are_exact_to_the_millisecond(db: &mut Db) {
    let early = jiff::Timestamp::from_millisecond(-1).unwrap();
    let number = db.pull_request(1, |request| {
        request.created_at = early;
        request.updated_at = "9999-12-30T21:59:59.999Z".parse().unwrap();
    });
    let request = db.pull(number).unwrap().unwrap().request;
    assert_eq!(request.created_at, early);
    assert_eq!(request.updated_at.to_string(), "9999-12-30T21:59:59.999Z");
}

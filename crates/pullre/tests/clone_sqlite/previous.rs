//! The clone that was replaced stays for a while, and comes back.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use pullre::schema_clone::{CloneError, CloneOutcome, Request, sqlite};

use super::{MINUTE, Schemas, name, schemas};

fn keep(s: &Schemas, source: &str) -> CloneOutcome {
    let (source, stg1) = (name(source), name("stg1"));
    let request = Request { keep_previous: true, ..Request::new(&source, &stg1, MINUTE) };
    sqlite::clone(s.dir(), &request, &mut |_| {}).unwrap()
}

fn undo(s: &Schemas, wish: i64) -> Result<(), CloneError> {
    sqlite::undo(s.dir(), &name("stg1"), wish)
}

fn kept() -> Schemas {
    let s = schemas().with("a", "a", 10).with_wal("b", "b", 20);
    s.clone("a", "stg1").unwrap();
    assert!(keep(&s, "b").kept_previous);
    s
}

#[test]
fn the_previous_clone_comes_back_and_the_other_is_kept() {
    let s = kept();
    s.open("stg1").execute_batch("PRAGMA journal_mode = WAL; UPDATE t SET word = 'b2'").unwrap();
    fs::set_permissions(s.file("stg1"), fs::Permissions::from_mode(0o640)).unwrap();
    for (wish, now) in
        [(1, ("a".to_owned(), 10)), (2, ("b2".to_owned(), 20)), (3, ("a".to_owned(), 10))]
    {
        undo(&s, wish).unwrap();
        assert_eq!(s.content("stg1"), now);
        // It was done already.
        undo(&s, wish).unwrap();
        assert_eq!(s.content("stg1"), now);
    }
    undo(&s, 4).unwrap();
    assert_eq!(s.mode("stg1"), 0o640);
}

#[test]
fn one_generation_is_kept_and_none_where_nobody_wants_it() {
    let s = kept();
    keep(&s, "a");
    keep(&s, "b");
    undo(&s, 1).unwrap();
    assert_eq!(s.content("stg1"), ("a".into(), 10));
    assert!(!s.clone("b", "stg1").unwrap().kept_previous);
    assert!(matches!(undo(&s, 2), Err(CloneError::NoPrevious { .. })));
    assert_eq!(s.content("stg1"), ("b".into(), 20));
    assert!(!s.dir().join(".stg1.previous").exists());
}

#[test]
fn a_clone_in_use_is_not_exchanged() {
    let s = kept();
    let app = s.open("stg1");
    app.execute_batch("PRAGMA journal_mode = WAL; BEGIN; SELECT * FROM t").unwrap();
    let error = undo(&s, 1).unwrap_err();
    assert!(matches!(error, CloneError::DestinationBusy { .. }), "{error}");
    assert_eq!(s.content("stg1"), ("b".into(), 20));
    drop(app);
    undo(&s, 1).unwrap();
    assert_eq!(s.content("stg1"), ("a".into(), 10));
}

/// Each state that a kill can leave, made by hand: the names of files are all there is to it.
#[test]
fn a_kill_between_two_steps_is_healed_by_asking_again() {
    let file = |s: &Schemas, word: &str| s.dir().join(format!(".stg1.{word}"));
    let intend = |s: &Schemas| {
        let previous = fs::metadata(file(s, "previous")).unwrap();
        fs::write(file(s, "undo"), format!("5 {} {}\n", previous.dev(), previous.ino())).unwrap();
    };
    type Leave<'a> = (&'a str, &'a dyn Fn(&Schemas));
    let after: [Leave<'_>; 4] = [
        ("the intent", &|s| intend(s)),
        ("the second name", &|s| {
            intend(s);
            fs::hard_link(s.file("stg1"), file(s, "leaving")).unwrap();
        }),
        ("the exchange", &|s| {
            intend(s);
            fs::hard_link(s.file("stg1"), file(s, "leaving")).unwrap();
            fs::rename(file(s, "previous"), s.file("stg1")).unwrap();
        }),
        ("all of it", &|s| undo(s, 5).unwrap()),
    ];
    for (step, leave) in after {
        let s = kept();
        leave(&s);
        undo(&s, 5).unwrap();
        assert_eq!(s.content("stg1"), ("a".into(), 10), "killed after {step}");
        undo(&s, 6).unwrap();
        assert_eq!(s.content("stg1"), ("b".into(), 20), "killed after {step}");
        let mut names = s.names();
        names.retain(|name| !name.starts_with("b.db-"));
        assert_eq!(
            names,
            [".stg1.previous", ".stg1.undo", "a.db", "b.db", "stg1.db"],
            "killed after {step}"
        );
    }
    // A clone that was killed before or after it took the old one's place.
    let s = kept();
    fs::hard_link(s.file("stg1"), file(&s, "leaving")).unwrap();
    keep(&s, "a");
    undo(&s, 1).unwrap();
    assert_eq!(s.content("stg1"), ("b".into(), 20));
}

#[test]
fn a_clone_that_is_made_again_does_not_push_out_what_its_first_try_kept() {
    let s = schemas().with("a", "a", 10).with_wal("b", "b", 20).with("c", "c", 30);
    s.clone("a", "stg1").unwrap();
    let wished = |source: &str, wish: i64| {
        let (source, stg1) = (name(source), name("stg1"));
        let request = Request {
            keep_previous: true,
            wish: Some(wish),
            ..Request::new(&source, &stg1, MINUTE)
        };
        assert!(sqlite::clone(s.dir(), &request, &mut |_| {}).unwrap().kept_previous);
    };
    // The first was put in place, and nobody wrote down that it was.
    wished("b", -5);
    wished("c", -5);
    assert_eq!(s.content("stg1"), ("c".into(), 30));
    undo(&s, 1).unwrap();
    assert_eq!(s.content("stg1"), ("a".into(), 10));
    // Another wish is another matter, and so is one that was killed before it kept anything.
    wished("b", -6);
    fs::write(s.dir().join(".stg1.kept"), "-7 1 1\n").unwrap();
    wished("c", -7);
    undo(&s, 2).unwrap();
    assert_eq!(s.content("stg1"), ("b".into(), 20));
}

//! The clone that was replaced stays for a while, and comes back.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use mysql::prelude::Queryable;
use pullre::schema_clone::{CloneError, Schemas};

use crate::crash::{generation, next, seed};
use crate::world::{MINUTE, World, quoted, server_as, world};

fn kept() -> (World, String, String, String) {
    let mut w = world();
    let (a, b, to) = (generation(&w, "a", "one"), generation(&w, "b", "two"), w.name("to"));
    w.clone(&a, &to);
    w.keep_previous = true;
    assert!(w.clone(&b, &to).kept_previous);
    (w, a, b, to)
}

#[test]
fn the_previous_clone_comes_back_with_everything_and_the_other_is_kept() {
    let (w, a, b, to) = kept();
    w.assert_same(&b, &to);
    assert_eq!(w.names(), [a.clone(), b.clone(), to.clone(), format!("{to}~prev")]);
    for (wish, now) in [(1, &a), (2, &b), (3, &a)] {
        w.undo(&to, wish).unwrap();
        w.assert_same(now, &to);
        // It was done already.
        w.undo(&to, wish).unwrap();
        w.assert_same(now, &to);
    }
    // What people did in it comes along.
    w.sql(&to, "INSERT INTO u VALUES (77)");
    w.clone(&b, &to);
    w.undo(&to, 4).unwrap();
    assert_eq!(w.number(&to, "SELECT COUNT(*) FROM u WHERE id = 77"), 1);
    // Of the source itself nothing has changed, and the sequences of each are its own.
    assert_eq!(w.number(&to, "SELECT NEXTVAL(s)"), 1);
    w.sql(&to, "INSERT INTO d () VALUES ()");
    assert_eq!(w.number(&to, "SELECT MAX(id) FROM d"), 2);
    assert_eq!(w.names(), [a, b, to.clone(), format!("{to}~prev")]);
}

#[test]
fn one_generation_is_kept_and_none_where_nobody_wants_it() {
    let (mut w, a, b, to) = kept();
    w.clone(&a, &to);
    w.clone(&b, &to);
    w.undo(&to, 1).unwrap();
    w.assert_same(&a, &to);
    // Nothing differs: it stays, and so does what is kept.
    let outcome = w.clone(&a, &to);
    assert!(outcome.kept_previous || !outcome.notes[0].contains("nothing differed"));
    w.keep_previous = false;
    assert!(!w.clone(&b, &to).kept_previous);
    assert_eq!(w.names(), [a, b, to.clone()]);
    let error = w.undo(&to, 2).unwrap_err();
    assert!(matches!(error, CloneError::NoPrevious { .. }), "{error}");
    w.undo(&w.name("nowhere"), 3).unwrap_err();
    assert_eq!(w.names().len(), 3);
}

#[test]
fn a_strangers_schema_of_that_name_is_not_touched() {
    let (w, a, _, to) = kept();
    w.conn().query_drop(format!("DROP DATABASE {}", quoted(&format!("{to}~prev")))).unwrap();
    let stranger = format!("{to}~prev");
    w.create(&stranger, "CREATE TABLE precious (a INT)");
    let error = w.try_clone(&a, &to).unwrap_err();
    assert!(matches!(&error, CloneError::InTheWay { name, .. } if *name == stranger), "{error}");
    let error = w.undo(&to, 1).unwrap_err();
    assert!(matches!(error, CloneError::NoPrevious { .. }), "{error}");
    assert_eq!(w.number(&stranger, "SELECT COUNT(*) FROM precious"), 0);
}

#[test]
fn long_names_have_previous_clones_too() {
    let mut w = world();
    let (from, to) = (w.name("from"), format!("{:x<64}", w.name("to_機能")));
    w.create(&from, "CREATE TABLE t (a INT); INSERT INTO t VALUES (1)");
    w.keep_previous = true;
    w.clone(&from, &to);
    w.sql(&from, "INSERT INTO t VALUES (2)");
    w.clone(&from, &to);
    assert_eq!(w.number(&to, "SELECT COUNT(*) FROM t"), 2);
    w.undo(&to, 1).unwrap();
    assert_eq!(w.number(&to, "SELECT COUNT(*) FROM t"), 1);
}

#[test]
fn a_session_on_the_clone_keeps_both_as_they_are() {
    let (w, a, b, to) = kept();
    let mut app = w.conn();
    let hold = format!("USE {}; START TRANSACTION; SELECT * FROM u", quoted(&to));
    let mut answers = app.query_iter(hold).unwrap();
    while let Some(rows) = answers.iter() {
        assert!(rows.count() <= 1);
    }
    drop(answers);
    let error = w.undo(&to, 1).unwrap_err();
    assert!(matches!(error, CloneError::DestinationBusy { .. }), "{error}");
    w.assert_same(&b, &to);
    let previous = format!("{to}~prev");
    assert_eq!(w.number(&previous, "SELECT COUNT(*) FROM v_one"), 5000);
    app.query_drop("ROLLBACK").unwrap();
    w.undo(&to, 2).unwrap();
    w.assert_same(&a, &to);
}

/// Not a test of its own: the child process of the test below, which says each wish before it
/// fulfils it.
#[test]
fn child_process() {
    let Ok(words) = std::env::var("PULLRE_TEST_UNDO") else { return };
    let (port, to) = words.split_once(' ').unwrap();
    let (schemas, to) =
        (Schemas::Mysql(server_as(port.parse().unwrap(), "root", "")), to.parse().unwrap());
    let first: i64 = std::env::var("PULLRE_TEST_WISH").unwrap().parse().unwrap();
    for wish in first.. {
        println!("wish {wish}");
        if let Err(error) = schemas.undo(&to, wish, MINUTE) {
            eprintln!("{error:?}");
            std::process::exit(3);
        }
    }
}

#[test]
fn a_kill_in_the_middle_of_undoing_is_healed_by_asking_again() {
    let (w, a, b, to) = kept();
    let dumps = [w.dump(&a), w.dump(&b)];
    let started = Instant::now();
    w.undo(&to, 1).unwrap();
    w.undo(&to, 2).unwrap();
    let usual = started.elapsed().as_micros() as u64;
    let mut random = seed();
    let mut wish: i64 = 2;
    let mut unfinished = 0;
    for round in 0..40 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["previous::child_process", "--exact", "--nocapture"])
            .env("PULLRE_TEST_UNDO", format!("{} {to}", w.mariadb.port()))
            .env("PULLRE_TEST_WISH", (wish + 1).to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let mut text = String::new();
        while !text.contains("wish ") {
            said.read_line(&mut text).unwrap();
        }
        thread::sleep(Duration::from_micros(next(&mut random) % usual));
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().code(), None, "round {round}: it died by itself");
        said.read_to_string(&mut text).unwrap();
        wish = text
            .lines()
            .filter_map(|line| line.rsplit_once("wish ")?.1.parse().ok())
            .next_back()
            .unwrap();
        // Every wish makes the two change places: before 1 it was b.
        let expected = &dumps[(wish % 2 == 0) as usize];
        unfinished += u32::from(w.dump(&to) != *expected);
        w.undo(&to, wish).unwrap();
        assert_eq!(w.dump(&to), *expected, "round {round}, wish {wish}");
        assert_eq!(
            w.names(),
            [a.clone(), b.clone(), to.clone(), format!("{to}~prev")],
            "round {round}"
        );
    }
    println!("of 40 kills {unfinished} left an unfinished undoing");
    w.undo(&to, wish + 1).unwrap();
    assert_eq!(w.dump(&to), dumps[((wish + 1) % 2 == 0) as usize]);
}

#[test]
fn a_kill_while_clones_are_replaced_and_kept_leaves_both_whole() {
    let (mut w, a, b, to) = kept();
    let dumps = [w.dump(&a), w.dump(&b)];
    let started = Instant::now();
    w.clone(&a, &to);
    w.clone(&b, &to);
    let usual = started.elapsed().as_micros() as u64;
    let mut random = seed();
    for round in 0..25 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["crash::child_process", "--exact", "--nocapture"])
            .env("PULLRE_TEST_CLONE", format!("{} {a} {b} {to}", w.mariadb.port()))
            .env("PULLRE_TEST_KEEP", "1")
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        thread::sleep(Duration::from_micros(5000 + next(&mut random) % usual));
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().code(), None, "round {round}: it died by itself");
        // Undone once, it is one of the two, whole; undone again, the other or the same.
        let wish = i64::from(round) * 2 + 10;
        if w.names().contains(&format!("{to}~prev")) || round % 2 == 0 {
            match w.undo(&to, wish) {
                Ok(()) => assert!(dumps.contains(&w.dump(&to)), "round {round}"),
                Err(CloneError::NoPrevious { .. }) => {}
                Err(e) => panic!("round {round}: {e}"),
            }
        }
        w.clone([&a, &b][(round % 2) as usize], &to);
        assert!(dumps.contains(&w.dump(&to)), "round {round}");
    }
    w.keep_previous = false;
    w.sql(&to, "CREATE TABLE stray (a INT)");
    w.clone(&a, &to);
    assert_eq!(w.names(), [a, b, to]);
}

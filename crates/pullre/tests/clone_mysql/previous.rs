//! The clone that was replaced stays for a while, and comes back.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use mysql::prelude::Queryable;
use pullre::schema_clone::{CloneError, Schemas};

use crate::crash::{child, generation, next, seed};
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
fn an_undoing_leaves_a_strangers_schema_alone() {
    let (w, a, b, to) = kept();
    let stranger = format!("{to}~old");
    w.create(&stranger, "CREATE TABLE precious (a INT)");
    let error = w.undo(&to, 1).unwrap_err();
    assert!(matches!(&error, CloneError::InTheWay { name, .. } if *name == stranger), "{error}");
    w.assert_same(&b, &to);
    assert_eq!(w.number(&stranger, "SELECT COUNT(*) FROM precious"), 0);
    w.conn().query_drop(format!("DROP DATABASE {}", quoted(&stranger))).unwrap();
    w.undo(&to, 1).unwrap();
    w.assert_same(&a, &to);
}

#[test]
fn a_login_that_may_not_keep_it_is_told_before_anything_is_replaced() {
    let (mut w, _, b, to) = kept();
    w.conn().query_drop(format!("DROP DATABASE {}", quoted(&format!("{to}~prev")))).unwrap();
    let user = w.name("u");
    let mut admin = w.conn();
    admin.query_drop(format!("GRANT ALL ON {}.* TO {user} IDENTIFIED BY ''", quoted(&b))).unwrap();
    // What `update-pull grants` printed before it knew of previous clones.
    for end in ["", "~new", "~old"] {
        let schema = quoted(&format!("{to}{end}").replace('_', "\\_"));
        admin.query_drop(format!("GRANT ALL ON {schema}.* TO {user}")).unwrap();
    }
    w.server = server_as(w.mariadb.port(), &user, "");
    w.sql(&b, "INSERT INTO u VALUES (9)");
    let before = w.dump(&to);
    let previous = quoted(&format!("{to}~prev").replace('_', "\\_"));
    let rights = ["ALL", "CREATE", "INSERT", "ALTER", "DROP", "CREATE VIEW", "TRIGGER", "EVENT"];
    for lacking in rights {
        admin.query_drop(format!("GRANT ALL ON {previous}.* TO {user}")).unwrap();
        admin.query_drop(format!("REVOKE {lacking} ON {previous}.* FROM {user}")).unwrap();
        let error = w.try_clone(&b, &to).unwrap_err();
        assert!(matches!(error, CloneError::Forbidden { .. }), "{lacking}: {error}");
        assert!(w.dump(&to) == before, "{lacking}: the clone is not what it was");
    }
    w.keep_previous = false;
    w.clone(&b, &to);
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
    let mut app = w.holding(&to, "SELECT * FROM u");
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
    for round in 0..40_usize {
        let mut child = child(&w, [&a, &b], &to)
            .env("PULLRE_TEST_KEEP", "1")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        // Anywhere, or in the swap.
        let (mut line, phase) = (String::new(), ["Creating", "Swapping"][(round % 3).min(1)]);
        while !line.starts_with(phase) {
            line.clear();
            said.read_line(&mut line).unwrap();
        }
        thread::sleep(Duration::from_micros(next(&mut random) % (usual / 2)));
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().code(), None, "round {round}: it died by itself");
        // Undone once, it is one of the two, whole; undone again, the other or the same.
        let wish = round as i64 + 10;
        if w.names().contains(&format!("{to}~prev")) || round % 2 == 0 {
            match w.undo(&to, wish) {
                Ok(()) => assert!(dumps.contains(&w.dump(&to)), "round {round}"),
                Err(CloneError::NoPrevious { .. }) => {}
                Err(e) => panic!("round {round}: {e}"),
            }
        }
        w.clone([&a, &b][round % 2], &to);
        assert!(dumps.contains(&w.dump(&to)), "round {round}");
    }
    w.keep_previous = false;
    w.sql(&to, "CREATE TABLE stray (a INT)");
    w.clone(&a, &to);
    assert_eq!(w.names(), [a, b, to]);
}

/// Stops the clone of `source` where its RENAME waits for the session that has `u` open, and kills
/// it there. Returns the mark that its statement carries, by which the next run finds it.
pub fn killed_while_it_waits(w: &World, source: &str, to: &str) -> String {
    let mut child = child(w, [source, source], to).env("PULLRE_TEST_KEEP", "1").spawn().unwrap();
    let renames = format!(
        "SELECT info FROM information_schema.processlist
         WHERE info LIKE 'RENAME /* pullre clones into % */%{to}%'"
    );
    let mut statement: Option<String> = None;
    testkit::until("it waits for the session", || {
        statement = w.conn().query_first(&renames).unwrap();
        statement.is_some()
    });
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().code(), None);
    testkit::until("the server gives it up", || {
        w.conn().query_first::<String, _>(&renames).unwrap().is_none()
    });
    statement.unwrap().split(" */").next().unwrap().replace("RENAME /* ", "")
}

#[test]
fn what_a_killed_run_left_at_work_in_the_server_is_ended_before_anything_is_done() {
    let (mut w, a, _, to) = kept();
    let app = w.holding(&to, "SELECT * FROM u");
    let mark = killed_while_it_waits(&w, &a, &to);
    drop(app);
    w.keep_previous = false;
    thread::scope(|scope| {
        let orphan = scope.spawn(|| w.conn().query_drop(format!("SELECT /* {mark} */ SLEEP(600)")));
        let at_work = "SELECT id FROM information_schema.processlist
             WHERE info LIKE '%SLEEP(600)' AND state = 'User sleep'";
        testkit::until("it sleeps", || !w.conn().query::<u32, _>(at_work).unwrap().is_empty());
        w.clone(&a, &to);
        let left: Vec<u32> = w.conn().query(at_work).unwrap();
        for id in &left {
            w.conn().query_drop(format!("KILL {id}")).unwrap();
        }
        orphan.join().unwrap().unwrap_err();
        assert!(left.is_empty(), "it goes on in the server");
    });
    w.assert_same(&a, &to);
}

#[test]
fn old_tables_that_are_out_already_are_never_dropped() {
    let (w, a, b, to) = kept();
    let mut app = w.holding(&to, "SELECT * FROM u");
    killed_while_it_waits(&w, &a, &to);
    // As a server leaves it that renames one by one.
    w.sql(&to, &format!("RENAME TABLE only_two TO {}.only_two", quoted(&format!("{to}~old"))));
    for _ in 0..2 {
        let error = w.try_clone(&a, &to).unwrap_err();
        assert!(matches!(error, CloneError::DestinationBusy { .. }), "{error}");
        w.number(&format!("{to}~old"), "SELECT COUNT(*) FROM only_two");
    }
    app.query_drop("ROLLBACK").unwrap();
    w.clone(&a, &to);
    w.assert_same(&a, &to);
    w.undo(&to, 1).unwrap();
    w.assert_same(&b, &to);
    assert_eq!(w.names(), [a, b, to.clone(), format!("{to}~prev")]);
}

#[test]
fn where_programs_were_not_put_back_as_they_were_the_swap_goes_on() {
    let (mut w, a, b, to) = kept();
    let user = w.name("u");
    let mut admin = w.conn();
    for schema in [&a, &b, &to] {
        let pattern = quoted(&format!("{schema}%").replace('_', "\\_"));
        admin.query_drop(format!("GRANT ALL ON {pattern}.* TO {user} IDENTIFIED BY ''")).unwrap();
    }
    admin.query_drop(format!("GRANT SELECT ON mysql.proc TO {user}")).unwrap();
    w.server = server_as(w.mariadb.port(), &user, "");
    let mut app = w.holding(&to, "SELECT * FROM u");
    // Its triggers and views are root's, which this login may not say.
    let error = w.try_clone(&a, &to).unwrap_err();
    assert!(matches!(error, CloneError::DestinationBusy { .. }), "{error}");
    let new = format!("{to}~new");
    assert!(w.names().contains(&new), "only the intent knows how they were");
    let triggers =
        "SELECT COUNT(*) FROM information_schema.triggers WHERE trigger_schema = DATABASE()";
    assert_eq!(w.number(&to, triggers), 2);
    app.query_drop("ROLLBACK").unwrap();
    w.server = server_as(w.mariadb.port(), "root", "");
    w.clone(&a, &to);
    w.assert_same(&a, &to);
    w.undo(&to, 1).unwrap();
    w.assert_same(&b, &to);
    assert_eq!(w.names(), [a, b, to.clone(), format!("{to}~prev")]);
}

#[test]
fn a_clone_that_is_made_again_does_not_push_out_what_its_first_try_kept() {
    let mut w = world();
    let (a, b, to) = (generation(&w, "a", "one"), generation(&w, "b", "two"), w.name("to"));
    w.clone(&a, &to);
    w.sql(&to, "INSERT INTO u VALUES (77)");
    w.keep_previous = true;
    w.wish = Some(-5);
    // The first was put in place, and nobody wrote down that it was.
    for change in ["SELECT 1", "SELECT 1", "INSERT INTO u VALUES (9)", "CREATE TABLE more (a INT)"]
    {
        w.sql(&b, change);
        assert!(w.clone(&b, &to).kept_previous, "{change}");
        w.assert_same(&b, &to);
    }
    w.undo(&to, 1).unwrap();
    assert_eq!(w.number(&to, "SELECT COUNT(*) FROM u WHERE id = 77"), 1);
    // Another wish is another matter.
    w.wish = Some(-6);
    w.clone(&b, &to);
    w.undo(&to, 2).unwrap();
    assert_eq!(w.number(&to, "SELECT COUNT(*) FROM u WHERE id = 77"), 1);
    w.sql(&b, "INSERT INTO u VALUES (10)");
    w.wish = Some(-7);
    w.clone(&b, &to);
    w.wish = Some(-8);
    w.sql(&b, "INSERT INTO u VALUES (11)");
    w.clone(&b, &to);
    w.undo(&to, 3).unwrap();
    assert_eq!(w.number(&to, "SELECT COUNT(*) FROM u WHERE id >= 10"), 1);
}

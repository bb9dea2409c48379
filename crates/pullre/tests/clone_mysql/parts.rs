//! A clone of which some tables are defined otherwise: those are exchanged, and the rest stays.

use std::thread;
use std::time::{Duration, Instant};

use mysql::prelude::Queryable;
use pullre::schema_clone::CloneError;
use pullre::schema_clone::mysql::SwapBusy;

use crate::crash::{break_a_trigger, child, cut, next, seed};
use crate::refresh::{made, many};
use crate::world::{World, server_as, world};

/// What the branch of a pull request does to its clone, and what its author does to the source.
const MIGRATIONS: [(bool, &str); 13] = [
    // All that leads to it goes along.
    (true, "ALTER TABLE t5 ADD COLUMN more INT"),
    (true, "CREATE TABLE stray (a INT); UPDATE t1 SET word = 'of the app'"),
    (
        true,
        "CREATE TABLE stray (id INT PRIMARY KEY, FOREIGN KEY (id) REFERENCES t1 (id)); INSERT INTO stray VALUES (1)",
    ),
    (true, "DROP TABLE t9"),
    (true, "ALTER TABLE t9 ADD COLUMN more INT; UPDATE t3 SET word = 'x' WHERE id < 9"),
    (
        true,
        "ALTER TABLE t9 DROP FOREIGN KEY t9_ibfk_1; ALTER TABLE t8 DROP FOREIGN KEY t8_ibfk_1, DROP KEY word",
    ),
    (true, "CREATE TRIGGER tr BEFORE INSERT ON t9 FOR EACH ROW SET NEW.word = 'x'"),
    (
        false,
        "CREATE TRIGGER tr AFTER INSERT ON t9 FOR EACH ROW SET @x = 'y'; INSERT INTO t9 (word) VALUES ('new')",
    ),
    (true, "DROP TRIGGER tr"),
    (
        false,
        "CREATE TABLE later (id INT PRIMARY KEY AUTO_INCREMENT, t INT, FOREIGN KEY own (t) REFERENCES t2 (id) ON DELETE CASCADE); INSERT INTO later VALUES (7, 1); UPDATE t2 SET word = 'z'",
    ),
    (
        false,
        "ALTER TABLE later ADD COLUMN big CHAR(250) DEFAULT 'x'; INSERT INTO later (t) SELECT 1 FROM seq_1_to_8000; ANALYZE TABLE later",
    ),
    (false, "ALTER TABLE later ADD FULLTEXT KEY (big), ADD KEY (t, big)"),
    (false, "DROP TABLE later"),
];

#[test]
fn tables_of_another_definition_are_exchanged_and_the_rest_stays() {
    let w = world();
    let (from, to) = (many(&w, "from", "one"), w.name("to"));
    // A chain ends here: what stays is told from what goes along.
    w.sql(&from, "ALTER TABLE t10 DROP FOREIGN KEY t10_ibfk_1");
    w.sql(&from, "CREATE VIEW v AS SELECT * FROM t0; CREATE FUNCTION f() RETURNS INT RETURN 1");
    w.clone(&from, &to);
    let first = [made(&w, &to, "t1"), made(&w, &to, "t29")];
    for (of_clone, sql) in MIGRATIONS {
        w.sql(if of_clone { &to } else { &from }, sql);
        let outcome = w.clone(&from, &to);
        w.assert_same(&from, &to);
        assert_eq!([made(&w, &to, "t1"), made(&w, &to, "t29")], first, "{sql}");
        let counted = w.dump(&from).matches("INSERT INTO").count() as u64;
        assert_eq!(outcome.rows, counted, "{sql}");
        assert_eq!(w.names(), [from.clone(), to.clone()], "{sql}");
    }
    w.sql(&to, "CREATE TABLE stray (a INT); ALTER TABLE t9 COMMENT 'x'; UPDATE t3 SET word = 'x'");
    let notes = [
        "only these differed and were rewritten: `t3`",
        "only these were made anew: `t9`",
        "only these were not in the source and are gone: `stray`",
    ];
    assert_eq!(w.clone(&from, &to).notes, notes);
}

/// A source, and a clone of it whose `t25` another branch has altered: five tables are made anew, and
/// `t1` is written.
fn altered(w: &World) -> (String, String) {
    let (from, to) = (many(w, "from", "one"), w.name("to"));
    w.clone(&from, &to);
    w.sql(&to, "ALTER TABLE t25 ADD COLUMN more INT; UPDATE t1 SET word = 'of the app'");
    w.sql(&to, "CREATE TRIGGER tr BEFORE INSERT ON t25 FOR EACH ROW SET NEW.more = 1");
    (from, to)
}

#[test]
fn a_session_on_a_table_that_goes_is_named_or_ended() {
    let mut w = world();
    let (from, to) = altered(&w);
    let before = w.dump(&to);
    let app = w.holding(&to, "SELECT * FROM t27");
    let error = w.try_clone(&from, &to).unwrap_err();
    assert!(matches!(error, CloneError::DestinationBusy { .. }), "{error}");
    assert!(error.to_string().contains(&format!("{} of root@", app.connection_id())), "{error}");
    assert!(w.dump(&to) == before, "the old clone is not what it was");
    assert_eq!(w.names(), [from.clone(), to.clone()]);

    w.server.swap_busy = SwapBusy::Kill;
    let kept = made(&w, &to, "t1");
    w.clone(&from, &to);
    w.assert_same(&from, &to);
    assert_eq!(made(&w, &to, "t1"), kept);
}

#[test]
fn rows_that_somebody_holds_take_the_exchange_back() {
    let w = world();
    let (from, to) = altered(&w);
    let before = w.dump(&to);
    let app = w.holding(&to, "SELECT * FROM t1 FOR UPDATE");
    let error = w.try_clone(&from, &to).unwrap_err();
    assert!(matches!(error, CloneError::DestinationBusy { .. }), "{error}");
    drop(app);
    assert!(w.dump(&to) == before, "the old clone is not what it was");
    assert_eq!(w.names(), [from.clone(), to.clone()]);
    w.clone(&from, &to);
    w.assert_same(&from, &to);
}

/// A clone that has exchanged tables is about to write the rest.
fn waits_for_a_row(w: &World, to: &str) -> bool {
    let writes = format!(
        "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE 'DELETE%{to}%'"
    );
    w.number(to, &writes) > 0
}

#[test]
fn what_failed_behind_the_exchange_is_gone_on_with_and_not_begun_anew() {
    let mut w = world();
    let (from, to) = altered(&w);
    w.sql(&to, "DROP TRIGGER tr");
    // Not of t25, which is altered once more behind the exchange.
    w.sql(&from, "CREATE TRIGGER tr BEFORE INSERT ON t26 FOR EACH ROW SET NEW.word = 'x'");
    let (user, mut admin) = (w.name("u"), w.conn());
    let pattern = |schema: &str| format!("`{}`.*", schema.replace('_', "\\_"));
    admin.query_drop(format!("CREATE USER {user}")).unwrap();
    for schema in [&from, &to, &format!("{to}~new"), &format!("{to}~old"), &format!("{to}~prev")] {
        admin.query_drop(format!("GRANT ALL ON {} TO {user}", pattern(schema))).unwrap();
    }
    admin.query_drop(format!("GRANT SET USER ON *.* TO {user}")).unwrap();
    w.server = server_as(w.mariadb.port(), &user, "");
    let app = w.holding(&to, "SELECT * FROM t1 FOR UPDATE");
    let error = std::thread::scope(|scope| {
        let clone = scope.spawn(|| w.try_clone(&from, &to).unwrap_err());
        testkit::until("it waits for the row", || waits_for_a_row(&w, &to));
        admin.query_drop(format!("REVOKE TRIGGER ON {} FROM {user}", pattern(&to))).unwrap();
        drop(app);
        clone.join().unwrap()
    });
    assert!(matches!(error, CloneError::Forbidden { .. }), "{error}");
    // All but the trigger is there, and what is known of it.
    assert_eq!(w.number(&to, "SELECT COUNT(*) FROM t1 WHERE word = 'one'"), 32);
    assert!(w.names().contains(&format!("{to}~new")), "{:?}", w.names());
    let there = made(&w, &to, "t25");
    // Nor does it matter what a session that was killed has left there.
    break_a_trigger(&w, &to, "t26");
    admin.query_drop(format!("GRANT TRIGGER ON {} TO {user}", pattern(&to))).unwrap();
    w.clone(&from, &to);
    w.assert_same(&from, &to);
    assert_eq!(made(&w, &to, "t25"), there);
    assert_eq!(w.names(), [from, to]);
}

#[test]
fn a_kill_between_the_exchange_and_the_rows_is_healed_by_the_next_clone() {
    let w = world();
    let (from, to) = altered(&w);
    let app = w.holding(&to, "SELECT * FROM t1 FOR UPDATE");
    let mut child = child(&w, [&from, &from], &to).spawn().unwrap();
    testkit::until("it waits for the row", || waits_for_a_row(&w, &to));
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().code(), None);
    drop(app);
    // The new table is in its place, the old rows are in the other.
    assert!(!w.dump(&to).contains("`more` int"));
    assert_eq!(w.number(&to, "SELECT COUNT(*) FROM t1 WHERE word = 'of the app'"), 32);
    let kept = made(&w, &to, "t1");
    w.clone(&from, &to);
    w.assert_same(&from, &to);
    assert_eq!(made(&w, &to, "t1"), kept);
    assert_eq!(w.names(), [from, to]);
}

/// Two sources of other rows, of which five tables are defined otherwise, and one is in one only.
fn branches(w: &World) -> (String, String) {
    let (a, b) = (many(w, "a", "one"), many(w, "b", "other"));
    w.sql(&b, "ALTER TABLE t25 ADD COLUMN more INT; CREATE TABLE later (id INT PRIMARY KEY)");
    w.sql(&b, "CREATE TRIGGER tr BEFORE INSERT ON t25 FOR EACH ROW SET NEW.more = 1");
    (a, b)
}

#[test]
fn connections_cut_while_tables_are_exchanged_lose_nothing() {
    let w = world();
    let (a, b) = branches(&w);
    cut(&w, a, b);
}

#[test]
fn a_kill_while_tables_are_exchanged_leaves_each_table_whole() {
    let w = world();
    let ((a, b), to) = (branches(&w), w.name("to"));
    w.clone(&a, &to);
    let first = made(&w, &to, "t1");
    let started = Instant::now();
    w.clone(&b, &to);
    let usual = started.elapsed().as_micros() as u64;
    let words = |tables: std::ops::Range<u32>| {
        let words: Vec<_> = tables.map(|n| format!("SELECT word FROM t{n}")).collect();
        format!("SELECT COUNT(DISTINCT word) FROM ({}) AS w", words.join(" UNION ALL "))
    };
    let mut random = seed();
    let (mut unfinished, mut mixed) = (0, 0);
    for round in 0..30 {
        let mut child = child(&w, [&a, &b], &to).spawn().unwrap();
        thread::sleep(Duration::from_micros(5000 + next(&mut random) % (2 * usual)));
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().code(), None, "round {round}: it died by itself");
        for tables in [0..25, 25..30] {
            assert_eq!(w.number(&to, &words(tables.clone())), 1, "round {round}: {tables:?}");
        }
        mixed += u32::from(w.number(&to, &words(0..30)) > 1);
        unfinished += u32::from(w.names().len() > 3);
        let which = [&a, &b][(next(&mut random) % 2) as usize];
        w.clone(which, &to);
        w.assert_same(which, &to);
        assert_eq!(w.names(), [a.clone(), b.clone(), to.clone()], "round {round}");
    }
    println!("of 30 kills {unfinished} left something to finish, {mixed} of them in between");
    assert_eq!(made(&w, &to, "t1"), first);
}

//! A clone is of one moment, whatever happens to its source meanwhile.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use mysql::prelude::Queryable;
use pullre::schema_clone::{CloneError, Consistency, Phase, Progress, Request};
use testkit::mariadb::Mariadb;

use crate::world::{MINUTE, World, quoted, world, world_on};

/// Accounts over several tables, whose sum never changes within a transaction; one of the tables
/// is large enough to be copied on its own.
const ACCOUNTS: &str = "
CREATE TABLE a (id INT PRIMARY KEY, n BIGINT NOT NULL, filler CHAR(200), KEY (n));
CREATE TABLE b (id INT PRIMARY KEY, n BIGINT NOT NULL);
CREATE TABLE c (id INT PRIMARY KEY, n BIGINT NOT NULL);
CREATE TABLE log_1 (id INT PRIMARY KEY AUTO_INCREMENT);
CREATE TABLE log_2 (id INT PRIMARY KEY AUTO_INCREMENT, filler CHAR(20));
INSERT INTO a SELECT seq, 100, REPEAT('x', 200) FROM seq_1_to_15000;
INSERT INTO b SELECT seq, 100 FROM seq_1_to_500; INSERT INTO c SELECT seq, 100 FROM seq_1_to_500;
ANALYZE TABLE a, b, c;";

const SUM: &str = "SELECT CAST((SELECT SUM(n) FROM a) + (SELECT SUM(n) FROM b) + (SELECT SUM(n) FROM c) AS UNSIGNED)";
const LOGS: &str =
    "SELECT CAST((SELECT COUNT(*) FROM log_1) = (SELECT COUNT(*) FROM log_2) AS UNSIGNED)";

/// Runs `work` beside writers; returns how much they wrote.
fn beside_writers(w: &World, schema: &str, work: impl FnOnce()) -> u64 {
    let (stop, written) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for writer in 1..=2 {
            let (stop, written) = (&stop, &written);
            scope.spawn(move || {
                let mut conn = w.conn();
                conn.query_drop(format!("USE {}", quoted(schema))).unwrap();
                let mut n = writer * 7919;
                while !stop.load(Ordering::Relaxed) {
                    n = (n * 31 + 17) % 15000;
                    let (x, y) = (n + 1, n % 500 + 1);
                    for sql in [
                        "START TRANSACTION".to_owned(),
                        format!("UPDATE c SET n = n + 1 WHERE id = {y}"),
                        "INSERT INTO log_1 () VALUES ()".to_owned(),
                        format!("UPDATE a SET n = n - 3 WHERE id = {x}"),
                        format!("UPDATE b SET n = n + 2 WHERE id = {y}"),
                        "INSERT INTO log_2 () VALUES ()".to_owned(),
                        "COMMIT".to_owned(),
                    ] {
                        // Two writers may meet.
                        if conn.query_drop(sql).is_err() {
                            conn.query_drop("ROLLBACK").unwrap();
                            break;
                        }
                    }
                    written.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        // Also where it fails: the writers are waited for.
        let worked = catch_unwind(AssertUnwindSafe(work));
        stop.store(true, Ordering::Relaxed);
        worked.unwrap_or_else(|panic| resume_unwind(panic));
    });
    written.load(Ordering::Relaxed)
}

#[test]
fn of_thirty_clones_beside_writers_none_is_torn() {
    let w = world();
    let (from, to) = (w.name("from"), w.name("to"));
    w.create(&from, ACCOUNTS);
    let whole = w.number(&from, SUM);
    let mut last = 0;
    let written = beside_writers(&w, &from, || {
        for round in 0..30 {
            // In place, beside the old one, in parts, and only what differs.
            match round % 4 {
                0 => w.conn().query_drop(format!("DROP DATABASE IF EXISTS {to}")).unwrap(),
                1 => w.outdate(&to),
                2 => w.sql(&to, "CREATE TABLE stray (a INT); ALTER TABLE c COMMENT 'x'"),
                _ => {}
            }
            let outcome = w.clone(&from, &to);
            assert_eq!(outcome.consistency, Consistency::Snapshot);
            assert_eq!(w.number(&to, SUM), whole);
            assert_eq!(w.number(&to, LOGS), 1);
            let logged = w.number(&to, "SELECT COUNT(*) FROM log_1");
            assert!(logged >= last, "the writers went on");
            last = logged;
        }
    });
    assert!(written > 100 && last > 0, "{written}, {last}");
}

#[test]
fn one_worker_needs_no_lock_and_is_as_consistent() {
    let w = world();
    let (from, to) = (w.name("from"), w.name("to"));
    w.create(&from, ACCOUNTS);
    let whole = w.number(&from, SUM);
    // A transaction that stays open keeps every lock on its table away.
    let mut open = w.conn();
    open.query_drop(format!(
        "USE {}; START TRANSACTION; UPDATE b SET n = n + 1 WHERE id = 1",
        quoted(&from)
    ))
    .unwrap();
    let outcome = w.clone(&from, &to);
    assert_eq!(outcome.consistency, Consistency::Snapshot);
    assert_eq!(w.number(&to, SUM), whole);
    open.query_drop("ROLLBACK").unwrap();
}

#[test]
fn where_no_functions_are_allowed_the_tables_are_locked() {
    // With a binary log a function needs a right that nobody gives away.
    let w = without_functions();
    let (from, to) = (w.name("from"), w.name("to"));
    w.create(&from, ACCOUNTS);
    let whole = w.number(&from, SUM);
    beside_writers(&w, &from, || {
        for _ in 0..4 {
            let outcome = w.clone(&from, &to);
            assert_eq!(outcome.consistency, Consistency::Locked);
            assert_eq!((w.number(&to, SUM), w.number(&to, LOGS)), (whole, 1));
        }
    });
    w.assert_same(&from, &from);
}

#[test]
fn a_source_that_is_altered_meanwhile_is_copied_again_or_refused() {
    let w = world();
    let (from, to) = (w.name("from"), w.name("to"));
    w.create(&from, ACCOUNTS);
    w.clone(&from, &to);
    let stop = AtomicBool::new(false);
    let (mut done, mut refused) = (0, 0);
    thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let sql = match n % 4 {
                    0 => format!("ALTER TABLE b ADD COLUMN x{n} INT DEFAULT {n}, ALGORITHM = COPY"),
                    1 => format!("CREATE TABLE new_{n} (a INT)"),
                    2 => format!("DROP TABLE new_{}", n - 1),
                    _ => format!("ALTER TABLE b DROP COLUMN x{}", n - 3),
                };
                w.sql(&from, &sql);
                thread::sleep(std::time::Duration::from_millis(60));
            }
        });
        for _ in 0..12 {
            match w.try_clone(&from, &to) {
                Ok(_) => done += 1,
                Err(CloneError::SourceAltered { .. }) => refused += 1,
                Err(e) => {
                    stop.store(true, Ordering::Relaxed);
                    panic!("{e}");
                }
            }
            // Whole in any case.
            assert_eq!(w.number(&to, "SELECT COUNT(*) FROM a"), 15_000);
        }
        stop.store(true, Ordering::Relaxed);
    });
    println!("{done} copied, {refused} refused");
    w.clone(&from, &to);
    w.assert_same(&from, &to);
    assert_eq!(w.names(), [from, to]);
}

#[test]
fn a_binary_log_of_statements_costs_the_snapshot_only_where_rows_may_not_be_logged() {
    let all = ["--log-bin", "--server-id=1", "--log-bin-trust-function-creators=1"];
    let mariadb = Mariadb::start(&all.map(str::to_owned)).unwrap();
    let mut w = world_on(Box::leak(Box::new(mariadb)));
    let (from, to) = (w.name("from"), w.name("to"));
    w.create(&from, ACCOUNTS);
    assert_eq!(w.clone(&from, &to).consistency, Consistency::Snapshot);
    w.outdate(&to);
    w.conn().query_drop("CREATE USER cloner; GRANT ALL ON `w%`.* TO cloner").unwrap();
    w.server = crate::world::server_as(w.mariadb.port(), "cloner", "");
    let outcome = w.clone(&from, &to);
    assert_eq!(outcome.consistency, Consistency::Locked);
    let notes = outcome.notes.join("\n");
    assert!(notes.contains("binlog_format = ROW"), "{notes}");
}

/// A server where our login may make no functions.
fn without_functions() -> World {
    let all = ["--log-bin", "--server-id=1", "--binlog-format=ROW"].map(str::to_owned);
    let mariadb: &'static Mariadb = Box::leak(Box::new(Mariadb::start(&all).unwrap()));
    let mut w = world_on(mariadb);
    w.conn()
        .query_drop(
            "CREATE USER cloner; GRANT ALL ON *.* TO cloner; REVOKE SUPER ON *.* FROM cloner",
        )
        .unwrap();
    w.server = crate::world::server_as(mariadb.port(), "cloner", "");
    w
}

#[test]
fn writers_that_wait_for_our_lock_are_no_reason_to_hold_it_longer() {
    let mut w = without_functions();
    let (from, to) = (w.name("from"), w.name("to"));
    w.create(&from, ACCOUNTS);
    w.server.max_running = 3;
    let (source, destination) = (from.parse().unwrap(), to.parse().unwrap());
    let mut outcome = None;
    thread::scope(|scope| {
        let mut came = false;
        let mut tell = |progress: Progress| {
            if progress.phase != Phase::Copying || std::mem::replace(&mut came, true) {
                return;
            }
            for _ in 0..6 {
                scope.spawn(|| w.sql(&from, "UPDATE c SET n = n + 1 WHERE id = 1"));
            }
            let waiting = "SELECT COUNT(*) FROM information_schema.processlist WHERE state LIKE 'Waiting for table%'";
            testkit::until("the writers wait", || w.number(&from, waiting) >= 6);
        };
        let request = Request::new(&source, &destination, MINUTE);
        outcome = Some(w.server.clone_schema(&request, &mut tell).unwrap());
    });
    let outcome = outcome.unwrap();
    assert_eq!(outcome.consistency, Consistency::Locked);
    let notes = outcome.notes.join("\n");
    assert!(!notes.contains("connections waited"), "{notes}");
}

#[test]
fn connections_that_are_silent_while_others_copy_are_not_lost() {
    let mariadb: &'static Mariadb =
        Box::leak(Box::new(Mariadb::start(&["--wait-timeout=1".to_owned()]).unwrap()));
    let w = world_on(mariadb);
    let (from, to) = (w.name("from"), w.name("to"));
    w.create(&from, ACCOUNTS);
    let (source, destination) = (from.parse().unwrap(), to.parse().unwrap());
    for _ in 0..2 {
        let mut tell = |progress: Progress| {
            if progress.phase >= Phase::Copying {
                thread::sleep(Duration::from_millis(1500));
            }
        };
        let request = Request::new(&source, &destination, 4 * MINUTE);
        w.server.clone_schema(&request, &mut tell).unwrap();
        w.outdate(&to);
    }
}

//! What may not be done, cannot be done, or is in somebody's hands.

use std::time::Duration;

use mysql::prelude::Queryable;
use pullre::schema_clone::mysql::SwapBusy;
use pullre::schema_clone::{CloneError, Request};

use crate::world::{World, quoted, server_as, world};

const SMALL: &str = "
CREATE TABLE t (id INT PRIMARY KEY, a VARCHAR(9)); INSERT INTO t VALUES (1, 'new');
CREATE TRIGGER tr BEFORE INSERT ON t FOR EACH ROW SET NEW.a = 'x'; CREATE VIEW v AS SELECT a FROM t;";

fn old_and_new(w: &World) -> (String, String) {
    let (from, to) = (w.name("from"), w.name("to"));
    w.create(&from, SMALL);
    w.clone(&from, &to);
    w.sql(&to, "UPDATE t SET a = 'old'; CREATE EVENT e ON SCHEDULE EVERY 1 DAY STARTS '2037-01-01' DO SELECT 1");
    (from, to)
}

#[test]
fn a_source_that_is_missing_or_the_destination_itself_is_refused() {
    let w = world();
    let (from, to) = old_and_new(&w);
    let before = w.dump(&to);
    let error = w.try_clone(&w.name("nowhere"), &to).unwrap_err();
    assert!(matches!(error, CloneError::SourceMissing { .. }), "{error}");
    let error = w.try_clone(&from, &from.to_uppercase()).unwrap_err();
    assert!(matches!(error, CloneError::SameSchema { .. }), "{error}");
    let mut small = world();
    small.server.max_bytes = Some(1000);
    let error = small.try_clone(&from, &to).unwrap_err();
    assert!(matches!(error, CloneError::TooLarge { limit: 1000, .. }), "{error}");
    assert_eq!(w.dump(&to), before);
    assert_eq!(w.names(), [from, to]);
}

#[test]
fn a_schema_in_the_way_is_not_ours_to_drop() {
    let w = world();
    let (from, to) = old_and_new(&w);
    for end in ["~new", "~old"] {
        let stranger = format!("{to}{end}");
        w.create(&stranger, "CREATE TABLE precious (a INT)");
        // Everything is made anew; then one table of two.
        for change in ["SELECT 1", "CREATE TABLE more (a INT PRIMARY KEY)"] {
            w.sql(&to, change);
            let error = w.try_clone(&from, &to).unwrap_err();
            let named = matches!(&error, CloneError::InTheWay { name, .. } if *name == stranger);
            assert!(named, "{change}: {error}");
            assert_eq!(w.number(&stranger, "SELECT COUNT(*) FROM precious"), 0);
            assert_eq!(w.number(&to, "SELECT COUNT(*) FROM t WHERE a = 'old'"), 1);
            assert_eq!(w.names(), [from.clone(), to.clone(), stranger.clone()]);
            w.sql(&to, "DROP EVENT IF EXISTS e");
        }
        w.sql(&to, "DROP TABLE more");
        w.conn().query_drop(format!("DROP DATABASE {}", quoted(&stranger))).unwrap();
    }
}

#[test]
fn no_source_has_a_name_that_the_clone_needs() {
    let w = world();
    let to = w.name("to");
    for end in ["~new", "~OLD", "~prev"] {
        let from = format!("{to}{end}");
        w.create(&from, SMALL);
        let error = w.try_clone(&from, &to).unwrap_err();
        assert!(error.to_string().contains("need its name for themselves"), "{error}");
        w.assert_same(&from, &from);
    }
    w.create(&w.name("other~new"), SMALL);
    w.clone(&w.name("other~new"), &to);
}

#[test]
fn a_session_on_the_old_clone_is_named_or_ended() {
    let mut w = world();
    let (from, to) = old_and_new(&w);
    let before = w.dump(&to);
    let mut app = w.holding(&to, "SELECT * FROM t");
    let error = w.try_clone(&from, &to).unwrap_err();
    let session = format!("{} of root@", app.connection_id());
    assert!(matches!(error, CloneError::DestinationBusy { .. }), "{error}");
    assert!(error.to_string().contains(&session), "{error}");
    // With its trigger, its view and its event, which is as it was.
    assert_eq!(w.dump(&to), before);
    assert_eq!(w.names(), [from.clone(), to.clone()]);
    let enabled = format!(
        "SELECT COUNT(*) FROM information_schema.events WHERE event_schema = '{to}' AND status = 'ENABLED'"
    );
    assert_eq!(w.number(&to, &enabled), 1);

    w.server.swap_busy = SwapBusy::Kill;
    w.clone(&from, &to);
    w.assert_same(&from, &to);
    assert!(app.query_drop("SELECT 1").is_err());
}

#[test]
fn a_session_that_works_elsewhere_and_holds_a_table_is_ended_too_where_the_server_tells() {
    let mut w = world();
    if w.conn().query_drop("INSTALL SONAME 'metadata_lock_info'").is_err() {
        println!("SKIPPED: this server has no plugin that tells who holds what");
        return;
    }
    let (from, to) = old_and_new(&w);
    let mut app = w.holding("mysql", &format!("SELECT * FROM {}.t", quoted(&to)));
    let error = w.try_clone(&from, &to).unwrap_err().to_string();
    assert!(error.contains(&format!("{} of root@", app.connection_id())), "{error}");
    w.server.swap_busy = SwapBusy::Kill;
    w.clone(&from, &to);
    w.assert_same(&from, &to);
    assert!(app.query_drop("SELECT 1").is_err());
}

#[test]
fn sessions_that_may_not_be_ended_are_told_and_the_old_clone_stays() {
    let mut w = world();
    let (from, to) = old_and_new(&w);
    let before = w.dump(&to);
    let user = w.name("u");
    let mut admin = w.conn();
    let pattern = quoted(&format!("{}%", w.name("").replace('_', "\\_")));
    let grants = format!(
        "CREATE USER {user}; GRANT ALL ON {pattern}.* TO {user}; GRANT PROCESS, SET USER ON *.* TO {user}"
    );
    for sql in grants.split("; ") {
        admin.query_drop(sql).unwrap();
    }
    w.server = server_as(w.mariadb.port(), &user, "");
    w.server.swap_busy = SwapBusy::Kill;
    let app = w.holding(&to, "SELECT * FROM t");
    let error = w.try_clone(&from, &to).unwrap_err();
    assert!(matches!(error, CloneError::Forbidden { .. }), "{error}");
    let session = format!("{} of root@", app.connection_id());
    assert!(error.to_string().contains(&session), "{error}");
    assert_eq!(w.dump(&to), before);
    assert_eq!(w.names(), [from.clone(), to.clone()]);
    admin.query_drop(format!("GRANT CONNECTION ADMIN ON *.* TO {user}")).unwrap();
    w.clone(&from, &to);
    w.assert_same(&from, &to);
}

#[test]
fn a_right_that_is_missing_is_named_and_nothing_is_lost() {
    let mut w = world();
    let (from, to) = old_and_new(&w);
    let before = w.dump(&to);
    let mut admin = w.conn();
    admin.query_drop(format!("CREATE USER {}", quoted(&w.name("u")))).unwrap();
    let user = quoted(&w.name("u"));
    w.server = server_as(w.mariadb.port(), &w.name("u"), "");
    let pattern = quoted(&format!("{}%", w.name("").replace('_', "\\_")));
    // All that it takes, and with each step one more of it.
    let needed =
        ["SELECT", "SHOW VIEW", "TRIGGER", "CREATE", "DROP", "INSERT", "ALTER", "CREATE VIEW"];
    let mut refused = 0;
    let mut seen = Vec::new();
    for right in needed {
        match w.try_clone(&from, &to) {
            Ok(_) => panic!("cloned before {right} was granted"),
            Err(e) => seen.push(format!("{e}")),
        }
        refused += 1;
        assert_eq!(w.dump(&to), before, "before {right}: {seen:?}");
        admin.query_drop(format!("GRANT {right} ON {pattern}.* TO {user}")).unwrap();
    }
    assert_eq!(refused, needed.len());
    println!("{}", seen.join("\n"));
    admin.query_drop(format!("GRANT ALL ON {pattern}.* TO {user}")).unwrap();
    let outcome = w.clone(&from, &to);
    // Its triggers and views run as root, which this login may not say.
    assert!(outcome.notes.iter().any(|note| note.contains("DEFINER")), "{:?}", outcome.notes);
    assert_eq!(w.number(&to, "SELECT COUNT(*) FROM v WHERE a = 'new'"), 1);
}

#[test]
fn a_clone_that_takes_too_long_is_given_up_and_leaves_nothing() {
    let w = world();
    let (from, to) = (w.name("from"), w.name("to"));
    w.create(&from, "CREATE TABLE t (a INT, filler CHAR(250)); INSERT INTO t SELECT seq, 'x' FROM seq_1_to_200000; ANALYZE TABLE t");
    let (source, destination) = (from.parse().unwrap(), to.parse().unwrap());
    let error = w
        .server
        .clone_schema(&Request::new(&source, &destination, Duration::from_millis(150)), &mut |_| {})
        .unwrap_err();
    assert!(matches!(error, CloneError::TimedOut { .. }), "{error}");
    assert_eq!(w.names(), [from]);
}

#[test]
fn what_cannot_be_the_same_is_told() {
    let w = world();
    let (from, to) = (w.name("from"), w.name("to"));
    w.create(
        &from,
        &format!(
            "CREATE TABLE t (a INT); CREATE TABLE gone (a INT);
             CREATE VIEW broken AS SELECT a FROM gone; DROP TABLE gone;
             CREATE VIEW fine AS SELECT a FROM t;
             CREATE PROCEDURE p() SELECT * FROM {from}.t;
             CREATE EVENT e ON SCHEDULE EVERY 1 DAY DO SELECT 1"
        ),
    );
    let outcome = w.clone(&from, &to);
    let notes = outcome.notes.join("\n");
    for told in ["`broken`", "procedure `p`", "these events are disabled in the clone: `e"] {
        assert!(notes.contains(told), "{told}: {notes}");
    }
    w.clone(&from, &to);
    assert_eq!(w.number(&to, "SELECT COUNT(*) FROM fine"), 0);

    w.create(&w.name("bare"), "SELECT 1");
    let outcome = w.clone(&w.name("bare"), &to);
    assert_eq!((outcome.tables, outcome.rows), (0, 0));
    assert!(outcome.notes[0].contains("holds no tables"), "{:?}", outcome.notes);
    assert!(!w.schemas().holds_something(&to.parse().unwrap()).unwrap());
    assert!(w.schemas().holds_something(&from.parse().unwrap()).unwrap());
    assert!(!w.schemas().holds_something(&w.name("nowhere").parse().unwrap()).unwrap());
}

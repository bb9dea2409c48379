//! A clone that differs in little is brought up to date, and is as exact.

use crate::world::{World, world};

const SHOP: &str = "
CREATE TABLE a (id INT PRIMARY KEY AUTO_INCREMENT, t VARCHAR(20)); INSERT INTO a (t) VALUES ('x'), ('y');
CREATE TABLE b (id INT PRIMARY KEY, a INT, v INT AS (a + 1) VIRTUAL, FOREIGN KEY (a) REFERENCES a (id) ON DELETE CASCADE);
INSERT INTO b (id, a) VALUES (1, 1), (2, 2);
CREATE TABLE watched (id INT PRIMARY KEY); CREATE TABLE c (id INT PRIMARY KEY AUTO_INCREMENT);
CREATE TRIGGER tr AFTER DELETE ON watched FOR EACH ROW INSERT INTO c () VALUES ();
CREATE VIEW v AS SELECT * FROM b; CREATE EVENT e ON SCHEDULE EVERY 1 DAY STARTS '2037-01-01' DO SELECT 1;
INSERT INTO watched VALUES (1)";

/// When the table was made: one that stayed was not made anew.
pub fn made(w: &World, schema: &str, table: &str) -> u64 {
    let sql = format!(
        "SELECT table_id FROM information_schema.innodb_sys_tables WHERE name = '{schema}/{table}'"
    );
    w.number(schema, &sql)
}

#[test]
fn what_differs_is_rewritten_and_the_rest_stays() {
    let w = world();
    let (from, to) = (w.name("from"), w.name("to"));
    w.create(&from, SHOP);
    w.clone(&from, &to);
    let first = made(&w, &to, "a");

    let outcome = w.clone(&from, &to);
    assert!(outcome.notes[0].contains("nothing differed"), "{:?}", outcome.notes);
    assert_eq!((outcome.tables, outcome.rows), (4, 5));
    for (schema, sql) in [
        (&to, "INSERT INTO a (t) VALUES ('of the app'), ('another')"),
        (&to, "DELETE FROM a WHERE id = 1"),
        (&to, "INSERT INTO a (t) VALUES ('z'); DELETE FROM a WHERE t = 'z'"),
        (&from, "INSERT INTO a (t) VALUES ('new'); UPDATE b SET a = 3 WHERE id = 1"),
        (&from, "DELETE FROM b; DELETE FROM a"),
        (&to, "INSERT INTO c () VALUES ()"),
    ] {
        w.sql(schema, sql);
        let outcome = w.clone(&from, &to);
        assert!(outcome.notes[0].contains("only these differed"), "{sql}: {:?}", outcome.notes);
        w.assert_same(&from, &to);
        assert_eq!(made(&w, &to, "a"), first, "{sql}");
    }
    assert_eq!(w.names(), [from, to]);
}

/// Small tables of the same definitions, each with other rows and its own counter for each word.
pub fn many(w: &World, name: &str, word: &str) -> String {
    let schema = w.name(name);
    let tables: String = (0..30)
        .map(|n| {
            let parent = u32::saturating_sub(n, 1);
            format!(
                "CREATE TABLE t{n} (id INT PRIMARY KEY AUTO_INCREMENT, parent INT, word CHAR(200), KEY (word),
                     FOREIGN KEY (parent) REFERENCES t{parent} (id) ON DELETE CASCADE);
                 INSERT INTO t{n} SELECT seq, seq, '{word}' FROM seq_1_to_{}; DELETE FROM t{n} WHERE id = 2;",
                30 + word.len()
            )
        })
        .collect();
    w.create(&schema, &format!("SET foreign_key_checks = 0; {tables}"));
    schema
}

#[test]
fn many_small_tables_that_differ_are_rewritten_where_they_are() {
    let w = world();
    let (a, b, to) = (many(&w, "a", "one"), many(&w, "b", "other"), w.name("to"));
    w.clone(&a, &to);
    let first = made(&w, &to, "t29");
    for from in [&b, &a, &b] {
        let outcome = w.clone(from, &to);
        let note = "only 30 of 30 tables differed and were rewritten";
        assert_eq!(outcome.notes, [note]);
        assert_eq!((outcome.tables, made(&w, &to, "t29")), (30, first));
        w.assert_same(from, &to);
    }
    assert_eq!(w.names(), [a, b, to]);
}

#[test]
fn what_differs_in_more_than_rows_and_cannot_be_taken_out_is_made_anew() {
    let w = world();
    let (from, to) = (w.name("from"), w.name("to"));
    w.create(&from, SHOP);
    w.clone(&from, &to);
    for (schema, sql) in [
        // All that lead to it go with it.
        (&to, "ALTER TABLE a ADD KEY (t)"),
        (&from, "ALTER TABLE a MODIFY t VARCHAR(20) COMMENT 'x'"),
        (&to, "DROP VIEW v; ALTER TABLE c COMMENT 'y'"),
        (&to, "ALTER EVENT e ENABLE"),
        // Its trigger would see it.
        (&to, "DELETE FROM watched"),
        (
            &from,
            "CREATE TABLE wide (a INT, t CHAR(250)); INSERT INTO wide SELECT seq, 'x' FROM seq_1_to_60000; ANALYZE TABLE wide",
        ),
        (&to, "DELETE FROM wide LIMIT 5; ANALYZE TABLE wide; ALTER TABLE wide COMMENT 'z'"),
    ] {
        let before = made(&w, &to, "a");
        w.sql(schema, sql);
        w.clone(&from, &to);
        w.assert_same(&from, &to);
        if !sql.contains(" wide") {
            assert_ne!(made(&w, &to, "a"), before, "{sql}");
        }
    }
}

#[test]
fn sequences_that_stand_where_they_stood_are_no_reason_to_copy() {
    let w = world();
    let (from, to) = (w.name("from"), w.name("to"));
    w.create(
        &from,
        "CREATE SEQUENCE s START WITH 5; SELECT NEXTVAL(s);
         CREATE TABLE drawn (id BIGINT DEFAULT (NEXTVAL(s)) PRIMARY KEY, a INT); INSERT INTO drawn (a) VALUES (1)",
    );
    w.clone(&from, &to);
    assert!(w.clone(&from, &to).notes[0].contains("nothing differed"));
    for schema in [&to, &from] {
        // More than it keeps in reserve.
        w.sql(schema, "SELECT SETVAL(s, 5000)");
        let outcome = w.clone(&from, &to);
        assert!(!outcome.notes.join("").contains("nothing differed"), "{:?}", outcome.notes);
        w.assert_same(&from, &to);
    }
}

#[test]
fn a_text_that_moved_from_one_column_to_the_next_is_seen() {
    let w = world();
    let (from, to) = (w.name("from"), w.name("to"));
    w.create(
        &from,
        "CREATE TABLE people (id INT PRIMARY KEY, name VARCHAR(40), email VARCHAR(40), n INT, note TEXT);
         INSERT INTO people VALUES (1, '', 'bob@x', NULL, 'y'), (2, NULL, '', 5, NULL);
         CREATE TABLE odd (g GEOMETRY, j JSON, u UUID, i INET6, b BIT(9), f FLOAT, e ENUM('a', 'b'), bl BLOB, t TIME(3));
         INSERT INTO odd VALUES (ST_GeomFromText('POINT(1 1)'), '{}', UUID(), '::1', 3, 1.5, 'a', 'x', '10:00:01.5'), (NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
    );
    w.clone(&from, &to);
    let outcome = w.clone(&from, &to);
    assert!(outcome.notes[0].contains("nothing differed"), "{:?}", outcome.notes);
    for sql in [
        "UPDATE people SET name = 'bob@x', email = '' WHERE id = 1",
        // Over a column between them that is empty.
        "UPDATE people SET email = 'bob@', note = 'xy' WHERE id = 1",
    ] {
        w.sql(&to, sql);
        let outcome = w.clone(&from, &to);
        assert!(outcome.notes[0].contains("only these differed"), "{sql}: {:?}", outcome.notes);
        w.assert_same(&from, &to);
    }
}

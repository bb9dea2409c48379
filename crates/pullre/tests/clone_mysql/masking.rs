//! What a mask hides never reaches a clone.

use mysql::prelude::Queryable;
use pullre::schema_clone::CloneError;

use crate::world::{World, quoted, world};

/// All that nobody may see holds the word SECRET.
const PEOPLE: &str = "
SET foreign_key_checks = 0;
CREATE TABLE users (id INT PRIMARY KEY AUTO_INCREMENT, email VARCHAR(90) NOT NULL, phone VARCHAR(40), Name VARCHAR(60),
    initial CHAR(1) AS (LEFT(Name, 1)) STORED, UNIQUE KEY (email), KEY by_name (Name, phone)) AUTO_INCREMENT = 900000;
INSERT INTO users (id, email, phone, Name) SELECT seq, CONCAT('SECRET', seq, '@x.org'), 'SECRET', CONCAT('SECRET ', seq) FROM seq_1_to_12000;
CREATE TABLE orders (id INT PRIMARY KEY, user INT, note TEXT, made DATE, CONSTRAINT by_user FOREIGN KEY (user) REFERENCES users (id));
INSERT INTO orders SELECT seq, seq, IF(seq > 20, 'SECRET', 'open'), '2026-01-01' FROM seq_1_to_40;
CREATE TABLE audit (id INT PRIMARY KEY, line VARCHAR(200), KEY (line), FULLTEXT KEY (line));
INSERT INTO audit SELECT seq, REPEAT('SECRET ', 20) FROM seq_1_to_12000;
CREATE TABLE `odd.name` (`a=b` VARCHAR(20), phone CHAR(9) NOT NULL, audit INT, KEY (audit),
    CONSTRAINT by_audit FOREIGN KEY (audit) REFERENCES audit (id));
INSERT INTO `odd.name` VALUES ('SECRET', 'SECRET', 7), ('SECRET', 'SECRET', NULL);
CREATE TABLE plain (id INT PRIMARY KEY); INSERT INTO plain VALUES (1);
ANALYZE TABLE users, orders, audit;";

const RULES: &str = "
# nobody sees who they are
users.email = concat('user', id, '@example.com')
users.name  = substring(md5(users.id) from 1 for 8)
*.phone     = null
`odd.name`.`a=b` = if(`a=b` is null, null, ';--''')
orders = where id <= 20
audit = skip";

fn people() -> (World, String, String) {
    let mut w = world();
    let (from, to) = (w.name("from"), w.name("to"));
    w.create(&from, PEOPLE);
    w.mask_by(RULES);
    (w, from, to)
}

#[test]
fn what_a_mask_hides_is_nowhere_in_the_clone() {
    let (w, from, to) = people();
    let hidden = |what: &str| {
        let dump = w.dump(&to);
        let found: Vec<_> = dump.lines().filter(|line| line.contains("SECRET")).take(3).collect();
        assert!(found.is_empty(), "{what}: {found:?}");
        assert_eq!(
            w.number(&to, "SELECT COUNT(*) FROM users WHERE email LIKE 'user%@example.com'"),
            12_000
        );
        assert_eq!(w.number(&to, "SELECT COUNT(*) FROM users WHERE phone IS NULL"), 12_000);
        assert_eq!(
            w.number(&to, "SELECT COUNT(*) FROM `odd.name` WHERE phone = '' AND `a=b` = ';--'''"),
            2
        );
        assert_eq!(w.number(&to, "SELECT COUNT(*) FROM orders"), 20);
        assert_eq!(w.number(&to, "SELECT COUNT(*) FROM audit"), 0);
        // Keys that waited for rows are there although none came.
        assert_eq!(
            w.number(
                &to,
                "SELECT COUNT(DISTINCT index_name) FROM information_schema.statistics
            WHERE table_schema = DATABASE() AND table_name = 'audit'"
            ),
            3
        );
    };
    let outcome = w.clone(&from, &to);
    assert_eq!((outcome.tables, outcome.rows), (5, 12_000 + 20 + 2 + 1));
    let notes = outcome.notes.join("\n");
    assert!(
        notes.contains("1 rows of `odd.name` refer by `by_audit` to rows of `audit`"),
        "{notes}"
    );
    assert!(!notes.contains("by_user"), "{notes}");
    hidden("first made");

    w.clone(&from, &to);
    hidden("again");
    w.outdate(&to);
    w.clone(&from, &to);
    hidden("over another one");
    assert_eq!(w.names(), [from, to]);
}

#[test]
fn a_refresh_writes_masked_tables_through_the_mask() {
    let mut w = world();
    let (from, to) = (w.name("from"), w.name("to"));
    w.create(
        &from,
        "CREATE TABLE a (id INT PRIMARY KEY, word VARCHAR(20)); INSERT INTO a VALUES (1, 'SECRET'), (2, 'SECRET');
         CREATE TABLE b (id INT PRIMARY KEY); INSERT INTO b VALUES (1);
         CREATE TABLE logs (word VARCHAR(20)); INSERT INTO logs VALUES ('SECRET')",
    );
    // Unmasked at first: what is there is of another mask.
    w.clone(&from, &to);
    w.mask_by("a.word = concat('w', id)\nlogs = skip\nb = where id < 5");
    for sql in [
        "INSERT INTO a VALUES (3, 'SECRET')",
        "INSERT INTO b VALUES (4), (7)",
        "INSERT INTO logs VALUES ('SECRET')",
    ] {
        w.sql(&from, sql);
        let outcome = w.clone(&from, &to);
        assert!(outcome.notes[0].contains("only these differed"), "{:?}", outcome.notes);
        assert!(!w.dump(&to).contains("SECRET"));
        assert_eq!(w.number(&to, "SELECT COUNT(*) FROM a WHERE word = CONCAT('w', id)"), 3);
    }
    assert_eq!(w.number(&to, "SELECT SUM(id) FROM b"), 5);
    w.mask_by("");
    w.clone(&from, &to);
    w.assert_same(&from, &to);
}

#[test]
fn a_rule_that_cannot_hold_is_named_with_its_line_before_anything_is_copied() {
    let (mut w, from, to) = people();
    w.clone(&from, &to);
    let before = w.dump(&to);
    for (rules, line, why) in [
        ("\nuser.email = 1", 2, "no table `user`"),
        ("users.mail = 1", 1, "no column `mail`"),
        ("*.mail = 1", 1, "no table of the source has a column `mail`"),
        ("users.initial = 'x'", 1, "generated column"),
        ("# x\nusers.email = concat('a', nobody)", 2, "nobody"),
        ("users.email = count(*)", 1, "1111"),
        ("users.email = concat(", 1, ""),
        ("users.email = id, phone", 1, "1241"),
        ("users.email = concat('a' 'b' id)", 1, "1583"),
        ("users.email = own_function(id)", 1, "own_function"),
        ("orders = where made >", 1, "1064"),
        ("users.email = ?", 1, "1064"),
    ] {
        let mask = pullre::schema_clone::mask::Mask::parse(rules, Default::default());
        let error = match mask {
            Ok(mask) => {
                w.mask = mask;
                w.try_clone(&from, &to).unwrap_err()
            }
            Err(wrong) => {
                assert_eq!(wrong[0].line, line, "{rules}");
                continue;
            }
        };
        let told = error.to_string();
        assert!(
            matches!(&error, CloneError::Mask { wrong, .. } if wrong.line == line),
            "{rules}: {told}"
        );
        assert!(told.contains(why), "{rules}: {told}");
    }
    // Only the copy shows it; the one that was there stays.
    w.mask_by("users.email = 'nobody@example.com'");
    let error = w.try_clone(&from, &to).unwrap_err().to_string();
    assert!(error.contains("`users`") && error.contains("masking rule"), "{error}");
    assert_eq!(w.dump(&to), before);
    assert_eq!(w.names(), [from, to]);
}

#[test]
fn masked_keys_that_rows_refer_to_are_told() {
    let (mut w, from, to) = people();
    w.mask_by("users.id = id + 100000\naudit.line = ''");
    let notes = w.clone(&from, &to).notes.join("\n");
    assert!(notes.contains("40 rows of `orders` refer by `by_user` to rows of `users`"), "{notes}");
    assert!(!notes.contains("by_audit"), "{notes}");
}

#[test]
fn a_mask_holds_where_the_tables_are_locked() {
    let (mut w, from, to) = people();
    let user = w.name("u");
    let mut admin = w.conn();
    // It may make no functions.
    for (rights, schema) in [
        ("SELECT, LOCK TABLES, SHOW VIEW, TRIGGER, EVENT, EXECUTE", &from),
        (
            "SELECT, INSERT, CREATE, DROP, ALTER, INDEX, REFERENCES, CREATE VIEW, SHOW VIEW, TRIGGER, EVENT",
            &to,
        ),
    ] {
        let schema = quoted(&schema.replace('_', "\\_"));
        admin
            .query_drop(format!("GRANT {rights} ON {schema}.* TO {user} IDENTIFIED BY ''"))
            .unwrap();
    }
    w.server = crate::world::server_as(w.mariadb.port(), &user, "");
    let outcome = w.clone(&from, &to);
    assert_eq!(outcome.consistency, pullre::schema_clone::Consistency::Locked);
    assert!(!w.dump(&to).contains("SECRET"));
    assert_eq!(w.number(&to, "SELECT COUNT(*) FROM users WHERE email LIKE 'user%'"), 12_000);
}

#[test]
fn a_failure_never_tells_what_stood_in_a_row() {
    let mut w = world();
    let (from, to) = (w.name("from"), w.name("to"));
    w.create(
        &from,
        "CREATE TABLE people (id INT PRIMARY KEY, email VARCHAR(60), day DATE, UNIQUE KEY mail (email));
         INSERT INTO people VALUES (1, 'alice\\'s for key secret@x', '2026-01-01'), (2, 'alice\\'s for key secret@y', NULL)",
    );
    w.mask_by("people.email = LEFT(email, 23)");
    let error = w.try_clone(&from, &to).unwrap_err().to_string();
    assert!(!error.contains("alice") && !error.contains("secret"), "{error}");
    assert!(error.contains("people") && error.contains("alike for key 'mail'"), "{error}");
}

#[test]
fn of_several_tables_the_one_whose_rows_do_not_fit_is_named() {
    let mut w = world();
    let (from, to) = (w.name("from"), w.name("to"));
    let table = |name| {
        format!(
            "CREATE TABLE {name} (id INT PRIMARY KEY, mail CHAR(9) UNIQUE);
             INSERT INTO {name} VALUES (1, 'a'), (2, 'b');"
        )
    };
    w.create(&from, &["t1", "t2", "t3", "t4"].map(table).concat());
    w.clone(&from, &to);
    let before = w.dump(&to);
    w.mask_by("t3.mail = 'x'");
    // Written anew where they are; then from the beginning.
    for schema in [&to, &w.name("other")] {
        let error = w.try_clone(&from, schema).unwrap_err().to_string();
        assert!(error.contains("table `t3`: two rows are alike"), "{error}");
    }
    assert_eq!(w.dump(&to), before);
    assert_eq!(w.names(), [from, to]);
}

//! What a mask hides is in no byte of a clone.

use std::fs;

use pullre::schema_clone::mask::{Dialect, Mask};
use pullre::schema_clone::{CloneError, CloneOutcome, Request, sqlite};

use super::{MINUTE, Schemas, name, schemas};

/// All that nobody may see holds the word SECRET.
const PEOPLE: &str = "
PRAGMA foreign_keys = OFF; PRAGMA page_size = 8192; PRAGMA auto_vacuum = FULL; PRAGMA user_version = 7;
CREATE TABLE users (id INTEGER PRIMARY KEY AUTOINCREMENT, email TEXT NOT NULL UNIQUE, phone, Name TEXT,
    initial AS (substr(Name, 1, 1)) STORED, CHECK (length(Name) > 7));
CREATE INDEX by_name ON users (Name, phone);
CREATE INDEX by_text ON users (lower(email)) WHERE phone IS NOT NULL;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
INSERT INTO users (id, email, phone, Name) SELECT i, 'SECRET' || i || '@x.org', 'SECRET', 'SECRET ' || i FROM n;
CREATE TABLE orders (id INTEGER PRIMARY KEY, user INTEGER REFERENCES users (id), note BLOB);
INSERT INTO orders SELECT id, id, CASE WHEN id > 20 THEN CAST('SECRET' AS BLOB) END FROM users WHERE id <= 40;
CREATE TABLE audit (line TEXT PRIMARY KEY) WITHOUT ROWID;
INSERT INTO audit SELECT hex(randomblob(8)) || 'SECRET' FROM users;
CREATE TABLE follows (line TEXT REFERENCES audit (line)); INSERT INTO follows SELECT line FROM audit LIMIT 3;
UPDATE follows SET line = 'gone';
CREATE TABLE \"odd.name\" (\"a=b\" TEXT, phone TEXT); INSERT INTO \"odd.name\" (rowid, \"a=b\", phone) VALUES (77, 'SECRET', 'SECRET');
CREATE VIRTUAL TABLE words USING fts5 (body); INSERT INTO words VALUES ('SECRET text');
CREATE VIRTUAL TABLE found USING fts5 (Name, content = 'users', content_rowid = 'id');
INSERT INTO found (found) VALUES ('rebuild');
CREATE VIEW v AS SELECT email FROM users;
CREATE TRIGGER tr AFTER INSERT ON users BEGIN DELETE FROM orders; END;
ANALYZE;";

const RULES: &str = "
users.email = 'user' || id || '@example.com'
users.name = printf('%08d name', users.id)
*.phone = null
`odd.name`.`a=b` = [a=b] IS NOT NULL
orders = where id <= 20
audit = skip
words.body = 'hidden'";

fn clone(s: &Schemas, rules: &str) -> Result<CloneOutcome, CloneError> {
    let mask = Mask::parse(rules, Dialect::Sqlite).unwrap();
    let (dev, stg1) = (name("dev"), name("stg1"));
    let request = Request { mask: &mask, ..Request::new(&dev, &stg1, MINUTE) };
    sqlite::clone(s.dir(), &request, &mut |_| {})
}

fn people() -> Schemas {
    let s = schemas();
    s.open("dev").execute_batch(PEOPLE).unwrap();
    s
}

fn holds_secret(s: &Schemas, schema: &str) -> bool {
    let bytes = fs::read(s.file(schema)).unwrap();
    bytes.windows(6).any(|window| window.eq_ignore_ascii_case(b"SECRET"))
}

#[test]
fn what_a_mask_hides_is_in_no_byte_of_the_clone() {
    let s = people();
    assert!(holds_secret(&s, "dev"));
    let outcome = clone(&s, RULES).unwrap();
    assert!(!holds_secret(&s, "stg1"));
    assert_eq!(s.names(), ["dev.db", "stg1.db"]);
    assert_eq!((outcome.tables, outcome.rows), (5, 3000 + 20 + 3 + 1));

    let db = s.open("stg1");
    let one = |sql: &str| db.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(
        one("SELECT count(*) FROM users WHERE email = 'user' || id || '@example.com'"),
        3000
    );
    assert_eq!(one("SELECT count(*) FROM users WHERE phone IS NULL AND initial = '0'"), 3000);
    assert_eq!(one("SELECT count(*) FROM \"odd.name\" WHERE rowid = 77 AND \"a=b\" = '1'"), 1);
    assert_eq!(one("SELECT count(*) FROM words('hidden')"), 1);
    // Of the words that the clone holds, not of those that the source held.
    assert_eq!(one("SELECT count(*) FROM found('name')"), 3000);
    assert_eq!(one("SELECT seq FROM sqlite_sequence WHERE name = 'users'"), 3000);
    assert_eq!(
        (one("PRAGMA page_size"), one("PRAGMA auto_vacuum"), one("PRAGMA user_version")),
        (8192, 1, 7)
    );
    let indexes =
        "SELECT count(*) FROM sqlite_schema WHERE name IN ('by_name', 'by_text', 'v', 'tr')";
    assert_eq!(one(indexes), 4);

    let notes = outcome.notes.join("\n");
    assert!(notes.contains("3 rows of `follows` refer to rows of `audit`"), "{notes}");
    assert!(notes.contains("statistics"), "{notes}");
    clone(&s, RULES).unwrap();
    assert!(!holds_secret(&s, "stg1"));
}

#[test]
fn a_rule_that_cannot_hold_is_named_with_its_line_and_nothing_is_written() {
    let s = people().with("stg1", "old", 3);
    for (rules, why) in [
        ("\nuser.email = 1", "no table `user`"),
        ("\nusers.mail = 1", "no column `mail`"),
        ("\nusers.initial = 1", "generated column"),
        ("\nfound.name = 1", "shows rows of other tables"),
        ("\nusers.email = nobody", "nobody"),
        ("\nusers.email = count(*)", "aggregate"),
        ("\nusers.email = id, phone", "row value"),
        ("\nusers.email = :a", "parameter"),
        ("\norders = where id >", "syntax error"),
    ] {
        let error = clone(&s, rules).unwrap_err();
        let told = error.to_string();
        assert!(
            matches!(&error, CloneError::Mask { wrong, .. } if wrong.line == 2),
            "{rules}: {told}"
        );
        assert!(told.contains(why), "{rules}: {told}");
    }
    for (rules, why) in [("users.email = 'same'", "UNIQUE"), ("users.email = null", "NOT NULL")] {
        let told = clone(&s, rules).unwrap_err().to_string();
        assert!(told.contains("table `users`") && told.contains(why), "{told}");
    }
    // What the engine says of a row is not told.
    let told = clone(&s, "users.phone = json_extract('{}', email)").unwrap_err().to_string();
    assert!(told.contains("table `users`: a masking rule fails on a row"), "{told}");
    assert!(!told.contains("SECRET"), "{told}");
    assert_eq!(s.content("stg1"), ("old".into(), 3));
    assert_eq!(s.names(), ["dev.db", "stg1.db"]);
}

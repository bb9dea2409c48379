//! A clone is what a dump of its source says.

use mysql::prelude::Queryable;
use testkit::mariadb::Mariadb;

use crate::world::{World, quoted, world, world_on};

/// One of everything.
const ZOO: &str = "
SET foreign_key_checks = 0, unique_checks = 0, sql_mode = 'NO_AUTO_VALUE_ON_ZERO';
CREATE TABLE `zero` (id INT PRIMARY KEY AUTO_INCREMENT, d DATE, t DATETIME(6), ts TIMESTAMP NOT NULL DEFAULT '2020-01-02 03:04:05') AUTO_INCREMENT = 77;
INSERT INTO `zero` VALUES (0, '0000-00-00', '0000-00-00', '0000-00-00 00:00:00'), (5, '2020-02-03', NULL, NOW());
CREATE TABLE nokey (a INT, b TEXT); INSERT INTO nokey VALUES (1, 'x'), (1, 'x'), (NULL, NULL);
CREATE TABLE othercounter (a INT, n INT AUTO_INCREMENT, KEY late (a), PRIMARY KEY (a, n), KEY counts (n));
INSERT INTO othercounter VALUES (3, 0), (1, 9);
CREATE TABLE gen (a INT, v INT AS (a + 1) VIRTUAL, s VARCHAR(40) AS (CONCAT('(', a, ',')) STORED, hidden INT INVISIBLE DEFAULT 7, KEY (v), KEY (s));
INSERT INTO gen (a, hidden) VALUES (1, 2), (2, NULL);
CREATE TABLE p (id INT PRIMARY KEY, code VARCHAR(9) NOT NULL, UNIQUE KEY by_code (code)) COMMENT = 'it''s, (parents)';
CREATE TABLE c (id INT PRIMARY KEY, pid INT, code VARCHAR(9), me INT,
  CONSTRAINT `to p` FOREIGN KEY (pid) REFERENCES p (id) ON DELETE CASCADE ON UPDATE SET NULL,
  CONSTRAINT `by code` FOREIGN KEY (code) REFERENCES p (code),
  CONSTRAINT `self` FOREIGN KEY (me) REFERENCES c (id),
  CONSTRAINT `dangling` FOREIGN KEY (me) REFERENCES nowhere (id));
INSERT INTO p VALUES (1, 'one'), (2, 'two'); INSERT INTO c VALUES (1, 1, 'one', 1), (2, NULL, 'two', 1), (3, 99, NULL, 98);
CREATE TABLE cycle_a (id INT PRIMARY KEY, b INT, CONSTRAINT ca FOREIGN KEY (b) REFERENCES cycle_b (id));
CREATE TABLE cycle_b (id INT PRIMARY KEY, a INT, CONSTRAINT cb FOREIGN KEY (a) REFERENCES cycle_a (id));
INSERT INTO cycle_a VALUES (1, 1); INSERT INTO cycle_b VALUES (1, 1);
CREATE TABLE words (id INT PRIMARY KEY, a TEXT, b TEXT, FULLTEXT KEY fa (a), FULLTEXT KEY fb (b), FULLTEXT KEY fab (a, b));
INSERT INTO words VALUES (1, 'one two', 'three');
CREATE TABLE checked (a INT CHECK (a > 0), b INT DEFAULT (1 + 2), c VARCHAR(9) DEFAULT 'a''b\\\\c', CONSTRAINT `both, (a` CHECK (a < b));
SET check_constraint_checks = 0; INSERT INTO checked VALUES (-1, 0, ''); SET check_constraint_checks = 1;
CREATE TABLE parted (id INT, y INT, PRIMARY KEY (id, y)) PARTITION BY RANGE (y) (PARTITION p0 VALUES LESS THAN (2000), PARTITION p1 VALUES LESS THAN MAXVALUE);
INSERT INTO parted VALUES (1, 1999), (2, 2001);
CREATE TABLE hashed (b BLOB, UNIQUE KEY (b)); INSERT INTO hashed VALUES (0xff00), ('x');
CREATE TABLE my (a INT, KEY (a)) ENGINE = MyISAM; INSERT INTO my VALUES (1), (2);
CREATE TABLE aria (a INT, KEY (a)) ENGINE = Aria; INSERT INTO aria VALUES (1), (2);
CREATE TABLE mem (a INT, KEY USING BTREE (a)) ENGINE = MEMORY; INSERT INTO mem VALUES (1), (2);
CREATE TABLE types (a JSON, b UUID, c INET6, d BIT(5), e ENUM('x', 'y,(''z'), f SET('p', 'q'), g DECIMAL(30, 10), h DOUBLE, i YEAR, j TIME(3), k VARBINARY(9), l POINT, m MEDIUMTEXT CHARACTER SET latin1 COLLATE latin1_bin, n VARCHAR(9) CHARACTER SET utf16, o FLOAT UNSIGNED ZEROFILL, q BIGINT UNSIGNED);
INSERT INTO types VALUES ('{\"a\": [1]}', UUID(), '::1', b'10101', 'y,(''z', 'p,q', 1234567890.0123456789, 1.0e300, 1999, '-838:59:59', 0xff00, POINT(1, 2), 'né', '機能', 1.5, 18446744073709551615);
CREATE TABLE geo (g GEOMETRY NOT NULL, SPATIAL KEY (g)) ENGINE = InnoDB; INSERT INTO geo VALUES (POINT(1, 1));
CREATE TABLE desckey (a INT, b INT, KEY d (a DESC, b), KEY ign (b) IGNORED, KEY pre (a) COMMENT 'with, comment (');
CREATE TABLE rowf (a VARCHAR(900), KEY (a(20))) ROW_FORMAT = COMPRESSED KEY_BLOCK_SIZE = 4 CHARACTER SET latin1;
CREATE TABLE pagecomp (a INT PRIMARY KEY) PAGE_COMPRESSED = 1 STATS_PERSISTENT = 0;
CREATE TABLE versioned (a INT PRIMARY KEY) WITH SYSTEM VERSIONING; INSERT INTO versioned VALUES (1);
CREATE TABLE period (a INT, s DATE, e DATE, PERIOD FOR app (s, e), UNIQUE (a, app WITHOUT OVERLAPS)); INSERT INTO period VALUES (1, '2020-01-01', '2020-02-01');
CREATE SEQUENCE sq START WITH 5 INCREMENT BY 3; SELECT NEXTVAL(sq); CREATE SEQUENCE unused NOCACHE CYCLE;
CREATE SEQUENCE back START WITH 100 MINVALUE 1 MAXVALUE 200; ALTER SEQUENCE back RESTART 50;
CREATE SEQUENCE down START WITH 2 INCREMENT BY -1 MINVALUE -100 MAXVALUE 100; ALTER SEQUENCE down RESTART 7;
CREATE SEQUENCE round START WITH 3 MINVALUE 1 MAXVALUE 4 NOCACHE CYCLE; SELECT NEXTVAL(round), NEXTVAL(round), NEXTVAL(round), NEXTVAL(round);
CREATE TABLE drawn (id BIGINT DEFAULT (NEXTVAL(sq)) PRIMARY KEY, a INT); INSERT INTO drawn (a) VALUES (1), (2);
CREATE TABLE drawn_often (id BIGINT DEFAULT (NEXTVAL(sq)) PRIMARY KEY, a INT, b BIGINT DEFAULT (NEXTVAL(unused)), c BIGINT DEFAULT (LASTVAL(sq)));
INSERT INTO drawn_often (a) VALUES (1), (2);
CREATE TABLE drawn_versioned (a INT PRIMARY KEY, b BIGINT DEFAULT (NEXTVAL(sq))) WITH SYSTEM VERSIONING; INSERT INTO drawn_versioned (a) VALUES (1);
CREATE TABLE bytes (a BINARY(3) DEFAULT X'FF2700', b VARBINARY(9) DEFAULT X'0A5C80', c CHAR(9) DEFAULT 'ä', d BIT(9) DEFAULT b'110');
INSERT INTO bytes VALUES (); CREATE TABLE `CaSe` (a INT PRIMARY KEY); CREATE TABLE `case` (b CHAR(9) PRIMARY KEY, c INT, KEY (c));
CREATE TABLE my_parent (id INT PRIMARY KEY) ENGINE = MyISAM;
CREATE TABLE my_child (b BINARY(2) DEFAULT X'FFFE', id INT, CONSTRAINT `to my` FOREIGN KEY (id) REFERENCES my_parent (id));
CREATE TABLE CASE_child (b CHAR(9), CONSTRAINT `small` FOREIGN KEY (b) REFERENCES `case` (b)); CREATE TABLE keyless_case (c INT, CONSTRAINT `no key there` FOREIGN KEY (c) REFERENCES `Case` (c)); CREATE TABLE `Case` (c INT);
INSERT INTO `CaSe` VALUES (1); INSERT INTO `case` (b) VALUES ('x'), ('y'); INSERT INTO CASE_child VALUES ('x');
CREATE TABLE `pull``re ,(\"'` (`co``l` INT, `counts` INT, `sel ect` INT, KEY `k``,(` (`co``l`)); INSERT INTO `pull``re ,(\"'` VALUES (1, 2, 3);
CREATE TABLE `機能 テーブル` (`列` INT PRIMARY KEY); INSERT INTO `機能 テーブル` VALUES (1);
CREATE TABLE `a234567890123456789012345678901234567890123456789012345678901234` (`b234567890123456789012345678901234567890123456789012345678901234` INT);
CREATE TABLE `select` (`from` INT, `pullre~counts` INT); INSERT INTO `select` VALUES (1, 5);
CREATE VIEW av AS SELECT id FROM zv WHERE id > 0;
";

/// Views that stand on each other, bodies with semicolons.
const PROGRAMS: [&str; 15] = [
    "CREATE FUNCTION twice(n INT) RETURNS INT DETERMINISTIC RETURN n * 2",
    "CREATE PROCEDURE `odd ``proc`(IN a INT, OUT b VARCHAR(9)) COMMENT 'it''s' BEGIN DECLARE x INT DEFAULT 1; SET b = CONCAT('né;', x); END",
    "SET sql_mode = 'ANSI_QUOTES,PIPES_AS_CONCAT'",
    "CREATE FUNCTION joined() RETURNS TEXT RETURN 'a' || 'b'",
    "SET sql_mode = 'ORACLE'",
    "CREATE PACKAGE pack AS FUNCTION f(a INT) RETURN INT; END",
    "CREATE PACKAGE BODY pack AS FUNCTION f(a INT) RETURN INT AS BEGIN RETURN a; END; END",
    "SET sql_mode = ''",
    "CREATE TRIGGER t2 BEFORE INSERT ON nokey FOR EACH ROW SET NEW.a = NEW.a + 1",
    "CREATE TRIGGER t1 BEFORE INSERT ON nokey FOR EACH ROW PRECEDES t2 SET NEW.a = NEW.a * 2",
    "CREATE TRIGGER t3 BEFORE INSERT ON nokey FOR EACH ROW FOLLOWS t1 BEGIN SET NEW.b = 'x;'; END",
    "CREATE TRIGGER `t 4` AFTER DELETE ON p FOR EACH ROW INSERT INTO my VALUES (OLD.id)",
    "CREATE EVENT e1 ON SCHEDULE EVERY 1 DAY STARTS '2037-01-01 00:00:00' ENABLE COMMENT 'ENABLE' DO DELETE FROM my",
    "CREATE EVENT e2 ON SCHEDULE AT '2037-01-01 00:00:00' ON COMPLETION PRESERVE DISABLE DO BEGIN DELETE FROM my; END",
    "CREATE ALGORITHM = MERGE SQL SECURITY INVOKER VIEW `m v` AS SELECT twice(id) AS `t``w` FROM av WITH CHECK OPTION",
];

fn zoo(w: &World, schema: &str) {
    // `av` needs `zv`, which comes after it by name.
    w.create(schema, "CREATE TABLE zt (id INT); INSERT INTO zt VALUES (1), (2); CREATE VIEW zv AS SELECT id FROM zt");
    w.sql(schema, ZOO);
    let mut conn = w.conn();
    conn.query_drop(format!("USE {}", quoted(schema))).unwrap();
    conn.query_drop("SET sql_mode = ''").unwrap();
    for sql in &PROGRAMS {
        conn.query_drop(sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
    }
}

/// Tables large enough that their keys wait, linked in every direction.
fn large(w: &World, schema: &str) {
    w.create(
        schema,
        "SET foreign_key_checks = 0;
         CREATE TABLE big (id INT PRIMARY KEY AUTO_INCREMENT, pid INT, code INT NOT NULL, t VARCHAR(200), txt TEXT,
            UNIQUE KEY u (code), KEY k1 (pid), KEY k2 (t(20), id), FULLTEXT KEY f1 (txt), FULLTEXT KEY f2 (t),
            CONSTRAINT big_small FOREIGN KEY (pid) REFERENCES small (id),
            CONSTRAINT big_self FOREIGN KEY (pid) REFERENCES big (id));
         CREATE TABLE small (id INT PRIMARY KEY, big INT, code INT,
            CONSTRAINT small_big FOREIGN KEY (big) REFERENCES big (id),
            CONSTRAINT small_code FOREIGN KEY (code) REFERENCES big (code) ON DELETE SET NULL);
         CREATE TABLE counter (a INT, id INT AUTO_INCREMENT, t CHAR(200), KEY (a), KEY (id));
         INSERT INTO small SELECT seq, seq, seq FROM seq_1_to_100;
         INSERT INTO big SELECT seq, 1 + seq % 100, seq * 3, REPEAT(MD5(seq), 6), 'some words' FROM seq_1_to_20000;
         INSERT INTO counter SELECT seq, 0, REPEAT('x', 200) FROM seq_1_to_10000;
         CREATE TRIGGER big_trigger BEFORE UPDATE ON big FOR EACH ROW SET NEW.t = OLD.t;
         ANALYZE TABLE big, small, counter;",
    );
}

#[test]
fn every_kind_of_object_is_copied_as_it_is() {
    let w = world();
    let (from, to) = (w.name("zoo"), w.name("clone"));
    zoo(&w, &from);
    let outcome = w.clone(&from, &to);
    w.assert_same(&from, &to);
    let events = format!(
        "SELECT COUNT(*) FROM information_schema.events WHERE event_schema = '{to}' AND status <> 'DISABLED'"
    );
    assert_eq!(w.number(&to, &events), 0);
    let notes = outcome.notes.join("\n");
    for told in [
        "these events are disabled in the clone: `e1`, `e2`",
        "`versioned`",
        "`aria`, `mem`, `my`, `my_parent`",
    ] {
        assert!(notes.contains(told), "{told}: {notes}");
    }
    // Over what is there, twice: the first clone, then its own like.
    w.sql(&to, "SET foreign_key_checks = 0; DROP TABLE p; CREATE TABLE stray (a INT); INSERT INTO nokey VALUES (8, 'y')");
    for _ in 0..2 {
        w.clone(&from, &to);
        w.assert_same(&from, &to);
    }
    assert_eq!(w.names(), [to, from]);
}

#[test]
fn a_trigger_that_names_its_schema_becomes_one_of_the_clone() {
    let w = world();
    let (from, to) = (w.name("named"), w.name("clone"));
    w.create(&from, "CREATE TABLE t (a INT)");
    for names in [
        "`{}`.one BEFORE INSERT ON `{}`.t",
        "`{}` . one BEFORE INSERT ON t",
        "one BEFORE INSERT ON {} . t",
        "{} /* a */ . one BEFORE INSERT ON t",
        "\"{}\".\"one\" BEFORE INSERT ON \"{}\".\"t\"",
    ] {
        let names = names.replace("{}", &from);
        w.sql(&from, "SET sql_mode = 'ANSI_QUOTES'; DROP TRIGGER IF EXISTS one");
        let sql = format!(
            "SET sql_mode = 'ANSI_QUOTES'; CREATE TRIGGER {names} FOR EACH ROW SET NEW.a = NEW.a + 1"
        );
        w.sql(&from, &sql);
        w.clone(&from, &to);
        w.sql(&to, "DELETE FROM t; INSERT INTO t VALUES (1)");
        assert_eq!(w.number(&to, "SELECT a FROM t"), 2, "{names}");
    }
    let of = |schema: &str| {
        let sql = "SELECT COUNT(*) FROM information_schema.triggers WHERE trigger_schema = ";
        w.number(schema, &format!("{sql}'{schema}'"))
    };
    assert_eq!((of(&from), of(&to)), (1, 1));
}

#[test]
fn keys_that_wait_come_out_as_they_were() {
    let w = world();
    let (from, to) = (w.name("large"), w.name("clone"));
    large(&w, &from);
    for _ in 0..3 {
        let outcome = w.clone(&from, &to);
        assert_eq!((outcome.tables, outcome.rows), (3, 30_100));
        w.assert_same(&from, &to);
    }
}

#[test]
fn a_schema_may_have_any_name() {
    let w = world();
    for odd in ["a`b", "with space", "機能", "it's", "x.y", "select", "-rf", "%s", "a\"b"] {
        let from = w.name(odd);
        let long: String = format!("{}{}", w.name(odd), "z".repeat(64)).chars().take(64).collect();
        w.create(&from, "CREATE TABLE t (a INT PRIMARY KEY); INSERT INTO t VALUES (1); CREATE VIEW v AS SELECT a FROM t");
        for _ in 0..2 {
            w.clone(&from, &long);
            w.assert_same(&from, &long);
        }
        assert!(w.names().iter().all(|name| !name.contains("~new")), "{:?}", w.names());
    }
}

#[test]
fn tables_whose_keys_are_built_while_others_are_copied_are_whole() {
    let w = world();
    let (from, to) = (w.name("from"), w.name("to"));
    let table = |name: &str, rows: u32| {
        format!(
            "CREATE TABLE {name} (id INT PRIMARY KEY, a CHAR(250), n INT, KEY (n), KEY (a));
             INSERT INTO {name} SELECT seq, MD5(seq), seq % 97 FROM seq_1_to_{rows}; ANALYZE TABLE {name};"
        )
    };
    let few: String = (0..2).map(|n| table(&format!("few{n}"), 3000)).collect();
    // More than what is left when the first of them is read.
    w.create(
        &from,
        &(table("more", 12_000) + &table("many", 14_000) + &table("most", 16_000) + &few),
    );
    w.clone(&from, &to);
    w.assert_same(&from, &to);
}

#[test]
fn rows_of_generated_columns_alone_are_told_of() {
    let w = world();
    let (from, to) = (w.name("from"), w.name("to"));
    w.create(&from, "CREATE TABLE t (a INT AS (1) STORED); INSERT INTO t (a) VALUES (DEFAULT)");
    let notes = w.clone(&from, &to).notes;
    assert!(notes.iter().any(|note| note.contains("generated columns only")), "{notes:?}");
    assert_eq!(w.number(&to, "SELECT COUNT(*) FROM t"), 0);
}

#[test]
fn no_file_of_other_schemas_is_opened() {
    let mariadb = Mariadb::start(&["--table-open-cache=10".to_owned()]).unwrap();
    let w = world_on(Box::leak(Box::new(mariadb)));
    let (from, to) = (w.name("from"), w.name("to"));
    w.create(
        &from,
        "CREATE TABLE t (a INT); CREATE TRIGGER tr BEFORE INSERT ON t FOR EACH ROW SET @x = 1",
    );
    let opened = |schema: &str| {
        let count = "SELECT variable_value FROM information_schema.global_status
             WHERE variable_name = 'Opened_files'";
        let before = w.number(schema, count);
        w.clone(&from, &to);
        w.number(schema, count) - before
    };
    opened(&from);
    let alone = opened(&from);
    let tables: String = (0..40)
        .map(|n| format!("CREATE TABLE t{n} (a INT); CREATE TRIGGER tr{n} BEFORE INSERT ON t{n} FOR EACH ROW SET @x = 1;"))
        .collect();
    for n in 0..5 {
        w.create(&w.name(&format!("other{n}")), &tables);
    }
    let beside_others = opened(&from);
    assert!(beside_others < alone + 40, "{alone} files alone, {beside_others} beside 200 tables");
}

#[test]
fn where_the_server_folds_case_names_may_be_typed_in_any() {
    let mariadb = Mariadb::start(&[
        "--lower-case-table-names=1".to_owned(),
        "--character-set-client-handshake".to_owned(),
    ]);
    let mut w = world_on(Box::leak(Box::new(mariadb.unwrap())));
    let (from, to) = (w.name("from"), format!("{:x<64}", w.name("to")));
    w.create(
        &from,
        "CREATE SEQUENCE s; CREATE TABLE t (id BIGINT DEFAULT (NEXTVAL(s)), a INT); INSERT INTO t (a) VALUES (1);
         CREATE TABLE u (a INT); CREATE VIEW v AS SELECT a FROM t",
    );
    for change in
        ["SELECT 1", "SELECT 1", "INSERT INTO t (a) VALUES (2)", "ALTER TABLE t ADD COLUMN b INT"]
    {
        w.sql(&from, change);
        w.clone(&from.to_uppercase(), &to.to_uppercase());
        w.assert_same(&from, &to);
        w.clone(&from, &to);
        assert_eq!(w.names(), [from.clone(), to.clone()]);
    }
    w.keep_previous = true;
    let to = w.name("kept");
    w.clone(&from, &to);
    w.sql(&from, "CREATE TABLE later (a INT)");
    w.clone(&from, &to.to_uppercase());
    w.undo(&to.to_uppercase(), 1).unwrap();
    assert!(!w.dump(&to).contains("later"));
    w.undo(&to, 2).unwrap();
    w.assert_same(&from, &to);
}

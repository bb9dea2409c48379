//! Schemas that nobody would write, from a printed seed.

use std::fmt::Write;

use crate::crash::{next, seed};
use crate::world::{World, quoted, world};

const TYPES: [(&str, &str); 10] = [
    ("INT", "seq % 97"),
    ("BIGINT UNSIGNED DEFAULT 7", "seq * 31"),
    ("VARCHAR(60) CHARACTER SET utf8mb4 NOT NULL DEFAULT 'a''b,('", "CONCAT('né', seq)"),
    ("VARCHAR(90) CHARACTER SET latin1", "REPEAT(CHAR(65 + seq % 26), seq % 80)"),
    ("TEXT COMMENT 'with, (words'", "IF(seq % 3, REPEAT('x', seq % 500), NULL)"),
    ("BLOB", "UNHEX(MD5(seq))"),
    ("DATETIME(3)", "'2026-01-01' + INTERVAL seq SECOND"),
    ("DECIMAL(20, 6)", "seq / 7"),
    ("DOUBLE", "seq / 3"),
    ("ENUM('x', 'y', 'it''s')", "1 + seq % 3"),
];
const NAMES: [&str; 8] = ["a", "order", "b`c", "with space", "機能", "x,(y", "Upper", "it's"];

fn generate(w: &World, schema: &str, random: &mut u64) {
    let mut below = |n: usize| (next(random) % n as u64) as usize;
    let tables = 1 + below(NAMES.len());
    let mut sql = "SET foreign_key_checks = 0, sql_mode = '';\n".to_owned();
    for (n, table) in NAMES.iter().enumerate().take(tables) {
        let columns: Vec<_> = (0..1 + below(6)).map(|_| TYPES[below(TYPES.len())]).collect();
        let has_key = below(4) > 0;
        // A parent without a key on what is referred to cannot even be renamed.
        let counter = if has_key { "AUTO_INCREMENT PRIMARY KEY" } else { "NOT NULL, KEY (id)" };
        let mut text = format!("`id` INT {counter}");
        let name = |c: usize| format!("`c{c} {}`", NAMES[c].replace('`', "``"));
        for (c, (kind, _)) in columns.iter().enumerate() {
            let _ = write!(text, ", {} {kind}", name(c));
        }
        for key in 0..below(4) {
            let c = below(columns.len());
            let long = ["TEXT", "BLOB", "VARCHAR"].iter().any(|t| columns[c].0.starts_with(t));
            let part = if long { format!("{}(10)", name(c)) } else { name(c) };
            let _ = write!(text, ", KEY `k{key},{n}` ({part}{})", [" DESC", ", id", ""][below(3)]);
        }
        if below(3) == 0 {
            let _ = write!(
                text,
                ", gen INT AS (IF({} IS NULL, 1, 2)) {}",
                name(0),
                ["VIRTUAL", "STORED, KEY (gen)"][below(2)]
            );
        }
        for link in 0..below(3) {
            let to = quoted(NAMES[below(tables)]);
            let _ = write!(
                text,
                ", KEY (id), CONSTRAINT `f{n} {link}` FOREIGN KEY (id) REFERENCES {to} (id)"
            );
        }
        let engine = ["InnoDB", "InnoDB", "InnoDB", "MyISAM", "Aria"][below(5)];
        let values: Vec<_> = columns.iter().map(|(_, value)| *value).collect();
        let named: Vec<_> = (0..columns.len()).map(name).collect();
        // Some with more than a megabyte.
        let rows = [0, 3, 400, 9000][below(4)];
        let _ = write!(
            sql,
            "CREATE TABLE {table} ({text}) ENGINE = {engine};
             INSERT INTO {table} (id, {}) SELECT seq, {} FROM seq_1_to_9000 WHERE seq <= {rows};
             ANALYZE TABLE {table};\n",
            named.join(", "),
            values.join(", "),
            table = quoted(table),
        );
    }
    w.create(schema, &sql);
}

#[test]
fn generated_schemas_are_copied_as_they_are() {
    let w = world();
    let mut random = seed();
    for round in 0..25 {
        let (from, to) = (w.name(&format!("from{round}")), w.name(&format!("to{}", round % 2)));
        generate(&w, &from, &mut random);
        w.clone(&from, &to);
        w.assert_same(&from, &to);
        w.clone(&from, &to);
        w.assert_same(&from, &to);
    }
}

//! Cloning SQLite schemas: what is copied, what is refused, and what a kill leaves behind.
#![allow(clippy::unwrap_used)]

mod crash;
mod masked;
mod previous;

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pullre::domain::SchemaName;
use pullre::schema_clone::{CloneError, CloneOutcome, Phase, Progress, Request, sqlite};
use rusqlite::Connection;
use tempfile::TempDir;

const MINUTE: Duration = Duration::from_secs(60);

/// A folder of schemas.
struct Schemas(TempDir);

fn schemas() -> Schemas {
    Schemas(tempfile::tempdir().unwrap())
}

fn name(schema: &str) -> SchemaName {
    schema.parse().unwrap()
}

impl Schemas {
    fn dir(&self) -> &Path {
        self.0.path()
    }
    fn file(&self, schema: &str) -> PathBuf {
        sqlite::path(self.dir(), &name(schema))
    }
    fn open(&self, schema: &str) -> Connection {
        Connection::open(self.file(schema)).unwrap()
    }
    /// A schema of `rows` rows that all say `word`.
    fn with(self, schema: &str, word: &str, rows: u32) -> Self {
        fill(&self.open(schema), word, rows);
        self
    }
    fn with_wal(self, schema: &str, word: &str, rows: u32) -> Self {
        let db = self.open(schema);
        db.pragma_update(None, "journal_mode", "WAL").unwrap();
        fill(&db, word, rows);
        self
    }
    fn clone(&self, source: &str, destination: &str) -> Result<CloneOutcome, CloneError> {
        self.clone_within(MINUTE, source, destination)
    }
    fn clone_within(
        &self,
        timeout: Duration,
        source: &str,
        destination: &str,
    ) -> Result<CloneOutcome, CloneError> {
        let (source, destination) = (name(source), name(destination));
        sqlite::clone(self.dir(), &Request::new(&source, &destination, timeout), &mut |_| {})
    }
    /// What all rows of the schema say, and how many there are.
    fn content(&self, schema: &str) -> (String, u32) {
        content(&self.open(schema))
    }
    fn nonempty(&self, schema: &str) -> bool {
        sqlite::exists_nonempty(self.dir(), &name(schema)).unwrap()
    }
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.dir()).unwrap();
        let mut names: Vec<String> =
            entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
    fn mode(&self, schema: &str) -> u32 {
        fs::metadata(self.file(schema)).unwrap().permissions().mode() & 0o777
    }
}

fn fill(db: &Connection, word: &str, rows: u32) {
    db.execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY, word TEXT, filler BLOB)").unwrap();
    db.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?2)
         INSERT INTO t (word, filler) SELECT ?1, randomblob(900) FROM n",
        (word, rows),
    )
    .unwrap();
}

fn content(db: &Connection) -> (String, u32) {
    db.query_row("SELECT group_concat(DISTINCT word), count(*) FROM t", [], |row| {
        Ok((row.get(0)?, row.get(1)?))
    })
    .unwrap()
}

#[test]
fn a_clone_holds_everything_and_says_how_much() {
    let s = schemas();
    s.open("dev")
        .execute_batch(
            "PRAGMA page_size = 8192; PRAGMA auto_vacuum = INCREMENTAL; PRAGMA encoding = 'UTF-16le';
             PRAGMA user_version = 7; PRAGMA application_id = 99;
             CREATE TABLE \"odd \"\" name\" (a TEXT, b AS (upper(a)), UNIQUE (a));
             INSERT INTO \"odd \"\" name\" VALUES ('x'), ('ä'), (NULL);
             CREATE TABLE k (k TEXT PRIMARY KEY, v) WITHOUT ROWID;
             INSERT INTO k VALUES ('a', x'00ff');
             CREATE TABLE auto (id INTEGER PRIMARY KEY AUTOINCREMENT);
             INSERT INTO auto VALUES (41); DELETE FROM auto;
             CREATE VIEW v AS SELECT a FROM \"odd \"\" name\";
             CREATE TRIGGER tr AFTER INSERT ON k BEGIN DELETE FROM auto; END;
             CREATE VIRTUAL TABLE words USING fts5(body);
             INSERT INTO words VALUES ('hello');",
        )
        .unwrap();

    let outcome = s.clone("dev", "stg1").unwrap();

    assert_eq!((outcome.tables, outcome.rows), (3, 4));
    assert_eq!(outcome.bytes, fs::metadata(s.file("stg1")).unwrap().len());
    assert_eq!(outcome.notes, [] as [&str; 0]);
    let db = s.open("stg1");
    let one = |sql: &str| db.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(one("PRAGMA page_size"), 8192);
    assert_eq!(one("PRAGMA auto_vacuum"), 2);
    assert_eq!(one("PRAGMA user_version"), 7);
    assert_eq!(one("PRAGMA application_id"), 99);
    assert_eq!(one("SELECT seq FROM sqlite_sequence"), 41);
    assert_eq!(one("SELECT count(*) FROM words('hello')"), 1);
    assert_eq!(one("SELECT count(*) FROM v"), 3);
    assert_eq!(s.names(), ["dev.db", "stg1.db"]);
}

#[test]
fn names_that_mean_something_elsewhere_are_names_of_files_here() {
    for odd in ["a?mode=memory", "a%20b", "file:x", "données #1", "-rf", "a`b\"c'd"] {
        let s = schemas().with(odd, "new", 3);
        s.clone(odd, "stg1").unwrap();
        s.clone("stg1", &format!("{odd}2")).unwrap();
        assert_eq!(s.content(&format!("{odd}2")), ("new".into(), 3), "{odd}");
    }
}

#[test]
fn the_old_content_is_replaced() {
    let s = schemas().with("dev", "new", 10).with("stg1", "old", 500);
    s.clone("dev", "stg1").unwrap();
    assert_eq!(s.content("stg1"), ("new".into(), 10));
    assert_eq!(s.content("dev"), ("new".into(), 10));
}

#[test]
fn progress_rises_to_the_whole() {
    let s = schemas().with("dev", "new", 20_000);
    let mut seen: Vec<Progress> = Vec::new();
    let (dev, stg1) = (name("dev"), name("stg1"));
    sqlite::clone(s.dir(), &Request::new(&dev, &stg1, MINUTE), &mut |p| seen.push(p)).unwrap();
    assert!(seen.len() >= 2, "{seen:?}");
    assert!(seen.is_sorted_by_key(|p| p.phase));
    seen.retain(|p| p.phase == Phase::Copying);
    assert!(seen.is_sorted_by_key(|p| p.copied_bytes));
    let last = seen[seen.len() - 1];
    assert_eq!(last.copied_bytes, last.total_bytes);
    assert_eq!(last.total_bytes, fs::metadata(s.file("stg1")).unwrap().len());
}

#[test]
fn what_is_only_in_the_sources_wal_is_cloned_and_the_clone_is_a_single_file() {
    let s = schemas();
    let db = s.open("dev");
    db.pragma_update(None, "journal_mode", "WAL").unwrap();
    db.pragma_update(None, "wal_autocheckpoint", 0).unwrap();
    fill(&db, "new", 300);
    assert!(fs::metadata(s.dir().join("dev.db-wal")).unwrap().len() > 100_000);

    let outcome = s.clone("dev", "stg1").unwrap();

    assert_eq!(outcome.rows, 300);
    assert!(outcome.notes[0].contains("WAL"), "{:?}", outcome.notes);
    let clone = fs::read(s.file("stg1")).unwrap();
    assert_eq!(clone[18..20], [1, 1], "the header says rollback mode");
    assert!(!s.names().iter().any(|n| n.starts_with("stg1.db-") || n.starts_with('.')));
    assert_eq!(s.content("stg1"), ("new".into(), 300));
}

/// Clones again and again while a thread writes pairs of rows, each pair in one transaction.
fn clone_beside_a_writer(journal_mode: &str) {
    let s = schemas().with("dev", "new", 20_000);
    s.open("dev")
        .execute_batch(&format!(
            "PRAGMA journal_mode = {journal_mode}; CREATE TABLE pairs (side INTEGER, n INTEGER)"
        ))
        .unwrap();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut db = s.open("dev");
            db.busy_timeout(MINUTE).unwrap();
            let mut written = 0;
            while !stop.load(Ordering::Relaxed) {
                let tx = db.transaction().unwrap();
                tx.execute("INSERT INTO pairs VALUES (0, ?1)", [written]).unwrap();
                tx.execute(
                    "UPDATE t SET filler = randomblob(900) WHERE id = 1 + ?1 % 20000",
                    [written * 97],
                )
                .unwrap();
                tx.execute("INSERT INTO pairs VALUES (1, ?1)", [written]).unwrap();
                tx.commit().unwrap();
                written += 1;
            }
            written
        });
        for _ in 0..5 {
            s.clone("dev", "stg1").unwrap();
            let torn: i64 = s
                .open("stg1")
                .query_row("SELECT coalesce(sum(1 - 2 * side), 0) FROM pairs", [], |row| row.get(0))
                .unwrap();
            assert_eq!(torn, 0);
        }
        stop.store(true, Ordering::Relaxed);
        assert!(writer.join().unwrap() > 5, "the writer went on");
    });
}

#[test]
fn a_writer_of_a_wal_source_neither_tears_nor_delays_the_clone() {
    clone_beside_a_writer("WAL");
}

#[test]
fn a_writer_of_a_rollback_source_neither_tears_nor_delays_the_clone() {
    clone_beside_a_writer("DELETE");
}

#[test]
fn a_source_that_stays_locked_ends_in_a_time_out() {
    let s = schemas().with("dev", "new", 3).with("stg1", "old", 3);
    let db = s.open("dev");
    db.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let started = Instant::now();
    let error = s.clone_within(Duration::from_millis(300), "dev", "stg1").unwrap_err();
    assert!(matches!(error, CloneError::TimedOut { .. }), "{error}");
    assert!(started.elapsed() < Duration::from_secs(10));
    assert_eq!(s.content("stg1"), ("old".into(), 3));
}

#[test]
fn a_clone_that_takes_too_long_is_given_up_and_leaves_nothing() {
    let s = schemas().with("dev", "new", 30_000).with("stg1", "old", 3);
    let (dev, stg1) = (name("dev"), name("stg1"));
    let mut slow = |_: Progress| thread::sleep(Duration::from_millis(120));
    let error =
        sqlite::clone(s.dir(), &Request::new(&dev, &stg1, Duration::from_millis(200)), &mut slow)
            .unwrap_err();
    assert!(matches!(error, CloneError::TimedOut { .. }), "{error}");
    assert_eq!(s.content("stg1"), ("old".into(), 3));
    assert_eq!(s.names(), ["dev.db", "stg1.db"]);
}

#[test]
fn an_empty_source_gives_an_empty_clone_and_says_so() {
    let s = schemas().with("stg1", "old", 3);
    fs::write(s.file("zero"), "").unwrap();
    s.open("bare").execute_batch("PRAGMA user_version = 1").unwrap();
    for source in ["zero", "bare"] {
        let outcome = s.clone(source, "stg1").unwrap();
        assert_eq!((outcome.tables, outcome.rows), (0, 0));
        assert_eq!(outcome.notes, [format!("the source schema `{source}` holds no tables")]);
        assert!(!s.nonempty("stg1"));
    }
}

#[test]
fn a_source_that_cannot_be_one_is_refused_and_the_old_clone_stays() {
    let s = schemas().with("stg1", "old", 3).with("torn", "new", 500);
    let mut bytes = fs::read(s.file("torn")).unwrap();
    bytes.truncate(bytes.len() / 2);
    fs::write(s.file("torn"), &bytes).unwrap();
    let half = bytes.len() / 2;
    bytes.resize(bytes.len() * 2, 0xa5);
    bytes[half..half + 9000].fill(0xa5);
    fs::write(s.file("rotten"), &bytes).unwrap();
    fs::write(s.file("foreign"), "<html>".repeat(2000)).unwrap();
    fs::write(s.file("tiny"), "xy").unwrap();
    fs::create_dir(s.file("folder")).unwrap();

    let refusal = |source: &str| {
        let error = s.clone(source, "stg1").unwrap_err();
        assert!(error.to_string().contains(s.dir().to_str().unwrap()), "{error}");
        format!("{error:?}").split([' ', '{']).next().unwrap().to_owned()
    };
    assert_eq!(refusal("none"), "SourceMissing");
    assert_eq!(refusal("foreign"), "SourceNotADatabase");
    assert_eq!(refusal("tiny"), "SourceNotADatabase");
    assert_eq!(refusal("folder"), "SourceNotADatabase");
    assert_eq!(refusal("torn"), "SourceDamaged");
    assert_eq!(refusal("rotten"), "SourceDamaged");
    assert_eq!(refusal("stg1"), "SameSchema");
    assert_eq!(s.content("stg1"), ("old".into(), 3));
    assert!(
        !s.names().iter().any(|n| n.starts_with('.') || n.starts_with("none")),
        "{:?}",
        s.names()
    );
}

#[test]
fn names_that_differ_in_case_only_are_one_schema() {
    let s = schemas().with("dev", "new", 3);
    let error = s.clone("dev", "DEV").unwrap_err();
    assert!(matches!(error, CloneError::SameSchema { .. }), "{error}");
}

#[test]
fn a_source_that_its_program_left_in_the_middle_of_a_write_says_what_to_do() {
    let s = schemas().with("dev", "new", 3000);
    // A program that died: its journal and half of its pages are on the disk.
    let db = s.open("dev");
    db.execute_batch("PRAGMA cache_size = 1; BEGIN; UPDATE t SET word = 'half'").unwrap();
    let (file, journal) = (s.file("dev"), s.dir().join("dev.db-journal"));
    fs::copy(&file, s.file("crashed")).unwrap();
    fs::copy(&journal, s.dir().join("crashed.db-journal")).unwrap();
    drop(db);

    let error = s.clone("crashed", "stg1").unwrap_err();
    assert!(matches!(error, CloneError::SourceUnfinished { .. }), "{error}");
    assert_eq!(s.content("crashed"), ("new".into(), 3000));
    s.clone("crashed", "stg1").unwrap();
}

#[test]
fn a_write_protected_source_gives_a_clone_that_can_be_written() {
    let s = schemas().with("dev", "new", 3).with_wal("wal", "new", 3);
    for source in ["dev", "wal"] {
        fs::set_permissions(s.file(source), Permissions::from_mode(0o440)).unwrap();
        s.clone(source, "stg1").unwrap();
        assert_eq!(s.mode("stg1"), 0o640);
        assert_eq!(s.mode(source), 0o440);
        fs::remove_file(s.file("stg1")).unwrap();
    }
}

#[test]
fn the_mode_of_the_old_clone_is_kept() {
    let s = schemas().with("dev", "new", 3).with("stg1", "old", 3);
    fs::set_permissions(s.file("stg1"), Permissions::from_mode(0o664)).unwrap();
    s.clone("dev", "stg1").unwrap();
    assert_eq!(s.mode("stg1"), 0o664);
}

#[test]
fn links_are_left_alone() {
    let s = schemas().with_wal("dev", "new", 3);
    let before = fs::read(s.file("dev")).unwrap();
    symlink("dev.db", s.file("soft")).unwrap();
    symlink("nowhere", s.file("dangling")).unwrap();
    fs::hard_link(s.file("dev"), s.file("hard")).unwrap();
    for link in ["soft", "dangling"] {
        let error = s.clone("dev", link).unwrap_err();
        assert!(matches!(error, CloneError::DestinationNotAFile { .. }), "{error}");
        assert!(fs::symlink_metadata(s.file(link)).unwrap().is_symlink());
    }
    let error = s.clone("dev", "hard").unwrap_err();
    assert!(matches!(error, CloneError::SameSchema { .. }), "{error}");
    assert_eq!(fs::read(s.file("dev")).unwrap(), before);

    // The source may be a link.
    s.clone("soft", "stg1").unwrap();
    assert_eq!(s.content("stg1"), ("new".into(), 3));
}

#[test]
fn nothing_of_the_old_clone_is_replayed_into_the_new_one() {
    // Side files as a program leaves them that was killed, of both modes.
    let s = schemas().with("dev", "new", 50).with("small", "old", 1);
    let wal = s.open("stg1");
    wal.execute_batch("PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0").unwrap();
    fill(&wal, "old", 50);
    let hot = s.open("stg2");
    fill(&hot, "old", 3000);
    hot.execute_batch("PRAGMA cache_size = 1; BEGIN; UPDATE t SET word = 'half'").unwrap();
    for (from, to) in [
        ("stg1.db", "a.db"),
        ("stg1.db-wal", "a.db-wal"),
        ("stg2.db", "b.db"),
        ("stg2.db-journal", "b.db-journal"),
        // The database itself is gone.
        ("stg1.db-wal", "c.db-wal"),
        ("stg2.db-journal", "d.db-journal"),
    ] {
        fs::copy(s.dir().join(from), s.dir().join(to)).unwrap();
    }
    for destination in ["a", "b", "c", "d"] {
        s.clone("dev", destination).unwrap();
        assert_eq!(s.content(destination), ("new".into(), 50), "{destination}");
    }
}

#[test]
fn a_destination_in_use_is_refused_at_once_and_stays() {
    let s = schemas().with("dev", "new", 3).with_wal("stg1", "old", 3).with("stg2", "old", 3);
    let idle_in_wal_mode = s.open("stg1");
    content(&idle_in_wal_mode);
    let in_a_transaction = s.open("stg2");
    in_a_transaction.execute_batch("BEGIN IMMEDIATE; DELETE FROM t WHERE id = 1").unwrap();
    for busy in ["stg1", "stg2"] {
        let timeout = Duration::from_secs(1);
        let error = s.clone_within(timeout, "dev", busy).unwrap_err();
        assert!(matches!(error, CloneError::DestinationBusy { .. }), "{error}");
        assert!(error.to_string().contains(&format!("{busy}.db")), "{error}");
    }
    in_a_transaction.execute_batch("ROLLBACK").unwrap();
    drop((idle_in_wal_mode, in_a_transaction));
    for free in ["stg1", "stg2"] {
        assert_eq!(s.content(free), ("old".into(), 3));
        s.clone("dev", free).unwrap();
        assert_eq!(s.content(free), ("new".into(), 3));
    }
}

#[test]
fn an_idle_connection_to_the_old_clone_cannot_harm_the_new_one() {
    let s = schemas().with("dev", "new", 3).with("stg1", "old", 3);
    let idle = s.open("stg1");
    content(&idle);
    s.clone("dev", "stg1").unwrap();
    idle.execute("UPDATE t SET word = 'stray'", []).unwrap_err();
    assert_eq!(s.content("stg1"), ("new".into(), 3));
}

#[test]
fn a_damaged_old_clone_is_replaced() {
    let s = schemas().with("dev", "new", 3).with_wal("torn", "old", 100);
    fs::write(s.file("garbage"), "no database at all".repeat(1000)).unwrap();
    fs::write(s.dir().join("garbage.db-wal"), "rubbish").unwrap();
    fs::write(s.dir().join("garbage.db-journal"), "rubbish").unwrap();
    let mut bytes = fs::read(s.file("torn")).unwrap();
    bytes.truncate(5000);
    fs::write(s.file("torn"), &bytes).unwrap();
    bytes[18..20].fill(9);
    fs::write(s.file("future"), &bytes).unwrap();
    for old in ["garbage", "torn", "future"] {
        let outcome = s.clone("dev", old).unwrap();
        assert_eq!(s.content(old), ("new".into(), 3), "{old}: {outcome:?}");
    }
}

#[test]
fn what_a_killed_clone_left_is_replaced() {
    let s = schemas().with("dev", "new", 3);
    for left in [".stg1.building", ".stg1.building-journal", ".stg1.building-wal"] {
        fs::write(s.dir().join(left), "left over".repeat(10_000)).unwrap();
    }
    s.clone("dev", "stg1").unwrap();
    assert_eq!(s.content("stg1"), ("new".into(), 3));
    assert_eq!(s.names(), ["dev.db", "stg1.db"]);
}

#[test]
fn two_clones_into_one_schema_do_not_meet() {
    let s = schemas().with("a", "new", 3000).with("b", "new", 3000);
    thread::scope(|scope| {
        let run = |source: &'static str| {
            let s = &s;
            scope.spawn(move || {
                for _ in 0..20 {
                    match s.clone(source, "stg1") {
                        Ok(_) | Err(CloneError::DestinationBusy { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            })
        };
        let (a, b) = (run("a"), run("b"));
        a.join().unwrap();
        b.join().unwrap();
    });
    assert_eq!(s.content("stg1"), ("new".into(), 3000));
    assert_eq!(s.names(), ["a.db", "b.db", "stg1.db"]);
}

#[test]
fn a_schema_with_a_collation_that_only_its_program_knows_is_cloned_with_a_note() {
    let s = schemas();
    let db = s.open("dev");
    // As if made by a program that brings a collation along.
    db.execute_batch(
        "CREATE TABLE t (word TEXT COLLATE nocase PRIMARY KEY); INSERT INTO t VALUES ('a');
         PRAGMA writable_schema = ON;
         UPDATE sqlite_schema SET sql = replace(sql, 'nocase', 'byname')",
    )
    .unwrap();
    drop(db);
    let outcome = s.clone("dev", "stg1").unwrap();
    assert_eq!((outcome.tables, outcome.rows), (1, 1));
    assert!(outcome.notes[0].contains("byname"), "{:?}", outcome.notes);
}

#[test]
fn only_a_schema_with_something_in_it_counts_as_nonempty() {
    let s = schemas().with("full", "new", 1).with_wal("wal", "new", 1);
    s.open("view").execute_batch("CREATE VIEW v AS SELECT 1").unwrap();
    s.open("bare").execute_batch("PRAGMA user_version = 1").unwrap();
    fs::write(s.file("zero"), "").unwrap();
    fs::write(s.file("foreign"), "something of somebody's").unwrap();
    fs::create_dir(s.file("folder")).unwrap();
    symlink("nowhere", s.file("dangling")).unwrap();
    for full in ["full", "wal", "view", "foreign", "folder", "dangling"] {
        assert!(s.nonempty(full), "{full}");
    }
    for empty in ["none", "bare", "zero"] {
        assert!(!s.nonempty(empty), "{empty}");
    }
}

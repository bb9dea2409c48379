//! What a server may do in the middle, and what it may hold.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use mysql::prelude::Queryable;
use pullre::schema_clone::{CloneError, CloneOutcome, Phase, Request};
use testkit::mariadb::Mariadb;

use crate::world::{MINUTE, quoted, server_as, world, world_on};

/// More than a megabyte in one table, and small ones.
const SHOP: &str = "
CREATE TABLE big (id INT PRIMARY KEY, t CHAR(200), KEY (t)); INSERT INTO big SELECT seq, MD5(seq) FROM seq_1_to_20000;
CREATE TABLE a (id INT PRIMARY KEY); INSERT INTO a VALUES (1); CREATE TABLE b (id INT PRIMARY KEY, a INT, FOREIGN KEY (a) REFERENCES a (id));
CREATE FUNCTION f() RETURNS INT RETURN 1; CREATE VIEW v AS SELECT id, f() FROM b; CREATE PROCEDURE p() SELECT 1;
CREATE TRIGGER tr BEFORE INSERT ON a FOR EACH ROW SET @x = 1;
CREATE EVENT e ON SCHEDULE EVERY 1 DAY STARTS '2037-01-01' DISABLE DO SELECT 1;
ANALYZE TABLE big;";

#[test]
fn a_server_that_is_killed_in_each_phase_loses_no_clone() {
    let mut mariadb = Mariadb::start(&[
        "--character-set-client-handshake".to_owned(),
        "--innodb-flush-log-at-trx-commit=1".to_owned(),
    ])
    .unwrap();
    let server = server_as(mariadb.port(), "root", "");
    let (from, to) = ("src".parse().unwrap(), "dst".parse().unwrap());
    let mut admin = mariadb.administrator();
    let run = |admin: &mut mysql::Conn, sql: &str| {
        let mut answers = admin.query_iter(sql).unwrap();
        while let Some(rows) = answers.iter() {
            rows.for_each(|row| drop(row.unwrap()));
        }
    };
    run(
        &mut admin,
        &format!("SET NAMES utf8mb4; SET sql_mode = ''; CREATE DATABASE src; USE src; {SHOP}"),
    );
    let request = Request { keep_previous: true, ..Request::new(&from, &to, MINUTE) };
    server.clone_schema(&request, &mut |_| {}).unwrap();
    let phases = [
        Phase::Comparing,
        Phase::Creating,
        Phase::Copying,
        Phase::Linking,
        Phase::Verifying,
        Phase::Swapping,
    ];
    for phase in phases {
        let mut admin = mariadb.administrator();
        run(
            &mut admin,
            "SET sql_mode = ''; UPDATE dst.b SET a = NULL; CREATE TABLE dst.stray (id INT); INSERT INTO dst.stray VALUES (7)",
        );
        let mut killed = false;
        let outcome = server.clone_schema(&request, &mut |progress| {
            if progress.phase == phase && !killed {
                killed = true;
                mariadb.kill_and_restart().unwrap();
            }
        });
        assert!(killed, "{phase:?} was not reached");
        let error = outcome.unwrap_err().to_string();
        assert!(error.contains("dst") || error.contains("src"), "{phase:?}: {error}");
        // The old one is there, whole.
        let mut admin = mariadb.administrator();
        assert_eq!(admin.query_first("SELECT id FROM dst.stray").unwrap(), Some(7), "{phase:?}");
        assert_eq!(
            admin.query_first("SELECT COUNT(*) FROM dst.big").unwrap(),
            Some(20_000),
            "{phase:?}"
        );
        server.clone_schema(&request, &mut |_| {}).unwrap();
        let left: Vec<String> = admin.query("SHOW DATABASES LIKE '%~%'").unwrap();
        assert_eq!(left, ["dst~prev"], "{phase:?}");
        assert_eq!(
            admin.query_first("SELECT id FROM `dst~prev`.stray").unwrap(),
            Some(7),
            "{phase:?}"
        );
    }
}

#[test]
fn a_source_that_is_dropped_in_each_phase_leaves_the_old_clone() {
    let w = world();
    let to = w.name("to");
    for phase in
        [Phase::Comparing, Phase::Creating, Phase::Copying, Phase::Linking, Phase::Verifying]
    {
        let from = w.name(&format!("{phase:?}").to_lowercase());
        w.create(&from, SHOP);
        w.clone(&from, &to);
        w.outdate(&to);
        let before = w.dump(&to);
        let (source, destination) = (from.parse().unwrap(), to.parse().unwrap());
        let mut dropped = false;
        let outcome =
            w.server.clone_schema(&Request::new(&source, &destination, MINUTE), &mut |progress| {
                if progress.phase == phase && !dropped {
                    dropped = true;
                    w.conn().query_drop(format!("DROP DATABASE {}", quoted(&from))).unwrap();
                }
            });
        assert!(dropped, "{phase:?} was not reached");
        let error = outcome.unwrap_err();
        assert!(
            matches!(error, CloneError::SourceMissing { .. } | CloneError::SourceAltered { .. }),
            "{phase:?}: {error}"
        );
        assert_eq!(w.dump(&to), before, "{phase:?}");
        assert_eq!(w.names(), std::slice::from_ref(&to), "{phase:?}");
    }
}

/// A folder of its own, of so many megabytes. None where we may not make one.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new(megabytes: u32) -> Option<SmallDisk> {
        let folder = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "tmpfs"])
            .arg(folder.path())
            .output();
        mounted.is_ok_and(|output| output.status.success()).then_some(SmallDisk(folder))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // It goes with the machine at the latest.
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_of_the_server_is_named_and_the_old_clone_stays() {
    let Some(disk) = SmallDisk::new(400) else {
        println!("SKIPPED: only root can make a small disk");
        return;
    };
    let options = [
        "--character-set-client-handshake".to_owned(),
        "--innodb-temp-data-file-path=ibtmp1:4M:autoextend".to_owned(),
    ];
    let mariadb: &'static Mariadb =
        Box::leak(Box::new(Mariadb::start_in(disk.0.path(), &options).unwrap()));
    let mut w = world_on(mariadb);
    let (from, to) = (w.name("from"), w.name("to"));
    w.create(
        &from,
        "CREATE TABLE t (id INT PRIMARY KEY, filler CHAR(250)); INSERT INTO t VALUES (1, 'old')",
    );
    w.clone(&from, &to);
    w.sql(&from, "INSERT INTO t SELECT seq, REPEAT('x', 250) FROM seq_2_to_70000; ANALYZE TABLE t");
    // What is free now is less than what is needed.
    let fill = |megabytes: u64| {
        let file = fs::File::create(disk.0.path().join("filler")).unwrap();
        let mut written = 0;
        while written < megabytes << 20 && file.write_all_at(&[1; 65536], written).is_ok() {
            written += 65536;
        }
    };
    let free = || {
        let stat =
            Command::new("df").args(["-B1", "--output=avail"]).arg(disk.0.path()).output().unwrap();
        let text = String::from_utf8(stat.stdout).unwrap();
        text.lines().nth(1).unwrap().trim().parse::<u64>().unwrap()
    };
    fill((free() >> 20) - 12);
    let error = w.try_clone(&from, &to).unwrap_err();
    assert!(matches!(error, CloneError::NoSpace { free: Some(_), .. }), "{error}");
    // The server does not tell, and runs into it.
    fs::remove_file(disk.0.path().join("filler")).unwrap();
    w.sql(&from, "UPDATE t SET filler = REPEAT('y', 240) WHERE id < 100");
    let needed = w.number(
        &from,
        "SELECT data_length FROM information_schema.tables WHERE table_schema = DATABASE()",
    );
    // The estimate fits just so; files that grow in steps and undo logs do not.
    fill((free() - needed) / (1 << 20) - 1);
    println!("{} bytes are free, {needed} needed", free());
    match w.try_clone(&from, &to) {
        Err(error @ CloneError::NoSpace { free: None, .. }) => println!("{error}"),
        other => panic!("{other:?}"),
    }
    fs::remove_file(disk.0.path().join("filler")).unwrap();
    assert_eq!(w.number(&to, "SELECT COUNT(*) FROM t WHERE filler = 'old'"), 1);
    w.server.max_bytes = Some(1);
    assert!(matches!(w.try_clone(&from, &to), Err(CloneError::TooLarge { .. })));
    assert_eq!(w.names(), [from, to]);
}

#[test]
fn a_file_that_a_crash_of_the_server_left_of_a_table_is_taken_over() {
    let w = world();
    let (from, to) = (w.name("from"), w.name("to"));
    w.create(&from, "CREATE TABLE p (a INT) PARTITION BY HASH (a) PARTITIONS 2");
    w.clone(&from, &to);
    let data = w.mariadb.socket().with_file_name("data");
    let folder = |schema: &str| data.join(schema.replace('~', "@007e"));
    let leave = |schema: &str| {
        w.conn().query_drop(format!("CREATE DATABASE IF NOT EXISTS {}", quoted(schema))).unwrap();
        std::fs::copy(folder(&from).join("p.par"), folder(schema).join("p.par")).unwrap();
    };
    for end in ["~new", "~old"] {
        leave(&format!("{to}{end}"));
        w.outdate(&to);
        w.clone(&from, &to);
        w.assert_same(&from, &to);
        assert_eq!(w.names(), [from.clone(), to.clone()]);
    }
    w.conn().query_drop(format!("DROP DATABASE {}", quoted(&to))).unwrap();
    leave(&to);
    w.clone(&from, &to);
    w.assert_same(&from, &to);
}

#[test]
fn a_damaged_clone_is_named_with_what_makes_it_anew() {
    let w = world();
    let (from, to) = (w.name("from"), w.name("to"));
    w.create(&from, "CREATE TABLE t (a INT) ENGINE = MyISAM");
    w.clone(&from, &to);
    w.sql(&to, "FLUSH TABLES");
    let data = w.mariadb.socket().with_file_name("data");
    std::fs::remove_file(data.join(&to).join("t.MYI")).unwrap();
    let error = w.try_clone(&from, &to).unwrap_err().to_string();
    assert!(error.contains(&to) && error.contains("drop the schema"), "{error}");
    w.conn().query_drop(format!("DROP DATABASE {}", quoted(&to))).unwrap();
    w.clone(&from, &to);
    w.assert_same(&from, &to);
}

#[test]
fn a_table_that_is_corrupt_is_named() {
    let mariadb: &'static Mariadb = Box::leak(Box::new(
        Mariadb::start(&["--character-set-client-handshake".to_owned()]).unwrap(),
    ));
    let w = world_on(mariadb);
    let (from, to) = (w.name("from"), w.name("to"));
    w.create(&from, "CREATE TABLE fine (a INT); CREATE TABLE broken (a INT, t CHAR(200), KEY (a)) ENGINE = MyISAM");
    w.clone(&from, &to);
    w.sql(&from, "INSERT INTO broken SELECT seq, 'x' FROM seq_1_to_5000; FLUSH TABLES");
    let before = w.dump(&to);
    let index = mariadb.folder().join("data").join(&from).join("broken.MYI");
    let file = fs::OpenOptions::new().write(true).open(index).unwrap();
    file.write_all_at(&[0xee; 4096], 0).unwrap();
    w.sql(&from, "FLUSH TABLES");
    let error = w.try_clone(&from, &to).unwrap_err().to_string();
    assert!(error.contains("broken"), "{error}");
    assert_eq!(w.dump(&to), before);
    assert_eq!(w.names(), [from, to]);
}

#[test]
fn a_table_that_somebody_locks_is_waited_for_and_then_given_up() {
    let mut w = world();
    let (from, to) = (w.name("from"), w.name("to"));
    w.create(&from, SHOP);
    w.clone(&from, &to);
    w.sql(&from, "INSERT INTO a VALUES (2)");
    let before = w.dump(&to);
    let mut other = w.conn();
    other.query_drop(format!("LOCK TABLES {}.big WRITE", quoted(&from))).unwrap();
    w.server.workers = 2;
    let (source, destination) = (from.parse().unwrap(), to.parse().unwrap());
    let request = Request::new(&source, &destination, Duration::from_secs(3));
    let error = w.server.clone_schema(&request, &mut |_| {}).unwrap_err();
    assert!(matches!(error, CloneError::TimedOut { .. } | CloneError::Other { .. }), "{error}");
    assert_eq!(w.names(), [from.clone(), to.clone()]);
    // Let go of after a moment: the clone has only waited.
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(400));
            other.query_drop("UNLOCK TABLES").unwrap();
        });
        w.clone(&from, &to);
    });
    assert_ne!(w.dump(&to), before);
    w.assert_same(&from, &to);
    // Held for longer than it waits, where rows are copied: no table had its turn yet.
    let mut other = w.conn();
    other.query_drop(format!("LOCK TABLES {}.big WRITE", quoted(&from))).unwrap();
    let error = w.try_clone(&from, &w.name("nowhere")).unwrap_err();
    let told = error.to_string();
    assert!(told.contains("copying rows") && told.contains("holds a lock"), "{told}");
    assert_eq!(w.names(), [from, to]);
}

#[test]
fn a_busy_server_is_given_a_rest() {
    let mut w = world();
    let (from, to) = (w.name("from"), w.name("to"));
    w.create(&from, "CREATE TABLE t (a INT)");
    w.server.max_running = 4;
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| w.conn().query_drop("SELECT SLEEP(1.5)").unwrap());
        }
        thread::sleep(Duration::from_millis(500));
        let notes = w.clone(&from, &to).notes.join("\n");
        assert!(
            notes.contains("connections waited") && notes.contains("more than 4 statements"),
            "{notes}"
        );
    });
}

#[test]
fn parents_without_a_key_are_made_after_their_children() {
    let w = world();
    let (from, to) = (w.name("from"), w.name("to"));
    // As a schema that was loaded without checks has them.
    w.create(
        &from,
        "SET foreign_key_checks = 0;
         CREATE TABLE child (id INT PRIMARY KEY, p INT, t CHAR(200), CONSTRAINT odd FOREIGN KEY (p) REFERENCES aparent (code));
         CREATE TABLE aparent (id INT PRIMARY KEY, code INT, other INT);
         INSERT INTO child SELECT seq, seq, 'x' FROM seq_1_to_9000; INSERT INTO aparent VALUES (1, 1, 1);
         CREATE TABLE small (id INT PRIMARY KEY, p INT, CONSTRAINT odder FOREIGN KEY (p) REFERENCES bparent (code));
         CREATE TABLE bparent (id INT PRIMARY KEY, code INT); ANALYZE TABLE child",
    );
    w.clone(&from, &to);
    w.assert_same(&from, &to);
    // Beside another one and swapped, too.
    w.outdate(&to);
    w.clone(&from, &to);
    w.assert_same(&from, &to);
    assert_eq!(w.names(), [from, to]);
}

#[test]
fn what_the_login_may_not_see_is_told() {
    let mut w = world();
    let (from, to) = (w.name("from"), w.name("to"));
    w.create(&from, "CREATE TABLE a (id INT)");
    let user = w.name("u");
    let mut admin = w.conn();
    let pattern = |schema: &str| quoted(&schema.replace('_', "\\_"));
    admin
        .query_drop(format!(
            "CREATE USER {user}; GRANT SELECT, LOCK TABLES, SHOW VIEW ON {}.* TO {user}",
            pattern(&from)
        ))
        .unwrap();
    admin.query_drop(format!("GRANT ALL ON {}.* TO {user}", pattern(&to))).unwrap();
    w.server = server_as(w.mariadb.port(), &user, "");
    let notes = w.clone(&from, &to).notes.join("\n");
    for what in ["routines", "events", "triggers"] {
        assert!(
            notes.contains(&format!("{what} of `{from}` were left out if there are any")),
            "{notes}"
        );
    }
    admin
        .query_drop(format!("GRANT TRIGGER, EVENT, EXECUTE ON {}.* TO {user}", pattern(&from)))
        .unwrap();
    let notes = w.clone(&from, &to).notes.join("\n");
    assert!(!notes.contains("if there are any"), "{notes}");
}

#[test]
fn without_any_single_right_on_the_source_the_clone_is_made_or_the_right_is_missed() {
    lacking_one(&[], false);
}

#[test]
fn without_any_single_right_on_the_clone_it_is_made_or_the_right_is_missed() {
    lacking_one(&["", "~new", "~old", "~prev"], false);
}

#[test]
fn a_right_that_is_missing_only_where_the_clone_goes_is_missed_before_anything_is_touched() {
    lacking_one(&[""], false);
}

#[test]
fn a_right_that_is_missing_only_where_the_old_tables_go_is_missed_before_anything_is_touched() {
    lacking_one(&["~old"], false);
}

#[test]
fn a_right_that_is_missing_only_where_the_previous_clone_goes_is_missed_before_anything_is_touched()
{
    lacking_one(&["~prev"], true);
}

/// Every right that `update-pull grants` gives, taken away alone: on these of the clone's schemas, or,
/// where they are none, on the source.
fn lacking_one(places: &[&str], keep_previous: bool) {
    let mut w = world();
    w.keep_previous = keep_previous;
    let (from, to) = (w.name("from"), w.name("to"));
    w.create(&from, SHOP);
    w.clone(&from, &to);
    let user = w.name("u");
    let mut admin = w.conn();
    admin.query_drop(format!("CREATE USER {user}")).unwrap();
    w.server = server_as(w.mariadb.port(), &user, "");
    let source = ["SELECT", "LOCK TABLES", "SHOW VIEW", "TRIGGER", "EVENT", "EXECUTE"];
    let clone = [
        "SELECT",
        "INSERT",
        "UPDATE",
        "DELETE",
        "CREATE",
        "DROP",
        "ALTER",
        "INDEX",
        "REFERENCES",
        "LOCK TABLES",
        "CREATE VIEW",
        "SHOW VIEW",
        "TRIGGER",
        "CREATE ROUTINE",
        "ALTER ROUTINE",
        "EXECUTE",
        "EVENT",
    ];
    let pattern = |schema: &str| format!("{}.*", quoted(&schema.replace('_', "\\_")));
    let beside = ["", "~new", "~old", "~prev"];
    let beside = beside.map(|end| (places.contains(&end), pattern(&format!("{to}{end}"))));
    let own = pattern(&from);
    let rights: Vec<_> = match places {
        [] => source.iter().map(|right| (true, *right)).collect(),
        _ => clone.iter().map(|right| (false, *right)).collect(),
    };
    // Where all of it is made anew, and where some is exchanged and some is written.
    let part =
        "ALTER TABLE a COMMENT 'x'; CREATE TABLE stray (a INT); DELETE FROM big WHERE id = 1";
    let each = rights
        .into_iter()
        .flat_map(|(of_source, right)| [(of_source, right, true), (of_source, right, false)]);
    for (of_source, lacking, all) in each {
        if all {
            w.outdate(&to)
        } else {
            w.sql(&to, part)
        }
        admin.query_drop(format!("REVOKE ALL, GRANT OPTION FROM {user}")).unwrap();
        let but = |all: &[&str], lacks: bool| -> String {
            let kept: Vec<_> =
                all.iter().filter(|right| !lacks || **right != lacking).copied().collect();
            kept.join(", ")
        };
        admin.query_drop(format!("GRANT {} ON {own} TO {user}", but(&source, of_source))).unwrap();
        for (lacks, schema) in &beside {
            let granted = but(&clone, *lacks && !of_source);
            admin.query_drop(format!("GRANT {granted} ON {schema} TO {user}")).unwrap();
        }
        // The bodies of routines, and whoever runs them.
        admin.query_drop(format!("GRANT SELECT ON mysql.proc TO {user}")).unwrap();
        admin.query_drop(format!("GRANT SET USER ON *.* TO {user}")).unwrap();
        let before = w.dump(&to);
        let side = if of_source { "the source" } else { "the clone" };
        match w.try_clone(&from, &to) {
            Ok(outcome) => {
                println!("without {lacking} in {side}: {:?}", outcome.notes);
                // What is not the same is told.
                if !outcome.notes.iter().any(|note| note.contains("left out")) {
                    w.assert_same(&from, &to);
                }
            }
            Err(error) => {
                println!("without {lacking} in {side}: {error}");
                assert!(
                    matches!(
                        error,
                        CloneError::Forbidden { .. } | CloneError::SourceMissing { .. }
                    ),
                    "{lacking} in {side}: {error}"
                );
                assert!(
                    w.dump(&to) == before,
                    "{lacking} in {side}: the old clone is not what it was"
                );
            }
        }
        w.server = server_as(w.mariadb.port(), "root", "");
        w.clone(&from, &to);
        let mut names = w.names();
        names.retain(|name| !(keep_previous && name.ends_with("~prev")));
        assert_eq!(names, [from.clone(), to.clone()], "{lacking} in {side}");
        w.server = server_as(w.mariadb.port(), &user, "");
    }
}

#[test]
fn two_thousand_tables_are_copied_and_compared() {
    let w = world();
    let (from, to) = (w.name("from"), w.name("to"));
    let mut sql = String::new();
    for n in 0..2000 {
        let parent = if n == 0 { 0 } else { n - 1 };
        sql += &format!(
            "CREATE TABLE t{n} (id INT PRIMARY KEY, p INT, CONSTRAINT f{n} FOREIGN KEY (p) REFERENCES t{parent} (id));
             INSERT INTO t{n} VALUES ({n}, NULL);"
        );
    }
    w.create(&from, &sql);
    let (source, destination) = (from.parse().unwrap(), to.parse().unwrap());
    let request = Request::new(&source, &destination, 10 * MINUTE);
    for _ in 0..2 {
        let outcome = w.server.clone_schema(&request, &mut |_| {}).unwrap();
        assert_eq!((outcome.tables, outcome.rows), (2000, 2000));
    }
    w.outdate(&to);
    w.server.clone_schema(&request, &mut |_| {}).unwrap();
    w.sql(&to, "CREATE TABLE stray (a INT); ALTER TABLE t1990 ADD COLUMN more INT");
    let outcome = w.server.clone_schema(&request, &mut |_| {}).unwrap();
    assert_eq!((outcome.tables, outcome.rows), (2000, 2000));
    assert_eq!(w.number(&to, "SELECT SUM(id) FROM t1999"), 1999);
    assert_eq!(w.names(), [from, to]);
}

/// On demand: `PULLRE_BIG=1 cargo test -p pullre --test clone_mysql -- twenty_million --nocapture`
/// needs some 5 GB of disk under TMPDIR, and minutes. Another number than 1 is so many rows.
#[test]
fn twenty_million_rows_in_one_table() {
    let rows: u64 = match std::env::var("PULLRE_BIG").map(|n| n.parse()) {
        Err(_) => {
            println!("SKIPPED: PULLRE_BIG=1 asks for it");
            return;
        }
        Ok(Ok(1)) => 20_000_000,
        Ok(rows) => rows.expect("PULLRE_BIG is a number of rows"),
    };
    let options =
        ["--innodb-buffer-pool-size=512M".to_owned(), "--innodb-log-file-size=256M".to_owned()];
    let mariadb: &'static Mariadb =
        Box::leak(Box::new(Mariadb::start_in(&std::env::temp_dir(), &options).unwrap()));
    let w = world_on(mariadb);
    let (from, to) = (w.name("from"), w.name("to"));
    w.create(
        &from,
        &format!(
            "CREATE TABLE big (id INT PRIMARY KEY AUTO_INCREMENT, a INT, b CHAR(32), KEY (a), KEY (b));
             INSERT INTO big SELECT seq, seq * 7919 % 1000003, MD5(seq) FROM seq_1_to_{rows};
             ANALYZE TABLE big"
        ),
    );
    let (source, destination) = (from.parse().unwrap(), to.parse().unwrap());
    let request = Request::new(&source, &destination, 60 * MINUTE);
    let outcome =
        w.server.clone_schema(&request, &mut |progress| println!("{progress:?}")).unwrap();
    println!("{outcome:?}, at most {} kB in memory", memory());
    assert_eq!(outcome.rows, rows);
    assert!(memory() < 60_000, "the rows came to us");
}

/// The most that this process ever had, in kB.
fn memory() -> u64 {
    let status = fs::read_to_string(Path::new("/proc/self/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_foreign_key_of_another_schema_that_is_led_away_is_told_of() {
    let w = world();
    let (from, to, other) = (w.name("from"), w.name("to"), w.name("other"));
    w.create(&from, "CREATE TABLE t (id INT PRIMARY KEY); CREATE TABLE u (id INT PRIMARY KEY)");
    w.clone(&from, &to);
    let key = format!("CONSTRAINT away FOREIGN KEY (id) REFERENCES {}.t (id)", quoted(&to));
    w.create(&other, &format!("CREATE TABLE x (id INT, {key})"));
    w.sql(&from, "ALTER TABLE u ADD COLUMN a INT");
    let told = |outcome: CloneOutcome| {
        let table = format!("the foreign key `away` of `{other}`.`x`");
        outcome.notes.iter().any(|note| note.contains(&table))
    };
    assert!(!told(w.clone(&from, &to)), "its table has stayed");
    w.sql(&from, "ALTER TABLE t ADD COLUMN a INT");
    assert!(told(w.clone(&from, &to)));
    w.assert_same(&from, &to);
}

#[test]
fn a_view_that_can_be_made_beside_and_not_in_its_place_is_told_of() {
    let w = world();
    let (from, to, user) = (w.name("from"), w.name("to"), w.name("u"));
    w.create(&from, "CREATE TABLE t (a INT)");
    w.conn().query_drop(format!("CREATE USER {user}")).unwrap();
    for schema in [&from, &format!("{to}~new")] {
        let schema = quoted(&schema.replace('_', "\\_"));
        w.conn().query_drop(format!("GRANT SELECT ON {schema}.* TO {user}")).unwrap();
    }
    w.clone(&from, &to);
    w.sql(&from, &format!("CREATE DEFINER = {user} VIEW v AS SELECT a FROM t"));
    w.sql(&from, "CREATE VIEW upon AS SELECT a FROM v");
    let notes = w.clone(&from, &to).notes;
    assert!(notes.iter().any(|note| note.contains("view `upon` was left out")), "{notes:?}");
}

//! What a kill or a full disk leaves behind.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use pullre::schema_clone::{Request, sqlite};

use super::{MINUTE, content, name, schemas};

/// Not a test of its own: the child process of the tests below, which clones over and over until
/// it is killed or fails.
#[test]
fn child_process() {
    let Ok(dir) = std::env::var("PULLRE_TEST_CLONE_DIR") else {
        return;
    };
    for source in ["a", "b"].iter().cycle() {
        let (source, stg1) = (name(source), name("stg1"));
        if let Err(error) =
            sqlite::clone(Path::new(&dir), &Request::new(&source, &stg1, MINUTE), &mut |_| {})
        {
            println!("{error:?}");
            std::process::exit(3);
        }
    }
}

fn child(dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["crash::child_process", "--exact", "--nocapture"])
        .env("PULLRE_TEST_CLONE_DIR", dir);
    command
}

#[test]
fn a_kill_at_any_moment_leaves_the_old_content_or_the_new_one_whole() {
    let s = schemas().with_wal("a", "a", 4000).with("b", "b", 5000).with("stg1", "old", 100);
    let whole = [("a".to_owned(), 4000), ("b".to_owned(), 5000), ("old".to_owned(), 100)];
    let seed = match std::env::var("PULLRE_TEST_SEED") {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => {
            let now = SystemTime::UNIX_EPOCH.elapsed().unwrap();
            now.as_nanos() as u64 | 1
        }
    };
    println!("PULLRE_TEST_SEED={seed}");
    let mut random = seed;
    let started = Instant::now();
    s.clone("b", "stg1").unwrap();
    let usual = started.elapsed().as_micros() as u64;

    let aside = tempfile::tempdir().unwrap();
    let (mut unfinished, mut replaced) = (0, 0);
    for round in 0..25 {
        // xorshift
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let mut running = child(s.dir()).stdout(Stdio::null()).spawn().unwrap();
        // The child needs a moment to start; then it clones several times.
        thread::sleep(Duration::from_micros(5000 + random % (usual * 3)));
        running.kill().unwrap();
        assert_eq!(running.wait().unwrap().code(), None, "round {round}: it died by itself");

        let building = s.dir().join(".stg1.building").exists();
        unfinished += u32::from(building);
        let db = s.open("stg1");
        let found = content(&db);
        assert!(whole.contains(&found), "round {round}: {found:?}");
        let one = |sql: &str| db.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap();
        assert_eq!(one("PRAGMA integrity_check"), "ok", "round {round}");
        let touched = "SELECT count(*) || '' FROM t WHERE filler = 'seen'";
        replaced += u32::from(one(touched) == "0");

        // The app works on it in WAL mode and is killed, which leaves its side files.
        db.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0;
             UPDATE t SET filler = 'seen' WHERE id = 1",
        )
        .unwrap();
        for side in ["", "-wal"] {
            fs::copy(
                s.dir().join(format!("stg1.db{side}")),
                aside.path().join(format!("kept{side}")),
            )
            .unwrap();
        }
        drop(db);
        for side in ["", "-wal"] {
            fs::copy(
                aside.path().join(format!("kept{side}")),
                s.dir().join(format!("stg1.db{side}")),
            )
            .unwrap();
        }
        if round % 3 == 0 {
            s.clone("b", "stg1").unwrap();
            assert_eq!(s.content("stg1"), whole[1]);
        }
    }
    println!("of 25 kills {unfinished} came in the middle, {replaced} after the first rename");
    assert!(unfinished > 0, "no kill came in the middle of a clone");
    assert_eq!(s.content("a"), whole[0]);
    assert_eq!(s.content("b"), whole[1]);
}

#[test]
fn a_full_disk_leaves_the_old_content_and_says_what_is_needed() {
    let s = schemas().with("a", "new", 4000).with("stg1", "old", 100);
    // A file system of its own that is gone with the child: needs user namespaces.
    const SCRIPT: &str = r#"
        mount -t tmpfs -o size=6m none "$PULLRE_TEST_CLONE_DIR" || exit 77
        cp a.db stg1.db "$PULLRE_TEST_CLONE_DIR"
        "$@"
        echo "exit status $?"
        ls -A "$PULLRE_TEST_CLONE_DIR"
        cmp stg1.db "$PULLRE_TEST_CLONE_DIR/stg1.db" && echo unchanged
    "#;
    let small = tempfile::tempdir().unwrap();
    let child = child(small.path());
    let output = Command::new("unshare")
        .args(["--mount", "--map-root-user", "sh", "-c", SCRIPT, "sh"])
        .arg(child.get_program())
        .args(child.get_args())
        .env("PULLRE_TEST_CLONE_DIR", small.path())
        .current_dir(s.dir())
        .output();
    let said = match &output {
        Ok(output) => String::from_utf8_lossy(&output.stdout),
        Err(_) => "".into(),
    };
    if !said.contains("exit status") {
        eprintln!("skipped, no file system can be mounted here: {output:?}");
        return;
    }
    assert!(said.contains("NoSpace"), "{said}");
    assert!(said.ends_with("exit status 3\na.db\nstg1.db\nunchanged\n"), "{said}");
}

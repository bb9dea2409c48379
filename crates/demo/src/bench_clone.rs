//! What `scripts/bench clone` measures: schema clones on a MariaDB of their own, on the disk, with
//! the server's default durability, beside `mariadb-dump | mariadb`.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::bench::{ROUNDS, Subject, print};
use crate::installation::Installation;

/// How long the server may go on after a subject, and how long it then rests before the next.
const SETTLED: Duration = Duration::from_secs(120);
const REST: Duration = Duration::from_secs(1);

struct Server {
    folder: PathBuf,
    process: Child,
}

impl Server {
    fn start(folder: &Path) -> Result<Server> {
        let folder = folder.join("mariadb");
        let data = folder.join("data");
        fs::create_dir_all(&folder)?;
        let id = Command::new("id").arg("-un").output()?;
        let user = String::from_utf8_lossy(&id.stdout).trim().to_owned();
        let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
        let log = || fs::File::create(folder.join("log"));
        let installed = Command::new("mariadb-install-db")
            .args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"])
            .args([format!("--datadir={}", data.display()), format!("--user={user}")])
            .env("PATH", &path)
            .stdout(log()?)
            .status()
            .context("scripts/bench clone needs mariadb-server")?;
        ensure!(installed.success(), "mariadb-install-db failed: {installed}");
        let process = Command::new("mariadbd")
            .args(["--no-defaults", "--skip-networking", "--innodb-buffer-pool-size=1G"])
            .args(["--innodb-log-file-size=512M", &format!("--user={user}")])
            .arg(format!("--datadir={}", data.display()))
            .arg(format!("--socket={}", folder.join("sock").display()))
            .arg(format!("--pid-file={}", folder.join("pid").display()))
            .env("PATH", &path)
            .stderr(log()?)
            .spawn()?;
        let server = Server { folder, process };
        for _ in 0..600 {
            if server.sql("SELECT 1").is_ok() {
                return Ok(server);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        bail!("mariadbd does not come up; see {}", server.folder.join("log").display())
    }

    fn socket(&self) -> String {
        self.folder.join("sock").display().to_string()
    }

    fn client(&self) -> String {
        format!("--no-defaults --user=root --socket='{}'", self.socket())
    }

    fn sql(&self, sql: &str) -> Result<()> {
        self.answer(sql).map(drop)
    }

    fn answer(&self, sql: &str) -> Result<String> {
        let mut client = Command::new("mariadb")
            .args(["--no-defaults", "--user=root", "--batch", "--skip-column-names"])
            .arg(format!("--socket={}", self.socket()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        client.stdin.take().context("a pipe")?.write_all(sql.as_bytes())?;
        let output = client.wait_with_output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Waits until what was measured before costs nothing any more: within a second InnoDB purges
    /// what was dropped, under the lock of the dictionary in which tables are made, and the disk is
    /// told of what was deleted.
    fn settle(&self) -> Result<()> {
        const LEFT: &str = "SELECT variable_value FROM information_schema.global_status
             WHERE variable_name = 'Innodb_history_list_length'";
        let began = Instant::now();
        while self.answer(LEFT)?.trim() != "0" {
            ensure!(
                began.elapsed() < SETTLED,
                "the server goes on purging: {}",
                self.answer(LEFT)?
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        ensure!(Command::new("sync").status()?.success(), "sync failed");
        std::thread::sleep(REST);
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Its folder goes with it; what is in it is of no use any more.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// How a schema's tables are made; each refers to the one before it, where it has a key for that.
struct Tables {
    count: u32,
    rows: u32,
    /// Times 32 letters: a row's text.
    words: u32,
    /// For each table in turn.
    keys: &'static [u32],
    /// How often all is measured: what is short is moved more by whatever else uses the disk.
    rounds: usize,
}

/// Two secondary keys on average, one of them for a foreign key.
const USUAL: &[u32] = &[0, 1, 2, 3, 4];
const SEVEN: &[u32] = &[7];

impl Tables {
    fn sql(&self) -> String {
        let mut sql = String::new();
        for (n, keys) in (0..self.count).zip(self.keys.iter().cycle()) {
            let parent = n.saturating_sub(1);
            let link = match keys {
                0 => String::new(),
                _ => format!(
                    ", KEY parent (parent), CONSTRAINT f{n} FOREIGN KEY (parent) REFERENCES t{parent} (id)"
                ),
            };
            let keys: String = (1..*keys).map(|k| format!(", KEY k{k} (c{}, id)", k % 4)).collect();
            let Tables { rows, words, .. } = self;
            sql += &format!(
                "CREATE TABLE t{n} (id INT PRIMARY KEY AUTO_INCREMENT, parent INT, c0 INT, c1 VARCHAR(60),
                    c2 DATETIME, c3 DECIMAL(12, 2), body VARCHAR(2000){keys}{link});
                 INSERT INTO t{n} SELECT seq, 1, seq * 7919 % 10007, MD5(seq), '2026-01-01' + INTERVAL seq MINUTE,
                    seq / 7, REPEAT(MD5(seq), {words}) FROM seq_1_to_{rows};\n"
            );
        }
        sql
    }

    /// One row of each is made another one.
    fn change(&self, schema: &str) -> String {
        (0..self.count)
            .map(|n| format!("UPDATE {schema}.t{n} SET c0 = c0 + 1 WHERE id = 5;"))
            .collect()
    }
}

/// These tables are defined otherwise.
fn alter(schema: &str, tables: impl Iterator<Item = u32>) -> String {
    tables.map(|n| format!("ALTER TABLE {schema}.t{n} ADD COLUMN more INT;")).collect()
}

fn fill(server: &Server, schema: &str, tables: &str) -> Result<()> {
    server.sql(&format!(
        "CREATE DATABASE {schema} CHARACTER SET utf8mb4; USE {schema}; SET foreign_key_checks = 0;\n{tables}"
    ))?;
    // Sizes are estimated from what this counts.
    let client = server.client();
    let count = format!("mariadb-check {client} --analyze --silent {schema}");
    ensure!(Command::new("sh").args(["-c", &count]).status()?.success(), "no sizes of {schema}");
    Ok(())
}

/// What is measured, if not one alone.
pub const SCHEMAS: [&str; 3] = ["s", "keyed", "m"];

pub fn run(folder: &Path, only: Option<&str>) -> Result<()> {
    fs::create_dir_all(folder)?;
    let folder = folder.canonicalize()?;
    let measured = measure(&folder, only);
    measured.and(fs::remove_dir_all(&folder).context("cannot clean up"))
}

fn measure(folder: &Path, only: Option<&str>) -> Result<()> {
    let server = Server::start(folder)?;
    let pullre = Installation::at(folder)?;
    let ini = folder.join("app.ini");
    fs::write(
        &ini,
        format!(
            "owner = acme\nrepo = shop\ntoken = none\ncompute = local\nmysql_host = {}\n\
             mysql_user = root\nmysql_db = pullre\n",
            server.socket()
        ),
    )?;
    server.sql("CREATE DATABASE pullre CHARACTER SET utf8mb4")?;
    pullre.run("update-pull", &["init"])?;
    pullre.run("update-pull", &["server", "register", "stg1"])?;
    pullre.run("update-pull", &["server", "set", "stg1", "db_schema=stg1"])?;

    let s = Tables { count: 60, rows: 79, words: 20, keys: USUAL, rounds: 5 * ROUNDS };
    let keyed = Tables { count: 60, rows: 79, words: 3, keys: SEVEN, rounds: 5 * ROUNDS };
    let m = Tables { count: 39, rows: 10_000, words: 3, keys: USUAL, rounds: ROUNDS };
    // One after the other: what one leaves in the server's memory is not what the next pays for.
    let [s_name, keyed_name, m_name] = SCHEMAS;
    let all = [
        (s_name, s, "S: 60 tables, 4,740 rows"),
        (keyed_name, keyed, "S with seven keys and a foreign key on each table"),
        (m_name, m, "M: 40 tables, 1.0 million rows"),
    ];
    for (schema, tables, what) in all {
        if only.is_some_and(|only| only != schema) {
            continue;
        }
        let big = if schema == m_name { BIG } else { "" };
        fill(&server, schema, &(tables.sql() + big))?;
        compare(folder, &server, &pullre, schema, &tables, what)?;
        server.sql(&format!("DROP DATABASE {schema}; DROP DATABASE stg1; DROP DATABASE dumped"))?;
    }
    Ok(())
}

/// 64% of M.
const BIG: &str = "CREATE TABLE big (id INT PRIMARY KEY AUTO_INCREMENT, a INT, b VARCHAR(60), body VARCHAR(600),
    KEY a (a), KEY b (b)); INSERT INTO big SELECT seq, seq * 7919 % 1000003, MD5(seq), REPEAT(MD5(seq), 7)
    FROM seq_1_to_610000;\n";

fn compare(
    folder: &Path,
    server: &Server,
    pullre: &Installation,
    schema: &str,
    tables: &Tables,
    what: &str,
) -> Result<()> {
    let size = server.answer(&format!(
        "SELECT ROUND(SUM(data_length + index_length) / 1e6) FROM information_schema.tables WHERE table_schema = '{schema}'"
    ))?;

    let update = pullre.binary("update-pull").display().to_string();
    let ini = folder.join("app.ini").display().to_string();
    let clone = [&update[..], "--config", &ini, "clone-schema", schema, "stg1"];
    let client = server.client();
    let dump = format!(
        "mariadb {client} -e 'DROP DATABASE IF EXISTS dumped; CREATE DATABASE dumped' &&
         mariadb-dump {client} --single-transaction --routines --events --triggers {schema} |
         mariadb {client} dumped"
    );
    let copied = folder.join("copied").display().to_string();
    let files =
        format!("cp -r '{}' '{copied}' && sync", server.folder.join("data").join(schema).display());
    let parallel = folder.join("mydumper").display().to_string();
    // Its programs have options of their own for the same.
    let words = format!("--user=root --socket='{}' --threads=2", server.socket());
    let mydumper = format!(
        "rm -rf '{parallel}' && mydumper {words} --database={schema} --outputdir='{parallel}' \
             --triggers --routines --events --verbose=1 &&
         mariadb {client} -e 'DROP DATABASE IF EXISTS dumped; CREATE DATABASE dumped' &&
         myloader {words} --directory='{parallel}' --database=dumped --overwrite-tables --verbose=1"
    );
    let every = tables.change("stg1");
    let all_altered = alter("stg1", 0..tables.count);
    // What a branch may do to its clone; the app wrote a few rows, too.
    let migrated = alter("stg1", [7, 14, 20].into_iter())
        + "CREATE TABLE stg1.later (id INT PRIMARY KEY, FOREIGN KEY (id) REFERENCES stg1.t2 (id));
           UPDATE stg1.t3 SET c0 = 0; UPDATE stg1.t9 SET c0 = 0";
    let ours = |name: &str| Subject::new(&format!("clone-schema, {name}"), 1, &clone);
    let mut subjects = vec![
        (Subject::new("mariadb-dump --single-transaction, mariadb", 1, &["sh", "-c", &dump]), None),
        (ours("nothing there"), Some("DROP DATABASE IF EXISTS stg1")),
        (ours("over one, every table is defined otherwise"), Some(&all_altered[..])),
        (ours("over one, a migration ran and rows were written"), Some(&migrated[..])),
        (ours("over one, every small table differs"), Some(&every[..])),
        (ours("nothing differs"), None),
        (ours("one small table differs"), Some("UPDATE stg1.t7 SET c0 = 0 WHERE id = 5")),
        (Subject::new("cp of the server's files, sync", 1, &["sh", "-c", &files]), None),
    ];
    match Command::new("mydumper").arg("--version").stdout(Stdio::null()).status() {
        Ok(status) if status.success() => {
            let name = "mydumper, myloader, 2 threads";
            subjects.push((Subject::new(name, 1, &["sh", "-c", &mydumper]), None));
        }
        _ => println!("mydumper is not installed: it is not compared"),
    }
    for _ in 0..tables.rounds {
        for (subject, before) in &mut subjects {
            if let Some(sql) = before {
                server.sql(sql)?;
            }
            if fs::exists(&copied)? {
                fs::remove_dir_all(&copied)?;
            }
            server.settle()?;
            subject.round()?;
        }
    }
    let subjects: Vec<_> = subjects.into_iter().map(|(subject, _)| subject).collect();
    let title = format!("A MySQL clone of {what}, {} MB", size.trim());
    print(&title, &subjects, "wall_ms");
    Ok(())
}

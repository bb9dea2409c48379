//! The team's app: a guest book in a git repository, and the developers' databases.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

const APP: &str = r#"#!/usr/bin/env python3
"""A guest book: shows the commit it was started from and the guests of its database."""
import html, http.server, os, sqlite3, subprocess

greeting = open("greeting.txt").read().strip()
commit = subprocess.check_output(["git", "rev-parse", "HEAD"], text=True).strip()

class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        with sqlite3.connect(os.environ["PULLRE_DB_FILE"]) as db:
            guests = [name for (name,) in db.execute("SELECT name FROM guests ORDER BY name")]
        page = f"<h1>{html.escape(greeting)}</h1><p>Commit {commit}</p><ul>" + "".join(
            f"<li>{html.escape(guest)}</li>" for guest in guests) + "</ul>\n"
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(page.encode())

    def log_message(self, *_):
        pass

http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Page).serve_forever()
"#;

const MIGRATE: &str = r#"#!/usr/bin/env python3
"""Brings the database up to this commit; runs before each start."""
import glob, os, sqlite3

with sqlite3.connect(os.environ["PULLRE_DB_FILE"]) as db:
    for file in sorted(glob.glob("migrations/*.sql")):
        print("applying", file)
        db.executescript(open(file).read())
"#;

/// The team's repository as developers and staging servers see it.
#[derive(Debug)]
pub struct Origin {
    /// Bare, as on a git server.
    pub url: PathBuf,
    /// A developer's clone.
    work: PathBuf,
}

impl Origin {
    pub fn at(folder: &Path) -> Origin {
        Origin { url: folder.join("origin.git"), work: folder.join("developer") }
    }

    pub fn create(&self) -> Result<()> {
        run_git(Path::new("."), &["init", "--quiet", "--bare", &text(&self.url)])?;
        run_git(Path::new("."), &["init", "--quiet", "--initial-branch=main", &text(&self.work)])?;
        fs::write(self.work.join("app.py"), APP)?;
        fs::write(self.work.join("migrate.py"), MIGRATE)?;
        fs::write(self.work.join("greeting.txt"), "Welcome\n")?;
        fs::create_dir(self.work.join("migrations"))?;
        fs::write(
            self.work.join("migrations/1.sql"),
            "CREATE TABLE IF NOT EXISTS guests (name TEXT);\n",
        )?;
        self.git(&["remote", "add", "origin", &text(&self.url)])?;
        self.commit("A guest book")?;
        self.git(&["push", "--quiet", "origin", "main"])
    }

    /// A commit on top of `branch` (or of main where it is new) that changes the greeting and
    /// adds a migration. Returns its id.
    pub fn change(&self, branch: &str, greeting: &str, migration: &str) -> Result<String> {
        let start = if self.git(&["rev-parse", "--quiet", "--verify", branch]).is_ok() {
            branch
        } else {
            "main"
        };
        self.git(&["checkout", "--quiet", "-B", branch, start])?;
        fs::write(self.work.join("greeting.txt"), format!("{greeting}\n"))?;
        let next = fs::read_dir(self.work.join("migrations"))?.count() + 1;
        fs::write(self.work.join(format!("migrations/{next}.sql")), format!("{migration}\n"))?;
        self.commit(greeting)?;
        self.git(&["push", "--quiet", "--force", "origin", branch])?;
        Ok(run_git(&self.work, &["rev-parse", "HEAD"])?.trim().to_owned())
    }

    /// A commit on top of `branch` (or of main where it is new) with one file changed; its id.
    pub fn edit(&self, branch: &str, file: &str, text: &str) -> Result<String> {
        let is_new = self.git(&["rev-parse", "--quiet", "--verify", branch]).is_err();
        if is_new {
            self.git(&["checkout", "--quiet", "-b", branch, "main"])?;
        }
        fs::write(self.work.join(file), text)?;
        self.git(&["add", "--", file])?;
        self.git(&["commit", "--quiet", "-m", text.trim()])?;
        self.git(&["push", "--quiet", "--force", "origin", branch])?;
        Ok(run_git(&self.work, &["rev-parse", "HEAD"])?.trim().to_owned())
    }

    /// Many files that do not compress, a hundred in each folder.
    pub fn fill(&self, files: usize, bytes: usize) -> Result<()> {
        let mut random = fs::File::open("/dev/urandom")?;
        let mut content = vec![0; bytes];
        for n in 0..files {
            let folder = self.work.join(format!("bulk/{:04}", n / 100));
            fs::create_dir_all(&folder)?;
            random.read_exact(&mut content)?;
            fs::write(folder.join(format!("{n:04}.bin")), &content)?;
        }
        self.commit("Much")?;
        self.git(&["push", "--quiet", "origin", "main"])
    }

    /// What GitHub does by itself: the head of a pull request has a name of its own.
    pub fn point_pull(&self, number: u32, sha: &str) -> Result<()> {
        run_git(&self.url, &["update-ref", &format!("refs/pull/{number}/head"), sha]).map(drop)
    }

    fn commit(&self, message: &str) -> Result<()> {
        self.git(&["add", "--all"])?;
        self.git(&["commit", "--quiet", "--allow-empty", "-m", message])
    }

    fn git(&self, args: &[&str]) -> Result<()> {
        run_git(&self.work, args).map(drop)
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Nobody's own settings change what the demo does.
fn run_git(folder: &Path, args: &[&str]) -> Result<String> {
    let output = Command::new("git")
        .args(["-c", "user.name=demo", "-c", "user.email=demo@example.com"])
        .args(args)
        .current_dir(folder)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env_remove("GIT_DIR")
        .env_remove("GIT_WORK_TREE")
        .output()
        .context("cannot run git; scripts/setup installs it")?;
    if !output.status.success() {
        bail!("git {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A developer's database with guests that only they have.
pub fn create_schema(file: &Path, guests: &[&str]) -> Result<()> {
    let db = rusqlite::Connection::open(file)?;
    db.execute_batch("CREATE TABLE guests (name TEXT)")?;
    for guest in guests {
        db.execute("INSERT INTO guests VALUES (?)", [guest])?;
    }
    Ok(())
}

/// The names of the tables in a database.
pub fn tables(file: &Path) -> Result<Vec<String>> {
    let db = rusqlite::Connection::open(file)?;
    let mut statement =
        db.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")?;
    let names = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    Ok(names)
}

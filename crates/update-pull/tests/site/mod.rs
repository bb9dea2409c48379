//! An installation as its operator has it before them.

// Not every test binary needs all of it.
#![allow(dead_code)]

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use testkit::github::{FakeGithub, PullSpec};

/// A folder with an app.ini, and a GitHub.
pub struct Site {
    pub folder: tempfile::TempDir,
    pub github: FakeGithub,
}

impl Site {
    /// Configured, but without control tables.
    pub fn bare() -> Site {
        let site = Site { folder: tempfile::tempdir().unwrap(), github: FakeGithub::start() };
        site.write_ini_more("");
        site
    }

    /// With a server stg1 and alice, who has a database.
    pub fn new() -> Site {
        let site = Site::bare();
        site.run("init");
        site.schema("dev_alice");
        site.run("user set alice dev_alice");
        site.run("server register stg1");
        site.run("server set stg1 db_schema=stg1 check_url=http://127.0.0.1:8001/");
        site
    }

    /// The configuration with these lines too.
    pub fn write_ini_more(&self, text: &str) {
        let (url, token) = (self.github.url(), self.github.token());
        self.write_ini(&format!(
            "owner = acme\nrepo = shop\ntoken = {token}\ngithub_api_url = {url}\n{text}"
        ));
    }

    /// Nobody else reads its secrets.
    pub fn private(&self) {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(self.path("app.ini"), fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// Somebody writes into the control database without asking us.
    pub fn by_hand(&self, sql: &str) {
        let database = rusqlite::Connection::open(self.path("pullre.db")).unwrap();
        database.execute_batch(sql).unwrap();
    }

    pub fn write_ini(&self, text: &str) {
        fs::write(self.path("app.ini"), text).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn schema(&self, name: &str) {
        fs::create_dir_all(self.path("schemas")).unwrap();
        let file = self.path(&format!("schemas/{name}.db"));
        let database = rusqlite::Connection::open(file).unwrap();
        database.execute_batch("CREATE TABLE notes (text TEXT)").unwrap();
    }

    pub fn open_pull(&self, author: &str) -> u32 {
        let spec = PullSpec { author: author.into(), ..PullSpec::titled("A warmer welcome") };
        self.github.change(|world| world.open(spec))
    }

    pub fn command(&self, words: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_update-pull"));
        command.current_dir(&self.folder).args(words.split_whitespace());
        command.env("USER", "olga").env_remove("SUDO_USER").env_remove("PULLRE_CONFIG");
        command
    }

    /// Runs it; the exit status, stdout and stderr as one text, without what differs each time.
    pub fn run(&self, words: &str) -> String {
        let output = self.command(words).output().unwrap();
        let mut text = format!("exit {}\n", output.status.code().unwrap());
        for (name, stream) in [("", output.stdout), ("stderr: ", output.stderr)] {
            for line in String::from_utf8(stream).unwrap().lines() {
                text.push_str(&format!("{name}{}\n", self.timeless(line)));
            }
        }
        text
    }

    pub fn timeless(&self, line: &str) -> String {
        let folder = self.folder.path().to_str().unwrap();
        let moment = |word: &str| {
            let word = word.trim_matches(|c: char| "\",.;:()".contains(c));
            const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
            if DAYS.contains(&word) {
                return true;
            }
            word.len() >= 5
                && word.chars().all(|c| c.is_ascii_digit() || "-:TZ.".contains(c))
                && word.contains(['-', ':'])
        };
        // What is done takes as long as it takes.
        let short = |word: &str| word.len() == 3 && word.starts_with(|c: char| c.is_ascii_digit());
        let mut before = "";
        let mut words = Vec::new();
        for word in line.split(' ') {
            let took = before == "in" && short(word) && word.contains('.');
            words.push(if took {
                "0.0"
            } else if moment(word) {
                "TIME"
            } else {
                word
            });
            before = word;
        }
        words.join(" ").replace(folder, "DIR").replace(&self.github.url(), "GITHUB")
    }
}

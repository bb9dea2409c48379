//! The controller where everything is on one MySQL server.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::process::Command;

use mysql::prelude::Queryable;
use pullre::config::DatabaseConfig;
use testkit::github::{FakeGithub, PullSpec};
use testkit::mariadb::Mariadb;

struct Site {
    folder: tempfile::TempDir,
    ini: String,
    github: FakeGithub,
}

impl Site {
    fn new() -> Site {
        let DatabaseConfig::Mysql { host, port, user, name, .. } = Mariadb::shared().database()
        else {
            panic!("MySQL")
        };
        let (folder, github) = (tempfile::tempdir().unwrap(), FakeGithub::start());
        let (url, token) = (github.url(), github.token());
        let ini = format!(
            "owner = acme\nrepo = shop\ntoken = {token}\ngithub_api_url = {url}\ncompute = local\n\
             mysql_host = {host}\nmysql_port = {port}\nmysql_user = {user}\nmysql_db = {name}\n"
        );
        let site = Site { folder, ini, github };
        site.more("");
        site
    }

    /// app.ini with these lines too.
    fn more(&self, lines: &str) {
        fs::write(self.folder.path().join("app.ini"), format!("{}{lines}", self.ini)).unwrap();
    }

    fn mask(&self, rules: &str) {
        fs::write(self.folder.path().join("mask"), rules).unwrap();
    }

    fn run(&self, words: &str) -> (i32, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_update-pull"))
            .current_dir(&self.folder)
            .args(words.split_whitespace())
            .env("USER", "olga")
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(said).unwrap())
    }

    fn done(&self, words: &str) -> String {
        let (code, said) = self.run(words);
        assert_eq!(code, 0, "{words}: {said}");
        said
    }
}

#[test]
fn an_environment_gets_its_clone_and_nothing_of_strangers_is_overwritten() {
    let site = Site::new();
    let mut admin = Mariadb::shared().administrator();
    for sql in [
        "CREATE DATABASE dev_alice",
        "CREATE TABLE dev_alice.notes (text VARCHAR(20) PRIMARY KEY)",
        "INSERT INTO dev_alice.notes VALUES ('first')",
        "CREATE DATABASE stg1",
        "CREATE TABLE stg1.precious (text VARCHAR(20))",
    ] {
        admin.query_drop(sql).unwrap();
    }
    let mut notes = move || -> Vec<String> {
        admin.query("SELECT text FROM stg1.notes ORDER BY text").unwrap_or_default()
    };
    site.done("init");
    site.done("user set alice dev_alice");
    site.done("server register stg1");
    site.done("server set stg1 db_schema=stg1 check_url=http://127.0.0.1:8001/");
    let spec = PullSpec { author: "alice".into(), ..PullSpec::titled("A warmer welcome") };
    site.github.change(|world| world.open(spec));

    let (code, said) = site.run("tick");
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("holds something that pullre did not make"), "{said}");
    assert!(notes().is_empty());

    site.done("server take-over stg1");
    site.done("pull redeploy 1");
    let said = site.done("tick");
    assert!(said.contains("1 tables"), "{said}");
    assert_eq!(notes(), ["first"]);

    let mut admin = Mariadb::shared().administrator();
    admin.query_drop("INSERT INTO dev_alice.notes VALUES ('second')").unwrap();
    admin.query_drop("INSERT INTO stg1.notes VALUES ('of the app')").unwrap();
    site.done("pull reset-db 1");
    site.done("tick");
    assert_eq!(notes(), ["first", "second"]);

    site.done("server register stg2");
    site.done("server set stg2 db_schema=stg2");
    let said = site.done("clone-schema dev_alice stg2 --json --workers 2");
    assert!(said.contains("\"consistency\": \"snapshot\""), "{said}");
    let (code, said) = site.run("clone-schema dev_alice stg2 --workers 33");
    assert_eq!(code, 2, "{said}");

    // What a reset replaced comes back; the rules of a mask make all clones anew.
    site.more("keep_previous = yes\n");
    admin.query_drop("INSERT INTO stg1.notes VALUES ('entered')").unwrap();
    site.done("pull reset-db 1");
    site.done("tick");
    assert_eq!(notes(), ["first", "second"]);
    site.done("pull reset-db 1 --undo");
    let plan = site.done("plan");
    assert!(plan.contains("asked for by a person"), "{plan}");
    let said = site.done("tick");
    assert!(said.contains("bring the previous data of stg1 back"), "{said}");
    assert_eq!(notes(), ["entered", "first", "second"]);
    site.mask("notes.text = concat('hidden ', left(md5(text), 5))\n");
    site.more("keep_previous = yes\nmask_file = mask\n");
    site.done("tick");
    let hidden = notes();
    assert!(
        hidden.len() == 2 && hidden.iter().all(|text| text.starts_with("hidden ")),
        "{hidden:?}"
    );
    let (code, said) = site.run("pull reset-db 1 --undo");
    assert_eq!(code, 1, "{said}");
    let (_, said) = site.run("doctor");
    assert!(said.contains("every user's is there, and every masking rule fits it"), "{said}");
    site.mask("# a typo\nnotes.txt = 'hidden'\n");
    for words in ["clone-schema dev_alice stg2", "doctor"] {
        let (code, said) = site.run(words);
        assert_eq!(code, 1, "{said}");
        assert!(
            said.contains("line 2, `notes.txt = 'hidden'`: table `notes` has no column `txt`"),
            "{said}"
        );
    }
    site.mask("notes.text\nnotes.text = a; b\n");
    let (code, said) = site.run("status");
    assert_eq!(code, 2, "{said}");
    assert!(
        said.contains("line 1, `notes.text`") && said.contains("`;` outside of quotes"),
        "{said}"
    );
    site.mask("");

    let (code, said) = site.run("clone-schema stg2 dev_alice");
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("not the schema of a registered server"), "{said}");
}

#[test]
fn the_control_database_is_nobodys_schema() {
    let site = Site::new();
    let name = site.ini.trim_end().rsplit(' ').next().unwrap().to_owned();
    let mut admin = Mariadb::shared().administrator();
    admin.query_drop("CREATE DATABASE IF NOT EXISTS dev_ours").unwrap();
    site.done("init");
    site.done("server register stg1");
    let refused = |words: &str| {
        let (code, said) = site.run(words);
        assert!(code == 1 && said.contains("is the control database"), "{words}: {said}");
    };
    refused(&format!("server set stg1 db_schema={name}"));
    refused(&format!("server set stg1 db_schema={}", name.to_uppercase()));
    refused(&format!("user set alice {name}"));
    // By hand, or with a program before this one.
    let set = format!("UPDATE `{name}`.servers SET db_schema = '{name}' WHERE name = 'stg1'");
    admin.query_drop(set).unwrap();
    refused("server take-over stg1");
    refused(&format!("clone-schema dev_ours {name}"));
    refused("doctor");
    site.done("server set stg1 db_schema=stg_ours");
    refused(&format!("clone-schema {name} stg_ours"));
}

#[test]
fn a_name_that_clones_need_is_nobodys() {
    let site = Site::new();
    site.done("init");
    site.done("server register stg1");
    site.done("server set stg1 db_schema=stg_needs");
    site.done("server register stg2");
    let refused = |words: &str| {
        let (code, said) = site.run(words);
        assert!(code == 1 && said.contains("that clones for server stg1 need"), "{words}: {said}");
    };
    for end in ["~new", "~old", "~prev"] {
        refused(&format!("user set alice stg_needs{end}"));
        refused(&format!("server set stg2 db_schema=Stg_Needs{end}"));
    }
    site.done("user set alice stg_needs~");
    site.done("user set bob stg_other~old");
    let (code, said) = site.run("server set stg2 db_schema=stg_other");
    assert!(code == 1 && said.contains("need the name stg_other~old"), "{said}");
}

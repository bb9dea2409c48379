//! What `scripts/bench controller` measures: idle ticks of a controller with MySQL and EC2, beside a
//! Python program that has only just begun; and how their cost grows with the installation.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use mysql::prelude::Queryable;
use pullre::config::DatabaseConfig;
use testkit::github::{FakeGithub, PullSpec, World};
use testkit::mariadb::Mariadb;
use testkit::moto::Moto;

use crate::bench::{Subject, table};
use crate::installation::Installation;

const RUNS: usize = 20;

/// What pullre-kun imports and makes before it does anything.
const PYTHON: &str = "import boto3, jwt, mysql.connector, sqlalchemy; \
     boto3.client('ec2', region_name='ap-northeast-1', aws_access_key_id='x', \
     aws_secret_access_key='y')";

/// The ancestor's beginning, to be measured beside.
pub fn python() -> Result<Subject> {
    let python = concat!(env!("CARGO_MANIFEST_DIR"), "/../../.setup/bench/bin/python");
    ensure!(Path::new(python).exists(), "no {python}: run scripts/setup bench");
    let name = "python3 with pullre-kun's imports, an EC2 client made";
    Ok(Subject::new(name, 5, &[python, "-c", PYTHON]))
}

const READY: usize = 50;

/// Waiting pull requests, and servers in all. Of these [`READY`] are the pool, each taken.
const SIZES: [(usize, usize, &str); 5] = [
    (1, 60, "eu-west-1"),
    (30, 60, "eu-west-2"),
    (1000, 60, "eu-west-3"),
    (1, 500, "us-east-1"),
    (1000, 500, "us-east-2"),
];

pub fn run(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    let folder = folder.canonicalize()?;
    let measured = idle_beside_python(&folder).and_then(|()| idle_by_size(&folder));
    fs::remove_dir_all(&folder)?;
    measured
}

fn idle_beside_python(folder: &Path) -> Result<()> {
    let site = Site::new(&folder.join("one"), 1, 0, 1, "ap-northeast-1")?;
    let mut subjects = [python()?, Subject::new("update-pull, idle tick", RUNS, &site.tick())];
    table("An idle tick with MySQL and EC2, one environment ready", &mut subjects, "cpu_ms")
}

fn idle_by_size(folder: &Path) -> Result<()> {
    let sites = SIZES.map(|(waiting, servers, region)| {
        Site::new(&folder.join(region), READY, waiting, servers, region)
    });
    let sites = sites.into_iter().collect::<Result<Vec<_>>>()?;
    let mut subjects: Vec<_> =
        sites.iter().map(|site| Subject::new(&site.title(), 5, &site.tick())).collect();
    table("An idle tick by the size of the installation", &mut subjects, "cpu_ms")?;

    println!("\nWhat one such tick asks, and its CPU without asking EC2 and reading its answer\n");
    println!("| what | GitHub | database | EC2 ms | other ms | other to the first row |");
    println!("|---|---|---|---|---|---|");
    let mut first = None;
    for (site, subject) in sites.iter().zip(&subjects) {
        let cost = site.cost()?;
        let other = subject.median("cpu_ms") - cost.ec2_ms;
        let to_first = other / *first.get_or_insert(other);
        println!(
            "| {} | {} | {} | {:.1} | {other:.1} | {to_first:.2} |",
            site.title(),
            cost.github,
            cost.database,
            cost.ec2_ms
        );
    }
    Ok(())
}

struct Cost {
    github: usize,
    database: u64,
    ec2_ms: f64,
}

/// An installation at rest: taken over from pullre-kun, which left so many environments ready.
struct Site {
    github: FakeGithub,
    ini: PathBuf,
    update_pull: PathBuf,
    waiting: usize,
    servers: usize,
}

impl Site {
    fn new(
        folder: &Path,
        ready: usize,
        waiting: usize,
        servers: usize,
        region: &str,
    ) -> Result<Site> {
        fs::create_dir_all(folder)?;
        let github = FakeGithub::start();
        let moto = Moto::shared();
        let ids = moto.run_instances(region, servers, None);
        let heads: Vec<_> = (0..ready + waiting)
            .map(|n| {
                let sha = format!("{:040x}", n + 1);
                let spec = PullSpec { sha: Some(sha.clone()), ..PullSpec::titled("A change") };
                let open = |world: &mut World| {
                    world.advance(10);
                    world.open(spec)
                };
                (github.change(open), sha)
            })
            .collect();

        let DatabaseConfig::Mysql { host, port, user, name, .. } = Mariadb::shared().database()
        else {
            unreachable!("MariaDB's databases are of MySQL's kind")
        };
        let author = PullSpec::titled("").author;
        let mut db = Mariadb::shared().administrator();
        db.query_drop(format!("USE {name}"))?;
        for sql in OLD_TABLES {
            db.query_drop(sql)?;
        }
        db.exec_drop("INSERT INTO git_hub_users VALUES (1, NOW(), NOW(), ?, 'dev')", (author,))?;
        db.exec_batch(
            "INSERT INTO servers VALUES (?, NOW(), NOW(), ?, ?, NULL, ?, NULL, ?, NULL, NULL)",
            ids.iter().enumerate().map(|(i, id)| {
                let name = format!("stg{}", i + 1);
                (i + 1, &id.0, name.clone(), name, i < ready)
            }),
        )?;
        db.exec_batch(
            "INSERT INTO pull_requests VALUES (?, NOW(), NOW(), ?, 'open', ?, 'A change', '', 'change', \
             ?, 1, 'dev', NULL)",
            heads.iter().take(ready).map(|(number, sha)| (number, number, sha, number)),
        )?;

        let ini = folder.join("app.ini");
        let (url, token, ec2) = (github.url(), github.token(), moto.url());
        fs::write(
            &ini,
            format!(
                "owner = acme\nrepo = shop\ntoken = {token}\ngithub_api_url = {url}\n\
                 mysql_host = {host}\nmysql_port = {port}\nmysql_user = {user}\nmysql_db = {name}\n\
                 aws_region = {region}\naws_endpoint_url = {ec2}\nAWS_ACCESS_KEY_ID = AKIAKEYID\n\
                 AWS_SECRET_KEY = s3cr3t\n"
            ),
        )?;
        let update_pull = Installation::at(folder)?.binary("update-pull");
        let site = Site { github, ini, update_pull, waiting, servers };
        site.run(&["init"], &[])?;
        // What it finds it writes down and says, as much as it may in a minute; then there is
        // nothing left to do.
        let at_rest = |line: &str| line == "nothing to do" || line.contains(" waits, place ");
        let mut plan = String::new();
        for _ in 0..100 {
            site.run(&[], &[])?;
            db.query_drop("DELETE FROM report_writes")?;
            // What was said counts as a change of the pull request, a minute after the one before.
            site.github.change(|world| world.advance(120));
            plan = site.run(&["plan"], &[])?;
            if plan.lines().all(at_rest) {
                return Ok(site);
            }
        }
        bail!("not at rest: {plan}")
    }

    fn title(&self) -> String {
        format!("{READY} ready, {} waiting, {} servers", self.waiting, self.servers)
    }

    fn tick(&self) -> [String; 3] {
        [self.update_pull.display().to_string(), "--config".into(), self.ini.display().to_string()]
    }

    /// Its standard output and error.
    fn run(&self, words: &[&str], env: &[(&str, &str)]) -> Result<String> {
        let mut command = Command::new(&self.update_pull);
        command.arg("--config").arg(&self.ini).args(words).envs(env.iter().copied());
        let output = command.output().context("update-pull does not start")?;
        let [said, complained] =
            [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        ensure!(output.status.success(), "update-pull {words:?} failed: {said}{complained}");
        Ok(said + &complained)
    }

    fn cost(&self) -> Result<Cost> {
        let mut database = Mariadb::shared().administrator();
        let mut questions = || -> Result<u64> {
            let row: Option<(String, u64)> =
                database.query_first("SHOW GLOBAL STATUS LIKE 'Questions'")?;
            Ok(row.context("the server counts its questions")?.1)
        };
        self.github.take_requests();
        let before = questions()?;
        self.run(&[], &[])?;
        // Its own question is among them.
        let database = questions()? - before - 1;
        let github = self.github.take_requests().len();
        let mut ec2: Vec<f64> = (0..5)
            .map(|_| {
                let said = self.run(&[], &[("PULLRE_LOGGING_LEVEL", "DEBUG")])?;
                let found = said.split("asking and reading took ").nth(1);
                let ms = found.and_then(|rest| rest.split(' ').next()?.parse().ok());
                ms.with_context(|| format!("it does not say what EC2 took: {said}"))
            })
            .collect::<Result<_>>()?;
        ec2.sort_by(f64::total_cmp);
        Ok(Cost { github, database, ec2_ms: ec2[ec2.len() / 2] })
    }
}

/// As pullre-kun made them.
const OLD_TABLES: [&str; 3] = [
    "CREATE TABLE git_hub_users (
        id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, created_at DATETIME NOT NULL,
        updated_at DATETIME NOT NULL, login VARCHAR(128) NOT NULL UNIQUE, db_schema TEXT)",
    "CREATE TABLE servers (
        id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, created_at DATETIME NOT NULL,
        updated_at DATETIME NOT NULL, instance_id VARCHAR(100), name TEXT,
        private_ip VARCHAR(100), db_schema TEXT, check_url TEXT, is_staging INT,
        auto_start_at DATETIME, auto_stop_at DATETIME)",
    "CREATE TABLE pull_requests (
        id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, created_at DATETIME NOT NULL,
        updated_at DATETIME NOT NULL, number INT NOT NULL UNIQUE, state VARCHAR(20),
        sha VARCHAR(64), title TEXT, body TEXT, ref TEXT, server_id BIGINT, is_launched INT,
        db_schema TEXT, check_run_id BIGINT,
        FOREIGN KEY (server_id) REFERENCES servers (id))",
];

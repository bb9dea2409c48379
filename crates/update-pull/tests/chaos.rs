//! Everything real and everything at once: MariaDB, moto's EC2, emulate's GitHub, two controllers
//! as processes that are killed at random, while pull requests come and go. Only the staging clients
//! are played: they report what real ones do.

#![cfg(feature = "ec2")]
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use jiff::Timestamp;
use mysql::prelude::Queryable;
use pullre::config::DatabaseConfig;
use pullre::domain::{InstanceId, PullNumber, PullState};
use pullre::facts::{App, Facts, Outcome};
use pullre::store::{Database, Store, Won};
use serde_json::Value;
use testkit::emulate::{AUTHOR, Emulate};
use testkit::mariadb::Mariadb;
use testkit::moto::Moto;

/// Numbers that look random, the same ones for the same seed (splitmix64).
struct Dice(u64);

impl Dice {
    /// From PULLRE_CHAOS_SEED, or another one each time; printed, so that it can be played again.
    fn new() -> Dice {
        let given = std::env::var("PULLRE_CHAOS_SEED").ok();
        let seed = match given {
            Some(seed) => seed.parse().expect("PULLRE_CHAOS_SEED is a number"),
            None => Timestamp::now().as_nanosecond() as u64 % 1_000_000,
        };
        println!("PULLRE_CHAOS_SEED={seed}");
        Dice(seed)
    }

    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % most
    }
}

struct Place {
    moto: &'static Moto,
    region: &'static str,
    github: Emulate,
    database: DatabaseConfig,
    /// Two controllers, on machines of their own.
    controllers: [tempfile::TempDir; 2],
    instances: Vec<InstanceId>,
    /// Which are open.
    pulls: BTreeMap<u32, bool>,
    heads: BTreeSet<(u32, String)>,
}

/// A tick at work. What it complains of goes into a file: one that nobody listens to yet would
/// stand still at a full pipe, with its locks.
struct Ticking {
    child: Child,
    complaints: tempfile::NamedTempFile,
}

impl Ticking {
    fn end(mut self) -> (ExitStatus, String) {
        let status = self.child.wait().unwrap();
        (status, fs::read_to_string(self.complaints.path()).unwrap())
    }
}

impl Place {
    fn new(region: &'static str, servers: usize) -> Place {
        let moto = Moto::shared();
        let instances = moto.run_instances(region, servers, None);
        let database = Mariadb::shared().database();
        let controllers = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let github = Emulate::start().unwrap_or_else(|e| panic!("{e}"));
        let place = Place {
            moto,
            region,
            github,
            database,
            controllers,
            instances,
            pulls: BTreeMap::new(),
            heads: BTreeSet::new(),
        };
        place.write_configuration();
        place.stop_all();
        place.done("init");
        let mut admin = Mariadb::shared().administrator();
        let source = place.schema("dev");
        admin.query_drop(format!("CREATE DATABASE {source}")).unwrap();
        admin.query_drop(format!("CREATE TABLE {source}.notes (text VARCHAR(20))")).unwrap();
        place.done(&format!("user set {AUTHOR} {source}"));
        for (i, id) in place.instances.iter().enumerate() {
            place.done(&format!("server register {id}"));
            let schema = place.schema(&format!("stg{i}"));
            place.done(&format!("server set {id} name=stg{i} db_schema={schema}"));
        }
        place
    }

    /// Tests share a server of MariaDB.
    fn schema(&self, name: &str) -> String {
        format!("{}_{name}", self.region.replace('-', "_"))
    }

    fn write_configuration(&self) {
        let DatabaseConfig::Mysql { host, port, user, name, .. } = &self.database else {
            panic!("MySQL")
        };
        let (github, ec2, region) = (self.github.app_ini(), self.moto.url(), self.region);
        let ini = format!(
            "{github}mysql_host = {host}\nmysql_port = {port}\nmysql_user = {user}\nmysql_db = {name}\n\
             aws_region = {region}\naws_endpoint_url = {ec2}\nAWS_ACCESS_KEY_ID = AKIAKEYID\n\
             AWS_SECRET_KEY = s3cr3t\nmax_changes = 100\n"
        );
        for folder in &self.controllers {
            fs::write(folder.path().join("app.ini"), &ini).unwrap();
        }
    }

    fn stop_all(&self) {
        let ids = self.instances.iter().zip(1..);
        let ids: String = ids.map(|(id, n)| format!("&InstanceId.{n}={id}")).collect();
        self.moto.ask(self.region, &format!("Action=StopInstances{ids}")).unwrap();
    }

    fn command(&self, controller: usize, words: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_update-pull"));
        command.current_dir(&self.controllers[controller]).args(words.split_whitespace());
        command.env("AWS_EC2_METADATA_DISABLED", "true");
        command
    }

    fn done(&self, words: &str) -> String {
        let output = self.command(0, words).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8(said).unwrap();
        assert!(output.status.success(), "{words}: {said}");
        said
    }

    fn begin_tick(&self, controller: usize) -> Ticking {
        let complaints = tempfile::NamedTempFile::new().unwrap();
        let mut command = self.command(controller, "tick");
        command.stdout(Stdio::null()).stderr(complaints.reopen().unwrap());
        Ticking { child: command.spawn().unwrap(), complaints }
    }

    fn store(&self) -> Store {
        Database::mysql(&self.database).unwrap().open().unwrap()
    }

    fn facts(&self) -> Facts {
        self.store().facts().unwrap()
    }

    /// The check runs of a head, the oldest first.
    fn check_runs(&self, number: u32, head: &str) -> Vec<Value> {
        let path = format!("/commits/{head}/check-runs?filter=all");
        let runs = self.github.call("GET", &path, &Value::Null);
        let runs = runs["check_runs"].as_array().unwrap().iter();
        let of_this = |run: &&Value| run["external_id"] == format!("{number}:{head}");
        let mut runs: Vec<_> = runs.filter(of_this).cloned().collect();
        runs.sort_by_key(|run| run["id"].as_u64());
        runs
    }

    /// What reviewers see: the newest check run of a head is true, and those before it are over;
    /// one comment for a pull request.
    fn assert_told(&self) {
        let facts = self.facts();
        for (number, head) in &self.heads {
            let runs = self.check_runs(*number, head);
            let former = runs.iter().rev().skip(1);
            assert!(former.clone().all(|run| run["status"] == "completed"), "{number}: {runs:#?}");
            if !self.pulls[number] || *head != self.github.head(*number) {
                continue;
            }
            let served = facts.assignments.contains_key(&PullNumber(*number));
            let expected = if served { "success" } else { "queued" };
            let run = runs.last().unwrap();
            let said = if served { &run["conclusion"] } else { &run["status"] };
            assert_eq!(said, expected, "{number}: {run:#}");
        }
        for (number, open) in &self.pulls {
            let path = format!("/issues/{number}/comments");
            let comments = self.github.call("GET", &path, &Value::Null);
            let count = comments.as_array().unwrap().len();
            assert!(count <= 1 && (count == 1 || !open), "{number}: {comments:#}");
        }
    }

    /// A minute goes by: whatever we wrote down is a minute older. GitHub's own moments stay.
    fn minute(&self) {
        let DatabaseConfig::Mysql { name, .. } = &self.database else { panic!("MySQL") };
        let mut admin = Mariadb::shared().administrator();
        let moments: Vec<(String, String)> = admin
            .query(format!(
                "SELECT table_name, column_name FROM information_schema.columns
                 WHERE table_schema = '{name}' AND data_type = 'bigint'
                 AND column_name LIKE '%\\_at' AND table_name <> 'pull_facts'"
            ))
            .unwrap();
        assert!(moments.len() > 10, "{moments:?}");
        admin.query_drop(format!("DELETE FROM {name}.report_writes")).unwrap();
        for (table, column) in moments {
            admin
                .query_drop(format!("UPDATE {name}.{table} SET {column} = {column} - 60000"))
                .unwrap();
        }
    }

    /// What every running machine's staging client does.
    fn clients(&self) {
        let mut store = self.store();
        let states = self.moto.states(self.region);
        for server in store.facts().unwrap().servers.into_values() {
            let instance = server.instance.unwrap();
            if states[&instance] != "running" {
                continue;
            }
            let now = Timestamp::now();
            store.agent_seen(server.id, "test", now).unwrap();
            let duty = store.duties_of(&server.name).unwrap().remove(0);
            let Some(task) = duty.task else {
                store.app_is(server.id, None).unwrap();
                continue;
            };
            let deployment = task.deployment;
            let open = matches!(deployment.outcome, Outcome::Offered | Outcome::Running);
            if open && store.begin_deployment(deployment.id, now).unwrap() == Won::Yes {
                let app = App { pull: deployment.pull, sha: deployment.sha.clone() };
                store.app_is(server.id, Some(&app)).unwrap();
                // `No`: it was superseded meanwhile.
                let _ = store.deployment_succeeded(&deployment, now).unwrap();
            }
        }
    }

    fn open(&mut self) {
        let number = self.github.open(&format!("topic-{}", self.pulls.len()));
        self.pulls.insert(number, true);
        self.heads.insert((number, self.github.head(number)));
    }

    fn happen(&mut self, dice: &mut Dice) {
        let one = |pulls: &BTreeMap<u32, bool>, dice: &mut Dice, open: bool| {
            let some: Vec<_> = pulls.iter().filter(|(_, is)| **is == open).collect();
            (!some.is_empty()).then(|| *some[dice.below(some.len() as u64) as usize].0)
        };
        match dice.below(8) {
            0..=2 => {
                self.open();
            }
            3 | 4 => {
                if let Some(number) = one(&self.pulls, dice, true) {
                    self.github.set_state(number, "closed");
                    self.pulls.insert(number, false);
                }
            }
            5 => {
                if let Some(number) = one(&self.pulls, dice, false) {
                    self.github.set_state(number, "open");
                    self.pulls.insert(number, true);
                }
            }
            6 => {
                if let Some(number) = one(&self.pulls, dice, true) {
                    self.github.push(number);
                    self.heads.insert((number, self.github.head(number)));
                }
            }
            // Somebody stops a machine in the provider's console.
            _ => {
                let id = &self.instances[dice.below(self.instances.len() as u64) as usize];
                self.moto
                    .ask(self.region, &format!("Action=StopInstances&InstanceId.1={id}"))
                    .unwrap();
            }
        }
    }

    /// Nobody lost, nobody served twice, nothing on that nobody needs.
    fn assert_settled(&self) {
        let facts = self.facts();
        let open: BTreeSet<_> = self.pulls.iter().filter(|(_, open)| **open).collect();
        let known: BTreeSet<_> = facts
            .pulls
            .values()
            .filter(|pull| pull.request.state == PullState::Open)
            .map(|pull| pull.request.number.0)
            .collect();
        assert_eq!(open.iter().map(|(number, _)| **number).collect::<BTreeSet<_>>(), known);

        let status: serde_json::Value = serde_json::from_str(&self.done("status --json")).unwrap();
        let environments = status["environments"].as_array().unwrap();
        let at = |stage: &str| environments.iter().filter(|e| e["stage"] == stage).count();
        let served = open.len().min(self.instances.len());
        assert_eq!((at("ready"), at("queued")), (served, open.len() - served), "{status:#}");

        let states = self.moto.states(self.region);
        for server in facts.servers.values() {
            let assignment = facts.assignment_of_server(server.id);
            let expected = if assignment.is_some() { "running" } else { "stopped" };
            assert_eq!(states[server.instance.as_ref().unwrap()], expected, "{}", server.name);
            let Some(assignment) = assignment else { continue };
            let head = self.github.head(assignment.pull.0);
            assert_eq!(server.app.as_ref().unwrap().sha.as_str(), head, "{}", server.name);
        }
    }
}

#[test]
fn whatever_happens_three_clean_ticks_settle_it() {
    let mut dice = Dice::new();
    let mut place = Place::new("ap-southeast-1", 3);
    for round in 0..30 {
        for _ in 0..dice.below(3) {
            place.happen(&mut dice);
        }
        let mut ticks: Vec<_> =
            (0..=dice.below(2)).map(|at| place.begin_tick(at as usize)).collect();
        for tick in &mut ticks {
            if dice.below(3) > 0 {
                std::thread::sleep(Duration::from_millis(dice.below(700)));
                // Gone already, or now.
                let _ = tick.child.kill();
            }
        }
        // What a killed one says is of no interest.
        ticks.into_iter().for_each(|tick| drop(tick.end()));
        if dice.below(4) > 0 {
            place.clients();
        }
        place.minute();
        println!("round {round}: {:?}", place.pulls);
    }

    for _ in 0..3 {
        place.minute();
        println!("{}", place.done("tick"));
        place.clients();
    }
    place.assert_settled();
    place.assert_told();
    let plan = place.done("plan");
    let waits = |line: &str| line.contains(" waits, place ") || line == "nothing to do";
    assert!(plan.lines().all(waits), "{plan}");
}

#[test]
fn two_controllers_at_once_start_each_machine_once_and_give_it_away_once() {
    let mut place = Place::new("ap-southeast-2", 3);
    (0..4).for_each(|_| place.open());
    for _ in 0..3 {
        let ticks = [0, 1, 0, 1].map(|at| place.begin_tick(at));
        for tick in ticks {
            let (status, complaints) = tick.end();
            assert!(status.success(), "{complaints}");
        }
        place.clients();
    }
    place.assert_settled();
    place.assert_told();
    for (number, head) in &place.heads {
        assert_eq!(place.check_runs(*number, head).len(), 1, "{number}");
    }
    let DatabaseConfig::Mysql { name, .. } = &place.database else { panic!("MySQL") };
    let mut admin = Mariadb::shared().administrator();
    let attempts: Vec<i64> =
        admin.query(format!("SELECT attempt FROM {name}.deployments")).unwrap();
    assert_eq!(attempts, [1, 1, 1]);
}

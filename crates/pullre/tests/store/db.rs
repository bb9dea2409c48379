//! A fresh control database for each test, and words to fill it with.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use jiff::Timestamp;
use pullre::domain::{InstanceId, Login, PullNumber, PullRequest, PullState, ServerId, Sha};
use pullre::facts::{Assignment, Deployment, SchemaClone, Server};
use pullre::reconcile::plan::Record;
use pullre::schema_clone::{CloneOutcome, Consistency};
use pullre::store::backend::{Backend, Value};
use pullre::store::mysql::{Mysql, MysqlAccess};
use pullre::store::sqlite::Sqlite;
use pullre::store::{CommandState, Engine, Store, StoredCommand, Won};
use testkit::mariadb::Mariadb;

/// One connection under test; it derefs to its [`Store`].
pub struct Db {
    store: Store,
    open: Box<dyn Fn() -> Box<dyn Backend>>,
    /// The hand of somebody who writes into the tables past us.
    hand: Box<dyn Backend>,
    _home: Box<dyn std::any::Any>,
}

/// An empty database: no table in it.
pub fn empty_sqlite() -> Db {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("pullre.db");
    Db::with(move || Box::new(Sqlite::open(&file, true).unwrap()), home)
}

pub fn sqlite() -> Db {
    empty_sqlite().migrated()
}

/// Likewise, in the MariaDB that this run of the tests started.
pub fn empty_mariadb() -> Db {
    let (access, _) = MysqlAccess::new(&Mariadb::shared().database()).unwrap();
    Db::with(move || Box::new(Mysql::open(&access).unwrap()), ())
}

pub fn mariadb() -> Db {
    empty_mariadb().migrated()
}

/// A moment with milliseconds, `seconds` after the first one.
pub fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millisecond(1_795_348_800_123 + seconds * 1000).unwrap()
}

pub fn sha(n: u32) -> Sha {
    format!("{n:040x}").parse().unwrap()
}

/// An open pull request of dev1, at commit number 1.
pub fn request(number: u32) -> PullRequest {
    PullRequest {
        number: PullNumber(number),
        state: PullState::Open,
        head: sha(1),
        head_ref: format!("feature-{number}"),
        base_ref: "main".into(),
        title: format!("Feature {number}"),
        body: "What it does".into(),
        author: Some(Login("dev1".into())),
        head_repo: Some("octo/app".into()),
        is_fork: false,
        is_draft: false,
        labels: vec!["db: big".into(), "it's \"urgent\"".into()],
        created_at: at(-500),
        updated_at: at(-400),
        closed_at: None,
    }
}

/// What alice asks of pull request 7 in this comment.
pub fn command(comment: i64) -> StoredCommand {
    StoredCommand {
        comment,
        number: PullNumber(7),
        login: "alice".into(),
        verb: "redeploy".into(),
        state: CommandState::New,
        changed_at: at(0),
        reaction: None,
    }
}

pub fn outcome() -> CloneOutcome {
    CloneOutcome {
        tables: 2,
        rows: 7,
        bytes: 4096,
        elapsed: Duration::from_millis(1500),
        consistency: Consistency::Snapshot,
        kept_previous: false,
        notes: Vec::new(),
    }
}

impl Deref for Db {
    type Target = Store;
    fn deref(&self) -> &Store {
        &self.store
    }
}

impl DerefMut for Db {
    fn deref_mut(&mut self) -> &mut Store {
        &mut self.store
    }
}

impl Db {
    fn with(open: impl Fn() -> Box<dyn Backend> + 'static, home: impl std::any::Any) -> Db {
        Db { store: Store::new(open()), hand: open(), open: Box::new(open), _home: Box::new(home) }
    }

    pub fn migrated(mut self) -> Db {
        self.migrate(at(0)).unwrap();
        self
    }

    /// Another process's connection.
    pub fn connection(&self) -> Box<dyn Backend> {
        (self.open)()
    }

    pub fn another(&self) -> Store {
        Store::new(self.connection())
    }

    /// Somebody writes past us. Returns how many rows it concerned.
    pub fn write(&mut self, sql: &str) -> u64 {
        self.hand.execute(sql, &[]).unwrap()
    }

    /// The tables and rows of an installation of pullre-kun, as it made them.
    pub fn load_ancestor(&mut self) {
        let script = match self.hand.engine() {
            Engine::Sqlite => include_str!("pullre-kun.sqlite.sql"),
            Engine::Mysql => include_str!("pullre-kun.mariadb.sql"),
        };
        for statement in script.split(";\n").filter(|text| !text.trim().is_empty()) {
            self.write(statement);
        }
    }

    /// Whatever refers to it.
    pub fn drop_table(&mut self, table: &str) {
        let (off, on) = match self.hand.engine() {
            Engine::Sqlite => ("PRAGMA foreign_keys = OFF", "PRAGMA foreign_keys = ON"),
            Engine::Mysql => ("SET FOREIGN_KEY_CHECKS = 0", "SET FOREIGN_KEY_CHECKS = 1"),
        };
        for statement in [off, &format!("DROP TABLE {table}"), on] {
            self.write(statement);
        }
    }

    pub fn clear(&mut self) {
        let tables = match self.hand.engine() {
            Engine::Sqlite => {
                "SELECT name FROM sqlite_master WHERE type = 'table' AND name <> 'sqlite_sequence'"
            }
            Engine::Mysql => {
                "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE()"
            }
        };
        for row in self.read(tables) {
            let Value::Text(table) = &row[0] else { panic!("a name") };
            self.drop_table(table);
        }
    }

    pub fn read(&mut self, sql: &str) -> Vec<Vec<Value>> {
        self.hand.query(sql, &[]).unwrap().into_iter().map(|row| row.values).collect()
    }

    pub fn read_one(&mut self, sql: &str) -> Value {
        self.read(sql).remove(0).remove(0)
    }

    /// What a client of pullre-kun reads.
    pub fn is_launched(&mut self, number: u32) -> Value {
        self.read_one(&format!("SELECT is_launched FROM pull_requests WHERE number = {number}"))
    }

    /// A server of the pool whose schema has its name.
    pub fn server(&mut self, name: &str) -> ServerId {
        let id = self.store.add_server(&InstanceId(format!("i-{name}")), name, at(0)).unwrap();
        self.store.set_server(id, &[("db_schema", name.into())], at(0)).unwrap();
        id
    }

    /// A pull request as the forge describes it, recorded; open and at commit 1 unless changed.
    pub fn pull_request(
        &mut self,
        number: u32,
        change: impl FnOnce(&mut PullRequest),
    ) -> PullNumber {
        let mut request = request(number);
        change(&mut request);
        self.store.record(&[Record::Pull(Box::new(request))], at(1)).unwrap();
        PullNumber(number)
    }

    pub fn open_pull(&mut self, number: u32) -> PullNumber {
        self.pull_request(number, |_| {})
    }

    /// An open pull request that has a server, both fresh.
    pub fn environment(&mut self, number: u32) -> (PullNumber, ServerId) {
        let pull = self.open_pull(number);
        let server = self.server(&format!("stg{number}"));
        let won = self.store.assign(pull, server, &"db_dev1".parse().unwrap(), at(2)).unwrap();
        assert_eq!(won, Won::Yes);
        (pull, server)
    }

    /// An environment to which commit 1 is offered.
    pub fn offered(&mut self, number: u32) -> (PullNumber, ServerId, Deployment) {
        let (pull, server) = self.environment(number);
        assert_eq!(self.store.offer(pull, server, &sha(1), 1, at(3)).unwrap(), Won::Yes);
        (pull, server, self.deployment(pull).unwrap())
    }

    /// The same, and its client is at it.
    pub fn running(&mut self, number: u32) -> (PullNumber, ServerId, Deployment) {
        let (pull, server, deployment) = self.offered(number);
        assert_eq!(self.store.begin_deployment(deployment.id, at(4)).unwrap(), Won::Yes);
        (pull, server, deployment)
    }

    pub fn assignment(&mut self, pull: PullNumber) -> Option<Assignment> {
        self.store.facts().unwrap().assignments.remove(&pull)
    }

    pub fn deployment(&mut self, pull: PullNumber) -> Option<Deployment> {
        self.assignment(pull)?.deployment
    }

    /// Every deployment of a pull request, the first one first.
    pub fn deployments(&mut self, pull: PullNumber) -> Vec<Deployment> {
        let mut all = self.store.deployments_of(pull, 100).unwrap();
        all.reverse();
        all
    }

    pub fn clone_of(&mut self, schema: &str) -> Option<SchemaClone> {
        self.store.facts().unwrap().clones.remove(&schema.parse().unwrap())
    }

    pub fn facts_of(&mut self, server: ServerId) -> Server {
        self.store.facts().unwrap().servers.remove(&server).unwrap()
    }

    /// What happened to a pull request, the first one first.
    pub fn events(&mut self, pull: PullNumber) -> Vec<String> {
        let mut events = self.store.events_of(pull, 100).unwrap();
        events.reverse();
        events.into_iter().map(|event| event.message).collect()
    }
}

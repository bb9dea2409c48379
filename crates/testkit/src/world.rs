//! A whole installation in a temporary folder: control database, schemas, machines, forge, and
//! staging clients that do what real ones report, without processes. Time stands still until a
//! test moves it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use pullre::condition::Policy;
use pullre::domain::{InstanceId, InstanceState, PullNumber, ServerId};
use pullre::facts::{App, Facts, Outcome};
use pullre::ops::Operator;
use pullre::reconcile::lock::Locks;
use pullre::reconcile::plan::{Action, Observed, Plan};
use pullre::reconcile::{Controller, Report, Said};
use pullre::report::Settings;
use pullre::schema_clone::{Schemas, sqlite};
use pullre::store::backend::Backend;
use pullre::store::mysql::{Mysql, MysqlAccess};
use pullre::store::sqlite::Sqlite;
use pullre::store::{Database, Store, StoreError, Won};

use crate::fleet::Fleet;
use crate::fuse::{Fuse, FusedBackend};
use crate::hub::Hub;
use crate::mariadb::Mariadb;

pub struct World {
    pub now: Timestamp,
    pub hub: Hub,
    pub fleet: Fleet,
    pub policy: Policy,
    /// Silent, until a test wants to hear something.
    pub report: Settings,
    /// What runs on each machine, as a look at the machine itself would tell.
    pub apps: BTreeMap<InstanceId, App>,
    control: Control,
    folder: tempfile::TempDir,
}

/// Where the control database is.
#[derive(Clone)]
enum Control {
    Sqlite(PathBuf),
    Mysql(MysqlAccess),
}

impl Control {
    fn connect(&self) -> Result<Box<dyn Backend>, StoreError> {
        Ok(match self {
            Control::Sqlite(file) => Box::new(Sqlite::open(file, true)?),
            Control::Mysql(access) => Box::new(Mysql::open(access)?),
        })
    }
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").field("now", &self.now).field("apps", &self.apps).finish()
    }
}

/// A development schema's only content.
fn data_of(schema: &str) -> String {
    format!("data of {schema}")
}

impl World {
    /// Servers `stg1`, `stg2`, ... that are stopped, and the developers dev1 and dev2 with data.
    pub fn new(servers: usize) -> World {
        World::with(servers, |folder| Control::Sqlite(folder.join("pullre.db")))
    }

    /// The same, with the control database and the locks in the tests' MariaDB.
    pub fn on_mariadb(servers: usize) -> World {
        World::with(servers, |_| {
            let (access, _) = MysqlAccess::new(&Mariadb::shared().database()).expect("a login");
            Control::Mysql(access)
        })
    }

    fn with(servers: usize, control: impl FnOnce(&Path) -> Control) -> World {
        // Memory, where there is such a folder: the tests make thousands of small databases.
        let shm = Path::new("/dev/shm");
        let folder = if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() };
        let folder = folder.expect("a temporary folder");
        let world = World {
            now: "2026-11-22T12:00:00Z".parse().expect("a moment"),
            hub: Hub::default(),
            fleet: Fleet::default(),
            policy: Policy::default(),
            report: Settings::default(),
            apps: BTreeMap::new(),
            control: control(folder.path()),
            folder,
        };
        let mut store = Store::new(world.control.connect().expect("a new database"));
        store.migrate(world.now).expect("all migrations");
        std::fs::create_dir(world.schema_dir()).expect("a new folder");
        for login in ["dev1", "dev2"] {
            world.write_schema(login);
            world.operator(&mut store).user_set(login, login).expect("a user");
        }
        drop(store);
        (0..servers).for_each(|_| drop(world.add_server()));
        world
    }

    /// Lets the controller speak: check runs, and comments.
    pub fn speaks(mut self) -> World {
        self.report =
            Settings { report: true, check_name: "pullre".into(), comment: true, ..self.report };
        self
    }

    /// Registers one more server with a machine and a schema of its own.
    pub fn add_server(&self) -> String {
        let mut store = self.store();
        let count = store.facts().expect("facts").servers.len();
        let name = format!("stg{}", count + 1);
        self.fleet.add(&name, InstanceState::Stopped);
        let mut operator = self.operator(&mut store);
        operator.server_register(&name, false).expect("a free name");
        operator.server_set(&name, &[format!("db_schema={name}")]).expect("a free schema");
        name
    }

    /// Makes a schema with content, as a developer would.
    pub fn write_schema(&self, schema: &str) {
        let file = sqlite::path(&self.schema_dir(), &schema.parse().expect("a schema name"));
        let connection = rusqlite::Connection::open(file).expect("a new schema");
        let sql = format!(
            "CREATE TABLE notes (text TEXT); INSERT INTO notes VALUES ('{}')",
            data_of(schema)
        );
        connection.execute_batch(&sql).expect("a new table");
    }

    /// What a schema holds now; None where there is none.
    pub fn read_schema(&self, schema: &str) -> Option<String> {
        let file = sqlite::path(&self.schema_dir(), &schema.parse().expect("a schema name"));
        if !file.exists() {
            return None;
        }
        let connection = rusqlite::Connection::open(file).expect("a schema");
        Some(
            connection.query_row("SELECT text FROM notes", [], |row| row.get(0)).expect("one note"),
        )
    }

    /// People enter something into a schema.
    pub fn enter(&self, schema: &str, text: &str) {
        let file = sqlite::path(&self.schema_dir(), &schema.parse().expect("a schema name"));
        let connection = rusqlite::Connection::open(file).expect("a schema");
        connection.execute("UPDATE notes SET text = ?", [text]).expect("one note");
    }

    /// Whether a schema holds exactly what the developer of this name wrote.
    pub fn holds_data_of(&self, schema: &str, developer: &str) -> bool {
        self.read_schema(schema) == Some(data_of(developer))
    }

    pub fn schema_dir(&self) -> PathBuf {
        self.folder.path().join("schemas")
    }

    pub fn schemas(&self) -> Schemas {
        Schemas::Sqlite { folder: self.schema_dir() }
    }

    pub fn locks(&self) -> Locks {
        match &self.control {
            Control::Sqlite(_) => Locks::Files(self.folder.path().join("locks")),
            Control::Mysql(access) => Locks::Mysql(access.clone()),
        }
    }

    /// Somebody writes into the control database without asking us.
    pub fn by_hand(&self, sql: &str) {
        let mut backend = self.control.connect().expect("the control database");
        backend.execute(sql, &[]).expect("a statement");
    }

    /// All that is recorded to have happened, the first one first.
    pub fn events(&self) -> Vec<String> {
        let mut backend = self.control.connect().expect("the control database");
        let rows = backend.query("SELECT message FROM events ORDER BY id", &[]).expect("events");
        rows.iter().map(|row| row.text("message").expect("a message")).collect()
    }

    pub fn database(&self, fuse: Fuse) -> Database {
        let control = self.control.clone();
        Database::with(move || Ok(Box::new(FusedBackend::new(control.connect()?, fuse.clone()))))
    }

    pub fn store(&self) -> Store {
        self.database(Fuse::never()).open().expect("the control database")
    }

    pub fn facts(&self) -> Facts {
        self.store().facts().expect("facts")
    }

    pub fn operator<'a>(&self, store: &'a mut Store) -> Operator<'a> {
        Operator { store, who: "tester", now: self.now }
    }

    pub fn advance(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
    }

    /// Lets a controller process that dies with `fuse` do something.
    pub fn with_controller<T>(&self, fuse: &Fuse, work: impl FnOnce(Controller<'_>) -> T) -> T {
        let database = self.database(fuse.clone());
        let forge = self.hub.seen_by(fuse.clone());
        let compute = self.fleet.seen_by(fuse.clone());
        work(Controller {
            database: &database,
            forge: &forge,
            compute: &compute,
            schemas: &self.schemas(),
            locks: &self.locks(),
            policy: &self.policy,
            report: &self.report,
        })
    }

    pub fn plan(&self) -> (Observed, Plan) {
        self.with_controller(&Fuse::never(), |c| c.plan(self.now)).expect("a plan")
    }

    pub fn tick(&self) -> Report {
        self.try_tick(&Fuse::never()).expect("a tick")
    }

    /// One tick of a process that may die.
    pub fn try_tick(&self, fuse: &Fuse) -> Result<Report, StoreError> {
        self.with_controller(fuse, |c| c.tick(self.now, false, &|said| self.watch(&said)))
    }

    /// What no tick may ever do, whatever the records say: the machine itself tells.
    fn watch(&self, said: &Said<'_>) {
        if let Said::Done { chain, action: Action::Clone { .. } | Action::Undo { .. }, .. } = said {
            let app = self.apps.get(&InstanceId(chain.server_name.clone()));
            assert!(app.is_none(), "{} was cloned over under {app:?}", chain.server_name);
        }
    }

    /// A tick; `meanwhile` runs at each thing that it says, as another process would.
    pub fn tick_beside(&self, meanwhile: &(dyn Fn(&Said<'_>) + Sync)) -> Report {
        let say = |said: Said<'_>| {
            self.watch(&said);
            meanwhile(&said);
        };
        self.with_controller(&Fuse::never(), |c| c.tick(self.now, false, &say)).expect("a tick")
    }

    /// Machines arrive where they are going; apps of machines that are off are gone.
    pub fn settle_machines(&mut self) {
        self.fleet.settle();
        let fleet = &self.fleet;
        self.apps.retain(|id, _| fleet.state(&id.0) == Some(InstanceState::Running));
    }

    /// One tick of the staging client of every machine that runs. `deploys` says whether the
    /// pull request's app can be deployed.
    pub fn client_ticks(&mut self, fuse: &Fuse, deploys: impl Fn(PullNumber) -> bool) {
        self.client_ticks_beside(fuse, deploys, &|_| {});
    }

    /// The same; `meanwhile` happens in the middle of each deployment, before its last act.
    pub fn client_ticks_beside(
        &mut self,
        fuse: &Fuse,
        deploys: impl Fn(PullNumber) -> bool,
        meanwhile: &dyn Fn(&World),
    ) {
        let servers: Vec<_> = self.facts().servers.into_values().collect();
        for server in servers {
            let Some(instance) = server.instance else { continue };
            if self.fleet.state(&instance.0) == Some(InstanceState::Running) {
                // A client that dies says nothing: that is the point.
                let _ = self.client_tick(&instance, server.id, fuse, &deploys, meanwhile);
            }
        }
    }

    fn client_tick(
        &mut self,
        instance: &InstanceId,
        server: ServerId,
        fuse: &Fuse,
        deploys: &impl Fn(PullNumber) -> bool,
        meanwhile: &dyn Fn(&World),
    ) -> Result<(), StoreError> {
        let mut store = self.database(fuse.clone()).open()?;
        store.agent_seen(server, "test", self.now)?;
        let duty = store.duties_of(&instance.0)?.remove(0);
        if duty.paused || duty.holds.iter().any(|hold| hold.holds_at(self.now)) {
            return Ok(());
        }
        let Some(task) = duty.task else {
            if duty.app.is_some() || self.apps.contains_key(instance) {
                self.apps.remove(instance);
                store.app_is(server, None)?;
            }
            return Ok(());
        };
        let deployment = task.deployment;
        if !matches!(deployment.outcome, Outcome::Offered | Outcome::Running)
            || store.begin_deployment(deployment.id, self.now)? == Won::No
        {
            return Ok(());
        }
        if !deploys(deployment.pull) {
            // `No`: it was superseded meanwhile.
            let step = store.step_started(deployment.id, "migrate", self.now)?;
            store.step_finished(step, Some(1), "no such table: users\n", self.now)?;
            let _ = store.deployment_failed(&deployment, "migrate", "exit status 1", self.now)?;
            return Ok(());
        }
        let app = App { pull: deployment.pull, sha: deployment.sha.clone() };
        store.app_is(server, Some(&app))?;
        self.apps.insert(instance.clone(), app);
        meanwhile(self);
        // `No`: it was superseded meanwhile, and the next tick sees to it.
        let _ = store.deployment_succeeded(&deployment, self.now)?;
        Ok(())
    }

    /// A machine is started, and what is offered to it deployed, or not; no time goes by.
    pub fn deploy(&mut self, works: bool) {
        self.tick();
        self.settle_machines();
        self.tick();
        self.client_ticks(&Fuse::never(), |_| works);
    }

    /// Ticks of both binaries, a minute apart, machines arriving in between.
    pub fn minutes(&mut self, count: usize) {
        for _ in 0..count {
            self.tick();
            self.settle_machines();
            self.client_ticks(&Fuse::never(), |_| true);
            self.advance(60);
        }
    }
}

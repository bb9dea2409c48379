//! The logins that `update-pull grants` describes, at a real server: a whole life of an environment
//! with exactly those rights, and what they do not allow.

use std::time::Duration;

use insta::assert_snapshot;
use jiff::Timestamp;
use mysql::prelude::Queryable;
use pullre::condition::Policy;
use pullre::config::{DatabaseConfig, Secret};
use pullre::domain::{InstanceState, PullNumber};
use pullre::facts::{App, AppDeath, Deployment, Facts, Outcome, Pulse};
use pullre::grants::{Grants, KILL, grants, needed};
use pullre::ops::Operator;
use pullre::reconcile::Controller;
use pullre::reconcile::lock::Locks;
use pullre::report::Settings;
use pullre::schema_clone::mask::{Dialect, Mask};
use pullre::schema_clone::{Request, Schemas, sqlite};
use pullre::stage::{Stage, standing};
use pullre::store::backend::Backend;
use pullre::store::mysql::{Mysql, MysqlAccess};
use pullre::store::{Database, Store, StoreError, Won};
use testkit::fleet::Fleet;
use testkit::fuse::Fuse;
use testkit::hub::Hub;
use testkit::mariadb::Mariadb;

use crate::db::at;

/// A control database that each login has made its own connections to.
struct Logins {
    name: String,
    admin: DatabaseConfig,
    controller: DatabaseConfig,
    client: DatabaseConfig,
}

impl Logins {
    fn new() -> Logins {
        let admin = Mariadb::shared().database();
        let DatabaseConfig::Mysql { name, .. } = &admin else { panic!("MySQL") };
        let name = name.to_string();
        let login = |who: &str| {
            let mut config = admin.clone();
            let DatabaseConfig::Mysql { user, password, .. } = &mut config else { panic!("MySQL") };
            *user = format!("{name}_{who}");
            *password = Secret::new("s3cret");
            let sql = format!("CREATE USER '{user}'@'%' IDENTIFIED BY 's3cret'");
            Mariadb::shared().administrator().query_drop(sql).unwrap();
            config
        };
        Logins { controller: login("controller"), client: login("client"), name, admin }
    }

    fn grants(&self, facts: &Facts) -> Grants {
        let name = &self.name;
        let accounts = (format!("'{name}_controller'@'%'"), format!("'{name}_client'@'%'"));
        grants(&name.parse().unwrap(), facts, &accounts.0, &accounts.1)
    }

    fn grant(&self, statements: &[String]) {
        let mut administrator = Mariadb::shared().administrator();
        for sql in statements {
            administrator.query_drop(sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
        }
    }

    /// Tables made by the controller's login, whose right to make them is taken back.
    fn initialized(&self) {
        let grants = self.grants(&Facts::default());
        self.grant(&grants.controller);
        self.grant(&grants.init);
        store(&self.controller).migrate(at(0)).unwrap();
        self.grant(&grants.after_init);
        self.grant(&grants.client);
    }
}

fn store(config: &DatabaseConfig) -> Store {
    Database::mysql(config).unwrap().open().unwrap()
}

fn raw(config: &DatabaseConfig) -> Mysql {
    Mysql::open(&MysqlAccess::new(config).unwrap().0).unwrap()
}

/// What a staging client does in one run, with the client's login.
fn client_tick(config: &DatabaseConfig, outcome: Outcome, now: Timestamp) {
    let mut store = store(config);
    store.require_tables().unwrap();
    store.server_names().unwrap();
    store.local_slots().unwrap();
    let duty = store.duties_of("i-stg1").unwrap().remove(0);
    store.agent_seen(duty.server, "test", now).unwrap();
    let pulse = Pulse { free_bytes: 1, total_bytes: 2, load_percent: 3 };
    store.measured(duty.server, &pulse).unwrap();
    let Some(task) = duty.task else {
        return store.app_is(duty.server, None).unwrap();
    };
    let deployment: &Deployment = &task.deployment;
    assert_eq!(store.begin_deployment(deployment.id, now).unwrap(), Won::Yes);
    let step = store.step_started(deployment.id, "checkout", now).unwrap();
    assert!(store.is_wanted(deployment.id).unwrap());
    store.step_finished(step, Some(0), "done", now).unwrap();
    assert_eq!(store.steps_of(deployment.id).unwrap().len(), 1);
    let app = App { pull: deployment.pull, sha: deployment.sha.clone() };
    store.app_is(duty.server, Some(&app)).unwrap();
    let id = deployment.id;
    let death = AppDeath { deployment: id, times: 1, at: now, again_at: now, reason: "x".into() };
    store.app_died(duty.server, &death).unwrap();
    store.app_lives(duty.server).unwrap();
    store.event(now, "client", Some(deployment.pull), Some(duty.server), "hello").unwrap();
    let won = match outcome {
        Outcome::Failed => store.deployment_failed(deployment, "probe", "no answer", now),
        _ => store.deployment_succeeded(deployment, now),
    };
    assert_eq!(won.unwrap(), Won::Yes);
    assert!(store.deployment_on(duty.server).unwrap().is_some());
}

#[test]
fn controller_and_client_live_with_exactly_their_grants() {
    let logins = Logins::new();
    logins.initialized();
    let database = Database::mysql(&logins.controller).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let source = sqlite::path(folder.path(), &"dev1".parse().unwrap());
    rusqlite::Connection::open(source).unwrap().execute_batch("CREATE TABLE t (n INT)").unwrap();
    let (hub, fleet) = (Hub::default(), Fleet::default());
    fleet.add("i-stg1", InstanceState::Stopped);
    let mut now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();

    let mut own = database.open().unwrap();
    let mut operator = Operator { store: &mut own, who: "olga", now };
    operator.user_set("dev1", "dev1").unwrap();
    operator.server_register("i-stg1", false).unwrap();
    let settings = ["db_schema=stg1", "name=stg1", "auto_weekdays=mon-fri"].map(str::to_owned);
    operator.server_set("i-stg1", &settings).unwrap();
    operator.server_hold("stg1", "", None).unwrap();
    operator.server_release("stg1").unwrap();
    operator.pause().unwrap();
    operator.resume().unwrap();
    operator.server_hide("other", false).unwrap();

    let pull = hub.open("dev1", false, now);
    let policy = Policy::default();
    let report = Settings {
        report: true,
        check_name: "pullre".into(),
        comment: true,
        deployments: true,
        ..Settings::default()
    };
    hub.let_write("dev1");
    hub.comment(pull, "dev1", "/pullre explain", now);
    let tick = |now: Timestamp| {
        let controller = Controller {
            database: &database,
            forge: &hub.seen_by(Fuse::never()),
            compute: &fleet.seen_by(Fuse::never()),
            schemas: &Schemas::Sqlite { folder: folder.path().to_owned() },
            locks: &Locks::Mysql(MysqlAccess::new(&logins.controller).unwrap().0),
            policy: &policy,
            report: &report,
        };
        let report = controller.tick(now, false, &|_| {}).unwrap();
        assert_eq!(report.failures, Vec::<String>::new());
        fleet.settle();
    };
    let mut stages = Vec::new();
    for outcome in [Outcome::Failed, Outcome::Succeeded, Outcome::Succeeded] {
        for _ in 0..2 {
            tick(now);
            now += jiff::SignedDuration::from_mins(3);
        }
        let ready = stages.last() == Some(&Stage::Ready);
        if !ready {
            client_tick(&logins.client, outcome, now);
        }
        let facts = own.facts().unwrap();
        stages.push(standing(&facts.pulls[&pull], &facts, &policy, now).stage);
    }
    assert_eq!(stages, [Stage::Failed, Stage::Ready, Stage::Ready]);
    Operator { store: &mut own, who: "olga", now }.explain(pull, &policy).unwrap();
    hub.close(pull, now);
    tick(now);
    client_tick(&logins.client, Outcome::Succeeded, now);
    tick(now);
    assert!(own.facts().unwrap().assignments.is_empty());
}

#[test]
fn a_clients_login_reads_and_changes_nothing_else() {
    let logins = Logins::new();
    logins.initialized();
    let mut admin = store(&logins.admin);
    let server = admin.add_server(&pullre::domain::InstanceId("i".into()), "stg1", at(0)).unwrap();
    let mut client = raw(&logins.client);
    for sql in [
        "SELECT login FROM git_hub_users",
        "SELECT * FROM servers",
        "SELECT body FROM pull_requests",
        "SELECT content FROM settings",
        "SELECT number FROM pull_facts",
        "SELECT approved_sha FROM pull_wishes",
        "SELECT message FROM events",
        "UPDATE servers SET db_schema = 'x'",
        "UPDATE assignments SET deployment_id = 1",
        "UPDATE pull_requests SET sha = 'x'",
        "UPDATE deployments SET sha = 'x'",
        "UPDATE server_facts SET held_at = NULL",
        "UPDATE local_slots SET state = 'running'",
        "INSERT INTO assignments (server_id, pull_number, assigned_at) VALUES (1, 1, 1)",
        "INSERT INTO pull_wishes (number) VALUES (1)",
        "INSERT INTO settings (name, content) VALUES ('paused', 'x')",
        "INSERT INTO deployments (sha) VALUES ('x')",
        "DELETE FROM events",
        "DELETE FROM deployments",
        "DELETE FROM server_facts",
        "CREATE TABLE mine (n INT)",
        "DROP TABLE events",
    ] {
        let error = client.execute(sql, &[]).expect_err(sql);
        assert!(matches!(error, StoreError::Setup(_)), "{sql}: {error}");
    }
    let mut client = store(&logins.client);
    client.facts().unwrap_err();
    client.approve(PullNumber(1), &crate::db::sha(1)).unwrap_err();
    client.hold_server(server, None).unwrap_err();
}

#[test]
fn a_clients_rights_are_tried_one_by_one() {
    let logins = Logins::new();
    logins.initialized();
    let mut client = store(&logins.client);
    assert_eq!(client.missing_client_rights().unwrap(), [""; 0]);
    assert_eq!(client.needless_client_rights(), [""; 0]);
    let name = &logins.name;
    let account = format!("'{name}_client'@'%'");
    for (revoked, says) in [
        (format!("REVOKE UPDATE (outcome) ON {name}.deployments"), "change deployments"),
        (format!("REVOKE INSERT (load_percent) ON {name}.server_pulses"), "add to server_pulses"),
        (format!("REVOKE SELECT (sha) ON {name}.pull_requests"), "read pull_requests"),
    ] {
        logins.grant(&[format!("{revoked} FROM {account}")]);
        let missing = store(&logins.client).missing_client_rights().unwrap().join(" ");
        assert!(missing.contains(says), "{missing}");
    }
    assert_eq!(store(&logins.controller).needless_client_rights().len(), 3);
}

#[test]
fn a_controllers_login_touches_no_schema_but_those_that_are_registered() {
    let logins = Logins::new();
    logins.initialized();
    // `_` must not match any character.
    let schemas = ["src_1", "srcx1", "dst_1", "dstx1"].map(|end| format!("{}_{end}", logins.name));
    for schema in &schemas {
        logins.grant(&[
            format!("CREATE DATABASE {schema}"),
            format!("CREATE TABLE {schema}.t (n INT)"),
        ]);
    }
    let mut own = store(&logins.controller);
    let mut operator = Operator { store: &mut own, who: "olga", now: at(0) };
    operator.user_set("dev1", &schemas[0]).unwrap();
    operator.server_register("i-1", false).unwrap();
    operator.server_set("i-1", &[format!("db_schema={}", schemas[2])]).unwrap();
    let facts = own.facts().unwrap();
    let control = logins.name.parse().unwrap();
    let lacks = |own: &mut Store| -> Vec<usize> {
        needed(&control, &facts)
            .iter()
            .map(|(s, all)| own.ungranted(s, all).unwrap().len())
            .collect()
    };
    // The source, and the clone with the three beside it.
    assert_eq!(lacks(&mut own), [3, 17, 17, 17, 17]);
    logins.grant(&logins.grants(&facts).controller);
    assert_eq!(lacks(&mut own), [0; 5]);
    let like = &schemas[3];
    let new = format!("{}~new", schemas[2]);
    let pattern = new.replace('_', "\\_");
    logins.grant(&[format!("REVOKE INDEX ON `{pattern}`.* FROM '{}_controller'@'%'", logins.name)]);
    assert_eq!(lacks(&mut own), [0, 0, 1, 0, 0]);
    logins.grant(&logins.grants(&facts).controller);
    assert_eq!(own.ungranted(like, &["SELECT"]).unwrap(), ["SELECT"]);
    assert!(
        store(&logins.admin)
            .ungranted(like, &["SELECT", "CREATE VIEW", KILL.0, KILL.1[0]])
            .unwrap()
            .is_empty()
    );
    let mut connection = raw(&logins.controller);
    let [source, source_like, clone, clone_like] = &schemas;
    for (sql, allowed) in [
        (format!("SELECT n FROM {source}.t"), true),
        (format!("SELECT n FROM {source_like}.t"), false),
        (format!("UPDATE {source}.t SET n = 1"), false),
        (format!("DROP TABLE {source}.t"), false),
        (format!("UPDATE {clone}.t SET n = 1"), true),
        (format!("UPDATE {clone_like}.t SET n = 1"), false),
        (format!("DROP DATABASE {clone}"), true),
        (format!("CREATE DATABASE {clone}"), true),
        (format!("DROP DATABASE {clone_like}"), false),
        (format!("CREATE DATABASE `{clone}~new`"), true),
        (format!("CREATE TABLE `{clone}~new`.t (n INT)"), true),
        (format!("RENAME TABLE `{clone}~new`.t TO {clone}.t"), true),
        (format!("DROP DATABASE `{clone}~new`"), true),
        (format!("CREATE DATABASE `{clone_like}~new`"), false),
        (format!("CREATE DATABASE `{source}~new`"), false),
        ("DROP TABLE servers".to_owned(), false),
        ("CREATE TABLE mine (n INT)".to_owned(), false),
    ] {
        let done = connection.execute(&sql, &[]);
        assert_eq!(done.is_ok(), allowed, "{sql}: {done:?}");
    }
}

#[test]
fn the_script_says_who_needs_what() {
    let world = testkit::world::World::new(2);
    world.by_hand("UPDATE servers SET db_schema = 'it''s `x`' WHERE name = 'stg2'");
    // A row that names a developer's schema gets no right to overwrite it.
    world.add_server();
    world.by_hand("UPDATE servers SET db_schema = 'DEV1' WHERE name = 'stg3'");
    let script = grants(
        &"pull_re".parse().unwrap(),
        &world.facts(),
        "'pullre_controller'@'%'",
        "'pullre_client'@'%'",
    );
    assert_snapshot!(script, @r"
    -- The logins of pullre at the MySQL server that holds pull_re, with only what they need.
    -- Make them first, each with a password of its own, and with the host that it comes
    -- from instead of % where you can:
    --   CREATE USER 'pullre_controller'@'%' IDENTIFIED BY '...';
    --   CREATE USER 'pullre_client'@'%' IDENTIFIED BY '...';
    -- Run `update-pull grants` again after `server set ... db_schema` and `user set`.

    -- The controller (mysql_user of its app.ini).
    GRANT SELECT, INSERT, UPDATE, DELETE ON `pull\_re`.* TO 'pullre_controller'@'%';
    GRANT SELECT, LOCK TABLES, SHOW VIEW, TRIGGER, EVENT, EXECUTE ON `dev1`.* TO 'pullre_controller'@'%';
    GRANT SELECT, LOCK TABLES, SHOW VIEW, TRIGGER, EVENT, EXECUTE ON `dev2`.* TO 'pullre_controller'@'%';
    GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, ALTER, INDEX, REFERENCES, LOCK TABLES, CREATE VIEW, SHOW VIEW, TRIGGER, CREATE ROUTINE, ALTER ROUTINE, EXECUTE, EVENT ON `it's ``x```.* TO 'pullre_controller'@'%';
    GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, ALTER, INDEX, REFERENCES, LOCK TABLES, CREATE VIEW, SHOW VIEW, TRIGGER, CREATE ROUTINE, ALTER ROUTINE, EXECUTE, EVENT ON `it's ``x``~new`.* TO 'pullre_controller'@'%';
    GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, ALTER, INDEX, REFERENCES, LOCK TABLES, CREATE VIEW, SHOW VIEW, TRIGGER, CREATE ROUTINE, ALTER ROUTINE, EXECUTE, EVENT ON `it's ``x``~old`.* TO 'pullre_controller'@'%';
    GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, ALTER, INDEX, REFERENCES, LOCK TABLES, CREATE VIEW, SHOW VIEW, TRIGGER, CREATE ROUTINE, ALTER ROUTINE, EXECUTE, EVENT ON `it's ``x``~prev`.* TO 'pullre_controller'@'%';
    GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, ALTER, INDEX, REFERENCES, LOCK TABLES, CREATE VIEW, SHOW VIEW, TRIGGER, CREATE ROUTINE, ALTER ROUTINE, EXECUTE, EVENT ON `stg1`.* TO 'pullre_controller'@'%';
    GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, ALTER, INDEX, REFERENCES, LOCK TABLES, CREATE VIEW, SHOW VIEW, TRIGGER, CREATE ROUTINE, ALTER ROUTINE, EXECUTE, EVENT ON `stg1~new`.* TO 'pullre_controller'@'%';
    GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, ALTER, INDEX, REFERENCES, LOCK TABLES, CREATE VIEW, SHOW VIEW, TRIGGER, CREATE ROUTINE, ALTER ROUTINE, EXECUTE, EVENT ON `stg1~old`.* TO 'pullre_controller'@'%';
    GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, ALTER, INDEX, REFERENCES, LOCK TABLES, CREATE VIEW, SHOW VIEW, TRIGGER, CREATE ROUTINE, ALTER ROUTINE, EXECUTE, EVENT ON `stg1~prev`.* TO 'pullre_controller'@'%';
    -- Where developers' schemas hold stored routines, reading their bodies needs in addition
    --   MySQL 8.0.20 and later:    GRANT SHOW_ROUTINE ON *.* TO the controller's login;
    --   MariaDB 11.3 and later:    GRANT SHOW CREATE ROUTINE ON each of these schemas;
    --   MySQL 5.7, older MariaDB:  GRANT SELECT ON mysql.proc.
    -- With `swap_busy = kill` it sees and ends other logins' sessions on a clone. That needs
    --   MariaDB:                   GRANT PROCESS, CONNECTION ADMIN ON *.* TO the controller's login;
    --   MySQL 8:                   GRANT PROCESS, CONNECTION_ADMIN ON *.* TO the controller's login;
    --   MySQL 5.7:                 GRANT PROCESS, SUPER ON *.* TO the controller's login.
    -- A server with a binary log lets no such login make functions and triggers unless
    -- log_bin_trust_function_creators = 1 there, and copies no snapshot without making writers
    -- wait unless binlog_format = ROW.

    -- For `update-pull init`, once and after each upgrade; then take it back:
    GRANT CREATE, ALTER, INDEX, REFERENCES ON `pull\_re`.* TO 'pullre_controller'@'%';
    --   REVOKE CREATE, ALTER, INDEX, REFERENCES ON `pull\_re`.* FROM 'pullre_controller'@'%';

    -- Every staging server (mysql_user of its app.ini), once `update-pull init` has made the
    -- tables. The app's own login is the app's matter: it needs its server's schema.
    GRANT SELECT (server_id) ON `pull_re`.`agent_troubles` TO 'pullre_client'@'%';
    GRANT SELECT (server_id, deployment_id, times) ON `pull_re`.`app_deaths` TO 'pullre_client'@'%';
    GRANT SELECT (server_id, pull_number, deployment_id) ON `pull_re`.`assignments` TO 'pullre_client'@'%';
    GRANT SELECT ON `pull_re`.`deployments` TO 'pullre_client'@'%';
    GRANT SELECT (id, deployment_id, name, started_at, finished_at, exit_status, output) ON `pull_re`.`deployment_steps` TO 'pullre_client'@'%';
    GRANT SELECT (name, state) ON `pull_re`.`local_slots` TO 'pullre_client'@'%';
    GRANT SELECT (number, sha, ref, is_launched) ON `pull_re`.`pull_requests` TO 'pullre_client'@'%';
    GRANT SELECT (number, held_at, held_until, held_reason) ON `pull_re`.`pull_wishes` TO 'pullre_client'@'%';
    GRANT SELECT (name) ON `pull_re`.`schema_migrations` TO 'pullre_client'@'%';
    GRANT SELECT (server_id, app_pull, app_sha, held_at, held_until, held_reason) ON `pull_re`.`server_facts` TO 'pullre_client'@'%';
    GRANT SELECT (server_id) ON `pull_re`.`server_pulses` TO 'pullre_client'@'%';
    GRANT SELECT (id, name, instance_id, private_ip, db_schema, check_url) ON `pull_re`.`servers` TO 'pullre_client'@'%';
    GRANT SELECT (name) ON `pull_re`.`settings` TO 'pullre_client'@'%';
    GRANT INSERT (server_id, message) ON `pull_re`.`agent_troubles` TO 'pullre_client'@'%';
    GRANT INSERT (deployment_id, times, died_at, again_at, reason, server_id) ON `pull_re`.`app_deaths` TO 'pullre_client'@'%';
    GRANT INSERT (deployment_id, name, started_at, output) ON `pull_re`.`deployment_steps` TO 'pullre_client'@'%';
    GRANT INSERT (at, actor, pull_number, server_id, message) ON `pull_re`.`events` TO 'pullre_client'@'%';
    GRANT INSERT (server_id, start_attempts, stop_owed) ON `pull_re`.`server_facts` TO 'pullre_client'@'%';
    GRANT INSERT (free_bytes, total_bytes, load_percent, server_id) ON `pull_re`.`server_pulses` TO 'pullre_client'@'%';
    GRANT UPDATE (message) ON `pull_re`.`agent_troubles` TO 'pullre_client'@'%';
    GRANT UPDATE (deployment_id, times, died_at, again_at, reason) ON `pull_re`.`app_deaths` TO 'pullre_client'@'%';
    GRANT UPDATE (finished_at, exit_status, output) ON `pull_re`.`deployment_steps` TO 'pullre_client'@'%';
    GRANT UPDATE (outcome, interruptions, started_at, finished_at, failed_step, reason) ON `pull_re`.`deployments` TO 'pullre_client'@'%';
    GRANT UPDATE (is_launched) ON `pull_re`.`pull_requests` TO 'pullre_client'@'%';
    GRANT UPDATE (agent_seen_at, agent_version, app_pull, app_sha) ON `pull_re`.`server_facts` TO 'pullre_client'@'%';
    GRANT UPDATE (free_bytes, total_bytes, load_percent) ON `pull_re`.`server_pulses` TO 'pullre_client'@'%';
    ");
}

#[test]
fn a_controllers_login_makes_clones_and_replaces_them() {
    let logins = Logins::new();
    logins.initialized();
    let name = &logins.name;
    let (source, clone) = (format!("{name}_source"), format!("{name}_clone"));
    logins.grant(&[
        format!("CREATE DATABASE {source}"),
        format!("USE {source}"),
        "CREATE TABLE parent (id INT PRIMARY KEY)".to_owned(),
        "CREATE TABLE child (id INT PRIMARY KEY, parent INT,
             FOREIGN KEY (parent) REFERENCES parent (id))"
            .to_owned(),
        "INSERT INTO parent VALUES (1)".to_owned(),
        "INSERT INTO child VALUES (1, 1)".to_owned(),
        "CREATE VIEW both_of_them AS SELECT id FROM parent".to_owned(),
        "CREATE TRIGGER t BEFORE INSERT ON child FOR EACH ROW SET @x = 1".to_owned(),
    ]);
    let mut own = store(&logins.controller);
    let mut operator = Operator { store: &mut own, who: "olga", now: at(0) };
    operator.user_set("dev1", &source).unwrap();
    operator.server_register("i-1", false).unwrap();
    operator.server_set("i-1", &[format!("db_schema={clone}")]).unwrap();
    logins.grant(&logins.grants(&own.facts().unwrap()).controller);
    let access = MysqlAccess::new(&logins.controller).unwrap().0;
    let schemas = Schemas::Mysql(pullre::schema_clone::mysql::Server::new(access));
    let (from, to) = (source.parse().unwrap(), clone.parse().unwrap());
    // The second one is made beside the first.
    for _ in 0..2 {
        let done = schemas
            .clone_schema(&Request::new(&from, &to, Duration::from_secs(60)), &mut |_| {})
            .unwrap();
        assert_eq!((done.tables, done.rows), (2, 2));
    }
    let mut connection = raw(&logins.controller);
    connection.execute(&format!("INSERT INTO {clone}.child VALUES (2, 1)"), &[]).unwrap();
    let rows = connection.query(&format!("SELECT id FROM {clone}.both_of_them"), &[]);
    assert_eq!(rows.unwrap().len(), 1);

    // Masked, with the one before kept, and back.
    let mask = Mask::parse("child.parent = null", Dialect::Mysql).unwrap();
    let request = Request {
        mask: &mask,
        keep_previous: true,
        ..Request::new(&from, &to, Duration::from_secs(60))
    };
    let done = schemas.clone_schema(&request, &mut |_| {}).unwrap();
    assert!(done.kept_previous, "{:?}", done.notes);
    let mut children =
        || connection.query(&format!("SELECT id FROM {clone}.child"), &[]).unwrap().len();
    assert_eq!(children(), 1);
    schemas.undo(&to, 1, Duration::from_secs(60)).unwrap();
    assert_eq!(children(), 2);
}

//! Schemas on the test's MariaDB, and what a dump says of them.

use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mysql::Conn;
use mysql::prelude::Queryable;
use pullre::config::{DatabaseConfig, Secret};
use pullre::schema_clone::mask::{Dialect, Mask};
use pullre::schema_clone::mysql::Server;
use pullre::schema_clone::{CloneError, CloneOutcome, Request, Schemas};
use pullre::store::mysql::MysqlAccess;
use testkit::mariadb::Mariadb;

pub const MINUTE: Duration = Duration::from_secs(60);

pub struct World {
    pub mariadb: &'static Mariadb,
    pub server: Server,
    pub mask: Mask,
    pub keep_previous: bool,
    pub wish: Option<i64>,
    /// In all names of this test.
    mark: u32,
}

pub fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// The server of all tests here. Unfriendly as the usual one, but that mariadb-dump may say in
/// which character set it speaks: it depends on the handshake.
pub fn world() -> World {
    static SHARED: OnceLock<Mariadb> = OnceLock::new();
    let options = ["--character-set-client-handshake".to_owned()];
    world_on(SHARED.get_or_init(|| Mariadb::start(&options).unwrap_or_else(|e| panic!("{e}"))))
}

pub fn world_on(mariadb: &'static Mariadb) -> World {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let mark = NEXT.fetch_add(1, Ordering::Relaxed);
    let server = server_as(mariadb.port(), "root", "");
    World { mariadb, server, mask: Mask::default(), keep_previous: false, wish: None, mark }
}

pub fn server_as(port: u16, user: &str, password: &str) -> Server {
    let config = DatabaseConfig::Mysql {
        host: "127.0.0.1".into(),
        port,
        user: user.into(),
        password: Secret::new(password),
        name: "mysql_is_not_used".parse().unwrap(),
        additional: String::new(),
    };
    let mut server = Server::new(MysqlAccess::new(&config).unwrap().0);
    // As many as on a larger machine.
    server.workers = 3;
    server
}

impl World {
    /// A name of this test alone.
    pub fn name(&self, name: &str) -> String {
        format!("w{}_{name}", self.mark)
    }

    pub fn conn(&self) -> Conn {
        let mut conn = self.mariadb.administrator();
        conn.query_drop("SET NAMES utf8mb4").unwrap();
        conn
    }

    pub fn sql(&self, schema: &str, sql: &str) {
        let mut conn = self.conn();
        conn.query_drop(format!("USE {}", quoted(schema))).unwrap();
        let mut answers = conn.query_iter(sql).unwrap();
        while let Some(rows) = answers.iter() {
            for row in rows {
                row.unwrap();
            }
        }
    }

    pub fn create(&self, schema: &str, sql: &str) {
        let create = format!("CREATE DATABASE {} CHARACTER SET utf8mb4", quoted(schema));
        self.conn().query_drop(create).unwrap();
        self.sql(schema, sql);
    }

    /// A session that has begun something there and does not end it.
    pub fn holding(&self, schema: &str, sql: &str) -> Conn {
        let mut conn = self.conn();
        let hold = format!("USE {}; START TRANSACTION; {sql}", quoted(schema));
        let mut answers = conn.query_iter(hold).unwrap();
        while let Some(rows) = answers.iter() {
            rows.for_each(|row| drop(row.unwrap()));
        }
        drop(answers);
        conn
    }

    /// Every table is defined otherwise from now on, so that the next clone makes them all anew.
    pub fn outdate(&self, schema: &str) {
        let tables: Vec<String> = self
            .conn()
            .query(format!(
                "SELECT table_name FROM information_schema.tables
                 WHERE table_schema = '{schema}' AND table_type = 'BASE TABLE'"
            ))
            .unwrap();
        assert!(!tables.is_empty());
        for table in tables {
            self.sql(schema, &format!("ALTER TABLE {} COMMENT = 'outdated'", quoted(&table)));
        }
    }

    pub fn number(&self, schema: &str, sql: &str) -> u64 {
        let mut conn = self.conn();
        conn.query_drop(format!("USE {}", quoted(schema))).unwrap();
        conn.query_first(sql).unwrap().unwrap()
    }

    pub fn schemas(&self) -> Schemas {
        Schemas::Mysql(self.server.clone())
    }

    pub fn try_clone(&self, from: &str, to: &str) -> Result<CloneOutcome, CloneError> {
        let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
        let request = Request {
            mask: &self.mask,
            keep_previous: self.keep_previous,
            wish: self.wish,
            ..Request::new(&from, &to, MINUTE)
        };
        self.schemas().clone_schema(&request, &mut |_| {})
    }

    pub fn undo(&self, schema: &str, wish: i64) -> Result<(), CloneError> {
        self.schemas().undo(&schema.parse().unwrap(), wish, MINUTE)
    }

    /// From now on clones are made under these rules.
    pub fn mask_by(&mut self, rules: &str) {
        self.mask = Mask::parse(rules, Dialect::Mysql).unwrap();
    }

    pub fn clone(&self, from: &str, to: &str) -> CloneOutcome {
        self.try_clone(from, to).unwrap_or_else(|e| panic!("{e}"))
    }

    /// Schemas of this test.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.conn().query("SHOW DATABASES").unwrap();
        names.retain(|name| name.starts_with(&format!("w{}_", self.mark)));
        names.sort();
        names
    }

    /// All of a schema as mariadb-dump writes it, but for the schema's own name and whether events
    /// are enabled.
    pub fn dump(&self, schema: &str) -> String {
        let output = Command::new("mariadb-dump")
            .args(["--no-defaults", "--routines", "--events", "--triggers", "--skip-dump-date"])
            .args(["--skip-comments", "--force", "--user=root", "--skip-extended-insert"])
            .arg(format!("--socket={}", self.mariadb.socket().display()))
            .args(["--", schema])
            .output()
            .expect("these tests need mariadb-dump");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        // The schema's name stands in ALTER DATABASE and in defaults that draw from a sequence.
        let lines = text.lines().map(|line| {
            let line = line.replace(&format!("val({}.", quoted(schema)), "val(`SCHEMA`.");
            if line.starts_with("ALTER DATABASE") {
                return line.replace(&quoted(schema), "`SCHEMA`");
            }
            if line.contains(" EVENT ") {
                return line
                    .replace("PRESERVE ENABLE", "PRESERVE ?")
                    .replace("PRESERVE DISABLE", "PRESERVE ?");
            }
            line
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    pub fn assert_same(&self, from: &str, to: &str) {
        let (from, to) = (self.dump(from), self.dump(to));
        if from != to {
            let differ = from.lines().zip(to.lines()).filter(|(a, b)| a != b).take(8);
            let shown: Vec<_> = differ.map(|(a, b)| format!("- {a}\n+ {b}")).collect();
            let (a, b) = (from.lines().count(), to.lines().count());
            panic!("{a} and {b} lines\n{}", shown.join("\n"));
        }
    }
}

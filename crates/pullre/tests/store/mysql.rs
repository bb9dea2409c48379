//! What is particular to a MySQL server: connecting, losing the connection, waiting for locks.

use std::path::Path;
use std::process::Command;

use mysql::prelude::Queryable;
use pullre::config::{DatabaseConfig, Secret};
use pullre::domain::PullNumber;
use pullre::reconcile::plan::Record;
use pullre::store::backend::Backend;
use pullre::store::mysql::{Mysql, MysqlAccess};
use pullre::store::{Database, Store, StoreError};
use testkit::mariadb::Mariadb;

use crate::db::{at, request};

/// A configuration, changed.
fn with(config: DatabaseConfig, change: impl FnOnce(Words<'_>)) -> DatabaseConfig {
    let mut config = config;
    let DatabaseConfig::Mysql { host, port, user, password, name, additional } = &mut config else {
        panic!("MySQL")
    };
    change(Words { host, port, user, password, name, additional });
    config
}

struct Words<'a> {
    host: &'a mut String,
    port: &'a mut u16,
    user: &'a mut String,
    password: &'a mut Secret,
    name: &'a mut pullre::domain::SchemaName,
    additional: &'a mut String,
}

fn open(config: &DatabaseConfig) -> Result<Mysql, StoreError> {
    Mysql::open(&MysqlAccess::new(config)?.0)
}

fn refused(config: &DatabaseConfig) -> String {
    match open(config) {
        Err(StoreError::Setup(why)) => why,
        other => panic!("{other:?}"),
    }
}

fn login(user: &str, password: &str, grants: &str) {
    let mut administrator = Mariadb::shared().administrator();
    let quoted = password.replace('\\', "\\\\").replace('\'', "''");
    administrator.query_drop("SET NAMES utf8mb4").unwrap();
    administrator.query_drop(format!("CREATE USER '{user}'@'%' IDENTIFIED BY '{quoted}'")).unwrap();
    if !grants.is_empty() {
        administrator.query_drop(format!("GRANT {grants} TO '{user}'@'%'")).unwrap();
    }
}

#[test]
fn a_password_may_hold_anything_and_is_shown_nowhere() {
    let config = Mariadb::shared().database();
    let socket = Mariadb::shared().socket().to_string_lossy().into_owned();
    for (index, secret) in
        ["p%41ss/w:o@r?d#&=+", "it's \\ \"quoted\" `x`", "パスワード🍣", " ", &"x".repeat(200)]
            .into_iter()
            .enumerate()
    {
        let user = format!("hostile{index}");
        login(&user, secret, "ALL ON *.*");
        let by = |host: Option<&str>, secret: &str| {
            with(config.clone(), |words| {
                *words.user = user.clone();
                *words.password = Secret::new(secret);
                if let Some(host) = host {
                    *words.host = host.into();
                }
            })
        };
        for host in [None, Some(socket.as_str())] {
            let mut connection = open(&by(host, secret)).unwrap();
            assert!(!format!("{connection:?}").contains(secret) || secret == " ");
            connection.query("SELECT 1", &[]).unwrap();
        }
        let why = refused(&by(None, "n0t the s3cret"));
        assert!(why.contains("mysql_user") && why.contains(&user), "{why}");
        assert!(!why.contains("n0t the s3cret"), "{why}");
    }
}

#[test]
fn what_is_wrong_in_app_ini_is_named_with_its_remedy() {
    let config = Mariadb::shared().database();
    let missing = with(config.clone(), |words| *words.name = "no`where".parse().unwrap());
    let why = refused(&missing);
    assert!(why.contains("CREATE DATABASE `no``where`"), "{why}");
    login("stranger", "x", "");
    let stranger = with(config.clone(), |words| {
        *words.user = "stranger".into();
        *words.password = Secret::new("x");
    });
    let why = refused(&stranger);
    assert!(why.contains("grants"), "{why}");
    let tls = with(config.clone(), |words| *words.additional = "ssl_mode=REQUIRED".into());
    let why = refused(&tls);
    assert!(why.contains("offers no TLS"), "{why}");
    // Nobody listens there.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let nobody = with(config, |words| *words.port = port);
    match open(&nobody) {
        Err(StoreError::Unavailable(why)) => assert!(why.contains(&port.to_string()), "{why}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn rights_that_are_missing_are_named() {
    let config = Mariadb::shared().database();
    let DatabaseConfig::Mysql { name, .. } = &config else { panic!("MySQL") };
    let mut store = Database::mysql(&config).unwrap().open().unwrap();
    store.migrate(at(0)).unwrap();
    login("reader", "x", &format!("SELECT ON {name}.*"));
    let reader = with(config.clone(), |words| {
        *words.user = "reader".into();
        *words.password = Secret::new("x");
    });
    let mut store = Database::mysql(&reader).unwrap().open().unwrap();
    store.facts().unwrap();
    let error = store.set_paused(Some("by me".into())).unwrap_err();
    assert!(matches!(&error, StoreError::Setup(why) if why.contains("grants")), "{error}");
}

/// Cuts every connection to the database.
fn cut(config: &DatabaseConfig) {
    let DatabaseConfig::Mysql { name, .. } = config else { panic!("MySQL") };
    let mut administrator = Mariadb::shared().administrator();
    let sql = "SELECT id FROM information_schema.processlist WHERE db = ?";
    for id in administrator.exec::<u64, _, _>(sql, (name.as_str(),)).unwrap() {
        administrator.query_drop(format!("KILL {id}")).unwrap();
    }
    // Gone when the server says so.
    while !administrator.exec::<u64, _, _>(sql, (name.as_str(),)).unwrap().is_empty() {
        std::thread::yield_now();
    }
}

fn store_of(config: &DatabaseConfig) -> Store {
    let mut store = Database::mysql(config).unwrap().open().unwrap();
    store.migrate(at(0)).unwrap();
    store
}

#[test]
fn a_read_is_done_again_on_a_new_connection() {
    let config = Mariadb::shared().database();
    let mut store = store_of(&config);
    for _ in 0..2 {
        cut(&config);
        assert!(store.facts().is_ok());
    }
}

#[test]
fn a_write_that_may_have_happened_is_not_done_again() {
    let config = Mariadb::shared().database();
    let mut store = store_of(&config);
    cut(&config);
    let error = store.event(at(1), "tester", Some(PullNumber(1)), None, "one").unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
    assert!(store.events_of(PullNumber(1), 9).unwrap().is_empty());
    store.event(at(1), "tester", Some(PullNumber(1)), None, "two").unwrap();
    assert_eq!(store.events_of(PullNumber(1), 9).unwrap().len(), 1);
}

#[test]
fn a_transaction_begins_on_a_new_connection_but_never_goes_on_there() {
    let config = Mariadb::shared().database();
    let mut store = store_of(&config);
    cut(&config);
    store.record(&[Record::Pull(Box::new(request(1)))], at(1)).unwrap();

    let mut connection = open(&config).unwrap();
    connection.begin().unwrap();
    connection.execute("DELETE FROM pull_requests", &[]).unwrap();
    cut(&config);
    for _ in 0..2 {
        let error = connection.query("SELECT 1", &[]).unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
        connection.commit().unwrap_err();
    }
    connection.rollback().unwrap();
    assert_eq!(connection.query("SELECT number FROM pull_requests", &[]).unwrap().len(), 1);
}

#[test]
fn of_two_that_wait_for_each_other_one_is_told_to_try_again() {
    let config = Mariadb::shared().database();
    drop(store_of(&config));
    let (mut one, mut two) = (open(&config).unwrap(), open(&config).unwrap());
    for name in ["a", "b"] {
        let row = "INSERT INTO settings (name, content) VALUES (?, '')";
        one.execute(row, &[name.into()]).unwrap();
    }
    let touch = |connection: &mut Mysql, name: &str| {
        let sql = "UPDATE settings SET content = content WHERE name = ?";
        // A row that keeps its value counts too.
        connection.execute(sql, &[name.into()]).map(|matched| assert_eq!(matched, 1))
    };
    for (connection, name) in [(&mut one, "a"), (&mut two, "b")] {
        connection.begin().unwrap();
        touch(connection, name).unwrap();
    }
    let results = std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            let result = touch(&mut one, "b");
            one.rollback().unwrap();
            result
        });
        let result = touch(&mut two, "a");
        two.rollback().unwrap();
        [result, other.join().unwrap()]
    });
    let [Err(error)] = &results.into_iter().filter(Result::is_err).collect::<Vec<_>>()[..] else {
        panic!("one of them loses")
    };
    assert!(matches!(error, StoreError::Deadlock(_)), "{error}");
    assert!(error.to_string().contains("try again"), "{error}");
}

#[test]
fn a_text_that_does_not_fit_is_refused_and_not_cut() {
    let config = Mariadb::shared().database();
    drop(store_of(&config));
    let mut connection = open(&config).unwrap();
    let sql = "INSERT INTO local_slots (name, state) VALUES (?, 'x')";
    let error = connection.execute(sql, &["x".repeat(101).into()]).unwrap_err();
    assert!(error.to_string().contains("init"), "{error}");
    let times = connection.query("SELECT @@SESSION.time_zone AS zone", &[]).unwrap();
    assert_eq!(times[0].text("zone").unwrap(), "+00:00");
}

fn openssl(folder: &Path, args: &[&str]) {
    let output = Command::new("openssl").args(args).current_dir(folder).output();
    let output = output.expect("these tests need the openssl program");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn tls_is_used_where_it_is_offered_and_checked_as_asked() {
    let folder = tempfile::tempdir().unwrap();
    let path = |file: &str| folder.path().join(file).to_string_lossy().into_owned();
    std::fs::write(path("san"), "subjectAltName=DNS:localhost").unwrap();
    let ca = ["-subj", "/CN=test authority", "-keyout", "ca.key", "-out", "ca.pem"];
    openssl(
        folder.path(),
        &[&["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"][..], &ca].concat(),
    );
    let request = ["-subj", "/CN=server", "-keyout", "key.pem", "-out", "request.pem"];
    openssl(folder.path(), &[&["req", "-newkey", "rsa:2048", "-nodes"][..], &request].concat());
    let sign = ["-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "san"];
    let files = ["x509", "-req", "-in", "request.pem", "-CA", "ca.pem", "-out", "server.pem"];
    openssl(folder.path(), &[&files[..], &sign].concat());
    let server = Mariadb::start(&[
        format!("--ssl-cert={}", path("server.pem")),
        format!("--ssl-key={}", path("key.pem")),
    ])
    .unwrap_or_else(|e| panic!("{e}"));
    let config = server.database();

    let cipher = |host: &str, additional: &str| -> Result<String, StoreError> {
        let config = with(config.clone(), |words| {
            *words.host = host.into();
            *words.additional = additional.into();
        });
        let sql = "SELECT variable_value AS cipher FROM information_schema.session_status
            WHERE variable_name = 'Ssl_cipher'";
        open(&config)?.query(sql, &[])?[0].text("cipher")
    };
    let ca = path("ca.pem");
    for additional in ["", "?charset=utf8mb4", "ssl_mode=PREFERRED", "ssl_mode=REQUIRED"] {
        assert_ne!(cipher("127.0.0.1", additional).unwrap(), "", "{additional}");
    }
    assert_eq!(cipher("127.0.0.1", "ssl_mode=DISABLED").unwrap(), "");
    // Of an authority that nobody named.
    for mode in ["VERIFY_CA", "VERIFY_IDENTITY"] {
        let error = cipher("localhost", &format!("ssl_mode={mode}")).unwrap_err();
        assert!(matches!(&error, StoreError::Setup(why) if why.contains("ssl_ca")), "{error:?}");
    }
    assert_ne!(cipher("127.0.0.1", &format!("ssl_ca={ca}")).unwrap(), "");
    let identity = format!("ssl_mode=VERIFY_IDENTITY&ssl_ca={ca}");
    assert_ne!(cipher("localhost", &identity).unwrap(), "");
    let error = cipher("127.0.0.1", &identity).unwrap_err();
    assert!(matches!(error, StoreError::Setup(_)), "{error:?}");
    assert!(cipher("localhost", "ssl_ca=/nowhere.pem").is_err());
}

#[test]
fn a_write_after_a_silence_is_not_lost_to_an_impatient_server() {
    let mariadb = Mariadb::start(&["--wait-timeout=1".to_owned()]).unwrap();
    let mut connection = open(&mariadb.database()).unwrap();
    connection.execute("CREATE TABLE t (a INT)", &[]).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1500));
    connection.execute("INSERT INTO t VALUES (1)", &[]).unwrap();
}

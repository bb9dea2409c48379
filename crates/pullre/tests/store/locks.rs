//! Locks of the MySQL server. Those of files are tested where they are.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;

use mysql::prelude::Queryable;
use pullre::config::DatabaseConfig;
use pullre::domain::{PullNumber, ServerId};
use pullre::reconcile::lock::{Held, LockName, Locks};
use pullre::store::mysql::MysqlAccess;
use testkit::mariadb::Mariadb;

const ONE: LockName = LockName::Environment(PullNumber(1));

fn locks(config: &DatabaseConfig) -> Locks {
    Locks::Mysql(MysqlAccess::new(config).unwrap().0)
}

fn take(locks: &Locks) -> Option<Held> {
    locks.try_lock(&ONE).unwrap()
}

#[test]
fn a_lock_is_given_once_and_again_after_its_holder_is_gone() {
    let locks = locks(&Mariadb::shared().database());
    let held = take(&locks).unwrap();
    assert!(held.is_held());
    assert!(take(&locks).is_none());
    assert!(locks.try_lock(&LockName::Server(ServerId(1))).unwrap().is_some());
    drop(held);
    assert!(take(&locks).is_some());
}

#[test]
fn controllers_of_two_databases_do_not_meet() {
    let server = Mariadb::shared();
    let _one = take(&locks(&server.database())).unwrap();
    assert!(take(&locks(&server.database())).is_some());
}

#[test]
fn of_many_that_try_at_once_one_gets_it() {
    let locks = Arc::new(locks(&Mariadb::shared().database()));
    let tries = (0..8).map(|_| {
        let locks = locks.clone();
        std::thread::spawn(move || take(&locks))
    });
    let held: Vec<_> =
        tries.collect::<Vec<_>>().into_iter().filter_map(|t| t.join().unwrap()).collect();
    assert_eq!(held.len(), 1);
}

#[test]
fn a_lock_whose_connection_broke_is_held_no_more() {
    let server = Mariadb::shared();
    let config = server.database();
    let locks = locks(&config);
    let held = take(&locks).unwrap();
    let DatabaseConfig::Mysql { name, .. } = &config else { panic!("MySQL") };
    let mut administrator = server.administrator();
    let holders = "SELECT id FROM information_schema.processlist WHERE db = ?";
    let [holder] = administrator.exec::<u64, _, _>(holders, (name.as_str(),)).unwrap()[..] else {
        panic!("one connection")
    };
    administrator.query_drop(format!("KILL {holder}")).unwrap();
    assert!(!held.is_held());
    assert!(until_free(&locks).is_held());
    assert!(!held.is_held());
}

/// The server notices the end of a connection a moment later.
fn until_free(locks: &Locks) -> Held {
    let mut taken = None;
    testkit::until("it is free", || {
        taken = take(locks);
        taken.is_some()
    });
    taken.unwrap()
}

#[test]
fn a_lock_dies_with_its_process() {
    let config = Mariadb::shared().database();
    let DatabaseConfig::Mysql { port, name, .. } = &config else { panic!("MySQL") };
    let mut holder = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "locks::a_process_that_holds_a_lock", "--ignored", "--nocapture"])
        .env("PULLRE_TEST_LOCK", format!("{port} {name}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let said = BufReader::new(holder.stdout.take().unwrap()).lines();
    assert!(said.map_while(Result::ok).any(|line| line.contains("holds the lock")));
    let locks = locks(&config);
    assert!(take(&locks).is_none());
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert!(until_free(&locks).is_held());
}

#[test]
#[ignore = "the other process of a_lock_dies_with_its_process"]
fn a_process_that_holds_a_lock() {
    let Ok(where_to) = std::env::var("PULLRE_TEST_LOCK") else { return };
    let (port, name) = where_to.split_once(' ').unwrap();
    let config = DatabaseConfig::Mysql {
        host: "127.0.0.1".into(),
        port: port.parse().unwrap(),
        user: "root".into(),
        password: Default::default(),
        name: name.parse().unwrap(),
        additional: String::new(),
    };
    let held = take(&locks(&config)).unwrap();
    println!("holds the lock");
    // Until it is killed.
    let _ = std::io::stdin().read_line(&mut String::new());
    assert!(held.is_held());
}

use pullre::store::{StoreError, all_migrations};

use crate::db::{Db, at};

on_each_engine!(
    running_them_again_does_nothing,
    a_run_that_was_killed_anywhere_is_completed,
    the_database_of_a_newer_version_is_refused,
    a_database_without_all_tables_is_refused,
    two_runs_at_once_end_well,
);

fn running_them_again_does_nothing(db: &mut Db) {
    let (pull, ..) = db.offered(1);
    let before = db.read("SELECT name, applied_at FROM schema_migrations ORDER BY name");
    assert_eq!(before.len(), all_migrations().len());
    assert!(db.migrate(at(99)).unwrap().is_empty());
    assert_eq!(db.read("SELECT name, applied_at FROM schema_migrations ORDER BY name"), before);
    assert!(db.deployment(pull).is_some());
    db.require_tables().unwrap();
}

/// Each statement may have been done without being noted.
fn a_run_that_was_killed_anywhere_is_completed(db: &mut Db) {
    let (pull, ..) = db.offered(1);
    for from in (0..all_migrations().len()).rev() {
        let names = all_migrations()[from..].join("', '");
        db.write(&format!("DELETE FROM schema_migrations WHERE name IN ('{names}')"));
        assert_eq!(db.pending_migrations().unwrap(), all_migrations()[from..]);
        db.migrate(at(99)).unwrap();
        db.require_tables().unwrap();
        assert!(db.deployment(pull).is_some());
    }
}

fn the_database_of_a_newer_version_is_refused(db: &mut Db) {
    db.write("INSERT INTO schema_migrations (name, applied_at) VALUES ('from the future', 0)");
    for error in [db.require_tables().unwrap_err(), db.migrate(at(0)).unwrap_err()] {
        assert!(matches!(&error, StoreError::Newer(name) if name == "from the future"), "{error}");
    }
}

fn a_database_without_all_tables_is_refused(db: &mut Db) {
    db.write("DELETE FROM schema_migrations WHERE name = 'settings'");
    assert!(matches!(db.require_tables(), Err(StoreError::NotInitialized)));
    db.write("DROP TABLE schema_migrations");
    assert!(matches!(db.require_tables(), Err(StoreError::NotInitialized)));
}

fn two_runs_at_once_end_well(db: &mut Db) {
    db.write("DELETE FROM schema_migrations");
    let mut another = db.another();
    std::thread::scope(|scope| {
        let other = scope.spawn(move || another.migrate(at(1)).map(drop));
        db.migrate(at(1)).map(drop).unwrap();
        other.join().unwrap().unwrap();
    });
    db.require_tables().unwrap();
}

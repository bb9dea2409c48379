//! The control database: what every query does, on every engine.
#![allow(clippy::unwrap_used)]

mod db;

/// One test for each engine, visible by name: `assignments::sqlite::a_server_is_given_...`.
/// A function that is not listed is dead code, which the lints refuse.
macro_rules! on_each_engine {
    (empty: $($name:ident),+ $(,)?) => { on_each_engine!(@ empty_sqlite, empty_mariadb: $($name),+); };
    (@ $sqlite:ident, $mariadb:ident: $($name:ident),+) => {
        mod sqlite {
            $(#[test] fn $name() { super::$name(&mut crate::db::$sqlite()) })+
        }
        mod mariadb {
            $(#[test] fn $name() { super::$name(&mut crate::db::$mariadb()) })+
        }
    };
    ($($name:ident),+ $(,)?) => { on_each_engine!(@ sqlite, mariadb: $($name),+); };
}

mod adoption;
mod assignments;
mod clones;
mod console;
mod deployments;
mod grants;
mod history;
mod locks;
mod migrations;
mod mysql;
mod nonsense;
mod operator;
mod pulls;
mod races;
mod reports;
mod servers;
mod texts;
mod transactions;
mod troubled;

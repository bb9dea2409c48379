//! The control database: what every query does, on every engine.
#![allow(clippy::unwrap_used)]

mod db;

/// One test for each engine, visible by name: `assignments::sqlite::a_server_is_given_...`.
/// A function that is not listed is dead code, which the lints refuse.
macro_rules! on_each_engine {
    ($($name:ident),+ $(,)?) => {
        mod sqlite {
            $(#[test] fn $name() { super::$name(&mut crate::db::sqlite()) })+
        }
    };
}

mod assignments;
mod clones;
mod deployments;
mod history;
mod migrations;
mod nonsense;
mod operator;
mod pulls;
mod servers;
mod texts;
mod transactions;

//! Domain, configuration, store and planner. Nothing in here speaks HTTP, AWS, web or git:
//! the outside is reached through the two traits of [`ports`].

// A test that unwraps fails where it stands, which is what it is for.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod admission;
pub mod alerts;
pub mod condition;
pub mod config;
pub mod doctor;
pub mod domain;
pub mod facts;
pub mod grants;
pub mod local_compute;
pub mod ops;
pub mod ownership;
pub mod polling;
pub mod ports;
pub mod reconcile;
pub mod report;
pub mod roster;
pub mod schema_clone;
pub mod stage;
pub mod status;
pub mod store;
pub mod switches;
pub mod words;

//! Domain, configuration, store and planner. Nothing in here speaks HTTP, AWS, web or git:
//! the outside is reached through the two traits of [`ports`].

pub mod config;
pub mod domain;
pub mod ports;

//! The planner against the fake world: stories with the plans that an operator would read, and
//! the rules that hold whatever happens.

#![allow(clippy::unwrap_used)]

mod crashes;
mod data;
mod rules;
mod stories;
mod unreadable;
mod verbs;

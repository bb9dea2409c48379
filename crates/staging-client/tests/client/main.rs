//! What a staging client does, seen from outside: the real binary, real repositories, real
//! processes.

#![allow(clippy::unwrap_used)]

mod commands;
mod crashes;
mod deploys;
mod doctor;
mod failures;
mod git;
mod groups;
mod identity;
mod leftovers;
mod lives;
mod processes;
mod strangers;
mod submodules;
mod users;
mod work_trees;
mod world;

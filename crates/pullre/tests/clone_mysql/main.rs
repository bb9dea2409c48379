//! Cloning MySQL schemas: what is copied, what is refused, and what a kill leaves behind.
#![allow(clippy::unwrap_used)]

mod crash;
mod exact;
mod generated;
mod moments;
mod refresh;
mod refusals;
mod world;

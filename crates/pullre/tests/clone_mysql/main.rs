//! Cloning MySQL schemas: what is copied, what is refused, and what a kill leaves behind.
#![allow(clippy::unwrap_used)]

mod crash;
mod exact;
mod faults;
mod generated;
mod masking;
mod moments;
mod parts;
mod previous;
mod refresh;
mod refusals;
mod world;

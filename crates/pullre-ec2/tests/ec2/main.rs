//! The EC2 client against a server that says what EC2 says, and against moto.

#![allow(clippy::unwrap_used)]

mod moto;
mod reading;
mod refusals;
mod support;

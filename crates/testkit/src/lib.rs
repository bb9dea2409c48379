//! The fake world for tests and the demo. It models what is out there, not the calls that are
//! made: change the world, run the real client, look at what became of it.

pub mod emulate;
pub mod fleet;
pub mod fuse;
pub mod github;
pub mod hub;
pub mod mariadb;
pub mod moto;
mod patience;
pub mod peer;
pub mod world;

pub use patience::until;

//! The fake world for tests and the demo. It models what is out there, not the calls that are
//! made: change the world, run the real client, look at what became of it.

pub mod emulate;
pub mod fleet;
pub mod fuse;
pub mod github;
pub mod hub;
pub mod mariadb;
pub mod moto;
pub mod peer;
pub mod world;

use std::time::{Duration, Instant};

/// Waits for what must come; generous, since the machine may be busy.
#[track_caller]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(60), "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

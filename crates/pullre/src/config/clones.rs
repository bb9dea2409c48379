//! How schemas are cloned.

use std::fs;
use std::time::Duration;

use super::reader::Reader;
use crate::schema_clone::Cloning;
use crate::schema_clone::mask::{Dialect, Mask};
use crate::schema_clone::mysql::SwapBusy;

/// What the controller's app.ini says of clones.
#[derive(Debug, Clone)]
pub struct CloneConfig {
    pub cloning: Cloning,
    /// Connections that copy one schema side by side.
    pub workers: Option<usize>,
    /// A schema larger than this is not cloned.
    pub max_bytes: Option<u64>,
    /// While the server runs more statements than this, a clone waits.
    pub max_running: u32,
    pub swap_busy: SwapBusy,
}

impl CloneConfig {
    /// What is wrong is noted in the reader.
    pub(super) fn read(r: &mut Reader<'_>, dialect: Dialect) -> CloneConfig {
        const DAY: u64 = 24 * 60 * 60;
        let timeout: Duration = r.seconds("clone_timeout", 3600, 1..=DAY);
        let workers = r.parsed("clone_workers", "a number from 1 to 32", |value| {
            value.parse().ok().filter(|n| (1..=32).contains(n))
        });
        let max_bytes = r.parsed("clone_max_bytes", "a number of bytes", |value| {
            value.parse().ok().filter(|n| *n > 0)
        });
        let max_running = r.number("clone_max_running", "statements", 50, 1..=100_000);
        let swap_busy = r.parsed("swap_busy", "`wait` or `kill`", |value| match value {
            "wait" => Some(SwapBusy::Wait),
            "kill" => Some(SwapBusy::Kill),
            _ => None,
        });
        let keep_previous = r.yes_or_no("keep_previous", false);
        CloneConfig {
            cloning: Cloning { timeout, mask: mask(r, dialect), keep_previous },
            workers,
            max_bytes,
            max_running,
            swap_busy: swap_busy.unwrap_or(SwapBusy::Wait),
        }
    }
}

/// A file that cannot be read, or holds one rule that is none, stops everything: without it a
/// clone would hold what nobody shall see.
fn mask(r: &mut Reader<'_>, dialect: Dialect) -> Mask {
    let Some(file) = r.path("mask_file") else { return Mask::default() };
    let text = match fs::read_to_string(&file) {
        Ok(text) => text,
        Err(e) => {
            r.wrong_file("mask_file", &file, format!("cannot be read: {e}"));
            return Mask::default();
        }
    };
    Mask::parse(&text, dialect).unwrap_or_else(|wrong| {
        for wrong in wrong {
            r.wrong_file("mask_file", &file, wrong.to_string());
        }
        Mask::default()
    })
}

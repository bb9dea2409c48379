//! What this machine is like, for the sign of life.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use nix::sys::statvfs::statvfs;
use pullre::facts::Pulse;

/// Of the disk that will be full first.
pub fn measure(folders: &[&Path]) -> Result<Pulse> {
    let mut pulses = Vec::new();
    for folder in folders {
        // One that is not there yet will be on the disk of the folder around it.
        let there = folder.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
        let found = statvfs(there).with_context(|| format!("looking at {}", there.display()))?;
        // What root keeps for itself is nothing to count on.
        let block = found.fragment_size();
        pulses.push(Pulse {
            free_bytes: found.blocks_available().saturating_mul(block),
            total_bytes: found.blocks().saturating_mul(block),
            load_percent: load()?,
        });
    }
    let fullest = pulses.into_iter().min_by_key(|pulse| (!pulse.is_disk_low(), pulse.free_bytes));
    fullest.ok_or_else(|| anyhow!("no folder to look at"))
}

fn load() -> Result<u32> {
    let text = fs::read_to_string("/proc/loadavg").context("reading /proc/loadavg")?;
    let load: f64 = text.split(' ').next().unwrap_or_default().parse().context("/proc/loadavg")?;
    Ok((load * 100.0) as u32)
}

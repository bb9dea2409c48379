//! Whether the server has room for a clone, and breath.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use super::Job;
use super::fault::Fault;
use super::session::Session;
use crate::schema_clone::CloneError;

/// Smaller ones are not worth the question.
const SMALL: u64 = 16 << 20;

/// A server that stays busy is not waited for longer before each piece: every waiting has an end.
const LONGEST: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(200);

/// Refuses a clone that is larger than what is free on the server's disk, where that can be known.
pub(super) fn check(job: &Job<'_>, control: &mut Session) -> Result<(), Fault> {
    let bytes = job.source_bytes.load(Ordering::Relaxed);
    if bytes < SMALL {
        return Ok(());
    }
    match free(job, control)? {
        Some(free) if free < bytes => Err(Fault::Told(CloneError::NoSpace {
            schema: job.destination.clone(),
            place: job.access.place().to_owned(),
            bytes,
            free: Some(free),
        })),
        _ => Ok(()),
    }
}

/// None where nobody tells.
fn free(job: &Job<'_>, control: &mut Session) -> Result<Option<u64>, Fault> {
    const ASKING: &str = "asking for free space";
    let known: Option<(String, String)> = control.one(ASKING, "SELECT @@datadir, @@hostname")?;
    let Some((folder, host)) = known else { return Ok(None) };
    // MariaDB with its plugin `disks`, for logins with the right FILE.
    let disks = "SELECT path, CAST(available AS UNSIGNED) FROM information_schema.disks";
    match control.rows::<(String, u64)>(ASKING, disks) {
        Ok(disks) => {
            let of_folder =
                disks.into_iter().filter(|(path, _)| Path::new(&folder).starts_with(path));
            let nearest = of_folder.max_by_key(|(path, _)| path.len());
            if let Some((_, kilobytes)) = nearest {
                return Ok(Some(kilobytes.saturating_mul(1024)));
            }
        }
        Err(e) if e.is_lost() => return Err(e),
        // No such plugin, or no right.
        Err(_) => {}
    }
    // A container has a name and a disk of its own, although it is reached at this machine.
    let same = std::fs::read_to_string("/proc/sys/kernel/hostname");
    if !job.access.is_near() || !same.is_ok_and(|name| name.trim() == host) {
        return Ok(None);
    }
    let Ok(stat) = nix::sys::statvfs::statvfs(Path::new(&folder)) else { return Ok(None) };
    Ok(Some(stat.blocks_available().saturating_mul(stat.fragment_size())))
}

/// Waits while the server has more to do than the operator wants to add to.
/// `waits` is called before each pause.
pub(super) fn breathe(
    job: &Job<'_>,
    session: &mut Session,
    mut waits: impl FnMut(),
) -> Result<(), Fault> {
    const WAITING: &str = "waiting for a busy server";
    let began = Instant::now();
    loop {
        job.check_time(WAITING)?;
        let running: Option<(String, u64)> =
            session.one(WAITING, "SHOW GLOBAL STATUS LIKE 'Threads_running'")?;
        let busy = running.is_some_and(|(_, n)| n > u64::from(job.max_running));
        if !busy || began.elapsed() >= LONGEST {
            let waited = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            if waited >= PAUSE.as_millis() as u64 {
                job.waited.fetch_add(waited, Ordering::Relaxed);
            }
            return Ok(());
        }
        waits();
        thread::sleep(PAUSE);
    }
}

/// What a person should know of the waiting.
pub(super) fn note(job: &Job<'_>, notes: &mut Vec<String>) {
    let waited = Duration::from_millis(job.waited.load(Ordering::Relaxed));
    if !waited.is_zero() {
        notes.push(format!(
            "its connections waited {} in all for the server, which ran more than {} statements at once",
            crate::words::duration(waited),
            job.max_running
        ));
    }
}

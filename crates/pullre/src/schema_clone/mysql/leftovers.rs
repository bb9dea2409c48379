//! What an earlier run left, and how it is known as ours: schemas by a table of ours in them,
//! statements by a comment.

use std::thread;
use std::time::{Duration, Instant};

use super::Job;
use super::ddl::{self, quoted, text};
use super::fault::Fault;
use super::intent::INTENT;
use super::programs;
use super::session::Session;
use super::source::{self, Kind};
use super::swap::KEPT;

/// Marks a schema that is being built; holds the row that no snapshot may show.
pub(super) const PROBE: &str = "pullre~unfinished";
/// Takes what the copying functions see of the probe.
pub(super) const SEEN: &str = "pullre~seen";
/// Tables of ours, in schemas that are ours to drop.
pub(super) const MARKS: [&str; 4] = [PROBE, INTENT, KEPT, SEEN];
/// Of these, the ones by which a schema is known as ours.
pub(super) const OWNING: [&str; 3] = [PROBE, INTENT, KEPT];

/// How long the sessions of a killed run may take to end.
pub(super) const ORPHANS_WAIT: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Empty,
    /// Of a run that was killed.
    Unfinished,
    Full,
}

/// None where there is no such schema.
pub(super) fn state(session: &mut Session, schema: &str) -> Result<Option<State>, Fault> {
    const LOOKING: &str = "looking at the schema";
    if source::defaults(session, schema)?.is_none() {
        return Ok(None);
    }
    let of = text(schema);
    let found: Option<(u64, u64)> = session.one(
        LOOKING,
        format!(
            "SELECT (SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = {of})
                 + (SELECT COUNT(*) FROM information_schema.routines WHERE routine_schema = {of})
                 + (SELECT COUNT(*) FROM information_schema.events WHERE event_schema = {of}),
             (SELECT COUNT(*) FROM information_schema.tables
                 WHERE table_schema = {of} AND table_name IN ('{}'))",
            OWNING.join("', '")
        ),
    )?;
    Ok(Some(match found {
        Some((0, _)) => State::Empty,
        Some((_, 0)) | None => State::Full,
        Some(_) => State::Unfinished,
    }))
}

/// Stands in each statement that may outlive this process.
pub(super) fn orphan_mark(schema: &str) -> String {
    format!("pullre clones into {:016x}", ddl::hash(schema))
}

/// Drops a schema that is left of an earlier run, if it is there. Never one that is not ours.
pub(super) fn clear(job: &Job<'_>, control: &mut Session, schema: &str) -> Result<(), Fault> {
    match state(control, schema)? {
        None => return Ok(()),
        Some(State::Empty | State::Unfinished) => {}
        Some(State::Full) => {
            return Err(job.in_the_way(schema));
        }
    }
    end_orphans(control, schema)?;
    drop_marked(control, schema)
}

/// Drops a schema that is known as ours by a mark. `DROP DATABASE` is not one step: what it left
/// where it was interrupted could lack the mark, and would be nobody's. So the mark goes last.
pub(super) fn drop_marked(control: &mut Session, schema: &str) -> Result<(), Fault> {
    const DROPPING: &str = "removing a schema of ours";
    let of = text(schema);
    let tables: Vec<String> = control.rows(
        DROPPING,
        format!(
            "SELECT table_name FROM information_schema.tables
             WHERE table_schema = {of} AND table_type <> 'VIEW' AND table_name NOT IN ('{}')",
            OWNING.join("', '")
        ),
    )?;
    if !tables.is_empty() {
        let name = |table: &String| format!("{}.{}", quoted(schema), quoted(table));
        let names: Vec<_> = tables.iter().map(name).collect();
        control.run(DROPPING, format!("DROP TABLE IF EXISTS {}", names.join(", ")))?;
    }
    let programs: Vec<(String, String)> = control.rows(
        DROPPING,
        format!(
            "SELECT 'VIEW', table_name FROM information_schema.views WHERE table_schema = {of}
             UNION ALL SELECT CAST(routine_type AS CHAR), routine_name
             FROM information_schema.routines WHERE routine_schema = {of}
             UNION ALL SELECT 'EVENT', event_name
             FROM information_schema.events WHERE event_schema = {of}"
        ),
    )?;
    for (kind, name) in programs {
        let Some(kind) = Kind::of(&kind) else { continue };
        let name = format!("{}.{}", quoted(schema), quoted(&name));
        match programs::drop_one(control, kind, &name, &orphan_mark(schema)) {
            // It goes with the schema, for which no right to it is needed.
            Err(e) if e.is_forbidden() => {}
            done => done?,
        }
    }
    match control.run(DROPPING, format!("DROP DATABASE IF EXISTS {}", quoted(schema))) {
        // A server that crashed while it made a partitioned table has left a file of it. The schema
        // is empty all the same, and the next table of that name takes the file over.
        Err(e) if e.code() == Some(1010) => {
            tracing::warn!("the schema {schema} is empty and was not removed: {e:?}");
            Ok(())
        }
        done => done,
    }
}

/// The server finishes what a killed process asked for, unless it is ended. False: some of it is
/// still at work.
pub(super) fn end_orphans(control: &mut Session, schema: &str) -> Result<bool, Fault> {
    const ENDING: &str = "ending what an earlier run left";
    let orphans = format!(
        "SELECT id FROM information_schema.processlist
         WHERE id <> CONNECTION_ID() AND info LIKE '%/* {} */%'",
        orphan_mark(schema)
    );
    let began = Instant::now();
    loop {
        let ids: Vec<u64> = control.rows(ENDING, &orphans[..])?;
        if ids.is_empty() {
            return Ok(true);
        }
        if began.elapsed() > ORPHANS_WAIT {
            return Ok(false);
        }
        for id in ids {
            // One that ended by itself is unknown.
            let _ = control.run(ENDING, format!("KILL {id}"));
        }
        thread::sleep(Duration::from_millis(10));
    }
}

//! Makes a schema from another one: tables, rows, keys, foreign keys, programs; then checks it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::copy::{Copied, Copy};
use super::ddl::{self, quoted};
use super::fault::Fault;
use super::session::{Crew, Session, at_once};
use super::source::{self, Schema};
use super::{Job, leftovers, masking, programs};
use crate::schema_clone::{CloneError, Consistency, Phase, Progress};

/// Tables up to this size are made with their keys: adding them later costs more than it gives.
const BIG: u64 = 1 << 20;

/// Connections that create tables: each statement waits for the disk several times.
const CREATORS: usize = 4;
/// Tables that one of them takes at a time.
const BATCH: usize = 5;
/// Small tables whose rows one of them counts at a time.
const COUNTED: usize = 20;

const CREATING: &str = "creating tables";
const LINKING: &str = "adding foreign keys";
const VERIFYING: &str = "verifying the clone";

#[derive(Debug)]
pub(super) struct Built {
    pub tables: u64,
    pub rows: u64,
    pub consistency: Consistency,
}

/// How many connections build it: each statement that creates a table waits for the disk several
/// times, and so does what is written into small tables, for each page that they grow by.
pub(super) fn crew_size(job: &Job<'_>, from: &Schema) -> usize {
    let workers = job.workers.clamp(1, from.tables.len().max(1));
    let waits = job.workers > 1 && from.tables.len() > 2 * BATCH;
    if waits { CREATORS.max(workers) } else { workers }
}

/// Fills the schema `into`, which holds nothing but the tables of the probe. [`super::PROBE`] stays:
/// whoever finds it knows that the schema is not finished.
pub(super) fn build(
    job: &Job<'_>,
    control: &mut Session,
    crew: &mut Crew,
    from: &Schema,
    into: &str,
    notes: &mut Vec<String>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Built, Fault> {
    let Making { creates, keys, links, last } = plan(from, into)?;
    progress(Progress::at(Phase::Creating));
    control.run(CREATING, format!("USE {}", quoted(into)))?;
    for sequence in &from.sequences {
        control
            .run(CREATING, &sequence.ddl[..])
            .map_err(|e| e.about(&format!("sequence `{}`", sequence.name)))?;
    }
    let (last, first): (Vec<_>, Vec<_>) =
        (0..creates.len()).partition(|place| last.contains(place));
    let is_small = from.tables.iter().all(|table| table.bytes <= BIG);
    let copiers = if is_small { crew.sessions.len() } else { job.workers };
    let copiers = copiers.min(crew.sessions.len());
    let copy = Copy { job, source: from, into, big: BIG, keys: &keys, workers: copiers };
    let snapshots = !job.no_snapshots.load(Ordering::Relaxed);
    let ((), pieces) = at_once(
        || {
            create(crew, from, into, &creates, &first)?;
            create(crew, from, into, &creates, &last)
        },
        || copy.prepare(control, snapshots),
    )?;
    // Of many tables they are megabytes.
    drop(creates);
    crew.sessions.truncate(copiers);
    let Ok(copied) = copy.run(control, crew, pieces, progress)? else {
        job.no_snapshots.store(true, Ordering::Relaxed);
        return Err(Fault::Altered("this server copies no snapshots".to_owned()));
    };

    progress(Progress::at(Phase::Linking));
    // One at a time: side by side they can bring the server down.
    for (table, link) in from.tables.iter().zip(links) {
        if let Some(link) = link {
            job.check_time(LINKING)?;
            control.run(LINKING, link).map_err(|e| e.about(&format!("table `{}`", table.name)))?;
        }
    }
    set_sequences(control, from, into, notes)?;
    let programs: Vec<_> = from.programs.iter().collect();
    programs::make(control, into, &from.collation, &programs, false, notes)?;

    progress(Progress::at(Phase::Verifying));
    let (now, clone) =
        at_once(|| count(crew, from, into, &copied.rows), || source::read(control, into))?;
    verify(from, &now, clone.map(without_probe))?;
    masking::dangling(control, from, into, notes)?;
    let Copied { rows, consistency } = copied;
    Ok(Built { tables: from.tables.len() as u64, rows: rows.iter().sum(), consistency })
}

/// How each table is made; see [`ddl::Statements`].
struct Making {
    creates: Vec<Vec<u8>>,
    keys: Vec<Vec<Vec<u8>>>,
    links: Vec<Option<Vec<u8>>>,
    /// By their places: those that a foreign key leads to although they have no key for it. The
    /// server takes such a foreign key only while its parent is not there.
    last: BTreeSet<usize>,
}

fn plan(from: &Schema, into: &str) -> Result<Making, Fault> {
    let waits = |table: &source::Table| table.bytes > BIG && !table.mask.skips();
    let mut parsed = Vec::with_capacity(from.tables.len());
    for table in &from.tables {
        let moved = ddl::move_sequences(&table.ddl, &from.name, into);
        parsed.push(ddl::Table::parse(&moved).ok_or_else(|| {
            Fault::Altered(format!("the definition of table `{}` is of no known form", table.name))
        })?);
    }
    let places = |fold: fn(&str) -> String| -> BTreeMap<String, usize> {
        from.tables.iter().enumerate().map(|(n, table)| (fold(&table.name), n)).collect()
    };
    let (exact, alike) = (places(str::to_owned), places(str::to_lowercase));
    let place = |name: &str| exact.get(name).or_else(|| alike.get(&name.to_lowercase())).copied();
    let keyless = |table: &ddl::Table| -> Vec<usize> {
        let parent = |key: &ddl::ForeignKey| {
            place(&key.parent).filter(|n| !parsed[*n].has_key_on(&key.parent_columns))
        };
        table.foreign_keys().iter().filter_map(parent).collect()
    };
    let last: BTreeSet<_> = parsed.iter().flat_map(keyless).collect();
    let (mut creates, mut keys, mut links) = (Vec::new(), Vec::new(), Vec::new());
    for (table, parsed) in from.tables.iter().zip(&parsed) {
        let is_big = waits(table);
        // A foreign key to or from a table whose keys come later comes last.
        let big_parent = |name: &String| place(name).is_some_and(|n| waits(&from.tables[n]));
        let link = !is_big && !parsed.parents().iter().any(big_parent);
        let link = link || !keyless(parsed).is_empty();
        let name = format!("{}.{}", quoted(into), quoted(&table.name));
        let statements = parsed.statements(&name, is_big, link);
        creates.push(statements.create);
        keys.push(statements.keys);
        links.push(statements.links);
    }
    Ok(Making { creates, keys, links, last })
}

fn create(
    crew: &mut Crew,
    from: &Schema,
    into: &str,
    creates: &[Vec<u8>],
    which: &[usize],
) -> Result<(), Fault> {
    if which.is_empty() {
        return Ok(());
    }
    let next = AtomicUsize::new(0);
    let each = |_: usize, session: &mut Session, _: &super::session::Tell<()>| {
        session.lenient()?;
        session.run(CREATING, format!("USE {}", quoted(into)))?;
        loop {
            let start = next.fetch_add(BATCH, Ordering::Relaxed);
            if start >= which.len() {
                return Ok(());
            }
            let which = &which[start..(start + BATCH).min(which.len())];
            let batch: Vec<_> = which.iter().map(|n| &creates[*n][..]).collect();
            let object =
                |n: usize| which.get(n).map(|n| format!("table `{}`", from.tables[*n].name));
            session.run_each(CREATING, batch.join(&b";\n"[..]), object)?;
        }
    };
    crew.work(each, || {}, |()| {})
}

fn set_sequences(
    control: &mut Session,
    from: &Schema,
    into: &str,
    notes: &mut Vec<String>,
) -> Result<(), Fault> {
    const SETTING: &str = "setting sequences";
    for sequence in &from.sequences {
        let name = quoted(&sequence.name);
        let about = format!("sequence `{}`", sequence.name);
        let value = source::sequence_value(control, &from.name, &sequence.name)?;
        let Some((next, round)) = value else { continue };
        // Only goes forward, from where the sequence starts. The server takes no text of the smallest
        // number.
        let place = quoted(into);
        let set = [
            format!("SELECT SETVAL({place}.{name}, {next}, 0, {round})"),
            format!("ALTER SEQUENCE {place}.{name} RESTART {next}"),
        ];
        let mut is_set = false;
        for sql in set.iter().filter(|_| next != i64::MIN) {
            control.run(SETTING, sql).map_err(|e| e.about(&about))?;
            is_set = source::sequence_value(control, into, &sequence.name)? == value;
            if is_set {
                break;
            }
        }
        if !is_set {
            notes.push(format!("{about} does not go on where the source's does"));
        }
    }
    Ok(())
}

fn wrong(message: impl std::fmt::Display) -> Fault {
    Fault::Altered(format!("the clone is not what the source was: {message}"))
}

/// The clone has the rows that were copied. Returns what the source is by now.
fn count(crew: &mut Crew, from: &Schema, into: &str, rows: &[u64]) -> Result<Schema, Fault> {
    let (small, big): (Vec<usize>, Vec<usize>) = (0..from.tables.len())
        .filter(|n| from.tables[*n].has_rows())
        .partition(|n| from.tables[*n].bytes <= BIG);
    let counted: Vec<&[usize]> = big.chunks(1).chain(small.chunks(COUNTED)).collect();
    let count = |session: &mut Session, tables: &[usize]| -> Result<(), Fault> {
        let ask = |n: &usize| {
            let name = quoted(&from.tables[*n].name);
            format!("SELECT COUNT(*) FROM {}.{name}", quoted(into))
        };
        let asked: Vec<_> = tables.iter().map(ask).collect();
        let about = |n: usize| tables.get(n).map(|n| format!("table `{}`", from.tables[*n].name));
        let found = session.first_rows(VERIFYING, asked.join("; "), about)?;
        let mut found = found.into_iter().map(|row| row.get::<u64, _>(0));
        for table in tables {
            let found = found.next().flatten();
            if found != Some(rows[*table]) {
                return Err(wrong(format_args!(
                    "table `{}` has {} rows where {} were copied",
                    from.tables[*table].name,
                    found.unwrap_or(0),
                    rows[*table]
                )));
            }
        }
        Ok(())
    };
    let next = AtomicUsize::new(0);
    let each = |_: usize, session: &mut Session, tell: &super::session::Tell<Schema>| {
        loop {
            let Some(at) = next.fetch_add(1, Ordering::Relaxed).checked_sub(1) else {
                let now = source::read(session, &from.name)?;
                tell.tell(now.ok_or_else(|| Fault::Altered("it was dropped".to_owned()))?);
                continue;
            };
            match counted.get(at) {
                Some(tables) => count(session, tables)?,
                None => return Ok(()),
            }
        }
    };
    let mut now = None;
    crew.work(each, || {}, |schema| now = Some(schema))?;
    let now = now.ok_or_else(|| wrong("the source was not read"))?;
    let is_ours = |name: &str| from.tables.iter().any(|table| table.name == name);
    Ok(if from.is_part { now.part(is_ours) } else { now })
}

/// The clone has every object of the source in the same words. The source is still what was read at
/// first.
fn verify(from: &Schema, now: &Schema, clone: Option<Schema>) -> Result<(), Fault> {
    let clone = clone.ok_or_else(|| wrong("it is gone"))?;
    // A view that cannot be made is told of; everything else is there.
    let expected = |wanted: &source::Program| {
        clone.programs.iter().any(|made| made.kind == wanted.kind && made.name == wanted.name)
            || !matches!(wanted.kind, source::Kind::View | source::Kind::Event)
    };
    if let Some(difference) = source::difference(from, expected, &clone) {
        return Err(wrong(difference));
    }
    match source::difference(from, |_| true, now) {
        Some(difference) => Err(Fault::Altered(difference)),
        None => Ok(()),
    }
}

/// What a schema holds beside our own marks.
pub(super) fn without_probe(mut schema: Schema) -> Schema {
    schema.tables.retain(|table| !leftovers::MARKS.contains(&table.name.as_str()));
    schema
}

/// Notes on what the clone lacks or shares.
pub(super) fn notes(from: &Schema, notes: &mut Vec<String>) {
    let mut list = |tables: Vec<&str>, what: &str| {
        if !tables.is_empty() {
            notes.push(format!("{what}: `{}`", tables.join("`, `")));
        }
    };
    let names = |pick: &dyn Fn(&source::Table) -> bool| -> Vec<&str> {
        from.tables.iter().filter(|t| pick(t)).map(|t| t.name.as_str()).collect()
    };
    list(names(&|t| t.versioned), "only current rows were copied, not their history");
    list(
        names(&|t| t.has_rows() && t.columns.is_empty()),
        "these have generated columns only, and none of their rows were copied",
    );
    list(names(&|t| !t.has_rows()), "these hold no rows of their own, so none were copied");
    list(
        names(&|t| t.has_rows() && !t.has_snapshots()),
        "the engine of these knows no snapshots: their rows may be of a slightly later moment",
    );
    list(names(&|t| ddl::has_folder(&t.ddl)), "the clone of these lies in the server's own folder");
    let outside =
        |t: &source::Table| ddl::Table::parse(&t.ddl).is_some_and(|table| table.leads_outside());
    list(names(&outside), "foreign keys of these lead to another schema");
    if !from.unreadable.is_empty() {
        notes.push(format!(
            "these were left out, since the login may not read them: {}",
            source::list(&from.unreadable)
        ));
    }
    programs::notes(&from.programs, &from.name, notes);
    if from.tables.is_empty() {
        notes.push(format!("the source schema `{}` holds no tables", from.name));
    }
}

/// More than the operator allows.
pub(super) fn check_size(job: &Job<'_>, from: &Schema) -> Result<(), Fault> {
    let bytes = from.tables.iter().map(source::Table::copied_bytes).sum();
    job.source_bytes.store(bytes, Ordering::Relaxed);
    match job.max_bytes {
        Some(limit) if bytes > limit => Err(Fault::Told(CloneError::TooLarge {
            schema: job.source.clone(),
            place: job.access.place().to_owned(),
            bytes,
            limit,
        })),
        _ => Ok(()),
    }
}

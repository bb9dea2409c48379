//! Brings a clone up to date where it has every object of its source in the same words: tables
//! whose content is the same stay, and where few small ones differ only those are written anew, in
//! one transaction. Whoever looks sees the old content or the new one; a kill leaves the old one.

use std::collections::BTreeMap;

use super::build::{Built, without_probe};
use super::ddl::{self, quoted};
use super::fault::Fault;
use super::session::{Session, at_once};
use super::source::{self, Kind, Schema, Table};
use super::{Job, PROBE, SEEN, masking, swap};
use crate::schema_clone::Consistency;

const COMPARING: &str = "comparing with the clone that is there";
const REWRITING: &str = "rewriting the tables that differ";

/// More than this is copied anew: one transaction would hold it all, and no other connection helps.
const MOST_BYTES: u64 = 16 << 20;

/// More tables are counted, not named.
const MOST_NAMES: usize = 20;

/// Tables that are compared by one statement, so that many differences end it soon.
const BATCH: usize = 50;

/// None where the clone has to be made anew.
pub(super) fn refresh(
    job: &Job<'_>,
    control: &mut Session,
    from: &Schema,
    notes: &mut Vec<String>,
) -> Result<Option<Built>, Fault> {
    let destination = job.destination.as_str();
    // What a killed run still inserts moves counters on, and no rollback moves them back.
    if !super::end_orphans(control, destination)? {
        return Ok(None);
    }
    let Some(old) = source::read(control, destination)?.map(without_probe) else { return Ok(None) };
    if !alike(from, &old) || from.tables.iter().any(|table| !table.has_rows()) {
        return Ok(None);
    }
    // Values of sequences only go forward, and no snapshot holds them: one that differs is made anew.
    for sequence in &from.sequences {
        let value = source::sequence_value(control, &from.name, &sequence.name)?;
        if value.is_none() || value != source::sequence_value(control, destination, &sequence.name)?
        {
            return Ok(None);
        }
    }
    let Some(rows) = bring_up(job, control, from, &old, notes)? else { return Ok(None) };
    match source::read(control, &from.name).map_err(Fault::or_altered)? {
        Some(now) if source::difference(from, &now).is_none() => {}
        _ => return Err(Fault::Altered("its tables are not what they were".to_owned())),
    }
    masking::dangling(control, from, destination, notes)?;
    let tables = from.tables.len() as u64;
    Ok(Some(Built { tables, rows, consistency: Consistency::Snapshot }))
}

/// Returns the rows of all tables.
fn bring_up(
    job: &Job<'_>,
    control: &mut Session,
    from: &Schema,
    old: &Schema,
    notes: &mut Vec<String>,
) -> Result<Option<u64>, Fault> {
    let mut beside = job.session()?;
    let Some(different) = compare_at_once(job, control, &mut beside, from, old)? else {
        return Ok(None);
    };
    control.run(COMPARING, "ROLLBACK")?;
    if different.is_empty() {
        notes.push("nothing differed; the clone stays as it is".to_owned());
    } else if job.keep_previous {
        // What is there is to stay as it is, beside the new one.
        return Ok(None);
    } else {
        // The function and its probe are beside the clone, not in it, and older than the snapshot.
        let (building, _) = swap::beside(&old.name);
        let mut other = beside;
        job.start(&mut other, from, &building, false)?;
        let written = write(job, control, &mut other, from, old, &different, &building);
        let ended = control.run(REWRITING, "ROLLBACK");
        super::clear(job, &mut other, &building)?;
        if !written? {
            return Ok(None);
        }
        ended?;
        let names: Vec<_> = different.iter().map(|n| from.tables[*n].name.as_str()).collect();
        notes.push(if names.len() <= MOST_NAMES {
            format!("only these differed and were rewritten: `{}`", names.join("`, `"))
        } else {
            format!(
                "only {} of {} tables differed and were rewritten",
                names.len(),
                from.tables.len()
            )
        });
    }
    let of = quoted(&old.name);
    let count = |table: &Table| format!("(SELECT COUNT(*) FROM {of}.{})", quoted(&table.name));
    let counts: Vec<_> = from.tables.iter().map(count).collect();
    let mut rows = 0;
    for counts in counts.chunks(BATCH) {
        let sql = format!("SELECT {}", counts.join(" + "));
        rows += control.one::<u64>(COMPARING, sql)?.unwrap_or(0);
    }
    Ok(Some(rows))
}

/// Whether both have the same objects in the same words, but for counters.
fn alike(from: &Schema, old: &Schema) -> bool {
    let same_programs = from.programs.len() == old.programs.len()
        && from.programs.iter().zip(&old.programs).all(|(a, b)| {
            let mut a = a.clone();
            if a.kind == Kind::Event {
                match ddl::disabled(&a.sql) {
                    Some(sql) => a.sql = sql,
                    None => return false,
                }
            }
            a == *b
        });
    same_programs
        && from.unreadable.is_empty()
        && (&from.charset, &from.collation) == (&old.charset, &old.collation)
        && source::difference(from, old).is_none()
}

/// The source as of one moment: `control`'s snapshot stays open. The clone is read in `beside`, at
/// the same time.
fn compare_at_once(
    job: &Job<'_>,
    control: &mut Session,
    beside: &mut Session,
    from: &Schema,
    old: &Schema,
) -> Result<Option<Vec<usize>>, Fault> {
    const START: &str = "START TRANSACTION WITH CONSISTENT SNAPSHOT";
    control.run(COMPARING, START)?;
    beside.run(COMPARING, START)?;
    let different = compare(job, [control, beside], from, old);
    beside.run(COMPARING, "ROLLBACK")?;
    if !matches!(different, Ok(Some(_))) {
        control.run(COMPARING, "ROLLBACK")?;
    }
    different
}

/// The tables that differ, by their places; None where they are too many.
fn compare(
    job: &Job<'_>,
    [control, beside]: [&mut Session; 2],
    from: &Schema,
    old: &Schema,
) -> Result<Option<Vec<usize>>, Fault> {
    let mut order: Vec<usize> = (0..from.tables.len()).collect();
    // Differences are found in small tables as well as in large ones, and sooner.
    order.sort_by_key(|index| from.tables[*index].bytes);
    let (mut different, mut bytes) = (Vec::new(), 0);
    for batch in order.chunks(BATCH) {
        job.check_time(COMPARING)?;
        let sums = at_once(
            || checksums(control, from, batch).map_err(Fault::or_altered),
            || checksums(beside, old, batch),
        )?;
        let sum = |side: usize, at: usize| sums[side].get(at).copied().flatten();
        // No sum: a table that cannot be read. What a mask lets through is not compared but
        // written anew: its expressions may say something else each time.
        let alike = |(at, index): &(usize, &usize)| {
            let masked = from.tables[**index].mask.changes();
            !masked && sum(0, *at).is_some() && sum(0, *at) == sum(1, *at)
        };
        let alike: Vec<usize> =
            batch.iter().enumerate().filter(alike).map(|(_, index)| *index).collect();
        let rows = at_once(|| row_sums(control, from, &alike), || row_sums(beside, old, &alike))?;
        for (at, index) in batch.iter().enumerate() {
            let (a, b) = (&from.tables[*index], &old.tables[*index]);
            let same = rows[0].contains_key(index) && rows[0].get(index) == rows[1].get(index);
            let both_empty = a.mask.skips() && sum(1, at) == Some(0);
            if !(same || both_empty) || ddl::counter(&a.ddl) != ddl::counter(&b.ddl) {
                different.push(*index);
                bytes += a.copied_bytes().max(b.bytes);
                if bytes > MOST_BYTES {
                    return Ok(None);
                }
            }
        }
    }
    let has_trigger = |table: &Table| {
        from.programs.iter().any(|p| p.kind == Kind::Trigger && p.table == table.name)
    };
    let fits = |index: &usize| {
        let table = &from.tables[*index];
        let is_plain = table.has_snapshots() && !table.versioned && !table.columns.is_empty();
        is_plain && !has_trigger(table)
    };
    Ok(different.iter().all(fits).then_some(different))
}

/// What is different in these differs.
fn checksums(
    session: &mut Session,
    schema: &Schema,
    batch: &[usize],
) -> Result<Vec<Option<u64>>, Fault> {
    let name = |n: &usize| format!("{}.{}", quoted(&schema.name), quoted(&schema.tables[*n].name));
    let names: Vec<_> = batch.iter().map(name).collect();
    let sql = format!("CHECKSUM TABLE {}", names.join(", "));
    let rows: Vec<(String, Option<u64>)> = session.rows(COMPARING, sql)?;
    Ok(rows.into_iter().map(|(_, sum)| sum).collect())
}

/// What is the same in these as well is the same: `CHECKSUM TABLE` does not see where one text ends
/// and the next begins, and two rows that exchange a value can keep its sum. Empty where the server
/// does not understand the question: then nothing is known to be the same.
fn row_sums(
    session: &mut Session,
    schema: &Schema,
    tables: &[usize],
) -> Result<BTreeMap<usize, (u64, u64)>, Fault> {
    let ask = |index: &usize| {
        let table = &schema.tables[*index];
        // The numbers' digits, and not the numbers: sums of sums of bits would have their faults.
        let column = |name: &String| format!("IFNULL(CRC32({}), '-')", quoted(name));
        let mut columns: Vec<_> = table.columns.iter().map(column).collect();
        columns.push("''".to_owned());
        format!(
            "SELECT {index}, COUNT(*), CAST(IFNULL(SUM(CRC32(CONCAT_WS(',', {}))), 0) AS UNSIGNED)
             FROM {}.{}",
            columns.join(", "),
            quoted(&schema.name),
            quoted(&table.name)
        )
    };
    let asked: Vec<_> = tables.iter().map(ask).collect();
    if asked.is_empty() {
        return Ok(BTreeMap::new());
    }
    match session.rows::<(usize, u64, u64)>(COMPARING, asked.join(" UNION ALL ")) {
        Ok(rows) => Ok(rows.into_iter().map(|(n, rows, sum)| (n, (rows, sum))).collect()),
        Err(e) if e.is_lost() => Err(e),
        Err(e) => {
            tracing::debug!("rows cannot be compared: {e:?}");
            Ok(BTreeMap::new())
        }
    }
}

fn about(tables: &[&str]) -> String {
    let (named, more) = tables.split_at(tables.len().min(MOST_NAMES));
    let more = if more.is_empty() { "" } else { " or another one" };
    format!("table `{}`{more}", named.join("` or `"))
}

/// False: this server has no snapshots to copy from, and nothing was written.
fn write(
    job: &Job<'_>,
    control: &mut Session,
    other: &mut Session,
    from: &Schema,
    old: &Schema,
    different: &[usize],
    building: &str,
) -> Result<bool, Fault> {
    let beside = quoted(building);
    let mark = format!("/* {} */", super::orphan_mark(&old.name));
    let function = format!("{beside}.`pullre~copy~0`");
    let mut body = format!(
        "CREATE FUNCTION {function}() RETURNS INT MODIFIES SQL DATA BEGIN
             INSERT INTO {beside}.`{SEEN}` SELECT * FROM {beside}.`{PROBE}`;\n"
    );
    for index in different {
        let table = &from.tables[*index];
        body += &format!("DELETE {mark} FROM {}.{};\n", quoted(&old.name), quoted(&table.name));
        if let Some(fill) = masking::fill(table, &from.name, &old.name) {
            body += &format!("{fill};\n");
        }
    }
    body += "RETURN 0;\nEND";
    match other.run(REWRITING, body) {
        Err(e) if e.is_forbidden() => return Ok(false),
        made => made?,
    }
    // What is written is of this moment, so what differs is asked again.
    match compare_at_once(job, control, other, from, old)? {
        Some(now) if now.iter().all(|index| different.contains(index)) => {}
        _ => return Ok(false),
    }
    other.run(REWRITING, format!("INSERT INTO {beside}.`{PROBE}` VALUES (1)"))?;
    let names: Vec<_> = different.iter().map(|n| &from.tables[*n].name[..]).collect();
    match control.run(REWRITING, format!("SELECT {mark} {function}()")) {
        // Somebody writes there at this moment: made anew, it is swapped with more care.
        Err(e) if e.is_busy() => return Ok(false),
        done => done.map_err(|e| e.about(&about(&names)).or_altered())?,
    }
    let seen: Option<u64> =
        control.one(REWRITING, format!("SELECT COUNT(*) FROM {beside}.`{SEEN}`"))?;
    if seen != Some(0) {
        control.run(REWRITING, "ROLLBACK")?;
        return Ok(false);
    }
    control.run(REWRITING, "COMMIT")?;
    for (index, ddl) in different.iter().zip(source::shown(other, &old.name, &names)?) {
        // As it is now: rows that came put it forward, and nothing puts it back.
        let (wanted, has) = (ddl::counter(&from.tables[*index].ddl), ddl::counter(&ddl));
        if wanted != has {
            let table = format!("{}.{}", quoted(&old.name), quoted(&from.tables[*index].name));
            let sql =
                format!("ALTER {mark} TABLE {table} AUTO_INCREMENT = {}", wanted.unwrap_or(1));
            other.run(REWRITING, sql).map_err(|e| e.about(&format!("table {table}")))?;
        }
    }
    Ok(true)
}

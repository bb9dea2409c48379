//! Brings a clone up to date where most of it is defined as its source is: tables whose content is
//! the same stay, and small ones that differ in rows are written anew, in one transaction. Whoever
//! looks sees the old content or the new one; a kill leaves the old one.
//!
//! Tables of another definition, and those that only one side has, are made anew beside the clone and
//! exchanged in the middle of that transaction, right before its rows are written. All is as of the
//! moment at which it began. A kill between the two leaves new tables beside old rows of the others,
//! until the next clone.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use super::build::{self, Built, without_probe};
use super::copy::{AT_WORK, at_work};
use super::ddl::{self, quoted};
use super::fault::Fault;
use super::intent::intend;
use super::leftovers::{self, PROBE, SEEN};
use super::parts::{Parts, parts};
use super::session::{Session, at_once};
use super::source::{self, Kind, Schema, Table};
use super::{Job, masking, names, rights, swap};
use crate::schema_clone::{Consistency, Phase, Progress};

const COMPARING: &str = "comparing with the clone that is there";
const REWRITING: &str = "rewriting the tables that differ";

/// More than this is copied anew: one transaction would hold it all, and no other connection helps.
const MOST_BYTES: u64 = 16 << 20;

/// More tables are counted, not named.
const MOST_NAMES: usize = 20;

/// Tables that are compared by one statement, so that many differences end it soon.
const BATCH: usize = 50;

/// What is in the destination, and the session that read it.
pub(super) struct There {
    session: Session,
    /// None: nothing, or something that somebody is still at work on.
    old: Option<Schema>,
}

impl There {
    pub fn old(&self) -> Option<&Schema> {
        self.old.as_ref()
    }
}

/// Reads the destination, after what a killed run left at work there has ended.
pub(super) fn look(job: &Job<'_>) -> Result<There, Fault> {
    let mut session = job.session()?;
    let destination = job.destination.as_str();
    // What a killed run still inserts moves counters on, and no rollback moves them back.
    let old = match leftovers::end_orphans(&mut session, destination)? {
        true => source::read_ours(&mut session, destination)?.map(without_probe),
        false => None,
    };
    Ok(There { session, old })
}

/// None where the clone has to be made anew.
pub(super) fn refresh(
    job: &Job<'_>,
    control: &mut Session,
    there: There,
    from: &Schema,
    notes: &mut Vec<String>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Option<Built>, Fault> {
    let destination = job.destination.as_str();
    let There { session: mut other, old } = there;
    let Some(parts) = old.and_then(|old| parts(from, &old)) else { return Ok(None) };
    if from.tables.iter().any(|table| !table.has_rows()) {
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
    let Some(rows) = bring_up(job, [control, &mut other], &parts, notes, progress)? else {
        return Ok(None);
    };
    match source::read(control, &from.name)? {
        Some(now) if source::difference(from, |_| true, &now).is_none() => {}
        _ => return Err(Fault::Altered("its tables are not what they were".to_owned())),
    }
    masking::dangling(control, from, destination, notes)?;
    let tables = from.tables.len() as u64;
    Ok(Some(Built { tables, rows, consistency: Consistency::Snapshot }))
}

/// Returns the rows of all tables.
fn bring_up(
    job: &Job<'_>,
    [control, other]: [&mut Session; 2],
    parts: &Parts,
    notes: &mut Vec<String>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Option<u64>, Fault> {
    let Some(seen) = compare_at_once(job, control, other, parts)? else { return Ok(None) };
    control.run(COMPARING, "ROLLBACK")?;
    if seen.different.is_empty() && parts.all_stay() {
        notes.push("nothing differed; the clone stays as it is".to_owned());
        return Ok(Some(seen.rows));
    }
    // What is there is to stay as it is, beside the new one.
    if job.keep_previous || job.no_snapshots.load(Ordering::Relaxed) {
        return Ok(None);
    }
    let (building, _) = names::beside(job.destination.as_str());
    let rewriting = Rewriting { job, parts, different: &seen.different, building: &building };
    let made = rewriting.all([control, other], progress);
    let ended = control.run(REWRITING, "ROLLBACK");
    let cleared = match swap::is_written_down(job, other) {
        // The next call goes on from it.
        Ok(true) => Ok(()),
        Ok(false) => leftovers::clear(job, other, &building),
        Err(e) => Err(e),
    };
    if let Err(e) = cleared {
        // It may have been `other` that failed; what stays is replaced by the next clone.
        tracing::warn!("{building} was not removed: {e:?}");
    }
    let Some((rows, told)) = made? else { return Ok(None) };
    ended?;
    notes.extend(told);
    tell(parts, &seen.different, notes);
    Ok(Some(rows))
}

fn tell(parts: &Parts, different: &[usize], notes: &mut Vec<String>) {
    let all = parts.from.tables.len() + parts.coming.tables.len();
    let mut tell = |what: &str, names: Vec<&str>| match names.len() {
        0 => {}
        1..=MOST_NAMES => notes.push(format!("only these {what}: `{}`", names.join("`, `"))),
        several => notes.push(format!("only {several} of {all} tables {what}")),
    };
    let names = |schema: &Schema| -> Vec<String> {
        schema.tables.iter().map(|table| table.name.clone()).collect()
    };
    let (coming, mut gone) = (names(&parts.coming), names(&parts.going));
    gone.retain(|name| !coming.contains(name));
    let rewritten = different.iter().map(|n| &parts.from.tables[*n].name[..]).collect();
    tell("differed and were rewritten", rewritten);
    tell("were made anew", coming.iter().map(String::as_str).collect());
    tell("were not in the source and are gone", gone.iter().map(String::as_str).collect());
}

/// What two schemas of the same definitions differ in.
#[derive(Debug, Default)]
struct Seen {
    /// Tables, by their places.
    different: Vec<usize>,
    /// Of all the others.
    rows: u64,
}

/// The source as of one moment: `control`'s snapshot stays open. The clone is read in `other`, at
/// the same time.
fn compare_at_once(
    job: &Job<'_>,
    control: &mut Session,
    other: &mut Session,
    parts: &Parts,
) -> Result<Option<Seen>, Fault> {
    const START: &str = "START TRANSACTION WITH CONSISTENT SNAPSHOT";
    control.run(COMPARING, START)?;
    other.run(COMPARING, START)?;
    let seen = compare(job, [control, other], &parts.from, &parts.old);
    other.run(COMPARING, "ROLLBACK")?;
    if !matches!(seen, Ok(Some(_))) {
        control.run(COMPARING, "ROLLBACK")?;
    }
    seen
}

/// None where too much differs.
fn compare(
    job: &Job<'_>,
    [control, other]: [&mut Session; 2],
    from: &Schema,
    old: &Schema,
) -> Result<Option<Seen>, Fault> {
    let mut order: Vec<usize> = (0..from.tables.len()).collect();
    // Differences are found in small tables as well as in large ones, and sooner.
    order.sort_by_key(|index| from.tables[*index].bytes);
    let (mut seen, mut bytes) = (Seen::default(), 0);
    for batch in order.chunks(BATCH) {
        job.check_time(COMPARING)?;
        let (sums, old_sums) = at_once(
            || checksums(control, from, batch).map_err(Fault::or_altered),
            || checksums(other, old, batch),
        )?;
        let sum = |sums: &[Option<u64>], at: usize| sums.get(at).copied().flatten();
        // No sum: a table that cannot be read. What a mask lets through is not compared but
        // written anew: its expressions may say something else each time.
        let equal = |(at, index): &(usize, &usize)| {
            let masked = from.tables[**index].mask.changes();
            !masked && sum(&sums, *at).is_some() && sum(&sums, *at) == sum(&old_sums, *at)
        };
        let equal: Vec<usize> =
            batch.iter().enumerate().filter(equal).map(|(_, index)| *index).collect();
        let (rows, old_rows) =
            at_once(|| row_sums(control, from, &equal), || row_sums(other, old, &equal))?;
        for (at, index) in batch.iter().enumerate() {
            let (a, b) = (&from.tables[*index], &old.tables[*index]);
            let same = rows.get(index).filter(|sum| old_rows.get(index) == Some(*sum));
            let both_empty = a.mask.skips() && sum(&old_sums, at) == Some(0);
            let is_same = same.is_some() || both_empty;
            if is_same && ddl::counter(&a.ddl) == ddl::counter(&b.ddl) {
                seen.rows += same.map_or(0, |(rows, _)| *rows);
                continue;
            }
            seen.different.push(*index);
            bytes += a.copied_bytes().max(b.bytes);
            if bytes > MOST_BYTES {
                return Ok(None);
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
    Ok(seen.different.iter().all(fits).then_some(seen))
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

/// How a clone of which something differs is brought up to date.
struct Rewriting<'a> {
    job: &'a Job<'a>,
    parts: &'a Parts,
    /// Tables that stay and get other rows, by their places.
    different: &'a [usize],
    /// The schema beside the clone: of what comes, the probe, and the function that writes.
    building: &'a str,
}

impl Rewriting<'_> {
    /// Makes anew what has to be, beside the clone, and rewrites what differs, in one transaction:
    /// both as of one moment. Returns the rows of all tables, and notes; None: what is there was left
    /// as it is.
    fn all(
        &self,
        [control, other]: [&mut Session; 2],
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Option<(u64, Vec<String>)>, Fault> {
        let Rewriting { job, parts, building, .. } = self;
        if !parts.all_stay() {
            let kinds = rights::kinds([&parts.coming, &parts.going]);
            rights::may_exchange(job, other, &kinds)?;
        }
        job.start(other, &parts.from, building, false)?;
        job.make_seen(other, building)?;
        let (mut coming, mut notes) = (0, Vec::new());
        if !parts.coming.tables.is_empty() {
            let mut crew = job.crew(build::crew_size(job, &parts.coming))?;
            let built =
                build::build(job, other, &mut crew, &parts.coming, building, &mut notes, progress)?;
            coming = built.rows;
            job.clear_probe(other, building)?;
        }
        progress(Progress::at(Phase::Swapping));
        // A session that works in the clone is one that may be ended.
        control.run(REWRITING, format!("USE {}", quoted(&parts.from.name)))?;
        match other.run(REWRITING, self.function()) {
            Err(e) if e.makes_no_function() => return Ok(None),
            made => made?,
        }
        let Some(seen) = self.compare_again(control, other)? else { return Ok(None) };
        if !self.write([control, other])? {
            return Ok(None);
        }
        self.put_counters_back(other)?;
        let rewritten = count(control, &parts.old, &seen.different)?;
        Ok(Some((coming + seen.rows + rewritten, notes)))
    }

    fn name(&self) -> String {
        format!("{}.`pullre~copy~0`", quoted(self.building))
    }

    fn mark(&self) -> String {
        format!("/* {} */", leftovers::orphan_mark(self.job.destination.as_str()))
    }

    fn function(&self) -> String {
        let (Parts { from, old, .. }, mark) = (self.parts, self.mark());
        let mut body = format!(
            "CREATE FUNCTION {}() RETURNS INT MODIFIES SQL DATA BEGIN
                 INSERT INTO {1}.`{SEEN}` SELECT * FROM {1}.`{PROBE}`;\n",
            self.name(),
            quoted(self.building)
        );
        for index in self.different {
            let table = &from.tables[*index];
            let (of, name) = (quoted(&old.name), quoted(&table.name));
            body += &format!("SET {AT_WORK} = {index};\nDELETE {mark} FROM {of}.{name};\n");
            if let Some(fill) = masking::fill(table, &from.name, &old.name) {
                body += &format!("{fill};\n");
            }
        }
        body + "RETURN 0;\nEND"
    }

    /// What is written is of this moment, so what differs is asked again; what was built is a little
    /// older. None where something else differs by now. `control`'s snapshot stays open.
    fn compare_again(
        &self,
        control: &mut Session,
        other: &mut Session,
    ) -> Result<Option<Seen>, Fault> {
        let Rewriting { job, parts, different, building } = self;
        let Some(seen) = compare_at_once(job, control, other, parts)? else { return Ok(None) };
        let is_known = seen.different.iter().all(|index| different.contains(index));
        if !is_known || parts.all_stay() {
            return Ok(is_known.then_some(seen));
        }
        let built = source::read(other, building)?.map(without_probe);
        let Some(built) = built.filter(|b| b.tables.len() == parts.coming.tables.len()) else {
            return Ok(None);
        };
        let now = compare(job, [control, other], &parts.coming, &built)?;
        Ok(now.is_some_and(|now| now.different.is_empty()).then_some(seen))
    }

    /// Writes anew what differs, and puts what was built in its place. False: all is as it was.
    fn write(&self, [control, other]: [&mut Session; 2]) -> Result<bool, Fault> {
        let Rewriting { job, parts: Parts { from, coming, going, .. }, building, .. } = self;
        let exchanges = !self.parts.all_stay();
        let place = quoted(building);
        other.run(REWRITING, format!("INSERT INTO {place}.`{PROBE}` VALUES (1)"))?;
        if exchanges {
            intend(job, other, coming, going, building, job.destination.as_str(), None)?;
            // Before the rows are written, which holds the children of what is written too. A kill
            // behind it leaves the new tables beside the old rows of the others.
            if let Err(fault) = swap::exchange(job, other) {
                tracing::debug!("the tables that differ were not exchanged: {fault:?}");
                control.run(REWRITING, "ROLLBACK")?;
                swap::finish(job, other)?;
                return Ok(false);
            }
        }
        let copy = format!("SELECT {} {}()", self.mark(), self.name());
        let seen = format!("SELECT COUNT(*) FROM {place}.`{SEEN}`");
        let copied = control.run(REWRITING, copy).map_err(|e| {
            let at_work = at_work(control, &e).and_then(|index| from.tables.get(index));
            e.about(
                &at_work.map_or("a table".to_owned(), |table| format!("table `{}`", table.name)),
            )
        });
        let written = copied.and_then(|()| control.one(REWRITING, seen));
        if !matches!(written, Ok(Some(0_u64))) {
            control.run(REWRITING, "ROLLBACK")?;
            if exchanges {
                swap::take_back(job, other)?;
            }
            return match written {
                // Somebody writes there at this moment: made anew, it is swapped with more care.
                Err(e) if !e.is_busy() => Err(e.or_altered()),
                _ => Ok(false),
            };
        }
        control.run(REWRITING, "COMMIT")?;
        job.moved.store(true, Ordering::Relaxed);
        if exchanges {
            swap::finish(job, other)?;
        }
        Ok(true)
    }

    fn names_in<'s>(&self, from: &'s Schema) -> Vec<&'s str> {
        self.different.iter().map(|n| &from.tables[*n].name[..]).collect()
    }

    /// Rows that came put counters forward, and nothing puts them back.
    fn put_counters_back(&self, other: &mut Session) -> Result<(), Fault> {
        let Parts { from, old, .. } = self.parts;
        let shown = source::shown(other, &old.name, &self.names_in(from))?;
        for (index, ddl) in self.different.iter().zip(shown) {
            let (wanted, has) = (ddl::counter(&from.tables[*index].ddl), ddl::counter(&ddl));
            if wanted != has {
                let table = format!("{}.{}", quoted(&old.name), quoted(&from.tables[*index].name));
                let (mark, next) = (self.mark(), wanted.unwrap_or(1));
                let sql = format!("ALTER {mark} TABLE {table} AUTO_INCREMENT = {next}");
                other.run(REWRITING, sql).map_err(|e| e.about(&format!("table {table}")))?;
            }
        }
        Ok(())
    }
}

fn count(session: &mut Session, schema: &Schema, tables: &[usize]) -> Result<u64, Fault> {
    let of = quoted(&schema.name);
    let count =
        |n: &usize| format!("(SELECT COUNT(*) FROM {of}.{})", quoted(&schema.tables[*n].name));
    let mut rows = 0;
    for tables in tables.chunks(BATCH) {
        let counts: Vec<_> = tables.iter().map(count).collect();
        let sql = format!("SELECT {}", counts.join(" + "));
        rows += session.one::<u64>(COMPARING, sql)?.unwrap_or(0);
    }
    Ok(rows)
}

//! Puts a finished clone, built beside the old one, in its place.
//!
//! One `RENAME TABLE` moves the old tables out and the new ones in, but it refuses tables with
//! triggers, and knows nothing of views, routines and events. So the swap has several steps, and
//! what they need is written into the new schema first. What a kill leaves behind:
//!
//! - before the intent is whole: the old clone as it was, and a new schema that the next call drops;
//! - before the tables moved: the old clone, perhaps without some of its programs;
//! - after it: the new tables, perhaps without some of their programs.
//!
//! In the last two cases the next call goes forward from the intent. Where it cannot, since somebody
//! holds a table, it goes back: the old programs are made again from the intent, which stays unless
//! everything is as it was. The old tables are nowhere else while they are out: their schema is only
//! dropped once new ones are in place.
//!
//! An old clone that is kept moves on to a schema of its own ([`previous`]). To undo is the same
//! swap again with that schema as the one that was built.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use super::ddl::{self, quoted, text};
use super::fault::Fault;
use super::intent::{INTENT, Intent, Keep, insert_intent, intend, intent_table, read_intent};
use super::leftovers::{self, PROBE, State};
use super::session::Session;
use super::source::{self, Program};
use super::{Job, SwapBusy, names, programs};
use crate::schema_clone::CloneError;

/// Marks the schema of a previous clone; holds the wish that was last fulfilled with it.
pub(super) const KEPT: &str = "pullre~previous";

const SWAPPING: &str = "putting the clone in place";
const CLEANING: &str = "removing what is not needed any more";
const KEEPING: &str = "keeping the previous clone";

/// Seconds that a session on the old clone is waited for.
const BUSY_WAIT: u32 = 2;

/// That the old tables can move out: no stranger has the schema for them. If it holds tables of ours,
/// it has our mark, which is made first and goes last.
pub(super) fn has_room(job: &Job<'_>, control: &mut Session) -> Result<(), Fault> {
    let (_, outgoing) = names::beside(job.destination.as_str());
    match leftovers::state(control, &outgoing)? {
        Some(State::Full) => Err(job.in_the_way(&outgoing)),
        _ => Ok(()),
    }
}

fn tables_of(session: &mut Session, schema: &str) -> Result<Vec<String>, Fault> {
    let sql = format!(
        "SELECT table_name FROM information_schema.tables
         WHERE table_schema = {} AND table_type <> 'VIEW' ORDER BY table_name",
        text(schema)
    );
    session.rows(SWAPPING, sql)
}

/// Finishes a swap that was written down, by this call or an earlier one. False: there is none.
pub(super) fn finish(job: &Job<'_>, control: &mut Session) -> Result<bool, Fault> {
    let Some(swap) = written_down(job, control)? else { return Ok(false) };
    if let Err(fault) = swap.exchange(control) {
        swap.back(control)?;
        return Err(if fault.is_busy() { swap.busy(control) } else { fault });
    }
    swap.forward(control)?;
    Ok(true)
}

/// The first half of [`finish`]: the tables that come are in the place of those that go. Where it
/// fails, nothing has moved.
pub(super) fn exchange(job: &Job<'_>, control: &mut Session) -> Result<(), Fault> {
    let gone = || Fault::Disturbed("what was written down of the swap is gone".to_owned());
    written_down(job, control)?.ok_or_else(gone)?.exchange(control)?;
    job.moved.store(true, Ordering::Relaxed);
    Ok(())
}

/// Undoes [`exchange`]: the old tables are where they were.
pub(super) fn take_back(job: &Job<'_>, control: &mut Session) -> Result<(), Fault> {
    let Some(swap) = written_down(job, control)? else { return Ok(()) };
    let (into, from, out) =
        (quoted(swap.destination()), quoted(&swap.building), quoted(&swap.outgoing));
    let there = tables_of(control, swap.destination())?;
    let back =
        |from: &str, name: &String, to: &str| format!("{from}.{0} TO {to}.{0}", quoted(name));
    let coming = swap.intent.tables.iter().filter(|name| there.contains(name));
    let mut pairs: Vec<_> = coming.map(|name| back(&into, name, &from)).collect();
    pairs.extend(swap.old_tables(control)?.iter().map(|name| back(&out, name, &into)));
    let mark = leftovers::orphan_mark(&swap.outgoing);
    if !pairs.is_empty() {
        control.run(SWAPPING, format!("RENAME /* {mark} */ TABLE {}", pairs.join(", ")))?;
    }
    job.moved.store(false, Ordering::Relaxed);
    swap.back(control)
}

/// Whether there is something for [`finish`] to do.
pub(super) fn is_written_down(job: &Job<'_>, control: &mut Session) -> Result<bool, Fault> {
    Ok(written_down(job, control)?.is_some())
}

fn written_down<'a>(job: &'a Job<'a>, control: &mut Session) -> Result<Option<Swap<'a>>, Fault> {
    let (building, outgoing) = names::beside(job.destination.as_str());
    let previous = names::previous(job.destination.as_str());
    // In our letters, whatever the server's are.
    for building in [building, previous.clone()] {
        let is_marked = format!(
            "SELECT COUNT(*) FROM information_schema.tables
             WHERE table_schema = {} AND table_name = '{INTENT}'",
            text(&building)
        );
        if control.one::<u64>(SWAPPING, is_marked)? == Some(0) {
            continue;
        }
        let Some(intent) = read_intent(control, &building)? else { continue };
        let swap = Swap { job, intent, building, outgoing, previous };
        // What waits for a table may still succeed after its process died.
        if !leftovers::end_orphans(control, &swap.outgoing)? {
            return Err(swap.busy(control));
        }
        return Ok(Some(swap));
    }
    Ok(None)
}

/// The wish that the previous clone last fulfilled; None where no previous clone is kept.
fn kept(control: &mut Session, previous: &str) -> Result<Option<Option<i64>>, Fault> {
    if !tables_of(control, previous)?.iter().any(|name| name == KEPT) {
        return Ok(None);
    }
    let sql = format!("SELECT MAX(wish) FROM {}.`{KEPT}`", quoted(previous));
    Ok(Some(control.one::<Option<i64>>(KEEPING, sql)?.flatten()))
}

pub(super) fn keeps_previous(job: &Job<'_>, control: &mut Session) -> Result<bool, Fault> {
    Ok(kept(control, &names::previous(job.destination.as_str()))?.is_some())
}

/// What was there when this clone was first asked for is kept already: a run that was killed after
/// it, or failed, had come so far. What is there now is that run's.
pub(super) fn kept_already(job: &Job<'_>, control: &mut Session) -> Result<bool, Fault> {
    let wish = job.wish.filter(|_| job.keep_previous);
    Ok(wish.is_some() && kept(control, &names::previous(job.destination.as_str()))? == Some(wish))
}

/// Drops what was kept before, if it is ours.
pub(super) fn forget_previous(job: &Job<'_>, control: &mut Session) -> Result<(), Fault> {
    let previous = names::previous(job.destination.as_str());
    if kept(control, &previous)?.is_some() {
        // From here on it is nothing that could be brought back, whatever becomes of it.
        let place = quoted(&previous);
        let forget = format!("RENAME TABLE {place}.`{KEPT}` TO {place}.`{PROBE}`");
        control.run(KEEPING, forget)?;
    }
    match leftovers::state(control, &previous)? {
        Some(State::Unfinished) => leftovers::clear(job, control, &previous),
        _ => Ok(()),
    }
}

/// Puts the previous clone in the place of the one that replaced it; see
/// [`crate::schema_clone::Schemas::undo`].
pub(super) fn undo(job: &Job<'_>, control: &mut Session, wish: i64) -> Result<(), Fault> {
    let destination = job.destination.as_str();
    let previous = names::previous(destination);
    let place = || job.access.place().to_owned();
    match kept(control, &previous)? {
        None => {
            let schema = job.destination.clone();
            return Err(Fault::Told(CloneError::NoPrevious { schema, place: place() }));
        }
        Some(done) if done == Some(wish) => return Ok(()),
        Some(_) => {}
    }
    let gone = |name: &str| Fault::Disturbed(format!("the schema `{name}` was dropped meanwhile"));
    control.run(SWAPPING, format!("CREATE DATABASE IF NOT EXISTS {}", quoted(destination)))?;
    let from = source::read_ours(control, &previous)?.ok_or_else(|| gone(&previous))?;
    let from = super::build::without_probe(from);
    let old = source::read_ours(control, destination)?.ok_or_else(|| gone(destination))?;
    has_room(job, control)?;
    // One that is there is not whole: else it would have been finished.
    control.run(
        SWAPPING,
        format!(
            "DROP TABLE IF EXISTS {}.`{INTENT}`; {}",
            quoted(&previous),
            intent_table(&previous)
        ),
    )?;
    let keep = Some(Keep { wish: Some(wish) });
    intend(job, control, &from, &old, &previous, destination, keep)?;
    finish(job, control).map(drop)
}

fn apply<'a>(
    control: &mut Session,
    statements: impl Iterator<Item = &'a Vec<u8>>,
) -> Result<(), Fault> {
    for sql in statements {
        match control.run(SWAPPING, sql) {
            // Dropped by a run that was killed before it added it again.
            Err(e) if e.code() == Some(1091) => {}
            other => other?,
        }
    }
    Ok(())
}

struct Swap<'a> {
    job: &'a Job<'a>,
    intent: Intent,
    /// Where the new clone is: built beside, or the previous one.
    building: String,
    outgoing: String,
    previous: String,
}

impl Swap<'_> {
    fn is_undo(&self) -> bool {
        self.building == self.previous
    }

    /// Adds to the intent what a later run has to know.
    fn write_down(&self, control: &mut Session, side: &str) -> Result<(), Fault> {
        let row = |side: &str| format!("('{side}', '', '', '', '', '', '', '', '')");
        control.run(SWAPPING, insert_intent(&self.building, &[row(side), row("ready")]))
    }

    fn destination(&self) -> &str {
        self.job.destination.as_str()
    }

    /// Moves the tables, unless they have moved.
    fn exchange(&self, control: &mut Session) -> Result<(), Fault> {
        if self.has_moved(control)? { Ok(()) } else { self.move_tables(control) }
    }

    fn has_moved(&self, control: &mut Session) -> Result<bool, Fault> {
        if self.intent.moved {
            return Ok(true);
        }
        let there = tables_of(control, self.destination())?;
        Ok(match (self.intent.tables.as_slice(), &self.intent.going) {
            ([], Some(going)) => !going.iter().any(|name| there.contains(name)),
            // Nothing tells but the old ones, which must not be taken for leftovers.
            ([], None) => there.is_empty() && !self.old_tables(control)?.is_empty(),
            (coming, _) => {
                let here = tables_of(control, &self.building)?;
                !coming.iter().any(|name| here.contains(name))
            }
        })
    }

    fn move_tables(&self, control: &mut Session) -> Result<(), Fault> {
        let (into, from, out) =
            (quoted(self.destination()), quoted(&self.building), quoted(&self.outgoing));
        has_room(self.job, control)?;
        // Made after the intent, and gone before it. What a server that does not rename all or
        // nothing has moved there is not anywhere else.
        if self.old_tables(control)?.is_empty() {
            leftovers::clear(self.job, control, &self.outgoing)?;
            control.run(SWAPPING, format!("CREATE DATABASE IF NOT EXISTS {out}"))?;
            control
                .run(SWAPPING, format!("CREATE TABLE {out}.`{PROBE}` (n INT) ENGINE = InnoDB"))?;
        }
        let mark = leftovers::orphan_mark(&self.outgoing);
        // They were made there to see that they can be.
        control.run(SWAPPING, format!("USE {from}"))?;
        programs::open_anew(control, &self.building, |_| true, &mark)?;
        programs::drop_all(control, &self.intent.new, &mark)?;

        let there = tables_of(control, self.destination())?;
        let here: BTreeSet<_> = tables_of(control, &self.building)?.into_iter().collect();
        let coming: Vec<_> = self.intent.tables.iter().filter(|t| here.contains(*t)).collect();
        // Those of the intent that are not here any more have arrived already, on a server that
        // does not rename all or nothing.
        let arrived = |name: &String| self.intent.tables.contains(name) && !here.contains(name);
        let mut pairs = Vec::new();
        let goes = |name: &&String| self.intent.takes_away(name) && !arrived(name);
        for name in there.iter().filter(goes) {
            let name = quoted(name);
            pairs.push(format!("{into}.{name} TO {out}.{name}"));
        }
        for name in coming {
            let name = quoted(name);
            pairs.push(format!("{from}.{name} TO {into}.{name}"));
        }
        let rename = format!("RENAME /* {mark} */ TABLE {}", pairs.join(", "));

        let mut kill = self.job.swap_busy == SwapBusy::Kill;
        loop {
            let wait = format!("SET lock_wait_timeout = {BUSY_WAIT}; USE {into}");
            let swap = || {
                control.run(SWAPPING, wait)?;
                let goes = |name: &String| self.intent.takes_away(name);
                programs::open_anew(control, self.destination(), goes, &mark)?;
                programs::drop_all(control, &self.intent.old, &mark)?;
                if pairs.is_empty() { Ok(()) } else { control.run(SWAPPING, &rename[..]) }
            };
            match swap() {
                Err(e) if e.is_busy() && kill => {
                    kill = false;
                    for (id, who) in self.holders(control)? {
                        match control.run(SWAPPING, format!("KILL {id}")) {
                            // It ended by itself.
                            Err(e) if e.code() == Some(1094) => {}
                            Err(e) if e.code() == Some(1095) => {
                                return Err(self.may_not_kill(&format!("{id} of {who}"), &e));
                            }
                            done => done?,
                        }
                    }
                }
                Err(e) => return Err(e),
                Ok(()) => return control.run(SWAPPING, "SET lock_wait_timeout = 10"),
            }
        }
    }

    /// From the moment on in which the new tables are in place.
    fn forward(&self, control: &mut Session) -> Result<(), Fault> {
        self.job.moved.store(true, Ordering::Relaxed);
        let into = quoted(self.destination());
        if self.intent.keep.is_some() && !self.intent.moved {
            self.write_down(control, "moved")?;
        }
        control.run(
            SWAPPING,
            format!(
                "USE {into}; ALTER DATABASE {into} CHARACTER SET {} COLLATE {}",
                quoted(&self.intent.charset),
                quoted(&self.intent.collation)
            ),
        )?;
        let mark = leftovers::orphan_mark(&self.outgoing);
        let came = |name: &String| self.intent.tables.contains(name);
        programs::open_anew(control, self.destination(), came, &mark)?;
        for program in &self.intent.unread {
            match programs::drop_all(control, std::slice::from_ref(program), &mark) {
                // It stays, as one more than the source has: no reason to leave the rest undone.
                Err(e) if e.is_forbidden() => {
                    tracing::warn!("{} stays in {into}: {e:?}", program.name);
                }
                done => done?,
            }
        }
        let late = self.stragglers(control, self.destination(), &[&self.building], "after")?;
        apply(control, self.intent.after.iter().chain(&late))?;
        let new: Vec<_> = self.intent.new.iter().collect();
        let (collation, mut told) = (&self.intent.collation, Vec::new());
        programs::make(control, self.destination(), collation, &new, false, &mut told)?;
        told.extend(self.led_away(control)?);
        self.job.late_notes().extend(told);
        if let Some(keep) = self.intent.keep {
            self.keep(control, keep)?;
        }
        leftovers::clear(self.job, control, &self.outgoing)?;
        self.end(control)
    }

    /// Foreign keys of other schemas, which have followed the tables that go. They are not ours to
    /// change. Told where the login may see them.
    fn led_away(&self, control: &mut Session) -> Result<Vec<String>, Fault> {
        let ours = [self.outgoing.as_str(), self.destination(), &self.building, &self.previous];
        let ours: Option<Vec<_>> = ours.into_iter().map(names::in_innodb).collect();
        let Some(ours) = ours else { return Ok(Vec::new()) };
        let quoted: Vec<_> = ours.iter().map(|name| text(name)).collect();
        let sql = format!(
            "SELECT SUBSTRING_INDEX(id, '/', -1), REPLACE(for_name, '/', '`.`')
             FROM information_schema.innodb_sys_foreign
             WHERE SUBSTRING_INDEX(ref_name, '/', 1) = {}
                 AND SUBSTRING_INDEX(for_name, '/', 1) NOT IN ({})",
            quoted[0],
            quoted.join(", ")
        );
        match control.rows::<(String, String)>(SWAPPING, sql) {
            Ok(found) => Ok(found
                .into_iter()
                .map(|(key, table)| {
                    format!(
                        "the foreign key `{key}` of `{table}` led into the clone that was replaced, and \
                         does not lead into this one: make it anew"
                    )
                })
                .collect()),
            Err(e) if e.is_lost() => Err(e),
            // It takes the right PROCESS, and a MariaDB.
            Err(e) => {
                tracing::debug!("foreign keys of other schemas cannot be seen: {e:?}");
                Ok(Vec::new())
            }
        }
    }

    /// The old tables and programs become the previous clone.
    fn keep(&self, control: &mut Session, keep: Keep) -> Result<(), Fault> {
        let previous = quoted(&self.previous);
        if !self.is_undo() && !self.intent.cleared {
            leftovers::clear(self.job, control, &self.previous)?;
            control.run(
                KEEPING,
                format!(
                    "CREATE DATABASE IF NOT EXISTS {previous};
                     CREATE TABLE {previous}.`{KEPT}` (id INT PRIMARY KEY, wish BIGINT) ENGINE = InnoDB"
                ),
            )?;
            self.write_down(control, "cleared")?;
        }
        let left = tables_of(control, &self.outgoing)?;
        let move_on = |name: &String| {
            let name = quoted(name);
            format!("{}.{name} TO {previous}.{name}", quoted(&self.outgoing))
        };
        let pairs: Vec<_> = left.iter().filter(|name| *name != PROBE).map(move_on).collect();
        if !pairs.is_empty() {
            control.run(KEEPING, format!("RENAME TABLE {}", pairs.join(", ")))?;
        }
        let collation = &self.intent.old_collation;
        control.run(
            KEEPING,
            format!("USE {previous}; ALTER DATABASE {previous} COLLATE {}", quoted(collation)),
        )?;
        let outside = [self.outgoing.as_str(), self.destination()];
        let late = self.stragglers(control, &self.previous, &outside, "kept-after")?;
        apply(control, self.intent.kept_after.iter().chain(&late))?;
        let (old, mut told) = (self.intent.old.iter().collect::<Vec<_>>(), Vec::new());
        // Its events sleep: nobody works on it.
        programs::make(control, &self.previous, collation, &old, false, &mut told)?;
        let wish = keep.wish.map_or("NULL".to_owned(), |wish| wish.to_string());
        control.run(KEEPING, format!("REPLACE INTO {previous}.`{KEPT}` VALUES (1, {wish})"))
    }

    /// The intent goes before what else is there: tables that are dropped would look as if they had
    /// moved.
    fn end(&self, control: &mut Session) -> Result<(), Fault> {
        let building = quoted(&self.building);
        control.run(CLEANING, format!("DROP TABLE IF EXISTS {building}.`{INTENT}`"))?;
        if self.is_undo() { Ok(()) } else { leftovers::drop_marked(control, &self.building) }
    }

    /// Foreign keys to what is no InnoDB table do not follow it. What makes them anew is added to
    /// the intent: a kill between taking one away and adding it must not lose it.
    fn stragglers(
        &self,
        control: &mut Session,
        schema: &str,
        lead_to: &[&str],
        side: &str,
    ) -> Result<Vec<Vec<u8>>, Fault> {
        let schemas: Vec<_> = lead_to.iter().map(|schema| text(schema)).collect();
        let tables: Vec<String> = control.rows(
            SWAPPING,
            format!(
                "SELECT DISTINCT table_name FROM information_schema.referential_constraints
                 WHERE constraint_schema = {} AND unique_constraint_schema IN ({})",
                text(schema),
                schemas.join(", ")
            ),
        )?;
        let mut late = Vec::new();
        let names: Vec<_> = tables.iter().map(String::as_str).collect();
        let shown = source::shown(control, schema, &names)?;
        for (table, sql) in tables.iter().zip(shown) {
            let (table, parsed) = (quoted(table), ddl::Table::parse(&sql));
            let links = |parsed: ddl::Table| {
                lead_to.iter().flat_map(|schema| parsed.links_into(schema)).collect::<Vec<_>>()
            };
            for (name, text) in parsed.map(links).unwrap_or_default() {
                let alter = format!("ALTER TABLE {table} ").into_bytes();
                late.push([&alter[..], b"DROP FOREIGN KEY ", &name].concat());
                late.push([&alter[..], b"ADD ", &text].concat());
            }
        }
        let row = |side: &str, body: &[u8]| {
            let hex: String = body.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("('{side}', '', '', '', '', '', '', '', X'{hex}')")
        };
        if !late.is_empty() {
            let mut rows: Vec<_> = late.iter().map(|sql| row(side, sql)).collect();
            rows.push(row("ready", b""));
            control.run(SWAPPING, insert_intent(&self.building, &rows))?;
        }
        Ok(late)
    }

    /// The old clone as it was.
    fn back(&self, control: &mut Session) -> Result<(), Fault> {
        let into = quoted(self.destination());
        let here = tables_of(control, &self.building)?;
        let whole = self.intent.tables.iter().all(|name| here.contains(name));
        if !whole || !self.old_tables(control)?.is_empty() {
            // Between the two: only forward leads out of it.
            return Ok(());
        }
        control.run(SWAPPING, format!("USE {into}; SET lock_wait_timeout = 10"))?;
        // Only those that were taken away: one more reason to touch nothing that somebody holds.
        let there = source::read_ours(control, self.destination())?;
        let there = there.map(|schema| schema.programs).unwrap_or_default();
        let is_there = |p: &&Program| there.iter().any(|t| t.kind == p.kind && t.name == p.name);
        let lost: Vec<_> = self.intent.old.iter().filter(|p| !is_there(p)).collect();
        let (collation, mut told) = (&self.intent.old_collation, Vec::new());
        programs::make(control, self.destination(), collation, &lost, true, &mut told)?;
        if self.is_undo() {
            let collation = &self.intent.collation;
            control.run(SWAPPING, format!("USE {}", quoted(&self.previous)))?;
            let new: Vec<_> = self.intent.new.iter().collect();
            programs::make(control, &self.previous, collation, &new, false, &mut told)?;
        }
        if !told.is_empty() {
            // Only the intent still knows how they were.
            tracing::warn!("{into} is not quite as it was: {}", told.join("; "));
            return Ok(());
        }
        leftovers::clear(self.job, control, &self.outgoing)?;
        self.end(control)
    }

    /// Those that were moved out.
    fn old_tables(&self, control: &mut Session) -> Result<Vec<String>, Fault> {
        let mut tables = tables_of(control, &self.outgoing)?;
        tables.retain(|name| name != PROBE);
        Ok(tables)
    }

    fn may_not_kill(&self, who: &str, fault: &Fault) -> Fault {
        Fault::Told(CloneError::Forbidden {
            schema: self.job.destination.clone(),
            place: self.job.access.place().to_owned(),
            doing: "ending the sessions that use it (`swap_busy = kill`)",
            message: format!("session {who}, error {}", fault.code().unwrap_or(0)),
        })
    }

    /// Sessions that work in the destination, or hold a table of it, as far as we may see them.
    fn holders(&self, control: &mut Session) -> Result<Vec<(u64, String)>, Fault> {
        let of = text(self.destination());
        // Who holds what only some servers tell: MariaDB with the plugin metadata_lock_info, MySQL 8.
        let tell = [
            format!(
                "SELECT thread_id FROM information_schema.metadata_lock_info WHERE table_schema = {of}"
            ),
            format!(
                "SELECT t.processlist_id FROM performance_schema.metadata_locks AS m
                 JOIN performance_schema.threads AS t ON t.thread_id = m.owner_thread_id
                 WHERE m.object_schema = {of} AND t.processlist_id IS NOT NULL"
            ),
        ];
        let mut ids = vec!["0".to_owned()];
        for sql in tell {
            match control.rows::<u64>(SWAPPING, sql) {
                Ok(found) => ids.extend(found.iter().map(u64::to_string)),
                Err(e) if e.is_lost() => return Err(e),
                Err(_) => {}
            }
        }
        control.rows(
            SWAPPING,
            format!(
                "SELECT id, CONCAT(user, '@', host) FROM information_schema.processlist
                 WHERE (db = {of} OR id IN ({})) AND id <> CONNECTION_ID()",
                ids.join(", ")
            ),
        )
    }

    fn busy(&self, control: &mut Session) -> Fault {
        let place = self.job.access.place();
        let holders = self.holders(control).unwrap_or_default();
        let named: Vec<_> = holders.iter().map(|(id, who)| format!("{id} of {who}")).collect();
        Fault::Told(CloneError::DestinationBusy {
            schema: self.job.destination.clone(),
            place: if named.is_empty() {
                place.to_owned()
            } else {
                format!("{place}, sessions {}", named.join(", "))
            },
        })
    }
}

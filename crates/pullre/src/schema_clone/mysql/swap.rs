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
//! holds a table, it goes back: the old programs are made again from the intent.

use std::collections::BTreeSet;

use super::ddl::{self, quoted, text};
use super::fault::Fault;
use super::session::{Bytes, Session};
use super::source::{self, Kind, Program, Schema};
use super::{Job, PROBE, SwapBusy, programs};
use crate::schema_clone::CloneError;

/// The table of the intent.
pub(super) const INTENT: &str = "pullre~swap";

const SWAPPING: &str = "putting the clone in place";
const CLEANING: &str = "removing what is not needed any more";

/// Seconds that a session on the old clone is waited for.
const BUSY_WAIT: u32 = 2;

/// Everything that the swap needs, whatever happened to source and destination meanwhile.
#[derive(Debug)]
struct Intent {
    charset: String,
    collation: String,
    /// Tables and sequences of the new clone.
    tables: Vec<String>,
    /// Statements in the destination after the tables moved.
    after: Vec<Vec<u8>>,
    new: Vec<Program>,
    old: Vec<Program>,
    /// The old schema's default collation.
    old_collation: String,
}

/// The schema in which a clone is built, and the one that takes the old tables.
pub(super) fn beside(destination: &str) -> (String, String) {
    (ddl::derived(destination, "~new"), ddl::derived(destination, "~old"))
}

pub(super) fn intent_table(schema: &str) -> String {
    format!(
        "CREATE TABLE {}.`{INTENT}` (seq INT PRIMARY KEY AUTO_INCREMENT, side VARCHAR(10) NOT NULL,
            kind VARCHAR(20) NOT NULL, name VARCHAR(200) NOT NULL, mode VARCHAR(2000) NOT NULL,
            client VARCHAR(64) NOT NULL, connection VARCHAR(64) NOT NULL,
            collation VARCHAR(64) NOT NULL, time_zone VARCHAR(64) NOT NULL, body LONGBLOB NOT NULL)
         ENGINE = InnoDB CHARACTER SET utf8mb4",
        quoted(schema)
    )
}

fn tables_of(session: &mut Session, schema: &str) -> Result<Vec<String>, Fault> {
    let sql = format!(
        "SELECT table_name FROM information_schema.tables
         WHERE table_schema = {} AND table_type <> 'VIEW' ORDER BY table_name",
        text(schema)
    );
    session.rows(SWAPPING, sql)
}

/// Writes down what is about to happen.
pub(super) fn intend(
    control: &mut Session,
    from: &Schema,
    old: &Schema,
    building: &str,
    destination: &str,
) -> Result<(), Fault> {
    let mut rows = Vec::new();
    let mut row = |words: [&str; 8], body: &[u8]| {
        let words: Vec<_> = words.iter().map(|word| text(word)).collect();
        let hex: String = body.iter().map(|byte| format!("{byte:02x}")).collect();
        rows.push(format!("({}, X'{hex}')", words.join(", ")));
    };
    row(["charset", "", "", &old.collation, &from.charset, "", &from.collation, ""], b"");
    for name in from.tables.iter().map(|t| &t.name).chain(from.sequences.iter().map(|s| &s.name)) {
        row(["table", "", name, "", "", "", "", ""], b"");
    }
    // Defaults that draw from a sequence still name the schema that this one was built in.
    let names_it = format!("val({}.", quoted(building));
    for table in &from.tables {
        let moved = ddl::move_sequences(&table.ddl, &from.name, building);
        let Some(parsed) = ddl::Table::parse(&moved) else { continue };
        let alter = format!("ALTER TABLE {} ", quoted(&table.name));
        for column in parsed.columns_with(&names_it) {
            let column = ddl::move_sequences(&column, building, destination);
            let sql = [alter.as_bytes(), b"MODIFY ", &column].concat();
            row(["after", "", "", "", "", "", "", ""], &sql);
        }
    }
    for (side, programs) in [("new", &from.programs), ("old", &old.programs)] {
        for p in programs {
            let words = [
                side,
                p.kind.word(),
                &p.name,
                &p.mode,
                &p.client,
                &p.connection,
                &p.collation,
                &p.time_zone,
            ];
            row(words, &p.sql);
        }
    }
    row(["ready", "", "", "", "", "", "", ""], b"");
    control.run(SWAPPING, "START TRANSACTION")?;
    for rows in rows.chunks(50) {
        control.run(SWAPPING, insert_intent(building, rows))?;
    }
    control.run(SWAPPING, "COMMIT")
}

fn insert_intent(building: &str, rows: &[String]) -> String {
    format!(
        "INSERT INTO {}.`{INTENT}`
             (side, kind, name, mode, client, connection, collation, time_zone, body) VALUES {}",
        quoted(building),
        rows.join(", ")
    )
}

/// None where there is no whole one.
fn read_intent(control: &mut Session, building: &str) -> Result<Option<Intent>, Fault> {
    if !tables_of(control, building)?.iter().any(|name| name == INTENT) {
        return Ok(None);
    }
    type Row = (String, String, String, String, String, String, String, String, Bytes);
    let rows: Vec<Row> = control.rows(
        SWAPPING,
        format!(
            "SELECT side, kind, name, mode, client, connection, collation, time_zone, body
             FROM {}.`{INTENT}` ORDER BY seq",
            quoted(building)
        ),
    )?;
    if rows.last().is_none_or(|row| row.0 != "ready") {
        return Ok(None);
    }
    let mut intent = Intent {
        charset: String::new(),
        collation: String::new(),
        old_collation: String::new(),
        tables: Vec::new(),
        after: Vec::new(),
        new: Vec::new(),
        old: Vec::new(),
    };
    for (side, kind, name, mode, client, connection, collation, time_zone, body) in rows {
        let sql = body.unwrap_or_default();
        match side.as_str() {
            "charset" => {
                (intent.charset, intent.collation, intent.old_collation) =
                    (client, collation, mode);
            }
            "table" => intent.tables.push(name),
            "after" => intent.after.push(sql),
            "new" | "old" => {
                let Some(kind) = Kind::ALL.into_iter().find(|known| known.word() == kind) else {
                    continue;
                };
                let table = String::new();
                let program = Program {
                    kind,
                    name,
                    table,
                    mode,
                    client,
                    connection,
                    collation,
                    time_zone,
                    sql,
                };
                let list = if side == "new" { &mut intent.new } else { &mut intent.old };
                list.push(program);
            }
            _ => {}
        }
    }
    Ok(Some(intent))
}

/// Finishes a swap that was written down, by this call or an earlier one. False: there is none.
pub(super) fn finish(job: &Job<'_>, control: &mut Session) -> Result<bool, Fault> {
    let destination = job.destination.as_str();
    let (building, outgoing) = beside(destination);
    let Some(intent) = read_intent(control, &building)? else { return Ok(false) };
    let swap = Swap { job, intent, building, outgoing };
    let here: BTreeSet<_> = tables_of(control, &swap.building)?.into_iter().collect();
    let moved = !swap.intent.tables.is_empty()
        && !swap.intent.tables.iter().any(|name| here.contains(name));
    if !moved && let Err(fault) = swap.move_tables(control) {
        swap.back(control)?;
        return Err(if fault.is_busy() { swap.busy(control) } else { fault });
    }
    swap.forward(control)?;
    Ok(true)
}

struct Swap<'a> {
    job: &'a Job<'a>,
    intent: Intent,
    building: String,
    outgoing: String,
}

impl Swap<'_> {
    fn destination(&self) -> &str {
        self.job.destination.as_str()
    }

    fn move_tables(&self, control: &mut Session) -> Result<(), Fault> {
        let (into, from, out) =
            (quoted(self.destination()), quoted(&self.building), quoted(&self.outgoing));
        // Made after the intent, and gone before it.
        super::clear(self.job, control, &self.outgoing)?;
        control.run(SWAPPING, format!("CREATE DATABASE {out}"))?;
        control.run(SWAPPING, format!("CREATE TABLE {out}.`{PROBE}` (n INT) ENGINE = InnoDB"))?;
        // They were made there to see that they can be.
        control.run(SWAPPING, format!("USE {from}"))?;
        programs::drop_all(control, &self.intent.new)?;

        let there = tables_of(control, self.destination())?;
        let here: BTreeSet<_> = tables_of(control, &self.building)?.into_iter().collect();
        let coming: Vec<_> = self.intent.tables.iter().filter(|t| here.contains(*t)).collect();
        // Those of the intent that are not here any more have arrived already, on a server that
        // does not rename all or nothing.
        let arrived = |name: &String| self.intent.tables.contains(name) && !here.contains(name);
        let mut pairs = Vec::new();
        for name in there.iter().filter(|name| !arrived(name)) {
            let name = quoted(name);
            pairs.push(format!("{into}.{name} TO {out}.{name}"));
        }
        for name in coming {
            let name = quoted(name);
            pairs.push(format!("{from}.{name} TO {into}.{name}"));
        }
        let rename = format!("RENAME TABLE {}", pairs.join(", "));

        let mut kill = self.job.swap_busy == SwapBusy::Kill;
        loop {
            let wait = format!("SET lock_wait_timeout = {BUSY_WAIT}; USE {into}");
            let swap = || {
                control.run(SWAPPING, wait)?;
                programs::drop_all(control, &self.intent.old)?;
                if pairs.is_empty() { Ok(()) } else { control.run(SWAPPING, &rename[..]) }
            };
            match swap() {
                Err(e) if e.is_busy() && kill => {
                    kill = false;
                    for (id, _) in self.holders(control)? {
                        // One that ended by itself is unknown.
                        let _ = control.run(SWAPPING, format!("KILL {id}"));
                    }
                }
                Err(e) => return Err(e),
                Ok(()) => return control.run(SWAPPING, "SET lock_wait_timeout = 10"),
            }
        }
    }

    /// From the moment on in which the new tables are in place.
    fn forward(&self, control: &mut Session) -> Result<(), Fault> {
        let into = quoted(self.destination());
        control.run(
            SWAPPING,
            format!(
                "USE {into}; ALTER DATABASE {into} CHARACTER SET {} COLLATE {}",
                quoted(&self.intent.charset),
                quoted(&self.intent.collation)
            ),
        )?;
        let late = self.stragglers(control)?;
        for sql in self.intent.after.iter().chain(&late) {
            match control.run(SWAPPING, sql) {
                // Dropped by a run that was killed before it added it again.
                Err(e) if e.code() == Some(1091) => {}
                other => other?,
            }
        }
        // They were tried where the clone was built, and the notes told then.
        let new: Vec<_> = self.intent.new.iter().collect();
        let (collation, mut told) = (&self.intent.collation, Vec::new());
        programs::make(control, self.destination(), collation, &new, false, &mut told)?;
        control.run(CLEANING, format!("DROP DATABASE IF EXISTS {}", quoted(&self.outgoing)))?;
        // With the intent, last.
        control.run(CLEANING, format!("DROP DATABASE IF EXISTS {}", quoted(&self.building)))
    }

    /// Foreign keys to what is no InnoDB table do not follow it. What makes them anew is added to
    /// the intent: a kill between taking one away and adding it must not lose it.
    fn stragglers(&self, control: &mut Session) -> Result<Vec<Vec<u8>>, Fault> {
        let tables: Vec<String> = control.rows(
            SWAPPING,
            format!(
                "SELECT DISTINCT table_name FROM information_schema.referential_constraints
                 WHERE constraint_schema = {} AND unique_constraint_schema = {}",
                text(self.destination()),
                text(&self.building)
            ),
        )?;
        let mut late = Vec::new();
        for table in tables {
            let table = quoted(&table);
            let shown: Option<(String, String)> =
                control.one(SWAPPING, format!("SHOW CREATE TABLE {table}"))?;
            let parsed = shown.and_then(|(_, sql)| ddl::Table::parse(sql.as_bytes()));
            for (name, text) in parsed.map(|t| t.links_into(&self.building)).unwrap_or_default() {
                let alter = format!("ALTER TABLE {table} ").into_bytes();
                late.push([&alter[..], b"DROP FOREIGN KEY ", &name].concat());
                late.push([&alter[..], b"ADD ", &text].concat());
            }
        }
        let side = |side: &str, body: &[u8]| {
            let hex: String = body.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("('{side}', '', '', '', '', '', '', '', X'{hex}')")
        };
        if !late.is_empty() {
            let mut rows: Vec<_> = late.iter().map(|sql| side("after", sql)).collect();
            rows.push(side("ready", b""));
            control.run(SWAPPING, insert_intent(&self.building, &rows))?;
        }
        Ok(late)
    }

    /// The old clone as it was.
    fn back(&self, control: &mut Session) -> Result<(), Fault> {
        let into = quoted(self.destination());
        control.run(SWAPPING, format!("USE {into}; SET lock_wait_timeout = 10"))?;
        // Only those that were taken away: one more reason to touch nothing that somebody holds.
        let there = source::read(control, self.destination())?;
        let there = there.map(|schema| schema.programs).unwrap_or_default();
        let is_there = |p: &&Program| there.iter().any(|t| t.kind == p.kind && t.name == p.name);
        let lost: Vec<_> = self.intent.old.iter().filter(|p| !is_there(p)).collect();
        let (collation, mut told) = (&self.intent.old_collation, Vec::new());
        programs::make(control, self.destination(), collation, &lost, true, &mut told)?;
        let left = tables_of(control, &self.outgoing)?;
        if left.iter().all(|name| name == PROBE) {
            control.run(CLEANING, format!("DROP DATABASE IF EXISTS {}", quoted(&self.outgoing)))?;
            control.run(CLEANING, format!("DROP DATABASE IF EXISTS {}", quoted(&self.building)))?;
        }
        Ok(())
    }

    /// Sessions that work in the destination, as far as we may see them.
    fn holders(&self, control: &mut Session) -> Result<Vec<(u64, String)>, Fault> {
        control.rows(
            SWAPPING,
            format!(
                "SELECT id, CONCAT(user, '@', host) FROM information_schema.processlist
                 WHERE db = {} AND id <> CONNECTION_ID()",
                text(self.destination())
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

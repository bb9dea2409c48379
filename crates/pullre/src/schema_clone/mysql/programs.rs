//! Routines, views, triggers and events: made in an order that works, each under the settings that
//! it was written under.

use super::ddl::{self, quoted, text};
use super::fault::Fault;
use super::leftovers;
use super::session::{MODE, Session};
use super::source::{Kind, Program};

const MAKING: &str = "making views, routines, triggers and events";

/// What a new one is refused for while another one that it needs is not there yet.
const NEEDS_ANOTHER: [u16; 6] = [1146, 1305, 1356, 1054, 1449, 4031];

/// Makes them in the session's default schema, whose default collation is `collation`. What exists
/// under their names already is of an earlier try and is replaced. Events stay as they
/// are where `awake`, else they are disabled. What had to be left out or changed is told as notes.
pub(super) fn make(
    session: &mut Session,
    schema: &str,
    collation: &str,
    programs: &[&Program],
    awake: bool,
    notes: &mut Vec<String>,
) -> Result<(), Fault> {
    if programs.is_empty() {
        return Ok(());
    }
    let mut state = State { session, schema, awake, now: collation.to_owned(), notes };
    let result = state.make_all(programs);
    // Whatever happened, what comes after is under the usual settings and collation again.
    let restored = state.session.run(MAKING, usual());
    let restored = restored.and_then(|()| state.collate(collation));
    result.and(restored)
}

struct State<'a> {
    session: &'a mut Session,
    schema: &'a str,
    awake: bool,
    /// The schema's default collation at this moment.
    now: String,
    notes: &'a mut Vec<String>,
}

impl State<'_> {
    fn make_all(&mut self, programs: &[&Program]) -> Result<(), Fault> {
        // Views stand on views and functions, in whatever order: tried again until nothing more
        // succeeds.
        let mut left: Vec<&Program> = programs.to_vec();
        loop {
            let before = left.len();
            let mut refused = Vec::new();
            let mut first = None;
            for program in left {
                match self.make_one(program) {
                    Ok(()) => {}
                    Err(e) if e.code().is_some_and(|code| NEEDS_ANOTHER.contains(&code)) => {
                        refused.push(program);
                        first.get_or_insert(e);
                    }
                    Err(e) => return Err(e),
                }
            }
            match first {
                None => return Ok(()),
                Some(_) if refused.len() < before => left = refused,
                Some(e) if refused.iter().all(|program| program.kind == Kind::View) => {
                    // Such a view is broken in the source too, or its definer may not read.
                    tracing::debug!("views that cannot be made: {e:?}");
                    for view in refused {
                        self.notes.push(format!(
                            "view `{}` was left out: it refers to what does not exist, or its definer may not read it",
                            view.name
                        ));
                    }
                    return Ok(());
                }
                Some(e) => return Err(e),
            }
        }
    }

    fn make_one(&mut self, program: &Program) -> Result<(), Fault> {
        let what = format!("{} `{}`", program.kind.word().to_lowercase(), program.name);
        let sql = match program.kind {
            Kind::Event if !self.awake => match ddl::disabled(&program.sql) {
                Some(sql) => sql,
                None => {
                    self.notes.push(format!("{what} was left out: its text was not understood"));
                    return Ok(());
                }
            },
            _ => program.sql.clone(),
        };
        if !program.collation.is_empty() {
            self.collate(&program.collation)?;
        }
        // We say it in UTF-8; in another character set these words would mean something else.
        let sayable = sql.is_ascii() || program.client.starts_with("utf8");
        let client = if sayable { &program.client } else { "utf8mb4" };
        if !sayable {
            self.notes
                .push(format!("{what} was written in {} and is kept in utf8mb4", program.client));
        }
        let mut settings = format!(
            "SET character_set_client = {}, collation_connection = {}",
            text(client),
            text(&program.connection)
        );
        if program.kind != Kind::View {
            settings += &format!(", sql_mode = {}", text(&program.mode));
        }
        if !program.time_zone.is_empty() {
            settings += &format!(", time_zone = {}", text(&program.time_zone));
        }
        // Under our own character set, in which the names are said.
        let mark = leftovers::orphan_mark(self.schema);
        let drop = drop(program.kind, &quoted(&program.name), &mark);
        self.session
            .run(MAKING, format!("{}; {drop}; {settings}", usual()))
            .map_err(|e| e.about(&what))?;
        match self.session.run(MAKING, &sql) {
            Err(e) if matches!(e.code(), Some(1227 | 1044 | 1410)) => {
                self.session.run(MAKING, ddl::without_definer(&sql)).map_err(|e| e.about(&what))?;
                let note = format!(
                    "{what} runs under our own login: its DEFINER is somebody else's, which needs the right SET USER"
                );
                if !self.notes.contains(&note) {
                    self.notes.push(note);
                }
                Ok(())
            }
            // A moment that is over.
            Err(e) if program.kind == Kind::Event && e.code() == Some(1588) => {
                self.notes.push(format!("{what} was left out: its time is over"));
                Ok(())
            }
            other => other.map_err(|e| e.about(&what)),
        }
    }

    /// Bodies take the schema's default for texts that name none.
    fn collate(&mut self, collation: &str) -> Result<(), Fault> {
        if self.now == collation {
            return Ok(());
        }
        let sql = format!("ALTER DATABASE {} COLLATE {}", quoted(self.schema), quoted(collation));
        self.session.run(MAKING, format!("{}; {sql}", usual()))?;
        self.now = collation.to_owned();
        Ok(())
    }
}

fn usual() -> String {
    format!("SET NAMES utf8mb4, time_zone = '+00:00', sql_mode = '{MODE}'")
}

/// Takes one away; `name` is quoted.
pub(super) fn drop_one(
    session: &mut Session,
    kind: Kind,
    name: &str,
    mark: &str,
) -> Result<(), Fault> {
    dropped(session, drop(kind, name, mark))
}

/// Where one of the statements failed, the settings for the next may not be the usual ones.
fn dropped(session: &mut Session, drops: String) -> Result<(), Fault> {
    let done = session.run("removing views, routines, triggers and events", drops);
    match &done {
        Err(e) if !e.is_lost() => session.run(MAKING, usual()).and(done),
        _ => done,
    }
}

/// Under [`usual`] settings, which it leaves as they were. `name` is quoted.
fn drop(kind: Kind, name: &str, mark: &str) -> String {
    let drop = format!("DROP /* {mark} */ {} IF EXISTS {name}", kind.word());
    match kind {
        // A word that the server knows in this mode only.
        Kind::Package | Kind::PackageBody => {
            format!("SET sql_mode = 'ORACLE'; {drop}; SET sql_mode = '{MODE}'")
        }
        _ => drop,
    }
}

/// Has the server open these tables of the schema anew, as far as they have triggers. A session that
/// was killed while it made or dropped one leaves the table open with a trigger of no text (MariaDB
/// 10.11): each write fails, and `DROP TRIGGER` would then take away half of it, for good. The
/// statement waits for whoever uses the table, as the swap does, takes the rights that a swap takes,
/// and 0.1 ms; it leaves an InnoDB table as it is.
pub(super) fn open_anew(
    session: &mut Session,
    schema: &str,
    which: impl Fn(&String) -> bool,
    mark: &str,
) -> Result<(), Fault> {
    const OPENING: &str = "opening tables with triggers";
    let tables: Vec<String> = session.rows(
        OPENING,
        format!(
            "SELECT DISTINCT event_object_table FROM information_schema.triggers
             WHERE event_object_schema = {}",
            text(schema)
        ),
    )?;
    let alter = |table: &String| {
        format!("ALTER /* {mark} */ TABLE {}.{} ENABLE KEYS", quoted(schema), quoted(table))
    };
    let all: Vec<_> = tables.iter().filter(|table| which(table)).map(alter).collect();
    if all.is_empty() { Ok(()) } else { session.run(OPENING, all.join("; ")) }
}

/// Takes them away, the dependent ones first. One that waits for a table may outlive this process;
/// it carries `mark`.
pub(super) fn drop_all(
    session: &mut Session,
    programs: &[Program],
    mark: &str,
) -> Result<(), Fault> {
    let drop = |program: &Program| drop(program.kind, &quoted(&program.name), mark);
    let drops: Vec<_> = programs.iter().rev().map(drop).collect();
    if drops.is_empty() {
        return Ok(());
    }
    dropped(session, drops.join("; "))
}

/// What a person should know of bodies that were copied as they are.
pub(super) fn notes(programs: &[Program], source: &str, notes: &mut Vec<String>) {
    let names = programs.iter().filter(|program| ddl::names_schema(&program.sql, source));
    let named: Vec<_> =
        names.map(|p| format!("{} `{}`", p.kind.word().to_lowercase(), p.name)).collect();
    if !named.is_empty() {
        notes.push(format!(
            "these name the schema `{source}` themselves, and so work on it and not on the clone: {}",
            named.join(", ")
        ));
    }
    let events = programs.iter().filter(|program| program.kind == Kind::Event);
    let events: Vec<_> = events.map(|event| format!("`{}`", event.name)).collect();
    if !events.is_empty() {
        notes.push(format!("these events are disabled in the clone: {}", events.join(", ")));
    }
}

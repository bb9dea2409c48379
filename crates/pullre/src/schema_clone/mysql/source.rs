//! What a schema consists of, in the server's own words.

use std::collections::BTreeMap;

use super::ddl::{self, quoted, text};
use super::fault::Fault;
use super::session::{Bytes, Session};
use super::{leftovers, programs};
use crate::schema_clone::mask::TableMask;

const READING: &str = "reading the schema";
/// Of a schema that the next clone makes anew if it is gone.
pub(super) const READING_OURS: &str = "reading what is there";

/// Everything in a schema but the rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Schema {
    /// In the server's own letters, which need not be those of whoever asked for it.
    pub name: String,
    pub charset: String,
    pub collation: String,
    pub tables: Vec<Table>,
    pub sequences: Vec<Sequence>,
    pub programs: Vec<Program>,
    /// What is there and has a text that we may not read.
    pub unreadable: Vec<(Kind, String)>,
    /// Only some tables and their triggers, whatever else the schema holds.
    pub is_part: bool,
}

impl Schema {
    /// The table of this name; of another case only where no other has it.
    pub fn table(&self, name: &str) -> Option<&Table> {
        let exact = self.tables.iter().find(|table| table.name == name);
        exact.or_else(|| self.tables.iter().find(|t| t.name.to_lowercase() == name.to_lowercase()))
    }

    /// Some of the tables, with their triggers.
    pub fn part(&self, which: impl Fn(&str) -> bool) -> Schema {
        let tables = self.tables.iter().filter(|table| which(&table.name)).cloned();
        let is_in = |program: &&Program| program.kind == Kind::Trigger && which(&program.table);
        Schema {
            name: self.name.clone(),
            charset: self.charset.clone(),
            collation: self.collation.clone(),
            tables: tables.collect(),
            sequences: Vec::new(),
            programs: self.programs.iter().filter(is_in).cloned().collect(),
            unreadable: Vec::new(),
            is_part: true,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    pub name: String,
    pub engine: String,
    /// Rows and keys; an estimate.
    pub bytes: u64,
    pub versioned: bool,
    /// Those that take a value.
    pub columns: Vec<String>,
    pub generated: Vec<String>,
    pub ddl: Vec<u8>,
    /// What a clone must not hold of it.
    pub mask: TableMask,
}

impl Table {
    /// Some engines only show rows that are elsewhere.
    pub fn has_rows(&self) -> bool {
        const VIEWS_OF_OTHERS: [&str; 7] =
            ["MRG_MYISAM", "FEDERATED", "CONNECT", "SPIDER", "BLACKHOLE", "SEQUENCE", "OQGRAPH"];
        !VIEWS_OF_OTHERS.iter().any(|name| self.engine.eq_ignore_ascii_case(name))
    }

    /// What is copied of it; an estimate.
    pub fn copied_bytes(&self) -> u64 {
        if self.mask.skips() { 0 } else { self.bytes }
    }

    pub fn has_snapshots(&self) -> bool {
        ["InnoDB", "RocksDB"].iter().any(|name| self.engine.eq_ignore_ascii_case(name))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sequence {
    pub name: String,
    pub ddl: Vec<u8>,
}

/// In the order in which they can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Function,
    Procedure,
    Package,
    PackageBody,
    View,
    Trigger,
    Event,
}

impl Kind {
    pub const ALL: [Kind; 7] = [
        Kind::Function,
        Kind::Procedure,
        Kind::Package,
        Kind::PackageBody,
        Kind::View,
        Kind::Trigger,
        Kind::Event,
    ];

    /// None: no kind that this program knows.
    pub fn of(word: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.word() == word)
    }

    pub fn word(self) -> &'static str {
        match self {
            Kind::Function => "FUNCTION",
            Kind::Procedure => "PROCEDURE",
            Kind::Package => "PACKAGE",
            Kind::PackageBody => "PACKAGE BODY",
            Kind::View => "VIEW",
            Kind::Trigger => "TRIGGER",
            Kind::Event => "EVENT",
        }
    }
}

/// Names of several, for people.
pub(super) fn list(programs: &[(Kind, String)]) -> String {
    let names =
        programs.iter().map(|(kind, name)| format!("{} `{name}`", kind.word().to_lowercase()));
    names.collect::<Vec<_>>().join(", ")
}

/// What holds SQL of its own, with the settings that it was written under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Program {
    pub kind: Kind,
    pub name: String,
    /// A trigger's; else empty.
    pub table: String,
    /// Empty for views, which have none.
    pub mode: String,
    pub client: String,
    pub connection: String,
    /// The schema's when it was written: text without a character set of its own has this one.
    pub collation: String,
    /// Events only.
    pub time_zone: String,
    pub sql: Vec<u8>,
}

fn string(bytes: Bytes) -> String {
    String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned()
}

fn column(row: &mut mysql::Row, index: usize) -> Bytes {
    row.take::<Bytes, _>(index).flatten()
}

/// The name, as definitions have it where the server folds case, the default character set and
/// collation; None where there is no such schema.
pub(super) fn defaults(
    session: &mut Session,
    schema: &str,
) -> Result<Option<(String, String, String)>, Fault> {
    session.one(
        READING,
        format!(
            "SELECT schema_name, CAST(default_character_set_name AS CHAR),
                 CAST(default_collation_name AS CHAR)
             FROM information_schema.schemata WHERE schema_name = {}",
            text(schema)
        ),
    )
}

/// None where there is no such schema. What is taken away or made meanwhile is a
/// [`Fault::Altered`].
pub(super) fn read(session: &mut Session, schema: &str) -> Result<Option<Schema>, Fault> {
    read_through(session, schema).map_err(Fault::or_altered)
}

/// The same of a schema of ours, where what a killed session left of a trigger can be mended, and
/// what changes meanwhile is a [`Fault::Disturbed`].
pub(super) fn read_ours(session: &mut Session, schema: &str) -> Result<Option<Schema>, Fault> {
    match read_through(session, schema) {
        Err(e) if e.code() == Some(1602) => {
            let mark = leftovers::orphan_mark(schema);
            programs::open_anew(session, schema, |_| true, &mark)?;
            read_through(session, schema)
        }
        read => read,
    }
    .map_err(|fault| fault.or_disturbed().doing(READING_OURS))
}

fn read_through(session: &mut Session, schema: &str) -> Result<Option<Schema>, Fault> {
    let Some((name, charset, collation)) = defaults(session, schema)? else { return Ok(None) };
    let mut read = Schema {
        name,
        charset,
        collation,
        tables: Vec::new(),
        sequences: Vec::new(),
        programs: Vec::new(),
        unreadable: Vec::new(),
        is_part: false,
    };
    let of = text(schema);
    // Unqualified in what follows, so that the texts fit another schema too.
    session.run(READING, format!("USE {}", quoted(schema)))?;

    let mut found: Vec<(String, String, Option<String>, Option<u64>)> = session.rows(
        READING,
        format!(
            "SELECT table_name, CAST(table_type AS CHAR), engine,
                 CAST(data_length + index_length AS UNSIGNED)
             FROM information_schema.tables
             WHERE table_schema = {of} AND table_type NOT LIKE '%TEMPORARY%'"
        ),
    )?;
    // Here, and not by the server: of two names that differ in case alone either could come first.
    found.sort();
    let mut views = Vec::new();
    for (name, kind, engine, bytes) in found {
        match kind.as_str() {
            "VIEW" => views.push(name),
            "SEQUENCE" => read.sequences.push(Sequence { name, ddl: Vec::new() }),
            // Columns follow with the definition.
            _ => read.tables.push(Table {
                versioned: kind == "SYSTEM VERSIONED",
                columns: Vec::new(),
                generated: Vec::new(),
                engine: engine.unwrap_or_default(),
                bytes: bytes.unwrap_or(0),
                ddl: Vec::new(),
                mask: TableMask::default(),
                name,
            }),
        }
    }
    read_ddl(session, &mut read)?;
    read.programs = read_programs(session, &of, views, &mut read.unreadable)?;
    Ok(Some(read))
}

/// The definitions of these tables as they are now.
pub(super) fn shown(
    session: &mut Session,
    schema: &str,
    tables: &[&str],
) -> Result<Vec<Vec<u8>>, Fault> {
    let mut texts = Vec::with_capacity(tables.len());
    for tables in tables.chunks(200) {
        let ask = |table: &&str| format!("SHOW CREATE TABLE {}.{}", quoted(schema), quoted(table));
        let asked: Vec<_> = tables.iter().map(ask).collect();
        let object = |n: usize| tables.get(n).map(|table| format!("table `{table}`"));
        for mut row in session.first_rows(READING, asked.join("; "), object)? {
            texts.push(column(&mut row, 1).unwrap_or_default());
        }
    }
    if texts.len() != tables.len() {
        return Err(Fault::Altered("a table did not show its definition".to_owned()));
    }
    Ok(texts)
}

fn read_ddl(session: &mut Session, read: &mut Schema) -> Result<(), Fault> {
    let tables = read.tables.iter().map(|table| ("TABLE", table.name.clone()));
    let sequences = read.sequences.iter().map(|s| ("SEQUENCE", s.name.clone()));
    let names: Vec<_> = tables.chain(sequences).collect();
    let mut texts = Vec::with_capacity(names.len());
    for names in names.chunks(200) {
        let ask: Vec<_> = names
            .iter()
            .map(|(what, name)| format!("SHOW CREATE {what} {}", quoted(name)))
            .collect();
        let object = |n: usize| names.get(n).map(|(_, name)| format!("table `{name}`"));
        for mut row in session.first_rows(READING, ask.join("; "), object)? {
            texts.push(column(&mut row, 1).unwrap_or_default());
        }
    }
    if texts.len() != names.len() {
        return Err(Fault::Altered("a table did not show its definition".to_owned()));
    }
    let mut texts = texts.into_iter();
    for table in &mut read.tables {
        table.ddl = texts.next().unwrap_or_default();
        let parsed = ddl::Table::parse(&table.ddl).ok_or_else(|| {
            Fault::Altered(format!("the definition of table `{}` is of no known form", table.name))
        })?;
        (table.columns, table.generated) = parsed.columns();
    }
    for sequence in &mut read.sequences {
        sequence.ddl = texts.next().unwrap_or_default();
    }
    Ok(())
}

fn read_programs(
    session: &mut Session,
    of: &str,
    views: Vec<String>,
    unreadable: &mut Vec<(Kind, String)>,
) -> Result<Vec<Program>, Fault> {
    let mut listed: Vec<(Kind, String)> = Vec::new();
    let routines: Vec<(String, String)> = session.rows(
        READING,
        format!(
            "SELECT CAST(routine_type AS CHAR), routine_name FROM information_schema.routines
             WHERE routine_schema = {of} ORDER BY routine_name"
        ),
    )?;
    for (kind, name) in routines {
        match Kind::of(&kind) {
            Some(kind) => listed.push((kind, name)),
            None => {
                return Err(Fault::Altered(format!(
                    "`{name}` is a {kind}, which is of no known kind"
                )));
            }
        }
    }
    listed.extend(views.into_iter().map(|name| (Kind::View, name)));
    // A trigger is in the schema of its table. MariaDB knows that of the table's schema only: by its
    // own it would be sought in every schema of the server.
    let triggers: Vec<(String, String, String, String, Option<String>, Bytes)> = session.rows(
        READING,
        format!(
            "SELECT trigger_name, event_object_table, CAST(action_timing AS CHAR),
                 CAST(event_manipulation AS CHAR), definer, CAST(action_statement AS BINARY)
             FROM information_schema.triggers WHERE event_object_schema = {of}
             ORDER BY event_object_table, action_timing, event_manipulation, action_order"
        ),
    )?;
    let mut tables = BTreeMap::new();
    let mut unqualified = BTreeMap::new();
    for (name, table, timing, event, definer, body) in triggers {
        // Without the right TRIGGER one sees that it is there, and no more.
        let (Some(definer), Some(body)) = (definer, body) else {
            unreadable.push((Kind::Trigger, name));
            continue;
        };
        listed.push((Kind::Trigger, name.clone()));
        let (user, host) = definer.rsplit_once('@').unwrap_or((&definer, "%"));
        let head = format!(
            "CREATE DEFINER={}@{} TRIGGER {} {timing} {event} ON {} FOR EACH ROW ",
            quoted(user),
            quoted(host),
            quoted(&name),
            quoted(&table)
        );
        unqualified.insert(name.clone(), [head.as_bytes(), &body].concat());
        tables.insert(name, table);
    }
    let events: Vec<String> = session.rows(
        READING,
        format!(
            "SELECT event_name FROM information_schema.events WHERE event_schema = {of}
             ORDER BY event_name"
        ),
    )?;
    listed.extend(events.into_iter().map(|name| (Kind::Event, name)));
    // Stable: within a kind the order stays.
    listed.sort_by_key(|(kind, _)| *kind);
    if listed.is_empty() {
        return Ok(Vec::new());
    }

    let mut programs = Vec::new();
    for listed in listed.chunks(200) {
        let ask: Vec<_> = listed
            .iter()
            .map(|(kind, name)| format!("SHOW CREATE {} {}", kind.word(), quoted(name)))
            .collect();
        let object = |n: usize| {
            listed.get(n).map(|(kind, name)| format!("{} `{name}`", kind.word().to_lowercase()))
        };
        let rows = session.first_rows(READING, ask.join("; "), object)?;
        for ((kind, name), mut row) in listed.iter().zip(rows) {
            match program(*kind, name, &mut row) {
                Some(program) => {
                    if *kind != Kind::Trigger {
                        programs.push(program);
                        continue;
                    }
                    let table = tables.remove(name).unwrap_or_default();
                    // A trigger is shown as it was written. One that was written with the name of
                    // its schema would be made in the source again.
                    let sql = match ddl::is_qualified(trigger_head(&program.sql)) {
                        true => unqualified.remove(name).unwrap_or_default(),
                        false => program.sql,
                    };
                    programs.push(Program { table, sql, ..program });
                }
                None => unreadable.push((*kind, name.clone())),
            }
        }
    }
    Ok(programs)
}

/// What comes before the body.
fn trigger_head(sql: &[u8]) -> &[u8] {
    let end = sql.windows(12).position(|part| part.eq_ignore_ascii_case(b"FOR EACH ROW"));
    &sql[..end.unwrap_or(sql.len())]
}

fn program(kind: Kind, name: &str, row: &mut mysql::Row) -> Option<Program> {
    let mut at = |index| column(row, index);
    let (mode, time_zone, sql, after) = match kind {
        Kind::View => (String::new(), String::new(), at(1)?, 2),
        Kind::Event => (string(at(1)), string(at(2)), at(3)?, 4),
        _ => (string(at(1)), String::new(), at(2)?, 3),
    };
    Some(Program {
        kind,
        name: name.to_owned(),
        table: String::new(),
        mode,
        time_zone,
        sql,
        client: string(at(after)),
        connection: string(at(after + 1)),
        collation: string(at(after + 2)),
    })
}

/// The value that a sequence gives next, and how often it began anew.
pub(super) fn sequence_value(
    session: &mut Session,
    schema: &str,
    sequence: &str,
) -> Result<Option<(i64, i64)>, Fault> {
    let sql = format!(
        "SELECT next_not_cached_value, cycle_count FROM {}.{}",
        quoted(schema),
        quoted(sequence)
    );
    let value = session.one("reading sequences", sql);
    value.map_err(|e| e.about(&format!("sequence `{sequence}`")).or_altered())
}

/// Notes on kinds of objects of which there seem to be none, where the login could not see any. Each
/// kind is asked for with a statement that finds nothing.
pub(super) fn unseen(
    session: &mut Session,
    of: &Schema,
    notes: &mut Vec<String>,
) -> Result<(), Fault> {
    let schema = quoted(&of.name);
    let routines = [Kind::Function, Kind::Procedure, Kind::Package, Kind::PackageBody];
    let questions = [
        (&routines[..], "EXECUTE", "routines", format!("CALL {schema}.`pullre~none`()")),
        (
            &[Kind::Event],
            "EVENT",
            "events",
            format!("SHOW EVENTS FROM {schema} LIKE 'pullre~none'"),
        ),
        (
            &[Kind::Trigger],
            "TRIGGER",
            "triggers",
            format!(
                "CREATE TRIGGER {schema}.`pullre~none` BEFORE INSERT ON {schema}.`pullre~none`
                 FOR EACH ROW SET @pullre = 1"
            ),
        ),
    ];
    for (kinds, right, what, sql) in questions {
        if of.programs.iter().any(|program| kinds.contains(&program.kind)) {
            continue;
        }
        match session.run("looking for what is hidden", sql) {
            Err(e) if e.is_lost() => return Err(e),
            Err(e) if matches!(e.code(), Some(1044 | 1142 | 1370)) => notes.push(format!(
                "{what} of `{}` were left out if there are any: the login sees none of them without the \
                 right {right} there",
                of.name
            )),
            // There is no such thing, which the login may know.
            _ => {}
        }
    }
    Ok(())
}

/// What differs between what was read of a schema at two moments, or of a schema and its clone;
/// None where nothing does. `counts`: of the programs of the first, those that the other shall have.
pub(super) fn difference<'a>(
    one: &'a Schema,
    counts: impl Fn(&Program) -> bool,
    other: &'a Schema,
) -> Option<String> {
    fn missing<'a>(
        what: &str,
        one: impl Iterator<Item = &'a str>,
        other: impl Iterator<Item = &'a str>,
    ) -> Option<String> {
        let (mut one, mut other): (Vec<_>, Vec<_>) = (one.collect(), other.collect());
        one.sort_unstable();
        other.sort_unstable();
        if one == other {
            return None;
        }
        let name = one.iter().find(|name| !other.contains(name));
        let name = name.or_else(|| other.iter().find(|name| !one.contains(name)))?;
        Some(format!("{what} `{name}` is in one of them only"))
    }
    let names = |schema: &'a Schema| schema.tables.iter().map(|table| table.name.as_str());
    missing("table", names(one), names(other))
        .or_else(|| {
            missing(
                "sequence",
                one.sequences.iter().map(|s| s.name.as_str()),
                other.sequences.iter().map(|s| s.name.as_str()),
            )
        })
        .or_else(|| {
            Kind::ALL.into_iter().find_map(|kind| {
                let of = |schema: &'a Schema| schema.programs.iter().filter(|p| p.kind == kind);
                let what = kind.word().to_lowercase();
                let wanted = of(one).filter(|p| counts(p)).map(|p| p.name.as_str());
                missing(&what, wanted, of(other).map(|p| p.name.as_str()))
            })
        })
        .or_else(|| {
            let mut both = one.tables.iter().zip(&other.tables);
            let differs = both.find(|(a, b)| !same_definition(one, a, other, b));
            differs.map(|(a, _)| format!("table `{}` is defined in two ways", a.name))
        })
}

/// Whether a table of one schema is defined as a table of the other.
pub(super) fn same_definition(one: &Schema, a: &Table, other: &Schema, b: &Table) -> bool {
    let moved = ddl::move_sequences(&a.ddl, &one.name, &other.name);
    ddl::comparable(&moved) == ddl::comparable(&b.ddl)
}

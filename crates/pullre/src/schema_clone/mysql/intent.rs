//! What a swap is about to do, written into the new schema before it begins: with it any later run
//! goes on, whatever happened to source and destination meanwhile.

use super::Job;
use super::ddl::{self, quoted, text};
use super::fault::Fault;
use super::session::{Bytes, Session};
use super::source::{self, Kind, Program, Schema};
use crate::schema_clone::CloneError;

const WRITING: &str = "writing down what is about to happen";

/// Without it a table that keeps its history cannot be altered. Known where there are sequences.
const KEEP_HISTORY: &str = "SET STATEMENT system_versioning_alter_history = KEEP FOR ";

/// The table of the intent.
pub(super) const INTENT: &str = "pullre~swap";
/// Everything that the swap needs, whatever happened to source and destination meanwhile.
#[derive(Debug)]
pub(super) struct Intent {
    pub charset: String,
    pub collation: String,
    /// Tables and sequences that come.
    pub tables: Vec<String>,
    /// The tables that go for them; None: all that are there.
    pub going: Option<Vec<String>>,
    /// Statements in the destination after the tables moved.
    pub after: Vec<Vec<u8>>,
    pub new: Vec<Program>,
    pub old: Vec<Program>,
    /// The old schema's default collation.
    pub old_collation: String,
    pub keep: Option<Keep>,
    /// The new tables are in place; written down before the old ones move on.
    pub moved: bool,
    /// What was kept before is gone; written down before the old tables take its place.
    pub cleared: bool,
    /// Old ones that we could not make again: they go once there is no way back.
    pub unread: Vec<Program>,
    /// As `after`, for the previous clone.
    pub kept_after: Vec<Vec<u8>>,
}

/// The old clone stays, as the previous one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Keep {
    /// The wish of an undoing.
    pub wish: Option<i64>,
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

impl Intent {
    /// Whether a table that is there has to go.
    pub fn takes_away(&self, table: &String) -> bool {
        self.going.as_ref().is_none_or(|going| going.contains(table))
    }
}

/// Writes down what is about to happen.
pub(super) fn intend(
    job: &Job<'_>,
    control: &mut Session,
    from: &Schema,
    old: &Schema,
    building: &str,
    destination: &str,
    keep: Option<Keep>,
) -> Result<(), Fault> {
    if let Some(trigger) = old.unreadable.iter().find(|(kind, _)| *kind == Kind::Trigger) {
        // Its table moves only without it, and then it would be lost.
        return Err(Fault::Told(CloneError::Forbidden {
            schema: job.destination.clone(),
            place: job.access.place().to_owned(),
            doing: "reading the triggers that are there",
            message: format!("{} shows no text", source::list(std::slice::from_ref(trigger))),
        }));
    }
    let mut rows = Vec::new();
    let mut row = |words: [&str; 8], body: &[u8]| {
        let words: Vec<_> = words.iter().map(|word| text(word)).collect();
        let hex: String = body.iter().map(|byte| format!("{byte:02x}")).collect();
        rows.push(format!("({}, X'{hex}')", words.join(", ")));
    };
    row(["charset", "", "", &old.collation, &from.charset, "", &from.collation, ""], b"");
    if let Some(Keep { wish }) = keep {
        let wish = wish.map(|wish| wish.to_string()).unwrap_or_default();
        row(["keep", "", "", &wish, "", "", "", ""], b"");
    }
    for name in from.tables.iter().map(|t| &t.name).chain(from.sequences.iter().map(|s| &s.name)) {
        row(["table", "", name, "", "", "", "", ""], b"");
    }
    if from.is_part {
        row(["part", "", "", "", "", "", "", ""], b"");
        for table in &old.tables {
            row(["going", "", &table.name, "", "", "", "", ""], b"");
        }
    }
    // Defaults that draw from a sequence still name the schema that this one was built in.
    let names_it = format!("val({}.", quoted(building));
    for table in &from.tables {
        let moved = ddl::move_sequences(&table.ddl, &from.name, building);
        let Some(parsed) = ddl::Table::parse(&moved) else { continue };
        let columns: Vec<_> = parsed
            .columns_with(&names_it)
            .iter()
            .map(|column| {
                let column = ddl::move_sequences(column, building, destination);
                [b"MODIFY ", &column[..]].concat()
            })
            .collect();
        if columns.is_empty() {
            continue;
        }
        // All in one: while one of them still names the other schema, the table cannot be altered.
        let history = if table.versioned { KEEP_HISTORY } else { "" };
        let alter = format!("{history}ALTER TABLE {} ", quoted(&table.name));
        let sql = [alter.as_bytes(), &columns.join(&b", "[..])].concat();
        row(["after", "", "", "", "", "", "", ""], &sql);
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
    for (kind, name) in &old.unreadable {
        row(["unread", kind.word(), name, "", "", "", "", ""], b"");
    }
    row(["ready", "", "", "", "", "", "", ""], b"");
    control.run(WRITING, "START TRANSACTION")?;
    for rows in rows.chunks(50) {
        control.run(WRITING, insert_intent(building, rows))?;
    }
    control.run(WRITING, "COMMIT")
}

pub(super) fn insert_intent(building: &str, rows: &[String]) -> String {
    format!(
        "INSERT INTO {}.`{INTENT}`
             (side, kind, name, mode, client, connection, collation, time_zone, body) VALUES {}",
        quoted(building),
        rows.join(", ")
    )
}

/// None where there is no whole one.
pub(super) fn read_intent(control: &mut Session, building: &str) -> Result<Option<Intent>, Fault> {
    type Row = (String, String, String, String, String, String, String, String, Bytes);
    let rows: Vec<Row> = control.rows(
        WRITING,
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
        going: None,
        after: Vec::new(),
        new: Vec::new(),
        old: Vec::new(),
        keep: None,
        moved: false,
        cleared: false,
        unread: Vec::new(),
        kept_after: Vec::new(),
    };
    for (side, kind, name, mode, client, connection, collation, time_zone, body) in rows {
        let sql = body.unwrap_or_default();
        match side.as_str() {
            "charset" => {
                (intent.charset, intent.collation, intent.old_collation) =
                    (client, collation, mode);
            }
            "table" => intent.tables.push(name),
            "part" => intent.going = Some(Vec::new()),
            "going" => intent.going.get_or_insert_default().push(name),
            "after" => intent.after.push(sql),
            "kept-after" => intent.kept_after.push(sql),
            "keep" => intent.keep = Some(Keep { wish: mode.parse().ok() }),
            "moved" => intent.moved = true,
            "cleared" => intent.cleared = true,
            "new" | "old" | "unread" => {
                let Some(kind) = Kind::of(&kind) else { continue };
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
                let list = match side.as_str() {
                    "new" => &mut intent.new,
                    "old" => &mut intent.old,
                    _ => &mut intent.unread,
                };
                list.push(program);
            }
            _ => {}
        }
    }
    Ok(Some(intent))
}

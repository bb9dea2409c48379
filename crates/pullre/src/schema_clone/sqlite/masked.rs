//! The copy of a source row by row, through a mask. Nothing that the mask hides is ever written:
//! neither into the new file nor into one that is removed later.

use std::path::Path;

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, Error as SqlError, ErrorCode, OpenFlags, params_from_iter};

use super::{Job, Object, Reading, flags, number};
use crate::schema_clone::mask::{Expression, Rows, Shape, TableMask, Wrong};
use crate::schema_clone::{CloneError, Phase, Progress};

const COPYING: &str = "copying its rows";
const CHECKING: &str = "reading its tables";

/// Rows between two looks at the clock.
const STEP_ROWS: u64 = 1000;

/// How a table's rows come into its copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ordinary,
    /// A module keeps its rows in tables of its own, which come with it.
    Virtual,
    /// Its rows are made of other tables.
    Derived,
}

struct Table {
    name: String,
    kind: Kind,
    sql: String,
    columns: Vec<String>,
    generated: Vec<String>,
    /// The name under which rows have their number, where they have one of their own.
    rowid: Option<&'static str>,
    mask: TableMask,
}

/// What is copied, once every rule fits and every expression is understood.
pub(super) struct Masked {
    tables: Vec<Table>,
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

impl Job<'_> {
    fn wrong(&self, wrong: Wrong) -> CloneError {
        CloneError::Mask {
            schema: self.source.clone(),
            place: super::fault::place(&self.source_file),
            wrong,
        }
    }

    /// Makes the rules fit the source; nothing is written.
    pub(super) fn fit(&self, source: &Reading) -> Result<Masked, CloneError> {
        let failed = |e| self.source_error(CHECKING, e);
        let mut tables = tables(&source.db).map_err(failed)?;
        let shapes: Vec<_> = tables.iter().map(shape).collect();
        let masks = self.mask.fit(&shapes).map_err(|wrong| self.wrong(wrong))?;
        for (table, mask) in tables.iter_mut().zip(masks) {
            table.mask = mask;
        }
        for table in &tables {
            for expression in table.mask.expressions() {
                self.check(&source.db, table, expression)?;
            }
        }
        Ok(Masked { tables })
    }

    fn check(
        &self,
        db: &Connection,
        table: &Table,
        expression: &Expression,
    ) -> Result<(), CloneError> {
        // In a place that takes no aggregates: there the rows would become one.
        let sql = format!(
            "SELECT 1 FROM {0} AS {0} WHERE ({1}) IS NULL LIMIT 0",
            quoted(&table.name),
            expression.sql
        );
        let why = match db.prepare(&sql) {
            Ok(statement) if statement.parameter_count() == 0 => return Ok(()),
            Ok(_) => "it has a parameter (`?`, `:name`, `@name` or `$name`)".to_owned(),
            Err(e) => e.to_string(),
        };
        Err(self.wrong(self.mask.wrong(expression.rule, format!("table `{}`: {why}", table.name))))
    }

    /// Fills the empty file at `to`.
    pub(super) fn copy_masked(
        &self,
        source: &Reading,
        masked: &Masked,
        to: &Path,
        notes: &mut Vec<String>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), CloneError> {
        let failed = |e| self.copy_error(COPYING, e);
        let db = Connection::open_with_flags(to, flags(OpenFlags::SQLITE_OPEN_READ_WRITE))
            .map_err(failed)?;
        prepare(source, &db).map_err(failed)?;
        db.execute_batch("BEGIN").map_err(failed)?;
        let mut at = Progress {
            total_bytes: size(&source.db).map_err(failed)?,
            total_tables: masked.tables.len() as u64,
            ..Progress::at(Phase::Copying)
        };
        for table in &masked.tables {
            db.execute_batch(&table.sql).map_err(|e| self.about(table, e))?;
        }
        for table in &masked.tables {
            progress(at);
            match (table.kind, content_of(&table.sql)) {
                (Kind::Derived, _) => {}
                (Kind::Virtual, Some(content)) => {
                    if content.is_empty() {
                        notes.push(format!(
                            "table `{}` keeps no content of its own, so its copy is empty",
                            table.name
                        ));
                    } else {
                        // After all ordinary tables, which come first.
                        let name = quoted(&table.name);
                        let sql = format!("INSERT INTO {name}({name}) VALUES ('rebuild')");
                        db.execute_batch(&sql).map_err(|e| self.about(table, e))?;
                    }
                }
                _ if table.mask.skips() => {}
                _ => self.copy_table(source, &db, table, &mut at, progress)?,
            }
            at.tables += 1;
        }
        self.sequences(source, &db, masked).map_err(failed)?;
        let rest = self.rest(source, &db, notes).map_err(failed)?;
        for sql in rest {
            db.execute_batch(&sql).map_err(failed)?;
            self.check_time(COPYING)?;
        }
        db.execute_batch("COMMIT").map_err(failed)?;
        progress(at);
        dangling(&db, notes).map_err(failed)?;
        db.close().map_err(|(_, e)| failed(e))
    }

    fn copy_table(
        &self,
        source: &Reading,
        to: &Connection,
        table: &Table,
        at: &mut Progress,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), CloneError> {
        let failed = |e| self.about(table, e);
        let name = quoted(&table.name);
        let rowid = table.rowid.map(|rowid| (rowid.to_owned(), rowid.to_owned()));
        let columns = table.columns.iter().enumerate().map(|(n, column)| {
            let column = quoted(column);
            match table.mask.columns.get(&n) {
                Some(expression) => (column, format!("({})", expression.sql)),
                None => (column.clone(), column),
            }
        });
        let (columns, values): (Vec<_>, Vec<_>) = rowid.into_iter().chain(columns).unzip();
        let condition = match &table.mask.rows {
            Rows::Where(condition) => format!(" WHERE ({})", condition.sql),
            Rows::All | Rows::None => String::new(),
        };
        let select = format!("SELECT {} FROM {name} AS {name}{condition}", values.join(", "));
        let marks = vec!["?"; columns.len()].join(", ");
        let insert = format!("INSERT INTO {name} ({}) VALUES ({marks})", columns.join(", "));
        let mut select = source.db.prepare(&select).map_err(failed)?;
        let mut insert = to.prepare(&insert).map_err(failed)?;
        let mut rows = select.query([]).map_err(failed)?;
        let mut count = 0_u64;
        // What the engine says of an expression can quote the row.
        let unsaid = |e: SqlError| match e.sqlite_error() {
            Some(error) if table.mask.changes() && error.code == ErrorCode::Unknown => self.about(
                table,
                SqlError::SqliteFailure(*error, Some("a masking rule fails on a row".to_owned())),
            ),
            _ => failed(e),
        };
        while let Some(row) = rows.next().map_err(unsaid)? {
            let mut values = Vec::with_capacity(columns.len());
            for n in 0..columns.len() {
                let value = row.get_ref(n).map_err(failed)?;
                at.copied_bytes += length(value);
                values.push(ToSqlOutput::Borrowed(value));
            }
            insert.execute(params_from_iter(values)).map_err(failed)?;
            count += 1;
            at.rows += 1;
            if count.is_multiple_of(STEP_ROWS) {
                self.check_time(COPYING)?;
                at.copied_bytes = at.copied_bytes.min(at.total_bytes);
                progress(*at);
            }
        }
        let there = number(to, &format!("SELECT count(*) FROM {name}")).map_err(failed)?;
        if there == count {
            return Ok(());
        }
        let message = format!("table `{}` has {there} rows where {count} were copied", table.name);
        Err(self.damaged(message))
    }

    /// A mask may make what a table refuses: the table is named.
    fn about(&self, table: &Table, e: SqlError) -> CloneError {
        match self.copy_error(COPYING, e) {
            CloneError::Other { schema, place, doing, message, .. } => CloneError::Other {
                schema,
                place,
                doing,
                message: format!("table `{}`: {message}", table.name),
                remedy: "The schema is as it was. Where a masking rule gives a value that a key or a \
                         constraint refuses, write another expression",
            },
            other => other,
        }
    }

    /// The counters of `AUTOINCREMENT`.
    fn sequences(
        &self,
        source: &Reading,
        to: &Connection,
        masked: &Masked,
    ) -> Result<(), SqlError> {
        let counts = "SELECT count(*) FROM sqlite_schema WHERE name = 'sqlite_sequence'";
        if number(&source.db, counts)? == 0 || number(to, counts)? == 0 {
            return Ok(());
        }
        let mut all = source.db.prepare("SELECT name, seq FROM sqlite_sequence")?;
        let mut rows = all.query([])?;
        while let Some(row) = rows.next()? {
            let (name, value): (String, i64) = (row.get(0)?, row.get(1)?);
            if masked.tables.iter().any(|table| table.name == name) {
                to.execute("DELETE FROM sqlite_sequence WHERE name = ?", [&name])?;
                to.execute("INSERT INTO sqlite_sequence VALUES (?, ?)", (&name, value))?;
            }
        }
        Ok(())
    }

    /// Indexes, views and triggers. They come after the rows: a trigger would work on them.
    fn rest(
        &self,
        source: &Reading,
        to: &Connection,
        notes: &mut Vec<String>,
    ) -> Result<Vec<String>, SqlError> {
        let samples =
            "SELECT count(*) FROM sqlite_schema WHERE name LIKE 'sqlite\\_stat%' ESCAPE '\\'";
        if number(&source.db, samples)? > 0 {
            notes.push("statistics of ANALYZE were left out: they hold values of rows".to_owned());
        }
        const SQL: &str = "SELECT type, name, sql FROM sqlite_schema
             WHERE type IN ('index', 'view', 'trigger') AND sql IS NOT NULL
             ORDER BY CASE type WHEN 'index' THEN 0 WHEN 'view' THEN 1 ELSE 2 END, rowid";
        let mut found = source.db.prepare(SQL)?;
        let mut rows = found.query([])?;
        let mut rest = Vec::new();
        while let Some(row) = rows.next()? {
            let (name, sql): (String, String) = (row.get(1)?, row.get(2)?);
            // A module made its own.
            let made = to.query_row(
                "SELECT count(*) FROM sqlite_schema WHERE name = ?",
                [&name],
                |row| row.get::<_, i64>(0),
            )?;
            if made == 0 {
                rest.push(sql);
            }
        }
        Ok(rest)
    }
}

/// The same form of file as the source, and nobody who checks or acts on rows again.
fn prepare(source: &Reading, to: &Connection) -> Result<(), SqlError> {
    let encoding: String = source.db.query_row("PRAGMA encoding", [], |row| row.get(0))?;
    let same = ["auto_vacuum", "user_version", "application_id"];
    let mut sql = format!(
        "PRAGMA page_size = {}; PRAGMA encoding = '{}';",
        source.page_size,
        encoding.replace('\'', "''")
    );
    for name in same {
        let value: i64 = source.db.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0))?;
        sql += &format!("PRAGMA {name} = {value};");
    }
    sql += "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA secure_delete = ON;
            PRAGMA temp_store = MEMORY; PRAGMA foreign_keys = OFF; PRAGMA ignore_check_constraints = ON;
            PRAGMA legacy_alter_table = ON;";
    to.execute_batch(&sql)
}

fn size(db: &Connection) -> Result<u64, SqlError> {
    Ok(number(db, "PRAGMA page_count")? * number(db, "PRAGMA page_size")?)
}

/// Ordinary tables first.
fn tables(db: &Connection) -> Result<Vec<Table>, SqlError> {
    const SQL: &str = "SELECT l.name, l.type, l.wr, s.sql FROM pragma_table_list AS l
         JOIN sqlite_schema AS s ON s.name = l.name AND s.type = 'table'
         WHERE l.schema = 'main' AND l.type IN ('table', 'virtual')
             AND l.name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND s.sql IS NOT NULL
         ORDER BY l.type, s.rowid";
    let mut listed = db.prepare(SQL)?;
    let listed: Vec<(String, String, bool, String)> = listed
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?
        .collect::<Result<_, _>>()?;
    let mut tables = Vec::with_capacity(listed.len());
    for (name, kind, without_rowid, sql) in listed {
        let (mut columns, mut generated, mut integer_key) = (Vec::new(), Vec::new(), false);
        let mut info =
            db.prepare("SELECT name, hidden, type, pk FROM pragma_table_xinfo(?) ORDER BY cid")?;
        let mut rows = info.query([&name])?;
        while let Some(row) = rows.next()? {
            let (column, hidden): (String, i64) = (row.get(0)?, row.get(1)?);
            let (kind, key): (String, i64) = (row.get(2)?, row.get(3)?);
            integer_key |= key > 0 && kind.eq_ignore_ascii_case("integer");
            match hidden {
                0 => columns.push(column),
                2 | 3 => generated.push(column),
                _ => {}
            }
        }
        let kind = match kind == "virtual" {
            true if module_of(&sql).is_some_and(is_derived) => Kind::Derived,
            true => Kind::Virtual,
            false => Kind::Ordinary,
        };
        let free = |rowid: &&str| !columns.iter().any(|c: &String| c.eq_ignore_ascii_case(rowid));
        // A column that is the number itself gives it.
        let rowid = ["rowid", "_rowid_", "oid"].into_iter().find(free);
        let rowid = rowid.filter(|_| !without_rowid && (kind == Kind::Virtual || !integer_key));
        let rowid = rowid.filter(|_| !module_of(&sql).is_some_and(|m| m.starts_with("rtree")));
        let mask = TableMask::default();
        tables.push(Table { name, kind, sql, columns, generated, rowid, mask });
    }
    Ok(tables)
}

fn shape(table: &Table) -> Shape<'_> {
    let content = content_of(&table.sql).filter(|_| table.kind == Kind::Virtual);
    let elsewhere = (table.kind == Kind::Derived || content.is_some())
        .then_some("shows rows of other tables: mask those");
    Shape { name: &table.name, columns: &table.columns, generated: &table.generated, elsewhere }
}

/// The module of a virtual table, in small letters.
fn module_of(sql: &str) -> Option<String> {
    let lower = sql.to_lowercase();
    let after = &lower[lower.rfind(" using ")? + " using ".len()..];
    let word: String =
        after.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    (lower.trim_start().starts_with("create virtual") && !word.is_empty()).then_some(word)
}

fn is_derived(module: String) -> bool {
    ["fts5vocab", "fts4aux", "fts3tokenize", "dbstat"].contains(&module.as_str())
}

/// The table that a full-text index is of, where it keeps no text itself; empty: nobody does.
fn content_of(sql: &str) -> Option<String> {
    module_of(sql).filter(|module| module.starts_with("fts"))?;
    let arguments = &sql[sql.find('(')? + 1..];
    arguments.split(',').find_map(|argument| {
        let (key, value) = argument.split_once('=')?;
        let value = value.trim().trim_end_matches(')').trim();
        let plain = value.trim_matches(|c| "'\"`[]".contains(c)).to_owned();
        (key.trim().eq_ignore_ascii_case("content")).then_some(plain)
    })
}

/// Rows that refer to what is not there.
fn dangling(db: &Connection, notes: &mut Vec<String>) -> Result<(), SqlError> {
    const SQL: &str = "SELECT \"table\", parent, count(*) FROM pragma_foreign_key_check
         GROUP BY \"table\", parent ORDER BY \"table\", parent";
    let mut found = match db.prepare(SQL) {
        Ok(found) => found,
        // A foreign key that fits no key of its parent cannot be looked at, here or by the app.
        Err(_) => return Ok(()),
    };
    let mut rows = found.query([])?;
    loop {
        let row = match rows.next() {
            Ok(Some(row)) => row,
            Ok(None) => return Ok(()),
            Err(e) => {
                notes.push(format!("foreign keys could not be looked at: {e}"));
                return Ok(());
            }
        };
        let (table, parent, count): (String, String, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        notes.push(format!(
            "{count} rows of `{table}` refer to rows of `{parent}` that are not in the clone"
        ));
    }
}

fn length(value: ValueRef<'_>) -> u64 {
    match value {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.len() as u64,
        ValueRef::Null => 1,
        ValueRef::Integer(_) | ValueRef::Real(_) => 8,
    }
}

/// Whether both hold the same objects in the same words. Those of modules and of ANALYZE are made
/// anew, or not at all.
pub(super) fn same_objects(made: &[Object], expected: &[Object]) -> bool {
    let virtuals: Vec<&[u8]> = expected
        .iter()
        .filter(|[_, _, _, sql]| starts_with(sql, b"create virtual"))
        .filter_map(|[_, name, ..]| name.as_deref())
        .collect();
    let counts = |object: &&Object| {
        let name = object[1].as_deref().unwrap_or_default();
        let of_module = |module: &&[u8]| {
            [name, object[2].as_deref().unwrap_or_default()]
                .iter()
                .any(|name| name.strip_prefix(*module).is_some_and(|rest| rest.starts_with(b"_")))
        };
        !name.starts_with(b"sqlite_") && !virtuals.iter().any(of_module)
    };
    let sorted = |objects: &[Object]| -> Vec<Object> {
        let mut objects: Vec<_> = objects.iter().filter(counts).cloned().collect();
        objects.sort_unstable();
        objects
    };
    sorted(made) == sorted(expected)
}

fn starts_with(sql: &Option<Vec<u8>>, word: &[u8]) -> bool {
    let sql = sql.as_deref().unwrap_or_default().trim_ascii_start();
    sql.len() >= word.len() && sql[..word.len()].eq_ignore_ascii_case(word)
}

//! The mask at work: what a clone's tables are filled with.

use super::ddl::{self, quoted};
use super::fault::Fault;
use super::session::Session;
use super::source::{Schema, Table};
use super::{Job, leftovers};
use crate::schema_clone::CloneError;
use crate::schema_clone::mask::{Rows, Shape, Wrong};

const CHECKING: &str = "checking the masking rules";

/// Expressions that are checked by one call.
const BATCH: usize = 100;

/// Gives each table what the rules make of it. Every rule fits, and the server understands every
/// expression, before anything is copied.
pub(super) fn fit(job: &Job<'_>, control: &mut Session, from: &mut Schema) -> Result<(), Fault> {
    if job.mask.is_empty() {
        return Ok(());
    }
    let wrong = |wrong: Wrong| {
        Fault::Told(CloneError::Mask {
            schema: job.source.clone(),
            place: job.access.place().to_owned(),
            wrong,
        })
    };
    let shapes: Vec<_> = from.tables.iter().map(shape).collect();
    let masks = job.mask.fit(&shapes).map_err(wrong)?;
    for (table, mask) in from.tables.iter_mut().zip(masks) {
        table.mask = mask;
    }
    // In a schema without tables and functions of its own, and in a place that takes no
    // aggregates: there the rows would become one.
    control.run(CHECKING, "USE information_schema")?;
    let mut checks = Vec::new();
    for table in &from.tables {
        for expression in table.mask.expressions() {
            let name = quoted(&table.name);
            let sql = format!(
                "SELECT 1 FROM {}.{name} AS {name} WHERE ({}) IS NULL LIMIT 0",
                quoted(&from.name),
                expression.sql
            );
            checks.push((sql, expression.rule, &table.name));
        }
    }
    for checks in checks.chunks(BATCH) {
        job.check_time(CHECKING)?;
        let all: Vec<_> = checks.iter().map(|(sql, ..)| &sql[..]).collect();
        let failed = std::cell::Cell::new(0);
        let at = |n: usize| {
            failed.set(n);
            None
        };
        let Err(fault) = control.run_each(CHECKING, all.join(";\n"), at) else { continue };
        // The table itself is gone or altered: that is no fault of the rule.
        if fault.is_lost() || fault.is_forbidden() || matches!(fault.code(), Some(1146 | 1412)) {
            return Err(fault.or_altered());
        }
        match (&fault, checks.get(failed.get())) {
            (Fault::Sql { error: mysql::Error::MySqlError(e), .. }, Some((_, rule, table))) => {
                let why = format!("table `{table}`: {} (error {})", e.message, e.code);
                return Err(wrong(job.mask.wrong(*rule, why)));
            }
            _ => return Err(fault),
        }
    }
    Ok(())
}

fn shape(table: &Table) -> Shape<'_> {
    // A MERGE table shows the clone's tables, which have masks of their own.
    let merged = table.engine.eq_ignore_ascii_case("MRG_MYISAM");
    let elsewhere = (!table.has_rows() && !merged).then_some(
        "shows rows that are kept elsewhere, which no mask reaches: drop it in the source",
    );
    Shape { name: &table.name, columns: &table.columns, generated: &table.generated, elsewhere }
}

/// Copies the rows of a table, as far as the mask lets them through; None where it lets none.
pub(super) fn fill(table: &Table, from: &str, into: &str) -> Option<String> {
    if table.mask.skips() {
        return None;
    }
    let name = quoted(&table.name);
    let columns: Vec<_> = table.columns.iter().map(|column| quoted(column)).collect();
    // Qualified: a variable of the function would hide a column of its name.
    let value = |(at, column): (usize, &String)| match table.mask.columns.get(&at) {
        Some(expression) => format!("({})", expression.sql),
        None => format!("{name}.{column}"),
    };
    let values: Vec<_> = columns.iter().enumerate().map(value).collect();
    let condition = match &table.mask.rows {
        Rows::Where(condition) => format!(" WHERE ({})", condition.sql),
        Rows::All | Rows::None => String::new(),
    };
    // In the order of the rows themselves: a key that holds all columns would give another one.
    Some(format!(
        "INSERT /* {} */ INTO {}.{name} ({}) SELECT {} FROM {}.{name} AS {name} USE INDEX (){condition}",
        leftovers::orphan_mark(into),
        quoted(into),
        columns.join(", "),
        values.join(", "),
        quoted(from),
    ))
}

/// Foreign keys whose rows lead to rows that the mask left out or changed.
pub(super) fn dangling(
    control: &mut Session,
    from: &Schema,
    clone: &str,
    notes: &mut Vec<String>,
) -> Result<(), Fault> {
    let masked = |name: &str| from.table(name).filter(|table| table.mask.changes());
    let touches = |table: &Table, columns: &[String]| {
        table.mask.columns.keys().any(|at| columns.contains(&table.columns[*at]))
    };
    for table in from.tables.iter().filter(|table| table.has_rows() && !table.mask.skips()) {
        let Some(parsed) = ddl::Table::parse(&table.ddl) else { continue };
        for key in parsed.foreign_keys() {
            let parent_lacks = masked(&key.parent).is_some_and(|parent| {
                !matches!(parent.mask.rows, Rows::All) || touches(parent, &key.parent_columns)
            });
            if !parent_lacks && !touches(table, &key.columns) {
                continue;
            }
            let pairs = key.columns.iter().zip(&key.parent_columns);
            let on: Vec<_> = pairs
                .map(|(c, p)| format!("`pullre~p`.{} = `pullre~c`.{}", quoted(p), quoted(c)))
                .collect();
            let is_set: Vec<_> = key
                .columns
                .iter()
                .map(|column| format!("`pullre~c`.{} IS NOT NULL", quoted(column)))
                .collect();
            let sql = format!(
                "SELECT COUNT(*) FROM {0}.{1} AS `pullre~c` WHERE {2} AND NOT EXISTS
                     (SELECT 1 FROM {0}.{3} AS `pullre~p` WHERE {4})",
                quoted(clone),
                quoted(&table.name),
                is_set.join(" AND "),
                quoted(&key.parent),
                on.join(" AND ")
            );
            let about = format!("table `{}`", table.name);
            let count: Option<u64> = match control.one("looking for dangling references", sql) {
                // It dangled before: its parent is not there.
                Err(e) if e.code() == Some(1146) => continue,
                counted => counted.map_err(|e| e.about(&about))?,
            };
            if let Some(count @ 1..) = count {
                notes.push(format!(
                    "{count} rows of `{}` refer by `{}` to rows of `{}` that the mask left out or changed",
                    table.name, key.name, key.parent
                ));
            }
        }
    }
    Ok(())
}

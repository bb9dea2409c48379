//! The rows of pullre-kun's tables, as a person maintains them: found, shown, changed, removed.
//! What may be written is decided in [`crate::ops`].

use std::hash::{DefaultHasher, Hash, Hasher};

use jiff::Timestamp;

use super::backend::{Row, Value};
use super::{AUTO_WEEKDAYS, Result, Store, datetime};
use crate::domain::ServerId;

/// A table that people maintain.
#[derive(Debug, PartialEq, Eq)]
pub struct Table {
    pub name: &'static str,
    /// What one row of it is called.
    pub one: &'static str,
    /// What it is for, in a sentence.
    pub about: &'static str,
    pub columns: &'static [Column],
}

#[derive(Debug, PartialEq, Eq)]
pub struct Column {
    pub name: &'static str,
    pub kind: Kind,
    /// A row without it is none.
    pub required: bool,
    pub hint: &'static str,
}

/// What a column holds, and so how it is asked for and checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Characters at most.
    Text(usize),
    /// The same, with perhaps a name and a password in it.
    Url(usize),
    /// Many lines.
    Long,
    Number,
    /// 1 or 0.
    Flag,
    /// `open` or `closed`.
    State,
    Sha,
    TimeOfDay,
    /// Kept by ticks: shown, not asked for.
    Kept,
}

const fn column(name: &'static str, kind: Kind, hint: &'static str) -> Column {
    Column { name, kind, required: false, hint }
}

const fn required(name: &'static str, kind: Kind, hint: &'static str) -> Column {
    Column { name, kind, required: true, hint }
}

pub static TABLES: [Table; 7] = [
    Table {
        name: "servers",
        one: "server",
        about: "Staging servers and other machines that are switched by the clock.",
        columns: &[
            required("instance_id", Kind::Text(100), "what the provider calls the machine"),
            column("name", Kind::Text(100), "what people call it"),
            column("private_ip", Kind::Text(100), "its address inside"),
            column(
                "db_schema",
                Kind::Text(64),
                "the schema that is overwritten for each environment",
            ),
            column("check_url", Kind::Url(2000), "where its app answers, with http:// or https://"),
            column("is_staging", Kind::Flag, "in the pool"),
            column("auto_start_at", Kind::TimeOfDay, "outside the pool only, such as 08:30"),
            column("auto_stop_at", Kind::TimeOfDay, "outside the pool only, such as 19:00"),
            column(AUTO_WEEKDAYS, Kind::Text(40), "such as mon-fri; every day without"),
        ],
    },
    Table {
        name: "git_hub_users",
        one: "user",
        about: "Whose schema is cloned for whose pull requests; the login default is for everybody else.",
        columns: &[
            required("login", Kind::Text(100), "the GitHub login, or default"),
            required("db_schema", Kind::Text(64), "their development schema, which is only read"),
        ],
    },
    Table {
        name: "hide_servers",
        one: "hidden server",
        about: "Machines of the account that lists leave out.",
        columns: &[required("name", Kind::Text(2000), "the machine's name or instance id")],
    },
    Table {
        name: "pull_requests",
        one: "pull request",
        about: "As GitHub describes them. GitHub is read again each hour as a whole, and wins.",
        columns: &[
            required("number", Kind::Number, ""),
            required("state", Kind::State, ""),
            required("sha", Kind::Sha, "the head, a whole commit id"),
            column("title", Kind::Text(2000), ""),
            column("body", Kind::Long, ""),
            column("ref", Kind::Text(2000), "the branch"),
            column("server_id", Kind::Kept, ""),
            column("is_launched", Kind::Kept, ""),
            column("db_schema", Kind::Kept, ""),
            column("check_run_id", Kind::Kept, ""),
        ],
    },
    Table {
        name: "next_release_messages",
        one: "release message",
        about: "What pull requests say about the next release.",
        columns: &[
            required("hash", Kind::Text(64), "tells this message from others"),
            column("content", Kind::Long, ""),
        ],
    },
    Table {
        name: "commits",
        one: "commit",
        about: "Commits, and whether production was said to serve them.",
        columns: &[
            required("sha", Kind::Sha, "a whole commit id of 40 digits"),
            column("message", Kind::Long, ""),
            column("parent_a", Kind::Sha, ""),
            column("parent_b", Kind::Sha, ""),
            column("production_reported", Kind::Flag, ""),
        ],
    },
    Table {
        name: "issues",
        one: "issue",
        about: "Issues as pullre-kun kept them.",
        columns: &[
            required("number", Kind::Number, ""),
            column("state", Kind::State, ""),
            column("title", Kind::Text(2000), ""),
            column("body", Kind::Long, ""),
            column("labels", Kind::Text(128), ""),
            column("assignee", Kind::Text(128), ""),
        ],
    },
];

impl Table {
    pub fn named(name: &str) -> Option<&'static Table> {
        TABLES.iter().find(|table| table.name == name)
    }

    pub fn column(&self, name: &str) -> Option<&'static Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    fn selected(&self) -> String {
        let columns = self.columns.iter().map(|column| match column.name {
            AUTO_WEEKDAYS => format!(
                "(SELECT weekdays FROM server_switches w WHERE w.server_id = servers.id) AS {AUTO_WEEKDAYS}"
            ),
            name => name.to_owned(),
        });
        columns.collect::<Vec<_>>().join(", ")
    }
}

/// One row. A value that is NULL is None.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MasterRow {
    pub id: i64,
    /// In the order of the table's columns.
    pub values: Vec<Option<String>>,
    pub created_at: Option<String>,
    pub updated_at: Option<String>,
}

impl MasterRow {
    fn read(table: &Table, row: &Row) -> Result<MasterRow> {
        let values = table.columns.iter().map(|column| row.opt_text(column.name));
        Ok(MasterRow {
            id: row.int("id")?,
            values: values.collect::<Result<_>>()?,
            created_at: row.opt_text("created_at")?,
            updated_at: row.opt_text("updated_at")?,
        })
    }

    pub fn value(&self, table: &Table, column: &str) -> Option<&str> {
        let at = table.columns.iter().position(|other| other.name == column)?;
        self.values[at].as_deref()
    }

    /// Another one as soon as anything that a person sets has changed. What ticks keep is left out:
    /// it would make every form stale within a minute.
    pub fn version(&self, table: &Table) -> String {
        let mut hasher = DefaultHasher::new();
        for (column, value) in table.columns.iter().zip(&self.values) {
            if column.kind != Kind::Kept {
                value.hash(&mut hasher);
            }
        }
        format!("{:016x}", hasher.finish())
    }
}

/// What came of a change that was meant for one version of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Changed {
    Done,
    /// Somebody else changed it in the meantime.
    Stale,
    Gone,
}

/// Rows on one page.
pub const PAGE: u32 = 50;

impl Store {
    /// One page of the rows that hold `search` somewhere, the newest first, and how many there are.
    /// A URL with a login in it is not searched.
    pub fn master_rows(
        &mut self,
        table: &Table,
        search: &str,
        page: u32,
    ) -> Result<(Vec<MasterRow>, u32)> {
        let mut wanted = String::from("1 = 1");
        let mut params = Vec::new();
        if !search.is_empty() {
            let escaped = search.replace('!', "!!").replace('%', "!%").replace('_', "!_");
            let columns = table.columns.iter().filter(|column| column.name != AUTO_WEEKDAYS);
            let like: Vec<_> = columns
                .map(|column| {
                    params.push(Value::Text(format!("%{escaped}%")));
                    let name = column.name;
                    // Else a search would tell whether it guessed a password's beginning.
                    let public = match column.kind {
                        Kind::Url(_) => format!("{name} NOT LIKE '%@%' AND "),
                        _ => String::new(),
                    };
                    format!("({public}CAST({name} AS CHAR) LIKE ? ESCAPE '!')")
                })
                .collect();
            wanted = like.join(" OR ");
        }
        let name = table.name;
        let count =
            self.query_one(&format!("SELECT COUNT(*) AS n FROM {name} WHERE {wanted}"), &params)?;
        let count = count.map_or(Ok(0), |row| row.u32("n"))?;
        params.extend([Value::from(PAGE), Value::from(i64::from(page) * i64::from(PAGE))]);
        let columns = table.selected();
        let rows = self.query(
            &format!(
                "SELECT id, created_at, updated_at, {columns} FROM {name} WHERE {wanted}
                 ORDER BY id DESC LIMIT ? OFFSET ?"
            ),
            &params,
        )?;
        let rows = rows.iter().map(|row| MasterRow::read(table, row));
        Ok((rows.collect::<Result<_>>()?, count))
    }

    pub fn master_row(&mut self, table: &Table, id: i64) -> Result<Option<MasterRow>> {
        let (columns, name) = (table.selected(), table.name);
        let sql = format!("SELECT id, created_at, updated_at, {columns} FROM {name} WHERE id = ?");
        self.query_one(&sql, &[id.into()])?.map(|row| MasterRow::read(table, &row)).transpose()
    }

    /// The rows in which any of these columns holds exactly this value, at most a page.
    pub fn master_rows_where(
        &mut self,
        table: &Table,
        column: &Column,
        value: &str,
    ) -> Result<Vec<MasterRow>> {
        let (columns, name) = (table.selected(), table.name);
        let sql = format!(
            "SELECT id, created_at, updated_at, {columns} FROM {name} WHERE {} = ? ORDER BY id LIMIT ?",
            column.name
        );
        let rows = self.query(&sql, &[value.into(), PAGE.into()])?;
        rows.iter().map(|row| MasterRow::read(table, row)).collect()
    }

    pub fn add_master_row(
        &mut self,
        table: &Table,
        values: &[(&'static str, Value)],
        now: Timestamp,
    ) -> Result<i64> {
        let columns: String = values.iter().map(|(name, _)| format!(", {name}")).collect();
        let marks = ", ?".repeat(values.len());
        let mut params = vec![datetime(now), datetime(now)];
        params.extend(values.iter().map(|(_, value)| value.clone()));
        self.execute(
            &format!(
                "INSERT INTO {} (created_at, updated_at{columns}) VALUES (?, ?{marks})",
                table.name
            ),
            &params,
        )?;
        self.backend.last_insert_id()
    }

    /// Sets columns of the row that still has this version.
    pub fn change_master_row(
        &mut self,
        table: &Table,
        id: i64,
        version: &str,
        values: &[(&'static str, Value)],
        now: Timestamp,
    ) -> Result<Changed> {
        self.transaction(|store| {
            let locked = store.locked_row(table, id, version)?;
            if locked != Changed::Done {
                return Ok(locked);
            }
            for (column, value) in values {
                if *column == AUTO_WEEKDAYS {
                    store.set_switches(ServerId(id), "weekdays", value.clone())?;
                    continue;
                }
                store.execute(
                    &format!("UPDATE {} SET {column} = ?, updated_at = ? WHERE id = ?", table.name),
                    &[value.clone(), datetime(now), id.into()],
                )?;
            }
            Ok(Changed::Done)
        })
    }

    /// Removes the row that still has this version.
    pub fn remove_master_row(&mut self, table: &Table, id: i64, version: &str) -> Result<Changed> {
        self.transaction(|store| {
            let locked = store.locked_row(table, id, version)?;
            if locked == Changed::Done {
                store.execute(&format!("DELETE FROM {} WHERE id = ?", table.name), &[id.into()])?;
            }
            Ok(locked)
        })
    }

    /// Whether the row is still as it was shown. Nobody else changes it before the end of the
    /// transaction: the write comes first and takes its lock.
    fn locked_row(&mut self, table: &Table, id: i64, version: &str) -> Result<Changed> {
        let lock = format!("UPDATE {} SET updated_at = updated_at WHERE id = ?", table.name);
        if self.execute(&lock, &[id.into()])? == 0 {
            return Ok(Changed::Gone);
        }
        Ok(match self.master_row(table, id)? {
            None => Changed::Gone,
            Some(row) if row.version(table) != version => Changed::Stale,
            Some(_) => Changed::Done,
        })
    }
}

//! What `doctor` asks of the control database. Changes nothing.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::migrations::tables;
use super::{Engine, Result, Store, StoreError};
use crate::domain::{PullNumber, ServerId};
use crate::grants::{NOT_A_CLIENTS, client_trials};

/// What the ancestor's table says of an open pull request, beside what ours say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirrored {
    pub number: PullNumber,
    /// As `pull_requests` names it.
    pub server: Option<ServerId>,
    /// As it is assigned.
    pub assigned: Option<ServerId>,
    /// GitHub has described it to us.
    pub described: bool,
    pub updated_at: Option<Timestamp>,
}

impl Store {
    /// What the login may not do with the control tables, each a sentence: every statement that a
    /// tick and an operator use is tried on no row.
    pub fn missing_rights(&mut self) -> Result<Vec<String>> {
        let mut missing = Vec::new();
        for (table, column) in tables() {
            let none = "WHERE 1 = 0";
            let tries = [
                ("read", format!("SELECT {column} FROM {table} {none}")),
                ("add to", format!("INSERT INTO {table} SELECT * FROM {table} {none}")),
                ("change", format!("UPDATE {table} SET {column} = {column} {none}")),
                ("remove from", format!("DELETE FROM {table} {none}")),
            ];
            for (verb, sql) in tries {
                let done = match verb {
                    "read" => self.query(&sql, &[]).map(drop),
                    _ => self.execute(&sql, &[]).map(drop),
                };
                match done {
                    Ok(()) => {}
                    Err(StoreError::Unavailable(why)) => return Err(StoreError::Unavailable(why)),
                    Err(e) => missing.push(format!("it cannot {verb} {table}: {e}")),
                }
            }
        }
        Ok(missing)
    }

    /// What a staging client's login may not do, each a sentence. Tried on no row.
    pub fn missing_client_rights(&mut self) -> Result<Vec<String>> {
        let mut missing = Vec::new();
        for (what, sql) in client_trials() {
            match self.tried(&sql) {
                Ok(()) => {}
                Err(StoreError::Unavailable(why)) => return Err(StoreError::Unavailable(why)),
                Err(e) => missing.push(format!("it cannot {what}: {e}")),
            }
        }
        Ok(missing)
    }

    /// What a staging client's login may do and should not. Tried on no row.
    pub fn needless_client_rights(&mut self) -> Vec<&'static str> {
        let mut may = |sql: &str| self.tried(sql).is_ok();
        NOT_A_CLIENTS.iter().filter(|(_, sql)| may(sql)).map(|(what, _)| *what).collect()
    }

    fn tried(&mut self, sql: &str) -> Result<()> {
        match sql.starts_with("SELECT") {
            true => self.query(sql, &[]).map(drop),
            false => self.execute(sql, &[]).map(drop),
        }
    }

    /// Which of these rights on a schema no grant to the login names. A role may give them all the
    /// same. None is needed on SQLite.
    pub fn ungranted<'r>(&mut self, schema: &str, rights: &[&'r str]) -> Result<Vec<&'r str>> {
        if self.backend.engine() == Engine::Sqlite {
            return Ok(Vec::new());
        }
        // A grant names schemas by a pattern, which is what LIKE takes.
        const MINE: &str = "grantee = CONCAT('''', REPLACE(CURRENT_USER(), '@', '''@'''), '''')";
        let rows = self.query(
            &format!(
                "SELECT privilege_type AS granted FROM information_schema.user_privileges WHERE {MINE}
                 UNION SELECT privilege_type AS granted FROM information_schema.schema_privileges
                 WHERE {MINE} AND ? LIKE table_schema"
            ),
            &[schema.into()],
        )?;
        let granted = rows.iter().map(|row| row.text("granted")).collect::<Result<Vec<_>>>()?;
        Ok(rights.iter().copied().filter(|right| !granted.iter().any(|own| own == right)).collect())
    }

    /// Every open pull request as both sides see it.
    pub fn mirrored(&mut self) -> Result<Vec<Mirrored>> {
        let rows = self.query(
            "SELECT p.number, p.server_id, p.updated_at, a.server_id AS assigned, f.is_fork
             FROM pull_requests p
             LEFT JOIN assignments a ON a.pull_number = p.number
             LEFT JOIN pull_facts f ON f.number = p.number
             WHERE p.state = 'open' ORDER BY p.number",
            &[],
        )?;
        let mut all = Vec::new();
        for row in rows {
            // A number that is none is told as a row that makes no sense.
            let Ok(number) = row.u32("number") else { continue };
            let updated: Option<DateTime> =
                row.opt_text("updated_at")?.and_then(|text| text.parse().ok());
            all.push(Mirrored {
                number: PullNumber(number),
                server: row.opt_int("server_id")?.map(ServerId),
                assigned: row.opt_int("assigned")?.map(ServerId),
                described: !row.is_null("is_fork")?,
                updated_at: updated
                    .and_then(|time| time.to_zoned(TimeZone::UTC).ok())
                    .map(|time| time.timestamp()),
            });
        }
        Ok(all)
    }

    /// When anything was last written down as having happened.
    pub fn last_event_at(&mut self) -> Result<Option<Timestamp>> {
        let row = self.query_one("SELECT MAX(at) AS at FROM events", &[])?;
        row.map_or(Ok(None), |row| row.opt_time("at"))
    }
}

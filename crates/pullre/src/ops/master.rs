//! Maintaining rows of pullre-kun's tables: each value is checked, each change is meant for one
//! version of the row, and what depends on a row is said before it goes.

use super::servers::{column, may_change};
use super::{Operator, OpsError, Result, login_of, refused, usage};
use crate::domain::{PullNumber, SchemaName, ServerId, Sha};
use crate::facts::Facts;
use crate::ownership;
use crate::reconcile::lock::Locks;
use crate::store::StoreError;
use crate::store::backend::Value;
use crate::store::master::{Changed, Column, Kind, MasterRow, Table};
use crate::words;

/// What a person typed, by column. A column that is missing is left as it is; an empty value clears.
pub type Typed = [(String, String)];

fn checked(column: &Column, value: &str) -> Result<Value> {
    let trimmed = value.trim();
    if trimmed.is_empty() {
        return match column.kind {
            Kind::Flag => Ok(Value::Int(0)),
            _ if column.required => usage(format!("{} must not be empty", column.name)),
            _ => Ok(Value::Null),
        };
    }
    let bad = |expected: &str| {
        let shown: String = trimmed.chars().take(80).collect();
        usage(format!("{} is {shown:?} and not {expected}", column.name))
    };
    match column.kind {
        Kind::Text(most) | Kind::Url(most) if trimmed.chars().count() > most => {
            bad(&format!("at most {most} characters"))
        }
        Kind::Text(_) | Kind::Url(_) if trimmed.chars().any(char::is_control) => {
            bad("a text on one line without control characters")
        }
        Kind::Text(_) | Kind::Url(_) | Kind::TimeOfDay => Ok(trimmed.into()),
        // Windows line ends are what a browser's form sends.
        Kind::Long => Ok(value.replace("\r\n", "\n").trim_end().into()),
        Kind::Number => match trimmed.parse::<PullNumber>() {
            Ok(PullNumber(number)) if number <= i32::MAX as u32 => Ok(number.into()),
            _ => bad("a whole number above 0"),
        },
        Kind::Flag => match trimmed {
            "1" | "yes" | "on" => Ok(Value::Int(1)),
            "0" | "no" => Ok(Value::Int(0)),
            _ => bad("0 or 1"),
        },
        Kind::State => match trimmed {
            "open" | "closed" => Ok(trimmed.into()),
            _ => bad("open or closed"),
        },
        Kind::Sha => match trimmed.parse::<Sha>() {
            Ok(sha) => Ok(sha.as_str().into()),
            Err(e) => usage(format!("{}: {e}", column.name)),
        },
        Kind::Kept => refused(format!("{} is kept by ticks", column.name)),
    }
}

impl Operator<'_> {
    /// The values of a form, checked one by one and against what else there is.
    fn checked_row(
        &self,
        table: &'static Table,
        id: Option<i64>,
        typed: &Typed,
        facts: &Facts,
    ) -> Result<Vec<(&'static str, Value)>> {
        let mut values = Vec::new();
        for (name, value) in typed {
            let Some(known) = table.column(name) else {
                return usage(format!("a {} has no {name:?}", table.one));
            };
            if values.iter().any(|(other, _)| *other == known.name) {
                return usage(format!("{name} is given twice"));
            }
            let mut value = (known.name, checked(known, value)?);
            match (table.name, &value.1) {
                ("servers", Value::Text(text)) => {
                    let Some(server) = id.and_then(|id| facts.servers.get(&ServerId(id))) else {
                        return refused("this server's row makes no sense or is gone");
                    };
                    value = column(known.name, text, server, facts)?;
                }
                ("git_hub_users", Value::Text(text)) if known.name == "login" => {
                    value.1 = login_of(text)?.0.into();
                }
                ("git_hub_users", Value::Text(text)) => {
                    let schema = self.developers_schema(text, facts)?;
                    value.1 = schema.as_str().into();
                }
                _ => {}
            }
            values.push(value);
        }
        Ok(values)
    }

    /// A schema that may be a developer's.
    pub(super) fn developers_schema(&self, text: &str, facts: &Facts) -> Result<SchemaName> {
        let schema: SchemaName = text.parse().map_err(|e| OpsError::Usage(format!("{e}")))?;
        match ownership::developer_refused(&schema, facts) {
            None => Ok(schema),
            Some(why) => refused(why),
        }
    }

    /// Adds a row and returns its key. Servers come by [`Operator::server_register`].
    pub fn row_create(&mut self, table: &'static Table, typed: &Typed) -> Result<i64> {
        if table.name == "servers" {
            return refused("a server is added by registering its instance");
        }
        let facts = self.store.facts()?;
        let values = self.checked_row(table, None, typed, &facts)?;
        let lacks = |column: &&Column| {
            column.required
                && !values.iter().any(|(name, value)| *name == column.name && *value != Value::Null)
        };
        if let Some(column) = table.columns.iter().find(lacks) {
            return usage(format!("{} must not be empty", column.name));
        }
        let id = self.store.add_master_row(table, &values, self.now).map_err(said_twice)?;
        self.note(None, None, &format!("added {} {id}", table.one))?;
        Ok(id)
    }

    /// Changes a row that still is as it was shown.
    pub fn row_change(
        &mut self,
        table: &'static Table,
        id: i64,
        version: &str,
        typed: &Typed,
    ) -> Result<()> {
        let facts = self.store.facts()?;
        let Some(before) = self.store.master_row(table, id)? else { return gone(table, id) };
        // Only what differs: a value that was nonsense before may stay as it is.
        let differs = |(name, value): &&(String, String)| {
            let Some(column) = table.column(name) else { return true };
            let old = shown(column, before.value(table, name)).unwrap_or_default();
            old.replace("\r\n", "\n") != value.trim().replace("\r\n", "\n")
        };
        let typed: Vec<_> = typed.iter().filter(differs).cloned().collect();
        let values = self.checked_row(table, Some(id), &typed, &facts)?;
        if table.name == "servers"
            && let Some(server) = facts.servers.get(&ServerId(id))
        {
            let keys: Vec<_> = values.iter().map(|(key, _)| *key).collect();
            may_change(server, &keys, &facts)?;
        }
        let done = self.store.change_master_row(table, id, version, &values, self.now);
        self.settled(table, id, done.map_err(said_twice)?)?;
        let names: Vec<_> = values.iter().map(|(name, _)| *name).collect();
        let server = (table.name == "servers").then_some(ServerId(id));
        match names.as_slice() {
            [] => Ok(()),
            names => {
                let what = format!("changed {} of {} {id}", names.join(", "), table.one);
                self.note(None, server, &what)
            }
        }
    }

    /// Removes a row that still is as it was shown.
    pub fn row_remove(
        &mut self,
        table: &'static Table,
        id: i64,
        version: &str,
        locks: &Locks,
    ) -> Result<()> {
        let Some(row) = self.store.master_row(table, id)? else { return gone(table, id) };
        if row.version(table) != version {
            return stale(table, id);
        }
        if table.name == "servers" {
            let facts = self.store.facts()?;
            let Some(server) = facts.servers.get(&ServerId(id)) else {
                return refused("this server's row makes no sense: mend it first");
            };
            return self.server_remove(&server.name.clone(), locks);
        }
        if let Some(why) = self.row_needed(table, &row)?.into_iter().find(|need| need.forbids) {
            return refused(why.what);
        }
        let done = self.store.remove_master_row(table, id, version)?;
        self.settled(table, id, done)?;
        self.note(None, None, &format!("removed {} {id}", table.one))
    }

    /// What depends on a row, for the page that asks whether it may go.
    pub fn row_needed(&mut self, table: &'static Table, row: &MasterRow) -> Result<Vec<Need>> {
        let facts = self.store.facts()?;
        let mut needs = Vec::new();
        let mut need = |forbids: bool, what: String| needs.push(Need { forbids, what });
        match table.name {
            "servers" => {
                let id = ServerId(row.id);
                if let Some(assignment) = facts.assignment_of_server(id) {
                    need(
                        true,
                        format!(
                            "it serves {}: take it out of the pool first (is_staging), and the next \
                             tick moves the pull request to another server",
                            assignment.pull
                        ),
                    );
                }
                if let Some(app) = facts.servers.get(&id).and_then(|server| server.app.as_ref()) {
                    need(true, format!("the app of {} still runs on it", app.pull));
                }
                for clone in facts.clones.values().filter(|clone| clone.server == id) {
                    need(
                        false,
                        format!("schema {} stays, but is no longer known as ours", clone.schema),
                    );
                }
                need(false, "its machine stays as it is, and nothing stops it any more".into());
            }
            "git_hub_users" => {
                let login = row.value(table, "login").unwrap_or_default();
                let is_default = login.eq_ignore_ascii_case("default");
                let has_own = |author: &str| {
                    facts.users.iter().any(|user| user.login.0.eq_ignore_ascii_case(author))
                };
                let theirs = facts.pulls.values().filter(|pull| {
                    let author = pull.request.author.as_ref().map(|login| login.0.as_str());
                    match author {
                        Some(author) if !is_default => author.eq_ignore_ascii_case(login),
                        Some(author) => !has_own(author),
                        None => is_default,
                    }
                });
                let numbers: Vec<_> = theirs.map(|pull| pull.request.number.to_string()).collect();
                if !numbers.is_empty() {
                    need(
                        false,
                        format!(
                            "{} would be cloned from the schema of default, or have no environment \
                             any more",
                            numbers.join(", ")
                        ),
                    );
                }
            }
            "pull_requests" => {
                let number = row.value(table, "number").and_then(|n| n.parse::<PullNumber>().ok());
                if let Some(number) = number {
                    if let Some(assignment) = facts.assignments.get(&number) {
                        let server = facts.server_name(assignment.server);
                        need(true, format!("{server} serves it: close the pull request instead"));
                    }
                    let deployments = self.store.deployments_of(number, 1000)?.len();
                    if deployments > 0 {
                        need(false, format!("its {deployments} deployments stay in the history"));
                    }
                    if row.value(table, "state") == Some("open") {
                        need(false, "it is open: GitHub brings it back within an hour".into());
                    }
                }
            }
            "hide_servers" => need(false, "the machine is listed again".into()),
            _ => {}
        }
        Ok(needs)
    }

    fn settled(&self, table: &Table, id: i64, changed: Changed) -> Result<()> {
        match changed {
            Changed::Done => Ok(()),
            Changed::Stale => stale(table, id),
            Changed::Gone => gone(table, id),
        }
    }
}

/// Something that depends on a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// The row cannot go as long as this is so.
    pub forbids: bool,
    pub what: String,
}

/// A value as everybody may see it.
pub fn told(column: &Column, value: Option<&str>) -> Option<String> {
    let shown = shown(column, value)?;
    Some(match column.kind {
        Kind::Url(_) => words::without_logins(&shown).into_owned(),
        _ => shown,
    })
}

/// A value as a form shows it.
pub fn shown(column: &Column, value: Option<&str>) -> Option<String> {
    let value = value?;
    Some(match column.kind {
        // pullre-kun keeps a whole date there and uses the time of day alone.
        Kind::TimeOfDay => match value.split_once(' ') {
            Some((_, time)) => time.strip_suffix(":00").unwrap_or(time).to_owned(),
            None => value.to_owned(),
        },
        _ => value.trim().to_owned(),
    })
}

fn gone<T>(table: &Table, id: i64) -> Result<T> {
    refused(format!("{} {id} is gone: somebody removed it in the meantime", table.one))
}

fn stale<T>(table: &Table, id: i64) -> Result<T> {
    refused(format!(
        "somebody changed {} {id} since you opened this page; look at it again, then change it",
        table.one
    ))
}

fn said_twice(e: StoreError) -> OpsError {
    match e {
        StoreError::Conflict(_) => OpsError::Refused("there is such a row already".into()),
        other => other.into(),
    }
}

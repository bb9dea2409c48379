//! The tables. One named step after the other, each safe to run again, since MySQL commits at
//! every DDL statement: whatever a killed run left, the next one completes.

use super::backend::{Engine, StoreError, Value};
use super::{Store, harmless_twice};

/// A named step. Never changed once released: a later one mends it.
struct Migration {
    name: &'static str,
    step: Step,
}

enum Step {
    Sql(&'static str),
    /// A table of pullre-kun, made with whatever the server took as its default, takes all
    /// characters, and this column a text of any length.
    Fit(&'static str, Option<&'static str>),
    /// What pullre-kun's rows say is written into our tables.
    Adopt,
}

macro_rules! migrations {
    ($($name:literal: $sql:literal),+; $($other:literal: $step:expr),+ $(,)?) => {
        &[
            $(Migration { name: $name, step: Step::Sql($sql) },)+
            $(Migration { name: $other, step: $step },)+
        ]
    };
}

/// First pullre-kun's tables as its installations have them, then ours. What stands in braces
/// differs between engines; in our own tables texts are told apart to the byte.
const MIGRATIONS: &[Migration] = migrations! {
    "servers": "CREATE TABLE IF NOT EXISTS servers (
        id {id}, created_at DATETIME NOT NULL, updated_at DATETIME NOT NULL,
        instance_id VARCHAR(100), name TEXT, private_ip VARCHAR(100), db_schema TEXT,
        check_url TEXT, is_staging INT, auto_start_at DATETIME, auto_stop_at DATETIME) {table}",
    "git_hub_users": "CREATE TABLE IF NOT EXISTS git_hub_users (
        id {id}, created_at DATETIME NOT NULL, updated_at DATETIME NOT NULL,
        login VARCHAR(128) NOT NULL UNIQUE, db_schema TEXT) {table}",
    "hide_servers": "CREATE TABLE IF NOT EXISTS hide_servers (
        id {id}, created_at DATETIME NOT NULL, updated_at DATETIME NOT NULL, name TEXT) {table}",
    "pull_requests": "CREATE TABLE IF NOT EXISTS pull_requests (
        id {id}, created_at DATETIME NOT NULL, updated_at DATETIME NOT NULL,
        number INT NOT NULL UNIQUE, state VARCHAR(20), sha VARCHAR(64), title TEXT, body {text},
        ref TEXT, server_id BIGINT, is_launched INT, db_schema TEXT, check_run_id BIGINT,
        FOREIGN KEY (server_id) REFERENCES servers (id)) {table}",
    "next_release_messages": "CREATE TABLE IF NOT EXISTS next_release_messages (
        id {id}, created_at DATETIME NOT NULL, updated_at DATETIME NOT NULL,
        hash VARCHAR(64) NOT NULL UNIQUE, content TEXT) {table}",
    "commits": "CREATE TABLE IF NOT EXISTS commits (
        id {id}, created_at DATETIME NOT NULL, updated_at DATETIME NOT NULL,
        sha VARCHAR(40) NOT NULL UNIQUE, message TEXT, parent_a VARCHAR(40),
        parent_b VARCHAR(40), production_reported INT) {table}",
    "issues": "CREATE TABLE IF NOT EXISTS issues (
        id {id}, created_at DATETIME NOT NULL, updated_at DATETIME NOT NULL,
        number INT NOT NULL UNIQUE, state VARCHAR(10), title TEXT, body {text},
        labels VARCHAR(128), assignee VARCHAR(128)) {table}",

    // Moments are milliseconds since 1970 in UTC.
    "pull_facts": "CREATE TABLE IF NOT EXISTS pull_facts (
        number INT NOT NULL PRIMARY KEY, author VARCHAR(128), head_repo {text},
        is_fork INT NOT NULL, is_draft INT NOT NULL, labels {text} NOT NULL, base_ref {text} NOT NULL,
        opened_at BIGINT NOT NULL, changed_at BIGINT NOT NULL, closed_at BIGINT,
        eligible_since BIGINT, ineligible_since BIGINT, last_server_id BIGINT) {own}",
    // A person's words on a pull request; kept apart, since they may come before GitHub's.
    "pull_wishes": "CREATE TABLE IF NOT EXISTS pull_wishes (
        number INT NOT NULL PRIMARY KEY, approved_sha VARCHAR(64),
        held_at BIGINT, held_until BIGINT, held_reason {text}) {own}",
    "server_facts": "CREATE TABLE IF NOT EXISTS server_facts (
        server_id BIGINT NOT NULL PRIMARY KEY, held_at BIGINT, held_until BIGINT, held_reason {text},
        start_requested_at BIGINT, start_attempts INT NOT NULL, start_error {text},
        no_capacity_at BIGINT, stop_owed INT NOT NULL, state VARCHAR(20), agent_seen_at BIGINT, agent_version VARCHAR(40),
        app_pull INT, app_sha VARCHAR(64)) {own}",
    // One environment for each server, one server for each environment.
    "assignments": "CREATE TABLE IF NOT EXISTS assignments (
        server_id BIGINT NOT NULL PRIMARY KEY, pull_number INT NOT NULL UNIQUE,
        assigned_at BIGINT NOT NULL, deployment_id BIGINT) {own}",
    "clones": "CREATE TABLE IF NOT EXISTS clones (
        schema_name VARCHAR(64) NOT NULL PRIMARY KEY, server_id BIGINT NOT NULL,
        state VARCHAR(20) NOT NULL, source VARCHAR(64), pull_number INT, attempts INT NOT NULL,
        started_at BIGINT, finished_at BIGINT, error {text}, bytes BIGINT, millis BIGINT) {own}",
    "deployments": "CREATE TABLE IF NOT EXISTS deployments (
        id {id}, pull_number INT NOT NULL, server_id BIGINT NOT NULL, sha VARCHAR(64) NOT NULL,
        attempt INT NOT NULL, outcome VARCHAR(20) NOT NULL, offered_at BIGINT NOT NULL,
        started_at BIGINT, finished_at BIGINT, interruptions INT NOT NULL,
        failed_step VARCHAR(40), reason {text}) {own}",
    "deployments_by_pull": "CREATE INDEX {if_not_exists} deployments_by_pull ON deployments (pull_number)",
    "deployments_by_server": "CREATE INDEX {if_not_exists} deployments_by_server ON deployments (server_id)",
    "deployment_steps": "CREATE TABLE IF NOT EXISTS deployment_steps (
        id {id}, deployment_id BIGINT NOT NULL, name VARCHAR(40) NOT NULL,
        started_at BIGINT NOT NULL, finished_at BIGINT, exit_status INT, output {text} NOT NULL) {own}",
    "deployment_steps_by_deployment": "CREATE INDEX {if_not_exists} deployment_steps_by_deployment
        ON deployment_steps (deployment_id)",
    "events": "CREATE TABLE IF NOT EXISTS events (
        id {id}, at BIGINT NOT NULL, actor VARCHAR(128) NOT NULL, pull_number INT, server_id BIGINT,
        message {text} NOT NULL) {own}",
    "events_by_pull": "CREATE INDEX {if_not_exists} events_by_pull ON events (pull_number)",
    "agent_troubles": "CREATE TABLE IF NOT EXISTS agent_troubles (
        server_id BIGINT NOT NULL PRIMARY KEY, message {text}) {table}",
    "local_slots": "CREATE TABLE IF NOT EXISTS local_slots (
        name VARCHAR(100) NOT NULL PRIMARY KEY, state VARCHAR(20) NOT NULL) {own}",
    "settings": "CREATE TABLE IF NOT EXISTS settings (
        name VARCHAR(64) NOT NULL PRIMARY KEY, content {text} NOT NULL) {own}",
    // The weekdays of auto_start_at and auto_stop_at, and how far they were done.
    "server_switches": "CREATE TABLE IF NOT EXISTS server_switches (
        server_id BIGINT NOT NULL PRIMARY KEY, weekdays VARCHAR(40), done_at BIGINT) {own}",
    // What a staging client measured when it last gave a sign of life.
    "server_pulses": "CREATE TABLE IF NOT EXISTS server_pulses (
        server_id BIGINT NOT NULL PRIMARY KEY, free_bytes BIGINT NOT NULL,
        total_bytes BIGINT NOT NULL, load_percent INT NOT NULL) {own}",
    // The app of a deployment that had succeeded died; 0 times once it runs again.
    "app_deaths": "CREATE TABLE IF NOT EXISTS app_deaths (
        server_id BIGINT NOT NULL PRIMARY KEY, deployment_id BIGINT NOT NULL, times INT NOT NULL,
        died_at BIGINT NOT NULL, again_at BIGINT NOT NULL, reason {text}) {own}",
    // What is in a schema of `clones`, and beside it.
    "clone_contents": "CREATE TABLE IF NOT EXISTS clone_contents (
        schema_name VARCHAR(64) NOT NULL PRIMARY KEY, pull_number INT, source VARCHAR(64),
        mask VARCHAR(64), building_mask VARCHAR(64), kept INT NOT NULL, undo_wish BIGINT) {own}",
    // The clone that a schema is filled with: tried again it is the same one, until it is done.
    "clone_wishes": "CREATE TABLE IF NOT EXISTS clone_wishes (
        schema_name VARCHAR(64) NOT NULL PRIMARY KEY, wish BIGINT NOT NULL, done INT NOT NULL) {own}",
    "console_users": "CREATE TABLE IF NOT EXISTS console_users (
        name VARCHAR(128) NOT NULL PRIMARY KEY, password {text} NOT NULL, role VARCHAR(20) NOT NULL,
        created_at BIGINT NOT NULL) {own}",
    // Each tick as it ended: how long it took, and how busy the pool was.
    "ticks": "CREATE TABLE IF NOT EXISTS ticks (
        began_at BIGINT NOT NULL PRIMARY KEY, millis BIGINT NOT NULL, pool INT NOT NULL,
        busy INT NOT NULL, queued INT NOT NULL, acted INT NOT NULL, failed INT NOT NULL) {own}",
    // When a head was first seen, and when its environment got a server: what waiting is measured by.
    "heads": "CREATE TABLE IF NOT EXISTS heads (
        number INT NOT NULL, sha VARCHAR(64) NOT NULL, pushed_at BIGINT NOT NULL,
        PRIMARY KEY (number, sha)) {own}",
    "waits": "CREATE TABLE IF NOT EXISTS waits (
        number INT NOT NULL, assigned_at BIGINT NOT NULL, millis BIGINT NOT NULL,
        PRIMARY KEY (number, assigned_at)) {own}",
    // Who gave an environment's server back.
    "pull_stops": "CREATE TABLE IF NOT EXISTS pull_stops (
        number INT NOT NULL PRIMARY KEY, stopped_at BIGINT NOT NULL, stopped_by VARCHAR(128) NOT NULL) {own}",
    // What was last said on GitHub of a commit, or with an empty sha of a pull request.
    "reports": "CREATE TABLE IF NOT EXISTS reports (
        pull_number INT NOT NULL, kind VARCHAR(20) NOT NULL, sha VARCHAR(64) NOT NULL,
        remote_id BIGINT, credential VARCHAR(80), state VARCHAR(20), digest VARCHAR(40),
        said_at BIGINT, settled INT NOT NULL, tried_digest VARCHAR(40), tried_at BIGINT,
        attempts INT NOT NULL, PRIMARY KEY (pull_number, kind, sha)) {own}",
    // What of `reports` may have been made on GitHub and is not recorded.
    "report_beginnings": "CREATE TABLE IF NOT EXISTS report_beginnings (
        pull_number INT NOT NULL, kind VARCHAR(20) NOT NULL, sha VARCHAR(64) NOT NULL,
        begun_at BIGINT NOT NULL, PRIMARY KEY (pull_number, kind, sha)) {own}",
    // What a credential may not do on GitHub.
    "report_refusals": "CREATE TABLE IF NOT EXISTS report_refusals (
        kind VARCHAR(20) NOT NULL PRIMARY KEY, credential VARCHAR(80) NOT NULL,
        refused_at BIGINT NOT NULL, why {text} NOT NULL) {own}",
    // How often we wrote to GitHub, by the minute.
    "report_writes": "CREATE TABLE IF NOT EXISTS report_writes (
        minute BIGINT NOT NULL PRIMARY KEY, writes INT NOT NULL) {own}",
    // Words of people in comments, each obeyed once.
    "comment_commands": "CREATE TABLE IF NOT EXISTS comment_commands (
        comment_id BIGINT NOT NULL PRIMARY KEY, pull_number INT NOT NULL, login VARCHAR(128) NOT NULL,
        verb VARCHAR(20) NOT NULL, state VARCHAR(20) NOT NULL, changed_at BIGINT NOT NULL,
        reaction VARCHAR(20), answer {text}) {own}",
    "comment_commands_by_state": "CREATE INDEX {if_not_exists} comment_commands_by_state
        ON comment_commands (state)",
    "reports_by_settled": "CREATE INDEX {if_not_exists} reports_by_settled ON reports (settled)",
    // What the chat was told and still holds.
    "alerts": "CREATE TABLE IF NOT EXISTS alerts (
        name VARCHAR(128) NOT NULL PRIMARY KEY, message {text} NOT NULL, since BIGINT NOT NULL,
        told_at BIGINT) {own}";

    "fit_servers": Step::Fit("servers", None),
    "fit_git_hub_users": Step::Fit("git_hub_users", None),
    "fit_hide_servers": Step::Fit("hide_servers", None),
    "fit_pull_requests": Step::Fit("pull_requests", Some("body")),
    "fit_next_release_messages": Step::Fit("next_release_messages", Some("content")),
    "fit_commits": Step::Fit("commits", Some("message")),
    "fit_issues": Step::Fit("issues", Some("body")),
    "adopt": Step::Adopt,
};

const LEDGER: &str = "CREATE TABLE IF NOT EXISTS schema_migrations (
    name VARCHAR(100) NOT NULL PRIMARY KEY, applied_at BIGINT NOT NULL) {own}";

/// The names of all steps, in order.
pub fn all_migrations() -> Vec<&'static str> {
    MIGRATIONS.iter().map(|migration| migration.name).collect()
}

/// What [`Store::migrate`] makes where there is nothing yet.
pub fn all_tables() -> Vec<String> {
    let made = MIGRATIONS.iter().filter(|migration| matches!(migration.step, Step::Sql(_)));
    made.map(|migration| migration.name.to_owned()).collect()
}

/// Every table, with its first column.
pub(super) fn tables() -> Vec<(&'static str, &'static str)> {
    let column = |sql: &'static str| sql.split_once('(')?.1.split_whitespace().next();
    let made = MIGRATIONS.iter().filter_map(|migration| match migration.step {
        Step::Sql(sql) if sql.starts_with("CREATE TABLE") => Some((migration.name, column(sql)?)),
        _ => None,
    });
    made.chain([("schema_migrations", "name")]).collect()
}

fn dialect(sql: &str, engine: Engine) -> String {
    let words = match engine {
        Engine::Sqlite => [
            ("{id}", "INTEGER PRIMARY KEY AUTOINCREMENT"),
            ("{text}", "TEXT"),
            ("{table}", ""),
            ("{own}", ""),
            ("{if_not_exists}", "IF NOT EXISTS"),
        ],
        Engine::Mysql => [
            ("{id}", "BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY"),
            ("{text}", "LONGTEXT"),
            ("{table}", "ENGINE=InnoDB DEFAULT CHARSET=utf8mb4"),
            ("{own}", "ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin"),
            // MySQL has no such words: a second try is a conflict, which is harmless.
            ("{if_not_exists}", ""),
        ],
    };
    words.iter().fold(sql.to_owned(), |sql, (word, meaning)| sql.replace(word, meaning))
}

impl Store {
    /// The migrations that this database still lacks, in order.
    pub fn pending_migrations(&mut self) -> Result<Vec<&'static str>, StoreError> {
        let applied = match self.backend.query("SELECT name FROM schema_migrations", &[]) {
            Ok(rows) => rows.iter().map(|row| row.text("name")).collect::<Result<Vec<_>, _>>()?,
            Err(StoreError::NotInitialized) => Vec::new(),
            Err(e) => return Err(e),
        };
        if let Some(newer) = applied.iter().find(|name| MIGRATIONS.iter().all(|m| m.name != **name))
        {
            return Err(StoreError::Newer(newer.clone()));
        }
        let lacks = |m: &&Migration| !applied.iter().any(|name| name == m.name);
        Ok(MIGRATIONS.iter().filter(lacks).map(|m| m.name).collect())
    }

    /// Creates or completes the tables, and takes over what pullre-kun left. Returns what was made,
    /// in words that go on from "created". Running it again does nothing.
    pub fn migrate(&mut self, now: jiff::Timestamp) -> Result<Vec<String>, StoreError> {
        let engine = self.backend.engine();
        self.execute(&dialect(LEDGER, engine), &[])?;
        let pending = self.pending_migrations()?;
        let mut made = Vec::new();
        for migration in MIGRATIONS.iter().filter(|m| pending.contains(&m.name)) {
            let name = migration.name;
            made.extend(self.planned(migration)?);
            match &migration.step {
                Step::Sql(sql) => {
                    harmless_twice(self.execute(&dialect(sql, engine), &[]))?;
                    harmless_twice(self.note_migration(name, now))?;
                }
                Step::Fit(table, column) => {
                    for statement in self.fitting(table, *column)? {
                        self.execute(&statement, &[])?;
                    }
                    harmless_twice(self.note_migration(name, now))?;
                }
                // Noted first, so that of two at the same time one waits for the other.
                Step::Adopt => {
                    let noted = self.transaction(|store| {
                        store.note_migration(name, now)?;
                        store.adopt(now)
                    });
                    // Whose conflict is it? Only that of the note says that it is done.
                    if noted.is_err() && !self.pending_migrations()?.contains(&name) {
                        continue;
                    }
                    noted?;
                }
            }
        }
        Ok(made)
    }

    // A second `init` at the same time may have been faster: that is a conflict.
    fn note_migration(&mut self, name: &str, now: jiff::Timestamp) -> Result<(), StoreError> {
        self.execute(
            "INSERT INTO schema_migrations (name, applied_at) VALUES (?, ?)",
            &[name.into(), Value::from(now)],
        )
        .map(drop)
    }

    /// What [`Store::migrate`] would return. Changes nothing.
    pub fn planned_migration(&mut self) -> Result<Vec<String>, StoreError> {
        let pending = self.pending_migrations()?;
        let mut made = Vec::new();
        for migration in MIGRATIONS.iter().filter(|m| pending.contains(&m.name)) {
            made.extend(self.planned(migration)?);
        }
        Ok(made)
    }

    fn planned(&mut self, migration: &Migration) -> Result<Vec<String>, StoreError> {
        let name = migration.name;
        match &migration.step {
            Step::Sql(sql) if sql.starts_with("CREATE TABLE") => {
                match self.query(&format!("SELECT 1 FROM {name} LIMIT 1"), &[]) {
                    Ok(_) => Ok(Vec::new()), // pullre-kun's, or left by a run that was killed.
                    Err(StoreError::NotInitialized) => Ok(vec![name.to_owned()]),
                    Err(e) => Err(e),
                }
            }
            Step::Sql(_) => Ok(vec![name.to_owned()]),
            Step::Fit(table, column) => {
                let fit = !self.fitting(table, *column)?.is_empty();
                Ok(fit.then(|| format!("room for every text in {table}")).into_iter().collect())
            }
            Step::Adopt => self.planned_adoption(),
        }
    }

    /// The statements that a table of pullre-kun still needs; on SQLite every text fits.
    fn fitting(&mut self, table: &str, column: Option<&str>) -> Result<Vec<String>, StoreError> {
        if self.backend.engine() == Engine::Sqlite {
            return Ok(Vec::new());
        }
        // Newer servers name these columns in capitals and keep their texts in other types, so
        // both are said.
        let columns = self.query(
            "SELECT column_name AS name, CAST(data_type AS CHAR(64)) AS type, is_nullable AS nullable,
                 character_set_name AS charset, collation_name AS collation
             FROM information_schema.columns
             WHERE table_schema = DATABASE() AND table_name = ? AND character_set_name IS NOT NULL",
            &[table.into()],
        )?;
        let mut statements = Vec::new();
        let mut collations = Vec::new();
        for row in &columns {
            collations.push((row.text("charset")?, row.text("collation")?));
        }
        let old = collations.iter().find(|(charset, _)| charset != "utf8mb4");
        // What was told apart before stays apart: a key may hold both.
        let binary = old.filter(|_| collations.iter().any(|(_, name)| name.ends_with("_bin")));
        if old.is_some() {
            let collate = if binary.is_some() { " COLLATE utf8mb4_bin" } else { "" };
            statements
                .push(format!("ALTER TABLE {table} CONVERT TO CHARACTER SET utf8mb4{collate}"));
        }
        for row in &columns {
            let name = row.text("name")?;
            if column != Some(name.as_str()) || row.text("type")?.eq_ignore_ascii_case("longtext") {
                continue;
            }
            let null = if row.text("nullable")? == "NO" { " NOT NULL" } else { "" };
            // A table that was just converted lends its own.
            let words = match (old, row.text("collation")?) {
                (None, collation) => format!(" CHARACTER SET utf8mb4 COLLATE {collation}"),
                (Some(_), _) => String::new(),
            };
            statements.push(format!("ALTER TABLE {table} MODIFY {name} LONGTEXT{words}{null}"));
        }
        Ok(statements)
    }

    /// Refuses a database without our tables, or with tables of a newer version.
    pub fn require_tables(&mut self) -> Result<(), StoreError> {
        match self.pending_migrations()? {
            pending if pending.is_empty() => Ok(()),
            _ => Err(StoreError::NotInitialized),
        }
    }
}

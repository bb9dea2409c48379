//! The tables. One statement per named migration, each safe to run again, since MySQL commits at
//! every DDL statement: whatever a killed run left, the next one completes.

use super::Store;
use super::backend::{Engine, StoreError, Value};

/// A named step. Never changed once released: a later one mends it.
struct Migration {
    name: &'static str,
    sql: &'static str,
}

macro_rules! migrations {
    ($($name:literal: $sql:literal),+ $(,)?) => {
        &[$(Migration { name: $name, sql: $sql }),+]
    };
}

/// First pullre-kun's tables as its installations have them, then ours. `{id}`, `{text}` and
/// `{table}` stand for what differs between engines.
const MIGRATIONS: &[Migration] = migrations! {
    "servers": "CREATE TABLE IF NOT EXISTS servers (
        id {id}, created_at DATETIME NOT NULL, updated_at DATETIME NOT NULL,
        instance_id VARCHAR(100), name {text}, private_ip VARCHAR(100), db_schema {text},
        check_url {text}, is_staging INT, auto_start_at DATETIME, auto_stop_at DATETIME) {table}",
    "git_hub_users": "CREATE TABLE IF NOT EXISTS git_hub_users (
        id {id}, created_at DATETIME NOT NULL, updated_at DATETIME NOT NULL,
        login VARCHAR(128) NOT NULL UNIQUE, db_schema {text}) {table}",
    "hide_servers": "CREATE TABLE IF NOT EXISTS hide_servers (
        id {id}, created_at DATETIME NOT NULL, updated_at DATETIME NOT NULL, name {text}) {table}",
    "pull_requests": "CREATE TABLE IF NOT EXISTS pull_requests (
        id {id}, created_at DATETIME NOT NULL, updated_at DATETIME NOT NULL,
        number INT NOT NULL UNIQUE, state VARCHAR(20), sha VARCHAR(64), title {text}, body {text},
        ref {text}, server_id BIGINT, is_launched INT, db_schema {text}, check_run_id BIGINT,
        FOREIGN KEY (server_id) REFERENCES servers (id)) {table}",
    "next_release_messages": "CREATE TABLE IF NOT EXISTS next_release_messages (
        id {id}, created_at DATETIME NOT NULL, updated_at DATETIME NOT NULL,
        hash VARCHAR(64) NOT NULL UNIQUE, content {text}) {table}",
    "commits": "CREATE TABLE IF NOT EXISTS commits (
        id {id}, created_at DATETIME NOT NULL, updated_at DATETIME NOT NULL,
        sha VARCHAR(40) NOT NULL UNIQUE, message {text}, parent_a VARCHAR(40),
        parent_b VARCHAR(40), production_reported INT) {table}",
    "issues": "CREATE TABLE IF NOT EXISTS issues (
        id {id}, created_at DATETIME NOT NULL, updated_at DATETIME NOT NULL,
        number INT NOT NULL UNIQUE, state VARCHAR(10), title {text}, body {text},
        labels VARCHAR(128), assignee VARCHAR(128)) {table}",

    // Moments are milliseconds since 1970 in UTC.
    "pull_facts": "CREATE TABLE IF NOT EXISTS pull_facts (
        number INT NOT NULL PRIMARY KEY, author VARCHAR(128), head_repo {text},
        is_fork INT NOT NULL, is_draft INT NOT NULL, labels {text} NOT NULL, base_ref {text} NOT NULL,
        opened_at BIGINT NOT NULL, changed_at BIGINT NOT NULL, closed_at BIGINT,
        eligible_since BIGINT, ineligible_since BIGINT, last_server_id BIGINT) {table}",
    // A person's words on a pull request; kept apart, since they may come before GitHub's.
    "pull_wishes": "CREATE TABLE IF NOT EXISTS pull_wishes (
        number INT NOT NULL PRIMARY KEY, approved_sha VARCHAR(64),
        held_at BIGINT, held_until BIGINT, held_reason {text}) {table}",
    "server_facts": "CREATE TABLE IF NOT EXISTS server_facts (
        server_id BIGINT NOT NULL PRIMARY KEY, held_at BIGINT, held_until BIGINT, held_reason {text},
        start_requested_at BIGINT, start_attempts INT NOT NULL, start_error {text},
        stop_owed INT NOT NULL, state VARCHAR(20), agent_seen_at BIGINT, agent_version VARCHAR(40),
        app_pull INT, app_sha VARCHAR(64)) {table}",
    // One environment for each server, one server for each environment.
    "assignments": "CREATE TABLE IF NOT EXISTS assignments (
        server_id BIGINT NOT NULL PRIMARY KEY, pull_number INT NOT NULL UNIQUE,
        assigned_at BIGINT NOT NULL, deployment_id BIGINT) {table}",
    "clones": "CREATE TABLE IF NOT EXISTS clones (
        schema_name VARCHAR(64) NOT NULL PRIMARY KEY, server_id BIGINT NOT NULL,
        state VARCHAR(20) NOT NULL, source VARCHAR(64), pull_number INT, attempts INT NOT NULL,
        started_at BIGINT, finished_at BIGINT, error {text}, bytes BIGINT, millis BIGINT) {table}",
    "deployments": "CREATE TABLE IF NOT EXISTS deployments (
        id {id}, pull_number INT NOT NULL, server_id BIGINT NOT NULL, sha VARCHAR(64) NOT NULL,
        attempt INT NOT NULL, outcome VARCHAR(20) NOT NULL, offered_at BIGINT NOT NULL,
        started_at BIGINT, finished_at BIGINT, interruptions INT NOT NULL,
        failed_step VARCHAR(40), reason {text}) {table}",
    "deployments_by_pull": "CREATE INDEX {if_not_exists} deployments_by_pull ON deployments (pull_number)",
    "deployment_steps": "CREATE TABLE IF NOT EXISTS deployment_steps (
        id {id}, deployment_id BIGINT NOT NULL, name VARCHAR(40) NOT NULL,
        started_at BIGINT NOT NULL, finished_at BIGINT, exit_status INT, output {text} NOT NULL) {table}",
    "deployment_steps_by_deployment": "CREATE INDEX {if_not_exists} deployment_steps_by_deployment
        ON deployment_steps (deployment_id)",
    "events": "CREATE TABLE IF NOT EXISTS events (
        id {id}, at BIGINT NOT NULL, actor VARCHAR(128) NOT NULL, pull_number INT, server_id BIGINT,
        message {text} NOT NULL) {table}",
    "events_by_pull": "CREATE INDEX {if_not_exists} events_by_pull ON events (pull_number)",
    "local_slots": "CREATE TABLE IF NOT EXISTS local_slots (
        name VARCHAR(100) NOT NULL PRIMARY KEY, state VARCHAR(20) NOT NULL) {table}",
    "settings": "CREATE TABLE IF NOT EXISTS settings (
        name VARCHAR(64) NOT NULL PRIMARY KEY, content {text} NOT NULL) {table}",
};

const LEDGER: &str = "CREATE TABLE IF NOT EXISTS schema_migrations (
    name VARCHAR(100) NOT NULL PRIMARY KEY, applied_at BIGINT NOT NULL) {table}";

/// The names of all steps, in order.
pub fn all_migrations() -> Vec<&'static str> {
    MIGRATIONS.iter().map(|migration| migration.name).collect()
}

fn dialect(sql: &str, engine: Engine) -> String {
    let (id, text, table, if_not_exists) = match engine {
        Engine::Sqlite => ("INTEGER PRIMARY KEY AUTOINCREMENT", "TEXT", "", "IF NOT EXISTS"),
    };
    sql.replace("{id}", id)
        .replace("{text}", text)
        .replace("{table}", table)
        .replace("{if_not_exists}", if_not_exists)
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

    /// Creates or completes the tables; returns what was done. Running it again does nothing.
    pub fn migrate(&mut self, now: jiff::Timestamp) -> Result<Vec<&'static str>, StoreError> {
        let engine = self.backend.engine();
        self.backend.execute(&dialect(LEDGER, engine), &[])?;
        let pending = self.pending_migrations()?;
        for migration in MIGRATIONS.iter().filter(|m| pending.contains(&m.name)) {
            self.backend.execute(&dialect(migration.sql, engine), &[])?;
            // A second `init` at the same time may have been faster: the statement was harmless.
            let noted = self.backend.execute(
                "INSERT INTO schema_migrations (name, applied_at) VALUES (?, ?)",
                &[migration.name.into(), Value::from(now)],
            );
            match noted {
                Ok(_) | Err(StoreError::Conflict(_)) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(pending)
    }

    /// Refuses a database without our tables, or with tables of a newer version.
    pub fn require_tables(&mut self) -> Result<(), StoreError> {
        match self.pending_migrations()? {
            pending if pending.is_empty() => Ok(()),
            _ => Err(StoreError::NotInitialized),
        }
    }
}

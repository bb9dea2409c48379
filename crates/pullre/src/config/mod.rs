//! app.ini, read into one validated type for each binary.
//!
//! Low, then high: [`RawConfig`] knows lines, the environment and which keys exist;
//! [`ControllerConfig`] and [`ClientConfig`] are made from it once and cannot be wrong afterwards.

mod app;
mod client;
mod clones;
mod console;
mod controller;
mod keys;
mod raw;
mod reader;
mod report;
mod secret;
#[cfg(test)]
mod tests;

pub use app::{AppConfig, GitConfig};
pub use client::{ClientConfig, TargetDir};
pub use clones::CloneConfig;
pub use console::{ConsoleConfig, Network};
pub use controller::{ComputeKind, ControllerConfig};
pub use keys::{KEYS, Key, env_name};
pub use raw::{RawConfig, SHORTEST_MASKED};
pub use reader::{ConfigErrors, Problem};
pub use report::{GithubLogin, ReportConfig};
pub use secret::Secret;

use std::path::PathBuf;

use crate::domain::SchemaName;

/// Where the control tables and the schemas are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatabaseConfig {
    Sqlite {
        /// The control database's file.
        path: PathBuf,
        /// The folder that holds one file `<schema>.db` for each schema.
        schema_dir: PathBuf,
    },
    Mysql {
        host: String,
        port: u16,
        user: String,
        /// Empty for a login without a password.
        password: Secret,
        /// The schema that holds the control tables.
        name: SchemaName,
        /// Connection parameters, `a=b&c=d`, as written.
        additional: String,
    },
}

//! `update-pull grants`: the SQL for the logins at a MySQL server.

use pullre::config::{ControllerConfig, DatabaseConfig};
use pullre::facts::Facts;
use pullre::grants::grants;
use pullre::store::{Database, StoreError};
use pullre::words;

use crate::commands::{Result, say};

/// Needs nothing of an installation but app.ini: it is asked for before anything works.
pub fn run(config: &ControllerConfig) -> Result {
    let DatabaseConfig::Mysql { name, .. } = &config.database else {
        return say(
            "SQLite has no logins: who may read and write the files of the control database and of \
             the schemas may do everything with them",
        );
    };
    let facts = match Database::mysql(&config.database)?.open().and_then(|mut store| store.facts())
    {
        Ok(facts) => facts,
        // The login that is to be made.
        Err(e @ (StoreError::Setup(_) | StoreError::NotInitialized)) => {
            let why = words::plain(&e.to_string());
            say(&format!("-- Users and servers are not known yet: {why}"))?;
            Facts::default()
        }
        Err(e) => return Err(e.into()),
    };
    let script = grants(name, &facts, "'pullre_controller'@'%'", "'pullre_client'@'%'").to_string();
    say(script.trim_end())
}

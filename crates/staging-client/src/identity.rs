//! Which servers this client serves.

use anyhow::{Result, bail};
use pullre::config::{ClientConfig, DatabaseConfig};
use pullre::store::{Database, Duty, Store};

pub fn database(config: &ClientConfig) -> Result<Database> {
    match &config.database {
        DatabaseConfig::Sqlite { path, .. } => Ok(Database::sqlite(path)),
        mysql @ DatabaseConfig::Mysql { .. } => Ok(Database::mysql(mysql)?),
    }
}

/// Who this client is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// The server with this name or instance id, and who said so.
    One { name: String, from: &'static str },
    /// Every slot of this machine.
    Local,
}

impl Identity {
    pub fn find(config: &ClientConfig, server: Option<&str>) -> Result<Identity> {
        if let Some(name) = server {
            return Ok(Identity::One { name: name.to_owned(), from: "--server" });
        }
        if let Some(id) = &config.instance_id {
            return Ok(Identity::One { name: id.clone(), from: "instance_id" });
        }
        match config.database {
            DatabaseConfig::Sqlite { .. } => Ok(Identity::Local),
            DatabaseConfig::Mysql { .. } => bail!(
                "which server this is cannot be told: set `instance_id` in app.ini to the instance \
                 id that the server was registered with"
            ),
        }
    }

    pub fn duties(&self, store: &mut Store) -> Result<Vec<Duty>> {
        let Identity::One { name, from } = self else { return Ok(store.local_duties()?) };
        let mut duties = store.duties_of(name)?;
        if duties.len() == 1 {
            return Ok(duties);
        }
        if duties.is_empty() {
            let servers = store.server_names()?.into_iter();
            let known: Vec<String> = servers
                .filter_map(|names| match names {
                    (Some(name), Some(id)) if id != name => Some(format!("{name} ({id})")),
                    (name, id) => name.or(id),
                })
                .collect();
            match known.is_empty() {
                true => bail!(
                    "no server is called {name:?} ({from}), none is registered at all: run \
                     `update-pull server register INSTANCE_ID`"
                ),
                false => bail!(
                    "no server is called {name:?} ({from}): the registered ones are {}",
                    known.join(", ")
                ),
            }
        }
        duties.sort_by_key(|duty| duty.server.0);
        let ids: Vec<String> = duties
            .iter()
            .map(|duty| match &duty.instance {
                Some(id) => id.to_string(),
                None => format!("{} without an instance", duty.name),
            })
            .collect();
        bail!(
            "{} servers are called {name:?} ({from}): name one by its instance id: {}",
            duties.len(),
            ids.join(", ")
        )
    }
}

//! Which servers this client serves.

use std::net::IpAddr;

use anyhow::{Context, Result, bail};
use nix::ifaddrs::getifaddrs;
use pullre::config::{ClientConfig, DatabaseConfig};
use pullre::store::{Database, Duty, Store};
use pullre_http::metadata;

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
    /// The server that has one of this machine's addresses; nobody could say an instance id: why.
    Address { why: String },
    /// Every slot of this machine.
    Local,
}

impl Identity {
    pub fn find(config: &ClientConfig, server: Option<&str>) -> Identity {
        if let Some(name) = server {
            return Identity::One { name: name.to_owned(), from: "--server" };
        }
        if let Some(id) = &config.instance_id {
            return Identity::One { name: id.clone(), from: "instance_id" };
        }
        if let DatabaseConfig::Sqlite { .. } = config.database {
            return Identity::Local;
        }
        match instance_id() {
            Ok(name) => Identity::One { name, from: "instance metadata" },
            Err(why) => Identity::Address { why },
        }
    }

    pub fn duties(&self, store: &mut Store) -> Result<Vec<Duty>> {
        let (name, from) = match self {
            Identity::Local => return Ok(store.local_duties()?),
            Identity::One { name, from } => (name.clone(), *from),
            Identity::Address { why } => (by_address(store, why)?, "its address"),
        };
        let mut duties = store.duties_of(&name)?;
        if duties.len() == 1 {
            return Ok(duties);
        }
        if duties.is_empty() {
            let known: Vec<_> = store.server_names()?.iter().map(ToString::to_string).collect();
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

/// Two variables that AWS's own programs know tell where the metadata service is, or that there
/// is none.
fn instance_id() -> Result<String, String> {
    metadata::instance_id(&metadata_endpoint()?)
}

/// Where the metadata service is, or why there is none.
pub fn metadata_endpoint() -> Result<String, String> {
    let variable = |name| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
    if variable("AWS_EC2_METADATA_DISABLED").is_some_and(|v| v.eq_ignore_ascii_case("true")) {
        return Err("instance metadata is switched off (AWS_EC2_METADATA_DISABLED)".into());
    }
    let endpoint = variable("AWS_EC2_METADATA_SERVICE_ENDPOINT");
    Ok(endpoint.unwrap_or_else(|| metadata::ENDPOINT.to_owned()))
}

/// The instance id, or else the name, of the one server whose `private_ip` is an address of this
/// machine.
fn by_address(store: &mut Store, why: &str) -> Result<String> {
    let local: Vec<IpAddr> = getifaddrs()
        .context("this machine's addresses cannot be read")?
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
        })
        // Every machine has these: a server registered with one would be each of them.
        .filter(|address| !address.is_loopback())
        .collect();
    let here: Vec<_> = store
        .server_names()?
        .into_iter()
        .filter(|server| {
            let ip = server.private_ip.as_ref().and_then(|ip| ip.parse::<IpAddr>().ok());
            ip.is_some_and(|ip| local.contains(&ip))
        })
        .collect();
    match here.as_slice() {
        [one] => Ok(one.instance.as_ref().map_or_else(|| one.name.clone(), |id| id.0.clone())),
        [] => bail!(
            "which server this is cannot be told: {why}, and no server's private_ip is an address of \
             this machine; set `instance_id` in app.ini"
        ),
        several => bail!(
            "which server this is cannot be told: {why}, and the servers {} all have addresses of \
             this machine; set `instance_id` in app.ini",
            several.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        ),
    }
}

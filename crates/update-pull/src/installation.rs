//! What app.ini describes, opened: the database, the folders, the providers.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use pullre::condition::Policy;
use pullre::config::{
    ComputeKind, ConfigErrors, ControllerConfig, DatabaseConfig, RawConfig, Secret,
};
use pullre::facts::Facts;
use pullre::local_compute::LocalCompute;
use pullre::ports::Compute;
use pullre::reconcile::Controller;
use pullre::reconcile::lock::Locks;
use pullre::report::Settings;
use pullre::report::markdown::Masking;
use pullre::schema_clone::Schemas;
use pullre::schema_clone::mysql::Server;
use pullre::store::mysql::MysqlAccess;
use pullre::store::{Database, Store, StoreError};
use pullre_http::chat::{self, Chat};
use pullre_http::github::{GitHub, GitHubAccess, Timings};

/// Reads and checks app.ini. Warnings come along in any case: an unknown key may be why another
/// one is missing.
pub fn read_config(file: &Path) -> (Result<ControllerConfig, ConfigErrors>, Vec<String>) {
    match RawConfig::load(file, std::env::vars_os()) {
        Ok(raw) => (ControllerConfig::from_raw(&raw), raw.warnings().to_vec()),
        Err(e) => (Err(e), Vec::new()),
    }
}

/// Everything that the commands work with.
#[derive(Debug)]
pub struct Installation {
    pub config: ControllerConfig,
    pub policy: Policy,
    pub report: Settings,
    pub locks: Locks,
    pub schemas: Schemas,
    database: Database,
    github: GitHub,
    compute: Arc<dyn Compute>,
}

impl Installation {
    /// Opens nothing yet but what costs nothing.
    pub fn new(config: ControllerConfig) -> anyhow::Result<Installation> {
        let (database, schemas, locks) = places(&config)?;
        let compute: Arc<dyn Compute> = match config.compute {
            ComputeKind::Local => Arc::new(LocalCompute::new(database.clone())),
            ComputeKind::Ec2 => ec2(&config)?,
        };
        let secrets = config.secrets.clone();
        let github = GitHub::new(GitHubAccess {
            api_url: config.github_api_url.clone(),
            owner: config.owner.clone(),
            repo: config.repo.clone(),
            login: config.login.clone(),
            state_dir: config.state_dir.clone(),
            timings: Timings::default(),
        })?;
        Ok(Installation {
            policy: Policy {
                start_timeout: config.start_timeout,
                agent_timeout: config.agent_timeout,
                grace: config.grace,
                max_changes: config.max_changes as usize,
                keep: Duration::from_secs(u64::from(config.keep_days) * 86_400),
                cloning: config.clone.cloning.clone(),
                admission: config.admission.clone(),
            },
            report: report_settings(&config, secrets),
            locks,
            schemas,
            compute,
            github,
            database,
            config,
        })
    }

    /// Tells every chat that is set up. An error where none of them could be told: one that is dead
    /// is no reason to tell the others again.
    pub fn tell_chat(&self, text: &str, facts: &Facts) -> Result<(), String> {
        let report = &self.config.report;
        let chats = [(Chat::Slack, &report.slack_url), (Chat::Google, &report.google_chat_url)];
        let text = format!("{}/{}: {text}", self.config.owner, self.config.repo);
        let masking = Masking::of(&self.report, facts);
        let text = masking.masked(&text);
        let sent = chats
            .into_iter()
            .filter_map(|(chat, url)| Some(chat::send(chat, url.as_ref()?, &text)));
        told(sent)
    }

    pub fn compute(&self) -> &dyn Compute {
        &*self.compute
    }

    pub fn shared_compute(&self) -> Arc<dyn Compute> {
        self.compute.clone()
    }

    pub fn database(&self) -> &Database {
        &self.database
    }

    pub fn github(&self) -> &GitHub {
        &self.github
    }

    pub fn controller(&self) -> Controller<'_> {
        Controller {
            database: &self.database,
            forge: &self.github,
            compute: self.compute(),
            schemas: &self.schemas,
            locks: &self.locks,
            policy: &self.policy,
            report: &self.report,
        }
    }

    /// The control database, with all its tables.
    pub fn store(&self) -> Result<Store, StoreError> {
        let mut store = self.database.open()?;
        store.require_tables()?;
        Ok(store)
    }

    /// Creates or completes the control tables, and takes over what pullre-kun left; returns what
    /// was, or would be, created.
    pub fn init(&self, dry_run: bool) -> Result<Vec<String>, StoreError> {
        if dry_run {
            return match self.database.open() {
                Ok(mut store) => store.planned_migration(),
                Err(StoreError::NotInitialized) => Ok(pullre::store::all_tables()),
                Err(e) => Err(e),
            };
        }
        let mut store = match &self.config.database {
            DatabaseConfig::Sqlite { path, .. } => Store::create_sqlite(path)?,
            DatabaseConfig::Mysql { .. } => self.database.open()?,
        };
        store.migrate(Timestamp::now())
    }
}

/// One chat that was told is enough; the others are warned of.
fn told(sent: impl Iterator<Item = Result<(), String>>) -> Result<(), String> {
    let (taken, failed): (Vec<_>, Vec<_>) = sent.partition(Result::is_ok);
    let whys: Vec<_> = failed.into_iter().filter_map(Result::err).collect();
    match whys.join("; ") {
        why if why.is_empty() => Ok(()),
        why if taken.is_empty() => Err(why),
        why => {
            tracing::warn!("one of the chats could not be told: {why}");
            Ok(())
        }
    }
}

fn report_settings(config: &ControllerConfig, secrets: Vec<Secret>) -> Settings {
    let report = &config.report;
    Settings {
        report: report.report,
        check_name: report.check_name.clone(),
        comment: report.comment,
        deployments: report.deployments,
        console: config.domain.as_ref().map(|host| format!("{}{host}", config.protocol)),
        secrets,
    }
}

#[cfg(feature = "ec2")]
fn ec2(config: &ControllerConfig) -> anyhow::Result<Arc<dyn Compute>> {
    use pullre_ec2::{Ec2, Ec2Access, Timings};
    Ok(Arc::new(Ec2::new(Ec2Access {
        region: config.aws_region.clone(),
        endpoint_url: config.aws_endpoint_url.clone(),
        keys: config.aws_access_key_id.clone().zip(config.aws_secret_key.clone()),
        timings: Timings::default(),
    })))
}

#[cfg(not(feature = "ec2"))]
fn ec2(_: &ControllerConfig) -> anyhow::Result<Arc<dyn Compute>> {
    anyhow::bail!(
        "compute = ec2 is not in this build of update-pull: build it with its default features, or \
         set `compute = local`"
    )
}

/// Where records, schemas and locks are: all beside app.ini, or all on one MySQL server.
fn places(config: &ControllerConfig) -> anyhow::Result<(Database, Schemas, Locks)> {
    match &config.database {
        DatabaseConfig::Sqlite { path, schema_dir } => Ok((
            Database::sqlite(path),
            Schemas::Sqlite { folder: schema_dir.clone() },
            Locks::Files(config.state_dir.join("locks")),
        )),
        DatabaseConfig::Mysql { .. } => {
            let database = Database::mysql(&config.database)?;
            // It told what of the words means nothing.
            let (access, _) = MysqlAccess::new(&config.database)?;
            let mut server = Server::new(access.clone());
            let clone = &config.clone;
            server.workers = clone.workers.unwrap_or(server.workers);
            server.max_bytes = clone.max_bytes;
            server.max_running = clone.max_running;
            server.swap_busy = clone.swap_busy;
            Ok((database, Schemas::Mysql(server), Locks::Mysql(access)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_chat_that_was_told_is_enough() {
        let of =
            |sent: &[Result<(), &str>]| told(sent.iter().map(|one| one.map_err(str::to_owned)));
        assert_eq!(of(&[]), Ok(()));
        assert_eq!(of(&[Ok(()), Err("away")]), Ok(()));
        assert_eq!(of(&[Err("away")]), Err("away".to_owned()));
        assert_eq!(of(&[Err("away"), Err("no")]), Err("away; no".to_owned()));
    }
}

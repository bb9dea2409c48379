//! The web console and the webhook: pages over the control database, with the same operations as
//! the command line. Nothing in here speaks to GitHub, and no page waits for the compute provider.

// A test that unwraps fails where it stands, which is what it is for.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod acts;
mod answer;
mod assets;
mod auth;
mod guard;
mod live;
mod log;
mod machines;
mod master;
mod metrics;
mod pages;
pub mod password;
mod routes;
mod serve;
mod session;
mod stores;
mod visitor;
mod webhook;

use std::sync::Arc;

use anyhow::Context;
use jiff::Timestamp;
use pullre::condition::Policy;
use pullre::config::ConsoleConfig;
use pullre::ops::{Operator, OpsError};
use pullre::ports::{Compute, RateLeft};
use pullre::reconcile::lock::Locks;
use pullre::store::{Database, Store};
use ring::hmac;
use ring::rand::SystemRandom;
use tokio::sync::Notify;

use password::Stored;

pub use live::Rhythm;
pub use serve::serve;

/// What is known of GitHub's rate limit.
#[derive(Debug, Clone, Copy, Default)]
pub struct RateLimit {
    /// It wants to be left alone until then.
    pub until: Option<Timestamp>,
    pub left: Option<RateLeft>,
}

/// Tells what is known of GitHub's rate limit.
#[derive(Clone)]
pub struct Limit(Arc<dyn Fn(Timestamp) -> RateLimit + Send + Sync>);

impl Limit {
    pub fn new(known: impl Fn(Timestamp) -> RateLimit + Send + Sync + 'static) -> Limit {
        Limit(Arc::new(known))
    }
}

impl std::fmt::Debug for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Limit")
    }
}

/// What the console works with.
#[derive(Debug, Clone)]
pub struct Site {
    pub config: ConsoleConfig,
    /// Where people look at the repository.
    pub repository_url: String,
    pub protocol: String,
    pub domain: Option<String>,
    pub policy: Policy,
    pub database: Database,
    pub locks: Locks,
    pub compute: Arc<dyn Compute>,
    /// Servers are slots of this machine: registering one makes it.
    pub local: bool,
    /// Is told when a tick is wanted at once.
    pub wake: Arc<Notify>,
    pub rhythm: Rhythm,
    pub github_limit: Limit,
}

/// A [`Site`] that is ready to answer.
#[derive(Debug)]
pub struct Console {
    site: Site,
    stores: stores::Stores,
    auth: auth::Auth,
    sessions: session::Sessions,
    machines: machines::Machines,
    deliveries: webhook::Deliveries,
    live: live::Live,
}

impl Console {
    /// Fails where `basic_password` is no hash. Weaknesses are logged.
    pub fn new(site: Site) -> anyhow::Result<Console> {
        let config = &site.config;
        let basic = match (&config.basic_user, &config.basic_password) {
            (Some(user), Some(password)) => {
                let stored = Stored::parse(password.expose()).context(
                    "`basic_password` in app.ini is no hash of a password: set it to what \
                     `update-pull hash-token` prints",
                )?;
                if let Stored::Sha512(_) = stored {
                    tracing::warn!(
                        "`basic_password` is an unsalted SHA-512, which is quickly guessed once \
                         stolen: set it to what `update-pull hash-token` prints"
                    );
                }
                Some((user.clone(), stored))
            }
            (None, None) => None,
            _ => {
                tracing::warn!(
                    "of `basic_user` and `basic_password` only one is set: neither counts"
                );
                None
            }
        };
        let random = SystemRandom::new();
        let new_key = || {
            hmac::Key::generate(hmac::HMAC_SHA256, &random)
                .map_err(|_| anyhow::anyhow!("the system has no random numbers"))
        };
        let forms = match &config.app_secret_key {
            Some(secret) => hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes()),
            None => new_key()?,
        };
        Ok(Console {
            stores: stores::Stores::new(site.database.clone()),
            auth: auth::Auth::new(basic, new_key()?),
            sessions: session::Sessions::new(forms),
            machines: machines::Machines::new(site.compute.clone(), site.local),
            deliveries: webhook::Deliveries::default(),
            live: live::Live::default(),
            site,
        })
    }

    /// Does something with the database, on a thread that may wait.
    async fn store<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Store) -> Result<T, OpsError> + Send + 'static,
    ) -> Result<T, OpsError> {
        self.stores.with(work).await
    }

    /// Does what a person wants.
    async fn operate<T: Send + 'static>(
        &self,
        who: &str,
        work: impl FnOnce(&mut Operator<'_>) -> Result<T, OpsError> + Send + 'static,
    ) -> Result<T, OpsError> {
        let who = who.to_owned();
        let done = self
            .stores
            .with(move |store| work(&mut Operator { store, who: &who, now: Timestamp::now() }));
        done.await
    }
}

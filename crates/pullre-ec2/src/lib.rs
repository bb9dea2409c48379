//! Machines of EC2. The SDK is async; nothing else is: a small runtime of our own stays in here.

// A test that unwraps fails where it stands, which is what it is for.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod failure;

use std::fmt;
use std::future::Future;
use std::sync::OnceLock;
use std::time::Duration;

use aws_config::BehaviorVersion;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_ec2::Client;
use aws_sdk_ec2::config::{Builder, Credentials, Region, SharedHttpClient};
use aws_sdk_ec2::operation::describe_instances::builders::DescribeInstancesFluentBuilder;
use aws_sdk_ec2::types::{self, Filter};
use aws_smithy_http_client::Connector;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};
use pullre::config::Secret;
use pullre::domain::{Instance, InstanceId};
use pullre::ports::{Compute, ComputeError};
use tokio::runtime::Runtime;
use tracing::debug;
use tracing::subscriber::NoSubscriber;

/// As many values as EC2 takes in one filter.
const FILTER_VALUES: usize = 200;

/// EC2's own limit for one page.
const PAGE: i32 = 1000;

/// An answer that goes on after so many pages is none.
const MOST_PAGES: usize = 100;

/// How long EC2 may take.
#[derive(Debug, Clone)]
pub struct Timings {
    pub connect: Duration,
    /// One request and all its repetitions.
    pub operation: Duration,
    /// Tries of one request that was throttled or got lost. Both a start and a stop may be asked
    /// for twice.
    pub attempts: u32,
    /// Before the second try; it grows from there.
    pub backoff: Duration,
}

impl Default for Timings {
    fn default() -> Self {
        Timings {
            connect: Duration::from_secs(5),
            operation: Duration::from_secs(20),
            attempts: 3,
            backoff: Duration::from_millis(300),
        }
    }
}

/// Where EC2 is, and as whom we come.
#[derive(Debug, Clone)]
pub struct Ec2Access {
    pub region: String,
    /// Another address than AWS's own.
    pub endpoint_url: Option<String>,
    /// Key id and secret; without them the SDK looks for credentials itself: environment,
    /// profile, instance role.
    pub keys: Option<(Secret, Secret)>,
    pub timings: Timings,
}

/// The instances of one account in one region.
pub struct Ec2 {
    access: Ec2Access,
    /// Nothing is read, and no thread or socket made, before the first question.
    opened: OnceLock<Opened>,
}

struct Opened {
    client: Client,
    /// Always there, but while it is dropped.
    runtime: Option<Runtime>,
}

impl fmt::Debug for Ec2 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ec2").field("access", &self.access).finish_non_exhaustive()
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        // Waiting here for a name server that does not answer would keep cron's process alive.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Ec2 {
    /// Opens nothing yet.
    pub fn new(access: Ec2Access) -> Ec2 {
        Ec2 { access, opened: OnceLock::new() }
    }

    /// Must not be called from async code: it blocks.
    fn ask<T>(
        &self,
        work: impl AsyncFnOnce(&Client) -> Result<T, ComputeError>,
    ) -> Result<T, ComputeError> {
        // The SDK logs whole requests with their session tokens, and failures that we report anyway.
        tracing::subscriber::with_default(NoSubscriber::default(), || {
            let opened = match self.opened.get() {
                Some(opened) => opened,
                // Where two threads come first at once, the slower one's is dropped.
                None => {
                    let fresh = open(&self.access)?;
                    self.opened.get_or_init(|| fresh)
                }
            };
            opened.block_on(work(&opened.client))
        })
    }
}

impl Opened {
    fn block_on<T>(
        &self,
        work: impl Future<Output = Result<T, ComputeError>>,
    ) -> Result<T, ComputeError> {
        match &self.runtime {
            Some(runtime) => runtime.block_on(work),
            None => Err(ComputeError::Unavailable("this process is about to end".into())),
        }
    }
}

fn open(access: &Ec2Access) -> Result<Opened, ComputeError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| ComputeError::Unavailable(format!("cannot begin to ask: {e}")))?;
    let Timings { connect, operation, attempts, backoff } = access.timings;
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(connect)
        .operation_timeout(operation)
        // A try that hangs leaves time for another one.
        .operation_attempt_timeout(operation / 2)
        .build();
    let retries = RetryConfig::standard().with_max_attempts(attempts).with_initial_backoff(backoff);
    let http = http_client();
    let config = match &access.keys {
        Some((id, secret)) => {
            let keys = Credentials::new(id.expose(), secret.expose(), None, None, "app.ini");
            Builder::new()
                .behavior_version(BehaviorVersion::v2026_01_12())
                .region(Region::new(access.region.clone()))
                .credentials_provider(keys)
                .http_client(http)
        }
        None => {
            let found = aws_config::defaults(BehaviorVersion::v2026_01_12())
                .region(Region::new(access.region.clone()))
                .http_client(http)
                .load();
            Builder::from(&runtime.block_on(found))
        }
    };
    let mut config = config.timeout_config(timeouts).retry_config(retries);
    if let Some(url) = &access.endpoint_url {
        config = config.endpoint_url(url);
    }
    Ok(Opened { client: Client::from_conf(config.build()), runtime: Some(runtime) })
}

/// By the TLS that the rest of the tree uses (the SDK's own choice needs a C++ compiler), and
/// through the proxy that the environment names, as everything else here.
fn http_client() -> SharedHttpClient {
    aws_smithy_http_client::Builder::new().build_with_connector_fn(|settings, components| {
        let mut connector = Connector::builder().proxy_config(ProxyConfig::from_env());
        connector.set_connector_settings(settings.cloned());
        connector.set_sleep_impl(components.and_then(|components| components.sleep_impl()));
        connector.tls_provider(Provider::Rustls(CryptoMode::Ring)).build()
    })
}

impl Compute for Ec2 {
    fn describe(&self, ids: &[InstanceId]) -> Result<Vec<Instance>, ComputeError> {
        // What is no instance id names no instance, and in a filter `*` would name all of them.
        let ids: Vec<_> = ids.iter().filter(|id| is_instance_id(&id.0)).collect();
        let before = cpu_time();
        let mut found = Vec::new();
        for some in ids.chunks(FILTER_VALUES) {
            let values = some.iter().map(|id| id.0.clone()).collect();
            // Asked by id itself, one vanished instance fails the whole call.
            let filter = Filter::builder().name("instance-id").set_values(Some(values)).build();
            found.extend(
                self.ask(async |ec2| read_pages(ec2.describe_instances().filters(filter)).await)?,
            );
        }
        if let (Some(before), Some(after)) = (before, cpu_time()) {
            let ms = (after - before).num_microseconds() as f64 / 1000.0;
            debug!(
                "EC2 described {} machines; asking and reading took {ms:.1} ms of CPU",
                found.len()
            );
        }
        Ok(found)
    }

    fn list(&self) -> Result<Vec<Instance>, ComputeError> {
        self.ask(async |ec2| read_pages(ec2.describe_instances().max_results(PAGE)).await)
    }

    fn start(&self, id: &InstanceId) -> Result<(), ComputeError> {
        self.ask(async |ec2| {
            let asked = ec2.start_instances().instance_ids(&id.0).send().await;
            asked.map(drop).map_err(|e| failure::of("ec2:StartInstances", Some(id), e))
        })
    }

    fn stop(&self, id: &InstanceId) -> Result<(), ComputeError> {
        self.ask(async |ec2| {
            let asked = ec2.stop_instances().instance_ids(&id.0).send().await;
            asked.map(drop).map_err(|e| failure::of("ec2:StopInstances", Some(id), e))
        })
    }

    fn may_switch(&self, id: &InstanceId) -> Result<(), ComputeError> {
        self.ask(async |ec2| {
            let start = ec2.start_instances().instance_ids(&id.0).dry_run(true).send().await;
            failure::of_rehearsal("ec2:StartInstances", id, start)?;
            let stop = ec2.stop_instances().instance_ids(&id.0).dry_run(true).send().await;
            failure::of_rehearsal("ec2:StopInstances", id, stop)
        })
    }
}

/// What this thread has used so far: all that the SDK does happens in the thread that asks.
fn cpu_time() -> Option<TimeVal> {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).ok()?;
    Some(usage.user_time() + usage.system_time())
}

fn is_instance_id(id: &str) -> bool {
    id.strip_prefix("i-").is_some_and(|rest| {
        !rest.is_empty() && rest.len() <= 40 && rest.bytes().all(|b| b.is_ascii_hexdigit())
    })
}

async fn read_pages(
    request: DescribeInstancesFluentBuilder,
) -> Result<Vec<Instance>, ComputeError> {
    let mut found = Vec::new();
    let mut token = None;
    for _ in 0..MOST_PAGES {
        let page = request.clone().set_next_token(token).send().await;
        let page = page.map_err(|e| failure::of("ec2:DescribeInstances", None, e))?;
        // An answer about something else must not read as "all instances are gone".
        let Some(reservations) = page.reservations else {
            return Err(nonsense("its answer has no list of instances"));
        };
        for instance in reservations.iter().flat_map(|reservation| reservation.instances()) {
            found.push(read(instance)?);
        }
        token = page.next_token.filter(|token| !token.is_empty());
        if token.is_none() {
            return Ok(found);
        }
    }
    Err(nonsense("its list of instances does not end"))
}

fn read(instance: &types::Instance) -> Result<Instance, ComputeError> {
    let Some(id) = instance.instance_id() else {
        return Err(nonsense("an instance without an id"));
    };
    let state = instance.state().and_then(|state| state.name()).map(|name| name.as_str());
    let state = state.unwrap_or_default().parse();
    let state = state.map_err(|e| nonsense(&format!("instance {id}: {e}")))?;
    let name = instance.tags().iter().find(|tag| tag.key() == Some("Name"));
    let reason = instance.state_reason().and_then(|reason| reason.message());
    let text = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(str::to_owned);
    Ok(Instance {
        id: InstanceId(id.to_owned()),
        state,
        name: text(name.and_then(|tag| tag.value())),
        private_ip: text(instance.private_ip_address()),
        reason: text(reason.or(instance.state_transition_reason())),
        role: text(instance.iam_instance_profile().and_then(|profile| profile.arn())),
    })
}

fn nonsense(what: &str) -> ComputeError {
    ComputeError::Unavailable(format!("EC2 says what makes no sense: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_looks_like_an_instance_id_is_asked_for() {
        for good in ["i-1a2b3c4d", "i-0123456789abcdef0"] {
            assert!(is_instance_id(good));
        }
        for bad in ["", "i-", "*", "i-*", "i-12?4", "stg1", "i-1 2"] {
            assert!(!is_instance_id(bad), "{bad}");
        }
    }

    #[test]
    fn no_secret_is_shown() {
        let keys = Some((Secret::new("AKIAKEYID"), Secret::new("s3cr3t")));
        let (region, timings) = ("eu-west-1".into(), Timings::default());
        let ec2 = Ec2::new(Ec2Access { region, endpoint_url: None, keys, timings });
        let shown = format!("{ec2:?}");
        assert!(shown.contains("eu-west-1"));
        assert!(!shown.contains("s3cr3t") && !shown.contains("AKIAKEYID"), "{shown}");
    }
}

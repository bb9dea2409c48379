//! `update-pull serve`: the console, the webhook, and the ticks.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use pullre::config::ComputeKind;
use pullre_console::{Console, Limit, RateLimit, Rhythm, Site};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

use crate::commands::Result;
use crate::installation::Installation;
use crate::tick;

/// A burst of webhooks is one wish: the tick begins this long after the first of them.
const BURST: Duration = Duration::from_millis(500);
/// Ticks at the same time, since one that clones takes long. They keep out of each other's way.
const TICKS: usize = 4;
/// A tick that is at work at the end may take this long. What it cannot end, the next one heals.
const LAST_TICK: Duration = Duration::from_secs(60);

pub fn run(installation: Installation) -> Result {
    // Says that tables are missing before anything else is done.
    installation.store()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("serve")
        .enable_all()
        .build()
        .context("cannot start threads")?;
    let served = runtime.block_on(serve(Arc::new(installation)));
    // A tick or a look at the provider that does not come back holds nobody up.
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(served?)
}

async fn serve(installation: Arc<Installation>) -> anyhow::Result<()> {
    let config = &installation.config;
    let wake = Arc::new(Notify::new());
    let limited = installation.clone();
    let console = Console::new(Site {
        config: config.console.clone(),
        repository_url: repository_url(&config.github_api_url, &config.owner, &config.repo),
        protocol: config.protocol.clone(),
        domain: config.domain.clone(),
        policy: installation.policy.clone(),
        database: installation.database().clone(),
        locks: installation.locks.clone(),
        compute: installation.shared_compute(),
        local: config.compute == ComputeKind::Local,
        wake: wake.clone(),
        rhythm: Rhythm::default(),
        github_limit: Limit::new(move |now| {
            let github = limited.github();
            RateLimit { until: github.limited_until(now), left: github.rate_left(now) }
        }),
    })?;
    let listen = config.console.listen;
    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("cannot listen on {listen} (key `listen` of app.ini)"))?;
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    let ticks = tokio::spawn(ticks(installation.clone(), wake));
    tracing::info!("listening on http://{}", listener.local_addr()?);
    notify("READY=1");
    let stop = async {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        tracing::info!("stopping");
        notify("STOPPING=1");
    };
    let served = pullre_console::serve(Arc::new(console), listener, stop).await;
    ticks.abort();
    let ended = tokio::time::timeout(LAST_TICK, async {
        while AT_WORK.load(Ordering::SeqCst) > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    if ended.await.is_err() {
        tracing::warn!("a tick was still at work; the next one heals what it left");
    }
    Ok(served?)
}

/// Ticks that are at work.
static AT_WORK: AtomicUsize = AtomicUsize::new(0);

struct AtWork;

impl Drop for AtWork {
    fn drop(&mut self) {
        AT_WORK.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Ticks by the clock, and as soon as somebody wants one.
async fn ticks(installation: Arc<Installation>, wake: Arc<Notify>) {
    let each = installation.config.console.tick;
    let mut clock = tokio::time::interval(each.unwrap_or(Duration::from_secs(3600)));
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = clock.tick(), if each.is_some() => {}
            () = wake.notified() => {
                tokio::time::sleep(BURST).await;
                // What was wanted during the burst is done with it.
                let _ = tokio::time::timeout(Duration::ZERO, wake.notified()).await;
            }
        }
        while AT_WORK.load(Ordering::SeqCst) >= TICKS {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        AT_WORK.fetch_add(1, Ordering::SeqCst);
        let installation = installation.clone();
        tokio::task::spawn_blocking(move || {
            let _at_work = AtWork;
            if let Err(e) = tick::single(&installation, Timestamp::now()) {
                tracing::warn!("tick: {e}");
            }
        });
    }
}

/// The pages of a repository, from where its API is.
fn repository_url(api: &str, owner: &str, repo: &str) -> String {
    // GitHub Enterprise has it below its pages.
    let site = api.strip_suffix("/api/v3").unwrap_or("https://github.com");
    format!("{site}/{owner}/{repo}")
}

/// Tells systemd (`Type=notify`) where we are; nothing where nobody asks.
fn notify(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let told =
        UnixDatagram::unbound().and_then(|socket| match path.as_bytes().strip_prefix(b"@") {
            None => socket.send_to(state.as_bytes(), &path).map(drop),
            Some(name) => {
                use std::os::linux::net::SocketAddrExt;
                let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
                socket.send_to_addr(state.as_bytes(), &address).map(drop)
            }
        });
    if let Err(e) = told {
        tracing::warn!("cannot tell systemd {state}: {e}");
    }
}

#[cfg(test)]
mod tests {
    use super::repository_url;

    #[test]
    fn the_pages_of_a_repository_stand_beside_its_api() {
        let url = |api| repository_url(api, "acme", "shop");
        assert_eq!(url("https://api.github.com"), "https://github.com/acme/shop");
        assert_eq!(url("https://git.acme.com/api/v3"), "https://git.acme.com/acme/shop");
    }
}

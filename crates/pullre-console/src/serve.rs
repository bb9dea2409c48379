//! The HTTP server: a limit on connections, a deadline for headers, an end without cut answers.

use std::collections::HashMap;
use std::future::Future;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use crate::guard::Peer;
use crate::visitor::Place;
use crate::{Console, routes};

const CONNECTIONS: usize = 512;
/// From one address, unless it is a proxy's that we trust: nobody alone can keep all others out.
const OF_ONE_PLACE: usize = 128;
/// Of a slow visitor, and of a connection that waits for its next request.
const HEADERS_WITHIN: Duration = Duration::from_secs(30);
/// What one request's line and headers may take.
const LARGEST_HEAD: usize = 64 * 1024;
/// Answers that are on their way at the end may take this long.
const LAST_ANSWERS: Duration = Duration::from_secs(10);

const TOO_MANY: &[u8] = b"HTTP/1.1 429 Too Many Requests\r\nConnection: close\r\n\
    Content-Type: text/plain\r\nContent-Length: 44\r\n\r\ntoo many connections come from your address\n";

/// How many connections there are from each place.
#[derive(Debug, Default)]
struct Places(Mutex<HashMap<IpAddr, usize>>);

/// A connection that counts, as long as this lives.
#[derive(Debug)]
struct Counted {
    places: Arc<Places>,
    place: IpAddr,
}

impl Places {
    fn counts(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// None where there are enough from there.
    fn count(self: &Arc<Self>, place: IpAddr) -> Option<Counted> {
        let mut counts = self.counts();
        let count = counts.entry(place).or_default();
        if *count >= OF_ONE_PLACE {
            return None;
        }
        *count += 1;
        Some(Counted { places: self.clone(), place })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = self.places.counts();
        if let Some(count) = counts.get_mut(&self.place) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.place);
            }
        }
    }
}

/// Answers until `stop` is ready, then ends what it is at.
pub async fn serve(
    console: Arc<Console>,
    listener: TcpListener,
    stop: impl Future<Output = ()>,
) -> std::io::Result<()> {
    let (stopping, stopped) = watch::channel(false);
    let trusted = console.site.config.trusted_proxies.clone();
    let router = routes::router(console, stopped.clone());
    let places = Arc::new(Places::default());
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    let mut stop = pin!(stop);
    loop {
        // Who is one too many waits in the system's queue.
        let accepted = async {
            let permit = permits.clone().acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            accepted = accepted => accepted,
            () = &mut stop => break,
        };
        let Ok(permit) = permit else { break };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(e) => {
                // Too many open files, mostly; it passes.
                tracing::warn!("cannot accept a connection: {e}");
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        let place = Place::of(peer.ip(), &trusted);
        let counted = match place {
            Place::Proxy => None,
            Place::Anybodys(place) => match places.count(place) {
                Some(counted) => Some(counted),
                None => {
                    tracing::debug!("{place} has {OF_ONE_PLACE} connections already");
                    // If it does not fit into an empty buffer, nothing is lost.
                    let _ = stream.try_write(TOO_MANY);
                    continue;
                }
            },
        };
        let (router, mut stopped) = (router.clone(), stopped.clone());
        tokio::spawn(async move {
            let _held = (permit, counted);
            let router = TowerToHyperService::new(router);
            let service = service_fn(move |request: hyper::Request<Incoming>| {
                let mut request: Request = request.map(axum::body::Body::new);
                request.extensions_mut().insert(Peer(peer.ip()));
                router.call(request)
            });
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new())
                .header_read_timeout(HEADERS_WITHIN)
                .max_buf_size(LARGEST_HEAD);
            let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
            // What goes wrong on a connection is the visitor's matter.
            tokio::select! {
                _ = &mut connection => {}
                () = ended(&mut stopped) => {
                    connection.as_mut().graceful_shutdown();
                    let _ = connection.await;
                }
            }
        });
    }
    drop(listener);
    stopping.send_replace(true);
    let all = u32::try_from(CONNECTIONS).unwrap_or(u32::MAX);
    // Whoever is slower than that is cut off.
    let _ = tokio::time::timeout(LAST_ANSWERS, permits.acquire_many(all)).await;
    Ok(())
}

/// Until the server stops.
pub async fn ended(stopped: &mut watch::Receiver<bool>) {
    // Who tells it is gone with the server.
    drop(stopped.wait_for(|stopped| *stopped).await);
}

//! What every HTTP client here shares: how it is built, how its failures are told, how much it reads.

use std::error::Error;
use std::io::{self, Read};
use std::sync::Once;

use reqwest::blocking::{Client, ClientBuilder, Response};
use rustls::crypto::ring::default_provider;

/// A client for one scheme. Loading the system's root certificates is nearly all of the cost of
/// building one (24 ms with them and 0.5 ms without, in a debug build), so a client that only
/// speaks plain HTTP goes without.
pub(crate) fn builder(https: bool) -> ClientBuilder {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        // An error means that the process has chosen a provider already: as good.
        let _ = default_provider().install_default();
    });
    let builder = Client::builder().user_agent(concat!("pullre/", env!("CARGO_PKG_VERSION")));
    if https { builder } else { builder.tls_certs_only([]) }
}

/// Why a request got no answer. The texts hold no URL, which may hold a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    Refused,
    TimedOut,
    UnknownHost,
    Tls(String),
    Other(String),
}

impl Failure {
    pub(crate) fn of(error: &(dyn Error + 'static)) -> Failure {
        let mut at = Some(error);
        let mut deepest = None;
        while let Some(error) = at {
            if let Some(error) = error.downcast_ref::<reqwest::Error>() {
                if error.is_timeout() {
                    return Failure::TimedOut;
                } else if error.is_dns() {
                    return Failure::UnknownHost;
                }
            } else if let Some(error) = error.downcast_ref::<rustls::Error>() {
                return Failure::Tls(plain(&error.to_string()));
            } else {
                deepest = Some(error.to_string());
            }
            at = match error.downcast_ref::<io::Error>() {
                Some(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    return Failure::Refused;
                }
                Some(error) if error.kind() == io::ErrorKind::TimedOut => {
                    return Failure::TimedOut;
                }
                // `source` would skip the error that an io::Error wraps.
                Some(wrapper) => wrapper.get_ref().map(|inner| inner as &(dyn Error + 'static)),
                None => error.source(),
            };
        }
        Failure::Other(plain(
            &deepest.unwrap_or_else(|| "the request could not be made".to_owned()),
        ))
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Refused => f.write_str("the connection is refused"),
            Failure::TimedOut => f.write_str("no answer in time"),
            Failure::UnknownHost => f.write_str("its host name cannot be resolved"),
            Failure::Tls(why) => write!(f, "TLS fails: {why}"),
            Failure::Other(why) => write!(f, "the connection fails: {why}"),
        }
    }
}

/// At most `limit` bytes of the body; whether that was all.
pub(crate) fn read_body(response: &mut Response, limit: u64) -> io::Result<(Vec<u8>, bool)> {
    let mut body = Vec::new();
    response.take(limit + 1).read_to_end(&mut body)?;
    let whole = body.len() as u64 <= limit;
    if !whole {
        body.pop();
    }
    Ok((body, whole))
}

/// Somebody else's text made fit for a line of a log: no control characters, not long.
pub(crate) fn plain(text: &str) -> String {
    let mut chars = text.chars().filter(|c| !c.is_control());
    let mut plain: String = chars.by_ref().take(200).collect();
    if chars.next().is_some() {
        plain.push('…');
    }
    plain
}

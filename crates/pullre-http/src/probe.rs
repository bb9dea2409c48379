//! One look at a URL, to see whether something answers there and what.

use std::sync::OnceLock;
use std::time::Duration;

use reqwest::blocking::Client;
use reqwest::{Url, redirect};

use crate::client::{self, Failure};

const LONGEST_BODY: u64 = 64 << 10;

/// What is there. A redirect is an answer and is not followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeAnswer {
    pub status: u16,
    /// The first 64 KiB; bytes that are no UTF-8 are replaced.
    pub body: String,
}

/// Why nothing answers. Texts show the URL without its password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    #[error("{url} is no URL that can be asked: {why}")]
    BadUrl { url: String, why: String },
    #[error("{url} refuses the connection: nothing listens there")]
    Refused { url: String },
    #[error("{url} does not answer within {timeout:?}")]
    TimedOut { url: String, timeout: Duration },
    #[error("the host of {url} cannot be resolved")]
    UnknownHost { url: String },
    #[error("{url} has no TLS that can be trusted: {why}")]
    Tls { url: String, why: String },
    #[error("{url} cannot be asked: {why}")]
    Failed { url: String, why: String },
}

/// Whether a URL is one that can be asked, and its host has an address.
pub fn resolve(url: &str) -> Result<(), ProbeError> {
    let shown = without_credentials(url);
    let bad = |why: &str| ProbeError::BadUrl { url: shown.clone(), why: why.to_owned() };
    let parsed = Url::parse(url.trim()).map_err(|err| bad(&err.to_string()))?;
    if !matches!(parsed.scheme(), "http" | "https") {
        return Err(bad("it is neither http nor https"));
    }
    match parsed.socket_addrs(|| None) {
        Ok(addresses) if !addresses.is_empty() => Ok(()),
        _ => Err(ProbeError::UnknownHost { url: shown }),
    }
}

/// Keeps its clients between probes; each is built when a URL first needs it.
#[derive(Debug, Default)]
pub struct Prober {
    plain: OnceLock<Client>,
    tls: OnceLock<Client>,
}

impl Prober {
    pub fn new() -> Prober {
        Prober::default()
    }

    /// GETs `url`, with `timeout` for all of it. A name and password in it go along as basic auth.
    pub fn probe(&self, url: &str, timeout: Duration) -> Result<ProbeAnswer, ProbeError> {
        let shown = without_credentials(url);
        let bad = |why: String| ProbeError::BadUrl { url: shown.clone(), why };
        let parsed = Url::parse(url.trim()).map_err(|err| bad(err.to_string()))?;
        let https = match parsed.scheme() {
            "https" => true,
            "http" => false,
            other => return Err(bad(format!("{other} is neither http nor https"))),
        };
        let told = |failure: Failure| {
            let url = shown.clone();
            match failure {
                Failure::Refused => ProbeError::Refused { url },
                Failure::TimedOut => ProbeError::TimedOut { url, timeout },
                Failure::UnknownHost => ProbeError::UnknownHost { url },
                Failure::Tls(why) => ProbeError::Tls { url, why },
                Failure::Other(why) => ProbeError::Failed { url, why },
            }
        };
        let mut response = self
            .client(https)
            .map_err(|err| told(Failure::of(&err)))?
            .get(parsed)
            .timeout(timeout)
            .send()
            .map_err(|err| told(Failure::of(&err)))?;
        let (body, _) = client::read_body(&mut response, LONGEST_BODY)
            .map_err(|err| told(Failure::of(&err)))?;
        Ok(ProbeAnswer {
            status: response.status().as_u16(),
            body: String::from_utf8_lossy(&body).into_owned(),
        })
    }

    fn client(&self, https: bool) -> reqwest::Result<&Client> {
        let slot = if https { &self.tls } else { &self.plain };
        if let Some(client) = slot.get() {
            return Ok(client);
        }
        let client = client::builder(https).redirect(redirect::Policy::none()).build()?;
        Ok(slot.get_or_init(|| client))
    }
}

/// The URL as it may be shown to people: without name and password, also where it cannot be parsed.
pub fn without_credentials(url: &str) -> String {
    let url = url.trim();
    if let Ok(mut parsed) = Url::parse(url)
        && parsed.host().is_some()
        // These fail only for URLs without a host.
        && parsed.set_username("").is_ok()
        && parsed.set_password(None).is_ok()
    {
        return parsed.into();
    }
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), url),
    };
    // A password that was not escaped may hold slashes: rather too much is cut than too little.
    let rest = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    client::plain(&format!("{scheme}{rest}"))
}

//! The keys of the web console and the webhook.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use super::Secret;
use super::reader::Reader;

/// What `update-pull serve` needs of app.ini, beside the controller's keys.
#[derive(Debug, Clone)]
pub struct ConsoleConfig {
    pub listen: SocketAddr,
    /// Whose `X-Forwarded-*` headers are believed.
    pub trusted_proxies: Vec<Network>,
    pub basic_user: Option<String>,
    /// A hash, as `update-pull hash-token` prints it, or the ancestor's.
    pub basic_password: Option<Secret>,
    pub app_secret_key: Option<Secret>,
    pub webhook_secret: Option<Secret>,
    /// How often `serve` ticks. None: cron does it.
    pub tick: Option<Duration>,
}

/// An address, or all that begin like it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => {
                let cut = |a: Ipv4Addr| u32::from(a).checked_shr(32 - u32::from(self.bits));
                cut(ours) == cut(theirs)
            }
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => {
                let cut = |a| u128::from(a).checked_shr(128 - u32::from(self.bits));
                cut(ours) == cut(theirs)
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = ();
    fn from_str(text: &str) -> Result<Network, ()> {
        let (address, bits) = match text.split_once('/') {
            None => (text, None),
            Some((address, bits)) => (address, Some(bits)),
        };
        let address = address.parse::<IpAddr>().map_err(|_| ())?.to_canonical();
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => most,
            Some(bits) => bits.parse().ok().filter(|bits| *bits <= most).ok_or(())?,
        };
        Ok(Network { address, bits })
    }
}

/// Malformed keys are noted in the reader.
pub(super) fn read(r: &mut Reader<'_>) -> ConsoleConfig {
    let listen = r.parsed("listen", "an address and a port, like 0.0.0.0:5250", |value| {
        // A port alone, as people write it.
        let value =
            value.strip_prefix(':').map_or(value.to_owned(), |port| format!("0.0.0.0:{port}"));
        value.parse().ok()
    });
    let trusted_proxies = r.parsed(
        "trusted_proxies",
        "addresses or networks like 10.0.0.0/8, separated by commas or spaces",
        |value| {
            let words = value.split([',', ' ', '\t']).filter(|word| !word.is_empty());
            words.map(|word| word.parse().ok()).collect::<Option<Vec<Network>>>()
        },
    );
    let basic_user = r.parsed("basic_user", "a name without a colon", |value| {
        (!value.contains(':')).then(|| value.to_owned())
    });
    ConsoleConfig {
        listen: listen.unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 5250))),
        trusted_proxies: trusted_proxies.unwrap_or_default(),
        basic_user,
        basic_password: r.secret("basic_password"),
        app_secret_key: r.secret("app_secret_key"),
        webhook_secret: r.secret("webhook_secret"),
        tick: Some(r.seconds("tick_seconds", 60, 0..=24 * 3600)).filter(|tick| !tick.is_zero()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(network: &str, address: &str) -> bool {
        network.parse::<Network>().unwrap().contains(address.parse().unwrap())
    }

    #[test]
    fn a_network_holds_the_addresses_that_begin_like_it_and_no_others() {
        for (network, inside, outside) in [
            ("127.0.0.1", "127.0.0.1", "127.0.0.2"),
            ("10.0.0.0/8", "10.200.3.4", "11.0.0.0"),
            ("192.168.4.0/23", "192.168.5.255", "192.168.6.0"),
            ("0.0.0.0/0", "8.8.8.8", "::1"),
            ("::1", "::1", "::2"),
            ("fd00::/8", "fd12::1", "fe12::1"),
            ("10.0.0.1", "::ffff:10.0.0.1", "::1"),
        ] {
            assert!(contains(network, inside), "{network} holds {inside}");
            assert!(!contains(network, outside), "{network} does not hold {outside}");
        }
        for nonsense in ["", "proxy", "10.0.0.0/33", "10.0.0/8", "::1/129", "10.0.0.0/-1"] {
            assert_eq!(nonsense.parse::<Network>(), Err(()), "{nonsense:?}");
        }
    }
}

//! Who is at the other end: the address that counts, and whether the way is encrypted. Pure.

use std::net::IpAddr;

use axum::http::HeaderMap;
use pullre::config::Network;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Visitor {
    pub address: IpAddr,
    /// What a proxy that we trust said about its own visitor; None where none did.
    pub https: Option<bool>,
}

impl Visitor {
    pub fn of(peer: IpAddr, headers: &HeaderMap, trusted: &[Network]) -> Visitor {
        let peer = peer.to_canonical();
        let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
        if !is_trusted(peer) {
            return Visitor { address: peer, https: None };
        }
        let all = |name: &str| -> Vec<String> {
            let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
            values.flat_map(|v| v.split(',')).map(|word| word.trim().to_owned()).collect()
        };
        let https =
            all("x-forwarded-proto").last().map(|proto| proto.eq_ignore_ascii_case("https"));
        // From the right: what stands left of an address that we do not trust, anybody may have
        // written.
        let mut address = peer;
        for word in all("x-forwarded-for").iter().rev() {
            let Some(before) = parse_address(word) else { break };
            address = before;
            if !is_trusted(before) {
                break;
            }
        }
        Visitor { address, https }
    }

    /// Those who share it count as one.
    pub fn place(&self) -> IpAddr {
        place(self.address)
    }
}

/// A provider gives each customer a whole IPv6 network.
fn place(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
    }
}

/// The other end of a connection, before anything was read from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// It brings many visitors.
    Proxy,
    Anybodys(IpAddr),
}

impl Place {
    pub fn of(peer: IpAddr, trusted: &[Network]) -> Place {
        let peer = peer.to_canonical();
        match trusted.iter().any(|network| network.contains(peer)) {
            true => Place::Proxy,
            false => Place::Anybodys(place(peer)),
        }
    }
}

/// Some proxies add a port.
fn parse_address(word: &str) -> Option<IpAddr> {
    let plain = word.parse::<IpAddr>().ok();
    let with_port = || word.parse::<std::net::SocketAddr>().ok().map(|address| address.ip());
    let bracketed = || word.strip_prefix('[')?.strip_suffix(']')?.parse::<IpAddr>().ok();
    plain.or_else(with_port).or_else(bracketed).map(|address| address.to_canonical())
}

/// Where a visitor is sent who came without encryption although people are to come with it.
/// `again`: they were sent just now, so that the proxy does not know what it says.
pub fn redirect(
    visitor: &Visitor,
    protocol: &str,
    domain: Option<&str>,
    path: &str,
    again: bool,
) -> Option<String> {
    let free = path.split('?').next().is_some_and(|p| matches!(p, "/healthz" | "/webhook/push"));
    let wanted = protocol == "https://" && visitor.https == Some(false);
    let domain = domain.filter(|_| wanted && !free && !again)?;
    Some(format!("https://{domain}{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(
        peer: &str,
        headers: &[(&'static str, &str)],
        trusted: &[&str],
    ) -> (String, Option<bool>) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        let trusted: Vec<Network> = trusted.iter().map(|t| t.parse().unwrap()).collect();
        let visitor = Visitor::of(peer.parse().unwrap(), &map, &trusted);
        (visitor.address.to_string(), visitor.https)
    }

    #[test]
    fn forwarded_headers_of_strangers_mean_nothing() {
        let forged = [("x-forwarded-for", "1.1.1.1"), ("x-forwarded-proto", "https")];
        assert_eq!(of("9.9.9.9", &forged, &["10.0.0.1"]), ("9.9.9.9".into(), None));
        assert_eq!(of("9.9.9.9", &forged, &[]), ("9.9.9.9".into(), None));
    }

    #[test]
    fn behind_proxies_the_last_address_that_is_none_of_them_counts() {
        let headers = [("x-forwarded-for", "6.6.6.6, 7.7.7.7"), ("x-forwarded-for", "10.0.0.2")];
        assert_eq!(of("10.0.0.1", &headers, &["10.0.0.0/8"]), ("7.7.7.7".into(), None));
        let odd = [("x-forwarded-for", "unknown, [2001:db8::1]:443")];
        assert_eq!(of("::ffff:10.0.0.1", &odd, &["10.0.0.1"]).0, "2001:db8::1");
        let nonsense = [("x-forwarded-for", "7.7.7.7, <script>")];
        assert_eq!(of("10.0.0.1", &nonsense, &["10.0.0.1"]).0, "10.0.0.1");
    }

    #[test]
    fn who_came_without_encryption_is_sent_to_the_domain_once() {
        let http = Visitor { address: [1, 1, 1, 1].into(), https: Some(false) };
        let to = |visitor: &Visitor, path, again| {
            redirect(visitor, "https://", Some("pr.example.com"), path, again)
        };
        assert_eq!(to(&http, "/a?b=c", false).as_deref(), Some("https://pr.example.com/a?b=c"));
        assert_eq!(to(&http, "/a", true), None);
        assert_eq!(to(&http, "/healthz", false), None);
        assert_eq!(to(&http, "/webhook/push?x", false), None);
        assert_eq!(to(&Visitor { https: Some(true), ..http }, "/a", false), None);
        assert_eq!(to(&Visitor { https: None, ..http }, "/a", false), None);
        assert_eq!(redirect(&http, "http://", Some("d"), "/", false), None);
        assert_eq!(redirect(&http, "https://", None, "/", false), None);
    }
}

//! Behind a proxy.

use crate::served::{OLGA, Served, world};

fn behind_a_proxy() -> Served {
    Served::with(world(1), |site| {
        site.config.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
        site.protocol = "https://".into();
        site.domain = Some("pr.example.com".into());
    })
}

#[test]
fn who_comes_without_encryption_is_sent_to_https_with_method_and_path() {
    let served = behind_a_proxy();
    let http = || served.visitor().header("X-Forwarded-Proto", "http");
    let reply = http().login(OLGA).get("/pull/list?q=a%20b");
    assert_eq!(reply.status, 307);
    assert_eq!(reply.header("location"), Some("https://pr.example.com/pull/list?q=a%20b"));
    assert_eq!(http().post("/pause", &[]).status, 307);
    // Credentials are not even looked at, and a path cannot lead elsewhere.
    let odd = http().get("//evil.example/x");
    assert_eq!(odd.header("location"), Some("https://pr.example.com//evil.example/x"));
    assert_eq!(http().get("/healthz").status, 200);
    assert_eq!(http().post("/webhook/push", &[]).status, 401);
}

#[test]
fn a_proxy_that_always_says_http_makes_no_loop() {
    let served = behind_a_proxy();
    let mut visitor = served.olga().header("X-Forwarded-Proto", "http");
    assert_eq!(visitor.get("/pull/list").status, 307);
    assert_eq!(visitor.get("/pull/list").status, 200, "the cookie of the redirect tells");
}

#[test]
fn behind_https_the_cookie_is_sent_over_https_alone() {
    let served = behind_a_proxy();
    let reply = served.olga().header("X-Forwarded-Proto", "https").get("/pull/list");
    assert_eq!(reply.status, 200);
    let cookie = reply.header("set-cookie").unwrap();
    assert!(
        cookie.starts_with("__Host-pullre_session=") && cookie.ends_with("; Secure"),
        "{cookie}"
    );
}

#[test]
fn a_stranger_cannot_claim_to_be_a_proxy() {
    let served = Served::with(world(1), |site| {
        site.config.trusted_proxies = vec!["10.0.0.1".parse().unwrap()];
        site.protocol = "https://".into();
        site.domain = Some("pr.example.com".into());
    });
    let reply = served.olga().header("X-Forwarded-Proto", "http").get("/pull/list");
    assert_eq!(reply.status, 200);
    let cookie = served.olga().header("X-Forwarded-Proto", "https").get("/pull/list");
    assert!(!cookie.header("set-cookie").unwrap().contains("Secure"));
    // Nor escape being slowed down by another address each time.
    let statuses: Vec<u16> = (0..12)
        .map(|n| {
            let from = format!("9.9.9.{n}");
            let guess = served.visitor().header("X-Forwarded-For", &from).login(("olga", "x"));
            guess.clone().get("/pull/list").status
        })
        .collect();
    assert!(statuses.contains(&429), "{statuses:?}");
}

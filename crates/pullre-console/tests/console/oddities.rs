//! Requests that no browser sends. None may end in a fault of ours, none may reach a file.

use std::io::{Read, Write};

use crate::http::{base64, connect, connect_from, parse, raw};
use crate::served::{OLGA, Served};

fn authorization() -> String {
    format!("Authorization: Basic {}\r\n", base64(&format!("{}:{}", OLGA.0, OLGA.1)))
}

#[test]
fn odd_paths_lead_nowhere() {
    let served = Served::new();
    for path in [
        "/../../etc/passwd",
        "/assets/../../../../etc/passwd",
        "/assets/..%2f..%2f..%2fetc%2fpasswd",
        "/assets/%2e%2e/console.css",
        "/assets/",
        "/assets/console.css%00",
        "/%00",
        "/%ff%fe",
        "/pull/%ff",
        "/pull/99999999999999999999",
        "/pull/-1",
        "/pull/0",
        "/pull/1%2f..%2f2",
        "/master/sqlite_master",
        "/master/settings",
        "/master/servers;drop",
        "/master/servers/1'--",
        "/master/servers/9223372036854775808",
        "/master/servers/-1",
        "//pull/list",
        "/pull//list",
        "/PULL/LIST",
        "/pull/list/",
        "/server/list%20",
        "/server/99/hold",
        "/server/x/hold",
        "*",
    ] {
        let reply = served.olga().get(path);
        assert!((400..500).contains(&reply.status), "{path}: {}", reply.status);
        assert!(!reply.body.contains("root:"), "{path}");
    }
    for query in ["?page=99999999", "?page=-1", "?page=x", "?q=%ff%00", "?q=%", "?%00=%00", "?&&=&"]
    {
        assert_eq!(served.olga().get(&format!("/master/servers{query}")).status, 200, "{query}");
        assert_eq!(served.olga().get(&format!("/pull/list{query}")).status, 200, "{query}");
    }
}

#[test]
fn odd_methods_are_refused() {
    let served = Served::new();
    for method in ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "BREW"] {
        let reply = served.olga().send(method, "/pull/list", "text/plain", "");
        assert!((400..500).contains(&reply.status), "{method}: {}", reply.status);
    }
    assert_eq!(served.olga().send("HEAD", "/pull/list", "", "").body, "");
    assert_eq!(served.olga().send("GET", "/pause", "", "").status, 405);
    assert_eq!(served.olga().send("GET", "/webhook/push", "", "").status, 405);
}

#[test]
fn odd_bytes_are_answered_with_a_refusal_or_not_at_all() {
    let served = Served::new();
    let auth = authorization();
    let requests: Vec<Vec<u8>> = vec![
        b"\r\n\r\n".to_vec(),
        b"GET\r\n\r\n".to_vec(),
        b"GET / HTTP/9.9\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        b"GET / HTTP/1.1\r\nHost: a\r\nBad Header: x\r\nConnection: close\r\n\r\n".to_vec(),
        b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\nConnection: close\r\n\r\n".to_vec(),
        b"POST /pause HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef".to_vec(),
        b"POST /pause HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n".to_vec(),
        b"POST /pause HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".to_vec(),
        format!("GET /{} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "a".repeat(100_000)).into_bytes(),
        format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\nConnection: close\r\n\r\n", "b".repeat(200_000)).into_bytes(),
        format!("GET / HTTP/1.1\r\nHost: a\r\n{}Connection: close\r\n\r\n", "X: y\r\n".repeat(500)).into_bytes(),
        format!("POST /pause HTTP/1.1\r\nHost: a\r\n{auth}Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 3\r\nConnection: close\r\n\r\n%%%").into_bytes(),
    ];
    for request in requests {
        let shown = String::from_utf8_lossy(&request[..request.len().min(60)]).into_owned();
        let mut stream = connect(served.address);
        let _ = stream.write_all(&request);
        // What is not whole would be waited for.
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        if let Some(reply) = parse(&answer) {
            assert!(reply.status < 500, "{shown}: {}", reply.status);
        }
    }
    assert_eq!(served.visitor().get("/healthz").status, 200);
}

#[test]
fn http_1_0_and_a_request_without_a_host_are_answered() {
    let served = Served::new();
    let reply = parse(&raw(served.address, b"GET / HTTP/1.0\r\n\r\n")).unwrap();
    assert_eq!(reply.status, 200);
}

#[test]
fn a_form_that_is_too_large_is_refused() {
    let served = Served::new();
    let mut olga = served.olga();
    let token = olga.token();
    let body = format!("token={token}&content={}", "x".repeat(1_100_000));
    let kind = "application/x-www-form-urlencoded";
    let reply = olga.send("POST", "/master/next_release_messages/create", kind, &body);
    assert_eq!(reply.status, 413);
}

#[test]
fn many_connections_of_a_trusted_proxy_keep_nobody_out() {
    let served = Served::with(crate::served::world(1), |site| {
        site.config.trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
    });
    let silent: Vec<_> = (0..200).map(|_| connect(served.address)).collect();
    assert_eq!(served.olga().get("/pull/list").status, 200);
    drop(silent);
}

#[test]
fn who_takes_many_connections_keeps_nobody_else_out() {
    let served = Served::new();
    // They send nothing, and are borne with for as long as a slow visitor.
    let mine: Vec<_> = (0..128).map(|_| connect(served.address)).collect();
    let refused = raw(served.address, b"");
    assert!(refused.starts_with(b"HTTP/1.1 429 "), "{}", String::from_utf8_lossy(&refused));
    let front = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let mut other = connect_from("127.0.0.2", served.address);
    other.write_all(front).unwrap();
    let mut others = Vec::new();
    other.read_to_end(&mut others).unwrap();
    assert!(others.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&others));
    drop(mine);
    let answers = || raw(served.address, front).starts_with(b"HTTP/1.1 200 ");
    testkit::until("whoever ends one may have another", answers);
}

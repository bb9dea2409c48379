//! GitHub's webhook.

use ring::hmac;

use crate::http::{Reply, parse, raw};
use crate::served::{Served, world};

fn signed(secret: &str, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let hex: String = hmac::sign(&key, body).as_ref().iter().map(|b| format!("{b:02x}")).collect();
    format!("sha256={hex}")
}

fn hook(
    served: &Served,
    event: &str,
    delivery: &str,
    signature: Option<&str>,
    body: &[u8],
) -> Reply {
    let mut request = format!(
        "POST /webhook/push HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nX-GitHub-Event: {event}\r\nX-GitHub-Delivery: {delivery}\r\n",
        body.len()
    );
    if let Some(signature) = signature {
        request += &format!("X-Hub-Signature-256: {signature}\r\n");
    }
    request += "\r\n";
    let answer = raw(served.address, &[request.as_bytes(), body].concat());
    parse(&answer).unwrap()
}

#[test]
fn a_signed_event_wakes_a_tick_and_an_unsigned_one_does_not() {
    let served = Served::new();
    let body = br#"{"action":"opened"}"#;
    let good = signed("hooked", body);
    for (n, event) in ["pull_request", "push", "issue_comment"].iter().enumerate() {
        assert_eq!(hook(&served, event, &format!("d{n}"), Some(&good), body).status, 202);
        assert!(served.was_woken(), "{event}");
    }
    assert_eq!(hook(&served, "ping", "d8", Some(&good), body).body, "pong\n");
    assert_eq!(hook(&served, "star", "d9", Some(&good), body).status, 200);
    let bad = [
        None,
        Some(String::new()),
        Some("sha256=".into()),
        Some(format!("sha256={}", "0".repeat(64))),
        Some(format!("sha256={}", "é".repeat(32))),
        Some(good.replace("sha256", "sha1")),
        Some(signed("guessed", body)),
        Some(signed("hooked", b"{}")),
        Some(signed("", body)),
    ];
    for signature in bad {
        let reply = hook(&served, "push", "d10", signature.as_deref(), body);
        assert_eq!(reply.status, 401, "{signature:?}");
    }
    assert!(!served.was_woken());
}

#[test]
fn a_comment_wakes_a_tick_only_where_it_has_a_command() {
    let served = Served::new();
    let mut number = 0;
    let mut says = |body: &str| {
        number += 1;
        let (id, signature) = (format!("c{number}"), signed("hooked", body.as_bytes()));
        let reply = hook(&served, "issue_comment", &id, Some(&signature), body.as_bytes());
        (reply.status, served.was_woken())
    };
    let comment = |text: &str| {
        let issue = serde_json::json!({"number": 1, "body": "/pullre stop"});
        serde_json::json!({"action": "created", "comment": {"body": text}, "issue": issue})
            .to_string()
    };
    let (nothing, tick) = ((200, false), (202, true));
    for text in
        ["", "thanks", "> /pullre stop", "**Ready**\n```\n/pullre stop\n```\n`/pullre stop`"]
    {
        assert_eq!(says(&comment(text)), nothing, "{text}");
    }
    for text in ["/pullre stop", "please\r\n\r\n /PULLRE Redeploy\r\n", "/pullre nonsense"] {
        assert_eq!(says(&comment(text)), tick, "{text}");
    }
    assert_eq!(says(&comment("é/\u{1f600}\n/pullre stop").replace('/', "\\/")), tick, "escaped");
    // What is not understood may have one.
    let large = comment(&format!("{}\n/pullre stop", "x".repeat(1024 * 1024)));
    for body in ["{}", "null", "payload=%7B%22comment%22", "", "\u{feff}{}", &large] {
        assert_eq!(says(body), tick, "{}", &body[..body.len().min(40)]);
    }
}

#[test]
fn a_delivery_that_is_sent_again_does_nothing() {
    let served = Served::new();
    let good = signed("hooked", b"{}");
    assert_eq!(hook(&served, "push", "same", Some(&good), b"{}").status, 202);
    assert!(served.was_woken());
    assert_eq!(hook(&served, "push", "same", Some(&good), b"{}").body, "seen before\n");
    assert!(!served.was_woken());
    assert_eq!(hook(&served, "push", "", Some(&good), b"{}").status, 400);
    // One with a wrong signature does not use a delivery up.
    assert_eq!(hook(&served, "push", "other", Some("sha256=00"), b"{}").status, 401);
    assert_eq!(hook(&served, "push", "other", Some(&good), b"{}").status, 202);
}

#[test]
fn a_burst_is_one_wish() {
    let served = Served::new();
    let good = signed("hooked", b"{}");
    for n in 0..50 {
        assert_eq!(hook(&served, "push", &format!("b{n}"), Some(&good), b"{}").status, 202);
    }
    assert!(served.was_woken());
    assert!(!served.was_woken());
}

#[test]
fn a_body_of_any_size_is_counted_and_too_large_a_one_is_refused() {
    let served = Served::new();
    let large = vec![b'x'; 24 * 1024 * 1024];
    let good = signed("hooked", &large);
    assert_eq!(hook(&served, "push", "large", Some(&good), &large).status, 202);
    let request = b"POST /webhook/push HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\
        X-Hub-Signature-256: sha256=0000000000000000000000000000000000000000000000000000000000000000\r\n\r\n"
        .to_vec();
    let chunk = [b"100000\r\n".to_vec(), vec![b'y'; 0x10_0000], b"\r\n".to_vec()].concat();
    let endless = [request, chunk.repeat(27), b"0\r\n\r\n".to_vec()].concat();
    let refused = parse(&raw(served.address, &endless));
    // It may be cut off while it still sends.
    assert!(refused.is_none_or(|reply| reply.status == 413));
    assert!(served.visitor().get("/healthz").status == 200);
}

#[test]
fn without_a_secret_it_is_closed() {
    let served = Served::with(world(1), |site| site.config.webhook_secret = None);
    let reply = hook(&served, "push", "d1", Some(&signed("", b"{}")), b"{}");
    assert_eq!(
        (reply.status, reply.body.as_str()),
        (403, "webhook_secret is not set in app.ini\n")
    );
}

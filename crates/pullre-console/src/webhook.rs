//! GitHub's word that something has changed. It says when to look, never what is true: the tick
//! reads that itself. So the body only counts towards its signature; a comment's is looked at for a
//! command, since most comments, our own among them, ask for nothing.

use std::collections::{HashSet, VecDeque};
use std::sync::Mutex;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::{HeaderMap, StatusCode};
use futures_util::StreamExt;
use pullre::config::Secret;
use pullre::report::commands;
use ring::hmac;
use serde::Deserialize;

/// GitHub sends 25 MB at the most.
const LARGEST: usize = 25 * 1024 * 1024;
/// A comment and its issue have 65,536 characters at the most each, and a description.
const LARGEST_COMMENT: usize = 1024 * 1024;
const SLOWEST: Duration = Duration::from_secs(30);
/// Deliveries that are known again.
const KNOWN: usize = 2000;

/// The deliveries of late, so that one that is sent again does nothing.
#[derive(Debug, Default)]
pub struct Deliveries(Mutex<(HashSet<String>, VecDeque<String>)>);

impl Deliveries {
    /// False where it was seen before.
    fn is_new(&self, id: &str) -> bool {
        let mut known = self.0.lock().unwrap_or_else(|e| e.into_inner());
        let (ids, order) = &mut *known;
        if !ids.insert(id.to_owned()) {
            return false;
        }
        order.push_back(id.to_owned());
        if order.len() > KNOWN
            && let Some(oldest) = order.pop_front()
        {
            ids.remove(&oldest);
        }
        true
    }
}

/// What to answer, and whether a tick is wanted.
#[derive(Debug, PartialEq, Eq)]
pub struct Heard {
    pub status: StatusCode,
    pub says: &'static str,
    pub tick: bool,
}

const fn heard(status: StatusCode, says: &'static str) -> Heard {
    Heard { status, says, tick: false }
}

pub async fn hear(
    secret: Option<&Secret>,
    headers: &HeaderMap,
    body: Body,
    deliveries: &Deliveries,
) -> Heard {
    let Some(secret) = secret else {
        return heard(StatusCode::FORBIDDEN, "webhook_secret is not set in app.ini\n");
    };
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let Some(signature) = text("x-hub-signature-256").and_then(signature) else {
        return heard(StatusCode::UNAUTHORIZED, "X-Hub-Signature-256 is missing or malformed\n");
    };
    let event = text("x-github-event");
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
    let keep = if event == Some("issue_comment") { LARGEST_COMMENT } else { 0 };
    let signed = tokio::time::timeout(SLOWEST, sign(&key, body.into_data_stream(), keep));
    let (signed, kept) = match signed.await {
        Err(_) => return heard(StatusCode::REQUEST_TIMEOUT, "the body came too slowly\n"),
        Ok(Err(refused)) => return refused,
        Ok(Ok(signed)) => signed,
    };
    if !crate::password::same(signed.as_ref(), &signature) {
        return heard(StatusCode::UNAUTHORIZED, "the signature is not that of webhook_secret\n");
    }
    let delivery = text("x-github-delivery").unwrap_or_default();
    if delivery.is_empty() || delivery.len() > 100 {
        return heard(StatusCode::BAD_REQUEST, "X-GitHub-Delivery is missing\n");
    }
    if !deliveries.is_new(delivery) {
        return heard(StatusCode::OK, "seen before\n");
    }
    match event {
        Some("issue_comment") if asks_for_nothing(&kept) => {
            heard(StatusCode::OK, "no command in this comment\n")
        }
        Some("pull_request" | "push" | "issue_comment") => {
            Heard { status: StatusCode::ACCEPTED, says: "a tick follows\n", tick: true }
        }
        Some("ping") => heard(StatusCode::OK, "pong\n"),
        _ => heard(StatusCode::OK, "nothing to do for this event\n"),
    }
}

/// Whether this is surely a comment without a command. What is not understood, as a form or what
/// was too large to be kept, wakes a tick.
fn asks_for_nothing(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Event {
        comment: Comment,
    }
    #[derive(Deserialize)]
    struct Comment {
        body: String,
    }
    serde_json::from_slice(body)
        .is_ok_and(|event: Event| commands::parse(&event.comment.body).is_empty())
}

/// Its signature, and its first `keep` bytes.
async fn sign(
    key: &hmac::Key,
    mut body: BodyDataStream,
    keep: usize,
) -> Result<(hmac::Tag, Vec<u8>), Heard> {
    let mut context = hmac::Context::with_key(key);
    let (mut size, mut kept) = (0, Vec::new());
    while let Some(piece) = body.next().await {
        let Ok(piece) = piece else {
            return Err(heard(StatusCode::BAD_REQUEST, "the body broke off\n"));
        };
        size += piece.len();
        if size > LARGEST {
            return Err(heard(StatusCode::PAYLOAD_TOO_LARGE, "more than 25 MB\n"));
        }
        context.update(&piece);
        let room = keep.saturating_sub(kept.len());
        kept.extend_from_slice(&piece[..room.min(piece.len())]);
    }
    Ok((context.sign(), kept))
}

fn signature(text: &str) -> Option<Vec<u8>> {
    let hex = text.strip_prefix("sha256=")?;
    if hex.len() != 64 || !hex.is_ascii() {
        return None;
    }
    (0..64).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).ok()).collect()
}

//! The browser's session: a random cookie, to which the tokens of forms are bound, and one sentence
//! that the next page shows.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use axum::http::HeaderMap;
use axum::http::header::COOKIE;
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};

#[derive(Debug)]
pub struct Sessions {
    key: hmac::Key,
    random: SystemRandom,
    said: Mutex<HashMap<String, (Instant, Said)>>,
}

/// What the last act of a person came to, in a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    pub failed: bool,
    pub text: String,
}

/// Sentences that nobody fetched are forgotten.
const SAID: Duration = Duration::from_secs(60);
const SAID_AT_MOST: usize = 1000;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// A `__Host-` cookie cannot be set by another host of the same domain; it needs https.
fn cookie_name(https: bool) -> &'static str {
    if https { "__Host-pullre_session" } else { "pullre_session" }
}

/// The value of a cookie.
pub fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let values = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(';')).find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        (key.trim() == name).then(|| value.trim())
    })
}

impl Sessions {
    pub fn new(key: hmac::Key) -> Sessions {
        Sessions { key, random: SystemRandom::new(), said: Mutex::default() }
    }

    /// The session that a request names, if it can be one of ours.
    pub fn named(&self, headers: &HeaderMap, https: bool) -> Option<String> {
        let id = cookie(headers, cookie_name(https))?;
        (id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit())).then(|| id.to_owned())
    }

    pub fn fresh(&self) -> anyhow::Result<String> {
        let mut bytes = [0; 16];
        self.random.fill(&mut bytes).map_err(|_| anyhow::anyhow!("no random numbers"))?;
        Ok(hex(&bytes))
    }

    pub fn set_cookie(&self, id: &str, https: bool) -> String {
        let secure = if https { "; Secure" } else { "" };
        format!("{}={id}; Path=/; HttpOnly; SameSite=Lax{secure}", cookie_name(https))
    }

    fn signed(&self, session: &str, person: &str) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.key);
        for part in ["form", session, person] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        context.sign()
    }

    /// What a form of this person's session carries: no other site knows it.
    pub fn token(&self, session: &str, person: &str) -> String {
        hex(self.signed(session, person).as_ref())
    }

    pub fn is_token(&self, token: &str, session: &str, person: &str) -> bool {
        crate::password::same(token.as_bytes(), self.token(session, person).as_bytes())
    }

    pub fn say(&self, session: &str, said: Said) {
        let mut all = self.said.lock().unwrap_or_else(|e| e.into_inner());
        all.retain(|_, (at, _)| at.elapsed() < SAID);
        if all.len() < SAID_AT_MOST {
            all.insert(session.to_owned(), (Instant::now(), said));
        }
    }

    pub fn said(&self, session: &str) -> Option<Said> {
        let mut all = self.said.lock().unwrap_or_else(|e| e.into_inner());
        all.remove(session).map(|(_, said)| said)
    }
}

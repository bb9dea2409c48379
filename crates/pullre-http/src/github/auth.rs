//! As whom GitHub is asked: a token, or a GitHub App, whose tokens last an hour.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use pullre::config::{GithubLogin, Secret};
use pullre::domain::Invalid;
use pullre::ports::ForgeError;
use reqwest::blocking::Client;
use reqwest::header::{self, HeaderValue};
use reqwest::{StatusCode, Url};
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};

use super::Timings;
use super::memory::{Memory, fingerprint};
use super::parse::{malformed, message};
use crate::client::{self, Failure};

/// A token that ends sooner is renewed first: a request may take a while.
const RENEWED_BEFORE_END: SignedDuration = SignedDuration::from_mins(5);
/// GitHub takes ten minutes at the most; clocks differ.
const SIGNED_FOR: SignedDuration = SignedDuration::from_mins(9);
const SIGNED_BEFORE: SignedDuration = SignedDuration::from_mins(1);
const LARGEST_ANSWER: u64 = 1 << 20;

#[derive(Debug)]
pub(super) enum Credentials {
    Token { authorization: HeaderValue, name: String },
    App(App),
}

#[derive(Debug)]
pub(super) struct App {
    pub id: u64,
    pub installation: u64,
    private_key: PathBuf,
    /// The one that was used last, also where it cannot be kept in a file.
    current: Mutex<Option<InstallationToken>>,
}

/// Kept between processes, for nobody else to read.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct InstallationToken {
    api_url: String,
    app: u64,
    installation: u64,
    token: String,
    expires_at: Timestamp,
    #[serde(default)]
    pub permissions: BTreeMap<String, String>,
}

impl std::fmt::Debug for InstallationToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InstallationToken").field("expires_at", &self.expires_at).finish()
    }
}

#[derive(Deserialize)]
struct Granted {
    token: String,
    expires_at: Timestamp,
    #[serde(default)]
    permissions: BTreeMap<String, String>,
}

/// Built only where it is needed: that takes a while.
pub(super) type GetClient<'a> = dyn Fn() -> Result<&'a Client, ForgeError> + 'a;

fn bearer(token: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn trouble(what: impl std::fmt::Display) -> ForgeError {
    ForgeError::App(what.to_string())
}

impl Credentials {
    pub(super) fn new(login: &GithubLogin) -> Result<Credentials, Invalid> {
        Ok(match login {
            GithubLogin::Token(token) => {
                let authorization =
                    bearer(token.expose()).filter(|_| !token.expose().is_empty()).ok_or_else(
                        || Invalid::new("(hidden)", "a token for GitHub: one line of text"),
                    )?;
                Credentials::Token { authorization, name: token_name(token) }
            }
            GithubLogin::App { id, installation, private_key } => Credentials::App(App {
                id: *id,
                installation: *installation,
                private_key: private_key.clone(),
                current: Mutex::new(None),
            }),
        })
    }

    /// Tells one credential from another, and shows neither.
    pub(super) fn name(&self) -> String {
        match self {
            Credentials::Token { name, .. } => name.clone(),
            Credentials::App(app) => format!("app {} {}", app.id, app.installation),
        }
    }

    pub(super) fn app_id(&self) -> Option<u64> {
        match self {
            Credentials::Token { .. } => None,
            Credentials::App(app) => Some(app.id),
        }
    }

    pub(super) fn authorization(
        &self,
        client: &GetClient<'_>,
        base: &Url,
        timings: &Timings,
        memory: &Memory,
    ) -> Result<HeaderValue, ForgeError> {
        match self {
            Credentials::Token { authorization, .. } => Ok(authorization.clone()),
            Credentials::App(app) => {
                let token = app.token(client, base, timings, memory)?;
                bearer(&token.token).ok_or_else(|| malformed("its token is no text for a header"))
            }
        }
    }

    /// GitHub does not take the token any more. True where another one can be had.
    pub(super) fn forget(&self, memory: &Memory) -> bool {
        match self {
            Credentials::Token { .. } => false,
            Credentials::App(app) => {
                *app.current.lock().unwrap_or_else(|e| e.into_inner()) = None;
                memory.forget_token();
                true
            }
        }
    }
}

fn token_name(token: &Secret) -> String {
    format!("token {}", &fingerprint(token.expose())[..16])
}

impl App {
    pub(super) fn token(
        &self,
        client: &GetClient<'_>,
        base: &Url,
        timings: &Timings,
        memory: &Memory,
    ) -> Result<InstallationToken, ForgeError> {
        let now = Timestamp::now();
        let fresh = |token: &InstallationToken| {
            token.api_url == base.as_str()
                && (token.app, token.installation) == (self.id, self.installation)
                && token.expires_at.duration_since(now) > RENEWED_BEFORE_END
        };
        // Whoever else asks waits: one new token is enough.
        let mut current = self.current.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(token) = current.clone().filter(fresh) {
            return Ok(token);
        }
        if let Some(token) = memory.token().filter(fresh) {
            *current = Some(token.clone());
            return Ok(token);
        }
        let token = self.grant(client()?, base, timings, now)?;
        if let Err(e) = memory.keep_token(&token) {
            tracing::warn!("cannot keep the App's token, each process asks for its own: {e}");
        }
        *current = Some(token.clone());
        Ok(token)
    }

    fn grant(
        &self,
        client: &Client,
        base: &Url,
        timings: &Timings,
        now: Timestamp,
    ) -> Result<InstallationToken, ForgeError> {
        let path = base.as_str().trim_end_matches('/');
        let url = format!("{path}/app/installations/{}/access_tokens", self.installation);
        let jwt = self.signed(now)?;
        let authorization = bearer(&jwt).ok_or_else(|| trouble("its signature is no text"))?;
        let answer = client
            .post(url)
            .timeout(timings.request)
            .header(header::ACCEPT, "application/vnd.github+json")
            .header("X-GitHub-Api-Version", "2022-11-28")
            .header(header::AUTHORIZATION, authorization)
            .send();
        let unavailable = |e: &(dyn std::error::Error + 'static)| {
            ForgeError::Unavailable(Failure::of(e).to_string())
        };
        let mut answer = answer.map_err(|e| unavailable(&e))?;
        let (body, _) =
            client::read_body(&mut answer, LARGEST_ANSWER).map_err(|e| unavailable(&e))?;
        match answer.status() {
            StatusCode::CREATED => {
                let granted: Granted = serde_json::from_slice(&body)
                    .map_err(|e| malformed(format_args!("the App's token: {e}")))?;
                Ok(InstallationToken {
                    api_url: base.as_str().to_owned(),
                    app: self.id,
                    installation: self.installation,
                    token: granted.token,
                    expires_at: granted.expires_at,
                    permissions: granted.permissions,
                })
            }
            StatusCode::UNAUTHORIZED => Err(trouble(format_args!(
                "GitHub does not take its signature ({}): `github_private_key` must belong to \
                 `github_app_id`, and the clock must be right",
                message(&body)
            ))),
            StatusCode::NOT_FOUND => Err(trouble(format_args!(
                "it has no installation {}: correct `github_app_installation_id`",
                self.installation
            ))),
            StatusCode::FORBIDDEN => Err(trouble(message(&body))),
            status if status.is_server_error() => {
                Err(ForgeError::Unavailable(format!("it answers {status}")))
            }
            status => Err(malformed(format_args!("it answers {status}: {}", message(&body)))),
        }
    }

    /// A JSON Web Token, by which the App proves that it is itself.
    fn signed(&self, now: Timestamp) -> Result<String, ForgeError> {
        let file = self.private_key.display();
        let pem = fs::read(&self.private_key).map_err(|e| {
            trouble(format_args!("`github_private_key` {file} cannot be read: {e}"))
        })?;
        let bad = |what: &str| {
            trouble(format_args!("`github_private_key` {file} holds no RSA key in PEM: {what}"))
        };
        let key = match PrivateKeyDer::from_pem_slice(&pem) {
            Ok(PrivateKeyDer::Pkcs1(der)) => RsaKeyPair::from_der(der.secret_pkcs1_der()),
            Ok(PrivateKeyDer::Pkcs8(der)) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()),
            Ok(_) => return Err(bad("it is a key of another kind")),
            Err(_) => return Err(bad("nothing in it can be understood")),
        };
        let key = key.map_err(|e| bad(&e.to_string()))?;
        let at = |moment: Result<Timestamp, jiff::Error>| moment.unwrap_or(now).as_second();
        let claims = serde_json::json!({
            "iat": at(now.checked_sub(SIGNED_BEFORE)),
            "exp": at(now.checked_add(SIGNED_FOR)),
            "iss": self.id.to_string(),
        });
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256","typ":"JWT"}"#);
        let mut text = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
        let mut signature = vec![0; key.public().modulus_len()];
        key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature)
            .map_err(|_| trouble("signing failed"))?;
        text.push('.');
        text.push_str(&URL_SAFE_NO_PAD.encode(signature));
        Ok(text)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};

    use super::*;

    #[test]
    fn an_apps_signature_can_be_verified_and_names_it() {
        let keys = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/keys");
        let now: Timestamp = "2026-01-05T09:00:00Z".parse().unwrap();
        for name in ["pkcs1.pem", "pkcs8.pem"] {
            let private_key = keys.join(name);
            let app = App { id: 7, installation: 70, private_key, current: Mutex::new(None) };
            let jwt = app.signed(now).unwrap();
            let (text, signature) = jwt.rsplit_once('.').unwrap();
            let pem = fs::read(keys.join("pkcs8.pem")).unwrap();
            let PrivateKeyDer::Pkcs8(der) = PrivateKeyDer::from_pem_slice(&pem).unwrap() else {
                panic!("PKCS#8");
            };
            let pair = RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).unwrap();
            let public =
                UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, pair.public().as_ref());
            let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
            public.verify(text.as_bytes(), &signature).unwrap();
            let claims = URL_SAFE_NO_PAD.decode(text.split_once('.').unwrap().1).unwrap();
            let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
            assert_eq!(
                claims,
                serde_json::json!({ "iss": "7", "iat": 1767603540, "exp": 1767604140 })
            );
        }
    }
}

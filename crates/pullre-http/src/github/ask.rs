//! One request to GitHub: with time-outs, its refusals told apart; reading with retries.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::thread::sleep;

use jiff::fmt::rfc2822::DateTimeParser;
use jiff::{SignedDuration, Timestamp};
use pullre::ports::{ForgeError, PostError, RateLeft};
use reqwest::blocking::{Client, Response};
use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{Method, StatusCode, Url, redirect};
use serde_json::Value;

use super::Timings;
use super::auth::Credentials;
use super::memory::{LONGEST_LIMIT, Memory};
use super::parse::{malformed, message, next_link};
use crate::client::{self, Failure};

/// A page of 100 pull requests has some 2 MB; each may carry 64 KiB of body.
const LARGEST_PAGE: u64 = 32 << 20;
const MOST_REDIRECTS: usize = 5;
/// What GitHub's documentation asks for where it names no time itself.
const UNNAMED_LIMIT: SignedDuration = SignedDuration::from_mins(1);

#[derive(Debug)]
pub(super) struct Asker {
    base: Url,
    pub(super) credentials: Credentials,
    timings: Timings,
    client: OnceLock<Client>,
    /// Follows no redirect.
    writer: OnceLock<Client>,
}

#[derive(Debug)]
pub(super) enum Answer {
    Page(Page),
    /// As it was when it had the validator that we sent.
    NotModified,
    /// 404 or 410.
    Absent,
}

#[derive(Debug)]
pub(super) struct Page {
    pub body: Vec<u8>,
    pub etag: Option<String>,
    pub next: Option<Url>,
    /// GitHub's clock.
    pub date: Option<Timestamp>,
    /// What a classic token may do; other tokens do not say.
    pub scopes: Option<String>,
}

/// How one try ended badly.
enum Trouble {
    /// May be over at the next try.
    Passing(String),
    Lasting(ForgeError),
}

impl From<ForgeError> for Trouble {
    fn from(err: ForgeError) -> Trouble {
        Trouble::Lasting(err)
    }
}

impl Asker {
    pub(super) fn new(base: Url, credentials: Credentials, timings: Timings) -> Asker {
        let (client, writer) = (OnceLock::new(), OnceLock::new());
        Asker { base, credentials, timings, client, writer }
    }

    pub(super) fn get(
        &self,
        url: &Url,
        etag: Option<&str>,
        memory: &Memory,
    ) -> Result<Answer, ForgeError> {
        let mut pauses = self.timings.pauses.iter();
        let mut renewed = false;
        loop {
            let why = match self.try_get(url, etag, memory) {
                Ok(answer) => return Ok(answer),
                Err(Trouble::Lasting(ForgeError::Unauthorized))
                    if !renewed && self.credentials.forget(memory) =>
                {
                    renewed = true;
                    continue;
                }
                Err(Trouble::Lasting(err)) => return Err(err),
                Err(Trouble::Passing(why)) => why,
            };
            match pauses.next() {
                Some(pause) => {
                    tracing::debug!("GitHub: {why}; asks again in {pause:?}");
                    sleep(*pause);
                }
                None => return Err(ForgeError::Unavailable(why)),
            }
        }
    }

    fn try_get(&self, url: &Url, etag: Option<&str>, memory: &Memory) -> Result<Answer, Trouble> {
        let mut request = self
            .client()?
            .get(url.clone())
            // On the request, not on the client: only here it limits the body's time as well.
            .timeout(self.timings.request)
            .header(header::ACCEPT, "application/vnd.github+json")
            .header("X-GitHub-Api-Version", "2022-11-28")
            .header(header::AUTHORIZATION, self.authorization(memory)?);
        if let Some(etag) = etag {
            request = request.header(header::IF_NONE_MATCH, etag);
        }
        let mut response = request.send().map_err(|err| match err.is_redirect() {
            true => malformed("it redirects in circles").into(),
            false => Trouble::Passing(Failure::of(&err).to_string()),
        })?;
        let (body, whole) = client::read_body(&mut response, LARGEST_PAGE)
            .map_err(|err| Trouble::Passing(Failure::of(&err).to_string()))?;
        if !whole {
            return Err(malformed("more than 32 MiB for one page").into());
        }
        note_rate(response.status(), response.headers(), memory);
        match response.status() {
            StatusCode::OK => Ok(Answer::Page(self.page(&response, body)?)),
            StatusCode::NOT_MODIFIED if etag.is_some() => Ok(Answer::NotModified),
            StatusCode::NOT_FOUND | StatusCode::GONE => Ok(Answer::Absent),
            StatusCode::UNAUTHORIZED => Err(ForgeError::Unauthorized.into()),
            status @ (StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS) => {
                Err(refusal(status, response.headers(), &body, memory).into())
            }
            status if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT => {
                Err(Trouble::Passing(format!("it answers {status}")))
            }
            status if status.is_redirection() => Err(malformed(format_args!(
                "it redirects elsewhere ({status}): check `github_api_url`"
            ))
            .into()),
            status => Err(ForgeError::Rejected(format!("{status}: {}", message(&body))).into()),
        }
    }

    fn authorization(&self, memory: &Memory) -> Result<HeaderValue, ForgeError> {
        self.credentials.authorization(&|| self.writer(), &self.base, &self.timings, memory)
    }

    /// What the App's installation may do; None for a token, which does not say.
    pub(super) fn granted(
        &self,
        memory: &Memory,
    ) -> Result<Option<BTreeMap<String, String>>, ForgeError> {
        let Credentials::App(app) = &self.credentials else { return Ok(None) };
        // A fresh one: the permissions of an older one may have changed.
        self.credentials.forget(memory);
        let token = app.token(&|| self.writer(), &self.base, &self.timings, memory)?;
        Ok(Some(token.permissions))
    }

    /// Sends it once; twice only where GitHub has said that it did not take the credentials.
    /// `changes`: it is about something that was there, so that 404 says it is gone.
    pub(super) fn write(
        &self,
        method: Method,
        url: &Url,
        body: &Value,
        changes: bool,
        memory: &Memory,
    ) -> Result<Vec<u8>, PostError> {
        match self.try_write(method.clone(), url, body, changes, memory) {
            Err(PostError::Forge(ForgeError::Unauthorized)) if self.credentials.forget(memory) => {
                self.try_write(method, url, body, changes, memory)
            }
            other => other,
        }
    }

    fn try_write(
        &self,
        method: Method,
        url: &Url,
        body: &Value,
        changes: bool,
        memory: &Memory,
    ) -> Result<Vec<u8>, PostError> {
        let unavailable = |err: &(dyn std::error::Error + 'static)| {
            ForgeError::Unavailable(Failure::of(err).to_string())
        };
        let request = self
            .writer()?
            .request(method, url.clone())
            .timeout(self.timings.request)
            .header(header::ACCEPT, "application/vnd.github+json")
            .header("X-GitHub-Api-Version", "2022-11-28")
            .header(header::AUTHORIZATION, self.authorization(memory)?)
            .json(body);
        let mut response = request.send().map_err(|err| unavailable(&err))?;
        let (answer, _) =
            client::read_body(&mut response, LARGEST_PAGE).map_err(|err| unavailable(&err))?;
        note_rate(response.status(), response.headers(), memory);
        let why = || message(&answer);
        match response.status() {
            status if status.is_success() => Ok(answer),
            StatusCode::UNAUTHORIZED => Err(ForgeError::Unauthorized.into()),
            status @ (StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS) => {
                match refusal(status, response.headers(), &answer, memory) {
                    // One conversation is closed, not the interface.
                    ForgeError::Forbidden(why) if why.contains("is locked") => {
                        Err(PostError::Rejected(why))
                    }
                    ForgeError::Forbidden(why) => Err(PostError::Forbidden(why)),
                    other => Err(other.into()),
                }
            }
            StatusCode::NOT_FOUND if !changes => Err(PostError::Forbidden(why())),
            StatusCode::NOT_FOUND | StatusCode::GONE => Err(PostError::Gone(why())),
            status if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT => {
                Err(ForgeError::Unavailable(format!("it answers {status}")).into())
            }
            status if status.is_redirection() => Err(malformed(
                "it redirects what is written: the repository was renamed, or `github_api_url` is \
                 wrong; correct `owner`, `repo` or `github_api_url`",
            )
            .into()),
            status => Err(PostError::Rejected(format!("{status}: {}", why()))),
        }
    }

    fn writer(&self) -> Result<&Client, ForgeError> {
        if let Some(client) = self.writer.get() {
            return Ok(client);
        }
        let client = client::builder(self.base.scheme() == "https")
            .connect_timeout(self.timings.connect)
            .redirect(redirect::Policy::none())
            .build()
            .map_err(|err| ForgeError::Local(format!("no HTTP client: {}", Failure::of(&err))))?;
        Ok(self.writer.get_or_init(|| client))
    }

    fn page(&self, response: &Response, body: Vec<u8>) -> Result<Page, ForgeError> {
        let text = |name| text(response.headers(), name);
        let next = text(header::LINK.as_str()).and_then(next_link).transpose()?;
        if let Some(next) = &next
            && !same_origin(next, &self.base)
        {
            let host = next.host_str().unwrap_or("no host");
            return Err(malformed(format_args!(
                "the next page of pull requests is said to be at another place ({host}): check `github_api_url`"
            )));
        }
        Ok(Page {
            body,
            etag: text(header::ETAG.as_str()).map(str::to_owned),
            next,
            date: text(header::DATE.as_str()).and_then(date),
            scopes: text("x-oauth-scopes").map(str::to_owned),
        })
    }

    fn client(&self) -> Result<&Client, ForgeError> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let base = self.base.clone();
        // The credentials go nowhere else: a renamed repository is redirected within the host.
        let redirects = redirect::Policy::custom(move |attempt| {
            if !same_origin(attempt.url(), &base) {
                attempt.stop()
            } else {
                redirect::Policy::limited(MOST_REDIRECTS).redirect(attempt)
            }
        });
        let client = client::builder(self.base.scheme() == "https")
            .connect_timeout(self.timings.connect)
            .redirect(redirects)
            .build()
            .map_err(|err| ForgeError::Local(format!("no HTTP client: {}", Failure::of(&err))))?;
        // Two threads at once may both build one; the first stays.
        Ok(self.client.get_or_init(|| client))
    }
}

fn same_origin(a: &Url, b: &Url) -> bool {
    a.origin() == b.origin()
}

/// 403 and 429: either wait, or never.
fn refusal(status: StatusCode, headers: &HeaderMap, body: &[u8], memory: &Memory) -> ForgeError {
    let now = Timestamp::now();
    let message = message(body);
    let secondary = message.to_lowercase().contains("secondary rate limit");
    let wait = match wait(headers, now) {
        Some(wait) => wait,
        None if status == StatusCode::TOO_MANY_REQUESTS || secondary => UNNAMED_LIMIT,
        None => return ForgeError::Forbidden(message),
    };
    let wait = wait.clamp(SignedDuration::ZERO, LONGEST_LIMIT);
    let until = now.checked_add(wait).unwrap_or(now);
    if let Err(err) = memory.keep_limit(until) {
        tracing::warn!("cannot keep GitHub's rate limit, the next tick will run into it: {err}");
    }
    ForgeError::RateLimited { until }
}

/// Keeps what is left of the rate limit. "Not modified" costs nothing of it, and an idle tick
/// writes nothing.
fn note_rate(status: StatusCode, headers: &HeaderMap, memory: &Memory) {
    fn number<T: std::str::FromStr>(headers: &HeaderMap, name: &str) -> Option<T> {
        text(headers, name)?.trim().parse().ok()
    }
    let left = || {
        Some(RateLeft {
            limit: number(headers, "x-ratelimit-limit")?,
            remaining: number(headers, "x-ratelimit-remaining")?,
            resets_at: Timestamp::from_second(number(headers, "x-ratelimit-reset")?).ok()?,
        })
    };
    if status == StatusCode::NOT_MODIFIED {
        return;
    }
    if let Some(left) = left()
        && let Err(err) = memory.keep_rate(&left)
    {
        tracing::warn!("cannot keep what is left of GitHub's rate limit: {err}");
    }
}

/// How long to leave GitHub alone, by its own clock where it shows it: ours may be wrong.
fn wait(headers: &HeaderMap, now: Timestamp) -> Option<SignedDuration> {
    let their_now = text(headers, "date").and_then(date).unwrap_or(now);
    if let Some(after) = text(headers, "retry-after") {
        let seconds = after.trim().parse().map(SignedDuration::from_secs).ok();
        return seconds.or_else(|| Some(date(after)?.duration_since(their_now)));
    }
    if text(headers, "x-ratelimit-remaining")?.trim() != "0" {
        return None;
    }
    let reset = text(headers, "x-ratelimit-reset")?.trim().parse().ok()?;
    let reset = Timestamp::from_second(reset).ok()?;
    Some(reset.duration_since(their_now))
}

fn date(text: &str) -> Option<Timestamp> {
    DateTimeParser::new().parse_timestamp(text).ok()
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

//! GitHub's JSON and headers made into our types, or a text that says what is wrong with them.

use std::fmt::Display;

use jiff::Timestamp;
use pullre::domain::{Login, PullNumber, PullRequest, PullState, Sha};
use pullre::ports::ForgeError;
use reqwest::Url;
use serde::Deserialize;
use serde_json::Value;

use crate::client::plain;

#[derive(Deserialize)]
struct RawPull {
    number: u32,
    state: String,
    title: String,
    body: Option<String>,
    user: Option<RawUser>,
    head: RawBranch,
    base: RawBranch,
    #[serde(default)]
    draft: bool,
    #[serde(default)]
    labels: Vec<RawLabel>,
    created_at: Timestamp,
    updated_at: Timestamp,
    closed_at: Option<Timestamp>,
}

#[derive(Deserialize)]
struct RawUser {
    login: String,
}

#[derive(Deserialize)]
struct RawLabel {
    name: String,
}

#[derive(Deserialize)]
struct RawBranch {
    #[serde(rename = "ref")]
    name: String,
    sha: String,
    repo: Option<RawRepo>,
}

#[derive(Deserialize)]
struct RawRepo {
    full_name: String,
}

#[derive(Deserialize)]
struct RawMessage {
    message: String,
}

pub(super) fn malformed(what: impl Display) -> ForgeError {
    ForgeError::Malformed(plain(&what.to_string()))
}

/// A page of pull requests. One that cannot be understood fails the page: left out, it would look
/// as if it were closed.
pub(super) fn pulls(body: &[u8], full_name: &str) -> Result<Vec<PullRequest>, ForgeError> {
    match serde_json::from_slice::<Vec<RawPull>>(body) {
        Ok(raw) => raw.into_iter().map(|raw| check(raw, full_name)).collect(),
        Err(err) => {
            let items: Vec<Value> = serde_json::from_slice(body)
                .map_err(|_| malformed(format_args!("not a list of pull requests: {err}")))?;
            let culprit = items.into_iter().find_map(|item| {
                let name = name_of(&item);
                let err = serde_json::from_value::<RawPull>(item).err()?;
                Some(malformed(format_args!("{name}: {err}")))
            });
            Err(culprit.unwrap_or_else(|| malformed(err)))
        }
    }
}

/// A single pull request, which must be the one that was asked for.
pub(super) fn pull(
    body: &[u8],
    number: PullNumber,
    full_name: &str,
) -> Result<PullRequest, ForgeError> {
    let raw: RawPull = serde_json::from_slice(body)
        .map_err(|err| malformed(format_args!("pull request {number}: {err}")))?;
    if raw.number != number.0 {
        let other = PullNumber(raw.number);
        return Err(malformed(format_args!("asked for pull request {number}, got {other}")));
    }
    check(raw, full_name)
}

fn name_of(item: &Value) -> String {
    match item.get("number") {
        Some(number) => format!("pull request #{number}"),
        None => "a pull request without a number".to_owned(),
    }
}

fn check(raw: RawPull, full_name: &str) -> Result<PullRequest, ForgeError> {
    let number = PullNumber(raw.number);
    let at_fault =
        |err: pullre::domain::Invalid| malformed(format_args!("pull request {number}: {err}"));
    let head: Sha = raw.head.sha.parse().map_err(at_fault)?;
    let state: PullState = raw.state.parse().map_err(at_fault)?;
    let head_repo = raw.head.repo.map(|repo| repo.full_name);
    // The base is our repository by definition, and has its new name after a renaming, when the
    // configured one is only redirected: the configured name would make everything a fork.
    let ours = raw.base.repo.map(|repo| repo.full_name);
    let ours = ours.as_deref().unwrap_or(full_name);
    let is_fork = head_repo.as_deref().is_none_or(|head| !head.eq_ignore_ascii_case(ours));
    Ok(PullRequest {
        number,
        state,
        head,
        head_ref: raw.head.name,
        base_ref: raw.base.name,
        title: raw.title,
        body: raw.body.unwrap_or_default(),
        author: raw.user.map(|user| Login(user.login)),
        head_repo,
        is_fork,
        is_draft: raw.draft,
        labels: raw.labels.into_iter().map(|label| label.name).collect(),
        created_at: raw.created_at,
        updated_at: raw.updated_at,
        closed_at: raw.closed_at,
    })
}

/// What GitHub says about an error, fit for a log.
pub(super) fn message(body: &[u8]) -> String {
    match serde_json::from_slice::<RawMessage>(body) {
        Ok(raw) => plain(&raw.message),
        Err(_) => "no reason given".to_owned(),
    }
}

/// The target of `rel="next"` in a Link header.
pub(super) fn next_link(header: &str) -> Option<Result<Url, ForgeError>> {
    // A URL may hold commas and semicolons; its angle brackets tell where it ends.
    let mut rest = header;
    while let Some((_, from)) = rest.split_once('<') {
        let (target, after) = from.split_once('>')?;
        let params = after.split_once('<').map_or(after, |(params, _)| params);
        let is_next = params.split([';', ',']).any(|param| {
            param.split_once('=').is_some_and(|(name, value)| {
                let mut relations = value.trim().trim_matches('"').split_ascii_whitespace();
                name.trim().eq_ignore_ascii_case("rel")
                    && relations.any(|rel| rel.eq_ignore_ascii_case("next"))
            })
        });
        if is_next {
            let url = Url::parse(target);
            return Some(
                url.map_err(|err| malformed(format_args!("its link to the next page: {err}"))),
            );
        }
        rest = after;
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found_among_other_links() {
        let next = |header: &str| next_link(header).map(|url| url.map(String::from));
        assert_eq!(
            next("<https://h/p?a=1,2;3&page=1>; rel=\"prev\", <https://h/p?page=3>; rel=\"next\""),
            Some(Ok("https://h/p?page=3".to_owned()))
        );
        assert_eq!(
            next("<https://h/x>; rel=next; title=\"a\",<https://h/y>; rel=last"),
            Some(Ok("https://h/x".to_owned()))
        );
        assert_eq!(next("<https://h/x>; rel=\"last\""), None);
        assert_eq!(next("<https://h/next"), None);
        assert_eq!(next(""), None);
        next("</relative>; rel=\"next\"").unwrap().unwrap_err();
    }
}

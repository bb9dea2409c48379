//! Drives the fake world from another terminal: plain paths under `/_control/`, with form or JSON
//! fields. No token is asked for: the fake listens on 127.0.0.1 only.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, Uri};
use axum::routing::{get, post};
use serde_json::Value;

use super::serve::SharedState;
use super::world::{HeadRepo, PullSpec};
use super::{Shared, lock};

type Fields = BTreeMap<String, String>;
type Answer = Result<String, (StatusCode, String)>;

pub(crate) fn router() -> Router<Arc<Mutex<Shared>>> {
    Router::new()
        .route("/told", get(told))
        .route("/pulls", get(list).post(open))
        .route("/pulls/{number}/{verb}", post(change))
}

/// One line per pull request, for people.
async fn list(State(shared): SharedState) -> String {
    let shared = lock(&shared);
    let mut lines = String::new();
    for pull in shared.world.pulls.values() {
        let state = match (pull.open, pull.merged) {
            (true, _) => "open",
            (_, true) => "merged",
            _ => "closed",
        };
        let from = match &pull.head_repo {
            Some(HeadRepo::Ours) => String::new(),
            Some(HeadRepo::Fork(full_name)) => format!(" of {full_name}"),
            None => " of a deleted repository".to_owned(),
        };
        let author = pull.author.as_deref().unwrap_or("ghost");
        let (number, sha, branch) = (pull.number, &pull.sha, &pull.head_ref);
        let title = &pull.title;
        writeln!(lines, "#{number} {state} {sha} {branch}{from} by {author}: {title}")
            .expect("a String takes everything");
    }
    lines
}

/// What GitHub shows beside the pull requests, for people.
async fn told(State(shared): SharedState) -> String {
    let shared = lock(&shared);
    let told = shared.world.told();
    let mut lines = String::new();
    for run in told.checks.values() {
        let body = &run.body;
        let (conclusion, title) = (&body["conclusion"], &body["output"]["title"]);
        writeln!(lines, "check {} of {}: {title} {conclusion}", body["name"], body["head_sha"])
            .expect("a String takes everything");
    }
    for status in &told.statuses {
        let (state, description) = (&status.body["state"], &status.body["description"]);
        writeln!(lines, "status of {}: {state} {description}", status.sha)
            .expect("a String takes everything");
    }
    for comment in told.comments.values() {
        writeln!(lines, "comment on #{} by {}:\n{}", comment.number, comment.login, comment.body)
            .expect("a String takes everything");
    }
    lines
}

/// Fields: `title`, `body`, `author`, `branch`, `sha`, `base`, `fork`, `draft`, `labels` (with
/// commas). Answers with the number.
async fn open(State(shared): SharedState, body: String) -> Answer {
    let mut fields = fields(&body)?;
    let mut spec = PullSpec::default();
    if let Some(title) = fields.remove("title") {
        spec.title = title;
    }
    if let Some(author) = fields.remove("author") {
        spec.author = author;
    }
    if let Some(base) = fields.remove("base") {
        spec.base = base;
    }
    spec.body = fields.remove("body");
    spec.sha = fields.remove("sha");
    let branch = fields.remove("branch");
    spec.head_ref = fields.remove("head_ref").or(branch);
    spec.fork = fields.remove("fork");
    spec.draft = fields.remove("draft").is_some_and(|draft| draft == "true");
    if let Some(labels) = fields.remove("labels") {
        spec.labels = labels.split(',').map(|l| l.trim().to_owned()).collect();
    }
    if let Some(unknown) = fields.keys().next() {
        return Err(bad(&format!("unknown field {unknown}")));
    }
    let number = lock(&shared).world.open(spec);
    Ok(format!("{number}\n"))
}

async fn change(
    State(shared): SharedState,
    Path((number, verb)): Path<(u32, String)>,
    body: String,
) -> Answer {
    let fields = fields(&body)?;
    let field = |name: &str| {
        fields
            .get(name)
            .map(String::as_str)
            .ok_or_else(|| bad(&format!("{verb} needs the field {name}")))
    };
    let world = &mut lock(&shared).world;
    if !world.contains(number) {
        let message = format!("no pull request {number}\n");
        return Err((StatusCode::NOT_FOUND, message));
    }
    match verb.as_str() {
        "push" => {
            let sha = match fields.get("sha") {
                Some(sha) => sha.clone(),
                None => world.fresh_sha(),
            };
            world.push(number, &sha);
            return Ok(format!("{sha}\n"));
        }
        "close" => world.close(number),
        "reopen" => world.reopen(number),
        "merge" => world.merge(number),
        "delete" => world.delete(number),
        "retarget" => world.retarget(number, field("base")?),
        "title" => world.retitle(number, field("title")?),
        "comment" => {
            let id = world.comment(number, field("login")?, field("body")?);
            return Ok(format!("{id}\n"));
        }
        "permit" => world.permit(field("login")?, field("permission")?),
        "label" => world.label(number, field("label")?),
        "draft" => world.set_draft(number, field("draft")? == "true"),
        _ => {
            return Err(bad(
                "what is there: push, close, reopen, merge, delete, retarget, title, label, draft, \
                 comment, permit",
            ));
        }
    }
    Ok(String::new())
}

fn bad(why: &str) -> (StatusCode, String) {
    (StatusCode::BAD_REQUEST, format!("{why}\n"))
}

/// JSON when it looks like it, else a form; curl sends both under the same content type.
fn fields(body: &str) -> Result<Fields, (StatusCode, String)> {
    if body.trim_start().starts_with('{') {
        let json: BTreeMap<String, Value> =
            serde_json::from_str(body).map_err(|err| bad(&err.to_string()))?;
        let text = |value: Value| match value {
            Value::String(text) => text,
            other => other.to_string(),
        };
        return Ok(json.into_iter().map(|(k, v)| (k, text(v))).collect());
    }
    // A form is written like a query.
    let uri: Uri =
        format!("/?{}", body.trim()).parse().map_err(|_| bad("neither JSON nor a form"))?;
    Query::try_from_uri(&uri).map(|Query(fields)| fields).map_err(|err| bad(&err.to_string()))
}

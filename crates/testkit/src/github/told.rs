//! What GitHub was told: check runs, statuses, comments, deployments, reactions, and who may.

use std::collections::{BTreeMap, BTreeSet};

use axum::http::{Method, StatusCode};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::world::World;

/// Everything that is shown beside the pull requests themselves.
#[derive(Debug, Default)]
pub struct Told {
    pub checks: BTreeMap<i64, FakeCheckRun>,
    pub statuses: Vec<FakeStatus>,
    pub comments: BTreeMap<i64, FakeComment>,
    pub deployments: BTreeMap<i64, FakeDeployment>,
    /// Comment, content, login.
    pub reactions: BTreeSet<(i64, String, String)>,
    /// `admin`, `write` or `read` by login.
    pub permissions: BTreeMap<String, String>,
    /// Interfaces that nobody may write: `check-runs`, `statuses`, `comments`, `deployments`.
    pub forbidden: BTreeSet<String>,
    /// The App, where there is one.
    pub app: Option<FakeApp>,
    last_id: i64,
}

#[derive(Debug, Clone)]
pub struct FakeCheckRun {
    /// None: a token's.
    pub app: Option<u64>,
    /// As it was last sent.
    pub body: Value,
}

#[derive(Debug, Clone)]
pub struct FakeStatus {
    pub sha: String,
    pub body: Value,
}

#[derive(Debug, Clone)]
pub struct FakeComment {
    pub number: u32,
    pub login: String,
    pub app: Option<u64>,
    pub body: String,
    pub created_at: Timestamp,
    /// When it was last edited.
    pub updated_at: Timestamp,
}

#[derive(Debug, Clone)]
pub struct FakeDeployment {
    pub body: Value,
    pub statuses: Vec<Value>,
}

/// A GitHub App with one installation.
#[derive(Debug, Clone)]
pub struct FakeApp {
    pub id: u64,
    pub installation: u64,
    /// Tokens that are good now.
    pub tokens: BTreeSet<String>,
    pub permissions: BTreeMap<String, String>,
    /// How often a token was granted.
    pub granted: u32,
}

/// Who asks.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub login: String,
    pub app: Option<u64>,
}

type Answer = (StatusCode, Value);

fn message(status: StatusCode, text: &str) -> Answer {
    (status, json!({ "message": text, "documentation_url": "https://docs.github.com/rest" }))
}

fn not_found() -> Answer {
    message(StatusCode::NOT_FOUND, "Not Found")
}

fn invalid(text: &str) -> Answer {
    message(StatusCode::UNPROCESSABLE_ENTITY, &format!("Validation Failed: {text}"))
}

fn user(login: &str) -> Value {
    json!({ "login": login, "id": login.len(), "type": "User", "site_admin": false })
}

fn text<'v>(body: &'v Value, key: &str) -> Option<&'v str> {
    body.get(key)?.as_str()
}

impl World {
    /// A person comments, which GitHub counts as a change of the pull request.
    pub fn comment(&mut self, number: u32, login: &str, body: &str) -> i64 {
        let now = self.now();
        let id = self.told.next_id();
        let comment = FakeComment {
            number,
            login: login.to_owned(),
            app: None,
            body: body.to_owned(),
            created_at: now,
            updated_at: now,
        };
        self.told.comments.insert(id, comment);
        self.touched(number);
        id
    }

    /// Its author edits a comment, which is a change too; it stays as old as it is.
    pub fn edit_comment(&mut self, id: i64, body: &str) {
        let now = self.now();
        let comment = self.told.comments.get_mut(&id).expect("a comment that was made");
        body.clone_into(&mut comment.body);
        comment.updated_at = now;
        let number = comment.number;
        self.touched(number);
    }

    /// Whether the comments of all may be read.
    pub(crate) fn lets_read_comments(&self, caller: &Caller) -> bool {
        let needed = ["issues", "pull_requests"];
        let app = self.told.app.as_ref().filter(|_| caller.app.is_some());
        app.is_none_or(|app| needed.iter().any(|name| app.permissions.contains_key(*name)))
    }

    /// `admin`, `write`, `read` or `none`.
    pub fn permit(&mut self, login: &str, permission: &str) {
        self.told.permissions.insert(login.to_lowercase(), permission.to_owned());
    }

    /// Nobody may write here: `check-runs`, `statuses`, `comments`, `deployments`.
    pub fn forbid(&mut self, interface: &str) {
        self.told.forbidden.insert(interface.to_owned());
    }

    /// An App with these permissions, all `write`.
    pub fn install_app(&mut self, id: u64, installation: u64, permissions: &[&str]) {
        let permissions =
            permissions.iter().map(|name| ((*name).to_owned(), "write".to_owned())).collect();
        let tokens = BTreeSet::new();
        self.told.app = Some(FakeApp { id, installation, tokens, permissions, granted: 0 });
    }

    /// GitHub takes none of the App's tokens any more.
    pub fn revoke_tokens(&mut self) {
        if let Some(app) = &mut self.told.app {
            app.tokens.clear();
        }
    }

    pub fn told(&self) -> &Told {
        &self.told
    }

    pub(crate) fn caller(&self, token: &str, owner: &str) -> Option<Caller> {
        if token == owner {
            return Some(Caller { login: "pullre-robot".to_owned(), app: None });
        }
        let app = self.told.app.as_ref().filter(|app| app.tokens.contains(token))?;
        Some(Caller { login: "pullre[bot]".to_owned(), app: Some(app.id) })
    }

    /// A token for whoever signs as the App. The signature itself is not looked at here.
    pub(crate) fn grant(&mut self, installation: &str, jwt: &str) -> Answer {
        let Some(app) = &mut self.told.app else { return not_found() };
        if jwt.split('.').count() != 3 {
            return message(StatusCode::UNAUTHORIZED, "A JSON web token could not be decoded");
        }
        if installation != app.installation.to_string() {
            return not_found();
        }
        app.granted += 1;
        let token = format!("ghs_{}_{}", app.id, app.granted);
        app.tokens.insert(token.clone());
        let expires_at = Timestamp::now() + SignedDuration::from_hours(1);
        let body = json!({
            "token": token, "expires_at": expires_at, "permissions": app.permissions,
            "repository_selection": "selected",
        });
        (StatusCode::CREATED, body)
    }

    /// What is read of it. None: another path.
    pub(crate) fn read_told(
        &self,
        rest: &[&str],
        query: &dyn Fn(&str) -> Option<String>,
        url: &str,
    ) -> Option<Vec<Value>> {
        let told = &self.told;
        Some(match rest {
            ["commits", sha, "check-runs"] => {
                let runs = told.checks.iter().filter(|(_, run)| {
                    let name = query("check_name");
                    let app = query("app_id");
                    text(&run.body, "head_sha") == Some(sha)
                        && name.is_none_or(|name| text(&run.body, "name") == Some(&name))
                        && app.is_none_or(|app| run.app.map(|id| id.to_string()) == Some(app))
                });
                runs.map(|(id, run)| run_json(*id, run)).collect()
            }
            ["issues", "comments"] => {
                let since: Timestamp =
                    query("since").and_then(|since| since.parse().ok()).unwrap_or_default();
                let mut comments: Vec<_> = told
                    .comments
                    .iter()
                    .filter(|(_, comment)| comment.updated_at >= since)
                    .collect();
                comments.sort_by_key(|(id, comment)| (comment.updated_at, **id));
                comments.into_iter().map(|(id, c)| self.comment_json(*id, c, url)).collect()
            }
            ["issues", number, "comments"] => {
                let number: u32 = number.parse().ok()?;
                let of_it = told.comments.iter().filter(|(_, c)| c.number == number);
                of_it.map(|(id, comment)| self.comment_json(*id, comment, url)).collect()
            }
            ["deployments"] => {
                let same = |body: &Value, key: &str, field: &str| {
                    query(key).is_none_or(|wanted| text(body, field) == Some(&wanted))
                };
                let found = told.deployments.iter().filter(|(_, d)| {
                    same(&d.body, "sha", "ref")
                        && same(&d.body, "environment", "environment")
                        && same(&d.body, "task", "task")
                });
                found.map(|(id, d)| json!({ "id": id, "sha": d.body["ref"] })).collect()
            }
            _ => return None,
        })
    }

    pub(crate) fn permission(&self, login: &str) -> Answer {
        let known = self.told.permissions.get(&login.to_lowercase());
        match known {
            Some(permission) => {
                let body = json!({ "permission": permission, "user": user(login) });
                (StatusCode::OK, body)
            }
            None => not_found(),
        }
    }

    fn comment_json(&self, id: i64, comment: &FakeComment, url: &str) -> Value {
        let number = comment.number;
        json!({
            "id": id,
            "body": comment.body,
            "user": user(&comment.login),
            "issue_url": format!("{url}/repos/{}/issues/{number}", self.full_name()),
            "created_at": comment.created_at,
            "updated_at": comment.updated_at,
            "performed_via_github_app": comment.app.map(|id| json!({ "id": id, "slug": "pullre" })),
        })
    }

    /// A write on the repository.
    pub(crate) fn write(
        &mut self,
        method: &Method,
        rest: &[&str],
        body: Value,
        caller: &Caller,
    ) -> Answer {
        let interface = match rest {
            ["check-runs", ..] => "check-runs",
            ["statuses", ..] => "statuses",
            ["issues", ..] => "comments",
            ["deployments", ..] => "deployments",
            _ => return not_found(),
        };
        let permitted = match (&self.told.app, caller.app) {
            (Some(app), Some(_)) => {
                let needed: &[&str] = match interface {
                    "check-runs" => &["checks"],
                    "comments" => &["issues", "pull_requests"],
                    other => &[other],
                };
                needed.iter().any(|name| app.permissions.contains_key(*name))
            }
            _ => interface != "check-runs",
        };
        if !permitted || self.told.forbidden.contains(interface) {
            let kind = if caller.app.is_some() { "integration" } else { "personal access token" };
            let why = format!("Resource not accessible by {kind}");
            return message(StatusCode::FORBIDDEN, &why);
        }
        let now = self.now();
        match (method.as_str(), rest) {
            ("POST", ["check-runs"]) => self.make_check_run(body, caller),
            ("PATCH", ["check-runs", id]) => self.change_check_run(id, body, caller),
            ("POST", ["statuses", sha]) => {
                let states = ["error", "failure", "pending", "success"];
                if !text(&body, "state").is_some_and(|state| states.contains(&state)) {
                    return invalid("state");
                }
                if text(&body, "description").is_some_and(|text| text.chars().count() > 140) {
                    return invalid("description is too long (maximum is 140 characters)");
                }
                let id = self.told.next_id();
                self.told.statuses.push(FakeStatus { sha: (*sha).to_owned(), body: body.clone() });
                (StatusCode::CREATED, with_id(body, id))
            }
            ("POST", ["issues", number, "comments"]) => {
                let Some(number) = number.parse().ok().filter(|n| self.contains(*n)) else {
                    return not_found();
                };
                let Some(words) = comment_text(&body) else { return invalid("body") };
                let id = self.told.next_id();
                let comment = FakeComment {
                    number,
                    login: caller.login.clone(),
                    app: caller.app,
                    body: words,
                    created_at: now,
                    updated_at: now,
                };
                self.told.comments.insert(id, comment);
                self.touched(number);
                (StatusCode::CREATED, with_id(body, id))
            }
            ("PATCH", ["issues", "comments", id]) => {
                let Some(words) = comment_text(&body) else { return invalid("body") };
                let id: i64 = id.parse().unwrap_or(0);
                let Some(comment) = self.told.comments.get_mut(&id) else { return not_found() };
                comment.body = words;
                comment.updated_at = now;
                let number = comment.number;
                self.touched(number);
                (StatusCode::OK, with_id(body, id))
            }
            ("POST", ["issues", "comments", id, "reactions"]) => {
                let id: i64 = id.parse().unwrap_or(0);
                let contents =
                    ["+1", "-1", "laugh", "confused", "heart", "hooray", "rocket", "eyes"];
                let content = text(&body, "content").unwrap_or_default().to_owned();
                if !contents.contains(&content.as_str()) {
                    return invalid("content");
                }
                if !self.told.comments.contains_key(&id) {
                    return not_found();
                }
                let new = self.told.reactions.insert((id, content, caller.login.clone()));
                let status = if new { StatusCode::CREATED } else { StatusCode::OK };
                let made = self.told.next_id();
                (status, with_id(body, made))
            }
            ("POST", ["deployments"]) => {
                if text(&body, "ref").is_none() {
                    return invalid("ref");
                }
                let id = self.told.next_id();
                let made = FakeDeployment { body: body.clone(), statuses: Vec::new() };
                self.told.deployments.insert(id, made);
                (StatusCode::CREATED, with_id(body, id))
            }
            ("POST", ["deployments", id, "statuses"]) => {
                let states =
                    ["error", "failure", "inactive", "in_progress", "queued", "pending", "success"];
                if !text(&body, "state").is_some_and(|state| states.contains(&state)) {
                    return invalid("state");
                }
                let id: i64 = id.parse().unwrap_or(0);
                let made = self.told.next_id();
                let Some(deployment) = self.told.deployments.get_mut(&id) else {
                    return not_found();
                };
                deployment.statuses.push(body.clone());
                (StatusCode::CREATED, with_id(body, made))
            }
            _ => not_found(),
        }
    }

    fn make_check_run(&mut self, body: Value, caller: &Caller) -> Answer {
        let head = text(&body, "head_sha").unwrap_or_default().to_owned();
        if !self.pulls.values().any(|pull| pull.sha == head || pull.former.contains(&head)) {
            return invalid(&format!("No commit found for SHA: {head}"));
        }
        if text(&body, "name").is_none() {
            return invalid("name");
        }
        if let Some(why) = wrong_run(&body) {
            return invalid(why);
        }
        let id = self.told.next_id();
        let run = FakeCheckRun { app: caller.app, body };
        let answer = (StatusCode::CREATED, run_json(id, &run));
        self.told.checks.insert(id, run);
        answer
    }

    fn change_check_run(&mut self, id: &str, body: Value, caller: &Caller) -> Answer {
        let id: i64 = id.parse().unwrap_or(0);
        if let Some(why) = wrong_run(&body) {
            return invalid(why);
        }
        let Some(run) = self.told.checks.get_mut(&id) else { return not_found() };
        if run.app != caller.app {
            return message(
                StatusCode::FORBIDDEN,
                "Invalid app_id `1` - check run can only be modified by the GitHub App that created it.",
            );
        }
        let before = std::mem::replace(&mut run.body, body);
        // What is not sent stays as it was.
        keep(&mut run.body, &before);
        // What is completed stays so; only its words change.
        if text(&before, "status") == Some("completed") {
            run.body["status"] = before["status"].clone();
            run.body["conclusion"] = before["conclusion"].clone();
        }
        (StatusCode::OK, run_json(id, run))
    }
}

/// Fills in what a change leaves out.
fn keep(body: &mut Value, before: &Value) {
    let (Some(body), Some(before)) = (body.as_object_mut(), before.as_object()) else { return };
    for (key, old) in before {
        match body.get_mut(key) {
            None => drop(body.insert(key.clone(), old.clone())),
            Some(new) if key == "output" => keep(new, old),
            Some(_) => {}
        }
    }
}

/// What GitHub would not take of a check run.
fn wrong_run(body: &Value) -> Option<&'static str> {
    let conclusions =
        ["action_required", "cancelled", "failure", "neutral", "success", "skipped", "timed_out"];
    let conclusion = text(body, "conclusion");
    if conclusion.is_some_and(|conclusion| !conclusions.contains(&conclusion)) {
        return Some("conclusion");
    }
    match text(body, "status") {
        Some("completed") if conclusion.is_none() => return Some("conclusion is missing"),
        Some("completed") => {}
        Some("queued" | "in_progress") if conclusion.is_none() => {}
        _ => return Some("status"),
    }
    let output = body.get("output")?;
    let long = |key| text(output, key).is_some_and(|text| text.chars().count() > 65_535);
    if text(output, "title").is_none() || text(output, "summary").is_none() {
        return Some("output");
    }
    (long("summary") || long("text")).then_some("output is too long (maximum is 65535 characters)")
}

fn comment_text(body: &Value) -> Option<String> {
    let words = text(body, "body")?;
    (!words.trim().is_empty() && words.chars().count() <= 65_536).then(|| words.to_owned())
}

fn run_json(id: i64, run: &FakeCheckRun) -> Value {
    let mut json = with_id(run.body.clone(), id);
    json["app"] = json!(run.app.map(|id| json!({ "id": id, "slug": "pullre" })));
    json
}

fn with_id(mut body: Value, id: i64) -> Value {
    body["id"] = json!(id);
    body
}

impl Told {
    fn next_id(&mut self) -> i64 {
        self.last_id += 1;
        9_000_000_000 + self.last_id
    }
}

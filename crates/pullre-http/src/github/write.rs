//! What is written on GitHub, and what is looked for before.
//!
//! Nothing is sent twice: after a cut connection nobody knows whether it arrived, and the next tick
//! looks. Where a renamed repository redirects, nothing is sent at all.

use jiff::Timestamp;
use pullre::domain::{Login, PullNumber};
use pullre::ports::{CheckRun, Comment, Find, ForgeError, Found, Post, PostError};
use reqwest::{Method, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::GitHub;
use super::ask::Answer;
use super::parse::malformed;

/// The task of our deployments, by which they are told from others'.
const TASK: &str = "pullre";
/// More pages of one list are a server that turns us in circles.
const MOST_PAGES: usize = 200;

#[derive(Deserialize)]
struct Made {
    id: i64,
}

#[derive(Deserialize)]
struct Runs {
    check_runs: Vec<Run>,
}

#[derive(Deserialize)]
struct Run {
    id: i64,
    external_id: Option<String>,
    conclusion: Option<String>,
    app: Option<Made>,
}

#[derive(Deserialize)]
struct RawUser {
    login: String,
}

#[derive(Deserialize)]
struct RawComment {
    id: i64,
    body: Option<String>,
    user: Option<RawUser>,
    issue_url: Option<String>,
    created_at: Timestamp,
    updated_at: Timestamp,
    performed_via_github_app: Option<Made>,
}

#[derive(Deserialize)]
struct Permission {
    permission: String,
}

impl GitHub {
    /// A place in the repository. Each part is one segment, whatever is in it.
    fn at(&self, parts: &[&str]) -> Url {
        let mut url = self.repo_url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(parts);
        }
        url
    }

    pub(super) fn write(&self, post: &Post) -> Result<i64, PostError> {
        if let Some(until) = self.memory.limited_until(Timestamp::now()) {
            return Err(ForgeError::RateLimited { until }.into());
        }
        let (method, url, body) = self.request_of(post);
        let changes = method == Method::PATCH
            || matches!(post, Post::Reaction { .. } | Post::DeploymentStatus { .. });
        let body = self.asker.write(method, &url, &body, changes, &self.memory)?;
        let unclear = |e| ForgeError::Malformed(format!("what it says it has written: {e}"));
        if let Post::CheckRun { id: Some(_), run } = post {
            let made: Run = serde_json::from_slice(&body).map_err(unclear)?;
            let wanted = run.state.words().1;
            // One that is completed, or has become stale, stays as it is.
            return match made.conclusion {
                Some(is) if wanted != Some(&is) => {
                    Err(PostError::Gone(format!("it stays completed with {is}")))
                }
                _ => Ok(made.id),
            };
        }
        let made: Made = serde_json::from_slice(&body).map_err(unclear)?;
        Ok(made.id)
    }

    fn request_of(&self, post: &Post) -> (Method, Url, Value) {
        match post {
            Post::CheckRun { id: Some(id), run } => {
                (Method::PATCH, self.at(&["check-runs", &id.to_string()]), check_run(run, false))
            }
            Post::CheckRun { id: None, run } => {
                (Method::POST, self.at(&["check-runs"]), check_run(run, true))
            }
            Post::Status { head, status } => {
                let mut body = json!({
                    "state": status.state,
                    "context": status.context,
                    "description": status.description,
                });
                put(&mut body, "target_url", &status.target_url);
                (Method::POST, self.at(&["statuses", head.as_str()]), body)
            }
            Post::Comment { id: Some(id), body, .. } => {
                let url = self.at(&["issues", "comments", &id.to_string()]);
                (Method::PATCH, url, json!({ "body": body }))
            }
            Post::Comment { id: None, number, body } => {
                let url = self.at(&["issues", &number.0.to_string(), "comments"]);
                (Method::POST, url, json!({ "body": body }))
            }
            Post::Deployment { head, environment, description } => (
                Method::POST,
                self.at(&["deployments"]),
                json!({
                    "ref": head.as_str(),
                    "task": TASK,
                    "auto_merge": false,
                    "required_contexts": [],
                    "environment": environment,
                    "description": description,
                    "transient_environment": true,
                    "production_environment": false,
                }),
            ),
            Post::DeploymentStatus { id, status } => {
                let mut body = json!({
                    "state": status.state,
                    "description": status.description,
                    "auto_inactive": false,
                });
                put(&mut body, "environment_url", &status.environment_url);
                let url = self.at(&["deployments", &id.to_string(), "statuses"]);
                (Method::POST, url, body)
            }
            Post::Reaction { comment, reaction } => {
                let id = comment.to_string();
                let url = self.at(&["issues", "comments", &id, "reactions"]);
                (Method::POST, url, json!({ "content": reaction.as_str() }))
            }
        }
    }

    pub(super) fn search(&self, find: &Find) -> Result<Option<Found>, PostError> {
        match find {
            Find::CheckRun { head, name, external_id } => {
                let mut url = self.at(&["commits", head.as_str(), "check-runs"]);
                let app = self.asker.credentials.app_id();
                url.query_pairs_mut()
                    .append_pair("check_name", name)
                    .append_pair("filter", "all")
                    .append_pair("per_page", "100");
                if let Some(app) = app {
                    url.query_pairs_mut().append_pair("app_id", &app.to_string());
                }
                let ours = |run: &Run| {
                    let made_by = run.app.as_ref().and_then(|app| u64::try_from(app.id).ok());
                    run.external_id.as_ref() == Some(external_id)
                        && (app.is_none() || made_by.is_none() || made_by == app)
                };
                let mut newest: Option<Run> = None;
                let read = self.pages_of(url, &mut |runs: Runs| {
                    let all = newest.take().into_iter().chain(runs.check_runs);
                    newest = all.filter(&ours).max_by_key(|run| run.id);
                    true
                });
                match read {
                    Ok(()) | Err(PostError::Gone(_)) => {}
                    Err(e) => return Err(e),
                }
                Ok(newest.map(|run| Found { id: run.id, conclusion: run.conclusion }))
            }
            Find::Comment { number, mark } => Ok(self.own_comment(*number, mark)?.map(Found::from)),
            Find::Deployment { head, environment } => {
                let mut url = self.at(&["deployments"]);
                url.query_pairs_mut()
                    .append_pair("sha", head.as_str())
                    .append_pair("task", TASK)
                    .append_pair("environment", environment)
                    .append_pair("per_page", "100");
                let first = self.first(url, |made: Vec<Made>| made.first().map(|made| made.id))?;
                Ok(first.map(Found::from))
            }
        }
    }

    /// Anybody can write a comment that begins like ours.
    fn own_comment(&self, number: PullNumber, mark: &str) -> Result<Option<i64>, PostError> {
        let mut url = self.at(&["issues", &number.0.to_string(), "comments"]);
        url.query_pairs_mut().append_pair("per_page", "100");
        let app = self.asker.credentials.app_id().and_then(|id| i64::try_from(id).ok());
        let mut me = None;
        let mut trouble = None;
        let found = self.first(url, |comments: Vec<RawComment>| {
            let marked = comments
                .into_iter()
                .filter(|comment| comment.body.as_ref().is_some_and(|body| body.starts_with(mark)));
            for comment in marked {
                let ours = match app {
                    Some(app) => comment.performed_via_github_app.is_some_and(|by| by.id == app),
                    None => {
                        if me.is_none() {
                            match self.me() {
                                Ok(login) => me = Some(login),
                                Err(e) => {
                                    trouble = Some(e);
                                    return None;
                                }
                            }
                        }
                        comment.user.map(|user| Login(user.login)) == me
                    }
                };
                if ours {
                    return Some(comment.id);
                }
            }
            None
        });
        match trouble {
            Some(e) => Err(e),
            None => found,
        }
    }

    /// Whose token it is.
    fn me(&self) -> Result<Login, PostError> {
        let mut url = self.repo_url.clone();
        let path = url.path().to_owned();
        let api = path.split("/repos/").next().unwrap_or_default();
        url.set_path(&format!("{api}/user"));
        let user: RawUser = self.one(&url)?;
        Ok(Login(user.login))
    }

    fn one<T: DeserializeOwned>(&self, url: &Url) -> Result<T, PostError> {
        match self.asker.get(url, None, &self.memory) {
            Ok(Answer::Page(page)) => Ok(serde_json::from_slice(&page.body)
                .map_err(|e| malformed(format_args!("{}: {e}", url.path())))?),
            Ok(Answer::NotModified) => Err(malformed("an unasked 304").into()),
            Ok(Answer::Absent) => Err(PostError::Gone("Not Found".into())),
            Err(ForgeError::Forbidden(why)) => Err(PostError::Forbidden(why)),
            Err(ForgeError::Rejected(why)) => Err(PostError::Rejected(why)),
            Err(e) => Err(e.into()),
        }
    }

    /// What `pick` takes of the pages, the first of all.
    fn first<T: DeserializeOwned>(
        &self,
        first: Url,
        mut pick: impl FnMut(T) -> Option<i64>,
    ) -> Result<Option<i64>, PostError> {
        let mut picked = None;
        let absent = self.pages_of(first, &mut |page| {
            picked = pick(page);
            picked.is_none()
        });
        match absent {
            Ok(()) | Err(PostError::Gone(_)) => Ok(picked),
            Err(e) => Err(e),
        }
    }

    /// Page after page, as long as `wants` says so.
    fn pages_of<T: DeserializeOwned>(
        &self,
        first: Url,
        wants: &mut dyn FnMut(T) -> bool,
    ) -> Result<(), PostError> {
        let mut url = first;
        for _ in 0..MOST_PAGES {
            let page = match self.asker.get(&url, None, &self.memory) {
                Ok(Answer::Page(page)) => page,
                Ok(Answer::NotModified) => return Err(malformed("an unasked 304").into()),
                Ok(Answer::Absent) => return Err(PostError::Gone("Not Found".into())),
                Err(ForgeError::Forbidden(why)) => return Err(PostError::Forbidden(why)),
                Err(ForgeError::Rejected(why)) => return Err(PostError::Rejected(why)),
                Err(e) => return Err(e.into()),
            };
            let parsed: T = serde_json::from_slice(&page.body)
                .map_err(|e| malformed(format_args!("{}: {e}", url.path())))?;
            let goes_on = wants(parsed);
            match page.next.filter(|_| goes_on) {
                Some(next) => url = next,
                None => return Ok(()),
            }
        }
        Err(malformed(format_args!("more than {MOST_PAGES} pages of {}", url.path())).into())
    }

    pub(super) fn comments(&self, since: Timestamp) -> Result<Vec<Comment>, ForgeError> {
        let mut url = self.at(&["issues", "comments"]);
        url.query_pairs_mut()
            .append_pair("sort", "updated")
            .append_pair("direction", "asc")
            .append_pair("since", &since.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
            .append_pair("per_page", "100");
        let mut comments = Vec::new();
        let read = self.pages_of(url, &mut |page: Vec<RawComment>| {
            comments.extend(page.into_iter().filter_map(|raw| {
                let number = raw.issue_url?.rsplit('/').next()?.parse().ok()?;
                Some(Comment {
                    id: raw.id,
                    number,
                    author: raw.user.map(|user| Login(user.login)),
                    body: raw.body.unwrap_or_default(),
                    created_at: raw.created_at,
                    updated_at: raw.updated_at,
                })
            }));
            true
        });
        match read {
            Ok(()) => Ok(comments),
            Err(PostError::Forge(e)) => Err(e),
            Err(PostError::Gone(why) | PostError::Forbidden(why)) => {
                Err(ForgeError::Forbidden(why))
            }
            Err(PostError::Rejected(why)) => Err(ForgeError::Rejected(why)),
        }
    }

    pub(super) fn permits(&self, login: &Login) -> Result<bool, PostError> {
        let url = self.at(&["collaborators", &login.0, "permission"]);
        // `maintain` is told as `write` in here, and `triage` as `read`.
        match self.one::<Permission>(&url) {
            Ok(has) => Ok(matches!(has.permission.as_str(), "admin" | "maintain" | "write")),
            Err(PostError::Gone(_)) => Ok(false),
            Err(e) => Err(e),
        }
    }
}

fn check_run(run: &CheckRun, new: bool) -> Value {
    let (status, conclusion) = run.state.words();
    let mut output = json!({ "title": run.title, "summary": run.summary });
    // What is left out stays as it was.
    let text = run.text.clone().or_else(|| (!new).then(String::new));
    put(&mut output, "text", &text);
    let mut body = json!({
        "name": run.name,
        "external_id": run.external_id,
        "status": status,
        "output": output,
    });
    if new {
        body["head_sha"] = run.head.as_str().into();
    }
    put(&mut body, "conclusion", &conclusion);
    put(&mut body, "details_url", &run.details_url);
    put(&mut body, "started_at", &run.started_at.map(whole_second));
    put(&mut body, "completed_at", &run.completed_at.map(whole_second));
    body
}

fn whole_second(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// GitHub takes no null where a text is meant.
fn put(body: &mut Value, key: &str, value: &Option<impl serde::Serialize>) {
    if let Some(value) = value {
        body[key] = json!(value);
    }
}

//! GitHub's REST API over the fake world.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, Method, Response, StatusCode, Uri, header};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::faults::Fault;
use super::told::Caller;
use super::world::{Pull, REPO_ID, World};
use super::{LoggedRequest, Shared, control, lock};

pub(crate) type SharedState = State<Arc<Mutex<Shared>>>;

pub(crate) fn router(shared: Arc<Mutex<Shared>>) -> Router {
    Router::new().nest("/_control", control::router()).fallback(answer).with_state(shared)
}

/// An answer before it becomes HTTP.
struct Reply {
    status: StatusCode,
    headers: Vec<(&'static str, String)>,
    body: String,
}

impl Reply {
    fn json(status: StatusCode, body: &Value) -> Reply {
        Reply { status, headers: Vec::new(), body: body.to_string() }
    }

    fn message(status: StatusCode, message: &str) -> Reply {
        Reply::json(
            status,
            &json!({
                "message": message,
                "documentation_url": "https://docs.github.com/rest",
                "status": status.as_str(),
            }),
        )
    }

    fn with(mut self, name: &'static str, value: impl ToString) -> Reply {
        self.headers.retain(|(other, _)| *other != name);
        self.headers.push((name, value.to_string()));
        self
    }
}

async fn answer(State(shared): SharedState, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let sent = axum::body::to_bytes(body, 8 << 20).await.unwrap_or_default();
    let sent: Value = serde_json::from_slice(&sent).unwrap_or(Value::Null);
    let (response, delay) = {
        let mut shared = lock(&shared);
        let fault = shared.next_faults.pop_front().or_else(|| shared.lasting_fault.clone());
        let path = parts.uri.path_and_query().map_or("/", |p| p.as_str());
        let path = path.strip_prefix(&shared.options.prefix).map(str::to_owned);
        let (headers, method) = (&parts.headers, &parts.method);
        let reply = match &path {
            Some(path) => {
                faulty(&mut shared, &Asked { method, path, headers, body: &sent }, fault.as_ref())
            }
            None => Reply::message(StatusCode::NOT_FOUND, "Not Found"),
        };
        shared.log.push(LoggedRequest {
            method: method.to_string(),
            path: path.unwrap_or_else(|| parts.uri.to_string()),
            conditional: headers.contains_key(header::IF_NONE_MATCH),
            status: reply.status.as_u16(),
            body: sent,
        });
        run_pending(&mut shared);
        let delay = match fault {
            Some(Fault::Delay(delay)) => delay,
            _ => Duration::ZERO,
        };
        (http(reply, fault.as_ref()), delay)
    };
    tokio::time::sleep(delay).await;
    response
}

fn run_pending(shared: &mut Shared) {
    let pending = std::mem::take(&mut shared.pending);
    for (left, change) in pending {
        if left <= 1 {
            change(&mut shared.world);
        } else {
            shared.pending.push((left - 1, change));
        }
    }
}

fn http(reply: Reply, fault: Option<&Fault>) -> Response<Body> {
    let mut response = Response::builder()
        .status(reply.status)
        .header(header::CONTENT_TYPE, "application/json; charset=utf-8");
    for (name, value) in &reply.headers {
        response = response.header(*name, value);
    }
    let body = if fault == Some(&Fault::DoneAndCut) {
        response = response.header(header::CONTENT_LENGTH, reply.body.len() + 1);
        // Nothing of what was promised comes.
        Body::from_stream(Body::empty().into_data_stream())
    } else if fault == Some(&Fault::CutBody) {
        response = response.header(header::CONTENT_LENGTH, reply.body.len());
        let half = reply.body.as_bytes()[..reply.body.len() / 2].to_vec();
        // As a stream its length is unknown to hyper, which then finds out too late.
        Body::from_stream(Body::from(half).into_data_stream())
    } else {
        Body::from(reply.body)
    };
    response.body(body).expect("headers are made from visible ASCII here")
}

/// What came in.
struct Asked<'a> {
    method: &'a Method,
    path: &'a str,
    headers: &'a HeaderMap,
    body: &'a Value,
}

fn faulty(shared: &mut Shared, asked: &Asked<'_>, fault: Option<&Fault>) -> Reply {
    let status = |code: u16| StatusCode::from_u16(code).expect("a fault names a valid status");
    match fault {
        None | Some(Fault::CutBody | Fault::DoneAndCut | Fault::Delay(_)) => limited(shared, asked),
        Some(Fault::Status(code)) => Reply::message(status(*code), "Server Error"),
        Some(Fault::Unauthorized) => Reply::message(StatusCode::UNAUTHORIZED, "Bad credentials"),
        Some(Fault::Forbidden(message)) => Reply::message(StatusCode::FORBIDDEN, message),
        Some(Fault::RateLimited { reset_in }) => exceeded(reset_in_seconds(*reset_in)),
        Some(Fault::RetryAfter { status: code, seconds }) => {
            Reply::message(status(*code), "You have exceeded a secondary rate limit.")
                .with("retry-after", seconds)
        }
        Some(Fault::Body(body)) => {
            Reply { status: StatusCode::OK, headers: Vec::new(), body: body.clone() }
        }
        Some(Fault::Redirect(to)) => {
            Reply::message(StatusCode::MOVED_PERMANENTLY, "Moved Permanently").with("location", to)
        }
        Some(Fault::NextPage(url)) => {
            limited(shared, asked).with("link", format!("<{url}>; rel=\"next\""))
        }
        Some(Fault::NoEtag) => {
            let mut reply = limited(shared, asked);
            reply.headers.retain(|(name, _)| *name != "etag");
            reply
        }
    }
}

fn reset_in_seconds(seconds: u64) -> Timestamp {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    Timestamp::now().checked_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX)
}

fn exceeded(reset: Timestamp) -> Reply {
    Reply::message(StatusCode::FORBIDDEN, "API rate limit exceeded")
        .with("x-ratelimit-limit", 5000)
        .with("x-ratelimit-remaining", 0)
        .with("x-ratelimit-reset", reset.as_second())
}

/// Credentials, the rate limit and conditional requests: the same for every path.
fn limited(shared: &mut Shared, asked: &Asked<'_>) -> Reply {
    let Asked { method, path, headers, body } = *asked;
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let authorization = text(header::AUTHORIZATION).unwrap_or("");
    let token =
        authorization.strip_prefix("Bearer ").or_else(|| authorization.strip_prefix("token "));
    if let Some(installation) = path
        .strip_prefix("/app/installations/")
        .and_then(|rest| rest.strip_suffix("/access_tokens"))
        && method == Method::POST
    {
        let (status, json) = shared.world.grant(installation, token.unwrap_or_default());
        return Reply::json(status, &json);
    }
    let caller = token.and_then(|token| shared.world.caller(token, &shared.options.token));
    let Some(caller) = caller else {
        return Reply::message(StatusCode::UNAUTHORIZED, "Bad credentials");
    };
    if text(header::USER_AGENT).is_none() {
        return Reply::message(
            StatusCode::FORBIDDEN,
            "Request forbidden by administrative rules. Please make sure your request has a User-Agent header",
        );
    }
    if shared.rate_reset <= Timestamp::now() {
        shared.rate_remaining = 5000;
        shared.rate_reset = reset_in_seconds(3600);
    }
    if shared.rate_remaining == 0 {
        return exceeded(shared.rate_reset);
    }
    let mut reply = if method == Method::GET {
        get(&shared.world, &shared.url, path, &caller)
    } else {
        write(&mut shared.world, method, path, body, &caller)
    };
    let mut costs = true;
    if reply.status == StatusCode::OK && method == Method::GET {
        let mut hasher = DefaultHasher::new();
        // Link is part of the answer: a 304 must not hide that there are more pages now.
        (path, authorization, &reply.body, &reply.headers).hash(&mut hasher);
        let etag = format!("\"{:016x}\"", hasher.finish());
        let known = text(header::IF_NONE_MATCH).is_some_and(|given| {
            given.split(',').any(|tag| tag.trim().trim_start_matches("W/") == etag)
        });
        if known {
            reply.status = StatusCode::NOT_MODIFIED;
            reply.body.clear();
            costs = false;
        }
        reply = reply.with("etag", format!("W/{etag}"));
    }
    shared.rate_remaining -= u32::from(costs);
    if let Some(scopes) = &shared.world.scopes {
        reply = reply.with("x-oauth-scopes", scopes);
    }
    reply
        .with("x-ratelimit-limit", 5000)
        .with("x-ratelimit-remaining", shared.rate_remaining)
        .with("x-ratelimit-reset", shared.rate_reset.as_second())
}

fn write(world: &mut World, method: &Method, path: &str, body: &Value, caller: &Caller) -> Reply {
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    let ["repos", owner, repo, rest @ ..] = &parts[..] else {
        return Reply::message(StatusCode::NOT_FOUND, "Not Found");
    };
    let renamed = world.former_names.iter().any(|name| name.eq_ignore_ascii_case(repo));
    if owner.eq_ignore_ascii_case(&world.owner) && renamed && world.visible {
        return Reply::message(StatusCode::TEMPORARY_REDIRECT, "Temporary Redirect")
            .with("location", format!("/repositories/{REPO_ID}/{}", rest.join("/")));
    }
    let ours = owner.eq_ignore_ascii_case(&world.owner) && repo.eq_ignore_ascii_case(&world.repo);
    if !ours || !world.visible {
        return Reply::message(StatusCode::NOT_FOUND, "Not Found");
    }
    let rest = rest.to_vec();
    let (status, json) = world.write(method, &rest, body.clone(), caller);
    Reply::json(status, &json)
}

/// One page of a list.
fn page_of(items: Vec<Value>, uri: &Uri, url: &str, whole: impl Fn(Vec<Value>) -> Value) -> Reply {
    let query = Query::<HashMap<String, String>>::try_from_uri(uri).map(|Query(q)| q);
    let query = query.unwrap_or_default();
    let number = |name: &str, default: usize| {
        query.get(name).and_then(|n| n.parse().ok()).filter(|n| *n > 0).unwrap_or(default)
    };
    let (size, page) = (number("per_page", 30).min(100), number("page", 1));
    let more = items.len() > size * page;
    let shown: Vec<_> = items.into_iter().skip(size * (page - 1)).take(size).collect();
    let reply = Reply::json(StatusCode::OK, &whole(shown));
    if !more {
        return reply;
    }
    let kept: Vec<_> =
        uri.query().unwrap_or("").split('&').filter(|pair| !pair.starts_with("page=")).collect();
    let next = format!("{url}{}?{}&page={}", uri.path(), kept.join("&"), page + 1);
    reply.with("link", format!("<{next}>; rel=\"next\""))
}

fn get(world: &World, url: &str, path: &str, caller: &Caller) -> Reply {
    let not_found = || Reply::message(StatusCode::NOT_FOUND, "Not Found");
    let Ok(uri) = path.parse::<Uri>() else {
        return Reply::message(StatusCode::BAD_REQUEST, "Bad Request");
    };
    if uri.path() == "/user" {
        return match caller.app {
            None => Reply::json(StatusCode::OK, &json!({ "login": caller.login, "id": 1 })),
            Some(_) => {
                Reply::message(StatusCode::FORBIDDEN, "Resource not accessible by integration")
            }
        };
    }
    let mut segments = uri.path().split('/').skip(1);
    let rest: Vec<&str> = match segments.next() {
        Some("repos") => {
            let (Some(owner), Some(repo)) = (segments.next(), segments.next()) else {
                return not_found();
            };
            let rest: Vec<&str> = segments.collect();
            let ours = |name: &String| name.eq_ignore_ascii_case(repo);
            if !owner.eq_ignore_ascii_case(&world.owner) || !world.visible {
                return not_found();
            } else if world.former_names.iter().any(ours) {
                let rest: String = rest.iter().flat_map(|part| ["/", part]).collect();
                let query = uri.query().map_or(String::new(), |q| format!("?{q}"));
                let to = format!("{url}/repositories/{REPO_ID}{rest}{query}");
                return Reply::message(StatusCode::MOVED_PERMANENTLY, "Moved Permanently")
                    .with("location", to);
            } else if !ours(&world.repo) {
                return not_found();
            }
            rest
        }
        Some("repositories") if world.visible => {
            if segments.next().and_then(|id| id.parse().ok()) != Some(REPO_ID) {
                return not_found();
            }
            segments.collect()
        }
        _ => return not_found(),
    };
    match rest[..] {
        [] => Reply::json(StatusCode::OK, &world.repo_json(&world.full_name(), false)),
        ["pulls"] => list(world, url, &uri),
        ["pulls", number] => match number.parse().ok().and_then(|n| world.pulls.get(&n)) {
            Some(pull) => {
                let mut json = world.pull_json(pull, url);
                json["merged"] = json!(pull.merged);
                Reply::json(StatusCode::OK, &json)
            }
            None => not_found(),
        },
        ["issues", "comments"] if !world.lets_read_comments(caller) => {
            Reply::message(StatusCode::FORBIDDEN, "Resource not accessible by integration")
        }
        ["collaborators", login, "permission"] => {
            let (status, json) = world.permission(&login.replace("%5B", "[").replace("%5D", "]"));
            Reply::json(status, &json)
        }
        _ => {
            let query = Query::<HashMap<String, String>>::try_from_uri(&uri).map(|Query(q)| q);
            let query = query.unwrap_or_default();
            let items = world.read_told(&rest, &|name| query.get(name).cloned(), url);
            let Some(items) = items else { return not_found() };
            let runs = rest.last() == Some(&"check-runs");
            page_of(items, &uri, url, |items| match runs {
                true => json!({ "total_count": items.len(), "check_runs": items }),
                false => Value::Array(items),
            })
        }
    }
}

fn list(world: &World, url: &str, uri: &Uri) -> Reply {
    let Ok(Query(query)) = Query::<HashMap<String, String>>::try_from_uri(uri) else {
        return Reply::message(StatusCode::BAD_REQUEST, "Bad Request");
    };
    let param = |name: &str| query.get(name).map(String::as_str);
    let number = |name: &str, default: usize| {
        param(name).and_then(|value| value.parse().ok()).filter(|n| *n > 0).unwrap_or(default)
    };
    let wanted: fn(&Pull) -> bool = match param("state").unwrap_or("open") {
        "open" => |pull| pull.open,
        "closed" => |pull| !pull.open,
        "all" => |_| true,
        _ => return Reply::message(StatusCode::UNPROCESSABLE_ENTITY, "Validation Failed"),
    };
    let mut pulls: Vec<&Pull> = world
        .pulls
        .values()
        .filter(|pull| wanted(pull) && param("base").is_none_or(|base| base == pull.base))
        .collect();
    let sort = param("sort").unwrap_or("created");
    match sort {
        "created" => pulls.sort_by_key(|pull| (pull.created_at, pull.number)),
        "updated" => pulls.sort_by_key(|pull| (pull.updated_at, pull.number)),
        _ => return Reply::message(StatusCode::UNPROCESSABLE_ENTITY, "Validation Failed"),
    }
    // GitHub's default direction depends on the order.
    let default = if sort == "created" { "desc" } else { "asc" };
    if param("direction").unwrap_or(default) == "desc" {
        pulls.reverse();
    }

    let per_page = number("per_page", 30).min(100);
    let page = number("page", 1);
    let last = pulls.len().div_ceil(per_page).max(1);
    let shown: Vec<Value> = pulls
        .iter()
        .skip(per_page.saturating_mul(page - 1))
        .take(per_page)
        .map(|pull| world.pull_json(pull, url))
        .collect();
    let reply = Reply::json(StatusCode::OK, &Value::Array(shown));

    let kept: String = uri
        .query()
        .unwrap_or("")
        .split('&')
        .filter(|pair| !pair.is_empty() && !pair.starts_with("page="))
        .flat_map(|pair| [pair, "&"])
        .collect();
    let rel = |page: usize, rel: &str| {
        format!("<{url}/repositories/{REPO_ID}/pulls?{kept}page={page}>; rel=\"{rel}\"")
    };
    let mut links = Vec::new();
    if page > 1 {
        links.push(rel((page - 1).min(last), "prev"));
    }
    if page < last {
        links.push(rel(page + 1, "next"));
        links.push(rel(last, "last"));
    }
    if page > 1 {
        links.push(rel(1, "first"));
    }
    if links.is_empty() { reply } else { reply.with("link", links.join(", ")) }
}

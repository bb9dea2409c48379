//! Every request that we make is one that GitHub's own description knows, with a body that it takes.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;

use jiff::Timestamp;
use pullre::config::GithubLogin;
use pullre::domain::{Login, PullNumber, Sha};
use pullre::ports::{
    CheckRun, CheckState, CommitStatus, DeploymentStatus, Find, Forge, Post, Reaction,
};
use pullre_http::github::{GitHub, GitHubAccess};
use reqwest::Url;
use serde_json::Value;
use support::Setup;
use testkit::github::{LoggedRequest, PullSpec};

fn described() -> Vec<Value> {
    serde_json::from_str(include_str!("openapi/requests.json")).unwrap()
}

fn matches(template: &str, path: &str) -> bool {
    let (template, path): (Vec<_>, Vec<_>) =
        (template.split('/').collect(), path.split('/').collect());
    template.len() == path.len()
        && template.iter().zip(&path).all(|(t, p)| t.starts_with('{') && !p.is_empty() || t == p)
}

/// What is wrong with a value, by the part of JSON Schema that GitHub uses here.
fn faults(value: &Value, schema: &Value, at: &str) -> Vec<String> {
    let mut found = Vec::new();
    if value.is_null() && schema["nullable"] == Value::Bool(true) {
        return found;
    }
    if let Some(kind) = schema["type"].as_str() {
        let right = match kind {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "integer" => value.is_i64() || value.is_u64(),
            "boolean" => value.is_boolean(),
            other => panic!("type {other}"),
        };
        if !right {
            return vec![format!("{at} is {value} and no {kind}")];
        }
    }
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        found.push(format!("{at} is {value} and none of {allowed:?}"));
    }
    if let (Some(most), Some(text)) = (schema["maxLength"].as_u64(), value.as_str())
        && text.chars().count() as u64 > most
    {
        found.push(format!("{at} is longer than {most}"));
    }
    if schema["format"] == "date-time"
        && value.as_str().is_some_and(|t| t.parse::<Timestamp>().is_err())
    {
        found.push(format!("{at} is {value} and no moment"));
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        if value.get(name.as_str().unwrap()).is_none() {
            found.push(format!("{at} lacks {name}"));
        }
    }
    if let (Some(known), Some(object)) = (schema["properties"].as_object(), value.as_object()) {
        for (name, inner) in object {
            match known.get(name) {
                Some(schema) => found.extend(faults(inner, schema, &format!("{at}.{name}"))),
                None if schema["additionalProperties"] == Value::Bool(true) => {}
                None => found.push(format!("{at} has an unknown {name}")),
            }
        }
    }
    for item in value.as_array().into_iter().flatten() {
        if schema["items"].is_object() {
            found.extend(faults(item, &schema["items"], &format!("{at}[]")));
        }
    }
    for key in ["anyOf", "oneOf"] {
        if let Some(ways) = schema[key].as_array() {
            let tried: Vec<_> = ways.iter().map(|way| lenient(value, way, at)).collect();
            if !tried.iter().any(Vec::is_empty) {
                found.push(format!("{at} fits none of {key}: {tried:?}"));
            }
        }
    }
    found
}

/// An alternative names only the properties that it is about.
fn lenient(value: &Value, schema: &Value, at: &str) -> Vec<String> {
    let found = faults(value, schema, at);
    found.into_iter().filter(|fault| !fault.contains("has an unknown")).collect()
}

/// What is wrong with a request, and which operation it is.
fn examine(request: &LoggedRequest, described: &[Value]) -> (String, Vec<String>) {
    let url = Url::parse(&format!("http://x{}", request.path)).unwrap();
    let operation = described.iter().find(|operation| {
        operation["method"] == request.method.as_str()
            && matches(operation["path"].as_str().unwrap(), url.path())
    });
    let Some(operation) = operation else {
        return (String::new(), vec![format!("{request} is no operation of GitHub's")]);
    };
    let name = operation["operation"].as_str().unwrap().to_owned();
    let mut found = Vec::new();
    for (key, value) in url.query_pairs() {
        let schema = &operation["query"][&*key];
        let value = match schema["type"].as_str() {
            Some("integer") => value.parse::<u64>().map_or(Value::Null, Value::from),
            _ => Value::from(value.as_ref()),
        };
        match schema.is_null() {
            true => found.push(format!("{name} has no query {key}")),
            false => found.extend(faults(&value, schema, &key)),
        }
    }
    if !operation["body"].is_null() && !request.body.is_null() {
        found.extend(faults(&request.body, &operation["body"], &name));
    } else if operation["body_required"] == Value::Bool(true) || !request.body.is_null() {
        found.push(format!("{name}: a body is missing or not asked for"));
    }
    (name, found)
}

fn run(head: &Sha, state: CheckState) -> CheckRun {
    CheckRun {
        name: "pullre".into(),
        head: head.clone(),
        external_id: format!("1:{head}"),
        state,
        title: "A title".into(),
        summary: "A summary".into(),
        text: Some("A text".into()),
        details_url: Some("https://stg1.example/".into()),
        started_at: Some(Timestamp::UNIX_EPOCH),
        completed_at: Some(Timestamp::UNIX_EPOCH),
    }
}

#[test]
fn every_request_is_described_and_fits() {
    let setup = Setup::new();
    let head: Sha = setup.fake.change(|world| {
        world.install_app(7, 70, &["checks", "issues", "deployments", "statuses"]);
        world.permit("ann", "write");
        let sha = world.fresh_sha();
        world.open(PullSpec { sha: Some(sha.clone()), ..PullSpec::default() });
        sha.parse().unwrap()
    });
    let private_key = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys/pkcs8.pem").into();
    let login = GithubLogin::App { id: 7, installation: 70, private_key };
    let app = GitHub::new(GitHubAccess { login, ..setup.access() }).unwrap();
    let token = setup.github();
    app.look().unwrap();
    app.read_pulls(&setup.store.known(true)).unwrap();
    app.may_write(&Login("ann".into())).unwrap();
    app.read_comments(Timestamp::UNIX_EPOCH).unwrap();
    let states = [
        CheckState::Queued,
        CheckState::InProgress,
        CheckState::Success,
        CheckState::Failure,
        CheckState::Neutral,
        CheckState::Cancelled,
    ];
    for state in states {
        let id = app.post(&Post::CheckRun { id: None, run: run(&head, state) }).unwrap();
        app.post(&Post::CheckRun { id: Some(id), run: run(&head, state) }).unwrap();
    }
    for state in ["pending", "success", "failure", "error"] {
        let status = CommitStatus {
            context: "pullre".into(),
            state,
            description: "A description".into(),
            target_url: Some("https://stg1.example/".into()),
        };
        token.post(&Post::Status { head: head.clone(), status }).unwrap();
    }
    let comment =
        |id| Post::Comment { id, number: PullNumber(1), body: "<!-- pullre:1 -->".into() };
    let id = token.post(&comment(None)).unwrap();
    token.post(&comment(Some(id))).unwrap();
    for reaction in [Reaction::Done, Reaction::NotUnderstood, Reaction::Refused] {
        token.post(&Post::Reaction { comment: id, reaction }).unwrap();
    }
    let environment = "pr-1".to_owned();
    let deployment =
        Post::Deployment { head: head.clone(), environment, description: "A description".into() };
    let id = app.post(&deployment).unwrap();
    for state in ["queued", "in_progress", "success", "failure", "inactive"] {
        let status = DeploymentStatus {
            state,
            description: "A description".into(),
            environment_url: Some("https://stg1.example/".into()),
        };
        app.post(&Post::DeploymentStatus { id, status }).unwrap();
    }
    let external_id = format!("1:{head}");
    let environment = "pr-1".to_owned();
    for find in [
        Find::CheckRun { head: head.clone(), name: "pullre".into(), external_id },
        Find::Comment { number: PullNumber(1), mark: "<!-- pullre:1 -->".into() },
        Find::Deployment { head, environment },
    ] {
        app.find(&find).unwrap();
        token.find(&find).unwrap();
    }

    let described = described();
    let mut seen = BTreeSet::new();
    for request in setup.fake.take_requests() {
        let (name, faults) = examine(&request, &described);
        assert!(faults.is_empty(), "{request}: {faults:#?}");
        seen.insert(name);
    }
    let single = "pulls/get".to_owned(); // Only asked for what is missing from the list.
    let all = described.iter().map(|o| o["operation"].as_str().unwrap().to_owned());
    let unseen: Vec<_> = all.filter(|name| !seen.contains(name) && *name != single).collect();
    assert_eq!(unseen, [] as [String; 0]);
}

#[test]
fn a_request_that_github_would_not_take_is_noticed() {
    let described = described();
    let request = |method: &str, path: &str, body: Value| LoggedRequest {
        method: method.into(),
        path: path.into(),
        conditional: false,
        status: 0,
        body,
    };
    for (method, path, body, fault) in [
        ("POST", "/repos/a/b/statuses/c", serde_json::json!({ "state": "neutral" }), "none of"),
        ("POST", "/repos/a/b/statuses/c", serde_json::json!({}), "lacks"),
        (
            "POST",
            "/repos/a/b/deployments",
            serde_json::json!({ "ref": "x", "reff": 1 }),
            "unknown reff",
        ),
        ("POST", "/repos/a/b/issues/1/comments", serde_json::json!({ "body": 1 }), "no string"),
        ("PUT", "/repos/a/b/issues/1/comments", Value::Null, "no operation"),
        ("GET", "/repos/a/b/pulls?sort=newest", Value::Null, "none of"),
        ("GET", "/repos/a/b/pulls?sorted=newest", Value::Null, "no query"),
        (
            "PATCH",
            "/repos/a/b/check-runs/1",
            serde_json::json!({ "status": "completed", "conclusion": "good" }),
            "none of",
        ),
    ] {
        let (_, faults) = examine(&request(method, path, body), &described);
        assert!(faults.iter().any(|f| f.contains(fault)), "{method} {path}: {faults:?}");
    }
}

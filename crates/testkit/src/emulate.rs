//! GitHub as `emulate` plays it: somebody else's reading of GitHub's documentation. It knows no
//! ETag, no commit statuses, no deployments and no list of all comments; [`crate::github`] does.

use std::io;

use serde_json::{Value, json};

use crate::peer::{Peer, installed};

/// The only repository.
pub const OWNER: &str = "acme";
pub const REPO: &str = "shop";

/// Of the owner.
const TOKEN: &str = "emulated-token";

const AUTHOR_TOKEN: &str = "emulated-author-token";

/// Made for tests; opens nothing.
const KEY: &str = include_str!("../../pullre-http/tests/keys/pkcs1.pem");

/// Who opens the pull requests.
pub const AUTHOR: &str = "alice";

/// The GitHub App that is installed there.
const APP: u32 = 7;
const INSTALLATION: u32 = 70;

#[derive(Debug)]
pub struct Emulate {
    peer: Peer,
    folder: tempfile::TempDir,
}

impl Emulate {
    pub fn start() -> io::Result<Emulate> {
        let node = installed("node/bin/node")?;
        let program = installed("emulate/node_modules/emulate/dist/index.js")?;
        let folder = tempfile::tempdir()?;
        let seed = folder.path().join("seed.json");
        std::fs::write(folder.path().join("app.pem"), KEY)?;
        let world = json!({
            "tokens": {
                TOKEN: {"login": OWNER, "scopes": ["repo"]},
                AUTHOR_TOKEN: {"login": AUTHOR, "scopes": ["repo"]},
            },
            "github": {
                "users": [{"login": OWNER}, {"login": AUTHOR}],
                "repos": [{"owner": OWNER, "name": REPO, "auto_init": true}],
                "apps": [{
                    "app_id": APP, "slug": "pullre", "name": "pullre", "private_key": KEY,
                    "permissions": {
                        "checks": "write", "contents": "read", "issues": "write",
                        "metadata": "read", "pull_requests": "write",
                    },
                    "installations": [{
                        "installation_id": INSTALLATION, "account": OWNER,
                        "repository_selection": "all",
                    }],
                }],
            },
        });
        std::fs::write(&seed, world.to_string())?;
        let peer = Peer::start(&node, |port| {
            let words = ["start", "--service", "github", "--port", port, "--seed"];
            let mut all = vec![program.display().to_string()];
            all.extend(words.map(str::to_owned));
            all.push(seed.display().to_string());
            all
        })?;
        let emulate = Emulate { peer, folder };
        emulate.call("PUT", &format!("/collaborators/{AUTHOR}"), &json!({"permission": "push"}));
        Ok(emulate)
    }

    /// What app.ini says to come as the App.
    pub fn app_ini(&self) -> String {
        let (url, key) = (self.peer.url(), self.folder.path().join("app.pem"));
        format!(
            "owner = {OWNER}\nrepo = {REPO}\ngithub_api_url = {url}\ngithub_app_id = {APP}\n\
             github_app_installation_id = {INSTALLATION}\ngithub_private_key = {}\n",
            key.display()
        )
    }

    /// One request below the repository, as its owner.
    ///
    /// # Panics
    /// Where it is refused.
    pub fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        self.call_as(TOKEN, method, path, body)
    }

    fn call_as(&self, token: &str, method: &str, path: &str, body: &Value) -> Value {
        let headers =
            format!("Authorization: Bearer {token}\r\nContent-Type: application/json\r\n");
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let path = format!("/repos/{OWNER}/{REPO}{path}");
        let (status, answer) =
            self.peer.ask(method, &path, &headers, &body).expect("emulate answers");
        assert!(status < 400, "{method} {path}: {status} {answer}");
        serde_json::from_str(&answer).unwrap_or_default()
    }

    /// A webhook of the repository, as an operator makes one in its settings. Its number.
    pub fn hook(&self, url: &str, secret: &str) -> u64 {
        let config = json!({"url": url, "secret": secret, "content_type": "json"});
        let hook = json!({"config": config, "events": ["pull_request", "push", "issue_comment"]});
        self.call("POST", "/hooks", &hook)["id"].as_u64().expect("a number")
    }

    /// What its deliveries were answered with, the newest first.
    pub fn answered(&self, hook: u64) -> Vec<u64> {
        let deliveries = self.call("GET", &format!("/hooks/{hook}/deliveries"), &Value::Null);
        let deliveries = deliveries.as_array().expect("a list").iter();
        deliveries.filter_map(|delivery| delivery["status_code"].as_u64()).collect()
    }

    /// A branch with a commit of its own, and a pull request for it.
    pub fn open(&self, branch: &str) -> u32 {
        let main = self.call("GET", "/git/ref/heads/main", &Value::Null);
        let from = json!({"ref": format!("refs/heads/{branch}"), "sha": main["object"]["sha"]});
        self.call("POST", "/git/refs", &from);
        self.commit(branch);
        let pull = json!({"title": format!("Work on {branch}"), "head": branch, "base": "main"});
        let pull = self.call_as(AUTHOR_TOKEN, "POST", "/pulls", &pull);
        pull["number"].as_u64().expect("a number") as u32
    }

    fn commit(&self, branch: &str) {
        let sha = self.call("GET", &format!("/git/ref/heads/{branch}"), &Value::Null);
        let sha = sha["object"]["sha"].as_str().expect("a commit").to_owned();
        let path = format!("/contents/{branch}-{sha}.txt");
        // "more", in the encoding that GitHub asks for.
        let file = json!({"message": "more", "content": "bW9yZQ==", "branch": branch});
        self.call("PUT", &path, &file);
    }

    /// The pull request's head moves: what is new on main is merged into it.
    pub fn push(&self, number: u32) {
        self.commit("main");
        self.call("PUT", &format!("/pulls/{number}/update-branch"), &json!({}));
    }

    pub fn set_state(&self, number: u32, state: &str) {
        self.call("PATCH", &format!("/pulls/{number}"), &json!({"state": state}));
    }

    pub fn head(&self, number: u32) -> String {
        let pull = self.call("GET", &format!("/pulls/{number}"), &Value::Null);
        pull["head"]["sha"].as_str().expect("a head").to_owned()
    }
}

//! How a staging server treats the app and its work tree.

use super::RawConfig;
use super::reader::{Reader, word};

/// What the app's commands are to a staging server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppConfig {
    /// Runs the app's commands, and git, where it is not the client's own user.
    pub user: Option<String>,
    /// What an answer at `check_url` must hold; `{sha}` in it stands for the commit.
    pub check_body: Option<String>,
    /// Where the app listens, as `check_url` need not say.
    pub port: Option<u16>,
}

impl AppConfig {
    pub(super) fn read(r: &mut Reader<'_>) -> AppConfig {
        const USER: &str = "the name of a user of this machine";
        AppConfig {
            user: r.parsed("exec_user", USER, |value| {
                word(value).filter(|name| !name.starts_with('-') && !name.contains([':', '/']))
            }),
            check_body: r.text("check_body"),
            port: r.parsed("app_port", "a TCP port", |value| {
                value.parse().ok().filter(|port| *port > 0)
            }),
        }
    }
}

/// How the work tree is brought to a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GitConfig {
    pub submodules: bool,
    /// How many commits of history are fetched; None: all of it.
    pub depth: Option<u32>,
}

impl GitConfig {
    pub(super) fn read(r: &mut Reader<'_>) -> GitConfig {
        GitConfig {
            submodules: r.yes_or_no("git_submodules", false),
            depth: r.parsed("git_depth", "a number of commits from 1", |value| {
                value.parse().ok().filter(|depth| *depth > 0)
            }),
        }
    }
}

/// Keys with which a controller could be robbed: of no use to a staging server.
const CONTROLLERS: [&str; 9] = [
    "token",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_KEY",
    "app_secret_key",
    "webhook_secret",
    "basic_password",
    "github_private_key",
    "google_chat_url",
    "slack_url",
];

/// Those of them that are set, in the file or by the environment.
pub(super) fn controllers_secrets(raw: &RawConfig) -> Vec<&'static str> {
    CONTROLLERS.into_iter().filter(|key| raw.get(key).is_some()).collect()
}

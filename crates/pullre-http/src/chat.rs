//! A line to a team's chat: Slack's and Google Chat's incoming webhooks take the same form.

use std::time::Duration;

use pullre::config::Secret;
use serde_json::json;

use crate::client::{self, Failure};

const PATIENCE: Duration = Duration::from_secs(10);

/// Which service it is; they read `&` and `<` differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chat {
    Slack,
    Google,
}

impl Chat {
    fn name(self) -> &'static str {
        match self {
            Chat::Slack => "Slack",
            Chat::Google => "Google Chat",
        }
    }
}

/// Sends it once. The error holds no address: it is the password.
pub fn send(chat: Chat, url: &Secret, text: &str) -> Result<(), String> {
    let text = match chat {
        Chat::Slack => text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;"),
        // `<users/all>` would call everybody.
        Chat::Google => text.replace('<', "‹").replace('>', "›"),
    };
    let name = chat.name();
    let failed = |e: reqwest::Error| format!("{name}: {}", Failure::of(&e));
    let client = client::builder(url.expose().starts_with("https:"))
        .connect_timeout(PATIENCE)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(failed)?;
    let sent = client.post(url.expose()).timeout(PATIENCE).json(&json!({ "text": text })).send();
    let status = sent.map_err(failed)?.status();
    if status.is_success() { Ok(()) } else { Err(format!("{name} answers {status}")) }
}

//! Who speaks on GitHub, what is said there, and what may have an environment.

use std::path::PathBuf;

use super::Secret;
use super::reader::{Reader, word};
use crate::admission::{Admission, Forks};
use crate::domain::Login;

/// As whom GitHub is asked and told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GithubLogin {
    /// A person's or a robot's token.
    Token(Secret),
    /// A GitHub App, installed in the repository's account.
    App { id: u64, installation: u64, private_key: PathBuf },
}

/// What is said, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportConfig {
    /// False: GitHub is only read.
    pub report: bool,
    pub check_name: String,
    pub comment: bool,
    pub deployments: bool,
    pub alerts: bool,
    pub slack_url: Option<Secret>,
    pub google_chat_url: Option<Secret>,
}

impl Reader<'_> {
    /// Words between commas; none where the key is not set.
    fn list(&mut self, key: &'static str) -> Vec<String> {
        let text = self.text(key).unwrap_or_default();
        text.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect()
    }

    /// No branch has a `*` in its name.
    fn branches(&mut self) -> Vec<String> {
        let good = |name: &String| !name.strip_suffix('*').unwrap_or(name).contains('*');
        let branches = self.list("base_branches");
        if !branches.iter().all(good) {
            self.malformed("base_branches", "names of branches, with a `*` at the end alone");
        }
        branches
    }

    /// An App if any of its keys is set: a token beside it is not used.
    pub(super) fn github_login(&mut self) -> Option<GithubLogin> {
        const KEYS: [&str; 3] =
            ["github_app_id", "github_app_installation_id", "github_private_key"];
        if KEYS.iter().all(|key| self.text(key).is_none()) {
            let expected = "a GitHub token (one word) that may read the repository, or a GitHub App \
                            (github_app_id)";
            return self.required("token", expected, word).map(Secret::new).map(GithubLogin::Token);
        }
        let number = |value: &str| value.parse().ok().filter(|n| *n > 0);
        let id = self.required(KEYS[0], "the App's id, a number", number);
        let installation =
            self.required(KEYS[1], "the number of the App's installation in the account", number);
        let key = match self.path(KEYS[2]) {
            None if self.text(KEYS[2]).is_none() => {
                self.missing(KEYS[2], "the path of the App's private key (a PEM file)");
                None
            }
            other => other,
        };
        Some(GithubLogin::App { id: id?, installation: installation?, private_key: key? })
    }

    pub(super) fn report(&mut self) -> ReportConfig {
        let expected = "a name of at most 100 characters, without control characters";
        let check_name = self.parsed("check_name", expected, |value| {
            let fits = value.chars().count() <= 100 && !value.contains(char::is_control);
            fits.then(|| value.to_owned())
        });
        let mut chat = |key| {
            let expected = "a URL that starts with https:// or http://";
            let url = self.parsed(key, expected, |value| {
                let known = value.starts_with("https://") || value.starts_with("http://");
                word(value).filter(|_| known)
            });
            url.map(Secret::new)
        };
        let (slack_url, google_chat_url) = (chat("slack_url"), chat("google_chat_url"));
        ReportConfig {
            report: self.yes_or_no("report", true),
            check_name: check_name.unwrap_or_else(|| "pullre-kun".into()),
            comment: self.yes_or_no("comment", true),
            deployments: self.yes_or_no("deployments", false),
            alerts: self.yes_or_no("alerts", false),
            slack_url,
            google_chat_url,
        }
    }

    pub(super) fn admission(&mut self) -> Admission {
        let forks = self.parsed("forks", "`approved` or `deny`", |value| match value {
            "approved" => Some(Forks::Approved),
            "deny" => Some(Forks::Deny),
            _ => None,
        });
        Admission {
            only_labels: self.list("only_labels"),
            skip_labels: self.list("skip_labels"),
            skip_drafts: self.yes_or_no("skip_drafts", false),
            base_branches: self.branches(),
            skip_authors: self.list("skip_authors").into_iter().map(Login).collect(),
            forks: forks.unwrap_or_default(),
        }
    }
}

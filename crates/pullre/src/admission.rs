//! Which pull requests may have an environment at all, by the operator's rules in app.ini. Pure.

use std::fmt;

use crate::domain::{Login, PullRequest};

/// The rules. The default lets everything in that the rest of the system can serve.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Admission {
    /// One of these labels is needed; empty: none is.
    pub only_labels: Vec<String>,
    /// Each of these labels keeps a pull request out.
    pub skip_labels: Vec<String>,
    pub skip_drafts: bool,
    /// Only pull requests into these branches; a `*` at the end stands for anything. Empty: all.
    pub base_branches: Vec<String>,
    pub skip_authors: Vec<Login>,
    pub forks: Forks,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Forks {
    /// A fork's commit runs once an operator has approved exactly it.
    #[default]
    Approved,
    Deny,
}

/// The rule that keeps a pull request out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Excluded {
    Draft,
    LabelMissing(Vec<String>),
    Label(String),
    Base { base: String, wanted: Vec<String> },
    Author(Login),
    Fork,
}

impl fmt::Display for Excluded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |names: &[String]| names.join(", ");
        match self {
            Excluded::Draft => write!(f, "it is a draft (`skip_drafts`)"),
            Excluded::LabelMissing(wanted) => {
                write!(
                    f,
                    "it has none of the labels that give one (`only_labels`): {}",
                    list(wanted)
                )
            }
            Excluded::Label(label) => {
                write!(f, "its label keeps it from one (`skip_labels`): {label}")
            }
            Excluded::Base { base, wanted } => write!(
                f,
                "it goes into {base}, and only these branches give one (`base_branches`): {}",
                list(wanted)
            ),
            Excluded::Author(login) => {
                write!(f, "pull requests of {login} get none (`skip_authors`)")
            }
            Excluded::Fork => write!(f, "it comes from a fork, and forks get none (`forks`)"),
        }
    }
}

impl Admission {
    /// The first rule that keeps it out, if one does. GitHub tells labels and logins apart without
    /// case; so do we.
    pub fn excludes(&self, request: &PullRequest) -> Option<Excluded> {
        let has = |label: &&String| request.labels.iter().any(|own| same(own, label));
        if request.is_fork && self.forks == Forks::Deny {
            return Some(Excluded::Fork);
        }
        if request.is_draft && self.skip_drafts {
            return Some(Excluded::Draft);
        }
        let author = request.author.as_ref().filter(|author| self.skip_authors.contains(author));
        if let Some(author) = author {
            return Some(Excluded::Author(author.clone()));
        }
        let base = &request.base_ref;
        if !self.base_branches.is_empty() && !self.base_branches.iter().any(|b| covers(b, base)) {
            let wanted = self.base_branches.clone();
            return Some(Excluded::Base { base: base.clone(), wanted });
        }
        if let Some(label) = self.skip_labels.iter().find(has) {
            return Some(Excluded::Label(label.clone()));
        }
        if !self.only_labels.is_empty() && !self.only_labels.iter().any(|label| has(&label)) {
            return Some(Excluded::LabelMissing(self.only_labels.clone()));
        }
        None
    }
}

fn same(a: &str, b: &str) -> bool {
    a.to_lowercase() == b.to_lowercase()
}

fn covers(rule: &str, branch: &str) -> bool {
    match rule.strip_suffix('*') {
        Some(start) => branch.starts_with(start),
        None => branch == rule,
    }
}

//! The words of the project as types. Each newtype is checked once, at the door, and cannot be
//! wrong afterwards.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Why a text is not what it should be; says which text and what is expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} is not {expected}")]
pub struct Invalid {
    pub value: String,
    pub expected: &'static str,
}

impl Invalid {
    pub fn new(value: &str, expected: &'static str) -> Self {
        // Control characters are made visible by `{:?}`; length is bounded for logs.
        let value = value.chars().take(80).collect();
        Invalid { value, expected }
    }
}

/// The number of a pull request in its repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PullNumber(pub u32);

impl fmt::Display for PullNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("#{}", self.0))
    }
}

impl FromStr for PullNumber {
    type Err = Invalid;
    fn from_str(s: &str) -> Result<Self, Invalid> {
        s.strip_prefix('#')
            .unwrap_or(s)
            .parse()
            .ok()
            .filter(|n| *n > 0)
            .map(PullNumber)
            .ok_or_else(|| Invalid::new(s, "the number of a pull request"))
    }
}

/// A whole git commit id: 40 (SHA-1) or 64 (SHA-256) hexadecimal digits, in lower case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sha(String);

impl Sha {
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// The first seven digits, for people.
    pub fn short(&self) -> &str {
        &self.0[..7]
    }
}

impl FromStr for Sha {
    type Err = Invalid;
    fn from_str(s: &str) -> Result<Self, Invalid> {
        let whole = matches!(s.len(), 40 | 64) && s.bytes().all(|b| b.is_ascii_hexdigit());
        if whole {
            Ok(Sha(s.to_ascii_lowercase()))
        } else {
            Err(Invalid::new(s, "a whole commit id (40 or 64 hexadecimal digits)"))
        }
    }
}

impl TryFrom<String> for Sha {
    type Error = Invalid;
    fn try_from(s: String) -> Result<Self, Invalid> {
        s.parse()
    }
}

impl From<Sha> for String {
    fn from(sha: Sha) -> String {
        sha.0
    }
}

impl fmt::Display for Sha {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Schemas that belong to a database server itself.
const SYSTEM_SCHEMAS: [&str; 4] = ["mysql", "information_schema", "performance_schema", "sys"];

/// The name of a database schema: 1 to 64 characters that MySQL takes in a quoted identifier and
/// that name one file in one folder where SQLite is used. Never a system schema.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SchemaName(String);

impl SchemaName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// Whether both may be one schema on some server: MySQL folds case on some file systems.
    pub fn collides(&self, other: &SchemaName) -> bool {
        self.0.to_lowercase() == other.0.to_lowercase()
    }
}

impl FromStr for SchemaName {
    type Err = Invalid;
    fn from_str(s: &str) -> Result<Self, Invalid> {
        const EXPECTED: &str = "a schema name (1 to 64 characters, no slash, backslash or control \
             character, no dot in front, no space at the end, not a system schema)";
        let bad = s.is_empty()
            || s.chars().count() > 64
            || s.starts_with('.')
            || s.ends_with(' ')
            || s.chars().any(|c| {
                // MySQL's identifiers end at U+FFFF.
                c.is_control() || c == '/' || c == '\\' || c > '\u{ffff}'
            })
            || SYSTEM_SCHEMAS.contains(&s.to_lowercase().as_str());
        if bad {
            return Err(Invalid::new(s, EXPECTED));
        }
        Ok(SchemaName(s.to_owned()))
    }
}

impl TryFrom<String> for SchemaName {
    type Error = Invalid;
    fn try_from(s: String) -> Result<Self, Invalid> {
        s.parse()
    }
}

impl From<SchemaName> for String {
    fn from(name: SchemaName) -> String {
        name.0
    }
}

impl fmt::Display for SchemaName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A GitHub login. GitHub compares logins without case; so do we.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Login(pub String);

impl Login {
    /// The login whose schema serves every author that has none of their own.
    pub const DEFAULT: &'static str = "default";
}

impl PartialEq for Login {
    fn eq(&self, other: &Login) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl Eq for Login {}

impl fmt::Display for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The primary key of a row of `servers`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ServerId(pub i64);

/// What the compute provider calls a machine: an EC2 instance id, or the name of a local slot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InstanceId(pub String);

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PullState {
    Open,
    Closed,
}

impl PullState {
    pub fn as_str(self) -> &'static str {
        match self {
            PullState::Open => "open",
            PullState::Closed => "closed",
        }
    }
}

impl FromStr for PullState {
    type Err = Invalid;
    fn from_str(s: &str) -> Result<Self, Invalid> {
        match s {
            "open" => Ok(PullState::Open),
            "closed" => Ok(PullState::Closed),
            _ => Err(Invalid::new(s, "a pull request's state (open, closed)")),
        }
    }
}

/// A pull request as GitHub describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullRequest {
    pub number: PullNumber,
    pub state: PullState,
    pub head: Sha,
    /// The branch, without `refs/heads/`. Written by whoever opened it: never trust it.
    pub head_ref: String,
    pub base_ref: String,
    pub title: String,
    pub body: String,
    /// None when the account is gone.
    pub author: Option<Login>,
    /// `owner/name` of the repository that holds the branch; None when it is gone.
    pub head_repo: Option<String>,
    /// The head's repository is another one than ours, or gone.
    pub is_fork: bool,
    pub is_draft: bool,
    pub labels: Vec<String>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub closed_at: Option<Timestamp>,
}

/// What a machine is doing, in EC2's words. `shutting-down` counts as terminated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InstanceState {
    Pending,
    Running,
    Stopping,
    Stopped,
    Terminated,
}

impl InstanceState {
    pub fn as_str(self) -> &'static str {
        match self {
            InstanceState::Pending => "pending",
            InstanceState::Running => "running",
            InstanceState::Stopping => "stopping",
            InstanceState::Stopped => "stopped",
            InstanceState::Terminated => "terminated",
        }
    }
}

impl FromStr for InstanceState {
    type Err = Invalid;
    fn from_str(s: &str) -> Result<Self, Invalid> {
        Ok(match s {
            "pending" => InstanceState::Pending,
            "running" => InstanceState::Running,
            "stopping" => InstanceState::Stopping,
            "stopped" => InstanceState::Stopped,
            "terminated" | "shutting-down" => InstanceState::Terminated,
            _ => return Err(Invalid::new(s, "the state of an instance")),
        })
    }
}

impl fmt::Display for InstanceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A machine as the compute provider describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    pub id: InstanceId,
    pub state: InstanceState,
    pub name: Option<String>,
    pub private_ip: Option<String>,
    /// Why it is in this state, in the provider's words.
    pub reason: Option<String>,
    /// What it may do at the provider's in its own name: on EC2, the instance profile's ARN.
    pub role: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sha_is_whole_hexadecimal_and_lower_case() {
        let sha: Sha = "A18F320B1462576F00E4135B7913B0151F090D4D".parse().unwrap();
        assert_eq!(sha.as_str(), "a18f320b1462576f00e4135b7913b0151f090d4d");
        assert_eq!(sha.short(), "a18f320");
        for bad in ["", "a18f320", "HEAD", "--upload-pack=x", "../../etc"] {
            bad.parse::<Sha>().unwrap_err();
        }
    }

    #[test]
    fn a_schema_name_never_leaves_its_folder_and_is_never_the_servers_own() {
        for good in ["stg1", "db-dev 1", "données", "a`b", "機能", &"x".repeat(64)] {
            good.parse::<SchemaName>().unwrap();
        }
        for bad in [
            "",
            ".",
            "..",
            "../x",
            "a/b",
            "a\\b",
            "x ",
            "a\0b",
            "a\nb",
            "mysql",
            "Information_Schema",
            &"x".repeat(65),
        ] {
            bad.parse::<SchemaName>().unwrap_err();
        }
    }

    #[test]
    fn a_pull_number_is_read_with_and_without_its_hash_sign() {
        assert_eq!("#12".parse(), Ok(PullNumber(12)));
        assert_eq!("12".parse(), Ok(PullNumber(12)));
        "0".parse::<PullNumber>().unwrap_err();
        "twelve".parse::<PullNumber>().unwrap_err();
    }
}

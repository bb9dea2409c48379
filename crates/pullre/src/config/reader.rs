//! Turns text into checked values, and collects everything that is wrong on the way.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use tracing::Level;

use super::DatabaseConfig;
use super::keys::{self, env_name};
use super::raw::{Origin, RawConfig};
use super::secret::Secret;
use crate::domain::SchemaName;

/// One thing that is wrong, where, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    place: String,
    /// The key that it is about, where it is about one.
    pub key: Option<&'static str>,
    what: String,
}

impl Problem {
    pub(super) fn new(place: &Path, what: impl Into<String>) -> Problem {
        Problem { place: place.display().to_string(), key: None, what: what.into() }
    }
    pub(super) fn at_line(file: &Path, line: usize, what: impl Into<String>) -> Problem {
        Problem { place: format!("{}:{line}", file.display()), key: None, what: what.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// Everything that is wrong with the configuration, at once; never a secret's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(Vec<Problem>);

impl ConfigErrors {
    pub fn problems(&self) -> &[Problem] {
        &self.0
    }
}

impl From<Vec<Problem>> for ConfigErrors {
    fn from(problems: Vec<Problem>) -> Self {
        ConfigErrors(problems)
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            let line_break = if i == 0 { "" } else { "\n" };
            write!(f, "{line_break}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// Reads typed values. Where one is missing or malformed the problem is noted and reading goes
/// on; [`Reader::finish`] tells.
pub(super) struct Reader<'a> {
    raw: &'a RawConfig,
    problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    pub fn new(raw: &'a RawConfig) -> Self {
        Reader { raw, problems: Vec::new() }
    }

    /// The errors if there were any, else `value`. `value` is None only where a problem was noted.
    pub fn finish<T>(self, value: Option<T>) -> Result<T, ConfigErrors> {
        match value {
            Some(value) if self.problems.is_empty() => Ok(value),
            _ => Err(self.problems.into()),
        }
    }

    pub fn text(&self, key: &'static str) -> Option<String> {
        debug_assert!(keys::find(key).is_some_and(|k| k.used), "{key} is not marked as used");
        self.raw.get(key).map(|(value, _)| value.to_owned())
    }

    pub fn secret(&self, key: &'static str) -> Option<Secret> {
        self.text(key).map(Secret::new)
    }

    /// What `read` makes of the value; None when it is not set or wrong.
    pub fn parsed<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let value = self.text(key)?;
        let parsed = read(&value);
        if parsed.is_none() {
            self.malformed(key, expected);
        }
        parsed
    }

    pub fn required<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        if self.text(key).is_none() {
            self.missing(key, expected);
            return None;
        }
        self.parsed(key, expected, read)
    }

    pub fn yes_or_no(&mut self, key: &'static str, default: bool) -> bool {
        self.parsed(key, "`yes` or `no`", |value| match value {
            "yes" => Some(true),
            "no" => Some(false),
            _ => None,
        })
        .unwrap_or(default)
    }

    /// A whole number within `range`, else `default`.
    pub fn number<T>(
        &mut self,
        key: &'static str,
        unit: &str,
        default: T,
        range: std::ops::RangeInclusive<T>,
    ) -> T
    where
        T: FromStr + PartialOrd + fmt::Display,
    {
        let expected = format!("{unit}, a whole number from {} to {}", range.start(), range.end());
        self.parsed(key, &expected, |value| {
            let digits = value.bytes().all(|b| b.is_ascii_digit());
            value.parse().ok().filter(|n| digits && range.contains(n))
        })
        .unwrap_or(default)
    }

    pub fn seconds(
        &mut self,
        key: &'static str,
        default: u64,
        range: std::ops::RangeInclusive<u64>,
    ) -> Duration {
        Duration::from_secs(self.number(key, "seconds", default, range))
    }

    /// A path, relative to app.ini's folder. The shell's `~` is no path.
    pub fn path(&mut self, key: &'static str) -> Option<PathBuf> {
        let folder = self.raw.folder();
        self.parsed(key, "a path, whole or relative to app.ini's folder, without `~`", |value| {
            let plain = !value.starts_with('~') && !value.contains('\0');
            plain.then(|| folder.join(value))
        })
    }

    /// `path` or `default` in app.ini's folder.
    pub fn path_or(&mut self, key: &'static str, default: &str) -> PathBuf {
        self.path(key).unwrap_or_else(|| self.raw.folder().join(default))
    }

    pub fn http_url(&mut self, key: &'static str) -> Option<String> {
        self.parsed(key, "a URL that starts with https:// or http://", http_url)
    }

    /// Owner and repository: they become part of URLs and paths.
    pub fn repository(&mut self) -> (Option<String>, Option<String>) {
        let owner = self.required("owner", "the GitHub account that owns the repository", name);
        let repo = self.required("repo", "the GitHub repository's name, without its owner", name);
        (owner, repo)
    }

    pub fn logging_level(&mut self) -> Level {
        // Python's names as in the ancestor's file, and ours.
        const EXPECTED: &str = "one of TRACE, DEBUG, INFO, WARNING, ERROR, CRITICAL";
        self.parsed("logging_level", EXPECTED, |value| {
            Some(match value.to_ascii_uppercase().as_str() {
                "TRACE" => Level::TRACE,
                "DEBUG" => Level::DEBUG,
                "INFO" => Level::INFO,
                "WARNING" | "WARN" => Level::WARN,
                "ERROR" | "CRITICAL" => Level::ERROR,
                _ => return None,
            })
        })
        .unwrap_or(Level::INFO)
    }

    pub fn state_dir(&mut self) -> PathBuf {
        let base = self.path("base_dir").unwrap_or_else(|| self.raw.folder().to_owned());
        self.path("state_dir").unwrap_or_else(|| base.join(".pullre"))
    }

    /// 0: one look per run. Else the seconds between two looks.
    pub fn poll_seconds(&mut self) -> u32 {
        self.number("poll_seconds", "seconds", 0, 0..=55)
    }

    pub fn keep_days(&mut self) -> u32 {
        self.number("keep_days", "days", 90, 1..=3650)
    }

    pub fn database(&mut self) -> Option<DatabaseConfig> {
        let default = self.text("mysql_host").is_some();
        let mysql = match self.text("database").as_deref() {
            None => default,
            Some("mysql") => true,
            Some("sqlite") => false,
            Some(_) => {
                self.malformed("database", "`mysql` or `sqlite`");
                return None;
            }
        };
        if !mysql {
            let path = self.path_or("sqlite_path", "pullre.db");
            let schema_dir = self.path_or("schema_dir", "schemas");
            let is_schema = path.extension().is_some_and(|end| end.eq_ignore_ascii_case("db"));
            if is_schema && path.parent() == Some(&schema_dir) {
                self.malformed("schema_dir", "another folder than that of the control database");
                return None;
            }
            return Some(DatabaseConfig::Sqlite { path, schema_dir });
        }
        let host = self.required("mysql_host", "the MySQL server's host name", word);
        let port = self.number("mysql_port", "a TCP port", 3306, 1..=u16::MAX);
        let user = self.required("mysql_user", "the MySQL login", |v| Some(v.to_owned()));
        let name = self.required(
            "mysql_db",
            "the schema of the control tables, at most 64 characters",
            |v| v.parse::<SchemaName>().ok(),
        );
        let password = self.secret("mysql_pw").unwrap_or_default();
        let additional = self.text("mysql_additional").unwrap_or_default();
        let (host, user, name) = (host?, user?, name?);
        Some(DatabaseConfig::Mysql { host, port, user, password, name, additional })
    }

    pub fn missing(&mut self, key: &'static str, expected: &str) {
        let file = self.raw.file();
        let what = format!(
            "`{key}` is not set, expected {expected}: write `{key} = ...` there, or set {}",
            env_name(key)
        );
        self.problems.push(Problem { key: Some(key), ..Problem::new(file, what) });
    }

    /// A file that a key names is not what it should be.
    pub fn wrong_file(&mut self, key: &'static str, file: &Path, what: String) {
        let what = format!("`{key}`: {what}");
        self.problems.push(Problem { key: Some(key), ..Problem::new(file, what) });
    }

    pub fn malformed(&mut self, key: &'static str, expected: &str) {
        let Some((value, origin)) = self.raw.get(key) else {
            return self.missing(key, expected);
        };
        let shown = match keys::find(key) {
            // A URL may carry a password in front of its `@`.
            Some(key) if !key.secret && !value.contains('@') => {
                let short: String = value.chars().take(80).collect();
                format!("is {short:?}")
            }
            _ => "is malformed (not shown)".to_owned(),
        };
        let what = format!("`{key}` {shown}, expected {expected}: correct it");
        let problem = match origin {
            Origin::Line(line) => Problem::at_line(self.raw.file(), *line, what),
            Origin::Env(name) => Problem::new(Path::new(&format!("environment, {name}")), what),
        };
        self.problems.push(Problem { key: Some(key), ..problem });
    }
}

/// One word of printable ASCII: fit for an HTTP header or a host name.
pub(super) fn word(value: &str) -> Option<String> {
    value.bytes().all(|b| b.is_ascii_graphic()).then(|| value.to_owned())
}

fn name(value: &str) -> Option<String> {
    let fit = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let good = value.bytes().all(fit) && !matches!(value, "." | "..");
    good.then(|| value.to_owned())
}

/// Without the slash at its end, so that paths can be appended.
fn http_url(value: &str) -> Option<String> {
    let url = word(value)?;
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"))?;
    let host = rest.split('/').next()?;
    let good = !host.is_empty() && !host.starts_with(':') && !rest.contains(['?', '#', '@', '\\']);
    good.then(|| url.trim_end_matches('/').to_owned())
}

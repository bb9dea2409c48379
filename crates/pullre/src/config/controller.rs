use std::path::PathBuf;
use std::time::Duration;

use jiff::tz::TimeZone;
use tracing::Level;

use super::console::{self, ConsoleConfig};
use super::reader::{ConfigErrors, Reader, word};
use super::report::{GithubLogin, ReportConfig};
use super::{CloneConfig, DatabaseConfig, RawConfig, Secret};
use crate::admission::Admission;
use crate::schema_clone::mask::Dialect;

/// Where the staging servers run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ComputeKind {
    /// Slots of this machine.
    Local,
    Ec2,
}

/// What the controller needs of app.ini.
#[derive(Debug, Clone)]
pub struct ControllerConfig {
    pub owner: String,
    pub repo: String,
    pub login: GithubLogin,
    /// Without a slash at its end.
    pub github_api_url: String,
    /// `https://` or `http://`.
    pub protocol: String,
    pub domain: Option<String>,
    pub database: DatabaseConfig,
    pub compute: ComputeKind,
    pub aws_region: String,
    pub aws_endpoint_url: Option<String>,
    /// Both keys or none; with none the SDK looks for credentials itself.
    pub aws_access_key_id: Option<Secret>,
    pub aws_secret_key: Option<Secret>,
    pub state_dir: PathBuf,
    /// How many days history and logs are kept.
    pub keep_days: u32,
    /// How long an instance may take to come up.
    pub start_timeout: Duration,
    /// How long a staging client may stay silent.
    pub agent_timeout: Duration,
    pub clone: CloneConfig,
    /// How long an environment that is not eligible any more keeps its server.
    pub grace: Duration,
    /// Which pull requests may have an environment.
    pub admission: Admission,
    pub report: ReportConfig,
    /// A plan that stops or clones over more environments than this is refused.
    pub max_changes: u32,
    /// 0: one tick per run. Else the seconds between two ticks.
    pub poll_seconds: u32,
    /// In which `auto_start_at` and `auto_stop_at` are told; None counts as UTC.
    pub auto_timezone: Option<TimeZone>,
    pub logging_level: Level,
    pub console: ConsoleConfig,
    /// Every secret that is set: what is told to others is searched for them.
    pub secrets: Vec<Secret>,
}

const DAY: u64 = 24 * 60 * 60;

impl ControllerConfig {
    /// Fails with every key that is missing or malformed.
    pub fn from_raw(raw: &RawConfig) -> Result<Self, ConfigErrors> {
        let mut r = Reader::new(raw);
        let (owner, repo) = r.repository();
        let login = r.github_login();
        let database = r.database();
        let default = match database {
            Some(DatabaseConfig::Mysql { .. }) => ComputeKind::Ec2,
            _ => ComputeKind::Local,
        };
        let compute = r.parsed("compute", "`ec2` or `local`", |value| match value {
            "ec2" => Some(ComputeKind::Ec2),
            "local" => Some(ComputeKind::Local),
            _ => None,
        });
        let aws_access_key_id = r.secret("AWS_ACCESS_KEY_ID");
        let aws_secret_key = r.secret("AWS_SECRET_KEY");
        match (&aws_access_key_id, &aws_secret_key) {
            (Some(_), None) => r.missing("AWS_SECRET_KEY", "the secret of AWS_ACCESS_KEY_ID"),
            (None, Some(_)) => r.missing("AWS_ACCESS_KEY_ID", "the id of AWS_SECRET_KEY"),
            _ => {}
        }
        let protocol = r.parsed("protocol", "`https://` or `http://`", |value| {
            match value.trim_end_matches("://") {
                "https" => Some("https://".to_owned()),
                "http" => Some("http://".to_owned()),
                _ => None,
            }
        });
        let region = r.parsed("aws_region", "an AWS region like ap-northeast-1", |value| {
            let fit = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
            value.bytes().all(fit).then(|| value.to_owned())
        });
        let github_api_url = r.http_url("github_api_url");
        let aws_endpoint_url = r.http_url("aws_endpoint_url");
        let domain = r.parsed("domain", "a host name, with a port if need be", |value| {
            word(value).filter(|v| !v.contains('/'))
        });
        let state_dir = r.state_dir();
        let keep_days = r.keep_days();
        let start_timeout = r.seconds("start_timeout", 600, 1..=DAY);
        let agent_timeout = r.seconds("agent_timeout", 600, 1..=DAY);
        let dialect = match database {
            Some(DatabaseConfig::Sqlite { .. }) => Dialect::Sqlite,
            Some(DatabaseConfig::Mysql { .. }) | None => Dialect::Mysql,
        };
        let clone = CloneConfig::read(&mut r, dialect);
        let grace = r.seconds("grace", 3600, 1..=30 * DAY);
        let admission = r.admission();
        let report = r.report();
        let max_changes = r.number("max_changes", "environments", 10, 1..=10_000);
        let poll_seconds = r.poll_seconds();
        let auto_timezone = r.parsed(
            "auto_timezone",
            "a time zone by its IANA name, like Asia/Tokyo or UTC",
            |value| TimeZone::get(value).ok(),
        );
        let logging_level = r.logging_level();
        let console = console::read(&mut r);

        let required = match (owner, repo, login, database) {
            (Some(owner), Some(repo), Some(login), Some(database)) => {
                Some((owner, repo, login, database))
            }
            _ => None,
        };
        let (owner, repo, login, database) = r.finish(required)?;
        Ok(ControllerConfig {
            owner,
            repo,
            login,
            github_api_url: github_api_url.unwrap_or_else(|| "https://api.github.com".into()),
            protocol: protocol.unwrap_or_else(|| "https://".into()),
            domain,
            database,
            compute: compute.unwrap_or(default),
            aws_region: region.unwrap_or_else(|| "ap-northeast-1".into()),
            aws_endpoint_url,
            aws_access_key_id,
            aws_secret_key,
            state_dir,
            keep_days,
            start_timeout,
            agent_timeout,
            clone,
            grace,
            admission,
            report,
            max_changes,
            poll_seconds,
            auto_timezone,
            logging_level,
            console,
            secrets: raw.secrets(),
        })
    }
}

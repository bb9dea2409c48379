use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::Level;

use super::app::controllers_secrets;
use super::reader::{ConfigErrors, Reader};
use super::{AppConfig, DatabaseConfig, GitConfig, RawConfig, Secret};
use crate::domain::Invalid;

const PLACEHOLDER: &str = "{server}";

/// The work tree of the app: one path, or with `{server}` in it one for each server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetDir(PathBuf);

impl TargetDir {
    /// `path` is absolute. None when it holds braces other than `{server}`: a mistyped
    /// placeholder would give all servers one folder.
    pub fn new(path: PathBuf) -> Option<TargetDir> {
        let other = path.to_str()?.replace(PLACEHOLDER, "");
        (!other.contains(['{', '}'])).then_some(TargetDir(path))
    }

    /// As written, with its `{server}`.
    pub fn template(&self) -> &Path {
        &self.0
    }

    /// Whether each server has its own folder.
    pub fn is_per_server(&self) -> bool {
        self.0.to_string_lossy().contains(PLACEHOLDER)
    }

    /// The folder of the server called `name`. A name that would lead elsewhere is refused.
    pub fn for_server(&self, name: &str) -> Result<PathBuf, Invalid> {
        if !self.is_per_server() {
            return Ok(self.0.clone());
        }
        if matches!(name, "" | "." | "..") || name.contains(['/', '\0']) {
            return Err(Invalid::new(
                name,
                "a server name that can name a folder (target_dir has {server} in it): not empty, \
                 no slash, not `.` or `..`",
            ));
        }
        Ok(self.0.to_string_lossy().replace(PLACEHOLDER, name).into())
    }
}

/// What a staging server needs of app.ini.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// app.ini itself.
    pub file: PathBuf,
    /// Keys of the controller that hold a secret here.
    pub controllers_secrets: Vec<&'static str>,
    pub app: AppConfig,
    pub git: GitConfig,
    pub target_dir: TargetDir,
    /// What the work tree's remote must be.
    pub owner: String,
    pub repo: String,
    /// Where to clone from while there is no work tree yet.
    pub git_url: Option<String>,
    pub migrate_command: Option<String>,
    pub exec_command: String,
    pub stop_command: Option<String>,
    pub exec_command_grep: Option<String>,
    pub check_timeout: Duration,
    pub step_timeout: Duration,
    pub stop_timeout: Duration,
    /// 0: one look per run. Else the seconds between two looks.
    pub poll_seconds: u32,
    pub instance_id: Option<String>,
    /// How many days logs are kept.
    pub keep_days: u32,
    pub state_dir: PathBuf,
    pub database: DatabaseConfig,
    pub logging_level: Level,
    secrets: Vec<Secret>,
}

impl ClientConfig {
    /// Fails with every key that is missing or malformed.
    pub fn from_raw(raw: &RawConfig) -> Result<Self, ConfigErrors> {
        let mut r = Reader::new(raw);
        const WORK_TREE: &str = "the path of the app's git work tree; `{server}` in it stands for \
             the server's name, other braces may not be in it";
        let target_dir = match r.text("target_dir") {
            None => {
                r.missing("target_dir", WORK_TREE);
                None
            }
            Some(_) => r.path("target_dir").and_then(|path| {
                let dir = TargetDir::new(path);
                if dir.is_none() {
                    r.malformed("target_dir", WORK_TREE);
                }
                dir
            }),
        };
        let (owner, repo) = r.repository();
        let exec_command =
            r.required("exec_command", "the shell command that starts the app", |v| {
                Some(v.to_owned())
            });
        const GIT_URL: &str = "a URL or path that git can clone, without a password in it (git's \
             credential helper keeps those)";
        let git_url = r.parsed("git_url", GIT_URL, |value| {
            // Git would read a leading dash as an option, and print a password in its errors.
            let login = value.split_once("://").and_then(|(_, rest)| rest.split_once('@'));
            let password =
                login.is_some_and(|(login, _)| login.contains(':') && !login.contains('/'));
            (!value.starts_with('-') && !password).then(|| value.to_owned())
        });
        let check_timeout = r.seconds("check_timeout", 60, 1..=3600);
        let step_timeout = r.seconds("step_timeout", 900, 1..=86_400);
        let stop_timeout = r.seconds("stop_timeout", 10, 1..=600);
        let poll_seconds = r.poll_seconds();
        let keep_days = r.keep_days();
        let state_dir = r.state_dir();
        let logging_level = r.logging_level();
        let migrate_command = r.text("migrate_command");
        let stop_command = r.text("stop_command");
        let exec_command_grep = r.text("exec_command_grep");
        let instance_id = r.text("instance_id");
        let database = r.database();
        let (app, git) = (AppConfig::read(&mut r), GitConfig::read(&mut r));
        let secrets = raw.secrets();

        let required = match (target_dir, owner, repo, exec_command, database) {
            (Some(dir), Some(owner), Some(repo), Some(exec), Some(database)) => {
                Some((dir, owner, repo, exec, database))
            }
            _ => None,
        };
        let (target_dir, owner, repo, exec_command, database) = r.finish(required)?;
        Ok(ClientConfig {
            file: raw.file().to_owned(),
            controllers_secrets: controllers_secrets(raw),
            app,
            git,
            target_dir,
            owner,
            repo,
            git_url,
            migrate_command,
            exec_command,
            stop_command,
            exec_command_grep,
            check_timeout,
            step_timeout,
            stop_timeout,
            poll_seconds,
            instance_id,
            keep_days,
            state_dir,
            database,
            logging_level,
            secrets,
        })
    }

    /// Every secret that is set, for masking what the app's commands print; longest first.
    pub fn secrets(&self) -> Vec<&str> {
        self.secrets.iter().map(Secret::expose).collect()
    }
}

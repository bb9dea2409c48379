//! One server as its client works on it: its duty, its folders, what its commands are told.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use pullre::config::{ClientConfig, DatabaseConfig, SHORTEST_MASKED};
use pullre::domain::{PullNumber, SchemaName, Sha};
use pullre::schema_clone::sqlite;
use pullre::store::{Duty, Task};
use pullre::words;
use pullre_http::probe::Prober;

use crate::apart::Look;
use crate::app::AppRecord;
use crate::command::{Limits, without_secrets};
use crate::groups::{self, Group};
use crate::processes::{MARK, Mark, ProcessId, STEP, Sign, Trace};
use crate::state_dir::{Log, StateDir, masked};
use crate::user::AppUser;

#[derive(Debug)]
pub struct Site<'a> {
    pub config: &'a ClientConfig,
    pub state: &'a StateDir,
    pub prober: &'a Prober,
    pub secrets: &'a [&'a str],
    pub user: &'a Result<Option<AppUser>, String>,
    pub duty: Duty,
}

/// What a command works for.
#[derive(Debug, Clone, Copy)]
pub struct Work<'a> {
    pub deployment: i64,
    pub pull: PullNumber,
    pub sha: &'a Sha,
    pub head_ref: &'a str,
}

impl<'a> From<&'a Task> for Work<'a> {
    fn from(task: &'a Task) -> Work<'a> {
        let Task { deployment, head_ref } = task;
        let (pull, sha) = (deployment.pull, &deployment.sha);
        Work { deployment: deployment.id, pull, sha, head_ref }
    }
}

impl<'a> From<&'a AppRecord> for Work<'a> {
    fn from(app: &'a AppRecord) -> Work<'a> {
        let AppRecord { deployment, pull, sha, head_ref, .. } = app;
        Work { deployment: *deployment, pull: *pull, sha, head_ref }
    }
}

impl Site<'_> {
    pub fn target(&self) -> Result<PathBuf> {
        Ok(self.config.target_dir.for_server(&self.duty.name)?)
    }

    fn mark(&self) -> String {
        self.state.mark(self.duty.server)
    }

    pub fn sign(&self) -> Sign {
        Sign { mark: self.mark(), groups: self.state.groups(self.duty.server) }
    }

    /// Who runs git and the app's commands; None: whoever runs this program.
    pub fn user(&self) -> Result<Option<&AppUser>> {
        self.user.as_ref().map(Option::as_ref).map_err(|why| anyhow!("{why}"))
    }

    /// How files are looked at that strangers may have changed.
    pub fn eyes(&self) -> Result<Look> {
        Ok(Look::new(self.user()?, self.config.step_timeout))
    }

    /// What stands in front of a command that runs strangers' code. It leads a session of its own:
    /// it has no terminal, into which it could type for the person who runs this program, and the
    /// end of neither ends it. Where a group can be made it is in one, and it is its user's.
    pub fn enclosed(&self, mark: Mark) -> Result<(Vec<String>, Option<Group>)> {
        let user = self.user()?;
        let group = self.state.make_group(self.duty.server, mark)?;
        let mut words = vec!["setsid".to_owned()];
        if let Some(group) = &group {
            // Before anything of theirs runs. Where it fails the marks still tell.
            words.extend(
                ["sh", "-c", "{ echo 0 >\"$0\"; } 2>/dev/null; exec \"$@\""].map(Into::into),
            );
            words.push(group.entrance().display().to_string());
        }
        words.extend(user.map(AppUser::words).unwrap_or_default());
        Ok((words, group))
    }

    /// `sh -c TEXT` as one of the app's commands, with its environment.
    pub fn shell(
        &self,
        text: &str,
        work: Option<Work<'_>>,
        step: Option<&str>,
    ) -> Result<(Command, Option<Group>)> {
        let deployment = work.map_or(0, |work| work.deployment);
        let (mut words, group) = self.enclosed(Mark { deployment, step: step.is_some() })?;
        words.extend(["sh", "-c", text].map(Into::into));
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        self.tell(&mut command, work, deployment, step);
        Ok((command, group))
    }

    /// Says where a group is not what it was made for. A kernel that refuses the entrance is met
    /// on machines with odd set-ups only, and nobody would look for it.
    pub fn watch_entrance(&self, group: Option<Group>, pid: u32) {
        let Some((group, pid)) = group.zip(i32::try_from(pid).ok()) else { return };
        let began = Instant::now();
        while !group.holds(pid) {
            if ProcessId::of(pid.unsigned_abs()).is_none_or(|id| !id.is_alive()) {
                return;
            }
            if began.elapsed() > Duration::from_secs(10) {
                let name = &self.duty.name;
                tracing::warn!(
                    server = name,
                    "{name}: the app could not enter {}: {}",
                    group.entrance().display(),
                    groups::WITHOUT
                );
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub fn trace(&self, record: Option<&AppRecord>) -> Trace {
        Trace {
            sign: self.sign(),
            leader: record.and_then(|record| record.leader),
            seen: record.map(|record| record.seen.clone()).unwrap_or_default(),
            pattern: self.config.exec_command_grep.clone(),
        }
    }

    /// Gives a command the environment of this server: with a step's name, or as the app.
    pub fn tell(
        &self,
        command: &mut Command,
        work: Option<Work<'_>>,
        deployment: i64,
        step: Option<&str>,
    ) {
        without_secrets(command, self.secrets);
        if let Ok(Some(user)) = self.user {
            user.tell(command);
        }
        let mut set = |name: &str, value: &dyn AsRef<OsStr>| {
            // No environment can hold a zero byte, and text of strangers might.
            let bytes: Vec<u8> =
                value.as_ref().as_bytes().iter().copied().filter(|byte| *byte != 0).collect();
            command.env(name, OsStr::from_bytes(&bytes));
        };
        let duty = &self.duty;
        set("PULLRE_SERVER", &duty.name);
        set("PULLRE_DB_SCHEMA", &duty.schema);
        if let DatabaseConfig::Sqlite { schema_dir, .. } = &self.config.database
            && let Ok(schema) = duty.schema.parse::<SchemaName>()
        {
            set("PULLRE_DB_FILE", &sqlite::path(schema_dir, &schema));
        }
        let url = duty.check_url.as_deref().unwrap_or_default();
        set("PULLRE_CHECK_URL", &url);
        if let Some(port) = self.config.app.port.or_else(|| explicit_port(url)) {
            set("PORT", &port.to_string());
        }
        if let Some(work) = work {
            set("PULLRE_PR", &work.pull.0.to_string());
            set("PULLRE_SHA", &work.sha.as_str());
            set("PULLRE_REF", &work.head_ref);
        }
        set(MARK, &format!("{}{deployment}", self.mark()));
        if let Some(step) = step {
            set(STEP, &step);
        }
    }

    pub fn limits<'s>(
        &'s self,
        log: &'s Log,
        timeout: Duration,
        sign: &'s Sign,
        deployment: i64,
    ) -> Limits<'s> {
        Limits { log, timeout, secrets: self.hidden(), sign, deployment, watched: None }
    }

    fn hidden(&self) -> Vec<&str> {
        hidden(self.secrets, self.duty.check_url.as_deref())
    }

    /// Output fit to be kept.
    pub fn masked(&self, bytes: &[u8]) -> String {
        masked(bytes, &self.hidden())
    }
}

/// What no output may show: our secrets, and what `check_url` lets in with. Longest first, so that
/// none leaves the rest of another.
pub fn hidden<'a>(secrets: &[&'a str], check_url: Option<&'a str>) -> Vec<&'a str> {
    let mut all = secrets.to_vec();
    let long = |secret: &&str| secret.chars().count() >= SHORTEST_MASKED;
    all.extend(check_url.into_iter().flat_map(words::secrets_of).filter(long));
    all.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    all
}

/// The port that a URL names. A URL library would not tell a port that is its scheme's default.
pub fn explicit_port(url: &str) -> Option<u16> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    // The colons inside the brackets of an IPv6 address are no port's.
    let after = host.rsplit_once(']').map_or(host, |(_, after)| after);
    after.rsplit_once(':')?.1.parse().ok().filter(|port| *port > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_check_url_lets_in_with_is_hidden() {
        let of = |url| hidden(&["a secret of ours"], Some(url)).join(", ");
        assert_eq!(of("http://tester:hunter2@h/"), "a secret of ours, tester:hunter2, hunter2");
        assert_eq!(of("http://TOKEN@h/"), "a secret of ours, TOKEN");
        assert_eq!(of("http://u@h/"), "a secret of ours");
    }

    #[test]
    fn a_port_is_read_where_the_url_names_one() {
        for (url, port) in [
            ("http://localhost:8080/health", Some(8080)),
            ("http://host:80", Some(80)),
            ("https://u:pw@host:444?x=1:2", Some(444)),
            ("http://[::1]:9000/", Some(9000)),
            ("http://[::1]/", None),
            ("https://host/a:1", None),
            ("http://u:99@host/", None),
            ("", None),
        ] {
            assert_eq!(explicit_port(url), port, "{url}");
        }
    }
}

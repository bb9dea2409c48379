//! Who runs the app's commands and git: `exec_user`, or whoever runs this program.

use std::env;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, anyhow, bail};
use nix::unistd::{User, geteuid};

/// Another user than the one who runs this program.
#[derive(Debug, Clone)]
pub struct AppUser(User);

impl AppUser {
    /// None where it is the one who runs this program.
    pub fn find(name: Option<&str>) -> Result<Option<AppUser>> {
        let Some(name) = name else { return Ok(None) };
        let user = User::from_name(name)
            .map_err(|e| anyhow!("exec_user {name} cannot be looked up: {e}"))?
            .ok_or_else(|| {
                anyhow!("exec_user {name} is no user of this machine: `useradd` it, or correct it")
            })?;
        if user.uid == geteuid() {
            return Ok(None);
        }
        if !geteuid().is_root() {
            bail!(
                "exec_user {name} needs a staging-client that runs as root: run it from root's \
                 crontab, or as {name} itself and without exec_user"
            );
        }
        Ok(Some(AppUser(user)))
    }

    /// Begins this program anew with the user's HOME, where libgit2 looks for settings: with the
    /// user's rights it could not look into ours. It is the same process, only its words are new.
    pub fn come_home(&self) -> Result<()> {
        const MORE: &str = "XDG_CONFIG_HOME";
        let home = env::var_os("HOME").is_some_and(|home| home == self.home().as_os_str());
        if home && env::var_os(MORE).is_none() {
            return Ok(());
        }
        let mut again = Command::new(env::current_exe()?);
        let error =
            again.args(env::args_os().skip(1)).env("HOME", self.home()).env_remove(MORE).exec();
        bail!("staging-client cannot begin anew for exec_user {}: {error}", self.name())
    }

    pub fn name(&self) -> &str {
        &self.0.name
    }

    pub fn home(&self) -> &Path {
        &self.0.dir
    }

    pub fn uid(&self) -> u32 {
        self.0.uid.as_raw()
    }

    pub fn gid(&self) -> u32 {
        self.0.gid.as_raw()
    }

    /// What stands in front of a command to make it this user's, with all groups of theirs.
    pub fn words(&self) -> Vec<String> {
        let (uid, gid) = (format!("--reuid={}", self.0.uid), format!("--regid={}", self.0.gid));
        vec!["setpriv".into(), uid, gid, "--init-groups".into(), "--".into()]
    }

    /// The environment of a command of theirs: nothing that leads to ours.
    pub fn tell(&self, command: &mut Command) {
        command.env("HOME", &self.0.dir).env("USER", &self.0.name).env("LOGNAME", &self.0.name);
        command.env("SHELL", &self.0.shell);
        for name in ["MAIL", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR", "SSH_AUTH_SOCK"] {
            command.env_remove(name);
        }
        for name in ["SUDO_COMMAND", "SUDO_GID", "SUDO_UID", "SUDO_USER"] {
            command.env_remove(name);
        }
    }
}

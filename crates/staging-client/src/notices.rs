//! What somebody should mend on this machine, though everything works.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use pullre::config::{ClientConfig, DatabaseConfig};
use pullre::facts::Pulse;

/// Each a sentence, the same as long as nothing changes.
pub fn notices(config: &ClientConfig, pulse: Option<&Pulse>) -> Vec<String> {
    let mut notices = Vec::new();
    let file = config.file.display();
    let open =
        fs::metadata(&config.file).is_ok_and(|found| found.permissions().mode() & 0o077 != 0);
    if open {
        notices
            .push(format!("app.ini can be read by other users of this machine: chmod 600 {file}"));
    }
    // On a single machine it is the controller's file too. What would keep code of pull requests
    // from it, another user, cannot write the databases there.
    let is_shared = matches!(config.database, DatabaseConfig::Sqlite { .. });
    let is_safe = is_shared && config.app.user.is_some() && !open;
    if !config.controllers_secrets.is_empty() && !is_safe {
        let names = config.controllers_secrets.join(", ");
        let remedy = match is_shared {
            true => {
                "code of pull requests runs as a user who can read them, so serve only people whom \
                 you trust with them, or use MySQL and a machine or an `exec_user` of its own for it"
            }
            false => "take them out, a staging server does not need them",
        };
        notices.push(format!("app.ini holds secrets of the controller ({names}): {remedy}"));
    }
    if pulse.is_some_and(Pulse::is_disk_low) {
        notices.push(
            "the disk is nearly full: free some space before deployments fail (`staging-client \
             doctor` says how much is free)"
                .to_owned(),
        );
    }
    notices
}

//! Every key that app.ini may hold.

/// A key of app.ini.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    pub name: &'static str,
    /// Its value must never be shown.
    pub secret: bool,
    /// Something reads it. The others are accepted, since an installation that moves over has
    /// them, and app.ini.default says of each that it is not used yet.
    pub used: bool,
}

const fn used(name: &'static str) -> Key {
    Key { name, secret: false, used: true }
}
const fn secret(name: &'static str) -> Key {
    Key { name, secret: true, used: true }
}
const fn unused(key: Key) -> Key {
    Key { used: false, ..key }
}

/// In the order of app.ini.default.
pub static KEYS: &[Key] = &[
    used("owner"),
    used("repo"),
    secret("token"),
    used("target_dir"),
    used("exec_command"),
    used("migrate_command"),
    used("stop_command"),
    used("exec_command_grep"),
    used("git_url"),
    used("git_depth"),
    used("git_submodules"),
    used("exec_user"),
    used("app_port"),
    used("check_body"),
    used("instance_id"),
    used("database"),
    used("sqlite_path"),
    used("schema_dir"),
    used("mysql_host"),
    used("mysql_port"),
    used("mysql_user"),
    secret("mysql_pw"),
    used("mysql_db"),
    used("mysql_additional"),
    used("compute"),
    used("aws_region"),
    used("aws_endpoint_url"),
    secret("AWS_ACCESS_KEY_ID"),
    secret("AWS_SECRET_KEY"),
    used("protocol"),
    used("domain"),
    used("github_api_url"),
    used("logging_level"),
    used("base_dir"),
    used("state_dir"),
    used("keep_days"),
    used("max_changes"),
    used("start_timeout"),
    used("agent_timeout"),
    used("clone_timeout"),
    used("clone_workers"),
    used("clone_max_bytes"),
    used("clone_max_running"),
    used("keep_previous"),
    used("mask_file"),
    used("swap_busy"),
    used("auto_timezone"),
    used("grace"),
    used("check_timeout"),
    used("step_timeout"),
    used("stop_timeout"),
    used("poll_seconds"),
    used("report"),
    used("check_name"),
    used("comment"),
    used("deployments"),
    used("github_app_id"),
    used("github_app_installation_id"),
    used("github_private_key"),
    used("only_labels"),
    used("skip_labels"),
    used("skip_drafts"),
    used("base_branches"),
    used("skip_authors"),
    used("forks"),
    used("listen"),
    used("trusted_proxies"),
    used("basic_user"),
    secret("basic_password"),
    secret("app_secret_key"),
    secret("webhook_secret"),
    used("tick_seconds"),
    used("alerts"),
    secret("google_chat_url"),
    secret("slack_url"),
    unused(used("sha_url")),
    unused(used("github_pr_column")),
    unused(used("github_pr_suffix")),
    unused(used("next_release_notify_title")),
];

/// The environment variable that sets `key`, and wins over the file.
pub fn env_name(key: &str) -> String {
    format!("PULLRE_{}", key.to_uppercase())
}

pub(super) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// The known key that `name` is most like; case does not count.
pub(super) fn nearest(name: &str) -> &'static str {
    let name = name.to_lowercase();
    let likeness =
        |key: &Key| strsim::normalized_damerau_levenshtein(&name, &key.name.to_lowercase());
    KEYS.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b))).map_or("", |key| key.name)
}

//! `doctor`: tries everything that a deployment needs here, and says what is missing.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use pullre::config::{ClientConfig, DatabaseConfig};
use pullre::doctor::{Line, Mark};
use pullre::store::{Duty, Store};
use pullre::words;
use pullre_http::metadata;
use pullre_http::probe::{self, Prober, without_credentials};

use crate::checkout;
use crate::git::{has_lfs, is_installed};
use crate::groups;
use crate::identity::{self, Identity};
use crate::measure::measure;
use crate::notices::notices;
use crate::processes::Mark as ProcessMark;
use crate::pulse::Pulse;
use crate::site::Site;
use crate::state_dir::StateDir;
use crate::tick::{Failed, NO_SERVER, say};
use crate::user::AppUser;

/// Prints each line as it is found: some questions take a while.
#[derive(Default)]
struct Report {
    missing: usize,
}

impl Report {
    fn add(&mut self, mark: Mark, what: &str, text: impl Into<String>) {
        self.missing += usize::from(mark == Mark::Missing);
        say(&Line::new(mark, what, text).to_string());
    }

    fn ok(&mut self, what: &str, text: impl Into<String>) {
        self.add(Mark::Ok, what, text);
    }

    fn missing(&mut self, what: &str, why: &anyhow::Error) {
        self.add(Mark::Missing, what, format!("{why:#}"));
    }
}

pub fn run(config: &ClientConfig, server: Option<&str>) -> Result<Failed> {
    let mut report = Report::default();
    examine(config, server, &mut report);
    match report.missing {
        0 => Ok(Failed(false)),
        1 => anyhow::bail!("1 thing is missing"),
        n => anyhow::bail!("{n} things are missing"),
    }
}

fn examine(config: &ClientConfig, server: Option<&str>, report: &mut Report) {
    report.ok("app.ini", format!("{} is complete", config.file.display()));
    programs(config, report);
    let user = AppUser::find(config.app.user.as_deref());
    match &user {
        Ok(None) => report.ok("exec_user", "commands run as whoever runs staging-client"),
        Ok(Some(user)) => readable_by(user, config, report),
        Err(e) => report.missing("exec_user", e),
    }
    let state = match StateDir::open(&config.state_dir) {
        Ok(state) => state,
        Err(e) => return report.missing("state_dir", &e),
    };
    report.ok("state_dir", format!("{} can be written", state.root().display()));
    disk(config, &state, report);
    for notice in notices(config, None) {
        report.add(Mark::Warn, "secrets", notice);
    }
    role(report);
    let Some(mut store) = database(config, report) else { return };
    let duties = match Identity::find(config, server).duties(&mut store) {
        Ok(duties) => duties,
        Err(e) => return report.missing("identity", &e),
    };
    if duties.is_empty() {
        return report.add(Mark::Missing, "identity", NO_SERVER);
    }
    let user = user.map_err(|e| e.to_string());
    let (prober, secrets) = (Prober::new(), config.secrets());
    for duty in duties {
        let instance = duty.instance.as_ref().map_or("no instance".into(), ToString::to_string);
        report.ok("identity", format!("this is {} ({instance})", duty.name));
        let (state, prober, secrets, user) = (&state, &prober, &secrets, &user);
        let site = Site { config, state, prober, secrets, user, duty };
        of_server(&site, &mut store, report);
    }
}

fn programs(config: &ClientConfig, report: &mut Report) {
    let more = config.app.user.as_ref().map(|_| "setpriv");
    let needed = ["sh", "git", "setsid", "rm", "mv", "mkdir", "find"];
    let lacking: Vec<_> =
        needed.into_iter().chain(more).filter(|program| !is_installed(program)).collect();
    match lacking.is_empty() {
        true => report.ok("programs", "git and util-linux are there"),
        false => report.add(
            Mark::Missing,
            "programs",
            format!(
                "not installed: {} (git, util-linux, coreutils, findutils)",
                lacking.join(", ")
            ),
        ),
    }
    if !has_lfs() {
        let text = "git-lfs is not installed: files that a repository keeps in LFS are pointers";
        report.ok("git-lfs", text);
    }
}

/// Whether `exec_user` can read what is not for the code of pull requests.
fn readable_by(user: &AppUser, config: &ClientConfig, report: &mut Report) {
    let can = |test: &str, path: &Path| -> Result<bool> {
        let words = user.words();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).args(["test", test]).arg(path);
        let status = command.stdin(Stdio::null()).stderr(Stdio::null()).status();
        Ok(status.context("running setpriv")?.code() == Some(0))
    };
    let name = user.name();
    for (test, path) in [("-r", config.file.as_path()), ("-x", config.state_dir.as_path())] {
        let shown = path.display();
        match can(test, path) {
            Ok(false) => {}
            Ok(true) => {
                return report.add(
                    Mark::Missing,
                    "exec_user",
                    format!("{name} can read {shown}, and so can the code of pull requests: chmod go= {shown}"),
                );
            }
            Err(e) => return report.missing("exec_user", &e),
        }
    }
    if let DatabaseConfig::Sqlite { schema_dir, .. } = &config.database
        && can("-w", schema_dir).is_ok_and(|may| !may)
    {
        let text = format!(
            "{name} cannot write {}, where the app's databases are: with SQLite the app must run \
             as the user who runs the controller",
            schema_dir.display()
        );
        return report.add(Mark::Missing, "exec_user", text);
    }
    report
        .ok("exec_user", format!("commands run as {name}, who can read neither app.ini nor state"));
}

fn disk(config: &ClientConfig, state: &StateDir, report: &mut Report) {
    match measure(&[config.target_dir.template(), state.root()]) {
        Ok(pulse) => {
            let (free, total) = (words::bytes(pulse.free_bytes), words::bytes(pulse.total_bytes));
            let mark = if pulse.is_disk_low() { Mark::Warn } else { Mark::Ok };
            report.add(mark, "disk", format!("{free} of {total} are free"));
        }
        Err(e) => report.missing("disk", &e),
    }
}

/// Whoever may run code on an instance with a role may do what the role may.
fn role(report: &mut Report) {
    let Ok(endpoint) = identity::metadata_endpoint() else { return };
    // No answer: no instance, or one that tells nobody.
    if let Ok(Some(role)) = metadata::role(&endpoint) {
        report.add(
            Mark::Warn,
            "role",
            format!(
                "this instance has the role {role}: code of pull requests can do what it may; take \
                 it away, a staging server needs none"
            ),
        );
    }
}

fn database(config: &ClientConfig, report: &mut Report) -> Option<Store> {
    const WHAT: &str = "database";
    let tried = || -> Result<(Store, Vec<String>)> {
        let mut store = identity::database(config)?.open()?;
        store.require_tables()?;
        let missing = store.missing_client_rights()?;
        Ok((store, missing))
    };
    let (mut store, missing) = match tried() {
        Ok(tried) => tried,
        Err(e) => {
            report.missing(WHAT, &e);
            return None;
        }
    };
    if !missing.is_empty() {
        for why in missing {
            report.add(
                Mark::Missing,
                WHAT,
                format!("{why}: `update-pull grants` prints the rights"),
            );
        }
        return None;
    }
    report.ok(WHAT, "the login may do all that a staging client does");
    if let DatabaseConfig::Mysql { user, .. } = &config.database {
        let needless = store.needless_client_rights();
        if !needless.is_empty() {
            let text = format!(
                "the login {user} may also {}: give staging servers one of their own, as \
                 `update-pull grants` prints it",
                needless.join(", ")
            );
            report.add(Mark::Warn, WHAT, text);
        }
    }
    Some(store)
}

fn of_server(site: &Site<'_>, store: &mut Store, report: &mut Report) {
    let Duty { server, check_url, .. } = &site.duty;
    match checkout::inspect(site) {
        Ok(Some(tree)) => {
            report.ok("target_dir", format!("{} is a work tree", tree.path.display()))
        }
        Ok(None) if site.config.git_url.is_some() => {
            report.ok("target_dir", "is not there yet and is made from git_url");
        }
        Ok(None) => report.add(
            Mark::Missing,
            "target_dir",
            "is missing or empty: clone the repository to it, or set `git_url`",
        ),
        Err(e) => report.missing("target_dir", &e),
    }
    match checkout::ask_remote(site, &mut Pulse::new(store, *server)) {
        Ok(remote) => report.ok("remote", format!("{} answers", without_credentials(&remote))),
        Err(e) => report.missing("remote", &e),
    }
    group(site, report);
    match check_url.as_deref().map(|url| (url, probe::resolve(url))) {
        None => report.add(
            Mark::Warn,
            "check_url",
            format!(
                "nothing proves that the app answers: `update-pull server set {} check_url=URL`",
                site.duty.name
            ),
        ),
        Some((url, Ok(()))) => report.ok("check_url", without_credentials(url)),
        Some((_, Err(e))) => report.add(Mark::Missing, "check_url", e.to_string()),
    }
    if let Some(holds) = site.duty.holds.iter().find(|hold| hold.holds_at(jiff::Timestamp::now())) {
        report.add(Mark::Warn, "held", holds.to_string());
    }
}

/// By trial: a folder that can be made need not be one that a process may enter.
fn group(site: &Site<'_>, report: &mut Report) {
    const WHAT: &str = "cgroup";
    let otherwise = format!(
        "{}; staging-client as root, or `Delegate=yes` in its systemd unit, makes it exact",
        groups::WITHOUT
    );
    let tried = || -> Result<bool> {
        let mark = ProcessMark { deployment: 0, step: true };
        let Some(group) = site.state.make_group(site.duty.server, mark)? else { return Ok(false) };
        let entered = Command::new("sh")
            .args(["-c", "echo 0 >\"$0\""])
            .arg(group.entrance())
            .stderr(Stdio::null())
            .status();
        group.remove_if_empty();
        Ok(entered.context("running sh")?.success())
    };
    match tried() {
        Ok(true) => {
            let place = groups::place().unwrap_or_default();
            report.ok(WHAT, format!("processes are put into groups below {}", place.display()));
        }
        Ok(false) => report.add(Mark::Warn, WHAT, otherwise),
        Err(e) => report.add(Mark::Warn, WHAT, format!("{e:#}; {otherwise}")),
    }
}

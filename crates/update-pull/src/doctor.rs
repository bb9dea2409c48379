//! `update-pull doctor`: tries everything that a tick needs, and says what is missing.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use pullre::config::{ConsoleConfig, ControllerConfig, DatabaseConfig, GithubLogin, ReportConfig};
use pullre::doctor::{Line, Mark, foreign_writes, records, refusals};
use pullre::domain::{Instance, InstanceId, InstanceState, PullNumber};
use pullre::facts::Facts;
use pullre::grants::{KILL, needed};
use pullre::ports::{ComputeError, Forge};
use pullre::reconcile::lock::LockName;
use pullre::report::Kind;
use pullre::schema_clone::mysql::SwapBusy;
use pullre::schema_clone::{CloneError, Cloning};
use pullre::store::mysql::MysqlAccess;
use pullre::store::{Database, Store};
use pullre_console::password::Stored;
use pullre_http::github::Look;
use pullre_http::probe;

use crate::commands::{Failure, Result, say};
use crate::installation::{Installation, read_config};

/// A clock that is further off makes deadlines and rate limits wrong.
const SKEW: Duration = Duration::from_secs(30);

/// Prints each line as it is found: some questions take a while.
struct Report {
    missing: usize,
}

impl Report {
    fn add(&mut self, mark: Mark, what: &str, text: impl Into<String>) -> Result {
        self.line(&Line::new(mark, what, text))
    }

    fn line(&mut self, line: &Line) -> Result {
        self.missing += usize::from(line.mark == Mark::Missing);
        say(&line.to_string())
    }
}

pub fn run(file: &Path) -> Result {
    let mut report = Report { missing: 0 };
    examine(file, &mut report)?;
    match report.missing {
        0 => Ok(()),
        1 => Err(Failure::Failed("1 thing is missing".into())),
        n => Err(Failure::Failed(format!("{n} things are missing"))),
    }
}

fn examine(file: &Path, report: &mut Report) -> Result {
    let Some(config) = config(file, report)? else { return Ok(()) };
    state_dir(&config.state_dir, report)?;
    let store = database(&config, report)?;
    let installation = match Installation::new(config) {
        Ok(installation) => installation,
        Err(e) => return report.add(Mark::Missing, "installation", format!("{e:#}")),
    };
    locks(&installation, report)?;
    github(&installation, report)?;
    alerts(&installation.config.report, report)?;
    let Some(mut store) = store else { return Ok(()) };
    let (now, facts) = (Timestamp::now(), store.facts()?);
    machines(&installation, &facts, report)?;
    schemas(&installation, &facts, report)?;
    let config = &installation.config;
    schema_rights(&config.database, config.clone.swap_busy, &mut store, &facts, report)?;
    check_urls(&facts, report)?;
    console(&installation.config.console, report)?;
    let has_zone = installation.config.auto_timezone.is_some();
    let mut lines = records(&facts, &installation.policy, has_zone, now);
    let last = store.last_event_at()?;
    if installation.config.report.report {
        let told = store.told(&facts)?;
        lines.extend(refusals(&told, &installation.github().credential(), now));
    }
    lines.extend(foreign_writes(&store.mirrored()?, &facts, last, now));
    if lines.is_empty() {
        lines.push(Line::new(Mark::Ok, "records", "servers, users and environments make sense"));
    }
    lines.iter().try_for_each(|line| report.line(line))
}

/// What keeps `update-pull serve` from starting, or makes it weak.
fn console(config: &ConsoleConfig, report: &mut Report) -> Result {
    let missing = |key: &str, other: &str| {
        format!("`{other}` is set and `{key}` is not, so neither counts: set both or none")
    };
    match (&config.basic_user, &config.basic_password) {
        (None, None) => Ok(()),
        (Some(_), None) => report.add(Mark::Warn, "console", missing("basic_password", "basic_user")),
        (None, Some(_)) => report.add(Mark::Warn, "console", missing("basic_user", "basic_password")),
        (Some(_), Some(password)) => match Stored::parse(password.expose()) {
            None => report.add(
                Mark::Missing,
                "console",
                "`basic_password` is no hash of a password: set it to what `update-pull hash-token` prints",
            ),
            Some(Stored::Sha512(_)) => report.add(
                Mark::Warn,
                "console",
                "`basic_password` is an unsalted SHA-512, which is quickly guessed once stolen: set it to \
                 what `update-pull hash-token` prints",
            ),
            Some(Stored::Argon2(_)) => Ok(()),
        },
    }
}

fn config(file: &Path, report: &mut Report) -> Result<Option<ControllerConfig>> {
    let (config, warnings) = read_config(file);
    for warning in warnings {
        report.add(Mark::Warn, "app.ini", warning)?;
    }
    let config = match config {
        Ok(config) => config,
        Err(errors) => {
            for problem in errors.problems() {
                report.add(Mark::Missing, "app.ini", problem.to_string())?;
            }
            return Ok(None);
        }
    };
    let shown = file.display();
    match fs::metadata(file).map(|meta| meta.permissions().mode()) {
        Ok(mode) if mode & 0o077 != 0 => report.add(
            Mark::Warn,
            "app.ini",
            format!("other users of this machine can read its secrets: chmod 600 {shown}"),
        )?,
        Ok(_) => report.add(Mark::Ok, "app.ini", format!("{shown} is complete"))?,
        Err(e) => report.add(Mark::Missing, "app.ini", format!("{shown}: {e}"))?,
    }
    Ok(Some(config))
}

fn state_dir(folder: &Path, report: &mut Report) -> Result {
    let shown = folder.display();
    let tried = || -> io::Result<u32> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let file = folder.join(format!("doctor-{}", std::process::id()));
        fs::write(&file, "written")?;
        fs::remove_file(&file)?;
        Ok(fs::metadata(folder)?.permissions().mode())
    };
    match tried() {
        Ok(mode) if mode & 0o077 != 0 => report.add(
            Mark::Warn,
            "state_dir",
            format!("other users of this machine can look into it: chmod 700 {shown}"),
        ),
        Ok(_) => report.add(Mark::Ok, "state_dir", format!("{shown} can be written")),
        Err(e) => report.add(
            Mark::Missing,
            "state_dir",
            format!("{shown} cannot be written ({e}): give it to this user, or set `state_dir`"),
        ),
    }
}

/// The control database, if a tick could work with it.
fn database(config: &ControllerConfig, report: &mut Report) -> Result<Option<Store>> {
    const WHAT: &str = "database";
    let mut words = Vec::new();
    let database = match &config.database {
        DatabaseConfig::Sqlite { path, .. } => Ok(Database::sqlite(path)),
        mysql @ DatabaseConfig::Mysql { .. } => {
            MysqlAccess::new(mysql).and_then(|(_, warnings)| {
                words.extend(warnings);
                Database::mysql(mysql)
            })
        }
    };
    words.into_iter().try_for_each(|warning| report.add(Mark::Warn, WHAT, warning))?;
    let opened = database.and_then(|database| database.open()).and_then(|mut store| {
        store.require_tables()?;
        let missing = store.missing_rights()?;
        Ok((store, missing))
    });
    match opened {
        Ok((store, missing)) if missing.is_empty() => {
            report.add(
                Mark::Ok,
                WHAT,
                "it has all its tables, and everything in them can be changed",
            )?;
            Ok(Some(store))
        }
        Ok((_, missing)) => {
            for why in missing {
                report.add(Mark::Missing, WHAT, why)?;
            }
            Ok(None)
        }
        Err(e) => {
            report.add(Mark::Missing, WHAT, e.to_string())?;
            Ok(None)
        }
    }
}

fn locks(installation: &Installation, report: &mut Report) -> Result {
    // No pull request has this number.
    match installation.locks.try_lock(&LockName::Environment(PullNumber(0))) {
        Ok(Some(_)) => report.add(Mark::Ok, "locks", "can be taken"),
        Ok(None) => report.add(Mark::Warn, "locks", "another doctor is at work"),
        Err(e) => report.add(Mark::Missing, "locks", format!("cannot be taken: {e}")),
    }
}

fn github(installation: &Installation, report: &mut Report) -> Result {
    let look = match installation.github().look() {
        Ok(look) => look,
        Err(e) => return report.add(Mark::Missing, "GitHub", e.to_string()),
    };
    let Look { full_name, is_private, scopes, permissions, granted, ahead } = look;
    let kind = if is_private { "private" } else { "public" };
    let may = match &scopes {
        _ if granted.is_some() => "a GitHub App".to_owned(),
        Some(scopes) if scopes.is_empty() => "a classic token without scopes".to_owned(),
        Some(scopes) => format!("a classic token for {}", scopes.join(", ")),
        None => match permissions.is_empty() {
            true => "a token that says nothing of its rights".to_owned(),
            false => format!("an account that may {}", permissions.join(", ")),
        },
    };
    let text = format!("{full_name} ({kind}) and its pull requests can be read, by {may}");
    report.add(Mark::Ok, "GitHub", text)?;
    private_key(&installation.config.login, report)?;
    rights_to_speak(installation, granted.as_ref(), scopes.as_deref(), &permissions, report)?;
    let strong =
        |scope: &&String| ["admin", "delete", "write"].iter().any(|w| scope.starts_with(w));
    let strong: Vec<_> = scopes.iter().flatten().filter(strong).map(String::as_str).collect();
    if !strong.is_empty() {
        let text =
            format!("the token may do more than pullre needs: take {} away", strong.join(", "));
        report.add(Mark::Warn, "GitHub", text)?;
    }
    let configured = format!("{}/{}", installation.config.owner, installation.config.repo);
    if !full_name.eq_ignore_ascii_case(&configured) {
        let text = format!("{configured} is called {full_name} now: correct `owner` and `repo`");
        report.add(Mark::Warn, "GitHub", text)?;
    }
    let Some(ahead) = ahead else { return Ok(()) };
    if ahead.unsigned_abs() <= SKEW {
        return report.add(Mark::Ok, "clock", "agrees with GitHub's");
    }
    let (seconds, way) =
        (ahead.as_secs().abs(), if ahead.is_negative() { "ahead" } else { "behind" });
    let text = format!("is {seconds} s {way} of GitHub's: let chrony or systemd-timesyncd set it");
    report.add(Mark::Warn, "clock", text)
}

/// Whoever reads it can act as the App.
fn private_key(login: &GithubLogin, report: &mut Report) -> Result {
    let GithubLogin::App { private_key, .. } = login else { return Ok(()) };
    // It was read a moment ago.
    let Ok(meta) = fs::metadata(private_key) else { return Ok(()) };
    if meta.permissions().mode() & 0o077 == 0 {
        return Ok(());
    }
    let shown = private_key.display();
    let text = format!("other users of this machine can read the App's key: chmod 600 {shown}");
    report.add(Mark::Warn, "GitHub", text)
}

/// Whether the alerts reach anybody; nothing is sent.
fn alerts(config: &ReportConfig, report: &mut Report) -> Result {
    if !config.alerts || config.slack_url.is_some() || config.google_chat_url.is_some() {
        return Ok(());
    }
    let text = "`alerts = yes`, and there is no chat to tell: set `slack_url` or `google_chat_url`";
    report.add(Mark::Warn, "alerts", text)
}

/// What it needs to say something on GitHub, as far as GitHub tells.
fn rights_to_speak(
    installation: &Installation,
    granted: Option<&BTreeMap<String, String>>,
    scopes: Option<&[String]>,
    permissions: &[String],
    report: &mut Report,
) -> Result {
    const WHAT: &str = "GitHub";
    let settings = &installation.config.report;
    if !settings.report {
        return report.add(Mark::Ok, WHAT, "is only read (`report = no`)");
    }
    let Some(granted) = granted else {
        let scope = |name: &str| scopes.is_none_or(|scopes| scopes.iter().any(|s| s == name));
        let push = permissions.is_empty() || permissions.iter().any(|p| p == "push");
        if !push || !(scope("repo") || scope("public_repo")) {
            let text = "the token may not write statuses and comments: give it the scope `repo`, or, of \
                        a fine-grained one, `Commit statuses`, `Issues` and `Pull requests` read and \
                        write; or set `report = no`";
            return report.add(Mark::Missing, WHAT, text);
        }
        let text = "a token makes commit statuses; check runs need a GitHub App (`github_app_id`)";
        return report.add(Mark::Ok, WHAT, text);
    };
    let may_write = |name: &str| granted.get(name).is_some_and(|level| level == "write");
    let needs = [
        (true, may_write("checks"), Kind::Check),
        (settings.comment, may_write("issues") || may_write("pull_requests"), Kind::Comment),
        (settings.deployments, may_write("deployments"), Kind::Deployment),
    ];
    let lacks: Vec<_> = needs
        .into_iter()
        .filter(|(wanted, may, _)| *wanted && !may)
        .map(|(_, _, kind)| kind.permission())
        .collect();
    if lacks.is_empty() {
        return report.add(Mark::Ok, WHAT, "the App may say all that it shall");
    }
    let text = format!(
        "the App lacks {}: give it that in its settings, then accept it where it is installed",
        lacks.join(", ")
    );
    report.add(Mark::Missing, WHAT, text)
}

fn machines(installation: &Installation, facts: &Facts, report: &mut Report) -> Result {
    let ids: Vec<_> = facts.servers.values().filter_map(|server| server.instance.clone()).collect();
    if ids.is_empty() {
        return Ok(());
    }
    let found = match installation.compute().describe(&ids) {
        Ok(found) => found,
        Err(e) => return report.add(Mark::Missing, "machines", e.to_string()),
    };
    let gone: Vec<_> =
        ids.iter().filter(|id| found.iter().all(|instance| instance.id != **id)).collect();
    for id in &gone {
        let text = format!(
            "there is no instance {id}: `update-pull server set {id} instance_id=ID` names the \
             server's new one, `update-pull server remove {id}` forgets it"
        );
        report.add(Mark::Missing, "machines", text)?;
    }
    if gone.is_empty() {
        report.add(Mark::Ok, "machines", format!("all {} are there", ids.len()))?;
    }
    switches(installation, &found, report)?;
    roles(facts, &found, report)
}

/// Whether they may be started and stopped; neither is done.
fn switches(installation: &Installation, found: &[Instance], report: &mut Report) -> Result {
    let mut refused: BTreeMap<String, Vec<&InstanceId>> = BTreeMap::new();
    // A terminated one can be neither, whoever asks.
    for instance in found.iter().filter(|i| i.state != InstanceState::Terminated) {
        match installation.compute().may_switch(&instance.id) {
            Ok(()) => {}
            Err(e @ (ComputeError::Unavailable(_) | ComputeError::Refused(_))) => {
                return report.add(Mark::Missing, "machines", e.to_string());
            }
            Err(e) => refused.entry(e.to_string()).or_default().push(&instance.id),
        }
    }
    if refused.is_empty() {
        return report.add(Mark::Ok, "machines", "may be started and stopped");
    }
    for (why, ids) in refused {
        let ids: Vec<_> = ids.into_iter().map(|id| id.0.as_str()).collect();
        report.add(Mark::Missing, "machines", format!("{}: {why}", ids.join(", ")))?;
    }
    Ok(())
}

/// Whatever runs on a machine can act in the name of the machine's role.
fn roles(facts: &Facts, found: &[Instance], report: &mut Report) -> Result {
    let pool = facts.servers.values().filter(|server| server.is_staging);
    for server in pool {
        let instance = found.iter().find(|i| server.instance.as_ref() == Some(&i.id));
        let Some(role) = instance.and_then(|i| i.role.as_deref()) else { continue };
        let text = format!(
            "its instance has the role {role}, and the code of every pull request can use it: \
             take it away, unless the apps need it and it may do little"
        );
        report.add(Mark::Warn, &server.name, text)?;
    }
    Ok(())
}

/// Whether every user's schema can be copied, through the mask if there is one.
fn schemas(installation: &Installation, facts: &Facts, report: &mut Report) -> Result {
    let Cloning { mask, timeout, .. } = &installation.policy.cloning;
    let mut missing = false;
    for user in &facts.users {
        let login = &user.login;
        let text = match &user.schema {
            Err(why) => format!("{login}'s cannot be used: {why}"),
            Ok(schema) => match installation.schemas.holds_something(schema) {
                Ok(true) if mask.is_empty() => continue,
                Ok(true) => match installation.schemas.try_mask(schema, mask, *timeout) {
                    Ok(()) => continue,
                    Err(e) => {
                        missing = true;
                        let is_wrong = matches!(e, CloneError::Mask { .. });
                        let (mark, tried) = match is_wrong {
                            true => (Mark::Missing, ""),
                            false => (Mark::Warn, ", when its masking rules were tried"),
                        };
                        report.add(mark, "schemas", format!("{login}'s{tried}: {e}"))?;
                        continue;
                    }
                },
                Ok(false) => format!("{login}'s schema {schema} is not there, or empty: fill it"),
                Err(e) => format!("{login}'s: {e}"),
            },
        };
        missing = true;
        let text = format!("{text}; or `update-pull user set {login} SCHEMA`");
        report.add(Mark::Missing, "schemas", text)?;
    }
    if missing || facts.users.is_empty() {
        return Ok(());
    }
    let text = match mask.is_empty() {
        true => "every user's is there",
        false => "every user's is there, and every masking rule fits it",
    };
    report.add(Mark::Ok, "schemas", text)
}

/// Whether clones can be made, as far as the grants tell.
fn schema_rights(
    config: &DatabaseConfig,
    swap_busy: SwapBusy,
    store: &mut Store,
    facts: &Facts,
    report: &mut Report,
) -> Result {
    let DatabaseConfig::Mysql { name, user, .. } = config else { return Ok(()) };
    let mut lacking: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (schema, rights) in needed(name, facts) {
        let lacks = store.ungranted(&schema, &rights)?;
        if !lacks.is_empty() {
            lacking.entry(lacks).or_default().push(schema);
        }
    }
    for (lacks, schemas) in lacking {
        let text = format!(
            "no grant gives {user} the rights {} on {} (a role may): `update-pull grants` prints them",
            lacks.join(", "),
            schemas.join(", ")
        );
        report.add(Mark::Warn, "schemas", text)?;
    }
    if swap_busy == SwapBusy::Kill {
        let (see, end) = KILL;
        let may_not_see = !store.ungranted(name.as_str(), &[see])?.is_empty();
        let may_not_end = store.ungranted(name.as_str(), &end)?.len() == end.len();
        if may_not_see || may_not_end {
            let text = format!(
                "`swap_busy = kill` needs {see}, and CONNECTION ADMIN (CONNECTION_ADMIN on MySQL 8, else \
                 SUPER), on *.*, which no grant gives {user} (a role may): grant them, or set `wait`"
            );
            report.add(Mark::Warn, "schemas", text)?;
        }
    }
    Ok(())
}

/// Side by side: a name server that is away takes its time.
fn check_urls(facts: &Facts, report: &mut Report) -> Result {
    let servers = facts.servers.values().filter(|server| server.is_staging);
    let urls: Vec<_> =
        servers.filter_map(|server| Some((&server.name, server.check_url.as_deref()?))).collect();
    let answers: Vec<_> = std::thread::scope(|scope| {
        let asked: Vec<_> =
            urls.iter().map(|(_, url)| scope.spawn(|| probe::resolve(url))).collect();
        asked.into_iter().map(|thread| thread.join()).collect()
    });
    for ((name, _), answer) in urls.iter().zip(answers) {
        let why = match answer {
            Ok(Ok(())) => continue,
            Ok(Err(why)) => why,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        let text = format!("{why}: correct it by `update-pull server set {name} check_url=URL`");
        report.add(Mark::Warn, name, text)?;
    }
    Ok(())
}

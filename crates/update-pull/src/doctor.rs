//! `update-pull doctor`: tries everything that a tick needs, and says what is missing.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use pullre::config::{ConsoleConfig, ControllerConfig, DatabaseConfig};
use pullre::doctor::{Line, Mark, foreign_writes, records};
use pullre::domain::PullNumber;
use pullre::facts::Facts;
use pullre::grants::needed;
use pullre::reconcile::lock::LockName;
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
    let Some(mut store) = store else { return Ok(()) };
    let (now, facts) = (Timestamp::now(), store.facts()?);
    machines(&installation, &facts, report)?;
    schemas(&installation, &facts, report)?;
    schema_rights(&installation.config.database, &mut store, &facts, report)?;
    check_urls(&facts, report)?;
    console(&installation.config.console, report)?;
    let has_zone = installation.config.auto_timezone.is_some();
    let mut lines = records(&facts, &installation.policy, has_zone, now);
    let last = store.last_event_at()?;
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
    let Look { full_name, is_private, scopes, permissions, ahead } = look;
    let kind = if is_private { "private" } else { "public" };
    let may = match &scopes {
        Some(scopes) if scopes.is_empty() => "a classic token without scopes".to_owned(),
        Some(scopes) => format!("a classic token for {}", scopes.join(", ")),
        None => match permissions.is_empty() {
            true => "a token that says nothing of its rights".to_owned(),
            false => format!("an account that may {}", permissions.join(", ")),
        },
    };
    let text = format!("{full_name} ({kind}) and its pull requests can be read, by {may}");
    report.add(Mark::Ok, "GitHub", text)?;
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
    match gone.is_empty() {
        true => report.add(Mark::Ok, "machines", format!("all {} are there", ids.len())),
        false => Ok(()),
    }
}

fn schemas(installation: &Installation, facts: &Facts, report: &mut Report) -> Result {
    let mut missing = false;
    for user in &facts.users {
        let login = &user.login;
        let text = match &user.schema {
            Err(why) => format!("{login}'s cannot be used: {why}"),
            Ok(schema) => match installation.schemas.holds_something(schema) {
                Ok(true) => continue,
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
    report.add(Mark::Ok, "schemas", "every user's is there")
}

/// Whether clones can be made, as far as the grants tell.
fn schema_rights(
    config: &DatabaseConfig,
    store: &mut Store,
    facts: &Facts,
    report: &mut Report,
) -> Result {
    let DatabaseConfig::Mysql { name, user, .. } = config else { return Ok(()) };
    for (schema, rights) in needed(name, facts) {
        let lacks = store.ungranted(schema, rights)?;
        if !lacks.is_empty() {
            let text = format!(
                "no grant gives {user} the rights {} on {schema} (a role may): `update-pull grants` \
                 prints them",
                lacks.join(", ")
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

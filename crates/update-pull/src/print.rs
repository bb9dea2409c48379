//! What people and scripts see on stdout: tables, or JSON.

use std::io::{self, IsTerminal, Write};

use comfy_table::{ContentArrangement, Table, presets};
use jiff::Timestamp;
use pullre::domain::SchemaName;
use pullre::facts::User;
use pullre::schema_clone::CloneOutcome;
use pullre::status::{Environment, Explanation, ServerLine, Status};
use pullre::store::ConsoleUser;
use pullre::words;
use serde::Serialize;
use serde_json::json;

use crate::commands::Failure;

type Result = std::result::Result<(), Failure>;

/// A reader that went away (`| head`) is no failure of ours; a full disk is.
pub fn ignore_broken_pipe(written: io::Result<()>) -> Result {
    match written {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::Failed(format!("cannot write to stdout: {e}")))
        }
        _ => Ok(()),
    }
}

fn json(value: &impl Serialize) -> Result {
    let text = serde_json::to_string_pretty(value)
        .map_err(|e| Failure::Failed(format!("cannot print as JSON: {e}")))?;
    ignore_broken_pipe(writeln!(io::stdout(), "{text}"))
}

fn table(header: &[&str], rows: Vec<Vec<String>>) -> Result {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(header.iter().map(|title| title.to_uppercase()));
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    // Lines in a pipe are as long as they are: a script that cuts columns must not lose half a word.
    if !io::stdout().is_terminal() {
        table.set_content_arrangement(ContentArrangement::Disabled);
    }
    let text: String = table.lines().map(|line| format!("{}\n", line.trim_end())).collect();
    ignore_broken_pipe(io::stdout().write_all(text.as_bytes()))
}

fn line(text: &str) -> Result {
    ignore_broken_pipe(writeln!(io::stdout(), "{text}"))
}

fn or_dash(text: Option<impl ToString>) -> String {
    text.map_or("-".into(), |text| text.to_string())
}

pub fn status(status: &Status, now: Timestamp, as_json: bool) -> Result {
    if as_json {
        return json(status);
    }
    if let Some(who) = &status.paused {
        line(&format!("PAUSED {who}; `update-pull resume` goes on\n"))?;
    }
    if let Some(what) = &status.refused {
        line(&format!("REFUSED {what}\n"))?;
    }
    environments(&status.environments, false)?;
    line("")?;
    servers(&status.servers, now, false)?;
    for why in &status.unreadable {
        line(&format!("note: {why}"))?;
    }
    Ok(())
}

pub fn environments(environments: &[Environment], as_json: bool) -> Result {
    if as_json {
        return json(&environments);
    }
    if environments.is_empty() {
        return line("no pull request is open (or no tick has read GitHub yet)");
    }
    let rows = environments.iter().map(|e| {
        vec![
            e.number.to_string(),
            e.stage.to_string(),
            or_dash(e.server.as_ref()),
            e.head[..7].to_owned(),
            or_dash(e.author.as_ref()),
            e.title.chars().take(40).collect(),
            e.url.clone().unwrap_or_else(|| words::plain(&e.why)),
        ]
    });
    table(&["pull", "stage", "server", "head", "author", "title", "url or reason"], rows.collect())
}

pub fn servers(servers: &[ServerLine], now: Timestamp, as_json: bool) -> Result {
    if as_json {
        return json(&servers);
    }
    if servers.is_empty() {
        return line("no server is registered; `update-pull server register` adds one");
    }
    let rows = servers.iter().map(|s| {
        let seen = |at| format!("{} ago", words::duration(words::between(at, now)));
        vec![
            s.name.clone(),
            or_dash(s.state),
            or_dash(s.pull),
            or_dash(s.schema.as_ref()),
            or_dash(s.url.as_ref()),
            or_dash(s.agent_seen_at.map(seen)),
            match (&s.note, s.in_pool) {
                (Some(note), _) => words::plain(note),
                (None, true) => "-".into(),
                (None, false) => "not in the pool".into(),
            },
        ]
    });
    table(&["server", "state", "pull", "schema", "url", "client seen", "note"], rows.collect())
}

pub fn users(users: &[User], as_json: bool) -> Result {
    if as_json {
        let list: Vec<_> = users
            .iter()
            .map(|user| json!({ "login": user.login, "schema": user.schema.as_ref().ok() }))
            .collect();
        return json(&list);
    }
    if users.is_empty() {
        return line("no user is registered; `update-pull user set LOGIN SCHEMA` adds one");
    }
    let rows = users.iter().map(|user| {
        let schema = match &user.schema {
            Ok(schema) => schema.to_string(),
            Err(why) => why.to_string(),
        };
        vec![words::plain(&user.login.0), schema]
    });
    table(&["login", "schema"], rows.collect())
}

pub fn console_users(users: &[ConsoleUser], as_json: bool) -> Result {
    if as_json {
        let list: Vec<_> =
            users.iter().map(|user| json!({ "name": user.name, "role": user.role })).collect();
        return json(&list);
    }
    if users.is_empty() {
        return line(
            "the console has no user but `basic_user`; `update-pull console-user add NAME` adds one",
        );
    }
    let rows = users.iter().map(|user| vec![words::plain(&user.name), user.role.to_string()]);
    table(&["name", "role"], rows.collect())
}

pub fn explanation(explanation: &Explanation, as_json: bool) -> Result {
    if as_json {
        return json(explanation);
    }
    ignore_broken_pipe(write!(io::stdout(), "{explanation}"))
}

pub fn clone_outcome(
    outcome: &CloneOutcome,
    source: &SchemaName,
    destination: &SchemaName,
    as_json: bool,
) -> Result {
    if as_json {
        return json(outcome);
    }
    line(&format!(
        "cloned {source} to {destination}: {} tables, {} rows, {} in {}",
        outcome.tables,
        outcome.rows,
        words::bytes(outcome.bytes),
        words::duration(outcome.elapsed)
    ))?;
    outcome.notes.iter().try_for_each(|note| line(&format!("note: {note}")))
}

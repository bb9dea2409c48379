//! What can be done to a server, and to the data of one that serves nobody.

use std::time::Duration;

use super::{Operator, OpsError, Result, lock, refused, usage};
use crate::domain::{InstanceId, InstanceState, PullNumber, SchemaName, ServerId};
use crate::facts::{CloneState, Facts, Server};
use crate::ownership;
use crate::ports::Compute;
use crate::reconcile::lock::{Held, LockName, Locks};
use crate::reconcile::plan::Record;
use crate::schema_clone::{CloneOutcome, Cloning, Progress, Request, Schemas};
use crate::store::Won;
use crate::store::backend::Value;
use crate::switches::Weekdays;
use crate::words;

/// Of more servers than this a message does not name each.
const TOLD_NAMES: usize = 10;

/// A server by its name or its instance id.
pub fn find_server<'f>(facts: &'f Facts, name: &str) -> Result<&'f Server> {
    let is_named = |server: &&Server| {
        server.name == name || server.instance.as_ref().is_some_and(|id| id.0 == name)
    };
    let mut found = facts.servers.values().filter(is_named);
    match (found.next(), found.next()) {
        (Some(server), None) => Ok(server),
        (Some(_), Some(_)) => {
            usage(format!("more than one server is called {name}; use its instance id"))
        }
        (None, _) => {
            let names: Vec<_> = facts.servers.values().map(|s| s.name.as_str()).collect();
            let known = match names.get(TOLD_NAMES..).unwrap_or_default().len() {
                _ if names.is_empty() => {
                    "there is none yet; `update-pull server register` adds one".to_owned()
                }
                0 => format!("there are {}", names.join(", ")),
                more => {
                    let first = names[..TOLD_NAMES].join(", ");
                    format!(
                        "there are {first} and {more} more; `update-pull server list` shows them"
                    )
                }
            };
            usage(format!("there is no server {name}; {known}"))
        }
    }
}

impl Operator<'_> {
    /// Adds a server to the pool. `local`: it is a slot of this machine, made here.
    pub fn server_register(&mut self, instance: &str, local: bool) -> Result<()> {
        let facts = self.store.facts()?;
        if instance.trim() != instance || instance.is_empty() || instance.len() > 100 {
            return usage(format!("{instance:?} cannot be an instance id"));
        }
        if local && (matches!(instance, "." | "..") || instance.contains(['/', '\0'])) {
            return usage(format!(
                "{instance:?} cannot name a slot: it becomes part of target_dir's path"
            ));
        }
        if find_server(&facts, instance).is_ok() {
            return refused(format!(
                "server {instance} is registered already; `update-pull server set` changes it"
            ));
        }
        let id = InstanceId(instance.to_owned());
        if local {
            self.store.add_local_slot(&id)?;
        }
        let server = self.store.add_server(&id, instance, self.now)?;
        if local {
            let (name, state) = (instance.to_owned(), Some(InstanceState::Stopped));
            self.store.record(&[Record::Instance { server, name, state }], self.now)?;
        }
        self.note(None, Some(server), "registered")
    }

    /// Adds an existing machine of the provider to the pool, under the name that it has there.
    /// Returns the name.
    pub fn server_register_machine(
        &mut self,
        instance: &str,
        compute: &dyn Compute,
    ) -> Result<String> {
        let id = InstanceId(instance.to_owned());
        let found = compute.describe(std::slice::from_ref(&id))?;
        let Some(machine) = found.into_iter().find(|machine| machine.id == id) else {
            return refused(format!(
                "there is no instance {instance} in this account and region; `update-pull server \
                 list` shows what there is"
            ));
        };
        if machine.state == InstanceState::Terminated {
            return refused(format!("instance {instance} is terminated"));
        }
        self.server_register(instance, false)?;
        let facts = self.store.facts()?;
        let server = find_server(&facts, instance)?.id;
        // A name that another server has, or that cannot be part of a path, helps nobody.
        let usable = |name: &String| {
            find_server(&facts, name).is_err()
                && !matches!(name.as_str(), "." | "..")
                && !name.contains(['/', '\0'])
        };
        let name = machine.name.filter(usable).unwrap_or_else(|| instance.to_owned());
        let ip = machine.private_ip.map_or(Value::Null, |ip| ip.as_str().into());
        let columns = [("name", name.as_str().into()), ("private_ip", ip)];
        self.store.set_server(server, &columns, self.now)?;
        let record = Record::Instance { server, name: name.clone(), state: Some(machine.state) };
        self.store.record(&[record], self.now)?;
        Ok(name)
    }

    /// Sets columns of a server, given as `key=value`; an empty value clears.
    pub fn server_set(&mut self, name: &str, settings: &[String]) -> Result<()> {
        let facts = self.store.facts()?;
        let server = find_server(&facts, name)?;
        let mut columns = Vec::new();
        for setting in settings {
            let Some((key, value)) = setting.split_once('=') else {
                return usage(format!("{setting:?} is not of the form key=value"));
            };
            columns.push(column(key, value, server, &facts)?);
        }
        let keys: Vec<_> = columns.iter().map(|(key, _)| *key).collect();
        may_change(server, &keys, &facts)?;
        self.store.set_server(server.id, &columns, self.now)?;
        let what = format!("set {}", settings.join(" "));
        self.note(None, Some(server.id), &words::without_logins(&what))
    }

    /// A server and its lock, with the facts as they are under it: what was true before another
    /// tick let go of it need not be true now.
    fn locked_server(&mut self, name: &str, locks: &Locks) -> Result<(Facts, ServerId, Held)> {
        let facts = self.store.facts()?;
        self.locked(&facts, name, locks)
    }

    /// The same where the facts have been read already.
    fn locked(
        &mut self,
        facts: &Facts,
        name: &str,
        locks: &Locks,
    ) -> Result<(Facts, ServerId, Held)> {
        let id = find_server(facts, name)?.id;
        let held = lock(locks, LockName::Server(id), name)?;
        let facts = self.store.facts()?;
        let same = find_server(&facts, name)?.id;
        if same != id {
            return refused(format!("{name} is another server by now; try again"));
        }
        Ok((facts, id, held))
    }

    /// Lets the server's schema be overwritten although we did not make it.
    pub fn server_take_over(&mut self, name: &str, locks: &Locks) -> Result<SchemaName> {
        let (facts, id, _server) = self.locked_server(name, locks)?;
        let server = &facts.servers[&id];
        let schema = match &server.schema {
            Ok(schema) => schema.clone(),
            Err(why) => return refused(format!("server {name} has no usable db_schema: {why}")),
        };
        let mut others = facts.clone();
        others.clones.clear();
        if let Some(why) = ownership::schema_refused(&schema, server.id, &others) {
            return refused(format!("server {name}: {why}"));
        }
        if let Some(clone) = facts.clones.get(&schema)
            && clone.state != CloneState::Refused
            && facts.assignment_of_server(clone.server).is_some()
        {
            let owner = facts.server_name(clone.server);
            return refused(format!("{schema} is the clone that {owner} works on now"));
        }
        let _held = lock(locks, LockName::Schema(schema.clone()), &schema.to_string())?;
        self.store.take_over(&schema, server.id)?;
        self.note(None, Some(server.id), &format!("may overwrite schema {schema}"))?;
        Ok(schema)
    }

    pub fn server_hold(&mut self, name: &str, reason: &str, span: Option<Duration>) -> Result<()> {
        let facts = self.store.facts()?;
        let server = find_server(&facts, name)?;
        let hold = self.hold_of(reason, span);
        self.store.hold_server(server.id, Some(&hold))?;
        self.note(None, Some(server.id), &hold.to_string())
    }

    pub fn server_release(&mut self, name: &str) -> Result<()> {
        let facts = self.store.facts()?;
        let server = find_server(&facts, name)?;
        if server.hold.is_none() {
            return refused(format!("server {name} is not held"));
        }
        self.store.hold_server(server.id, None)?;
        self.note(None, Some(server.id), "released")
    }

    /// Starts a machine by hand. Nothing stops it again by itself.
    pub fn server_start(&mut self, name: &str, compute: &dyn Compute, locks: &Locks) -> Result<()> {
        let (facts, id, _held) = self.locked_server(name, locks)?;
        let server = &facts.servers[&id];
        compute.start(instance_of(server)?)?;
        self.note(None, Some(server.id), "started by hand")
    }

    pub fn server_stop(&mut self, name: &str, compute: &dyn Compute, locks: &Locks) -> Result<()> {
        let (facts, id, _held) = self.locked_server(name, locks)?;
        let server = &facts.servers[&id];
        let held = server.hold.as_ref().is_some_and(|hold| hold.holds_at(self.now));
        if let Some(assignment) = facts.assignment_of_server(server.id).filter(|_| !held) {
            let name = &server.name;
            return refused(format!(
                "{name} serves {}: the next tick would start it again. Hold it first: \
                 `update-pull server hold {name}`",
                assignment.pull
            ));
        }
        compute.stop(instance_of(server)?)?;
        self.note(None, Some(server.id), "stopped by hand")
    }

    /// Forgets a server that serves nobody. Its machine and its schema stay as they are.
    pub fn server_remove(&mut self, name: &str, locks: &Locks) -> Result<()> {
        let (facts, id, _held) = self.locked_server(name, locks)?;
        let server = &facts.servers[&id];
        let in_use = |pull: PullNumber| {
            refused(format!(
                "{name} serves {pull}: take it out of the pool (update-pull server set {name} \
                 is_staging=0), and the next tick moves the pull request to another server"
            ))
        };
        if let Some(assignment) = facts.assignment_of_server(server.id) {
            return in_use(assignment.pull);
        }
        if server.app.is_some() {
            return refused(format!(
                "an app still runs on {name}; its staging client stops it within a minute"
            ));
        }
        match self.store.remove_server(server.id)? {
            Won::Yes => self.note(None, None, &format!("removed server {name}")),
            Won::No => refused(format!("{name} got a pull request a moment ago; try again")),
        }
    }

    /// Hides a machine of the account from lists; `shown` shows it again.
    pub fn server_hide(&mut self, name: &str, shown: bool) -> Result<()> {
        self.store.set_hidden(name, !shown, self.now)?;
        let what = if shown { "shows" } else { "hides" };
        self.note(None, None, &format!("{what} machine {name}"))
    }

    /// One clone by hand, of `source` into the schema of a registered server that serves nobody.
    pub fn clone_schema(
        &mut self,
        source: &SchemaName,
        destination: &SchemaName,
        schemas: &Schemas,
        locks: &Locks,
        cloning: &Cloning,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<CloneOutcome> {
        let facts = self.store.facts()?;
        let of_server = |server: &&Server| server.schema.as_ref() == Ok(destination);
        let Some(server) = facts.servers.values().find(of_server) else {
            return refused(format!(
                "{destination} is not the schema of a registered server, so it is not ours to write"
            ));
        };
        let name = &server.name;
        let (facts, id, _server) = self.locked(&facts, name, locks)?;
        let server = &facts.servers[&id];
        if server.schema.as_ref() != Ok(destination) {
            return refused(format!("{name} has another schema by now; try again"));
        }
        if let Some(why) = ownership::schema_refused(destination, server.id, &facts) {
            return refused(format!("server {name}: {why}"));
        }
        if let Some(assignment) = facts.assignment_of_server(server.id) {
            let number = assignment.pull;
            return refused(format!(
                "{name} serves {number}; `update-pull pull reset-db {}` gives it fresh data",
                number.0
            ));
        }
        if let Some(app) = &server.app {
            return refused(format!("the app of {} still runs on {name}", app.pull));
        }
        let _schema = lock(locks, LockName::Schema(destination.clone()), name)?;
        let owned = facts.clones.get(destination).is_some_and(|c| c.state != CloneState::Refused);
        if !owned && schemas.holds_something(destination)? {
            return refused(format!(
                "{destination} holds something that pullre did not make; `update-pull server \
                 take-over {name}` lets it be overwritten"
            ));
        }
        let Cloning { timeout, mask, .. } = cloning;
        let started = self.store.clone_started(
            destination,
            server.id,
            source,
            None,
            mask.digest(),
            self.now,
        )?;
        if started == Won::No {
            return refused(format!("{destination} is recorded as another server's"));
        }
        let began = std::time::Instant::now();
        // It serves nobody, so there is nobody who would want the previous one back.
        let request = Request { mask, ..Request::new(source, destination, *timeout) };
        let result = schemas.clone_schema(&request, progress);
        let ended = self.now.saturating_add(began.elapsed()).unwrap_or(self.now);
        let done = match &result {
            Ok(outcome) => {
                self.store.clone_finished(destination, server.id, outcome, ended)?;
                "cloned"
            }
            Err(e) => {
                self.store.clone_failed(destination, server.id, &e.to_string(), ended)?;
                "could not clone"
            }
        };
        self.note(None, Some(server.id), &format!("{done} {source} to {destination} by hand"))?;
        Ok(result?)
    }
}

fn instance_of(server: &Server) -> Result<&InstanceId> {
    match &server.instance {
        Some(id) => Ok(id),
        None => refused(format!("server {} names no instance", server.name)),
    }
}

/// Whether these columns of a server may change now.
pub(super) fn may_change(server: &Server, keys: &[&str], facts: &Facts) -> Result<()> {
    let name = &server.name;
    // Folders, records and data are found by these.
    let moves = |key: &&&str| matches!(**key, "instance_id" | "db_schema" | "name");
    let Some(key) = keys.iter().find(moves) else { return Ok(()) };
    if let Some(assignment) = facts.assignment_of_server(server.id) {
        return refused(format!(
            "{name} serves {}; {key} can be changed when it serves nobody: close the pull request \
             or take the server out of the pool first (is_staging=0)",
            assignment.pull
        ));
    }
    if server.app.is_some() {
        return refused(format!(
            "an app still runs on {name}; its staging client stops it within a minute"
        ));
    }
    Ok(())
}

/// One column of a server, checked.
pub(super) fn column(
    key: &str,
    value: &str,
    server: &Server,
    facts: &Facts,
) -> Result<(&'static str, Value)> {
    let columns = crate::store::SERVER_COLUMNS;
    let Some(key) = columns.into_iter().find(|column| *column == key) else {
        return usage(format!("a server has no {key:?}; it has {}", columns.join(", ")));
    };
    let value = value.trim();
    if value.is_empty() {
        if key == "is_staging" {
            return Ok((key, Value::Int(0)));
        }
        return Ok((key, Value::Null));
    }
    let bad = |expected: &str| usage(format!("{key} is {value:?} and not {expected}"));
    match key {
        "is_staging" => match value {
            "1" | "yes" => return Ok((key, Value::Int(1))),
            "0" | "no" => return Ok((key, Value::Int(0))),
            _ => return bad("0 or 1"),
        },
        "db_schema" => {
            let schema: SchemaName = value.parse().map_err(|e| OpsError::Usage(format!("{e}")))?;
            if let Some(why) = ownership::schema_refused(&schema, server.id, facts) {
                return refused(why);
            }
        }
        "check_url" => {
            let rest = value.strip_prefix("http://").or_else(|| value.strip_prefix("https://"));
            let whole = rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'));
            if !whole || value.contains(char::is_whitespace) || value.contains(char::is_control) {
                return bad("a URL that begins with http:// or https://");
            }
        }
        "private_ip" if value.parse::<std::net::IpAddr>().is_err() => return bad("an address"),
        "auto_start_at" | "auto_stop_at" => {
            // pullre-kun keeps a whole date there and uses the time of day alone.
            let Ok(time) = value.parse::<jiff::civil::Time>() else {
                return bad("a time of day such as 08:30");
            };
            return Ok((key, Value::Text(time.strftime("2000-01-01 %H:%M:%S").to_string())));
        }
        "auto_weekdays" => match value.parse::<Weekdays>() {
            Ok(days) => return Ok((key, Value::Text(days.to_string()))),
            Err(_) => return bad("weekdays such as mon-fri or mon,wed,sat"),
        },
        "name" | "instance_id" => {
            let taken = facts.servers.values().any(|other| {
                other.id != server.id
                    && (other.name == value
                        || other.instance.as_ref().is_some_and(|i| i.0 == value))
            });
            if taken {
                return refused(format!("another server is called {value}"));
            }
            if value.len() > 100 || value.contains(char::is_control) {
                return bad("at most 100 characters, without control characters");
            }
        }
        _ => {}
    }
    Ok((key, value.into()))
}

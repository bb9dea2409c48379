//! Taking over a database of pullre-kun: what its rows say is written into our tables, once. No
//! row of its tables is changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::Timestamp;

use super::backend::{Row, Value};
use super::{Result, Store, StoreError};
use crate::domain::{PullNumber, SchemaName, ServerId, Sha};
use crate::facts::{App, CloneState, Outcome};

/// What pullre-kun's rows say that we have no record of.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Finding {
    /// It cloned into this schema for this server. With `pull`, what is in there is that
    /// environment's, and is kept.
    Clone {
        schema: SchemaName,
        server: ServerId,
        source: Option<SchemaName>,
        pull: Option<PullNumber>,
    },
    /// The server is this open pull request's. With `serves`, its client launched that commit.
    Environment { pull: PullNumber, server: ServerId, serves: Option<Sha> },
    /// Something that is left as it is, and why.
    Left { pull: Option<PullNumber>, server: Option<ServerId>, why: String },
}

#[derive(Debug)]
struct OldServer {
    id: ServerId,
    name: String,
    schema: std::result::Result<SchemaName, String>,
}

#[derive(Debug)]
struct OldPull {
    number: PullNumber,
    open: bool,
    sha: Option<Sha>,
    server: ServerId,
    /// 0 and 1: its data was cloned; 1: its client launched `sha`.
    is_launched: Option<i64>,
    source: Option<SchemaName>,
    check_run: Option<i64>,
}

/// Everything that the findings follow from.
#[derive(Debug, Default)]
struct Old {
    servers: BTreeMap<ServerId, OldServer>,
    /// Those that name a server.
    pulls: Vec<OldPull>,
    sources: Vec<SchemaName>,
    /// What we have records of already.
    assigned: Vec<(ServerId, PullNumber)>,
    owned: Vec<(SchemaName, ServerId)>,
}

impl Old {
    fn check_run_of(&self, pull: PullNumber) -> Option<i64> {
        self.pulls.iter().find(|old| old.number == pull)?.check_run
    }
}

impl Store {
    /// The records that would be made of what pullre-kun left. Changes nothing, and needs none of
    /// our tables.
    pub(super) fn planned_adoption(&mut self) -> Result<Vec<String>> {
        let old = self.read_old()?;
        Ok(findings(&old).iter().map(|finding| Told(finding, &old).record()).collect())
    }

    /// Part of the transaction that also notes it as done: a kill leaves nothing of it.
    pub(super) fn adopt(&mut self, now: Timestamp) -> Result<()> {
        let old = self.read_old()?;
        for finding in findings(&old) {
            let told = format!("taking over from pullre-kun: {}", Told(&finding, &old).record());
            let (pull, server) = match &finding {
                Finding::Clone { schema, server, source, pull } => {
                    self.adopt_clone(schema, *server, source.as_ref(), *pull, now)?;
                    (*pull, Some(*server))
                }
                Finding::Environment { pull, server, serves } => {
                    let check_run = old.check_run_of(*pull);
                    self.adopt_environment(*pull, *server, serves.as_ref(), check_run, now)?;
                    (Some(*pull), Some(*server))
                }
                Finding::Left { pull, server, .. } => (*pull, *server),
            };
            self.event(now, "init", pull, server, &told)?;
        }
        Ok(())
    }

    fn adopt_clone(
        &mut self,
        schema: &SchemaName,
        server: ServerId,
        source: Option<&SchemaName>,
        pull: Option<PullNumber>,
        now: Timestamp,
    ) -> Result<()> {
        self.own(schema, server)?;
        let Some(pull) = pull else { return Ok(()) };
        self.execute(
            "UPDATE clones SET state = ?, source = ?, pull_number = ?, finished_at = ?
             WHERE schema_name = ?",
            &[
                CloneState::Ready.as_str().into(),
                source.map(SchemaName::as_str).into(),
                pull.0.into(),
                now.into(),
                schema.as_str().into(),
            ],
        )
        .map(drop)
    }

    fn adopt_environment(
        &mut self,
        pull: PullNumber,
        server: ServerId,
        serves: Option<&Sha>,
        check_run: Option<i64>,
        now: Timestamp,
    ) -> Result<()> {
        let mut deployment = Value::Null;
        if let Some(sha) = serves {
            self.execute(
                "INSERT INTO deployments (pull_number, server_id, sha, attempt, outcome, offered_at,
                     started_at, finished_at, interruptions) VALUES (?, ?, ?, 1, ?, ?, ?, ?, 0)",
                &[
                    pull.0.into(),
                    server.0.into(),
                    sha.as_str().into(),
                    Outcome::Succeeded.as_str().into(),
                    now.into(),
                    now.into(),
                    now.into(),
                ],
            )?;
            deployment = self.backend.last_insert_id()?.into();
            self.app_is(server, Some(&App { pull, sha: sha.clone() }))?;
            self.adopt_report(pull, sha.as_str(), check_run, now)?;
        }
        self.execute(
            "INSERT INTO assignments (server_id, pull_number, assigned_at, deployment_id)
             VALUES (?, ?, ?, ?)",
            &[server.0.into(), pull.0.into(), now.into(), deployment],
        )
        .map(drop)
    }

    /// The rows of a table; none where there is no such table.
    fn rows_of(&mut self, sql: &str) -> Result<Vec<Row>> {
        match self.query(sql, &[]) {
            Err(StoreError::NotInitialized) => Ok(Vec::new()),
            other => other,
        }
    }

    fn read_old(&mut self) -> Result<Old> {
        let mut old = Old::default();
        for row in
            self.rows_of("SELECT id, name, instance_id, db_schema FROM servers ORDER BY id")?
        {
            let id = ServerId(row.int("id")?);
            let names = [row.opt_text("name")?, row.opt_text("instance_id")?];
            let name = names.into_iter().flatten().find(|name| !name.is_empty());
            let schema = row.opt_text("db_schema")?.unwrap_or_default();
            let server = OldServer {
                id,
                name: name.unwrap_or_else(|| format!("server {}", id.0)),
                schema: schema.parse().map_err(|e: crate::domain::Invalid| e.to_string()),
            };
            old.servers.insert(id, server);
        }
        for row in self.rows_of(
            "SELECT number, state, sha, server_id, is_launched, db_schema, check_run_id FROM pull_requests
             WHERE server_id IS NOT NULL ORDER BY number",
        )? {
            // Numbers that are none are nobody's.
            let (Ok(number), Ok(server)) = (row.u32("number"), row.int("server_id")) else {
                continue;
            };
            old.pulls.push(OldPull {
                number: PullNumber(number),
                open: row.opt_text("state")?.as_deref() == Some("open"),
                sha: row.opt_parsed("sha").ok().flatten(),
                server: ServerId(server),
                is_launched: row.opt_int("is_launched").ok().flatten(),
                source: row.opt_parsed("db_schema").ok().flatten(),
                check_run: row.opt_int("check_run_id").ok().flatten(),
            });
        }
        for row in self.rows_of("SELECT db_schema FROM git_hub_users ORDER BY id")? {
            old.sources.extend(row.opt_parsed("db_schema").ok().flatten());
        }
        for row in self.rows_of("SELECT server_id, pull_number FROM assignments")? {
            old.assigned
                .push((ServerId(row.int("server_id")?), PullNumber(row.u32("pull_number")?)));
        }
        for row in self.rows_of("SELECT schema_name, server_id FROM clones")? {
            old.owned.push((row.parsed("schema_name")?, ServerId(row.int("server_id")?)));
        }
        Ok(old)
    }
}

/// Decides; pure.
fn findings(old: &Old) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut live: BTreeMap<ServerId, Vec<&OldPull>> = BTreeMap::new();
    for pull in old.pulls.iter().filter(|pull| pull.open) {
        let known = |(server, number): &(ServerId, PullNumber)| {
            *server == pull.server || *number == pull.number
        };
        if old.assigned.iter().any(known) {
            continue; // Ours already: the row mirrors it.
        }
        if old.servers.contains_key(&pull.server) {
            live.entry(pull.server).or_default().push(pull);
        } else {
            findings.push(Finding::Left {
                pull: Some(pull.number),
                server: None,
                why: format!("it names server {}, which does not exist", pull.server.0),
            });
        }
    }
    let mut holders: BTreeMap<ServerId, &OldPull> = BTreeMap::new();
    for (server, pulls) in live {
        // pullre-kun could give a server to two. Whose data and whose commit is there, nobody can
        // tell: one that was brought up goes before one that was not, then the newer. It keeps
        // what is there, and is deployed anew; the others wait for a server of their own.
        let rank = |pull: &&&OldPull| (pull.is_launched.is_some(), pull.number);
        let Some(&holder) = pulls.iter().max_by_key(rank) else { continue };
        holders.insert(server, holder);
        let alone = pulls.len() == 1;
        findings.push(Finding::Environment {
            pull: holder.number,
            server,
            serves: holder.sha.clone().filter(|_| alone && holder.is_launched == Some(1)),
        });
        findings.extend(pulls.into_iter().filter(|pull| pull.number != holder.number).map(
            |pull| Finding::Left {
                pull: Some(pull.number),
                server: Some(server),
                why: format!("its server is also {}'s, which keeps it", holder.number),
            },
        ));
    }
    findings.extend(clones(old, &holders));
    findings
}

/// The schemas of servers that pullre-kun deployed to: first those that somebody works on.
fn clones(old: &Old, holders: &BTreeMap<ServerId, &OldPull>) -> Vec<Finding> {
    let cloned = |pull: &&OldPull| pull.is_launched.is_some();
    let used: BTreeSet<_> = old.pulls.iter().filter(cloned).map(|pull| pull.server).collect();
    let ours = |id: ServerId| old.assigned.iter().any(|(server, _)| *server == id);
    let mut servers: Vec<_> =
        old.servers.values().filter(|s| used.contains(&s.id) && !ours(s.id)).collect();
    servers.sort_by_key(|server| (!holders.contains_key(&server.id), server.id));
    let mut owned = old.owned.clone();
    let mut findings = Vec::new();
    for server in servers {
        let left = |why: String| Finding::Left { pull: None, server: Some(server.id), why };
        let schema = match &server.schema {
            Ok(schema) => schema,
            Err(why) => {
                findings.push(left(format!("its db_schema cannot be used: {why}")));
                continue;
            }
        };
        if old.sources.iter().any(|source| source.collides(schema)) {
            findings.push(left(format!(
                "its schema {schema} is a developer's own and is never overwritten"
            )));
            continue;
        }
        match owned.iter().find(|(other, _)| other.collides(schema)) {
            Some((_, owner)) if *owner == server.id => continue,
            Some((_, owner)) => {
                let owner = name_of(*owner, old);
                findings.push(left(format!("its schema {schema} is {owner}'s too")));
                continue;
            }
            None => owned.push((schema.clone(), server.id)),
        }
        let holder = holders.get(&server.id).filter(|pull| pull.is_launched.is_some());
        findings.push(Finding::Clone {
            schema: schema.clone(),
            server: server.id,
            source: holder.and_then(|pull| pull.source.clone()),
            pull: holder.map(|pull| pull.number),
        });
    }
    findings
}

fn name_of(server: ServerId, old: &Old) -> String {
    old.servers.get(&server).map_or_else(|| format!("server {}", server.0), |s| s.name.clone())
}

/// A finding in words, that go on from "a record of" or "no record of".
struct Told<'a>(&'a Finding, &'a Old);

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Told(finding, old) = self;
        match finding {
            Finding::Clone { schema, server, pull, .. } => {
                write!(f, "schema {schema} of {}", name_of(*server, old))?;
                match pull {
                    Some(pull) => write!(f, " with the data of {pull}"),
                    None => write!(f, ", to be overwritten"),
                }
            }
            Finding::Environment { pull, server, serves } => {
                write!(f, "{pull} on {}", name_of(*server, old))?;
                match serves {
                    Some(sha) => write!(f, ", which serves {}", sha.short()),
                    None => write!(f, ", to be deployed anew"),
                }
            }
            Finding::Left { pull: Some(pull), why, .. } => write!(f, "{pull}: {why}"),
            Finding::Left { server: Some(server), why, .. } => {
                write!(f, "{}: {why}", name_of(*server, old))
            }
            Finding::Left { why, .. } => f.write_str(why),
        }
    }
}

impl Told<'_> {
    fn record(&self) -> String {
        match self.0 {
            Finding::Left { .. } => format!("no record of {self}"),
            _ => format!("a record of {self}"),
        }
    }
}

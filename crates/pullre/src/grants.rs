//! The rights of the two logins at a MySQL server, as SQL: the controller's, and the one that all
//! staging clients share. Each gets what its queries need and nothing else.

use std::collections::BTreeSet;
use std::fmt;

use crate::domain::SchemaName;
use crate::facts::Facts;
use crate::schema_clone::mysql::worked_in;

/// Statements without a semicolon, by who needs them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grants {
    /// The controller's login, at each tick and for every command of an operator.
    pub controller: Vec<String>,
    /// The same login in addition, while it runs `init`.
    pub init: Vec<String>,
    /// The undoing of `init`.
    pub after_init: Vec<String>,
    /// The staging clients' login. It names single columns, so the tables must be there.
    pub client: Vec<String>,
    control: SchemaName,
    without_source: bool,
}

/// The whole rows of a deployment are read; of every other table only these columns. Users, issues and commits are none of a client's business.
const CLIENT_READS: [(&str, &str); 13] = [
    ("agent_troubles", "server_id"),
    ("app_deaths", "server_id, deployment_id, times"),
    ("assignments", "server_id, pull_number, deployment_id"),
    ("deployments", ""),
    ("deployment_steps", "id, deployment_id, name, started_at, finished_at, exit_status, output"),
    ("local_slots", "name, state"),
    ("pull_requests", "number, sha, ref, is_launched"),
    ("pull_wishes", "number, held_at, held_until, held_reason"),
    ("schema_migrations", "name"),
    ("server_facts", "server_id, app_pull, app_sha, held_at, held_until, held_reason"),
    ("server_pulses", "server_id"),
    ("servers", "id, name, instance_id, private_ip, db_schema, check_url"),
    ("settings", "name"),
];

const CLIENT_INSERTS: [(&str, &str); 6] = [
    ("agent_troubles", "server_id, message"),
    ("app_deaths", "deployment_id, times, died_at, again_at, reason, server_id"),
    ("deployment_steps", "deployment_id, name, started_at, output"),
    ("events", "at, actor, pull_number, server_id, message"),
    ("server_facts", "server_id, start_attempts, stop_owed"),
    ("server_pulses", "free_bytes, total_bytes, load_percent, server_id"),
];

const CLIENT_UPDATES: [(&str, &str); 7] = [
    ("agent_troubles", "message"),
    ("app_deaths", "deployment_id, times, died_at, again_at, reason"),
    ("deployment_steps", "finished_at, exit_status, output"),
    ("deployments", "outcome, interruptions, started_at, finished_at, failed_step, reason"),
    ("pull_requests", "is_launched"),
    ("server_facts", "agent_seen_at, agent_version, app_pull, app_sha"),
    ("server_pulses", "free_bytes, total_bytes, load_percent"),
];

/// Statements that a client's login needs, and what each is for. They touch no row.
pub fn client_trials() -> Vec<(String, String)> {
    let none = "WHERE 1 = 0";
    let columns = |columns: &str| if columns.is_empty() { "*".into() } else { columns.to_owned() };
    let reads = CLIENT_READS.iter().map(|(table, names)| {
        (format!("read {table}"), format!("SELECT {} FROM {table} {none}", columns(names)))
    });
    let inserts = CLIENT_INSERTS.iter().map(|(table, names)| {
        let nulls = vec!["NULL"; names.split(',').count()].join(", ");
        let nothing = format!("SELECT {nulls} FROM (SELECT 1 AS one) AS no_row {none}");
        (format!("add to {table}"), format!("INSERT INTO {table} ({names}) {nothing}"))
    });
    let updates = CLIENT_UPDATES.iter().map(|(table, names)| {
        let sets: Vec<_> = names.split(", ").map(|name| format!("{name} = NULL")).collect();
        (format!("change {table}"), format!("UPDATE {table} SET {} {none}", sets.join(", ")))
    });
    reads.chain(inserts).chain(updates).collect()
}

/// What only a controller's login may do: a client's login with one of these rights has too many.
pub const NOT_A_CLIENTS: [(&str, &str); 3] = [
    ("change servers", "UPDATE servers SET db_schema = NULL WHERE 1 = 0"),
    ("change assignments", "UPDATE assignments SET deployment_id = NULL WHERE 1 = 0"),
    ("read the developers' schemas", "SELECT db_schema FROM git_hub_users WHERE 1 = 0"),
];

const CONTROLLER: &str = "SELECT, INSERT, UPDATE, DELETE";
const INIT: &str = "CREATE, ALTER, INDEX, REFERENCES";
/// Everything in a schema is read; the lock is for one moment that all tables share. Without EXECUTE
/// its routines would not even be seen, and the clone would lack them without a word.
const SOURCE: &str = "SELECT, LOCK TABLES, SHOW VIEW, TRIGGER, EVENT, EXECUTE";
/// A schema that is made anew, with all that may be in one.
const CLONE: &str = "SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, ALTER, INDEX, REFERENCES, \
                     LOCK TABLES, CREATE VIEW, SHOW VIEW, TRIGGER, CREATE ROUTINE, ALTER ROUTINE, \
                     EXECUTE, EVENT";

/// `controller` and `client` are accounts in SQL, like `'pullre_client'@'%'`.
pub fn grants(control: &SchemaName, facts: &Facts, controller: &str, client: &str) -> Grants {
    let on_all = |rights: &str, schema: &SchemaName| {
        format!("GRANT {rights} ON {}.* TO {controller}", pattern(schema))
    };
    let (sources, clones) = registered(control, facts);
    let mut statements = vec![on_all(CONTROLLER, control)];
    statements.extend(sources.iter().map(|schema| on_all(SOURCE, schema)));
    for schema in clones {
        statements.push(on_all(CLONE, schema));
        let beside = beside(schema).into_iter();
        statements.extend(beside.map(|like| format!("GRANT {CLONE} ON {like}.* TO {controller}")));
    }
    let on_columns = |right: &str, (table, columns): &(&str, &str)| {
        let columns = if columns.is_empty() { String::new() } else { format!(" ({columns})") };
        // A table is named, not matched.
        format!("GRANT {right}{columns} ON {}.`{table}` TO {client}", quoted(control.as_str()))
    };
    let reads = CLIENT_READS.iter().map(|columns| on_columns("SELECT", columns));
    let inserts = CLIENT_INSERTS.iter().map(|columns| on_columns("INSERT", columns));
    let updates = CLIENT_UPDATES.iter().map(|columns| on_columns("UPDATE", columns));
    Grants {
        controller: statements,
        init: vec![on_all(INIT, control)],
        after_init: vec![format!("REVOKE {INIT} ON {}.* FROM {controller}", pattern(control))],
        client: reads.chain(inserts).chain(updates).collect(),
        control: control.clone(),
        without_source: sources.is_empty(),
    }
}

/// The schemas that are read, and those that are made anew.
fn registered<'f>(
    control: &SchemaName,
    facts: &'f Facts,
) -> (BTreeSet<&'f SchemaName>, BTreeSet<&'f SchemaName>) {
    let sources: BTreeSet<_> =
        facts.users.iter().filter_map(|user| user.schema.as_ref().ok()).collect();
    let clones = facts.servers.values().filter_map(|server| server.schema.as_ref().ok());
    // Never a right to change what is a developer's, whatever a server's row says.
    let ours = |schema: &&SchemaName| {
        !schema.collides(control) && !sources.iter().any(|source| source.collides(schema))
    };
    let clones = clones.filter(ours).collect();
    (sources, clones)
}

/// The rights without which no clone is made, by schema; what a clone lacks without the others of a
/// source, its notes tell.
pub fn needed(control: &SchemaName, facts: &Facts) -> Vec<(String, Vec<&'static str>)> {
    const READ: [&str; 3] = ["SELECT", "SHOW VIEW", "TRIGGER"];
    let (sources, clones) = registered(control, facts);
    let sources = sources.into_iter().map(|schema| (schema.to_string(), READ.to_vec()));
    let clones = clones.into_iter().flat_map(worked_in);
    sources.chain(clones.map(|schema| (schema, CLONE.split(", ").collect()))).collect()
}

/// What `swap_busy = kill` takes: sessions of others are seen, and ended by any one of the second,
/// as the server calls it.
pub const KILL: (&str, [&str; 3]) = ("PROCESS", ["CONNECTION ADMIN", "CONNECTION_ADMIN", "SUPER"]);

impl fmt::Display for Grants {
    /// A script for the server's administrator. It makes no login: a password in it would be one
    /// that everybody knows.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "-- The logins of pullre at the MySQL server that holds {}, with only what they need.\n\
             -- Make them first, each with a password of its own, and with the host that it comes\n\
             -- from instead of % where you can:\n\
             --   CREATE USER 'pullre_controller'@'%' IDENTIFIED BY '...';\n\
             --   CREATE USER 'pullre_client'@'%' IDENTIFIED BY '...';\n\
             -- Run `update-pull grants` again after `server set ... db_schema` and `user set`.\n",
            self.control
        )?;
        writeln!(f, "-- The controller (mysql_user of its app.ini).")?;
        self.controller.iter().try_for_each(|sql| writeln!(f, "{sql};"))?;
        if self.without_source {
            writeln!(f, "-- No user is registered yet, so there is no schema to read.")?;
        }
        writeln!(
            f,
            "-- Where developers' schemas hold stored routines, reading their bodies needs in addition\n\
             --   MySQL 8.0.20 and later:    GRANT SHOW_ROUTINE ON *.* TO the controller's login;\n\
             --   MariaDB 11.3 and later:    GRANT SHOW CREATE ROUTINE ON each of these schemas;\n\
             --   MySQL 5.7, older MariaDB:  GRANT SELECT ON mysql.proc.\n\
             -- With `swap_busy = kill` it sees and ends other logins' sessions on a clone. That needs\n\
             --   MariaDB:                   GRANT PROCESS, CONNECTION ADMIN ON *.* TO the controller's login;\n\
             --   MySQL 8:                   GRANT PROCESS, CONNECTION_ADMIN ON *.* TO the controller's login;\n\
             --   MySQL 5.7:                 GRANT PROCESS, SUPER ON *.* TO the controller's login.\n\
             -- A server with a binary log lets no such login make functions and triggers unless\n\
             -- log_bin_trust_function_creators = 1 there, and copies no snapshot without making writers\n\
             -- wait unless binlog_format = ROW."
        )?;
        writeln!(
            f,
            "\n-- For `update-pull init`, once and after each upgrade; then take it back:"
        )?;
        self.init.iter().try_for_each(|sql| writeln!(f, "{sql};"))?;
        self.after_init.iter().try_for_each(|sql| writeln!(f, "--   {sql};"))?;
        writeln!(
            f,
            "\n-- Every staging server (mysql_user of its app.ini), once `update-pull init` has made the\n\
             -- tables. The app's own login is the app's matter: it needs its server's schema."
        )?;
        self.client.iter().try_for_each(|sql| writeln!(f, "{sql};"))
    }
}

fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// In front of `.*` a schema is a pattern: `_` and `%` would stand for other schemas too.
fn pattern(schema: &SchemaName) -> String {
    quoted(&literal(schema.as_str()))
}

fn literal(name: &str) -> String {
    name.replace('_', "\\_").replace('%', "\\%")
}

/// The schemas beside a clone, as patterns: a new one is made in one and takes the place of the old
/// one, which goes to the other, and stays in the third where it is kept. Of a long name the beginning
/// is kept, with a hash behind it.
fn beside(schema: &SchemaName) -> [String; 3] {
    const HASH: usize = "~0123456789abcdef".len();
    let [_, beside @ ..] = worked_in(schema);
    beside.map(|name| {
        let at = name.rfind('~').unwrap_or(name.len());
        let (start, end) = name.split_at(at);
        match start == schema.as_str() {
            true => quoted(&literal(&name)),
            // Escaped as a whole it may be longer than what the server takes.
            false => quoted(&format!("{}~%{end}", literal(&start[..start.len() - HASH]))),
        }
    })
}

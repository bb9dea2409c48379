//! Which schema may be whose: a server's is overwritten, a developer's never is. Pure.

use crate::domain::{SchemaName, ServerId};
use crate::facts::{Facts, Server};
use crate::schema_clone::mysql::is_beside;

/// Why nothing may be cloned into `schema` for this server, whatever the row says.
pub fn schema_refused(schema: &SchemaName, server: ServerId, facts: &Facts) -> Option<String> {
    if facts.control_schema.as_ref().is_some_and(|own| own.collides(schema)) {
        return Some(format!(
            "its schema {schema} is the control database; give it one of its own"
        ));
    }
    let twin = facts.servers.values().find(|other| {
        other.id != server && other.schema.as_ref().is_ok_and(|s| s.collides(schema))
    });
    if let Some(twin) = twin {
        let name = &twin.name;
        return Some(format!("server {name} names the same schema {schema}; give each its own"));
    }
    let source_of =
        facts.users.iter().find(|user| user.schema.as_ref().is_ok_and(|s| s.collides(schema)));
    if let Some(user) = source_of {
        return Some(format!(
            "its schema {schema} is the development schema of user {}, which is never overwritten",
            user.login
        ));
    }
    let others = facts.servers.values().filter(|other| other.id != server);
    let needs = |other: &&Server| other.schema.as_ref().is_ok_and(|s| is_beside(s, schema));
    if let Some(other) = others.clone().find(needs) {
        return Some(format!(
            "its schema {schema} has a name that clones for server {} need; give it another",
            other.name
        ));
    }
    let users = facts.users.iter().filter_map(|user| user.schema.as_ref().ok());
    let servers = others.filter_map(|other| other.schema.as_ref().ok());
    if let Some(other) = users.chain(servers).find(|other| is_beside(schema, other)) {
        return Some(format!(
            "clones into its schema {schema} need the name {other}, which is another schema's; rename one of them"
        ));
    }
    let owner = facts.clones.values().find(|clone| clone.schema.collides(schema));
    match owner {
        Some(clone) if clone.server != server => Some(format!(
            "its schema {schema} is recorded as {}'s; `update-pull server take-over` moves it",
            facts.server_name(clone.server)
        )),
        _ => None,
    }
}

/// Why a schema cannot be a developer's.
pub fn developer_refused(schema: &SchemaName, facts: &Facts) -> Option<String> {
    if facts.control_schema.as_ref().is_some_and(|own| own.collides(schema)) {
        return Some(format!("{schema} is the control database; it cannot be a developer's"));
    }
    let server = |is: &dyn Fn(&SchemaName) -> bool| {
        facts.servers.values().find(|server| server.schema.as_ref().is_ok_and(is))
    };
    if let Some(server) = server(&|of_server| is_beside(of_server, schema)) {
        return Some(format!(
            "{schema} is a name that clones for server {} need; it cannot be a developer's",
            server.name
        ));
    }
    let server = server(&|of_server| of_server.collides(schema))?;
    Some(format!(
        "{schema} is the schema of server {}, which is overwritten for every environment; it \
         cannot be a developer's",
        server.name
    ))
}

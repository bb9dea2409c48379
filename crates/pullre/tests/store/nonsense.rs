//! Rows that another hand wrote. Each ends in its own place, and concerns nobody else.

use pullre::domain::{InstanceId, PullNumber};
use pullre::facts::Outcome;
use pullre::store::Won;

use crate::db::{Db, at, sha};

on_each_engine!(
    an_empty_row_of_a_server_can_be_lived_with,
    a_schema_with_a_backtick_is_a_schema,
    a_schema_that_is_none_is_said_by_its_server_only,
    a_pull_request_of_nulls_is_unreadable_and_alone,
    a_pull_request_in_a_weird_state_is_unreadable_and_alone,
    a_commit_that_is_none_is_unreadable_and_healed_by_the_next_reading,
    a_server_in_a_weird_state_is_unreadable_and_alone,
    a_clone_in_a_weird_state_is_unreadable_and_alone,
    an_assignment_of_a_server_that_is_not_there_is_read,
    a_deployment_of_nonsense_leaves_its_assignment,
    an_assignment_of_nonsense_keeps_its_server_from_everybody,
    a_user_without_schema_is_read,
    a_slot_of_nonsense_leaves_the_other_slots_their_duties,
    a_death_of_nonsense_leaves_its_server_at_work,
);

/// All is well with environment 1, and this many rows are noted as unreadable.
fn the_rest_is_well(db: &mut Db, unreadable: usize) -> Vec<String> {
    let facts = db.facts().unwrap();
    assert_eq!(facts.unreadable.len(), unreadable, "{:?}", facts.unreadable);
    assert!(facts.pulls.contains_key(&PullNumber(1)));
    assert!(facts.assignments[&PullNumber(1)].deployment.is_some());
    facts.unreadable
}

fn a_death_of_nonsense_leaves_its_server_at_work(db: &mut Db) {
    let (_, server, _) = db.offered(1);
    db.write(&format!(
        "INSERT INTO app_deaths VALUES ({}, 1, 1, 9223372036854775807, 0, 'x')",
        server.0
    ));
    let unreadable = the_rest_is_well(db, 1);
    assert!(unreadable[0].contains("of app_deaths makes no sense"), "{unreadable:?}");
    assert_eq!(db.facts_of(server).death, None);
}

fn an_empty_row_of_a_server_can_be_lived_with(db: &mut Db) {
    db.offered(1);
    db.write("INSERT INTO servers (created_at, updated_at) VALUES ('2026-01-01', '2026-01-01')");
    the_rest_is_well(db, 0);
    let server = db.facts().unwrap().servers.into_values().last().unwrap();
    assert_eq!(server.name, format!("server {}", server.id.0));
    assert!(server.instance.is_none() && server.schema.is_err() && !server.is_staging);
}

fn a_schema_with_a_backtick_is_a_schema(db: &mut Db) {
    db.offered(1);
    let server = db.server("a`b; DROP TABLE servers");
    db.take_over(&"a`b; DROP TABLE servers".parse().unwrap(), server).unwrap();
    the_rest_is_well(db, 0);
    assert_eq!(db.clone_of("a`b; DROP TABLE servers").unwrap().server, server);
}

fn a_schema_that_is_none_is_said_by_its_server_only(db: &mut Db) {
    db.offered(1);
    let server = db.server("stg2");
    for schema in ["../../etc", "mysql", "a/b"] {
        db.write(&format!("UPDATE servers SET db_schema = '{schema}' WHERE id = {}", server.0));
        the_rest_is_well(db, 0);
        assert!(db.facts_of(server).schema.is_err());
    }
}

fn a_pull_request_of_nulls_is_unreadable_and_alone(db: &mut Db) {
    let (_, server, _) = db.offered(1);
    db.write(
        "INSERT INTO pull_requests (created_at, updated_at, number)
         VALUES ('2026-01-01', '2026-01-01', 2)",
    );
    the_rest_is_well(db, 0);
    db.write("UPDATE pull_requests SET state = 'open' WHERE number = 2");
    let unreadable = the_rest_is_well(db, 1);
    assert!(unreadable[0].starts_with("row 2 of pull_requests makes no sense"), "{unreadable:?}");
    db.write(&format!("UPDATE pull_requests SET server_id = {} WHERE number = 2", server.0));
    the_rest_is_well(db, 1);
}

fn a_pull_request_in_a_weird_state_is_unreadable_and_alone(db: &mut Db) {
    db.offered(1);
    let (two, server) = db.environment(2);
    db.write("UPDATE pull_requests SET state = 'weird' WHERE number = 2");
    the_rest_is_well(db, 1);
    // Its server stays its own: nothing is decided upon a row that cannot be read.
    assert_eq!(db.assignment(two).unwrap().server, server);
}

fn a_commit_that_is_none_is_unreadable_and_healed_by_the_next_reading(db: &mut Db) {
    db.offered(1);
    db.open_pull(2);
    db.write("UPDATE pull_requests SET sha = 'HEAD; rm -rf' WHERE number = 2");
    the_rest_is_well(db, 1);
    db.open_pull(2);
    the_rest_is_well(db, 0);
}

fn a_server_in_a_weird_state_is_unreadable_and_alone(db: &mut Db) {
    db.offered(1);
    let server = db.server("stg2");
    db.agent_seen(server, "0.1.0", at(1)).unwrap();
    db.write(&format!("UPDATE server_facts SET state = 'weird' WHERE server_id = {}", server.0));
    let unreadable = the_rest_is_well(db, 1);
    assert!(unreadable[0].contains("weird"), "{unreadable:?}");
}

fn a_clone_in_a_weird_state_is_unreadable_and_alone(db: &mut Db) {
    db.offered(1);
    let server = db.server("stg2");
    db.take_over(&"stg2".parse().unwrap(), server).unwrap();
    db.write("UPDATE clones SET state = 'weird'");
    the_rest_is_well(db, 1);
}

fn an_assignment_of_a_server_that_is_not_there_is_read(db: &mut Db) {
    db.offered(1);
    db.open_pull(2);
    db.write("INSERT INTO assignments (server_id, pull_number, assigned_at) VALUES (999, 2, 0)");
    the_rest_is_well(db, 0);
    assert_eq!(db.assignment(PullNumber(2)).unwrap().server.0, 999);
}

/// What its server runs is unknown then, so the next tick offers its commit anew.
fn a_deployment_of_nonsense_leaves_its_assignment(db: &mut Db) {
    db.offered(1);
    let (two, server, deployment) = db.running(2);
    for nonsense in ["outcome = 'weird'", "sha = 'HEAD'", "attempt = -1"] {
        db.write(&format!("UPDATE deployments SET {nonsense} WHERE id = {}", deployment.id));
        the_rest_is_well(db, 1);
        let assignment = db.assignment(two).unwrap();
        assert_eq!((assignment.server, assignment.deployment), (server, None));
    }
    assert_eq!(db.offer(two, server, &sha(1), 1, at(9)).unwrap(), Won::Yes);
    the_rest_is_well(db, 0);
    assert_eq!(db.deployment(two).unwrap().outcome, Outcome::Offered);
}

fn an_assignment_of_nonsense_keeps_its_server_from_everybody(db: &mut Db) {
    db.offered(1);
    let server = db.server("stg2");
    db.write(&format!(
        "INSERT INTO assignments (server_id, pull_number, assigned_at) VALUES ({}, -5, 0)",
        server.0
    ));
    the_rest_is_well(db, 1);
    assert!(!db.facts().unwrap().servers.contains_key(&server));
}

fn a_user_without_schema_is_read(db: &mut Db) {
    db.offered(1);
    db.write(
        "INSERT INTO git_hub_users (created_at, updated_at, login)
         VALUES ('2026-01-01', '2026-01-01', 'dev3')",
    );
    the_rest_is_well(db, 0);
    assert!(db.users().unwrap()[0].schema.is_err());
}

fn a_slot_of_nonsense_leaves_the_other_slots_their_duties(db: &mut Db) {
    db.running(1);
    let (_, _, deployment) = db.running(2);
    for slot in ["i-stg1", "i-stg2"] {
        db.add_local_slot(&InstanceId(slot.into())).unwrap();
    }
    db.write(&format!("UPDATE deployments SET sha = 'HEAD' WHERE id = {}", deployment.id));
    let duties = db.local_duties().unwrap();
    assert_eq!(duties.iter().map(|duty| duty.name.as_str()).collect::<Vec<_>>(), ["stg1"]);
    assert!(db.duties_of("stg2").is_err());
}

use pullre::domain::PullNumber;
use pullre::facts::Outcome;
use pullre::store::Won;
use pullre::store::backend::Value;

use crate::db::{Db, at, sha};

on_each_engine!(
    a_server_is_given_to_one_environment_only,
    an_environment_gets_one_server_only,
    who_is_slower_gets_nothing_and_changes_nothing,
    an_assignment_starts_with_a_clean_slate_of_its_server,
    the_row_that_others_read_mirrors_the_assignment,
    a_release_owes_a_stop_and_ends_what_was_offered,
    a_server_is_released_once,
    nobody_releases_the_server_of_another,
    a_released_server_is_the_one_that_is_preferred_again,
    a_commit_is_offered_to_the_owner_of_the_server_only,
    a_new_offer_supersedes_the_one_before,
    an_offer_leaves_what_has_ended_as_it_ended,
    withdrawing_leaves_the_server_and_ends_what_was_offered,
    nobody_withdraws_the_deployment_of_another,
);

fn source() -> pullre::domain::SchemaName {
    "db_dev1".parse().unwrap()
}

fn a_server_is_given_to_one_environment_only(db: &mut Db) {
    let (one, server) = db.environment(1);
    let two = db.open_pull(2);
    assert_eq!(db.assign(two, server, &source(), at(5)).unwrap(), Won::No);
    let assignments = db.facts().unwrap().assignments;
    assert_eq!(assignments.len(), 1);
    assert_eq!(assignments[&one].server, server);
}

fn an_environment_gets_one_server_only(db: &mut Db) {
    let (one, server) = db.environment(1);
    let other = db.server("other");
    assert_eq!(db.assign(one, other, &source(), at(5)).unwrap(), Won::No);
    assert_eq!(db.assignment(one).unwrap().server, server);
}

fn who_is_slower_gets_nothing_and_changes_nothing(db: &mut Db) {
    let (_, server) = db.environment(1);
    let two = db.open_pull(2);
    let before = db.facts().unwrap();
    let events = db.events(two);
    assert_eq!(db.another().assign(two, server, &source(), at(5)).unwrap(), Won::No);
    let after = db.facts().unwrap();
    assert_eq!(after.pulls, before.pulls);
    assert_eq!(after.servers, before.servers);
    assert_eq!(db.events(two), events);
    assert_eq!(db.read_one("SELECT server_id FROM pull_requests WHERE number = 2"), Value::Null);
}

fn an_assignment_starts_with_a_clean_slate_of_its_server(db: &mut Db) {
    let server = db.server("stg1");
    let (one, two) = (db.open_pull(1), db.open_pull(2));
    assert_eq!(db.assign(one, server, &source(), at(2)).unwrap(), Won::Yes);
    db.start_requested(server, at(3)).unwrap();
    db.start_requested(server, at(4)).unwrap();
    db.start_refused(server, "the zone is full", None).unwrap();
    assert_eq!(db.release(one, server, "closed", at(5)).unwrap(), Won::Yes);
    assert_eq!(db.assign(two, server, &source(), at(6)).unwrap(), Won::Yes);
    let server = db.facts_of(server);
    assert_eq!(server.start, Default::default());
    assert!(!server.stop_owed);
}

fn the_row_that_others_read_mirrors_the_assignment(db: &mut Db) {
    let (one, server) = db.environment(1);
    let mirror = "SELECT server_id, db_schema, is_launched FROM pull_requests WHERE number = 1";
    assert_eq!(db.read(mirror), [[server.0.into(), "db_dev1".into(), Value::Null]]);
    assert_eq!(db.release(one, server, "closed", at(5)).unwrap(), Won::Yes);
    assert_eq!(db.read(mirror), [[Value::Null, "db_dev1".into(), Value::Null]]);
}

fn a_release_owes_a_stop_and_ends_what_was_offered(db: &mut Db) {
    let (pull, server, _) = db.running(1);
    assert_eq!(db.release(pull, server, "closed", at(9)).unwrap(), Won::Yes);
    assert!(db.facts_of(server).stop_owed);
    assert_eq!(db.assignment(pull), None);
    let [deployment] = &db.deployments(pull)[..] else { panic!("one deployment") };
    assert_eq!(deployment.outcome, Outcome::Superseded);
    assert_eq!(deployment.finished_at, Some(at(9)));
    assert_eq!(db.is_launched(1), Value::Null);
    db.stop_settled(server).unwrap();
    assert!(!db.facts_of(server).stop_owed);
}

fn a_server_is_released_once(db: &mut Db) {
    let (pull, server) = db.environment(1);
    assert_eq!(db.release(pull, server, "closed", at(5)).unwrap(), Won::Yes);
    db.stop_settled(server).unwrap();
    let events = db.events(pull);
    assert_eq!(db.release(pull, server, "closed", at(6)).unwrap(), Won::No);
    assert!(!db.facts_of(server).stop_owed);
    assert_eq!(db.events(pull), events);
}

fn nobody_releases_the_server_of_another(db: &mut Db) {
    let (one, server, _) = db.running(1);
    assert_eq!(db.release(PullNumber(2), server, "closed", at(5)).unwrap(), Won::No);
    assert_eq!(db.deployment(one).unwrap().outcome, Outcome::Running);
    assert!(!db.facts_of(server).stop_owed);
}

fn a_released_server_is_the_one_that_is_preferred_again(db: &mut Db) {
    let (pull, server) = db.environment(1);
    assert_eq!(db.release(pull, server, "closed", at(5)).unwrap(), Won::Yes);
    assert_eq!(db.pull(pull).unwrap().unwrap().last_server, Some(server));
}

fn a_commit_is_offered_to_the_owner_of_the_server_only(db: &mut Db) {
    let (one, server, before) = db.running(1);
    let two = db.open_pull(2);
    assert_eq!(db.offer(two, server, &sha(2), 1, at(5)).unwrap(), Won::No);
    assert_eq!(db.deployments(two), []);
    assert_eq!(db.deployment(one).unwrap().id, before.id);
    assert_eq!(db.deployment(one).unwrap().outcome, Outcome::Running);
    assert_eq!(db.is_launched(2), Value::Null);
}

fn a_new_offer_supersedes_the_one_before(db: &mut Db) {
    let (pull, server, first) = db.running(1);
    assert_eq!(db.offer(pull, server, &sha(2), 3, at(7)).unwrap(), Won::Yes);
    let [old, new] = &db.deployments(pull)[..] else { panic!("two deployments") };
    assert_eq!(
        (old.id, old.outcome, old.finished_at),
        (first.id, Outcome::Superseded, Some(at(7)))
    );
    assert_eq!((new.outcome, &new.sha, new.attempt), (Outcome::Offered, &sha(2), 3));
    assert_eq!((new.offered_at, new.started_at, new.interruptions), (at(7), None, 0));
    assert_eq!(db.deployment(pull).unwrap(), *new);
}

fn an_offer_leaves_what_has_ended_as_it_ended(db: &mut Db) {
    let (pull, server, first) = db.running(1);
    assert_eq!(db.deployment_failed(&first, "migrate", "exit 1", at(5)).unwrap(), Won::Yes);
    assert_eq!(db.offer(pull, server, &sha(1), 2, at(65)).unwrap(), Won::Yes);
    let old = &db.deployments(pull)[0];
    assert_eq!((old.outcome, old.finished_at), (Outcome::Failed, Some(at(5))));
    assert_eq!(old.failed_step.as_deref(), Some("migrate"));
    assert_eq!(old.reason.as_deref(), Some("exit 1"));
}

fn withdrawing_leaves_the_server_and_ends_what_was_offered(db: &mut Db) {
    let (pull, server, _) = db.running(1);
    assert_eq!(db.withdraw(pull, server, at(6)).unwrap(), Won::Yes);
    let assignment = db.assignment(pull).unwrap();
    assert_eq!((assignment.server, assignment.deployment), (server, None));
    assert_eq!(db.deployments(pull)[0].outcome, Outcome::Superseded);
    assert_eq!(db.is_launched(1), Value::Null);
}

fn nobody_withdraws_the_deployment_of_another(db: &mut Db) {
    let (one, server, _) = db.running(1);
    assert_eq!(db.withdraw(PullNumber(2), server, at(6)).unwrap(), Won::No);
    assert_eq!(db.deployment(one).unwrap().outcome, Outcome::Running);
}

use pullre::facts::{App, Outcome};
use pullre::reconcile::plan::Record;
use pullre::store::Won;
use pullre::store::backend::Value;

use crate::db::{Db, at, request, sha};

on_each_engine!(
    a_client_finds_its_duty_by_name_and_by_instance,
    names_are_told_apart_by_case,
    a_server_without_environment_has_a_duty_without_task,
    every_slot_of_this_machine_has_a_duty,
    a_client_learns_that_all_is_paused,
    a_deployment_is_taken_up,
    a_client_that_died_in_the_middle_begins_again,
    what_is_not_wanted_any_more_is_not_begun,
    a_deployment_is_wanted_until_another_takes_its_place,
    the_last_act_says_that_the_commit_runs,
    a_push_before_the_last_act_is_not_marked_as_launched,
    an_offer_before_the_last_act_makes_it_lose,
    a_release_before_the_last_act_makes_it_lose,
    the_last_act_is_done_once,
    a_failure_names_its_step_and_reason,
    a_failure_of_what_was_superseded_changes_nothing,
    a_client_of_the_ancestor_is_told_to_launch_what_is_offered_only,
    the_app_that_runs_is_recorded_and_forgotten,
);

fn a_client_finds_its_duty_by_name_and_by_instance(db: &mut Db) {
    let (pull, server, deployment) = db.offered(1);
    db.set_server(server, &[("check_url", "http://stg1/".into())], at(3)).unwrap();
    db.server("stg2");
    for name in ["stg1", "i-stg1"] {
        let [duty] = &db.duties_of(name).unwrap()[..] else { panic!("one duty") };
        assert_eq!(
            (duty.server, duty.name.as_str(), duty.schema.as_str()),
            (server, "stg1", "stg1")
        );
        assert_eq!(duty.check_url.as_deref(), Some("http://stg1/"));
        let task = duty.task.as_ref().unwrap();
        assert_eq!((task.deployment.pull, &task.deployment), (pull, &deployment));
        assert_eq!(task.head_ref, "feature-1");
    }
    assert!(db.duties_of("stg3").unwrap().is_empty());
}

/// MySQL compares without case by itself; a client must never take up the duty of another server.
fn names_are_told_apart_by_case(db: &mut Db) {
    db.offered(1);
    let upper = db.server("STG1");
    assert!(db.duties_of("Stg1").unwrap().is_empty());
    let [duty] = &db.duties_of("STG1").unwrap()[..] else { panic!("one duty") };
    assert_eq!(duty.server, upper);
    assert!(duty.task.is_none());
}

fn a_server_without_environment_has_a_duty_without_task(db: &mut Db) {
    let server = db.server("stg1");
    let [duty] = &db.duties_of("stg1").unwrap()[..] else { panic!("one duty") };
    assert_eq!(duty.server, server);
    assert!(duty.task.is_none() && duty.app.is_none() && !duty.paused);
}

fn every_slot_of_this_machine_has_a_duty(db: &mut Db) {
    for name in ["a", "b", "elsewhere"] {
        db.server(name);
    }
    for slot in ["i-a", "i-b"] {
        db.add_local_slot(&pullre::domain::InstanceId(slot.into())).unwrap();
    }
    let names: Vec<_> = db.local_duties().unwrap().into_iter().map(|duty| duty.name).collect();
    assert_eq!(names, ["a", "b"]);
}

fn a_client_learns_that_all_is_paused(db: &mut Db) {
    db.server("stg1");
    db.set_paused(Some("by me".into())).unwrap();
    assert!(db.duties_of("stg1").unwrap()[0].paused);
    db.set_paused(None).unwrap();
    assert!(!db.duties_of("stg1").unwrap()[0].paused);
}

fn a_deployment_is_taken_up(db: &mut Db) {
    let (pull, _, deployment) = db.offered(1);
    assert_eq!(db.begin_deployment(deployment.id, at(9)).unwrap(), Won::Yes);
    let now = db.deployment(pull).unwrap();
    assert_eq!(
        (now.outcome, now.started_at, now.interruptions),
        (Outcome::Running, Some(at(9)), 0)
    );
}

fn a_client_that_died_in_the_middle_begins_again(db: &mut Db) {
    let (pull, _, deployment) = db.running(1);
    for interruption in 1..=2 {
        let now = at(10 + i64::from(interruption));
        assert_eq!(db.begin_deployment(deployment.id, now).unwrap(), Won::Yes);
        let deployment = db.deployment(pull).unwrap();
        assert_eq!((deployment.interruptions, deployment.started_at), (interruption, Some(now)));
    }
}

fn what_is_not_wanted_any_more_is_not_begun(db: &mut Db) {
    let (pull, server, first) = db.offered(1);
    assert_eq!(db.offer(pull, server, &sha(2), 1, at(5)).unwrap(), Won::Yes);
    assert_eq!(db.begin_deployment(first.id, at(6)).unwrap(), Won::No);
    let second = db.deployment(pull).unwrap();
    assert_eq!(db.release(pull, server, "closed", at(7)).unwrap(), Won::Yes);
    assert_eq!(db.begin_deployment(second.id, at(8)).unwrap(), Won::No);
    assert_eq!(db.begin_deployment(12345, at(8)).unwrap(), Won::No);
}

fn a_deployment_is_wanted_until_another_takes_its_place(db: &mut Db) {
    let (pull, server, first) = db.offered(1);
    assert!(!db.is_wanted(first.id).unwrap());
    assert_eq!(db.begin_deployment(first.id, at(4)).unwrap(), Won::Yes);
    assert!(db.is_wanted(first.id).unwrap());
    assert_eq!(db.another().offer(pull, server, &sha(2), 1, at(5)).unwrap(), Won::Yes);
    assert!(!db.is_wanted(first.id).unwrap());
}

fn the_last_act_says_that_the_commit_runs(db: &mut Db) {
    let (pull, server, deployment) = db.running(1);
    assert_eq!(db.deployment_succeeded(&deployment, at(20)).unwrap(), Won::Yes);
    let now = db.deployment(pull).unwrap();
    assert_eq!((now.outcome, now.finished_at), (Outcome::Succeeded, Some(at(20))));
    assert_eq!(db.is_launched(1), Value::Int(1));
    let last = &db.events_of(pull, 1).unwrap()[0];
    assert_eq!((last.actor.as_str(), last.server, last.at), ("client", Some(server), at(20)));
}

/// The commit that was offered does run now; but it is the head no more.
fn a_push_before_the_last_act_is_not_marked_as_launched(db: &mut Db) {
    let (pull, _, deployment) = db.running(1);
    db.pull_request(1, |request| request.head = sha(2));
    assert_eq!(db.deployment_succeeded(&deployment, at(20)).unwrap(), Won::Yes);
    assert_eq!(db.deployment(pull).unwrap().sha, sha(1));
    assert_eq!(db.is_launched(1), Value::Null);
}

fn an_offer_before_the_last_act_makes_it_lose(db: &mut Db) {
    let (pull, server, first) = db.running(1);
    db.pull_request(1, |request| request.head = sha(2));
    assert_eq!(db.another().offer(pull, server, &sha(2), 1, at(19)).unwrap(), Won::Yes);
    assert_eq!(db.deployment_succeeded(&first, at(20)).unwrap(), Won::No);
    assert_eq!(db.deployments(pull)[0].outcome, Outcome::Superseded);
    assert_eq!(db.deployment(pull).unwrap().outcome, Outcome::Offered);
    assert_eq!(db.is_launched(1), Value::Int(0));
}

fn a_release_before_the_last_act_makes_it_lose(db: &mut Db) {
    let (pull, server, deployment) = db.running(1);
    assert_eq!(db.another().release(pull, server, "closed", at(19)).unwrap(), Won::Yes);
    let events = db.events(pull);
    assert_eq!(db.deployment_succeeded(&deployment, at(20)).unwrap(), Won::No);
    assert_eq!(db.is_launched(1), Value::Null);
    assert_eq!(db.events(pull), events);
}

fn the_last_act_is_done_once(db: &mut Db) {
    let (pull, _, deployment) = db.running(1);
    assert_eq!(db.deployment_succeeded(&deployment, at(20)).unwrap(), Won::Yes);
    assert_eq!(db.deployment_succeeded(&deployment, at(21)).unwrap(), Won::No);
    assert_eq!(db.deployment_failed(&deployment, "check", "no", at(22)).unwrap(), Won::No);
    assert_eq!(db.deployment(pull).unwrap().finished_at, Some(at(20)));
}

fn a_failure_names_its_step_and_reason(db: &mut Db) {
    let (pull, _, deployment) = db.running(1);
    assert_eq!(db.deployment_failed(&deployment, "migrate", "exit 1", at(20)).unwrap(), Won::Yes);
    let now = db.deployment(pull).unwrap();
    assert_eq!((now.outcome, now.finished_at), (Outcome::Failed, Some(at(20))));
    assert_eq!(now.failed_step.as_deref(), Some("migrate"));
    assert_eq!(now.reason.as_deref(), Some("exit 1"));
    assert_eq!(db.is_launched(1), Value::Int(0));
    assert_eq!(db.events(pull).last().unwrap(), "0000000 failed in step migrate: exit 1");
}

fn a_failure_of_what_was_superseded_changes_nothing(db: &mut Db) {
    let (pull, server, first) = db.running(1);
    assert_eq!(db.offer(pull, server, &sha(2), 1, at(19)).unwrap(), Won::Yes);
    assert_eq!(db.deployment_failed(&first, "migrate", "exit 1", at(20)).unwrap(), Won::No);
    assert_eq!(db.deployments(pull)[0].outcome, Outcome::Superseded);
    assert_eq!(db.deployment(pull).unwrap().outcome, Outcome::Offered);
}

/// pullre-kun's client launches `sha` where `is_launched` is 0, and writes 1.
fn a_client_of_the_ancestor_is_told_to_launch_what_is_offered_only(db: &mut Db) {
    let (pull, server) = db.environment(1);
    assert_eq!(db.is_launched(1), Value::Null);
    // Not the head: that client would launch another commit than the one we mean.
    assert_eq!(db.offer(pull, server, &sha(9), 1, at(3)).unwrap(), Won::Yes);
    assert_eq!(db.is_launched(1), Value::Null);
    assert_eq!(db.offer(pull, server, &sha(1), 1, at(4)).unwrap(), Won::Yes);
    assert_eq!(db.is_launched(1), Value::Int(0));
    let deployment = db.deployment(pull).unwrap();
    assert_eq!(db.begin_deployment(deployment.id, at(5)).unwrap(), Won::Yes);
    assert_eq!(db.deployment_succeeded(&deployment, at(6)).unwrap(), Won::Yes);
    assert_eq!(db.is_launched(1), Value::Int(1));
    // Reading the same head again changes nothing; a new head is not launched yet.
    db.record(&[Record::Pull(Box::new(request(1)))], at(7)).unwrap();
    assert_eq!(db.is_launched(1), Value::Int(1));
    db.pull_request(1, |request| request.head = sha(2));
    assert_eq!(db.is_launched(1), Value::Null);
}

fn the_app_that_runs_is_recorded_and_forgotten(db: &mut Db) {
    let (pull, server) = db.environment(1);
    let app = App { pull, sha: sha(1) };
    db.app_is(server, Some(&app)).unwrap();
    assert_eq!(db.facts_of(server).app, Some(app.clone()));
    assert_eq!(db.duties_of("stg1").unwrap()[0].app, Some(app));
    db.app_is(server, None).unwrap();
    assert_eq!(db.facts_of(server).app, None);
}

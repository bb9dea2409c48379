use pullre::domain::PullNumber;
use pullre::facts::Outcome;
use pullre::reconcile::plan::Record;
use pullre::store::Won;

use crate::db::{Db, at, sha};

on_each_engine!(
    steps_are_kept_in_order_with_what_they_printed,
    a_step_that_its_client_died_in_has_no_end,
    events_and_deployments_come_newest_first_and_no_more_than_asked_for,
    the_last_deployment_that_began_on_a_server_is_found,
    old_history_goes_and_young_history_stays,
    what_an_assignment_points_at_is_never_removed,
    what_has_not_ended_is_never_removed,
);

fn steps_are_kept_in_order_with_what_they_printed(db: &mut Db) {
    let (_, _, deployment) = db.running(1);
    let checkout = db.step_started(deployment.id, "checkout", at(5)).unwrap();
    let migrate = db.step_started(deployment.id, "migrate", at(6)).unwrap();
    db.step_finished(migrate, Some(-9), "killed", at(8)).unwrap();
    db.step_finished(checkout, Some(0), "HEAD is now at\n\u{1b}[31m🍣", at(7)).unwrap();
    let [first, second] = &db.steps_of(deployment.id).unwrap()[..] else { panic!("two steps") };
    assert_eq!((first.name.as_str(), first.exit_status), ("checkout", Some(0)));
    assert_eq!((first.started_at, first.finished_at), (at(5), Some(at(7))));
    assert_eq!(first.output, "HEAD is now at\n\u{1b}[31m🍣");
    assert_eq!((second.name.as_str(), second.exit_status), ("migrate", Some(-9)));
    assert_eq!(db.steps_of(deployment.id + 1).unwrap(), []);
}

fn a_step_that_its_client_died_in_has_no_end(db: &mut Db) {
    let (_, _, deployment) = db.running(1);
    db.step_started(deployment.id, "migrate", at(6)).unwrap();
    let step = db.steps_of(deployment.id).unwrap().remove(0);
    assert_eq!((step.finished_at, step.exit_status, step.output.as_str()), (None, None, ""));
}

fn events_and_deployments_come_newest_first_and_no_more_than_asked_for(db: &mut Db) {
    let (pull, server, _) = db.offered(1);
    for n in 2..=5 {
        assert_eq!(db.offer(pull, server, &sha(n), 1, at(10)).unwrap(), Won::Yes);
        db.event(at(10), "tester", Some(pull), None, &format!("event {n}")).unwrap();
    }
    db.event(at(11), "tester", None, None, "concerns nobody").unwrap();
    let shas: Vec<_> = db.deployments_of(pull, 2).unwrap().into_iter().map(|d| d.sha).collect();
    assert_eq!(shas, [sha(5), sha(4)]);
    let events = db.events_of(pull, 2).unwrap();
    assert_eq!(events[0].message, "event 5");
    assert_eq!(events[1].message, "event 4");
    assert_eq!(
        (events[0].actor.as_str(), events[0].pull, events[0].server),
        ("tester", Some(pull), None)
    );
}

fn the_last_deployment_that_began_on_a_server_is_found(db: &mut Db) {
    let (pull, server, first) = db.running(1);
    assert_eq!(db.offer(pull, server, &sha(2), 1, at(9)).unwrap(), Won::Yes);
    assert_eq!(db.deployment_on(server).unwrap().unwrap().id, first.id);
    let free = db.server("free");
    assert_eq!(db.deployment_on(free).unwrap(), None);
}

fn forget_before(db: &mut Db, seconds: i64) {
    db.record(&[Record::Forget { before: at(seconds) }], at(1000)).unwrap();
}

fn old_history_goes_and_young_history_stays(db: &mut Db) {
    let (pull, server, old) = db.running(1);
    db.step_started(old.id, "migrate", at(5)).unwrap();
    assert_eq!(db.deployment_failed(&old, "migrate", "exit 1", at(6)).unwrap(), Won::Yes);
    assert_eq!(db.offer(pull, server, &sha(1), 2, at(100)).unwrap(), Won::Yes);
    assert_eq!(db.withdraw(pull, server, at(101)).unwrap(), Won::Yes);
    db.event(at(100), "tester", Some(pull), None, "young").unwrap();
    forget_before(db, 100);
    let [young] = &db.deployments(pull)[..] else { panic!("one deployment") };
    assert_eq!(young.outcome, Outcome::Superseded);
    assert_eq!(db.steps_of(old.id).unwrap(), []);
    assert_eq!(db.events(pull), ["young"]);
    assert_eq!(db.facts().unwrap().forgot_at, Some(at(1000)));
}

fn what_an_assignment_points_at_is_never_removed(db: &mut Db) {
    let (pull, _, deployment) = db.running(1);
    let step = db.step_started(deployment.id, "check", at(5)).unwrap();
    db.step_finished(step, Some(0), "", at(6)).unwrap();
    assert_eq!(db.deployment_succeeded(&deployment, at(6)).unwrap(), Won::Yes);
    forget_before(db, 900);
    assert_eq!(db.deployment(pull).unwrap().outcome, Outcome::Succeeded);
    assert_eq!(db.steps_of(deployment.id).unwrap().len(), 1);
    assert_eq!(db.events(pull), [""; 0]);
}

fn what_has_not_ended_is_never_removed(db: &mut Db) {
    let (_, _, deployment) = db.running(1);
    // Orphaned by hand.
    db.write("DELETE FROM assignments");
    forget_before(db, 900);
    assert_eq!(db.deployments(PullNumber(1))[0].id, deployment.id);
}

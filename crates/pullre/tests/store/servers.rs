use pullre::domain::{InstanceId, InstanceState, ServerId};
use pullre::facts::{App, AppDeath, Pulse, StartTries};
use pullre::reconcile::plan::Record;
use pullre::store::Won;

use crate::db::{Db, at, sha};

on_each_engine!(
    the_state_of_an_instance_is_kept,
    a_machine_that_runs_needs_no_more_tries_to_start,
    the_app_ends_with_its_machine,
    a_machine_on_its_way_keeps_tries_and_app,
    tries_to_start_are_counted_before_they_are_made,
    a_sign_of_life_is_kept,
    what_a_machine_measured_last_is_kept,
    the_death_of_an_app_is_kept_until_it_lives_again,
    a_settled_stop_is_owed_no_more,
    slots_are_made_once_and_change_state,
    a_login_with_all_rights_lacks_none_of_a_clients,
);

fn seen(db: &mut Db, server: ServerId, state: Option<InstanceState>) {
    db.record(&[Record::Instance { server, name: "stg".into(), state }], at(9)).unwrap();
}

/// A server with tries to start and an app.
fn busy(db: &mut Db) -> (ServerId, App) {
    let (pull, server) = db.environment(1);
    let app = App { pull, sha: sha(1) };
    db.app_is(server, Some(&app)).unwrap();
    db.start_requested(server, at(5)).unwrap();
    db.start_refused(server, "the zone is full", None).unwrap();
    (server, app)
}

fn the_state_of_an_instance_is_kept(db: &mut Db) {
    let server = db.server("stg1");
    assert_eq!(db.facts_of(server).state, None);
    for state in [
        InstanceState::Pending,
        InstanceState::Running,
        InstanceState::Stopping,
        InstanceState::Stopped,
        InstanceState::Terminated,
    ] {
        seen(db, server, Some(state));
        assert_eq!(db.facts_of(server).state, Some(state));
    }
    seen(db, server, None);
    assert_eq!(db.facts_of(server).state, None);
}

fn a_machine_that_runs_needs_no_more_tries_to_start(db: &mut Db) {
    let (server, app) = busy(db);
    seen(db, server, Some(InstanceState::Running));
    let server = db.facts_of(server);
    assert_eq!((server.start, server.app), (StartTries::default(), Some(app)));
}

fn the_app_ends_with_its_machine(db: &mut Db) {
    for gone in [Some(InstanceState::Stopped), Some(InstanceState::Terminated), None] {
        let server = db.server(&format!("{gone:?}"));
        let pull = db.open_pull(5);
        db.app_is(server, Some(&App { pull, sha: sha(1) })).unwrap();
        db.start_requested(server, at(5)).unwrap();
        seen(db, server, gone);
        let server = db.facts_of(server);
        assert_eq!((server.app, server.start.attempts), (None, 1));
    }
}

fn a_machine_on_its_way_keeps_tries_and_app(db: &mut Db) {
    let (server, app) = busy(db);
    for state in [InstanceState::Pending, InstanceState::Stopping] {
        seen(db, server, Some(state));
        let server = db.facts_of(server);
        assert_eq!((server.app, server.start.attempts), (Some(app.clone()), 1));
    }
}

fn tries_to_start_are_counted_before_they_are_made(db: &mut Db) {
    let server = db.server("stg1");
    db.start_requested(server, at(5)).unwrap();
    db.start_refused(server, "the zone is full", None).unwrap();
    let tries = |requested, attempts, error: Option<&str>| StartTries {
        requested_at: Some(at(requested)),
        attempts,
        error: error.map(str::to_owned),
    };
    assert_eq!(db.facts_of(server).start, tries(5, 1, Some("the zone is full")));
    db.start_requested(server, at(65)).unwrap();
    assert_eq!(db.facts_of(server).start, tries(65, 2, None));
}

fn a_sign_of_life_is_kept(db: &mut Db) {
    let server = db.server("stg1");
    assert_eq!(db.facts_of(server).agent, None);
    for (seconds, version) in [(5, "0.1.0"), (65, "0.1.0"), (125, "0.2.0")] {
        db.agent_seen(server, version, at(seconds)).unwrap();
        let agent = db.facts_of(server).agent.unwrap();
        assert_eq!((agent.seen_at, agent.version.as_str()), (at(seconds), version));
    }
}

fn what_a_machine_measured_last_is_kept(db: &mut Db) {
    let (server, other) = (db.server("stg1"), db.server("stg2"));
    for free_bytes in [7, u64::MAX >> 1, 0] {
        let pulse = Pulse { free_bytes, total_bytes: 9, load_percent: 150 };
        db.measured(server, &pulse).unwrap();
        assert_eq!(db.facts_of(server).pulse, Some(pulse));
    }
    assert_eq!(db.facts_of(other).pulse, None);
    // Damaged by hand: only shown, so nothing else depends on it.
    db.write("UPDATE server_pulses SET free_bytes = -1");
    assert_eq!(db.facts_of(server).pulse, None);
}

fn the_death_of_an_app_is_kept_until_it_lives_again(db: &mut Db) {
    let server = db.server("stg1");
    db.app_lives(server).unwrap();
    for times in [1, 2] {
        let reason = "out of memory".to_owned();
        let death = AppDeath { deployment: 5, times, at: at(1), again_at: at(2), reason };
        db.app_died(server, &death).unwrap();
        assert_eq!(db.facts_of(server).death, Some(death));
    }
    db.app_lives(server).unwrap();
    assert_eq!(db.facts_of(server).death, None);
}

fn a_settled_stop_is_owed_no_more(db: &mut Db) {
    let (pull, server) = db.environment(1);
    assert_eq!(db.release(pull, server, "closed", at(5)).unwrap(), Won::Yes);
    db.record(&[Record::StopSettled { server, name: "stg1".into() }], at(6)).unwrap();
    assert!(!db.facts_of(server).stop_owed);
}

fn a_login_with_all_rights_lacks_none_of_a_clients(db: &mut Db) {
    assert_eq!(db.missing_client_rights().unwrap(), [""; 0]);
}

fn slots_are_made_once_and_change_state(db: &mut Db) {
    let slot = InstanceId("box 1".into());
    db.add_local_slot(&slot).unwrap();
    assert_eq!(db.set_local_slot(&slot, InstanceState::Running).unwrap(), Won::Yes);
    db.add_local_slot(&slot).unwrap();
    assert_eq!(db.local_slots().unwrap(), [(slot, InstanceState::Running)]);
    let other = InstanceId("box 2".into());
    assert_eq!(db.set_local_slot(&other, InstanceState::Running).unwrap(), Won::No);
}

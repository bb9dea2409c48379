use pullre::domain::{InstanceId, InstanceState, Login, PullNumber, SchemaName};
use pullre::facts::Hold;
use pullre::store::Won;
use pullre::store::backend::Value;
use pullre::switches::Switching;

use crate::db::{Db, at};

on_each_engine!(
    times_to_switch_are_kept,
    a_pause_says_who_and_ends,
    a_registered_server_is_in_the_pool_with_what_was_set,
    settings_of_a_server_are_cleared_by_null,
    servers_are_held_and_released,
    pull_requests_are_held_and_released,
    users_are_one_whatever_the_case_of_their_login,
    a_removed_user_is_gone,
    a_server_that_serves_is_not_removed,
    a_removed_server_takes_its_records_along,
    machines_are_hidden_once_and_shown_again,
);

fn a_pause_says_who_and_ends(db: &mut Db) {
    assert_eq!(db.facts().unwrap().paused, None);
    for who in ["by one", "by another"] {
        db.set_paused(Some(who.into())).unwrap();
        assert_eq!(db.facts().unwrap().paused.as_deref(), Some(who));
    }
    for _ in 0..2 {
        db.set_paused(None).unwrap();
        assert_eq!(db.facts().unwrap().paused, None);
    }
}

fn a_registered_server_is_in_the_pool_with_what_was_set(db: &mut Db) {
    let id = db.add_server(&InstanceId("i-1".into()), "box", at(0)).unwrap();
    let columns = [
        ("name", "stg 1 🍣".into()),
        ("private_ip", "10.0.0.7".into()),
        ("db_schema", "stg`1".into()),
        ("check_url", "http://x/".into()),
        ("auto_start_at", "2000-01-01 08:30:00".into()),
    ];
    db.set_server(id, &columns, at(1)).unwrap();
    let server = db.facts_of(id);
    assert!(server.is_staging);
    assert_eq!(server.name, "stg 1 🍣");
    assert_eq!(server.instance, Some(InstanceId("i-1".into())));
    assert_eq!(server.schema.unwrap().as_str(), "stg`1");
    assert_eq!(server.private_ip.as_deref(), Some("10.0.0.7"));
    assert_eq!(server.check_url.as_deref(), Some("http://x/"));
    assert_eq!(
        db.read("SELECT auto_start_at, created_at, updated_at FROM servers"),
        [[
            "2000-01-01 08:30:00".into(),
            "2026-11-22 12:00:00".into(),
            "2026-11-22 12:00:01".into()
        ]]
    );
}

fn settings_of_a_server_are_cleared_by_null(db: &mut Db) {
    let id = db.server("stg1");
    db.set_server(id, &[("db_schema", Value::Null), ("is_staging", 0_i64.into())], at(1)).unwrap();
    let server = db.facts_of(id);
    assert!(server.schema.is_err() && !server.is_staging);
}

fn hold(until: Option<i64>) -> Hold {
    Hold { since: at(1), until: until.map(at), reason: "it's a \"demo\" 🍣".into() }
}

fn servers_are_held_and_released(db: &mut Db) {
    let id = db.server("stg1");
    for hold in [hold(Some(500)), hold(None)] {
        db.hold_server(id, Some(&hold)).unwrap();
        assert_eq!(db.facts_of(id).hold, Some(hold));
    }
    db.hold_server(id, None).unwrap();
    assert_eq!(db.facts_of(id).hold, None);
}

fn pull_requests_are_held_and_released(db: &mut Db) {
    let number = db.open_pull(1);
    db.approve(number, &crate::db::sha(1)).unwrap();
    for hold in [hold(Some(500)), hold(None)] {
        db.hold_pull(number, Some(&hold)).unwrap();
        assert_eq!(db.pull(number).unwrap().unwrap().hold, Some(hold));
    }
    db.hold_pull(number, None).unwrap();
    let pull = db.pull(number).unwrap().unwrap();
    assert_eq!((pull.hold, pull.approved), (None, Some(crate::db::sha(1))));
    // Before the forge told of it.
    db.hold_pull(PullNumber(2), Some(&hold(None))).unwrap();
    db.open_pull(2);
    assert_eq!(db.pull(PullNumber(2)).unwrap().unwrap().hold, Some(hold(None)));
}

fn schema(name: &str) -> SchemaName {
    name.parse().unwrap()
}

fn users_are_one_whatever_the_case_of_their_login(db: &mut Db) {
    db.set_user(&Login("Dev1".into()), &schema("db_a"), at(0)).unwrap();
    db.set_user(&Login("dev1".into()), &schema("db_b"), at(1)).unwrap();
    db.set_user(&Login("dev2".into()), &schema("db_c"), at(1)).unwrap();
    let users: Vec<_> =
        db.users().unwrap().into_iter().map(|u| (u.login.0, u.schema.unwrap())).collect();
    assert_eq!(users, [("Dev1".into(), schema("db_b")), ("dev2".into(), schema("db_c"))]);
}

fn a_removed_user_is_gone(db: &mut Db) {
    db.set_user(&Login("Dev1".into()), &schema("db_a"), at(0)).unwrap();
    assert_eq!(db.remove_user(&Login("dEV1".into())).unwrap(), Won::Yes);
    assert_eq!(db.remove_user(&Login("Dev1".into())).unwrap(), Won::No);
    assert_eq!(db.users().unwrap(), []);
}

fn a_server_that_serves_is_not_removed(db: &mut Db) {
    let (pull, server) = db.environment(1);
    assert_eq!(db.remove_server(server).unwrap(), Won::No);
    assert_eq!(db.assignment(pull).unwrap().server, server);
    assert!(db.facts().unwrap().servers.contains_key(&server));
}

fn a_removed_server_takes_its_records_along(db: &mut Db) {
    let (pull, server) = db.environment(1);
    let slot = InstanceId("i-stg1".into());
    db.add_local_slot(&slot).unwrap();
    db.set_local_slot(&slot, InstanceState::Running).map(drop).unwrap();
    db.take_over(&schema("stg1"), server).unwrap();
    let other = db.server("other");
    db.take_over(&schema("other"), other).unwrap();
    // As pullre-kun leaves it in closed ones.
    assert_eq!(db.release(pull, server, "closed", at(5)).unwrap(), Won::Yes);
    db.write(&format!("UPDATE pull_requests SET server_id = {} WHERE number = 1", server.0));
    assert_eq!(db.remove_server(server).unwrap(), Won::Yes);
    let facts = db.facts().unwrap();
    assert_eq!(facts.servers.into_keys().collect::<Vec<_>>(), [other]);
    assert_eq!(facts.clones.into_keys().collect::<Vec<_>>(), [schema("other")]);
    assert_eq!(db.local_slots().unwrap(), []);
    assert_eq!(db.pull(pull).unwrap().unwrap().last_server, None);
}

fn machines_are_hidden_once_and_shown_again(db: &mut Db) {
    for name in ["web", "Web", "web"] {
        db.set_hidden(name, true, at(0)).unwrap();
    }
    let mut hidden = db.hidden_servers().unwrap();
    hidden.sort();
    assert_eq!(hidden, ["Web", "web"]);
    db.set_hidden("web", false, at(1)).unwrap();
    assert_eq!(db.hidden_servers().unwrap(), ["Web"]);
}

fn times_to_switch_are_kept(db: &mut Db) {
    let server = db.server("stg1");
    assert_eq!(db.facts_of(server).switching, Ok(Switching::default()));
    let set = [
        ("auto_start_at", "2000-01-01 08:30:00".into()),
        ("auto_weekdays", "mon-fri".into()),
        ("auto_stop_at", "2026-11-22 19:00:00".into()),
    ];
    db.set_server(server, &set, at(1)).unwrap();
    db.switched(server, at(2)).unwrap();
    let switching = Switching {
        start: Some(jiff::civil::time(8, 30, 0, 0)),
        stop: Some(jiff::civil::time(19, 0, 0, 0)),
        weekdays: "mon-fri".parse().unwrap(),
        done: Some(at(2)),
    };
    assert_eq!(db.facts_of(server).switching, Ok(switching));
    db.set_server(server, &[("auto_weekdays", Value::Null)], at(3)).unwrap();
    let daily = Switching { weekdays: Default::default(), ..switching };
    assert_eq!(db.facts_of(server).switching, Ok(daily));
    assert_eq!(db.remove_server(server).unwrap(), Won::Yes);
    assert_eq!(db.read("SELECT * FROM server_switches").len(), 0);
}

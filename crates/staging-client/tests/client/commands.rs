use crate::world::{World, add_server, assert_says};

#[test]
fn a_server_that_nobody_has_is_an_error_with_the_known_ones() {
    let world = World::new();
    let ran = world.run(&["--server", "stg9"]).fails();
    assert_says(&ran.err, &["no server is called \"stg9\"", "stg1"]);
    assert_eq!(ran.out, "");
}

#[test]
fn a_name_that_two_servers_have_is_an_error() {
    let mut world = World::new();
    let id = pullre::domain::InstanceId("i-2".into());
    world.store.add_server(&id, "stg1", jiff::Timestamp::now()).unwrap();
    let ran = world.run(&["--server", "stg1"]).fails();
    assert_says(&ran.err, &["2 servers are called \"stg1\"", "i-2"]);
}

#[test]
fn with_a_server_named_only_that_one_is_served() {
    let mut world = World::new();
    add_server(&mut world.store, "stg2", "http://127.0.0.1:1/");
    world.push_and_offer(&[]);
    world.run(&["--server", "stg2"]).ok();
    assert_eq!(world.deployment().outcome, pullre::facts::Outcome::Offered);
    world.set("instance_id", "stg1");
    world.tick().ok();
    world.assert_serves("base");
}

#[test]
fn without_any_server_it_is_said_how_to_add_one() {
    let mut world = World::new();
    let _ = world
        .store
        .release(crate::world::PULL, world.server, "test", jiff::Timestamp::now())
        .unwrap();
    let _ = world.store.remove_server(world.server).unwrap();
    let ran = world.tick().ok();
    assert_says(&ran.err, &["update-pull server register"]);
}

#[test]
fn the_app_of_a_server_that_was_removed_is_stopped() {
    let mut world = World::new();
    world.push_and_offer(&[("version", "one")]);
    world.tick().ok();
    let now = jiff::Timestamp::now();
    let _ = world.store.release(crate::world::PULL, world.server, "test", now).unwrap();
    let _ = world.store.remove_server(world.server).unwrap();
    world.tick().ok();
    assert_eq!(world.answer(), None);
    assert_eq!(world.processes(), [0; 0]);
}

#[test]
fn bad_usage_and_bad_configuration_end_with_2() {
    let mut world = World::new();
    assert_eq!(world.run(&["frobnicate"]).code, 2);
    let missing = world.run(&["--config", "nowhere.ini"]);
    assert_eq!(missing.code, 2);
    assert_says(&missing.err, &["nowhere.ini", "app.ini.default"]);
    world.set("exec_command", "").set("step_timeout", "soon");
    let wrong = world.tick();
    assert_eq!(wrong.code, 2);
    assert_says(&wrong.err, &["exec_command", "step_timeout"]);
}

#[test]
fn a_database_without_tables_is_named_with_the_remedy() {
    let world = World::new();
    std::fs::remove_file(world.path("pullre.db")).unwrap();
    let ran = world.tick().fails();
    assert_says(&ran.err, &["update-pull init"]);
}

#[test]
fn status_and_logs_tell_what_runs_and_how_it_went() {
    let mut world = World::new();
    assert_says(&world.run(&["status"]).ok().out, &["stg1 (on)", "none: no commit shall run here"]);
    assert_says(&world.run(&["logs"]).ok().out, &["nothing was deployed here yet"]);
    world.set("migrate_command", "echo migrating");
    let sha = world.push_and_offer(&[("version", "one")]);
    world.tick().ok();
    let status = world.run(&["status"]).ok().out;
    assert_says(&status, &["succeeded", "#7", sha.short(), "runs: ", "process ", "http://127"]);
    let json: serde_json::Value =
        serde_json::from_str(&world.run(&["status", "--json"]).ok().out).unwrap();
    assert_eq!(json[0]["app"]["state"], "alive");
    assert_eq!(json[0]["deployment"]["sha"], sha.as_str());
    assert!(json[0]["app"]["pid"].as_i64().unwrap() > 0);
    let logs = world.run(&["logs"]).ok().out;
    assert_says(&logs, &["fetch (", "migrate (", "  migrating", "the end of "]);
    let only = world.run(&["logs", "--app"]).ok().out;
    assert!(!only.contains("migrating"));
    world.kill_app();
    assert_says(&world.run(&["status"]).ok().out, &["does not run: "]);
}

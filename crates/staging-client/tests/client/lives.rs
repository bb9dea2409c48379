//! The app after its deployment: it dies, the machine is started again, clocks jump; and the
//! client that goes on looking.

use std::fs;
use std::process::Stdio;

use jiff::{SignedDuration, Timestamp};
use pullre::facts::{AppDeath, Outcome};

use crate::world::{World, app, assert_says, until};

fn death(world: &mut World) -> Option<AppDeath> {
    let server = world.server;
    world.store.facts().unwrap().servers[&server].death.clone()
}

/// The record of the app, with one of its fields changed.
fn change_record(world: &World, key: &str, value: serde_json::Value) {
    let path = ".pullre/apps/1.json";
    let mut record: serde_json::Value = serde_json::from_str(&world.read(path)).unwrap();
    record[key] = value;
    world.write(path, &record.to_string());
}

#[test]
fn an_app_that_dies_again_and_again_is_reported_with_its_last_words_until_it_runs() {
    let mut world = World::with_exec(&format!("echo out of memory; {}", app()));
    world.push_and_offer(&[("version", "one")]);
    world.tick().ok();
    assert_eq!(death(&mut world), None);
    world.kill_app();
    world.tick().ok();
    world.assert_serves("one");
    assert_eq!(death(&mut world), None, "it runs again");
    world.kill_app();
    world.tick().ok();
    let dead = death(&mut world).unwrap();
    assert_eq!((dead.deployment, dead.times), (world.deployment().id, 2));
    assert_eq!(dead.reason, "its last words: out of memory");
    assert!(dead.again_at > Timestamp::now());
    assert_eq!(world.duty().app, None);
    assert_eq!(world.tick().ok().out, "", "said once");
    // Its pause is over.
    let earlier = Timestamp::now() - SignedDuration::from_mins(5);
    change_record(&world, "started_at", earlier.to_string().into());
    assert_says(&world.tick().ok().out, &["again, since it does not run"]);
    world.assert_serves("one");
    assert_eq!(death(&mut world), None);
}

#[test]
fn an_app_that_cannot_be_started_again_says_in_which_step_it_failed() {
    let mut world = World::with_exec(&format!("test ! -e ../broken || exit 5; {}", app()));
    world.push_and_offer(&[("version", "one")]);
    world.tick().ok();
    world.write("broken", "");
    world.kill_app();
    world.tick().fails();
    let dead = death(&mut world).unwrap();
    assert_says(&dead.reason, &["step probe: exec_command exited with status 5"]);
    assert!(dead.again_at > Timestamp::now());
    assert_eq!(world.deployment().outcome, Outcome::Succeeded);
}

#[test]
fn a_client_that_is_killed_before_it_proved_the_restart_leaves_nothing_unproved() {
    let hold = "while test -e ../hold; do sleep 0.02; done";
    let mut world = World::with_exec(&format!("({hold}; {}) & wait", app()));
    world.push_and_offer(&[("version", "one")]);
    world.tick().ok();
    world.kill_app();
    world.write("hold", "");
    let steps = world.steps().len();
    let mut client = world.spawn();
    until("it is started", || world.steps().len() == steps + 3 && !world.processes().is_empty());
    client.kill().unwrap();
    client.wait().unwrap();
    assert!(death(&mut world).is_some());
    fs::remove_file(world.path("hold")).unwrap();
    world.tick().ok();
    world.assert_serves("one");
    assert_eq!(death(&mut world), None);
}

#[test]
fn after_a_restart_of_the_machine_the_app_is_started_at_once_and_has_not_died() {
    let mut world = World::new();
    world.push_and_offer(&[("version", "one")]);
    world.tick().ok();
    world.kill_app();
    change_record(&world, "boot", "another".into());
    change_record(&world, "restarts", 7.into());
    // Numbers of processes are used again after a restart.
    let me = std::process::id();
    change_record(&world, "leader", serde_json::json!({ "pid": me, "start": 1 }));
    assert_says(&world.tick().ok().out, &["again, since it does not run"]);
    world.assert_serves("one");
    assert_eq!(death(&mut world), None);
    assert_says(&world.read(".pullre/apps/1.json"), &["\"restarts\": 0"]);
}

#[test]
fn a_clock_that_jumps_keeps_no_app_down_and_no_deployment_waiting() {
    let mut world = World::new();
    world.push_and_offer(&[("version", "one")]);
    world.tick().ok();
    // The clock was a year ahead when it was started, and everything was written down then.
    let ahead = Timestamp::now() + SignedDuration::from_hours(24 * 365);
    change_record(&world, "started_at", ahead.to_string().into());
    change_record(&world, "restarts", 9.into());
    let server = world.server;
    world.store.agent_seen(server, "x", ahead).unwrap();
    assert_eq!(world.tick().ok().out, "");
    world.kill_app();
    assert_says(&world.tick().ok().out, &["again, since it does not run"]);
    world.assert_serves("one");
    let seen = world.store.facts().unwrap().servers[&server].agent.clone().unwrap().seen_at;
    assert!(seen < ahead, "the sign of life is of now");
    world.push_and_offer(&[("version", "two")]);
    world.tick().ok();
    world.assert_serves("two");
}

/// One line for each look, in a file.
fn poller(world: &World, name: &str) -> std::process::Child {
    let log = fs::File::create(world.path(name)).unwrap();
    world.client(&[]).stdout(Stdio::null()).stderr(log).spawn().unwrap()
}

fn looks(world: &World, name: &str) -> usize {
    world.read(name).lines().filter(|line| line.contains("no commit shall run here")).count()
}

#[test]
fn of_two_runs_that_overlap_one_goes_on_looking_and_the_other_takes_over() {
    let mut world = World::new();
    world.set("poll_seconds", "1").set("logging_level", "DEBUG");
    let mut first = poller(&world, "first.txt");
    until("the first one goes on", || looks(&world, "first.txt") >= 2);
    let mut second = poller(&world, "second.txt");
    until("both had their time", || looks(&world, "first.txt") >= 6);
    assert_eq!(looks(&world, "second.txt"), 1, "its own first look");
    first.kill().unwrap();
    first.wait().unwrap();
    until("it takes over", || looks(&world, "second.txt") >= 3);
    // And does what is to be done, once.
    world.push_and_offer(&[("version", "one")]);
    until("it is deployed", || world.deployment().outcome == Outcome::Succeeded);
    second.kill().unwrap();
    second.wait().unwrap();
    assert_eq!(world.deployment().interruptions, 0);
    world.assert_serves("one");
}

#[test]
fn while_one_run_is_at_work_another_one_looks_after_the_other_servers() {
    let mut world = World::new();
    world.set("target_dir", "work-{server}");
    world.set("git_url", &world.path("origin.git").display().to_string());
    world.set("poll_seconds", "1").set("logging_level", "DEBUG");
    world.set("migrate_command", "while test -e ../hold; do sleep 0.05; done");
    world.write("hold", "");
    crate::world::add_server(&mut world.store, "stg2", "http://127.0.0.1:1/");
    let mut first = poller(&world, "first.txt");
    until("it goes on", || looks(&world, "first.txt") >= 4);
    world.push_and_offer(&[("version", "one")]);
    until("it is at work", || world.step("migrate").is_some());
    let mut second = poller(&world, "second.txt");
    until("the other one looks again and again", || looks(&world, "second.txt") >= 3);
    fs::remove_file(world.path("hold")).unwrap();
    until("it is deployed", || world.deployment().outcome == Outcome::Succeeded);
    for client in [&mut first, &mut second] {
        client.kill().unwrap();
        client.wait().unwrap();
    }
    assert_eq!(world.steps().iter().filter(|step| step.name == "migrate").count(), 1);
}

#[test]
fn what_should_be_mended_is_warned_of_once_and_again_when_it_changes() {
    use std::os::unix::fs::PermissionsExt;
    let mut world = World::new();
    world.set("token", "ghp_0123456789").set("app_secret_key", "long random text");
    assert_says(
        &world.tick().ok().err,
        &["holds secrets of the controller (token, app_secret_key)"],
    );
    assert_eq!(world.tick().ok().err, "");
    let open = |mode| {
        fs::set_permissions(world.path("app.ini"), PermissionsExt::from_mode(mode)).unwrap();
    };
    open(0o640);
    assert_says(&world.tick().ok().err, &["can be read by other users", "chmod 600", "token"]);
    assert_eq!(world.tick().ok().err, "");
    open(0o600);
    let err = world.tick().ok().err;
    assert!(!err.contains("chmod") && err.contains("token"), "{err}");
    world.set("token", "").set("app_secret_key", "");
    assert_eq!(world.tick().ok().err, "");
}

#[test]
fn the_disk_and_the_load_come_with_the_sign_of_life() {
    let mut world = World::new();
    world.tick().ok();
    let server = world.server;
    let pulse = world.store.facts().unwrap().servers[&server].pulse.unwrap();
    assert!(pulse.free_bytes > 0 && pulse.free_bytes <= pulse.total_bytes, "{pulse:?}");
}

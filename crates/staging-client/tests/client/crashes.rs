use std::process::Child;

use pullre::facts::Outcome;

use crate::world::{World, app, assert_says, until};

fn kill(client: &mut Child) {
    // SIGKILL: nothing of it can clean up.
    client.kill().unwrap();
    client.wait().unwrap();
}

/// Kills the client while a step is under way; the next run finishes the work.
fn a_kill_in(step: &str, prepare: impl Fn(&mut World)) {
    let mut world = World::new();
    world.push_and_offer(&[("version", "old")]);
    world.tick().ok();
    prepare(&mut world);
    world.write("hold", "");
    world.push_and_offer(&[("version", "new")]);
    let mut client = world.spawn();
    until(step, || world.step(step).is_some());
    kill(&mut client);
    assert_eq!(world.deployment().outcome, Outcome::Running, "killed too late");
    std::fs::remove_file(world.path("hold")).unwrap();
    let ran = world.tick().ok();
    assert_says(&ran.out, &["again, since the last client died in it"]);
    world.assert_serves("new");
    assert_eq!(world.deployment().interruptions, 1);
    let deployment = world.deployment().id;
    let mark = format!(":{deployment}");
    for pid in world.processes() {
        let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let environ = String::from_utf8_lossy(&environ).into_owned();
        let of_this =
            environ.split('\0').any(|v| v.starts_with("PULLRE_DEPLOYMENT=") && v.ends_with(&mark));
        assert!(of_this, "{pid} is of another deployment");
    }
}

const HOLD: &str = "while test -e ../hold; do sleep 0.02; done";

/// A git that waits in front of the real one, for one of its commands.
fn slow_git(world: &mut World, command: &str) {
    let wait = format!("case \" $* \" in *' {command} '*) {HOLD};; esac");
    world.wrap_git(&format!("{wait}\nexec $GIT \"$@\""));
}

#[test]
fn a_kill_during_fetch_is_healed_by_the_next_run() {
    a_kill_in("fetch", |world| slow_git(world, "fetch"));
}

#[test]
fn a_kill_during_checkout_is_healed_by_the_next_run_also_where_git_left_its_lock() {
    a_kill_in("checkout", |world| {
        slow_git(world, "checkout");
        world.write("work/.git/index.lock", "");
    });
}

#[test]
fn a_kill_during_migrate_is_healed_by_the_next_run_and_its_migration_is_ended() {
    a_kill_in("migrate", |world| {
        world.set("migrate_command", HOLD);
    });
}

#[test]
fn a_kill_during_stop_is_healed_by_the_next_run() {
    a_kill_in("stop", |world| {
        world.set("stop_command", HOLD);
    });
}

#[test]
fn a_kill_during_probe_is_healed_by_the_next_run() {
    a_kill_in("probe", |world| {
        world.set("exec_command", &format!("{HOLD}; {}", app()));
    });
}

#[test]
fn a_kill_around_start_is_healed_by_the_next_run_with_one_app() {
    a_kill_in("start", |world| {
        // Starts, and answers late enough for the kill.
        world.set("exec_command", &format!("({HOLD}; {}) &", app()));
    });
}

#[test]
fn a_deployment_whose_client_always_dies_is_given_up() {
    let mut world = World::new();
    world.set("migrate_command", HOLD);
    world.write("hold", "");
    world.push_and_offer(&[]);
    for steps in 1..=3 {
        let mut client = world.spawn();
        until("the migration runs", || {
            world.steps().iter().filter(|step| step.name == "migrate").count() == steps
        });
        kill(&mut client);
    }
    world.tick().fails();
    assert_says(&world.failed_in("migrate"), &["killed 3 times", "redeploy"]);
    assert_eq!(world.processes(), [0; 0]);
    assert_eq!(world.tick().ok().out, "");
}

#[test]
fn an_app_outlives_the_client_that_started_it() {
    let mut world = World::new();
    world.set("poll_seconds", "1");
    world.push_and_offer(&[("version", "one")]);
    let mut client = world.spawn();
    until("it is deployed", || world.deployment().outcome == Outcome::Succeeded);
    kill(&mut client);
    world.set("poll_seconds", "0");
    world.assert_serves("one");
    assert_eq!(world.tick().ok().out, "");
}

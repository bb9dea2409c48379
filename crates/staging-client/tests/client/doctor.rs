//! `doctor` tries what a deployment needs, and `logs -f` shows what it prints.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use crate::identity::metadata_service;
use crate::world::{Ran, World, app, assert_says, until};

#[test]
fn where_all_is_well_each_thing_is_said_to_be() {
    let world = World::new();
    let ran = world.run(&["doctor"]).ok();
    for what in ["app.ini", "programs", "exec_user", "state_dir", "disk", "database", "identity"] {
        assert!(
            ran.out.lines().any(|line| line.starts_with(&format!("ok       {what}"))),
            "{}",
            ran.out
        );
    }
    assert_says(
        &ran.out,
        &["ok       target_dir", "ok       remote        origin answers", "ok       check_url"],
    );
    assert!(!ran.out.contains("MISSING"), "{}", ran.out);
    assert_eq!(world.groups().len(), 0, "the trial leaves nothing behind");
}

#[test]
fn each_thing_that_is_missing_is_named_with_its_remedy() {
    let mut world = World::new();
    world.set("target_dir", "missing").set("exec_user", "no-such-user");
    let ran = world.run(&["doctor"]).fails();
    assert_says(
        &ran.out,
        &["MISSING  exec_user", "no user of this machine", "MISSING  target_dir"],
    );
    world.set("exec_user", "").set("git_url", "https://127.0.0.1:1/acme/shop.git");
    let ran = world.run(&["doctor"]).fails();
    assert_says(&ran.out, &["is made from git_url", "MISSING  remote", "git ls-remote"]);
    assert_says(&ran.err, &["1 thing is missing"]);
    world.set("target_dir", "work");
    fs::remove_dir_all(world.path("origin.git")).unwrap();
    assert_says(&world.run(&["doctor"]).fails().out, &["MISSING  remote"]);
    let ran = world.run(&["--server", "stg9", "doctor"]).fails();
    assert_says(&ran.out, &["MISSING  identity", "no server is called"]);
    fs::remove_file(world.path("pullre.db")).unwrap();
    assert_says(&world.run(&["doctor"]).fails().out, &["MISSING  database", "update-pull init"]);
    world.set("owner", "");
    assert_eq!(world.run(&["doctor"]).code, 2);
}

#[test]
fn secrets_that_are_no_staging_servers_are_warned_of() {
    let mut world = World::new();
    world.set("token", "ghp_0123456789").set("AWS_SECRET_KEY", "0123456789");
    fs::set_permissions(world.path("app.ini"), PermissionsExt::from_mode(0o644)).unwrap();
    let mut client = world.client(&["doctor"]);
    client.env_remove("AWS_EC2_METADATA_DISABLED");
    client.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata_service("i-0abc"));
    let ran = Ran::from(client.output().unwrap());
    assert_says(
        &ran.out,
        &["warn     secrets", "chmod 600", "(token, AWS_SECRET_KEY)", "has the role web-server"],
    );
    assert!(!ran.out.contains("0123456789"), "{}", ran.out);
}

#[test]
fn a_user_who_can_read_app_ini_is_a_missing_thing() {
    if !nix::unistd::geteuid().is_root() {
        return crate::world::skipped("only root can try what another user can read");
    }
    let mut world = World::new();
    world.set("exec_user", "nobody");
    fs::set_permissions(world.path("."), PermissionsExt::from_mode(0o755)).unwrap();
    fs::set_permissions(world.path("app.ini"), PermissionsExt::from_mode(0o644)).unwrap();
    let ran = world.run(&["doctor"]).fails();
    assert_says(&ran.out, &["MISSING  exec_user", "nobody can read", "chmod go="]);
    // The databases of SQLite are the controller's.
    fs::set_permissions(world.path("app.ini"), PermissionsExt::from_mode(0o600)).unwrap();
    assert_says(&world.run(&["doctor"]).fails().out, &["nobody cannot write"]);
}

#[test]
fn a_login_with_the_rights_of_a_controller_is_warned_of() {
    let mut world = World::on_mariadb();
    world.set("instance_id", "stg1");
    let ran = world.run(&["doctor"]).ok();
    assert_says(&ran.out, &["warn     database", "change servers", "update-pull grants"]);
}

#[test]
fn logs_that_are_followed_show_each_line_once_with_secrets_masked() {
    let mut world =
        World::with_exec(&format!("echo app begins; echo pw hunter2-secret; {}", app()));
    let url = format!("http://staging:s3cret-word@127.0.0.1:{}/", world.port);
    let columns = [("check_url", url.as_str().into())];
    world.store.set_server(world.server, &columns, jiff::Timestamp::now()).unwrap();
    world.set("migrate_command", "echo migrating s3cret-word; sleep 0.5");
    world.push_and_offer(&[("version", "one")]);
    world.tick().ok();
    let mut client = world.client(&["logs", "-f"]);
    let mut child = client.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let lines = Arc::new(Mutex::new(Vec::new()));
    let (seen, out) = (lines.clone(), child.stdout.take().unwrap());
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            seen.lock().unwrap().push(line);
        }
    });
    let count =
        |text: &str| lines.lock().unwrap().iter().filter(|line| line.contains(text)).count();
    // The probe's output has it, and the app's log.
    until("what was is shown", || count("app begins") == 2 && count("migrating") == 1);
    world.push_and_offer(&[("version", "two")]);
    world.tick().ok();
    until("what comes is shown", || count("app begins") == 3 && count("migrating") == 2);
    child.kill().unwrap();
    child.wait().unwrap();
    reader.join().unwrap();
    assert_eq!(count("pw ***"), 3);
    assert_eq!((count("hunter2"), count("s3cret")), (0, 0));
}

#[test]
fn doctor_disturbs_nothing_that_is_at_work() {
    let mut world = World::new();
    world.push_and_offer(&[("version", "one")]);
    world.tick().ok();
    world.set("migrate_command", "echo begun; until test -e ../go; do sleep 0.05; done; echo done");
    world.push_and_offer(&[("version", "two")]);
    let mut client = world.spawn();
    let log = world.path(".pullre/logs/1/step.log");
    until("it migrates", || fs::read_to_string(&log).is_ok_and(|text| text.contains("begun")));
    // As the daily work of a client is marked, which is no deployment's.
    let root = world.path(".pullre").canonicalize().unwrap();
    let mut other = std::process::Command::new("sleep")
        .arg("1000")
        .env("PULLRE_DEPLOYMENT", format!("{}:1:0", root.display()))
        .env("PULLRE_STEP", "collect")
        .spawn()
        .unwrap();
    fs::rename(world.path("origin.git"), world.path("away.git")).unwrap();
    assert_says(&world.run(&["doctor"]).fails().out, &["MISSING  remote", "git ls-remote"]);
    assert!(other.try_wait().unwrap().is_none(), "it goes on");
    other.kill().unwrap();
    other.wait().unwrap();
    assert_eq!(fs::read_to_string(&log).unwrap(), "begun\n");
    world.write("go", "");
    assert!(client.wait().unwrap().success());
    world.assert_serves("two");
    assert_eq!(world.step("migrate").unwrap().output, "begun\ndone\n");
    let left = fs::read_dir(world.path(".pullre/logs/1")).unwrap().flatten();
    let mut left: Vec<_> = left.map(|entry| entry.file_name().into_string().unwrap()).collect();
    left.sort();
    assert_eq!(left, ["app.log", "step.log"]);
}

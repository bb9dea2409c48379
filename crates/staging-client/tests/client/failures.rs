use std::os::unix::fs::PermissionsExt;

use crate::world::{World, assert_says};

/// A world in which version `old` serves.
fn serving() -> World {
    let mut world = World::new();
    world.push_and_offer(&[("version", "old")]);
    world.tick().ok();
    world.assert_serves("old");
    world
}

#[test]
fn a_broken_migration_leaves_the_old_app_serving() {
    let mut world = serving();
    world.set("migrate_command", "echo no such table: x >&2; exit 3");
    let old = world.duty().app;
    world.push_and_offer(&[("version", "new")]);
    let ran = world.tick().fails();
    let reason = world.failed_in("migrate");
    assert_says(
        &reason,
        &["migrate_command exited with status 3: no such table: x", "keeps serving"],
    );
    assert_says(&ran.err, &[&reason]);
    assert_eq!(world.step("migrate").unwrap().exit_status, Some(3));
    assert_eq!(world.answer().as_deref(), Some("old"));
    assert_eq!(world.duty().app, old);
    assert!(world.step("stop").is_none());
    // Whether to try again is for the controller to say.
    assert_eq!(world.tick().ok().out, "");
}

#[test]
fn an_app_that_exits_fails_with_its_last_words_and_nothing_is_left_of_it() {
    let mut world = World::with_exec("sleep 1000 & echo no module named shop >&2; exit 4");
    world.push_and_offer(&[]);
    world.tick().fails();
    let reason = world.failed_in("probe");
    assert_says(&reason, &["exec_command exited with status 4: no module named shop"]);
    assert_says(&world.step("probe").unwrap().output, &["no module named shop"]);
    assert_eq!(world.processes(), [0; 0]);
    assert_eq!(world.duty().app, None);
}

#[test]
fn an_app_whose_processes_all_end_fails_at_once_also_with_status_0() {
    let mut world = World::with_exec("echo bye");
    world.set("check_timeout", "3600");
    world.push_and_offer(&[]);
    world.tick().fails();
    assert_says(&world.failed_in("probe"), &["nothing that it started is alive: bye"]);
}

#[test]
fn an_app_that_never_answers_fails_when_its_time_is_up_and_is_stopped() {
    let mut world = World::with_exec("echo waiting for the database; exec sleep 1000");
    world.set("check_timeout", "1");
    world.push_and_offer(&[]);
    world.tick().fails();
    assert_says(
        &world.failed_in("probe"),
        &["did not answer within 1 s", "refuses the connection", "(sleep) is alive"],
    );
    assert_says(&world.step("probe").unwrap().output, &["waiting for the database"]);
    assert_eq!(world.processes(), [0; 0]);
}

#[test]
fn an_app_that_answers_with_an_error_fails_with_the_status() {
    let mut world = World::new();
    world.set("check_timeout", "2");
    let broken = world.read("author/app.py").replace("200 OK", "503 Busy");
    world.push_and_offer(&[("app.py", &broken)]);
    world.tick().fails();
    assert_says(&world.failed_in("probe"), &["its last answer had status 503"]);
    assert_eq!(world.answer(), None);
}

#[test]
fn an_answer_with_a_redirect_counts() {
    let mut world = World::new();
    let moved = world.read("author/app.py").replace("200 OK", "302 Found\\r\\nLocation: /x");
    world.push_and_offer(&[("app.py", &moved), ("version", "one")]);
    world.tick().ok();
    world.assert_serves("one");
}

#[test]
fn a_step_that_takes_too_long_is_killed_with_all_that_it_started() {
    let mut world = World::new();
    world.set("step_timeout", "1");
    world.set("migrate_command", "setsid sleep 1000 & sleep 1000 & echo begun; sleep 1000");
    world.push_and_offer(&[]);
    world.tick().fails();
    assert_says(
        &world.failed_in("migrate"),
        &["migrate_command timed out after 1 s and was killed: begun"],
    );
    assert_eq!(world.processes(), [0; 0]);
}

#[test]
fn a_background_process_of_a_step_holds_nothing_up() {
    let mut world = World::new();
    world.set("migrate_command", "sleep 1000 & echo done");
    world.push_and_offer(&[("version", "one")]);
    world.tick().ok();
    world.assert_serves("one");
    assert_eq!(world.step("migrate").unwrap().output, "done\n");
}

#[test]
fn a_commit_that_cannot_be_fetched_is_named_with_the_remedy() {
    let mut world = serving();
    let sha = world.commit(&[("version", "never pushed")]);
    world.offer(&sha);
    world.tick().fails();
    let work = world.path("work").canonicalize().unwrap();
    let command = format!("git -C {} fetch origin {sha}", work.display());
    assert_says(&world.failed_in("fetch"), &[sha.short(), "cannot be fetched", &command]);
    assert_eq!(world.answer().as_deref(), Some("old"));
}

#[test]
fn after_the_cause_is_gone_the_next_try_succeeds() {
    let mut world = serving();
    let sha = world.commit(&[("version", "late")]);
    world.offer(&sha);
    world.tick().fails();
    world.git("author", &["push", "-q", "origin", "HEAD:refs/pull/7/head"]);
    world.offer_again(&sha);
    world.tick().ok();
    world.assert_serves("late");
}

#[test]
fn something_else_at_check_url_fails_the_stop_and_is_named() {
    let mut world = World::new();
    world.set("stop_timeout", "1");
    world.write("other/version", "other");
    world.write("other/app.py", &world.read("author/app.py"));
    let mut other = world.foreign_app("other", &[]);
    world.push_and_offer(&[("version", "one")]);
    world.tick().fails();
    let named = format!("process {} ", other.id());
    let reason = world.failed_in("stop");
    assert_says(&reason, &["something else answers", &named, "stop_command"]);
    assert!(other.try_wait().unwrap().is_none(), "it was none of ours to end");
}

#[test]
fn a_missing_git_is_said() {
    let mut world = World::new();
    world.push_and_offer(&[]);
    let bin = world.path("bin");
    std::fs::create_dir(&bin).unwrap();
    for tool in ["sh", "setsid"] {
        let found = format!("/usr/bin/{tool}");
        std::os::unix::fs::symlink(found, bin.join(tool)).unwrap();
    }
    let out = world.client(&[]).env("PATH", &bin).output().unwrap();
    assert_eq!(out.status.code(), Some(1));
    // Nothing is here already, so that git is needed.
    assert_says(&world.failed_in("fetch"), &["`git` is not installed"]);
}

#[test]
fn a_state_dir_that_cannot_be_made_is_named() {
    let mut world = World::new();
    world.write("blocked", "a file");
    world.set("state_dir", "blocked/state");
    world.push_and_offer(&[]);
    let ran = world.tick().fails();
    assert_says(&ran.err, &["blocked/state"]);
}

#[test]
fn logs_and_records_are_nobody_elses_to_read() {
    let world = serving();
    for name in [".pullre/apps/1.json", ".pullre/logs/1/app.log", ".pullre/locks/client-1.lock"] {
        let path = world.path(name);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{name}");
    }
    let mode = std::fs::metadata(world.path(".pullre")).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0);
}

#[test]
fn a_full_disk_fails_the_deployment_with_the_thing_and_the_remedy() {
    let mut world = World::new();
    world.push_and_offer(&[]);
    // Where the step's output would go is a device that is always full.
    std::fs::create_dir_all(world.path(".pullre/apps")).unwrap();
    std::os::unix::fs::symlink("/dev/full", world.path(".pullre/apps/1.new")).unwrap();
    world.tick().fails();
    assert_says(&world.failed_in("start"), &["apps/1", "the disk is full"]);
    assert_eq!(world.duty().app, None);
}

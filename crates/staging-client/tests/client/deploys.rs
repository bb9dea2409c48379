use std::time::Duration;

use jiff::Timestamp;
use pullre::domain::{InstanceId, InstanceState};
use pullre::facts::Outcome;

use crate::world::{BRANCH, PULL, World, add_server, app, assert_says, until};

#[test]
fn the_exact_commit_of_a_pull_request_is_deployed_and_each_step_recorded() {
    let mut world = World::new();
    world.set("migrate_command", "echo migrating $PULLRE_DB_SCHEMA");
    let sha = world.push_and_offer(&[("version", "one")]);
    // A later commit in the same branch is none of its business.
    world.push(&[("version", "two")]);
    let ran = world.tick().ok();
    world.assert_serves("one");
    assert_says(&ran.out, &["stg1: deploy", "answers at http://127.0.0.1:"]);
    assert_eq!(world.git("work", &["rev-parse", "HEAD"]), sha.as_str());
    let steps = world.steps();
    let names: Vec<_> = steps.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(names, ["fetch", "checkout", "migrate", "stop", "start", "probe"]);
    assert!(steps.iter().all(|step| step.finished_at.is_some()));
    assert_eq!(world.step("migrate").unwrap().output, "migrating stg1\n");
    let app = world.duty().app.unwrap();
    assert_eq!((app.pull, app.sha), (PULL, sha));
}

#[test]
fn a_commit_that_is_in_no_branch_comes_from_the_pull_requests_ref() {
    let mut world = World::new();
    let sha = world.commit(&[("version", "fork")]);
    world.git("author", &["push", "-q", "origin", "HEAD:refs/pull/7/head"]);
    // As a server that gives nothing by its bare id.
    world.wrap_git(&format!("case \"$*\" in *'fetch '*{sha}:*) exit 1;; esac; exec $GIT \"$@\""));
    world.offer(&sha);
    world.tick().ok();
    world.assert_serves("fork");
}

#[test]
fn a_second_tick_has_nothing_to_do_and_says_nothing() {
    let mut world = World::new();
    world.push_and_offer(&[("version", "one")]);
    world.tick().ok();
    let processes = world.processes();
    let ran = world.tick().ok();
    assert_eq!(ran.out, "");
    assert_eq!(ran.err, "");
    assert_eq!(world.processes(), processes);
}

#[test]
fn a_push_brings_the_new_commit_and_stops_the_old_app() {
    let mut world = World::new();
    world.push_and_offer(&[("version", "one")]);
    world.tick().ok();
    let old = world.processes();
    world.push_and_offer(&[("version", "two")]);
    world.tick().ok();
    world.assert_serves("two");
    assert!(world.processes().iter().all(|pid| !old.contains(pid)));
}

#[test]
fn a_force_push_to_an_unrelated_history_is_deployed() {
    let mut world = World::new();
    world.push_and_offer(&[("version", "one")]);
    world.tick().ok();
    world.git("author", &["checkout", "-q", "--orphan", "other"]);
    world.push_and_offer(&[("version", "rewritten")]);
    world.tick().ok();
    world.assert_serves("rewritten");
}

#[test]
fn a_push_during_the_migration_supersedes_and_the_newest_is_deployed_in_the_same_run() {
    let mut world = World::new();
    world.set("migrate_command", "test ! -e hold || while test -e ../hold; do sleep 0.05; done");
    world.write("hold", "");
    let first = world.push_and_offer(&[("version", "one"), ("hold", "")]);
    let mut client = world.spawn();
    until("the migration runs", || world.step("migrate").is_some());
    let second = world.push(&[("version", "two")]);
    world.offer(&second);
    std::fs::remove_file(world.path("hold")).unwrap();
    assert!(client.wait().unwrap().success());
    world.assert_serves("two");
    let both = world.store.deployments_of(PULL, 2).unwrap();
    let told: Vec<_> = both.iter().map(|d| (d.sha.clone(), d.outcome)).collect();
    assert_eq!(told, [(second, Outcome::Succeeded), (first, Outcome::Superseded)]);
    // The old app was not stopped for the commit that nobody wants any more.
    let last = world.store.steps_of(both[1].id).unwrap().pop().unwrap();
    assert_eq!(last.name, "migrate");
}

#[test]
fn a_push_while_an_app_fails_to_answer_is_not_kept_waiting() {
    let mut world = World::new();
    world.set("exec_command", &format!("test ! -e mute || exec sleep 1000; {}", app()));
    world.set("check_timeout", "600");
    world.push_and_offer(&[("version", "one"), ("mute", "")]);
    let mut client = world.spawn();
    until("the probe runs", || world.step("probe").is_some());
    std::fs::remove_file(world.path("author/mute")).unwrap();
    world.push_and_offer(&[("version", "two")]);
    assert!(client.wait().unwrap().success());
    world.assert_serves("two");
}

#[test]
fn ignored_files_stay_and_untracked_and_changed_ones_do_not() {
    let mut world = World::new();
    world.write("work/kept/module.js", "kept");
    world.write("work/kept/.env", "kept");
    world.write("work/left/over.txt", "untracked");
    world.write("work/version", "changed by hand");
    world.push_and_offer(&[("version", "one")]);
    world.tick().ok();
    world.assert_serves("one");
    assert_eq!(world.read("work/kept/module.js"), "kept");
    assert_eq!(world.read("work/kept/.env"), "kept");
    assert!(!world.path("work/left").exists());
}

#[test]
fn without_a_task_the_app_is_stopped_and_only_then_said_to_be_gone() {
    let mut world = World::new();
    world.push_and_offer(&[("version", "one")]);
    world.tick().ok();
    let now = Timestamp::now();
    let _ = world.store.withdraw(PULL, world.server, now).unwrap();
    assert!(world.duty().app.is_some());
    let ran = world.tick().ok();
    assert_says(&ran.out, &["stg1: stop the app: no commit shall run here"]);
    assert_eq!(world.answer(), None);
    assert_eq!(world.processes(), [0; 0]);
    assert_eq!(world.duty().app, None);
    assert_eq!(world.tick().ok().out, "");
}

#[test]
fn a_slot_that_is_off_runs_no_app_takes_no_deployment_and_gives_no_sign_of_life() {
    let mut world = World::new();
    world.push_and_offer(&[("version", "one")]);
    world.tick().ok();
    let slot = InstanceId("stg1".into());
    let _ = world.store.set_local_slot(&slot, InstanceState::Stopped).unwrap();
    let seen = |world: &mut World| {
        let facts = world.store.facts().unwrap();
        facts.servers[&world.server].agent.clone().unwrap().seen_at
    };
    let before = seen(&mut world);
    world.push_and_offer(&[("version", "two")]);
    world.tick().ok();
    assert_eq!(world.answer(), None);
    assert_eq!(world.duty().app, None);
    assert_eq!(world.deployment().outcome, Outcome::Offered);
    assert_eq!(seen(&mut world), before);
    let _ = world.store.set_local_slot(&slot, InstanceState::Running).unwrap();
    world.tick().ok();
    world.assert_serves("two");
    assert!(seen(&mut world) > before);
}

#[test]
fn while_all_is_paused_nothing_is_done() {
    let mut world = World::new();
    world.push_and_offer(&[("version", "one")]);
    world.store.set_paused(Some("alice".into())).unwrap();
    world.tick().ok();
    assert_eq!(world.deployment().outcome, Outcome::Offered);
    world.store.set_paused(None).unwrap();
    world.tick().ok();
    world.assert_serves("one");
}

#[test]
fn an_app_that_is_gone_is_started_again_without_git() {
    let mut world = World::new();
    world.push_and_offer(&[("version", "one")]);
    world.tick().ok();
    world.kill_app();
    // Neither the network nor a checkout is needed.
    std::fs::remove_dir_all(world.path("origin.git")).unwrap();
    world.write("work/left.txt", "untracked");
    let ran = world.tick().ok();
    assert_says(&ran.out, &["again, since it does not run"]);
    world.assert_serves("one");
    assert_eq!(world.read("work/left.txt"), "untracked");
    assert!(world.duty().app.is_some());

    // A second death follows soon: it is not restarted each minute.
    world.kill_app();
    assert_says(&world.tick().ok().out, &["died 2 times", "it is started again at"]);
    assert_eq!(world.duty().app, None, "nobody is told that it serves");
    assert_eq!(world.answer(), None);
    assert_eq!(world.tick().ok().out, "", "said once");
}

#[test]
fn an_app_that_was_thought_gone_is_reported_again() {
    let mut world = World::new();
    world.push_and_offer(&[("version", "one")]);
    world.tick().ok();
    let server = world.server;
    world.store.app_is(server, None).unwrap();
    world.tick().ok();
    assert!(world.duty().app.is_some());
    world.assert_serves("one");
}

#[test]
fn what_a_person_holds_is_left_alone() {
    let mut world = World::new();
    let hold =
        pullre::facts::Hold { since: Timestamp::now(), until: None, reason: "a look at it".into() };
    let server = world.server;
    world.push_and_offer(&[("version", "one")]);
    world.store.hold_server(server, Some(&hold)).unwrap();
    assert_eq!(world.tick().ok().out, "");
    world.store.hold_server(server, None).unwrap();
    world.store.hold_pull(PULL, Some(&hold)).unwrap();
    assert_eq!(world.tick().ok().out, "");
    world.store.hold_pull(PULL, None).unwrap();
    world.tick().ok();
    world.assert_serves("one");
    world.store.hold_pull(PULL, Some(&hold)).unwrap();
    world.kill_app();
    world.tick().ok();
    assert_eq!(world.answer(), None, "also the app that a person killed");
}

#[test]
fn each_local_server_has_its_own_folder_and_a_failure_of_one_stops_no_other() {
    let mut world = World::new();
    world.set("target_dir", "work-{server}");
    world.set("git_url", &world.path("origin.git").display().to_string());
    std::fs::remove_dir_all(world.path("work")).unwrap();
    // The first slot, in order, is broken: its folder is something else.
    let other = add_server(&mut world.store, "stg0", "http://127.0.0.1:1/");
    assert!(other > world.server);
    world.write("work-stg0/file", "precious");
    let sha = world.push_and_offer(&[("version", "one")]);
    let mut store = pullre::store::Store::create_sqlite(&world.path("pullre.db")).unwrap();
    let source = "alice".parse().unwrap();
    let now = Timestamp::now();
    let eight = pullre::domain::PullNumber(8);
    let _ = store.assign(eight, other, &source, now).unwrap();
    let _ = store.offer(eight, other, &sha, 1, now).unwrap();
    let ran = world.tick().fails();
    assert_says(&ran.err, &["stg0", "work-stg0", "nothing is done there"]);
    world.assert_serves("one");
    assert_eq!(world.read("work-stg0/file"), "precious");
    let failed = store.deployments_of(eight, 1).unwrap().remove(0);
    assert_eq!(failed.outcome, Outcome::Failed);
}

#[test]
fn an_empty_target_dir_is_cloned_where_git_url_says_from_where() {
    let mut world = World::new();
    std::fs::remove_dir_all(world.path("work")).unwrap();
    world.set("git_url", &world.path("origin.git").display().to_string());
    // What a killed clone left.
    world.write(".work.pullre-clone/half", "half");
    world.push_and_offer(&[("version", "one")]);
    world.tick().ok();
    world.assert_serves("one");
    assert!(!world.path(".work.pullre-clone").exists());
}

#[test]
fn with_poll_seconds_a_run_goes_on_looking() {
    let mut world = World::new();
    world.set("poll_seconds", "1");
    let mut client = world.spawn();
    let server = world.server;
    until("the client lives", || world.store.facts().unwrap().servers[&server].agent.is_some());
    world.push_and_offer(&[("version", "one")]);
    until("the push is deployed", || world.deployment().outcome == Outcome::Succeeded);
    client.kill().unwrap();
    client.wait().unwrap();
    world.assert_serves("one");
}

#[test]
fn two_clients_at_once_do_the_work_once() {
    let mut world = World::new();
    world.set("migrate_command", "while test -e ../hold; do sleep 0.05; done");
    world.write("hold", "");
    world.push_and_offer(&[("version", "one")]);
    let mut first = world.spawn();
    until("the migration runs", || world.step("migrate").is_some());
    let second = world.tick().ok();
    assert_says(&second.err, &["stg1: another staging-client is at work on it"]);
    std::fs::remove_file(world.path("hold")).unwrap();
    assert!(first.wait().unwrap().success());
    world.assert_serves("one");
    assert_eq!(world.deployment().interruptions, 0);
    assert_eq!(world.steps().len(), 6);
}

#[test]
fn signs_of_life_are_given_while_a_step_takes_long() {
    let mut world = World::new();
    world.set("migrate_command", "while test -e ../hold; do sleep 0.05; done");
    world.write("hold", "");
    world.push_and_offer(&[("version", "one")]);
    let mut client = world.spawn();
    let server = world.server;
    until("the migration runs", || world.step("migrate").is_some());
    let began = Timestamp::now() + Duration::from_secs(5);
    until("a sign of life in the step", || {
        let facts = world.store.facts().unwrap();
        facts.servers[&server].agent.as_ref().is_some_and(|agent| agent.seen_at > began)
    });
    std::fs::remove_file(world.path("hold")).unwrap();
    assert!(client.wait().unwrap().success());
}

#[test]
fn the_branch_is_named_to_the_app() {
    let mut world = World::new();
    world.set("migrate_command", "env > ../env.txt");
    let sha = world.push_and_offer(&[("version", "one")]);
    world.tick().ok();
    let env = world.read("env.txt");
    let url = format!("PULLRE_CHECK_URL=http://127.0.0.1:{}/\n", world.port);
    let file = format!("PULLRE_DB_FILE={}\n", world.path("schemas/stg1.db").display());
    assert_says(
        &env,
        &[
            "PULLRE_PR=7\n",
            &format!("PULLRE_SHA={sha}\n"),
            &format!("PULLRE_REF={BRANCH}\n"),
            "PULLRE_SERVER=stg1\n",
            "PULLRE_DB_SCHEMA=stg1\n",
            &url,
            &file,
            &format!("PORT={}\n", world.port),
        ],
    );
}

#[test]
fn a_migration_stands_for_its_schema_from_its_first_moment_to_its_last() {
    let mut world = World::new();
    world.set("migrate_command", "while test -e ../hold; do sleep 0.02; done; exit 1");
    world.write("hold", "");
    world.push_and_offer(&[("version", "new")]);
    let mut client = world.spawn();
    until("migrate", || world.step("migrate").is_some());
    until("the claim", || world.duty().app.is_some());
    std::fs::remove_file(world.path("hold")).unwrap();
    assert!(!client.wait().unwrap().success());
    assert_eq!(world.duty().app, None, "nothing is at the schema any more");
}

#[test]
fn what_a_step_prints_is_seen_while_it_runs_without_its_secrets() {
    let mut world = World::new();
    world.set("token", "ghp_0123456789");
    world.set(
        "migrate_command",
        "echo one ghp_0123456789; printf half; while test -e ../hold; do sleep 0.02; done; echo way",
    );
    world.write("hold", "");
    world.push_and_offer(&[("version", "new")]);
    let mut client = world.spawn();
    until("its output", || world.step("migrate").is_some_and(|step| step.output.contains("one")));
    let step = world.step("migrate").unwrap();
    assert_eq!((step.finished_at, step.output.as_str()), (None, "one ***\n"));
    std::fs::remove_file(world.path("hold")).unwrap();
    client.wait().unwrap();
    assert_eq!(world.step("migrate").unwrap().output, "one ***\nhalfway\n");
}

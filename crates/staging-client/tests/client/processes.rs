use pullre::facts::Outcome;

use crate::world::{World, app, assert_says, python, until};

/// Deploys an app that starts in this way, then another commit of it: of the first one nothing
/// may be left, and the second one serves.
fn is_found_and_replaced(exec_command: &str) {
    let mut world = World::with_exec(exec_command);
    world.push_and_offer(&[("version", "one")]);
    world.tick().ok();
    world.assert_serves("one");
    assert_eq!(world.tick().ok().out, "", "an app that lives is left alone");
    let old = world.processes();
    assert!(!old.is_empty());
    world.push_and_offer(&[("version", "two")]);
    world.tick().ok();
    world.assert_serves("two");
    assert!(world.processes().iter().all(|pid| !old.contains(pid)));
}

#[test]
fn an_app_in_the_foreground_is_found_and_replaced() {
    is_found_and_replaced(&app());
    is_found_and_replaced(&format!("({}) | cat", app()));
}

#[test]
fn an_app_in_the_background_is_found_and_replaced() {
    is_found_and_replaced(&format!("({}) &", app()));
    is_found_and_replaced(&format!("nohup sh -c '{}' > app.out 2>&1 &", app()));
}

#[test]
fn a_double_forked_app_in_a_session_of_its_own_is_found_and_replaced() {
    is_found_and_replaced(&format!("setsid sh -c '({}) & exit' & sleep 0.2", app()));
}

#[test]
fn an_app_that_clears_its_environment_is_found_and_replaced() {
    // In a session of its own, under a shell that lives on.
    is_found_and_replaced(&format!(
        "env -i PORT=$PORT setsid {} -S -E app.py & sleep 1000; true",
        python()
    ));
    // Cut off from its parent, in the session of a shell that lives on.
    is_found_and_replaced(&format!(
        "env -i PORT=$PORT sh -c '{} -S -E app.py &'; exec sleep 1000",
        python()
    ));
}

#[test]
fn an_app_that_cut_every_tie_was_seen_before_and_is_replaced() {
    let start = format!("env -i PORT=$PORT setsid {} -S -E app.py &", python());
    let mut world =
        World::with_exec(&format!("{start} while test ! -e ../cut; do sleep 0.1; done"));
    world.push_and_offer(&[("version", "one")]);
    world.tick().ok();
    world.assert_serves("one");
    world.write("cut", "");
    until("the shell is gone", || world.processes().is_empty());
    assert_eq!(world.tick().ok().out, "");
    std::fs::remove_file(world.path("cut")).unwrap();
    world.push_and_offer(&[("version", "two")]);
    world.tick().ok();
    world.assert_serves("two");
}

#[test]
fn an_app_that_ignores_sigterm_is_killed() {
    let mut world = World::with_exec(&format!("trap '' TERM; {}; true", app()));
    world.set("stop_timeout", "1");
    world.push_and_offer(&[("version", "one")]);
    world.tick().ok();
    world.push_and_offer(&[("version", "two")]);
    world.tick().ok();
    world.assert_serves("two");
    assert_says(&world.step("stop").unwrap().output, &["SIGTERM to process", "SIGKILL to process"]);
}

#[test]
fn an_app_is_asked_before_it_is_killed() {
    let mut world = World::with_exec(&format!(
        "trap 'echo saved > ../saved.txt; kill $!; exit' TERM; sh -c '{}' & wait",
        app()
    ));
    world.push_and_offer(&[("version", "one")]);
    world.tick().ok();
    world.push_and_offer(&[("version", "two")]);
    world.tick().ok();
    assert_eq!(world.read("saved.txt"), "saved\n");
}

#[test]
fn without_a_check_url_an_app_that_lives_or_ends_well_is_taken_to_run() {
    let mut world = World::with_exec("exec sleep 1000");
    let columns = [("check_url", pullre::store::backend::Value::Null)];
    world.store.set_server(world.server, &columns, jiff::Timestamp::now()).unwrap();
    world.push_and_offer(&[]);
    world.tick().ok();
    assert_eq!(world.deployment().outcome, Outcome::Succeeded);
    world.set("exec_command", "true");
    world.push_and_offer(&[]);
    world.tick().ok();
    assert_eq!(world.deployment().outcome, Outcome::Succeeded);
    assert_eq!(world.processes(), [0; 0]);
    // There is nothing that could be seen to live or to be dead.
    assert_eq!(world.tick().ok().out, "");
    world.set("exec_command", "exit 1");
    world.push_and_offer(&[]);
    world.tick().fails();
    assert_says(&world.failed_in("probe"), &["status 1"]);
}

/// What a service manager does, for an app that our environment cannot mark.
const MANAGER: &str = r#"
case $1 in
start) env -i PORT=$PORT setsid PYTHON -S -E app.py > /dev/null 2>&1 & echo $! > ../pid;;
stop) kill $(cat ../pid); rm ../pid;;
esac
"#;

#[test]
fn an_app_of_a_service_manager_is_started_proved_and_stopped_by_its_commands() {
    let mut world = World::with_exec("sh ../manager start");
    world.set("stop_command", "sh ../manager stop");
    world.write("manager", &MANAGER.replace("PYTHON", python()));
    world.push_and_offer(&[("version", "one")]);
    world.tick().ok();
    world.assert_serves("one");
    assert_eq!(world.tick().ok().out, "");
    world.push_and_offer(&[("version", "two")]);
    world.tick().ok();
    world.assert_serves("two");
    let _ = world.store.withdraw(crate::world::PULL, world.server, jiff::Timestamp::now()).unwrap();
    world.tick().ok();
    assert_eq!(world.answer(), None);
    assert_eq!(world.duty().app, None);
}

#[test]
fn exec_command_grep_finds_an_app_that_nobody_marked() {
    let mut world = World::new();
    let pattern = format!("app.py --of {}", world.path("").display());
    world.set("exec_command_grep", &pattern);
    let mut old = world.foreign_app("author", &["--of", &world.path("").display().to_string()]);
    world.push_and_offer(&[("version", "one")]);
    world.tick().ok();
    world.assert_serves("one");
    assert!(old.wait().unwrap().code().is_none(), "ended by a signal");
}

#[test]
fn exec_command_grep_never_means_the_client_itself() {
    let mut world = World::new();
    world.set("exec_command_grep", "staging-client");
    world.push_and_offer(&[("version", "one")]);
    world.tick().ok();
    world.assert_serves("one");
}

#[test]
fn an_answer_counts_only_with_what_check_body_asks_for() {
    let mut world = World::with_exec("sh ../manager start");
    world.set("stop_command", "sh ../manager stop");
    world.set("check_body", "v-{sha}").set("check_timeout", "2");
    world.write("manager", &MANAGER.replace("PYTHON", python()));
    let body = "printf 'v-%s' $PULLRE_SHA > version";
    world.set("migrate_command", body);
    world.push_and_offer(&[("version", "x")]);
    world.tick().ok();
    assert_eq!(world.answer(), Some(format!("v-{}", world.deployment().sha)));
    assert_eq!(world.tick().ok().out, "", "and it goes on counting");
    // An old one that goes on answering proves nothing of the new commit.
    world.set("migrate_command", "");
    world.push_and_offer(&[("version", "old")]);
    world.tick().fails();
    let sha = world.deployment().sha;
    assert_says(&world.failed_in("probe"), &["does not hold", &format!("v-{sha}"), "check_body"]);
}

#[test]
fn the_port_of_the_app_need_not_be_that_of_check_url() {
    let mut world = World::new();
    let port = world.port;
    let columns = [("check_url", pullre::store::backend::Value::Null)];
    world.store.set_server(world.server, &columns, jiff::Timestamp::now()).unwrap();
    world.set("app_port", &port.to_string());
    world.push_and_offer(&[("version", "one")]);
    world.tick().ok();
    until("it listens at PORT", || world.answer().as_deref() == Some("one"));
}

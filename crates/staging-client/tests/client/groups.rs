//! Where groups of processes (cgroup v2) can be made, nothing that was started is lost.

use std::fs;
use std::path::PathBuf;

use pullre::facts::Outcome;

use crate::world::{World, app, assert_says, python, skipped, until};

/// Where a run of this machine makes its groups; None where it cannot.
fn place() -> Option<PathBuf> {
    let mut world = World::new();
    world.push_and_offer(&[("version", "one")]);
    world.tick().ok();
    let group = world.groups().pop()?;
    Some(group.parent()?.to_owned())
}

fn possible() -> bool {
    let possible = place().is_some();
    if !possible {
        skipped("no group of processes can be made here: it needs a writable cgroup v2");
    }
    possible
}

/// Leaves its session, its parents and its environment at once.
fn gone_wild() -> String {
    let python = python();
    format!("env -i PORT=$PORT setsid sh -c '{python} -S -E app.py & exit' & sleep 0.1")
}

#[test]
fn an_app_that_cuts_every_tie_at_once_is_found_and_replaced() {
    if !possible() {
        return;
    }
    let mut world = World::with_exec(&gone_wild());
    world.push_and_offer(&[("version", "one")]);
    world.tick().ok();
    world.assert_serves("one");
    until("nothing of it bears a mark", || world.processes().is_empty());
    assert_eq!(world.tick().ok().out, "", "it is known to live");
    world.push_and_offer(&[("version", "two")]);
    world.tick().ok();
    world.assert_serves("two");
    let now = jiff::Timestamp::now();
    let _ = world.store.withdraw(crate::world::PULL, world.server, now).unwrap();
    world.tick().ok();
    assert_eq!(world.answer(), None);
    assert!(world.groups().is_empty(), "no empty group is left behind");
}

#[test]
fn the_death_of_an_app_that_cut_every_tie_is_seen() {
    if !possible() {
        return;
    }
    let mut world = World::with_exec(&gone_wild());
    world.push_and_offer(&[("version", "one")]);
    world.tick().ok();
    for group in world.groups() {
        for app in fs::read_dir(group).unwrap().flatten().filter(|entry| entry.path().is_dir()) {
            fs::write(app.path().join("cgroup.kill"), "1").unwrap();
        }
    }
    until("it is dead", || world.answer().is_none());
    assert_says(&world.tick().ok().out, &["again, since it does not run"]);
    world.assert_serves("one");
}

#[test]
fn an_app_without_a_record_is_found_by_its_group() {
    if !possible() {
        return;
    }
    let mut world = World::with_exec(&gone_wild());
    world.push_and_offer(&[("version", "one")]);
    world.tick().ok();
    fs::remove_file(world.path(".pullre/apps/1.json")).unwrap();
    world.push_and_offer(&[("version", "two")]);
    world.tick().ok();
    world.assert_serves("two");
}

#[test]
fn many_processes_that_ignore_everything_end_in_one_moment() {
    if !possible() {
        return;
    }
    // Each is replaced by another one as long as it lives: to kill one after the other never ends.
    let fork = format!(
        "trap '' TERM; (trap '' TERM; while :; do env -i setsid sh -c \"trap '' TERM; sleep 0.01\" & \
         sleep 0.01; done) & {}",
        app()
    );
    let mut world = World::with_exec(&fork);
    world.set("stop_timeout", "1");
    world.push_and_offer(&[("version", "one")]);
    world.tick().ok();
    world.set("exec_command", &app());
    world.push_and_offer(&[("version", "two")]);
    world.tick().ok();
    world.assert_serves("two");
    assert_eq!(world.processes().len(), 1);
}

#[test]
fn steps_leave_no_group_behind_but_for_what_they_left_running() {
    if !possible() {
        return;
    }
    let mut world = World::new();
    world.set("migrate_command", "env -i setsid sh -c 'echo $$ > ../pid; exec sleep 1000' & true");
    world.push_and_offer(&[("version", "one")]);
    world.tick().ok();
    until("it runs", || world.path("pid").exists());
    let pid = world.read("pid").trim().to_owned();
    // Nobody may have asked yet how it ended.
    let runs = || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
    };
    assert!(runs(), "what a step left in the background on purpose goes on");
    world.set("migrate_command", "true");
    world.push_and_offer(&[("version", "two")]);
    world.tick().ok();
    assert!(!runs());
    let names = |world: &World| -> Vec<String> {
        let inside = world.groups().into_iter().flat_map(|group| fs::read_dir(group).unwrap());
        let folders = inside.flatten().filter(|entry| entry.path().is_dir());
        folders.map(|entry| entry.file_name().into_string().unwrap()).collect()
    };
    assert_eq!(names(&world), [format!("app-{}", world.deployment().id)]);
}

#[test]
fn where_no_group_can_be_made_the_marks_go_on_telling() {
    let mut world = World::with_exec(&format!("setsid sh -c '({}) & exit' & sleep 0.2", app()));
    // A record of a place that is gone, as after the end of a session.
    world.write(".pullre/groups", "/sys/fs/cgroup/nowhere\n");
    for version in ["one", "two"] {
        world.push_and_offer(&[("version", version)]);
        world.tick().ok();
        world.assert_serves(version);
    }
    assert_eq!(world.deployment().outcome, Outcome::Succeeded);
}

#[test]
fn what_a_program_of_git_leaves_behind_is_ended_by_the_next_deployment() {
    if !possible() {
        return;
    }
    let mut world = World::new();
    let pid = world.path("pid").display().to_string();
    world.wrap_git(&format!(
        "case \" $* \" in *' checkout '*) test -e '{pid}' || \
         env -i PATH=$PATH setsid sh -c 'echo $$ > {pid}; exec sleep 1000' & esac; exec $GIT \"$@\""
    ));
    world.push_and_offer(&[("version", "one")]);
    world.tick().ok();
    until("it runs", || fs::read_to_string(&pid).is_ok_and(|text| text.ends_with('\n')));
    let left = fs::read_to_string(&pid).unwrap().trim().to_owned();
    let runs = || {
        let stat = fs::read_to_string(format!("/proc/{left}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
    };
    assert!(runs(), "it bears no mark, and its session is its own");
    world.push_and_offer(&[("version", "two")]);
    world.tick().ok();
    world.assert_serves("two");
    assert!(!runs());
}

#[test]
fn places_of_sessions_that_are_over_are_forgotten() {
    let Some(place) = place() else { return skipped("no group of processes can be made here") };
    let mut world = World::new();
    world.write(".pullre/groups", "/sys/fs/cgroup/user.slice/session-1.scope\n/proc/sys\n");
    world.push_and_offer(&[("version", "one")]);
    world.tick().ok();
    let here = place.display();
    let places = world.read(".pullre/groups");
    let places: Vec<PathBuf> = places.lines().map(PathBuf::from).collect();
    assert_eq!(places, [PathBuf::from("/proc/sys"), place.clone()]);
    world.write(".pullre/groups", &format!("{here}\n"));
}

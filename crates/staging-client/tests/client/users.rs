//! With `exec_user` the app's commands and git run as a user who can read nothing of ours.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;

use nix::unistd::geteuid;
use pullre::facts::Outcome;

use crate::world::{Ran, World, assert_says, skipped, until};

const USER: &str = "nobody";
/// The one that everybody may run: root's own may be in its home.
const APP: &str = "exec python3 -S -E app.py";

/// A world whose app is another user's; None where that cannot be tried.
fn world() -> Option<World> {
    if !geteuid().is_root() {
        skipped("only root can run commands as another user");
        return None;
    }
    let mut world = World::new();
    world.set("exec_user", USER).set("exec_command", APP);
    fs::set_permissions(world.path("."), PermissionsExt::from_mode(0o755)).unwrap();
    give(&world, &["work", "origin.git"]);
    Some(world)
}

fn give(world: &World, names: &[&str]) {
    for name in names {
        let status = Command::new("chown").args(["-R", USER]).arg(world.path(name)).status();
        assert!(status.unwrap().success());
    }
}

/// As GitHub keeps the repository, whoever pushed.
fn push(world: &mut World, files: &[(&str, &str)]) {
    world.push_and_offer(files);
    give(world, &["origin.git"]);
}

fn uid() -> u32 {
    nix::unistd::User::from_name(USER).unwrap().unwrap().uid.as_raw()
}

#[test]
fn app_and_git_are_the_users_and_nothing_of_ours_can_be_read() {
    let Some(mut world) = world() else { return };
    world.wrap_git("id -u >> ../git-users.txt; exec $GIT \"$@\"");
    world.write("git-users.txt", "");
    world.write("migrate.txt", "");
    give(&world, &["git-users.txt", "migrate.txt"]);
    world.set(
        "migrate_command",
        "{ id -un; echo $HOME $USER $LOGNAME; cat ../app.ini; ls ../.pullre; } > ../migrate.txt 2>&1; true",
    );
    world.set("exec_command", &format!("echo said > /dev/stdout; {APP}"));
    push(&mut world, &[("version", "one"), ("sub/file", "x")]);
    world.tick().ok();
    world.assert_serves("one");
    let seen = world.read("migrate.txt");
    assert_says(&seen, &["nobody\n", "nobody nobody\n", "Permission denied"]);
    assert!(!seen.contains("exec_command"), "{seen}");
    assert!(world.read("git-users.txt").lines().all(|line| line == uid().to_string()));
    assert_eq!(fs::metadata(world.path("work/sub/file")).unwrap().uid(), uid());
    assert_says(&world.step("probe").unwrap().output, &["said"]);
    let app = world.processes();
    assert!(!app.is_empty());
    for pid in &app {
        assert_eq!(fs::metadata(format!("/proc/{pid}")).unwrap().uid(), uid());
    }
    push(&mut world, &[("version", "two")]);
    world.tick().ok();
    world.assert_serves("two");
    assert!(world.processes().iter().all(|pid| !app.contains(pid)), "it could be stopped");
}

#[test]
fn what_the_app_does_to_its_repository_reaches_nobody_elses_rights() {
    let Some(mut world) = world() else { return };
    push(&mut world, &[("version", "one")]);
    world.tick().ok();
    // What its commands could have left there.
    world.write("hit.txt", "");
    give(&world, &["hit.txt"]);
    let hit = "id -un >> ../hit.txt";
    for (key, value) in [
        ("core.sshCommand", format!("sh -c '{hit}'")),
        ("filter.x.smudge", format!("sh -c '{hit}; cat'")),
        ("core.pager", hit.to_owned()),
        ("remote.origin.uploadpack", format!("sh -c '{hit}; exec git-upload-pack \"$0\"'")),
    ] {
        world.git("work", &["config", key, &value]);
    }
    give(&world, &["work"]);
    push(&mut world, &[("version", "two"), (".gitattributes", "* filter=x\n")]);
    world.tick();
    let ran = world.read("hit.txt");
    assert!(ran.contains("nobody"), "none of it was tried: {ran:?}");
    assert!(ran.lines().all(|line| line == "nobody"), "{ran}");
    // The way to call ssh is taken from there too, and is the same user's.
    world.write("hit.txt", "");
    world.git("work", &["remote", "set-url", "origin", "git@git.example.com:acme/shop.git"]);
    give(&world, &["work"]);
    push(&mut world, &[("version", "by ssh")]);
    world.tick().fails();
    world.failed_in("fetch");
    let ran = world.read("hit.txt");
    assert!(!ran.is_empty() && ran.lines().all(|line| line == "nobody"), "{ran:?}");
    // A folder elsewhere is not taken for the work tree.
    world.git("work", &["config", "core.worktree", "/etc"]);
    give(&world, &["work"]);
    push(&mut world, &[("version", "three")]);
    world.tick().fails();
    assert_says(&world.failed_in("fetch"), &["core.worktree", "nothing is done there"]);
}

#[test]
fn the_user_makes_the_work_tree_where_there_is_none() {
    let Some(mut world) = world() else { return };
    fs::remove_dir_all(world.path("work")).unwrap();
    world.set("target_dir", "trees/stg/acme/shop");
    world.set("git_url", &world.path("origin.git").display().to_string());
    push(&mut world, &[("version", "one")]);
    world.tick().ok();
    world.assert_serves("one");
    for name in ["trees", "trees/stg/acme/shop", "trees/stg/acme/shop/.git/config"] {
        assert_eq!(fs::metadata(world.path(name)).unwrap().uid(), uid(), "{name}");
    }
}

#[test]
fn a_work_tree_of_somebody_else_is_named_with_the_remedy() {
    let Some(mut world) = world() else { return };
    let status = Command::new("chown").args(["-R", "root"]).arg(world.path("work")).status();
    assert!(status.unwrap().success());
    push(&mut world, &[]);
    world.tick().fails();
    assert_says(
        &world.failed_in("fetch"),
        &["does not belong to exec_user nobody", "chown -R nobody:"],
    );
}

#[test]
fn folders_that_the_app_made_read_only_are_no_obstacle() {
    let Some(mut world) = world() else { return };
    push(&mut world, &[("version", "one"), ("lib/a.txt", "a"), ("lib/deep/b.txt", "b")]);
    world.tick().ok();
    world.write("work/lib/left/over.txt", "untracked");
    give(&world, &["work"]);
    for name in ["lib/deep/b.txt", "lib/left", "lib/deep", "lib"] {
        let mode = PermissionsExt::from_mode(0o555);
        fs::set_permissions(world.path("work").join(name), mode).unwrap();
    }
    push(&mut world, &[("version", "two"), ("lib/deep/b.txt", "new"), ("lib/a.txt", "new")]);
    world.tick().ok();
    world.assert_serves("two");
    assert_eq!(world.read("work/lib/deep/b.txt"), "new");
    assert!(!world.path("work/lib/left").exists());
}

#[test]
fn a_user_who_is_none_fails_the_deployment_and_stops_nothing() {
    let mut world = World::new();
    world.push_and_offer(&[("version", "one")]);
    world.tick().ok();
    world.set("exec_user", "no-such-user");
    world.push_and_offer(&[("version", "two")]);
    world.tick().fails();
    assert_says(&world.failed_in("fetch"), &["exec_user no-such-user is no user of this machine"]);
    assert_eq!(world.answer().as_deref(), Some("one"));
}

#[test]
fn only_root_can_be_told_to_run_commands_as_somebody_else() {
    let Some(mut world) = world() else { return };
    world.set("exec_user", "root");
    world.push_and_offer(&[]);
    give(&world, &["."]);
    let binary = world.client(&[]);
    let mut command = Command::new("setpriv");
    command.args(["--reuid", USER, "--regid", "nogroup", "--clear-groups", "--"]);
    command.arg(binary.get_program()).current_dir(world.path("."));
    command.env("AWS_EC2_METADATA_DISABLED", "true");
    let ran = Ran::from(command.output().unwrap());
    assert_says(&ran.err, &["exec_user root needs a staging-client that runs as root"]);
    assert_eq!(world.deployment().outcome, Outcome::Failed);
    until("nothing was started", || world.processes().is_empty());
}

#[test]
fn what_is_no_file_in_the_users_repository_holds_no_client() {
    let Some(mut world) = world() else { return };
    push(&mut world, &[("version", "one")]);
    world.tick().ok();
    // Of root's: what the user may not read is not read for them.
    world.write("roots", "[core]\n\tworktree = /etc\n");
    fs::set_permissions(world.path("roots"), PermissionsExt::from_mode(0o600)).unwrap();
    world.git("work", &["config", "include.path", "../../roots"]);
    give(&world, &["work"]);
    push(&mut world, &[("version", "two")]);
    let reason = {
        world.tick_that_ends().fails();
        world.failed_in("fetch")
    };
    assert!(!reason.contains("worktree"), "{reason}");
    world.git("work", &["config", "include.path", "extra"]);
    world.fifo("work/.git/extra");
    give(&world, &["work"]);
    world.set("step_timeout", "2");
    push(&mut world, &[("version", "three")]);
    world.tick_that_ends().fails();
    assert_says(&world.failed_in("fetch"), &["work cannot be read within 2 s"]);
    fs::remove_file(world.path("work/.git/extra")).unwrap();
    fs::remove_file(world.path("work/.git/config")).unwrap();
    world.fifo("work/.git/config");
    push(&mut world, &[]);
    world.tick_that_ends().fails();
    assert_says(&world.failed_in("fetch"), &["config is no file"]);
}

#[test]
fn a_home_that_the_user_may_not_enter_is_no_obstacle() {
    let Some(mut world) = world() else { return };
    world.write("home/.gitconfig", "[core]\n\tpager = cat\n");
    fs::set_permissions(world.path("home"), PermissionsExt::from_mode(0o700)).unwrap();
    let calls = world.path("calls.txt").display().to_string();
    world.wrap_git(&format!("echo \" $* \" >> '{calls}'; exec $GIT \"$@\""));
    for version in ["one", "two"] {
        world.write("calls.txt", "");
        world.write("work/kept/new.js", version);
        // Not all: a new owner is a change of each folder.
        give(&world, &["calls.txt", if version == "one" { "work" } else { "work/kept/new.js" }]);
        push(&mut world, &[("version", version)]);
        let out = world.client(&[]).env("HOME", world.path("home")).output().unwrap();
        Ran::from(out).ok();
        world.assert_serves(version);
    }
    assert!(!world.read("calls.txt").contains(" clean -f"), "{}", world.read("calls.txt"));
}

#[test]
fn settings_of_ours_that_the_user_may_not_read_are_not_looked_for() {
    let Some(mut world) = world() else { return };
    world.write("xdg/git/config", "[core]\n\tpager = cat\n");
    fs::set_permissions(world.path("xdg"), PermissionsExt::from_mode(0o700)).unwrap();
    push(&mut world, &[("version", "one")]);
    let home = nix::unistd::User::from_name(USER).unwrap().unwrap().dir;
    // Only the other place is ours.
    let mut client = world.client(&[]);
    client.env("HOME", home).env("XDG_CONFIG_HOME", world.path("xdg"));
    Ran::from(client.output().unwrap()).ok();
    world.assert_serves("one");
}

#[test]
fn locks_are_removed_with_the_rights_of_the_user_only() {
    let Some(mut world) = world() else { return };
    push(&mut world, &[("version", "one")]);
    world.tick().ok();
    // What a link that is put in a folder's place at the right moment would lead to.
    world.write("work/.git/modules/rooted/index.lock", "root's");
    push(&mut world, &[("version", "two")]);
    world.tick().fails();
    assert_says(&world.failed_in("fetch"), &["cannot remove", "index.lock"]);
    assert_eq!(world.read("work/.git/modules/rooted/index.lock"), "root's");
    world.write("elsewhere/x/index.lock", "root's");
    fs::remove_dir_all(world.path("work/.git/modules")).unwrap();
    std::os::unix::fs::symlink(world.path("elsewhere"), world.path("work/.git/modules")).unwrap();
    push(&mut world, &[("version", "three")]);
    world.tick().ok();
    assert!(world.path("elsewhere/x/index.lock").exists());
}

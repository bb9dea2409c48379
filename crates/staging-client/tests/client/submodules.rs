//! Submodules are brought where that is wanted, and their URLs are strangers' words.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;

use crate::world::{World, assert_says};

/// A repository for a submodule, with one file.
fn library(world: &World, name: &str, version: &str) {
    if !world.path(name).exists() {
        world.git(".", &["init", "-q", "-b", "main", name]);
    }
    world.write(&format!("{name}/lib.txt"), version);
    world.git(name, &["add", "-A"]);
    world.git(name, &["commit", "-q", "-m", version]);
}

fn with_submodule() -> World {
    let mut world = World::new();
    world.set("git_submodules", "yes");
    library(&world, "library", "old");
    let url = world.path("library").display().to_string();
    world.git("author", &["submodule", "--quiet", "add", "--", &url, "lib"]);
    world
}

#[test]
fn submodules_are_brought_and_cleaned_only_where_that_is_wanted() {
    let mut world = with_submodule();
    world.set("git_submodules", "no");
    world.push_and_offer(&[("version", "one")]);
    world.tick().ok();
    assert!(!world.path("work/lib/lib.txt").exists());
    world.set("git_submodules", "yes");
    world.push_and_offer(&[("version", "two")]);
    world.tick().ok();
    assert_eq!(world.read("work/lib/lib.txt"), "old");
    // The next commit wants another state of it; what was done to it meanwhile is undone.
    world.write("work/lib/lib.txt", "changed");
    world.write("work/lib/left/over.txt", "untracked");
    library(&world, "library", "new");
    world.git("author/lib", &["pull", "-q", "origin", "main"]);
    world.push_and_offer(&[("version", "three")]);
    world.tick().ok();
    assert_eq!(world.read("work/lib/lib.txt"), "new");
    assert!(!world.path("work/lib/left").exists());
    // A kill in the middle of one leaves a lock in it.
    world.write("work/.git/modules/lib/index.lock", "");
    world.write("work/lib/lib.txt", "changed");
    world.push_and_offer(&[("version", "four")]);
    world.tick().ok();
    assert_eq!(world.read("work/lib/lib.txt"), "new");
    world.git("author", &["rm", "-q", "-f", "lib"]);
    world.push_and_offer(&[("version", "five")]);
    world.tick().ok();
    assert!(!world.path("work/lib").exists());
    world.assert_serves("five");
}

#[test]
fn a_submodule_in_a_submodule_is_brought_too_and_in_a_shallow_tree_without_history() {
    let mut world = with_submodule();
    library(&world, "inner", "deep");
    let url = format!("file://{}", world.path("inner").display());
    world.git("library", &["submodule", "--quiet", "add", "--", &url, "inner"]);
    library(&world, "library", "with another");
    world.git("author/lib", &["pull", "-q", "origin", "main"]);
    fs::remove_dir_all(world.path("work")).unwrap();
    world.set("git_url", &format!("file://{}", world.path("origin.git").display()));
    world.set("git_depth", "1");
    world.push_and_offer(&[("version", "one")]);
    world.tick().ok();
    assert_eq!(world.read("work/lib/inner/lib.txt"), "deep");
    assert_eq!(world.git("work/lib/inner", &["rev-list", "--count", "HEAD"]), "1");
}

#[test]
fn no_hook_and_no_monitor_of_a_submodule_runs() {
    let mut world = with_submodule();
    world.push_and_offer(&[("version", "one")]);
    world.tick().ok();
    let hit = world.path("hit").display().to_string();
    for hook in ["post-checkout", "post-index-change", "fsmonitor"] {
        let name = format!("work/.git/modules/lib/hooks/{hook}");
        world.write(&name, &format!("#!/bin/sh\ntouch '{hit}'\n"));
        fs::set_permissions(world.path(&name), PermissionsExt::from_mode(0o755)).unwrap();
    }
    library(&world, "library", "new");
    world.git("author/lib", &["pull", "-q", "origin", "main"]);
    world.push_and_offer(&[("version", "two")]);
    let monitor = world.path("work/.git/modules/lib/hooks/fsmonitor").display().to_string();
    world.git("work/lib", &["config", "core.fsmonitor", &monitor]);
    world.tick().ok();
    assert_eq!(world.read("work/lib/lib.txt"), "new");
    assert!(!world.path("hit").exists());
    world.git("work/lib", &["checkout", "-q", "--detach", "HEAD~"]);
    assert!(world.path("hit").exists(), "they are hooks indeed");
}

#[test]
fn a_hostile_gitmodules_fails_the_checkout_and_runs_nothing() {
    for (url, path) in [
        ("-u./payload", "lib"),
        ("--upload-pack=touch${IFS}hit", "lib"),
        ("ext::sh -c touch% hit", "lib"),
        ("fd::17/x", "lib"),
        ("../library", "../../outside"),
        ("../library", ".git/hooks"),
    ] {
        let mut world = with_submodule();
        let text = format!("[submodule \"lib\"]\n\tpath = {path}\n\turl = {url}\n");
        world.push_and_offer(&[(".gitmodules", &text), ("payload", "#!/bin/sh\ntouch ../hit\n")]);
        world.tick().fails();
        assert_says(&world.failed_in("checkout"), &["a submodule is not taken"]);
        for place in [".", "work", "origin.git"] {
            assert!(!world.path(place).join("hit").exists(), "{url} {path}");
        }
        assert!(!world.path("outside").exists());
    }
}

#[test]
fn a_submodule_of_this_machine_is_taken_only_where_origin_is_of_this_machine_too() {
    let mut world = with_submodule();
    world.push_and_offer(&[("version", "one")]);
    world.tick().ok();
    // The commit is here already, and origin is on the network from now on.
    fs::remove_dir_all(world.path("work/lib")).unwrap();
    fs::remove_dir_all(world.path("work/.git/modules")).unwrap();
    world.git("work", &["config", "--remove-section", "submodule.lib"]);
    let sha = world.deployment().sha;
    world.git("work", &["remote", "set-url", "origin", "https://127.0.0.1:1/acme/shop.git"]);
    world.offer_again(&sha);
    world.tick().fails();
    assert_says(&world.failed_in("checkout"), &["transport 'file' not allowed"]);
}

#[test]
fn a_hostile_gitmodules_is_read_as_git_reads_it() {
    for text in [
        "[submodule \"lib\"] url = -u./payload\n\tpath = lib\n",
        "[submodule \"lib\"]\n\tpath = lib\n\turl = \\\n-u./payload\n",
        "[submodule \"lib\"]\n\tpath = lib\n\turl = \"-\"u./payload\n",
        "[submodule \"lib\"]\n\turl = ../library\n\tpath = \\\n../../outside\n",
        "[submodule \"lib\"] update = !touch hit\n\tpath = lib\n\turl = ../library\n",
    ] {
        let mut world = with_submodule();
        world.push_and_offer(&[(".gitmodules", text), ("payload", "#!/bin/sh\ntouch ../hit\n")]);
        world.tick().fails();
        assert_says(&world.failed_in("checkout"), &["a submodule is not taken"]);
        assert!(!world.path("work/hit").exists() && !world.path("hit").exists(), "{text}");
    }
}

#[test]
fn a_hostile_gitmodules_of_a_submodule_is_refused_too() {
    let mut world = with_submodule();
    library(&world, "inner", "deep");
    let url = format!("file://{}", world.path("inner").display());
    world.git("library", &["submodule", "--quiet", "add", "--", &url, "inner"]);
    world.write("library/.gitmodules", "[submodule \"inner\"] url = -u./x\n\tpath = inner\n");
    library(&world, "library", "with another");
    world.git("author/lib", &["pull", "-q", "origin", "main"]);
    world.push_and_offer(&[("version", "one")]);
    world.tick().fails();
    assert_says(
        &world.failed_in("checkout"),
        &["a submodule is not taken", ".gitmodules of ./lib"],
    );
}

#[test]
fn a_file_of_a_submodule_that_git_was_told_not_to_look_at_is_the_commits_again() {
    let mut world = with_submodule();
    world.push_and_offer(&[("version", "one")]);
    world.tick().ok();
    world.git("work/lib", &["update-index", "--skip-worktree", "lib.txt"]);
    world.write("work/lib/lib.txt", "EVIL");
    world.push_and_offer(&[("version", "two")]);
    world.tick().ok();
    world.assert_serves("two");
    assert_eq!(world.read("work/lib/lib.txt"), "old");
}

/// A submodule at this path of the author's, which has another one at `inner`.
fn with_two(path: &str) -> World {
    let mut world = World::new();
    world.set("git_submodules", "yes");
    library(&world, "inner", "deep");
    library(&world, "library", "old");
    let url = |name: &str| format!("file://{}", world.path(name).display());
    world.git("library", &["submodule", "--quiet", "add", "--", &url("inner"), "inner"]);
    library(&world, "library", "with another");
    // By a shell of git's: no text of ours can hold what no UTF-8 is.
    let add = format!("!git submodule --quiet add -- {} \"$(printf '{path}')\"", url("library"));
    world.git("author", &["-c", &format!("alias.take={add}"), "take"]);
    world
}

#[test]
fn a_path_that_holds_a_secret_is_a_path_like_any_other() {
    let mut world = with_two("libs/demo-assets");
    world.set("mysql_pw", "demo");
    world.push_and_offer(&[("version", "one")]);
    world.tick().ok();
    assert_eq!(world.read("work/libs/demo-assets/inner/lib.txt"), "deep");
    let output = world.step("checkout").unwrap().output;
    assert!(!output.contains("demo") && output.contains("libs/***-assets"), "{output}");
}

#[test]
fn a_path_that_is_no_utf_8_is_a_path_like_any_other() {
    let mut world = with_two("lib-\\377");
    world.push_and_offer(&[("version", "one")]);
    world.tick().ok();
    let path = std::ffi::OsStr::from_bytes(b"lib-\xff");
    assert_eq!(fs::read(world.path("work").join(path).join("inner/lib.txt")).unwrap(), b"deep");
}

#[test]
fn what_git_warns_of_is_no_part_of_its_answer() {
    let mut world = with_two("lib");
    world.wrap_git("echo 'warning: this git is talkative' >&2; exec $GIT \"$@\"");
    world.push_and_offer(&[("version", "one")]);
    world.tick().ok();
    assert_eq!(world.read("work/lib/inner/lib.txt"), "deep");
    // The first setting is looked at as the others are.
    let hostile = "[submodule \"lib\"]\n\turl = -u./payload\n\tpath = lib\n";
    world.push_and_offer(&[(".gitmodules", hostile)]);
    world.tick().fails();
    let why = world.failed_in("checkout");
    assert_says(&why, &["a submodule is not taken: `url = -u./payload` in .gitmodules of ."]);
}

#[test]
fn a_gitmodules_that_is_no_file_or_too_long_is_not_read() {
    for kind in ["link", "FIFO"] {
        let mut world = with_submodule();
        // What an app leaves in its place where no commit has one.
        world.git("author", &["rm", "-q", "-f", "lib", ".gitmodules"]);
        world.push_and_offer(&[(".gitignore", ".gitmodules\n"), ("version", "one")]);
        world.tick().ok();
        match kind {
            "link" => {
                std::os::unix::fs::symlink("../gitconfig", world.path("work/.gitmodules")).unwrap();
            }
            _ => world.fifo("work/.gitmodules"),
        }
        world.push_and_offer(&[("version", "two")]);
        world.tick_that_ends().fails();
        let why = world.failed_in("checkout");
        assert_eq!(why, "a submodule is not taken: ./.gitmodules is no file", "{kind}");
    }
    let mut world = with_submodule();
    let long = "\tpath = one-of-very-many\n".repeat(50_000);
    world.push_and_offer(&[(".gitmodules", &format!("[submodule \"lib\"]\n{long}"))]);
    world.tick().fails();
    assert_says(&world.failed_in("checkout"), &["a submodule is not taken", "1048576 at most"]);
}

#[test]
fn submodules_are_taken_to_a_depth_of_ten_and_no_deeper() {
    let mut world = World::new();
    world.set("git_submodules", "yes");
    library(&world, "lib-1", "at the bottom");
    let add = |world: &World, folder: &str, name: &str| {
        let url = format!("file://{}", world.path(name).display());
        world.git(folder, &["submodule", "--quiet", "add", "--", &url, "l"]);
    };
    for number in 2..=11 {
        let (below, name) = (format!("lib-{}", number - 1), format!("lib-{number}"));
        library(&world, &name, "made");
        add(&world, &name, &below);
        library(&world, &name, "with one below");
    }
    add(&world, "author", "lib-10");
    world.push_and_offer(&[("version", "one")]);
    world.tick().ok();
    let ten = ["l"; 10].join("/");
    assert_eq!(world.read(&format!("work/{ten}/lib.txt")), "at the bottom");
    world.git("author", &["rm", "-q", "-f", "l"]);
    fs::remove_dir_all(world.path("author/.git/modules")).unwrap();
    add(&world, "author", "lib-11");
    world.push_and_offer(&[("version", "two")]);
    world.tick().fails();
    let why = world.failed_in("checkout");
    assert_says(&why, &[&format!("./{ten} is in 10 others, and has some of its own")]);
}

use crate::world::{World, assert_says};

#[test]
fn a_folder_inside_another_work_tree_is_not_touched() {
    let mut world = World::new();
    world.git(".", &["init", "-q", "precious"]);
    world.write("precious/site/dirty.txt", "dirty");
    world.git("precious", &["remote", "add", "origin", "../origin.git"]);
    world.set("target_dir", "precious/site");
    world.push_and_offer(&[]);
    world.tick().fails();
    assert_says(&world.failed_in("fetch"), &["inside the work tree", "nothing is done there"]);
    assert_eq!(world.read("precious/site/dirty.txt"), "dirty");
}

#[test]
fn nothing_is_cloned_into_another_work_tree() {
    let mut world = World::new();
    world.git(".", &["init", "-q", "precious"]);
    world.set("target_dir", "precious/site");
    world.set("git_url", &world.path("origin.git").display().to_string());
    world.push_and_offer(&[]);
    world.tick().fails();
    assert_says(&world.failed_in("fetch"), &["nothing is cloned there"]);
    assert!(!world.path("precious/site").exists());
}

#[test]
fn another_repository_is_not_touched() {
    for (url, shown) in [
        ("https://u:pw@github.com/acme/other.git", "https://github.com/acme/other.git"),
        ("git@github.com:evil/shop.git", "github.com:evil/shop.git"),
    ] {
        let mut world = World::new();
        world.git("work", &["remote", "set-url", "origin", url]);
        world.write("work/version", "dirty");
        world.write("work/untracked.txt", "dirty");
        world.push_and_offer(&[]);
        world.tick().fails();
        assert_says(&world.failed_in("fetch"), &[shown, "not the repository acme/shop"]);
        assert_eq!(world.read("work/version"), "dirty");
        assert_eq!(world.read("work/untracked.txt"), "dirty");
    }
}

#[test]
fn a_work_tree_that_points_elsewhere_is_not_touched() {
    let mut world = World::new();
    world.write("elsewhere/file", "dirty");
    let elsewhere = world.path("elsewhere").display().to_string();
    world.git("work", &["config", "core.worktree", &elsewhere]);
    world.push_and_offer(&[]);
    world.tick().fails();
    assert_says(&world.failed_in("fetch"), &["not the top level"]);
    assert_eq!(world.read("elsewhere/file"), "dirty");
}

#[test]
fn a_bare_repository_an_ordinary_folder_and_a_missing_one_are_each_said() {
    let mut world = World::new();
    world.write("folder/file", "precious");
    for (target, says) in [
        ("origin.git", "bare git repository"),
        ("folder", "no git work tree"),
        ("missing", "git_url"),
        ("app.ini", "is no folder"),
    ] {
        world.set("target_dir", target);
        world.push_and_offer(&[]);
        world.tick().fails();
        assert_says(&world.failed_in("fetch"), &[target, says]);
    }
    assert_eq!(world.read("folder/file"), "precious");
    assert!(!world.path("missing").exists());
}

#[test]
fn the_surroundings_cannot_lead_git_elsewhere() {
    let mut world = World::new();
    world.git(".", &["init", "-q", "elsewhere"]);
    world.write("elsewhere/file", "dirty");
    world.push_and_offer(&[("version", "one")]);
    let out = world
        .client(&[])
        .env("GIT_DIR", world.path("elsewhere/.git"))
        .env("GIT_WORK_TREE", world.path("elsewhere"))
        .env("GIT_INDEX_FILE", world.path("elsewhere/.git/index"))
        .output()
        .unwrap();
    assert_eq!(out.status.code(), Some(0), "{}", String::from_utf8_lossy(&out.stderr));
    world.assert_serves("one");
    assert_eq!(world.read("elsewhere/file"), "dirty");
}

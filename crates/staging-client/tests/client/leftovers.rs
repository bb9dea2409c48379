//! What the code of one pull request can leave in a work tree hangs no client, and is not taken for
//! the files of the next commit.

use std::fs;
use std::path::Path;

use crate::world::{World, assert_says};

#[test]
fn a_fifo_in_the_place_of_a_file_of_git_fails_the_deployment_and_holds_nothing() {
    for (fifo, says) in [
        ("work/.git/extra", "work cannot be read within 2 s"),
        ("work/.git/packed-refs", "git fetch timed out after 2 s"),
        (".gitconfig", "or in ~/.gitconfig, is no ordinary file"),
    ] {
        let mut world = World::new();
        world.push_and_offer(&[("version", "one")]);
        world.tick().ok();
        // Not for what shall succeed: the machine may be busy.
        world.set("step_timeout", "2");
        let _ = fs::remove_file(world.path(fifo));
        world.git("work", &["config", "include.path", "extra"]);
        world.fifo(fifo);
        world.push_and_offer(&[("version", "two")]);
        world.tick_that_ends().fails();
        assert_says(&world.failed_in("fetch"), &[says]);
        assert_eq!(world.answer().as_deref(), Some("one"));
        fs::remove_file(world.path(fifo)).unwrap();
        world.set("step_timeout", "");
        world.push_and_offer(&[("version", "three")]);
        world.tick_that_ends().ok();
        world.assert_serves("three");
    }
}

#[test]
fn rules_of_no_commit_in_a_fifo_end_with_the_time_of_the_step() {
    let mut world = World::new();
    world.push_and_offer(&[("version", "one")]);
    world.tick().ok();
    world.set("step_timeout", "2");
    let _ = fs::remove_file(world.path("work/.git/info/exclude"));
    world.fifo("work/.git/info/exclude");
    world.push_and_offer(&[("version", "two")]);
    world.tick_that_ends().fails();
    assert_says(&world.failed_in("checkout"), &["git checkout timed out after 2 s"]);
}

/// A world whose `lib.txt` is another pull request's, and git is told not to see it.
fn with_evil(hide: impl FnOnce(&World, &Path)) -> World {
    let mut world = World::new();
    world.push_and_offer(&[("version", "one"), ("lib.txt", "good")]);
    world.tick().ok();
    let file = world.path("work/lib.txt");
    hide(&world, &file);
    assert_eq!(world.git("work", &["status", "--short", "--untracked-files=no"]), "");
    world.push_and_offer(&[("version", "two")]);
    world.tick().ok();
    world.assert_serves("two");
    world
}

#[test]
fn a_file_that_git_was_told_not_to_look_at_is_the_commits_again() {
    for flag in ["--skip-worktree", "--assume-unchanged"] {
        let world = with_evil(|world, file| {
            world.git("work", &["update-index", flag, "lib.txt"]);
            fs::write(file, "EVIL").unwrap();
        });
        assert_eq!(world.read("work/lib.txt"), "good", "{flag}");
    }
}

#[test]
fn a_file_that_was_left_out_of_the_tree_is_back_again() {
    let world = with_evil(|world, file| {
        world.git("work", &["config", "sparse.expectFilesOutsideOfPatterns", "true"]);
        world.git("work", &["sparse-checkout", "set", "--no-cone", "/*", "!lib.txt"]);
        fs::write(file, "EVIL").unwrap();
        world.git("work", &["update-index", "--skip-worktree", "lib.txt"]);
    });
    assert_eq!(world.read("work/lib.txt"), "good");
}

#[test]
fn times_and_sizes_in_an_index_that_is_not_ours_are_not_believed() {
    let world = with_evil(|_, file| {
        use std::os::unix::fs::MetadataExt;
        fs::write(file, "EVIL").unwrap();
        let found = fs::symlink_metadata(file).unwrap();
        let repository = git2::Repository::open(file.parent().unwrap()).unwrap();
        let mut index = repository.index().unwrap();
        let mut entry = index.get_path(Path::new("lib.txt"), 0).unwrap();
        entry.ino = found.ino() as u32;
        entry.file_size = found.size() as u32;
        let nanoseconds = |at: i64| u32::try_from(at).unwrap();
        let seconds = |at: i64| i32::try_from(at).unwrap();
        entry.mtime = git2::IndexTime::new(seconds(found.mtime()), nanoseconds(found.mtime_nsec()));
        entry.ctime = git2::IndexTime::new(seconds(found.ctime()), nanoseconds(found.ctime_nsec()));
        // Later than the file, or git looks at what is in it.
        std::thread::sleep(std::time::Duration::from_millis(1_100));
        index.add(&entry).unwrap();
        index.write().unwrap();
    });
    assert_eq!(world.read("work/lib.txt"), "good");
}

#[test]
fn files_of_the_old_commit_are_gone_also_where_the_index_is_made_anew() {
    let mut world = World::new();
    world.commit(&[("kept/forced.txt", "tracked though ignored")]);
    world.git("author", &["add", "-f", "kept/forced.txt"]);
    world.push_and_offer(&[("version", "one"), ("old.txt", "old")]);
    world.tick().ok();
    assert!(world.path("work/kept/forced.txt").exists());
    fs::remove_file(world.path("work/.git/index")).unwrap();
    world.git("author", &["rm", "-q", "kept/forced.txt", "old.txt"]);
    world.push_and_offer(&[("version", "two")]);
    world.tick().ok();
    world.assert_serves("two");
    assert!(!world.path("work/kept/forced.txt").exists());
    assert!(!world.path("work/old.txt").exists());
}

#[test]
fn a_commit_that_cannot_be_read_any_more_is_no_obstacle() {
    let mut world = World::new();
    world.push_and_offer(&[("version", "one"), ("dir/file", "x")]);
    world.tick().ok();
    let tree = world.git("work", &["rev-parse", "HEAD:dir"]);
    let object = format!("work/.git/objects/{}/{}", &tree[..2], &tree[2..]);
    world.push_and_offer(&[("version", "two"), ("dir/file", "y")]);
    fs::remove_file(world.path(&object)).unwrap();
    fs::remove_file(world.path("work/.git/index")).unwrap();
    world.tick().ok();
    world.assert_serves("two");
    assert_eq!(world.read("work/dir/file"), "y");
}

//! What repositories and the places that they come from may be like.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::thread;

use crate::world::{Ran, World, app, assert_says, python, until};

/// Every call of git that the client made, without its settings.
fn calls(world: &World) -> String {
    fs::read_to_string(world.path("calls.txt")).unwrap_or_default()
}

fn watch_git(world: &mut World) {
    let log = world.path("calls.txt").display().to_string();
    world.wrap_git(&format!("echo \" $* \" >> '{log}'; exec $GIT \"$@\""));
}

#[test]
fn a_second_deployment_scans_the_tree_only_where_it_changed() {
    let mut world = World::new();
    watch_git(&mut world);
    world.push_and_offer(&[("version", "one"), ("a/b/c.txt", "c"), ("d/e.txt", "e")]);
    world.tick().ok();
    assert_says(&calls(&world), &[" clean -f -d"]);
    fs::write(world.path("calls.txt"), "").unwrap();
    // Ignored files come and go.
    world.write("work/kept/new.js", "kept");
    world.push_and_offer(&[("version", "two"), ("a/b/new.txt", "new"), ("f/g/h.txt", "h")]);
    world.tick().ok();
    assert!(!calls(&world).contains(" clean -f"), "{}", calls(&world));
    assert_eq!(calls(&world).lines().count(), 2, "fetch and checkout: {}", calls(&world));
    assert_eq!(world.read("work/kept/new.js"), "kept");
    for (place, why) in [
        ("work/over.txt", "at the top"),
        ("work/a/b/over.txt", "in a folder that the commit does not touch"),
        ("work/over/deep/er.txt", "in a folder of its own"),
    ] {
        world.write(place, "untracked");
        world.push_and_offer(&[("version", place)]);
        world.tick().ok();
        assert!(!world.path(place).exists(), "{why}");
    }
    // A folder of the commit that holds something else is gone with the commit.
    world.write("work/f/g/over.txt", "untracked");
    fs::remove_dir_all(world.path("author/f")).unwrap();
    world.push_and_offer(&[("version", "three")]);
    world.tick().ok();
    assert!(!world.path("work/f").exists());
}

#[test]
fn what_is_ignored_no_more_is_removed() {
    let mut world = World::new();
    world.push_and_offer(&[("version", "one")]);
    world.tick().ok();
    world.write("work/kept/module.js", "kept");
    world.push_and_offer(&[("version", "two")]);
    world.tick().ok();
    assert!(world.path("work/kept/module.js").exists());
    world.push_and_offer(&[("version", "three"), (".gitignore", "other/\n")]);
    world.tick().ok();
    assert!(!world.path("work/kept").exists());
    // Rules that stand in no commit.
    world.write("work/local/module.js", "kept");
    world.write("work/.git/info/exclude", "local/\n");
    world.push_and_offer(&[("version", "four")]);
    world.tick().ok();
    assert!(world.path("work/local/module.js").exists());
    fs::remove_file(world.path("work/.git/info/exclude")).unwrap();
    world.push_and_offer(&[("version", "five")]);
    world.tick().ok();
    assert!(!world.path("work/local").exists());
}

#[test]
fn what_was_scanned_long_ago_is_scanned_again_where_it_changed_and_where_rules_changed() {
    let mut world = World::new();
    let ignore = |rules: &str| format!("kept/\n{rules}");
    let (both, one) = (ignore("*.log\n*.tmp\n"), ignore("*.tmp\n"));
    let files = [("a/x", "x"), ("b/x", "x"), (".gitignore", both.as_str())];
    world.push_and_offer(&files);
    world.tick().ok();
    world.write("work/b/old.log", "ignored");
    // So fresh a change is looked at in any case.
    thread::sleep(std::time::Duration::from_millis(2_500));
    world.push_and_offer(&[("version", "two")]);
    world.tick().ok();
    let scan = world.read(".pullre/trees/1.json");
    assert!(!scan.contains("\"a\":0") && !scan.contains("\"b\":0"), "{scan}");
    world.write("work/a/over.txt", "untracked");
    world.push_and_offer(&[("version", "three")]);
    world.tick().ok();
    assert!(!world.path("work/a/over.txt").exists());
    assert!(world.path("work/b/old.log").exists());
    world.push_and_offer(&[("version", "four"), (".gitignore", one.as_str())]);
    world.tick().ok();
    assert!(!world.path("work/b/old.log").exists());
}

#[test]
fn after_a_checkout_by_hand_or_a_killed_one_the_whole_tree_is_scanned() {
    let mut world = World::new();
    world.push_and_offer(&[("version", "one"), ("dir/x", "x")]);
    world.tick().ok();
    world.push_and_offer(&[("version", "two")]);
    world.tick().ok();
    world.git("work", &["checkout", "-q", "--detach", "HEAD~"]);
    watch_git(&mut world);
    world.push_and_offer(&[("version", "three")]);
    world.tick().ok();
    assert_says(&calls(&world), &[" clean -f"]);
    // A record that makes no sense counts as none.
    world.write(".pullre/trees/1.json", "{");
    world.write("work/over.txt", "untracked");
    world.push_and_offer(&[("version", "four")]);
    world.tick().ok();
    assert!(!world.path("work/over.txt").exists());
}

#[test]
fn a_shallow_clone_stays_shallow_and_a_whole_one_whole() {
    for (depth, shallow) in [(Some("1"), "true"), (None, "false")] {
        let mut world = World::new();
        fs::remove_dir_all(world.path("work")).unwrap();
        world.set("git_url", &format!("file://{}", world.path("origin.git").display()));
        world.set("git_depth", depth.unwrap_or(""));
        for version in ["one", "two", "three"] {
            world.push_and_offer(&[("version", version)]);
            world.tick().ok();
            world.assert_serves(version);
            let is = world.git("work", &["rev-parse", "--is-shallow-repository"]);
            assert_eq!(is, shallow, "{version}");
        }
        let known: usize = world.git("work", &["rev-list", "--count", "HEAD"]).parse().unwrap();
        assert_eq!(known == 1, depth.is_some(), "{known}");
    }
}

#[test]
fn a_depth_that_is_set_later_cuts_no_history_off() {
    let mut world = World::new();
    world.push_and_offer(&[("version", "one")]);
    world.tick().ok();
    world.set("git_depth", "1");
    world.push_and_offer(&[("version", "two")]);
    world.tick().ok();
    assert_eq!(world.git("work", &["rev-parse", "--is-shallow-repository"]), "false");
}

#[test]
fn a_new_work_tree_holds_nothing_but_what_the_commit_needs() {
    let mut world = World::new();
    fs::remove_dir_all(world.path("work")).unwrap();
    world.set("git_url", &format!("file://{}", world.path("origin.git").display()));
    // A branch with something large, which is none of the pull request's.
    world.git("author", &["checkout", "-q", "--orphan", "large"]);
    let large = world.commit(&[("large.bin", &"large ".repeat(100_000))]);
    world.git("author", &["push", "-q", "origin", "HEAD:refs/heads/large"]);
    world.git("author", &["checkout", "-q", "-f", "main"]);
    world.push_and_offer(&[("version", "one")]);
    world.tick().ok();
    world.assert_serves("one");
    let known = world.git("work", &["rev-list", "--all", "HEAD"]);
    assert!(!known.contains(large.as_str()));
    assert_eq!(world.git("work", &["tag", "-l"]), "");
}

#[test]
fn a_second_fetch_brings_only_what_is_new() {
    for depth in ["", "1"] {
        let mut world = World::new();
        fs::remove_dir_all(world.path("work")).unwrap();
        world.set("git_url", &format!("file://{}", world.path("origin.git").display()));
        world.set("git_depth", depth);
        let names: Vec<String> = (0..200).map(|n| format!("many/{n}")).collect();
        let files: Vec<_> = names.iter().map(|name| (name.as_str(), name.as_str())).collect();
        world.push_and_offer(&files);
        world.tick().ok();
        let objects = |world: &World| -> usize {
            let told = world.git("work", &["count-objects", "-v"]);
            let counts = told
                .lines()
                .filter(|line| line.starts_with("count: ") || line.starts_with("in-pack: "));
            counts.map(|line| line.split_once(": ").unwrap().1.parse::<usize>().unwrap()).sum()
        };
        let before = objects(&world);
        assert!(before > 200);
        world.push_and_offer(&[("version", "two")]);
        world.tick().ok();
        world.assert_serves("two");
        assert!(objects(&world) < before + 10, "{} after {before}", objects(&world));
    }
}

#[test]
fn stale_locks_are_no_obstacle_and_a_git_at_work_is_not_disturbed() {
    let mut world = World::new();
    for lock in ["index.lock", "HEAD.lock", "shallow.lock", "config.lock", "packed-refs.lock"] {
        world.write(&format!("work/.git/{lock}"), "");
    }
    world.push_and_offer(&[("version", "one")]);
    world.tick().ok();
    world.assert_serves("one");
    assert_says(&world.step("fetch").unwrap().output, &["removed a stale"]);
    // Somebody works there by hand.
    world.write("work/.git/index.lock", "");
    let mut git = std::process::Command::new("git")
        .args(["cat-file", "--batch"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .current_dir(world.path("work"))
        .spawn()
        .unwrap();
    world.push_and_offer(&[("version", "two")]);
    world.tick().fails();
    assert_says(&world.failed_in("fetch"), &[&format!("process {} (git)", git.id()), "let it end"]);
    assert!(world.path("work/.git/index.lock").exists());
    git.kill().unwrap();
    git.wait().unwrap();
}

#[test]
fn files_that_differ_in_case_only_are_told_apart() {
    let mut world = World::new();
    world.push_and_offer(&[("version", "one"), ("Read.me", "upper"), ("read.me", "lower")]);
    world.tick().ok();
    assert_eq!(
        (world.read("work/Read.me"), world.read("work/read.me")),
        ("upper".into(), "lower".into())
    );
    fs::rename(world.path("author/Read.me"), world.path("author/READ.ME")).unwrap();
    world.push_and_offer(&[("version", "two")]);
    world.tick().ok();
    assert!(!world.path("work/Read.me").exists());
    assert_eq!(
        (world.read("work/READ.ME"), world.read("work/read.me")),
        ("upper".into(), "lower".into())
    );
}

#[test]
fn changed_and_read_only_files_are_made_what_the_commit_has() {
    let mut world = World::new();
    world.push_and_offer(&[("version", "one"), ("a/read-only", "old"), ("a/changed", "old")]);
    world.tick().ok();
    world.write("work/a/changed", "by the app");
    for name in ["work/a/read-only", "work/version"] {
        fs::set_permissions(world.path(name), PermissionsExt::from_mode(0o444)).unwrap();
    }
    world.push_and_offer(&[("version", "two"), ("a/read-only", "new")]);
    world.tick().ok();
    world.assert_serves("two");
    assert_eq!(world.read("work/a/read-only"), "new");
    assert_eq!(world.read("work/a/changed"), "old");
    assert_eq!(world.git("work", &["status", "--porcelain"]), "");
}

/// A git server that wants a password for everything; its URL.
fn guarded() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/acme/shop.git", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let _ = lines.map_while(Result::ok).take_while(|line| !line.is_empty()).count();
            let _ = stream.write_all(
                b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"git\"\r\n\
                  Content-Length: 0\r\nConnection: close\r\n\r\n",
            );
        }
    });
    url
}

#[test]
fn a_remote_that_asks_for_a_password_fails_the_fetch_with_the_remedy() {
    let mut world = World::new();
    let sha = world.commit(&[("version", "one")]);
    world.git("work", &["remote", "set-url", "origin", &guarded()]);
    world.offer(&sha);
    // A terminal is there to ask at.
    let mut client = std::process::Command::new("script");
    let line = format!("'{}' < /dev/tty", world.client(&[]).get_program().display());
    client.args(["-q", "-e", "-c", &line, "/dev/null"]).current_dir(world.path("."));
    client.env("AWS_EC2_METADATA_DISABLED", "true").env("HOME", world.path("."));
    client.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
    client.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
    client.status().unwrap();
    assert_says(&world.failed_in("fetch"), &["asks for a password", "nothing is ever asked"]);
}

#[test]
fn old_objects_are_collected_once_a_day() {
    let mut world = World::new();
    watch_git(&mut world);
    world.push_and_offer(&[("version", "one")]);
    world.tick().ok();
    assert_eq!(world.tick().ok().out, "");
    let day = std::time::SystemTime::now() - std::time::Duration::from_secs(90_000);
    let due = |world: &World| {
        let file = fs::File::options().write(true).open(world.path(".pullre/trees/1.collected"));
        file.unwrap().set_modified(day).unwrap();
    };
    // Old logs go too, but not one that an app may have open.
    for name in ["logs/1/app.log.1", "logs/9/app.log", "logs/1/app.log"] {
        let path = format!(".pullre/{name}");
        if !world.path(&path).exists() {
            world.write(&path, "old");
        }
        let file = fs::File::options().write(true).open(world.path(&path)).unwrap();
        file.set_modified(day - std::time::Duration::from_secs(90 * 86_400)).unwrap();
    }
    due(&world);
    assert_says(&world.tick().ok().out, &["collect what no commit"]);
    assert_says(&calls(&world), &[" gc --auto "]);
    assert!(world.path(".pullre/logs/1/app.log").exists());
    assert!(!world.path(".pullre/logs/1/app.log.1").exists());
    assert!(!world.path(".pullre/logs/9").exists());
    assert_eq!(world.tick().ok().out, "", "once");
    // A push while it is at work does not wait for it.
    world.wrap_git(
        "case \" $* \" in *' gc '*) touch ../gc; exec sleep 1000;; esac; exec $GIT \"$@\"",
    );
    due(&world);
    let mut client = world.spawn();
    until("it collects", || world.path("gc").exists());
    world.push_and_offer(&[("version", "two")]);
    assert!(client.wait().unwrap().success());
    world.assert_serves("two");
}

/// As git-lfs answers git: it takes each pointer for what it points to.
const LFS: &str = r#"
import sys
def read():
    size = int(sys.stdin.buffer.read(4) or b"0000", 16)
    return sys.stdin.buffer.read(size - 4) if size else None
def lines():
    found = []
    while (line := read()) is not None: found.append(line)
    return found
def write(*texts):
    for text in texts: sys.stdout.buffer.write(b"%04x%s" % (len(text) + 4, text))
    sys.stdout.buffer.write(b"0000"); sys.stdout.buffer.flush()
lines(); write(b"git-filter-server\n", b"version=2\n")
lines(); write(b"capability=clean\n", b"capability=smudge\n")
while head := lines():
    content = b"".join(lines())
    smudge = b"command=smudge\n" in head
    write(b"status=success\n")
    write(b"LARGE" if smudge and content.startswith(b"version https://git-lfs") else content)
    write()
"#;

const POINTER: &str = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n";

/// The machine may have the program.
fn path_without_lfs(world: &World) -> OsString {
    let bare = world.path("bare");
    fs::create_dir(&bare).unwrap();
    let path = std::env::var_os("PATH").unwrap();
    let (with, without): (Vec<_>, Vec<_>) =
        std::env::split_paths(&path).partition(|folder| folder.join("git-lfs").is_file());
    for entry in with.iter().flat_map(|folder| fs::read_dir(folder).unwrap()) {
        let entry = entry.unwrap();
        let link = bare.join(entry.file_name());
        if entry.file_name() != "git-lfs" && !link.is_symlink() {
            symlink(entry.path(), link).unwrap();
        }
    }
    std::env::join_paths(without.iter().chain([&bare])).unwrap()
}

#[test]
fn files_of_lfs_come_by_the_real_program() {
    let mut world = World::new();
    let developer = "author";
    for args in [&["lfs", "install", "--local"][..], &["lfs", "track", "*.bin"]] {
        world.git(developer, args);
    }
    let large = "large and binary\n".repeat(1000);
    world.push_and_offer(&[("large.bin", &large)]);
    let sha = world.git(developer, &["rev-parse", "HEAD"]);
    let stored = world.git(developer, &["show", &format!("{sha}:large.bin")]);
    assert_says(&stored, &["version https://git-lfs"]);
    world.tick().ok();
    assert_eq!(world.read("work/large.bin"), large);
    world.push_and_offer(&[("large.bin", "smaller\n")]);
    world.tick().ok();
    assert_eq!(world.read("work/large.bin"), "smaller\n");
}

#[test]
fn files_of_lfs_are_brought_where_its_program_is_and_are_pointers_elsewhere() {
    let files = [(".gitattributes", "*.bin filter=lfs\n"), ("large.bin", POINTER)];
    let mut world = World::new();
    let path = path_without_lfs(&world);
    world.push_and_offer(&files);
    assert!(world.client(&[]).env("PATH", path).status().unwrap().success());
    assert_eq!(world.read("work/large.bin"), POINTER);
    assert_says(&world.step("checkout").unwrap().output, &["git-lfs is not installed"]);

    let mut world = World::new();
    world.program("git-lfs", &format!("#!/bin/sh\nexec {} -S -E -c '{LFS}'\n", python()));
    world.push_and_offer(&files);
    world.tick().ok();
    assert_eq!(world.read("work/large.bin"), "LARGE");
}

#[test]
fn a_history_that_was_replaced_locally_does_not_stand_for_the_commit() {
    let mut world = World::with_exec(&app());
    world.push_and_offer(&[("version", "one")]);
    world.tick().ok();
    let evil = world.git("work", &["rev-parse", "HEAD"]);
    let sha = world.push(&[("version", "two")]);
    world.git("work", &["fetch", "-q", "origin", sha.as_str()]);
    world.git("work", &["replace", sha.as_str(), &evil]);
    world.offer(&sha);
    world.tick().ok();
    world.assert_serves("two");
}

/// A world whose origin is another machine's. `ssh` and a program `own-ssh` write down how they are
/// called and lead to the repository here.
fn over_ssh() -> World {
    let mut world = World::new();
    world.git("work", &["remote", "set-url", "origin", "git@git.example.com:acme/shop.git"]);
    let origin = world.path("origin.git").display().to_string();
    for name in ["ssh", "own-ssh"] {
        let calls = world.path(name).display().to_string();
        // Asked for the configuration (-G) by a git that wants to know what kind of ssh it is.
        let text = format!(
            "#!/bin/sh\necho \"$*\" >> '{calls}.txt'\n\
             case $1 in -G) exit 1;; esac\nexec git-upload-pack '{origin}'\n"
        );
        world.program(name, &text);
    }
    world
}

#[test]
fn ssh_is_called_so_that_it_neither_asks_nor_hangs() {
    let mut world = over_ssh();
    world.push_and_offer(&[("version", "one")]);
    world.tick().ok();
    world.assert_serves("one");
    assert_says(&world.read("ssh.txt"), &["-oBatchMode=yes -oConnectTimeout=20"]);
    assert!(!world.path("own-ssh.txt").exists());
}

#[test]
fn a_way_to_call_ssh_that_is_set_in_the_work_tree_or_for_the_user_is_kept() {
    for in_work_tree in [true, false] {
        let mut world = over_ssh();
        let own = format!("{} -i deploy-key", world.path("bin/own-ssh").display());
        match in_work_tree {
            true => drop(world.git("work", &["config", "core.sshCommand", &own])),
            false => world.write(".gitconfig", &format!("[core]\n\tsshCommand = {own}\n")),
        }
        watch_git(&mut world);
        world.push_and_offer(&[("version", "one")]);
        // Where git looks for the user's settings.
        Ran::from(world.client(&[]).env_remove("GIT_CONFIG_GLOBAL").output().unwrap()).ok();
        world.assert_serves("one");
        assert_says(&world.read("own-ssh.txt"), &["-i deploy-key"]);
        assert!(!world.path("ssh.txt").exists());
        let asked = calls(&world).matches("core.sshCommand").count();
        assert_eq!(asked, 2, "by the two steps that may need it: {}", calls(&world));
        // `doctor` comes by the same way.
        fs::remove_file(world.path("own-ssh.txt")).unwrap();
        let doctor = world.client(&["doctor"]).env_remove("GIT_CONFIG_GLOBAL").output().unwrap();
        assert_says(&Ran::from(doctor).out, &["remote        origin answers"]);
        assert!(world.path("own-ssh.txt").exists());
    }
}

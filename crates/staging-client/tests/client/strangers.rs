//! What a pull request contains reaches no shell, no git option and no log.

use std::os::unix::fs::PermissionsExt;

use crate::world::{World, app, assert_says};

#[test]
fn a_hostile_branch_name_is_only_ever_a_name() {
    for name in ["--upload-pack=touch hit;", "$(touch hit)", "`touch hit`", "a:refs/heads/main"] {
        let mut world = World::new();
        // Not to be had by its id or the pull request's ref, so that the branch is asked for.
        let sha = world.commit(&[("version", "hidden")]);
        world.offer(&sha);
        world.record_pull(&sha, name);
        let main = world.git("work", &["rev-parse", "refs/heads/main"]);
        world.set("migrate_command", "echo $PULLRE_REF");
        world.tick().fails();
        world.failed_in("fetch");
        // And through the app's commands.
        world.git("author", &["push", "-q", "origin", "HEAD:refs/pull/7/head"]);
        world.offer_again(&sha);
        world.tick().ok();
        world.assert_serves("hidden");
        assert_eq!(world.step("migrate").unwrap().output, format!("{name}\n"));
        assert_eq!(world.git("work", &["rev-parse", "refs/heads/main"]), main);
        for place in [".", "work", "origin.git", ".pullre"] {
            assert!(!world.path(place).join("hit").exists(), "{name}");
        }
    }
}

#[test]
fn no_hook_of_the_work_tree_runs() {
    let mut world = World::new();
    for hook in ["post-checkout", "reference-transaction", "post-index-change", "fsmonitor"] {
        let name = format!("work/.git/hooks/{hook}");
        world.write(&name, &format!("#!/bin/sh\ntouch {}\n", world.path("hit").display()));
        std::fs::set_permissions(world.path(&name), PermissionsExt::from_mode(0o755)).unwrap();
    }
    let fsmonitor = world.path("work/.git/hooks/fsmonitor").display().to_string();
    // Set last: git itself would run them from here on.
    world.push_and_offer(&[("version", "one")]);
    world.git("work", &["config", "core.fsmonitor", &fsmonitor]);
    world.tick().ok();
    world.assert_serves("one");
    assert!(!world.path("hit").exists());
    // They are hooks indeed.
    world.git("work", &["checkout", "-q", "--detach", "HEAD~"]);
    assert!(world.path("hit").exists());
}

#[test]
fn no_secret_is_recorded_or_in_the_environment_of_a_command() {
    let mut world =
        World::with_exec(&format!("env > ../app.txt; echo pw hunter2-secret; {}", app()));
    world.set("token", "ghp_0123456789abcdef");
    let secret = "hunter2-secret";
    world.set("migrate_command", "env > ../migrate.txt; cat ../app.ini; false");
    world.push_and_offer(&[]);
    let run = |world: &World| {
        world
            .client(&[])
            .env("PULLRE_TOKEN", "ghp_0123456789abcdef")
            .env("PULLRE_MYSQL_PW", secret)
            .env("AWS_SECRET_ACCESS_KEY", "aws")
            .env("DB_PASSWORD", secret)
            .env("DB_URL", format!("mysql://root:{secret}@db/x"))
            .env("HARMLESS", "kept")
            .output()
            .unwrap()
    };
    let ran = crate::world::Ran::from(run(&world)).fails();
    let reason = world.failed_in("migrate");
    let output = world.step("migrate").unwrap().output;
    assert_says(&output, &["mysql_pw = ***", "token = ***"]);
    for text in [&reason, &output, &ran.err, &ran.out] {
        assert!(!text.contains(secret) && !text.contains("ghp_"), "{text}");
    }
    world.set("migrate_command", "");
    world.push_and_offer(&[("version", "one")]);
    assert_eq!(run(&world).status.code(), Some(0));
    assert_says(&world.step("probe").unwrap().output, &["pw ***"]);
    for name in ["migrate.txt", "app.txt"] {
        let env = world.read(name);
        assert_says(&env, &["HARMLESS=kept\n", "PULLRE_PR=7\n"]);
        for word in [secret, "ghp_", "AWS_", "PULLRE_TOKEN", "PULLRE_MYSQL_PW", "PULLRE_CONFIG"] {
            assert!(!env.contains(word), "{word} is in {name}: {env}");
        }
    }
}

#[test]
fn what_check_url_lets_in_with_is_in_no_output_that_is_kept_or_shown() {
    let print = "echo $PULLRE_CHECK_URL; printf 'pw %s\\n' s3cret-word";
    let mut world = World::with_exec(&format!("{print}; {}", app()));
    let url = format!("http://staging:s3cret-word@127.0.0.1:{}/", world.port);
    let columns = [("check_url", url.as_str().into())];
    world.store.set_server(world.server, &columns, jiff::Timestamp::now()).unwrap();
    world.set("migrate_command", print);
    world.push_and_offer(&[("version", "one")]);
    let mut told = vec![world.tick().ok().out];
    for step in ["migrate", "probe"] {
        let output = world.step(step).unwrap().output;
        assert_says(&output, &[&format!("http://***@127.0.0.1:{}/", world.port), "pw ***"]);
        told.push(output);
    }
    told.push(world.run(&["logs"]).ok().out);
    world.set("migrate_command", &format!("{print}; exit 1"));
    world.push_and_offer(&[]);
    told.push(world.tick().fails().err);
    told.push(world.failed_in("migrate"));
    for text in told {
        assert!(!text.contains("s3cret") && !text.contains("staging:"), "{text}");
    }
}

#[test]
fn escapes_of_strangers_do_not_reach_the_terminal() {
    let mut world = World::with_exec("printf '\\033[2Jgone\\n'; exit 1");
    world.set("migrate_command", "printf '\\033[31mred\\n'");
    world.push_and_offer(&[]);
    let ran = world.tick().fails();
    let status = world.run(&["status"]).ok();
    let logs = world.run(&["logs"]).ok();
    for text in [&ran.out, &ran.err, &status.out, &logs.out] {
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }
    assert_says(&logs.out, &["red", "gone"]);
}

#[test]
fn a_symlink_out_of_the_work_tree_is_no_way_out() {
    let mut world = World::new();
    world.write("outside/version", "precious");
    std::os::unix::fs::symlink(world.path("outside"), world.path("author/link")).unwrap();
    world.push_and_offer(&[("version", "one")]);
    world.tick().ok();
    std::fs::remove_file(world.path("author/link")).unwrap();
    world.push_and_offer(&[("version", "two"), ("link/version", "in the tree")]);
    world.tick().ok();
    world.assert_serves("two");
    assert_eq!(world.read("outside/version"), "precious");
}

#[test]
fn no_folder_becomes_a_way_out_while_a_commit_replaces_it_by_a_link() {
    let mut world = World::new();
    world.write("outside/victim.txt", "precious");
    world.push_and_offer(&[("version", "one"), ("dir/victim.txt", "mine"), ("dir/other", "x")]);
    world.tick().ok();
    std::fs::remove_dir_all(world.path("author/dir")).unwrap();
    std::os::unix::fs::symlink(world.path("outside"), world.path("author/dir")).unwrap();
    // What the app left there must not be followed either.
    world.write("work/dir/untracked.txt", "untracked");
    world.push_and_offer(&[("version", "two")]);
    world.tick().ok();
    assert!(world.path("work/dir").is_symlink());
    std::fs::remove_file(world.path("author/dir")).unwrap();
    world.push_and_offer(&[("version", "three"), ("dir/victim.txt", "through the link?")]);
    world.tick().ok();
    world.assert_serves("three");
    assert_eq!(world.read("outside/victim.txt"), "precious");
    assert_eq!(std::fs::read_dir(world.path("outside")).unwrap().count(), 1);
    assert!(!world.path("work/dir").is_symlink());
    // A link that the app itself put in place of a folder.
    std::fs::remove_dir_all(world.path("work/dir")).unwrap();
    std::os::unix::fs::symlink(world.path("outside"), world.path("work/dir")).unwrap();
    world.push_and_offer(&[("version", "four"), ("dir/victim.txt", "again?")]);
    world.tick().ok();
    assert_eq!(world.read("outside/victim.txt"), "precious");
    assert_eq!(world.read("work/dir/victim.txt"), "again?");
}

#[test]
fn a_repository_inside_the_repository_runs_nothing() {
    let mut world = World::new();
    let hit = world.path("hit").display().to_string();
    let monitor = format!(
        "[core]\n\trepositoryformatversion = 0\n\tbare = true\n\tfsmonitor = \"touch '{hit}'; false\"\n"
    );
    // A bare one can be committed as it is.
    let files = [
        ("nested/HEAD", "ref: refs/heads/main\n"),
        ("nested/config", monitor.as_str()),
        ("nested/objects/info/x", ""),
        ("nested/refs/x", ""),
    ];
    world.push_and_offer(&files);
    world.tick().ok();
    // One that an earlier app left, at a place where the next commit has a submodule.
    world.git("work", &["init", "-q", "inner"]);
    world.write("work/inner/file", "x");
    world.git("work/inner", &["add", "-A"]);
    world.git("work/inner", &["commit", "-q", "-m", "x"]);
    let inner = world.git("work/inner", &["rev-parse", "HEAD"]);
    world.git("work/inner", &["config", "core.fsmonitor", &format!("touch '{hit}'; false")]);
    let entry = format!("160000,{inner},inner");
    world.git("author", &["update-index", "--add", "--cacheinfo", &entry]);
    world.git("author", &["commit", "-q", "-m", "a submodule without a URL"]);
    let sha: pullre::domain::Sha = world.git("author", &["rev-parse", "HEAD"]).parse().unwrap();
    world.git("author", &["push", "-q", "origin", "+HEAD:refs/pull/7/head"]);
    world.offer(&sha);
    world.tick().ok();
    assert!(!world.path("hit").exists());
}

#[test]
fn attributes_name_no_program_and_names_with_escapes_reach_no_terminal() {
    let mut world = World::new();
    let attributes = "* filter=evil diff=evil merge=evil\n*.x filter=lfs\n";
    world.push_and_offer(&[
        ("version", "one"),
        (".gitattributes", attributes),
        ("a\u{1b}[31mred\n.txt", "x"),
        (".lfsconfig", "[lfs]\n\turl = https://evil.example.com/\n"),
        ("$(touch hit)", "x"),
        ("-rf", "x"),
    ]);
    let ran = world.tick().ok();
    world.assert_serves("one");
    // Untracked names go through git clean, and what it prints.
    world.write("work/b\u{1b}[2Jgone", "untracked");
    world.write("work/-f", "untracked");
    world.push_and_offer(&[("version", "two")]);
    let again = world.tick().ok();
    assert!(!world.path("work/-f").exists());
    let (status, logs) = (world.run(&["status"]).ok(), world.run(&["logs"]).ok());
    for text in [&ran.out, &ran.err, &again.out, &status.out, &logs.out] {
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }
    assert!(!world.path("work/hit").exists() && !world.path("hit").exists());
}

/// Runs words with a terminal of their own, as a person has one.
const TERMINAL: &str =
    "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";

#[test]
fn nothing_of_a_pull_request_has_the_terminal_of_whoever_runs_the_client() {
    let mut world = World::new();
    let look = "if (: </dev/tty) 2>/dev/null; then echo a terminal; else echo no terminal; fi";
    let seen = world.path("seen.txt").display().to_string();
    world.wrap_git(&format!("({look}) >> '{seen}'; exec $GIT \"$@\""));
    world.set("migrate_command", look).set("stop_command", &format!("({look}) >> '{seen}'"));
    world.set("exec_command", &format!("({look}) >> '{seen}'; {}", app()));
    world.push_and_offer(&[("version", "one")]);
    let client = world.client(&[]);
    let mut command = std::process::Command::new(crate::world::python());
    command.args(["-c", TERMINAL, "sh", "-c", ": </dev/tty && exec \"$0\""]);
    command.arg(client.get_program()).current_dir(world.path("."));
    command.env_clear().envs(client.get_envs().filter_map(|(name, value)| Some((name, value?))));
    if client.get_envs().all(|(name, _)| name != "PATH") {
        command.env("PATH", std::env::var_os("PATH").unwrap());
    }
    let ran = command.stdin(std::process::Stdio::null()).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stdout));
    world.assert_serves("one");
    assert_eq!(world.step("migrate").unwrap().output, "no terminal\n");
    let seen = world.read("seen.txt");
    assert!(seen.lines().count() >= 4, "git, stop and the app: {seen}");
    assert!(seen.lines().all(|line| line == "no terminal"), "{seen}");
}

//! What an operator sets up once and looks at when something is wrong: switching by the clock,
//! grants, doctor.

#![allow(clippy::unwrap_used)]

mod site;

use insta::assert_snapshot;
use pullre::config::DatabaseConfig;
use site::Site;
use testkit::github::Fault;
use testkit::mariadb::Mariadb;

#[test]
fn a_server_outside_the_pool_is_switched_once_and_each_action_is_printed() {
    let site = Site::new();
    site.run("server register tools");
    assert_snapshot!(site.run("server set tools is_staging=0 auto_weekdays=weekend"), @r#"
    exit 2
    stderr: update-pull: auto_weekdays is "weekend" and not weekdays such as mon-fri or mon,wed,sat
    "#);
    // Half a day ago at the latest, whatever the time is.
    site.run("server set tools is_staging=0 auto_start_at=00:00 auto_weekdays=mon-sun");
    assert_snapshot!(site.run("switch-servers"), @"
    exit 0
    done   start tools, due TIME TIME TIME UTC
    stderr: TIME  WARN the times of servers are read as UTC: set `auto_timezone` in app.ini to the time zone that they are meant in
    ");
    assert_snapshot!(site.run("server list"), @"
    exit 0
    SERVER  STATE    PULL  SCHEMA  URL                     CLIENT SEEN  NOTE
    stg1    stopped  -     stg1    http://127.0.0.1:8001/  -            -
    tools   stopped  -     -       -                       -            not in the pool
    ");
    assert_snapshot!(site.run("switch-servers"), @"
    exit 0
    stderr: TIME  WARN the times of servers are read as UTC: set `auto_timezone` in app.ini to the time zone that they are meant in
    ");
    site.write_ini_more("auto_timezone = Mars/Olympus\n");
    assert_snapshot!(site.run("switch-servers"), @r#"
    exit 2
    stderr: update-pull: DIR/app.ini:5: `auto_timezone` is "Mars/Olympus", expected a time zone by its IANA name, like Asia/Tokyo or UTC: correct it
    "#);
    site.write_ini_more("auto_timezone = UTC\n");
    assert_snapshot!(site.run("switch-servers"), @"exit 0");
}

#[test]
fn a_switch_that_fails_fails_the_run() {
    let site = Site::new();
    site.write_ini_more("auto_timezone = UTC\n");
    site.run("server register tools");
    site.run("server set tools is_staging=0 instance_id=i-gone name=tools auto_stop_at=00:00");
    assert_snapshot!(site.run("switch-servers"), @"
    exit 1
    FAILED stop tools, due TIME TIME TIME UTC: there is no instance i-gone: register the server again with the instance it has now
    stderr: update-pull: stop tools, due TIME TIME TIME UTC: there is no instance i-gone: register the server again with the instance it has now
    ");
    site.by_hand("UPDATE servers SET auto_stop_at = 'late' WHERE name = 'tools'");
    assert_snapshot!(site.run("switch-servers"), @r#"
    exit 1
    stderr: update-pull: tools is not switched: "late" is not a time of day such as TIME
    "#);
}

#[test]
fn init_asks_in_which_time_zone_the_ancestors_times_are_meant() {
    let site = Site::new();
    site.run("server set stg1 is_staging=0 auto_start_at=08:30");
    let output = site.command("init").env("TZ", "Asia/Tokyo").output().unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    let told: Vec<_> = told.lines().map(|line| site.timeless(line)).collect();
    assert_snapshot!(told.join("\n"), @"
    the control tables are complete; nothing to do
    stg1: the next switch is start at TIME TIME TIME UTC (read as UTC), or start at TIME TIME TIME JST (read in this machine's time zone)
    set `auto_timezone` in app.ini to the time zone that they are meant in; without it they are read as UTC
    ");
}

#[test]
fn grants_are_printed_before_anything_works() {
    let site = Site::bare();
    assert_snapshot!(site.run("grants"), @"
    exit 0
    SQLite has no logins: who may read and write the files of the control database and of the schemas may do everything with them
    ");
    let DatabaseConfig::Mysql { host, port, name, .. } = Mariadb::shared().database() else {
        panic!("MySQL")
    };
    let mysql = |user: &str| {
        let login = format!("mysql_user = {user}\nmysql_pw = s3cret\nmysql_db = {name}\n");
        site.write_ini_more(&format!("mysql_host = {host}\nmysql_port = {port}\n{login}"));
    };
    let beginning = |text: String| text.lines().take(2).collect::<Vec<_>>().join("\n");
    mysql("nobody");
    assert_snapshot!(beginning(site.run("grants")), @"
    exit 0
    -- Users and servers are not known yet: the MySQL server TIME refuses the login nobody: check `mysql_user` and `mysql_pw` in app.ini, and from which hosts the login may come (Access denied for user 'nobody'@'127.0.0.1' (using password: YES))
    ");
    let mut administrator = Mariadb::shared().administrator();
    for sql in ["CREATE USER olga IDENTIFIED BY 's3cret'", "GRANT ALL ON *.* TO olga"] {
        mysql::prelude::Queryable::query_drop(&mut administrator, sql).unwrap();
    }
    mysql("olga");
    assert_snapshot!(beginning(site.run("grants")), @"
    exit 0
    -- Users and servers are not known yet: the control database has no tables of pullre: run `update-pull init`
    ");
}

#[test]
fn a_whole_installation_is_ok() {
    let site = Site::new();
    site.private();
    site.open_pull("alice");
    site.run("");
    assert_snapshot!(site.run("doctor"), @"
    exit 0
    ok       app.ini       app.ini is complete
    ok       state_dir     DIR/.pullre can be written
    ok       database      it has all its tables, and everything in them can be changed
    ok       locks         can be taken
    ok       GitHub        acme/shop (private) and its pull requests can be read, by an account that may pull, push
    ok       GitHub        a token makes commit statuses; check runs need a GitHub App (`github_app_id`)
    ok       clock         agrees with GitHub's
    ok       machines      all 1 are there
    ok       machines      may be started and stopped
    ok       schemas       every user's is there
    ok       records       servers, users and environments make sense
    ");
}

#[test]
fn doctor_names_what_is_missing_from_nothing_on() {
    let site = Site::bare();
    site.write_ini("ownr = acme\nrepo = shop\n");
    assert_snapshot!(site.run("doctor"), @"
    exit 1
    warn     app.ini       DIR/app.ini:1: unknown key `ownr`, ignored; the nearest known one is `owner`
    MISSING  app.ini       DIR/app.ini: `owner` is not set, expected the GitHub account that owns the repository: write `owner = ...` there, or set PULLRE_OWNER
    MISSING  app.ini       DIR/app.ini: `token` is not set, expected a GitHub token (one word) that may read the repository, or a GitHub App (github_app_id): write `token = ...` there, or set PULLRE_TOKEN
    stderr: update-pull: 2 things are missing
    ");
    site.write_ini_more("");
    assert_snapshot!(site.run("doctor"), @"
    exit 1
    warn     app.ini       other users of this machine can read its secrets: chmod 600 app.ini
    ok       state_dir     DIR/.pullre can be written
    MISSING  database      the control database has no tables of pullre: run `update-pull init`
    ok       locks         can be taken
    ok       GitHub        acme/shop (private) and its pull requests can be read, by an account that may pull, push
    ok       GitHub        a token makes commit statuses; check runs need a GitHub App (`github_app_id`)
    ok       clock         agrees with GitHub's
    stderr: update-pull: 1 thing is missing
    ");
    site.run("init");
    site.private();
    assert_snapshot!(site.run("doctor"), @"
    exit 1
    ok       app.ini       app.ini is complete
    ok       state_dir     DIR/.pullre can be written
    ok       database      it has all its tables, and everything in them can be changed
    ok       locks         can be taken
    ok       GitHub        acme/shop (private) and its pull requests can be read, by an account that may pull, push
    ok       GitHub        a token makes commit statuses; check runs need a GitHub App (`github_app_id`)
    ok       clock         agrees with GitHub's
    MISSING  users         nobody is registered, so no pull request gets an environment: `update-pull user set LOGIN SCHEMA`
    MISSING  servers       no server is in the pool: `update-pull server register INSTANCE_ID`
    stderr: update-pull: 2 things are missing
    ");
}

#[test]
fn doctor_tries_every_masking_rule_on_every_users_schema() {
    let site = Site::new();
    site.write_ini_more("mask_file = mask\n");
    let schemas = |rules: &str| {
        std::fs::write(site.path("mask"), rules).unwrap();
        let told = site.run("doctor");
        let lines = told.lines().filter(|line| line.contains(" schemas  "));
        lines.map(|line| line.trim_start().to_owned() + "\n").collect::<String>()
    };
    assert_snapshot!(schemas("notes.text = 'x' || rowid\n"), @"ok       schemas       every user's is there, and every masking rule fits it");
    assert_snapshot!(schemas("notes.text = lenght(text)\n"), @r#"MISSING  schemas       alice's: `mask_file`, line 1, `notes.text = lenght(text)`: table `notes`: no such function: lenght in SELECT 1 FROM "notes" AS "notes" WHERE (lenght(text)) IS NULL LIMIT 0 at offset 40 (schema `dev_alice`, DIR/schemas/dev_alice.db). Nothing was copied: correct the rule"#);
    assert_snapshot!(schemas("orders = skip\n"), @"MISSING  schemas       alice's: `mask_file`, line 1, `orders = skip`: the source has no table `orders` (schema `dev_alice`, DIR/schemas/dev_alice.db). Nothing was copied: correct the rule");
}

#[test]
fn doctor_names_servers_that_cannot_serve_and_why() {
    let site = Site::new();
    site.private();
    site.write_ini_more("");
    for words in [
        "user set bob dev_bob",
        "server register stg2",
        "server set stg2 auto_start_at=08:30 check_url=http://nowhere.invalid/",
        "server register stg3",
        "server set stg3 db_schema=stg3",
        "server hold stg3 --reason repair",
        "server register tools",
        "server set tools is_staging=0 auto_start_at=08:30",
        "server register gone",
        "server set gone is_staging=0 instance_id=i-gone",
    ] {
        assert!(site.run(words).starts_with("exit 0"), "{words}");
    }
    site.open_pull("alice");
    site.run("");
    site.by_hand("UPDATE servers SET auto_start_at = 'late' WHERE name = 'gone'");
    site.by_hand("UPDATE assignments SET assigned_at = 0");
    assert_snapshot!(site.run("doctor"), @r#"
    exit 1
    ok       app.ini       app.ini is complete
    ok       state_dir     DIR/.pullre can be written
    ok       database      it has all its tables, and everything in them can be changed
    ok       locks         can be taken
    ok       GitHub        acme/shop (private) and its pull requests can be read, by an account that may pull, push
    ok       GitHub        a token makes commit statuses; check runs need a GitHub App (`github_app_id`)
    ok       clock         agrees with GitHub's
    MISSING  machines      there is no instance i-gone: `update-pull server set i-gone instance_id=ID` names the server's new one, `update-pull server remove i-gone` forgets it
    ok       machines      may be started and stopped
    MISSING  schemas       bob's schema dev_bob is not there, or empty: fill it; or `update-pull user set bob SCHEMA`
    warn     stg2          the host of http://nowhere.invalid/ cannot be resolved: correct it by `update-pull server set stg2 check_url=URL`
    MISSING  stg1          its staging client has never given a sign of life: look at its cron, and at `staging-client status` there
    MISSING  stg2          it can serve nobody: its db_schema cannot be used: "" is not a schema name (1 to 64 characters, no slash, backslash or control character, no dot in front, no space at the end, not a system schema); `update-pull server set stg2 KEY=VALUE`
    warn     stg2          it is in the pool, so its auto_start_at and auto_stop_at do nothing; clear them
    warn     stg3          it has no check_url, so nothing proves that its app answers: `update-pull server set stg3 check_url=URL`
    warn     stg3          held since TIME TIME UTC: repair; `update-pull server release stg3` ends it
    warn     tools         starts TIME in UTC: set `auto_timezone` in app.ini to the time zone that is meant
    MISSING  gone          it is not switched by the clock: "late" is not a time of day such as TIME `update-pull server set gone` mends it
    stderr: update-pull: 5 things are missing
    "#);
}

#[test]
fn doctor_names_what_github_refuses() {
    let site = Site::new();
    site.private();
    let of_github = || {
        let told = site.run("doctor");
        told.lines().find(|line| line.contains("GitHub")).unwrap().to_owned()
    };
    site.github.fail_always(Fault::Unauthorized);
    assert_snapshot!(of_github(), @"MISSING  GitHub        GitHub refuses the credentials (401): renew `token` in app.ini");
    site.github.fail_always(Fault::Forbidden("Resource not accessible".into()));
    assert_snapshot!(of_github(), @"MISSING  GitHub        GitHub forbids it (403): Resource not accessible. The token needs read access to pull requests and contents");
    site.github.heal();
    site.github.change(|world| world.rename_repo("market"));
    assert_snapshot!(site.run("doctor").lines().filter(|l| l.contains("GitHub")).collect::<Vec<_>>().join("\n"), @"
    ok       GitHub        acme/market (private) and its pull requests can be read, by an account that may pull, push
    ok       GitHub        a token makes commit statuses; check runs need a GitHub App (`github_app_id`)
    warn     GitHub        acme/shop is called acme/market now: correct `owner` and `repo`
    ok       clock         agrees with GitHub's
    ");
    site.github.change(|world| world.set_scopes("repo, admin:org"));
    let told = site.run("doctor");
    let told: Vec<_> = told.lines().filter(|line| line.contains("token")).collect();
    assert_snapshot!(told.join("\n"), @"
    ok       GitHub        acme/market (private) and its pull requests can be read, by a classic token for repo, admin:org
    ok       GitHub        a token makes commit statuses; check runs need a GitHub App (`github_app_id`)
    warn     GitHub        the token may do more than pullre needs: take admin:org away
    ");
    site.github.change(|world| world.set_visible(false));
    assert_snapshot!(of_github(), @"MISSING  GitHub        GitHub knows no repository acme/shop for this token (404): check `owner`, `repo` and what the token may see");
}

#[test]
fn doctor_sees_that_the_ancestor_still_writes() {
    let site = Site::new();
    site.private();
    let pulls: Vec<_> = (0..5).map(|_| site.open_pull("alice")).collect();
    site.run("");
    assert!(!site.run("doctor").contains("pullre-kun"));
    let [first, second, third, fourth, _] = pulls[..] else { panic!("five") };
    site.by_hand(&format!(
        "UPDATE pull_requests SET server_id = NULL WHERE number = {first};
         UPDATE pull_requests SET server_id = 1 WHERE number = {second};
         UPDATE pull_requests SET updated_at = '2999-01-01 09:00:00' WHERE number = {third};
         DELETE FROM pull_facts WHERE number = {fourth}"
    ));
    let told = site.run("doctor");
    let told: Vec<_> = told.lines().filter(|line| line.contains("pullre-kun")).collect();
    assert_snapshot!(told.join("\n"), @"
    warn     pullre-kun    #1 is on stg1, and its row says none: pullre-kun seems to be at work. Take update_pull.py out of cron and stop its web app, whose /pull/list and webhook run it too
    warn     pullre-kun    #2 has no server, and its row says stg1: pullre-kun seems to be at work. Take update_pull.py out of cron and stop its web app, whose /pull/list and webhook run it too
    warn     pullre-kun    the row of #3 was changed at TIME TIME UTC: pullre-kun seems to be at work. Take update_pull.py out of cron and stop its web app, whose /pull/list and webhook run it too
    warn     pullre-kun    the row of #4 is not from us: pullre-kun seems to be at work. Take update_pull.py out of cron and stop its web app, whose /pull/list and webhook run it too
    ");
}

#[test]
fn doctor_names_each_right_that_the_database_login_lacks() {
    let site = Site::bare();
    site.private();
    let config = Mariadb::shared().database();
    let DatabaseConfig::Mysql { host, port, name, .. } = &config else { panic!("MySQL") };
    pullre::store::Database::mysql(&config)
        .and_then(|database| database.open())
        .and_then(|mut store| store.migrate("2026-11-22T12:00:00Z".parse().unwrap()))
        .unwrap();
    let mut administrator = Mariadb::shared().administrator();
    let account = format!("{name}_reader");
    for sql in [
        format!("CREATE USER {account} IDENTIFIED BY 's3cret'"),
        format!("GRANT SELECT, INSERT, UPDATE ON {name}.* TO {account}"),
    ] {
        mysql::prelude::Queryable::query_drop(&mut administrator, sql).unwrap();
    }
    site.write_ini_more(&format!(
        "mysql_host = {host}\nmysql_port = {port}\nmysql_user = {account}\nmysql_pw = s3cret\n\
         mysql_db = {name}\n"
    ));
    let told = site.run("doctor").replace(name.as_str(), "NAME");
    let told: Vec<_> = told.lines().filter(|line| line.contains("database")).take(2).collect();
    assert_snapshot!(told.join("\n"), @"
    MISSING  database      it cannot remove from servers: the MySQL login may not do this: DELETE command denied to user 'NAME_reader'@'127.0.0.1' for table `NAME`.`servers` (error 1142). `update-pull grants` prints what it needs
    MISSING  database      it cannot remove from git_hub_users: the MySQL login may not do this: DELETE command denied to user 'NAME_reader'@'127.0.0.1' for table `NAME`.`git_hub_users` (error 1142). `update-pull grants` prints what it needs
    ");
}

#[test]
fn doctor_names_the_rights_that_clones_lack_by_what_lacks_them() {
    let site = Site::bare();
    let config = Mariadb::shared().database();
    let DatabaseConfig::Mysql { host, port, name, .. } = &config else { panic!("MySQL") };
    let mut administrator = Mariadb::shared().administrator();
    let account = format!("{name}_cloner");
    let mut by_administrator = |statements: &[String]| {
        for sql in statements {
            mysql::prelude::Queryable::query_drop(&mut administrator, sql).unwrap();
        }
    };
    by_administrator(&[
        format!("CREATE USER {account} IDENTIFIED BY 's3cret'"),
        format!("GRANT ALL ON {name}.* TO {account}"),
        format!("GRANT SELECT, SHOW VIEW, TRIGGER ON {name}_dev.* TO {account}"),
        format!("GRANT ALL ON {name}_stg1.* TO {account}"),
    ]);
    site.write_ini_more(&format!(
        "mysql_host = {host}\nmysql_port = {port}\nmysql_user = {account}\nmysql_pw = s3cret\n\
         mysql_db = {name}\ncompute = local\nswap_busy = kill\n"
    ));
    site.private();
    site.run("init");
    site.run(&format!("user set alice {name}_dev"));
    for server in ["stg1", "stg2"] {
        site.run(&format!("server register {server}"));
        site.run(&format!("server set {server} db_schema={name}_{server}"));
    }
    let warned = || {
        let told = site.run("doctor").replace(name.as_str(), "NAME");
        let lines = told.lines().filter(|line| line.starts_with("warn     schemas"));
        lines.collect::<Vec<_>>().join("\n")
    };
    assert_snapshot!(warned(), @"
    warn     schemas       no grant gives NAME_cloner the rights SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, ALTER, INDEX, REFERENCES, LOCK TABLES, CREATE VIEW, SHOW VIEW, TRIGGER, CREATE ROUTINE, ALTER ROUTINE, EXECUTE, EVENT on NAME_stg1~new, NAME_stg1~old, NAME_stg1~prev, NAME_stg2, NAME_stg2~new, NAME_stg2~old, NAME_stg2~prev (a role may): `update-pull grants` prints them
    warn     schemas       `swap_busy = kill` needs PROCESS, and CONNECTION ADMIN (CONNECTION_ADMIN on MySQL 8, else SUPER), on *.*, which no grant gives NAME_cloner (a role may): grant them, or set `wait`
    ");
    // Whoever has all of it, by a pattern too, is told nothing.
    by_administrator(&[
        format!("GRANT ALL ON `{name}_stg2%`.* TO {account}"),
        format!("GRANT ALL ON `{name}_stg1~%`.* TO {account}"),
        format!("GRANT PROCESS, CONNECTION ADMIN ON *.* TO {account}"),
    ]);
    assert_eq!(warned(), "");
}

//! What an operator sets up once and looks at when something is wrong: switching by the clock,
//! grants, doctor.

#![allow(clippy::unwrap_used)]

mod site;

use insta::assert_snapshot;
use pullre::config::DatabaseConfig;
use site::Site;
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

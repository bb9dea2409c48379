use std::time::Duration;

use jiff::SignedDuration;
use pullre::store::backend::Value;
use pullre::store::master::{Changed, TABLES, Table};
use pullre::store::{ConsoleUser, GrowingLog, Role, TickRow, Won};

use crate::db::{Db, at, sha};

on_each_engine!(
    a_user_of_the_console_is_added_changed_and_removed,
    ticks_are_averaged_over_pieces_of_time,
    a_wait_ends_with_the_first_server_and_is_counted_once,
    from_a_push_to_the_server_that_serves_it,
    deployments_are_counted_with_the_step_that_failed,
    the_pulse_of_an_environment_changes_with_all_that_happens,
    measures_are_forgotten_with_the_history,
    rows_are_found_by_what_they_hold,
    a_password_in_a_url_is_not_found_piece_by_piece,
    a_row_changes_only_as_the_version_that_was_shown,
    every_table_is_read_as_it_is,
);

fn user(name: &str, password: &str, role: Role) -> ConsoleUser {
    ConsoleUser { name: name.into(), password: password.into(), role }
}

fn a_user_of_the_console_is_added_changed_and_removed(db: &mut Db) {
    let rita = user("rita", "hash", Role::ReadOnly);
    db.set_console_user(&rita, at(0)).unwrap();
    // Names are told apart to the letter.
    db.set_console_user(&user("Rita", "other", Role::Operator), at(0)).unwrap();
    db.set_console_user(&user("rita", "hash2", Role::Operator), at(1)).unwrap();
    let names: Vec<_> = db.console_users().unwrap();
    assert_eq!(
        names,
        [user("Rita", "other", Role::Operator), user("rita", "hash2", Role::Operator)]
    );
    assert_eq!(db.remove_console_user("rita").unwrap(), Won::Yes);
    assert_eq!(db.remove_console_user("rita").unwrap(), Won::No);
    db.write("UPDATE console_users SET role = 'king'");
    assert_eq!(db.console_users().unwrap()[0].role, Role::ReadOnly, "nonsense gives no right");
}

fn tick(seconds: i64, busy: u32) -> TickRow {
    TickRow {
        began_at: at(seconds),
        took: Duration::from_millis(120),
        pool: 4,
        busy,
        queued: busy / 2,
        acted: 1,
        failed: 0,
    }
}

fn ticks_are_averaged_over_pieces_of_time(db: &mut Db) {
    assert_eq!(db.last_tick().unwrap(), None);
    for (seconds, busy) in [(0, 1), (60, 3), (3600, 4)] {
        db.tick_ended(&tick(seconds, busy)).unwrap();
    }
    // Two in the same millisecond count once.
    db.tick_ended(&tick(3600, 0)).unwrap();
    assert_eq!(db.last_tick().unwrap(), Some(tick(3600, 4)));
    let busy = db.busy_since(at(0), Duration::from_secs(3600)).unwrap();
    let shown: Vec<_> = busy.iter().map(|b| (b.busy, b.queued, b.pool)).collect();
    assert_eq!(shown.iter().map(|(busy, ..)| busy).sum::<f64>(), 6.0, "{shown:?}");
    assert!(shown.iter().all(|(.., pool)| *pool == 4.0));
    assert_eq!(db.busy_since(at(1), Duration::from_secs(1)).unwrap().len(), 2);
}

fn a_wait_ends_with_the_first_server_and_is_counted_once(db: &mut Db) {
    let pull = db.open_pull(1);
    db.write(&format!("UPDATE pull_facts SET eligible_since = {}", at(10).as_millisecond()));
    let server = db.server("stg1");
    let source = "db_dev1".parse().unwrap();
    assert_eq!(db.assign(pull, server, &source, at(100)).unwrap(), Won::Yes);
    assert_eq!(db.release(pull, server, "test", at(200)).unwrap(), Won::Yes);
    // It lost its server, and gets one again: that was no waiting in the queue.
    assert_eq!(db.assign(pull, server, &source, at(300)).unwrap(), Won::Yes);
    assert_eq!(db.waits_since(at(0)).unwrap(), [(at(100), Duration::from_secs(90))]);
    assert_eq!(db.waits_since(at(101)).unwrap(), []);
}

fn from_a_push_to_the_server_that_serves_it(db: &mut Db) {
    let (_, _, deployment) = db.running(1);
    assert_eq!(db.push_to_ready_since(at(-1000)).unwrap(), []);
    assert_eq!(db.deployment_succeeded(&deployment, at(61)).unwrap(), Won::Yes);
    let ready = db.push_to_ready_since(at(-1000)).unwrap();
    assert_eq!(ready, [(at(-400), Duration::from_secs(461))]);
    // A pull request that is long known to GitHub was not pushed long ago on our account.
    db.pull_request(2, |pull| pull.updated_at = at(-90_000));
    let seen = db.read_one("SELECT pushed_at FROM heads WHERE number = 2");
    assert_eq!(seen, Value::Int((at(1) - SignedDuration::from_mins(10)).as_millisecond()));
    // A head that comes back is not pushed again.
    db.pull_request(2, |pull| pull.head = sha(9));
    db.pull_request(2, |pull| pull.head = sha(1));
    assert_eq!(db.read("SELECT sha FROM heads WHERE number = 2").len(), 2);
}

fn deployments_are_counted_with_the_step_that_failed(db: &mut Db) {
    let (_, _, one) = db.running(1);
    let (_, _, other) = db.running(2);
    db.offered(3);
    assert_eq!(db.deployment_succeeded(&one, at(14)).unwrap(), Won::Yes);
    assert_eq!(db.deployment_failed(&other, "migrate", "no", at(6)).unwrap(), Won::Yes);
    let mut ended = db.deployments_since(at(0)).unwrap();
    ended.sort();
    assert_eq!(
        ended,
        [
            (false, Some("migrate".into()), Duration::from_secs(2)),
            (true, None, Duration::from_secs(10)),
        ]
    );
    assert_eq!(db.deployments_since(at(10)).unwrap().len(), 1);
}

fn the_pulse_of_an_environment_changes_with_all_that_happens(db: &mut Db) {
    let pull = db.open_pull(7);
    let mut pulses = vec![db.pulse_of(pull).unwrap()];
    let server = db.server("stg1");
    assert_eq!(db.assign(pull, server, &"d".parse().unwrap(), at(2)).unwrap(), Won::Yes);
    pulses.push(db.pulse_of(pull).unwrap());
    assert_eq!(db.offer(pull, server, &sha(1), 1, at(3)).unwrap(), Won::Yes);
    pulses.push(db.pulse_of(pull).unwrap());
    let id = db.deployment(pull).unwrap().id;
    assert_eq!(db.begin_deployment(id, at(4)).unwrap(), Won::Yes);
    pulses.push(db.pulse_of(pull).unwrap());
    let step = db.step_started(id, "migrate", at(5)).unwrap();
    pulses.push(db.pulse_of(pull).unwrap());
    db.step_output(step, "o").unwrap();
    pulses.push(db.pulse_of(pull).unwrap());
    db.step_output(step, "p").unwrap();
    let more = db.pulse_of(pull).unwrap();
    assert_eq!(more.rest, pulses[5].rest, "that a log goes on is no change of the rest");
    let log = GrowingLog { deployment: id, index: 0, output: "p".into() };
    assert_eq!(more.log, Some(log));
    db.step_finished(step, Some(0), "out", at(6)).unwrap();
    pulses.push(db.pulse_of(pull).unwrap());
    // What comes too late does not take away what was said at the end.
    db.step_output(step, "o").unwrap();
    assert_eq!(db.pulse_of(pull).unwrap(), pulses[6]);
    db.step_started(id, "start", at(7)).unwrap();
    pulses.push(db.pulse_of(pull).unwrap());
    assert_eq!(pulses[7].log.as_ref().map(|log| log.index), Some(1));
    let different: std::collections::BTreeSet<_> = pulses.iter().map(|p| &p.rest).collect();
    assert_eq!(different.len(), pulses.len(), "{pulses:?}");
}

fn measures_are_forgotten_with_the_history(db: &mut Db) {
    db.environment(1);
    db.tick_ended(&tick(0, 1)).unwrap();
    let forget = pullre::reconcile::plan::Record::Forget { before: at(1000) };
    db.record(&[forget], at(2000)).unwrap();
    for table in ["ticks", "heads", "waits"] {
        assert_eq!(db.read_one(&format!("SELECT COUNT(*) FROM {table}")), Value::Int(0), "{table}");
    }
}

fn table(name: &str) -> &'static Table {
    Table::named(name).unwrap()
}

fn rows_are_found_by_what_they_hold(db: &mut Db) {
    let messages = table("next_release_messages");
    for n in 0..120 {
        let content = format!("message {n} 100% sure_thing!");
        let values = [("hash", format!("h{n}").into()), ("content", content.into())];
        db.add_master_row(messages, &values, at(n)).unwrap();
    }
    let mut count = |search: &str| db.master_rows(messages, search, 0).unwrap().1;
    assert_eq!(count(""), 120);
    assert_eq!(count("MESSAGE 7 "), 1);
    assert_eq!(count("100%"), 120);
    assert_eq!(count("1%0"), 0, "a pattern's signs are only letters");
    assert_eq!(count("sure_thing!"), 120);
    assert_eq!(count("sureXthing"), 0);
    assert_eq!(count("' OR '1'='1"), 0);
    let (last, _) = db.master_rows(messages, "", 2).unwrap();
    assert_eq!(last.len(), 20);
    assert_eq!(last[19].value(messages, "hash"), Some("h0"), "the newest come first");
    assert_eq!(db.master_rows(messages, "", 99).unwrap().0, []);
}

fn a_password_in_a_url_is_not_found_piece_by_piece(db: &mut Db) {
    let (_, server) = db.environment(1);
    let servers = table("servers");
    for (url, found) in [("http://ci:s3cret@h:8/", 0), ("http://h:8/s3cret", 1)] {
        db.set_server(server, &[("check_url", url.into())], at(0)).unwrap();
        assert_eq!(db.master_rows(servers, "s3cr", 0).unwrap().1, found, "{url}");
    }
}

fn a_row_changes_only_as_the_version_that_was_shown(db: &mut Db) {
    let users = table("git_hub_users");
    let values = [("login", "dev1".into()), ("db_schema", "a".into())];
    let id = db.add_master_row(users, &values, at(0)).unwrap();
    let version = |db: &mut Db| db.master_row(users, id).unwrap().unwrap().version(users);
    let first = version(db);
    let set = |schema: &str| [("db_schema", Value::from(schema))];
    assert_eq!(db.change_master_row(users, id, &first, &set("b"), at(1)).unwrap(), Changed::Done);
    assert_eq!(db.change_master_row(users, id, &first, &set("c"), at(2)).unwrap(), Changed::Stale);
    assert_eq!(db.remove_master_row(users, id, &first).unwrap(), Changed::Stale);
    let second = version(db);
    assert_eq!(db.master_row(users, id).unwrap().unwrap().value(users, "db_schema"), Some("b"));
    // The same values set in the same second are no change for anybody.
    assert_eq!(db.change_master_row(users, id, &second, &set("b"), at(1)).unwrap(), Changed::Done);
    assert_eq!(version(db), second);
    assert_eq!(db.remove_master_row(users, id, &second).unwrap(), Changed::Done);
    assert_eq!(db.remove_master_row(users, id, &second).unwrap(), Changed::Gone);
    assert_eq!(db.change_master_row(users, id, &second, &set("d"), at(3)).unwrap(), Changed::Gone);
}

fn every_table_is_read_as_it_is(db: &mut Db) {
    let (_, server) = db.environment(1);
    db.set_server(server, &[("auto_weekdays", "mon-fri".into())], at(0)).unwrap();
    for table in &TABLES {
        let (rows, count) = db.master_rows(table, "1", 0).unwrap();
        assert_eq!(rows.len() as u32, count, "{}", table.name);
    }
    let servers = table("servers");
    let row = db.master_row(servers, server.0).unwrap().unwrap();
    assert_eq!(row.value(servers, "auto_weekdays"), Some("mon-fri"));
    assert_eq!(row.value(servers, "is_staging"), Some("1"));
    // What ticks keep makes no form stale.
    let pulls = table("pull_requests");
    let row = db.master_rows(pulls, "", 0).unwrap().0.remove(0);
    db.write("UPDATE pull_requests SET is_launched = 1");
    assert_eq!(db.master_row(pulls, row.id).unwrap().unwrap().version(pulls), row.version(pulls));
}

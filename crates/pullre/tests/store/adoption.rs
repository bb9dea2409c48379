//! A database of pullre-kun becomes ours.

use std::collections::BTreeMap;

use pullre::condition::Policy;
use pullre::domain::{Instance, InstanceId, InstanceState, Login, PullNumber, ServerId};
use pullre::facts::{CloneState, Outcome};
use pullre::ports::{PullReading, ReadingMark};
use pullre::reconcile::plan::{Action, Observed, Plan, Reading, plan};
use pullre::store::Won;
use pullre::store::backend::Value;

use crate::db::{Db, at, request};

on_each_engine!(
    empty:
    no_value_of_the_ancestor_is_lost_or_changed,
    the_first_tick_changes_nothing_about_what_was_brought_up,
    a_live_environment_is_taken_over_as_it_is,
    a_server_that_was_never_deployed_to_owns_nothing,
    a_schema_that_nobody_works_on_may_be_overwritten,
    what_was_cloned_and_not_launched_is_deployed_and_keeps_its_data,
    what_was_not_cloned_is_cloned,
    of_two_on_one_server_the_newer_keeps_it_and_proves_itself,
    of_two_on_one_server_the_one_that_was_brought_up_keeps_it,
    a_developers_own_schema_is_never_owned,
    a_schema_of_two_servers_belongs_to_the_one_that_lives,
    nonsense_stops_only_itself,
    any_table_of_the_ancestor_may_be_missing,
    it_is_adopted_once,
    a_run_that_was_killed_after_adopting_adopts_nothing_twice,
    an_installation_of_our_own_is_left_in_peace,
    what_would_be_done_is_said_and_not_done,
    a_long_body_fits_afterwards,
);

const TABLES: [&str; 7] = [
    "servers",
    "git_hub_users",
    "hide_servers",
    "pull_requests",
    "next_release_messages",
    "commits",
    "issues",
];
const SERVED: &str = "5477f64340bbea341a7bc5cf1305891bf8af3f6c";
const STG1: ServerId = ServerId(1);
const STG2: ServerId = ServerId(2);

/// A pullre-kun with rows changed by hand, adopted.
fn adopted(db: &mut Db, changes: &[&str]) {
    db.load_ancestor();
    for change in changes {
        db.write(change);
    }
    db.migrate(at(0)).unwrap();
}

fn everything(db: &mut Db) -> Vec<Vec<Vec<Value>>> {
    let read = |table| db.read(&format!("SELECT * FROM {table} ORDER BY id"));
    TABLES.into_iter().map(read).collect()
}

/// What a tick would do that finds #2 as the ancestor left it, and every instance running.
fn first_plan(db: &mut Db) -> Plan {
    let mut two = request(2);
    two.head = SERVED.parse().unwrap();
    two.author = Some(Login("dev2".into()));
    two.title = "機能 2 🍣".into();
    let mut three = request(3);
    three.head = SERVED.parse().unwrap();
    let facts = db.facts().unwrap();
    let reads = |number| facts.pulls.contains_key(&PullNumber(number));
    let pulls = [two, three].into_iter().filter(|pull| reads(pull.number.0)).collect();
    let running = |instance: &str| {
        let id = InstanceId(instance.into());
        let state = InstanceState::Running;
        let instance = Instance {
            id: id.clone(),
            state,
            name: None,
            private_ip: None,
            reason: None,
            role: None,
        };
        (id, instance)
    };
    let instances = ["i-b00f85e3830690683", "i-8036de5b0167c08c4"].map(running);
    plan(&Observed {
        now: at(60),
        facts,
        forge: Reading::Known(PullReading {
            pulls,
            gone: Vec::new(),
            mark: Some(ReadingMark { watermark: at(50), whole: true, etag: None }),
        }),
        instances: Reading::Known(BTreeMap::from(instances)),
        policy: Policy::default(),
        confirmed: false,
    })
}

fn actions(plan: &Plan) -> Vec<&Action> {
    plan.chains.iter().flat_map(|chain| &chain.actions).collect()
}

fn no_value_of_the_ancestor_is_lost_or_changed(db: &mut Db) {
    db.load_ancestor();
    db.write("INSERT INTO hide_servers VALUES (7, '2026-01-01 00:00:00', '2026-01-01 00:00:00', 'web 🍣')");
    let before = everything(db);
    for _ in 0..2 {
        db.migrate(at(0)).unwrap();
        assert_eq!(everything(db), before);
    }
    assert_eq!(db.read_one("SELECT version_num FROM alembic_version"), "0b61c2937e21".into());
    let title = "SELECT title FROM pull_requests WHERE number = 2";
    assert_eq!(db.read_one(title), "機能 2 🍣".into());
}

fn the_first_tick_changes_nothing_about_what_was_brought_up(db: &mut Db) {
    adopted(db, &[]);
    let first = first_plan(db);
    assert_eq!(first.chains, [], "{first}");
    assert_eq!(first.queue, [], "{first}");
    let mirrors =
        "SELECT server_id, is_launched, sha, db_schema FROM pull_requests ORDER BY number";
    let before = db.read(mirrors);
    db.record(&first.records, at(60)).unwrap();
    assert_eq!(db.read(mirrors), before);
    let second = first_plan(db);
    assert_eq!(second.chains, [], "{second}");
}

fn a_live_environment_is_taken_over_as_it_is(db: &mut Db) {
    adopted(db, &[]);
    let assignment = db.assignment(PullNumber(2)).unwrap();
    assert_eq!(assignment.server, STG2);
    let deployment = assignment.deployment.unwrap();
    assert_eq!((deployment.outcome, deployment.sha.as_str()), (Outcome::Succeeded, SERVED));
    let app = db.facts_of(STG2).app.unwrap();
    assert_eq!((app.pull, app.sha.as_str()), (PullNumber(2), SERVED));
    let clone = db.clone_of("stg2").unwrap();
    assert_eq!(
        (clone.state, clone.server, clone.pull),
        (CloneState::Ready, STG2, Some(PullNumber(2)))
    );
    assert_eq!(clone.source, Some("db_dev2".parse().unwrap()));
    assert_eq!(
        db.events(PullNumber(2)),
        [
            "taking over from pullre-kun: a record of #2 on stg2, which serves 5477f64",
            "taking over from pullre-kun: a record of schema stg2 of stg2 with the data of #2"
        ]
    );
    // Its staging client has nothing to do either.
    let duty = db.duties_of("stg2").unwrap().remove(0);
    assert_eq!(duty.task.unwrap().deployment.outcome, Outcome::Succeeded);
}

fn a_server_that_was_never_deployed_to_owns_nothing(db: &mut Db) {
    adopted(db, &["UPDATE pull_requests SET server_id = 1, is_launched = NULL WHERE number = 1"]);
    assert_eq!(db.clone_of("stg1"), None);
}

fn a_schema_that_nobody_works_on_may_be_overwritten(db: &mut Db) {
    adopted(db, &["UPDATE pull_requests SET state = 'closed'"]);
    let clone = db.clone_of("stg2").unwrap();
    assert_eq!((clone.state, clone.server, clone.pull), (CloneState::Owned, STG2, None));
    assert!(db.facts().unwrap().assignments.is_empty());
}

fn what_was_cloned_and_not_launched_is_deployed_and_keeps_its_data(db: &mut Db) {
    adopted(db, &["UPDATE pull_requests SET is_launched = 0 WHERE number = 2"]);
    assert_eq!(db.facts_of(STG2).app, None);
    let plan = first_plan(db);
    assert!(matches!(actions(&plan)[..], [Action::Offer { attempt: 1, .. }]), "{plan}");
}

fn what_was_not_cloned_is_cloned(db: &mut Db) {
    adopted(db, &["UPDATE pull_requests SET is_launched = NULL WHERE number = 2"]);
    let plan = first_plan(db);
    assert!(matches!(actions(&plan)[..], [Action::Clone { .. }]), "{plan}");
    assert_eq!(db.assignment(PullNumber(2)).unwrap().server, STG2);
}

fn third_on_stg2(is_launched: &str) -> String {
    format!(
        "INSERT INTO pull_requests (id, created_at, updated_at, number, state, sha, server_id,
             is_launched, db_schema)
         VALUES (3, '2026-11-22 21:30:00', '2026-11-22 21:30:00', 3, 'open', '{SERVED}', 2,
             {is_launched}, 'db_dev1')"
    )
}

/// Whose commit and whose data is there, nobody can tell: no data is dropped, and a deployment
/// says what runs.
fn of_two_on_one_server_the_newer_keeps_it_and_proves_itself(db: &mut Db) {
    adopted(db, &[&third_on_stg2("1")]);
    let facts = db.facts().unwrap();
    assert_eq!(facts.assignments.len(), 1);
    assert_eq!(facts.assignments[&PullNumber(3)].deployment, None);
    assert_eq!(db.clone_of("stg2").unwrap().pull, Some(PullNumber(3)));
    assert_eq!(
        db.events(PullNumber(2)),
        ["taking over from pullre-kun: no record of #2: its server is also #3's, which keeps it"]
    );
    let first = first_plan(db);
    let of = |number| {
        let chain = first.chains.iter().find(|chain| {
            chain.subject == pullre::reconcile::plan::Subject::Environment(PullNumber(number))
        });
        chain.map(|chain| (chain.server, chain.actions.len())).unwrap()
    };
    assert_eq!(of(3), (STG2, 1), "{first}");
    assert_eq!(of(2).0, STG1, "{first}");
}

fn of_two_on_one_server_the_one_that_was_brought_up_keeps_it(db: &mut Db) {
    adopted(db, &[&third_on_stg2("NULL")]);
    let assignment = db.assignment(PullNumber(2)).unwrap();
    assert_eq!((assignment.server, assignment.deployment), (STG2, None));
    assert_eq!(db.assignment(PullNumber(3)), None);
}

fn a_developers_own_schema_is_never_owned(db: &mut Db) {
    adopted(db, &["UPDATE servers SET db_schema = 'DB_dev1' WHERE id = 2"]);
    assert!(db.facts().unwrap().clones.is_empty());
    // And what lives there is left to live.
    assert_eq!(db.assignment(PullNumber(2)).unwrap().server, STG2);
    assert_eq!(first_plan(db).chains, []);
}

fn a_schema_of_two_servers_belongs_to_the_one_that_lives(db: &mut Db) {
    adopted(
        db,
        &[
            "UPDATE servers SET db_schema = 'stg2' WHERE id = 1",
            "UPDATE pull_requests SET server_id = 1 WHERE number = 1",
        ],
    );
    let clone = db.clone_of("stg2").unwrap();
    assert_eq!((clone.server, clone.pull), (STG2, Some(PullNumber(2))));
    assert_eq!(first_plan(db).chains, []);
}

fn nonsense_stops_only_itself(db: &mut Db) {
    adopted(
        db,
        &[
            "UPDATE servers SET db_schema = '../../etc' WHERE id = 1",
            "UPDATE pull_requests SET server_id = 1 WHERE number = 1",
            "INSERT INTO pull_requests (id, created_at, updated_at, number, state, sha, server_id,
                 is_launched) VALUES (9, '2026-01-01', '2026-01-01', 9, 'open', 'HEAD', 1, 1)",
            "INSERT INTO pull_requests (id, created_at, updated_at, number, state, sha, server_id,
                 is_launched) VALUES (8, '2026-01-01', '2026-01-01', -8, 'open', 'x', 1, 1)",
            "INSERT INTO servers (id, created_at, updated_at) VALUES (5, '2026-01-01', '2026-01-01')",
        ],
    );
    let facts = db.facts().unwrap();
    assert_eq!(facts.assignments[&PullNumber(2)].server, STG2);
    // Which commit it serves, nobody can say.
    assert_eq!(facts.assignments[&PullNumber(9)].deployment, None);
    assert_eq!(facts.clones.into_keys().map(|s| s.to_string()).collect::<Vec<_>>(), ["stg2"]);
    let plan = first_plan(db);
    assert!(plan.chains.is_empty(), "{plan}");
}

fn any_table_of_the_ancestor_may_be_missing(db: &mut Db) {
    for missing in TABLES {
        db.clear();
        db.load_ancestor();
        db.drop_table(missing);
        db.planned_migration().unwrap();
        db.migrate(at(0)).unwrap();
        db.require_tables().unwrap();
        let adopted = db.assignment(PullNumber(2)).is_some();
        assert_eq!(adopted, !matches!(missing, "servers" | "pull_requests"), "without {missing}");
    }
}

fn it_is_adopted_once(db: &mut Db) {
    adopted(db, &[]);
    assert_eq!(db.release(PullNumber(2), STG2, "by hand", at(5)).unwrap(), Won::Yes);
    db.write("UPDATE pull_requests SET server_id = 2, is_launched = 1 WHERE number = 2");
    db.migrate(at(6)).unwrap();
    assert_eq!(db.assignment(PullNumber(2)), None);
    assert!(db.planned_migration().unwrap().is_empty());
}

fn a_run_that_was_killed_after_adopting_adopts_nothing_twice(db: &mut Db) {
    adopted(db, &[]);
    let before = (db.facts().unwrap().assignments, db.facts().unwrap().clones);
    db.write("DELETE FROM schema_migrations");
    let said = db.migrate(at(9)).unwrap();
    assert!(said.iter().all(|said| !said.contains("record")), "{said:?}");
    assert_eq!((db.facts().unwrap().assignments, db.facts().unwrap().clones), before);
    assert_eq!(db.deployments(PullNumber(2)).len(), 1);
}

fn an_installation_of_our_own_is_left_in_peace(db: &mut Db) {
    db.migrate(at(0)).unwrap();
    let (pull, _, deployment) = db.running(1);
    assert_eq!(db.deployment_succeeded(&deployment, at(5)).unwrap(), Won::Yes);
    let before = db.facts().unwrap().assignments;
    let events = db.events(pull);
    db.write("DELETE FROM schema_migrations WHERE name = 'adopt'");
    db.migrate(at(9)).unwrap();
    assert_eq!(db.facts().unwrap().assignments, before);
    assert_eq!(db.facts_of(before[&pull].server).app, None);
    assert!(db.facts().unwrap().clones.is_empty());
    assert_eq!(db.events(pull), events);
}

fn what_would_be_done_is_said_and_not_done(db: &mut Db) {
    db.load_ancestor();
    let before = everything(db);
    let said = db.planned_migration().unwrap();
    assert!(!said.contains(&"servers".into()), "{said:?}");
    assert!(said.contains(&"assignments".into()), "{said:?}");
    let [.., environment, clone] = &said[..] else { panic!("{said:?}") };
    assert_eq!(environment, "a record of #2 on stg2, which serves 5477f64");
    assert_eq!(clone, "a record of schema stg2 of stg2 with the data of #2");
    assert_eq!(everything(db), before);
    assert!(db.require_tables().is_err());
    assert_eq!(db.migrate(at(0)).unwrap(), said);
    assert_eq!(db.planned_migration().unwrap(), [""; 0]);
}

fn a_long_body_fits_afterwards(db: &mut Db) {
    adopted(db, &[]);
    let body = "🍣".repeat(22_500);
    let number = db.pull_request(2, |request| request.body = body.clone());
    assert!(db.pull(number).unwrap().unwrap().request.body == body);
}

/// Tables that a server with an old default made.
#[test]
fn mariadb_tables_of_an_old_character_set_take_every_text_afterwards() {
    for old in ["latin1", "utf8mb3", "utf8mb3 COLLATE utf8mb3_bin"] {
        let db = &mut crate::db::empty_mariadb();
        db.load_ancestor();
        db.write("UPDATE pull_requests SET title = 'é', body = 'ü' WHERE number = 2");
        for table in TABLES {
            db.write(&format!("ALTER TABLE {table} CONVERT TO CHARACTER SET {old}"));
        }
        let before = everything(db);
        assert!(db.planned_migration().unwrap().iter().any(|said| said.contains("every text")));
        db.migrate(at(0)).unwrap();
        assert_eq!(everything(db), before, "{old}");
        let mut described = request(2);
        described.title = "🍣".into();
        described.body = "🍣".repeat(22_500);
        db.pull_request(2, |request| *request = described.clone());
        assert!(db.pull(PullNumber(2)).unwrap().unwrap().request == described, "{old}");
    }
}

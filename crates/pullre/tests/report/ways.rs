//! Commit statuses where check runs are not permitted, GitHub deployments, and more than one pull
//! request or credential for a commit.

use insta::assert_snapshot;
use testkit::fuse::Fuse;
use testkit::world::World;

use super::{ONE, checks, deployments, opened, ready, seen, without_checks};

#[test]
fn two_pull_requests_may_share_a_head() {
    let mut world = World::new(2).speaks();
    let one = world.hub.open("dev1", false, world.now);
    let two = world.hub.open("dev1", false, world.now);
    let head = world.hub.pulls()[0].head.clone();
    world.hub.edit(two, world.now, |pull| pull.head = head.clone());
    world.minutes(4);
    let told = world.hub.told();
    let ids: Vec<_> = told.checks.values().map(|(_, run)| run.external_id.clone()).collect();
    assert_eq!(ids, [format!("{}:{head}", one.0), format!("{}:{head}", two.0)]);
    assert_eq!(told.comments.len(), 2);
}

#[test]
fn without_the_right_to_check_runs_the_commit_has_a_status() {
    let mut world = without_checks(1);
    world.hub.open("dev1", false, world.now);
    world.minutes(4);
    assert_snapshot!(seen(&world), @r#"
    [status of 9e3779b] pending: Starting stg1 -
    [status of 9e3779b] pending: Deploying to stg1 -
    [status of 9e3779b] success: Ready on stg1 -
    [comment on #1 by ""]
        <!-- pullre:1 -->
        **Staging: ready**

        stg1 serves `9e3779b`.

        - Commit: `9e3779b`
        - Server: stg1
        - Database: `stg1`, a copy of `dev1` made 2026-11-22 12:00 UTC (8 kB in TIME)

        <sub>People with write access can comment with a line `/pullre redeploy`, `reset-db`, `hold`, `release`, `stop` or `explain`.</sub>
    "#);
    let writes = world.hub.told().writes;
    world.minutes(3);
    assert_eq!(world.hub.told().writes, writes, "an idle tick says nothing");
    // An hour later it is asked again, and now it may.
    world.hub.permit("check");
    world.advance(3600);
    world.client_ticks(&Fuse::never(), |_| true);
    world.minutes(1);
    assert_snapshot!(checks(&world).join("\n"), @"1:9e3779b success: Ready on stg1");
}

#[test]
fn two_pull_requests_of_one_head_have_a_status_each() {
    let mut world = without_checks(2);
    world.report.comment = false;
    world.hub.open("dev1", false, world.now);
    let two = world.hub.open("dev1", false, world.now);
    let head = world.hub.pulls()[0].head.clone();
    world.hub.edit(two, world.now, |pull| pull.head = head.clone());
    world.minutes(4);
    let last = |world: &World| {
        let told = world.hub.told();
        let by_name: std::collections::BTreeMap<_, _> =
            told.statuses.iter().map(|(_, s)| (s.context.clone(), s.state)).collect();
        format!("{by_name:?}")
    };
    assert_snapshot!(last(&world), @r#"{"pullre": "success", "pullre (#2)": "success"}"#);
    // When the first one is closed, the other one speaks for the commit.
    world.hub.close(ONE, world.now);
    world.minutes(2);
    assert_snapshot!(last(&world), @r#"{"pullre": "success", "pullre (#2)": "success"}"#);
}

#[test]
fn a_check_run_of_another_credential_is_made_anew() {
    let mut world = opened(1);
    world.tick();
    world.hub.set_credential("app");
    world.minutes(4);
    assert_snapshot!(checks(&world).join("\n"), @"
    1:9e3779b in_progress: Starting stg1
    1:9e3779b success: Ready on stg1
    ");
    assert_eq!(world.hub.told().comments.len(), 1, "whoever may write edits what another wrote");
}

#[test]
fn deployments_where_they_are_wanted() {
    let mut world = ready();
    world.report.deployments = true;
    world.report.comment = false;
    world.tick();
    world.hub.push(ONE, world.now);
    world.minutes(3);
    assert_snapshot!(deployments(&world), @"
    [deployment pr-1 of 9e3779b] success, inactive -
    [deployment pr-1 of 3c6ef37] in_progress, success http://stg1.example:8000/health?x=1
    ");
    world.hub.close(ONE, world.now);
    world.minutes(2);
    assert_snapshot!(deployments(&world), @"
    [deployment pr-1 of 9e3779b] success, inactive -
    [deployment pr-1 of 3c6ef37] in_progress, success, inactive -
    ");
}

#[test]
fn a_deployment_that_somebody_deleted_is_made_again() {
    let mut world = ready();
    world.report.deployments = true;
    world.tick();
    world.hub.delete_deployments();
    world.by_hand("UPDATE server_facts SET app_pull = NULL, app_sha = NULL");
    world.minutes(1);
    let told = world.hub.told();
    let states: Vec<_> =
        told.deployments.values().map(|(_, _, s)| s.last().unwrap().state).collect();
    assert_eq!(states, ["failure"]);
}

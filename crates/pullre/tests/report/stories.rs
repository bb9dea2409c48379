//! One story for each stage, with exactly what a reviewer reads.

use insta::assert_snapshot;
use pullre::domain::{InstanceState, PullNumber};
use testkit::world::World;

use super::{ONE, checks, failed, offered, opened, ready, seen};

#[test]
fn nothing_is_said_where_nothing_shall_be() {
    let mut world = World::new(1);
    world.hub.open("dev1", false, world.now);
    world.minutes(3);
    assert_eq!(world.hub.told().writes, 0);
}

#[test]
fn a_plan_shows_what_would_be_said_and_says_nothing() {
    let world = opened(1);
    assert_snapshot!(world.plan().1, @"
    seen   #1 open at 9e3779b by dev1: Feature 1
    seen   stg1 is stopped
    seen   #1 may have an environment
    #1    assign stg1, start stg1, clone dev1 to stg1 (next in the queue)
    say    #1 check: in progress, Starting stg1
    say    #1 comment: in progress
    ");
    assert_eq!(world.hub.told().writes, 0);
}

#[test]
fn queued_with_its_place() {
    let world = opened(0);
    world.tick();
    assert_snapshot!(seen(&world), @r#"
    [pullre of 1:9e3779b900000000000000000000000000000001] queued: Queued, place 1
        Pull request #1 at `9e3779b`.

        Place 1 in the queue; there is no server in the pool; `update-pull server register` adds one.
    [comment on #1 by ""]
        <!-- pullre:1 -->
        **Staging: queued**

        Place 1 in the queue; there is no server in the pool; `update-pull server register` adds one.

        - Commit: `9e3779b`

        <sub>People with write access can comment with a line `/pullre redeploy`, `reset-db`, `hold`, `release`, `stop` or `explain`.</sub>
    "#);
}

#[test]
fn only_the_first_five_in_the_queue_are_told_their_place() {
    let mut world = World::new(0).speaks();
    for _ in 0..7 {
        world.hub.open("dev1", false, world.now);
        world.advance(1);
    }
    world.tick();
    assert_snapshot!(checks(&world).join("\n"), @"
    1:9e3779b queued: Queued, place 1
    2:3c6ef37 queued: Queued, place 2
    3:daa66d2 queued: Queued, place 3
    4:78dde6e queued: Queued, place 4
    5:1715609 queued: Queued, place 5
    6:b54cda5 queued: Queued
    7:5384540 queued: Queued
    ");
}

#[test]
fn starting() {
    let world = opened(1);
    world.tick();
    assert_snapshot!(seen(&world), @r#"
    [pullre of 1:9e3779b900000000000000000000000000000001] in_progress: Starting stg1
        Pull request #1 at `9e3779b`.

        stg1 comes up.

        - Server: stg1
        - Database: `stg1`, a copy of `dev1` made 2026-11-22 12:00 UTC (8 kB in TIME)
    [comment on #1 by ""]
        <!-- pullre:1 -->
        **Staging: starting**

        stg1 comes up.

        - Commit: `9e3779b`
        - Server: stg1
        - Database: `stg1`, a copy of `dev1` made 2026-11-22 12:00 UTC (8 kB in TIME)

        <sub>People with write access can comment with a line `/pullre redeploy`, `reset-db`, `hold`, `release`, `stop` or `explain`.</sub>
    "#);
}

#[test]
fn while_fresh_data_is_copied_the_comment_says_so_and_the_success_stays() {
    let mut world = opened(1);
    world.minutes(3);
    world.operator(&mut world.store()).reset_db(ONE, &world.locks()).unwrap();
    world.tick();
    assert_snapshot!(seen(&world), @r#"
    [pullre of 1:9e3779b900000000000000000000000000000001] success: Ready on stg1
        Pull request #1 at `9e3779b`.

        stg1 serves `9e3779b`.

        - Server: stg1
        - Database: `stg1`, a copy of `dev1` made 2026-11-22 12:00 UTC (8 kB in TIME)
    [comment on #1 by ""]
        <!-- pullre:1 -->
        **Staging: cloning**

        The database of stg1 is being made ready.

        - Commit: `9e3779b`
        - Server: stg1
        - Database: `stg1`, a copy of `dev1` made 2026-11-22 12:00 UTC (8 kB in TIME)

        <sub>People with write access can comment with a line `/pullre redeploy`, `reset-db`, `hold`, `release`, `stop` or `explain`.</sub>
    "#);
}

#[test]
fn deploying_with_its_step() {
    let world = offered(1);
    let mut store = world.store();
    let deployment = store.deployments_of(ONE, 1).unwrap().remove(0).id;
    let _ = store.begin_deployment(deployment, world.now).unwrap();
    store.step_started(deployment, "migrate", world.now).unwrap();
    world.tick();
    assert_snapshot!(seen(&world), @r#"
    [pullre of 1:9e3779b900000000000000000000000000000001] in_progress: Deploying to stg1: migrate
        Pull request #1 at `9e3779b`.

        stg1 deploys it.

        - Server: stg1
        - Database: `stg1`, a copy of `dev1` made 2026-11-22 12:00 UTC (8 kB in TIME)
    [comment on #1 by ""]
        <!-- pullre:1 -->
        **Staging: deploying**

        stg1 deploys it.

        - Commit: `9e3779b`
        - Server: stg1
        - Database: `stg1`, a copy of `dev1` made 2026-11-22 12:00 UTC (8 kB in TIME)

        <sub>People with write access can comment with a line `/pullre redeploy`, `reset-db`, `hold`, `release`, `stop` or `explain`.</sub>
    "#);
}

#[test]
fn ready_with_its_url_and_without_its_password() {
    let world = ready();
    assert_snapshot!(seen(&world), @r#"
    [pullre of 1:9e3779b900000000000000000000000000000001] success: Ready on stg1
        Pull request #1 at `9e3779b`.

        stg1 serves `9e3779b`.

        - URL: <http://stg1.example:8000/health?x=1>
        - Server: stg1
        - Database: `stg1`, a copy of `dev1` made 2026-11-22 12:00 UTC (8 kB in TIME)
        details: http://stg1.example:8000/health?x=1
    [comment on #1 by ""]
        <!-- pullre:1 -->
        **Staging: ready** <http://stg1.example:8000/health?x=1>

        stg1 serves `9e3779b`.

        - Commit: `9e3779b`
        - Server: stg1
        - Database: `stg1`, a copy of `dev1` made 2026-11-22 12:00 UTC (8 kB in TIME)

        <sub>People with write access can comment with a line `/pullre redeploy`, `reset-db`, `hold`, `release`, `stop` or `explain`.</sub>
    "#);
}

#[test]
fn failed_with_the_step_its_exit_status_and_the_end_of_its_output() {
    let world = failed(1);
    world.tick();
    assert_snapshot!(seen(&world), @r#"
    [pullre of 1:9e3779b900000000000000000000000000000001] failure: Failed in migrate: exit status 1
        Pull request #1 at `9e3779b`.

        Its deployment failed (try 1): migrate: exit status 1.

        Tried again after 2026-11-22 12:01 UTC; at once with `/pullre redeploy` in a comment.

        - Server: stg1
        - Database: `stg1`, a copy of `dev1` made 2026-11-22 12:00 UTC (8 kB in TIME)
        - migrate: exit status 1 after 0.0 s
        ```text
        no such table: users
        ```
    [comment on #1 by ""]
        <!-- pullre:1 -->
        **Staging: failed**

        Its deployment failed (try 1): migrate: exit status 1.

        Tried again after 2026-11-22 12:01 UTC; at once with `/pullre redeploy` in a comment.

        - Commit: `9e3779b`
        - Server: stg1
        - Database: `stg1`, a copy of `dev1` made 2026-11-22 12:00 UTC (8 kB in TIME)
        - migrate: exit status 1 after 0.0 s

        <details><summary>The end of its output</summary>

        ```text
        no such table: users
        ```

        </details>

        <sub>People with write access can comment with a line `/pullre redeploy`, `reset-db`, `hold`, `release`, `stop` or `explain`.</sub>
    "#);
}

#[test]
fn a_failure_becomes_a_success_when_a_later_try_is_one() {
    let mut world = failed(1);
    world.advance(60);
    world.minutes(4);
    assert_snapshot!(checks(&world).join("\n"), @"1:9e3779b success: Ready on stg1");
}

#[test]
fn held() {
    let mut world = opened(0);
    world.tick();
    let reason = "shown to @customer";
    world.operator(&mut world.store()).pull_hold(ONE, reason, None).unwrap();
    world.advance(60);
    world.tick();
    assert_snapshot!(seen(&world), @r#"
    [pullre of 1:9e3779b900000000000000000000000000000001] queued: Held
        Pull request #1 at `9e3779b`.

        It is held since 2026-11-22 12:00 UTC: shown to @{zero width}customer.

        Nothing is done for it until then, or `/pullre release` in a comment.
    [comment on #1 by ""]
        <!-- pullre:1 -->
        **Staging: held**

        It is held since 2026-11-22 12:00 UTC: shown to @{zero width}customer.

        Nothing is done for it until then, or `/pullre release` in a comment.

        - Commit: `9e3779b`

        <sub>People with write access can comment with a line `/pullre redeploy`, `reset-db`, `hold`, `release`, `stop` or `explain`.</sub>
    "#);
}

#[test]
fn a_fork_is_neutral_until_it_is_approved() {
    let world = World::new(1).speaks();
    world.hub.open("dev1", true, world.now);
    world.tick();
    assert_snapshot!(seen(&world), @r#"
    [pullre of 1:9e3779b900000000000000000000000000000001] neutral: No environment: it comes from a fork; `update-pull pull approve 1 9e3779b900000000000000000000000000000001` lets exactly this commit run
        Pull request #1 at `9e3779b`.

        It comes from a fork; `update-pull pull approve 1 9e3779b900000000000000000000000000000001` lets exactly this commit run.
    [comment on #1 by ""]
        <!-- pullre:1 -->
        **Staging: ineligible**

        It comes from a fork; `update-pull pull approve 1 9e3779b900000000000000000000000000000001` lets exactly this commit run.

        - Commit: `9e3779b`

        <sub>People with write access can comment with a line `/pullre redeploy`, `reset-db`, `hold`, `release`, `stop` or `explain`.</sub>
    "#);
}

#[test]
fn a_new_head_cancels_what_was_not_completed_and_leaves_what_was() {
    let mut world = ready();
    world.hub.push(ONE, world.now);
    world.tick();
    assert_snapshot!(checks(&world).join("\n"), @"
    1:9e3779b success: Ready on stg1
    1:3c6ef37 in_progress: Deploying to stg1
    ");
    world.hub.push(ONE, world.now);
    world.advance(1);
    world.tick();
    assert_snapshot!(checks(&world).join("\n"), @"
    1:9e3779b success: Ready on stg1
    1:3c6ef37 cancelled: Superseded by daa66d2
    1:daa66d2 in_progress: Deploying to stg1
    ");
    world.minutes(3);
    assert_snapshot!(checks(&world).join("\n"), @"
    1:9e3779b success: Ready on stg1
    1:3c6ef37 cancelled: Superseded by daa66d2
    1:daa66d2 success: Ready on stg1
    ");
}

#[test]
fn closed_before_it_was_ready() {
    let mut world = opened(1);
    world.tick();
    world.advance(60);
    world.hub.close(ONE, world.now);
    world.minutes(2);
    assert_snapshot!(seen(&world), @r#"
    [pullre of 1:9e3779b900000000000000000000000000000001] cancelled: Closed
        #1 was closed before it was ready.
    [comment on #1 by ""]
        <!-- pullre:1 -->
        **Staging: closed**

        Its server goes back to the pool.
    "#);
    let writes = world.hub.told().writes;
    world.minutes(2);
    assert_eq!(world.hub.told().writes, writes, "all is said");
}

#[test]
fn reopened_it_goes_on_with_a_new_check_run_and_the_same_comment() {
    let mut world = opened(1);
    world.tick();
    world.advance(60);
    world.hub.close(ONE, world.now);
    world.minutes(2);
    world.hub.reopen(ONE, world.now);
    world.minutes(4);
    assert_eq!(world.hub.told().comments.len(), 1);
    assert_snapshot!(checks(&world).join("\n"), @"
    1:9e3779b cancelled: Closed
    1:9e3779b success: Ready on stg1
    ");
}

#[test]
fn a_success_stays_while_its_machine_is_brought_back_and_an_app_that_died_is_red() {
    let mut world = ready();
    world.fleet.force("stg1", Some(InstanceState::Stopped));
    world.settle_machines();
    world.tick();
    assert_snapshot!(checks(&world).join("\n"), @"1:9e3779b success: Ready on stg1");
    world.minutes(4);
    world.by_hand("UPDATE server_facts SET app_pull = NULL, app_sha = NULL");
    world.tick();
    assert_snapshot!(checks(&world).join("\n"), @"
    1:9e3779b success: Ready on stg1
    1:9e3779b failure: Failed: the app on stg1 died
    ");
}

#[test]
fn a_completed_check_run_stays_and_a_later_truth_is_a_new_one() {
    let mut world = ready();
    world.advance(700);
    world.tick();
    world.tick();
    assert_snapshot!(checks(&world).join("\n"), @"
    1:9e3779b success: Ready on stg1
    1:9e3779b failure: Failed: whether stg1 still serves it is not known: its staging client is silent since 2026-11-22 12:03 UTC
    ");
    assert!(seen(&world).contains("**Staging: failed**"), "{}", seen(&world));
    world.minutes(2);
    assert_snapshot!(checks(&world).join("\n"), @"
    1:9e3779b success: Ready on stg1
    1:9e3779b failure: Failed: whether stg1 still serves it is not known: its staging client is silent since 2026-11-22 12:03 UTC
    1:9e3779b success: Ready on stg1
    ");
    assert_eq!(world.hub.told().in_vain, 0);
}

#[test]
fn what_pullre_kun_brought_up_has_no_client_that_could_be_silent() {
    let mut world = ready();
    world.by_hand("UPDATE server_facts SET agent_seen_at = NULL, agent_version = NULL");
    world.advance(700);
    world.tick();
    assert_snapshot!(checks(&world).join("\n"), @"1:9e3779b success: Ready on stg1");
}

#[test]
fn a_success_whose_server_is_lost_is_followed_by_what_becomes_of_it() {
    let mut world = ready();
    world.fleet.force("stg1", Some(InstanceState::Terminated));
    world.tick();
    assert_snapshot!(checks(&world).join("\n"), @"
    1:9e3779b success: Ready on stg1
    1:9e3779b queued: Queued, place 1
    ");
    world.minutes(4);
    assert_snapshot!(checks(&world).join("\n"), @"
    1:9e3779b success: Ready on stg1
    1:9e3779b success: Ready on stg2
    ");
}

#[test]
fn a_check_run_that_was_completed_and_not_recorded_is_followed_by_a_new_one() {
    let world = ready();
    // As after a kill: GitHub has it, the record does not.
    world.by_hand("UPDATE reports SET state = 'in progress', digest = 'x' WHERE kind = 'check'");
    world.by_hand("UPDATE server_facts SET app_pull = NULL, app_sha = NULL");
    world.tick();
    assert_snapshot!(checks(&world).join("\n"), @"
    1:9e3779b success: Ready on stg1
    1:9e3779b failure: Failed: the app on stg1 died
    ");
}

#[test]
fn the_first_tick_after_pullre_kun_says_nothing_of_what_is_live() {
    let mut world = ready();
    // As if it had been brought up by pullre-kun: nothing of ours is known, and `init` adopts it.
    let writes = world.hub.told().writes;
    for sql in [
        "DELETE FROM reports",
        "DELETE FROM assignments",
        "DELETE FROM clones",
        "DELETE FROM deployments",
        "UPDATE pull_requests SET check_run_id = 77",
        "DELETE FROM schema_migrations WHERE name = 'adopt'",
    ] {
        world.by_hand(sql);
    }
    world.store().migrate(world.now).unwrap();
    world.minutes(2);
    assert_eq!(world.hub.told().writes, writes, "nothing is said");
    let before = world.hub.told().checks.len();
    world.hub.push(PullNumber(1), world.now);
    world.minutes(3);
    assert_eq!(world.hub.told().checks.len(), before + 1);
    assert_eq!(world.hub.told().comments.len(), 1);
}

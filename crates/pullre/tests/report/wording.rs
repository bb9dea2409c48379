//! What is shown of addresses, secrets, outputs and moments, and what is not.

use insta::assert_snapshot;
use pullre::config::Secret;
use pullre::ports::{CheckRun, CheckState, ForgeError};
use testkit::fuse::Fuse;
use testkit::world::World;

use super::{ONE, checks, comment, failed, offered, ready, seen};

fn newest(world: &World) -> CheckRun {
    world.hub.told().checks.into_values().last().unwrap().1
}

#[test]
fn the_password_of_a_check_url_is_never_shown() {
    let mut world = World::new(1).speaks();
    let set = ["check_url=http://tester:hunter2@stg1.example:8000/".to_owned()];
    world.operator(&mut world.store()).server_set("stg1", &set).unwrap();
    world.hub.open("dev1", false, world.now);
    world.tick();
    world.settle_machines();
    world.tick();
    world.client_ticks(&Fuse::never(), |_| false);
    // Its step prints what it was told as PULLRE_CHECK_URL.
    let printed = "GET http://tester:hunter2@stg1.example:8000/ as tester, hunter2";
    world.by_hand(&format!("UPDATE deployment_steps SET output = '{printed}'"));
    world.by_hand(&format!("UPDATE deployments SET reason = '{printed}'"));
    world.tick();
    let seen = seen(&world);
    assert!(seen.contains("GET http://stg1.example:8000/ as tester, ***"), "{seen}");
    assert!(!seen.contains("hunter2"), "{seen}");
}

#[test]
fn what_lets_in_without_a_password_and_a_short_one_are_never_shown_either() {
    for (login, printed, shown) in [
        ("t0ken", "GET as t0ken", "GET as ***"),
        ("tester:pass", "tester:pass is tester, pass", "*** is tester, ***"),
    ] {
        let mut world = failed(1);
        let set = [format!("check_url=http://{login}@stg1.example:8000/")];
        world.operator(&mut world.store()).server_set("stg1", &set).unwrap();
        world.by_hand(&format!("UPDATE deployment_steps SET output = '{printed}'"));
        world.advance(1);
        world.tick();
        let seen = seen(&world);
        assert!(seen.contains(&format!("    {shown}\n")), "{seen}");
    }
}

#[test]
fn colours_of_an_output_are_left_out_and_hide_no_secret() {
    let mut world = World::new(1).speaks();
    world.report.secrets = vec![Secret::new("p_ss!w0rd*")];
    world.hub.open("dev1", false, world.now);
    world.tick();
    world.settle_machines();
    world.tick();
    world.client_ticks(&Fuse::never(), |_| false);
    world.by_hand(
        "UPDATE deployment_steps SET output = '\u{1b}[1;31mError:\u{1b}[0m p_ss\u{1b}[0m!w0rd*'",
    );
    world.tick();
    assert!(seen(&world).contains("    Error: ***\n"), "{}", seen(&world));
}

#[test]
fn a_secret_is_masked_whatever_it_consists_of() {
    let mut world = ready();
    world.report.secrets = vec![Secret::new("p_ss!w0rd*"), Secret::new("x".repeat(20))];
    let reason = format!("p_ss!w0rd* and `p_ss!w0rd*` {}", "y".repeat(490));
    world.operator(&mut world.store()).pull_hold(ONE, &reason, None).unwrap();
    world.tick();
    let seen = seen(&world);
    assert!(seen.contains("\\*\\*\\* and `***`"), "{seen}");
    assert!(!seen.contains("w0rd"), "{seen}");
}

#[test]
fn a_later_truth_is_never_dated_before_an_earlier_one() {
    let mut world = ready();
    let newest = |world: &World| {
        let run = newest(world);
        format!("{:?}, completed {:?}", run.state, run.completed_at)
    };
    assert_snapshot!(newest(&world), @"Success, completed Some(2026-11-22T12:01:00Z)");
    world.advance(700);
    world.tick();
    assert_snapshot!(newest(&world), @"Failure, completed None");
    // GitHub goes by this moment: that of the old deployment would leave the failure the newest.
    world.minutes(1);
    world.tick();
    assert_snapshot!(newest(&world), @"Success, completed None");
    world.by_hand("UPDATE clones SET bytes = 5000000");
    world.tick();
    assert_snapshot!(newest(&world), @"Success, completed None");
    world.advance(60);
    world.operator(&mut world.store()).redeploy(ONE, &world.policy, &world.locks()).unwrap();
    world.minutes(2);
    let writes = world.hub.told().writes;
    assert_snapshot!(newest(&world), @"Success, completed None");
    world.minutes(2);
    assert_eq!(world.hub.told().writes, writes, "a moment alone is no news");
}

#[test]
fn a_later_truth_that_github_did_not_take_at_first_is_dated_no_earlier() {
    // Whether it has arrived or not, what GitHub shows in the end is the last one completed.
    for (failure_arrives, success_arrives) in [(true, false), (true, true), (false, false)] {
        let mut world = ready();
        world.report.comment = false;
        let lost = || ForgeError::Unavailable("it answers 502".into()).into();
        world.advance(700);
        if !failure_arrives {
            world.hub.fail_next_post(lost(), false);
        }
        world.tick();
        world.client_ticks(&Fuse::never(), |_| true);
        world.advance(60);
        world.hub.fail_next_post(lost(), success_arrives);
        world.tick();
        world.minutes(4);
        assert_eq!(newest(&world).state, CheckState::Success);
        assert_eq!(newest(&world).completed_at, None, "{failure_arrives}, {success_arrives}");
        assert_eq!(world.hub.told().needless, [] as [String; 0]);
        assert!(world.plan().1.sayings.is_empty());
    }
}

/// Its client falls silent; the failure arrives, and GitHub's answer does not.
fn failed_unrecorded(world: &mut World) {
    world.advance(700);
    let lost = ForgeError::Unavailable("the connection was cut".into());
    world.hub.fail_next_post(lost.into(), true);
    world.tick();
    assert_eq!(newest(world).state, CheckState::Failure);
}

#[test]
fn a_failure_that_arrived_and_was_not_recorded_is_followed_by_a_success() {
    let mut world = ready();
    failed_unrecorded(&mut world);
    // It is what was said before.
    world.client_ticks(&Fuse::never(), |_| true);
    world.advance(60);
    world.tick();
    assert_eq!(newest(&world).state, CheckState::Success);
    assert_eq!(newest(&world).completed_at, None, "it is no older than the failure");
}

#[test]
fn the_first_success_is_no_older_than_a_failure_that_was_not_recorded() {
    let mut world = ready();
    // Nothing is known of what was said until now.
    world.by_hand("DELETE FROM reports");
    world.hub.forget_checks();
    failed_unrecorded(&mut world);
    world.client_ticks(&Fuse::never(), |_| true);
    world.advance(60);
    world.tick();
    assert_eq!((newest(&world).state, newest(&world).completed_at), (CheckState::Success, None));
}

#[test]
fn a_success_stays_where_a_failure_was_only_begun_to_be_said() {
    let mut world = ready();
    world.advance(700);
    let lost = ForgeError::Unavailable("it answers 502".into());
    world.hub.fail_next_post(lost.into(), false);
    world.tick();
    world.operator(&mut world.store()).pull_hold(ONE, "", None).unwrap();
    world.advance(60);
    world.tick();
    assert_snapshot!(checks(&world).join("\n"), @"1:9e3779b success: Ready on stg1");
    world.operator(&mut world.store()).pull_release(ONE).unwrap();
    world.client_ticks(&Fuse::never(), |_| true);
    world.minutes(3);
    assert_snapshot!(checks(&world).join("\n"), @"1:9e3779b success: Ready on stg1");
}

#[test]
fn a_sentence_does_not_change_anybodys_name() {
    let world = ready();
    world.operator(&mut world.store()).pull_stop(ONE).unwrap();
    world.tick();
    assert_snapshot!(comment(&world, ONE).lines().nth(3).unwrap(), @"It was stopped by tester 2026-11-22 12:04 UTC; `/pullre release` in a comment brings it back.");
    let mut world = offered(1);
    world.advance(700);
    world.tick();
    assert_snapshot!(comment(&world, ONE).lines().nth(3).unwrap(), @"stg1 does not deploy it: its staging client has never given a sign of life.");
}

#[test]
fn a_details_link_leads_to_the_console_page_of_that_pull_request() {
    let mut world = World::new(0).speaks();
    world.report.console = Some("https://staging.example.com".into());
    world.hub.open("dev1", false, world.now);
    world.tick();
    let told = world.hub.told();
    let url = told.checks.values().next().unwrap().1.details_url.as_deref();
    assert_eq!(url, Some("https://staging.example.com/pull/1"));
}

#[test]
fn a_completed_check_run_tells_when_it_began_and_ended() {
    let mut world = failed(1);
    // It began a second before it ended.
    let began = |world: &World| {
        let began = world.now.as_millisecond() - 1000;
        world.by_hand(&format!("UPDATE deployments SET started_at = {began}"));
    };
    began(&world);
    world.tick();
    let times = |world: &World| {
        let told = world.hub.told();
        let run = told.checks.values().last().unwrap().1.clone();
        format!("{:?}: {:?} to {:?}", run.state, run.started_at.unwrap(), run.completed_at.unwrap())
    };
    assert_snapshot!(times(&world), @"Failure: 2026-11-22T11:59:59Z to 2026-11-22T12:00:00Z");
    world.advance(60);
    world.tick();
    world.client_ticks(&Fuse::never(), |_| true);
    began(&world);
    world.tick();
    assert_snapshot!(times(&world), @"Success: 2026-11-22T12:00:59Z to 2026-11-22T12:01:00Z");
}

//! GitHub refuses, limits, or is away: environments go on, and nothing is lost.

use jiff::SignedDuration;
use pullre::ports::{ForgeError, PostError, Reaction};
use testkit::fuse::Fuse;
use testkit::world::World;

use super::{ONE, checks, comment, deployments, opened, ready, seen, without_checks};

#[test]
fn what_the_budget_does_not_allow_is_said_in_later_minutes_and_conclusions_go_first() {
    let mut world = World::new(0).speaks();
    for _ in 0..50 {
        world.hub.open("dev1", false, world.now);
    }
    world.tick();
    assert_eq!(world.hub.told().writes, 42, "what nobody's merge waits for leaves a part of it");
    assert_eq!(world.hub.told().checks.len(), 42, "check runs before comments");
    world.tick();
    assert_eq!(world.hub.told().writes, 42, "a second tick of the minute shares it");
    assert!(world.facts().report_trouble.unwrap().contains("used up"));
    // What is over is said in the same minute.
    world.hub.forks_of_all(world.now);
    world.tick();
    assert_eq!(world.hub.told().writes, 60, "a minute's budget");
    world.advance(60);
    world.minutes(4);
    assert_eq!(world.hub.told().comments.len(), 50);
    assert_eq!(world.facts().report_trouble, None);
}

#[test]
fn of_an_hour_too_a_part_is_left_to_conclusions() {
    let mut world = World::new(0).speaks();
    world.report.comment = false;
    let earlier = world.now.as_second() / 60 - 30;
    world.by_hand(&format!("INSERT INTO report_writes VALUES ({earlier}, 314)"));
    let said = |world: &World, fork: bool| {
        for _ in 0..3 {
            world.hub.open("dev1", fork, world.now);
        }
        world.tick();
        world.hub.told().writes
    };
    assert_eq!(said(&world, false), 1, "315 of 450");
    assert_eq!(said(&world, true), 4);
    world.by_hand(&format!("UPDATE report_writes SET writes = 444 WHERE minute = {earlier}"));
    assert_eq!(said(&world, true), 6, "and no more than that");
}

#[test]
fn three_odd_answers_are_one_trouble_with_github() {
    let mut world = World::new(0).speaks();
    world.report.comment = false;
    for _ in 0..5 {
        world.hub.open("dev1", false, world.now);
    }
    for _ in 0..3 {
        world.hub.fail_next_post(ForgeError::Unavailable("it answers 502".into()).into(), false);
    }
    world.tick();
    assert_eq!(world.hub.told().checks.len(), 0, "the others are not even tried");
    assert!(world.facts().report_trouble.unwrap().contains("502"));
    world.advance(60);
    world.minutes(2);
    assert_eq!(world.hub.told().checks.len(), 5);
    assert_eq!(world.facts().report_trouble, None);
}

#[test]
fn what_no_write_is_left_for_is_not_begun() {
    let world = ready();
    let said = |world: &World| world.store().told(&world.facts()).unwrap().said;
    let before = said(&world);
    let minute = world.now.as_second() / 60;
    world.by_hand(&format!("INSERT INTO report_writes VALUES ({minute}, 60)"));
    world.by_hand("UPDATE server_facts SET app_pull = NULL, app_sha = NULL");
    for _ in 0..2 {
        world.tick();
        assert_eq!(said(&world), before, "nothing else was said");
        assert!(world.facts().report_trouble.is_some(), "and that is known");
    }
}

#[test]
fn what_is_over_while_it_is_refused_is_said_when_it_is_permitted() {
    let all = ["check", "comment", "deployment"];
    let mut world = opened(1);
    world.report.deployments = true;
    world.tick();
    world.settle_machines();
    world.tick();
    all.iter().for_each(|interface| world.hub.forbid(interface));
    world.hub.close(ONE, world.now);
    world.minutes(3);
    all.iter().for_each(|interface| world.hub.permit(interface));
    world.advance(3600);
    world.minutes(1);
    assert_eq!(checks(&world), ["1:9e3779b cancelled: Closed"]);
    assert!(comment(&world, ONE).contains("closed"), "{}", comment(&world, ONE));
    assert_eq!(
        deployments(&world),
        "[deployment pr-1 of 9e3779b] in_progress, in_progress, inactive -"
    );
    let writes = world.hub.told().writes;
    world.minutes(1);
    assert_eq!(world.hub.told().writes, writes, "all is said");
}

#[test]
fn a_queue_that_grows_is_no_news_for_those_before() {
    let mut world = opened(0);
    world.minutes(1);
    let writes = world.hub.told().writes;
    world.hub.open("dev1", false, world.now);
    world.minutes(1);
    assert_eq!(world.hub.told().writes, writes + 2, "only the second one speaks");
}

#[test]
fn strangers_use_up_nobodys_budget() {
    let mut world = ready();
    world.hub.let_write("alice");
    world.advance(120);
    for _ in 0..80 {
        world.hub.comment(ONE, "mallory", "/pullre stop", world.now);
    }
    let hers = world.hub.comment(ONE, "alice", "/pullre redeploy", world.now);
    // A fork's is concluded at once, and that a merge may wait for.
    world.hub.open("dev1", true, world.now);
    world.tick();
    let reactions = world.hub.told().reactions;
    assert!(reactions.contains(&(hers, Reaction::Done)), "hers comes first");
    assert!(reactions.len() < 43, "{}", reactions.len());
    assert_eq!(world.hub.told().checks.len(), 2);
}

#[test]
fn one_that_is_answered_oddly_keeps_no_other_from_being_said() {
    for error in [
        PostError::Rejected("422 Unprocessable Entity".into()),
        ForgeError::Unavailable("it answers 502".into()).into(),
        ForgeError::Malformed("no JSON".into()).into(),
    ] {
        let mut world = World::new(0).speaks();
        world.report.comment = false;
        for _ in 0..3 {
            world.hub.open("dev1", false, world.now);
        }
        let first = world.hub.pulls()[0].head.clone();
        world.hub.never_take(&first, Some(error));
        world.tick();
        assert_eq!(world.hub.told().checks.len(), 2, "the others");
        world.hub.never_take(&first, None);
        world.advance(60);
        world.minutes(2);
        assert_eq!(world.hub.told().checks.len(), 3, "and in the end it too");
    }
}

#[test]
fn what_is_refused_once_is_not_asked_for_each() {
    let world = without_checks(0);
    for _ in 0..5 {
        world.hub.open("dev1", false, world.now);
    }
    world.tick();
    assert_eq!(world.hub.told().refused, 1);
    assert_eq!(world.hub.told().statuses.len(), 5);
    let said = world.store().told(&world.facts()).unwrap().said;
    assert!(said.values().all(|said| said.begun_at.is_none()), "it is known not to be there");
}

#[test]
fn a_status_that_a_token_left_is_corrected_by_the_app() {
    let last = |world: &World| {
        let told = world.hub.told();
        told.statuses.last().map(|(_, status)| (status.state, status.description.clone()))
    };
    let pending = |description: &str| Some(("pending", description.to_owned()));
    // What is neutral is said as pending.
    let mut world = without_checks(1);
    world.hub.open("dev1", true, world.now);
    world.minutes(1);
    let told = last(&world).unwrap();
    assert!(told.0 == "pending" && told.1.starts_with("No environment: it comes"), "{told:?}");
    world.hub.permit("check");
    world.hub.set_credential("app");
    let sha = world.hub.pulls()[0].head.clone();
    world.operator(&mut world.store()).approve(ONE, &sha).unwrap();
    world.minutes(4);
    assert_eq!(last(&world), Some(("success", "Ready on stg1".to_owned())));
    // And what was closed as an error.
    let mut world = without_checks(0);
    world.hub.open("dev1", false, world.now);
    world.minutes(1);
    world.hub.close(ONE, world.now);
    world.minutes(1);
    assert_eq!(last(&world), Some(("error", "Closed".to_owned())));
    world.hub.reopen(ONE, world.now);
    world.hub.permit("check");
    world.hub.set_credential("app");
    world.minutes(1);
    assert_eq!(last(&world), pending("Queued, place 1"));
}

#[test]
fn a_neutral_status_ends_with_its_pull_request() {
    let mut world = without_checks(0);
    world.hub.open("dev1", true, world.now);
    world.minutes(1);
    world.hub.close(ONE, world.now);
    world.minutes(1);
    let told = world.hub.told();
    let states: Vec<_> = told.statuses.iter().map(|(_, status)| status.state).collect();
    assert_eq!(states, ["pending", "error"]);
}

#[test]
fn a_limit_ends_the_talk_of_this_tick_and_holds_no_environment_back() {
    let mut world = opened(1);
    let until = world.now + SignedDuration::from_secs(60);
    world.hub.fail_next_post(ForgeError::RateLimited { until }.into(), false);
    let report = world.tick();
    assert_eq!(report.failures, [] as [String; 0], "no failure of the tick");
    assert!(report.acted > 0, "the environment is brought up all the same");
    // After the first refusal, before the copy, nothing more is asked; at the end it goes on.
    world.settle_machines();
    world.advance(60);
    world.minutes(3);
    assert_eq!(checks(&world).len(), 1);
}

#[test]
fn a_post_whose_answer_was_lost_is_not_made_twice() {
    let mut world = opened(1);
    for _ in 0..2 {
        let lost = ForgeError::Unavailable("the connection was cut".into());
        world.hub.fail_next_post(lost.into(), true);
    }
    world.minutes(4);
    assert_eq!(world.hub.told().checks.len(), 1);
    assert_eq!(world.hub.told().comments.len(), 1);
}

#[test]
fn what_was_begun_by_a_clock_that_was_ahead_is_made_all_the_same() {
    let mut world = World::new(0).speaks();
    world.hub.open("dev1", false, world.now);
    for _ in 0..2 {
        let lost = ForgeError::Unavailable("it answers 502".into());
        world.hub.fail_next_post(lost.into(), false);
    }
    world.tick();
    world.by_hand("UPDATE report_beginnings SET begun_at = begun_at + 86400000");
    world.advance(65);
    world.minutes(1);
    assert_eq!(checks(&world), ["1:9e3779b queued: Queued, place 1"]);
}

#[test]
fn what_is_rejected_is_tried_again_with_growing_pauses() {
    let mut world = World::new(0).speaks();
    world.report.comment = false;
    world.hub.open("dev1", false, world.now);
    for _ in 0..3 {
        world.hub.fail_next_post(PostError::Rejected("Validation Failed".into()), false);
    }
    let mut said_at = None;
    for minute in 0..20 {
        world.tick();
        if said_at.is_none() && !world.hub.told().checks.is_empty() {
            said_at = Some(minute);
        }
        // A little more than a minute: the pause begins when GitHub has answered.
        world.advance(65);
    }
    assert_eq!(said_at, Some(1 + 2 + 4), "tries at 0, 1, 3 and 7 minutes");
}

#[test]
fn a_forge_that_is_away_costs_nothing_but_the_news() {
    let mut world = opened(1);
    world.minutes(1);
    world.hub.set_unreachable(true);
    for _ in 0..3 {
        world.tick();
        world.settle_machines();
        world.client_ticks(&Fuse::never(), |_| true);
        world.advance(60);
    }
    world.hub.set_unreachable(false);
    world.minutes(2);
    assert_eq!(checks(&world).len(), 1);
    assert!(seen(&world).contains("success: Ready on stg1"), "{}", seen(&world));
}

#[test]
fn forbidden_comments_are_tried_again_when_the_credential_changes() {
    let mut world = World::new(0).speaks();
    world.hub.forbid("comment");
    world.hub.open("dev1", false, world.now);
    world.hub.open("dev1", false, world.now);
    world.minutes(3);
    assert_eq!(world.hub.told().comments.len(), 0);
    assert_eq!(world.hub.told().checks.len(), 2);
    world.hub.permit("comment");
    world.minutes(3);
    assert_eq!(world.hub.told().comments.len(), 0, "left alone for an hour");
    world.hub.set_credential("app");
    world.minutes(1);
    assert_eq!(world.hub.told().comments.len(), 2);
}

#[test]
fn what_was_refused_is_asked_again_after_an_hour() {
    let mut world = without_checks(0);
    world.hub.open("dev1", false, world.now);
    world.minutes(1);
    world.hub.permit("check");
    world.minutes(3);
    assert_eq!(checks(&world).len(), 0);
    world.advance(3600);
    world.tick();
    assert_eq!(checks(&world).len(), 1, "somebody has permitted it");
}

#[test]
fn what_one_saying_reads_is_not_what_all_the_others_have() {
    const LONG: usize = 40_000;
    let mut world = World::new(4).speaks();
    for _ in 0..4 {
        let number = world.hub.open("dev1", false, world.now);
        world.hub.edit(number, world.now, |pull| pull.body = "b".repeat(LONG));
    }
    world.tick();
    world.settle_machines();
    world.tick();
    world.client_ticks(&Fuse::never(), |_| false);
    world.by_hand(&format!("UPDATE deployment_steps SET output = '{}'", "o".repeat(LONG)));
    (0..2).for_each(|_| drop(world.tick()));
    let read = || {
        let fuse = Fuse::never();
        world.try_tick(&fuse).unwrap();
        fuse.bytes_read()
    };
    let idle = read();
    assert!(idle > 4 * LONG, "{idle} bytes, of which all outputs are a part");
    let writes = world.hub.told().writes;
    world.by_hand("UPDATE reports SET digest = 'x' WHERE pull_number = 1 AND kind = 'comment'");
    let busy = read();
    assert_eq!(world.hub.told().writes, writes + 1);
    assert!(busy - idle < 2 * LONG, "{} bytes for one saying", busy - idle);
}

#[test]
fn paused_means_silent() {
    let mut world = opened(1);
    world.operator(&mut world.store()).pause().unwrap();
    world.minutes(2);
    assert_eq!(world.hub.told().writes, 0);
    world.operator(&mut world.store()).resume().unwrap();
    world.minutes(1);
    assert!(world.hub.told().writes > 0);
}

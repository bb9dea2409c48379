//! What the chat is told: each thing once, and its end once.

#![allow(clippy::unwrap_used)]

use std::cell::RefCell;

use insta::assert_snapshot;
use pullre::alerts::{self, Alert, Alerts};
use pullre::domain::{InstanceState, PullNumber};
use pullre::stage::Standings;
use testkit::fuse::Fuse;
use testkit::world::World;

/// One tick, and what the chat hears of it. `works`: it can be reached.
fn hears(world: &World, works: bool) -> Vec<String> {
    let report = world.tick();
    let standings = Standings::new(&report.facts, &world.policy, world.now);
    let alerts = alerts::alerts(&standings, &world.report, report.forge.as_deref());
    let heard = RefCell::new(Vec::new());
    let send = |text: &str| match works {
        true => {
            heard.borrow_mut().push(text.to_owned());
            Ok(())
        }
        false => Err("no answer".to_owned()),
    };
    alerts::tell(&alerts, &mut world.store(), &world.locks(), world.now, &send).unwrap();
    heard.into_inner()
}

fn all(world: &mut World, minutes: usize) -> String {
    let mut heard = Vec::new();
    for _ in 0..minutes {
        heard.extend(hears(world, true));
        world.settle_machines();
        world.advance(60);
    }
    heard.join("\n")
}

/// The first deployment of the only pull request failed.
fn failed() -> World {
    let mut world = World::new(1);
    world.hub.open("dev1", false, world.now);
    world.deploy(false);
    world
}

#[test]
fn nothing_is_told_while_all_is_well() {
    let mut world = World::new(1);
    world.hub.open("dev1", false, world.now);
    world.minutes(4);
    assert_eq!(hears(&world, true), [] as [String; 0]);
}

#[test]
fn a_failed_environment_is_told_at_once_and_when_it_is_over() {
    let mut world = failed();
    assert_eq!(hears(&world, false), [] as [String; 0], "the chat is away: told later");
    assert_snapshot!(hears(&world, true).join("\n"), @"the environment of #1 failed: its deployment failed (try 1): migrate: exit status 1");
    assert_eq!(hears(&world, true), [] as [String; 0], "once");
    world.advance(60);
    world.minutes(3);
    assert_snapshot!(hears(&world, true).join("\n"), @"over: the environment of #1 failed: its deployment failed (try 1): migrate: exit status 1");
    assert_eq!(hears(&world, true), [] as [String; 0], "once");
}

#[test]
fn a_failure_that_is_tried_again_is_neither_over_nor_told_again_until_it_is() {
    let mut world = failed();
    assert_eq!(hears(&world, true).len(), 1);
    let attempts = |world: &World| {
        let deployments = world.facts().assignments.into_values().filter_map(|a| a.deployment);
        deployments.map(|deployment| deployment.attempt).sum::<u32>()
    };
    for _ in 0..5 {
        assert_eq!(all(&mut world, 1), "", "it waits, or is tried again");
        world.client_ticks(&Fuse::never(), |_| false);
    }
    assert_eq!(attempts(&world), 3);
    assert_eq!(all(&mut world, 1), "", "it has failed again");
    world.hub.push(PullNumber(1), world.now);
    assert_eq!(all(&mut world, 2), "", "what was pushed since may fail as well");
    world.minutes(3);
    assert_snapshot!(all(&mut world, 1), @"over: the environment of #1 failed: its deployment failed (try 1): migrate: exit status 1");
}

#[test]
fn a_failure_that_only_lost_its_server_is_not_over() {
    let mut world = failed();
    assert_eq!(hears(&world, true).len(), 1);
    world.fleet.force("stg1", None);
    assert_eq!(all(&mut world, 3), "", "it waits for another server, on which it may fail again");
    assert!(world.facts().assignments.is_empty());
    world.fleet.force("stg1", Some(InstanceState::Stopped));
    world.minutes(4);
    assert_snapshot!(all(&mut world, 1), @"over: the environment of #1 failed: its deployment failed (try 1): migrate: exit status 1");
}

#[test]
fn a_failure_is_over_with_its_environment() {
    let mut world = failed();
    assert_eq!(hears(&world, true).len(), 1);
    world.operator(&mut world.store()).pull_stop(PullNumber(1)).unwrap();
    assert_snapshot!(all(&mut world, 1), @"over: the environment of #1 failed: its deployment failed (try 1): migrate: exit status 1");
}

#[test]
fn an_exhausted_pool_is_told_after_five_minutes() {
    let mut world = World::new(1);
    world.hub.open("dev1", false, world.now);
    world.minutes(3);
    world.hub.open("dev1", false, world.now);
    world.hub.open("dev2", false, world.now);
    world.minutes(1);
    assert_eq!(all(&mut world, 5), "");
    world.client_ticks(&Fuse::never(), |_| true);
    assert_snapshot!(all(&mut world, 3), @"no server is free, and 2 pull requests wait");
    world.hub.close(PullNumber(1), world.now);
    world.hub.close(PullNumber(2), world.now);
    assert_snapshot!(all(&mut world, 2), @"over: no server is free, and 2 pull requests wait");
}

#[test]
fn an_unreadable_forge_is_told_after_five_minutes_and_a_short_one_never() {
    let mut world = World::new(1);
    world.minutes(1);
    world.hub.set_unreachable(true);
    assert_eq!(all(&mut world, 3), "");
    world.hub.set_unreachable(false);
    assert_eq!(all(&mut world, 2), "", "what was never told is never over");
    world.hub.set_unreachable(true);
    assert_snapshot!(all(&mut world, 8), @"no news of pull requests: GitHub cannot be read now: no route to the forge; the next tick tries again");
    world.hub.set_unreachable(false);
    assert_snapshot!(all(&mut world, 2), @"over: no news of pull requests: GitHub cannot be read now: no route to the forge; the next tick tries again");
}

fn nine() -> Alerts {
    let alert = |n: usize| Alert {
        name: format!("alert {n}"),
        message: format!("message {n}"),
        patience: std::time::Duration::ZERO,
    };
    Alerts { wrong: (0..9).map(alert).collect(), ..Alerts::default() }
}

#[test]
fn what_the_chat_does_not_take_keeps_nothing_else_from_it() {
    let mut world = World::new(0);
    let wrong = nine();
    let heard = RefCell::new(Vec::new());
    let tried = RefCell::new(0);
    let send = |text: &str| {
        *tried.borrow_mut() += 1;
        // All but the last two are more than it can take.
        match text.ends_with(['7', '8']) {
            true => heard.borrow_mut().push(text.to_owned()),
            false => return Err("400 Bad Request".to_owned()),
        }
        Ok(())
    };
    for _ in 0..9 {
        let before = *tried.borrow();
        alerts::tell(&wrong, &mut world.store(), &world.locks(), world.now, &send).unwrap();
        assert!(*tried.borrow() - before <= 5, "a chat that is away is not asked for each");
        world.advance(60);
    }
    heard.borrow_mut().sort();
    assert_eq!(*heard.borrow(), ["message 7", "message 8"], "each once");
}

#[test]
fn a_chat_that_is_away_is_not_asked_for_each_that_is_over_and_hears_of_all_in_the_end() {
    let mut world = World::new(0);
    let wrong = nine();
    let heard = RefCell::new(Vec::new());
    let take = |text: &str| {
        heard.borrow_mut().push(text.to_owned());
        Ok(())
    };
    let tell = |alerts: &Alerts, world: &World, send: &dyn Fn(&str) -> Result<(), String>| {
        alerts::tell(alerts, &mut world.store(), &world.locks(), world.now, send).unwrap();
    };
    tell(&wrong, &world, &take);
    for _ in 0..2 {
        world.advance(60);
        let tried = RefCell::new(0);
        let fail = |_: &str| {
            *tried.borrow_mut() += 1;
            Err("no answer".to_owned())
        };
        tell(&Alerts::default(), &world, &fail);
        assert_eq!(tried.into_inner(), 3);
    }
    heard.borrow_mut().clear();
    (0..2).for_each(|_| tell(&Alerts::default(), &world, &take));
    heard.borrow_mut().sort();
    let all: Vec<_> = (0..9).map(|n| format!("over: message {n}")).collect();
    assert_eq!(*heard.borrow(), all, "each once");
}

#[test]
fn a_silent_server_is_told_once() {
    let mut world = World::new(1);
    world.hub.open("dev1", false, world.now);
    world.minutes(3);
    world.advance(700);
    assert_snapshot!(all(&mut world, 3), @"server stg1 is silent since 2026-11-22 12:02 UTC; it serves #1");
    world.minutes(1);
    assert_snapshot!(all(&mut world, 1), @"over: server stg1 is silent since 2026-11-22 12:02 UTC; it serves #1");
}

#[test]
fn a_held_server_that_is_silent_is_no_news_and_no_end() {
    let mut world = World::new(1);
    world.hub.open("dev1", false, world.now);
    world.minutes(3);
    let hold = |world: &World| {
        world.operator(&mut world.store()).server_hold("stg1", "new disk", None).unwrap();
    };
    hold(&world);
    world.advance(700);
    assert_eq!(all(&mut world, 2), "");
    world.operator(&mut world.store()).server_release("stg1").unwrap();
    assert_snapshot!(all(&mut world, 1), @"server stg1 is silent since 2026-11-22 12:02 UTC; it serves #1");
    hold(&world);
    assert_eq!(all(&mut world, 2), "", "it is still silent");
    world.client_ticks(&Fuse::never(), |_| true);
    assert_snapshot!(all(&mut world, 1), @"over: server stg1 is silent since 2026-11-22 12:02 UTC; it serves #1");
}

#[test]
fn a_failure_is_told_with_the_page_that_explains_it() {
    let mut world = failed();
    world.report.console = Some("https://pullre.example".into());
    assert_snapshot!(all(&mut world, 1), @"the environment of #1 failed: its deployment failed (try 1): migrate: exit status 1 https://pullre.example/pull/1");
}

#[test]
fn a_server_that_is_silent_before_it_deploys_is_told_once_and_not_as_a_failure_too() {
    let mut world = World::new(1);
    world.hub.open("dev1", false, world.now);
    world.tick();
    world.settle_machines();
    world.advance(60);
    assert_snapshot!(all(&mut world, 25), @"server stg1 is silent since 2026-11-22 12:00 UTC; it serves #1");
}

//! What people ask for in comments.

use insta::assert_snapshot;
use pullre::ports::Reaction;
use pullre::reconcile::lock::LockName;
use pullre::stage::{Stage, standing};
use testkit::fuse::Fuse;
use testkit::world::World;

use super::{ONE, comment, ready};

fn stage(world: &World) -> Stage {
    let pull = world.store().pull(ONE).unwrap().unwrap();
    standing(&pull, &world.facts(), &world.policy, world.now).stage
}

/// Says it, and lets a tick hear it.
fn says(world: &mut World, login: &str, body: &str) -> Option<Reaction> {
    let id = world.hub.comment(ONE, login, body, world.now);
    world.tick();
    let told = world.hub.told();
    told.reactions.iter().find(|(comment, _)| *comment == id).map(|(_, reaction)| *reaction)
}

fn writable() -> World {
    let mut world = ready();
    world.hub.let_write("alice");
    world.advance(60);
    world
}

/// The answers in the one comment.
fn answers(world: &World) -> String {
    let comment = comment(world, ONE);
    let lines = comment.lines().filter(|line| line.starts_with("> "));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn redeploy_deploys_anew_in_the_same_tick() {
    let mut world = writable();
    assert_eq!(
        says(&mut world, "alice", "Again, please\n/pullre redeploy\n"),
        Some(Reaction::Done)
    );
    assert_eq!(stage(&world), Stage::Deploying);
    assert_snapshot!(answers(&world), @"> `/pullre redeploy` of `alice`, 2026-11-22 12:05 UTC: deployed again as soon as its staging client looks");
    let deployments = world.store().deployments_of(ONE, 10).unwrap().len();
    world.minutes(3);
    let after = world.store().deployments_of(ONE, 10).unwrap().len();
    assert_eq!(after, deployments, "obeyed once");
    assert_eq!(stage(&world), Stage::Ready);
}

#[test]
fn stop_gives_the_server_back_and_release_brings_it_back() {
    let mut world = writable();
    assert_eq!(says(&mut world, "alice", "/pullre stop"), Some(Reaction::Done));
    world.minutes(1);
    assert!(world.facts().assignments.is_empty(), "its server is free");
    assert_snapshot!(standing_of(&world), @"ineligible: it was stopped by alice (comment) 2026-11-22 12:05 UTC; `update-pull pull release 1` brings it back");
    assert_eq!(says(&mut world, "alice", "/pullre release"), Some(Reaction::Done));
    world.minutes(4);
    assert_eq!(stage(&world), Stage::Ready);
}

fn standing_of(world: &World) -> String {
    let pull = world.store().pull(ONE).unwrap().unwrap();
    let standing = standing(&pull, &world.facts(), &world.policy, world.now);
    format!("{}: {}", standing.stage, standing.why)
}

#[test]
fn a_stranger_is_refused_without_a_word() {
    let mut world = writable();
    assert_eq!(says(&mut world, "mallory", "/pullre stop"), Some(Reaction::Refused));
    world.minutes(2);
    assert_eq!(stage(&world), Stage::Ready);
    assert_eq!(answers(&world), "");
}

#[test]
fn what_is_not_understood_is_answered_with_what_there_is() {
    let mut world = writable();
    let confused = Some(Reaction::NotUnderstood);
    assert_eq!(says(&mut world, "alice", "/pullre dance @team"), confused);
    world.advance(60);
    assert_eq!(says(&mut world, "alice", "/pullre hold\n/pullre release"), confused);
    world.advance(60);
    assert_eq!(says(&mut world, "alice", "/pullre release"), confused);
    assert_snapshot!(answers(&world), @"
    > `/pullre dance @team` of `alice`, 2026-11-22 12:05 UTC: not understood; there are `redeploy`, `reset-db`, `hold`, `release`, `stop` and `explain`, without more words
    > `/pullre (several)` of `alice`, 2026-11-22 12:06 UTC: one command in a comment, please
    > `/pullre release` of `alice`, 2026-11-22 12:07 UTC: #{zero width}1 is neither held nor stopped
    ");
}

#[test]
fn explain_answers_in_the_one_comment() {
    let mut world = writable();
    assert_eq!(says(&mut world, "alice", "/pullre explain"), Some(Reaction::Done));
    let comment = comment(&world, ONE);
    assert!(comment.contains("stage   ready"), "{comment}");
}

#[test]
fn whoever_asks_about_an_excluded_pull_request_is_answered() {
    let mut world = World::new(1).speaks();
    world.policy.admission.skip_drafts = true;
    world.hub.let_write("alice");
    world.hub.open("dev1", false, world.now);
    world.hub.edit(ONE, world.now, |pull| pull.is_draft = true);
    world.minutes(1);
    assert_eq!(says(&mut world, "alice", "/pullre explain"), Some(Reaction::Done));
    let comment = comment(&world, ONE);
    assert!(comment.contains("stage   ineligible"), "{comment}");
}

#[test]
fn answers_fit_into_the_comment_and_the_oldest_go_first() {
    let world = writable();
    for n in 1..=3 {
        let text = format!("answer {n}\n{}", format!("{}\n", "z".repeat(499)).repeat(59));
        world.by_hand(&format!(
            "INSERT INTO comment_commands VALUES ({n}, 1, 'alice', 'explain', 'done', 0, '+1', '{text}')"
        ));
    }
    world.tick();
    let body = comment(&world, ONE);
    assert!(body.chars().count() <= 65_536, "{}", body.chars().count());
    assert!(body.contains("answer 3") && body.contains("answer 2") && !body.contains("answer 1"));
    assert!(body.ends_with("</sub>\n"));
}

#[test]
fn what_was_stored_and_not_done_for_a_day_is_not_done_any_more() {
    let world = writable();
    let long_ago = world.now.as_millisecond() - 25 * 3_600_000;
    world.by_hand(&format!(
        "INSERT INTO comment_commands VALUES (77, 1, 'alice', 'stop', 'new', {long_ago}, NULL, NULL)"
    ));
    world.tick();
    assert_eq!(stage(&world), Stage::Ready);
    assert_snapshot!(answers(&world), @"> `/pullre stop` of `alice`, 2026-11-22 12:05 UTC: not done: it was asked for more than a day ago; ask again");
}

#[test]
fn one_who_cannot_be_asked_about_keeps_no_other_command_from_being_done() {
    let mut world = writable();
    world.hub.never_know("bob");
    world.hub.comment(ONE, "bob", "/pullre stop", world.now);
    assert_eq!(says(&mut world, "alice", "/pullre hold"), Some(Reaction::Done));
    assert_eq!(stage(&world), Stage::Held);
}

#[test]
fn three_who_cannot_be_asked_about_are_one_trouble_with_github() {
    let mut world = writable();
    for login in ["bob", "Carl", "dora"] {
        world.hub.never_know(&login.to_lowercase());
        world.hub.comment(ONE, login, "/pullre stop", world.now);
    }
    assert_eq!(says(&mut world, "alice", "/pullre hold"), None, "it waits");
    assert!(world.facts().commands_trouble.unwrap().contains("502"));
    assert_eq!(stage(&world), Stage::Ready);
}

#[test]
fn one_who_could_not_be_asked_about_for_a_day_is_refused_without_a_word() {
    let world = writable();
    world.hub.never_know("bob");
    let long_ago = world.now.as_millisecond() - 25 * 3_600_000;
    world.by_hand(&format!(
        "INSERT INTO comment_commands VALUES (77, 1, 'bob', 'stop', 'new', {long_ago}, NULL, NULL)"
    ));
    world.tick();
    assert_eq!(world.hub.told().reactions, [(77, Reaction::Refused)]);
    assert_eq!(answers(&world), "");
    assert_eq!(stage(&world), Stage::Ready);
}

#[test]
fn what_needs_no_lock_waits_for_none() {
    let mut world = writable();
    // As a tick that copies for minutes.
    let held = world.locks().try_lock(&LockName::Environment(ONE)).unwrap().unwrap();
    assert_eq!(says(&mut world, "alice", "/pullre redeploy"), None, "it waits");
    world.advance(1);
    assert_eq!(says(&mut world, "alice", "/pullre explain"), Some(Reaction::Done));
    world.advance(1);
    assert_eq!(says(&mut world, "alice", "/pullre hold"), Some(Reaction::Done));
    assert_eq!(stage(&world), Stage::Held);
    drop(held);
}

#[test]
fn an_edited_comment_is_not_obeyed_again() {
    let mut world = writable();
    says(&mut world, "alice", "/pullre hold");
    world.minutes(1);
    assert_eq!(stage(&world), Stage::Held);
    world.operator(&mut world.store()).pull_release(ONE).unwrap();
    world.hub.edit(ONE, world.now, |_| {}); // As an edit of the comment does.
    world.minutes(2);
    assert_eq!(stage(&world), Stage::Ready);
}

#[test]
fn a_verb_is_understood_in_any_case() {
    let mut world = writable();
    assert_eq!(says(&mut world, "alice", "/Pullre HOLD"), Some(Reaction::Done));
    assert_eq!(stage(&world), Stage::Held);
    world.advance(60);
    says(&mut world, "alice", "/pullre");
    assert!(answers(&world).contains("`/pullre` of `alice`"), "{}", answers(&world));
}

#[test]
fn an_old_comment_that_is_edited_is_not_obeyed_even_when_it_was_forgotten() {
    let mut world = writable();
    let id = world.hub.comment(ONE, "alice", "/pullre hold", world.now);
    world.tick();
    assert_eq!(stage(&world), Stage::Held);
    world.operator(&mut world.store()).pull_release(ONE).unwrap();
    // As the history is, of a pull request that was closed for long and is opened again.
    world.by_hand("DELETE FROM comment_commands");
    world.advance(25 * 3600);
    world.minutes(2);
    world.hub.edit_comment(id, "/pullre hold it", world.now);
    world.tick();
    world.hub.edit_comment(id, "/pullre hold", world.now);
    world.tick();
    assert_eq!(stage(&world), Stage::Ready);
    assert_snapshot!(answers(&world), @"> `/pullre hold it` of `alice`, 2026-11-23 13:07 UTC: not done: it was asked for more than a day ago; ask again");
}

#[test]
fn what_is_asked_of_a_closed_pull_request_is_answered_and_not_done_later_either() {
    let mut world = writable();
    world.hub.close(ONE, world.now);
    world.minutes(2);
    let confused = Some(Reaction::NotUnderstood);
    assert_eq!(says(&mut world, "alice", "/pullre hold"), confused);
    world.advance(1);
    assert_eq!(says(&mut world, "mallory", "/pullre hold"), Some(Reaction::Refused));
    world.hub.reopen(ONE, world.now);
    world.minutes(4);
    assert_eq!(stage(&world), Stage::Ready);
}

#[test]
fn a_closed_one_that_is_held_is_released_by_a_comment() {
    let mut world = writable();
    world.operator(&mut world.store()).pull_hold(ONE, "", None).unwrap();
    world.hub.close(ONE, world.now);
    world.minutes(1);
    assert_eq!(world.facts().assignments.len(), 1, "held");
    assert_eq!(says(&mut world, "alice", "/pullre release"), Some(Reaction::Done));
    world.minutes(1);
    assert!(world.facts().assignments.is_empty());
}

#[test]
fn comments_that_may_not_be_read_are_heard_when_they_may() {
    let mut world = writable();
    world.hub.forbid("comments of all");
    world.hub.comment(ONE, "alice", "/pullre hold", world.now);
    world.minutes(1);
    let asked = world.hub.told().comments_read;
    world.minutes(3);
    assert_eq!(world.hub.told().comments_read, asked, "an idle tick does not ask");
    assert!(world.facts().commands_trouble.is_some());
    world.hub.permit("comments of all");
    world.hub.edit(ONE, world.now, |_| {});
    world.tick();
    assert_eq!(stage(&world), Stage::Held);
    assert_eq!(world.facts().commands_trouble, None);
}

#[test]
fn a_kill_at_any_operation_obeys_a_command_at_most_once_and_answers_it() {
    for operations in 0.. {
        let mut world = writable();
        let id = world.hub.comment(ONE, "alice", "/pullre redeploy", world.now);
        let before = world.store().deployments_of(ONE, 10).unwrap().len();
        let fuse = Fuse::after(operations);
        let _ = world.try_tick(&fuse);
        let killed = fuse.has_burnt();
        world.advance(60);
        world.minutes(2);
        world.advance(700);
        world.minutes(3);
        let made = world.store().deployments_of(ONE, 10).unwrap().len() - before;
        assert!(made <= 1, "killed after {operations}: {made} deployments");
        let told = world.hub.told();
        let reactions = told.reactions.iter().filter(|(comment, _)| *comment == id).count();
        assert_eq!(reactions, 1, "killed after {operations}");
        assert_eq!(stage(&world), Stage::Ready);
        if !killed {
            assert_eq!(made, 1);
            return;
        }
    }
}

#[test]
fn two_controllers_obey_once() {
    let world = writable();
    world.hub.comment(ONE, "alice", "/pullre redeploy", world.now);
    let before = world.store().deployments_of(ONE, 10).unwrap().len();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| world.tick());
        }
    });
    let made = world.store().deployments_of(ONE, 10).unwrap().len() - before;
    assert_eq!(made, 1);
}

#[test]
fn what_was_asked_for_while_we_were_silent_is_not_done_later() {
    let mut world = writable();
    world.report.report = false;
    says(&mut world, "alice", "/pullre hold");
    world.advance(60);
    world.report.report = true;
    world.minutes(2);
    assert_eq!(stage(&world), Stage::Ready);
}

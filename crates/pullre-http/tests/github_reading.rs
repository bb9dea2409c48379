//! What is read of GitHub, over ticks between which the world changes.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use pullre::config::{GithubLogin, Secret};
use pullre::domain::{Login, PullNumber, PullState};
use pullre::ports::{Forge, ForgeError};
use pullre_http::github::GitHub;
use support::{Setup, numbers};
use testkit::github::{FakeGithubOptions, Fault, PullSpec};

const SHA: &str = "a18f320b1462576f00e4135b7913b0151f090d4d";

#[test]
fn every_one_of_250_pull_requests_is_read() {
    let mut setup = Setup::new();
    setup.open_many(250);
    let reading = setup.tick();
    assert_eq!(numbers(&reading), (1..=250).collect::<Vec<_>>());
    assert!(reading.mark.unwrap().whole);
    assert_eq!(
        setup.asked(),
        [
            "pulls?updates -> 200",
            "pulls?open -> 200",
            "pulls?open&page=2 -> 200",
            "pulls?open&page=3 -> 200",
            "pulls?updates if-none-match -> 304",
        ]
    );
}

#[test]
fn an_idle_tick_costs_one_conditional_request_and_nothing_of_the_rate_limit() {
    let mut setup = Setup::new();
    setup.open_many(250);
    setup.tick();
    setup.asked();
    let before = setup.fake.rate_remaining();
    for _ in 0..3 {
        let reading = setup.tick();
        assert_eq!(reading, pullre::ports::PullReading::default());
        assert_eq!(setup.asked(), ["pulls?updates if-none-match -> 304"]);
    }
    assert_eq!(setup.fake.rate_remaining(), before);
}

#[test]
fn a_push_is_read_by_the_next_tick_and_then_it_is_idle_again() {
    let mut setup = Setup::new();
    setup.open_many(3);
    setup.tick();
    setup.fake.change(|world| world.push(2, SHA));
    setup.asked();
    setup.tick();
    assert_eq!(setup.store.head(2), SHA);
    assert_eq!(setup.asked(), ["pulls?updates if-none-match -> 200"]);
    setup.tick();
    assert_eq!(setup.asked(), ["pulls?updates if-none-match -> 304"]);
}

#[test]
fn a_second_push_within_the_same_second_is_read_too() {
    let mut setup = Setup::new();
    setup.open_many(3);
    setup.fake.change(|world| world.push(2, &"b".repeat(40)));
    setup.tick();
    setup.fake.change(|world| world.push(2, SHA));
    setup.tick();
    assert_eq!(setup.store.head(2), SHA);
}

#[test]
fn after_a_long_absence_the_updates_are_read_page_by_page() {
    let mut setup = Setup::new();
    setup.open_many(350);
    setup.tick();
    setup.asked();
    setup.fake.change(|world| {
        for number in 1..=230 {
            world.advance(60);
            world.close(number);
        }
    });
    setup.tick();
    assert!((1..=230).all(|number| !setup.store.is_open(number)));
    assert!((231..=350).all(|number| setup.store.is_open(number)));
    assert_eq!(setup.asked().len(), 3);
}

#[test]
fn what_changes_while_pages_are_read_is_not_lost() {
    for seconds in [0, 1] {
        let mut setup = Setup::new();
        setup.open_many(250);
        setup.tick();
        setup.fake.change(|world| {
            for number in 1..=250 {
                world.advance(2);
                world.label(number, "seen");
            }
        });
        // Number 10 stands on the third page; it jumps to the first when that was read.
        setup.fake.change_after(1, move |world| {
            world.advance(seconds);
            world.push(10, SHA);
        });
        setup.tick();
        setup.tick();
        assert_eq!(setup.store.head(10), SHA, "after {seconds} s");
        let labelled = |number| !setup.store.pulls[&PullNumber(number)].labels.is_empty();
        assert!((1..=250).all(labelled));
    }
}

#[test]
fn many_changes_within_a_minute_hide_no_further_one_behind_a_304() {
    let mut setup = Setup::new();
    setup.fake.change(|world| {
        for _ in 0..150 {
            world.open(PullSpec::default());
        }
    });
    setup.tick();
    setup.tick();
    // In the same second, number 1 stays last of all, on the second page: the first one is as it was.
    setup.fake.change(|world| world.push(1, SHA));
    setup.tick();
    assert_eq!(setup.store.head(1), SHA);
    // Once time has passed and something moves, idle ticks are cheap again.
    setup.fake.change(|world| {
        for number in 1..=120 {
            world.advance(60);
            world.label(number, "later");
        }
    });
    setup.tick();
    setup.asked();
    setup.tick();
    assert_eq!(setup.asked(), ["pulls?updates if-none-match -> 304"]);
}

#[test]
fn a_change_that_shows_up_some_seconds_late_is_read_even_from_the_second_page() {
    let mut setup = Setup::new();
    setup.fake.change(|world| {
        for _ in 0..150 {
            world.open(PullSpec::default());
        }
        world.advance(10);
        world.label(150, "newest");
    });
    setup.tick();
    setup.fake.change(|world| world.push_late(1, SHA, 15));
    setup.tick();
    assert_eq!(setup.store.head(1), SHA);
}

#[test]
fn one_closed_while_the_open_list_is_read_hides_no_other() {
    let mut setup = Setup::new();
    setup.open_many(250);
    // When the first page of the open list was read, number 101 slips onto it.
    setup.fake.change_after(2, |world| {
        world.advance(60);
        world.close(1);
    });
    let reading = setup.tick();
    assert!(reading.mark.unwrap().whole);
    assert!((2..=250).all(|number| setup.store.is_open(number)));
    assert!(!setup.store.is_open(1));
}

#[test]
fn what_cannot_have_moved_the_open_list_costs_no_second_reading_of_it() {
    // A single page is of one moment.
    let mut setup = Setup::new();
    setup.open_many(3);
    setup.fake.change_after(2, |world| world.close(1));
    setup.tick();
    assert!(!setup.store.is_open(1) && setup.store.is_open(3));
    assert_eq!(setup.asked().len(), 3);

    // One that was closed long ago is only talked about.
    let mut setup = Setup::new();
    setup.open_many(1);
    setup.fake.change(|world| world.close(1));
    setup.open_many(120);
    setup.fake.change_after(2, |world| world.label(1, "old"));
    setup.tick();
    assert_eq!(setup.asked().len(), 4);
}

#[test]
fn an_open_list_that_never_stands_still_is_not_called_whole() {
    let mut setup = Setup::new();
    setup.open_many(250);
    for pass in 0..3 {
        setup.fake.change_after(2 + pass * 4, move |world| {
            world.advance(60);
            world.close(u32::try_from(pass).unwrap() + 1);
        });
    }
    let reading = setup.tick();
    assert!(!reading.mark.unwrap().whole);
    assert!(setup.whole_tick().mark.unwrap().whole);
    assert!((4..=250).all(|number| setup.store.is_open(number)));
}

#[test]
fn one_opened_or_changed_during_the_first_reading_is_in_it() {
    let mut setup = Setup::new();
    setup.open_many(120);
    setup.fake.change_after(3, |world| {
        world.advance(60);
        world.open(PullSpec::default());
        world.push(7, SHA);
    });
    setup.tick();
    assert!(setup.store.is_open(121));
    assert_eq!(setup.store.head(7), SHA);
    setup.asked();
    setup.tick();
    assert_eq!(setup.asked(), ["pulls?updates if-none-match -> 304"]);
}

#[test]
fn one_closed_while_we_were_down_is_noticed_by_the_updates() {
    let mut setup = Setup::new();
    setup.open_many(3);
    setup.tick();
    setup.fake.change(|world| {
        world.close(1);
        world.merge(2);
        world.advance(86_400);
    });
    setup.tick();
    assert!(!setup.store.is_open(1) && !setup.store.is_open(2) && setup.store.is_open(3));
    assert!(setup.store.pulls[&PullNumber(2)].closed_at.is_some());
    setup.fake.change(|world| world.reopen(1));
    setup.tick();
    assert!(setup.store.is_open(1));
}

#[test]
fn one_closed_that_the_updates_do_not_reach_is_asked_for_by_itself() {
    let mut setup = Setup::new();
    setup.open_many(1);
    setup.tick();
    setup.fake.change(|world| world.close(1));
    setup.open_many(120);
    // As after an import that knows the rows but not how far they were read.
    setup.store.watermark = None;
    setup.asked();
    setup.tick();
    assert!(!setup.store.is_open(1));
    assert!(setup.asked().contains(&"pulls/1 -> 200".to_owned()));
}

#[test]
fn a_deleted_one_is_gone_at_the_next_whole_reading() {
    let mut setup = Setup::new();
    setup.open_many(3);
    setup.tick();
    setup.fake.change(|world| world.delete(2));
    assert_eq!(setup.tick().gone, []);
    let reading = setup.whole_tick();
    assert_eq!(reading.gone, [PullNumber(2)]);
    assert_eq!(numbers(&reading), [1, 3]);
}

#[test]
fn a_repository_that_becomes_invisible_does_not_make_pull_requests_gone() {
    let mut setup = Setup::new();
    setup.open_many(3);
    setup.tick();
    setup.fake.change(|world| world.delete(2));
    // The lists are still answered; the single one is not.
    setup.fake.change_after(2, |world| world.set_visible(false));
    let err = setup.read(true).unwrap_err();
    assert_eq!(err, ForgeError::NoRepository("acme/shop".to_owned()));
}

#[test]
fn deleted_accounts_and_repositories_and_empty_bodies_are_read() {
    let mut setup = Setup::new();
    setup.fake.change(|world| {
        world.open(PullSpec::default());
        world.delete_author(1);
        world.open(PullSpec {
            fork: Some("bob/shop".to_owned()),
            body: Some("why\nand how".to_owned()),
            ..PullSpec::default()
        });
        world.delete_head_repo(2);
    });
    setup.tick();
    let [one, two] = [1, 2].map(|n| &setup.store.pulls[&PullNumber(n)]);
    assert_eq!((&one.author, one.body.as_str()), (&None, ""));
    assert_eq!((&two.head_repo, two.is_fork), (&None, true));
    assert_eq!(two.body, "why\nand how");
}

#[test]
fn an_account_that_goes_without_an_update_is_noticed_as_long_as_the_first_page_shows_it() {
    let mut setup = Setup::new();
    setup.open_many(5);
    setup.tick();
    setup.fake.change(|world| world.delete_author(1));
    setup.tick();
    assert_eq!(setup.store.pulls[&PullNumber(1)].author, None);
}

#[test]
fn forks_are_told_from_our_own_branches() {
    let mut setup = Setup::new();
    setup.fake.change(|world| {
        for fork in [None, Some("bob/shop"), Some("Acme/SHOP")] {
            world.open(PullSpec { fork: fork.map(str::to_owned), ..PullSpec::default() });
        }
    });
    setup.tick();
    let is_fork = |n| setup.store.pulls[&PullNumber(n)].is_fork;
    assert_eq!([1, 2, 3].map(is_fork), [false, true, false]);
}

#[test]
fn everything_that_is_said_of_a_pull_request_arrives() {
    let mut setup = Setup::new();
    setup.fake.change(|world| {
        world.open(PullSpec {
            title: "Größe".to_owned(),
            author: "Carol".to_owned(),
            sha: Some(SHA.to_uppercase()),
            head_ref: Some("fix/ü".to_owned()),
            base: "release".to_owned(),
            draft: true,
            labels: vec!["staging".to_owned(), "db".to_owned()],
            ..PullSpec::default()
        })
    });
    setup.tick();
    let pull = &setup.store.pulls[&PullNumber(1)];
    assert_eq!(pull.title, "Größe");
    assert_eq!(pull.author, Some(Login("carol".to_owned())));
    assert_eq!(pull.head.as_str(), SHA);
    assert_eq!((pull.head_ref.as_str(), pull.base_ref.as_str()), ("fix/ü", "release"));
    assert_eq!(pull.head_repo.as_deref(), Some("acme/shop"));
    assert!(pull.is_draft && pull.state == PullState::Open);
    assert_eq!(pull.labels, ["staging", "db"]);
    assert_eq!(pull.created_at.to_string(), "2026-01-05T09:00:00Z");
}

#[test]
fn a_renamed_repository_is_read_under_its_former_name() {
    let mut setup = Setup::new();
    setup.open_many(120);
    setup.fake.change(|world| world.rename_repo("store"));
    setup.tick();
    assert_eq!(setup.store.pulls.len(), 120);
    assert!(setup.store.pulls.values().all(|pull| !pull.is_fork));
    setup.asked();
    setup.tick();
    let asked = setup.asked();
    assert_eq!(asked.last().unwrap(), "pulls?updates if-none-match -> 304");
}

#[test]
fn the_first_pull_request_of_an_empty_repository_is_found() {
    let mut setup = Setup::new();
    let reading = setup.tick();
    assert!(reading.pulls.is_empty() && reading.mark.unwrap().whole);
    setup.asked();
    setup.tick();
    assert_eq!(setup.asked(), ["pulls?updates if-none-match -> 304"]);
    setup.open_many(1);
    setup.tick();
    assert!(setup.store.is_open(1));
}

#[test]
fn an_emptied_or_restored_store_sends_no_etag() {
    let mut setup = Setup::new();
    setup.open_many(3);
    setup.tick();
    let backup = setup.store.known(false);
    setup.fake.change(|world| world.push(2, SHA));
    setup.tick();
    setup.asked();

    let reading = setup.github().read_pulls(&backup).unwrap();
    assert_eq!(setup.asked(), ["pulls?updates -> 200"]);
    assert!(reading.pulls.iter().any(|pull| pull.head.as_str() == SHA));

    setup.store = support::Store::default();
    setup.tick();
    assert_eq!(setup.store.pulls.len(), 3);
    assert_eq!(setup.asked()[0], "pulls?updates -> 200");
}

#[test]
fn a_crash_between_reading_and_remembering_loses_nothing() {
    let mut setup = Setup::new();
    setup.open_many(3);
    setup.tick();
    setup.fake.change(|world| world.push(2, SHA));
    // Read, but not stored.
    setup.read(false).unwrap();
    let again = setup.read(false).unwrap();
    assert!(again.pulls.iter().any(|pull| pull.head.as_str() == SHA));
    // Stored, but not remembered.
    setup.store.keep(&again);
    setup.fake.change(|world| world.close(3));
    setup.tick();
    assert!(!setup.store.is_open(3));
    assert_eq!(setup.store.head(2), SHA);
}

#[test]
fn a_damaged_or_missing_etag_file_costs_one_unconditional_request() {
    let mut setup = Setup::new();
    setup.open_many(3);
    setup.tick();
    let file = setup.dir.path().join("state/github-etag.json");
    let good = fs::read_to_string(&file).unwrap();
    let star = serde_json::from_str::<serde_json::Value>(&good).map(|mut stored| {
        stored["etag"] = "*".into();
        stored.to_string()
    });
    for damage in ["", "{", "[]", &good[..good.len() / 2], &star.unwrap()] {
        fs::write(&file, damage).unwrap();
        setup.asked();
        setup.tick();
        assert_eq!(setup.asked(), ["pulls?updates -> 200"], "{damage:?}");
        setup.tick();
        assert_eq!(setup.asked(), ["pulls?updates if-none-match -> 304"]);
    }
    fs::remove_file(&file).unwrap();
    setup.tick();
    assert_eq!(setup.asked(), ["pulls?updates -> 200"]);
}

#[test]
fn an_etag_is_for_one_token_and_its_file_for_one_user_and_without_the_token() {
    let mut setup = Setup::new();
    setup.open_many(3);
    setup.tick();
    let state = setup.dir.path().join("state");
    let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(state.clone()), 0o700);
    let files: Vec<_> = fs::read_dir(&state).unwrap().map(|f| f.unwrap().path()).collect();
    // The ETag, and what is left of the rate limit.
    assert_eq!(files.len(), 2, "{files:?}");
    for file in files {
        assert_eq!(mode(file.clone()), 0o600, "{file:?}");
        let text = fs::read_to_string(&file).unwrap();
        assert!(!text.contains(&setup.fake.token()), "{file:?}");
    }

    setup.fake.set_token("ghp_another");
    setup.asked();
    let mut access = setup.access();
    access.login = GithubLogin::Token(Secret::new("ghp_another"));
    let github = GitHub::new(access).unwrap();
    github.read_pulls(&setup.store.known(false)).unwrap();
    assert_eq!(setup.asked(), ["pulls?updates -> 200"]);
}

#[test]
fn github_enterprise_is_read_below_its_prefix() {
    let mut setup = Setup::with_options(FakeGithubOptions {
        prefix: "/api/v3".to_owned(),
        ..FakeGithubOptions::default()
    });
    setup.open_many(130);
    setup.tick();
    assert_eq!(setup.store.pulls.len(), 130);
    let mut access = setup.access();
    access.api_url.push('/');
    setup.asked();
    let github = GitHub::new(access).unwrap();
    github.read_pulls(&setup.store.known(false)).unwrap();
    assert_eq!(setup.asked(), ["pulls?updates if-none-match -> 304"]);
}

#[test]
fn without_etags_all_is_read_each_time() {
    let mut setup = Setup::new();
    setup.open_many(130);
    setup.fake.fail_always(Fault::NoEtag);
    let reading = setup.tick();
    assert!(reading.mark.unwrap().whole);
    assert_eq!(setup.store.pulls.len(), 130);
    setup.fake.change(|world| world.push(5, SHA));
    setup.tick();
    assert_eq!(setup.store.head(5), SHA);
}

#[test]
fn a_watermark_from_the_future_is_put_right_by_a_whole_reading() {
    let mut setup = Setup::new();
    setup.open_many(150);
    setup.store.watermark = Some("2050-01-01T00:00:00Z".parse().unwrap());
    setup.whole_tick();
    // More than the one page that such a watermark would read.
    setup.fake.change(|world| {
        for number in 1..=150 {
            world.push(number, SHA);
        }
    });
    setup.tick();
    assert!((1..=150).all(|number| setup.store.head(number) == SHA));
}

//! How GitHub's refusals and failures are told.
#![allow(clippy::unwrap_used)]

mod support;

use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use pullre::config::{GithubLogin, Secret};
use pullre::ports::{Forge, ForgeError, KnownPulls};
use pullre_http::github::GitHub;
use support::Setup;
use testkit::github::{FakeGithub, Fault, PullSpec};

fn failing(fault: Fault) -> (Setup, ForgeError) {
    let setup = Setup::new();
    setup.open_many(3);
    setup.fake.fail_always(fault);
    let err = setup.read(false).unwrap_err();
    (setup, err)
}

fn malformed(err: ForgeError) -> String {
    match err {
        ForgeError::Malformed(text) => text,
        other => panic!("{other:?}"),
    }
}

#[test]
fn refused_credentials_are_told_at_once_and_name_the_remedy() {
    let setup = Setup::new();
    setup.fake.set_token("ghp_renewed");
    let mut access = setup.access();
    access.login = GithubLogin::Token(Secret::new("ghp_old"));
    let github = GitHub::new(access).unwrap();
    let err = github.read_pulls(&KnownPulls::default()).unwrap_err();
    assert_eq!(err, ForgeError::Unauthorized);
    assert!(err.to_string().contains("`token`"));
    assert_eq!(setup.asked().len(), 1);
}

#[test]
fn an_unknown_repository_is_named() {
    let setup = Setup::new();
    setup.fake.change(|world| world.set_visible(false));
    let err = setup.read(false).unwrap_err();
    assert_eq!(err, ForgeError::NoRepository("acme/shop".to_owned()));
    assert_eq!(setup.asked().len(), 1);
}

#[test]
fn a_plain_403_carries_githubs_reason_fit_for_a_log() {
    let reason = format!("Resource not\n\u{1b}[31m accessible {}", "x".repeat(1000));
    let (_, err) = failing(Fault::Forbidden(reason));
    let ForgeError::Forbidden(text) = err else {
        panic!("{err:?}");
    };
    assert!(text.starts_with("Resource not[31m accessible xxx"));
    assert!(text.chars().count() <= 201);
}

#[test]
fn a_used_up_rate_limit_is_kept_by_the_next_process_without_a_request() {
    let setup = Setup::new();
    setup.open_many(3);
    setup.fake.set_rate_remaining(0);
    let err = setup.read(false).unwrap_err();
    let ForgeError::RateLimited { until } = err else {
        panic!("{err:?}");
    };
    let left = until.duration_since(Timestamp::now());
    assert!(left > SignedDuration::from_mins(50) && left < SignedDuration::from_mins(70));
    assert_eq!(setup.asked().len(), 1);

    setup.fake.set_rate_remaining(5000);
    assert_eq!(setup.read(false).unwrap_err(), ForgeError::RateLimited { until });
    assert_eq!(setup.asked(), [] as [&str; 0]);

    // Another token has a limit of its own.
    setup.fake.set_token("ghp_another");
    setup.read(false).unwrap();
}

#[test]
fn what_is_left_of_the_rate_limit_is_kept_in_large_steps_and_never_by_an_idle_tick() {
    let mut setup = Setup::new();
    setup.open_many(3);
    let left = |setup: &Setup, now| setup.github().rate_left(now).map(|left| left.remaining);
    assert_eq!(left(&setup, Timestamp::now()), None);
    setup.tick();
    setup.tick();
    let first = left(&setup, Timestamp::now()).unwrap();
    assert!((4950..5000).contains(&first), "{first}");
    setup.asked();

    // An idle tick costs nothing and writes nothing, whatever the others took meanwhile.
    setup.fake.set_rate_remaining(1000);
    let file = setup.dir.path().join("state/github-rate-left.json");
    // Each time it is another file that is moved into its place: no clock's step hides that.
    let written =
        || std::fs::metadata(&file).map(|found| (found.ino(), found.ctime_nsec())).unwrap();
    let before = written();
    setup.tick();
    assert_eq!(setup.asked(), ["pulls?updates if-none-match -> 304"]);
    assert_eq!((left(&setup, Timestamp::now()), written()), (Some(first), before));

    setup.whole_tick();
    let second = left(&setup, Timestamp::now()).unwrap();
    assert!((990..1000).contains(&second), "{second}");
    let before = written();
    setup.whole_tick();
    assert_eq!(written(), before, "a request or two is no news");

    // Later all of it is there again, though nobody has asked.
    let later = Timestamp::now() + SignedDuration::from_hours(2);
    assert_eq!(left(&setup, later), Some(5000));
    // Another token has a limit of its own.
    setup.fake.set_token("ghp_another");
    assert_eq!(left(&setup, Timestamp::now()), None);
}

#[test]
fn retry_after_is_kept_for_403_and_429_alike() {
    for status in [403, 429] {
        let (setup, err) = failing(Fault::RetryAfter { status, seconds: 600 });
        let ForgeError::RateLimited { until } = err else {
            panic!("{err:?}");
        };
        let left = until.duration_since(Timestamp::now());
        assert!(left > SignedDuration::from_mins(8) && left < SignedDuration::from_mins(12));
        setup.fake.heal();
        setup.asked();
        setup.read(false).unwrap_err();
        assert_eq!(setup.asked(), [] as [&str; 0]);
    }
}

#[test]
fn a_rate_limit_that_is_over_is_asked_again() {
    let (setup, err) = failing(Fault::RateLimited { reset_in: 0 });
    assert!(matches!(err, ForgeError::RateLimited { .. }));
    setup.fake.heal();
    assert_eq!(setup.read(false).unwrap().pulls.len(), 3);
}

#[test]
fn a_rate_limit_never_lasts_for_years() {
    let (_, err) = failing(Fault::RateLimited { reset_in: 1 << 40 });
    let ForgeError::RateLimited { until } = err else {
        panic!("{err:?}");
    };
    assert!(until.duration_since(Timestamp::now()) <= SignedDuration::from_hours(2));
}

#[test]
fn a_429_without_a_time_is_left_alone_for_a_minute() {
    let (_, err) = failing(Fault::Status(429));
    assert!(matches!(err, ForgeError::RateLimited { .. }), "{err:?}");
}

#[test]
fn what_passes_is_asked_three_times() {
    for fault in [500, 502, 503].map(Fault::Status).into_iter().chain([Fault::CutBody]) {
        let setup = Setup::new();
        setup.open_many(3);
        setup.fake.fail_times(2, fault.clone());
        let reading = setup.read(false).unwrap();
        assert_eq!(reading.pulls.len(), 3, "{fault:?}");

        setup.fake.fail_always(fault.clone());
        setup.asked();
        let err = setup.read(false).unwrap_err();
        assert!(matches!(err, ForgeError::Unavailable(_)), "{fault:?}: {err:?}");
        assert_eq!(setup.asked().len(), 3);
    }
    let (_, err) = failing(Fault::Status(502));
    assert_eq!(
        err.to_string(),
        "GitHub cannot be read now: it answers 502 Bad Gateway; the next tick tries again"
    );
}

#[test]
fn a_server_that_is_too_slow_times_out() {
    let setup = Setup::new();
    // The right answer would come in the end: only our own time-out can make this fail.
    setup.fake.fail_always(Fault::Delay(Duration::from_secs(2)));
    let mut access = setup.access();
    access.timings.request = Duration::from_millis(100);
    let github = GitHub::new(access).unwrap();
    let err = github.read_pulls(&KnownPulls::default()).unwrap_err();
    assert_eq!(err, ForgeError::Unavailable("no answer in time".to_owned()));
}

#[test]
fn nobody_listening_is_said() {
    let setup = Setup::new();
    let mut access = setup.access();
    access.api_url = "http://127.0.0.1:1".to_owned();
    let err = GitHub::new(access).unwrap().read_pulls(&KnownPulls::default()).unwrap_err();
    assert_eq!(err, ForgeError::Unavailable("the connection is refused".to_owned()));
}

#[test]
fn a_failure_in_the_middle_fails_the_whole_reading() {
    let setup = Setup::new();
    setup.open_many(250);
    for fault in [Fault::Delay(Duration::ZERO), Fault::Delay(Duration::ZERO)] {
        setup.fake.fail_next(fault);
    }
    setup.fake.fail_times(3, Fault::Status(500));
    let err = setup.read(false).unwrap_err();
    assert!(matches!(err, ForgeError::Unavailable(_)));
}

#[test]
fn what_is_no_json_is_malformed() {
    for body in ["<html>down for maintenance</html>", "", "{\"pulls\": []}", "[{"] {
        let (setup, err) = failing(Fault::Body(body.to_owned()));
        let text = malformed(err);
        assert!(text.starts_with("not a list of pull requests"), "{text}");
        assert_eq!(setup.asked().len(), 1, "asking again would not help");
    }
}

#[test]
fn a_single_malformed_pull_request_is_named() {
    let setup = Setup::new();
    setup.open_many(3);
    setup.fake.change(|world| {
        world.open(PullSpec { sha: Some("--upload-pack=x".to_owned()), ..PullSpec::default() })
    });
    let text = malformed(setup.read(false).unwrap_err());
    assert!(text.starts_with("pull request #4: \"--upload-pack=x\" is not"), "{text}");

    let (_, err) = failing(Fault::Body("[{\"number\": 7, \"state\": \"open\"}]".to_owned()));
    assert_eq!(malformed(err), "pull request #7: missing field `title`");
}

#[test]
fn the_credentials_follow_neither_a_redirect_nor_a_next_page_to_another_place() {
    let other = FakeGithub::start();
    let elsewhere = format!("{}/repos/acme/shop/pulls?page=2", other.url());
    for fault in [Fault::Redirect(elsewhere.clone()), Fault::NextPage(elsewhere)] {
        let (_, err) = failing(fault);
        let text = malformed(err);
        assert!(text.contains("github_api_url"), "{text}");
    }
    assert_eq!(other.take_requests(), []);
}

#[test]
fn redirects_in_circles_come_to_an_end() {
    let setup = Setup::new();
    let here = format!("{}/repos/acme/shop/pulls", setup.fake.url());
    setup.fake.fail_always(Fault::Redirect(here));
    let text = malformed(setup.read(false).unwrap_err());
    assert_eq!(text, "it redirects in circles");
    assert!(setup.asked().len() < 10);
}

#[test]
fn a_page_without_end_is_not_read_to_its_end() {
    let (_, err) = failing(Fault::Body(" ".repeat((32 << 20) + 1)));
    assert_eq!(malformed(err), "more than 32 MiB for one page");
}

#[test]
fn an_answer_about_another_pull_request_is_not_taken() {
    let mut setup = Setup::new();
    setup.open_many(2);
    setup.tick();
    let known = setup.store.known(true);
    setup.fake.change(|world| world.delete(1));
    for _ in 0..2 {
        setup.fake.fail_next(Fault::Delay(Duration::ZERO));
    }
    let two = serde_json::json!({
        "number": 2, "state": "open", "title": "", "created_at": "2026-01-01T00:00:00Z",
        "updated_at": "2026-01-01T00:00:00Z",
        "head": { "ref": "x", "sha": "0".repeat(40), "repo": null },
        "base": { "ref": "main", "sha": "0".repeat(40) },
    });
    setup.fake.fail_next(Fault::Body(two.to_string()));
    let text = malformed(setup.github().read_pulls(&known).unwrap_err());
    assert_eq!(text, "asked for pull request #1, got #2");
}

#[test]
fn the_token_is_in_no_debug_and_in_no_error() {
    let setup = Setup::new();
    let token = setup.fake.token();
    let mut shown = vec![format!("{:?}", setup.access())];
    let github = setup.github();
    setup.open_many(1);
    for fault in [
        Fault::Unauthorized,
        Fault::Forbidden("no".to_owned()),
        Fault::Status(500),
        Fault::CutBody,
        Fault::Body("{".to_owned()),
        Fault::Redirect("http://localhost:1/".to_owned()),
        Fault::RateLimited { reset_in: 0 },
    ] {
        setup.fake.fail_always(fault);
        let err = github.read_pulls(&KnownPulls::default()).unwrap_err();
        shown.push(format!("{err} {err:?}"));
    }
    shown.push(format!("{github:?}"));
    let mut access = setup.access();
    access.login = GithubLogin::Token(Secret::new(format!("{token}\n")));
    shown.push(format!("{:?}", GitHub::new(access).unwrap_err()));
    for text in shown {
        assert!(!text.contains(&token), "{text}");
    }
}

#[test]
fn what_cannot_be_asked_is_refused_at_the_door() {
    let setup = Setup::new();
    let with_url = |url: &str| {
        let mut access = setup.access();
        access.api_url = url.to_owned();
        GitHub::new(access)
    };
    for bad in ["", "api.github.com", "ftp://x", "http://bob:hunter2@x", "http://x/?y", "http://"] {
        let err = with_url(bad).unwrap_err();
        assert!(!err.to_string().contains("hunter2"), "{err}");
    }
    for bad in ["", ".", "..", "a/b", "a?b", "ä"] {
        let mut access = setup.access();
        access.repo = bad.to_owned();
        GitHub::new(access).unwrap_err();
    }
    let mut access = setup.access();
    access.login = GithubLogin::Token(Secret::new(""));
    GitHub::new(access).unwrap_err();
}

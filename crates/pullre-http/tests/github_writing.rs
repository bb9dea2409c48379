//! What is written on GitHub: exactly what is sent, who may, and what a fault leaves behind.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use insta::assert_snapshot;
use jiff::Timestamp;
use pullre::config::{GithubLogin, Secret};
use pullre::domain::{Login, PullNumber, Sha};
use pullre::ports::{
    CheckRun, CheckState, CommitStatus, DeploymentStatus, Find, Forge, ForgeError, Post, PostError,
    Reaction,
};
use pullre_http::github::{GitHub, GitHubAccess};
use support::Setup;
use testkit::github::{Fault, PullSpec};

const ONE: PullNumber = PullNumber(1);
const MARK: &str = "<!-- pullre:1 -->";

fn key(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/keys").join(name)
}

/// A repository with one pull request, and an App in it that may do everything.
fn setup() -> (Setup, Sha) {
    let setup = Setup::new();
    let sha = setup.fake.change(|world| {
        let all = ["checks", "issues", "pull_requests", "deployments", "statuses"];
        world.install_app(7, 70, &all);
        let sha = world.fresh_sha();
        world.open(PullSpec { sha: Some(sha.clone()), ..PullSpec::default() });
        sha
    });
    (setup, sha.parse().unwrap())
}

fn app_access(setup: &Setup) -> GitHubAccess {
    let private_key = key("pkcs1.pem");
    GitHubAccess {
        login: GithubLogin::App { id: 7, installation: 70, private_key },
        ..setup.access()
    }
}

fn app(setup: &Setup) -> GitHub {
    GitHub::new(app_access(setup)).unwrap()
}

fn run(head: &Sha, state: CheckState) -> CheckRun {
    CheckRun {
        name: "pullre".into(),
        head: head.clone(),
        external_id: format!("1:{head}"),
        state,
        title: "Ready on stg1".into(),
        summary: "It works.".into(),
        text: None,
        details_url: Some("https://stg1.example/".into()),
        started_at: None,
        completed_at: None,
    }
}

fn comment(id: Option<i64>, body: &str) -> Post {
    Post::Comment { id, number: ONE, body: format!("{MARK}\n{body}") }
}

/// The writes since the last look, with what was sent.
fn sent(setup: &Setup) -> String {
    let writes = setup.fake.take_requests().into_iter().filter(|r| r.method != "GET");
    writes.map(|r| format!("{r} {}\n", r.body)).collect()
}

fn at(text: &str) -> Option<Timestamp> {
    Some(text.parse().unwrap())
}

#[test]
fn everything_that_is_said_in_the_words_that_github_takes() {
    let (setup, head) = setup();
    let github = app(&setup);
    let queued = run(&head, CheckState::Queued);
    let id = github.post(&Post::CheckRun { id: None, run: queued }).unwrap();
    let mut done = run(&head, CheckState::Success);
    done.text = Some("```text\nall\n```".into());
    done.started_at = at("2026-01-05T09:00:00.123Z");
    done.completed_at = at("2026-01-05T09:01:00Z");
    assert_eq!(github.post(&Post::CheckRun { id: Some(id), run: done }), Ok(id));
    let status = CommitStatus {
        context: "pullre".into(),
        state: "pending",
        description: "Starting stg1".into(),
        target_url: None,
    };
    github.post(&Post::Status { head: head.clone(), status }).unwrap();
    let comment_id = github.post(&comment(None, "hello")).unwrap();
    github.post(&comment(Some(comment_id), "hello again")).unwrap();
    let reaction = Post::Reaction { comment: comment_id, reaction: Reaction::NotUnderstood };
    github.post(&reaction).unwrap();
    github.post(&reaction).unwrap();
    let deployment = Post::Deployment {
        head: head.clone(),
        environment: "pr-1".into(),
        description: "Staging of #1".into(),
    };
    let deployment = github.post(&deployment).unwrap();
    let status = DeploymentStatus {
        state: "success",
        description: "Ready on stg1".into(),
        environment_url: Some("https://stg1.example/".into()),
    };
    github.post(&Post::DeploymentStatus { id: deployment, status }).unwrap();
    let words =
        sent(&setup).replace(head.as_str(), "HEAD").replace(&deployment.to_string(), "DEPLOYMENT");
    let words = words.replace(&comment_id.to_string(), "COMMENT").replace(&id.to_string(), "RUN");
    assert_snapshot!(words, @r#"
    POST /app/installations/70/access_tokens -> 201 null
    POST /repos/acme/shop/check-runs -> 201 {"details_url":"https://stg1.example/","external_id":"1:HEAD","head_sha":"HEAD","name":"pullre","output":{"summary":"It works.","title":"Ready on stg1"},"status":"queued"}
    PATCH /repos/acme/shop/check-runs/RUN -> 200 {"completed_at":"2026-01-05T09:01:00Z","conclusion":"success","details_url":"https://stg1.example/","external_id":"1:HEAD","name":"pullre","output":{"summary":"It works.","text":"```text\nall\n```","title":"Ready on stg1"},"started_at":"2026-01-05T09:00:00Z","status":"completed"}
    POST /repos/acme/shop/statuses/HEAD -> 201 {"context":"pullre","description":"Starting stg1","state":"pending"}
    POST /repos/acme/shop/issues/1/comments -> 201 {"body":"<!-- pullre:1 -->\nhello"}
    PATCH /repos/acme/shop/issues/comments/COMMENT -> 200 {"body":"<!-- pullre:1 -->\nhello again"}
    POST /repos/acme/shop/issues/comments/COMMENT/reactions -> 201 {"content":"confused"}
    POST /repos/acme/shop/issues/comments/COMMENT/reactions -> 200 {"content":"confused"}
    POST /repos/acme/shop/deployments -> 201 {"auto_merge":false,"description":"Staging of #1","environment":"pr-1","production_environment":false,"ref":"HEAD","required_contexts":[],"task":"pullre","transient_environment":true}
    POST /repos/acme/shop/deployments/DEPLOYMENT/statuses -> 201 {"auto_inactive":false,"description":"Ready on stg1","environment_url":"https://stg1.example/","state":"success"}
    "#);
}

#[test]
fn what_is_there_is_found_and_only_our_own() {
    let (setup, head) = setup();
    let github = app(&setup);
    let found = |find: &Find| github.find(find).unwrap().map(|found| found.id);
    let external_id = format!("1:{head}");
    let find_run = Find::CheckRun { head: head.clone(), name: "pullre".into(), external_id };
    let find_comment = Find::Comment { number: ONE, mark: MARK.into() };
    let find_deployment = Find::Deployment { head: head.clone(), environment: "pr-1".into() };
    for find in [&find_run, &find_comment, &find_deployment] {
        assert_eq!(found(find), None);
    }
    // Two hundred others, one of which begins like ours.
    setup.fake.change(|world| {
        for n in 0..200 {
            world.comment(1, "mallory", &format!("{MARK} {n}"));
        }
    });
    let run_id =
        github.post(&Post::CheckRun { id: None, run: run(&head, CheckState::Queued) }).unwrap();
    let comment_id = github.post(&comment(None, "ours")).unwrap();
    let deployment = Post::Deployment {
        head: head.clone(),
        environment: "pr-1".into(),
        description: String::new(),
    };
    let deployment_id = github.post(&deployment).unwrap();
    assert_eq!(found(&find_run), Some(run_id));
    assert_eq!(found(&find_comment), Some(comment_id));
    assert_eq!(found(&find_deployment), Some(deployment_id));
    // A token's own, by its login.
    let token = setup.github();
    assert_eq!(token.find(&find_comment).unwrap(), None);
    let own = token.post(&comment(None, "the robot's")).unwrap();
    assert_eq!(token.find(&find_comment).unwrap(), Some(own.into()));
}

#[test]
fn what_is_completed_stays_and_of_several_the_newest_is_found() {
    let (setup, head) = setup();
    let github = app(&setup);
    let post = |id, state| github.post(&Post::CheckRun { id, run: run(&head, state) });
    let old = post(None, CheckState::Failure).unwrap();
    let error = post(Some(old), CheckState::InProgress).unwrap_err();
    assert_snapshot!(error, @"it is not there any more, or not ours to change: it stays completed with failure");
    let error = post(Some(old), CheckState::Success).unwrap_err();
    assert_snapshot!(error, @"it is not there any more, or not ours to change: it stays completed with failure");
    assert_eq!(post(Some(old), CheckState::Failure), Ok(old), "its words may change");
    let external_id = format!("1:{head}");
    let find = Find::CheckRun { head: head.clone(), name: "pullre".into(), external_id };
    let found = github.find(&find).unwrap().unwrap();
    assert_eq!(found.conclusion.as_deref(), Some("failure"));
    let new = post(None, CheckState::InProgress).unwrap();
    assert_eq!(github.find(&find).unwrap(), Some(new.into()));
}

#[test]
fn the_newest_of_many_is_found_on_whatever_page() {
    let (setup, head) = setup();
    let github = app(&setup);
    let post = |state| github.post(&Post::CheckRun { id: None, run: run(&head, state) }).unwrap();
    for _ in 0..100 {
        post(CheckState::Failure);
    }
    let newest = post(CheckState::Success);
    setup.fake.take_requests();
    let external_id = format!("1:{head}");
    let find = Find::CheckRun { head: head.clone(), name: "pullre".into(), external_id };
    let found = github.find(&find).unwrap().unwrap();
    assert_eq!((found.id, found.conclusion.as_deref()), (newest, Some("success")));
    assert_eq!(setup.asked().len(), 2, "pages");
}

#[test]
fn comments_that_may_not_be_read_are_told_from_a_question_that_is_not_taken() {
    let (setup, _) = setup();
    let read = |fault| {
        setup.fake.fail_next(fault);
        setup.github().read_comments(Timestamp::now()).unwrap_err()
    };
    let why = "Resource not accessible by personal access token";
    assert_eq!(read(Fault::Forbidden(why.into())), ForgeError::Forbidden(why.into()));
    let error = read(Fault::Status(404));
    assert!(matches!(error, ForgeError::Forbidden(_)), "{error}");
    let error = read(Fault::Status(422));
    assert!(matches!(error, ForgeError::Rejected(_)), "{error}");
}

#[test]
fn what_is_left_out_does_not_stay() {
    let (setup, head) = setup();
    let github = app(&setup);
    let mut failed = run(&head, CheckState::Failure);
    failed.text = Some("the end of its output".into());
    let id = github.post(&Post::CheckRun { id: None, run: failed.clone() }).unwrap();
    failed.text = None;
    github.post(&Post::CheckRun { id: Some(id), run: failed }).unwrap();
    let text = setup.fake.change(|w| w.told().checks[&id].body["output"]["text"].clone());
    assert_eq!(text, "");
}

#[test]
fn an_app_signs_in_once_an_hour_and_again_when_its_token_is_refused() {
    let (setup, _) = setup();
    for key_file in ["pkcs1.pem", "pkcs8.pem", "pkcs1.pem"] {
        let login = GithubLogin::App { id: 7, installation: 70, private_key: key(key_file) };
        let github = GitHub::new(GitHubAccess { login, ..setup.access() }).unwrap();
        github.read_pulls(&setup.store.known(true)).unwrap();
    }
    let granted = |setup: &Setup| setup.fake.change(|w| w.told().app.as_ref().unwrap().granted);
    assert_eq!(granted(&setup), 1, "three processes share one token");
    let file = setup.dir.path().join("state/github-app-token.json");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

    setup.fake.change(|world| world.revoke_tokens());
    let github = app(&setup);
    github.post(&comment(None, "hello")).unwrap();
    assert_eq!(granted(&setup), 2, "refused, renewed, sent");
    setup.fake.change(|world| world.revoke_tokens());
    github.read_pulls(&setup.store.known(true)).unwrap();
    assert_eq!(granted(&setup), 3);

    // One that ends in a moment is renewed before.
    let text = fs::read_to_string(&file).unwrap();
    let mut token: serde_json::Value = serde_json::from_str(&text).unwrap();
    token["expires_at"] =
        (Timestamp::now() + jiff::SignedDuration::from_mins(4)).to_string().into();
    fs::write(&file, token.to_string()).unwrap();
    app(&setup).read_pulls(&setup.store.known(true)).unwrap();
    assert_eq!(granted(&setup), 4);
    // One of another App, or rubbish, is not used.
    fs::write(&file, "{").unwrap();
    app(&setup).read_pulls(&setup.store.known(true)).unwrap();
    assert_eq!(granted(&setup), 5);
    assert_eq!(setup.fake.change(|w| w.told().comments.len()), 1, "nothing was sent twice");
}

#[test]
fn an_app_that_cannot_sign_in_says_why() {
    let (setup, _) = setup();
    let why = |id, installation, file: PathBuf| {
        let login = GithubLogin::App { id, installation, private_key: file };
        let github = GitHub::new(GitHubAccess { login, ..setup.access() }).unwrap();
        let error = github.read_pulls(&setup.store.known(true)).unwrap_err().to_string();
        let keys = key("");
        error.replace(keys.to_str().unwrap(), "KEYS/")
    };
    let rubbish = setup.dir.path().join("rubbish.pem");
    fs::write(&rubbish, "hunter2").unwrap();
    let shown = rubbish.to_str().unwrap().to_owned();
    assert_snapshot!(why(7, 70, key("none.pem")), @"the GitHub App cannot sign in: `github_private_key` KEYS/none.pem cannot be read: No such file or directory (os error 2)");
    assert_snapshot!(why(7, 70, rubbish).replace(&shown, "FILE"), @"the GitHub App cannot sign in: `github_private_key` FILE holds no RSA key in PEM: nothing in it can be understood");
    assert_snapshot!(why(7, 70, key("other.pem")), @"the GitHub App cannot sign in: `github_private_key` KEYS/other.pem holds no RSA key in PEM: WrongAlgorithm");
    assert_snapshot!(why(7, 71, key("pkcs1.pem")), @"the GitHub App cannot sign in: it has no installation 71: correct `github_app_installation_id`");
    let github = app(&setup);
    github.post(&comment(None, "x")).unwrap();
    assert!(!format!("{github:?}").contains("ghs_"), "no token in Debug");
}

#[test]
fn what_may_not_be_and_what_is_not_there_are_told_apart() {
    let (setup, head) = setup();
    let token = setup.github();
    let check = |id| Post::CheckRun { id, run: run(&head, CheckState::Queued) };
    let said = |result: Result<i64, PostError>| match result {
        Ok(_) => "taken".to_owned(),
        Err(e) => e.to_string(),
    };
    assert_snapshot!(said(token.post(&check(None))), @"GitHub does not permit it: Resource not accessible by personal access token");
    assert_snapshot!(said(app(&setup).post(&check(Some(12)))), @"it is not there any more, or not ours to change: Not Found");
    assert_snapshot!(said(token.post(&comment(Some(12), "x"))), @"it is not there any more, or not ours to change: Not Found");
    let unknown: Sha = "a".repeat(40).parse().unwrap();
    let other = Post::CheckRun { id: None, run: run(&unknown, CheckState::Queued) };
    assert_snapshot!(said(app(&setup).post(&other)), @"GitHub does not take it: 422 Unprocessable Entity: Validation Failed: No commit found for SHA: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
    setup
        .fake
        .fail_next(Fault::Forbidden("Unable to create comment because issue is locked.".into()));
    assert_snapshot!(said(token.post(&comment(None, "x"))), @"GitHub does not take it: Unable to create comment because issue is locked.");
    setup.fake.fail_next(Fault::Forbidden("Repository access blocked".into()));
    assert_snapshot!(said(token.post(&comment(None, "x"))), @"GitHub does not permit it: Repository access blocked");
    // A question that is not taken says nothing about others.
    for _ in 0..2 {
        setup.fake.fail_next(Fault::Status(422));
    }
    let find = Find::Comment { number: ONE, mark: MARK.into() };
    let error = token.find(&find).unwrap_err();
    assert!(matches!(error, PostError::Rejected(_)), "{error}");
    let error = token.may_write(&Login("ann".into())).unwrap_err();
    assert!(matches!(error, PostError::Rejected(_)), "{error}");
    let mut access = setup.access();
    access.login = GithubLogin::Token(Secret::new("ghp_old"));
    assert_snapshot!(said(GitHub::new(access).unwrap().post(&comment(None, "x"))), @"GitHub refuses the credentials (401): renew `token` in app.ini");
}

#[test]
fn a_limit_is_remembered_by_the_next_process() {
    let (setup, _) = setup();
    for (status, seconds) in [(403, 30), (429, 60)] {
        let (setup, _) = self::setup();
        setup.fake.fail_next(Fault::RetryAfter { status, seconds });
        let error = setup.github().post(&comment(None, "x")).unwrap_err();
        let PostError::Forge(ForgeError::RateLimited { until }) = error else {
            panic!("{error}");
        };
        let wait = until.duration_since(Timestamp::now()).as_secs();
        assert!((20..=60).contains(&wait), "{wait}");
        setup.fake.take_requests();
        let again = setup.github().post(&comment(None, "x")).unwrap_err();
        assert!(matches!(again, PostError::Forge(ForgeError::RateLimited { .. })), "{again}");
        assert_eq!(setup.asked(), [] as [String; 0], "nothing is asked before");
    }
    setup.fake.set_rate_remaining(0);
    let error = setup.github().post(&comment(None, "x")).unwrap_err();
    assert!(matches!(error, PostError::Forge(ForgeError::RateLimited { .. })), "{error}");
}

#[test]
fn nothing_is_sent_twice_and_what_was_taken_is_found() {
    let (setup, _) = setup();
    let github = setup.github();
    for fault in [Fault::Status(502), Fault::DoneAndCut] {
        let arrives = fault == Fault::DoneAndCut;
        setup.fake.take_requests();
        setup.fake.fail_next(fault);
        let error = github.post(&comment(None, "x")).unwrap_err();
        assert!(matches!(error, PostError::Forge(ForgeError::Unavailable(_))), "{error}");
        assert_eq!(setup.asked().len(), 1, "sent once");
        assert_eq!(setup.fake.change(|w| w.told().comments.len()), usize::from(arrives));
    }
    let find = Find::Comment { number: ONE, mark: MARK.into() };
    assert!(github.find(&find).unwrap().is_some(), "the next tick finds it");
}

#[test]
fn no_redirect_is_followed_on_a_write() {
    let (setup, _) = setup();
    setup.fake.change(|world| world.rename_repo("market"));
    let error = setup.github().post(&comment(None, "x")).unwrap_err();
    assert_snapshot!(error, @"GitHub's answer makes no sense: it redirects what is written: the repository was renamed, or `github_api_url` is wrong; correct `owner`, `repo` or `github_api_url`");
    let foreign = Setup::new();
    foreign.fake.change(|world| world.open(PullSpec::default()));
    setup.fake.fail_next(Fault::Redirect(format!(
        "{}/repos/acme/shop/issues/1/comments",
        foreign.fake.url()
    )));
    setup.github().post(&comment(None, "x")).unwrap_err();
    assert_eq!(foreign.asked(), [] as [String; 0]);
}

#[test]
fn who_may_write_is_asked_of_github() {
    let (setup, _) = setup();
    let github = setup.github();
    setup.fake.change(|world| {
        for (login, permission) in [
            ("ann", "admin"),
            ("wes", "write"),
            ("ron", "read"),
            ("nat", "none"),
            ("b[bot]", "write"),
        ] {
            world.permit(login, permission);
        }
    });
    let may = |login: &str| github.may_write(&Login(login.into())).unwrap();
    assert_eq!(
        ["ann", "wes", "ron", "nat", "b[bot]", "stranger"].map(may),
        [true, true, false, false, true, false]
    );
    assert!(!may("../../wes"), "a name is no path");
    assert!(setup.asked().iter().all(|asked| asked.contains("collaborators/")));
}

#[test]
fn comments_since_a_moment_are_read_page_by_page() {
    let (setup, _) = setup();
    let since = setup.fake.change(|world| {
        world.comment(1, "ann", "long before");
        let before = world.comment(1, "ann", "before");
        world.advance(600);
        let since = world.now();
        world.edit_comment(before, "edited");
        for n in 0..150 {
            world.comment(1, "ann", &format!("number {n}"));
            world.advance(1);
        }
        since
    });
    let comments = setup.github().read_comments(since).unwrap();
    assert_eq!(comments.len(), 151);
    let edited = &comments[0];
    assert_eq!(edited.body, "edited");
    assert!(edited.created_at < since && edited.updated_at >= since, "an edit makes nothing newer");
    let last = comments.last().unwrap();
    assert_eq!((last.number, last.body.as_str()), (ONE, "number 149"));
    assert!(comments.is_sorted_by_key(|comment| comment.updated_at));
}

#[test]
fn an_app_is_told_what_its_permissions_lack() {
    let (setup, _) = setup();
    setup.fake.change(|world| world.install_app(7, 70, &["issues"]));
    let granted = app(&setup).look().unwrap().granted.unwrap();
    assert_eq!(granted.keys().collect::<Vec<_>>(), ["issues"]);
    let run =
        Post::CheckRun { id: None, run: run(&"b".repeat(40).parse().unwrap(), CheckState::Queued) };
    let error = app(&setup).post(&run).unwrap_err();
    assert!(matches!(error, PostError::Forbidden(_)), "{error}");
    assert_eq!(setup.github().look().unwrap().granted, None);
}

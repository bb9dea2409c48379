//! Who is let in, and who is slowed down.

use pullre::config::Secret;
use pullre::store::{ConsoleUser, Role};
use pullre_console::Console;

use crate::served::{OLGA, OTTO, RITA, Served, world};

#[test]
fn only_the_front_page_and_health_are_for_everybody() {
    let served = Served::busy();
    for path in ["/", "/healthz", "/assets/console.css", "/favicon.ico", "/robots.txt"] {
        assert_eq!(served.visitor().get(path).status, 200, "{path}");
    }
    let front = served.visitor().get("/");
    front.says("A staging server for every pull request");
    for secret in ["stg1", "Feature", "dev1", "octo"] {
        assert!(!front.body.contains(secret), "{secret} is on the front page");
    }
    for path in [
        "/pull/list",
        "/pull/1",
        "/server/list",
        "/pool",
        "/master",
        "/master/servers/1",
        "/release/next/list",
        "/metrics",
        "/live/environments",
        "/nowhere",
    ] {
        let reply = served.visitor().get(path);
        assert_eq!(reply.status, 401, "{path}");
        assert!(reply.header("www-authenticate").unwrap().starts_with("Basic realm="), "{path}");
        assert!(!reply.body.contains("Feature"), "{path}");
    }
}

#[test]
fn the_right_password_opens_and_a_wrong_one_does_not() {
    let served = Served::new();
    for right in [OLGA, RITA, OTTO] {
        assert_eq!(served.visitor().login(right).get("/pull/list").status, 200, "{right:?}");
    }
    for wrong in [("olga", ""), ("olga", "x"), ("", OLGA.1), ("Olga", OLGA.1), ("nobody", "x")] {
        assert_eq!(served.visitor().login(wrong).get("/pull/list").status, 401, "{wrong:?}");
    }
}

#[test]
fn credentials_that_are_none_are_asked_for_again() {
    let served = Served::new();
    for value in
        ["Basic", "Basic ", "Basic !!!", "Basic b2xnYQ==", "Bearer x", "Basic /w==", "basic  :"]
    {
        let reply = served.visitor().header("Authorization", value).get("/pull/list");
        assert_eq!(reply.status, 401, "{value}");
    }
}

#[test]
fn the_ancestors_hash_still_opens() {
    // sha512("hunter2")
    let hex = "6b97ed68d14eb3f1aa959ce5d49c7dc612e1eb1dafd73b1e705847483fd6a6c8\
               09f2ceb4e8df6ff9984c6298ff0285cace6614bf8daa9f0070101b6c89899e22";
    let served = Served::with(world(1), |site| {
        site.config.basic_password = Some(Secret::new(hex));
    });
    assert_eq!(served.visitor().login(("olga", "hunter2")).get("/pull/list").status, 200);
    assert_eq!(served.visitor().login(("olga", "hunter3")).get("/pull/list").status, 401);
}

#[test]
fn a_password_in_plain_words_is_refused_at_the_start() {
    let world = world(1);
    let served = Served::with(world, |site| {
        let mut bad = site.clone();
        bad.config.basic_password = Some(Secret::new("hunter2"));
        let error = Console::new(bad).unwrap_err().to_string();
        assert!(error.contains("update-pull hash-token") && !error.contains("hunter2"), "{error}");
    });
    drop(served);
}

#[test]
fn without_anybody_who_could_be_let_in_the_console_says_what_to_set() {
    let world = world(1);
    for name in [RITA.0, OTTO.0] {
        let _ = world.store().remove_console_user(name).unwrap();
    }
    let served = Served::with(world, |site| site.config.basic_user = None);
    let reply = served.olga().get("/pull/list");
    assert_eq!(reply.status, 403);
    reply.says("basic_user").says("update-pull console-user add NAME");
    assert_eq!(served.visitor().get("/").status, 200);
}

#[test]
fn who_is_removed_or_gets_another_password_is_out_although_the_old_one_was_remembered() {
    let served = Served::new();
    let mut otto = served.visitor().login(OTTO);
    assert_eq!(otto.get("/pull/list").status, 200);
    let other = ConsoleUser {
        name: OTTO.0.into(),
        password: pullre_console::password::hash_at_cost("another one", 8, 1).unwrap(),
        role: Role::Operator,
    };
    served.world.store().set_console_user(&other, served.world.now).unwrap();
    testkit::until("the list of users is read again", || otto.get("/pull/list").status != 200);
    assert_eq!(otto.get("/pull/list").status, 401);
    assert_eq!(served.visitor().login(("otto", "another one")).get("/pull/list").status, 200);
}

#[test]
fn wrong_passwords_slow_down_their_own_address_and_nobody_else() {
    let served = Served::with(world(1), |site| {
        site.config.trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
    });
    let from = |address: &str| served.visitor().header("X-Forwarded-For", address);
    assert_eq!(from("7.7.7.7").login(OLGA).get("/pull/list").status, 200);
    let statuses: Vec<u16> = (0..60)
        .map(|n| from("6.6.6.6").login(("olga", &format!("guess {n}"))).get("/pull/list").status)
        .collect();
    assert_eq!(statuses[..5], [401; 5]);
    assert!(statuses[5..].iter().filter(|status| **status == 429).count() >= 50, "{statuses:?}");
    let slowed = from("6.6.6.6").login(OTTO).get("/pull/list");
    assert_eq!(slowed.status, 429, "also a right one that is not known yet");
    assert!(slowed.header("retry-after").unwrap().parse::<u32>().unwrap() >= 1);
    // A password that was right a moment ago, and other addresses, go on.
    assert_eq!(from("6.6.6.6").login(OLGA).get("/pull/list").status, 200);
    assert_eq!(from("7.7.7.8").login(OTTO).get("/pull/list").status, 200);
}

#[test]
fn a_network_of_one_visitor_counts_as_one() {
    let served = Served::with(world(1), |site| {
        site.config.trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
    });
    let guess = |n: u32| {
        let address = format!("2001:db8:1:2::{n:x}");
        served.visitor().header("X-Forwarded-For", &address).login(("olga", "x")).get("/pull/list")
    };
    let statuses: Vec<u16> = (1..12).map(|n| guess(n).status).collect();
    assert!(statuses.contains(&429), "{statuses:?}");
}

#[test]
fn an_answer_tells_browsers_to_be_careful() {
    let served = Served::new();
    for mut visitor in [served.visitor(), served.olga()] {
        for path in ["/", "/pull/list", "/nowhere", "/assets/console.js"] {
            let reply = visitor.get(path);
            let policy = reply.header("content-security-policy").unwrap();
            assert!(
                policy.starts_with("default-src 'none';") && !policy.contains("unsafe"),
                "{policy}"
            );
            assert!(policy.contains("frame-ancestors 'none'"));
            assert_eq!(reply.header("x-frame-options"), Some("DENY"), "{path}");
            assert_eq!(reply.header("x-content-type-options"), Some("nosniff"), "{path}");
            let inline = ["<script>", " style=", " onclick=", "javascript:"];
            let found = inline.iter().find(|what| reply.body.contains(**what));
            assert!(path.starts_with("/assets") || found.is_none(), "{found:?} on {path}");
            assert!(
                !reply.body.contains("src=\"http") && !reply.body.contains("href=\"//"),
                "{path}"
            );
        }
    }
    assert_eq!(served.olga().get("/pull/list").header("cache-control"), Some("no-store"));
}

#[test]
fn the_session_cookie_is_of_no_use_to_scripts_and_other_sites() {
    let served = Served::new();
    let reply = served.olga().get("/pull/list");
    let cookie = reply.header("set-cookie").unwrap();
    assert!(cookie.starts_with("pullre_session="), "{cookie}");
    assert!(cookie.ends_with("; Path=/; HttpOnly; SameSite=Lax"), "{cookie}");
    let other = served.olga().get("/pull/list");
    assert_ne!(other.header("set-cookie").unwrap(), cookie);
}

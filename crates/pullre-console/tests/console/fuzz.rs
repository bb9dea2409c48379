//! Every route and every form with whatever comes to mind: none may end in a fault of ours.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::http::encoded;
use crate::served::Served;

const GETS: [&str; 22] = [
    "/",
    "/healthz",
    "/metrics",
    "/pull/list",
    "/pull/{}",
    "/server/list",
    "/pool",
    "/release/next/list",
    "/master",
    "/master/{}",
    "/master/servers",
    "/master/servers/{}",
    "/master/git_hub_users/{}/update",
    "/master/pull_requests/{}/delete",
    "/master/commits",
    "/master/issues/create",
    "/master/{}/create",
    "/assets/{}",
    "/{}",
    "/{}/{}",
    "/server/{}",
    "/master/hide_servers/{}",
];

const POSTS: [&str; 28] = [
    "/pull/1/redeploy",
    "/pull/2/reset-db",
    "/pull/{}/hold",
    "/pull/1/hold",
    "/pull/1/release",
    "/pull/3/approve",
    "/pull/1/{}",
    "/server/register",
    "/server/start",
    "/server/stop",
    "/server/hold",
    "/server/release",
    "/server/hide",
    "/server/show",
    "/server/take-over",
    "/server/{}",
    "/pause",
    "/resume",
    "/master/servers/create",
    "/master/git_hub_users/create",
    "/master/hide_servers/create",
    "/master/pull_requests/create",
    "/master/next_release_messages/create",
    "/master/commits/create",
    "/master/issues/create",
    "/master/servers/{}/update",
    "/master/git_hub_users/{}/update",
    "/master/servers/{}/delete",
];

const FIELDS: [&str; 30] = [
    "InstanceId",
    "server",
    "reason",
    "span",
    "sha",
    "version",
    "login",
    "db_schema",
    "name",
    "number",
    "state",
    "title",
    "body",
    "ref",
    "hash",
    "content",
    "message",
    "parent_a",
    "parent_b",
    "production_reported",
    "labels",
    "assignee",
    "instance_id",
    "private_ip",
    "check_url",
    "is_staging",
    "auto_start_at",
    "auto_stop_at",
    "auto_weekdays",
    "server_id",
];

fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => proptest::sample::select(vec![
            "", "1", "2", "0", "-1", "stg1", "stg2", "i-1", "dev1", "open", "closed", "yes", "2d", "08:30",
            "mon-fri", "http://10.0.0.1/", "../..", "' OR 1=1 --", "\"; DROP TABLE servers; --", "<script>",
            "%", "_", "!", "\\", "`", "\0", "\r\n", "9223372036854775807", "9223372036854775808", "NaN",
            "2147483648", "\u{202e}", "🚀", "0000000000000000000000000000000000000000", "servers",
        ]).prop_map(str::to_owned),
        1 => any::<String>().prop_map(|text| text.chars().take(40).collect()),
        1 => (1usize..3000).prop_map(|n| "x".repeat(n)),
    ]
}

fn path(routes: &'static [&'static str]) -> impl Strategy<Value = String> {
    (proptest::sample::select(routes), word(), word()).prop_map(|(route, a, b)| {
        let cut = |text: &str| encoded(&text.chars().take(200).collect::<String>());
        route.replacen("{}", &cut(&a), 1).replacen("{}", &cut(&b), 1)
    })
}

#[test]
fn nothing_that_a_visitor_sends_is_a_fault_of_ours() {
    let served = Served::busy();
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(300);
    // A runner counts its cases over all that it runs.
    let runner =
        || TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let olga = std::cell::RefCell::new(served.olga());
    let token = olga.borrow_mut().token();
    let get = (path(&GETS), proptest::option::of((word(), word())));
    runner()
        .run(&get, |(path, query)| {
            let query = query.map_or(String::new(), |(a, b)| {
                format!("?q={}&page={}&span={1}&hidden={1}", encoded(&a), encoded(&b))
            });
            let reply = olga.borrow_mut().get(&format!("{path}{query}"));
            prop_assert!(reply.status < 500, "{} for {}{}", reply.status, path, query);
            Ok(())
        })
        .unwrap();
    let field = (proptest::sample::select(&FIELDS[..]), word());
    let post = (path(&POSTS), proptest::collection::vec(field, 0..8));
    let seen = std::cell::RefCell::new(std::collections::BTreeMap::<u16, u32>::new());
    runner()
        .run(&post, |(path, fields)| {
            let mut fields: Vec<_> = fields.iter().map(|(k, v)| (*k, v.as_str())).collect();
            fields.push(("token", &token));
            let reply = olga.borrow_mut().post(&path, &fields);
            *seen.borrow_mut().entry(reply.status).or_default() += 1;
            prop_assert!(reply.status < 500, "{} for {} {:?}", reply.status, path, fields);
            Ok(())
        })
        .unwrap();
    // What is sent must come through to the operations, or nothing was tried.
    let seen = seen.into_inner();
    assert!(seen.contains_key(&303) && seen.contains_key(&400), "{seen:?}");
    // And the pages still come, whatever was stored.
    for path in [
        "/pull/list",
        "/server/list",
        "/master/servers",
        "/master/pull_requests",
        "/pool",
        "/metrics",
    ] {
        assert_eq!(served.olga().get(path).status, 200, "{path}");
    }
}

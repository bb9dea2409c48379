//! The fake GitHub itself, where a client is at hand: what a person drives it with, and the parts
//! of GitHub's documentation that our own client does not use.
#![allow(clippy::unwrap_used)]

mod support;

use reqwest::blocking::{Client, Response};
use support::Setup;

fn post(setup: &Setup, path: &str, body: &str) -> Response {
    let url = format!("{}/_control/{path}", setup.fake.url());
    client().post(url).body(body.to_owned()).send().unwrap()
}

fn client() -> Client {
    // The process-wide TLS provider is set by the client under test.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().tls_certs_only([]).build().unwrap()
}

#[test]
fn a_person_drives_it_with_forms_or_json() {
    let mut setup = Setup::new();
    let form = "title=A+form&author=bob&branch=fix%2Fit&fork=bob%2Fshop";
    assert_eq!(post(&setup, "pulls", form).text().unwrap(), "1\n");
    let sha = "1".repeat(40);
    let json = serde_json::json!({ "title": "JSON", "sha": sha, "draft": true });
    assert_eq!(post(&setup, "pulls", &json.to_string()).text().unwrap(), "2\n");
    assert_eq!(post(&setup, "pulls/2/close", "").status(), 200);
    let pushed = post(&setup, "pulls/1/push", "").text().unwrap();
    setup.tick();
    assert_eq!(format!("{}\n", setup.store.head(1)), pushed);
    assert!(setup.store.is_open(1) && !setup.store.is_open(2));
    let url = format!("{}/_control/pulls", setup.fake.url());
    let list = client().get(url).send().unwrap().text().unwrap();
    assert!(list.contains("fix/it of bob/shop by bob: A form"), "{list}");
    assert!(list.contains(&format!("#2 closed {sha}")), "{list}");

    post(&setup, "pulls/2/reopen", "");
    setup.tick();
    assert!(setup.store.is_open(2));
    for (path, body, status) in [
        ("pulls/9/close", "", 404),
        ("pulls/1/explode", "", 400),
        ("pulls/1/retarget", "", 400),
        ("pulls", "colour=red", 400),
        ("pulls", "{", 400),
    ] {
        assert_eq!(post(&setup, path, body).status(), status, "{path}");
    }
}

#[test]
fn it_pages_and_sorts_as_documented() {
    let setup = Setup::new();
    setup.open_many(35);
    let get = |path: &str| {
        let url = format!("{}{path}", setup.fake.url());
        let request = client().get(url).bearer_auth(setup.fake.token());
        request.header("user-agent", "test").send().unwrap()
    };
    let numbers = |response: Response| -> Vec<u64> {
        let pulls: Vec<serde_json::Value> = response.json().unwrap();
        pulls.iter().map(|pull| pull["number"].as_u64().unwrap()).collect()
    };
    let newest_first = numbers(get("/repos/Acme/Shop/pulls"));
    assert_eq!(newest_first.len(), 30);
    assert_eq!(newest_first[0], 35);
    assert_eq!(numbers(get("/repos/acme/shop/pulls?sort=updated"))[0], 1);
    let last = get("/repos/acme/shop/pulls?per_page=10&page=4");
    let link = last.headers()["link"].to_str().unwrap().to_owned();
    assert!(link.contains("page=3>; rel=\"prev\""), "{link}");
    assert!(!link.contains("rel=\"next\""), "{link}");
    assert_eq!(numbers(last), [5, 4, 3, 2, 1]);
    assert_eq!(numbers(get("/repos/acme/shop/pulls?page=9")), [] as [u64; 0]);
    let repo: serde_json::Value = get("/repos/acme/shop").json().unwrap();
    assert_eq!(repo["full_name"], "acme/shop");
    let remaining = |response: Response| response.headers()["x-ratelimit-remaining"].clone();
    let first = remaining(get("/repos/acme/shop/pulls/1"));
    assert_ne!(first, remaining(get("/repos/acme/shop/pulls/1")));
    assert_eq!(get("/repos/acme/other").status(), 404);
    assert_eq!(get("/repos/acme/shop/pulls/99").status(), 404);
}

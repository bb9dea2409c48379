//! The pages in a real browser: what they look like, whether everybody can use them, and that
//! every button works. Pictures are left in target/tmp/console.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use pullre::domain::{PullNumber, ServerId};
use pullre::facts::Pulse;
use pullre::store::TickRow;
use serde_json::json;

use crate::cdp::Browser;
use crate::http::base64;
use crate::served::{OLGA, Served, world};

fn axe() -> String {
    let path = testkit::peer::installed("axe-core/node_modules/axe-core/axe.min.js");
    std::fs::read_to_string(path.expect("axe-core")).expect("a readable axe-core")
}

fn signed_in(served: &Served) -> Browser {
    let mut browser = Browser::start();
    let _ = served;
    let authorization = format!("Basic {}", base64(&format!("{}:{}", OLGA.0, OLGA.1)));
    let headers = json!({ "headers": { "Authorization": authorization } });
    browser.call("Network.setExtraHTTPHeaders", headers);
    browser
}

/// An installation in the middle of its day.
fn full() -> Served {
    let mut world = world(5);
    let authors = ["dev1", "dev2", "dev1", "stranger", "dev2", "dev1", "dev2", "dev1"];
    for (n, author) in authors.iter().enumerate() {
        world.hub.open(author, n == 3, world.now);
    }
    world.minutes(3);
    world.policy.cloning.keep_previous = true;
    world.operator(&mut world.store()).reset_db(PullNumber(1), &world.locks()).unwrap();
    world.minutes(3);
    for (server, free_bytes) in [(1, 31_000_000_000), (2, 900_000_000)] {
        let pulse = Pulse { free_bytes, total_bytes: 40_000_000_000, load_percent: 45 };
        world.store().measured(ServerId(server), &pulse).unwrap();
    }
    world.hub.push(PullNumber(2), world.now);
    world.tick();
    world.client_ticks(&testkit::fuse::Fuse::never(), |number| number != PullNumber(2));
    world.now = Timestamp::now();
    let mut store = world.store();
    let mut operator = world.operator(&mut store);
    operator.pull_hold(PullNumber(3), "shown to a customer", None).unwrap();
    let why = "its disk is being enlarged, which takes until somebody who knows the storage is \
               back from the data centre and has read what stands at \
               https://wiki.example.com/a/long/address/of/a/page/without/any/space/in/it/at/all";
    operator.server_hold("stg5", why, None).unwrap();
    operator.server_register_machine("i-0123456789abcdef0", &Machines).unwrap();
    operator
        .server_set(
            "i-0123456789abcdef0",
            &[
                "name=tools".into(),
                "is_staging=0".into(),
                "auto_start_at=08:30".into(),
                "auto_stop_at=19:00".into(),
                "auto_weekdays=mon-fri".into(),
            ],
        )
        .unwrap();
    for (n, number) in [1, 2].into_iter().enumerate() {
        let deployment = store.deployments_of(PullNumber(number), 1).unwrap().remove(0);
        for (name, status, output) in [
            (
                "fetch",
                0,
                "From https://github.com/octo/app\n   abc..def  feature -> origin/feature\n",
            ),
            (
                "migrate",
                n as i32,
                "Applying 0042_customer_notes... OK\nApplying 0043_backfill...\n  IntegrityError: duplicate key value (7, 2026-11-23)\n  in customers/migrations/0043_backfill.py line 18\n",
            ),
        ] {
            let step = store.step_started(deployment.id, name, world.now).unwrap();
            let end = world.now + SignedDuration::from_secs(7);
            store.step_finished(step, Some(status), output, end).unwrap();
        }
    }
    for quarter in 0..96 {
        let busy = (quarter as f64 / 9.0).sin() * 2.0 + 2.5;
        let tick = TickRow {
            began_at: world.now - SignedDuration::from_mins(15 * quarter),
            took: std::time::Duration::from_millis(40),
            pool: 5,
            busy: busy as u32,
            queued: if busy > 4.0 { 2 } else { 0 },
            acted: 0,
            failed: 0,
        };
        store.tick_ended(&tick).unwrap();
    }
    world.by_hand(
        "INSERT INTO next_release_messages (created_at, updated_at, hash, content) VALUES
         ('2026-11-22 21:23:49', '2026-11-22 21:23:49', 'h', 'Run `manage.py backfill` once.
Tell support about the new form.')",
    );
    // Long words squeeze what stands beside them.
    world.by_hand(
        "UPDATE servers SET check_url = 'https://staging-server-with-a-long-name.example.com/',
             name = CASE id WHEN 4 THEN 'server-whose-name-says-what-it-is-for-'
                 || 'and-where-it-stands-and-who-runs-it' ELSE name END",
    );
    world.by_hand(
        "INSERT INTO agent_troubles (server_id, message) VALUES (5, 'cannot reach the database: \
         Access denied for user ''pullre_client''@''10.0.0.5'' (using password: YES)')",
    );
    let served = Served::with(world, |_| {});
    served.add_machine("i-0fedcba9876543210");
    served
}

#[derive(Debug)]
struct Machines;

impl pullre::ports::Compute for Machines {
    fn describe(
        &self,
        ids: &[pullre::domain::InstanceId],
    ) -> Result<Vec<pullre::domain::Instance>, pullre::ports::ComputeError> {
        let machine = |id: &pullre::domain::InstanceId| pullre::domain::Instance {
            id: id.clone(),
            state: pullre::domain::InstanceState::Running,
            name: None,
            private_ip: Some("10.0.3.7".into()),
            reason: None,
            role: None,
        };
        Ok(ids.iter().map(machine).collect())
    }
    fn list(&self) -> Result<Vec<pullre::domain::Instance>, pullre::ports::ComputeError> {
        Ok(Vec::new())
    }
    fn start(&self, _: &pullre::domain::InstanceId) -> Result<(), pullre::ports::ComputeError> {
        Ok(())
    }
    fn stop(&self, _: &pullre::domain::InstanceId) -> Result<(), pullre::ports::ComputeError> {
        Ok(())
    }
}

const PAGES: [(&str, &str); 18] = [
    ("front", "/"),
    ("environments", "/pull/list"),
    ("environments-none-found", "/pull/list?q=nothing"),
    ("environment-ready", "/pull/1"),
    ("environment-failed", "/pull/2"),
    ("environment-held", "/pull/3"),
    ("environment-fork", "/pull/4"),
    ("environment-queued", "/pull/7"),
    ("servers", "/server/list"),
    ("server-hold", "/server/1/hold"),
    ("pool", "/pool"),
    ("release", "/release/next/list"),
    ("master", "/master"),
    ("master-servers", "/master/servers"),
    ("master-row", "/master/servers/1"),
    ("master-edit", "/master/servers/1/update"),
    ("master-create", "/master/pull_requests/create"),
    ("master-delete", "/master/git_hub_users/1/delete"),
];

#[test]
fn every_page_is_whole_and_without_barriers_on_desk_and_phone_in_light_and_dark() {
    let served = full();
    // The first look asks for the machines.
    let list = || served.olga().get("/server/list").text();
    testkit::until("they have come", || list().contains("As they were"));
    let mut browser = signed_in(&served);
    let axe = axe();
    let mut findings = Vec::new();
    for (look, width, scheme) in
        [("desk", 1280, "light"), ("dark", 1280, "dark"), ("phone", 390, "light")]
    {
        browser.size(width, 900);
        browser.colours(scheme);
        for (name, path) in PAGES {
            browser.goto(&format!("http://{}{path}", served.address));
            findings
                .extend(browser.complaints().into_iter().map(|c| format!("{name} {look}: {c}")));
            let too_wide = browser.eval("document.documentElement.scrollWidth > innerWidth + 1");
            if too_wide == json!(true) {
                let which = browser.eval("[...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1).slice(0, 3).map(e => e.outerHTML.slice(0, 120)).join(' | ')");
                findings.push(format!("{name} {look} is wider than the screen: {which}"));
            }
            let broken = browser.eval(
                "[...document.querySelectorAll('button, .button')].filter(b => b.offsetHeight > 45)
                     .map(b => b.innerText).join(', ')",
            );
            if broken != json!("") {
                findings.push(format!("{name} {look} breaks the words of {broken}"));
            }
            // Open what can be opened: what is hidden is not looked at.
            browser.eval("document.querySelectorAll('details').forEach((d, i) => { if (i < 6) d.open = true; })");
            browser.eval(&axe);
            let serious = browser.eval(
                "axe.run(document, { resultTypes: ['violations'] }).then(r => r.violations
                     .filter(v => ['serious', 'critical'].includes(v.impact))
                     .map(v => v.id + ': ' + v.nodes.slice(0, 3).map(n => n.html.slice(0, 160) + ' ' + (n.any[0]?.message ?? '')).join(' | ')))",
            );
            for finding in serious.as_array().unwrap() {
                findings.push(format!("{name} {look}: {finding}"));
            }
            browser.eval(
                "document.querySelectorAll('details.asked').forEach(d => { d.open = false; })",
            );
            browser.screenshot(&format!("{look}-{name}"));
        }
    }
    assert!(findings.is_empty(), "{}", findings.join("\n"));
}

#[test]
fn the_buttons_do_what_they_say() {
    let served = Served::busy();
    let mut browser = signed_in(&served);
    let at = |path: &str| format!("http://{}{path}", served.address);
    browser.goto(&at("/pull/1"));
    browser.follow("document.querySelector('form[action=\"/pull/1/redeploy\"] button').click()");
    assert!(browser.text().contains("deployed again as soon as its staging client looks"));
    browser.eval(
        "[...document.querySelectorAll('summary')].find(s => s.innerText.includes('Hold')).click()",
    );
    browser.eval("document.querySelector('#reason').value = 'a <b>look</b>'");
    browser.eval("document.querySelector('#span').value = '2h'");
    browser.follow("document.querySelector('form[action=\"/pull/1/hold\"] button').click()");
    assert!(browser.text().contains("a <b>look</b>"), "{}", browser.text());
    assert_eq!(browser.eval("document.querySelector('.title .stage').innerText"), "held");
    browser.follow("document.querySelector('form[action=\"/pull/1/release\"] button').click()");
    assert!(browser.text().contains("automatic hands again"));
    browser.follow("document.querySelector('form[action=\"/pull/1/reset-db\"] button').click()");
    assert!(browser.text().contains("the next ticks stop its app"), "{}", browser.text());
    browser.goto(&at("/pull/list"));
    browser.follow("document.querySelector('form[action=\"/pause\"] button').click()");
    assert!(browser.text().contains("nothing is done until it goes on"), "{}", browser.text());
    browser.follow("document.querySelector('form[action=\"/resume\"] button').click()");
    assert!(!browser.text().contains("nothing is done until it goes on"));
    browser.goto(&at("/master/servers/2"));
    browser.follow("document.querySelector('form[action=\"/server/take-over\"] button').click()");
    assert!(browser.text().contains("is the clone that stg2 works on now"), "{}", browser.text());
    browser.goto(&at("/server/list"));
    browser.follow("document.querySelector('a[href=\"/server/1/hold\"]').click()");
    browser.eval("document.querySelector('#reason').value = 'looked at'");
    browser.follow("document.querySelector('main form button').click()");
    assert!(browser.text().contains("stg1 is held"), "{}", browser.text());
    browser.follow("document.querySelector('button[formaction=\"/server/release\"]').click()");
    browser.follow("document.querySelector('button[formaction=\"/server/hide\"]').click()");
    assert!(browser.text().contains("is hidden"));
    browser.follow("document.querySelector('a[href=\"/server/list?hidden=1\"]').click()");
    browser.follow("document.querySelector('button[formaction=\"/server/show\"]').click()");
    browser.goto(&at("/master/git_hub_users/create"));
    browser.eval("document.querySelector('[name=login]').value = 'stg'; document.querySelector('[name=db_schema]').value = 'stg1'");
    browser.follow("document.querySelector('main button[type=submit]').click()");
    assert!(browser.text().contains("is the schema of server stg1"));
    assert_eq!(browser.eval("document.querySelector('[name=login]').value"), "stg");
    // A status that is none of success is a complaint of the browser's, and was meant.
    let complaints = browser.complaints();
    assert!(complaints.iter().all(|c| c.contains("409")), "{complaints:?}");
    browser.eval("document.querySelector('[name=db_schema]').value = 'dev_stg'");
    browser.follow("document.querySelector('main button[type=submit]').click()");
    browser.follow("document.querySelector('a.danger').click()");
    assert!(browser.text().contains("Nothing depends on it"));
    browser.follow("document.querySelector('button.danger').click()");
    assert!(browser.text().contains("is removed"));
    assert_eq!(browser.complaints(), [] as [String; 0]);
}

#[test]
fn a_log_grows_while_somebody_looks_and_what_they_opened_stays_open() {
    let served = Served::busy();
    let mut store = served.world.store();
    let mut browser = signed_in(&served);
    browser.goto(&format!("http://{}/pull/1", served.address));
    browser.eval("window.mark = document.querySelector('h1'); document.querySelector('details.asked').open = true");
    browser.eval("document.querySelector('#reason').value = 'half a sent'");
    let id = store.deployments_of(PullNumber(1), 1).unwrap()[0].id;
    let step = store.step_started(id, "migrate", served.world.now).unwrap();
    browser.until("document.body.innerText.includes('so far')");
    store.step_finished(step, Some(0), "first line\n", served.world.now).unwrap();
    browser.until("document.querySelector('pre.log')?.innerText.includes('first line')");
    browser.eval("window.log = document.querySelector('pre.log')");
    store.step_finished(step, Some(0), "first line\nsecond line\n", served.world.now).unwrap();
    browser.until("document.querySelector('pre.log')?.innerText.includes('second line')");
    assert_eq!(
        browser.eval("window.log === document.querySelector('pre.log')"),
        true,
        "only its end was added"
    );
    assert_eq!(browser.eval("window.mark.isConnected"), true, "the page itself stayed");
    assert_eq!(browser.eval("document.querySelector('details.asked').open"), true);
    assert_eq!(browser.eval("document.querySelector('#reason').value"), "half a sent");
    // A stage that changes is said to screen readers too.
    let mut operator = served.world.operator(&mut store);
    operator.pull_hold(PullNumber(1), "", None).unwrap();
    browser.until("document.querySelector('#live-news').textContent.includes('now held')");
    assert_eq!(browser.complaints(), [] as [String; 0]);
}

#[test]
fn new_lines_appear_without_the_page_being_fetched_again_also_after_a_broken_connection() {
    let served = Served::with(crate::served::busy(), |site| {
        site.rhythm.look = Duration::from_millis(50);
        // Each connection ends soon, and the browser comes again with what it showed at first.
        site.rhythm.longest = Duration::from_secs(1);
    });
    let mut store = served.world.store();
    let id = store.deployments_of(PullNumber(1), 1).unwrap()[0].id;
    let step = store.step_started(id, "migrate", served.world.now).unwrap();
    let mut printed = String::from("line 0\n");
    store.step_output(step, &printed).unwrap();
    let mut browser = signed_in(&served);
    browser.goto(&format!("http://{}/pull/1", served.address));
    browser.eval("window.fetches = 0; window.fetched = window.fetch; window.fetch = (...a) => { fetches += 1; return fetched(...a); }; 0");
    browser.eval("window.connections = () => performance.getEntriesByType('resource').filter(e => e.name.includes('/live/')).length; 0");
    let log =
        "[...document.querySelectorAll('pre.log')].find(l => l.textContent.includes('line 0'))";
    // Seconds go by until it is connected again; meanwhile lines come too.
    for n in 1.. {
        printed += &format!("line {n} <b>&amp;</b>\n");
        store.step_output(step, &printed).unwrap();
        browser.until(&format!("{log}?.textContent.includes('line {n} ')"));
        assert_eq!(browser.eval(&format!("{log}.textContent")), printed);
        if browser.eval("connections()").as_u64() >= Some(2) {
            break;
        }
    }
    assert_eq!(browser.eval("fetches"), 0, "the lines alone were sent");
    let ended = format!("{printed}the end\n");
    store.step_finished(step, Some(0), &ended, served.world.now).unwrap();
    browser.until(&format!("{log}?.textContent.includes('the end')"));
    assert_eq!(browser.eval(&format!("{log}.textContent")), ended);
    assert_eq!(browser.eval("fetches"), 1);
    // Its news are heard at its new address: the next step is shown too.
    let step = store.step_started(id, "start", served.world.now).unwrap();
    store.step_output(step, "starts\n").unwrap();
    browser.until("document.body.innerText.includes('starts')");
    store.step_output(step, "starts\nlistens\n").unwrap();
    browser.until("document.body.innerText.includes('listens')");
    assert_eq!(browser.complaints(), [] as [String; 0]);
}

#[test]
fn times_are_the_visitors_and_utc_is_shown_on_hover() {
    let served = Served::busy();
    let mut browser = signed_in(&served);
    browser.call("Emulation.setTimezoneOverride", json!({ "timezoneId": "Asia/Tokyo" }));
    browser.goto(&format!("http://{}/pull/1", served.address));
    let shown = browser.eval("(() => { const t = document.querySelector('time:not(.ago)'); return [t.title, t.textContent, new Date(t.dateTime).getHours()]; })()");
    assert!(shown[0].as_str().unwrap().ends_with(" UTC"), "{shown}");
    let hour = format!("{:02}:", shown[2].as_u64().unwrap());
    let text = shown[1].as_str().unwrap();
    assert!(text.contains(&hour) || text.contains("AM") || text.contains("PM"), "{shown}");
    assert!(!text.contains("UTC"), "{shown}");
}

#[test]
fn keyboard_alone_and_no_script_are_enough() {
    let served = Served::busy();
    let mut browser = signed_in(&served);
    browser.goto(&format!("http://{}/pull/1", served.address));
    browser.key("Tab");
    assert_eq!(browser.eval("document.activeElement.className"), "skip");
    browser.key("Enter");
    browser.until("document.activeElement.id === 'content'");
    browser.call("Emulation.setScriptExecutionDisabled", json!({ "value": true }));
    browser.goto(&format!("http://{}/pull/1", served.address));
    // From the content on: links, then the first button.
    browser.eval("document.querySelector('#content').focus()");
    for _ in 0..12 {
        let inside =
            browser.eval("document.activeElement.closest('form')?.getAttribute('action') ?? ''");
        if inside == "/pull/1/redeploy" {
            break;
        }
        browser.key("Tab");
    }
    browser.follow_key("Enter");
    assert!(browser.text().contains("deployed again as soon as"), "{}", browser.text());
}

//! Changes: who may make them, from where, and that two people do not overwrite each other.

use pullre::store::master::Table;

use crate::http::encoded;
use crate::served::{OTTO, Served, hidden};

const USER: [(&str, &str); 2] = [("login", "carol"), ("db_schema", "dev_carol")];

type Fields<'f> = &'f [(&'f str, &'f str)];

fn users(served: &Served) -> Vec<String> {
    served.world.store().users().unwrap().into_iter().map(|user| user.login.0).collect()
}

#[test]
fn a_form_without_the_sessions_token_changes_nothing() {
    let served = Served::new();
    let mut olga = served.olga();
    let token = olga.token();
    let mut otto = served.visitor().login(OTTO);
    let ottos = otto.token();
    let tokens = [None, Some(""), Some("0"), Some(ottos.as_str()), Some(&token[1..])];
    for wrong in tokens {
        let mut fields = USER.to_vec();
        fields.extend(wrong.map(|token| ("token", token)));
        let reply = olga.post("/master/git_hub_users/create", &fields);
        assert_eq!(reply.status, 403, "{wrong:?}");
        reply.says("Nothing was changed");
    }
    // Another person's token in one's own session, and one's own in another session.
    otto.cookie = olga.cookie.clone();
    let mut fields = USER.to_vec();
    fields.push(("token", &token));
    assert_eq!(otto.post("/master/git_hub_users/create", &fields).status, 403);
    let mut fresh = served.olga();
    assert_eq!(fresh.post("/master/git_hub_users/create", &fields).status, 403);
    assert_eq!(users(&served), ["dev1", "dev2"]);
    // With it, it works: so the token was all that was missing.
    assert_eq!(olga.post("/master/git_hub_users/create", &fields).status, 303);
    assert_eq!(users(&served), ["carol", "dev1", "dev2"]);
}

#[test]
fn another_sites_form_changes_nothing_even_with_the_token() {
    let served = Served::new();
    let mut olga = served.olga().header("Sec-Fetch-Site", "cross-site");
    let token = olga.token();
    let mut fields = USER.to_vec();
    fields.push(("token", &token));
    assert_eq!(olga.post("/master/git_hub_users/create", &fields).status, 403);
    // Nor as another type, which a foreign page could send without being asked.
    let mut olga = served.olga();
    let body = format!("login=carol&db_schema=x&token={}", encoded(&olga.token()));
    for kind in ["text/plain", "application/json", "multipart/form-data; boundary=x", ""] {
        let reply = olga.send("POST", "/master/git_hub_users/create", kind, &body);
        assert_eq!(reply.status, 415, "{kind}");
    }
    assert_eq!(users(&served), ["dev1", "dev2"]);
}

#[test]
fn who_may_only_look_sees_no_buttons_and_can_press_none() {
    let served = Served::busy();
    let before = served.events();
    let mut rita = served.rita();
    for path in ["/pull/list", "/pull/1", "/server/list", "/master/servers", "/master/servers/1"] {
        let page = rita.get(path);
        assert_eq!(page.status, 200, "{path}");
        assert!(!page.body.contains("method=\"post\""), "{path}");
        assert!(!page.body.contains("/update") && !page.body.contains("/delete"), "{path}");
    }
    for path in [
        "/pull/1/redeploy",
        "/pull/1/hold",
        "/server/stop",
        "/server/register",
        "/pause",
        "/master/git_hub_users/create",
        "/master/servers/1/delete",
    ] {
        let reply =
            rita.submit(path, &[("InstanceId", "stg1"), ("login", "x"), ("db_schema", "x")]);
        assert_eq!(reply.status, 403, "{path}");
        reply.says("read-only");
    }
    assert_eq!(served.events(), before);
}

#[test]
fn the_password_in_a_check_url_is_shown_in_an_operators_form_alone() {
    let served = Served::busy();
    let mut store = served.world.store();
    let set = ["check_url=https://ci:s3cret@stg1.example.com/x".to_owned()];
    served.world.operator(&mut store).server_set("stg1", &set).unwrap();
    let (mut rita, mut olga) = (served.rita(), served.olga());
    for path in ["/server/list", "/pull/list", "/pull/1", "/master/servers", "/master/servers/1"] {
        for page in [rita.get(path), olga.get(path)] {
            assert!(!page.body.contains("s3cret"), "{path}");
            assert!(page.body.contains("https://stg1.example.com/x"), "{path}");
        }
    }
    // Nor can it be guessed, by searches or by the hash that a form carries.
    rita.get("/master/servers?q=s3cre").says("No row holds");
    rita.get("/master/servers?q=ci:").says("No row holds");
    for path in ["update", "delete"] {
        let page = rita.get(&format!("/master/servers/1/{path}"));
        assert_eq!(page.status, 403, "{path}");
        page.says("read-only");
    }
    assert_eq!(rita.get("/master/git_hub_users/create").status, 403);
    assert!(olga.get("/master/servers/1/update").body.contains("ci:s3cret@"));
    let said: Vec<_> = served.events().into_iter().map(|(_, what)| what).collect();
    assert!(said.contains(&"set check_url=https://stg1.example.com/x".to_owned()), "{said:?}");
}

#[test]
fn every_button_of_an_environment_does_what_the_command_line_does() {
    let served = Served::busy();
    let mut olga = served.olga();
    olga.submit("/pull/1/redeploy", &[]).says("#1: deployed again as soon as");
    olga.submit("/pull/1/reset-db", &[]).says("#1: the next ticks stop its app");
    olga.submit("/pull/2/hold", &[("reason", "shown to <b>them</b>"), ("span", "2d")])
        .says("#2 is held")
        .says("shown to &lt;b&gt;them&lt;/b&gt;");
    assert!(served.was_woken(), "what a person asked for does not wait for the clock");
    olga.submit("/pull/2/hold", &[("span", "soon")]).says("is no time span");
    olga.submit("/pull/2/redeploy", &[]).says("#2 is out of automatic hands");
    olga.submit("/pull/2/release", &[]).says("in automatic hands again");
    olga.submit("/pull/2/release", &[]).says("#2 is neither held nor stopped");
    olga.submit("/pull/1/approve", &[("sha", "x")]).says("is not a whole commit id");
    let sha = "0".repeat(40);
    olga.submit("/pull/1/approve", &[("sha", &sha)]).says("needs no approval");
    assert_eq!(olga.submit("/pull/99/redeploy", &[]).status, 404);
    assert_eq!(olga.submit("/pull/1/explode", &[]).status, 404);
    let by_olga: Vec<_> = served.events().into_iter().filter(|(who, _)| who == "olga").collect();
    let said: Vec<_> = by_olga.iter().rev().map(|(_, what)| what.as_str()).collect();
    assert_eq!(said.len(), 4, "{said:?}");
    assert_eq!(
        [said[0], said[1], said[3]],
        ["redeploy asked for", "fresh data asked for", "released"]
    );
}

/// The buttons of one environment's page.
fn acts(page: &str) -> Vec<&str> {
    let actions = page.split("action=\"/pull/1/").skip(1);
    actions.map(|rest| rest.split('"').next().unwrap()).collect()
}

#[test]
fn an_environment_is_stopped_and_released_by_its_buttons() {
    let served = Served::busy();
    let mut olga = served.olga();
    assert!(acts(&olga.get("/pull/1").body).contains(&"stop"));
    let page = olga.submit("/pull/1/stop", &[]);
    page.says("#1 gives its server back")
        .says("It was stopped by olga")
        .says("; Release brings it back");
    // Who has no button is told the command.
    served.rita().get("/pull/1").says("; update-pull pull release 1 brings it back");
    let buttons = acts(&page.body);
    assert!(buttons.contains(&"release") && !buttons.contains(&"stop"), "{buttons:?}");
    assert!(served.was_woken());
    olga.submit("/pull/1/stop", &[]).says("#1 is stopped already");
    let page = olga.submit("/pull/1/release", &[]);
    page.says("in automatic hands again");
    assert!(served.world.store().pull(served.number(1)).unwrap().unwrap().stopped.is_none());
    assert!(acts(&page.body).contains(&"stop"));
    assert_eq!(served.rita().submit("/pull/1/stop", &[]).status, 403);
    // To deploy it again brings it back, too, also when its server is gone.
    olga.submit("/pull/1/stop", &[]);
    served.world.tick();
    let page = olga.get("/pull/1");
    let buttons = acts(&page.body);
    assert!(buttons.contains(&"redeploy") && !buttons.contains(&"reset-db"), "{buttons:?}");
    olga.submit("/pull/1/redeploy", &[]).says("it is stopped no more, and gets a server");
    assert!(served.world.store().pull(served.number(1)).unwrap().unwrap().stopped.is_none());
}

#[test]
fn the_data_that_a_reset_replaced_come_back_by_a_button() {
    let mut world = crate::served::world(1);
    world.policy.cloning.keep_previous = true;
    world.hub.open("dev1", false, world.now);
    world.minutes(6);
    let mut served = Served::with(world, |_| {});
    let mut olga = served.olga();
    let page = olga.get("/pull/1");
    assert!(!page.body.contains("Bring the previous data back"), "nothing was replaced yet");
    served.world.enter("stg1", "typed by a tester");
    olga.submit("/pull/1/reset-db", &[]).says("clone its data");
    served.world.minutes(4);
    olga.get("/pull/1").says("Bring the previous data back");
    let page = olga.submit("/pull/1/reset-db", &[("undo", "yes")]);
    page.says("bring the previous data back");
    assert!(served.events().contains(&("olga".into(), "the previous data asked for".into())));
    served.world.minutes(4);
    assert_eq!(served.world.read_schema("stg1").as_deref(), Some("typed by a tester"));
}

#[test]
fn a_forks_commit_runs_once_it_was_approved() {
    let mut world = crate::served::world(1);
    world.hub.open("stranger", true, world.now);
    let mut store = world.store();
    world.operator(&mut store).user_set("default", "dev1").unwrap();
    world.minutes(1);
    let served = Served::with(world, |_| {});
    let mut olga = served.olga();
    let page = olga.get("/pull/1");
    page.says("It comes from a fork").says("I have looked at it; let it run");
    let sha = hidden(&page.body, "sha").unwrap();
    olga.submit("/pull/1/approve", &[("sha", &sha)]).says("may run");
    assert!(!olga.get("/pull/1").text().contains("comes from a fork"));
}

#[test]
fn every_button_of_a_server_does_what_the_command_line_does() {
    let served = Served::new();
    let mut olga = served.olga();
    olga.submit("/server/start", &[("InstanceId", "stg1")]).says("stg1: start asked for");
    served.world.fleet.settle();
    olga.submit("/server/stop", &[("InstanceId", "stg1")]).says("stg1: stop asked for");
    olga.submit("/server/hold", &[("server", "stg2"), ("reason", "for a demo")])
        .says("stg2 is held");
    olga.submit("/server/release", &[("server", "stg2")]).says("automatic hands");
    olga.submit("/server/hide", &[("server", "stg2")]).says("stg2 is hidden").says("1 hidden");
    olga.get("/server/list?hidden=1").says("stg2");
    olga.submit("/server/show", &[("server", "stg2")]).says("stg2 is shown");
    served.add_machine("i-new");
    olga.submit("/server/register", &[("InstanceId", "i-new")]).says("Registered i-new");
    olga.submit("/server/register", &[("InstanceId", "i-new")]).says("is registered already");
    olga.submit("/server/register", &[("InstanceId", "i-none")])
        .says("There is no instance i-none");
    olga.submit("/server/start", &[("InstanceId", "")]).says("The form names no server");
    let version = hidden(&olga.get("/master/servers/1/update").body, "version").unwrap();
    olga.submit("/master/servers/1/update", &[("version", &version), ("name", "stg2")])
        .says("Another server is called stg2.");
    served.world.fleet.set_unreachable(true);
    olga.submit("/server/start", &[("InstanceId", "stg1")]).says("no route to the provider");
    olga.submit("/pause", &[]).says("Everything is paused").says("Paused");
    olga.submit("/resume", &[]).says("The next tick goes on");
}

#[test]
fn of_two_who_edit_one_row_the_second_is_told() {
    let served = Served::new();
    let (mut olga, mut otto) = (served.olga(), served.visitor().login(OTTO));
    let version = |page: &str| hidden(page, "version").unwrap();
    let olgas = version(&olga.get("/master/git_hub_users/1/update").body);
    let ottos = version(&otto.get("/master/git_hub_users/1/update").body);
    assert_eq!(olgas, ottos);
    let path = "/master/git_hub_users/1/update";
    olga.submit(path, &[("version", &olgas), ("login", "dev1"), ("db_schema", "dev_new")])
        .says("user 1 is saved")
        .says("dev_new");
    let late =
        otto.submit(path, &[("version", &ottos), ("login", "dev1"), ("db_schema", "dev_otto")]);
    assert_eq!(late.status, 409);
    late.says("Somebody changed user 1 since you opened this page");
    assert!(late.body.contains("dev_otto"), "what was typed is not lost");
    let late = otto.submit("/master/git_hub_users/1/delete", &[("version", &ottos)]);
    late.says("Somebody changed user 1");
    let schemas: Vec<_> = served.world.store().users().unwrap();
    assert_eq!(schemas[0].schema.as_ref().unwrap().as_str(), "dev_new");
}

#[test]
fn a_value_that_is_cleared_is_gone_and_one_that_is_not_there_stays() {
    let served = Served::new();
    let mut olga = served.olga();
    let save = |olga: &mut crate::served::Visitor, fields: &[(&str, &str)]| {
        let version = hidden(&olga.get("/master/servers/1/update").body, "version").unwrap();
        let mut fields = fields.to_vec();
        fields.push(("version", &version));
        olga.submit("/master/servers/1/update", &fields)
    };
    let set = [
        ("check_url", "http://10.0.0.1:8000/"),
        ("auto_start_at", "08:30"),
        ("auto_weekdays", "mon-fri"),
    ];
    save(&mut olga, &set)
        .says("Server 1 is saved")
        .says("http://10.0.0.1:8000/")
        .says("08:30")
        .says("mon-fri");
    save(&mut olga, &[("auto_start_at", ""), ("auto_weekdays", "  ")]).says("saved");
    let table = Table::named("servers").unwrap();
    let row = served.world.store().master_row(table, 1).unwrap().unwrap();
    assert_eq!(row.value(table, "check_url"), Some("http://10.0.0.1:8000/"));
    assert_eq!(row.value(table, "auto_start_at"), None);
    assert_eq!(row.value(table, "auto_weekdays"), None);
    for (key, value, why) in [
        ("check_url", "ftp://x", "is not a URL that begins with http://"),
        ("check_url", "javascript:alert(1)", "is not a URL"),
        ("db_schema", "../x", "is not a schema name"),
        ("db_schema", "stg2", "stg2"),
        ("auto_start_at", "25:00", "is not a time of day"),
        ("is_staging", "perhaps", "is not 0 or 1"),
        ("instance_id", "", "instance_id must not be empty"),
        ("colour", "red", "has no"),
    ] {
        let reply = save(&mut olga, &[(key, value)]);
        assert!(matches!(reply.status, 400 | 409), "{key}={value} {}", reply.status);
        let text = reply.text().replace("and not", "is not");
        assert!(text.contains(why), "{key}={value}: {text}");
    }
}

#[test]
fn the_page_before_a_deletion_says_what_depends_on_the_row() {
    let served = Served::busy();
    let mut olga = served.olga();
    let used = olga.get("/master/servers/1/delete");
    used.says("In the way: it serves #1");
    assert!(!used.body.contains("Delete it"), "no button for what cannot be done");
    let version = hidden(&olga.get("/master/servers/1/update").body, "version").unwrap();
    olga.submit("/master/servers/1/delete", &[("version", &version)]).says("serves #1");
    let user = olga.get("/master/git_hub_users/1/delete");
    user.says("#1, #3 would be cloned from the schema of default");
    let version = hidden(&user.body, "version").unwrap();
    olga.submit("/master/git_hub_users/1/delete", &[("version", &version)])
        .says("user 1 is removed");
    assert_eq!(users(&served), ["dev2"]);
    olga.get("/master/pull_requests/1/delete")
        .says("stg1 serves it: close the pull request instead");
}

#[test]
fn rows_of_every_table_are_added_found_changed_and_removed() {
    let served = Served::new();
    let mut olga = served.olga();
    let sha = "a".repeat(40);
    let long = "first line\r\n<i>second</i>\r\n";
    let rows: [(&str, Fields, (&str, &str)); 6] = [
        ("git_hub_users", &USER, ("db_schema", "dev_c2")),
        ("hide_servers", &[("name", "old box")], ("name", "older box")),
        (
            "pull_requests",
            &[("number", "77"), ("state", "closed"), ("sha", &sha), ("title", "T <x>")],
            ("title", "T2"),
        ),
        ("next_release_messages", &[("hash", "h1"), ("content", long)], ("content", "other\ntext")),
        (
            "commits",
            &[("sha", &sha), ("message", long), ("production_reported", "1")],
            ("production_reported", "0"),
        ),
        (
            "issues",
            &[("number", "5"), ("state", "open"), ("title", "I"), ("labels", "a,b")],
            ("labels", ""),
        ),
    ];
    for (table, fields, (column, value)) in rows {
        let made = olga.submit(&format!("/master/{table}/create"), fields);
        made.says("is added");
        let twice = olga.submit(&format!("/master/{table}/create"), fields);
        if table != "hide_servers" {
            assert_eq!(twice.status, 409, "{table}");
            twice.says("There is such a row already");
        }
        let key = fields[0].1;
        let found = olga.get(&format!("/master/{table}?q={}", encoded(key)));
        found.says(key);
        let path = found.body.split(&format!("href=\"/master/{table}/")).find_map(|rest| {
            let id = rest.split('"').next()?;
            id.parse::<u32>().ok().map(|id| format!("/master/{table}/{id}"))
        });
        let path = path.unwrap();
        let version = hidden(&olga.get(&format!("{path}/update")).body, "version").unwrap();
        olga.submit(&format!("{path}/update"), &[("version", &version), (column, value)])
            .says("is saved");
        let version = hidden(&olga.get(&format!("{path}/delete")).body, "version").unwrap();
        olga.submit(&format!("{path}/delete"), &[("version", &version)]).says("is removed");
        assert_eq!(olga.get(&path).status, 404, "{table}");
    }
    olga.get("/master/issues?q=%25").says("No row holds “%”");
    olga.submit("/master/git_hub_users/create", &[("login", "")]).says("login must not be empty");
    olga.submit("/master/git_hub_users/create", &[("login", "eve"), ("db_schema", "stg1")])
        .says("is the schema of server stg1");
}

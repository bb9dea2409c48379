//! The controller's binary as an operator and cron meet it: what it prints, where, and with which
//! exit status. GitHub is the fake one, over HTTP.

#![allow(clippy::unwrap_used)]

mod site;

use std::fs;
use std::path::Path;
use std::process::Command;

use insta::assert_snapshot;
use site::Site;
use testkit::github::{Fault, PullSpec};

fn file_names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn the_help_tells_a_newcomer_what_to_do() {
    assert_snapshot!(Site::bare().run("--help"), @"
    exit 0
    The controller of pullre: gives every pull request its own staging server with its own copy of its
    author's development database.

    Without a command it does one tick; that is what cron calls each minute.

    Usage: update-pull [OPTIONS] [COMMAND]

    Commands:
      tick            One tick: reads GitHub, the machines and the control database, and does what
                      follows
      plan            Shows what the next tick would do and why; changes nothing
      pause           Stops all effects of both binaries until `resume`
      resume          Lets the effects go on
      init            Creates or upgrades the control tables; safe to run again
      status          Shows the environments with stage and URL, the queue and the pool
      explain         Says why a pull request has or lacks an environment
      server          The pool of servers
      user            Whose schema is cloned for whom
      pull            One environment
      clone-schema    Copies a schema into the schema of a registered server that serves nobody
      switch-servers  Starts and stops servers outside the pool by their auto_start_at and auto_stop_at
      grants          Prints the SQL for the logins of controller and staging clients, with only what
                      each needs
      serve           Serves the web console and the webhook, and ticks each `tick_seconds`, until it is
                      stopped
      console-user    Who may use the console, beside `basic_user` of app.ini
      hash-token      Asks for a password (or reads one line from a pipe) and prints the value for
                      basic_password
      doctor          Tries everything that a tick needs and says what is missing, with the remedy
      help            Print this message or the help of the given subcommand(s)

    Options:
          --config <FILE>
              The configuration; relative paths in it are relative to its folder
              
              [env: PULLRE_CONFIG=]
              [default: app.ini]

      -h, --help
              Print help (see a summary with '-h')

      -V, --version
              Print version

    First steps:
      cp app.ini.default app.ini       and fill in what it asks for
      update-pull init                 creates the control tables
      update-pull user set LOGIN SCHEMA
                                       whose database is cloned for whose pull requests
      update-pull server register NAME
      update-pull server set NAME db_schema=NAME check_url=http://127.0.0.1:8001/
      update-pull                      one tick; then staging-client on the server
    Exit status: 0 done or nothing to do, 1 something failed, 2 bad usage or configuration.
    ");
}

#[test]
fn a_missing_configuration_is_named_with_its_remedy() {
    let site = Site::bare();
    fs::remove_file(site.path("app.ini")).unwrap();
    assert_snapshot!(site.run("status"), @"
    exit 2
    stderr: update-pull: DIR/app.ini: there is no such file: copy app.ini.default to that place and fill it in, or name another file by --config
    ");
    assert_snapshot!(site.run("--config elsewhere/app.ini status"), @"
    exit 2
    stderr: update-pull: DIR/elsewhere/app.ini: there is no such file: copy app.ini.default to that place and fill it in, or name another file by --config
    ");
}

#[test]
fn every_fault_of_the_configuration_is_named_at_once() {
    let site = Site::bare();
    site.write_ini("ownr = acme\nrepo = [repository]\ntoken = s3cret token\nmax_changes = many\n");
    let text = site.run("");
    assert!(!text.contains("s3cret"));
    assert_snapshot!(text, @r#"
    exit 2
    stderr: update-pull: warning: DIR/app.ini:1: unknown key `ownr`, ignored; the nearest known one is `owner`
    stderr: update-pull: DIR/app.ini: `owner` is not set, expected the GitHub account that owns the repository: write `owner = ...` there, or set PULLRE_OWNER
    stderr: DIR/app.ini: `repo` is not set, expected the GitHub repository's name, without its owner: write `repo = ...` there, or set PULLRE_REPO
    stderr: DIR/app.ini:3: `token` is malformed (not shown), expected a GitHub token (one word) that may read the repository, or a GitHub App (github_app_id): correct it
    stderr: DIR/app.ini:4: `max_changes` is "many", expected environments, a whole number from 1 to 10000: correct it
    "#);
}

#[test]
fn without_tables_it_says_so_and_makes_none() {
    let site = Site::bare();
    assert_snapshot!(site.run(""), @"
    exit 1
    stderr: update-pull: the control database has no tables of pullre: run `update-pull init`
    ");
    assert_snapshot!(site.run("init --dry-run").lines().last().unwrap(), @"would create alerts");
    assert_eq!(file_names(site.folder.path()), ["app.ini"]);
    site.run("init");
    assert_snapshot!(site.run("init"), @"
    exit 0
    the control tables are complete; nothing to do
    ");
}

#[test]
fn a_tick_prints_each_action_and_an_idle_one_nothing() {
    let site = Site::new();
    site.open_pull("alice");
    assert_snapshot!(site.run("plan"), @"
    exit 0
    seen   #1 open at 910a2de by alice: A warmer welcome
    seen   #1 may have an environment
    #1    assign stg1, start stg1, clone dev_alice to stg1 (next in the queue)
    say    #1 check: in progress, Starting stg1
    say    #1 comment: in progress
    ");
    assert_snapshot!(site.run(""), @"
    exit 0
    seen   #1 open at 910a2de by alice: A warmer welcome
    seen   #1 may have an environment
    #1    assign stg1, start stg1, clone dev_alice to stg1 (next in the queue)
    said   #1 comment: in progress
    said   #1 status: in progress, Starting stg1
    done   #1 assign stg1 in 0.0 s
    done   #1 start stg1 in 0.0 s
    done   #1 clone dev_alice to stg1 in 0.0 s (1 tables, 8 kB)
    done   #1 deploy 910a2de on stg1 in 0.0 s
    seen   stg1 is running
    said   #1 status: in progress, Deploying to stg1
    said   #1 comment: in progress
    stderr: TIME  WARN GitHub does not permit a check: Resource not accessible by personal access token. It needs checks: write (GitHub Apps only); commit statuses take its place
    ");
    assert_snapshot!(site.run(""), @"exit 0");
    assert_snapshot!(site.run("plan"), @"
    exit 0
    nothing to do
    ");
}

#[test]
fn an_idle_tick_asks_github_one_conditional_question() {
    let site = Site::new();
    site.open_pull("alice");
    site.run("");
    site.github.change(|world| world.advance(120));
    site.run("");
    site.github.take_requests();
    let before = site.github.rate_remaining();
    site.run("");
    let asked: Vec<_> = site.github.take_requests().iter().map(ToString::to_string).collect();
    assert_snapshot!(asked.join("\n"), @"GET /repos/acme/shop/pulls?state=all&sort=updated&direction=desc&per_page=100 if-none-match -> 304");
    assert_eq!(site.github.rate_remaining(), before);
}

#[test]
fn listings_are_tables_for_people_and_json_for_scripts() {
    let site = Site::new();
    assert_snapshot!(site.run("status"), @"
    exit 0
    no pull request is open (or no tick has read GitHub yet)

    SERVER  STATE    PULL  SCHEMA  URL                     CLIENT SEEN  NOTE
    stg1    stopped  -     stg1    http://127.0.0.1:8001/  -            -
    ");
    site.open_pull("alice");
    site.open_pull("alice");
    site.run("");
    assert_snapshot!(site.run("status"), @"
    exit 0
    PULL  STAGE      SERVER  HEAD     AUTHOR  TITLE             URL OR REASON
    #1    deploying  stg1    910a2de  alice   A warmer welcome  waits for the staging client of stg1 since TIME TIME UTC
    #2    queued     -       975835d  alice   A warmer welcome  1 of 1 in the queue; no server is free: 1 of 1 in use

    SERVER  STATE    PULL  SCHEMA  URL                     CLIENT SEEN  NOTE
    stg1    running  #1    stg1    http://127.0.0.1:8001/  -            -
    ");
    assert_snapshot!(site.run("pull list --json"), @r#"
    exit 0
    [
      {
        "number": 1,
        "title": "A warmer welcome",
        "author": "alice",
        "stage": "deploying",
        "why": "waits for the staging client of stg1 since TIME TIME UTC",
        "next": null,
        "head": "910a2dec89025cc1beeb8da1658eec67f893a2ee",
        "server": "stg1",
        "server_note": null,
        "url": null,
        "schema": "stg1",
        "source": "dev_alice",
        "cloned_at": TIME
      },
      {
        "number": 2,
        "title": "A warmer welcome",
        "author": "alice",
        "stage": "queued",
        "why": "1 of 1 in the queue; no server is free: 1 of 1 in use",
        "next": null,
        "head": "975835de1c9756cebfc846100bfc1e42987bbcbf",
        "server": null,
        "server_note": null,
        "url": null,
        "schema": null,
        "source": null,
        "cloned_at": null
      }
    ]
    "#);
    assert_snapshot!(site.run("user list"), @"
    exit 0
    LOGIN  SCHEMA
    alice  dev_alice
    ");
    assert_snapshot!(site.run("user list --json"), @r#"
    exit 0
    [
      {
        "login": "alice",
        "schema": "dev_alice"
      }
    ]
    "#);
    assert_snapshot!(site.run("server list"), @"
    exit 0
    SERVER  STATE    PULL  SCHEMA  URL                     CLIENT SEEN  NOTE
    stg1    running  #1    stg1    http://127.0.0.1:8001/  -            -
    ");
    site.run("server hide stg1");
    assert_snapshot!(site.run("server list"), @"
    exit 0
    no server is registered; `update-pull server register` adds one
    ");
    let json: serde_json::Value =
        serde_json::from_slice(&site.command("status --json").output().unwrap().stdout).unwrap();
    assert_eq!(json["environments"][0]["stage"], "deploying");
    assert_eq!(json["servers"][0]["pull"], 1);
}

#[test]
fn explain_says_why() {
    let site = Site::new();
    site.open_pull("alice");
    site.open_pull("mallory");
    site.run("");
    assert_snapshot!(site.run("explain 1"), @"
    exit 0
    #1 A warmer welcome (alice)
      stage   deploying
      why     waits for the staging client of stg1 since TIME TIME UTC
      head    910a2dec89025cc1beeb8da1658eec67f893a2ee
      server  stg1
      data    stg1, a clone of dev_alice, TIME TIME UTC
      last deployment: offered of 910a2de, try 1
      events
        TIME TIME UTC  controller got a server
        TIME TIME UTC  github     open at 910a2de
    ");
    assert_snapshot!(site.run("explain #2"), @"
    exit 0
    #2 A warmer welcome (mallory)
      stage   ineligible
      why     its author mallory has no schema to clone; `update-pull user set mallory SCHEMA` gives one (the login `default` is for everybody else)
      head    975835de1c9756cebfc846100bfc1e42987bbcbf
      events
        TIME TIME UTC  github     open at 975835d
    ");
    assert_snapshot!(site.run("explain 3"), @"
    exit 2
    stderr: update-pull: there is no pull request #3 here; `update-pull pull list` shows the open ones
    ");
    assert_snapshot!(site.run("explain three"), @r#"
    exit 2
    stderr: error: invalid value 'three' for '<NUMBER>': "three" is not the number of a pull request
    stderr: 
    stderr: For more information, try '--help'.
    "#);
}

#[test]
fn what_strangers_write_cannot_reach_the_terminal() {
    let site = Site::new();
    let title = "evil \u{1b}[2J\u{1b}]0;gone\u{7} title\nwith lines";
    site.github.change(|world| {
        let spec =
            PullSpec { head_ref: Some("$(touch x)\u{1b}[31m".into()), ..PullSpec::titled(title) };
        world.open(spec)
    });
    for words in ["plan", "", "status", "explain 1", "pull list"] {
        let output = site.command(words).output().unwrap();
        let all = [output.stdout, output.stderr].concat();
        let escapes = all.iter().filter(|byte| **byte < 0x20 && **byte != b'\n').count();
        assert_eq!(escapes, 0, "{words}: {}", String::from_utf8_lossy(&all));
    }
}

#[test]
fn servers_are_set_by_their_columns_and_nonsense_is_refused() {
    let site = Site::new();
    let mut told = String::new();
    for words in [
        "server register stg1",
        "server register ../../etc",
        "server set stg9 name=x",
        "server set stg1 colour=red",
        "server set stg1 nonsense",
        "server set stg1 check_url=file:///etc/passwd",
        "server set stg1 db_schema=../etc",
        "server set stg1 db_schema=dev_alice",
        "server set stg1 is_staging=maybe",
        "server set stg1 auto_start_at=late",
        "server set stg1 private_ip=10.0.0.5 auto_start_at=08:30 name=box",
        "server list",
        "server set box name= auto_start_at=",
        "user set alice stg1",
        "user set two/words stg1",
        "user remove bob",
        "server remove stg1",
        "server list",
    ] {
        told.push_str(&format!("$ update-pull {words}\n{}", site.run(words)));
    }
    assert_snapshot!(told, @r#"
    $ update-pull server register stg1
    exit 1
    stderr: update-pull: server stg1 is registered already; `update-pull server set` changes it
    $ update-pull server register ../../etc
    exit 2
    stderr: update-pull: "../../etc" cannot name a slot: it becomes part of target_dir's path
    $ update-pull server set stg9 name=x
    exit 2
    stderr: update-pull: there is no server stg9; there are stg1
    $ update-pull server set stg1 colour=red
    exit 2
    stderr: update-pull: a server has no "colour"; it has instance_id, name, private_ip, db_schema, check_url, is_staging, auto_start_at, auto_stop_at, auto_weekdays
    $ update-pull server set stg1 nonsense
    exit 2
    stderr: update-pull: "nonsense" is not of the form key=value
    $ update-pull server set stg1 check_url=file:///etc/passwd
    exit 2
    stderr: update-pull: check_url is "file:///etc/passwd" and not a URL that begins with http:// or https://
    $ update-pull server set stg1 db_schema=../etc
    exit 2
    stderr: update-pull: "../etc" is not a schema name (1 to 64 characters, no slash, backslash or control character, no dot in front, no space at the end, not a system schema)
    $ update-pull server set stg1 db_schema=dev_alice
    exit 1
    stderr: update-pull: its schema dev_alice is the development schema of user alice, which is never overwritten
    $ update-pull server set stg1 is_staging=maybe
    exit 2
    stderr: update-pull: is_staging is "maybe" and not 0 or 1
    $ update-pull server set stg1 auto_start_at=late
    exit 2
    stderr: update-pull: auto_start_at is "late" and not a time of day such as TIME
    $ update-pull server set stg1 private_ip=10.0.0.5 auto_start_at=08:30 name=box
    exit 0
    stg1: set
    $ update-pull server list
    exit 0
    SERVER  STATE    PULL  SCHEMA  URL                     CLIENT SEEN  NOTE
    box     stopped  -     stg1    http://127.0.0.1:8001/  -            -
    $ update-pull server set box name= auto_start_at=
    exit 0
    box: set
    $ update-pull user set alice stg1
    exit 1
    stderr: update-pull: stg1 is the schema of server stg1, which is overwritten for every environment; it cannot be a developer's
    $ update-pull user set two/words stg1
    exit 2
    stderr: update-pull: "two/words" is not a GitHub login
    $ update-pull user remove bob
    exit 2
    stderr: update-pull: there is no user bob; `update-pull user list` shows all
    $ update-pull server remove stg1
    exit 0
    stg1: removed
    $ update-pull server list
    exit 0
    no server is registered; `update-pull server register` adds one
    "#);
}

#[test]
fn a_person_takes_things_out_of_automatic_hands_and_gives_them_back() {
    let site = Site::new();
    site.open_pull("alice");
    site.run("server hold stg1 --reason maintenance --for 2d");
    assert_snapshot!(site.run(""), @"
    exit 0
    seen   #1 open at 910a2de by alice: A warmer welcome
    seen   #1 may have an environment
    #1    waits, place 1: no server is free: 0 of 1 in use; stg1: held since TIME TIME UTC until TIME TIME UTC: maintenance
    said   #1 comment: queued
    said   #1 status: queued, Queued, place 1
    stderr: TIME  WARN GitHub does not permit a check: Resource not accessible by personal access token. It needs checks: write (GitHub Apps only); commit statuses take its place
    ");
    assert_snapshot!(site.run("server release stg1"), @"
    exit 0
    stg1: in automatic hands again
    ");
    assert_snapshot!(site.run("server release stg1"), @"
    exit 1
    stderr: update-pull: server stg1 is not held
    ");
    site.run("");
    assert_snapshot!(site.run("pull hold 1 --reason demo"), @"
    exit 0
    #1: held
    ");
    assert_snapshot!(site.run("pull redeploy 1"), @"
    exit 1
    stderr: update-pull: #1 is out of automatic hands: it is held since TIME TIME UTC: demo; `update-pull pull release 1` ends that
    ");
    assert_snapshot!(site.run("pull release 1"), @"
    exit 0
    #1: in automatic hands again
    ");
    assert_snapshot!(site.run("pull redeploy 1"), @"
    exit 0
    #1: deployed again as soon as its staging client looks
    ");
    assert_snapshot!(site.run("pull hold 1 --for soon"), @r#"
    exit 2
    stderr: update-pull: "soon" is no time span; write 30m, 12h or 2d
    "#);
    assert_snapshot!(site.run("server stop stg1"), @"
    exit 1
    stderr: update-pull: stg1 serves #1: the next tick would start it again. Hold it first: `update-pull server hold stg1`
    ");
    assert_snapshot!(site.run("server remove stg1"), @"
    exit 1
    stderr: update-pull: stg1 serves #1: take it out of the pool (update-pull server set stg1 is_staging=0), and the next tick moves the pull request to another server
    ");
    assert_snapshot!(site.run("pause"), @"
    exit 0
    paused: nothing is done until `update-pull resume`
    ");
    assert_snapshot!(site.run("status").lines().nth(1).unwrap(), @"PAUSED by olga since TIME TIME UTC; `update-pull resume` goes on");
    assert_snapshot!(site.run("resume"), @"
    exit 0
    the next tick goes on
    ");
}

#[test]
fn a_slot_is_off_only_when_its_client_has_stopped_the_app() {
    let site = Site::new();
    site.open_pull("alice");
    site.run("");
    let database = rusqlite::Connection::open(site.path("pullre.db")).unwrap();
    let app = "UPDATE server_facts SET app_pull = 1, app_sha = '910a2dec89025cc1beeb8da1658eec67f893a2ee'";
    database.execute_batch(app).unwrap();
    site.github.change(|world| world.close(1));
    site.github.change(|world| world.open(PullSpec::titled("The next one")));
    assert_snapshot!(site.run(""), @"
    exit 0
    seen   #1 closed at 910a2de by alice: A warmer welcome
    seen   #2 open at 975835d by alice: The next one
    seen   #2 may have an environment
    #1    release stg1 (closed)
    #2    waits, place 1: no server is free: 1 of 1 in use
    done   #1 release stg1 in 0.0 s
    #2    assign stg1 (next in the queue)
    done   #2 assign stg1 in 0.0 s
    said   #1 status: cancelled, Closed
    said   #2 status: in progress, Cloning the database for stg1
    said   #1 comment: cancelled
    said   #2 comment: in progress
    ");
    assert_snapshot!(site.run("explain 2").lines().nth(3).unwrap(), @"  why     stg1 must stop the app of #1 first");
    database.execute_batch("UPDATE server_facts SET app_pull = NULL, app_sha = NULL").unwrap();
    assert_snapshot!(site.run(""), @"
    exit 0
    #2    clone dev_alice to stg1 (it needs its data)
    done   #2 clone dev_alice to stg1 in 0.0 s (1 tables, 8 kB)
    done   #2 deploy 975835d on stg1 in 0.0 s
    said   #2 status: in progress, Deploying to stg1
    said   #2 comment: in progress
    ");
}

#[test]
fn a_clone_by_hand_goes_only_into_a_servers_schema() {
    let site = Site::new();
    assert_snapshot!(site.run("clone-schema dev_alice stg1"), @"
    exit 0
    cloned dev_alice to stg1: 1 tables, 0 rows, 8 kB in 0.0 s
    stderr: copying 8 kB
    stderr: verifying
    stderr: putting the clone in place
    ");
    assert_snapshot!(site.run("clone-schema nobody stg1"), @"
    exit 1
    stderr: update-pull: the source schema `nobody` does not exist (DIR/schemas/nobody.db): create it, or register another schema for its user
    ");
    assert_snapshot!(site.run("clone-schema stg1 dev_alice"), @"
    exit 1
    stderr: update-pull: dev_alice is not the schema of a registered server, so it is not ours to write
    ");
    assert_snapshot!(site.run("clone-schema ../x stg1"), @r#"
    exit 2
    stderr: error: invalid value '../x' for '<SOURCE>': "../x" is not a schema name (1 to 64 characters, no slash, backslash or control character, no dot in front, no space at the end, not a system schema)
    stderr: 
    stderr: For more information, try '--help'.
    "#);
    site.schema("stg2");
    site.run("server register stg2");
    site.run("server set stg2 db_schema=stg2");
    assert_snapshot!(site.run("clone-schema dev_alice stg2"), @"
    exit 1
    stderr: update-pull: stg2 holds something that pullre did not make; `update-pull server take-over stg2` lets it be overwritten
    ");
    assert_snapshot!(site.run("server take-over stg2"), @"
    exit 0
    stg2: schema stg2 is overwritten from now on
    ");
    assert!(site.run("clone-schema dev_alice stg2").starts_with("exit 0"));
}

#[test]
fn what_keeps_github_from_being_read_is_said_with_its_remedy() {
    let faults = [
        ("wrong token", Fault::Unauthorized),
        ("server error", Fault::Status(502)),
        ("nonsense", Fault::Body("<html>".into())),
    ];
    let mut told = String::new();
    for (name, fault) in faults {
        let site = Site::new();
        site.github.fail_always(fault);
        told.push_str(&format!("{name}: {}", site.run("")));
        // It recovers by itself.
        site.github.heal();
        assert!(site.run("").starts_with("exit 0"), "{name}");
    }
    assert_snapshot!(told, @"
    wrong token: exit 1
    stderr: update-pull: GitHub refuses the credentials (401): renew `token` in app.ini
    server error: exit 1
    stderr: update-pull: GitHub cannot be read now: it answers 502 Bad Gateway; the next tick tries again
    nonsense: exit 1
    stderr: update-pull: GitHub's answer makes no sense: not a list of pull requests: expected value at line 1 column 1
    ");
    let site = Site::new();
    let token = site.github.token();
    let url = site.github.url();
    site.write_ini(&format!(
        "owner = acme\nrepo = other\ntoken = {token}\ngithub_api_url = {url}\n"
    ));
    assert_snapshot!(site.run(""), @"
    exit 1
    stderr: update-pull: GitHub knows no repository acme/other for this token (404): check `owner`, `repo` and what the token may see
    ");
    site.write_ini(&format!(
        "owner = acme\nrepo = shop\ntoken = {token}\ngithub_api_url = http://127.0.0.1:9\n"
    ));
    assert_snapshot!(site.run("plan"), @"
    exit 1
    note   what GitHub said before still counts: GitHub cannot be read now: the connection is refused; the next tick tries again
    stderr: update-pull: GitHub cannot be read now: the connection is refused; the next tick tries again
    ");
}

#[test]
fn bad_usage_exits_with_2_and_a_closed_pipe_is_no_failure() {
    let site = Site::new();
    assert!(site.run("nonsense").starts_with("exit 2"));
    assert!(site.run("pull approve 1 abc").starts_with("exit 2"));
    let script = format!("{} status | true", env!("CARGO_BIN_EXE_update-pull"));
    let piped =
        Command::new("sh").args(["-c", &script]).current_dir(&site.folder).output().unwrap();
    assert!(piped.stderr.is_empty(), "{}", String::from_utf8_lossy(&piped.stderr));
}

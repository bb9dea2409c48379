//! `update-pull serve` as systemd, GitHub and a person meet it, and the commands around it.

#![allow(clippy::unwrap_used)]

mod site;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use insta::assert_snapshot;
use nix::pty::openpty;
use nix::sys::termios::{LocalFlags, tcgetattr};
use serde_json::Value;
use site::Site;
use testkit::emulate::Emulate;
use testkit::github::Fault;
use testkit::until;

/// A server that is killed with the test.
struct Serving {
    child: Child,
    address: String,
    notified: UnixDatagram,
}

impl Serving {
    fn start(site: &Site, ini: &str) -> Serving {
        Serving::start_as(site, |address| site.write_ini_more(&format!("{address}{ini}")))
    }

    /// `write` writes app.ini, with this line about where to listen.
    fn start_as(site: &Site, write: impl FnOnce(&str)) -> Serving {
        // A port that was free a moment ago.
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap().to_string();
        drop(free);
        write(&format!("listen = {address}\n"));
        let path = site.path("notify");
        let notified = UnixDatagram::bind(&path).unwrap();
        notified.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut command = site.command("serve");
        command.env("NOTIFY_SOCKET", &path).stdout(Stdio::piped()).stderr(Stdio::piped());
        let serving = Serving { child: command.spawn().unwrap(), address, notified };
        assert_eq!(serving.told(), "READY=1");
        serving
    }

    /// What systemd hears next.
    fn told(&self) -> String {
        let mut buffer = [0; 64];
        let size = self.notified.recv(&mut buffer).expect("a word to systemd");
        String::from_utf8_lossy(&buffer[..size]).into_owned()
    }

    fn ask(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn get(&self, path: &str, authorization: &str) -> String {
        self.ask(&format!(
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: {authorization}\r\n\r\n"
        ))
    }

    /// Ends it as systemd does; what it printed.
    fn stop(mut self) -> (Option<i32>, String, String) {
        let id = self.child.id().to_string();
        let killed = std::process::Command::new("kill").args(["-TERM", &id]).status().unwrap();
        assert!(killed.success());
        assert_eq!(self.told(), "STOPPING=1");
        let (mut out, mut err) = (String::new(), String::new());
        self.child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        self.child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        (self.child.wait().unwrap().code(), out, err)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// sha512("hunter2"), as pullre-kun keeps it.
const OLD: &str = "6b97ed68d14eb3f1aa959ce5d49c7dc612e1eb1dafd73b1e705847483fd6a6c8\
                   09f2ceb4e8df6ff9984c6298ff0285cace6614bf8daa9f0070101b6c89899e22";
/// olga:hunter2
const OLGA: &str = "Basic b2xnYTpodW50ZXIy";

#[test]
fn it_ticks_serves_pages_and_ends_when_it_is_told() {
    let site = Site::new();
    site.open_pull("alice");
    let users = format!("basic_user = olga\nbasic_password = {OLD}\ntick_seconds = 1\n");
    let serving = Serving::start(&site, &users);
    assert!(serving.get("/healthz", "").ends_with("\r\n\r\nok\n"));
    assert!(serving.get("/pull/list", "").starts_with("HTTP/1.1 401"));
    let mut page = String::new();
    until("a tick offers it", || {
        page = serving.get("/pull/list", OLGA);
        assert!(page.starts_with("HTTP/1.1 200"), "{page}");
        // It is seen before anything is done for it.
        let database = rusqlite::Connection::open(site.path("pullre.db")).unwrap();
        let offered = database.query_row("SELECT COUNT(*) FROM deployments", [], |row| row.get(0));
        page.contains("A warmer welcome") && offered.unwrap_or(0) > 0
    });
    assert!(page.contains("stg1"), "{page}");
    let (code, out, err) = serving.stop();
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("done   #1 "), "{out}");
    assert!(err.contains("unsalted SHA-512"), "{err}");
    assert!(err.contains("\"olga\" GET /pull/list 200"), "{err}");
    for secret in ["hunter2", OLD, "b2xnYTpodW50ZXIy", &site.github.token()] {
        assert!(!err.contains(secret) && !out.contains(secret), "{secret} in {err}");
    }
}

#[test]
fn without_a_clock_of_its_own_a_webhook_makes_it_tick() {
    let site = Site::new();
    let serving = Serving::start(&site, "tick_seconds = 0\nwebhook_secret = hooked\n");
    site.open_pull("alice");
    // HMAC-SHA256 of `{}` with the key `hooked`.
    let signature = "sha256=4b2523b561d23b1f474d53982941d9f77d3c29f0b8ee0a4becf693ee3750374d";
    let post = |delivery: &str| {
        serving.ask(&format!(
            "POST /webhook/push HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\
             X-GitHub-Event: pull_request\r\nX-GitHub-Delivery: {delivery}\r\n\
             X-Hub-Signature-256: {signature}\r\n\r\n{{}}"
        ))
    };
    let status = site.run("status");
    assert!(status.contains("no pull request is open"), "no clock ticked: {status}");
    for n in 0..20 {
        let answer = post(&format!("d{n}"));
        assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    }
    until("the webhook makes it tick", || site.run("status").contains("A warmer welcome"));
    let (code, ..) = serving.stop();
    assert_eq!(code, Some(0));
    let database = rusqlite::Connection::open(site.path("pullre.db")).unwrap();
    let ticks: i64 =
        database.query_row("SELECT COUNT(*) FROM ticks", [], |row| row.get(0)).unwrap();
    // A burst is one tick, or two where it took longer than the pause of half a second.
    assert!((1..=2).contains(&ticks), "{ticks} ticks for a burst of 20");
}

#[test]
fn the_metrics_say_what_github_allows_and_for_how_long_it_keeps_requests_back() {
    let site = Site::new();
    let users = format!("basic_user = olga\nbasic_password = {OLD}\ntick_seconds = 1\n");
    let serving = Serving::start(&site, &users);
    let measured = |name: &str| {
        let page = serving.get("/metrics", OLGA);
        let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map(|value| value.parse::<f64>().unwrap())
    };
    let limited = || measured("pullre_github_limited_seconds").unwrap();
    assert!(limited() <= 0.0);
    let left = || measured("pullre_github_rate_remaining");
    until("the first tick has read something", || left().is_some());
    let left = left().unwrap();
    assert!(0.0 < left && left <= 5000.0, "{left}");
    assert_eq!(measured("pullre_github_rate_limit"), Some(5000.0));
    assert!(measured("pullre_github_rate_reset_seconds").unwrap() > 0.0);
    site.github.fail_always(Fault::RateLimited { reset_in: 1800 });
    until("requests are kept back", || limited() > 0.0);
    let (code, ..) = serving.stop();
    assert_eq!(code, Some(0));
}

#[test]
fn what_keeps_it_from_serving_is_said() {
    let site = Site::bare();
    assert_snapshot!(site.run("serve"), @"
    exit 1
    stderr: update-pull: the control database has no tables of pullre: run `update-pull init`
    ");
    site.run("init");
    site.write_ini_more("basic_user = olga\nbasic_password = hunter2\n");
    assert_snapshot!(site.run("serve"), @"
    exit 1
    stderr: update-pull: `basic_password` in app.ini is no hash of a password: set it to what `update-pull hash-token` prints
    ");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    site.write_ini_more(&format!("listen = {address}\n"));
    assert_snapshot!(site.run("serve"), @"
    exit 1
    stderr: update-pull: cannot listen on TIME (key `listen` of app.ini): Address already in use (os error 98)
    ");
    site.write_ini_more("listen = here\ntrusted_proxies = proxy\nbasic_user = a:b\n");
    assert_snapshot!(site.run("serve"), @r#"
    exit 2
    stderr: update-pull: DIR/app.ini:5: `listen` is "here", expected an address and a port, like TIME correct it
    stderr: DIR/app.ini:6: `trusted_proxies` is "proxy", expected addresses or networks like 10.0.0.0/8, separated by commas or spaces: correct it
    stderr: DIR/app.ini:7: `basic_user` is "a:b", expected a name without a colon: correct it
    "#);
}

#[test]
fn doctor_says_what_is_wrong_with_the_consoles_login() {
    let site = Site::new();
    let console = |ini: &str| {
        site.write_ini_more(ini);
        site.private();
        let said = site.run("doctor");
        said.lines().filter(|line| line.contains("console")).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(console(""), "");
    assert!(console("basic_user = olga\n").contains("neither counts"));
    assert!(console("basic_user = olga\nbasic_password = hunter2\n").starts_with("MISSING"));
    let old = console(&format!("basic_user = olga\nbasic_password = {OLD}\n"));
    assert!(old.starts_with("warn") && old.contains("unsalted SHA-512"), "{old}");
    let new = pullre_console::password::hash("correct horse").unwrap();
    assert_eq!(console(&format!("basic_user = olga\nbasic_password = {new}\n")), "");
}

fn with_input(site: &Site, words: &str, input: &str) -> String {
    let mut command = site.command(words);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    format!(
        "exit {}\n{}{}",
        output.status.code().unwrap(),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[test]
fn hash_token_reads_one_line_and_prints_a_hash() {
    let site = Site::bare();
    let one = with_input(&site, "hash-token", "correct horse\nmore\n");
    assert!(one.starts_with("exit 0\n$argon2id$v=19$m=19456,t=2,p=1$"), "{one}");
    assert!(one.ends_with('\n') && one.lines().count() == 2, "{one}");
    assert_ne!(one, with_input(&site, "hash-token", "correct horse\r\n"), "salted");
    assert_snapshot!(with_input(&site, "hash-token", "\n"), @"
    exit 2
    update-pull: the password is empty
    ");
    assert_snapshot!(with_input(&site, "hash-token", "short"), @"
    exit 2
    update-pull: the password has fewer than 8 characters
    ");
    // It needs no app.ini.
    std::fs::remove_file(site.path("app.ini")).unwrap();
    assert!(with_input(&site, "hash-token", "correct horse").starts_with("exit 0\n"));
}

/// What a shell in a terminal of its own prints that runs `hash-token` while somebody types.
fn in_a_terminal(site: &Site, typed: &str) -> String {
    let pty = openpty(None, None).unwrap();
    // The shell outlives it, as a person's does, and says what the terminal is like then.
    let script = "trap : INT QUIT; \"$0\" hash-token 2>&1; echo \"exit $?\"; stty -a";
    let mut command = Command::new("setsid");
    command.args(["--ctty", "sh", "-c", script, env!("CARGO_BIN_EXE_update-pull")]);
    command.current_dir(site.path("."));
    let mut child =
        command.stdin(pty.slave).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    until("it asks without echo", || {
        assert_eq!(child.try_wait().unwrap(), None, "it asks without echo");
        !tcgetattr(&pty.master).unwrap().local_flags.contains(LocalFlags::ECHO)
    });
    let mut keyboard = std::fs::File::from(pty.master);
    keyboard.write_all(typed.as_bytes()).unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
}

#[test]
fn the_terminal_echoes_again_whatever_ends_the_question_for_a_password() {
    let site = Site::bare();
    for (typed, said, code) in [
        ("correct horse\n", "$argon2id$", 0),
        ("half\u{3}", "cannot read a password: interrupted", 1),
        ("half\u{1c}", "cannot read a password: interrupted", 1),
        ("suspended\u{1a}\n", "the password holds a control character", 2),
        ("\u{4}", "the password is empty", 2),
    ] {
        let out = in_a_terminal(&site, typed);
        assert!(out.contains(said), "{typed:?}: {out}");
        assert!(out.contains(&format!("\nexit {code}\n")), "{typed:?}: {out}");
        assert!(!out.contains("correct horse"), "{out}");
        let modes: Vec<_> = out.split_whitespace().collect();
        assert!(modes.contains(&"echo") && modes.contains(&"isig"), "{typed:?}: {out}");
    }
}

#[test]
fn users_of_the_console_are_added_listed_and_removed() {
    let site = Site::new();
    assert_snapshot!(site.run("console-user list"), @"
    exit 0
    the console has no user but `basic_user`; `update-pull console-user add NAME` adds one
    ");
    assert_snapshot!(with_input(&site, "console-user add rita --role read-only", "rita may look\n"), @"
    exit 0
    rita: read-only
    ");
    assert_snapshot!(with_input(&site, "console-user add otto", "otto's password\n"), @"
    exit 0
    otto: operator
    ");
    assert_snapshot!(with_input(&site, "console-user add a:b", "otto's password\n"), @r#"
    exit 2
    update-pull: "a:b" cannot be a name: no colon in it, at most 128 characters
    "#);
    assert_snapshot!(site.run("console-user list"), @"
    exit 0
    NAME  ROLE
    otto  operator
    rita  read-only
    ");
    assert_snapshot!(site.run("console-user list --json"), @r#"
    exit 0
    [
      {
        "name": "otto",
        "role": "operator"
      },
      {
        "name": "rita",
        "role": "read-only"
      }
    ]
    "#);
    assert_snapshot!(site.run("console-user remove otto"), @"
    exit 0
    otto: removed
    ");
    assert_snapshot!(site.run("console-user remove otto"), @r#"
    exit 2
    stderr: update-pull: there is no console user "otto"; `update-pull console-user list` shows all
    "#);
}

#[test]
fn what_github_delivers_by_itself_makes_a_tick_and_what_a_stranger_signs_does_not() {
    let (site, github) = (Site::new(), Emulate::start().unwrap());
    let serving = Serving::start_as(&site, |listen| {
        let app = github.app_ini();
        // No clock: only what is delivered makes a tick.
        site.write_ini(&format!("{app}{listen}tick_seconds = 0\nwebhook_secret = hooked\n"));
    });
    let url = format!("http://{}/webhook/push", serving.address);
    let ticks = || {
        let database = rusqlite::Connection::open(site.path("pullre.db")).unwrap();
        database.query_row("SELECT COUNT(*) FROM ticks", [], |row| row.get::<_, u32>(0)).unwrap()
    };
    let patiently = |what: &str, done: &dyn Fn() -> bool| {
        // Long beyond what a loaded machine takes.
        let waits = (0..2400).any(|_| {
            done() || {
                std::thread::sleep(Duration::from_millis(50));
                false
            }
        });
        assert!(waits, "{what}");
    };
    let stranger = github.hook(&url, "guessed");
    github.open("one");
    patiently("a delivery", &|| github.answered(stranger).contains(&401));
    assert!(github.answered(stranger).iter().all(|status| *status == 401));
    assert_eq!(ticks(), 0);

    let hook = github.hook(&url, "hooked");
    github.open("two");
    patiently("a tick", &|| ticks() > 0);
    assert!(github.answered(hook).contains(&202));
    let said = |number: u32| {
        let comments = github.call("GET", &format!("/issues/{number}/comments"), &Value::Null);
        comments.as_array().is_some_and(|comments| comments.len() == 1)
    };
    patiently("a comment on each", &|| said(1) && said(2));
    assert_eq!(serving.stop().0, Some(0));
}

//! One machine with one slot, its control database, a repository with pull request 7, and an app
//! that answers with what is in its file `version`.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pullre::config::DatabaseConfig;
use pullre::domain::{
    InstanceId, InstanceState, PullNumber, PullRequest, PullState, SchemaName, ServerId, Sha,
};
use pullre::facts::{Deployment, Outcome};
use pullre::reconcile::plan::Record;
use pullre::store::backend::Backend;
use pullre::store::mysql::{Mysql, MysqlAccess};
use pullre::store::{Duty, Step, Store, Won};
use tempfile::TempDir;
use testkit::mariadb::Mariadb;
pub use testkit::until;

pub const PULL: PullNumber = PullNumber(7);
pub const BRANCH: &str = "topic";

/// Answers each request with the file `version`.
const APP: &str = r#"
import os, socket, sys
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("127.0.0.1", int(os.environ["PORT"])))
s.listen(16)
body = open("version").read()
while True:
    c, _ = s.accept()
    c.recv(4096)
    c.sendall(("HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)).encode())
    c.close()
"#;

/// The interpreter itself: what is found by the name may be a slow script in front of it.
pub fn python() -> &'static str {
    static PYTHON: OnceLock<String> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let asked =
            Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output();
        String::from_utf8(asked.unwrap().stdout).unwrap().trim().to_owned()
    })
}

/// `PYTHON app.py`, quick to start.
pub fn app() -> String {
    format!("exec {} -S -E app.py", python())
}

pub struct World {
    folder: TempDir,
    pub port: u16,
    pub store: Store,
    pub server: ServerId,
    settings: Vec<(String, String)>,
    attempt: u32,
    /// Programs in `bin` come before the machine's.
    wrapped: bool,
    mysql: Option<MysqlAccess>,
}

impl World {
    pub fn new() -> World {
        World::with_exec(&app())
    }

    /// Nothing is offered yet; the slot runs; `target_dir` is a clone at the first commit.
    pub fn with_exec(exec_command: &str) -> World {
        World::with(exec_command, |root| Store::create_sqlite(&root.join("pullre.db")).unwrap())
    }

    /// The same on a server of its own, whose control database is in the tests' MariaDB.
    pub fn on_mariadb() -> World {
        let config = Mariadb::shared().database();
        let (access, _) = MysqlAccess::new(&config).unwrap();
        let mut world =
            World::with(&app(), |_| Store::new(Box::new(Mysql::open(&access).unwrap())));
        let DatabaseConfig::Mysql { host, port, user, name, .. } = config else { unreachable!() };
        world.settings.retain(|(key, _)| key != "mysql_pw");
        world.set("mysql_host", &host).set("mysql_port", &port.to_string());
        world.set("mysql_user", &user).set("mysql_db", name.as_str());
        world.mysql = Some(access);
        world
    }

    /// Somebody writes into the MySQL control database without asking us.
    pub fn by_hand(&self, sql: &str) {
        Mysql::open(self.mysql.as_ref().unwrap()).unwrap().execute(sql, &[]).unwrap();
    }

    fn with(exec_command: &str, store: impl FnOnce(&Path) -> Store) -> World {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let now = Timestamp::now();
        let mut store = store(root);
        store.migrate(now).unwrap();
        let server = add_server(&mut store, "stg1", &format!("http://127.0.0.1:{port}/"));
        let settings = [
            ("owner", "acme"),
            ("repo", "shop"),
            ("target_dir", "work"),
            ("exec_command", exec_command),
            ("check_timeout", "20"),
            ("stop_timeout", "3"),
            ("mysql_pw", "hunter2-secret"),
        ];
        let mut world = World {
            port,
            store,
            server,
            settings: settings.map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec(),
            attempt: 0,
            wrapped: false,
            mysql: None,
            folder,
        };
        world.git(".", &["init", "-q", "--bare", "-b", "main", "origin.git"]);
        world.git(".", &["init", "-q", "-b", "main", "author"]);
        world.git("author", &["remote", "add", "origin", "../origin.git"]);
        let base = world.commit(&[("app.py", APP), ("version", "base"), (".gitignore", "kept/\n")]);
        world.git("author", &["push", "-q", "origin", "HEAD:refs/heads/main"]);
        world.git(".", &["clone", "-q", "origin.git", "work"]);
        // A remote that is a path may be relative to the work tree.
        world.git("work", &["remote", "set-url", "origin", "../origin.git"]);
        world.record_pull(&base, BRANCH);
        let source: SchemaName = "alice".parse().unwrap();
        assert_eq!(world.store.assign(PULL, server, &source, now).unwrap(), Won::Yes);
        world.write_config();
        world
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Replaces a key of app.ini; an empty value unsets it.
    pub fn set(&mut self, key: &str, value: &str) -> &mut World {
        self.settings.retain(|(known, _)| known != key);
        self.settings.push((key.to_owned(), value.to_owned()));
        self.write_config();
        self
    }

    fn write_config(&self) {
        let text: String = self.settings.iter().map(|(k, v)| format!("{k} = {v}\n")).collect();
        self.write("app.ini", &text);
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(self.path("app.ini"), mode).unwrap();
    }

    pub fn git(&self, folder: &str, args: &[&str]) -> String {
        let mut command = Command::new("git");
        hermetic(&mut command, self.folder.path());
        // Some tests give repositories to another user.
        let settings = self.path("gitconfig");
        fs::write(&settings, "[safe]\n\tdirectory = *\n[protocol \"file\"]\n\tallow = always\n")
            .unwrap();
        command.env("GIT_CONFIG_GLOBAL", settings);
        let out = command.args(args).current_dir(self.path(folder)).output().unwrap();
        assert!(out.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap().trim().to_owned()
    }

    /// A commit of the author's, not pushed yet.
    pub fn commit(&self, files: &[(&str, &str)]) -> Sha {
        for (name, text) in files {
            self.write(&format!("author/{name}"), text);
        }
        self.git("author", &["add", "-A"]);
        self.git("author", &["commit", "-q", "--allow-empty", "-m", "work"]);
        self.git("author", &["rev-parse", "HEAD"]).parse().unwrap()
    }

    /// As GitHub shows a push to a pull request.
    pub fn push(&self, files: &[(&str, &str)]) -> Sha {
        let sha = self.commit(files);
        let branch = format!("+HEAD:refs/heads/{BRANCH}");
        let pull = format!("+HEAD:refs/pull/{}/head", PULL.0);
        self.git("author", &["push", "-q", "origin", &branch, &pull]);
        sha
    }

    pub fn record_pull(&mut self, head: &Sha, head_ref: &str) {
        let now = Timestamp::now();
        let request = PullRequest {
            number: PULL,
            state: PullState::Open,
            head: head.clone(),
            head_ref: head_ref.to_owned(),
            base_ref: "main".into(),
            title: "Work".into(),
            body: String::new(),
            author: None,
            head_repo: None,
            is_fork: false,
            is_draft: false,
            labels: Vec::new(),
            created_at: now,
            updated_at: now,
            closed_at: None,
        };
        self.store.record(&[Record::Pull(Box::new(request))], now).unwrap();
    }

    /// Asks the client for this commit, as the controller does.
    pub fn offer(&mut self, sha: &Sha) {
        self.attempt += 1;
        self.record_pull(sha, BRANCH);
        self.offer_again(sha);
    }

    /// Another deployment of a commit that the pull request's row has.
    pub fn offer_again(&mut self, sha: &Sha) {
        let now = Timestamp::now();
        let won = self.store.offer(PULL, self.server, sha, self.attempt, now).unwrap();
        assert_eq!(won, Won::Yes);
    }

    pub fn push_and_offer(&mut self, files: &[(&str, &str)]) -> Sha {
        let sha = self.push(files);
        self.offer(&sha);
        sha
    }

    pub fn client(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_staging-client"));
        hermetic(&mut command, self.folder.path());
        command.args(args).current_dir(self.folder.path());
        if self.wrapped {
            let path = std::env::var("PATH").unwrap();
            command.env("PATH", format!("{}:{path}", self.path("bin").display()));
        }
        command
    }

    pub fn run(&self, args: &[&str]) -> Ran {
        Ran::from(self.client(args).output().unwrap())
    }

    pub fn tick(&self) -> Ran {
        self.run(&[])
    }

    /// One that must come to an end by itself, whatever it meets.
    pub fn tick_that_ends(&self) -> Ran {
        let mut client = self.client(&[]);
        let mut child = client.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let began = Instant::now();
        while child.try_wait().unwrap().is_none() {
            if began.elapsed() > Duration::from_secs(60) {
                child.kill().unwrap();
                child.wait().unwrap();
                panic!("staging-client hangs");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ran::from(child.wait_with_output().unwrap())
    }

    /// In the place of a file it holds whoever opens it for ever.
    pub fn fifo(&self, name: &str) {
        let mode = nix::sys::stat::Mode::from_bits_truncate(0o666);
        nix::unistd::mkfifo(&self.path(name), mode).unwrap();
    }

    /// A client of its own, in the background.
    pub fn spawn(&self) -> Child {
        self.client(&[]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    pub fn duty(&mut self) -> Duty {
        self.store.duties_of("stg1").unwrap().remove(0)
    }

    /// What is or was wanted last.
    pub fn deployment(&mut self) -> Deployment {
        self.store.deployments_of(PULL, 1).unwrap().remove(0)
    }

    pub fn steps(&mut self) -> Vec<Step> {
        let id = self.deployment().id;
        self.store.steps_of(id).unwrap()
    }

    pub fn step(&mut self, name: &str) -> Option<Step> {
        self.steps().into_iter().rfind(|step| step.name == name)
    }

    /// The reason of the last deployment, which failed in this step.
    pub fn failed_in(&mut self, step: &str) -> String {
        let deployment = self.deployment();
        assert_eq!(deployment.outcome, Outcome::Failed, "{:?}", self.steps());
        assert_eq!(deployment.failed_step.as_deref(), Some(step), "{deployment:?}");
        deployment.reason.unwrap()
    }

    pub fn assert_serves(&mut self, version: &str) {
        assert_eq!(self.deployment().outcome, Outcome::Succeeded, "{:?}", self.steps());
        assert_eq!(self.answer().as_deref(), Some(version));
    }

    /// The body that the app answers with; None where nothing answers.
    pub fn answer(&self) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        Some(text.split_once("\r\n\r\n")?.1.to_owned())
    }

    /// Puts a program in front of those of the machine.
    pub fn program(&mut self, name: &str, text: &str) {
        let path = format!("bin/{name}");
        self.write(&path, text);
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(self.path(&path), mode).unwrap();
        self.wrapped = true;
    }

    /// Puts a script in front of the git program that the client calls; `exec $GIT "$@"` goes on.
    pub fn wrap_git(&mut self, script: &str) {
        let git = std::env::split_paths(&std::env::var_os("PATH").unwrap())
            .map(|folder| folder.join("git"))
            .find(|path| path.is_file())
            .unwrap();
        self.program("git", &format!("#!/bin/sh\nGIT={}\n{script}\n", git.display()));
    }

    /// An app that somebody else started, at this world's port; it ends with the world.
    pub fn foreign_app(&self, folder: &str, args: &[&str]) -> Child {
        let child = Command::new(python())
            .args(["-S", "-E", "app.py"])
            .args(args)
            .env("PORT", self.port.to_string())
            .current_dir(self.path(folder))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        until("the foreign app answers", || self.answer().is_some());
        child
    }

    /// Everything alive that was started for this machine's server.
    pub fn processes(&self) -> Vec<i32> {
        marked(&self.folder.path().canonicalize().unwrap())
    }

    /// The groups of processes that were made for this machine's servers.
    pub fn groups(&self) -> Vec<PathBuf> {
        let places = fs::read_to_string(self.path(".pullre/groups")).unwrap_or_default();
        let inside = places.lines().filter_map(|place| fs::read_dir(place).ok()).flatten();
        // Of this world: the clients of others run at the same time.
        let name = format!("pullre-{:016x}-", self.owner());
        let ours =
            inside.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(&name));
        ours.map(|entry| entry.path()).collect()
    }

    /// The name of this installation, as FNV-1a shortens it.
    fn owner(&self) -> u64 {
        let state = self.path(".pullre").canonicalize().unwrap_or_default();
        state.display().to_string().bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
    }

    pub fn kill_app(&self) {
        for pid in self.processes() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        until("the app is dead", || self.processes().is_empty());
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let Ok(root) = self.folder.path().canonicalize() else { return };
        // Some tests start what nobody marks.
        let inside = |pid: &i32| {
            std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(&root))
        };
        for pid in marked(&root).into_iter().chain(pids().filter(inside)) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        until("no group is left behind", || self.groups().iter().all(|g| remove_group(g)));
    }
}

/// Children first. A group is only gone once its processes are.
fn remove_group(group: &Path) -> bool {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_group(&entry.path());
        }
    }
    fs::remove_dir(group).is_ok() || !group.exists()
}

pub fn add_server(store: &mut Store, name: &str, check_url: &str) -> ServerId {
    let (id, now) = (InstanceId(name.to_owned()), Timestamp::now());
    store.add_local_slot(&id).unwrap();
    let _ = store.set_local_slot(&id, InstanceState::Running).unwrap();
    let server = store.add_server(&id, name, now).unwrap();
    let columns = [("check_url", check_url.into()), ("db_schema", name.into())];
    store.set_server(server, &columns, now).unwrap();
    server
}

fn marked(root: &Path) -> Vec<i32> {
    let mark = format!("PULLRE_DEPLOYMENT={}/", root.display());
    let is_ours = |pid: &i32| {
        let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environ.split(|b| *b == 0).any(|v| v.starts_with(mark.as_bytes()))
    };
    pids().filter(is_ours).collect()
}

fn pids() -> impl Iterator<Item = i32> {
    let all = fs::read_dir("/proc").unwrap().flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Nothing of the machine's or the person's git, and none of our settings.
fn hermetic(command: &mut Command, home: &Path) {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ["GIT_", "PULLRE_", "AWS_"].iter().any(|prefix| text.starts_with(prefix)) {
            command.env_remove(&name);
        }
    }
    command
        .env("HOME", home)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_AUTHOR_NAME", "a")
        .env("GIT_AUTHOR_EMAIL", "a@example.com")
        .env("GIT_COMMITTER_NAME", "a")
        .env("GIT_COMMITTER_EMAIL", "a@example.com")
        // Whatever the tests run on says nothing of itself.
        .env("AWS_EC2_METADATA_DISABLED", "true");
}

pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Ran {
        Ran {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Ran {
    #[track_caller]
    pub fn ok(self) -> Ran {
        assert_eq!(self.code, 0, "stdout: {}\nstderr: {}", self.out, self.err);
        self
    }

    #[track_caller]
    pub fn fails(self) -> Ran {
        assert_eq!(self.code, 1, "stdout: {}\nstderr: {}", self.out, self.err);
        self
    }
}

/// Says that a test could not show anything, past the harness, which hides what a test prints.
pub fn skipped(why: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let _ = writeln!(std::io::stderr(), "\nSKIPPED {test}: {why}\n");
}

#[track_caller]
pub fn assert_says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

//! A private `mariadbd` in a temporary folder: one for each test binary, a fresh database for each
//! test, nothing left behind.

use std::fs::File;
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use mysql::prelude::Queryable;
use mysql::{Conn, OptsBuilder};
use pullre::config::{DatabaseConfig, Secret};

/// How long a loaded machine may take to bring the server up.
const START_TIMEOUT: Duration = Duration::from_secs(120);

const LOG_SIZE: &str = "--innodb-log-file-size=8M";

/// The shell stands between us and the server: when we end, in whatever way, its input ends, and it
/// stops the server and removes the folder. Whoever kills the shell itself has to clean up.
const WATCHDOG: &str = r#"
folder=$1; shift
"$@" >"$folder/log" 2>&1 </dev/null &
server=$!
read -r _
kill -9 "$server"
wait "$server"
rm -rf "$folder"
"#;

#[derive(Debug)]
pub struct Mariadb {
    folder: PathBuf,
    port: u16,
    databases: AtomicU32,
    options: Vec<String>,
    /// The last one watches the server; the others watched those that were killed.
    watchdogs: Vec<Watchdog>,
}

#[derive(Debug)]
struct Watchdog {
    process: Child,
    /// Closing it stops the server.
    line: Option<ChildStdin>,
}

impl Mariadb {
    /// The server that all tests of this binary share.
    ///
    /// # Panics
    /// With a sentence that says what is missing, where no server can be started.
    pub fn shared() -> &'static Mariadb {
        static SHARED: OnceLock<Mariadb> = OnceLock::new();
        SHARED.get_or_init(|| Mariadb::start(&[]).unwrap_or_else(|e| panic!("{e}")))
    }

    /// A server of its own, with further options.
    pub fn start(options: &[String]) -> io::Result<Mariadb> {
        // Memory, where there is such a folder.
        let shm = Path::new("/dev/shm");
        let temporary = std::env::temp_dir();
        Mariadb::start_in(if shm.is_dir() { shm } else { &temporary }, options)
    }

    /// The same, in a new folder of this one.
    pub fn start_in(parent: &Path, options: &[String]) -> io::Result<Mariadb> {
        let installer = program("mariadb-install-db")?;
        let server = program("mariadbd")?;
        let folder = tempfile::tempdir_in(parent)?;
        let data = folder.path().join("data");
        let user = whoami()?;
        run(Command::new("cp").arg("-a").arg(template(&server, &installer, &user)?).arg(&data))?;
        // Another process may take the port before the server does; then it does not come up, and
        // the tests say so.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        // From here on the watchdog removes it.
        let folder = folder.keep();
        let (databases, options) = (AtomicU32::new(0), options.to_vec());
        let mut mariadb = Mariadb { folder, port, databases, options, watchdogs: Vec::new() };
        mariadb.spawn()?;
        mariadb.wait_until_up()?;
        Ok(mariadb)
    }

    fn spawn(&mut self) -> io::Result<()> {
        let folder = &self.folder;
        let mut process = Command::new("sh")
            .args(["-c", WATCHDOG, "mariadb-watchdog"])
            .arg(folder)
            .arg(program("mariadbd")?)
            .args(["--no-defaults", "--bind-address=127.0.0.1", "--skip-name-resolve"])
            .arg(format!("--user={}", whoami()?))
            .arg(format!("--datadir={}", folder.join("data").display()))
            .arg(format!("--socket={}", folder.join("sock").display()))
            .arg(format!("--pid-file={}", folder.join("pid").display()))
            .arg(format!("--port={}", self.port))
            // A server that starts removes what looks like temporary tables in there, also those of
            // others.
            .arg(format!("--tmpdir={}", folder.display()))
            // Nothing of it outlives the tests.
            .args(["--innodb-flush-log-at-trx-commit=0", "--innodb-flush-method=nosync"])
            .args(["--innodb-doublewrite=0", "--innodb-buffer-pool-size=32M"])
            .args([LOG_SIZE, "--skip-log-bin", "--performance-schema=0"])
            .args([
                "--max-connections=500",
                "--key-buffer-size=1M",
                "--aria-pagecache-buffer-size=1M",
            ])
            // Defaults as unfriendly as one may meet: whoever connects has to say what they need.
            .args(["--character-set-server=latin1", "--skip-character-set-client-handshake"])
            .args(["--default-time-zone=+09:00", "--sql-mode=ANSI_QUOTES,PIPES_AS_CONCAT"])
            .args(&self.options)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let line = process.stdin.take();
        self.watchdogs.push(Watchdog { process, line });
        Ok(())
    }

    /// Kills the server, as a power failure would, and starts it again.
    pub fn kill_and_restart(&mut self) -> io::Result<()> {
        let pid = std::fs::read_to_string(self.folder.join("pid"))?;
        run(Command::new("kill").args(["-9", pid.trim()]))?;
        while Path::new("/proc").join(pid.trim()).exists() {
            // Reaped only by the watchdog, which waits for its line: a zombie holds nothing.
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
            if stat.is_ok_and(|stat| stat.contains(") Z ")) {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.spawn()?;
        self.wait_until_up()
    }

    fn wait_until_up(&self) -> io::Result<()> {
        let began = Instant::now();
        loop {
            match self.try_connect() {
                Ok(_) => return Ok(()),
                Err(_) if began.elapsed() < START_TIMEOUT && !self.has_given_up() => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(e) => {
                    let log = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
                    let mut end: Vec<_> = log.lines().rev().take(15).collect();
                    end.reverse();
                    return Err(io::Error::other(format!(
                        "mariadbd does not come up: {e}\n{}",
                        end.join("\n")
                    )));
                }
            }
        }
    }

    fn has_given_up(&self) -> bool {
        std::fs::read_to_string(self.folder.join("log"))
            .is_ok_and(|log| log.contains("[ERROR] Aborting"))
    }

    fn try_connect(&self) -> mysql::Result<Conn> {
        let opts = OptsBuilder::new()
            .socket(Some(self.socket().to_string_lossy()))
            .user(Some("root"))
            .prefer_socket(false);
        Conn::new(opts)
    }

    /// A connection of the server's administrator, to no database.
    pub fn administrator(&self) -> Conn {
        self.try_connect().expect("the test's MariaDB answers")
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.join("sock")
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder that the server lives in; goes with it.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A new, empty database, reached over TCP by a login that may do everything.
    pub fn database(&self) -> DatabaseConfig {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let sql = format!("CREATE DATABASE {name} CHARACTER SET utf8mb4");
        self.administrator().query_drop(sql).expect("a new database");
        DatabaseConfig::Mysql {
            host: "127.0.0.1".into(),
            port: self.port,
            user: "root".into(),
            password: Secret::default(),
            name: name.parse().expect("a schema name"),
            additional: String::new(),
        }
    }
}

impl Drop for Mariadb {
    fn drop(&mut self) {
        for watchdog in self.watchdogs.iter_mut().rev() {
            watchdog.line = None;
            // It only reaps: the watchdog ends by itself.
            let _ = watchdog.process.wait();
        }
    }
}

/// In the usual places of system programs, which an ordinary user's PATH leaves out.
fn program(name: &str) -> io::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/usr/local/sbin", "/usr/libexec"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(system)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
        .ok_or_else(|| {
            io::Error::other(format!(
                "these tests need {name}, which is not installed: run scripts/setup, or apt-get \
                 install mariadb-server"
            ))
        })
}

/// A data folder as a fresh installation has it, beside the test binaries: making one takes longer
/// than a test, and some runners start one process for each test.
fn template(server: &Path, installer: &Path, user: &str) -> io::Result<PathBuf> {
    let binary = std::env::current_exe()?;
    let beside = binary.parent().ok_or_else(|| io::Error::other("a test binary without folder"))?;
    let version = run(Command::new(server).args(["--no-defaults", "--version"]))?;
    let version: String =
        version.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '.').collect();
    let template = beside.join(format!("mariadb-data-{user}-{version}"));
    let lock = File::create(beside.join("mariadb-data.lock"))?;
    lock.lock()?;
    if !template.exists() {
        let fresh = tempfile::tempdir_in(beside)?;
        let data = fresh.path().join("data");
        run(Command::new(installer)
            .args(["--no-defaults", "--auth-root-authentication-method=normal"])
            .args(["--skip-test-db", "--skip-name-resolve", LOG_SIZE])
            .args([format!("--datadir={}", data.display()), format!("--user={user}")]))?;
        std::fs::rename(data, &template)?;
    }
    Ok(template)
}

/// What a program printed; what it complained of where it failed.
fn run(command: &mut Command) -> io::Result<String> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    let program = command.get_program().to_string_lossy();
    Err(io::Error::other(format!("{program} failed: {complaint}")))
}

/// The server refuses to run as root unless it is told so by name.
fn whoami() -> io::Result<String> {
    run(Command::new("id").arg("-un"))
}

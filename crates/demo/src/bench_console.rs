//! What `scripts/bench console` measures: the web console over an installation of 500 servers and
//! 200 pull requests, as a process of its own.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrIn};

use crate::installation::{Installation, free_port};

const SERVERS: u32 = 500;
const PULLS: u32 = 200;
const REQUESTS: usize = if cfg!(debug_assertions) { 50 } else { 500 };
/// After which memory is looked at again.
const MANY: usize = if cfg!(debug_assertions) { 300 } else { 10_000 };
const LIVE_PAGES: usize = 50;
/// Users of the console besides olga, with the same password.
const GUESTS: usize = 60;
/// olga:bench-password
const OLGA: &str = "Basic b2xnYTpiZW5jaC1wYXNzd29yZA==";

pub fn run(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    let folder = folder.canonicalize()?;
    let measured = measure(&folder);
    measured.and(fs::remove_dir_all(&folder).context("cannot clean up"))
}

struct Served {
    process: Child,
    address: String,
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A connection that is kept.
struct Browser(BufReader<TcpStream>);

impl Browser {
    fn open(address: &str) -> Result<Browser> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Browser(BufReader::new(stream)))
    }

    /// From another address of this machine, which is another place to the console.
    fn open_from(from: Ipv4Addr, address: &str) -> Result<Browser> {
        let (family, kind) = (AddressFamily::Inet, SockType::Stream);
        let socket = socket::socket(family, kind, SockFlag::SOCK_CLOEXEC, None)?;
        let from = SockaddrIn::from(SocketAddrV4::new(from, 0));
        socket::bind(socket.as_raw_fd(), &from)?;
        let to = SockaddrIn::from(address.parse::<SocketAddrV4>()?);
        socket::connect(socket.as_raw_fd(), &to)?;
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        Ok(Browser(BufReader::new(stream)))
    }

    fn page(&mut self, path: &str, authorization: &str) -> Result<String> {
        let (status, body) = self.answer(path, authorization)?;
        ensure!(status == 200, "{path} answers {status}");
        Ok(String::from_utf8(body)?)
    }

    fn ask(&mut self, path: &str, authorization: &str) -> Result<(u16, usize)> {
        let (status, body) = self.answer(path, authorization)?;
        Ok((status, body.len()))
    }

    fn answer(&mut self, path: &str, authorization: &str) -> Result<(u16, Vec<u8>)> {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: {authorization}\r\n\r\n");
        self.0.get_mut().write_all(request.as_bytes())?;
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            ensure!(self.0.read_line(&mut head)? > 0, "the connection ended: {head}");
        }
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).context("a status")?;
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok())
            .unwrap_or(0);
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        Ok((status, body))
    }
}

impl Served {
    /// Milliseconds of CPU so far.
    fn cpu(&self) -> Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        let fields: Vec<_> = stat.rsplit(") ").next().context("a stat")?.split(' ').collect();
        let ticks = |at: usize| fields[at].parse::<f64>();
        // Hundredths of a second, whatever the kernel's own clock is.
        Ok((ticks(11)? + ticks(12)?) * 10.0)
    }

    fn memory(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
        let kilobytes: f64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kilobytes / 1024.0)
    }
}

fn start(folder: &Path) -> Result<Served> {
    let pullre = Installation::at(folder)?;
    let update = pullre.binary("update-pull").display().to_string();
    let hashed = Command::new("sh")
        .args(["-c", &format!("echo bench-password | '{update}' hash-token")])
        .output()?;
    let hash = String::from_utf8(hashed.stdout)?;
    let address = format!("127.0.0.1:{}", free_port()?);
    fs::write(
        folder.join("app.ini"),
        format!(
            "owner = acme\nrepo = shop\ntoken = none\nlisten = {address}\nbasic_user = olga\n\
             basic_password = {hash}\ntick_seconds = 0\nlogging_level = WARNING\n"
        ),
    )?;
    pullre.run("update-pull", &["init"])?;
    fill(&folder.join("pullre.db"), hash.trim())?;
    let process = Command::new(update)
        .args(["--config", &folder.join("app.ini").display().to_string(), "serve"])
        .stdout(Stdio::null())
        .spawn()?;
    let served = Served { process, address };
    for _ in 0..200 {
        if TcpStream::connect(&served.address).is_ok() {
            return Ok(served);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    anyhow::bail!("update-pull serve does not listen")
}

/// An installation as it is after some weeks.
fn fill(database: &Path, password: &str) -> Result<()> {
    let now = jiff_now()?;
    let mut sql = String::from("BEGIN;");
    for n in 1..=GUESTS {
        write!(
            sql,
            "INSERT INTO console_users (name, password, role, created_at)
                 VALUES ('guest{n}', '{password}', 'read-only', {now});"
        )?;
    }
    for n in 1..=SERVERS {
        write!(
            sql,
            "INSERT INTO servers (id, created_at, updated_at, instance_id, name, private_ip, db_schema, check_url,
                 is_staging) VALUES ({n}, '2026-01-01', '2026-01-01', 'i-{n:017x}', 'stg{n}', '10.0.{}.{}',
                 'stg{n}', 'https://stg{n}.example.com/', 1);
             INSERT INTO server_facts (server_id, start_attempts, stop_owed, state, agent_seen_at, agent_version)
                 VALUES ({n}, 0, 0, 'running', {now}, '0.1.0');",
            n / 250,
            n % 250 + 1
        )?;
    }
    for n in 1..=20 {
        write!(
            sql,
            "INSERT INTO git_hub_users (created_at, updated_at, login, db_schema)
                 VALUES ('2026-01-01', '2026-01-01', 'dev{n}', 'db_dev{n}');"
        )?;
    }
    let body = "What it does and why, in a few lines of text. ".repeat(40);
    for n in 1..=PULLS {
        let sha = format!("{n:040x}");
        write!(
            sql,
            "INSERT INTO pull_requests (created_at, updated_at, number, state, sha, title, body, ref, server_id,
                 is_launched) VALUES ('2026-01-01', '2026-01-01', {n}, 'open', '{sha}',
                 'A change to the ordering of things, number {n}', '{body}', 'feature-{n}', {n}, 1);
             INSERT INTO pull_facts (number, author, head_repo, is_fork, is_draft, labels, base_ref, opened_at,
                 changed_at, eligible_since) VALUES ({n}, 'dev{}', 'acme/shop', 0, 0, '[]', 'main', {now}, {now}, {now});",
            n % 20 + 1
        )?;
        // The last fifty wait.
        if n <= PULLS - 50 {
            write!(
                sql,
                "INSERT INTO deployments (id, pull_number, server_id, sha, attempt, outcome, offered_at, started_at,
                     finished_at, interruptions) VALUES ({n}, {n}, {n}, '{sha}', 1, 'succeeded', {now}, {now}, {now}, 0);
                 INSERT INTO assignments (server_id, pull_number, assigned_at, deployment_id) VALUES ({n}, {n}, {now}, {n});
                 INSERT INTO clones (schema_name, server_id, state, source, pull_number, attempts, finished_at)
                     VALUES ('stg{n}', {n}, 'ready', 'db_dev{}', {n}, 0, {now});
                 UPDATE server_facts SET app_pull = {n}, app_sha = '{sha}' WHERE server_id = {n};
                 INSERT INTO deployment_steps (deployment_id, name, started_at, finished_at, exit_status, output)
                     VALUES ({n}, 'migrate', {now}, {now}, 0, '{}');",
                n % 20 + 1,
                "Applying a migration... OK\n".repeat(100)
            )?;
        }
    }
    sql.push_str("COMMIT;");
    rusqlite::Connection::open(database)?.execute_batch(&sql)?;
    Ok(())
}

/// Milliseconds since 1970.
fn jiff_now() -> Result<u128> {
    Ok(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis())
}

fn measure(folder: &Path) -> Result<()> {
    let served = start(folder)?;
    let mut browser = Browser::open(&served.address)?;
    println!(
        "\nThe console, {SERVERS} servers, {PULLS} pull requests (SQLite), {REQUESTS} requests each\n"
    );
    println!("| page | kB | median ms | 95th ms | CPU ms per request |\n|---|---|---|---|---|");
    for path in ["/server/list", "/pull/list", "/pull/7", "/pool", "/master/servers", "/metrics"] {
        let (status, size) = browser.ask(path, OLGA)?;
        ensure!(status == 200, "{path} answers {status}");
        let (before, mut times) = (served.cpu()?, Vec::new());
        for _ in 0..REQUESTS {
            let began = Instant::now();
            browser.ask(path, OLGA)?;
            times.push(began.elapsed().as_secs_f64() * 1000.0);
        }
        let cpu = (served.cpu()? - before) / REQUESTS as f64;
        times.sort_by(f64::total_cmp);
        let (median, slow) = (times[REQUESTS / 2], times[REQUESTS * 95 / 100]);
        println!("| {path} | {} | {median:.2} | {slow:.2} | {cpu:.2} |", size / 1000);
    }
    let before = served.memory()?;
    for n in 0..MANY {
        browser.ask(["/server/list", "/pull/list", "/pull/7"][n % 3], OLGA)?;
        if n + 1 == MANY / 2 {
            println!(
                "\nMemory: {before:.1} MiB; after {} more requests {:.1}",
                n + 1,
                served.memory()?
            );
        }
    }
    println!("and after {MANY} {:.1} MiB.", served.memory()?);
    logins(&served)?;
    live(&served, &folder.join("pullre.db"))
}

fn median_and_worst(mut times: Vec<f64>) -> String {
    times.sort_by(f64::total_cmp);
    let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
    format!("median {median:.1} ms, worst {worst:.1} ms of {}", times.len())
}

/// Whether one address that guesses slows down another one. Each right login is of a user that has
/// not come before: else nothing would be verified.
fn logins(served: &Served) -> Result<()> {
    let mut guests = 1..=GUESTS;
    let mut right = || -> Result<f64> {
        let guest = format!("guest{}:bench-password", guests.next().context("a guest")?);
        let authorization = format!("Basic {}", BASE64_STANDARD.encode(guest));
        let began = Instant::now();
        let mut browser = Browser::open_from(Ipv4Addr::new(127, 0, 0, 2), &served.address)?;
        ensure!(browser.ask("/pool", &authorization)?.0 == 200, "a right password is refused");
        Ok(began.elapsed().as_secs_f64() * 1000.0)
    };
    let alone = (0..GUESTS / 3).map(|_| right()).collect::<Result<Vec<_>>>()?;
    let mut during = Vec::new();
    // Sixty wrong ones are soon refused unread; so they come from one address after the other.
    for guesser in 1.. {
        let address = served.address.clone();
        let guesses = std::thread::spawn(move || -> Result<()> {
            for _ in 0..60 {
                // olga:wrong
                Browser::open_from(Ipv4Addr::new(127, 0, 1, guesser), &address)?
                    .ask("/pool", "Basic b2xnYTp3cm9uZw==")?;
            }
            Ok(())
        });
        while !guesses.is_finished() && during.len() < GUESTS / 3 {
            during.push(right()?);
        }
        guesses.join().map_err(|_| anyhow::anyhow!("the guesses failed"))??;
        if during.len() >= GUESTS / 3 {
            break;
        }
    }
    println!("\nA right login: {} alone;", median_and_worst(alone));
    println!("{} while another address sends 60 wrong ones.", median_and_worst(during));
    Ok(())
}

/// What happened on the pages that are open.
#[derive(Default)]
struct Heard {
    ended: AtomicBool,
    fetched: AtomicUsize,
    lines: AtomicUsize,
}

/// Fifty pages of one deployment that is still running: first it prints nothing, then a line each
/// second; the pages listen and fetch themselves as the script does.
fn live(served: &Served, database: &Path) -> Result<()> {
    let database = rusqlite::Connection::open(database)?;
    database.busy_timeout(Duration::from_secs(10))?;
    let now = jiff_now()?;
    database.execute_batch(&format!(
        "UPDATE server_facts SET agent_seen_at = {now};
         UPDATE deployments SET outcome = 'running', finished_at = NULL, started_at = {now} WHERE id = 1;
         UPDATE deployment_steps SET finished_at = NULL, exit_status = NULL WHERE deployment_id = 1;"
    ))?;
    let heard = Arc::new(Heard::default());
    let mut pages = Vec::new();
    for _ in 0..LIVE_PAGES {
        let (address, heard) = (served.address.clone(), heard.clone());
        pages.push(std::thread::spawn(move || look(&address, &heard)));
    }
    std::thread::sleep(Duration::from_secs(5));
    let share = |change: Option<&str>| -> Result<(f64, usize, usize)> {
        let (before, began) = (served.cpu()?, Instant::now());
        heard.fetched.store(0, Ordering::SeqCst);
        heard.lines.store(0, Ordering::SeqCst);
        for _ in 0..30 {
            if let Some(change) = change {
                database.execute_batch(change)?;
            }
            std::thread::sleep(Duration::from_secs(1));
        }
        let share = (served.cpu()? - before) / began.elapsed().as_secs_f64() / 10.0;
        Ok((share, heard.fetched.load(Ordering::SeqCst), heard.lines.load(Ordering::SeqCst)))
    };
    let (idle, ..) = share(None)?;
    println!("\n{LIVE_PAGES} open live pages: {idle:.2} % of one core while nothing is printed;");
    let line =
        "UPDATE deployment_steps SET output = output || 'Applying the next one... OK' || char(10)
         WHERE deployment_id = 1";
    let (busy, fetched, lines) = share(Some(line))?;
    ensure!(lines >= LIVE_PAGES * 20, "{LIVE_PAGES} pages heard of {lines} lines in 30 seconds");
    println!("{busy:.2} % with a line each second: {lines} lines sent, {fetched} pages fetched;");
    // Its beginning goes when its end comes.
    database.execute_batch(
        "UPDATE deployment_steps SET output = (
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2300)
             SELECT group_concat('Applying number ' || i || '... OK' || char(10), '') FROM n)
         WHERE deployment_id = 1",
    )?;
    std::thread::sleep(Duration::from_secs(3));
    let (long, fetched, lines) = share(Some(
        "UPDATE deployment_steps SET output = substr(output, instr(output, char(10)) + 1)
             || 'Applying the next one... OK' || char(10)
         WHERE deployment_id = 1",
    ))?;
    // All that is shown comes each time.
    ensure!(lines > LIVE_PAGES * 100, "{LIVE_PAGES} pages heard of {lines} lines of a full log");
    println!("{long:.2} % where the log is full (62 kB): {fetched} pages fetched.");
    heard.ended.store(true, Ordering::SeqCst);
    for page in pages {
        page.join().map_err(|_| anyhow::anyhow!("a page failed"))??;
    }
    Ok(())
}

/// One page: adds what it is sent, and fetches itself when it hears that it is old.
fn look(address: &str, heard: &Heard) -> Result<()> {
    while !heard.ended.load(Ordering::SeqCst) {
        // A browser closes what it has not used for a while.
        let page = Browser::open(address)?.page("/pull/1", OLGA)?;
        heard.fetched.fetch_add(1, Ordering::SeqCst);
        let (_, news) = page.split_once("data-live=\"").context("a page with news")?;
        let news = news.split('"').next().unwrap_or_default().replace("&amp;", "&");
        listen(address, &news, heard)?;
    }
    Ok(())
}

/// Until the page is old.
fn listen(address: &str, news: &str, heard: &Heard) -> Result<()> {
    let mut stream = TcpStream::connect(address)?;
    write!(stream, "GET {news} HTTP/1.1\r\nHost: bench\r\nAuthorization: {OLGA}\r\n\r\n")?;
    stream.set_read_timeout(Some(Duration::from_millis(500)))?;
    let (mut events, mut line) = (BufReader::new(stream), Vec::new());
    while !heard.ended.load(Ordering::SeqCst) {
        match events.read_until(b'\n', &mut line) {
            Ok(0) => anyhow::bail!("a stream ended"),
            Ok(_) if line.starts_with(b"event: changed") => return Ok(()),
            Ok(_) => {
                let lines = String::from_utf8_lossy(&line).matches("next one").count();
                heard.lines.fetch_add(lines, Ordering::SeqCst);
                line.clear();
            }
            // What was read of the line so far stays in it.
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

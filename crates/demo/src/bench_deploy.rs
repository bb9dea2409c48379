//! How long a push takes to be served, and what bringing one changed file to a large work tree
//! costs beside git by hand.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use rusqlite::Connection;
use testkit::github::{FakeGithub, FakeGithubOptions, PullSpec};

use crate::app::{self, Origin};
use crate::http;
use crate::installation::{self, Installation, free_port};

/// How large a measurement is; the defaults are those of docs/BENCHMARKS.md.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    pub pushes: usize,
    pub megabytes: usize,
    pub files: usize,
}

/// One environment that is ready, with a repository of some size.
struct Bench {
    folder: PathBuf,
    origin: Origin,
    github: FakeGithub,
    pullre: Installation,
    url: String,
}

impl Bench {
    fn new(folder: &Path, more: &str, fill: impl Fn(&Origin) -> Result<()>) -> Result<Bench> {
        fs::create_dir_all(folder)?;
        let folder = folder.canonicalize()?;
        let origin = Origin::at(&folder);
        let pullre = Installation::at(&folder)?;
        let options = FakeGithubOptions { real_time: true, ..Default::default() };
        let github = FakeGithub::start_with(options)?;
        origin.create()?;
        fill(&origin)?;
        pullre.create(&github.url(), &github.token(), &origin.url)?;
        let ini = folder.join("app.ini");
        let text = fs::read_to_string(&ini)?;
        let text: String = text
            .lines()
            .filter(|line| !line.starts_with("exec_command") && !line.starts_with("migrate_"))
            .map(|line| format!("{line}\n"))
            .collect();
        fs::write(&ini, text + more)?;
        app::create_schema(&pullre.schema_file("dev_alice"), &["Ada"])?;
        pullre.run("update-pull", &["init"])?;
        pullre.run("update-pull", &["user", "set", "alice", "dev_alice"])?;
        pullre.run("update-pull", &["server", "register", "stg1"])?;
        let url = format!("http://127.0.0.1:{}/", free_port()?);
        let check = format!("check_url={url}");
        pullre.run("update-pull", &["server", "set", "stg1", "db_schema=stg1", &check])?;
        let sha = origin.edit("change", "greeting.txt", "Hello\n")?;
        github.change(|world| {
            world.open(PullSpec { sha: Some(sha.clone()), ..PullSpec::titled("A change") })
        });
        origin.point_pull(1, &sha)?;
        pullre.run("update-pull", &[])?;
        pullre.run("staging-client", &[])?;
        let status = pullre.status()?;
        ensure!(status["environments"][0]["stage"] == "ready", "nothing is ready: {status}");
        Ok(Bench { folder, origin, github, pullre, url })
    }

    /// A push of one changed file, as GitHub accepts it; its commit.
    fn push(&self, file: &str, text: &str) -> Result<String> {
        let sha = self.origin.edit("change", file, text)?;
        self.origin.point_pull(1, &sha)?;
        self.github.change(|world| world.push(1, &sha));
        Ok(sha)
    }

    /// What the control database says of the deployment of a commit, in milliseconds since 1970.
    fn told(&self, sha: &str) -> Result<Told> {
        let db = Connection::open(self.folder.join("pullre.db"))?;
        db.busy_timeout(Duration::from_secs(10))?;
        let (id, offered, started) = db.query_row(
            "SELECT id, offered_at, started_at FROM deployments WHERE sha = ? AND outcome = 'succeeded'",
            [sha],
            |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?)),
        )?;
        let mut steps = db.prepare(
            "SELECT name, finished_at - started_at FROM deployment_steps WHERE deployment_id = ? ORDER BY id",
        )?;
        let steps = steps
            .query_map([id], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?)))?
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Told { offered, started, steps })
    }
}

struct Told {
    offered: i64,
    started: i64,
    steps: Vec<(String, i64)>,
}

impl Told {
    fn step(&self, name: &str) -> f64 {
        let of_name = self.steps.iter().filter(|(step, _)| step == name);
        of_name.map(|(_, millis)| *millis as f64).sum::<f64>() / 1000.0
    }
}

/// Calls both programs once a minute, as cron does.
struct Minutes {
    over: AtomicBool,
}

impl Minutes {
    fn run(&self, pullre: &Installation) -> Result<()> {
        let mut running: Vec<Child> = Vec::new();
        let mut next = Instant::now();
        while !self.over.load(Ordering::Relaxed) {
            if Instant::now() >= next {
                next += Duration::from_secs(60);
                for name in ["update-pull", "staging-client"] {
                    let mut command = pullre.command(name);
                    running.push(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
                }
                running.retain_mut(|child| !matches!(child.try_wait(), Ok(Some(_))));
            }
            thread::sleep(Duration::from_millis(50));
        }
        for child in &mut running {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }
}

fn now_millis() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    since.as_millis() as i64
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// From the moment at which GitHub accepts a push to the first answer of its commit.
pub fn pushes(folder: &Path, size: Size) -> Result<()> {
    let more = "exec_command = sleep 1; exec python3 app.py\n";
    let bench = Bench::new(folder, more, |origin| origin.fill(size.megabytes, 1 << 20));
    let measured = bench.and_then(|bench| {
        // Only now: each call would have gone on for a minute.
        let ini = bench.folder.join("app.ini");
        fs::write(&ini, fs::read_to_string(&ini)? + "poll_seconds = 5\n")?;
        measure_pushes(&bench, size)
    });
    measured.and(installation::stop(folder))
}

fn measure_pushes(bench: &Bench, size: Size) -> Result<()> {
    let minutes = Minutes { over: AtomicBool::new(false) };
    let rows = thread::scope(|scope| {
        let loops = scope.spawn(|| minutes.run(&bench.pullre));
        let rows = (0..size.pushes).map(|n| one_push(bench, n)).collect::<Result<Vec<_>>>();
        minutes.over.store(true, Ordering::Relaxed);
        loops.join().map_err(|_| anyhow::anyhow!("the loop of minutes ended badly"))??;
        rows
    })?;
    println!(
        "\nFrom push to answer: {} pushes, poll_seconds = 5 on both sides, a repository of {} MB, an \
         app that starts in 1 s\n",
        rows.len(),
        size.megabytes
    );
    println!("| part | median s | longest s |\n|---|---|---|");
    for (at, name) in PARTS.iter().enumerate() {
        let values: Vec<f64> = rows.iter().map(|row| row[at]).collect();
        let longest = values.iter().copied().fold(0.0, f64::max);
        println!("| {name} | {:.2} | {longest:.2} |", median(&values));
    }
    Ok(())
}

const PARTS: [&str; 8] = [
    "push to first answer",
    "until the controller offers it",
    "until the client takes it up",
    "fetch",
    "checkout",
    "stop",
    "start",
    "probe (until the client sees it answer)",
];

fn one_push(bench: &Bench, number: usize) -> Result<[f64; PARTS.len()]> {
    // Not in step with those who look every five seconds.
    thread::sleep(Duration::from_millis(700 + (number as u64 * 1_700) % 5_000));
    let sha = bench.push("greeting.txt", &format!("Hello {number}\n"))?;
    let (accepted, began) = (now_millis(), Instant::now());
    while !http::look(&bench.url).is_ok_and(|page| page.is_some_and(|page| page.contains(&sha))) {
        ensure!(began.elapsed() < Duration::from_secs(300), "{sha} is never served");
        thread::sleep(Duration::from_millis(20));
    }
    let answer = began.elapsed().as_secs_f64();
    // Its client writes the end down a moment later.
    let told = loop {
        match bench.told(&sha) {
            Ok(told) => break told,
            Err(e) if began.elapsed() > Duration::from_secs(360) => return Err(e),
            Err(_) => thread::sleep(Duration::from_millis(50)),
        }
    };
    let since = |from: i64, to: i64| (to - from) as f64 / 1000.0;
    Ok([
        answer,
        since(accepted, told.offered),
        since(told.offered, told.started),
        told.step("fetch"),
        told.step("checkout"),
        told.step("stop"),
        told.step("start"),
        told.step("probe"),
    ])
}

/// One changed file in a large work tree, by `staging-client` and by hand, in turn.
pub fn tree(folder: &Path, size: Size) -> Result<()> {
    let more = "exec_command = exec python3 app.py\n";
    let bench = Bench::new(folder, more, |origin| origin.fill(size.files, 200));
    let measured = bench.and_then(|bench| measure_tree(&bench, size));
    measured.and(installation::stop(folder))
}

fn measure_tree(bench: &Bench, size: Size) -> Result<()> {
    // Each takes a second, and what the disk does meanwhile is a fifth of it.
    const ROUNDS: usize = 15;
    let hand = bench.folder.join("by-hand");
    git(&bench.folder, &["clone", "-q", "--", &text(&bench.origin.url), &text(&hand)])?;
    let (mut by_hand, mut steps, mut whole, mut ratios) = (vec![], vec![], vec![], vec![]);
    // Two to warm up: what is fresh is looked at again, as git does with its index.
    for round in 0..ROUNDS + 2 {
        let folders = size.files.div_ceil(100).max(1);
        let file = format!("bulk/{:04}/changed.bin", round % folders);
        let sha = bench.push(&file, &format!("changed in round {round}\n"))?;
        bench.pullre.run("update-pull", &[])?;
        let hands = || -> Result<f64> {
            let began = Instant::now();
            git(&hand, &["fetch", "-q", "origin", "change"])?;
            git(&hand, &["checkout", "-q", "--detach", &sha])?;
            Ok(began.elapsed().as_secs_f64())
        };
        let clients = || -> Result<(f64, f64)> {
            let began = Instant::now();
            bench.pullre.run("staging-client", &[])?;
            let whole = began.elapsed().as_secs_f64();
            let told = bench.told(&sha).context("the commit is not served")?;
            Ok((told.step("fetch") + told.step("checkout"), whole))
        };
        // Whoever comes first warms what both need.
        let (hand, (client, run)) = if round % 2 == 0 {
            let hand = hands()?;
            (hand, clients()?)
        } else {
            let client = clients()?;
            (hands()?, client)
        };
        if round >= 2 {
            by_hand.push(hand);
            steps.push(client);
            whole.push(run);
            ratios.push(client / hand);
        }
    }
    println!(
        "\nOne changed file in a work tree of {} files; medians of {} rounds in turn\n",
        size.files,
        ratios.len()
    );
    println!("| what | wall s | to the first row |\n|---|---|---|");
    println!("| git fetch and git checkout by hand | {:.3} | 1.00 |", median(&by_hand));
    let row = "the steps fetch and checkout of staging-client";
    println!("| {row} | {:.3} | {:.2} |", median(&steps), median(&ratios));
    println!("| its whole run, with stop, start and probe | {:.3} | |", median(&whole));
    Ok(())
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn git(folder: &Path, args: &[&str]) -> Result<()> {
    let mut command = Command::new("git");
    command.args(args).current_dir(folder).env("GIT_CONFIG_GLOBAL", "/dev/null");
    let status = command.status().context("cannot run git")?;
    ensure!(status.success(), "git {} failed", args.join(" "));
    Ok(())
}

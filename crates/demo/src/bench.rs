//! What `scripts/bench` measures: whole processes, in turn, on this machine.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use serde_json::{Value, json};
use testkit::github::{FakeGithub, FakeGithubOptions, PullSpec};

use crate::app::{self, Origin};
use crate::installation::{self, Installation, free_port};

pub const ROUNDS: usize = 3;
const RUNS: usize = 20;

/// Runs a command so many times and prints what its processes cost; in a process of its own,
/// since the system adds up all children of one.
pub fn measure(runs: usize, words: &[String]) -> Result<()> {
    let (program, args) = words.split_first().context("nothing to measure")?;
    let began = Instant::now();
    for _ in 0..runs {
        let status = Command::new(program).args(args).stdout(Stdio::null()).status()?;
        ensure!(status.success(), "{} failed: {status}", words.join(" "));
    }
    let wall = began.elapsed().as_secs_f64() * 1000.0 / runs as f64;
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let cpu =
        (usage.user_time().num_microseconds() + usage.system_time().num_microseconds()) as f64;
    let (cpu, rss) = (cpu / 1000.0 / runs as f64, usage.max_rss() as f64 / 1024.0);
    println!("{}", json!({ "cpu_ms": cpu, "wall_ms": wall, "rss_mib": rss }));
    Ok(())
}

/// One thing that is measured again and again.
#[derive(Debug)]
pub struct Subject {
    name: String,
    runs: usize,
    words: Vec<String>,
    rounds: Vec<Value>,
}

impl Subject {
    pub fn new(name: &str, runs: usize, words: &[impl AsRef<str>]) -> Subject {
        let words = words.iter().map(|word| word.as_ref().to_owned()).collect();
        Subject { name: name.to_owned(), runs, words, rounds: Vec::new() }
    }

    pub fn round(&mut self) -> Result<()> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["measure", &self.runs.to_string(), "--"]).args(&self.words);
        let output = command.stderr(Stdio::inherit()).output()?;
        ensure!(output.status.success(), "{} could not be measured", self.name);
        self.rounds.push(serde_json::from_slice(&output.stdout)?);
        Ok(())
    }

    pub fn median(&self, figure: &str) -> f64 {
        let mut values: Vec<_> = self.rounds.iter().filter_map(|r| r[figure].as_f64()).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    }

    /// The median of the ratios round by round: it holds also where the machine's speed drifts.
    fn ratio(&self, other: &Subject, figure: &str) -> f64 {
        let of = |round: &Value| round[figure].as_f64().unwrap_or(f64::NAN);
        let pairs = self.rounds.iter().zip(&other.rounds);
        let mut ratios: Vec<_> = pairs.map(|(a, b)| of(a) / of(b)).collect();
        ratios.sort_by(f64::total_cmp);
        ratios[ratios.len() / 2]
    }
}

pub fn table(title: &str, subjects: &mut [Subject], figure: &str) -> Result<()> {
    for _ in 0..ROUNDS {
        subjects.iter_mut().try_for_each(Subject::round)?;
    }
    print(title, subjects, figure);
    Ok(())
}

/// The subjects' medians, and their ratios to the first.
pub fn print(title: &str, subjects: &[Subject], figure: &str) {
    let rounds = subjects[0].rounds.len();
    println!("\n{title}; medians of {rounds} rounds in turn\n");
    println!("| what | CPU ms | wall ms | peak MiB | {figure} to the first row |");
    println!("|---|---|---|---|---|");
    for subject in subjects.iter() {
        println!(
            "| {} | {:.1} | {:.1} | {:.1} | {:.3} |",
            subject.name,
            subject.median("cpu_ms"),
            subject.median("wall_ms"),
            subject.median("rss_mib"),
            subject.ratio(&subjects[0], figure),
        );
    }
}

pub fn run(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    let folder = folder.canonicalize()?;
    let measured = idle_ticks(&folder).and_then(|()| clones(&folder));
    measured.and(installation::stop(&folder))
}

fn idle_ticks(folder: &Path) -> Result<()> {
    let origin = Origin::at(folder);
    let pullre = Installation::at(folder)?;
    let github =
        FakeGithub::start_with(FakeGithubOptions { real_time: true, ..Default::default() })?;
    origin.create()?;
    pullre.create(&github.url(), &github.token(), &origin.url)?;
    app::create_schema(&pullre.schema_file("dev_alice"), &["Ada"])?;
    pullre.run("update-pull", &["init"])?;
    pullre.run("update-pull", &["user", "set", "alice", "dev_alice"])?;
    pullre.run("update-pull", &["server", "register", "stg1"])?;
    let url = format!("check_url=http://127.0.0.1:{}/", free_port()?);
    pullre.run("update-pull", &["server", "set", "stg1", "db_schema=stg1", &url])?;
    let sha = origin.change("welcome", "Hello", "SELECT 1;")?;
    github.change(|world| {
        world.open(PullSpec { sha: Some(sha.clone()), ..PullSpec::titled("A change") })
    });
    origin.point_pull(1, &sha)?;
    pullre.run("update-pull", &[])?;
    pullre.run("staging-client", &[])?;
    let status = pullre.status()?;
    ensure!(status["environments"][0]["stage"] == "ready", "no environment is ready: {status}");

    let ini = folder.join("app.ini").display().to_string();
    let binary = |name: &str| pullre.binary(name).display().to_string();
    let (update, client) = (binary("update-pull"), binary("staging-client"));
    let mut subjects = [
        crate::bench_controller::python()?,
        Subject::new("update-pull, idle tick", RUNS, &[&update, "--config", &ini]),
        Subject::new("staging-client, idle tick", RUNS, &[&client, "--config", &ini]),
    ];
    table("An idle tick with one environment ready (SQLite, local)", &mut subjects, "cpu_ms")
}

fn clones(folder: &Path) -> Result<()> {
    let pullre = Installation::at(folder)?;
    let source = pullre.schema_file("dev_big");
    let db = rusqlite::Connection::open(&source)?;
    db.execute_batch(
        "CREATE TABLE rows (id INTEGER PRIMARY KEY, text TEXT);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 400000)
         INSERT INTO rows SELECT i, hex(randomblob(120)) FROM n;
         CREATE INDEX by_text ON rows (substr(text, 1, 16));",
    )?;
    drop(db);
    pullre.run("update-pull", &["server", "register", "stg2"])?;
    pullre.run("update-pull", &["server", "set", "stg2", "db_schema=stg2"])?;
    let (from, to) = (source.display().to_string(), folder.join("copy.db").display().to_string());
    let copy = format!("cp '{from}' '{to}' && sync '{to}'");
    let ini = folder.join("app.ini").display().to_string();
    let update = pullre.binary("update-pull").display().to_string();
    let mut subjects = [
        Subject::new("cp and sync of the file", 1, &["sh", "-c", &copy]),
        Subject::new(
            "update-pull clone-schema",
            1,
            &[&update, "--config", &ini, "clone-schema", "dev_big", "stg2"],
        ),
    ];
    let title =
        format!("The clone of a SQLite schema of {} MB", fs::metadata(&source)?.len() / 1_000_000);
    table(&title, &mut subjects, "wall_ms")
}

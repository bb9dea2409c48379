//! The story: each step does something, looks whether it came true, and says how long it took.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use testkit::github::{FakeGithub, FakeGithubOptions, PullSpec};

use crate::app::{self, Origin};
use crate::http::look;
use crate::installation::{self, Installation, Running, free_port};

/// Between two turns of the interactive demo; cron would wait a minute.
const TURN: Duration = Duration::from_secs(2);

struct Story {
    number: usize,
    /// Spent in the two binaries.
    ticking: Duration,
}

impl Story {
    /// Does one step; `told` says what came true.
    fn step(&mut self, title: &str, work: impl FnOnce(&mut Story) -> Result<String>) -> Result<()> {
        self.number += 1;
        println!("\n{}. {title}", self.number);
        let began = Instant::now();
        let told = work(self).with_context(|| format!("step {} did not work", self.number))?;
        for line in told.lines() {
            println!("   {line}");
        }
        println!("   ({:.1} s)", began.elapsed().as_secs_f64());
        Ok(())
    }

    /// One turn of both binaries, as cron does each minute.
    fn turn(&mut self, pullre: &Installation) -> Result<()> {
        let began = Instant::now();
        for binary in ["update-pull", "staging-client"] {
            let printed = pullre.run(binary, &[])?;
            for line in printed.lines() {
                println!("   {binary:<14} | {line}");
            }
        }
        self.ticking += began.elapsed();
        Ok(())
    }
}

/// The page at `url` must show all of `wanted` and nothing of `unwanted`.
fn shows(url: &str, wanted: &[&str], unwanted: &[&str]) -> Result<String> {
    let page = look(url)?.with_context(|| format!("nobody answers at {url}"))?;
    for text in wanted {
        ensure!(page.contains(text), "{url} does not show {text:?} but {page:?}");
    }
    for text in unwanted {
        ensure!(!page.contains(text), "{url} shows {text:?}, which it must not: {page:?}");
    }
    Ok(format!("{url} answers: {}", page.trim()))
}

/// The environment of #1 must be in this stage.
fn is_in_stage(pullre: &Installation, stage: &str) -> Result<String> {
    let status = pullre.status()?;
    let environments = status["environments"].as_array().context("no list of environments")?;
    let one = environments.iter().find(|e| e["number"] == 1).context("no environment #1")?;
    ensure!(one["stage"] == stage, "#1 is {} and not {stage}: {}", one["stage"], one["why"]);
    Ok(format!("#1 is {stage}"))
}

pub fn tell(folder: &Path, once: bool) -> Result<()> {
    installation::stop(folder).context("a former demo left something that cannot be removed")?;
    fs::create_dir_all(folder)?;
    let folder = &folder.canonicalize()?;
    let told = lives(folder, once);
    let cleaned = installation::stop(folder);
    // What went wrong first is what matters.
    told.and(cleaned)
}

fn lives(folder: &Path, once: bool) -> Result<()> {
    let mut story = Story { number: 0, ticking: Duration::ZERO };
    let origin = Origin::at(folder);
    let pullre = Installation::at(folder)?;
    let github =
        FakeGithub::start_with(FakeGithubOptions { real_time: true, ..Default::default() })?;
    let urls = [free_port()?, free_port()?].map(|port| format!("http://127.0.0.1:{port}/"));
    let url = &urls[0];

    story.step("A team has an app in git, and each developer a database", |_| {
        origin.create()?;
        fs::create_dir_all(folder.join("schemas"))?;
        app::create_schema(
            &pullre.schema_file("dev_alice"),
            &["Ada, guest of alice", "Grace, guest of alice"],
        )?;
        app::create_schema(&pullre.schema_file("dev_bob"), &["Edsger, guest of bob"])?;
        Ok(format!(
            "repository {}\ndatabases schemas/dev_alice.db and schemas/dev_bob.db",
            origin.url.display()
        ))
    })?;

    story.step("An operator sets pullre up with two staging servers", |_| {
        pullre.create(&github.url(), &github.token(), &origin.url)?;
        Running { github: github.url() }.write(folder)?;
        let mut typed = String::new();
        let mut operator = |args: &[&str]| -> Result<()> {
            pullre.run("update-pull", args)?;
            typed.push_str(&format!("$ update-pull {}\n", args.join(" ")));
            Ok(())
        };
        operator(&["init"])?;
        operator(&["user", "set", "alice", "dev_alice"])?;
        operator(&["user", "set", "bob", "dev_bob"])?;
        for (name, url) in ["stg1", "stg2"].iter().zip(&urls) {
            operator(&["server", "register", name])?;
            let (schema, url) = (format!("db_schema={name}"), format!("check_url={url}"));
            operator(&["server", "set", name, &schema, &url])?;
        }
        Ok(typed)
    })?;

    let first = origin.change("welcome", "Hello from a pull request", "SELECT 1;")?;
    story.step("Alice opens pull request #1", |story| {
        github.change(|world| {
            world.open(PullSpec {
                title: "A warmer welcome".into(),
                author: "alice".into(),
                sha: Some(first.clone()),
                head_ref: Some("welcome".into()),
                ..PullSpec::default()
            })
        });
        origin.point_pull(1, &first)?;
        story.turn(&pullre)?;
        let ready = is_in_stage(&pullre, "ready")?;
        let shown =
            shows(url, &[&first, "Hello from a pull request", "Ada", "Grace"], &["Edsger"])?;
        Ok(format!(
            "{ready}: its own server, its own copy of alice's database, its commit\n{shown}"
        ))
    })?;

    story.step("What reviewers see on GitHub", |story| {
        story.turn(&pullre)?;
        let (status, comments) = github.change(|world| {
            let told = world.told();
            let status = told.statuses.last().map(|status| status.body.clone());
            let comments: Vec<_> = told.comments.values().map(|c| c.body.clone()).collect();
            (status, comments)
        });
        let status = status.context("the commit has no status")?;
        ensure!(status["state"] == "success", "the status of {first} is {status}");
        let [comment] = &comments[..] else { bail!("{} comments instead of one", comments.len()) };
        ensure!(comment.contains(url.as_str()), "the comment does not name {url}: {comment}");
        let shown = comment.lines().filter(|line| !line.starts_with('<') && !line.is_empty());
        let shown: Vec<_> = shown.map(|line| format!("| {line}")).collect();
        let state = status["description"].as_str().unwrap_or_default();
        Ok(format!("a green status ({state}) and one comment:\n{}", shown.join("\n")))
    })?;

    let table = "CREATE TABLE IF NOT EXISTS drinks (name TEXT);";
    let second = origin.change("welcome", "Hello again", table)?;
    story.step("Alice pushes a commit that also changes the database", |story| {
        github.change(|world| world.push(1, &second));
        origin.point_pull(1, &second)?;
        story.turn(&pullre)?;
        let ready = is_in_stage(&pullre, "ready")?;
        let shown = shows(url, &[&second, "Hello again", "Ada"], &[&first])?;
        let (hers, copy) = (
            app::tables(&pullre.schema_file("dev_alice"))?,
            app::tables(&pullre.schema_file("stg1"))?,
        );
        ensure!(copy.contains(&"drinks".to_owned()), "the clone was not migrated: {copy:?}");
        ensure!(!hers.contains(&"drinks".to_owned()), "alice's own database was changed: {hers:?}");
        Ok(format!("{ready}\n{shown}\nthe copy was migrated; alice's own database was not touched"))
    })?;

    story.step("The pull request is closed", |story| {
        github.change(|world| world.close(1));
        story.turn(&pullre)?;
        ensure!(look(url)?.is_none(), "{url} still answers");
        // The slot is off once its client has said that nothing runs there any more.
        story.turn(&pullre)?;
        let status = pullre.status()?;
        let servers = status["servers"].as_array().context("no list of servers")?;
        for server in servers {
            ensure!(server["pull"].is_null(), "{} still serves {}", server["name"], server["pull"]);
            ensure!(server["state"] == "stopped", "{} is {}", server["name"], server["state"]);
        }
        Ok("the app is stopped, the server is free again".into())
    })?;

    let ticking = story.ticking.as_secs_f64();
    println!("\nOne whole life of a pull request; the ticks took {ticking:.1} s together.");
    if once {
        return Ok(());
    }
    stay(&mut story, &pullre, &github, &origin)
}

/// Keeps the system up for the visitor until it is interrupted.
fn stay(
    story: &mut Story,
    pullre: &Installation,
    github: &FakeGithub,
    origin: &Origin,
) -> Result<()> {
    let sha = origin.change("menu", "A menu", "SELECT 1;")?;
    let number = github.change(|world| {
        world.open(PullSpec {
            title: "A menu".into(),
            author: "bob".into(),
            sha: Some(sha.clone()),
            head_ref: Some("menu".into()),
            ..PullSpec::default()
        })
    });
    origin.point_pull(number, &sha)?;
    println!(
        "\nNow it is yours. Both binaries run every {} s; Ctrl-C ends it. From another terminal:\n  \
         scripts/demo open \"My idea\"    scripts/demo push {number}    scripts/demo push {number} --broken\n  \
         scripts/demo close {number}           scripts/demo reopen {number}\n",
        TURN.as_secs()
    );
    let mut told = String::new();
    loop {
        // A broken push is part of the play: what failed is shown, and the demo goes on.
        for binary in ["update-pull", "staging-client"] {
            let output = pullre.call(binary, &[])?;
            let printed = [output.stdout, output.stderr].concat();
            for line in String::from_utf8_lossy(&printed).lines() {
                println!("{binary:<14} | {line}");
            }
        }
        let status = pullre.status()?;
        let Some(environments) = status["environments"].as_array() else {
            bail!("update-pull status printed no environments");
        };
        let mut now = String::new();
        for e in environments {
            let text = |key: &str| e[key].as_str().unwrap_or_default().to_owned();
            let place =
                [text("url"), text("why")].into_iter().find(|t| !t.is_empty()).unwrap_or_default();
            now.push_str(&format!("  #{} {}: {place}\n", e["number"], text("stage")));
        }
        if now != told {
            println!("\n{now}");
            std::io::stdout().flush()?;
            told = now;
        }
        story.number += 1;
        sleep(TURN);
    }
}

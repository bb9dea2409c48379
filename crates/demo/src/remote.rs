//! What a visitor does from another terminal: new pull requests, pushes, closes.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use reqwest::blocking::{Client, Response};
use serde_json::{Value, json};

use crate::app::Origin;
use crate::http;
use crate::installation::Running;

/// The demo that runs in another terminal.
struct Demo {
    folder: PathBuf,
    github: String,
    client: Client,
}

impl Demo {
    fn find(folder: &Path) -> Result<Demo> {
        let github = Running::read(folder)?.github;
        Ok(Demo { folder: folder.canonicalize()?, github, client: http::client()? })
    }

    fn tell(&self, path: &str, body: &Value) -> Result<String> {
        answer(self.client.post(format!("{}/_control/{path}", self.github)).json(body).send())
    }

    fn branch_of(&self, number: u32) -> Result<String> {
        let list = answer(self.client.get(format!("{}/_control/pulls", self.github)).send())?;
        // One line each: number, state, commit, branch, ...
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        list.lines()
            .map(words)
            .find(|words| words[0] == format!("#{number}"))
            .and_then(|words| words.get(3).cloned())
            .with_context(|| format!("the demo has no pull request #{number}"))
    }
}

fn answer(sent: reqwest::Result<Response>) -> Result<String> {
    let response = sent.context("the demo does not answer; is scripts/demo still running?")?;
    let status = response.status();
    let text = response.text()?;
    if !status.is_success() {
        bail!("the demo's GitHub refuses it: {}", text.trim());
    }
    Ok(text)
}

pub fn open(folder: &Path, title: &str, author: &str) -> Result<()> {
    let demo = Demo::find(folder)?;
    let origin = Origin::at(&demo.folder);
    let branch = format!("idea-{}", std::process::id());
    let sha = origin.change(&branch, title, "SELECT 1;")?;
    let body = json!({ "title": title, "author": author, "head_ref": branch, "sha": sha });
    let number: u32 = demo.tell("pulls", &body)?.trim().parse()?;
    origin.point_pull(number, &sha)?;
    println!("opened #{number} by {author}; the other terminal shows what becomes of it");
    Ok(())
}

pub fn push(folder: &Path, number: u32, broken: bool) -> Result<()> {
    let demo = Demo::find(folder)?;
    let origin = Origin::at(&demo.folder);
    let branch = demo.branch_of(number)?;
    let (greeting, migration) = match broken {
        false => (format!("A push to #{number}"), "SELECT 1;"),
        true => (format!("A broken push to #{number}"), "THIS IS NO SQL;"),
    };
    let sha = origin.change(&branch, &greeting, migration)?;
    origin.point_pull(number, &sha)?;
    demo.tell(&format!("pulls/{number}/push"), &json!({ "sha": sha }))?;
    println!("pushed {} to #{number}", &sha[..7]);
    Ok(())
}

/// `verb` is what GitHub's users do: close, reopen.
pub fn set_state(folder: &Path, number: u32, verb: &str) -> Result<()> {
    Demo::find(folder)?.tell(&format!("pulls/{number}/{verb}"), &json!({}))?;
    println!("#{number}: {verb}");
    Ok(())
}

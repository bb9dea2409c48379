//! pullre as an operator would set it up, with its binaries called as cron would call them.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What another terminal needs to know; written into the demo's folder.
#[derive(Debug, Serialize, Deserialize)]
pub struct Running {
    pub github: String,
}

impl Running {
    fn file(folder: &Path) -> PathBuf {
        folder.join("running.json")
    }

    pub fn write(&self, folder: &Path) -> Result<()> {
        Ok(fs::write(Running::file(folder), serde_json::to_string(self)?)?)
    }

    pub fn read(folder: &Path) -> Result<Running> {
        let text = fs::read_to_string(Running::file(folder))
            .context("no demo is running here; start scripts/demo in another terminal first")?;
        Ok(serde_json::from_str(&text)?)
    }
}

/// app.ini and the folders around it.
#[derive(Debug)]
pub struct Installation {
    folder: PathBuf,
    bin: PathBuf,
}

impl Installation {
    /// The binaries are those built together with this one.
    pub fn at(folder: &Path) -> Result<Installation> {
        let exe = std::env::current_exe()?;
        let bin = exe.parent().context("this program is in no folder")?.to_owned();
        Ok(Installation { folder: folder.to_owned(), bin })
    }

    pub fn binary(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    pub fn schema_file(&self, schema: &str) -> PathBuf {
        self.folder.join("schemas").join(format!("{schema}.db"))
    }

    pub fn create(&self, github: &str, token: &str, git_url: &Path) -> Result<()> {
        fs::create_dir_all(self.folder.join("schemas"))?;
        let ini = format!(
            "# The demo's installation; app.ini.default explains every key.\n\
             owner = acme\nrepo = shop\ntoken = {token}\ngithub_api_url = {github}\n\
             git_url = {}\ntarget_dir = trees/{{server}}/acme/shop\n\
             migrate_command = python3 migrate.py\nexec_command = python3 app.py\n\
             check_timeout = 20\n",
            git_url.display()
        );
        Ok(fs::write(self.folder.join("app.ini"), ini)?)
    }

    /// Runs one of our binaries; its output comes back, its failure too.
    pub fn call(&self, binary: &str, args: &[&str]) -> Result<Output> {
        let mut command = self.command(binary);
        command
            .args(args)
            .output()
            .with_context(|| format!("cannot run {}", self.binary(binary).display()))
    }

    pub fn command(&self, binary: &str) -> Command {
        let mut command = Command::new(self.binary(binary));
        // What a visitor has set for an installation of their own is not for this one.
        for (key, _) in std::env::vars_os() {
            if key.to_string_lossy().starts_with("PULLRE_") {
                command.env_remove(key);
            }
        }
        command.arg("--config").arg(self.folder.join("app.ini"));
        command
    }

    /// As [`Installation::call`], but must succeed; returns what it printed.
    pub fn run(&self, binary: &str, args: &[&str]) -> Result<String> {
        let output = self.call(binary, args)?;
        if !output.status.success() {
            bail!(
                "{binary} {} failed: {}",
                args.join(" "),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The environments, as a script would read them.
    pub fn status(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.run("update-pull", &["status", "--json"])?)?)
    }
}

/// A port that nobody listens on at this moment.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// Stops what a demo left running and removes its folder: with no assignment left, the staging
/// client stops every app.
pub fn stop(folder: &Path) -> Result<()> {
    let folder = match folder.canonicalize() {
        Ok(folder) => folder,
        Err(_) => return Ok(()), // There never was a demo here.
    };
    let database = folder.join("pullre.db");
    if database.exists() {
        let db = rusqlite::Connection::open(&database)?;
        db.execute_batch("DELETE FROM assignments; DELETE FROM settings WHERE name = 'paused'")?;
        drop(db);
        Installation::at(&folder)?.run("staging-client", &[])?;
    }
    fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))
}

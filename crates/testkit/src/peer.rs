//! Servers that are not ours, which tests talk to: each on a port of its own, nothing left behind.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a loaded machine may take to bring one up.
const START_TIMEOUT: Duration = Duration::from_secs(120);

/// The shell stands between us and the server: when we end, in whatever way, its input ends, and
/// it stops the server and what that has started: node may be a program that starts another one.
/// Before `setsid` has run there is no group of its own yet.
const WATCHDOG: &str = r#"
setsid "$@" >/dev/null 2>&1 </dev/null &
server=$!
read -r _
kill -9 "-$server" 2>/dev/null || kill -9 "$server"
wait "$server"
"#;

/// What `scripts/setup test` installed.
///
/// # Errors
/// With a sentence that says what is missing.
pub fn installed(file: &str) -> io::Result<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.setup").join(file);
    if path.exists() {
        return Ok(path);
    }
    Err(io::Error::other(format!("there is no .setup/{file}: run `scripts/setup test`")))
}

#[derive(Debug)]
pub struct Peer {
    port: u16,
    watchdog: Child,
    /// Closing it stops the server.
    line: Option<ChildStdin>,
}

impl Peer {
    /// Starts the program; `args` gets the port that it shall listen on.
    pub fn start(program: &Path, args: impl FnOnce(&str) -> Vec<String>) -> io::Result<Peer> {
        // Another process may take the port before the server does; then it does not come up, and
        // the tests say so.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut watchdog = Command::new("sh")
            .args(["-c", WATCHDOG, "watchdog"])
            .arg(program)
            .args(args(&port.to_string()))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let line = watchdog.stdin.take();
        let peer = Peer { port, watchdog, line };
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if began.elapsed() > START_TIMEOUT {
                return Err(io::Error::other(format!("{} does not come up", program.display())));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(peer)
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// One request: the status and the body of its answer. `headers` end with a line break each.
    pub fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &str,
        body: &str,
    ) -> io::Result<(u16, String)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.0\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let nonsense = || io::Error::other(format!("no answer of HTTP: {answer}"));
        let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(nonsense)?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        Ok((status.ok_or_else(nonsense)?, body.to_owned()))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.line = None;
        // It only reaps: the watchdog ends by itself.
        let _ = self.watchdog.wait();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_server_that_we_leave_before_it_leads_a_group_is_stopped_too() {
        let folder = tempfile::tempdir().unwrap();
        let slow = folder.path().join("setsid");
        std::fs::write(&slow, "#!/bin/sh\nexec sleep 1000\n").unwrap();
        std::fs::set_permissions(&slow, PermissionsExt::from_mode(0o755)).unwrap();
        let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
        let mut watchdog = Command::new("sh")
            .args(["-c", WATCHDOG, "watchdog", "true"])
            .env("PATH", path)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let began = Instant::now();
        while watchdog.try_wait().unwrap().is_none() {
            if began.elapsed() > Duration::from_secs(60) {
                watchdog.kill().unwrap();
                panic!("it waits for a server that nobody has stopped");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

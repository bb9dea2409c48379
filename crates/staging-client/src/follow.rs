//! `logs -f`: what the app and the steps of a deployment print, as they print it.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use pullre::config::ClientConfig;
use pullre::store::Duty;
use pullre::words;

use crate::site::hidden;
use crate::state_dir::{StateDir, masked, trouble};
use crate::tick::say;

const PAUSE: Duration = Duration::from_millis(300);
/// A line without an end is shown once it is this long.
const LONGEST: usize = 16 << 10;

/// How far one file was shown.
struct Tail {
    path: PathBuf,
    /// Kept open, so that another file at its place is never taken for it.
    file: Option<File>,
    at: u64,
    /// The beginning of a line whose end was not written yet: a secret in it must be whole to
    /// be masked.
    rest: Vec<u8>,
}

impl Tail {
    /// What was written since; from the beginning where the file is another one or was put aside.
    fn read(&mut self) -> io::Result<Vec<Vec<u8>>> {
        let found = match fs::metadata(&self.path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            found => found?,
        };
        let same = match &self.file {
            Some(file) => file.metadata()?.ino() == found.ino(),
            None => false,
        };
        if !same {
            self.file = Some(File::open(&self.path)?);
        }
        if !same || found.len() < self.at {
            self.at = 0;
            self.rest.clear();
        }
        let Some(file) = &mut self.file else { return Ok(Vec::new()) };
        file.seek(SeekFrom::Start(self.at))?;
        let mut bytes = Vec::new();
        self.at += file.take(1 << 20).read_to_end(&mut bytes)? as u64;
        self.rest.extend(bytes);
        let mut lines = Vec::new();
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            lines.push(line[..end].to_vec());
        }
        if self.rest.len() > LONGEST {
            lines.push(std::mem::take(&mut self.rest));
        }
        Ok(lines)
    }
}

/// Of one server, or of several with their names in front. Goes on until it is ended.
pub fn follow(
    config: &ClientConfig,
    state: &StateDir,
    servers: &[Duty],
    steps: bool,
    app: bool,
) -> Result<()> {
    let secrets = config.secrets();
    let mut tails: HashMap<PathBuf, Tail> = HashMap::new();
    let mut first = true;
    loop {
        for duty in servers {
            let name = words::plain(&duty.name);
            let front = if servers.len() > 1 { format!("{name}: ") } else { String::new() };
            let hidden = hidden(&secrets, duty.check_url.as_deref());
            let log = state.app_log(duty.server);
            let step = log.with_file_name("step.log");
            for path in [steps.then_some(step), app.then_some(log)].into_iter().flatten() {
                let tail = tails.entry(path.clone()).or_insert_with(|| beginning(&path, first));
                for line in tail.read().map_err(|e| trouble("read", &path, e))? {
                    say(&format!("{front}{}", words::plain(&masked(&line, &hidden))));
                }
            }
        }
        first = false;
        std::thread::sleep(PAUSE);
    }
}

/// What is there already was shown before, or is none of ours.
fn beginning(path: &Path, skip: bool) -> Tail {
    let file = File::open(path).ok().filter(|_| skip);
    let at = file.as_ref().and_then(|file| file.metadata().ok()).map_or(0, |found| found.len());
    Tail { path: path.to_owned(), file, at, rest: Vec::new() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::io::Write;

    #[test]
    fn lines_come_whole_also_across_a_rotation_and_a_new_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.log");
        fs::write(&path, "old\n").unwrap();
        let mut tail = beginning(&path, true);
        let mut read = || -> Vec<String> {
            let lines = tail.read().unwrap();
            lines.into_iter().map(|line| String::from_utf8(line).unwrap()).collect()
        };
        let append = |text: &str| {
            File::options().append(true).open(&path).unwrap().write_all(text.as_bytes()).unwrap();
        };
        assert_eq!(read(), [""; 0]);
        append("one\nhal");
        assert_eq!(read(), ["one"]);
        append("f\n");
        assert_eq!(read(), ["half"]);
        // Put aside, as `Log::rotate` does it.
        File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
        append("new\n");
        assert_eq!(read(), ["new"]);
        fs::remove_file(&path).unwrap();
        assert_eq!(read(), [""; 0]);
        fs::write(&path, "another file\n").unwrap();
        assert_eq!(read(), ["another file"]);
    }
}

//! `state_dir`: locks, logs and what is known of the running apps.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use pullre::domain::ServerId;

use crate::app::AppRecord;
use crate::groups::{self, Group, Groups};
use crate::processes::Mark;
use crate::tidy::Scan;
use crate::user::AppUser;

const COLLECT_EVERY: Duration = Duration::from_secs(86_400);
/// A longer log is put aside.
const LOG_LIMIT: u64 = 10 << 20;
/// A program that answers us with more is not believed.
const LONGEST_ANSWER: u64 = 1 << 20;
/// How much of an output is kept in the deployment.
const KEPT_OUTPUT: usize = 64 << 10;

/// An error with the thing that it is about and, where one is known, the remedy.
pub fn trouble(doing: &str, path: &Path, error: io::Error) -> anyhow::Error {
    let remedy = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            ": the disk is full, free some space"
        }
        io::ErrorKind::PermissionDenied => {
            ": give the user who runs staging-client access to it (chown, chmod)"
        }
        io::ErrorKind::ReadOnlyFilesystem => ": the file system is mounted read-only",
        _ => "",
    };
    anyhow!("cannot {doing} {}: {error}{remedy}", path.display())
}

/// Proof that no other client works on this server. Dies with the process.
#[derive(Debug)]
#[must_use]
pub struct Held {
    _file: File,
}

#[derive(Debug, Clone)]
pub struct StateDir {
    root: PathBuf,
}

impl StateDir {
    /// Makes the folder where there is none.
    pub fn open(path: &Path) -> Result<StateDir> {
        make_folder(path)?;
        // One path for all time: it is part of what processes are recognized by.
        let root = path.canonicalize().map_err(|e| trouble("find state_dir", path, e))?;
        Ok(StateDir { root })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What the environment of all that is started for the server begins its mark with.
    pub fn mark(&self, server: ServerId) -> String {
        format!("{}:{}:", self.root.display(), server.0)
    }

    fn places_file(&self) -> PathBuf {
        self.root.join("groups")
    }

    /// Every place where this installation has made groups of processes.
    fn places(&self) -> Vec<PathBuf> {
        let text = fs::read_to_string(self.places_file()).unwrap_or_default();
        text.lines().map(PathBuf::from).collect()
    }

    pub fn groups(&self, server: ServerId) -> Groups {
        Groups::new(self.places(), &self.root.display().to_string(), server.0)
    }

    /// The place is written down before the group is made: whatever run comes next looks there.
    pub fn make_group(&self, server: ServerId, mark: Mark) -> Result<Option<Group>> {
        let Some(place) = groups::place() else { return Ok(None) };
        if !self.places().contains(&place) {
            self.add_place(&place)?;
        }
        Ok(self.groups(server).make(&place, mark))
    }

    /// Each session of a person is a place of its own: those that are gone, with all that was in
    /// them, are forgotten. Clients of other servers may add theirs at the same time.
    fn add_place(&self, place: &Path) -> Result<()> {
        let lock = self.root.join("locks").join("groups.lock");
        let held = open_for_us(OpenOptions::new().write(true).create(true), &lock)?;
        held.lock().map_err(|e| trouble("lock", &lock, e))?;
        let mut places = self.places();
        places.retain(|known| known.exists() && known != place);
        places.push(place.to_owned());
        let text: String = places.iter().map(|place| format!("{}\n", place.display())).collect();
        self.replace(&self.places_file(), text.as_bytes())
    }

    /// Beside and renamed: a kill leaves the old text or the new one, whole.
    fn replace(&self, path: &Path, text: &[u8]) -> Result<()> {
        let beside = path.with_extension("new");
        let options = &mut OpenOptions::new();
        let mut file = open_for_us(options.write(true).create(true).truncate(true), &beside)?;
        file.write_all(text)
            .and_then(|()| file.sync_all())
            .and_then(|()| fs::rename(&beside, path))
            .map_err(|e| trouble("write", path, e))
    }

    /// None where another client has it. Never waits.
    pub fn lock(&self, server: ServerId) -> Result<Option<Held>> {
        self.lock_file(&format!("client-{}.lock", server.0))
    }

    fn lock_file(&self, name: &str) -> Result<Option<Held>> {
        let path = self.root.join("locks").join(name);
        let file = open_for_us(OpenOptions::new().write(true).create(true), &path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Held { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(e)) => Err(trouble("lock", &path, e)),
        }
    }

    pub fn app_log(&self, server: ServerId) -> PathBuf {
        self.root.join("logs").join(server.0.to_string()).join("app.log")
    }

    /// An app that runs for weeks fills no disk with its log.
    pub fn rotate_app_log(&self, server: ServerId) -> Result<()> {
        let path = self.app_log(server);
        let too_long = fs::metadata(&path).is_ok_and(|found| found.len() > LOG_LIMIT);
        if !too_long {
            return Ok(());
        }
        // Two at once would put the first one's empty file aside.
        match self.lock(server)? {
            Some(_held) => Log::open(path)?.rotate(),
            None => Ok(()),
        }
    }

    /// A new, empty file for what a step prints. A killed client leaves it; the next step
    /// replaces it. Not the same file again: what was left running may still write to that.
    pub fn step_log(&self, server: ServerId) -> Result<Log> {
        let path = self.root.join("logs").join(server.0.to_string()).join("step.log");
        remove_file(&path)?;
        Log::open(path)
    }

    /// For what is asked beside a step that may be at work. It has no name any more.
    pub fn nameless_log(&self, server: ServerId) -> Result<Log> {
        let name = format!("nameless-{}.log", std::process::id());
        let path = self.root.join("logs").join(server.0.to_string()).join(name);
        let log = Log::open(path)?;
        remove_file(&log.path)?;
        Ok(log)
    }

    fn app_file(&self, server: ServerId) -> PathBuf {
        self.root.join("apps").join(format!("{}.json", server.0))
    }

    pub fn app(&self, server: ServerId) -> Result<Option<AppRecord>> {
        read_app(&self.app_file(server))
    }

    /// Every app that is known here, also of servers that are gone.
    pub fn apps(&self) -> Result<Vec<AppRecord>> {
        let folder = self.root.join("apps");
        let entries = match fs::read_dir(&folder) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|e| trouble("read", &folder, e))?,
        };
        let mut apps = Vec::new();
        for entry in entries {
            let path = entry.map_err(|e| trouble("read", &folder, e))?.path();
            if path.extension().is_some_and(|ending| ending == "json") {
                apps.extend(read_app(&path)?);
            }
        }
        Ok(apps)
    }

    pub fn keep_app(&self, record: &AppRecord) -> Result<()> {
        let text = serde_json::to_vec_pretty(record).context("writing down the app")?;
        self.replace(&self.app_file(record.server), &text)
    }

    /// Whether a day has passed since old objects and logs were last looked after. The first
    /// question begins the day: a new installation has neither.
    pub fn is_collection_due(&self, server: ServerId) -> Result<bool> {
        match fs::metadata(self.collected_file(server)).and_then(|found| found.modified()) {
            // A clock that was set back does no harm: an error is younger than a day.
            Ok(at) => Ok(at.elapsed().is_ok_and(|since| since > COLLECT_EVERY)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                self.collected(server)?;
                Ok(false)
            }
            Err(e) => Err(trouble("look at", &self.collected_file(server), e)),
        }
    }

    fn collected_file(&self, server: ServerId) -> PathBuf {
        self.root.join("trees").join(format!("{}.collected", server.0))
    }

    /// Written before it is done: what fails is tried again the next day, not each minute.
    pub fn collected(&self, server: ServerId) -> Result<()> {
        self.replace(&self.collected_file(server), b"")
    }

    /// Removes logs that nobody has written to for so long, of servers that are gone too. A log
    /// that an app has open stays: its output would go nowhere.
    pub fn forget_logs(&self, keep: Duration) -> Result<()> {
        let logs = self.root.join("logs");
        for folder in fs::read_dir(&logs).into_iter().flatten().flatten() {
            let server = folder.file_name().to_str().and_then(|name| name.parse().ok());
            let has_app = server.is_some_and(|id| self.app_file(ServerId(id)).exists());
            for entry in fs::read_dir(folder.path()).into_iter().flatten().flatten() {
                let changed = entry.metadata().and_then(|found| found.modified());
                let old = changed.is_ok_and(|at| at.elapsed().is_ok_and(|since| since > keep));
                if old && !(has_app && entry.file_name() == "app.log") {
                    remove_file(&entry.path())?;
                }
            }
            // Only where nothing is left in it.
            let _ = fs::remove_dir(folder.path());
        }
        Ok(())
    }

    /// One run among those that look again and again.
    pub fn lock_polling(&self) -> Result<Option<Held>> {
        self.lock_file("client-poll.lock")
    }

    /// What was last warned of. Said once, not each minute.
    pub fn is_news(&self, notices: &[String]) -> Result<bool> {
        let path = self.root.join("notices");
        let text: String = notices.iter().map(|notice| format!("{notice}\n")).collect();
        if fs::read_to_string(&path).unwrap_or_default() == text {
            return Ok(false);
        }
        self.replace(&path, text.as_bytes())?;
        Ok(true)
    }

    fn scan_file(&self, server: ServerId) -> PathBuf {
        self.root.join("trees").join(format!("{}.json", server.0))
    }

    /// What was found in the work tree; None where nothing is known that makes sense.
    pub fn scan(&self, server: ServerId) -> Option<Scan> {
        serde_json::from_slice(&fs::read(self.scan_file(server)).ok()?).ok()
    }

    /// None: nothing is known any more.
    pub fn keep_scan(&self, server: ServerId, scan: Option<&Scan>) -> Result<()> {
        let path = self.scan_file(server);
        let Some(scan) = scan else { return remove_file(&path) };
        let text = serde_json::to_vec(scan).context("writing down the work tree")?;
        // Not flushed: that would wait for all files of the checkout. What a power failure leaves
        // of it makes no sense, or is of another commit, and the next checkout scans again.
        let beside = path.with_extension("new");
        let options = &mut OpenOptions::new();
        open_for_us(options.write(true).create(true).truncate(true), &beside)?
            .write_all(&text)
            .and_then(|()| fs::rename(&beside, &path))
            .map_err(|e| trouble("write", &path, e))
    }

    fn index_file(&self, server: ServerId) -> PathBuf {
        self.root.join("trees").join(format!("{}.index", server.0))
    }

    /// The sign of the index that our last checkout left.
    pub fn index(&self, server: ServerId) -> Option<String> {
        fs::read_to_string(self.index_file(server)).ok()
    }

    /// None: whatever index is there is not believed.
    pub fn keep_index(&self, server: ServerId, sign: Option<&str>) -> Result<()> {
        let path = self.index_file(server);
        let Some(sign) = sign else { return remove_file(&path) };
        // Not flushed, as what is known of the work tree. Half of it is no index's sign.
        let options = &mut OpenOptions::new();
        open_for_us(options.write(true).create(true).truncate(true), &path)?
            .write_all(sign.as_bytes())
            .map_err(|e| trouble("write", &path, e))
    }

    pub fn forget_app(&self, server: ServerId) -> Result<()> {
        remove_file(&self.app_file(server))
    }
}

fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(trouble("remove", path, e)),
        _ => Ok(()),
    }
}

fn read_app(path: &Path) -> Result<Option<AppRecord>> {
    let text = match fs::read(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text.map_err(|e| trouble("read", path, e))?,
    };
    match serde_json::from_slice(&text) {
        Ok(record) => Ok(Some(record)),
        Err(e) => {
            // Without it the app is still found by its mark.
            tracing::warn!("{} makes no sense ({e}) and is ignored", path.display());
            Ok(None)
        }
    }
}

fn make_folder(path: &Path) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|e| trouble("make the folder", path, e))
}

/// Opens a file that nobody else may read, making it and its folder where they are missing.
fn open_for_us(options: &mut OpenOptions, path: &Path) -> Result<File> {
    if let Some(folder) = path.parent() {
        make_folder(folder)?;
    }
    options.mode(0o600).open(path).map_err(|e| trouble("open", path, e))
}

/// A file that commands print to. A file and not a pipe: what stays in the background with the
/// other end of a pipe open would hang the reader.
#[derive(Debug)]
pub struct Log {
    file: File,
    path: PathBuf,
}

impl Log {
    pub fn open(path: PathBuf) -> Result<Log> {
        let file = open_for_us(OpenOptions::new().read(true).append(true).create(true), &path)?;
        Ok(Log { file, path })
    }

    /// An end for a command to write to.
    pub fn writer(&self) -> Result<File> {
        self.file.try_clone().map_err(|e| trouble("open", &self.path, e))
    }

    pub fn len(&self) -> Result<u64> {
        let found = self.file.metadata().map_err(|e| trouble("look at", &self.path, e))?;
        Ok(found.len())
    }

    /// Lets the user whose command writes here open it by the name `/dev/stdout`, too.
    pub fn give(&self, user: Option<&AppUser>) -> Result<()> {
        let Some(user) = user else { return Ok(()) };
        fchown(&self.file, Some(user.uid()), Some(user.gid()))
            .map_err(|e| trouble("give away", &self.path, e))
    }

    /// Puts what is too long aside as `app.log.1`. The file stays the same one, since an app may
    /// be writing to it; it appends, so that it goes on at the new end.
    pub fn rotate(&self) -> Result<()> {
        if self.len()? <= LOG_LIMIT {
            return Ok(());
        }
        let mut aside = self.path.clone().into_os_string();
        aside.push(".1");
        let aside = PathBuf::from(aside);
        let options = &mut OpenOptions::new();
        let mut to = open_for_us(options.write(true).create(true).truncate(true), &aside)?;
        let mut from = File::open(&self.path).map_err(|e| trouble("open", &self.path, e))?;
        // The end: an app may have printed more than there is room for, or made the file as long
        // as it likes (`truncate`).
        from.seek(SeekFrom::Start(self.len()?.saturating_sub(LOG_LIMIT)))
            .map_err(|e| trouble("read", &self.path, e))?;
        io::copy(&mut from.take(LOG_LIMIT), &mut to).map_err(|e| trouble("write", &aside, e))?;
        self.file.set_len(0).map_err(|e| trouble("shorten", &self.path, e))
    }

    /// A command that prints for ever shall not fill the disk.
    pub fn bound(&self) -> Result<()> {
        if self.len()? <= LOG_LIMIT {
            return Ok(());
        }
        let end = self.end(0)?;
        self.file
            .set_len(0)
            .and_then(|()| (&self.file).write_all(&end))
            .map_err(|e| trouble("write", &self.path, e))
    }

    /// What was written after the first `from` bytes; of more than is kept the end.
    pub fn end(&self, from: u64) -> Result<Vec<u8>> {
        const MORE: usize = 4 << 10;
        let most = (KEPT_OUTPUT + MORE) as u64;
        let len = self.len()?;
        // It was put aside since.
        let from = if from > len { 0 } else { from };
        let start = from.max(len.saturating_sub(most));
        let mut bytes = self.part(start, len)?;
        if start > from {
            // The second half of a secret would not be masked.
            let line = bytes.iter().take(MORE).position(|b| *b == b'\n').map(|at| at + 1);
            bytes.drain(..line.unwrap_or(MORE).min(bytes.len()));
        }
        Ok(bytes)
    }

    /// Every byte: half of an answer would be another one.
    pub fn all(&self) -> Result<Vec<u8>> {
        let len = self.len()?;
        if len > LONGEST_ANSWER {
            bail!("an answer of {len} bytes is not read: {LONGEST_ANSWER} at most");
        }
        self.part(0, len)
    }

    /// Not by the path, which may be another file's by now, nor at the place of a writer.
    fn part(&self, start: u64, end: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(end - start).unwrap_or_default()];
        let mut filled = 0;
        while filled < bytes.len() {
            let at = start + filled as u64;
            match self.file.read_at(&mut bytes[filled..], at) {
                Ok(0) => break,
                Ok(more) => filled += more,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(trouble("read", &self.path, e)),
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }
}

/// Output fit to be kept: secrets masked, the end of it.
pub fn masked(bytes: &[u8], secrets: &[&str]) -> String {
    let mut text = String::from_utf8_lossy(bytes).into_owned();
    for secret in secrets {
        if text.contains(secret) {
            text = text.replace(secret, "***");
        }
    }
    if text.len() > KEPT_OUTPUT {
        let cut = text.len() - KEPT_OUTPUT;
        let cut = (cut..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
        text.drain(..cut);
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_end_is_kept_and_secrets_are_masked_before_the_cut() {
        let mut output = b"start ".to_vec();
        output.extend(b"hunter2".repeat(30_000));
        let kept = masked(&output, &["hunter2"]);
        assert!(kept.len() <= KEPT_OUTPUT);
        assert!(kept.bytes().all(|b| b == b'*'));
        assert_eq!(masked("é".repeat(40_000).as_bytes(), &[]).len(), KEPT_OUTPUT);
    }

    #[test]
    fn a_log_that_is_too_long_is_put_aside_under_its_writer() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.log");
        let log = Log::open(path.clone()).unwrap();
        let mut app = log.writer().unwrap();
        // As long as an app can make it without any room.
        app.set_len(1 << 40).unwrap();
        app.write_all(b"the end").unwrap();
        log.rotate().unwrap();
        app.write_all(b"after").unwrap();
        assert_eq!(log.end(0).unwrap(), b"after");
        let aside = fs::read(folder.path().join("app.log.1")).unwrap();
        assert_eq!(aside.len() as u64, LOG_LIMIT);
        assert!(aside.ends_with(b"the end"));
    }
}

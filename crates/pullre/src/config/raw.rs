//! app.ini and the environment as text: which keys are set, to what, and where.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ini::{Ini, ParseOption};

use super::keys::{self, KEYS, Key, env_name};
use super::reader::{ConfigErrors, Problem};
use super::secret::Secret;

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    Line(usize),
    Env(String),
}

#[derive(Debug, Clone)]
struct Entry {
    /// Secret or not, no value is shown by a derived `Debug`.
    value: Secret,
    origin: Origin,
}

/// What app.ini and the environment say, not yet checked but for syntax.
#[derive(Debug, Clone)]
pub struct RawConfig {
    file: PathBuf,
    folder: PathBuf,
    /// Only keys that are set.
    entries: BTreeMap<&'static str, Entry>,
    warnings: Vec<String>,
    secrets: Vec<Secret>,
}

/// Shorter ones would blot out half of every log that they are masked in.
pub const SHORTEST_MASKED: usize = 4;

impl RawConfig {
    /// Reads `path`, then `env` (usually `std::env::vars_os()`), which wins.
    ///
    /// Fails when the file is missing or not readable, and names every line that is not a
    /// comment, empty, or `key = value`.
    pub fn load<K, V>(
        path: &Path,
        env: impl IntoIterator<Item = (K, V)>,
    ) -> Result<RawConfig, ConfigErrors>
    where
        K: Into<OsString>,
        V: Into<OsString>,
    {
        let cannot = |what: String| ConfigErrors::from(vec![Problem::new(path, what)]);
        let file = std::path::absolute(path).map_err(|e| {
            cannot(format!("this is no usable path ({e}): name app.ini by --config"))
        })?;
        let folder = match file.parent() {
            Some(folder) => folder.to_owned(),
            None => return Err(cannot("this is a folder: name app.ini by --config".into())),
        };
        let bytes = fs::read(&file).map_err(|e| {
            ConfigErrors::from(vec![Problem::new(
                &file,
                match e.kind() {
                    io::ErrorKind::NotFound => {
                        "there is no such file: copy app.ini.default to that \
                     place and fill it in, or name another file by --config"
                            .to_owned()
                    }
                    _ => format!("cannot be read ({e}): check its owner and mode"),
                },
            )])
        })?;
        let mut raw = RawConfig {
            file,
            folder,
            entries: BTreeMap::new(),
            warnings: Vec::new(),
            secrets: Vec::new(),
        };
        let mut problems = Vec::new();
        raw.read_lines(&bytes, &mut problems);
        raw.read_env(env, &mut problems);
        if problems.is_empty() { Ok(raw) } else { Err(problems.into()) }
    }

    /// The file that was read, absolute.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The folder that holds it: what relative paths are relative to.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Keys that are unknown or set twice. For the log; nothing fails because of them.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Every secret that the file or the environment holds, also where the other one wins, for
    /// masking output: at least four characters each, longest first.
    pub fn secrets(&self) -> Vec<Secret> {
        let mut secrets = self.secrets.clone();
        secrets.retain(|s| s.expose().chars().count() >= SHORTEST_MASKED);
        secrets.sort_by(|a, b| {
            let order = b.expose().len().cmp(&a.expose().len());
            order.then_with(|| a.expose().cmp(b.expose()))
        });
        secrets.dedup();
        secrets
    }

    /// The value of a known key and where it stands, where it is set.
    pub(super) fn get(&self, key: &str) -> Option<(&str, &Origin)> {
        let entry = self.entries.get(key)?;
        Some((entry.value.expose(), &entry.origin))
    }

    fn read_lines(&mut self, bytes: &[u8], problems: &mut Vec<Problem>) {
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let mut seen: BTreeMap<&'static str, usize> = BTreeMap::new();
        for (index, line) in bytes.split(|b| *b == b'\n').enumerate() {
            let number = index + 1;
            let (name, value) = match read_line(line) {
                Ok(Some(pair)) => pair,
                Ok(None) => continue,
                Err(what) => {
                    problems.push(Problem::at_line(&self.file, number, what));
                    continue;
                }
            };
            let Some(key) = keys::find(&name) else {
                self.warnings.push(format!(
                    "{}:{number}: unknown key `{name}`, ignored; the nearest known one is `{}`",
                    self.file.display(),
                    keys::nearest(&name)
                ));
                continue;
            };
            if let Some(first) = seen.insert(key.name, number) {
                self.warnings.push(format!(
                    "{}:{number}: `{}` stands in line {first} too; line {number} counts, remove one",
                    self.file.display(),
                    key.name
                ));
                self.entries.remove(key.name);
            }
            self.set(key, value, Origin::Line(number));
        }
    }

    fn read_env<K, V>(&mut self, env: impl IntoIterator<Item = (K, V)>, problems: &mut Vec<Problem>)
    where
        K: Into<OsString>,
        V: Into<OsString>,
    {
        let names: BTreeMap<String, &'static Key> =
            KEYS.iter().map(|key| (env_name(key.name), key)).collect();
        for (name, value) in env {
            let Some((name, key)) = name.into().to_str().and_then(|n| names.get_key_value(n))
            else {
                continue;
            };
            match value.into().into_string() {
                Ok(value) => self.set(key, value.trim().to_owned(), Origin::Env(name.clone())),
                Err(_) => problems.push(Problem::new(
                    Path::new(name),
                    "the environment's value is not UTF-8: correct or unset it",
                )),
            }
        }
    }

    fn set(&mut self, key: &'static Key, value: String, origin: Origin) {
        // As the ancestor's template has it: `[what to write here]` was never filled in.
        let template = value.starts_with('[') && value.ends_with(']');
        if value.is_empty() || template {
            return;
        }
        let value = Secret::new(value);
        if key.secret {
            self.secrets.push(value.clone());
        }
        self.entries.insert(key.name, Entry { value, origin });
    }
}

/// One line to its key and value; None for a comment or an empty line. What is wrong is said
/// without the line itself, which may hold a password.
fn read_line(line: &[u8]) -> Result<Option<(String, String)>, &'static str> {
    const FORM: &str = "this line has no `=`: write `key = value`, or `#` in front of a comment";
    let line = std::str::from_utf8(line)
        .map_err(|_| "this line is not UTF-8: save the file as UTF-8")?
        .trim();
    if line.is_empty() || line.starts_with(['#', ';']) {
        return Ok(None);
    }
    if line.starts_with('[') {
        return Err("app.ini has no [sections]: remove this line");
    }
    match line.find(['=', ':']) {
        Some(0) => return Err("there is no key in front of the separator: write `key = value`"),
        Some(at) if line[at..].starts_with(':') => {
            return Err("`:` does not separate a key from its value: write `key = value`");
        }
        Some(_) => {}
        None => return Err(FORM),
    }
    // Line by line: on a whole file the crate takes a backslash at the end of a line for a
    // continuation even with escapes off, and says no line numbers.
    let options =
        ParseOption { enabled_escape: false, enabled_quote: false, ..ParseOption::default() };
    let ini = Ini::load_from_str_opt(line, options).map_err(|_| FORM)?;
    let pair = ini.general_section().iter().next();
    let (key, value) = pair.ok_or(FORM)?;
    Ok(Some((key.to_owned(), value.trim().to_owned())))
}

//! A log that grows while somebody looks. What is new in it is worked out once, for all who listen.

use std::hash::{DefaultHasher, Hasher};

use bytes::Bytes;
use pullre::store::GrowingLog;
use pullre::words;
use serde_json::json;

/// What a page shows of what a step has printed.
pub fn shown(output: &str) -> String {
    output
        .split_inclusive('\n')
        .map(|line| words::plain(line.trim_end_matches(['\n', '\r'])) + "\n")
        .collect()
}

/// How a log is named in a page: by its deployment, and the place of its step there.
pub fn name(deployment: i64, index: usize) -> String {
    format!("{deployment}-{index}")
}

/// What a page shows, in short. A page and a look that show the same say the same.
pub fn version(name: &str, shown: &str) -> String {
    let mut hasher = DefaultHasher::new();
    hasher.write(name.as_bytes());
    hasher.write_u8(0xff);
    hasher.write(shown.as_bytes());
    format!("{:016x}", hasher.finish())
}

/// A log as the last look saw it, with what pages are told that show it otherwise.
#[derive(Debug)]
pub struct Log {
    pub version: String,
    name: String,
    output: String,
    shown: String,
    /// For pages that show this version: what they lack.
    added: Option<(String, Bytes)>,
    /// For all others.
    all: Bytes,
}

impl Log {
    pub fn new(log: &GrowingLog, before: Option<&Log>) -> Log {
        let (name, shown) = (name(log.deployment, log.index), shown(&log.output));
        let version = version(&name, &shown);
        let added = before.filter(|before| before.name == name).and_then(|before| {
            let more = shown.strip_prefix(&before.shown)?;
            let event = event(json!({ "log": name, "add": more }));
            Some((before.version.clone(), event))
        });
        let all = event(json!({ "log": name, "all": shown }));
        Log { version, name, output: log.output.clone(), shown, added, all }
    }

    pub fn shows(&self, log: &GrowingLog) -> bool {
        self.output == log.output && self.name == name(log.deployment, log.index)
    }

    /// What a page is told that shows `version`, which is not this one.
    pub fn since(&self, version: &str) -> Bytes {
        match &self.added {
            Some((from, event)) if from == version => event.clone(),
            _ => self.all.clone(),
        }
    }
}

/// JSON has no line breaks of its own, so one line of data is enough.
fn event(data: serde_json::Value) -> Bytes {
    Bytes::from(format!("event: log\ndata: {data}\n\n"))
}

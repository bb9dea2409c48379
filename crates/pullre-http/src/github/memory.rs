//! What a process leaves in `state_dir` for the next one: the validator of the page that an idle
//! tick asks for, an App's token, how long GitHub wants to be left alone, and how much of its rate
//! limit is left.
//!
//! They are only ever hints. A file that is missing, damaged or of another credential costs one
//! unconditional request.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::{SignedDuration, Timestamp};
use pullre::ports::{RateLeft, ReadingMark};
use reqwest::header::HeaderValue;
use ring::digest;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::auth::InstallationToken;

const ETAG_FILE: &str = "github-etag.json";
const LIMIT_FILE: &str = "github-rate-limit.json";
const RATE_FILE: &str = "github-rate-left.json";
const TOKEN_FILE: &str = "github-app-token.json";

/// GitHub's limits are by the hour. What claims to last longer is a wrong clock.
pub(super) const LONGEST_LIMIT: SignedDuration = SignedDuration::from_hours(2);

#[derive(Debug)]
pub(super) struct Memory {
    dir: PathBuf,
    /// The page that an idle tick asks for.
    url: String,
    /// A hash: what one token may see, another may not.
    credential: String,
}

#[derive(Serialize, Deserialize)]
struct StoredEtag {
    url: String,
    credential: String,
    /// What the store held when the page had this validator.
    watermark: Timestamp,
    etag: String,
}

#[derive(Serialize, Deserialize)]
struct StoredLimit {
    credential: String,
    until: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct StoredRate {
    credential: String,
    limit: u32,
    remaining: u32,
    resets_at: Timestamp,
}

impl StoredRate {
    /// Whether `left` says so much else that it is worth a file: a tick that reads one page is not.
    fn is_outdated_by(&self, left: &RateLeft) -> bool {
        // Their clocks differ by a second.
        let window = self.resets_at.duration_since(left.resets_at).abs();
        let step = (left.limit / 50).max(1);
        window > SignedDuration::from_mins(1)
            || self.limit != left.limit
            || self.remaining.abs_diff(left.remaining) >= step
            || (self.remaining == 0) != (left.remaining == 0)
    }
}

pub(super) fn fingerprint(secret: &str) -> String {
    let hash = digest::digest(&digest::SHA256, secret.as_bytes());
    hash.as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

impl Memory {
    /// `credential`: its name, which tells it from others.
    pub(super) fn new(dir: &Path, url: &str, credential: &str) -> Memory {
        Memory { dir: dir.to_owned(), url: url.to_owned(), credential: fingerprint(credential) }
    }

    /// The validator, if the store holds exactly what the page showed then: after a restored or
    /// emptied database, or beside another controller, a 304 would hide what the store lacks.
    pub(super) fn etag(&self, watermark: Timestamp) -> Option<String> {
        let stored: StoredEtag = self.read(ETAG_FILE)?;
        let ours = stored.url == self.url
            && stored.credential == self.credential
            && stored.watermark == watermark
            // `*`, say, would match whatever there is.
            && stored.etag.ends_with('"')
            && HeaderValue::from_str(&stored.etag).is_ok();
        ours.then_some(stored.etag)
    }

    pub(super) fn keep_etag(&self, mark: &ReadingMark) -> io::Result<()> {
        match &mark.etag {
            Some(etag) => self.write(
                ETAG_FILE,
                &StoredEtag {
                    url: self.url.clone(),
                    credential: self.credential.clone(),
                    watermark: mark.watermark,
                    etag: etag.clone(),
                },
            ),
            None => match fs::remove_file(self.dir.join(ETAG_FILE)) {
                Err(err) if err.kind() != io::ErrorKind::NotFound => Err(err),
                _ => Ok(()),
            },
        }
    }

    /// Until when GitHub wants to be left alone, if that is still ahead.
    pub(super) fn limited_until(&self, now: Timestamp) -> Option<Timestamp> {
        let stored: StoredLimit = self.read(LIMIT_FILE)?;
        let believable = stored.until > now && stored.until.duration_since(now) <= LONGEST_LIMIT;
        (believable && stored.credential == self.credential).then_some(stored.until)
    }

    pub(super) fn keep_limit(&self, until: Timestamp) -> io::Result<()> {
        let credential = self.credential.clone();
        self.write(LIMIT_FILE, &StoredLimit { credential, until })
    }

    /// What GitHub allows, within a fiftieth of it. None where it has never said it.
    pub(super) fn rate_left(&self, now: Timestamp) -> Option<RateLeft> {
        let stored = self.rate()?;
        let StoredRate { limit, resets_at, .. } = stored;
        let remaining = if resets_at <= now { limit } else { stored.remaining };
        Some(RateLeft { limit, remaining, resets_at })
    }

    fn rate(&self) -> Option<StoredRate> {
        let stored: StoredRate = self.read(RATE_FILE)?;
        (stored.credential == self.credential).then_some(stored)
    }

    pub(super) fn keep_rate(&self, left: &RateLeft) -> io::Result<()> {
        if self.rate().is_some_and(|stored| !stored.is_outdated_by(left)) {
            return Ok(());
        }
        let RateLeft { limit, remaining, resets_at } = *left;
        let credential = self.credential.clone();
        self.write(RATE_FILE, &StoredRate { credential, limit, remaining, resets_at })
    }

    pub(super) fn token(&self) -> Option<InstallationToken> {
        self.read(TOKEN_FILE)
    }

    pub(super) fn keep_token(&self, token: &InstallationToken) -> io::Result<()> {
        self.write(TOKEN_FILE, token)
    }

    /// One that cannot be removed is refused again, and renewed again.
    pub(super) fn forget_token(&self) {
        let _ = fs::remove_file(self.dir.join(TOKEN_FILE));
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        let path = self.dir.join(name);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(err) if err.kind() == io::ErrorKind::NotFound => return None,
            Err(err) => {
                tracing::warn!("cannot read {}, goes on without: {err}", path.display());
                return None;
            }
        };
        serde_json::from_slice(&text)
            .inspect_err(|err| {
                tracing::warn!("{} is damaged, goes on without: {err}", path.display());
            })
            .ok()
    }

    /// Beside and renamed, so that a reader never sees half of it.
    fn write(&self, name: &str, value: &impl Serialize) -> io::Result<()> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let unique = COUNTER.fetch_add(1, Ordering::Relaxed);
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        let beside = self.dir.join(format!(".{name}.{}.{unique}", std::process::id()));
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(&serde_json::to_vec(value)?)?;
        fs::rename(&beside, self.dir.join(name))
    }
}

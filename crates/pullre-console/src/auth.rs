//! Who is asking: basic authentication, against app.ini's login and the users in the database.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use pullre::ops::OpsError;
use pullre::store::{ConsoleUser, Role};
use ring::hmac;
use tokio::sync::Semaphore;

use crate::password::{Stored, verify_nobody};
use crate::stores::Stores;

/// A person at work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    pub name: String,
    pub role: Role,
}

/// Why nobody is let in.
#[derive(Debug)]
pub enum Denied {
    /// There is nobody who could be let in.
    NobodyIsSet,
    NoCredentials,
    Wrong,
    /// Too many wrong ones came from the same place.
    TooMany(Duration),
    Failed(OpsError),
}

/// A verified password is not verified again as long as it is used, and not for longer than this.
const REMEMBERED: Duration = Duration::from_secs(10 * 60);
const REMEMBERED_AT_MOST: Duration = Duration::from_secs(8 * 3600);
/// How long the list of users is used without asking the database.
const USERS_KNOWN: Duration = Duration::from_secs(3);
/// Verifications that wait for their turn at one place.
const WAITING: usize = 8;
/// Places that are remembered for wrong passwords.
const PLACES: usize = 10_000;

#[derive(Debug)]
pub struct Auth {
    basic: Option<(String, Stored)>,
    key: hmac::Key,
    remembered: Mutex<HashMap<[u8; 32], Remembered>>,
    places: Mutex<HashMap<IpAddr, Place>>,
    users: Mutex<Option<(Instant, Arc<Vec<ConsoleUser>>)>>,
    /// Each takes a core and 19 MB.
    verifying: Semaphore,
}

#[derive(Debug, Clone, Copy)]
struct Remembered {
    verified: Instant,
    used: Instant,
}

#[derive(Debug)]
struct Place {
    failures: u32,
    last: Instant,
    waiting: Arc<Semaphore>,
    turn: Arc<tokio::sync::Mutex<()>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

/// How long a place waits after so many wrong passwords: five are free, a minute is the most.
fn pause(failures: u32) -> Duration {
    match failures {
        0..5 => Duration::ZERO,
        n => Duration::from_secs(1 << (n - 5).min(6)).min(Duration::from_secs(60)),
    }
}

/// Wrong passwords count no longer.
const FORGIVEN: Duration = Duration::from_secs(15 * 60);

impl Auth {
    pub fn new(basic: Option<(String, Stored)>, key: hmac::Key) -> Auth {
        Auth {
            basic,
            key,
            remembered: Mutex::default(),
            places: Mutex::default(),
            users: Mutex::default(),
            verifying: Semaphore::new(2),
        }
    }

    pub async fn check(
        &self,
        headers: &HeaderMap,
        place: IpAddr,
        stores: &Stores,
    ) -> Result<Person, Denied> {
        let users = self.users(stores).await.map_err(Denied::Failed)?;
        if self.basic.is_none() && users.is_empty() {
            return Err(Denied::NobodyIsSet);
        }
        let (name, password) = credentials(headers).ok_or(Denied::NoCredentials)?;
        let known = match &self.basic {
            Some((basic, stored)) if *basic == name => Some((stored.clone(), Role::Operator)),
            _ => users
                .iter()
                .find(|user| user.name == name)
                .and_then(|user| Some((Stored::parse(&user.password)?, user.role))),
        };
        let tag = self.tag(&name, &password, known.as_ref().map(|(stored, _)| stored));
        let person = |role: Role| Ok(Person { name: name.clone(), role });
        if let Some((_, role)) = &known
            && self.remembers(&tag)
        {
            return person(*role);
        }
        // One after the other: who sends many at once is not faster, and nobody else waits for them.
        let (waiting, turn) =
            self.place(place, |entry| (entry.waiting.clone(), entry.turn.clone()));
        let Ok(_waiting) = waiting.try_acquire() else {
            return Err(Denied::TooMany(Duration::from_secs(1)));
        };
        let _turn = turn.lock().await;
        if let Some((_, role)) = &known
            && self.remembers(&tag)
        {
            return person(*role);
        }
        if let Some(wait) = self.wait(place) {
            return Err(Denied::TooMany(wait));
        }
        let role = known.as_ref().map(|(_, role)| *role);
        let right = match self.verifying.acquire().await {
            Err(_) => false,
            Ok(_permit) => tokio::task::spawn_blocking(move || match known {
                Some((stored, _)) => stored.verify(&password),
                None => verify_nobody(&password),
            })
            .await
            .unwrap_or(false),
        };
        match role.filter(|_| right) {
            Some(role) => {
                self.remember(tag);
                locked(&self.places).remove(&place);
                person(role)
            }
            None => {
                self.failed(place);
                Err(Denied::Wrong)
            }
        }
    }

    /// What stands for name, password and the hash that it was checked against: another hash, and
    /// it means nothing.
    fn tag(&self, name: &str, password: &str, stored: Option<&Stored>) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.key);
        for part in [name.as_bytes(), password.as_bytes()] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        match stored {
            Some(Stored::Argon2(phc)) => context.update(phc.as_bytes()),
            Some(Stored::Sha512(hash)) => context.update(hash),
            None => {}
        }
        let mut tag = [0; 32];
        tag.copy_from_slice(context.sign().as_ref());
        tag
    }

    fn remembers(&self, tag: &[u8; 32]) -> bool {
        let mut remembered = locked(&self.remembered);
        let Some(entry) = remembered.get_mut(tag) else { return false };
        let good =
            entry.used.elapsed() < REMEMBERED && entry.verified.elapsed() < REMEMBERED_AT_MOST;
        if good {
            entry.used = Instant::now();
        } else {
            remembered.remove(tag);
        }
        good
    }

    fn remember(&self, tag: [u8; 32]) {
        let mut remembered = locked(&self.remembered);
        remembered.retain(|_, entry| entry.used.elapsed() < REMEMBERED);
        let now = Instant::now();
        remembered.insert(tag, Remembered { verified: now, used: now });
    }

    async fn users(&self, stores: &Stores) -> Result<Arc<Vec<ConsoleUser>>, OpsError> {
        if let Some((at, users)) = &*locked(&self.users)
            && at.elapsed() < USERS_KNOWN
        {
            return Ok(users.clone());
        }
        let users = Arc::new(stores.with(|store| Ok(store.console_users()?)).await?);
        *locked(&self.users) = Some((Instant::now(), users.clone()));
        Ok(users)
    }

    fn wait(&self, place: IpAddr) -> Option<Duration> {
        let places = locked(&self.places);
        let entry = places.get(&place)?;
        pause(entry.failures).checked_sub(entry.last.elapsed()).filter(|wait| !wait.is_zero())
    }

    fn failed(&self, place: IpAddr) {
        let mut places = locked(&self.places);
        if let Some(entry) = places.get_mut(&place) {
            entry.failures = entry.failures.saturating_add(1);
            entry.last = Instant::now();
        }
    }

    /// The entry of a place, made where there is none.
    fn place<T>(&self, place: IpAddr, read: impl FnOnce(&Place) -> T) -> T {
        let mut places = locked(&self.places);
        if !places.contains_key(&place) {
            places.retain(|_, entry| entry.last.elapsed() < FORGIVEN);
            if places.len() >= PLACES
                && let Some(oldest) = places.iter().min_by_key(|(_, e)| e.last).map(|(ip, _)| *ip)
            {
                places.remove(&oldest);
            }
        }
        read(places.entry(place).or_insert_with(|| Place {
            failures: 0,
            last: Instant::now(),
            waiting: Arc::new(Semaphore::new(WAITING)),
            turn: Arc::default(),
        }))
    }
}

/// Name and password; None where the header is none of basic authentication.
fn credentials(headers: &HeaderMap) -> Option<(String, String)> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(base64(encoded.trim())?).ok()?;
    let (name, password) = text.split_once(':')?;
    Some((name.to_owned(), password.to_owned()))
}

fn base64(text: &str) -> Option<Vec<u8>> {
    let digit = |b: u8| match b {
        b'A'..=b'Z' => Some(b - b'A'),
        b'a'..=b'z' => Some(b - b'a' + 26),
        b'0'..=b'9' => Some(b - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let digits = text.trim_end_matches('=').bytes().map(digit).collect::<Option<Vec<u8>>>()?;
    let mut bytes = Vec::with_capacity(digits.len());
    for group in digits.chunks(4) {
        let word = group.iter().fold(0u32, |word, digit| word << 6 | u32::from(*digit));
        match group.len() {
            4 => bytes.extend([(word >> 16) as u8, (word >> 8) as u8, word as u8]),
            3 => bytes.extend([(word >> 10) as u8, (word >> 2) as u8]),
            2 => bytes.push((word >> 4) as u8),
            _ => return None,
        }
    }
    Some(bytes)
}

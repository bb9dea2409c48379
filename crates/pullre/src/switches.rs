//! Servers outside the pool that are started and stopped by the clock: `auto_start_at` and
//! `auto_stop_at`, a time of day each, in the time zone `auto_timezone`.
//!
//! Level-triggered: what counts is the newest switch that was due in the last 24 hours. It is done
//! once, however late, and remembered, so that what a person does to the machine afterwards stays.

use std::fmt;
use std::str::FromStr;

use jiff::civil::{Time, Weekday};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan, Zoned};

use crate::domain::{InstanceId, Invalid, ServerId};
use crate::facts::{Facts, Server};
use crate::ports::Compute;
use crate::reconcile::lock::{LockName, Locks};
use crate::store::{Store, StoreError};

/// How long a missed switch is made good.
const CATCH_UP: SignedDuration = SignedDuration::from_hours(24);

/// When a server is started and stopped by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Switching {
    pub start: Option<Time>,
    pub stop: Option<Time>,
    /// On which days; each switch counts by the day that it falls on.
    pub weekdays: Weekdays,
    /// When the newest switch that was done was due. A crash between a switch and this only does
    /// it again.
    pub done: Option<Timestamp>,
}

impl Switching {
    pub fn is_set(&self) -> bool {
        self.start.is_some() || self.stop.is_some()
    }

    /// Every switch from three days before to eight days after `now`, the first one first.
    fn around(&self, now: Timestamp, zone: &TimeZone) -> Vec<(Zoned, To)> {
        // A start and a stop at the same moment say nothing.
        if self.start == self.stop {
            return Vec::new();
        }
        let today = now.to_zoned(zone.clone()).date();
        let mut all = Vec::new();
        for day in -3..=8 {
            let Ok(date) = today.checked_add(day.days()) else { continue };
            if !self.weekdays.contains(date.weekday()) {
                continue;
            }
            for (time, to) in [(self.start, To::Start), (self.stop, To::Stop)] {
                // A time that a clock change leaves out comes as much later as the clock jumps;
                // one that it repeats counts the first time.
                let due = time.and_then(|time| date.to_datetime(time).to_zoned(zone.clone()).ok());
                all.extend(due.map(|due| (due, to)));
            }
        }
        // Two that a clock change throws together keep their order on the clock.
        all.sort_by_key(|(due, _)| due.timestamp());
        all
    }

    /// The newest switch of the last 24 hours, done or not.
    fn newest(&self, now: Timestamp, zone: &TimeZone) -> Option<(Zoned, To)> {
        let age = |due: &Zoned| now.duration_since(due.timestamp());
        let due = |due: &Zoned| (SignedDuration::ZERO..CATCH_UP).contains(&age(due));
        self.around(now, zone).into_iter().rfind(|(at, _)| due(at))
    }

    /// The next switch after `now`.
    pub fn next(&self, now: Timestamp, zone: &TimeZone) -> Option<(Zoned, To)> {
        self.around(now, zone).into_iter().find(|(due, _)| due.timestamp() > now)
    }
}

impl fmt::Display for Switching {
    /// `starts 08:30, stops 19:00 mon-fri`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let times = [("starts", self.start), ("stops", self.stop)];
        let said = times.into_iter().filter_map(|(word, time)| {
            time.map(|time| format!("{word} {}", time.strftime("%H:%M")))
        });
        f.write_str(&said.collect::<Vec<_>>().join(", "))?;
        if self.weekdays == Weekdays::default() { Ok(()) } else { write!(f, " {}", self.weekdays) }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum To {
    Start,
    Stop,
}

impl fmt::Display for To {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            To::Start => "start",
            To::Stop => "stop",
        })
    }
}

/// One machine to be switched now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Switch {
    pub server: ServerId,
    pub name: String,
    pub instance: InstanceId,
    pub to: To,
    pub due: Zoned,
}

impl fmt::Display for Switch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Switch { name, to, due, .. } = self;
        write!(f, "{to} {name}, due {}", due.strftime("%a %Y-%m-%d %H:%M %Z"))
    }
}

/// What is to be switched now. Never a server of the pool, or one that still serves a pull
/// request; nor one that is held, whose switch waits for its release.
pub fn switches(facts: &Facts, now: Timestamp, zone: &TimeZone) -> Vec<Switch> {
    if facts.paused.is_some() {
        return Vec::new();
    }
    facts.servers.values().filter_map(|server| switch(server, facts, now, zone)).collect()
}

fn switch(server: &Server, facts: &Facts, now: Timestamp, zone: &TimeZone) -> Option<Switch> {
    let held = server.hold.as_ref().is_some_and(|hold| hold.holds_at(now));
    if server.is_staging || held || facts.assignment_of_server(server.id).is_some() {
        return None;
    }
    let switching = server.switching.as_ref().ok()?;
    let (due, to) = switching.newest(now, zone)?;
    if switching.done.is_some_and(|done| done >= due.timestamp()) {
        return None;
    }
    let instance = server.instance.clone()?;
    Some(Switch { server: server.id, name: server.name.clone(), instance, to, due })
}

/// What the times of each server outside the pool mean while `auto_timezone` is not set: pullre-kun
/// read them in the machine's own time zone, and we in UTC. Empty where there are none.
pub fn both_readings(facts: &Facts, now: Timestamp, local: &TimeZone) -> Vec<String> {
    let servers = facts.servers.values().filter(|server| !server.is_staging);
    let told = servers.filter_map(|server| {
        let switching = server.switching.as_ref().ok()?;
        let (utc, to) = switching.next(now, &TimeZone::UTC)?;
        let (own, own_to) = switching.next(now, local)?;
        let at = |due: &Zoned| due.strftime("%a %Y-%m-%d %H:%M %Z").to_string();
        Some(format!(
            "{}: the next switch is {to} at {} (read as UTC), or {own_to} at {} (read in this \
             machine's time zone)",
            server.name,
            at(&utc),
            at(&own)
        ))
    });
    told.collect()
}

/// What became of one switch.
#[derive(Debug)]
pub enum Outcome {
    Done,
    /// The next run tries again, until the switch is a day old.
    Failed(String),
    /// Somebody else is at it.
    Left,
}

/// Does what [`switches`] says; `say` hears of each. An error means that the control database
/// could not be used.
pub fn apply(
    store: &mut Store,
    compute: &dyn Compute,
    locks: &Locks,
    zone: &TimeZone,
    now: Timestamp,
    say: &mut dyn FnMut(&Switch, &Outcome),
) -> Result<(), StoreError> {
    for switch in switches(&store.facts()?, now, zone) {
        let _held = match locks.try_lock(&LockName::Server(switch.server)) {
            Ok(Some(held)) => held,
            Ok(None) => {
                say(&switch, &Outcome::Left);
                continue;
            }
            Err(e) => {
                say(&switch, &Outcome::Failed(format!("no lock: {e}")));
                continue;
            }
        };
        // Another run, or a person, may have been faster.
        let facts = store.facts()?;
        if !switches(&facts, now, zone).contains(&switch) {
            continue;
        }
        let asked = match switch.to {
            To::Start => compute.start(&switch.instance),
            To::Stop => compute.stop(&switch.instance),
        };
        if let Err(e) = asked {
            say(&switch, &Outcome::Failed(e.to_string()));
            continue;
        }
        say(&switch, &Outcome::Done);
        store.switched(switch.server, switch.due.timestamp())?;
        store.event(now, "switch-servers", None, Some(switch.server), &switch.to_string())?;
    }
    Ok(())
}

/// The time of day of a moment as a row holds it: pullre-kun keeps a whole date there.
pub fn time_of_day(text: &str) -> Result<Time, Invalid> {
    let time = text.trim().rsplit([' ', 'T']).next().unwrap_or_default();
    time.parse().map_err(|_| Invalid::new(text, "a time of day such as 08:30"))
}

/// Days of the week; all of them unless said otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weekdays(u8);

const NAMES: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

impl Weekdays {
    pub fn contains(self, day: Weekday) -> bool {
        self.0 & (1 << day.to_monday_zero_offset()) != 0
    }
}

impl Default for Weekdays {
    fn default() -> Self {
        Weekdays(0b111_1111)
    }
}

impl FromStr for Weekdays {
    type Err = Invalid;
    /// `mon-fri`, `mon,wed,sat`, `sat-mon`
    fn from_str(s: &str) -> Result<Self, Invalid> {
        let bad = || Invalid::new(s, "weekdays such as mon-fri or mon,wed,sat");
        let day = |word: &str| {
            let word = word.trim().to_lowercase();
            NAMES.iter().position(|name| *name == word).ok_or_else(bad)
        };
        let mut days = 0;
        for part in s.split(',') {
            let (from, to) = part.split_once('-').unwrap_or((part, part));
            let (mut at, to) = (day(from)?, day(to)?);
            days |= 1 << to;
            while at != to {
                days |= 1 << at;
                at = (at + 1) % 7;
            }
        }
        Ok(Weekdays(days))
    }
}

impl fmt::Display for Weekdays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ranges: Vec<(usize, usize)> = Vec::new();
        for day in (0..7).filter(|day| self.0 & (1 << day) != 0) {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == day => *last = day,
                _ => ranges.push((day, day)),
            }
        }
        let said = ranges.into_iter().map(|(from, to)| match to - from {
            0 => NAMES[from].to_owned(),
            1 => format!("{},{}", NAMES[from], NAMES[to]),
            _ => format!("{}-{}", NAMES[from], NAMES[to]),
        });
        f.write_str(&said.collect::<Vec<_>>().join(","))
    }
}

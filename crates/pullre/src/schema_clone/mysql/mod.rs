//! Cloning where all schemas are on one MySQL server: the server copies, no row comes to us.
//!
//! Where the destination does not exist or is empty, the clone is built in it; else beside it, and
//! swapped. What a kill leaves behind: a schema that holds the table [`PROBE`], which the next
//! clone into the same destination replaces; or, where the swap had begun, what [`swap`] says.

mod build;
mod copy;
mod ddl;
mod fault;
mod intent;
mod leftovers;
mod literals;
mod masking;
mod names;
mod parts;
mod programs;
mod refresh;
mod rights;
mod room;
mod session;
mod source;
mod swap;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use self::ddl::{quoted, text};
use self::fault::Fault;
use self::leftovers::{MARKS, ORPHANS_WAIT, PROBE, SEEN, State, clear, state};
pub use self::names::{is_beside, looks_beside, worked_in};
use self::session::{Crew, Session, at_once};
use super::mask::Mask;
use super::{CloneError, CloneOutcome, Consistency, Phase, Progress, Request};
use crate::domain::SchemaName;
use crate::store::mysql::MysqlAccess;

/// How often a source that is altered while it is copied is copied again.
const TRIES: usize = 3;

/// What becomes of sessions that hold tables of the clone that is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SwapBusy {
    /// They stay, and the clone is put off.
    Wait,
    /// They are ended.
    Kill,
}

/// A MySQL server and how schemas are cloned on it.
#[derive(Debug, Clone)]
pub struct Server {
    pub access: MysqlAccess,
    /// Connections that copy side by side.
    pub workers: usize,
    /// A larger source is refused.
    pub max_bytes: Option<u64>,
    /// While the server runs more statements than this, a clone waits.
    pub max_running: u32,
    pub swap_busy: SwapBusy,
}

impl Server {
    /// With the defaults: a worker for each core of this machine, four at most.
    pub fn new(access: MysqlAccess) -> Server {
        Server {
            access,
            workers: default_workers(),
            max_bytes: None,
            max_running: 50,
            swap_busy: SwapBusy::Wait,
        }
    }

    /// Makes `destination` a copy of `source` as it is at one moment. The caller holds the lock of
    /// the destination schema.
    pub fn clone_schema(
        &self,
        request: &Request<'_>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<CloneOutcome, CloneError> {
        let started = Instant::now();
        let job = self.job(request, started);
        let Request { source, destination, .. } = *request;
        if source.collides(destination) {
            let place = self.access.place().to_owned();
            return Err(CloneError::SameSchema { schema: source.clone(), place });
        }
        let own = self.access.control_schema();
        let control = [source, destination].into_iter().find(|name| name.collides(own));
        let wrong = match control {
            Some(schema) => Some((schema, "it is the control database".to_owned())),
            None if is_beside(destination, source) => {
                Some((source, format!("clones into `{destination}` need its name for themselves")))
            }
            None => None,
        };
        if let Some((schema, message)) = wrong {
            return Err(CloneError::Other {
                schema: schema.clone(),
                place: self.access.place().to_owned(),
                doing: "choosing what to copy",
                message,
                remedy: "Register another schema in its place",
            });
        }
        let mut tries = 1;
        loop {
            match job.attempt(started, progress) {
                Err(Fault::Altered(why) | Fault::Disturbed(why)) if tries < TRIES => {
                    tracing::info!("{source} is copied again: {why}");
                    tries += 1;
                }
                other => return other.map_err(|fault| job.tell(fault)),
            }
        }
    }

    /// See [`crate::schema_clone::Schemas::undo`].
    pub fn undo(
        &self,
        schema: &SchemaName,
        wish: i64,
        timeout: Duration,
    ) -> Result<(), CloneError> {
        let job = self.job(&Request::new(schema, schema, timeout), Instant::now());
        let work = || -> Result<(), Fault> {
            let mut control = job.session()?;
            swap::finish(&job, &mut control)?;
            swap::undo(&job, &mut control, wish)
        };
        work().map_err(|fault| job.tell(fault))?;
        for note in job.late_notes().iter() {
            tracing::warn!("{schema}: {note}");
        }
        Ok(())
    }

    /// See [`crate::schema_clone::Schemas::try_mask`].
    pub(super) fn try_mask(&self, request: &Request<'_>) -> Result<(), CloneError> {
        let job = self.job(request, Instant::now());
        let work = || -> Result<(), Fault> {
            let mut control = job.session()?;
            let mut from = job.read_source(&mut control)?;
            masking::fit(&job, &mut control, &mut from)
        };
        work().map_err(|fault| job.tell(fault))
    }

    fn job<'a>(&'a self, request: &Request<'a>, started: Instant) -> Job<'a> {
        let Request { source, destination, timeout, mask, keep_previous, wish } = *request;
        Job {
            access: &self.access,
            source,
            destination,
            workers: self.workers.max(1),
            max_bytes: self.max_bytes,
            max_running: self.max_running,
            swap_busy: self.swap_busy,
            mask,
            keep_previous,
            wish,
            moved: AtomicBool::new(false),
            timeout,
            deadline: started.checked_add(timeout),
            no_snapshots: AtomicBool::new(false),
            source_bytes: AtomicU64::new(0),
            waited: AtomicU64::new(0),
            late_notes: Mutex::default(),
        }
    }

    /// Whether the schema exists and is not empty.
    pub fn holds_something(&self, schema: &SchemaName) -> Result<bool, CloneError> {
        let job = self.job(&Request::new(schema, schema, ORPHANS_WAIT), Instant::now());
        let look = || -> Result<bool, Fault> {
            let mut session = job.session()?;
            Ok(state(&mut session, schema.as_str())?.is_some_and(|found| found != State::Empty))
        };
        look().map_err(|fault| job.tell(fault))
    }
}

pub fn default_workers() -> usize {
    thread::available_parallelism().map_or(1, usize::from).min(4)
}

/// One clone.
struct Job<'a> {
    access: &'a MysqlAccess,
    source: &'a SchemaName,
    destination: &'a SchemaName,
    workers: usize,
    max_bytes: Option<u64>,
    max_running: u32,
    swap_busy: SwapBusy,
    mask: &'a Mask,
    keep_previous: bool,
    wish: Option<i64>,
    /// The new tables are in place.
    moved: AtomicBool,
    timeout: Duration,
    /// None: further away than the clock can count.
    deadline: Option<Instant>,
    /// This server was seen to copy what is there and not what was.
    no_snapshots: AtomicBool,
    /// Known once the source was read.
    source_bytes: AtomicU64,
    /// Milliseconds, for a busy server.
    waited: AtomicU64,
    /// What became known when the clone was put in place, by this run or for an earlier one.
    late_notes: Mutex<Vec<String>>,
}

impl Job<'_> {
    fn session(&self) -> Result<Session, Fault> {
        let session = Session::open(self.access, self.remaining());
        let mut session = session.map_err(|e| self.connect_fault(e))?;
        if !session.logs_rows()? {
            self.no_snapshots.store(true, Ordering::Relaxed);
        }
        Ok(session)
    }

    fn late_notes(&self) -> MutexGuard<'_, Vec<String>> {
        // A panic elsewhere leaves it whole.
        self.late_notes.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn in_the_way(&self, schema: &str) -> Fault {
        Fault::Told(CloneError::InTheWay {
            schema: self.destination.clone(),
            place: self.access.place().to_owned(),
            name: schema.to_owned(),
        })
    }

    fn read_source(&self, control: &mut Session) -> Result<source::Schema, Fault> {
        let (schema, place) = (self.source.clone(), self.access.place().to_owned());
        let read = source::read(control, self.source.as_str())?;
        read.ok_or(Fault::Told(CloneError::SourceMissing { schema, place }))
    }

    fn crew(&self, size: usize) -> Result<Crew, Fault> {
        let sessions: Result<Vec<_>, _> = thread::scope(|scope| {
            let opened: Vec<_> = (0..size).map(|_| scope.spawn(|| self.session())).collect();
            let join = |opened: thread::ScopedJoinHandle<'_, _>| {
                opened.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            opened.into_iter().map(join).collect()
        });
        Ok(Crew::new(self.access, sessions?, self.deadline))
    }

    fn attempt(
        &self,
        started: Instant,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<CloneOutcome, Fault> {
        let mut control = self.session()?;
        let destination = self.destination.as_str();
        swap::finish(self, &mut control)?;
        // Of another clone, if at all; this one has moved nothing yet.
        self.moved.store(false, Ordering::Relaxed);
        let kept_already = swap::kept_already(self, &mut control)?;
        let keeps = self.keep_previous && !kept_already;

        let place = || self.access.place().to_owned();
        let found = state(&mut control, destination)?;
        let in_place = found != Some(State::Full);
        let (mut from, there) = at_once(
            || self.read_source(&mut control),
            || if in_place { Ok(None) } else { refresh::look(self).map(Some) },
        )?;
        if from.tables.iter().any(|table| MARKS.contains(&table.name.as_str())) {
            return Err(Fault::Told(CloneError::Other {
                schema: self.source.clone(),
                place: place(),
                doing: "reading it",
                message: "it is itself a clone that is not finished, or a previous one".to_owned(),
                remedy: "Register another schema for its user",
            }));
        }
        masking::fit(self, &mut control, &mut from)?;
        build::check_size(self, &from)?;

        let mut notes = Vec::new();
        let (building, _) = names::beside(destination);
        let into = if in_place { destination } else { &building };
        if let Some(there) = there {
            progress(Progress::at(Phase::Comparing));
            let kinds = rights::kinds(there.old().into_iter().chain([&from]));
            if let Some(built) =
                refresh::refresh(self, &mut control, there, &from, &mut notes, progress)?
            {
                // A run that was killed while it copied had begun beside.
                if state(&mut control, &building)? == Some(State::Unfinished) {
                    clear(self, &mut control, &building)?;
                }
                let kept = self.keep_previous && swap::keeps_previous(self, &mut control)?;
                return self.outcome(&mut control, &from, built, kept, started, notes);
            }
            rights::may_swap(self, &mut control, &kinds, keeps)?;
        }
        // What an earlier run's swap had to leave out is made anew.
        self.late_notes().clear();
        room::check(self, &mut control)?;
        room::breathe(self, &mut control, || progress(Progress::at(Phase::Waiting)))?;
        let built = at_once(
            || self.start(&mut control, &from, into, found.is_some()),
            || self.crew(build::crew_size(self, &from)),
        )
        .and_then(|((), mut crew)| {
            build::build(self, &mut control, &mut crew, &from, into, &mut notes, progress)
        });
        let built = match built {
            Ok(built) => built,
            Err(fault) => {
                // What cannot be removed now is replaced by the next clone.
                if let Err(e) = self.remove(into, in_place && found.is_some()) {
                    tracing::warn!("the unfinished clone {into} was not removed: {e:?}");
                }
                return Err(fault);
            }
        };
        if in_place {
            // In this order: while the mark is there, the clone is not finished.
            let name = quoted(destination);
            let sql = format!("DROP TABLE IF EXISTS {name}.`{SEEN}`, {name}.`{PROBE}`");
            control.run("finishing the clone", sql)?;
        } else {
            progress(Progress::at(Phase::Swapping));
            self.swap(&mut control, &from, &building, keeps)?;
        }
        let kept = kept_already || (keeps && !in_place);
        self.outcome(&mut control, &from, built, kept, started, notes)
    }

    fn outcome(
        &self,
        control: &mut Session,
        from: &source::Schema,
        built: build::Built,
        kept_previous: bool,
        started: Instant,
        mut notes: Vec<String>,
    ) -> Result<CloneOutcome, Fault> {
        if !kept_previous {
            swap::forget_previous(self, control)?;
        }
        build::notes(from, &mut notes);
        // Most were known before.
        let mut late = self.late_notes();
        late.retain(|note| !notes.contains(note));
        notes.append(&mut late);
        source::unseen(control, from, &mut notes)?;
        room::note(self, &mut notes);
        if built.consistency == Consistency::Locked {
            notes.push(
                "writers of the source waited while its rows were copied: copying a snapshot takes the right \
                 CREATE ROUTINE and, with a binary log, log_bin_trust_function_creators = 1 and \
                 binlog_format = ROW"
                    .to_owned(),
            );
        }
        Ok(CloneOutcome {
            tables: built.tables,
            rows: built.rows,
            bytes: size(control, self.destination.as_str())?,
            elapsed: started.elapsed(),
            consistency: built.consistency,
            kept_previous,
            notes,
        })
    }

    /// An empty schema with our mark in it.
    fn start(
        &self,
        control: &mut Session,
        from: &source::Schema,
        into: &str,
        exists: bool,
    ) -> Result<(), Fault> {
        const STARTING: &str = "creating the schema";
        let name = quoted(into);
        let beside = into != self.destination.as_str();
        if beside || (exists && state(control, into)? == Some(State::Unfinished)) {
            clear(self, control, into)?;
        }
        let intent =
            if beside { format!("; {}", intent::intent_table(into)) } else { String::new() };
        let (charset, collation) = (quoted(&from.charset), quoted(&from.collation));
        control.run(
            STARTING,
            format!(
                "CREATE DATABASE IF NOT EXISTS {name};
                 CREATE TABLE {name}.`{PROBE}` (n INT) ENGINE = InnoDB;
                 ALTER DATABASE {name} CHARACTER SET {charset} COLLATE {collation}{intent}"
            ),
        )
    }

    /// Makes a probe that was seen one that nobody has seen yet, nor written.
    fn clear_probe(&self, control: &mut Session, schema: &str) -> Result<(), Fault> {
        let name = quoted(schema);
        let sql = format!("DELETE FROM {name}.`{SEEN}`; DELETE FROM {name}.`{PROBE}`");
        control.run("preparing the probe", sql)
    }

    /// The place for what functions see of the probe, if it is not there yet.
    fn make_seen(&self, control: &mut Session, schema: &str) -> Result<(), Fault> {
        let name = quoted(schema);
        let sql = format!("CREATE TABLE IF NOT EXISTS {name}.`{SEEN}` (n INT) ENGINE = InnoDB");
        control.run("preparing the probe", sql)
    }

    /// Takes an unfinished clone away. `stays`: the empty schema was there before.
    fn remove(&self, schema: &str, stays: bool) -> Result<(), Fault> {
        let mut session =
            Session::open(self.access, ORPHANS_WAIT).map_err(|e| self.connect_fault(e))?;
        clear(self, &mut session, schema)?;
        if stays {
            let create = format!("CREATE DATABASE IF NOT EXISTS {}", quoted(schema));
            session.run("creating the schema", create)?;
        }
        Ok(())
    }

    fn swap(
        &self,
        control: &mut Session,
        from: &source::Schema,
        building: &str,
        keeps: bool,
    ) -> Result<(), Fault> {
        let destination = self.destination.as_str();
        let old = source::read_ours(control, destination)?.ok_or_else(|| {
            Fault::Disturbed(format!("the schema `{destination}` was dropped meanwhile"))
        })?;
        let keep = keeps.then_some(intent::Keep { wish: self.wish });
        intent::intend(self, control, from, &old, building, destination, keep)?;
        swap::finish(self, control).map(|_| ())
    }
}

/// Rows and keys; an estimate.
fn size(session: &mut Session, schema: &str) -> Result<u64, Fault> {
    let sql = format!(
        "SELECT CAST(COALESCE(SUM(data_length + index_length), 0) AS UNSIGNED)
         FROM information_schema.tables WHERE table_schema = {}",
        text(schema)
    );
    Ok(session.one("measuring the clone", sql)?.unwrap_or(0))
}

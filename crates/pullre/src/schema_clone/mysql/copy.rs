//! Copies the rows, all as of one moment, and builds the keys that waited for them.
//!
//! A plain `INSERT ... SELECT` reads what is there now and makes writers wait. Inside of a stored
//! function that a `SELECT` calls in a snapshot transaction, it reads the snapshot and nobody
//! waits. That is nowhere promised, so each of these functions proves it: before the rows it copies
//! a probe that was written after the snapshot, and must not see it.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::ddl::quoted;
use super::fault::Fault;
use super::leftovers::{self, PROBE, SEEN};
use super::session::{Crew, Session, Tell};
use super::source::{Schema, Table};
use super::{Job, masking, room};
use crate::schema_clone::{Consistency, Phase, Progress};

const COPYING: &str = "copying rows";
const INDEXING: &str = "building keys";
const LOCKING: &str = "taking all tables at one moment";
const CLEANING: &str = "removing what was made for the copying";

/// For how long all tables are asked for at once, and the pause between. No writer waits meanwhile;
/// where a server waits a second all the same (MySQL), it is asked once.
const ASKING: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(10);

/// Says where a function is, also after it failed.
pub(super) const AT_WORK: &str = "@pullre_at_work";

/// So many tables are opened at once at most.
const GROUP: usize = 100;
/// A piece of several tables has about this size at most: each has a function of its own, which costs
/// some waiting for the disk, and a large last one would keep the others waiting.
const SHARE: u64 = 8 << 20;

/// A piece of the copying: one big table, or some small ones.
#[derive(Debug, Clone)]
struct Piece {
    tables: Vec<usize>,
    bytes: u64,
    /// None: rows are copied by plain statements.
    function: Option<String>,
}

#[derive(Debug)]
pub(super) struct Pieces {
    pieces: Vec<Piece>,
    /// All have functions.
    by_function: bool,
    /// The function that tried how this server reads; the first of the crew called it.
    trial: Option<String>,
}

#[derive(Debug)]
pub(super) struct Copied {
    pub rows: Vec<u64>,
    pub consistency: Consistency,
}

/// The server does not read snapshots as hoped; the rows that were copied are of no use.
#[derive(Debug)]
pub(super) struct NoSnapshots;

pub(super) struct Copy<'a> {
    pub job: &'a Job<'a>,
    pub source: &'a Schema,
    pub into: &'a str,
    /// Those over it are pieces of their own.
    pub big: u64,
    /// For each table the statements that follow its rows.
    pub keys: &'a [Vec<Vec<u8>>],
    pub workers: usize,
}

enum Told {
    Rows {
        table: usize,
        rows: u64,
    },
    /// One worker reads nothing more of the source.
    Read,
}

/// Counts alone would not tell: nothing was copied, and nothing is there.
fn unread() -> Fault {
    Fault::Altered("not every table was copied".to_owned())
}

/// Keys whose tables are complete.
struct Ready {
    tables: Vec<usize>,
    copying: usize,
    /// Of those that copy: who will take another piece.
    reading: usize,
    over: bool,
}

impl Ready {
    /// Whether one of them may turn to keys; somebody goes on reading.
    fn leave(&mut self) -> bool {
        let others = self.reading > 1;
        self.reading -= usize::from(others);
        others
    }
}

// A panic elsewhere leaves queues whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

/// The table that a function of this session was at when it failed, by its place. A connection that
/// is lost is asked nothing: what it says may answer the call.
pub(super) fn at_work(session: &mut Session, fault: &Fault) -> Option<usize> {
    if fault.is_lost() {
        return None;
    }
    // NULL where the first table could not even be opened.
    session.one::<Option<usize>>(COPYING, format!("SELECT {AT_WORK}")).ok().flatten().flatten()
}

/// By whoever called them last: until the end of its transaction nobody else can.
fn drop_functions(
    session: &mut Session,
    names: impl IntoIterator<Item = impl AsRef<str>>,
) -> Result<(), Fault> {
    let drop = |name: &str| format!("DROP FUNCTION IF EXISTS {name}");
    let drops: Vec<_> = names.into_iter().map(|name| drop(name.as_ref())).collect();
    if drops.is_empty() { Ok(()) } else { session.run(CLEANING, drops.join("; ")) }
}

impl Copy<'_> {
    fn fill(&self, index: usize) -> String {
        // Pieces hold only tables that are copied.
        masking::fill(&self.source.tables[index], &self.source.name, self.into).unwrap_or_default()
    }

    fn pieces(&self) -> Vec<Piece> {
        let (mut pieces, mut small) = (Vec::new(), Vec::new());
        for (index, table) in self.source.tables.iter().enumerate() {
            if !table.has_rows() || table.columns.is_empty() || table.mask.skips() {
                continue;
            }
            if table.bytes > self.big {
                pieces.push(Piece { tables: vec![index], bytes: table.bytes, function: None });
            } else {
                small.push(index);
            }
        }
        let bytes: u64 = small.iter().map(|index| self.source.tables[*index].bytes).sum();
        let shares = usize::try_from(bytes.div_ceil(SHARE)).unwrap_or(usize::MAX);
        let groups = self.workers.max(small.len().div_ceil(GROUP)).max(shares);
        let groups = groups.min(small.len()).max(1);
        let mut shares = vec![Piece { tables: Vec::new(), bytes: 0, function: None }; groups];
        small.sort_by_key(|index| std::cmp::Reverse(self.source.tables[*index].bytes));
        for (turn, index) in small.into_iter().enumerate() {
            let share = &mut shares[turn % groups];
            share.tables.push(index);
            share.bytes += self.source.tables[index].bytes;
        }
        pieces.extend(shares.into_iter().filter(|share| !share.tables.is_empty()));
        pieces.sort_by_key(|piece| std::cmp::Reverse(piece.bytes));
        pieces
    }

    /// What is copied at a time, with functions for it where `snapshots` are to be had. The tables
    /// need not be there yet.
    pub fn prepare(&self, control: &mut Session, snapshots: bool) -> Result<Pieces, Fault> {
        let mut pieces = self.pieces();
        if snapshots {
            self.job.make_seen(control, self.into)?;
        }
        let by_function = snapshots && self.make_functions(control, &mut pieces)?;
        if !by_function {
            drop_functions(control, pieces.iter_mut().filter_map(|piece| piece.function.take()))?;
        }
        Ok(Pieces { pieces, by_function, trial: None })
    }

    /// The functions are made in the new schema. False: they may not be.
    fn make_functions(&self, control: &mut Session, pieces: &mut [Piece]) -> Result<bool, Fault> {
        let into = quoted(self.into);
        for (n, piece) in pieces.iter_mut().enumerate() {
            let name = format!("{into}.`pullre~copy~{n}`");
            let mut body = format!(
                "DROP FUNCTION IF EXISTS {name};
                 CREATE FUNCTION {name}() RETURNS LONGTEXT CHARACTER SET ascii MODIFIES SQL DATA
                 BEGIN
                     DECLARE `pullre~counts` LONGTEXT CHARACTER SET ascii DEFAULT '';
                     INSERT INTO {into}.`{SEEN}` SELECT * FROM {into}.`{PROBE}`;\n"
            );
            for index in &piece.tables {
                body += &format!("SET {AT_WORK} = {index};\n");
                body += &self.fill(*index);
                body += ";\nSET `pullre~counts` = CONCAT(`pullre~counts`, ROW_COUNT(), ',');\n";
            }
            body += "RETURN `pullre~counts`;\nEND";
            match control.run("making the functions that copy", body) {
                Ok(()) => piece.function = Some(name),
                Err(e) if e.makes_no_function() => {
                    tracing::info!("no functions can be made for copying: {e:?}");
                    return Ok(false);
                }
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }

    fn lock_statement(&self) -> Option<String> {
        let lock =
            |table: &Table| format!("{}.{} READ", quoted(&self.source.name), quoted(&table.name));
        let tables: Vec<_> =
            self.source.tables.iter().filter(|table| table.has_rows()).map(lock).collect();
        (!tables.is_empty()).then(|| format!("LOCK TABLES {}", tables.join(", ")))
    }

    /// Gives the workers one snapshot: none of them can be later than another while all tables are
    /// locked, a matter of a millisecond. Returns how many share it: where the lock is not to be
    /// had, one worker alone is as consistent.
    fn take_snapshot(&self, control: &mut Session, crew: &mut Crew) -> Result<usize, Fault> {
        const START: &str = "START TRANSACTION WITH CONSISTENT SNAPSHOT";
        let mut start = |workers: usize| {
            crew.sessions.iter_mut().take(workers).try_for_each(|s| s.run(LOCKING, START))
        };
        let Some(locks) = self.lock_statement().filter(|_| self.workers > 1) else {
            return start(1).map(|()| 1);
        };
        // Without waiting: whoever waits for a table makes those behind it wait.
        control.run(LOCKING, "SET lock_wait_timeout = 0")?;
        let mut workers = 1;
        let began = Instant::now();
        while began.elapsed() < ASKING {
            self.job.check_time(LOCKING)?;
            match control.run(LOCKING, &locks) {
                Ok(()) => {
                    workers = self.workers;
                    let started = start(workers);
                    control.run(LOCKING, "UNLOCK TABLES")?;
                    started?;
                    break;
                }
                Err(e) if e.is_busy() => std::thread::sleep(PAUSE),
                Err(e) if e.is_forbidden() => {
                    tracing::info!("no lock for a common snapshot, one worker copies: {e:?}");
                    break;
                }
                Err(e) => return Err(e.or_altered()),
            }
        }
        control.run(LOCKING, "SET lock_wait_timeout = 10")?;
        if workers == 1 {
            start(1)?;
        }
        Ok(workers)
    }

    /// Copies everything, or says that there are no snapshots to be had.
    pub fn run(
        &self,
        control: &mut Session,
        crew: &mut Crew,
        mut pieces: Pieces,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Result<Copied, NoSnapshots>, Fault> {
        let by_function = pieces.by_function;
        let mut copiers = self.workers;
        if by_function {
            copiers = self.take_snapshot(control, crew)?;
            control.run(
                "writing the probe",
                format!("INSERT INTO {}.`{PROBE}` VALUES (1)", quoted(self.into)),
            )?;
            // Known before the rows are copied, where that takes long; of each function it is
            // known for sure behind them.
            if pieces.pieces.iter().any(|piece| piece.bytes > SHARE) {
                let trial = format!("{}.`pullre~copy~none`", quoted(self.into));
                if self.sees_later_rows(control, crew, &trial)? {
                    return Ok(Err(NoSnapshots));
                }
                pieces.trial = Some(trial);
            }
        } else {
            if let Some(locks) = self.lock_statement() {
                room::breathe(self.job, control, || progress(Progress::at(Phase::Waiting)))?;
                control.run(LOCKING, locks)?;
            }
            for session in &mut crew.sessions {
                session.run(
                    LOCKING,
                    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED; START TRANSACTION",
                )?;
            }
        }
        let done = self.copy(control, crew, &pieces, copiers, progress);
        if !by_function {
            control.run(LOCKING, "UNLOCK TABLES")?;
        }
        let rows = done.map_err(Fault::or_altered)?;
        if by_function {
            let sql = format!("SELECT COUNT(*) FROM {}.`{SEEN}`", quoted(self.into));
            let seen: Option<u64> = control.one("reading the probe", sql)?;
            if seen != Some(0) {
                return Ok(Err(NoSnapshots));
            }
        }
        let consistency = if by_function { Consistency::Snapshot } else { Consistency::Locked };
        Ok(Ok(Copied { rows, consistency }))
    }

    /// Whether a function that copies the probe alone finds what was written after the snapshot.
    fn sees_later_rows(
        &self,
        control: &mut Session,
        crew: &mut Crew,
        name: &str,
    ) -> Result<bool, Fault> {
        const TRYING: &str = "trying whether a snapshot can be copied";
        let into = quoted(self.into);
        control.run(
            TRYING,
            format!(
                "CREATE FUNCTION {name}() RETURNS INT MODIFIES SQL DATA BEGIN
                     INSERT INTO {into}.`{SEEN}` SELECT * FROM {into}.`{PROBE}`;
                     RETURN ROW_COUNT();
                 END"
            ),
        )?;
        let Some(session) = crew.sessions.first_mut() else { return Ok(true) };
        let seen: Option<i64> = session.one(TRYING, format!("SELECT {name}()"))?;
        if seen == Some(0) {
            return Ok(false);
        }
        session.run(TRYING, "ROLLBACK")?;
        Ok(true)
    }

    fn copy(
        &self,
        control: &mut Session,
        crew: &mut Crew,
        Pieces { pieces, by_function, trial }: &Pieces,
        copiers: usize,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Vec<u64>, Fault> {
        let queue: Mutex<VecDeque<&Piece>> = Mutex::new(pieces.iter().collect());
        let ready = Mutex::new(Ready {
            tables: Vec::new(),
            copying: copiers,
            reading: copiers,
            over: false,
        });
        let changed = Condvar::new();
        let each = |index: usize, session: &mut Session, tell: &Tell<Told>| {
            if index < copiers {
                let mut mine = Vec::new();
                let mut functions: Vec<_> = trial.iter().filter(|_| index == 0).collect();
                loop {
                    let piece = lock(&queue).pop_front();
                    let Some(piece) = piece else { break };
                    // Writers that wait for our lock would be what we wait for.
                    if *by_function {
                        room::breathe(self.job, session, || {})?;
                    }
                    functions.extend(piece.function.as_ref());
                    for (table, rows) in self.copy_piece(session, piece)? {
                        mine.push(table);
                        tell.tell(Told::Rows { table, rows });
                    }
                    // What is left is less than this one's keys will take: others read it meanwhile.
                    let left: u64 = lock(&queue).iter().map(|piece| piece.bytes).sum();
                    let waits = piece.tables.iter().any(|table| !self.keys[*table].is_empty());
                    if waits && piece.bytes > left && lock(&ready).leave() {
                        break;
                    }
                }
                // Others see the rows from here on; keys need that.
                session.run(COPYING, "COMMIT")?;
                tell.tell(Told::Read);
                let mut now = lock(&ready);
                now.copying -= 1;
                now.tables.extend(mine.into_iter().filter(|t| !self.keys[*t].is_empty()));
                // Taken from the end: the largest first.
                now.tables.sort_by_key(|table| self.source.tables[*table].bytes);
                changed.notify_all();
                drop(now);
                drop_functions(session, functions)?;
            }
            loop {
                let mut now = lock(&ready);
                let table = loop {
                    if now.over || (now.tables.is_empty() && now.copying == 0) {
                        return Ok(());
                    }
                    if let Some(table) = now.tables.pop() {
                        break table;
                    }
                    now = changed.wait(now).unwrap_or_else(|e| e.into_inner());
                };
                drop(now);
                let name = &self.source.tables[table].name;
                let mark = format!("/* {} */ ", leftovers::orphan_mark(self.into));
                for sql in &self.keys[table] {
                    session
                        .run(INDEXING, [mark.as_bytes(), sql].concat())
                        .map_err(|e| e.about(&format!("table `{name}`")))?;
                }
            }
        };
        let mut at = Progress {
            total_bytes: self.source.tables.iter().map(Table::copied_bytes).sum(),
            total_tables: pieces.iter().map(|piece| piece.tables.len() as u64).sum(),
            ..Progress::at(Phase::Copying)
        };
        progress(at);
        let mut rows = vec![0; self.source.tables.len()];
        let (mut reading, mut unlocked) = (copiers, Ok(()));
        let heard = |told| match told {
            Told::Rows { table, rows: count } => {
                rows[table] = count;
                at.copied_bytes += self.source.tables[table].bytes;
                at.tables += 1;
                at.rows += count;
                progress(at);
            }
            Told::Read => {
                reading -= 1;
                if reading == 0 && !*by_function {
                    // Writers wait no longer; keys need no more of the source.
                    unlocked = control.run(LOCKING, "UNLOCK TABLES");
                }
            }
        };
        let stop = || {
            lock(&ready).over = true;
            changed.notify_all();
        };
        crew.work(each, stop, heard)?;
        unlocked?;
        if lock(&queue).is_empty() { Ok(rows) } else { Err(unread()) }
    }

    fn copy_piece(&self, session: &mut Session, piece: &Piece) -> Result<Vec<(usize, u64)>, Fault> {
        let name = |index: usize| format!("table `{}`", self.source.tables[index].name);
        let about = match piece.tables.as_slice() {
            [one] => name(*one),
            several => format!("one of {} tables, from {}", several.len(), name(several[0])),
        };
        let Some(function) = &piece.function else {
            let mut copied = Vec::new();
            for index in &piece.tables {
                let sql = format!("{}; SELECT ROW_COUNT()", self.fill(*index));
                let rows = session.first_rows(COPYING, sql, |_| Some(name(*index)))?;
                copied.push((*index, rows.into_iter().next().and_then(|r| r.get(0)).unwrap_or(0)));
            }
            return Ok(copied);
        };
        let counts: Option<String> =
            session.one(COPYING, format!("SELECT {function}()")).map_err(|e| {
                let at_work = at_work(session, &e).filter(|index| piece.tables.contains(index));
                e.about(&at_work.map_or(about.clone(), name))
            })?;
        let counts = counts.unwrap_or_default();
        let counts: Vec<u64> = counts.split(',').filter_map(|count| count.parse().ok()).collect();
        if counts.len() != piece.tables.len() {
            return Err(Fault::Altered(format!("{about} gave no count of its rows")));
        }
        Ok(piece.tables.iter().copied().zip(counts).collect())
    }
}

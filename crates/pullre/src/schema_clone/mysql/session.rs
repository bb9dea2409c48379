//! Connections that do the work, and many of them side by side.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use mysql::Conn;
use mysql::prelude::{FromRow, Queryable};

use super::fault::Fault;
use crate::store::StoreError;
use crate::store::mysql::MysqlAccess;

/// Rows and definitions are taken as they are: nobody checks them again, fills them in, or makes
/// them fit. `ALLOW_INVALID_DATES` and the missing strict modes let in what the source let in once.
pub(super) const MODE: &str = "NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES";

/// How long an answer may take beyond the end of the clone: the server is asked to stop before.
const GRACE: Duration = Duration::from_secs(10);

/// Seconds that a lock of somebody else is waited for.
const LOCK_WAIT: u32 = 10;

/// Seconds that one of us may be silent, as the one that steers is while others copy: the server's
/// own limit can be shorter than a clone.
const SILENCE: u32 = 24 * 60 * 60;

/// Else tables' sizes are up to a day old there. Other servers take it for a comment.
const MYSQL_8: &str = "/*!80000 , @@SESSION.information_schema_stats_expiry = 0 */";

pub(super) struct Session {
    conn: Conn,
    /// By which another connection can end what this one does.
    id: u32,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("id", &self.id).finish()
    }
}

/// One column of a row as bytes; NULL is empty.
pub(super) type Bytes = Option<Vec<u8>>;

impl Session {
    pub fn open(access: &MysqlAccess, remaining: Duration) -> Result<Session, StoreError> {
        let init = vec![
            format!(
                "SET NAMES utf8mb4, @@SESSION.autocommit = 1, @@SESSION.time_zone = '+00:00',
                    @@SESSION.sql_mode = '{MODE}', @@SESSION.foreign_key_checks = 0,
                    @@SESSION.unique_checks = 1, @@SESSION.sql_quote_show_create = 1,
                    @@SESSION.sql_select_limit = 18446744073709551615, @@SESSION.completion_type = 0,
                    @@SESSION.lock_wait_timeout = {LOCK_WAIT},
                    @@SESSION.innodb_lock_wait_timeout = {LOCK_WAIT},
                    @@SESSION.wait_timeout = {SILENCE} {MYSQL_8}"
            ),
            "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ WRITE".to_owned(),
        ];
        let conn = access.connect_for_work(remaining + GRACE, init)?;
        let id = conn.connection_id();
        Ok(Session { conn, id })
    }

    /// Whether a snapshot can be copied as far as the binary log goes: one of statements makes them
    /// read what is there, lest they do something else where they are said again. A login that may
    /// have rows written in their place does so.
    pub fn logs_rows(&mut self) -> Result<bool, Fault> {
        const LOGGING: &str = "looking at the binary log";
        let logs_statements = "SELECT @@log_bin AND @@SESSION.binlog_format <> 'ROW'";
        match self.one::<Option<u8>>(LOGGING, logs_statements) {
            Ok(Some(Some(1))) => {}
            Err(e) if e.is_lost() => return Err(e),
            // Or a server that knows no other format.
            _ => return Ok(true),
        }
        match self.run(LOGGING, "SET @@SESSION.binlog_format = 'ROW'") {
            Err(e) if e.is_lost() => Err(e),
            set => Ok(set.is_ok()),
        }
    }

    /// Makes this session fit to create tables that a server with other defaults made.
    pub fn lenient(&mut self) -> Result<(), Fault> {
        const PREPARING: &str = "preparing a connection";
        const WISHES: [&str; 4] = [
            "innodb_strict_mode = 0",
            "check_constraint_checks = 0",
            "explicit_defaults_for_timestamp = 1",
            "max_statement_time = 0",
        ];
        let mode = format!("SET sql_mode = '{MODE},NO_DIR_IN_CREATE'");
        match self.run(PREPARING, format!("{mode}, SESSION {}", WISHES.join(", SESSION "))) {
            Err(e) if e.is_lost() => return Err(e),
            Err(_) => self.run(PREPARING, mode)?,
            Ok(()) => return Ok(()),
        }
        // Not every server knows them all, nor lets everybody set them; then its defaults hold,
        // and what they do not fit is an error of the statement itself.
        for wish in WISHES {
            match self.run(PREPARING, format!("SET SESSION {wish}")) {
                Err(e) if e.is_lost() => return Err(e),
                _ => {}
            }
        }
        Ok(())
    }

    /// Runs one statement or several. Of several the first that fails ends the rest.
    pub fn run(&mut self, doing: &'static str, sql: impl AsRef<[u8]>) -> Result<(), Fault> {
        self.run_each(doing, sql, |_| None)
    }

    /// The same; `object` says what the n-th statement is about.
    pub fn run_each(
        &mut self,
        doing: &'static str,
        sql: impl AsRef<[u8]>,
        object: impl Fn(usize) -> Option<String>,
    ) -> Result<(), Fault> {
        let sql = words(sql.as_ref())?;
        let mut done = 0;
        let mut work = || -> mysql::Result<()> {
            let mut answers = self.conn.query_iter(sql)?;
            // An answer that is only dropped swallows the errors of those behind it.
            while let Some(rows) = answers.iter() {
                for row in rows {
                    row?;
                }
                done += 1;
            }
            Ok(())
        };
        let result = work();
        result.map_err(|error| Fault::Sql { doing, object: object(done), error })
    }

    pub fn rows<T: FromRow>(
        &mut self,
        doing: &'static str,
        sql: impl AsRef<[u8]>,
    ) -> Result<Vec<T>, Fault> {
        let sql = words(sql.as_ref())?;
        self.conn.query(sql).map_err(|error| Fault::Sql { doing, object: None, error })
    }

    /// The first row of each of several statements.
    pub fn first_rows(
        &mut self,
        doing: &'static str,
        sql: impl AsRef<[u8]>,
        object: impl Fn(usize) -> Option<String>,
    ) -> Result<Vec<mysql::Row>, Fault> {
        let sql = words(sql.as_ref())?;
        let mut found = Vec::new();
        let mut work = || -> mysql::Result<()> {
            let mut answers = self.conn.query_iter(sql)?;
            while let Some(rows) = answers.iter() {
                let mut first = None;
                for row in rows {
                    let row = row?;
                    first.get_or_insert(row);
                }
                found.extend(first);
            }
            Ok(())
        };
        let result = work();
        let done = found.len();
        result.map_err(|error| Fault::Sql { doing, object: object(done), error })?;
        Ok(found)
    }

    pub fn one<T: FromRow>(
        &mut self,
        doing: &'static str,
        sql: impl AsRef<[u8]>,
    ) -> Result<Option<T>, Fault> {
        Ok(self.rows(doing, sql)?.into_iter().next())
    }
}

/// All texts come to us in UTF-8, which is what we said we speak.
fn words(sql: &[u8]) -> Result<&str, Fault> {
    std::str::from_utf8(sql)
        .map_err(|_| Fault::Altered("the server gave a definition that is not UTF-8".to_owned()))
}

/// What waits for the server, beside something else that does.
pub(super) fn at_once<T, U: Send>(
    one: impl FnOnce() -> Result<T, Fault>,
    other: impl FnOnce() -> Result<U, Fault> + Send,
) -> Result<(T, U), Fault> {
    std::thread::scope(|scope| {
        let other = scope.spawn(other);
        let one = one();
        let other = other.join().unwrap_or_else(|panic| resume_unwind(panic));
        Ok((one?, other?))
    })
}

/// Several sessions that work side by side.
#[derive(Debug)]
pub(super) struct Crew {
    access: MysqlAccess,
    pub sessions: Vec<Session>,
    deadline: Option<Instant>,
}

enum Event<T> {
    Told(T),
    End(Result<(), Fault>),
}

/// By which a worker tells how far it is.
pub(super) struct Tell<T>(Sender<Event<T>>);

impl<T> Tell<T> {
    pub fn tell(&self, what: T) {
        // The listener stays until every worker has ended.
        let _ = self.0.send(Event::Told(what));
    }
}

impl Crew {
    pub fn new(access: &MysqlAccess, sessions: Vec<Session>, deadline: Option<Instant>) -> Crew {
        Crew { access: access.clone(), sessions, deadline }
    }

    /// Runs `each` once on every session. The first failure, or the end of the time, ends them
    /// all: the server goes on with nothing.
    pub fn work<T: Send>(
        &mut self,
        each: impl Fn(usize, &mut Session, &Tell<T>) -> Result<(), Fault> + Sync,
        stop: impl Fn(),
        mut heard: impl FnMut(T),
    ) -> Result<(), Fault> {
        let Crew { access, sessions, deadline } = self;
        let ids: Vec<u32> = sessions.iter().map(|session| session.id).collect();
        let (line, events) = mpsc::channel();
        let mut failure = None;
        std::thread::scope(|scope| {
            for (index, session) in sessions.iter_mut().enumerate() {
                let (tell, each) = (Tell(line.clone()), &each);
                scope.spawn(move || {
                    let work = || each(index, session, &tell);
                    let result = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
                        // The others would wait for this one for ever.
                        let fault = Fault::Altered("a worker did not come to its end".to_owned());
                        let _ = tell.0.send(Event::End(Err(fault)));
                        resume_unwind(panic)
                    });
                    let _ = tell.0.send(Event::End(result));
                });
            }
            drop(line);
            loop {
                let remaining = deadline.map_or(Duration::from_secs(3600), |end| {
                    end.saturating_duration_since(Instant::now())
                });
                let fault = match events.recv_timeout(remaining) {
                    Ok(Event::Told(what)) => {
                        heard(what);
                        continue;
                    }
                    Ok(Event::End(Ok(()))) => continue,
                    Ok(Event::End(Err(fault))) => fault,
                    Err(RecvTimeoutError::Disconnected) => break,
                    Err(RecvTimeoutError::Timeout) if failure.is_some() || deadline.is_none() => {
                        continue;
                    }
                    Err(RecvTimeoutError::Timeout) => Fault::TimedOut { doing: "copying" },
                };
                if failure.is_none() {
                    failure = Some(fault);
                    *deadline = None;
                    stop();
                    // What cannot be ended ends with its time-out.
                    if let Err(e) = end(access, &ids) {
                        tracing::debug!("the other connections were not ended: {e}");
                    }
                }
            }
        });
        failure.map_or(Ok(()), Err)
    }
}

/// Ends other connections of ours.
fn end(access: &MysqlAccess, ids: &[u32]) -> Result<(), String> {
    let mut session = Session::open(access, GRACE).map_err(|e| e.to_string())?;
    for id in ids {
        // One that has ended already is unknown.
        let _ = session.run("ending a connection", format!("KILL {id}"));
    }
    Ok(())
}

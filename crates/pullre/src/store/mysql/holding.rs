//! Locks of the MySQL server.

use std::fmt;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use mysql::Conn;
use mysql::prelude::Queryable;

use super::MysqlAccess;
use crate::store::StoreError;

/// After this long without a word the server takes a connection as dead and gives its lock away:
/// a machine that lost its power blocks the others for no longer. Pings keep a living one alive;
/// several may get lost.
const WAIT_TIMEOUT: Duration = Duration::from_secs(60);
const PING_EVERY: Duration = Duration::from_secs(15);

/// A lock that is held as long as this lives. It has a connection of its own, which is never made
/// again: another connection would not hold the lock. It ends with its process.
pub struct Holding {
    /// Asks the keeper for a ping; dropping it tells the keeper to let go.
    line: Option<Sender<Sender<()>>>,
    keeper: Option<JoinHandle<()>>,
}

impl fmt::Debug for Holding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Holding")
    }
}

impl MysqlAccess {
    /// Takes the lock of this name, at most 64 characters of ASCII; None where somebody else has
    /// it. Never waits.
    pub fn hold(&self, name: &str) -> Result<Option<Holding>, StoreError> {
        let mut connection = self.connect_holding(WAIT_TIMEOUT)?;
        let got: Option<Option<i64>> =
            connection.exec_first("SELECT GET_LOCK(?, 0)", (name,)).map_err(|e| self.error(e))?;
        match got.flatten() {
            Some(1) => {}
            Some(_) => return Ok(None),
            None => {
                let why = format!("the MySQL server could not decide on the lock {name}");
                return Err(StoreError::Unavailable(why));
            }
        }
        let (line, listener) = mpsc::channel();
        let keeper = std::thread::Builder::new()
            .name("lock".into())
            .spawn(move || keep(connection, &listener))
            .map_err(|e| StoreError::Unavailable(format!("no thread for a lock: {e}")))?;
        Ok(Some(Holding { line: Some(line), keeper: Some(keeper) }))
    }
}

fn keep(mut connection: Conn, line: &Receiver<Sender<()>>) {
    loop {
        let asked = match line.recv_timeout(PING_EVERY) {
            Ok(asked) => Some(asked),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => break,
        };
        if let Err(e) = connection.ping() {
            tracing::warn!("the connection that held a lock is lost: {e}");
            return; // Whoever asked, or asks later, gets no answer.
        }
        if let Some(asked) = asked {
            // Who asked waits for the answer.
            let _ = asked.send(());
        }
    }
    // The server lets go at the end of the connection too, but a moment later.
    if let Err(e) = connection.query_drop("DO RELEASE_ALL_LOCKS()") {
        tracing::debug!("a lock ends with its connection: {e}");
    }
}

impl Holding {
    /// Asks the server: as long as the connection lives, the lock is ours.
    pub fn is_held(&self) -> bool {
        let (answer, answered) = mpsc::channel();
        let asked = self.line.as_ref().is_some_and(|line| line.send(answer).is_ok());
        asked && answered.recv().is_ok()
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.line = None;
        // When this returns, somebody else can have the lock. A keeper that panicked let go.
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.join();
        }
    }
}

//! A few connections to the control database, used again.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pullre::ops::OpsError;
use pullre::store::{Database, Store, StoreError};
use tokio::sync::Semaphore;

/// Requests that ask the database at the same time.
const MOST: usize = 8;
/// A server closes connections that idle; a write on one of those would fail.
const IDLE: Duration = Duration::from_secs(20);

#[derive(Clone)]
pub struct Stores(Arc<Inner>);

struct Inner {
    database: Database,
    idle: Mutex<Vec<(Store, Instant)>>,
    permits: Arc<Semaphore>,
}

impl std::fmt::Debug for Stores {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stores")
    }
}

impl Stores {
    pub fn new(database: Database) -> Stores {
        let permits = Arc::new(Semaphore::new(MOST));
        Stores(Arc::new(Inner { database, idle: Mutex::default(), permits }))
    }

    /// Does something with a connection, on a thread that may wait.
    pub async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Store) -> Result<T, OpsError> + Send + 'static,
    ) -> Result<T, OpsError> {
        let stopped = || StoreError::Unavailable("the console is stopping".into());
        let permit = self.0.permits.clone().acquire_owned().await.map_err(|_| stopped())?;
        let stores = self.clone();
        // The permit goes along: a request that is given up does not free its connection early.
        let done = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let mut store = stores.take()?;
            let done = work(&mut store);
            // A connection that failed is not used again.
            if !matches!(done, Err(OpsError::Store(_))) {
                stores.idle().push((store, Instant::now()));
            }
            done
        });
        done.await.unwrap_or_else(|_| {
            Err(StoreError::Other("a fault of pullre; its log says more".into()).into())
        })
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<(Store, Instant)>> {
        self.0.idle.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn take(&self) -> Result<Store, StoreError> {
        let mut idle = self.idle();
        idle.retain(|(_, since)| since.elapsed() < IDLE);
        let found = idle.pop();
        drop(idle);
        match found {
            Some((store, _)) => Ok(store),
            None => {
                let mut store = self.0.database.open()?;
                store.require_tables()?;
                Ok(store)
            }
        }
    }
}

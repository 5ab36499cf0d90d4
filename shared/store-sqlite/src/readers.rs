//! Reading connections: a few, kept, each used by one thread at a time.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rusqlite::Connection;
use shoal_store::{Result, StoreError};
use tokio::sync::Semaphore;

use crate::fault::Stop;
use crate::open::{Options, reopen};

/// The most reads at once; others wait their turn.
const READERS: usize = 8;

/// The connections that are not in use, and the turns to use one.
#[derive(Debug)]
pub(crate) struct Readers {
    idle: Mutex<Vec<Connection>>,
    turns: Semaphore,
}

impl Readers {
    pub(crate) fn new() -> Self {
        Self { idle: Mutex::new(Vec::new()), turns: Semaphore::new(READERS) }
    }

    /// Waits for a turn.
    pub(crate) async fn turn(&self) -> Result<tokio::sync::SemaphorePermit<'_>> {
        self.turns
            .acquire()
            .await
            .map_err(|_| StoreError::Unavailable { place: "the store".into(), why: "it was closed".into() })
    }

    /// Runs `f` with a connection, in one reading transaction: all that it reads is of one moment.
    pub(crate) fn with<T>(
        &self,
        place: &Path,
        options: &Options,
        f: impl FnOnce(&Connection) -> Result<T, Stop>,
    ) -> Result<T> {
        let idle = self.idle().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => reopen(place, options)?,
        };
        let done = read(&connection, f).map_err(|stop| stop.at(place, "reading"));
        // One that failed is not used again: the next read starts afresh.
        if !matches!(done, Err(StoreError::Corrupt { .. } | StoreError::Unavailable { .. })) {
            self.idle().push(connection);
        }
        done
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read<T>(connection: &Connection, f: impl FnOnce(&Connection) -> Result<T, Stop>) -> Result<T, Stop> {
    connection.prepare_cached("BEGIN")?.execute([])?;
    let done = f(connection);
    let end = connection.prepare_cached("COMMIT")?.execute([]);
    let done = done?;
    end?;
    Ok(done)
}

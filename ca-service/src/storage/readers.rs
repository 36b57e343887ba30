//! Connections that read, beside the one that writes.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;

use super::StoreError;

/// Connections that are kept while nobody reads.
const KEPT: usize = 4;

type Connect = fn(&Path) -> Result<Connection, StoreError>;

/// Connections to one database, made when they are needed.
#[derive(Clone)]
pub(super) struct Readers {
    path: Arc<PathBuf>,
    connect: Connect,
    idle: Arc<Mutex<Vec<Connection>>>,
}

impl Readers {
    pub(super) fn of(path: &Path, connect: Connect) -> Self {
        Self { path: Arc::new(path.to_owned()), connect, idle: Arc::default() }
    }

    /// A read of a row or two, on the caller's thread: it takes some microseconds, less than the way to another thread.
    pub(super) fn read<T>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let kept = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = kept.map_or_else(|| (self.connect)(&self.path), Ok)?;
        let outcome = read(&connection);
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < KEPT {
            idle.push(connection);
        }
        outcome
    }

    /// A read of many rows, on a thread that may block.
    pub(super) async fn scan<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let readers = self.clone();
        tokio::task::spawn_blocking(move || readers.read(read))
            .await
            .map_err(|error| StoreError::Unavailable(format!("a read ended early: {error}")))?
    }
}

//! Connections that read, beside the one that writes.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

use super::StoreError;
use super::sql::Connection;

/// Connections that are kept while nobody reads.
const KEPT: usize = 4;

/// Where a row or two are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PointReads {
    /// On the caller's thread: from a file it takes some microseconds, less than the way to another thread.
    Here,
    /// On a thread that may block: a server answers when it does.
    #[cfg_attr(not(feature = "postgres"), expect(dead_code, reason = "only a database server is read so"))]
    Elsewhere,
}

type Connect = dyn Fn() -> Result<Connection, StoreError> + Send + Sync;

/// Connections to one database, made when they are needed.
#[derive(Clone)]
pub(super) struct Readers {
    connect: Arc<Connect>,
    idle: Arc<Mutex<Vec<Connection>>>,
    point_reads: PointReads,
    room: Arc<Semaphore>,
    /// Of that, what those may have who read many rows.
    room_for_scans: Arc<Semaphore>,
}

impl Readers {
    /// At most `most` connections are used at once, and half of them for what takes long: an answer about one certificate does not
    /// wait for a look at all of them.
    pub(super) fn of(connect: Arc<Connect>, point_reads: PointReads, most: usize) -> Self {
        let [room, room_for_scans] = [most, most.div_ceil(2)].map(|most| Arc::new(Semaphore::new(most)));
        Self { connect, idle: Arc::default(), point_reads, room, room_for_scans }
    }

    /// A read of a row or two.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        match self.point_reads {
            PointReads::Here => self.now(read),
            PointReads::Elsewhere => self.elsewhere(read).await,
        }
    }

    /// A read of many rows, on a thread that may block.
    pub(super) async fn scan<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let room = Arc::clone(&self.room_for_scans).acquire_owned().await.map_err(|error| ended(&error))?;
        self.elsewhere(move |connection| {
            let outcome = connection.patiently(read);
            drop(room);
            outcome
        })
        .await
    }

    async fn elsewhere<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let room = Arc::clone(&self.room).acquire_owned().await.map_err(|error| ended(&error))?;
        let readers = self.clone();
        let task = tokio::task::spawn_blocking(move || {
            let outcome = readers.now(read);
            drop(room);
            outcome
        });
        task.await.map_err(|error| ended(&error))?
    }

    /// A view of what is committed now.
    pub(super) fn view(&self) -> Result<View, StoreError> {
        let connection = self.take()?;
        connection.begin_reading()?;
        Ok(View { readers: self.clone(), connection })
    }

    fn take(&self) -> Result<Connection, StoreError> {
        let kept = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        kept.filter(Connection::is_usable).map_or_else(|| (self.connect)(), Ok)
    }

    fn give_back(&self, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < KEPT {
            idle.push(connection);
        }
    }

    fn now<T>(&self, read: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let connection = self.take()?;
        let outcome = read(&connection);
        self.give_back(connection);
        outcome
    }
}

/// The database as of one moment. Dropped unread, it ends with its connection.
pub(super) struct View {
    readers: Readers,
    connection: Connection,
}

impl View {
    /// Reads in it, on a thread that may block, and ends it.
    pub(super) async fn read<T: Send + 'static>(
        self,
        read: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let task = tokio::task::spawn_blocking(move || {
            let outcome = self.connection.patiently(read)?;
            self.connection.commit()?;
            self.readers.give_back(self.connection);
            Ok(outcome)
        });
        task.await.map_err(|error| ended(&error))?
    }
}

fn ended(error: &dyn std::fmt::Display) -> StoreError {
    StoreError::Unavailable(format!("a read ended early: {error}"))
}

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
    #[cfg_attr(
        not(any(test, feature = "postgres")),
        expect(dead_code, reason = "only a database server is read so")
    )]
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
    /// Of that, what those may have who ask for many rows.
    room_for_scans: Arc<Semaphore>,
    /// And what those may have who look something up by what is in many places.
    room_for_look_ups: Arc<Semaphore>,
}

impl Readers {
    /// At most `most` connections are used at once, of them half for what others ask and takes long, and a quarter for what anybody looks
    /// up: neither an answer about one certificate nor the authority's own work waits for them, nor does one of them for the other.
    pub(super) fn of(connect: Arc<Connect>, point_reads: PointReads, most: usize) -> Self {
        let [room, room_for_scans, room_for_look_ups] =
            [most, most.div_ceil(2), most.div_ceil(4)].map(|most| Arc::new(Semaphore::new(most)));
        Self { connect, idle: Arc::default(), point_reads, room, room_for_scans, room_for_look_ups }
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

    /// A read of many rows for the authority's own work, on a thread that may block: of what is due, or of what an index leads to. It
    /// waits for no [`Self::scan`].
    pub(super) async fn own_scan<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.elsewhere(move |connection| connection.patiently(read)).await
    }

    /// A read of many rows that somebody asks for, on a thread that may block. It ends when nobody waits for it any more.
    pub(super) async fn scan<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.within(&self.room_for_scans, read).await
    }

    /// A read of few rows that are in many places, for whoever asks, on a thread that may block. It ends when nobody waits for it any more.
    pub(super) async fn look_up<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.within(&self.room_for_look_ups, read).await
    }

    async fn within<T: Send + 'static>(
        &self,
        room: &Arc<Semaphore>,
        read: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let room = Arc::clone(room).acquire_owned().await.map_err(|error| ended(&error))?;
        let waited_for = WaitedFor::default();
        let stand = Arc::clone(&waited_for.0);
        self.elsewhere(move |connection| {
            if !begin(&stand, connection) {
                return Err(ended(&"nobody waits for it"));
            }
            let outcome = connection.patiently(read);
            if !finish(&stand) {
                connection.retire();
            }
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

/// Where a read stands for which somebody waits.
#[derive(Default)]
enum Stand {
    #[default]
    Waiting,
    /// With what ends it.
    AtWork(Box<dyn FnOnce() + Send>),
    Over,
    GivenUp,
}

/// That somebody waits for a read. Dropped, it ends the read.
#[derive(Default)]
struct WaitedFor(Arc<Mutex<Stand>>);

impl Drop for WaitedFor {
    fn drop(&mut self) {
        let mut stand = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Stand::AtWork(cancel) = std::mem::replace(&mut *stand, Stand::GivenUp) {
            cancel();
        }
    }
}

/// Begins a read; false where nobody waits for it any more.
fn begin(stand: &Mutex<Stand>, connection: &Connection) -> bool {
    let mut stand = stand.lock().unwrap_or_else(PoisonError::into_inner);
    let wanted = matches!(*stand, Stand::Waiting);
    if wanted {
        *stand = Stand::AtWork(connection.canceller());
    }
    wanted
}

/// Ends a read; false where it was given up meanwhile.
fn finish(stand: &Mutex<Stand>) -> bool {
    let mut stand = stand.lock().unwrap_or_else(PoisonError::into_inner);
    let wanted = matches!(*stand, Stand::AtWork(_));
    if wanted {
        *stand = Stand::Over;
    }
    wanted
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

#[cfg(test)]
mod tests {
    use std::sync::Condvar;
    use std::time::Duration;

    use super::super::rows;
    use super::*;

    fn of_memory(most: usize) -> Readers {
        let connect = || {
            let opened = rusqlite::Connection::open_in_memory();
            opened.map(Connection::Sqlite).map_err(super::super::sqlite::unavailable)
        };
        Readers::of(Arc::new(connect), PointReads::Elsewhere, most)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_search_ends_with_whoever_waited_for_it() {
        let readers = of_memory(2);
        let endless =
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
        let (begun, begins) = tokio::sync::oneshot::channel();
        let search = tokio::spawn({
            let readers = readers.clone();
            async move {
                readers
                    .scan(move |connection| {
                        let _ = begun.send(());
                        rows::first(connection, endless, &[], |row| rows::get::<i64>(row, 0))
                    })
                    .await
            }
        });
        begins.await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        search.abort();
        let next = tokio::time::timeout(Duration::from_secs(20), readers.scan(|_| Ok(1))).await;
        assert_eq!(next.expect("what was given up goes on"), Ok(1));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_the_authority_reads_for_itself_waits_for_nobodys_search() {
        let readers = of_memory(8);
        let gate = Arc::new((Mutex::new((0, false)), Condvar::new()));
        let searches: Vec<_> = (0..24)
            .map(|number| {
                let (readers, gate) = (readers.clone(), Arc::clone(&gate));
                tokio::spawn(async move {
                    let wait = move |_: &Connection| {
                        let (state, told) = &*gate;
                        let mut state = state.lock().unwrap();
                        state.0 += 1;
                        drop(told.wait_while(state, |(_, open)| !*open));
                        Ok(())
                    };
                    // Whoever asks more of one kind takes nothing from the other.
                    if number < 12 { readers.look_up(wait).await } else { readers.scan(wait).await }
                })
            })
            .collect();
        while gate.0.lock().unwrap().0 < 6 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let within = Duration::from_secs(20);
        let own = tokio::time::timeout(within, readers.own_scan(|_| Ok(1))).await;
        assert_eq!(own.expect("a search holds up the authority's own work"), Ok(1));
        let point = tokio::time::timeout(within, readers.read(|_| Ok(2))).await;
        assert_eq!(point.expect("a search holds up what is read at once"), Ok(2));
        assert_eq!(gate.0.lock().unwrap().0, 6, "searches take three quarters of the connections");
        gate.0.lock().unwrap().1 = true;
        gate.1.notify_all();
        for search in searches {
            search.await.unwrap().unwrap();
        }
    }
}

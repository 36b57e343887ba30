//! Copying SQLite's write-ahead log into its database beside the writer, not in its way.
//!
//! SQLite copies at the end of the commit that fills the log, and whoever waits for that commit waits for thousands of pages and
//! two syncs. Here a second connection copies while the writer goes on. When it is done, the writer copies the little that came
//! meanwhile, after which the log begins anew.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use rusqlite::{Connection, OpenFlags};

use super::StoreError;
use super::sqlite::{connect, durable, unavailable};

/// Pages of the log at which copying begins: pages that change often are copied once.
const BEGIN_PAGES: i64 = 16_000;
/// Commits between two looks at the log.
const LOOK_EVERY: u32 = 8;

/// The writer's side.
pub(super) struct Checkpoints {
    commits: u32,
    begin: Option<SyncSender<()>>,
    copied: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpoints {
    /// Starts the thread that copies.
    pub(super) fn start(path: &Path) -> Result<Self, StoreError> {
        let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        durable(&connection)?;
        let (begin, wanted) = sync_channel(1);
        let copied = Arc::new(AtomicBool::new(false));
        let thread = std::thread::Builder::new()
            .name("ca-checkpoints".to_owned())
            .spawn({
                let copied = Arc::clone(&copied);
                move || copy_when_wanted(connection, &wanted, &copied)
            })
            .map_err(|error| {
                StoreError::Unavailable(format!("the thread of checkpoints cannot be started: {error}"))
            })?;
        Ok(Self { commits: 0, begin: Some(begin), copied, thread: Some(thread) })
    }

    /// Looks now and then whether the log is long, or was copied.
    pub(super) fn after_commit(&mut self, writer: &Connection) {
        self.commits += 1;
        if self.commits < LOOK_EVERY {
            return;
        }
        self.commits = 0;
        if self.copied.swap(false, Ordering::Acquire) {
            // What came since: a few pages. The next commit begins the log anew unless somebody still reads in it.
            report(copy(writer));
        } else if pages(writer).is_ok_and(|(pages, copied)| pages - copied >= BEGIN_PAGES)
            && let Some(begin) = &self.begin
            && let Err(TrySendError::Disconnected(())) = begin.try_send(())
        {
            // SQLite's own limit takes its place.
            self.begin = None;
            tracing::error!("the thread of checkpoints has stopped");
        }
    }
}

impl Drop for Checkpoints {
    fn drop(&mut self) {
        self.begin = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn copy_when_wanted(connection: Connection, wanted: &Receiver<()>, copied: &AtomicBool) {
    while wanted.recv().is_ok() {
        report(copy(&connection));
        copied.store(true, Ordering::Release);
    }
    if let Err((_, error)) = connection.close() {
        tracing::warn!(%error, "the database did not close cleanly");
    }
}

/// Copies what no reader still needs in the log; never waits for anybody.
fn copy(connection: &Connection) -> Result<(), StoreError> {
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).map_err(unavailable)
}

/// Pages in the log, and how many of them were copied. Does nothing.
fn pages(connection: &Connection) -> Result<(i64, i64), StoreError> {
    let noop = "PRAGMA wal_checkpoint(NOOP)";
    connection
        .prepare_cached(noop)
        .and_then(|mut ready| ready.query_row([], |row| Ok((row.get(1)?, row.get(2)?))))
        .map_err(unavailable)
}

/// A failure loses nothing: the log keeps what was not copied. A full disk shows itself at the next commit.
fn report(outcome: Result<(), StoreError>) {
    if let Err(error) = outcome {
        tracing::warn!(%error, "the write-ahead log could not be copied into the database");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_grows_without_end_is_copied_beside_the_writer_and_begins_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        let writer =
            connect(&path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE).unwrap();
        durable(&writer).unwrap();
        writer.execute_batch("CREATE TABLE t (x BLOB); PRAGMA synchronous = OFF").unwrap();
        let mut checkpoints = Checkpoints::start(&path).unwrap();
        writer.pragma_update_and_check(None, "wal_autocheckpoint", 0, |_| Ok(())).unwrap();
        let (mut rows, mut length, mut waited) = (0, 0, false);
        // Without the copies it would only grow.
        loop {
            writer.execute("INSERT INTO t VALUES (zeroblob(819200))", []).unwrap();
            rows += 1;
            let now = pages(&writer).unwrap().0;
            if now < length {
                break;
            }
            length = now;
            assert!(length < 2 * BEGIN_PAGES, "the log never began anew");
            for _ in 0..LOOK_EVERY {
                checkpoints.after_commit(&writer);
            }
            if length >= BEGIN_PAGES && !waited {
                // However slow the disk is.
                let done = (0..60_000).any(|_| {
                    std::thread::sleep(std::time::Duration::from_millis(1));
                    checkpoints.copied.load(Ordering::Acquire)
                });
                assert!(done, "nothing was copied");
                waited = true;
            }
        }
        assert!(length >= BEGIN_PAGES);
        drop(checkpoints);
        let count: i64 = writer.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
        assert_eq!(count, rows);
    }
}

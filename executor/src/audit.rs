//! The audit log on disk: appended with group commit, chained, and required.
//!
//! Two files: `audit.jsonl`, one record a line, and `audit.head`, the sequence and hash of the last record that was
//! made durable. A log that is shorter than its head was truncated, and the executor does not start on it.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use executor_api::audit::{AuditError, AuditEvent, AuditHead, MAX_LINE};
use tokio::sync::oneshot;
use trust_store::UnixTime;

use crate::clock;

/// Records waiting for the disk. When it is full, new work is refused.
const QUEUE: usize = 4096;

/// Most records of one commit.
const BATCH: usize = 512;

/// Size of the head file: sequence and hash.
const HEAD_SIZE: usize = 40;

/// The open log. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Audit {
    queue: SyncSender<Message>,
    failed: Arc<AtomicBool>,
    sequence: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Message {
    event: AuditEvent,
    durable: Option<oneshot::Sender<()>>,
}

/// Why a record was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the audit log does not take records")]
pub struct AuditUnavailable;

/// Why the log cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The chain is not intact.
    #[error("{path}: {source}; keep the file as evidence and start with a new folder")]
    Chain {
        /// The log.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: AuditError,
    },
    /// The files cannot be read or written.
    #[error("{path}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The log is shorter than it was, or its end differs from what was committed.
    #[error(
        "{path} ends at record {found}, but record {committed} had been committed: records were removed; keep the file as evidence and start with a new folder"
    )]
    Truncated {
        /// The log.
        path: PathBuf,
        /// Last record found.
        found: u64,
        /// Last record committed.
        committed: u64,
    },
}

impl Audit {
    /// Opens the log in `directory`, checks the whole chain, and starts its writer.
    ///
    /// # Errors
    ///
    /// A chain that is not intact or not complete is refused: it is evidence, not a starting point.
    pub fn open(directory: &Path) -> Result<Self, OpenError> {
        let path = directory.join("audit.jsonl");
        let file_error = |path: &Path| {
            let path = path.to_owned();
            move |source| OpenError::File { path, source }
        };
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false);
        let mut log = options.open(&path).map_err(file_error(&path))?;
        let head_path = directory.join("audit.head");
        let head_file = options.open(&head_path).map_err(file_error(&head_path))?;

        let committed = read_head(&head_file).map_err(file_error(&head_path))?;
        let (head, end, at_committed) = walk(&log, &path, committed.sequence)?;
        if at_committed != Some(committed.hash) {
            return Err(OpenError::Truncated { path, found: head.sequence, committed: committed.sequence });
        }
        // What follows the last complete line is the torn end of a write that nobody was told of.
        log.set_len(end).and_then(|()| log.seek(SeekFrom::End(0)).map(drop)).map_err(file_error(&path))?;

        let (queue, messages) = sync_channel(QUEUE);
        let failed = Arc::new(AtomicBool::new(false));
        let sequence = Arc::new(AtomicU64::new(head.sequence));
        let writer =
            Writer { log, head_file, head, failed: Arc::clone(&failed), sequence: Arc::clone(&sequence) };
        std::thread::Builder::new()
            .name("audit".into())
            .spawn(move || writer.run(&messages))
            .map_err(file_error(directory))?;
        Ok(Self { queue, failed, sequence })
    }

    /// Whether records are taken. Asked before work begins that must be recorded.
    pub fn available(&self) -> Result<(), AuditUnavailable> {
        if self.failed.load(Ordering::Acquire) { Err(AuditUnavailable) } else { Ok(()) }
    }

    /// What a full disk does.
    #[cfg(test)]
    pub(crate) fn fail_for_test(&self) {
        self.failed.store(true, Ordering::Release);
    }

    /// Sequence of the last durable record.
    pub fn sequence(&self) -> u64 {
        self.sequence.load(Ordering::Acquire)
    }

    /// Hands over a record; it is made durable with the next group.
    pub fn record(&self, event: AuditEvent) -> Result<(), AuditUnavailable> {
        self.send(Message { event, durable: None })
    }

    /// Hands over a record and waits until it is durable.
    pub async fn record_durably(&self, event: AuditEvent) -> Result<(), AuditUnavailable> {
        let (durable, done) = oneshot::channel();
        self.send(Message { event, durable: Some(durable) })?;
        done.await.map_err(|_| AuditUnavailable)
    }

    fn send(&self, message: Message) -> Result<(), AuditUnavailable> {
        self.available()?;
        match self.queue.try_send(message) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => Err(AuditUnavailable),
        }
    }
}

struct Writer {
    log: File,
    head_file: File,
    head: AuditHead,
    failed: Arc<AtomicBool>,
    sequence: Arc<AtomicU64>,
}

impl Writer {
    fn run(mut self, messages: &Receiver<Message>) {
        while let Ok(first) = messages.recv() {
            let mut batch = vec![first];
            while batch.len() < BATCH
                && let Ok(next) = messages.try_recv()
            {
                batch.push(next);
            }
            if let Err(error) = self.commit(&batch) {
                tracing::error!(%error, "the audit log cannot be written; new work is refused");
                self.failed.store(true, Ordering::Release);
                return; // the senders of this batch see their channel close
            }
            self.sequence.store(self.head.sequence, Ordering::Release);
            for message in batch {
                if let Some(durable) = message.durable {
                    let _ = durable.send(()); // the caller may have gone
                }
            }
        }
    }

    fn commit(&mut self, batch: &[Message]) -> std::io::Result<()> {
        let timestamp = UnixTime(clock::unix_seconds()).to_rfc3339();
        let mut text = String::new();
        for message in batch {
            let (line, head) = self.head.append(&timestamp, &message.event).map_err(std::io::Error::other)?;
            text.push_str(&line);
            text.push('\n');
            self.head = head;
        }
        self.log.write_all(text.as_bytes())?;
        self.log.sync_data()?;
        // The head follows the log: after a crash between the two it names an earlier record, never a later one.
        let mut bytes = [0u8; HEAD_SIZE];
        let (sequence, hash) = bytes.split_at_mut(8);
        sequence.copy_from_slice(&self.head.sequence.to_le_bytes());
        hash.copy_from_slice(&self.head.hash);
        self.head_file.write_all_at(&bytes, 0)?;
        self.head_file.sync_data()
    }
}

fn read_head(file: &File) -> std::io::Result<AuditHead> {
    if file.metadata()?.len() == 0 {
        return Ok(AuditHead::EMPTY);
    }
    let mut bytes = [0u8; HEAD_SIZE];
    file.read_exact_at(&mut bytes, 0)?;
    let (sequence, hash) = bytes.split_at(8);
    let sequence = sequence.try_into().map(u64::from_le_bytes).map_err(std::io::Error::other)?;
    Ok(AuditHead { sequence, hash: hash.try_into().map_err(std::io::Error::other)? })
}

/// Checks every line. Returns the last head, the end of the last complete line, and the hash at `committed`.
fn walk(log: &File, path: &Path, committed: u64) -> Result<(AuditHead, u64, Option<[u8; 32]>), OpenError> {
    let mut reader = BufReader::new(log);
    let mut head = AuditHead::EMPTY;
    let mut end = 0u64;
    let mut at_committed = (committed == 0).then_some(AuditHead::EMPTY.hash);
    let mut line = Vec::new();
    loop {
        line.clear();
        let file_error = |source| OpenError::File { path: path.to_owned(), source };
        let count = std::io::Read::take(&mut reader, MAX_LINE as u64 + 1)
            .read_until(b'\n', &mut line)
            .map_err(file_error)?;
        if line.pop() != Some(b'\n') {
            return Ok((head, end, at_committed));
        }
        let malformed = AuditError::Malformed { line: head.sequence + 1 };
        head = std::str::from_utf8(&line)
            .map_err(|_| malformed)
            .and_then(|line| head.check(line))
            .map_err(|source| OpenError::Chain { path: path.to_owned(), source })?;
        end += count as u64;
        if head.sequence == committed {
            at_committed = Some(head.hash);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(directory: &Path, count: usize) -> u64 {
        let audit = Audit::open(directory).unwrap();
        let tokio = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for index in 0..count {
            let event = AuditEvent { event_type: format!("e{index}"), ..AuditEvent::default() };
            tokio.block_on(audit.record_durably(event)).unwrap();
        }
        audit.sequence()
    }

    #[test]
    fn continues_where_it_stopped() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(fill(dir.path(), 3), 3);
        assert_eq!(fill(dir.path(), 2), 5);
    }

    #[test]
    fn refuses_to_start_on_removed_records() {
        let dir = tempfile::tempdir().unwrap();
        fill(dir.path(), 4);
        let path = dir.path().join("audit.jsonl");
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        std::fs::write(&path, format!("{}\n{}\n", lines[0], lines[1])).unwrap();
        assert!(matches!(Audit::open(dir.path()), Err(OpenError::Truncated { found: 2, committed: 4, .. })));
        std::fs::write(&path, format!("{}\n{}\n{}\n", lines[0], lines[2], lines[3])).unwrap();
        assert!(matches!(
            Audit::open(dir.path()),
            Err(OpenError::Chain { source: AuditError::Broken { line: 2 }, .. })
        ));
        std::fs::write(&path, text.replace("\"e1\"", "\"x1\"")).unwrap();
        assert!(matches!(
            Audit::open(dir.path()),
            Err(OpenError::Chain { source: AuditError::Altered { line: 2 }, .. })
        ));
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(Audit::open(dir.path()), Err(OpenError::Truncated { found: 0, committed: 4, .. })));
    }

    #[test]
    fn a_torn_last_line_is_cut_because_nobody_was_told_of_it() {
        let dir = tempfile::tempdir().unwrap();
        fill(dir.path(), 2);
        let path = dir.path().join("audit.jsonl");
        let mut file = File::options().append(true).open(&path).unwrap();
        file.write_all(b"{\"sequence\":3,\"prev").unwrap();
        assert_eq!(fill(dir.path(), 1), 3);
    }
}

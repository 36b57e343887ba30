//! The audit log on disk: appended with group commit, chained, and required.
//!
//! Two files: `audit.jsonl`, one record a line, and `audit.head`, the sequence and hash of the last record that was
//! made durable. A log that is shorter than its head was truncated, and the executor does not start on it.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use executor_api::audit::{AuditError, AuditEvent, AuditHead, MAX_LINE};
use parking_lot::Mutex;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{OwnedPermit, Receiver, Sender, channel};
use tokio::sync::oneshot;
use trust_store::UnixTime;

use crate::clock;
use crate::refusing::{Refusing, Unavailable};

/// Records waiting for the disk. When it is full, new work is refused.
const QUEUE: usize = 4096;

/// Most records of one commit.
const BATCH: usize = 512;

/// How long work waits for room.
const PATIENCE: Duration = Duration::from_secs(5);

/// Time between two attempts to write to a disk that did not take the last one.
const RETRY: Duration = Duration::from_millis(200);

/// Size of the head file: sequence and hash.
const HEAD_SIZE: usize = 40;

/// The open log. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Audit {
    queue: Sender<Message>,
    refusing: Arc<Refusing>,
    head: Arc<Mutex<AuditHead>>,
}

#[derive(Debug)]
struct Message {
    event: AuditEvent,
    durable: Option<oneshot::Sender<()>>,
}

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
        "{path} ends at record {found}, but record {committed} had been committed: records were removed or replaced; keep the file as evidence and start with a new folder"
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
    /// A chain that is not intact or not complete is refused: it is evidence, not a starting point. It is complete when it has the
    /// record that `audit.head` names, and the one that the receipt log names, whose key and checkpoints the audit log lacks.
    pub fn open(directory: &Path, attested: Option<&AuditHead>) -> Result<Self, OpenError> {
        let path = directory.join("audit.jsonl");
        let file_error = |path: &Path| {
            let path = path.to_owned();
            move |source| OpenError::File { path, source }
        };
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false);
        let log = options.open(&path).map_err(file_error(&path))?;
        let head_path = directory.join("audit.head");
        let head_file = options.open(&head_path).map_err(file_error(&head_path))?;

        let committed = read_head(&head_file).map_err(file_error(&head_path))?;
        let (head, end) = walk(&log, &path, &[Some(&committed), attested])?;
        // What follows the last complete line is the torn end of a write that nobody was told of.
        log.set_len(end).map_err(file_error(&path))?;
        let mut files = Files { log, head_file, end, torn: false };
        let commit: Commit = Box::new(move |text, head| files.commit(text, head));
        Self::start(commit, head).map_err(file_error(directory))
    }

    fn start(commit: Commit, head: AuditHead) -> std::io::Result<Self> {
        let (queue, messages) = channel(QUEUE);
        let refusing = Arc::<Refusing>::default();
        let durable = Arc::new(Mutex::new(head));
        let writer = Writer { commit, head, refusing: Arc::clone(&refusing), durable: Arc::clone(&durable) };
        std::thread::Builder::new().name("audit".into()).spawn(move || writer.run(messages))?;
        Ok(Self { queue, refusing, head: durable })
    }

    /// Whether records are taken. Asked before work begins that must be recorded.
    pub fn available(&self) -> Result<(), Unavailable> {
        self.refusing.check()
    }

    /// What a full disk does.
    #[cfg(test)]
    pub(crate) fn fail_for_test(&self) {
        self.refusing.failed(Unavailable::Full);
    }

    /// Sequence of the last durable record.
    pub fn sequence(&self) -> u64 {
        self.head().sequence
    }

    /// The last durable record.
    pub fn head(&self) -> AuditHead {
        *self.head.lock()
    }

    /// Keeps room for one record. Work that must be recorded when it is done begins with this.
    ///
    /// # Errors
    ///
    /// When the log cannot be written, or so many records wait for the disk that there is no room.
    pub fn reserve(&self) -> Result<Slot, Unavailable> {
        self.available()?;
        self.queue.clone().try_reserve_owned().map(Slot).map_err(|_| Unavailable::Failed)
    }

    /// As [`Self::reserve`], but waits while the disk catches up: more work than it can record is held back, not refused.
    ///
    /// # Errors
    ///
    /// When the log cannot be written, or there is no room for seconds.
    pub async fn room(&self) -> Result<Slot, Unavailable> {
        self.available()?;
        // There is room as a rule, and then nothing is waited for.
        let queue = match self.queue.clone().try_reserve_owned() {
            Ok(permit) => return Ok(Slot(permit)),
            Err(TrySendError::Full(queue)) => queue,
            Err(TrySendError::Closed(_)) => return Err(Unavailable::Failed),
        };
        match tokio::time::timeout(PATIENCE, queue.reserve_owned()).await {
            Ok(Ok(permit)) => Ok(Slot(permit)),
            Ok(Err(_)) | Err(_) => Err(Unavailable::Failed),
        }
    }

    /// Records that room is kept for, and those that wait for the disk.
    pub(crate) fn pending(&self) -> usize {
        self.queue.max_capacity().saturating_sub(self.queue.capacity())
    }

    /// Hands over a record; it is made durable with the next group.
    pub fn record(&self, event: AuditEvent) -> Result<(), Unavailable> {
        self.reserve().map(|slot| slot.record(event))
    }

    /// Hands over a record and waits until it is durable. After an error the record is not in the log.
    pub async fn record_durably(&self, event: AuditEvent) -> Result<(), Unavailable> {
        let (durable, done) = oneshot::channel();
        self.room().await?.0.send(Message { event, durable: Some(durable) });
        done.await.map_err(|_| self.available().err().unwrap_or(Unavailable::Failed))
    }
}

/// Room for one record.
#[derive(Debug)]
pub struct Slot(OwnedPermit<Message>);

impl Slot {
    /// Hands over the record; it is made durable with the next group.
    pub fn record(self, event: AuditEvent) {
        self.0.send(Message { event, durable: None });
    }
}

/// Makes text and the head after it durable.
type Commit = Box<dyn FnMut(&[u8], &AuditHead) -> std::io::Result<()> + Send>;

struct Files {
    log: File,
    head_file: File,
    /// End of the last record that was committed.
    end: u64,
    /// Whether an attempt failed that may have left something behind the end.
    torn: bool,
}

impl Files {
    fn commit(&mut self, text: &[u8], head: &AuditHead) -> std::io::Result<()> {
        if std::mem::replace(&mut self.torn, true) {
            self.log.set_len(self.end)?;
        }
        self.log.write_all_at(text, self.end)?;
        self.log.sync_data()?;
        // The head follows the log: after a crash between the two it names an earlier record, never a later one.
        let mut bytes = [0u8; HEAD_SIZE];
        let (sequence, hash) = bytes.split_at_mut(8);
        sequence.copy_from_slice(&head.sequence.to_le_bytes());
        hash.copy_from_slice(&head.hash);
        self.head_file.write_all_at(&bytes, 0)?;
        self.head_file.sync_data()?;
        self.end += text.len() as u64;
        self.torn = false;
        Ok(())
    }
}

struct Writer {
    commit: Commit,
    head: AuditHead,
    refusing: Arc<Refusing>,
    durable: Arc<Mutex<AuditHead>>,
}

impl Writer {
    fn run(mut self, mut messages: Receiver<Message>) {
        while let Some(first) = messages.blocking_recv() {
            let mut batch = vec![first];
            while batch.len() < BATCH
                && let Ok(next) = messages.try_recv()
            {
                batch.push(next);
            }
            while let Err(error) = self.write(&batch) {
                if self.refusing.failed(Unavailable::of(&error)) {
                    tracing::error!(%error, "the audit log cannot be written; nothing new is done until it can");
                }
                // Whoever waits for durability is told at once and does not do what would have been recorded. What was
                // done already stays here until there is room.
                while let Ok(next) = messages.try_recv() {
                    batch.push(next);
                }
                batch.retain(|message| message.durable.is_none());
                std::thread::sleep(RETRY);
            }
            if self.refusing.succeeded() {
                tracing::warn!("the audit log is written again");
            }
            *self.durable.lock() = self.head;
            for message in batch {
                if let Some(durable) = message.durable {
                    let _ = durable.send(()); // the caller may have gone
                }
            }
        }
    }

    fn write(&mut self, batch: &[Message]) -> std::io::Result<()> {
        let timestamp = UnixTime(clock::unix_seconds()).to_rfc3339();
        let (mut text, mut head) = (String::new(), self.head);
        for message in batch {
            let (line, next) = head
                .append(&timestamp, &message.event)
                .or_else(|_| head.append(&timestamp, &shortened(&message.event)))
                .map_err(std::io::Error::other)?;
            text.push_str(&line);
            text.push('\n');
            head = next;
        }
        (self.commit)(text.as_bytes(), &head)?;
        self.head = head;
        Ok(())
    }
}

/// The same record without its lists and with short texts: one that is too long for a line must not stop the log.
fn shortened(event: &AuditEvent) -> AuditEvent {
    let short = |text: &str| text.chars().take(256).collect::<String>();
    let mut event = event.clone();
    let lists = event.security.take().map_or(0, |security| {
        security.capability_grants.len()
            + security.capability_denials.len()
            + security.policy_checks.len()
            + security.sandbox_violations.len()
    });
    if let Some(agent) = event.agent.as_mut().map(Arc::make_mut) {
        agent.id = short(&agent.id);
        agent.version = short(&agent.version);
        agent.attestation.signer = short(&agent.attestation.signer);
    }
    let requested = event
        .execution
        .as_mut()
        .map_or(0, |execution| std::mem::take(&mut execution.capabilities_requested).len());
    let detail = event.detail.as_deref().map(short).unwrap_or_default();
    event.detail = Some(format!("cut, {} list entries left out: {detail}", lists + requested));
    event
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

/// Checks every line, and that each head in `had` is one of its chain. Returns the last head and the end of the last complete line.
fn walk(log: &File, path: &Path, had: &[Option<&AuditHead>]) -> Result<(AuditHead, u64), OpenError> {
    let mut reader = BufReader::new(log);
    let mut head = AuditHead::EMPTY;
    let mut end = 0u64;
    let mut line = Vec::new();
    let mut missing: Vec<&AuditHead> = had.iter().copied().flatten().filter(|had| **had != head).collect();
    loop {
        line.clear();
        let file_error = |source| OpenError::File { path: path.to_owned(), source };
        let count = std::io::Read::take(&mut reader, MAX_LINE as u64 + 1)
            .read_until(b'\n', &mut line)
            .map_err(file_error)?;
        if line.pop() != Some(b'\n') {
            break;
        }
        let malformed = AuditError::Malformed { line: head.sequence + 1 };
        head = std::str::from_utf8(&line)
            .map_err(|_| malformed)
            .and_then(|line| head.check(line))
            .map_err(|source| OpenError::Chain { path: path.to_owned(), source })?;
        end += count as u64;
        missing.retain(|had| **had != head);
    }
    match missing.iter().map(|had| had.sequence).max() {
        None => Ok((head, end)),
        Some(committed) => {
            Err(OpenError::Truncated { path: path.to_owned(), found: head.sequence, committed })
        }
    }
}

#[cfg(test)]
mod tests;

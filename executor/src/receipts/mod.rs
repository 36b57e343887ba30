//! Receipts: one entry for each execution, in a transparency log of this executor's own.
//!
//! A receipt is handed over when the call ends and written by another thread in batches; the checkpoint over a batch is
//! what signs it. Work begins with a [`Slot`]: when the log does not take entries, the queue fills up and new work is held
//! back, then refused.

mod anchor;
mod covered;
mod keys;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub use anchor::{ANCHOR_TYPE, Anchor, AnchorError, Anchored};
use bytes::Bytes;
use executor_api::attested::{AttestedHead, head_of};
use executor_api::audit::AuditHead;
use executor_api::deployment::DeploymentRecord;
use executor_api::receipt::Receipt;
use log_store::{Ack, Entry, Log, LogKind, LogOptions, LogParts, OsDisk, Publication, WriterId};
use parking_lot::Mutex;
use service::StartRefusal;
use tlog::bundle::MAX_ENTRY_SIZE;
use tlog::note::Note;
use tlog::proof_file::ProofFile;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{OwnedPermit, Receiver, Sender, channel};
use tokio::sync::oneshot;

use crate::admission::Denied;
use crate::clock::ReceiptClock;
use crate::refusing::{Refusing, Unavailable};
use crate::runtime::InstanceId;

/// Receipts waiting for the log. When it is full, new work is held back.
const QUEUE: usize = 4096;

/// Most receipts of one submission.
const BATCH: usize = 512;

/// How long work waits for room.
const PATIENCE: Duration = Duration::from_secs(5);

/// Time between two attempts to hand a batch to the log.
const RETRY: Duration = Duration::from_millis(200);

/// Instances whose receipts are found by name: those that ended last.
const REMEMBERED: usize = 65_536;

/// Entries in which the last one about the audit log is looked for. Nearly every entry is one.
const LOOKED_BACK: u64 = 4096;

/// Bytes of address space that the entry file grows by.
const SEGMENT: log_store::EntryFileSizes = log_store::EntryFileSizes { segment: 64 << 20, reserve: 1 << 20 };

/// The open receipt log. Cheap to clone.
#[derive(Clone)]
pub struct Receipts {
    queue: Sender<Message>,
    refusing: Arc<Refusing>,
    log: Arc<Log>,
    index: Arc<Mutex<Recent>>,
    vkeys: Arc<[String]>,
}

enum Message {
    Receipt(InstanceId, Box<Receipt>),
    Step(Box<DeploymentRecord>),
    Attested(AttestedHead),
    /// Answered once everything before it is durable.
    Flush(oneshot::Sender<()>),
}

/// Room for one receipt.
pub struct Slot(OwnedPermit<Message>);

impl Slot {
    /// Hands over the receipt; it is made durable and signed with the next batch.
    pub fn record(self, instance: InstanceId, receipt: Receipt) {
        self.0.send(Message::Receipt(instance, Box::new(receipt)));
    }

    /// Hands over how far the audit log reached instead.
    pub(crate) fn attest(self, head: AttestedHead) {
        self.0.send(Message::Attested(head));
    }

    /// Hands over the record of a change of a route instead.
    pub fn step(self, record: DeploymentRecord) {
        self.0.send(Message::Step(Box::new(record)));
    }
}

/// Which entry is whose.
#[derive(Default)]
struct Recent {
    order: VecDeque<InstanceId>,
    indices: HashMap<InstanceId, u64>,
}

impl Recent {
    fn remember(&mut self, instance: InstanceId, index: u64) {
        if self.order.len() >= REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.indices.remove(&oldest);
        }
        self.order.push_back(instance);
        self.indices.insert(instance, index);
    }
}

impl Receipts {
    /// Opens the receipt log below `state`, with its key; makes both at the first start.
    ///
    /// # Errors
    ///
    /// When the key or the log cannot be made or opened: a log that was rolled back or damaged is not continued.
    pub fn open(state: &Path) -> Result<Self, StartRefusal> {
        let keys = keys::open(state)?;
        let vkeys: Vec<String> = keys.verifier_keys().map(ToString::to_string).collect();
        let (directory, copy) = (state.join("receipts"), state.join("receipts.head"));
        let mut options = LogOptions::new(LogKind::Receipts, keys.origin(), &directory, &copy);
        options.sizes = SEGMENT;
        let disk: Arc<dyn log_store::Disk> = Arc::new(OsDisk);
        let refuse = |error: log_store::Error| {
            StartRefusal::new(
                format!("the receipt log {} does not start", directory.display()),
                "see the runbook, docs/operations/log-refusals.md; to begin a new log, move the folder `receipts` and the file \
                 `receipts.head` away as evidence",
            )
            .because(error)
        };
        if !directory.exists() && !copy.exists() {
            Log::create(&options, &disk, &ReceiptClock).map_err(refuse)?;
        }
        let parts = LogParts { disk, clock: Arc::new(ReceiptClock), signer: Arc::new(keys), cosigner: None };
        let log = Arc::new(Log::open(&options, parts).map_err(refuse)?);
        let (queue, messages) = channel(QUEUE);
        let (refusing, index) = (Arc::<Refusing>::default(), Arc::new(Mutex::new(Recent::default())));
        let writer =
            Writer { log: Arc::clone(&log), refusing: Arc::clone(&refusing), index: Arc::clone(&index) };
        std::thread::Builder::new().name("receipts".into()).spawn(move || writer.run(messages)).map_err(
            |error| {
                StartRefusal::new("the receipt thread cannot start", "check the process limits")
                    .because(error)
            },
        )?;
        Ok(Self { queue, refusing, log, index, vkeys: vkeys.into() })
    }

    /// Whether receipts are taken.
    ///
    /// # Errors
    ///
    /// While the log takes none.
    pub fn available(&self) -> Result<(), Unavailable> {
        self.refusing.check()
    }

    /// Keeps room for one receipt, and waits for it while the log catches up.
    ///
    /// # Errors
    ///
    /// When the log takes none, or there is no room for seconds.
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

    /// Receipts that room is kept for, and those that wait for the log.
    pub(crate) fn pending(&self) -> usize {
        self.queue.max_capacity().saturating_sub(self.queue.capacity())
    }

    /// Waits until every receipt that was handed over is durable, and closes the log.
    pub async fn close(&self) {
        let (done, written) = oneshot::channel();
        let flush = async {
            if self.queue.send(Message::Flush(done)).await.is_ok() {
                let _ = written.await;
            }
        };
        if tokio::time::timeout(PATIENCE, flush).await.is_err() {
            tracing::error!("receipts of the last calls could not be written");
        }
        let log = Arc::clone(&self.log);
        let _ = tokio::task::spawn_blocking(move || log.close()).await;
    }

    /// The receipt of an instance as proof file.
    ///
    /// # Errors
    ///
    /// `receipt_unknown` for an instance that this process did not end lately, `receipt_pending` until a checkpoint
    /// covers it.
    pub fn of_instance(&self, instance: &str) -> Result<Bytes, Denied> {
        let index = InstanceId::parse(instance).and_then(|id| self.index.lock().indices.get(&id).copied());
        self.of_index(index.ok_or_else(|| {
            Denied::new("receipt_unknown", "no receipt of this instance is known; receipts are kept by index")
        })?)
    }

    /// The receipt at an index as proof file.
    ///
    /// # Errors
    ///
    /// As [`Self::of_instance`].
    pub fn of_index(&self, index: u64) -> Result<Bytes, Denied> {
        if index >= self.log.committed().size {
            return Err(Denied::new("receipt_unknown", "the receipt log has no such entry"));
        }
        let published = self.published()?;
        if index >= published.tree().size {
            return Err(Denied::new(
                "receipt_pending",
                "the next checkpoint covers this receipt; ask again soon",
            ));
        }
        let failed = |error: String| {
            Denied::new("receipts_unavailable", "the receipt log cannot be read").for_operator(error)
        };
        let entry = self.log.entry(index, &published).map_err(|error| failed(error.to_string()))?;
        let proof = self.log.inclusion_proof(index, &published).map_err(|error| failed(error.to_string()))?;
        let checkpoint = Note::parse(published.note()).map_err(|error| failed(error.to_string()))?;
        Ok(ProofFile { extra: Some(entry), proof, checkpoint }.to_string().into_bytes().into())
    }

    /// How far the audit log reached by the newest entry that says so, among the last ones.
    ///
    /// # Errors
    ///
    /// When the log cannot be read.
    pub(crate) fn attested(&self) -> Result<Option<AuditHead>, Denied> {
        let Some(published) = self.log.publication() else { return Ok(None) };
        let size = published.tree().size;
        for index in (size.saturating_sub(LOOKED_BACK)..size).rev() {
            let entry = self.log.entry(index, &published).map_err(|error| {
                Denied::new("receipts_unavailable", "the receipt log cannot be read")
                    .for_operator(error.to_string())
            })?;
            if let Some(head) = head_of(&entry) {
                return Ok(Some(head));
            }
        }
        Ok(None)
    }

    /// The published checkpoint and the log it belongs to.
    pub(crate) fn published(&self) -> Result<Arc<Publication>, Denied> {
        self.log
            .publication()
            .ok_or_else(|| Denied::new("receipt_pending", "no checkpoint was signed yet; ask again soon"))
    }

    /// The log.
    pub(crate) fn log(&self) -> &Log {
        &self.log
    }

    /// Origin of the log's checkpoints.
    pub fn origin(&self) -> &str {
        self.log.origin()
    }

    /// What verifies the log's checkpoints, in the form of signed notes.
    pub fn verifier_keys(&self) -> &[String] {
        &self.vkeys
    }
}

fn why(error: &log_store::Error) -> Unavailable {
    match error {
        log_store::Error::DiskFull { .. } => Unavailable::Full,
        log_store::Error::Io { source, .. } => Unavailable::of(source),
        _ => Unavailable::Failed,
    }
}

struct Writer {
    log: Arc<Log>,
    refusing: Arc<Refusing>,
    index: Arc<Mutex<Recent>>,
}

impl Writer {
    fn run(self, mut messages: Receiver<Message>) {
        let mut waiting = Vec::new();
        while let Some(message) = messages.blocking_recv() {
            let mut batch = Vec::new();
            let mut next = Some(message);
            while let Some(message) = next.take() {
                match message {
                    Message::Receipt(instance, receipt) => batch.push((Some(instance), receipt.to_entry())),
                    Message::Attested(head) => batch.push((None, serde_json::to_vec(&head))),
                    Message::Step(record) => batch.push((None, serde_json::to_vec(&*record))),
                    Message::Flush(done) => waiting.push(done),
                }
                if batch.len() < BATCH {
                    next = messages.try_recv().ok();
                }
            }
            self.write(batch);
            for done in waiting.drain(..) {
                let _ = done.send(()); // whoever asked may have gone
            }
        }
    }

    /// Writes a batch, however long that takes: what was done is on record before anything else is.
    fn write(&self, batch: Vec<(Option<InstanceId>, serde_json::Result<Vec<u8>>)>) {
        let mut left = Vec::with_capacity(batch.len());
        for (instance, entry) in batch {
            match entry {
                // Alone: the others of its batch fit.
                Ok(bytes) if bytes.len() > MAX_ENTRY_SIZE => {
                    tracing::error!(
                        bytes = bytes.len(),
                        "a receipt does not fit into an entry and is not written"
                    );
                }
                Ok(bytes) => left.push((instance, Bytes::from(bytes))),
                Err(error) => tracing::error!(%error, "a receipt could not be written as JSON"),
            }
        }
        while !left.is_empty() {
            match self.submit(&mut left) {
                Ok(()) => {
                    if self.refusing.succeeded() {
                        tracing::warn!("the receipt log takes entries again");
                    }
                }
                Err(error) => {
                    if self.refusing.failed(why(&error)) {
                        tracing::error!(%error, "the receipt log takes no entries; nothing new is run until it does");
                    }
                    std::thread::sleep(RETRY);
                }
            }
        }
    }

    /// Takes from `left` what became durable.
    fn submit(&self, left: &mut Vec<(Option<InstanceId>, Bytes)>) -> Result<(), log_store::Error> {
        let entries =
            left.iter().map(|(_, bytes)| Entry::plain(bytes.clone())).collect::<Result<Vec<_>, _>>()?;
        let answers = self.log.submit_all(WriterId(0), entries, Ack::Sequenced)?;
        let mut outcome = Ok(());
        let mut kept = Vec::new();
        for ((instance, bytes), answer) in std::mem::take(left).into_iter().zip(answers) {
            match Log::wait(answer) {
                Ok(receipt) => {
                    if let Some(instance) = instance {
                        self.index.lock().remember(instance, receipt.index);
                    }
                }
                Err(error) => {
                    outcome = Err(error);
                    kept.push((instance, bytes));
                }
            }
        }
        *left = kept;
        outcome
    }
}

//! One log: opened, served, closed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tlog::consistency::ConsistencyProof;
use tlog::hash::{Hash, LeafHash, TreeHead};
use tlog::inclusion::InclusionProof;
use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::cosigning::{Cosigning, Witnessing};
use crate::disk::Disk;
use crate::entry::{Ack, Entry, Item, Receipt};
use crate::entry_file::EntryFile;
use crate::error::{Error, Refusal, Result};
use crate::follower::Follower;
use crate::head_file::{Head, HeadFile};
use crate::kind::{Deduplication, EntryKey, LogKind};
use crate::note_file::NoteFile;
use crate::options::{LogOptions, Writing};
use crate::publication::Publication;
use crate::publisher::{CheckpointSigner, Cosigner, Publisher};
use crate::queue::{End, Queue, WriterId};
use crate::recovery::{Recovered, load_dedup, recover};
use crate::sequencer::Sequencer;
use crate::shared::{Committed, MetricsSnapshot, Shared, SharedParts};

/// Full tiles in memory above which entries are refused until the follower has caught up.
const MAX_TILE_BACKLOG: usize = 8192;

/// What a log is given from outside.
#[derive(Debug, Clone)]
pub struct LogParts {
    /// The file system.
    pub disk: Arc<dyn Disk>,
    /// The clocks.
    pub clock: Arc<dyn Clock>,
    /// Signs its checkpoints.
    pub signer: Arc<dyn CheckpointSigner>,
    /// Collects cosignatures, when [`LogOptions::witnessing`] says; [`Ack::Witnessed`] needs one.
    pub cosigner: Option<Arc<dyn Cosigner>>,
}

/// An open log. Dropping it without [`close`](Self::close) is like a crash: safe, but the next start has more to do.
#[derive(Debug)]
pub struct Log {
    shared: Arc<Shared>,
    writing: Writing,
    witnesses: Option<Witnessing>,
    /// Submitters who may wait for a checkpoint.
    max_waiting: usize,
    threads: Mutex<Vec<JoinHandle<()>>>,
    follower_stop: Mutex<Option<mpsc::Sender<crate::sequencer::Completed>>>,
}

impl Log {
    /// Makes the files of a new, empty log.
    ///
    /// # Errors
    /// [`Refusal::Exists`] when any part of one is there already; nothing is changed then.
    pub fn create(options: &LogOptions, disk: &Arc<dyn Disk>, clock: &dyn Clock) -> Result<()> {
        for path in [&options.directory, &options.head, &options.head_copy] {
            if path.exists() {
                return Err(Refusal::Exists { file: path.clone() }.into());
            }
        }
        let identity = options.identity();
        let entries = EntryFile::create(disk.clone(), &options.entries_directory(), identity, options.sizes)?;
        NoteFile::create(&**disk, &options.note_file(), identity)?;
        let head = Head::empty(clock.unix_millis(), crate::entry_file::SEGMENT_HEADER);
        HeadFile::create(&**disk, &options.head_copy, identity, head)?;
        HeadFile::create(&**disk, &options.head, identity, head)?;
        drop(entries);
        Ok(())
    }

    /// Opens a log, verifies its right edge, completes what a crash left, and publishes its checkpoint.
    ///
    /// # Errors
    /// [`Error::Refused`] when the files do not fit together; [`Error::Signer`] when the first checkpoint cannot be
    /// signed.
    pub fn open(options: &LogOptions, parts: LogParts) -> Result<Self> {
        let recovered = recover(options, &parts.disk, &*parts.clock)?;
        let Recovered { head, copy, note, entries, writer, tiles, edge, range, last_time_millis } = recovered;
        let dedup = load_dedup(options, &parts.disk, &entries, &tiles, &edge)?;
        let derived = edge.size() / 256 * 256;
        let shared = Arc::new(Shared::new(SharedParts {
            origin: options.origin.clone(),
            kind: options.kind,
            deduplication: options.deduplication,
            disk: parts.disk.clone(),
            clock: parts.clock.clone(),
            queue: Queue::new(options.batching),
            entries,
            tiles,
            dedup,
            committed: Committed { head: head.load(), edge: edge.clone() },
            derived,
            published_is_witnessed: parts.cosigner.is_some()
                && options.witnessing == Witnessing::EveryCheckpoint,
            max_waiting: options.batching.queue_entries,
        }));
        let (to_follower, completed) = mpsc::channel();
        let follower = Follower {
            shared: shared.clone(),
            completed,
            dedup_directory: options.dedup_directory(),
            written: derived / 256,
            scrub: 0,
        };
        let witnesses = parts.cosigner.is_some().then_some(options.witnessing);
        let stored = match witnesses {
            Some(_) => Some(NoteFile::open(&*parts.disk, &options.cosigned_file(), options.identity())?),
            None => None,
        };
        let (before_publication, cosigned, beside_it) = match (parts.cosigner, options.witnessing, stored) {
            (Some(cosigner), Witnessing::OnRequest { pause, refresh }, Some(cosigned)) => {
                let shared = shared.clone();
                (None, None, Some(Cosigning { shared, cosigner, cosigned, pause, refresh }))
            }
            (cosigner, _, cosigned) => (cosigner, cosigned, None),
        };
        let mut publisher = Publisher {
            shared: shared.clone(),
            signer: parts.signer,
            cosigner: before_publication,
            signed: note.current().map_or_else(|| copy.load().tree, |note| note.tree),
            copy,
            note,
            cosigned,
            publishing: options.publishing,
            last_time_millis,
        };
        if publisher.cosigner.is_some() {
            // Witnesses may take their time: readers see the last checkpoint that had its quorum, if there is one, and the
            // publisher's thread asks for the next.
            publisher.restore()?;
            shared.publisher.committed();
        } else {
            publisher.publish()?;
        }
        beside_it.as_ref().map_or(Ok(()), Cosigning::restore)?;
        let sequencer =
            Sequencer { shared: shared.clone(), head, writer, range, edge, follower: to_follower.clone() };
        let mut threads = vec![
            spawn("log-sequencer", move || sequencer.run())?,
            spawn("log-publisher", move || publisher.run())?,
            spawn("log-follower", move || follower.run())?,
        ];
        if let Some(cosigning) = beside_it {
            threads.push(spawn("log-cosigner", move || cosigning.run())?);
        }
        Ok(Self {
            shared,
            writing: options.writing,
            witnesses,
            max_waiting: options.batching.queue_entries,
            threads: Mutex::new(threads),
            follower_stop: Mutex::new(Some(to_follower)),
        })
    }

    /// Takes no more entries, publishes what is committed, and waits for the threads.
    pub fn close(&self) {
        let mut threads = std::mem::take(&mut *self.threads.lock()).into_iter();
        self.shared.queue.end(End::Closed);
        join(threads.next());
        self.shared.publisher.close();
        join(threads.next());
        self.follower_stop.lock().take();
        join(threads.next());
        self.shared.cosigning.close();
        join(threads.next());
    }

    /// Queues an entry; the receiver gets the answer. A receiver that ends without one means that the log stopped.
    ///
    /// # Errors
    /// [`Error::Frozen`], [`Error::NoWitnesses`], [`Error::Overloaded`], [`Error::Stopped`], [`Error::WrongKind`]: nothing
    /// was queued.
    pub fn submit(
        &self,
        writer: WriterId,
        entry: Entry,
        ack: Ack,
    ) -> Result<oneshot::Receiver<Result<Receipt>>> {
        self.admit(std::slice::from_ref(&entry), ack)?;
        let (reply, answer) = oneshot::channel();
        let bytes = entry.stored_length();
        self.shared.queue.push(
            writer,
            std::iter::once(Item { entry, ack, reply }),
            bytes,
            &*self.shared.clock,
        )?;
        Ok(answer)
    }

    /// Queues several entries of one call, all or none; they get consecutive places in the queue.
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    pub fn submit_all(
        &self,
        writer: WriterId,
        entries: Vec<Entry>,
        ack: Ack,
    ) -> Result<Vec<oneshot::Receiver<Result<Receipt>>>> {
        self.admit(&entries, ack)?;
        let bytes = entries.iter().map(Entry::stored_length).sum();
        let (items, answers): (Vec<_>, Vec<_>) = entries
            .into_iter()
            .map(|entry| {
                let (reply, answer) = oneshot::channel();
                (Item { entry, ack, reply }, answer)
            })
            .unzip();
        self.shared.queue.push(writer, items.into_iter(), bytes, &*self.shared.clock)?;
        Ok(answers)
    }

    fn admit(&self, entries: &[Entry], ack: Ack) -> Result<()> {
        if self.writing == Writing::Frozen {
            return Err(Error::Frozen);
        }
        if ack == Ack::Witnessed && self.witnesses.is_none() {
            return Err(Error::NoWitnesses);
        }
        if entries.iter().any(|entry| entry.is_certificate() != (self.shared.kind == LogKind::Issuance)) {
            return Err(Error::WrongKind { kind: self.shared.kind.as_str() });
        }
        let crowded = ack != Ack::Sequenced && !self.shared.has_room(ack, self.max_waiting);
        if crowded || self.shared.tiles.backlog() > MAX_TILE_BACKLOG {
            return Err(Error::Overloaded { retry_after: Duration::from_secs(1) });
        }
        Ok(())
    }

    /// Waits for the answer to a submission on a thread that may block.
    ///
    /// # Errors
    /// As the sequencer reports.
    pub fn wait(answer: oneshot::Receiver<Result<Receipt>>) -> Result<Receipt> {
        answer
            .blocking_recv()
            .unwrap_or_else(|_| Err(Error::Stopped("it stopped before it answered".to_owned())))
    }

    /// The published checkpoint; `None` while a witness policy was never fulfilled.
    #[must_use]
    pub fn publication(&self) -> Option<Arc<Publication>> {
        self.shared.published()
    }

    /// The note of the published checkpoint, with the cosignatures that were collected beside publication as long as the
    /// tree is the same: they are over the text, which is the same then, and stay good when the log signs it anew.
    #[must_use]
    pub fn checkpoint(&self) -> Option<Bytes> {
        let published = self.shared.published()?;
        let cosigned = self.shared.witnessed().filter(|cosigned| cosigned.tree == published.tree);
        Some(match cosigned {
            Some(cosigned) => [&published.note[..], &cosigned.cosignatures].concat().into(),
            None => published.note.clone(),
        })
    }

    /// The newest checkpoint with the cosignatures of a quorum, if there is a witness policy and it was ever fulfilled.
    #[must_use]
    pub fn witnessed(&self) -> Option<Arc<Publication>> {
        match self.witnesses? {
            Witnessing::EveryCheckpoint => self.shared.published(),
            Witnessing::OnRequest { .. } => self.shared.witnessed(),
        }
    }

    /// What is committed, published or not.
    #[must_use]
    pub fn committed(&self) -> TreeHead {
        self.shared.committed().head.tree
    }

    /// Kind of this log.
    #[must_use]
    pub fn kind(&self) -> LogKind {
        self.shared.kind
    }

    /// Origin of this log.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.shared.origin
    }

    /// Why the log stopped writing, if it has.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.shared.failure()
    }

    /// Whether the last batch was refused because the disk is full. The log looks for space by itself and takes entries as
    /// soon as there is some.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.shared.full.load(Ordering::Acquire)
    }

    /// Figures for monitoring.
    #[must_use]
    pub fn metrics(&self) -> MetricsSnapshot {
        self.shared.metrics.snapshot(&self.shared)
    }

    /// The proof that entry `index` is in the published tree.
    ///
    /// # Errors
    /// [`Error::NotFound`] beyond the publication; [`Error::Damaged`] when a tile does not verify.
    pub fn inclusion_proof(&self, index: u64, publication: &Publication) -> Result<InclusionProof> {
        self.shared.watched(publication.inclusion(index, &self.shared.tiles))
    }

    /// The proof that the published tree extends the one of `old` entries.
    ///
    /// # Errors
    /// As [`inclusion_proof`](Self::inclusion_proof).
    pub fn consistency_proof(&self, old: u64, publication: &Publication) -> Result<ConsistencyProof> {
        self.shared.watched(publication.consistency(old, &self.shared.tiles))
    }

    /// The root that the log had at an earlier size.
    ///
    /// # Errors
    /// As [`inclusion_proof`](Self::inclusion_proof).
    pub fn root_at(&self, size: u64, publication: &Publication) -> Result<Hash> {
        self.shared.watched(publication.root_at(size, &self.shared.tiles))
    }

    /// A tile of the published tree: `width` hashes of tile `index` at `level`.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the published tree does not have that many there; [`Error::Damaged`].
    pub fn tile(&self, level: u8, index: u64, width: u16, publication: &Publication) -> Result<Bytes> {
        let width = usize::from(width);
        let found = match publication.edge.partial(level) {
            Some((at, tile)) if at == index => {
                if width == 0 {
                    Err(Error::NotFound)
                } else {
                    tile.bytes(width).ok_or(Error::NotFound)
                }
            }
            Some(_) => self.shared.tiles.tile_bytes(level, index, width, &publication.edge),
            None => Err(Error::NotFound),
        };
        self.shared.watched(found)
    }

    /// Calls `each` with index and stored bytes of published entries `first .. first + count`.
    ///
    /// # Errors
    /// [`Error::NotFound`] beyond the publication; [`Error::Damaged`] when a record does not verify.
    pub fn read(
        &self,
        first: u64,
        count: u64,
        publication: &Publication,
        each: impl FnMut(u64, &[u8]),
    ) -> Result<()> {
        if first.checked_add(count).is_none_or(|end| end > publication.tree.size) {
            return Err(Error::NotFound);
        }
        self.shared.watched(self.shared.entries.read(first, count, each))
    }

    /// The stored bytes of one published entry.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn entry(&self, index: u64, publication: &Publication) -> Result<Vec<u8>> {
        let mut found = Vec::new();
        self.read(index, 1, publication, |_, bytes| found = bytes.to_vec())?;
        Ok(found)
    }

    /// The published index of the entry with this leaf hash. Only kinds that deduplicate by leaf hash can answer.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Damaged`].
    pub fn index_of(&self, leaf: &LeafHash, publication: &Publication) -> Result<u64> {
        if self.shared.deduplication == Deduplication::Off || !self.shared.kind.keyed_by_leaf() {
            return Err(Error::NotFound);
        }
        // The writer waits for this lock: what is read from disk is read without it.
        let search = self.shared.dedup.lock().search(&EntryKey::from(*leaf));
        let candidates = search.candidates()?;
        for index in candidates.into_iter().filter(|index| *index < publication.tree.size) {
            let stored = self.shared.entries.entry(index)?;
            if self.shared.kind.leaf_hash(&stored) == Some(*leaf) {
                return Ok(index);
            }
        }
        Err(Error::NotFound)
    }
}

/// Starts a thread whose panic ends the process: nobody knows what state it left, and the log must neither sign that
/// state nor keep submitters waiting for a thread that is gone. The next start looks at the disk.
fn spawn(name: &'static str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    let guarded = move || {
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_err() {
            tracing::error!(thread = name, "a thread of the log panicked; the process ends");
            std::process::abort();
        }
    };
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(guarded)
        .map_err(|error| Error::io("start a thread for", std::path::Path::new(name), error))
}

fn join(thread: Option<JoinHandle<()>>) {
    if let Some(thread) = thread
        && thread.join().is_err()
    {
        tracing::error!("a thread of the log panicked");
    }
}

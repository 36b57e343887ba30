//! What the threads of one log share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use crate::clock::Clock;
use crate::cosigning::CosigningQueue;
use crate::dedup::Dedup;
use crate::disk::Disk;
use crate::edge::Edge;
use crate::entry::Ack;
use crate::entry_file::EntryFile;
use crate::error::{Error, Result};
use crate::head_file::Head;
use crate::kind::{Deduplication, LogKind};
use crate::publication::Publication;
use crate::publisher::PublisherQueue;
use crate::queue::{End, Queue};
use crate::tile_store::TileStore;

/// A committed head with the edge of its tree.
#[derive(Debug, Clone)]
pub(crate) struct Committed {
    pub(crate) head: Head,
    pub(crate) edge: Edge,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) origin: String,
    pub(crate) kind: LogKind,
    pub(crate) deduplication: Deduplication,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) queue: Queue,
    pub(crate) entries: Arc<EntryFile>,
    pub(crate) tiles: TileStore,
    pub(crate) dedup: Mutex<Dedup>,
    pub(crate) publisher: PublisherQueue,
    pub(crate) cosigning: CosigningQueue,
    pub(crate) metrics: Metrics,
    /// Nothing is published here without its quorum.
    published_is_witnessed: bool,
    committed: RwLock<Committed>,
    published: RwLock<Option<Arc<Publication>>>,
    witnessed: RwLock<Option<Arc<Publication>>>,
    failure: RwLock<Option<String>>,
    /// Everything derived from the first so many entries is durable.
    pub(crate) derived: AtomicU64,
    /// Submissions that came while too many waited.
    turned_away: AtomicU64,
    /// The last batch was refused for want of space.
    pub(crate) full: AtomicBool,
}

/// The parts of [`Shared`] that recovery found.
pub(crate) struct SharedParts {
    pub(crate) origin: String,
    pub(crate) kind: LogKind,
    pub(crate) deduplication: Deduplication,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) queue: Queue,
    pub(crate) entries: Arc<EntryFile>,
    pub(crate) tiles: TileStore,
    pub(crate) dedup: Dedup,
    pub(crate) committed: Committed,
    pub(crate) derived: u64,
    pub(crate) published_is_witnessed: bool,
    /// Submitters who may wait for a checkpoint.
    pub(crate) max_waiting: usize,
}

impl Shared {
    pub(crate) fn new(parts: SharedParts) -> Self {
        let metrics = Metrics::default();
        metrics.size.store(parts.committed.head.tree.size, Ordering::Relaxed);
        Self {
            origin: parts.origin,
            kind: parts.kind,
            deduplication: parts.deduplication,
            disk: parts.disk,
            clock: parts.clock,
            queue: parts.queue,
            entries: parts.entries,
            tiles: parts.tiles,
            dedup: Mutex::new(parts.dedup),
            publisher: PublisherQueue::default(),
            cosigning: CosigningQueue::new(parts.max_waiting),
            metrics,
            published_is_witnessed: parts.published_is_witnessed,
            committed: RwLock::new(parts.committed),
            published: RwLock::new(None),
            witnessed: RwLock::new(None),
            failure: RwLock::new(None),
            derived: AtomicU64::new(parts.derived),
            turned_away: AtomicU64::new(0),
            full: AtomicBool::new(false),
        }
    }

    pub(crate) fn committed(&self) -> Committed {
        self.committed.read().clone()
    }

    pub(crate) fn set_committed(&self, committed: Committed) {
        *self.committed.write() = committed;
        self.publisher.committed();
    }

    pub(crate) fn published(&self) -> Option<Arc<Publication>> {
        self.published.read().clone()
    }

    pub(crate) fn set_published(&self, publication: Arc<Publication>) {
        self.metrics.published.store(publication.tree.size, Ordering::Relaxed);
        self.metrics.publications.fetch_add(1, Ordering::Relaxed);
        *self.published.write() = Some(publication);
    }

    /// The newest checkpoint that was cosigned beside publication.
    pub(crate) fn witnessed(&self) -> Option<Arc<Publication>> {
        self.witnessed.read().clone()
    }

    pub(crate) fn set_witnessed(&self, publication: Arc<Publication>) {
        *self.witnessed.write() = Some(publication);
    }

    /// The published checkpoint, if it has what this level promises of entry `index`.
    pub(crate) fn covering(&self, index: u64, ack: Ack) -> Option<Arc<Publication>> {
        let publication = match ack {
            Ack::Sequenced => None,
            Ack::Witnessed if !self.published_is_witnessed => self.witnessed(),
            Ack::Published | Ack::Witnessed => self.published(),
        };
        publication.filter(|publication| index < publication.tree.size)
    }

    /// Whether entry `index` is published and its witnesses are asked apart from that.
    pub(crate) fn awaits_witnesses_only(&self, index: u64) -> bool {
        !self.published_is_witnessed && self.covering(index, Ack::Published).is_some()
    }

    /// Whether there is a place at this level: fewer than `limit` submitters wait for a checkpoint, and, where witnesses are
    /// asked beside publication, fewer than as many for them. Who waits for witnesses keeps nobody else from a checkpoint.
    pub(crate) fn has_room(&self, ack: Ack, limit: usize) -> bool {
        let beside = ack == Ack::Witnessed && !self.published_is_witnessed;
        let room = || self.publisher.len() < limit && !(beside && self.cosigning.len() >= limit);
        if room() {
            return true;
        }
        // Looking at all of them is dear: one in so many who come while it is full has it done.
        if self.turned_away.fetch_add(1, Ordering::Relaxed).is_multiple_of(256) {
            self.publisher.purge();
            self.cosigning.purge();
        }
        room()
    }

    /// Stops writing for good. The first cause is kept.
    pub(crate) fn fail(&self, error: &Error) {
        let cause = error.to_string();
        tracing::error!(log = %self.origin, %error, "the log stops accepting entries");
        self.failure.write().get_or_insert_with(|| cause.clone());
        self.queue.end(End::Failed(cause.clone()));
        self.publisher.fail(&cause);
        self.cosigning.fail(&cause);
    }

    pub(crate) fn failure(&self) -> Option<String> {
        self.failure.read().clone()
    }

    /// Sounds the alarm when a reader came upon damage. The log goes on: nothing damaged is handed out, and what it signs
    /// does not rest on what readers ask for.
    pub(crate) fn watched<T>(&self, found: Result<T>) -> Result<T> {
        if let Err(error @ Error::Damaged { .. }) = &found {
            self.metrics.damaged_reads.fetch_add(1, Ordering::Relaxed);
            tracing::error!(log = %self.origin, %error, "a reader asked for something damaged and got nothing");
        }
        found
    }

    /// The time bound to a stored certificate entry; `None` for kinds that bind no time.
    ///
    /// # Errors
    /// When the entry cannot be read back: no other time may then be promised for it.
    pub(crate) fn time_of(&self, index: u64) -> Result<Option<u64>> {
        if self.kind != LogKind::Issuance {
            return Ok(None);
        }
        let stored = self.entries.entry(index)?;
        match self.kind.bound_time(&stored) {
            Some(time) => Ok(Some(time)),
            None => Err(Error::damaged(
                self.entries.directory(),
                format!("entry {index} is no certificate entry"),
            )),
        }
    }
}

/// Counters of a log; read with [`Metrics::snapshot`].
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    size: AtomicU64,
    published: AtomicU64,
    publications: AtomicU64,
    batches: AtomicU64,
    appended: AtomicU64,
    refused: AtomicU64,
    publication_failures: AtomicU64,
    pub(crate) scrubbed: AtomicU64,
    damaged_reads: AtomicU64,
}

/// Figures of a log at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct MetricsSnapshot {
    /// Committed entries.
    pub size: u64,
    /// Entries covered by the published checkpoint.
    pub published: u64,
    /// Checkpoints published since the start.
    pub publications: u64,
    /// Batches committed since the start.
    pub batches: u64,
    /// Entries appended since the start.
    pub appended: u64,
    /// Entries refused since the start for want of space, or while the clock was behind the log.
    pub refused: u64,
    /// Attempts to publish that failed since the start.
    pub publication_failures: u64,
    /// Entries re-read and re-verified by the background self-check since the start.
    pub scrubbed: u64,
    /// Reads since the start that found damage and were refused.
    pub damaged_reads: u64,
    /// Entries waiting for the sequencer.
    pub queued: u64,
    /// Full tiles waiting for the follower.
    pub tile_backlog: u64,
    /// Submitters waiting for a checkpoint.
    pub waiting: u64,
    /// Whether the writer has stopped after a fatal failure.
    pub failed: bool,
}

impl Metrics {
    pub(crate) fn batch(&self, appended: u64, size: u64) {
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.appended.fetch_add(appended, Ordering::Relaxed);
        self.size.store(size, Ordering::Relaxed);
    }

    pub(crate) fn refused(&self, count: usize) {
        self.refused.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(crate) fn publication_failed(&self) {
        self.publication_failures.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn snapshot(&self, shared: &Shared) -> MetricsSnapshot {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        MetricsSnapshot {
            size: load(&self.size),
            published: load(&self.published),
            publications: load(&self.publications),
            batches: load(&self.batches),
            appended: load(&self.appended),
            refused: load(&self.refused),
            publication_failures: load(&self.publication_failures),
            scrubbed: load(&self.scrubbed),
            damaged_reads: load(&self.damaged_reads),
            queued: shared.queue.len() as u64,
            waiting: (shared.publisher.len() + shared.cosigning.len()) as u64,
            tile_backlog: shared.tiles.backlog() as u64,
            failed: shared.failure().is_some(),
        }
    }
}

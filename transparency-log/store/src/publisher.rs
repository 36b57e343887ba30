//! Signs and publishes committed heads, on its own thread.
//!
//! At once when somebody waits for it (at most every 5 ms), else within 40 ms of a commit, and every 30 s when idle so
//! that the signed time stays fresh. Order: consistency with the last publication → sign → store the head's second copy
//! and the note, synced → witness quorum where a policy asks for it → publish → answer.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use tlog::consistency::ConsistencyProof;
use tlog::hash::TreeHead;
use tokio::sync::oneshot;

use crate::clock::not_before;
use crate::edge::Edge;
use crate::entry::{Ack, Receipt};
use crate::error::{Error, Result};
use crate::head_file::HeadFile;
use crate::note_file::{MAX_NOTE, NoteFile, StoredNote};
use crate::publication::Publication;
use crate::sequencer::check_consistency;
use crate::shared::{Committed, Shared};
use crate::tile_store::TreeNodes;

/// Signs checkpoints of one log.
pub trait CheckpointSigner: Send + Sync + std::fmt::Debug {
    /// The whole signed note for a head, at a time in Unix milliseconds.
    ///
    /// # Errors
    /// [`Error::Signer`]. The publisher tries again; nothing is published meanwhile.
    fn sign(&self, head: &TreeHead, time_millis: u64) -> Result<Vec<u8>>;
}

/// Collects witness cosignatures.
pub trait Cosigner: Send + Sync + std::fmt::Debug {
    /// Returns the note with the cosignatures of a quorum. `consistency` gives the proof from an older size to the
    /// note's.
    ///
    /// # Errors
    /// [`Error::WitnessQuorum`], [`Error::WitnessAhead`]. The publisher tries again; nothing is published meanwhile.
    fn cosign(
        &self,
        note: &[u8],
        head: &TreeHead,
        consistency: &dyn Fn(u64) -> Result<ConsistencyProof>,
    ) -> Result<Vec<u8>>;

    /// The lines of witnesses at the end of a stored note, if they are a quorum: it may then be shown until there is a
    /// newer one.
    fn cosignatures<'a>(&self, note: &'a [u8]) -> Option<&'a [u8]>;
}

/// When checkpoints are published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Publishing {
    /// At most this often while somebody waits.
    pub waited_for: Duration,
    /// Within this time of a commit when nobody waits.
    pub unhurried: Duration,
    /// A new signature of an unchanged tree after this time.
    pub idle: Duration,
}

impl Default for Publishing {
    fn default() -> Self {
        Self {
            waited_for: Duration::from_millis(5),
            unhurried: Duration::from_millis(40),
            idle: Duration::from_secs(30),
        }
    }
}

/// Pause after a failed attempt to sign or to reach the quorum.
pub(crate) const RETRY: Duration = Duration::from_millis(250);

/// A sequenced entry whose submitter waits for more.
#[derive(Debug)]
pub(crate) struct Waiter {
    pub(crate) receipt: Receipt,
    pub(crate) ack: Ack,
    pub(crate) reply: oneshot::Sender<Result<Receipt>>,
}

/// Who waits, and what the publisher has been told.
#[derive(Debug, Default)]
pub(crate) struct PublisherQueue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiters: Vec<Waiter>,
    committed: bool,
    closing: bool,
    failed: Option<String>,
    /// The publisher is asleep and may be woken by commits.
    idle: bool,
}

impl PublisherQueue {
    pub(crate) fn wait_for(&self, waiters: Vec<Waiter>) {
        let mut state = self.state.lock();
        if let Some(cause) = &state.failed {
            for waiter in waiters {
                // The submitter may have gone; nobody else is to be told.
                let _ = waiter.reply.send(Err(Error::Stopped(cause.clone())));
            }
            return;
        }
        let first = state.waiters.is_empty();
        state.waiters.extend(waiters);
        drop(state);
        if first {
            self.changed.notify_one();
        }
    }

    pub(crate) fn committed(&self) {
        let mut state = self.state.lock();
        state.committed = true;
        if std::mem::take(&mut state.idle) {
            drop(state);
            self.changed.notify_one();
        }
    }

    /// Who waits, those who have gone included.
    pub(crate) fn len(&self) -> usize {
        self.state.lock().waiters.len()
    }

    /// Forgets who has gone.
    pub(crate) fn purge(&self) {
        self.state.lock().waiters.retain(|waiter| !waiter.reply.is_closed());
    }

    pub(crate) fn close(&self) {
        self.state.lock().closing = true;
        self.changed.notify_one();
    }

    pub(crate) fn fail(&self, cause: &str) {
        let mut state = self.state.lock();
        state.failed.get_or_insert_with(|| cause.to_owned());
        let waiters = std::mem::take(&mut state.waiters);
        drop(state);
        for waiter in waiters {
            // The submitter may have gone; nobody else is to be told.
            let _ = waiter.reply.send(Err(Error::Stopped(cause.to_owned())));
        }
        self.changed.notify_one();
    }
}

#[derive(Debug)]
pub(crate) struct Publisher {
    pub(crate) shared: Arc<Shared>,
    pub(crate) signer: Arc<dyn CheckpointSigner>,
    /// Asked before every publication.
    pub(crate) cosigner: Option<Arc<dyn Cosigner>>,
    pub(crate) copy: HeadFile,
    pub(crate) note: NoteFile,
    /// The newest note with its quorum, where one is needed for publication.
    pub(crate) cosigned: Option<NoteFile>,
    pub(crate) publishing: Publishing,
    /// The newest tree that was signed, published or not.
    pub(crate) signed: TreeHead,
    pub(crate) last_time_millis: u64,
}

impl Publisher {
    /// Publishes until the log is closed or fails.
    pub(crate) fn run(mut self) {
        let mut last = self.shared.clock.elapsed();
        while self.due(last) {
            last = self.shared.clock.elapsed();
            match self.publish() {
                Ok(()) => {}
                Err(
                    error @ (Error::Signer(_)
                    | Error::WitnessAhead { .. }
                    | Error::WitnessQuorum(_)
                    | Error::ClockBehind { .. }),
                ) => {
                    tracing::warn!(log = %self.shared.origin, %error, "no checkpoint published; trying again");
                    self.shared.metrics.publication_failed();
                    let mut state = self.shared.publisher.state.lock();
                    if state.closing || state.failed.is_some() {
                        for waiter in std::mem::take(&mut state.waiters) {
                            // The submitter may have gone; nobody else is to be told.
                            let _ = waiter
                                .reply
                                .send(Err(Error::Stopped("the server is shutting down".to_owned())));
                        }
                        return;
                    }
                    state.waiters.retain(|waiter| !waiter.reply.is_closed());
                    state.committed = true;
                    self.shared.publisher.changed.wait_for(&mut state, RETRY);
                }
                Err(error) => {
                    self.shared.fail(&error);
                    return;
                }
            }
        }
    }

    /// Waits until a checkpoint is due; false at the end.
    fn due(&self, last: std::time::Duration) -> bool {
        let queue = &self.shared.publisher;
        let mut state = queue.state.lock();
        loop {
            if state.failed.is_some() {
                return false;
            }
            let idle_for = self.shared.clock.elapsed().saturating_sub(last);
            if state.closing {
                let behind = self.shared.committed().head.tree.size
                    > self.shared.published().map_or(0, |publication| publication.tree.size);
                return behind || !state.waiters.is_empty();
            }
            let after = if !state.waiters.is_empty() {
                self.publishing.waited_for
            } else if state.committed {
                self.publishing.unhurried
            } else {
                self.publishing.idle
            };
            if idle_for >= after {
                state.committed = false;
                state.idle = false;
                return true;
            }
            // A commit need not wake the publisher that sleeps until the next checkpoint anyway.
            state.idle = !state.committed && state.waiters.is_empty();
            queue.changed.wait_for(&mut state, after - idle_for);
        }
    }

    /// Publishes the stored checkpoint that had its quorum, so that there is something to read until a new one has.
    pub(crate) fn restore(&self) -> Result<()> {
        let stored = self.cosigned.as_ref().and_then(NoteFile::current);
        if let (Some(cosigner), Some(stored)) = (&self.cosigner, stored)
            && let Some(publication) = restored(&self.shared, &**cosigner, stored)?
        {
            self.shared.set_published(Arc::new(publication));
        }
        Ok(())
    }

    /// Signs and publishes the newest committed head.
    pub(crate) fn publish(&mut self) -> Result<()> {
        let shared = self.shared.clone();
        let Committed { head, edge } = shared.committed();
        let nodes = TreeNodes { edge: &edge, store: &shared.tiles };
        let now = shared.clock.unix_millis();
        let last = self.last_time_millis.max(head.time_millis);
        not_before(now, last)?;
        check_consistency(&self.signed, &head.tree, &nodes)?;

        let mut note = Bytes::from(self.signer.sign(&head.tree, now)?);
        self.signed = head.tree;
        self.last_time_millis = now;

        let old = self.copy.load();
        if old.tree != head.tree {
            self.copy.compare_and_swap(&old, head)?;
        }
        let derived = shared.derived.load(Ordering::Acquire);
        let stored =
            |note: &Bytes| StoredNote { tree: head.tree, time_millis: now, derived, note: note.clone() };
        self.note.store(stored(&note))?;

        if let Some(cosigner) = &self.cosigner {
            let consistency = |old: u64| Ok(ConsistencyProof::build(old, head.tree.size, &nodes)?);
            note = cosigner.cosign(&note, &head.tree, &consistency)?.into();
            if note.len() > MAX_NOTE {
                // What witnesses answer must never be what stops the log.
                return Err(Error::WitnessQuorum(format!("their lines make {} bytes", note.len())));
            }
            if let Some(cosigned) = &mut self.cosigned {
                cosigned.store(stored(&note))?;
            }
        }

        let cosignatures = Bytes::new();
        let publication =
            Arc::new(Publication { tree: head.tree, time_millis: now, note, cosignatures, edge });
        shared.set_published(publication.clone());
        self.answer(&publication);
        Ok(())
    }

    fn answer(&self, publication: &Arc<Publication>) {
        let mut state = self.shared.publisher.state.lock();
        let waiters = std::mem::take(&mut state.waiters);
        let (covered, later): (Vec<_>, Vec<_>) =
            waiters.into_iter().partition(|waiter| waiter.receipt.index < publication.tree.size);
        state.waiters = later;
        drop(state);
        // Where the publisher asks the witnesses itself, what it publishes is witnessed.
        let (to_cosign, done): (Vec<_>, Vec<_>) =
            covered.into_iter().partition(|waiter| waiter.ack == Ack::Witnessed && self.cosigner.is_none());
        for Waiter { mut receipt, reply, .. } in done {
            receipt.publication = Some(publication.clone());
            // The submitter may have gone; the entry stays.
            let _ = reply.send(Ok(receipt));
        }
        if !to_cosign.is_empty() {
            self.shared.cosigning.wait_for(to_cosign);
        }
    }
}

/// A stored checkpoint, if it is of this log's tree and has its quorum still.
pub(crate) fn restored(
    shared: &Shared,
    cosigner: &dyn Cosigner,
    stored: &StoredNote,
) -> Result<Option<Publication>> {
    let Committed { edge, .. } = shared.committed();
    let nodes = TreeNodes { edge: &edge, store: &shared.tiles };
    let size = stored.tree.size;
    let ours =
        size <= edge.size() && tlog::node::read_root(size, &nodes).map_err(Error::from)? == stored.tree;
    let Some(cosignatures) = cosigner.cosignatures(&stored.note).filter(|_| ours) else {
        tracing::warn!(log = %shared.origin, size, "the stored cosigned checkpoint cannot be shown");
        return Ok(None);
    };
    Ok(Some(Publication {
        tree: stored.tree,
        time_millis: stored.time_millis,
        cosignatures: stored.note.slice_ref(cosignatures),
        note: stored.note.clone(),
        edge: Edge::at(size, &nodes).map_err(Error::from)?,
    }))
}

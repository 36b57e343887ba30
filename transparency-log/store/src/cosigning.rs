//! Cosigns published checkpoints beside publication, on its own thread: for logs whose checkpoints are published faster
//! than witnesses are willing to be asked (public networks publish quotas of one checkpoint in ten seconds).
//!
//! Whoever submitted with [`Ack::Witnessed`](crate::Ack::Witnessed) waits here, after publication, for a cosigned
//! checkpoint that covers the entry. Without the quorum nobody is answered. What was cosigned last is stored, so that a
//! restart has it; where the log has grown since, the witnesses are asked at once.
//!
//! Anybody can submit again what is published and wait for its witnesses, so of the places of those who wait the greater part
//! is kept for entries that are new.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::entry::{Novelty, Receipt};
use crate::error::{Error, Result};
use crate::note_file::{MAX_NOTE, NoteFile, StoredNote};
use crate::publication::Publication;
use crate::publisher::{Cosigner, RETRY, Waiter, restored};
use crate::shared::Shared;

/// When witnesses are asked, in a log that has a witness policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Witnessing {
    /// Before every publication: nothing is published without the quorum.
    #[default]
    EveryCheckpoint,
    /// For published checkpoints that somebody waits for, with this pause in between.
    OnRequest {
        /// From one request to the next.
        pause: Duration,
        /// Age of the newest cosignatures at which they are asked again although nobody waits; `None`: never. After a start
        /// they are asked until the tree is cosigned, whatever this says.
        refresh: Option<Duration>,
    },
}

/// Rounds that follow each other without the pause when a witness turns out to know a newer published tree.
const AT_ONCE: u32 = 3;

/// Who waits for a cosigned checkpoint.
#[derive(Debug)]
pub(crate) struct CosigningQueue {
    state: Mutex<State>,
    changed: Condvar,
    /// Submitters of duplicates who may wait.
    max_repeated: usize,
}

#[derive(Debug, Default)]
struct State {
    waiters: Vec<(Receipt, oneshot::Sender<Result<Receipt>>)>,
    /// Those of them whose entry was in the log before, as of the last look at all of them and since.
    repeated: usize,
    closing: bool,
    failed: Option<String>,
}

impl State {
    fn count(&mut self) {
        self.repeated = self.waiters.iter().filter(|(receipt, _)| is_repeated(receipt)).count();
    }

    fn forget_gone(&mut self) {
        self.waiters.retain(|(_, reply)| !reply.is_closed());
        self.count();
    }
}

fn is_repeated(receipt: &Receipt) -> bool {
    receipt.novelty == Novelty::Duplicate
}

impl CosigningQueue {
    /// For a log in which `max_waiting` submitters may wait.
    pub(crate) fn new(max_waiting: usize) -> Self {
        let max_repeated = (max_waiting / 4).max(1);
        Self { state: Mutex::default(), changed: Condvar::new(), max_repeated }
    }

    /// Adds entries that are published. Of duplicates so many that there is always room for others.
    pub(crate) fn wait_for(&self, waiters: Vec<Waiter>) {
        let mut state = self.state.lock();
        if let Some(cause) = &state.failed {
            refuse(waiters.into_iter().map(|waiter| waiter.reply), cause);
            return;
        }
        let repeated = waiters.iter().filter(|waiter| is_repeated(&waiter.receipt)).count();
        if state.repeated + repeated > self.max_repeated && repeated > 0 {
            state.forget_gone();
        }
        for Waiter { receipt, reply, .. } in waiters {
            if is_repeated(&receipt) {
                if state.repeated >= self.max_repeated {
                    // The submitter may have gone; the entry stays.
                    let _ = reply.send(Err(Error::Overloaded { retry_after: Duration::from_secs(1) }));
                    continue;
                }
                state.repeated += 1;
            }
            state.waiters.push((receipt, reply));
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Who waits, those who have gone included.
    pub(crate) fn len(&self) -> usize {
        self.state.lock().waiters.len()
    }

    /// Forgets who has gone.
    pub(crate) fn purge(&self) {
        self.state.lock().forget_gone();
    }

    /// Ends the thread. Who still waits is told to try again.
    pub(crate) fn close(&self) {
        self.state.lock().closing = true;
        self.changed.notify_one();
    }

    pub(crate) fn fail(&self, cause: &str) {
        let mut state = self.state.lock();
        state.failed.get_or_insert_with(|| cause.to_owned());
        refuse(std::mem::take(&mut state.waiters).into_iter().map(|(_, reply)| reply), cause);
        drop(state);
        self.changed.notify_one();
    }
}

fn refuse(replies: impl Iterator<Item = oneshot::Sender<Result<Receipt>>>, cause: &str) {
    for reply in replies {
        // The submitter may have gone; nobody else is to be told.
        let _ = reply.send(Err(Error::Stopped(cause.to_owned())));
    }
}

#[derive(Debug)]
pub(crate) struct Cosigning {
    pub(crate) shared: Arc<Shared>,
    pub(crate) cosigner: Arc<dyn Cosigner>,
    /// The newest note with its quorum.
    pub(crate) cosigned: NoteFile,
    pub(crate) pause: Duration,
    pub(crate) refresh: Option<Duration>,
}

impl Cosigning {
    /// Shows the cosignatures of the last run again.
    pub(crate) fn restore(&self) -> Result<()> {
        if let Some(stored) = self.cosigned.current()
            && let Some(publication) = restored(&self.shared, &*self.cosigner, stored)?
        {
            self.shared.set_witnessed(Arc::new(publication));
        }
        Ok(())
    }

    /// Cosigns until the log is closed or fails.
    pub(crate) fn run(mut self) {
        // Not before the first, and at the second even when nobody waits.
        let (mut earliest, mut refresh, mut at_once) = (Duration::ZERO, self.first(), 0);
        while let Some(publication) = self.due(earliest, refresh) {
            let now = self.shared.clock.elapsed();
            match self.cosign(&publication) {
                Ok(cosigned) => {
                    at_once = 0;
                    earliest = now + self.pause;
                    refresh = self.refresh_from(now);
                    self.answer(&cosigned);
                }
                Err(error @ Error::Io { .. }) => {
                    self.shared.fail(&error);
                    return;
                }
                // Anybody may have brought a witness what was published since: it is asked about that then.
                Err(Error::WitnessAhead { recorded, .. })
                    if at_once < AT_ONCE && self.is_published(recorded) =>
                {
                    at_once += 1;
                    earliest = now;
                }
                Err(error) => {
                    at_once = 0;
                    tracing::warn!(log = %self.shared.origin, %error, "no cosigned checkpoint; trying again");
                    self.shared.metrics.publication_failed();
                    self.shared.cosigning.purge();
                    // The quotas of witnesses hold for questions, not for answers.
                    earliest = now + self.pause.max(RETRY);
                }
            }
        }
        refuse(
            std::mem::take(&mut self.shared.cosigning.state.lock().waiters)
                .into_iter()
                .map(|(_, reply)| reply),
            "the server is shutting down",
        );
    }

    /// When the witnesses are to be asked first although nobody waits: at once, unless the tree that is published is
    /// cosigned already, or empty.
    fn first(&self) -> Option<Duration> {
        let now = self.shared.clock.elapsed();
        let published = self.shared.published().map(|published| published.tree);
        if published.is_none_or(|tree| tree.size == 0) {
            return self.refresh_from(now);
        }
        match self.shared.witnessed().filter(|witnessed| Some(witnessed.tree) == published) {
            None => Some(now),
            Some(witnessed) => {
                let age = self.shared.clock.unix_millis().saturating_sub(witnessed.time_millis);
                self.refresh.map(|refresh| now + refresh.saturating_sub(Duration::from_millis(age)))
            }
        }
    }

    /// Whether a tree of this size was published; a larger one than any is that of a log which was longer.
    fn is_published(&self, size: u64) -> bool {
        let known = self.shared.published().is_some_and(|published| size <= published.tree.size);
        if !known {
            tracing::error!(log = %self.shared.origin, size, "a witness knows a larger tree: was an old copy restored?");
        }
        known
    }

    fn refresh_from(&self, now: Duration) -> Option<Duration> {
        self.refresh.map(|age| now + age)
    }

    /// Waits until the witnesses are to be asked; the checkpoint to be cosigned, or `None` at the end.
    fn due(&self, earliest: Duration, refresh: Option<Duration>) -> Option<Arc<Publication>> {
        let queue = &self.shared.cosigning;
        let mut state = queue.state.lock();
        loop {
            if state.closing || state.failed.is_some() {
                return None;
            }
            // What is cosigned already needs no other question: it may have been before whoever waits came.
            if let Some(cosigned) = self.shared.witnessed() {
                answer(&mut state, &cosigned);
            }
            let now = self.shared.clock.elapsed();
            let wanted = if state.waiters.is_empty() { refresh } else { Some(now) };
            match wanted.map(|at| at.max(earliest).saturating_sub(now)) {
                None => queue.changed.wait(&mut state),
                Some(Duration::ZERO) => return self.shared.published(),
                Some(wait) => {
                    queue.changed.wait_for(&mut state, wait);
                }
            }
        }
    }

    fn cosign(&mut self, publication: &Arc<Publication>) -> Result<Arc<Publication>> {
        let consistency = |old: u64| publication.consistency(old, &self.shared.tiles);
        let note = Bytes::from(self.cosigner.cosign(&publication.note, &publication.tree, &consistency)?);
        let Some(lines) = note.strip_prefix(&publication.note[..]) else {
            return Err(Error::WitnessQuorum("the note was altered while it was cosigned".to_owned()));
        };
        if note.len() > MAX_NOTE {
            // What witnesses answer must never be what stops the log.
            return Err(Error::WitnessQuorum(format!("their lines make {} bytes", note.len())));
        }
        let cosignatures = note.slice_ref(lines);
        let (tree, time_millis) = (publication.tree, publication.time_millis);
        let derived = self.shared.derived.load(Ordering::Acquire);
        self.cosigned.store(StoredNote { tree, time_millis, derived, note: note.clone() })?;
        Ok(Arc::new(Publication { tree, time_millis, note, cosignatures, edge: publication.edge.clone() }))
    }

    fn answer(&self, cosigned: &Arc<Publication>) {
        self.shared.set_witnessed(cosigned.clone());
        answer(&mut self.shared.cosigning.state.lock(), cosigned);
    }
}

/// Answers those whose entry the checkpoint covers.
fn answer(state: &mut State, cosigned: &Arc<Publication>) {
    let (covered, later): (Vec<_>, Vec<_>) = std::mem::take(&mut state.waiters)
        .into_iter()
        .partition(|(receipt, _)| receipt.index < cosigned.tree.size);
    state.waiters = later;
    state.count();
    for (mut receipt, reply) in covered {
        receipt.publication = Some(cosigned.clone());
        // The submitter may have gone; the entry stays.
        let _ = reply.send(Ok(receipt));
    }
}

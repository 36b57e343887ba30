//! The one writer of a log, on its own thread.
//!
//! Per batch: the head is still ours → deduplicate → bind index and time → hash → root by compact range → root again from the bytes to be stored
//! → append and sync → consistency of old and new head → commit the head and sync → answer. Two syncs a batch. Any
//! failure after an index was given is fatal: the thread ends, submissions are refused, reads go on, and the next start
//! finds out what is on disk.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::time::Duration;

use tlog::compact::CompactRange;
use tlog::consistency::ConsistencyProof;
use tlog::hash::TreeHead;

use crate::clock::not_before;
use crate::edge::{Edge, FullTile};
use crate::entry::{Ack, Entry, Form, Item, Novelty, Receipt};
use crate::entry_file::EntryWriter;
use crate::error::{Error, Result};
use crate::head_file::{Head, HeadFile};
use crate::kind::Deduplication;
use crate::publisher::Waiter;
use crate::queue::End;
use crate::record::MAX_ENTRY;
use crate::shared::{Committed, Shared};
use crate::tile_store::TreeNodes;

/// Time between two looks for space on a full disk.
const RETRY: Duration = Duration::from_millis(500);

/// What a batch hands to the follower.
#[derive(Debug)]
pub(crate) struct Completed {
    pub(crate) tiles: Vec<FullTile>,
}

#[derive(Debug)]
pub(crate) struct Sequencer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) head: HeadFile,
    pub(crate) writer: EntryWriter,
    /// The first way to the root.
    pub(crate) range: CompactRange,
    /// The second way, grown from the bytes to be stored.
    pub(crate) edge: Edge,
    pub(crate) follower: Sender<Completed>,
}

/// An item that waits for the batch's commit.
struct Accepted {
    item: Item,
    index: u64,
    novelty: Novelty,
}

impl Sequencer {
    /// Serves the queue until it is closed or a failure is fatal.
    pub(crate) fn run(mut self) {
        let mut batch = Vec::new();
        loop {
            if self.shared.full.load(Ordering::Acquire) && !self.shared.queue.wait(RETRY) {
                // Nobody sends anything to a log that says it is full, so it looks for space itself.
                if self.writer.reserve(1, MAX_ENTRY).is_ok() {
                    tracing::warn!(log = %self.shared.origin, "there is space again");
                    self.shared.full.store(false, Ordering::Release);
                }
                continue;
            }
            if !self.shared.queue.take(&mut batch, &*self.shared.clock) {
                break;
            }
            match self.sequence(&mut batch) {
                Ok(()) => self.shared.full.store(false, Ordering::Release),
                Err(error @ Error::DiskFull { .. }) => {
                    tracing::error!(log = %self.shared.origin, %error, "batch refused");
                    self.shared.metrics.refused(batch.len());
                    self.shared.full.store(true, Ordering::Release);
                    refuse(&mut batch, &error);
                }
                Err(error @ Error::ClockBehind { .. }) => {
                    tracing::warn!(log = %self.shared.origin, %error, "batch refused");
                    self.shared.metrics.refused(batch.len());
                    refuse(&mut batch, &error);
                }
                Err(error) => {
                    self.shared.fail(&error);
                    break;
                }
            }
        }
        self.shared.queue.end(End::Closed);
    }

    /// Sequences one batch. On [`Error::DiskFull`] and [`Error::ClockBehind`] the batch is untouched; every other error is
    /// fatal.
    fn sequence(&mut self, batch: &mut Vec<Item>) -> Result<()> {
        let old = self.head.load();
        // Before anything is written: another writer's entries begin where ours would.
        self.head.confirm()?;
        let now = self.shared.clock.unix_millis();
        not_before(now, old.time_millis)?;
        let bytes = batch.iter().map(|item| item.entry.stored_length()).sum();
        self.writer.reserve(batch.len(), bytes)?;

        let mut waiting = Vec::with_capacity(batch.len());
        let mut settled = Vec::new();
        self.accept(batch, now, &mut waiting, &mut settled)?;
        if self.writer.next_index() > old.tree.size {
            self.commit(old, now)?;
        }
        self.answer(waiting.into_iter().chain(settled), now);
        Ok(())
    }

    /// Finds duplicates, and appends the others to the pending batch and to the compact range.
    fn accept(
        &mut self,
        batch: &mut Vec<Item>,
        now: u64,
        waiting: &mut Vec<Accepted>,
        settled: &mut Vec<Accepted>,
    ) -> Result<()> {
        let base = self.writer.next_index();
        let shared = self.shared.clone();
        let mut dedup = shared.dedup.lock();
        if shared.deduplication == Deduplication::Exact {
            let keys: Vec<_> = batch.iter().map(|item| item.entry.key()).collect();
            dedup.warm(&keys);
        }
        // Where in `waiting` the new entries of this batch stand.
        let mut places: Vec<usize> = Vec::with_capacity(batch.len());
        for item in batch.drain(..) {
            if shared.deduplication == Deduplication::Exact {
                let known =
                    dedup.candidates(&item.entry.key())?.into_iter().try_fold(None, |known, index| {
                        if known.is_some() {
                            return Ok::<_, Error>(known);
                        }
                        let same = match index.checked_sub(base) {
                            None => item.entry.equals_stored(&shared.entries.entry(index)?),
                            Some(offset) => usize::try_from(offset)
                                .ok()
                                .and_then(|offset| waiting.get(*places.get(offset)?))
                                .is_some_and(|accepted: &Accepted| accepted.item.entry.equals(&item.entry)),
                        };
                        Ok(same.then_some(index))
                    })?;
                if let Some(index) = known {
                    let accepted = Accepted { item, index, novelty: Novelty::Duplicate };
                    if index < base {
                        settled.push(accepted)
                    } else {
                        waiting.push(accepted)
                    }
                    continue;
                }
            }
            let index = self.append(&item.entry, now);
            if shared.deduplication == Deduplication::Exact {
                dedup.insert(&item.entry.key(), index);
            }
            places.push(waiting.len());
            waiting.push(Accepted { item, index, novelty: Novelty::New });
        }
        Ok(())
    }

    fn append(&mut self, entry: &Entry, now: u64) -> u64 {
        match &entry.form {
            Form::Plain { bytes, leaf } => {
                self.range.push(*leaf);
                self.writer.push(bytes.len(), |out| out.extend_from_slice(bytes))
            }
            Form::Certificate(certificate) => {
                let index = self.writer.next_index();
                self.range.push(tlog::hash::leaf_hash(&certificate.sct_input(index, now)));
                self.writer.push(certificate.record_length(), |out| certificate.write_record(index, now, out))
            }
        }
    }

    /// Steps 2 to 5 of the order of writes.
    fn commit(&mut self, old: Head, now: u64) -> Result<()> {
        let shared = &self.shared;
        let tree = self.range.head();
        let refuse = |detail| Error::Inconsistent { old: old.tree.size, new: tree.size, detail };

        let (mut full, mut foreign) = (Vec::new(), false);
        let edge = &mut self.edge;
        self.writer.pending(|_, stored| match shared.kind.leaf_hash(stored) {
            Some(leaf) => edge.push(leaf, &mut full),
            None => foreign = true,
        })?;
        shared.tiles.add_pending(&full);
        let nodes = TreeNodes { edge: &self.edge, store: &shared.tiles };
        if foreign || tlog::node::read_root(self.edge.size(), &nodes).map_err(Error::from)? != tree {
            return Err(refuse(
                "the bytes to be stored do not have the root that was computed from the entries",
            ));
        }

        self.writer.flush()?;

        check_consistency(&old.tree, &tree, &nodes)?;
        let new = Head { tree, time_millis: now, tail: self.writer.tail() };
        self.head.compare_and_swap(&old, new)?;

        self.writer.commit();
        shared.metrics.batch(tree.size - old.tree.size, tree.size);
        shared.set_committed(Committed { head: new, edge: self.edge.clone() });
        if !full.is_empty() {
            // The follower ends only after this thread.
            let _ = self.follower.send(Completed { tiles: full });
        }
        Ok(())
    }

    fn answer(&self, accepted: impl Iterator<Item = Accepted>, now: u64) {
        let (mut for_publisher, mut for_cosigner) = (Vec::new(), Vec::new());
        for Accepted { item, index, novelty } in accepted {
            let time_millis = match novelty {
                Novelty::New => now,
                Novelty::Duplicate => match self.shared.time_of(index) {
                    Ok(time) => time.unwrap_or(now),
                    Err(error) => {
                        tracing::error!(log = %self.shared.origin, index, %error, "a duplicate cannot be answered");
                        // The submitter may have gone; nobody else is to be told.
                        let _ = item.reply.send(Err(error));
                        continue;
                    }
                },
            };
            let receipt = Receipt { index, time_millis, novelty, publication: None };
            // What a checkpoint covers already needs no other one, however often it is submitted again.
            let publication = self.shared.covering(index, item.ack).filter(|_| novelty == Novelty::Duplicate);
            match item.ack {
                _ if publication.is_some() => drop(item.reply.send(Ok(Receipt { publication, ..receipt }))),
                // The submitter may have gone; the entry stays.
                Ack::Sequenced => drop(item.reply.send(Ok(receipt))),
                // No other checkpoint is made for what is published.
                ack @ Ack::Witnessed
                    if novelty == Novelty::Duplicate && self.shared.awaits_witnesses_only(index) =>
                {
                    for_cosigner.push(Waiter { receipt, ack, reply: item.reply });
                }
                ack => for_publisher.push(Waiter { receipt, ack, reply: item.reply }),
            }
        }
        if !for_cosigner.is_empty() {
            self.shared.cosigning.wait_for(for_cosigner);
        }
        if !for_publisher.is_empty() {
            self.shared.publisher.wait_for(for_publisher);
        }
    }
}

/// Proves with the code that clients use that `new` extends `old`.
pub(crate) fn check_consistency(old: &TreeHead, new: &TreeHead, nodes: &TreeNodes<'_>) -> Result<()> {
    let proof = ConsistencyProof::build(old.size, new.size, nodes).map_err(Error::from)?;
    proof.verify(old, new).map_err(|_| Error::Inconsistent {
        old: old.size,
        new: new.size,
        detail: "the consistency proof does not verify",
    })
}

/// Tells all submitters of a batch the same.
fn refuse(batch: &mut Vec<Item>, error: &Error) {
    for item in batch.drain(..) {
        // The submitter may have gone; nobody else is to be told.
        let _ = item.reply.send(Err(again(error)));
    }
}

fn again(error: &Error) -> Error {
    match error {
        Error::ClockBehind { behind_millis } => Error::ClockBehind { behind_millis: *behind_millis },
        Error::DiskFull { file } => Error::DiskFull { file: file.clone() },
        other => Error::Stopped(other.to_string()),
    }
}

const _: () = assert!(MAX_ENTRY <= u16::MAX as usize, "an entry bundle has two bytes for a length");

//! A monitor follows one log: every checkpoint must extend the last one, and every entry is looked at.
//!
//! ```text
//! update()        fetch the checkpoint, verify it, prove that it extends the known one
//! next_entries()  walk up to 256 new entries, each proven to be in that tree; None when all were walked
//! state()         what to store; store it after the entries were dealt with
//! ```

use std::collections::VecDeque;

use futures_util::future::join_all;
use tlog::checkpoint::VerifiedCheckpoint;
use tlog::{BundleId, Error as LogError, SignatureVerifier, TreeHead, VerifierKey, tile::TILE_WIDTH};

use crate::client::LogClient;
use crate::error::{Error, ForkEvidence};
use crate::state::MonitorState;
use crate::tiles::{EntryFormat, VerifiedEntry};

/// Bundles fetched at once while walking.
const BUNDLES_AHEAD: u64 = 8;

/// Looks at entries and names what it recognises.
pub trait Watcher {
    /// Names of what the entry matches; empty for nothing. Called once per entry, in order.
    fn inspect(&mut self, entry: &VerifiedEntry) -> Vec<String>;
}

impl<F: FnMut(&VerifiedEntry) -> Vec<String>> Watcher for F {
    fn inspect(&mut self, entry: &VerifiedEntry) -> Vec<String> {
        self(entry)
    }
}

/// An entry and what a watcher recognised in it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WatchedEntry {
    /// The entry.
    pub entry: VerifiedEntry,
    /// What it matches.
    pub matches: Vec<String>,
}

/// How a log moved since the last look.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Growth {
    /// Head that was known; the empty tree at the first look.
    pub old: TreeHead,
    /// Head that is known now.
    pub new: TreeHead,
}

/// Follows one log.
pub struct Monitor<'a> {
    client: LogClient,
    keys: Vec<VerifierKey>,
    verifier: &'a dyn SignatureVerifier,
    format: EntryFormat,
    known: Option<VerifiedCheckpoint>,
    /// Bundles that were fetched and proven but not yet walked, in order; an error is the last one.
    ahead: VecDeque<Result<Vec<VerifiedEntry>, Error>>,
    state: MonitorState,
}

impl<'a> Monitor<'a> {
    /// Continues from a state. The remembered checkpoint is verified again.
    ///
    /// # Errors
    /// As [`VerifiedCheckpoint::open`] for a remembered checkpoint that the keys do not verify;
    /// [`LogError::IndexOutOfRange`] when more entries were walked than it has.
    pub fn new(
        client: LogClient,
        keys: Vec<VerifierKey>,
        verifier: &'a dyn SignatureVerifier,
        format: EntryFormat,
        state: MonitorState,
    ) -> Result<Self, Error> {
        let known = match state.checkpoint() {
            Some(note) => Some(VerifiedCheckpoint::open(note.as_bytes(), state.origin(), &keys, verifier)?),
            None => None,
        };
        let size = known.as_ref().map_or(0, |checkpoint| checkpoint.head().size);
        if state.walked() > size {
            return Err(LogError::IndexOutOfRange { index: state.walked(), size }.into());
        }
        Ok(Self { client, keys, verifier, format, known, ahead: VecDeque::new(), state })
    }

    /// What to remember.
    #[must_use]
    pub fn state(&self) -> &MonitorState {
        &self.state
    }

    /// The last verified checkpoint.
    #[must_use]
    pub fn checkpoint(&self) -> Option<&VerifiedCheckpoint> {
        self.known.as_ref()
    }

    /// Leaves out entries that were not walked, all but the `newest`: for a reader whom only the latest concern.
    pub fn skip_to_newest(&mut self, newest: u64) {
        let size = self.known.as_ref().map_or(0, |checkpoint| checkpoint.head().size);
        let first = size.saturating_sub(newest);
        if first > self.state.walked() {
            self.state.set_walked(first);
            self.ahead.clear();
        }
    }

    /// Fetches the published checkpoint and proves that it extends the known one, which it then replaces.
    ///
    /// # Errors
    /// [`Error::Fork`] and [`Error::Rollback`] when the log contradicts what it signed before: the known
    /// checkpoint stays. [`LogError::TileMismatch`] or [`LogError::RootMismatch`] when the log serves tiles that
    /// are not of the tree it signed. Otherwise as [`LogClient::checkpoint`].
    pub async fn update(&mut self) -> Result<Growth, Error> {
        let served = self.client.checkpoint(self.state.origin(), &self.keys, self.verifier).await?;
        let new = *served.head();
        let old = match &self.known {
            Some(known) => {
                self.compare(known, &served).await?;
                *known.head()
            }
            None => TreeHead::EMPTY,
        };
        self.state.set_checkpoint(served.note().to_string());
        self.known = Some(served);
        Ok(Growth { old, new })
    }

    /// The next entries of the known tree, at most one bundle of them; `None` when all were walked.
    ///
    /// The state moves on: store it after the entries were dealt with, not before.
    ///
    /// # Errors
    /// As [`RemoteTree::entries`](crate::RemoteTree::entries). The state does not move then.
    pub async fn next_entries(
        &mut self,
        watcher: &mut (dyn Watcher + Send),
    ) -> Result<Option<Vec<WatchedEntry>>, Error> {
        let Some(known) = &self.known else { return Ok(None) };
        let head = *known.head();
        let walked = self.state.walked();
        if walked >= head.size {
            return Ok(None);
        }
        if self.ahead.is_empty() {
            self.fetch_ahead(head, walked).await;
        }
        let Some(entries) = self.ahead.pop_front().transpose()? else { return Ok(None) };
        let new: Vec<WatchedEntry> = entries
            .into_iter()
            .filter(|entry| entry.index >= walked)
            .map(|entry| WatchedEntry { matches: watcher.inspect(&entry), entry })
            .collect();
        self.state.set_walked(new.last().map_or(walked, |last| last.entry.index + 1));
        Ok(Some(new))
    }

    /// Fetches the next bundles in parallel, up to the first that cannot be had.
    async fn fetch_ahead(&mut self, head: TreeHead, walked: u64) {
        let first = walked / u64::from(TILE_WIDTH);
        let bundles = (first..first + BUNDLES_AHEAD).map_while(|index| BundleId::in_tree(index, head.size));
        let tree = self.client.tree(head);
        let format = self.format;
        for fetched in join_all(bundles.map(|bundle| tree.entries(bundle, format))).await {
            let failed = fetched.is_err();
            self.ahead.push_back(fetched);
            if failed {
                break;
            }
        }
    }

    async fn compare(&self, known: &VerifiedCheckpoint, served: &VerifiedCheckpoint) -> Result<(), Error> {
        let (old, new) = (*known.head(), *served.head());
        let fork = || Error::Fork {
            known: old,
            served: new,
            evidence: Box::new(ForkEvidence {
                known: known.note().to_bytes(),
                served: served.note().to_bytes(),
            }),
        };
        if new.size < old.size {
            // The known tree says what its beginning must be. When its tiles cannot be had any more, going back
            // is all that can be said.
            return match self.client.tree(old).head_at(new.size).await {
                Ok(beginning) if beginning != new => Err(fork()),
                _ => Err(Error::Rollback { known: old, served: new }),
            };
        }
        if new.size == old.size {
            return if new.root == old.root { Ok(()) } else { Err(fork()) };
        }
        // From tiles that are proven to be of the new tree: if the old head is not its beginning, the log signed
        // two histories.
        let beginning = self.client.tree(new).head_at(old.size).await?;
        if beginning == old { Ok(()) } else { Err(fork()) }
    }
}

//! The index of a log that is not running: compared with its entries, and made anew.

use std::path::Path;

use log_store::LogKind;
use service::StartRefusal;
use tlog::hash::TreeHead;

use super::index_file::{Covered, IndexError, IndexFile, Opening, TermSum, Verification};
use crate::terms::{self, Term};

/// Compares the index of a log that is not running with its entries.
#[derive(Debug)]
pub(crate) struct IndexCheck {
    file: IndexFile,
    covered: Covered,
    kind: LogKind,
    /// What the terms of the entries add up to.
    sum: TermSum,
    entries: u64,
}

impl IndexCheck {
    /// Opens the index file, if there is one that covers anything; nothing is changed.
    pub(crate) async fn begin(path: &Path, kind: LogKind) -> Result<Option<Self>, IndexError> {
        if !path.exists() {
            return Ok(None);
        }
        let file = IndexFile::open(path, Opening::Read).await?;
        let Some(covered) = file.covered().await? else { return Ok(None) };
        Ok(Some(Self { file, covered, kind, sum: TermSum::default(), entries: 0 }))
    }

    /// Takes the next entry of the log.
    pub(crate) fn add(&mut self, index: u64, stored: &[u8]) {
        self.entries = self.entries.max(index.saturating_add(1));
        if index < self.covered.size {
            // Only a number that no log reaches is refused.
            let _ = self.sum.add_entry(index, terms::terms(self.kind, stored));
        }
    }

    /// Reads the index.
    ///
    /// # Errors
    /// [`IndexError::Damaged`] when it does not have exactly their terms.
    pub(crate) async fn finish(self) -> Result<Compared, IndexError> {
        let size = self.covered.size;
        let checked = match self.covered.terms {
            _ if size > self.entries => Err(IndexError::Damaged(format!(
                "it covers {size} entries, and the log has {}",
                self.entries
            ))),
            None => Ok(Compared::OtherVersion),
            Some(sum) if sum != self.sum => {
                Err(IndexError::Damaged("its sum is not that of the entries' terms".to_owned()))
            }
            Some(sum) => {
                Verification::new(size, sum).finish(&self.file).await.map(|()| Compared::Equal(size))
            }
        };
        self.file.close().await;
        checked
    }
}

/// What came of comparing an index with the entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compared {
    /// It has exactly the terms of so many entries.
    Equal(u64),
    /// It was made by a version that indexed other things: the server makes it anew at its next start.
    OtherVersion,
}

/// A new index file that is filled from the first entry on.
#[derive(Debug)]
pub(crate) struct Rebuild {
    file: IndexFile,
    pending: Vec<(u64, Vec<Term>)>,
    sum: TermSum,
}

impl Rebuild {
    /// Makes the file, which must not exist.
    pub(crate) async fn begin(path: &Path) -> Result<Self, StartRefusal> {
        let file = IndexFile::open(path, Opening::New).await.map_err(|error| {
            StartRefusal::new(format!("cannot make {}", path.display()), "check the folder's permissions")
                .because(error)
        })?;
        Ok(Self { file, pending: Vec::new(), sum: TermSum::default() })
    }

    /// Takes the terms of the next entry.
    pub(crate) fn add(&mut self, index: u64, terms: Vec<Term>) {
        self.pending.push((index, terms));
    }

    /// Writes what was added.
    pub(crate) async fn flush(&mut self) -> Result<(), IndexError> {
        self.sum = self.file.insert(std::mem::take(&mut self.pending), self.sum, None).await?;
        Ok(())
    }

    /// Writes the rest and what the index covers.
    pub(crate) async fn finish(self, tree: &TreeHead) -> Result<(), IndexError> {
        self.file.insert(self.pending, self.sum, Some(tree)).await?;
        self.file.close().await;
        Ok(())
    }
}

//! Consistency proofs (RFC 6962 section 2.1.2, RFC 9162 section 2.1.4).

use alloc::vec::Vec;

use crate::error::Error;
use crate::hash::{EMPTY_ROOT, Hash, MAX_SIZE, TreeHead};
use crate::node::{NodeReader, read_intervals};
use crate::path::Path;

/// The hashes that show a newer tree to be an extension of an older one.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ConsistencyProof {
    /// Hashes from the leaf side to the root side. Empty when a size is 0 or both are equal.
    pub path: Vec<Hash>,
}

impl ConsistencyProof {
    /// Proves that the tree `new` begins with all leaves of the tree `old`.
    ///
    /// The empty tree is a prefix of every tree and equal sizes need equal roots; both take an empty proof.
    ///
    /// # Errors
    /// [`Error::ConsistencySizes`], [`Error::SizeTooLarge`], [`Error::ProofLength`] before any hashing;
    /// [`Error::RootMismatch`] when one of the two roots is not reached.
    pub fn verify(&self, old: &TreeHead, new: &TreeHead) -> Result<(), Error> {
        check_sizes(old.size, new.size)?;
        for head in [old, new] {
            if head.size == 0 && head.root != EMPTY_ROOT {
                return Err(Error::RootMismatch { head: *head });
            }
        }
        if old.size == 0 || old.size == new.size {
            if !self.path.is_empty() {
                return Err(Error::ProofLength { expected: 0, actual: self.path.len() });
            }
            if old.size == new.size && old.root != new.root {
                return Err(Error::RootMismatch { head: *new });
            }
            return Ok(());
        }
        Path::new(0, old.size, new.size)?.verify(&old.root, &self.path, new)
    }

    /// Builds the proof between two sizes of one tree. Asks the reader exactly once.
    ///
    /// # Errors
    /// [`Error::ConsistencySizes`] or [`Error::SizeTooLarge`] as `R::Error`, and whatever the reader reports.
    pub fn build<R: NodeReader + ?Sized>(old: u64, new: u64, reader: &R) -> Result<Self, R::Error> {
        check_sizes(old, new)?;
        if old == 0 || old == new {
            return Ok(Self::default());
        }
        let path = Path::new(0, old, new)?;
        Ok(Self { path: read_intervals(path.intervals(), reader)? })
    }
}

pub(crate) fn check_sizes(old: u64, new: u64) -> Result<(), Error> {
    if new > MAX_SIZE {
        return Err(Error::SizeTooLarge { value: new });
    }
    if old > new {
        return Err(Error::ConsistencySizes { old, new });
    }
    Ok(())
}

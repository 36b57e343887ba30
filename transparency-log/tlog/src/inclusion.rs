//! Inclusion proofs (RFC 6962 section 2.1.1, RFC 9162 section 2.1.3).

use alloc::vec::Vec;

use crate::error::Error;
use crate::hash::{Hash, LeafHash, TreeHead};
use crate::node::{NodeReader, read_intervals};
use crate::path::Path;

/// The hashes that lead from a leaf to the root.
///
/// The path alone does not fix the tree size (several sizes share a shape): verify it against a head from a
/// verified checkpoint only.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct InclusionProof {
    /// Index of the leaf.
    pub leaf_index: u64,
    /// Sibling hashes from the leaf side to the root side.
    pub path: Vec<Hash>,
}

/// A leaf that was proven to be in a tree; only [`InclusionProof::verify`] makes one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub struct VerifiedInclusion {
    leaf: LeafHash,
    leaf_index: u64,
    head: TreeHead,
}

impl VerifiedInclusion {
    /// The leaf that is included.
    #[must_use]
    pub fn leaf(&self) -> &LeafHash {
        &self.leaf
    }

    /// Its index.
    #[must_use]
    pub fn leaf_index(&self) -> u64 {
        self.leaf_index
    }

    /// The tree it is included in.
    #[must_use]
    pub fn head(&self) -> &TreeHead {
        &self.head
    }
}

impl InclusionProof {
    /// Proves that `leaf` stands at `leaf_index` of the tree with head `head`.
    ///
    /// # Errors
    /// [`Error::IndexOutOfRange`], [`Error::SizeTooLarge`], [`Error::ProofLength`] before any hashing;
    /// [`Error::RootMismatch`] when the path leads elsewhere.
    pub fn verify(&self, leaf: &LeafHash, head: &TreeHead) -> Result<VerifiedInclusion, Error> {
        inclusion_path(self.leaf_index, head.size)?.verify(&leaf.hash(), &self.path, head)?;
        Ok(VerifiedInclusion { leaf: *leaf, leaf_index: self.leaf_index, head: *head })
    }

    /// Builds the proof for a leaf of the tree with `size` leaves. Asks the reader exactly once.
    ///
    /// # Errors
    /// [`Error::IndexOutOfRange`] or [`Error::SizeTooLarge`] as `R::Error`, and whatever the reader reports.
    pub fn build<R: NodeReader + ?Sized>(leaf_index: u64, size: u64, reader: &R) -> Result<Self, R::Error> {
        let path = inclusion_path(leaf_index, size)?;
        Ok(Self { leaf_index, path: read_intervals(path.intervals(), reader)? })
    }
}

pub(crate) fn inclusion_path(index: u64, size: u64) -> Result<Path, Error> {
    if index >= size {
        return Err(Error::IndexOutOfRange { index, size });
    }
    Path::new(index, index.saturating_add(1), size)
}

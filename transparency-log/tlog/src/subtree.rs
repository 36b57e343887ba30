//! Subtrees and their consistency proofs (Merkle Tree Certificates draft sections 4.1 and 4.4).
//!
//! A subtree is the part of a log that a mirror package or a `sign-subtree` request speaks of.

use alloc::vec::Vec;

use crate::error::Error;
use crate::hash::{EMPTY_ROOT, Hash, MAX_SIZE, TreeHead};
use crate::node::{NodeReader, read_intervals};
use crate::path::Path;

/// An interval of leaves that a log can prove as one hash.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Subtree {
    start: u64,
    end: u64,
}

impl Subtree {
    /// `[start, end)`, when `start` is a multiple of the smallest power of two that holds `end - start` leaves.
    ///
    /// # Errors
    /// [`Error::InvalidSubtree`] otherwise, [`Error::SizeTooLarge`] when `end` is above 2^63-1.
    pub fn new(start: u64, end: u64) -> Result<Self, Error> {
        if end > MAX_SIZE {
            return Err(Error::SizeTooLarge { value: end });
        }
        let invalid = Error::InvalidSubtree { start, end, size: end };
        let length = end.checked_sub(start).ok_or_else(|| invalid.clone())?;
        // At most 2^63 for a length of at most 2^63-1: no overflow.
        if start & (length.next_power_of_two() - 1) != 0 {
            return Err(invalid);
        }
        Ok(Self { start, end })
    }

    /// First leaf.
    #[must_use]
    pub fn start(&self) -> u64 {
        self.start
    }

    /// One past the last leaf.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.end
    }

    /// True when the subtree holds no leaf.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// One or two subtrees that together cover every leaf of `[start, end)` (section 4.5). The first one may
    /// begin before `start`.
    ///
    /// # Errors
    /// [`Error::InvalidSubtree`] for an empty or reversed interval, [`Error::SizeTooLarge`] above 2^63-1.
    pub fn covering(start: u64, end: u64) -> Result<Vec<Self>, Error> {
        if end > MAX_SIZE {
            return Err(Error::SizeTooLarge { value: end });
        }
        if start >= end {
            return Err(Error::InvalidSubtree { start, end, size: end });
        }
        let last = end - 1;
        if start == last {
            return Ok(alloc::vec![Self { start, end }]);
        }
        // The highest bit in which first and last leaf differ names the node at which their paths part.
        let split = u64::BITS - 1 - (start ^ last).leading_zeros();
        let middle = last & (u64::MAX << split);
        // The left part grows downwards to the largest aligned block that still holds `start`.
        let left_length = (middle - start).next_power_of_two();
        Ok(alloc::vec![Self { start: middle - left_length, end: middle }, Self { start: middle, end }])
    }
}

/// The hashes that show a subtree to be part of a tree.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SubtreeProof {
    /// Hashes from the leaf side to the root side.
    pub path: Vec<Hash>,
}

impl SubtreeProof {
    /// Proves that the leaves `subtree` of the tree `head` hash to `hash`.
    ///
    /// # Errors
    /// [`Error::InvalidSubtree`] when the subtree ends beyond the tree, [`Error::ProofLength`] before any
    /// hashing, [`Error::RootMismatch`] when a hash is not reached.
    pub fn verify(&self, subtree: Subtree, hash: &Hash, head: &TreeHead) -> Result<(), Error> {
        let Some(path) = subtree_path(subtree, head.size)? else {
            if !self.path.is_empty() {
                return Err(Error::ProofLength { expected: 0, actual: self.path.len() });
            }
            return if *hash == EMPTY_ROOT { Ok(()) } else { Err(Error::RootMismatch { head: *head }) };
        };
        path.verify(hash, &self.path, head)
    }

    /// Builds the proof for a subtree of the tree with `size` leaves. Asks the reader exactly once.
    ///
    /// # Errors
    /// [`Error::InvalidSubtree`] or [`Error::SizeTooLarge`] as `R::Error`, and whatever the reader reports.
    pub fn build<R: NodeReader + ?Sized>(subtree: Subtree, size: u64, reader: &R) -> Result<Self, R::Error> {
        match subtree_path(subtree, size)? {
            Some(path) => Ok(Self { path: read_intervals(path.intervals(), reader)? }),
            None => Ok(Self::default()),
        }
    }
}

fn subtree_path(subtree: Subtree, size: u64) -> Result<Option<Path>, Error> {
    if subtree.end > size {
        return Err(Error::InvalidSubtree { start: subtree.start, end: subtree.end, size });
    }
    if subtree.is_empty() {
        return Ok(None);
    }
    Path::new(subtree.start, subtree.end, size).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn validity_is_alignment() {
        for (start, end, valid) in [
            (0, 0, true),
            (0, 7, true),
            (5, 5, true),
            (4, 6, true),
            (4, 8, true),
            (4, 9, false),
            (8, 13, true),
            (3, 4, true),
            (3, 5, false),
            (2, 1, false),
            (0, MAX_SIZE, true),
            (1, MAX_SIZE, false),
        ] {
            assert_eq!(Subtree::new(start, end).is_ok(), valid, "[{start}, {end})");
        }
    }

    #[test]
    fn two_subtrees_cover_every_interval() {
        for end in 1..70u64 {
            for start in 0..end {
                let cover = Subtree::covering(start, end).unwrap();
                assert!(cover.len() <= 2);
                for part in &cover {
                    assert_eq!(Subtree::new(part.start, part.end).as_ref(), Ok(part));
                    assert!(!part.is_empty());
                }
                assert!(cover[0].start <= start);
                assert_eq!(cover.last().unwrap().end, end);
                if let [left, right] = cover.as_slice() {
                    assert_eq!(left.end, right.start);
                }
            }
        }
    }
}

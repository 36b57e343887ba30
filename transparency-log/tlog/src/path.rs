//! The shape of every proof: which siblings lead from a subtree to the root, and on which side they stand.
//!
//! Inclusion proofs, consistency proofs and subtree consistency proofs are one thing seen at three places: the
//! walk from `[start, end)` up to `[0, size)`. An inclusion proof is the walk from `[index, index + 1)`, a
//! consistency proof the walk from `[0, old)`. The walk depends on three numbers only, so the exact number of
//! hashes is known before the first one is looked at.

use crate::error::Error;
use crate::hash::{Hash, MAX_SIZE, TreeHead, node_hash};

/// A proof never has more hashes than a tree of 2^63-1 leaves has levels.
pub const MAX_PROOF_HASHES: usize = 63;

/// Half-open interval of leaves.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Interval {
    pub(crate) start: u64,
    pub(crate) end: u64,
}

/// Where a sibling stands, and for which of the two computed hashes it counts.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Side {
    /// Left sibling, part of the larger tree only.
    Left,
    /// Left sibling, part of the subtree as well.
    LeftOfBoth,
    /// Right sibling, part of the larger tree only.
    #[default]
    Right,
}

#[derive(Clone, Copy, Debug, Default)]
struct Step {
    sibling: Interval,
    side: Side,
}

/// The walk from a subtree to the root.
#[derive(Debug)]
pub(crate) struct Path {
    /// From the root side to the leaf side; proofs list them the other way round.
    steps: [Step; MAX_PROOF_HASHES],
    len: usize,
    /// Set when the walk does not begin at the subtree itself but at this part of it, its first proof hash.
    seed: Option<Interval>,
}

impl Path {
    /// The walk from `[start, end)` to the root of a tree with `size` leaves.
    ///
    /// The caller has checked that the subtree is valid and not empty.
    pub(crate) fn new(start: u64, end: u64, size: u64) -> Result<Self, Error> {
        let invalid = Error::InvalidSubtree { start, end, size };
        if size > MAX_SIZE {
            return Err(Error::SizeTooLarge { value: size });
        }
        if start >= end || end > size {
            return Err(invalid);
        }
        let mut path = Self { steps: [Step::default(); MAX_PROOF_HASHES], len: 0, seed: None };
        let mut node = Interval { start: 0, end: size };
        let mut wanted = Interval { start, end };
        let mut split = false;
        while node != wanted {
            let middle = node.start + largest_power_of_two_below(node.end - node.start);
            let step = if wanted.end <= middle {
                let sibling = Interval { start: middle, end: node.end };
                node.end = middle;
                Step { sibling, side: Side::Right }
            } else if wanted.start >= middle {
                let sibling = Interval { start: node.start, end: middle };
                node.start = middle;
                Step { sibling, side: Side::Left }
            } else if wanted.start == node.start {
                let sibling = Interval { start: node.start, end: middle };
                node.start = middle;
                wanted.start = middle;
                split = true;
                Step { sibling, side: Side::LeftOfBoth }
            } else {
                return Err(invalid);
            };
            *path.steps.get_mut(path.len).ok_or(invalid.clone())? = step;
            path.len += 1;
        }
        path.seed = split.then_some(node);
        Ok(path)
    }

    /// Exact number of hashes in the proof.
    pub(crate) fn proof_len(&self) -> usize {
        self.len + usize::from(self.seed.is_some())
    }

    /// The intervals whose hashes form the proof, in the proof's order.
    pub(crate) fn intervals(&self) -> impl Iterator<Item = Interval> + '_ {
        self.seed.into_iter().chain(self.walk().map(|step| step.sibling))
    }

    /// Verifies a proof that the subtree with hash `subtree` is part of the tree with head `head`.
    pub(crate) fn verify(&self, subtree: &Hash, proof: &[Hash], head: &TreeHead) -> Result<(), Error> {
        let expected = self.proof_len();
        if proof.len() != expected {
            return Err(Error::ProofLength { expected, actual: proof.len() });
        }
        let (seed, siblings) = match (self.seed, proof.split_first()) {
            (Some(_), Some((seed, rest))) => (*seed, rest),
            _ => (*subtree, proof),
        };
        let (mut small, mut large) = (seed, seed);
        for (step, sibling) in self.walk().zip(siblings) {
            match step.side {
                Side::Left => large = node_hash(sibling, &large),
                Side::LeftOfBoth => {
                    small = node_hash(sibling, &small);
                    large = node_hash(sibling, &large);
                }
                Side::Right => large = node_hash(&large, sibling),
            }
        }
        if small == *subtree && large == head.root {
            Ok(())
        } else {
            Err(Error::RootMismatch { head: *head })
        }
    }

    fn walk(&self) -> impl Iterator<Item = &Step> + '_ {
        self.steps.iter().take(self.len).rev()
    }
}

/// The largest power of two strictly below `n`; `n` is at least 2.
pub(crate) fn largest_power_of_two_below(n: u64) -> u64 {
    1 << (u64::BITS - 1 - n.saturating_sub(1).max(1).leading_zeros())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_where_the_rfc_splits() {
        for (n, k) in [(2, 1), (3, 2), (4, 2), (5, 4), (8, 4), (9, 8), (MAX_SIZE, 1 << 62)] {
            assert_eq!(largest_power_of_two_below(n), k, "{n}");
        }
    }

    #[test]
    fn longest_walk_fits() {
        assert_eq!(Path::new(0, 1, MAX_SIZE).unwrap().proof_len(), 63);
        assert_eq!(Path::new(MAX_SIZE - 1, MAX_SIZE, MAX_SIZE).unwrap().proof_len(), 62);
        assert_eq!(Path::new(0, MAX_SIZE - 1, MAX_SIZE).unwrap().proof_len(), 63);
    }

    #[test]
    fn refuses_sizes_above_the_limit() {
        assert_eq!(Path::new(0, 1, MAX_SIZE + 1).unwrap_err().code(), "size_too_large");
    }
}

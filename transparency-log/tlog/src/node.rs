//! Nodes of perfect subtrees, and whoever can hand out their hashes.
//!
//! Every hash that any proof or root of an append-only tree ever needs is a fold over nodes whose subtree is
//! perfect (complete, a power of two wide). Those never change once they exist, so they can be stored, cached
//! and served as tiles.

use alloc::vec::Vec;

use crate::error::Error;
use crate::hash::{EMPTY_ROOT, Hash, LeafHash, MAX_SIZE, TreeHead, node_hash};
use crate::path::Interval;

/// A perfect subtree: `index` counts subtrees of `2^level` leaves from the left.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct NodeId {
    /// Height above the leaves, 0 to 62.
    pub level: u8,
    /// Position within the level.
    pub index: u64,
}

impl NodeId {
    /// The leaf with this index.
    #[must_use]
    pub fn leaf(index: u64) -> Self {
        Self { level: 0, index }
    }

    /// True when all leaves below the node are among the first `size`.
    #[must_use]
    pub fn is_in(&self, size: u64) -> bool {
        u32::from(self.level) < u64::BITS && self.index < size >> self.level
    }
}

/// Hands out hashes of perfect subtrees.
///
/// An implementation MUST return exactly one hash per node asked, in order, and only hashes it trusts: the
/// proofs built from them are not verified again by the builder. It is asked once per proof, with all nodes, so
/// that it may fetch them in parallel.
pub trait NodeReader {
    /// What can go wrong; building adds the errors of this crate.
    type Error: From<Error>;

    /// The hashes of `nodes`, in the same order.
    ///
    /// # Errors
    /// When any of the nodes is not available or not trustworthy.
    fn read(&self, nodes: &[NodeId]) -> Result<Vec<Hash>, Self::Error>;
}

/// The perfect subtrees of `[start, end)` from left to right; `[start, end)` is a valid subtree.
pub(crate) fn perfect_subtrees(interval: Interval) -> impl Iterator<Item = NodeId> {
    let mut position = interval.start;
    core::iter::from_fn(move || {
        let left = interval.end.checked_sub(position).filter(|left| *left > 0)?;
        let level = u64::BITS - 1 - left.leading_zeros();
        let node = NodeId { level: u8::try_from(level).ok()?, index: position >> level };
        position += 1 << level;
        Some(node)
    })
}

/// The nodes whose fold is the root of a tree with `size` leaves, from left (largest) to right.
#[must_use]
pub fn root_nodes(size: u64) -> Vec<NodeId> {
    perfect_subtrees(Interval { start: 0, end: size }).collect()
}

/// Folds hashes of perfect subtrees, from left (largest) to right, to the hash of their union.
#[must_use]
pub fn fold(hashes: &[Hash]) -> Hash {
    hashes.iter().copied().rev().reduce(|right, left| node_hash(&left, &right)).unwrap_or(EMPTY_ROOT)
}

/// Root hash of the tree with `size` leaves. Asks the reader exactly once.
///
/// # Errors
/// [`Error::SizeTooLarge`] as `R::Error`, and whatever the reader reports.
pub fn read_root<R: NodeReader + ?Sized>(size: u64, reader: &R) -> Result<TreeHead, R::Error> {
    if size > MAX_SIZE {
        return Err(Error::SizeTooLarge { value: size }.into());
    }
    Ok(TreeHead { size, root: fold(&read_exactly(&root_nodes(size), reader)?) })
}

/// Hashes of several intervals, with one call to the reader.
pub(crate) fn read_intervals<R: NodeReader + ?Sized>(
    intervals: impl Iterator<Item = Interval>,
    reader: &R,
) -> Result<Vec<Hash>, R::Error> {
    let mut nodes = Vec::new();
    let mut widths = Vec::new();
    for interval in intervals {
        let before = nodes.len();
        nodes.extend(perfect_subtrees(interval));
        widths.push(nodes.len() - before);
    }
    let hashes = read_exactly(&nodes, reader)?;
    let mut rest = hashes.as_slice();
    let mut folded = Vec::with_capacity(widths.len());
    for width in widths {
        let (part, tail) = rest.split_at_checked(width).unwrap_or((rest, &[]));
        folded.push(fold(part));
        rest = tail;
    }
    Ok(folded)
}

fn read_exactly<R: NodeReader + ?Sized>(nodes: &[NodeId], reader: &R) -> Result<Vec<Hash>, R::Error> {
    let hashes = reader.read(nodes)?;
    match nodes.get(hashes.len()) {
        None if hashes.len() == nodes.len() => Ok(hashes),
        missing => {
            let NodeId { level, index } = missing.copied().unwrap_or(NodeId::leaf(0));
            Err(Error::NodeMissing { level, index }.into())
        }
    }
}

/// All perfect subtrees of a tree in memory: 64 bytes per leaf. For small logs, tests and right edges; a log
/// server reads tiles instead.
#[derive(Clone, Debug, Default)]
pub struct MemoryTree {
    levels: Vec<Vec<Hash>>,
}

impl MemoryTree {
    /// The tree without leaves.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of leaves.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.levels.first().map_or(0, |leaves| leaves.len() as u64)
    }

    /// Appends a leaf and returns its index.
    pub fn push(&mut self, leaf: LeafHash) -> u64 {
        let index = self.size();
        let mut hash = leaf.hash();
        for level in 0.. {
            if self.levels.len() == level {
                self.levels.push(Vec::new());
            }
            let Some(nodes) = self.levels.get_mut(level) else { break };
            nodes.push(hash);
            let [.., left, right] = nodes.as_slice() else { break };
            if nodes.len() % 2 != 0 {
                break;
            }
            hash = node_hash(left, right);
        }
        index
    }

    /// Size and root of the tree as it was when it had `size` leaves.
    ///
    /// # Errors
    /// [`Error::NodeMissing`] when it never had so many.
    pub fn head_at(&self, size: u64) -> Result<TreeHead, Error> {
        read_root(size, self)
    }

    /// Size and root.
    #[must_use]
    pub fn head(&self) -> TreeHead {
        self.head_at(self.size()).unwrap_or(TreeHead::EMPTY)
    }

    /// The leaf hash at `index`, if there is one.
    #[must_use]
    pub fn leaf(&self, index: u64) -> Option<LeafHash> {
        self.node(NodeId::leaf(index)).map(LeafHash::from_stored)
    }

    /// The hash of a perfect subtree, if the tree has it.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<Hash> {
        self.levels.get(usize::from(id.level))?.get(usize::try_from(id.index).ok()?).copied()
    }
}

impl Extend<LeafHash> for MemoryTree {
    fn extend<I: IntoIterator<Item = LeafHash>>(&mut self, leaves: I) {
        for leaf in leaves {
            self.push(leaf);
        }
    }
}

impl NodeReader for MemoryTree {
    type Error = Error;

    fn read(&self, nodes: &[NodeId]) -> Result<Vec<Hash>, Error> {
        nodes
            .iter()
            .map(|id| self.node(*id).ok_or(Error::NodeMissing { level: id.level, index: id.index }))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decomposes_like_binary() {
        let nodes = root_nodes(13);
        let ids = [(3, 0), (2, 2), (0, 12)].map(|(level, index)| NodeId { level, index });
        assert_eq!(nodes, ids);
        assert!(root_nodes(0).is_empty());
        assert_eq!(root_nodes(MAX_SIZE).len(), 63);
    }

    #[test]
    fn empty_tree_has_the_empty_root() {
        assert_eq!(MemoryTree::new().head(), TreeHead::EMPTY);
        assert_eq!(MemoryTree::new().head_at(1), Err(Error::NodeMissing { level: 0, index: 0 }));
    }
}

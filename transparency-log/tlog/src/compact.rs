//! The compact range: all a writer must remember of a tree to append to it.
//!
//! At most 63 hashes, one per set bit of the size, largest subtree first. Appending costs one node hash per leaf
//! on average and allocates nothing after the first few leaves.

use alloc::vec::Vec;

use crate::error::Error;
use crate::hash::{Hash, LeafHash, MAX_SIZE, TreeHead, node_hash};
use crate::node::{NodeId, NodeReader, fold, root_nodes};

/// The right edge of a tree: the hashes of its perfect subtrees from left to right.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct CompactRange {
    size: u64,
    hashes: Vec<Hash>,
}

impl CompactRange {
    /// The tree without leaves.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Restores a range from [`size`](Self::size) and [`hashes`](Self::hashes). Compare [`head`](Self::head)
    /// with a trusted head before appending.
    ///
    /// # Errors
    /// [`Error::SizeTooLarge`], or [`Error::ProofLength`] unless there is one hash per set bit of `size`.
    pub fn from_parts(size: u64, hashes: Vec<Hash>) -> Result<Self, Error> {
        if size > MAX_SIZE {
            return Err(Error::SizeTooLarge { value: size });
        }
        let expected = size.count_ones() as usize;
        if hashes.len() != expected {
            return Err(Error::ProofLength { expected, actual: hashes.len() });
        }
        Ok(Self { size, hashes })
    }

    /// Reads the range of the tree with `size` leaves. Asks the reader exactly once.
    ///
    /// # Errors
    /// [`Error::SizeTooLarge`] or [`Error::ProofLength`] as `R::Error`, and whatever the reader reports.
    pub fn load<R: NodeReader + ?Sized>(size: u64, reader: &R) -> Result<Self, R::Error> {
        if size > MAX_SIZE {
            return Err(Error::SizeTooLarge { value: size }.into());
        }
        Ok(Self::from_parts(size, reader.read(&root_nodes(size))?)?)
    }

    /// Number of leaves.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Hashes of the perfect subtrees, from left (largest) to right.
    #[must_use]
    pub fn hashes(&self) -> &[Hash] {
        &self.hashes
    }

    /// Appends one leaf.
    pub fn push(&mut self, leaf: LeafHash) {
        self.push_with(leaf, |_, _| {});
    }

    /// Appends one leaf and tells `completed` of every node that the leaf completes, from the leaf upwards: a
    /// writer of tiles needs no other source.
    pub fn push_with(&mut self, leaf: LeafHash, completed: impl FnMut(NodeId, Hash)) {
        self.merge(0, leaf.hash(), completed);
    }

    /// Appends a perfect subtree of `2^level` leaves, such as a full tile with its root hash.
    ///
    /// # Errors
    /// [`Error::InvalidSubtree`] unless the size is a multiple of `2^level`; [`Error::SizeTooLarge`] when the
    /// tree would grow beyond 2^63-1 leaves.
    pub fn push_subtree(&mut self, level: u8, hash: Hash) -> Result<(), Error> {
        let width = 1u64.checked_shl(u32::from(level)).unwrap_or(u64::MAX);
        let end = self.size.saturating_add(width);
        if end > MAX_SIZE {
            return Err(Error::SizeTooLarge { value: end });
        }
        if self.size & (width - 1) != 0 {
            return Err(Error::InvalidSubtree { start: self.size, end, size: end });
        }
        self.merge(level, hash, |_, _| {});
        Ok(())
    }

    /// Size and root hash.
    #[must_use]
    pub fn head(&self) -> TreeHead {
        TreeHead { size: self.size, root: self.root() }
    }

    /// Root hash.
    #[must_use]
    pub fn root(&self) -> Hash {
        fold(&self.hashes)
    }

    fn merge(&mut self, level: u8, hash: Hash, mut completed: impl FnMut(NodeId, Hash)) {
        let mut node = NodeId { level, index: self.size >> level };
        let mut hash = hash;
        completed(node, hash);
        while node.index & 1 == 1 {
            let Some(left) = self.hashes.pop() else { break };
            hash = node_hash(&left, &hash);
            node = NodeId { level: node.level + 1, index: node.index >> 1 };
            completed(node, hash);
        }
        self.hashes.push(hash);
        self.size += 1 << level;
    }
}

impl Extend<LeafHash> for CompactRange {
    fn extend<I: IntoIterator<Item = LeafHash>>(&mut self, leaves: I) {
        for leaf in leaves {
            self.push(leaf);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::leaf_hash;
    use crate::node::MemoryTree;

    #[test]
    fn agrees_with_the_tree_in_memory_at_every_size() {
        let (mut range, mut tree) = (CompactRange::new(), MemoryTree::new());
        for i in 0..300u32 {
            assert_eq!(range.head(), tree.head());
            assert_eq!(CompactRange::load(tree.size(), &tree), Ok(range.clone()));
            assert_eq!(CompactRange::from_parts(range.size(), range.hashes().to_vec()).as_ref(), Ok(&range));
            let leaf = leaf_hash(&i.to_be_bytes());
            tree.push(leaf);
            range.push_with(leaf, |id, hash| assert_eq!(tree.node(id), Some(hash)));
        }
    }

    #[test]
    fn subtrees_append_like_their_leaves() {
        let tree = {
            let mut tree = MemoryTree::new();
            tree.extend((0..24u8).map(|i| leaf_hash(&[i])));
            tree
        };
        let mut range = CompactRange::new();
        range.push_subtree(4, tree.node(NodeId { level: 4, index: 0 }).unwrap()).unwrap();
        range.push_subtree(3, tree.node(NodeId { level: 3, index: 2 }).unwrap()).unwrap();
        assert_eq!(range.head(), tree.head());
        assert_eq!(range.push_subtree(4, range.root()).unwrap_err().code(), "invalid_subtree");
        assert_eq!(range.push_subtree(63, range.root()).unwrap_err().code(), "size_too_large");
    }

    #[test]
    fn refuses_a_wrong_number_of_hashes() {
        let wrong = CompactRange::from_parts(5, alloc::vec![Hash([0; 32])]);
        assert_eq!(wrong, Err(Error::ProofLength { expected: 2, actual: 1 }));
    }
}

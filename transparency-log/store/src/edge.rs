//! The right edge of the tree, as tiles: what the sequencer extends and what readers see of it.
//!
//! [`TileNodes`] holds a tile's hashes together with all nodes above them inside the tile, so that a proof looks its
//! hashes up instead of computing them. [`Edge`] is one partial tile per level. It is grown from the bytes that are
//! about to be stored and so is the second, independent way to the root; the first is `tlog`'s compact range.

use std::sync::Arc;

use bytes::Bytes;
use tlog::hash::{Hash, LeafHash, node_hash};
use tlog::node::{NodeId, NodeReader};

const WIDTH: usize = 256;
const ROWS: usize = 9;
const NODES: usize = 2 * WIDTH - 1;

/// A tile and its inner nodes. Row 0 are the items, row 8 the root of a full tile.
#[derive(Debug, Clone)]
pub(crate) struct TileNodes {
    width: usize,
    nodes: Vec<Hash>,
}

impl TileNodes {
    /// A tile without items.
    pub(crate) fn empty() -> Self {
        Self { width: 0, nodes: vec![Hash([0; 32]); NODES] }
    }

    /// Reads a tile's bytes; `None` unless they are 1 to 256 whole hashes.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (items, rest) = bytes.as_chunks::<32>();
        if items.is_empty() || items.len() > WIDTH || !rest.is_empty() {
            return None;
        }
        let mut tile = Self::empty();
        for item in items {
            tile.push(Hash(*item));
        }
        Some(tile)
    }

    /// Adds an item and the nodes it completes; returns the root when the tile is full.
    pub(crate) fn push(&mut self, item: Hash) -> Option<Hash> {
        let (mut place, mut hash) = (self.width, item);
        self.set(0, place, hash);
        self.width += 1;
        for row in 1..ROWS {
            if place.is_multiple_of(2) {
                return None;
            }
            hash = node_hash(&self.get(row - 1, place - 1)?, &hash);
            place /= 2;
            self.set(row, place, hash);
        }
        Some(hash)
    }

    /// Node `place` of `row`, if the tile has it.
    pub(crate) fn node(&self, row: usize, place: usize) -> Option<Hash> {
        if row < ROWS && place < self.width >> row { self.get(row, place) } else { None }
    }

    /// The root of a full tile.
    pub(crate) fn root(&self) -> Option<Hash> {
        self.node(ROWS - 1, 0)
    }

    /// The first `width` items as bytes, if there are so many.
    pub(crate) fn bytes(&self, width: usize) -> Option<Bytes> {
        if width > self.width {
            return None;
        }
        let mut bytes = Vec::with_capacity(width * 32);
        for item in self.nodes.get(..width)? {
            bytes.extend_from_slice(item.as_bytes());
        }
        Some(bytes.into())
    }

    /// Rows are laid out one behind the other: 256 items, 128 nodes, 64, ...
    fn offset(row: usize, place: usize) -> usize {
        2 * WIDTH - ((2 * WIDTH) >> row) + place
    }

    fn get(&self, row: usize, place: usize) -> Option<Hash> {
        self.nodes.get(Self::offset(row, place)).copied()
    }

    fn set(&mut self, row: usize, place: usize, hash: Hash) {
        if let Some(node) = self.nodes.get_mut(Self::offset(row, place)) {
            *node = hash;
        }
    }
}

/// A tile that became full.
#[derive(Debug, Clone)]
pub(crate) struct FullTile {
    /// Tile level: 0 holds leaf hashes.
    pub(crate) level: u8,
    /// Position within the level.
    pub(crate) index: u64,
    /// Content.
    pub(crate) nodes: Arc<TileNodes>,
}

/// The partial tiles of a tree, one per level. Cloning shares them.
#[derive(Debug, Clone)]
pub(crate) struct Edge {
    size: u64,
    tiles: Vec<Arc<TileNodes>>,
}

impl Edge {
    pub(crate) fn empty() -> Self {
        Self { size: 0, tiles: vec![Arc::new(TileNodes::empty())] }
    }

    /// Restores the edge of a tree of `tiles` full level-0 tiles, given the partial tiles of levels 1 and up.
    pub(crate) fn from_levels(full_tiles: u64, levels: Vec<TileNodes>) -> Self {
        let mut tiles = vec![Arc::new(TileNodes::empty())];
        tiles.extend(levels.into_iter().map(Arc::new));
        Self { size: full_tiles * WIDTH as u64, tiles }
    }

    /// The edge of the first `size` leaves of a tree.
    pub(crate) fn at<R: NodeReader>(size: u64, nodes: &R) -> Result<Self, R::Error> {
        let mut tiles = Vec::new();
        for level in 0..8_u8 {
            let count = items(size, level);
            if level > 0 && count == 0 {
                break;
            }
            let mut partial = TileNodes::empty();
            for index in count / WIDTH as u64 * WIDTH as u64..count {
                for hash in nodes.read(&[NodeId { level: 8 * level, index }])? {
                    partial.push(hash);
                }
            }
            tiles.push(Arc::new(partial));
        }
        Ok(Self { size, tiles })
    }

    /// Number of leaves.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Adds a leaf; tiles that it fills are appended to `full`, lower levels first.
    pub(crate) fn push(&mut self, leaf: LeafHash, full: &mut Vec<FullTile>) {
        let mut item = leaf.hash();
        let mut index = self.size / WIDTH as u64;
        self.size += 1;
        for level in 0_u8.. {
            if self.tiles.len() <= usize::from(level) {
                self.tiles.push(Arc::new(TileNodes::empty()));
            }
            let Some(tile) = self.tiles.get_mut(usize::from(level)) else { return };
            let Some(root) = Arc::make_mut(tile).push(item) else { return };
            let nodes = std::mem::replace(tile, Arc::new(TileNodes::empty()));
            full.push(FullTile { level, index, nodes });
            item = root;
            index /= WIDTH as u64;
        }
    }

    /// The partial tile of a level and its position; `None` above the top.
    pub(crate) fn partial(&self, level: u8) -> Option<(u64, &Arc<TileNodes>)> {
        let tile = self.tiles.get(usize::from(level))?;
        Some((items(self.size, level) / WIDTH as u64, tile))
    }
}

/// Number of items that a tree of `size` leaves has at a tile level.
pub(crate) fn items(size: u64, level: u8) -> u64 {
    size.checked_shr(8 * u32::from(level)).unwrap_or(0)
}

/// Where a node stands: tile level, tile index, row and place inside the tile.
///
/// The root of a full tile is an item of the level above and is looked up there.
pub(crate) fn locate(node: NodeId) -> (u8, u64, usize, usize) {
    let row = node.level % 8;
    let shift = 8 - u32::from(row);
    let place = usize::try_from(node.index & ((1 << shift) - 1)).unwrap_or(usize::MAX);
    (node.level / 8, node.index >> shift, usize::from(row), place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tlog::hash::leaf_hash;
    use tlog::node::MemoryTree;

    #[test]
    fn every_node_of_the_edge_equals_the_naive_tree() {
        let (mut edge, mut tree, mut full) = (Edge::empty(), MemoryTree::new(), Vec::new());
        for i in 0..1500_u32 {
            let leaf = leaf_hash(&i.to_be_bytes());
            tree.push(leaf);
            edge.push(leaf, &mut full);
        }
        assert_eq!(full.len(), 5);
        for level in 0..11_u8 {
            for index in 0..1500 >> level {
                let id = NodeId { level, index };
                let (tile, number, row, place) = locate(id);
                let nodes = match edge.partial(tile) {
                    Some((at, nodes)) if at == number => nodes.clone(),
                    _ => full.iter().find(|t| t.level == tile && t.index == number).unwrap().nodes.clone(),
                };
                assert_eq!(nodes.node(row, place), tree.node(id), "{id:?}");
            }
        }
    }

    #[test]
    fn bytes_survive_the_round_trip_and_bad_lengths_do_not() {
        let mut tile = TileNodes::empty();
        for i in 0..7_u8 {
            tile.push(Hash([i; 32]));
        }
        let bytes = tile.bytes(7).unwrap();
        assert_eq!(TileNodes::from_bytes(&bytes).unwrap().node(2, 0), tile.node(2, 0));
        assert!(tile.bytes(8).is_none());
        assert!(TileNodes::from_bytes(&bytes[1..]).is_none());
        assert!(TileNodes::from_bytes(&[]).is_none());
        assert!(TileNodes::from_bytes(&[0; 257 * 32]).is_none());
    }
}

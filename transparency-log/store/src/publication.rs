//! A published checkpoint, and reading the tree it covers.

use bytes::Bytes;
use tlog::consistency::ConsistencyProof;
use tlog::hash::{Hash, TreeHead};
use tlog::inclusion::InclusionProof;

use crate::edge::Edge;
use crate::error::Result;
use crate::tile_store::{TileStore, TreeNodes};

/// A checkpoint that readers may see. All tiles of its tree can be served.
#[derive(Debug)]
pub struct Publication {
    pub(crate) tree: TreeHead,
    pub(crate) time_millis: u64,
    pub(crate) note: Bytes,
    /// Lines that were collected beside publication; they are the end of the note then.
    pub(crate) cosignatures: Bytes,
    pub(crate) edge: Edge,
}

impl Publication {
    /// Size and root.
    #[must_use]
    pub fn tree(&self) -> TreeHead {
        self.tree
    }

    /// When it was signed, Unix milliseconds.
    #[must_use]
    pub fn time_millis(&self) -> u64 {
        self.time_millis
    }

    /// The signed note.
    #[must_use]
    pub fn note(&self) -> &Bytes {
        &self.note
    }

    pub(crate) fn inclusion(&self, index: u64, store: &TileStore) -> Result<InclusionProof> {
        Ok(InclusionProof::build(index, self.tree.size, &TreeNodes { edge: &self.edge, store })?)
    }

    pub(crate) fn consistency(&self, old: u64, store: &TileStore) -> Result<ConsistencyProof> {
        Ok(ConsistencyProof::build(old, self.tree.size, &TreeNodes { edge: &self.edge, store })?)
    }

    pub(crate) fn root_at(&self, size: u64, store: &TileStore) -> Result<Hash> {
        Ok(tlog::node::read_root(size, &TreeNodes { edge: &self.edge, store })?.root)
    }
}

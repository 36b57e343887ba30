//! Reading the tree from tiles that nobody trusts until they are checked.
//!
//! A verified head fixes every tile of its tree. The partial tiles of the right edge hash to the root, and the
//! root hash of every full tile is an item of the tile above it. So whoever wants some nodes makes a
//! [`TilePlan`], fetches the plan's tiles in any way (this crate does no I/O, a plan can be served
//! asynchronously), and gets [`VerifiedTiles`] only when all of them belong to the head.
//! [`AuthenticatedTiles`] does the same for a synchronous [`TileReader`].

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::error::Error;
use crate::hash::{Hash, LeafHash, MAX_SIZE, TreeHead};
use crate::node::{NodeId, NodeReader, fold, root_nodes};
use crate::tile::{BundleId, TILE_HEIGHT, TILE_WIDTH, TileId, parse_tile, perfect_root};

/// Fetches tiles; what it returns is checked by the caller.
///
/// `read` MUST return one element per tile asked, in order. A reader that finds a partial tile gone MAY answer
/// with the first bytes of the full one. `save` is called only with tiles that were proven to belong to the
/// tree and only after the whole plan was proven; it is the place for a cache, and its loss costs nothing.
pub trait TileReader {
    /// What can go wrong; reading adds the errors of this crate.
    type Error: From<Error>;

    /// The bytes of the tiles, in the same order.
    ///
    /// # Errors
    /// When a tile cannot be had.
    fn read(&self, tiles: &[TileId]) -> Result<Vec<Vec<u8>>, Self::Error>;

    /// Keeps verified tiles.
    fn save(&self, tiles: &[TileId], data: &[Vec<u8>]) {
        let _ = (tiles, data);
    }
}

/// Which tiles it takes to read certain nodes and to prove that they belong to the tree.
#[derive(Clone, Debug)]
pub struct TilePlan {
    size: u64,
    /// Highest level first, so that every tile comes after the one that vouches for it.
    tiles: Vec<TileId>,
}

impl TilePlan {
    /// A plan for nodes of the tree with `size` leaves.
    ///
    /// # Errors
    /// [`Error::NodeMissing`] when the tree does not have a node, [`Error::SizeTooLarge`].
    pub fn new(size: u64, nodes: &[NodeId]) -> Result<Self, Error> {
        if size > MAX_SIZE {
            return Err(Error::SizeTooLarge { value: size });
        }
        let mut tiles = Vec::new();
        for node in &root_nodes(size) {
            tiles.push(TileId::containing(*node, size).ok_or_else(|| missing(*node))?);
        }
        for node in nodes {
            let mut tile = TileId::containing(*node, size).ok_or_else(|| missing(*node))?;
            tiles.push(tile);
            // Partial tiles are of the right edge; above a full tile there is always another one.
            while tile.is_full() {
                tile = tile.parent_in(size).ok_or_else(|| missing(*node))?;
                tiles.push(tile);
            }
        }
        tiles.sort_unstable_by(|a, b| b.level().cmp(&a.level()).then(a.index().cmp(&b.index())));
        tiles.dedup();
        Ok(Self { size, tiles })
    }

    /// A plan for the leaf hashes of a bundle.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn for_bundle(size: u64, bundle: BundleId) -> Result<Self, Error> {
        Self::new(size, &[NodeId::leaf(bundle.first_entry())])
    }

    /// The tiles to fetch. Partial tiles are exactly those which a tree of this size has.
    #[must_use]
    pub fn tiles(&self) -> &[TileId] {
        &self.tiles
    }

    /// Checks all tiles, given in the order of [`tiles`](Self::tiles), against the head.
    ///
    /// # Errors
    /// [`Error::TileMismatch`] naming a tile that does not belong to the tree; [`Error::RootMismatch`] when it
    /// is the right edge that differs, where no single tile can be blamed, or when the head is of another size.
    pub fn verify(&self, head: &TreeHead, data: &[Vec<u8>]) -> Result<VerifiedTiles, Error> {
        if head.size != self.size {
            return Err(Error::RootMismatch { head: *head });
        }
        let mut verified = VerifiedTiles { head: *head, tiles: BTreeMap::new() };
        for (position, id) in self.tiles.iter().enumerate() {
            let bytes = data.get(position).ok_or_else(|| Error::TileMismatch { path: id.path() })?.as_slice();
            verified.tiles.insert((id.level(), id.index()), parse_tile(*id, bytes)?);
        }
        let edge: Vec<Hash> =
            root_nodes(self.size).into_iter().map(|node| verified.node(node)).collect::<Result<_, _>>()?;
        if fold(&edge) != head.root {
            return Err(Error::RootMismatch { head: *head });
        }
        for id in self.tiles.iter().filter(|id| id.is_full()) {
            let root = verified.items(*id).and_then(perfect_root);
            let promised = id
                .parent_in(self.size)
                .and_then(|parent| verified.items(parent))
                .and_then(|items| items.get(id.place_in_parent()).copied());
            if root.is_none() || root != promised {
                return Err(Error::TileMismatch { path: id.path() });
            }
        }
        Ok(verified)
    }
}

/// Tiles that belong to a head; only [`TilePlan::verify`] makes them.
#[derive(Clone, Debug)]
pub struct VerifiedTiles {
    head: TreeHead,
    tiles: BTreeMap<(u8, u64), Vec<Hash>>,
}

impl VerifiedTiles {
    /// The head they belong to.
    #[must_use]
    pub fn head(&self) -> &TreeHead {
        &self.head
    }

    /// The hash of a perfect subtree whose tile is among these.
    ///
    /// # Errors
    /// [`Error::NodeMissing`].
    pub fn node(&self, id: NodeId) -> Result<Hash, Error> {
        let within = u32::from(id.level % TILE_HEIGHT);
        let per_tile = u32::from(TILE_HEIGHT) - within;
        let items = self.tiles.get(&(id.level / TILE_HEIGHT, id.index >> per_tile));
        let first = ((id.index & ((1 << per_tile) - 1)) << within) as usize;
        items
            .and_then(|items| items.get(first..first + (1 << within)))
            .and_then(perfect_root)
            .ok_or_else(|| missing(id))
    }

    /// A leaf hash whose tile is among these.
    ///
    /// # Errors
    /// [`Error::NodeMissing`].
    pub fn leaf(&self, index: u64) -> Result<LeafHash, Error> {
        self.node(NodeId::leaf(index)).map(LeafHash::from_stored)
    }

    /// All items of a tile, when it is among these.
    #[must_use]
    pub fn items(&self, id: TileId) -> Option<&[Hash]> {
        let items = self.tiles.get(&(id.level(), id.index()))?;
        (items.len() == usize::from(id.width())).then_some(items)
    }

    /// The leaf hashes of a bundle, when its tile is among these.
    #[must_use]
    pub fn bundle_leaves(&self, bundle: BundleId) -> Option<&[Hash]> {
        let items = self.tiles.get(&(0, bundle.index()))?;
        items.get(..usize::from(bundle.width()))
    }
}

impl NodeReader for VerifiedTiles {
    type Error = Error;

    fn read(&self, nodes: &[NodeId]) -> Result<Vec<Hash>, Error> {
        nodes.iter().map(|node| self.node(*node)).collect()
    }
}

/// The tree of a verified head, read through a synchronous [`TileReader`] and checked on the way.
#[derive(Clone, Copy, Debug)]
pub struct AuthenticatedTiles<'a, R: ?Sized> {
    head: TreeHead,
    reader: &'a R,
}

impl<'a, R: TileReader + ?Sized> AuthenticatedTiles<'a, R> {
    /// Reads the tree with this head, which the caller took from a verified checkpoint.
    #[must_use]
    pub fn new(head: TreeHead, reader: &'a R) -> Self {
        Self { head, reader }
    }

    /// The head.
    #[must_use]
    pub fn head(&self) -> &TreeHead {
        &self.head
    }

    /// Fetches, checks and saves the tiles of a plan.
    ///
    /// # Errors
    /// What the reader reports, or as [`TilePlan::verify`].
    pub fn fetch(&self, plan: &TilePlan) -> Result<VerifiedTiles, R::Error> {
        let data = self.reader.read(plan.tiles())?;
        let verified = plan.verify(&self.head, &data)?;
        self.reader.save(plan.tiles(), &data);
        Ok(verified)
    }
}

impl<R: TileReader + ?Sized> NodeReader for AuthenticatedTiles<'_, R> {
    type Error = R::Error;

    fn read(&self, nodes: &[NodeId]) -> Result<Vec<Hash>, R::Error> {
        let verified = self.fetch(&TilePlan::new(self.head.size, nodes)?)?;
        nodes.iter().map(|node| Ok(verified.node(*node)?)).collect()
    }
}

/// Collects the nodes somebody asks for: with it, a proof can be planned before anything is fetched.
///
/// Building a proof with this reader gives hashes of zeros, of no use, and leaves the nodes in
/// [`into_nodes`](Self::into_nodes).
#[derive(Debug, Default)]
pub struct NodeCollector(core::cell::RefCell<Vec<NodeId>>);

impl NodeCollector {
    /// The nodes asked for, in order.
    #[must_use]
    pub fn into_nodes(self) -> Vec<NodeId> {
        self.0.into_inner()
    }
}

impl NodeReader for NodeCollector {
    type Error = Error;

    fn read(&self, nodes: &[NodeId]) -> Result<Vec<Hash>, Error> {
        if let Ok(mut collected) = self.0.try_borrow_mut() {
            collected.extend_from_slice(nodes);
        }
        Ok(alloc::vec![Hash([0; 32]); nodes.len()])
    }
}

fn missing(node: NodeId) -> Error {
    Error::NodeMissing { level: node.level, index: node.index }
}

/// Number of leaves below one full tile of a level: where tiles of that level begin and end.
#[must_use]
pub fn leaves_per_tile(level: u8) -> Option<u64> {
    u64::from(TILE_WIDTH).checked_pow(u32::from(level) + 1).filter(|leaves| *leaves <= MAX_SIZE)
}

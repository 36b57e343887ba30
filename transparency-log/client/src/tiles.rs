//! The tree of a verified checkpoint, read over HTTP and proven tile by tile.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use futures_util::future::try_join_all;
use tlog::tile_reader::NodeCollector;
use tlog::{BundleId, static_ct};
use tlog::{
    ConsistencyProof, EntryBundle, Error as LogError, Hash, InclusionProof, LeafHash, NodeId, TileId,
    TilePlan, TreeHead, VerifiedInclusion, VerifiedTiles, node,
};

use crate::client::LogClient;
use crate::error::Error;

/// Tiles kept per client: at most 8 KiB each.
const CACHED_TILES: usize = 1024;

/// Tiles that were proven to belong to some verified head. A tile's width is part of its name, so within one history
/// its content never changes; whoever finds that a cached tile does not fit asks the log again before he judges.
#[derive(Debug, Default)]
pub(crate) struct TileCache(Mutex<BTreeMap<TileId, Vec<u8>>>);

impl TileCache {
    fn load(&self, id: TileId) -> Option<Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    fn save(&self, id: TileId, bytes: &[u8]) {
        let mut tiles = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if tiles.len() >= CACHED_TILES && !tiles.contains_key(&id) {
            // Keys are ordered by level: the leftmost tile next to the leaves goes, upper levels stay.
            tiles.pop_first();
        }
        tiles.insert(id, bytes.to_vec());
    }
}

/// How a log stores its entries.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EntryFormat {
    /// Entry bundles under `tile/entries/`: the bytes are what the leaf hashes.
    Bundles,
    /// Data tiles of a certificate log under `tile/data/`: the bytes are a
    /// [`DataTileRecord`](tlog::static_ct::DataTileRecord), from which the leaf is derived.
    DataTiles,
}

/// An entry that was proven to be in the tree.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct VerifiedEntry {
    /// Its index.
    pub index: u64,
    /// Its leaf hash.
    pub leaf: LeafHash,
    /// Its bytes; see [`EntryFormat`] for what they are.
    pub bytes: Vec<u8>,
}

/// The tree with one verified head.
#[derive(Clone, Copy, Debug)]
pub struct RemoteTree<'a> {
    client: &'a LogClient,
    head: TreeHead,
}

impl LogClient {
    /// The tree with this head, which must come from a verified checkpoint.
    #[must_use]
    pub fn tree(&self, head: TreeHead) -> RemoteTree<'_> {
        RemoteTree { client: self, head }
    }
}

impl RemoteTree<'_> {
    /// The head.
    #[must_use]
    pub fn head(&self) -> &TreeHead {
        &self.head
    }

    /// Fetches the tiles of a plan in parallel and proves that they belong to the tree.
    ///
    /// # Errors
    /// Transport errors, and as [`TilePlan::verify`].
    pub async fn fetch(&self, plan: &TilePlan) -> Result<VerifiedTiles, Error> {
        let cached: Vec<Option<Vec<u8>>> =
            plan.tiles().iter().map(|id| self.client.cache().load(*id)).collect();
        let from_cache = cached.iter().any(Option::is_some);
        match self.fetch_with(plan, cached).await {
            // The cache may remember another history: what the log serves now decides whether this one fits.
            Err(Error::Log(_)) if from_cache => self.fetch_with(plan, vec![None; plan.tiles().len()]).await,
            fetched => fetched,
        }
    }

    async fn fetch_with(
        &self,
        plan: &TilePlan,
        cached: Vec<Option<Vec<u8>>>,
    ) -> Result<VerifiedTiles, Error> {
        let data = try_join_all(plan.tiles().iter().zip(cached).map(async |(id, cached)| match cached {
            Some(bytes) => Ok::<_, Error>(bytes),
            None => Ok(self.client.tile(*id).await?.to_vec()),
        }))
        .await?;
        let tiles = plan.verify(&self.head, &data)?;
        plan.tiles().iter().zip(&data).for_each(|(id, bytes)| self.client.cache().save(*id, bytes));
        Ok(tiles)
    }

    /// Root of the tree when it had `size` leaves, computed from this tree.
    ///
    /// # Errors
    /// As [`fetch`](Self::fetch); [`LogError::ConsistencySizes`] when `size` is larger than the tree.
    pub async fn head_at(&self, size: u64) -> Result<TreeHead, Error> {
        if size > self.head.size {
            return Err(LogError::ConsistencySizes { old: size, new: self.head.size }.into());
        }
        let nodes = node::root_nodes(size);
        let tiles = self.fetch(&TilePlan::new(self.head.size, &nodes)?).await?;
        Ok(node::read_root(size, &tiles)?)
    }

    /// The inclusion proof of an index, made from authenticated tiles, with the leaf hash found there.
    ///
    /// # Errors
    /// [`LogError::IndexOutOfRange`], and as [`fetch`](Self::fetch).
    pub async fn inclusion_proof(&self, index: u64) -> Result<(InclusionProof, VerifiedInclusion), Error> {
        let collector = NodeCollector::default();
        InclusionProof::build(index, self.head.size, &collector)?;
        let mut nodes = collector.into_nodes();
        nodes.push(NodeId::leaf(index));
        let tiles = self.fetch(&TilePlan::new(self.head.size, &nodes)?).await?;
        let proof = InclusionProof::build(index, self.head.size, &tiles)?;
        let verified = proof.verify(&tiles.leaf(index)?, &self.head)?;
        Ok((proof, verified))
    }

    /// The consistency proof from an older head to this one, made from authenticated tiles and verified.
    ///
    /// # Errors
    /// [`LogError::RootMismatch`] when the older head is not of this history; [`LogError::ConsistencySizes`];
    /// and as [`fetch`](Self::fetch).
    pub async fn consistency_proof(&self, old: &TreeHead) -> Result<ConsistencyProof, Error> {
        let collector = NodeCollector::default();
        ConsistencyProof::build(old.size, self.head.size, &collector)?;
        let nodes = collector.into_nodes();
        let proof = if nodes.is_empty() {
            ConsistencyProof::default()
        } else {
            let tiles = self.fetch(&TilePlan::new(self.head.size, &nodes)?).await?;
            ConsistencyProof::build(old.size, self.head.size, &tiles)?
        };
        proof.verify(old, &self.head)?;
        Ok(proof)
    }

    /// The entries of one bundle, each proven to be in the tree.
    ///
    /// # Errors
    /// [`LogError::TileMismatch`] when an entry is not the one the tree commits to; [`LogError::Malformed`]; and
    /// as [`fetch`](Self::fetch).
    pub async fn entries(&self, bundle: BundleId, format: EntryFormat) -> Result<Vec<VerifiedEntry>, Error> {
        let plan = TilePlan::for_bundle(self.head.size, bundle)?;
        let content = async {
            match format {
                EntryFormat::Bundles => self.client.bundle(bundle).await,
                EntryFormat::DataTiles => self.client.data_tile(bundle).await,
            }
        };
        let (tiles, (served, bytes)) = futures_util::try_join!(self.fetch(&plan), content)?;
        let mismatch = || LogError::TileMismatch { path: bundle.to_string() };
        let leaves = tiles.bundle_leaves(bundle).ok_or_else(mismatch)?;
        let first = bundle.first_entry();
        match format {
            EntryFormat::Bundles => {
                let parsed = EntryBundle::parse(served, &bytes)?.cut(bundle.width()).ok_or_else(mismatch)?;
                parsed.verify(leaves)?;
                let entries = parsed.entries().iter().map(|entry| entry.to_vec());
                Ok(numbered(first, leaves, entries))
            }
            EntryFormat::DataTiles => {
                let mut records = static_ct::parse_data_tile(served, &bytes)?;
                records.truncate(leaves.len());
                let mut entries = Vec::with_capacity(records.len());
                for (record, leaf) in records.iter().zip(leaves) {
                    if record.entry.leaf_hash()?.hash() != *leaf {
                        return Err(mismatch().into());
                    }
                    entries.push(record.to_bytes()?);
                }
                Ok(numbered(first, leaves, entries.into_iter()))
            }
        }
    }

    /// One entry with the proof that it is in the tree.
    ///
    /// # Errors
    /// [`LogError::IndexOutOfRange`], and as [`entries`](Self::entries).
    pub async fn entry(&self, index: u64, format: EntryFormat) -> Result<VerifiedEntry, Error> {
        let out_of_range = LogError::IndexOutOfRange { index, size: self.head.size };
        let width = u64::from(tlog::tile::TILE_WIDTH);
        let bundle = BundleId::in_tree(index / width, self.head.size).ok_or_else(|| out_of_range.clone())?;
        let entries = self.entries(bundle, format).await?;
        entries.into_iter().find(|entry| entry.index == index).ok_or_else(|| out_of_range.into())
    }
}

fn numbered(first: u64, leaves: &[Hash], entries: impl Iterator<Item = Vec<u8>>) -> Vec<VerifiedEntry> {
    (first..)
        .zip(leaves)
        .zip(entries)
        .map(|((index, leaf), bytes)| VerifiedEntry { index, leaf: LeafHash::from_stored(*leaf), bytes })
        .collect()
}

//! Derived files: full tiles, one file per tile level with tile `n` at byte `n · 8192`, and the positions of records.
//!
//! They are written by the follower, off the acknowledgement path, and synced now and then. Nothing in them is trusted:
//! a tile is handed out only after its root was found in its parent, up to the edge that the head vouches for. A tile
//! that was found so once is compared with the checksum of those bytes each time it is read again.
//!
//! The positions file holds 40 bytes per 256 entries: the positions of entries 0, 64, 128 and 192 of them, CRC32C of
//! these 32 bytes, four zero bytes.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tlog::error::Error as TlogError;
use tlog::hash::Hash;
use tlog::node::{NodeId, NodeReader};

use crate::disk::{Access, Disk, DiskFile};
use crate::edge::{Edge, FullTile, TileNodes, items, locate};
use crate::error::{Error, Result};

const TILE_BYTES: u64 = 8192;
const GROUP: usize = 40;
/// Tiles with their inner nodes kept for proofs, per generation: 16 KiB each.
const CACHED: usize = 1024;

/// The derived files of a log.
#[derive(Debug)]
pub(crate) struct TileStore {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    levels: RwLock<Vec<Arc<dyn DiskFile>>>,
    positions: Arc<dyn DiskFile>,
    /// Full tiles that no file has yet.
    pending: RwLock<HashMap<(u8, u64), Arc<TileNodes>>>,
    cache: Mutex<Generations>,
    /// CRC32C of the bytes of each tile that was authenticated since the start.
    verified: RwLock<Vec<Vec<Option<u32>>>>,
}

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<(u8, u64), Arc<TileNodes>>,
    old: HashMap<(u8, u64), Arc<TileNodes>>,
}

impl TileStore {
    /// Opens the derived files, creating what is missing.
    pub(crate) fn open(disk: Arc<dyn Disk>, directory: &Path) -> Result<Self> {
        disk.create_dir_all(directory).map_err(|error| Error::io("create", directory, error))?;
        let positions = open_or_create(&*disk, &directory.join("positions"))?;
        let store = Self {
            disk,
            directory: directory.to_owned(),
            levels: RwLock::default(),
            positions,
            pending: RwLock::default(),
            cache: Mutex::default(),
            verified: RwLock::default(),
        };
        for level in 0..u8::try_from(store.count_levels()?).unwrap_or(u8::MAX) {
            store.add_level(level)?;
        }
        Ok(store)
    }

    fn count_levels(&self) -> Result<usize> {
        let names =
            self.disk.list(&self.directory).map_err(|error| Error::io("list", &self.directory, error))?;
        Ok((0..8).take_while(|level| names.contains(&format!("{level}.tiles"))).count())
    }

    fn add_level(&self, level: u8) -> Result<()> {
        let file = open_or_create(&*self.disk, &self.level_path(level))?;
        self.levels.write().push(file);
        self.verified.write().push(Vec::new());
        Ok(())
    }

    pub(crate) fn level_path(&self, level: u8) -> PathBuf {
        self.directory.join(format!("{level}.tiles"))
    }

    pub(crate) fn positions_path(&self) -> PathBuf {
        self.directory.join("positions")
    }

    /// Whether the files are long enough to hold everything derived from the first `size` entries.
    pub(crate) fn covers(&self, size: u64) -> Result<bool> {
        for level in 0..8 {
            let want = items(size, level) / 256 * TILE_BYTES;
            if want == 0 {
                break;
            }
            let Some(file) = self.level(level) else { return Ok(false) };
            if file.length().map_err(|error| Error::io("read", &self.level_path(level), error))? < want {
                return Ok(false);
            }
        }
        let have =
            self.positions.length().map_err(|error| Error::io("read", &self.positions_path(), error))?;
        Ok(have >= size / 256 * GROUP as u64)
    }

    fn level(&self, level: u8) -> Option<Arc<dyn DiskFile>> {
        self.levels.read().get(usize::from(level)).cloned()
    }

    /// Keeps full tiles in memory until the follower has written them.
    pub(crate) fn add_pending(&self, tiles: &[FullTile]) {
        let mut pending = self.pending.write();
        for tile in tiles {
            pending.insert((tile.level, tile.index), tile.nodes.clone());
        }
    }

    /// Tiles that wait to be written.
    pub(crate) fn backlog(&self) -> usize {
        self.pending.read().len()
    }

    /// Writes a full tile of a committed tree.
    pub(crate) fn write(&self, tile: &FullTile) -> Result<()> {
        while self.levels.read().len() <= usize::from(tile.level) {
            let next = u8::try_from(self.levels.read().len()).unwrap_or(u8::MAX);
            self.add_level(next)?;
        }
        let path = self.level_path(tile.level);
        let file = self.level(tile.level).ok_or(Error::NotFound)?;
        let bytes = tile.nodes.bytes(256).ok_or(Error::NotFound)?;
        file.write_at(&bytes, tile.index * TILE_BYTES).map_err(|error| Error::io("write", &path, error))?;
        self.remember((tile.level, tile.index), tile.nodes.clone());
        self.pending.write().remove(&(tile.level, tile.index));
        Ok(())
    }

    /// Writes the positions of the 256 entries from `group · 256` on.
    pub(crate) fn write_positions(&self, group: u64, positions: [u64; 4]) -> Result<()> {
        self.positions
            .write_at(&encode_group(positions), group * GROUP as u64)
            .map_err(|error| Error::io("write", &self.positions_path(), error))
    }

    /// Reads the positions of the first `groups · 256` entries; the error says which group is damaged.
    pub(crate) fn read_positions(&self, groups: u64) -> Result<Result<Vec<u64>, u64>> {
        let mut bytes = vec![0; usize::try_from(groups).unwrap_or(usize::MAX).saturating_mul(GROUP)];
        let count = self
            .positions
            .read_at(&mut bytes, 0)
            .map_err(|error| Error::io("read", &self.positions_path(), error))?;
        bytes.truncate(count);
        let mut positions = Vec::with_capacity(bytes.len() / GROUP * 4);
        for (number, group) in bytes.chunks(GROUP).enumerate() {
            match decode_group(group) {
                Some(found) => positions.extend(found),
                None => return Ok(Err(number as u64)),
            }
        }
        Ok(if positions.len() as u64 == groups * 4 { Ok(positions) } else { Err(positions.len() as u64 / 4) })
    }

    /// Makes everything written so far durable.
    pub(crate) fn sync(&self) -> Result<()> {
        let levels = self.levels.read().clone();
        for (level, file) in levels.iter().enumerate() {
            let path = self.level_path(u8::try_from(level).unwrap_or(u8::MAX));
            file.sync_data().map_err(|error| Error::io("sync", &path, error))?;
        }
        self.positions.sync_data().map_err(|error| Error::io("sync", &self.positions_path(), error))?;
        self.disk.sync_dir(&self.directory).map_err(|error| Error::io("sync", &self.directory, error))
    }

    /// A full tile of a tree with this edge, authenticated.
    ///
    /// # Errors
    /// [`Error::NotFound`], or [`Error::Damaged`] naming the file.
    pub(crate) fn full_tile(&self, level: u8, index: u64, edge: &Edge) -> Result<Arc<TileNodes>> {
        if index >= items(edge.size(), level) / 256 {
            return Err(Error::NotFound);
        }
        let key = (level, index);
        if let Some(nodes) = self.pending.read().get(&key) {
            return Ok(nodes.clone());
        }
        if let Some(nodes) = self.cached(key) {
            return Ok(nodes);
        }
        let bytes = self.raw(level, index)?;
        let nodes = TileNodes::from_bytes(&bytes).ok_or_else(|| self.bad(level, index))?;
        if nodes.root() != Some(self.root_in_parent(level, index, edge)?) {
            return Err(self.bad(level, index));
        }
        let nodes = Arc::new(nodes);
        self.remember(key, nodes.clone());
        self.mark(level, index, crc32c::crc32c(&bytes));
        Ok(nodes)
    }

    /// A full tile as its file has it now, authenticated.
    pub(crate) fn fresh_tile(&self, level: u8, index: u64, edge: &Edge) -> Result<Arc<TileNodes>> {
        if let Some(nodes) = self.pending.read().get(&(level, index)) {
            return Ok(nodes.clone());
        }
        let nodes = TileNodes::from_bytes(&self.raw(level, index)?).ok_or_else(|| self.bad(level, index))?;
        if nodes.root() != Some(self.root_in_parent(level, index, edge)?) {
            return Err(self.bad(level, index));
        }
        Ok(Arc::new(nodes))
    }

    /// The bytes of the first `width` hashes of a full tile.
    pub(crate) fn tile_bytes(&self, level: u8, index: u64, width: usize, edge: &Edge) -> Result<Bytes> {
        if width == 256
            && index < items(edge.size(), level) / 256
            && let Some(checksum) = self.checksum(level, index)
        {
            let bytes = self.raw(level, index)?;
            if crc32c::crc32c(&bytes) != checksum {
                return Err(self.bad(level, index));
            }
            return Ok(bytes.into());
        }
        self.full_tile(level, index, edge)?.bytes(width).ok_or(Error::NotFound)
    }

    /// Reads a tile as it is on disk, unauthenticated. For the start-up check only.
    pub(crate) fn raw(&self, level: u8, index: u64) -> Result<Vec<u8>> {
        let path = self.level_path(level);
        let file = self.level(level).ok_or_else(|| self.bad(level, index))?;
        let mut bytes = vec![0; TILE_BYTES as usize];
        let count =
            file.read_at(&mut bytes, index * TILE_BYTES).map_err(|error| Error::io("read", &path, error))?;
        bytes.truncate(count);
        Ok(bytes)
    }

    fn root_in_parent(&self, level: u8, index: u64, edge: &Edge) -> Result<Hash> {
        let (parent, place) = (index / 256, usize::try_from(index % 256).unwrap_or(usize::MAX));
        match edge.partial(level + 1) {
            Some((at, nodes)) if at == parent => nodes.node(0, place),
            _ => self.full_tile(level + 1, parent, edge)?.node(0, place),
        }
        .ok_or(Error::NotFound)
    }

    fn bad(&self, level: u8, index: u64) -> Error {
        Error::damaged(
            &self.level_path(level),
            format!("tile {index} does not verify against the tree above it"),
        )
    }

    fn cached(&self, key: (u8, u64)) -> Option<Arc<TileNodes>> {
        let mut cache = self.cache.lock();
        if let Some(nodes) = cache.young.get(&key) {
            return Some(nodes.clone());
        }
        let nodes = cache.old.remove(&key)?;
        cache.young.insert(key, nodes.clone());
        Some(nodes)
    }

    fn remember(&self, key: (u8, u64), nodes: Arc<TileNodes>) {
        let mut cache = self.cache.lock();
        if cache.young.len() >= CACHED {
            cache.old = std::mem::take(&mut cache.young);
        }
        cache.young.insert(key, nodes);
    }

    fn mark(&self, level: u8, index: u64, checksum: u32) {
        let mut verified = self.verified.write();
        let Some(known) = verified.get_mut(usize::from(level)) else { return };
        let place = usize::try_from(index).unwrap_or(usize::MAX);
        if known.len() <= place {
            known.resize(place + 1, None);
        }
        if let Some(known) = known.get_mut(place) {
            *known = Some(checksum);
        }
    }

    fn checksum(&self, level: u8, index: u64) -> Option<u32> {
        let verified = self.verified.read();
        verified.get(usize::from(level))?.get(usize::try_from(index).ok()?).copied().flatten()
    }
}

/// The nodes of one tree: its edge, and full tiles from the store.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TreeNodes<'a> {
    pub(crate) edge: &'a Edge,
    pub(crate) store: &'a TileStore,
}

/// What building a proof from [`TreeNodes`] can report.
#[derive(Debug)]
pub(crate) enum NodeError {
    Store(Error),
    Arguments,
}

impl From<TlogError> for NodeError {
    /// The sizes or the index asked for do not fit together, which for a reader means: no such thing in the log.
    fn from(_: TlogError) -> Self {
        Self::Arguments
    }
}

impl From<NodeError> for Error {
    fn from(error: NodeError) -> Self {
        match error {
            NodeError::Store(error) => error,
            NodeError::Arguments => Self::NotFound,
        }
    }
}

impl NodeReader for TreeNodes<'_> {
    type Error = NodeError;

    fn read(&self, nodes: &[NodeId]) -> Result<Vec<Hash>, NodeError> {
        let mut hashes = Vec::with_capacity(nodes.len());
        for node in nodes {
            let (level, index, row, place) = locate(*node);
            let hash = match self.edge.partial(level) {
                Some((at, tile)) if at == index => tile.node(row, place),
                _ => {
                    self.store.full_tile(level, index, self.edge).map_err(NodeError::Store)?.node(row, place)
                }
            };
            hashes.push(hash.ok_or(NodeError::Store(Error::NotFound))?);
        }
        Ok(hashes)
    }
}

fn open_or_create(disk: &dyn Disk, path: &Path) -> Result<Arc<dyn DiskFile>> {
    match disk.open(path, Access::ReadWrite) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => disk.open(path, Access::CreateNew),
        other => other,
    }
    .map_err(|error| Error::io("open", path, error))
}

fn encode_group(positions: [u64; 4]) -> [u8; GROUP] {
    let mut group = [0; GROUP];
    for (place, position) in group.chunks_exact_mut(8).zip(positions) {
        place.copy_from_slice(&position.to_be_bytes());
    }
    let (payload, rest) = group.split_at_mut(32);
    let checksum = crc32c::crc32c(payload);
    if let Some(place) = rest.first_chunk_mut::<4>() {
        *place = checksum.to_be_bytes();
    }
    group
}

fn decode_group(bytes: &[u8]) -> Option<[u64; 4]> {
    let (payload, rest) = bytes.split_at_checked(32)?;
    let (words, _) = payload.as_chunks::<8>();
    let positions =
        <[u64; 4]>::try_from(words.iter().map(|word| u64::from_be_bytes(*word)).collect::<Vec<_>>()).ok()?;
    (rest.len() == 8 && encode_group(positions).get(32..) == Some(rest)).then_some(positions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn group_format_is_frozen_and_checked() {
        let group = encode_group([64, 1000, 2000, u64::MAX]);
        assert_eq!(decode_group(&group), Some([64, 1000, 2000, u64::MAX]));
        assert_eq!(group[6..16], [0, 64, 0, 0, 0, 0, 0, 0, 3, 0xe8][..]);
        for bit in 0..GROUP * 8 {
            let mut altered = group;
            altered[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode_group(&altered), None, "bit {bit}");
        }
    }
}

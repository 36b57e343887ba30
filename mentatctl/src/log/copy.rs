//! A whole log read from somewhere (a server, a folder) and rebuilt from its entries: every tile recomputed, every
//! byte compared, and the first that is wrong named.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use futures_util::future::join_all;
use tlog::bundle::{EntryBundle, MAX_BUNDLE_SIZE};
use tlog::compact::CompactRange;
use tlog::tile::{TILE_WIDTH, TilePath, perfect_root};
use tlog::{BundleId, Hash, LeafHash, TileId, TreeHead, static_ct};
use tlog_client::{EntryFormat, Error, LogClient};

use super::log_failure;
use crate::exit::{Exit, OrFail as _, Outcome};
use crate::output::Output;

/// Bundles read at once.
const AHEAD: u64 = 8;
/// Bytes of a hash in a tile.
const HASH: usize = 32;

/// Where a log is read from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A folder in the form of tlog-tiles or static-ct-api.
    Folder(PathBuf),
    /// A server.
    Server(LogClient),
}

/// The first thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Path below the log's base.
    pub file: String,
    /// First byte of the file that is wrong, or of the entry that is.
    pub offset: u64,
    /// Index of the entry, where it is one.
    pub entry: Option<u64>,
    /// What is wrong, for people.
    pub what: String,
}

impl Damage {
    fn at(file: impl Into<String>, offset: usize, what: impl Into<String>) -> Self {
        Self { file: file.into(), offset: offset as u64, entry: None, what: what.into() }
    }
}

/// What was read.
#[derive(Clone, Debug)]
pub struct Rebuilt {
    /// Tiles compared.
    pub tiles: u64,
    /// The tree at the size asked for, if it was passed.
    pub earlier: Option<TreeHead>,
    /// The first damage.
    pub damage: Option<Damage>,
    /// Issuers' fingerprints that records of a certificate log name.
    pub issuers: Vec<Hash>,
}

impl Source {
    /// The signed checkpoint, not verified.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn checkpoint(&self) -> Outcome<Vec<u8>> {
        match self {
            Self::Server(client) => Ok(client.checkpoint_note().await.map_err(log_failure)?.to_vec()),
            Self::Folder(folder) => {
                let path = folder.join("checkpoint");
                read_bounded(&path, tlog::note::MAX_NOTE_SIZE).or_fail(Exit::Usage, path.display())
            }
        }
    }

    /// A tile's bytes, not verified; `None` when there is none.
    pub async fn tile(&self, id: TileId) -> Outcome<Option<Vec<u8>>> {
        match self {
            Self::Server(client) => found(client.tile(id).await.map(|bytes| bytes.to_vec())),
            Self::Folder(folder) => {
                let cut = |mut bytes: Vec<u8>| {
                    if bytes.len() == id.to_full().byte_len() {
                        bytes.truncate(id.byte_len());
                    }
                    bytes
                };
                let limit = id.to_full().byte_len();
                Ok(read_either(folder, &id.path(), &id.to_full().path(), limit)?.map(|(_, bytes)| cut(bytes)))
            }
        }
    }

    /// A bundle's or data tile's bytes, not verified, and whether it is the partial or the full one.
    pub async fn bundle(&self, id: BundleId, format: EntryFormat) -> Outcome<Option<(BundleId, Vec<u8>)>> {
        match self {
            Self::Server(client) => {
                let served = match format {
                    EntryFormat::Bundles => client.bundle(id).await,
                    EntryFormat::DataTiles => client.data_tile(id).await,
                };
                found(served.map(|(id, bytes)| (id, bytes.to_vec())))
            }
            Self::Folder(folder) => {
                let (wanted, full) = (bundle_path(id, format), bundle_path(id.to_full(), format));
                let read = read_either(folder, &wanted, &full, MAX_BUNDLE_SIZE)?;
                Ok(read.map(|(path, bytes)| (if path == wanted { id } else { id.to_full() }, bytes)))
            }
        }
    }

    /// Reads every entry up to `head`, recomputes the tree and compares all tiles; notes the tree at size `earlier`.
    ///
    /// # Errors
    /// When the source cannot be read at all. Wrong content is no error but [`Rebuilt::damage`].
    pub async fn rebuild(
        &self,
        head: &TreeHead,
        format: EntryFormat,
        earlier: Option<u64>,
        out: &Output,
    ) -> Outcome<Rebuilt> {
        let mut work = Work::new(*head, earlier);
        let bar = out.bar(head.size, "entries");
        let width = u64::from(TILE_WIDTH);
        let mut first = 0;
        while first * width < head.size {
            let ids: Vec<BundleId> =
                (first..first + AHEAD).map_while(|index| BundleId::in_tree(index, head.size)).collect();
            first += ids.len() as u64;
            let read = join_all(ids.iter().map(async |id| {
                Ok::<_, crate::exit::Failure>((
                    self.bundle(*id, format).await?,
                    self.tile(id.leaf_tile()).await?,
                ))
            }));
            for (id, read) in ids.iter().zip(read.await) {
                let (bundle, tile) = read?;
                if let Some(damage) = work.bundle(*id, bundle, tile, format) {
                    return Ok(work.done(Some(damage)));
                }
                let above = std::mem::take(&mut work.complete);
                for (id, computed) in above {
                    let served = self.tile(id).await?;
                    work.compare(id, &computed, served);
                }
                bar.reach(work.range.size());
            }
        }
        for (id, computed) in work.partial_tiles() {
            let served = self.tile(id).await?;
            work.compare(id, &computed, served);
        }
        drop(bar);
        let damage = work.judge();
        Ok(work.done(damage))
    }
}

/// A tree that grows from entries, beside one that grows from the level-0 tiles as they were read.
#[derive(Debug)]
struct Work {
    head: TreeHead,
    range: CompactRange,
    by_tiles: CompactRange,
    earlier_size: Option<u64>,
    earlier: Option<TreeHead>,
    /// Hashes of each level's tile that is not full yet; level 0 holds leaves.
    levels: Vec<Vec<Hash>>,
    /// Full tiles of each level so far.
    counts: Vec<u64>,
    /// Full tiles above level 0 that wait to be compared.
    complete: Vec<(TileId, Vec<u8>)>,
    tiles: u64,
    /// First entry that is not what its level-0 tile says, with the place in the tile.
    differing: Option<(Damage, Damage)>,
    /// First byte of another tile that is wrong.
    tile_damage: Option<Damage>,
    issuers: Vec<Hash>,
}

impl Work {
    fn new(head: TreeHead, earlier_size: Option<u64>) -> Self {
        Self {
            head,
            range: CompactRange::new(),
            by_tiles: CompactRange::new(),
            earlier_size,
            earlier: None,
            levels: Vec::new(),
            counts: Vec::new(),
            complete: Vec::new(),
            tiles: 0,
            differing: None,
            tile_damage: None,
            issuers: Vec::new(),
        }
    }

    /// Takes one bundle with its tile; the damage after which nothing more can be said.
    fn bundle(
        &mut self,
        id: BundleId,
        bundle: Option<(BundleId, Vec<u8>)>,
        tile: Option<Vec<u8>>,
        format: EntryFormat,
    ) -> Option<Damage> {
        let Some((served, bytes)) = bundle else {
            return Some(Damage::at(bundle_path(id, format), 0, "the file is missing"));
        };
        let path = bundle_path(served, format);
        let entries = match self.entries(served, &bytes, format) {
            Ok(entries) => entries,
            Err((offset, what)) => return Some(Damage::at(path, offset, what)),
        };
        let tile_path = id.leaf_tile().path();
        let Some(tile) = tile else { return Some(Damage::at(tile_path, 0, "the file is missing")) };
        if tile.len() != id.leaf_tile().byte_len() {
            let offset = tile.len().min(id.leaf_tile().byte_len());
            return Some(Damage::at(tile_path, offset, format!("the file has {} bytes", tile.len())));
        }
        self.tiles += 1;
        let first = id.first_entry();
        let (hashes, _) = tile.as_chunks::<HASH>();
        for (index, ((leaf, offset), stored)) in (first..).zip(entries.iter().zip(hashes)) {
            if leaf.as_bytes() != stored && self.differing.is_none() {
                let mut entry = Damage::at(
                    path.clone(),
                    *offset,
                    format!("entry {index} is not the one that the tree holds"),
                );
                entry.entry = Some(index);
                let place = usize::try_from(index - first).unwrap_or_default() * HASH;
                let byte = leaf.as_bytes().iter().zip(stored).position(|(one, other)| one != other);
                let tile = Damage::at(
                    tile_path.clone(),
                    place + byte.unwrap_or_default(),
                    "the tile does not match the entries",
                );
                self.differing = Some((entry, tile));
            }
            self.push(*leaf);
            self.by_tiles.push(LeafHash::from_stored(Hash(*stored)));
        }
        None
    }

    /// Leaf hash and offset of each entry of the bundle that belongs to the tree.
    fn entries(
        &mut self,
        id: BundleId,
        bytes: &[u8],
        format: EntryFormat,
    ) -> Result<Vec<(LeafHash, usize)>, (usize, String)> {
        let malformed = |error: tlog::Error| match error {
            tlog::Error::Malformed { what, at } => (at, what.to_owned()),
            other => (0, other.to_string()),
        };
        let left = usize::try_from(self.head.size - id.first_entry()).unwrap_or(usize::MAX);
        let mut found = Vec::new();
        let mut offset = 0;
        match format {
            EntryFormat::Bundles => {
                let bundle = EntryBundle::parse(id, bytes).map_err(malformed)?;
                for (leaf, entry) in bundle.leaf_hashes().zip(bundle.entries()).take(left) {
                    found.push((leaf, offset));
                    offset += 2 + entry.len();
                }
            }
            EntryFormat::DataTiles => {
                for (index, record) in (id.first_entry()..)
                    .zip(static_ct::parse_data_tile(id, bytes).map_err(malformed)?)
                    .take(left)
                {
                    if record.entry.extensions.index() != Some(index) {
                        return Err((offset, format!("the record at place {index} names another index")));
                    }
                    found.push((record.entry.leaf_hash().map_err(malformed)?, offset));
                    offset += record.to_bytes().map_err(malformed)?.len();
                    for issuer in record.chain {
                        if !self.issuers.contains(&issuer) {
                            self.issuers.push(issuer);
                        }
                    }
                }
            }
        }
        Ok(found)
    }

    fn push(&mut self, leaf: LeafHash) {
        if self.earlier_size == Some(self.range.size()) {
            self.earlier = Some(self.range.head());
        }
        self.range.push(leaf);
        let mut hash = leaf.hash();
        for level in 0.. {
            if self.levels.len() <= level {
                self.levels.push(Vec::new());
                self.counts.push(0);
            }
            let (Some(hashes), Some(count)) = (self.levels.get_mut(level), self.counts.get_mut(level)) else {
                return;
            };
            hashes.push(hash);
            if hashes.len() < usize::from(TILE_WIDTH) {
                return;
            }
            let full = std::mem::take(hashes);
            let index = *count;
            *count += 1;
            if level > 0
                && let Some(id) = TileId::new(u8::try_from(level).unwrap_or(u8::MAX), index, TILE_WIDTH)
            {
                self.complete.push((id, bytes_of(&full)));
            }
            match perfect_root(&full) {
                Some(root) => hash = root,
                None => return,
            }
        }
    }

    /// The tiles of the right edge above level 0, which was compared with its bundle.
    fn partial_tiles(&self) -> Vec<(TileId, Vec<u8>)> {
        let tile = |(level, (hashes, count)): (usize, (&Vec<Hash>, &u64))| {
            let id = TileId::new(u8::try_from(level).ok()?, *count, u16::try_from(hashes.len()).ok()?)?;
            Some((id, bytes_of(hashes)))
        };
        self.levels.iter().zip(&self.counts).enumerate().skip(1).filter_map(tile).collect()
    }

    fn compare(&mut self, id: TileId, computed: &[u8], served: Option<Vec<u8>>) {
        self.tiles += 1;
        if self.tile_damage.is_some() {
            return;
        }
        let Some(served) = served else {
            self.tile_damage = Some(Damage::at(id.path(), 0, "the file is missing"));
            return;
        };
        let differs = computed.iter().zip(&served).position(|(one, other)| one != other);
        let length = (computed.len() != served.len()).then_some(computed.len().min(served.len()));
        if let Some(offset) = differs.or(length) {
            self.tile_damage = Some(Damage::at(id.path(), offset, "the tile does not match the entries"));
        }
    }

    /// Who is wrong: the entries, a tile, or the checkpoint.
    fn judge(&mut self) -> Option<Damage> {
        if self.earlier_size == Some(self.range.size()) {
            self.earlier = Some(self.range.head());
        }
        if self.range.head() == self.head {
            return self.differing.take().map(|(_, tile)| tile).or_else(|| self.tile_damage.take());
        }
        match self.differing.take() {
            Some((entry, _)) if self.by_tiles.head() == self.head => Some(entry),
            Some((entry, _)) => Some(Damage {
                what: format!("{}, and neither has the root of the checkpoint", entry.what),
                ..entry
            }),
            None => Some(Damage::at(
                "checkpoint",
                0,
                format!(
                    "entries and tiles agree on root {}, the checkpoint signs another",
                    self.range.root().to_base64()
                ),
            )),
        }
    }

    fn done(self, damage: Option<Damage>) -> Rebuilt {
        Rebuilt { tiles: self.tiles, earlier: self.earlier, damage, issuers: self.issuers }
    }
}

/// Path of a bundle in its log's form.
pub fn bundle_path(id: BundleId, format: EntryFormat) -> String {
    match format {
        EntryFormat::Bundles => TilePath::Entries(id).to_string(),
        EntryFormat::DataTiles => TilePath::Data(id).to_string(),
    }
}

fn bytes_of(hashes: &[Hash]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| hash.0).collect()
}

/// What is gone is told from what cannot be asked for.
fn found<T>(answer: Result<T, Error>) -> Outcome<Option<T>> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(Error::Status { status: 404 | 410, .. }) => Ok(None),
        Err(error) => Err(log_failure(error)),
    }
}

/// The file under the first path, or under the second where the first is missing.
fn read_either(folder: &Path, first: &str, second: &str, limit: usize) -> Outcome<Option<(String, Vec<u8>)>> {
    for path in [first, second] {
        match read_bounded(&folder.join(path), limit) {
            Ok(bytes) => return Ok(Some((path.to_owned(), bytes))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(error)
                    .or_fail(Exit::Usage, format!("cannot read {}", folder.join(path).display()));
            }
        }
    }
    Ok(None)
}

/// At most one byte more than the limit: enough to see that a file is too long.
fn read_bounded(path: &Path, limit: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

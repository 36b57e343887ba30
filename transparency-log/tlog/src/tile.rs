//! Tiles: the tree cut into files of 256 hashes (C2SP tlog-tiles).
//!
//! Item `i` of tile `n` at level `l` is the hash of the perfect subtree of height `8·l` number `256·n + i`. Only
//! full tiles are hashed into the level above. The right edge of the tree is served as *partial* tiles, whose
//! width is part of their path, so that a path never stands for two different contents.
//!
//! Paths are parsed strictly: what [`TilePath`] accepts is exactly what it prints.

use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt;

use crate::decimal;
use crate::error::Error;
use crate::hash::{HASH_SIZE, Hash, LeafHash, MAX_SIZE, node_hash};
use crate::node::NodeId;

/// Hashes in a full tile, entries in a full bundle.
pub const TILE_WIDTH: u16 = 256;

/// Levels of the tree that one tile spans.
pub const TILE_HEIGHT: u8 = 8;

/// Highest level the path grammar allows. Trees below 2^63 leaves have levels 0 to 7.
pub const MAX_TILE_LEVEL: u8 = 63;

/// Longest path that can be valid: checked before parsing.
pub const MAX_PATH_LENGTH: usize = 64;

/// One hash tile. The width is always 1 to 256: an empty tile cannot be named.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct TileId {
    level: u8,
    index: u64,
    width: u16,
}

impl TileId {
    /// Tile `index` of `level` with `width` hashes; `None` unless the level is at most 63, the index at most
    /// 2^63-1 and the width 1 to 256.
    #[must_use]
    pub fn new(level: u8, index: u64, width: u16) -> Option<Self> {
        (level <= MAX_TILE_LEVEL && valid(index, width)).then_some(Self { level, index, width })
    }

    /// The tile as it is in a tree of `size` leaves: full, partial, or `None` when it has no item yet.
    #[must_use]
    pub fn in_tree(level: u8, index: u64, size: u64) -> Option<Self> {
        let items = items_at(level, size);
        let width = items.checked_sub(index.checked_mul(u64::from(TILE_WIDTH))?)?.min(u64::from(TILE_WIDTH));
        Self::new(level, index, u16::try_from(width).ok()?)
    }

    /// The tile of a tree with `size` leaves from which the hash of `node` can be computed; `None` when the tree
    /// does not have the node.
    #[must_use]
    pub fn containing(node: NodeId, size: u64) -> Option<Self> {
        if !node.is_in(size) {
            return None;
        }
        let within = u32::from(node.level % TILE_HEIGHT);
        Self::in_tree(node.level / TILE_HEIGHT, node.index >> (u32::from(TILE_HEIGHT) - within), size)
    }

    /// Level in tiles: 0 holds leaf hashes.
    #[must_use]
    pub fn level(&self) -> u8 {
        self.level
    }

    /// Position within the level.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Number of hashes, 1 to 256.
    #[must_use]
    pub fn width(&self) -> u16 {
        self.width
    }

    /// True for 256 hashes.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.width == TILE_WIDTH
    }

    /// The full tile at the same place.
    #[must_use]
    pub fn to_full(self) -> Self {
        Self { width: TILE_WIDTH, ..self }
    }

    /// Length of the tile's content in bytes.
    #[must_use]
    pub fn byte_len(&self) -> usize {
        usize::from(self.width) * HASH_SIZE
    }

    /// The tile one level up in which this tile's root is item `index % 256`.
    #[must_use]
    pub(crate) fn parent_in(&self, size: u64) -> Option<Self> {
        Self::in_tree(self.level.checked_add(1)?, self.index / u64::from(TILE_WIDTH), size)
    }

    /// Place of the root of this (full) tile among the items of its parent.
    pub(crate) fn place_in_parent(&self) -> usize {
        (self.index % u64::from(TILE_WIDTH)) as usize
    }

    /// The path below the log's prefix, such as `tile/0/x001/067.p/8`.
    #[must_use]
    pub fn path(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for TileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        TilePath::Hashes(*self).fmt(f)
    }
}

/// One bundle of entries: 1 to 256 of them.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct BundleId {
    index: u64,
    width: u16,
}

impl BundleId {
    /// Bundle `index` with `width` entries; `None` unless the index is at most 2^63-1 and the width 1 to 256.
    #[must_use]
    pub fn new(index: u64, width: u16) -> Option<Self> {
        valid(index, width).then_some(Self { index, width })
    }

    /// The bundle as it is in a tree of `size` leaves: full, partial, or `None` when it has no entry yet.
    #[must_use]
    pub fn in_tree(index: u64, size: u64) -> Option<Self> {
        TileId::in_tree(0, index, size).map(|tile| Self { index: tile.index, width: tile.width })
    }

    /// Position.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Number of entries, 1 to 256.
    #[must_use]
    pub fn width(&self) -> u16 {
        self.width
    }

    /// True for 256 entries.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.width == TILE_WIDTH
    }

    /// The full bundle at the same place.
    #[must_use]
    pub fn to_full(self) -> Self {
        Self { width: TILE_WIDTH, ..self }
    }

    /// Index of the first entry.
    #[must_use]
    pub fn first_entry(&self) -> u64 {
        self.index.saturating_mul(u64::from(TILE_WIDTH))
    }

    /// The level-0 tile with the leaf hashes of exactly these entries.
    #[must_use]
    pub fn leaf_tile(&self) -> TileId {
        TileId { level: 0, index: self.index, width: self.width }
    }
}

impl fmt::Display for BundleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        TilePath::Entries(*self).fmt(f)
    }
}

/// A path below a log's prefix that begins with `tile/`.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum TilePath {
    /// `tile/data/<N>[.p/<W>]`: data tile of a certificate log (static-ct-api).
    Data(BundleId),
    /// `tile/entries/<N>[.p/<W>]`: entry bundle.
    Entries(BundleId),
    /// `tile/<L>/<N>[.p/<W>]`: hashes.
    Hashes(TileId),
}

impl TilePath {
    /// Reads a path without leading slash, such as `tile/entries/x001/x234/067.p/112`.
    ///
    /// # Errors
    /// [`Error::TooLarge`] or [`Error::Malformed`]; a server answers both with 404.
    pub fn parse(path: &str) -> Result<Self, Error> {
        const RULE: &str = "tile path does not follow tile/<L>/<N>[.p/<W>]";
        if path.len() > MAX_PATH_LENGTH {
            return Err(Error::TooLarge { what: "tile path", limit: MAX_PATH_LENGTH });
        }
        let malformed = || Error::malformed(RULE, 0);
        let rest = path.strip_prefix("tile/").ok_or_else(malformed)?;
        let (kind, place) = rest.split_once('/').ok_or_else(malformed)?;
        let (number, width) = match place.split_once(".p/") {
            Some((number, width)) => {
                let width = decimal::parse(width).filter(|w| (1..u64::from(TILE_WIDTH)).contains(w));
                (number, width.and_then(|w| u16::try_from(w).ok()).ok_or_else(malformed)?)
            }
            None => (place, TILE_WIDTH),
        };
        let index = parse_index(number).ok_or_else(malformed)?;
        match kind {
            "data" => BundleId::new(index, width).map(Self::Data),
            "entries" => BundleId::new(index, width).map(Self::Entries),
            level => decimal::parse(level)
                .and_then(|level| u8::try_from(level).ok())
                .and_then(|level| TileId::new(level, index, width))
                .map(Self::Hashes),
        }
        .ok_or_else(malformed)
    }
}

impl fmt::Display for TilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (index, width) = match self {
            Self::Data(bundle) => {
                f.write_str("tile/data/")?;
                (bundle.index, bundle.width)
            }
            Self::Entries(bundle) => {
                f.write_str("tile/entries/")?;
                (bundle.index, bundle.width)
            }
            Self::Hashes(tile) => {
                write!(f, "tile/{}/", tile.level)?;
                (tile.index, tile.width)
            }
        };
        let mut groups = [0u64; 7];
        let mut used = 0;
        let mut left = index;
        for group in &mut groups {
            *group = left % 1000;
            left /= 1000;
            used += 1;
            if left == 0 {
                break;
            }
        }
        for (position, group) in groups.iter().take(used).enumerate().rev() {
            if position > 0 {
                write!(f, "x{group:03}/")?;
            } else {
                write!(f, "{group:03}")?;
            }
        }
        if width < TILE_WIDTH {
            write!(f, ".p/{width}")?;
        }
        Ok(())
    }
}

/// Tiles that exist (or are wider) at `new_size` but not at `old_size`, level by level from the leaves: what a
/// log writes when it publishes the larger tree.
#[must_use]
pub fn tiles_added(old_size: u64, new_size: u64) -> Vec<TileId> {
    let mut tiles = Vec::new();
    for level in 0..=MAX_SIZE.ilog2() as u8 / TILE_HEIGHT {
        let (old, new) = (items_at(level, old_size), items_at(level, new_size));
        if new <= old {
            continue;
        }
        let width = u64::from(TILE_WIDTH);
        for index in old / width..new.div_ceil(width) {
            tiles.extend(TileId::in_tree(level, index, new_size));
        }
    }
    tiles
}

/// Splits the bytes of a tile into hashes.
///
/// # Errors
/// [`Error::TileMismatch`] when the length is not exactly that of the tile's width.
pub fn parse_tile(id: TileId, bytes: &[u8]) -> Result<Vec<Hash>, Error> {
    let (hashes, rest) = bytes.as_chunks::<HASH_SIZE>();
    if hashes.len() != usize::from(id.width) || !rest.is_empty() {
        return Err(Error::TileMismatch { path: id.path() });
    }
    Ok(hashes.iter().copied().map(Hash).collect())
}

/// Root of a perfect subtree, given its hashes at one level (a full tile has 256); `None` unless their number
/// is a power of two.
#[must_use]
pub fn perfect_root(hashes: &[Hash]) -> Option<Hash> {
    if !hashes.len().is_power_of_two() {
        return None;
    }
    let mut level: Vec<Hash> = hashes.to_vec();
    while level.len() > 1 {
        let (pairs, _) = level.as_chunks::<2>();
        level = pairs.iter().map(|[left, right]| node_hash(left, right)).collect();
    }
    level.first().copied()
}

/// The leaf hashes of a level-0 tile's items.
pub fn leaves(items: &[Hash]) -> impl Iterator<Item = LeafHash> + '_ {
    items.iter().copied().map(LeafHash::from_stored)
}

/// Complete items of a tile level in a tree of `size` leaves.
fn items_at(level: u8, size: u64) -> u64 {
    size.checked_shr(u32::from(level) * u32::from(TILE_HEIGHT)).unwrap_or(0)
}

fn valid(index: u64, width: u16) -> bool {
    index <= MAX_SIZE && (1..=TILE_WIDTH).contains(&width)
}

/// `x001/x234/067` → 1234067. Groups of exactly three digits, no leading group of zeros.
fn parse_index(text: &str) -> Option<u64> {
    let mut index = 0u64;
    let mut groups = text.split('/').peekable();
    let mut first = true;
    while let Some(group) = groups.next() {
        let last = groups.peek().is_none();
        let digits = if last { group } else { group.strip_prefix('x')? };
        if digits.len() != 3 || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let value: u64 = digits.parse().ok()?;
        if first && !last && value == 0 {
            return None;
        }
        index = index.checked_mul(1000)?.checked_add(value)?;
        first = false;
    }
    (index <= MAX_SIZE).then_some(index)
}

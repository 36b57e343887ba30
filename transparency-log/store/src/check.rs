//! Re-verifies a whole log that is not running: every record, every derived file, both heads and the stored note.

use std::sync::Arc;

use tlog::compact::CompactRange;
use tlog::hash::TreeHead;

use crate::disk::Disk;
use crate::edge::{Edge, FullTile};
use crate::entry_file::{EntryFile, SEGMENT_HEADER};
use crate::error::{Error, Refusal, Result};
use crate::head_file::HeadFile;
use crate::kind::LogKind;
use crate::note_file::NoteFile;
use crate::options::LogOptions;
use crate::scan::{Scan, Scanned};
use crate::tile_store::TileStore;

/// What [`check_log`] found in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckReport {
    /// The committed tree.
    pub tree: TreeHead,
    /// Full tiles compared with the entries.
    pub tiles: u64,
    /// The stored signed note, if the log ever published.
    pub note: Option<Vec<u8>>,
    /// What the stored note signs.
    pub signed: Option<TreeHead>,
}

/// Checks everything. The log must not be open anywhere.
///
/// `each` sees every index with its stored bytes, so that a caller can compare them with what was acknowledged.
///
/// # Errors
/// [`Error::Damaged`] or [`Error::Refused`] with the first thing that does not hold, and the file it is in.
pub fn check_log(
    options: &LogOptions,
    disk: &Arc<dyn Disk>,
    mut each: impl FnMut(u64, &[u8]),
) -> Result<CheckReport> {
    let identity = options.identity();
    let head = HeadFile::open(&**disk, &options.head, identity)?;
    let copy = HeadFile::open(&**disk, &options.head_copy, identity)?;
    let note = NoteFile::open(&**disk, &options.note_file(), identity)?;
    let entries = EntryFile::open(disk.clone(), &options.entries_directory(), identity, options.sizes)?;
    let tiles = TileStore::open(disk.clone(), &options.tiles_directory())?;
    let committed = head.load();
    let derived = note.current().map_or(0, |note| note.derived);

    let mut signed = vec![(copy.path().to_owned(), copy.load().tree)];
    signed.extend(note.current().map(|stored| (note.path().to_owned(), stored.tree)));
    for (path, tree) in &signed {
        if tree.size > committed.tree.size {
            return Err(Refusal::HeadBehind {
                head: head.path().to_owned(),
                head_size: committed.tree.size,
                newer: path.clone(),
                newer_size: tree.size,
            }
            .into());
        }
    }

    if let Some(stored) = note.current()
        && stored.tree.size > copy.load().tree.size
    {
        return Err(Refusal::CopyBehind {
            copy: copy.path().to_owned(),
            copy_size: copy.load().tree.size,
            signed_size: stored.tree.size,
        }
        .into());
    }

    let mut scan = Scan::new(&entries, 0, SEGMENT_HEADER, None);
    let (mut range, mut edge, mut full) = (CompactRange::new(), Edge::empty(), Vec::new());
    let mut compared = 0;
    loop {
        for (path, tree) in &signed {
            if tree.size == range.size() && tree.root != range.root() {
                return Err(Error::damaged(path, format!("another root at size {}", tree.size)));
            }
        }
        if scan.index() >= committed.tree.size {
            break;
        }
        match scan.step()? {
            Scanned::Record { index, body, .. } => {
                let stored = scan.bytes(body);
                let leaf = options.kind.leaf_hash(stored).ok_or_else(|| {
                    Error::damaged(
                        entries.directory(),
                        format!("entry {index} is not of kind {}", kind_name(options.kind)),
                    )
                })?;
                range.push(leaf);
                edge.push(leaf, &mut full);
                each(index, stored);
            }
            Scanned::End { position } | Scanned::Torn { position, .. } => {
                return Err(Error::damaged(
                    &entries.segment_of(position),
                    format!(
                        "entry {} does not verify at byte {}",
                        scan.index(),
                        position % options.sizes.segment
                    ),
                ));
            }
        }
        for tile in full.drain(..) {
            compared += compare(&tiles, &tile, derived)?;
        }
    }
    if range.head() != committed.tree || scan.position() != committed.tail {
        return Err(Error::damaged(head.path(), "the entries do not have this root or end".to_owned()));
    }
    let stored = note.current();
    Ok(CheckReport {
        tree: committed.tree,
        tiles: compared,
        note: stored.map(|note| note.note.to_vec()),
        signed: stored.map(|note| note.tree),
    })
}

fn kind_name(kind: LogKind) -> &'static str {
    kind.as_str()
}

/// Tiles below the durable mark must be there and right.
fn compare(tiles: &TileStore, tile: &FullTile, derived: u64) -> Result<u64> {
    let width = 256_u64.saturating_pow(u32::from(tile.level) + 1);
    if (tile.index + 1).saturating_mul(width) > derived {
        return Ok(0);
    }
    let path = tiles.level_path(tile.level);
    let stored = tiles.raw(tile.level, tile.index)?;
    let expected = tile.nodes.bytes(256).unwrap_or_default();
    if expected == stored && !stored.is_empty() {
        return Ok(1);
    }
    let differs = expected.iter().zip(&stored).position(|(one, other)| one != other);
    let first = tile.index * 8192 + differs.unwrap_or(expected.len().min(stored.len())) as u64;
    Err(Error::damaged(&path, format!("tile {} does not match the entries at byte {first}", tile.index)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::OsDisk;
    use tlog::hash::leaf_hash;

    #[test]
    fn the_wrong_byte_of_a_tile_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let (mut edge, mut full) = (Edge::empty(), Vec::new());
        for index in 0..512_u64 {
            edge.push(leaf_hash(&index.to_be_bytes()), &mut full);
        }
        let mut bytes: Vec<u8> = full.iter().flat_map(|tile| tile.nodes.bytes(256).unwrap()).collect();
        let compared = |bytes: &[u8]| {
            std::fs::write(directory.path().join("0.tiles"), bytes).unwrap();
            let disk: Arc<dyn Disk> = Arc::new(OsDisk);
            let tiles = TileStore::open(disk, directory.path()).unwrap();
            full.iter().map(|tile| compare(&tiles, tile, 512)).collect::<Result<Vec<_>>>()
        };
        assert_eq!(compared(&bytes).unwrap(), [1, 1]);
        bytes[8192 + 77] ^= 2;
        let damaged = compared(&bytes).unwrap_err().to_string();
        assert!(damaged.contains("0.tiles") && damaged.contains("byte 8269"), "{damaged}");
        let damaged = compared(&bytes[..9000]).unwrap_err().to_string();
        assert!(damaged.contains("byte 8269") || damaged.contains("byte 9000"), "{damaged}");
    }
}

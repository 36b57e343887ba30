//! Re-verifies a whole log that is not running: every record, every derived file (tiles, positions, deduplication keys),
//! both heads and the stored notes. Nothing is created or changed.

use std::io;
use std::path::Path;
use std::sync::Arc;

use tlog::compact::CompactRange;
use tlog::hash::TreeHead;

use crate::certificate::CertificateRecord;
use crate::dedup_run::{self, Run};
use crate::disk::Access;
use crate::disk::Disk;
use crate::edge::{Edge, FullTile, items};
use crate::entry_file::{EntryFile, SEGMENT_HEADER, STRIDE};
use crate::error::{Error, Refusal, Result};
use crate::head_file::HeadFile;
use crate::kind::{Deduplication, EntryKey, LogKind};
use crate::note_file::NoteFile;
use crate::options::LogOptions;
use crate::record;
use crate::scan::{Scan, Scanned};
use crate::tile_store::TileStore;

/// What [`check_log`] found in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckReport {
    /// The committed tree.
    pub tree: TreeHead,
    /// Full tiles compared with the entries.
    pub tiles: u64,
    /// Deduplication keys compared with the entries; those that no file holds yet are not among them.
    pub keys: u64,
    /// The stored signed note, if the log ever published.
    pub note: Option<Vec<u8>>,
    /// What the stored note signs.
    pub signed: Option<TreeHead>,
}

/// The files of a checked log, locked: no server opens it as long as this value lives.
#[derive(Debug)]
pub struct Held {
    _head: HeadFile,
    _copy: HeadFile,
}

/// As [`check_and_hold`], and lets go of the log.
///
/// # Errors
/// As [`check_and_hold`].
pub fn check_log(
    options: &LogOptions,
    disk: &Arc<dyn Disk>,
    each: impl FnMut(u64, &[u8]),
) -> Result<CheckReport> {
    check_and_hold(options, disk, each).map(|(report, _)| report)
}

/// Checks everything. The log must not be open anywhere.
///
/// `each` sees every index with its stored bytes, so that a caller can compare them with what was acknowledged.
///
/// # Errors
/// [`Error::Damaged`] or [`Error::Refused`] with the first thing that does not hold, and the file it is in.
pub fn check_and_hold(
    options: &LogOptions,
    disk: &Arc<dyn Disk>,
    mut each: impl FnMut(u64, &[u8]),
) -> Result<(CheckReport, Held)> {
    let identity = options.identity();
    let head = HeadFile::open(&**disk, &options.head, identity)?;
    let copy = HeadFile::open(&**disk, &options.head_copy, identity)?;
    demand(disk, &options.note_file(), "the next start signs what is committed anew")?;
    let note = NoteFile::open(&**disk, &options.note_file(), identity)?;
    let cosigned = NoteFile::find(&**disk, &options.cosigned_file(), identity)?;
    let entries = EntryFile::open(disk.clone(), &options.entries_directory(), identity, options.sizes)?;
    let committed = head.load();
    let derived = note.current().map_or(0, |note| note.derived) / 256 * 256;
    let tiles = match derived {
        0 => None,
        // A backup leaves out what is derived; a start makes it anew.
        _ if is_gone(disk, &options.tiles_directory())? => None,
        _ => Some(open_tiles(options, disk, committed.tree.size)?),
    };
    let positions = match &tiles {
        None => Vec::new(),
        Some(tiles) => tiles.read_positions(derived / 256)?.map_err(|group| {
            Error::damaged(
                &tiles.positions_path(),
                format!("group {group} at byte {} is not whole", group * 40),
            )
        })?,
    };
    let runs = match options.deduplication {
        Deduplication::Exact => {
            dedup_run::inspect_all(disk, &options.dedup_directory(), committed.tree.size)?
        }
        Deduplication::Off => Vec::new(),
    };

    let mut signed = vec![(copy.path().to_owned(), copy.load().tree)];
    for note in std::iter::once(&note).chain(&cosigned) {
        signed.extend(note.current().map(|stored| (note.path().to_owned(), stored.tree)));
    }
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

    let copy_size = copy.load().tree.size;
    if let Some((_, tree)) = signed.iter().find(|(_, tree)| tree.size > copy_size) {
        let copy = copy.path().to_owned();
        return Err(Refusal::CopyBehind { copy, copy_size, signed_size: tree.size }.into());
    }

    let mut scan = Scan::new(&entries, 0, SEGMENT_HEADER, None);
    let (mut range, mut edge, mut full) = (CompactRange::new(), Edge::empty(), Vec::new());
    let (mut compared, mut keys) = (0, 0);
    loop {
        if let Some(run) =
            runs.iter().find(|run| run.range().end == range.size() && !run.is_of(&range.root()))
        {
            return Err(Error::damaged(
                run.path(),
                "it was made from another tree; delete the file, the next start makes it anew",
            ));
        }
        for (path, tree) in &signed {
            if tree.size == range.size() && tree.root != range.root() {
                return Err(Error::damaged(path, format!("another root at size {}", tree.size)));
            }
        }
        if scan.index() >= committed.tree.size {
            break;
        }
        match scan.step()? {
            Scanned::Record { index, body, end } => {
                let stored = scan.bytes(body);
                let leaf = options.kind.leaf_hash(stored).ok_or_else(|| {
                    Error::damaged(
                        entries.directory(),
                        format!("entry {index} is not of kind {}", kind_name(options.kind)),
                    )
                })?;
                range.push(leaf);
                edge.push(leaf, &mut full);
                let start = end - (record::HEADER + stored.len()) as u64;
                let kept = usize::try_from(index / STRIDE).ok().and_then(|place| positions.get(place));
                if let Some(kept) = kept.filter(|kept| index.is_multiple_of(STRIDE) && **kept != start) {
                    let file = options.tiles_directory().join("positions");
                    let at = index / 256 * 40 + index % 256 / STRIDE * 8;
                    let detail = format!("byte {at}: entry {index} stands at {start}, not at {kept}");
                    return Err(Error::damaged(&file, detail));
                }
                keys += find_key(&runs, options.kind, index, leaf.into(), stored)?;
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
            if let Some(tiles) = &tiles {
                compared += compare(tiles, &tile, derived)?;
            }
        }
    }
    if range.head() != committed.tree || scan.position() != committed.tail {
        return Err(Error::damaged(head.path(), "the entries do not have this root or end".to_owned()));
    }
    // A start takes in what is whole behind the head, and then asks what was derived from more.
    let mut whole = committed.tree.size;
    while let Scanned::Record { .. } = scan.step()? {
        whole += 1;
    }
    if let Some((newer, newer_size)) = options.beyond(disk, whole)? {
        let (head, head_size) = (head.path().to_owned(), committed.tree.size);
        return Err(Refusal::HeadBehind { head, head_size, newer, newer_size }.into());
    }
    let stored = note.current();
    let report = CheckReport {
        tree: committed.tree,
        tiles: compared,
        keys,
        note: stored.map(|note| note.note.to_vec()),
        signed: stored.map(|note| note.tree),
    };
    Ok((report, Held { _head: head, _copy: copy }))
}

/// A file that a log has; opening it would make it.
fn demand(disk: &Arc<dyn Disk>, path: &Path, otherwise: &str) -> Result<()> {
    match disk.open(path, Access::ReadOnly) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(Error::damaged(path, format!("the file is missing; {otherwise}")))
        }
        Err(error) => Err(Error::io("open", path, error)),
    }
}

fn is_gone(disk: &Arc<dyn Disk>, directory: &Path) -> Result<bool> {
    match disk.list(directory) {
        Ok(_) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(Error::io("list", directory, error)),
    }
}

/// The tile files that a log with durable tiles has.
fn open_tiles(options: &LogOptions, disk: &Arc<dyn Disk>, size: u64) -> Result<TileStore> {
    let directory = options.tiles_directory();
    let rebuilt = "the next start makes it anew from the entries";
    demand(disk, &directory.join("positions"), rebuilt)?;
    for level in (0..8).take_while(|level| items(size, *level) >= 256) {
        demand(disk, &directory.join(format!("{level}.tiles")), rebuilt)?;
    }
    TileStore::open(disk.clone(), &directory)
}

/// The key of an entry must be in the run that covers it, or a retry of the entry would get another index.
fn find_key(runs: &[Run], kind: LogKind, index: u64, leaf: EntryKey, stored: &[u8]) -> Result<u64> {
    let Some(run) = runs.iter().find(|run| run.range().contains(&index)) else { return Ok(0) };
    let key = if kind.keyed_by_leaf() {
        Some(leaf)
    } else {
        CertificateRecord::parse(stored).map(|record| record.entry.key())
    };
    let mut found = Vec::new();
    if let Some(key) = key {
        run.find(key.prefix(), &mut found)?;
    }
    if found.contains(&index) {
        return Ok(1);
    }
    let detail =
        format!("the key of entry {index} is missing; delete the file, the next start makes it anew");
    Err(Error::damaged(run.path(), detail))
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

//! A sorted, immutable run of deduplication words on disk.
//!
//! File `FIRST-END.run` (version 2), integers big-endian: 64-byte header (magic `mntl-run`, u32 version, u32 zero,
//! u64 first entry, u64 end, u64 number of words, the first 20 bytes of the log's root at size `end`, CRC32C of the 60
//! bytes before), then blocks of 4096
//! bytes (255 words of 16 bytes, CRC32C of them, 12 zero bytes), then one u64 per block (upper half of its first word),
//! then the filter's u64 words (10 bits a word, rounded up to 64-byte lines), then CRC32C of blocks' index and filter.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::dedup::INDEX_BITS;
use crate::dedup::index_of;
use tlog::hash::Hash;

use crate::disk::{Access, Disk, DiskFile};
use crate::error::{Error, Result};

const MAGIC: &[u8; 8] = b"mntl-run";
const VERSION: u32 = 2;
/// Bytes of a root that a run keeps.
const ROOT: usize = 20;
const HEADER: usize = 64;
const BLOCK: usize = 4096;
const PER_BLOCK: usize = 255;
const LINE_BITS: u64 = 512;
const PROBES: u32 = 6;

/// An open run: block index and filter in memory, words on disk.
#[derive(Debug)]
pub(crate) struct Run {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    range: Range<u64>,
    words: u64,
    /// The tree that the run was made from, at its end.
    root: [u8; ROOT],
    firsts: Vec<u64>,
    filter: Filter,
}

impl Run {
    /// Whether the run was made from a tree that had this root at the run's end. One of another history, restored or left
    /// behind, would hide keys for ever.
    pub(crate) fn is_of(&self, root: &Hash) -> bool {
        root.as_bytes().starts_with(&self.root)
    }

    pub(crate) fn range(&self) -> Range<u64> {
        self.range.clone()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the line of the filter that decides about a prefix.
    pub(crate) fn touch(&self, prefix: u128) -> u64 {
        self.filter
            .probes(prefix)
            .next()
            .and_then(|(word, _)| self.filter.0.get(word))
            .copied()
            .unwrap_or_default()
    }

    /// Adds the indices of all words with this prefix.
    pub(crate) fn find(&self, prefix: u128, found: &mut Vec<u64>) -> Result<()> {
        if !self.filter.contains(prefix) {
            return Ok(());
        }
        let upper = upper(prefix << INDEX_BITS);
        // The words may begin in the block before the first one that starts with them.
        let mut block = self.firsts.partition_point(|first| *first < upper).saturating_sub(1);
        while self.firsts.get(block).is_some_and(|first| *first <= upper) {
            for word in self.block(block)? {
                if word >> INDEX_BITS == prefix {
                    found.push(index_of(word));
                }
            }
            block += 1;
        }
        Ok(())
    }

    fn block(&self, number: usize) -> Result<Vec<u128>> {
        let mut bytes = [0; BLOCK];
        self.file
            .read_at(&mut bytes, (HEADER + number * BLOCK) as u64)
            .map_err(|error| Error::io("read", &self.path, error))?;
        let count = usize::try_from(self.words)
            .unwrap_or(usize::MAX)
            .saturating_sub(number * PER_BLOCK)
            .min(PER_BLOCK);
        decode_block(&bytes, count).ok_or_else(|| {
            Error::damaged(
                &self.path,
                format!(
                    "block {number} has a bad checksum; delete the file, it is rebuilt at the next start"
                ),
            )
        })
    }
}

#[derive(Debug)]
struct Filter(Vec<u64>);

impl Filter {
    fn with_room_for(words: u64) -> Self {
        let lines = (words * 10).div_ceil(LINE_BITS).max(1);
        Self(vec![0; usize::try_from(lines * (LINE_BITS / 64)).unwrap_or(usize::MAX)])
    }

    /// All probes of a prefix fall into one 64-byte line, so that a lookup costs one cache miss.
    fn probes(&self, prefix: u128) -> impl Iterator<Item = (usize, u64)> + use<> {
        let lines = (self.0.len() as u64 / (LINE_BITS / 64)).max(1);
        let low = u64::try_from(prefix & u128::from(u64::MAX)).unwrap_or_default();
        let line =
            usize::try_from((u128::from(low.wrapping_mul(0x9e37_79b9_7f4a_7c15)) * u128::from(lines)) >> 64)
                .unwrap_or_default();
        let mut bits = low ^ u64::try_from(prefix >> 64).unwrap_or_default().rotate_left(40);
        (0..PROBES).map(move |_| {
            let bit = bits % LINE_BITS;
            bits = bits.rotate_right(9);
            (line * 8 + usize::try_from(bit / 64).unwrap_or_default(), 1 << (bit % 64))
        })
    }

    fn insert(&mut self, prefix: u128) {
        for (word, bit) in self.probes(prefix) {
            if let Some(word) = self.0.get_mut(word) {
                *word |= bit;
            }
        }
    }

    fn contains(&self, prefix: u128) -> bool {
        self.probes(prefix).all(|(word, bit)| self.0.get(word).is_some_and(|word| word & bit != 0))
    }
}

/// Writes sorted words as a run, durably; a crash leaves no file under the final name.
pub(crate) fn write(
    disk: &Arc<dyn Disk>,
    directory: &Path,
    range: Range<u64>,
    root: &Hash,
    words: impl Iterator<Item = Result<u128>>,
) -> Result<Arc<Run>> {
    let mut kept = [0; ROOT];
    kept.copy_from_slice(root.as_bytes().get(..ROOT).unwrap_or(&[0; ROOT]));
    write_kept(disk, directory, range, kept, words)
}

fn write_kept(
    disk: &Arc<dyn Disk>,
    directory: &Path,
    range: Range<u64>,
    root: [u8; ROOT],
    words: impl Iterator<Item = Result<u128>>,
) -> Result<Arc<Run>> {
    let path = directory.join(format!("{}-{}.run", range.start, range.end));
    let temporary = path.with_extension("new");
    match disk.remove(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(Error::io("remove", &temporary, error));
        }
        _ => {}
    }
    let file =
        disk.open(&temporary, Access::CreateNew).map_err(|error| Error::io("create", &temporary, error))?;
    let written = fill(&*file, &temporary, &range, &root, words);
    let (count, firsts, filter) = match written {
        Ok(written) => written,
        Err(error) => {
            // The half-written file is of no use; that it cannot be removed is the lesser problem.
            let _ = disk.remove(&temporary);
            return Err(error);
        }
    };
    disk.rename(&temporary, &path).map_err(|error| Error::io("rename", &temporary, error))?;
    disk.sync_dir(directory).map_err(|error| Error::io("sync", directory, error))?;
    Ok(Arc::new(Run { path, file, range, words: count, root, firsts, filter }))
}

fn fill(
    file: &dyn DiskFile,
    path: &Path,
    range: &Range<u64>,
    root: &[u8; ROOT],
    words: impl Iterator<Item = Result<u128>>,
) -> Result<(u64, Vec<u64>, Filter)> {
    let io = |operation, error| Error::io(operation, path, error);
    let mut filter = Filter::with_room_for(range.end - range.start);
    let (mut firsts, mut count, mut at) = (Vec::new(), 0_u64, HEADER as u64);
    let (mut block, mut out) = (Vec::with_capacity(PER_BLOCK), Vec::with_capacity(64 * BLOCK));
    for word in words {
        let word = word?;
        filter.insert(word >> INDEX_BITS);
        count += 1;
        block.push(word);
        if block.len() == PER_BLOCK {
            firsts.push(block.first().copied().map_or(0, upper));
            encode_block(&block, &mut out);
            block.clear();
            if out.len() >= 64 * BLOCK {
                file.write_at(&out, at).map_err(|error| io("write", error))?;
                at += out.len() as u64;
                out.clear();
            }
        }
    }
    if let Some(first) = block.first() {
        firsts.push(upper(*first));
        encode_block(&block, &mut out);
    }
    let tables_start = out.len();
    for word in firsts.iter().chain(&filter.0) {
        out.extend_from_slice(&word.to_be_bytes());
    }
    let checksum = crc32c::crc32c(out.get(tables_start..).unwrap_or_default());
    out.extend_from_slice(&checksum.to_be_bytes());
    file.write_at(&out, at).map_err(|error| io("write", error))?;
    file.write_at(&header(range, count, root), 0).map_err(|error| io("write", error))?;
    file.sync_data().map_err(|error| io("sync", error))?;
    Ok((count, firsts, filter))
}

/// Merges neighbouring runs into one that covers all of them.
pub(crate) fn merge(disk: &Arc<dyn Disk>, directory: &Path, runs: &[Arc<Run>]) -> Result<Arc<Run>> {
    let start = runs.first().map_or(0, |run| run.range.start);
    let (end, root) = runs.last().map_or((0, [0; ROOT]), |run| (run.range.end, run.root));
    let mut cursors: Vec<_> =
        runs.iter().map(|run| Cursor { run, block: 0, words: Vec::new().into_iter() }).collect();
    let mut heap = BinaryHeap::new();
    for (number, cursor) in cursors.iter_mut().enumerate() {
        if let Some(word) = cursor.next()? {
            heap.push(Reverse((word, number)));
        }
    }
    let words = std::iter::from_fn(move || {
        let Reverse((word, number)) = heap.pop()?;
        match cursors.get_mut(number)?.next() {
            Ok(Some(next)) => heap.push(Reverse((next, number))),
            Ok(None) => {}
            Err(error) => return Some(Err(error)),
        }
        Some(Ok(word))
    });
    write_kept(disk, directory, start..end, root, words)
}

struct Cursor<'a> {
    run: &'a Run,
    block: usize,
    words: std::vec::IntoIter<u128>,
}

impl Cursor<'_> {
    fn next(&mut self) -> Result<Option<u128>> {
        if let Some(word) = self.words.next() {
            return Ok(Some(word));
        }
        if self.block >= self.run.firsts.len() {
            return Ok(None);
        }
        self.words = self.run.block(self.block)?.into_iter();
        self.block += 1;
        Ok(self.words.next())
    }
}

/// The runs in a directory, in the order in which a start tries them.
fn ranges(names: &[String]) -> Vec<(u64, Reverse<u64>)> {
    let range = |name: &String| {
        let (start, end) = name.strip_suffix(".run")?.split_once('-')?;
        Some((start.parse().ok()?, Reverse(end.parse().ok()?)))
    };
    let mut ranges: Vec<_> = names.iter().filter_map(range).collect();
    // A merged run comes before the parts that it replaced; those are then skipped.
    ranges.sort_unstable();
    ranges
}

/// Opens the runs that the next start would use, and changes nothing.
///
/// # Errors
/// [`Error::Damaged`] for a run that cannot be used: the next start would make it anew.
pub(crate) fn inspect_all(disk: &Arc<dyn Disk>, directory: &Path, size: u64) -> Result<Vec<Run>> {
    let names = match disk.list(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        names => names.map_err(|error| Error::io("list", directory, error))?,
    };
    let (mut runs, mut covered) = (Vec::new(), 0);
    for (start, Reverse(end)) in ranges(&names) {
        if end > size || start != covered || end <= start {
            continue;
        }
        let path = directory.join(format!("{start}-{end}.run"));
        let unusable =
            || Error::damaged(&path, "it is not whole; delete the file, the next start makes it anew");
        runs.push(open(disk, &path, start..end)?.ok_or_else(unusable)?);
        covered = end;
    }
    Ok(runs)
}

/// A whole run with keys of entries beyond the first `size`, and where it ends. Nothing is changed.
pub(crate) fn beyond(disk: &Arc<dyn Disk>, directory: &Path, size: u64) -> Result<Option<(PathBuf, u64)>> {
    let names = match disk.list(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        names => names.map_err(|error| Error::io("list", directory, error))?,
    };
    for (start, Reverse(end)) in ranges(&names) {
        let path = directory.join(format!("{start}-{end}.run"));
        if end > size && end > start && open(disk, &path, start..end)?.is_some() {
            return Ok(Some((path, end)));
        }
    }
    Ok(None)
}

/// Opens the runs that cover `0..n` for the largest possible `n <= size`, and removes what a crash left behind.
/// `root_at` is the log's root at a size.
pub(crate) fn open_all(
    disk: &Arc<dyn Disk>,
    directory: &Path,
    size: u64,
    root_at: impl Fn(u64) -> Result<Hash>,
) -> Result<Vec<Arc<Run>>> {
    disk.create_dir_all(directory).map_err(|error| Error::io("create", directory, error))?;
    let names = disk.list(directory).map_err(|error| Error::io("list", directory, error))?;
    for name in names.iter().filter(|name| name.ends_with(".new")) {
        let path = directory.join(name);
        disk.remove(&path).map_err(|error| Error::io("remove", &path, error))?;
    }
    let (mut runs, mut covered) = (Vec::new(), 0);
    for (start, Reverse(end)) in ranges(&names) {
        let path = directory.join(format!("{start}-{end}.run"));
        // The start has refused whole ones beyond the log's end (see `beyond`).
        if end > size || start != covered || end <= start {
            continue;
        }
        match open(disk, &path, start..end)? {
            Some(run) if run.is_of(&root_at(end)?) => {
                runs.push(Arc::new(run));
                covered = end;
            }
            Some(_) => {
                tracing::warn!(file = %path.display(), "deduplication run of another tree; rebuilding it from the log")
            }
            None => {
                tracing::warn!(file = %path.display(), "damaged deduplication run; rebuilding it from the log")
            }
        }
    }
    Ok(runs)
}

fn open(disk: &Arc<dyn Disk>, path: &Path, range: Range<u64>) -> Result<Option<Run>> {
    let io = |operation, error| Error::io(operation, path, error);
    let file = disk.open(path, Access::ReadOnly).map_err(|error| io("open", error))?;
    let mut bytes = [0; HEADER];
    file.read_at(&mut bytes, 0).map_err(|error| io("read", error))?;
    let words = range.end - range.start;
    let mut root = [0; ROOT];
    root.copy_from_slice(bytes.get(40..40 + ROOT).unwrap_or(&[0; ROOT]));
    if bytes != header(&range, words, &root) {
        return Ok(None);
    }
    let blocks = usize::try_from(words).unwrap_or(usize::MAX).div_ceil(PER_BLOCK);
    let mut filter = Filter::with_room_for(words);
    let mut tables = vec![0; (blocks + filter.0.len()) * 8 + 4];
    let count =
        file.read_at(&mut tables, (HEADER + blocks * BLOCK) as u64).map_err(|error| io("read", error))?;
    let Some((tables, checksum)) = tables.get(..count).and_then(|tables| tables.split_last_chunk::<4>())
    else {
        return Ok(None);
    };
    if count != (blocks + filter.0.len()) * 8 + 4 || crc32c::crc32c(tables).to_be_bytes() != *checksum {
        return Ok(None);
    }
    let (chunks, _) = tables.as_chunks::<8>();
    let mut values = chunks.iter().map(|chunk| u64::from_be_bytes(*chunk));
    let firsts: Vec<u64> = values.by_ref().take(blocks).collect();
    for (place, value) in filter.0.iter_mut().zip(values) {
        *place = value;
    }
    Ok(Some(Run { path: path.to_owned(), file, range, words, root, firsts, filter }))
}

fn header(range: &Range<u64>, words: u64, root: &[u8; ROOT]) -> [u8; HEADER] {
    let mut bytes = Vec::with_capacity(HEADER);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&VERSION.to_be_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&range.start.to_be_bytes());
    bytes.extend_from_slice(&range.end.to_be_bytes());
    bytes.extend_from_slice(&words.to_be_bytes());
    bytes.extend_from_slice(root);
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_be_bytes());
    let mut header = [0; HEADER];
    header.copy_from_slice(&bytes);
    header
}

fn upper(word: u128) -> u64 {
    u64::try_from(word >> 64).unwrap_or_default()
}

fn encode_block(words: &[u128], out: &mut Vec<u8>) {
    let start = out.len();
    for word in words {
        out.extend_from_slice(&word.to_be_bytes());
    }
    out.resize(start + PER_BLOCK * 16, 0);
    let checksum = crc32c::crc32c(out.get(start..).unwrap_or_default());
    out.extend_from_slice(&checksum.to_be_bytes());
    out.resize(start + BLOCK, 0);
}

fn decode_block(bytes: &[u8; BLOCK], count: usize) -> Option<Vec<u128>> {
    let (payload, rest) = bytes.split_at_checked(PER_BLOCK * 16)?;
    if crc32c::crc32c(payload).to_be_bytes() != *rest.first_chunk::<4>()? {
        return None;
    }
    let (chunks, _) = payload.as_chunks::<16>();
    Some(chunks.iter().take(count).map(|chunk| u128::from_be_bytes(*chunk)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::OsDisk;

    #[test]
    fn format_is_frozen() {
        let dir = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(OsDisk);
        let words = [5_u128 << INDEX_BITS | 1, 9_u128 << INDEX_BITS | 2];
        write(&disk, dir.path(), 0..2, &Hash([7; 32]), words.into_iter().map(Ok)).unwrap();
        let bytes = std::fs::read(dir.path().join("0-2.run")).unwrap();
        assert_eq!(bytes.len(), 64 + 4096 + 8 + 64 + 4);
        assert_eq!(bytes[..16], *b"mntl-run\0\0\0\x02\0\0\0\0");
        assert_eq!(bytes[40..60], [7; 20]);
        assert_eq!(bytes[64..80], [0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 1]);
        assert_eq!(bytes[80..96], [0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 2]);
    }

    #[test]
    fn a_flipped_bit_is_never_an_answer() {
        let dir = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(OsDisk);
        let words: Vec<u128> = (0..300_u128).map(|i| (i * 77) << INDEX_BITS | (i + 1)).collect();
        write(&disk, dir.path(), 0..300, &Hash([7; 32]), words.into_iter().map(Ok)).unwrap();
        let path = dir.path().join("0-300.run");
        let good = std::fs::read(&path).unwrap();
        for at in (0..good.len()).step_by(37) {
            let mut altered = good.clone();
            altered[at] ^= 0x10;
            std::fs::write(&path, &altered).unwrap();
            let runs = open_all(&disk, dir.path(), 300, |_| Ok(Hash([7; 32]))).unwrap();
            let Some(run) = runs.first() else { continue };
            for i in 0..300_u128 {
                let mut found = Vec::new();
                match run.find(i * 77, &mut found) {
                    Ok(()) => assert_eq!(found, [i as u64], "byte {at}"),
                    Err(Error::Damaged { file, .. }) => assert_eq!(file, path),
                    Err(other) => panic!("{other}"),
                }
            }
        }
    }
}

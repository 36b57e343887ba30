//! The entry file: append-only segments that hold every entry of the log. It is the entry store; everything else but
//! the head can be derived from it.
//!
//! A *position* counts bytes over all segments: segment `p / segment_size`, byte `p % segment_size` in it. A record
//! never crosses a segment's end. Every 64th record's position is kept in memory (8 bytes for 64 entries), so that any
//! record is found by one read of its neighbourhood.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;

use crate::disk::{Access, Disk, DiskFile};
use crate::error::{Error, Refusal, Result};
use crate::record;
use crate::scan::{Scan, Scanned};

/// Bytes of a segment's own header.
pub(crate) const SEGMENT_HEADER: u64 = 64;
/// Entries per remembered position.
pub(crate) const STRIDE: u64 = 64;
const MAGIC: &[u8; 8] = b"mntl-ent";
const VERSION: u32 = 1;

/// Sizes of the entry file. Fixed for the life of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryFileSizes {
    /// Bytes per segment. At least 128 KiB.
    pub segment: u64,
    /// Bytes reserved ahead of the tail at a time.
    pub reserve: u64,
}

impl EntryFileSizes {
    /// The sizes that a log's entry file was made with, read from its first segment; `None` when there is none or its
    /// header is not one. Only the segment's size is fixed in the file.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn stored(disk: &Arc<dyn Disk>, directory: &Path) -> io::Result<Option<Self>> {
        let file = match disk.open(&directory.join("00000000.entries"), Access::ReadWrite) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let mut header = [0; SEGMENT_HEADER as usize];
        file.read_at(&mut header, 0)?;
        let size = header.strip_prefix(MAGIC.as_slice()).and_then(|rest| rest.get(8..16)?.try_into().ok());
        Ok(size.map(u64::from_be_bytes).map(|segment| Self { segment, ..Self::default() }))
    }
}

impl Default for EntryFileSizes {
    fn default() -> Self {
        Self { segment: 1 << 30, reserve: 16 << 20 }
    }
}

/// The readers' view; the writer is [`EntryWriter`].
#[derive(Debug)]
pub(crate) struct EntryFile {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    identity: [u8; 32],
    sizes: EntryFileSizes,
    segments: RwLock<Vec<Arc<dyn DiskFile>>>,
    positions: RwLock<Positions>,
}

/// Where records stand.
#[derive(Debug, Default)]
struct Positions {
    /// Position of entry `i * STRIDE`.
    every: Vec<u64>,
    /// One past the last committed record.
    tail: u64,
    /// Number of committed entries.
    size: u64,
}

impl EntryFile {
    /// Makes the directory and the first segment of a new log.
    pub(crate) fn create(
        disk: Arc<dyn Disk>,
        directory: &Path,
        identity: [u8; 32],
        sizes: EntryFileSizes,
    ) -> Result<Self> {
        disk.create_dir_all(directory).map_err(|error| Error::io("create", directory, error))?;
        let file = Self::empty(disk, directory, identity, sizes);
        file.add_segment(0)?;
        file.reset(0, SEGMENT_HEADER, Vec::new());
        Ok(file)
    }

    /// Opens the segments of an existing log. [`reset`](Self::reset) must follow before entries are read.
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        directory: &Path,
        identity: [u8; 32],
        sizes: EntryFileSizes,
    ) -> Result<Self> {
        let file = Self::empty(disk, directory, identity, sizes);
        for number in 0_u32.. {
            let path = file.segment_path(number);
            match file.disk.open(&path, Access::ReadWrite) {
                Ok(segment) => {
                    file.check_segment(&path, &*segment, number)?;
                    file.segments.write().push(segment);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error) => return Err(Error::io("open", &path, error)),
            }
        }
        Ok(file)
    }

    fn empty(disk: Arc<dyn Disk>, directory: &Path, identity: [u8; 32], sizes: EntryFileSizes) -> Self {
        Self {
            disk,
            directory: directory.to_owned(),
            identity,
            sizes,
            segments: RwLock::default(),
            positions: RwLock::default(),
        }
    }

    /// Sets what is committed: `size` entries that end at `tail`, with the position of every 64th.
    pub(crate) fn reset(&self, size: u64, tail: u64, every: Vec<u64>) {
        *self.positions.write() = Positions { every, tail, size };
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn sizes(&self) -> EntryFileSizes {
        self.sizes
    }

    pub(crate) fn segment_of(&self, position: u64) -> PathBuf {
        self.segment_path(u32::try_from(position / self.sizes.segment).unwrap_or(u32::MAX))
    }

    fn segment_path(&self, number: u32) -> PathBuf {
        self.directory.join(format!("{number:08}.entries"))
    }

    fn header(&self, number: u32) -> [u8; SEGMENT_HEADER as usize] {
        let mut bytes = Vec::with_capacity(SEGMENT_HEADER as usize);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_be_bytes());
        bytes.extend_from_slice(&number.to_be_bytes());
        bytes.extend_from_slice(&self.sizes.segment.to_be_bytes());
        bytes.extend_from_slice(&self.identity);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_be_bytes());
        let mut header = [0; SEGMENT_HEADER as usize];
        header.copy_from_slice(&bytes);
        header
    }

    fn check_segment(&self, path: &Path, file: &dyn DiskFile, number: u32) -> Result<()> {
        let mut found = [0; SEGMENT_HEADER as usize];
        file.read_at(&mut found, 0).map_err(|error| Error::io("read", path, error))?;
        if found == self.header(number) {
            return Ok(());
        }
        Err(Refusal::Foreign { file: path.to_owned(), detail: "segment header".to_owned() }.into())
    }

    /// Creates segment `number` so that a crash leaves either nothing or a whole header under its name.
    fn add_segment(&self, number: u32) -> Result<()> {
        let path = self.segment_path(number);
        let temporary = path.with_extension("new");
        match self.disk.remove(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io("remove", &temporary, error));
            }
            _ => {}
        }
        let file = self
            .disk
            .open(&temporary, Access::CreateNew)
            .map_err(|error| Error::io("create", &temporary, error))?;
        file.write_at(&self.header(number), 0).map_err(|error| Error::io("write", &temporary, error))?;
        file.sync_data().map_err(|error| Error::io("sync", &temporary, error))?;
        self.disk.rename(&temporary, &path).map_err(|error| Error::io("rename", &temporary, error))?;
        self.disk.sync_dir(&self.directory).map_err(|error| Error::io("sync", &self.directory, error))?;
        self.segments.write().push(file);
        Ok(())
    }

    pub(crate) fn segment(&self, number: u64) -> Option<Arc<dyn DiskFile>> {
        self.segments.read().get(usize::try_from(number).ok()?).cloned()
    }

    pub(crate) fn segment_count(&self) -> u64 {
        self.segments.read().len() as u64
    }

    /// Syncs every segment.
    pub(crate) fn sync_all(&self) -> Result<()> {
        for (number, segment) in self.segments.read().iter().enumerate() {
            let path = self.segment_path(u32::try_from(number).unwrap_or(u32::MAX));
            segment.sync_data().map_err(|error| Error::io("sync", &path, error))?;
        }
        Ok(())
    }

    /// Position of entry `multiple * STRIDE`, if committed.
    pub(crate) fn position(&self, multiple: u64) -> Option<u64> {
        self.positions.read().every.get(usize::try_from(multiple).ok()?).copied()
    }

    /// Reads committed entries `first .. first + count`, calling `each` with index and bytes.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the range is not committed; [`Error::Damaged`] when a record does not verify.
    pub(crate) fn read(&self, first: u64, count: u64, mut each: impl FnMut(u64, &[u8])) -> Result<()> {
        if count == 0 {
            return Ok(());
        }
        let end = first.checked_add(count).ok_or(Error::NotFound)?;
        let (start, stop) = {
            let positions = self.positions.read();
            if end > positions.size {
                return Err(Error::NotFound);
            }
            let at =
                |multiple: u64| positions.every.get(usize::try_from(multiple).unwrap_or(usize::MAX)).copied();
            let start = at(first / STRIDE).ok_or(Error::NotFound)?;
            (start, at(end.div_ceil(STRIDE)).unwrap_or(positions.tail))
        };
        let mut scan = Scan::new(self, first / STRIDE * STRIDE, start, Some(stop));
        while scan.index() < end {
            match scan.step()? {
                Scanned::Record { index, body, .. } => {
                    if index >= first {
                        each(index, scan.bytes(body));
                    }
                }
                Scanned::End { position } | Scanned::Torn { position, .. } => {
                    return Err(Error::damaged(
                        &self.segment_of(position),
                        format!(
                            "entry {} at byte {} does not verify",
                            scan.index(),
                            position % self.sizes.segment
                        ),
                    ));
                }
            }
        }
        Ok(())
    }

    /// Reads one committed entry.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub(crate) fn entry(&self, index: u64) -> Result<Vec<u8>> {
        let mut found = Vec::new();
        self.read(index, 1, |_, bytes| found = bytes.to_vec())?;
        Ok(found)
    }
}

/// Appends records. One per log, owned by the sequencer.
#[derive(Debug)]
pub(crate) struct EntryWriter {
    file: Arc<EntryFile>,
    /// One past the last record, the pending batch included.
    tail: u64,
    /// Index of the next record.
    next: u64,
    /// Space is reserved up to here.
    reserved: u64,
    /// Pending bytes, in pieces that are contiguous on disk.
    pieces: Vec<Piece>,
    /// Positions of pending multiples of [`STRIDE`].
    every: Vec<u64>,
}

#[derive(Debug, Default)]
struct Piece {
    position: u64,
    bytes: Vec<u8>,
}

impl EntryWriter {
    /// A writer that continues at the committed end, dropping whatever bytes a torn write left behind it. They are durably
    /// gone before anything is appended: the next batch may begin in the next segment, whose sync says nothing of this one.
    pub(crate) fn new(file: Arc<EntryFile>) -> Result<Self> {
        let (tail, next) = {
            let positions = file.positions.read();
            (positions.tail, positions.size)
        };
        let path = file.segment_of(tail);
        let number = tail / file.sizes.segment;
        match file.segment(number) {
            Some(segment) => cut(&*segment, &path, (tail % file.sizes.segment).max(SEGMENT_HEADER))?,
            // The last record ends exactly at a segment's end.
            None if tail.is_multiple_of(file.sizes.segment) => {}
            None => return Err(Error::damaged(&path, "the segment is missing")),
        }
        for later in number + 1..file.segment_count() {
            let path = file.segment_of(later * file.sizes.segment);
            if let Some(segment) = file.segment(later) {
                cut(&*segment, &path, SEGMENT_HEADER)?;
            }
        }
        Ok(Self { file, tail, next, reserved: tail, pieces: Vec::new(), every: Vec::new() })
    }

    /// Index the next record will get.
    pub(crate) fn next_index(&self) -> u64 {
        self.next
    }

    /// Makes sure that `bytes` of entries in `count` records can be written without running out of space.
    ///
    /// # Errors
    /// [`Error::DiskFull`]: nothing was changed, the batch is refused. Others are fatal.
    pub(crate) fn reserve(&mut self, count: usize, bytes: usize) -> Result<()> {
        let segment = self.file.sizes.segment;
        let need = (bytes + count * record::HEADER) as u64;
        // The next record begins behind the header of a segment that does not exist yet.
        let start = if self.tail.is_multiple_of(segment) { self.tail + SEGMENT_HEADER } else { self.tail };
        let mut end = start.saturating_add(need);
        let crossed = end / segment - start / segment;
        if crossed > 0 {
            // Each segment's end may be left with a gap of almost one record.
            let gap = (record::HEADER + record::MAX_ENTRY) as u64 + SEGMENT_HEADER;
            end = end.saturating_add((crossed + 1).saturating_mul(gap));
        }
        while self.reserved < end {
            let number = self.reserved / segment;
            if number >= self.file.segment_count() {
                let path = self.file.segment_of(self.reserved);
                self.file
                    .add_segment(u32::try_from(number).unwrap_or(u32::MAX))
                    .map_err(|error| full_or(error, &path))?;
            }
            let path = self.file.segment_of(self.reserved);
            let file = self.file.segment(number).ok_or(Error::NotFound)?;
            let from = self.reserved % segment;
            let length = self.file.sizes.reserve.max(end - self.reserved).min(segment - from);
            file.allocate(from, length)
                .map_err(|error| full_or(Error::io("reserve space in", &path, error), &path))?;
            self.reserved += length;
        }
        Ok(())
    }

    /// Adds one record to the pending batch; `fill` writes its bytes (at most `limit` of them).
    /// Returns its index.
    pub(crate) fn push(&mut self, limit: usize, fill: impl FnOnce(&mut Vec<u8>)) -> u64 {
        let segment = self.file.sizes.segment;
        let room = segment - self.tail % segment;
        if room < (record::HEADER + limit) as u64 || self.tail.is_multiple_of(segment) {
            self.tail = self.tail.next_multiple_of(segment) + SEGMENT_HEADER;
        }
        let contiguous =
            self.pieces.last().is_some_and(|piece| piece.position + piece.bytes.len() as u64 == self.tail);
        if !contiguous {
            self.pieces.push(Piece { position: self.tail, bytes: Vec::new() });
        }
        let index = self.next;
        if index.is_multiple_of(STRIDE) {
            self.every.push(self.tail);
        }
        if let Some(piece) = self.pieces.last_mut() {
            let before = piece.bytes.len();
            record::encode(&mut piece.bytes, index, fill);
            self.tail += (piece.bytes.len() - before) as u64;
        }
        self.next += 1;
        index
    }

    /// Hands each pending record's stored bytes to `each`, read back out of the buffer that will be written.
    pub(crate) fn pending(&self, mut each: impl FnMut(u64, &[u8])) -> Result<()> {
        for piece in &self.pieces {
            let mut rest = piece.bytes.as_slice();
            while let Some(record::Header::Record { length, checksum, index }) = record::header(rest) {
                let body = rest
                    .get(record::HEADER..record::HEADER + length)
                    .filter(|body| record::checksum((length as u32).to_be_bytes(), index, body) == checksum)
                    .ok_or(Error::Inconsistent {
                        old: index,
                        new: index,
                        detail: "a record changed in memory",
                    })?;
                each(index, body);
                rest = rest.get(record::HEADER + length..).unwrap_or_default();
            }
        }
        Ok(())
    }

    /// Writes the pending batch and syncs it: one write and one sync, more only where a segment ends.
    ///
    /// # Errors
    /// Every error is fatal: what is on disk is then unknown until the next start looks.
    pub(crate) fn flush(&mut self) -> Result<()> {
        let segment = self.file.sizes.segment;
        for piece in self.pieces.iter().filter(|piece| !piece.bytes.is_empty()) {
            let path = self.file.segment_of(piece.position);
            let file = self.file.segment(piece.position / segment).ok_or(Error::NotFound)?;
            file.write_at(&piece.bytes, piece.position % segment)
                .map_err(|error| Error::io("write", &path, error))?;
            file.sync_data().map_err(|error| Error::io("sync", &path, error))?;
        }
        Ok(())
    }

    /// One past the last record of the pending batch.
    pub(crate) fn tail(&self) -> u64 {
        self.tail
    }

    /// Makes the flushed batch visible to readers, after the head was committed.
    pub(crate) fn commit(&mut self) {
        let mut positions = self.file.positions.write();
        positions.every.append(&mut self.every);
        positions.tail = self.tail;
        positions.size = self.next;
        drop(positions);
        // The buffer of the usual single piece is kept for the next batch.
        self.pieces.truncate(1);
        if let Some(piece) = self.pieces.first_mut() {
            piece.bytes.clear();
            piece.position = self.tail;
        }
    }
}

/// Shortens a segment, durably.
fn cut(segment: &dyn DiskFile, path: &Path, length: u64) -> Result<()> {
    let io = |operation, error| Error::io(operation, path, error);
    if segment.length().map_err(|error| io("read", error))? == length {
        return Ok(());
    }
    segment.set_len(length).map_err(|error| io("cut", error))?;
    segment.sync_data().map_err(|error| io("sync", error))
}

fn full_or(error: Error, path: &Path) -> Error {
    match error {
        Error::Io { source, .. }
            if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) =>
        {
            Error::DiskFull { file: path.to_owned() }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::OsDisk;

    #[test]
    fn what_a_batch_writes_was_reserved_when_the_last_record_ended_with_its_segment() {
        let segment = 131_072;
        // From batches that end in the next segment to such as fill it to its last byte.
        for bytes in [1, 100, 65_535, 131_072 - 64 - 16 - 1, 131_072 - 64 - 16] {
            let directory = tempfile::tempdir().unwrap();
            let sizes = EntryFileSizes { segment, reserve: 1 };
            let file = EntryFile::create(Arc::new(OsDisk), directory.path(), [0; 32], sizes).unwrap();
            let mut writer = EntryWriter::new(Arc::new(file)).unwrap();
            let fill = |writer: &mut EntryWriter, mut left: usize| {
                let mut lengths = Vec::new();
                while left > 0 {
                    let length = left.min(65_535);
                    // Never so little left that no header fits.
                    let length = if left - length > 0 && left - length < 17 { length - 17 } else { length };
                    lengths.push(length);
                    left -= length + if left > length { record::HEADER } else { 0 };
                }
                writer.reserve(lengths.len(), lengths.iter().sum()).unwrap();
                for length in lengths {
                    writer.push(length, |out| out.resize(out.len() + length, 7));
                }
                writer.flush().unwrap();
                writer.commit();
            };
            let header = usize::try_from(SEGMENT_HEADER).unwrap() + record::HEADER;
            fill(&mut writer, usize::try_from(segment).unwrap() - header);
            assert_eq!(writer.tail(), segment, "the first segment is full to its last byte");
            fill(&mut writer, bytes);
            assert!(writer.tail() <= writer.reserved, "{bytes}: {} of {}", writer.tail(), writer.reserved);
        }
    }
}

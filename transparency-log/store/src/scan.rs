//! Walks the records of the entry file in order.

use std::ops::Range;

use crate::entry_file::{EntryFile, SEGMENT_HEADER};
use crate::error::{Error, Result};
use crate::record::{self, HEADER, Header, MAX_ENTRY};

const READ: usize = 256 * 1024;

/// What a step found.
#[derive(Debug)]
pub(crate) enum Scanned {
    /// A record that verifies; `body` is to be resolved with [`Scan::bytes`] before the next step.
    Record { index: u64, body: Range<usize>, end: u64 },
    /// Unwritten space, or the end asked for: no record begins at this position.
    End { position: u64 },
    /// Bytes that are no valid record.
    Torn { position: u64, detail: &'static str },
}

/// A walk from a known record on.
#[derive(Debug)]
pub(crate) struct Scan<'a> {
    file: &'a EntryFile,
    index: u64,
    position: u64,
    /// Records end here at the latest; `None` walks until nothing valid follows.
    stop: Option<u64>,
    buffer: Vec<u8>,
    buffer_start: u64,
}

impl<'a> Scan<'a> {
    /// Starts at the record of entry `index`, which stands at `position`.
    pub(crate) fn new(file: &'a EntryFile, index: u64, position: u64, stop: Option<u64>) -> Self {
        Self { file, index, position, stop, buffer: Vec::new(), buffer_start: position }
    }

    /// Index of the entry that the next step will look for.
    pub(crate) fn index(&self) -> u64 {
        self.index
    }

    /// Where the next step will look.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// The bytes of the record found last.
    pub(crate) fn bytes(&self, body: Range<usize>) -> &[u8] {
        self.buffer.get(body).unwrap_or_default()
    }

    /// Looks at the next record.
    ///
    /// # Errors
    /// Only when a read fails.
    pub(crate) fn step(&mut self) -> Result<Scanned> {
        let segment = self.file.sizes().segment;
        loop {
            if self.stop.is_some_and(|stop| self.position >= stop) {
                return Ok(Scanned::End { position: self.position });
            }
            if self.position.is_multiple_of(segment) {
                self.position += SEGMENT_HEADER;
            }
            let room = segment - self.position % segment;
            let head = if room < HEADER as u64 { Header::Unwritten } else { self.header()? };
            match head {
                Header::Record { length, checksum, index } => return self.record(length, checksum, index),
                Header::Unwritten if self.goes_on_in_next_segment()? => {
                    self.position = self.position.next_multiple_of(segment);
                }
                Header::Unwritten => return Ok(Scanned::End { position: self.position }),
            }
        }
    }

    fn record(&mut self, length: usize, checksum: u32, index: u64) -> Result<Scanned> {
        let position = self.position;
        let torn = |detail| Ok(Scanned::Torn { position, detail });
        if length > MAX_ENTRY {
            return torn("the record's length is out of range");
        }
        if index != self.index {
            return torn("the record's index is not the next one");
        }
        let end = position + (HEADER + length) as u64;
        if end > position.next_multiple_of(self.file.sizes().segment) {
            return torn("the record crosses the segment's end");
        }
        let body = self.load(HEADER + length)?;
        let body = body.start + HEADER..body.end;
        let bytes = self.buffer.get(body.clone()).unwrap_or_default();
        if bytes.len() != length || record::checksum((length as u32).to_be_bytes(), index, bytes) != checksum
        {
            return torn("the record's checksum does not match");
        }
        self.position = end;
        self.index += 1;
        Ok(Scanned::Record { index, body, end })
    }

    fn header(&mut self) -> Result<Header> {
        let range = self.load(HEADER)?;
        Ok(self.buffer.get(range).and_then(record::header).unwrap_or(Header::Unwritten))
    }

    /// A gap at a segment's end is followed by a segment that begins with the next record.
    fn goes_on_in_next_segment(&self) -> Result<bool> {
        let number = self.position / self.file.sizes().segment + 1;
        let Some(next) = self.file.segment(number) else { return Ok(false) };
        let path = self.file.segment_of(number * self.file.sizes().segment);
        let mut bytes = [0; HEADER];
        let count =
            next.read_at(&mut bytes, SEGMENT_HEADER).map_err(|error| Error::io("read", &path, error))?;
        Ok(count == HEADER
            && matches!(record::header(&bytes), Some(Header::Record { index, .. }) if index == self.index))
    }

    /// Makes `length` bytes at the current position available; fewer at the end of the file.
    fn load(&mut self, length: usize) -> Result<Range<usize>> {
        let from = usize::try_from(self.position - self.buffer_start).unwrap_or(usize::MAX);
        if from.saturating_add(length) <= self.buffer.len() {
            return Ok(from..from + length);
        }
        let segment = self.file.sizes().segment;
        let path = self.file.segment_of(self.position);
        let in_segment = self.position % segment;
        let stop = self.stop.map_or(u64::MAX, |stop| stop.saturating_sub(self.position));
        let want = (READ as u64).min(stop).max(length as u64).min(segment - in_segment);
        self.buffer.resize(usize::try_from(want).unwrap_or(READ), 0);
        self.buffer_start = self.position;
        let Some(file) = self.file.segment(self.position / segment) else {
            self.buffer.clear();
            return Ok(0..0);
        };
        let count =
            file.read_at(&mut self.buffer, in_segment).map_err(|error| Error::io("read", &path, error))?;
        self.buffer.truncate(count);
        Ok(0..length.min(count))
    }
}

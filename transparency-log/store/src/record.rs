//! One stored entry: `u32 length ‖ u32 CRC32C ‖ u64 index ‖ bytes`, integers big-endian.
//!
//! The checksum covers length, index and bytes, so that neither a run of zeros nor a record of another place is ever
//! taken for an entry.

/// Bytes before the entry itself.
pub(crate) const HEADER: usize = 16;
/// The largest entry: an entry bundle has two bytes for its length.
pub const MAX_ENTRY: usize = 65_535;

/// What stands at a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Header {
    /// All zero: space that was reserved and not written.
    Unwritten,
    /// A record begins here.
    Record { length: usize, checksum: u32, index: u64 },
}

/// Appends a record whose bytes `fill` writes; returns where the bytes stand in `buffer`.
pub(crate) fn encode(
    buffer: &mut Vec<u8>,
    index: u64,
    fill: impl FnOnce(&mut Vec<u8>),
) -> std::ops::Range<usize> {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; HEADER]);
    fill(buffer);
    let body = start + HEADER..buffer.len();
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes();
    let checksum = checksum(length, index, buffer.get(body.clone()).unwrap_or_default());
    if let Some(header) = buffer.get_mut(start..start + HEADER) {
        let (at_length, rest) = header.split_at_mut(4);
        let (at_checksum, at_index) = rest.split_at_mut(4);
        at_length.copy_from_slice(&length);
        at_checksum.copy_from_slice(&checksum.to_be_bytes());
        at_index.copy_from_slice(&index.to_be_bytes());
    }
    body
}

/// Reads a header; `None` when fewer than [`HEADER`] bytes are given.
pub(crate) fn header(bytes: &[u8]) -> Option<Header> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (checksum, rest) = rest.split_first_chunk::<4>()?;
    let (index, _) = rest.split_first_chunk::<8>()?;
    if length == &[0; 4] && checksum == &[0; 4] && index == &[0; 8] {
        return Some(Header::Unwritten);
    }
    Some(Header::Record {
        length: u32::from_be_bytes(*length) as usize,
        checksum: u32::from_be_bytes(*checksum),
        index: u64::from_be_bytes(*index),
    })
}

/// The checksum of a record.
pub(crate) fn checksum(length: [u8; 4], index: u64, body: &[u8]) -> u32 {
    let sum = crc32c::crc32c(&length);
    let sum = crc32c::crc32c_append(sum, &index.to_be_bytes());
    crc32c::crc32c_append(sum, body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn format_is_frozen() {
        let mut bytes = Vec::new();
        let body = encode(&mut bytes, 7, |out| out.extend_from_slice(b"abc"));
        assert_eq!(body, 16..19);
        assert_eq!(
            bytes,
            [
                0, 0, 0, 3, // length
                0x4f, 0xb3, 0x8c, 0x47, // CRC32C
                0, 0, 0, 0, 0, 0, 0, 7, // index
                b'a', b'b', b'c',
            ],
            "{bytes:02x?}"
        );
    }

    #[test]
    fn zeros_are_no_record_and_an_empty_entry_is_not_zeros() {
        assert_eq!(header(&[0; 16]), Some(Header::Unwritten));
        let mut bytes = Vec::new();
        encode(&mut bytes, 0, |_| {});
        assert!(matches!(header(&bytes), Some(Header::Record { length: 0, index: 0, .. })));
        assert_eq!(header(&[0; 15]), None);
    }
}

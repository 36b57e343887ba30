//! Ranges of guest memory.

use super::ErrorCode;
use executor_engine::limits::MAX_TRANSFER_BYTES;

/// A checked range: start and end lie inside a memory of the size it was checked against.
pub(crate) fn checked(ptr: i32, len: i32, memory_size: usize) -> Result<std::ops::Range<usize>, ErrorCode> {
    // The signed type is only how WebAssembly spells 32 bits; addresses are unsigned.
    let (start, length) = (u64::from(ptr.cast_unsigned()), u64::from(len.cast_unsigned()));
    let end = start + length; // two 32-bit values cannot overflow 64 bits
    if end > memory_size as u64 {
        return Err(ErrorCode::OutOfRange);
    }
    if length > MAX_TRANSFER_BYTES as u64 {
        return Err(ErrorCode::Limit);
    }
    let start = usize::try_from(start).map_err(|_| ErrorCode::OutOfRange)?;
    let end = usize::try_from(end).map_err(|_| ErrorCode::OutOfRange)?;
    Ok(start..end)
}

/// The bytes of a range.
pub(crate) fn read(memory: &[u8], ptr: i32, len: i32) -> Result<&[u8], ErrorCode> {
    memory.get(checked(ptr, len, memory.len())?).ok_or(ErrorCode::OutOfRange)
}

/// The text of a range, at most `limit` bytes.
pub(crate) fn text(memory: &[u8], ptr: i32, len: i32, limit: usize) -> Result<&str, ErrorCode> {
    let bytes = read(memory, ptr, len)?;
    if bytes.len() > limit {
        return Err(ErrorCode::Limit);
    }
    core::str::from_utf8(bytes).map_err(|_| ErrorCode::InvalidArgument)
}

/// Copies `source` from `offset` on into the guest's buffer; returns how many bytes.
pub(crate) fn copy_out(
    memory: &mut [u8],
    ptr: i32,
    cap: i32,
    source: &[u8],
    offset: u64,
) -> Result<i32, ErrorCode> {
    let room = memory.get_mut(checked(ptr, cap, memory.len())?).ok_or(ErrorCode::OutOfRange)?;
    let rest = usize::try_from(offset).ok().and_then(|offset| source.get(offset..)).unwrap_or_default();
    let count = rest.len().min(room.len());
    if let (Some(to), Some(from)) = (room.get_mut(..count), rest.get(..count)) {
        to.copy_from_slice(from);
    }
    i32::try_from(count).map_err(|_| ErrorCode::Limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_unsigned_and_never_wrap() {
        const SIZE: usize = 65_536;
        assert_eq!(checked(0, 65_536, SIZE), Ok(0..SIZE));
        assert_eq!(checked(65_536, 0, SIZE), Ok(SIZE..SIZE));
        assert_eq!(checked(65_536, 1, SIZE), Err(ErrorCode::OutOfRange));
        assert_eq!(checked(-1, 1, SIZE), Err(ErrorCode::OutOfRange));
        assert_eq!(checked(1, -1, SIZE), Err(ErrorCode::OutOfRange));
        assert_eq!(checked(-1, -1, SIZE), Err(ErrorCode::OutOfRange));
        assert_eq!(checked(i32::MIN, 0, SIZE), Err(ErrorCode::OutOfRange));
    }

    #[test]
    fn a_transfer_is_bounded_even_inside_memory() {
        let size = 2 * MAX_TRANSFER_BYTES;
        let length = i32::try_from(MAX_TRANSFER_BYTES).unwrap();
        assert!(checked(0, length, size).is_ok());
        assert_eq!(checked(0, length + 1, size), Err(ErrorCode::Limit));
    }

    #[test]
    fn copies_what_fits_and_nothing_past_the_end() {
        let mut memory = [0u8; 8];
        assert_eq!(copy_out(&mut memory, 2, 3, b"abcdef", 1), Ok(3));
        assert_eq!(&memory, b"\0\0bcd\0\0\0");
        assert_eq!(copy_out(&mut memory, 0, 8, b"abc", 3), Ok(0));
        assert_eq!(copy_out(&mut memory, 0, 8, b"abc", u64::MAX), Ok(0));
        assert_eq!(copy_out(&mut memory, 6, 3, b"abc", 0), Err(ErrorCode::OutOfRange));
    }
}

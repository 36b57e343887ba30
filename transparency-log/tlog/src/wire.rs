//! Reading and writing the big-endian structures of TLS-style formats.

use alloc::vec::Vec;

use crate::error::Error;

/// A position in bytes that came from outside.
#[derive(Clone, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    total: usize,
    what: &'static str,
}

impl<'a> Reader<'a> {
    /// Reads `bytes`; errors say `what`.
    pub(crate) fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Self { rest: bytes, total: bytes.len(), what }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn malformed(&self) -> Error {
        Error::malformed(self.what, self.total - self.rest.len())
    }

    pub(crate) fn bytes(&mut self, length: usize) -> Result<&'a [u8], Error> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or_else(|| self.malformed())?;
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or_else(|| self.malformed())?;
        self.rest = rest;
        Ok(*taken)
    }

    /// An unsigned integer of `N` bytes, at most 8.
    pub(crate) fn uint<const N: usize>(&mut self) -> Result<u64, Error> {
        Ok(self.array::<N>()?.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    /// A vector behind a length of `N` bytes.
    pub(crate) fn vector<const N: usize>(&mut self) -> Result<&'a [u8], Error> {
        let before = self.clone();
        let length = usize::try_from(self.uint::<N>()?).map_err(|_| before.malformed())?;
        self.bytes(length).map_err(|_| before.malformed())
    }

    /// Refuses trailing bytes.
    pub(crate) fn finish(self) -> Result<(), Error> {
        if self.is_empty() { Ok(()) } else { Err(self.malformed()) }
    }
}

/// Appends the last `N` bytes of an integer.
pub(crate) fn push_uint<const N: usize>(out: &mut Vec<u8>, value: u64) {
    out.extend(value.to_be_bytes().iter().skip(8 - N));
}

/// Appends a vector behind a length of `N` bytes.
pub(crate) fn push_vector<const N: usize>(
    out: &mut Vec<u8>,
    bytes: &[u8],
    what: &'static str,
) -> Result<(), Error> {
    let limit = (1usize << (8 * N)) - 1;
    if bytes.len() > limit {
        return Err(Error::TooLarge { what, limit });
    }
    push_uint::<N>(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
    Ok(())
}

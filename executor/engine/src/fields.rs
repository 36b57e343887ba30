//! Length-prefixed little-endian fields: the alphabet of both byte formats of this crate.

/// Why bytes are not a record, job or reply of this crate's formats.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// The input ended inside a field.
    #[error("truncated at byte {offset}")]
    Truncated {
        /// Where the missing field begins.
        offset: usize,
    },
    /// The leading magic is of something else.
    #[error("not a {expected}")]
    Magic {
        /// What was expected.
        expected: &'static str,
    },
    /// A format version this build does not write.
    #[error("unknown format version {found}")]
    Version {
        /// The version found.
        found: u8,
    },
    /// A field holds a value outside its range.
    #[error("field {field} is out of range")]
    Field {
        /// Name of the field.
        field: &'static str,
    },
    /// Bytes follow where the format ends.
    #[error("trailing bytes after byte {offset}")]
    Trailing {
        /// Where the trailing bytes begin.
        offset: usize,
    },
}

/// Longest text field of either format, bytes.
const MAX_TEXT: usize = 4096;

pub(crate) fn put_text(out: &mut Vec<u8>, text: &str) {
    // Texts are names and reasons made by this workspace; a longer one is cut rather than made unreadable.
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let text = text.get(..end).unwrap_or_default();
    out.extend_from_slice(&(text.len() as u16).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// A cursor that never reads past its input.
pub(crate) struct Fields<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, offset: 0 }
    }

    pub(crate) fn offset(&self) -> usize {
        self.offset
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Result<&'a [u8], FormatError> {
        let truncated = FormatError::Truncated { offset: self.offset };
        let end = self.offset.checked_add(count).ok_or_else(|| truncated.clone())?;
        let taken = self.bytes.get(self.offset..end).ok_or(truncated)?;
        self.offset = end;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let offset = self.offset;
        self.bytes(N)?.try_into().map_err(|_| FormatError::Truncated { offset })
    }

    pub(crate) fn u8(&mut self) -> Result<u8, FormatError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, FormatError> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn text(&mut self, field: &'static str) -> Result<&'a str, FormatError> {
        let length = usize::from(u16::from_le_bytes(self.array()?));
        if length > MAX_TEXT {
            return Err(FormatError::Field { field });
        }
        core::str::from_utf8(self.bytes(length)?).map_err(|_| FormatError::Field { field })
    }

    /// Reads the magic and the version byte.
    pub(crate) fn header(
        &mut self,
        magic: &[u8; 4],
        name: &'static str,
        version: u8,
    ) -> Result<(), FormatError> {
        if &self.array::<4>().map_err(|_| FormatError::Magic { expected: name })? != magic {
            return Err(FormatError::Magic { expected: name });
        }
        match self.u8()? {
            found if found == version => Ok(()),
            found => Err(FormatError::Version { found }),
        }
    }
}

//! Entry bundles (C2SP tlog-tiles): up to 256 entries, each behind a u16 length.

use alloc::vec::Vec;

use crate::error::Error;
use crate::hash::{Hash, LeafHash, leaf_hash};
use crate::tile::BundleId;
use crate::wire::{Reader, push_vector};

/// Largest entry in bytes.
pub const MAX_ENTRY_SIZE: usize = 65_535;

/// Largest bundle in bytes: checked by readers before they parse or even buffer one.
pub const MAX_BUNDLE_SIZE: usize = 256 * (MAX_ENTRY_SIZE + 2);

/// The entries of one bundle, borrowed from its bytes. Nothing says yet that they belong to a tree: see
/// [`verify`](Self::verify).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EntryBundle<'a> {
    id: BundleId,
    entries: Vec<&'a [u8]>,
}

impl<'a> EntryBundle<'a> {
    /// Reads exactly as many entries as the bundle's path says.
    ///
    /// # Errors
    /// [`Error::Malformed`] for a cut entry, a missing entry or bytes after the last one.
    pub fn parse(id: BundleId, bytes: &'a [u8]) -> Result<Self, Error> {
        let mut reader = Reader::new(bytes, "entry bundle does not hold exactly its entries");
        let mut entries = Vec::with_capacity(usize::from(id.width()));
        for _ in 0..id.width() {
            entries.push(reader.vector::<2>()?);
        }
        reader.finish()?;
        Ok(Self { id, entries })
    }

    /// Which bundle this is.
    #[must_use]
    pub fn id(&self) -> BundleId {
        self.id
    }

    /// The entries from left to right.
    #[must_use]
    pub fn entries(&self) -> &[&'a [u8]] {
        &self.entries
    }

    /// Leaf hashes of the entries.
    pub fn leaf_hashes(&self) -> impl Iterator<Item = LeafHash> + '_ {
        self.entries.iter().map(|entry| leaf_hash(entry))
    }

    /// The first `width` entries, for a reader that wanted a partial bundle and got the full one; `None` when
    /// the bundle is narrower or `width` is 0.
    #[must_use]
    pub fn cut(mut self, width: u16) -> Option<Self> {
        let id = BundleId::new(self.id.index(), width)?;
        if width > self.id.width() {
            return None;
        }
        self.entries.truncate(usize::from(width));
        self.id = id;
        Some(self)
    }

    /// Compares every entry with the item at the same place of the verified level-0 tile.
    ///
    /// # Errors
    /// [`Error::TileMismatch`] when an entry is another one, or the tile is not exactly as wide.
    pub fn verify(&self, leaf_tile: &[Hash]) -> Result<(), Error> {
        if leaf_tile.len() == self.entries.len()
            && self.leaf_hashes().zip(leaf_tile).all(|(entry, item)| entry.hash() == *item)
        {
            Ok(())
        } else {
            Err(Error::TileMismatch { path: alloc::format!("{}", self.id) })
        }
    }
}

/// Appends an entry to the bytes of a bundle.
///
/// # Errors
/// [`Error::TooLarge`] above [`MAX_ENTRY_SIZE`].
pub fn append_entry(bundle: &mut Vec<u8>, entry: &[u8]) -> Result<(), Error> {
    push_vector::<2>(bundle, entry, "entry")
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn bytes_are_frozen() {
        let mut bytes = Vec::new();
        for entry in [b"ab".as_slice(), b"", b"c"] {
            append_entry(&mut bytes, entry).unwrap();
        }
        assert_eq!(bytes, b"\0\x02ab\0\0\0\x01c");
        let bundle = EntryBundle::parse(BundleId::new(0, 3).unwrap(), &bytes).unwrap();
        assert_eq!(bundle.entries(), [b"ab".as_slice(), b"", b"c"]);
        assert_eq!(bundle.cut(2).unwrap().entries(), [b"ab".as_slice(), b""]);
    }

    #[test]
    fn holds_exactly_its_entries() {
        let bytes = b"\0\x02ab\0\0\0\x01c";
        for width in [1, 2, 4, 256] {
            let id = BundleId::new(0, width).unwrap();
            assert_eq!(EntryBundle::parse(id, bytes).unwrap_err().code(), "malformed", "{width}");
        }
        let id = BundleId::new(0, 3).unwrap();
        assert_eq!(
            EntryBundle::parse(id, &bytes[..8]).unwrap_err(),
            Error::Malformed { what: "entry bundle does not hold exactly its entries", at: 6 }
        );
        assert_eq!(append_entry(&mut Vec::new(), &vec![0; 65_536]).unwrap_err().code(), "too_large");
    }

    #[test]
    fn every_entry_is_compared_with_its_leaf() {
        let bytes = b"\0\x01a\0\x01b";
        let bundle = EntryBundle::parse(BundleId::new(7, 2).unwrap(), bytes).unwrap();
        let (a, b) = (leaf_hash(b"a").hash(), leaf_hash(b"b").hash());
        assert_eq!(bundle.verify(&[a, b]), Ok(()));
        for wrong in [vec![b, a], vec![a, a], vec![a], vec![a, b, b], vec![]] {
            assert_eq!(
                bundle.verify(&wrong),
                Err(Error::TileMismatch { path: "tile/entries/007.p/2".into() })
            );
        }
    }
}

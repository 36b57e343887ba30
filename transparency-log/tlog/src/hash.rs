//! SHA-256 hashes of the Merkle tree (RFC 6962 section 2.1, RFC 9162 section 2.1.1).
//!
//! A leaf is `SHA-256(0x00 ‖ entry)`, a node `SHA-256(0x01 ‖ left ‖ right)`: the prefix byte keeps an entry from
//! posing as a node. The root of the empty tree is the hash of no bytes, [`EMPTY_ROOT`].

use alloc::string::String;
use core::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::block_api::compress256;
use sha2::{Digest as _, Sha256};

use crate::error::Error;

/// Length of a hash in bytes.
pub const HASH_SIZE: usize = 32;

/// Largest size, index and time that the formats allow: 2^63-1.
pub const MAX_SIZE: u64 = i64::MAX as u64;

/// Root of the tree without leaves: SHA-256 of nothing.
pub const EMPTY_ROOT: Hash = Hash([
    0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24, 0x27,
    0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
]);

/// A SHA-256 hash: of a node, a root, or anything else.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Hash(pub [u8; HASH_SIZE]);

impl Hash {
    /// SHA-256 of `bytes`, without any prefix.
    #[must_use]
    pub fn digest(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; HASH_SIZE] {
        &self.0
    }

    /// Takes exactly 32 bytes.
    ///
    /// # Errors
    /// [`Error::Malformed`] for any other length.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, Error> {
        bytes.try_into().map(Self).map_err(|_| Error::malformed("a hash has 32 bytes", bytes.len()))
    }

    /// The form used in text formats: padded standard base64, 44 characters.
    #[must_use]
    pub fn to_base64(&self) -> String {
        STANDARD.encode(self.0)
    }

    /// Reads what [`to_base64`](Self::to_base64) prints, and nothing else.
    ///
    /// # Errors
    /// [`Error::Malformed`] for wrong padding, non-zero padding bits, white space or another length.
    pub fn from_base64(text: &str) -> Result<Self, Error> {
        if text.len() != 44 {
            return Err(Error::malformed("a hash has 44 base64 characters", text.len()));
        }
        let mut out = [0u8; 33];
        match STANDARD.decode_slice(text, &mut out) {
            Ok(HASH_SIZE) => Self::from_slice(out.get(..HASH_SIZE).unwrap_or_default()),
            _ => Err(Error::malformed("a hash is not canonical base64", 0)),
        }
    }
}

impl AsRef<[u8]> for Hash {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl From<[u8; HASH_SIZE]> for Hash {
    fn from(bytes: [u8; HASH_SIZE]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for Hash {
    /// Lower-case hexadecimal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hash({self})")
    }
}

/// The hash of an entry: a type of its own, so that an inner node is never taken for a leaf by accident.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct LeafHash(Hash);

impl LeafHash {
    /// A leaf hash that was stored or received as such. Where the entry is at hand, use [`leaf_hash`]: a proof
    /// for a hash that nobody computed from an entry says nothing about any entry.
    #[must_use]
    pub fn from_stored(hash: Hash) -> Self {
        Self(hash)
    }

    /// The hash as a node of level 0.
    #[must_use]
    pub fn hash(&self) -> Hash {
        self.0
    }

    /// The 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; HASH_SIZE] {
        self.0.as_bytes()
    }
}

/// Size and root hash of a tree.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct TreeHead {
    /// Number of leaves.
    pub size: u64,
    /// Root hash; [`EMPTY_ROOT`] when `size` is 0.
    pub root: Hash,
}

impl TreeHead {
    /// The tree without leaves.
    pub const EMPTY: Self = Self { size: 0, root: EMPTY_ROOT };
}

/// Leaf hash of an entry: `SHA-256(0x00 ‖ entry)`. Allocates nothing.
#[must_use]
pub fn leaf_hash(entry: &[u8]) -> LeafHash {
    let mut hasher = Sha256::new();
    hasher.update([0x00]);
    hasher.update(entry);
    LeafHash(Hash(hasher.finalize().into()))
}

/// Hash of an inner node: `SHA-256(0x01 ‖ left ‖ right)`. Allocates nothing.
///
/// The message always has 65 bytes, that is two blocks, of which the second is one byte of `right`, padding and a
/// constant length. Laying out the blocks here saves the hasher's buffering, a quarter of the time of what a log does
/// most.
#[must_use]
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let [right_start @ .., right_end] = &right.0;
    let mut blocks = [[0u8; 64]; 2];
    let [first, second] = &mut blocks;
    let [prefix, children @ ..] = first;
    let (left_half, right_half) = children.split_at_mut(HASH_SIZE);
    *prefix = 0x01;
    left_half.copy_from_slice(&left.0);
    right_half.copy_from_slice(right_start);
    let [last, padding, .., length_high, length_low] = second;
    *last = *right_end;
    *padding = 0x80;
    [*length_high, *length_low] = NODE_BITS.to_be_bytes();
    let mut state = INITIAL_STATE;
    compress256(&mut state, &blocks);
    let mut hash = [0u8; HASH_SIZE];
    for (bytes, word) in hash.as_chunks_mut::<4>().0.iter_mut().zip(state) {
        *bytes = word.to_be_bytes();
    }
    Hash(hash)
}

/// Length of a node's message in bits.
const NODE_BITS: u16 = 8 * (1 + 2 * HASH_SIZE as u16);

/// Initial state of SHA-256 (FIPS 180-4 section 5.3.3).
const INITIAL_STATE: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_root_is_the_hash_of_nothing() {
        assert_eq!(Hash::digest(b""), EMPTY_ROOT);
        assert_eq!(EMPTY_ROOT.to_base64(), "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
        assert_eq!(Hash::from_base64("47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="), Ok(EMPTY_ROOT));
    }

    #[test]
    fn refuses_base64_that_is_not_canonical() {
        for text in [
            "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU",
            "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFV=",
            "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuF==",
            "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU=",
            "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFUA",
            "",
        ] {
            assert_eq!(Hash::from_base64(text).unwrap_err().code(), "malformed", "{text}");
        }
    }

    #[test]
    fn prefixes_separate_leaves_from_nodes() {
        let (a, b) = (leaf_hash(b"a").hash(), leaf_hash(b"b").hash());
        let mut as_entry = [0u8; 64];
        as_entry[..32].copy_from_slice(a.as_bytes());
        as_entry[32..].copy_from_slice(b.as_bytes());
        assert_ne!(leaf_hash(&as_entry).hash(), node_hash(&a, &b));
        assert_eq!(Hash::digest(b"\0a"), a);
    }

    #[test]
    fn nodes_are_what_a_plain_hasher_says() {
        let (mut left, mut right) = (Hash([0x00; 32]), Hash([0xff; 32]));
        for _ in 0..200 {
            let plain = Hash::digest(&[b"\x01".as_slice(), &left.0, &right.0].concat());
            assert_eq!(node_hash(&left, &right), plain);
            (left, right) = (right, plain);
        }
    }
}

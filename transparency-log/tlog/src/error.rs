//! Every way in which this crate says no.

use alloc::string::String;
use core::fmt;

use crate::hash::TreeHead;

/// Why data was refused.
///
/// [`code`](Self::code) gives a stable word per variant; texts may change.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Error {
    /// A consistency proof was asked between sizes in the wrong order.
    ConsistencySizes {
        /// Size of the older tree.
        old: u64,
        /// Size of the newer tree.
        new: u64,
    },
    /// A leaf index is not below the tree size.
    IndexOutOfRange {
        /// The index asked for.
        index: u64,
        /// The size of the tree.
        size: u64,
    },
    /// `[start, end)` is not a valid subtree of a tree of `size` leaves (MTC draft section 4.1).
    InvalidSubtree {
        /// First leaf of the interval.
        start: u64,
        /// One past the last leaf of the interval.
        end: u64,
        /// Size of the tree.
        size: u64,
    },
    /// Bytes do not follow the grammar of their format.
    Malformed {
        /// Format and rule, for people.
        what: &'static str,
        /// Byte offset at which the rule is broken.
        at: usize,
    },
    /// No line of the note verifies under a key that is allowed to sign it.
    NoTrustedSignature,
    /// A node was asked for that the tree of this size does not have, or that was not fetched.
    NodeMissing {
        /// Level of the node, 0 for leaves.
        level: u8,
        /// Index of the node within its level.
        index: u64,
    },
    /// The first line of a checkpoint is not the origin that was expected.
    OriginMismatch,
    /// A proof does not have exactly the number of hashes its indices demand.
    ProofLength {
        /// Hashes demanded.
        expected: usize,
        /// Hashes given.
        actual: usize,
    },
    /// The witnesses' cosignatures do not satisfy the policy's quorum.
    QuorumNotReached,
    /// A computed root differs from the root that was promised.
    RootMismatch {
        /// The head the computation was compared with.
        head: TreeHead,
    },
    /// A line of a known key is not a valid signature.
    SignatureInvalid {
        /// Name of that key.
        name: String,
    },
    /// A size, index or time above 2^63-1.
    SizeTooLarge {
        /// The number given.
        value: u64,
    },
    /// A tile's bytes are not those which the verified tree demands.
    TileMismatch {
        /// Path of the tile.
        path: String,
    },
    /// More bytes than the format allows; nothing was parsed.
    TooLarge {
        /// What was too large.
        what: &'static str,
        /// The limit in bytes or items.
        limit: usize,
    },
    /// A key whose type cannot do what was asked of it.
    UnsupportedKey {
        /// The type byte of the key.
        kind: u8,
    },
}

impl Error {
    /// A stable, documented word for the kind of failure.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::ConsistencySizes { .. } => "consistency_sizes",
            Self::IndexOutOfRange { .. } => "index_out_of_range",
            Self::InvalidSubtree { .. } => "invalid_subtree",
            Self::Malformed { .. } => "malformed",
            Self::NoTrustedSignature => "no_trusted_signature",
            Self::NodeMissing { .. } => "node_missing",
            Self::OriginMismatch => "origin_mismatch",
            Self::ProofLength { .. } => "proof_length",
            Self::QuorumNotReached => "quorum_not_reached",
            Self::RootMismatch { .. } => "root_mismatch",
            Self::SignatureInvalid { .. } => "signature_invalid",
            Self::SizeTooLarge { .. } => "size_too_large",
            Self::TileMismatch { .. } => "tile_mismatch",
            Self::TooLarge { .. } => "too_large",
            Self::UnsupportedKey { .. } => "unsupported_key",
        }
    }

    pub(crate) fn malformed(what: &'static str, at: usize) -> Self {
        Self::Malformed { what, at }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConsistencySizes { old, new } => write!(f, "tree size {old} is larger than {new}"),
            Self::IndexOutOfRange { index, size } => {
                write!(f, "leaf index {index} is not in a tree of {size} leaves")
            }
            Self::InvalidSubtree { start, end, size } => {
                write!(f, "[{start}, {end}) is not a valid subtree of a tree of {size} leaves")
            }
            Self::Malformed { what, at } => write!(f, "{what} (at byte {at})"),
            Self::NoTrustedSignature => f.write_str("no valid signature of a trusted key"),
            Self::NodeMissing { level, index } => write!(f, "node {index} of level {level} is not available"),
            Self::OriginMismatch => f.write_str("the checkpoint is of another log"),
            Self::ProofLength { expected, actual } => {
                write!(f, "the proof has {actual} hashes, {expected} are needed")
            }
            Self::QuorumNotReached => f.write_str("the witnesses' quorum is not reached"),
            Self::RootMismatch { head } => write!(f, "the computed root of size {} differs", head.size),
            Self::SignatureInvalid { name } => write!(f, "the signature of {name} is not valid"),
            Self::SizeTooLarge { value } => write!(f, "{value} is above 2^63-1"),
            Self::TileMismatch { path } => write!(f, "{path} does not belong to the verified tree"),
            Self::TooLarge { what, limit } => write!(f, "{what} exceeds the limit of {limit}"),
            Self::UnsupportedKey { kind } => write!(f, "a key of type 0x{kind:02x} cannot be used here"),
        }
    }
}

impl core::error::Error for Error {}

//! Certificate logs as static files (C2SP static-ct-api) and the RFC 6962 structures they keep.
//!
//! | type | is |
//! |---|---|
//! | [`TimestampedEntry`] | what the log says about a certificate: when, which, at which index |
//! | [`TimestampedEntry::merkle_tree_leaf`] | the bytes whose leaf hash is in the tree |
//! | [`TimestampedEntry::sct_message`] | the bytes an SCT signs |
//! | [`DataTileRecord`] | the entry with its chain, as served in `tile/data/` |
//! | [`SignedCertificateTimestamp`] | the promise handed to the submitter |
//! | [`TreeHeadSignature`] | the signature line of type 0x05 on the log's checkpoints |

mod entry;
mod sct;
mod tree_head;

pub use entry::{DataTileRecord, SignedEntry, TimestampedEntry, parse_data_tile};
pub use sct::{
    DigitallySigned, Extensions, MAX_LEAF_INDEX, SignedCertificateTimestamp, encode_sct_list, parse_sct_list,
};
pub use tree_head::TreeHeadSignature;

use crate::hash::Hash;

/// `SignatureAndHashAlgorithm` of SHA-256.
pub const SHA256: u8 = 4;

/// `SignatureAndHashAlgorithm` of ECDSA.
pub const ECDSA: u8 = 3;

/// Only version of RFC 6962 structures.
pub(crate) const V1: u8 = 0;

/// ID of a certificate log: SHA-256 of its DER SubjectPublicKeyInfo.
#[must_use]
pub fn log_id(spki: &[u8]) -> Hash {
    Hash::digest(spki)
}

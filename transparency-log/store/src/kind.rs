//! What each kind of log fixes: entry encoding, deduplication, checkpoint format.

use std::borrow::Cow;

use tlog::hash::{Hash, LeafHash, leaf_hash};

use crate::certificate::{CertificateRecord, leaf_of_record};

/// The kinds of log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum LogKind {
    /// Signatures, as Rekor v2 `hashedrekord` bodies.
    Signing,
    /// Certificates, as static-ct entries; index and time are bound by the sequencer.
    Issuance,
    /// Statements about events, as DSSE envelopes.
    Event,
    /// Any bytes.
    Raw,
    /// Execution receipts; each is unique, so they are not deduplicated.
    Receipts,
}

/// Whether an entry that is in the log already is answered with the index it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deduplication {
    /// By the full SHA-256 of the kind's key, and a comparison of the stored bytes.
    Exact,
    /// Every submission is a new entry.
    Off,
}

impl LogKind {
    /// All kinds.
    pub const ALL: [Self; 5] = [Self::Signing, Self::Issuance, Self::Event, Self::Raw, Self::Receipts];

    /// The name used in configuration, origins and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Signing => "signing",
            Self::Issuance => "issuance",
            Self::Event => "event",
            Self::Raw => "raw",
            Self::Receipts => "receipts",
        }
    }

    /// Reads [`as_str`](Self::as_str).
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// The deduplication a log of this kind has unless it is configured otherwise.
    #[must_use]
    pub const fn default_deduplication(self) -> Deduplication {
        match self {
            Self::Signing | Self::Issuance | Self::Event | Self::Raw => Deduplication::Exact,
            Self::Receipts => Deduplication::Off,
        }
    }

    /// The bytes that the Merkle tree hashes, given the bytes that are stored: the same, except that an issuance log
    /// stores a certificate with its chain's fingerprints and hashes the RFC 6962 `MerkleTreeLeaf`.
    #[must_use]
    pub fn leaf_input(self, stored: &[u8]) -> Option<Cow<'_, [u8]>> {
        match self {
            Self::Issuance => leaf_of_record(stored).map(Cow::Owned),
            Self::Signing | Self::Event | Self::Raw | Self::Receipts => Some(Cow::Borrowed(stored)),
        }
    }

    /// The leaf hash of stored bytes; `None` when they are no entry of this kind.
    #[must_use]
    pub fn leaf_hash(self, stored: &[u8]) -> Option<LeafHash> {
        self.leaf_input(stored).map(|leaf| leaf_hash(&leaf))
    }

    /// The time that was bound to a stored entry, Unix milliseconds; `None` for kinds that bind no time, and for bytes
    /// that are no entry of this kind.
    #[must_use]
    pub fn bound_time(self, stored: &[u8]) -> Option<u64> {
        match self {
            Self::Issuance => CertificateRecord::parse(stored).map(|record| record.time_millis),
            Self::Signing | Self::Event | Self::Raw | Self::Receipts => None,
        }
    }

    /// Whether the deduplication key is the leaf hash, so that the key of a stored entry is known from its tile.
    pub(crate) const fn keyed_by_leaf(self) -> bool {
        !matches!(self, Self::Issuance)
    }
}

/// The full SHA-256 by which a log finds duplicates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EntryKey(pub Hash);

impl EntryKey {
    /// The 80 bits by which the index finds candidates. The stored bytes decide.
    pub(crate) fn prefix(&self) -> u128 {
        let mut bytes = [0; 16];
        if let (Some(to), Some(from)) = (bytes.get_mut(6..), self.0.as_bytes().get(..10)) {
            to.copy_from_slice(from);
        }
        u128::from_be_bytes(bytes)
    }
}

impl From<LeafHash> for EntryKey {
    fn from(leaf: LeafHash) -> Self {
        Self(leaf.hash())
    }
}

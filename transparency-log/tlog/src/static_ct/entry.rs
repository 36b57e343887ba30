//! Entries of a certificate log: what is hashed, what is signed, what is stored.

use alloc::vec::Vec;

use super::{Extensions, V1};
use crate::error::Error;
use crate::hash::{HASH_SIZE, Hash, LeafHash, MAX_SIZE, leaf_hash};
use crate::tile::BundleId;
use crate::wire::{Reader, push_uint, push_vector};

/// `MerkleLeafType.timestamped_entry`.
const TIMESTAMPED_ENTRY: u8 = 0;

/// `SignatureType.certificate_timestamp`.
const CERTIFICATE_TIMESTAMP: u8 = 0;

const X509_ENTRY: u64 = 0;
const PRECERT_ENTRY: u64 = 1;

/// The certificate part of an entry.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum SignedEntry {
    /// A precertificate: its to-be-signed part without poison, bound to the key that will sign it.
    Precertificate {
        /// SHA-256 of the issuer's SubjectPublicKeyInfo.
        issuer_key_hash: Hash,
        /// DER TBSCertificate without the poison extension.
        tbs_certificate: Vec<u8>,
    },
    /// A certificate in DER.
    X509(Vec<u8>),
}

/// What a certificate log says about one certificate (RFC 6962 section 3.4).
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct TimestampedEntry {
    /// POSIX time in milliseconds.
    pub timestamp: u64,
    /// The certificate.
    pub entry: SignedEntry,
    /// Extensions; a static log gives the index here.
    pub extensions: Extensions,
}

impl TimestampedEntry {
    /// The `MerkleTreeLeaf`: the bytes whose leaf hash is in the tree.
    ///
    /// # Errors
    /// [`Error::TooLarge`] for a certificate of 16 MiB or more.
    pub fn merkle_tree_leaf(&self) -> Result<Vec<u8>, Error> {
        self.with_prefix(&[V1, TIMESTAMPED_ENTRY])
    }

    /// Leaf hash of the entry.
    ///
    /// # Errors
    /// [`Error::TooLarge`] for a certificate of 16 MiB or more.
    pub fn leaf_hash(&self) -> Result<LeafHash, Error> {
        Ok(leaf_hash(&self.merkle_tree_leaf()?))
    }

    /// The bytes an SCT for this entry signs (RFC 6962 section 3.2).
    ///
    /// # Errors
    /// [`Error::TooLarge`] for a certificate of 16 MiB or more.
    pub fn sct_message(&self) -> Result<Vec<u8>, Error> {
        self.with_prefix(&[V1, CERTIFICATE_TIMESTAMP])
    }

    /// Reads a `MerkleTreeLeaf`.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::SizeTooLarge`] for the time.
    pub fn parse_merkle_tree_leaf(bytes: &[u8]) -> Result<Self, Error> {
        let mut reader = Reader::new(bytes, "MerkleTreeLeaf does not follow RFC 6962 section 3.4");
        let before = reader.clone();
        if reader.array()? != [V1, TIMESTAMPED_ENTRY] {
            return Err(before.malformed());
        }
        let entry = Self::read(&mut reader)?;
        reader.finish()?;
        Ok(entry)
    }

    fn with_prefix(&self, prefix: &[u8]) -> Result<Vec<u8>, Error> {
        let mut out = prefix.to_vec();
        self.write(&mut out)?;
        Ok(out)
    }

    fn write(&self, out: &mut Vec<u8>) -> Result<(), Error> {
        push_uint::<8>(out, self.timestamp);
        match &self.entry {
            SignedEntry::X509(certificate) => {
                push_uint::<2>(out, X509_ENTRY);
                push_vector::<3>(out, certificate, "certificate")?;
            }
            SignedEntry::Precertificate { issuer_key_hash, tbs_certificate } => {
                push_uint::<2>(out, PRECERT_ENTRY);
                out.extend_from_slice(issuer_key_hash.as_bytes());
                push_vector::<3>(out, tbs_certificate, "TBSCertificate")?;
            }
        }
        push_vector::<2>(out, self.extensions.as_bytes(), "extensions")
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, Error> {
        let start = reader.clone();
        let timestamp = reader.uint::<8>()?;
        let entry = match reader.uint::<2>()? {
            X509_ENTRY => SignedEntry::X509(non_empty(reader)?.to_vec()),
            PRECERT_ENTRY => SignedEntry::Precertificate {
                issuer_key_hash: Hash(reader.array()?),
                tbs_certificate: non_empty(reader)?.to_vec(),
            },
            _ => return Err(start.malformed()),
        };
        let extensions = Extensions::parse(reader.vector::<2>()?)?;
        if timestamp > MAX_SIZE {
            return Err(Error::SizeTooLarge { value: timestamp });
        }
        Ok(Self { timestamp, entry, extensions })
    }
}

/// One record of a data tile: the entry and how its chain is found.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct DataTileRecord {
    /// The entry.
    pub entry: TimestampedEntry,
    /// The submitted precertificate in DER; present exactly when the entry is one.
    pub precertificate: Option<Vec<u8>>,
    /// SHA-256 of each certificate of the chain above the submitted one, served under `issuer/`.
    pub chain: Vec<Hash>,
}

impl DataTileRecord {
    /// Appends the record to a data tile.
    ///
    /// # Errors
    /// [`Error::Malformed`] when a precertificate is given for a certificate or missing for a precertificate;
    /// [`Error::TooLarge`] for a part that its length field cannot hold. Nothing useful is in `out` then.
    pub fn write(&self, out: &mut Vec<u8>) -> Result<(), Error> {
        self.entry.write(out)?;
        match (&self.entry.entry, &self.precertificate) {
            (SignedEntry::X509(_), None) => {}
            (SignedEntry::Precertificate { .. }, Some(der)) => push_vector::<3>(out, der, "precertificate")?,
            _ => return Err(Error::malformed("precertificate and entry type do not fit", out.len())),
        }
        let chain: Vec<u8> = self.chain.iter().flat_map(|hash| hash.0).collect();
        push_vector::<2>(out, &chain, "certificate chain")
    }

    /// The record as bytes.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let mut out = Vec::new();
        self.write(&mut out)?;
        Ok(out)
    }

    /// Reads one record that fills `bytes`.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::SizeTooLarge`] for the time.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let mut reader = Reader::new(bytes, DATA_TILE);
        let record = Self::read(&mut reader)?;
        reader.finish()?;
        Ok(record)
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, Error> {
        let entry = TimestampedEntry::read(reader)?;
        let precertificate = match entry.entry {
            SignedEntry::Precertificate { .. } => Some(non_empty(reader)?.to_vec()),
            SignedEntry::X509(_) => None,
        };
        let before = reader.clone();
        let (chain, rest) = reader.vector::<2>()?.as_chunks::<HASH_SIZE>();
        if !rest.is_empty() {
            return Err(before.malformed());
        }
        Ok(Self { entry, precertificate, chain: chain.iter().copied().map(Hash).collect() })
    }
}

const DATA_TILE: &str = "data tile does not follow static-ct-api";

/// Reads a data tile of exactly as many records as its path says.
///
/// # Errors
/// [`Error::Malformed`], also for missing or additional records; [`Error::SizeTooLarge`] for a time.
pub fn parse_data_tile(id: BundleId, bytes: &[u8]) -> Result<Vec<DataTileRecord>, Error> {
    let mut reader = Reader::new(bytes, DATA_TILE);
    let mut records = Vec::with_capacity(usize::from(id.width()));
    for _ in 0..id.width() {
        records.push(DataTileRecord::read(&mut reader)?);
    }
    reader.finish()?;
    Ok(records)
}

/// A vector behind a u24 length that RFC 6962 declares with at least one byte.
fn non_empty<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], Error> {
    let before = reader.clone();
    match reader.vector::<3>()? {
        [] => Err(before.malformed()),
        bytes => Ok(bytes),
    }
}

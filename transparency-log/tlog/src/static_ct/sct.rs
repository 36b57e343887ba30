//! Signed certificate timestamps (RFC 6962 sections 3.2 and 3.3) and their extensions (static-ct-api).

use alloc::vec::Vec;

use super::{SignedEntry, TimestampedEntry, V1};
use crate::error::Error;
use crate::hash::{Hash, MAX_SIZE};
use crate::signature::{Algorithm, InvalidSignature, SignatureVerifier};
use crate::wire::{Reader, push_uint, push_vector};

/// Largest index the `leaf_index` extension can say: 2^40-1.
pub const MAX_LEAF_INDEX: u64 = (1 << 40) - 1;

/// Extension type of `leaf_index`.
const LEAF_INDEX: u8 = 0;

/// Extensions of an SCT or log entry: part of what is signed and hashed, kept as bytes.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct Extensions {
    bytes: Vec<u8>,
    leaf_index: Option<u64>,
}

impl Extensions {
    /// The one extension of a static log: the index of the entry.
    ///
    /// # Errors
    /// [`Error::SizeTooLarge`] for an index above [`MAX_LEAF_INDEX`].
    pub fn leaf_index(index: u64) -> Result<Self, Error> {
        if index > MAX_LEAF_INDEX {
            return Err(Error::SizeTooLarge { value: index });
        }
        let mut bytes = Vec::with_capacity(8);
        bytes.push(LEAF_INDEX);
        push_uint::<2>(&mut bytes, 5);
        push_uint::<5>(&mut bytes, index);
        Ok(Self { bytes, leaf_index: Some(index) })
    }

    /// Reads a list of (u8 type, u16 length, data). Unknown types are kept; their order is free.
    ///
    /// # Errors
    /// [`Error::Malformed`], also for a type that occurs twice or an index that is not 5 bytes long.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let mut reader = Reader::new(bytes, "SCT extensions are not a list without duplicates");
        let mut seen = [false; 256];
        let mut leaf_index = None;
        while !reader.is_empty() {
            let before = reader.clone();
            let [kind] = reader.array::<1>()?;
            let data = reader.vector::<2>()?;
            if seen.get_mut(usize::from(kind)).is_some_and(|seen| core::mem::replace(seen, true)) {
                return Err(before.malformed());
            }
            if kind == LEAF_INDEX {
                let mut data = Reader::new(data, "leaf_index extension is not 5 bytes long");
                leaf_index = Some(data.uint::<5>()?);
                data.finish()?;
            }
        }
        Ok(Self { bytes: bytes.to_vec(), leaf_index })
    }

    /// The index, when the extension is there.
    #[must_use]
    pub fn index(&self) -> Option<u64> {
        self.leaf_index
    }

    /// The list as bytes, without an outer length.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// A signature with its algorithm (RFC 5246 section 4.7).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DigitallySigned {
    /// Hash algorithm; [`SHA256`](super::SHA256) in every log of today.
    pub hash: u8,
    /// Signature algorithm; [`ECDSA`](super::ECDSA) in most.
    pub algorithm: u8,
    /// The signature; ASN.1 DER for ECDSA.
    pub signature: Vec<u8>,
}

impl DigitallySigned {
    /// An ECDSA signature with SHA-256.
    #[must_use]
    pub fn ecdsa_sha256(signature: Vec<u8>) -> Self {
        Self { hash: super::SHA256, algorithm: super::ECDSA, signature }
    }

    /// Reads the whole of `bytes`, as the `signature` field of an `add-chain` answer holds it.
    ///
    /// # Errors
    /// [`Error::Malformed`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let mut reader = Reader::new(bytes, "DigitallySigned is not two algorithms and a signature");
        let signed = Self::read(&mut reader)?;
        reader.finish()?;
        Ok(signed)
    }

    /// The bytes.
    ///
    /// # Errors
    /// [`Error::TooLarge`] for a signature above 65,535 bytes.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let mut out = Vec::with_capacity(4 + self.signature.len());
        self.write(&mut out)?;
        Ok(out)
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, Error> {
        let [hash, algorithm] = reader.array::<2>()?;
        Ok(Self { hash, algorithm, signature: reader.vector::<2>()?.to_vec() })
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) -> Result<(), Error> {
        out.extend_from_slice(&[self.hash, self.algorithm]);
        push_vector::<2>(out, &self.signature, "signature")
    }
}

/// A log's promise that an entry is in it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SignedCertificateTimestamp {
    /// ID of the log: SHA-256 of its SubjectPublicKeyInfo.
    pub log_id: Hash,
    /// POSIX time in milliseconds.
    pub timestamp: u64,
    /// Extensions; a static log gives the index here.
    pub extensions: Extensions,
    /// Signature over [`TimestampedEntry::sct_message`](super::TimestampedEntry::sct_message).
    pub signature: DigitallySigned,
}

impl SignedCertificateTimestamp {
    /// Reads one serialised SCT of version 1.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::SizeTooLarge`] for the time.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let mut reader = Reader::new(bytes, "SCT does not follow RFC 6962 section 3.2");
        let before = reader.clone();
        let [version] = reader.array::<1>()?;
        if version != V1 {
            return Err(before.malformed());
        }
        let log_id = Hash(reader.array()?);
        let timestamp = reader.uint::<8>()?;
        let extensions = Extensions::parse(reader.vector::<2>()?)?;
        let signature = DigitallySigned::read(&mut reader)?;
        reader.finish()?;
        if timestamp > MAX_SIZE {
            return Err(Error::SizeTooLarge { value: timestamp });
        }
        Ok(Self { log_id, timestamp, extensions, signature })
    }

    /// Verifies the signature over an entry. `public_key` is the log's P-256 point, uncompressed; that it is the
    /// key of [`log_id`](Self::log_id) is for the caller to know.
    ///
    /// # Errors
    /// [`Error::SignatureInvalid`], [`Error::UnsupportedKey`] for another algorithm than ECDSA with SHA-256,
    /// [`Error::TooLarge`] for a certificate of 16 MiB or more.
    pub fn verify(
        &self,
        entry: SignedEntry,
        public_key: &[u8],
        verifier: &dyn SignatureVerifier,
    ) -> Result<(), Error> {
        if (self.signature.hash, self.signature.algorithm) != (super::SHA256, super::ECDSA) {
            return Err(Error::UnsupportedKey { kind: self.signature.algorithm });
        }
        let signed =
            TimestampedEntry { timestamp: self.timestamp, entry, extensions: self.extensions.clone() };
        verifier
            .verify(Algorithm::EcdsaP256Sha256, public_key, &signed.sct_message()?, &self.signature.signature)
            .map_err(|InvalidSignature| Error::SignatureInvalid { name: self.log_id.to_base64() })
    }

    /// The serialised SCT.
    ///
    /// # Errors
    /// [`Error::TooLarge`] for extensions or a signature above 65,535 bytes.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let mut out = Vec::with_capacity(128);
        out.push(V1);
        out.extend_from_slice(self.log_id.as_bytes());
        push_uint::<8>(&mut out, self.timestamp);
        push_vector::<2>(&mut out, self.extensions.as_bytes(), "SCT extensions")?;
        self.signature.write(&mut out)?;
        Ok(out)
    }
}

/// Reads a `SignedCertificateTimestampList`, as certificates carry it. SCTs of unknown versions are skipped.
///
/// # Errors
/// [`Error::Malformed`] when the list or an SCT of version 1 in it is not well formed, or the list is empty.
pub fn parse_sct_list(bytes: &[u8]) -> Result<Vec<SignedCertificateTimestamp>, Error> {
    let mut outer = Reader::new(bytes, "SCT list is not a non-empty list of vectors");
    let list = outer.vector::<2>()?;
    let empty = outer.malformed();
    outer.finish()?;
    if list.is_empty() {
        return Err(empty);
    }
    let mut reader = Reader::new(list, "SCT list is not a non-empty list of vectors");
    let mut scts = Vec::new();
    while !reader.is_empty() {
        let before = reader.clone();
        let sct = reader.vector::<2>()?;
        match sct.first() {
            Some(&V1) => scts.push(SignedCertificateTimestamp::parse(sct)?),
            Some(_) => {}
            None => return Err(before.malformed()),
        }
    }
    Ok(scts)
}

/// Serialises a `SignedCertificateTimestampList`.
///
/// # Errors
/// [`Error::TooLarge`] when an SCT or the list exceeds 65,535 bytes, [`Error::Malformed`] for no SCT at all.
pub fn encode_sct_list(scts: &[SignedCertificateTimestamp]) -> Result<Vec<u8>, Error> {
    if scts.is_empty() {
        return Err(Error::malformed("SCT list is empty", 0));
    }
    let mut list = Vec::new();
    for sct in scts {
        push_vector::<2>(&mut list, &sct.to_bytes()?, "SCT")?;
    }
    let mut out = Vec::with_capacity(list.len() + 2);
    push_vector::<2>(&mut out, &list, "SCT list")?;
    Ok(out)
}

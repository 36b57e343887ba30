//! The RFC 6962 tree head signature as a note signature (type 0x05).

use alloc::vec::Vec;

use super::{DigitallySigned, ECDSA, SHA256, V1};
use crate::error::Error;
use crate::hash::{MAX_SIZE, TreeHead};
use crate::wire::{Reader, push_uint};

/// `SignatureType.tree_hash`.
const TREE_HASH: u8 = 1;

/// Body of a signature line of type 0x05: time and an ECDSA signature with SHA-256.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TreeHeadSignature {
    /// POSIX time in milliseconds.
    pub timestamp: u64,
    /// ECDSA signature in DER.
    pub signature: Vec<u8>,
}

impl TreeHeadSignature {
    /// Reads a body.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::SizeTooLarge`] for the time, [`Error::UnsupportedKey`] for another
    /// algorithm than ECDSA with SHA-256.
    pub fn parse(body: &[u8]) -> Result<Self, Error> {
        let mut reader = Reader::new(body, "tree head signature is not a time and a DigitallySigned");
        let timestamp = reader.uint::<8>()?;
        let signed = DigitallySigned::read(&mut reader)?;
        reader.finish()?;
        if timestamp > MAX_SIZE {
            return Err(Error::SizeTooLarge { value: timestamp });
        }
        if (signed.hash, signed.algorithm) != (SHA256, ECDSA) {
            return Err(Error::UnsupportedKey { kind: signed.algorithm });
        }
        Ok(Self { timestamp, signature: signed.signature })
    }

    /// The body: what follows the key ID in a signature line.
    ///
    /// # Errors
    /// [`Error::TooLarge`] for a signature above 65,535 bytes.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let mut out = Vec::with_capacity(12 + self.signature.len());
        push_uint::<8>(&mut out, self.timestamp);
        DigitallySigned::ecdsa_sha256(self.signature.clone()).write(&mut out)?;
        Ok(out)
    }

    /// The bytes that are signed (RFC 6962 section 3.5); `timestamp` in milliseconds.
    #[must_use]
    pub fn message(timestamp: u64, head: &TreeHead) -> Vec<u8> {
        let mut out = Vec::with_capacity(50);
        out.extend_from_slice(&[V1, TREE_HASH]);
        push_uint::<8>(&mut out, timestamp);
        push_uint::<8>(&mut out, head.size);
        out.extend_from_slice(head.root.as_bytes());
        out
    }
}

//! The signature algorithms this CA signs with, as algorithm identifiers (RFC 5758, RFC 4055, RFC 8410, RFC 9881).

use alloc::vec::Vec;

use const_oid::ObjectIdentifier;
use der::Encode;
use spki::AlgorithmIdentifierRef;

use crate::{encoding, oid};

/// A signature algorithm for certificates, CRLs, OCSP responses and time-stamp tokens (requirement C10: SHA-2 only).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SignatureAlgorithm {
    /// ECDSA P-256 with SHA-256.
    EcdsaP256Sha256,
    /// ECDSA P-384 with SHA-384.
    EcdsaP384Sha384,
    /// Ed25519.
    Ed25519,
    /// ML-DSA-44.
    MlDsa44,
    /// RSA PKCS#1 v1.5 with SHA-256.
    RsaPkcs1Sha256,
    /// RSA PKCS#1 v1.5 with SHA-384.
    RsaPkcs1Sha384,
}

impl SignatureAlgorithm {
    /// The object identifier.
    #[must_use]
    pub fn oid(self) -> ObjectIdentifier {
        match self {
            Self::EcdsaP256Sha256 => oid::ECDSA_SHA256,
            Self::EcdsaP384Sha384 => oid::ECDSA_SHA384,
            Self::Ed25519 => oid::ED25519,
            Self::MlDsa44 => oid::ML_DSA_44,
            Self::RsaPkcs1Sha256 => oid::RSA_SHA256,
            Self::RsaPkcs1Sha384 => oid::RSA_SHA384,
        }
    }

    /// `AlgorithmIdentifier` in DER: no parameters but the NULL that RFC 4055 demands for RSA.
    #[must_use]
    pub fn identifier(self) -> Vec<u8> {
        let oid = encoding::oid(&self.oid());
        match self {
            Self::RsaPkcs1Sha256 | Self::RsaPkcs1Sha384 => {
                encoding::tlv(encoding::SEQUENCE, &[&oid, &[5, 0]])
            }
            _ => encoding::tlv(encoding::SEQUENCE, &[&oid]),
        }
    }

    /// The algorithm of a DER `AlgorithmIdentifier`, parameters included in the comparison.
    #[must_use]
    pub fn from_identifier(identifier: &AlgorithmIdentifierRef<'_>) -> Option<Self> {
        let der = identifier.to_der().ok()?;
        [
            Self::EcdsaP256Sha256,
            Self::EcdsaP384Sha384,
            Self::Ed25519,
            Self::MlDsa44,
            Self::RsaPkcs1Sha256,
            Self::RsaPkcs1Sha384,
        ]
        .into_iter()
        .find(|algorithm| algorithm.identifier() == der)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use der::Decode;

    #[test]
    fn ecdsa_has_no_parameters_and_rsa_has_null() {
        let ecdsa = SignatureAlgorithm::EcdsaP384Sha384.identifier();
        assert_eq!(ecdsa, [0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3]);
        let rsa = SignatureAlgorithm::RsaPkcs1Sha256.identifier();
        assert!(rsa.ends_with(&[5, 0]));
        let parsed = AlgorithmIdentifierRef::from_der(&rsa).unwrap();
        assert_eq!(SignatureAlgorithm::from_identifier(&parsed), Some(SignatureAlgorithm::RsaPkcs1Sha256));
    }
}

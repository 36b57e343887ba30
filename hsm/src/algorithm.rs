//! Key types, signature algorithms and digests, and which go together.
//!
//! An elliptic-curve key signs with the one digest that matches its strength: P-256 with SHA-256, P-384 with SHA-384.
//! RSA keys choose between PKCS#1 v1.5 and PSS (salt as long as the digest).

use std::fmt;
use std::str::FromStr;

use crate::error::Error;

/// The types of keys that can be generated and used for signing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum KeyAlgorithm {
    /// ECDSA on NIST P-256.
    EcdsaP256,
    /// ECDSA on NIST P-384.
    EcdsaP384,
    /// Ed25519 (RFC 8032).
    Ed25519,
    /// ML-DSA-44 (FIPS 204), pure, empty context.
    MlDsa44,
    /// RSA with a 3072-bit modulus.
    Rsa3072,
    /// RSA with a 4096-bit modulus.
    Rsa4096,
}

impl KeyAlgorithm {
    /// Every algorithm, in declaration order.
    pub const ALL: [Self; 6] =
        [Self::EcdsaP256, Self::EcdsaP384, Self::Ed25519, Self::MlDsa44, Self::Rsa3072, Self::Rsa4096];

    /// The stable name used in key files, configuration and output.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EcdsaP256 => "ecdsa-p256",
            Self::EcdsaP384 => "ecdsa-p384",
            Self::Ed25519 => "ed25519",
            Self::MlDsa44 => "ml-dsa-44",
            Self::Rsa3072 => "rsa-3072",
            Self::Rsa4096 => "rsa-4096",
        }
    }

    /// The signature algorithm used when nothing else is asked for (RSA: PKCS#1 v1.5, which every verifier knows).
    #[must_use]
    pub const fn default_signature(self) -> SignatureAlgorithm {
        match self {
            Self::EcdsaP256 => SignatureAlgorithm::EcdsaP256Sha256,
            Self::EcdsaP384 => SignatureAlgorithm::EcdsaP384Sha384,
            Self::Ed25519 => SignatureAlgorithm::Ed25519,
            Self::MlDsa44 => SignatureAlgorithm::MlDsa44,
            Self::Rsa3072 => SignatureAlgorithm::RsaPkcs1Sha256,
            Self::Rsa4096 => SignatureAlgorithm::RsaPkcs1Sha384,
        }
    }

    /// Whether a key of this type can make signatures of `algorithm`.
    #[must_use]
    pub const fn supports(self, algorithm: SignatureAlgorithm) -> bool {
        use SignatureAlgorithm as S;
        match self {
            Self::EcdsaP256 => matches!(algorithm, S::EcdsaP256Sha256),
            Self::EcdsaP384 => matches!(algorithm, S::EcdsaP384Sha384),
            Self::Ed25519 => matches!(algorithm, S::Ed25519),
            Self::MlDsa44 => matches!(algorithm, S::MlDsa44),
            Self::Rsa3072 | Self::Rsa4096 => algorithm.is_rsa(),
        }
    }
}

impl fmt::Display for KeyAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for KeyAlgorithm {
    type Err = Error;

    /// Reads the stable name. RSA below 3072 bits is refused with the reason.
    fn from_str(name: &str) -> Result<Self, Error> {
        if let Some(found) = Self::ALL.into_iter().find(|a| a.as_str() == name) {
            return Ok(found);
        }
        Err(match name {
            "p256" | "P-256" | "p384" | "P-384" => Error::Unsupported {
                what: format!("key algorithm {name:?}"),
                reason: "write ecdsa-p256 or ecdsa-p384",
            },
            "rsa-1024" | "rsa-2048" | "rsa2048" | "rsa" => rsa_too_short(),
            _ => Error::Unsupported {
                what: format!("key algorithm {:?}", name.chars().take(40).collect::<String>()),
                reason: "known are ecdsa-p256, ecdsa-p384, ed25519, ml-dsa-44, rsa-3072 and rsa-4096",
            },
        })
    }
}

/// The refusal every path gives for an RSA key that is too short.
pub(crate) fn rsa_too_short() -> Error {
    Error::Unsupported {
        what: "RSA modulus below 3072 bits".to_owned(),
        reason: "code-signing keys need at least 3072 bits (CSBR 6.1.5); use rsa-3072, rsa-4096 or ecdsa-p256",
    }
}

/// A signature scheme with everything fixed: curve or padding, and digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum SignatureAlgorithm {
    /// ECDSA on P-256 with SHA-256; signature in DER.
    EcdsaP256Sha256,
    /// ECDSA on P-384 with SHA-384; signature in DER.
    EcdsaP384Sha384,
    /// Ed25519; 64 raw bytes.
    Ed25519,
    /// ML-DSA-44; 2420 raw bytes.
    MlDsa44,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    RsaPkcs1Sha256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    RsaPkcs1Sha384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    RsaPkcs1Sha512,
    /// RSASSA-PSS with SHA-256 and a 32-byte salt.
    RsaPssSha256,
    /// RSASSA-PSS with SHA-384 and a 48-byte salt.
    RsaPssSha384,
    /// RSASSA-PSS with SHA-512 and a 64-byte salt.
    RsaPssSha512,
}

impl SignatureAlgorithm {
    /// The stable name used in logs and errors.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EcdsaP256Sha256 => "ecdsa-p256-sha256",
            Self::EcdsaP384Sha384 => "ecdsa-p384-sha384",
            Self::Ed25519 => "ed25519",
            Self::MlDsa44 => "ml-dsa-44",
            Self::RsaPkcs1Sha256 => "rsa-pkcs1-sha256",
            Self::RsaPkcs1Sha384 => "rsa-pkcs1-sha384",
            Self::RsaPkcs1Sha512 => "rsa-pkcs1-sha512",
            Self::RsaPssSha256 => "rsa-pss-sha256",
            Self::RsaPssSha384 => "rsa-pss-sha384",
            Self::RsaPssSha512 => "rsa-pss-sha512",
        }
    }

    /// The digest the scheme hashes messages with, or `None` for schemes that take the whole message (Ed25519, ML-DSA).
    #[must_use]
    pub const fn digest(self) -> Option<DigestAlgorithm> {
        match self {
            Self::EcdsaP256Sha256 | Self::RsaPkcs1Sha256 | Self::RsaPssSha256 => {
                Some(DigestAlgorithm::Sha256)
            }
            Self::EcdsaP384Sha384 | Self::RsaPkcs1Sha384 | Self::RsaPssSha384 => {
                Some(DigestAlgorithm::Sha384)
            }
            Self::RsaPkcs1Sha512 | Self::RsaPssSha512 => Some(DigestAlgorithm::Sha512),
            Self::Ed25519 | Self::MlDsa44 => None,
        }
    }

    /// Whether this is one of the RSA schemes.
    #[must_use]
    pub const fn is_rsa(self) -> bool {
        matches!(
            self,
            Self::RsaPkcs1Sha256
                | Self::RsaPkcs1Sha384
                | Self::RsaPkcs1Sha512
                | Self::RsaPssSha256
                | Self::RsaPssSha384
                | Self::RsaPssSha512
        )
    }
}

impl fmt::Display for SignatureAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The digests signatures are made over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum DigestAlgorithm {
    /// SHA-256, 32 bytes.
    Sha256,
    /// SHA-384, 48 bytes.
    Sha384,
    /// SHA-512, 64 bytes.
    Sha512,
}

impl DigestAlgorithm {
    /// Length of the digest in bytes.
    #[must_use]
    pub const fn len(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    /// Always false; present because `len` is.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        false
    }

    pub(crate) fn native(self) -> &'static aws_lc_rs::digest::Algorithm {
        match self {
            Self::Sha256 => &aws_lc_rs::digest::SHA256,
            Self::Sha384 => &aws_lc_rs::digest::SHA384,
            Self::Sha512 => &aws_lc_rs::digest::SHA512,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for algorithm in KeyAlgorithm::ALL {
            assert_eq!(algorithm.as_str().parse::<KeyAlgorithm>().unwrap(), algorithm);
            assert!(algorithm.supports(algorithm.default_signature()));
        }
    }

    #[test]
    fn short_rsa_is_refused_with_the_reason() {
        let refusal = "rsa-2048".parse::<KeyAlgorithm>().unwrap_err().to_string();
        assert!(refusal.contains("at least 3072 bits"), "{refusal}");
    }

    #[test]
    fn a_curve_signs_with_its_own_digest_only() {
        assert!(!KeyAlgorithm::EcdsaP256.supports(SignatureAlgorithm::EcdsaP384Sha384));
        assert!(!KeyAlgorithm::Ed25519.supports(SignatureAlgorithm::MlDsa44));
        assert!(KeyAlgorithm::Rsa3072.supports(SignatureAlgorithm::RsaPssSha512));
    }
}

//! `PublicKeyDetails` of the Sigstore protocol: key type and hash in one name.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256, Sha384, Sha512};
use tlog::signature::Algorithm;

use crate::algorithm::KeyAlgorithm;
use crate::error::Error;
use crate::provider::rsa_modulus_and_exponent;

/// A hash algorithm of the Sigstore protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HashAlgorithm {
    /// SHA-256.
    #[serde(rename = "SHA2_256")]
    Sha256,
    /// SHA-384.
    #[serde(rename = "SHA2_384")]
    Sha384,
    /// SHA-512.
    #[serde(rename = "SHA2_512")]
    Sha512,
}

impl HashAlgorithm {
    /// The protocol's name, for example `SHA2_256`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "SHA2_256",
            Self::Sha384 => "SHA2_384",
            Self::Sha512 => "SHA2_512",
        }
    }

    /// The algorithm of a protocol name, in lower case without underscore too (`sha256`, as Rekor v1 writes it).
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "SHA2_256" | "sha256" => Some(Self::Sha256),
            "SHA2_384" | "sha384" => Some(Self::Sha384),
            "SHA2_512" | "sha512" => Some(Self::Sha512),
            _ => None,
        }
    }

    /// Length of a digest in bytes.
    pub fn output_length(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    /// The digest of `message`.
    pub fn digest(self, message: &[u8]) -> Vec<u8> {
        match self {
            Self::Sha256 => Sha256::digest(message).to_vec(),
            Self::Sha384 => Sha384::digest(message).to_vec(),
            Self::Sha512 => Sha512::digest(message).to_vec(),
        }
    }
}

/// Key type and hash of a signature, as entries and trusted roots name them.
///
/// Names that no signature is verified by here are known all the same, because trusted roots list the keys of logs that served
/// long ago: the pre-hashed form of Ed25519, hash-based signatures, and the protocol's deprecated names, of which the first
/// two stand for a key in PKCS#1 form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the serialised name says it all")]
pub enum KeyDetails {
    #[serde(rename = "PKIX_ECDSA_P256_SHA_256")]
    EcdsaP256Sha256,
    #[serde(rename = "PKIX_ECDSA_P384_SHA_384")]
    EcdsaP384Sha384,
    #[serde(rename = "PKIX_ECDSA_P521_SHA_512")]
    EcdsaP521Sha512,
    #[serde(rename = "PKIX_ED25519")]
    Ed25519,
    #[serde(rename = "PKIX_ED25519_PH")]
    Ed25519Ph,
    #[serde(rename = "PKIX_RSA_PKCS1V15_2048_SHA256")]
    RsaPkcs1v15_2048Sha256,
    #[serde(rename = "PKIX_RSA_PKCS1V15_3072_SHA256")]
    RsaPkcs1v15_3072Sha256,
    #[serde(rename = "PKIX_RSA_PKCS1V15_4096_SHA256")]
    RsaPkcs1v15_4096Sha256,
    #[serde(rename = "PKIX_RSA_PSS_2048_SHA256")]
    RsaPss2048Sha256,
    #[serde(rename = "PKIX_RSA_PSS_3072_SHA256")]
    RsaPss3072Sha256,
    #[serde(rename = "PKIX_RSA_PSS_4096_SHA256")]
    RsaPss4096Sha256,
    #[serde(rename = "ML_DSA_44")]
    MlDsa44,
    #[serde(rename = "ML_DSA_65")]
    MlDsa65,
    #[serde(rename = "ML_DSA_87")]
    MlDsa87,
    #[serde(rename = "PKCS1_RSA_PKCS1V5")]
    DeprecatedRsaPkcs1v5,
    #[serde(rename = "PKCS1_RSA_PSS")]
    DeprecatedRsaPss,
    #[serde(rename = "PKIX_RSA_PKCS1V5")]
    DeprecatedPkixRsaPkcs1v5,
    #[serde(rename = "PKIX_RSA_PSS")]
    DeprecatedPkixRsaPss,
    #[serde(rename = "PKIX_ECDSA_P256_HMAC_SHA_256")]
    DeprecatedEcdsaP256Hmac,
    #[serde(rename = "PKIX_ECDSA_P384_SHA_256")]
    EcdsaP384Sha256,
    #[serde(rename = "PKIX_ECDSA_P521_SHA_256")]
    EcdsaP521Sha256,
    #[serde(rename = "LMS_SHA256")]
    LmsSha256,
    #[serde(rename = "LMOTS_SHA256")]
    LmotsSha256,
}

impl KeyDetails {
    /// Every value with its protocol name.
    pub const ALL: [(Self, &'static str); 23] = [
        (Self::EcdsaP256Sha256, "PKIX_ECDSA_P256_SHA_256"),
        (Self::EcdsaP384Sha384, "PKIX_ECDSA_P384_SHA_384"),
        (Self::EcdsaP521Sha512, "PKIX_ECDSA_P521_SHA_512"),
        (Self::Ed25519, "PKIX_ED25519"),
        (Self::Ed25519Ph, "PKIX_ED25519_PH"),
        (Self::RsaPkcs1v15_2048Sha256, "PKIX_RSA_PKCS1V15_2048_SHA256"),
        (Self::RsaPkcs1v15_3072Sha256, "PKIX_RSA_PKCS1V15_3072_SHA256"),
        (Self::RsaPkcs1v15_4096Sha256, "PKIX_RSA_PKCS1V15_4096_SHA256"),
        (Self::RsaPss2048Sha256, "PKIX_RSA_PSS_2048_SHA256"),
        (Self::RsaPss3072Sha256, "PKIX_RSA_PSS_3072_SHA256"),
        (Self::RsaPss4096Sha256, "PKIX_RSA_PSS_4096_SHA256"),
        (Self::MlDsa44, "ML_DSA_44"),
        (Self::MlDsa65, "ML_DSA_65"),
        (Self::MlDsa87, "ML_DSA_87"),
        (Self::DeprecatedRsaPkcs1v5, "PKCS1_RSA_PKCS1V5"),
        (Self::DeprecatedRsaPss, "PKCS1_RSA_PSS"),
        (Self::DeprecatedPkixRsaPkcs1v5, "PKIX_RSA_PKCS1V5"),
        (Self::DeprecatedPkixRsaPss, "PKIX_RSA_PSS"),
        (Self::DeprecatedEcdsaP256Hmac, "PKIX_ECDSA_P256_HMAC_SHA_256"),
        (Self::EcdsaP384Sha256, "PKIX_ECDSA_P384_SHA_256"),
        (Self::EcdsaP521Sha256, "PKIX_ECDSA_P521_SHA_256"),
        (Self::LmsSha256, "LMS_SHA256"),
        (Self::LmotsSha256, "LMOTS_SHA256"),
    ];

    /// The protocol's name, for example `PKIX_ECDSA_P256_SHA_256`.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(details, _)| *details == self).map_or("", |(_, name)| name)
    }

    /// The details of a protocol name.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for any other name.
    pub fn from_name(name: &str) -> Result<Self, Error> {
        let found = Self::ALL.iter().find(|(_, known)| *known == name);
        found.map(|(details, _)| *details).ok_or_else(|| {
            Error::unsupported("key details", format!("`{}`", name.chars().take(64).collect::<String>()))
        })
    }

    /// The details of a key, with the hash that goes with its type or size.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a key of another type, or an RSA key of another size than 2048, 3072 and 4096 bits.
    pub fn of_key(algorithm: KeyAlgorithm, public_key: &[u8]) -> Result<Self, Error> {
        Ok(match algorithm {
            KeyAlgorithm::EcdsaP256 => Self::EcdsaP256Sha256,
            KeyAlgorithm::EcdsaP384 => Self::EcdsaP384Sha384,
            KeyAlgorithm::EcdsaP521 => Self::EcdsaP521Sha512,
            KeyAlgorithm::Ed25519 => Self::Ed25519,
            KeyAlgorithm::MlDsa44 => Self::MlDsa44,
            KeyAlgorithm::MlDsa65 => Self::MlDsa65,
            KeyAlgorithm::MlDsa87 => Self::MlDsa87,
            KeyAlgorithm::Rsa => {
                match rsa_modulus_and_exponent(public_key).map(|(modulus, _)| modulus.len().saturating_mul(8))
                {
                    Some(2048) => Self::RsaPkcs1v15_2048Sha256,
                    Some(3072) => Self::RsaPkcs1v15_3072Sha256,
                    Some(4096) => Self::RsaPkcs1v15_4096Sha256,
                    _ => {
                        return Err(Error::unsupported(
                            "key",
                            "RSA of another size than 2048, 3072 and 4096 bits",
                        ));
                    }
                }
            }
            KeyAlgorithm::Unsupported => return Err(Error::unsupported("key", "an unknown type")),
        })
    }

    /// The signature algorithm to verify with.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a name that nothing is verified by.
    pub fn algorithm(self) -> Result<Algorithm, Error> {
        Ok(match self {
            Self::EcdsaP256Sha256 => Algorithm::EcdsaP256Sha256,
            Self::EcdsaP384Sha384 => Algorithm::EcdsaP384Sha384,
            Self::EcdsaP521Sha512 => Algorithm::EcdsaP521Sha512,
            Self::Ed25519 => Algorithm::Ed25519,
            Self::Ed25519Ph => {
                return Err(Error::unsupported("key details", "Ed25519ph; sign with Ed25519 or ECDSA"));
            }
            Self::DeprecatedRsaPkcs1v5
            | Self::DeprecatedRsaPss
            | Self::DeprecatedPkixRsaPkcs1v5
            | Self::DeprecatedPkixRsaPss
            | Self::DeprecatedEcdsaP256Hmac
            | Self::EcdsaP384Sha256
            | Self::EcdsaP521Sha256
            | Self::LmsSha256
            | Self::LmotsSha256 => {
                return Err(Error::unsupported("key details", format!("`{}`", self.as_str())));
            }
            Self::RsaPkcs1v15_2048Sha256 | Self::RsaPkcs1v15_3072Sha256 | Self::RsaPkcs1v15_4096Sha256 => {
                Algorithm::RsaPkcs1Sha256
            }
            Self::RsaPss2048Sha256 | Self::RsaPss3072Sha256 | Self::RsaPss4096Sha256 => {
                Algorithm::RsaPssSha256
            }
            Self::MlDsa44 => Algorithm::MlDsa44,
            Self::MlDsa65 => Algorithm::MlDsa65,
            Self::MlDsa87 => Algorithm::MlDsa87,
        })
    }

    /// The hash of the data in a log entry of this key: that of the signature algorithm, SHA-512 for the others.
    pub fn hash(self) -> HashAlgorithm {
        match self {
            Self::EcdsaP384Sha384 => HashAlgorithm::Sha384,
            Self::EcdsaP521Sha512
            | Self::Ed25519
            | Self::Ed25519Ph
            | Self::MlDsa44
            | Self::MlDsa65
            | Self::MlDsa87 => HashAlgorithm::Sha512,
            _ => HashAlgorithm::Sha256,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    #[test]
    fn names_agree_with_the_serialised_form() {
        for (details, name) in KeyDetails::ALL {
            assert_eq!(json::write("x", &details).unwrap(), format!("\"{name}\"").into_bytes());
            assert_eq!(KeyDetails::from_name(details.as_str()).unwrap(), details);
        }
        assert!(KeyDetails::from_name("PKIX_RSA").is_err());
        let verified = KeyDetails::ALL.iter().filter(|(details, _)| details.algorithm().is_ok());
        assert_eq!(verified.count(), 13);
    }
}

//! The JSON form of a time-stamp request (sigstore-contract §7).

use serde::{Deserialize, Serialize};

/// Digest algorithms of a time-stamp request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DigestAlgorithm {
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

/// `{"artifactHash": base64, "hashAlgorithm": "sha256"}`; the answer is DER as for a DER request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct TimestampJson {
    /// The digest, standard base64.
    pub artifact_hash: String,
    /// Its algorithm.
    pub hash_algorithm: DigestAlgorithm,
}

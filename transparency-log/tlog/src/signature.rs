//! The seam between formats and cryptography: who checks a signature is chosen by the caller.
//!
//! This crate parses signed notes and knows which bytes were signed; it holds no signature algorithm of its
//! own. `trust-store` implements [`SignatureVerifier`] for its providers.

use core::fmt;

/// A signature algorithm together with its hash function.
///
/// The alternatives name everything the product verifies anywhere; a provider answers
/// [`InvalidSignature`] for those it does not implement.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Algorithm {
    /// ECDSA on P-256 with SHA-256; signatures are ASN.1 DER.
    EcdsaP256Sha256,
    /// ECDSA on P-256 with SHA-384.
    EcdsaP256Sha384,
    /// ECDSA on P-256 with SHA-512.
    EcdsaP256Sha512,
    /// ECDSA on P-384 with SHA-256.
    EcdsaP384Sha256,
    /// ECDSA on P-384 with SHA-384.
    EcdsaP384Sha384,
    /// ECDSA on P-384 with SHA-512.
    EcdsaP384Sha512,
    /// ECDSA on P-521 with SHA-256 (signed notes of type 0x02 only).
    EcdsaP521Sha256,
    /// ECDSA on P-521 with SHA-512.
    EcdsaP521Sha512,
    /// Ed25519 as in RFC 8032, without context or prehash.
    Ed25519,
    /// ML-DSA-44 (FIPS 204), pure, with the empty context string.
    MlDsa44,
    /// ML-DSA-65 (FIPS 204), pure, with the empty context string.
    MlDsa65,
    /// ML-DSA-87 (FIPS 204), pure, with the empty context string.
    MlDsa87,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    RsaPkcs1Sha256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    RsaPkcs1Sha384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    RsaPkcs1Sha512,
    /// RSASSA-PSS with SHA-256, MGF1 with the same hash, salt as long as the hash.
    RsaPssSha256,
    /// RSASSA-PSS with SHA-384, MGF1 with the same hash, salt as long as the hash.
    RsaPssSha384,
    /// RSASSA-PSS with SHA-512, MGF1 with the same hash, salt as long as the hash.
    RsaPssSha512,
}

/// The signature is not one of this key over these bytes, or the key or algorithm is not supported.
///
/// Deliberately without detail: why a signature fails is of no use to an honest caller.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct InvalidSignature;

impl fmt::Display for InvalidSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("signature is not valid")
    }
}

impl core::error::Error for InvalidSignature {}

/// Checks signatures.
///
/// `public_key` is the content of the subjectPublicKey bit string: an uncompressed point for ECDSA, 32 bytes
/// for Ed25519, a PKCS #1 `RSAPublicKey` in DER for RSA, the raw key for ML-DSA. ECDSA signatures are ASN.1
/// DER, all others the raw bytes.
///
/// Implementations MUST accept only signatures that are valid for exactly this key, algorithm and message,
/// MUST NOT panic on any input, and are usable from several threads at once.
pub trait SignatureVerifier: Send + Sync {
    /// Verifies a signature over `message`.
    ///
    /// # Errors
    /// [`InvalidSignature`] when the signature, the key or the algorithm is not acceptable.
    fn verify(
        &self,
        algorithm: Algorithm,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature>;

    /// Verifies a signature over a message of which only the digest (by the algorithm's hash) is known.
    ///
    /// # Errors
    /// [`InvalidSignature`] as for [`verify`](Self::verify), and always for algorithms that sign messages
    /// rather than digests (Ed25519, ML-DSA).
    fn verify_digest(
        &self,
        algorithm: Algorithm,
        public_key: &[u8],
        digest: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature>;
}

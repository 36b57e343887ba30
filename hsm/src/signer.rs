//! The contract of one signing key.

use std::fmt;

use crate::algorithm::SignatureAlgorithm;
use crate::error::Error;
use crate::intent::{PurposeSet, SigningIntent};
use crate::public_key::PublicKey;

/// What is signed.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// The whole message; the signer hashes it where the algorithm needs that.
    Message(&'a [u8]),
    /// The digest of the message under the algorithm's own hash. Ed25519 and ML-DSA refuse it.
    Digest(&'a [u8]),
}

/// A signature as protocols carry it: DER for ECDSA, raw bytes for all others.
#[derive(Clone, PartialEq, Eq)]
pub struct Signature(Vec<u8>);

impl Signature {
    pub(crate) fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes, without a copy.
    #[must_use]
    pub fn into_vec(self) -> Vec<u8> {
        self.0
    }
}

impl AsRef<[u8]> for Signature {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature({} bytes)", self.0.len())
    }
}

/// How well the private half is kept. Ordered: later is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ProtectionLevel {
    /// Decrypted in this process's memory.
    Software,
    /// Behind a token interface that is itself software.
    SoftToken,
    /// In hardware or a cloud service's hardware; the claim is the operator's.
    Hardware,
    /// In hardware, with an attestation that was verified.
    HardwareAttested,
}

impl ProtectionLevel {
    /// The stable name used in output and trust bundles.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Software => "software",
            Self::SoftToken => "soft-token",
            Self::Hardware => "hardware",
            Self::HardwareAttested => "hardware-attested",
        }
    }
}

/// How long a signature keeps the thread that makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// It may wait for a device or a service, or compute for milliseconds.
    Blocks,
    /// It waits for nothing and takes some ten microseconds: less than the way to another thread and back is worth.
    Prompt,
}

/// One opened key.
///
/// Implementations MUST check the intent's purpose against [`Signer::purposes`] before anything else, MUST verify the
/// signature against [`Signer::public_key`] before they return it, MUST NOT retry after credentials were refused, and
/// MUST answer [`Error::Ambiguous`] when a request was submitted and its outcome is not known. Calls block and may come
/// from several threads at once. `Ok` means that exactly one signature was made; a call is never retried inside once it
/// may have produced one.
pub trait Signer: Send + Sync {
    /// The public half, as pinned when the key was opened.
    fn public_key(&self) -> &PublicKey;

    /// How well the private half is kept.
    fn protection(&self) -> ProtectionLevel;

    /// What the key may sign.
    fn purposes(&self) -> PurposeSet;

    /// How long [`Signer::sign`] keeps its thread.
    fn pace(&self) -> Pace {
        Pace::Blocks
    }

    /// Signs `input` with `algorithm`.
    ///
    /// # Errors
    /// [`Error::Denied`] for a purpose the key does not have, [`Error::Unsupported`] for an algorithm that does not fit
    /// the key or the input, [`Error::SelfCheck`] when the signature does not verify, and the backend's own failures.
    fn sign(
        &self,
        input: Input<'_>,
        algorithm: SignatureAlgorithm,
        intent: &SigningIntent,
    ) -> Result<Signature, Error>;

    /// Signs a whole message with the key's default algorithm.
    ///
    /// # Errors
    /// As [`Signer::sign`].
    fn sign_message(&self, message: &[u8], intent: &SigningIntent) -> Result<Signature, Error> {
        self.sign(Input::Message(message), self.public_key().algorithm().default_signature(), intent)
    }
}

impl fmt::Debug for dyn Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer")
            .field("public_key", self.public_key())
            .field("protection", &self.protection())
            .field("purposes", &self.purposes())
            .finish_non_exhaustive()
    }
}

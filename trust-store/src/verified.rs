//! What a passed verification gives.

use alloc::string::String;
use alloc::vec::Vec;

use sha2::Digest as _;
use tlog::TreeHead;

use crate::capability::Capability;
use crate::capability_rules::Permitted;
use crate::certificate::Certificate;
use crate::identity::Identity;
use crate::key_details::HashAlgorithm;
use crate::manifest::Manifest;
use crate::path::VerifiedChain;
use crate::policy::TrustLevel;
use crate::statement::Statement;
use crate::time::UnixTime;

/// Digest of the artifact that is asked about. SHA-256 names it; the longer hashes are needed only for a bare
/// signature (no statement) by a P-384 or P-521 key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArtifactDigest {
    sha256: [u8; 32],
    sha384: Option<[u8; 48]>,
    sha512: Option<[u8; 64]>,
}

impl ArtifactDigest {
    /// The artifact with this SHA-256.
    pub fn sha256(digest: [u8; 32]) -> Self {
        Self { sha256: digest, sha384: None, sha512: None }
    }

    /// The digest of these bytes, by SHA-256.
    pub fn of(artifact: &[u8]) -> Self {
        Self::sha256(sha2::Sha256::digest(artifact).into())
    }

    /// The digest of these bytes, by every hash that a signature may be over.
    pub fn of_by_every_hash(artifact: &[u8]) -> Self {
        Self {
            sha384: Some(sha2::Sha384::digest(artifact).into()),
            sha512: Some(sha2::Sha512::digest(artifact).into()),
            ..Self::of(artifact)
        }
    }

    /// The SHA-256.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.sha256
    }

    /// The digest by `algorithm`, if it is known.
    pub fn by(&self, algorithm: HashAlgorithm) -> Option<&[u8]> {
        match algorithm {
            HashAlgorithm::Sha256 => Some(&self.sha256),
            HashAlgorithm::Sha384 => self.sha384.as_ref().map(|digest| &digest[..]),
            HashAlgorithm::Sha512 => self.sha512.as_ref().map(|digest| &digest[..]),
        }
    }
}

/// An artifact that passed every step. Only [`crate::verifier::Verifier::verify`] makes one.
#[derive(Clone, Debug)]
#[must_use]
pub struct VerifiedArtifact {
    pub(crate) digest: ArtifactDigest,
    pub(crate) signed: VerifiedSigning,
    pub(crate) level: TrustLevel,
    pub(crate) endorsers: Vec<Identity>,
    pub(crate) statement: Option<Statement>,
    pub(crate) manifest: Option<Manifest>,
    pub(crate) requested: Vec<Capability>,
    pub(crate) permitted: Vec<Permitted>,
}

/// A signature that passed steps 3 to 12.
#[derive(Clone, Debug)]
pub(crate) struct VerifiedSigning {
    pub(crate) identity: Identity,
    pub(crate) level: TrustLevel,
    pub(crate) times: Vec<UnixTime>,
    pub(crate) chain: Option<VerifiedChain>,
    pub(crate) logs: Vec<VerifiedLogEntry>,
}

/// An entry that was shown to be in a trusted log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedLogEntry {
    pub(crate) origin: String,
    pub(crate) log_id: Vec<u8>,
    pub(crate) index: u64,
    pub(crate) observed: Vec<TreeHead>,
}

impl VerifiedLogEntry {
    /// Origin of the log.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// `logId` of its key.
    pub fn log_id(&self) -> &[u8] {
        &self.log_id
    }

    /// Index of the entry in the log.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Signed heads of this log that were seen and are consistent with each other, smallest first. To be remembered:
    /// see [`crate::evidence::Evidence::remember`].
    pub fn observed_heads(&self) -> &[TreeHead] {
        &self.observed
    }
}

impl VerifiedArtifact {
    /// The digest that was asked about and that the signer stated.
    pub fn digest(&self) -> &ArtifactDigest {
        &self.digest
    }

    /// Who signed.
    pub fn identity(&self) -> &Identity {
        &self.signed.identity
    }

    /// Who vouched for the signer's name; `None` if the certificate does not say.
    pub fn issuer(&self) -> Option<&str> {
        self.signed.identity.issuer()
    }

    /// The trust level that was reached.
    pub fn trust_level(&self) -> TrustLevel {
        self.level
    }

    /// Entries in trusted logs, at least as many as the policy demands.
    pub fn log_entries(&self) -> &[VerifiedLogEntry] {
        &self.signed.logs
    }

    /// Index of the entry in the first trusted log.
    pub fn log_index(&self) -> Option<u64> {
        self.signed.logs.first().map(VerifiedLogEntry::index)
    }

    /// Origin of the first trusted log.
    pub fn log_origin(&self) -> Option<&str> {
        self.signed.logs.first().map(VerifiedLogEntry::origin)
    }

    /// The earliest proven signing time; `None` only for a bare key without timestamp.
    pub fn signing_time(&self) -> Option<UnixTime> {
        self.signed.times.iter().min().copied()
    }

    /// The statement that was signed; `None` for a signature over bare bytes.
    pub fn statement(&self) -> Option<&Statement> {
        self.statement.as_ref()
    }

    /// The signed manifest; present whenever the policy demands an agent release.
    pub fn manifest(&self) -> Option<&Manifest> {
        self.manifest.as_ref()
    }

    /// The capabilities that the signed manifest requests: a request, never a grant.
    pub fn requested_capabilities(&self) -> &[Capability] {
        &self.requested
    }

    /// Which rules of the policy's `capability_rules` permit which request; empty where it has none.
    pub fn permitted_by_rules(&self) -> &[Permitted] {
        &self.permitted
    }

    /// The verified chain, end-entity first, anchor last; empty for a bare key.
    pub fn chain(&self) -> &[Certificate] {
        self.signed.chain.as_ref().map(VerifiedChain::certificates).unwrap_or_default()
    }

    /// Accepted signers who endorsed the artifact.
    pub fn endorsers(&self) -> &[Identity] {
        &self.endorsers
    }
}

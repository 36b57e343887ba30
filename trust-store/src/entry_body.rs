//! Whether a log entry is the entry of a given signature.

use alloc::vec::Vec;

use crate::bundle::{Bundle, Content, KeyMaterial};
use crate::dsse::Envelope;
use crate::error::Error;
use crate::key_details::{HashAlgorithm, KeyDetails};
use crate::log_entry::TransparencyLogEntry;
use crate::reason::{Denial, ReasonCode};
use crate::rekor::{self, HashedRekord, VerifierKey};
use crate::rekor_v1::{DigestOf, SignedObject};
use crate::verified::ArtifactDigest;

/// The signature that an entry must describe.
pub(crate) struct Expected<'a> {
    pub(crate) bundle: &'a Bundle,
    pub(crate) digest: &'a ArtifactDigest,
    pub(crate) details: KeyDetails,
    /// DER of the signer's certificate, or SubjectPublicKeyInfo of a bare key.
    pub(crate) verifier: &'a [u8],
}

impl Expected<'_> {
    /// Compares digest, signature and key with the entry's body.
    ///
    /// # Errors
    /// `entry_mismatch`, also for a body that cannot be read or of a kind that is not known.
    pub(crate) fn matches(&self, entry: &TransparencyLogEntry) -> Result<(), Denial> {
        if self.canonical_body().is_some_and(|body| body == entry.canonicalized_body)
            && (entry.kind.as_str(), entry.version.as_str()) == (rekor::KIND, rekor::VERSION)
        {
            return Ok(());
        }
        // Another kind of entry, or one that does not match: reading it says what differs.
        let object = read(entry).map_err(|error| mismatch(alloc::string::ToString::to_string(&error)))?;
        let signature = self.bundle.signature()?;
        if object.signature != signature {
            return Err(mismatch("the entry holds another signature than the bundle"));
        }
        if object.verifier != self.verifier {
            return Err(mismatch("the entry names another key or certificate than the bundle's"));
        }
        let expected = match (&self.bundle.content, object.digest_of) {
            (Content::Dsse(envelope), DigestOf::Message) => Some(object.hash.digest(&envelope.pae())),
            (Content::Dsse(envelope), DigestOf::Payload) => Some(payload_digest(envelope, object.hash)),
            (Content::Message { .. }, DigestOf::Message) => self.digest.by(object.hash).map(<[u8]>::to_vec),
            (Content::Message { .. }, DigestOf::Payload) => None,
        };
        match expected {
            Some(digest) if digest == object.digest => Ok(()),
            _ => Err(mismatch("the entry is about other content than the bundle")),
        }?;
        // Rekor v2 states the key's type; it must be the signer's.
        match object.details {
            Some(details) if details != self.details => Err(mismatch("the entry states another key type")),
            _ => Ok(()),
        }
    }
}

impl Expected<'_> {
    /// The only body that a `hashedrekord` 0.0.2 entry of this signature can have.
    fn canonical_body(&self) -> Option<Vec<u8>> {
        let digest = match &self.bundle.content {
            Content::Dsse(envelope) => self.details.hash().digest(&envelope.pae()),
            Content::Message { .. } => self.digest.by(self.details.hash())?.to_vec(),
        };
        let key = self.verifier.to_vec();
        let key = match self.bundle.key {
            KeyMaterial::PublicKey { .. } => VerifierKey::PublicKey(key),
            _ => VerifierKey::Certificate(key),
        };
        let signature = self.bundle.signature().ok()?.to_vec();
        HashedRekord::new(digest, signature, key, self.details).ok()?.canonical_body().ok()
    }
}

struct Object {
    hash: HashAlgorithm,
    digest: Vec<u8>,
    digest_of: DigestOf,
    signature: Vec<u8>,
    verifier: Vec<u8>,
    details: Option<KeyDetails>,
}

fn read(entry: &TransparencyLogEntry) -> Result<Object, Error> {
    if (entry.kind.as_str(), entry.version.as_str()) == (rekor::KIND, rekor::VERSION) {
        let record = HashedRekord::from_canonical_body(&entry.canonicalized_body)?;
        let (VerifierKey::Certificate(verifier) | VerifierKey::PublicKey(verifier)) = record.verifier;
        return Ok(Object {
            hash: record.key_details.hash(),
            digest: record.digest,
            digest_of: DigestOf::Message,
            signature: record.signature,
            verifier,
            details: Some(record.key_details),
        });
    }
    let SignedObject { hash, digest, digest_of, signature, verifier } = SignedObject::from_entry(entry)?;
    Ok(Object { hash, digest, digest_of, signature, verifier, details: None })
}

fn payload_digest(envelope: &Envelope, hash: HashAlgorithm) -> Vec<u8> {
    hash.digest(&envelope.payload)
}

fn mismatch(detail: impl Into<alloc::borrow::Cow<'static, str>>) -> Denial {
    Denial::new(ReasonCode::EntryMismatch, detail)
}

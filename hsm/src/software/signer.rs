//! A decrypted key with its policy.

use std::sync::Arc;

use super::{PrivateKey, RateLimit};
use crate::algorithm::SignatureAlgorithm;
use crate::audit::{Allowed, KeyAudit, KeyUse};
use crate::error::{DeniedReason, Error};
use crate::intent::{PurposeSet, SigningIntent};
use crate::public_key::PublicKey;
use crate::signer::{Input, ProtectionLevel, Signature, Signer};

pub(crate) struct SoftwareSigner {
    key: PrivateKey,
    public_key: PublicKey,
    purposes: PurposeSet,
    rate: Option<RateLimit>,
    audit: Option<Arc<dyn KeyAudit>>,
}

impl SoftwareSigner {
    /// Opens a key: checks that the private half belongs to the pinned public half and signs a random challenge.
    pub(crate) fn open(
        key: PrivateKey,
        pinned: PublicKey,
        purposes: PurposeSet,
        rate: Option<RateLimit>,
        audit: Option<Arc<dyn KeyAudit>>,
    ) -> Result<Self, Error> {
        let found = key.public_key()?;
        if found != pinned {
            return Err(Error::KeyMismatch {
                expected: pinned.spki_sha256_hex(),
                found: found.spki_sha256_hex(),
            });
        }
        let signer = Self { key, public_key: pinned, purposes, rate, audit };
        let challenge: [u8; 32] = super::seal::random()?;
        signer
            .sign_verified(Input::Message(&challenge), signer.public_key.algorithm().default_signature())?;
        Ok(signer)
    }

    fn sign_verified(&self, input: Input<'_>, algorithm: SignatureAlgorithm) -> Result<Signature, Error> {
        let signature = self.key.sign(input, algorithm)?;
        self.public_key
            .verify(algorithm, input, signature.as_bytes())
            .map_err(|_| Error::SelfCheck { algorithm })?;
        Ok(signature)
    }

    fn record(
        &self,
        algorithm: SignatureAlgorithm,
        intent: &SigningIntent,
        allowed: Allowed,
    ) -> Result<(), Error> {
        let Some(audit) = &self.audit else { return Ok(()) };
        audit
            .record(&KeyUse { public_key: &self.public_key, algorithm, intent, allowed })
            .map_err(|detail| Error::Denied { reason: DeniedReason::Audit { detail } })
    }
}

impl Signer for SoftwareSigner {
    fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    fn protection(&self) -> ProtectionLevel {
        ProtectionLevel::Software
    }

    fn purposes(&self) -> PurposeSet {
        self.purposes
    }

    fn sign(
        &self,
        input: Input<'_>,
        algorithm: SignatureAlgorithm,
        intent: &SigningIntent,
    ) -> Result<Signature, Error> {
        if !self.purposes.contains(intent.purpose()) {
            self.record(algorithm, intent, Allowed::No)?;
            return Err(Error::Denied {
                reason: DeniedReason::Purpose {
                    purpose: intent.purpose(),
                    allowed: self.purposes.to_string(),
                },
            });
        }
        if !self.public_key.algorithm().supports(algorithm) {
            return Err(Error::Unsupported {
                what: format!("{algorithm} with a key of type {}", self.public_key.algorithm()),
                reason: "use the key's own signature algorithm",
            });
        }
        if let Some(rate) = &self.rate
            && !rate.take(crate::clock::monotonic())
        {
            return Err(Error::Denied { reason: DeniedReason::Rate { per_second: rate.per_second() } });
        }
        self.record(algorithm, intent, Allowed::Yes)?;
        self.sign_verified(input, algorithm)
    }
}

//! What a key may do, checked inside this crate for every backend before anything reaches the key.

use std::sync::Arc;

use crate::algorithm::SignatureAlgorithm;
use crate::audit::{Allowed, KeyAudit, KeyUse};
use crate::error::{DeniedReason, Error};
use crate::intent::{PurposeSet, SigningIntent};
use crate::public_key::PublicKey;
use crate::software::RateLimit;

/// Purposes, limit and audit sink of one opened key.
pub(crate) struct KeyPolicy {
    pub(crate) purposes: PurposeSet,
    pub(crate) rate: Option<RateLimit>,
    pub(crate) audit: Option<Arc<dyn KeyAudit>>,
}

impl KeyPolicy {
    /// Decides on one use and records it. `Ok` is the permission to sign once.
    pub(crate) fn admit(
        &self,
        key: &PublicKey,
        algorithm: SignatureAlgorithm,
        intent: &SigningIntent,
    ) -> Result<(), Error> {
        if !self.purposes.contains(intent.purpose()) {
            self.record(key, algorithm, intent, Allowed::No)?;
            let reason =
                DeniedReason::Purpose { purpose: intent.purpose(), allowed: self.purposes.to_string() };
            return Err(Error::Denied { reason });
        }
        if !key.algorithm().supports(algorithm) {
            return Err(Error::Unsupported {
                what: format!("{algorithm} with a key of type {}", key.algorithm()),
                reason: "use the key's own signature algorithm",
            });
        }
        if let Some(rate) = &self.rate
            && !rate.take(crate::clock::monotonic())
        {
            return Err(Error::Denied { reason: DeniedReason::Rate { per_second: rate.per_second() } });
        }
        self.record(key, algorithm, intent, Allowed::Yes)
    }

    fn record(
        &self,
        public_key: &PublicKey,
        algorithm: SignatureAlgorithm,
        intent: &SigningIntent,
        allowed: Allowed,
    ) -> Result<(), Error> {
        let Some(audit) = &self.audit else { return Ok(()) };
        audit
            .record(&KeyUse { public_key, algorithm, intent, allowed })
            .map_err(|detail| Error::Denied { reason: DeniedReason::Audit { detail } })
    }
}

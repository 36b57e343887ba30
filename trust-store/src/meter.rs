//! Bounds what all signature checks of one verification cost together.
//!
//! An attestation may hold many bundles, tokens, log entries and lines, and each part may repeat genuine signatures of others
//! as often as it likes. [`Budget`](crate::budget::Budget) bounds each search; a [`Meter`] stands before the provider and
//! bounds the sum.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use tlog::signature::{Algorithm, InvalidSignature, SignatureVerifier};

use crate::reason::{Denial, ReasonCode};

/// Units for an attestation without further bundles. A unit is a P-256 check, at most 0.1 ms natively; an honest attestation
/// that brings everything along takes some 20.
const UNITS: u32 = 250;

/// Units more for each further bundle: two for its certificate and its timestamp, its signature, its token, and up to six for
/// a checkpoint of its own with two keys of the log and its witnesses. What bundles have in common is checked once.
const UNITS_PER_BUNDLE: u32 = 10;

/// A provider that stops to verify when the units are used up.
pub(crate) struct Meter<'a> {
    inner: &'a dyn SignatureVerifier,
    left: AtomicU32,
    refused: AtomicBool,
    allowance: u32,
}

impl<'a> Meter<'a> {
    /// A meter for an attestation with this many further bundles.
    pub(crate) fn new(inner: &'a dyn SignatureVerifier, further_bundles: usize) -> Self {
        let further = u32::try_from(further_bundles).unwrap_or(u32::MAX);
        let allowance = UNITS.saturating_add(UNITS_PER_BUNDLE.saturating_mul(further));
        Self { inner, left: AtomicU32::new(allowance), refused: AtomicBool::new(false), allowance }
    }

    /// Whether a check was refused. What it would have shown is not known then, for or against: a revocation may have gone
    /// unread, so nothing that was decided stands.
    pub(crate) fn has_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }

    /// The reason that is reported in place of one that only says that a signature was not verified.
    pub(crate) fn exceeded(&self) -> Denial {
        let detail = alloc::format!(
            "verifying the attestation takes more than {} signature checks, of which honest ones need a tenth",
            self.allowance
        );
        Denial::new(ReasonCode::BudgetExceeded, detail)
    }

    fn spend(&self, algorithm: Algorithm, public_key: &[u8]) -> Result<(), InvalidSignature> {
        let cost = cost(algorithm, public_key.len());
        let taken =
            self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(cost));
        if taken.is_err() {
            self.left.store(0, Ordering::Relaxed);
            self.refused.store(true, Ordering::Relaxed);
            return Err(InvalidSignature);
        }
        Ok(())
    }
}

/// Units of one check, rounded up from the native provider's times.
fn cost(algorithm: Algorithm, key_length: usize) -> u32 {
    use Algorithm as A;
    match algorithm {
        A::EcdsaP256Sha256 | A::EcdsaP256Sha384 | A::EcdsaP256Sha512 | A::Ed25519 => 1,
        A::EcdsaP384Sha256 | A::EcdsaP384Sha384 | A::EcdsaP384Sha512 => 3,
        A::EcdsaP521Sha256 | A::EcdsaP521Sha512 => 5,
        A::RsaPkcs1Sha256
        | A::RsaPkcs1Sha384
        | A::RsaPkcs1Sha512
        | A::RsaPssSha256
        | A::RsaPssSha384
        | A::RsaPssSha512 => 1 + u32::try_from(key_length / 512).unwrap_or(u32::MAX).min(4),
        _ => 2,
    }
}

impl SignatureVerifier for Meter<'_> {
    fn verify(
        &self,
        algorithm: Algorithm,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        self.spend(algorithm, public_key)?;
        self.inner.verify(algorithm, public_key, message, signature)
    }

    fn verify_digest(
        &self,
        algorithm: Algorithm,
        public_key: &[u8],
        digest: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        self.spend(algorithm, public_key)?;
        self.inner.verify_digest(algorithm, public_key, digest, signature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Yes;

    impl SignatureVerifier for Yes {
        fn verify(&self, _: Algorithm, _: &[u8], _: &[u8], _: &[u8]) -> Result<(), InvalidSignature> {
            Ok(())
        }
        fn verify_digest(&self, _: Algorithm, _: &[u8], _: &[u8], _: &[u8]) -> Result<(), InvalidSignature> {
            Ok(())
        }
    }

    #[test]
    fn ends_after_its_units_and_counts_dear_checks_for_more() {
        for (algorithm, cost) in
            [(Algorithm::Ed25519, 1), (Algorithm::EcdsaP384Sha384, 3), (Algorithm::MlDsa65, 2)]
        {
            let meter = Meter::new(&Yes, 1);
            let count = (UNITS + UNITS_PER_BUNDLE) / cost;
            for _ in 0..count {
                assert!(meter.verify(algorithm, b"", b"", b"").is_ok());
            }
            assert!(!meter.has_refused());
            assert!(meter.verify_digest(algorithm, b"", b"", b"").is_err());
            assert!(meter.has_refused());
            assert!(meter.verify(Algorithm::Ed25519, b"", b"", b"").is_err(), "it stays ended");
        }
        assert_eq!(Meter::new(&Yes, 0).exceeded().code, ReasonCode::BudgetExceeded);
    }

    #[test]
    fn long_rsa_keys_cost_more() {
        assert_eq!(
            [270, 526, 1038, 4096].map(|length| cost(Algorithm::RsaPkcs1Sha256, length)),
            [1, 2, 3, 5]
        );
    }
}

//! Step 4: when the signature was made.

use alloc::format;
use alloc::vec::Vec;

use super::{Part, Session, denied};
use crate::bundle::Bundle;
use crate::certificate::Certificate;
use crate::oid;
use crate::path::{PathPolicy, VerifiedChain, build_path_where};
use crate::policy::{MAX_CLOCK_SKEW, SigningTimePolicy};
use crate::reason::{Denial, ReasonCode};
use crate::rekor_v1;
use crate::time::UnixTime;
use crate::trust_material::TrustMaterial;
use crate::tsp::TimestampToken;

/// Times at which the signature is proven to have existed; at least one.
pub(super) struct SigningTimes {
    first: UnixTime,
    others: Vec<UnixTime>,
    /// The chain of each timestamp authority, with the time of its token. One that stamped twice stands here twice.
    authorities: Vec<(VerifiedChain, UnixTime)>,
}

impl SigningTimes {
    pub(super) fn all(&self) -> Vec<UnixTime> {
        self.iter().collect()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = UnixTime> {
        core::iter::once(self.first).chain(self.others.iter().copied())
    }

    /// The chains that step 12 looks at as well.
    pub(super) fn authorities(&self) -> impl Iterator<Item = (&VerifiedChain, UnixTime)> {
        self.authorities.iter().map(|(chain, time)| (chain, *time))
    }
}

impl Session<'_> {
    /// Every token must verify: one that does not is a sign of tampering, not noise.
    pub(super) fn step_4_signing_time(&self, part: &Part<'_>) -> Result<SigningTimes, Denial> {
        let signature = part.bundle.signature()?;
        let mut times = Vec::new();
        let mut authorities = Vec::new();
        for token in part.tokens {
            let token = token.as_ref().map_err(Denial::clone)?;
            match self.token_verifies(token, signature) {
                Ok(chain) => authorities.push((chain, token.time())),
                Err(denial) => self.enforce(4, Err(denial))?,
            }
            times.push(token.time());
        }
        if self.policy.signing_time == SigningTimePolicy::TokenOrLogTime {
            times.extend(self.promised_times(part.bundle));
        }
        let mut times = times.into_iter();
        match times.next() {
            Some(first) => Ok(SigningTimes { first, others: times.collect(), authorities }),
            None => {
                let detail = "nothing proves when the signature was made; `signing_time` demands a timestamp of a trusted authority: sign while one is reachable";
                self.enforce(4, Err(denied(ReasonCode::TimestampMissing, detail)))?;
                Ok(SigningTimes { first: self.now, others: Vec::new(), authorities })
            }
        }
    }

    /// The chain of the authority whose signature the token bears.
    fn token_verifies(&self, token: &TimestampToken, signature: &[u8]) -> Result<VerifiedChain, Denial> {
        let invalid = |detail| denied(ReasonCode::TimestampInvalid, detail);
        if token.time() > self.now.plus(MAX_CLOCK_SKEW) {
            return Err(invalid("the timestamp lies in the future"));
        }
        let list = &self.verifier.material.timestamp_authorities;
        let (anchors, candidates) = TrustMaterial::in_service(list, token.time());
        if anchors.is_empty() {
            return Err(invalid("the trusted root has no timestamp authority for the time of the token"));
        }
        let signers =
            || token.certificates().iter().chain(&candidates).filter(|signer| token.names_signer(signer));
        let mut refusal =
            invalid("the certificate of the token's signer is neither in the token nor in the trusted root");
        for signer in signers() {
            let checked = token
                .verify(signature, signer, self.crypto)
                .and_then(|()| self.authority_is_trusted(token, signer, &anchors, &candidates));
            match checked {
                Ok(chain) => return Ok(chain),
                Err(denial) if denial.code == ReasonCode::BudgetExceeded => return Err(denial),
                Err(denial) => refusal = denial,
            }
        }
        Err(refusal)
    }

    fn authority_is_trusted(
        &self,
        token: &TimestampToken,
        signer: &Certificate,
        anchors: &[Certificate],
        candidates: &[Certificate],
    ) -> Result<VerifiedChain, Denial> {
        // RFC 3161 section 2.3: the purpose is critical and the only one.
        let sole_purpose = signer.extension(&oid::EXTENDED_KEY_USAGE).is_some_and(|(_, critical)| critical)
            && signer.extended_key_usage().is_some_and(|usage| usage.iter().count() == 1);
        if !sole_purpose {
            let detail = "the timestamp authority's certificate must have timeStamping as its critical and only purpose";
            return Err(denied(ReasonCode::TimestampInvalid, detail));
        }
        let policy = PathPolicy { required_eku: Some(oid::KP_TIME_STAMPING), ..PathPolicy::default() };
        let intermediates: Vec<Certificate> =
            candidates.iter().chain(token.certificates()).cloned().collect();
        let mut budget = self.budget.borrow_mut();
        let accept = &mut |_: &_, _: &mut _| Ok(());
        let time = token.time();
        build_path_where(signer, &intermediates, anchors, time, &policy, self.cached, &mut budget, accept)
            .map_err(|denial| {
                // Nobody knows then whether somebody trusted signed it.
                if denial.code == ReasonCode::BudgetExceeded {
                    return denial;
                }
                let detail = format!("no trusted timestamp authority signed the token: {denial}");
                denied(ReasonCode::TimestampInvalid, detail)
            })
    }

    /// Integration times of Rekor v1 entries whose signed entry timestamp verifies.
    fn promised_times(&self, bundle: &Bundle) -> Vec<UnixTime> {
        let promised = |entry: &&crate::log_entry::TransparencyLogEntry| {
            let time = UnixTime(entry.integrated_time);
            let usable = entry.integrated_time > 0 && time <= self.now.plus(MAX_CLOCK_SKEW);
            usable
                && self.verifier.material.log(&entry.log_id).is_some_and(|log| {
                    log.validity.contains(time)
                        && rekor_v1::verify_promise(entry, log.details, &log.key, self.crypto).is_ok()
                })
        };
        bundle.log_entries.iter().filter(promised).map(|entry| UnixTime(entry.integrated_time)).collect()
    }
}

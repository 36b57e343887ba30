//! Steps 5 to 7: the signer's certificate chain, identity, and certificate transparency.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::content::{Signer, VerifiedSignature};
use super::signing_time::SigningTimes;
use super::{Session, denied};
use crate::certificate::Certificate;
use crate::extension::KeyUsage;
use crate::identity::Identity;
use crate::oid;
use crate::path::{PathPolicy, VerifiedChain, build_path_where};
use crate::policy::{IdentityRule, MAX_CLOCK_SKEW, SctPolicy, TrustLevel};
use crate::reason::{Denial, ReasonCode};
use crate::sct;
use crate::time::UnixTime;
use crate::trust_material::TrustMaterial;

/// Whom step 6 accepts.
#[derive(Clone, Copy)]
pub(super) enum Accepted<'a> {
    /// For the artifact's own signature: these identities, for this agent if it is one, and the keys that the policy names.
    Signers { rules: &'a [IdentityRule], agent: Option<&'a str> },
    /// For a builder or an endorser: these identities. A key that may sign artifacts is neither.
    Vouchers(&'a [IdentityRule]),
}

/// An identity that the policy lists, with the level that it earns.
pub(super) struct AcceptedIdentity {
    pub(super) identity: Identity,
    pub(super) level: TrustLevel,
}

impl Session<'_> {
    /// Step 5: a path from the signer's certificate to an authority that was in service, valid at every signing time:
    /// almost always one for all of them. None for a bare key, which has no chain.
    pub(super) fn step_5_chains(
        &self,
        signature: &VerifiedSignature<'_>,
        times: &SigningTimes,
    ) -> Result<Vec<VerifiedChain>, Denial> {
        let Signer::Certificate(leaf) = signature.signer else { return Ok(Vec::new()) };
        let mut chains: Vec<VerifiedChain> = Vec::new();
        for time in times.iter() {
            // Every time must hold; they are almost always one and the same second.
            if chains.iter().any(|chain| self.holds_at(chain, time)) {
                continue;
            }
            match self.chain_at(leaf, time) {
                Ok(chain) => chains.push(chain),
                Err(denial) => {
                    self.enforce(5, Err(denial))?;
                    return Ok(self.unverified_chain(leaf, time).into_iter().collect());
                }
            }
        }
        Ok(chains)
    }

    /// As step 5, but a time for which there is no chain takes none away from the others. A signer who has none at all is
    /// nobody to be asked about, and neither is whoever stamped his signature.
    pub(super) fn chains_of_each_time(
        &self,
        signature: &VerifiedSignature<'_>,
        times: &SigningTimes,
    ) -> Result<Vec<VerifiedChain>, Denial> {
        let Signer::Certificate(leaf) = signature.signer else { return Ok(Vec::new()) };
        let mut chains: Vec<VerifiedChain> = Vec::new();
        let mut refusal = None;
        for time in times.iter() {
            if chains.iter().any(|chain| self.holds_at(chain, time)) {
                continue;
            }
            match self.chain_at(leaf, time) {
                Ok(chain) => chains.push(chain),
                Err(denial) if denial.code == ReasonCode::BudgetExceeded => return Err(denial),
                Err(denial) => refusal = Some(denial),
            }
        }
        match refusal {
            Some(denial) if chains.is_empty() => Err(denial),
            _ => Ok(chains),
        }
    }

    /// Whether a chain for another time would be built for this one too. Two things of a path depend on time: the
    /// validity periods of its certificates and which authorities are in service.
    fn holds_at(&self, chain: &VerifiedChain, time: UnixTime) -> bool {
        if chain.time() == time {
            return true;
        }
        let material = &self.verifier.material;
        let (anchors, candidates) = TrustMaterial::in_service(&material.certificate_authorities, time);
        let [_, intermediates @ .., anchor] = chain.certificates() else { return false };
        anchors.contains(anchor)
            && intermediates.iter().all(|issuer| candidates.contains(issuer) || self.issuers.contains(issuer))
            && chain.certificates().iter().all(|certificate| certificate.is_valid_at(time))
    }

    fn chain_at(&self, leaf: &Certificate, time: UnixTime) -> Result<VerifiedChain, Denial> {
        let material = &self.verifier.material;
        let (anchors, mut candidates) = TrustMaterial::in_service(&material.certificate_authorities, time);
        if anchors.is_empty() {
            let detail = "the trusted root has no certificate authority for the signing time";
            return Err(denied(ReasonCode::UnknownIssuer, detail));
        }
        candidates.extend_from_slice(self.issuers);
        let policy = PathPolicy {
            required_eku: Some(oid::KP_CODE_SIGNING),
            required_key_usage: KeyUsage::DIGITAL_SIGNATURE,
            ..PathPolicy::default()
        };
        let mut budget = self.budget.borrow_mut();
        let accept = &mut |_: &_, _: &mut _| Ok(());
        build_path_where(leaf, &candidates, &anchors, time, &policy, self.cached, &mut budget, accept)
    }

    /// What the steps after a step 5 that a test switched off work with.
    fn unverified_chain(&self, leaf: &Certificate, time: UnixTime) -> Option<VerifiedChain> {
        let material = &self.verifier.material;
        let (_, candidates) = TrustMaterial::in_service(&material.certificate_authorities, time);
        let issuer =
            self.issuers.iter().chain(&candidates).find(|issuer| issuer.subject_name() == leaf.issuer_name());
        #[cfg(test)]
        return issuer.map(|issuer| {
            let policies = crate::path::ValidPolicies::default();
            VerifiedChain::assert_verified(alloc::vec![leaf.clone(), issuer.clone()], time, policies)
        });
        #[cfg(not(test))]
        {
            let _ = issuer;
            None
        }
    }

    /// Step 6: the signer is one that the policy accepts.
    pub(super) fn step_6_identity(
        &self,
        signature: &VerifiedSignature<'_>,
        accepted: Accepted<'_>,
    ) -> Result<AcceptedIdentity, Denial> {
        let (Accepted::Signers { rules, .. } | Accepted::Vouchers(rules)) = accepted;
        let certificate = match signature.signer {
            Signer::Key(key) => {
                if matches!(accepted, Accepted::Vouchers(_)) {
                    let detail = format!(
                        "the key `{}` signs artifacts; `endorsements.at-least` and `provenance.required` accept identities only: sign with a \
                         certificate",
                        key.name
                    );
                    self.enforce(6, Err(denied(ReasonCode::IdentityDenied, detail)))?;
                }
                return Ok(AcceptedIdentity { identity: Identity::of_key(&key.name), level: key.level });
            }
            Signer::Certificate(certificate) => certificate,
        };
        let identity = Identity::of_certificate(certificate)?;
        let accepting = || rules.iter().filter(|rule| rule.accepts(&identity));
        let refusal = || {
            let rule = match accepted {
                Accepted::Signers { .. } => "identities",
                Accepted::Vouchers(_) => "endorsements.at-least` or `provenance.required",
            };
            let detail = format!(
                "the signer {identity} is not accepted; {} identities are listed under `{rule}`: add this one, or let one of \
                 those sign",
                rules.len()
            );
            denied(ReasonCode::IdentityDenied, detail)
        };
        self.enforce(6, accepting().next().map(|_| ()).ok_or_else(refusal))?;
        let level = match accepted {
            Accepted::Vouchers(_) => accepting().map(|rule| rule.level).max(),
            // A rule lends its level to those agents only that it lets be published.
            Accepted::Signers { agent, .. } => {
                let level = accepting().filter(|rule| rule.may_publish(agent)).map(|rule| rule.level).max();
                let refusal = || denied(ReasonCode::AgentNotForSigner, not_for_signer(agent, &identity));
                self.enforce(6, level.map(|_| ()).ok_or_else(refusal))?;
                level
            }
        };
        Ok(AcceptedIdentity { identity, level: level.unwrap_or(TrustLevel::Verified) })
    }

    /// Step 7: the certificate was promised to a trusted certificate log before it was used.
    pub(super) fn step_7_certificate_transparency(
        &self,
        chain: Option<&VerifiedChain>,
    ) -> Result<(), Denial> {
        let Some(chain) = chain else { return Ok(()) };
        self.enforce(7, self.timestamps_verify(chain))
    }

    fn timestamps_verify(&self, chain: &VerifiedChain) -> Result<(), Denial> {
        let timestamps = sct::embedded(chain.leaf())?;
        if timestamps.is_empty() {
            return match self.policy.sct {
                SctPolicy::AcceptAbsent => Ok(()),
                SctPolicy::Require => {
                    let detail = "the certificate embeds no signed certificate timestamp; `sct` demands one: request a certificate from an authority that logs them";
                    Err(denied(ReasonCode::SctMissing, detail))
                }
            };
        }
        let mut known = 0_usize;
        for timestamp in &timestamps {
            let logs = &self.verifier.material.certificate_logs;
            let serving = logs
                .iter()
                .find(|log| log.log_id == timestamp.log_id && log.validity.contains(timestamp.time()));
            let Some(log) = serving else { continue };
            if timestamp.time() > self.now.plus(MAX_CLOCK_SKEW) {
                return Err(denied(ReasonCode::SctInvalid, "a certificate timestamp lies in the future"));
            }
            timestamp.verify(chain.leaf(), chain.issuer(), &log.key, self.cached)?;
            known += 1;
        }
        if known == 0 {
            let detail = "no certificate timestamp is of a certificate log in the trusted root; `sct` demands one: export the trusted root again, or request a certificate from an authority that it lists";
            return Err(denied(ReasonCode::SctInvalid, detail));
        }
        Ok(())
    }
}

fn not_for_signer(agent: Option<&str>, signer: &Identity) -> String {
    match agent {
        Some(agent) => format!(
            "the signer {signer} is accepted, but not for the agent `{agent}`: `agents` of each rule under `identities` that \
             accepts the signer names others; add this one there, or let one of its own signers sign"
        ),
        None => format!(
            "the signer {signer} is accepted for the agents that its rules under `identities` name, and what was signed is no agent"
        ),
    }
}

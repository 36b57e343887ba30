//! Steps 13 and 14: trust level, endorsements, provenance, agent ids, capabilities.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::chain::Accepted;
use super::{Deciding, Part, Session, denied};
use crate::attestation::{self, Attestation};
use crate::bundle::{Bundle, Content};
use crate::capability::Capability;
use crate::capability_rules::{CapabilityRequest, Permitted};
use crate::certificate::Certificate;
use crate::dsse::IN_TOTO_PAYLOAD_TYPE;
use crate::identity::Identity;
use crate::json::Value;
use crate::manifest::Manifest;
use crate::policy::{
    CapabilityPolicy, EndorsementPolicy, FieldRule, IdentityRule, ProvenancePolicy, TrustLevel,
};
use crate::reason::{Denial, ReasonCode};
use crate::statement::{ENDORSEMENT_TYPE, Statement};
use crate::verified::VerifiedSigning;

/// The level that was reached, and who lifted the artifact there.
pub(super) struct Standing {
    pub(super) level: TrustLevel,
    pub(super) endorsers: Vec<Identity>,
}

impl Session<'_> {
    /// Step 13.
    pub(super) fn step_13_trust(
        &self,
        attestation: &Attestation,
        signed: &VerifiedSigning,
    ) -> Result<Standing, Denial> {
        self.enforce(13, self.agent_is_admitted(attestation.manifest()))?;
        self.enforce(13, self.provenance_is_shown(attestation))?;
        let (endorsers, demanded) = match &self.policy.endorsements {
            EndorsementPolicy::NobodyEndorses => (Vec::new(), None),
            EndorsementPolicy::AtLeast { count, endorsers } => {
                (self.endorsers(attestation, &signed.identity, endorsers)?, Some(usize::from(count.get())))
            }
        };
        let endorsed = demanded.is_some_and(|count| endorsers.len() >= count);
        let level = if endorsed { signed.level.max(TrustLevel::Community) } else { signed.level };
        let required = self.policy.required_level;
        let reached = match demanded {
            _ if level >= required => Ok(()),
            Some(count) if required == TrustLevel::Community => {
                let detail = self.missing_endorsements(&endorsers, count, &signed.identity);
                Err(denied(ReasonCode::EndorsementMissing, detail))
            }
            _ => {
                let detail = format!(
                    "the level reached is {level}; `required_level` demands {required}: list {} at that level under `identities`",
                    signed.identity
                );
                Err(denied(ReasonCode::TrustLevel, detail))
            }
        };
        self.enforce(13, reached)?;
        Ok(Standing { level, endorsers })
    }

    /// Which rule demands endorsements, who gave one, and who may give the others.
    fn missing_endorsements(&self, endorsers: &[Identity], count: usize, own: &Identity) -> String {
        let list = |items: &mut dyn Iterator<Item = String>| {
            // Enough to act on; a policy may name a thousand.
            let shown: Vec<String> = items.take(5).collect();
            if shown.is_empty() { String::from("nobody") } else { shown.join(", ") }
        };
        let given = list(&mut endorsers.iter().map(ToString::to_string));
        let accepted = match &self.policy.endorsements {
            EndorsementPolicy::AtLeast { endorsers, .. } => endorsers.as_slice(),
            EndorsementPolicy::NobodyEndorses => &[],
        };
        let accepted = list(&mut accepted.iter().map(|rule| rule.subject.to_string()));
        format!(
            "{} of {count} accepted signers endorsed the artifact ({given}); `endorsements.at-least` accepts {accepted}, but not \
             the signer {own}: let as many of them run `mentatctl endorse`",
            endorsers.len()
        )
    }

    fn agent_is_admitted(&self, manifest: Option<&Manifest>) -> Result<(), Denial> {
        let Some(manifest) = manifest else { return Ok(()) };
        let id = manifest.id().as_str();
        let rule = if self.policy.agents.deny.iter().any(|pattern| pattern.matches(id)) {
            "a pattern of `agents.deny` matches it: nothing but another policy satisfies that"
        } else if !self.policy.agents.allow.iter().any(|pattern| pattern.matches(id)) {
            "no pattern of `agents.allow` matches it: add one to admit it"
        } else {
            return Ok(());
        };
        Err(denied(ReasonCode::PolicyDenied, format!("the agent `{id}` is not admitted; {rule}")))
    }

    fn provenance_is_shown(&self, attestation: &Attestation) -> Result<(), Denial> {
        let ProvenancePolicy::Required { predicate_type, builders, fields } = &self.policy.provenance else {
            return Ok(());
        };
        let mut found = None;
        for bundle in attestation.further.iter().chain([&attestation.bundle]) {
            match self.statement_of(bundle, predicate_type, builders) {
                Some(Ok((statement, _))) => match fields.iter().find(|rule| !holds(rule, &statement)) {
                    None => return Ok(()),
                    Some(rule) => found = Some(format!("`{}` does not match `{}`", rule.path, rule.matches)),
                },
                Some(Err(denial)) => found = Some(denial.to_string()),
                None => {}
            }
        }
        let detail = match found {
            Some(reason) => {
                format!(
                    "provenance of type {predicate_type} does not satisfy `provenance.required`; {reason}: build again where it does"
                )
            }
            None => format!(
                "no statement of type {predicate_type} by an accepted builder came along; `provenance.required` demands one: add \
                 it to the attestation's `further_bundles`"
            ),
        };
        Err(denied(ReasonCode::ProvenanceMissing, detail))
    }

    /// Distinct accepted signers, other than the artifact's own, of verified endorsements.
    fn endorsers(
        &self,
        attestation: &Attestation,
        own: &Identity,
        accepted: &[IdentityRule],
    ) -> Result<Vec<Identity>, Denial> {
        let mut endorsers: Vec<Identity> = Vec::new();
        for bundle in &attestation.further {
            match self.statement_of(bundle, ENDORSEMENT_TYPE, accepted) {
                Some(Ok((statement, identity))) => {
                    let same_manifest =
                        attestation.manifest().is_none_or(|manifest| statement.names_manifest(manifest));
                    if same_manifest && identity != *own && !endorsers.contains(&identity) {
                        endorsers.push(identity);
                    }
                }
                // A revoked endorser is a warning, not a missing voice.
                Some(Err(denial)) if denial.code == ReasonCode::Revoked => return Err(denial),
                _ => {}
            }
        }
        Ok(endorsers)
    }

    /// Whether somebody who decides so looks at a further bundle.
    pub(super) fn is_looked_at(&self, bundle: &Bundle, deciding: Deciding<'_>) -> bool {
        let Some(statement) = self.statement_about(bundle) else { return false };
        let Deciding::By(policy) = deciding else { return true };
        let predicate = &statement.predicate_type;
        let endorses = matches!(policy.endorsements, EndorsementPolicy::AtLeast { .. });
        let required = match &policy.provenance {
            ProvenancePolicy::Required { predicate_type, .. } => Some(predicate_type),
            _ => None,
        };
        (endorses && predicate == ENDORSEMENT_TYPE) || required == Some(predicate)
    }

    /// What a bundle states about this artifact, if it does. Nothing of it is verified.
    fn statement_about(&self, bundle: &Bundle) -> Option<Statement> {
        let Content::Dsse(envelope) = &bundle.content else { return None };
        if envelope.payload_type != IN_TOTO_PAYLOAD_TYPE {
            return None;
        }
        let statement = Statement::parse(&envelope.payload).ok()?;
        statement.names_artifact(self.digest.as_bytes()).then_some(statement)
    }

    /// A statement of this type about this artifact, verified like the artifact's own; `None` if the bundle is
    /// something else.
    fn statement_of(
        &self,
        bundle: &Bundle,
        predicate_type: &str,
        accepted: &[IdentityRule],
    ) -> Option<Result<(Statement, Identity), Denial>> {
        let statement = self.statement_about(bundle)?;
        if statement.predicate_type != predicate_type {
            return None;
        }
        let certificate = match bundle.certificate().map(Certificate::from_der).transpose() {
            Ok(certificate) => certificate,
            Err(denial) => return Some(Err(denial)),
        };
        let tokens = attestation::read_tokens(bundle);
        let part = Part { bundle, certificate: certificate.as_ref(), tokens: &tokens };
        Some(
            self.verify_signing(&part, Accepted::Vouchers(accepted))
                .map(|signed| (statement, signed.identity)),
        )
    }

    /// Step 14: everything the signed manifest requests is covered by what may be granted, and permitted to this signer by the
    /// policy's rules, if it has any.
    pub(super) fn step_14_capabilities(
        &self,
        manifest: Option<&Manifest>,
        signer: &Identity,
        level: TrustLevel,
    ) -> Result<Granting, Denial> {
        let requested = manifest.map(Manifest::requested_capabilities).unwrap_or_default();
        if let CapabilityPolicy::Within(granted) = &self.policy.capabilities {
            let beyond = requested.iter().find(|capability| !capability.is_covered_by(granted));
            let refusal = beyond.map_or(Ok(()), |capability| {
                let detail = format!("the capability `{capability}` is not granted; `capabilities` does not cover it: add it there, or remove it from the manifest and sign again");
                Err(denied(ReasonCode::CapabilityDenied, detail))
            });
            self.enforce(14, refusal)?;
        }
        let mut permitted = Vec::new();
        if let (Some(rules), Some(manifest)) = (&self.policy.capability_rules, manifest) {
            let (agent, version) = (manifest.id().as_str(), manifest.version().as_str());
            let (signer, issuer) = (signer.subject(), signer.issuer());
            for capability in &requested {
                let request = CapabilityRequest { agent, version, signer, issuer, level, capability };
                match rules.judge(&request) {
                    Ok(by) => permitted.push(by),
                    Err(why) => {
                        let detail = format!("the capability `{capability}` is not granted: {why}");
                        self.enforce(14, Err(denied(ReasonCode::CapabilityDenied, detail)))?;
                    }
                }
            }
        }
        Ok(Granting { requested, permitted })
    }
}

/// What step 14 finds.
pub(super) struct Granting {
    /// Everything that the manifest requests.
    pub(super) requested: Vec<Capability>,
    /// The rules that permit each of them, where the policy has rules.
    pub(super) permitted: Vec<Permitted>,
}

fn holds(rule: &FieldRule, statement: &Statement) -> bool {
    let found = rule.path.split('.').try_fold(&statement.predicate, |value, key| value.member(key));
    found.and_then(Value::as_str).is_some_and(|text| rule.matches.matches(text))
}

//! The trust policy in force.

use std::path::Path;

use service::StartRefusal;
use trust_store::capability::Capability;
use trust_store::policy::{CapabilityPolicy, TrustPolicy};
use trust_store::policy_document::MAX_POLICY_BYTES;

use crate::config::{policy_version, refuse_weak_policy};

/// A policy has `capability_rules`, and nobody here knows their language.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this executor was built without Cedar")]
pub struct NoRuleEngine;

/// A trust policy that this executor may decide by, and the digest of the text it was read from.
#[derive(Debug, Clone)]
pub struct Rules {
    policy: TrustPolicy,
    granted: Vec<Capability>,
    digest: [u8; 32],
}

impl Rules {
    /// Rules with this digest. A policy that leaves capabilities to others grants none.
    pub fn new(policy: TrustPolicy, digest: [u8; 32]) -> Self {
        let granted = match &policy.capabilities {
            CapabilityPolicy::Within(granted) => granted.clone(),
            CapabilityPolicy::LeftToTheExecutor => Vec::new(),
        };
        Self { policy, granted, digest }
    }

    /// Reads the policy file. Blocks.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, is none, or is weaker than this executor allows.
    pub fn read(path: &Path) -> Result<Self, StartRefusal> {
        let bytes = trust_store_files::atomic::read(path, MAX_POLICY_BYTES as u64).map_err(|error| {
            StartRefusal::new("the trust policy cannot be read", "check its path").because(error)
        })?;
        // The very bytes that are judged are the ones whose digest is recorded.
        Self::parse(&bytes).map_err(|refusal| refusal.within(&path.display().to_string()))
    }

    /// Reads a policy from its text.
    ///
    /// # Errors
    ///
    /// When it is none, or weaker than this executor allows.
    pub fn parse(bytes: &[u8]) -> Result<Self, StartRefusal> {
        let policy = trust_store_files::trust_files::parse_policy_document(bytes)
            .and_then(|document| document.validate())
            .map_err(|error| {
                let remedy = "docs/formats/policy.md shows every key";
                StartRefusal::new("the trust policy cannot be used", remedy).because(error)
            })?;
        refuse_weak_policy(&policy)?;
        Ok(Self::new(with_engine(policy)?, policy_version(bytes)))
    }

    /// SHA-256 of the text: the policy's version in every decision.
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }

    pub(crate) fn policy(&self) -> &TrustPolicy {
        &self.policy
    }

    /// Capabilities granted to every admitted module that asks for them.
    pub(crate) fn granted(&self) -> &[Capability] {
        &self.granted
    }
}

/// The policy with what its capability rules are judged by.
#[cfg(feature = "cedar")]
fn with_engine(policy: TrustPolicy) -> Result<TrustPolicy, StartRefusal> {
    capability_rules::complete(policy).map_err(|error| {
        let remedy = "correct `capability_rules`; docs/formats/policy.md shows what they may speak of";
        StartRefusal::new("the trust policy cannot be used", remedy).because(error)
    })
}

/// Refuses rules that nobody here can judge by: the verifier would deny every request under them.
#[cfg(not(feature = "cedar"))]
fn with_engine(policy: TrustPolicy) -> Result<TrustPolicy, StartRefusal> {
    match policy.capability_rules {
        Some(_) => Err(StartRefusal::new(
            "the trust policy has `capability_rules`",
            "build the executor with `--features cedar`, or say it with `capabilities`",
        )
        .because(NoRuleEngine)),
        None => Ok(policy),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: &str = r#"{"version":1,"capability_rules":"permit (principal, action, resource);"}"#;

    #[cfg(not(feature = "cedar"))]
    #[test]
    fn rules_that_a_build_cannot_judge_by_are_refused() {
        use std::error::Error as _;

        let refused = Rules::parse(RULES.as_bytes()).unwrap_err();
        assert!(refused.source().unwrap().is::<NoRuleEngine>(), "{refused}");
    }

    #[cfg(feature = "cedar")]
    #[test]
    fn rules_are_read_and_those_that_fit_no_schema_are_refused() {
        use trust_store::capability_rules::{CapabilityRequest, RuleRefusal};
        use trust_store::policy::TrustLevel;

        let judge = |text: &str| {
            let rules = Rules::parse(text.as_bytes()).unwrap();
            let request = CapabilityRequest {
                agent: "a.b",
                version: "1.0.0",
                signer: "a@example.com",
                issuer: None,
                level: TrustLevel::Verified,
                capability: &"env:A".parse().unwrap(),
            };
            rules.policy().capability_rules.as_ref().unwrap().judge(&request)
        };
        assert_eq!(judge(RULES).unwrap().rules, ["rule 1"]);
        let digest = |text: &str| Rules::parse(text.as_bytes()).unwrap().digest();
        assert_ne!(digest(RULES), digest(&RULES.replace("permit", "forbid")), "it covers the rules");
        assert_eq!(
            judge(&RULES.replace("permit", "forbid")),
            Err(RuleRefusal::Forbidden(vec!["rule 1".into()]))
        );
        let refused = Rules::parse(RULES.replace("action,", "action == 5,").as_bytes()).unwrap_err();
        assert!(refused.to_string().contains("cannot be used"), "{refused}");
    }
}

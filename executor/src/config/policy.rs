//! What the executor demands of a trust policy before it starts with it.

use executor_engine::ModuleDigest;
use service::StartRefusal;
use trust_store::capability::Capability;
use trust_store::policy::{
    ArtifactPolicy, CapabilityPolicy, FreshnessPolicy, RevocationMode, TrustLevel, TrustPolicy,
};

use crate::extensions::has_interface;

/// Refuses a policy under which something could run that was not verified completely.
///
/// # Errors
///
/// The first demand that is missing.
pub fn refuse_weak_policy(policy: &TrustPolicy) -> Result<(), StartRefusal> {
    let refuse =
        |what: &str, remedy: &str| Err(StartRefusal::new(format!("the trust policy {what}"), remedy));
    if policy.artifact != ArtifactPolicy::AgentRelease {
        return refuse("accepts signatures without a manifest", "set `artifact: agent-release`");
    }
    if policy.revocation.mode != RevocationMode::Require {
        return refuse("does not demand evidence about revocation", "set `revocation: { mode: require }`");
    }
    if !matches!(policy.freshness, FreshnessPolicy::WithinSeconds(_)) {
        return refuse("accepts checkpoints of any age", "set `freshness: { within-seconds: 3600 }`");
    }
    if !policy.keys.is_empty() {
        return refuse("accepts bare keys, which cannot be revoked", "remove `keys`; sign with certificates");
    }
    let CapabilityPolicy::Within(granted) = &policy.capabilities else {
        return refuse(
            "does not say which capabilities may be granted",
            "set `capabilities: { within: [] }`",
        );
    };
    let narrowed = granted.iter().find(|capability| {
        matches!(capability, Capability::Extension { name, argument: Some(_) } if has_interface(name))
    });
    if let Some(narrowed) = narrowed {
        let what = format!("grants {narrowed}, and that extension takes no argument");
        return refuse(&what, "grant the whole extension or none of it");
    }
    // Modules of lower levels run in worker processes, or not at all where the host cannot confine those.
    if policy.required_level < TrustLevel::Signed {
        return refuse(
            "admits modules without an attestation",
            "set `required_level: verified`, the default",
        );
    }
    Ok(())
}

/// SHA-256 of the policy file: its version in every decision.
pub fn policy_version(file: &[u8]) -> [u8; 32] {
    ModuleDigest::of(file).0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_that_skips_a_check_is_refused() {
        let strict = TrustPolicy::default();
        assert!(refuse_weak_policy(&strict).is_ok());
        let mut weak = strict.clone();
        weak.revocation.mode = RevocationMode::DangerSkip;
        assert!(refuse_weak_policy(&weak).unwrap_err().to_string().contains("revocation"));
        let weak = TrustPolicy { freshness: FreshnessPolicy::AttestedCheckpointSuffices, ..strict.clone() };
        assert!(refuse_weak_policy(&weak).unwrap_err().to_string().contains("any age"));
        let weak = TrustPolicy { artifact: ArtifactPolicy::AnySignedArtifact, ..strict.clone() };
        assert!(refuse_weak_policy(&weak).unwrap_err().to_string().contains("manifest"));
        let weak = TrustPolicy { capabilities: CapabilityPolicy::LeftToTheExecutor, ..strict.clone() };
        assert!(refuse_weak_policy(&weak).unwrap_err().to_string().contains("capabilities"));
        for (required_level, accepted) in
            [(TrustLevel::Untrusted, false), (TrustLevel::Signed, true), (TrustLevel::Community, true)]
        {
            let policy = TrustPolicy { required_level, ..strict.clone() };
            assert_eq!(refuse_weak_policy(&policy).is_ok(), accepted, "{required_level}");
        }
        for text in ["extension:media:avatars", "extension:stream:x"] {
            let within = CapabilityPolicy::Within(vec![text.parse().unwrap()]);
            let weak = TrustPolicy { capabilities: within, ..strict.clone() };
            assert!(refuse_weak_policy(&weak).unwrap_err().to_string().contains(text));
        }
    }
}

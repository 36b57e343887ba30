//! What the `capability_rules` of a policy would say, were a manifest signed by somebody.

use trust_store::capability::Capability;
use trust_store::capability_rules::{CapabilityRequest, CapabilityRules, RuleRefusal};
use trust_store::manifest::Manifest;
use trust_store::policy::TrustPolicy;

use super::Finding;
use super::standing::{Signer, level_of};

/// The rules of a policy, and who is taken to sign.
#[derive(Clone, Copy)]
pub(super) struct Rulings<'a> {
    rules: &'a CapabilityRules,
    signer: &'a str,
    issuer: Option<&'a str>,
    policy: &'a TrustPolicy,
}

/// What is said of one request.
#[derive(Debug)]
pub(super) struct Ruling {
    capability: Capability,
    said: Result<Vec<String>, RuleRefusal>,
}

impl<'a> Rulings<'a> {
    /// Nothing where the policy has no rules, or nobody is named who signs.
    pub(super) fn of(policy: &'a TrustPolicy, signer: Option<Signer<'a>>) -> Option<Self> {
        let (rules, (signer, issuer)) = (policy.capability_rules.as_ref()?, signer?);
        Some(Self { rules, signer, issuer, policy })
    }

    /// One ruling for each request of a manifest.
    pub(super) fn about(&self, manifest: &Manifest) -> Vec<Ruling> {
        // Whoever reaches less than the policy demands is denied before any rule is asked.
        let earned = level_of(self.policy, (self.signer, self.issuer), manifest.id().as_str());
        let level = earned.map_or(self.policy.required_level, |level| level.max(self.policy.required_level));
        let judge = |capability: Capability| {
            let request = CapabilityRequest {
                agent: manifest.id().as_str(),
                version: manifest.version().as_str(),
                signer: self.signer,
                issuer: self.issuer,
                level,
                capability: &capability,
            };
            let said = self.rules.judge(&request).map(|permitted| permitted.rules);
            Ruling { capability, said }
        };
        manifest.requested_capabilities().into_iter().map(judge).collect()
    }
}

impl Ruling {
    /// What is permitted, and by which rules.
    pub(super) fn permitted(&self) -> Option<(&Capability, &[String])> {
        self.said.as_ref().ok().map(|rules| (&self.capability, rules.as_slice()))
    }

    /// What will be denied.
    pub(super) fn finding(&self) -> Option<Finding> {
        let refused = self.said.as_ref().err()?;
        let text = format!("asks for {}, and {refused}", self.capability);
        Some(Finding { code: "not_permitted", text })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::verify::load_policy;

    fn policy(folder: &Path, rules: &str) -> TrustPolicy {
        let path = folder.join("policy.yaml");
        let text = serde_json::json!({ "version": 1, "capability_rules": rules }).to_string();
        std::fs::write(&path, text).unwrap();
        load_policy(&path).unwrap()
    }

    #[test]
    fn each_request_is_judged_for_whom_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let policy = policy(
            folder.path(),
            r#"@id("keys") permit (principal, action == Mentat::Action::"env", resource)
               when { principal.signer == "ci@example.com" && principal.level == "verified" };
               @id("none-below-2") forbid (principal, action, resource) when { principal.version like "1.*" };"#,
        );
        let manifest = |version: &str| {
            let text = format!(
                r#"{{"id":"a.b","module":"m.wasm","runtime":"wasm","version":"{version}","wasm":{{"capabilities":["env:A","compute:cpu_ms=5"]}}}}"#
            );
            Manifest::from_json(text.as_bytes()).unwrap()
        };
        let said = |version: &str, signer| {
            let rulings = Rulings::of(&policy, Some((signer, None))).unwrap().about(&manifest(version));
            let permitted: Vec<String> = rulings
                .iter()
                .filter_map(Ruling::permitted)
                .map(|(capability, rules)| format!("{capability} {rules:?}"))
                .collect();
            let findings: Vec<String> = rulings.iter().filter_map(Ruling::finding).map(|f| f.text).collect();
            (permitted.join("; "), findings.join("; "))
        };
        let none = "no rule of `capability_rules` permits it";
        let (permitted, findings) = said("2.0.0", "ci@example.com");
        assert_eq!(permitted, r#"env:A ["keys"]"#);
        assert_eq!(findings, format!("asks for compute:cpu_ms=5, and {none}"));
        let (permitted, findings) = said("2.0.0", "other@example.com");
        assert_eq!((permitted.as_str(), findings.matches(none).count()), ("", 2));
        let (_, findings) = said("1.9.0", "ci@example.com");
        assert_eq!(findings.matches("forbid it by `none-below-2`").count(), 2, "{findings}");
        assert!(Rulings::of(&policy, None).is_none());
    }

    #[test]
    fn a_policy_whose_rules_cannot_be_used_is_no_policy() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("policy.yaml");
        std::fs::write(&path, "version: 1\ncapability_rules: permit (principal, action, resource)\n")
            .unwrap();
        let refused = load_policy(&path).unwrap_err();
        assert!(format!("{refused:?}").contains("capability rules cannot be used"), "{refused:?}");
    }
}

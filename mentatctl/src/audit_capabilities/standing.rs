//! At which level a release would stand by a policy, and what that leaves of its requests.
//!
//! The policy decides about each request, the level of trust about how much of it there is at most: an executor grants a release
//! everything that it asks for, or refuses it.

use trust_store::capability::Capability;
use trust_store::manifest::Manifest;
use trust_store::policy::{CapabilityPolicy, EndorsementPolicy, TrustLevel, TrustPolicy};
use trust_store::tier::{Isolation, beyond_ceiling};

use super::Finding;

/// Where calls have scratch files, unless the operator maps a directory there.
const SCRATCH: &str = "/tmp";

/// Who is taken to sign: a name, and who vouches for it.
pub(super) type Signer<'a> = (&'a str, Option<&'a str>);

/// What a release of one level gets.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) level: TrustLevel,
    pub(super) isolation: Isolation,
    /// Requests that the policy covers and the level does not rule out.
    pub(super) granted: Vec<Capability>,
    /// Requests that the level rules out, and why.
    pub(super) beyond: Vec<(Capability, &'static str)>,
}

/// The level that a signer earns for an agent by the rules of a policy, if they accept it.
pub(super) fn level_of(
    policy: &TrustPolicy,
    (subject, issuer): Signer<'_>,
    agent: &str,
) -> Option<TrustLevel> {
    let accepting = policy.identities.iter().filter(|rule| rule.accepts_name(subject, issuer));
    accepting.filter(|rule| rule.may_publish(Some(agent))).map(|rule| rule.level).max()
}

/// What a manifest's release would get at each level that it can reach: by its signer's rules and by endorsements, or, where nobody
/// is named who signs, every level that the policy admits.
pub(super) fn standings(
    policy: &TrustPolicy,
    signer: Option<Signer<'_>>,
    manifest: &Manifest,
) -> Vec<Standing> {
    let earned = signer.map(|signer| level_of(policy, signer, manifest.id().as_str()));
    let endorsed = matches!(policy.endorsements, EndorsementPolicy::AtLeast { .. });
    let mut levels = match earned {
        None => vec![TrustLevel::Signed, TrustLevel::Community, TrustLevel::Verified],
        Some(None) => Vec::new(),
        Some(Some(level)) if endorsed && level < TrustLevel::Community => vec![level, TrustLevel::Community],
        Some(Some(level)) => vec![level],
    };
    levels.retain(|level| *level >= policy.required_level);
    levels.into_iter().map(|level| standing(policy, level, manifest)).collect()
}

fn standing(policy: &TrustPolicy, level: TrustLevel, manifest: &Manifest) -> Standing {
    let own = |name: &str| manifest.wasm().env.iter().any(|(known, _)| known.as_str() == name);
    let (mut granted, mut beyond) = (Vec::new(), Vec::new());
    for request in manifest.requested_capabilities() {
        match beyond_ceiling(level, &request, own, |path| path.as_str() == SCRATCH) {
            Some(why) => beyond.push((request, why)),
            None if is_covered(policy, &request) => granted.push(request),
            None => {}
        }
    }
    Standing { level, isolation: Isolation::of(level), granted, beyond }
}

fn is_covered(policy: &TrustPolicy, request: &Capability) -> bool {
    match &policy.capabilities {
        CapabilityPolicy::LeftToTheExecutor => true,
        CapabilityPolicy::Within(granted) => request.is_covered_by(granted),
    }
}

/// What an executor would refuse, whatever the manifest asks for: a signer that the policy does not accept, or who stands too low.
pub(super) fn findings(
    policy: &TrustPolicy,
    signer: Option<Signer<'_>>,
    manifest: &Manifest,
    standings: &[Standing],
) -> Vec<Finding> {
    let Some((subject, issuer)) = signer else { return Vec::new() };
    let agent = manifest.id().as_str();
    let Some(level) = level_of(policy, (subject, issuer), agent) else {
        let is_known = policy.identities.iter().any(|rule| rule.accepts_name(subject, issuer));
        let (code, text) = if is_known {
            ("agent_not_for_signer", format!("the policy accepts {subject} for other agents than {agent}"))
        } else {
            ("identity_denied", format!("the policy does not accept {subject} as a signer"))
        };
        return vec![Finding { code, text }];
    };
    // What the highest level that it can reach rules out, none below it gives.
    let Some(best) = standings.last() else {
        let text =
            format!("{subject} earns the level `{level}`, and the policy admits `{}`", policy.required_level);
        return vec![Finding { code: "trust_level", text }];
    };
    let text = |(capability, why): &(Capability, &str)| format!("asks for {capability}, and {why}");
    best.beyond.iter().map(|beyond| Finding { code: "beyond_ceiling", text: text(beyond) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::load_policy;

    fn policy(text: serde_json::Value) -> TrustPolicy {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("policy.yaml");
        std::fs::write(&path, text.to_string()).unwrap();
        load_policy(&path).unwrap()
    }

    fn manifest(capabilities: &str) -> Manifest {
        let text = format!(
            r#"{{"id":"a.b","module":"m.wasm","runtime":"wasm","version":"1.0.0","wasm":{{"capabilities":[{capabilities}],"wasi":{{"env":["OWN=1"],"version":"preview2"}}}}}}"#
        );
        Manifest::from_json(text.as_bytes()).unwrap()
    }

    const ASKS: &str = r#""env:OTHER","env:OWN","filesystem:read:/data","network:https:*.example.com","network:https:api.example.com""#;

    fn rule(subject: &str, level: &str) -> serde_json::Value {
        serde_json::json!({ "subject": subject, "issuer": "any-of-the-authority", "level": level })
    }

    fn codes(policy: &TrustPolicy, signer: &str) -> Vec<&'static str> {
        let (manifest, signer) = (manifest(ASKS), Some((signer, None)));
        let standings = standings(policy, signer, &manifest);
        findings(policy, signer, &manifest, &standings).into_iter().map(|finding| finding.code).collect()
    }

    #[test]
    fn each_level_that_the_policy_admits_has_its_ceiling() {
        let within = ["env:OTHER", "env:OWN", "filesystem:write:/data", "network:https:*.example.com"];
        let policy = policy(serde_json::json!({
            "version": 1, "required_level": "signed", "capabilities": { "within": within },
        }));
        let standings = standings(&policy, None, &manifest(ASKS));
        let text = |list: &[Capability]| list.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        let seen: Vec<_> = standings
            .iter()
            .map(|standing| (standing.level.as_str(), text(&standing.granted), standing.beyond.len()))
            .collect();
        let named = "env:OWN network:https:api.example.com";
        let all = "env:OTHER env:OWN filesystem:read:/data network:https:api.example.com network:https:*.example.com";
        let patterns = "env:OWN network:https:api.example.com network:https:*.example.com";
        assert_eq!(
            seen,
            [
                ("signed", named.to_owned(), 3),
                ("community", patterns.to_owned(), 2),
                ("verified", all.to_owned(), 0)
            ]
        );
        assert_eq!(standings[0].isolation, Isolation::WorkerOfSigner);
        assert!(findings(&policy, None, &manifest(ASKS), &standings).is_empty(), "nobody is named who signs");
        let demanding = self::policy(serde_json::json!({ "version": 1, "required_level": "verified" }));
        let levels = self::standings(&demanding, None, &manifest(ASKS));
        assert_eq!(levels.iter().map(|standing| standing.level).collect::<Vec<_>>(), [TrustLevel::Verified]);
    }

    #[test]
    fn whoever_signs_has_the_level_of_his_rule_and_what_endorsements_add() {
        let base = |more: serde_json::Value| {
            let mut text = serde_json::json!({
                "version": 1, "required_level": "signed",
                "identities": [rule("low@example.com", "signed"), rule("high@example.com", "verified")],
            });
            text.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            policy(text)
        };
        let plain = base(serde_json::json!({}));
        assert!(codes(&plain, "high@example.com").is_empty());
        assert_eq!(codes(&plain, "low@example.com"), ["beyond_ceiling"; 3]);
        assert_eq!(codes(&plain, "other@example.com"), ["identity_denied"]);
        let mut elsewhere = rule("low@example.com", "signed");
        elsewhere["agents"] = serde_json::json!(["c.*"]);
        let others = base(serde_json::json!({ "identities": [elsewhere] }));
        assert_eq!(codes(&others, "low@example.com"), ["agent_not_for_signer"]);
        let strict = base(serde_json::json!({ "required_level": "verified" }));
        assert_eq!(codes(&strict, "low@example.com"), ["trust_level"]);
        let endorsed = base(serde_json::json!({
            "required_level": "community",
            "endorsements": { "at-least": { "count": 1, "endorsers": [rule("*@example.org", "signed")] } },
        }));
        assert_eq!(
            codes(&endorsed, "low@example.com"),
            ["beyond_ceiling"; 2],
            "at the level that it can reach"
        );
    }
}

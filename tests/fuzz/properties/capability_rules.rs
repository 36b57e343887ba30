//! What must hold for any text whatsoever given to the reader of `capability-rules`: it does not panic, and whatever it accepts
//! answers every kind of request, the same each time.
//!
//! The function says whether the text was accepted.
#![allow(dead_code, reason = "a fuzz target uses one function")]

use capability_rules::CedarRules;
use trust_store::capability::Capability;
use trust_store::capability_rules::{CapabilityRequest, RuleEngine as _};
use trust_store::policy::TrustLevel;

/// What a target runs; says whether the bytes were accepted.
pub(crate) type Property = fn(&[u8]) -> bool;

/// The name and function of every target.
pub(crate) const TARGETS: &[(&str, Property)] = &[("capability_rules", rules)];

/// One of each kind.
const ASKED: [&str; 5] = [
    "compute:memory=64MiB",
    "env:A",
    "extension:media",
    "filesystem:read:/data",
    "network:https:*.a.example:8443",
];

pub(crate) fn rules(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let Ok(rules) = CedarRules::read(text) else { return false };
    for asked in ASKED {
        let capability: Capability = asked.parse().expect("a capability");
        let request = CapabilityRequest {
            agent: "shop.cart",
            version: "2.0.0",
            signer: "https://ci.example/shop/release.yml@refs/tags/v2",
            issuer: Some("https://id.example"),
            level: TrustLevel::Verified,
            capability: &capability,
        };
        let said = rules.judge(&request);
        assert_eq!(said, rules.judge(&request));
        assert!(
            said.is_err() || said.is_ok_and(|by| !by.is_empty()),
            "what is permitted is permitted by a rule"
        );
    }
    true
}

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use trust_store::capability::Capability;
use trust_store::policy::TrustLevel;

use super::*;

const RULES: &str = r#"
    // Everybody may compute and keep scratch files.
    permit (principal, action == Mentat::Action::"compute", resource);
    permit (principal, action == Mentat::Action::"filesystem", resource) when { resource.path like "/tmp/*" };

    // Our own pipeline reaches the shop's hosts.
    permit (principal, action == Mentat::Action::"network", resource)
    when {
        principal.signer like "https://ci.example/shop/*" && principal.level == "verified"
            && resource.protocol == "https" && resource.host like "*.shop.example" && !resource.wildcard
    };

    @id("no-odd-ports")
    forbid (principal, action == Mentat::Action::"network", resource) when { resource has port && resource.port != 443 };

    @id("no-secrets-before-version-2")
    forbid (principal, action == Mentat::Action::"env", resource) when { principal.version like "1.*" };
    permit (principal, action == Mentat::Action::"env", resource == Mentat::Env::"env:SHOP_KEY");
"#;

fn judge(rules: &str, version: &str, level: TrustLevel, capability: &str) -> Result<(), String> {
    let capability: Capability = capability.parse().unwrap();
    let request = CapabilityRequest {
        agent: "shop.cart",
        version,
        signer: "https://ci.example/shop/release.yml@refs/tags/v1",
        issuer: Some("https://id.example"),
        level,
        capability: &capability,
    };
    CedarRules::read(rules).unwrap().judge(&request)
}

#[test]
fn what_is_not_permitted_is_denied_and_what_is_forbidden_stays_so() {
    let judge = |version, capability| judge(RULES, version, TrustLevel::Verified, capability);
    for granted in [
        "compute:memory=64MiB",
        "filesystem:write:/tmp/a",
        "network:https:cart.shop.example",
        "network:https:cart.shop.example:443",
        "env:SHOP_KEY",
    ] {
        assert_eq!(judge("2.0.0", granted), Ok(()), "{granted}");
    }
    for denied in [
        "filesystem:read:/etc",
        "network:https:*.shop.example",
        "network:http:cart.shop.example",
        "network:https:shop.example",
        "env:OTHER_KEY",
        "extension:media",
    ] {
        assert_eq!(
            judge("2.0.0", denied),
            Err("no rule of `capability_rules` permits it".into()),
            "{denied}"
        );
    }
    let forbidden = judge("2.0.0", "network:https:cart.shop.example:8443").unwrap_err();
    assert_eq!(forbidden, "`capability_rules` forbid it by `no-odd-ports`");
    let forbidden = judge("1.9.0", "env:SHOP_KEY").unwrap_err();
    assert_eq!(forbidden, "`capability_rules` forbid it by `no-secrets-before-version-2`");
}

#[test]
fn a_level_that_was_not_reached_is_not_claimed() {
    let denied = judge(RULES, "2.0.0", TrustLevel::Signed, "network:https:cart.shop.example").unwrap_err();
    assert_eq!(denied, "no rule of `capability_rules` permits it");
}

#[test]
fn a_rule_that_cannot_be_evaluated_denies_although_another_permits() {
    let rules = r#"
        permit (principal, action, resource);
        forbid (principal, action == Mentat::Action::"compute", resource)
        when { resource has memory && resource.memory * 9007199254740990 > 1 };
    "#;
    let denied = judge(rules, "1.0.0", TrustLevel::Verified, "compute:memory=64MiB").unwrap_err();
    assert!(denied.contains("cannot be evaluated"), "{denied}");
    assert_eq!(judge(rules, "1.0.0", TrustLevel::Verified, "compute:cpu_ms=5"), Ok(()));
}

#[test]
fn rules_that_do_not_fit_the_schema_are_refused_when_they_are_read() {
    let refused = |text: &str| CedarRules::read(text).unwrap_err();
    for text in [
        "permit",
        r#"permit (principal, action == Mentat::Action::"shell", resource);"#,
        r#"permit (principal, action == Mentat::Action::"network", resource) when { resource.hots == "a" };"#,
        r#"permit (principal, action == Mentat::Action::"network", resource) when { resource.port == 1 };"#,
        r#"permit (principal == User::"a", action, resource);"#,
        r#"permit (principal, action == Mentat::Action::"env", resource) when { resource.name };"#,
    ] {
        assert!(matches!(refused(text), RulesError::Malformed(_)), "{text}: {:?}", refused(text));
    }
    assert_eq!(refused("permit (principal == ?principal, action, resource);"), RulesError::Template);
    let twice =
        r#"@id("a") permit (principal, action, resource); @id("a") forbid (principal, action, resource);"#;
    assert_eq!(refused(twice), RulesError::DuplicateId("a".into()));
    let many = "permit (principal, action, resource);".repeat(MAX_RULES + 1);
    assert_eq!(refused(&many), RulesError::TooLarge { what: "rules", limit: MAX_RULES });
    let long = format!("// {}", "x".repeat(MAX_RULES_BYTES));
    assert_eq!(refused(&long), RulesError::TooLarge { what: "bytes", limit: MAX_RULES_BYTES });
}

#[test]
fn a_text_without_rules_permits_nothing() {
    assert!(judge("// nothing yet", "1.0.0", TrustLevel::Verified, "compute:cpu_ms=5").is_err());
}

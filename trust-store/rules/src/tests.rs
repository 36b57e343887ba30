#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use trust_store::capability::Capability;
use trust_store::policy::TrustLevel;

use super::*;

const RULES: &str = r#"
    // Everybody may compute and keep scratch files.
    @id("compute")
    permit (principal, action == Mentat::Action::"compute", resource);
    permit (principal, action == Mentat::Action::"filesystem", resource) when { resource.path like "/tmp/*" };

    // Our own pipeline reaches the shop's hosts.
    @id("shop")
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

type Judged = Result<Vec<String>, RuleRefusal>;

fn judge(rules: &str, version: &str, level: TrustLevel, capability: &str) -> Judged {
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

fn forbidden(names: &[&str]) -> Judged {
    Err(RuleRefusal::Forbidden(names.iter().map(|&name| name.to_owned()).collect()))
}

#[test]
fn what_is_permitted_names_the_rules_that_permit_it() {
    for (granted, by) in [
        ("compute:memory=64MiB", "compute"),
        ("filesystem:write:/tmp/a", "rule 2"),
        ("network:https:cart.shop.example", "shop"),
        ("network:https:cart.shop.example:443", "shop"),
        ("env:SHOP_KEY", "rule 6"),
    ] {
        assert_eq!(
            judge(RULES, "2.0.0", TrustLevel::Verified, granted),
            Ok(vec![by.to_owned()]),
            "{granted}"
        );
    }
}

#[test]
fn what_is_not_permitted_is_denied_and_what_is_forbidden_stays_so() {
    let judge = |version, capability| judge(RULES, version, TrustLevel::Verified, capability);
    for denied in [
        "filesystem:read:/etc",
        "network:https:*.shop.example",
        "network:http:cart.shop.example",
        "network:https:shop.example",
        "env:OTHER_KEY",
        "extension:media",
    ] {
        assert_eq!(judge("2.0.0", denied), Err(RuleRefusal::NotPermitted), "{denied}");
    }
    assert_eq!(judge("2.0.0", "network:https:cart.shop.example:8443"), forbidden(&["no-odd-ports"]));
    assert_eq!(judge("1.9.0", "env:SHOP_KEY"), forbidden(&["no-secrets-before-version-2"]));
}

#[test]
fn every_rule_that_forbids_is_named() {
    let rules = r#"
        permit (principal, action, resource);
        @id("b") forbid (principal, action, resource);
        @id("a") forbid (principal, action == Mentat::Action::"env", resource);
        @id("") forbid (principal, action == Mentat::Action::"env", resource);
    "#;
    let judge = |capability| judge(rules, "1.0.0", TrustLevel::Verified, capability);
    assert_eq!(judge("env:A"), forbidden(&["a", "b", "rule 4"]));
    assert_eq!(judge("compute:cpu_ms=5"), forbidden(&["b"]));
}

#[test]
fn a_level_that_was_not_reached_is_not_claimed() {
    let denied = judge(RULES, "2.0.0", TrustLevel::Signed, "network:https:cart.shop.example");
    assert_eq!(denied, Err(RuleRefusal::NotPermitted));
}

#[test]
fn a_rule_that_cannot_be_evaluated_denies_although_another_permits() {
    let rules = r#"
        permit (principal, action, resource);
        forbid (principal, action == Mentat::Action::"compute", resource)
        when { resource has memory && resource.memory * 9007199254740990 > 1 };
    "#;
    let denied = judge(rules, "1.0.0", TrustLevel::Verified, "compute:memory=64MiB").unwrap_err();
    assert!(matches!(denied, RuleRefusal::Unevaluated { .. }), "{denied}");
    assert!(judge(rules, "1.0.0", TrustLevel::Verified, "compute:cpu_ms=5").is_ok());
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
}

#[test]
fn more_than_is_read_is_refused() {
    let refused = |text: &str| CedarRules::read(text).unwrap_err();
    let many = "permit (principal, action, resource);".repeat(MAX_RULES + 1);
    assert_eq!(refused(&many), RulesError::TooLarge { what: "rules", limit: MAX_RULES });
    let long = format!("// {}", "x".repeat(MAX_RULES_BYTES));
    assert_eq!(refused(&long), RulesError::TooLarge { what: "bytes", limit: MAX_RULES_BYTES });
    let wordy = when(&vec!["true"; MAX_TOKENS / 3].join(" && "));
    assert!(matches!(refused(&wordy), RulesError::TooLarge { .. }));
}

fn when(condition: &str) -> String {
    format!("permit (principal, action, resource) when {{ {condition} }};")
}

/// The longest and deepest rules that are read, on the small stack that threads of servers have.
#[test]
fn no_rule_that_is_read_ends_the_stack() {
    let words = MAX_TOKENS - 20;
    let depth = MAX_DEPTH - 1;
    let chain = |operand: &str, operator: &str, tokens| vec![operand; words / tokens].join(operator);
    // With whether they are read: what the reader refuses by itself it must survive as well, and says nothing about the engine.
    let conditions = [
        (true, chain("true", " && ", 3)),
        (true, chain("false", " || ", 3)),
        (true, format!("{} == 1", chain("1", " + ", 2))),
        (true, format!("{} == 1", chain("1", " * ", 2))),
        (true, format!("{}true", "if true then false else ".repeat(words / 5))),
        (true, format!("{}true{}", "if ".repeat(words / 5), " then true else false".repeat(words / 5))),
        (false, format!("principal{}", ".id".repeat(words / 2))),
        (false, format!("{}true", "!".repeat(words))),
        (true, format!("{}true", "!".repeat(4))),
        (false, format!("{}1 == 1", "-".repeat(words - 10))),
        (true, format!("{}1 == 1", "-".repeat(4))),
        (true, format!("{}true{}", "(".repeat(depth), ")".repeat(depth))),
        (true, format!("{}1{}.isEmpty()", "[".repeat(depth - 1), "]".repeat(depth - 1))),
        (false, format!("{}1{} == {{}}", "{a:".repeat(depth - 1), "}".repeat(depth - 1))),
        (true, vec![format!("{}1{}", "{a:".repeat(depth - 1), "}".repeat(depth - 1)); 2].join(" == ")),
    ];
    std::thread::scope(|scope| {
        for (is_read, condition) in &conditions {
            let text = when(condition);
            let reading = move || {
                let read = CedarRules::read(&text);
                let start = text.get(..80).unwrap_or(&text);
                assert_eq!(read.is_ok(), *is_read, "{start}: {:?}", read.as_ref().err());
                let Ok(rules) = read else { return };
                let capability: Capability = "env:A".parse().unwrap();
                let request = CapabilityRequest {
                    agent: "a.b",
                    version: "1.0.0",
                    signer: "a@example.com",
                    issuer: None,
                    level: TrustLevel::Verified,
                    capability: &capability,
                };
                // Whatever the answer: it is one.
                let _ = rules.judge(&request);
            };
            std::thread::Builder::new().stack_size(2 << 20).spawn_scoped(scope, reading).unwrap();
        }
    });
}

#[test]
fn the_documented_rules_are_read() {
    let page = include_str!("../../../docs/formats/policy.md");
    let blocks: Vec<&str> =
        page.split("```cedar\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    let [example, ceiling] = blocks[..] else { panic!("two examples") };
    let judge = |capability| judge(example, "1.0.0", TrustLevel::Verified, capability);
    assert_eq!(judge("network:https:cart.shop.example"), Ok(vec!["rule 3".to_owned()]));
    assert_eq!(judge("network:https:cart.shop.example:8443"), forbidden(&["no-odd-ports"]));

    // The ceiling holds over whatever else permits, for its signer and for nobody else.
    let rules = format!("@id(\"all\") permit (principal, action, resource);\n{ceiling}");
    let rules = CedarRules::read(&rules).unwrap();
    let under = |signer, level, capability: &str| {
        let capability: Capability = capability.parse().unwrap();
        let (agent, version, issuer) = ("shop.cart", "1.0.0", None);
        rules.judge(&CapabilityRequest { agent, version, signer, issuer, level, capability: &capability })
    };
    let contractor = "dev@contractor.example";
    let (permitted, beyond) = (Ok(vec!["all".to_owned()]), forbidden(&["ceiling-of-the-contractor"]));
    for (signer, level, capability, expected) in [
        (contractor, TrustLevel::Signed, "compute:cpu_ms=5", &permitted),
        (contractor, TrustLevel::Signed, "network:https:api.shop.example", &permitted),
        (contractor, TrustLevel::Signed, "network:https:cart.shop.example", &beyond),
        (contractor, TrustLevel::Signed, "env:SHOP_KEY", &beyond),
        (contractor, TrustLevel::Community, "compute:cpu_ms=5", &beyond),
        ("dev@example.com", TrustLevel::Verified, "env:SHOP_KEY", &permitted),
    ] {
        assert_eq!(&under(signer, level, capability), expected, "{signer} {level} {capability}");
    }
}

#[test]
fn a_text_without_rules_permits_nothing() {
    let denied = judge("// nothing", "1.0.0", TrustLevel::Verified, "compute:cpu_ms=5");
    assert_eq!(denied, Err(RuleRefusal::NotPermitted));
}

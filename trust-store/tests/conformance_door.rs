//! The conformance door: one answer per line, in the documented shape, whatever the line holds.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "tests"
)]

use crate::forge;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use forge::{CODE_SIGNING, Ca, DAY, NOW, good, ocsp, san, single};
use serde_json::{Value, json};
use trust_store::conformance::{
    Decide, decide_crl, decide_merkle, decide_ocsp, decide_path, decide_signature,
};
use trust_store::provider::AwsLc;

fn ask(decide: Decide, line: &Value) -> Value {
    serde_json::from_str(&decide(&line.to_string(), &AwsLc)).expect("one JSON answer")
}

fn b64(der: &[u8]) -> String {
    STANDARD.encode(der)
}

#[test]
fn a_bad_line_gets_the_negative_decision_of_its_kind() {
    let kinds: [(Decide, &str); 5] = [
        (decide_path, "reject"),
        (decide_crl, "error"),
        (decide_ocsp, "error"),
        (decide_signature, "invalid"),
        (decide_merkle, "invalid"),
    ];
    for (decide, negative) in kinds {
        for line in ["", "{", "[]", "null", "\"x\"", "{\"id\":7}", "{\"id\":7,\"time\":3,\"kind\":\"x\"}"] {
            let text = decide(line, &AwsLc);
            assert!(!text.contains('\n'));
            let answer: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(answer["decision"], negative, "{line}");
            assert_eq!(answer["reason"], "malformed", "{line}");
            let expected = if line.contains("id") { json!(7) } else { Value::Null };
            assert_eq!(answer["id"], expected);
        }
    }
}

#[test]
fn path_follows_its_parameters_and_passes_over_what_does_not_parse() {
    let root = Ca::root("root");
    let ca = root.subordinate("ca", |_| {});
    let leaf = ca.leaf(|body| body.extensions.push(san(&[(0x81, b"a@example.com")])));
    let line = |changes: Value| {
        let mut line = json!({
            "id": "case", "leaf": b64(leaf.der()), "intermediates": ["!", b64(ca.certificate.der())],
            "anchors": [b64(root.certificate.der())], "crls": [], "ocsp": [], "time": NOW.to_rfc3339(),
            "required_eku": CODE_SIGNING, "required_key_usage": ["digitalSignature"], "initial_policies": null,
            "require_explicit_policy": false, "inhibit_policy_mapping": false, "inhibit_any_policy": false,
            "max_depth": null, "revocation": "none", "name": null,
        });
        line.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        ask(decide_path, &line)
    };
    assert_eq!(line(json!({})), json!({"id": "case", "decision": "accept", "reason": null, "detail": ""}));
    let crls = json!([b64(&root.crl(&[], &[])), b64(&ca.crl(&[], &[]))]);
    assert_eq!(line(json!({"revocation": "require", "crls": crls}))["decision"], "accept");
    assert_eq!(line(json!({"revocation": "if-present"}))["decision"], "accept");
    for (changes, reason) in [
        (json!({"revocation": "require"}), "revocation_unknown"),
        (json!({"max_depth": 0}), "path_length"),
        (json!({"required_eku": "1.3.6.1.5.5.7.3.1"}), "usage_not_allowed"),
        (json!({"required_key_usage": ["keyCertSign"]}), "usage_not_allowed"),
        (json!({"require_explicit_policy": true}), "policy_not_allowed"),
        (json!({"time": "2000-01-01T00:00:00Z"}), "not_yet_valid"),
        (json!({"anchors": []}), "unknown_issuer"),
        (json!({"name": {"type": "email", "value": "b@example.com"}}), "identity_denied"),
        (json!({"name": {"type": "dn", "value": "CN=other"}}), "identity_denied"),
        (json!({"leaf": "AAAA"}), "malformed"),
        (json!({"revocation": "never"}), "malformed"),
    ] {
        let answer = line(changes);
        assert_eq!((&answer["decision"], &answer["reason"]), (&json!("reject"), &json!(reason)), "{answer}");
    }
    for name in
        [json!({"type": "email", "value": "a@EXAMPLE.com"}), json!({"type": "dn", "value": "cn=Signer"})]
    {
        assert_eq!(line(json!({"name": name}))["decision"], "accept");
    }
}

#[test]
fn crl_and_ocsp_answer_with_four_decisions() {
    let ca = Ca::root("ca");
    let leaf = ca.leaf(|_| {});
    let crl = |crls: Vec<Vec<u8>>| {
        let crls: Vec<String> = crls.iter().map(|der| b64(der)).collect();
        let line = json!({"id": 1, "crls": crls, "issuer": b64(ca.certificate.der()), "certificate": b64(leaf.der()),
            "time": NOW.to_rfc3339(), "distribution_point": null, "max_age_seconds": null});
        ask(decide_crl, &line)["decision"].as_str().unwrap().to_owned()
    };
    assert_eq!(crl(vec![ca.crl(&[], &[])]), "good");
    assert_eq!(crl(vec![ca.crl(&[(&[1], vec![])], &[])]), "revoked");
    assert_eq!(crl(vec![]), "unknown");
    assert_eq!(crl(vec![vec![0]]), "error");
    assert_eq!(crl(vec![Ca::root("ca").crl(&[], &[])]), "error");
    let response = |der: &[u8], max_age: Option<i64>| {
        let line = json!({"id": 1, "response": b64(der), "issuer": b64(ca.certificate.der()),
            "certificate": b64(leaf.der()), "time": NOW.to_rfc3339(), "max_age_seconds": max_age});
        ask(decide_ocsp, &line)["decision"].as_str().unwrap().to_owned()
    };
    let answer = [single(&ca.sha1_id(&[1]), &good(), Some(NOW.plus(DAY)), &[])];
    let fine = ocsp("ca", &ca.key, &answer, &[], &[]);
    assert_eq!(response(&fine, None), "good");
    assert_eq!(response(&fine, Some(60)), "unknown");
    assert_eq!(response(&ocsp("ca", &Ca::root("ca").key, &answer, &[], &[]), None), "error");
    assert_eq!(response(&[0x30, 3, 0x0a, 1, 6], None), "unknown");
    assert_eq!(response(&[0x30, 0], None), "error");
}

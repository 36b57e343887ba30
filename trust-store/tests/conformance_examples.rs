//! The example lines of `docs/formats/conformance`, one file for each kind: the line in, then the line that answers it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::fixture;
use crate::forge;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use forge::{Ca, DAY, NOW, good, ocsp, san, single};
use serde_json::{Value, json};
use trust_store::conformance::{
    decide_bundle, decide_crl, decide_merkle, decide_ocsp, decide_path, decide_signature,
};
use trust_store::json::base64_encode;
use trust_store::provider::AwsLc;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/formats/conformance")
}

fn answer(kind: &str, line: &str) -> String {
    match kind {
        "bundle" => decide_bundle(line, NOW, Arc::new(AwsLc)),
        "crl" => decide_crl(line, &AwsLc),
        "merkle" => decide_merkle(line, &AwsLc),
        "ocsp" => decide_ocsp(line, &AwsLc),
        "path" => decide_path(line, &AwsLc),
        "signature" => decide_signature(line, &AwsLc),
        other => panic!("unknown kind {other}"),
    }
}

const KINDS: [&str; 6] = ["bundle", "crl", "merkle", "ocsp", "path", "signature"];

#[test]
fn every_kind_has_an_example_that_is_answered_as_documented() {
    if std::env::var_os("MENTAT_WRITE").is_some() {
        write_the_examples();
    }
    for kind in KINDS {
        let text = std::fs::read_to_string(folder().join(format!("{kind}.jsonl"))).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{kind}: a line in, a line out");
        assert_eq!(answer(kind, lines[0]), lines[1], "{kind}");
        let page = std::fs::read_to_string(folder().with_extension("md")).unwrap();
        let mut shown: Value = serde_json::from_str(lines[0]).unwrap();
        shorten(&mut shown);
        let shown = format!("\n```json\n{shown}\n{}\n```\n", lines[1]);
        assert!(page.contains(&shown), "{kind}: the page does not show:{shown}");
        assert!(page.contains(&format!("`{kind}`")) && page.contains(&format!("conformance/{kind}.jsonl")));
        // Every member of the example is explained on the page.
        let line: Value = serde_json::from_str(lines[0]).unwrap();
        for member in line.as_object().unwrap().keys() {
            assert!(page.contains(&format!("`{member}`")), "{kind}: {member}");
        }
    }
}

/// What the page shows of a line: of each long text the beginning.
fn shorten(value: &mut Value) {
    match value {
        Value::String(text) if text.len() > 72 => {
            *text = format!("{}…", text.chars().take(24).collect::<String>());
        }
        Value::Array(items) => items.iter_mut().for_each(shorten),
        Value::Object(members) => members.values_mut().for_each(shorten),
        _ => {}
    }
}

fn examples() -> Vec<(&'static str, Value)> {
    let root = Ca::root("root");
    let ca = root.subordinate("ca", |_| {});
    let leaf = ca.leaf(|body| body.extensions.push(san(&[(0x81, b"a@example.com")])));
    let b64 = |der: &[u8]| base64_encode(der);
    let (time, issuer, certificate) = (NOW.to_rfc3339(), b64(ca.certificate.der()), b64(leaf.der()));
    let answers = [single(&ca.sha1_id(&[1]), &good(), Some(NOW.plus(DAY)), &[])];
    let crls = [b64(&root.crl(&[], &[])), b64(&ca.crl(&[], &[]))];
    let scenario = fixture::scenario::Scenario::valid();
    let digest = hex::encode(fixture::cases::sha256(&scenario.module));
    let parsed = |json: Vec<u8>| serde_json::from_slice::<Value>(&json).unwrap();
    let signature = forge::Key::new();
    let signed = STANDARD.encode(&signature.sign(b"hi")[3..]);
    vec![
        (
            "path",
            json!({"id": 1, "leaf": certificate, "intermediates": [issuer], "anchors": [b64(root.certificate.der())],
                "crls": crls, "ocsp": [], "time": time, "required_eku": "1.3.6.1.5.5.7.3.3",
                "required_key_usage": ["digitalSignature"], "initial_policies": null, "require_explicit_policy": false,
                "inhibit_policy_mapping": false, "inhibit_any_policy": false, "max_depth": null,
                "revocation": "require", "name": {"type": "email", "value": "a@example.com"}}),
        ),
        (
            "crl",
            json!({"id": 2, "crls": [b64(&ca.crl(&[(&[1], vec![])], &[]))], "issuer": issuer,
                "certificate": certificate, "time": time, "distribution_point": null, "max_age_seconds": null}),
        ),
        (
            "ocsp",
            json!({"id": 3, "response": b64(&ocsp("ca", &ca.key, &answers, &[], &[])), "issuer": issuer,
                "certificate": certificate, "time": time, "max_age_seconds": 172_800}),
        ),
        (
            "signature",
            json!({"id": 4, "algorithm": "ecdsa-p256-sha256", "key": b64(&signature.spki()), "message": "aGk=",
                "signature": signed, "encoding": "der"}),
        ),
        (
            "merkle",
            json!({"id": 5, "kind": "consistency", "size1": 1, "size2": 2,
                "root1": b64(&tlog::leaf_hash(b"a").hash().0),
                "root2": b64(&tlog::node_hash(&tlog::leaf_hash(b"a").hash(), &tlog::leaf_hash(b"b").hash()).0),
                "proof": [b64(&tlog::leaf_hash(b"b").hash().0)]}),
        ),
        (
            "bundle",
            json!({"id": 6, "bundle": parsed(scenario.bundle.to_json().unwrap()),
                "trusted_root": parsed(scenario.root.to_json().unwrap()), "artifact_digest": format!("sha256:{digest}"),
                "identity": "dev@example.com", "issuer": null, "key": null, "policy": null,
                "time": trust_store::UnixTime(fixture::NOW).to_rfc3339(),
                "revocation": {"mode": "require", "ocsp": [],
                    "crls": scenario.evidence.revocation().crls.iter().map(|crl| b64(crl.der())).collect::<Vec<_>>()}}),
        ),
    ]
}

/// Makes the examples again, with new keys, if the environment variable `MENTAT_WRITE` is set.
fn write_the_examples() {
    for (kind, line) in examples() {
        let line = line.to_string();
        let text = format!("{line}\n{}\n", answer(kind, &line));
        std::fs::write(folder().join(format!("{kind}.jsonl")), text).unwrap();
    }
}

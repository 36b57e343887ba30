//! The conformance door over standard input, on third-party vectors: the same decisions through the installed program as
//! through the library.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests: a failure must stop with the place it happened"
)]

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mentat_tests::command::mentatctl_with_input;
use mentat_tests::vectors::vectors;
use serde_json::{Value, json};

/// Sends lines through the door and asserts each decision, in order; no line may be lost and none may be added.
fn decide(kind: &str, lines: &str, expected: &[(String, &str)]) {
    let home = tempfile::tempdir().unwrap();
    let done = mentatctl_with_input(home.path(), ["conformance", kind], lines.as_bytes()).success();
    let answers: Vec<Value> = done.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers.len(), expected.len());
    let mut wrong = Vec::new();
    for (answer, (id, decision)) in answers.iter().zip(expected) {
        assert_eq!(answer["id"], Value::String(id.clone()));
        if answer["decision"] != *decision {
            wrong.push(answer.to_string());
        }
    }
    assert!(wrong.is_empty(), "{} wrong decisions:\n{}", wrong.len(), wrong.join("\n"));
}

/// PKITS 1.0.1 with revocation required in every case; only the cases with DSA signatures are left out.
#[test]
fn every_pkits_path_is_decided_right_through_the_door_with_revocation_required() {
    let Some(folder) = vectors("pkits") else { return };
    let cases: Vec<Value> =
        serde_json::from_slice(&std::fs::read(folder.join("vectors.json")).unwrap()).unwrap();
    let files = |kind: &str, names: &Value| -> Vec<String> {
        let names = names.as_array().unwrap().iter();
        names
            .map(|name| folder.join(kind).join(name.as_str().unwrap()))
            .map(|path| STANDARD.encode(std::fs::read(path).unwrap()))
            .collect()
    };
    let mut lines = String::new();
    let mut expected = Vec::new();
    for case in &cases {
        let name = case["Name"].as_str().unwrap();
        if ["4.1.4 ", "4.1.5 ", "4.1.6 "].iter().any(|dsa| name.starts_with(dsa)) {
            continue;
        }
        let mut path = files("certs", &case["CertPath"]);
        let crls = files("crls", &case["CRLPath"]);
        assert!(!crls.is_empty(), "{name}: every case of PKITS has lists");
        let (leaf, anchor) = (path.pop().unwrap(), path.remove(0));
        let oid = |policy: &Value| match policy.as_str().unwrap().strip_prefix("NIST-test-policy-") {
            Some(number) => format!("2.16.840.1.101.3.2.1.48.{number}"),
            None => "2.5.29.32.0".to_owned(),
        };
        let policies: Vec<String> = case["InitialPolicySet"].as_array().unwrap().iter().map(oid).collect();
        let line = json!({"id": name, "leaf": leaf, "intermediates": path, "anchors": [anchor], "crls": crls, "ocsp": [],
            "time": "2015-01-01T00:00:00Z", "required_eku": null, "required_key_usage": null,
            "initial_policies": policies, "require_explicit_policy": case["InitialExplicitPolicy"],
            "inhibit_policy_mapping": case["InitialPolicyMappingInhibit"],
            "inhibit_any_policy": case["InitialAnyPolicyInhibit"], "max_depth": null, "revocation": "require",
            "name": null});
        let _ = writeln!(lines, "{line}");
        let accepted = case["ShouldValidate"] == true;
        expected.push((name.to_owned(), if accepted { "accept" } else { "reject" }));
    }
    assert_eq!((cases.len(), expected.len()), (249, 246));
    decide("path", &lines, &expected);
}

#[test]
fn merkle_vectors_are_decided_right_through_the_door() {
    let Some(folder) = vectors("merkle") else { return };
    let mut lines = String::new();
    let mut expected = Vec::new();
    for kind in ["inclusion", "consistency"] {
        for path in files_below(&folder.join(kind)) {
            let case: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            let id = path.display().to_string();
            let field = |name: &str| case.get(name).cloned().unwrap_or(Value::Null);
            let proof = match field("proof") {
                Value::Null => json!([]),
                proof => proof,
            };
            let line = if kind == "inclusion" {
                json!({"id": id, "kind": kind, "leaf_index": field("leafIdx"), "tree_size": field("treeSize"),
                       "leaf_hash": field("leafHash"), "root": field("root"), "proof": proof})
            } else {
                json!({"id": id, "kind": kind, "size1": field("size1"), "size2": field("size2"),
                       "root1": field("root1"), "root2": field("root2"), "proof": proof})
            };
            let _ = writeln!(lines, "{line}");
            expected.push((id, if field("wantErr") == Value::Bool(true) { "invalid" } else { "valid" }));
        }
    }
    assert_eq!(expected.len(), 196, "the corpus has 98 inclusion and 98 consistency records");
    decide("merkle", &lines, &expected);
}

/// Wycheproof: what the corpus calls acceptable may go either way, everything else is decided as it says.
#[test]
fn every_wycheproof_signature_is_decided_right_through_the_door() {
    let Some(folder) = vectors("crypto") else { return };
    let files = [
        ("ecdsa_secp256r1_sha256_p1363_test.json", "ecdsa-p256-sha256", "p1363"),
        ("ecdsa_secp256r1_sha256_test.json", "ecdsa-p256-sha256", "der"),
        ("ecdsa_secp256r1_sha512_test.json", "ecdsa-p256-sha512", "der"),
        ("ecdsa_secp384r1_sha256_test.json", "ecdsa-p384-sha256", "der"),
        ("ecdsa_secp384r1_sha384_p1363_test.json", "ecdsa-p384-sha384", "p1363"),
        ("ecdsa_secp384r1_sha384_test.json", "ecdsa-p384-sha384", "der"),
        ("ed25519_test.json", "ed25519", "der"),
        ("rsa_signature_2048_sha256_test.json", "rsa-pkcs1-sha256", "der"),
        ("rsa_signature_3072_sha256_test.json", "rsa-pkcs1-sha256", "der"),
        ("rsa_signature_4096_sha256_test.json", "rsa-pkcs1-sha256", "der"),
    ];
    let base64 = |text: &Value| {
        let digits = text.as_str().unwrap().as_bytes();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        STANDARD.encode(digits.chunks(2).map(byte).collect::<Vec<u8>>())
    };
    let (mut lines, mut expected, mut acceptable) = (String::new(), Vec::new(), 0);
    for (file, algorithm, encoding) in files {
        let suite: Value = serde_json::from_slice(&std::fs::read(folder.join(file)).unwrap()).unwrap();
        for group in suite["testGroups"].as_array().unwrap() {
            for test in group["tests"].as_array().unwrap() {
                let decision = match test["result"].as_str().unwrap() {
                    "valid" => "valid",
                    "invalid" => "invalid",
                    _ => {
                        acceptable += 1;
                        continue;
                    }
                };
                let id = format!("{file} {}", test["tcId"]);
                let line = json!({"id": id, "algorithm": algorithm, "key": base64(&group["publicKeyDer"]),
                    "message": base64(&test["msg"]), "signature": base64(&test["sig"]), "encoding": encoding});
                let _ = writeln!(lines, "{line}");
                expected.push((id, decision));
            }
        }
    }
    assert_eq!(expected.len() + acceptable, 3_483);
    decide("signature", &lines, &expected);
}

fn files_below(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut out = Vec::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display())).flatten() {
            if entry.path().is_dir() {
                open.push(entry.path());
            } else if entry.path().extension().is_some_and(|e| e == "json") {
                out.push(entry.path());
            }
        }
    }
    out.sort();
    out
}

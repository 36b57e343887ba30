//! Wycheproof, 3,483 cases, through the conformance door and both providers; "acceptable" ones may go either way but
//! must not differ between the providers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    missing_docs,
    reason = "tests"
)]

use crate::vectors;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use trust_store::conformance::decide_signature;
use trust_store::provider::SignatureVerifier;

const FILES: &[(&str, &str, &str)] = &[
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

fn providers() -> Vec<(&'static str, Box<dyn SignatureVerifier>)> {
    vec![
        #[cfg(feature = "aws-lc")]
        ("aws-lc", Box::new(trust_store::provider::AwsLc)),
        #[cfg(feature = "rustcrypto")]
        ("rustcrypto", Box::new(trust_store::provider::RustCrypto)),
    ]
}

#[test]
fn every_case_is_decided_as_expected_by_every_provider() {
    let Some(folder) = vectors::folder("crypto") else { return };
    let providers = providers();
    assert!(!providers.is_empty());
    let mut cases = 0;
    let mut wrong = Vec::new();
    let base64 = |text: &Value| STANDARD.encode(hex::decode(text.as_str().unwrap()).unwrap());
    for (file, algorithm, encoding) in FILES {
        let suite: Value = serde_json::from_slice(&std::fs::read(folder.join(file)).unwrap()).unwrap();
        for group in suite["testGroups"].as_array().unwrap() {
            for test in group["tests"].as_array().unwrap() {
                cases += 1;
                let line = json!({
                    "id": test["tcId"],
                    "algorithm": algorithm,
                    "key": base64(&group["publicKeyDer"]),
                    "message": base64(&test["msg"]),
                    "signature": base64(&test["sig"]),
                    "encoding": encoding,
                })
                .to_string();
                let decisions: Vec<Value> = providers
                    .iter()
                    .map(|(_, provider)| {
                        serde_json::from_str(&decide_signature(&line, provider.as_ref())).unwrap()
                    })
                    .collect();
                let agree = decisions.iter().all(|answer| answer["decision"] == decisions[0]["decision"]);
                let expected = match test["result"].as_str().unwrap() {
                    "acceptable" => decisions[0]["decision"].as_str().unwrap().to_owned(),
                    result => result.to_owned(),
                };
                if !agree || decisions[0]["decision"] != expected.as_str() {
                    wrong.push(format!("{file} {} {}: {decisions:?}", test["tcId"], test["comment"]));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong decisions:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(cases, 3_483);
}

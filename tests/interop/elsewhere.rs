//! A signature that OpenSSL made with the key of one of our certificates is recorded in the log, and verifies as a bundle.

use std::fs;

use mentat_tests::agent::enrol;
use mentat_tests::stack::Stack;
use serde_json::Value;

use crate::{have, run};

#[test]
fn a_signature_made_elsewhere_is_recorded() {
    let dir = tempfile::tempdir().unwrap();
    if !have("openssl", "openssl") {
        return;
    }
    let stack = Stack::up(&dir.path().join("stack"));
    let (cert, key) = enrol(&stack, "dev@example.com", "signing");
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    fs::write(at("artifact"), b"made elsewhere").unwrap();
    let sign = ["dgst", "-sha256", "-sign", &key, "-out", &at("artifact.sig"), &at("artifact")];
    let (ok, said) = run("openssl", &sign);
    assert!(ok, "{said}");

    let (artifact, signature) = (at("artifact"), at("artifact.sig"));
    let submit = ["log", "submit", "--artifact", &artifact, "--signature", &signature, "--cert", &cert];
    let done = stack.ctl(&[&["--json"], &submit[..]].concat()).success().json();
    let bundle = at("artifact.sigstore.json");
    assert_eq!(done["bundle"], bundle);
    let verify = |artifact: &str| {
        stack.ctl(&[
            "verify-bundle",
            "--bundle",
            &bundle,
            "--certificate-identity",
            "dev@example.com",
            "--certificate-oidc-issuer",
            &issuer(&stack, &cert),
            artifact,
        ])
    };
    verify(&artifact).success();
    let monitored = stack.ctl(&["log", "monitor", "--identity", "dev@example.com"]);
    assert_eq!(monitored.code, 1, "it is in the log: {}", monitored.stderr);

    // Over something else it is no signature, and the log never hears of it.
    fs::write(at("other"), b"another").unwrap();
    let other = at("other");
    let submit = ["log", "submit", "--artifact", &other, "--signature", &signature, "--cert", &cert];
    stack.ctl(&submit).refused(2, "signature_invalid");
    verify(&other).refused(3, "digest_mismatch");

    // A bundle that holds nothing but its signature is completed in place; one that is complete stays as it is.
    let whole: Value = serde_json::from_slice(&fs::read(&bundle).unwrap()).unwrap();
    let mut bare = whole.clone();
    bare["verificationMaterial"]["tlogEntries"] = serde_json::json!([]);
    bare["verificationMaterial"]["timestampVerificationData"] = serde_json::json!({});
    fs::write(&bundle, bare.to_string()).unwrap();
    for _ in 0..2 {
        let again = stack.ctl(&["--json", "log", "submit", "--bundle", &bundle]).success().json();
        assert_eq!(again["log_index"], done["log_index"], "the same signature is the same entry");
        verify(&artifact).success();
    }
}

/// The issuer that a certificate of the stack names.
fn issuer(stack: &Stack, cert: &str) -> String {
    let pem = fs::read_to_string(cert).unwrap();
    let chain = trust_store::Certificate::from_pem_chain(&pem).unwrap();
    let identity = trust_store::identity::Identity::of_certificate(&chain[0]).unwrap();
    identity.issuer().unwrap_or_else(|| panic!("no issuer: {}", stack.dir().display())).to_owned()
}

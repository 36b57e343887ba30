//! A signature whose evidence could not be had is finished later, and a key alone finds its certificate.

use std::fs;
use std::process::Command;

use mentat_tests::agent::{enrol, sentiment};
use mentat_tests::binary::binary;
use mentat_tests::command::finish;
use mentat_tests::stack::Stack;
use serde_json::Value;

#[test]
fn a_signature_that_an_outage_left_pending_is_finished_without_the_key() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::up(&dir.path().join("stack"));
    let (_, key) = enrol(&stack, "dev@example.com", "signing");
    let folder = sentiment(dir.path(), "agent", |manifest| manifest);
    let agent = folder.to_str().unwrap();
    let before = fs::read_to_string(folder.join("manifest.yaml")).unwrap();
    let waiting = folder.join("sentiment.wasm.pending.json");

    // Nobody listens where the log should be: the time is proven, the entry is missing.
    stack
        .ctl(&["sign", agent, "--log-url", "http://127.0.0.1:9"])
        .refused(69, "log submit --resume")
        .one_clear_line();
    assert_eq!(
        fs::read_to_string(folder.join("manifest.yaml")).unwrap(),
        before,
        "the manifest is as it was"
    );
    let kept: Value = serde_json::from_slice(&fs::read(&waiting).unwrap()).unwrap();
    let tokens = "/bundle/verificationMaterial/timestampVerificationData/rfc3161Timestamps";
    assert_eq!(kept.pointer(tokens).unwrap().as_array().unwrap().len(), 1);
    stack
        .ctl(&["log", "submit", "--resume", agent, "--log-url", "http://127.0.0.1:9"])
        .refused(69, "stays pending");
    let still: Value = serde_json::from_slice(&fs::read(&waiting).unwrap()).unwrap();
    assert_eq!(still, kept, "nothing was lost of it");

    // It is about this release and no other.
    fs::write(folder.join("manifest.yaml"), before.replace("wall_ms=5000", "wall_ms=6000")).unwrap();
    stack.ctl(&["log", "submit", "--resume", agent]).refused(2, "changed since it was signed");
    fs::write(folder.join("manifest.yaml"), &before).unwrap();

    // The key is gone; the signature is not.
    fs::remove_file(key).unwrap();
    let done = stack.ctl(&["--json", "log", "submit", "--resume", agent]).success().json();
    assert_eq!(done["signer"], "dev@example.com");
    assert!(!waiting.exists());
    stack.ctl(&["verify", agent]).success();
    stack.ctl(&["log", "submit", "--resume", agent]).refused(2, "is pending");

    // The log had taken the entry, only its answer was lost: the same submission gets the same entry.
    fs::write(folder.join("manifest.yaml"), &before).unwrap();
    fs::write(&waiting, serde_json::to_vec(&kept).unwrap()).unwrap();
    let again = stack.ctl(&["--json", "log", "submit", "--resume", agent]).success().json();
    assert_eq!(again["log_index"], done["log_index"]);
    stack.ctl(&["verify", agent]).success();
}

#[test]
fn a_pipeline_with_nothing_but_a_key_gets_its_certificate_by_the_key() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::up(&dir.path().join("stack"));
    let (cert, key) = enrol(&stack, "ci@example.com", "ci");
    let folder = sentiment(dir.path(), "agent", |manifest| manifest);
    let agent = folder.to_str().unwrap();
    let pem = fs::read_to_string(&key).unwrap();
    let sign = || {
        let mut command = Command::new(binary("mentatctl"));
        command.env("MENTAT_HOME", stack.home()).env("CI_KEY", &pem);
        // As a pipeline has it: addresses, a secret, and no file but the agent.
        command.args(["--json", "sign", agent, "--key-env", "CI_KEY", "--ca-url", &stack.text("/ca/url")]);
        command.args(["--log-url", &stack.text("/log/url"), "--tsa-url", &stack.text("/tsa/url")]);
        finish(command, b"")
    };
    assert_eq!(sign().success().json()["signer"], "ci@example.com");
    stack.ctl(&["verify", agent]).success();
    // The certificate is the one that was issued, with the issuers that `request-cert` delivers.
    let manifest = fs::read_to_string(folder.join("manifest.yaml")).unwrap();
    let delivered = fs::read_to_string(&cert).unwrap().matches("BEGIN CERTIFICATE").count();
    assert_eq!(manifest.matches("BEGIN CERTIFICATE").count(), delivered);

    // A revoked certificate is not handed out for signing.
    stack.ctl(&["pki", "revoke", "--cert", &cert, "--reason", "superseded"]).success();
    sign().refused(1, "certificate_unknown");
}

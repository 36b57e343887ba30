//! One thing forged or missing in otherwise genuine evidence: verifier and executor name it.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use mentat_tests::agent::signed;
use mentat_tests::stack::Stack;
use serde_json::Value;
use trust_store::attestation::Derived;
use trust_store_files::ManifestFile;
use trust_store_files::manifest_file::NewBundle;

/// A copy of a signed release whose bundle was changed as JSON.
fn forge(from: &Path, parent: &Path, name: &str, change: impl FnOnce(&mut Value)) -> PathBuf {
    let folder = parent.join(name);
    std::fs::create_dir_all(&folder).unwrap();
    for file in ["sentiment.wasm", "manifest.yaml"] {
        std::fs::copy(from.join(file), folder.join(file)).unwrap();
    }
    let mut file = ManifestFile::load(&folder).unwrap();
    let attestation = file.read_attestation().unwrap().unwrap();
    let mut json: Value = serde_json::from_slice(&attestation.bundle().to_json().unwrap()).unwrap();
    change(&mut json);
    let bytes = serde_json::to_vec(&json).unwrap();
    // As a sidecar, so that whatever the change made of it is what the verifier reads.
    let genuine = attestation.bundle();
    let chain: Vec<_> = attestation.certificate().into_iter().chain(attestation.issuers()).cloned().collect();
    let mut block = trust_store::attestation::AttestationBlock::new(
        genuine,
        Some("forged.sigstore.json"),
        &chain,
        attestation.staples().clone(),
    )
    .unwrap();
    // Whoever forges evidence leaves out the copies for readers, whose difference would be noticed first.
    block.derived = Derived::default();
    file.store_attestation(&block, NewBundle::Sidecar { name: "forged.sigstore.json", json: &bytes })
        .unwrap();
    folder
}

/// Flips one bit in the base64 text of a member.
fn flip(value: &mut Value, pointer: &str, byte: usize) {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let member = value.pointer_mut(pointer).unwrap_or_else(|| panic!("no {pointer}"));
    let mut bytes = STANDARD.decode(member.as_str().unwrap()).unwrap();
    let at = byte % bytes.len();
    bytes[at] ^= 0x01;
    *member = Value::String(STANDARD.encode(bytes));
}

#[test]
fn each_forged_or_missing_item_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::up(&dir.path().join("stack"));
    let good = signed(&stack, dir.path(), "good");
    let other = signed(&stack, dir.path(), "other");
    let other: Value = {
        let attestation = ManifestFile::load(&other).unwrap().read_attestation().unwrap().unwrap();
        serde_json::from_slice(&attestation.bundle().to_json().unwrap()).unwrap()
    };
    let entry = "/verificationMaterial/tlogEntries/0";
    let stamps = "/verificationMaterial/timestampVerificationData/rfc3161Timestamps";
    type Change<'a> = Box<dyn FnOnce(&mut Value) + 'a>;
    let cases: Vec<(&str, &[&str], Change<'_>)> = vec![
        (
            "no-log-entry",
            &["inclusion_missing"],
            Box::new(|b| *b.pointer_mut("/verificationMaterial/tlogEntries").unwrap() = Value::Array(vec![])),
        ),
        (
            "no-timestamp",
            &["timestamp_missing"],
            Box::new(|b| *b.pointer_mut(stamps).unwrap() = Value::Array(vec![])),
        ),
        (
            "other-timestamp",
            &["timestamp_invalid"],
            Box::new(|b| *b.pointer_mut(stamps).unwrap() = other.pointer(stamps).unwrap().clone()),
        ),
        (
            "signature-bit",
            &["signature_invalid"],
            Box::new(|b| flip(b, "/dsseEnvelope/signatures/0/sig", 20)),
        ),
        (
            // In the statement's type, which is read before anything else.
            "statement-type",
            &["unsupported"],
            Box::new(|b| flip(b, "/dsseEnvelope/payload", 40)),
        ),
        (
            // In the last digest of the statement, the manifest's.
            "manifest-digest",
            &["manifest_mismatch"],
            Box::new(|b| {
                let payload = b.pointer("/dsseEnvelope/payload").unwrap().as_str().unwrap();
                let end = base64::engine::general_purpose::STANDARD.decode(payload).unwrap().len();
                flip(b, "/dsseEnvelope/payload", end - 35);
            }),
        ),
        (
            "other-entry",
            &["entry_mismatch"],
            Box::new(|b| *b.pointer_mut(entry).unwrap() = other.pointer(entry).unwrap().clone()),
        ),
        (
            "other-body",
            &["entry_mismatch"],
            Box::new(|b| {
                let body = format!("{entry}/canonicalizedBody");
                *b.pointer_mut(&body).unwrap() = other.pointer(&body).unwrap().clone();
            }),
        ),
        (
            "other-index",
            &["inclusion_invalid"],
            Box::new(|b| {
                let at = format!("{entry}/inclusionProof/logIndex");
                *b.pointer_mut(&at).unwrap() = Value::String("1".into());
                *b.pointer_mut(&format!("{entry}/logIndex")).unwrap() = Value::String("1".into());
            }),
        ),
        (
            // The proof leads to the root that the log really had.
            "checkpoint-root",
            &["inclusion_invalid"],
            Box::new(|b| {
                let at = format!("{entry}/inclusionProof/checkpoint/envelope");
                let text = b.pointer(&at).unwrap().as_str().unwrap().to_owned();
                let root = text.lines().nth(2).unwrap().to_owned();
                *b.pointer_mut(&at).unwrap() =
                    Value::String(text.replace(&root, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="));
            }),
        ),
        (
            "checkpoint-signature",
            &["checkpoint_invalid"],
            Box::new(|b| {
                let at = format!("{entry}/inclusionProof/checkpoint/envelope");
                let text = b.pointer(&at).unwrap().as_str().unwrap().to_owned();
                let line = text.lines().find(|line| line.starts_with('\u{2014}')).unwrap();
                let (start, end) = line.split_at(line.len() - 12);
                let other = if end.starts_with('A') { "B" } else { "A" };
                let forged = text.replace(line, &format!("{start}{other}{}", &end[1..]));
                *b.pointer_mut(&at).unwrap() = Value::String(forged);
            }),
        ),
        (
            "other-origin",
            &["checkpoint_invalid", "unknown_log"],
            Box::new(|b| {
                let at = format!("{entry}/inclusionProof/checkpoint/envelope");
                let text = b.pointer(&at).unwrap().as_str().unwrap().to_owned();
                *b.pointer_mut(&at).unwrap() = Value::String(text.replace("signing.", "singing."));
            }),
        ),
        ("unknown-member", &["malformed"], Box::new(|b| b["surprise"] = Value::Bool(true))),
        (
            "another-version",
            &["unsupported"],
            Box::new(|b| b["mediaType"] = "application/vnd.dev.sigstore.bundle.v0.9+json".into()),
        ),
    ];
    for (name, codes, change) in cases {
        let folder = forge(&good, dir.path(), name, change);
        let folder = folder.to_str().unwrap();
        for command in [["verify", folder], ["run", folder]] {
            let refused = stack.ctl(&[&["--json"], &command[..]].concat());
            assert_eq!(refused.code, 3, "{name} {command:?}: {}{}", refused.stdout, refused.stderr);
            let code = refused.json()["code"].as_str().unwrap_or_default().to_owned();
            assert!(codes.contains(&code.as_str()), "{name} {}: {code}", command[0]);
        }
    }
    // The genuine one still passes, so the refusals were about what was changed.
    stack.ctl(&["run", good.to_str().unwrap()]).success();
}

//! A developer: from no certificate to a verified release, and what happens when the certificate goes.

use mentat_tests::agent::{enrol, sentiment, signed};
use mentat_tests::stack::Stack;

#[test]
fn a_developer_enrols_signs_renews_and_loses_the_right() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::up(&dir.path().join("stack"));

    // A token is good once, for one identity.
    let token =
        stack.ctl(&["--json", "pki", "token", "create", "--email", "dev@example.com"]).success().json();
    let token = token["token"].as_str().unwrap().to_owned();
    let request = ["pki", "request-cert", "--email", "dev@example.com", "--token", &token];
    let issued = stack.ctl(&[&["--json"], &request[..]].concat()).success().json();
    assert!(issued["log_index"].is_u64(), "the certificate stands in the issuance log: {issued}");
    let other = stack.home().join("other.crt").display().to_string();
    let again = stack.ctl(&[&request[..], &["--output", &other]].concat());
    assert_eq!(again.code, 1, "{}", again.stderr);
    assert!(again.stderr.contains("token"), "{}", again.stderr);

    let listed = stack.ctl(&["--json", "pki", "list", "--identity", "dev@example.com"]).success();
    assert!(listed.stdout.contains(issued["serial"].as_str().unwrap()), "{}", listed.stdout);

    let folder = sentiment(dir.path(), "agent", |manifest| manifest);
    let folder = folder.to_str().unwrap();
    stack.ctl(&["audit-capabilities", folder]).success();
    stack.ctl(&["sign", folder]).success();
    let verdict = stack.ctl(&["--json", "verify", folder]).success().json();
    assert_eq!(verdict["signer"]["subject"], "dev@example.com");
    assert_eq!(verdict["trust_level"], "verified");

    // Renewal: a new key, a new certificate; what the old one signed stays verified.
    let token = stack.ctl(&["pki", "token", "create", "--email", "dev@example.com"]).success().stdout;
    let old_key = std::fs::read(stack.home().join("signing.key")).unwrap();
    stack.ctl_with_input(&["pki", "renew", "--email", "dev@example.com"], token.as_bytes()).success();
    assert_ne!(std::fs::read(stack.home().join("signing.key")).unwrap(), old_key);
    stack.ctl(&["verify", folder]).success();

    // The old certificate is revoked: nothing it signed is good any more, whatever it was when it was signed.
    stack
        .ctl(&["pki", "revoke", "--serial", issued["serial"].as_str().unwrap(), "--reason", "key-compromise"])
        .success();
    let revoked = stack.ctl(&["--json", "pki", "list", "--revoked"]).success();
    assert!(revoked.stdout.contains(issued["serial"].as_str().unwrap()), "{}", revoked.stdout);
}

#[test]
fn keys_are_private_and_evidence_goes_where_it_is_told() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::up(&dir.path().join("stack"));
    let (_, key) = enrol(&stack, "dev@example.com", "signing");
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    for secret in
        ["secrets/admin.token", "secrets/ca-service.passphrase", "secrets/transparency-log.passphrase"]
    {
        let mode = std::fs::metadata(stack.dir().join(secret)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{secret}");
    }
    let folder = signed(&stack, dir.path(), "agent");
    let before = std::fs::read_to_string(folder.join("manifest.yaml")).unwrap();
    assert!(before.contains("attestation:"));
    // A sidecar instead: the block names a file, the file is a bundle that stock clients read.
    stack.ctl(&["sign", "--sidecar", folder.to_str().unwrap()]).success();
    let bundle = std::fs::read_to_string(folder.join("sentiment.wasm.sigstore.json")).unwrap();
    assert!(bundle.contains("application/vnd.dev.sigstore.bundle.v0.3+json"));
    stack.ctl(&["verify", folder.to_str().unwrap()]).success();
}

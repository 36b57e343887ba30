//! A developer: from no certificate to a verified release, and what happens when the certificate goes.

use std::process::Command;
use std::time::Duration;

use mentat_tests::agent::{enrol, sentiment, signed};
use mentat_tests::binary::binary;
use mentat_tests::clock::Deadline;
use mentat_tests::server::Server;
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

    // Everything of one identity: shown first, then confirmed by its number.
    let many = ["--json", "pki", "revoke", "--identity", "dev@example.com", "--reason", "key-compromise"];
    let shown = stack.ctl(&many).success().json();
    assert_eq!((&shown["plan"]["matching"], &shown["plan"]["revoked"]), (&2.into(), &1.into()));
    stack.ctl(&[&many[..], &["--confirm", "1"]].concat()).refused(2, "2 certificates would be revoked");
    stack.ctl(&[&many[..], &["--approval", "alice.json"]].concat()).refused(2, "--approval without --order");
    let done = stack.ctl(&[&many[..], &["--confirm", "2"]].concat()).success().json();
    assert_eq!((&done["revoked"], &done["kept"]), (&2.into(), &0.into()));
    let serial = issued["serial"].as_str().unwrap();
    let before = ["pki", "status", "--serial", serial, "--at", "2020-01-01T00:00:00Z"];
    assert!(stack.ctl(&before).success().stdout.contains("not yet valid"));
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

/// The tutorial's step 7, twice within a minute: lists are published once a minute at most, and yet no one who asks is
/// told that a revoked signer is good.
#[test]
fn a_revocation_is_seen_at_once_also_right_after_another_one() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::up(&dir.path().join("stack"));
    let releases = ["first", "second"].map(|name| {
        let (cert, key) = enrol(&stack, &format!("{name}@example.com"), name);
        let id = format!("mentatlab.{name}");
        let folder = sentiment(dir.path(), name, |text| text.replace("mentatlab.sentiment", &id));
        let folder = folder.to_str().unwrap().to_owned();
        stack.ctl(&["sign", &folder, "--cert", &cert, "--key", &key]).success();
        stack.ctl(&["verify", &folder, "--refresh"]).success();
        stack.ctl(&["run", &folder]).success();
        (folder, cert)
    });
    for (folder, cert) in &releases {
        stack.ctl(&["pki", "revoke", "--cert", cert, "--reason", "key-compromise"]).success();
        let denied = stack.ctl(&["--json", "verify", folder, "--refresh"]);
        assert_eq!((denied.code, &denied.json()["reason"]), (3, &"revoked".into()), "{}", denied.stdout);
    }
    // The executor reads lists: the first one at once, the next a minute after it at most, and what a refresh takes.
    let deadline = Deadline::after(Duration::from_secs(120));
    for (folder, _) in &releases {
        loop {
            let ran = stack.ctl(&["--json", "run", folder]);
            if ran.code == 3 {
                assert_eq!(ran.json()["code"], "revoked", "{}", ran.stdout);
                break;
            }
            assert!(!deadline.passed(), "the executor never learned of it: {}{}", ran.stdout, ran.stderr);
            std::thread::sleep(Duration::from_millis(500));
        }
    }
}

/// What no fresh evidence changes is denied before anything is asked for, and an authority that is silent is no evidence.
#[test]
fn only_what_leads_to_an_anchor_is_asked_and_silence_proves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut stack = Stack::up(&dir.path().join("stack"));
    let release = signed(&stack, dir.path(), "asked");
    let (folder, module) = (release.to_str().unwrap(), release.join("sentiment.wasm"));
    stack.ctl(&["verify", folder, "--refresh"]).success();
    let genuine = std::fs::read(&module).unwrap();
    std::fs::write(&module, b"\0asm\x01\0\0\0").unwrap();
    stack
        .ctl(&["verify", folder, "--refresh", "--log-url", "http://127.0.0.1:1"])
        .refused(3, "digest_mismatch");
    std::fs::write(&module, genuine).unwrap();
    stack.ctl(&["verify", folder, "--refresh", "--log-url", "http://127.0.0.1:1"]).refused(69, "127.0.0.1:1");
    // Without its authority the release's own evidence decides, and whoever asked is told.
    assert_eq!(stack.down(), 0);
    let mut command = Command::new(binary("transparency-log"));
    command.args(["serve", "--exit-with-stdin", "--config"]);
    command.arg(dir.path().join("stack/config/transparency-log.toml"));
    let log = Server::start(command);
    let verdict = stack.ctl(&["--json", "verify", folder, "--refresh"]);
    assert_eq!(verdict.code, 0, "{}{}", verdict.stdout, verdict.stderr);
    assert!(!verdict.json()["unanswered"].as_array().unwrap().is_empty(), "{}", verdict.stdout);
    assert!(verdict.stderr.contains("no fresh evidence"), "{}", verdict.stderr);
    assert_eq!(log.stop(), 0);
}

/// The executor asks about the timestamp authority; so does whoever verifies with fresh evidence.
#[test]
fn a_revoked_timestamp_authority_is_noticed_with_fresh_evidence() {
    use base64::Engine as _;
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::up(&dir.path().join("stack"));
    let release = signed(&stack, dir.path(), "stamped");
    let release = release.to_str().unwrap();
    stack.ctl(&["verify", release, "--refresh"]).success();
    let root: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(stack.text("/trusted_root")).unwrap()).unwrap();
    let authority = &root["timestampAuthorities"][0]["certChain"]["certificates"][0]["rawBytes"];
    let der = base64::engine::general_purpose::STANDARD.decode(authority.as_str().unwrap()).unwrap();
    let authority = trust_store::Certificate::from_der(&der).unwrap();
    let serial: String = authority.serial().iter().map(|byte| format!("{byte:02x}")).collect();
    stack.ctl(&["pki", "revoke", "--serial", &serial, "--reason", "key-compromise"]).success();
    let deadline = Deadline::after(Duration::from_secs(90));
    let denied = loop {
        let verdict = stack.ctl(&["verify", release, "--refresh"]);
        if verdict.code != 0 || deadline.passed() {
            break verdict;
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    denied.refused(3, "revoked");
}

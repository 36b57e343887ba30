//! CI: a key from the environment, many manifests in one call, publishing what was verified.

use std::path::Path;
use std::process::Command;

use mentat_tests::agent::{enrol, sentiment};
use mentat_tests::binary::binary;
use mentat_tests::command::finish;
use mentat_tests::stack::Stack;

#[test]
fn many_manifests_are_signed_verified_and_published_and_one_failure_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::up(&dir.path().join("stack"));
    let (cert, key) = enrol(&stack, "ci@example.com", "ci");
    let good = sentiment(dir.path(), "good", |manifest| manifest);
    let other =
        sentiment(dir.path(), "other", |manifest| manifest.replace("mentatlab.sentiment", "mentatlab.other"));
    let broken =
        sentiment(dir.path(), "broken", |manifest| manifest.replace("runtime: wasm", "runtime: cobol"));

    let mut sign = Command::new(binary("mentatctl"));
    sign.env("MENTAT_HOME", stack.home()).env("SIGNING_KEY", std::fs::read_to_string(&key).unwrap());
    sign.env("SIGNING_CERT", std::fs::read_to_string(&cert).unwrap());
    sign.arg("--stack").arg(stack.dir()).args([
        "sign",
        "--cert-env",
        "SIGNING_CERT",
        "--key-env",
        "SIGNING_KEY",
    ]);
    sign.args([&good, &broken, &other]);
    let signed = finish(sign, b"");
    assert_eq!(signed.code, 2, "one manifest is no manifest: {}", signed.stderr);
    assert!(signed.stderr.contains("broken"), "{}", signed.stderr);
    assert_eq!(signed.stdout.matches("signed mentatlab.").count(), 2, "{}", signed.stdout);

    let (good, other) = (good.to_str().unwrap(), other.to_str().unwrap());
    stack.ctl(&["verify", good, other]).success();

    let releases = dir.path().join("releases");
    let to = releases.to_str().unwrap();
    stack.ctl(&["publish", good, "--to", to]).success();
    stack.ctl(&["publish", good, "--to", to]).success();
    let published = releases.join("mentatlab.sentiment/1.0.0");
    assert!(published.join("sentiment.wasm").exists());
    stack.ctl(&["verify", published.to_str().unwrap()]).success();
    // Nothing but the version's folder: no draft is left, and what was interrupted is completed.
    let id = releases.join("mentatlab.sentiment");
    assert_eq!(std::fs::read_dir(&id).unwrap().count(), 1);
    std::fs::remove_file(published.join("manifest.yaml")).unwrap();
    stack.ctl(&["publish", good, "--to", to]).success();
    stack.ctl(&["verify", published.to_str().unwrap()]).success();
    stack.ctl(&["publish", good]).success();
    assert!(stack.home().join("releases/mentatlab.sentiment/1.0.0/manifest.yaml").exists(), "the default");
    // The same version with other content is refused; an unsigned release is never published.
    stack.ctl(&["sign", "--cert", &cert, "--key", &key, good]).success();
    stack.ctl(&["publish", good, "--to", to]).refused(1, "raise the version");
    let unsigned = sentiment(dir.path(), "unsigned", |manifest| manifest);
    stack.ctl(&["sign", "--cert", &cert, "--key", &key, unsigned.to_str().unwrap()]).success();
    std::fs::write(unsigned.join("sentiment.wasm"), b"\0asm\x01\0\0\0").unwrap();
    stack.ctl(&["publish", unsigned.to_str().unwrap(), "--to", to]).refused(3, "digest_mismatch");
    assert_eq!(std::fs::read_dir(&id).unwrap().count(), 1, "what is refused leaves nothing");
}

#[test]
fn an_attestation_of_version_1_is_replaced_only_when_that_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::up(&dir.path().join("stack"));
    let (cert, key) = enrol(&stack, "ci@example.com", "ci");
    let old = "attestation:\n  version: 1\n  timestamp: 2024-01-01T00:00:00Z\n  algorithm: RS256\n  signature: AAAA\n";
    let folder = sentiment(dir.path(), "old", |manifest| format!("{manifest}{old}"));
    std::fs::rename(folder.join("manifest.yaml"), folder.join("agent.yaml")).unwrap();
    let (folder, manifest) = (folder.to_str().unwrap(), folder.join("agent.yaml"));
    let sign = ["sign", folder, "--manifest", "agent.yaml", "--cert", &cert, "--key", &key];
    stack.ctl(&sign).refused(2, "--upgrade").one_clear_line();
    assert!(std::fs::read_to_string(&manifest).unwrap().contains("RS256"));
    stack.ctl(&[&sign[..], &["--upgrade"]].concat()).success();
    stack.ctl(&["verify", manifest.to_str().unwrap()]).success();
    // A verdict for scripts has the same members whatever it is.
    std::fs::write(Path::new(folder).join("sentiment.wasm"), b"\0asm\x01\0\0\0").unwrap();
    let verdict = stack.ctl(&["--json", "verify", manifest.to_str().unwrap()]);
    assert_eq!(verdict.code, 3);
    let verdict = verdict.json();
    assert_eq!((&verdict["valid"], &verdict["reason"]), (&false.into(), &"digest_mismatch".into()));
    assert!(verdict["signer"].is_null() && verdict["timestamp"].is_null(), "{verdict}");
}

#[test]
fn the_stacks_secret_goes_to_the_stack_and_to_nobody_else() {
    use std::io::{Read as _, Write as _};
    let dir = tempfile::tempdir().unwrap();
    let mut stack = Stack::up(&dir.path().join("stack"));
    assert_eq!(stack.down(), 0);
    let secret = std::fs::read_to_string(stack.dir().join("secrets/admin.token")).unwrap();
    let stranger = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", stranger.local_addr().unwrap());
    let heard = std::thread::spawn(move || {
        let mut requests = String::new();
        for _ in 0..3 {
            let (mut peer, _) = stranger.accept().unwrap();
            let mut buffer = [0_u8; 8192];
            let read = peer.read(&mut buffer).unwrap();
            requests.push_str(&String::from_utf8_lossy(&buffer[..read]));
            peer.write_all(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                .unwrap();
        }
        requests
    });
    stack.ctl(&["pki", "list", "--ca-url", &url]).refused(1, "401");
    stack.ctl(&["run", "mentatlab.sentiment", "--executor-url", &url]).refused(1, "401");
    let token = dir.path().join("token");
    std::fs::write(&token, "given-on-purpose\n").unwrap();
    let given = ["pki", "list", "--ca-url", &url, "--admin-token-file", token.to_str().unwrap()];
    stack.ctl(&given).refused(1, "401");
    let heard = heard.join().unwrap();
    assert!(!heard.contains(secret.trim()), "the stack's token left for a stranger");
    assert!(heard.contains("given-on-purpose"), "{heard}");
}

//! CI: a key from the environment, many manifests in one call, publishing what was verified.

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
    sign.arg("--stack").arg(stack.dir()).args(["sign", "--cert", &cert, "--key-env", "SIGNING_KEY"]);
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
    // The same version with other content is refused; an unsigned release is never published.
    stack.ctl(&["sign", "--cert", &cert, "--key", &key, good]).success();
    stack.ctl(&["publish", good, "--to", to]).refused(1, "raise the version");
    let unsigned = sentiment(dir.path(), "unsigned", |manifest| manifest);
    stack.ctl(&["sign", "--cert", &cert, "--key", &key, unsigned.to_str().unwrap()]).success();
    std::fs::write(unsigned.join("sentiment.wasm"), b"\0asm\x01\0\0\0").unwrap();
    stack.ctl(&["publish", unsigned.to_str().unwrap(), "--to", to]).refused(3, "digest_mismatch");
}

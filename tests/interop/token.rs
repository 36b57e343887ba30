//! A developer's key in a token: SoftHSM 2, run by `make interop-pkcs11`. Whether mentatctl was built with the backend, it says itself.

use std::fs;
use std::path::Path;
use std::process::Command;

use mentat_tests::agent::{sentiment, token};
use mentat_tests::stack::Stack;

const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";
const PIN: &str = "a pin of the test";

#[test]
fn a_key_that_never_leaves_its_token_signs_and_is_certified() {
    if std::env::var_os("SOFTHSM2_CONF").is_none() || !Path::new(MODULE).is_file() {
        mentat_tests::skip::skipped("no SoftHSM 2 with a configuration of its own (make interop-pkcs11)");
        return;
    }
    let made = Command::new("softhsm2-util")
        .args([
            "--init-token",
            "--free",
            "--label",
            "developer",
            "--so-pin",
            "so pin of the test",
            "--pin",
            PIN,
        ])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let dir = tempfile::tempdir().unwrap();
    let pin = dir.path().join("pin");
    fs::write(&pin, PIN).unwrap();
    fs::set_permissions(&pin, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let key = format!(
        "pkcs11:token=developer;object=release?module-path={MODULE}&pin-source=file:{}",
        pin.display()
    );
    let stack = Stack::up(&dir.path().join("stack"));
    let certificate = dir.path().join("release.crt").to_str().unwrap().to_owned();
    let request = |name: &str| {
        let token = token(&stack, "dev@example.org");
        let args = ["pki", "request-cert", "--email", "dev@example.org", "--key", &key, "--output", name];
        stack.ctl_with_input(&args, token.as_bytes())
    };
    let first = request(&certificate);
    if first.stderr.contains("cargo feature pkcs11") {
        mentat_tests::skip::skipped(
            "mentatctl was built without the cargo feature pkcs11 (make interop-pkcs11)",
        );
        return;
    }
    first.success();
    // The key is made once: a second certificate is for the same one.
    let second = dir.path().join("second.crt").to_str().unwrap().to_owned();
    request(&second).success();
    let agent = sentiment(dir.path(), "agent", |manifest| manifest);
    let agent = agent.to_str().unwrap();
    for certificate in [&certificate, &second] {
        stack.ctl(&["sign", agent, "--cert", certificate, "--key", &key]).success();
        stack.ctl(&["verify", agent]).success();
    }
    // By the key alone: the authority says which certificate is its own.
    stack.ctl(&["sign", agent, "--key", &key]).success();
    stack.ctl_with_input(&["run", agent, "--input", "-"], b"good").success();
    let other = key.replace("object=release", "object=nobody");
    stack.ctl(&["sign", agent, "--cert", &certificate, "--key", &other]).refused(2, "key");
}

//! Enrolment when something is wrong: the token, the identity, the key, the moment. Nothing is lost, nothing is left over.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use mentat_tests::agent::{sentiment, token};
use mentat_tests::command::Finished;
use mentat_tests::stack::Stack;

fn request(stack: &Stack, email: &str, token: &str, more: &[&str]) -> Finished {
    let args = [&["pki", "request-cert", "--email", email][..], more].concat();
    stack.ctl_with_input(&args, token.as_bytes())
}

fn pending(stack: &Stack) -> bool {
    stack.home().join("signing.key.pending").exists()
}

#[test]
fn a_wrong_token_is_refused_with_what_to_do_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::up(&dir.path().join("stack"));
    let unknown = format!("mentat_enrol_{}", "0".repeat(48));
    let refused = request(&stack, "dev@example.com", &unknown, &[]).refused(1, "token_unknown");
    refused.one_clear_line();
    assert!(refused.stderr.contains("pki token create"), "{}", refused.stderr);
    assert!(
        !refused.stderr.contains("admin-token"),
        "no administrator's secret mends it: {}",
        refused.stderr
    );
    assert!(!pending(&stack) && !stack.home().join("signing.key").exists());
    for (input, names) in
        [("\n", "no one-time token"), ("two words", "no one-time token"), ("\u{7}", "token")]
    {
        request(&stack, "dev@example.com", input, &[]).refused(2, names).one_clear_line();
    }
    let long = "x".repeat(100_000);
    request(&stack, "dev@example.com", &long, &[]).refused(2, "no one-time token").one_clear_line();

    // Used up: good for one certificate, whoever asks.
    let good = token(&stack, "dev@example.com");
    request(&stack, "dev@example.com", &good, &[]).success();
    let again = request(&stack, "dev@example.com", &good, &[]).refused(1, "token_used");
    again.one_clear_line();
    assert!(!pending(&stack));
}

#[test]
fn a_token_of_another_identity_is_noticed_and_its_certificate_is_not_lost() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::up(&dir.path().join("stack"));
    let theirs = token(&stack, "ci@example.com");
    let refused = request(&stack, "dev@example.com", &theirs, &[]).refused(1, "made for ci@example.com");
    refused.one_clear_line();
    assert!(!stack.home().join("signing.crt").exists(), "not what was asked for");
    let taken = request(&stack, "ci@example.com", &theirs, &["--json"]).success().json();
    assert!(!pending(&stack));
    let listed = stack.ctl(&["--json", "pki", "list", "--identity", "ci@example.com"]).success();
    assert_eq!(listed.stdout.lines().count(), 1, "one token, one certificate: {}", listed.stdout);
    assert!(listed.stdout.contains(taken["serial"].as_str().unwrap()));
}

#[test]
fn a_key_that_no_profile_takes_does_not_spend_the_token() {
    use base64::Engine as _;
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::up(&dir.path().join("stack"));
    // An Ed25519 key (RFC 8410): good for logs, not for certificates of this authority.
    let mut der = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20".to_vec();
    der.extend([7; 32]);
    let pem = format!(
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
        base64::engine::general_purpose::STANDARD.encode(der)
    );
    let key = dir.path().join("ed25519.key");
    std::fs::write(&key, pem).unwrap();
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let good = token(&stack, "dev@example.com");
    let refused = request(&stack, "dev@example.com", &good, &["--key", key.to_str().unwrap()]);
    assert_eq!(refused.code, 1, "{}", refused.stderr);
    assert!(refused.stderr.contains("key_algorithm_not_allowed"), "{}", refused.stderr);
    assert!(!dir.path().join("ed25519.key.pending").exists(), "nothing will come of it");
    request(&stack, "dev@example.com", &good, &[]).success();
}

#[test]
fn what_cannot_be_written_is_noticed_before_the_token_is_spent() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::up(&dir.path().join("stack"));
    let good = token(&stack, "dev@example.com");
    let file = dir.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let below_a_file = file.join("signing.crt").display().to_string();
    let folder = dir.path().display().to_string();
    for more in [["--output", below_a_file.as_str()], ["--key", &below_a_file]] {
        request(&stack, "dev@example.com", &good, &more)
            .refused(1, "cannot make the folder")
            .one_clear_line();
    }
    for more in [["--output", folder.as_str()], ["--key", &folder]] {
        request(&stack, "dev@example.com", &good, &more).refused(2, "is a folder").one_clear_line();
    }
    request(&stack, "dev@example.com", &good, &[]).success();
}

/// What `pki request-cert` keeps while it waits is private, survives, and is enough to finish.
#[test]
fn an_enrolment_that_found_nobody_is_continued_by_the_same_command() {
    let dir = tempfile::tempdir().unwrap();
    let mut stack = Stack::up(&dir.path().join("stack"));
    let good = token(&stack, "dev@example.com");
    let passphrase = dir.path().join("passphrase");
    std::fs::write(&passphrase, "correct horse battery staple\n").unwrap();
    std::fs::set_permissions(&passphrase, std::fs::Permissions::from_mode(0o600)).unwrap();
    let more = ["--passphrase-file", passphrase.to_str().unwrap()];
    assert_eq!(stack.down(), 0);
    let refused = request(&stack, "dev@example.com", &good, &more).refused(69, "continues the request");
    refused.one_clear_line();
    let kept = stack.home().join("signing.key.pending");
    let text = std::fs::read_to_string(&kept).unwrap();
    assert_eq!(std::fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!text.contains(&good) && !text.contains("BEGIN PRIVATE KEY"), "no token, no clear key: {text}");
    // Repeated in vain it stays the same request.
    request(&stack, "dev@example.com", &good, &more).refused(69, "continues the request");
    assert_eq!(std::fs::read_to_string(&kept).unwrap(), text);
    stack.restart();
    let wrong = dir.path().join("wrong");
    std::fs::write(&wrong, "another passphrase\n").unwrap();
    std::fs::set_permissions(&wrong, std::fs::Permissions::from_mode(0o600)).unwrap();
    request(&stack, "dev@example.com", &good, &["--passphrase-file", wrong.to_str().unwrap()])
        .refused(2, "passphrase");
    let issued = request(&stack, "dev@example.com", &good, &more).success();
    assert!(issued.stderr.contains("continuing"), "{}", issued.stderr);
    assert!(!pending(&stack));
    works(&stack, dir.path(), &more);
}

/// Certificate and key belong together.
fn works(stack: &Stack, dir: &Path, more: &[&str]) {
    let release = sentiment(dir, "agent", |manifest| manifest);
    let release = release.to_str().unwrap();
    stack.ctl(&[&["sign", release][..], more].concat()).success();
    stack.ctl(&["verify", release]).success();
}

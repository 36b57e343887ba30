//! One's own certificates: listed and revoked with the key at hand, and nobody's leave.

use std::os::unix::fs::PermissionsExt as _;

use mentat_tests::agent::token;
use mentat_tests::command::Finished;
use mentat_tests::stack::Stack;

fn enrol(stack: &Stack, email: &str, name: &str) -> String {
    let (cert, key) = (stack.home().join(format!("{name}.crt")), stack.home().join(format!("{name}.key")));
    let (cert, key) = (cert.to_str().unwrap().to_owned(), key.to_str().unwrap().to_owned());
    let args = ["--json", "pki", "request-cert", "--email", email, "--output", &cert, "--key", &key];
    let enrolled = stack.ctl_with_input(&args, token(stack, email).as_bytes()).success().json();
    enrolled["serial"].as_str().unwrap().to_owned()
}

/// A command with one's own key, the administrator's token out of reach.
fn mine(stack: &Stack, command: &[&str], cert: &str, key: &str) -> Finished {
    let (cert, key) = (stack.home().join(format!("{cert}.crt")), stack.home().join(format!("{key}.key")));
    let own = ["--mine", "--signing-cert", cert.to_str().unwrap(), "--signing-key", key.to_str().unwrap()];
    stack.ctl(&[command, &own].concat())
}

#[test]
fn a_developer_lists_and_revokes_what_is_theirs_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::up(&dir.path().join("stack"));
    let first = enrol(&stack, "dev@example.com", "first");
    let second = enrol(&stack, "dev@example.com", "second");
    let theirs = enrol(&stack, "other@example.com", "theirs");

    let listed = mine(&stack, &["--json", "pki", "list"], "first", "first").success();
    assert_eq!(listed.stdout.lines().count(), 2, "{}", listed.stdout);
    assert!(listed.stdout.contains(&first) && listed.stdout.contains(&second));
    assert!(!listed.stdout.contains(&theirs));

    // Not without a reason of one's own, not with another's key, not with a selection.
    mine(&stack, &["pki", "revoke"], "first", "first").refused(2, "reason of yours").one_clear_line();
    let superseded = ["pki", "revoke", "--reason", "superseded"];
    mine(&stack, &superseded, "theirs", "first").refused(2, "not that of").one_clear_line();
    let many = ["pki", "revoke", "--reason", "superseded", "--identity", "dev@example.com"];
    mine(&stack, &many, "first", "first").refused(2, "one certificate").one_clear_line();

    let compromised = ["--json", "pki", "revoke", "--reason", "key-compromise"];
    let revoked = mine(&stack, &compromised, "first", "first").success().json();
    assert_eq!(revoked["revocation"]["serial"], first.as_str());
    assert_eq!(revoked["revocation"]["reason"], "key-compromise");
    mine(&stack, &compromised, "first", "first").success();
    let refused = mine(&stack, &["pki", "list"], "first", "first").refused(1, "certificate_revoked");
    refused.one_clear_line();
    assert!(refused.stderr.contains("pki token create"), "{}", refused.stderr);

    // The administrator sees that one is revoked, and the others stand.
    let listed = stack.ctl(&["--json", "pki", "list", "--revoked"]).success();
    assert_eq!(listed.stdout.lines().count(), 1, "{}", listed.stdout);
    assert!(listed.stdout.contains(&first));
}

#[test]
fn a_developer_renews_without_a_token_and_an_interruption_costs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::up(&dir.path().join("stack"));
    let file = |name: &str| stack.home().join(name);
    let enrolling = ["--json", "pki", "request-cert", "--email", "dev@example.com"];
    let first =
        stack.ctl_with_input(&enrolling, token(&stack, "dev@example.com").as_bytes()).success().json();
    let old = ["signing.crt", "signing.key"].map(|name| std::fs::read(file(name)).unwrap());

    let renewed = stack.ctl(&["--json", "pki", "renew"]).success().json();
    assert_eq!(renewed["renews"], first["serial"]);
    assert_ne!(std::fs::read(file("signing.key")).unwrap(), old[1]);
    let listed = stack.ctl(&["--json", "pki", "list", "--mine"]).success();
    assert_eq!(listed.stdout.lines().count(), 2, "{}", listed.stdout);
    assert!(!file("signing.key.pending").exists());

    // Interrupted between the certificate and its key: the key is still written down.
    let new = std::fs::read_to_string(file("signing.key")).unwrap();
    let pending = serde_json::json!({
        "version": 1, "request_id": "a", "token_sha256": "00", "key": new,
    });
    std::fs::write(file("signing.key"), &old[1]).unwrap();
    std::fs::write(file("signing.key.pending"), pending.to_string()).unwrap();
    std::fs::set_permissions(file("signing.key.pending"), std::fs::Permissions::from_mode(0o600)).unwrap();
    let finished = stack.ctl(&["--json", "pki", "renew"]).success().json();
    assert_eq!(finished["serial"], renewed["serial"]);
    assert_eq!(std::fs::read_to_string(file("signing.key")).unwrap(), new);
    assert!(!file("signing.key.pending").exists());

    // A token is for whom it names, and what is revoked is renewed by nobody.
    stack.ctl(&["pki", "renew", "--token", "mentat_enrol_00"]).refused(2, "one identity").one_clear_line();
    stack.ctl(&["pki", "revoke", "--mine", "--reason", "superseded"]).success();
    stack.ctl(&["pki", "renew"]).refused(1, "certificate_revoked").one_clear_line();
    assert!(!file("signing.key.pending").exists());
    assert_eq!(std::fs::read_to_string(file("signing.key")).unwrap(), new);
}

#[test]
fn a_developer_shows_the_certificate_at_the_handshake_instead_of_signing() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::up_with(&dir.path().join("stack"), &["--tls"]);
    let enrolling = ["--json", "pki", "request-cert", "--email", "dev@example.com"];
    let first =
        stack.ctl_with_input(&enrolling, token(&stack, "dev@example.com").as_bytes()).success().json();
    let renewed = stack.ctl(&["--json", "pki", "renew", "--mtls"]).success().json();
    assert_eq!(renewed["renews"], first["serial"]);
    let listed = stack.ctl(&["--json", "pki", "list", "--mine", "--mtls"]).success();
    assert_eq!(listed.stdout.lines().count(), 2, "{}", listed.stdout);
    stack.ctl(&["pki", "revoke", "--mine", "--mtls", "--reason", "superseded"]).success();
    stack.ctl(&["pki", "renew", "--mtls"]).refused(1, "certificate_revoked").one_clear_line();
    // The old one stands, and is not the administrator's for that.
    let with = |file: &str| stack.home().join(file).to_str().unwrap().to_owned();
    let (cert, key) = (with("signing.crt"), with("signing.key"));
    let asked = ["pki", "list", "--tls-cert", &cert, "--tls-key", &key];
    stack.ctl(&asked).refused(1, "certificate_not_for_this").one_clear_line();
    let plain = ["pki", "renew", "--mtls", "--ca-url", "http://127.0.0.1:1"];
    stack.ctl(&plain).refused(2, "needs TLS").one_clear_line();
    let with_token = ["pki", "renew", "--mtls", "--email", "dev@example.com"];
    stack.ctl(&with_token).refused(2, "cannot be used with");
}

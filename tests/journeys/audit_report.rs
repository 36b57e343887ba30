//! An auditor's report: one file, verified offline, that names what does not fit.

use mentat_tests::agent::signed;
use mentat_tests::stack::Stack;
use serde_json::{Value, json};

fn codes(report: &Value) -> Vec<&str> {
    report["findings"].as_array().unwrap().iter().map(|finding| finding["code"].as_str().unwrap()).collect()
}

#[test]
fn a_period_is_accounted_for_and_the_report_verifies_offline() {
    let dir = tempfile::tempdir().unwrap();
    let mut stack = Stack::up(&dir.path().join("stack"));
    let release = signed(&stack, dir.path(), "first");
    stack.ctl(&["run", release.to_str().unwrap()]).success();
    let file = |name: &str| dir.path().join(name).display().to_string();
    let executor = format!("east={}", stack.dir().join("executor/audit.jsonl").display());
    let event_key = stack.dir().join("ca-service/chains/statement.pub.pem").display().to_string();
    let period = ["--from", "2020-01-01", "--to", "2100-01-01"];
    let report = |output: &str, more: &[&str]| {
        stack.ctl(&[&["--json", "audit", "report", "--output", output], &period[..], more].concat())
    };
    let clean = report(&file("clean.json"), &["--executor-log", &executor, "--event-key", &event_key]);
    let said = clean.success().json();
    assert_eq!(codes(&said), Vec::<&str>::new());
    assert_eq!(
        (said["signed"][0]["identity"].as_str(), said["signed"].as_array().unwrap().len()),
        (Some("dev@example.com"), 1)
    );
    assert!(said["issued"].as_array().unwrap().iter().any(|issued| issued["identity"] == "dev@example.com"));
    let admitted = &said["admitted"][0];
    assert_eq!((admitted["executor"].as_str(), admitted["log_index"].as_u64()), (Some("east"), Some(0)));
    // Nothing happened before there was anything.
    let empty = stack
        .ctl(&[
            "--json",
            "audit",
            "report",
            "--output",
            &file("empty.json"),
            "--from",
            "2020-01-01",
            "--to",
            "2021-01-01",
            "--event-key",
            &event_key,
        ])
        .success()
        .json();
    assert_eq!((&empty["issued"], &empty["admitted"]), (&json!([]), &json!([])));

    // The key was stolen before the admission, as is learnt afterwards.
    let issued = said["issued"].as_array().unwrap();
    let issued = issued.iter().find(|issued| issued["identity"] == "dev@example.com").unwrap();
    let serial = said["signed"][0]["serial"].as_str().unwrap();
    let since = issued["time"].as_str().unwrap();
    stack
        .ctl(&[
            "pki",
            "revoke",
            "--serial",
            &format!("0{serial}"),
            "--reason",
            "key-compromise",
            "--compromised-at",
            since,
        ])
        .success();
    let checkpoint =
        ["log", "monitor", "--log", "event", "--event-type", "https://mentat.internal/revocation/v1"];
    let mut tries = 0;
    while stack.ctl(&checkpoint).code == 0 {
        tries += 1;
        assert!(tries < 600, "the revocation never reached the event log");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let later = report(&file("later.json"), &["--executor-log", &executor, "--event-key", &event_key]);
    assert_eq!(later.code, 1, "{}{}", later.stdout, later.stderr);
    assert_eq!(codes(&later.json()), ["admitted_before_revocation_was_known"]);
    // Without the authority's key that is said, and a key of somebody else makes it a forgery.
    let unchecked = report(&file("unchecked.json"), &["--executor-log", &executor]).json();
    assert!(codes(&unchecked).contains(&"event_signatures_unchecked"));
    // An executor's log with a record taken out.
    let text = std::fs::read_to_string(stack.dir().join("executor/audit.jsonl")).unwrap();
    let cut: Vec<&str> = text.lines().skip(1).collect();
    std::fs::write(file("cut.jsonl"), cut.join("\n") + "\n").unwrap();
    let broken =
        report(&file("broken.json"), &["--executor-log", &file("cut.jsonl"), "--event-key", &event_key]);
    assert!(codes(&broken.json()).contains(&"audit_log_broken"), "{}", broken.stdout);

    // Offline, with nothing but the file, the signer's certificate and the logs' keys.
    stack.down();
    let verify =
        |name: &str, more: &[&str]| stack.ctl(&[&["--json", "audit", "verify", &file(name)], more].concat());
    verify("clean.json", &[]).success();
    verify("empty.json", &[]).success();
    let again = verify("later.json", &[]);
    assert_eq!((again.code, again.json()), (1, later.json()));
    verify("clean.json", &["--key", &event_key]).refused(3, "signature_invalid");
    let text = std::fs::read_to_string(file("clean.json")).unwrap();
    let at = text.find("\"payload\":\"").unwrap() + 200;
    let mut bytes = text.clone().into_bytes();
    bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
    std::fs::write(file("altered.json"), bytes).unwrap();
    verify("altered.json", &[]).refused(3, "signature_invalid");
    // Keys of other logs do not believe it.
    let other = Stack::up(&dir.path().join("other"));
    other
        .ctl(&[
            "audit",
            "verify",
            &file("clean.json"),
            "--cert",
            &stack.home().join("signing.crt").display().to_string(),
        ])
        .refused(3, "report_invalid");
}

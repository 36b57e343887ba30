//! An auditor's report: one file, verified offline, that names what does not fit.

use mentat_tests::agent::signed;
use mentat_tests::stack::Stack;
use serde_json::{Value, json};

fn codes(report: &Value) -> Vec<&str> {
    report["findings"].as_array().unwrap().iter().map(|finding| finding["code"].as_str().unwrap()).collect()
}

/// Public key of the signing log, which signs no events.
fn signing_spki(stack: &Stack) -> Value {
    let keys: Value =
        serde_json::from_str(&std::fs::read_to_string(stack.dir().join("trust/log_keys.json")).unwrap())
            .unwrap();
    let logs = keys.as_array().unwrap();
    logs.iter().find(|log| log["kind"] == "signing").unwrap()["public_key"].clone()
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
    // Without the authority's key that is said; a reader that knows another key is told of a forgery.
    let keys: Value =
        serde_json::from_str(&std::fs::read_to_string(stack.dir().join("trust/log_keys.json")).unwrap())
            .unwrap();
    let believing = |name: &str, change: &dyn Fn(&mut Value)| {
        let mut keys = keys.clone();
        let logs = keys.as_array_mut().unwrap();
        change(logs.iter_mut().find(|log| log["kind"] == "event").unwrap());
        std::fs::write(file(name), keys.to_string()).unwrap();
        file(name)
    };
    let nobody = believing("nobody.json", &|log| drop(log.as_object_mut().unwrap().remove("events")));
    let unchecked = report(&file("unchecked.json"), &["--executor-log", &executor, "--log-keys", &nobody]);
    assert!(codes(&unchecked.json()).contains(&"event_signatures_unchecked"));
    stack.ctl(&["log", "monitor", "--log", "event", "--log-keys", &nobody]).refused(2, "--event-key");
    let other = signing_spki(&stack);
    let stranger = believing("stranger.json", &|log| {
        for rule in log["events"].as_array_mut().unwrap() {
            rule["keys"] = json!([other]);
        }
    });
    let forged = report(&file("forged.json"), &["--executor-log", &executor, "--log-keys", &stranger]);
    assert_eq!(forged.code, 1, "{}{}", forged.stdout, forged.stderr);
    assert!(codes(&forged.json()).contains(&"event_forged"));
    assert_eq!(forged.json()["revoked"], json!([]), "a forged revocation has no effect");
    let state = file("stranger.state");
    let seen = stack.ctl(&["log", "monitor", "--log", "event", "--log-keys", &stranger, "--state", &state]);
    assert_eq!(seen.code, 1, "{}{}", seen.stdout, seen.stderr);
    assert!(seen.stdout.contains("forged event"), "{}", seen.stdout);
    // Whoever knows the keys does not believe a report that rests on others.
    stack.ctl(&["audit", "verify", &file("forged.json")]).refused(3, "report_invalid");
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

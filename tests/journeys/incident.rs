//! A key is in other hands: what it touched, the drill that changes nothing, the order, and the report.

use std::fs;

use mentat_tests::agent::{enrol, signed};
use mentat_tests::stack::Stack;
use serde_json::Value;

#[test]
fn an_incident_goes_from_what_a_key_touched_to_a_report_and_a_drill_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::up(&dir.path().join("stack"));
    let file = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (leaked, _) = enrol(&stack, "dev@example.com", "signing");
    enrol(&stack, "other@example.com", "theirs");
    let release = signed(&stack, dir.path(), "agent");
    let release = release.to_str().unwrap();
    let since = stack.ctl(&["--json", "pki", "list", "--identity", "dev@example.com"]).success().json();
    let since = since["not_before"].as_i64().unwrap();
    stack.ctl(&["pki", "incident"]).refused(2, "whose key").one_clear_line();

    // The drill: what it touched, and what would be done. The order is for approvers.
    let (order, report) = (file("order.json"), file("report.json"));
    let drill = ["pki", "incident", "--cert", &leaked, "--write-order", &order];
    let said = stack.ctl(&drill).success().stdout;
    assert!(said.contains("dev@example.com") && said.contains("of the signing log: sha256:"), "{said}");
    assert!(said.contains("nothing was revoked; to go on, repeat with --confirm 1"), "{said}");
    assert!(!said.contains("other@example.com"), "{said}");
    let told = stack.ctl(&["--json", "pki", "incident", "--cert", &leaked]).success().json();
    assert_eq!((&told["matching"], &told["carried_out"]), (&1.into(), &Value::Null), "{told}");
    assert_eq!(told["certificates"].as_array().unwrap().len(), 1);
    assert_eq!(told["signed"].as_array().unwrap().len(), 1, "{told}");
    assert_eq!(told["signed"][0]["serial"], told["certificates"][0]["serial"]);
    assert!(fs::read_to_string(&order).unwrap().contains("key-compromise"));
    stack.ctl(&["verify", release]).success();
    assert_eq!(stack.ctl(&["--json", "pki", "list", "--revoked"]).success().stdout, "", "a drill");

    // In earnest: not another number than was shown.
    let wrong = ["pki", "incident", "--order", &order, "--confirm", "2"];
    stack.ctl(&wrong).refused(2, "1 certificates would be revoked").one_clear_line();
    // What goes wrong on the way is in the report, too.
    let mistaken = stack.ctl(&[&wrong[..], &["--report", &report]].concat());
    mistaken.refused(2, "1 certificates would be revoked");
    let written: Value = serde_json::from_slice(&fs::read(&report).unwrap()).unwrap();
    assert_eq!((&written["ok"], &written["carried_out"]), (&false.into(), &Value::Null), "{written}");
    assert!(written["failed"]["what"].as_str().unwrap().contains("would be revoked"), "{written}");
    assert_eq!(written["certificates"].as_array().unwrap().len(), 1, "{written}");
    let earnest = ["--json", "pki", "incident", "--order", &order, "--confirm", "1", "--per-second", "10"];
    let told = stack.ctl(&[&earnest[..], &["--report", &report]].concat()).success().json();
    assert_eq!(told["carried_out"]["revoked"], 1, "{told}");
    let written: Value = serde_json::from_slice(&fs::read(&report).unwrap()).unwrap();
    assert_eq!(written, told);
    let certificate = &written["certificates"][0];
    assert_eq!(
        (&certificate["state"], &certificate["revocation"]["reason"]),
        (&"revoked".into(), &"key-compromise".into())
    );
    assert!(certificate["revocation"]["revoked_at"].as_i64().unwrap() >= since);
    assert_eq!(written["order"], fs::read_to_string(&order).unwrap().as_str());
    let listed = stack.ctl(&["--json", "pki", "list", "--revoked"]).success().stdout;
    assert_eq!(listed.lines().count(), 1, "{listed}");
    // Repeated, it says the same; the key gets no certificate any more.
    let again = stack.ctl(&earnest).success().json();
    assert_eq!((&again["carried_out"]["revoked"], &again["carried_out"]["kept"]), (&1.into(), &0.into()));
    stack.ctl(&["pki", "renew", "--output", &leaked]).refused(1, "certificate_revoked").one_clear_line();
}

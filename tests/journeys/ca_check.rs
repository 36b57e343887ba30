//! The authority's records against its logs, as an operator proves it: beside the running servers, and from copies.

use std::process::Command;

use mentat_tests::agent::enrol;
use mentat_tests::binary::binary;
use mentat_tests::clock::Deadline;
use mentat_tests::command::{Finished, finish};
use mentat_tests::stack::Stack;

fn check(stack: &Stack, more: &[&str]) -> Finished {
    let mut command = Command::new(binary("ca-service"));
    command.args(["check", "--config"]).arg(stack.dir().join("config/ca-service.toml")).args(more);
    finish(command, b"")
}

#[test]
fn records_and_logs_agree_and_nothing_is_concluded_from_a_log_that_does_not_answer() {
    let dir = tempfile::tempdir().unwrap();
    let mut stack = Stack::up(&dir.path().join("stack"));
    let (certificate, _) = enrol(&stack, "dev@example.com", "one");
    enrol(&stack, "other@example.com", "two");
    stack.ctl(&["pki", "revoke", "--cert", &certificate, "--reason", "key-compromise"]).success();
    let deadline = Deadline::after(std::time::Duration::from_secs(60));
    let report = loop {
        let report = check(&stack, &[]).success().json();
        // The revocation goes to the event log a moment after it was acknowledged.
        if report["logs"]["revocations"] == 1 {
            break report;
        }
        assert!(!deadline.passed(), "{report}");
        std::thread::sleep(std::time::Duration::from_millis(200));
    };
    assert_eq!(report["logs"]["certificates"], 2, "{report}");
    assert!(report["logs"]["anchors"].as_u64().unwrap() >= 1, "{report}");
    let copies = dir.path().join("copies");
    for kind in ["issuance", "event"] {
        let folder = copies.join(kind).display().to_string();
        stack.ctl(&["log", "export", "--log", kind, "--output", &folder]).success();
    }
    stack.down();
    check(&stack, &[]).refused(69, "log_unreachable").one_clear_line();
    let copies = copies.display().to_string();
    let offline = check(&stack, &["--copies", &copies]);
    // What was anchored while the servers stopped is not in the copy.
    assert!([0, 69].contains(&offline.code), "{offline:?}");
    assert_eq!(offline.json()["logs"]["certificates"], 2);
}

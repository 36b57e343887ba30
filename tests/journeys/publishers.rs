//! Whose an agent's id is: releases by somebody else are refused, and what somebody signed is held and let go.

use std::path::Path;
use std::time::Duration;

use mentat_tests::agent::{enrol, sentiment, signed};
use mentat_tests::clock::Deadline;
use mentat_tests::stack::Stack;
use serde_json::{Value, json};

const OTHER: &str = "other@example.com";

/// Puts a policy into force that trusts two signers, with or without a list of agents each.
fn trust_two(stack: &Stack, dev: Option<&str>, other: Option<&str>) {
    let path = stack.dir().join("trust/policy.yaml");
    let mut policy: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let identity = |subject: &str, agents: Option<&str>| {
        let mut rule = json!({ "subject": subject, "issuer": "any-of-the-authority", "level": "verified" });
        if let Some(agents) = agents {
            rule["agents"] = json!([agents]);
        }
        rule
    };
    policy["identities"] = json!([identity("dev@example.com", dev), identity(OTHER, other)]);
    let beside = path.with_extension("new");
    std::fs::write(&beside, policy.to_string()).unwrap();
    std::fs::rename(beside, &path).unwrap();
    stack.signal("executor", "HUP");
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Deadline::after(Duration::from_secs(120));
    while !is_so() {
        assert!(!deadline.passed(), "{what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Another release of the same agent, by somebody else.
fn by_another(stack: &Stack, dir: &Path) -> String {
    let (cert, key) = enrol(stack, OTHER, "other");
    let folder = sentiment(dir, "by-another", |manifest| format!("# by somebody else\n{manifest}"));
    let folder = folder.display().to_string();
    stack.ctl(&["sign", "--cert", &cert, "--key", &key, &folder]).success();
    folder
}

#[test]
fn an_agent_is_published_by_whom_the_policy_lets_and_taken_over_by_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let mut stack = Stack::up(&dir.path().join("stack"));
    trust_two(&stack, None, None);
    let own = signed(&stack, dir.path(), "agent").display().to_string();
    let foreign = by_another(&stack, dir.path());
    stack.ctl(&["run", &own]).success();
    // Both are trusted, and neither is listed: the id is theirs who came first.
    let says = |release: &str| stack.ctl(&["explain", release]).stderr;
    until("the policy is in force", || says(&foreign).contains("agent_taken"));
    stack.ctl(&["executor", "load", &foreign]).refused(3, "agent_taken");
    stack.ctl_with_input(&["run", "mentatlab.sentiment", "--input", "-"], b"good").success();

    // A list that names other agents, here and before anything is loaded.
    trust_two(&stack, None, Some("other.*"));
    until("the second policy is in force", || says(&foreign).contains("agent_not_for_signer"));
    stack.ctl(&["executor", "load", &foreign]).refused(3, "agent_not_for_signer");
    stack.ctl(&["verify", &foreign]).refused(3, "agent_not_for_signer");
    stack.ctl(&["run", &own]).success();

    // After a restart the id is still whose it was.
    trust_two(&stack, None, None);
    assert_eq!(stack.down(), 0);
    stack.restart();
    stack.ctl(&["executor", "load", &foreign]).refused(3, "agent_taken");

    // Lists of both: the operator has said that one may follow the other.
    trust_two(&stack, Some("mentatlab.*"), Some("mentatlab.sentiment"));
    until("the lists are in force", || stack.ctl(&["explain", &foreign]).code == 0);
    stack.ctl(&["executor", "load", &foreign]).success();
}

#[test]
fn what_a_certificate_signed_is_held_and_let_go_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut stack = Stack::up(&dir.path().join("stack"));
    let own = signed(&stack, dir.path(), "agent").display().to_string();
    stack.ctl(&["run", &own]).success();
    stack.ctl(&["executor", "stop"]).refused(2, "no release is named");
    stack.ctl(&["executor", "drain", "--dry-run"]).refused(2, "no release is named");
    // What a dry run says names the certificate and the place in the log; nothing has changed.
    let tried = ["--json", "executor", "stop", "--agent", "mentatlab.sentiment", "--dry-run"];
    let report = stack.ctl(&tried).success().json();
    let held = &report["agents"][0];
    let certificate = held["certificate"].as_str().unwrap().to_owned();
    let index = held["log_index"].as_u64().unwrap();
    stack.ctl(&["executor", "stop", "--certificate", &"0".repeat(64), "--dry-run"]).refused(1, "no release");
    stack.ctl(&["run", "mentatlab.sentiment"]).success();

    let report =
        stack.ctl(&["--json", "executor", "stop", "--certificate", &certificate, "--reason", "lost"]);
    let id = report.success().json()["hold"]["id"].as_str().unwrap().to_owned();
    stack.ctl(&["run", "mentatlab.sentiment"]).refused(1, "withheld");
    // The same module, uploaded again, is the same release; and a start forgets nothing.
    stack.ctl(&["executor", "load", &own]).refused(1, "withheld");
    assert_eq!(stack.down(), 0);
    stack.restart();
    stack.ctl(&["run", "mentatlab.sentiment"]).refused(1, "withheld");
    stack.ctl(&["executor", "holds"]).refused(0, "lost");
    stack.ctl(&["executor", "resume", &id]).success();
    until("the release is back", || stack.ctl(&["run", "mentatlab.sentiment"]).code == 0);
    stack.ctl(&["executor", "resume", &id]).refused(1, "hold_unknown");

    // By its place in the log: at the index, and what was logged since.
    for (flag, at, code) in
        [("--log-index", index, 0), ("--from-log-index", index, 0), ("--from-log-index", index + 1, 1)]
    {
        let dry = stack.ctl(&["executor", "drain", flag, &at.to_string(), "--dry-run"]);
        assert_eq!(dry.code, code, "{flag} {at}: {}", dry.stderr);
    }
    let drained = ["--json", "executor", "drain", "--from-log-index", &index.to_string(), "--wait", "60"];
    let id = stack.ctl(&drained).success().json()["hold"]["id"].as_str().unwrap().to_owned();
    stack.ctl(&["run", "mentatlab.sentiment"]).refused(1, "withheld");
    stack.ctl(&["executor", "resume", &id]).success();
    stack.ctl(&["run", "mentatlab.sentiment"]).success();
}

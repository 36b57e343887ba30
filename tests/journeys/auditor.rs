//! An auditor: proofs checked offline, growth proven, watched identities reported, tampering noticed.

use mentat_tests::agent::signed;
use mentat_tests::stack::Stack;

#[test]
fn an_auditor_proves_watches_and_notices() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::up(&dir.path().join("stack"));
    let first = signed(&stack, dir.path(), "first");
    let proof = dir.path().join("first.tlog-proof").display().to_string();
    let entry = dir.path().join("first.entry").display().to_string();
    let release = first.to_str().unwrap();
    stack
        .ctl(&["log", "proof", "--manifest", release, "--output", &proof, "--entry-output", &entry])
        .success();
    stack.ctl(&["log", "verify", &proof, "--manifest", release]).success();
    stack.ctl(&["log", "verify", &proof, "--entry", &entry]).success();

    // One altered byte of the entry, and one of the checkpoint's root.
    let mut bytes = std::fs::read(&entry).unwrap();
    bytes[10] ^= 1;
    let altered = dir.path().join("altered.entry");
    std::fs::write(&altered, bytes).unwrap();
    let refused = stack.ctl(&["log", "verify", &proof, "--entry", altered.to_str().unwrap()]);
    assert_eq!(refused.code, 3, "{}", refused.stderr);
    let text = std::fs::read_to_string(&proof).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let empty = lines.iter().position(|line| line.is_empty()).unwrap();
    let root = lines[empty + 3];
    let forged = text.replace(root, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
    let forged_path = dir.path().join("forged.tlog-proof");
    std::fs::write(&forged_path, forged).unwrap();
    let refused = stack.ctl(&["log", "verify", forged_path.to_str().unwrap(), "--entry", &entry]);
    assert_eq!(refused.code, 3, "{}", refused.stderr);

    // The monitor walks what is new, and only that.
    let seen = stack.ctl(&["--json", "log", "monitor"]).success().json();
    assert_eq!(seen["walked"], seen["size"]);
    signed(&stack, dir.path(), "second");
    let watched = stack.ctl(&["--json", "log", "monitor", "--identity", "dev@example.com"]);
    assert_eq!(watched.code, 1, "a watched identity signed: {}{}", watched.stdout, watched.stderr);
    let lines: Vec<serde_json::Value> =
        watched.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["event"], "found");
    assert_eq!(lines.last().unwrap()["walked"], 1);
    let quiet = stack.ctl(&["log", "monitor", "--identity", "dev@example.com"]);
    assert_eq!(quiet.code, 0, "nothing new: {}", quiet.stderr);
    // Every log of the server, the issuance log with its own form of entries among them.
    stack.ctl(&["log", "monitor", "--log", "issuance"]).success();
    stack.ctl(&["log", "monitor", "--log", "event"]).success();
    // A memory of another log's head is a contradiction, not a detail.
    let state = stack.home().join("monitor").join(format!("{}.json", stack.text("/log/origin")));
    let memory = std::fs::read_to_string(&state).unwrap();
    let issuance = stack.home().join("monitor").join(format!("{}.json", stack.text("/logs/issuance/origin")));
    std::fs::write(&state, std::fs::read_to_string(issuance).unwrap()).unwrap();
    let confused = stack.ctl(&["log", "monitor"]);
    assert_eq!(confused.code, 2, "{}", confused.stderr);
    std::fs::write(&state, memory).unwrap();
    stack.ctl(&["log", "monitor"]).success();
}

//! The authority killed between the approval of a certificate and its issuance.

use mentat_tests::approver::{approve, demand, invite, open_requests};
use mentat_tests::stack::Stack;

#[test]
fn what_was_approved_before_the_authority_was_killed_is_issued_once_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut stack = Stack::up(&dir.path().join("stack"));
    demand(&mut stack, 1, &["alice@example.com"]);
    let good = invite(&stack, dir.path(), "dev@example.com");
    let ask = ["pki", "request-cert", "--email", "dev@example.com", "--no-wait"];
    stack.ctl_with_input(&ask, good.as_bytes()).refused(69, "awaits_approval");
    let id = open_requests(&stack).remove(0);
    // The request outlives the process, and so does its approval.
    stack.kill_server("ca-service");
    stack.restart();
    stack.ctl_with_input(&ask, good.as_bytes()).refused(69, "awaits_approval");
    assert_eq!(open_requests(&stack), std::slice::from_ref(&id));
    approve(&stack, dir.path(), "alice@example.com", &id);
    stack.kill_server("ca-service");
    stack.restart();
    let issued = stack.ctl_with_input(&[&ask[..], &["--json"]].concat(), good.as_bytes()).success().json();
    let listed = stack.ctl(&["--json", "pki", "list", "--identity", "dev@example.com"]).success().stdout;
    assert_eq!(listed.lines().count(), 1, "{listed}");
    assert!(listed.contains(issued["serial"].as_str().unwrap()));
    assert_eq!(stack.down(), 0);
}

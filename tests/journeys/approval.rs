//! A certificate that people must approve: the developer waits, others look at exactly what would be issued and decide.

use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use mentat_tests::agent::sentiment;
use mentat_tests::approver::{approve, demand, identity, invite, open_requests};
use mentat_tests::binary::binary;
use mentat_tests::clock::Deadline;
use mentat_tests::stack::Stack;

const PEOPLE: [&str; 2] = ["alice@example.com", "bob@example.com"];

/// `pki request-cert` as a process of its own.
fn request(stack: &Stack, token: &str) -> Child {
    let mut command = Command::new(binary("mentatctl"));
    command.env("MENTAT_HOME", stack.home()).arg("--stack").arg(stack.dir());
    command.args(["pki", "request-cert", "--email", "dev@example.com"]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(token.as_bytes()).unwrap();
    child
}

fn first_request(stack: &Stack) -> String {
    let deadline = Deadline::after(Duration::from_secs(60));
    loop {
        if let [id] = &open_requests(stack)[..] {
            return id.clone();
        }
        assert!(!deadline.passed(), "no request came");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn works(stack: &Stack, dir: &Path) {
    let release = sentiment(dir, "agent", |manifest| manifest);
    let release = release.to_str().unwrap();
    stack.ctl(&["sign", release]).success();
    stack.ctl(&["verify", release]).success();
}

#[test]
fn a_developer_waits_two_people_approve_what_they_saw_and_the_certificate_comes() {
    let dir = tempfile::tempdir().unwrap();
    let mut stack = Stack::up(&dir.path().join("stack"));
    demand(&mut stack, 2, &PEOPLE);
    assert!(stack.ctl(&["pki", "requests"]).success().stdout.contains("no requests"));
    // The stack's administrator is whoever has the token: nobody who vouches for anybody.
    let shared = stack.ctl(&["pki", "token", "create", "--email", "dev@example.com"]);
    shared.refused(1, "voucher_unnamed");
    let good = invite(&stack, dir.path(), "dev@example.com");
    let mut waiting = request(&stack, &good);
    let id = first_request(&stack);
    // Interrupted, it stands; the same command goes on.
    // TERM, as a shell that runs this in the background has its children ignore INT.
    let interrupted = Command::new("kill").args(["-TERM", &waiting.id().to_string()]).status().unwrap();
    assert!(interrupted.success() && !waiting.wait().unwrap().success());
    assert!(stack.home().join("signing.key.pending").exists());
    let refused = stack
        .ctl_with_input(&["pki", "request-cert", "--email", "dev@example.com", "--no-wait"], good.as_bytes());
    let refused = refused.refused(69, "awaits_approval");
    assert!(refused.stderr.contains(&id) && refused.stderr.contains("same token"), "{}", refused.stderr);
    let mut waiting = request(&stack, &good);

    // Looking changes nothing, and only what was seen can be confirmed.
    let alice = identity(&stack, dir.path(), PEOPLE[0]);
    let by_alice = ["--admin-token-file", alice.to_str().unwrap()];
    let seen = stack.ctl(&[&["pki", "approve", &id][..], &by_alice].concat()).success().stdout;
    for said in [
        "dev@example.com",
        "developer (internal)",
        "valid for",
        "ivan@example.com",
        "0 of 2 approved",
        "nothing was approved",
        "--confirm",
    ] {
        assert!(seen.contains(said), "{said}: {seen}");
    }
    let wrong = "0".repeat(64);
    stack
        .ctl(&[&["pki", "approve", &id, "--confirm", &wrong][..], &by_alice].concat())
        .refused(2, "was not confirmed");
    stack.ctl(&["pki", "approve", &id, "--confirm", &wrong]).refused(2, "was not confirmed");
    let digest = seen.split("--confirm ").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    let refused = stack.ctl(&["pki", "approve", &id, "--confirm", &digest]).refused(1, "approver_unnamed");
    assert!(refused.stderr.contains("client certificate"), "{}", refused.stderr);

    for person in PEOPLE {
        approve(&stack, dir.path(), person, &id);
    }
    assert_eq!(waiting.wait().unwrap().code(), Some(0));
    works(&stack, dir.path());
    assert!(open_requests(&stack).is_empty());
    let issued = stack.ctl(&["--json", "pki", "requests", "--state", "issued"]).success().stdout;
    assert_eq!(issued.lines().count(), 1, "{issued}");

    // Somebody else is denied, and learns why; nothing is left over.
    std::fs::remove_file(stack.home().join("signing.key")).unwrap();
    let next = invite(&stack, dir.path(), "dev@example.com");
    let mut waiting = request(&stack, &next);
    let id = first_request(&stack);
    stack.ctl(&["pki", "deny", &id, "--reason", "left the project", "--dry-run"]).success();
    assert_eq!(open_requests(&stack).len(), 1);
    stack.ctl(&["pki", "deny", &id, "--reason", "left the project"]).success();
    assert_eq!(waiting.wait().unwrap().code(), Some(1));
    assert!(!stack.home().join("signing.key.pending").exists() && !stack.home().join("signing.key").exists());
    let again = ["pki", "request-cert", "--email", "dev@example.com"];
    stack.ctl_with_input(&again, next.as_bytes()).refused(1, "token_used");
    assert_eq!(stack.down(), 0);
}

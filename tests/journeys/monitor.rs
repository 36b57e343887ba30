//! A monitor: tells who should know, forgets nothing that nobody was told, and knows a log that contradicts itself.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use mentat_tests::agent::signed;
use mentat_tests::lying_proxy;
use mentat_tests::receiver::Receiver;
use mentat_tests::stack::Stack;
use serde_json::Value;

fn events(stdout: &str) -> Vec<Value> {
    stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn alerts_arrive_and_what_nobody_was_told_is_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::up(&dir.path().join("stack"));
    signed(&stack, dir.path(), "first");
    let file = |name: &str| dir.path().join(name).display().to_string();
    std::fs::write(file("token"), "s3cret\n").unwrap();

    // A receiver that refuses: the entry is not marked as seen.
    let refusing = Receiver::start(&[400]);
    let flags = ["--identity", "*@example.com", "--state", &file("state.json")];
    let watch = |more: &[&str]| stack.ctl(&[&["--json", "log", "monitor"], &flags[..], more].concat());
    watch(&["--webhook", &refusing.url]).refused(69, "webhook_undelivered");
    assert_eq!(refusing.received().len(), 1, "a refusal is not repeated");

    // A receiver that fails once: the alert is repeated, and counts as seen then.
    let flaky = Receiver::start(&[503]);
    let config = file("watch.toml");
    let text = format!(
        "event_types = ['https://mentat.internal/revocation/v1']\n[webhook]\nurl = '{}'\ntoken_file = '{}'\nattempts = 3\n",
        flaky.url,
        file("token")
    );
    std::fs::write(&config, text).unwrap();
    let found = watch(&["--config", &config]);
    assert_eq!(found.code, 1, "{}{}", found.stdout, found.stderr);
    let received = flaky.received();
    assert_eq!(received.len(), 2);
    assert_eq!(received[0].body, received[1].body);
    assert!(received[1].head.contains("authorization: bearer s3cret"), "{}", received[1].head);
    let alert = &received[1].body;
    assert_eq!((alert["event"].as_str(), alert["index"].as_u64()), (Some("found"), Some(0)));
    assert_eq!(alert["matches"][0], "signed by dev@example.com");
    assert_eq!(events(&found.stdout)[0], *alert, "the same on standard output");
    assert_eq!(watch(&["--config", &config]).code, 0);
    // Two looks, with nothing new in either.
    let followed = watch(&["--config", &config, "--follow", "1", "--looks", "2"]).success();
    assert_eq!(events(&followed.stdout).len(), 2);
    let history = std::fs::read_to_string(dir.path().join("state.history.jsonl")).unwrap();
    assert_eq!(history.lines().count(), 1, "{history}");

    // What cannot work is refused before anything is asked.
    std::fs::write(&config, "identity = 'x'\n").unwrap();
    watch(&["--config", &config]).refused(78, "identity");
    stack.ctl(&["log", "monitor", "--digest", "xyz"]).refused(2, "xyz");
    stack.ctl(&["log", "monitor", "--webhook", "ftp://x"]).refused(2, "ftp");
}

#[test]
fn a_log_that_serves_what_does_not_verify_is_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::up(&dir.path().join("stack"));
    signed(&stack, dir.path(), "first");
    signed(&stack, dir.path(), "second");
    let url = stack.text("/log/url");
    for (number, (path, code)) in
        [("tile/0/000.p/2", "mismatch"), ("tile/entries/", "mismatch"), ("checkpoint", "signature_invalid")]
            .into_iter()
            .enumerate()
    {
        let lie: Arc<lying_proxy::Lie> = Arc::new(move |asked, mut body| {
            if asked.contains(path) {
                // In the checkpoint the case of a letter of the signed root, else a bit of a hash or an entry.
                let (at, bit) = if path == "checkpoint" { (root_at(&body), 0x20) } else { (40, 1) };
                body[at] ^= bit;
            }
            body
        });
        let address = lying_proxy::start(&url, lie);
        let state = dir.path().join(format!("{number}.json")).display().to_string();
        let told = Receiver::start(&[]);
        let seen = stack.ctl(&[
            "--json",
            "log",
            "monitor",
            "--log-url",
            &address,
            "--state",
            &state,
            "--webhook",
            &told.url,
        ]);
        let seen = seen.refused(3, code);
        assert_eq!(told.received()[0].body["event"], "refused", "{path}: {}", seen.stdout);
        // The truth is still believed afterwards.
        stack.ctl(&["log", "monitor", "--state", &state]).success();
    }
    let state = dir.path().join("none.json").display().to_string();
    let nobody = stack.ctl(&["log", "monitor", "--log-url", "http://127.0.0.1:1", "--state", &state]);
    nobody.refused(69, "reached");
}

/// Somewhere in the third line of a note, at a letter.
fn root_at(note: &[u8]) -> usize {
    let second = note.iter().enumerate().filter(|(_, byte)| **byte == b'\n').nth(1).unwrap().0;
    (second + 1..note.len()).find(|at| note[*at].is_ascii_alphabetic()).unwrap()
}

#[test]
fn a_second_history_is_a_fork_and_a_shorter_one_a_rollback() {
    let dir = tempfile::tempdir().unwrap();
    let mut stack = Stack::up(&dir.path().join("stack"));
    signed(&stack, dir.path(), "first");
    stack.down();
    let (live, copy) = (stack.dir().join("transparency-log"), dir.path().join("copy"));
    duplicate(&live, &copy);
    stack.restart();
    signed(&stack, dir.path(), "second");
    stack.ctl(&["log", "monitor"]).success();

    // Head and copies restored together: no log can notice that, which is what monitors are for.
    stack.down();
    std::fs::remove_dir_all(&live).unwrap();
    duplicate(&copy, &live);
    stack.restart();
    let told = Receiver::start(&[]);
    stack.ctl(&["log", "monitor", "--webhook", &told.url]).refused(3, "rollback");
    assert_eq!(told.received()[0].body["event"], "rollback");

    signed(&stack, dir.path(), "third");
    let told = Receiver::start(&[]);
    // A contradiction ends a monitor that follows, too.
    stack.ctl(&["log", "monitor", "--webhook", &told.url, "--follow", "1"]).refused(3, "fork");
    let body = &told.received()[0].body;
    assert_eq!((body["event"].as_str(), body["code"].as_str()), (Some("fork"), Some("fork")));
    let origin = stack.text("/log/origin");
    let evidence = std::fs::read_to_string(stack.home().join(format!("monitor/{origin}.fork.json"))).unwrap();
    let evidence: Value = serde_json::from_str(&evidence).unwrap();
    for note in ["known", "served"] {
        assert!(evidence[note].as_str().unwrap().starts_with(&format!("{origin}\n2\n")), "{evidence}");
    }
    assert_ne!(evidence["known"], evidence["served"]);
}

fn duplicate(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-a").args([from, to]).status().unwrap();
    assert!(done.success());
}

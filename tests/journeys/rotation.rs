//! New keys for the root and for statements: what was made before stays good, and what comes after is another key's.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use mentat_tests::agent::{enrol, sentiment};
use mentat_tests::clock::Deadline;
use mentat_tests::command::Finished;
use mentat_tests::stack::Stack;
use serde_json::Value;

/// Keys that are believed for each type of event, by the files of the stack.
/// How many keys each type of event that the authority states has; the executor's anchors have a key of their own.
fn event_keys(stack: &Stack) -> Vec<usize> {
    let text = fs::read_to_string(stack.text("/log_keys")).unwrap();
    let logs: Vec<Value> = serde_json::from_str(&text).unwrap();
    let event = logs.iter().find(|log| log["kind"] == "event").unwrap();
    let rules = event["events"].as_array().unwrap().iter();
    let of_authority = rules.filter(|rule| !rule["predicateType"].as_str().unwrap().contains("receipt"));
    // A rule for each issuer that revocations are about, all by the same keys.
    let counts: BTreeSet<(&str, usize)> = of_authority
        .map(|rule| (rule["predicateType"].as_str().unwrap(), rule["keys"].as_array().unwrap().len()))
        .collect();
    counts.into_iter().map(|(_, keys)| keys).collect()
}

fn revoked(stack: &Stack, name: &str) {
    let (certificate, _) = enrol(stack, &format!("{name}@example.com"), name);
    stack.ctl(&["pki", "revoke", "--cert", &certificate, "--reason", "key-compromise"]).success();
}

/// A look at the event log from its beginning, by the keys of a file.
fn monitored(stack: &Stack, keys: &str, state: &str) -> Finished {
    let state = stack.dir().join(state).display().to_string();
    stack.ctl(&["log", "monitor", "--log", "event", "--log-keys", keys, "--state", &state])
}

#[test]
fn statements_of_the_old_key_and_of_the_new_one_are_believed() {
    let dir = tempfile::tempdir().unwrap();
    let mut stack = Stack::up(&dir.path().join("stack"));
    let keys = stack.text("/log_keys");
    let before = dir.path().join("keys-before.json").display().to_string();
    fs::copy(&keys, &before).unwrap();
    revoked(&stack, "first");
    assert_eq!(event_keys(&stack), [1, 1]);
    stack.ctl(&["trust", "rotate", "--authority", "statement"]).refused(78, "another");
    assert_eq!(stack.down(), 0);
    let made = stack.ctl(&["--json", "trust", "rotate", "--authority", "statement"]).success().json();
    assert_eq!(made["authorities"][0]["authority"], "statement-2");
    let file = fs::read_to_string(made["authorities"][0]["file"].as_str().unwrap()).unwrap();
    assert_eq!(file.matches("BEGIN PUBLIC KEY").count(), 2);
    stack.restart();
    assert_eq!(event_keys(&stack), [2, 2], "the log and its readers are told");
    revoked(&stack, "second");
    // Everything from the first entry on: statements of both keys.
    let deadline = Deadline::after(Duration::from_secs(60));
    let mut look = 0;
    // Who has the keys of before alone does not believe the new one's.
    while !monitored(&stack, &before, &format!("before-{look}.json")).stdout.contains("forged event") {
        assert!(!deadline.passed(), "the second revocation is not in the event log");
        std::thread::sleep(Duration::from_millis(200));
        look += 1;
    }
    monitored(&stack, &keys, "after.json").success();
    // By the authority's own file, as in the split form.
    let chains = stack.dir().join("ca-service/chains/statement.pub.pem").display().to_string();
    let state = stack.dir().join("by-file.json").display().to_string();
    let watch = ["log", "monitor", "--log", "event", "--log-keys", &before, "--state", &state];
    let anchors = format!("https://mentat.internal/audit-anchor/v1={chains}");
    stack.ctl(&[&watch[..], &["--event-key", &chains, "--event-key", &anchors]].concat()).success();
}

#[test]
fn a_new_root_certifies_what_is_new_and_what_was_signed_before_stays_good() {
    let dir = tempfile::tempdir().unwrap();
    let mut stack = Stack::up(&dir.path().join("stack"));
    let release = |stack: &Stack, name: &str| {
        let (certificate, key) = enrol(stack, &format!("{name}@example.com"), name);
        let folder = sentiment(dir.path(), name, |manifest| {
            manifest.replace("mentatlab.sentiment", &format!("mentatlab.{name}"))
        });
        let folder = folder.to_str().unwrap().to_owned();
        stack.ctl(&["sign", &folder, "--cert", &certificate, "--key", &key]).success();
        folder
    };
    let roots = |stack: &Stack| {
        let text = fs::read_to_string(stack.text("/trusted_root")).unwrap();
        let root: Value = serde_json::from_str(&text).unwrap();
        ["certificateAuthorities", "timestampAuthorities"].map(|member| {
            let authorities = root[member].as_array().unwrap().iter();
            let anchor = |one: &Value| one["certChain"]["certificates"].as_array().unwrap().last().cloned();
            authorities.map(|one| anchor(one).unwrap().to_string()).collect::<Vec<_>>()
        })
    };
    let old = release(&stack, "old");
    let [first, _] = roots(&stack);
    for (authorities, signers, stampers) in
        [(&["root"][..], 1, 1), (&["code-signing", "time-stamping"][..], 2, 2)]
    {
        assert_eq!(stack.down(), 0);
        for authority in authorities {
            stack.ctl(&["trust", "rotate", "--authority", authority]).success();
        }
        stack.restart();
        let [code, stamps] = roots(&stack);
        assert_eq!((code.len(), stamps.len()), (signers, stampers), "{authorities:?}");
    }
    let [code, stamps] = roots(&stack);
    assert!(code.contains(&first[0]) && stamps.contains(&first[0]), "the old anchor stays");
    for anchors in [code, stamps] {
        assert_ne!(anchors[0], anchors[1], "the new ones lead to another");
    }
    stack.ctl(&["trust", "lint"]).success();
    let new = release(&stack, "new");
    for folder in [&old, &new] {
        stack.ctl(&["verify", folder, "--refresh"]).success();
    }
    let deadline = Deadline::after(Duration::from_secs(120));
    for folder in [&old, &new] {
        while stack.ctl_with_input(&["run", folder, "--input", "-"], b"good").code != 0 {
            assert!(!deadline.passed(), "{}", stack.ctl(&["run", folder]).stderr);
            std::thread::sleep(Duration::from_millis(500));
        }
    }
}

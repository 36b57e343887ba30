//! A new release of an agent takes over and is taken back; what ran leaves a receipt that verifies offline.

use std::path::{Path, PathBuf};

use mentat_tests::agent::{enrol, from_text};
use mentat_tests::stack::Stack;
use serde_json::Value;

const AGENT: &str = "test.deployed";

fn release(stack: &Stack, parent: &Path, letter: char, signer: &(String, String)) -> PathBuf {
    let module = format!(
        "(module (import \"mentat\" \"write_output\" (func $write (param i32 i32) (result i32)))
           (memory (export \"memory\") 1) (data (i32.const 0) \"{letter}\")
           (func (export \"process\") (result i32) (drop (call $write (i32.const 0) (i32.const 1))) (i32.const 0)))"
    );
    let folder = parent.join(letter.to_string());
    std::fs::create_dir(&folder).unwrap();
    let folder = from_text(&folder, AGENT, &module);
    stack.ctl(&["sign", "--cert", &signer.0, "--key", &signer.1, folder.to_str().unwrap()]).success();
    folder
}

fn load(stack: &Stack, folder: &Path) -> String {
    let loaded = stack.ctl(&["--json", "executor", "load", folder.to_str().unwrap()]).success().json();
    loaded["agent"]["digest"].as_str().unwrap().to_owned()
}

fn answer(stack: &Stack) -> Value {
    stack.ctl(&["--json", "run", AGENT]).success().json()
}

#[test]
fn a_release_takes_over_and_is_taken_back_and_each_run_leaves_a_receipt() {
    let dir = tempfile::tempdir().unwrap();
    let mut stack = Stack::up(&dir.path().join("stack"));
    let signer = enrol(&stack, "dev@example.com", "dev");
    let old = load(&stack, &release(&stack, dir.path(), 'a', &signer));
    stack.ctl(&["executor", "rollback", AGENT]).refused(1, "no_deployment");
    stack.ctl(&["executor", "deploy", AGENT, &old]).success();
    let new = load(&stack, &release(&stack, dir.path(), 'b', &signer));
    assert_eq!(answer(&stack)["text"], "a", "a loaded release serves nothing before it is deployed");
    let begun = stack.ctl(&["--json", "executor", "deploy", AGENT, &new]).success().json();
    assert_eq!(begun["deployment"]["candidate"]["percent"], 100);
    assert_eq!(answer(&stack)["text"], "b");
    stack.ctl(&["executor", "promote", AGENT]).success();

    // What was decided holds after a restart, too.
    assert_eq!(stack.down(), 0);
    stack.restart();
    assert_eq!(answer(&stack)["text"], "b");
    let back = stack.ctl(&["--json", "executor", "rollback", AGENT]).success().json();
    assert_eq!(back["deployment"]["stable"], old.as_str());
    let ran = answer(&stack);
    assert_eq!(ran["text"], "a");
    let listed = stack.ctl(&["--json", "executor", "deployments"]).success().json();
    assert_eq!(listed["deployments"][0]["last"], "rollback: requested");

    let file = dir.path().join("run.tlog-proof").display().to_string();
    let instance = ran["instance_id"].as_str().unwrap();
    let mut fetched = stack.ctl(&["--json", "executor", "receipt", instance, "--output", &file]);
    for _ in 0..100 {
        if fetched.code == 0 {
            break;
        }
        assert!(
            ["receipt_pending", "receipt_unknown"].iter().any(|code| fetched.stdout.contains(code)),
            "{fetched:?}"
        );
        std::thread::sleep(std::time::Duration::from_millis(50));
        fetched = stack.ctl(&["--json", "executor", "receipt", instance, "--output", &file]);
    }
    let log = fetched.success().json();
    let vkey = log["log"]["vkeys"][0].as_str().unwrap().to_owned();
    let verify = |file: &str| stack.ctl(&["--json", "executor", "verify-receipt", file, "--vkey", &vkey]);
    let receipt = verify(&file).success().json();
    assert_eq!(receipt["receipt"]["module"], old.as_str());
    assert_eq!(receipt["receipt"]["signer"], "dev@example.com");
    assert_eq!(receipt["receipt"]["exit"], "ok");

    let text = std::fs::read_to_string(&file).unwrap();
    let index = text.lines().find(|line| line.starts_with("index ")).unwrap();
    let forged = format!("{file}.forged");
    std::fs::write(&forged, text.replace(index, "index 0")).unwrap();
    verify(&forged).refused(3, "receipt_invalid");
}

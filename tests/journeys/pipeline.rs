//! A composition: two agents under one signed manifest, run, and denied when one of them is.

use std::path::{Path, PathBuf};
use std::time::Duration;

use mentat_tests::agent::{enrol, from_text};
use mentat_tests::clock::Deadline;
use mentat_tests::stack::Stack;
use serde_json::Value;

/// Answers with its input behind a mark.
fn marking(mark: char) -> String {
    format!(
        r#"(module
        (import "mentat" "read_input" (func $read (param i32 i32 i32) (result i32)))
        (import "mentat" "write_output" (func $write (param i32 i32) (result i32)))
        (memory (export "memory") 1) (data (i32.const 0) "{mark}")
        (func (export "process") (result i32)
          (drop (call $write (i32.const 0)
            (i32.add (i32.const 1) (call $read (i32.const 1) (i32.const 65535) (i32.const 0)))))
          (i32.const 0)))"#
    )
}

fn composed(parent: &Path, steps: &str) -> PathBuf {
    let folder = parent.join("whole");
    std::fs::create_dir_all(&folder).unwrap();
    let manifest = "id: test.whole\nversion: 1.0.0\nruntime: pipeline\nmodule: pipeline.json\n";
    std::fs::write(folder.join("manifest.yaml"), manifest).unwrap();
    std::fs::write(folder.join("pipeline.yaml"), steps).unwrap();
    folder
}

#[test]
fn two_agents_are_composed_signed_and_run_and_a_revoked_one_denies_both() {
    let dir = tempfile::tempdir().unwrap();
    let mut stack = Stack::up(&dir.path().join("stack"));
    let (cert, key) = enrol(&stack, "dev@example.com", "signing");
    let (gone_cert, gone_key) = enrol(&stack, "gone@example.com", "gone");
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let a = text(&from_text(dir.path(), "test.a", &marking('a')));
    let b = text(&from_text(dir.path(), "test.b", &marking('b')));
    stack.ctl(&["sign", "--cert", &cert, "--key", &key, &a]).success();
    stack.ctl(&["sign", "--cert", &gone_cert, "--key", &gone_key, &b]).success();

    let steps =
        "steps:\n- {name: first, release: ../test.a}\n- {name: second, release: ../test.b, after: [first]}\n";
    let whole = text(&composed(dir.path(), steps));
    let sign = |folder: &str| stack.ctl(&["sign", "--cert", &cert, "--key", &key, folder]);
    // What is wrong with a composition is found before anything is signed.
    let turned = steps.replace("../test.a}", "../test.a, after: [second]}");
    std::fs::write(dir.path().join("whole/pipeline.yaml"), turned).unwrap();
    sign(&whole).refused(2, "malformed");
    std::fs::write(dir.path().join("whole/pipeline.yaml"), steps).unwrap();
    sign(&whole).success();
    let listed = stack.ctl(&["--json", "audit-capabilities", &whole]).success().json();
    assert_eq!(listed["steps"][1]["after"][0], "first", "{listed}");
    stack.ctl(&["verify", &whole]).success();
    // A step that is built anew makes the composition another one.
    std::fs::write(dir.path().join("whole/pipeline.yaml"), steps.replace("second", "last")).unwrap();
    sign(&whole).refused(2, "pipeline.json");
    std::fs::write(dir.path().join("whole/pipeline.yaml"), steps).unwrap();

    // The manifest is in order, and there is nothing to run yet.
    stack.ctl(&["explain", &whole]).refused(3, "step_not_loaded");
    stack.ctl(&["executor", "load", &whole]).refused(1, "step_not_loaded");
    stack.ctl(&["executor", "load", &a]).success();
    stack.ctl(&["executor", "load", &b]).success();
    stack.ctl(&["explain", &whole]).success();
    let input = dir.path().join("input");
    std::fs::write(&input, "x").unwrap();
    let ran = stack.ctl(&["--json", "run", &whole, "--input", &text(&input)]).success().json();
    assert_eq!(ran["text"], "bax", "{ran}");

    // Its receipt names those of its steps.
    let instance = ran["instance_id"].as_str().unwrap().to_owned();
    let receipt = receipt(&stack, dir.path(), &instance);
    let steps = receipt["steps"].as_array().unwrap();
    assert_eq!(steps.iter().map(|step| &step["name"]).collect::<Vec<_>>(), ["first", "second"]);
    let first = self::receipt(&stack, dir.path(), steps[0]["instance"].as_str().unwrap());
    assert_eq!((&first["agent"], &first["reason"]), (&"test.a".into(), &"success".into()));
    assert_eq!(first["steps"], Value::Null);

    // It is there after a restart, whatever its steps need to come back.
    assert_eq!(stack.down(), 0);
    stack.restart();
    let deadline = Deadline::after(Duration::from_secs(60));
    while stack.ctl(&["run", "test.whole", "--input", &text(&input)]).code != 0 {
        assert!(!deadline.passed(), "the pipeline did not come back");
    }

    // The signer of one step is revoked: that step's verdict is the pipeline's.
    let record = stack.ctl(&["--json", "pki", "list", "--identity", "gone@example.com"]).success().stdout;
    let record: Value = serde_json::from_str(record.lines().next().unwrap()).unwrap();
    let serial = record["serial"].as_str().unwrap();
    stack.ctl(&["pki", "revoke", "--serial", serial, "--reason", "key-compromise"]).success();
    let deadline = Deadline::after(Duration::from_secs(120));
    while stack.ctl(&["run", "test.whole"]).code == 0 {
        assert!(!deadline.passed(), "the revocation was not published");
    }
    let refused = stack.ctl(&["run", "test.whole"]).refused(3, "revoked");
    assert!(refused.stderr.contains("`second`"), "{refused:?}");
    stack.ctl(&["run", "test.a"]).success();
}

/// The verified receipt of an instance.
fn receipt(stack: &Stack, dir: &Path, instance: &str) -> Value {
    let file = dir.join(format!("{instance}.tlog-proof")).display().to_string();
    let deadline = Deadline::after(Duration::from_secs(60));
    let fetched = loop {
        let fetched = stack.ctl(&["--json", "executor", "receipt", instance, "--output", &file]);
        if fetched.code == 0 {
            break fetched.json();
        }
        assert!(!deadline.passed(), "{fetched:?}");
    };
    let vkey = fetched["log"]["vkeys"][0].as_str().unwrap();
    let verified =
        stack.ctl(&["--json", "executor", "verify-receipt", &file, "--vkey", vkey]).success().json();
    verified["receipt"].clone()
}

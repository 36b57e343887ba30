//! Guests that bring their interpreter along, on an executor of the profile `large`: a table that Python summarises, a text that
//! JavaScript outlines.

use std::path::Path;

use mentat_tests::stack::Stack;
use serde_json::Value;

use crate::toolchain::{Toolchain, make};
use crate::{metrics, ran, release, sdk_folder, signed_and_run, stack};

/// Bytes, with the interpreter and its library.
const LARGEST: u64 = 25_000_000;

/// A stack whose executor has the profile.
fn large(parent: &Path) -> Stack {
    let mut stack = stack(parent);
    assert_eq!(stack.down(), 0);
    let path = stack.dir().join("config/executor.toml");
    let config = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("profile = \"large\"\n{config}")).unwrap();
    stack.restart();
    assert_eq!(stack.executor("/api/v1/status")["profile"], "large-1");
    stack
}

/// Builds, signs and runs an example on its case; its answer, and the stack to ask more of.
fn example(parent: &Path, name: &str, case: &str) -> (Stack, Value) {
    let folder = sdk_folder("examples").join(name);
    make(&folder, &["all"]);
    let stack = large(parent);
    let release = release(parent, name, LARGEST);
    let done = signed_and_run(&stack, &release, &folder.join(case));
    (stack, done)
}

#[test]
fn a_component_made_from_python_is_signed_admitted_and_run() {
    if !Toolchain::Python.is_here("the summary of a table, in Python") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (stack, done) = example(dir.path(), "csv-summary", "case.input.csv");
    let told: Value = serde_json::from_str(done["text"].as_str().unwrap()).unwrap();
    let people = serde_json::json!({ "least": 22000.0, "median": 39000.0, "most": 134000.0 });
    assert_eq!((&told["rows"], &told["columns"]["people"]), (&3.into(), &people));
    assert!(told["columns"]["city"].is_null(), "{told}");
    assert_eq!(metrics(&done), ["rows"]);
    assert_eq!(done["log"][0]["text"], "summarised");
    let input = dir.path().join("input");
    std::fs::write(&input, [0xc0, 0xa2]).unwrap();
    ran(&stack, "mentatlab.csv-summary", &input).refused(1, "it is no table");
}

#[test]
fn a_component_made_from_javascript_is_signed_admitted_and_run() {
    if !Toolchain::JavaScript.is_here("the outline of a text, in JavaScript") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (stack, done) = example(dir.path(), "text-outline", "case.input.md");
    let told: Value = serde_json::from_str(done["text"].as_str().unwrap()).unwrap();
    let expected = serde_json::json!([
        { "level": 1, "title": "One", "words": 4 },
        { "level": 2, "title": "Two", "words": 5 },
    ]);
    assert_eq!(told, expected);
    assert_eq!(metrics(&done), ["headings"]);
    let input = dir.path().join("input");
    std::fs::write(&input, [0xc0, 0xa2]).unwrap();
    ran(&stack, "mentatlab.text-outline", &input).refused(1, "it is no UTF-8");
}

//! The conformance door over standard input, on third-party vectors: the same decisions through the installed program as
//! through the library.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests: a failure must stop with the place it happened"
)]

use std::fmt::Write as _;

use mentat_tests::command::mentatctl_with_input;
use mentat_tests::vectors::vectors;
use serde_json::{Value, json};

#[test]
fn merkle_vectors_are_decided_right_through_the_door() {
    let Some(folder) = vectors("merkle") else { return };
    let mut lines = String::new();
    let mut expected = Vec::new();
    for kind in ["inclusion", "consistency"] {
        for path in files_below(&folder.join(kind)) {
            let case: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            let id = path.display().to_string();
            let field = |name: &str| case.get(name).cloned().unwrap_or(Value::Null);
            let proof = match field("proof") {
                Value::Null => json!([]),
                proof => proof,
            };
            let line = if kind == "inclusion" {
                json!({"id": id, "kind": kind, "leaf_index": field("leafIdx"), "tree_size": field("treeSize"),
                       "leaf_hash": field("leafHash"), "root": field("root"), "proof": proof})
            } else {
                json!({"id": id, "kind": kind, "size1": field("size1"), "size2": field("size2"),
                       "root1": field("root1"), "root2": field("root2"), "proof": proof})
            };
            let _ = writeln!(lines, "{line}");
            expected.push((id, if field("wantErr") == Value::Bool(true) { "invalid" } else { "valid" }));
        }
    }
    assert_eq!(expected.len(), 196, "the corpus has 98 inclusion and 98 consistency records");
    let home = tempfile::tempdir().unwrap();
    let done = mentatctl_with_input(home.path(), ["conformance", "merkle"], lines.as_bytes()).success();
    let answers: Vec<Value> = done.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers.len(), expected.len());
    for (answer, (id, decision)) in answers.iter().zip(&expected) {
        assert_eq!(answer["id"], Value::String(id.clone()));
        assert_eq!(answer["decision"], *decision, "{answer}");
    }
}

fn files_below(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut out = Vec::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display())).flatten() {
            if entry.path().is_dir() {
                open.push(entry.path());
            } else if entry.path().extension().is_some_and(|e| e == "json") {
                out.push(entry.path());
            }
        }
    }
    out.sort();
    out
}

//! The 196 Merkle proof vectors through the conformance door.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    missing_docs,
    reason = "tests"
)]

use crate::vectors;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use trust_store::conformance::decide_merkle;
use trust_store::provider::{Algorithm, InvalidSignature, SignatureVerifier};

struct NoSignatures;

impl SignatureVerifier for NoSignatures {
    fn verify(&self, _: Algorithm, _: &[u8], _: &[u8], _: &[u8]) -> Result<(), InvalidSignature> {
        Err(InvalidSignature)
    }

    fn verify_digest(&self, _: Algorithm, _: &[u8], _: &[u8], _: &[u8]) -> Result<(), InvalidSignature> {
        Err(InvalidSignature)
    }
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "json") {
            found.push(path);
        }
    }
}

#[test]
fn every_case_is_decided_as_expected() {
    let Some(folder) = vectors::folder("merkle") else { return };
    let mut all = Vec::new();
    files(&folder, &mut all);
    assert_eq!(all.len(), 196);
    for path in all {
        let case: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let line = if case.get("leafIdx").is_some() {
            json!({"id": 1, "kind": "inclusion", "leaf_index": case["leafIdx"], "tree_size": case["treeSize"],
                "leaf_hash": case["leafHash"], "root": case["root"], "proof": case["proof"]})
        } else {
            json!({"id": 1, "kind": "consistency", "size1": case["size1"], "size2": case["size2"],
                "root1": case["root1"], "root2": case["root2"], "proof": case["proof"]})
        };
        let answer: Value = serde_json::from_str(&decide_merkle(&line.to_string(), &NoSignatures)).unwrap();
        let expected = if case["wantErr"] == true { "invalid" } else { "valid" };
        assert_eq!(answer["decision"], expected, "{}: {answer}", path.display());
    }
}

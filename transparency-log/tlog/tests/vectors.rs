//! The inclusion and consistency records of transparency-dev/merkle, most of them bad on purpose.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "../../../tests/src/skip.rs"]
mod skip;

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use tlog::{ConsistencyProof, Error, Hash, InclusionProof, LeafHash, TreeHead};

/// The vectors are not part of this repository; `None` is a skip, except where CI says there are none.
fn folder(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("MENTAT_VECTORS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/vectors"), PathBuf::from);
    let folder = root.join("merkle").join(name);
    if folder.is_dir() {
        return Some(folder);
    }
    assert!(
        std::env::var("CI").as_deref() != Ok("true"),
        "vectors are missing: {} (set MENTAT_VECTORS)",
        folder.display()
    );
    skip::skipped(format_args!("no vectors at {} (set MENTAT_VECTORS)", folder.display()));
    None
}

fn records<T: serde::de::DeserializeOwned>(folder: &Path, found: &mut Vec<(PathBuf, T)>) {
    for item in std::fs::read_dir(folder).unwrap() {
        let path = item.unwrap().path();
        if path.is_dir() {
            records(&path, found);
        } else {
            let record = serde_json::from_slice(&std::fs::read(&path).unwrap())
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            found.push((path, record));
        }
    }
}

fn hash(text: &str) -> Result<Hash, Error> {
    Hash::from_slice(&STANDARD.decode(text).unwrap())
}

/// Some records have words in the place of roots. Where a root has 32 bytes by type that is malformed, except that
/// the good record among them ("equal sizes, equal roots") asks for equality only: a word's hash stands for it.
fn roots(one: &str, two: &str) -> Result<(Hash, Hash), Error> {
    match (hash(one), hash(two)) {
        (Err(_), _) if one == two => {
            let root = Hash::digest(one.as_bytes());
            Ok((root, root))
        }
        (one, two) => Ok((one?, two?)),
    }
}

fn hashes(texts: Option<Vec<String>>) -> Result<Vec<Hash>, Error> {
    texts.unwrap_or_default().iter().map(|text| hash(text)).collect()
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Inclusion {
    leaf_idx: u64,
    tree_size: u64,
    root: String,
    leaf_hash: String,
    proof: Option<Vec<String>>,
    desc: String,
    want_err: bool,
}

impl Inclusion {
    fn decide(self) -> Result<(), Error> {
        let head = TreeHead { size: self.tree_size, root: hash(&self.root)? };
        let proof = InclusionProof { leaf_index: self.leaf_idx, path: hashes(self.proof)? };
        let _ = proof.verify(&LeafHash::from_stored(hash(&self.leaf_hash)?), &head)?;
        Ok(())
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Consistency {
    size1: u64,
    size2: u64,
    root1: String,
    root2: String,
    proof: Option<Vec<String>>,
    desc: String,
    want_err: bool,
}

impl Consistency {
    fn decide(self) -> Result<(), Error> {
        let (root1, root2) = roots(&self.root1, &self.root2)?;
        let old = TreeHead { size: self.size1, root: root1 };
        let new = TreeHead { size: self.size2, root: root2 };
        ConsistencyProof { path: hashes(self.proof)? }.verify(&old, &new)
    }
}

#[test]
fn decides_every_inclusion_record() {
    let Some(folder) = folder("inclusion") else { return };
    let mut found: Vec<(PathBuf, Inclusion)> = Vec::new();
    records(&folder, &mut found);
    assert_eq!(found.len(), 98);
    for (path, record) in found {
        let (desc, want) = (record.desc.clone(), record.want_err);
        let verdict = record.decide();
        assert_eq!(verdict.is_err(), want, "{} ({desc}): {verdict:?}", path.display());
    }
}

#[test]
fn decides_every_consistency_record() {
    let Some(folder) = folder("consistency") else { return };
    let mut found: Vec<(PathBuf, Consistency)> = Vec::new();
    records(&folder, &mut found);
    assert_eq!(found.len(), 98);
    for (path, record) in found {
        let (desc, want) = (record.desc.clone(), record.want_err);
        let verdict = record.decide();
        assert_eq!(verdict.is_err(), want, "{} ({desc}): {verdict:?}", path.display());
    }
}

//! `merkle`: does an inclusion or consistency proof hold?

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde::Deserialize;
use tlog::signature::SignatureVerifier;
use tlog::{ConsistencyProof, Hash, InclusionProof, LeafHash, TreeHead};

use super::{answer, binary};
use crate::reason::{Denial, ReasonCode};

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Case {
    Inclusion { leaf_index: u64, tree_size: u64, leaf_hash: String, root: String, proof: Option<Vec<String>> },
    Consistency { size1: u64, size2: u64, root1: String, root2: String, proof: Option<Vec<String>> },
}

/// Decides one line; see [`crate::conformance`]. No signature is involved.
pub fn decide_merkle(line: &str, _: &dyn SignatureVerifier) -> String {
    answer(line, "invalid", |case: Case| {
        let outcome = match case {
            Case::Inclusion { leaf_index, tree_size, leaf_hash, root, proof } => {
                let proof = InclusionProof { leaf_index, path: hashes(proof)? };
                let leaf = LeafHash::from_stored(hash(&leaf_hash)?);
                proof.verify(&leaf, &TreeHead { size: tree_size, root: hash(&root)? }).map(drop)
            }
            // Two trees of one size, not empty, are consistent if their roots are the same octets, whatever those are.
            Case::Consistency { size1, size2, root1, root2, proof }
                if size1 > 0
                    && size1 == size2
                    && root1 == root2
                    && proof.as_ref().is_none_or(Vec::is_empty) =>
            {
                return Ok(("valid", None));
            }
            Case::Consistency { size1, size2, root1, root2, proof } => {
                let old = TreeHead { size: size1, root: hash(&root1)? };
                let new = TreeHead { size: size2, root: hash(&root2)? };
                ConsistencyProof { path: hashes(proof)? }.verify(&old, &new)
            }
        };
        outcome.map_err(|error| Denial::new(ReasonCode::InclusionInvalid, error.to_string()))?;
        Ok(("valid", None))
    })
}

fn hashes(proof: Option<Vec<String>>) -> Result<Vec<Hash>, Denial> {
    proof.unwrap_or_default().iter().map(|text| hash(text)).collect()
}

fn hash(text: &str) -> Result<Hash, Denial> {
    let octets = binary(text, "hash")?;
    Hash::from_slice(&octets)
        .map_err(|error| Denial::new(ReasonCode::Malformed, format!("a hash has a wrong length: {error}")))
}

//! Proofs from the server's proof endpoint: small answers, verified like everything else.

use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::Value;
use tlog::{
    Hash, InclusionProof, LeafHash, SignatureVerifier, VerifiedCheckpoint, VerifiedInclusion, VerifierKey,
};

use crate::client::{JSON_LIMIT, LogClient};
use crate::error::Error;

#[derive(Deserialize)]
struct ProofAnswer {
    leaf_index: u64,
    hashes: Vec<String>,
    checkpoint: String,
}

/// An inclusion proof with the checkpoint it leads to, both verified.
#[derive(Clone, Debug)]
pub struct ProvenEntry {
    /// The proof.
    pub proof: InclusionProof,
    /// What it proves.
    pub inclusion: VerifiedInclusion,
    /// The checkpoint.
    pub checkpoint: VerifiedCheckpoint,
}

impl LogClient {
    /// Asks the server's index (`GET {base}/api/v1/lookup`) for entries by `digest`, `identity`, `serial` or
    /// `publisher`. The answer is the server's word; entries it names are proven with
    /// [`RemoteTree::entry`](crate::RemoteTree::entry). An entry that is not named is not among the first `covered_size` ones; of
    /// the others nothing is said: compare with a checkpoint's size.
    ///
    /// # Errors
    /// [`Error::Status`], [`Error::Answer`] when it is not JSON, and transport errors.
    pub async fn lookup(&self, field: &str, value: &str) -> Result<Value, Error> {
        self.get_query_json("api/v1/lookup", &[(field, value)], "a list of entries").await
    }

    /// As [`Self::lookup`], from this index on: the `next` of the page before.
    ///
    /// # Errors
    /// As [`Self::lookup`].
    pub async fn lookup_from(&self, field: &str, value: &str, from: u64) -> Result<Value, Error> {
        let query = [(field, value), ("from", &*from.to_string())];
        self.get_query_json("api/v1/lookup", &query, "a list of entries").await
    }

    /// The entry at an index as a write would have answered it (`GET {base}/api/v1/entry`), with a fresh proof. Not
    /// verified.
    ///
    /// # Errors
    /// [`Error::Status`], [`Error::Answer`] when it is not JSON, and transport errors.
    pub async fn log_entry(&self, index: u64) -> Result<Value, Error> {
        self.get_query_json("api/v1/entry", &[("index", &index.to_string())], "a log entry in JSON").await
    }

    /// Asks the server where a leaf stands and verifies its answer; `None` when the log does not have the leaf
    /// in its published tree.
    ///
    /// # Errors
    /// As [`VerifiedCheckpoint::open`] and [`InclusionProof::verify`], [`Error::Answer`], and transport errors.
    pub async fn prove_leaf(
        &self,
        leaf: &LeafHash,
        origin: &str,
        keys: &[VerifierKey],
        verifier: &dyn SignatureVerifier,
    ) -> Result<Option<ProvenEntry>, Error> {
        let path = format!("api/v1/proof?leaf={}", leaf.hash());
        let answer = self.get(&path, JSON_LIMIT).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let answer = answer.expect(&[StatusCode::OK])?;
        let answer: ProofAnswer =
            serde_json::from_slice(&answer.body).map_err(|_| Error::Answer { what: "a proof" })?;
        if answer.hashes.len() > tlog::MAX_PROOF_HASHES {
            return Err(Error::Answer { what: "a proof" });
        }
        let checkpoint = VerifiedCheckpoint::open(answer.checkpoint.as_bytes(), origin, keys, verifier)?;
        let path = answer.hashes.iter().map(|hash| Hash::from_base64(hash)).collect::<Result<_, _>>()?;
        let proof = InclusionProof { leaf_index: answer.leaf_index, path };
        let inclusion = proof.verify(leaf, checkpoint.head())?;
        Ok(Some(ProvenEntry { proof, inclusion, checkpoint }))
    }
}

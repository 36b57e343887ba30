//! `TransparencyLogEntry`: what a log answers, and what a bundle carries for each log.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use tlog::Hash;

use crate::error::Error;
use crate::json::{self, Bytes, Int64, null_as_default};

/// Largest single entry that is read, in bytes of JSON.
pub const MAX_ENTRY_BYTES: usize = 1 << 20;
/// A tree of 2^63 leaves has proofs of at most 63 hashes.
pub const MAX_PROOF_HASHES: usize = 63;

/// An entry of a log with the evidence that it is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Wire", into = "Wire")]
pub struct TransparencyLogEntry {
    /// Index of the entry. Informative: the proof's index and the verified checkpoint decide.
    pub log_index: u64,
    /// `logId.keyId`: for a Rekor v2 log the full 32-byte checkpoint key id.
    pub log_id: Vec<u8>,
    /// Kind of the body, for example `hashedrekord`.
    pub kind: String,
    /// Version of the kind, for example `0.0.2`.
    pub version: String,
    /// Time of integration in seconds as the log claims it: 0 in Rekor v2; in v1 it counts only with a verified promise.
    pub integrated_time: i64,
    /// Signed entry timestamp of Rekor v1.
    pub inclusion_promise: Option<Vec<u8>>,
    /// Inclusion proof with the checkpoint it leads to.
    pub inclusion_proof: Option<InclusionEvidence>,
    /// The leaf: its hash is SHA-256(0x00 ‖ body).
    pub canonicalized_body: Vec<u8>,
}

/// An inclusion proof and the signed checkpoint it refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InclusionEvidence {
    /// Index of the leaf in the tree.
    pub log_index: u64,
    /// Root hash the sender computed; a verifier takes the checkpoint's.
    pub root_hash: Hash,
    /// Tree size the sender used; a verifier takes the checkpoint's.
    pub tree_size: u64,
    /// The proof, leaf side first.
    pub hashes: Vec<Hash>,
    /// The checkpoint: a signed note.
    pub checkpoint: String,
}

impl TransparencyLogEntry {
    /// Reads one entry, as a log answers it.
    ///
    /// # Errors
    /// [`Error::TooLarge`] over [`MAX_ENTRY_BYTES`], else [`Error::Malformed`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        json::parse("transparency log entry", bytes, MAX_ENTRY_BYTES)
    }

    /// Writes the entry as a log answers it.
    ///
    /// # Errors
    /// None in practice; see [`json::write`].
    pub fn to_json(&self) -> Result<Vec<u8>, Error> {
        json::write("transparency log entry", self)
    }
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Wire {
    #[serde(alias = "log_index", default, deserialize_with = "null_as_default")]
    log_index: Int64,
    #[serde(alias = "log_id")]
    log_id: LogId,
    #[serde(alias = "kind_version")]
    kind_version: KindVersion,
    #[serde(alias = "integrated_time", default, deserialize_with = "null_as_default")]
    integrated_time: Int64,
    #[serde(alias = "inclusion_promise", default, skip_serializing_if = "Option::is_none")]
    inclusion_promise: Option<InclusionPromise>,
    #[serde(alias = "inclusion_proof", default, skip_serializing_if = "Option::is_none")]
    inclusion_proof: Option<WireProof>,
    #[serde(alias = "canonicalized_body", default, deserialize_with = "null_as_default")]
    canonicalized_body: Bytes,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct LogId {
    #[serde(alias = "key_id")]
    pub(crate) key_id: Bytes,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KindVersion {
    kind: String,
    version: String,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct InclusionPromise {
    #[serde(alias = "signed_entry_timestamp")]
    signed_entry_timestamp: Bytes,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct WireProof {
    #[serde(alias = "log_index", default, deserialize_with = "null_as_default")]
    log_index: Int64,
    #[serde(alias = "root_hash")]
    root_hash: Bytes,
    #[serde(alias = "tree_size")]
    tree_size: Int64,
    #[serde(default, deserialize_with = "null_as_default")]
    hashes: Vec<Bytes>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    checkpoint: Option<Checkpoint>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Checkpoint {
    envelope: String,
}

impl TryFrom<Wire> for TransparencyLogEntry {
    type Error = Error;

    fn try_from(wire: Wire) -> Result<Self, Error> {
        Ok(Self {
            log_index: unsigned(wire.log_index)?,
            log_id: wire.log_id.key_id.0,
            kind: wire.kind_version.kind,
            version: wire.kind_version.version,
            integrated_time: wire.integrated_time.0,
            inclusion_promise: wire.inclusion_promise.map(|promise| promise.signed_entry_timestamp.0),
            inclusion_proof: match wire.inclusion_proof {
                Some(proof) => InclusionEvidence::from_wire(proof)?,
                None => None,
            },
            canonicalized_body: wire.canonicalized_body.0,
        })
    }
}

impl InclusionEvidence {
    /// Bundles of version 0.1 carry proofs without checkpoint. Those prove nothing and count as none: the entry's promise decides,
    /// where the version lets one suffice.
    fn from_wire(wire: WireProof) -> Result<Option<Self>, Error> {
        let Some(checkpoint) = wire.checkpoint else { return Ok(None) };
        if wire.hashes.len() > MAX_PROOF_HASHES {
            return Err(Error::TooLarge { what: "inclusion proof", limit: MAX_PROOF_HASHES });
        }
        Ok(Some(Self {
            log_index: unsigned(wire.log_index)?,
            root_hash: hash(wire.root_hash)?,
            tree_size: unsigned(wire.tree_size)?,
            hashes: wire.hashes.into_iter().map(hash).collect::<Result<_, _>>()?,
            checkpoint: checkpoint.envelope,
        }))
    }
}

impl From<TransparencyLogEntry> for Wire {
    fn from(entry: TransparencyLogEntry) -> Self {
        Self {
            log_index: signed(entry.log_index),
            log_id: LogId { key_id: Bytes(entry.log_id) },
            kind_version: KindVersion { kind: entry.kind, version: entry.version },
            integrated_time: Int64(entry.integrated_time),
            inclusion_promise: entry
                .inclusion_promise
                .map(|promise| InclusionPromise { signed_entry_timestamp: Bytes(promise) }),
            inclusion_proof: entry.inclusion_proof.map(|proof| WireProof {
                log_index: signed(proof.log_index),
                root_hash: Bytes(proof.root_hash.0.to_vec()),
                tree_size: signed(proof.tree_size),
                hashes: proof.hashes.into_iter().map(|hash| Bytes(hash.0.to_vec())).collect(),
                checkpoint: Some(Checkpoint { envelope: proof.checkpoint }),
            }),
            canonicalized_body: Bytes(entry.canonicalized_body),
        }
    }
}

fn unsigned(value: Int64) -> Result<u64, Error> {
    u64::try_from(value.0).map_err(|_| Error::malformed("transparency log entry", "negative index or size"))
}

/// Indices and sizes never exceed 2^63-1 (the reader refuses more); a larger value made by hand saturates.
fn signed(value: u64) -> Int64 {
    Int64(i64::try_from(value).unwrap_or(i64::MAX))
}

fn hash(bytes: Bytes) -> Result<Hash, Error> {
    let array: [u8; 32] = bytes
        .0
        .try_into()
        .map_err(|_| Error::malformed("transparency log entry", "a hash is not 32 bytes"))?;
    Ok(Hash(array))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> TransparencyLogEntry {
        TransparencyLogEntry {
            log_index: 3,
            log_id: [9; 32].to_vec(),
            kind: "hashedrekord".into(),
            version: "0.0.2".into(),
            integrated_time: 0,
            inclusion_promise: None,
            inclusion_proof: Some(InclusionEvidence {
                log_index: 3,
                root_hash: Hash([1; 32]),
                tree_size: 4,
                hashes: alloc::vec![Hash([2; 32])],
                checkpoint: "o\n4\n".into(),
            }),
            canonicalized_body: b"{}".to_vec(),
        }
    }

    #[test]
    fn answer_is_frozen_and_read_back() {
        let text = String::from_utf8(entry().to_json().unwrap()).unwrap();
        assert_eq!(
            text,
            concat!(
                r#"{"logIndex":"3","logId":{"keyId":"CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk="},"#,
                r#""kindVersion":{"kind":"hashedrekord","version":"0.0.2"},"integratedTime":"0","inclusionProof":"#,
                r#"{"logIndex":"3","rootHash":"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=","treeSize":"4","#,
                r#""hashes":["AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI="],"checkpoint":{"envelope":"o\n4\n"}},"#,
                r#""canonicalizedBody":"e30="}"#
            )
        );
        assert_eq!(TransparencyLogEntry::parse(text.as_bytes()).unwrap(), entry());
    }

    #[test]
    fn a_proof_without_checkpoint_counts_as_none() {
        let text = String::from_utf8(entry().to_json().unwrap()).unwrap();
        for without in ["", ",\"checkpoint\":null"] {
            let old = text.replace(",\"checkpoint\":{\"envelope\":\"o\\n4\\n\"}", without);
            assert_ne!(old, text);
            assert_eq!(TransparencyLogEntry::parse(old.as_bytes()).unwrap().inclusion_proof, None);
        }
    }

    #[test]
    fn refuses_unknown_fields_short_hashes_and_negative_numbers() {
        let text = String::from_utf8(entry().to_json().unwrap()).unwrap();
        for bad in [
            text.replace("\"logId\"", "\"extra\":0,\"logId\""),
            text.replace("AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=", "AgI="),
            text.replace("\"treeSize\":\"4\"", "\"treeSize\":\"-4\""),
        ] {
            assert!(TransparencyLogEntry::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        let null =
            text.replace("\"integratedTime\":\"0\"", "\"integratedTime\":null,\"inclusionPromise\":null");
        assert_eq!(TransparencyLogEntry::parse(null.as_bytes()).unwrap(), entry());
    }
}

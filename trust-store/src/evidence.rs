//! Evidence that does not travel with an artifact: revocation data, newer checkpoints, remembered tree heads.
//!
//! Nothing here is trusted: a verifier checks every piece exactly as it checks the attestation's. Evidence is collected
//! by whoever has a network and handed over as a value, or as one file for a machine without ([`mod@signed`]).

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use tlog::{ConsistencyProof, Hash, InclusionProof, TreeHead};

use crate::attestation::Attestation;
use crate::crl::Crl;
use crate::error::Error;
use crate::json::{self, Bytes, Int64};
use crate::ocsp::OcspResponse;
use crate::reason::Denial;
use crate::revocation::RevocationEvidence;

pub mod signed;

/// Largest evidence file, in bytes.
pub const MAX_EVIDENCE_BYTES: usize = 64 << 20;
/// Most pieces of one kind.
pub const MAX_PIECES: usize = 4096;
/// Most checkpoints of one log that a verification looks at, newest first.
pub const MAX_CHECKPOINTS: usize = 8;

/// Evidence for one or many verifications. CRLs and OCSP responses are parsed when they are added.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    revocation: RevocationEvidence,
    logs: Vec<LogEvidence>,
    remembered: Vec<RememberedHead>,
}

/// The file form.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: Version,
    /// DER.
    #[serde(default)]
    crls: Vec<Bytes>,
    /// DER.
    #[serde(default)]
    ocsp: Vec<Bytes>,
    #[serde(default)]
    logs: Vec<LogEvidence>,
    #[serde(default)]
    remembered: Vec<RememberedHead>,
}

/// Version of the file form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Version;

impl Serialize for Version {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(1)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u8::deserialize(deserializer)? {
            1 => Ok(Self),
            other => Err(serde::de::Error::custom(alloc::format!(
                "evidence version {other}; this version reads 1"
            ))),
        }
    }
}

/// What is known of one log beyond the attestation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogEvidence {
    /// Origin of the log.
    pub origin: String,
    /// Signed notes of checkpoints, as the log or a witness served them.
    #[serde(default)]
    pub checkpoints: Vec<String>,
    /// Consistency proofs between sizes.
    #[serde(default)]
    pub consistency: Vec<ConsistencyEvidence>,
    /// Inclusion proofs of entries in one of the checkpoints.
    #[serde(default)]
    pub inclusion: Vec<InclusionEvidence>,
}

/// A consistency proof.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsistencyEvidence {
    from: Int64,
    to: Int64,
    hashes: Vec<Bytes>,
}

/// An inclusion proof of an entry in a tree of the given size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InclusionEvidence {
    index: Int64,
    size: Int64,
    hashes: Vec<Bytes>,
}

/// A tree head that was accepted before; every later one must be consistent with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RememberedHead {
    /// Origin of the log.
    pub origin: String,
    /// `logId` of its key: a log with a new key is a new log.
    pub log_id: Bytes,
    size: Int64,
    root: Bytes,
}

impl Evidence {
    /// No evidence at all.
    pub fn none() -> Self {
        Self::default()
    }

    /// Reads the file form: JSON.
    ///
    /// # Errors
    /// `too_large` over [`MAX_EVIDENCE_BYTES`] or [`MAX_PIECES`], else `malformed`, also for a CRL or OCSP response that
    /// cannot be read.
    pub fn parse(bytes: &[u8]) -> Result<Self, Denial> {
        Self::from_file(json::parse("evidence", bytes, MAX_EVIDENCE_BYTES)?)
    }

    fn from_file(evidence: File) -> Result<Self, Denial> {
        let counts =
            [evidence.crls.len(), evidence.ocsp.len(), evidence.logs.len(), evidence.remembered.len()];
        let of_logs = evidence
            .logs
            .iter()
            .flat_map(|log| [log.checkpoints.len(), log.consistency.len(), log.inclusion.len()]);
        if counts.into_iter().chain(of_logs).any(|count| count > MAX_PIECES) {
            return Err(Error::TooLarge { what: "list of evidence", limit: MAX_PIECES }.into());
        }
        let crls = evidence.crls.iter().map(|der| Crl::from_der(&der.0)).collect::<Result<_, _>>()?;
        let ocsp =
            evidence.ocsp.iter().map(|der| OcspResponse::from_der(&der.0)).collect::<Result<_, _>>()?;
        let revocation = RevocationEvidence { crls, ocsp, ..RevocationEvidence::default() };
        Ok(Self { revocation, logs: evidence.logs, remembered: evidence.remembered })
    }

    /// Writes the file form.
    ///
    /// # Errors
    /// None in practice; see [`json::write`].
    pub fn to_json(&self) -> Result<Vec<u8>, Error> {
        json::write_pretty("evidence", &self.to_file())
    }

    fn to_file(&self) -> File {
        File {
            version: Version,
            crls: self.revocation.crls.iter().map(|crl| Bytes(crl.der().to_vec())).collect(),
            ocsp: self
                .revocation
                .ocsp
                .iter()
                .chain(self.revocation.answers.iter())
                .map(|response| Bytes(response.der().to_vec()))
                .collect(),
            logs: self.logs.clone(),
            remembered: self.remembered.clone(),
        }
    }

    /// CRLs and OCSP responses.
    pub fn revocation(&self) -> &RevocationEvidence {
        &self.revocation
    }

    /// CRLs and OCSP responses, to be replaced by newer ones.
    pub fn revocation_mut(&mut self) -> &mut RevocationEvidence {
        &mut self.revocation
    }

    /// The evidence of every log.
    pub fn logs(&self) -> &[LogEvidence] {
        &self.logs
    }

    /// Every remembered head.
    pub fn remembered(&self) -> &[RememberedHead] {
        &self.remembered
    }

    /// Adds a CRL, DER.
    ///
    /// # Errors
    /// Those of [`Crl::from_der`].
    pub fn add_crl(&mut self, der: &[u8]) -> Result<(), Denial> {
        self.revocation.crls.push(Crl::from_der(der)?);
        Ok(())
    }

    /// Adds an OCSP response, DER.
    ///
    /// # Errors
    /// Those of [`OcspResponse::from_der`].
    pub fn add_ocsp(&mut self, der: &[u8]) -> Result<(), Denial> {
        self.revocation.ocsp.push(OcspResponse::from_der(der)?);
        Ok(())
    }

    /// The revocation evidence together with what an attestation staples. Copying it counts references.
    pub(crate) fn with_staples(&self, attestation: &Attestation) -> RevocationEvidence {
        let mut all = self.revocation.clone();
        all.crls.extend_from_slice(&attestation.stapled.crls);
        all.ocsp.extend_from_slice(&attestation.stapled.ocsp);
        all
    }

    /// The evidence of one log, made if it is not there yet.
    pub fn log_mut(&mut self, origin: &str) -> &mut LogEvidence {
        let index = self.logs.iter().position(|log| log.origin == origin).unwrap_or_else(|| {
            self.logs.push(LogEvidence {
                origin: origin.into(),
                checkpoints: Vec::new(),
                consistency: Vec::new(),
                inclusion: Vec::new(),
            });
            self.logs.len() - 1
        });
        #[allow(clippy::indexing_slicing, reason = "the position was found or just pushed")]
        &mut self.logs[index]
    }

    /// Remembers a head that was accepted; one head is kept for each log, the largest.
    pub fn remember(&mut self, origin: &str, log_id: &[u8], head: &TreeHead) {
        let known =
            self.remembered.iter_mut().find(|known| known.origin == origin && known.log_id.0 == log_id);
        match known {
            Some(known) if known.head().is_some_and(|old| old.size >= head.size) => {}
            Some(known) => *known = RememberedHead::new(origin, log_id, head),
            None => self.remembered.push(RememberedHead::new(origin, log_id, head)),
        }
    }

    /// The evidence of one log, if there is any.
    pub fn log(&self, origin: &str) -> Option<&LogEvidence> {
        self.logs.iter().find(|log| log.origin == origin)
    }

    /// The head remembered for a log.
    pub fn remembered_head(&self, origin: &str, log_id: &[u8]) -> Option<TreeHead> {
        let known = self.remembered.iter().filter(|known| known.origin == origin && known.log_id.0 == log_id);
        known.filter_map(RememberedHead::head).max_by_key(|head| head.size)
    }
}

impl LogEvidence {
    /// Adds what somebody else knows of the same log; his checkpoints are then looked at before those that are here.
    pub fn extend(&mut self, newer: &Self) {
        self.checkpoints.extend_from_slice(&newer.checkpoints);
        self.consistency.extend_from_slice(&newer.consistency);
        self.inclusion.extend_from_slice(&newer.inclusion);
    }

    /// Adds a checkpoint, a signed note.
    pub fn add_checkpoint(&mut self, note: &str) {
        self.checkpoints.push(note.into());
    }

    /// Adds a consistency proof from the tree of size `from` to that of size `to`.
    pub fn add_consistency(&mut self, from: u64, to: u64, proof: &ConsistencyProof) {
        let hashes = proof.path.iter().map(|hash| Bytes(hash.0.to_vec())).collect();
        self.consistency.push(ConsistencyEvidence { from: signed(from), to: signed(to), hashes });
    }

    /// Adds an inclusion proof of an entry in the tree of size `size`.
    pub fn add_inclusion(&mut self, size: u64, proof: &InclusionProof) {
        let hashes = proof.path.iter().map(|hash| Bytes(hash.0.to_vec())).collect();
        self.inclusion.push(InclusionEvidence {
            index: signed(proof.leaf_index),
            size: signed(size),
            hashes,
        });
    }

    /// The consistency proofs between two sizes. None of them needs to be true: one that verifies is enough, and one
    /// that does not shows nothing.
    pub fn consistency(&self, from: u64, to: u64) -> impl Iterator<Item = ConsistencyProof> {
        let sizes = (signed(from), signed(to));
        let found = self.consistency.iter().filter(move |proof| (proof.from, proof.to) == sizes);
        found.filter_map(|proof| Some(ConsistencyProof { path: hashes(&proof.hashes)? }))
    }

    /// The inclusion proofs of an index in the tree of a size; as little to be believed.
    pub fn inclusion(&self, index: u64, size: u64) -> impl Iterator<Item = InclusionProof> {
        let place = (signed(index), signed(size));
        let found = self.inclusion.iter().filter(move |proof| (proof.index, proof.size) == place);
        found
            .filter_map(move |proof| Some(InclusionProof { leaf_index: index, path: hashes(&proof.hashes)? }))
    }
}

impl RememberedHead {
    /// A head of a log.
    pub fn new(origin: &str, log_id: &[u8], head: &TreeHead) -> Self {
        Self {
            origin: origin.into(),
            log_id: Bytes(log_id.to_vec()),
            size: signed(head.size),
            root: Bytes(head.root.0.to_vec()),
        }
    }

    /// The head; `None` if what was read is no head.
    pub fn head(&self) -> Option<TreeHead> {
        let root = Hash(self.root.0.as_slice().try_into().ok()?);
        Some(TreeHead { size: u64::try_from(self.size.0).ok()?, root })
    }
}

fn signed(value: u64) -> Int64 {
    Int64(i64::try_from(value).unwrap_or(i64::MAX))
}

fn hashes(list: &[Bytes]) -> Option<Vec<Hash>> {
    list.iter().map(|bytes| Some(Hash(bytes.0.as_slice().try_into().ok()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_form_is_frozen_and_read_back() {
        let mut evidence = Evidence::none();
        let log = evidence.log_mut("o");
        log.add_checkpoint("note");
        log.add_consistency(1, 2, &ConsistencyProof { path: alloc::vec![Hash([0; 32])] });
        log.add_inclusion(2, &InclusionProof { leaf_index: 1, path: Vec::new() });
        evidence.remember("o", &[1], &TreeHead { size: 2, root: Hash([0; 32]) });
        let zero = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        let expected = alloc::format!(
            concat!(
                r#"{{"version":1,"crls":[],"ocsp":[],"logs":[{{"origin":"o","checkpoints":["note"],"#,
                r#""consistency":[{{"from":"1","to":"2","hashes":["{0}"]}}],"#,
                r#""inclusion":[{{"index":"1","size":"2","hashes":[]}}]}}],"#,
                r#""remembered":[{{"origin":"o","log_id":"AQ==","size":"2","root":"{0}"}}]}}"#
            ),
            zero
        );
        let compact = json::parse::<json::Value>("x", &evidence.to_json().unwrap(), 9999).unwrap();
        assert_eq!(compact, json::parse::<json::Value>("x", expected.as_bytes(), 9999).unwrap());
        let read = Evidence::parse(expected.as_bytes()).unwrap();
        assert_eq!((read.logs(), read.remembered()), (evidence.logs(), evidence.remembered()));
        assert!(Evidence::parse(expected.replace("\"version\":1", "\"version\":2").as_bytes()).is_err());
        assert!(Evidence::parse(expected.replace("\"crls\"", "\"crl\"").as_bytes()).is_err());
    }

    #[test]
    fn remembers_the_largest_head_of_each_key() {
        let mut evidence = Evidence::none();
        let head = |size| TreeHead { size, root: Hash([u8::try_from(size).unwrap(); 32]) };
        for size in [3, 5, 4] {
            evidence.remember("o", &[1], &head(size));
        }
        evidence.remember("o", &[2], &head(1));
        assert_eq!(evidence.remembered_head("o", &[1]), Some(head(5)));
        assert_eq!(evidence.remembered_head("o", &[2]), Some(head(1)));
        assert_eq!(evidence.remembered_head("p", &[1]), None);
        assert_eq!(evidence.remembered().len(), 2);
    }

    #[test]
    fn finds_proofs_by_their_sizes() {
        let mut evidence = Evidence::none();
        let proof = ConsistencyProof { path: alloc::vec![Hash([7; 32])] };
        evidence.log_mut("o").add_consistency(3, 9, &proof);
        assert_eq!(evidence.log("o").unwrap().consistency(3, 9).collect::<Vec<_>>(), [proof]);
        assert_eq!(evidence.log("o").unwrap().consistency(3, 8).count(), 0);
        assert!(evidence.log("p").is_none());
    }
}

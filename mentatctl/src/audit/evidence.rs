//! The evidence of a report: entries of logs with their proofs, records of executors' audit logs, as they are. What the
//! report says is computed from it (`crate::audit::account`), by who writes it and by who verifies it.
//!
//! The form is durable: `docs/formats/audit-report.md`.

use serde::{Deserialize, Serialize};
use tlog::{
    CompactRange, ConsistencyProof, Hash, InclusionProof, LeafHash, MAX_PROOF_HASHES, TreeHead,
    VerifiedCheckpoint, VerifierKey,
};
use trust_store::UnixTime;
use trust_store::event::EventRules;
use trust_store::json::Bytes;
use trust_store::provider::AwsLc;

use crate::exit::{Exit, Failure, Outcome};
use crate::log::record::leaf_of;

/// Most entries of one log in one report: each stands there with its proof. Of an event log that has more, the newest so
/// many stand there, and older ones as far as the account needs them; only others may stand there by their leaf hashes.
pub const MOST: usize = 50_000;

/// The period of a report: from inclusive, to exclusive, RFC 3339.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Period {
    /// First second.
    pub from: String,
    /// First second after.
    pub to: String,
}

impl Period {
    /// Both ends.
    ///
    /// # Errors
    /// Exit code 3 when they are no times, or not in order.
    pub fn bounds(&self) -> Outcome<(UnixTime, UnixTime)> {
        let time =
            |text: &str| UnixTime::from_rfc3339(text).ok_or_else(|| refused("the period is not two times"));
        let (from, to) = (time(&self.from)?, time(&self.to)?);
        if from >= to { Err(refused("the period is empty")) } else { Ok((from, to)) }
    }
}

/// One log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct LogEvidence {
    /// `signing`, `issuance` or `event`.
    pub kind: String,
    /// First line of its checkpoints.
    pub origin: String,
    /// The checkpoint that all proofs lead to.
    pub checkpoint: String,
    /// Entries that are in the report without a gap: `[start, end)`.
    pub start: u64,
    /// One past the last of them.
    pub end: u64,
    /// Checkpoint that was seen at or before the period's beginning; its size is `start`. Signing log only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_before: Option<SeenCheckpoint>,
    /// Checkpoint that was seen at or after the period's end; its size is `end`. Signing log only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_after: Option<SeenCheckpoint>,
    /// All entries of the range, and others that the account needs, by index.
    pub entries: Vec<EntryEvidence>,
    /// Leaf hashes of the entries of the range that are not in `entries`, in order. Event log only: with them the root is
    /// computed from all leaves, and no entry has a proof of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leaves: Vec<String>,
}

/// An older checkpoint with the proof that the log has grown from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct SeenCheckpoint {
    /// When the auditor saw it, by the auditor's clock, RFC 3339.
    pub time: String,
    /// The signed note.
    pub checkpoint: String,
    /// Consistency proof to the report's checkpoint.
    pub consistency: Vec<String>,
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct EntryEvidence {
    /// Its index.
    pub index: u64,
    /// Its bytes as the log serves them.
    pub entry: Bytes,
    /// Inclusion proof, leaf side first.
    pub inclusion: Vec<String>,
}

/// Records of one executor's audit log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ExecutorEvidence {
    /// Name that the auditor gave it.
    pub name: String,
    /// Sequence and hash of the last record that was read: the whole chain was checked up to it.
    pub last_sequence: u64,
    /// As above, hexadecimal.
    pub last_hash: String,
    /// What is wrong with the chain behind that record, if anything is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broken: Option<String>,
    /// The admissions of the period, each line as it stands in the file.
    pub admissions: Vec<String>,
}

/// Everything a report rests on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Evidence {
    /// Who is believed about which type of event. Empty: no event's signature was checked.
    pub event_rules: EventRules,
    /// The logs: issuance, signing, event.
    pub logs: Vec<LogEvidence>,
    /// The executors.
    pub executors: Vec<ExecutorEvidence>,
}

impl Evidence {
    /// The log of a kind.
    ///
    /// # Errors
    /// Exit code 3 when the report has none, or two.
    pub fn log(&self, kind: &str) -> Outcome<&LogEvidence> {
        let mut found = self.logs.iter().filter(|log| log.kind == kind);
        match (found.next(), found.next()) {
            (Some(log), None) => Ok(log),
            _ => Err(refused(&format!("the report has not exactly one {kind} log"))),
        }
    }
}

impl LogEvidence {
    /// Verifies checkpoints, every proof, and that the range has no gap.
    ///
    /// # Errors
    /// Exit code 3 with what does not hold.
    pub fn verify(&self, keys: &[VerifierKey], period: &Period) -> Outcome<()> {
        self.verify_with(keys, period, MOST as u64)
    }

    /// As [`verify`](Self::verify), where the newest `newest` events must stand there whole.
    pub(super) fn verify_with(&self, keys: &[VerifierKey], period: &Period, newest: u64) -> Outcome<()> {
        let open = |note: &str| {
            VerifiedCheckpoint::open(note.as_bytes(), &self.origin, keys, &AwsLc).map_err(|error| {
                refused(&format!("the checkpoint of {}: {error}", self.origin)).code(error.code())
            })
        };
        let head = *open(&self.checkpoint)?.head();
        if self.start > self.end || self.end > head.size {
            return Err(refused(&format!("the range of {} is not in its tree", self.origin)));
        }
        let (from, to) = period.bounds()?;
        if let Some(seen) = &self.seen_before {
            let old = seen.verify(&head, *open(&seen.checkpoint)?.head())?;
            if old != self.start || seen.at()? > from {
                return Err(refused("the range does not begin with the checkpoint seen before the period"));
            }
        }
        if let Some(seen) = &self.seen_after {
            let old = seen.verify(&head, *open(&seen.checkpoint)?.head())?;
            if old != self.end || seen.at()? < to {
                return Err(refused("the range does not end with the checkpoint seen after the period"));
            }
        }
        self.verify_ends(head.size)?;
        if !self.leaves.is_empty() {
            return self.verify_whole(&head, newest);
        }
        let mut next = self.start;
        let mut last = None;
        for entry in &self.entries {
            if last.is_some_and(|last| entry.index <= last) {
                return Err(refused(&format!("the entries of {} are not in order", self.origin)));
            }
            last = Some(entry.index);
            if entry.index == next && next < self.end {
                next += 1;
            }
            entry.verify(&self.kind, &head).map_err(|code| {
                refused(&format!("entry {} of {} is not proven", entry.index, self.origin)).code(code)
            })?;
        }
        if next != self.end {
            return Err(refused(&format!("entry {next} of {} is missing", self.origin)));
        }
        Ok(())
    }
}

impl LogEvidence {
    /// The range has the ends that its kind demands: whatever a report leaves out must be outside the period.
    fn verify_ends(&self, size: u64) -> Outcome<()> {
        let has = |index: u64| self.entries.binary_search_by_key(&index, |entry| entry.index).is_ok();
        let (begins, ends) = match self.kind.as_str() {
            // The neighbours' times show it; the account compares them with the period.
            "issuance" => (self.start.checked_sub(1).is_none_or(has), self.end == size || has(self.end)),
            "signing" => {
                (self.start == 0 || self.seen_before.is_some(), self.end == size || self.seen_after.is_some())
            }
            _ => (self.start == 0, self.end == size),
        };
        if begins && ends {
            return Ok(());
        }
        Err(refused(&format!("the range of {} does not cover the period", self.origin)))
    }
}

impl LogEvidence {
    /// A tree of which all leaves are known has the root that was signed: those of the entries by their bytes, the others
    /// by their hashes. These are older than the newest `newest`: none where there are no more than so many.
    fn verify_whole(&self, head: &TreeHead, newest: u64) -> Outcome<()> {
        let not_whole = || refused(&format!("entries and leaves of {} are not the whole tree", self.origin));
        let count = (self.entries.len() as u64).saturating_add(self.leaves.len() as u64);
        if self.kind != "event" || count != head.size {
            return Err(not_whole());
        }
        let (mut range, mut entries, mut leaves) =
            (CompactRange::new(), self.entries.iter().peekable(), self.leaves.iter());
        for index in 0..head.size {
            let leaf = match entries.next_if(|entry| entry.index == index) {
                Some(entry) if entry.inclusion.is_empty() => {
                    leaf_of(&self.kind, &entry.entry.0).map_err(|_| not_whole())?
                }
                Some(_) => return Err(not_whole()),
                None if index >= head.size.saturating_sub(newest) => {
                    return Err(refused(&format!(
                        "entry {index} of {} stands in the report by its hash only, although it is one of the newest {newest}",
                        self.origin
                    )));
                }
                None => {
                    let leaf = leaves.next().and_then(|leaf| Hash::from_base64(leaf).ok());
                    LeafHash::from_stored(leaf.ok_or_else(not_whole)?)
                }
            };
            range.push(leaf);
        }
        if range.root() == head.root {
            return Ok(());
        }
        Err(refused(&format!("the events of {} do not have the root that was signed", self.origin))
            .code("inclusion_invalid"))
    }
}

impl SeenCheckpoint {
    fn at(&self) -> Outcome<UnixTime> {
        UnixTime::from_rfc3339(&self.time).ok_or_else(|| refused("the time of a checkpoint is no time"))
    }

    /// Proves that the log has grown from it; returns its size.
    fn verify(&self, head: &TreeHead, old: TreeHead) -> Outcome<u64> {
        let path = hashes(&self.consistency).map_err(refused)?;
        ConsistencyProof { path }
            .verify(&old, head)
            .map_err(|error| refused("a checkpoint seen earlier is of another history").code(error.code()))?;
        Ok(old.size)
    }
}

impl EntryEvidence {
    fn verify(&self, kind: &str, head: &TreeHead) -> Result<(), &'static str> {
        let leaf = leaf_of(kind, &self.entry.0).map_err(|_| "malformed")?;
        let path = hashes(&self.inclusion).map_err(|_| "malformed")?;
        let proof = InclusionProof { leaf_index: self.index, path };
        proof.verify(&leaf, head).map(|_| ()).map_err(|error| error.code())
    }
}

fn hashes(texts: &[String]) -> Result<Vec<Hash>, &'static str> {
    if texts.len() > MAX_PROOF_HASHES {
        return Err("a proof is too long");
    }
    texts.iter().map(|text| Hash::from_base64(text).map_err(|_| "a proof holds what is no hash")).collect()
}

/// A report that is not what it says.
pub fn refused(what: &str) -> Failure {
    Failure::new(Exit::Denied, what).code("report_invalid")
}

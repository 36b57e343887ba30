//! Steps 8 and 9: the signature stands in a trusted log.

use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;

use tlog::note::{Note, VerifierKey};
use tlog::{Checkpoint, InclusionProof, LeafHash, TreeHead, VerifiedCheckpoint, leaf_hash};

use super::content::{Signer, VerifiedSignature};
use super::log_view::{LogView, OpenedCheckpoint};
use super::signing_time::SigningTimes;
use super::{Part, Session, denied};
use crate::bundle::BundleVersion;
use crate::entry_body::Expected;
use crate::log_entry::TransparencyLogEntry;
use crate::policy::WitnessPolicy;
use crate::reason::{Denial, ReasonCode};
use crate::rekor_v1;
use crate::time::UnixTime;
use crate::trust_material::TrustedLog;

/// Entries that describe the signature and lead to the head of the checkpoint they carry. The checkpoints are not
/// verified yet.
pub(super) struct IncludedEntries<'a>(Vec<IncludedEntry<'a>>);

struct IncludedEntry<'a> {
    entry: &'a TransparencyLogEntry,
    leaf: LeafHash,
    index: u64,
    /// The checkpoint that the proof leads to; `None` for an entry with nothing but a signed timestamp.
    claimed: Option<Claimed>,
}

/// A checkpoint that was read and not verified.
struct Claimed {
    note: Note,
    head: TreeHead,
}

impl Session<'_> {
    /// Step 8: every entry is this signature's, none of another one rides along, and each is proven to be in the tree
    /// of its checkpoint.
    pub(super) fn step_8_inclusion<'p>(
        &self,
        part: &Part<'p>,
        signature: &VerifiedSignature<'_>,
    ) -> Result<IncludedEntries<'p>, Denial> {
        let (verifier, details) = match signature.signer {
            Signer::Certificate(certificate) => (certificate.der(), signature.details),
            Signer::Key(key) => (key.spki.as_slice(), signature.details),
        };
        let expected = Expected { bundle: part.bundle, digest: &self.digest, details, verifier };
        let entries = &part.bundle.log_entries;
        let some = if entries.is_empty() {
            let detail = "the bundle holds no log entry; `logs.threshold` demands one: record the signature with `mentatctl log submit`, or sign again";
            Err(denied(ReasonCode::InclusionMissing, detail))
        } else {
            Ok(())
        };
        self.enforce(8, some)?;
        entries.iter().try_for_each(|entry| self.enforce(8, expected.matches(entry)))?;
        let mut included = Vec::with_capacity(entries.len());
        for entry in entries {
            let leaf = leaf_hash(&entry.canonicalized_body);
            let (claimed, result) = inclusion(entry, &leaf, part.bundle.version);
            self.enforce(8, result)?;
            let index = entry.inclusion_proof.as_ref().map_or(entry.log_index, |proof| proof.log_index);
            included.push(IncludedEntry { entry, leaf, index, claimed });
        }
        Ok(IncludedEntries(included))
    }

    /// Step 9: the checkpoints are signed by logs that the trusted root lists; at least as many distinct logs (origins and
    /// keys) as the policy demands, with keys that were in service at every signing time. An entry of an unknown log counts for
    /// nothing and harms nothing.
    pub(super) fn step_9_checkpoints(
        &self,
        included: IncludedEntries<'_>,
        times: &SigningTimes,
    ) -> Result<Vec<LogView>, Denial> {
        let times = times.all();
        let mut views: Vec<LogView> = Vec::new();
        for included in included.0 {
            let log = self.verifier.material.log_in_service(&included.entry.log_id, &times);
            let Some(log) = log else { continue };
            let opened = match self.opened(log, &included) {
                Ok(opened) => opened,
                Err(denial) => {
                    self.enforce(9, Err(denial))?;
                    unverified(&included)
                }
            };
            let mut view = LogView {
                origin: log.origin.clone(),
                log_id: log.log_id.clone(),
                key: log.key.clone(),
                index: included.index,
                leaf: included.leaf,
                promised_at: promised_at(included.entry),
                attested: opened,
                known: Vec::new(),
                held_twice_since: None,
            };
            view.known = self.known_checkpoints(&view, log);
            // One log counts once, by whichever of its names: a root may list the key of one under the identifiers of two
            // formats, or an old and a new key of one origin.
            match views.iter_mut().find(|view| view.is_of(log)) {
                Some(first) => self.second_entry(first, view),
                None => views.push(view),
            }
        }
        let threshold = usize::from(self.policy.log_threshold.get());
        let enough = if views.len() < threshold {
            let detail = format!(
                "{} trusted logs hold the entry and were in service at the signing time; `logs.threshold` demands {threshold}: record \
                 the signature in as many logs of the trusted root, or export the trusted root again",
                views.len()
            );
            Err(denied(ReasonCode::UnknownLog, detail))
        } else {
            Ok(())
        };
        self.enforce(9, enough)?;
        Ok(views)
    }

    fn opened(
        &self,
        log: &TrustedLog,
        included: &IncludedEntry<'_>,
    ) -> Result<Option<OpenedCheckpoint>, Denial> {
        let entry = included.entry;
        if included.claimed.is_none() || entry.inclusion_promise.is_some() {
            rekor_v1::verify_promise(entry, log.details, &log.key, self.crypto)
                .map_err(|error| denied(ReasonCode::InclusionInvalid, error.to_string()))?;
        }
        let Some(claimed) = &included.claimed else { return Ok(None) };
        let opened = self.open_checkpoint(log, claimed.note.clone(), self.crypto)?;
        if opened.head != claimed.head {
            let detail = "the inclusion proof leads to another tree than the checkpoint's";
            return Err(denied(ReasonCode::CheckpointInvalid, detail));
        }
        Ok(Some(opened))
    }

    /// Opens a signed note as a checkpoint of `log`, with the policy's further keys and witnesses.
    pub(super) fn open_checkpoint(
        &self,
        log: &TrustedLog,
        note: Note,
        crypto: &dyn tlog::SignatureVerifier,
    ) -> Result<OpenedCheckpoint, Denial> {
        let invalid = |error: tlog::Error| denied(ReasonCode::CheckpointInvalid, error.to_string());
        let mut keys: Vec<VerifierKey> = log.keys(&self.policy.log_keys).cloned().collect();
        let checkpoint = Checkpoint::parse(note.text()).map_err(invalid)?;
        if checkpoint.origin() != log.origin && is_rekor_v1_origin(checkpoint.origin(), &log.origin) {
            // The key's name is the host, the origin is the host and a tree id: only the log's own line counts.
            note.verify(&keys, crypto).map_err(invalid)?;
            return Ok(OpenedCheckpoint { head: *checkpoint.head(), log_time: None, cosigned: Vec::new() });
        }
        let first_witness = keys.len();
        if let WitnessPolicy::Quorum(quorum) = &self.policy.witnesses {
            keys.extend(quorum.keys().cloned());
        }
        let verified = VerifiedCheckpoint::open_note(note, &log.origin, &keys, crypto).map_err(invalid)?;
        let cosigned = verified
            .cosignatures()
            .iter()
            .filter_map(|line| {
                let time = line.time()?.as_seconds();
                Some((line.key_index().checked_sub(first_witness)?, time)).filter(|_| time > 0)
            })
            .collect();
        Ok(OpenedCheckpoint { head: *verified.head(), log_time: verified.log_signed_at(), cosigned })
    }
}

/// What an entry's proof leads to, and whether it leads there.
fn inclusion(
    entry: &TransparencyLogEntry,
    leaf: &LeafHash,
    version: BundleVersion,
) -> (Option<Claimed>, Result<(), Denial>) {
    let Some(proof) = &entry.inclusion_proof else {
        // Bundles of version 0.1 may hold a signed entry timestamp alone; step 9 verifies it with the log's key.
        let promised = version == BundleVersion::V0_1 && entry.inclusion_promise.is_some();
        let refusal = denied(ReasonCode::InclusionMissing, "a log entry has no inclusion proof");
        return (None, if promised { Ok(()) } else { Err(refusal) });
    };
    let parsed = Note::parse(proof.checkpoint.as_bytes())
        .and_then(|note| Checkpoint::parse(note.text()).map(|checkpoint| (note, *checkpoint.head())));
    let (note, head) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => return (None, Err(denied(ReasonCode::CheckpointInvalid, error.to_string()))),
    };
    let invalid = |detail: &'static str| Err(denied(ReasonCode::InclusionInvalid, detail));
    let result = if proof.tree_size != head.size || proof.root_hash != head.root {
        invalid("the inclusion proof names another tree than its checkpoint")
    } else if entry.inclusion_promise.is_none() && entry.log_index != proof.log_index {
        // In Rekor v1, whose entries carry a promise, the entry's index counts across shards.
        invalid("the entry and its proof name different indices")
    } else {
        let path = InclusionProof { leaf_index: proof.log_index, path: proof.hashes.clone() };
        match path.verify(leaf, &head) {
            Ok(_) => Ok(()),
            Err(error) => Err(denied(ReasonCode::InclusionInvalid, error.to_string())),
        }
    };
    (Some(Claimed { note, head }), result)
}

/// The log's own time of the entry, where [`Session::opened`] verified its signature.
fn promised_at(entry: &TransparencyLogEntry) -> Option<UnixTime> {
    let stated = entry.inclusion_promise.is_some() && entry.integrated_time > 0;
    stated.then_some(UnixTime(entry.integrated_time))
}

/// What the steps after a step 9 that a test switched off work with.
fn unverified(included: &IncludedEntry<'_>) -> Option<OpenedCheckpoint> {
    let claimed = included.claimed.as_ref();
    claimed.map(|claimed| OpenedCheckpoint { head: claimed.head, log_time: None, cosigned: Vec::new() })
}

/// `HOST - TREEID` with a decimal tree id: the origin of a Rekor v1 shard.
fn is_rekor_v1_origin(origin: &str, host: &str) -> bool {
    let tree = origin.strip_prefix(host).and_then(|rest| rest.strip_prefix(" - "));
    tree.is_some_and(|tree| {
        !tree.is_empty() && tree.len() <= 20 && tree.bytes().all(|byte| byte.is_ascii_digit())
    })
}

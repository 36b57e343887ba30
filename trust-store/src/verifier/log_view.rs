//! Steps 10 and 11: what else is known of the log, who witnessed it, and how fresh that knowledge is.
//!
//! The attested checkpoint and those of the evidence are tied together by consistency proofs. A newer checkpoint
//! counts only if it is shown to contain the attested one (or the entry itself). Two signed trees of one size that
//! differ are a fork; a proof that does not verify is not, since anybody can write one.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use tlog::{LeafHash, Note, TreeHead};

use super::{Session, denied};
use crate::evidence::{LogEvidence, MAX_CHECKPOINTS};
use crate::policy::{EarlierSignatures, FreshnessPolicy, MAX_CLOCK_SKEW, WitnessPolicy, WitnessQuorum};
use crate::reason::{Denial, ReasonCode};
use crate::time::UnixTime;
use crate::trust_material::TrustedLog;
use crate::verified::VerifiedLogEntry;

/// A checkpoint that a trusted log signed.
#[derive(Clone, Debug)]
pub(super) struct OpenedCheckpoint {
    pub(super) head: TreeHead,
    /// The log's own signing time, seconds.
    pub(super) log_time: Option<u64>,
    /// Witnesses, by their place in the quorum, with the time of their cosignature.
    pub(super) cosigned: Vec<(usize, u64)>,
}

/// An entry in a trusted log, with the checkpoint of the bundle.
pub(super) struct LogView {
    pub(super) origin: String,
    pub(super) log_id: Vec<u8>,
    pub(super) key: Vec<u8>,
    pub(super) index: u64,
    pub(super) leaf: LeafHash,
    /// When the log itself says that it took the entry, under its signature (Rekor v1).
    pub(super) promised_at: Option<UnixTime>,
    /// `None` for an entry with a signed timestamp only.
    pub(super) attested: Option<OpenedCheckpoint>,
    /// The attested checkpoint and every readable one of the evidence, with their relation to it.
    pub(super) known: Vec<(OpenedCheckpoint, Relation)>,
    /// When the log is shown to have held another entry of the same signature, if the bundle has one.
    pub(super) held_twice_since: Option<UnixTime>,
}

/// How another head stands to the attested one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Relation {
    /// Proven to be of the same growing tree.
    Consistent,
    /// Another tree of the same size.
    Contradicts,
    /// Nothing was shown.
    NotShown,
}

impl LogView {
    /// Whether this is a view of the same log, whatever identifier it has.
    pub(super) fn is_of(&self, log: &TrustedLog) -> bool {
        self.log_id == log.log_id || self.origin == log.origin || self.key == log.key
    }

    /// Verified checkpoints of trees that hold the entry.
    fn covering(&self) -> impl Iterator<Item = &OpenedCheckpoint> {
        let holds = |(checkpoint, relation): &&(OpenedCheckpoint, Relation)| {
            *relation == Relation::Consistent && checkpoint.head.size > self.index
        };
        self.known.iter().filter(holds).map(|(checkpoint, _)| checkpoint)
    }
}

impl Session<'_> {
    /// From when on as many logs as the policy demands are shown to have held the entry. `None` if that is not shown, or
    /// if the policy asks nobody about it.
    pub(super) fn logged_since(&self, views: &[LogView]) -> Option<UnixTime> {
        if self.policy.revocation.earlier_signatures == EarlierSignatures::Reject {
            return None;
        }
        let mut since: Vec<UnixTime> = views.iter().filter_map(|view| self.held_since(view)).collect();
        since.sort_unstable();
        since.get(usize::from(self.policy.log_threshold.get()) - 1).copied()
    }

    /// From when on a log is shown to have held the entry: since a quorum cosigned a checkpoint that covers it, or, where
    /// no witnesses are demanded, since the log itself says so.
    pub(super) fn held_since(&self, view: &LogView) -> Option<UnixTime> {
        let since = match &self.policy.witnesses {
            WitnessPolicy::Quorum(quorum) => {
                view.covering().filter_map(|checkpoint| cosigned_since(quorum, checkpoint)).min()
            }
            WitnessPolicy::NotRequired => {
                let signed = view.covering().filter_map(|checkpoint| checkpoint.log_time);
                signed.filter(|time| *time > 0).filter_map(unix_time).chain(view.promised_at).min()
            }
        };
        since.into_iter().chain(view.held_twice_since).min()
    }

    /// A second entry of a log says only when the log held it, and only if it could stand for the first one: it is shown to be
    /// of the same tree, or nothing that is known of the log speaks against it. The order in which a bundle lists the two
    /// decides nothing. Two trees that one key signed and that contradict each other are left to step 11, which denies.
    pub(super) fn second_entry(&self, first: &mut LogView, second: LogView) {
        let same_tree = match (&first.attested, &second.attested) {
            (Some(one), Some(other)) if first.key == second.key => {
                relation(&one.head, &other.head, self.evidence.log(&first.origin))
            }
            _ => Relation::NotShown,
        };
        let stands = match same_tree {
            Relation::Consistent => Ok(()),
            Relation::Contradicts | Relation::NotShown => self.agrees_and_is_fresh(&second),
        };
        let fork = same_tree == Relation::Contradicts
            || stands.as_ref().is_err_and(|denial| denial.code == ReasonCode::LogInconsistent);
        if fork && first.key == second.key {
            first.known.extend(second.attested.map(|attested| (attested, Relation::Contradicts)));
        } else if stands.is_ok() {
            first.held_twice_since = first.held_twice_since.into_iter().chain(self.held_since(&second)).min();
        }
    }

    /// Step 10: a quorum cosigned the attested checkpoint, or a newer one that contains it.
    pub(super) fn step_10_witnesses(&self, views: &[LogView]) -> Result<(), Denial> {
        let WitnessPolicy::Quorum(quorum) = &self.policy.witnesses else { return Ok(()) };
        for view in views {
            let reached = view.known.iter().any(|(checkpoint, relation)| {
                *relation == Relation::Consistent
                    && view
                        .attested
                        .as_ref()
                        .is_none_or(|attested| checkpoint.head.size >= attested.head.size)
                    && quorum.is_reached(|witness| {
                        checkpoint.cosigned.iter().any(|(cosigner, _)| *cosigner == witness)
                    })
            });
            let refusal = || {
                let most = view.known.iter().map(|(checkpoint, _)| checkpoint.cosigned.len()).max();
                let detail = format!(
                    "no quorum of witnesses cosigned a checkpoint of {} that covers the entry, {} of {} at most; `logs.witnesses` \
                     demands the quorum of `logs.policy`: fetch a newer checkpoint with their cosignatures",
                    view.origin,
                    most.unwrap_or(0),
                    quorum.keys().count()
                );
                denied(ReasonCode::WitnessQuorum, detail)
            };
            self.enforce(10, reached.then_some(()).ok_or_else(refusal))?;
        }
        Ok(())
    }

    /// Step 11: nothing that is known contradicts the checkpoint, and the newest of them is young enough.
    pub(super) fn step_11_freshness(&self, views: Vec<LogView>) -> Result<Vec<VerifiedLogEntry>, Denial> {
        let mut entries = Vec::with_capacity(views.len());
        for view in views {
            self.enforce(11, self.agrees_and_is_fresh(&view))?;
            let mut observed: Vec<TreeHead> = view
                .known
                .iter()
                .filter(|(_, relation)| *relation == Relation::Consistent)
                .map(|(checkpoint, _)| checkpoint.head)
                .collect();
            observed.sort_by_key(|head| head.size);
            observed.dedup();
            let LogView { origin, log_id, index, .. } = view;
            entries.push(VerifiedLogEntry { origin, log_id, index, observed });
        }
        Ok(entries)
    }

    /// The attested checkpoint and every readable one of the evidence, with their relation to it. A checkpoint of the
    /// evidence that does not verify is no evidence.
    pub(super) fn known_checkpoints(
        &self,
        view: &LogView,
        log: &TrustedLog,
    ) -> Vec<(OpenedCheckpoint, Relation)> {
        let Some(attested) = &view.attested else { return Vec::new() };
        let mut known: Vec<_> = Vec::from([(attested.clone(), Relation::Consistent)]);
        let Some(evidence) = self.evidence.log(&view.origin) else { return known };
        for note in evidence.checkpoints.iter().rev().take(MAX_CHECKPOINTS) {
            let Ok(note) = Note::parse(note.as_bytes()) else { continue };
            if let Ok(checkpoint) = self.open_checkpoint(log, note, self.cached) {
                let relation = relation_of_checkpoint(view, &attested.head, &checkpoint.head, evidence);
                known.push((checkpoint, relation));
            }
        }
        known
    }

    fn agrees_and_is_fresh(&self, view: &LogView) -> Result<(), Denial> {
        self.memory_agrees(view, &view.known)?;
        match self.policy.freshness {
            FreshnessPolicy::WithinSeconds(max_age) => self.is_fresh(view, &view.known, i64::from(max_age)),
            FreshnessPolicy::AttestedCheckpointSuffices => Ok(()),
        }
    }

    fn memory_agrees(&self, view: &LogView, known: &[(OpenedCheckpoint, Relation)]) -> Result<(), Denial> {
        let inconsistent = |size: u64| {
            let detail = format!(
                "{} showed trees that contradict each other (one of size {size}); keep both as proof",
                view.origin
            );
            denied(ReasonCode::LogInconsistent, detail)
        };
        if let Some((fork, _)) = known.iter().find(|(_, relation)| *relation == Relation::Contradicts) {
            return Err(inconsistent(fork.head.size));
        }
        let Some(remembered) = self.evidence.remembered_head(&view.origin, &view.log_id) else {
            return Ok(());
        };
        let evidence = self.evidence.log(&view.origin);
        // The remembered head may be tied to any head that is itself tied to the attested one.
        let mut shown = false;
        for (checkpoint, _) in known.iter().filter(|(_, relation)| *relation == Relation::Consistent) {
            match relation(&remembered, &checkpoint.head, evidence) {
                Relation::Contradicts => return Err(inconsistent(remembered.size)),
                Relation::Consistent => shown = true,
                Relation::NotShown => {}
            }
        }
        if shown {
            return Ok(());
        }
        let detail = format!(
            "consistency of {} with the remembered tree of size {} was not shown; `freshness` demands what is known to fit: fetch its \
             consistency proof",
            view.origin, remembered.size
        );
        Err(denied(ReasonCode::CheckpointStale, detail))
    }

    fn is_fresh(
        &self,
        view: &LogView,
        known: &[(OpenedCheckpoint, Relation)],
        max_age: i64,
    ) -> Result<(), Denial> {
        let stale = |detail: String| Err(denied(ReasonCode::CheckpointStale, detail));
        let newest = known.iter().map(|(checkpoint, _)| checkpoint.head.size).max();
        let mut newest_known = known.iter().filter(|(checkpoint, _)| Some(checkpoint.head.size) == newest);
        if newest_known.clone().any(|(_, relation)| *relation == Relation::NotShown) {
            return stale(format!(
                "a newer checkpoint of {} is known, but not shown to contain the entry; `freshness` demands that it does: fetch its \
                 consistency proof",
                view.origin
            ));
        }
        if newest_known.any(|(checkpoint, _)| self.is_recent(checkpoint, max_age)) {
            return Ok(());
        }
        stale(format!(
            "no verified time of the newest known checkpoint of {} is recent; `freshness` demands one within {max_age} seconds: fetch \
             a newer checkpoint",
            view.origin
        ))
    }

    /// With a quorum its fresh cosignatures decide, else any verified time of the log or a witness.
    fn is_recent(&self, checkpoint: &OpenedCheckpoint, max_age: i64) -> bool {
        let recent = |time: u64| {
            let time = i64::try_from(time).unwrap_or(i64::MAX);
            time <= self.now.plus(MAX_CLOCK_SKEW).0 && self.now.0.saturating_sub(time) <= max_age
        };
        match &self.policy.witnesses {
            WitnessPolicy::Quorum(quorum) => quorum.is_reached(|witness| {
                checkpoint.cosigned.iter().any(|(cosigner, time)| *cosigner == witness && recent(*time))
            }),
            WitnessPolicy::NotRequired => checkpoint
                .log_time
                .into_iter()
                .chain(checkpoint.cosigned.iter().map(|(_, time)| *time))
                .any(recent),
        }
    }
}

/// When the last witness of the first quorum cosigned.
fn cosigned_since(quorum: &WitnessQuorum, checkpoint: &OpenedCheckpoint) -> Option<UnixTime> {
    let cosigned = || checkpoint.cosigned.iter();
    let reached = |by: u64| {
        quorum.is_reached(|witness| cosigned().any(|(cosigner, time)| *cosigner == witness && *time <= by))
    };
    cosigned().map(|(_, time)| *time).filter(|time| reached(*time)).min().and_then(unix_time)
}

fn unix_time(seconds: u64) -> Option<UnixTime> {
    i64::try_from(seconds).ok().map(UnixTime)
}

/// A checkpoint of the evidence also contains the attested one, for this entry's purpose, if it contains the entry.
fn relation_of_checkpoint(
    view: &LogView,
    attested: &TreeHead,
    other: &TreeHead,
    evidence: &LogEvidence,
) -> Relation {
    let by_consistency = relation(attested, other, Some(evidence));
    if by_consistency != Relation::NotShown || other.size < attested.size {
        return by_consistency;
    }
    let mut proofs = evidence.inclusion(view.index, other.size);
    if proofs.any(|proof| proof.verify(&view.leaf, other).is_ok()) {
        Relation::Consistent
    } else {
        Relation::NotShown
    }
}

/// Two heads of one log: of equal size they must be equal, else a proof from the smaller to the larger shows that
/// they belong together; that they do not, no proof of the evidence can show.
fn relation(a: &TreeHead, b: &TreeHead, evidence: Option<&LogEvidence>) -> Relation {
    let (old, new) = if a.size <= b.size { (a, b) } else { (b, a) };
    if old.size == new.size {
        return if old.root == new.root { Relation::Consistent } else { Relation::Contradicts };
    }
    if old.size == 0 {
        return Relation::Consistent;
    }
    let mut proofs = evidence.into_iter().flat_map(|evidence| evidence.consistency(old.size, new.size));
    if proofs.any(|proof| proof.verify(old, new).is_ok()) { Relation::Consistent } else { Relation::NotShown }
}

//! What a log's order and its identity decide: which of signature and revocation came first, and what counts as two logs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::fixture;

use fixture::SIGNED_AT;
use fixture::log::{Log, ORIGIN};
use fixture::scenario::{Scenario, World};
use rcgen::RevocationReason;
use tlog::{MemoryTree, TreeHead, leaf_hash};
use trust_store::ReasonCode;
use trust_store::json::Bytes;
use trust_store::log_entry::TransparencyLogEntry;
use trust_store::policy::{EarlierSignatures, FreshnessPolicy, WitnessPolicy};

/// When the signer's key is known to have been stolen: a minute after the signature.
const STOLEN_AT: i64 = SIGNED_AT + 60;

fn code(scenario: &Scenario) -> Option<ReasonCode> {
    scenario.verify().err().map(|denial| denial.code)
}

/// A signer whose certificate was revoked after it signed, under a policy that lets earlier signatures stand.
fn stolen_later() -> Scenario {
    let mut scenario = Scenario::valid();
    scenario.policy.revocation.earlier_signatures = EarlierSignatures::AcceptProvenBefore;
    let signer = scenario.signer.certificate.clone();
    let list = scenario.world.intermediate.crl_for(STOLEN_AT, &[&signer], RevocationReason::KeyCompromise);
    scenario.evidence.add_crl(&list).unwrap();
    scenario
}

fn attest(scenario: &mut Scenario, checkpoint: String) {
    scenario.bundle.log_entries[0].inclusion_proof.as_mut().unwrap().checkpoint = checkpoint;
}

/// The checkpoint of the attestation, signed and cosigned by all at `time`.
fn attested_at(scenario: &mut Scenario, time: i64) {
    let head = scenario.world.log.tree.head();
    let checkpoint = scenario.world.log.checkpoint_of(head, time, 2);
    attest(scenario, checkpoint);
}

#[test]
fn a_signature_outlives_its_certificate_only_if_stamped_and_logged_before_the_revocation() {
    let mut scenario = stolen_later();
    assert_eq!(code(&scenario), None);
    for (logged, expected) in [
        (STOLEN_AT - 1, None),
        (STOLEN_AT, Some(ReasonCode::Revoked)),
        (STOLEN_AT + 1, Some(ReasonCode::Revoked)),
    ] {
        attested_at(&mut scenario, logged);
        assert_eq!(code(&scenario), expected, "a token of long before, logged at {logged}");
    }
    let mut scenario = stolen_later();
    let signature = scenario.bundle.signature().unwrap().to_vec();
    scenario.bundle.timestamps.push(scenario.world.tsa.stamp(&signature, STOLEN_AT));
    assert_eq!(code(&scenario), Some(ReasonCode::Revoked), "every token must be older");
    scenario.bundle.timestamps.pop();
    scenario.policy.revocation.earlier_signatures = EarlierSignatures::Reject;
    assert_eq!(code(&scenario), Some(ReasonCode::Revoked));
}

#[test]
fn what_nothing_shows_to_be_older_is_revoked() {
    // Neither the log nor a witness says when: nobody who watched the log can have seen the entry.
    let mut scenario = stolen_later();
    scenario.policy.witnesses = WitnessPolicy::NotRequired;
    scenario.policy.freshness = FreshnessPolicy::AttestedCheckpointSuffices;
    assert_eq!(code(&scenario), None, "the ML-DSA line of the log says when");
    let keys = std::mem::take(&mut scenario.policy.log_keys);
    assert_eq!(code(&scenario), Some(ReasonCode::Revoked), "an Ed25519 line does not");
    scenario.policy.log_keys = keys;
    attested_at(&mut scenario, STOLEN_AT);
    assert_eq!(code(&scenario), Some(ReasonCode::Revoked));
    // An older checkpoint that is shown to hold the entry says it too, one that does not hold it says nothing.
    let held = scenario.world.log.tree.head();
    let before = scenario.world.log.tree.head_at(held.size - 1).unwrap();
    let note = |scenario: &Scenario, head: TreeHead| scenario.world.log.checkpoint_of(head, SIGNED_AT + 1, 2);
    let (early, held) = (note(&scenario, before), note(&scenario, held));
    let tie = scenario.world.log.consistency(before.size, before.size + 1);
    let evidence = scenario.evidence.log_mut(ORIGIN);
    evidence.add_consistency(before.size, before.size + 1, &tie);
    evidence.add_checkpoint(&early);
    assert_eq!(code(&scenario), Some(ReasonCode::Revoked), "older than the entry");
    scenario.evidence.log_mut(ORIGIN).add_checkpoint(&held);
    assert_eq!(code(&scenario), None);
}

#[test]
fn the_quorum_that_is_demanded_must_have_cosigned_before_the_revocation() {
    let mut scenario = stolen_later();
    let head = scenario.world.log.tree.head();
    // One witness before, the other one after: the quorum of both is of after.
    let one = scenario.world.log.checkpoint_of(head, SIGNED_AT + 1, 1);
    let both = scenario.world.log.checkpoint_of(head, STOLEN_AT, 2);
    let second = both.lines().last().unwrap();
    attest(&mut scenario, format!("{one}{second}\n"));
    assert_eq!(code(&scenario), Some(ReasonCode::Revoked), "the log's own line is no quorum");
    scenario.policy.revocation.earlier_signatures = EarlierSignatures::Reject;
    scenario.evidence = scenario.world.evidence(SIGNED_AT, &[]);
    assert_eq!(code(&scenario), None, "all that is wrong with it is the revocation");
}

#[test]
fn evidence_that_is_only_stale_is_not_called_revoked() {
    let mut scenario = stolen_later();
    scenario.policy.freshness = FreshnessPolicy::WithinSeconds(1);
    assert_eq!(code(&scenario), Some(ReasonCode::CheckpointStale));
}

/// A second log that holds the same signature.
fn logged_twice() -> (Scenario, Log) {
    let mut scenario = Scenario::valid();
    scenario.policy.log_threshold = 2.try_into().unwrap();
    let mut other = Log::named("other.cd34ef56.mentat.internal", 2);
    let body = scenario.bundle.log_entries[0].canonicalized_body.clone();
    scenario.bundle.log_entries.push(other.append(body, SIGNED_AT + 1));
    (scenario, other)
}

#[test]
fn as_many_logs_as_are_demanded_must_have_held_the_entry_before_the_revocation() {
    for (second, expected) in [(SIGNED_AT + 2, None), (STOLEN_AT, Some(ReasonCode::Revoked))] {
        let (mut scenario, other) = logged_twice();
        scenario.root.tlogs.push(World::log_instance(&other));
        scenario.policy.log_keys.push(other.ml_dsa_key.clone());
        scenario.policy.revocation.earlier_signatures = EarlierSignatures::AcceptProvenBefore;
        let proof = scenario.bundle.log_entries[1].inclusion_proof.as_mut().unwrap();
        proof.checkpoint = other.checkpoint_of(other.tree.head(), second, 2);
        assert_eq!(code(&scenario), None);
        let signer = scenario.signer.certificate.clone();
        let list =
            scenario.world.intermediate.crl_for(STOLEN_AT, &[&signer], RevocationReason::KeyCompromise);
        scenario.evidence.add_crl(&list).unwrap();
        assert_eq!(code(&scenario), expected, "the second one at {second}");
        scenario.policy.log_threshold = 1.try_into().unwrap();
        assert_eq!(code(&scenario), None);
    }
}

#[test]
fn of_two_entries_of_one_log_the_earlier_one_counts_in_whatever_order_they_are_listed() {
    for times in
        [[STOLEN_AT + 10, SIGNED_AT + 1], [SIGNED_AT + 1, STOLEN_AT + 10], [STOLEN_AT, STOLEN_AT + 1]]
    {
        let mut scenario = stolen_later();
        let twin = scenario.bundle.log_entries[0].clone();
        scenario.bundle.log_entries.push(twin);
        let head = scenario.world.log.tree.head();
        for (entry, time) in scenario.bundle.log_entries.iter_mut().zip(times) {
            entry.inclusion_proof.as_mut().unwrap().checkpoint =
                scenario.world.log.checkpoint_of(head, time, 2);
        }
        let expected = times.iter().all(|time| *time >= STOLEN_AT).then_some(ReasonCode::Revoked);
        assert_eq!(code(&scenario), expected, "logged at {times:?}");
        // One log stays one log: nothing shows that two had it before.
        scenario.policy.log_threshold = 2.try_into().unwrap();
        assert_eq!(code(&scenario), Some(ReasonCode::Revoked));
    }
}

/// A tree that the log's stolen key signed in its own name, so that it holds the entry at `SIGNED_AT + 1`.
fn made_up(scenario: &Scenario, size: u64) -> TransparencyLogEntry {
    let mut log = Log::new(1);
    log.tree = MemoryTree::new();
    (0..size - 1).for_each(|n| {
        log.tree.push(leaf_hash(&n.to_be_bytes()));
    });
    log.append(scenario.bundle.log_entries[0].canonicalized_body.clone(), SIGNED_AT + 1)
}

#[test]
fn no_entry_of_a_made_up_tree_says_since_when_the_log_held_the_genuine_one() {
    let size = stolen_later().world.log.tree.head().size;
    for (of_size, alone, unrevoked) in [
        // Of one size: the bundle carries the proof of the fork.
        (size, ReasonCode::LogInconsistent, Some(ReasonCode::LogInconsistent)),
        (size + 3, ReasonCode::CheckpointStale, None),
    ] {
        let mut scenario = stolen_later();
        scenario.policy.witnesses = WitnessPolicy::NotRequired;
        attested_at(&mut scenario, STOLEN_AT + 10);
        assert_eq!(code(&scenario), Some(ReasonCode::Revoked));
        let genuine = scenario.bundle.log_entries[0].clone();
        let forged = made_up(&scenario, of_size);
        let entries = |entries: &[&TransparencyLogEntry]| entries.iter().copied().cloned().collect();
        let head = scenario.world.log.tree.head();
        scenario.evidence.remember(ORIGIN, &genuine.log_id, &head);
        scenario.bundle.log_entries = entries(&[&forged]);
        assert_eq!(code(&scenario), Some(alone));
        scenario.bundle.log_entries = entries(&[&forged, &genuine]);
        assert_eq!(code(&scenario), Some(alone));
        scenario.bundle.log_entries = entries(&[&genuine, &forged]);
        assert_eq!(code(&scenario), Some(ReasonCode::Revoked), "the made-up entry says when");
        // Nobody revoked anything, and nothing is remembered.
        scenario.evidence = scenario.world.evidence(SIGNED_AT, &[]);
        assert_eq!(code(&scenario), unrevoked);
    }
}

#[test]
fn two_logs_are_two_origins_with_two_keys() {
    let (mut scenario, other) = logged_twice();
    assert_eq!(code(&scenario), Some(ReasonCode::UnknownLog), "the other one is not trusted");
    scenario.root.tlogs.push(World::log_instance(&other));
    assert_eq!(code(&scenario), None);
    // One key under a second identifier, with the origin's name or another one; one origin with a second key.
    let mut renamed = World::log_instance(&scenario.world.log);
    renamed.log_id.key_id = Bytes(vec![9; 32]);
    let mut moved = renamed.clone();
    moved.base_url = "https://other.cd34ef56.mentat.internal".into();
    for twin in [renamed, moved] {
        scenario.root.tlogs.truncate(1);
        scenario.root.tlogs.push(twin);
        let mut again = scenario.bundle.log_entries[0].clone();
        again.log_id = vec![9; 32];
        scenario.bundle.log_entries[1] = again;
        let denied = code(&scenario);
        assert!(matches!(denied, Some(ReasonCode::UnknownLog | ReasonCode::CheckpointInvalid)), "{denied:?}");
    }
    let mut rotated = Log::new(3);
    let body = scenario.bundle.log_entries[0].canonicalized_body.clone();
    scenario.bundle.log_entries[1] = rotated.append(body, SIGNED_AT + 1);
    scenario.root.tlogs.truncate(1);
    scenario.root.tlogs.push(World::log_instance(&rotated));
    assert_eq!(code(&scenario), Some(ReasonCode::UnknownLog), "the old and the new key of one log");
    scenario.policy.log_threshold = 1.try_into().unwrap();
    assert_eq!(code(&scenario), None, "either of them may have taken the entry");
}

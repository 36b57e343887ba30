//! The whole verification on a valid attestation, and one denial for every reason code.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::fixture;

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use fixture::authority::{Embedded, Spki as _, leaf, p256};
use fixture::cases::{self, provenance, sha256};
use fixture::log::ORIGIN;
use fixture::scenario::{EMAIL, MODULE, Scenario, World, rule};
use fixture::{NOW, SIGNED_AT};
use trust_store::capability_rules::{CapabilityRequest, RuleEngine, RuleRefusal};
use trust_store::evidence::Evidence;
use trust_store::key_details::KeyDetails;
use trust_store::pattern::Pattern;
use trust_store::policy::{
    CapabilityPolicy, EndorsementPolicy, FieldRule, FreshnessPolicy, IdentityRule, ProvenancePolicy,
    RevocationMode, SctPolicy, TrustLevel, TrustedKey, WitnessPolicy,
};
use trust_store::policy_document::PolicyDocument;
use trust_store::signature_cache::SignatureCache;
use trust_store::statement::{SLSA_PROVENANCE_TYPE, Statement};
use trust_store::validity::Validity;
use trust_store::{ReasonCode, UnixTime};

fn code(scenario: &Scenario) -> Option<ReasonCode> {
    scenario.verify().err().map(|denial| denial.code)
}

#[test]
fn admits_a_valid_attestation_and_says_what_was_proven() {
    let scenario = Scenario::valid();
    let verified = scenario.verify().unwrap();
    assert_eq!(verified.digest().as_bytes(), &sha256(MODULE));
    assert_eq!((verified.identity().subject(), verified.issuer()), (EMAIL, None));
    assert_eq!(verified.trust_level(), TrustLevel::Verified);
    assert_eq!((verified.log_origin(), verified.log_index()), (Some(ORIGIN), Some(5)));
    assert_eq!(verified.signing_time(), Some(UnixTime(SIGNED_AT)));
    assert_eq!(verified.manifest().unwrap(), &scenario.manifest);
    assert_eq!(verified.requested_capabilities()[0].to_string(), "env:A");
    assert_eq!(verified.chain().len(), 3);
    assert_eq!(verified.log_entries()[0].observed_heads().len(), 1);
    assert!(verified.endorsers().is_empty());
}

#[test]
fn a_rule_lends_its_level_to_the_agents_that_it_names_only() {
    let naming = |pattern: &str, level| {
        let agents = Some(vec![Pattern::new(pattern).unwrap()]);
        IdentityRule { agents, ..rule("*@example.com", level) }
    };
    let reached = |identities: Vec<IdentityRule>| {
        let mut scenario = Scenario::valid();
        scenario.policy.identities = identities;
        scenario.verify().map(|verified| verified.trust_level()).map_err(|denial| denial.code)
    };
    let (own, other) = ("mentatlab.ex*", "mentatlab.other");
    let (signed, verified) = (TrustLevel::Signed, TrustLevel::Verified);
    assert_eq!(reached(vec![naming(own, verified)]), Ok(verified));
    assert_eq!(reached(vec![naming(other, verified), rule(EMAIL, signed)]), Ok(signed));
    assert_eq!(reached(vec![naming(other, verified), naming(own, signed)]), Ok(signed));
    assert_eq!(reached(vec![naming(other, verified)]), Err(ReasonCode::AgentNotForSigner));
    // Whom no rule accepts is no signer of other agents either.
    let elsewhere = IdentityRule { subject: Pattern::new("x@example.com").unwrap(), ..naming(own, signed) };
    assert_eq!(reached(vec![elsewhere]), Err(ReasonCode::IdentityDenied));
}

/// Rules by a table in place of a language.
struct Table(&'static [(&'static str, &'static str)]);

impl RuleEngine for Table {
    fn judge(&self, request: &CapabilityRequest<'_>) -> Result<Vec<String>, RuleRefusal> {
        let asked = request.capability.to_string();
        let known =
            self.0.iter().any(|(signer, capability)| (*signer, *capability) == (request.signer, &asked));
        if known {
            return Ok(vec!["table".into()]);
        }
        let (agent, version, level) = (request.agent, request.version, request.level);
        Err(RuleRefusal::Forbidden(vec![format!("{agent} {version} {level}")]))
    }
}

/// An engine that permits, and has no rule for it.
struct Nothing;

impl RuleEngine for Nothing {
    fn judge(&self, _: &CapabilityRequest<'_>) -> Result<Vec<String>, RuleRefusal> {
        Ok(Vec::new())
    }
}

#[test]
fn rules_narrow_what_is_covered_and_without_an_engine_nothing_is_permitted() {
    let mut scenario = Scenario::valid();
    assert!(scenario.verify().unwrap().permitted_by_rules().is_empty());
    let document = r#"{"version":1,"capabilities":{"within":["env:B"]},"capability_rules":"permit all"}"#;
    let policy = PolicyDocument::parse(document.as_bytes()).unwrap().validate().unwrap();
    let unread = policy.capability_rules.unwrap();
    assert_eq!(unread.text(), "permit all");
    scenario.policy.capability_rules = Some(unread.clone());
    let denial = scenario.verify().unwrap_err();
    assert_eq!(denial.code, ReasonCode::CapabilityDenied);
    assert!(denial.detail.contains("built without"), "{denial}");

    let with = |table: &'static [_]| Some(unread.clone().with_engine(Arc::new(Table(table))));
    scenario.policy.capability_rules = with(&[(EMAIL, "env:A")]);
    let verified = scenario.verify().unwrap();
    let [permitted] = verified.permitted_by_rules() else { panic!("{verified:?}") };
    assert_eq!(
        (permitted.capability.to_string().as_str(), &permitted.rules[..]),
        ("env:A", &["table".into()][..])
    );
    scenario.policy.capability_rules = with(&[("other@example.com", "env:A")]);
    let denial = scenario.verify().unwrap_err();
    assert_eq!(denial.code, ReasonCode::CapabilityDenied);
    let manifest = &scenario.manifest;
    let asked = format!("by `{} {} verified`", manifest.id().as_str(), manifest.version().as_str());
    assert!(denial.detail.ends_with(&asked), "{denial}");
    scenario.policy.capability_rules = Some(unread.clone().with_engine(Arc::new(Nothing)));
    assert_eq!(code(&scenario), Some(ReasonCode::CapabilityDenied));
    // Rules do not widen.
    scenario.policy.capability_rules = with(&[(EMAIL, "env:A")]);
    scenario.policy.capabilities = CapabilityPolicy::Within(Vec::new());
    assert_eq!(code(&scenario), Some(ReasonCode::CapabilityDenied));
}

#[test]
fn every_case_is_denied_with_its_own_code() {
    for case in cases::all() {
        let denial = (case.build)().verify().map(|_| ()).unwrap_err();
        assert_eq!(denial.code, case.code, "{}: {denial}", case.name);
        assert!(!denial.detail.is_empty(), "{}", case.name);
    }
}

/// What the policy decides is said with the policy's own key and with what would satisfy it.
#[test]
fn a_denial_by_policy_names_its_rule_and_what_would_satisfy_it() {
    let rules = [
        (ReasonCode::AlgorithmNotAllowed, "`algorithms`"),
        (ReasonCode::TimestampMissing, "`signing_time`"),
        (ReasonCode::IdentityDenied, "`identities`"),
        (ReasonCode::SctMissing, "`sct`"),
        (ReasonCode::UnknownLog, "`logs.threshold`"),
        (ReasonCode::WitnessQuorum, "`logs.witnesses`"),
        (ReasonCode::CheckpointStale, "`freshness`"),
        (ReasonCode::Revoked, "`revocation`"),
        (ReasonCode::RevocationUnknown, "`revocation`"),
        (ReasonCode::RevocationStale, "`revocation`"),
        (ReasonCode::TrustLevel, "`required_level`"),
        (ReasonCode::ProvenanceMissing, "`provenance.required`"),
        (ReasonCode::EndorsementMissing, "`endorsements.at-least`"),
        (ReasonCode::PolicyDenied, "`agents."),
        (ReasonCode::CapabilityDenied, "`capabilities`"),
    ];
    for (code, rule) in rules {
        let mut seen = 0;
        for case in cases::all().filter(|case| case.code == code) {
            let denial = (case.build)().verify().map(|_| ()).unwrap_err();
            let (fault, remedy) = denial.detail.split_once("; ").unwrap_or_else(|| panic!("{denial}"));
            assert!(!fault.is_empty() && remedy.contains(": "), "{}: {denial}", case.name);
            assert!(denial.detail.contains(rule), "{}: {denial}", case.name);
            seen += 1;
        }
        assert!(seen > 0, "{code}: no case");
    }
}

#[test]
fn revoked_wins_over_every_failure_after_step_5() {
    for case in cases::all() {
        let mut scenario = (case.build)();
        let leaf = scenario.signer.certificate.clone();
        let Ok(crl) = scenario.evidence.add_crl(&scenario.world.intermediate.crl(SIGNED_AT - 5, &[&leaf]))
        else {
            panic!()
        };
        let () = crl;
        let expected = if (6..=12).contains(&case.code.step()) { ReasonCode::Revoked } else { case.code };
        // Steps 13 and 14 are only reached without a revocation.
        let expected = if case.code.step() > 12 { ReasonCode::Revoked } else { expected };
        assert_eq!(code(&scenario), Some(expected), "{}", case.name);
    }
}

#[test]
fn a_newer_checkpoint_that_contains_the_old_one_makes_it_fresh() {
    for by_inclusion in [false, true] {
        let mut scenario = Scenario::valid();
        scenario.now = SIGNED_AT + 5 * 3600;
        scenario.evidence = scenario.world.evidence(scenario.now - 60, &[]);
        assert_eq!(code(&scenario), Some(ReasonCode::CheckpointStale));
        let old = scenario.attested_size();
        scenario.world.log.grow(7);
        let log = &scenario.world.log;
        let new = log.tree.size();
        let evidence = scenario.evidence.log_mut(ORIGIN);
        evidence.add_checkpoint(&log.checkpoint(SIGNED_AT + 5 * 3600 - 30));
        if by_inclusion {
            evidence.add_inclusion(new, &log.inclusion(5));
        } else {
            evidence.add_consistency(old, new, &log.consistency(old, new));
        }
        let verified = scenario.verify().unwrap();
        let sizes: Vec<u64> =
            verified.log_entries()[0].observed_heads().iter().map(|head| head.size).collect();
        assert_eq!(sizes, [old, new]);
        let file = scenario.evidence.to_json().unwrap();
        scenario.evidence = Evidence::parse(&file).unwrap();
        assert_eq!(code(&scenario), None, "evidence survives its file");
    }
}

#[test]
fn a_wrong_proof_to_a_newer_checkpoint_shows_nothing_and_hides_no_right_one() {
    let mut scenario = Scenario::valid();
    let old = scenario.attested_size();
    scenario.world.log.grow(7);
    let new = scenario.world.log.tree.size();
    let right = scenario.world.log.consistency(old, new);
    let mut wrong = right.clone();
    wrong.path[0].0[0] ^= 1;
    let mut entry = scenario.world.log.inclusion(5);
    entry.path[0].0[0] ^= 1;
    let checkpoint = scenario.world.log.checkpoint(NOW);
    let evidence = scenario.evidence.log_mut(ORIGIN);
    evidence.add_checkpoint(&checkpoint);
    evidence.add_consistency(old, new, &wrong);
    evidence.add_inclusion(new, &entry);
    assert_eq!(code(&scenario), Some(ReasonCode::CheckpointStale), "nobody may accuse a log with it");
    scenario.evidence.log_mut(ORIGIN).add_consistency(old, new, &right);
    assert_eq!(code(&scenario), None);
}

#[test]
fn a_remembered_head_must_be_shown_to_be_a_part_of_the_tree() {
    let mut scenario = Scenario::valid();
    let id = scenario.world.log.key.key_hash().0;
    let remembered = scenario.world.log.tree.head_at(3).unwrap();
    scenario.evidence.remember(ORIGIN, &id, &remembered);
    assert_eq!(code(&scenario), Some(ReasonCode::CheckpointStale));
    let size = scenario.attested_size();
    let proof = scenario.world.log.consistency(3, size);
    scenario.evidence.log_mut(ORIGIN).add_consistency(3, size, &proof);
    assert_eq!(code(&scenario), None);
    // A log with a new key is a new log: what was remembered of the old one does not bind it.
    let mut other = Scenario::valid();
    other.evidence.remember(ORIGIN, &[0; 32], &remembered);
    assert_eq!(code(&other), None);
}

#[test]
fn a_log_counts_only_while_its_key_was_in_service() {
    let mut scenario = Scenario::valid();
    let signature = scenario.bundle.signature().unwrap().to_vec();
    scenario.bundle.timestamps.push(scenario.world.tsa.stamp(&signature, SIGNED_AT + 60));
    let mut verdict = |start: i64, end: Option<i64>| {
        scenario.root.tlogs[0].public_key.valid_for =
            Validity { start: Some(UnixTime(start)), end: end.map(UnixTime) };
        code(&scenario)
    };
    assert_eq!(verdict(SIGNED_AT, Some(SIGNED_AT + 60)), None, "both ends belong to the span");
    assert_eq!(verdict(SIGNED_AT + 1, None), Some(ReasonCode::UnknownLog));
    // Every signing time counts, not only the first.
    assert_eq!(verdict(SIGNED_AT, Some(SIGNED_AT + 59)), Some(ReasonCode::UnknownLog));
}

#[test]
fn freshness_needs_a_verified_time_that_is_not_in_the_future() {
    let mut scenario = Scenario::valid();
    scenario.policy.witnesses = WitnessPolicy::NotRequired;
    assert_eq!(code(&scenario), None, "the ML-DSA line of the log carries the time");
    scenario.policy.log_keys.clear();
    assert_eq!(code(&scenario), Some(ReasonCode::CheckpointStale), "an Ed25519 line has none");
    scenario.policy.freshness = FreshnessPolicy::AttestedCheckpointSuffices;
    assert_eq!(code(&scenario), None);
    let mut early = Scenario::valid();
    let head = early.world.log.tree.head();
    let proof = early.bundle.log_entries[0].inclusion_proof.as_mut().unwrap();
    proof.checkpoint = early.world.log.checkpoint_of(head, NOW + 3600, 2);
    assert_eq!(code(&early), Some(ReasonCode::CheckpointStale));
}

#[test]
fn endorsements_of_distinct_accepted_signers_lift_to_community() {
    let mut scenario = Scenario::valid();
    scenario.policy.identities = vec![rule(EMAIL, TrustLevel::Signed)];
    scenario.policy.required_level = TrustLevel::Community;
    scenario.policy.endorsements = EndorsementPolicy::AtLeast {
        count: 2.try_into().unwrap(),
        endorsers: vec![rule("*@example.com", TrustLevel::Signed)],
    };
    let statement = Statement::endorsement(&scenario.manifest, &sha256(MODULE));
    for email in ["a@example.com", "b@example.com", "c@elsewhere.org", EMAIL] {
        let endorser = scenario.world.leaf(email);
        let endorsement = scenario.world.sign_statement(&statement, &endorser);
        scenario.further.push(endorsement);
    }
    // The log grew while they endorsed; the first bundle's checkpoint is now an older one, as in life.
    let verified = scenario.verify().unwrap();
    assert_eq!(verified.trust_level(), TrustLevel::Community);
    let endorsers: Vec<&str> = verified.endorsers().iter().map(|identity| identity.subject()).collect();
    assert_eq!(endorsers, ["a@example.com", "b@example.com"], "neither a stranger nor the signer counts");
}

#[test]
fn provenance_fields_must_match() {
    let mut scenario = Scenario::valid();
    let statement = provenance(MODULE, "https://builder.example/v1");
    let builder = scenario.world.leaf("ci@example.com");
    let bundle = scenario.world.sign_statement(&statement, &builder);
    scenario.further.push(bundle);
    let mut demand = |pattern: &str, builder: &str| {
        scenario.policy.provenance = ProvenancePolicy::Required {
            predicate_type: SLSA_PROVENANCE_TYPE.into(),
            builders: vec![rule(builder, TrustLevel::Signed)],
            fields: vec![FieldRule {
                path: "runDetails.builder.id".into(),
                matches: Pattern::new(pattern).unwrap(),
            }],
        };
        code(&scenario)
    };
    assert_eq!(demand("https://builder.example/*", "ci@example.com"), None);
    assert_eq!(demand("https://other.example/*", "ci@example.com"), Some(ReasonCode::ProvenanceMissing));
    assert_eq!(demand("https://builder.example/*", "other@example.com"), Some(ReasonCode::ProvenanceMissing));
}

#[test]
fn a_bare_key_of_the_policy_is_neither_builder_nor_endorser() {
    let mut scenario = Scenario::valid();
    let (key, details) = (p256(), KeyDetails::EcdsaP256Sha256);
    let statements = [
        Statement::endorsement(&scenario.manifest, &sha256(MODULE)),
        provenance(MODULE, "https://builder.example/v1"),
    ];
    for statement in statements {
        let bundle = scenario.world.sign_with_key(&statement, &key);
        scenario.further.push(bundle);
    }
    let spki = key.subject_public_key_info_der();
    scenario.policy.keys =
        vec![TrustedKey { name: "ops".into(), spki, details, level: TrustLevel::Verified }];
    assert_eq!(code(&scenario), None);
    scenario.policy.required_level = TrustLevel::Community;
    scenario.policy.identities = vec![rule(EMAIL, TrustLevel::Signed)];
    scenario.policy.endorsements = EndorsementPolicy::AtLeast {
        count: 1.try_into().unwrap(),
        endorsers: vec![rule("*", TrustLevel::Signed)],
    };
    assert_eq!(code(&scenario), Some(ReasonCode::EndorsementMissing));
    scenario.policy.provenance = ProvenancePolicy::Required {
        predicate_type: SLSA_PROVENANCE_TYPE.into(),
        builders: vec![rule("*", TrustLevel::Signed)],
        fields: Vec::new(),
    };
    let denial = scenario.verify().map(|_| ()).unwrap_err();
    assert_eq!(denial.code, ReasonCode::ProvenanceMissing);
    assert!(denial.detail.contains("identity_denied"), "{denial}");
}

#[test]
fn what_the_policy_relaxes_in_words_is_relaxed_and_nothing_else() {
    let world = World::new();
    let signer = leaf(&world.intermediate, &world.certificate_log, EMAIL, Embedded::Nothing, |_| ());
    let mut scenario = Scenario::signed_by(world, signer);
    scenario.policy.sct = SctPolicy::AcceptAbsent;
    assert_eq!(code(&scenario), None);
    let world = World::new();
    let signer = leaf(&world.intermediate, &world.certificate_log, EMAIL, Embedded::WrongTimestamp, |_| ());
    let mut wrong = Scenario::signed_by(world, signer);
    wrong.policy.sct = SctPolicy::AcceptAbsent;
    assert_eq!(code(&wrong), Some(ReasonCode::SctInvalid), "a timestamp that is there must verify");
    let mut no_evidence = Scenario::valid();
    no_evidence.evidence = Evidence::none();
    no_evidence.policy.revocation.mode = RevocationMode::DangerIfPresent;
    assert_eq!(code(&no_evidence), None);
    let mut left = Scenario::valid();
    left.policy.capabilities = CapabilityPolicy::LeftToTheExecutor;
    assert_eq!(left.verify().unwrap().requested_capabilities().len(), 1);
}

#[test]
fn staples_count_like_fetched_evidence() {
    let mut scenario = Scenario::valid();
    let crls: Vec<Vec<u8>> =
        [&scenario.world.root, &scenario.world.intermediate].map(|ca| ca.crl(SIGNED_AT, &[])).to_vec();
    scenario.evidence = Evidence::none();
    scenario.staples.crl = crls.into_iter().map(trust_store::json::Bytes).collect();
    assert_eq!(code(&scenario), None);
    let leaf = scenario.signer.certificate.clone();
    scenario.evidence = scenario.world.evidence(SIGNED_AT, &[&leaf]);
    assert_eq!(code(&scenario), Some(ReasonCode::Revoked), "revoked wins over a good staple");
}

/// Genuine lines and entries, repeated as often as the formats allow: every one of them verifies.
#[test]
fn repeated_genuine_evidence_ends_within_the_budget() {
    let mut scenario = Scenario::valid();
    let entry = &mut scenario.bundle.log_entries[0];
    let note = &mut entry.inclusion_proof.as_mut().unwrap().checkpoint;
    let line = note.lines().last().unwrap().to_owned() + "\n";
    note.push_str(&line.repeat(56));
    assert_eq!(code(&scenario), None, "one such note is dear and honest");
    let entry = scenario.bundle.log_entries[0].clone();
    scenario.bundle.log_entries = vec![entry; 32];
    assert_eq!(code(&scenario), Some(ReasonCode::BudgetExceeded));
    let leaf = scenario.signer.certificate.clone();
    scenario.evidence.add_crl(&scenario.world.intermediate.crl(SIGNED_AT - 5, &[&leaf])).unwrap();
    let verifier = scenario.verifier().unwrap();
    verifier.prepare(&mut scenario.evidence);
    assert_eq!(scenario.verify_with(&verifier).err().map(|denial| denial.code), Some(ReasonCode::Revoked));
}

#[derive(Default)]
struct Set(Mutex<HashSet<[u8; 32]>>);

impl SignatureCache for Set {
    fn contains(&self, key: &[u8; 32]) -> bool {
        self.0.lock().unwrap().contains(key)
    }
    fn insert(&self, key: [u8; 32]) {
        self.0.lock().unwrap().insert(key);
    }
}

#[test]
fn a_cache_changes_no_decision() {
    for case in cases::all() {
        let scenario = (case.build)();
        let Ok(verifier) = scenario.verifier() else { continue };
        let cache = Arc::new(Set::default());
        let verifier = verifier.with_cache(cache.clone());
        for _ in 0..2 {
            assert_eq!(
                scenario.verify_with(&verifier).err().map(|denial| denial.code),
                Some(case.code),
                "{}",
                case.name
            );
        }
    }
    let scenario = Scenario::valid();
    let verifier = scenario.verifier().unwrap().with_cache(Arc::new(Set::default()));
    assert!(scenario.verify_with(&verifier).is_ok() && scenario.verify_with(&verifier).is_ok());
}

#[test]
fn prepared_evidence_decides_the_same() {
    let mut scenario = Scenario::valid();
    let verifier = scenario.verifier().unwrap();
    verifier.prepare(&mut scenario.evidence);
    assert!(
        scenario
            .evidence
            .revocation()
            .crls
            .iter()
            .any(|crl| crl.was_verified_with(&scenario.world.root.certificate))
    );
    assert!(scenario.verify_with(&verifier).is_ok());
}

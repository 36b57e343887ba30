//! What holds for whatever is generated: nothing altered is admitted, no revocation is talked away, forms are canonical.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod fixture;
mod forge;

use std::collections::BTreeSet;
use std::sync::OnceLock;

use fixture::SIGNED_AT;
use fixture::scenario::Scenario;
use forge::{Ca, NOW, extension, tlv};
use proptest::prelude::*;
use trust_store::budget::Budget;
use trust_store::bundle::Bundle;
use trust_store::certificate::Certificate;
use trust_store::crl::Crl;
use trust_store::jcs;
use trust_store::json::{self, Value};
use trust_store::name_text;
use trust_store::path::{PathPolicy, build_path};
use trust_store::provider::AwsLc;
use trust_store::revocation::{RevocationCheck, RevocationEvidence, RevocationPolicy, RevocationStatus};
use trust_store::{ReasonCode, UnixTime};

fn scenario() -> &'static (Scenario, Vec<u8>) {
    static SCENARIO: OnceLock<(Scenario, Vec<u8>)> = OnceLock::new();
    SCENARIO.get_or_init(|| {
        let scenario = Scenario::valid();
        let bundle = scenario.bundle.to_json().unwrap();
        (scenario, bundle)
    })
}

/// Any JSON value without null and numbers beyond 53 bits, which canonical JSON refuses.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::Bool),
        (-(1_i64 << 53) + 1..1_i64 << 53).prop_map(Value::Integer),
        ".{0,12}".prop_map(Value::String),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
            prop::collection::btree_map(".{0,8}", inner, 0..6).prop_map(Value::Object),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    /// One altered byte anywhere in the bundle: either it means the same, or the artifact is not admitted.
    #[test]
    fn an_altered_bundle_is_not_admitted(at in any::<prop::sample::Index>(), new in any::<u8>()) {
        let (scenario, original) = scenario();
        let mut altered = original.clone();
        altered[at.index(original.len())] = new;
        let Ok(bundle) = Bundle::parse(&altered) else { return Ok(()) };
        if bundle == scenario.bundle {
            return Ok(());
        }
        let attestation = trust_store::attestation::Attestation::for_bundle(bundle);
        let Ok(attestation) = attestation else { return Ok(()) };
        let mut policy = scenario.policy.clone();
        policy.artifact = trust_store::policy::ArtifactPolicy::AnySignedArtifact;
        let digest = trust_store::ArtifactDigest::of(&scenario.module);
        let verifier = scenario.verifier().unwrap();
        let verdict = verifier.verify(&attestation, digest, &policy, &scenario.evidence, UnixTime(scenario.now));
        // What is not signed, or signed and judged by what it says: lines of unknown keys, what a token carries along, a
        // time that Rekor v2 does not state.
        let same = |bundle: &Bundle| {
            let mut bundle = bundle.clone();
            bundle.timestamps.clear();
            for entry in &mut bundle.log_entries {
                entry.integrated_time = 0;
                entry.inclusion_proof.as_mut().unwrap().checkpoint = String::new();
            }
            bundle
        };
        prop_assert!(verdict.is_err() || same(attestation.bundle()) == same(&scenario.bundle));
    }

    /// One altered byte of a certificate never leads to the same anchor.
    #[test]
    fn an_altered_certificate_has_no_path(at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        static CHAIN: OnceLock<(Ca, Certificate)> = OnceLock::new();
        let (ca, leaf) = CHAIN.get_or_init(|| {
            let ca = Ca::root("root");
            let leaf = ca.leaf(|_| {});
            (ca, leaf)
        });
        let mut der = leaf.der().to_vec();
        let at = at.index(der.len());
        der[at] ^= 1 << bit;
        let Ok(altered) = Certificate::from_der(&der) else { return Ok(()) };
        let anchors = std::slice::from_ref(&ca.certificate);
        prop_assert!(build_path(&altered, &[], anchors, NOW, &PathPolicy::default(), &AwsLc).is_err());
    }

    /// A list says "revoked" of exactly the serial numbers that stand in it, in whatever order.
    #[test]
    fn a_list_knows_its_serials(listed in prop::collection::btree_set(1_u16..400, 0..60), asked in 1_u16..400) {
        let ca = Ca::root("root");
        let octets = |n: u16| [&[0x01][..], &n.to_be_bytes()].concat();
        let serials: Vec<Vec<u8>> = listed.iter().rev().map(|n| octets(*n)).collect();
        let entries: Vec<(&[u8], Vec<Vec<u8>>)> = serials.iter().map(|serial| (serial.as_slice(), vec![])).collect();
        let crl = Crl::from_der(&ca.crl(&entries, &[])).unwrap();
        let found = crl.entry(&octets(asked), crl.issuer_name());
        prop_assert_eq!(found.is_some(), listed.contains(&asked));
        let all: BTreeSet<Vec<u8>> = crl.entries().map(|(serial, _)| serial.to_vec()).collect();
        prop_assert_eq!(all.len(), listed.len());
    }

    /// Whatever other evidence is put beside it, in any order, an authentic revocation stands.
    #[test]
    fn no_evidence_talks_a_revocation_away(order in Just((0..6_usize).collect::<Vec<_>>()).prop_shuffle(), count in 0..6_usize) {
        static LISTS: OnceLock<(Ca, Certificate, Vec<Crl>, Crl)> = OnceLock::new();
        let (ca, leaf, others, revoking) = LISTS.get_or_init(|| {
            let ca = Ca::root("root");
            let leaf = ca.leaf(|body| body.serial = vec![0x42]);
            let number = |n: u8| extension("2.5.29.20", false, &tlv(2, &[&[n]]));
            let delta = |n: u8| vec![number(n), extension("2.5.29.27", true, &tlv(2, &[&[1]]))];
            let stranger = Ca::root("root");
            let read = |der: Vec<u8>| Crl::from_der(&der).unwrap();
            let old = ca.crl_between(NOW.plus(-9), NOW.plus(-8), &[], &[number(1)]);
            let others = vec![
                read(ca.crl(&[], &[number(9)])),
                read(ca.crl(&[], &delta(10))),
                read(stranger.crl(&[], &[number(11)])),
                read(ca.crl(&[(&[0x43], vec![])], &[number(12)])),
                read(old),
                read(ca.crl_between(NOW, NOW.plus(60), &[], &[number(13)])),
            ];
            let revoking = read(ca.crl(&[(&[0x42], vec![])], &[number(2)]));
            (ca, leaf, others, revoking)
        });
        let mut crls: Vec<Crl> = order.iter().take(count).map(|n| others[*n].clone()).collect();
        crls.insert(order[0].min(count), revoking.clone());
        let evidence = RevocationEvidence { crls, ..RevocationEvidence::default() };
        let policy = RevocationPolicy::default();
        let check = RevocationCheck {
            evidence: &evidence, policy: &policy, now: NOW, proven_at: None, intermediates: &[], verifier: &AwsLc,
        };
        let found = check.assess(leaf, &ca.certificate, &mut Budget::default()).unwrap();
        let revoked = matches!(found.status, RevocationStatus::Revoked { .. }) || found.revoked_by_old_evidence.is_some();
        prop_assert!(revoked, "{:?}", found);
    }

    /// Canonical JSON is a fixed point and does not depend on the order of members.
    #[test]
    fn canonical_json_is_a_fixed_point(value in value()) {
        let canonical = jcs::canonicalize(&value).unwrap();
        let again: Value = json::parse("value", &canonical, 1 << 20).unwrap();
        prop_assert_eq!(&again, &value);
        prop_assert_eq!(jcs::canonicalize(&again).unwrap(), canonical);
    }

    /// Text of a name leads back to the same name.
    #[test]
    fn names_survive_their_text(parts in prop::collection::vec("[^\\x00]{1,12}", 1..4)) {
        let escaped: Vec<String> = parts
            .iter()
            .map(|part| format!("CN=#0c{:02x}{}", part.len(), hex::encode(part)))
            .collect();
        let Ok(der) = name_text::parse(&escaped.join(",")) else { return Ok(()) };
        let text = name_text::format_name(&der);
        prop_assert_eq!(name_text::parse(&text).unwrap(), der, "{}", text);
    }

    /// Every second of four centuries has one text, which is read back.
    #[test]
    fn times_survive_their_text(seconds in -62_000_000_000_i64..10_000_000_000) {
        let time = UnixTime(seconds);
        prop_assert_eq!(UnixTime::from_rfc3339(&time.to_rfc3339()), Some(time));
    }
}

#[test]
fn the_scenario_itself_is_admitted() {
    let (scenario, original) = scenario();
    assert!(scenario.verify().is_ok());
    assert_eq!(Bundle::parse(original).unwrap(), scenario.bundle);
    let mut later = Scenario::valid();
    later.now = SIGNED_AT + 7 * 86_400;
    assert_eq!(later.verify().map(|_| ()).unwrap_err().code, ReasonCode::CheckpointStale);
}

//! What holds for whatever is generated: nothing altered is admitted, no revocation is talked away, forms are canonical.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::fixture;
use crate::forge;

use std::collections::BTreeSet;
use std::sync::OnceLock;

use fixture::SIGNED_AT;
use fixture::cases::{self, provenance, sha256};
use fixture::ocsp::{self, Status};
use fixture::scenario::Scenario;
use forge::{Ca, NOW, extension, tlv};
use proptest::prelude::*;
use trust_store::attestation::{MAX_CHAIN, MAX_FURTHER_BUNDLES, MAX_STAPLES};
use trust_store::budget::Budget;
use trust_store::bundle::Bundle;
use trust_store::certificate::Certificate;
use trust_store::crl::Crl;
use trust_store::jcs;
use trust_store::json::{self, Bytes, Value};
use trust_store::name_text;
use trust_store::path::{PathPolicy, build_path};
use trust_store::provider::AwsLc;
use trust_store::revocation::{RevocationCheck, RevocationEvidence, RevocationPolicy, RevocationStatus};
use trust_store::statement::Statement;
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

/// Something that is denied, and what a stranger can make in the names that it has to do with.
struct Denied {
    name: &'static str,
    scenario: Scenario,
    crls: Vec<Bytes>,
    ocsp: Vec<Bytes>,
    candidates: Vec<Certificate>,
    bundles: Vec<Bundle>,
}

impl Denied {
    fn new(name: &'static str, scenario: Scenario) -> Self {
        let world = &scenario.world;
        let leaf = scenario.signer.certificate.clone();
        let altered = |mut der: Vec<u8>| {
            *der.last_mut().unwrap() ^= 1;
            Bytes(der)
        };
        // Authorities of the same names and identifiers with other keys.
        let identifier = |ca: &Certificate| ca.subject_key_identifier().unwrap().to_vec();
        let twins: Vec<_> = (0..4)
            .map(|_| {
                world.root.intermediate("MentatLab Agent CA", |params| {
                    let of = identifier(&world.intermediate.certificate);
                    params.key_identifier_method = rcgen::KeyIdMethod::PreSpecified(of);
                })
            })
            .collect();
        let other_root = fixture::authority::Ca::root("MentatLab Root CA");
        let strangers = strangers();
        let mut crls = vec![Bytes(other_root.crl(SIGNED_AT, &[]))];
        let mut ocsp = Vec::new();
        for (age, twin) in (0..).zip(&twins) {
            crls.push(Bytes(twin.crl(SIGNED_AT + age, &[])));
            crls.push(Bytes(twin.crl(SIGNED_AT - age, &[&leaf])));
            crls.push(altered(world.root.crl(SIGNED_AT + age, &[])));
            crls.push(altered(world.intermediate.crl(SIGNED_AT + age, &[])));
            crls.push(Bytes(strangers[0].crl(SIGNED_AT + age, &[])));
            ocsp.push(Bytes(ocsp::answer(twin, &leaf, Status::Good, SIGNED_AT + age)));
            ocsp.push(altered(ocsp::answer(&world.intermediate, &leaf, Status::Good, SIGNED_AT + age)));
        }
        let mut elsewhere = fixture::scenario::World::new();
        let stranger = elsewhere.leaf("reviewer@example.com");
        let statements = [
            Statement::endorsement(&scenario.manifest, &sha256(&scenario.module)),
            provenance(&scenario.module, "https://builder.example/v1"),
        ];
        let mut bundles: Vec<Bundle> =
            statements.iter().map(|statement| elsewhere.sign_statement(statement, &stranger)).collect();
        bundles.push(scenario.bundle.clone());
        let mut candidates: Vec<Certificate> =
            twins.iter().map(|twin| twin.certificate.clone()).chain([other_root.certificate, leaf]).collect();
        candidates.push(world.root.certificate.clone());
        candidates.extend(strangers.iter().map(|stranger| stranger.certificate.clone()));
        Self { name, scenario, crls, ocsp, candidates, bundles }
    }
}

/// Authorities of the issuer's name with P-384 keys, whose signatures are dear to check.
fn strangers() -> &'static [fixture::authority::Ca] {
    static STRANGERS: OnceLock<Vec<fixture::authority::Ca>> = OnceLock::new();
    STRANGERS.get_or_init(|| (0..14).map(|_| fixture::authority::Ca::root("MentatLab Agent CA")).collect())
}

/// Every denial, and a signer and a timestamp authority that only one piece of evidence shows to be revoked.
fn denied() -> &'static [Denied] {
    static DENIED: OnceLock<Vec<Denied>> = OnceLock::new();
    DENIED.get_or_init(|| {
        // Of a bare bundle, and of one that is too large, nothing hangs that could be added to.
        let complete = |scenario: &Scenario| scenario.with_manifest && scenario.attestation().is_ok();
        let mut all: Vec<Denied> = cases::all()
            .map(|case| (case.name, (case.build)()))
            .filter(|(_, scenario)| complete(scenario))
            .map(|(name, scenario)| Denied::new(name, scenario))
            .collect();
        let mut by_answer = Scenario::valid();
        let world = &by_answer.world;
        let revoked =
            ocsp::answer(&world.intermediate, &by_answer.signer.certificate, Status::Revoked, SIGNED_AT);
        by_answer.evidence.add_ocsp(&revoked).unwrap();
        all.push(Denied::new("a signer that only an OCSP answer revokes", by_answer));
        let mut authority = Scenario::valid();
        let list = authority.world.root.crl(SIGNED_AT - 5, &[&authority.world.tsa.certificate]);
        authority.evidence.add_crl(&list).unwrap();
        all.push(Denied::new("a timestamp authority that only an older list revokes", authority));
        all
    })
}

fn some<T: Clone>(pool: &[T], picks: &[prop::sample::Index]) -> Vec<T> {
    picks.iter().map(|pick| pool[pick.index(pool.len())].clone()).collect()
}

fn picks(most: usize) -> impl Strategy<Value = Vec<prop::sample::Index>> {
    prop_oneof![Just(0..1), Just(0..most + 1), Just(most..most + 1)]
        .prop_flat_map(|count| prop::collection::vec(any::<prop::sample::Index>(), count))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(160) })]

    /// Whoever writes an attestation brings along what they like: nothing that is denied is admitted because of it.
    #[test]
    fn junk_never_turns_a_denial_into_an_admission(
        at in any::<prop::sample::Index>(), crls in picks(MAX_STAPLES), answers in picks(MAX_STAPLES),
        candidates in picks(MAX_CHAIN - 2), bundles in picks(MAX_FURTHER_BUNDLES), prepared in any::<bool>(),
    ) {
        let denied = &denied()[at.index(denied().len())];
        let scenario = &denied.scenario;
        let mut staples = scenario.staples.clone();
        staples.crl.extend(some(&denied.crls, &crls));
        staples.ocsp.extend(some(&denied.ocsp, &answers));
        let mut chain = scenario.chain.clone();
        chain.extend(some(&denied.candidates, &candidates));
        let mut further = scenario.further.clone();
        further.extend(some(&denied.bundles, &bundles));
        further.truncate(MAX_FURTHER_BUNDLES);
        let Ok(attestation) = scenario.attestation_of(&chain, &staples, &further) else { return Ok(()) };
        let verifier = scenario.verifier().unwrap();
        let mut evidence = scenario.evidence.clone();
        if prepared {
            verifier.prepare(&mut evidence);
        }
        let digest = trust_store::ArtifactDigest::of(&scenario.module);
        let now = UnixTime(scenario.now);
        let verdict = verifier.verify(&attestation, digest, &scenario.policy, &evidence, now);
        prop_assert!(verdict.is_err(), "{}", denied.name);
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

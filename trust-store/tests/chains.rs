//! The chains behind a decision: which they are, and that each of them is looked at.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::fixture;

use fixture::SIGNED_AT;
use fixture::authority::Ca;
use fixture::cases::sha256;
use fixture::scenario::{MODULE, Scenario, World, rule};
use trust_store::attestation::MAX_FURTHER_BUNDLES;
use trust_store::bundle::MAX_EVIDENCE;
use trust_store::dsse::IN_TOTO_PAYLOAD_TYPE;
use trust_store::key_details::KeyDetails;
use trust_store::policy::{EndorsementPolicy, FreshnessPolicy, SigningTimePolicy, TrustLevel};
use trust_store::statement::Statement;
use trust_store::trusted_root::{Authority, CertificateChain};
use trust_store::verifier::Deciding;
use trust_store::{ArtifactDigest, Certificate, ReasonCode, UnixTime};

fn chains(scenario: &Scenario) -> Vec<Vec<Certificate>> {
    chains_of(scenario, Deciding::ByAnyPolicy).unwrap()
}

/// Those that the decision of the scenario rests on.
fn own_chains(scenario: &Scenario) -> Result<Vec<Vec<Certificate>>, ReasonCode> {
    chains_of(scenario, Deciding::By(&scenario.policy))
}

fn chains_of(scenario: &Scenario, deciding: Deciding<'_>) -> Result<Vec<Vec<Certificate>>, ReasonCode> {
    let attestation = scenario.attestation().unwrap();
    let (digest, now) = (ArtifactDigest::of(MODULE), UnixTime(scenario.now));
    match scenario.verifier().unwrap().chains(&attestation, digest, deciding, now) {
        Ok(chains) => Ok(chains.iter().map(|chain| chain.certificates().to_vec()).collect()),
        Err(denial) => Err(denial.code),
    }
}

/// Lets anybody who endorses count.
fn ask_for_endorsements(scenario: &mut Scenario) {
    scenario.policy.endorsements = EndorsementPolicy::AtLeast {
        count: 1.try_into().unwrap(),
        endorsers: vec![rule("*@example.com", TrustLevel::Signed)],
    };
}

#[test]
fn only_chains_to_an_anchor_are_named() {
    let mut scenario = Scenario::valid();
    let (root, tsa) = (scenario.world.root.certificate.clone(), scenario.world.tsa.certificate.clone());
    let signer = [&scenario.chain[..], std::slice::from_ref(&root)].concat();
    let stamped = vec![tsa, root];
    assert_eq!(chains(&scenario), [signer.clone(), stamped.clone()]);
    // A certificate that came along and a bundle of somebody unknown name nobody to be asked; an endorser does.
    scenario.chain.push(Ca::root("Stranger").certificate);
    let mut elsewhere = World::new();
    let stranger = elsewhere.leaf("a@example.com");
    let endorsement = Statement::endorsement(&scenario.manifest, &sha256(MODULE));
    scenario.further.push(elsewhere.sign_statement(&endorsement, &stranger));
    assert_eq!(chains(&scenario), [signer.clone(), stamped.clone()]);
    let endorser = scenario.world.leaf("b@example.com");
    scenario.further.push(scenario.world.sign_statement(&endorsement, &endorser));
    let endorsed = [&[endorser.certificate], &signer[1..]].concat();
    assert_eq!(chains(&scenario), [signer.clone(), stamped.clone(), endorsed.clone(), stamped.clone()]);
    // A decision that asks nobody to endorse rests on its signer alone.
    assert_eq!(own_chains(&scenario), Ok(vec![signer.clone(), stamped.clone()]));
    ask_for_endorsements(&mut scenario);
    assert_eq!(own_chains(&scenario), Ok(vec![signer, stamped.clone(), endorsed, stamped]));
    // What policy accepts is another question: somebody whose key it does not accept can still be revoked.
    scenario.policy.algorithms = vec![KeyDetails::Ed25519];
    assert_eq!(chains(&scenario).len(), 4);
    scenario.root.certificate_authorities.clear();
    assert!(chains(&scenario).is_empty());
}

/// Anybody can log a public signature again, at any later time, and attach that entry.
#[test]
fn a_later_entry_takes_no_chain_away() {
    for deciding_by_tokens in [true, false] {
        let mut scenario = Scenario::valid();
        let expected = chains(&scenario);
        scenario.now = scenario.signer.certificate.not_after().0 + 86_400;
        let entry = &mut scenario.bundle.log_entries[0];
        scenario.world.log.promise(entry, scenario.now);
        scenario.evidence = scenario.world.evidence(scenario.now - 60, &[]);
        scenario.policy.freshness = FreshnessPolicy::AttestedCheckpointSuffices;
        if !deciding_by_tokens {
            scenario.policy.signing_time = SigningTimePolicy::TokenOrLogTime;
            assert_eq!(
                scenario.verify().err().map(|denial| denial.code),
                Some(ReasonCode::ExpiredAtSigning),
                "the later time counts where the policy looks at it"
            );
        }
        assert_eq!(chains(&scenario), expected);
        assert_eq!(own_chains(&scenario), Ok(expected));
    }
}

/// Bundles of a stranger, each as dear as one can be: with the most tokens of an authority that stamps for everybody.
#[test]
fn junk_never_silently_keeps_an_endorser_from_being_asked_about() {
    let statement = |scenario: &Scenario| Statement::endorsement(&scenario.manifest, &sha256(MODULE));
    for (payload_type, expected) in
        [("text/plain", Ok(4)), (IN_TOTO_PAYLOAD_TYPE, Err(ReasonCode::BudgetExceeded))]
    {
        let mut scenario = Scenario::valid();
        ask_for_endorsements(&mut scenario);
        let mut elsewhere = World::new();
        let stranger = elsewhere.leaf("stranger@example.com");
        let payload = statement(&scenario).to_payload().unwrap();
        let mut junk = elsewhere.sign(payload_type, payload, &stranger);
        let token = scenario.world.tsa.stamp(junk.signature().unwrap(), SIGNED_AT);
        junk.timestamps = vec![token; MAX_EVIDENCE];
        scenario.further = vec![junk; MAX_FURTHER_BUNDLES - 1];
        let endorser = scenario.world.leaf("b@example.com");
        let endorsement = statement(&scenario);
        scenario.further.push(scenario.world.sign_statement(&endorsement, &endorser));
        assert_eq!(own_chains(&scenario).map(|chains| chains.len()), expected, "{payload_type}");
        let every = chains_of(&scenario, Deciding::ByAnyPolicy).map(|chains| chains.len());
        assert_eq!(every, expected, "{payload_type}");
    }
}

/// An issuer that two roots certify, one after the other.
#[test]
fn every_chain_of_a_signer_with_several_signing_times_is_looked_at() {
    let mut scenario = Scenario::valid();
    let successor = Ca::root("MentatLab Second Root CA");
    let crossed = successor.issue(&scenario.world.intermediate.params, &scenario.world.intermediate.key);
    let first = &mut scenario.root.certificate_authorities[0];
    let chain = CertificateChain::new([crossed.der().to_vec(), successor.certificate.der().to_vec()]);
    let mut second = Authority { cert_chain: chain, ..first.clone() };
    first.valid_for.end = Some(UnixTime(SIGNED_AT + 59));
    second.valid_for.start = Some(UnixTime(SIGNED_AT + 60));
    scenario.root.certificate_authorities.push(second);
    let signature = scenario.bundle.signature().unwrap().to_vec();
    scenario.bundle.timestamps.push(scenario.world.tsa.stamp(&signature, SIGNED_AT + 60));
    scenario.evidence.add_crl(&successor.crl(SIGNED_AT, &[])).unwrap();
    assert!(scenario.verify().is_ok());
    assert_eq!(chains(&scenario).len(), 4, "two of the signer, two of the authority");
    for (issuer, certificate) in
        [(&scenario.world.root, &scenario.world.intermediate.certificate), (&successor, &crossed)]
    {
        let without = scenario.evidence.clone();
        scenario.evidence.add_crl(&issuer.crl(SIGNED_AT - 5, &[certificate])).unwrap();
        let denied = scenario.verify().err().map(|denial| denial.code);
        assert_eq!(denied, Some(ReasonCode::Revoked), "{}", certificate.to_pem());
        scenario.evidence = without;
    }
}

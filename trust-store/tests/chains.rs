//! The chains behind a decision: which they are, and that each of them is looked at.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod fixture;

use fixture::authority::Ca;
use fixture::cases::sha256;
use fixture::scenario::{MODULE, Scenario, World};
use fixture::{NOW, SIGNED_AT};
use trust_store::key_details::KeyDetails;
use trust_store::statement::Statement;
use trust_store::trusted_root::{Authority, CertificateChain};
use trust_store::{ArtifactDigest, Certificate, ReasonCode, UnixTime};

fn chains(scenario: &Scenario) -> Vec<Vec<Certificate>> {
    let attestation = scenario.attestation().unwrap();
    let chains = scenario.verifier().unwrap().chains(&attestation, ArtifactDigest::of(MODULE), UnixTime(NOW));
    chains.iter().map(|chain| chain.certificates().to_vec()).collect()
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
    assert_eq!(chains(&scenario), [signer, stamped.clone(), endorsed, stamped]);
    // What policy accepts is another question: somebody whose key it does not accept can still be revoked.
    scenario.policy.algorithms = vec![KeyDetails::Ed25519];
    assert_eq!(chains(&scenario).len(), 4);
    scenario.root.certificate_authorities.clear();
    assert!(chains(&scenario).is_empty());
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

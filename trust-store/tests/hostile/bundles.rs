//! A whole attestation that uses up everything that one verification may cost.

use rcgen::{CertificateRevocationListParams, KeyIdMethod, RevokedCertParams, SerialNumber};
use trust_store::ReasonCode;
use trust_store::attestation::MAX_FURTHER_BUNDLES;
use trust_store::json::Bytes;
use trust_store::policy::{EndorsementPolicy, TrustLevel};
use trust_store::statement::Statement;
use trust_store::trusted_root::CertificateChain;

use super::{Attack, Ended};
use crate::fixture::SIGNED_AT;
use crate::fixture::authority::{Embedded, at, leaf};
use crate::fixture::cases::sha256;
use crate::fixture::scenario::{MODULE, Scenario, rule};

pub(crate) fn all() -> Vec<Attack> {
    vec![thirty_two_endorsements()]
}

/// The most further bundles, each with a note of the most lines that all verify, and large lists in the name of the
/// endorsers' authority that nobody signed. The release's own chain has evidence of its own, so that all of it is reached.
fn thirty_two_endorsements() -> Attack {
    let mut scenario = Scenario::valid();
    let authority = scenario.world.root.intermediate("MentatLab Review CA", |_| {});
    let mut trusted = scenario.root.certificate_authorities[0].clone();
    let chain = [&authority.certificate, &scenario.world.root.certificate];
    trusted.cert_chain = CertificateChain::new(chain.map(|certificate| certificate.der().to_vec()));
    scenario.root.certificate_authorities.push(trusted);
    scenario.evidence.add_crl(&authority.crl(SIGNED_AT, &[])).unwrap();
    let statement = Statement::endorsement(&scenario.manifest, &sha256(MODULE));
    for number in 0..MAX_FURTHER_BUNDLES {
        let email = format!("reviewer{number}@example.com");
        let reviewer = leaf(&authority, &scenario.world.certificate_log, &email, Embedded::Timestamp, |_| {});
        let mut bundle = scenario.world.sign_statement(&statement, &reviewer);
        let note = &mut bundle.log_entries[0].inclusion_proof.as_mut().unwrap().checkpoint;
        let line = note.lines().last().unwrap().to_owned() + "\n";
        note.push_str(&line.repeat(56));
        scenario.further.push(bundle);
    }
    let identifier = authority.certificate.subject_key_identifier().unwrap().to_vec();
    let twin = scenario.world.root.intermediate("MentatLab Review CA", |_| {});
    let revoked_certs = (0..12_000_u32)
        .map(|number| RevokedCertParams {
            serial_number: SerialNumber::from_slice(&[&[0x11], &number.to_be_bytes()[..], &[7; 11]].concat()),
            revocation_time: at(SIGNED_AT),
            reason_code: None,
            invalidity_date: None,
        })
        .collect();
    let list = CertificateRevocationListParams {
        this_update: at(SIGNED_AT),
        next_update: at(SIGNED_AT + 86_400),
        crl_number: SerialNumber::from(9),
        issuing_distribution_point: None,
        revoked_certs,
        key_identifier_method: KeyIdMethod::PreSpecified(identifier),
    };
    let list = list.signed_by(&twin.issuer()).unwrap().der().to_vec();
    scenario.staples.crl = (0..30).map(|_| Bytes(list.clone())).collect();
    scenario.policy.identities = vec![rule("dev@example.com", TrustLevel::Signed)];
    scenario.policy.required_level = TrustLevel::Community;
    scenario.policy.endorsements = EndorsementPolicy::AtLeast {
        count: 32.try_into().unwrap(),
        endorsers: vec![rule("*@example.com", TrustLevel::Signed)],
    };
    let attestation = scenario.attestation().unwrap();
    let verifier = scenario.verifier().unwrap();
    let judge = move || {
        let verdict = scenario.verify_attestation(&verifier, &attestation);
        Ended { code: verdict.err().map(|denial| denial.code), spent: (0, 0) }
    };
    Attack {
        name: "32 endorsements of 60 lines and 30 giant lists",
        code: ReasonCode::BudgetExceeded,
        judge: Box::new(judge),
    }
}

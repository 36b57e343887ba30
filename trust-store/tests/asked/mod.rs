//! Responders that are asked: whom a certificate names, what the question is, and what the kept answers count for.

use sha2::{Digest as _, Sha256};
use trust_store::ocsp::OcspResponse;
use trust_store::ocsp_request::{request, responders};
use trust_store::provider::AwsLc;
use trust_store::revocation::{Answers, RevocationEvidence, RevocationStatus};
use trust_store::{ReasonCode, UnixTime};

use super::{SERIAL, check, leaf, responses, strict};
use crate::forge::{Ca, DAY, Key, NOW, extension, good, ocsp, revoked, seq, single, tlv};
use trust_store::budget::Budget;
use trust_store::path::{PathPolicy, build_path};

const TOMORROW: Option<UnixTime> = Some(NOW.plus(DAY));

fn answered(certificate: &trust_store::Certificate, response: &[u8]) -> RevocationEvidence {
    let answer = OcspResponse::from_der(response).unwrap();
    RevocationEvidence {
        answers: Answers::new([(certificate.fingerprint(), answer)]),
        ..RevocationEvidence::default()
    }
}

#[test]
fn a_question_names_one_certificate_of_one_issuer() {
    let ca = Ca::root("ca");
    let leaf = leaf(&ca);
    let sha256 = seq(&[&crate::forge::oid("2.16.840.1.101.3.4.2.1")]);
    let hashed = |bytes: &[u8]| tlv(4, &[&Sha256::digest(bytes)]);
    let id = seq(&[
        &sha256,
        &hashed(ca.certificate.subject_der()),
        &hashed(ca.certificate.public_key()),
        &tlv(2, &[SERIAL]),
    ]);
    assert_eq!(request(&leaf, &ca.certificate), seq(&[&seq(&[&seq(&[&seq(&[&id])])])]));
}

#[test]
fn only_http_addresses_of_responders_are_to_be_asked() {
    let ca = Ca::root("ca");
    let access = |method: &str, uri: &str| seq(&[&crate::forge::oid(method), &tlv(0x86, &[uri.as_bytes()])]);
    let (ocsp, issuers) = ("1.3.6.1.5.5.7.48.1", "1.3.6.1.5.5.7.48.2");
    let all = seq(&[
        &access(issuers, "http://ca.example/ca.cer"),
        &access(ocsp, "ldap://ca.example/"),
        &access(ocsp, "http://ca.example/ocsp"),
        &access(ocsp, &format!("http://ca.example/{}", "x".repeat(3000))),
        &access(ocsp, "https://other.example/ocsp"),
    ]);
    let certificate = ca.leaf(|body| body.extensions = vec![extension("1.3.6.1.5.5.7.1.1", false, &all)]);
    assert_eq!(responders(&certificate), ["http://ca.example/ocsp", "https://other.example/ocsp"]);
    assert!(responders(&leaf(&ca)).is_empty());
}

#[test]
fn an_answer_counts_for_the_certificate_that_it_was_asked_about_and_is_weighed_like_every_other() {
    let ca = Ca::root("ca");
    let (leaf, other) = (leaf(&ca), ca.leaf(|body| body.serial = vec![0x43]));
    let about = |serial: &[u8], status: &[u8], key: &Key| {
        ocsp("ca", key, &[single(&ca.sha1_id(serial), status, TOMORROW, &[])], &[], &[])
    };
    let status = |evidence: &RevocationEvidence| {
        let policy = strict();
        check(evidence, &policy, NOW).assess(&leaf, &ca.certificate, &mut Budget::default()).unwrap().status
    };
    let fine = about(SERIAL, &good(), &ca.key);
    assert!(matches!(status(&answered(&leaf, &fine)), RevocationStatus::Good { .. }));
    // Filed under another certificate it is not looked at, and one about another certificate says nothing here.
    assert_eq!(status(&answered(&other, &fine)), RevocationStatus::Unknown);
    assert_eq!(status(&answered(&leaf, &about(&[0x43], &good(), &ca.key))), RevocationStatus::Unknown);
    assert_eq!(status(&answered(&leaf, &about(SERIAL, &good(), &Key::new()))), RevocationStatus::Unknown);
    // It ends like every other: what was asked for and not asked for again says nothing any more.
    let later = NOW.plus(2 * DAY);
    let policy = strict();
    let fresh = answered(&leaf, &fine);
    let stale = check(&fresh, &policy, later).assess(&leaf, &ca.certificate, &mut Budget::default()).unwrap();
    assert_eq!(stale.status, RevocationStatus::Unknown);
    assert_eq!(stale.shortfall.unwrap().code, ReasonCode::RevocationStale);
    // "Revoked" wins over any "good", wherever each stands.
    let gone = about(SERIAL, &revoked(NOW.plus(-DAY)), &ca.key);
    let mut both = answered(&leaf, &gone);
    both.ocsp = responses(std::slice::from_ref(&fine)).ocsp;
    assert!(matches!(status(&both), RevocationStatus::Revoked { .. }));
    let mut both = answered(&leaf, &fine);
    both.ocsp = responses(std::slice::from_ref(&gone)).ocsp;
    assert!(matches!(status(&both), RevocationStatus::Revoked { .. }));
}

#[test]
fn no_junk_takes_the_budget_of_an_answer_that_was_authenticated_on_arrival() {
    let ca = Ca::root("ca");
    let leaf = leaf(&ca);
    let anchors = std::slice::from_ref(&ca.certificate);
    let chain = build_path(&leaf, &[], anchors, NOW, &PathPolicy::default(), &AwsLc).unwrap();
    let gone = [single(&ca.sha1_id(SERIAL), &revoked(NOW.plus(-DAY)), TOMORROW, &[])];
    let gone = OcspResponse::from_der(&ocsp("ca", &ca.key, &gone, &[], &[])).unwrap();
    let gone = gone.authenticate(&ca.certificate, NOW, &AwsLc).unwrap();
    let junk = ocsp("ca", &Key::new(), &[single(&ca.sha1_id(SERIAL), &good(), TOMORROW, &[])], &[], &[]);
    let mut evidence = responses(&[junk.clone(), junk]);
    let decide = |evidence: &RevocationEvidence| {
        let mut budget = Budget { signature_checks: 1, ..Budget::default() };
        check(evidence, &strict(), NOW).check_chain(&chain, &mut budget).unwrap_err().code
    };
    assert_eq!(decide(&evidence), ReasonCode::BudgetExceeded);
    evidence.answers = Answers::new([(leaf.fingerprint(), gone)]);
    assert_eq!(decide(&evidence), ReasonCode::Revoked);
}

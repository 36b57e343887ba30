//! What revocation evidence counts, what it says, and how a chain is decided by it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "tests"
)]

#[path = "announced/mod.rs"]
mod announced;
#[path = "asked/mod.rs"]
mod asked;
use crate::forge;

use forge::{
    Ca, DAY, Key, NOW, OCSP_SIGNING, eku, extension, good, key_usage, ocsp, revoked, single, time, tlv,
};
use sha2::{Digest, Sha256};
use trust_store::budget::Budget;
use trust_store::certificate::Certificate;
use trust_store::crl::{Crl, RevocationReason};
use trust_store::ocsp::OcspResponse;
use trust_store::path::{PathPolicy, build_path};
use trust_store::provider::AwsLc;
use trust_store::revocation::{
    Assessment, EarlierSignatures, RevocationCheck, RevocationEvidence, RevocationMode, RevocationPolicy,
    RevocationStatus,
};
use trust_store::{Denial, ReasonCode, UnixTime};

const SERIAL: &[u8] = &[0x42];

fn leaf(ca: &Ca) -> Certificate {
    ca.leaf(|body| body.serial = SERIAL.to_vec())
}

fn crls(list: &[Vec<u8>]) -> RevocationEvidence {
    let crls = list.iter().map(|der| Crl::from_der(der).unwrap()).collect();
    RevocationEvidence { crls, ..RevocationEvidence::default() }
}

fn responses(list: &[Vec<u8>]) -> RevocationEvidence {
    let ocsp = list.iter().map(|der| OcspResponse::from_der(der).unwrap()).collect();
    RevocationEvidence { ocsp, ..RevocationEvidence::default() }
}

fn strict() -> RevocationPolicy {
    RevocationPolicy { clock_skew_seconds: 0, ..RevocationPolicy::default() }
}

fn check<'a>(
    evidence: &'a RevocationEvidence,
    policy: &'a RevocationPolicy,
    now: UnixTime,
) -> RevocationCheck<'a> {
    RevocationCheck { evidence, policy, now, proven_at: None, intermediates: &[], verifier: &AwsLc }
}

fn assess_at(evidence: &RevocationEvidence, leaf: &Certificate, ca: &Ca, now: UnixTime) -> Assessment {
    check(evidence, &strict(), now).assess(leaf, &ca.certificate, &mut Budget::default()).unwrap()
}

fn status(evidence: &RevocationEvidence, leaf: &Certificate, ca: &Ca) -> RevocationStatus {
    assess_at(evidence, leaf, ca, NOW).status
}

fn shortfall(evidence: &RevocationEvidence, leaf: &Certificate, ca: &Ca) -> ReasonCode {
    let assessment = assess_at(evidence, leaf, ca, NOW);
    assert_eq!(assessment.status, RevocationStatus::Unknown);
    assessment.shortfall.expect("an explanation").code
}

fn good_until_tomorrow() -> RevocationStatus {
    RevocationStatus::Good { this_update: NOW.plus(-DAY), next_update: NOW.plus(DAY) }
}

fn revoked_two_days_ago(reason: RevocationReason) -> RevocationStatus {
    RevocationStatus::Revoked { at: NOW.plus(-2 * DAY), reason }
}

fn number(id: &str, n: u8, critical: bool) -> Vec<u8> {
    extension(id, critical, &tlv(2, &[&[n]]))
}

fn point(uri: &str) -> Vec<u8> {
    tlv(0xa0, &[&tlv(0xa0, &[&tlv(0x86, &[uri.as_bytes()])])])
}

fn issuing_point(uri: &str) -> Vec<u8> {
    extension("2.5.29.28", true, &tlv(0x30, &[&point(uri)]))
}

fn distribution_point(uri: &str) -> Vec<u8> {
    extension("2.5.29.31", false, &tlv(0x30, &[&tlv(0x30, &[&point(uri)])]))
}

#[test]
fn a_current_crl_says_good_or_revoked_with_date_and_reason() {
    let ca = Ca::root("ca");
    let leaf = leaf(&ca);
    assert_eq!(status(&crls(&[ca.crl(&[(&[7], vec![])], &[])]), &leaf, &ca), good_until_tomorrow());
    let reason = extension("2.5.29.21", false, &tlv(0x0a, &[&[1]]));
    let list = crls(&[ca.crl(&[(SERIAL, vec![reason])], &[])]);
    assert_eq!(status(&list, &leaf, &ca), revoked_two_days_ago(RevocationReason::KeyCompromise));
    let invalidity = extension("2.5.29.24", false, &time(NOW.plus(-5 * DAY)));
    let list = crls(&[ca.crl(&[(SERIAL, vec![invalidity])], &[])]);
    let at = NOW.plus(-5 * DAY);
    assert_eq!(
        status(&list, &leaf, &ca),
        RevocationStatus::Revoked { at, reason: RevocationReason::Unspecified }
    );
}

#[test]
fn stale_early_or_missing_evidence_is_unknown() {
    let ca = Ca::root("ca");
    let leaf = leaf(&ca);
    assert_eq!(status(&RevocationEvidence::default(), &leaf, &ca), RevocationStatus::Unknown);
    for (from, to) in [(-3, -1), (1, 3)] {
        let list = crls(&[ca.crl_between(NOW.plus(from * DAY), NOW.plus(to * DAY), &[], &[])]);
        assert_eq!(shortfall(&list, &leaf, &ca), ReasonCode::RevocationStale);
    }
    let list = crls(&[ca.crl(&[], &[])]);
    let policy = RevocationPolicy { max_age_seconds: Some(DAY - 1), ..strict() };
    let assessment =
        check(&list, &policy, NOW).assess(&leaf, &ca.certificate, &mut Budget::default()).unwrap();
    assert_eq!(assessment.status, RevocationStatus::Unknown);
}

#[test]
fn a_crl_of_somebody_else_or_with_a_bad_signature_does_not_count() {
    let (ca, impostor, other) = (Ca::root("ca"), Ca::root("ca"), Ca::root("other"));
    let leaf = leaf(&ca);
    assert_eq!(shortfall(&crls(&[impostor.crl(&[], &[])]), &leaf, &ca), ReasonCode::SignatureInvalid);
    assert_eq!(status(&crls(&[other.crl(&[], &[])]), &leaf, &ca), RevocationStatus::Unknown);
    let no_crl_sign = Ca::root("root").subordinate("ca", |body| body.extensions[1] = key_usage(&[2, 0x04]));
    let leaf = no_crl_sign.leaf(|body| body.serial = SERIAL.to_vec());
    assert_eq!(
        shortfall(&crls(&[no_crl_sign.crl(&[], &[])]), &leaf, &no_crl_sign),
        ReasonCode::UsageNotAllowed
    );
}

#[test]
fn critical_extensions_that_are_not_recognised_make_a_crl_useless() {
    let ca = Ca::root("ca");
    let leaf = leaf(&ca);
    let odd = extension("1.2.3.4", true, &[5, 0]);
    assert_eq!(
        shortfall(&crls(&[ca.crl(&[], std::slice::from_ref(&odd))]), &leaf, &ca),
        ReasonCode::RevocationUnknown
    );
    let entry = ca.crl(&[(&[7], vec![odd])], &[]);
    assert_eq!(shortfall(&crls(&[entry]), &leaf, &ca), ReasonCode::RevocationUnknown);
}

#[test]
fn a_shard_speaks_only_for_certificates_that_name_it() {
    let ca = Ca::root("ca");
    let shard = |name: &str| {
        ca.leaf(|body| {
            body.serial = SERIAL.to_vec();
            body.extensions.push(distribution_point(name));
        })
    };
    let list = crls(&[ca.crl(&[], &[issuing_point("http://ca/1.crl")])]);
    assert_eq!(status(&list, &shard("http://ca/1.crl"), &ca), good_until_tomorrow());
    assert_eq!(status(&list, &shard("http://ca/2.crl"), &ca), RevocationStatus::Unknown);
    assert_eq!(status(&list, &leaf(&ca), &ca), RevocationStatus::Unknown);
    let asked = |uri: &str| {
        let rules = strict();
        let question = check(&list, &rules, NOW);
        question.assess_at(&leaf(&ca), &ca.certificate, uri, &mut Budget::default()).unwrap().status
    };
    assert_eq!(asked("http://ca/1.crl"), good_until_tomorrow());
    assert_eq!(asked("http://ca/2.crl"), RevocationStatus::Unknown);
}

#[test]
fn a_delta_changes_what_its_base_says() {
    let ca = Ca::root("ca");
    let leaf = leaf(&ca);
    let numbered = |n: u8| vec![number("2.5.29.20", n, false)];
    let delta_of = |base: u8, n: u8| vec![number("2.5.29.20", n, false), number("2.5.29.27", base, true)];
    let base = ca.crl(&[], &numbered(5));
    let adds = ca.crl(&[(SERIAL, vec![])], &delta_of(5, 6));
    let expected = revoked_two_days_ago(RevocationReason::Unspecified);
    assert_eq!(status(&crls(&[base.clone(), adds]), &leaf, &ca), expected);
    let alone = ca.crl(&[], &delta_of(5, 6));
    assert_eq!(status(&crls(&[alone]), &leaf, &ca), RevocationStatus::Unknown, "a delta alone says nothing");
    let too_new = ca.crl(&[(SERIAL, vec![])], &delta_of(6, 7));
    assert_eq!(status(&crls(&[base, too_new]), &leaf, &ca), good_until_tomorrow(), "it has another base");
    let hold = extension("2.5.29.21", false, &tlv(0x0a, &[&[6]]));
    let removed = extension("2.5.29.21", false, &tlv(0x0a, &[&[8]]));
    let on_hold = ca.crl(&[(SERIAL, vec![hold])], &numbered(5));
    let taken_back = ca.crl(&[(SERIAL, vec![removed])], &delta_of(5, 6));
    assert_eq!(status(&crls(&[on_hold, taken_back]), &leaf, &ca), good_until_tomorrow());
}

#[test]
fn after_expiry_only_a_crl_that_keeps_expired_certificates_serves() {
    let ca = Ca::root("ca");
    let leaf = ca.leaf(|body| {
        body.serial = SERIAL.to_vec();
        body.not_after = NOW.plus(-5 * DAY);
    });
    let kept = |since: i64| vec![extension("2.5.29.60", false, &time(NOW.plus(since * DAY)))];
    assert_eq!(shortfall(&crls(&[ca.crl(&[], &[])]), &leaf, &ca), ReasonCode::RevocationUnknown);
    assert_eq!(shortfall(&crls(&[ca.crl(&[], &kept(-4))]), &leaf, &ca), ReasonCode::RevocationUnknown);
    assert_eq!(status(&crls(&[ca.crl(&[], &kept(-6))]), &leaf, &ca), good_until_tomorrow());
    let answer =
        ocsp("ca", &ca.key, &[single(&ca.sha1_id(SERIAL), &good(), Some(NOW.plus(DAY)), &[])], &[], &[]);
    assert_eq!(shortfall(&responses(&[answer]), &leaf, &ca), ReasonCode::RevocationUnknown);
}

#[test]
fn ocsp_answers_of_the_issuer_and_its_delegate_count() {
    let ca = Ca::root("ca");
    let leaf = leaf(&ca);
    let tomorrow = Some(NOW.plus(DAY));
    let answer = [single(&ca.sha1_id(SERIAL), &good(), tomorrow, &[])];
    let expected = good_until_tomorrow();
    assert_eq!(status(&responses(&[ocsp("ca", &ca.key, &answer, &[], &[])]), &leaf, &ca), expected);
    let sha256 = ca.certificate_id("2.16.840.1.101.3.4.2.1", |data| Sha256::digest(data).to_vec(), SERIAL);
    let other = single(&ca.sha1_id(&[9]), &revoked(NOW), tomorrow, &[]);
    let several = [other, single(&sha256, &good(), tomorrow, &[])];
    assert_eq!(status(&responses(&[ocsp("ca", &ca.key, &several, &[], &[])]), &leaf, &ca), expected);
    let bad = [single(&ca.sha1_id(SERIAL), &revoked(NOW.plus(-2 * DAY)), tomorrow, &[])];
    let evidence = responses(&[ocsp("ca", &ca.key, &bad, &[], &[])]);
    assert_eq!(status(&evidence, &leaf, &ca), revoked_two_days_ago(RevocationReason::KeyCompromise));

    let nocheck = extension("1.3.6.1.5.5.7.48.1.5", false, &[5, 0]);
    let delegate = |issuer: &Ca, extensions: Vec<Vec<u8>>| {
        let key = Key::new();
        let certificate = issuer.leaf_with(&key, |body| {
            body.subject = "responder".into();
            body.extensions = extensions;
        });
        ocsp("responder", &key, &answer, &[], &[&certificate])
    };
    let fit = vec![key_usage(&[7, 0x80]), eku(&[OCSP_SIGNING]), nocheck.clone()];
    assert_eq!(status(&responses(&[delegate(&ca, fit.clone())]), &leaf, &ca), expected);
    for (extensions, reason) in [
        (vec![nocheck.clone()], ReasonCode::UsageNotAllowed),
        (vec![eku(&["2.5.29.37.0"]), nocheck.clone()], ReasonCode::UsageNotAllowed),
        (vec![key_usage(&[6, 0x40]), eku(&[OCSP_SIGNING]), nocheck], ReasonCode::UsageNotAllowed),
        (vec![eku(&[OCSP_SIGNING])], ReasonCode::RevocationUnknown),
    ] {
        assert_eq!(shortfall(&responses(&[delegate(&ca, extensions)]), &leaf, &ca), reason);
    }
    let impostor = Ca::root("ca");
    assert_eq!(shortfall(&responses(&[delegate(&impostor, fit)]), &leaf, &ca), ReasonCode::UnknownIssuer);
}

#[test]
fn ocsp_answers_that_are_not_current_authentic_or_understood_do_not_count() {
    let ca = Ca::root("ca");
    let leaf = leaf(&ca);
    let id = ca.sha1_id(SERIAL);
    let one = |single: Vec<u8>, extensions: &[Vec<u8>]| {
        responses(&[ocsp("ca", &ca.key, &[single], extensions, &[])])
    };
    let fine = single(&id, &good(), Some(NOW.plus(DAY)), &[]);
    let odd = extension("1.2.3.4", true, &[5, 0]);
    for (evidence, reason) in [
        (one(single(&id, &good(), Some(NOW.plus(-1)), &[]), &[]), ReasonCode::RevocationStale),
        (one(single(&id, &good(), None, &[]), &[]), ReasonCode::RevocationStale),
        (one(single(&id, &tlv(0x82, &[]), Some(NOW.plus(DAY)), &[]), &[]), ReasonCode::RevocationUnknown),
        (
            one(single(&id, &good(), Some(NOW.plus(DAY)), std::slice::from_ref(&odd)), &[]),
            ReasonCode::RevocationUnknown,
        ),
        (one(fine.clone(), &[odd]), ReasonCode::RevocationUnknown),
        (
            responses(&[ocsp("ca", &Key::new(), std::slice::from_ref(&fine), &[], &[])]),
            ReasonCode::SignatureInvalid,
        ),
        (responses(&[ocsp("x", &ca.key, &[fine], &[], &[])]), ReasonCode::UnknownIssuer),
    ] {
        assert_eq!(shortfall(&evidence, &leaf, &ca), reason);
    }
    let stranger = one(single(&Ca::root("ca").sha1_id(SERIAL), &good(), Some(NOW.plus(DAY)), &[]), &[]);
    assert_eq!(assess_at(&stranger, &leaf, &ca, NOW).shortfall, None);
    for (status, code) in
        [(1, ReasonCode::RevocationUnknown), (6, ReasonCode::RevocationUnknown), (4, ReasonCode::Malformed)]
    {
        let bare = tlv(0x30, &[&tlv(0x0a, &[&[status]])]);
        assert_eq!(OcspResponse::from_der(&bare).unwrap_err().code, code);
    }
}

fn chain_decision(
    evidence: &RevocationEvidence,
    policy: &RevocationPolicy,
    proven_at: Option<UnixTime>,
    leaf: &Certificate,
    root: &Ca,
) -> Result<usize, Denial> {
    let anchors = std::slice::from_ref(&root.certificate);
    let chain = build_path(leaf, &[], anchors, NOW, &PathPolicy::default(), &AwsLc).unwrap();
    let question = RevocationCheck { proven_at, ..check(evidence, policy, NOW) };
    question.check_chain(&chain, &mut Budget::default()).map(|proof| proof.statuses().len())
}

#[test]
fn any_revoked_wins_and_unknown_denies_by_default() {
    let ca = Ca::root("ca");
    let leaf = leaf(&ca);
    let listed = ca.crl(&[(SERIAL, vec![])], &[]);
    let clear = ca.crl(&[], &[]);
    let both = crls(&[clear.clone(), listed]);
    let decide = |evidence: &RevocationEvidence, policy: &RevocationPolicy| {
        chain_decision(evidence, policy, None, &leaf, &ca)
    };
    assert_eq!(decide(&both, &strict()).unwrap_err().code, ReasonCode::Revoked);
    assert_eq!(decide(&crls(&[clear]), &strict()), Ok(1));
    let nothing = RevocationEvidence::default();
    assert_eq!(decide(&nothing, &strict()).unwrap_err().code, ReasonCode::RevocationUnknown);
    let lax = RevocationPolicy { mode: RevocationMode::DangerIfPresent, ..strict() };
    assert_eq!(decide(&nothing, &lax), Ok(1));
    assert_eq!(decide(&both, &lax).unwrap_err().code, ReasonCode::Revoked);
    let old = crls(&[ca.crl_between(NOW.plus(-3 * DAY), NOW.plus(-DAY), &[(SERIAL, vec![])], &[])]);
    assert_eq!(decide(&old, &lax).unwrap_err().code, ReasonCode::Revoked, "revocations are not taken back");
    let old = crls(&[ca.crl_between(NOW.plus(-3 * DAY), NOW.plus(-DAY), &[], &[])]);
    assert_eq!(decide(&old, &strict()).unwrap_err().code, ReasonCode::RevocationStale);
    let skip = RevocationPolicy { mode: RevocationMode::DangerSkip, ..strict() };
    assert_eq!(decide(&both, &skip), Ok(0));
}

#[test]
fn a_signature_proven_before_the_revocation_stays_good_only_where_policy_says_so() {
    let ca = Ca::root("ca");
    let leaf = leaf(&ca);
    let evidence = crls(&[ca.crl(&[(SERIAL, vec![])], &[])]);
    let allow = RevocationPolicy { earlier_signatures: EarlierSignatures::AcceptProvenBefore, ..strict() };
    let before = Some(NOW.plus(-2 * DAY - 1));
    assert_eq!(chain_decision(&evidence, &allow, before, &leaf, &ca), Ok(1));
    for (policy, proven) in [(&strict(), before), (&allow, None), (&allow, Some(NOW.plus(-2 * DAY)))] {
        let denial = chain_decision(&evidence, policy, proven, &leaf, &ca).unwrap_err();
        assert_eq!(denial.code, ReasonCode::Revoked);
    }
}

#[test]
fn a_delta_that_revokes_denies_whatever_its_dates_and_its_base() {
    let ca = Ca::root("ca");
    let leaf = leaf(&ca);
    let numbered = |n: u8| vec![number("2.5.29.20", n, false)];
    let of_base = |base: u8, n: u8| vec![number("2.5.29.20", n, false), number("2.5.29.27", base, true)];
    let listing = |reason: u8| vec![(SERIAL, vec![extension("2.5.29.21", false, &tlv(0x0a, &[&[reason]]))])];
    let old = |signer: &Ca, reason: u8, base: u8, n: u8| {
        let (from, to) = (NOW.plus(-3 * DAY), NOW.plus(-DAY));
        signer.crl_between(from, to, &listing(reason), &of_base(base, n))
    };
    let decide = |base: u8, delta: Vec<u8>| {
        let evidence = crls(&[ca.crl(&[], &numbered(base)), delta]);
        chain_decision(&evidence, &strict(), None, &leaf, &ca).map_err(|denial| denial.code)
    };
    let (compromised, hold, removed) = (1, 6, 8);
    assert_eq!(
        decide(5, old(&ca, compromised, 5, 6)),
        Err(ReasonCode::Revoked),
        "blocking the next one is no use"
    );
    assert_eq!(decide(7, old(&ca, compromised, 5, 6)), Err(ReasonCode::Revoked));
    assert_eq!(decide(4, ca.crl(&listing(compromised), &of_base(5, 6))), Err(ReasonCode::Revoked));
    assert_eq!(decide(5, old(&ca, hold, 5, 6)), Err(ReasonCode::Revoked));
    assert_eq!(decide(7, old(&ca, hold, 5, 6)), Ok(1), "the newer base has ended the hold");
    assert_eq!(decide(5, old(&ca, removed, 5, 6)), Ok(1));
    assert_eq!(decide(5, old(&Ca::root("ca"), compromised, 5, 6)), Ok(1), "somebody else's delta");
}

#[test]
fn a_revocation_that_was_found_outlives_the_budget() {
    let root = Ca::root("root");
    let sub = root.subordinate("sub", |body| body.serial = vec![0x77]);
    let leaf = leaf(&sub);
    let anchors = std::slice::from_ref(&root.certificate);
    let between = std::slice::from_ref(&sub.certificate);
    let chain = build_path(&leaf, between, anchors, NOW, &PathPolicy::default(), &AwsLc).unwrap();
    let decide = |evidence: &RevocationEvidence| {
        let mut budget = Budget { signature_checks: 1, ..Budget::default() };
        check(evidence, &strict(), NOW).check_chain(&chain, &mut budget).unwrap_err().code
    };
    let junk = ocsp("sub", &Key::new(), &[single(&sub.sha1_id(SERIAL), &good(), None, &[])], &[], &[]);
    let junk = || OcspResponse::from_der(&junk).unwrap();
    // The leaf's revocation takes the only check; the responses after it would take more.
    let mut evidence = crls(&[sub.crl(&[(SERIAL, vec![])], &[])]);
    evidence.ocsp = vec![junk(), junk()];
    assert_eq!(decide(&evidence), ReasonCode::Revoked);
    let mut evidence = crls(&[sub.crl(&[], &[])]);
    evidence.ocsp = vec![junk(), junk()];
    assert_eq!(decide(&evidence), ReasonCode::BudgetExceeded);
    // The intermediate's stands in a list that was verified on load: nothing about the leaf can keep it from being seen.
    let listed = Crl::from_der(&root.crl(&[(&[0x77], vec![])], &[])).unwrap();
    evidence.crls.push(listed.clone());
    assert_eq!(decide(&evidence), ReasonCode::BudgetExceeded, "an unverified list waits for its turn");
    *evidence.crls.last_mut().unwrap() = listed.authenticate(&root.certificate, &AwsLc).unwrap();
    assert_eq!(decide(&evidence), ReasonCode::Revoked);
}

#[test]
fn what_the_budget_leaves_unread_about_a_timestamp_authority_denies() {
    let root = Ca::root("root");
    let sub = root.subordinate("sub", |body| body.serial = vec![0x77]);
    let leaf = leaf(&sub);
    let anchors = std::slice::from_ref(&root.certificate);
    let between = std::slice::from_ref(&sub.certificate);
    let chain = build_path(&leaf, between, anchors, NOW, &PathPolicy::default(), &AwsLc).unwrap();
    let decide = |evidence: &RevocationEvidence, signature_checks| {
        let mut budget = Budget { signature_checks, ..Budget::default() };
        let decided = check(evidence, &strict(), NOW).check_timestamp_authority(&chain, NOW, &mut budget);
        decided.map_err(|denial| denial.code)
    };
    // The list about the leaf takes the only check; nobody looks at the one that revokes the intermediate.
    let listed = Crl::from_der(&root.crl(&[(&[0x77], vec![])], &[])).unwrap();
    let mut evidence = crls(&[sub.crl(&[], &[])]);
    assert_eq!(decide(&evidence, 1), Ok(()));
    evidence.crls.push(listed.clone());
    assert_eq!(decide(&evidence, 2), Err(ReasonCode::Revoked));
    assert_eq!(decide(&evidence, 1), Err(ReasonCode::BudgetExceeded));
    *evidence.crls.last_mut().unwrap() = listed.authenticate(&root.certificate, &AwsLc).unwrap();
    assert_eq!(decide(&evidence, 0), Err(ReasonCode::Revoked));
}

#[test]
fn certificates_in_an_ocsp_response_cost_nothing_until_they_are_looked_at() {
    let ca = Ca::root("ca");
    let leaf = leaf(&ca);
    let answer = [single(&ca.sha1_id(SERIAL), &good(), Some(NOW.plus(DAY)), &[])];
    let evidence = responses(&[ocsp("ca", &ca.key, &answer, &[], &[&ca.certificate, &leaf])]);
    let mut one = Budget { signature_checks: 1, ..Budget::default() };
    let assessment = check(&evidence, &strict(), NOW).assess(&leaf, &ca.certificate, &mut one).unwrap();
    assert_eq!((assessment.status, one.signature_checks), (good_until_tomorrow(), 0));
}

#[test]
fn a_big_list_is_verified_once_and_found_by_serial() {
    let ca = Ca::root("ca");
    let leaf = leaf(&ca);
    let serials: Vec<[u8; 4]> = (0x0100_0000..0x0100_0000 + 20_000_u32).map(u32::to_be_bytes).collect();
    let mut entries: Vec<(&[u8], Vec<Vec<u8>>)> = serials.iter().map(|s| (&s[..], vec![])).collect();
    entries.push((SERIAL, vec![]));
    let crl = Crl::from_der(&ca.crl(&entries, &[])).unwrap().authenticate(&ca.certificate, &AwsLc).unwrap();
    assert_eq!((crl.len(), crl.entries().count()), (20_001, 20_001));
    for serial in &serials {
        assert!(crl.entry(serial, ca.certificate.subject_name()).is_some());
    }
    assert!(crl.entry(&[1, 2, 3], ca.certificate.subject_name()).is_none());
    let evidence = RevocationEvidence { crls: vec![crl.clone()], ..RevocationEvidence::default() };
    let mut none = Budget { signature_checks: 0, steps: 100 };
    let rules = strict();
    let assessment = check(&evidence, &rules, NOW).assess(&leaf, &ca.certificate, &mut none).unwrap();
    assert_eq!(assessment.status, revoked_two_days_ago(RevocationReason::Unspecified));
    assert_eq!(
        crl.authenticate(&Ca::root("ca").certificate, &AwsLc).unwrap_err().code,
        ReasonCode::SignatureInvalid
    );
}

//! Every rule of the linter is broken once, alone, in an object that is clean otherwise: no rule is there that nothing can break.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod certificates;
#[path = "../fixture/mod.rs"]
mod fixture;

use std::collections::BTreeSet;

use ca_pki::certificate::{Form, build};
use ca_pki::crl::{CrlPlan, CrlScope, RevocationReason, RevokedEntry};
use ca_pki::lint::{self, CrlRules, Report};
use ca_pki::ocsp::{Answer, CertId, CertIdHash, CertStatus, OcspRequest};
use ca_pki::oid::{self, ObjectIdentifier};
use ca_pki::profile::{Kind, Profile};
use ca_pki::serial::Shard;
use ca_pki::timestamp::{self, Authority, ImprintHash, TimestampRequest};
use fixture::tree::{
    GENERALIZED_TIME, INTEGER, NULL, Node, OCTETS, OID, UTC_TIME, extension, set_critical, set_value,
};
use fixture::{DAY, Hierarchy, Key, NOW, decided, name, plan, serial};

const UNKNOWN: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.3.4");
const LONG_AGO: &str = "200101000000Z";
const LATE: &str = "491231235959Z";

/// What breaks a rule.
type Change = fn(&mut Node);

/// The object is clean; with each change its rule is broken.
fn broken(
    object: &[u8],
    rules: &[(&'static str, Change)],
    judge: impl Fn(&[u8]) -> Report,
) -> BTreeSet<&'static str> {
    assert_eq!(judge(object).findings(), []);
    let clean = Node::parse(object);
    assert_eq!(clean.to_der(), object);
    let mut unbroken = Vec::new();
    for (rule, change) in rules {
        let mut changed = clean.clone();
        change(&mut changed);
        let report = judge(&changed.to_der());
        let found: Vec<_> = report.findings().iter().map(|finding| finding.rule).collect();
        if !found.contains(rule) {
            unbroken.push((rule, found));
        }
    }
    assert_eq!(unbroken, []);
    rules.iter().map(|(rule, _)| *rule).collect()
}

fn list_extensions(list: &mut Node) -> &mut Node {
    list.at(&[0]).tagged(0xa0).at(&[0])
}

/// The extensions of the second entry, whose reason is a key compromise.
fn entry_extensions(list: &mut Node) -> &mut Node {
    list.at(&[0, 5, 1, 2])
}

const OF_LISTS: [(&str, Change); 20] = [
    ("crl_parses", |it| it.at(&[0, 3]).set("never")),
    ("crl_signature_algorithms_equal", |it| it.at(&[1, 0]).set(oid::ECDSA_SHA384.as_bytes())),
    ("crl_version_2", |it| it.at(&[0, 0]).set([0])),
    ("crl_issuer_byte_identical", |it| *it.at(&[0, 2]) = Node::sequence(Vec::new())),
    ("next_update_present", |it| drop(it.at(&[0]).elements().remove(4))),
    ("next_update_after_this_update", |it| *it.at(&[0, 4]) = it.at(&[0, 3]).clone()),
    ("next_update_not_too_late", |it| *it.at(&[0, 4]) = Node::leaf(UTC_TIME, LATE)),
    ("extensions_unique", |it| {
        let again = list_extensions(it).of(oid::CRL_NUMBER).clone();
        list_extensions(it).elements().push(again);
    }),
    ("crl_authority_key_identifier", |it| list_extensions(it).without(oid::AUTHORITY_KEY_IDENTIFIER)),
    ("crl_number_present", |it| list_extensions(it).without(oid::CRL_NUMBER)),
    ("crl_number_valid", |it| set_critical(list_extensions(it).of(oid::CRL_NUMBER), true, true)),
    ("crl_number_at_most_20_octets", |it| {
        set_value(list_extensions(it).of(oid::CRL_NUMBER), &Node::leaf(INTEGER, [1; 21]).to_der());
    }),
    ("complete_crl_without_distribution_point", |it| {
        let point = extension(oid::ISSUING_DISTRIBUTION_POINT, true, &[0x30, 0]);
        list_extensions(it).elements().push(point);
    }),
    ("expired_certificates_are_kept", |it| list_extensions(it).without(oid::EXPIRED_CERTS_ON_CRL)),
    ("no_empty_revoked_certificates", |it| *it.at(&[0, 5]) = Node::sequence(Vec::new())),
    ("revoked_once", |it| {
        let again = it.at(&[0, 5, 0]).clone();
        it.at(&[0, 5]).elements().push(again);
    }),
    ("reason_not_critical", |it| set_critical(entry_extensions(it).of(oid::REASON_CODE), true, true)),
    ("reason_zero_not_encoded", |it| set_value(entry_extensions(it).of(oid::REASON_CODE), &[10, 1, 0])),
    ("no_certificate_hold", |it| set_value(entry_extensions(it).of(oid::REASON_CODE), &[10, 1, 6])),
    ("invalidity_date_is_revocation_date", |it| {
        let date = Node::leaf(GENERALIZED_TIME, "20200101000000Z").to_der();
        entry_extensions(it).elements().push(extension(oid::INVALIDITY_DATE, false, &date));
    }),
];

const OF_ENTRIES: [(&str, Change); 1] = [("no_unknown_critical_entry_extension", |it| {
    entry_extensions(it).elements().push(extension(UNKNOWN, true, &[NULL, 0]));
})];

const OF_SHARDS: [(&str, Change); 3] = [
    ("shard_has_distribution_point", |it| list_extensions(it).without(oid::ISSUING_DISTRIBUTION_POINT)),
    ("distribution_point_critical", |it| {
        set_critical(list_extensions(it).of(oid::ISSUING_DISTRIBUTION_POINT), false, false);
    }),
    ("distribution_point_is_the_shards", |it| {
        set_value(list_extensions(it).of(oid::ISSUING_DISTRIBUTION_POINT), &[0x30, 0]);
    }),
];

const OF_DELTAS: [(&str, Change); 1] = [("delta_indicator_critical", |it| {
    set_critical(list_extensions(it).of(oid::DELTA_CRL_INDICATOR), false, false);
})];

fn lists(it: &Hierarchy) -> BTreeSet<&'static str> {
    let reasons = [RevocationReason::Unspecified, RevocationReason::KeyCompromise];
    let entries: Vec<RevokedEntry> = (1..)
        .zip(reasons)
        .map(|(number, reason)| RevokedEntry { serial: serial(number), revoked_at: NOW, reason })
        .collect();
    let url = it.issuer.status.crl(Shard(5));
    let shard = CrlScope::Shard { url: url.clone() };
    let made =
        |plan: &CrlPlan| it.key.assemble(&ca_pki::crl::build(&it.issuer, plan, entries.iter()).unwrap());
    let judge = |shard_url: Option<&str>, der: &[u8]| {
        lint::crl(der, &CrlRules { issuer: &it.issuer, shard_url, longest_validity: 10 * DAY })
    };
    let complete = made(&plan(1, CrlScope::Complete));
    let mut rules = broken(&complete, &OF_LISTS, |der| judge(None, der));
    rules.extend(broken(&complete, &OF_ENTRIES, |der| judge(None, der)));
    rules.extend(broken(&made(&plan(2, shard.clone())), &OF_SHARDS, |der| judge(Some(&url), der)));
    let delta = made(&CrlPlan { base: Some(1), ..plan(2, shard) });
    rules.extend(broken(&delta, &OF_DELTAS, |der| judge(Some(&url), der)));
    rules
}

/// The BasicOCSPResponse of a response, changed.
fn basic(response: &mut Node, change: fn(&mut Node)) {
    let octets = response.at(&[1, 0, 1]);
    let fixture::tree::Content::Octets(inside) = &octets.content else { panic!("{octets:?}") };
    let mut inside = Node::parse(inside);
    change(&mut inside);
    octets.set(inside.to_der());
}

const OF_ANSWERS: [(&str, Change); 8] = [
    ("ocsp_response_parses", |it| it.at(&[0]).set([1])),
    ("one_answer", |it| {
        basic(it, |basic| {
            let again = basic.at(&[0, 2, 0]).clone();
            basic.at(&[0, 2]).elements().push(again);
        });
    }),
    ("answer_for_the_certificate_id", |it| basic(it, |basic| basic.at(&[0, 2, 0, 0, 1]).set([7; 32]))),
    ("this_update_not_after_produced_at", |it| basic(it, |basic| basic.at(&[0, 1]).set("20200101000000Z"))),
    ("next_update_present", |it| basic(it, |basic| drop(basic.at(&[0, 2, 0]).elements().remove(3)))),
    ("next_update_after_this_update", |it| {
        basic(it, |basic| *basic.at(&[0, 2, 0, 3, 0]) = basic.at(&[0, 2, 0, 2]).clone());
    }),
    ("answer_lives_at_most_10_days", |it| {
        basic(it, |basic| basic.at(&[0, 2, 0, 3, 0]).set("20400101000000Z"));
    }),
    ("responder_certificate_included", |it| basic(it, |basic| drop(basic.elements().remove(3)))),
];

fn answers(it: &Hierarchy) -> BTreeSet<&'static str> {
    let key = Key::p256();
    let (number, subject) = (serial(3), name("MentatLab OCSP Responder"));
    let profile = Profile::infrastructure(Kind::OcspResponder, 365, &[]).unwrap();
    let asked = decided(&number, &subject, None, &key);
    let responder = it.key.assemble(&build(&profile, &it.issuer, &asked, Form::Certificate).unwrap());
    let id = CertId::new(CertIdHash::Sha256, &it.issuer.name, &it.issuer.public_key, serial(9));
    let mut request = OcspRequest::for_certificate(id);
    request.nonce = Some(vec![7; 16]);
    let (this_update, next_update) = (NOW, NOW.plus(DAY));
    let answer = Answer { status: CertStatus::Good, this_update, next_update, produced_at: NOW };
    let draft = ca_pki::ocsp::draft(&request, &answer, &responder, &key.public, key.algorithm).unwrap();
    let response = draft.assemble(&key.sign(draft.to_be_signed()));
    let mut rules = broken(&response, &OF_ANSWERS, |der| lint::ocsp_response(der, Some(&request)));
    request.nonce = Some(vec![8; 16]);
    rules.extend(lint::ocsp_response(&response, Some(&request)).findings().iter().map(|each| each.rule));
    assert!(rules.contains("nonce_echoed_exactly"));
    rules
}

/// The SignedData of a response, and its one signer.
const SIGNED_DATA: [usize; 3] = [1, 1, 0];

fn signed(response: &mut Node) -> &mut Node {
    response.at(&SIGNED_DATA)
}

fn signer(response: &mut Node) -> &mut Node {
    signed(response).elements().last_mut().unwrap().at(&[0])
}

/// The TSTInfo of a response, changed.
fn tst_info(response: &mut Node, change: fn(&mut Node)) {
    let octets = signed(response).at(&[2, 1, 0]);
    let fixture::tree::Content::Octets(inside) = &octets.content else { panic!("{octets:?}") };
    let mut inside = Node::parse(inside);
    change(&mut inside);
    octets.set(inside.to_der());
}

const OF_TOKENS: [(&str, Change); 12] = [
    ("token_parses", |it| drop(it.elements().pop())),
    ("token_is_signed_data", |it| it.at(&[1, 0]).set(oid::TST_INFO.as_bytes())),
    ("strict_der", |it| signer(it).tagged(0xa0).elements().reverse()),
    ("content_is_tst_info", |it| signed(it).at(&[2, 0]).set(oid::SIGNED_DATA.as_bytes())),
    ("one_signer", |it| {
        let again = signer(it).clone();
        signed(it).elements().last_mut().unwrap().elements().push(again);
    }),
    ("digest_is_sha256", |it| signer(it).at(&[2, 0]).set(oid::SHA384.as_bytes())),
    ("signing_certificate_v2", |it| signer(it).tagged(0xa0).without(oid::SIGNING_CERTIFICATE_V2)),
    ("message_digest_matches", |it| {
        *signer(it).tagged(0xa0).of(oid::MESSAGE_DIGEST).at(&[1, 0]) = Node::leaf(OCTETS, [7; 32]);
    }),
    ("tst_info_parses", |it| tst_info(it, |info| info.elements().clear())),
    ("accuracy_set", |it| tst_info(it, |info| drop(info.elements().remove(5)))),
    ("accuracy_above_zero", |it| tst_info(it, |info| info.at(&[5, 0]).set([0]))),
    ("nonce_echoed", |it| tst_info(it, |info| info.elements().push(Node::leaf(INTEGER, [7])))),
];

fn tokens(it: &Hierarchy) -> BTreeSet<&'static str> {
    let key = Key::p256();
    let (number, subject) = (serial(3), name("MentatLab Time Stamp Authority"));
    let profile = Profile::infrastructure(Kind::TimestampAuthority, 1825, &[]).unwrap();
    let asked = decided(&number, &subject, None, &key);
    let tbs = build(&profile, &it.root_issuer, &asked, Form::Certificate).unwrap();
    let chain = vec![it.root_key.assemble(&tbs)];
    let authority = Authority::new(chain, key.algorithm, UNKNOWN, 1).unwrap();
    let request = TimestampRequest::for_digest(ImprintHash::Sha256, &[9; 32]).unwrap();
    let draft = timestamp::draft(&authority, &request, &serial(4), NOW).unwrap();
    let response = draft.assemble(&authority, &key.sign(draft.to_be_signed()));
    let mut rules = broken(&response, &OF_TOKENS, |der| lint::timestamp_token(der, Some(&request)));
    // What was asked for otherwise.
    let other = TimestampRequest::for_digest(ImprintHash::Sha256, &[8; 32]).unwrap();
    let imprint = Node::parse(request.imprint());
    let policy = Node::leaf(OID, oid::TST_INFO.as_bytes());
    let asked = Node::sequence(vec![Node::leaf(INTEGER, [1]), imprint, policy]).to_der();
    let elsewhere = TimestampRequest::from_der(&asked).unwrap();
    for (request, rule) in [(other, "imprint_echoed"), (elsewhere, "policy_as_asked")] {
        let report = lint::timestamp_token(&response, Some(&request));
        let found: Vec<_> = report.findings().iter().map(|each| each.rule).collect();
        assert_eq!(found, [rule]);
        rules.insert(rule);
    }
    rules
}

/// What stands between quotes in the linter's sources and looks like the name of a rule.
fn named() -> BTreeSet<&'static str> {
    let sources = [
        include_str!("../../src/lint/authority.rs"),
        include_str!("../../src/lint/certificate.rs"),
        include_str!("../../src/lint/code_signing.rs"),
        include_str!("../../src/lint/crl.rs"),
        include_str!("../../src/lint/names.rs"),
        include_str!("../../src/lint/ocsp.rs"),
        include_str!("../../src/lint/timestamp.rs"),
    ];
    let of_name = |octet: u8| octet.is_ascii_lowercase() || octet.is_ascii_digit() || octet == b'_';
    let quoted = sources.iter().flat_map(|source| source.split('"').skip(1).step_by(2));
    quoted.filter(|text| text.contains('_') && text.bytes().all(of_name)).collect()
}

#[test]
fn every_rule_is_broken_by_what_it_forbids() {
    let it = Hierarchy::new();
    let mut broken = certificates::certificates(&it);
    broken.extend(lists(&it));
    broken.extend(answers(&it));
    broken.extend(tokens(&it));
    let named = named();
    assert!(named.len() > 90, "{}", named.len());
    assert_eq!(named.difference(&broken).collect::<Vec<_>>(), [] as [&&str; 0]);
    assert_eq!(broken.difference(&named).collect::<Vec<_>>(), [] as [&&str; 0]);
}

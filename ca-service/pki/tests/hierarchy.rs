//! Every kind of object, built, linted, signed and judged: by the linter, by mutation, and by openssl where it is.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod fixture;
#[path = "../../../tests/src/skip.rs"]
mod skip;

use std::collections::BTreeMap;
use std::process::Command;

use ca_pki::certificate::{Form, Issuer, build};
use ca_pki::crl::{CrlPlan, CrlScope, RevocationReason, RevokedEntry};
use ca_pki::lint::{self, CertificateRules, CrlRules, Severity};
use ca_pki::ocsp::{Answer, CertId, CertIdHash, CertStatus, OcspRequest};
use ca_pki::profile::{Kind, Profile, ProfileConfig, SctPolicy, SubscriberRules};
use ca_pki::serial::{Shard, ShardCount};
use ca_pki::{Error, Identity, NameFields, SerialNumber, SignatureAlgorithm, ToBeSigned, UnixTime};
use fixture::{DAY, Hierarchy, Key, NOW, clean, decided, developer, name, plan, serial};

/// Every finding's rule of severity error.
fn errors(der: &[u8], kind: Kind, issuer: Option<&Issuer>) -> Vec<&'static str> {
    let report = lint::certificate(der, &CertificateRules { kind, issuer });
    report.findings().iter().filter(|each| each.severity == Severity::Error).map(|each| each.rule).collect()
}

#[test]
fn every_kind_of_certificate_is_clean_under_its_own_rules_and_no_others() {
    let it = Hierarchy::new();
    let identity = Identity::email("dev@example.com").unwrap();
    let leaf_key = Key::p256();
    let csbr = Profile::subscriber(
        "csbr",
        &ProfileConfig {
            rules: SubscriberRules::Csbr,
            lifetime_seconds: None,
            subject: NameFields {
                country: Some("US".into()),
                organization: Some("MentatLab".into()),
                locality: Some("Springfield".into()),
                ..NameFields::default()
            },
            policies: Vec::new(),
            keys: ca_pki::profile::SubscriberKeys::Classical,
            sct: SctPolicy::Absent,
        },
    )
    .unwrap();
    let keyless = Profile::subscriber(
        "keyless",
        &ProfileConfig {
            rules: SubscriberRules::Keyless,
            lifetime_seconds: None,
            subject: NameFields::default(),
            policies: Vec::new(),
            keys: ca_pki::profile::SubscriberKeys::Classical,
            sct: SctPolicy::Embedded,
        },
    )
    .unwrap();
    for (number, profile) in [developer(), csbr, keyless].iter().enumerate() {
        let serial = serial(10 + number as u8);
        let subject = profile.subject_for(&identity).unwrap();
        let asked = decided(&serial, &subject, Some(&identity), &leaf_key);
        for form in [Form::Certificate, Form::Precertificate] {
            let tbs = build(profile, &it.issuer, &asked, form).unwrap();
            clean(&tbs, profile.kind(), Some(&it.issuer));
            let leaf = it.key.assemble(&tbs);
            for other in [Kind::Root, Kind::CodeSigningIssuer, Kind::OcspResponder, Kind::TimestampAuthority]
            {
                assert_ne!(errors(&leaf, other, None), Vec::<&str>::new(), "{other:?}");
            }
        }
    }
    assert_ne!(errors(&it.root, Kind::CodeSigningIssuer, None), Vec::<&str>::new());
    assert_ne!(errors(&it.intermediate, Kind::Internal, None), Vec::<&str>::new());
    assert_ne!(errors(&it.intermediate, Kind::TimeStampingIssuer, None), Vec::<&str>::new());
}

#[test]
fn a_certificate_of_another_issuer_shard_or_time_does_not_fit() {
    let it = Hierarchy::new();
    let identity = Identity::email("dev@example.com").unwrap();
    let (serial, leaf_key, profile) = (serial(9), Key::p256(), developer());
    let subject = profile.subject_for(&identity).unwrap();
    let asked = decided(&serial, &subject, Some(&identity), &leaf_key);
    let leaf = it.key.assemble(&build(&profile, &it.issuer, &asked, Form::Certificate).unwrap());
    let differs = |change: &dyn Fn(&mut Issuer)| {
        let mut other = it.issuer.clone();
        change(&mut other);
        errors(&leaf, Kind::Internal, Some(&other))
    };
    assert_eq!(differs(&|other| other.name = name("Another CA")), ["issuer_name_byte_identical"]);
    assert_eq!(differs(&|other| other.key_identifier = vec![1]), ["authority_key_identifier_is_the_issuers"]);
    assert_eq!(differs(&|other| other.not_after = NOW), ["validity_within_the_issuers"]);
    assert_eq!(
        differs(&|other| other.status.shards = ShardCount::new(127).unwrap()),
        ["crl_shard_of_the_serial_number"]
    );
    assert_eq!(
        differs(&|other| other.algorithm = SignatureAlgorithm::EcdsaP384Sha384),
        ["signature_algorithm_is_the_issuers"]
    );
    // An issuer that ends earlier cuts the certificate's life (C2).
    let mut short = it.issuer.clone();
    short.not_after = NOW.plus(DAY);
    let tbs = build(&profile, &short, &asked, Form::Certificate).unwrap();
    clean(&tbs, Kind::Internal, Some(&short));
    short.not_after = NOW.plus(-1);
    assert!(matches!(build(&profile, &short, &asked, Form::Certificate), Err(Error::Unsupported(_))));
}

#[test]
fn one_altered_byte_anywhere_is_an_error_or_another_certificate() {
    let it = Hierarchy::new();
    let identity = Identity::email("dev@example.com").unwrap();
    let (serial, leaf_key, profile) = (serial(9), Key::p256(), developer());
    let subject = profile.subject_for(&identity).unwrap();
    let asked = decided(&serial, &subject, Some(&identity), &leaf_key);
    let tbs = build(&profile, &it.issuer, &asked, Form::Certificate).unwrap();
    let whole = it.key.assemble(&tbs);
    for position in 0..whole.len() {
        let mut altered = whole.clone();
        altered[position] ^= 0x01;
        // Whatever the byte means, the linter must come to an end without a panic.
        let _ = errors(&altered, Kind::Internal, Some(&it.issuer));
    }
    for length in (0..whole.len()).step_by(7) {
        assert_eq!(errors(&whole[..length], Kind::Internal, None), ["certificate_parses"]);
    }
}

#[test]
fn lists_are_clean_and_broken_ones_are_named() {
    let it = Hierarchy::new();
    let url = it.issuer.status.crl(Shard(5));
    let reasons = [
        RevocationReason::Unspecified,
        RevocationReason::KeyCompromise,
        RevocationReason::PrivilegeWithdrawn,
    ];
    let entries: Vec<RevokedEntry> = reasons
        .iter()
        .enumerate()
        .map(|(number, reason)| RevokedEntry {
            serial: serial(number as u8 + 1),
            revoked_at: NOW,
            reason: *reason,
        })
        .collect();
    let rules = |shard_url| CrlRules { issuer: &it.issuer, shard_url, longest_validity: 10 * DAY };
    let shard = CrlScope::Shard { url: url.clone() };
    for entries in [&entries[..], &[]] {
        let complete = ca_pki::crl::build(&it.issuer, &plan(1, CrlScope::Complete), entries.iter()).unwrap();
        assert_eq!(lint::crl(&complete.unsigned(), &rules(None)).findings(), []);
        assert_eq!(lint::crl_to_be_signed(&complete, &rules(None)).findings(), []);
        let sharded = ca_pki::crl::build(&it.issuer, &plan(2, shard.clone()), entries.iter()).unwrap();
        assert_eq!(lint::crl(&sharded.unsigned(), &rules(Some(&url))).findings(), []);
        let delta = CrlPlan { base: Some(1), ..plan(2, shard.clone()) };
        let delta = ca_pki::crl::build(&it.issuer, &delta, entries.iter()).unwrap();
        assert_eq!(lint::crl(&delta.unsigned(), &rules(Some(&url))).findings(), []);
        let parsed = trust_store::crl::Crl::from_der(&it.key.assemble(&sharded)).unwrap();
        assert_eq!(parsed.len(), entries.len());
        assert_eq!(parsed.unusable(), None);
    }
    let twice = [entries[0].clone(), entries[0].clone()];
    let twice = ca_pki::crl::build(&it.issuer, &plan(1, CrlScope::Complete), twice.iter()).unwrap();
    let found = |tbs: &ToBeSigned, rules: &CrlRules<'_>| -> Vec<&'static str> {
        let report = lint::crl(&tbs.unsigned(), rules);
        assert_eq!(report.findings(), lint::crl_to_be_signed(tbs, rules).findings(), "signed or not");
        report.findings().iter().map(|each| each.rule).collect()
    };
    assert_eq!(found(&twice, &rules(None)), ["revoked_once"]);
    let apart = [entries[1].clone(), entries[0].clone(), entries[1].clone()];
    let apart = ca_pki::crl::build(&it.issuer, &plan(1, CrlScope::Complete), apart.iter()).unwrap();
    assert_eq!(found(&apart, &rules(None)), ["revoked_once"]);
    let complete = ca_pki::crl::build(&it.issuer, &plan(1, CrlScope::Complete), entries.iter()).unwrap();
    assert_eq!(found(&complete, &rules(Some(&url))), ["shard_has_distribution_point"]);
    let sharded = ca_pki::crl::build(&it.issuer, &plan(1, shard), entries.iter()).unwrap();
    assert_eq!(found(&sharded, &rules(None)), ["complete_crl_without_distribution_point"]);
    let other = it.issuer.status.crl(Shard(6));
    assert_eq!(found(&sharded, &rules(Some(&other))), ["distribution_point_is_the_shards"]);
    let short = CrlRules { longest_validity: DAY, ..rules(None) };
    assert_eq!(found(&complete, &short), ["next_update_not_too_late"]);
    let foreign = CrlRules { issuer: &it.root_issuer, ..rules(None) };
    assert!(found(&complete, &foreign).contains(&"crl_issuer_byte_identical"));
    let backwards = CrlPlan { next_update: NOW, ..plan(1, CrlScope::Complete) };
    assert!(ca_pki::crl::build(&it.issuer, &backwards, entries.iter()).is_err());
}

/// What measures an entry and what writes it are two descriptions of one thing.
#[test]
fn entries_of_every_length_are_read_back_as_they_were_given() {
    use RevocationReason::{KeyCompromise, PrivilegeWithdrawn, Superseded, Unspecified};
    let it = Hierarchy::new();
    let entry = |serial: &[u8], revoked_at: UnixTime, reason: RevocationReason| RevokedEntry {
        serial: SerialNumber::from_magnitude(serial).unwrap(),
        revoked_at,
        reason,
    };
    // The last second of 2049 is the last one with two digits of its year.
    let last = UnixTime(2_524_607_999);
    let mixed = vec![
        entry(&[1], NOW, Unspecified),
        entry(&[0x7f], last, KeyCompromise),
        entry(&[0x7f, 0xff], last.plus(1), Unspecified),
        entry(&[0x80], last.plus(1), Superseded),
        entry(&[0xff; 19], NOW, PrivilegeWithdrawn),
        entry(&[0x7f; 20], last, Unspecified),
    ];
    // Four entries of 19 octets beside the serial numbers: a list of 127 octets has one octet of length, of 128 two.
    let of_serials = |octets: usize| -> Vec<RevokedEntry> {
        let length = |number: u8| octets / 4 + usize::from(usize::from(number) <= octets % 4);
        (1..=4).map(|number| entry(&vec![number; length(number)], NOW, Unspecified)).collect()
    };
    for (entries, header) in [
        (mixed, None),
        (of_serials(51), Some(&[0x30_u8, 127][..])),
        (of_serials(52), Some(&[0x30_u8, 0x81, 128][..])),
    ] {
        let tbs = ca_pki::crl::build(&it.issuer, &plan(1, CrlScope::Complete), entries.iter()).unwrap();
        if let Some(header) = header {
            assert!(tbs.as_der().windows(header.len()).any(|window| window == header), "{header:?}");
        }
        let rules = CrlRules { issuer: &it.issuer, shard_url: None, longest_validity: 10 * DAY };
        assert_eq!(lint::crl_to_be_signed(&tbs, &rules).findings(), []);
        let parsed = trust_store::crl::Crl::from_der(&it.key.assemble(&tbs)).unwrap();
        let read: BTreeMap<Vec<u8>, (i64, String)> = parsed
            .entries()
            .map(|(serial, one)| (serial.to_vec(), (one.revocation_date.0, format!("{:?}", one.reason))))
            .collect();
        let given: BTreeMap<Vec<u8>, (i64, String)> = entries
            .iter()
            .map(|one| (one.serial.to_der()[2..].to_vec(), (one.revoked_at.0, format!("{:?}", one.reason))))
            .collect();
        assert_eq!((read, parsed.len()), (given, entries.len()));
    }
}

#[test]
fn ocsp_answers_are_clean_and_for_the_certificate_that_was_asked_about() {
    let it = Hierarchy::new();
    let responder_key = Key::p256();
    let profile = Profile::infrastructure(Kind::OcspResponder, 365, &[]).unwrap();
    let (responder_serial, responder_name) = (serial(3), name("MentatLab OCSP Responder"));
    let asked = decided(&responder_serial, &responder_name, None, &responder_key);
    let tbs = build(&profile, &it.issuer, &asked, Form::Certificate).unwrap();
    clean(&tbs, Kind::OcspResponder, Some(&it.issuer));
    let responder = it.key.assemble(&tbs);
    for hash in [CertIdHash::Sha1, CertIdHash::Sha256] {
        let id = CertId::new(hash, &it.issuer.name, &it.issuer.public_key, serial(9));
        assert!(id.names_issuer(&it.issuer.name, &it.issuer.public_key));
        assert!(!id.names_issuer(&it.root_issuer.name, &it.root_issuer.public_key));
        let request = OcspRequest::for_certificate(id);
        for status in [
            CertStatus::Good,
            CertStatus::Unknown,
            CertStatus::Revoked { at: NOW, reason: RevocationReason::KeyCompromise },
            CertStatus::Revoked { at: NOW, reason: RevocationReason::Unspecified },
        ] {
            let answer = Answer { status, this_update: NOW, next_update: NOW.plus(DAY), produced_at: NOW };
            let draft = ca_pki::ocsp::draft(
                &request,
                &answer,
                &responder,
                &responder_key.public,
                responder_key.algorithm,
            )
            .unwrap();
            let response = draft.assemble(&responder_key.sign(draft.to_be_signed()));
            assert_eq!(lint::ocsp_response(&response, Some(&request)).findings(), []);
            let read = trust_store::ocsp::OcspResponse::from_der(&response).unwrap();
            assert_eq!(read.unusable(), None);
            let other = OcspRequest::for_certificate(CertId::new(
                hash,
                &it.issuer.name,
                &it.issuer.public_key,
                serial(8),
            ));
            let rules: Vec<_> = lint::ocsp_response(&response, Some(&other))
                .findings()
                .iter()
                .map(|each| each.rule)
                .collect();
            assert_eq!(rules, ["answer_for_the_certificate_id"]);
        }
    }
}

#[test]
fn openssl_accepts_the_chain_and_the_lists() {
    let it = Hierarchy::new();
    let identity = Identity::uri("https://ci.example.org/release").unwrap();
    let (serial, leaf_key, profile) = (serial(9), Key::p256(), developer());
    let subject = profile.subject_for(&identity).unwrap();
    let asked = decided(&serial, &subject, Some(&identity), &leaf_key);
    let leaf = it.key.assemble(&build(&profile, &it.issuer, &asked, Form::Certificate).unwrap());
    let folder = std::env::temp_dir().join(format!("ca-pki-hierarchy-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let write = |file: &str, label: &'static str, objects: &[&[u8]]| {
        let path = folder.join(file);
        let text: String = objects.iter().map(|der| ca_pki::pem::encode(label, der).unwrap()).collect();
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let root = write("root.pem", "CERTIFICATE", &[&it.root]);
    let intermediate = write("intermediate.pem", "CERTIFICATE", &[&it.intermediate]);
    let leaf_file = write("leaf.pem", "CERTIFICATE", &[&leaf]);
    let list = |issuer: &Issuer, key: &Key, entries: &[RevokedEntry]| {
        key.assemble(&ca_pki::crl::build(issuer, &plan(1, CrlScope::Complete), entries.iter()).unwrap())
    };
    let root_list = list(&it.root_issuer, &it.root_key, &[]);
    let revoked =
        RevokedEntry { serial: serial.clone(), revoked_at: NOW, reason: RevocationReason::KeyCompromise };
    for (entries, accepted) in [(vec![], true), (vec![revoked], false)] {
        let issuer_list = list(&it.issuer, &it.key, &entries);
        let lists = write("lists.pem", "X509 CRL", &[&issuer_list, &root_list]);
        let at = NOW.0.to_string();
        let output = Command::new("openssl")
            .args(["verify", "-x509_strict", "-crl_check_all", "-attime", &at, "-CRLfile", &lists])
            .args(["-CAfile", &root, "-untrusted", &intermediate, &leaf_file])
            .output();
        let Ok(output) = output else {
            skip::skipped("there is no openssl");
            break;
        };
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert_eq!(output.status.success(), accepted, "{text}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

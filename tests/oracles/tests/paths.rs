//! Paths and revocation lists against rustls-webpki: over PKITS, and over chains with every fault and every pair of faults.

#[allow(dead_code)]
#[path = "../../../trust-store/tests/forge/mod.rs"]
mod forge;

use std::path::{Path, PathBuf};

use forge::{
    Body, Ca, DAY, Key, NOW, basic_constraints, eku, extension, key_usage, name_constraints, san, tlv,
};
use mentat_oracles::exceptions::{Verdicts, settle};
use trust_store::budget::Budget;
use trust_store::certificate::Certificate;
use trust_store::crl::Crl;
use trust_store::path::{PathPolicy, Subject, build_path_where};
use trust_store::provider::AwsLc;
use trust_store::revocation::{RevocationCheck, RevocationEvidence, RevocationPolicy};
use trust_store::{Denial, UnixTime};
use webpki::{
    BorrowedCertRevocationList, CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage,
    RevocationCheckDepth, RevocationOptionsBuilder, UnknownStatusPolicy, anchor_from_trusted_cert,
};

/// What both are asked: certificates from the anchor down to the leaf, and lists.
struct Question {
    chain: Vec<Vec<u8>>,
    crls: Vec<Vec<u8>>,
    now: UnixTime,
    purpose: Option<&'static str>,
}

fn ours(question: &Question) -> Result<(), Denial> {
    let certificates: Vec<Certificate> =
        question.chain.iter().map(|der| Certificate::from_der(der)).collect::<Result<_, _>>()?;
    let crls = question.crls.iter().filter_map(|der| Crl::from_der(der).ok()).collect();
    let (leaf, rest) = certificates.split_last().unwrap();
    let (anchor, intermediates) = rest.split_first().unwrap();
    let policy = PathPolicy {
        required_eku: question.purpose.map(const_oid::ObjectIdentifier::new_unwrap),
        subject: if question.purpose.is_some() { Subject::EndEntityOnly } else { Subject::Any },
        ..PathPolicy::default()
    };
    let evidence = RevocationEvidence { crls, ..RevocationEvidence::default() };
    let rules = RevocationPolicy { clock_skew_seconds: 0, ..RevocationPolicy::default() };
    let check = RevocationCheck {
        evidence: &evidence,
        policy: &rules,
        now: question.now,
        proven_at: None,
        intermediates,
        verifier: &AwsLc,
    };
    let mut budget = Budget::default();
    let anchors = std::slice::from_ref(anchor);
    build_path_where(
        leaf,
        intermediates,
        anchors,
        question.now,
        &policy,
        &AwsLc,
        &mut budget,
        &mut |chain, budget| check.check_chain(chain, budget).map(drop),
    )
    .map(drop)
}

const CODE_SIGNING: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 3];

fn theirs(question: &Question) -> Result<(), webpki::Error> {
    use rustls_pki_types::{CertificateDer, UnixTime};
    let certificates: Vec<CertificateDer<'_>> =
        question.chain.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
    let (leaf, rest) = certificates.split_last().unwrap();
    let (anchor, intermediates) = rest.split_first().unwrap();
    let anchors = [anchor_from_trusted_cert(anchor)?];
    let lists: Vec<CertRevocationList<'_>> = question
        .crls
        .iter()
        .filter_map(|der| BorrowedCertRevocationList::from_der(der).ok().map(Into::into))
        .collect();
    let lists: Vec<&CertRevocationList<'_>> = lists.iter().collect();
    let revocation = RevocationOptionsBuilder::new(&lists).ok().map(|options| {
        options
            .with_depth(RevocationCheckDepth::Chain)
            .with_status_policy(UnknownStatusPolicy::Deny)
            .with_expiration_policy(ExpirationPolicy::Enforce)
            .build()
    });
    let Some(revocation) = revocation else { return Err(webpki::Error::UnknownRevocationStatus) };
    let usage = match question.purpose {
        Some(_) => KeyUsage::required(CODE_SIGNING),
        None => KeyUsage::required_if_present(CODE_SIGNING),
    };
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(question.now.0.try_into().unwrap()));
    EndEntityCert::try_from(leaf)?
        .verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            &anchors,
            intermediates,
            now,
            usage,
            Some(revocation),
            None,
        )
        .map(drop)
}

fn verdicts(case: String, question: &Question) -> Verdicts {
    Verdicts {
        case,
        ours: ours(question).map_err(|denial| denial.to_string()),
        theirs: theirs(question).map_err(|error| error.to_string()),
    }
}

fn vectors() -> Option<PathBuf> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/vectors");
    let folder = std::env::var_os("MENTAT_VECTORS").map_or(default, PathBuf::from).join("pkits");
    if !folder.is_dir() {
        eprintln!("SKIPPED: PKITS is missing: {} (set MENTAT_VECTORS)", folder.display());
        return None;
    }
    Some(folder)
}

/// Every case whose answer does not depend on certificate policies, which webpki does not look at, or on DSA.
#[test]
fn pkits_gets_the_same_verdicts() {
    let Some(folder) = vectors() else { return };
    let text = std::fs::read(folder.join("vectors.json")).unwrap();
    let cases: Vec<serde_json::Value> = serde_json::from_slice(&text).unwrap();
    let list = |case: &serde_json::Value, member: &str, kind: &str| -> Vec<Vec<u8>> {
        let names = case[member].as_array().unwrap();
        let read =
            |name: &serde_json::Value| std::fs::read(folder.join(kind).join(name.as_str().unwrap())).unwrap();
        names.iter().map(read).collect()
    };
    let mut all = Vec::new();
    for case in &cases {
        let name = case["Name"].as_str().unwrap();
        let section: u32 = name.split('.').nth(1).unwrap().parse().unwrap();
        let is_dsa = ["4.1.4 ", "4.1.5 ", "4.1.6 "].iter().any(|dsa| name.starts_with(dsa));
        if is_dsa || (8..=12).contains(&section) {
            continue;
        }
        let question = Question {
            chain: list(case, "CertPath", "certs"),
            crls: list(case, "CRLPath", "crls"),
            now: UnixTime::from_rfc3339("2015-01-01T00:00:00Z").unwrap(),
            purpose: None,
        };
        all.push(verdicts(name.to_owned(), &question));
    }
    settle("webpki-pkits", &all);
}

/// A chain of four certificates in which things can be wrong.
struct Chain {
    leaf: Body,
    lower: Body,
    upper: Body,
    signed_by_another: bool,
    crl: fn(&Ca, &[u8]) -> Option<Vec<u8>>,
}

type Fault = (&'static str, fn(&mut Chain));

const FAULTS: &[Fault] = &[
    ("leaf expired", |chain| chain.leaf.not_after = NOW.plus(-1)),
    ("leaf not yet valid", |chain| chain.leaf.not_before = NOW.plus(1)),
    ("leaf at its last second", |chain| chain.leaf.not_after = NOW),
    ("issuer expired", |chain| chain.lower.not_after = NOW.plus(-1)),
    ("signature by another key", |chain| chain.signed_by_another = true),
    ("leaf without purpose", |chain| {
        chain.leaf.extensions = vec![key_usage(&[7, 0x80]), host("a.example.com")]
    }),
    ("leaf for another purpose", |chain| {
        chain.leaf.extensions =
            vec![key_usage(&[7, 0x80]), eku(&["1.3.6.1.5.5.7.3.1"]), host("a.example.com")];
    }),
    ("leaf is a CA", |chain| chain.leaf.extensions.push(basic_constraints(true, None))),
    ("leaf says that it is no CA", |chain| chain.leaf.extensions.push(basic_constraints(false, None))),
    ("unknown critical extension", |chain| chain.leaf.extensions.push(extension("1.2.3.4", true, &[5, 0]))),
    ("unknown extension", |chain| chain.leaf.extensions.push(extension("1.2.3.4", false, &[5, 0]))),
    ("unknown critical extension of the issuer", |chain| {
        chain.lower.extensions.push(extension("1.2.3.4", true, &[5, 0]));
    }),
    ("issuer is no CA", |chain| chain.lower.extensions[0] = basic_constraints(false, None)),
    ("issuer has no constraints", |chain| chain.lower.extensions[0] = extension("1.2.3.5", false, &[5, 0])),
    ("issuer for another purpose", |chain| chain.lower.extensions[2] = eku(&["1.3.6.1.5.5.7.3.1"])),
    ("issuer without a purpose", |chain| chain.lower.extensions[2] = extension("1.2.3.6", false, &[5, 0])),
    ("issuer may not sign certificates", |chain| chain.lower.extensions[1] = key_usage(&[1, 0x02])),
    ("path length 0 above two", |chain| chain.upper.extensions[0] = basic_constraints(true, Some(0))),
    ("path length 1 above two", |chain| chain.upper.extensions[0] = basic_constraints(true, Some(1))),
    ("name permitted", |chain| chain.upper.extensions.push(name_constraints(&[(0x82, b"example.com")], &[]))),
    ("name not permitted", |chain| {
        chain.upper.extensions.push(name_constraints(&[(0x82, b"example.org")], &[]))
    }),
    ("name excluded", |chain| {
        chain.upper.extensions.push(name_constraints(&[], &[(0x82, b"a.example.com")]))
    }),
    ("another name excluded", |chain| {
        chain.upper.extensions.push(name_constraints(&[], &[(0x82, b"b.example.com")]));
    }),
    ("revoked", |chain| chain.crl = |ca, serial| Some(ca.crl(&[(serial, vec![])], &[number()]))),
    ("another serial revoked", |chain| chain.crl = |ca, _| Some(ca.crl(&[(&[0x55], vec![])], &[number()]))),
    ("no list", |chain| chain.crl = |_, _| None),
    ("stale list", |chain| {
        chain.crl = |ca, _| Some(ca.crl_between(NOW.plus(-3 * DAY), NOW.plus(-DAY), &[], &[number()]));
    }),
    ("list with an unknown critical extension", |chain| {
        chain.crl = |ca, _| Some(ca.crl(&[], &[number(), extension("1.2.3.4", true, &[5, 0])]));
    }),
    ("list by another key", |chain| {
        chain.crl = |ca, _| Some(Ca::root(&ca.name).crl(&[], &[number()]));
    }),
];

fn number() -> Vec<u8> {
    extension("2.5.29.20", false, &tlv(2, &[&[1]]))
}

fn host(name: &str) -> Vec<u8> {
    san(&[(0x82, name.as_bytes())])
}

fn question(faults: &[&Fault]) -> Question {
    let authority = || {
        vec![
            basic_constraints(true, None),
            key_usage(forge::KEY_CERT_AND_CRL_SIGN),
            eku(&[forge::CODE_SIGNING]),
        ]
    };
    let leaf = vec![key_usage(&[7, 0x80]), eku(&[forge::CODE_SIGNING]), host("a.example.com")];
    let mut chain = Chain {
        leaf: Body::new("lower", "signer", leaf),
        lower: Body::new("upper", "lower", authority()),
        upper: Body::new("root", "upper", authority()),
        signed_by_another: false,
        crl: |ca, _| Some(ca.crl(&[], &[number()])),
    };
    chain.leaf.serial = vec![0x42];
    faults.iter().for_each(|(_, change)| change(&mut chain));
    let root = Ca::root("root");
    let (upper, lower, other) = (Key::new(), Key::new(), Key::new());
    let by = if chain.signed_by_another { &other } else { &lower };
    let certificates = vec![
        root.certificate.der().to_vec(),
        chain.upper.der(&upper.spki(), &root.key),
        chain.lower.der(&lower.spki(), &upper),
        chain.leaf.der(&Key::new().spki(), by),
    ];
    let issuer = |name: &str, key: Key| Ca { name: name.into(), key, certificate: root.certificate.clone() };
    let crls = [
        Some(root.crl(&[], &[number()])),
        Some(issuer("upper", upper).crl(&[], &[number()])),
        (chain.crl)(&issuer("lower", lower), &[0x42]),
    ];
    Question {
        chain: certificates,
        crls: crls.into_iter().flatten().collect(),
        now: NOW,
        purpose: Some(forge::CODE_SIGNING),
    }
}

#[test]
fn every_fault_and_every_pair_of_faults_gets_the_same_verdict() {
    let mut all = vec![verdicts("nothing".into(), &question(&[]))];
    assert!(all[0].ours.is_ok() && all[0].theirs.is_ok(), "{:?} {:?}", all[0].ours, all[0].theirs);
    all.extend(FAULTS.iter().map(|fault| verdicts(fault.0.into(), &question(&[fault]))));
    // What is judged differently by itself says nothing new in company.
    let agreed = |fault: &&Fault| {
        let alone = all.iter().find(|verdicts| verdicts.case == fault.0).unwrap();
        alone.ours.is_ok() == alone.theirs.is_ok()
    };
    let agreed: Vec<&Fault> = FAULTS.iter().filter(agreed).collect();
    for (n, a) in agreed.iter().enumerate() {
        for b in &agreed[n + 1..] {
            all.push(verdicts(format!("{} + {}", a.0, b.0), &question(&[a, b])));
        }
    }
    settle("webpki-faults", &all);
}

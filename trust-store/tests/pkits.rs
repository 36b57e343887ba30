//! NIST PKITS: every case but the DSA ones, with revocation required and policies as the case says.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    missing_docs,
    reason = "tests"
)]

use crate::vectors;

use std::collections::BTreeMap;
use std::path::Path;

use const_oid::ObjectIdentifier;
use serde::Deserialize;
use trust_store::budget::Budget;
use trust_store::certificate::Certificate;
use trust_store::crl::Crl;
use trust_store::path::{
    AnyPolicyInCertificates, ExplicitPolicy, InitialPolicies, PathPolicy, PolicyMapping, Subject,
    build_path_where,
};
use trust_store::provider::SignatureVerifier;
use trust_store::revocation::{RevocationCheck, RevocationEvidence, RevocationPolicy};
use trust_store::{Denial, ReasonCode, UnixTime};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Case {
    name: String,
    cert_path: Vec<String>,
    #[serde(rename = "CRLPath")]
    crl_path: Vec<String>,
    should_validate: bool,
    initial_policy_set: Vec<String>,
    initial_policy_mapping_inhibit: bool,
    initial_explicit_policy: bool,
    initial_any_policy_inhibit: bool,
}

/// The cases with DSA signatures; nothing else is out of scope.
const OUT_OF_SCOPE: &[&str] = &["4.1.4 ", "4.1.5 ", "4.1.6 "];

/// The reasons that a section of PKITS is about.
fn expected_reasons(name: &str) -> &'static [ReasonCode] {
    use ReasonCode as R;
    let section = name.split('.').nth(1).expect("a section number");
    match section {
        "1" => &[R::Malformed, R::UnknownIssuer], // some bad signatures are not even whole octets
        "2" => &[R::NotYetValid, R::ExpiredAtSigning],
        "3" => &[R::UnknownIssuer],
        "4" | "14" | "15" => &[R::Revoked, R::RevocationUnknown, R::RevocationStale],
        "5" => &[R::Revoked, R::UsageNotAllowed],
        "6" => &[R::UsageNotAllowed, R::PathLength],
        "7" => &[R::UsageNotAllowed, R::RevocationUnknown],
        "8" | "9" | "10" | "11" | "12" => &[R::PolicyNotAllowed],
        "13" => &[R::NameNotAllowed],
        "16" => &[R::CriticalExtension],
        other => panic!("unknown section {other}"),
    }
}

fn initial_policies(names: &[String]) -> InitialPolicies {
    if names.iter().any(|name| name == "anyPolicy") {
        return InitialPolicies::Any;
    }
    let oid = |name: &String| {
        let number = name.strip_prefix("NIST-test-policy-").expect("a test policy");
        let oid = ObjectIdentifier::new(&format!("2.16.840.1.101.3.2.1.48.{number}")).unwrap();
        oid.as_bytes().to_vec()
    };
    InitialPolicies::Only(names.iter().map(oid).collect())
}

fn decide(folder: &Path, case: &Case, verifier: &dyn SignatureVerifier) -> Result<(), Denial> {
    let read = |kind: &str, name: &String| std::fs::read(folder.join(kind).join(name)).expect("vector file");
    let mut certificates = Vec::new();
    for name in &case.cert_path {
        certificates.push(Certificate::from_der(&read("certs", name))?);
    }
    let crls = case.crl_path.iter().filter_map(|name| Crl::from_der(&read("crls", name)).ok()).collect();
    let (leaf, rest) = certificates.split_last().unwrap();
    let (anchor, intermediates) = rest.split_first().unwrap();
    let now = UnixTime::from_rfc3339("2015-01-01T00:00:00Z").unwrap();
    let policy = PathPolicy {
        initial_policies: initial_policies(&case.initial_policy_set),
        explicit_policy: if case.initial_explicit_policy {
            ExplicitPolicy::Required
        } else {
            ExplicitPolicy::NotRequired
        },
        policy_mapping: if case.initial_policy_mapping_inhibit {
            PolicyMapping::Inhibited
        } else {
            PolicyMapping::Allowed
        },
        any_policy: if case.initial_any_policy_inhibit {
            AnyPolicyInCertificates::Ignored
        } else {
            AnyPolicyInCertificates::Counts
        },
        subject: Subject::Any,
        ..PathPolicy::default()
    };
    let evidence = RevocationEvidence { crls, ..RevocationEvidence::default() };
    let rules = RevocationPolicy::default();
    let check = RevocationCheck {
        evidence: &evidence,
        policy: &rules,
        now,
        proven_at: None,
        intermediates,
        verifier,
    };
    let mut budget = Budget::default();
    let anchors = std::slice::from_ref(anchor);
    build_path_where(
        leaf,
        intermediates,
        anchors,
        now,
        &policy,
        verifier,
        &mut budget,
        &mut |chain, budget| check.check_chain(chain, budget).map(|_| ()),
    )
    .map(|_| ())
}

fn run(verifier: &dyn SignatureVerifier) {
    let Some(folder) = vectors::folder("pkits") else { return };
    let cases: Vec<Case> =
        serde_json::from_slice(&std::fs::read(folder.join("vectors.json")).unwrap()).unwrap();
    assert_eq!(cases.len(), 249);
    let mut wrong = Vec::new();
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    let mut decided = 0;
    for case in cases.iter().filter(|case| !OUT_OF_SCOPE.iter().any(|dsa| case.name.starts_with(dsa))) {
        let outcome = decide(&folder, case, verifier);
        decided += 1;
        if let Err(denial) = &outcome {
            *reasons.entry(denial.code.as_str()).or_default() += 1;
            let expected = expected_reasons(&case.name);
            if !expected.contains(&denial.code) {
                wrong.push(format!("{}: denied for an unexpected reason: {denial}", case.name));
            }
        }
        if outcome.is_ok() != case.should_validate {
            wrong.push(format!("{}: expected {}, got {outcome:?}", case.name, case.should_validate));
        }
    }
    assert!(wrong.is_empty(), "{} wrong decisions:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(decided, 246, "all but the three cases with DSA signatures");
    eprintln!("{decided} cases decided as expected; denials by reason: {reasons:?}");
}

#[cfg(feature = "aws-lc")]
#[test]
fn every_applicable_case_is_decided_as_expected() {
    run(&trust_store::provider::AwsLc);
}

#[cfg(feature = "rustcrypto")]
#[test]
fn every_applicable_case_is_decided_as_expected_by_the_portable_provider() {
    run(&trust_store::provider::RustCrypto);
}

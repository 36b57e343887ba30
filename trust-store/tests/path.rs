//! Every check of path validation denies with its own reason, and hostile candidates end within the budget.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "tests"
)]

use crate::forge;

use const_oid::ObjectIdentifier;
use forge::{
    Body, CODE_SIGNING, Ca, DAY, Key, NOW, basic_constraints, eku, extension, key_usage, name_constraints,
    oid, san, seq, tlv,
};
use trust_store::budget::Budget;
use trust_store::certificate::Certificate;
use trust_store::extension::KeyUsage;
use trust_store::identity::{Identity, MAX_NAME};
use trust_store::path::{PathPolicy, Precertificates, RequiredName, Subject, VerifiedChain, build_path};
use trust_store::provider::AwsLc;
use trust_store::{Denial, ReasonCode};

fn code_signing() -> PathPolicy {
    PathPolicy {
        required_eku: Some(ObjectIdentifier::new_unwrap(CODE_SIGNING)),
        required_key_usage: KeyUsage::DIGITAL_SIGNATURE,
        ..PathPolicy::default()
    }
}

fn build(
    leaf: &Certificate,
    intermediates: &[&Ca],
    root: &Ca,
    policy: &PathPolicy,
) -> Result<VerifiedChain, Denial> {
    let intermediates: Vec<Certificate> = intermediates.iter().map(|ca| ca.certificate.clone()).collect();
    build_path(leaf, &intermediates, std::slice::from_ref(&root.certificate), NOW, policy, &AwsLc)
}

fn denied(leaf: &Certificate, intermediates: &[&Ca], root: &Ca) -> ReasonCode {
    build(leaf, intermediates, root, &code_signing()).expect_err("a denial").code
}

#[test]
fn accepts_a_chain_and_gives_it_leaf_first() {
    let root = Ca::root("root");
    let ca = root.subordinate("ca", |_| {});
    let leaf = ca.leaf(|_| {});
    let chain = build(&leaf, &[&ca], &root, &code_signing()).unwrap();
    assert_eq!(chain.certificates(), [leaf.clone(), ca.certificate.clone(), root.certificate.clone()]);
    assert_eq!(chain.links().count(), 2);
    assert_eq!((chain.leaf(), chain.issuer(), chain.anchor()), (&leaf, &ca.certificate, &root.certificate));
}

#[test]
fn validity_holds_on_both_ends_and_for_every_certificate() {
    let root = Ca::root("root");
    let ca = root.subordinate("ca", |_| {});
    let edge = ca.leaf(|body| (body.not_before, body.not_after) = (NOW, NOW));
    assert!(build(&edge, &[&ca], &root, &code_signing()).is_ok());
    let late = ca.leaf(|body| body.not_after = NOW.plus(-1));
    assert_eq!(denied(&late, &[&ca], &root), ReasonCode::ExpiredAtSigning);
    let early = ca.leaf(|body| body.not_before = NOW.plus(1));
    assert_eq!(denied(&early, &[&ca], &root), ReasonCode::NotYetValid);
    let expired_ca = root.subordinate("old", |body| body.not_after = NOW.plus(-DAY));
    assert_eq!(denied(&expired_ca.leaf(|_| {}), &[&expired_ca], &root), ReasonCode::ExpiredAtSigning);
    let key = Key::new();
    let mut body = Body::new("old root", "old root", vec![basic_constraints(true, None)]);
    body.not_after = NOW.plus(-1);
    let old_root = Ca { name: "old root".into(), certificate: body.issue(&key, &key), key };
    assert_eq!(denied(&old_root.leaf(|_| {}), &[], &old_root), ReasonCode::ExpiredAtSigning);
}

#[test]
fn usages_are_enforced_on_leaf_and_issuers() {
    let root = Ca::root("root");
    for extensions in [
        vec![key_usage(&[7, 0x80])],
        vec![eku(&[CODE_SIGNING])],
        vec![key_usage(&[7, 0x80]), eku(&["2.5.29.37.0"])],
        vec![key_usage(&[6, 0x40]), eku(&[CODE_SIGNING])],
        vec![key_usage(&[7, 0x80]), eku(&[CODE_SIGNING]), basic_constraints(true, None)],
    ] {
        let leaf = root.leaf(|body| body.extensions = extensions);
        assert_eq!(denied(&leaf, &[], &root), ReasonCode::UsageNotAllowed);
    }
    for extensions in [
        vec![],
        vec![basic_constraints(false, None)],
        vec![basic_constraints(true, None), key_usage(&[1, 0x02])],
        vec![basic_constraints(true, None), eku(&["1.3.6.1.5.5.7.3.8"])],
    ] {
        let ca = root.subordinate("ca", |body| body.extensions = extensions);
        assert_eq!(denied(&ca.leaf(|_| {}), &[&ca], &root), ReasonCode::UsageNotAllowed);
    }
    let any = root.subordinate("any", |body| body.extensions.push(eku(&["2.5.29.37.0"])));
    assert!(build(&any.leaf(|_| {}), &[&any], &root, &code_signing()).is_ok());
}

#[test]
fn path_lengths_count_intermediates_and_self_issued_ones_are_free() {
    let root = Ca::root("root");
    let limited = |ca: &mut Body, n: u8| ca.extensions[0] = basic_constraints(true, Some(n));
    let a = root.subordinate("a", |body| limited(body, 0));
    assert!(build(&a.leaf(|_| {}), &[&a], &root, &code_signing()).is_ok());
    let b = a.subordinate("b", |_| {});
    assert_eq!(denied(&b.leaf(|_| {}), &[&a, &b], &root), ReasonCode::PathLength);
    let rolled = a.subordinate("a", |_| {});
    assert!(build(&rolled.leaf(|_| {}), &[&a, &rolled], &root, &code_signing()).is_ok());
    let c = root.subordinate("c", |_| {});
    let policy = PathPolicy { max_depth: Some(0), ..code_signing() };
    assert_eq!(build(&c.leaf(|_| {}), &[&c], &root, &policy).unwrap_err().code, ReasonCode::PathLength);
    let key = Key::new();
    let body = Body::new("short", "short", vec![basic_constraints(true, Some(0))]);
    let short = Ca { name: "short".into(), certificate: body.issue(&key, &key), key };
    let below = short.subordinate("below", |_| {});
    assert_eq!(
        denied(&below.leaf(|_| {}), &[&below], &short),
        ReasonCode::PathLength,
        "an anchor's own limit holds"
    );
}

#[test]
fn unknown_critical_extensions_and_precertificates_are_refused() {
    let root = Ca::root("root");
    let odd = extension("1.2.3.4", true, &[5, 0]);
    let leaf = root.leaf(|body| body.extensions.push(odd.clone()));
    assert_eq!(denied(&leaf, &[], &root), ReasonCode::CriticalExtension);
    let ca = root.subordinate("ca", |body| body.extensions.push(odd.clone()));
    assert_eq!(denied(&ca.leaf(|_| {}), &[&ca], &root), ReasonCode::CriticalExtension);
    let ignored = root.leaf(|body| body.extensions.push(extension("1.2.3.4", false, &[5, 0])));
    assert!(build(&ignored, &[], &root, &code_signing()).is_ok());
    let poison = extension("1.3.6.1.4.1.11129.2.4.3", true, &[5, 0]);
    let precertificate = root.leaf(|body| body.extensions.push(poison));
    assert_eq!(denied(&precertificate, &[], &root), ReasonCode::CriticalExtension);
    let policy = PathPolicy { precertificates: Precertificates::Accepted, ..code_signing() };
    assert!(build(&precertificate, &[], &root, &policy).is_ok());
}

#[test]
fn name_constraints_hold_for_subject_and_alternative_names() {
    let root = Ca::root("root");
    let dn = seq(&[&tlv(0x31, &[&seq(&[&oid("2.5.4.10"), &tlv(0x0c, &[b"Elsewhere"])])])]);
    for (permitted, excluded) in [
        (vec![(0x81, &b"example.com"[..])], vec![]),
        (vec![], vec![(0x81, &b"Example.org"[..])]),
        (vec![(0x81, &b"a@example.com"[..])], vec![]),
        (vec![(0xa4, dn.as_slice())], vec![]),
        (vec![(0x82, &b"example.org"[..])], vec![(0x82, &b"www.example.org"[..])]),
        (vec![(0x86, &b".example.org"[..])], vec![]),
        (vec![(0x87, &[10, 0, 0, 0, 255, 0, 0, 0][..])], vec![]),
    ] {
        let ca = root.subordinate("ca", |body| body.extensions.push(name_constraints(&permitted, &excluded)));
        let names: &[(u8, &[u8])] = &[
            (0x81, b"a@example.org"),
            (0x82, b"*.example.org"),
            (0x86, b"https://example.org/x"),
            (0x87, &[192, 0, 2, 1]),
        ];
        let leaf = ca.leaf(|body| body.extensions.push(san(names)));
        assert_eq!(denied(&leaf, &[&ca], &root), ReasonCode::NameNotAllowed, "{permitted:?} {excluded:?}");
    }
    let ca = root.subordinate("ca", |body| {
        body.extensions.push(name_constraints(&[(0x81, b"example.org"), (0x86, b".example.org")], &[]));
    });
    let leaf = ca.leaf(|body| {
        body.extensions.push(san(&[(0x81, b"a@example.org"), (0x86, b"https://ci.example.org/x")]))
    });
    assert!(build(&leaf, &[&ca], &root, &code_signing()).is_ok());
}

#[test]
fn strangers_and_wrong_signatures_are_unknown_issuers() {
    let (root, other) = (Ca::root("root"), Ca::root("root"));
    let leaf = other.leaf(|_| {});
    assert_eq!(denied(&leaf, &[], &root), ReasonCode::UnknownIssuer);
    let stranger = Ca::root("stranger");
    assert_eq!(denied(&stranger.leaf(|_| {}), &[&stranger], &root), ReasonCode::UnknownIssuer);
    assert_eq!(
        build(&root.certificate, &[], &root, &PathPolicy { subject: Subject::Any, ..PathPolicy::default() })
            .unwrap_err()
            .code,
        ReasonCode::UnknownIssuer,
        "an anchor is an issuer, not a subject"
    );
}

#[test]
fn another_candidate_is_tried_when_one_fails_and_the_best_reason_is_kept() {
    let root = Ca::root("root");
    let good = root.subordinate("ca", |_| {});
    let wrong_key = root.subordinate("ca", |_| {});
    let expired = root.cross_sign("ca", &good.key, |body| body.not_after = NOW.plus(-DAY));
    let leaf = good.leaf(|_| {});
    let anchors = std::slice::from_ref(&root.certificate);
    let all = [wrong_key.certificate.clone(), expired.clone(), good.certificate.clone()];
    assert!(build_path(&leaf, &all, anchors, NOW, &code_signing(), &AwsLc).is_ok());
    let some = [wrong_key.certificate.clone(), expired];
    let denial = build_path(&leaf, &some, anchors, NOW, &code_signing(), &AwsLc).unwrap_err();
    assert_eq!(denial.code, ReasonCode::ExpiredAtSigning);
}

#[test]
fn required_names_must_be_borne() {
    let root = Ca::root("root");
    let leaf = root.leaf(|body| body.extensions.push(san(&[(0x81, b"a@example.com")])));
    let ask = |name| PathPolicy { required_name: Some(name), ..code_signing() };
    assert!(build(&leaf, &[], &root, &ask(RequiredName::Email("a@Example.com".into()))).is_ok());
    for name in [RequiredName::Email("b@example.com".into()), RequiredName::Dns("example.com".into())] {
        assert_eq!(build(&leaf, &[], &root, &ask(name)).unwrap_err().code, ReasonCode::IdentityDenied);
    }
}

#[test]
fn a_name_that_no_record_has_room_for_is_no_identity() {
    let root = Ca::root("root");
    let named = |length: usize| {
        let uri = format!("https://{}", "a".repeat(length - 8));
        Identity::of_certificate(&root.leaf(|body| body.extensions.push(san(&[(0x86, uri.as_bytes())]))))
    };
    assert_eq!(named(MAX_NAME).unwrap().subject().len(), MAX_NAME);
    let denial = named(MAX_NAME + 1).unwrap_err();
    assert_eq!(denial.code, ReasonCode::IdentityDenied);
    assert!(denial.detail.contains("longer than"), "{denial}");
}

#[test]
fn cross_signing_webs_and_constraint_bombs_end_in_the_budget() {
    // Every CA of a web has certified every other one, and none is reachable from the anchor.
    let web: Vec<Ca> = (0..12).map(|i| Ca::root(&format!("web {i}"))).collect();
    let mut candidates = Vec::new();
    for a in &web {
        for b in web.iter().filter(|b| b.name != a.name) {
            candidates.push(a.cross_sign(&b.name, &b.key, |_| {}));
        }
    }
    let root = Ca::root("root");
    let leaf = web[0].leaf(|_| {});
    let anchors = std::slice::from_ref(&root.certificate);
    let denial = build_path(&leaf, &candidates, anchors, NOW, &code_signing(), &AwsLc).unwrap_err();
    assert_eq!(denial.code, ReasonCode::BudgetExceeded);

    let bases: Vec<Vec<u8>> = (0..2_000).map(|i| format!("host{i}.example").into_bytes()).collect();
    let subtrees: Vec<(u8, &[u8])> = bases.iter().map(|base| (0x82, base.as_slice())).collect();
    let bomb = root.subordinate("bomb", |body| body.extensions.push(name_constraints(&[], &subtrees)));
    let hosts: Vec<Vec<u8>> = (0..1_000).map(|i| format!("name{i}.test").into_bytes()).collect();
    let names: Vec<(u8, &[u8])> = hosts.iter().map(|host| (0x82, host.as_slice())).collect();
    let leaf = bomb.leaf(|body| body.extensions.push(san(&names)));
    assert_eq!(denied(&leaf, &[&bomb], &root), ReasonCode::BudgetExceeded);

    let none = PathPolicy { budget: Budget { signature_checks: 0, steps: 1_000 }, ..code_signing() };
    let denial = build(&root.leaf(|_| {}), &[], &root, &none).unwrap_err();
    assert_eq!(denial.code, ReasonCode::BudgetExceeded);
}

#[test]
fn certificates_that_are_not_canonical_do_not_parse() {
    let key = Key::new();
    let body = Body::new("root", "leaf", vec![key_usage(&[7, 0x80])]);
    let good = body.der(&key.spki(), &key);
    assert!(Certificate::from_der(&good).is_ok());
    let mut trailing = good.clone();
    trailing.push(0);
    let inner = Certificate::from_der(&good).unwrap();
    let other_algorithm = seq(&[inner.tbs(), &seq(&[&oid("1.2.840.10045.4.3.3")]), &key.sign(inner.tbs())]);
    let twice =
        Body::new("root", "leaf", vec![key_usage(&[7, 0x80]), key_usage(&[7, 0x80])]).der(&key.spki(), &key);
    let empty = Body::new("root", "leaf", vec![eku(&[])]).der(&key.spki(), &key);
    let mut long = Body::new("root", "leaf", vec![]);
    long.serial = vec![1; 21];
    for bad in [
        trailing,
        other_algorithm,
        twice,
        empty,
        long.der(&key.spki(), &key),
        good[..good.len() - 1].to_vec(),
    ] {
        assert_eq!(Certificate::from_der(&bad).unwrap_err().code, ReasonCode::Malformed);
    }
    let huge = vec![0x30; trust_store::certificate::MAX_LENGTH + 1];
    assert_eq!(Certificate::from_der(&huge).unwrap_err().code, ReasonCode::TooLarge);
}

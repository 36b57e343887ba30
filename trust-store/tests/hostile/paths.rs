//! Chains that never end, or that end nowhere.

use aws_lc_rs::signature::{ECDSA_P521_SHA512_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use trust_store::ReasonCode;
use trust_store::certificate::Certificate;

use super::{Attack, path};
use crate::forge::{Body, Ca, Key, basic_constraints, extension, key_usage, oid, seq, tlv};

const CERT_SIGN: &[u8] = &[1, 0x06];

pub(crate) fn all() -> Vec<Attack> {
    vec![lookalikes(), dear_lookalikes(), web(false), web(true), long_names(), policies()]
}

fn ca_extensions() -> Vec<Vec<u8>> {
    vec![basic_constraints(true, None), key_usage(CERT_SIGN)]
}

/// As many issuers of the right name as may be given, none with the right key.
fn lookalikes() -> Attack {
    let root = Ca::root("root");
    let issuer = root.subordinate("issuer", |_| {});
    let leaf = issuer.leaf(|_| {});
    let twins = (0..1_000).map(|_| root.subordinate("issuer", |_| {}).certificate).collect();
    path("1,000 issuers of one name", ReasonCode::BudgetExceeded, leaf, twins, vec![root.certificate])
}

/// The same with the dearest keys that are verified.
fn dear_lookalikes() -> Attack {
    let root = Ca::root("root");
    let twins: Vec<Certificate> = (0..200)
        .map(|_| {
            let key = EcdsaKeyPair::generate(&ECDSA_P521_SHA512_ASN1_SIGNING).unwrap();
            let algorithm = seq(&[&oid("1.2.840.10045.2.1"), &oid("1.3.132.0.35")]);
            let spki = seq(&[&algorithm, &tlv(3, &[&[0], key.public_key().as_ref()])]);
            let der = Body::new("root", "issuer", ca_extensions()).der(&spki, &root.key);
            Certificate::from_der(&der).unwrap()
        })
        .collect();
    let leaf = signed_with_p521("issuer");
    path("200 issuers with P-521 keys", ReasonCode::BudgetExceeded, leaf, twins, vec![root.certificate])
}

/// A certificate whose signature says P-521 and SHA-512, by a key that nobody has.
fn signed_with_p521(issuer: &str) -> Certificate {
    let algorithm = seq(&[&oid("1.2.840.10045.4.3.4")]);
    let key = EcdsaKeyPair::generate(&ECDSA_P521_SHA512_ASN1_SIGNING).unwrap();
    let der = Body::new(issuer, "signer", Vec::new()).der(&Key::new().spki(), &Key::new());
    // The body that the forger wrote, with the algorithm replaced in both places and signed anew.
    let certificate = Certificate::from_der(&der).unwrap();
    let old = crate::forge::ecdsa_sha256();
    let at = certificate.tbs().windows(old.len()).position(|window| window == old).unwrap();
    let header = match certificate.tbs()[1] {
        length @ 0x80.. => 2 + usize::from(length & 0x7f),
        _ => 2,
    };
    let head = &certificate.tbs()[header..at];
    let tbs = seq(&[head, &algorithm, &certificate.tbs()[at + old.len()..]]);
    let signature = key.sign(&aws_lc_rs::rand::SystemRandom::new(), &tbs).unwrap();
    Certificate::from_der(&seq(&[&tbs, &algorithm, &tlv(3, &[&[0], signature.as_ref()])])).unwrap()
}

/// 32 floors with two keys on each, every key certified by both of the floor above: 2^32 ways up. With or without an
/// anchor at the top.
fn web(anchored: bool) -> Attack {
    let floor_name = |floor: usize| format!("floor {floor}");
    let keys: Vec<[Key; 2]> = (0..=32).map(|_| [Key::new(), Key::new()]).collect();
    let mut others = Vec::new();
    for floor in 0..32 {
        for key in &keys[floor] {
            for above in &keys[floor + 1] {
                let body = Body::new(&floor_name(floor + 1), &floor_name(floor), ca_extensions());
                others.push(body.issue(key, above));
            }
        }
    }
    let leaf = Body::new(&floor_name(0), "signer", Vec::new()).issue(&Key::new(), &keys[0][0]);
    let top = Body::new(&floor_name(32), &floor_name(32), ca_extensions()).issue(&keys[32][0], &keys[32][0]);
    let stranger = Ca::root("elsewhere").certificate;
    let anchors = if anchored { vec![top] } else { vec![stranger] };
    path("32 floors of cross-signing", ReasonCode::BudgetExceeded, leaf, others, anchors)
}

/// Names that differ in their last octet only, from certificates that lead to each other.
fn long_names() -> Attack {
    let long = |last: char| format!("{}{last}", "n".repeat(4_000));
    let keys: Vec<Key> = (0..16).map(|_| Key::new()).collect();
    let mut others: Vec<Certificate> = Vec::new();
    for (i, key) in keys.iter().enumerate() {
        for above in &keys[..i] {
            others.push(Body::new(&long('a'), &long('a'), ca_extensions()).issue(key, above));
        }
    }
    let letters = ('b'..='z').cycle();
    let strangers =
        letters.take(800).map(|c| Body::new("x", &long(c), ca_extensions()).issue(&keys[0], &keys[0]));
    others.extend(strangers);
    let leaf = Body::new(&long('a'), "signer", Vec::new()).issue(&Key::new(), &keys[15]);
    path(
        "names that differ at the end",
        ReasonCode::BudgetExceeded,
        leaf,
        others,
        vec![Ca::root("root").certificate],
    )
}

/// 64 policies, each mapped to another, on every certificate of the longest path.
fn policies() -> Attack {
    let policy = |n: usize| oid(&format!("1.3.6.1.4.1.99999.{n}"));
    let list: Vec<Vec<u8>> = (0..64).map(|n| seq(&[&policy(n)])).collect();
    let mappings: Vec<Vec<u8>> = (0..64).map(|n| seq(&[&policy(n / 8), &policy((n * 7) % 64)])).collect();
    let policies = extension("2.5.29.32", false, &seq(&[&list.concat()]));
    let mappings = extension("2.5.29.33", true, &seq(&[&mappings.concat()]));
    let explicit = extension("2.5.29.36", true, &seq(&[&tlv(0x80, &[&[0]])]));
    let mut above = Ca::root("root");
    let anchor = above.certificate.clone();
    let mut others = Vec::new();
    for floor in 0..15 {
        let next = above.subordinate(&format!("ca {floor}"), |body| {
            body.extensions.extend([policies.clone(), mappings.clone(), explicit.clone()]);
        });
        others.push(next.certificate.clone());
        above = next;
    }
    let leaf = above
        .leaf(|body| body.extensions.push(extension("2.5.29.32", false, &seq(&[&seq(&[&oid("1.2.3")])]))));
    path("64 mapped policies on 15 floors", ReasonCode::PolicyNotAllowed, leaf, others, vec![anchor])
}

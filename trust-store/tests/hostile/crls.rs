//! Revocation evidence that makes every look-up long.

use trust_store::ReasonCode;
use trust_store::certificate::Certificate;
use trust_store::crl::Crl;
use trust_store::ocsp::OcspResponse;
use trust_store::provider::AwsLc;
use trust_store::revocation::RevocationEvidence;

use super::{Attack, status};
use crate::forge::{Ca, DAY, Key, NOW, extension, good, ocsp, seq, single, tlv};

pub(crate) fn all() -> Vec<Attack> {
    vec![colliding_deltas(), many_names(), unsigned_giants(), many_lists(), many_answers()]
}

const SERIAL: &[u8] = &[0x11, 2, 3, 4, 5, 6, 7, 8];

fn number(id: &str, n: u8) -> Vec<u8> {
    extension(id, id == "2.5.29.27", &tlv(2, &[&[n]]))
}

fn issued(change: impl FnOnce(&mut Vec<Vec<u8>>)) -> (Ca, Certificate) {
    let ca = Ca::root("root");
    let leaf = ca.leaf(|body| {
        body.serial = SERIAL.to_vec();
        change(&mut body.extensions);
    });
    (ca, leaf)
}

/// Deltas that nobody signed, whose entries all share the last octets of the serial number.
fn colliding_deltas() -> Attack {
    let (ca, leaf) = issued(|_| {});
    let stranger = Ca::root("root");
    let serials: Vec<Vec<u8>> =
        (1..=20_000_u32).map(|n| [&[0x11], &n.to_be_bytes()[..], SERIAL].concat()).collect();
    let entries: Vec<(&[u8], Vec<Vec<u8>>)> =
        serials.iter().map(|serial| (serial.as_slice(), Vec::new())).collect();
    let delta = stranger.crl(&entries, &[number("2.5.29.20", 9), number("2.5.29.27", 1)]);
    let mut crls = vec![Crl::from_der(&ca.crl(&[], &[number("2.5.29.20", 2)])).unwrap()];
    crls.extend((0..24).map(|_| Crl::from_der(&delta).unwrap()));
    let evidence = RevocationEvidence { crls, ..RevocationEvidence::default() };
    status(
        "24 deltas of 20,000 colliding entries",
        ReasonCode::BudgetExceeded,
        leaf,
        ca.certificate,
        evidence,
    )
}

/// 64 distribution points of many names against a list with many names.
fn many_names() -> Attack {
    let names = |prefix: &str, count: usize| -> Vec<u8> {
        (0..count).flat_map(|n| tlv(0x86, &[format!("http://{prefix}/{n:04}").as_bytes()])).collect()
    };
    let point = |content: &[u8]| tlv(0xa0, &[&tlv(0xa0, &[content])]);
    let points: Vec<u8> = (0..64).flat_map(|_| seq(&[&point(&names("a", 80))])).collect();
    let (ca, leaf) = issued(|extensions| extensions.push(extension("2.5.29.31", false, &seq(&[&points]))));
    let distribution_point = extension("2.5.29.28", true, &seq(&[&point(&names("b", 1_000))]));
    let der = Ca::root("root").crl(&[], &[number("2.5.29.20", 2), distribution_point]);
    let crls = (0..32).map(|_| Crl::from_der(&der).unwrap()).collect();
    let evidence = RevocationEvidence { crls, ..RevocationEvidence::default() };
    status("5,120 names against 1,000", ReasonCode::BudgetExceeded, leaf, ca.certificate, evidence)
}

/// Lists of megabytes by someone with the issuer's name: to find out costs a hash over all of it.
fn unsigned_giants() -> Attack {
    let (ca, leaf) = issued(|_| {});
    let padding = extension("1.2.3.4", false, &vec![0; 4 << 20]);
    let der = Ca::root("root").crl(&[], &[number("2.5.29.20", 2), padding]);
    let crls = (0..16).map(|_| Crl::from_der(&der).unwrap()).collect();
    let evidence = RevocationEvidence { crls, ..RevocationEvidence::default() };
    status("16 unsigned lists of 4 MiB", ReasonCode::BudgetExceeded, leaf, ca.certificate, evidence)
}

/// Every base is weighed against every delta.
fn many_lists() -> Attack {
    let (ca, leaf) = issued(|_| {});
    let base = Crl::from_der(&ca.crl(&[], &[number("2.5.29.20", 2)])).unwrap();
    let base = base.authenticate(&ca.certificate, &AwsLc).unwrap();
    let delta = Crl::from_der(&ca.crl(&[], &[number("2.5.29.20", 1), number("2.5.29.27", 1)])).unwrap();
    let crls = (0..2_048).map(|_| base.clone()).chain((0..2_048).map(|_| delta.clone())).collect();
    let evidence = RevocationEvidence { crls, ..RevocationEvidence::default() };
    status("2,048 lists and 2,048 deltas", ReasonCode::BudgetExceeded, leaf, ca.certificate, evidence)
}

/// Responses full of answers with this serial number about other issuers.
fn many_answers() -> Attack {
    let (ca, leaf) = issued(|_| {});
    let other = Ca::root("another");
    let one = single(&other.sha1_id(SERIAL), &good(), Some(NOW.plus(DAY)), &[]);
    let singles: Vec<Vec<u8>> = (0..250).map(|_| one.clone()).collect();
    let der = ocsp("root", &Key::new(), &singles, &[], &[]);
    let response = OcspResponse::from_der(&der).unwrap();
    let evidence = RevocationEvidence {
        ocsp: (0..2_000).map(|_| response.clone()).collect(),
        ..RevocationEvidence::default()
    };
    status("2,000 responses of 250 answers", ReasonCode::BudgetExceeded, leaf, ca.certificate, evidence)
}

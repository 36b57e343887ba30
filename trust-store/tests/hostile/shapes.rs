//! Structures that are large or deep.

use trust_store::ReasonCode;
use trust_store::bundle::Bundle;
use trust_store::certificate::Certificate;
use trust_store::crl::Crl;
use trust_store::ocsp::OcspResponse;
use trust_store::tsp::TimestampToken;

use super::{Attack, reading};
use crate::forge::{Ca, Key, extension, san, seq, tlv};

pub(crate) fn all() -> Vec<Attack> {
    let read_certificate = |der: &[u8]| Certificate::from_der(der).map(drop);
    let read_crl = |der: &[u8]| Crl::from_der(der).map(drop);
    vec![
        reading(
            "an extension of a megabyte",
            ReasonCode::TooLarge,
            with_extension(1 << 20),
            read_certificate,
        ),
        reading(
            "extensions that fill a certificate",
            ReasonCode::Malformed,
            full_of_extensions(),
            read_certificate,
        ),
        reading("names that fill a certificate", ReasonCode::Malformed, full_of_names(), read_certificate),
        reading("a list of 270,000 entries cut short", ReasonCode::Malformed, cut_list(), read_crl),
        reading("elements nested in a list", ReasonCode::Malformed, nested(9 << 20), read_crl),
        reading("elements nested in a response", ReasonCode::Malformed, nested(200 << 10), |der| {
            OcspResponse::from_der(der).map(drop)
        }),
        reading("elements nested in a token", ReasonCode::TimestampInvalid, nested(60 << 10), |der| {
            TimestampToken::from_response(der).map(drop)
        }),
        reading("a bundle of brackets", ReasonCode::Malformed, vec![b'['; 7 << 20], |json| {
            Bundle::parse(json).map(drop).map_err(Into::into)
        }),
    ]
}

fn with_extension(length: usize) -> Vec<u8> {
    certificate(vec![extension("1.2.3.4", false, &vec![0; length])])
}

fn certificate(extensions: Vec<Vec<u8>>) -> Vec<u8> {
    let ca = Ca::root("root");
    crate::forge::Body::new("root", "signer", extensions).der(&Key::new().spki(), &ca.key)
}

/// More extensions than are read, each with an identifier of its own.
fn full_of_extensions() -> Vec<u8> {
    certificate((0..5_000).map(|n| extension(&format!("1.2.3.{n}"), false, &[])).collect())
}

fn full_of_names() -> Vec<u8> {
    let names: Vec<(u8, &[u8])> = (0..40_000).map(|_| (0x82, b"a".as_slice())).collect();
    certificate(vec![san(&names)])
}

/// A list as large as may be, whose last entry is wrong: everything before it is read first.
fn cut_list() -> Vec<u8> {
    let ca = Ca::root("root");
    let serials: Vec<[u8; 8]> = (0..270_000_u64).map(|n| (n | 1 << 62).to_be_bytes()).collect();
    let mut entries: Vec<(&[u8], Vec<Vec<u8>>)> =
        serials.iter().map(|serial| (serial.as_slice(), Vec::new())).collect();
    entries.push((&[0x00, 0x01], Vec::new())); // an INTEGER that is not minimal
    ca.crl(&entries, &[])
}

/// `SEQUENCE` in `SEQUENCE`, as deep as fits.
fn nested(length: usize) -> Vec<u8> {
    let mut der = Vec::new();
    while der.len() < length.min(4_000) {
        der = tlv(0x30, &[&der]);
    }
    let filler = [0x30, 0x00].repeat((length - der.len()) / 2);
    seq(&[&der, &filler])
}

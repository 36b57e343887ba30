//! DER composition for the structures that are written by the thousand (CRL entries, OCSP answers, time-stamp tokens).
//! X.690 §8 and §10: definite lengths in the fewest octets, SET OF sorted by encoding.

use alloc::vec::Vec;

use const_oid::ObjectIdentifier;

pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const OBJECT_IDENTIFIER: u8 = 0x06;
pub(crate) const ENUMERATED: u8 = 0x0a;
pub(crate) const UTF8_STRING: u8 = 0x0c;
pub(crate) const PRINTABLE_STRING: u8 = 0x13;
pub(crate) const UTC_TIME: u8 = 0x17;
pub(crate) const GENERALIZED_TIME: u8 = 0x18;
pub(crate) const SEQUENCE: u8 = 0x30;
pub(crate) const SET: u8 = 0x31;

/// Tag of `[number] IMPLICIT` over a primitive type.
pub(crate) const fn context_primitive(number: u8) -> u8 {
    0x80 | number
}

/// Tag of `[number] EXPLICIT`, or IMPLICIT over a constructed type.
pub(crate) const fn context_constructed(number: u8) -> u8 {
    0xa0 | number
}

/// One tag-length-value whose contents are the concatenation of `parts`.
pub(crate) fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length = parts.iter().map(|part| part.len()).sum();
    let mut out = Vec::with_capacity(length + 6);
    header(tag, length, &mut out);
    for part in parts {
        out.extend_from_slice(part);
    }
    out
}

/// Appends a tag and a definite length in the fewest octets.
pub(crate) fn header(tag: u8, length: usize, out: &mut Vec<u8>) {
    out.push(tag);
    if let Ok(short) = u8::try_from(length)
        && short < 0x80
    {
        out.push(short);
        return;
    }
    let octets = length.to_be_bytes();
    let skip = octets.iter().take_while(|octet| **octet == 0).count();
    let significant = octets.get(skip..).unwrap_or_default();
    // A usize has at most eight octets, so the count fits the low seven bits.
    out.push(0x80 | u8::try_from(significant.len()).unwrap_or(8));
    out.extend_from_slice(significant);
}

/// INTEGER from an unsigned big-endian magnitude of any length.
pub(crate) fn unsigned(magnitude: &[u8]) -> Vec<u8> {
    let skip = magnitude.iter().take_while(|octet| **octet == 0).count();
    let significant = magnitude.get(skip..).unwrap_or_default();
    match significant.first() {
        None => tlv(INTEGER, &[&[0]]),
        Some(first) if *first >= 0x80 => tlv(INTEGER, &[&[0], significant]),
        Some(_) => tlv(INTEGER, &[significant]),
    }
}

/// OBJECT IDENTIFIER.
pub(crate) fn oid(value: &ObjectIdentifier) -> Vec<u8> {
    tlv(OBJECT_IDENTIFIER, &[value.as_bytes()])
}

/// BIT STRING of whole octets.
pub(crate) fn bit_string(octets: &[u8]) -> Vec<u8> {
    tlv(BIT_STRING, &[&[0], octets])
}

/// SET OF: the elements sorted by their encodings (X.690 §11.6), whatever their order or number.
pub(crate) fn set_of(tag: u8, mut elements: Vec<Vec<u8>>) -> Vec<u8> {
    elements.sort();
    let parts: Vec<&[u8]> = elements.iter().map(Vec::as_slice).collect();
    tlv(tag, &parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn lengths_use_the_fewest_octets() {
        for (length, expected) in [
            (0usize, vec![0x30, 0x00]),
            (127, vec![0x30, 0x7f]),
            (128, vec![0x30, 0x81, 0x80]),
            (255, vec![0x30, 0x81, 0xff]),
            (256, vec![0x30, 0x82, 0x01, 0x00]),
            (65_536, vec![0x30, 0x83, 0x01, 0x00, 0x00]),
        ] {
            let mut out = Vec::new();
            header(SEQUENCE, length, &mut out);
            assert_eq!(out, expected);
        }
    }

    #[test]
    fn unsigned_integers_are_minimal_and_positive() {
        assert_eq!(unsigned(&[]), [2, 1, 0]);
        assert_eq!(unsigned(&[0, 0, 5]), [2, 1, 5]);
        assert_eq!(unsigned(&[0x80]), [2, 2, 0, 0x80]);
    }

    #[test]
    fn set_of_is_sorted_by_encoding() {
        assert_eq!(set_of(SET, vec![vec![2, 1, 9], vec![2, 1, 3]]), [0x31, 6, 2, 1, 3, 2, 1, 9]);
    }
}

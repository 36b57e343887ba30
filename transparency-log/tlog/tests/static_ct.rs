//! Certificate log structures: frozen bytes, strictness, SCT signatures.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod support;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use proptest::prelude::*;
use support::AwsLc;
use tlog::static_ct::{
    DataTileRecord, DigitallySigned, Extensions, MAX_LEAF_INDEX, SignedCertificateTimestamp, SignedEntry,
    TimestampedEntry, TreeHeadSignature, encode_sct_list, log_id, parse_data_tile, parse_sct_list,
};
use tlog::{BundleId, Error, Hash, TreeHead, leaf_hash};

fn certificate() -> TimestampedEntry {
    TimestampedEntry {
        timestamp: 0x0102_0304_0506,
        entry: SignedEntry::X509(b"cert".to_vec()),
        extensions: Extensions::leaf_index(0x0a_0b0c).unwrap(),
    }
}

fn precertificate() -> TimestampedEntry {
    TimestampedEntry {
        timestamp: 7,
        entry: SignedEntry::Precertificate {
            issuer_key_hash: Hash([9; 32]),
            tbs_certificate: b"tbs".to_vec(),
        },
        extensions: Extensions::default(),
    }
}

#[test]
fn bytes_are_frozen() {
    let expected = b"\0\0\x01\x02\x03\x04\x05\x06\0\0\0\0\x04cert\0\x08\0\0\x05\0\0\x0a\x0b\x0c";
    let entry = certificate();
    let leaf = [b"\0\0".as_slice(), expected].concat();
    assert_eq!(entry.merkle_tree_leaf().unwrap(), leaf);
    assert_eq!(entry.sct_message().unwrap(), leaf);
    assert_eq!(entry.leaf_hash().unwrap(), leaf_hash(&leaf));
    assert_eq!(TimestampedEntry::parse_merkle_tree_leaf(&leaf), Ok(entry.clone()));
    let record = DataTileRecord { entry, precertificate: None, chain: vec![Hash([1; 32]), Hash([2; 32])] };
    assert_eq!(record.to_bytes().unwrap(), [expected.as_slice(), b"\0\x40", &[1; 32], &[2; 32]].concat());

    let expected = [b"\0\0\0\0\0\0\0\x07\0\x01".as_slice(), &[9; 32], b"\0\0\x03tbs\0\0"].concat();
    let record =
        DataTileRecord { entry: precertificate(), precertificate: Some(b"precert".to_vec()), chain: vec![] };
    assert_eq!(record.to_bytes().unwrap(), [&expected, b"\0\0\x07precert\0\0".as_slice()].concat());
    assert_eq!(record.entry.merkle_tree_leaf().unwrap(), [b"\0\0".as_slice(), &expected].concat());

    let message = TreeHeadSignature::message(5, &TreeHead { size: 6, root: Hash([3; 32]) });
    assert_eq!(message, [b"\0\x01\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0\x06".as_slice(), &[3; 32]].concat());
    let body = TreeHeadSignature { timestamp: 5, signature: vec![1, 2, 3] }.to_bytes().unwrap();
    assert_eq!(body, b"\0\0\0\0\0\0\0\x05\x04\x03\0\x03\x01\x02\x03");
    assert_eq!(TreeHeadSignature::parse(&body).unwrap().signature, [1, 2, 3]);
}

#[test]
fn leaf_index_is_forty_bits() {
    let extensions = Extensions::leaf_index(MAX_LEAF_INDEX).unwrap();
    assert_eq!(extensions.as_bytes(), b"\0\0\x05\xff\xff\xff\xff\xff");
    assert_eq!(Extensions::parse(extensions.as_bytes()), Ok(extensions));
    assert_eq!(Extensions::leaf_index(1 << 40), Err(Error::SizeTooLarge { value: 1 << 40 }));
    assert_eq!(Extensions::parse(b"\x07\0\x01a\0\0\x05\0\0\0\0\x09").unwrap().index(), Some(9));
    assert_eq!(Extensions::parse(b"").unwrap().index(), None);
    for bad in [
        b"\0\0\x05\0\0\0\0\x09\0\0\x05\0\0\0\0\x09".as_slice(),
        b"\x07\0\0\x07\0\0",
        b"\0\0\x04\0\0\0\x09",
        b"\0\0\x06\0\0\0\0\0\x09",
        b"\0\0\x05\0\0\0\0",
        b"\0",
        b"\x01\0",
    ] {
        assert_eq!(Extensions::parse(bad).unwrap_err().code(), "malformed", "{bad:?}");
    }
}

#[test]
fn malformed_leaves_are_refused() {
    let good = certificate().merkle_tree_leaf().unwrap();
    for length in 0..good.len() {
        let refused = TimestampedEntry::parse_merkle_tree_leaf(&good[..length]).unwrap_err();
        assert_eq!(refused.code(), "malformed", "{length}");
    }
    let longer = [good.as_slice(), b"\0"].concat();
    assert_eq!(TimestampedEntry::parse_merkle_tree_leaf(&longer).unwrap_err().code(), "malformed");
    for (at, value, code) in
        [(0, 1, "malformed"), (1, 1, "malformed"), (11, 2, "malformed"), (2, 0x80, "size_too_large")]
    {
        let mut bad = good.clone();
        bad[at] = value;
        assert_eq!(TimestampedEntry::parse_merkle_tree_leaf(&bad).unwrap_err().code(), code, "{at}");
    }
    let empty = b"\0\0\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0";
    assert_eq!(TimestampedEntry::parse_merkle_tree_leaf(empty).unwrap_err().code(), "malformed");
}

#[test]
fn data_tiles_hold_exactly_their_records() {
    let records = vec![
        DataTileRecord { entry: certificate(), precertificate: None, chain: vec![Hash([1; 32])] },
        DataTileRecord { entry: precertificate(), precertificate: Some(b"p".to_vec()), chain: vec![] },
    ];
    let mut bytes = Vec::new();
    records.iter().for_each(|record| record.write(&mut bytes).unwrap());
    let id = |width| BundleId::new(0, width).unwrap();
    assert_eq!(parse_data_tile(id(2), &bytes), Ok(records.clone()));
    for width in [1, 3] {
        assert_eq!(parse_data_tile(id(width), &bytes).unwrap_err().code(), "malformed");
    }
    assert_eq!(parse_data_tile(id(2), &bytes[..bytes.len() - 1]).unwrap_err().code(), "malformed");
    // A chain whose length is no multiple of a hash.
    let mut bad = records[0].to_bytes().unwrap();
    let at = bad.len() - 33;
    bad[at] = 31;
    bad.pop();
    assert_eq!(DataTileRecord::parse(&bad).unwrap_err().code(), "malformed");
    let wrong = DataTileRecord { precertificate: None, ..records[1].clone() };
    assert_eq!(wrong.to_bytes().unwrap_err().code(), "malformed");
    let wrong = DataTileRecord { precertificate: Some(vec![1]), ..records[0].clone() };
    assert_eq!(wrong.to_bytes().unwrap_err().code(), "malformed");
}

#[test]
fn scts_are_signed_over_entry_time_and_index() {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
    let public_key = pair.public_key().as_ref().to_vec();
    let entry = certificate();
    let signature = pair.sign(&SystemRandom::new(), &entry.sct_message().unwrap()).unwrap();
    let sct = SignedCertificateTimestamp {
        log_id: log_id(b"spki"),
        timestamp: entry.timestamp,
        extensions: entry.extensions.clone(),
        signature: DigitallySigned::ecdsa_sha256(signature.as_ref().to_vec()),
    };
    let bytes = sct.to_bytes().unwrap();
    assert_eq!(SignedCertificateTimestamp::parse(&bytes), Ok(sct.clone()));
    assert_eq!(sct.verify(entry.entry.clone(), &public_key, &AwsLc), Ok(()));
    let invalid = |sct: &SignedCertificateTimestamp, entry: SignedEntry| {
        sct.verify(entry, &public_key, &AwsLc).unwrap_err().code()
    };
    assert_eq!(invalid(&sct, SignedEntry::X509(b"Cert".to_vec())), "signature_invalid");
    let later = SignedCertificateTimestamp { timestamp: sct.timestamp + 1, ..sct.clone() };
    assert_eq!(invalid(&later, entry.entry.clone()), "signature_invalid");
    let elsewhere =
        SignedCertificateTimestamp { extensions: Extensions::leaf_index(1).unwrap(), ..sct.clone() };
    assert_eq!(invalid(&elsewhere, entry.entry.clone()), "signature_invalid");
    let mut rsa = sct.clone();
    rsa.signature.algorithm = 1;
    assert_eq!(invalid(&rsa, entry.entry.clone()), "unsupported_key");

    let list = encode_sct_list(&[sct.clone(), sct.clone()]).unwrap();
    assert_eq!(parse_sct_list(&list), Ok(vec![sct.clone(), sct.clone()]));
    for length in 0..list.len() {
        assert_eq!(parse_sct_list(&list[..length]).unwrap_err().code(), "malformed");
    }
    assert_eq!(parse_sct_list(b"\0\0").unwrap_err().code(), "malformed");
    assert_eq!(parse_sct_list(b"\0\x02\0\0").unwrap_err().code(), "malformed");
    assert_eq!(encode_sct_list(&[]).unwrap_err().code(), "malformed");
    // An SCT of a later version is not read and not in the way.
    let mut future = b"\0\0\0\x03\x01ab".to_vec();
    future.extend_from_slice(&list[2..]);
    let length = u16::try_from(future.len() - 2).unwrap();
    future[..2].copy_from_slice(&length.to_be_bytes());
    assert_eq!(parse_sct_list(&future), Ok(vec![sct.clone(), sct]));
    for length in 0..bytes.len() {
        assert_eq!(SignedCertificateTimestamp::parse(&bytes[..length]).unwrap_err().code(), "malformed");
    }
}

proptest! {
    #[test]
    fn records_print_what_they_parse(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(record) = DataTileRecord::parse(&bytes) {
            prop_assert_eq!(record.to_bytes().unwrap(), bytes.clone());
        }
        if let Ok(sct) = SignedCertificateTimestamp::parse(&bytes) {
            prop_assert_eq!(sct.to_bytes().unwrap(), bytes);
        }
    }

    #[test]
    fn records_survive_the_way_there_and_back(timestamp in 0..=tlog::MAX_SIZE, index in 0..=MAX_LEAF_INDEX,
            der in prop::collection::vec(any::<u8>(), 1..50), pre in any::<bool>(), chain in 0usize..4) {
        let entry = if pre {
            SignedEntry::Precertificate { issuer_key_hash: Hash([5; 32]), tbs_certificate: der.clone() }
        } else {
            SignedEntry::X509(der.clone())
        };
        let record = DataTileRecord {
            entry: TimestampedEntry { timestamp, entry, extensions: Extensions::leaf_index(index).unwrap() },
            precertificate: pre.then_some(der),
            chain: vec![Hash([6; 32]); chain],
        };
        prop_assert_eq!(DataTileRecord::parse(&record.to_bytes().unwrap()), Ok(record.clone()));
        let leaf = record.entry.merkle_tree_leaf().unwrap();
        prop_assert_eq!(TimestampedEntry::parse_merkle_tree_leaf(&leaf), Ok(record.entry));
    }
}

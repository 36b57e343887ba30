//! Signed notes, verifier keys and checkpoints: known answers, strictness, every key type.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod support;

use proptest::prelude::*;
use support::{AwsLc, Key, head, signed};
use tlog::note::{KeyKind, MAX_NOTE_SIZE, MAX_SIGNATURES, SignedTime, is_key_name, parse_signature_lines};
use tlog::{
    Checkpoint, EMPTY_ROOT, Error, Hash, KeyId, Note, NoteSignature, TreeHead, VerifiedCheckpoint,
    VerifierKey,
};

const EXAMPLE_KEY: &str = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
const EXAMPLE: &str = "This is an example message.\n\n\u{2014} example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";

const ORIGIN: &str = "log.example/one";

#[test]
fn the_example_of_the_specification_verifies() {
    let key = VerifierKey::parse(EXAMPLE_KEY).unwrap();
    assert_eq!(key.to_string(), EXAMPLE_KEY);
    assert_eq!((key.name(), key.kind()), ("example.com/foo", KeyKind::Ed25519));
    assert_eq!(key.id(), KeyId([0x53, 0x0d, 0x90, 0x3a]));
    let note = Note::parse(EXAMPLE.as_bytes()).unwrap();
    assert_eq!(note.text(), "This is an example message.\n");
    assert_eq!(note.to_string(), EXAMPLE);
    let verified = note.verify(std::slice::from_ref(&key), &AwsLc).unwrap();
    assert_eq!((verified.len(), verified[0].name(), verified[0].time()), (1, "example.com/foo", None));

    let altered = EXAMPLE.replace("example message", "exemple message");
    let refused = Note::parse(altered.as_bytes()).unwrap().verify(&[key], &AwsLc).unwrap_err();
    assert_eq!(refused, Error::SignatureInvalid { name: "example.com/foo".into() });
}

#[test]
fn key_ids_of_logs_in_service() {
    // The checksum database of Go modules publishes this key.
    let text = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8";
    assert_eq!(VerifierKey::parse(text).unwrap().to_string(), text);
}

#[test]
fn keys_of_every_type_have_the_id_of_the_specification() {
    let of = |name: &str, kind: u8, bytes: &[u8]| {
        let hash = Hash::digest(&[name.as_bytes(), b"\n", &[kind], bytes].concat());
        KeyId(hash.0[..4].try_into().unwrap())
    };
    let key = VerifierKey::ed25519("n", &[7; 32]).unwrap();
    assert_eq!(key.id(), of("n", 1, &[7; 32]));
    assert_eq!(key.key_hash(), Hash::digest(&[b"n\n\x01".as_slice(), &[7; 32]].concat()));
    assert_eq!(VerifierKey::cosignature_v1("n", &[7; 32]).unwrap().id(), of("n", 4, &[7; 32]));
    assert_eq!(VerifierKey::ml_dsa_44("n", &[7; 1312]).unwrap().id(), of("n", 6, &[7; 1312]));

    let mut spki = hex::decode("3059301306072a8648ce3d020106082a8648ce3d030107034200").unwrap();
    spki.extend_from_slice(&[4; 65]);
    let ecdsa = VerifierKey::ecdsa("n", &spki).unwrap();
    assert_eq!(ecdsa.key_hash(), Hash::digest(&spki));
    assert_eq!(ecdsa.public_key(), [4; 65]);
    let log_id = Hash::digest(&spki);
    assert_eq!(VerifierKey::tree_head("n", &spki).unwrap().id(), of("n", 5, &log_id.0));
    let rsa = VerifierKey::rsa_pkcs1("n", b"prefix and key", b"key").unwrap();
    let expected = Hash::digest(b"n\n\xffPKIX-RSA-PKCS#1v1.5prefix and key");
    assert_eq!(rsa.key_hash(), expected);
    for key in [key, ecdsa, VerifierKey::ml_dsa_44("n", &[7; 1312]).unwrap()] {
        assert_eq!(VerifierKey::parse(&key.to_string()), Ok(key));
    }
}

#[test]
fn malformed_keys_are_refused() {
    let good = VerifierKey::ed25519("n", &[7; 32]).unwrap().to_string();
    let [name, id, body] = good.split('+').collect::<Vec<_>>()[..] else { panic!("{good}") };
    for bad in [
        String::new(),
        name.into(),
        format!("{name}+{id}"),
        format!("+{id}+{body}"),
        format!("a b+{id}+{body}"),
        format!("m+{id}+{body}"),
        format!("{name}+{}+{body}", id.to_uppercase() + "0"),
        format!("{name}+00000000+{body}"),
        format!("{name}+{id}+{body}="),
        format!("{name}+{id}+{}", &body[..40]),
        format!("{name}+{id}+"),
        format!("{good}\n"),
        format!(" {good}"),
    ] {
        assert_eq!(VerifierKey::parse(&bad).unwrap_err().code(), "malformed", "{bad:?}");
    }
    assert_eq!(VerifierKey::parse(&"n".repeat(5000)).unwrap_err().code(), "too_large");
    // Type 0x05 in its text form, and a type nobody knows.
    for kind in [5u8, 0xfa] {
        use base64::Engine as _;
        let body = base64::engine::general_purpose::STANDARD.encode([&[kind], [1; 32].as_slice()].concat());
        assert_eq!(VerifierKey::parse(&format!("n+00000000+{body}")), Err(Error::UnsupportedKey { kind }));
    }
    for spki in [vec![], vec![0x30; 91], {
        let mut compressed = hex::decode("3039301306072a8648ce3d020106082a8648ce3d030107032200").unwrap();
        compressed.extend_from_slice(&[2; 33]);
        compressed
    }] {
        assert_eq!(VerifierKey::ecdsa("n", &spki).unwrap_err().code(), "malformed");
    }
    assert!(!is_key_name("") && !is_key_name("a+b") && !is_key_name("a\u{a0}b") && !is_key_name("a\nb"));
}

#[test]
fn malformed_notes_are_refused() {
    let line = EXAMPLE.split_once("\n\n").unwrap().1;
    for bad in [
        String::new(),
        "text\n".into(),
        "text\n\n".into(),
        "\n\n".into(),
        line.into(),
        format!("text{line}"),
        format!("text\n{line}"),
        format!("text\n\n{}", line.trim_end()),
        format!("text\n\n{line}\n"),
        format!("text\n\n{line}more"),
        format!("text\r\n\n{line}"),
        format!("te\txt\n\n{line}"),
        format!("te\0xt\n\n{line}"),
        format!("text\n\n{}", line.replace('\u{2014}', "-")),
        format!("text\n\n{}", line.replace("\u{2014} ", "\u{2014}")),
        format!("text\n\n{}", line.replace("example.com/foo ", "example.com/foo")),
        format!("text\n\n{}", line.replace("example.com/foo", "")),
        format!("text\n\n{}", line.replace("example.com/foo", "example.com+foo")),
        format!("text\n\n{}", line.replace("example.com/foo", "example.com\u{2003}foo")),
        format!("text\n\n{}", line.replace("QM=", "QN=")),
        format!("text\n\n{}", line.replace("QM=", "QM")),
        format!("text\n\n{}", line.replace("QM=", "QM==")),
        format!("text\n\n{}", line.replace("Uw2", " Uw2")),
        "text\n\n\u{2014} name AAAAAA==\n".into(),
        "text\n\n\u{2014} name \n".into(),
    ] {
        assert_eq!(Note::parse(bad.as_bytes()).unwrap_err().code(), "malformed", "{bad:?}");
    }
    assert_eq!(Note::parse(b"\xff\n\n").unwrap_err(), Error::Malformed { what: "note is not UTF-8", at: 0 });
    assert_eq!(Note::parse(&vec![b'a'; MAX_NOTE_SIZE + 1]).unwrap_err().code(), "too_large");
    let many = format!("text\n\n{}", line.repeat(MAX_SIGNATURES + 1));
    assert_eq!(Note::parse(many.as_bytes()).unwrap_err().code(), "too_large");
    let allowed = format!("text\n\n{}", line.repeat(MAX_SIGNATURES));
    assert_eq!(Note::parse(allowed.as_bytes()).unwrap().signatures().len(), MAX_SIGNATURES);
}

#[test]
fn text_and_signatures_part_at_the_last_empty_line() {
    let key = Key::ed25519("n", 1);
    for text in ["a\n\nb\n", "\n", "\n\n", "a\n\n", "\u{2014} n AAAAAAA=\n\nb\n"] {
        let mut note = Note::new(text).unwrap();
        key.sign(&mut note, 0);
        let again = Note::parse(&note.to_bytes()).unwrap();
        assert_eq!(again.text(), text);
        assert_eq!(again.verify(std::slice::from_ref(&key.key), &AwsLc).unwrap().len(), 1);
    }
    assert_eq!(Note::new("no newline").unwrap_err().code(), "malformed");
    assert_eq!(Note::new("tab\t\n").unwrap_err().code(), "malformed");
}

#[test]
fn sixteen_post_quantum_lines_fit() {
    let keys: Vec<Key> = (0..16).map(|seed| Key::ml_dsa(&format!("witness-{seed}.example"), seed)).collect();
    let note = signed(ORIGIN, head(5), &keys.iter().collect::<Vec<_>>(), 9);
    let bytes = note.to_bytes();
    let known: Vec<VerifierKey> = keys.iter().map(|key| key.key.clone()).collect();
    assert_eq!(Note::parse(&bytes).unwrap().verify(&known, &AwsLc).unwrap().len(), 16);
}

#[test]
fn every_key_type_signs_and_carries_its_time() {
    let keys = [
        (Key::ed25519(ORIGIN, 1), None),
        (Key::ecdsa(ORIGIN), None),
        (Key::cosigner("w.example/ed", 2), Some(SignedTime::Seconds(1_800_000_000))),
        (Key::certificate_log(ORIGIN), Some(SignedTime::Milliseconds(1_800_000_000))),
        (Key::ml_dsa(ORIGIN, 3), Some(SignedTime::Seconds(1_800_000_000))),
    ];
    for (key, time) in &keys {
        let note = signed(ORIGIN, head(77), &[key], 1_800_000_000);
        let verified = note.verify(std::slice::from_ref(&key.key), &AwsLc).unwrap();
        assert_eq!((verified[0].time(), verified[0].kind()), (*time, key.key.kind()));
        // One bit anywhere in the body, the time included, breaks it.
        let body = key.body(note.text(), 1_800_000_000);
        for at in [0, 7, body.len() / 2, body.len() - 1] {
            let mut altered = body.clone();
            altered[at] ^= 1;
            let refused = key.key.verify(note.text(), &altered, &AwsLc).unwrap_err();
            assert_eq!(refused.code(), "signature_invalid", "{:?} at {at}", key.key.kind());
        }
        assert!(key.key.verify(note.text(), &body[..body.len() - 1], &AwsLc).is_err());
        assert!(key.key.verify(note.text(), &[], &AwsLc).is_err());
        let other = note.text().replace("77", "78");
        assert_eq!(key.key.verify(&other, &body, &AwsLc).unwrap_err().code(), "signature_invalid");
    }
}

#[test]
fn lines_of_unknown_keys_are_ignored_and_of_known_ones_must_verify() {
    let (log, other) = (Key::ed25519(ORIGIN, 1), Key::ed25519("other.example", 2));
    let same_name = Key::ed25519(ORIGIN, 3);
    let note = signed(ORIGIN, head(4), &[&other, &log, &same_name], 0);
    let known = [log.key.clone()];
    assert_eq!(note.verify(&known, &AwsLc).unwrap().len(), 1);
    // Only the name or only the ID matches: ignored, so nothing is left.
    let id_only = NoteSignature::new("z.example", log.key.id(), vec![0; 64]).unwrap();
    let mut note = Note::new("text\n").unwrap();
    note.push(id_only);
    same_name.sign(&mut note, 0);
    assert_eq!(note.verify(&known, &AwsLc), Err(Error::NoTrustedSignature));
    // A failing line of a known key spoils the whole note, wherever it stands.
    let mut note = signed(ORIGIN, head(4), &[&log], 0);
    note.push(NoteSignature::new(ORIGIN, log.key.id(), vec![1; 64]).unwrap());
    assert_eq!(note.verify(&known, &AwsLc), Err(Error::SignatureInvalid { name: ORIGIN.into() }));
    assert_eq!(note.verify(&[], &AwsLc), Err(Error::NoTrustedSignature));
}

#[test]
fn checkpoints_are_strict() {
    let root = head(1).root.to_base64();
    let good = format!("{ORIGIN}\n20852163\n{root}\n");
    assert_eq!(Checkpoint::parse(&good).unwrap().to_string(), good);
    let extended = format!("{good}one\ntwo\n");
    let parsed = Checkpoint::parse(&extended).unwrap();
    assert_eq!(
        (parsed.extensions(), parsed.to_string()),
        (["one".into(), "two".into()].as_slice(), extended)
    );
    for bad in [
        String::new(),
        "\n".into(),
        format!("{ORIGIN}\n"),
        format!("{ORIGIN}\n1\n"),
        format!("\n1\n{root}\n"),
        format!("{ORIGIN}\n\n{root}\n"),
        format!("{ORIGIN}\n1\n\n"),
        format!("{ORIGIN}\n01\n{root}\n"),
        format!("{ORIGIN}\n+1\n{root}\n"),
        format!("{ORIGIN}\n1 \n{root}\n"),
        format!("{ORIGIN}\n-1\n{root}\n"),
        format!("{ORIGIN}\n9223372036854775808\n{root}\n"),
        format!("{ORIGIN}\n1\n{}\n", &root[..43]),
        format!("{ORIGIN}\n1\nAAAA{root}\n"),
        format!("{ORIGIN}\n1\n{root}"),
        format!("{ORIGIN}\n1\n{root}\n\n"),
        format!("{ORIGIN}\n1\n{root}\n\nextension\n"),
        format!("{ORIGIN}\r\n1\r\n{root}\r\n"),
    ] {
        assert_eq!(Checkpoint::parse(&bad).unwrap_err().code(), "malformed", "{bad:?}");
    }
    assert_eq!(Checkpoint::new("", head(1)).unwrap_err().code(), "malformed");
    assert_eq!(Checkpoint::new("a\nb", head(1)).unwrap_err().code(), "malformed");
    assert_eq!(Checkpoint::new(ORIGIN, head(u64::MAX)).unwrap_err().code(), "size_too_large");
    assert_eq!(Checkpoint::new(ORIGIN, head(0)).unwrap_err().code(), "root_mismatch");
    assert!(Checkpoint::new(ORIGIN, TreeHead::EMPTY).unwrap().to_string().contains(&EMPTY_ROOT.to_base64()));
}

#[test]
fn opening_demands_the_logs_own_key_and_origin() {
    let log = Key::ed25519(ORIGIN, 1);
    let log_pq = Key::ml_dsa(ORIGIN, 2);
    let witness = Key::cosigner("witness.example", 3);
    let witness_pq = Key::ml_dsa("witness-pq.example", 4);
    let keys: Vec<VerifierKey> = [&log, &log_pq, &witness, &witness_pq].map(|key| key.key.clone()).to_vec();
    let open =
        |note: &Note, keys: &[VerifierKey]| VerifiedCheckpoint::open(&note.to_bytes(), ORIGIN, keys, &AwsLc);

    let mut note = signed(ORIGIN, head(9), &[&witness, &log, &witness_pq], 100);
    log_pq.sign(&mut note, 200);
    let opened = open(&note, &keys).unwrap();
    assert_eq!((opened.origin(), *opened.head()), (ORIGIN, head(9)));
    assert_eq!((opened.log_signatures().len(), opened.cosignatures().len()), (2, 2));
    assert_eq!((opened.signed_at(), opened.log_signed_at()), (Some(200), Some(200)));
    assert_eq!(opened.note(), &note);
    let cosigners: Vec<usize> = opened.cosignatures().iter().map(|line| line.key_index()).collect();
    assert_eq!(cosigners, [2, 3]);

    // Witnesses alone do not make a checkpoint, not even with a key that is named like the log.
    let only_witness = signed(ORIGIN, head(9), &[&witness], 100);
    assert_eq!(open(&only_witness, &keys), Err(Error::NoTrustedSignature));
    let impostor = Key::cosigner(ORIGIN, 5);
    let note = signed(ORIGIN, head(9), &[&impostor], 100);
    assert_eq!(open(&note, std::slice::from_ref(&impostor.key)), Err(Error::NoTrustedSignature));
    // The key of another log, trusted for that log only.
    let other = Key::ed25519("log.example/two", 6);
    let note = signed(ORIGIN, head(9), &[&other], 0);
    assert_eq!(open(&note, std::slice::from_ref(&other.key)), Err(Error::NoTrustedSignature));
    let note = signed("log.example/two", head(9), &[&other], 0);
    assert_eq!(open(&note, std::slice::from_ref(&other.key)), Err(Error::OriginMismatch));
    // Size 0 with a root is a lie the log signed.
    let text = format!("{ORIGIN}\n0\n{}\n", head(3).root.to_base64());
    let mut note = Note::new(&text).unwrap();
    log.sign(&mut note, 0);
    assert_eq!(open(&note, &keys).unwrap_err().code(), "root_mismatch");
    // A signed text that is no checkpoint.
    let mut note = Note::new("just a text\n").unwrap();
    log.sign(&mut note, 0);
    assert_eq!(open(&note, &keys).unwrap_err().code(), "malformed");
}

#[test]
fn tree_head_signatures_cover_no_extension_lines() {
    let log = Key::certificate_log(ORIGIN);
    let text = format!("{}extension\n", Checkpoint::new(ORIGIN, head(9)).unwrap());
    let mut note = Note::new(&text).unwrap();
    log.sign(&mut note, 5);
    let refused = note.verify(std::slice::from_ref(&log.key), &AwsLc).unwrap_err();
    assert_eq!(refused.code(), "signature_invalid");
    // An ML-DSA line does not cover them either, which the format says and readers live with.
    let log = Key::ml_dsa(ORIGIN, 1);
    let mut note = Note::new(&text).unwrap();
    log.sign(&mut note, 5);
    assert_eq!(note.verify(std::slice::from_ref(&log.key), &AwsLc).unwrap().len(), 1);
}

#[test]
fn time_zero_makes_no_statement() {
    let witness = Key::ml_dsa("w.example", 1);
    let note = signed(ORIGIN, head(9), &[&witness], 0);
    assert_eq!(note.verify(std::slice::from_ref(&witness.key), &AwsLc).unwrap()[0].time(), None);
}

#[test]
fn signature_lines_alone() {
    let line = EXAMPLE.split_once("\n\n").unwrap().1;
    let lines = parse_signature_lines(&line.repeat(2)).unwrap();
    assert_eq!((lines.len(), lines[0].name(), lines[0].to_string().as_str()), (2, "example.com/foo", line));
    for bad in ["", "\n", line.trim_end(), &format!("{line}\n"), &format!("\n{line}")] {
        assert_eq!(parse_signature_lines(bad).unwrap_err().code(), "malformed", "{bad:?}");
    }
}

proptest! {
    #[test]
    fn parsing_never_panics_and_printing_gives_the_bytes_back(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(note) = Note::parse(&bytes) {
            prop_assert_eq!(note.to_bytes(), bytes);
        }
    }

    #[test]
    fn near_notes_print_what_they_parse(text in "([a-z \n\u{2014}]{0,20}\n){1,3}", name in "[a-z+ ./]{0,6}",
            body in "[A-Za-z0-9+/]{0,12}={0,2}", tail in "\n{0,2}") {
        let bytes = format!("{text}\n\u{2014} {name} {body}\n{tail}").into_bytes();
        if let Ok(note) = Note::parse(&bytes) {
            prop_assert_eq!(note.to_bytes(), bytes);
        }
    }

    #[test]
    fn near_checkpoints_print_what_they_parse(origin in "[a-z/ ]{0,5}", size in "[0-9]{0,20}",
            root in "[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048B]=", rest in "([a-z]{0,3}\n){0,2}") {
        let text = format!("{origin}\n{size}\n{root}\n{rest}");
        if let Ok(checkpoint) = Checkpoint::parse(&text) {
            prop_assert_eq!(checkpoint.to_string(), text);
        }
    }
}

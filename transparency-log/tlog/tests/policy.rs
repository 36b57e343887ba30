//! Policy files, and proof files verified under them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod support;

use support::{AwsLc, Key, signed};
use tlog::{Error, InclusionProof, MemoryTree, Policy, ProofFile, leaf_hash};

const ORIGIN: &str = "log.example/one";

struct Cast {
    log: Key,
    witnesses: Vec<Key>,
    text: String,
}

/// One log, four witnesses of both types, and a policy `any` over (two of three, one).
fn cast() -> Cast {
    let log = Key::ed25519(ORIGIN, 1);
    let witnesses = vec![
        Key::cosigner("w0.example", 10),
        Key::ml_dsa("w1.example", 11),
        Key::cosigner("w2.example", 12),
        Key::ml_dsa("w3.example", 13),
    ];
    let mut text = format!("# a comment\n\nlog {} https://log.example/\n", log.key);
    for (number, witness) in witnesses.iter().enumerate() {
        text.push_str(&format!("\twitness w{number}  {} \n", witness.key));
    }
    text.push_str("group three 2 w0 w1 w2\ngroup top all three w3\nquorum top\n");
    Cast { log, witnesses, text }
}

#[test]
fn quorum_is_evaluated_through_groups() {
    let policy = Policy::parse(cast().text.as_bytes()).unwrap();
    assert_eq!((policy.logs().len(), policy.witnesses().len(), policy.is_witnessless()), (1, 4, false));
    assert_eq!(policy.logs()[0].url.as_deref(), Some(b"https://log.example/".as_slice()));
    for set in 0..16u32 {
        let reached = policy.evaluate(|witness| set & (1 << witness) != 0);
        assert_eq!(reached, (set & 0b0111).count_ones() >= 2 && set & 0b1000 != 0, "{set:04b}");
    }
}

#[test]
fn a_checkpoint_needs_log_and_quorum() {
    let Cast { log, witnesses: w, text } = cast();
    let policy = Policy::parse(text.as_bytes()).unwrap();
    let head = support::head(12);
    let open = |keys: &[&Key], time| policy.open(&signed(ORIGIN, head, keys, time).to_bytes(), &AwsLc);
    assert_eq!(*open(&[&log, &w[0], &w[1], &w[3]], 7).unwrap().head(), head);
    assert_eq!(open(&[&log, &w[0], &w[1]], 7), Err(Error::QuorumNotReached));
    assert_eq!(open(&[&log, &w[0], &w[0], &w[3]], 7), Err(Error::QuorumNotReached));
    assert_eq!(open(&[&w[0], &w[1], &w[3]], 7), Err(Error::NoTrustedSignature));
    // Time 0 says nothing about the largest tree seen: such a line of an ML-DSA witness does not count.
    let mut note = signed(ORIGIN, head, &[&log, &w[0], &w[2]], 7);
    w[3].sign(&mut note, 0);
    assert_eq!(policy.open(&note.to_bytes(), &AwsLc), Err(Error::QuorumNotReached));
    // The same quorum on the checkpoint of a log that is not listed.
    let other = Key::ed25519("log.example/two", 9);
    let note = signed("log.example/two", head, &[&other, &w[0], &w[1], &w[3]], 7);
    assert_eq!(policy.open(&note.to_bytes(), &AwsLc), Err(Error::NoTrustedSignature));
}

#[test]
fn quorum_none_needs_the_log_only() {
    let log = Key::ml_dsa(ORIGIN, 1);
    let policy = Policy::parse(format!("quorum none\nlog {}", log.key).as_bytes()).unwrap();
    assert!(policy.is_witnessless());
    assert!(policy.open(&signed(ORIGIN, support::head(3), &[&log], 5).to_bytes(), &AwsLc).is_ok());
}

#[test]
fn a_witness_that_bears_the_logs_name_is_no_log() {
    let (log, namesake) = (Key::ed25519(ORIGIN, 1), Key::ml_dsa(ORIGIN, 2));
    for quorum in ["none", "w"] {
        let text = format!("log {}\nwitness w {}\nquorum {quorum}\n", log.key, namesake.key);
        let policy = Policy::parse(text.as_bytes()).unwrap();
        let note = signed(ORIGIN, support::head(3), &[&namesake], 5);
        assert_eq!(policy.open(&note.to_bytes(), &AwsLc), Err(Error::NoTrustedSignature), "quorum {quorum}");
    }
}

#[test]
fn rules_of_the_format() {
    let log = Key::ed25519(ORIGIN, 1).key.to_string();
    let w = |seed: u8| Key::cosigner(&format!("w{seed}.example"), seed).key.to_string();
    let (a, b, c) = (w(2), w(3), w(4));
    let same_key = Key::cosigner("renamed.example", 2).key.to_string();
    let log_key_as_witness = Key::cosigner("w.example", 1).key.to_string();
    let good = [
        format!("log {log}\nquorum none\n"),
        format!("log {log} url\r\nquorum none\n").replace('\r', " "),
        format!("witness a {a}\nquorum a"),
        format!("witness a {a}\nwitness b {b}\ngroup g any a b\ngroup h 1 g\nquorum h\n#end"),
        format!("  witness a {a}\t\n\n \t\n # comment\nquorum a"),
    ];
    for text in &good {
        assert!(Policy::parse(text.as_bytes()).is_ok(), "{text}");
    }
    let mut bytes = format!("witness \u{e9} {a}\nquorum \u{e9}").into_bytes();
    assert_eq!(Policy::parse(&bytes).unwrap().witnesses()[0].name, "\u{e9}".as_bytes());
    bytes[9] = 0xff; // Names are bytes: not UTF-8 is a name too, and another one.
    assert_eq!(Policy::parse(&bytes).unwrap_err().code(), "malformed");
    for bad in [
        String::new(),
        "quorum none\nquorum none".into(),
        "quorum".into(),
        "quorum none more".into(),
        "quorum a".into(),
        format!("quorum a\nwitness a {a}"),
        "unknown line\nquorum none".into(),
        "log\nquorum none".into(),
        format!("log {log} url more\nquorum none"),
        format!("witness {a}\nquorum none"),
        format!("witness a {a} url more\nquorum none"),
        format!("witness none {a}\nquorum none"),
        format!("witness a {a}\nwitness a {b}\nquorum none"),
        format!("witness a {a}\nwitness b {a}\nquorum none"),
        format!("witness a {a}\nwitness b {same_key}\nquorum none"),
        format!("log {log}\nwitness a {log_key_as_witness}\nquorum none"),
        format!("log {log}\nlog {log}\nquorum none"),
        format!("witness a {a}\ngroup a any a\nquorum none"),
        format!("witness a {a}\ngroup none any a\nquorum none"),
        format!("witness a {a}\ngroup g any\nquorum none"),
        format!("witness a {a}\ngroup g 0 a\nquorum none"),
        format!("witness a {a}\ngroup g 2 a\nquorum none"),
        format!("witness a {a}\ngroup g 01 a\nquorum none"),
        format!("witness a {a}\ngroup g some a\nquorum none"),
        format!("witness a {a}\ngroup g any b\nwitness b {b}\nquorum none"),
        format!("witness a {a}\ngroup g any g\nquorum none"),
        format!("witness a {a}\ngroup g any a a\nquorum none"),
        format!("witness a {a}\ngroup g any a\ngroup h any a\nquorum none"),
        format!("witness a {a}\ngroup g any none\nquorum none"),
        format!("log {log}\r\nquorum none\n"),
        format!("log {log} # trailing comment of two words\nquorum none\n"),
        "quorum none\n\x7f".into(),
        format!("log {c}x\nquorum none"),
    ] {
        assert_eq!(Policy::parse(bad.as_bytes()).unwrap_err().code(), "malformed", "{bad}");
    }
    assert_eq!(
        Policy::parse(format!("log {a}\nquorum none").as_bytes()),
        Err(Error::UnsupportedKey { kind: 4 })
    );
    assert_eq!(
        Policy::parse(format!("witness a {log}\nquorum none").as_bytes()),
        Err(Error::UnsupportedKey { kind: 1 })
    );
}

#[test]
fn the_sizes_the_specification_demands_are_supported() {
    let mut text = String::new();
    for number in 0..32u8 {
        let log = Key::ed25519(&format!("log-{number}.example"), 100 + number).key;
        let witness = Key::cosigner(&format!("w-{number}.example"), 150 + number).key;
        text.push_str(&format!("log {log}\nwitness w{number} {witness}\ngroup g{number} all w{number}\n"));
    }
    text.push_str("quorum g31\n");
    let policy = Policy::parse(text.as_bytes()).unwrap();
    assert_eq!((policy.logs().len(), policy.witnesses().len()), (32, 32));
    assert!(policy.evaluate(|witness| witness == 31) && !policy.evaluate(|witness| witness == 30));
    let more: String = (0..129u32)
        .map(|n| format!("group g{n} any {}\n", if n == 0 { "w".into() } else { format!("g{}", n - 1) }))
        .collect();
    let text = format!("witness w {}\n{more}quorum none", Key::cosigner("w.example", 1).key);
    assert_eq!(Policy::parse(text.as_bytes()).unwrap_err().code(), "too_large");
    assert_eq!(Policy::parse(&vec![b'#'; 600_000]).unwrap_err().code(), "too_large");
}

#[test]
fn proof_files_verify_log_quorum_and_inclusion() {
    let Cast { log, witnesses: w, text } = cast();
    let policy = Policy::parse(text.as_bytes()).unwrap();
    let mut tree = MemoryTree::new();
    tree.extend((0..200u8).map(|entry| leaf_hash(&[entry])));
    let file = |keys: &[&Key]| ProofFile {
        extra: Some(b"extra".to_vec()),
        proof: InclusionProof::build(42, 200, &tree).unwrap(),
        checkpoint: signed(ORIGIN, tree.head(), keys, 7),
    };
    let good = file(&[&log, &w[0], &w[1], &w[3]]);
    let text = good.to_string();
    assert!(text.starts_with("c2sp.org/tlog-proof@v1\nextra ZXh0cmE=\nindex 42\n"));
    let read = ProofFile::parse(text.as_bytes()).unwrap();
    assert_eq!(read, good);
    let (checkpoint, inclusion) = read.verify(&leaf_hash(&[42]), &policy, &AwsLc).unwrap();
    assert_eq!((*checkpoint.head(), inclusion.leaf_index()), (tree.head(), 42));
    assert_eq!(
        read.verify(&leaf_hash(&[43]), &policy, &AwsLc).unwrap_err(),
        Error::RootMismatch { head: tree.head() }
    );
    let unwitnessed = file(&[&log]);
    assert_eq!(unwitnessed.verify(&leaf_hash(&[42]), &policy, &AwsLc).unwrap_err(), Error::QuorumNotReached);
    let plain = ProofFile { extra: None, ..good };
    assert_eq!(ProofFile::parse(plain.to_string().as_bytes()), Ok(plain.clone()));

    for bad in [
        text.replace("c2sp.org/tlog-proof@v1\n", ""),
        text.replace("@v1", "@v2"),
        text.replace("index 42\n", ""),
        text.replace("index 42", "index 042"),
        text.replace("index 42", "Index 42"),
        text.replace("extra ZXh0cmE=", "extra ZXh0cmE"),
        text.replace("extra ZXh0cmE=\nindex 42\n", "index 42\nextra ZXh0cmE=\n"),
        text.replace("extra ZXh0cmE=\n", "extra ZXh0cmE=\nextra ZXh0cmE=\n"),
        text.replacen("\n\n", "\n", 1),
        text.replacen("=\n\n", "=\nAAAA\n\n", 1),
    ] {
        assert_eq!(ProofFile::parse(bad.as_bytes()).unwrap_err().code(), "malformed", "{bad}");
    }
    let hash = tree.head().root.to_base64();
    let long = text.replacen("index 42\n", &format!("index 42\n{}", format!("{hash}\n").repeat(60)), 1);
    assert_eq!(ProofFile::parse(long.as_bytes()).unwrap_err().code(), "too_large");
    assert_eq!(ProofFile::parse(&vec![b'a'; 600_000]).unwrap_err().code(), "too_large");
}

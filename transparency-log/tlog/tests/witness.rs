//! Witness requests and the order of a witness's checks.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod support;

use support::{Key, signed};
use tlog::witness::{AddCheckpointRequest, Refusal, SignSubtreeRequest, parse_size_body, size_body};
use tlog::{ConsistencyProof, Error, MemoryTree, Note, Subtree, SubtreeProof, TreeHead, leaf_hash};

const ORIGIN: &str = "log.example/one";

fn tree(size: u64) -> MemoryTree {
    let mut tree = MemoryTree::new();
    tree.extend((0..size).map(|index| leaf_hash(&index.to_be_bytes())));
    tree
}

fn request(old: u64, new: u64) -> AddCheckpointRequest {
    let tree = tree(new);
    AddCheckpointRequest {
        old_size: old,
        proof: ConsistencyProof::build(old, new, &tree).unwrap(),
        note: signed(ORIGIN, tree.head(), &[&Key::ed25519(ORIGIN, 1)], 0),
    }
}

#[test]
fn bodies_are_read_and_printed() {
    for (old, new) in [(0, 0), (0, 5), (5, 5), (3, 20), (20, 21)] {
        let request = request(old, new);
        let body = request.to_bytes();
        assert!(body.starts_with(format!("old {old}\n").as_bytes()));
        assert_eq!(AddCheckpointRequest::parse(&body), Ok(request));
    }
    assert_eq!(size_body(12), "12\n");
    assert_eq!(parse_size_body("12\n"), Ok(12));
    for bad in ["", "12", "012\n", "12\n\n", " 12\n", "-1\n"] {
        assert_eq!(parse_size_body(bad).unwrap_err().code(), "malformed", "{bad:?}");
    }
}

#[test]
fn malformed_bodies_are_refused() {
    let good = String::from_utf8(request(3, 20).to_bytes()).unwrap();
    assert!(AddCheckpointRequest::parse(good.as_bytes()).is_ok());
    for bad in [
        String::new(),
        good.replacen("old 3", "old 03", 1),
        good.replacen("old 3", "old  3", 1),
        good.replacen("old 3", "new 3", 1),
        good.replacen("old 3\n", "", 1),
        good.replacen("old 3\n", "old 3\n\n", 1),
        good.replacen("old 3\n", "old 3\nAAAA\n", 1),
        good.replacen("\n\n", "\n", 1),
        good.replacen("\n20\n", "\n020\n", 1),
        good.split_once("\n\n").unwrap().0.to_owned() + "\n\n",
        format!("\n{good}"),
        good.replace('\n', "\r\n"),
    ] {
        assert_eq!(AddCheckpointRequest::parse(bad.as_bytes()).unwrap_err().code(), "malformed", "{bad}");
    }
    let hash = tree(1).head().root.to_base64();
    let many = good.replacen("old 3\n", &format!("old 3\n{}", format!("{hash}\n").repeat(64)), 1);
    assert_eq!(AddCheckpointRequest::parse(many.as_bytes()).unwrap_err().code(), "too_large");
    assert_eq!(AddCheckpointRequest::parse(&vec![b'a'; 300_000]).unwrap_err().code(), "too_large");
}

#[test]
fn decisions_follow_the_order_of_the_specification() {
    let head = |size| tree(size).head();
    assert_eq!(request(0, 5).evaluate(&TreeHead::EMPTY), Ok(head(5)));
    assert_eq!(request(3, 20).evaluate(&head(3)), Ok(head(20)));
    // Refreshing the time of an equal tree.
    assert_eq!(request(5, 5).evaluate(&head(5)), Ok(head(5)));
    assert_eq!(request(0, 0).evaluate(&TreeHead::EMPTY), Ok(TreeHead::EMPTY));

    let status = |request: &AddCheckpointRequest, recorded: &TreeHead| {
        request.evaluate(recorded).map_err(|refusal| refusal.status()).unwrap_err()
    };
    // 400 comes before 409.
    let too_large = AddCheckpointRequest { old_size: 6, ..request(5, 5) };
    assert_eq!(too_large.evaluate(&head(3)), Err(Refusal::OldSizeTooLarge));
    assert_eq!(status(&too_large, &head(3)), 400);
    assert_eq!(request(3, 20).evaluate(&head(4)), Err(Refusal::Conflict { recorded: 4 }));
    assert_eq!(status(&request(3, 20), &head(4)), 409);
    // 409 comes before 422.
    let mut bad_proof = request(3, 20);
    bad_proof.proof.path.pop();
    assert_eq!(status(&bad_proof, &head(4)), 409);
    assert_eq!(status(&bad_proof, &head(3)), 422);
    let mut altered = request(3, 20);
    altered.proof.path[0].0[0] ^= 1;
    assert_eq!(
        altered.evaluate(&head(3)),
        Err(Refusal::Inconsistent(Error::RootMismatch { head: head(20) }))
    );
    // A proof where there must be none, and two roots of one size.
    let with_proof = AddCheckpointRequest { proof: request(3, 20).proof, ..request(0, 20) };
    assert_eq!(status(&with_proof, &TreeHead::EMPTY), 422);
    let other = TreeHead { size: 5, root: head(6).root };
    assert_eq!(status(&request(5, 5), &other), 422);
    // Size 0 with a root.
    let text = format!("{ORIGIN}\n0\n{}\n", head(3).root.to_base64());
    let mut note = Note::new(&text).unwrap();
    Key::ed25519(ORIGIN, 1).sign(&mut note, 0);
    let empty = AddCheckpointRequest { old_size: 0, proof: ConsistencyProof::default(), note };
    let empty = AddCheckpointRequest::parse(&empty.to_bytes()).unwrap();
    assert_eq!(status(&empty, &TreeHead::EMPTY), 422);
}

#[test]
fn subtree_requests_are_read_and_printed() {
    let tree = tree(21);
    let subtree = Subtree::new(8, 13).unwrap();
    let mut part = MemoryTree::new();
    part.extend((8..13u64).map(|index| tree.leaf(index).unwrap()));
    let request = SignSubtreeRequest {
        subtree,
        hash: part.head().root,
        proof: SubtreeProof::build(subtree, 21, &tree).unwrap(),
        note: signed(ORIGIN, tree.head(), &[&Key::cosigner("w.example", 1)], 9),
    };
    let body = request.to_bytes();
    assert!(body.starts_with(b"subtree 8 13\n"));
    let read = SignSubtreeRequest::parse(&body).unwrap();
    assert_eq!(read, request);
    assert_eq!(read.proof.verify(read.subtree, &read.hash, &tree.head()), Ok(()));
    let text = String::from_utf8(body).unwrap();
    for (bad, code) in [
        (text.replacen("8 13", "13 8", 1), "invalid_subtree"),
        (text.replacen("8 13", "8 17", 1), "invalid_subtree"),
        (text.replacen("8 13", "8  13", 1), "malformed"),
        (text.replacen("8 13", "8", 1), "malformed"),
        (text.replacen("subtree 8 13\n", "subtree 8 13\n\n", 1), "malformed"),
        (text.replacen("8 13", "0 9223372036854775808", 1), "malformed"),
    ] {
        assert_eq!(SignSubtreeRequest::parse(bad.as_bytes()).unwrap_err().code(), code, "{bad}");
    }
}

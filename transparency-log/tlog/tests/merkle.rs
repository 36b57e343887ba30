//! Roots and proofs against the recursive definitions of RFC 6962 and against two other implementations.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use ct_merkle::mem_backed_tree::MemoryBackedTree;
use proptest::prelude::*;
use rs_merkle::Hasher as _;
use sha2::Sha256;
use tlog::{
    CompactRange, ConsistencyProof, EMPTY_ROOT, Error, Hash, InclusionProof, LeafHash, MemoryTree, Subtree,
    SubtreeProof, TreeHead, leaf_hash, node_hash,
};

fn entry(index: u64) -> Vec<u8> {
    format!("entry {index}").into_bytes()
}

fn leaves(size: u64) -> Vec<LeafHash> {
    (0..size).map(|index| leaf_hash(&entry(index))).collect()
}

fn tree(size: u64) -> MemoryTree {
    let mut tree = MemoryTree::new();
    tree.extend(leaves(size));
    tree
}

/// MTH of RFC 6962 section 2.1, word for word.
fn naive_root(leaves: &[LeafHash]) -> Hash {
    match leaves {
        [] => EMPTY_ROOT,
        [leaf] => leaf.hash(),
        _ => {
            let (left, right) = leaves.split_at(split(leaves.len()));
            node_hash(&naive_root(left), &naive_root(right))
        }
    }
}

fn split(n: usize) -> usize {
    let mut k = 1;
    while k * 2 < n {
        k *= 2;
    }
    k
}

/// PATH of RFC 6962 section 2.1.1.
fn naive_inclusion(index: usize, leaves: &[LeafHash]) -> Vec<Hash> {
    if leaves.len() == 1 {
        return Vec::new();
    }
    let (left, right) = leaves.split_at(split(leaves.len()));
    let (mut path, sibling) = if index < left.len() {
        (naive_inclusion(index, left), naive_root(right))
    } else {
        (naive_inclusion(index - left.len(), right), naive_root(left))
    };
    path.push(sibling);
    path
}

/// SUBTREE_SUBPROOF of the Merkle Tree Certificates draft section 4.4.1; PROOF of RFC 6962 for `start` 0.
fn naive_subtree(start: usize, end: usize, leaves: &[LeafHash], complete: bool) -> Vec<Hash> {
    if start == 0 && end == leaves.len() {
        return if complete { Vec::new() } else { vec![naive_root(leaves)] };
    }
    let (left, right) = leaves.split_at(split(leaves.len()));
    let k = left.len();
    let (mut path, sibling) = if end <= k {
        (naive_subtree(start, end, left, complete), naive_root(right))
    } else if k <= start {
        (naive_subtree(start - k, end - k, right, complete), naive_root(left))
    } else {
        assert_eq!(start, 0);
        (naive_subtree(0, end - k, right, false), naive_root(left))
    };
    path.push(sibling);
    path
}

#[test]
fn every_inclusion_proof_up_to_size_80_is_the_definition() {
    let all = leaves(80);
    let tree = tree(80);
    for size in 1..=80u64 {
        let part = &all[..size as usize];
        let head = tree.head_at(size).unwrap();
        assert_eq!(head.root, naive_root(part));
        for index in 0..size {
            let proof = InclusionProof::build(index, size, &tree).unwrap();
            assert_eq!(proof.path, naive_inclusion(index as usize, part), "{index} of {size}");
            let verified = proof.verify(&part[index as usize], &head).unwrap();
            assert_eq!((verified.leaf_index(), *verified.head()), (index, head));
        }
    }
}

#[test]
fn every_consistency_proof_up_to_size_80_is_the_definition() {
    let all = leaves(80);
    let tree = tree(80);
    for new in 0..=80u64 {
        for old in 0..=new {
            let proof = ConsistencyProof::build(old, new, &tree).unwrap();
            if old > 0 {
                assert_eq!(proof.path, naive_subtree(0, old as usize, &all[..new as usize], true));
            }
            let (old_head, new_head) = (tree.head_at(old).unwrap(), tree.head_at(new).unwrap());
            assert_eq!(proof.verify(&old_head, &new_head), Ok(()), "{old} to {new}");
        }
    }
}

#[test]
fn every_subtree_proof_up_to_size_40_is_the_definition() {
    let all = leaves(40);
    let tree = tree(40);
    for size in 1..=40u64 {
        let head = tree.head_at(size).unwrap();
        for end in 0..=size {
            for start in 0..=end {
                let Ok(subtree) = Subtree::new(start, end) else { continue };
                let hash = naive_root(&all[start as usize..end as usize]);
                let proof = SubtreeProof::build(subtree, size, &tree).unwrap();
                if start < end {
                    let expected = naive_subtree(start as usize, end as usize, &all[..size as usize], true);
                    assert_eq!(proof.path, expected, "[{start}, {end}) of {size}");
                }
                assert_eq!(proof.verify(subtree, &hash, &head), Ok(()));
                let mut other = hash;
                other.0[0] ^= 1;
                assert_eq!(proof.verify(subtree, &other, &head), Err(Error::RootMismatch { head }));
            }
        }
    }
}

#[test]
fn wrong_lengths_are_refused_before_hashing() {
    let tree = tree(37);
    let head = tree.head();
    let leaf = tree.leaf(11).unwrap();
    let proof = InclusionProof::build(11, 37, &tree).unwrap();
    let mut longer = proof.clone();
    longer.path.push(head.root);
    let mut shorter = proof.clone();
    shorter.path.pop();
    for bad in [longer, shorter, InclusionProof { leaf_index: 11, path: vec![] }] {
        let actual = bad.path.len();
        let expected = proof.path.len();
        assert_eq!(bad.verify(&leaf, &head), Err(Error::ProofLength { expected, actual }));
    }
    let out = InclusionProof { leaf_index: 37, ..proof };
    assert_eq!(out.verify(&leaf, &head), Err(Error::IndexOutOfRange { index: 37, size: 37 }));
    let empty = ConsistencyProof::default();
    assert_eq!(
        empty.verify(&head, &TreeHead { size: 36, ..head }),
        Err(Error::ConsistencySizes { old: 37, new: 36 })
    );
    let other = TreeHead { root: EMPTY_ROOT, ..head };
    assert_eq!(empty.verify(&head, &other), Err(Error::RootMismatch { head: other }));
    let not_empty = TreeHead { size: 0, root: head.root };
    assert_eq!(empty.verify(&not_empty, &head), Err(Error::RootMismatch { head: not_empty }));
}

#[test]
fn a_proof_is_of_one_index_only() {
    let tree = tree(64);
    let head = tree.head();
    for index in 0..64 {
        let proof = InclusionProof::build(index, 64, &tree).unwrap();
        for other in (0..64).filter(|other| *other != index) {
            let moved = InclusionProof { leaf_index: other, path: proof.path.clone() };
            assert_eq!(moved.verify(&tree.leaf(index).unwrap(), &head), Err(Error::RootMismatch { head }));
        }
    }
}

#[derive(Clone)]
struct Rfc6962;

impl rs_merkle::Hasher for Rfc6962 {
    type Hash = [u8; 32];

    fn hash(data: &[u8]) -> [u8; 32] {
        Hash::digest(&[&[1], data].concat()).0
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_rs_merkle(size in 1u64..700, pick in any::<prop::sample::Index>()) {
        let raw: Vec<[u8; 32]> = leaves(size).iter().map(|leaf| leaf.hash().0).collect();
        let other = rs_merkle::MerkleTree::<Rfc6962>::from_leaves(&raw);
        let tree = tree(size);
        prop_assert_eq!(other.root(), Some(tree.head().root.0));
        let index = pick.index(size as usize);
        let proof = InclusionProof::build(index as u64, size, &tree).unwrap();
        let theirs = other.proof(&[index]);
        let ours: Vec<[u8; 32]> = proof.path.iter().map(|hash| hash.0).collect();
        prop_assert_eq!(theirs.proof_hashes(), ours.as_slice());
        prop_assert!(theirs.verify(tree.head().root.0, &[index], &[raw[index]], raw.len()));
    }

    #[test]
    fn agrees_with_ct_merkle(size in 2u64..500, pick in any::<prop::sample::Index>()) {
        let mut other = MemoryBackedTree::<Sha256, Vec<u8>>::new();
        for index in 0..size {
            other.push(entry(index));
        }
        let tree = tree(size);
        let head = tree.head();
        let other_root = other.root();
        prop_assert_eq!(other_root.as_bytes().as_slice(), head.root.0.as_slice());
        let index = pick.index(size as usize - 1) as u64;

        let theirs = other.prove_inclusion(index as usize);
        let ours = InclusionProof::build(index, size, &tree).unwrap();
        prop_assert_eq!(theirs.as_bytes(), concat(&ours.path));
        let ours = ct_merkle::InclusionProof::from_bytes(concat(&ours.path));
        prop_assert!(other.root().verify_inclusion(&entry(index), index, &ours).is_ok());

        let old = index + 1;
        let theirs = other.prove_consistency((size - old) as usize);
        let ours = ConsistencyProof::build(old, size, &tree).unwrap();
        prop_assert_eq!(theirs.as_bytes(), concat(&ours.path));
        let chunks: Vec<Hash> = theirs.as_bytes().chunks(32).map(|c| Hash::from_slice(c).unwrap()).collect();
        let theirs = ConsistencyProof { path: chunks };
        prop_assert_eq!(theirs.verify(&tree.head_at(old).unwrap(), &head), Ok(()));
    }

    #[test]
    fn compact_range_in_any_steps_reaches_the_root(cuts in prop::collection::vec(0u64..90, 1..6)) {
        let size: u64 = cuts.iter().sum();
        let tree = tree(size);
        let mut range = CompactRange::new();
        let mut next = 0;
        for cut in cuts {
            // Through its serialised parts, as a restart would.
            range = CompactRange::from_parts(range.size(), range.hashes().to_vec()).unwrap();
            range.extend((next..next + cut).map(|index| leaf_hash(&entry(index))));
            next += cut;
            prop_assert_eq!(range.head(), tree.head_at(next).unwrap());
        }
    }

    #[test]
    fn one_flipped_bit_anywhere_is_refused(size in 2u64..300, pick in any::<prop::sample::Index>(),
            at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let tree = tree(size);
        let head = tree.head();
        let index = pick.index(size as usize) as u64;
        let leaf = tree.leaf(index).unwrap();
        let mut proof = InclusionProof::build(index, size, &tree).unwrap();
        let byte = at.index(proof.path.len() * 32);
        proof.path[byte / 32].0[byte % 32] ^= 1 << bit;
        prop_assert_eq!(proof.verify(&leaf, &head), Err(Error::RootMismatch { head }));

        let old = index.max(1);
        let old_head = tree.head_at(old).unwrap();
        let mut proof = ConsistencyProof::build(old, size, &tree).unwrap();
        if !proof.path.is_empty() {
            let byte = at.index(proof.path.len() * 32);
            proof.path[byte / 32].0[byte % 32] ^= 1 << bit;
            prop_assert_eq!(proof.verify(&old_head, &head), Err(Error::RootMismatch { head }));
        }
    }

    #[test]
    fn arbitrary_proofs_never_panic(index in any::<u64>(), size in any::<u64>(), other in any::<u64>(),
            count in 0usize..70) {
        let path = vec![EMPTY_ROOT; count];
        let head = TreeHead { size, root: EMPTY_ROOT };
        let leaf = leaf_hash(b"");
        let proof = InclusionProof { leaf_index: index, path: path.clone() };
        prop_assert!(proof.verify(&leaf, &head).is_err());
        let old = TreeHead { size: other, root: EMPTY_ROOT };
        let proof = ConsistencyProof { path: path.clone() };
        let verdict = proof.verify(&old, &head);
        prop_assert!(verdict.is_err() || size == other || other == 0);
        if let Ok(subtree) = Subtree::new(index, other) {
            let proof = SubtreeProof { path };
            let verdict = proof.verify(subtree, &EMPTY_ROOT, &head);
            prop_assert!(verdict.is_err() || subtree.is_empty() || (index == 0 && other == size));
        }
    }
}

fn concat(hashes: &[Hash]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| hash.0).collect()
}

#[test]
fn hasher_of_rs_merkle_is_ours() {
    let (left, right) = (leaf_hash(b"l").hash(), leaf_hash(b"r").hash());
    assert_eq!(Rfc6962::concat_and_hash(&left.0, Some(&right.0)), node_hash(&left, &right).0);
    assert_eq!(Rfc6962::concat_and_hash(&left.0, None), left.0);
}

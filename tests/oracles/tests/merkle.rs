//! Trees and proofs against `rs_merkle`, `ct-merkle` and `sigstore-merkle`: the same roots, and the same verdict on every
//! genuine and every altered proof.

use ct_merkle::mem_backed_tree::MemoryBackedTree;
use rs_merkle::{Hasher, MerkleTree};
use sha2::{Digest as _, Sha256};
use sigstore_verify::types::Sha256Hash;
use tlog::{ConsistencyProof, Hash, InclusionProof, MemoryTree, TreeHead, leaf_hash};

#[derive(Clone)]
struct Rfc6962;

impl Hasher for Rfc6962 {
    type Hash = [u8; 32];

    fn hash(data: &[u8]) -> [u8; 32] {
        Sha256::digest([&[0], data].concat()).into()
    }

    fn concat_and_hash(left: &[u8; 32], right: Option<&[u8; 32]>) -> [u8; 32] {
        match right {
            Some(right) => Sha256::digest([&[1], &left[..], right].concat()).into(),
            None => *left,
        }
    }
}

fn entry(index: u64) -> Vec<u8> {
    format!("entry {index}").into_bytes()
}

fn ours(size: u64) -> MemoryTree {
    let mut tree = MemoryTree::new();
    tree.extend((0..size).map(|index| leaf_hash(&entry(index))));
    tree
}

fn theirs(hash: &Hash) -> Sha256Hash {
    Sha256Hash::new(hash.0)
}

/// A proof, and the same with one hash altered, removed, added or moved.
fn altered(path: &[Hash]) -> Vec<Vec<Hash>> {
    let mut all = vec![path.to_vec()];
    for at in 0..path.len() {
        let mut flipped = path.to_vec();
        flipped[at].0[at % 32] ^= 0x40;
        all.push(flipped);
        let mut cut = path.to_vec();
        cut.remove(at);
        all.push(cut);
        let mut swapped = path.to_vec();
        swapped.swap(at, path.len() - 1);
        all.push(swapped);
    }
    all.push([path, &[Hash([0; 32])]].concat());
    all
}

#[test]
fn roots_are_the_same() {
    for size in [1, 2, 3, 4, 5, 7, 8, 9, 31, 33, 64, 100, 127, 129, 255, 257] {
        let head = ours(size).head();
        let leaves: Vec<[u8; 32]> = (0..size).map(|index| Rfc6962::hash(&entry(index))).collect();
        assert_eq!(MerkleTree::<Rfc6962>::from_leaves(&leaves).root(), Some(head.root.0));
        let mut tree = MemoryBackedTree::<Sha256, Vec<u8>>::new();
        (0..size).for_each(|index| tree.push(entry(index)));
        assert_eq!(tree.root().as_bytes().as_slice(), &head.root.0);
    }
}

#[test]
fn inclusion_proofs_get_the_same_verdict() {
    for size in [1, 2, 3, 6, 7, 8, 21, 64, 65, 100] {
        let tree = ours(size);
        let head = tree.head();
        for index in 0..size {
            let genuine = InclusionProof::build(index, size, &tree).unwrap().path;
            let leaf = leaf_hash(&entry(index));
            for path in altered(&genuine) {
                for (claimed, head) in
                    [(index, head), (index ^ 1, head), (index, TreeHead { size: size + 1, root: head.root })]
                {
                    let mine = InclusionProof { leaf_index: claimed, path: path.clone() };
                    let hashes: Vec<Sha256Hash> = path.iter().map(theirs).collect();
                    let judged = sigstore_merkle::verify_inclusion_proof(
                        &theirs(&leaf.hash()),
                        claimed,
                        head.size,
                        &hashes,
                        &theirs(&head.root),
                    );
                    assert_eq!(
                        mine.verify(&leaf, &head).is_ok(),
                        judged.is_ok(),
                        "{claimed} of {}",
                        head.size
                    );
                }
            }
        }
    }
}

#[test]
fn consistency_proofs_get_the_same_verdict() {
    for new in [1, 2, 3, 7, 8, 9, 33, 64, 65] {
        let tree = ours(new);
        let head = tree.head();
        for old in 1..=new {
            let from = tree.head_at(old).unwrap();
            let genuine = ConsistencyProof::build(old, new, &tree).unwrap().path;
            for path in altered(&genuine) {
                for from in [from, TreeHead { size: old, root: Hash([7; 32]) }] {
                    let hashes: Vec<Sha256Hash> = path.iter().map(theirs).collect();
                    let judged = sigstore_merkle::verify_consistency_proof(
                        old,
                        new,
                        &hashes,
                        &theirs(&from.root),
                        &theirs(&head.root),
                    );
                    let mine = ConsistencyProof { path: path.clone() }.verify(&from, &head);
                    assert_eq!(mine.is_ok(), judged.is_ok(), "{old} to {new} with {} hashes", path.len());
                }
            }
        }
    }
}

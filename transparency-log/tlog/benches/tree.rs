//! Cost of the hashing everything else is made of, in nanoseconds: `cargo bench -p tlog`.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a bench measures and prints"
)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use tlog::tile::perfect_root;
use tlog::{CompactRange, Hash, InclusionProof, LeafHash, MemoryTree, leaf_hash, node_hash};

/// Nanoseconds per call, the best of several rounds: the others were disturbed.
fn measure(name: &str, per_call: u32, mut call: impl FnMut()) {
    const ROUND: Duration = Duration::from_millis(100);
    let mut best = f64::INFINITY;
    for _ in 0..7 {
        let mut calls = 0u32;
        let start = Instant::now();
        while start.elapsed() < ROUND {
            for _ in 0..64 {
                call();
            }
            calls += 64;
        }
        best = best.min(start.elapsed().as_nanos() as f64 / f64::from(calls) / f64::from(per_call));
    }
    println!("{name:<44} {best:>9.1} ns");
}

fn main() {
    // `cargo test --all-targets` runs benches too, without this argument: nothing is measured there.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let hashes: Vec<Hash> = (0..256u32).map(|index| leaf_hash(&index.to_be_bytes()).hash()).collect();
    let [left, right, ..] = hashes.as_slice() else { return };
    for size in [0, 32, 256, 1024, 65_535] {
        let entry = vec![0xa5u8; size];
        measure(&format!("leaf_hash of {size} bytes"), 1, || {
            black_box(leaf_hash(black_box(&entry)));
        });
    }
    measure("node_hash", 1, || {
        black_box(node_hash(black_box(left), black_box(right)));
    });
    measure("root of a full tile, per node", 255, || {
        black_box(perfect_root(black_box(&hashes)));
    });
    let leaves: Vec<LeafHash> = hashes.iter().copied().map(LeafHash::from_stored).collect();
    let mut range = CompactRange::new();
    measure("CompactRange::push, per leaf", 256, || range.extend(leaves.iter().copied()));
    measure("CompactRange::root", 1, || {
        black_box(range.root());
    });

    let mut tree = MemoryTree::new();
    tree.extend((0..1u32 << 16).map(|index| leaf_hash(&index.to_be_bytes())));
    let head = tree.head();
    measure("InclusionProof::build, 65,536 leaves", 1, || {
        black_box(InclusionProof::build(black_box(12_345), head.size, &tree).unwrap());
    });
    let proof = InclusionProof::build(12_345, head.size, &tree).unwrap();
    let leaf = tree.leaf(12_345).unwrap();
    measure("InclusionProof::verify, 65,536 leaves", 1, || {
        let _ = black_box(proof.verify(black_box(&leaf), &head).unwrap());
    });
}

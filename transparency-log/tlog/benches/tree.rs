//! Cost of the hashing everything else is made of, in nanoseconds: `make bench-tlog`, which writes
//! `target/bench/tlog.json`.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a bench measures and prints"
)]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

use tlog::tile::perfect_root;
use tlog::{CompactRange, Hash, InclusionProof, LeafHash, MemoryTree, leaf_hash, node_hash};

/// The figures, by name, in nanoseconds.
#[derive(Default)]
struct Figures(BTreeMap<&'static str, f64>);

impl Figures {
    /// Nanoseconds per call, the median of several rounds.
    fn measure(&mut self, name: &'static str, per_call: u32, mut call: impl FnMut()) {
        const ROUND: Duration = Duration::from_millis(100);
        let mut rounds: Vec<f64> = (0..7)
            .map(|_| {
                let mut calls = 0u32;
                let start = Instant::now();
                while start.elapsed() < ROUND {
                    for _ in 0..64 {
                        call();
                    }
                    calls += 64;
                }
                start.elapsed().as_nanos() as f64 / f64::from(calls) / f64::from(per_call)
            })
            .collect();
        rounds.sort_by(f64::total_cmp);
        let median = rounds.get(rounds.len() / 2).copied().unwrap_or(f64::NAN);
        println!("{name:<44} {median:>9.1}");
        self.0.insert(name, median);
    }
}

fn main() {
    // `cargo test --all-targets` runs benches too, without this argument: nothing is measured there.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let hashes: Vec<Hash> = (0..256u32).map(|index| leaf_hash(&index.to_be_bytes()).hash()).collect();
    let [left, right, ..] = hashes.as_slice() else { return };
    let mut figures = Figures::default();
    for (name, size) in [
        ("leaf_hash_0_bytes_ns", 0),
        ("leaf_hash_32_bytes_ns", 32),
        ("leaf_hash_256_bytes_ns", 256),
        ("leaf_hash_1024_bytes_ns", 1024),
        ("leaf_hash_65535_bytes_ns", 65_535),
    ] {
        let entry = vec![0xa5u8; size];
        figures.measure(name, 1, || {
            black_box(leaf_hash(black_box(&entry)));
        });
    }
    figures.measure("node_hash_ns", 1, || {
        black_box(node_hash(black_box(left), black_box(right)));
    });
    figures.measure("full_tile_root_per_node_ns", 255, || {
        black_box(perfect_root(black_box(&hashes)));
    });
    let leaves: Vec<LeafHash> = hashes.iter().copied().map(LeafHash::from_stored).collect();
    let mut range = CompactRange::new();
    figures.measure("compact_range_push_per_leaf_ns", 256, || range.extend(leaves.iter().copied()));
    figures.measure("compact_range_root_ns", 1, || {
        black_box(range.root());
    });

    let mut tree = MemoryTree::new();
    tree.extend((0..1u32 << 16).map(|index| leaf_hash(&index.to_be_bytes())));
    let head = tree.head();
    figures.measure("inclusion_build_65536_leaves_ns", 1, || {
        black_box(InclusionProof::build(black_box(12_345), head.size, &tree).unwrap());
    });
    let proof = InclusionProof::build(12_345, head.size, &tree).unwrap();
    let leaf = tree.leaf(12_345).unwrap();
    figures.measure("inclusion_verify_65536_leaves_ns", 1, || {
        let _ = black_box(proof.verify(black_box(&leaf), &head).unwrap());
    });
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/bench");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("tlog.json"), serde_json::to_vec_pretty(&figures.0).unwrap()).unwrap();
}

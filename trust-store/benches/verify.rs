//! What the verifier promises, measured in process: `make bench-verify`.
//!
//! Prints a table and writes `target/bench/verify.json`, a flat object with the unit in each name; ends with an error if a
//! bound is broken. Every verification starts from the bytes of an attestation and ends with the decision: reading the
//! bundle and its certificates is part of the figure.
//!
//! | figure | what was seen before |
//! |---|---|
//! | `known_p50_ms` | the signer's certificate; the artifact, its signature, timestamp and checkpoint are new |
//! | `first_seen_p50_ms` | only the signer's issuer, the timestamp authority and the revocation lists |
//! | `cold_p50_ms` | nothing: trusted root and revocation lists are read and verified too |
//!
//! The hierarchy is the default one: P-384 root, P-256 intermediate, signer and timestamp authority, an embedded certificate
//! timestamp, a log with an Ed25519 checkpoint over 65,536 entries, two witnesses of which both are demanded, and a revocation
//! list for each authority (one shard with 100 entries for the signer).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a bench measures, prints, and fails loudly"
)]

#[path = "../tests/fixture/mod.rs"]
mod fixture;
#[path = "../tests/forge/mod.rs"]
mod forge;
#[path = "verify/hierarchy.rs"]
mod hierarchy;
#[path = "../tests/hostile/mod.rs"]
mod hostile;
#[path = "verify/memory.rs"]
mod memory;
#[path = "verify/peer.rs"]
mod peer;
#[path = "verify/signatures.rs"]
mod signatures;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use trust_store::attestation::Attestation;
use trust_store::provider::AwsLc;
use trust_store::{UnixTime, Verifier};

use hierarchy::{Hierarchy, Signed};
use signatures::{Recorder, Remembered};

/// Figure and the most it may be.
const BOUNDS: &[(&str, f64)] = &[
    ("known_p50_ms", 0.30),
    ("first_seen_p50_ms", 0.50),
    ("cold_p50_ms", 1.20),
    ("ratio_to_signature_sum", 1.15),
    ("hostile_max_ms", 100.0),
    ("hostile_peak_mib", 64.0),
];

const ROUNDS: usize = 2_000;

fn main() {
    // `cargo test --benches` starts this without the flag: then it only has to compile.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let hierarchy = Hierarchy::new();
    let mut figures = BTreeMap::new();
    known(&hierarchy, &mut figures);
    first_seen(&hierarchy, &mut figures);
    cold(&hierarchy, &mut figures);
    hostile_input(&mut figures);
    match peer::sigstore_verify_p50_ms(&hierarchy) {
        Ok(theirs) => {
            figures.insert("sigstore_verify_p50_ms", theirs);
            figures.insert("ratio_to_sigstore_verify", figures["known_p50_ms"] / theirs);
            figures.insert("cold_ratio_to_sigstore_verify", figures["cold_p50_ms"] / theirs);
        }
        Err(why) => println!("NOT MEASURED: ratio_to_sigstore_verify: {why}"),
    }
    report(&figures);
}

fn report(figures: &BTreeMap<&'static str, f64>) {
    for (name, value) in figures {
        let bound = BOUNDS.iter().find(|(figure, _)| figure == name);
        let bound = bound.map(|(_, bound)| format!("at most {bound}")).unwrap_or_default();
        println!("{name:<40} {value:>12.4}   {bound}");
    }
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("verify.json"), serde_json::to_vec_pretty(figures).unwrap()).unwrap();
    let broken: Vec<_> = BOUNDS.iter().filter(|(figure, bound)| figures[figure] > *bound).collect();
    assert!(broken.is_empty(), "these bounds are broken: {broken:?}");
}

/// The signer's certificate was seen before: from the bytes, the decision alone, and the bare signature checks of exactly this
/// decision.
fn known(hierarchy: &Hierarchy, figures: &mut BTreeMap<&'static str, f64>) {
    let recorder = Arc::new(Recorder::default());
    let measured = |with_ml_dsa: bool| {
        let policy = hierarchy.policy(with_ml_dsa);
        let cache = Arc::new(Remembered::default());
        let verifier = Verifier::new(Arc::new(AwsLc), &hierarchy.root).unwrap().with_cache(cache.clone());
        let mut evidence = hierarchy.evidence();
        verifier.prepare(&mut evidence);
        let now = UnixTime(fixture::NOW);
        let decide = |verifier: &Verifier, signed: &Signed, attestation: &Attestation| {
            drop(verifier.verify(attestation, signed.digest(), &policy, &evidence, now).unwrap());
        };
        decide(&verifier, &hierarchy.by_known[0], &hierarchy.by_known[0].read());
        let recording = Verifier::new(recorder.clone(), &hierarchy.root).unwrap().with_cache(cache.clone());
        recorder.forget();
        decide(&recording, &hierarchy.by_known[1], &hierarchy.by_known[1].read());
        let calls = recorder.calls();
        println!("known: {} signature checks", calls.len());
        let mut took = [Vec::new(), Vec::new(), Vec::new()];
        for round in 0..ROUNDS {
            let signed = &hierarchy.by_known[1 + round % (hierarchy.by_known.len() - 1)];
            let attestation = signed.read();
            took[0].push(milliseconds(|| decide(&verifier, signed, &signed.read())));
            took[1].push(milliseconds(|| decide(&verifier, signed, &attestation)));
            took[2].push(milliseconds(|| calls.iter().for_each(|call| call.repeat(&AwsLc))));
        }
        took.map(median)
    };
    let [whole, decision, bare] = measured(false);
    figures.insert("known_p50_ms", whole);
    figures.insert("known_decision_p50_ms", decision);
    figures.insert("signature_sum_p50_ms", bare);
    figures.insert("ratio_to_signature_sum", decision / bare);
    figures.insert("whole_ratio_to_signature_sum", whole / bare);
    let [whole, decision, bare] = measured(true);
    figures.insert("known_with_ml_dsa_line_p50_ms", whole);
    figures.insert("ratio_to_signature_sum_with_ml_dsa_line", decision / bare);
}

/// The signer's certificate is new and its issuer known.
fn first_seen(hierarchy: &Hierarchy, figures: &mut BTreeMap<&'static str, f64>) {
    let policy = hierarchy.policy(false);
    let warm = Remembered::default();
    let verifier = Verifier::new(Arc::new(AwsLc), &hierarchy.root).unwrap();
    let mut evidence = hierarchy.evidence();
    verifier.prepare(&mut evidence);
    let decide = |cache: Arc<Remembered>, signed: &Signed| {
        let verifier = verifier.clone().with_cache(cache);
        let mut took = 0.0;
        took += milliseconds(|| {
            let attestation = signed.read();
            let decided =
                verifier.verify(&attestation, signed.digest(), &policy, &evidence, UnixTime(fixture::NOW));
            drop(decided.unwrap());
        });
        took
    };
    let warm = Arc::new(warm);
    decide(warm.clone(), &hierarchy.by_others[0]);
    let strangers = &hierarchy.by_others[1..];
    let took = (0..ROUNDS).map(|round| decide(Arc::new(warm.copy()), &strangers[round % strangers.len()]));
    figures.insert("first_seen_p50_ms", median(took.collect()));
}

/// Nothing is known but the trusted root's bytes.
fn cold(hierarchy: &Hierarchy, figures: &mut BTreeMap<&'static str, f64>) {
    let policy = hierarchy.policy(false);
    let took = (0..ROUNDS).map(|round| {
        let signed = &hierarchy.by_others[round % hierarchy.by_others.len()];
        milliseconds(|| {
            let verifier = Verifier::new(Arc::new(AwsLc), &hierarchy.read_root()).unwrap();
            let evidence = hierarchy.evidence();
            let attestation = signed.read();
            let decided =
                verifier.verify(&attestation, signed.digest(), &policy, &evidence, UnixTime(fixture::NOW));
            drop(decided.unwrap());
        })
    });
    figures.insert("cold_p50_ms", median(took.collect()));
}

/// The longest time that any input of `tests/hostile` takes, and the most memory that judging one takes beyond the input.
fn hostile_input(figures: &mut BTreeMap<&'static str, f64>) {
    let (mut longest, mut largest) = (0.0_f64, 0.0_f64);
    for attack in hostile::all() {
        let mut mebibytes = 0.0_f64;
        let took = (0..5).map(|_| {
            let before = memory::mark();
            let took = milliseconds(|| assert_eq!((attack.judge)().code, Some(attack.code)));
            mebibytes = f64::max(mebibytes, memory::peak_mib_since(before));
            took
        });
        let took = median(took.collect());
        println!("hostile: {:<50} {took:>9.2} ms {mebibytes:>8.1} MiB", attack.name);
        (longest, largest) = (longest.max(took), largest.max(mebibytes));
    }
    figures.insert("hostile_max_ms", longest);
    figures.insert("hostile_peak_mib", largest);
}

fn milliseconds(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64() * 1e3
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

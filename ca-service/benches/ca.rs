//! What the certificate authority promises, measured on the real processes: `make bench-ca`.
//!
//! Prints a table and writes `target/bench/ca.json`, a flat object with the unit in each name; fails after printing when a
//! bound of docs/specification.md is missed. CA, log and load generator share the machine; requests are prepared
//! beforehand; every certificate goes the whole way: authenticated by a token, linted, intent and record durable, signature
//! verified, logged. Parts can be named: `issue`, `status`, `lists`, `full` (a million stored certificates), and `large` (ten
//! million, or `MENTAT_BENCH_STORED`: some minutes and 24 GB below `TMPDIR`), which runs only where it is named (`make bench-ca-large`).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a bench measures, prints, and fails loudly"
)]

#[path = "ca/figures.rs"]
mod figures;
#[path = "ca/full.rs"]
mod full;
#[path = "ca/issuance.rs"]
mod issuance;
#[path = "ca/load.rs"]
mod load;
#[path = "ca/loopback.rs"]
mod loopback;
#[path = "ca/machine.rs"]
mod machine;
#[path = "ca/rows.rs"]
mod rows;
#[path = "ca/stack.rs"]
mod stack;
#[path = "ca/status.rs"]
mod status;
#[path = "ca/stored.rs"]
mod stored;

use std::time::Duration;

use figures::{Figures, Run};

/// What runs where nothing is named.
const PARTS: [&str; 4] = ["issue", "status", "lists", "full"];
/// What runs only where it is named.
const LARGE: &str = "large";

fn main() -> std::process::ExitCode {
    // `cargo test --benches` starts this without the flag: then it only has to compile.
    if !std::env::args().any(|argument| argument == "--bench") {
        return std::process::ExitCode::SUCCESS;
    }
    let parts: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    for part in &parts {
        assert!(PARTS.contains(&part.as_str()) || part == LARGE, "{part} is none of {PARTS:?} and {LARGE}");
    }
    let wanted =
        |part: &str| if parts.is_empty() { part != LARGE } else { parts.iter().any(|named| named == part) };
    let seconds = if std::env::args().any(|argument| argument == "--quick") { 1 } else { 4 };
    let lasting = Duration::from_secs(seconds);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let mut figures = Figures::default();
    runtime.block_on(async {
        let folder = tempfile::tempdir().unwrap();
        figures.set("sync_ms", machine::sync_ms(folder.path()));
        let (signatures, verified) = issuance::bare_signatures();
        figures.set("peer_p256_signatures_per_s", signatures);
        figures.set("peer_p256_signatures_verified_per_s", verified);
        if wanted("issue") {
            issuance::measure(&mut figures, lasting).await;
        }
        if wanted("status") {
            status::answers(&mut figures, lasting).await;
        }
        if wanted("lists") {
            status::lists(&mut figures).await;
        }
        if wanted("full") {
            full::measure(&mut figures, lasting, 1_000_000).await;
        }
        if wanted(LARGE) {
            let stored = std::env::var("MENTAT_BENCH_STORED").ok();
            full::measure(&mut figures, lasting, stored.map_or(10_000_000, |text| text.parse().unwrap()))
                .await;
        }
    });
    figures.finish(if parts.is_empty() { Run::Whole } else { Run::Parts })
}

//! What the log promises, measured on the real server process: `cargo bench -p transparency-log --bench log`.
//!
//! Prints a table and writes `target/bench/log.json`, a flat object with the unit in each name. Shipped default settings;
//! client and server share the machine; entries are 1 KiB. Comparisons with a peer are added where the peer is installed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a bench measures, prints, and fails loudly"
)]

#[path = "load/client.rs"]
mod client;
#[path = "load/process.rs"]
mod process;
#[path = "../tests/server/mod.rs"]
mod server;
#[path = "load/witnessed.rs"]
mod witnessed;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use client::{Connection, closed_loop, get, open_loop, percentile_ms, post};
use server::{Process, Stack};

const CONNECTIONS: usize = 256;

fn main() {
    // `cargo test --benches` starts this without the flag: then it only has to compile.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let seconds = if std::env::args().any(|argument| argument == "--quick") { 1 } else { 5 };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let figures = runtime.block_on(measure(Duration::from_secs(seconds)));
    for (name, value) in &figures {
        println!("{name:<40} {value:>14.3}");
    }
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("log.json"), serde_json::to_vec_pretty(&figures).unwrap()).unwrap();
}

async fn measure(lasting: Duration) -> BTreeMap<&'static str, f64> {
    let mut figures = BTreeMap::new();
    let folder = tempfile::tempdir().unwrap();
    figures.insert("sync_ms", process::sync_ms(folder.path()));

    let (adds, cpu, bytes) = median(3, async || saturated(lasting, "").await).await;
    figures.insert("adds_per_s", adds);
    figures.insert("add_cpu_us", cpu);
    figures.insert("bytes_written_per_entry_saturated", bytes);
    let (_, without, _) = median(3, async || saturated(lasting, "deduplication = \"off\"\n").await).await;
    figures.insert("dedup_cost_ratio", cpu / without);

    let (ack, publish, bytes) = median(3, async || at_500(lasting).await).await;
    figures.insert("ack_p99_ms_at_500", ack);
    figures.insert("publish_p99_ms_at_500", publish);
    figures.insert("bytes_written_per_entry_at_500", bytes);

    let (signing, tiles, _) = median(3, async || signing_and_tiles(lasting).await).await;
    figures.insert("signing_adds_per_s", signing);
    figures.insert("tile_reads_per_s", tiles);
    let (cosigns, ..) = median(3, async || (witnessed::cosigns_per_s(lasting).await, 0.0, 0.0)).await;
    figures.insert("witness_cosigns_per_s", cosigns);
    figures
}

/// Each figure's median over some runs.
async fn median(runs: usize, mut run: impl AsyncFnMut() -> (f64, f64, f64)) -> (f64, f64, f64) {
    let mut columns = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..runs {
        let (a, b, c) = run().await;
        for (column, value) in columns.iter_mut().zip([a, b, c]) {
            column.push(value);
        }
    }
    let [a, b, c] = columns.map(|mut column| {
        column.sort_by(f64::total_cmp);
        column[column.len() / 2]
    });
    (a, b, c)
}

/// The stack with shipped settings, and a raw log of its own kind.
fn stack(raw: &str) -> (Stack, Process, String) {
    let stack = Stack::with_sizes("", raw, "");
    let server = stack.serve();
    let address = server.url.trim_start_matches("http://").to_owned();
    (stack, server, address)
}

/// 1 KiB that no other number gives.
fn entry(number: u64) -> Vec<u8> {
    let mut bytes = vec![b'.'; 1024];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    bytes
}

/// Closed loop over 256 connections: entries a second, CPU each in microseconds, bytes written each.
async fn saturated(lasting: Duration, raw: &str) -> (f64, f64, f64) {
    let (_stack, server, address) = stack(raw);
    let pid = server.id();
    let (mut cpu, mut bytes) = (Duration::ZERO, 0);
    let start = || (cpu, bytes) = (process::cpu(pid), process::write_bytes(pid));
    let request = |number| post("/raw/add", &entry(number));
    let (count, took) =
        closed_loop(&address, CONNECTIONS, Duration::from_secs(1), lasting, 200, request, start).await;
    let cpu = process::cpu(pid) - cpu;
    let bytes = process::write_bytes(pid) - bytes;
    let count = count as f64;
    (count / took.as_secs_f64(), cpu.as_secs_f64() * 1e6 / count, bytes as f64 / count)
}

/// Open loop at 500 entries a second: acknowledged p99, published p99 in milliseconds, bytes written each.
async fn at_500(lasting: Duration) -> (f64, f64, f64) {
    let (_stack, server, address) = stack("");
    let before = process::write_bytes(server.id());
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let watching = {
        let (address, stop) = (address.clone(), stop.clone());
        tokio::spawn(async move {
            let (mut connection, mut seen) = (Connection::open(&address).await, Vec::new());
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let (_, note) = connection.call(&get("/raw/checkpoint")).await;
                let size: u64 = std::str::from_utf8(note).unwrap().lines().nth(1).unwrap().parse().unwrap();
                seen.push((Instant::now(), size));
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            seen
        })
    };
    let answers = open_loop(&address, 64, 500, lasting, |number| post("/raw/add", &entry(number))).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let seen = watching.await.unwrap();
    let bytes = process::write_bytes(server.id()) - before;
    let published = answers.iter().map(|(due, _, index)| {
        let (at, _) = seen.iter().find(|(_, size)| size > index).expect("never published");
        at.duration_since(*due)
    });
    let published = percentile_ms(published.collect(), 99);
    let count = answers.len() as f64;
    let acknowledged = percentile_ms(answers.into_iter().map(|(_, took, _)| took).collect(), 99);
    (acknowledged, published, bytes as f64 / count)
}

/// Signatures of 100 signers, verified and answered as published; then full tiles of a raw log of 100,000 entries.
async fn signing_and_tiles(lasting: Duration) -> (f64, f64, f64) {
    let (stack, _server, address) = stack("");
    let signers: Vec<_> = (0..100).map(|n| stack.authority.leaf(&format!("dev{n}@example.test"))).collect();
    // Prepared before the clock runs: signing is the client's work.
    let wanted = lasting.as_secs() as usize * 12_000 + 20_000;
    let prepared: Vec<Vec<u8>> = (0..wanted)
        .map(|n| {
            let request = signers[n % signers.len()].request(format!("artifact {n}").as_bytes());
            post("/api/v2/log/entries", request.to_string().as_bytes())
        })
        .collect();
    let request = move |number: u64| prepared[usize::try_from(number).unwrap() % prepared.len()].clone();
    let (count, took) =
        closed_loop(&address, CONNECTIONS, Duration::from_secs(1), lasting, 201, request, || {}).await;
    let signing = count as f64 / took.as_secs_f64();

    let fill = |number| post("/raw/add", &entry(number));
    let (filled, _) = closed_loop(&address, CONNECTIONS, Duration::ZERO, lasting, 200, fill, || {}).await;
    let tiles = (filled / 256).clamp(1, 999);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let request = move |number: u64| get(&format!("/raw/tile/0/{:03}", number % tiles));
    let (count, took) =
        closed_loop(&address, CONNECTIONS, Duration::from_millis(500), lasting, 200, request, || {}).await;
    (signing, count as f64 / took.as_secs_f64(), 0.0)
}

//! What the log promises, measured on the real server process and asserted: `make bench-log`.
//!
//! Prints each figure beside its bound, writes `target/bench/log.json` (a flat object with the unit in each name) and
//! fails when a bound is missed or a part that ran left out a figure. What waits for the disk stands beside the syncs in it
//! (`…_sync_share`: part of a second that they take; `…_syncs_ms`): where they are slow, they are the limit. Shipped default settings; client and server share the machine; entries are 1 KiB. Each
//! figure is the median of three runs. Words after `--` choose parts (`adds`, `at500`, `signing`, `tiles`, `witness`,
//! `tessera`, `large`); `sync_ms` is measured in every run, for it decides which bar applies. `large` (ten million
//! entries, several minutes, 12 GB) runs only when it is named; figures of parts that did not run keep their last value
//! in the file as long as the server's binary is the same (`build`), and `measured_at_PART` says when each part ran.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a bench measures, prints, and fails loudly"
)]

#[path = "load/bounds.rs"]
mod bounds;
#[path = "load/client.rs"]
mod client;
#[path = "load/large.rs"]
mod large;
#[path = "load/process.rs"]
mod process;
#[path = "../tests/server/mod.rs"]
mod server;
#[path = "load/tessera.rs"]
mod tessera;
#[path = "load/witnessed.rs"]
mod witnessed;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use client::{Client, Loop, Moment, get, percentile_ms, post};
use process::Usage;
use server::{Process, Stack};

const CONNECTIONS: usize = 256;
const RUNS: usize = 3;
const PARTS: [&str; 6] = ["adds", "at500", "signing", "tiles", "witness", "tessera"];

type Figures = BTreeMap<&'static str, f64>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --benches` starts this without the flag: then it only has to compile.
    if !arguments.iter().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    let seconds = if arguments.iter().any(|argument| argument == "--quick") { 1 } else { 4 };
    let timing = Loop { warm_up: Duration::from_secs(1), measured: Duration::from_secs(seconds) };
    let chosen: Vec<&str> =
        arguments.iter().map(String::as_str).filter(|argument| !argument.starts_with('-')).collect();
    for part in &chosen {
        assert!(PARTS.contains(part) || *part == "large", "{part} is none of {PARTS:?} and large");
    }
    let runs = |part| if chosen.is_empty() { part != "large" } else { chosen.contains(&part) };

    let mut figures = Figures::new();
    let folder = tempfile::tempdir().unwrap();
    process::demand_disk(folder.path());
    figures.insert("sync_ms", process::sync_ms(folder.path()));
    if runs("adds") {
        adds(timing, &mut figures);
    }
    if runs("at500") {
        at_500(timing.measured, &mut figures);
    }
    if runs("signing") {
        signing(timing, &mut figures);
    }
    if runs("tiles") {
        tiles(timing, &mut figures);
    }
    if runs("witness") {
        let prepared = witnessed::Requests::prepare(seconds * 500 + 500);
        let rates = (0..RUNS).map(|_| prepared.cosigns_per_s(timing.measured));
        let rate = median(rates.collect());
        figures.insert("witness_cosigns_per_s", rate);
        // Record and copy of each.
        figures.insert("witness_sync_share", 2.0 * rate * figures["sync_ms"] / 1000.0);
    }
    let with_peer = runs("tessera") && peer(timing, &mut figures);
    if runs("large") {
        large::measure(timing, &mut figures);
    }

    let ran = |part: &&'static str| runs(*part) && (*part != "tessera" || with_peer);
    let parts: Vec<&'static str> = PARTS.into_iter().chain(["large"]).filter(ran).collect();
    let missed = bounds::report(&figures, &parts);
    write(&figures, parts.into_iter());
    if missed.is_empty() {
        return ExitCode::SUCCESS;
    }
    eprintln!("missed: {}", missed.join(", "));
    ExitCode::FAILURE
}

/// `target/bench`, where all benches leave their figures.
fn results() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"), PathBuf::from)
        .join("bench")
}

fn write<'a>(figures: &Figures, parts: impl Iterator<Item = &'a str>) {
    let path = results().join("log.json");
    std::fs::create_dir_all(results()).unwrap();
    let earlier = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let mut all: BTreeMap<String, f64> = earlier.unwrap_or_default();
    let build = build();
    if all.get("build") != Some(&build) {
        all.clear();
    }
    all.insert("build".to_owned(), build);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    all.extend(parts.map(|part| (format!("measured_at_{part}"), now as f64)));
    all.extend(figures.iter().map(|(name, value)| ((*name).to_owned(), *value)));
    std::fs::write(path, serde_json::to_vec_pretty(&all).unwrap()).unwrap();
}

/// A number that another server binary would not have: 52 bits of its SHA-256.
fn build() -> f64 {
    let binary = std::fs::read(env!("CARGO_BIN_EXE_transparency-log")).unwrap();
    let digest = tlog::Hash::digest(&binary).0;
    (u64::from_be_bytes(digest[..8].try_into().unwrap()) >> 12) as f64
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A server with shipped settings; `raw` goes into the table of its raw log.
fn serve(raw: &str) -> (Stack, Process, String) {
    let stack = Stack::with_sizes("", raw, "");
    let server = stack.serve();
    let address = server.url.trim_start_matches("http://").to_owned();
    (stack, server, address)
}

/// Requests that add 1 KiB each, every one another.
struct RawAdds {
    template: Vec<u8>,
    first: u64,
    next: u64,
}

impl RawAdds {
    /// Entries from number `first` on.
    fn from(path: &str, first: u64) -> Self {
        Self { template: post(path, &[b'.'; 1024]), first, next: first }
    }

    fn write(&mut self, out: &mut Vec<u8>) {
        let at = out.len() + self.template.len() - 1024;
        out.extend_from_slice(&self.template);
        out[at..at + 8].copy_from_slice(&self.next.to_be_bytes());
        self.next += 1;
    }

    /// Every request was answered; each must have become an entry of its own, or something else was measured.
    fn assert_appended(&self, address: &str) {
        let appended = counter(address, "mentat_log_appended_total");
        assert_eq!(appended, (self.next - self.first) as f64, "entries that were measured but not appended");
    }
}

/// What a closed loop of adds over 256 connections costs.
struct Saturated {
    per_s: f64,
    cpu_us: f64,
    written: f64,
}

fn saturate(address: &str, pid: u32, adds: &mut RawAdds, timing: &Loop) -> Saturated {
    let mut client = Client::connect(address, CONNECTIONS, 200);
    let mut usage = Usage::of(pid);
    let at = |moment| {
        usage = match moment {
            Moment::Start => Usage::of(pid),
            Moment::End => Usage::of(pid).since(usage),
        }
    };
    let (count, took) = client.closed_loop(timing, |_, out| adds.write(out), at);
    let count = count as f64;
    Saturated {
        per_s: count / took.as_secs_f64(),
        cpu_us: usage.cpu.as_secs_f64() * 1e6 / count,
        written: usage.written as f64 / count,
    }
}

/// Durable adds with and without deduplication, in turn, so that a slow moment of the machine hits both.
fn adds(timing: Loop, figures: &mut Figures) {
    let (mut with, mut ratios, mut syncs) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let (_stack, server, address) = serve("");
        let before = batches(&address);
        let begin = Instant::now();
        let mut adds = RawAdds::from("/raw/add", 0);
        let run = saturate(&address, server.id(), &mut adds, &timing);
        adds.assert_appended(&address);
        syncs.push(2.0 * (batches(&address) - before) / begin.elapsed().as_secs_f64());
        drop(server);
        let (_stack, server, address) = serve("deduplication = \"off\"\n");
        let mut adds = RawAdds::from("/raw/add", 0);
        let without = saturate(&address, server.id(), &mut adds, &timing);
        adds.assert_appended(&address);
        ratios.push(run.cpu_us / without.cpu_us);
        with.push(run);
    }
    let of = |figure: fn(&Saturated) -> f64| median(with.iter().map(figure).collect());
    figures.insert("adds_per_s", of(|run| run.per_s));
    figures.insert("add_cpu_us", of(|run| run.cpu_us));
    figures.insert("bytes_written_per_entry_saturated", of(|run| run.written));
    figures.insert("dedup_cost_ratio", median(ratios));
    // How much of a second the disk alone would take: near 1 the syncs are the limit, not the server.
    figures.insert("adds_sync_share", median(syncs) * figures["sync_ms"] / 1000.0);
}

/// Batches of the raw log so far.
fn batches(address: &str) -> f64 {
    counter(address, "mentat_log_batches_total")
}

/// A counter of the raw log.
fn counter(address: &str, name: &str) -> f64 {
    counter_of(address, "raw", name)
}

/// A counter of a log.
fn counter_of(address: &str, log: &str, name: &str) -> f64 {
    let text = String::from_utf8(Client::connect(address, 1, 200).call(&get("/metrics"))).unwrap();
    let label = format!("{{log=\"{log}\"}} ");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(label.as_str()));
    line.expect(name).trim().parse().unwrap()
}

/// Open loop at 500 entries a second: acknowledged, then seen in a published checkpoint, and bytes written.
fn at_500(lasting: Duration, figures: &mut Figures) {
    let total = 500 * lasting.as_secs();
    let (mut acknowledged, mut published) = (Vec::new(), Vec::new());
    let (mut written, mut per_batch) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let (_stack, server, address) = serve("");
        let (before, batches_before) = (Usage::of(server.id()), batches(&address));
        let stop = Arc::new(AtomicBool::new(false));
        let watching = watch(&address, stop.clone());
        let mut adds = RawAdds::from("/raw/add", 0);
        let answers = Client::connect(&address, 64, 200).open_loop(500, total, |out| adds.write(out));
        adds.assert_appended(&address);
        std::thread::sleep(Duration::from_millis(300));
        stop.store(true, Ordering::Relaxed);
        let seen = watching.join().unwrap();
        written.push(Usage::of(server.id()).since(before).written as f64 / total as f64);
        per_batch.push(total as f64 / (batches(&address) - batches_before));
        let until_published = answers.iter().map(|answer| {
            let index: u64 = std::str::from_utf8(&answer.body).unwrap().trim().parse().unwrap();
            let (at, _) = seen.iter().find(|(_, size)| *size > index).expect("never published");
            at.duration_since(answer.due)
        });
        published.push(percentile_ms(until_published.collect(), 99));
        acknowledged.push(percentile_ms(answers.iter().map(|answer| answer.took).collect(), 99));
    }
    figures.insert("ack_p99_ms_at_500", median(acknowledged));
    figures.insert("publish_p99_ms_at_500", median(published));
    figures.insert("bytes_written_per_entry_at_500", median(written));
    figures.insert("entries_per_batch_at_500", median(per_batch));
    // What the disk alone takes of it: entries and head, then copy and note.
    figures.insert("ack_syncs_ms_at_500", 2.0 * figures["sync_ms"]);
    figures.insert("publish_syncs_ms_at_500", 4.0 * figures["sync_ms"]);
}

/// Looks at the checkpoint every 2 ms.
fn watch(address: &str, stop: Arc<AtomicBool>) -> std::thread::JoinHandle<Vec<(Instant, u64)>> {
    let mut client = Client::connect(address, 1, 200);
    std::thread::spawn(move || {
        let mut seen = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let note = client.call(&get("/raw/checkpoint"));
            let text = std::str::from_utf8(&note).unwrap();
            seen.push((Instant::now(), text.lines().nth(1).unwrap().parse().unwrap()));
            std::thread::sleep(Duration::from_millis(2));
        }
        seen
    })
}

/// Signatures of 100 signers, verified and answered as published.
fn signing(timing: Loop, figures: &mut Figures) {
    let (stack, _server, address) = serve("");
    let signers: Vec<_> = (0..100).map(|n| stack.authority.leaf(&format!("dev{n}@example.test"))).collect();
    // Prepared before the clock runs: signing is the client's work.
    let wanted = RUNS as u64 * (timing.warm_up + timing.measured).as_secs() * 30_000 + 2000;
    let prepared: Vec<Vec<u8>> = (0..usize::try_from(wanted).unwrap())
        .map(|n| {
            let request = signers[n % signers.len()].request(format!("artifact {n}").as_bytes());
            post("/api/v2/log/entries", request.to_string().as_bytes())
        })
        .collect();
    let mut next = prepared.iter();
    // Entries and head of a batch, copy and note of a checkpoint.
    let syncs = || {
        let count = |name| counter_of(&address, "signing", name);
        2.0 * (count("mentat_log_batches_total") + count("mentat_log_publications_total"))
    };
    let (before, begin) = (syncs(), Instant::now());
    let rates = (0..RUNS).map(|_| {
        let mut client = Client::connect(&address, CONNECTIONS, 201);
        let request = |_, out: &mut Vec<u8>| {
            out.extend_from_slice(next.next().expect("too few prepared requests"));
        };
        let (count, took) = client.closed_loop(&timing, request, |_| {});
        count as f64 / took.as_secs_f64()
    });
    figures.insert("signing_adds_per_s", median(rates.collect()));
    let per_s = (syncs() - before) / begin.elapsed().as_secs_f64();
    figures.insert("signing_sync_share", per_s * figures["sync_ms"] / 1000.0);
}

/// Full tiles of a log of some hundred thousand entries.
fn tiles(timing: Loop, figures: &mut Figures) {
    let (_stack, server, address) = serve("");
    let filling = Loop { warm_up: timing.warm_up, measured: Duration::from_secs(2) };
    saturate(&address, server.id(), &mut RawAdds::from("/raw/add", 0), &filling);
    std::thread::sleep(Duration::from_millis(300));
    let note = Client::connect(&address, 1, 200).call(&get("/raw/checkpoint"));
    let size: u64 = std::str::from_utf8(&note).unwrap().lines().nth(1).unwrap().parse().unwrap();
    let full = (size / 256).min(999);
    assert!(full > 10, "{size} entries are too few");
    let requests: Vec<_> = (0..full).map(|tile| get(&format!("/raw/tile/0/{tile:03}"))).collect();
    let mut next = requests.iter().cycle();
    let rates = (0..RUNS).map(|_| {
        let mut client = Client::connect(&address, CONNECTIONS, 200);
        let request = |_, out: &mut Vec<u8>| out.extend_from_slice(next.next().unwrap());
        let (count, took) = client.closed_loop(&timing, request, |_| {});
        count as f64 / took.as_secs_f64()
    });
    figures.insert("tile_reads_per_s", median(rates.collect()));
}

/// The peer beside the log, in turn, under the same client; false when there is none here.
fn peer(timing: Loop, figures: &mut Figures) -> bool {
    let binary = match tessera::binary(&results().join("go")) {
        Ok(binary) => binary,
        Err(why) => {
            println!("SKIPPED adds_ratio_to_tessera, cpu_ratio_to_tessera: {why}");
            return false;
        }
    };
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let (_stack, server, address) = serve("");
        let mut adds = RawAdds::from("/raw/add", 0);
        ours.push(saturate(&address, server.id(), &mut adds, &timing));
        adds.assert_appended(&address);
        drop(server);
        let peer = tessera::Tessera::start(&binary);
        theirs.push(saturate(&peer.address, peer.id(), &mut RawAdds::from("/add", 0), &timing));
    }
    let of = |runs: &[Saturated], figure: fn(&Saturated) -> f64| median(runs.iter().map(figure).collect());
    let (rate, cost) = (of(&theirs, |run| run.per_s), of(&theirs, |run| run.cpu_us));
    figures.insert("tessera_adds_per_s", rate);
    figures.insert("tessera_add_cpu_us", cost);
    figures.insert("adds_ratio_to_tessera", of(&ours, |run| run.per_s) / rate);
    figures.insert("cpu_ratio_to_tessera", of(&ours, |run| run.cpu_us) / cost);
    true
}

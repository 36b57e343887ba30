//! What the executor promises, measured: `make bench-exec`.
//!
//! Prints a table, writes `target/bench/exec.json` (a flat object, the unit in each name) and fails when a bound of
//! docs/specification.md is broken. A whole stack runs beside it, so everything measured was signed, logged and
//! admitted. Ratios are ours ÷ bare wasmtime with the same engine, pool and ticks, in turns on one thread of one run:
//! the median over many turns of a batch each, in thread time. Parts can be chosen, `cargo bench … --bench exec -- calls wasi`; nothing is written then.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    reason = "a bench measures, prints, and fails loudly"
)]

#[path = "exec/calls.rs"]
mod calls;
#[path = "exec/deployments.rs"]
mod deployments;
#[path = "exec/guests.rs"]
mod guests;
#[path = "exec/lifecycle.rs"]
mod lifecycle;
#[path = "exec/neighbours.rs"]
mod neighbours;
#[path = "exec/pipelines.rs"]
mod pipelines;
#[path = "exec/process.rs"]
mod process;
#[path = "exec/stack.rs"]
mod stack;
#[path = "exec/wasi.rs"]
mod wasi;

use std::collections::BTreeMap;
use std::time::Duration;

/// The figures, by name.
pub(crate) type Figures = BTreeMap<&'static str, f64>;

/// What must hold: the figure, and the bound that docs/specification.md promises.
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}
use Bound::{AtLeast, AtMost};

const BOUNDS: &[(&str, Bound)] = &[
    ("core_ratio", AtMost(1.10)),
    ("component_ratio", AtMost(1.10)),
    ("component_calls_per_s_per_core", AtLeast(100_000.0)),
    ("wasi_ratio", AtMost(1.10)),
    ("component_kib_live", AtMost(32.0)),
    ("live_instances", AtLeast(10_000.0)),
    ("wasi_kib_live", AtMost(64.0)),
    ("cold_start_ms", AtMost(5.0)),
    ("warm_start_ms", AtMost(5.0)),
    ("admission_ms", AtMost(10.0)),
    ("host_call_ns", AtMost(150.0)),
    ("component_host_call_ns", AtMost(150.0)),
    ("wasi_runs_per_s_per_core", AtLeast(25_000.0)),
    ("message_us", AtMost(10.0)),
    ("pipeline_step_us", AtMost(100.0)),
    ("kill_ms", AtMost(20.0)),
    ("neighbour_p99_ms", AtMost(20.0)),
    ("deploy_s", AtMost(1.0)),
    ("rollback_s", AtMost(5.0)),
    ("revoke_to_denied_s", AtMost(5.0)),
    ("receipt_us", AtMost(100.0)),
    ("native_ratio_compute", AtMost(2.0)),
    ("grpc_calls_per_s", AtLeast(10_000.0)),
    ("binary_mb", AtMost(15.0)),
    ("idle_rss_mb", AtMost(40.0)),
];

fn main() {
    // `cargo test --benches` starts this without the flag: then it only has to compile.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let named: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let runs = |part: &str| named.is_empty() || named.iter().any(|name| name == part);
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut figures = Figures::new();
    if runs("process") {
        process::measure(&mut figures);
    }
    let stack = stack::Stack::up();
    let guests = guests::signed(&stack);
    tokio.block_on(async {
        let executor = stack.executor_in_process(&guests).await;
        if runs("calls") {
            calls::measure(&executor, &mut figures);
        }
        if runs("wasi") {
            wasi::measure(&executor, &mut figures);
        }
        if runs("pipelines") {
            pipelines::measure(&executor, &mut figures).await;
        }
        if runs("deployments") {
            deployments::measure(&executor, &guests, &mut figures).await;
        }
        if runs("lifecycle") {
            lifecycle::revocation(&stack, &executor, &guests, &mut figures).await;
            lifecycle::receipts(&executor, &guests, &mut figures).await;
            lifecycle::measure(&executor, &guests, &mut figures).await;
        }
        if runs("neighbours") {
            neighbours::measure(&executor, &guests, &mut figures).await;
        }
        println!("{figures:#?}");
        if runs("grpc") {
            process::grpc(&stack, &guests, &mut figures).await;
        }
    });

    let mut broken = Vec::new();
    for (name, value) in &figures {
        let bound = BOUNDS.iter().find(|(bounded, _)| bounded == name);
        let (text, holds) = match bound {
            Some((_, AtMost(limit))) => (format!("≤ {limit}"), value <= limit),
            Some((_, AtLeast(limit))) => (format!("≥ {limit}"), value >= limit),
            None => (String::new(), true),
        };
        println!("{name:<36} {value:>14.3}  {text}");
        if !holds {
            broken.push(format!("{name} = {value}, promised {text}"));
        }
    }
    if !named.is_empty() {
        assert!(broken.is_empty(), "{}", broken.join("\n"));
        return;
    }
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/bench");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("exec.json"), serde_json::to_vec_pretty(&figures).unwrap()).unwrap();
    for (name, _) in BOUNDS {
        assert!(figures.contains_key(name), "{name} was not measured");
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// What two things that were run in turns took.
pub(crate) struct Turns {
    /// Median thread time of the first, per item.
    pub(crate) one: Duration,
    /// That of the other.
    pub(crate) other: Duration,
    /// The first ÷ the other: the median over turns. The speed of a machine changes in steps, and two medians may come from
    /// different steps; the batches of one turn are too close together for that.
    pub(crate) ratio: f64,
}

/// Runs both often, in turns, each as often first as the other.
pub(crate) fn interleaved(
    turns: usize,
    items: u32,
    mut one: impl FnMut(u32),
    mut other: impl FnMut(u32),
) -> Turns {
    let (mut ones, mut others, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    one(items);
    other(items);
    for turn in 0..turns {
        let (first, second) = if turn % 2 == 0 {
            let first = timed(|| one(items));
            (first, timed(|| other(items)))
        } else {
            let second = timed(|| other(items));
            (timed(|| one(items)), second)
        };
        ones.push(first);
        others.push(second);
        ratios.push(first.as_secs_f64() / second.as_secs_f64().max(1e-9));
    }
    ratios.sort_by(f64::total_cmp);
    Turns { one: median(ones) / items, other: median(others) / items, ratio: ratios[ratios.len() / 2] }
}

fn timed(run: impl FnOnce()) -> Duration {
    let start = thread_time();
    run();
    thread_time() - start
}

/// The middle one of some runs.
pub(crate) fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// Processor time of this thread.
pub(crate) fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap(), time.tv_nsec.try_into().unwrap())
}

//! Calls against bare wasmtime: the very function that `ExecuteAgent` ends in, with limits, kill flag and usage counters.

use std::hint::black_box;

use bytes::Bytes;
use executor::runtime::{Call, Prepared, Runtime};
use executor_bare::{PRIMES, sieve};

use crate::stack::InProcess;
use crate::{Figures, Turns, interleaved};

const TURNS: usize = 101;
const CALLS: u32 = 1_000;
/// Of batches that take milliseconds without being made of many calls.
const LONG_TURNS: usize = 25;

pub(crate) fn measure(process: &InProcess, figures: &mut Figures) {
    let runtime = process.executor.danger_runtime();
    let prepared = |name: &str| process.executor.danger_prepared(name).expect("loaded");

    let core = prepared("bench.core");
    let bare = executor_bare::core(runtime.danger_engine(), core.danger_module().unwrap());
    let turns = interleaved(TURNS, CALLS, |count| call(runtime, &core, count), bare);
    figures.insert("core_ratio", turns.ratio);
    figures.insert("core_call_us", turns.one.as_secs_f64() * 1e6);
    figures.insert("bare_core_call_us", turns.other.as_secs_f64() * 1e6);

    let component = prepared("bench.component");
    let bare = executor_bare::component(runtime.danger_engine(), component.danger_component().unwrap());
    let turns = interleaved(TURNS, CALLS, |count| call(runtime, &component, count), bare);
    figures.insert("component_ratio", turns.ratio);
    figures.insert("component_calls_per_s_per_core", 1.0 / turns.one.as_secs_f64());
    figures.insert("bare_component_call_us", turns.other.as_secs_f64() * 1e6);
    figures.insert("warm_start_ms", turns.one.as_secs_f64() * 1e3);

    // A loop of host calls minus the same call without the loop.
    let input = |count: usize| Call { input: Bytes::from(vec![0; count]), ..Call::default() };
    for (id, figure) in
        [("bench.hostcalls", "host_call_ns"), ("bench.componentcalls", "component_host_call_ns")]
    {
        let host = prepared(id);
        let Turns { one: many, other: none, .. } = interleaved(
            LONG_TURNS,
            1,
            |_| drop(black_box(runtime.call(&host, input(2)).unwrap())),
            |_| drop(black_box(runtime.call(&host, input(0)).unwrap())),
        );
        figures.insert(figure, (many.saturating_sub(none)).as_secs_f64() * 1e9 / 200_000.0);
    }

    let compute = prepared("bench.compute");
    let turns = interleaved(
        LONG_TURNS,
        1,
        |_| {
            let done = runtime.call(&compute, input(1)).unwrap();
            assert_eq!(done.output, PRIMES.to_le_bytes());
        },
        |_| assert_eq!(black_box(sieve(black_box(&mut vec![0; 1 << 20]))), PRIMES),
    );
    figures.insert("native_ratio_compute", turns.ratio);

    // A kibibyte from one store to the host and on into the next: a message between components of different signers.
    let echo = prepared("bench.echo");
    let message = Bytes::from(vec![7; 1024]);
    let pass = |bytes: Bytes| {
        Bytes::from(runtime.call(&echo, Call { input: bytes, ..Call::default() }).unwrap().output)
    };
    let Turns { one: passed, .. } = interleaved(
        TURNS,
        CALLS,
        |count| {
            let mut bytes = message.clone();
            for _ in 0..count {
                bytes = pass(bytes);
            }
            assert_eq!(bytes, message);
        },
        |_| {},
    );
    figures.insert("message_us", passed.as_secs_f64() * 1e6);

    figures.insert("component_kib_live", live(runtime, &component));
    figures.insert("live_instances", f64::from(runtime.pool().slots.min(10_000)));
}

fn call(runtime: &Runtime, prepared: &Prepared, count: u32) {
    let input = Bytes::from_static(executor_bare::INPUT);
    for _ in 0..count {
        let call = Call { input: input.clone(), ..Call::default() };
        black_box(runtime.call(prepared, call).unwrap());
    }
}

/// Ten thousand instances at once: resident memory and page tables of each.
pub(crate) fn live(runtime: &Runtime, prepared: &Prepared) -> f64 {
    const COUNT: usize = 10_000;
    let used = || crate::process::status_kib(std::process::id(), &["VmRSS", "VmPTE"]);
    let slots = usize::try_from(runtime.pool().slots).unwrap();
    let count = COUNT.min(slots);
    let before = used();
    let held: Vec<_> =
        (0..count).map(|_| runtime.danger_call_and_keep(prepared, Call::default()).unwrap()).collect();
    let each = (used() - before) / count as f64;
    drop(held);
    each
}

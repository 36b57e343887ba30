//! WASI 0.2 commands against bare wasmtime-wasi under the same engine, pool and ticks.

use std::hint::black_box;

use bytes::Bytes;
use executor::runtime::Call;
use executor_bare::INPUT;

use crate::calls::live;
use crate::stack::InProcess;
use crate::{Figures, interleaved};

const TURNS: usize = 51;
const CALLS: u32 = 500;

pub(crate) fn measure(process: &InProcess, figures: &mut Figures) {
    let runtime = process.executor.danger_runtime();
    let prepared = process.executor.danger_prepared("bench.wasi").expect("loaded");
    let ours = |count: u32| {
        for _ in 0..count {
            let call = Call { input: Bytes::from_static(INPUT), ..Call::default() };
            let done = runtime.call(&prepared, call).unwrap();
            assert_eq!(black_box(done.output), INPUT);
        }
    };
    let bare = executor_bare::wasi(runtime.danger_engine(), prepared.danger_component().unwrap());
    let turns = std::thread::scope(|scope| {
        // As calls of the executor do, on a thread that may block.
        scope.spawn(|| interleaved(TURNS, CALLS, ours, bare)).join().unwrap()
    });
    figures.insert("wasi_ratio", turns.ratio);
    figures.insert("wasi_runs_per_s_per_core", 1.0 / turns.one.as_secs_f64());
    figures.insert("wasi_call_us", turns.one.as_secs_f64() * 1e6);
    figures.insert("bare_wasi_call_us", turns.other.as_secs_f64() * 1e6);
    std::thread::scope(|scope| {
        let kib = scope.spawn(|| live(runtime, &prepared)).join().unwrap();
        figures.insert("wasi_kib_live", kib);
    });
}

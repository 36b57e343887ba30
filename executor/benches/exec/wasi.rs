//! WASI 0.2 commands against bare wasmtime-wasi under the same engine, pool and ticks.

use std::hint::black_box;

use bytes::Bytes;
use executor::runtime::{Call, Prepared, Runtime};
use wasmtime::Store;
use wasmtime::component::{Linker, ResourceTable};
use wasmtime_wasi::p2::bindings::CommandPre;
use wasmtime_wasi::p2::pipe::{MemoryInputPipe, MemoryOutputPipe};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use crate::calls::live;
use crate::stack::InProcess;
use crate::{Figures, interleaved};

const BATCHES: usize = 25;
const CALLS: u32 = 1_000;
const TEXT: &[u8] = b"the input of a call";

pub(crate) fn measure(process: &InProcess, figures: &mut Figures) {
    let runtime = process.executor.danger_runtime();
    let prepared = process.executor.danger_prepared("bench.wasi").expect("loaded");
    let ours = |count: u32| {
        for _ in 0..count {
            let call = Call { input: Bytes::from_static(TEXT), ..Call::default() };
            let done = runtime.call(&prepared, call).unwrap();
            assert_eq!(black_box(done.output), TEXT);
        }
    };
    let bare = bare(runtime, &prepared);
    let (ours, raw) = std::thread::scope(|scope| {
        // As calls of the executor do, on a thread that may block.
        scope.spawn(|| interleaved(BATCHES, CALLS, ours, bare)).join().unwrap()
    });
    figures.insert("wasi_ratio", ours.as_secs_f64() / raw.as_secs_f64());
    figures.insert("wasi_runs_per_s_per_core", 1.0 / ours.as_secs_f64());
    figures.insert("wasi_call_us", ours.as_secs_f64() * 1e6);
    figures.insert("bare_wasi_call_us", raw.as_secs_f64() * 1e6);
    std::thread::scope(|scope| {
        let kib = scope.spawn(|| live(runtime, &prepared)).join().unwrap();
        figures.insert("wasi_kib_live", kib);
    });
}

struct Bare {
    ctx: WasiCtx,
    table: ResourceTable,
}

impl WasiView for Bare {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.ctx, table: &mut self.table }
    }
}

/// What a host without limits does for the same guest: streams of the call, nothing else granted.
fn bare(runtime: &Runtime, prepared: &Prepared) -> impl FnMut(u32) + Send {
    let engine = runtime.danger_engine().clone();
    let component = prepared.danger_component().unwrap().clone();
    let mut linker = Linker::<Bare>::new(&engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker).unwrap();
    let pre = CommandPre::new(linker.instantiate_pre(&component).unwrap()).unwrap();
    move |count| {
        for _ in 0..count {
            let stdout = MemoryOutputPipe::new(1 << 20);
            let ctx = WasiCtx::builder()
                .stdin(MemoryInputPipe::new(Bytes::from_static(TEXT)))
                .stdout(stdout.clone())
                .stderr(MemoryOutputPipe::new(64 << 10))
                .build();
            let mut store = Store::new(&engine, Bare { ctx, table: ResourceTable::new() });
            store.set_epoch_deadline(1_000_000);
            wasmtime_wasi::runtime::in_tokio(async {
                let command = pre.instantiate_async(&mut store).await.unwrap();
                command.wasi_cli_run().call_run(&mut store).await.unwrap().unwrap();
            });
            drop(store);
            assert_eq!(black_box(stdout.contents()), TEXT);
        }
    }
}

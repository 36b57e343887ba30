//! Calls against bare wasmtime: the very function that `ExecuteAgent` ends in, with limits, kill flag and usage counters.

use std::hint::black_box;

use bytes::Bytes;
use executor::runtime::{Call, Prepared, Runtime};
use wasmtime::component::Linker as ComponentLinker;
use wasmtime::{Caller, Extern, Linker, Store};

use crate::stack::InProcess;
use crate::{Figures, interleaved};

const BATCHES: usize = 25;
const CALLS: u32 = 2_000;

pub(crate) fn measure(process: &InProcess, figures: &mut Figures) {
    let runtime = process.executor.danger_runtime();
    let prepared = |name: &str| process.executor.danger_prepared(name).expect("loaded");

    let core = prepared("bench.core");
    let (ours, raw) =
        interleaved(BATCHES, CALLS, |count| call(runtime, &core, count), bare_core(runtime, &core));
    figures.insert("core_ratio", ours.as_secs_f64() / raw.as_secs_f64());
    figures.insert("core_call_us", ours.as_secs_f64() * 1e6);
    figures.insert("bare_core_call_us", raw.as_secs_f64() * 1e6);

    let component = prepared("bench.component");
    let (ours, raw) = interleaved(
        BATCHES,
        CALLS,
        |count| call(runtime, &component, count),
        bare_component(runtime, &component),
    );
    figures.insert("component_ratio", ours.as_secs_f64() / raw.as_secs_f64());
    figures.insert("component_calls_per_s_per_core", 1.0 / ours.as_secs_f64());
    figures.insert("bare_component_call_us", raw.as_secs_f64() * 1e6);
    figures.insert("warm_start_ms", ours.as_secs_f64() * 1e3);

    // A loop of host calls minus the same call without the loop.
    let input = |count: usize| Call { input: Bytes::from(vec![0; count]), ..Call::default() };
    for (id, figure) in
        [("bench.hostcalls", "host_call_ns"), ("bench.componentcalls", "component_host_call_ns")]
    {
        let host = prepared(id);
        let (many, none) = interleaved(
            BATCHES,
            1,
            |_| drop(black_box(runtime.call(&host, input(2)).unwrap())),
            |_| drop(black_box(runtime.call(&host, input(0)).unwrap())),
        );
        figures.insert(figure, (many.saturating_sub(none)).as_secs_f64() * 1e9 / 200_000.0);
    }

    let compute = prepared("bench.compute");
    let (guest, native) = interleaved(
        BATCHES,
        1,
        |_| {
            let done = runtime.call(&compute, input(1)).unwrap();
            assert_eq!(done.output, PRIMES.to_le_bytes());
        },
        |_| assert_eq!(black_box(sieve(black_box(&mut vec![0; 1 << 20]))), PRIMES),
    );
    figures.insert("native_ratio_compute", guest.as_secs_f64() / native.as_secs_f64());

    // A kibibyte from one store to the host and on into the next: a message between components of different signers.
    let echo = prepared("bench.echo");
    let message = Bytes::from(vec![7; 1024]);
    let pass = |bytes: Bytes| {
        Bytes::from(runtime.call(&echo, Call { input: bytes, ..Call::default() }).unwrap().output)
    };
    let (passed, _) = interleaved(
        BATCHES,
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
    let input = Bytes::from_static(b"the input of a call");
    for _ in 0..count {
        let call = Call { input: input.clone(), ..Call::default() };
        black_box(runtime.call(prepared, call).unwrap());
    }
}

/// What a host that has no limits does for the same guest: it carries the input too.
struct Bare {
    input: Bytes,
    output: Vec<u8>,
}

fn bare_core(runtime: &Runtime, prepared: &Prepared) -> impl FnMut(u32) {
    let engine = runtime.danger_engine().clone();
    let module = prepared.danger_module().unwrap().clone();
    let mut linker = Linker::<Bare>::new(&engine);
    let memory =
        |caller: &mut Caller<'_, Bare>| caller.get_export("memory").and_then(Extern::into_memory).unwrap();
    linker
        .func_wrap(
            "mentat",
            "read_input",
            move |mut caller: Caller<'_, Bare>, ptr: i32, cap: i32, offset: i32| {
                let memory = memory(&mut caller);
                let (bytes, bare) = memory.data_and_store_mut(&mut caller);
                let rest = &bare.input[offset as usize..];
                let count = rest.len().min(cap as usize);
                bytes[ptr as usize..][..count].copy_from_slice(&rest[..count]);
                count as i32
            },
        )
        .unwrap();
    linker
        .func_wrap("mentat", "write_output", move |mut caller: Caller<'_, Bare>, ptr: i32, len: i32| {
            let memory = memory(&mut caller);
            let (bytes, bare) = memory.data_and_store_mut(&mut caller);
            bare.output.extend_from_slice(&bytes[ptr as usize..][..len as usize]);
            len
        })
        .unwrap();
    let pre = linker.instantiate_pre(&module).unwrap();
    let process = module.get_export_index("process").unwrap();
    let input = Bytes::from_static(b"the input of a call");
    move |count| {
        for _ in 0..count {
            let mut store = Store::new(&engine, Bare { input: input.clone(), output: Vec::new() });
            store.set_epoch_deadline(1_000_000);
            let instance = pre.instantiate(&mut store).unwrap();
            let process =
                instance.get_module_export(&mut store, &process).and_then(Extern::into_func).unwrap();
            black_box(process.typed::<(), i32>(&store).unwrap().call(&mut store, ()).unwrap());
            black_box(store.into_data().output);
        }
    }
}

fn bare_component(runtime: &Runtime, prepared: &Prepared) -> impl FnMut(u32) {
    let engine = runtime.danger_engine().clone();
    let component = prepared.danger_component().unwrap().clone();
    let pre = ComponentLinker::<Bare>::new(&engine).instantiate_pre(&component).unwrap();
    let process = component.get_export_index(None, "process").unwrap();
    let input = Bytes::from_static(b"the input of a call");
    move |count| {
        for _ in 0..count {
            let mut store = Store::new(&engine, Bare { input: input.clone(), output: Vec::new() });
            store.set_epoch_deadline(1_000_000);
            let instance = pre.instantiate(&mut store).unwrap();
            let process = instance.get_typed_func::<(), (Result<(), String>,)>(&mut store, &process).unwrap();
            process.call(&mut store, ()).unwrap().0.unwrap();
        }
    }
}

const PRIMES: u32 = 82_025;

/// The guest's work in Rust.
fn sieve(composite: &mut [u8]) -> u32 {
    let mut count = 0;
    for number in 2..composite.len() {
        if composite[number] == 0 {
            count += 1;
            let mut multiple = number * 2;
            while multiple < composite.len() {
                composite[multiple] = 1;
                multiple += number;
            }
        }
    }
    count
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

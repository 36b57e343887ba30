//! What the bench of the executor measures itself beside: wasmtime as an embedder uses it who limits nothing, and native code.
//!
//! A crate of its own, because the executor is built for size where its calls do not need more (root manifest): what it is compared with
//! is compiled as wasmtime's users compile it.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a part of a bench, which fails loudly")]

mod wasi;

use std::hint::black_box;

use bytes::Bytes;
use wasmtime::component::{Component, Linker as ComponentLinker};
use wasmtime::{Caller, Engine, Extern, Linker, Module, Store};

pub use wasi::wasi;

/// What each call carries, ours and theirs.
pub const INPUT: &[u8] = b"the input of a call";

/// What a host that has no limits does for the same guest: it carries the input too.
struct Bare {
    input: Bytes,
    output: Vec<u8>,
}

/// Fresh instances of a core module of the `mentat` interface, as many as are asked for.
pub fn core(engine: &Engine, module: &Module) -> impl FnMut(u32) + use<> {
    let engine = engine.clone();
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
    let pre = linker.instantiate_pre(module).unwrap();
    let process = module.get_export_index("process").unwrap();
    let input = Bytes::from_static(INPUT);
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

/// Fresh instances of a component without imports.
pub fn component(engine: &Engine, component: &Component) -> impl FnMut(u32) + use<> {
    let engine = engine.clone();
    let pre = ComponentLinker::<Bare>::new(&engine).instantiate_pre(component).unwrap();
    let process = component.get_export_index(None, "process").unwrap();
    let input = Bytes::from_static(INPUT);
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

/// How many primes [`sieve`] finds below 2^20.
pub const PRIMES: u32 = 82_025;

/// The guest's work in Rust: the primes below the length.
pub fn sieve(composite: &mut [u8]) -> u32 {
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

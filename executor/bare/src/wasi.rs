//! WASI 0.2 commands on bare wasmtime-wasi.

use std::hint::black_box;

use bytes::Bytes;
use wasmtime::component::{Component, Linker, ResourceTable};
use wasmtime::{Engine, Store};
use wasmtime_wasi::p2::bindings::CommandPre;
use wasmtime_wasi::p2::pipe::{MemoryInputPipe, MemoryOutputPipe};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use crate::INPUT;

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
pub fn wasi(engine: &Engine, component: &Component) -> impl FnMut(u32) + Send + use<> {
    let engine = engine.clone();
    let mut linker = Linker::<Bare>::new(&engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker).unwrap();
    let pre = CommandPre::new(linker.instantiate_pre(component).unwrap()).unwrap();
    move |count| {
        for _ in 0..count {
            let stdout = MemoryOutputPipe::new(1 << 20);
            let ctx = WasiCtx::builder()
                .stdin(MemoryInputPipe::new(Bytes::from_static(INPUT)))
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
            assert_eq!(black_box(stdout.contents()), INPUT);
        }
    }
}

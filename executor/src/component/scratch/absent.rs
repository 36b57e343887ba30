//! Scratch files in a build without the feature `scratch-files`: there are none, and releases that ask for them are refused.

use trust_store::capability::FileAccess;
use wasmtime::component::Linker;
use wasmtime_wasi::filesystem::{WasiFilesystem, WasiFilesystemView as _};
use wasmtime_wasi::p2::bindings::filesystem::{preopens, types};

use crate::runtime::{GuestState, ScratchAccount};

/// Those of a call, of which there are none.
pub(super) struct Scratch;

impl Scratch {
    pub(super) fn new(_: ScratchAccount, _: FileAccess) -> Self {
        Self
    }
}

/// Links the library's files, which are those of the host that were granted.
pub(super) fn link(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    preopens::add_to_linker::<GuestState, WasiFilesystem>(linker, GuestState::filesystem)?;
    types::add_to_linker::<GuestState, WasiFilesystem>(linker, GuestState::filesystem)
}

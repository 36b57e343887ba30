//! Bare connections in a build without the feature `sockets`: there are none, and releases that ask for them are refused.

use std::sync::Arc;

use wasmtime::component::Linker;
use wasmtime_wasi::WasiCtxBuilder;

use crate::egress::Connections;
use crate::runtime::GuestState;

/// No import is one of sockets.
pub(super) fn is_linked(_: &str) -> bool {
    false
}

/// Links nothing.
#[allow(clippy::unnecessary_wraps, reason = "as where there is something to link")]
pub(super) fn link(_: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    Ok(())
}

/// Allows nothing.
pub(super) fn allow(_: &mut WasiCtxBuilder, _: &Arc<Connections>) {}

/// Adds nothing.
pub(super) fn account(_: &mut GuestState, _: &Connections) {}

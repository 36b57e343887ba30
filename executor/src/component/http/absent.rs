//! HTTP handlers in a build without the feature `http-handler`: there are none, and components that are one are refused.

use wasmtime::Store;
use wasmtime::component::{InstancePre, Linker};

use super::Failed;
use crate::runtime::GuestState;

/// A component's handler, of which there is none.
pub(super) enum Handler {}

/// Links nothing.
#[allow(clippy::unnecessary_wraps, reason = "as where there is something to link")]
pub(super) fn link(_: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    Ok(())
}

impl Handler {
    pub(super) fn of(_: &InstancePre<GuestState>) -> Option<Self> {
        None
    }

    pub(super) async fn serve(
        &self,
        _: &InstancePre<GuestState>,
        _: &mut Store<GuestState>,
    ) -> Result<i32, Failed> {
        match *self {}
    }
}

//! Core modules over WASI preview 1 become components over WASI 0.2, by the adapter of the same wasmtime release.
//!
//! A module that exports `_start` becomes a command; any other one becomes a library whose exports are those of the world
//! that `wit-bindgen` wrote into it. What was admitted is the module as it came: its digest stays the module's.

use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER,
    WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
};
use wasmparser::{Parser, Payload};
use wit_component::ComponentEncoder;

/// The component, if the module is one over WASI preview 1. The module was validated before.
///
/// # Errors
///
/// When it imports what the adapter does not have.
pub(crate) fn to_component(module: &[u8]) -> anyhow::Result<Option<Vec<u8>>> {
    let Some(adapter) = adapter(module)? else { return Ok(None) };
    let component = ComponentEncoder::default()
        .module(module)?
        .adapter(WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, adapter)?
        .encode()?;
    Ok(Some(component))
}

/// The adapter that fits, if any import needs one.
fn adapter(module: &[u8]) -> anyhow::Result<Option<&'static [u8]>> {
    let (mut imports, mut agent, mut starts) = (false, false, false);
    for payload in Parser::new(0).parse_all(module) {
        match payload? {
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    let module = import?.module;
                    imports |= module == WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME;
                    agent |= module == "mentat";
                }
            }
            Payload::ExportSection(section) => {
                for export in section {
                    starts |= export?.name == "_start";
                }
            }
            _ => {}
        }
    }
    // An agent on the core ABI stays what it is; the executor refuses the import that it has no interface for.
    let imports = imports && !agent;
    Ok(match (imports, starts) {
        (false, _) => None,
        (true, true) => Some(WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER),
        (true, false) => Some(WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER),
    })
}

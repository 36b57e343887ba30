//! Core modules that are components but for their form: those over WASI preview 1 become components over WASI 0.2, by the adapter
//! of the same wasmtime release, and those into which `wit-bindgen` wrote a world become components of that world.
//!
//! A module that exports `_start` becomes a command; any other one becomes a library whose exports are those of the world
//! that `wit-bindgen` wrote into it. What was admitted is the module as it came: its digest stays the module's.

use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER,
    WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
};
use wasmparser::{Parser, Payload};
use wit_component::ComponentEncoder;

/// Begins the names of the custom sections in which `wit-bindgen` describes the world that a module is for.
const WORLD_SECTION: &str = "component-type";

/// The component, if the module is one over WASI preview 1, or is for a world. The module was validated before.
///
/// # Errors
///
/// When it imports what neither the adapter nor its world has.
pub(crate) fn to_component(module: &[u8]) -> anyhow::Result<Option<Vec<u8>>> {
    let Some(form) = form(module)? else { return Ok(None) };
    let mut encoder = ComponentEncoder::default().module(module)?;
    if let Form::Preview1(adapter) = form {
        encoder = encoder.adapter(WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, adapter)?;
    }
    Ok(Some(encoder.encode()?))
}

/// What a module is that is no agent on the core ABI.
enum Form {
    /// Over WASI preview 1, and the adapter that fits.
    Preview1(&'static [u8]),
    /// For a world.
    World,
}

fn form(module: &[u8]) -> anyhow::Result<Option<Form>> {
    let (mut imports, mut agent, mut starts, mut world) = (false, false, false, false);
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
            Payload::CustomSection(section) => world |= section.name().starts_with(WORLD_SECTION),
            _ => {}
        }
    }
    // An agent on the core ABI stays what it is; the executor refuses the import that it has no interface for.
    Ok(match (agent, imports, starts, world) {
        (true, ..) | (false, false, _, false) => None,
        (false, true, true, _) => Some(Form::Preview1(WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER)),
        (false, true, false, _) => Some(Form::Preview1(WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER)),
        (false, false, _, true) => Some(Form::World),
    })
}

//! Which features are on, said a second time and independently of the engine's settings.

use wasmparser::{Parser, Payload, Validator, WasmFeatures};

/// WebAssembly 2.0 without external references, constant expressions that add and multiply, and typed function references.
pub(crate) const ON: WasmFeatures = WasmFeatures::MUTABLE_GLOBAL
    .union(WasmFeatures::SATURATING_FLOAT_TO_INT)
    .union(WasmFeatures::SIGN_EXTENSION)
    .union(WasmFeatures::REFERENCE_TYPES)
    .union(WasmFeatures::CALL_INDIRECT_OVERLONG)
    .union(WasmFeatures::MULTI_VALUE)
    .union(WasmFeatures::BULK_MEMORY)
    .union(WasmFeatures::BULK_MEMORY_OPT)
    .union(WasmFeatures::SIMD)
    .union(WasmFeatures::FLOATS)
    .union(WasmFeatures::EXTENDED_CONST)
    // References to functions with their types: on, and not to be switched off, in a build without a collector.
    .union(WasmFeatures::FUNCTION_REFERENCES);

/// Whether the module is valid within [`ON`].
pub(crate) fn within(module: &[u8]) -> bool {
    Validator::new_with_features(ON).validate_all(module).is_ok()
}

/// Whether the module is valid if everything that the validator knows is on.
pub(crate) fn within_all(module: &[u8]) -> bool {
    Validator::new_with_features(WasmFeatures::all()).validate_all(module).is_ok()
}

/// Whether the module imports from another one than the suite's own.
pub(crate) fn imports_of_others(module: &[u8]) -> bool {
    Parser::new(0).parse_all(module).any(|payload| match payload {
        Ok(Payload::ImportSection(section)) => {
            section.into_imports().any(|import| import.is_ok_and(|import| import.module != "spectest"))
        }
        _ => false,
    })
}

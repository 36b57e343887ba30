//! What is looked at before a signature is made: a log entry is for ever, and one about bytes that no executor can load
//! helps nobody.

use std::path::Path;

use wasmparser::{Validator, WasmFeatures};

use crate::exit::{Exit, Failure, Outcome};

/// Refuses bytes that are no WebAssembly module or component, by every proposal that is known: which of them an executor
/// allows is its own decision.
///
/// # Errors
/// Exit code 2 with the code `malformed` and the place.
pub fn check(path: &Path, bytes: &[u8]) -> Outcome<()> {
    match Validator::new_with_features(WasmFeatures::all()).validate_all(bytes) {
        Ok(_) => Ok(()),
        Err(error) => Err(Failure::new(
            Exit::Usage,
            format!("{} is no WebAssembly module or component: {error}", path.display()),
        )
        .code("malformed")
        .hint("build it again; nothing was signed or recorded")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use super::*;

    #[test]
    fn what_no_executor_loads_is_refused_before_it_is_signed() {
        let path = Path::new("m.wasm");
        let module = wat::parse_str("(module (func (export \"run\") (result i32) i32.const 7))").unwrap();
        check(path, &module).unwrap();
        check(path, &wat::parse_str("(component)").unwrap()).unwrap();
        check(path, b"\0asm\x01\0\0\0").unwrap();
        // The third ends at a section's end: a parser alone would take it.
        for bad in [&b""[..], b"hello", &module[..module.len() - 7], &module[..module.len() - 1]] {
            let failure = check(path, bad).unwrap_err();
            assert_eq!((failure.exit, failure.code.as_deref()), (Exit::Usage, Some("malformed")));
            assert!(!failure.line().contains('\n'));
        }
    }
}

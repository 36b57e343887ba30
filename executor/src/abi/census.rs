//! Which host functions exist, and whether a module may have those it imports.

use wasmtime::{ExternType, Module, ValType};

use super::MODULE;
use super::linker::Interfaces;
use crate::admission::GrantSet;
use crate::runtime::PrepareError;

/// Group of functions that is granted or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Group {
    /// Input, output, log, metric, buffers: no authority, always there.
    Always,
    /// `request_capability` and `invoke_capability`: there when policy granted anything that is used by handle.
    Capability,
    /// Media storage: there with `extension:media`.
    Media,
    /// Streams: there with `extension:stream`.
    Stream,
}

/// A value type as the ABI uses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Value {
    F64,
    I32,
    I64,
}

/// One host function.
pub(crate) struct HostFunction {
    pub(crate) name: &'static str,
    pub(crate) params: &'static [Value],
    pub(crate) results: &'static [Value],
    pub(crate) group: Group,
}

/// Every host function of ABI version 1. A test compares it with what is linked.
pub(crate) const FUNCTIONS: &[HostFunction] = {
    use Group::{Always, Capability, Media, Stream};
    use Value::{F64, I32, I64};
    const fn host(
        name: &'static str,
        params: &'static [Value],
        results: &'static [Value],
        group: Group,
    ) -> HostFunction {
        HostFunction { name, params, results, group }
    }
    &[
        host("buffer_len", &[I32], &[I64], Always),
        host("buffer_read", &[I32, I32, I32, I64], &[I32], Always),
        host("close", &[I32], &[I32], Always),
        host("download_media", &[I32, I32], &[I32], Media),
        host("end_stream", &[I32], &[I32], Stream),
        host("input_len", &[], &[I64], Always),
        host("invoke_capability", &[I32, I32, I32, I32, I32], &[I32], Capability),
        host("log", &[I32, I32, I32], &[], Always),
        host("read_input", &[I32, I32, I32], &[I32], Always),
        host("record_metric", &[I32, I32, F64], &[I32], Always),
        host("request_capability", &[I32, I32], &[I32], Capability),
        host("start_stream", &[I32, I32], &[I32], Stream),
        host("upload_media", &[I32, I32, I32, I32], &[I32], Media),
        host("write_output", &[I32, I32], &[I32], Always),
        host("write_stream", &[I32, I32, I32], &[I32], Stream),
    ]
};

/// Compares a module's imports with its grants; returns the interfaces to link.
pub(crate) fn check_imports(module: &Module, grants: &GrantSet) -> Result<Interfaces, PrepareError> {
    let granted = Interfaces::granted_by(grants);
    for import in module.imports() {
        let name = || format!("{}.{}", import.module(), import.name());
        let known = (import.module() == MODULE)
            .then(|| FUNCTIONS.iter().find(|function| function.name == import.name()))
            .flatten();
        let Some(function) = known else {
            return Err(PrepareError::ImportNotGranted { name: name() });
        };
        if !has_type(&import.ty(), function) {
            return Err(PrepareError::AbiSignatureMismatch { name: name(), hint: hint(function) });
        }
        if !granted.allows(function.group) {
            return Err(PrepareError::ImportNotGranted { name: name() });
        }
    }
    Ok(granted)
}

fn has_type(ty: &ExternType, function: &HostFunction) -> bool {
    let ExternType::Func(ty) = ty else { return false };
    let equal = |actual: &mut dyn Iterator<Item = ValType>, expected: &[Value]| {
        let actual: Vec<Option<Value>> = actual.map(|ty| value(&ty)).collect();
        actual.len() == expected.len() && actual.iter().zip(expected).all(|(a, e)| *a == Some(*e))
    };
    equal(&mut ty.params(), function.params) && equal(&mut ty.results(), function.results)
}

pub(crate) fn value(ty: &ValType) -> Option<Value> {
    match ty {
        ValType::F64 => Some(Value::F64),
        ValType::I32 => Some(Value::I32),
        ValType::I64 => Some(Value::I64),
        _ => None,
    }
}

fn hint(function: &HostFunction) -> String {
    let list = |types: &[Value]| {
        let names: Vec<&str> = types
            .iter()
            .map(|ty| match ty {
                Value::F64 => "f64",
                Value::I32 => "i32",
                Value::I64 => "i64",
            })
            .collect();
        names.join(", ")
    };
    format!(
        "expected ({}) -> ({}); modules built for MentatLab v1.0 let the host choose the address and must be \
         rebuilt with the current SDK",
        list(function.params),
        list(function.results)
    )
}

//! What the engine reports, and names of traps.

use wasmtime::Trap;

use super::call_error::CallError;
use super::state::Stop;

/// Names of traps: part of the answers to callers, so they are ours and do not change with a library's wording.
const TRAPS: &[(Trap, &str)] = &[
    (Trap::StackOverflow, "stack overflow"),
    (Trap::MemoryOutOfBounds, "memory access out of bounds"),
    (Trap::HeapMisaligned, "misaligned memory access"),
    (Trap::TableOutOfBounds, "table access out of bounds"),
    (Trap::IndirectCallToNull, "call of an empty table element"),
    (Trap::BadSignature, "indirect call with another signature"),
    (Trap::IntegerOverflow, "integer overflow"),
    (Trap::IntegerDivisionByZero, "division by zero"),
    (Trap::BadConversionToInteger, "conversion of a float outside the integer range"),
    (Trap::UnreachableCodeReached, "unreachable"),
    (Trap::OutOfFuel, "out of fuel"),
    (Trap::AllocationTooLarge, "allocation too large"),
];

/// Every other one.
const SOME_TRAP: &str = "trap";

/// Sorts what the engine reports by type, never by text.
pub(super) fn classify(error: &wasmtime::Error) -> CallError {
    if let Some(stop) = error.downcast_ref::<Stop>() {
        return CallError::Stopped(*stop);
    }
    if let Some(trap) = error.downcast_ref::<Trap>() {
        return match trap {
            Trap::OutOfFuel => CallError::Stopped(Stop::CpuBudget),
            other => CallError::Trapped { trap: trap_name(*other) },
        };
    }
    if error.is::<wasmtime::PoolConcurrencyLimitError>() {
        return CallError::Pool { detail: format!("{error:#}") };
    }
    CallError::Host { detail: format!("{error:#}") }
}

/// The name of a trap.
fn trap_name(trap: Trap) -> &'static str {
    TRAPS.iter().find(|(known, _)| *known == trap).map_or(SOME_TRAP, |(_, name)| name)
}

/// The name of a trap that something else reports.
pub(crate) fn trap_named(name: &str) -> &'static str {
    TRAPS.iter().find(|(_, known)| *known == name).map_or(SOME_TRAP, |(_, name)| name)
}

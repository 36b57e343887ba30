//! Names of traps.

use wasmtime::Trap;

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

/// The name of a trap.
pub(super) fn trap_name(trap: Trap) -> &'static str {
    TRAPS.iter().find(|(known, _)| *known == trap).map_or(SOME_TRAP, |(_, name)| name)
}

/// The name of a trap that something else reports.
pub(crate) fn trap_named(name: &str) -> &'static str {
    TRAPS.iter().find(|(_, known)| *known == name).map_or(SOME_TRAP, |(_, name)| name)
}

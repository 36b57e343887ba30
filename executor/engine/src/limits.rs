//! Ceilings that no configuration raises. Operators and manifests only lower them.

/// Largest module accepted at any door, bytes (64 MiB). A component made from Python is about 18 MB.
pub const MAX_MODULE_BYTES: usize = 64 << 20;

/// Largest machine-code artifact taken from the worker or from the cache, bytes (256 MiB).
pub const MAX_ARTIFACT_BYTES: usize = 256 << 20;

/// Largest transfer in one host call, bytes (8 MiB).
pub const MAX_TRANSFER_BYTES: usize = 8 << 20;

/// Processor time of one compile worker, seconds.
pub const COMPILE_CPU_SECONDS: u64 = 60;

/// Address space of one compile worker, bytes (2 GiB). Nothing is pooled there, so the ordinary limit works.
pub const COMPILE_ADDRESS_SPACE: u64 = 2 << 30;

/// The same in the profile `large`. A component made from Python takes 20 s of an ordinary processor with nothing but its standard
/// library.
pub const LARGE_COMPILE_CPU_SECONDS: u64 = 4 * COMPILE_CPU_SECONDS;

/// The same in the profile `large` (4 GiB).
pub const LARGE_COMPILE_ADDRESS_SPACE: u64 = 2 * COMPILE_ADDRESS_SPACE;

/// Calls of guests that run at the same time: each has a thread of its own.
pub const MAX_RUNNING: u32 = 512;

/// Length of the epoch tick, milliseconds. A guest notices a kill within two.
pub const EPOCH_TICK_MILLIS: u64 = 10;

/// Largest memory one guest may ever own, bytes (512 MiB, the ceiling the manifests promise).
pub const MAX_GUEST_MEMORY: usize = 512 << 20;

/// The same in the profile `large`: half of what a 32-bit guest can address (2 GiB).
pub const MAX_LARGE_GUEST_MEMORY: usize = 2 << 30;

/// Size of a WebAssembly page, bytes.
pub const WASM_PAGE: usize = 64 << 10;

//! What the executor and its compile worker must agree on, and nothing else.
//!
//! Machine code made under one set of engine settings is refused, or worse, misread, under another. Both
//! binaries therefore take their settings from [`engine_config`], name them by [`ProfileId`], talk over the
//! byte formats of [`job`] and store results in the record format of [`artifact`].
//!
//! In scope: engine settings, pool settings, ceilings, the worker's wire format, the cache record's format, the layers by which
//! the processes of both kinds are confined.
//! Out of scope: compiling (only `executor-compiler` enables the code generator), keys (the executor computes
//! and checks the authentication tag that a record carries), files, starting processes, HTTP.

#![forbid(unsafe_code)]

pub mod artifact;
pub mod confinement;
mod cpu;
mod digest;
mod fields;
pub mod frames;
pub mod job;
pub mod limits;
pub mod pool;
mod profile;

pub use cpu::host_features;
pub use digest::ModuleDigest;
pub use fields::FormatError;
pub use profile::{Profile, ProfileId, WASMTIME_VERSION, engine_config};

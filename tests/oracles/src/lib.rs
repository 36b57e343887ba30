//! Other people's implementations as judges of ours: see `tests/`.
#![forbid(unsafe_code)]

pub mod exceptions;
pub mod sigstore;

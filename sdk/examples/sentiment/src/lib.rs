//! The sentiment analyser as a guest of the executor, without the standard library.
//!
//! README.md describes the algorithm. [`analysis`] is pure and tested natively; `guest` holds the few lines that
//! speak the `mentat` interface and exists only in WebAssembly builds.
//!
//! ```text
//! cargo build --release --target wasm32-unknown-unknown
//! cargo test                                               # native
//! ```
#![cfg_attr(target_arch = "wasm32", no_std)]

pub mod analysis;
#[cfg(target_arch = "wasm32")]
mod guest;

//! From an admitted module's bytes to code that can be instantiated.
//!
//! Order: look up the cache → otherwise compile in the confined worker, authenticate, store → seal, check, map.
//! What comes from the worker takes the same way through a sealed file as what comes from disk.

mod cache;
mod compile_queue;
mod flights;
mod key;
#[cfg(test)]
mod large_tests;
mod refusals;
#[cfg(test)]
mod tests;
mod worker;

pub use cache::{ArtifactCache, CacheEvent, LoadError};
pub use key::KeyError;
pub use worker::{Worker, WorkerError};

use std::sync::Arc;

use wasmtime::Module;
use wasmtime::component::Component;

use crate::artifact_map::Sealed;

/// Loaded code.
#[derive(Clone)]
pub(crate) enum Loaded {
    /// A component.
    Component(Component),
    /// A core module.
    Core(Module),
    /// Authentic machine code that a worker maps, and this process does not.
    Sealed(Arc<Sealed>),
}

//! Agents for the Mentat executor: a core module over the `mentat` interface, version 1.
//!
//! ```
//! use mentat_sdk::{Context, Input, Output, Result, mentat_agent};
//!
//! #[mentat_agent]
//! fn greet(context: &Context, input: Input) -> Result<Output> {
//!     let name: String = input.get("name")?;
//!     context.info("greeting");
//!     Ok(Output::new().add("greeting", format!("hello, {name}")))
//! }
//!
//! // The same function natively, on a host that is no executor.
//! let done = mentat_sdk::fake::Host::new().input(r#"{"name":"Ada"}"#).call(greet);
//! assert_eq!(done.text(), r#"{"greeting":"hello, Ada"}"#);
//! ```
//!
//! In scope: input and output (bytes to the host, JSON objects by convention), log, metrics, capabilities, media, streams,
//! and a [`fake`] host for native tests. Out of scope: what was not granted. A function of the interface that an agent does
//! not use is not imported, and one that the manifest was not granted makes the executor refuse the module at load.
//!
//! The crate needs no standard library. Agents without one take the feature `runtime`, the others may take `std`.
#![no_std]
#![deny(unsafe_code)]

extern crate alloc;
#[cfg(any(feature = "std", not(target_arch = "wasm32")))]
extern crate std;

#[cfg(target_arch = "wasm32")]
mod abi;
mod agent;
#[cfg(any(test, all(target_arch = "wasm32", feature = "runtime")))]
mod bump;
mod capability;
mod context;
mod error;
#[cfg(not(target_arch = "wasm32"))]
pub mod fake;
mod host;
mod input;
pub mod json;
mod media;
mod output;
#[cfg(all(target_arch = "wasm32", feature = "runtime"))]
mod runtime;
mod stream;

pub use agent::{Agent, run, run_function};
pub use capability::Capability;
pub use context::{Context, Level};
pub use error::{Error, HostError, Result};
pub use input::Input;
pub use json::{FromValue, Value};
pub use media::Media;
pub use mentat_sdk_macros::mentat_agent;
pub use output::Output;
pub use stream::Stream;

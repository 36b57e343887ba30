//! The executor: runs nothing that was not vouched for.
//!
//! | module | what it does |
//! |---|---|
//! | [`admission`] | the only door: from bytes and evidence to an `AdmittedModule`, or a denial with its reason |
//! | [`evidence`] | keeps revocation lists and checkpoints fresh in the background and remembers what it saw |
//! | [`artifact`] | machine code: the confined compile worker and the authenticated cache |
//! | [`runtime`] | wasmtime with a pool, epochs and limits; one fresh instance for each call |
//! | [`abi`] | the `mentat` functions of core modules |
//! | [`egress`] | requests of guests to other hosts |
//! | [`extensions`] | what an operator adds, granted as `extension:NAME` |
//! | [`audit`] | the hash-chained audit log |
//! | [`confinement`] | what the operating system takes away from this process |
//! | [`containers`] | the seam for a container engine, of which there is none |
//! | [`worker`] | processes for modules of signers that are not trusted |
//! | [`process`] | the life of the server process |
//! | [`api`] | HTTP and gRPC |
//! | [`features`] | what a build may leave out |
//! | [`config`] | configuration: raw as written, validated as used |
//!
//! Verification itself lives in `trust-store`; compiling lives in `executor-compiler`. This crate has no code that
//! runs a module whose chain, revocation status or log inclusion was not verified, and no switch for it.

#![deny(unsafe_code)]

pub mod abi;
pub mod admission;
mod agents;
pub mod api;
pub mod artifact;
mod artifact_map;
pub mod audit;
mod callers;
mod clock;
mod component;
pub mod config;
pub mod confinement;
pub mod containers;
pub mod danger;
#[cfg_attr(not(feature = "deployments"), path = "deployments/absent.rs")]
mod deployments;
pub mod egress;
pub mod evidence;
pub mod executor;
mod exposed;
pub mod extensions;
pub mod features;
mod gauges;
mod grace;
mod holds;
mod idempotency;
mod kept_streams;
mod mappings;
#[cfg_attr(not(feature = "media"), path = "media/absent.rs")]
mod media;
mod metrics;
pub mod process;
mod queue;
pub mod receipts;
mod recent;
mod records;
mod refusing;
pub mod runtime;
mod signatures;
#[cfg(test)]
#[path = "../../tests/src/skip.rs"]
mod skip;
pub mod start;
mod state_folder;
mod stream_window;
mod streams;
mod submissions;
mod telemetry;
#[cfg(test)]
mod testing;
mod unread_results;
mod waiting;
pub mod worker;

pub use callers::Caller;
pub use idempotency::AnswerLimits;
pub use media::{MediaLimits, MediaStore};
pub use metrics::{Metrics, MetricsSettings};
pub use refusing::Unavailable;
pub use streams::StreamEvent;
pub use telemetry::{TraceParent, Tracer};

//! The harness of the integration suites: finds the built servers, starts them on free loopback ports, waits for their
//! readiness line, kills them when dropped, and knows the stack that `mentatctl up` writes down.
//!
//! In scope: processes, folders, ports. Out of scope: anything a product crate decides.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "test harness: a failure must stop with the place it happened"
)]

pub mod agent;
pub mod approver;
pub mod binary;
pub mod clock;
pub mod command;
pub mod files;
pub mod lying_proxy;
pub mod moto;
pub mod receiver;
pub mod registry;
pub mod server;
pub mod skip;
pub mod stack;
pub mod vectors;

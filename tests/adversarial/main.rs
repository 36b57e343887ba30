//! Hostile and broken input against the real processes. Each forged or missing item alone is denied with its own code
//! (the step-by-step mutation form lives in `trust-store`, next to the verifier: a build with one step switched off makes
//! exactly that step's test fail); bad input gives one clear line, a documented exit code and no panic.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests: a failure must stop with the place it happened"
)]

mod bad_input;
mod commands;
mod forged;
mod http;
mod names;
mod output;

//! The suites of the verifier in one program: each file is one suite, and they share what they stand on.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod chains;
mod conformance_door;
mod conformance_examples;
mod fixture;
mod forge;
mod fuzz_seeds;
mod generated;
mod hostile;
mod hostile_input;
mod log_order;
mod merkle;
mod path;
mod pkits;
#[path = "../../tests/fuzz/properties/trust_store.rs"]
mod properties;
#[path = "../../tests/fuzz/replay.rs"]
mod replay;
mod revocation;
mod sigstore;
mod timestamp_authority;
mod vectors;
mod verification;
mod wycheproof;

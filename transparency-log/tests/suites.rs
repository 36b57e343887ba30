//! The suites of the log's server in one program: each file is one suite, and they share what they stand on.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod backup;
mod commands;
mod crash;
mod endpoints;
mod events;
mod lookup;
mod rekor;
mod repair;
mod rotation;
mod server;
mod unread;
mod witness;
mod witness_tls;

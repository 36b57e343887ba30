//! The suites of what every server has in common, in one program: each file is one suite.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod answers;
mod bodies;
mod documents;
mod grpc;
mod harness;
mod holders;
mod limits;
mod mutual_tls;
mod shutdown;

//! Whole journeys on real processes: a developer, CI, an executor's operator, an auditor, and the split form over TLS.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests: a failure must stop with the place it happened"
)]

mod air_gapped;
mod approval;
mod audit_report;
mod auditor;
mod bundle;
mod ca_check;
mod ci;
mod commands;
mod deployment;
mod developer;
mod enrolment;
mod evidence;
mod executor;
mod incident;
mod keyless;
mod lint;
mod log_copy;
mod monitor;
mod operator;
mod own;
mod pending;
mod pipeline;
mod policy;
mod publishers;
mod recipes;
mod registry;
mod rotation;
mod rules;
mod search;
mod split;
mod tiers;
mod trust;

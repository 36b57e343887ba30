//! The suites of the authority in one program: each file is one suite, and they share what they stand on.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod approval_faults;
mod approval_people;
mod approval_policy;
mod approvals;
mod authority_keys;
mod backup;
mod ceremony;
mod check_logs;
mod check_records;
mod compromise;
mod compromised_keys;
mod delta;
mod expiry_warnings;
mod explain;
mod faults;
mod fixture;
mod fulcio;
mod identity_tokens;
mod journey;
mod keys;
mod mass_revocation;
mod mutual_tls;
mod ocsp_answers;
mod openapi;
mod operations;
mod outside;
mod own;
mod own_renewal;
mod presigned;
mod problem_reports;
mod refusals;
mod renewal_ends;
mod revocation;
mod revocation_faults;
mod roles;
mod rotation;
mod rsa_hierarchy;
mod search;
mod service_records;
mod serving;
mod signing;
#[path = "../../tests/src/skip.rs"]
mod skip;
mod succession;
mod timestamps;

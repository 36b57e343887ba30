//! Other people's programs judge what this authority and its logs make. Each missing program is named and counted as skipped.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "tests: a failure must stop with the place it happened"
)]

mod browser;
mod ca_page;
mod ceremony;
mod conformance_suite;
mod elsewhere;
mod executor_page;
mod gnutls;
mod java;
mod key_service;
mod log_page;
mod openssl;
mod python;
mod registry;
mod revoked;
mod revoked_issuer;
mod stock;
mod tiles;
mod token;

use std::process::Command;

/// Whether a program is installed; says loudly when it is not.
fn have(program: &str, package: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    if !found {
        mentat_tests::skip::skipped(format_args!(
            "{program} is not installed (Debian: apt-get install {package})"
        ));
    }
    found
}

/// Runs a program and returns whether it succeeded, with everything it said.
fn run(program: &str, args: &[&str]) -> (bool, String) {
    let output = Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.success(), said)
}

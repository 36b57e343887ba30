//! What a suite could not show on this machine: said past the test harness, which keeps what a passing test prints to
//! itself, and collected for the last lines of `make test`. Crates below `mentat-tests` include this file by its path.

#![allow(unreachable_pub, reason = "a module of several crates, of which one exports it")]

use std::fmt::Display;
use std::io::Write as _;

/// Says that a part was skipped and why. A line that cannot be written is not worth a failure.
pub fn skipped(why: impl Display) {
    let line = format!("SKIPPED: {why}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
    if let Some(list) = std::env::var_os("MENTAT_SKIPPED") {
        let list = std::fs::OpenOptions::new().create(true).append(true).open(list);
        let _ = list.and_then(|mut file| file.write_all(line.as_bytes()));
    }
}

//! Compile workers that do something else than compile, and modules that cost them more than they have.

use std::path::Path;

use super::worker_binary;

/// Where a state folder has it.
pub(super) const COMPILER: &str = "compiler";

/// Makes the compile worker of a state folder a program that notes its start and then does this; `$WORKER` is the real one.
pub(crate) fn put_compiler(state: &Path, does: &str) {
    let (worker, starts) = (worker_binary(), state.join("starts"));
    let (worker, starts) = (worker.display(), starts.display());
    let text = format!("#!/bin/sh\nWORKER='{worker}'\necho started >> '{starts}'\n{does}\n");
    // By another process: a file that this one has open for writing cannot be run by a thread that forks meanwhile.
    let written = std::process::Command::new("sh")
        .args(["-c", "printf '%s' \"$1\" > \"$2\" && chmod 755 \"$2\"", "sh", &text])
        .arg(state.join(COMPILER))
        .status();
    assert!(written.expect("sh").success());
}

/// How often that one was started.
pub(crate) fn compiler_starts(state: &Path) -> usize {
    std::fs::read_to_string(state.join("starts")).map_or(0, |text| text.lines().count())
}

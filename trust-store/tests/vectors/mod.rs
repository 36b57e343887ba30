//! Finds the third-party test vectors; says loudly when they are absent, fails under CI.

use std::path::PathBuf;

#[path = "../../../tests/src/skip.rs"]
mod skip;

/// The folder of a vector set, or `None` (after a message) if the vectors are not there.
pub(crate) fn folder(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("MENTAT_VECTORS").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors"),
        PathBuf::from,
    );
    let folder = root.join(name);
    if folder.is_dir() {
        return Some(folder);
    }
    assert!(
        std::env::var_os("CI").is_none_or(|ci| ci != "true"),
        "test vectors are missing: {}",
        folder.display()
    );
    skip::skipped(format_args!("test vectors are missing: {} (set MENTAT_VECTORS)", folder.display()));
    None
}

//! Where the built executables are: beside the test executable, in the same profile's folder.

use std::path::PathBuf;

/// The path of a workspace binary.
///
/// # Panics
///
/// When it has not been built, with the command that builds it.
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the path of this test");
    // target/PROFILE/deps/TEST → target/PROFILE/NAME
    let folder = test.parent().and_then(|deps| deps.parent()).expect("target/PROFILE/deps");
    let path = folder.join(name);
    assert!(
        path.is_file(),
        "{} is missing: run `make build` first (integration tests start the real servers)",
        path.display()
    );
    path
}

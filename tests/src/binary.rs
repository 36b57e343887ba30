//! Where the built executables are: beside the test executable, in the same profile's folder.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;

/// The path of a workspace binary.
///
/// # Panics
///
/// When it has not been built, or the executor was built without its features, with the command that builds it.
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
    if name == "executor" {
        static ASKED: Once = Once::new();
        ASKED.call_once(|| demand_every_feature(&path));
    }
    path
}

/// The suites try everything; an executor that leaves some of it out would fail them in places that do not say why.
fn demand_every_feature(executor: &Path) {
    let output = Command::new(executor).arg("--version").output().expect("the executor's version");
    let version = String::from_utf8_lossy(&output.stdout);
    let named = version.trim_end().rsplit_once("(features: ").map(|(_, rest)| rest.trim_end_matches(')'));
    let built: Vec<&str> = named.unwrap_or_default().split(", ").collect();
    for feature in ["cedar", "deployments", "media", "media-s3", "pipelines", "telemetry"] {
        assert!(
            built.contains(&feature),
            "{} is {}: run `make build`, which gives cargo `--features executor-server/full`",
            executor.display(),
            version.trim_end()
        );
    }
}

//! The pure crates need no operating system: their source says `no_std`, and no dependency brings `std` back.

use std::process::Command;

/// Everything that `package` depends on without its default features, with the features that are switched on.
fn dependencies(package: &str, features: &str) -> Vec<(String, String)> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(super::root())
        .args(["tree", "--locked", "--package", package, "--no-default-features", "--features", features])
        // A platform without an operating system, so that nothing is there only for this one.
        .args(["--edges", "normal,no-proc-macro", "--target", "wasm32-unknown-unknown"])
        .args(["--prefix", "none", "--format", "{p}|{f}"])
        .output()
        .expect("cargo tree");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    text.lines()
        .filter_map(|line| line.trim_end_matches(" (*)").split_once('|'))
        .map(|(package, features)| (package.to_owned(), features.to_owned()))
        .collect()
}

#[test]
fn no_dependency_of_the_pure_crates_brings_std() {
    for (package, features) in [("tlog", ""), ("trust-store", ""), ("trust-store", "rustcrypto")] {
        let all = dependencies(package, features);
        assert!(all.len() > 3, "{package} has dependencies");
        for (dependency, enabled) in all {
            let std = enabled.split(',').find(|feature| matches!(*feature, "std" | "getrandom" | "os_rng"));
            assert_eq!(std, None, "{package} [{features}]: {dependency}");
        }
    }
}

#[test]
fn the_pure_crates_say_that_they_need_none() {
    for path in ["transparency-log/tlog/src/lib.rs", "trust-store/src/lib.rs"] {
        let text = std::fs::read_to_string(super::root().join(path)).expect("readable");
        assert!(
            text.lines().any(|line| matches!(line, "#![no_std]" | "#![cfg_attr(not(test), no_std)]")),
            "{path}"
        );
    }
}

//! The SDKs' own tests, on their fake hosts.

use std::process::Command;

use crate::sdk_folder;
use crate::toolchain::{Toolchain, make};

#[test]
fn the_rust_sdk_holds_its_own_tests() {
    for folder in ["rust", "examples/sentiment", "examples/code-reviewer"] {
        let done = Command::new(env!("CARGO"))
            .args(["test", "--workspace"])
            .current_dir(sdk_folder(folder))
            .env_remove("CARGO_TARGET_DIR")
            .output()
            .unwrap();
        assert!(done.status.success(), "{folder}:\n{}", String::from_utf8_lossy(&done.stdout));
    }
}

#[test]
fn the_assemblyscript_sdk_holds_its_own_tests() {
    if Toolchain::AssemblyScript.is_here("the tests of the AssemblyScript SDK") {
        make(&sdk_folder("assemblyscript"), &["test"]);
    }
}

#[test]
fn the_go_sdk_holds_its_own_tests() {
    if Toolchain::Go.is_here("the tests of the Go SDK") {
        let done = Command::new("go").args(["test", "./..."]).current_dir(sdk_folder("go")).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
    }
}

#[test]
fn the_c_sdk_holds_its_own_tests() {
    make(&sdk_folder("c"), &["test"]);
}

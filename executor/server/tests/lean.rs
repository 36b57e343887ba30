//! The executor holds no compiler: that is what "lean" means.
#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

use std::process::Command;

#[test]
fn the_code_generator_is_not_in_the_dependency_tree() {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--locked", "-p", "executor-server", "-e", "normal", "--prefix", "none"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo tree");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8_lossy(&output.stdout);
    assert!(tree.contains("wasmtime v48."), "{tree}");
    for package in
        ["cranelift-codegen ", "wasmtime-internal-cranelift ", "wasmtime-internal-winch ", "wat ", "openssl "]
    {
        let found = tree.lines().find(|line| line.starts_with(package));
        assert_eq!(found, None, "the executor must not contain {package}");
    }
}

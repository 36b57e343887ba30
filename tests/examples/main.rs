//! The guest examples of `sdk/examples` and the templates of `mentatctl new`: built, tested on their SDK's fake host, signed,
//! admitted and run by a real stack. What cannot be built for want of a toolchain is skipped loudly.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "tests: a failure must stop with the place it happened"
)]

mod assemblyscript;
mod c;
mod cases;
mod component;
mod go;
mod large;
mod reviewer;
mod sdk;
mod sentiment;
mod template;
mod text;
mod toolchain;

use std::path::{Path, PathBuf};

use mentat_tests::agent::enrol;
use mentat_tests::command::Finished;
use mentat_tests::stack::Stack;

/// A folder of `sdk/`.
fn sdk_folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("sdk").join(name)
}

/// A stack, and a developer with a certificate.
fn stack(parent: &Path) -> Stack {
    let stack = Stack::up(&parent.join("stack"));
    enrol(&stack, "dev@example.com", "signing");
    stack
}

/// Copies manifest and module of an example that was built to a folder of its own, and checks the module's size.
fn release(parent: &Path, example: &str, largest: u64) -> PathBuf {
    let (from, to) = (sdk_folder("examples").join(example), parent.join(example));
    std::fs::create_dir_all(&to).unwrap();
    let module = format!("{example}.wasm");
    for file in ["manifest.yaml", &module] {
        std::fs::copy(from.join(file), to.join(file)).unwrap();
    }
    let size = std::fs::metadata(to.join(&module)).unwrap().len();
    eprintln!("{module}: {size} bytes");
    assert!(size <= largest, "{module} has {size} bytes, and {largest} are allowed");
    to
}

/// Signs a release, verifies it, and runs it on an input: what `mentatctl run --json` says.
#[track_caller]
fn signed_and_run(stack: &Stack, release: &Path, input: &Path) -> serde_json::Value {
    let folder = release.to_str().unwrap();
    stack.ctl(&["audit-capabilities", folder]).success();
    stack.ctl(&["sign", folder]).success();
    stack.ctl(&["verify", folder]).success();
    ran(stack, folder, input).success().json()
}

fn ran(stack: &Stack, agent: &str, input: &Path) -> Finished {
    stack.ctl(&["--json", "run", agent, "--input", input.to_str().unwrap()])
}

/// The names of the metrics of a call.
fn metrics(done: &serde_json::Value) -> Vec<&str> {
    done["metrics"].as_array().unwrap().iter().map(|metric| metric["name"].as_str().unwrap()).collect()
}

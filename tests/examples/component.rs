//! The line sorter: a component in Rust over `wit-bindgen`, signed as the core module that the compiler makes.

use crate::toolchain::{Toolchain, make};
use crate::{metrics, ran, release, sdk_folder, signed_and_run, stack};

/// Bytes, with the world that is written into it.
const LARGEST: u64 = 100_000;

#[test]
fn the_line_sorter_is_built_made_a_component_and_run() {
    if !Toolchain::Rust.is_here("the line sorter, a component") {
        return;
    }
    let example = sdk_folder("examples/line-sorter");
    make(&example, &["all", "test"]);
    let dir = tempfile::tempdir().unwrap();
    let stack = stack(dir.path());
    let folder = release(dir.path(), "line-sorter", LARGEST);
    let done = signed_and_run(&stack, &folder, &example.join("case.input.txt"));
    let expected = std::fs::read_to_string(example.join("case.output.txt")).unwrap();
    assert_eq!(done["text"], expected);
    assert_eq!(metrics(&done), ["lines"]);
    assert_eq!((&done["log"][0]["level"], &done["log"][0]["text"]), (&"info".into(), &"sorted".into()));
    let input = dir.path().join("input");
    std::fs::write(&input, [0xc0, 0xa2]).unwrap();
    ran(&stack, folder.to_str().unwrap(), &input).refused(1, "it is no UTF-8");
}

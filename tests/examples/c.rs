//! The word count, in C.

use crate::toolchain::{Toolchain, make};
use crate::{metrics, release, sdk_folder, signed_and_run, stack};

/// Bytes: no library comes along.
const LARGEST: u64 = 4_000;

#[test]
fn the_word_count_is_built_admitted_and_run() {
    if !Toolchain::C.is_here("the word count") {
        return;
    }
    let example = sdk_folder("examples/word-count");
    make(&example, &["all", "test"]);
    let dir = tempfile::tempdir().unwrap();
    let stack = stack(dir.path());
    let folder = release(dir.path(), "word-count", LARGEST);
    let done = signed_and_run(&stack, &folder, &example.join("case.input.txt"));
    let expected = std::fs::read_to_string(example.join("case.output.json")).unwrap();
    assert_eq!(done["text"], expected.trim_end());
    assert_eq!(metrics(&done), ["words"]);
}

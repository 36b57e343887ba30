//! The JSON transformer, in AssemblyScript.

use crate::toolchain::{Toolchain, make};
use crate::{metrics, ran, release, sdk_folder, signed_and_run, stack};

/// Bytes; the aim of the SDK.
const LARGEST: u64 = 50_000;

#[test]
fn the_json_transformer_is_built_admitted_and_run() {
    if !Toolchain::AssemblyScript.is_here("the JSON transformer") {
        return;
    }
    let example = sdk_folder("examples/json-transformer");
    make(&example, &["all", "test"]);
    let dir = tempfile::tempdir().unwrap();
    let stack = stack(dir.path());
    let folder = release(dir.path(), "json-transformer", LARGEST);
    let done = signed_and_run(&stack, &folder, &example.join("case.input.json"));
    let expected = std::fs::read_to_string(example.join("case.output.json")).unwrap();
    assert_eq!(done["text"], expected.trim_end());
    assert_eq!(metrics(&done), ["steps"]);
    // What is not what it takes: the SDK's exit code, and a line that says what.
    let input = dir.path().join("input");
    std::fs::write(&input, "{}").unwrap();
    let refused = ran(&stack, "mentatlab.json-transformer", &input);
    refused.refused(1, "there is no member `data`");
}

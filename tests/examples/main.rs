//! Every guest example of `sdk/examples`: signed, admitted and run by a real stack. An example whose module can neither be
//! assembled from text nor built with an installed toolchain is skipped loudly.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "tests: a failure must stop with the place it happened"
)]

mod sentiment;

use std::path::Path;

use mentat_tests::agent::enrol;
use mentat_tests::stack::Stack;

#[test]
fn every_example_is_admitted_and_runs() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("sdk/examples");
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::up(&dir.path().join("stack"));
    enrol(&stack, "dev@example.com", "signing");
    let mut ran = 0;
    for example in std::fs::read_dir(&examples).unwrap().flatten().filter(|entry| entry.path().is_dir()) {
        let name = example.file_name().to_string_lossy().into_owned();
        let folder = dir.path().join(&name);
        std::fs::create_dir_all(&folder).unwrap();
        for file in
            std::fs::read_dir(example.path()).unwrap().flatten().filter(|entry| entry.path().is_file())
        {
            std::fs::copy(file.path(), folder.join(file.file_name())).unwrap();
        }
        let has_module = std::fs::read_dir(&folder)
            .unwrap()
            .flatten()
            .any(|file| file.path().extension().is_some_and(|e| e == "wat" || e == "wasm"));
        if !has_module {
            mentat_tests::skip::skipped(format_args!(
                "sdk/examples/{name} has no module in text form; build it with its SDK's toolchain first"
            ));
            continue;
        }
        let release = folder.to_str().unwrap();
        stack.ctl(&["sign", release]).success();
        stack.ctl(&["verify", release]).success();
        let input = dir.path().join("input");
        std::fs::write(&input, "A good example is a useful one.").unwrap();
        let done = stack.ctl(&["run", release, "--input", input.to_str().unwrap()]).success();
        eprintln!("{name}: {}", done.stdout.trim_end());
        ran += 1;
    }
    assert!(ran > 0, "no example ran");
}

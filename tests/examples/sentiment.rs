//! The sentiment analyser has three forms: Rust source, WebAssembly text (checked in, needs no toolchain), and the module
//! built from the source. All give the answers of `cases/`; the executor's own tests hold the text form to them as well.

use std::path::{Path, PathBuf};

use mentat_tests::agent::enrol;
use mentat_tests::stack::Stack;

use crate::toolchain::{Toolchain, make};

/// Bytes: an agent without the standard library.
const LARGEST: u64 = 30_000;

#[path = "../../sdk/examples/sentiment/src/analysis.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    reason = "a guest's source, under a guest's lints"
)]
mod analysis;

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("sdk/examples/sentiment")
}

/// Input and answer of every case.
fn cases() -> Vec<(PathBuf, String)> {
    let mut cases = Vec::new();
    for entry in std::fs::read_dir(example().join("cases")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "txt") {
            let answer = std::fs::read_to_string(path.with_extension("json")).unwrap();
            cases.push((path, answer.trim_end().to_owned()));
        }
    }
    assert!(cases.len() >= 6);
    cases
}

#[test]
fn the_source_gives_the_answers_natively() {
    for (path, answer) in cases() {
        let mut text = std::fs::read(&path).unwrap();
        let mut table = vec![analysis::Slot::FREE; analysis::SLOTS];
        let given = analysis::analyse(&mut text, &mut table);
        assert_eq!(std::str::from_utf8(given.as_bytes()).unwrap(), answer, "{}", path.display());
    }
}

#[test]
fn the_built_module_answers_as_the_text_form() {
    if !Toolchain::Rust.is_here("the built sentiment analyser, compared with its text form") {
        return;
    }
    make(&example(), &[]);
    let module = example().join("target/sentiment.wasm");
    let size = std::fs::metadata(&module).unwrap().len();
    eprintln!("sentiment.wasm: {size} bytes");
    assert!(size <= LARGEST, "sentiment.wasm has {size} bytes, and {LARGEST} are allowed");
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::up(&dir.path().join("stack"));
    enrol(&stack, "dev@example.com", "signing");
    let forms = ["text", "built"].map(|form| {
        let id = format!("mentatlab.{form}");
        let folder = mentat_tests::agent::sentiment(dir.path(), form, |manifest| {
            manifest.replace("mentatlab.sentiment", &id)
        });
        if form == "built" {
            std::fs::copy(&module, folder.join("sentiment.wasm")).unwrap();
        }
        stack.ctl(&["sign", folder.to_str().unwrap()]).success();
        stack.ctl(&["run", folder.to_str().unwrap()]).success();
        id
    });
    let readme = example().join("../../../README.md");
    let inputs = cases().into_iter().map(|(path, answer)| (path, Some(answer))).chain([(readme, None)]);
    for (path, answer) in inputs {
        let [text, built] = forms
            .each_ref()
            .map(|id| stack.ctl(&["run", id, "--input", path.to_str().unwrap()]).success().stdout);
        assert_eq!(text, built, "{}", path.display());
        assert!(answer.is_none_or(|answer| answer == text.trim_end()), "{}", path.display());
    }
}

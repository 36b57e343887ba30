//! The word count, in C; and a stack that grows too large, with every compiler that the SDK takes.

use std::fmt::Write as _;
use std::process::Command;

use crate::toolchain::{Toolchain, make};
use crate::{metrics, ran, release, sdk_folder, signed_and_run, stack};

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

/// Fills the stack a little further with each byte of its input, and tells whether its own data is as it was.
const DEEP: &str = r#"
#include "mentat.h"
static uint8_t kept[16384] = {1};
static int32_t deeper(volatile uint8_t *above, int64_t left) {
  volatile uint8_t here[1024];
  for (int at = 0; at < 1024; at++) here[at] = above[at & 7] | 0x55;
  if (left <= 1) return here[left & 7];
  int32_t below = deeper(here, left - 1);
  return below + (here[below & 1023] & 1);
}
MENTAT_AGENT int32_t process(void) {
  volatile uint8_t first[8] = {0};
  int32_t used = deeper(first, mentat_input_len());
  for (int at = 1; at < 16384; at++) if (kept[at] != 0) return mentat_write("overwritten", 11) + used;
  return mentat_write("kept", 4) < 0;
}
"#;

#[test]
fn a_stack_that_grows_too_large_ends_the_call_and_overwrites_nothing() {
    let compilers = ["clang-22", "clang-21", "clang-20", "clang-19"].into_iter().filter(|compiler| {
        // Each finds the linker of its own release.
        [(*compiler).to_owned(), compiler.replace("clang", "wasm-ld")].iter().all(|program| {
            Command::new(program).arg("--version").output().is_ok_and(|done| done.status.success())
        })
    });
    let compilers: Vec<&str> = compilers.collect();
    if !Toolchain::C.is_here("the stack of guests in C") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let stack = stack(dir.path());
    let sdk = sdk_folder("c");
    for compiler in compilers {
        let folder = dir.path().join(compiler);
        std::fs::create_dir_all(&folder).unwrap();
        let mut makefile = format!("include {}/guest.mk\nall:\n", sdk.display());
        writeln!(makefile, "\t$(call module,-I{} deep.c,deep.wasm)", sdk.display()).unwrap();
        let manifest = "runtime: wasm\nmodule: deep.wasm\nwasm:\n  memory:\n    maximum: 2\n";
        let manifest = format!("id: mentatlab.{compiler}\nversion: 1.0.0\n{manifest}");
        for (file, text) in [("Makefile", makefile.as_str()), ("deep.c", DEEP), ("manifest.yaml", &manifest)]
        {
            std::fs::write(folder.join(file), text).unwrap();
        }
        make(&folder, &["all", &format!("CLANG={compiler}")]);
        let input = dir.path().join("input");
        std::fs::write(&input, [0; 8]).unwrap();
        assert_eq!(signed_and_run(&stack, &folder, &input)["text"], "kept", "{compiler}");
        // Enough to write over the data, were it below the stack, and to leave it on the other side.
        std::fs::write(&input, [0; 70]).unwrap();
        ran(&stack, folder.to_str().unwrap(), &input).refused(1, "trap");
    }
}

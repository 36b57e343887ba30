//! Compile workers that do something else than compile, and modules that cost them more than they have.

use std::path::Path;

use super::worker_binary;

/// Where a state folder has it.
pub(super) const COMPILER: &str = "compiler";

/// Makes the compile worker of a state folder a program that notes its start and then does this; `$WORKER` is the real one.
pub(crate) fn put_compiler(state: &Path, does: &str) {
    let (worker, starts) = (worker_binary(), state.join("starts"));
    let (worker, starts) = (worker.display(), starts.display());
    let text = format!("#!/bin/sh\nWORKER='{worker}'\necho started >> '{starts}'\n{does}\n");
    // By another process: a file that this one has open for writing cannot be run by a thread that forks meanwhile.
    let written = std::process::Command::new("sh")
        .args(["-c", "printf '%s' \"$1\" > \"$2\" && chmod 755 \"$2\"", "sh", &text])
        .arg(state.join(COMPILER))
        .status();
    assert!(written.expect("sh").success());
}

/// How often that one was started.
pub(crate) fn compiler_starts(state: &Path) -> usize {
    std::fs::read_to_string(state.join("starts")).map_or(0, |text| text.lines().count())
}

/// What makes a compiler work for longer than it may, and for far longer than its smallest budget in these tests: millions of
/// branches that nothing folds, in functions of an ordinary size.
pub(crate) fn compile_bomb() -> Vec<u8> {
    fn number(mut value: usize, into: &mut Vec<u8>) {
        while value > 0x7f {
            into.push(value as u8 | 0x80);
            value >>= 7;
        }
        into.push(value as u8);
    }
    const FUNCTIONS: usize = 100;
    // (if (local.get 0) (then (local.set 0 (i32.mul (local.get 0) (local.get 0)))))
    let branch = [0x20, 0, 0x04, 0x40, 0x20, 0, 0x20, 0, 0x6c, 0x21, 0, 0x0b];
    let mut body = vec![0];
    body.extend(branch.repeat(10_000));
    body.push(0x0b);
    let mut code = Vec::new();
    number(FUNCTIONS, &mut code);
    for _ in 0..FUNCTIONS {
        number(body.len(), &mut code);
        code.extend_from_slice(&body);
    }
    let mut functions = vec![FUNCTIONS as u8];
    functions.extend([0; FUNCTIONS]);
    let mut module = b"\0asm\x01\0\0\0".to_vec();
    for (section, content) in [(1, &[1, 0x60, 1, 0x7f, 0][..]), (3, &functions), (10, &code)] {
        module.push(section);
        number(content.len(), &mut module);
        module.extend_from_slice(content);
    }
    module
}

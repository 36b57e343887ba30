//! Answers that nobody gets are no success: standard output that cannot be written is exit code 1 with one clear line. A
//! reader that has gone away (`| head -1`) is none of that.

use std::fs::OpenOptions;
use std::path::Path;
use std::process::{Command, Stdio};

use mentat_tests::binary::binary;
use mentat_tests::stack::Stack;

/// Exit code and standard error of a command whose standard output goes to `stdout`.
fn answer_to(stdout: Stdio, home: &Path, words: &[&str]) -> (i32, String) {
    let mut command = Command::new(binary("mentatctl"));
    command.env("MENTAT_HOME", home).env_remove("RUST_BACKTRACE").args(words).stdin(Stdio::null());
    let done = command.stdout(stdout).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
    (done.status.code().unwrap_or(-1), String::from_utf8_lossy(&done.stderr).into_owned())
}

#[test]
fn a_lost_answer_is_a_failure_and_a_reader_that_left_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::up(&dir.path().join("stack"));
    let at = stack.dir().to_str().unwrap();
    let rows: [&[&str]; 7] = [
        &["--stack", at, "pki", "token", "create", "--email", "dev@example.com"],
        &["--stack", at, "--json", "pki", "list"],
        &["--stack", at, "pki", "list"],
        &["completion", "bash"],
        &["schema", "manifest"],
        &["--help"],
        &["--json", "verify", "/none"],
    ];
    for row in rows {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let (code, said) = answer_to(full.into(), stack.home(), row);
        let expected = if row.contains(&"/none") { 2 } else { 1 };
        assert_eq!(code, expected, "{row:?}: {said}");
        assert!(said.starts_with("error: cannot write standard output: "), "{row:?}: {said}");
        assert!(said.contains("; ") && said.lines().count() == 1, "{row:?}: {said}");
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let (code, said) = answer_to(writer.into(), stack.home(), row);
        assert_eq!((code, said.as_str()), (if expected == 2 { 2 } else { 0 }, ""), "{row:?}");
    }
}

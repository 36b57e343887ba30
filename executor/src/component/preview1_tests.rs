//! Core modules over WASI preview 1: adapted, and bound to the same rules as components.

use executor_engine::Profile;

use crate::admission::GrantSet;
use crate::runtime::CallLimits;
use crate::testing::{admitted, cache, run, runtime};

/// Writes `text` to its standard output, then does `more`.
fn command(text: &str, more: &str) -> String {
    format!(
        r#"(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_sizes_get" (func $environ (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_prestat_get" (func $prestat (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 64) "{text}")
  (func (export "_start")
    (i32.store (i32.const 0) (i32.const 64))
    (i32.store (i32.const 4) (i32.const {length}))
    (if (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 16)) (then unreachable))
    {more}))"#,
        length = text.len()
    )
}

#[test]
fn a_command_writes_to_the_output_of_its_call() {
    let done = run(&command("over preview 1", ""), b"").unwrap();
    assert_eq!((done.output.as_slice(), done.exit_code), (&b"over preview 1"[..], 0));
    let done = run(&command("x", "(call $exit (i32.const 7))"), b"").unwrap();
    // WASI 0.2 knows success and failure; the adapter says no more.
    assert_eq!((done.output.as_slice(), done.exit_code), (&b"x"[..], 1));
}

#[test]
fn the_input_of_the_call_is_its_standard_input() {
    let echo = "(i32.store (i32.const 0) (i32.const 1024)) (i32.store (i32.const 4) (i32.const 512))
        (if (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 16)) (then unreachable))
        (i32.store (i32.const 4) (i32.load (i32.const 16)))
        (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 16)))";
    let done = run(&command(">", echo), b"what came in").unwrap();
    assert_eq!(done.output, b">what came in");
}

#[test]
fn nothing_of_the_host_is_there() {
    let looks = "(if (call $environ (i32.const 32) (i32.const 36)) (then unreachable))
        (if (i32.load (i32.const 32)) (then unreachable))
        (if (i32.ne (call $prestat (i32.const 3) (i32.const 40)) (i32.const 8)) (then unreachable))";
    assert_eq!(run(&command("empty", looks), b"").unwrap().output, b"empty");
}

#[tokio::test]
async fn imports_of_no_known_module_are_refused() {
    let known = "\"wasi_snapshot_preview1\" \"proc_exit\"";
    let text = command("x", "").replace(known, "\"wasi_unstable\" \"proc_exit\"");
    let module = admitted(&text, GrantSet::default(), CallLimits::default());
    let state = tempfile::tempdir().unwrap();
    let loaded = cache(state.path()).load(runtime().engine(), Profile::Standard, &module).await;
    assert_eq!(loaded.err().unwrap().code(), "invalid_module");
}

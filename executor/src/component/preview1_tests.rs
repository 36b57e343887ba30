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
        length = text.replace("\\0a", "\n").len()
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

/// Writes `text` to its standard error, and no more.
fn complains(text: &str) -> String {
    command(text, "").replace("(call $write (i32.const 1)", "(call $write (i32.const 2)")
}

#[test]
fn a_line_of_standard_error_says_its_level_or_is_information() {
    let done = run(
        &complains("error: a\\0awarn: b: c\\0ainfo: d\\0adebug: e\\0atrace: \\0afatal: f\\0ag\\0aerror:h"),
        b"",
    )
    .unwrap();
    let lines: Vec<_> = done.log.iter().map(|line| (line.level.as_str(), line.text.as_str())).collect();
    let expected = [
        ("error", "a"),
        ("warn", "b: c"),
        ("info", "d"),
        ("debug", "e"),
        ("trace", ""),
        ("info", "fatal: f"),
        ("info", "g"),
        ("info", "error:h"),
    ];
    assert_eq!(lines, expected);
    assert_eq!(done.exit_code, 0);
}

#[test]
fn a_metric_on_standard_error_keeps_the_grammar_of_metrics() {
    let done = run(
        &complains(
            "metric: words_total 2.5\\0ametric: Words 1\\0ametric: a NaN\\0ametric: b\\0ametric: c 1 2",
        ),
        b"",
    )
    .unwrap();
    let metrics: Vec<_> = done.metrics.iter().map(|metric| (metric.name.as_str(), metric.value)).collect();
    assert_eq!(metrics, [("words_total", 2.5)]);
    let lines: Vec<_> = done.log.iter().map(|line| (line.level.as_str(), line.text.as_str())).collect();
    let kept = ["metric: Words 1", "metric: a NaN", "metric: b", "metric: c 1 2"];
    assert_eq!(lines, kept.map(|line| ("info", line)));
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

//! Guests that tell what time it is and what they drew: the same words in every call with the same input.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use executor_engine::Profile;
use executor_engine::pool::PoolLimits;

#[cfg(feature = "scratch-files")]
use super::scratch_tests;
use crate::admission::{GrantSet, GrantSources};
use crate::clock;
use crate::runtime::{Call, CallLimits, Lowered, Outcome, Prepared, Runtime, Seed};
use crate::streams::Pipe;
use crate::testing::texts::{POLL, RUN, STREAMS};
use crate::testing::{admitted, cache};

/// A command that writes what a machine would choose for it, 80 bytes: seconds and nanoseconds of the wall clock (16), the
/// monotonic clock (8), random bytes (16), a seed for hash tables (16), and after a sleep of ten minutes the monotonic clock
/// again (8) and a random number (8); 8 bytes between them are its own.
pub(crate) fn tells() -> String {
    format!(
        r#"(component {STREAMS}{POLL}
  (import "wasi:clocks/monotonic-clock@0.2.0" (instance $clock
    (alias outer 1 $pollable (type $p'))
    (export "pollable" (type $p (eq $p')))
    (export "now" (func (result u64)))
    (export "subscribe-duration" (func (param "when" u64) (result (own $p))))))
  (import "wasi:clocks/wall-clock@0.2.0" (instance $wall
    (type $d' (record (field "seconds" u64) (field "nanoseconds" u32)))
    (export "datetime" (type $d (eq $d')))
    (export "now" (func (result $d)))))
  (import "wasi:random/random@0.2.0" (instance $random
    (export "get-random-bytes" (func (param "len" u64) (result (list u8))))
    (export "get-random-u64" (func (result u64)))))
  (import "wasi:random/insecure-seed@0.2.0" (instance $seeds
    (export "insecure-seed" (func (result (tuple u64 u64))))))
  (core func $block (canon lower (func $poll "[method]pollable.block")))
  (core func $subscribe (canon lower (func $clock "subscribe-duration")))
  (core func $now (canon lower (func $clock "now")))
  (core func $wall (canon lower (func $wall "now") (memory $libc "memory")))
  (core func $number (canon lower (func $random "get-random-u64")))
  (core func $bytes (canon lower (func $random "get-random-bytes") (memory $libc "memory") (realloc (func $libc "realloc"))))
  (core func $seed (canon lower (func $seeds "insecure-seed") (memory $libc "memory")))
  (core module $main
    (import "host" "get-stdout" (func $get (result i32)))
    (import "host" "write" (func $write (param i32 i32 i32 i32)))
    (import "host" "block" (func $block (param i32)))
    (import "host" "subscribe" (func $subscribe (param i64) (result i32)))
    (import "host" "now" (func $now (result i64)))
    (import "host" "wall" (func $wall (param i32)))
    (import "host" "number" (func $number (result i64)))
    (import "host" "bytes" (func $bytes (param i64 i32)))
    (import "host" "seed" (func $seed (param i32)))
    (import "libc" "memory" (memory 1))
    (func (export "run") (result i32)
      (call $wall (i32.const 8))
      (i64.store (i32.const 24) (call $now))
      (call $bytes (i64.const 16) (i32.const 32))
      (i64.store (i32.const 64) (i64.load (i32.load (i32.const 32))))
      (i64.store (i32.const 72) (i64.load offset=8 (i32.load (i32.const 32))))
      (call $seed (i32.const 40))
      (call $block (call $subscribe (i64.const 600000000000)))
      (i64.store (i32.const 56) (call $now))
      (i64.store (i32.const 80) (call $number))
      (call $write (call $get) (i32.const 8) (i32.const 80) (i32.const 4096))
      (i32.const 0)))
  (core instance $main (instantiate $main
    (with "host" (instance (export "get-stdout" (func $get-stdout)) (export "write" (func $write)) (export "block" (func $block))
      (export "subscribe" (func $subscribe)) (export "now" (func $now)) (export "wall" (func $wall))
      (export "number" (func $number)) (export "bytes" (func $bytes)) (export "seed" (func $seed))))
    (with "libc" (instance $libc))))
  {RUN})"#
    )
}

/// One engine of the deterministic profile for all of these tests.
fn runtime() -> &'static Arc<Runtime> {
    static RUNTIME: LazyLock<Arc<Runtime>> =
        LazyLock::new(|| Runtime::new(Profile::Deterministic, PoolLimits::small()).unwrap());
    &RUNTIME
}

fn prepared(runtime: &Arc<Runtime>, text: &str, grants: GrantSet) -> Prepared {
    let module = admitted(text, grants, CallLimits::default());
    let state = tempfile::tempdir().unwrap();
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let cache = cache(state.path());
    let (loaded, _) = tokio.block_on(cache.load(runtime.engine(), runtime.profile(), &module)).unwrap();
    Prepared::new(runtime, &loaded, &module).unwrap()
}

fn called(prepared: &Prepared, input: &'static [u8]) -> Outcome {
    runtime().call(prepared, Call { input: Bytes::from_static(input), ..Call::default() }).unwrap()
}

#[test]
fn the_same_input_gives_the_same_output_whatever_the_clock_says() {
    let tells = prepared(runtime(), &tells(), GrantSet::default());
    let began = clock::monotonic();
    let first = called(&tells, b"one");
    assert!(began.elapsed() < Duration::from_secs(60), "ten minutes of the guest's clock are none of ours");
    let second = called(&tells, b"one");
    assert_eq!((first.exit_code, first.output.len()), (0, 80));
    assert_eq!(first.output, second.output);
    assert_eq!((first.usage.fuel, first.usage.fuel.is_some()), (second.usage.fuel, true));
    let number = |at: usize| u64::from_le_bytes(first.output[at..at + 8].try_into().unwrap());
    // 2025-01-01, and a microsecond for each look.
    assert_eq!((number(0), number(8) & 0xffff_ffff, number(16)), (1_735_689_600, 1_000, 2_000));
    assert_eq!(number(48), 600_000_003_000 + 1_000);
    let other = called(&tells, b"two").output;
    assert_eq!(other[..24], first.output[..24]);
    assert_ne!((&other[32..48], &other[56..]), (&first.output[32..48], &first.output[56..]));
    // By a seed that is given, whatever the input is.
    let by = |input: &'static [u8]| {
        let call = Call { input: Bytes::from_static(input), seed: Some(Seed([7; 32])), ..Call::default() };
        runtime().call(&tells, call).unwrap().output
    };
    assert_eq!(by(b"one"), by(b"two"));
    assert_ne!(by(b"one"), first.output);
}

#[test]
fn in_the_standard_profile_the_machine_is_asked() {
    let text = tells().replace("(i64.const 600000000000)", "(i64.const 1000000)");
    let tells = prepared(crate::testing::runtime(), &text, GrantSet::default());
    let output = || crate::testing::runtime().call(&tells, Call::default()).unwrap().output;
    let (first, second) = (output(), output());
    assert_ne!(first[56..], second[56..], "random numbers");
    assert_ne!(first[..24], second[..24], "clocks");
}

#[test]
fn a_command_over_preview_1_meets_the_same_clock_and_the_same_numbers() {
    let text = r#"(module
      (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
      (import "wasi_snapshot_preview1" "clock_time_get" (func $time (param i32 i64 i32) (result i32)))
      (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
      (memory (export "memory") 1)
      (func (export "_start")
        (if (call $time (i32.const 0) (i64.const 1) (i32.const 64)) (then unreachable))
        (if (call $time (i32.const 1) (i64.const 1) (i32.const 72)) (then unreachable))
        (if (call $random (i32.const 80) (i32.const 100)) (then unreachable))
        (i32.store (i32.const 0) (i32.const 64))
        (i32.store (i32.const 4) (i32.const 116))
        (if (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 16)) (then unreachable))))"#;
    let command = prepared(runtime(), text, GrantSet::default());
    let (first, second) = (called(&command, b"x").output, called(&command, b"x").output);
    assert_eq!(first.len(), 116);
    assert_eq!(first, second);
    assert_eq!(first[..8], (1_735_689_600_000_001_000u64).to_le_bytes());
    assert_ne!(first[16..], called(&command, b"y").output[16..]);
}

#[test]
fn the_handles_of_a_core_module_are_numbered_alike() {
    let text = r#"(module
      (import "mentat" "request_capability" (func $request (param i32 i32) (result i32)))
      (import "mentat" "write_output" (func $write (param i32 i32) (result i32)))
      (memory (export "memory") 1) (data (i32.const 0) "env:TOKEN")
      (func (export "process") (result i32)
        (i32.store (i32.const 64) (call $request (i32.const 0) (i32.const 9)))
        (i32.store (i32.const 68) (call $request (i32.const 0) (i32.const 9)))
        (drop (call $write (i32.const 64) (i32.const 8)))
        (i32.const 0)))"#;
    let granted = vec!["env:TOKEN".parse().unwrap()];
    let env = [("TOKEN".to_owned(), "s3cret".to_owned())].into();
    let sources = GrantSources { env, ..GrantSources::default() };
    let module = prepared(runtime(), text, sources.grant(&granted, granted.clone(), &[]).unwrap());
    let numbers = |input| {
        let output = called(&module, input).output;
        [&output[..4], &output[4..]].map(|bytes| i32::from_le_bytes(bytes.try_into().unwrap()))
    };
    let first = numbers(b"one");
    assert!(first[0] > 0 && first[1] == first[0] + 1, "{first:?}");
    assert_eq!(numbers(b"one"), first);
    assert_ne!(numbers(b"two"), first);
}

#[test]
#[cfg(feature = "scratch-files")]
fn scratch_files_are_of_the_call_and_of_no_machine() {
    let module = prepared(runtime(), &scratch_tests::fills(), scratch_tests::granting("write"));
    let first = called(&module, b"x").output;
    // 16 MiB, of which the file takes 4 KiB for itself.
    assert_eq!(first, scratch_tests::filled(1023));
    assert_eq!(called(&module, b"x").output, first);
}

#[test]
fn how_a_reader_reads_is_nothing_that_a_guest_hears_of() {
    // Streams until that fails, and ends with the code of the failure.
    let text = r#"(module
      (import "mentat" "start_stream" (func $start (param i32 i32) (result i32)))
      (import "mentat" "write_stream" (func $send (param i32 i32 i32) (result i32)))
      (memory (export "memory") 2) (data (i32.const 0) "flood")
      (func (export "process") (result i32) (local $stream i32) (local $code i32)
        (local.set $stream (call $start (i32.const 0) (i32.const 5)))
        (loop $more
          (local.set $code (call $send (local.get $stream) (i32.const 0) (i32.const 65536)))
          (br_if $more (i32.gt_s (local.get $code) (i32.const 0))))
        (local.get $code)))"#;
    let granted = vec!["extension:stream".parse().unwrap()];
    let streaming = || GrantSources::default().grant(&granted, granted.clone(), &[]).unwrap();
    let unread = |runtime: &Arc<Runtime>, wall: Option<Duration>, pipe: Pipe| {
        let module = prepared(runtime, text, streaming());
        let call = Call { lowered: Lowered { wall, ..Lowered::default() }, ..Call::default() };
        let registration = runtime.register(&module, None);
        let ended = runtime.call_registered(&module, call, registration, Some(Arc::new(pipe)));
        ended.result.map(|outcome| outcome.exit_code).map_err(|error| error.code())
    };
    let moment = Duration::from_millis(50);
    assert_eq!(
        unread(crate::testing::runtime(), None, Pipe::patient(moment)),
        Ok(-9),
        "it is told elsewhere"
    );
    assert_eq!(unread(runtime(), None, Pipe::patient(moment)), Err("caller_gone"));
    // Its time is up while it waits: what it makes of that is no result either.
    assert_eq!(unread(runtime(), Some(2 * moment), Pipe::default()), Err("deadline_exceeded"));
}

#[test]
fn a_flood_of_random_bytes_ends_the_guest() {
    let text = tells().replace("(call $bytes (i64.const 16)", "(call $bytes (i64.const 65537)");
    let flood = prepared(runtime(), &text, GrantSet::default());
    assert_eq!(runtime().call(&flood, Call::default()).unwrap_err().code(), "trap");
}

//! The ABI against guests that do not keep to it.

use std::time::Duration;

use trust_store::capability::Capability;

use super::ErrorCode;
use super::sinks::Level;
use crate::admission::{GrantSet, GrantSources};
use crate::runtime::{
    Call, CallError, CallLimits, GuestState, HostRates, KillCause, Lowered, Outcome, PrepareError, Selector,
    Stop,
};
use crate::testing::{guest_state_under, patient, prepare, run, run_limited, runtime};

/// A module whose `process` is `body`, with the host functions the tests use.
fn guest(body: &str) -> String {
    format!(
        r#"(module
            (import "mentat" "input_len" (func $input_len (result i64)))
            (import "mentat" "read_input" (func $read_input (param i32 i32 i32) (result i32)))
            (import "mentat" "write_output" (func $write_output (param i32 i32) (result i32)))
            (import "mentat" "log" (func $log (param i32 i32 i32)))
            (import "mentat" "record_metric" (func $metric (param i32 i32 f64) (result i32)))
            (import "mentat" "buffer_len" (func $buffer_len (param i32) (result i64)))
            (import "mentat" "buffer_read" (func $buffer_read (param i32 i32 i32 i64) (result i32)))
            (import "mentat" "close" (func $close (param i32) (result i32)))
            (memory (export "memory") 1)
            (data (i32.const 0) "env:TOKEN get words")
            (func (export "process") (result i32) {body}))"#
    )
}

fn granting(texts: &[&str]) -> GrantSet {
    let granted: Vec<Capability> = texts.iter().map(|text| text.parse().unwrap()).collect();
    let sources = GrantSources {
        env: [("TOKEN".to_owned(), "s3cret".to_owned()), ("OTHER".to_owned(), "value".to_owned())].into(),
        ..GrantSources::default()
    };
    sources.grant(&granted, granted.clone(), &[]).unwrap()
}

fn exit(body: &str) -> i32 {
    run(&guest(body), b"0123456789").unwrap().exit_code
}

#[test]
fn input_goes_in_and_output_comes_out() {
    let echo = guest(
        "(local $n i32)
         (local.set $n (call $read_input (i32.const 100) (i32.const 1000) (i32.const 3)))
         (drop (call $write_output (i32.const 100) (local.get $n)))
         (i32.wrap_i64 (call $input_len))",
    );
    let outcome = run(&echo, b"0123456789").unwrap();
    assert_eq!((outcome.output.as_slice(), outcome.exit_code), (&b"3456789"[..], 10));
    assert_eq!(outcome.usage.memory_bytes, 65_536);
}

#[test]
fn pointers_and_lengths_outside_memory_are_refused_without_allocation() {
    for (ptr, len) in
        [(65_536, 1), (65_535, 2), (-1, 1), (0, -1), (-1, -1), (i32::MIN, i32::MIN), (0, 65_537)]
    {
        let code = exit(&format!("(call $write_output (i32.const {ptr}) (i32.const {len}))"));
        assert_eq!(code, -2, "write_output {ptr} {len}");
        let code = exit(&format!("(call $read_input (i32.const {ptr}) (i32.const {len}) (i32.const 0))"));
        assert_eq!(code, -2, "read_input {ptr} {len}");
        let code = exit(&format!("(call $metric (i32.const {ptr}) (i32.const {len}) (f64.const 1))"));
        assert_eq!(code, -2, "record_metric {ptr} {len}");
    }
    assert_eq!(exit("(call $write_output (i32.const 65536) (i32.const 0))"), 0);
}

#[test]
fn each_interface_has_a_rate_and_says_once_that_it_is_exceeded() {
    let rates =
        HostRates { capabilities: 2, log_bytes: 64, log_lines: 2, media: 2, metrics: 2, stream_pieces: 2 };
    let mut state = guest_state_under(CallLimits { rates, ..CallLimits::default() });
    // What is asked for is refused for its own reason, until it is asked for too often. A slow machine lets time pass, so some
    // more are answered than one second has.
    for _ in 0..2 {
        assert_eq!(state.request("env:TOKEN").err(), Some(ErrorCode::NotInManifest));
    }
    let mut refused = |ask: &mut dyn FnMut(&mut GuestState) -> Option<ErrorCode>| {
        (0..1_000).filter(|_| ask(&mut state) == Some(ErrorCode::Limit)).count()
    };
    for (interface, count) in [
        ("capability", refused(&mut |state| state.request("env:TOKEN").err())),
        ("media", refused(&mut |state| state.download("sha256:00").err())),
        ("media", refused(&mut |state| state.upload("text/plain", b"").err())),
        ("metric", refused(&mut |state| state.record_metric("a", f64::NAN).err())),
        ("stream", refused(&mut |state| state.open_stream("s").err())),
    ] {
        assert!((900..=1_000).contains(&count), "{interface}: {count}");
    }
    for _ in 0..1_000 {
        state.log_line(Some(Level::Info), 4, || Ok("line"));
    }
    let extras = state.extras();
    assert!(extras.log.dropped() >= 900);
    let all: Vec<_> = extras.rates.refused().each().map(|(what, _)| what.as_str()).collect();
    assert_eq!(all, ["capability", "log", "media", "metric", "stream"]);
    let lines = std::mem::take(&mut extras.log).into_records();
    for interface in ["capability", "media", "metric", "stream"] {
        let said = format!("host_call_rate: calls of `{interface}`");
        assert_eq!(lines.iter().filter(|line| line.text.starts_with(&said)).count(), 1, "{interface}");
    }
}

#[test]
fn log_lines_out_of_range_are_dropped_and_counted() {
    let outcome = run(
        &guest(
            "(call $log (i32.const 2) (i32.const 0) (i32.const 3))
             (call $log (i32.const 9) (i32.const 0) (i32.const 3))
             (call $log (i32.const 2) (i32.const 65535) (i32.const 9))
             (call $log (i32.const 2) (i32.const 0) (i32.const -1))
             (i32.const 0)",
        ),
        b"",
    )
    .unwrap();
    assert_eq!(outcome.log.len(), 1);
    assert_eq!(outcome.log[0].text, "env");
    assert_eq!(outcome.usage.dropped_log_lines, 3);
}

#[test]
fn output_is_capped_as_a_whole() {
    let flood = guest(
        "(loop $l (br_if $l (i32.ge_s (call $write_output (i32.const 0) (i32.const 60000)) (i32.const 0)))) (i32.const -6)",
    );
    let limits = CallLimits { output: 200_000, ..CallLimits::default() };
    let outcome = run_limited(&flood, b"", limits).unwrap();
    assert_eq!((outcome.exit_code, outcome.output.len()), (-6, 180_000));
}

#[test]
fn forged_and_closed_handles_are_refused() {
    for handle in [0, 1, -1, 7, i32::MAX, i32::MIN] {
        assert_eq!(exit(&format!("(call $close (i32.const {handle}))")), -5);
        assert_eq!(exit(&format!("(i32.wrap_i64 (call $buffer_len (i32.const {handle})))")), -5);
        let body =
            format!("(call $buffer_read (i32.const {handle}) (i32.const 0) (i32.const 1) (i64.const 0))");
        assert_eq!(exit(&body), -5);
    }
}

fn with_capability(body: &str) -> String {
    guest(body).replace(
        "(memory",
        r#"(import "mentat" "request_capability" (func $request (param i32 i32) (result i32)))
           (import "mentat" "invoke_capability" (func $invoke (param i32 i32 i32 i32 i32) (result i32)))
           (memory"#,
    )
}

fn call_with(grants: GrantSet, body: &str) -> Outcome {
    let prepared = prepare(&with_capability(body), grants, CallLimits::default()).unwrap();
    runtime().call(&prepared, Call::default()).unwrap()
}

#[test]
fn a_granted_capability_is_used_through_its_handle() {
    let outcome = call_with(
        granting(&["env:TOKEN"]),
        "(local $h i32) (local $b i32) (local $n i32)
         (local.set $h (call $request (i32.const 0) (i32.const 9)))
         (local.set $b (call $invoke (local.get $h) (i32.const 10) (i32.const 3) (i32.const 0) (i32.const 0)))
         (local.set $n (call $buffer_read (local.get $b) (i32.const 200) (i32.const 4) (i64.const 1)))
         (drop (call $write_output (i32.const 200) (local.get $n)))
         (drop (call $close (local.get $h)))
         ;; a closed handle is worth nothing
         (call $invoke (local.get $h) (i32.const 10) (i32.const 3) (i32.const 0) (i32.const 0))",
    );
    assert_eq!((outcome.output.as_slice(), outcome.exit_code), (&b"3cre"[..], -5));
}

#[test]
fn what_the_manifest_does_not_ask_for_is_not_given() {
    let ask = "(call $request (i32.const 0) (i32.const 9))";
    assert_eq!(call_with(granting(&["env:OTHER"]), ask).exit_code, -3);
    assert_eq!(
        call_with(granting(&["env:OTHER"]), "(call $request (i32.const 10) (i32.const 3))").exit_code,
        -1
    );
}

#[test]
fn handles_are_limited() {
    let flood = "(local $r i32)
        (loop $l (local.set $r (call $request (i32.const 0) (i32.const 9)))
                 (br_if $l (i32.ge_s (local.get $r) (i32.const 0))))
        (local.get $r)";
    assert_eq!(call_with(granting(&["env:TOKEN"]), flood).exit_code, -6);
}

#[test]
fn an_interface_that_is_not_granted_does_not_exist() {
    for (text, name) in [
        (with_capability("(i32.const 0)"), "mentat.request_capability"),
        (
            guest("(i32.const 0)").replace(
                "(memory",
                r#"(import "mentat" "upload_media" (func (param i32 i32 i32 i32) (result i32))) (memory"#,
            ),
            "mentat.upload_media",
        ),
        (
            guest("(i32.const 0)")
                .replace("(memory", r#"(import "wasi_snapshot_preview1" "fd_write" (func)) (memory"#),
            "wasi_snapshot_preview1.fd_write",
        ),
        (guest("(i32.const 0)").replace("\"close\"", "\"shell\""), "mentat.shell"),
    ] {
        let refused = prepare(&text, GrantSet::default(), CallLimits::default()).err().expect("refused");
        assert_eq!(refused, PrepareError::ImportNotGranted { name: name.into() });
        assert_eq!(refused.code(), "import_not_granted");
    }
}

#[test]
fn the_unsafe_signatures_of_the_first_abi_are_refused() {
    for (name, ty) in [
        ("read_input", "(func (result i32))"),
        ("log", "(func (param i32 i32))"),
        ("write_output", "(func (param i32 i32))"),
        ("input_len", "(global i32)"),
    ] {
        let text = format!(
            r#"(module (import "mentat" "{name}" {ty}) (memory (export "memory") 1)
                (func (export "process") (result i32) i32.const 0))"#
        );
        let refused = prepare(&text, GrantSet::default(), CallLimits::default()).err().expect("refused");
        assert_eq!(refused.code(), "abi_signature_mismatch", "{name}");
    }
}

#[test]
fn memory_and_process_must_be_exported() {
    for text in [
        r#"(module (memory 1) (func (export "process") (result i32) i32.const 0))"#,
        r#"(module (memory (export "memory") 1))"#,
        r#"(module (memory (export "memory") 1) (func (export "process")))"#,
        r#"(module (global (export "memory") i32 (i32.const 0)) (func (export "process") (result i32) i32.const 0))"#,
    ] {
        let refused = prepare(text, GrantSet::default(), CallLimits::default()).err().expect("refused");
        assert_eq!(refused.code(), "export_missing", "{text}");
    }
}

#[test]
fn a_module_larger_than_its_limit_is_refused_at_load() {
    let text =
        r#"(module (memory (export "memory") 100) (func (export "process") (result i32) i32.const 0))"#;
    let limits = CallLimits { memory: 99 << 16, ..CallLimits::default() };
    assert_eq!(prepare(text, GrantSet::default(), limits).err().expect("refused").code(), "pool_limit");

    let prepared = prepare(text, GrantSet::default(), CallLimits::default()).unwrap();
    let lowered = Lowered { memory: Some(1 << 16), ..Lowered::default() };
    let refused = runtime().call(&prepared, Call { lowered, ..Call::default() }).unwrap_err();
    assert_eq!(refused.code(), "memory_limit");
}

#[test]
fn spinning_guests_end_at_their_deadline() {
    let _alone = crate::testing::ENDS.blocking_lock();
    let started = crate::clock::monotonic();
    for body in [
        "(loop $l (br $l)) (i32.const 0)",
        "(loop $l (drop (call $input_len)) (br $l)) (i32.const 0)",
        "(loop $l (memory.fill (i32.const 0) (i32.const 0) (i32.const 65536)) (br $l)) (i32.const 0)",
    ] {
        let limits = CallLimits { wall: Duration::from_millis(50), ..CallLimits::default() };
        let ended = run_limited(&guest(body), b"", limits).unwrap_err();
        assert!(matches!(ended, CallError::Stopped(Stop::WallDeadline)), "{ended:?}");
        let limits = CallLimits { cpu: Duration::from_millis(30), ..CallLimits::default() };
        let ended = run_limited(&guest(body), b"", limits).unwrap_err();
        assert!(matches!(ended, CallError::Stopped(Stop::CpuBudget)), "{ended:?}");
    }
    // Not a measurement: far above what a busy machine takes, far below "runs on".
    assert!(crate::clock::monotonic() - started < Duration::from_secs(60));
}

#[test]
fn a_start_function_and_an_initializer_spin_no_longer_than_process() {
    let limits = CallLimits { wall: Duration::from_millis(50), ..CallLimits::default() };
    for entry in ["(start $spin)", "(export \"_initialize\" (func $spin))"] {
        let text = format!(
            r#"(module (memory (export "memory") 1) (func $spin (loop $l (br $l))) {entry}
                (func (export "process") (result i32) i32.const 0))"#
        );
        assert_eq!(run_limited(&text, b"", limits).unwrap_err().code(), "deadline_exceeded", "{entry}");
    }
}

#[test]
fn a_running_guest_is_stopped_by_name() {
    // A module of its own: a stop by digest reaches what other tests run of the same.
    let text = guest("(loop $l (nop) (nop) (br $l)) (i32.const 0)");
    let prepared = prepare(&text, GrantSet::default(), patient()).unwrap();
    let selector = Selector { digest: Some(prepared.digest()), ..Selector::default() };
    let ended = std::thread::scope(|scope| {
        let call = scope.spawn(|| runtime().call(&prepared, Call::default()));
        while runtime().stop(&selector, KillCause::Revoked) == 0 {
            std::thread::yield_now();
        }
        call.join().unwrap()
    });
    let ended = ended.unwrap_err();
    assert_eq!(ended.code(), "revoked");
}

#[test]
fn memory_growth_ends_at_the_limit_without_a_trap() {
    let grow =
        guest("(loop $l (br_if $l (i32.ge_s (memory.grow (i32.const 16)) (i32.const 0)))) (memory.size)");
    let limits = CallLimits { memory: 10 << 20, ..CallLimits::default() };
    let outcome = run_limited(&grow, b"", limits).unwrap();
    assert_eq!(outcome.exit_code, 145, "1 + 9 * 16 pages fit 10 MiB");
    assert_eq!(outcome.usage.refused_growths, 1);
    assert_eq!(outcome.usage.memory_bytes, 145 << 16);
}

#[test]
fn table_growth_ends_at_the_limit() {
    let text = r#"(module (memory (export "memory") 1) (table $t 1 funcref)
        (func (export "process") (result i32)
          (loop $l (br_if $l (i32.ge_s (table.grow $t (ref.null func) (i32.const 1000)) (i32.const 0))))
          (table.size $t)))"#;
    let limits = CallLimits { table_elements: 5_000, ..CallLimits::default() };
    assert_eq!(run_limited(text, b"", limits).unwrap().exit_code, 4_001);
}

#[test]
fn traps_have_names_and_the_process_lives() {
    for (body, name) in [
        ("unreachable", "unreachable"),
        ("(i32.div_s (i32.const 1) (i32.const 0))", "division by zero"),
        ("(i32.load (i32.const 65536))", "memory access out of bounds"),
    ] {
        let ended = run(&guest(body), b"").unwrap_err();
        assert!(matches!(ended, CallError::Trapped { trap } if trap == name), "{ended:?}");
    }
    let recursion = r#"(module (memory (export "memory") 1)
        (func $r (param i32) (result i32) (i32.add (call $r (local.get 0)) (i32.const 1)))
        (func (export "process") (result i32) (call $r (i32.const 0))))"#;
    assert!(matches!(run(recursion, b"").unwrap_err(), CallError::Trapped { trap: "stack overflow" }));
    assert_eq!(exit("(i32.const 5)"), 5);
}

#[test]
fn an_instance_sees_nothing_of_the_one_before() {
    let prepared = prepare(
        &guest(
            "(local $seen i32)
             (local.set $seen (i32.load (i32.const 4096)))
             (i32.store (i32.const 4096) (i32.const 77))
             (drop (call $write_output (i32.const 4096) (i32.const 4)))
             (local.get $seen)",
        ),
        GrantSet::default(),
        CallLimits::default(),
    )
    .unwrap();
    for _ in 0..200 {
        let outcome = runtime().call(&prepared, Call::default()).unwrap();
        assert_eq!((outcome.exit_code, outcome.output.len()), (0, 4));
    }
    assert!(runtime().live().list().iter().all(|live| live.owner.digest != prepared.digest()));
}

#[test]
fn many_callers_at_once_get_their_own_answers() {
    let prepared = prepare(
        &guest(
            "(drop (call $write_output (i32.const 300) (call $read_input (i32.const 300) (i32.const 64) (i32.const 0))))
             (i32.const 0)",
        ),
        GrantSet::default(),
        CallLimits::default(),
    )
    .unwrap();
    std::thread::scope(|scope| {
        for caller in 0..8u32 {
            let prepared = &prepared;
            scope.spawn(move || {
                for round in 0..100u32 {
                    let input = format!("{caller}/{round}");
                    let call = Call { input: input.clone().into(), ..Call::default() };
                    assert_eq!(runtime().call(prepared, call).unwrap().output, input.as_bytes());
                }
            });
        }
    });
}

#[test]
fn a_caller_can_only_lower_limits() {
    let prepared = prepare(
        &guest("(loop $l (br $l)) (i32.const 0)"),
        GrantSet::default(),
        CallLimits { wall: Duration::from_millis(40), ..CallLimits::default() },
    )
    .unwrap();
    let lowered = Lowered { wall: Some(Duration::MAX), cpu: Some(Duration::MAX), memory: Some(usize::MAX) };
    let ended = runtime().call(&prepared, Call { lowered, ..Call::default() }).unwrap_err();
    assert_eq!(ended.code(), "deadline_exceeded");
}

#[test]
fn oversized_input_is_refused_before_an_instance_exists() {
    let limits = CallLimits { input: 4, ..CallLimits::default() };
    assert_eq!(run_limited(&guest("(i32.const 0)"), b"12345", limits).unwrap_err().code(), "input_too_large");
}

//! Components against the same rules as core modules.

use crate::admission::GrantSet;
use crate::runtime::{CallLimits, PrepareError};
use crate::testing::texts::ERROR;
use crate::testing::{prepare, run};

fn echo() -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../sdk/examples/echo-component.wat");
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn the_example_answers_with_its_input() {
    for input in [&b""[..], b"hello", &[7; 300_000]] {
        let outcome = run(&echo(), input).unwrap();
        assert_eq!((outcome.output.as_slice(), outcome.exit_code), (input, 0));
    }
}

#[test]
fn an_interface_that_is_not_granted_does_not_exist() {
    for name in [
        "mentat:agent/capability@1.0.0",
        "mentat:agent/media@1.0.0",
        "mentat:agent/io@2.0.0",
        "wasi:http/outgoing-handler@0.2.6",
        "wasi:filesystem/types@0.3.0",
        "wasi:sockets/tcp@0.2.6",
    ] {
        let text = format!("(component (import \"{name}\" (instance)))");
        let refused = prepare(&text, GrantSet::default(), CallLimits::default()).err().expect("refused");
        assert_eq!(refused, PrepareError::ImportNotGranted { name: name.into() });
    }
}

#[test]
fn an_import_of_another_shape_is_refused() {
    let text = r#"(component (import "mentat:agent/log@1.0.0" (instance (export "shell" (func)))))"#;
    let refused = prepare(text, GrantSet::default(), CallLimits::default()).err().expect("refused");
    assert_eq!(refused.code(), "abi_signature_mismatch");
}

#[cfg(not(feature = "http-handler"))]
#[test]
fn a_handler_is_refused_by_name_where_none_are_built() {
    let text = r#"(component (instance $none) (export "wasi:http/incoming-handler@0.2.0" (instance $none)))"#;
    let refused = prepare(text, GrantSet::default(), CallLimits::default()).err().expect("refused");
    assert_eq!(refused, PrepareError::FeatureNotBuilt { feature: "http-handler" });
    assert_eq!(refused.code(), "feature_not_built");
}

#[test]
fn process_must_be_exported() {
    let refused = prepare("(component)", GrantSet::default(), CallLimits::default()).err().expect("refused");
    assert_eq!(refused.code(), "export_missing");
}

#[test]
fn a_spinning_component_ends_at_its_deadline() {
    let text = r#"(component
        (core module $m (memory (export "memory") 1)
          (func (export "process") (result i32) (loop $l (br $l)) (i32.const 0)))
        (core instance $m (instantiate $m))
        (func (export "process") (result (result (error string)))
          (canon lift (core func $m "process") (memory $m "memory"))))"#;
    let limits = CallLimits { wall: std::time::Duration::from_millis(40), ..CallLimits::default() };
    let ended = crate::testing::run_limited(text, b"", limits).unwrap_err();
    assert_eq!(ended.code(), "deadline_exceeded");
}

#[test]
fn an_error_of_the_guest_is_its_exit_code_and_text() {
    let text = r#"(component
        (core module $m (memory (export "memory") 1)
          (data (i32.const 100) "no words")
          (func (export "process") (result i32)
            (i32.store8 (i32.const 0) (i32.const 1))
            (i32.store (i32.const 4) (i32.const 100))
            (i32.store (i32.const 8) (i32.const 8))
            (i32.const 0)))
        (core instance $m (instantiate $m))
        (func (export "process") (result (result (error string)))
          (canon lift (core func $m "process") (memory $m "memory"))))"#;
    let outcome = run(text, b"").unwrap();
    assert_eq!((outcome.exit_code, outcome.log[0].text.as_str()), (1, "no words"));
}

/// A component whose core module may import `io.write-output` and `io.read-input`.
fn with_io(body: &str) -> String {
    format!(
        r#"(component{ERROR}
  (import "mentat:agent/io@1.0.0" (instance $io
    (alias outer 1 $error (type $e'))
    (export "error" (type $e (eq $e')))
    (export "write-output" (func (param "data" (list u8)) (result (result (error $e)))))))
  (core module $libc
    (memory (export "memory") 1)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 32768)))
  (core instance $libc (instantiate $libc))
  (core func $write (canon lower (func $io "write-output") (memory $libc "memory") (realloc (func $libc "realloc"))))
  (core module $m
    (import "host" "write" (func $write (param i32 i32 i32)))
    (import "libc" "memory" (memory 1))
    (func (export "process") (result i32) {body} (i32.store (i32.const 0) (i32.const 0)) (i32.const 0)))
  (core instance $m (instantiate $m (with "host" (instance (export "write" (func $write)))) (with "libc" (instance $libc))))
  (func (export "process") (result (result (error string)))
    (canon lift (core func $m "process") (memory $libc "memory"))))"#
    )
}

#[test]
fn lists_of_impossible_length_end_the_guest_and_nobody_else() {
    for length in ["0x7fffffff", "-1", "65537"] {
        let ended =
            run(&with_io(&format!("(call $write (i32.const 0) (i32.const {length}) (i32.const 64))")), b"");
        assert_eq!(ended.unwrap_err().code(), "trap", "{length}");
    }
    let fine = run(&with_io("(call $write (i32.const 0) (i32.const 5) (i32.const 64))"), b"").unwrap();
    assert_eq!(fine.output, [0; 5]);
}

#[test]
fn the_memories_of_a_component_share_one_limit() {
    let text = r#"(component
        (core module $m (memory (export "memory") 1)
          (func (export "process") (result i32)
            (loop $l (br_if $l (i32.ge_s (memory.grow (i32.const 16)) (i32.const 0))))
            (i32.const 0)))
        (core instance $a (instantiate $m))
        (core instance $b (instantiate $m))
        (core instance $c (instantiate $m))
        (core module $all (import "a" "process" (func $a (result i32))) (import "b" "process" (func $b (result i32)))
          (import "c" "process" (func $c (result i32)))
          (func (export "process") (result i32) (drop (call $a)) (drop (call $b)) (call $c)))
        (core instance $all (instantiate $all (with "a" (instance $a)) (with "b" (instance $b)) (with "c" (instance $c))))
        (func (export "process") (result (result (error string)))
          (canon lift (core func $all "process") (memory $a "memory"))))"#;
    let limits = CallLimits { memory: 8 << 20, ..CallLimits::default() };
    let outcome = crate::testing::run_limited(text, b"", limits).unwrap();
    assert_eq!(outcome.usage.refused_growths, 3);
    assert!(outcome.usage.memory_bytes <= 8 << 20, "{}", outcome.usage.memory_bytes);
}

#[test]
fn a_flood_of_handles_ends_the_guest_at_its_limit() {
    let makes = |count: u32| {
        format!(
            r#"(component
        (type $r (resource (rep i32)))
        (core func $new (canon resource.new $r))
        (core module $m
          (import "host" "new" (func $new (param i32) (result i32)))
          (memory (export "memory") 1)
          (func (export "process") (result i32) (local $left i32)
            (local.set $left (i32.const {count}))
            (loop $l (drop (call $new (i32.const 7)))
              (local.set $left (i32.sub (local.get $left) (i32.const 1))) (br_if $l (local.get $left)))
            (i32.const 0)))
        (core instance $m (instantiate $m (with "host" (instance (export "new" (func $new))))))
        (func (export "process") (result (result (error string)))
          (canon lift (core func $m "process") (memory $m "memory"))))"#
        )
    };
    assert_eq!(run(&makes(1_000), b"").unwrap().exit_code, 0);
    assert_eq!(run(&makes(1_000_000), b"").unwrap_err().code(), "trap");
}

/// Whoever fills his places with the largest guests there are leaves those of others as they were.
#[test]
fn a_guest_of_four_memories_takes_no_more_than_its_place() {
    use crate::runtime::{Call, Prepared, Runtime};
    use executor_engine::Profile;
    use executor_engine::pool::PoolLimits;

    let runtime = Runtime::new(Profile::Standard, PoolLimits::small()).unwrap();
    let state = tempfile::tempdir().unwrap();
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ready = |text: &str| {
        let admitted = crate::testing::admitted(text, GrantSet::default(), CallLimits::default());
        let cache = crate::testing::cache(state.path());
        let loading = cache.load(runtime.engine(), Profile::Standard, &admitted);
        let (loaded, _) = tokio.block_on(loading).unwrap();
        Prepared::new(&runtime, &loaded, &admitted).unwrap()
    };
    let large = ready(
        r#"(component
        (core module $m (memory (export "memory") 1) (table 1 funcref) (table 1 funcref)
          (func (export "process") (result i32) (i32.const 0)))
        (core instance $a (instantiate $m)) (core instance $b (instantiate $m))
        (core instance $c (instantiate $m)) (core instance $d (instantiate $m))
        (func (export "process") (result (result (error string)))
          (canon lift (core func $a "process") (memory $a "memory"))))"#,
    );
    let places = runtime.pool().slots;
    let begin = |prepared: &Prepared| {
        let registration = runtime.register(prepared, None);
        let mut store =
            runtime.store(Call::default(), registration, crate::clock::monotonic(), None).unwrap();
        runtime.run(prepared, &mut store).map(|_| store)
    };
    let held: Vec<_> = (1..places).map(|_| begin(&large).unwrap()).collect();
    assert!(begin(&ready(crate::testing::wat_echo())).is_ok());
    drop(held);
}

/// Components that are built against the world of this version must be built against nothing else. Another shape is another version.
#[test]
fn the_world_of_this_version_is_what_it_was() {
    let world = include_str!("../../wit/agent.wit");
    let without_comments = world.lines().map(|line| line.split("//").next().unwrap_or_default().trim_end());
    let shape: String =
        without_comments.filter(|line| !line.is_empty()).flat_map(|line| [line, "\n"]).collect();
    assert_eq!(shape, include_str!("agent-1.0.0.txt"));
}

//! Components against the same rules as core modules.

use crate::admission::GrantSet;
use crate::runtime::{CallLimits, PrepareError};
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
        "wasi:filesystem/types@0.2.6",
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

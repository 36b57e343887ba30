//! What a guest hears on its next host call when what vouched for it was revoked, over both boundaries.
//!
//! As a rule the next tick ends it first, so here no tick comes: what is left is the host call's own look.

use std::sync::Arc;

use wasmtime::Store;

use super::Entry;
use crate::admission::{GrantSet, GrantSources};
use crate::runtime::{Call, CallLimits, Code, GuestState, KillCause, Prepared};
use crate::streams::Pipe;
use crate::testing::texts::{CAPABILITY, ERROR};
use crate::testing::{prepare, runtime};

fn granting(capabilities: &[&str]) -> GrantSet {
    let env = [("TOKEN".to_owned(), "s3cret".to_owned())].into();
    let granted: Vec<_> = capabilities.iter().map(|text| text.parse().unwrap()).collect();
    GrantSources { env, ..GrantSources::default() }.grant(&granted, granted.clone(), &[]).unwrap()
}

/// The store of a call with a reader that no tick ends.
fn unhurried(prepared: &Prepared) -> Store<GuestState> {
    let registration = runtime().register(prepared, None);
    let (now, pipe) = (crate::clock::monotonic(), Some(Arc::new(Pipe::default())));
    let mut store = runtime().store(Call::default(), registration, now, pipe).unwrap();
    store.set_epoch_deadline(1 << 40);
    store
}

/// A core module that gets a handle in its first call and uses it in each.
fn keeping_a_handle(gets: &str, uses: &str) -> String {
    format!(
        r#"(module
          (import "mentat" "request_capability" (func $request (param i32 i32) (result i32)))
          (import "mentat" "invoke_capability" (func $invoke (param i32 i32 i32 i32 i32) (result i32)))
          (import "mentat" "start_stream" (func $start (param i32 i32) (result i32)))
          (import "mentat" "write_stream" (func $write (param i32 i32 i32) (result i32)))
          (memory (export "memory") 1)
          (data (i32.const 0) "env:TOKEN get")
          (global $handle (mut i32) (i32.const 0))
          (func (export "process") (result i32)
            (if (i32.eqz (global.get $handle)) (then (global.set $handle {gets})))
            {uses}))"#
    )
}

#[test]
fn a_core_module_gets_the_code_of_a_revocation_for_its_handle() {
    let capability = keeping_a_handle(
        "(call $request (i32.const 0) (i32.const 9))",
        "(call $invoke (global.get $handle) (i32.const 10) (i32.const 3) (i32.const 0) (i32.const 0))",
    );
    let stream = keeping_a_handle(
        "(call $start (i32.const 10) (i32.const 3))",
        "(call $write (global.get $handle) (i32.const 0) (i32.const 9))",
    );
    for text in [capability, stream] {
        for (cause, code) in [(KillCause::Revoked, -10), (KillCause::Operator, -6)] {
            let grants = granting(&["env:TOKEN", "extension:stream"]);
            let prepared = prepare(&text, grants, CallLimits::default()).unwrap();
            let mut store = unhurried(&prepared);
            let Code::Core(core) = &prepared.code else { panic!("a core module") };
            let instance = core.pre.instantiate(&mut store).unwrap();
            let process = instance.get_typed_func::<(), i32>(&mut store, "process").unwrap();
            let used = process.call(&mut store, ()).unwrap();
            assert!(used > 0, "the handle is good: {used}");
            store.data().kill().raise(cause);
            assert_eq!(process.call(&mut store, ()).unwrap(), code, "{cause:?}");
        }
    }
}

/// Gets a handle in its first call and uses it in each. An error of the use is an error whose text is as long as the number of the
/// error's case.
fn component() -> String {
    format!(
        r#"(component{ERROR}{CAPABILITY}
  (core module $libc
    (memory (export "memory") 1)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 32768)))
  (core instance $libc (instantiate $libc))
  (core func $request
    (canon lower (func $capability "request") (memory $libc "memory") (realloc (func $libc "realloc"))))
  (core func $invoke
    (canon lower (func $capability "[method]handle.invoke") (memory $libc "memory") (realloc (func $libc "realloc"))))
  (core module $m
    (import "host" "request" (func $request (param i32 i32 i32)))
    (import "host" "invoke" (func $invoke (param i32 i32 i32 i32 i32 i32)))
    (import "libc" "memory" (memory 1))
    (data (i32.const 1024) "env:TOKEN get")
    (global $handle (mut i32) (i32.const 0))
    (func (export "process") (result i32)
      (if (i32.eqz (global.get $handle)) (then
        (call $request (i32.const 1024) (i32.const 9) (i32.const 64))
        (if (i32.load8_u (i32.const 64)) (then (unreachable)))
        (global.set $handle (i32.load (i32.const 68)))))
      (call $invoke (global.get $handle) (i32.const 1034) (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 64))
      (i32.store8 (i32.const 0) (i32.load8_u (i32.const 64)))
      (i32.store (i32.const 4) (i32.const 1024))
      (i32.store (i32.const 8) (i32.load8_u (i32.const 68)))
      (i32.const 0)))
  (core instance $m (instantiate $m
    (with "host" (instance (export "request" (func $request)) (export "invoke" (func $invoke))))
    (with "libc" (instance $libc))))
  (func (export "process") (result (result (error string)))
    (canon lift (core func $m "process") (memory $libc "memory"))))"#
    )
}

#[test]
fn a_component_gets_the_error_of_a_revocation_for_its_handle() {
    for (cause, case) in [(KillCause::Revoked, 7), (KillCause::Operator, 4)] {
        let prepared = prepare(&component(), granting(&["env:TOKEN"]), CallLimits::default()).unwrap();
        let mut store = unhurried(&prepared);
        super::bound(&mut store);
        let Code::Component(component) = &prepared.code else { panic!("a component") };
        let Entry::Agent(agent) = &component.entry else { panic!("an agent without WASI") };
        let agent = agent.instantiate(&mut store).unwrap();
        assert_eq!(agent.call_process(&mut store).unwrap(), Ok(()), "the handle is good");
        store.data().kill().raise(cause);
        let error = agent.call_process(&mut store).unwrap().unwrap_err();
        assert_eq!(error.len(), case, "{cause:?}");
    }
}

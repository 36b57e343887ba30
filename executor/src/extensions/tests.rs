//! What guests get of extensions: core modules, components, and those in workers.

use std::sync::Arc;

use bytes::Bytes;
use trust_store::capability::Capability;
use trust_store::policy::TrustLevel;

use super::key_value::{KeyValue, KeyValueLimits};
use super::{ExtensionError, Extensions, HostExtension, Invocation, Operation, RegistrationError, Tenant};
use crate::admission::{GrantSet, GrantSources};
use crate::executor::Terms;
use crate::runtime::{Call, CallLimits, Outcome, Prepared};
use crate::testing::texts::{CAPABILITY, ERROR, LIBC};
use crate::testing::{Server, admitted, guest_state, prepare, runtime};
use crate::worker::WorkerLimits;

/// Does what its input says: a capability, an operation and arguments, the first two with their lengths before them. Gives the answer as
/// output, closes the handle and uses it once more.
const ASKS: &str = r#"(module
    (import "mentat" "read_input" (func $read (param i32 i32 i32) (result i32)))
    (import "mentat" "write_output" (func $write (param i32 i32) (result i32)))
    (import "mentat" "request_capability" (func $request (param i32 i32) (result i32)))
    (import "mentat" "invoke_capability" (func $invoke (param i32 i32 i32 i32 i32) (result i32)))
    (import "mentat" "buffer_read" (func $buffer_read (param i32 i32 i32 i64) (result i32)))
    (import "mentat" "close" (func $close (param i32) (result i32)))
    (memory (export "memory") 4)
    (func (export "process") (result i32)
      (local $n i32) (local $h i32) (local $op i32) (local $args i32) (local $b i32)
      (local.set $n (call $read (i32.const 0) (i32.const 200000) (i32.const 0)))
      (local.set $h (call $request (i32.const 1) (i32.load8_u (i32.const 0))))
      (if (i32.lt_s (local.get $h) (i32.const 0)) (then (return (local.get $h))))
      (local.set $op (i32.add (i32.const 2) (i32.load8_u (i32.const 0))))
      (local.set $args (i32.add (local.get $op) (i32.load8_u (i32.sub (local.get $op) (i32.const 1)))))
      (local.set $b (call $invoke (local.get $h) (local.get $op) (i32.sub (local.get $args) (local.get $op))
        (local.get $args) (i32.sub (local.get $n) (local.get $args))))
      (if (i32.lt_s (local.get $b) (i32.const 0)) (then (return (local.get $b))))
      (drop (call $write (i32.const 0) (call $buffer_read (local.get $b) (i32.const 0) (i32.const 200000) (i64.const 0))))
      (drop (call $close (local.get $h)))
      (call $invoke (local.get $h) (local.get $op) (i32.const 3) (local.get $args) (i32.const 0))))"#;

/// What the guest gives when all was done: its handle is closed by then.
const DONE: i32 = -5;

fn script(capability: &str, operation: &str, arguments: &[u8]) -> Bytes {
    let counted = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    [counted(capability), counted(operation), arguments.to_vec()].concat().into()
}

fn store(limits: KeyValueLimits) -> Extensions {
    let mut extensions = Extensions::default();
    extensions.register(Arc::new(KeyValue::new(limits))).unwrap();
    extensions
}

fn tenant(agent: &str) -> Tenant {
    Tenant { agent: agent.into(), signer: "dev@example.com".into(), issuer: String::new() }
}

/// What a manifest gets that asks for all that policy grants.
fn granting(extensions: &Extensions, agent: &str, texts: &[&str]) -> GrantSet {
    let granted: Vec<Capability> = texts.iter().map(|text| text.parse().unwrap()).collect();
    let sources = GrantSources { extensions: extensions.clone(), ..GrantSources::default() };
    sources.grant(&granted, granted.clone(), &[]).unwrap().of_tenant(tenant(agent))
}

fn ask(guest: &Prepared, operation: &str, arguments: &[u8]) -> Outcome {
    let input = script("extension:key-value", operation, arguments);
    runtime().call(guest, Call { input, ..Call::default() }).unwrap()
}

#[test]
fn an_extension_is_used_by_handle_from_one_call_to_the_next_and_by_its_own_agent_only() {
    let extensions = store(KeyValueLimits::default());
    let guest = |agent: &str| {
        let grants = granting(&extensions, agent, &["extension:key-value"]);
        prepare(ASKS, grants, CallLimits::default()).unwrap()
    };
    let (first, second) = (guest("agent.one"), guest("agent.two"));
    assert_eq!(ask(&first, "put", b"k\0value").exit_code, DONE);
    let got = ask(&first, "get", b"k");
    assert_eq!((got.output.as_slice(), got.exit_code), (&b"value"[..], DONE), "the handle is closed by then");
    assert_eq!(ask(&first, "list", b"").output, b"k\n");
    // What another agent has under that name is nothing, which is no refusal.
    let nothing = ask(&second, "get", b"k");
    assert_eq!((nothing.output.as_slice(), nothing.exit_code), (&b""[..], -7));
    assert!(nothing.log.is_empty(), "{:?}", nothing.log);
    assert_eq!(ask(&first, "delete", b"k").exit_code, DONE);
    assert_eq!(ask(&first, "get", b"k").exit_code, -7);
}

#[test]
fn what_is_not_granted_is_not_reached_and_what_is_narrowed_stays_narrow() {
    let extensions = store(KeyValueLimits::default());
    let ask = |granted: &[&str], capability: &str, operation: &str| {
        let grants = granting(&extensions, "agent.one", granted);
        let guest = prepare(ASKS, grants, CallLimits::default()).unwrap();
        let input = script(capability, operation, b"k\0v");
        runtime().call(&guest, Call { input, ..Call::default() }).unwrap().exit_code
    };
    let whole = "extension:key-value";
    // Another grant links the interface, so that asking is all that is left.
    assert_eq!(ask(&["extension:key-value:read"], whole, "put"), -3);
    assert_eq!(ask(&["extension:key-value:read"], "extension:key-value:read", "put"), -4);
    assert_eq!(ask(&[whole], "extension:key-value:read", "put"), -4, "a guest may narrow its own handle");
    assert_eq!(ask(&[whole], "extension:key-value:write", "put"), -1);
    assert_eq!(ask(&[whole], whole, "drop"), -1, "no such operation");
    assert_eq!(ask(&[whole], "extension:other", "put"), -3);
    assert_eq!(ask(&[whole], whole, "put"), DONE);
    // Without any grant that is used by handle there is nothing to ask with.
    let refused = prepare(ASKS, GrantSet::default(), CallLimits::default()).err().unwrap();
    assert_eq!(refused.code(), "import_not_granted");
}

#[test]
fn what_nobody_registered_is_refused_as_unavailable() {
    let refused = |extensions: &Extensions, text: &str| {
        let asked: Vec<Capability> = vec![text.parse().unwrap()];
        let sources = GrantSources { extensions: extensions.clone(), ..GrantSources::default() };
        sources.grant(&asked, asked.clone(), &[]).map(drop).map_err(|refused| refused.code)
    };
    let (none, some) = (Extensions::default(), store(KeyValueLimits::default()));
    assert_eq!(refused(&none, "extension:key-value"), Err("extension_unavailable"));
    assert_eq!(refused(&some, "extension:vectors"), Err("extension_unavailable"));
    assert_eq!(refused(&some, "extension:key-value:everything"), Err("extension_unavailable"));
    assert_eq!(refused(&some, "extension:key-value"), Ok(()));
    assert_eq!(refused(&some, "extension:key-value:read"), Ok(()));
}

#[test]
fn a_refusal_has_its_number_a_line_of_the_log_and_a_reason_and_the_agent_runs_on() {
    let limits = KeyValueLimits { value: 4, agent: 600, total: 600 };
    let grants = granting(&store(limits), "agent.one", &["extension:key-value"]);
    let guest = prepare(ASKS, grants, CallLimits::default()).unwrap();
    let full = ask(&guest, "put", b"k\0value");
    assert_eq!(full.exit_code, -6);
    assert_eq!(full.log.len(), 1);
    assert!(full.log[0].text.starts_with("extension_quota: key-value: the value"), "{:?}", full.log);
    for key in ["1", "2"] {
        assert_eq!(ask(&guest, "put", format!("{key}\0v").as_bytes()).exit_code, DONE);
    }
    assert_eq!(ask(&guest, "put", b"3\0v").exit_code, -6, "the agent's share");
    assert_eq!(ask(&guest, "get", b"").exit_code, -1);
    assert_eq!(ask(&guest, "get", b"1").output, b"v");
}

#[test]
fn grants_of_nobody_reach_no_extension() {
    let mut state = guest_state();
    let capability: Capability = "extension:key-value".parse().unwrap();
    assert_eq!(state.invoke(&capability, "get", b"k"), Err(crate::abi::ErrorCode::PolicyDenied));
    let granted = vec![capability];
    let sources = GrantSources { extensions: store(KeyValueLimits::default()), ..GrantSources::default() };
    let grants = sources.grant(&granted, granted.clone(), &[]).unwrap();
    assert!(grants.tenant().is_none(), "only admission says whose they are");
    let guest = prepare(ASKS, grants, CallLimits::default()).unwrap();
    assert_eq!(ask(&guest, "get", b"k").exit_code, -4);
}

/// Puts and gets through the interface of components.
fn component() -> String {
    format!(
        r#"(component{ERROR}
  (import "mentat:agent/io@1.0.0" (instance $io
    (alias outer 1 $error (type $e'))
    (export "error" (type $e (eq $e')))
    (export "write-output" (func (param "data" (list u8)) (result (result (error $e))))))){CAPABILITY}{LIBC}
  (core func $write (canon lower (func $io "write-output") (memory $libc "memory") (realloc (func $libc "realloc"))))
  (core func $request (canon lower (func $capability "request") (memory $libc "memory") (realloc (func $libc "realloc"))))
  (core func $invoke (canon lower (func $capability "[method]handle.invoke") (memory $libc "memory")
    (realloc (func $libc "realloc"))))
  (core module $m
    (import "host" "write" (func $write (param i32 i32 i32)))
    (import "host" "request" (func $request (param i32 i32 i32)))
    (import "host" "invoke" (func $invoke (param i32 i32 i32 i32 i32 i32)))
    (import "libc" "memory" (memory 1))
    (data (i32.const 1000) "extension:key-value") (data (i32.const 1100) "put") (data (i32.const 1200) "get")
    (data (i32.const 1300) "k\00value")
    (func $fine (param $at i32) (if (i32.load8_u (local.get $at)) (then unreachable)))
    (func (export "process") (result i32)
      (call $request (i32.const 1000) (i32.const 19) (i32.const 100))
      (call $fine (i32.const 100))
      (call $invoke (i32.load (i32.const 104)) (i32.const 1100) (i32.const 3) (i32.const 1300) (i32.const 7) (i32.const 200))
      (call $fine (i32.const 200))
      (call $invoke (i32.load (i32.const 104)) (i32.const 1200) (i32.const 3) (i32.const 1300) (i32.const 1) (i32.const 300))
      (call $fine (i32.const 300))
      (call $write (i32.load (i32.const 304)) (i32.load (i32.const 308)) (i32.const 400))
      (call $fine (i32.const 400))
      (i32.store (i32.const 16) (i32.const 0)) (i32.const 16)))
  (core instance $m (instantiate $m
    (with "host" (instance (export "write" (func $write)) (export "request" (func $request)) (export "invoke" (func $invoke))))
    (with "libc" (instance $libc))))
  (func (export "process") (result (result (error string)))
    (canon lift (core func $m "process") (memory $libc "memory"))))"#
    )
}

#[test]
fn components_use_the_same_handle() {
    let extensions = store(KeyValueLimits::default());
    let grants = granting(&extensions, "agent.one", &["extension:key-value"]);
    let guest = prepare(&component(), grants, CallLimits::default()).unwrap();
    let outcome = runtime().call(&guest, Call::default()).unwrap();
    assert_eq!((outcome.output.as_slice(), outcome.exit_code), (&b"value"[..], 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_in_a_worker_asks_the_executor_whose_registry_it_is() {
    let server =
        Server::with_workers(WorkerLimits { processes: 1, calls: 1, ..WorkerLimits::default() }).await;
    let extensions = store(KeyValueLimits { value: 8, ..KeyValueLimits::default() });
    let grants = granting(&extensions, "w.kept", &["extension:key-value"]);
    let module = admitted(ASKS, grants, CallLimits::default());
    let module = module.called("w.kept", "kept@example.org").at(TrustLevel::Signed);
    server.executor.admit_for_test(module).await;
    let ask = async |operation: &str, arguments: &[u8]| {
        let input = script("extension:key-value", operation, arguments);
        server.executor.execute("w.kept", input, Terms::default()).await.unwrap().outcome
    };
    assert_eq!(ask("put", b"k\0v").await.exit_code, DONE);
    assert_eq!(ask("get", b"k").await.output, b"v");
    assert_eq!(ask("put", b"k\0longer than eight").await.exit_code, -6);
    let counted = "mentatlab_extension_refusals_total{reason=\"extension_quota\"} 1";
    let metrics = server.exposition();
    assert!(metrics.lines().any(|line| line == counted), "{metrics}");
    server.executor.close().await;
    let audit = std::fs::read_to_string(server.state().join("audit.jsonl")).unwrap();
    assert!(audit.contains("extension_quota: key-value: the value is larger"), "{audit}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_agent_kept_goes_with_its_last_release() {
    let server = Server::start().await;
    let mut extensions = Extensions::default();
    extensions.register(Arc::clone(&server.kept) as _).unwrap();
    // Another release of the same agent: a custom section more.
    let newer = ASKS.replacen("(module", "(module (@custom \"release\" \"2\")", 1);
    let mut releases = Vec::new();
    for text in [ASKS, &newer] {
        let grants = granting(&extensions, "kept.agent", &["extension:key-value"]);
        let module = admitted(text, grants, CallLimits::default()).called("kept.agent", "dev@example.com");
        releases.push(server.executor.admit_for_test(module).await.to_string());
    }
    assert_ne!(releases[0], releases[1]);
    let input = script("extension:key-value", "put", b"k\0v");
    let put = server.executor.execute("kept.agent", input, Terms::default()).await.unwrap();
    assert_eq!(put.outcome.exit_code, DONE);
    let used = server.kept.used();
    assert!(used > 0);
    server.executor.unload(&releases[0]).await.unwrap();
    assert_eq!(server.kept.used(), used, "a release is left that may be called");
    server.executor.unload(&releases[1]).await.unwrap();
    assert_eq!(server.kept.used(), 0);
}

/// Answers with more than it may, or waits to be asked for too much.
#[derive(Debug)]
struct Loud(&'static str, &'static [Operation]);

impl HostExtension for Loud {
    fn name(&self) -> &str {
        self.0
    }

    fn operations(&self) -> &'static [Operation] {
        self.1
    }

    fn invoke(&self, invocation: &Invocation<'_>) -> Result<Vec<u8>, ExtensionError> {
        Ok([invocation.arguments, b"!"].concat())
    }
}

const SHOUT: Operation = Operation { name: "shout", arguments: 4, answer: 4 };

#[test]
fn the_bounds_of_an_operation_are_held_whatever_the_extension_does() {
    let mut extensions = Extensions::default();
    extensions.register(Arc::new(Loud("loud", &[SHOUT]))).unwrap();
    let (owner, cancel) = (tenant("a"), crate::runtime::Cancel::default());
    let deadline = crate::clock::monotonic();
    let ask = |operation: &str, arguments: &[u8], argument: Option<&str>| {
        let tenant = &owner;
        let invocation = Invocation { tenant, argument, operation, arguments, deadline, cancel: &cancel };
        extensions.invoke("loud", &invocation).map_err(|error| error.reason().unwrap())
    };
    assert_eq!(ask("shout", b"abc", None), Ok(b"abc!".to_vec()));
    assert_eq!(ask("shout", b"abcd", None), Err("extension_failed"), "its answer is too long");
    assert_eq!(ask("shout", b"abcde", None), Err("extension_quota"));
    assert_eq!(ask("whisper", b"", None), Err("extension_malformed"));
    assert_eq!(ask("shout", b"", Some("louder")), Err("extension_malformed"));
}

#[test]
fn what_cannot_be_offered_is_not_registered() {
    let mut extensions = Extensions::default();
    let mut register = |name: &'static str, operations: &'static [Operation]| {
        extensions.register(Arc::new(Loud(name, operations)))
    };
    for name in ["", "Loud", "1loud", "loud_er", "l\u{f6}ud"] {
        assert_eq!(register(name, &[SHOUT]), Err(RegistrationError::Name(name.into())));
    }
    for name in ["media", "stream"] {
        assert_eq!(register(name, &[SHOUT]), Err(RegistrationError::Taken(name.into())));
    }
    for operations in [&[][..], &[SHOUT, SHOUT]] {
        assert_eq!(register("loud", operations), Err(RegistrationError::Operations("loud".into())));
    }
    assert_eq!(register("loud", &[SHOUT]), Ok(()));
    assert_eq!(register("loud", &[SHOUT]), Err(RegistrationError::Taken("loud".into())));
}

//! A handler that does what the path says, and what becomes of each.

use std::time::Duration;

use bytes::Bytes;
use trust_store::policy::TrustLevel;

use crate::admission::GrantSet;
use crate::executor::Terms;
use crate::runtime::{Call, CallError, CallLimits, Outcome, PrepareError};
use crate::testing::texts::libc;
use crate::testing::{Server, admitted, prepare, runtime};
use crate::worker::WorkerLimits;

/// Streams and the part of `wasi:http/types` that a handler needs, then what `more` is.
fn handler(more: &str) -> String {
    format!(
        r#"(component
  (import "wasi:io/error@0.2.0" (instance $io-error (export "error" (type (sub resource)))))
  (alias export $io-error "error" (type $error))
  (import "wasi:io/streams@0.2.0" (instance $streams
    (export "input-stream" (type $is (sub resource)))
    (export "output-stream" (type $os (sub resource)))
    (alias outer 1 $error (type $e))
    (type $se' (variant (case "last-operation-failed" (own $e)) (case "closed")))
    (export "stream-error" (type $se (eq $se')))
    (export "[method]input-stream.blocking-read" (func (param "self" (borrow $is)) (param "len" u64)
      (result (result (list u8) (error $se)))))
    (export "[method]output-stream.write" (func (param "self" (borrow $os)) (param "contents" (list u8)) (result (result (error $se)))))
    (export "[method]output-stream.blocking-write-and-flush"
      (func (param "self" (borrow $os)) (param "contents" (list u8)) (result (result (error $se)))))))
  (alias export $streams "input-stream" (type $input-stream))
  (alias export $streams "output-stream" (type $output-stream))
  (import "wasi:http/types@0.2.0" (instance $http
    (alias outer 1 $input-stream (type $is'))
    (export "input-stream" (type $is (eq $is')))
    (alias outer 1 $output-stream (type $os'))
    (export "output-stream" (type $os (eq $os')))
    (type $dns' (record (field "rcode" (option string)) (field "info-code" (option u16))))
    (export "DNS-error-payload" (type $dns (eq $dns')))
    (type $tls' (record (field "alert-id" (option u8)) (field "alert-message" (option string))))
    (export "TLS-alert-received-payload" (type $tls (eq $tls')))
    (type $field' (record (field "field-name" (option string)) (field "field-size" (option u32))))
    (export "field-size-payload" (type $field (eq $field')))
    (type $code' (variant (case "DNS-timeout") (case "DNS-error" $dns) (case "destination-not-found")
      (case "destination-unavailable") (case "destination-IP-prohibited") (case "destination-IP-unroutable")
      (case "connection-refused") (case "connection-terminated") (case "connection-timeout")
      (case "connection-read-timeout") (case "connection-write-timeout") (case "connection-limit-reached")
      (case "TLS-protocol-error") (case "TLS-certificate-error") (case "TLS-alert-received" $tls)
      (case "HTTP-request-denied") (case "HTTP-request-length-required") (case "HTTP-request-body-size" (option u64))
      (case "HTTP-request-method-invalid") (case "HTTP-request-URI-invalid") (case "HTTP-request-URI-too-long")
      (case "HTTP-request-header-section-size" (option u32)) (case "HTTP-request-header-size" (option $field))
      (case "HTTP-request-trailer-section-size" (option u32)) (case "HTTP-request-trailer-size" $field)
      (case "HTTP-response-incomplete") (case "HTTP-response-header-section-size" (option u32))
      (case "HTTP-response-header-size" $field) (case "HTTP-response-body-size" (option u64))
      (case "HTTP-response-trailer-section-size" (option u32)) (case "HTTP-response-trailer-size" $field)
      (case "HTTP-response-transfer-coding" (option string)) (case "HTTP-response-content-coding" (option string))
      (case "HTTP-response-timeout") (case "HTTP-upgrade-failed") (case "HTTP-protocol-error") (case "loop-detected")
      (case "configuration-error") (case "internal-error" (option string))))
    (export "error-code" (type $code (eq $code')))
    (export "fields" (type $fields (sub resource)))
    (export "incoming-request" (type $request (sub resource)))
    (export "incoming-body" (type $incoming (sub resource)))
    (export "outgoing-request" (type $asked (sub resource)))
    (export "outgoing-response" (type $response (sub resource)))
    (export "outgoing-body" (type $outgoing (sub resource)))
    (export "response-outparam" (type $outparam (sub resource)))
    (export "[constructor]fields" (func (result (own $fields))))
    (export "[method]incoming-request.path-with-query" (func (param "self" (borrow $request)) (result (option string))))
    (export "[method]incoming-request.consume" (func (param "self" (borrow $request)) (result (result (own $incoming)))))
    (export "[method]incoming-body.stream" (func (param "self" (borrow $incoming)) (result (result (own $is)))))
    (export "[constructor]outgoing-request" (func (param "headers" (own $fields)) (result (own $asked))))
    (export "[method]outgoing-request.body" (func (param "self" (borrow $asked)) (result (result (own $outgoing)))))
    (export "[constructor]outgoing-response" (func (param "headers" (own $fields)) (result (own $response))))
    (export "[method]outgoing-response.set-status-code"
      (func (param "self" (borrow $response)) (param "status-code" u16) (result (result))))
    (export "[method]outgoing-response.body" (func (param "self" (borrow $response)) (result (result (own $outgoing)))))
    (export "[method]outgoing-body.write" (func (param "self" (borrow $outgoing)) (result (result (own $os)))))
    (export "[static]outgoing-body.finish" (func (param "this" (own $outgoing)) (param "trailers" (option (own $fields)))
      (result (result (error $code)))))
    (export "[static]response-outparam.set" (func (param "param" (own $outparam))
      (param "response" (result (own $response) (error $code)))))))
  (alias export $http "incoming-request" (type $incoming-request))
  (alias export $http "response-outparam" (type $response-outparam))
  {more})"#
    )
}

/// Answers with the body of the request; by the letter after the first slash it fails, gives nothing, gives an error, does not finish, spins,
/// writes without end, or makes requests of its own first: writes twice to the body of each and keeps it.
fn mirror() -> String {
    handler(
        &(libc(32, 32_768)
            + r#"
  (core func $read (canon lower (func $streams "[method]input-stream.blocking-read") (memory $libc "memory")
    (realloc (func $libc "realloc"))))
  (core func $write (canon lower (func $streams "[method]output-stream.blocking-write-and-flush") (memory $libc "memory")))
  (core func $put (canon lower (func $streams "[method]output-stream.write") (memory $libc "memory")))
  (core func $drop (canon resource.drop $output-stream))
  (core func $ask (canon lower (func $http "[constructor]outgoing-request")))
  (core func $asked (canon lower (func $http "[method]outgoing-request.body") (memory $libc "memory")))
  (core func $fields (canon lower (func $http "[constructor]fields")))
  (core func $path (canon lower (func $http "[method]incoming-request.path-with-query") (memory $libc "memory")
    (realloc (func $libc "realloc"))))
  (core func $consume (canon lower (func $http "[method]incoming-request.consume") (memory $libc "memory")))
  (core func $stream (canon lower (func $http "[method]incoming-body.stream") (memory $libc "memory")))
  (core func $response (canon lower (func $http "[constructor]outgoing-response")))
  (core func $status (canon lower (func $http "[method]outgoing-response.set-status-code")))
  (core func $body (canon lower (func $http "[method]outgoing-response.body") (memory $libc "memory")))
  (core func $into (canon lower (func $http "[method]outgoing-body.write") (memory $libc "memory")))
  (core func $finish (canon lower (func $http "[static]outgoing-body.finish") (memory $libc "memory")
    (realloc (func $libc "realloc"))))
  (core func $set (canon lower (func $http "[static]response-outparam.set") (memory $libc "memory")))
  (core module $main
    (import "host" "read" (func $read (param i32 i64 i32)))
    (import "host" "write" (func $write (param i32 i32 i32 i32)))
    (import "host" "put" (func $put (param i32 i32 i32 i32)))
    (import "host" "drop" (func $drop (param i32)))
    (import "host" "ask" (func $ask (param i32) (result i32)))
    (import "host" "asked" (func $asked (param i32 i32)))
    (import "host" "fields" (func $fields (result i32)))
    (import "host" "path" (func $path (param i32 i32)))
    (import "host" "consume" (func $consume (param i32 i32)))
    (import "host" "stream" (func $stream (param i32 i32)))
    (import "host" "response" (func $response (param i32) (result i32)))
    (import "host" "status" (func $status (param i32 i32) (result i32)))
    (import "host" "body" (func $body (param i32 i32)))
    (import "host" "into" (func $into (param i32 i32)))
    (import "host" "finish" (func $finish (param i32 i32 i32 i32)))
    (import "host" "set" (func $set (param i32 i32 i32 i32 i64 i32 i32 i32 i32)))
    (import "libc" "memory" (memory 1))
    (func $answer (param $out i32) (param $failed i32) (param $what i32)
      (call $set (local.get $out) (local.get $failed) (local.get $what) (i32.const 0) (i64.const 0) (i32.const 0)
        (i32.const 0) (i32.const 0) (i32.const 0)))
    (func $hoard (param $requests i32) (param $bytes i32) (local $to i32)
      (loop $more
        (call $asked (call $ask (call $fields)) (i32.const 112))
        (call $into (i32.load (i32.const 116)) (i32.const 120))
        (local.set $to (i32.load (i32.const 124)))
        (call $put (local.get $to) (i32.const 1024) (local.get $bytes) (i32.const 128))
        (call $put (local.get $to) (i32.const 1024) (local.get $bytes) (i32.const 128))
        (call $drop (local.get $to))
        (br_if $more (local.tee $requests (i32.sub (local.get $requests) (i32.const 1))))))
    (func (export "handle") (param $request i32) (param $out i32)
      (local $does i32) (local $response i32) (local $to i32)
      (call $path (local.get $request) (i32.const 0))
      (local.set $does (i32.load8_u offset=1 (i32.load (i32.const 4))))
      (if (i32.eq (local.get $does) (i32.const 115)) (then (loop $spin (br $spin))))            ;; s
      (if (i32.eq (local.get $does) (i32.const 110)) (then (return)))                           ;; n
      (if (i32.eq (local.get $does) (i32.const 101))                                            ;; e
        (then (call $answer (local.get $out) (i32.const 1) (i32.const 15)) (return)))
      (if (i32.eq (local.get $does) (i32.const 104)) (then (call $hoard (i32.const 100) (i32.const 16384))))   ;; h
      (if (i32.eq (local.get $does) (i32.const 105)) (then (call $hoard (i32.const 1) (i32.const 16385))))     ;; i
      (if (i32.eq (local.get $does) (i32.const 106)) (then (call $hoard (i32.const 200) (i32.const 1))))       ;; j
      (call $consume (local.get $request) (i32.const 16))
      (call $stream (i32.load (i32.const 20)) (i32.const 24))
      (local.set $response (call $response (call $fields)))
      (if (i32.eq (local.get $does) (i32.const 102))                                            ;; f
        (then (drop (call $status (local.get $response) (i32.const 503)))))
      (call $body (local.get $response) (i32.const 32))
      (call $answer (local.get $out) (i32.const 0) (local.get $response))
      (call $into (i32.load (i32.const 36)) (i32.const 40))
      (local.set $to (i32.load (i32.const 44)))
      (if (i32.eq (local.get $does) (i32.const 108)) (then                                      ;; l
        (loop $on
          (call $write (local.get $to) (i32.const 1024) (i32.const 4096) (i32.const 48))
          (br_if $on (i32.eqz (i32.load8_u (i32.const 48)))))
        (return)))
      (block $end (loop $more
        (call $read (i32.load (i32.const 28)) (i64.const 4096) (i32.const 64))
        (br_if $end (i32.load8_u (i32.const 64)))
        (call $write (local.get $to) (i32.load (i32.const 68)) (i32.load (i32.const 72)) (i32.const 48))
        (br $more)))
      (if (i32.eq (local.get $does) (i32.const 117)) (then (return)))                           ;; u
      (call $drop (local.get $to))
      (call $finish (i32.load (i32.const 36)) (i32.const 0) (i32.const 0) (i32.const 96))))
  (core instance $main (instantiate $main
    (with "host" (instance (export "read" (func $read)) (export "write" (func $write)) (export "drop" (func $drop))
      (export "put" (func $put)) (export "ask" (func $ask)) (export "asked" (func $asked)) (export "fields" (func $fields)) (export "path" (func $path)) (export "consume" (func $consume))
      (export "stream" (func $stream)) (export "response" (func $response)) (export "status" (func $status))
      (export "body" (func $body)) (export "into" (func $into)) (export "finish" (func $finish)) (export "set" (func $set))))
    (with "libc" (instance $libc))))
  (func $handle (param "request" (own $incoming-request)) (param "response-out" (own $response-outparam))
    (canon lift (core func $main "handle")))
  (instance $handler (export "handle" (func $handle)))
  (export "wasi:http/incoming-handler@0.2.0" (instance $handler))"#),
    )
}

fn asked(input: &str, limits: CallLimits) -> Result<Outcome, CallError> {
    let prepared = prepare(&mirror(), GrantSet::default(), limits).unwrap();
    runtime().call(&prepared, Call { input: Bytes::copy_from_slice(input.as_bytes()), ..Call::default() })
}

fn answered(input: &str) -> (String, i32) {
    let outcome = asked(input, CallLimits::default()).unwrap();
    (String::from_utf8(outcome.output).unwrap(), outcome.exit_code)
}

#[test]
fn the_input_is_the_request_and_the_output_the_answer() {
    let (output, code) = answered(r#"{"method":"POST","path":"/a?b","text":"hello"}"#);
    assert_eq!((output.as_str(), code), (r#"{"status":200,"headers":[],"text":"hello"}"#, 0));
    let (output, code) = answered("{}");
    assert_eq!((output.as_str(), code), (r#"{"status":200,"headers":[],"text":""}"#, 0));
    // More than any buffer between the two, in both directions.
    let body = "0123456789abcdef".repeat(20_000);
    let (output, code) = answered(&format!(r#"{{"method":"PUT","text":"{body}"}}"#));
    assert_eq!(code, 0);
    assert!(output == format!(r#"{{"status":200,"headers":[],"text":"{body}"}}"#), "{}", output.len());
}

#[test]
fn an_answer_that_says_it_failed_is_given_and_counts_as_a_failure() {
    let (output, code) = answered(r#"{"path":"/fail"}"#);
    assert_eq!((output.as_str(), code), (r#"{"status":503,"headers":[],"text":""}"#, 1));
}

#[test]
fn a_handler_that_does_not_answer_has_no_output_and_the_log_says_why() {
    for (path, why) in [
        ("/nothing", "the handler returned before its answer was finished"),
        ("/unfinished", "the handler returned before its answer was finished"),
        ("/error", "the handler answered with the error ErrorCode::HttpRequestDenied"),
    ] {
        let outcome = asked(&format!(r#"{{"path":"{path}"}}"#), CallLimits::default()).unwrap();
        assert_eq!((outcome.output.as_slice(), outcome.exit_code), (&b""[..], 1), "{path}");
        let said: Vec<_> = outcome.log.iter().map(|line| line.text.as_str()).collect();
        assert_eq!(said, [format!("http: {why}")], "{path}");
    }
}

#[test]
fn what_is_no_request_is_answered_without_the_agent() {
    let outcome = asked("hello", CallLimits::default()).unwrap();
    let text = String::from_utf8(outcome.output).unwrap();
    assert!(text.starts_with(r#"{"status":400,"#), "{text}");
    assert_eq!((outcome.exit_code, outcome.usage.memory_bytes), (0, 0), "no instance was made");
}

#[test]
fn limits_of_a_call_hold_for_handlers() {
    let limits = CallLimits { output: 100_000, ..CallLimits::default() };
    let outcome = asked(r#"{"path":"/long"}"#, limits).unwrap();
    assert_eq!((outcome.output.as_slice(), outcome.exit_code), (&b""[..], 1));
    assert_eq!(outcome.log[0].text, "http: the answer is longer than a call may write");
    let limits = CallLimits { wall: Duration::from_millis(40), ..CallLimits::default() };
    let ended = asked(r#"{"path":"/spin"}"#, limits).unwrap_err();
    assert_eq!(ended.code(), "deadline_exceeded");
    let limits = CallLimits { memory: 1 << 20, ..CallLimits::default() };
    assert_eq!(asked("{}", limits).unwrap_err().code(), "memory_limit");
}

/// Bodies that nobody reads are memory of the host, which no limit of the call is about.
#[test]
fn a_handler_keeps_little_in_bodies_that_nobody_reads() {
    let (output, code) = answered(r#"{"path":"/h"}"#);
    assert_eq!((output.as_str(), code), (r#"{"status":200,"headers":[],"text":""}"#, 0));
    for more in ["/i", "/j"] {
        let ended = asked(&format!(r#"{{"path":"{more}"}}"#), CallLimits::default());
        assert!(matches!(ended, Err(CallError::Boundary { .. })), "{more}: {ended:?}");
    }
}

#[test]
fn nobody_gets_the_types_without_a_handler_and_nobody_the_way_out() {
    let refused = |text: &str| prepare(text, GrantSet::default(), CallLimits::default()).err().unwrap();
    let out = "wasi:http/outgoing-handler@0.2.0";
    let with_way_out =
        mirror().replacen("(component", &format!("(component (import \"{out}\" (instance))"), 1);
    assert_eq!(refused(&with_way_out), PrepareError::ImportNotGranted { name: out.into() });
    let no_handler = PrepareError::ImportNotGranted { name: "wasi:http/types@0.2.0".into() };
    assert_eq!(refused(&handler("")), no_handler);
    let later = mirror().replace("wasi:http/types@0.2.0", "wasi:http/types@0.3.0");
    assert_eq!(refused(&later), PrepareError::ImportNotGranted { name: "wasi:http/types@0.3.0".into() });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_answers_in_a_worker_as_well() {
    let server =
        Server::with_workers(WorkerLimits { processes: 1, calls: 1, ..WorkerLimits::default() }).await;
    let module = admitted(&mirror(), GrantSet::default(), CallLimits::default());
    let module = module.called("w.http", "http@example.org").at(TrustLevel::Signed);
    server.executor.admit_for_test(module).await;
    let input = Bytes::from_static(br#"{"method":"POST","text":"hello"}"#);
    let ended = server.executor.execute("w.http", input, Terms::default()).await.unwrap();
    assert_eq!(ended.outcome.output, br#"{"status":200,"headers":[],"text":"hello"}"#);
}

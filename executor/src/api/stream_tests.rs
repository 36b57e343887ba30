//! Streams over both transports, and the standard services of gRPC.

use std::time::Duration;

use bytes::Bytes;
use executor_api::health::HealthCheckRequest;
use executor_api::health::health_check_response::ServingStatus;
use executor_api::health::health_client::HealthClient;
use executor_api::reflection::ServerReflectionRequest;
use executor_api::reflection::server_reflection_client::ServerReflectionClient;
use executor_api::reflection::server_reflection_request::MessageRequest;
use executor_api::reflection::server_reflection_response::MessageResponse;
use executor_api::stream::StreamLine;
use executor_api::v1::execute_agent_stream_request::Part;
use executor_api::v1::execute_agent_stream_response::Event;
use executor_api::v1::executor_client::ExecutorClient as GrpcClient;
use executor_api::{Execute, REASON_METADATA, v1};
use tonic::transport::{Channel, Endpoint};

use crate::admission::{GrantSet, GrantSources};
use crate::executor::{Next, Terms};
use crate::runtime::{CallLimits, KillCause, Selector};
use crate::streams::StreamEvent;
use crate::testing::{ENDS, Server};

/// Streams its input in pieces of four bytes, then answers with `done`.
pub(super) const STREAMS: &str = r#"(module
  (import "mentat" "read_input" (func $read (param i32 i32 i32) (result i32)))
  (import "mentat" "write_output" (func $write (param i32 i32) (result i32)))
  (import "mentat" "start_stream" (func $start (param i32 i32) (result i32)))
  (import "mentat" "write_stream" (func $send (param i32 i32 i32) (result i32)))
  (import "mentat" "end_stream" (func $end (param i32) (result i32)))
  (memory (export "memory") 2)
  (data (i32.const 0) "pieces") (data (i32.const 16) "done")
  (func (export "process") (result i32) (local $s i32) (local $n i32) (local $at i32) (local $code i32)
    (local.set $s (call $start (i32.const 0) (i32.const 6)))
    (if (i32.lt_s (local.get $s) (i32.const 0)) (then (return (local.get $s))))
    (block $over (loop $next
      (local.set $n (call $read (i32.const 100) (i32.const 4) (local.get $at)))
      (br_if $over (i32.eqz (local.get $n)))
      (local.set $code (call $send (local.get $s) (i32.const 100) (local.get $n)))
      (if (i32.lt_s (local.get $code) (i32.const 0)) (then (return (local.get $code))))
      (local.set $at (i32.add (local.get $at) (local.get $n)))
      (br $next)))
    (drop (call $end (local.get $s)))
    (drop (call $write (i32.const 16) (i32.const 4)))
    ;; an ended stream is worth nothing
    (call $send (local.get $s) (i32.const 0) (i32.const 1))))"#;

/// Streams without end.
const FLOOD: &str = r#"(module
  (import "mentat" "start_stream" (func $start (param i32 i32) (result i32)))
  (import "mentat" "write_stream" (func $send (param i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (data (i32.const 0) "flood")
  (func (export "process") (result i32) (local $s i32) (local $code i32)
    (local.set $s (call $start (i32.const 0) (i32.const 5)))
    (loop $more
      (local.set $code (call $send (local.get $s) (i32.const 0) (i32.const 65536)))
      (br_if $more (i32.gt_s (local.get $code) (i32.const 0))))
    (local.get $code)))"#;

pub(super) fn streaming() -> GrantSet {
    let granted = vec!["extension:stream".parse().unwrap()];
    GrantSources::default().grant(&granted, granted.clone(), &[]).unwrap()
}

async fn channel(server: &Server) -> Channel {
    let endpoint = format!("http://{}", server.address);
    Endpoint::from_shared(endpoint).unwrap().connect().await.unwrap()
}

async fn http(server: &Server, agent: &str, call: &Execute) -> Vec<StreamLine> {
    let url = format!("http://{}/api/v1/agents/{agent}/stream", server.address);
    let answer = reqwest::Client::new().post(url).json(call).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "application/x-ndjson");
    let text = answer.text().await.unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn what_a_guest_streams_arrives_in_order_over_both_transports() {
    let server = Server::start().await;
    let agent = server.admit(STREAMS, streaming(), CallLimits::default()).await.to_string();
    let call = Execute { input: executor_api::Base64Bytes(b"0123456789".to_vec()), ..Execute::default() };
    let mut whole = Vec::new();
    let mut last = None;
    for line in http(&server, &agent, &call).await {
        match line {
            StreamLine::Data { stream, sequence, chunk } => {
                assert_eq!((stream.as_str(), sequence), ("pieces", whole.len() as u64 / 4));
                whole.extend(chunk.0);
            }
            other => last = Some(other),
        }
    }
    assert_eq!(whole, b"0123456789");
    let Some(StreamLine::Result(done)) = last else { panic!("{last:?}") };
    assert_eq!((done.output.0.as_slice(), done.exit_code), (&b"done"[..], -5));

    let mut client = GrpcClient::new(channel(&server).await);
    let first = v1::ExecuteAgentRequest { agent, input: Bytes::from_static(b"0123"), ..Default::default() };
    let parts =
        [Part::Call(first), Part::InputChunk(Bytes::from_static(b"456")), Part::InputChunk("78".into())];
    let parts = parts.map(|part| v1::ExecuteAgentStreamRequest { part: Some(part) });
    let mut answers =
        client.execute_agent_stream(futures_util::stream::iter(parts)).await.unwrap().into_inner();
    let mut seen = Vec::new();
    while let Some(answer) = answers.message().await.unwrap() {
        seen.push(match answer.event.unwrap() {
            Event::Data(data) => format!("{} {} {}", data.stream, data.sequence, data.chunk.len()),
            Event::End(end) => format!("{} of {}", end.stream, end.total_chunks),
            Event::Result(done) => String::from_utf8(done.output.to_vec()).unwrap(),
            other => panic!("{other:?}"),
        });
    }
    assert_eq!(seen, ["pieces 0 4", "pieces 1 4", "pieces 2 1", "pieces of 3", "done"]);
}

#[tokio::test]
async fn a_receipt_covers_what_was_streamed() {
    let server = Server::start().await;
    let agent = server.admit(STREAMS, streaming(), CallLimits::default()).await.to_string();
    let input = Bytes::from_static(b"abcdefgh");
    let mut running = server.executor.execute_streaming(&agent, input, Terms::default()).await.unwrap();
    let instance = loop {
        if let Next::Ended(done) = running.next().await.unwrap() {
            break done.unwrap().outcome.instance.to_string();
        }
    };
    assert!(running.next().await.is_none());
    let proof = loop {
        match server.executor.receipts().of_instance(&instance) {
            Ok(proof) => break proof,
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    let entry = tlog::proof_file::ProofFile::parse(&proof).unwrap().extra.unwrap();
    let receipt = executor_api::receipt::Receipt::from_entry(&entry).unwrap();
    assert_eq!(receipt.output, executor_engine::ModuleDigest::of(b"abcdefghdone").to_string());
}

#[tokio::test]
async fn refusals_come_as_problems_before_a_call_and_as_events_after_it_began() {
    let server = Server::start().await;
    let url = format!("http://{}/api/v1/agents/nobody/stream", server.address);
    let answer = reqwest::Client::new().post(&url).json(&Execute::default()).send().await.unwrap();
    assert_eq!(answer.status(), 404);
    let mut client = GrpcClient::new(channel(&server).await);
    let start = |part| futures_util::stream::iter([v1::ExecuteAgentStreamRequest { part: Some(part) }]);
    let unknown = v1::ExecuteAgentRequest { agent: "nobody".into(), ..Default::default() };
    let refused = client.execute_agent_stream(start(Part::Call(unknown))).await.unwrap_err();
    assert_eq!(refused.metadata().get(REASON_METADATA).unwrap(), "not_loaded");
    let refused = client.execute_agent_stream(start(Part::InputChunk(Bytes::new()))).await.unwrap_err();
    assert_eq!(refused.metadata().get(REASON_METADATA).unwrap(), "invalid_argument");

    // A call with one answer has no streams, whatever was granted.
    let agent = server.admit(STREAMS, streaming(), CallLimits::default()).await.to_string();
    let done = server.executor.execute(&agent, Bytes::from_static(b"x"), Terms::default()).await.unwrap();
    assert_eq!(done.outcome.exit_code, crate::abi::ErrorCode::NotSupported as i32);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_stops_reading_holds_the_guest_and_not_the_memory() {
    let _alone = ENDS.lock().await;
    let server = Server::start().await;
    let agent = server.admit(FLOOD, streaming(), CallLimits::default()).await;
    let name = agent.to_string();
    let mut running = server.executor.execute_streaming(&name, Bytes::new(), Terms::default()).await.unwrap();
    let Some(Next::Event(StreamEvent::Data { sequence: 0, .. })) = running.next().await else {
        panic!("nothing")
    };
    // It waits in a host call, where no tick reaches it, and a stop does.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let selector = Selector { digest: Some(agent), ..Selector::default() };
    assert_eq!(server.executor.runtime().stop(&selector, KillCause::Revoked), 1);
    let mut pieces = 1;
    let ended = loop {
        match running.next().await.unwrap() {
            Next::Event(_) => pieces += 1,
            Next::Ended(ended) => break ended,
        }
    };
    assert!(pieces <= 64, "{pieces} pieces of 64 KiB were kept for a reader that was away");
    // Before its next tick it hears of it in the host, and ends with what it likes.
    let status = match ended {
        Err(denied) => denied.code,
        Ok(ended) => {
            assert_eq!(ended.outcome.exit_code, crate::abi::ErrorCode::Revoked as i32);
            "guest_error"
        }
    };
    assert_eq!(server.counted(&format!("wasm_instances_total{{status=\"{status}\"}}")), 1);

    // Whoever goes away ends the call.
    let gone = server.executor.execute_streaming(&name, Bytes::new(), Terms::default()).await.unwrap();
    drop(gone);
    while server.executor.runtime().live().list().iter().any(|live| live.owner.digest == agent) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Logs and never ends.
const LOGS: &str = r#"(module
  (import "mentat" "log" (func $log (param i32 i32 i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "half way")
  (func (export "process") (result i32)
    (call $log (i32.const 2) (i32.const 0) (i32.const 8))
    (loop $l (br $l)) (i32.const 0)))"#;

/// It can only be read while the guest runs: the guest ends when it was read.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_guest_logs_is_read_while_it_runs_over_both_transports() {
    let server = Server::start().await;
    let spin = |name: &str| {
        crate::testing::admitted(LOGS, GrantSet::default(), crate::testing::patient())
            .called(name, "dev@example.org")
    };
    for name in ["logs.over-http", "logs.over-grpc"] {
        server.executor.admit_for_test(spin(name)).await;
    }
    let stop = |name: &str| {
        let selector = Selector { agent: Some(name.to_owned()), ..Selector::default() };
        assert_eq!(server.executor.stop(&selector).unwrap(), 1);
    };
    let url = format!("http://{}/api/v1/agents/logs.over-http/stream", server.address);
    let mut answer = reqwest::Client::new().post(url).json(&Execute::default()).send().await.unwrap();
    let first = answer.chunk().await.unwrap().unwrap();
    assert_eq!(first, "{\"event\":\"log\",\"level\":\"info\",\"text\":\"half way\"}\n");
    stop("logs.over-http");
    let mut rest = String::new();
    while let Some(more) = answer.chunk().await.unwrap() {
        rest.push_str(std::str::from_utf8(&more).unwrap());
    }
    let StreamLine::Error(failed) = serde_json::from_str(rest.trim_end()).unwrap() else { panic!("{rest}") };
    assert_eq!((failed.reason.as_str(), failed.said.log.len()), ("stopped", 1), "the log as a whole, once");

    let mut client = GrpcClient::new(channel(&server).await);
    let call = v1::ExecuteAgentRequest { agent: "logs.over-grpc".into(), ..Default::default() };
    let parts = [v1::ExecuteAgentStreamRequest { part: Some(Part::Call(call)) }];
    let mut answers =
        client.execute_agent_stream(futures_util::stream::iter(parts)).await.unwrap().into_inner();
    let Some(Event::Log(line)) = answers.message().await.unwrap().unwrap().event else { panic!("no line") };
    assert_eq!((line.level.as_str(), line.text.as_str()), ("info", "half way"));
    stop("logs.over-grpc");
    let refused = answers.message().await.unwrap_err();
    assert_eq!(refused.metadata().get(REASON_METADATA).unwrap(), "stopped");
}

#[tokio::test]
async fn health_and_reflection_are_answered_as_the_standards_say() {
    let server = Server::start().await;
    let mut health = HealthClient::new(channel(&server).await);
    let ask = |service: &str| HealthCheckRequest { service: service.into() };
    for service in ["", "mentat.executor.v1.Executor"] {
        let status = health.check(ask(service)).await.unwrap().into_inner().status();
        // Evidence was never fetched completely in this server.
        let ready = server.executor.problems().is_empty();
        assert_eq!(status == ServingStatus::Serving, ready, "{status:?}");
        let mut watched = health.watch(ask(service)).await.unwrap().into_inner();
        assert_eq!(watched.message().await.unwrap().unwrap().status(), status);
    }
    assert_eq!(health.check(ask("other")).await.unwrap_err().code(), tonic::Code::NotFound);
    let mut watched = health.watch(ask("other")).await.unwrap().into_inner();
    assert_eq!(watched.message().await.unwrap().unwrap().status(), ServingStatus::ServiceUnknown);

    let mut reflection = ServerReflectionClient::new(channel(&server).await);
    let asked = [
        MessageRequest::ListServices(String::new()),
        MessageRequest::FileByFilename("grpc/health/v1/health.proto".into()),
        MessageRequest::FileContainingSymbol("mentat.executor.v1.Executor.ExecuteAgent".into()),
        MessageRequest::FileContainingSymbol("grpc.health.v1.HealthCheckResponse.ServingStatus".into()),
        MessageRequest::FileContainingSymbol("other".into()),
        MessageRequest::AllExtensionNumbersOfType("mentat.executor.v1.Agent".into()),
    ];
    let asked =
        asked.map(|request| ServerReflectionRequest { message_request: Some(request), ..Default::default() });
    let asked = futures_util::stream::iter(asked);
    let mut answers = reflection.server_reflection_info(asked).await.unwrap().into_inner();
    let mut next = async || answers.message().await.unwrap().unwrap().message_response.unwrap();
    let MessageResponse::ListServicesResponse(services) = next().await else { panic!("no list") };
    let names: Vec<String> = services.service.into_iter().map(|service| service.name).collect();
    let expected =
        ["mentat.executor.v1.Executor", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"];
    assert_eq!(names, expected);
    for name in ["health.proto", "executor.proto", "health.proto"] {
        let MessageResponse::FileDescriptorResponse(files) = next().await else { panic!("no {name}") };
        let [file] = &files.file_descriptor_proto[..] else { panic!("{files:?}") };
        // Field 1 is the file's name.
        let text = String::from_utf8_lossy(file.get(..80).unwrap_or(file)).into_owned();
        assert!(file[0] == 10 && text.contains(name), "{text}");
    }
    for code in [tonic::Code::NotFound, tonic::Code::Unimplemented] {
        let MessageResponse::ErrorResponse(error) = next().await else { panic!("no error") };
        assert_eq!(error.error_code, code as i32);
    }
}

//! Both transports over a listener, with agents that came through the tests' own door.

use std::sync::Arc;
use std::time::Duration;

use executor_api::stream::StreamLine;
use executor_api::v1::executor_client::ExecutorClient as GrpcClient;
use executor_api::{
    Base64Bytes, Execute, Executed, Explanation, Problem, REASON_METADATA, STEP_METADATA, Status, Upload, v1,
};
use tonic::Code;

use crate::admission::GrantSet;
use crate::executor::{Executor, Terms};
use crate::runtime::CallLimits;
use crate::testing::{Server, admitted, patient, wat_echo, wat_spin};

const MANIFEST: &str = "id: test.agent\nversion: 1.0.0\nruntime: wasm\nmodule: m.wasm\n";

fn upload(module: &[u8]) -> Upload {
    Upload { manifest: MANIFEST.into(), attestation: None, module: Base64Bytes(module.to_vec()) }
}

pub(super) async fn post(server: &Server, path: &str, body: &impl serde::Serialize) -> (u16, Vec<u8>) {
    let response = reqwest::Client::new()
        .post(format!("http://{}{path}", server.address))
        .json(body)
        .send()
        .await
        .unwrap();
    (response.status().as_u16(), response.bytes().await.unwrap().to_vec())
}

pub(super) async fn channel(server: &Server) -> tonic::transport::Channel {
    let endpoint = format!("http://{}", server.address);
    tonic::transport::Endpoint::from_shared(endpoint).unwrap().connect().await.unwrap()
}

pub(super) fn problem(body: &[u8]) -> Problem {
    serde_json::from_slice(body).unwrap()
}

#[tokio::test]
async fn what_is_not_vouched_for_is_denied_with_step_and_reason() {
    let server = Server::start().await;
    let module = wat::parse_str("(module)").unwrap();
    for (body, status, code) in [
        (upload(&module), 422, "malformed"), // no attestation block
        (upload(b"\x7fELF\x02\x01\x01"), 422, "native_code_refused"),
        (upload(b"#!/bin/sh"), 422, "malformed"),
        (Upload { manifest: "id: 1".into(), ..upload(&module) }, 422, "malformed"),
    ] {
        let (answered, text) = post(&server, "/api/v1/agents", &body).await;
        let problem = problem(&text);
        assert_eq!((answered, problem.code.as_str(), problem.step), (status, code, 1), "{problem:?}");
        assert!(!problem.detail.is_empty());
        let (answered, text) = post(&server, "/api/v1/explain", &body).await;
        let explanation: Explanation = serde_json::from_slice(&text).unwrap();
        assert_eq!((answered, explanation.admitted), (200, false));
        assert_eq!(explanation.denial.unwrap().reason, code);
    }
    assert_eq!(server.executor.list(), []);
    assert_eq!(server.counted("mentatlab_admissions_total{reason=\"native_code_refused\"}"), 1);
    assert_eq!(server.counted("mentatlab_admissions_total{reason=\"malformed\"}"), 3);
    assert!(server.executor.status().audit_sequence >= 4, "every denial is recorded");
}

#[tokio::test]
async fn an_admitted_agent_runs_over_http() {
    let server = Server::start().await;
    let digest = server.admit(wat_echo(), GrantSet::default(), CallLimits::default()).await;
    for name in ["test.agent", &digest.to_string()] {
        let call = Execute { input: Base64Bytes(b"hello".to_vec()), ..Execute::default() };
        let (status, text) = post(&server, &format!("/api/v1/agents/{name}/execute"), &call).await;
        let done: Executed = serde_json::from_slice(&text).unwrap();
        assert_eq!((status, done.text.as_deref(), done.exit_code), (200, Some("hello"), 0));
        assert_eq!(done.digest, digest.to_string());
    }
    let call = Execute { input: Base64Bytes(Vec::new()), ..Execute::default() };
    let (status, text) = post(&server, "/api/v1/agents/other/execute", &call).await;
    assert_eq!((status, problem(&text).code.as_str()), (404, "not_loaded"));
    let (status, text) =
        post(&server, "/api/v1/agents/test.agent/execute", &serde_json::json!({"sandbox": "off"})).await;
    assert_eq!((status, problem(&text).code.as_str()), (400, "malformed"));

    let status: Status =
        reqwest::get(format!("http://{}/api/v1/status", server.address)).await.unwrap().json().await.unwrap();
    assert_eq!(status.agents, 1);
    // All tests share one runtime, and others run guests in it meanwhile; these calls are over.
    let digest = digest.to_string();
    let live = || {
        server.executor.instances_for(&crate::Caller::default()).into_iter().any(|live| live.digest == digest)
    };
    for _ in 0..2_000 {
        if !live() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!("{:?}", server.executor.instances_for(&crate::Caller::default()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_instance_is_stopped_over_http() {
    let server = Server::start().await;
    // By a name of its own: all tests share one runtime.
    let spin = admitted(wat_spin(), GrantSet::default(), patient());
    server.executor.admit_for_test(spin.called("stopped.over-http", "dev@example.org")).await;
    let executor = Arc::clone(&server.executor);
    let call = tokio::spawn(async move {
        executor.execute("stopped.over-http", bytes::Bytes::new(), Terms::default()).await
    });
    let stopped = loop {
        let (_, text) =
            post(&server, "/api/v1/instances/stop", &serde_json::json!({"agent": "stopped.over-http"})).await;
        let stopped: executor_api::Stopped = serde_json::from_slice(&text).unwrap();
        if stopped.stopped > 0 {
            break stopped.stopped;
        }
    };
    assert_eq!(stopped, 1);
    assert_eq!(call.await.unwrap().unwrap_err().code, "stopped");
    let (status, text) = post(&server, "/api/v1/instances/stop", &serde_json::json!({})).await;
    assert_eq!((status, problem(&text).code.as_str()), (422, "invalid_argument"));
}

#[tokio::test]
async fn a_caller_that_lowers_the_deadline_gets_its_reason() {
    let _alone = crate::testing::ENDS.lock().await;
    let server = Server::start().await;
    server.admit(wat_spin(), GrantSet::default(), CallLimits::default()).await;
    let call = Execute { input: Base64Bytes(Vec::new()), deadline_ms: Some(30), ..Execute::default() };
    let (status, text) = post(&server, "/api/v1/agents/test.agent/execute", &call).await;
    assert_eq!((status, problem(&text).code.as_str()), (504, "deadline_exceeded"));
}

#[tokio::test]
async fn grpc_runs_and_denies_alike() {
    let server = Server::start().await;
    server.admit(wat_echo(), GrantSet::default(), CallLimits::default()).await;
    let mut client = GrpcClient::new(channel(&server).await);

    let call =
        v1::ExecuteAgentRequest { agent: "test.agent".into(), input: "hi".into(), ..Default::default() };
    let done = client.execute_agent(call).await.unwrap().into_inner();
    assert_eq!((done.output.as_ref(), done.exit_code), (&b"hi"[..], 0));

    let call = v1::ExecuteAgentRequest { agent: "other".into(), ..Default::default() };
    let refused = client.execute_agent(call).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    assert_eq!(refused.metadata().get(REASON_METADATA).unwrap(), "not_loaded");

    let module = wat::parse_str("(module)").unwrap();
    let load = |length: u64| {
        use v1::load_agent_request::Part;
        let header = v1::AgentHeader {
            manifest: MANIFEST.into(),
            attestation: Default::default(),
            module_length: length,
        };
        let parts = vec![
            v1::LoadAgentRequest { part: Some(Part::Header(header)) },
            v1::LoadAgentRequest { part: Some(Part::ModuleChunk(module.clone().into())) },
        ];
        futures_util::stream::iter(parts)
    };
    let refused = client.load_agent(load(module.len() as u64)).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(refused.metadata().get(REASON_METADATA).unwrap(), "malformed");
    assert_eq!(refused.metadata().get(STEP_METADATA).unwrap(), "1");
    let refused = client.load_agent(load(3)).await.unwrap_err();
    assert_eq!(refused.metadata().get(REASON_METADATA).unwrap(), "invalid_argument");
    let refused = client.load_agent(load(u64::MAX)).await.unwrap_err();
    assert_eq!(refused.metadata().get(REASON_METADATA).unwrap(), "too_large");

    let loaded = v1::IsLoadedRequest { agent: "test.agent".into() };
    assert!(client.is_loaded(loaded.clone()).await.unwrap().into_inner().loaded);
    assert_eq!(client.list_agents(v1::ListAgentsRequest {}).await.unwrap().into_inner().agents.len(), 1);
    client.unload_agent(v1::UnloadAgentRequest { agent: "test.agent".into() }).await.unwrap();
    assert!(!client.is_loaded(loaded).await.unwrap().into_inner().loaded);
}

/// As a page in a browser of this machine would: with an origin, or under a name that leads here.
#[tokio::test]
async fn web_pages_cannot_read_over_grpc_either() {
    let server = Server::start().await;
    for (name, value) in [("origin", "http://evil.example"), ("host", "evil.example:8446")] {
        let asked = |mut request: tonic::Request<()>| {
            request.metadata_mut().insert(name, value.parse().unwrap());
            Ok::<_, tonic::Status>(request)
        };
        let mut client = GrpcClient::with_interceptor(channel(&server).await, asked);
        let refusals = [
            client.health(v1::HealthRequest {}).await.map(drop).unwrap_err(),
            client.get_status(v1::GetStatusRequest {}).await.map(drop).unwrap_err(),
            client.is_loaded(v1::IsLoadedRequest::default()).await.map(drop).unwrap_err(),
            client.list_agents(v1::ListAgentsRequest {}).await.map(drop).unwrap_err(),
            client.get_deployment(v1::GetDeploymentRequest::default()).await.map(drop).unwrap_err(),
            client.get_receipt(v1::GetReceiptRequest::default()).await.map(drop).unwrap_err(),
        ];
        for refused in refusals {
            assert_eq!(refused.code(), Code::PermissionDenied, "{name}: {refused}");
        }
    }
}

#[cfg(feature = "deployments")]
#[tokio::test]
async fn deployments_and_receipts_are_there_over_both_transports() {
    let server = Server::start().await;
    let digest = server.admit(wat_echo(), GrantSet::default(), CallLimits::default()).await.to_string();
    let body = serde_json::json!({ "agent": "test.agent", "digest": digest, "strategy": "canary" });
    let (status, answer) = post(&server, "/api/v1/deployments", &body).await;
    assert_eq!(status, 202, "{}", String::from_utf8_lossy(&answer));
    let mut client = GrpcClient::new(channel(&server).await);
    let asked = v1::GetDeploymentRequest { agent: "test.agent".into() };
    assert_eq!(client.get_deployment(asked).await.unwrap().into_inner().stable, digest);
    let request = v1::DeployRequest { agent: "test.agent".into(), digest, ..Default::default() };
    assert_eq!(client.deploy(request).await.unwrap_err().code(), Code::InvalidArgument, "no strategy");
    let back = client.rollback(v1::RollbackRequest { agent: "test.agent".into() }).await.unwrap_err();
    assert_eq!(back.metadata().get(REASON_METADATA).unwrap(), "rollback_refused");

    let call =
        v1::ExecuteAgentRequest { agent: "test.agent".into(), input: "hi".into(), ..Default::default() };
    let done = client.execute_agent(call).await.unwrap().into_inner();
    let asked = v1::GetReceiptRequest {
        which: Some(v1::get_receipt_request::Which::InstanceId(done.instance_id.clone())),
    };
    let proof = loop {
        match client.get_receipt(asked.clone()).await {
            Ok(answer) => break answer.into_inner().proof,
            Err(status) => assert!(matches!(status.code(), Code::Unavailable | Code::NotFound), "{status}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let url = format!("http://{}/api/v1/receipts?instance={}", server.address, done.instance_id);
    let over_http = reqwest::get(url).await.unwrap().bytes().await.unwrap();
    let entry = |bytes: &[u8]| tlog::proof_file::ProofFile::parse(bytes).unwrap().extra.unwrap();
    assert_eq!(entry(&proof), entry(&over_http));
    let receipt = executor_api::receipt::Receipt::from_entry(&entry(&proof)).unwrap();
    assert_eq!((receipt.agent.as_str(), receipt.instance), ("test.agent", done.instance_id));
    assert_eq!(receipt.input, executor_engine::ModuleDigest::of(b"hi").to_string());
    assert_eq!(receipt.output, receipt.input);
    for path in ["checkpoint", "tile/0/000.p/1", "tile/entries/000.p/1"] {
        let answer = reqwest::get(format!("http://{}/receipts/{path}", server.address)).await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
    }
    let answer = reqwest::get(format!("http://{}/receipts/tile/0/999", server.address)).await.unwrap();
    assert_eq!(answer.status(), 404);
}

#[tokio::test]
async fn nothing_new_is_done_when_the_audit_log_fails() {
    let server = Server::start().await;
    server.admit(wat_echo(), GrantSet::default(), CallLimits::default()).await;
    let executor: &Arc<Executor> = &server.executor;
    executor.fail_audit_for_test();
    let refused = executor.execute("test.agent", bytes::Bytes::new(), Terms::default()).await.unwrap_err();
    assert_eq!(refused.code, "storage_full");
    let refused = executor
        .load(&Terms::default().caller, MANIFEST, None, wat::parse_str("(module)").unwrap().into())
        .await
        .unwrap_err();
    assert_eq!(refused.code, "storage_full");
    assert!(!executor.problems().is_empty());
}

#[tokio::test]
async fn administration_needs_the_token_where_one_is_configured() {
    let server = Server::with_token("0123456789abcdef0123456789abcdef").await;
    server.admit(wat_echo(), GrantSet::default(), CallLimits::default()).await;
    let module = wat::parse_str("(module)").unwrap();
    let (status, _) = post(&server, "/api/v1/agents", &upload(&module)).await;
    assert_eq!(status, 401);
    let (status, _) = post(&server, "/api/v1/evidence/refresh", &serde_json::json!({})).await;
    assert_eq!(status, 401);
    // That a caller is on this machine gives it no right: it may be a proxy that speaks for others.
    for (path, body) in [
        ("agents/test.agent/execute", serde_json::json!({})),
        ("agents/test.agent/stream", serde_json::json!({})),
        ("explain", serde_json::to_value(upload(&module)).unwrap()),
    ] {
        assert_eq!(post(&server, &format!("/api/v1/{path}"), &body).await.0, 401, "{path}");
    }
    let call = v1::ExecuteAgentRequest { agent: "test.agent".into(), ..Default::default() };
    let refused = GrpcClient::new(channel(&server).await).execute_agent(call).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    let client = reqwest::Client::builder().timeout(Duration::from_secs(30)).build().unwrap();
    for (path, body, status) in [
        ("agents", serde_json::to_value(upload(&module)).unwrap(), 422),
        ("agents/test.agent/execute", serde_json::json!({}), 200),
    ] {
        let request = client.post(format!("http://{}/api/v1/{path}", server.address)).json(&body);
        let answer = request.bearer_auth("0123456789abcdef0123456789abcdef").send().await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{path}");
    }
}

/// The body of a request of which nothing ever comes.
struct Silence;

impl http_body::Body for Silence {
    type Data = bytes::Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, Self::Error>>> {
        std::task::Poll::Pending
    }
}

/// Nobody's message is read before it is known who he is, and a method that takes names takes no more than names.
#[tokio::test]
async fn a_caller_is_judged_before_its_message_is_read() {
    let server = Server::with_token("0123456789abcdef0123456789abcdef").await;
    let plain = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    for method in ["TryPolicy", "UnloadAgent", "LoadAgent", "ListAgents", "Unknown"] {
        let url = format!("http://{}/mentat.executor.v1.Executor/{method}", server.address);
        let request = plain.post(url).header("content-type", "application/grpc");
        // A server that waits for the message answers after 20 seconds at the earliest.
        let answer = request.body(reqwest::Body::wrap(Silence)).send();
        let answer = tokio::time::timeout(Duration::from_secs(10), answer).await.unwrap().unwrap();
        assert_eq!(answer.headers()["grpc-status"], "16", "{method}");
        assert_eq!(answer.headers()[REASON_METADATA], "unauthorized", "{method}");
    }
    let token = |mut request: tonic::Request<()>| {
        let token = "Bearer 0123456789abcdef0123456789abcdef".parse().unwrap();
        request.metadata_mut().insert("authorization", token);
        Ok::<_, tonic::Status>(request)
    };
    let mut client = GrpcClient::with_interceptor(channel(&server).await, token);
    let long = v1::IsLoadedRequest { agent: "a".repeat(70 << 10) };
    assert_eq!(client.is_loaded(long).await.unwrap_err().code(), Code::OutOfRange);
    let short = v1::IsLoadedRequest { agent: "a".repeat(60 << 10) };
    assert!(!client.is_loaded(short).await.unwrap().into_inner().loaded);
    let input = v1::ExecuteAgentRequest {
        agent: "nobody".into(),
        input: vec![7; 5 << 20].into(),
        ..Default::default()
    };
    let refused = client.execute_agent(input).await.unwrap_err();
    assert_eq!(refused.metadata().get(REASON_METADATA).unwrap(), "not_loaded", "inputs are long");
}

/// Logs, records and traps.
const LAST_WORDS: &str = r#"(module
  (import "mentat" "log" (func $log (param i32 i32 i32)))
  (import "mentat" "record_metric" (func $metric (param i32 i32 f64) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "index out of range") (data (i32.const 32) "rows")
  (func (export "process") (result i32)
    (call $log (i32.const 0) (i32.const 0) (i32.const 18))
    (drop (call $metric (i32.const 32) (i32.const 4) (f64.const 3)))
    unreachable))"#;

#[tokio::test]
async fn what_a_guest_said_before_it_trapped_reaches_its_caller() {
    let server = Server::start().await;
    let agent = server.admit(LAST_WORDS, GrantSet::default(), CallLimits::default()).await.to_string();
    let (status, text) = post(&server, &format!("/api/v1/agents/{agent}/execute"), &Execute::default()).await;
    let problem = problem(&text);
    assert_eq!((status, problem.code.as_str()), (409, "trap"));
    let said = problem.said;
    assert_eq!((said.log[0].level.as_str(), said.log[0].text.as_str()), ("error", "index out of range"));
    assert_eq!((said.log.len(), said.metrics[0].name.as_str(), said.metrics[0].value), (1, "rows", 3.0));
    assert!(!said.instance_id.is_empty());

    let url = format!("http://{}/api/v1/agents/{agent}/stream", server.address);
    let lines = reqwest::Client::new().post(url).json(&Execute::default()).send().await.unwrap();
    let text = lines.text().await.unwrap();
    let line = text.lines().last().unwrap();
    let StreamLine::Error(failed) = serde_json::from_str(line).unwrap() else { panic!("{text}") };
    assert_eq!(
        (failed.reason.as_str(), failed.said.log, failed.said.metrics),
        ("trap", said.log, said.metrics)
    );

    let mut client = GrpcClient::new(channel(&server).await);
    let call = v1::ExecuteAgentRequest { agent, ..Default::default() };
    let refused = client.execute_agent(call).await.unwrap_err();
    assert_eq!(refused.metadata().get(REASON_METADATA).unwrap(), "trap");
    let failed = executor_api::status_details::failed_call(refused.details()).unwrap();
    assert_eq!((failed.log[0].text.as_str(), failed.metrics[0].value), ("index out of range", 3.0));
    assert_eq!((failed.earlier_log_lines, failed.instance_id.is_empty()), (0, false));
}

#[test]
fn a_status_has_the_last_of_a_long_log() {
    use crate::abi::sinks::{Level, LogRecord, MetricRecord};
    use crate::admission::Denied;
    let line = |number: usize| LogRecord { level: Level::Info, text: format!("{number:0>64}") };
    let instance = crate::testing::guest_state().registration.id;
    let metric = |number: i32| MetricRecord { name: format!("m{number:0>63}"), value: f64::MIN };
    let status_of = |line: &dyn Fn(usize) -> LogRecord| {
        let log = (0..256).map(line).collect();
        let said = crate::runtime::Said { instance, log, metrics: (0..256).map(metric).collect() };
        let denied = Denied { said: Some(Box::new(said)), ..Denied::new("trap", "x".repeat(512)) };
        let status = super::grpc::refused(&denied);
        // Headers are base64, the message is in one of them once more, and some clients take 8 KiB of them.
        let headers = status.details().len().div_ceil(3) * 4 + status.message().len();
        assert!(headers < 15 << 9, "{headers}");
        executor_api::status_details::failed_call(status.details()).unwrap()
    };
    let failed = status_of(&line);
    assert_eq!((failed.log.len(), failed.earlier_log_lines), (38, 218));
    assert!(failed.log.last().unwrap().text.ends_with("255"));
    // Short lines take room beside their text.
    for length in 0..16 {
        let short = |_: usize| LogRecord { level: Level::Error, text: "x".repeat(length) };
        assert!(status_of(&short).log.len() <= 64);
    }
}

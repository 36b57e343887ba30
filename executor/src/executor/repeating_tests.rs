//! Calls with an idempotency key: nothing runs twice, whatever becomes of the caller.

use std::time::Duration;

use bytes::Bytes;
use executor_api::v1::executor_client::ExecutorClient as GrpcClient;
use executor_api::{Execute, Executed, Problem, REASON_METADATA, v1};
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use super::Terms;
use crate::Caller;
use crate::admission::GrantSet;
use crate::runtime::{CallLimits, Selector};
use crate::testing::{Server, admitted, patient, wat_echo, wat_spin};

fn keyed(key: &str) -> Terms {
    Terms { idempotency_key: Some(key.into()), ..Terms::default() }
}

async fn admit(server: &Server, text: &str, name: &str) {
    let module = admitted(text, GrantSet::default(), patient()).called(name, "dev@example.org");
    server.executor.admit_for_test(module).await;
}

async fn post(server: &Server, agent: &str, call: &Execute) -> (u16, Vec<u8>) {
    let url = format!("http://{}/api/v1/agents/{agent}/execute", server.address);
    let answer = reqwest::Client::new().post(url).json(call).send().await.unwrap();
    (answer.status().as_u16(), answer.bytes().await.unwrap().to_vec())
}

async fn grpc(server: &Server) -> GrpcClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{}", server.address)).unwrap();
    GrpcClient::new(endpoint.connect().await.unwrap())
}

fn counted(server: &Server, answered: &str) -> u64 {
    server.counted(&format!("mentatlab_keyed_calls_total{{reason=\"{answered}\"}}"))
}

#[tokio::test]
async fn a_repeated_request_gets_the_first_answer_over_both_transports() {
    let server = Server::start().await;
    admit(&server, wat_echo(), "once.echo").await;
    let input = || executor_api::Base64Bytes(b"hello".to_vec());
    let call = Execute { input: input(), idempotency_key: Some("k-1".into()), ..Execute::default() };
    let (_, first) = post(&server, "once.echo", &call).await;
    let first: Executed = serde_json::from_slice(&first).unwrap();
    // By another deadline: how long somebody waits is not what he asks for.
    let (_, again) = post(&server, "once.echo", &Execute { deadline_ms: Some(5_000), ..call.clone() }).await;
    let again: Executed = serde_json::from_slice(&again).unwrap();
    assert_eq!((first.repeated, again.repeated), (false, true));
    assert_eq!(Executed { repeated: false, ..again }, first, "the same instance, and so the same receipt");

    // Over gRPC it is the same key of the same caller.
    let mut client = grpc(&server).await;
    let wire = v1::ExecuteAgentRequest {
        agent: "once.echo".into(),
        input: "hello".into(),
        idempotency_key: "k-1".into(),
        ..Default::default()
    };
    let again = client.execute_agent(wire.clone()).await.unwrap().into_inner();
    assert_eq!((again.instance_id.as_str(), again.repeated), (first.instance_id.as_str(), true));

    // Another request under the key.
    let other = Execute { session: Some("s".into()), ..call.clone() };
    let (status, text) = post(&server, "once.echo", &other).await;
    let problem: Problem = serde_json::from_slice(&text).unwrap();
    assert_eq!((status, problem.code.as_str()), (422, "idempotency_key_reused"));
    let other = v1::ExecuteAgentRequest { input: "other".into(), ..wire.clone() };
    let refused = client.execute_agent(other).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(refused.metadata().get(REASON_METADATA).unwrap(), "idempotency_key_reused");

    // No key, and no stream with one.
    let (status, text) =
        post(&server, "once.echo", &Execute { idempotency_key: Some(String::new()), ..call }).await;
    let problem: Problem = serde_json::from_slice(&text).unwrap();
    assert_eq!((status, problem.code.as_str()), (422, "invalid_argument"));
    let streamed = server.executor.execute_streaming("once.echo", Bytes::new(), keyed("k-2")).await;
    assert_eq!(streamed.err().unwrap().code, "invalid_argument");
    assert_eq!((counted(&server, "first"), counted(&server, "repeated")), (1, 2));
    assert_eq!(counted(&server, "idempotency_key_reused"), 2);
}

#[tokio::test]
async fn another_callers_key_is_another_key() {
    let server = Server::start().await;
    admit(&server, wat_echo(), "once.two").await;
    let call = async |who: &str| {
        let terms = Terms { caller: Caller::new(who), ..keyed("same") };
        server.executor.execute("once.two", Bytes::from_static(b"x"), terms).await.unwrap()
    };
    let (one, other, again) = (call("a").await, call("b").await, call("a").await);
    assert_ne!(one.outcome.instance, other.outcome.instance);
    assert_eq!((one.outcome.instance, again.repeated), (again.outcome.instance, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_outlives_its_caller_and_whoever_asks_again_waits_for_it_within_his_deadline() {
    let server = Server::start().await;
    admit(&server, wat_spin(), "once.spin").await;
    let executor = &server.executor;
    let lost = {
        let executor = std::sync::Arc::clone(executor);
        tokio::spawn(async move { executor.execute("once.spin", Bytes::new(), keyed("k")).await })
    };
    let running = || {
        let mut live = executor.instances_for(&Caller::default());
        live.retain(|live| live.agent_id == "once.spin");
        live.len()
    };
    while running() == 0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    lost.abort();
    assert!(lost.await.unwrap_err().is_cancelled());
    // The deadline of whoever asks again is his own.
    let hasty = Terms { deadline: Some(Duration::from_millis(30)), ..keyed("k") };
    let late = executor.execute("once.spin", Bytes::new(), hasty).await.unwrap_err();
    assert_eq!(late.code, "deadline_exceeded");
    let again = {
        let executor = std::sync::Arc::clone(executor);
        tokio::spawn(async move { executor.execute("once.spin", Bytes::new(), keyed("k")).await })
    };
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(running(), 1, "it runs once, and still");
    let selector = Selector { agent: Some("once.spin".into()), ..Selector::default() };
    assert_eq!(executor.stop(&selector).unwrap(), 1);
    assert_eq!(again.await.unwrap().unwrap_err().code, "stopped");
    // It ran: that it failed is its answer.
    let after = executor.execute("once.spin", Bytes::new(), keyed("k")).await.unwrap_err();
    assert_eq!((after.code, running()), ("stopped", 0));
}

#[tokio::test]
async fn the_answer_of_an_agent_that_was_revoked_since_is_not_handed_out() {
    let server = Server::start().await;
    let module = admitted(wat_echo(), GrantSet::default(), CallLimits::default());
    let digest = server.executor.admit_for_test(module.called("once.revoked", "dev@example.org")).await;
    let call = async || server.executor.execute("once.revoked", Bytes::new(), keyed("k")).await;
    assert!(call().await.is_ok());
    server.executor.revoke_for_test("once.revoked", &digest.to_string());
    assert_eq!(call().await.unwrap_err().code, "revoked");
}

#[tokio::test]
async fn no_answer_is_handed_out_of_what_may_not_run_or_is_gone_however_it_ended() {
    const TRAP: &str = r#"(module
        (import "mentat" "log" (func $log (param i32 i32 i32)))
        (memory (export "memory") 1) (data (i32.const 0) "secret")
        (func (export "process") (result i32)
          (call $log (i32.const 2) (i32.const 0) (i32.const 6)) unreachable))"#;
    let server = Server::start().await;
    let call = async |agent: &str| server.executor.execute(agent, Bytes::new(), keyed(agent)).await;
    let module = admitted(TRAP, GrantSet::default(), CallLimits::default());
    let digest = server.executor.admit_for_test(module.called("once.trap", "dev@example.org")).await;
    for _ in 0..2 {
        let failed = call("once.trap").await.unwrap_err();
        assert_eq!((failed.code, failed.said.unwrap().log[0].text.as_str()), ("trap", "secret"));
    }
    server.executor.revoke_for_test("once.trap", &digest.to_string());
    let refused = call("once.trap").await.unwrap_err();
    assert_eq!((refused.code, refused.said), ("revoked", None));
    // Nobody judges what is not there any more, whatever it was when it went.
    server.executor.unload("once.trap").await.unwrap();
    assert_eq!(call("once.trap").await.unwrap_err().code, "not_loaded");
    admit(&server, wat_echo(), "once.gone").await;
    call("once.gone").await.unwrap();
    assert!(call("once.gone").await.unwrap().repeated);
    server.executor.unload("once.gone").await.unwrap();
    assert_eq!(call("once.gone").await.unwrap_err().code, "not_loaded");
}

#[cfg(feature = "pipelines")]
#[tokio::test]
async fn the_answer_of_a_pipeline_whose_step_may_not_run_is_not_handed_out() {
    use super::composing_tests::{DRAFT, Draft, agent, compose};
    let server = Server::start().await;
    let step = agent(&server, "once.step", wat_echo()).await;
    compose(&server, "once.whole", &[Draft { name: "only", agent: "once.step", module: &step, ..DRAFT }])
        .await;
    let call = async || server.executor.execute("once.whole", Bytes::new(), keyed("k")).await;
    call().await.unwrap();
    assert!(call().await.unwrap().repeated);
    server.executor.revoke_for_test("once.step", &step);
    assert_eq!(call().await.unwrap_err().code, "revoked");
}

#[tokio::test]
async fn what_did_not_run_runs_when_it_is_asked_for_again() {
    let server = Server::start().await;
    let call = async || server.executor.execute("once.late", Bytes::new(), keyed("k")).await;
    assert_eq!(call().await.unwrap_err().code, "not_loaded");
    admit(&server, wat_echo(), "once.late").await;
    assert!(!call().await.unwrap().repeated);
    assert!(call().await.unwrap().repeated);
}

#[tokio::test]
async fn an_answer_that_had_to_make_room_is_not_made_a_second_time() {
    let server = Server::start().await;
    admit(&server, wat_echo(), "once.large").await;
    let input = Bytes::from(vec![b'x'; 60_000]);
    let call = async |key: String| server.executor.execute("once.large", input.clone(), keyed(&key)).await;
    let first = call("0".into()).await.unwrap();
    // The tests' server keeps a mebibyte.
    for n in 1..20 {
        call(n.to_string()).await.unwrap();
    }
    let gone = call("0".into()).await.unwrap_err();
    assert_eq!(gone.code, "answer_not_kept");
    assert_eq!(gone.said.unwrap().instance, first.outcome.instance, "by it, its receipt is found");
    let call = Execute {
        input: executor_api::Base64Bytes(input.to_vec()),
        idempotency_key: Some("0".into()),
        ..Execute::default()
    };
    assert_eq!(post(&server, "once.large", &call).await.0, 410);
    let agent = "once.large".to_owned();
    let wire = v1::ExecuteAgentRequest { agent, input, idempotency_key: "0".into(), ..Default::default() };
    assert_eq!(grpc(&server).await.execute_agent(wire).await.unwrap_err().code(), Code::FailedPrecondition);
    assert_eq!(server.counted("mentatlab_keyed_calls_total{reason=\"answer_not_kept\"}"), 3);
}

#[tokio::test]
async fn a_flood_of_keys_is_refused_with_a_time_to_wait() {
    let server = Server::start().await;
    admit(&server, wat_echo(), "once.flood").await;
    // The tests' server knows 64 keys, of one caller 32.
    for n in 0..32 {
        server.executor.execute("once.flood", Bytes::new(), keyed(&n.to_string())).await.unwrap();
    }
    let url = format!("http://{}/api/v1/agents/once.flood/execute", server.address);
    let call = Execute { idempotency_key: Some("more".into()), ..Execute::default() };
    let answer = reqwest::Client::new().post(url).json(&call).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers()["retry-after"].to_str().unwrap()), (429, "10"));
    let agent = "once.flood".to_owned();
    let wire = v1::ExecuteAgentRequest { agent, idempotency_key: "more".into(), ..Default::default() };
    let refused = grpc(&server).await.execute_agent(wire).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(refused.metadata().get(REASON_METADATA).unwrap(), "idempotency_keys_full");
    let details = executor_api::status_details::Details::decode(refused.details());
    assert_eq!(details.retry_after, Some(10));
    // Others, and calls without a key, go on.
    let other = Terms { caller: Caller::new("other"), ..keyed("more") };
    assert!(server.executor.execute("once.flood", Bytes::new(), other).await.is_ok());
    assert!(server.executor.execute("once.flood", Bytes::new(), Terms::default()).await.is_ok());
    assert_eq!(server.counted("mentatlab_keyed_calls_total{reason=\"idempotency_keys_full\"}"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn inputs_that_outlive_their_connections_have_bounded_room() {
    let server = Server::start().await;
    admit(&server, wat_spin(), "once.inputs").await;
    // The tests' server has a mebibyte for inputs, of which one caller has half.
    let call = |key: &'static str| {
        let executor = std::sync::Arc::clone(&server.executor);
        let input = Bytes::from(vec![b'x'; 300 << 10]);
        tokio::spawn(async move { executor.execute("once.inputs", input, keyed(key)).await })
    };
    let lost = call("1");
    while server.executor.instances_for(&Caller::default()).iter().all(|live| live.agent_id != "once.inputs")
    {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    lost.abort();
    assert!(lost.await.unwrap_err().is_cancelled());
    let refused = tokio::time::timeout(Duration::from_secs(3), call("2")).await;
    assert_eq!(refused.expect("it waits for a guest").unwrap().unwrap_err().code, "idempotency_keys_full");
    let selector = Selector { agent: Some("once.inputs".into()), ..Selector::default() };
    assert_eq!(server.executor.stop(&selector).unwrap(), 1);
    let asked_again = call("1");
    assert_eq!(asked_again.await.unwrap().unwrap_err().code, "stopped");
    let next = call("3");
    while server.executor.stop(&selector).unwrap() == 0 {
        assert!(!next.is_finished(), "there is room again");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(next.await.unwrap().unwrap_err().code, "stopped");
}

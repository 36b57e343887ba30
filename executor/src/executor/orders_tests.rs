//! Orders whose givers go away, and orders whose records nothing takes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use executor_api::deployment::Strategy;
use executor_api::hold::{Calls, HoldRequest, Releases};
use tokio::task::JoinHandle;

use super::deploying_tests::{AGENT, deploy};
use super::{Executed, Terms};
use crate::admission::{Denied, GrantSet};
use crate::runtime::CallLimits;
use crate::testing::{Server, admitted, wat_spin};

/// Begins an order and drops it, as a connection does that ends.
async fn given_and_left<T>(order: impl Future<Output = T>) {
    let mut order = std::pin::pin!(order);
    assert!(futures_util::poll!(order.as_mut()).is_pending(), "it was carried out at once");
}

/// A call that nothing ends by itself within the time of a test.
async fn running(server: &Server) -> JoinHandle<Result<Executed, Denied>> {
    let executor = Arc::clone(&server.executor);
    let admission = executor.agents.find(AGENT).unwrap().admission();
    let called = Arc::clone(&executor);
    let call = tokio::spawn(async move { called.execute(AGENT, Bytes::new(), Terms::default()).await });
    while !executor.parts.runtime.live().has(admission) {
        assert!(!call.is_finished(), "the call ended before it was seen");
        tokio::task::yield_now().await;
    }
    call
}

async fn load_patient(server: &Server) -> String {
    let limits =
        CallLimits { cpu: Duration::from_secs(60), wall: Duration::from_secs(60), ..CallLimits::default() };
    let module = admitted(wat_spin(), GrantSet::default(), limits).called(AGENT, "s@example.org");
    server.executor.admit_for_test(module).await.to_string()
}

async fn ended_soon(call: JoinHandle<Result<Executed, Denied>>) -> &'static str {
    let ended = tokio::time::timeout(Duration::from_secs(3), call).await;
    ended.expect("it runs on").unwrap().unwrap_err().code
}

async fn audited(server: &Server, texts: &[&str]) {
    for _ in 0..1_000 {
        let log = std::fs::read_to_string(server.state().join("audit.jsonl")).unwrap();
        if log.lines().any(|line| texts.iter().all(|text| line.contains(text))) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("no record with {texts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_is_put_into_force_whole_when_whoever_gave_it_goes_away() {
    let server = Server::start().await;
    load_patient(&server).await;
    *server.executor.parts.admission.ruling.lock() = Some(Box::new(|_| Ok(())));
    let call = running(&server).await;
    let request = HoldRequest {
        releases: Releases { agent: Some(AGENT.into()), ..Releases::default() },
        calls: Calls::Stop,
        drain_seconds: None,
        reason: "in a hurry".into(),
        dry_run: false,
    };
    given_and_left(server.executor.hold(&request)).await;
    assert_eq!(ended_soon(call).await, "stopped");
    audited(&server, &["\"hold\"", "in a hurry"]).await;
    let again = server.executor.execute(AGENT, Bytes::new(), Terms::default()).await;
    assert_eq!(again.unwrap_err().code, "withheld");
    let id = server.executor.holds()[0].hold.id.clone();
    given_and_left(server.executor.release_hold(&id)).await;
    audited(&server, &["\"hold_end\"", "in a hurry"]).await;
    let agent = server.executor.agents.find(AGENT).unwrap();
    for _ in 0..1_000 {
        if agent.verdict().denied.is_none() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it is held by nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_is_unloaded_whole_when_whoever_asked_for_it_goes_away() {
    let server = Server::start().await;
    let digest = load_patient(&server).await;
    server.executor.deploy(&deploy(&digest, Strategy::BlueGreen)).await.unwrap();
    let call = running(&server).await;
    given_and_left(server.executor.unload(AGENT)).await;
    assert_eq!(ended_soon(call).await, "stopped");
    audited(&server, &["\"unload\"", AGENT, "1 instances stopped"]).await;
    audited(&server, &["\"deployment_end\"", AGENT]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_unloaded_is_stopped_before_any_record_is_waited_for() {
    let server = Server::start().await;
    let digest = load_patient(&server).await;
    server.executor.deploy(&deploy(&digest, Strategy::BlueGreen)).await.unwrap();
    let call = running(&server).await;
    // Nothing takes a receipt for longer than an unload waits for it.
    let mut rooms = Vec::new();
    let room = || tokio::time::timeout(Duration::from_millis(100), server.executor.receipts().room());
    while let Ok(Ok(taken)) = room().await {
        rooms.push(taken);
    }
    let executor = Arc::clone(&server.executor);
    let unloading = tokio::spawn(async move { executor.unload(AGENT).await });
    assert_eq!(ended_soon(call).await, "stopped");
    drop(rooms);
    assert_eq!(unloading.await.unwrap().unwrap(), 1);
    assert_eq!(server.executor.deployment(AGENT).unwrap_err().code, "no_deployment");
}

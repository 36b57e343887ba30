//! Workers that end by themselves, and what becomes of their calls.

use std::sync::Arc;
use std::time::Duration;

use trust_store::policy::TrustLevel;

use super::tests::{admit_plain, call, key, server};
use crate::admission::{AdmittedModule, GrantSet};
use crate::runtime::CallLimits;
use crate::testing::{admitted, wat_echo};

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_ended_by_itself_is_told_of_as_it_ended() {
    let server = server().await;
    admit_plain(&server, wat_echo(), "w.one", "one@example.org").await;
    call(&server, "w.one", b"x").await.unwrap();
    let workers = Arc::clone(server.executor.runtime().workers().unwrap());
    let process = workers.process_of(&key("one@example.org")).unwrap();
    process.confuse();
    // Both the worker and its holder need the processor for that.
    while process.lives() || !process.is_reaped() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let ended = tokio::task::spawn_blocking(move || process.end()).await.unwrap();
    assert_eq!(ended, "ended with code 74", "not by whoever came to look");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_whose_worker_was_lost_is_tried_again_when_there_is_another_one() {
    let server = server().await;
    let echo = admitted(wat_echo(), GrantSet::default(), CallLimits::default());
    let echo = echo.called("w.step", "one@example.org").at(TrustLevel::Signed);
    let module = server.executor.admit_for_test(echo).await;
    let document = format!(
        r#"{{"format":"mentat-pipeline-v1","steps":[{{"after":[],"agent":"w.step","idempotent":true,"module":"{module}","name":"echo","retries":3,"timeout_ms":5000}}]}}"#
    );
    let whole = AdmittedModule::for_test(document.into_bytes(), GrantSet::default(), CallLimits::default());
    server.executor.admit_for_test(whole.called("w.whole", "p@example.org")).await;
    call(&server, "w.whole", b"x").await.unwrap();
    let workers = Arc::clone(server.executor.runtime().workers().unwrap());
    let process = workers.process_of(&key("one@example.org")).unwrap();
    process.confuse();
    while process.lives() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(call(&server, "w.whole", b"x").await.unwrap().outcome.output, b"x");
}

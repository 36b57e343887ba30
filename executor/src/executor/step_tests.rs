//! What steps of pipelines wait for, what they may use, and what is said of them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use trust_store::policy::TrustLevel;

use super::composing_tests::{DRAFT, Draft, agent, call, compose, document, receipts, spinning, wat_mark};
use super::{Executed, Terms};
use crate::admission::{AdmittedModule, Denied, GrantSet, SignerKey};
use crate::runtime::{CallLimits, KillCause, Selector};
use crate::testing::texts::SLEEPS;
use crate::testing::{Server, admitted, wat_echo, wat_spin};
use crate::worker::WorkerLimits;

async fn compose_under(server: &Server, id: &str, steps: &[Draft<'_>], limits: CallLimits) {
    let admitted = AdmittedModule::for_test(document(steps), GrantSet::default(), limits);
    server.executor.admit_for_test(admitted.called(id, "p@example.org")).await;
}

/// Attempts of the steps of the pipeline whose receipt is the last of so many.
async fn attempts(server: &Server, count: u64) -> Vec<(String, String)> {
    let receipts = receipts(&server.executor, count).await;
    let (_, whole) = receipts.last().unwrap();
    let steps = whole.steps.iter().flatten();
    steps.map(|step| (step.name.clone(), step.reason.clone())).collect()
}

fn named(attempts: &[(String, String)]) -> Vec<(&str, &str)> {
    attempts.iter().map(|(name, reason)| (name.as_str(), reason.as_str())).collect()
}

type Running = tokio::task::JoinHandle<Result<Executed, Denied>>;

fn begin(server: &Server, id: &'static str) -> Running {
    let executor = Arc::clone(&server.executor);
    tokio::spawn(async move { executor.execute(id, Bytes::from_static(b"x"), Terms::default()).await })
}

/// Until a call of this agent is listed.
async fn listed(server: &Server, id: &str) {
    let admission = server.executor.agents.find(id).unwrap().admission();
    for look in 0.. {
        if server.executor.parts.runtime.live().has(admission) {
            return;
        }
        assert!(look < 60_000, "{id} is not called");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn the_processor_time_of_a_pipeline_is_that_of_all_its_steps() {
    let server = Server::start().await;
    let spin = agent(&server, "sp.spin", wat_spin()).await;
    let limits = CallLimits { cpu: Duration::from_millis(60), ..CallLimits::default() };
    let step =
        Draft { name: "spin", agent: "sp.spin", module: &spin, timeout_ms: 600_000, retries: 3, ..DRAFT };
    compose_under(&server, "sp.whole", &[step], limits).await;
    assert_eq!(call(&server, "sp.whole", b"").await.unwrap_err().code, "cpu_budget");
    // One attempt of its own five seconds would have been four times as many.
    assert_eq!(named(&attempts(&server, 2).await), [("spin", "cpu_budget")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_sleeps_uses_no_processor_time_of_its_pipeline() {
    let server = Server::start().await;
    // Forty times for longer than a tick.
    let naps = SLEEPS
        .replace("(func (export \"run\") (result i32)", "(func (export \"run\") (result i32) (local $n i32)")
        .replace(
            "(call $block (call $subscribe (i64.const 600000000000)))",
            "(loop $again (call $block (call $subscribe (i64.const 20000000)))
               (br_if $again (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 40))))",
        );
    let module = agent(&server, "sn.naps", &naps).await;
    let step = |name| Draft { name, agent: "sn.naps", module: &module, timeout_ms: 60_000, ..DRAFT };
    let second = Draft { after: &["one"], ..step("two") };
    let limits = CallLimits { cpu: Duration::from_millis(300), ..CallLimits::default() };
    compose_under(&server, "sn.whole", &[step("one"), second], limits).await;
    let ended = call(&server, "sn.whole", b"").await;
    assert!(ended.is_ok(), "{ended:?}");
}

#[tokio::test]
async fn a_step_whose_input_is_too_large_is_in_the_receipt() {
    let server = Server::start().await;
    let a = agent(&server, "si.a", &wat_mark('a')).await;
    let b = agent(&server, "si.b", &wat_mark('b')).await;
    let steps = [
        Draft { name: "left", agent: "si.a", module: &a, ..DRAFT },
        Draft { name: "right", agent: "si.b", module: &b, ..DRAFT },
        Draft { name: "both", agent: "si.a", module: &a, after: &["left", "right"], ..DRAFT },
    ];
    compose_under(&server, "si.whole", &steps, CallLimits { input: 4, ..CallLimits::default() }).await;
    assert_eq!(call(&server, "si.whole", b"x").await.unwrap_err().code, "input_too_large");
    let attempts = attempts(&server, 3).await;
    assert_eq!(named(&attempts), [("left", "success"), ("right", "success"), ("both", "input_too_large")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_of_the_pipeline_is_no_word_about_the_agent_of_its_step() {
    let server = Server::start().await;
    let spin = spinning(&server, "sr.spin").await;
    let step = Draft { name: "spin", agent: "sr.spin", module: &spin, timeout_ms: 600_000, ..DRAFT };
    compose(&server, "sr.whole", &[step]).await;
    let whole = begin(&server, "sr.whole");
    listed(&server, "sr.spin").await;
    let selector = Selector { agent: Some("sr.whole".into()), ..Selector::default() };
    assert_eq!(server.executor.parts.runtime.stop(&selector, KillCause::Revoked), 1);
    assert_eq!(whole.await.unwrap().unwrap_err().code, "revoked");
    let receipts = receipts(&server.executor, 2).await;
    let said: Vec<_> = receipts.iter().map(|(_, one)| (one.agent.as_str(), one.reason.as_str())).collect();
    assert_eq!(said, [("sr.spin", "stopped"), ("sr.whole", "revoked")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_takes_its_turn_in_the_worker_of_its_signer_and_hears_a_stop_meanwhile() {
    let server =
        Server::with_workers(WorkerLimits { processes: 1, calls: 1, ..WorkerLimits::default() }).await;
    let long = CallLimits { wall: Duration::from_secs(60), ..CallLimits::default() };
    let in_worker = async |text: &str, id: &str| {
        let module =
            admitted(text, GrantSet::default(), long).called(id, "w@example.org").at(TrustLevel::Signed);
        server.executor.admit_for_test(module).await.to_string()
    };
    let echo = in_worker(wat_echo(), "sw.echo").await;
    let step = || Draft { name: "echo", agent: "sw.echo", module: &echo, timeout_ms: 60_000, ..DRAFT };
    compose(&server, "sw.one", &[step()]).await;
    compose(&server, "sw.two", &[step()]).await;
    // More steps at the same time than the worker has lanes, and callers beside them.
    let ids = ["sw.echo"; 2].into_iter().chain(["sw.one", "sw.two"].repeat(8));
    let calls: Vec<Running> = ids.map(|id| begin(&server, id)).collect();
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap().outcome.output, b"x");
    }
    // While somebody else is in, a step waits; a stop of its pipeline ends the wait.
    in_worker(SLEEPS, "sw.sleeps").await;
    let sleeping = begin(&server, "sw.sleeps");
    // Listed is also who has no lane yet, and might come second.
    let signer = SignerKey::for_test("w@example.org", TrustLevel::Signed);
    while !server.executor.runtime().workers().unwrap().carries(&signer) {
        assert!(!sleeping.is_finished());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let waiting = begin(&server, "sw.one");
    listed(&server, "sw.echo").await;
    let stop = |id: &str| {
        let selector = Selector { agent: Some(id.into()), ..Selector::default() };
        assert_eq!(server.executor.parts.runtime.stop(&selector, KillCause::Operator), 1, "{id}");
    };
    stop("sw.one");
    assert_eq!(waiting.await.unwrap().unwrap_err().code, "stopped");
    assert!(!sleeping.is_finished());
    stop("sw.sleeps");
    assert_eq!(sleeping.await.unwrap().unwrap_err().code, "stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_waits_for_room_in_the_audit_log_hears_a_stop() {
    let server = Server::start().await;
    let echo = agent(&server, "sa.echo", wat_echo()).await;
    compose(&server, "sa.whole", &[Draft { name: "echo", agent: "sa.echo", module: &echo, ..DRAFT }]).await;
    // All the room but that of one record, which the call itself takes.
    let mut room = Vec::new();
    while let Ok(slot) = server.executor.parts.audit.reserve() {
        room.push(slot);
    }
    drop(room.pop());
    let whole = begin(&server, "sa.whole");
    listed(&server, "sa.whole").await;
    // It waits until it is stopped: the log is healthy, so it is no reason to fail.
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!whole.is_finished());
    let selector = Selector { agent: Some("sa.whole".into()), ..Selector::default() };
    assert_eq!(server.executor.parts.runtime.stop(&selector, KillCause::Operator), 1);
    assert_eq!(whole.await.unwrap().unwrap_err().code, "stopped");
}

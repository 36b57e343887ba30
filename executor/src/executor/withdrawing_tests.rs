//! Calls in flight whose agent may run no longer: evidence that grows old, and orders of operators.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use executor_api::hold::{Calls, HoldRequest, Releases};
use tokio::task::JoinHandle;
use trust_store::UnixTime;

use super::{Executed, Terms, Withdrawal};
use crate::admission::{Denied, GrantSet};
use crate::agents::Agent;
use crate::clock;
use crate::testing::{Server, admitted, patient, wat_echo, wat_spin};

async fn admit(server: &Server, text: &str, agent: &str, signer: &str) -> Arc<Agent> {
    let admitted = admitted(text, GrantSet::default(), patient()).called(agent, signer);
    server.executor.admit_for_test(admitted).await;
    server.executor.agents.find(agent).unwrap()
}

/// Lets the evidence be good up to a time and stale after it.
fn good_until(server: &Server, end: i64) {
    *server.executor.parts.admission.ruling.lock() = Some(Box::new(move |now: UnixTime| {
        if now.0 > end { Err(Denied::in_step(12, "revocation_stale", "old")) } else { Ok(()) }
    }));
}

fn judge_at(server: &Server, agent: &Arc<Agent>, now: i64) -> Option<&'static str> {
    let snapshot = server.executor.parts.collector.snapshot();
    server.executor.recheck(agent, &snapshot, now).err().map(|denied| denied.code)
}

async fn call(server: &Server, agent: &str) -> Result<Executed, Denied> {
    server.executor.execute(agent, Bytes::new(), Terms::default()).await
}

/// Starts a call and waits until it runs.
async fn running(server: &Server, agent: &Arc<Agent>) -> JoinHandle<Result<Executed, Denied>> {
    let (executor, name) = (Arc::clone(&server.executor), agent.id().to_owned());
    let call = tokio::spawn(async move { executor.execute(&name, Bytes::new(), Terms::default()).await });
    while !runs(server, agent) {
        assert!(!call.is_finished(), "the call ended before it was seen");
        tokio::task::yield_now().await;
    }
    call
}

fn runs(server: &Server, agent: &Agent) -> bool {
    server.executor.parts.runtime.live().has(agent.admission())
}

async fn audited(server: &Server, texts: &[&str]) {
    for _ in 0..5_000 {
        let log = std::fs::read_to_string(server.state().join("audit.jsonl")).unwrap();
        if log.lines().any(|line| texts.iter().all(|text| line.contains(text))) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("no record with {texts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn evidence_that_grows_old_drains_what_runs_and_serves_again_when_it_is_fresh() {
    let server = Server::on_stale(Withdrawal::Drain(Duration::from_secs(2))).await;
    let spin = admit(&server, wat_spin(), "stale.drained", "s@example.org").await;
    let echo = admit(&server, wat_echo(), "stale.echo", "s@example.org").await;
    let now = clock::unix_seconds();
    good_until(&server, now - 10);
    assert_eq!(judge_at(&server, &spin, now - 10), None, "the last second at which it is fresh");
    let call_in_flight = running(&server, &spin).await;
    for agent in [&spin, &echo] {
        assert_eq!(judge_at(&server, agent, now), Some("revocation_stale"));
    }
    // No new calls, by the verdict that stands.
    for agent in ["stale.drained", "stale.echo"] {
        assert_eq!(call(&server, agent).await.unwrap_err().code, "revocation_stale");
    }
    assert!(runs(&server, &spin), "what runs has time");
    // Looking again, or another piece of evidence that is old, gives no further time.
    *server.executor.parts.admission.ruling.lock() =
        Some(Box::new(|_| Err(Denied::in_step(11, "checkpoint_stale", "old"))));
    assert_eq!(judge_at(&server, &spin, now), Some("checkpoint_stale"));
    let ended = call_in_flight.await.unwrap().unwrap_err();
    assert_eq!(ended.code, "checkpoint_stale", "the caller learns the verdict: {ended:?}");
    audited(&server, &["\"withdrawal\"", "stale.drained", "1 instances stopped: checkpoint_stale"]).await;
    audited(&server, &["agent_execution", "stale.drained", "\"result\":\"evidence_stale\""]).await;
    let metrics = server.exposition();
    assert!(metrics.contains("mentatlab_agents_withdrawn_total{reason=\"revocation_stale\"} 2"), "{metrics}");
    // Fresh evidence is enough: nobody loads anything again.
    good_until(&server, now + 1000);
    assert_eq!(judge_at(&server, &echo, now), None);
    call(&server, "stale.echo").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn evidence_that_grows_old_stops_what_runs_where_the_operator_says_so() {
    let server = Server::on_stale(Withdrawal::Stop).await;
    let agent = admit(&server, wat_spin(), "stale.stopped", "s@example.org").await;
    let now = clock::unix_seconds();
    good_until(&server, now - 10);
    assert_eq!(judge_at(&server, &agent, now - 10), None);
    let call_in_flight = running(&server, &agent).await;
    assert_eq!(judge_at(&server, &agent, now), Some("revocation_stale"));
    assert_eq!(call_in_flight.await.unwrap().unwrap_err().code, "revocation_stale");
}

#[tokio::test(flavor = "multi_thread")]
async fn evidence_that_is_fresh_again_in_time_ends_nothing() {
    let time = Duration::from_millis(300);
    let server = Server::on_stale(Withdrawal::Drain(time)).await;
    let agent = admit(&server, wat_spin(), "stale.again", "s@example.org").await;
    let now = clock::unix_seconds();
    good_until(&server, now - 10);
    let call_in_flight = running(&server, &agent).await;
    assert_eq!(judge_at(&server, &agent, now), Some("revocation_stale"));
    assert_eq!(judge_at(&server, &agent, now - 10), None, "as by evidence that is fresh");
    tokio::time::sleep(2 * time).await;
    assert!(runs(&server, &agent), "stopped although it may run");
    server.executor.unload("stale.again").await.unwrap();
    assert_eq!(call_in_flight.await.unwrap().unwrap_err().code, "stopped");
}

/// As an upload brings it.
#[tokio::test(flavor = "multi_thread")]
async fn evidence_that_nobody_was_judged_by_yet_is_looked_at_before_the_time_is_up() {
    let server = Server::on_stale(Withdrawal::Drain(Duration::from_millis(300))).await;
    let agent = admit(&server, wat_spin(), "stale.unasked", "s@example.org").await;
    let now = clock::unix_seconds();
    good_until(&server, now - 10);
    let call_in_flight = running(&server, &agent).await;
    // Begun before the time is: a machine may be late, but not by less than a lock.
    let old = server.executor.parts.collector.snapshot();
    server.executor.parts.collector.begin_epoch().await;
    let denied = server.executor.recheck(&agent, &old, now).unwrap_err();
    good_until(&server, i64::MAX);
    assert_eq!(denied.code, "revocation_stale");
    while agent.verdict().denied.is_some() {
        assert!(runs(&server, &agent), "stopped by evidence that is not the newest");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(runs(&server, &agent), "stopped although it may run");
    server.executor.unload("stale.unasked").await.unwrap();
    assert_eq!(call_in_flight.await.unwrap().unwrap_err().code, "stopped");
}

fn order(calls: Calls, releases: Releases) -> HoldRequest {
    HoldRequest { releases, calls, drain_seconds: None, reason: "stolen key".into(), dry_run: false }
}

fn of_signer(signer: &str) -> Releases {
    Releases { signer: Some(signer.into()), ..Releases::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_ends_what_it_means_and_nothing_else_until_it_is_taken_back() {
    let server = Server::start().await;
    let spin = admit(&server, wat_spin(), "held.spin", "h@example.org").await;
    admit(&server, wat_echo(), "held.other", "o@example.org").await;
    good_until(&server, i64::MAX);
    let call_in_flight = running(&server, &spin).await;

    let tried = HoldRequest { dry_run: true, ..order(Calls::Stop, of_signer("h@example.org")) };
    let report = server.executor.hold(&tried).await.unwrap();
    assert!(report.dry_run && report.instances() == 1, "{report:?}");
    assert_eq!(report.agents.iter().map(|agent| agent.agent_id.as_str()).collect::<Vec<_>>(), ["held.spin"]);
    assert!(server.executor.holds().is_empty() && runs(&server, &spin), "a dry run changes nothing");

    let report = server.executor.hold(&order(Calls::Stop, of_signer("h@example.org"))).await.unwrap();
    assert_eq!(call_in_flight.await.unwrap().unwrap_err().code, "stopped");
    assert_eq!(call(&server, "held.spin").await.unwrap_err().code, "withheld");
    call(&server, "held.other").await.unwrap();
    audited(&server, &["\"hold\"", &report.hold.id, "h@example.org", "1 instances ran; stolen key"]).await;
    assert!(server.exposition().contains("mentatlab_agents_withdrawn_total{reason=\"withheld\"} 1"));
    assert_eq!(server.executor.holds().len(), 1);

    assert_eq!(server.executor.release_hold("none").await.unwrap_err().code, "hold_unknown");
    server.executor.release_hold(&report.hold.id).await.unwrap();
    audited(&server, &["\"hold_end\"", &report.hold.id]).await;
    let again = running(&server, &spin).await;
    server.executor.unload("held.spin").await.unwrap();
    assert_eq!(again.await.unwrap().unwrap_err().code, "stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_that_drains_leaves_what_runs_its_time() {
    let server = Server::start().await;
    let spin = admit(&server, wat_spin(), "held.drained", "h@example.org").await;
    good_until(&server, i64::MAX);
    let call_in_flight = running(&server, &spin).await;
    let drain = HoldRequest { drain_seconds: Some(1), ..order(Calls::Drain, of_signer("h@example.org")) };
    server.executor.hold(&drain).await.unwrap();
    assert_eq!(call(&server, "held.drained").await.unwrap_err().code, "withheld");
    assert!(runs(&server, &spin), "what runs has time");
    assert_eq!(call_in_flight.await.unwrap().unwrap_err().code, "stopped");
    // A revocation is not hidden behind an order.
    *server.executor.parts.admission.ruling.lock() =
        Some(Box::new(|_| Err(Denied::in_step(12, "revoked", "revoked"))));
    assert_eq!(judge_at(&server, &spin, clock::unix_seconds()), Some("revoked"));
}

fn draining(seconds: u32, releases: Releases) -> HoldRequest {
    HoldRequest { drain_seconds: Some(seconds), ..order(Calls::Drain, releases) }
}

/// How a call ended that must not take long.
async fn ended_soon(call: JoinHandle<Result<Executed, Denied>>) -> &'static str {
    let ended = tokio::time::timeout(Duration::from_secs(3), call).await;
    ended.expect("it had time that nobody gave it").unwrap().unwrap_err().code
}

/// A guest that nothing ends by itself within the time of a test.
async fn unending(server: &Server, agent: &str) -> Arc<Agent> {
    admit(server, wat_spin(), agent, "h@example.org").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_that_drains_hides_nothing_that_ends_calls_at_once() {
    let server = Server::on_stale(Withdrawal::Stop).await;
    let agent = unending(&server, "held.at_once").await;
    let now = clock::unix_seconds();
    // The policy of the tests' server stops calls as well.
    for (step, code, result) in
        [(12, "revocation_stale", "evidence_stale"), (9, "capability_denied", "revoked")]
    {
        good_until(&server, i64::MAX);
        assert_eq!(judge_at(&server, &agent, now), None);
        let call_in_flight = running(&server, &agent).await;
        let hold = server.executor.hold(&draining(3600, of_signer("h@example.org"))).await.unwrap().hold;
        *server.executor.parts.admission.ruling.lock() =
            Some(Box::new(move |_| Err(Denied::in_step(step, code, "denied"))));
        // The order is what callers are told.
        assert_eq!(judge_at(&server, &agent, now), Some("withheld"));
        assert_eq!(ended_soon(call_in_flight).await, "withheld");
        audited(&server, &["\"withdrawal\"", "held.at_once", &format!("1 instances stopped: {code}")]).await;
        audited(&server, &["agent_execution", "held.at_once", &format!("\"result\":\"{result}\"")]).await;
        server.executor.release_hold(&hold.id).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_gives_calls_that_are_drained_already_no_further_time() {
    let server = Server::on_stale(Withdrawal::Drain(Duration::from_millis(600))).await;
    let agent = unending(&server, "held.prolonged").await;
    let now = clock::unix_seconds();
    good_until(&server, now - 10);
    let call_in_flight = running(&server, &agent).await;
    assert_eq!(judge_at(&server, &agent, now), Some("revocation_stale"));
    server.executor.hold(&draining(3600, of_signer("h@example.org"))).await.unwrap();
    assert_eq!(call(&server, "held.prolonged").await.unwrap_err().code, "withheld");
    assert_eq!(ended_soon(call_in_flight).await, "withheld");
    audited(&server, &["\"withdrawal\"", "held.prolonged", "1 instances stopped: revocation_stale"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stricter_order_ends_what_another_one_gave_more_time() {
    let server = Server::start().await;
    good_until(&server, i64::MAX);
    // In place of the first, and beside it.
    let by_agent = |agent: &str| Releases { agent: Some(agent.into()), ..Releases::default() };
    for (name, stricter) in
        [("held.again", by_agent("held.again")), ("held.besides", of_signer("h@example.org"))]
    {
        let agent = unending(&server, name).await;
        let call_in_flight = running(&server, &agent).await;
        server.executor.hold(&draining(3600, by_agent(name))).await.unwrap();
        server.executor.hold(&draining(1, stricter)).await.unwrap();
        assert!(runs(&server, &agent), "what runs has a second");
        assert_eq!(ended_soon(call_in_flight).await, "stopped");
        audited(&server, &["\"withdrawal\"", name, "1 instances stopped: withheld"]).await;
    }
}

#[tokio::test]
async fn a_hold_whose_end_cannot_be_kept_stays_in_force_on_record() {
    let server = Server::start().await;
    let report = server.executor.hold(&order(Calls::Stop, of_signer("h@example.org"))).await.unwrap();
    let kept = server.state().join("holds.json");
    std::fs::remove_file(&kept).unwrap();
    std::fs::create_dir(&kept).unwrap();
    let refused = server.executor.release_hold(&report.hold.id).await.unwrap_err();
    assert_eq!((refused.code, server.executor.holds().len()), ("state_unavailable", 1));
    audited(&server, &["\"hold_end_failed\"", &report.hold.id]).await;
    std::fs::remove_dir(&kept).unwrap();
    server.executor.release_hold(&report.hold.id).await.unwrap();
    let log = std::fs::read_to_string(server.state().join("audit.jsonl")).unwrap();
    assert_eq!(log.matches("\"hold_end_failed\"").count(), 1);
}

#[tokio::test]
async fn a_hold_is_kept_over_a_start() {
    let server = Server::start().await;
    let report = server.executor.hold(&order(Calls::Stop, of_signer("h@example.org"))).await.unwrap();
    assert!(report.agents.is_empty(), "it means what comes later, too");
    let copy = tempfile::tempdir().unwrap();
    std::fs::copy(server.state().join("holds.json"), copy.path().join("holds.json")).unwrap();
    let server = Server::over(copy).await;
    admit(&server, wat_echo(), "held.later", "h@example.org").await;
    good_until(&server, i64::MAX);
    server.executor.refresh().await;
    assert_eq!(call(&server, "held.later").await.unwrap_err().code, "withheld");
}

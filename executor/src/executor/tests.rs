//! Agents, verdicts and records under concurrency, with agents that came through the tests' own door.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use executor_api::audit::AuditEvent;
use trust_store::UnixTime;
use trust_store_files::RootLifetime;

use super::{Executor, Terms};
use crate::admission::{Denied, GrantSet, GrantSources};
use crate::runtime::{Call, KillCause, Selector};
use crate::testing::{Server, admitted, patient, wat_echo, wat_spin};

fn granting(text: &str) -> GrantSet {
    let granted = vec![text.parse().unwrap()];
    let env = [("A", "1"), ("B", "2")].map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let sources = GrantSources { env, ..GrantSources::default() };
    sources.grant(&granted, granted.clone(), &[]).unwrap()
}

async fn admit(server: &Server, text: &str, agent: &str, grants: GrantSet) {
    let admitted = admitted(text, grants, patient()).called(agent, &format!("{agent}@example.org"));
    server.executor.admit_for_test(admitted).await;
}

/// Starts a call and waits until it runs.
async fn running(server: &Server, agent: &str) -> tokio::task::JoinHandle<Result<super::Executed, Denied>> {
    let executor = Arc::clone(&server.executor);
    let (name, admission) = (agent.to_owned(), server.executor.agents.find(agent).unwrap().admission());
    let call = tokio::spawn(async move { executor.execute(&name, Bytes::new(), Terms::default()).await });
    while !server.executor.parts.runtime.live().has(admission) {
        assert!(!call.is_finished(), "the call ended before it was seen");
        tokio::task::yield_now().await;
    }
    call
}

async fn recorded(executor: &Executor, server: &Server, texts: &[&str]) {
    let path = server.state().join("audit.jsonl");
    for _ in 0..10_000 {
        let text = std::fs::read_to_string(&path).unwrap();
        if text.lines().any(|line| texts.iter().all(|text| line.contains(text))) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    panic!("no record with {texts:?} among {}", executor.parts.audit.sequence());
}

/// What the verifier says of every admitted agent from now on.
fn rule(server: &Server, ruling: Result<(), Denied>) {
    *server.executor.parts.admission.ruling.lock() = Some(Box::new(move |_| ruling.clone()));
}

/// A mirror that was cut off must not leave an executor believing in what was retired meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_runs_by_a_trusted_root_whose_distribution_has_expired() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("trusted_root.json");
    let now = crate::clock::unix_seconds();
    let until = |end: i64| RootLifetime::new(&path, b"root", UnixTime(now + end));
    until(-1).store().unwrap();
    let server = Server::following(until(-1)).await;
    rule(&server, Ok(()));
    admit(&server, wat_echo(), "rv.a", GrantSet::default()).await;
    server.executor.refresh().await;
    let call = || server.executor.execute("rv.a", Bytes::new(), Terms::default());
    let denied = call().await.unwrap_err();
    assert_eq!(denied.code, "tuf_expired", "{denied}");
    let problems = server.executor.problems();
    assert!(problems.iter().any(|problem| problem.contains("trust update")), "{problems:?}");
    until(3600).store().unwrap();
    server.executor.refresh().await;
    call().await.unwrap();
    assert!(server.executor.problems().iter().all(|problem| !problem.contains("trust update")));
}

/// Whoever cuts the mirror off gains no time for a module that is revoked.
#[tokio::test(flavor = "multi_thread")]
async fn past_the_roots_end_what_runs_may_finish_but_not_once_it_is_revoked() {
    let directory = tempfile::tempdir().unwrap();
    let end = UnixTime(crate::clock::unix_seconds() - 1);
    let server =
        Server::following(RootLifetime::new(&directory.path().join("root.json"), b"root", end)).await;
    let module = admitted(wat_spin(), GrantSet::default(), patient());
    server.executor.admit_for_test(module.called("rv.spin", "s@example.org")).await;
    let call = running(&server, "rv.spin").await;
    let agent = server.executor.agents.find("rv.spin").unwrap();
    let said = || agent.verdict().denied.map(|denied| denied.code);
    for ruling in [Ok(()), Err(Denied::in_step(12, "revocation_stale", "stale"))] {
        rule(&server, ruling);
        server.executor.refresh().await;
        assert_eq!(said(), Some("tuf_expired"));
        assert!(server.executor.parts.runtime.live().has(agent.admission()), "stopped by the root's end");
    }
    rule(&server, Err(Denied::in_step(12, "revoked", "revoked")));
    server.executor.refresh().await;
    assert_eq!(said(), Some("revoked"));
    assert_eq!(call.await.unwrap().unwrap_err().code, "revoked");
    recorded(&server.executor, &server, &["\"denial\"", "rv.spin", "revoked"]).await;
}

#[tokio::test]
async fn agents_that_share_a_module_keep_their_own_signer_and_grants() {
    let server = Server::start().await;
    admit(&server, wat_echo(), "rv.a", granting("env:A")).await;
    admit(&server, wat_echo(), "rv.b", granting("env:B")).await;
    let a = server.executor.find("rv.a").unwrap();
    let b = server.executor.find("rv.b").unwrap();
    assert_eq!((a.agent_id.as_str(), a.signer.as_str()), ("rv.a", "rv.a@example.org"));
    assert_eq!((b.agent_id.as_str(), b.signer.as_str()), ("rv.b", "rv.b@example.org"));
    assert_eq!((a.granted, b.granted), (vec!["env:A".to_owned()], vec!["env:B".to_owned()]));
    assert_eq!(a.digest, b.digest);
    assert_eq!(server.executor.list().len(), 2);

    // The module alone does not say which of them is meant.
    let refused = server.executor.execute(&a.digest, Bytes::new(), Terms::default()).await.unwrap_err();
    assert_eq!(refused.code, "ambiguous_digest");
    assert_eq!(server.executor.unload(&a.digest).await.unwrap_err().code, "ambiguous_digest");
    server.executor.unload("rv.b").await.unwrap();
    assert_eq!(server.executor.find(&a.digest).unwrap().agent_id, "rv.a");
    assert_eq!(server.executor.unload("rv.b").await.unwrap_err().code, "not_loaded");
    server.executor.execute("rv.a", Bytes::from_static(b"x"), Terms::default()).await.unwrap();
}

#[tokio::test]
async fn an_id_means_the_release_that_was_loaded_last() {
    let server = Server::start().await;
    admit(&server, wat_echo(), "rv.a", GrantSet::default()).await;
    let old = server.executor.find("rv.a").unwrap().digest;
    admit(&server, wat_spin(), "rv.a", GrantSet::default()).await;
    let new = server.executor.find("rv.a").unwrap().digest;
    assert_ne!(old, new);
    assert_eq!(server.executor.find(&old).unwrap().digest, old);
    server.executor.unload(&new).await.unwrap();
    assert_eq!(server.executor.find("rv.a").unwrap().digest, old);
    server.executor.unload("rv.a").await.unwrap();
    assert_eq!(server.executor.list(), []);
}

#[tokio::test]
async fn a_stop_reaches_calls_that_wait_for_their_instance() {
    let server = Server::start().await;
    admit(&server, wat_echo(), "queued.agent", GrantSet::default()).await;
    let super::calling::Placed { agent, registration, .. } =
        server.executor.register("queued.agent", None).unwrap();
    let runtime = &server.executor.parts.runtime;
    assert_eq!(runtime.stop(&Selector::admission(agent.admission()), KillCause::Revoked), 1);
    let ended =
        runtime.call_registered(&agent.prepared, Call::default(), registration, None).result.unwrap_err();
    assert_eq!(ended.code(), "revoked");
}

#[tokio::test]
async fn every_round_stops_what_may_not_run_not_only_the_first() {
    let server = Server::start().await;
    admit(&server, wat_echo(), "denied.agent", GrantSet::default()).await;
    // Nobody vouches for the agent, so the first judgement denies it.
    server.executor.refresh().await;
    let agent = server.executor.agents.find("denied.agent").unwrap();
    assert!(agent.verdict().denied.is_some_and(|denied| !denied.is_about_evidence()));
    // A call that was let through before and is registered now.
    let super::calling::Placed { registration, .. } = server.executor.register("denied.agent", None).unwrap();
    server.executor.refresh().await;
    assert_eq!(registration.raised(), Some(KillCause::Revoked));
    assert_eq!(server.counted("mentatlab_instances_stopped_total"), 1);
}

#[tokio::test]
async fn a_verdict_by_older_evidence_does_not_undo_one_by_newer() {
    use crate::agents::Verdict;
    let server = Server::start().await;
    admit(&server, wat_echo(), "late.agent", GrantSet::default()).await;
    let agent = server.executor.agents.find("late.agent").unwrap();
    let denied = Denied::in_step(12, "revoked", "revoked");
    let renew = |denied, epoch| {
        let verdict = Verdict { denied, epoch, at: 100, policy: [0; 32] };
        agent.renew_verdict(verdict, crate::grace::Endings::default(), crate::clock::monotonic())
    };
    assert!(renew(Some(denied), 9).is_ok());
    let newer = renew(None, 8).err().unwrap();
    assert_eq!(newer.unwrap().code, "revoked");
    assert_eq!(agent.verdict().denied.unwrap().code, "revoked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_hangs_up_ends_its_guest_and_leaves_a_record() {
    let server = Server::start().await;
    admit(&server, wat_spin(), "left.agent", GrantSet::default()).await;
    let admission = server.executor.agents.find("left.agent").unwrap().admission();
    let call = running(&server, "left.agent").await;
    call.abort();
    while server.executor.parts.runtime.live().has(admission) {
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    recorded(&server.executor, &server, &["agent_execution", "left.agent", "\"result\":\"caller_gone\""])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_ends_by_itself_while_an_executor_is_drained() {
    let server = Server::start().await;
    let ready =
        |server: &Server| server.executor.problems().iter().all(|problem| !problem.contains("draining"));
    admit(&server, wat_echo(), "drained.echo", GrantSet::default()).await;
    admit(&server, wat_spin(), "drained.spin", GrantSet::default()).await;
    let call = running(&server, "drained.spin").await;
    let status = server.executor.drain().await.unwrap();
    assert!(status.live_instances >= 1 && status.draining_since.is_some(), "{status:?}");
    assert!(!ready(&server));
    let echo = || server.executor.execute("drained.echo", Bytes::new(), Terms::default());
    assert_eq!(echo().await.unwrap_err().code, "draining");
    assert!(server.executor.execute_streaming("drained.echo", Bytes::new(), Terms::default()).await.is_err());
    // Again, it is the same drain.
    assert_eq!(server.executor.drain().await.unwrap().draining_since, status.draining_since);
    assert!(!call.is_finished(), "stopped by the drain");
    assert_eq!(server.executor.undrain().await.unwrap().draining_since, None);
    assert!(ready(&server));
    echo().await.unwrap();
    server.executor.unload("drained.spin").await.unwrap();
    assert_eq!(call.await.unwrap().unwrap_err().code, "stopped");
    recorded(&server.executor, &server, &["\"undrain\"", "instances run"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unloading_stops_what_runs_and_is_recorded() {
    let server = Server::start().await;
    admit(&server, wat_spin(), "gone.agent", GrantSet::default()).await;
    let call = running(&server, "gone.agent").await;
    assert_eq!(server.executor.unload("gone.agent").await.unwrap(), 1);
    assert_eq!(call.await.unwrap().unwrap_err().code, "stopped");
    recorded(&server.executor, &server, &["\"unload\"", "gone.agent", "1 instances stopped"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_replaced_agent_still_runs_stays_under_judgement() {
    let server = Server::start().await;
    admit(&server, wat_spin(), "again.agent", GrantSet::default()).await;
    let call = running(&server, "again.agent").await;
    admit(&server, wat_spin(), "again.agent", GrantSet::default()).await;
    assert_eq!(server.executor.list().len(), 1);
    // Nobody vouches for either; the round reaches the instance of the replaced one too.
    server.executor.refresh().await;
    call.await.unwrap().unwrap_err();
    recorded(&server.executor, &server, &["again.agent", "\"result\":\"revoked\""]).await;
}

#[tokio::test]
async fn a_record_of_the_last_run_is_judged_and_not_believed() {
    let state = tempfile::tempdir().unwrap();
    let folder = state.path().join("agents");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("a-b.agent"), b"mentat-agent-1\n and then something else").unwrap();
    let server = Server::over(state).await;
    server.executor.restore().await;
    assert_eq!(server.executor.list(), []);
    recorded(&server.executor, &server, &["\"denial\"", "at start:", "record_unreadable"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_ends_late_is_in_both_logs_before_they_end() {
    let server = Server::start().await;
    // What a call holds until it is recorded.
    let slot = server.executor.parts.audit.reserve().unwrap();
    let receipt = server.executor.parts.receipts.room().await.unwrap();
    let late = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        slot.record(AuditEvent { event_type: "late".into(), ..AuditEvent::default() });
        drop(receipt);
    });
    server.executor.close().await;
    late.join().unwrap();
    let log = std::fs::read_to_string(server.state().join("audit.jsonl")).unwrap();
    let types: Vec<&str> = log.lines().filter_map(|line| line.split("\"event_type\":\"").nth(1)).collect();
    let types: Vec<&str> = types.iter().filter_map(|rest| rest.split('"').next()).collect();
    assert_eq!(types, ["late", "stop"]);
    assert!(!log.contains("missing"), "{log}");
}

#[tokio::test]
async fn what_does_not_end_in_time_is_told_of_in_the_last_record() {
    let server = Server::start().await;
    let _kept = server.executor.parts.receipts.room().await.unwrap();
    server.executor.close().await;
    let log = std::fs::read_to_string(server.state().join("audit.jsonl")).unwrap();
    assert!(log.contains("records of calls missing: 1"), "{log}");
}

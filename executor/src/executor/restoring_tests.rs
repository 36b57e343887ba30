//! Releases of the last run that are not back, beside those that are.

use std::path::PathBuf;

use executor_api::deployment::{Deploy, Strategy};
use executor_engine::ModuleDigest;

use super::deploying_tests::{AGENT, answer, answering, call, deploy, load, look};
use super::restoring::Name;
use crate::admission::Denied;
use crate::clock;
use crate::testing::Server;

/// What a start leaves of a loaded release until its record is read.
fn put_back(server: &Server, digest: &str, order: u64) -> PathBuf {
    server.executor.agents.remove(digest).unwrap();
    let path = server.executor.submissions.path(AGENT, parse(digest));
    server.executor.waiting.add_for_test(order, path.clone());
    path
}

fn parse(digest: &str) -> ModuleDigest {
    ModuleDigest::parse(digest).unwrap()
}

/// What its judgement leaves.
fn judge(server: &Server, path: &std::path::Path, digest: &str, denied: Denied) {
    let read = Some((AGENT.to_owned(), parse(digest)));
    server.executor.waiting.judged(
        path,
        read.map(|(agent, module)| Name { agent, module, publisher: None }),
        &denied,
        clock::monotonic(),
    );
}

fn audited(server: &Server, parts: &[&str]) -> bool {
    let log = std::fs::read_to_string(server.state().join("audit.jsonl")).unwrap();
    log.lines().any(|line| parts.iter().all(|part| line.contains(part)))
}

/// One release serves, another one takes over, and a third one was there before.
async fn under_way(server: &Server) -> [String; 3] {
    let first = load(server, &answering(Some('a'))).await;
    server.executor.deploy(&deploy(&first, Strategy::BlueGreen)).await.unwrap();
    let second = load(server, &answering(Some('b'))).await;
    server.executor.deploy(&deploy(&second, Strategy::BlueGreen)).await.unwrap();
    server.executor.promote(AGENT).await.unwrap();
    let third = load(server, &answering(Some('c'))).await;
    let minute = Deploy { step_ms: Some(60_000), ..deploy(&third, Strategy::Canary) };
    server.executor.deploy(&minute).await.unwrap();
    [first, second, third]
}

fn taking_over(server: &Server) -> Option<String> {
    server.executor.deployment(AGENT).unwrap().candidate.map(|candidate| candidate.digest)
}

#[tokio::test]
async fn an_older_release_does_not_serve_while_a_later_one_was_not_read() {
    let server = Server::start().await;
    load(&server, &answering(Some('a'))).await;
    assert_eq!(answer(&server).await, "a");
    let later = server.executor.submissions.path(AGENT, ModuleDigest::of(b"later"));
    server.executor.waiting.add_for_test(99, later.clone());
    assert_eq!(call(&server).await.unwrap_err().code, "restoring");
    server.executor.waiting.settle(&later, |waited| assert!(waited));
    // One of another agent, and one that is older.
    for (order, agent) in [(99, "other.agent"), (0, AGENT)] {
        let path = server.executor.submissions.path(agent, ModuleDigest::of(b"other"));
        server.executor.waiting.add_for_test(order, path);
        assert_eq!(answer(&server).await, "a");
    }
    // Whose it is cannot be told before it is read; when it was, and is nobody's, nobody waits for it.
    let nameless = PathBuf::from("nameless.agent");
    server.executor.waiting.add_for_test(99, nameless.clone());
    assert_eq!(call(&server).await.unwrap_err().code, "restoring");
    let unreadable = Denied::new("record_unreadable", "");
    server.executor.waiting.judged(&nameless, None, &unreadable, clock::monotonic());
    assert_eq!(answer(&server).await, "a");
}

#[tokio::test]
async fn a_deployment_under_way_waits_for_its_releases_after_a_start() {
    let server = Server::start().await;
    let [_, second, third] = under_way(&server).await;
    let path = put_back(&server, &third, 9);
    look(&server).await;
    assert_eq!(taking_over(&server).as_ref(), Some(&third));
    // It is found out to be revoked before the one that it would be taken back to is read.
    put_back(&server, &second, 8);
    judge(&server, &path, &third, Denied::in_step(12, "revoked", ""));
    let route = server.executor.deployments.route(AGENT).unwrap();
    let taking = route.taking.clone().unwrap();
    let held = server.executor.look(AGENT, &route, &taking).await.unwrap_err();
    assert_eq!(held.code, "restoring");
    assert_eq!(server.executor.rollback(AGENT).await.unwrap_err().code, "restoring");
    let now = server.executor.deployment(AGENT).unwrap();
    assert_eq!(now.stable, second, "nobody decided that the one before serves");
    assert_eq!(server.counted("mentatlab_deployment_changes_total{reason=\"rollback\"}"), 0);
}

#[tokio::test]
async fn what_may_pass_takes_no_release_back_and_what_speaks_against_it_does() {
    let server = Server::start().await;
    let [_, second, third] = under_way(&server).await;
    let path = put_back(&server, &third, 9);
    for (step, code) in [(12, "revocation_stale"), (11, "checkpoint_stale"), (0, "tuf_expired")] {
        judge(&server, &path, &third, Denied::in_step(step, code, ""));
        look(&server).await;
        assert_eq!(taking_over(&server).as_ref(), Some(&third), "{code}");
    }
    let passing =
        ["pool_exhausted", "worker_lost", "compile_queue_full", "compiler_unavailable", "audit_unavailable"];
    for code in passing {
        judge(&server, &path, &third, Denied::new(code, ""));
        look(&server).await;
        assert_eq!(taking_over(&server).as_ref(), Some(&third), "{code}");
    }
    judge(&server, &path, &third, Denied::in_step(6, "identity_denied", ""));
    look(&server).await;
    let back = server.executor.deployment(AGENT).unwrap();
    assert_eq!((back.stable, back.last.as_str()), (second, "rollback: identity_denied"));
    assert_eq!(server.counted("mentatlab_deployment_changes_total{reason=\"rollback\"}"), 1);
}

#[tokio::test]
async fn what_waits_is_unloaded_on_record_and_leaves_its_route() {
    let server = Server::start().await;
    let old = load(&server, &answering(Some('a'))).await;
    server.executor.deploy(&deploy(&old, Strategy::BlueGreen)).await.unwrap();
    let path = put_back(&server, &old, 1);
    judge(&server, &path, &old, Denied::in_step(12, "revoked", ""));
    assert_eq!(server.executor.unload(AGENT).await.unwrap(), 0);
    assert_eq!(server.executor.deployment(AGENT).unwrap_err().code, "no_deployment");
    // The repaired one serves without a deployment.
    load(&server, &answering(Some('b'))).await;
    assert_eq!(answer(&server).await, "b");
    server.executor.close().await;
    for event in ["unload", "deployment_end"] {
        assert!(audited(&server, &[&format!("\"event_type\":\"{event}\""), AGENT, &old]), "{event}");
    }
}

#[tokio::test]
async fn a_module_that_another_agent_waits_with_says_not_which_one_is_unloaded() {
    let server = Server::start().await;
    let digest = load(&server, &answering(Some('a'))).await;
    let path = server.executor.submissions.path("other.agent", parse(&digest));
    server.executor.waiting.add_for_test(9, path);
    assert_eq!(server.executor.unload(&digest).await.unwrap_err().code, "ambiguous_digest");
    assert_eq!(answer(&server).await, "a");
    assert!(server.executor.waiting.has("other.agent", parse(&digest)));
    server.executor.unload("other.agent").await.unwrap();
    server.executor.unload(&digest).await.unwrap();
    assert_eq!(call(&server).await.unwrap_err().code, "not_loaded");
}

#[tokio::test]
async fn a_release_that_serves_and_waits_is_not_unloaded_from_under_another_one() {
    let server = Server::start().await;
    let old = load(&server, &answering(Some('a'))).await;
    server.executor.deploy(&deploy(&old, Strategy::BlueGreen)).await.unwrap();
    load(&server, &answering(Some('b'))).await;
    put_back(&server, &old, 1);
    assert_eq!(server.executor.unload(&old).await.unwrap_err().code, "in_service");
    assert_eq!(server.executor.deployment(AGENT).unwrap().stable, old);
    assert_eq!(call(&server).await.unwrap_err().code, "restoring");
}

//! Routes under real calls, with releases that came through the tests' own door.

use bytes::Bytes;
use executor_api::deployment::{Deploy, Phase, Strategy};
use executor_engine::ModuleDigest;

use super::{Executed, Terms};
use crate::admission::{Denied, GrantSet};
use crate::callers::Caller;
use crate::runtime::CallLimits;
use crate::testing::{Server, admitted, wat_echo};

pub(super) const AGENT: &str = "deploy.agent";

/// Answers with a letter, or traps.
pub(super) fn answering(letter: Option<char>) -> String {
    let body = match letter {
        Some(letter) => {
            format!("(drop (call $write (i32.const {}) (i32.const 1))) (i32.const 0)", letter as u32)
        }
        None => "unreachable".to_owned(),
    };
    let data: String = (0u8..128).map(|byte| format!("\\{byte:02x}")).collect();
    format!(
        "(module (import \"mentat\" \"write_output\" (func $write (param i32 i32) (result i32)))
           (memory (export \"memory\") 1) (data (i32.const 0) \"{data}\")
           (func (export \"process\") (result i32) {body}))"
    )
}

pub(super) async fn load(server: &Server, text: &str) -> String {
    let module = admitted(text, GrantSet::default(), CallLimits::default()).called(AGENT, "s@example.org");
    server.executor.admit_for_test(module).await.to_string()
}

pub(super) fn deploy(digest: &str, strategy: Strategy) -> Deploy {
    Deploy {
        agent: AGENT.into(),
        digest: digest.into(),
        strategy,
        steps: Vec::new(),
        step_ms: Some(0),
        min_calls: Some(10),
        max_error_percent: None,
    }
}

pub(super) async fn call(server: &Server) -> Result<Executed, Denied> {
    server.executor.execute(AGENT, Bytes::new(), Terms::default()).await
}

pub(super) async fn answer(server: &Server) -> String {
    String::from_utf8(call(server).await.unwrap().outcome.output).unwrap()
}

/// The look that the watching task takes ten times a second.
pub(super) async fn look(server: &Server) {
    let route = server.executor.deployments.route(AGENT).unwrap();
    if let Some(taking) = route.taking.clone() {
        server.executor.look(AGENT, &route, &taking).await.unwrap();
    }
}

#[tokio::test]
async fn a_loaded_release_serves_nothing_before_it_is_deployed() {
    let server = Server::start().await;
    let old = load(&server, &answering(Some('a'))).await;
    let pinned = server.executor.deploy(&deploy(&old, Strategy::BlueGreen)).await.unwrap();
    assert_eq!((pinned.phase, pinned.stable.as_str()), (Phase::Stable, old.as_str()));
    let new = load(&server, &answering(Some('b'))).await;
    assert_eq!(answer(&server).await, "a");
    server.executor.deploy(&deploy(&new, Strategy::BlueGreen)).await.unwrap();
    assert_eq!(answer(&server).await, "b", "all calls at once");
    let twice = server.executor.deploy(&deploy(&old, Strategy::BlueGreen)).await.unwrap_err();
    assert_eq!(twice.code, "deployment_in_progress");
    let promoted = server.executor.promote(AGENT).await.unwrap();
    assert_eq!((promoted.stable.as_str(), promoted.history), (new.as_str(), vec![old.clone()]));
    assert_eq!(server.executor.promote(AGENT).await.unwrap_err().code, "nothing_to_promote");

    let back = server.executor.rollback(AGENT).await.unwrap();
    assert_eq!((back.stable.as_str(), back.last.as_str()), (old.as_str(), "rollback: requested"));
    assert_eq!(answer(&server).await, "a");
    assert_eq!(
        server.executor.rollback(AGENT).await.unwrap_err().code,
        "rollback_refused",
        "nothing before it"
    );
}

#[tokio::test]
async fn a_canary_advances_by_good_calls_and_is_promoted() {
    let server = Server::start().await;
    let old = load(&server, &answering(Some('a'))).await;
    server.executor.deploy(&deploy(&old, Strategy::Canary)).await.unwrap();
    let new = load(&server, &answering(Some('b'))).await;
    let begun = server.executor.deploy(&deploy(&new, Strategy::Canary)).await.unwrap();
    assert_eq!(begun.candidate.unwrap().percent, 1);
    let mut shares = vec![1];
    for _ in 0..5_000 {
        call(&server).await.unwrap();
        look(&server).await;
        match server.executor.deployment(AGENT).unwrap().candidate {
            Some(candidate) if shares.last() != Some(&candidate.percent) => shares.push(candidate.percent),
            Some(_) => {}
            None => break,
        }
    }
    assert_eq!(shares, [1, 5, 25, 50, 100]);
    let done = server.executor.deployment(AGENT).unwrap();
    assert_eq!(
        (done.phase, done.stable.as_str(), done.last.as_str()),
        (Phase::Stable, new.as_str(), "promote: healthy")
    );
    assert_eq!(answer(&server).await, "b");
}

#[tokio::test]
async fn a_release_that_fails_is_taken_back_by_itself() {
    let server = Server::start().await;
    let old = load(&server, &answering(Some('a'))).await;
    server.executor.deploy(&deploy(&old, Strategy::Canary)).await.unwrap();
    let bad = load(&server, &answering(None)).await;
    let mut canary = deploy(&bad, Strategy::Canary);
    canary.steps = vec![50, 100];
    server.executor.deploy(&canary).await.unwrap();
    let mut failed = 0;
    for _ in 0..200 {
        failed += u32::from(call(&server).await.is_err());
        look(&server).await;
    }
    assert!((10..=12).contains(&failed), "{failed}");
    let back = server.executor.deployment(AGENT).unwrap();
    assert_eq!(
        (back.phase, back.stable.as_str(), back.last.as_str()),
        (Phase::Stable, old.as_str(), "rollback: error_rate")
    );
}

#[tokio::test]
async fn a_session_stays_with_its_release() {
    let server = Server::start().await;
    let old = load(&server, &answering(Some('a'))).await;
    server.executor.deploy(&deploy(&old, Strategy::Rolling)).await.unwrap();
    let new = load(&server, &answering(Some('b'))).await;
    let mut rolling = deploy(&new, Strategy::Rolling);
    (rolling.steps, rolling.step_ms) = (vec![50, 100], Some(60_000));
    server.executor.deploy(&rolling).await.unwrap();
    let of_session = async |session: usize| {
        let terms = Terms { session: Some(format!("s{session}")), ..Terms::default() };
        server.executor.execute(AGENT, Bytes::new(), terms).await.unwrap().outcome.output
    };
    let mut new_ones = 0;
    for session in 0..40 {
        let first = of_session(session).await;
        assert_eq!(of_session(session).await, first);
        new_ones += usize::from(first == b"b");
    }
    assert!((8..=32).contains(&new_ones), "{new_ones}");
    let terms = Terms { session: Some("x".repeat(257)), ..Terms::default() };
    let refused = server.executor.execute(AGENT, Bytes::new(), terms).await.unwrap_err();
    assert_eq!(refused.code, "invalid_argument");
}

#[tokio::test]
async fn a_release_that_may_not_run_is_neither_deployed_nor_returned_to() {
    let server = Server::start().await;
    let old = load(&server, &answering(Some('a'))).await;
    server.executor.deploy(&deploy(&old, Strategy::BlueGreen)).await.unwrap();
    let new = load(&server, &answering(Some('b'))).await;
    server.executor.revoke_for_test(AGENT, &new);
    assert_eq!(server.executor.deploy(&deploy(&new, Strategy::BlueGreen)).await.unwrap_err().code, "revoked");
    assert_eq!(answer(&server).await, "a", "what served serves on");

    let newest = load(&server, &answering(Some('c'))).await;
    server.executor.deploy(&deploy(&newest, Strategy::BlueGreen)).await.unwrap();
    server.executor.promote(AGENT).await.unwrap();
    server.executor.revoke_for_test(AGENT, &old);
    let refused = server.executor.rollback(AGENT).await.unwrap_err();
    assert_eq!(refused.code, "rollback_refused");
    assert!(refused.message.contains(&format!("{old}: revoked")), "{refused}");
    assert_eq!(answer(&server).await, "c");
}

#[tokio::test]
async fn a_release_revoked_while_it_takes_over_is_taken_back() {
    let server = Server::start().await;
    let old = load(&server, &answering(Some('a'))).await;
    server.executor.deploy(&deploy(&old, Strategy::BlueGreen)).await.unwrap();
    let new = load(&server, &answering(Some('b'))).await;
    server.executor.deploy(&deploy(&new, Strategy::BlueGreen)).await.unwrap();
    server.executor.revoke_for_test(AGENT, &new);
    assert_eq!(call(&server).await.unwrap_err().code, "revoked");
    look(&server).await;
    assert_eq!(answer(&server).await, "a");
    assert_eq!(server.executor.deployment(AGENT).unwrap().last, "rollback: revoked");
    assert_eq!(server.counted("mentatlab_deployment_changes_total{reason=\"rollback\"}"), 1);
}

#[tokio::test]
async fn a_release_that_does_not_start_gets_no_calls() {
    let server = Server::start().await;
    let old = load(&server, wat_echo()).await;
    server.executor.deploy(&deploy(&old, Strategy::BlueGreen)).await.unwrap();
    let text = "(module (memory (export \"memory\") 1) (func $s unreachable) (start $s)
        (func (export \"process\") (result i32) (i32.const 0)))";
    let broken = load(&server, text).await;
    assert_eq!(server.executor.deploy(&deploy(&broken, Strategy::BlueGreen)).await.unwrap_err().code, "trap");
    assert!(call(&server).await.is_ok());
}

#[tokio::test]
async fn each_change_is_in_the_audit_log_and_in_the_receipt_log() {
    let server = Server::start().await;
    let old = load(&server, &answering(Some('a'))).await;
    server.executor.deploy(&deploy(&old, Strategy::BlueGreen)).await.unwrap();
    let text = std::fs::read_to_string(server.state().join("audit.jsonl")).unwrap();
    assert!(text.contains("\"event_type\":\"deployment_deploy\"") && text.contains(&old), "{text}");
    for _ in 0..2_000 {
        if let Ok(proof) = server.executor.receipts().of_index(0) {
            let file = tlog::proof_file::ProofFile::parse(&proof).unwrap();
            let record: executor_api::deployment::DeploymentRecord =
                serde_json::from_slice(&file.extra.unwrap()).unwrap();
            assert_eq!(
                (record.agent.as_str(), record.change.as_str(), record.module),
                (AGENT, "deploy", old)
            );
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    panic!("no record of the change");
}

#[tokio::test]
async fn a_change_that_cannot_be_kept_is_taken_back_in_the_audit_log() {
    let server = Server::start().await;
    let old = load(&server, &answering(Some('a'))).await;
    std::fs::create_dir(server.state().join("deployments.json")).unwrap();
    let refused = server.executor.deploy(&deploy(&old, Strategy::BlueGreen)).await.unwrap_err();
    assert_eq!(refused.code, "state_unavailable");
    assert_eq!(server.executor.deployment(AGENT).unwrap_err().code, "no_deployment");
    for _ in 0..2_000 {
        let text = std::fs::read_to_string(server.state().join("audit.jsonl")).unwrap();
        if text.contains("\"event_type\":\"deployment_failed\"") {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    panic!("no record that the change failed");
}

#[tokio::test]
async fn the_release_that_serves_is_not_unloaded_from_under_its_calls() {
    let server = Server::start().await;
    let old = load(&server, &answering(Some('a'))).await;
    server.executor.deploy(&deploy(&old, Strategy::BlueGreen)).await.unwrap();
    let taken_back = load(&server, &answering(None)).await;
    assert_eq!(server.executor.unload(&old).await.unwrap_err().code, "in_service");
    assert_eq!(answer(&server).await, "a", "nobody decided that another one serves");
    // What does not serve goes; what takes over is taken back by that, on record.
    server.executor.deploy(&deploy(&taken_back, Strategy::Canary)).await.unwrap();
    server.executor.unload(&taken_back).await.unwrap();
    let back = server.executor.deployment(AGENT).unwrap();
    assert_eq!((back.phase, back.last.as_str()), (Phase::Stable, "rollback: unloaded"));
    // The last one may go, and its route ends on record.
    server.executor.unload(&old).await.unwrap();
    assert_eq!(server.executor.deployment(AGENT).unwrap_err().code, "no_deployment");
    assert_eq!(call(&server).await.unwrap_err().code, "not_loaded");
    let text = std::fs::read_to_string(server.state().join("audit.jsonl")).unwrap();
    for event in ["deployment_rollback", "deployment_end"] {
        assert!(text.contains(&format!("\"event_type\":\"{event}\"")), "{text}");
    }
    // By its id an agent goes whole.
    let old = load(&server, &answering(Some('a'))).await;
    server.executor.deploy(&deploy(&old, Strategy::BlueGreen)).await.unwrap();
    load(&server, &answering(None)).await;
    server.executor.unload(AGENT).await.unwrap();
    assert_eq!(call(&server).await.unwrap_err().code, "not_loaded");
}

#[tokio::test]
async fn what_serves_another_agents_calls_keeps_no_caller_from_unloading_its_own() {
    let server = Server::start().await;
    let text = answering(Some('a'));
    let serving = load(&server, &text).await;
    server.executor.deploy(&deploy(&serving, Strategy::BlueGreen)).await.unwrap();
    load(&server, &answering(Some('b'))).await;
    let own = admitted(&text, GrantSet::default(), CallLimits::default());
    let own = own.called("own.agent", "s@example.org");
    assert_eq!(server.executor.admit_for_test(own).await.to_string(), serving);
    let caller = Caller::new("own").limited_to(["own.*".to_owned()]);
    server.executor.unload_for(&caller, &serving).await.unwrap();
    assert!(server.executor.find("own.agent").is_none());
    assert_eq!(answer(&server).await, "a");
}

#[tokio::test]
async fn a_release_is_not_unloaded_while_another_one_may_come_back_undeployed() {
    let server = Server::start().await;
    let old = load(&server, &answering(Some('a'))).await;
    server.executor.deploy(&deploy(&old, Strategy::BlueGreen)).await.unwrap();
    // Of the last run something waits that may be anybody's, and then something of this agent that was not read.
    let nameless = std::path::Path::new("nameless.agent");
    server.executor.waiting.add_for_test(0, nameless.into());
    for name in [old.as_str(), AGENT] {
        assert_eq!(server.executor.unload(name).await.unwrap_err().code, "restoring");
    }
    server.executor.waiting.settle(nameless, |_| {});
    let other = server.executor.submissions.path(AGENT, ModuleDigest::of(b"other"));
    server.executor.waiting.add_for_test(0, other);
    assert_eq!(server.executor.unload(&old).await.unwrap_err().code, "in_service");
    assert_eq!(answer(&server).await, "a");
}

#[tokio::test]
async fn the_route_of_a_release_that_was_made_to_serve_while_it_was_unloaded_stays() {
    let server = Server::start().await;
    let old = load(&server, &answering(Some('a'))).await;
    server.executor.deploy(&deploy(&old, Strategy::BlueGreen)).await.unwrap();
    let new = load(&server, &answering(Some('b'))).await;
    server.executor.deploy(&deploy(&new, Strategy::BlueGreen)).await.unwrap();
    // What `unload` does after it looked, and before it takes the route away.
    let gone = server.executor.agents.remove(&new).unwrap();
    let seen = server.executor.deployments.route(AGENT).unwrap();
    let promoted = seen.promoted(gone[0].digest, "promote: healthy");
    server.executor.deployments.change(AGENT, Some(&seen), Some(promoted)).await.unwrap();
    server.executor.unroute(gone[0].as_ref().into()).await.unwrap();
    assert_eq!(server.executor.deployment(AGENT).unwrap().stable, new);
    assert_eq!(call(&server).await.unwrap_err().code, "not_loaded", "nobody decided that the old one serves");
    server.executor.deploy(&deploy(&old, Strategy::BlueGreen)).await.unwrap();
    assert_eq!(answer(&server).await, "a");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_never_answers_is_taken_back_when_its_callers_give_up() {
    let server = Server::start().await;
    let old = load(&server, &answering(Some('a'))).await;
    server.executor.deploy(&deploy(&old, Strategy::BlueGreen)).await.unwrap();
    // It takes no processor, so that the other one stays as fast as it is.
    let hanging = load(&server, crate::testing::texts::SLEEPS).await;
    let minute = Deploy { step_ms: Some(60_000), ..deploy(&hanging, Strategy::Rolling) };
    server.executor.deploy(&minute).await.unwrap();
    // One of four hangs; after a second it is slow beside whatever a busy machine makes of the others.
    for _ in 0..60 {
        let call = async || {
            let _ = tokio::time::timeout(std::time::Duration::from_secs(1), call(&server)).await;
        };
        tokio::join!(call(), call(), call(), call(), call(), call(), call(), call());
        look(&server).await;
        if server.executor.deployment(AGENT).unwrap().candidate.is_none() {
            break;
        }
    }
    let back = server.executor.deployment(AGENT).unwrap();
    assert_eq!((back.stable.as_str(), back.last.as_str()), (old.as_str(), "rollback: error_rate"));
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_in_a_hurry_take_no_release_back_and_its_own_limit_does() {
    let server = Server::start().await;
    let old = load(&server, &answering(Some('a'))).await;
    server.executor.deploy(&deploy(&old, Strategy::BlueGreen)).await.unwrap();
    let slow = load(&server, crate::testing::texts::SLEEPS).await;
    let minute = Deploy { step_ms: Some(60_000), ..deploy(&slow, Strategy::BlueGreen) };
    server.executor.deploy(&minute).await.unwrap();
    let call_within = async |time| {
        let terms = Terms { deadline: Some(time), ..Terms::default() };
        server.executor.execute(AGENT, Bytes::new(), terms).await.unwrap_err().code
    };
    for _ in 0..12 {
        assert_eq!(call_within(std::time::Duration::from_millis(1)).await, "deadline_exceeded");
        look(&server).await;
    }
    assert!(server.executor.deployment(AGENT).unwrap().candidate.is_some(), "by whoever may call");
    let taken_back = || server.counted("mentatlab_deployment_changes_total{reason=\"rollback\"}");
    assert_eq!(taken_back(), 0);
    server.executor.rollback(AGENT).await.unwrap();

    // The same guest under a limit of its own, whatever time its callers have.
    let limits = CallLimits { wall: std::time::Duration::from_millis(20), ..CallLimits::default() };
    let text = crate::testing::texts::SLEEPS.replace("600000000000", "500000000000");
    let bounded = admitted(&text, GrantSet::default(), limits).called(AGENT, "s@example.org");
    let bounded = server.executor.admit_for_test(bounded).await.to_string();
    server.executor.deploy(&Deploy { digest: bounded, ..minute }).await.unwrap();
    for _ in 0..12 {
        assert_eq!(call_within(std::time::Duration::from_secs(60)).await, "deadline_exceeded");
    }
    look(&server).await;
    assert_eq!(server.executor.deployment(AGENT).unwrap().last, "rollback: error_rate");
    assert_eq!(taken_back(), 2, "once by its operator and once by itself");
}

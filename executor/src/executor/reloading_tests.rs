//! A changed policy file, while agents are loaded and run.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::{Executor, PolicyChange, Terms};
use crate::admission::{Denied, GrantSet};
use crate::testing::{ENDS, Server, admitted, patient, wat_echo, wat_spin};

const POLICY: &str = "version: 1\nlogs: { witnesses: not-required }\ncapabilities: { within: [] }\n";

async fn admit(server: &Server, text: &str, agent: &str) {
    let admitted = admitted(text, GrantSet::default(), patient()).called(agent, "dev@example.org");
    server.executor.admit_for_test(admitted).await;
}

fn write(server: &Server, text: &str) {
    // As editors do: the file that is named afterwards is another one.
    let new = server.state().join("policy.new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, server.state().join("policy.yaml")).unwrap();
}

async fn call(executor: &Arc<Executor>, agent: &str) -> Result<super::Executed, Denied> {
    executor.execute(agent, Bytes::new(), Terms::default()).await
}

fn spinning(
    server: &Server,
    agent: &'static str,
) -> tokio::task::JoinHandle<Result<super::Executed, Denied>> {
    let executor = Arc::clone(&server.executor);
    tokio::spawn(async move { call(&executor, agent).await })
}

async fn until_it_runs<T>(server: &Server, agent: &str, call: &tokio::task::JoinHandle<T>) {
    let admission = server.executor.agents.find(agent).unwrap().admission();
    while !server.executor.parts.runtime.live().has(admission) {
        assert!(!call.is_finished(), "the call ended before it was seen");
        tokio::task::yield_now().await;
    }
}

fn audited(server: &Server, text: &str) -> usize {
    let log = std::fs::read_to_string(server.state().join("audit.jsonl")).unwrap();
    log.lines().filter(|line| line.contains(text)).count()
}

#[tokio::test]
async fn another_policy_is_in_force_at_once_and_judges_everything_again() {
    let server = Server::start().await;
    admit(&server, wat_echo(), "reload.echo").await;
    // Let in by the tests' door; the first judgement by any policy finds that nobody vouches for it.
    call(&server.executor, "reload.echo").await.unwrap();
    let before = server.executor.status().policy;

    write(&server, POLICY);
    assert_eq!(server.executor.reload_policy().await.unwrap(), PolicyChange::InForce);
    let status = server.executor.status();
    assert_ne!(status.policy, before);
    assert_eq!(status.policy, hex::encode(crate::config::policy_version(POLICY.as_bytes())));
    let refused = call(&server.executor, "reload.echo").await.unwrap_err();
    assert!(refused.step != 0 && refused.is_about_policy(), "{refused:?}");
    assert_eq!(server.executor.reload_policy().await.unwrap(), PolicyChange::None);
    server.executor.close().await;
    assert_eq!(audited(&server, "\"policy_load\""), 1);
}

#[tokio::test]
async fn a_policy_that_cannot_be_used_changes_nothing_and_is_told_once() {
    let server = Server::start().await;
    admit(&server, wat_echo(), "reload.kept").await;
    let before = server.executor.status().policy;
    for (text, part) in [
        ("version: 1\nrevocation: { mode: danger-skip }\ncapabilities: { within: [] }\n", "revocation"),
        ("version: 1\nskip: everything\n", "skip"),
        ("version: 1\nrequired_level: untrusted\nlogs: { witnesses: not-required }\n", "untrusted"),
        // Whether or not anybody here knows their language.
        (
            "version: 1\nlogs: { witnesses: not-required }\ncapability_rules: permit everything\n",
            "capability",
        ),
    ] {
        write(&server, text);
        for _ in 0..3 {
            let refused = server.executor.reload_policy().await.unwrap_err().to_string();
            assert!(refused.contains(part), "{refused}");
        }
        let status = server.executor.status();
        assert!(status.policy_problem.unwrap().contains(part));
        assert_eq!(status.policy, before);
        call(&server.executor, "reload.kept").await.unwrap();
    }
    std::fs::remove_file(server.state().join("policy.yaml")).unwrap();
    assert!(server.executor.reload_policy().await.is_err());
    call(&server.executor, "reload.kept").await.unwrap();
    write(&server, POLICY);
    server.executor.reload_policy().await.unwrap();
    assert_eq!(server.executor.status().policy_problem, None);
    server.executor.close().await;
    assert_eq!(audited(&server, "\"policy_refused\""), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_is_stopped_by_a_policy_that_admits_it_no_longer() {
    let _alone = ENDS.lock().await;
    let server = Server::start().await;
    admit(&server, wat_spin(), "reload.stop").await;
    let running = spinning(&server, "reload.stop");
    until_it_runs(&server, "reload.stop", &running).await;
    write(&server, POLICY);
    server.executor.reload_policy().await.unwrap();
    let ended = running.await.unwrap().unwrap_err();
    assert!(ended.is_about_policy(), "the caller learns the verdict: {ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_may_end_by_itself_where_the_operator_gives_it_time() {
    let _alone = ENDS.lock().await;
    let server = Server::draining(Duration::from_secs(1)).await;
    admit(&server, wat_spin(), "reload.drain").await;
    let running = spinning(&server, "reload.drain");
    until_it_runs(&server, "reload.drain", &running).await;
    write(&server, POLICY);
    server.executor.reload_policy().await.unwrap();
    let new = call(&server.executor, "reload.drain").await.unwrap_err();
    assert!(new.is_about_policy(), "no new calls: {new:?}");
    assert!(!running.is_finished(), "it has time");
    // It never ends by itself, so its time ends it.
    let ended = running.await.unwrap().unwrap_err();
    assert_eq!(ended.code, new.code);
}

#[tokio::test]
async fn a_policy_is_tried_and_nothing_changes() {
    let server = Server::start().await;
    admit(&server, wat_echo(), "reload.tried").await;
    let before = server.executor.status();
    let report = server.executor.try_policy(POLICY.as_bytes()).await.unwrap();
    assert_eq!(report.in_force, before.policy);
    assert_eq!(report.tried, hex::encode(crate::config::policy_version(POLICY.as_bytes())));
    let [verdict] = &report.agents[..] else { panic!("{report:?}") };
    assert_eq!(verdict.agent_id, "reload.tried");
    assert!(verdict.now.is_some() && verdict.then.is_some(), "nobody vouches for it under any policy");
    for text in ["", "version: 2", "version: 1\nrevocation: { mode: danger-skip }"] {
        assert_eq!(server.executor.try_policy(text.as_bytes()).await.unwrap_err().code, "invalid_argument");
    }
    assert_eq!(server.executor.status(), before);
    call(&server.executor, "reload.tried").await.unwrap();
}

#[tokio::test]
async fn added_requirements_wait_for_their_day_and_are_in_force_from_it() {
    let today = crate::clock::unix_seconds();
    let stricter = POLICY.replace("version: 1", "version: 1\nagents: { allow: [\"none.such\"] }");
    let digest = |text: &str| hex::encode(crate::config::policy_version(text.as_bytes()));
    for (day, text) in [(today + 1_000_000, POLICY), (today - 1, stricter.as_str())] {
        let server = Server::with_next_policy(trust_store::UnixTime(day), &stricter).await;
        write(&server, POLICY);
        for _ in 0..2 {
            server.executor.reload_policy().await.unwrap();
        }
        assert_eq!(server.executor.status().policy, digest(text));
        assert_eq!(server.state().join("enforced-policy").exists(), day < today);
    }
}

#[tokio::test]
async fn a_day_that_has_come_does_not_wait_for_a_file_that_was_removed_or_broken() {
    let yesterday = trust_store::UnixTime(crate::clock::unix_seconds() - 1);
    let stricter = POLICY.replace("version: 1", "version: 1\nagents: { allow: [\"none.such\"] }");
    let digest = |text: &str| hex::encode(crate::config::policy_version(text.as_bytes()));
    for broken in [None, Some("version: 1\nskip: everything\n"), Some("")] {
        let server = Server::with_next_policy(yesterday, &stricter).await;
        write(&server, POLICY);
        let next = server.state().join("next.yaml");
        match broken {
            None => std::fs::remove_file(&next).unwrap(),
            Some(text) => std::fs::write(&next, text).unwrap(),
        }
        for _ in 0..2 {
            assert!(server.executor.reload_policy().await.is_err());
        }
        assert_eq!(server.executor.status().policy, digest(&stricter), "{broken:?}");
        assert!(server.executor.status().policy_problem.is_some());
        assert!(server.executor.problems().iter().any(|problem| problem.starts_with("policy: ")));
        // A file that can be used is used again.
        let repaired = format!("{stricter}# again\n");
        std::fs::write(&next, &repaired).unwrap();
        server.executor.reload_policy().await.unwrap();
        assert_eq!(server.executor.status().policy, digest(&repaired));
        assert!(!server.executor.problems().iter().any(|problem| problem.starts_with("policy: ")));
        assert_eq!(server.counted("mentatlab_policy_changes_total{reason=\"refused\"}"), 1);
        assert_eq!(server.counted("mentatlab_policy_changes_total{reason=\"loaded\"}"), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_refusal_gives_its_own_time() {
    let _alone = ENDS.lock().await;
    let time = Duration::from_millis(1_200);
    let server = Server::draining(time).await;
    admit(&server, wat_spin(), "reload.again").await;
    let running = spinning(&server, "reload.again");
    until_it_runs(&server, "reload.again", &running).await;
    let refused = Denied::in_step(13, "policy_denied", "the policy of this test");
    assert!(refused.is_about_policy());
    let since = |at| crate::clock::monotonic().saturating_duration_since(at);
    let began = crate::clock::monotonic();
    let mut last = began;
    for (number, ruling) in [Err(refused.clone()), Ok(()), Err(refused.clone())].into_iter().enumerate() {
        *server.executor.parts.admission.ruling.lock() = Some(Box::new(move |_| ruling.clone()));
        write(&server, &format!("{POLICY}# {number}\n"));
        last = crate::clock::monotonic();
        server.executor.reload_policy().await.unwrap();
        if number == 0 {
            tokio::time::sleep(time / 2).await;
        }
    }
    // The time of the first refusal is up, that of the last one is not.
    tokio::time::sleep(time.saturating_sub(since(began)) + Duration::from_millis(200)).await;
    if since(last) < time {
        assert!(!running.is_finished(), "the last refusal gave it time");
    }
    assert_eq!(running.await.unwrap().unwrap_err().code, refused.code);
    assert!(since(last) >= time);
}

//! What a caller who has agents of its own learns of those of others by a digest.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use executor_engine::ModuleDigest;

use super::{Executor, Terms};
use crate::admission::{GrantSet, Publisher};
use crate::callers::Caller;
use crate::runtime::CallLimits;
use crate::testing::{Server, admitted, wat_echo};

const OWN: &str = "billing.waits";
const OTHER: &str = "mail.waits";

fn billing() -> Caller {
    Caller::new("caller:billing").limited_to(["billing.*".to_owned()])
}

/// Two agents that wait since a start, each with a module of its own: their digests.
async fn server() -> (Server, [String; 2]) {
    let server = Server::start().await;
    let publisher = Publisher::new("dev@example.org", "");
    for agent in [OWN, OTHER] {
        server.executor.waiting.add_publisher_for_test(agent, &publisher);
    }
    (server, [OWN, OTHER].map(|agent| ModuleDigest::of(agent.as_bytes()).to_string()))
}

/// What a call is denied with, and what a look.
async fn denials(server: &Server, caller: &Caller, name: &str) -> (&'static str, Option<&'static str>) {
    let terms = Terms { caller: caller.clone(), ..Terms::default() };
    let called = server.executor.execute(name, Bytes::new(), terms).await;
    let found = server.executor.find_for(caller, name);
    (called.map(drop).unwrap_err().code, found.map(drop).map_err(|denied| denied.code).err())
}

#[tokio::test]
async fn a_digest_tells_nothing_of_agents_that_are_not_the_callers() {
    let (server, [own, other]) = server().await;
    let nobody = "0".repeat(64);
    let refused = ("agent_not_allowed", Some("agent_not_allowed"));
    assert_eq!(denials(&server, &billing(), &other).await, refused, "it waits");
    assert_eq!(denials(&server, &billing(), &nobody).await, refused, "nobody runs it");
    assert_eq!(denials(&server, &billing(), &own).await, ("checkpoint_stale", None));
    let all = Caller::new("caller:gateway");
    assert_eq!(denials(&server, &all, &other).await, ("checkpoint_stale", None));
    assert_eq!(denials(&server, &all, &nobody).await, ("not_loaded", None));
    let metrics = server.exposition();
    let counted = "mentatlab_callers_refused_total{reason=\"agent_not_allowed\"} 4";
    assert!(metrics.contains(counted), "{metrics}");
}

#[tokio::test]
async fn a_digest_of_several_agents_is_for_whoever_may_call_all_of_them() {
    let server = Server::start().await;
    let named = |agent| {
        let echo = admitted(wat_echo(), GrantSet::default(), CallLimits::default());
        echo.called(agent, "dev@example.org")
    };
    let digest = server.executor.admit_for_test(named("billing.echo")).await.to_string();
    server.executor.judge_well_for_test();
    let call = async |executor: &std::sync::Arc<Executor>| {
        let terms = Terms { caller: billing(), ..Terms::default() };
        executor.execute(&digest, Bytes::new(), terms).await.map(drop).map_err(|denied| denied.code)
    };
    assert_eq!(call(&server.executor).await, Ok(()));
    server.executor.admit_for_test(named("mail.echo")).await;
    let module = ModuleDigest::parse(&digest).unwrap();
    assert_eq!(server.executor.agents.of_module(module).len(), 2);
    assert_eq!(server.executor.agents.releases_of("mail.echo").len(), 1);
    assert_eq!(
        call(&server.executor).await,
        Err("agent_not_allowed"),
        "that it is ambiguous is not its to know"
    );
}

#[tokio::test]
async fn while_records_are_unread_a_digest_says_no_more_than_that() {
    let (server, [own, other]) = server().await;
    let nobody = "0".repeat(64);
    // Whosever it is.
    let unread = PathBuf::from("unread.agent");
    server.executor.waiting.add_for_test(10, unread.clone());
    for name in [&own, &other, &nobody] {
        assert_eq!(denials(&server, &billing(), name).await, ("restoring", Some("restoring")), "{name}");
    }
    let loaded = admitted(wat_echo(), GrantSet::default(), CallLimits::default());
    let digest =
        server.executor.admit_for_test(loaded.called("mail.echo", "dev@example.org")).await.to_string();
    let refused = ("agent_not_allowed", Some("agent_not_allowed"));
    assert_eq!(denials(&server, &billing(), &digest).await, refused);
    server.executor.waiting.settle(Path::new(&unread), |waited| assert!(waited));
    assert_eq!(denials(&server, &billing(), &nobody).await, refused);
}

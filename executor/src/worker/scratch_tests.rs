#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
//! Scratch files of guests in real workers.

use trust_store::policy::TrustLevel;

use super::tests::{call, server};
use crate::admission::GrantSet;
use crate::component::scratch_tests;
use crate::runtime::CallLimits;
use crate::testing::{Server, admitted};

/// Lets a guest that fills its scratch files in, under what was granted.
async fn admit(server: &Server, agent: &str, grants: GrantSet) {
    let limits = CallLimits { scratch: 1 << 20, ..CallLimits::default() };
    let module = admitted(&scratch_tests::fills(), grants, limits).called(agent, "scratch@example.org");
    server.executor.admit_for_test(module.at(TrustLevel::Signed)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scratch_files_lie_in_the_worker_and_end_with_their_call() {
    let server = server().await;
    admit(&server, "w.scratch", scratch_tests::granting("write")).await;
    for _ in 0..2 {
        let done = call(&server, "w.scratch", b"").await.unwrap().outcome;
        assert_eq!(done.output, scratch_tests::filled(63));
        assert_eq!(done.usage.refused_growths, 2);
        assert!(done.usage.memory_bytes > 1 << 20, "{:?}", done.usage);
    }
    admit(&server, "w.read", scratch_tests::granting("read")).await;
    assert_ne!(call(&server, "w.read", b"").await.unwrap().outcome.output[1], 0);
    admit(&server, "w.none", GrantSet::default()).await;
    assert_eq!(call(&server, "w.none", b"").await.unwrap().outcome.output, [0; 8]);
}

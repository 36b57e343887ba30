//! Lines that guests in workers write, and whoever reads them.

use std::sync::Arc;

use bytes::Bytes;
use trust_store::policy::TrustLevel;

use super::WorkerLimits;
use crate::admission::{GrantSet, SignerKey};
use crate::component::one_line;
use crate::executor::{Next, Terms};
use crate::runtime::CallLimits;
use crate::streams::StreamEvent;
use crate::testing::{Server, admitted};

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_has_no_room_anywhere_is_missed_and_costs_no_worker() {
    const SIGNER: &str = "line@example.org";
    let limits = WorkerLimits { processes: 1, calls: 1, ..WorkerLimits::default() };
    let server = Server::with_workers(limits).await;
    // Escaped it would be longer than anything that a worker says.
    let limits = CallLimits { output: 4 << 20, ..CallLimits::default() };
    for (agent, level) in [("line.here", TrustLevel::Verified), ("line.worker", TrustLevel::Signed)] {
        let module = admitted(&one_line(512), GrantSet::default(), limits).called(agent, SIGNER).at(level);
        server.executor.admit_for_test(module).await;
        let process = || {
            let workers = Arc::clone(server.executor.runtime().workers().unwrap());
            workers.process_of(&SignerKey::for_test(SIGNER, TrustLevel::Signed))
        };
        let before = process();
        let mut streaming =
            server.executor.execute_streaming(agent, Bytes::new(), Terms::default()).await.unwrap();
        let Some(Next::Event(StreamEvent::Missed { log_lines: 1 })) = streaming.next().await else {
            panic!("{agent}: it is not said that a line is missing")
        };
        let Some(Next::Ended(ended)) = streaming.next().await else { panic!("{agent}: something followed") };
        let outcome = ended.unwrap().outcome;
        assert_eq!((outcome.exit_code, outcome.log.len()), (0, 0), "{agent}");
        if let Some(before) = before {
            assert!(before.lives() && process().is_some_and(|now| Arc::ptr_eq(&now, &before)));
        }
    }
}

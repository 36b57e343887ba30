//! Lines that guests in workers write, and whoever reads them.

use std::sync::Arc;

use bytes::Bytes;
use trust_store::policy::TrustLevel;

use super::WorkerLimits;
use crate::admission::{GrantSet, SignerKey};
use crate::component::one_line;
use crate::executor::{Next, Terms};
use crate::runtime::{CallLimits, HostRates};
use crate::streams::StreamEvent;
use crate::testing::{Server, admitted};

/// Records a metric fifty times.
const FLOODS: &str = r#"(module
    (import "mentat" "record_metric" (func $metric (param i32 i32 f64) (result i32)))
    (memory (export "memory") 1) (data (i32.const 0) "m")
    (func (export "process") (result i32) (local $n i32)
      (loop $l
        (drop (call $metric (i32.const 0) (i32.const 1) (f64.const 1)))
        (br_if $l (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 50))))
      (i32.const 0)))"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_host_calls_leaves_its_line_with_whoever_reads_along() {
    let server =
        Server::with_workers(WorkerLimits { processes: 1, calls: 1, ..WorkerLimits::default() }).await;
    let rates = HostRates { metrics: 5, ..HostRates::default() };
    let limits = CallLimits { rates, ..CallLimits::default() };
    for (agent, level) in [("flood.here", TrustLevel::Verified), ("flood.worker", TrustLevel::Signed)] {
        let module =
            admitted(FLOODS, GrantSet::default(), limits).called(agent, "flood@example.org").at(level);
        server.executor.admit_for_test(module).await;
        let mut streaming =
            server.executor.execute_streaming(agent, Bytes::new(), Terms::default()).await.unwrap();
        let Some(Next::Event(StreamEvent::Log(line))) = streaming.next().await else {
            panic!("{agent}: no line")
        };
        assert!(line.text.starts_with("host_call_rate: calls of `metric`"), "{agent}: {}", line.text);
        let Some(Next::Ended(ended)) = streaming.next().await else { panic!("{agent}: something followed") };
        assert_eq!(ended.unwrap().outcome.log, [line], "{agent}");
    }
}

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

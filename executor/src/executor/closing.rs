//! The end: what runs ends first, then the logs, so that what ran is in them.

use std::time::Duration;

use executor_api::audit::AuditEvent;

use super::Executor;
use crate::clock;
use crate::runtime::{KillCause, Selector};
use crate::worker::OBEY_AT_LATEST;

/// How long calls that were told to end are waited for. A guest hears of it within two ticks; a worker that does not obey is killed no
/// later than this, and then its call is to be written down.
const PATIENCE: Duration = OBEY_AT_LATEST.saturating_add(Duration::from_secs(1));

/// Between two looks.
const LOOK: Duration = Duration::from_millis(5);

impl Executor {
    /// Ends what runs, and refuses what would run: calls get the reason `shutdown`.
    pub fn shut_down(&self) {
        // First: a call that does not see this is in the list of what runs.
        self.draining.shut();
        self.parts.runtime.stop(&Selector::default(), KillCause::Shutdown);
    }

    /// Ends the audit log with a record of the stop, and the receipt log, once everything before is durable. Calls whose callers are gone
    /// may still be ending: they are waited for, so that they are in both, and so are orders whose givers are gone.
    pub async fn close(&self) {
        let (missing, orders) = self.underway(PATIENCE).await;
        if missing > 0 {
            tracing::error!(missing, "records of calls were not written in time; they are not in the logs");
        }
        if orders > 0 {
            tracing::error!(orders, "orders were not carried out in time");
        }
        let detail = (missing > 0).then(|| format!("records of calls missing: {missing}"));
        let event = AuditEvent { event_type: "stop".into(), detail, ..AuditEvent::default() };
        if self.parts.audit.record_durably(event).await.is_err() {
            tracing::error!("the audit log could not be ended with a record of the stop");
        }
        self.attest(0).await;
        self.parts.receipts.close().await;
        if let Some(tracer) = &self.parts.tracer {
            tracer.flush().await;
        }
    }

    /// Waits until what runs has ended and is recorded: until then it keeps its room in both logs. How many records are missing, and how
    /// many orders are being carried out, when the time is over.
    async fn underway(&self, patience: Duration) -> (usize, usize) {
        let until = clock::monotonic() + patience;
        loop {
            let missing = self.parts.audit.pending().max(self.parts.receipts.pending());
            let orders = self.orders.underway();
            if (missing, orders) == (0, 0) || clock::monotonic() >= until {
                return (missing, orders);
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::admission::GrantSet;
    use crate::executor::Terms;
    use crate::runtime::CallLimits;
    use crate::testing::{Server, admitted, patient, wat_echo, wat_spin};

    /// Or its call would be in neither log, and would run on while the process has ended already.
    #[test]
    fn whatever_a_worker_may_take_to_obey_is_waited_for() {
        assert!(PATIENCE >= OBEY_AT_LATEST + Duration::from_millis(500), "{PATIENCE:?}");
    }

    /// Such calls do not end with their connections, and nobody would tell them to end.
    #[tokio::test(flavor = "multi_thread")]
    async fn no_call_begins_once_the_process_ends() {
        let server = Server::alone().await;
        let agent = "closing.spin";
        let module = admitted(wat_spin(), GrantSet::default(), patient()).called(agent, "s@example.org");
        server.executor.admit_for_test(module).await;
        let call = |key: &str| {
            let terms = Terms { idempotency_key: Some(key.into()), ..Terms::default() };
            let executor = Arc::clone(&server.executor);
            let call = async move { executor.execute(agent, Bytes::new(), terms).await };
            tokio::spawn(tokio::time::timeout(Duration::from_secs(10), call))
        };
        let running = call("1");
        while server.executor.runtime().live().count() == 0 {
            assert!(!running.is_finished());
            tokio::task::yield_now().await;
        }
        server.executor.shut_down();
        // No order takes that back.
        server.executor.drain().await.unwrap();
        server.executor.undrain().await.unwrap();
        for call in [running, call("2")] {
            assert_eq!(call.await.unwrap().expect("it runs").unwrap_err().code, "shutdown");
        }
        let resumable = Terms { resumable: true, ..Terms::default() };
        let refused = server.executor.execute_and_read(agent, Bytes::new(), resumable).await;
        assert_eq!(refused.err().unwrap().code, "shutdown");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_order_is_carried_out_before_the_process_ends() {
        let server = Server::start().await;
        let agent = "closing.echo";
        let module = || {
            admitted(wat_echo(), GrantSet::default(), CallLimits::default()).called(agent, "s@example.org")
        };
        let executor = &server.executor;
        executor.load_for_test(module()).await.unwrap();
        let record = executor.submissions.path(agent, module().digest());
        // An unload waits for a load, and whoever asked for it has gone.
        let loading = executor.loading.lock().await;
        {
            let mut unloading = std::pin::pin!(executor.unload(agent));
            assert!(futures_util::poll!(unloading.as_mut()).is_pending());
        }
        let closing = tokio::spawn({
            let executor = Arc::clone(executor);
            async move { executor.close().await }
        });
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(!closing.is_finished(), "the agent's record would bring it back");
        drop(loading);
        closing.await.unwrap();
        assert!(!record.exists());
    }
}

//! The end: what runs ends first, then the logs, so that what ran is in them.

use std::time::Duration;

use executor_api::audit::AuditEvent;

use super::Executor;
use crate::clock;
use crate::runtime::{KillCause, Selector};

/// How long calls that were told to end are waited for. A guest hears of it within two ticks; a worker that does not obey is killed after
/// half a second, or a second where its call had not come when it was stopped.
const PATIENCE: Duration = Duration::from_secs(2);

/// Between two looks.
const LOOK: Duration = Duration::from_millis(5);

impl Executor {
    /// Ends what runs: calls get the reason `shutdown`.
    pub fn shut_down(&self) {
        self.parts.runtime.stop(&Selector::default(), KillCause::Shutdown);
    }

    /// Ends the audit log with a record of the stop, and the receipt log, once everything before is durable. Calls whose callers are gone
    /// may still be ending: they are waited for, so that they are in both.
    pub async fn close(&self) {
        let missing = self.records_missing(PATIENCE).await;
        if missing > 0 {
            tracing::error!(missing, "records of calls were not written in time; they are not in the logs");
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

    /// Waits until what runs has ended and is recorded: until then it keeps its room in both logs. How many records are missing when the
    /// time is over.
    async fn records_missing(&self, patience: Duration) -> usize {
        let until = clock::monotonic() + patience;
        loop {
            let missing = self.parts.audit.pending().max(self.parts.receipts.pending());
            if missing == 0 || clock::monotonic() >= until {
                return missing;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

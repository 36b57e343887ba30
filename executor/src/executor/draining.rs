//! Out of service, for a while: what runs ends by itself, new calls are refused and go to another executor.
//!
//! The state is the process's own: who restarts an executor wants it back.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use executor_api::Status;
use executor_api::audit::AuditEvent;

use super::Executor;
use crate::admission::Denied;
use crate::clock;
use crate::records::audit_unavailable;

/// In the place of a time: the process ends, and no order takes calls again.
const SHUT: i64 = -1;

/// Since when an executor takes no calls.
#[derive(Debug, Default)]
pub(super) struct Draining {
    /// Seconds since 1970; 0 while it is in service, or [`SHUT`].
    since: AtomicI64,
    /// Held from an order's record until it is in force.
    order: tokio::sync::Mutex<()>,
}

impl Draining {
    /// Unless that was so before.
    fn begin(&self) {
        let now = clock::unix_seconds();
        let _ = self.since.compare_exchange(0, now, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// Seconds since 1970.
    pub(super) fn since(&self) -> Option<i64> {
        Some(self.since.load(Ordering::Acquire)).filter(|since| *since > 0)
    }

    /// For good: the process ends.
    pub(super) fn shut(&self) {
        self.since.store(SHUT, Ordering::Release);
    }

    fn end(&self) {
        let shut_stays = |since| (since != SHUT).then_some(0);
        let _ = self.since.fetch_update(Ordering::AcqRel, Ordering::Acquire, shut_stays);
    }

    /// Refuses a call that is in the list of what runs already: whoever looks there after a drain sees every call that
    /// was not refused.
    pub(super) fn refuse(&self) -> Result<(), Denied> {
        match self.since.load(Ordering::Acquire) {
            0 => Ok(()),
            SHUT => Err(Denied::new("shutdown", "this executor is stopping; call another one")),
            _ => Err(Denied::new("draining", "this executor is being drained; call another one")),
        }
    }
}

impl Executor {
    /// Refuses calls from now on. What runs may finish; the status says how many still do.
    ///
    /// # Errors
    ///
    /// When it cannot be recorded; it is drained all the same.
    pub async fn drain(self: &Arc<Self>) -> Result<Status, Denied> {
        self.draining.begin();
        let executor = Arc::clone(self);
        let order = async move {
            let _one_at_a_time = executor.draining.order.lock().await;
            // The order to take calls again that came before may have been carried out meanwhile.
            executor.draining.begin();
            executor.record_service("drain").await
        };
        self.carried_out(order).await
    }

    /// Takes calls again.
    ///
    /// # Errors
    ///
    /// When it cannot be recorded; nothing has changed then.
    pub async fn undrain(self: &Arc<Self>) -> Result<Status, Denied> {
        let executor = Arc::clone(self);
        let order = async move {
            let _one_at_a_time = executor.draining.order.lock().await;
            executor.record_service("undrain").await?;
            executor.draining.end();
            Ok(executor.status())
        };
        self.carried_out(order).await
    }

    async fn record_service(&self, what: &str) -> Result<Status, Denied> {
        let running = self.parts.runtime.live().count();
        let detail = Some(format!("{running} instances run"));
        let event = AuditEvent { event_type: what.into(), detail, ..AuditEvent::default() };
        self.parts.audit.record_durably(event).await.map_err(audit_unavailable)?;
        Ok(self.status())
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::Server;

    #[tokio::test]
    async fn the_order_that_was_given_last_is_in_force() {
        let server = Server::start().await;
        let executor = &server.executor;
        executor.drain().await.unwrap();
        let (back, out) = tokio::join!(executor.undrain(), executor.drain());
        assert_eq!(back.unwrap().draining_since, None);
        assert!(out.unwrap().draining_since.is_some() && executor.status().draining_since.is_some());
        let (out, back) = tokio::join!(executor.drain(), executor.undrain());
        assert!(out.is_ok() && back.is_ok());
        assert_eq!(executor.status().draining_since, None);
    }
}

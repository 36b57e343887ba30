//! Orders of administrators: carried out to their end, also when whoever gave one goes away.
//!
//! The future of a request is dropped with its connection. An order that ended there would be in force in one place and not in the next:
//! a release that is held and runs on, an agent that is gone and whose record brings it back, one whose record is there and that is not.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Executor;
use crate::admission::Denied;

/// How many orders are being carried out.
#[derive(Debug, Default)]
pub(super) struct Orders(Arc<AtomicUsize>);

/// One of them.
struct Underway(Arc<AtomicUsize>);

impl Drop for Underway {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Orders {
    fn begin(&self) -> Underway {
        self.0.fetch_add(1, Ordering::AcqRel);
        Underway(Arc::clone(&self.0))
    }

    pub(super) fn underway(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }
}

impl Executor {
    /// Carries out an order in a task of its own, and waits for it as long as anybody wants to know.
    pub(super) async fn carried_out<T: Send + 'static>(
        &self,
        order: impl Future<Output = Result<T, Denied>> + Send + 'static,
    ) -> Result<T, Denied> {
        let underway = self.orders.begin();
        let order = async move {
            let _underway = underway;
            order.await
        };
        tokio::spawn(order).await.unwrap_or_else(|error| {
            Err(Denied::new("internal", "the order failed").for_operator(error.to_string()))
        })
    }
}

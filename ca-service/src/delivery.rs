//! Deliveries are noted behind the answer, many together.
//!
//! Everything a delivery follows from is durable when the answer goes out, and after a crash the reconciler comes to the same,
//! so nobody waits for the note. A commit for each would make the next requester wait for it: the store has one writer, and
//! whoever comes while it syncs waits for that sync before its own.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::authority::CertificateAuthority;
use crate::storage::{IntentId, StoreError};

/// How long deliveries are gathered: some fifty at the highest rate, and few enough commits at the lowest.
const GATHERED_FOR: Duration = Duration::from_millis(20);

/// A certificate that was answered: its issuance, and the index of its entry where that is new.
type Delivery = (IntentId, Option<u64>);

/// Deliveries that are not noted yet.
#[derive(Debug, Default)]
pub(crate) struct Deliveries(Mutex<Vec<Delivery>>);

impl Deliveries {
    /// Adds one; true for the first, whose caller sees to all that come meanwhile.
    fn add(&self, delivery: Delivery) -> bool {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.push(delivery);
        waiting.len() == 1
    }

    /// The log's index, as answered, for an issuance among them.
    pub(crate) fn answered(&self, intent: &IntentId) -> Option<Option<u64>> {
        let waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.iter().find(|(waits, _)| waits == intent).map(|(_, index)| *index)
    }

    fn take(&self) -> Vec<Delivery> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl CertificateAuthority {
    /// Notes soon, and behind the answer, that a certificate was delivered.
    pub(crate) fn mark_delivered_behind(self: &Arc<Self>, intent: IntentId, log_index: Option<u64>) {
        if self.deliveries.add((intent, log_index)) {
            let this = Arc::clone(self);
            tokio::spawn(async move {
                tokio::time::sleep(GATHERED_FOR).await;
                this.note_deliveries().await;
            });
        }
    }

    /// Notes what was delivered so far. What is handed in together goes into one commit.
    pub(crate) async fn note_deliveries(&self) {
        let at = self.clock.for_records();
        let notes = self
            .deliveries
            .take()
            .into_iter()
            .map(|(intent, log_index)| self.store.mark_delivered(intent, log_index, at));
        for outcome in futures_util::future::join_all(notes).await {
            match outcome {
                // It may be revoked by now.
                Ok(()) | Err(StoreError::StateConflict) => {}
                Err(error) => tracing::warn!(%error, "a delivery will be recorded later"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_several_deliveries_sees_to_all() {
        let deliveries = Deliveries::default();
        assert!(deliveries.add(([1; 16], None)));
        assert!(!deliveries.add(([2; 16], Some(7))));
        assert_eq!(deliveries.answered(&[2; 16]), Some(Some(7)));
        assert_eq!(deliveries.answered(&[9; 16]), None);
        assert_eq!(deliveries.take(), [([1; 16], None), ([2; 16], Some(7))]);
        assert!(deliveries.add(([3; 16], None)), "the next one begins anew");
    }
}

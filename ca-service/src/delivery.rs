//! Deliveries are noted behind the answer, many together.
//!
//! Everything a delivery follows from is durable when the answer goes out, and after a crash the reconciler comes to the same,
//! so nobody waits for the note. A commit for each would make the next requester wait for it: the store has one writer, and
//! whoever comes while it syncs waits for that sync before its own.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::authority::CertificateAuthority;
use crate::storage::{IntentId, StoreError};

/// How long deliveries are gathered: some fifty at the highest rate, and few enough commits at the lowest.
const GATHERED_FOR: Duration = Duration::from_millis(20);

/// A certificate that was answered: its issuance, and the index of its entry where that is new.
type Delivery = (IntentId, Option<u64>);

/// Deliveries that are not noted yet.
#[derive(Debug, Default)]
pub(crate) struct Deliveries(Mutex<Unnoted>);

/// Each stays until the note of it is durable: whoever finds it in neither of the two reads it in the record.
#[derive(Debug, Default)]
struct Unnoted {
    /// Whether somebody notes what waits soon.
    is_attended: bool,
    waiting: Vec<Delivery>,
    /// Handed to the store, which has not answered yet.
    noting: Vec<Delivery>,
}

impl Deliveries {
    fn lock(&self) -> MutexGuard<'_, Unnoted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds one; true for the first, whose caller sees to all that come meanwhile.
    fn add(&self, delivery: Delivery) -> bool {
        let mut unnoted = self.lock();
        unnoted.waiting.push(delivery);
        !std::mem::replace(&mut unnoted.is_attended, true)
    }

    /// The log's index, as answered, for an issuance among them.
    pub(crate) fn answered(&self, intent: &IntentId) -> Option<Option<u64>> {
        let unnoted = self.lock();
        let mut all = unnoted.waiting.iter().chain(&unnoted.noting);
        all.find(|(waits, _)| waits == intent).map(|(_, index)| *index)
    }

    /// What waits, to be noted.
    fn begin(&self) -> Vec<Delivery> {
        let mut unnoted = self.lock();
        unnoted.is_attended = false;
        let begun = std::mem::take(&mut unnoted.waiting);
        unnoted.noting.extend(&begun);
        begun
    }

    /// Ends a note: what could not be noted waits for the next one, and what was is in the record.
    fn end(&self, delivery: Delivery, is_noted: bool) {
        let mut unnoted = self.lock();
        unnoted.noting.retain(|(intent, _)| *intent != delivery.0);
        if !is_noted {
            unnoted.waiting.push(delivery);
        }
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

    /// Notes what was delivered so far. What is handed in together goes into one commit. What fails is tried with the next delivery,
    /// and the reconciler comes to the same before.
    pub(crate) async fn note_deliveries(&self) {
        let at = self.clock.for_records();
        let begun = self.deliveries.begin();
        let notes =
            begun.iter().map(|(intent, log_index)| self.store.mark_delivered(*intent, *log_index, at));
        let outcomes = futures_util::future::join_all(notes).await;
        for (delivery, outcome) in begun.into_iter().zip(outcomes) {
            // It may be revoked by now, or noted by the reconciler.
            let is_noted = matches!(outcome, Ok(()) | Err(StoreError::StateConflict));
            self.deliveries.end(delivery, is_noted);
            if let (Err(error), false) = (outcome, is_noted) {
                tracing::warn!(%error, "a delivery will be recorded later");
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
        assert_eq!(deliveries.begin(), [([1; 16], None), ([2; 16], Some(7))]);
        assert!(deliveries.add(([3; 16], None)), "the next one begins anew");
    }

    #[test]
    fn a_delivery_is_known_until_its_note_is_durable() {
        let deliveries = Deliveries::default();
        deliveries.add(([1; 16], Some(7)));
        deliveries.add(([2; 16], None));
        let begun = deliveries.begin();
        assert_eq!(deliveries.answered(&[1; 16]), Some(Some(7)), "while it is noted");
        deliveries.end(begun[0], false);
        deliveries.end(begun[1], true);
        assert_eq!(deliveries.answered(&[1; 16]), Some(Some(7)), "it could not be noted");
        assert_eq!(deliveries.answered(&[2; 16]), None, "the record says it");
        assert!(deliveries.add(([3; 16], None)), "somebody sees to both");
        assert_eq!(deliveries.begin(), [([1; 16], Some(7)), ([3; 16], None)]);
    }
}

//! The queue in front of the instance pool: fair, bounded, and a typed refusal where it ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::admission::Denied;

/// Threads that run guests.
const MAX_RUNNING: usize = 512;
/// Threads beside them: whatever stops guests (announced revocations, policies, the addresses of evidence) must find one when
/// all guests run and all their names are being looked up.
const RESERVE: usize = 64;
/// Ceiling of the runtime's threads for blocking work.
pub const BLOCKING_THREADS: usize = MAX_RUNNING + crate::egress::MAX_LOOKUPS + RESERVE;

/// Callers that may wait for each one that runs.
const WAITING_PER_PLACE: usize = 4;

/// Places for calls.
pub(crate) struct Queue {
    places: Arc<Semaphore>,
    waiting: AtomicUsize,
    limit: usize,
}

impl Queue {
    pub(crate) fn new(slots: u32) -> Self {
        let places = usize::try_from(slots).unwrap_or(MAX_RUNNING).min(MAX_RUNNING);
        Self {
            places: Arc::new(Semaphore::new(places)),
            waiting: AtomicUsize::new(0),
            limit: places * WAITING_PER_PLACE,
        }
    }

    /// Callers that wait now.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Waits for a place, in order of arrival; refuses when too many wait already.
    pub(crate) async fn enter(&self) -> Result<OwnedSemaphorePermit, Denied> {
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            return Ok(place);
        }
        let full = || Denied::new("pool_exhausted", "too many calls wait for an instance; retry later");
        let waiter = Waiter(&self.waiting);
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= self.limit {
            return Err(full());
        }
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(|_| full())?;
        drop(waiter);
        Ok(place)
    }
}

/// Counts a caller out, also when it goes away while it waits.
struct Waiter<'a>(&'a AtomicUsize);

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waiters_are_served_in_order_and_bounded() {
        let queue = Arc::new(Queue::new(1));
        let first = queue.enter().await.unwrap();
        let waiters: Vec<_> = (0..WAITING_PER_PLACE)
            .map(|_| {
                let queue = Arc::clone(&queue);
                tokio::spawn(async move { queue.enter().await.map(drop) })
            })
            .collect();
        while queue.waiting.load(Ordering::Relaxed) < WAITING_PER_PLACE {
            tokio::task::yield_now().await;
        }
        assert_eq!(queue.enter().await.unwrap_err().code, "pool_exhausted");
        drop(first);
        for waiter in waiters {
            waiter.await.unwrap().unwrap();
        }
        assert_eq!(queue.waiting.load(Ordering::Relaxed), 0);
    }
}

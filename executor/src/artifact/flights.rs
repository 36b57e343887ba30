//! One compilation of a module at a time, however many callers ask for it.

use std::collections::HashMap;
use std::sync::Arc;

use executor_engine::ModuleDigest;
use parking_lot::Mutex;

/// Modules that are being loaded.
#[derive(Debug, Default)]
pub(super) struct Flights(Mutex<HashMap<ModuleDigest, Arc<tokio::sync::Mutex<()>>>>);

/// One caller's part in a load, until it is dropped.
pub(super) struct Flight<'a> {
    flights: &'a Flights,
    digest: ModuleDigest,
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Flights {
    /// Joins the load of a module.
    pub(super) fn join(&self, digest: ModuleDigest) -> Flight<'_> {
        let turn = Arc::clone(self.0.lock().entry(digest).or_default());
        Flight { flights: self, digest, turn }
    }
}

impl Flight<'_> {
    /// Waits until no other caller loads this module.
    pub(super) async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.turn.lock().await
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        let mut flights = self.flights.0.lock();
        // The map's own and this one: nobody else waits. Others join only under the lock that is held here.
        if Arc::strong_count(&self.turn) <= 2 {
            flights.remove(&self.digest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_joins_while_others_wait_waits_with_them() {
        let flights = Flights::default();
        let digest = ModuleDigest::of(b"m");
        let (first, second) = (flights.join(digest), flights.join(digest));
        drop(first);
        let third = flights.join(digest);
        assert!(Arc::ptr_eq(&second.turn, &third.turn), "a third load would run beside the second");
        drop(second);
        // A caller that gives up leaves nothing behind either.
        drop(third);
        assert!(flights.0.lock().is_empty());
    }
}

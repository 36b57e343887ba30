//! Time for what is signed: refused while the machine's clock is not trustworthy (rule g, T3).

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ca_pki::UnixTime;
use service::clock::{Clock, JumpDetector};

/// Differences between wall and monotonic clock that are forgiven between two looks.
const TOLERANCE: Duration = Duration::from_secs(2);
/// How long nothing is signed after the clock ran ahead: time for the time daemon to say whether it was right.
const SETTLE_SECONDS: i64 = 10;

/// Why there is no time to sign with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClockFailure {
    /// The wall clock shows an earlier time than was already used.
    #[error("the clock was turned back: it shows {now}, but {latest} was already used")]
    TurnedBack {
        /// What it shows.
        now: i64,
        /// The latest time used.
        latest: i64,
    },
    /// The wall clock ran ahead a moment ago.
    #[error("the clock jumped ahead; signing goes on when it has been steady for {0} s")]
    Unsettled(i64),
}

/// Gives the time, or refuses.
pub struct ClockGuard {
    clock: Arc<dyn Clock>,
    detector: JumpDetector,
    /// The latest time that was given out or found in the store.
    latest: AtomicI64,
    /// Monotonic milliseconds until which nothing is signed.
    settled_at: AtomicI64,
    /// The wall clock and the monotonic one when the time was last accepted.
    accepted: Mutex<(i64, Duration)>,
}

impl ClockGuard {
    /// A guard over a clock; `latest` is the newest time the store knows.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, latest: UnixTime) -> Self {
        let guard = Self {
            detector: JumpDetector::new(TOLERANCE),
            latest: AtomicI64::new(latest.0),
            settled_at: AtomicI64::new(0),
            accepted: Mutex::new((clock.unix_seconds(), clock.monotonic())),
            clock,
        };
        // The first look only remembers.
        let _ = guard.detector.check(&*guard.clock);
        guard
    }

    /// The time, for something that will be signed.
    ///
    /// # Errors
    /// [`ClockFailure`]; nothing may be signed then.
    pub fn now(&self) -> Result<UnixTime, ClockFailure> {
        self.look();
        let monotonic = self.monotonic_millis();
        let now = self.clock.unix_seconds();
        if monotonic < self.settled_at.load(Ordering::SeqCst) {
            return Err(ClockFailure::Unsettled(SETTLE_SECONDS));
        }
        let latest = self.latest.fetch_max(now, Ordering::SeqCst);
        // Two seconds of slewing are no reason to stop.
        if now.saturating_add(2) < latest {
            Err(ClockFailure::TurnedBack { now, latest })
        } else {
            *self.accepted.lock().unwrap_or_else(PoisonError::into_inner) = (now, self.clock.monotonic());
            Ok(UnixTime(now))
        }
    }

    /// The time, for records about things that were signed already or never will be. A wall clock that ran ahead and is
    /// not settled counts for nothing here: a date of the future in a record would stop the next start.
    #[must_use]
    pub fn for_records(&self) -> UnixTime {
        self.look();
        let wall = self.clock.unix_seconds();
        if self.monotonic_millis() >= self.settled_at.load(Ordering::SeqCst) {
            return UnixTime(wall);
        }
        let (accepted, at) = *self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed = self.clock.monotonic().saturating_sub(at).as_secs();
        UnixTime(wall.min(accepted.saturating_add(i64::try_from(elapsed).unwrap_or(i64::MAX))))
    }

    /// Of the times that it may be the one nearest to another: what a machine says whose clock is right. Where the wall clock was turned
    /// back, that is what it showed before and the time that went by since.
    #[must_use]
    pub fn nearest_to(&self, time: UnixTime) -> UnixTime {
        let wall = self.for_records();
        let (accepted, at) = *self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed = i64::try_from(self.clock.monotonic().saturating_sub(at).as_secs()).unwrap_or(i64::MAX);
        let went_on = accepted.saturating_add(elapsed).max(self.latest.load(Ordering::SeqCst));
        if time.0.abs_diff(went_on) < time.0.abs_diff(wall.0) { UnixTime(went_on) } else { wall }
    }

    /// Time on a clock that never goes back.
    #[must_use]
    pub fn monotonic(&self) -> Duration {
        self.clock.monotonic()
    }

    fn monotonic_millis(&self) -> i64 {
        i64::try_from(self.clock.monotonic().as_millis()).unwrap_or(i64::MAX)
    }

    /// Compares the clocks; one that ran ahead has to settle from now on.
    fn look(&self) {
        if let Err(jump) = self.detector.check(&*self.clock) {
            tracing::error!(%jump, "the clock jumped");
            if matches!(jump, service::clock::ClockJump::Ahead { .. }) {
                let settled = self.monotonic_millis().saturating_add(SETTLE_SECONDS * 1000);
                self.settled_at.store(settled, Ordering::SeqCst);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use service::clock::TestClock;

    #[test]
    fn a_clock_turned_back_gives_no_time_until_it_has_caught_up() {
        let clock = Arc::new(TestClock::at_unix_seconds(1_000));
        let guard = ClockGuard::new(clock.clone(), UnixTime(900));
        assert_eq!(guard.now(), Ok(UnixTime(1_000)));
        clock.set_unix_seconds(500);
        assert_eq!(guard.now(), Err(ClockFailure::TurnedBack { now: 500, latest: 1_000 }));
        assert_eq!(guard.now(), Err(ClockFailure::TurnedBack { now: 500, latest: 1_000 }));
        clock.advance(Duration::from_secs(499));
        assert_eq!(guard.now(), Ok(UnixTime(999)));
    }

    #[test]
    fn a_clock_that_jumps_ahead_must_settle() {
        let clock = Arc::new(TestClock::at_unix_seconds(1_000));
        let guard = ClockGuard::new(clock.clone(), UnixTime(0));
        clock.set_unix_seconds(5_000);
        assert_eq!(guard.now(), Err(ClockFailure::Unsettled(10)));
        clock.advance(Duration::from_secs(11));
        assert_eq!(guard.now(), Ok(UnixTime(5_011)));
    }

    #[test]
    fn records_made_while_the_clock_is_ahead_do_not_carry_its_date() {
        let clock = Arc::new(TestClock::at_unix_seconds(1_000));
        let guard = ClockGuard::new(clock.clone(), UnixTime(900));
        assert_eq!(guard.now(), Ok(UnixTime(1_000)));
        clock.set_unix_seconds(2_000_000_000);
        assert_eq!(guard.for_records(), UnixTime(1_000));
        clock.advance(Duration::from_secs(5));
        assert_eq!(guard.for_records(), UnixTime(1_005));
        // Corrected in time: nothing stands in the way.
        clock.set_unix_seconds(1_006);
        assert_eq!(guard.for_records(), UnixTime(1_005));
        clock.advance(Duration::from_secs(10));
        assert_eq!(guard.now(), Ok(UnixTime(1_016)));
        // Steady for long enough: it may have been right.
        clock.set_unix_seconds(5_000);
        assert_eq!(guard.for_records(), UnixTime(1_016));
        clock.advance(Duration::from_secs(10));
        assert_eq!(guard.for_records(), UnixTime(5_010));
    }

    #[test]
    fn where_the_clock_was_turned_back_the_time_that_went_on_is_known_too() {
        let clock = Arc::new(TestClock::at_unix_seconds(10_000));
        let guard = ClockGuard::new(clock.clone(), UnixTime(9_000));
        assert_eq!(guard.now(), Ok(UnixTime(10_000)));
        clock.set_unix_seconds(6_400);
        clock.advance(Duration::from_secs(100));
        assert_eq!(guard.for_records(), UnixTime(6_500));
        assert_eq!(guard.nearest_to(UnixTime(10_103)), UnixTime(10_100));
        assert_eq!(guard.nearest_to(UnixTime(6_490)), UnixTime(6_500));
        // As the records have it, after a start.
        let guard = ClockGuard::new(clock, UnixTime(10_050));
        assert_eq!(guard.nearest_to(UnixTime(10_060)), UnixTime(10_050));
    }

    #[test]
    fn a_store_from_the_future_stops_the_start() {
        let guard = ClockGuard::new(Arc::new(TestClock::at_unix_seconds(1_000)), UnixTime(2_000));
        assert_eq!(guard.now(), Err(ClockFailure::TurnedBack { now: 1_000, latest: 2_000 }));
    }
}

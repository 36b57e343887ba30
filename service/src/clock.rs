//! The edge where time enters: the one file that reads clocks.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Reads time. Domain code takes times as arguments; only the edge of a server holds a `Clock`.
///
/// `unix_millis` may jump when somebody sets the clock; `monotonic` never goes back and counts from an arbitrary start.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since 1970-01-01T00:00:00Z, without leap seconds. Negative before it.
    fn unix_millis(&self) -> i64;

    /// Time on a clock that never goes back.
    fn monotonic(&self) -> Duration;

    /// Whole seconds since 1970, rounded down.
    fn unix_seconds(&self) -> i64 {
        self.unix_millis().div_euclid(1000)
    }
}

/// The machine's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "clock.rs reads the clock for the whole crate")]
    fn unix_millis(&self) -> i64 {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |millis| -millis),
        }
    }

    fn monotonic(&self) -> Duration {
        monotonic()
    }
}

/// Time since the first call in this process.
#[allow(clippy::disallowed_methods, reason = "clock.rs reads the clock for the whole crate")]
pub(crate) fn monotonic() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

/// A clock that stands still until it is set. For tests.
#[derive(Debug)]
pub struct TestClock {
    unix_millis: AtomicI64,
    monotonic_millis: AtomicU64,
}

impl TestClock {
    /// A clock that shows this many seconds since 1970.
    #[must_use]
    pub const fn at_unix_seconds(seconds: i64) -> Self {
        Self { unix_millis: AtomicI64::new(seconds * 1000), monotonic_millis: AtomicU64::new(0) }
    }

    /// Lets time pass on both clocks.
    pub fn advance(&self, by: Duration) {
        let millis = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        self.unix_millis.fetch_add(i64::try_from(millis).unwrap_or(i64::MAX), Ordering::SeqCst);
        self.monotonic_millis.fetch_add(millis, Ordering::SeqCst);
    }

    /// Sets the wall clock only, as an operator or a time daemon would.
    pub fn set_unix_seconds(&self, seconds: i64) {
        self.unix_millis.store(seconds * 1000, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn unix_millis(&self) -> i64 {
        self.unix_millis.load(Ordering::SeqCst)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.monotonic_millis.load(Ordering::SeqCst))
    }
}

/// The wall clock moved differently from the monotonic one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClockJump {
    /// The wall clock went back.
    #[error("the wall clock jumped back by {} ms", by.as_millis())]
    Back {
        /// How far.
        by: Duration,
    },
    /// The wall clock ran ahead.
    #[error("the wall clock jumped ahead by {} ms", by.as_millis())]
    Ahead {
        /// How far.
        by: Duration,
    },
}

/// Compares the wall clock with the monotonic one between calls, so that nothing is signed with a time that somebody
/// has just turned back.
#[derive(Debug)]
pub struct JumpDetector {
    tolerance: Duration,
    last: Mutex<Option<(i64, Duration)>>,
}

impl JumpDetector {
    /// A detector that forgives differences up to `tolerance` between two checks (slewing, suspended machines).
    #[must_use]
    pub const fn new(tolerance: Duration) -> Self {
        Self { tolerance, last: Mutex::new(None) }
    }

    /// Checks and remembers. The first call only remembers. After a jump was reported, the next call measures from the
    /// new time, so a caller that must stay stopped keeps its own mark.
    ///
    /// # Errors
    /// [`ClockJump`] with the direction and size.
    pub fn check(&self, clock: &dyn Clock) -> Result<(), ClockJump> {
        let now = (clock.unix_millis(), clock.monotonic());
        let previous = self.last.lock().unwrap_or_else(PoisonError::into_inner).replace(now);
        let Some((wall, monotonic)) = previous else { return Ok(()) };
        let elapsed = i64::try_from(now.1.saturating_sub(monotonic).as_millis()).unwrap_or(i64::MAX);
        let difference = now.0.saturating_sub(wall).saturating_sub(elapsed);
        let by = Duration::from_millis(difference.unsigned_abs());
        match difference {
            _ if by <= self.tolerance => Ok(()),
            ..0 => Err(ClockJump::Back { by }),
            0.. => Err(ClockJump::Ahead { by }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_turned_back_or_ahead_is_noticed_once() {
        let clock = TestClock::at_unix_seconds(1_000_000);
        let detector = JumpDetector::new(Duration::from_secs(2));
        assert_eq!(detector.check(&clock), Ok(()));
        clock.advance(Duration::from_secs(3600));
        assert_eq!(detector.check(&clock), Ok(()));
        clock.set_unix_seconds(1_000_000);
        assert_eq!(detector.check(&clock), Err(ClockJump::Back { by: Duration::from_secs(3600) }));
        assert_eq!(detector.check(&clock), Ok(()));
        clock.set_unix_seconds(1_000_010);
        assert_eq!(detector.check(&clock), Err(ClockJump::Ahead { by: Duration::from_secs(10) }));
    }

    #[test]
    fn seconds_round_down_before_1970_too() {
        let clock = TestClock::at_unix_seconds(-1);
        clock.advance(Duration::from_millis(500));
        assert_eq!((clock.unix_millis(), clock.unix_seconds()), (-500, -1));
    }

    #[test]
    fn the_system_clock_is_past_2020_and_monotonic() {
        assert!(SystemClock.unix_seconds() > 1_577_836_800);
        let first = SystemClock.monotonic();
        assert!(SystemClock.monotonic() >= first);
    }
}

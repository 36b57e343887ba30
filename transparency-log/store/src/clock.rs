//! The one file that reads the clock. Everything else takes a [`Clock`].

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::error::{Error, Result};

/// How far the clock may go back without stopping the log: corrections by NTP, a leap second, a machine that was moved.
/// The log then waits until the clock is there again.
const STEP_BACK: Duration = Duration::from_secs(10);

/// Longest pause between two looks at a clock that is waited for.
const LOOK: Duration = Duration::from_millis(50);

/// Makes sure that the clock is not behind the latest time that the log has used.
///
/// # Errors
/// [`Error::ClockBehind`] when waiting helps; [`Error::ClockBackwards`], which is fatal, beyond ten seconds.
pub(crate) fn not_before(now_millis: u64, last_millis: u64) -> Result<()> {
    match last_millis.checked_sub(now_millis) {
        None | Some(0) => Ok(()),
        Some(behind_millis) if u128::from(behind_millis) <= STEP_BACK.as_millis() => {
            Err(Error::ClockBehind { behind_millis })
        }
        Some(_) => Err(Error::ClockBackwards { now_millis, last_millis }),
    }
}

/// Waits, as a running log does, until the clock is where the log has been; for no longer than a clock that runs needs.
///
/// # Errors
/// By how many milliseconds it is behind: more than ten seconds, or still.
pub(crate) fn reach(clock: &dyn Clock, last_millis: u64) -> std::result::Result<u64, u64> {
    let began = clock.elapsed();
    let mut patience = None;
    loop {
        let now = clock.unix_millis();
        let Some(behind_millis) = last_millis.checked_sub(now).filter(|behind| *behind > 0) else {
            return Ok(now);
        };
        let behind = Duration::from_millis(behind_millis);
        // Time servers slow a clock down by less than a quarter.
        let patience = *patience.get_or_insert(behind + behind / 4 + LOOK);
        if behind > STEP_BACK || clock.elapsed().saturating_sub(began) > patience {
            return Err(behind_millis);
        }
        std::thread::sleep(behind.min(LOOK));
    }
}

/// The two clocks a log needs: calendar time for what is signed, monotonic time for batching.
///
/// Calendar time is the sequencer's alone: it sets every time in the log. After a small step back the log waits until the
/// clock is there again; a large one stops it.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// Milliseconds since the Unix epoch.
    fn unix_millis(&self) -> u64;
    /// Time since an arbitrary start; never goes back.
    fn elapsed(&self) -> Duration;
}

/// The operating system's clocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "this is clock.rs: the edge where time is read")]
    fn unix_millis(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    #[allow(clippy::disallowed_methods, reason = "this is clock.rs: the edge where time is read")]
    fn elapsed(&self) -> Duration {
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed()
    }
}

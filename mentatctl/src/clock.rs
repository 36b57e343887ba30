//! The only place of this program that reads a clock.
#![allow(clippy::disallowed_methods, reason = "this is the file that reads the clock")]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use trust_store::UnixTime;

/// The time of day, seconds since 1970. A clock before 1970 reads as 0, at which nothing is valid.
pub fn now() -> UnixTime {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    UnixTime(i64::try_from(seconds).unwrap_or(i64::MAX))
}

/// A running measurement.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// The time since the start.
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

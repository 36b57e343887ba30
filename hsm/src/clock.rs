//! The only place that reads a clock: the monotonic one, for rate limits.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Time since the first call in this process.
#[allow(clippy::disallowed_methods, reason = "clock.rs reads the clock for the whole crate")]
pub(crate) fn monotonic() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

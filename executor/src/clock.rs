//! The only place that reads clocks.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Monotonic time, for deadlines and durations.
#[allow(clippy::disallowed_methods, reason = "this file is the edge where time enters")]
pub(crate) fn monotonic() -> Instant {
    Instant::now()
}

/// Processor time of the calling thread.
pub(crate) fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// Wall-clock seconds since 1970, for certificates and evidence.
#[allow(clippy::disallowed_methods, reason = "this file is the edge where time enters")]
pub(crate) fn unix_seconds() -> i64 {
    match std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        // A clock before 1970 is wrong; every certificate is "not yet valid" then, which denies.
        Err(_) => 0,
    }
}

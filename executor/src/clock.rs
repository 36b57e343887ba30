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

/// Wall-clock milliseconds since 1970, for receipts.
#[allow(clippy::disallowed_methods, reason = "this file is the edge where time enters")]
pub(crate) fn unix_millis() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Wall-clock nanoseconds since 1970, for traces.
#[allow(clippy::disallowed_methods, reason = "this file is the edge where time enters")]
pub(crate) fn unix_nanos() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// The clocks of the receipt log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReceiptClock;

impl log_store::Clock for ReceiptClock {
    fn unix_millis(&self) -> u64 {
        unix_millis()
    }

    fn elapsed(&self) -> Duration {
        static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        monotonic().saturating_duration_since(*START.get_or_init(monotonic))
    }
}

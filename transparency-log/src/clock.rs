//! The server's clocks, in the shape that the storage layer takes.

use std::time::Duration;

use service::Clock as _;

/// The operating system's clocks, read through `service`.
#[derive(Debug, Clone, Copy, Default)]
pub struct LogClock;

impl log_store::Clock for LogClock {
    fn unix_millis(&self) -> u64 {
        u64::try_from(service::SystemClock.unix_millis()).unwrap_or_default()
    }

    fn elapsed(&self) -> Duration {
        service::SystemClock.monotonic()
    }
}

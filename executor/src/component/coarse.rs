//! The clocks of guests whose signers are not trusted: the host's, in steps that are too wide to measure what a processor's caches
//! hold.

use std::time::{Duration, Instant};

use wasmtime_wasi::{HostMonotonicClock, HostWallClock};

use crate::clock;

/// Width of a step.
pub(super) const STEP: Duration = Duration::from_millis(1);

/// Both clocks of a call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Coarse {
    began: Instant,
}

impl Coarse {
    /// Clocks of a call that begins now.
    pub(super) fn begin() -> Self {
        Self { began: clock::monotonic() }
    }
}

fn step_nanos() -> u64 {
    u64::try_from(STEP.as_nanos()).unwrap_or(u64::MAX)
}

impl HostWallClock for Coarse {
    fn resolution(&self) -> Duration {
        STEP
    }

    fn now(&self) -> Duration {
        // Milliseconds are what it is read in.
        Duration::from_millis(clock::unix_millis())
    }
}

impl HostMonotonicClock for Coarse {
    fn resolution(&self) -> u64 {
        step_nanos()
    }

    fn now(&self) -> u64 {
        let since = clock::monotonic().saturating_duration_since(self.began).as_nanos();
        let since = u64::try_from(since).unwrap_or(u64::MAX);
        since - since % step_nanos()
    }
}

//! A key's limit on signatures per second.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counts signatures in whole seconds of a monotonic clock the caller reads.
#[derive(Debug)]
pub(crate) struct RateLimit {
    per_second: NonZeroU32,
    /// Second in the upper half, count in the lower.
    window: AtomicU64,
}

impl RateLimit {
    pub(crate) const fn new(per_second: NonZeroU32) -> Self {
        Self { per_second, window: AtomicU64::new(0) }
    }

    pub(crate) const fn per_second(&self) -> u32 {
        self.per_second.get()
    }

    /// Takes one from the second `now` is in; false when it is used up.
    pub(crate) fn take(&self, now: Duration) -> bool {
        let second = now.as_secs() & u64::from(u32::MAX);
        self.window
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |window| {
                let used = if window >> 32 == second { window & u64::from(u32::MAX) } else { 0 };
                (used < u64::from(self.per_second.get())).then_some((second << 32) | (used + 1))
            })
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_gives_no_more_than_the_limit() {
        let limit = RateLimit::new(NonZeroU32::new(2).unwrap());
        let at = Duration::from_millis;
        assert!(limit.take(at(100)) && limit.take(at(900)));
        assert!(!limit.take(at(999)));
        assert!(limit.take(at(1000)));
    }
}

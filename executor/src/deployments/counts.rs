//! What a release did since a step began.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Buckets of call times: powers of two of microseconds, up to an hour.
const BUCKETS: usize = 32;

/// Counters of one release; calls add to them without a lock.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    begun: AtomicU64,
    ended: AtomicU64,
    failed: AtomicU64,
    times: [AtomicU64; BUCKETS],
}

/// A reading of [`Counters`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counts {
    pub(crate) calls: u64,
    pub(crate) failed: u64,
    /// Calls that have not ended.
    pub(crate) under_way: u64,
    /// 99 of 100 calls took no longer than this, up to a factor of two.
    pub(crate) p99: Duration,
}

/// How a call counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Result {
    Good,
    Failed,
}

impl Counters {
    pub(crate) fn begin(&self) {
        self.begun.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn end(&self) {
        self.ended.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn add(&self, result: Result, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        if result == Result::Failed {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
        let bucket = usize::try_from(micros.ilog2()).unwrap_or(BUCKETS).min(BUCKETS - 1);
        if let Some(bucket) = self.times.get(bucket) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn read(&self) -> Counts {
        let times: Vec<u64> = self.times.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect();
        let calls: u64 = times.iter().sum();
        let mut seen = 0;
        let slowest = times.iter().position(|count| {
            seen += count;
            seen > 0 && seen.saturating_mul(100) >= calls.saturating_mul(99)
        });
        let p99 = slowest.map_or(Duration::ZERO, |bucket| Duration::from_micros(2u64 << bucket));
        let under_way = self.begun.load(Ordering::Relaxed).saturating_sub(self.ended.load(Ordering::Relaxed));
        Counts { calls, failed: self.failed.load(Ordering::Relaxed).min(calls), under_way, p99 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_percentile() {
        let counters = Counters::default();
        assert_eq!(counters.read(), Counts::default());
        for _ in 0..99 {
            counters.add(Result::Good, Duration::from_micros(100));
        }
        counters.add(Result::Failed, Duration::from_secs(1));
        let counts = counters.read();
        assert_eq!((counts.calls, counts.failed), (100, 1));
        assert_eq!(counts.p99, Duration::from_micros(128));
        counters.add(Result::Failed, Duration::from_secs(100_000));
        assert!(counters.read().p99 > Duration::from_millis(500));
        counters.begin();
        counters.begin();
        counters.end();
        assert_eq!(counters.read().under_way, 1);
    }
}

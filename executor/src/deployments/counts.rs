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
    abandoned: [AtomicU64; BUCKETS],
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
    /// Calls whose callers gave up; they are in none of the numbers above.
    pub(crate) abandoned: Abandoned,
}

/// Calls whose callers gave up, by the time after which they did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Abandoned([u64; BUCKETS]);

/// How a call counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Result {
    Good,
    Failed,
}

impl Abandoned {
    /// All of them.
    pub(crate) fn count(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Those after no less than this, but for a factor of two.
    pub(crate) fn after(&self, time: Duration) -> u64 {
        self.0
            .iter()
            .enumerate()
            .filter(|(at, _)| Duration::from_micros(1u64 << *at) >= time)
            .map(|(_, n)| n)
            .sum()
    }
}

fn bucket_of(times: &[AtomicU64; BUCKETS], took: Duration) -> Option<&AtomicU64> {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
    times.get(usize::try_from(micros.ilog2()).unwrap_or(BUCKETS).min(BUCKETS - 1))
}

impl Counters {
    pub(crate) fn begin(&self) {
        self.begun.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn end(&self) {
        self.ended.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn add(&self, result: Result, took: Duration) {
        if result == Result::Failed {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(bucket) = bucket_of(&self.times, took) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn abandon(&self, took: Duration) {
        if let Some(bucket) = bucket_of(&self.abandoned, took) {
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
        let failed = self.failed.load(Ordering::Relaxed).min(calls);
        let abandoned = Abandoned(self.abandoned.each_ref().map(|count| count.load(Ordering::Relaxed)));
        Counts { calls, failed, under_way, p99, abandoned }
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
        let calls = counters.read().calls;
        counters.abandon(Duration::from_millis(3));
        counters.abandon(Duration::from_secs(1));
        let counts = counters.read();
        assert_eq!((counts.calls, counts.abandoned.count()), (calls, 2));
        assert_eq!(
            [0, 2, 5, 500, 1000].map(|ms| counts.abandoned.after(Duration::from_millis(ms))),
            [2, 2, 1, 1, 0]
        );
    }
}

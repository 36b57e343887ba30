//! How often a guest may call host functions: a bucket for each interface of an instance.
//!
//! The totals of a call (lines, handles, bytes) bound what a guest leaves behind; a rate bounds what it makes the host do
//! meanwhile. What goes beyond is refused before anything is done for it. Each instance has its own buckets, so a flood in
//! one guest takes nothing from another. Time is counted in ticks of the engine: a host call must not pay for a clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use executor_engine::limits::EPOCH_TICK_MILLIS;

/// Most calls in a second that an operator may allow.
pub const MAX_RATE: u32 = 1_000_000;

/// Most bytes of log text in a second that an operator may allow.
pub const MAX_LOG_RATE: u32 = 64 << 20;

/// Calls of host functions in a second, by interface. A guest that made none for a second may make as many at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostRates {
    /// Requests for capabilities, and uses of them: look-ups, sockets and bare connections as well.
    pub capabilities: u32,
    /// Bytes of log lines.
    pub log_bytes: u32,
    /// Log lines.
    pub log_lines: u32,
    /// Media objects read and kept.
    pub media: u32,
    /// Metric values.
    pub metrics: u32,
    /// Streams opened, and pieces of them.
    pub stream_pieces: u32,
}

impl Default for HostRates {
    fn default() -> Self {
        // Above what a call may leave behind of lines and metrics: who keeps to those never meets these.
        Self {
            capabilities: 1_000,
            log_bytes: 1 << 20,
            log_lines: 1_000,
            media: 100,
            metrics: 1_000,
            stream_pieces: 20_000,
        }
    }
}

/// What has a rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rated {
    Capability,
    Log,
    Media,
    Metric,
    Stream,
}

impl Rated {
    pub(crate) const ALL: [Self; 5] = [Self::Capability, Self::Log, Self::Media, Self::Metric, Self::Stream];

    /// The stable text.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Capability => "capability",
            Self::Log => "log",
            Self::Media => "media",
            Self::Metric => "metric",
            Self::Stream => "stream",
        }
    }
}

/// Ticks of the engine since its start: a clock whose reading is one load.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ticks(Arc<AtomicU64>);

impl Ticks {
    pub(crate) fn advance(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How buckets fill up.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pace {
    /// With time: this many ticks have passed.
    Ticks(u64),
    /// Never: what a call could have had in so much time it has from the beginning. Nothing that a guest of the deterministic
    /// profile is told may depend on how fast the machine is.
    Whole(Duration),
}

/// Calls that are left, in thousandths.
#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    left: u64,
    /// The tick by which it was filled last, and one; 0 where it never was.
    filled: u64,
}

impl Bucket {
    fn take(&mut self, rate: u32, cost: u64, pace: Pace) -> bool {
        let rate = u64::from(rate);
        let (now, full) = match pace {
            Pace::Ticks(now) => (now, rate * 1_000),
            Pace::Whole(time) => {
                let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).saturating_add(1_000);
                (0, rate.saturating_mul(millis))
            }
        };
        if self.filled == 0 {
            self.left = full;
        } else {
            let passed = now.saturating_add(1).saturating_sub(self.filled);
            let more = passed.saturating_mul(rate * EPOCH_TICK_MILLIS);
            self.left = self.left.saturating_add(more).min(full);
        }
        self.filled = now.saturating_add(1);
        let cost = cost.saturating_mul(1_000);
        let enough = self.left >= cost;
        if enough {
            self.left -= cost;
        }
        enough
    }
}

/// The buckets of one instance.
#[derive(Debug, Default)]
pub(crate) struct Rates {
    capability: Bucket,
    log_bytes: Bucket,
    log_lines: Bucket,
    media: Bucket,
    metric: Bucket,
    stream: Bucket,
    refused: Refused,
}

impl Rates {
    /// Takes one call, with so many bytes where those count; false when it comes too fast.
    pub(crate) fn take(&mut self, what: Rated, bytes: usize, rates: &HostRates, pace: Pace) -> bool {
        let taken = match what {
            Rated::Capability => self.capability.take(rates.capabilities, 1, pace),
            Rated::Log => {
                self.log_lines.take(rates.log_lines, 1, pace)
                    && self.log_bytes.take(rates.log_bytes, bytes as u64, pace)
            }
            Rated::Media => self.media.take(rates.media, 1, pace),
            Rated::Metric => self.metric.take(rates.metrics, 1, pace),
            Rated::Stream => self.stream.take(rates.stream_pieces, 1, pace),
        };
        if !taken {
            self.refused.add(what, 1);
        }
        taken
    }

    /// What was refused so far.
    pub(crate) fn refused(&mut self) -> &mut Refused {
        &mut self.refused
    }
}

/// Calls that came too fast, by interface.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Refused([u64; Rated::ALL.len()]);

impl Refused {
    /// Counts further ones.
    pub(crate) fn add(&mut self, what: Rated, calls: u64) {
        for (count, _) in self.0.iter_mut().zip(Rated::ALL).filter(|(_, known)| *known == what) {
            *count = count.saturating_add(calls);
        }
    }

    /// Those of one interface.
    pub(crate) fn of(self, what: Rated) -> u64 {
        self.each().find(|(known, _)| *known == what).map_or(0, |(_, count)| count)
    }

    /// Those that there are.
    pub(crate) fn each(self) -> impl Iterator<Item = (Rated, u64)> {
        Rated::ALL.into_iter().zip(self.0).filter(|(_, count)| *count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(rates: &mut Rates, what: Rated, calls: u32, limits: &HostRates, pace: Pace) -> usize {
        (0..calls).filter(|_| rates.take(what, 0, limits, pace)).count()
    }

    #[test]
    fn a_second_of_silence_is_a_second_of_calls_and_no_more() {
        let limits = HostRates { media: 50, ..HostRates::default() };
        let mut rates = Rates::default();
        let mut at = |tick| granted(&mut rates, Rated::Media, 1_000, &limits, Pace::Ticks(tick));
        assert_eq!(at(7), 50, "what one second has, at once");
        assert_eq!(at(7), 0);
        assert_eq!(at(8), 0, "half a call has come");
        assert_eq!(at(9), 1);
        assert_eq!(at(29), 10);
        assert_eq!(at(1_000_000), 50, "an hour of silence is worth no more than a second");
        assert_eq!(rates.refused().of(Rated::Media), 6 * 1_000 - 50 - 1 - 10 - 50);
        assert_eq!(rates.refused().each().count(), 1);
    }

    #[test]
    fn each_interface_has_its_own() {
        let limits = HostRates { metrics: 1, ..HostRates::default() };
        let mut rates = Rates::default();
        let pace = Pace::Ticks(0);
        assert_eq!(granted(&mut rates, Rated::Metric, 10, &limits, pace), 1);
        for what in [Rated::Capability, Rated::Log, Rated::Media, Rated::Stream] {
            assert_eq!(granted(&mut rates, what, 10, &limits, pace), 10, "{what:?}");
        }
        assert!(rates.refused().each().eq([(Rated::Metric, 9)]));
    }

    #[test]
    fn lines_count_by_number_and_by_length() {
        let limits = HostRates { log_lines: 3, log_bytes: 100, ..HostRates::default() };
        let mut rates = Rates::default();
        let mut line = |bytes| rates.take(Rated::Log, bytes, &limits, Pace::Ticks(0));
        assert_eq!([line(90), line(20), line(10), line(0)], [true, false, true, false]);
        assert!(!Rates::default().take(Rated::Log, usize::MAX, &limits, Pace::Ticks(0)));
    }

    #[test]
    fn where_time_does_not_count_a_call_has_all_of_its_time_at_once() {
        let limits = HostRates { metrics: 10, ..HostRates::default() };
        let mut rates = Rates::default();
        let pace = Pace::Whole(Duration::from_secs(2));
        assert_eq!(granted(&mut rates, Rated::Metric, 1_000, &limits, pace), 30);
        assert_eq!(granted(&mut rates, Rated::Metric, 1_000, &limits, pace), 0);
    }
}

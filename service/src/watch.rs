//! Watching a connection for peers that hold it open without asking for anything.
//!
//! One coarse timer per connection instead of one per request: the stream notes when bytes arrive while no request is
//! under way, the dispatcher notes when requests begin and end, and a few times per timeout somebody looks. A limit is
//! therefore kept to within a quarter of itself.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::monotonic;

/// What happened on a connection, in milliseconds of the monotonic clock, shifted by one so that 0 means "not".
#[derive(Debug)]
pub(crate) struct Activity {
    /// Requests under way.
    active: AtomicU32,
    /// When the last request ended, or the connection began.
    idle_since: AtomicU64,
    /// When the first bytes of a request came in that has not begun yet.
    headers_since: AtomicU64,
}

/// What to do with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Keep,
    /// No request for too long: say goodbye and close.
    Idle,
    /// Headers that do not end: close.
    SlowHeaders,
}

fn now() -> u64 {
    u64::try_from(monotonic().as_millis()).unwrap_or(u64::MAX - 1) + 1
}

impl Activity {
    pub(crate) fn new() -> Self {
        Self {
            active: AtomicU32::new(0),
            idle_since: AtomicU64::new(now()),
            headers_since: AtomicU64::new(0),
        }
    }

    /// Bytes came in. Only the first of a request without headers yet is noted.
    pub(crate) fn bytes_read(&self) {
        if self.active.load(Ordering::Relaxed) == 0 && self.headers_since.load(Ordering::Relaxed) == 0 {
            self.headers_since.store(now(), Ordering::Relaxed);
        }
    }

    /// A request's headers are complete.
    pub(crate) fn request_began(&self) {
        self.active.fetch_add(1, Ordering::Relaxed);
        self.headers_since.store(0, Ordering::Relaxed);
    }

    /// Its response was handed over, or it was given up.
    pub(crate) fn request_ended(&self) {
        if self.active.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.headers_since.store(0, Ordering::Relaxed);
            self.idle_since.store(now(), Ordering::Relaxed);
        }
    }

    pub(crate) fn judge(&self, idle: Duration, headers: Duration, rule: HeaderRule) -> Verdict {
        if self.active.load(Ordering::Relaxed) > 0 {
            return Verdict::Keep;
        }
        let older = |since: u64, limit: Duration| {
            since != 0 && now().saturating_sub(since) >= u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)
        };
        if rule == HeaderRule::Timed && older(self.headers_since.load(Ordering::Relaxed), headers) {
            return Verdict::SlowHeaders;
        }
        if older(self.idle_since.load(Ordering::Relaxed), idle) { Verdict::Idle } else { Verdict::Keep }
    }
}

/// Whether bytes outside a request must be the beginning of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderRule {
    /// HTTP/1.1: yes, so they are timed.
    Timed,
    /// HTTP/2: they may be control frames; only the idle limit counts, which such frames do not extend.
    IdleOnly,
}

/// How often to look.
pub(crate) fn interval(idle: Duration, headers: Duration) -> Duration {
    (idle.min(headers) / 4).clamp(Duration::from_millis(10), Duration::from_secs(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn half_sent_headers_are_slow_and_control_frames_are_not() {
        let activity = Activity::new();
        assert_eq!(activity.judge(LONG, Duration::ZERO, HeaderRule::Timed), Verdict::Keep);
        activity.bytes_read();
        assert_eq!(activity.judge(LONG, Duration::ZERO, HeaderRule::Timed), Verdict::SlowHeaders);
        assert_eq!(activity.judge(LONG, Duration::ZERO, HeaderRule::IdleOnly), Verdict::Keep);
        activity.request_began();
        activity.bytes_read();
        assert_eq!(activity.judge(Duration::ZERO, Duration::ZERO, HeaderRule::Timed), Verdict::Keep);
        activity.request_ended();
        assert_eq!(activity.judge(LONG, Duration::ZERO, HeaderRule::Timed), Verdict::Keep);
        assert_eq!(activity.judge(Duration::ZERO, LONG, HeaderRule::IdleOnly), Verdict::Idle);
    }
}

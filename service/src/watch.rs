//! Watching a connection for peers that hold it open without asking for anything.
//!
//! One coarse timer per connection instead of one per request: the stream notes when bytes arrive while no request is
//! under way, the dispatcher notes when requests begin and end, and a few times per timeout somebody looks. A limit is
//! therefore kept to within a quarter of itself. The same look finds answers that are not read.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::answers::{Answers, Reading};
use crate::budget::Account;
use crate::clock::monotonic;
use crate::config::Limits;

/// What happened on a connection, in milliseconds of the monotonic clock, shifted by one so that 0 means "not".
#[derive(Debug)]
pub(crate) struct Activity {
    /// Requests under way.
    active: AtomicU32,
    /// When the last request ended, or the connection began.
    idle_since: AtomicU64,
    /// When the first bytes of a request came in that has not begun yet.
    headers_since: AtomicU64,
    answers: Answers,
    /// Bytes of request bodies.
    bodies: Arc<Account>,
    /// Bytes of answers that there is no room for yet.
    waiting: Arc<Account>,
}

/// What to do with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Keep,
    /// No request for too long: say goodbye and close.
    Idle,
    /// Headers that do not end: close.
    SlowHeaders,
    /// An answer that the peer does not read: close.
    Unread,
}

fn now() -> u64 {
    u64::try_from(monotonic().as_millis()).unwrap_or(u64::MAX - 1) + 1
}

impl Activity {
    pub(crate) fn new(answers: Arc<Account>, bodies: Arc<Account>, waiting: Arc<Account>) -> Self {
        Self {
            active: AtomicU32::new(0),
            idle_since: AtomicU64::new(now()),
            headers_since: AtomicU64::new(0),
            answers: Answers::new(answers),
            bodies,
            waiting,
        }
    }

    /// The answers under way.
    pub(crate) const fn answers(&self) -> &Answers {
        &self.answers
    }

    /// Where the bytes of request bodies are counted, until they are answered.
    pub(crate) const fn bodies(&self) -> &Arc<Account> {
        &self.bodies
    }

    /// Where the bytes of answers are counted that wait for room.
    pub(crate) const fn waiting(&self) -> &Arc<Account> {
        &self.waiting
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

    /// The last byte of its response went, or it was given up.
    pub(crate) fn request_ended(&self) {
        if self.active.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.headers_since.store(0, Ordering::Relaxed);
            self.idle_since.store(now(), Ordering::Relaxed);
        }
    }

    pub(crate) fn judge(&self, limits: &Limits, rule: HeaderRule) -> Verdict {
        let (idle, headers) = (limits.idle_timeout, limits.header_timeout);
        if self.answers.judge(monotonic(), limits.stall_timeout, limits.body_timeout) == Reading::Stuck {
            return Verdict::Unread;
        }
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
pub(crate) fn interval(limits: &Limits) -> Duration {
    let shortest = limits.idle_timeout.min(limits.header_timeout).min(limits.stall_timeout);
    (shortest.min(limits.body_timeout) / 4).clamp(Duration::from_millis(10), Duration::from_secs(2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::{Budget, Standing};
    use crate::config::LimitsConfig;

    fn limits(idle: Duration, headers: Duration) -> Limits {
        let mut limits = LimitsConfig::default().validate().unwrap();
        (limits.idle_timeout, limits.header_timeout) = (idle, headers);
        limits
    }

    #[test]
    fn half_sent_headers_are_slow_and_control_frames_are_not() {
        const LONG: Duration = Duration::from_secs(3600);
        let at_once = Duration::ZERO;
        let budget = Arc::new(Budget::new(1, 1));
        let account = Account::new(&budget, &Arc::default(), Standing::Anonymous, &Arc::default());
        let activity = Activity::new(Arc::clone(&account), Arc::clone(&account), account);
        let judge = |idle, headers, rule| activity.judge(&limits(idle, headers), rule);
        assert_eq!(judge(LONG, at_once, HeaderRule::Timed), Verdict::Keep);
        activity.bytes_read();
        assert_eq!(judge(LONG, at_once, HeaderRule::Timed), Verdict::SlowHeaders);
        assert_eq!(judge(LONG, at_once, HeaderRule::IdleOnly), Verdict::Keep);
        activity.request_began();
        activity.bytes_read();
        assert_eq!(judge(at_once, at_once, HeaderRule::Timed), Verdict::Keep);
        activity.request_ended();
        assert_eq!(judge(LONG, at_once, HeaderRule::Timed), Verdict::Keep);
        assert_eq!(judge(at_once, LONG, HeaderRule::IdleOnly), Verdict::Idle);
    }
}

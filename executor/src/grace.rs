//! The time that calls in flight still have when their agent may run no longer.
//!
//! An operator's order gives them time, and so does a verification that admits their agent no longer. Each of the two gives it once, for
//! as long as it lasts without interruption: a look at the same, another reason of the same kind, or an order with more time adds
//! nothing, one with less takes. Where both apply the calls end by whichever leaves them less, so that neither hides the other.

use std::time::Instant;

use crate::executor::Withdrawal;
use crate::runtime::KillCause;

/// What ends calls, and by whose word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ending {
    pub(crate) withdrawal: Withdrawal,
    pub(crate) cause: KillCause,
    /// The reason code.
    pub(crate) code: &'static str,
}

/// Everything that ends the calls of one agent now.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Endings {
    /// An operator's order.
    pub(crate) ordered: Option<Ending>,
    /// What verification says, whether or not there is an order.
    pub(crate) verified: Option<Ending>,
}

/// What is to be done about calls in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// They are stopped now.
    Now(Ending),
    /// Somebody is to ask again at this time.
    At(Instant),
    /// Nothing: they may run on, or somebody asks when their time is up.
    Nothing,
}

/// When the calls of one agent end.
#[derive(Debug, Default)]
pub(crate) struct Grace {
    ordered: Option<Deadline>,
    verified: Option<Deadline>,
}

#[derive(Debug, Clone, Copy)]
struct Deadline {
    until: Instant,
    ending: Ending,
}

impl Grace {
    /// Goes on with what ends calls now; what is to be done about them.
    pub(crate) fn renew(&mut self, endings: Endings, now: Instant) -> Due {
        let before = self.first().map(|deadline| deadline.until);
        self.ordered = Deadline::renewed(self.ordered, endings.ordered, now);
        self.verified = Deadline::renewed(self.verified, endings.verified, now);
        match self.first() {
            None => Due::Nothing,
            // At every look, also what was registered since the last one.
            Some(deadline) if deadline.until <= now => Due::Now(deadline.ending),
            Some(deadline) if before == Some(deadline.until) => Due::Nothing,
            Some(deadline) => Due::At(deadline.until),
        }
    }

    /// What ends calls whose time is up by now.
    pub(crate) fn over(&self, now: Instant) -> Option<Ending> {
        self.first().filter(|deadline| deadline.until <= now).map(|deadline| deadline.ending)
    }

    /// The one that leaves less time. What was found out is told rather than what somebody ordered.
    fn first(&self) -> Option<Deadline> {
        match (self.verified, self.ordered) {
            (Some(verified), Some(ordered)) if ordered.until < verified.until => Some(ordered),
            (verified, ordered) => verified.or(ordered),
        }
    }
}

impl Deadline {
    /// The deadline by what ends calls now, and no later than the one before.
    fn renewed(before: Option<Self>, ending: Option<Ending>, now: Instant) -> Option<Self> {
        let ending = ending?;
        let until = match ending.withdrawal {
            // A time past the end of all time, which nobody sets, is none.
            Withdrawal::Drain(time) => now.checked_add(time).unwrap_or(now),
            Withdrawal::Stop => now,
        };
        Some(Self { until: before.map_or(until, |before| before.until.min(until)), ending })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock;

    const SECOND: Duration = Duration::from_secs(1);

    fn drain(seconds: u32, code: &'static str) -> Option<Ending> {
        let withdrawal = Withdrawal::Drain(seconds * SECOND);
        Some(Ending { withdrawal, cause: KillCause::Stale, code })
    }

    fn stop(code: &'static str) -> Option<Ending> {
        Some(Ending { withdrawal: Withdrawal::Stop, cause: KillCause::Revoked, code })
    }

    fn code(due: Due) -> Option<&'static str> {
        match due {
            Due::Now(ending) => Some(ending.code),
            Due::At(_) | Due::Nothing => None,
        }
    }

    #[test]
    fn whichever_leaves_less_time_ends_the_calls() {
        let now = clock::monotonic();
        let mut grace = Grace::default();
        let held = |seconds| Endings { ordered: drain(seconds, "withheld"), verified: None };
        assert_eq!(grace.renew(held(3600), now), Due::At(now + 3600 * SECOND));
        // A second order.
        assert_eq!(grace.renew(held(5), now + SECOND), Due::At(now + 6 * SECOND));
        assert_eq!(grace.renew(held(3600), now + SECOND), Due::Nothing, "more time is none");
        let both = Endings { verified: drain(2, "revocation_stale"), ..held(3600) };
        assert_eq!(grace.renew(both, now + SECOND), Due::At(now + 3 * SECOND));
        assert_eq!(grace.over(now + 2 * SECOND), None);
        assert_eq!(grace.over(now + 3 * SECOND).map(|ending| ending.code), Some("revocation_stale"));
        let revoked = Endings { verified: stop("revoked"), ..held(3600) };
        assert_eq!(code(grace.renew(revoked, now + 2 * SECOND)), Some("revoked"));
        assert_eq!(code(grace.renew(revoked, now + 2 * SECOND)), Some("revoked"), "at every look");
    }

    #[test]
    fn time_is_given_once_for_as_long_as_a_reason_lasts() {
        let now = clock::monotonic();
        let mut grace = Grace::default();
        let stale = |code| Endings { ordered: None, verified: drain(30, code) };
        assert_eq!(grace.renew(stale("revocation_stale"), now), Due::At(now + 30 * SECOND));
        assert_eq!(grace.renew(stale("checkpoint_stale"), now + 20 * SECOND), Due::Nothing);
        assert_eq!(grace.over(now + 30 * SECOND).map(|ending| ending.code), Some("checkpoint_stale"));
        // An order is no interruption, and gives what ended no further time.
        let held = Endings { ordered: drain(60, "withheld"), ..stale("checkpoint_stale") };
        assert_eq!(grace.renew(held, now + 20 * SECOND), Due::Nothing);
        // What ended ends nothing; the order still does, at its own time.
        let held = Endings { verified: None, ..held };
        assert_eq!(grace.renew(held, now + 25 * SECOND), Due::At(now + 80 * SECOND));
        assert_eq!(grace.over(now + 79 * SECOND), None);
        assert_eq!(grace.renew(Endings::default(), now + 79 * SECOND), Due::Nothing);
        assert_eq!(grace.over(now + 80 * SECOND), None);
        let again = grace.renew(stale("revocation_stale"), now + 90 * SECOND);
        assert_eq!(again, Due::At(now + 120 * SECOND), "a refusal after that gives its own time");
    }
}

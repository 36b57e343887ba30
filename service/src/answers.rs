//! Answers under way: how many bytes they hold, and whether their peer reads them.
//!
//! An answer is under way from the moment a route made it until its last byte went to the transport. A peer decides how
//! long that takes: an HTTP/2 client need not open a window, an HTTP/1.1 client need not read. Two rules bound what that
//! costs:
//!
//! - [`Budget`](crate::budget::Budget): bytes of answers under way, of all peers together and of each. Beyond it the slowest
//!   give way.
//! - [`Answers::judge`]: an answer makes progress, or its connection ends. Nothing may pause for longer than the stall
//!   timeout, and beyond the body timeout every answer must get its share of [`SLOWEST`]: the rule of request bodies, but
//!   several answers of a connection share its bandwidth.
//!
//! An answer of up to [`SMALL`] bytes costs some additions to counters of its own connection: no lock, no timer, no
//! allocation. It is not watched byte by byte; it must have gone within the body timeout.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::body::SLOWEST;
use crate::budget::Account;
use crate::clock::monotonic;

/// Longest answer, in bytes, that is counted only.
const SMALL: u64 = 64 * 1024;
/// Quarters of the body timeout after which an answer is late, and the places of the wheel that tells them apart: a power
/// of two above it.
const LATE: usize = 5;
const PLACES: usize = 8;

/// How an answer is watched.
#[derive(Debug)]
pub(crate) enum Watched {
    /// By when it began: its place in the wheel.
    Small(usize),
    /// By the bytes that went.
    Long(Arc<AtomicU64>),
}

/// The answers under way on one connection.
#[derive(Debug)]
pub(crate) struct Answers {
    /// The bytes that they hold.
    account: Arc<Account>,
    /// Which quarter of a body timeout this is.
    quarter: AtomicUsize,
    /// Small answers by the quarter in which they began.
    small: [AtomicU32; PLACES],
    long: Mutex<LongAnswers>,
}

#[derive(Debug)]
struct LongAnswers {
    answers: Vec<Long>,
    /// Bytes that an answer would have got so far, had it always been there and had its share.
    share: u64,
    /// When somebody looked last.
    looked: Duration,
    /// When the quarter began.
    turned: Duration,
}

#[derive(Debug)]
struct Long {
    sent: Arc<AtomicU64>,
    began: Duration,
    /// What had gone when somebody looked, and when that changed.
    seen: u64,
    moved: Duration,
    /// The share when its patience was over: from then on it must keep up.
    due_from: Option<u64>,
}

/// Whether a peer reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    Reads,
    Stuck,
}

impl Answers {
    pub(crate) fn new(account: Arc<Account>) -> Self {
        let now = monotonic();
        let long = LongAnswers { answers: Vec::new(), share: 0, looked: now, turned: now };
        Self {
            account,
            quarter: AtomicUsize::new(0),
            small: std::array::from_fn(|_| AtomicU32::new(0)),
            long: Mutex::new(long),
        }
    }

    /// Where their bytes are counted.
    pub(crate) const fn account(&self) -> &Arc<Account> {
        &self.account
    }

    pub(crate) fn watch(&self, bytes: u64) -> Watched {
        if bytes <= SMALL {
            let place = self.quarter.load(Ordering::Relaxed) % PLACES;
            if let Some(count) = self.small.get(place) {
                count.fetch_add(1, Ordering::Relaxed);
            }
            return Watched::Small(place);
        }
        let (sent, now) = (Arc::new(AtomicU64::new(0)), monotonic());
        let long = Long { sent: Arc::clone(&sent), began: now, seen: 0, moved: now, due_from: None };
        self.long().answers.push(long);
        Watched::Long(sent)
    }

    pub(crate) fn forget(&self, watched: &Watched) {
        match watched {
            Watched::Small(place) => {
                if let Some(count) = self.small.get(*place) {
                    count.fetch_sub(1, Ordering::Relaxed);
                }
            }
            Watched::Long(sent) => self.long().answers.retain(|long| !Arc::ptr_eq(&long.sent, sent)),
        }
    }

    /// Looks at all of them. `stall` is the longest pause, `patience` the time that an answer has at least.
    pub(crate) fn judge(&self, now: Duration, stall: Duration, patience: Duration) -> Reading {
        let mut long = self.long();
        if long.judge(now, stall, patience) == Reading::Stuck {
            return Reading::Stuck;
        }
        if now.saturating_sub(long.turned) < patience / 4 {
            return Reading::Reads;
        }
        long.turned = now;
        let quarter = self.quarter.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        let late = self.small.get(quarter.wrapping_sub(LATE) % PLACES);
        if late.is_some_and(|count| count.load(Ordering::Relaxed) > 0) {
            Reading::Stuck
        } else {
            Reading::Reads
        }
    }

    fn long(&self) -> std::sync::MutexGuard<'_, LongAnswers> {
        self.long.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LongAnswers {
    fn judge(&mut self, now: Duration, stall: Duration, patience: Duration) -> Reading {
        let millis = u64::try_from(now.saturating_sub(self.looked).as_millis()).unwrap_or(u64::MAX);
        self.looked = now;
        let each =
            millis.saturating_mul(SLOWEST) / 1000 / u64::try_from(self.answers.len().max(1)).unwrap_or(1);
        self.share = self.share.saturating_add(each);
        for answer in &mut self.answers {
            let sent = answer.sent.load(Ordering::Relaxed);
            if sent != answer.seen {
                (answer.seen, answer.moved) = (sent, now);
            } else if now.saturating_sub(answer.moved) >= stall {
                return Reading::Stuck;
            }
            if now.saturating_sub(answer.began) >= patience {
                let from = *answer.due_from.get_or_insert(self.share);
                if self.share - from > sent {
                    return Reading::Stuck;
                }
            }
        }
        Reading::Reads
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::{Budget, Standing};

    const MIB: u64 = 1024 * 1024;
    const SECOND: Duration = Duration::from_secs(1);

    fn answers() -> Answers {
        let budget = Arc::new(Budget::new(10 * MIB, 4 * MIB));
        Answers::new(Account::new(&budget, &Arc::default(), Standing::Anonymous, &Arc::default()))
    }

    #[test]
    fn an_answer_that_pauses_is_stuck_and_one_that_moves_is_not() {
        let answers = answers();
        let began = monotonic();
        let Watched::Long(sent) = answers.watch(MIB) else { panic!("it is long") };
        let judge = |after: u32| answers.judge(began + SECOND * after, SECOND * 20, SECOND * 1000);
        assert_eq!(judge(19), Reading::Reads);
        sent.fetch_add(1, Ordering::Relaxed);
        assert_eq!(judge(21), Reading::Reads);
        assert_eq!(judge(40), Reading::Reads);
        assert_eq!(judge(41), Reading::Stuck);
        answers.forget(&Watched::Long(sent));
        assert_eq!(judge(42), Reading::Reads);
    }

    /// Dripping does not hold an answer for ever, and answers that share a slow line are not taken for it.
    #[test]
    fn beyond_its_patience_an_answer_needs_its_share_of_the_slowest_rate() {
        for (count, rate, ends) in
            [(1, 64, true), (1, SLOWEST, false), (16, SLOWEST / 16, false), (16, 64, true)]
        {
            let answers = answers();
            let began = monotonic();
            let watched: Vec<_> = (0..count).map(|_| answers.watch(16 * MIB)).collect();
            let mut reading = Reading::Reads;
            for second in 1..=300 {
                for answer in &watched {
                    let Watched::Long(sent) = answer else { panic!("it is long") };
                    sent.fetch_add(rate, Ordering::Relaxed);
                }
                reading = answers.judge(began + SECOND * second, SECOND * 20, SECOND * 60);
                assert!(reading == Reading::Reads || second >= 60, "{count} {rate}: stuck after {second} s");
                if reading == Reading::Stuck {
                    break;
                }
            }
            assert_eq!(reading == Reading::Stuck, ends, "{count} answers at {rate} bytes a second");
        }
    }

    #[test]
    fn a_small_answer_is_late_after_the_patience_and_not_before() {
        let answers = answers();
        let began = monotonic();
        let judge = |after: u32| answers.judge(began + SECOND * after, SECOND * 20, SECOND * 60);
        // Answers that end make no difference, in whichever quarter.
        for quarter in 0..20 {
            let gone = answers.watch(10);
            assert_eq!(judge(quarter * 16), Reading::Reads);
            answers.forget(&gone);
        }
        let stays = answers.watch(SMALL);
        let until = (0..).map(|second| 304 + second).find(|second| judge(*second) == Reading::Stuck).unwrap();
        assert!((364..=382).contains(&until), "{until}");
        answers.forget(&stays);
        assert_eq!(judge(until + 100), Reading::Reads);
    }
}

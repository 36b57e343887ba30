//! How a release takes over, and when it is taken back. Pure: time and counts are arguments.

use std::time::Duration;

use executor_api::deployment::{Deploy, Strategy};
use serde::{Deserialize, Serialize};

use super::counts::Counts;
use crate::admission::Denied;

/// Most steps of a plan.
const MAX_STEPS: usize = 32;

/// Longest step: a day.
const MAX_STEP_MS: u64 = 86_400_000;

/// A p99 below this is never a reason: differences of microseconds are noise.
const P99_FLOOR: Duration = Duration::from_millis(5);

/// A validated plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) strategy: Strategy,
    /// Shares in percent, rising to 100.
    pub(crate) steps: Vec<u8>,
    /// Shortest time of one step, milliseconds.
    pub(crate) step_ms: u64,
    /// Calls of the candidate before a step is judged good.
    pub(crate) min_calls: u64,
    /// Failed calls, in percent above the old release's, from which the candidate is taken back.
    pub(crate) max_error_percent: u8,
}

/// What to do with a candidate now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It goes on as it is.
    Hold,
    /// It gets its next share.
    Advance,
    /// It has served everything for a whole step: it is the stable release now.
    Promote,
    /// It is taken back.
    RollBack(Failing),
}

/// Why a candidate is taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failing {
    Errors,
    Slow,
}

impl Failing {
    /// The stable reason code.
    pub(crate) const fn code(self) -> &'static str {
        match self {
            Self::Errors => "error_rate",
            Self::Slow => "latency",
        }
    }
}

impl Plan {
    /// Reads a request.
    pub(crate) fn of(request: &Deploy) -> Result<Self, Denied> {
        let (steps, step_ms, min_calls): (&[u8], u64, u64) = match request.strategy {
            Strategy::BlueGreen => (&[100], 10_000, 0),
            Strategy::Canary => (&[1, 5, 25, 50, 100], 10_000, 100),
            Strategy::Rolling => (&[25, 50, 75, 100], 2_000, 0),
        };
        let steps = if request.steps.is_empty() { steps.to_vec() } else { request.steps.clone() };
        let invalid = |text: &str| Err(Denied::new("invalid_argument", text));
        if steps.len() > MAX_STEPS
            || steps.last() != Some(&100)
            || steps.first() == Some(&0)
            || !steps.is_sorted_by(|a, b| a < b)
        {
            return invalid("`steps` are rising shares in percent, the last one 100");
        }
        if request.strategy == Strategy::BlueGreen && steps.len() != 1 {
            return invalid("a blue-green deployment has one step");
        }
        let step_ms = request.step_ms.unwrap_or(step_ms);
        if step_ms > MAX_STEP_MS {
            return invalid("a step lasts a day at most");
        }
        let max_error_percent = request.max_error_percent.unwrap_or(5);
        if max_error_percent > 100 {
            return invalid("`max_error_percent` is at most 100");
        }
        Ok(Self {
            strategy: request.strategy,
            steps,
            step_ms,
            min_calls: request.min_calls.unwrap_or(min_calls),
            max_error_percent,
        })
    }

    /// The share of step `step`, percent.
    pub(crate) fn percent(&self, step: usize) -> u8 {
        self.steps.get(step).copied().unwrap_or(100)
    }

    /// Judges a candidate by what it did since its step began, against the old release in the same time. `usual` is what
    /// [`Self::usual`] says of the old release.
    pub(crate) fn judge(
        &self,
        step: usize,
        elapsed_ms: u64,
        usual: Option<Duration>,
        old: &Counts,
        new: &Counts,
    ) -> Decision {
        if let Some(failing) = self.failing(usual, old, new) {
            return Decision::RollBack(failing);
        }
        if elapsed_ms < self.step_ms || new.calls < self.min_calls {
            return Decision::Hold;
        }
        // More calls wait for an answer, or did until their callers gave up, than ever had one: that they will is not known. Where it
        // is known how long calls take, only those count that were given up after longer: callers who open calls and drop them at
        // once hold nothing. And of few calls one that failed may have been chance, and most of them are not.
        let given_up = match self.known(usual, new) {
            Some(usual) => new.abandoned.after(too_long(usual)),
            None => new.abandoned.count(),
        };
        let without = new.under_way.saturating_add(given_up);
        if without > new.calls || new.failed > new.calls / 2 {
            return Decision::Hold;
        }
        if step + 1 < self.steps.len() { Decision::Advance } else { Decision::Promote }
    }

    /// How long calls of the old release take: by this step where it was asked enough, or else by an earlier one.
    pub(crate) fn usual(&self, old: &Counts, earlier: Option<Duration>) -> Option<Duration> {
        if old.calls >= self.enough() { Some(old.p99) } else { earlier }
    }

    /// So few calls that a single failure would decide say nothing yet.
    fn enough(&self) -> u64 {
        self.min_calls.clamp(10, 100)
    }

    /// How long calls take, where anything says so.
    fn known(&self, usual: Option<Duration>, new: &Counts) -> Option<Duration> {
        usual.or((new.calls >= self.enough()).then_some(new.p99))
    }

    fn failing(&self, usual: Option<Duration>, old: &Counts, new: &Counts) -> Option<Failing> {
        let enough = self.enough();
        // A call whose caller gave up failed if it was slow by then. Where it is not known how long calls take nothing follows:
        // callers give up for reasons of their own, too.
        let usual = self.known(usual, new);
        let slow = |counts: &Counts| usual.map_or(0, |usual| counts.abandoned.after(too_long(usual)));
        let failed = |counts: &Counts| counts.failed.saturating_add(slow(counts)).saturating_mul(100);
        let calls = |counts: &Counts| counts.calls.saturating_add(slow(counts));
        if calls(new) < enough {
            return None;
        }
        // Where the old release is asked too little to compare with, it counts as without failures.
        let before = if old.calls < enough { 0 } else { failed(old) / calls(old) };
        if failed(new).div_ceil(calls(new)) > before.saturating_add(self.max_error_percent.into()) {
            return Some(Failing::Errors);
        }
        let compared = new.calls >= enough && old.calls >= enough;
        (compared && new.p99 > too_long(old.p99)).then_some(Failing::Slow)
    }
}

/// What a time of the candidate may be at most, beside those of the old release.
fn too_long(usual: Duration) -> Duration {
    P99_FLOOR.max(usual.saturating_mul(4))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deployments::counts::Counters;

    fn plan(strategy: Strategy) -> Plan {
        Plan::of(&request(strategy)).unwrap()
    }

    fn request(strategy: Strategy) -> Deploy {
        Deploy {
            agent: "a.b".into(),
            digest: String::new(),
            strategy,
            steps: Vec::new(),
            step_ms: None,
            min_calls: None,
            max_error_percent: None,
        }
    }

    fn counts(calls: u64, failed: u64, p99_ms: u64) -> Counts {
        Counts { calls, failed, p99: Duration::from_millis(p99_ms), ..Counts::default() }
    }

    /// The same with so many calls that were given up after this time.
    fn given_up(counts: Counts, calls: u64, after_ms: u64) -> Counts {
        let counters = Counters::default();
        (0..calls).for_each(|_| counters.abandon(Duration::from_millis(after_ms)));
        Counts { abandoned: counters.read().abandoned, ..counts }
    }

    /// Judges by this step alone.
    fn judge(plan: &Plan, step: usize, elapsed_ms: u64, old: &Counts, new: &Counts) -> Decision {
        plan.judge(step, elapsed_ms, plan.usual(old, None), old, new)
    }

    #[test]
    fn a_canary_waits_for_time_and_for_calls() {
        let plan = plan(Strategy::Canary);
        let good = counts(1000, 0, 1);
        assert_eq!(judge(&plan, 0, 9_999, &good, &good), Decision::Hold);
        assert_eq!(judge(&plan, 0, 10_000, &good, &counts(99, 0, 1)), Decision::Hold);
        assert_eq!(judge(&plan, 0, 10_000, &good, &counts(100, 0, 1)), Decision::Advance);
        assert_eq!(judge(&plan, 4, 10_000, &good, &counts(100, 0, 1)), Decision::Promote);
    }

    #[test]
    fn errors_above_those_of_the_old_release_end_it_at_once() {
        let plan = plan(Strategy::Canary);
        let back = Decision::RollBack(Failing::Errors);
        assert_eq!(judge(&plan, 0, 0, &counts(1000, 0, 1), &counts(100, 6, 1)), back);
        assert_eq!(judge(&plan, 0, 0, &counts(1000, 0, 1), &counts(100, 5, 1)), Decision::Hold);
        assert_eq!(
            judge(&plan, 0, 0, &counts(1000, 100, 1), &counts(100, 15, 1)),
            Decision::Hold,
            "the old one fails as often"
        );
        assert_eq!(judge(&plan, 0, 0, &counts(0, 0, 0), &counts(100, 6, 1)), back, "nothing to compare with");
        assert_eq!(
            judge(&plan, 0, 0, &counts(1000, 0, 1), &counts(5, 5, 1)),
            Decision::Hold,
            "too few calls"
        );
    }

    #[test]
    fn a_slow_release_is_taken_back_and_noise_is_not_slowness() {
        let plan = plan(Strategy::Rolling);
        let slow = Decision::RollBack(Failing::Slow);
        assert_eq!(judge(&plan, 0, 0, &counts(100, 0, 2), &counts(100, 0, 9)), slow);
        assert_eq!(judge(&plan, 0, 0, &counts(100, 0, 1), &counts(100, 0, 5)), Decision::Hold);
        assert_eq!(
            judge(&plan, 0, 0, &counts(5, 0, 1), &counts(100, 0, 500)),
            Decision::Hold,
            "nothing to compare with"
        );
    }

    #[test]
    fn a_release_whose_calls_do_not_end_is_not_promoted() {
        let plan = plan(Strategy::Rolling);
        let none = counts(0, 0, 0);
        assert_eq!(judge(&plan, 3, 2_000, &none, &none), Decision::Promote, "nobody asks it");
        let hanging = Counts { under_way: 1, ..none };
        assert_eq!(judge(&plan, 3, 2_000, &none, &hanging), Decision::Hold);
        let busy = Counts { under_way: 8, ..counts(8, 0, 1) };
        assert_eq!(judge(&plan, 3, 2_000, &none, &busy), Decision::Promote);
    }

    #[test]
    fn callers_who_give_up_on_a_release_that_is_as_fast_as_before_do_not_take_it_back() {
        let plan = plan(Strategy::BlueGreen);
        let none = counts(0, 0, 0);
        // All calls are its own from the first: there is no old release to compare with, and its calls take 200 ms.
        let hedged = given_up(counts(100, 0, 262), 40, 100);
        assert_eq!(judge(&plan, 0, 10_000, &none, &hedged), Decision::Promote);
        let early = given_up(counts(3, 0, 262), 10, 100);
        assert_eq!(judge(&plan, 0, 10_000, &none, &early), Decision::Hold, "nothing says that it is slow");
        // By its own calls, by the old release's now, and by those of an earlier step.
        let back = Decision::RollBack(Failing::Errors);
        let hanging = given_up(counts(100, 0, 1), 40, 100);
        assert_eq!(judge(&plan, 0, 0, &none, &hanging), back);
        assert_eq!(judge(&plan, 0, 0, &counts(100, 0, 1), &given_up(none, 10, 100)), back);
        assert_eq!(plan.judge(0, 0, Some(Duration::from_millis(1)), &none, &given_up(none, 10, 100)), back);
        assert_eq!(
            judge(&plan, 0, 0, &given_up(counts(100, 0, 1), 40, 100), &hanging),
            Decision::Hold,
            "callers gave up on the old one as often"
        );
    }

    #[test]
    fn callers_who_open_calls_and_drop_them_hold_no_release_that_answers_others() {
        let plan = plan(Strategy::Rolling);
        let none = counts(0, 0, 0);
        assert_eq!(judge(&plan, 3, 2_000, &none, &given_up(counts(20, 0, 1), 1_000, 0)), Decision::Promote);
        assert_eq!(
            plan.judge(3, 2_000, Some(Duration::from_millis(1)), &none, &given_up(counts(3, 0, 1), 1_000, 0)),
            Decision::Promote
        );
        // As long as nothing says how long calls take, they may have hung.
        assert_eq!(judge(&plan, 3, 2_000, &none, &given_up(counts(3, 0, 1), 5, 0)), Decision::Hold);
    }

    #[test]
    fn what_few_calls_say_against_a_release_holds_it() {
        let plan = plan(Strategy::Rolling);
        let none = counts(0, 0, 0);
        assert_eq!(judge(&plan, 3, 2_000, &none, &counts(9, 9, 1)), Decision::Hold, "all of them failed");
        assert_eq!(judge(&plan, 3, 2_000, &none, &counts(9, 1, 1)), Decision::Promote);
        for step in 0..4 {
            let given_up = given_up(none, 5, 1_000);
            assert_eq!(judge(&plan, step, 2_000, &none, &given_up), Decision::Hold, "nobody had an answer");
        }
    }

    #[test]
    fn plans_that_are_none_are_refused() {
        for steps in [vec![0, 100], vec![50], vec![50, 50, 100], vec![60, 50, 100], vec![101]] {
            let request = Deploy { steps: steps.clone(), ..request(Strategy::Canary) };
            assert_eq!(Plan::of(&request).unwrap_err().code, "invalid_argument", "{steps:?}");
        }
        let request = Deploy { steps: vec![50, 100], ..request(Strategy::BlueGreen) };
        assert!(Plan::of(&request).is_err());
    }
}

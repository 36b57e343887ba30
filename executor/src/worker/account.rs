//! What a worker uses, by the kernel's account, and what it may have used by its calls.
//!
//! An honest worker stops each guest at its budget, and does next to nothing between calls. So what it used since it began to
//! serve is at most: for each call its budget and the few ticks until a guest beyond it is stopped, or the time that the call took where that is less, since a guest has one thread;
//! a little for every call, for what is tidied up after it; and a share of the time, for its clock. What a call did not use of
//! its budget is nobody's: otherwise a worker could save up in calls that sleep what it burns later.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use executor_engine::limits::EPOCH_TICK_MILLIS;

/// What may be used beyond the account: mapping and tidying up, several calls at once.
const SLACK: Duration = Duration::from_millis(500);

/// How far the kernel's account may be behind: two ticks of its clock, and a look in between.
const GRAIN: Duration = Duration::from_millis(50);

/// How far a guest gets beyond its budget: its thread is first looked at when it has run for a tick, then once a tick, and it was
/// made before.
const OVERRUN: Duration = Duration::from_millis(3 * EPOCH_TICK_MILLIS);

/// What a call costs after its end.
const AFTER_CALL: Duration = Duration::from_millis(1);

/// One in so many: the share of the time that a worker needs for the tick of its engine.
const IDLE_SHARE: u32 = 50;

/// Where the kernel keeps its account of one process.
pub(super) struct Meter {
    stat: File,
    status: File,
}

impl Meter {
    /// That of this process, which must live.
    pub(super) fn of(process: u32) -> std::io::Result<Self> {
        let open = |name: &str| File::open(format!("/proc/{process}/{name}"));
        Self::read_from(open("stat")?, open("status")?)
    }

    /// One that is read from these, which must say something.
    pub(super) fn read_from(stat: File, status: File) -> std::io::Result<Self> {
        let meter = Self { stat, status };
        meter.cpu()?;
        meter.memory()?;
        Ok(meter)
    }

    /// Processor time that the process has used.
    pub(super) fn cpu(&self) -> std::io::Result<Duration> {
        let mut text = [0u8; 1024];
        cpu_of(read(&self.stat, &mut text)?).ok_or_else(unreadable)
    }

    /// Memory that the process has taken, bytes: resident, swapped out, and the tables of its pages.
    pub(super) fn memory(&self) -> std::io::Result<u64> {
        let mut text = [0u8; 8192];
        memory_of(read(&self.status, &mut text)?).ok_or_else(unreadable)
    }
}

fn read<'a>(file: &File, into: &'a mut [u8]) -> std::io::Result<&'a [u8]> {
    let count = file.read_at(into, 0)?;
    into.get(..count).ok_or_else(unreadable)
}

fn unreadable() -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, "not what the kernel writes")
}

/// User and system time of a line of `/proc/PID/stat`. The name in it may hold anything, so fields are counted from its end.
fn cpu_of(line: &[u8]) -> Option<Duration> {
    let text = std::str::from_utf8(line).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    let ticks = ticks()?.saturating_add(ticks()?);
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    Some(Duration::from_millis(ticks.saturating_mul(1000) / per_second))
}

/// What a `/proc/PID/status` counts as the process's own. One that has ended takes nothing and has no such lines.
fn memory_of(text: &[u8]) -> Option<u64> {
    let text = String::from_utf8_lossy(text);
    if !text.starts_with("Name:") {
        return None;
    }
    let kibibytes = |line: &str| line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok();
    let counted = |line: &&str| ["VmRSS:", "VmPTE:", "VmSwap:"].iter().any(|name| line.starts_with(name));
    text.lines()
        .filter(counted)
        .try_fold(0u64, |sum, line| Some(sum.saturating_add(kibibytes(line)?.saturating_mul(1024))))
}

/// Something that a worker was given processor time for, and that is under way.
#[derive(Debug)]
struct Open {
    number: u64,
    began: Instant,
    budget: Duration,
}

impl Open {
    fn allows(&self, now: Instant) -> Duration {
        self.budget.saturating_add(OVERRUN).min(now.saturating_duration_since(self.began))
    }
}

/// What a worker may have used.
#[derive(Debug)]
pub(super) struct Ledger {
    /// For all that is over. Never far above what was used by then.
    charged: Duration,
    open: Vec<Open>,
    next: u64,
    looked: Instant,
}

impl Ledger {
    /// Of a worker that begins to serve, when it had used this much.
    pub(super) fn new(now: Instant, used: Duration) -> Self {
        Self { charged: used, open: Vec::new(), next: 0, looked: now }
    }

    /// Something with this budget begins; by which it is closed.
    pub(super) fn open(&mut self, now: Instant, used: Duration, budget: Duration) -> u64 {
        self.forfeit(used);
        self.next = self.next.wrapping_add(1);
        self.open.push(Open { number: self.next, began: now, budget });
        self.next
    }

    /// It is over.
    pub(super) fn close(&mut self, number: u64, now: Instant) {
        if let Some(at) = self.open.iter().position(|open| open.number == number) {
            let allowed = self.open.swap_remove(at).allows(now);
            self.charged = self.charged.saturating_add(allowed).saturating_add(AFTER_CALL);
        }
    }

    /// How much is under way.
    pub(super) fn under_way(&self) -> u32 {
        self.open.len().try_into().unwrap_or(u32::MAX)
    }

    /// Whether a worker that has used this much may have.
    pub(super) fn covers(&mut self, now: Instant, used: Duration) -> bool {
        let idle = now.saturating_duration_since(self.looked) / IDLE_SHARE;
        self.looked = self.looked.max(now);
        self.charged = self.charged.saturating_add(idle);
        self.forfeit(used);
        let running = self.open.iter().fold(Duration::ZERO, |sum, open| sum.saturating_add(open.allows(now)));
        used <= self.charged.saturating_add(running).saturating_add(SLACK)
    }

    /// What was not used until now may not be used later.
    fn forfeit(&mut self, used: Duration) {
        self.charged = self.charged.min(used.saturating_add(GRAIN));
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::clock;

    const SECOND: Duration = Duration::from_secs(1);

    /// An account that says what the test writes into it.
    pub(in crate::worker) fn written(cpu: Duration, memory: u64) -> (Meter, [File; 2]) {
        let files = [(); 2].map(|()| tempfile::tempfile().unwrap());
        write(&files, cpu, memory);
        let [stat, status] = [0, 1].map(|at: usize| files[at].try_clone().unwrap());
        (Meter::read_from(stat, status).unwrap(), files)
    }

    pub(in crate::worker) fn write(files: &[File; 2], cpu: Duration, memory: u64) {
        let ticks = cpu.as_millis() * u128::from(rustix::param::clock_ticks_per_second()) / 1000;
        let stat = format!("7 (a) 1 (b) S 1 1 1 0 -1 4194560 1 0 0 0 {ticks} 0 0 0 20 0 1 0");
        let status =
            format!("Name:\tw\nVmRSS:\t  {} kB\nVmPTE:\t 8 kB\nVmSwap:\t 0 kB\nThreads:\t1\n", memory / 1024);
        for (file, text) in files.iter().zip([stat, status]) {
            // In one piece, over what was there.
            file.write_all_at(format!("{text:<256}").as_bytes(), 0).unwrap();
        }
    }

    #[test]
    fn the_kernels_account_is_read_behind_any_name() {
        let (meter, files) = written(Duration::from_millis(2500), 3 << 20);
        assert_eq!(
            (meter.cpu().unwrap(), meter.memory().unwrap()),
            (Duration::from_millis(2500), (3 << 20) + 8192)
        );
        for text in [&b"7 (a) S 1"[..], b"", b"7 (a) 1 1 1 1 1 1 1 1 1 1 1 x 1"] {
            assert_eq!(cpu_of(text), None);
            assert_eq!(memory_of(text), None);
        }
        assert_eq!(memory_of(b"Name:\tw\nVmRSS:\tmany kB\n"), None);
        let own = Meter::of(std::process::id()).unwrap();
        assert!(own.memory().unwrap() > 1 << 20 && own.cpu().unwrap() < 24 * 3600 * SECOND);
        // A process that is gone has none, and nobody takes that for "it used nothing".
        files[0].set_len(0).unwrap();
        assert!(meter.cpu().is_err());
        assert!(Meter::of(u32::MAX).is_err());
    }

    #[test]
    fn what_is_used_between_calls_is_not_covered() {
        let begin = clock::monotonic();
        let mut ledger = Ledger::new(begin, SECOND);
        assert!(ledger.covers(begin + SECOND, SECOND));
        assert!(ledger.covers(begin + 100 * SECOND, SECOND + SECOND), "its clock ticks");
        // It spins without a call.
        assert!(!ledger.covers(begin + 101 * SECOND, 3 * SECOND));
    }

    #[test]
    fn short_calls_are_charged_with_their_time_and_not_with_their_budget() {
        let begin = clock::monotonic();
        let mut ledger = Ledger::new(begin, Duration::ZERO);
        let tick = Duration::from_millis(10);
        // A hundred calls a second, each a millisecond long with five seconds to use, and one second of spinning beside them.
        let mut now = begin;
        for _ in 0..100 {
            let call = ledger.open(now, Duration::ZERO, 5 * SECOND);
            ledger.close(call, now + tick / 10);
            now += tick;
        }
        assert!(!ledger.covers(now, SECOND));
        // What they did use is covered.
        let mut ledger = Ledger::new(begin, Duration::ZERO);
        let mut used = Duration::ZERO;
        for _ in 0..10_000 {
            let call = ledger.open(now, used, 5 * SECOND);
            now += tick / 5;
            used += tick / 5;
            ledger.close(call, now);
            assert!(ledger.covers(now, used));
        }
    }

    #[test]
    fn guests_that_are_stopped_at_their_budget_do_not_end_their_worker() {
        let mut now = clock::monotonic();
        let mut ledger = Ledger::new(now, Duration::ZERO);
        let (budget, mut used) = (SECOND / 10, Duration::ZERO);
        for round in 0..200 {
            let call = ledger.open(now, used, budget);
            now += budget + Duration::from_millis(16);
            used += budget + Duration::from_millis(15);
            assert!(ledger.covers(now, used), "call {round}");
            ledger.close(call, now);
            assert!(ledger.covers(now, used), "after call {round}");
        }
        assert!(!ledger.covers(now, used + SECOND), "nothing was saved up");
    }

    #[test]
    fn a_budget_that_was_slept_through_is_not_saved_up() {
        let begin = clock::monotonic();
        let mut ledger = Ledger::new(begin, Duration::ZERO);
        for round in 0..10 {
            let call = ledger.open(begin + round * 60 * SECOND, Duration::ZERO, 5 * SECOND);
            assert_eq!(ledger.under_way(), 1);
            ledger.close(call, begin + (round + 1) * 60 * SECOND);
        }
        assert_eq!(ledger.under_way(), 0);
        let now = begin + 600 * SECOND;
        assert!(ledger.covers(now, Duration::ZERO));
        assert!(!ledger.covers(now + SECOND, SECOND));
    }

    #[test]
    fn calls_at_the_same_time_may_use_their_budgets_and_no_more() {
        let begin = clock::monotonic();
        let mut ledger = Ledger::new(begin, Duration::ZERO);
        let calls: Vec<u64> = (0..4).map(|_| ledger.open(begin, Duration::ZERO, 2 * SECOND)).collect();
        assert!(ledger.covers(begin + SECOND, 4 * SECOND));
        assert!(!ledger.covers(begin + SECOND, 5 * SECOND), "more than one processor each");
        assert!(ledger.covers(begin + 60 * SECOND, 8 * SECOND));
        assert!(!ledger.covers(begin + 60 * SECOND, 10 * SECOND), "more than they were given");
        calls.into_iter().for_each(|call| ledger.close(call, begin + 60 * SECOND));
        assert!(ledger.covers(begin + 60 * SECOND, 8 * SECOND));
    }
}
